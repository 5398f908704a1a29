"""Simulated image pairs for the benchmarks: Gaussian stars, photon noise, a varying kernel, bad pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy.special import erf

Floats = NDArray[np.float64]
Images = NDArray[np.float32]
Bools = NDArray[np.bool_]

GAIN, SKY_NOISE, SCALE = 6.2, 2.7, 1.1
REFERENCE_DEPTH = 20
_HALF = 12
_CROWDED = 0.008
_STARS_PER_PIXEL = 6000 / 3080**2


@dataclass(frozen=True)
class Pair:
    """A science image and its reference, with variances and masks; the reference is 20 epochs deep."""

    science: Images
    science_variance: Images
    science_bad: Bools
    reference: Images
    reference_variance: Images
    reference_bad: Bools

    def labeled(self) -> dict[str, xr.DataArray]:
        """The images and masks as the arguments of `ztfxr.difference`."""
        images = {
            "science": self.science,
            "reference": self.reference,
            "mask": self.science_bad,
            "reference_mask": self.reference_bad,
        }
        return {name: xr.DataArray(image, dims=("y", "x")) for name, image in images.items()}

    def noise(self) -> dict[str, xr.DataArray]:
        """The variances as the arguments of `ztfxr.difference`."""
        images = {"variance": self.science_variance, "reference_variance": self.reference_variance}
        return {name: xr.DataArray(image, dims=("y", "x")) for name, image in images.items()}


@dataclass(frozen=True)
class Sources:
    """Positions, fluxes of stars."""

    y: Floats
    x: Floats
    flux: Floats


def make_sources(shape: tuple[int, int], number: int, seed: int = 0) -> Sources:
    """Stars all over the frame; a power law in flux over three decades."""
    rng = np.random.default_rng(seed)
    flux = 300.0 * rng.uniform(1e-4, 1.0, number) ** -0.9
    return Sources(rng.uniform(0, shape[0] - 1, number), rng.uniform(0, shape[1] - 1, number), flux)


def _profile(center: Floats, sigma: Floats) -> tuple[NDArray[np.int64], Floats]:
    """First pixel, and Gaussians integrated over the 25 pixels from there on, one line each star."""
    first = np.rint(center).astype(np.int64) - _HALF
    edges = first[:, None] + np.arange(2 * _HALF + 2) - 0.5 - center[:, None]
    return first, np.diff(erf(edges / (np.sqrt(2.0) * sigma[:, None])), axis=1) / 2


def draw(shape: tuple[int, int], sources: Sources, sigma: Floats) -> Floats:
    """The image of stars with Gaussian PSFs of their own widths."""
    y0, rows = _profile(sources.y, sigma)
    x0, columns = _profile(sources.x, sigma)
    n = 2 * _HALF + 1
    image = np.zeros((shape[0] + 2 * n, shape[1] + 2 * n))
    for y, x, flux, row, column in zip(y0 + n, x0 + n, sources.flux, rows, columns, strict=True):
        image[y : y + n, x : x + n] += flux * row[:, None] * column
    return image[n:-n, n:-n]


def _moved(sources: Sources, dy: float, dx: float) -> Sources:
    return Sources(sources.y + dy, sources.x + dx, sources.flux * SCALE)


def _bad_pixels(shape: tuple[int, int], rng: np.random.Generator, fraction: float) -> Bools:
    """Single pixels, and blocks of 6 pixels, in equal area."""
    bad = rng.uniform(size=shape) < fraction / 2
    for y, x in zip(*(rng.integers(0, n, int(fraction * shape[0] * shape[1] / 72)) for n in shape), strict=True):
        bad[y : y + 6, x : x + 6] = True
    return bad


def make_pair(size: int, *, seed: int = 0) -> Pair:
    """A square pair as sparse in stars as a ZTF quadrant, with 0.9 % of bad pixels that hold junk."""
    rng, shape = np.random.default_rng(seed), (size, size)
    sources = make_sources(shape, int(_STARS_PER_PIXEL * size**2), seed)
    u = 2 * sources.x / size - 1
    reference = draw(shape, sources, np.full(len(u), 0.9))
    science = draw(shape, _moved(sources, 0.1, -0.15), 1.12 + 0.05 * u)
    return _observed(science, reference, rng, bad_fraction=0.009)


def _observed(science: Floats, reference: Floats, rng: np.random.Generator, *, bad_fraction: float) -> Pair:
    """Background, noise and bad pixels on two perfect images."""
    shape = (science.shape[0], science.shape[1])
    noise = SKY_NOISE**2 + science / GAIN
    deep = (SKY_NOISE**2 + reference / GAIN) / REFERENCE_DEPTH
    slope = np.linspace(-2.0, 2.0, shape[1])
    observed = science + 3.0 + slope + rng.normal(size=shape) * np.sqrt(noise)
    template = reference + 0.5 + rng.normal(size=shape) * np.sqrt(deep)
    bad, template_bad = _bad_pixels(shape, rng, bad_fraction), _bad_pixels(shape, rng, bad_fraction / 10)
    observed[bad], template[template_bad] = 3e4, 3e4
    return Pair(
        observed.astype(np.float32),
        noise.astype(np.float32),
        bad,
        template.astype(np.float32),
        deep.astype(np.float32),
        template_bad,
    )


def make_crowded_stack(epochs: int, *, size: int = 250, seed: int = 0) -> tuple[Images, Images]:
    """A crowded cut-out without bad pixels: epochs (time, y, x) of changing seeing, and their reference (y, x)."""
    rng, shape = np.random.default_rng(seed), (size, size)
    sources = make_sources(shape, int(_CROWDED * size**2), seed)
    reference = draw(shape, sources, np.full(len(sources.x), 1.1))
    science = []
    for sigma in rng.uniform(1.4, 2.0, epochs):
        dy, dx = rng.uniform(-0.5, 0.5, 2)
        image = draw(shape, _moved(sources, dy, dx), np.full(len(sources.x), sigma))
        science.append(_observed(image, reference, rng, bad_fraction=0.0).science)
    return np.array(science), _observed(reference, reference, rng, bad_fraction=0.0).reference
