"""What says that a difference should not be believed: sabotaged pairs that are caught, clean ones that are not.

python -m benchmarks.verdict [--clean 1000] [--seeds 20]
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import xarray as xr
from scipy import ndimage

import ztfxr
from ztfxr.arrays.types import Floats
from ztfxr.schema import STATUS_PLANES

GAIN, SKY, READNOISE = 6.2, 200.0, 9.0
KINDS = ("crowded", "sparse", "host")
_STARS = {"crowded": 250, "sparse": 12, "host": 0}
_SIDE = {"crowded": 192, "sparse": 128, "host": 63}


@dataclass(frozen=True)
class Pair:
    """Two images with their noise, before and after something is done to them."""

    science: Floats
    variance: Floats
    reference: Floats
    reference_variance: Floats

    def difference(self) -> xr.Dataset:
        """By the defaults, with the middle left out where a host may hold a transient."""
        dims = ("y", "x")
        images = {"sci": self.science, "variance": self.variance}
        known = {"sci": self.reference, "variance": self.reference_variance}
        science, reference = (xr.Dataset({k: (dims, v) for k, v in d.items()}) for d in (images, known))
        return ztfxr.difference(science, reference).compute()


@dataclass(frozen=True)
class Scene:
    """What the sky holds: stars (y, x, flux) and a host, on a square of `side` pixels."""

    side: int
    y: Floats
    x: Floats
    flux: Floats
    host: float
    bulge: float = 0.0

    @classmethod
    def of(cls, kind: str, rng: np.random.Generator) -> Scene:
        side, n = _SIDE[kind], _STARS[kind]
        flux = 10 ** rng.uniform(2.3, 4.9, n)
        host = float(rng.uniform(1000, 5000)) if kind == "host" else 0.0
        return cls(side, *rng.uniform(2, side - 3, (2, n)), flux, host, 2.0 * host)

    def image(self, fwhm: float, *, blur: Callable[[Floats], Floats] | None = None) -> Floats:
        """The light as it falls on the pixels through a Moffat profile, or what `blur` makes of sharp light."""
        width, pad = 0.5 * fwhm / np.sqrt(2 ** (1 / 3.5) - 1), 16
        n = self.side + 2 * pad
        grid = np.mgrid[:n, :n] - (n - 1) / 2
        radius = np.hypot(*grid)
        out = self.host * np.exp(-radius / 4.0) + self.bulge * np.exp(-radius / 1.2)
        rows = np.arange(n)
        for y, x, flux in zip(self.y + pad, self.x + pad, self.flux, strict=True):
            square = (rows[:, None] - y) ** 2 + (rows[None, :] - x) ** 2
            out += flux * 2.5 / (np.pi * width**2) * (1 + square / width**2) ** -3.5
        if self.host:
            out = ndimage.gaussian_filter(out, fwhm / 2.355)
        out = out if blur is None else blur(out)
        return np.asarray(out[pad:-pad, pad:-pad])


def _noisy(light: Floats, rng: np.random.Generator, exposures: float = 1.0) -> tuple[Floats, Floats]:
    variance = ((light + SKY) / GAIN + (READNOISE / GAIN) ** 2) / exposures
    return light + rng.normal(size=light.shape) * np.sqrt(variance), variance


def make_pair(kind: str, seed: int, sabotage: str = "") -> Pair:
    """A pair of one kind of field; `sabotage` is one of `SABOTAGES`."""
    rng = np.random.default_rng(seed)
    scene = Scene.of(kind, rng)
    sharp, broad, scale = rng.uniform(2.0, 2.4), rng.uniform(2.2, 3.2), rng.uniform(0.7, 1.2)
    exposures = float(rng.choice([1.0, 8.0, 30.0] if kind == "crowded" else [8.0, 30.0]))
    seen = _reddened(scene, rng) if sabotage == "other filter" else scene
    light = scale * seen.image(broad, blur=_BLURS.get(sabotage))
    if sabotage == "clouded by half":
        light *= np.where(np.arange(scene.side) < scene.side // 2, 0.5, 1.0)
    pair = Pair(*_noisy(light, rng), *_noisy(scene.image(sharp), rng, exposures))
    return _NOISE[sabotage](pair) if sabotage in _NOISE else pair


def _reddened(scene: Scene, rng: np.random.Generator) -> Scene:
    """Stars of every color; the bulge of a host is redder than its disk."""
    return replace(scene, flux=scene.flux * 10 ** rng.normal(0, 0.2, len(scene.flux)), bulge=2.5 * scene.bulge)


def _shifted(light: Floats, by: float) -> Floats:
    return np.asarray(ndimage.shift(light, (by, 0), order=3, mode="nearest"))


def _trailed(light: Floats) -> Floats:
    return np.asarray(ndimage.uniform_filter1d(light, 13, axis=1))


def _defocused(light: Floats) -> Floats:
    radius = np.hypot(*(np.mgrid[-9:10, -9:10]))
    ring = ((radius > 4.5) & (radius < 8)).astype(np.float64)
    return np.asarray(ndimage.convolve(light, ring / ring.sum(), mode="nearest"))


def _hole(pair: Pair) -> Pair:
    reference, n = pair.reference.copy(), pair.reference.shape[0]
    reference[n // 3 : n // 3 + n // 4, n // 4 : n // 4 + n // 2] = 0.0
    return replace(pair, reference=reference)


_BLURS: dict[str, Callable[[Floats], Floats]] = {
    "shifted by 1 px": partial(_shifted, by=1),
    "shifted by 3 px": partial(_shifted, by=3),
    "shifted by 10 px": partial(_shifted, by=10),
    "trailed": _trailed,
    "defocused": _defocused,
}
_NOISE: dict[str, Callable[[Pair], Pair]] = {
    "gain × 2": lambda pair: replace(pair, variance=pair.variance / 2),
    "variance × 4": lambda pair: replace(pair, variance=pair.variance * 4),
    "sigma for variance": lambda pair: replace(pair, variance=np.sqrt(pair.variance)),
    "hole of zeros": _hole,
}
SABOTAGES = (*_BLURS, "other filter", "clouded by half", *_NOISE)


def names(status: int) -> list[str]:
    """The planes of an epoch's status."""
    return [plane.name for plane in STATUS_PLANES if status & plane.value]


def caught(kind: str, sabotage: str, seeds: int) -> tuple[int, Counter[str]]:
    """How many of so many pairs have a status, and which planes."""
    found = [names(int(make_pair(kind, seed, sabotage).difference()["epoch_status"])) for seed in range(seeds)]
    return sum(map(bool, found)), Counter(name for planes in found for name in planes)


def table(seeds: int, clean: int) -> Iterator[str]:
    """The lines that are printed."""
    yield f"{'':20} " + "".join(f"{kind:>10}" for kind in KINDS) + "   planes"
    for sabotage in SABOTAGES:
        found = [caught(kind, sabotage, seeds) for kind in KINDS]
        planes = sum((planes for _, planes in found), Counter())
        shares = "".join(f"{f'{n}/{seeds}':>10}" for n, _ in found)
        yield f"{sabotage:20} {shares}   " + ", ".join(f"{name} {n}" for name, n in planes.most_common(4))
    found = [caught(kind, "", clean // len(KINDS)) for kind in KINDS]
    planes = sum((planes for _, planes in found), Counter())
    shares = "".join(f"{f'{n}/{clean // len(KINDS)}':>10}" for n, _ in found)
    yield f"{'clean':20} {shares}   " + ", ".join(f"{name} {n}" for name, n in planes.most_common())


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--clean", type=int, default=1000)
    options = parser.parse_args()
    for line in table(options.seeds, options.clean):
        print(line, flush=True)


if __name__ == "__main__":
    main()
