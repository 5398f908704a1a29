"""DAOPHOT's PSF against a plain transcription of its definition, one pixel at a time."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ztfxr.arrays.psf.daophot import PARAMETERS, daophot_grid, daophot_radius
from ztfxr.arrays.psf.model import PSFModel, grid_offsets, window_stamps

SHAPES = {
    "GAUSSIAN": (1.5, 1.6),
    "MOFFAT15": (1.4, 1.5, 0.02),
    "MOFFAT25": (1.4, 1.3, -0.03),
    "MOFFAT35": (1.7, 1.6, 0.05),
    "LORENTZ": (1.2, 1.3, 0.04),
    "PENNY1": (1.3, 1.4, 0.8, 0.05),
    "PENNY2": (1.3, 1.4, 0.7, 0.05, -0.02),
}


def profile(name: str, p: tuple[float, ...], x: float, y: float) -> float:
    """The analytic profile at a point, of unit height (the Moffats: over the product of the half widths)."""
    r2 = (x / p[0]) ** 2 + (y / p[1]) ** 2
    if name == "GAUSSIAN":
        return math.exp(-math.log(2) * r2)
    if name.startswith("MOFFAT"):
        beta = {"15": 1.5, "25": 2.5, "35": 3.5}[name[-2:]]
        return 1 / (p[0] * p[1] * (1 + (2 ** (1 / beta) - 1) * (r2 + x * y * p[2])) ** beta)
    if name == "LORENTZ":
        return 1 / (1 + r2 + x * y * p[2])
    wings = 1 / (1 + r2 + (x * y * p[4] if name == "PENNY2" else 0.0))
    return p[2] * math.exp(-math.log(2) * (r2 + x * y * p[3])) + (1 - p[2]) * wings


def pixel(name: str, p: tuple[float, ...], x: float, y: float) -> float:
    """The profile over a pixel; a hundred points a side."""
    points, weights = np.polynomial.legendre.leggauss(24)
    total = 0.0
    for dy, wy in zip(points / 2, weights / 2, strict=True):
        for dx, wx in zip(points / 2, weights / 2, strict=True):
            total += wy * wx * profile(name, p, x + dx, y + dy)
    if name == "GAUSSIAN":
        return total / (p[0] * p[1])
    return total * {"MOFFAT15": 0.5, "MOFFAT25": 1.5, "MOFFAT35": 2.5}.get(name, 1.0)


def cubic(f: list[float], t: float) -> float:
    """Between f[1] and f[2], with slopes from the neighbors."""
    slope0, slope1 = 0.5 * (f[2] - f[0]), 0.5 * (f[3] - f[1])
    return (
        f[1] * (1 + 2 * t) * (1 - t) ** 2
        + slope0 * t * (1 - t) ** 2
        + f[2] * t * t * (3 - 2 * t)
        + slope1 * t * t * (t - 1)
    )


def table_at(table: np.ndarray, x: float, y: float) -> float:
    """A table with two values a pixel, centered, at an offset."""
    middle = len(table) // 2
    px, py = 2 * x + middle, 2 * y + middle
    i, j = math.floor(px), math.floor(py)
    return cubic([cubic([table[j + b, i + a] for a in (-1, 0, 1, 2)], px - i) for b in (-1, 0, 1, 2)], py - j)


def value(
    name: str, p: tuple[float, ...], height: float, tables: np.ndarray, x: float, y: float, u: float, v: float
) -> float:
    total = height * pixel(name, p, x, y)
    weights = [1.0, u, v, 1.5 * u * u - 0.5, u * v, 1.5 * v * v - 0.5]
    return total + sum(w * table_at(t, x, y) for w, t in zip(weights, tables, strict=False))


def smooth_tables(n: int, size: int = 31) -> np.ndarray:
    rng = np.random.default_rng(5)
    offset = (np.arange(size) - size // 2) / 2
    r2 = offset[:, None] ** 2 + offset[None, :] ** 2
    out = [
        rng.uniform(-40, 40) * np.exp(-r2 / rng.uniform(3, 8)) * (1 + 0.2 * rng.normal() * offset[None, :])
        for _ in range(n)
    ]
    return np.array(out).reshape(n, size, size)


@pytest.mark.parametrize("name", list(SHAPES))
def test_nodes_have_daophots_values(name: str) -> None:
    assert PARAMETERS[name] == len(SHAPES[name])
    tables = smooth_tables(6)
    radius = daophot_radius(31)
    assert radius == 7.0
    grid = daophot_grid(name, np.array(SHAPES[name]), 900.0, tables, radius, 4)
    offset = grid_offsets(grid.shape[1], 4)
    rng = np.random.default_rng(1)
    for u, v in ((0.0, 0.0), (0.4, -0.8)):
        terms = np.array([1, u, v, u * u, u * v, v * v])
        for i, j in rng.integers(0, len(offset), (40, 2)):
            y, x = offset[i], offset[j]
            if np.hypot(y, x) > radius:
                continue
            expected = value(name, SHAPES[name], 900.0, tables, x, y, u, v)
            assert terms @ grid[:, i, j] == pytest.approx(expected, abs=1e-3 * 900)


@pytest.mark.parametrize(("n", "terms"), [(0, 1), (1, 1), (3, 3), (6, 6)])
def test_number_of_terms(n: int, terms: int) -> None:
    assert len(daophot_grid("GAUSSIAN", np.array([1.5, 1.5]), 1.0, smooth_tables(n), 7.0, 2)) == terms


def test_stamps_at_any_phase() -> None:
    """Between our nodes the model is DAOPHOT's to a thousandth of the peak."""
    name, tables = "GAUSSIAN", smooth_tables(3)
    grid = daophot_grid(name, np.array(SHAPES[name]), 900.0, tables, 7.0, 4)
    u, v, fy, fx = 0.3, -0.6, 0.31, -0.17
    model = PSFModel.of(grid, 4)
    stamp = window_stamps(model, np.array([fy]), np.array([fx]), np.array([[1.0, u, v]]), 4)[0]
    expected = np.array(
        [[value(name, SHAPES[name], 900.0, tables, x - fx, y - fy, u, v) for x in range(-4, 5)] for y in range(-4, 5)]
    )
    np.testing.assert_allclose(stamp / stamp.sum(), expected / expected.sum(), atol=1e-3 * stamp.max())


def test_zero_beyond_the_radius() -> None:
    grid = daophot_grid("LORENTZ", np.array(SHAPES["LORENTZ"]), 1.0, smooth_tables(1), 7.0, 4)[0]
    offset = grid_offsets(len(grid), 4)
    r = np.hypot(offset[:, None], offset[None, :])
    assert np.all(grid[r > 7.5] == 0)
    assert np.all(grid[r < 7.0] != 0)
