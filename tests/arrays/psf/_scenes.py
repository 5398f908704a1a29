"""Stars drawn without ztfxr: Gaussians integrated over the pixel exactly, Moffats by fine sampling."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.special import erf

from ztfxr.arrays.psf.model import PSFModel, grid_offsets

Floats = NDArray[np.float64]
Profile = Callable[[Floats, Floats], Floats]


def gaussian_pixels(dy: Floats, dx: Floats, sigma: float) -> Floats:
    """Light of a Gaussian in pixels at offsets `dy` (..., y) and `dx` (..., x)."""

    def strip(d: Floats) -> Floats:
        return 0.5 * (erf((d + 0.5) / sigma / np.sqrt(2)) - erf((d - 0.5) / sigma / np.sqrt(2)))

    return strip(dy)[..., :, None] * strip(dx)[..., None, :]


def moffat_pixels(
    dy: Floats, dx: Floats, fwhm: float, beta: float = 3.0, ratio: float = 1.0, angle: float = 0.5
) -> Floats:
    """Light of an elliptical Moffat in pixels at offsets `dy` (y) and `dx` (x)."""
    a = fwhm / (2 * np.sqrt(2 ** (1 / beta) - 1))
    points, weights = np.polynomial.legendre.leggauss(5)
    y = (dy[:, None] + points / 2).ravel()[:, None]
    x = (dx[:, None] + points / 2).ravel()[None, :]
    along, across = x * np.cos(angle) + y * np.sin(angle), -x * np.sin(angle) + y * np.cos(angle)
    fine = (beta - 1) / (np.pi * a * a * ratio) * (1 + (along / a) ** 2 + (across / a / ratio) ** 2) ** -beta
    fine = fine.reshape(len(dy), 5, len(dx), 5)
    return np.einsum("yixj,i,j->yx", fine, weights / 2, weights / 2)


def model_of(pixels: Profile, reach: int = 10, oversampling: int = 8) -> PSFModel:
    """A model with the exact values at its nodes."""
    offset = grid_offsets(2 * reach * oversampling + 1, oversampling)
    if pixels.__name__ == "moffat":
        grid = np.empty((len(offset), len(offset)))
        for a in range(oversampling):
            for b in range(oversampling):
                grid[a::oversampling, b::oversampling] = pixels(offset[a::oversampling], offset[b::oversampling])
    else:
        grid = pixels(offset, offset)
    return PSFModel.of(grid[None], oversampling)


def draw(shape: tuple[int, int], y: Floats, x: Floats, flux: Floats, pixels: Profile, half: int = 12) -> Floats:
    """An image of stars."""
    image = np.zeros((shape[0] + 2 * half, shape[1] + 2 * half))
    offset = np.arange(-half, half + 1)
    rows, columns = (np.floor(p + 0.5).astype(int) for p in (y, x))
    for cy, cx, py, px, f in zip(rows, columns, y, x, flux, strict=True):
        if -half <= cy < shape[0] + half and -half <= cx < shape[1] + half:
            light = f * pixels(offset - (py - cy), offset - (px - cx))
            top, left = max(-cy, 0), max(-cx, 0)
            part = image[cy + top : cy + 2 * half + 1, cx + left : cx + 2 * half + 1]
            part += light[top : top + part.shape[0], left : left + part.shape[1]]
    return image[half:-half, half:-half]


def lattice(n: int, step: float, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """`n` × `n` positions `step` pixels apart, each moved within its pixel."""
    place = 20 + step * np.arange(n)
    y, x = (p.ravel() for p in np.meshgrid(place, place, indexing="ij"))
    return y + rng.uniform(-0.5, 0.5, y.size), x + rng.uniform(-0.5, 0.5, x.size)


def mad(values: Floats) -> float:
    """Robust standard deviation."""
    return float(1.4826 * np.median(np.abs(values - np.median(values))))
