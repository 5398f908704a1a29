"""The basis of PSFs against sums over fine samples."""

from __future__ import annotations

import numpy as np
import pytest

from ztfxr.arrays.psf.profiles import profile_basis

FINE = 101


def brute_force(dy: np.ndarray, dx: np.ndarray, sigma: float, harmonic: int, sine: bool) -> np.ndarray:
    """Means over pixels of ``g(r / σ) (r / σ)^m cos(m θ)``."""
    inner = (np.arange(FINE) + 0.5) / FINE - 0.5
    y, x = ((d[:, None] + inner).ravel() for d in (dy, dx))
    z = (x[None, :] + 1j * y[:, None]) / sigma
    fine = np.exp(-0.5 * np.abs(z) ** 2) / (2 * np.pi * sigma**2) * z**harmonic
    return (fine.imag if sine else fine.real).reshape(len(dy), FINE, len(dx), FINE).mean((1, 3))


@pytest.mark.parametrize("fwhm", [1.2, 2.6])
def test_functions_are_integrals_over_pixels(fwhm: float) -> None:
    basis = profile_basis(fwhm, 12.0, 2)
    dy, dx = np.arange(-6, 7) - 0.3, np.arange(-5, 6) + 0.2
    values = basis.values(dy, dx)
    assert values.shape == (len(basis), 13, 11)
    assert {0, 1, 4} <= set(basis.harmonic)
    for value, sigma, harmonic, sine in zip(values, basis.sigma, basis.harmonic, basis.sine, strict=True):
        expected = (-1) ** harmonic * brute_force(dy, dx, sigma, harmonic, sine)
        np.testing.assert_allclose(value, expected, atol=5e-3 * np.abs(expected).max())


def test_leading_dimensions() -> None:
    basis = profile_basis(2.0, 10.0, 1)
    rng = np.random.default_rng(0)
    dy, dx = rng.normal(size=(3, 7)), rng.normal(size=(3, 5))
    many = basis.values(dy, dx)
    assert many.shape == (3, len(basis), 7, 5)
    np.testing.assert_allclose(many[1], basis.values(dy[1], dx[1]))


def test_round_functions_have_unit_sum() -> None:
    basis = profile_basis(2.0, 9.0, 1)
    offset = np.arange(-40, 41) * 1.0
    sums = basis.values(offset, offset + 0.4).sum((1, 2))
    np.testing.assert_allclose(sums[basis.harmonic == 0], 1.0, atol=1e-9)
    np.testing.assert_allclose(sums[basis.harmonic % 4 != 0], 0.0, atol=1e-9)


def test_wings_are_round_and_vary_at_most_linearly() -> None:
    basis = profile_basis(2.0, 14.0, 3)
    wide = basis.sigma > 4.0
    assert wide.any()
    assert set(basis.harmonic[wide]) == {0}
    assert set(basis.order[wide]) == {1}
    assert basis.order.max() == 3
    free = basis.free(2, 3)
    assert free.shape == (10, len(basis))
    assert not free[6:].any()
    assert free[0].all()
    assert not basis.free(0, 3)[1:].any()


@pytest.mark.parametrize("beta", [2.5, 3.5])
def test_a_moffat_profile_is_a_sum_of_the_functions(beta: float) -> None:
    fwhm, radius = 3.0, 40.0
    basis = profile_basis(fwhm, 3 * radius, 0)
    light = basis.moffat(fwhm, beta)
    assert light.sum() == pytest.approx(1.0, abs=0.02)
    r = np.array([3.0, 5.0, 8.0, 12.0])
    a2 = fwhm**2 / (4 * (2 ** (1 / beta) - 1))
    outside = (1 + r**2 / a2) ** (1 - beta)
    found = (light[:, None] * np.exp(-0.5 * (r / basis.sigma[:, None]) ** 2)).sum(axis=0)
    np.testing.assert_allclose(found, outside, rtol=0.05, atol=1e-3)
