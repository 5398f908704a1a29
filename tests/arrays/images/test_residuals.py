"""Noise measured from images and residuals, against the noise that was put in."""

from __future__ import annotations

import numpy as np
import pytest

from ztfxr.arrays.images.residuals import PhotonNoise, fit_noise, sky_excess, without_own_noise
from ztfxr.arrays.images.sky import median_sky

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
    level, noise = median_sky(np.zeros((8, 8), "f4"), np.ones((8, 8), dtype=bool))
    assert np.isnan(level)
    assert np.isnan(noise)


def test_weights_from_neighbors_do_not_follow_the_noise_they_weigh():
    """Photons of a sky of 900 electrons at 6 per unit: what the variance map itself pulls low by 1/12."""
    rng, gain = np.random.default_rng(5), 6.0
    image = rng.poisson(900.0, (1200, 1200)) / gain - 900.0 / gain
    stated = (900.0 / gain**2 + np.maximum(image, 0) / gain).astype("f4")
    none = np.zeros(image.shape, dtype=bool)
    error = image.std() / image.size**0.5
    own, calm = (np.average(image, weights=1 / v) for v in (stated, without_own_noise(stated, none)))
    assert own - image.mean() == pytest.approx(-0.5 / gain, rel=0.1)
    assert abs(calm - image.mean()) < 0.05 / gain + 0.2 * error


def test_weights_of_steep_and_bad_pixels_are_their_own():
    variance = np.full((40, 50), 4.0, "f4")
    variance[20, 20], variance[5, 6], variance[30, 30] = 9.0, 1e6, 4.4
    bad = np.zeros(variance.shape, dtype=bool)
    bad[5, 6] = True
    calm = without_own_noise(variance, bad)
    assert calm[20, 20] == 9.0
    assert calm[5, 6] == np.float32(1e6)
    assert calm[30, 30] == 4.0
    np.testing.assert_array_equal(calm[3:8, 4:9][~bad[3:8, 4:9]], 4.0)
    assert calm[20, 21] == pytest.approx(4.0 + 5.0 / 8.0)
    alone = np.ones(variance.shape, dtype=bool)
    alone[7, 7] = False
    np.testing.assert_array_equal(without_own_noise(variance, alone), variance)
