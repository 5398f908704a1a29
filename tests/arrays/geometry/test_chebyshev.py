"""Tensor Chebyshev expansions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.polynomial import polynomial
from numpy.typing import NDArray

from ztfxr.arrays.geometry.chebyshev import expand

Floats = NDArray[np.float64]
BOUNDS = (-3.0, 40.0, 7.0, 90.0)


@given(hnp.arrays(float, (2, 5, 5), elements=st.floats(-1, 1)))
def test_polynomials_are_exact(coefficients: Floats) -> None:
    """A polynomial of lower degree than the expansion comes back to rounding, also between the nodes."""

    def function(y: Floats, x: Floats) -> tuple[Floats, Floats]:
        first, second = (polynomial.polyval2d(y / 50, x / 50, c) for c in coefficients)
        return first, second

    found = expand(function, BOUNDS, degree=6)
    y, x = np.linspace(-3, 40, 23), np.linspace(7, 90, 31)
    truth = function(*np.meshgrid(y, x, indexing="ij"))
    assert found.error < 1e-10
    for f, t in zip(found.on_grid(y, x), truth, strict=True):
        assert f.shape == (23, 31)
        np.testing.assert_allclose(f, t, rtol=0, atol=1e-10)


def waves(y: Floats, x: Floats) -> tuple[Floats, Floats]:
    return np.sin(y / 8) * np.cos(x / 15), np.hypot(y - 20, x - 50)


@pytest.mark.parametrize("degree", [3, 6, 12])
def test_error_is_honest(degree: int) -> None:
    """The stated error is that of the whole grid, within a factor of a few."""
    found = expand(waves, BOUNDS, degree=degree)
    y, x = np.linspace(-3, 40, 201), np.linspace(7, 90, 203)
    truth = waves(*np.meshgrid(y, x, indexing="ij"))
    worst = max(float(np.abs(f - t).max()) for f, t in zip(found.on_grid(y, x), truth, strict=True))
    assert worst > 1e-4, "the functions are too smooth for this test"
    assert 0.2 * worst < found.error <= worst * 1.0001


def test_error_falls_with_the_degree() -> None:
    smooth = [expand(lambda y, x: (np.sin(y / 20), np.cos(x / 30)), BOUNDS, degree=d).error for d in (2, 5, 9)]
    assert smooth[0] > 1e2 * smooth[1] > 1e4 * smooth[2]


def test_one_pixel_wide() -> None:
    found = expand(lambda y, x: (y + 0 * x, 2 * x + 0 * y), (5.0, 5.0, 0.0, 9.0), degree=3)
    first, second = found.on_grid(np.array([5.0]), np.arange(10.0))
    np.testing.assert_allclose(first, np.full((1, 10), 5.0), atol=1e-12)
    np.testing.assert_allclose(second, 2 * np.arange(10.0)[None], atol=1e-12)
