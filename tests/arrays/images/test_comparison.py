"""What is left of subtracted light, and scatter over scatter, of made-up images."""

from __future__ import annotations

import numpy as np
import pytest

from ztfxr.arrays.images.comparison import fraction_left, scatter_ratio


@pytest.fixture(scope="module")
def light():
    y, x = np.mgrid[-20:21, -20:21].astype(np.float64)
    return 400 * np.exp(-0.5 * (x**2 + (2 * y) ** 2) / 8**2)


@pytest.mark.parametrize("fraction", [-0.03, 0.0, 0.02])
def test_the_fraction_that_was_left_is_found_on_a_sloping_sky(light, fraction):
    y, x = np.mgrid[:41, :41]
    difference = fraction * light + 7.0 + 0.3 * x - 0.1 * y
    everywhere = np.ones(light.shape, dtype=bool)
    assert fraction_left(difference, light, everywhere) == pytest.approx(fraction, abs=1e-9)
    assert fraction_left(difference.astype("f4"), light.astype("f4"), everywhere) == pytest.approx(fraction, abs=1e-6)


def test_pixels_that_are_bad_or_elsewhere_do_not_count(light):
    difference = 0.02 * light
    difference[:5] = 1e6
    difference[30, 3] = np.nan
    where = np.ones(light.shape, dtype=bool)
    where[:5] = False
    assert fraction_left(difference, light, where) == pytest.approx(0.02, abs=1e-9)
    assert np.isnan(fraction_left(np.full_like(light, np.nan), light, where))


def test_scatter_over_scatter():
    rng = np.random.default_rng(0)
    image, other = rng.normal(scale=3.0, size=(100, 100)), rng.normal(scale=2.0, size=(100, 100))
    where = np.ones(image.shape, dtype=bool)
    where[:, :10] = False
    image[:, :10] = 1e5
    assert scatter_ratio(image, other, where) == pytest.approx(1.5, rel=0.05)
