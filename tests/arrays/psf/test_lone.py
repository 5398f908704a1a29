"""The profile of a lone source, against the profile that its pixels were drawn from."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import ndtr

from ztfxr.arrays.no_solution import NoSolutionError
from ztfxr.arrays.psf.lone import lone_profile, windowed_centroid

OFFSET = np.arange(-31, 32, dtype=np.float64)


def star(y: float, x: float, sigma: tuple[float, float]) -> np.ndarray:
    """A Gaussian of unit sum, integrated over pixels."""
    edges = np.append(OFFSET - 0.5, OFFSET[-1] + 0.5)
    rows, columns = (np.diff(ndtr((edges - place) / width)) for place, width in zip((y, x), sigma, strict=True))
    return np.outer(rows, columns)


@pytest.mark.parametrize(("y", "x"), [(0.0, 0.0), (-0.2, 0.3), (1.4, -2.1)])
@pytest.mark.parametrize("sigma", [0.9, 1.4])
def test_the_centroid_and_the_width_of_a_gaussian(y, x, sigma):
    found = windowed_centroid(5000 * star(y, x, (sigma, sigma)), OFFSET)
    assert found.y == pytest.approx(y, abs=0.02)
    assert found.x == pytest.approx(x, abs=0.02)
    assert found.fwhm == pytest.approx(2.3548 * np.hypot(sigma, 12**-0.5), rel=0.02)


def test_the_profile_is_that_of_the_source_with_its_error():
    truth = star(-0.2, 0.3, (1.35, 1.5))
    rng = np.random.default_rng(0)
    variance = np.full(truth.shape, 25.0)
    found = [lone_profile(50000 * truth + rng.normal(scale=5.0, size=truth.shape), variance, 9.0) for _ in range(40)]
    middle = truth[22:41, 22:41]
    assert found[0].psf.shape == middle.shape
    np.testing.assert_allclose([one.psf.sum() for one in found], 1.0)
    np.testing.assert_allclose(np.mean([one.psf for one in found], axis=0), middle, atol=2e-4)
    assert np.mean([one.profile_chi2 for one in found]) == pytest.approx(1.0, abs=0.05)


def test_the_error_of_the_sum_is_the_scatter_of_fluxes_by_it():
    """A flux fitted with the source's own profile is the profile's sum, however few pixels it is fitted to."""
    truth, rng = star(0.1, -0.3, (1.4, 1.4)), np.random.default_rng(1)
    variance = np.full(truth.shape, 100.0)
    y, x = np.meshgrid(OFFSET[22:41], OFFSET[22:41], indexing="ij")
    peak = np.hypot(y, x) <= 2
    light, errors = [], []
    for _ in range(150):
        image = 20000 * truth + rng.normal(scale=10.0, size=truth.shape)
        one = lone_profile(image, variance, 9.0)
        weights = np.where(peak, one.psf, 0.0)
        light.append((image[22:41, 22:41] * weights).sum() / (weights * one.psf).sum())
        errors.append(one.profile_err * 20000)
    assert np.std(light) == pytest.approx(np.mean(errors), rel=0.2)


def test_bad_pixels_do_not_count_and_too_many_of_them_leave_no_profile():
    truth = star(0.0, 0.0, (1.4, 1.4))
    image, variance = 50000 * truth, np.full(truth.shape, 25.0)
    image[29, 33], variance[35, 30] = np.nan, 0.0
    np.testing.assert_allclose(lone_profile(image, variance, 9.0).psf, truth[22:41, 22:41], atol=2e-4)
    image[:32] = np.nan
    with pytest.raises(NoSolutionError) as lost:
        lone_profile(image, variance, 9.0)
    assert lost.value.status == "too_few_pixels"
