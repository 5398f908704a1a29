"""The autocorrelation of noise."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import signal

from ztfxr.arrays.images.correlation import autocorrelation


@pytest.mark.parametrize("shape", [(300, 320), (1500, 1400)])
def test_of_convolved_noise(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    kernel = np.outer([0.2, 0.6, 0.2], [0.0, 0.7, 0.3])
    scale = rng.uniform(1, 3, (shape[0], 1)) * np.ones(shape)
    image = signal.convolve(rng.normal(size=shape), kernel, mode="same") * scale + 5.0 * scale
    variance = (kernel**2).sum() * scale**2
    expected = signal.correlate(np.pad(kernel, 3), kernel, mode="valid") / (kernel**2).sum()
    found = autocorrelation(image, variance, np.zeros(shape, bool))
    assert found.shape == (7, 7)
    np.testing.assert_allclose(found, expected, atol=0.015)
    np.testing.assert_array_equal(found, found[::-1, ::-1])


def test_sources_and_bad_pixels_are_left_out() -> None:
    rng = np.random.default_rng(1)
    image = rng.normal(size=(300, 300))
    offset = np.arange(300)
    for y, x in rng.uniform(10, 290, (40, 2)):
        image += 50 * np.exp(-0.5 * ((offset[:, None] - y) ** 2 + (offset[None, :] - x) ** 2) / 1.2**2)
    bad = rng.uniform(size=image.shape) < 0.05
    image[bad] = np.nan
    found = autocorrelation(image, np.ones_like(image), bad)
    found[3, 3] = 0.0
    assert np.abs(found).max() < 0.03


def test_too_few_pixels_are_taken_as_independent() -> None:
    found = autocorrelation(np.ones((20, 20)), np.ones((20, 20)), np.zeros((20, 20), bool), reach=2)
    assert found.sum() == found[2, 2] == 1.0
