"""Block means against pixels taken one by one."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ztfxr.arrays.geometry.blocks import block_mean, block_or, block_range, combine_means

sizes = st.integers(1, 12)
factors = st.integers(1, 7)
starts = st.tuples(st.integers(0, 9), st.integers(0, 9))


def members(start: tuple[int, int], shape: tuple[int, int], factor: int):
    """Every block (by its place in the result) and the pixels in it."""
    rows, columns = ((s + np.arange(n)) // factor for s, n in zip(start, shape, strict=True))
    for row in range(rows[0], rows[-1] + 1):
        for column in range(columns[0], columns[-1] + 1):
            place = row - rows[0], column - columns[0]
            yield place, np.ix_(rows == row, columns == column)


def make(shape: tuple[int, int], seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    image = rng.normal(200, 9, shape).astype(np.float32)
    image[rng.random(shape) < 0.2] = np.nan
    image[rng.random(shape) < 0.1] = np.inf
    return image, rng.random(shape) < 0.3


@settings(max_examples=30)
@given(sizes, sizes, factors, starts, st.integers(0, 99))
def test_mean_of_the_good_pixels(ny: int, nx: int, factor: int, start: tuple[int, int], seed: int) -> None:
    image, bad = make((ny, nx), seed)
    means, counts = block_mean(image, bad, factor=factor, start=start)
    assert (means.dtype, counts.dtype) == (np.float32, np.int32)
    found = dict(members(start, (ny, nx), factor))
    assert means.shape == tuple(np.array(list(found)[-1]) + 1)
    for place, pixels in found.items():
        good = image[pixels][~bad[pixels] & np.isfinite(image[pixels])]
        assert counts[place] == good.size
        expected = good.astype(float).mean() if good.size else np.nan
        np.testing.assert_allclose(means[place], expected, rtol=1e-6)


@settings(max_examples=30)
@given(sizes, sizes, factors, starts, st.integers(0, 99))
def test_planes_of_a_block(ny: int, nx: int, factor: int, start: tuple[int, int], seed: int) -> None:
    bits = (1 << np.random.default_rng(seed).integers(0, 15, (ny, nx))).astype(np.uint16)
    found = block_or(bits, factor=factor, start=start)
    assert found.dtype == np.uint16
    for place, pixels in members(start, (ny, nx), factor):
        assert found[place] == np.bitwise_or.reduce(bits[pixels], axis=None)
    some = block_or(bits > 100, factor=factor, start=start)
    assert some.dtype == bool
    assert np.array_equal(some, block_or((bits > 100).astype(np.uint8), factor=factor, start=start) > 0)


@given(st.integers(1, 40), factors, st.integers(0, 50))
def test_range_is_that_of_the_pixels(size: int, factor: int, start: int) -> None:
    blocks = np.unique((start + np.arange(size)) // factor)
    assert block_range(start, size, factor) == (blocks[0], blocks[-1] + 1)


@given(factors, st.integers(0, 99))
def test_two_parts_make_the_whole(factor: int, seed: int) -> None:
    image, bad = make((9, 11), seed)
    upper = np.arange(9)[:, np.newaxis] < 4
    parts = [block_mean(image, bad | away, factor=factor) for away in (upper, ~upper)]
    means, counts = combine_means(*parts)
    whole, n = block_mean(image, bad, factor=factor)
    assert np.array_equal(counts, n)
    np.testing.assert_allclose(means, whole, rtol=1e-6)


def test_inputs_stay_as_they_are() -> None:
    image, bad = make((6, 6), 0)
    before = image.copy(), bad.copy()
    block_mean(image, bad, factor=1)[0][:] = 0
    block_or(bad, factor=1)[:] = True
    assert np.array_equal(image, before[0], equal_nan=True)
    assert np.array_equal(bad, before[1])
