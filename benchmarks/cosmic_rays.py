"""Cosmic rays that are found, and pixels of stars that are taken for rays, by the sharpness of the image.

python -m benchmarks.cosmic_rays [--seeds 4]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ztfxr.arrays.images.cosmic_rays import find_cosmic_rays
from ztfxr.arrays.images.image import Image
from ztfxr.arrays.types import Bools

SIDE, SKY, GAIN, READNOISE = 700, 200.0, 6.2, 9.0
WIDTHS = (1.6, 2.5, 4.0)
STRENGTHS = (10.0, 30.0, 100.0, 1000.0)
_BETA = 3.5


@dataclass(frozen=True)
class Frame:
    """A crowded frame: its noisy pixels with variance, and where rays of each strength and cores of stars are."""

    image: Image
    rays: dict[float, Bools]
    cores: Bools


def make_frame(fwhm: float, seed: int, *, side: int = SIDE, stars: int = 600, rays: int = 60) -> Frame:
    """Moffat stars of all brightnesses and pixel phases, and rays: points and straight tracks."""
    rng = np.random.default_rng(seed)
    light, cores = np.zeros((side, side)), np.zeros((side, side), dtype=bool)
    width, reach = 0.5 * fwhm / np.sqrt(2 ** (1 / _BETA) - 1), 20
    sub = (np.arange(5) - 2) / 5
    for y, x, flux in zip(
        *rng.uniform(reach, side - reach, (2, stars)), 10 ** rng.uniform(2.5, 6.3, stars), strict=True
    ):
        rows, columns = (np.arange(int(c) - reach, int(c) + reach + 1) for c in (y, x))
        dy, dx = (rows[:, None] + sub - y).ravel(), (columns[:, None] + sub - x).ravel()
        fine = (1 + (dy[:, None] ** 2 + dx[None, :] ** 2) / width**2) ** -_BETA
        stamp = fine.reshape(len(rows), 5, len(columns), 5).mean(axis=(1, 3))
        part = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        light[part] += flux * stamp * (_BETA - 1) / (np.pi * width**2)
        cores[round(y) - 1 : round(y) + 2, round(x) - 1 : round(x) + 2] = True
    variance = (light + SKY) / GAIN + (READNOISE / GAIN) ** 2
    noise = float(np.sqrt(SKY / GAIN + (READNOISE / GAIN) ** 2))
    pixels = light + SKY + rng.normal(size=light.shape) * np.sqrt(variance)
    where = {}
    for strength in STRENGTHS:
        where[strength] = _tracks(rng, side, rays) & ~cores
        pixels[where[strength]] += strength * noise
    none = np.zeros((side, side), dtype=bool)
    return Frame(Image.of(pixels.astype(np.float32), variance.astype(np.float32), none), where, cores)


def _tracks(rng: np.random.Generator, side: int, number: int) -> Bools:
    """Half of the rays are points, the others tracks of up to 12 pixels."""
    out = np.zeros((side, side), dtype=bool)
    for k in range(number):
        y, x, angle = *rng.uniform(15, side - 15, 2), rng.uniform(0, np.pi)
        for step in range(1 if k % 2 else int(rng.integers(2, 13))):
            out[int(y + step * np.sin(angle)), int(x + step * np.cos(angle))] = True
    return out


def shares(fwhm: float, seeds: int, *, told: bool = False) -> tuple[dict[float, float], float]:
    """The share of ray pixels found, by their strength, and of the pixels in cores of stars that are lost."""
    hits, lost = {s: [0, 0] for s in STRENGTHS}, [0, 0]
    for seed in range(seeds):
        frame = make_frame(fwhm, seed)
        found = find_cosmic_rays(frame.image, fwhm=fwhm if told else None)
        for strength, rays in frame.rays.items():
            hits[strength][0] += int(found[rays].sum())
            hits[strength][1] += int(rays.sum())
        lost[0] += int(found[frame.cores].sum())
        lost[1] += int(frame.cores.sum())
    return {s: n / max(of, 1) for s, (n, of) in hits.items()}, lost[0] / lost[1]


def table(seeds: int) -> Iterator[str]:
    """The lines that are printed."""
    yield "FWHM (px)   " + "".join(f"{f'{s:g} sigma':>12}" for s in STRENGTHS) + "   star cores lost"
    for fwhm in WIDTHS:
        found, lost = shares(fwhm, seeds)
        yield f"{fwhm:9.1f}   " + "".join(f"{100 * found[s]:11.1f}%" for s in STRENGTHS) + f"{100 * lost:16.4f} %"
    frame = make_frame(2.0, 0, side=3072, stars=6000, rays=400).image
    find_cosmic_rays(frame)
    start = time.perf_counter()
    find_cosmic_rays(frame)
    yield f"a frame of 3072 x 3072 pixels: {time.perf_counter() - start:.2f} s"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=4)
    for line in table(parser.parse_args().seeds):
        print(line, flush=True)


if __name__ == "__main__":
    main()
