"""Noise measured from images and residuals, against the noise that was put in."""

from __future__ import annotations

import numpy as np
import pytest

from ztfxr.arrays.residuals import PhotonNoise, fit_noise, sky_excess, sky_noise

SKY, SLOPE, LEVEL = 30.0, 0.16, 3.0


def _scene(seed: int = 1, n: int = 700) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A signal of stars on a level, its variance, and noise of that variance."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[-7:8, -7:8]
    star = np.exp(-(x**2 + y**2) / 4.0)
    signal = np.full((n, n), LEVEL)
    for cy, cx, peak in zip(*rng.integers(8, n - 8, (2, 900)), rng.uniform(10, 400, 900), strict=True):
        signal[cy - 7 : cy + 8, cx - 7 : cx + 8] += peak * star
    variance = SKY + SLOPE * (signal - LEVEL)
    return signal.astype("f4"), variance, (rng.normal(size=signal.shape) * np.sqrt(variance)).astype("f4")


def test_the_noise_is_found_with_and_without_a_noisy_template():
    signal, variance, residual = _scene()
    none = np.zeros(signal.shape, dtype=bool)
    template = np.full(signal.shape, 5.0, "f4")
    extra = np.random.default_rng(2).normal(size=signal.shape) * np.sqrt(5.0)
    for noise, added in ((0 * template, 0.0), (template, extra)):
        found = fit_noise(signal, (residual + added).astype("f4"), noise, none, none)
        assert found.level == pytest.approx(LEVEL, abs=0.05)
        assert found.sky == pytest.approx(SKY, rel=0.02)
        assert found.slope == pytest.approx(SLOPE, rel=0.1)
    assert variance.max() > 2 * SKY


def test_pixels_that_are_not_used_do_not_count():
    signal, _, residual = _scene()
    unused = np.zeros(signal.shape, dtype=bool)
    unused[::5] = True
    expected = fit_noise(signal, residual, 0 * signal, ~unused & unused, unused)
    residual[unused] = 1e4
    assert fit_noise(signal, residual, 0 * signal, ~unused & unused, unused) == expected


@pytest.mark.parametrize("error", [-6.0, 0.0, 9.0])
def test_a_wrong_sky_is_set_right_by_its_residuals(error: float):
    signal, variance, residual = _scene()
    none = np.zeros(signal.shape, dtype=bool)
    stated = (variance + error).astype("f4")
    assert sky_excess(signal, residual, stated, none, none) == pytest.approx(-error, abs=0.02 * SKY)
    residual[:, ::7], junk = 1e4, none.copy()
    junk[:, ::7] = True
    assert sky_excess(signal, residual, stated, none, junk) == pytest.approx(-error, abs=0.02 * SKY)
    assert sky_excess(signal, residual, stated, none, ~none) == 0.0


def test_the_variance_follows_the_model_and_what_is_new():
    signal, variance, residual = _scene()
    none = np.zeros(signal.shape, dtype=bool)
    noise = PhotonNoise(LEVEL, SKY, SLOPE)
    np.testing.assert_allclose(noise.variance(signal, none, new=0 * residual), variance, rtol=1e-5)
    new = np.zeros_like(signal)
    new[300:311, 400:411] = 1000.0
    found = noise.variance(np.full_like(signal, LEVEL), none, new=new)
    assert found[305, 405] == pytest.approx(SKY + SLOPE * 1000, rel=1e-5)
    assert found[100, 100] == pytest.approx(SKY, rel=1e-6)


def test_noise_alone_hardly_raises_the_variance_of_the_sky():
    _, _, residual = _scene()
    flat = np.full(residual.shape, LEVEL, "f4")
    found = PhotonNoise(LEVEL, SKY, SLOPE).variance(flat, np.zeros(flat.shape, dtype=bool), new=residual)
    assert found.mean() < 1.01 * SKY + SLOPE * 2.0
    assert np.median(found) == pytest.approx(SKY, rel=1e-6)


def test_bad_pixels_do_not_spread():
    flat = np.full((40, 41), LEVEL, "f4")
    bad = np.zeros(flat.shape, dtype=bool)
    bad[20, 20] = True
    flat[20, 20] = 3e4
    found = PhotonNoise(LEVEL, SKY, SLOPE).variance(flat, bad)
    np.testing.assert_allclose(found, SKY, rtol=1e-5)


def test_an_image_without_a_good_pair_has_no_noise():
    level, noise = sky_noise(np.zeros((8, 8), "f4"), np.ones((8, 8), dtype=bool))
    assert np.isnan(level)
    assert np.isnan(noise)
