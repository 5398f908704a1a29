"""Regions of an image that nothing was seen in."""

from __future__ import annotations

import numpy as np
import pytest

from ztfxr.arrays.images.image import Image, blank_pixels


def _noisy(dtype: str = "f4") -> np.ndarray:
    rng = np.random.default_rng(0)
    image = rng.normal(0.0, 12.0, (90, 110))
    return (np.round(image) if dtype.startswith("i") else image).astype(dtype)


@pytest.mark.parametrize("dtype", ["f4", "f8", "i2", ">i4"])
@pytest.mark.parametrize("value", [0, -99, 7, -1e20])
def test_a_hole_of_one_value_is_bad_and_counted(dtype, value):
    if dtype[-2] == "i" and abs(value) > 1e9:
        pytest.skip("no such integer")
    image, hole = _noisy(dtype), np.zeros((90, 110), dtype=bool)
    hole[20:41, 33:60] = True
    image[hole] = value
    np.testing.assert_array_equal(blank_pixels(image) & hole, hole)
    assert blank_pixels(image).sum() < hole.sum() + 10
    found = Image.of(image, None, np.zeros(hole.shape, dtype=bool))
    assert found.n_blank == blank_pixels(image).sum()
    assert found.bad[hole].all()
    assert Image.of(image, None, blank_pixels(image)).n_blank == 0


def test_what_only_looks_blank_is_not():
    noise, model, saturated, few = _noisy(), np.zeros((90, 110)), _noisy(), _noisy("i2") // 12
    y, x = np.mgrid[:90, :110]
    for cy, cx in np.random.default_rng(1).uniform(10, 80, (25, 2)):
        r2 = (y - cy) ** 2 + (x - cx) ** 2
        model += np.where(r2 < 200, 1000 * np.exp(-r2 / 8), 0.0)
    saturated[30:40, 30:40] = 65535
    for image in (noise, model, saturated, few, np.zeros((90, 110))):
        assert not blank_pixels(image).any()
