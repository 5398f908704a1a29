"""Noise models by hand and against scipy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.stats import median_abs_deviation

from ztfxr.arrays.images.noise import photon_variance, sky_variance
from ztfxr.arrays.statistics import mad_std

IMAGE = np.array([[100.0, 50.0, 100.0], [400.0, 100.0, -30.0]])


def test_photon_variance_by_hand() -> None:
    """Median 100 is the floor: only the bright pixel is above it."""
    found = photon_variance(IMAGE, gain=4.0, readnoise=8.0)
    np.testing.assert_allclose(found, [[29.0, 29.0, 29.0], [104.0, 29.0, 29.0]], rtol=1e-12)
    assert found.dtype == np.float64


def test_photon_variance_of_an_average() -> None:
    np.testing.assert_allclose(
        photon_variance(IMAGE, gain=4.0, readnoise=8.0, n_frames=5),
        photon_variance(IMAGE, gain=4.0, readnoise=8.0) / 5,
        rtol=1e-12,
    )


@pytest.mark.parametrize("left", [0.0, -40.0, 15.0])
@pytest.mark.parametrize("unit", [1.0, 1e-9, 1e6])
def test_photon_variance_where_the_sky_was_subtracted(left: float, unit: float) -> None:
    """300 DN of sky scatter by 12.4 DN, whether they are still there or not; a star adds its photons."""
    image = np.random.default_rng(2).normal(left, 12.4, (80, 80))
    image[40, 40] += 1000.0
    found = photon_variance(np.stack([image * unit, (image + 300 - left) * unit]), gain=2.0 / unit, readnoise=4.0)
    subtracted, whole = found / unit**2
    assert np.median(subtracted) == pytest.approx(12.4**2, rel=0.06)
    assert subtracted[40, 40] == pytest.approx(12.4**2 + 500, rel=0.03)
    assert np.median(whole) == pytest.approx(12.4**2, rel=0.06)


def test_photon_variance_of_dark_frames_is_read_noise() -> None:
    image = np.random.default_rng(3).normal(0, 2.0, (80, 80))
    np.testing.assert_allclose(np.median(photon_variance(image, gain=2.0, readnoise=4.0)), 4.0, rtol=0.05)


def test_photon_variance_broadcasts_over_time() -> None:
    stack = np.stack([IMAGE, 2 * IMAGE, IMAGE + 7])
    gain, readnoise, n = np.array([4.0, 2.0, 6.0]), np.array([8.0, 9.0, 10.0]), np.array([1, 2, 3])
    found = photon_variance(stack, gain=gain, readnoise=readnoise, n_frames=n)
    assert found.shape == stack.shape
    for i, image in enumerate(stack):
        alone = photon_variance(image, gain=gain[i], readnoise=readnoise[i], n_frames=n[i])
        np.testing.assert_allclose(found[i], alone, rtol=1e-12)
    np.testing.assert_allclose(
        photon_variance(stack, gain=4.0, readnoise=readnoise)[1],
        photon_variance(stack[1], gain=4.0, readnoise=9.0),
        rtol=1e-12,
    )


@pytest.mark.parametrize("hole", [np.nan, np.inf, -np.inf])
def test_photon_variance_nan_stays_nan(hole: float) -> None:
    image = IMAGE.copy()
    image[0, 1] = hole
    found = photon_variance(np.stack([image, np.full_like(image, hole), IMAGE]), gain=4.0, readnoise=8.0)
    expected = np.array([[29.0, np.nan, 29.0], [104.0, 29.0, 29.0]])
    np.testing.assert_allclose(found[0], expected, rtol=1e-12)
    assert np.isnan(found[1]).all()
    np.testing.assert_allclose(found[2], photon_variance(IMAGE, gain=4.0, readnoise=8.0), rtol=1e-12)


def test_photon_variance_is_that_of_poisson_counts() -> None:
    """1e6 pixels of 200 DN: the variance of their scatter is known to 0.14 %; five of that are 0.7 %."""
    rng = np.random.default_rng(1)
    gain, readnoise, level = 6.0, 9.0, 200.0
    pixels = (rng.poisson(level * gain, (1000, 1000)) + rng.normal(0, readnoise, (1000, 1000))) / gain
    found = photon_variance(np.full((3, 3), level), gain=gain, readnoise=readnoise)
    np.testing.assert_allclose(found, pixels.var(), rtol=7e-3)


def test_sky_variance_by_hand() -> None:
    """Light above the sky adds its photons; pixels that fluctuate low have the noise of the sky."""
    found = sky_variance(IMAGE.astype(np.float32), 100.0, 3.0, 4.0)
    np.testing.assert_allclose(found, [[9.0, 9.0, 9.0], [84.0, 9.0, 9.0]], rtol=1e-6)
    assert found.dtype == np.float32


def test_sky_variance_broadcasts_over_time() -> None:
    stack = np.stack([IMAGE, 2 * IMAGE, IMAGE + 7])
    level, rms, gain = IMAGE - 1, np.sqrt(np.abs(IMAGE)), np.array([4.0, 2.0, 6.0])
    found = sky_variance(stack, level, rms, gain[:, None, None])
    for image, one, g in zip(stack, found, gain, strict=True):
        np.testing.assert_allclose(one, np.abs(IMAGE) + np.maximum(image - level, 0) / g, rtol=1e-6)


def test_sky_variance_nan_stays_nan() -> None:
    image = IMAGE.copy()
    image[0, 1] = np.nan
    np.testing.assert_array_equal(np.isnan(sky_variance(image, 100.0, 3.0, 4.0)), np.isnan(image))
    assert np.isnan(sky_variance(IMAGE, 100.0, 3.0, np.nan)).all()


@given(
    hnp.arrays(
        np.float64,
        hnp.array_shapes(min_dims=1, max_dims=3, max_side=7),
        elements=st.one_of(st.floats(-1e6, 1e6), st.sampled_from([np.nan, np.inf, -np.inf])),
    )
)
def test_mad_std(values: np.ndarray) -> None:
    finite = values[np.isfinite(values)]
    expected = median_abs_deviation(finite, scale="normal") if finite.size else np.nan
    np.testing.assert_allclose(mad_std(values), expected, rtol=1e-12)


def test_mad_std_of_a_gaussian_with_outliers() -> None:
    values = np.random.default_rng(2).normal(50.0, 3.0, 100_000)
    values[:100] = 1e9
    np.testing.assert_allclose(mad_std(values), 3.0, rtol=0.02)
