"""Whatever a Dataset may hold survives a store, or is refused before anything is written."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.conftest import EXAMPLES
from ztfxr.errors import StoreError
from ztfxr.schema import plain
from ztfxr.store.zarr import open_zarr, to_zarr

# Words that CF, xarray and zarr give a meaning of their own.
WORDS = (
    *("units", "calendar", "scale_factor", "add_offset", "_FillValue", "missing_value", "_Unsigned", "dtype", "bounds"),
    *("coordinates", "grid_mapping", "ancillary_variables", "cell_measures", "formula_terms", "_ARRAY_DIMENSIONS"),
    *("long_name", "_Encoding", "chunks", "compressor", "fill_value", "dimension_names", "zarr.json", "Conventions"),
)
UNITS = ("days since maximum", "hours since 2020-01-01", "days", "seconds", "since", "DN", "", "ns", "m s-1 since")
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
NUMBERS = st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.booleans()
VALUES = st.recursive(
    st.none() | NUMBERS | TEXT | st.sampled_from([*UNITS, *WORDS]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
ATTRS = st.dictionaries(st.sampled_from(WORDS) | TEXT, VALUES, max_size=4)
NAMES = st.sampled_from(["flux", "my flux", "c", "zarr", "ra", "µ", "time", ".hidden", "0"]) | st.text(
    st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="/\\"), min_size=1, max_size=12
)
DTYPES = (
    *("?", "i1", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8", ">f4", ">i2", "c8", "c16", "U3", "S4"),
    *("M8[s]", "M8[ms]", "M8[us]", "M8[ns]", "m8[s]", "m8[us]", "m8[ns]"),
)


@st.composite
def arrays(draw: st.DrawFn, shape: tuple[int, ...]) -> NDArray[Any]:
    """Any value that the dtype has, NaN, NaT and far dates among them."""
    dtype = np.dtype(draw(st.sampled_from(DTYPES)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    if dtype.kind == "U":
        return np.array(
            draw(st.lists(TEXT, min_size=int(np.prod(shape)), max_size=int(np.prod(shape)))), dtype
        ).reshape(shape)
    raw = rng.integers(0, 256, (*shape, dtype.itemsize), dtype=np.uint8)
    if dtype.kind in "bS":
        raw %= 2 if dtype.kind == "b" else 128
    values = np.ascontiguousarray(raw).view(dtype).reshape(shape)
    return values.copy()


@st.composite
def datasets(draw: st.DrawFn) -> xr.Dataset:
    """A small Dataset with variables and coordinates of any name, dtype and attributes."""
    names = draw(st.lists(NAMES, min_size=1, max_size=4, unique_by=str.casefold))
    dims = draw(st.lists(NAMES, min_size=1, max_size=2, unique=True))
    sizes = {d: draw(st.integers(1, 3)) for d in dims}
    out = xr.Dataset(attrs=draw(ATTRS))
    for name in names:
        along = draw(st.lists(st.sampled_from(dims), max_size=2, unique=True))
        if name in dims:
            along = [name]
        values = draw(arrays(tuple(sizes[d] for d in along)))
        # An index is pandas', which has no half floats, no NaN of its own and no bytes.
        assume(name not in along or (values.dtype.kind in "iuM" and values.dtype.isnative))
        variable = xr.Variable(along, values, draw(ATTRS))
        as_label = name in along or draw(st.booleans())
        out = out.assign_coords({name: variable}) if as_label else out.assign({name: variable})
    return out


@settings(max_examples=EXAMPLES, deadline=None)
@given(datasets())
def test_it_survives_or_is_refused(dataset: xr.Dataset) -> None:
    before = dataset.copy(deep=True)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "s.zarr"
        try:
            to_zarr(dataset, path)
        except StoreError:
            assert not list(Path(folder).iterdir())
            return
        found = open_zarr(path)
        assert isinstance(found, xr.Dataset)
        assert_same(found.load(), dataset)
    assert_same(dataset, before)


def assert_same(found: xr.Dataset, given: xr.Dataset) -> None:
    assert list(found.data_vars) == list(given.data_vars)
    assert list(found.coords) == list(given.coords)
    assert found.attrs == plain(given.attrs, "attributes")
    for name, variable in given.variables.items():
        other = found.variables[name]
        assert (other.dims, other.dtype) == (variable.dims, variable.dtype), name
        assert same_values(other.values, variable.values), name
        assert other.attrs == plain(variable.attrs, "attributes"), name


def same_values(found: NDArray[Any], given: NDArray[Any]) -> bool:
    """Whether values are equal bit by bit, but for what kind of NaN one is."""
    if given.dtype.kind in "fc":
        parts = [(v.real, v.imag) for v in (found, given)]
        return all(
            np.array_equal(a, b, equal_nan=True) and np.array_equal(np.signbit(a[a == a]), np.signbit(b[b == b]))
            for a, b in zip(*parts, strict=True)
        )
    return found.tobytes() == given.tobytes()


@pytest.mark.parametrize(
    "attrs",
    [
        {"units": "days since maximum"},
        {"units": "hours since 2020-01-01"},
        {"scale_factor": 2.0, "add_offset": 1.0},
        {"_FillValue": 1.0, "missing_value": 2.0},
        {"coordinates": "a b", "grid_mapping": "wcs"},
        {"dtype": "bool", "_Unsigned": "true"},
        {"valid_range": [0, 1], "value": float("inf")},
    ],
)
@pytest.mark.parametrize("chunked", [False, True])
def test_words_of_cf_are_attributes_like_others(attrs: dict[str, Any], chunked: bool, tmp_path: Path) -> None:
    values = xr.Variable("t", [1.0, 2.0, 3.0], attrs)
    dataset = xr.Dataset({"a": values, "n": ("t", [1, 2, 3], attrs)}, {"t": ("t", [0, 1, 2], attrs)}, attrs)
    to_zarr(dataset.chunk() if chunked else dataset, tmp_path / "s.zarr")
    xr.testing.assert_identical(open_zarr(tmp_path / "s.zarr"), dataset)
    plain_xarray = xr.open_zarr(tmp_path / "s.zarr", consolidated=False, chunks=None)
    np.testing.assert_array_equal(plain_xarray["a"].values, values.values)


@pytest.mark.parametrize("attrs", [{}, {"units": "UTC", "calendar": "julian"}])
@pytest.mark.parametrize("as_index", [False, True])
def test_far_dates(attrs: dict[str, str], as_index: bool, tmp_path: Path) -> None:
    times = np.array(["1600-01-01", "9999-12-31T23:59:59", "NaT"], "M8[s]")[: 2 if as_index else 3]
    dataset = xr.Dataset(coords={"t" if as_index else "when": ("t", times, attrs)})
    to_zarr(dataset, tmp_path / "s.zarr")
    found = open_zarr(tmp_path / "s.zarr")
    xr.testing.assert_identical(found, dataset)
    assert found["t" if as_index else "when"].dtype == "M8[s]"


def test_coordinates_with_spaces_stay_coordinates(tmp_path: Path) -> None:
    dataset = xr.Dataset({"a": ("t", [1.0])}, {"my label": ("t", ["x"]), "t": [5]})
    to_zarr(dataset, tmp_path / "s.zarr")
    xr.testing.assert_identical(open_zarr(tmp_path / "s.zarr"), dataset)


def test_what_another_tool_adds_is_decoded(tmp_path: Path) -> None:
    to_zarr(xr.Dataset({"a": ("t", [1.0, 2.0])}), tmp_path / "s.zarr")
    added = xr.Dataset(
        {"when": ("t", np.array(["2020-01-01", "2020-01-02"], "M8[ns]")), "b": ("t", [1.0, np.nan], {"units": "m"})}
    )
    encoding = {"b": {"scale_factor": 0.5, "dtype": "i2", "_FillValue": -1}, "when": {"units": "days since 2000-01-01"}}
    added.to_zarr(tmp_path / "s.zarr", mode="a", zarr_format=3, consolidated=False, encoding=encoding)
    found = open_zarr(tmp_path / "s.zarr").load()
    np.testing.assert_array_equal(found["when"], added["when"])
    np.testing.assert_array_equal(found["b"], added["b"])


@pytest.mark.parametrize(
    "name", ["a/b", "..", ".", "zarr.json", "__a", "tab\t", "x" * 300, 5, ("a", "b"), "\ud800", ""]
)
def test_names_without_a_place_are_refused(name: Any, tmp_path: Path) -> None:
    for dataset in (xr.Dataset({name: ("t", [1.0])}), xr.Dataset(coords={name: 1.0})):
        with pytest.raises(StoreError, match=r"rename it|broken characters"):
            to_zarr(dataset, tmp_path / "s.zarr")
    assert not list(tmp_path.iterdir())


def test_nodes_without_a_place_are_refused(tmp_path: Path) -> None:
    for name in ("zarr.json", "__a", "a\n"):
        with pytest.raises(StoreError, match="rename it"):
            to_zarr(xr.DataTree.from_dict({name: xr.Dataset({"a": 1})}), tmp_path / "t.zarr")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "attrs",
    [{5: 1}, {"a": 1j}, {"a": b"bytes"}, {"a": {1: 2}}, {"a": "\ud800"}, {"a": object()}, {"a": np.longdouble(1)}],
)
def test_attributes_without_a_place_are_refused(attrs: dict[Any, Any], tmp_path: Path) -> None:
    for dataset in (xr.Dataset(attrs=attrs), xr.Dataset({"v": ("t", [1.0], attrs)})):
        with pytest.raises(StoreError, match="attribute"):
            to_zarr(dataset, tmp_path / "s.zarr")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "values",
    [
        np.array([1, 2], np.longdouble),
        np.array([1j], np.clongdouble),
        np.zeros(2, "V3"),
        np.zeros(2, [("a", "f4"), ("b", "i2")]),
        np.array(["\ud800"]),
        np.array([b"\xff"]),
        np.array([None, "a"], object),
    ],
)
def test_dtypes_without_a_place_are_refused(values: NDArray[Any], tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="'v'"):
        to_zarr(xr.Dataset({"v": ("t", values)}), tmp_path / "s.zarr")
    assert not list(tmp_path.iterdir())
