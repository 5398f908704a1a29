"""Stamps: borders of zeros, and moves by parts of a pixel against the analytic profile."""

from __future__ import annotations

import numpy as np
import pytest

from ztfxr.arrays.stamps import pad, shift_stamps, trim, zero_margin


def moffat(y, x, fwhm=2.6, beta=3.5):
    return (1 + (x**2 + y**2) * 4 * (2 ** (1 / beta) - 1) / fwhm**2) ** -beta


@pytest.mark.parametrize("size", [9, 11, 25])
def test_a_border_of_zeros_is_put_on_and_taken_off(size):
    stamps = np.random.default_rng(size).normal(size=(3, 9, 9))
    padded = pad(stamps, size)
    assert padded.shape == (3, size, size)
    assert zero_margin(padded) == (size - 9) // 2
    np.testing.assert_array_equal(trim(padded), stamps)
    assert trim(padded, keep=1).shape[-1] == min(11, size)
    np.testing.assert_array_equal(pad(padded, 9), padded)


def test_only_what_is_zero_on_all_sides_goes():
    stamp = np.zeros((11, 15))
    stamp[2, 7] = 1.0
    assert zero_margin(stamp) == 2
    assert trim(stamp).shape == (7, 11)
    assert trim(np.zeros((3, 5, 5))).shape == (3, 5, 5)


def test_a_shift_moves_flux_and_back():
    y, x = np.mgrid[:31, :31] - 15
    psf = moffat(y, x) / moffat(y, x).sum()
    moved = shift_stamps(psf, np.array([0.3, -0.6]), np.array([1.2, 0.0]))
    assert moved.shape == (2, 31, 31)
    np.testing.assert_allclose(moved.sum(axis=(1, 2)), 1.0)
    back = shift_stamps(moved, np.array([-0.3, 0.6]), np.array([-1.2, 0.0]))
    np.testing.assert_allclose(back, np.broadcast_to(psf, back.shape), atol=1e-3)
    np.testing.assert_allclose(moved[0], moffat(y - 0.3, x - 1.2) / moffat(y, x).sum(), atol=2e-3)
