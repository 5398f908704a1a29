"""Bit planes of integer images."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from scipy import ndimage

from ztfxr.arrays import bits

DTYPES = st.sampled_from([np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64])


def test_combine() -> None:
    assert bits.combine(()) == 0
    assert bits.combine((1, 4, 4)) == 5
    assert bits.combine(np.array([1, 2], np.uint16)) == 3


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
