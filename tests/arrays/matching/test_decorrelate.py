"""Whitening of convolved differences: noise, flux, variance, masks, varying kernels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import signal

from ztfxr.arrays.images.convolve import varying_convolution
from ztfxr.arrays.matching.decorrelate import decorrelated, effective_psf, variance_ratio, whitening_kernel

SHAPE = (300, 310)
CLEAR = np.zeros(SHAPE, bool)


def gaussian(size, fwhm, dy=0.0, dx=0.0):
    y, x = np.mgrid[:size, :size] - size // 2
    out = np.exp(-((y - dy) ** 2 + (x - dx) ** 2) * 4 * np.log(2) / fwhm**2)
    return out / out.sum()


def subtract(kernel, ratio, seed=0, signal_=0.0):
    """White noise of variance 9 less convolved white noise of variance 9 `ratio`; its variance."""
    rng = np.random.default_rng(seed)
    new, old = rng.normal(scale=3, size=SHAPE), rng.normal(scale=3 * ratio**0.5, size=SHAPE)
    difference = new + signal_ - signal.fftconvolve(old, kernel, mode="same")
    return difference, np.full(SHAPE, 9 * (1 + ratio * (kernel**2).sum()))


def correlations(image):
    return [np.nanmean(image[:, lag:] * image[:, :-lag]) / np.nanvar(image) for lag in (1, 2, 3)]


CASES = [(1.7, 1.12, 1.0), (2.5, 1.0, 1.0), (2.5, 0.5, 8.0), (3.5, 1.0, 3.0)]


@pytest.mark.parametrize(("fwhm", "scale", "ratio"), CASES)
def test_the_noise_is_white_and_has_the_stated_variance(fwhm, scale, ratio):
    kernel = scale * gaussian(13, fwhm)
    difference, variance = subtract(kernel, ratio)
    assert max(np.abs(correlations(difference))) > 0.05
    white = decorrelated(difference, variance, CLEAR, kernel[None], ratio=ratio, size=15)
    assert max(np.abs(correlations(white.difference))) < 0.02
    assert np.nanstd(white.difference / np.sqrt(white.variance)) == pytest.approx(1.0, abs=0.015)
    np.testing.assert_allclose(white.variance[~white.bad], 9 * (1 + ratio * scale**2), rtol=0.01)


@pytest.mark.parametrize(("fwhm", "scale", "ratio"), CASES)
def test_the_ratio_is_measured_on_the_noise_itself(fwhm, scale, ratio):
    kernel = scale * gaussian(13, fwhm)
    found = [variance_ratio(*subtract(kernel, ratio, seed), CLEAR, kernel) for seed in range(3)]
    assert np.mean(found) == pytest.approx(ratio, rel=0.08)


def test_the_ratio_ignores_masked_and_bright_pixels():
    kernel = gaussian(9, 2.0)
    difference, variance = subtract(kernel, 1.0)
    bad = CLEAR.copy()
    bad[50:60] = True
    difference[50:60] = np.nan
    difference[100:110, 100:110] += 500
    assert variance_ratio(difference, variance, bad, kernel) == pytest.approx(1.0, rel=0.12)
    assert variance_ratio(difference[:20, :20], variance[:20, :20], np.zeros((20, 20), bool), gaussian(9, 0.1)) == 0
    assert np.isnan(variance_ratio(difference, variance, ~CLEAR, kernel))


@given(fwhm=st.floats(0.5, 4), scale=st.floats(0.2, 5), ratio=st.floats(0, 20), size=st.sampled_from([11, 15, 21]))
@settings(max_examples=25)
def test_the_kernel_keeps_flux_and_is_symmetric(fwhm, scale, ratio, size):
    phi = whitening_kernel(scale * gaussian(11, fwhm, 0.3, -0.4), ratio, size)
    assert phi.sum() == pytest.approx(1.0)
    np.testing.assert_allclose(phi, phi[::-1, ::-1], atol=1e-9)


def test_limits():
    delta = np.zeros((15, 15))
    delta[7, 7] = 1
    np.testing.assert_allclose(whitening_kernel(gaussian(9, 2), 0.0, 15), delta, atol=1e-12)
    np.testing.assert_allclose(whitening_kernel(1.3 * delta[5:10, 5:10], 2.0, 15), delta, atol=1e-12)


def test_flux_is_kept_in_the_effective_psf():
    kernel, psf = 1.1 * gaussian(13, 1.9), gaussian(25, 2.7)
    fluxes, pulls = [], []
    truth = np.zeros(SHAPE)
    places = [(y, x) for y in range(30, 280, 30) for x in range(30, 280, 30)]
    for y, x in places:
        truth[y - 12 : y + 13, x - 12 : x + 13] += 800 * psf
    phi = whitening_kernel(kernel, 1.0, 15)
    effective = effective_psf(psf, phi)
    assert effective.sum() == pytest.approx(1.0, abs=1e-3)
    for seed in range(4):
        difference, variance = subtract(kernel, 1.0, seed, truth)
        white = decorrelated(difference, variance, CLEAR, kernel[None], ratio=1.0, size=15)
        weight = effective / (effective**2).sum()
        error = np.sqrt(9 * (1 + 1.21) / (effective**2).sum())
        found = [(white.difference[y - 12 : y + 13, x - 12 : x + 13] * weight).sum() for y, x in places]
        fluxes += found
        pulls += [(f - 800) / error for f in found]
    assert np.mean(fluxes) == pytest.approx(800, rel=0.01)
    assert np.std(pulls) == pytest.approx(1.0, abs=0.1)


def test_a_varying_kernel_is_whitened_everywhere():
    """A kernel whose width changes by half over the frame: white in each quarter, where one phi is not."""
    ratio = 6.0
    coefficients = np.zeros((3, 13, 13))
    coefficients[0] = 0.5 * (gaussian(13, 1.6) + gaussian(13, 3.2))
    coefficients[1] = 0.5 * (gaussian(13, 1.6) - gaussian(13, 3.2))
    rng = np.random.default_rng(4)
    new, old = rng.normal(scale=3, size=SHAPE), rng.normal(scale=3 * ratio**0.5, size=SHAPE)
    model, noise = varying_convolution(old, np.full(SHAPE, 9 * ratio), coefficients)
    difference, variance = (new - model)[6:-6, 6:-6], (9 + noise)[6:-6, 6:-6]
    clear = np.zeros(difference.shape, bool)
    white = decorrelated(difference, variance, clear, coefficients, ratio=ratio, size=15)
    fixed = decorrelated(difference, variance, clear, coefficients[:1], ratio=ratio, size=15)
    left = np.s_[:, :70]
    assert max(np.abs(correlations(white.difference[left]))) < 0.02 < max(np.abs(correlations(fixed.difference[left])))
    for part in (left, np.s_[:, -70:]):
        pull = white.difference[part] / np.sqrt(white.variance[part])
        assert np.nanstd(pull) == pytest.approx(1.0, abs=0.04)


def test_the_noise_of_bright_sources_stays_honest():
    kernel, ratio = gaussian(13, 2.2), 0.5
    bright = np.zeros(SHAPE)
    bright[100:140] = 900.0
    pulls = []
    for seed in range(3):
        difference, variance = subtract(kernel, ratio, seed)
        difference += np.random.default_rng(seed + 50).normal(size=SHAPE) * np.sqrt(bright)
        white = decorrelated(difference, variance + bright, CLEAR, kernel[None], ratio=ratio, size=15)
        pulls.append((white.difference / np.sqrt(white.variance))[105:135, 20:-20])
    assert np.std(pulls) == pytest.approx(1.0, abs=0.02)


def test_junk_never_leaks_and_the_mask_grows_by_the_kernel():
    kernel = gaussian(9, 2.2)
    difference, variance = subtract(kernel, 1.0)
    bad = CLEAR.copy()
    bad[120, 130] = True
    results = [
        decorrelated(np.where(bad, junk, difference), variance, bad, kernel[None], ratio=1.0, size=15)
        for junk in (0.0, 1e9, np.nan)
    ]
    for other in results[1:]:
        np.testing.assert_array_equal(other.difference, results[0].difference)
    got = results[0]
    assert got.bad[:7].all()
    assert got.bad[:, -7:].all()
    grown = got.bad[7:-7, 7:-7]
    assert 9 <= grown.sum() <= 81
    np.testing.assert_array_equal(np.isnan(got.difference), got.bad)
    np.testing.assert_array_equal(np.isnan(got.variance), got.bad)
    clean = decorrelated(difference, variance, CLEAR, kernel[None], ratio=1.0, size=15)
    assert np.abs(got.difference - clean.difference)[~got.bad].max() < 0.2
    with pytest.raises(ValueError, match="no good pixel"):
        decorrelated(difference, variance, ~CLEAR, kernel[None], ratio=1.0, size=15)
