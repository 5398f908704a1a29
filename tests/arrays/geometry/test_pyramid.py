"""Cuts of a view: means by hand, every bit kept, and edges where the pixels are."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ztfxr.arrays.geometry.pyramid import Pyramid

IMAGE = np.random.default_rng(1).normal(size=(70, 100)).astype(np.float32)


def test_a_narrow_view_has_the_pixels_themselves() -> None:
    cut = Pyramid(IMAGE).cut((9.5, 29.5), (4.5, 24.5), pixels=400, margin=0.0)
    assert (cut.x, cut.y, cut.width, cut.height, cut.factor) == (9.5, 4.5, 20.0, 20.0, 1)
    np.testing.assert_array_equal(cut.values, IMAGE[5:25, 10:30])


def test_a_wide_view_has_means_of_the_finite_pixels() -> None:
    image = IMAGE.copy()
    image[:8, :8] = np.nan
    image[9, 9] = np.inf
    cut = Pyramid(image).cut((-0.5, 99.5), (-0.5, 69.5), pixels=25)
    assert cut.factor == 4
    assert np.isnan(cut.values[:2, :2]).all()
    block = image[8:12, 8:12]
    assert cut.values[2, 2] == pytest.approx(block[np.isfinite(block)].mean(), rel=1e-6)
    assert (cut.x, cut.width, cut.values.shape) == (-0.5, 100.0, (18, 25))


def test_a_lone_bad_pixel_is_seen_from_afar() -> None:
    bits = np.zeros((70, 100), dtype=np.uint16)
    bits[33, 47] = 1 << 9
    bits[34, 46] = 1 << 2
    wide = Pyramid(bits).cut((0, 99), (0, 69), pixels=10).values
    assert np.bitwise_or.reduce(wide, axis=None) == (1 << 9) | (1 << 2)
    assert np.count_nonzero(wide) <= 2


@given(
    x=st.tuples(st.floats(-150, 250), st.floats(0.1, 300)),
    y=st.tuples(st.floats(-150, 250), st.floats(0.1, 300)),
    pixels=st.integers(5, 500),
)
def test_a_cut_covers_the_view_and_agrees_with_the_image(
    x: tuple[float, float], y: tuple[float, float], pixels: int
) -> None:
    (x0, x1), (y0, y1) = ((a, a + width) for a, width in (x, y))
    cut = Pyramid(IMAGE).cut((x0, x1), (y0, y1), pixels)
    meets = x1 > -0.5 and x0 < 99.5 and y1 > -0.5 and y0 < 69.5
    assert meets <= (cut.values.size > 0)
    if not meets:
        return
    assert cut.x <= max(x0, -0.5)
    assert cut.x + cut.width >= min(x1, 99.5)
    assert cut.y <= max(y0, -0.5)
    assert cut.y + cut.height >= min(y1, 69.5)
    assert max(cut.values.shape) <= 2 * pixels * 1.5 + 2
    row, column = round((cut.y + 0.5) / cut.factor), round((cut.x + 0.5) / cut.factor)
    f = cut.factor
    first = IMAGE[row * f : row * f + f, column * f : column * f + f].mean(dtype=np.float64)
    assert cut.values[0, 0] == pytest.approx(first, abs=1e-5)
