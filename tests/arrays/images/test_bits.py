"""Bit planes of integer images."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from scipy import ndimage

from ztfxr.arrays.images import bits

DTYPES = st.sampled_from([np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64])


@given(
    DTYPES.flatmap(lambda d: hnp.arrays(d, hnp.array_shapes(max_dims=3, max_side=6), elements={"min_value": 0})),
    st.integers(0, 127),
)
def test_any_bit_equals_integer_arithmetic(flags: NDArray[np.integer], chosen: int) -> None:
    expected = np.array([any((int(v) >> b) & 1 and (chosen >> b) & 1 for b in range(8)) for v in flags.flat])
    found = bits.any_bit(flags, chosen)
    assert found.dtype == bool
    np.testing.assert_array_equal(found, expected.reshape(flags.shape))


def test_any_bit_sees_bit_15() -> None:
    flags = np.array([0, 1 << 15, 1], np.uint16)
    np.testing.assert_array_equal(bits.any_bit(flags, 1 << 15), [False, True, False])


@pytest.mark.parametrize(("radius", "pixels"), [(0, 1), (0.9, 1), (1, 5), (1.5, 9), (2, 13), (2.9, 25)])
def test_disk_counts(radius: float, pixels: int) -> None:
    found = bits.disk(radius)
    assert int(found.sum()) == pixels
    assert found.shape[0] == found.shape[1] == 2 * int(radius) + 1
    np.testing.assert_array_equal(found, found.T[::-1])


def brute_force(bad: NDArray[np.bool_], radius: float) -> NDArray[np.bool_]:
    """True where a bad pixel lies within `radius`."""
    y, x = np.indices(bad.shape)
    points = np.argwhere(bad)
    out = np.zeros(bad.shape, bool)
    for py, px in points:
        out |= (y - py) ** 2 + (x - px) ** 2 <= radius**2
    return out


@given(hnp.arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9))), st.floats(0, 4))
def test_grow_equals_distance_and_scipy(bad: NDArray[np.bool_], radius: float) -> None:
    found = bits.grow(bad, radius)
    np.testing.assert_array_equal(found, brute_force(bad, radius))
    np.testing.assert_array_equal(found, ndimage.binary_dilation(bad, structure=bits.disk(radius)))


def test_grow_keeps_the_images_of_a_stack_apart() -> None:
    stack = np.zeros((3, 7, 7), bool)
    stack[1, 3, 3] = True
    found = bits.grow(stack, 2)
    assert not found[0].any()
    assert not found[2].any()
    np.testing.assert_array_equal(found[1], bits.grow(stack[1], 2))


@pytest.mark.parametrize("radius", [1.0, 2.5, 7.0])
def test_grow_reaches_over_no_edge(radius: float) -> None:
    """Bad pixels in the corners and along the edges of each image of a stack."""
    rng = np.random.default_rng(4)
    stack = rng.random((3, 20, 17)) < 0.03
    stack[0, [0, 0, -1, -1], [0, -1, 0, -1]] = True
    stack[1, :, 0] = True
    found = bits.grow(stack, radius)
    for image, grown in zip(stack, found, strict=True):
        np.testing.assert_array_equal(grown, brute_force(image, radius))
    assert found.flags.c_contiguous


def test_grow_leaves_its_input_alone() -> None:
    bad = np.zeros((9, 9), bool)
    bad[4, 4] = True
    bits.grow(bad, 3)
    assert bad.sum() == 1


def test_any_bit_of_large_and_of_turned_images() -> None:
    """Larger than the blocks that it works by, and not contiguous."""
    flags = np.random.default_rng(5).integers(0, 1 << 16, (500, 611)).astype(np.uint16)
    expected = (flags & 6141) != 0
    np.testing.assert_array_equal(bits.any_bit(flags, 6141), expected)
    np.testing.assert_array_equal(bits.any_bit(flags.T, 6141), expected.T)
    np.testing.assert_array_equal(bits.any_bit(flags[::2, 3:], 6141), expected[::2, 3:])


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16])
def test_any_bit_ignores_what_the_integers_cannot_hold(dtype: type[np.integer]) -> None:
    flags = np.array([[0, 1, 64]], dtype)
    np.testing.assert_array_equal(bits.any_bit(flags, 1 | 1 << 20), [[False, True, False]])


@given(
    DTYPES.flatmap(lambda d: hnp.arrays(d, hnp.array_shapes(min_dims=2, max_dims=2, max_side=6))),
    st.lists(st.sampled_from([1 << b for b in range(17)]), max_size=5),
)
def test_fractions_equal_counting(flags: NDArray[np.integer], values: list[int]) -> None:
    found = bits.fractions(flags, values)
    assert found.shape == (len(values),)
    held = np.iinfo(flags.dtype).max
    expected = [np.mean([bool(int(f) & v) and v <= held for f in flags.flat]) for v in values]
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_fractions_of_a_large_turned_image() -> None:
    flags = np.random.default_rng(6).integers(0, 8, (500, 611)).astype(np.uint16)
    expected = [((flags & v) != 0).mean() for v in (1, 2, 4, 8)]
    np.testing.assert_allclose(bits.fractions(flags.T, (1, 2, 4, 8)), expected, rtol=1e-12)
    assert np.isnan(bits.fractions(flags[:0], (1, 2))).all()


ELLIPSES = st.lists(
    st.tuples(st.floats(-5, 25), st.floats(-5, 25), st.floats(0.8, 9), st.floats(0.8, 9), st.floats(-360, 360)),
    max_size=4,
)


@given(ELLIPSES)
def test_ellipses_equal_their_equation(sources: list[tuple[float, ...]]) -> None:
    """Pixels within a rounding error of the rim may go either way."""
    columns = np.array(sources, dtype=float).reshape(-1, 5).T
    found = bits.ellipses(*columns, shape=(20, 23))
    y, x = np.indices((20, 23))
    inside, near = np.zeros((2, 20, 23), bool)
    for cx, cy, a, b, angle in sources:
        theta = np.deg2rad(angle)
        u = (x - cx) * np.cos(theta) + (y - cy) * np.sin(theta)
        v = -(x - cx) * np.sin(theta) + (y - cy) * np.cos(theta)
        distance = (u / a) ** 2 + (v / b) ** 2
        inside |= distance <= 1
        near |= np.abs(distance - 1) < 1e-5
    np.testing.assert_array_equal(found[~near], inside[~near])


def test_ellipses_turn_from_x_to_y() -> None:
    found = bits.ellipses(*np.array([[10.0], [10.0], [8.0], [1.0], [45.0]]), shape=(21, 21))
    assert found[15, 15]
    assert not found[5, 15]


def test_ellipses_pass_over_rows_that_are_not_finite() -> None:
    rows = np.array([[5.0, 5.0, 2.0, 2.0, 0.0]] * 7)
    rows[np.arange(5), np.arange(5)] = np.nan
    rows[5, 2] = np.inf
    np.testing.assert_array_equal(bits.ellipses(*rows.T, shape=(11, 11)), bits.ellipses(*rows[6:].T, shape=(11, 11)))
    assert not bits.ellipses(*rows[:6].T, shape=(11, 11)).any()


@given(st.floats(-0.49, 19.49), st.floats(-0.49, 19.49))
def test_the_smallest_ellipse_has_a_pixel(x: float, y: float) -> None:
    found = bits.ellipses(*np.array([[x], [y], [0.0], [0.0], [0.0]]), shape=(20, 20))
    assert found[int(np.floor(y + 0.5)), int(np.floor(x + 0.5))]
    assert found.sum() <= 4
