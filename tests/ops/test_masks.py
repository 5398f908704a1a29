"""Bit planes to boolean masks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from scipy import ndimage

from ztfxr.arrays.bits import disk
from ztfxr.errors import ChunkError, InputError
from ztfxr.ops.masks import get_flags, mask, resolve_planes
from ztfxr.schema import MASK_PLANES

NAMES = [p.name for p in MASK_PLANES]
VALUE = {p.name: p.value for p in MASK_PLANES}
IMAGES = hnp.arrays(np.uint16, st.tuples(st.integers(1, 7), st.integers(1, 7)))


def flags_of(values: NDArray[Any], *dims: str) -> xr.DataArray:
    return xr.DataArray(values, dims=dims or ("y", "x"), name="flags")


EVERY = flags_of(np.array([[0, *VALUE.values()]], np.uint16))


@pytest.mark.parametrize("name", NAMES)
def test_each_plane_by_name_and_keyword(name: str) -> None:
    alone = [False] + [n == name for n in NAMES]
    for found in (mask(EVERY, [name]), mask(EVERY, name), mask(EVERY, [], **{name: True}), mask(EVERY, VALUE[name])):
        np.testing.assert_array_equal(found.values[0], alone)
        assert found.attrs["planes"] == name
    np.testing.assert_array_equal(mask(EVERY, NAMES, **{name: False}).values[0][1:], [n != name for n in NAMES])
    assert mask(EVERY, **{name: True}).values[0][1 + NAMES.index(name)]
    assert not mask(EVERY, **{name: False}).values[0][1 + NAMES.index(name)]


def test_default_is_every_plane_but_the_sources() -> None:
    good = [NAMES[i - 1] for i in np.flatnonzero(~mask(EVERY).values[0]) if i > 0]
    assert good == ["sexsources", "psfsources"]
    assert mask(EVERY).values[0][0] == False  # noqa: E712
    assert "sexsources" not in mask(EVERY).attrs["planes"]


@given(IMAGES, st.sets(st.sampled_from(NAMES)), st.dictionaries(st.sampled_from(NAMES), st.booleans()))
def test_equals_integer_arithmetic(values: NDArray[np.uint16], names: set[str], keywords: dict[str, bool]) -> None:
    chosen = (names | {n for n, wanted in keywords.items() if wanted}) - {n for n, w in keywords.items() if not w}
    expected = np.zeros(values.shape, bool)
    for name in chosen:
        expected |= (values.astype(int) // VALUE[name]) % 2 == 1
    found = mask(flags_of(values), names, **keywords)
    assert found.dtype == bool
    assert found.name == "mask"
    np.testing.assert_array_equal(found.values, expected)
    assert resolve_planes(names, keywords) == sum(VALUE[n] for n in chosen)


@given(IMAGES, st.integers(0, 2**16 - 1))
def test_integer_planes(values: NDArray[np.uint16], bits: int) -> None:
    for chosen in (bits, np.uint16(bits), np.int64(bits)):
        np.testing.assert_array_equal(mask(flags_of(values), chosen).values, (values.astype(int) & bits) != 0)  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", ["u1", "i2", ">i2", "u2", "i4", "i8"])
def test_integer_dtypes(dtype: str) -> None:
    """Planes above what the dtype holds are never set."""
    values = np.array([[0, 1, 2, 16, 64]], dtype)
    np.testing.assert_array_equal(mask(flags_of(values)).values, [[False, True, False, True, True]])


@given(IMAGES, st.floats(0.1, 3))
def test_grow_equals_scipy(values: NDArray[np.uint16], radius: float) -> None:
    found = mask(flags_of(values), grow=radius).values
    np.testing.assert_array_equal(found, ndimage.binary_dilation((values & 6141) | (values >> 15) != 0, disk(radius)))


@given(
    hnp.arrays(np.uint16, st.tuples(st.integers(1, 5), st.integers(1, 6), st.integers(1, 6))),
    st.sampled_from([0.0, 1.0, 2.5]),
    st.integers(1, 5),
)
def test_dask_equals_numpy(values: NDArray[np.uint16], grow: float, chunk: int) -> None:
    """A stack in chunks of time gives each image's own mask, and nothing grows from one epoch into the next."""
    stack = flags_of(values, "time", "y", "x")
    lazy = mask(stack.chunk(time=chunk), grow=grow)
    assert lazy.chunks is not None
    assert lazy.dims == stack.dims
    computed = lazy.compute(scheduler="synchronous")
    xr.testing.assert_identical(computed, mask(stack, grow=grow))
    for i in range(len(values)):
        np.testing.assert_array_equal(computed[i].values, mask(stack[i], grow=grow).values)


@pytest.mark.parametrize("grow", [0, 2])
def test_lazy(raising_scheduler: Any, grow: float) -> None:
    stack = flags_of(np.zeros((2, 5, 6), np.uint16), "time", "y", "x").chunk(time=1)
    found = mask(stack, grow=grow)
    assert found.chunks == ((1, 1), (5,), (6,))
    assert mask(stack.to_dataset(), grow=grow).dtype == bool
    with pytest.raises(AssertionError, match="stayed lazy"):
        found.compute()


def test_coordinates_stay() -> None:
    flags = flags_of(np.zeros((3, 4), np.uint16)).assign_coords(y=[5, 6, 7], x=[1, 2, 3, 4], gain=6.2)
    for grow in (0, 1):
        xr.testing.assert_identical(mask(flags, grow=grow).coords.to_dataset(), flags.coords.to_dataset())
    turned = mask(flags.transpose("x", "y"), grow=1)
    assert turned.dims == ("x", "y")


def test_input_is_left_alone() -> None:
    flags = EVERY.copy()
    flags.attrs["kept"] = 1
    mask(flags, grow=1)
    assert flags.attrs == {"kept": 1}
    assert flags.name == "flags"


def test_chunked_images_cannot_grow() -> None:
    flags = flags_of(np.zeros((4, 4), np.uint16)).chunk(y=2)
    assert not mask(flags).compute(scheduler="synchronous").any()
    with pytest.raises(ChunkError, match=r"flags has 2 chunks along 'y', which .* needs whole; use \.chunk\(y=-1\)"):
        mask(flags, grow=1)


@pytest.mark.parametrize("dtype", [bool, np.float32])
def test_flags_are_integers(dtype: Any) -> None:
    with pytest.raises(InputError, match=r"mask planes are integers; flags is (bool|float32): call this on ds\.flags"):
        mask(flags_of(np.zeros((2, 2), dtype)))


def test_unknown_plane_lists_the_names() -> None:
    for attempt in ({"planes": ["tracks", "halo"]}, {"planes": "halo"}, {"halo": True}, {"halo": False}):
        with pytest.raises(
            InputError, match=r"unknown plane 'halo'; the planes are tracks, sexsources, .*brightstarhalo"
        ):
            mask(EVERY, **attempt)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="unknown plane 'True'"):
        mask(EVERY, True)


def test_dataset_without_flags() -> None:
    with pytest.raises(InputError, match="no variable 'flags'; open the frame with its mask image"):
        mask(xr.Dataset({"sci": EVERY}))
    assert get_flags(EVERY.to_dataset()).identical(EVERY)
