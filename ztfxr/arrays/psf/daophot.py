"""The PSF of DAOPHOT II: an analytic profile, integrated over the pixel, and tables of what it misses."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ztfxr.arrays.psf.model import grid_offsets
from ztfxr.arrays.types import Floats

__all__ = ["PARAMETERS", "TABLES", "daophot_grid", "daophot_radius"]

Profile = Callable[[Floats, Floats], Floats]

PARAMETERS = {
    "GAUSSIAN": 2,
    "MOFFAT15": 3,
    "MOFFAT25": 3,
    "MOFFAT35": 3,
    "LORENTZ": 3,
    "PENNY1": 4,
    "PENNY2": 5,
}
"""Parameters of each analytic profile."""

TABLES = (0, 1, 3, 6)
"""Possible numbers of tables: none, constant, linear, quadratic over the frame."""

_LN2 = np.log(2.0)
_POINTS = {
    4: ((-0.43056816, -0.16999052, 0.16999052, 0.43056816), (0.17392742, 0.32607258, 0.32607258, 0.17392742)),
    3: ((-0.38729833, 0.0, 0.38729833), (0.27777778, 0.44444444, 0.27777778)),
    2: ((-0.28867513, 0.28867513), (0.5, 0.5)),
    1: ((0.0,), (1.0,)),
}
_STEPS = ((4, 0.046), (3, 0.0022), (2, 0.0001), (1, 1e-10))


def daophot_radius(size: int) -> float:
    """Radius in pixels within which tables of that size, two values a pixel, define the PSF."""
    return (size - 3) / 4


def daophot_grid(
    function: str, parameters: Floats, height: float, tables: Floats, radius: float, oversampling: int
) -> Floats:
    """The PSF at the nodes of a grid, (term, y, x), for the terms 1, u, v, u², uv, v² as far as there are tables.

    Parameters
    ----------
    function, parameters, height
        Analytic profile, one of `PARAMETERS`, with its parameters (the first two are the half widths at half maximum
        in x and y), and its amplitude.
    tables
        (table, y, x), two values per pixel, for 1, u, v, 1.5 u² - 0.5, uv, 1.5 v² - 0.5.
    radius
        In pixels, beyond which the PSF is zero; half a pixel more is kept for the interpolation.
    oversampling
        Nodes per pixel.

    Notes
    -----
    Stetson 1987, PASP 99, 191, and the DAOPHOT II manual: the profile is integrated over the pixel by Gauss-Legendre
    formulae of one to four points a side, by its brightness there; the tables by cubic convolution (slopes at the
    nodes from the neighbors).
    """
    offset = grid_offsets(2 * int(np.ceil((radius + 1) * oversampling)) + 1, oversampling)
    inside = np.hypot(offset[:, None], offset[None, :]) <= radius + 0.5
    analytic = height * _integrated(function, parameters, offset) * inside
    values = [_interpolated(table, offset) * inside for table in tables] or [np.zeros(inside.shape)]
    if len(values) == 6:
        constant, u, v, uu, uv, vv = values
        values = [constant - 0.5 * (uu + vv), u, v, 1.5 * uu, uv, 1.5 * vv]
    values[0] = values[0] + analytic
    return np.stack(values)


def _integrated(function: str, parameters: Floats, offset: Floats) -> Floats:
    """The profile of unit height over pixels at the offsets."""
    if function == "GAUSSIAN":
        rows, columns = (_gaussian_strip(offset, parameters[i]) for i in (1, 0))
        return np.asarray(np.outer(rows, columns) / (parameters[0] * parameters[1]))
    profile, scale = _profile(function, parameters)
    y, x = np.meshgrid(offset, offset, indexing="ij")
    height = profile(x, y)
    out, brighter = np.zeros(height.shape), np.inf
    for n, level in _STEPS:
        some = (height >= level) & (height < brighter)
        points, weights = _POINTS[n]
        for dy, wy in zip(points, weights, strict=True):
            for dx, wx in zip(points, weights, strict=True):
                out[some] += wy * wx * profile(x[some] + dx, y[some] + dy)
        brighter = level
    return np.asarray(scale * out)


def _gaussian_strip(offset: Floats, half_width: float) -> Floats:
    """A Gaussian of unit height integrated over one dimension of the pixel."""
    height = np.exp(-_LN2 * (offset / half_width) ** 2)
    out, brighter = np.zeros(offset.shape), np.inf
    for n, level in _STEPS:
        some = (height >= level) & (height < brighter)
        for d, w in zip(*_POINTS[n], strict=True):
            out[some] += w * np.exp(-_LN2 * ((offset[some] + d) / half_width) ** 2)
        brighter = level
    return out


def _profile(function: str, parameters: Floats) -> tuple[Profile, float]:
    """A profile as a function of x and y, as it decides on the points of the integration, and the factor it lacks."""
    a, b = parameters[0], parameters[1]

    def squared(x: Floats, y: Floats) -> Floats:
        return np.asarray((x / a) ** 2 + (y / b) ** 2)

    if function.startswith("MOFFAT"):
        beta = float(function[6:]) / 10
        alpha = 2 ** (1 / beta) - 1
        tilt = parameters[2]
        return lambda x, y: 1 / (a * b * (1 + alpha * (squared(x, y) + tilt * x * y)) ** beta), beta - 1
    if function == "LORENTZ":
        return lambda x, y: 1 / (1 + squared(x, y) + parameters[2] * x * y), 1.0
    share, tilt = parameters[2], parameters[3]
    other = parameters[4] if function == "PENNY2" else 0.0
    return (
        lambda x, y: (
            share * np.exp(-_LN2 * (squared(x, y) + tilt * x * y)) + (1 - share) / (1 + squared(x, y) + other * x * y)
        ),
        1.0,
    )


def _interpolated(table: Floats, offset: Floats) -> Floats:
    """A table with two values per pixel, by cubic convolution; zero beyond it."""
    n = len(table)
    padded = np.pad(table, 3)
    place = np.clip(2 * offset + n // 2, -1.0, float(n)) + 3
    lower = np.floor(place).astype(np.int64)
    t = place - lower
    weights = np.stack(
        [
            -0.5 * t + t**2 - 0.5 * t**3,
            1 - 2.5 * t**2 + 1.5 * t**3,
            0.5 * t + 2 * t**2 - 1.5 * t**3,
            -0.5 * t**2 + 0.5 * t**3,
        ]
    )
    matrix = np.zeros((len(offset), len(padded)))
    for tap in range(4):
        matrix[np.arange(len(offset)), lower - 1 + tap] += weights[tap]
    return np.asarray(matrix @ padded @ matrix.T)
