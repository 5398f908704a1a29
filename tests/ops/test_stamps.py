"""Stamps against `numpy.pad` of the whole frame; many stamps against one by one; centered ones against true stars."""

from __future__ import annotations

import gzip
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import pandas as pd
import pytest
import sep
import xarray as xr
from astropy.io import fits
from astropy.table import Table
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import ztfxr.io.backend
from tests.conftest import WriteFrame
from ztfxr.arrays.geometry.transform import Transform
from ztfxr.arrays.images.resample import kernel_table
from ztfxr.errors import AlignmentError, InputError, MissingWCSError, OutsideFrameError
from ztfxr.io.frames import open_epochs, open_quadrant
from ztfxr.ops.background import background, clean
from ztfxr.ops.masks import mask
from ztfxr.ops.stacks.align import align
from ztfxr.ops.stacks.stack import stack
from ztfxr.ops.stamps import stamp, stamps
from ztfxr.photometry.aperture import aperture_photometry
from ztfxr.schema import STATUS_PLANES, planes_to_bits
from ztfxr.wcs import assign_wcs, has_wcs, pixel_to_sky

NY, NX = 48, 40
OUTSIDE = 1 << 15
FAR = 80

positions = st.floats(-60.0, 100.0)
sides = st.integers(1, 70)


@pytest.fixture(scope="module")
def frame(write_frame_in: WriteFrame, tmp_path_factory: pytest.TempPathFactory) -> xr.Dataset:
    ds = open_quadrant(write_frame_in(tmp_path_factory.mktemp("frame")))
    return ds.assign(mask=mask(ds))


@pytest.fixture(scope="module")
def loaded(frame: xr.Dataset) -> xr.Dataset:
    return frame.compute()


@pytest.fixture(scope="module")
def cube(loaded: xr.Dataset) -> xr.Dataset:
    """Three epochs with a time, one a chunk, and a variable without pixels."""
    others = [loaded.assign(sci=loaded["sci"] * n, flags=loaded["flags"] ^ n) for n in (1, 2, 3)]
    epochs = xr.concat(others, "time", coords="minimal", compat="override", data_vars="all", combine_attrs="override")
    epochs = epochs.assign_coords(time=np.array(["2020-01-01", "2020-01-02", "2020-01-04"], "M8[ns]"))
    return epochs.assign(chi2=("time", [1.0, 2.0, 3.0])).chunk({"time": 1})


def window(center: float, size: int) -> slice:
    """Where the stamp lies along one axis: `size // 2` pixels before the pixel that contains the position."""
    start = int(np.floor(center + 0.5)) - size // 2
    return slice(start, start + size)


def expected(pixels: NDArray[Any], fill: Any, y: float, x: float, size: tuple[int, int]) -> NDArray[Any]:
    padded = np.pad(pixels, [(0, 0)] * (pixels.ndim - 2) + [(FAR + 70, FAR + 70)] * 2, constant_values=fill)
    rows, columns = (window(c + FAR + 70, n) for c, n in zip((y, x), size, strict=True))
    return padded[..., rows, columns]


# the pixels


@given(positions, positions, st.tuples(sides, sides))
@example(0.0, 0.0, (1, 1))
@example(-0.5, NX - 0.5, (1, 1))
@example(NX / 2, NY / 2, (70, 3))
@example(-60.0, 10.0, (5, 5))
@example(99.0, 99.0, (64, 64))
def test_padded_stamp_is_numpy_pad(loaded: xr.Dataset, x: float, y: float, size: tuple[int, int]) -> None:
    found = stamp(loaded, x=x, y=y, size=size)
    assert dict(found.sizes) == {"y": size[0], "x": size[1]}
    for name, fill in (("sci", np.nan), ("flags", OUTSIDE), ("mask", True)):
        assert found[name].dtype == loaded[name].dtype
        np.testing.assert_array_equal(found[name].values, expected(loaded[name].values, fill, y, x, size))
        assert found[name].attrs == loaded[name].attrs
    rows, columns = window(y, size[0]), window(x, size[1])
    np.testing.assert_array_equal(found["y"], np.arange(rows.start, rows.stop))
    np.testing.assert_array_equal(found["x"], np.arange(columns.start, columns.stop))
    assert (found.attrs["stamp_x"], found.attrs["stamp_y"]) == (x, y)
    sky = pixel_to_sky(loaded, *np.meshgrid(found["x"], found["y"]))
    np.testing.assert_allclose(found["ra"], sky.ra.deg, rtol=1e-12)
    np.testing.assert_allclose(found["dec"], sky.dec.deg, rtol=1e-12)


@settings(max_examples=40)
@given(positions, positions, sides)
def test_one_image_is_as_in_the_dataset(loaded: xr.Dataset, x: float, y: float, size: int) -> None:
    whole = stamp(loaded, x=x, y=y, size=size)
    for name in ("sci", "flags", "mask"):
        alone = stamp(loaded[name], x=x, y=y, size=size)
        assert isinstance(alone, xr.DataArray)
        xr.testing.assert_equal(alone, whole[name])
        assert alone.name == name
        assert {k: v for k, v in alone.attrs.items() if not k.startswith("stamp")} == whole[name].attrs


@settings(max_examples=40)
@given(st.floats(-0.5, NX - 0.501), st.floats(-0.5, NY - 0.501), st.sampled_from([1, 4, 5, (3, 8)]))
def test_sky_position(loaded: xr.Dataset, x: float, y: float, size: int | tuple[int, int]) -> None:
    """The central pixel of the stamp is the one that contains the sky position."""
    sky = pixel_to_sky(loaded, x, y)
    found = stamp(loaded["sci"], ra=float(sky.ra.deg), dec=float(sky.dec.deg), size=size)
    np.testing.assert_allclose((found.attrs["stamp_x"], found.attrs["stamp_y"]), (x, y), atol=1e-5)
    by_pixel = stamp(loaded["sci"], x=found.attrs["stamp_x"], y=found.attrs["stamp_y"], size=size)
    xr.testing.assert_identical(found, by_pixel)
    assert float(found.sel(x=int(np.floor(found.attrs["stamp_x"] + 0.5))).size) > 0


@settings(max_examples=40)
@given(positions, positions, st.tuples(sides, sides), positions, positions, st.tuples(sides, sides))
def test_stamp_of_a_stamp(
    loaded: xr.Dataset, x: float, y: float, size: tuple[int, int], x2: float, y2: float, size2: tuple[int, int]
) -> None:
    """Where the first held the pixels, the second shows them, with the same labels; the rest is outside."""
    outer = stamp(loaded, x=x, y=y, size=size)
    found = stamp(outer, x=x2, y=y2, size=size2)
    direct = stamp(loaded, x=x2, y=y2, size=size2)
    for label in ("x", "y", "ra", "dec"):
        np.testing.assert_allclose(found[label], direct[label], rtol=1e-12)
    known = np.isin(found["y"], outer["y"])[:, None] & np.isin(found["x"], outer["x"])
    np.testing.assert_array_equal(found["sci"].values, np.where(known, direct["sci"].values, np.nan))
    np.testing.assert_array_equal(found["flags"].values, np.where(known, direct["flags"].values, OUTSIDE))


def test_inside_is_a_slice(loaded: xr.Dataset) -> None:
    found = stamp(loaded, x=20, y=30, size=(5, 8))
    sliced = loaded.isel(y=slice(28, 33), x=slice(16, 24))
    xr.testing.assert_equal(found, sliced)
    assert found.xindexes["ra"].equals(sliced.xindexes["ra"])
    assert loaded.attrs.keys() & {"stamp_x", "stamp_y"} == set()


def test_default_mask_marks_padding(loaded: xr.Dataset) -> None:
    found = stamp(loaded.drop_vars("mask"), x=0, y=0, size=11)
    outside = np.ones((11, 11), dtype=bool)
    outside[5:, 5:] = loaded["mask"].values[:6, :6]
    np.testing.assert_array_equal(mask(found).values, outside)
    np.testing.assert_array_equal(mask(found, 0, outside=True).values[:5], True)
    assert np.isnan(clean(found, background=False).values[outside]).all()


@pytest.mark.parametrize("dtype", [np.int16, np.uint8, np.uint16, np.int32, np.int64])
def test_flags_of_any_integer(dtype: Any) -> None:
    """IPAC's masks are int16, which has no bit 15 to set."""
    flags = xr.DataArray(np.full((6, 6), 5, dtype=dtype), dims=("y", "x"), name="flags")
    found = stamp(flags, x=0, y=0, size=3)
    assert found.values.tolist() == [[OUTSIDE, OUTSIDE, OUTSIDE], [OUTSIDE, 5, 5], [OUTSIDE, 5, 5]]
    assert mask(found, ["outside"]).values.sum() == 5


def test_stack_with_time(cube: xr.Dataset) -> None:
    found = stamp(cube, x=2.3, y=46.9, size=(9, 12))
    assert found["sci"].dims == ("time", "y", "x")
    expected_sci = expected(cube["sci"].values, np.nan, 46.9, 2.3, (9, 12))
    np.testing.assert_array_equal(found["sci"].values, expected_sci)
    np.testing.assert_array_equal(found["flags"].values, expected(cube["flags"].values, OUTSIDE, 46.9, 2.3, (9, 12)))
    xr.testing.assert_identical(found["chi2"].variable, cube["chi2"].variable)
    xr.testing.assert_identical(found["time"], cube["time"])
    xr.testing.assert_equal(found.sel(time="2020-01-02"), found.isel(time=1))
    assert found["sci"].chunks == ((1, 1, 1), (9,), (12,))
    for name in ("filter", "exptime", "magzp", "seeing"):
        xr.testing.assert_identical(found[name].variable, cube[name].variable)


def test_other_order_of_dimensions(cube: xr.Dataset) -> None:
    turned = stamp(cube["sci"].transpose("x", "time", "y"), x=0, y=0, size=(4, 7))
    assert turned.dims == ("x", "time", "y")
    xr.testing.assert_equal(turned.transpose("time", "y", "x"), stamp(cube["sci"], x=0, y=0, size=(4, 7)))


# the edges


@given(positions, positions, st.tuples(sides, sides))
def test_trim_and_raise(loaded: xr.Dataset, x: float, y: float, size: tuple[int, int]) -> None:
    rows, columns = window(y, size[0]), window(x, size[1])
    known = [slice(max(w.start, 0), min(w.stop, n)) for w, n in ((rows, NY), (columns, NX))]
    if known == [rows, columns]:
        for boundary in ("trim", "raise"):
            found = stamp(loaded, x=x, y=y, size=size, boundary=boundary)  # type: ignore[arg-type]
            xr.testing.assert_identical(found, stamp(loaded, x=x, y=y, size=size))
        return
    with pytest.raises(OutsideFrameError, match=r"reaches over the edge: rows .* of 48, columns .* of 40"):
        stamp(loaded, x=x, y=y, size=size, boundary="raise")
    if any(w.start >= w.stop for w in known):
        with pytest.raises(OutsideFrameError, match="does not touch the image"):
            stamp(loaded, x=x, y=y, size=size, boundary="trim")
        return
    found = stamp(loaded, x=x, y=y, size=size, boundary="trim")
    xr.testing.assert_equal(found, loaded.isel(y=known[0], x=known[1]))


@pytest.mark.parametrize("x", [-1e5, 1e5])
def test_wholly_outside(frame: xr.Dataset, x: float) -> None:
    found = stamp(frame, x=x, y=10, size=(4, 6)).compute()
    assert np.isnan(found["sci"].values).all()
    assert found["mask"].values.all()
    assert (found["flags"].values == OUTSIDE).all()
    np.testing.assert_array_equal(found["x"], np.arange(int(x) - 3, int(x) + 3))
    np.testing.assert_array_equal(found["y"], [8, 9, 10, 11])


# laziness


@pytest.mark.parametrize(
    ("x", "y", "boundary"),
    [(20, 20, "pad"), (0, 47, "pad"), (-3, 10, "pad"), (500, 500, "pad"), (20, 20, "raise"), (-3, 10, "trim")],
)
def test_lazy_and_in_one_chunk(frame: xr.Dataset, raising_scheduler: Any, x: int, y: int, boundary: Any) -> None:
    for obj in (frame, frame["sci"]):
        found = stamp(obj, x=x, y=y, size=(9, 11), boundary=boundary)
        assert {d: len(c) for d, c in found.chunksizes.items()} == {"y": 1, "x": 1}
        assert has_wcs(found)
    with pytest.raises(AssertionError, match="should have stayed lazy"):
        stamp(frame, x=x, y=y, size=9, boundary=boundary).compute()


def test_lazy_equals_loaded(frame: xr.Dataset, loaded: xr.Dataset) -> None:
    for x, y in ((20, 20), (0, 47), (-3, 10), (500, 500)):
        lazy = stamp(frame, x=x, y=y, size=(9, 11))
        xr.testing.assert_identical(lazy.compute(), stamp(loaded, x=x, y=y, size=(9, 11)))


@pytest.mark.parametrize("corner", [False, True])
def test_real_quadrant_reads_its_rows_only(
    plain_quadrant_path: Path, monkeypatch: pytest.MonkeyPatch, corner: bool
) -> None:
    with fits.open(plain_quadrant_path, memmap=False) as hdus:
        pixels = hdus[0].data.astype("=f4")
    rows_read = []
    read = ztfxr.io.backend.read_window

    def watched(image: Any, rows: slice, columns: slice) -> NDArray[Any]:
        rows_read.append((rows.start, rows.stop, columns.start, columns.stop))
        return read(image, rows, columns)

    monkeypatch.setattr(ztfxr.io.backend, "read_window", watched)
    ds = open_quadrant(plain_quadrant_path)
    x, y = (3.2, 3077.6) if corner else (1520.3, 1711.8)
    sky = pixel_to_sky(ds, x, y)
    found = stamp(ds, ra=float(sky.ra.deg), dec=float(sky.dec.deg), size=(31, 40))
    assert rows_read == []
    np.testing.assert_array_equal(found["sci"].values, expected(pixels, np.nan, y, x, (31, 40)))
    (top, bottom, left, right), *more = rows_read
    assert more == []
    assert (bottom - top) * (right - left) <= 31 * 40
    assert (found["flags"].values == OUTSIDE).sum() == (31 * 40 - 17 * 23 if corner else 0)
    np.testing.assert_allclose(found["ra"][15, 20], sky.ra.deg, atol=1.2 / 3600)
    np.testing.assert_allclose(found["dec"][15, 20], sky.dec.deg, atol=0.8 / 3600)


# what is not labeled, and what is wrong


def test_unlabeled_array_gets_labels() -> None:
    image = xr.DataArray(np.arange(30.0).reshape(5, 6), dims=("y", "x"))
    for x, y in ((3, 2), (0, 4)):
        found = stamp(image, x=x, y=y, size=3)
        assert found.name is None
        assert found["x"].values.tolist() == [x - 1, x, x + 1]
        assert found["y"].values.tolist() == [y - 1, y, y + 1]
        assert float(found.sel(x=x, y=y)) == image.values[y, x]
    inner = stamp(stamp(image, x=3, y=2, size=3), x=4, y=3, size=1)
    assert inner.values.tolist() == [[image.values[3, 4]]]
    with pytest.raises(MissingWCSError, match="no celestial WCS"):
        stamp(image, ra=150.3, dec=20.7)


def test_window_without_pixel_labels(loaded: xr.Dataset) -> None:
    """The WCS index still knows where a slice came from."""
    cut = loaded["sci"][10:40, 7:30].drop_vars(["x", "y"])
    xr.testing.assert_identical(stamp(cut, x=8, y=20, size=5), stamp(loaded["sci"][10:40, 7:30], x=8, y=20, size=5))


@pytest.mark.parametrize(
    "position",
    [
        {},
        {"x": 1},
        {"ra": 150.3},
        {"ra": 150.3, "y": 1},
        {"x": 1, "y": 1, "ra": 150.3},
        {"x": 1, "ra": 150.3, "dec": 20.7},
        {"x": 1, "y": 1, "ra": 150.3, "dec": 20.7},
    ],
)
def test_half_or_double_positions(loaded: xr.Dataset, position: dict[str, float]) -> None:
    with pytest.raises(InputError, match="give the position as ra= and dec= in degrees, or as x= and y="):
        stamp(loaded, **position)  # type: ignore[arg-type]


@pytest.mark.parametrize("position", [{"x": np.nan, "y": 1.0}, {"x": 1.0, "y": np.inf}, {"ra": 330.0, "dec": -20.0}])
def test_positions_without_a_pixel(loaded: xr.Dataset, position: dict[str, float]) -> None:
    with pytest.raises(OutsideFrameError, match="has no pixel"):
        stamp(loaded, **position)  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [0, -3, (5, 0), 2.5, (3, 4, 5), "9", ()])
def test_wrong_size(loaded: xr.Dataset, size: Any) -> None:
    with pytest.raises(InputError, match="size is a whole number of pixels"):
        stamp(loaded, x=5, y=5, size=size)


def test_numpy_integers_are_integers(loaded: xr.Dataset) -> None:
    xr.testing.assert_identical(stamp(loaded, x=5, y=5, size=np.int64(7)), stamp(loaded, x=5, y=5, size=7))


def test_wrong_boundary(loaded: xr.Dataset) -> None:
    with pytest.raises(InputError, match="boundary is 'pad', 'raise' or 'trim'; got 'wrap'"):
        stamp(loaded, x=5, y=5, boundary="wrap")  # type: ignore[arg-type]


@pytest.mark.parametrize("cut", [slice(None, None, -1), slice(None, None, 2)])
def test_reversed_or_thinned_image(loaded: xr.Dataset, cut: slice) -> None:
    """Its first column is no origin to count from; taken for one, the stamp shows another place."""
    with pytest.raises(InputError, match="x does not count single pixels upwards"):
        stamp(loaded["sci"][:, cut], x=5, y=5)


# many stamps


def alone(many: Any, i: int) -> Any:
    """One of many stamps with the labels that `stamp` gives."""
    one = many.isel(source=i).swap_dims(dy="y", dx="x")
    header = one.attrs["wcs_header"]
    one = one.drop_vars(["dy", "dx", "x_pixel", "y_pixel", "ra", "dec", "stamp_status"])
    return assign_wcs(one, header)


@settings(max_examples=60)
@given(st.lists(st.tuples(positions, positions), min_size=1, max_size=5), st.tuples(sides, sides))
@example([(0.0, 0.0), (-0.5, NY - 0.5), (NX - 0.5, -0.5), (-1e5, 3.0), (19.4999, 24.5)], (63, 63))
def test_each_is_the_lone_stamp(
    loaded: xr.Dataset, frame: xr.Dataset, where: list[tuple[float, float]], size: tuple[int, int]
) -> None:
    """Pixels, absolute labels, sky and attributes; of a Dataset and of each array, with numpy and with dask."""
    for many in (stamps(loaded, where, size), stamps(frame, where, size).compute()):
        assert dict(many.sizes) == {"source": len(where), "dy": size[0], "dx": size[1]}
        for i, (x, y) in enumerate(where):
            one = stamp(loaded, x=x, y=y, size=size)
            assert (float(many["x_pixel"][i]), float(many["y_pixel"][i])) == (x, y)
            assert (one.attrs.pop("stamp_x"), one.attrs.pop("stamp_y")) == (x, y)
            found = alone(many, i)
            xr.testing.assert_identical(found, one)
            assert found.xindexes["ra"].equals(one.xindexes["ra"])
            assert {k: v.dtype for k, v in found.items()} == {k: v.dtype for k, v in one.items()}
    for name in ("sci", "flags", "mask"):
        lone = stamps(loaded[name], where, size)
        assert isinstance(lone, xr.DataArray)
        assert lone.name == name
        xr.testing.assert_identical(lone.drop_attrs(deep=False), many[name].drop_attrs(deep=False))
        assert lone.attrs.items() >= many[name].attrs.items()


def test_offsets_and_the_central_pixel(loaded: xr.Dataset) -> None:
    many = stamps(loaded, [(3.4, 7.6), (30.0, 20.0)], (4, 5))
    assert many["dy"].values.tolist() == [-2, -1, 0, 1]
    assert many["dx"].values.tolist() == [-2, -1, 0, 1, 2]
    assert many["x"].values.tolist() == [[1, 2, 3, 4, 5], [28, 29, 30, 31, 32]]
    assert many["y"].values.tolist() == [[6, 7, 8, 9], [18, 19, 20, 21]]
    assert many["x"].dtype == many["y"].dtype == np.int64
    central = many["sci"].sel(dy=0, dx=0)
    assert central.values.tolist() == [float(loaded["sci"][8, 3]), float(loaded["sci"][20, 30])]
    assert many["x"].attrs == loaded["x"].attrs
    assert many["stamp_status"].values.tolist() == [0, 0]


def test_positions_in_any_form(loaded: xr.Dataset) -> None:
    pairs = np.array([(3.4, 7.6), (30.2, 20.9), (70.0, 70.0)])
    sky = pixel_to_sky(loaded, *pairs.T)
    expected = stamps(loaded, pairs, 9)
    np.testing.assert_allclose((expected["ra"], expected["dec"]), (sky.ra.deg, sky.dec.deg), rtol=0, atol=1e-12)
    columns = {"ra": sky.ra.deg, "dec": sky.dec.deg, "name": ["a", "b", "c"]}
    dataset = xr.Dataset({k: ("source", v) for k, v in columns.items()})
    for form in (sky, Table(columns), pd.DataFrame(columns), dataset, columns):
        found = stamps(loaded, form, 9)
        np.testing.assert_array_equal(found["sci"].values, expected["sci"].values)
        np.testing.assert_allclose(found["x_pixel"], pairs[:, 0], rtol=0, atol=1e-5)
        assert ("source_id" in found.coords) == (form is not sky)
    single = stamps(loaded, (3.4, 7.6), 9)
    xr.testing.assert_identical(single, expected.isel(source=slice(0, 1)))
    assert stamps(loaded, sky[:0], 9)["sci"].shape == (0, 9, 9)
    again = stamps(loaded, expected, 9)
    np.testing.assert_array_equal(again["sci"].values, expected["sci"].values)


def bits(*names: str) -> int:
    return planes_to_bits(names, STATUS_PLANES)


def test_status(loaded: xr.Dataset) -> None:
    """Why pixels are missing: the position is off the image or has none, or only the stamp reaches over the edge."""
    where = [(20, 20), (1, 20), (-3, 20), (-9, 20), (np.nan, 20), (20, np.inf), (39.4, 20), (39.6, 20), (1e12, 20)]
    many = stamps(loaded, where, 11)
    expected = [0, bits("edge"), bits("edge", "outside"), *[bits("outside")] * 3]
    expected += [bits("edge"), bits("edge", "outside"), bits("outside")]
    assert many["stamp_status"].values.tolist() == expected
    assert many["stamp_status"].dtype == np.uint32
    assert many["stamp_status"].attrs["flag_meanings"].split()[10] == "outside"
    for i in (3, 4, 5, 8):
        assert np.isnan(many["sci"][i].values).all()
        assert (many["flags"][i].values == OUTSIDE).all()
        assert many["mask"][i].values.all()
    assert (many["x"][[4, 5, 8]].values == -1).all(), "no pixel, no label"
    assert (many["y"][[4, 5, 8]].values == -1).all()
    assert many["x"][3].values.tolist() == list(range(-14, -3))
    assert np.isnan(many["x_pixel"][4])
    behind = stamps(loaded, {"ra": [330.0], "dec": [-20.0]}, 5)
    assert behind["stamp_status"].values.tolist() == [bits("outside")]


WHERE = [(2.3, 46.9), (20.0, 20.0), (39.0, 0.2), (-30.0, 5.0), (np.nan, 1.0)]


def test_many_from_a_stack(cube: xr.Dataset) -> None:
    many = stamps(cube, WHERE, (9, 12))
    assert many["sci"].dims == ("time", "source", "dy", "dx")
    assert many["sci"].chunks == ((1, 1, 1), (5,), (9,), (12,))
    xr.testing.assert_identical(many["chi2"].variable, cube["chi2"].variable)
    xr.testing.assert_equal(many.sel(time="2020-01-02"), many.isel(time=1))
    for name in ("filter", "exptime", "magzp", "seeing"):
        xr.testing.assert_identical(many[name].variable, cube[name].variable)
    for i, (x, y) in enumerate(WHERE[:4]):
        one = stamp(cube, x=x, y=y, size=(9, 12)).drop_attrs(deep=False)
        xr.testing.assert_identical(
            alone(many, i).drop_attrs(deep=False).compute(), one.drop_attrs(deep=False).compute()
        )


@pytest.mark.parametrize("centered", [False, True])
@pytest.mark.parametrize("chunks", [{"time": 1}, {"time": 2}, {"time": -1}, {"time": 1, "y": 7, "x": 40}, {"x": 11}])
def test_any_chunking(cube: xr.Dataset, chunks: dict[str, int], centered: bool) -> None:
    expected = stamps(cube.compute(), WHERE, 9, centered=centered)
    found = stamps(cube.chunk(chunks), WHERE, 9, centered=centered)
    assert {d: len(c) for d, c in found.chunksizes.items() if d != "time"} == {"source": 1, "dy": 1, "dx": 1}
    xr.testing.assert_identical(found.compute(), expected)


@pytest.mark.slow
@pytest.mark.parametrize("centered", [False, True])
def test_any_scheduler(cube: xr.Dataset, centered: bool) -> None:
    from distributed import Client, LocalCluster

    found = stamps(cube, WHERE, 9, centered=centered)
    expected = found.compute(scheduler="synchronous")
    for scheduler in ("threads", "processes"):
        xr.testing.assert_identical(found.compute(scheduler=scheduler, num_workers=2), expected)
    with (
        LocalCluster(n_workers=1, threads_per_worker=2, processes=False, dashboard_address="127.0.0.1:0") as cluster,
        Client(cluster),
    ):
        xr.testing.assert_identical(found.compute(), expected)


def test_other_order_and_more_dimensions(cube: xr.Dataset) -> None:
    expected = stamps(cube["sci"], WHERE, (4, 7)).compute()
    turned = stamps(cube["sci"].transpose("x", "time", "y"), WHERE, (4, 7))
    xr.testing.assert_identical(turned.compute(), expected)
    deep = stamps(cube["sci"].expand_dims(band=2), WHERE, (4, 7)).compute()
    assert deep.dims == ("band", "time", "source", "dy", "dx")
    np.testing.assert_array_equal(deep.values, np.stack([expected.values] * 2))


def test_maps_and_profiles_go_with_it(loaded: xr.Dataset) -> None:
    """Coordinates over pixels, and what has rows or columns alone."""
    ny, nx = loaded["sci"].shape
    more = loaded.assign_coords(u=(("y", "x"), np.arange(ny * nx, dtype=float).reshape(ny, nx)))
    more = more.assign(overscan=("y", np.arange(ny, dtype=float)), count=(("y", "x"), np.ones((ny, nx), int)))
    many = stamps(more, [(1, 20), (20, 0)], (3, 4))
    assert many["overscan"].dims == ("source", "dy")
    np.testing.assert_array_equal(many["overscan"], [[19, 20, 21], [np.nan, 0, 1]])
    assert many["u"].dims == ("source", "dy", "dx")
    assert "u" in many.coords
    np.testing.assert_array_equal(many["u"][0, 0], [np.nan, 19 * nx, 19 * nx + 1, 19 * nx + 2])
    assert many["count"][0, 0].values.tolist() == [0, 1, 1, 1]
    assert many["count"].dtype == int


def test_stamps_are_images_again(loaded: xr.Dataset) -> None:
    """With `dy`, `dx` as rows and columns, what works on images works on all stamps at once."""
    where = [(10.0, 12.0), (25.0, 30.0)]
    flat = loaded[["sci", "flags"]].assign(variance=xr.ones_like(loaded["sci"]))
    many = stamps(flat, where, 21).drop_vars(["y", "x"]).rename(dy="y", dx="x")
    found = aperture_photometry(many.rename(source="star"), [(0.0, 0.0)], radius=4.0)
    truth = aperture_photometry(flat, where, radius=4.0)
    np.testing.assert_allclose(found["flux"].values[:, 0], truth["flux"].values, rtol=1e-12)


def test_unlabeled_stamps() -> None:
    """Without WCS and labels the pixels count from the first."""
    plain = xr.DataArray(np.arange(30.0).reshape(5, 6), dims=("y", "x"))
    many = stamps(plain, [(3, 2), (0, 4)], 3)
    assert many.name is None
    assert "ra" not in many.coords
    assert "wcs_header" not in many.attrs
    assert many.sel(dy=0, dx=0).values.tolist() == [15.0, 24.0]
    assert many["x"].values.tolist() == [[2, 3, 4], [-1, 0, 1]]
    cut = plain.assign_coords(x=np.arange(6) + 100, y=np.arange(5) + 50)
    assert stamps(cut, [(103, 52)], 1).values.item() == 15.0
    with pytest.raises(MissingWCSError, match="no celestial WCS"):
        stamps(plain, {"ra": [1.0], "dec": [2.0]})


@pytest.mark.parametrize("centered", [False, True])
def test_many_stay_lazy(cube: xr.Dataset, raising_scheduler: Any, centered: bool) -> None:
    for obj in (cube, cube["sci"]):
        many = stamps(obj, WHERE, 9, centered=centered)
        assert many.chunks
    with pytest.raises(AssertionError, match="should have stayed lazy"):
        many.compute()


def test_one_task_an_epoch_whatever_the_number_of_stamps() -> None:
    """500 stamps of 20 epochs: the graph takes milliseconds, and computing touches each epoch once."""
    touched: list[int] = []

    def epoch(block_info: Any = None) -> Any:
        touched.append(block_info[None]["array-location"][0][0])
        return np.ones((1, 300, 200), np.float32)

    pixels = da.map_blocks(epoch, chunks=((1,) * 20, (300,), (200,)), dtype="f4", meta=np.empty((0, 0, 0), "f4"))
    image = xr.DataArray(pixels, dims=("time", "y", "x"), name="sci")
    where = np.random.default_rng(0).uniform(-10, 310, (500, 2))
    begin = time.perf_counter()
    many = stamps(image, where)
    took = time.perf_counter() - begin
    assert took < 0.5, "well under a second; about 0.01 s"
    layers = many.__dask_graph__().layers
    assert sum(len(layer) for layer in layers.values()) <= 3 * 20
    assert many.compute(scheduler="threads").shape == (20, 500, 63, 63)
    assert sorted(touched) == list(range(20))


@pytest.mark.parametrize("centered", [False, True])
def test_tokens_of_stamps(cube: xr.Dataset, centered: bool) -> None:
    """The same stamps have the same name in a graph; others have another."""
    with dask.config.set({"tokenize.ensure-deterministic": True}):
        first, second, other = (stamps(cube["sci"], WHERE[:n], 9, centered=centered) for n in (3, 3, 2))
    assert first.data.name == second.data.name != other.data.name


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int, int, int]]:
    """The windows that are read from files."""
    windows: list[tuple[int, int, int, int]] = []
    read = ztfxr.io.backend.read_window

    def watch(image: Any, rows: slice, columns: slice) -> NDArray[Any]:
        windows.append((rows.start, rows.stop, columns.start, columns.stop))
        return read(image, rows, columns)

    monkeypatch.setattr(ztfxr.io.backend, "read_window", watch)
    return windows


def test_each_file_is_read_once(
    write_frame_in: WriteFrame, tmp_path: Path, watched: list[tuple[int, int, int, int]]
) -> None:
    names = [f"ztf_2020092443170{n}_000655_zr_c13_o_q3_sciimg" for n in range(4)]
    paths = [write_frame_in(tmp_path, name=n, seed=i, cards={"OBSMJD": 59116.0 + i}) for i, n in enumerate(names)]
    epochs = stack(open_epochs(paths))
    many = stamps(epochs, WHERE * 20, 9)
    assert watched == []
    many.compute()
    assert len(watched) == 8, "four images and four masks"


@pytest.mark.parametrize("chunks", [None, {}])
def test_only_the_rows_between_the_stamps_are_read(
    plain_quadrant_path: Path, watched: list[tuple[int, int, int, int]], chunks: Any
) -> None:
    """Once for all stamps; without dask at once, with dask when computed."""
    image = xr.open_dataset(plain_quadrant_path, engine="ztf", chunks=chunks)["sci"]
    where = [(1000.2, 1500.7), (1020.0, 1510.0), (1100.6, 1490.1), (-500.0, 10.0)]
    many = stamps(image, where, 31)
    assert len(watched) == (1 if chunks is None else 0)
    many = many.compute()
    assert watched == [(1475, 1526, 985, 1117)]
    with (
        gzip.open(plain_quadrant_path) if plain_quadrant_path.suffix == ".gz" else plain_quadrant_path.open("rb") as raw
    ):
        pixels = fits.open(raw, memmap=False)[0].data.astype("=f4")
    for i, (x, y) in enumerate(where):
        np.testing.assert_array_equal(many[i].values, expected(pixels, np.nan, y, x, (31, 31)) if x > -100 else np.nan)


# centered stamps


def stars(where: Any, fwhm: float = 2.3, flux: float = 1000.0, shape: tuple[int, int] = (90, 80)) -> NDArray[Any]:
    """Gaussian stars on an empty sky."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    sigma = fwhm / 2.3548
    image = np.zeros(shape)
    for x0, y0 in where:
        image += flux / (2 * np.pi * sigma**2) * np.exp(-((x - x0) ** 2 + (y - y0) ** 2) / (2 * sigma**2))
    return image


STARS = [(20.0, 20.0), (20.5, 50.0), (50.31, 19.77), (49.51, 50.5), (60.13, 70.499)]


@pytest.mark.parametrize("interpolation", ["lanczos3", "spline"])
@pytest.mark.parametrize("fwhm", [2.0, 3.0])
def test_centered_stars(interpolation: Any, fwhm: float) -> None:
    """Their flux to 0.3 %, and their centroid in the middle of the central pixel to 0.005 pixel."""
    image = xr.DataArray(stars(STARS, fwhm), dims=("y", "x"), name="sci")
    many = stamps(image, STARS, 17, centered=True, interpolation=interpolation)
    assert many.dtype == np.float32
    np.testing.assert_allclose(many.sum(["dy", "dx"]), 1000.0, rtol=3e-3)
    weight = many / many.sum(["dy", "dx"])
    for axis in ("dy", "dx"):
        np.testing.assert_allclose((weight * many[axis]).sum(["dy", "dx"]), 0.0, atol=5e-3)
    whole = stamps(image, STARS, 17)
    off = (whole * whole["dx"]).sum(["dy", "dx"]) / whole.sum(["dy", "dx"])
    np.testing.assert_allclose(off, [0.0, -0.5, 0.31, -0.49, 0.13], atol=5e-3)
    np.testing.assert_array_equal(many[0], whole[0].astype("f4"))
    np.testing.assert_allclose(many["x"].isel(dx=8), [x for x, _ in STARS], rtol=1e-12)
    np.testing.assert_allclose(many["y"].isel(dy=8), [y for _, y in STARS], rtol=1e-12)


def test_centered_stamps_are_those_of_align(loaded: xr.Dataset) -> None:
    """The frame, aligned by the same shift, has the same pixels, variance and flags there."""
    rng = np.random.default_rng(1)
    noise = loaded["sci"].copy(data=rng.uniform(50, 90, loaded["sci"].shape).astype("f4"))
    flags = loaded["flags"].copy(data=np.where(rng.random(noise.shape) < 0.01, loaded["flags"] | 9, 2).astype("u2"))
    ds = loaded.drop_vars("mask").assign(variance=noise, flags=flags)
    where = [(10.3, 12.8), (38.7, 30.2), (2.45, 46.6)]
    many = stamps(ds, where, 9, centered=True)
    assert set(many.data_vars) == {"sci", "flags", "variance"}
    for i, (x, y) in enumerate(where):
        column, row = int(np.floor(x + 0.5)), int(np.floor(y + 0.5))
        target = stamp(ds, x=column, y=row, size=9)
        truth = align(ds, target, transform=Transform.shift(x - column, y - row))
        for name in many.data_vars:
            assert many[name].dtype == truth[name].dtype
            assert many[name].attrs == ds[name].attrs
            np.testing.assert_allclose(many[name][i].values, truth[name].values, rtol=2e-5, err_msg=str(name))
    assert np.isnan(many["sci"].values).any()
    assert np.isfinite(many["sci"].values).any()


def test_centered_variance() -> None:
    """Of independent pixels of one variance: the squared weights of the kernel."""
    ones = xr.DataArray(np.ones((40, 40)), dims=("y", "x"))
    many = stamps(xr.Dataset({"sci": ones, "variance": 4 * ones}), [(20.25, 19.5)], 5, centered=True)
    table = kernel_table("lanczos3").astype(float)
    wx, wy = table[256], table[512]
    np.testing.assert_allclose(many["variance"], 4 * (wx**2).sum() * (wy**2).sum(), rtol=1e-5)
    np.testing.assert_allclose(many["sci"], 1.0, rtol=1e-5)


def test_each_image_keeps_its_own_variance() -> None:
    rng = np.random.default_rng(2)
    names = ("sci", "difference", "zogy_difference", "background")
    noise = {"sci": "variance", "difference": "difference_variance", "zogy_difference": "zogy_variance"}
    pixels = {k: (("y", "x"), rng.normal(size=(30, 30))) for k in names}
    variances = {v: (("y", "x"), rng.uniform(1, 2, (30, 30))) for v in noise.values()}
    ds = xr.Dataset({**pixels, **variances})
    many = stamps(ds, [(14.3, 15.2)], 7, centered=True)
    assert set(many.data_vars) == set(ds.data_vars)
    for name in names:
        pair = {"sci": ds[name]} | ({"variance": ds[noise[name]]} if name in noise else {})
        lone = stamps(xr.Dataset(pair), [(14.3, 15.2)], 7, centered=True)
        np.testing.assert_array_equal(many[name], lone["sci"])
        if name in noise:
            np.testing.assert_array_equal(many[noise[name]], lone["variance"])


def test_bad_pixels_of_centered_stamps() -> None:
    """A bad pixel spoils what it carries weight in, and only there; a mask may be given, or none."""
    image = stars([(20.3, 20.4)])
    image[24, 20] = 1e6
    flags = np.zeros(image.shape, np.uint16)
    flags[24, 20], flags[10, 10] = 1, 2
    ds = xr.Dataset({"sci": (("y", "x"), image), "flags": (("y", "x"), flags)})
    many = stamps(ds, [(20.3, 20.4)], 21, centered=True).isel(source=0)
    bad = np.isnan(many["sci"].values)
    assert 0 < bad.sum() <= 36
    np.testing.assert_array_equal((many["flags"].values & 1) > 0, bad)
    assert not (many["flags"].values[bad] & 2).any()
    clean_star = stamps(ds["sci"].copy(data=stars([(20.3, 20.4)])), [(20.3, 20.4)], 21, centered=True).isel(source=0)
    np.testing.assert_allclose(many["sci"].values[~bad], clean_star.values[~bad], atol=0.5)
    spread = stamps(ds, [(20.3, 20.4)], 21, centered=True, mask=False)["sci"]
    assert np.isfinite(spread.values).all()
    assert float(spread.max()) > 1e5
    own = xr.zeros_like(ds["sci"], dtype=bool)
    own[24, 20] = True
    xr.testing.assert_equal(stamps(ds, [(20.3, 20.4)], 21, centered=True, mask=own)["sci"][0], many["sci"])
    masked = stamps(ds[["sci"]].assign(mask=own), [(20.3, 20.4)], 21, centered=True)
    np.testing.assert_array_equal(masked["mask"][0], bad)
    assert masked["mask"].dtype == bool
    with pytest.raises(AlignmentError, match="different shapes"):
        stamps(ds, [(20.3, 20.4)], 21, centered=True, mask=own[1:])


def test_edges_of_centered_stamps(loaded: xr.Dataset) -> None:
    where = [(0.3, 20.4), (20.3, 47.4), (-30.0, 5.0), (np.nan, 5.0), (-300.0, 5.0)]
    many = stamps(loaded, where, 11, centered=True, mask=False)
    outside = (many["flags"].values & OUTSIDE) > 0
    assert outside[0, :, :5].all(), "five columns lie off the image"
    assert not outside[0, :, 8:].any()
    assert outside[1, 6:].all()
    assert outside[2:].all()
    assert np.isnan(many["sci"].values[outside]).all()
    assert many["mask"].values[outside].all()
    np.testing.assert_array_equal(np.isnan(many["sci"].values), outside)
    assert np.isnan(many["x"].values[3]).all()
    edge, off = bits("edge"), bits("outside")
    assert many["stamp_status"].values.tolist() == [edge, edge, off, off, off]


def test_centered_stamps_have_no_whole_pixels(loaded: xr.Dataset) -> None:
    many = stamps(loaded, [(10.3, 12.8)], 9, centered=True)
    assert "wcs_header" not in many.attrs
    one = many.isel(source=0).swap_dims(dy="y", dx="x").drop_vars(["ra", "dec"])
    with pytest.raises(InputError, match="no whole pixel"):
        assign_wcs(one, loaded.attrs["wcs_header"])


def test_integer_images_are_centered(loaded: xr.Dataset) -> None:
    whole = loaded["sci"].round().astype(np.int32).drop_attrs()
    found = stamps(whole, [(10.3, 12.8)], 9, centered=True)
    expected_sci = stamps(whole.astype(float), [(10.3, 12.8)], 9, centered=True)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found.values, expected_sci.values)


CANNOT: dict[str, Callable[[xr.Dataset], Any]] = {
    "flags": lambda ds: ds["flags"],
    "mask": lambda ds: ds["mask"],
    "variance": lambda ds: ds["sci"].rename("variance"),
    "flags and mask": lambda ds: ds[["flags", "mask"]],
    "difference_variance": lambda ds: ds.assign(difference_variance=ds["sci"]),
    "defects": lambda ds: ds.assign(defects=ds["mask"]),
    "profile": lambda ds: ds.assign(profile=ds["sci"].isel(x=0, drop=True)),
}


@pytest.mark.parametrize("name", CANNOT)
def test_what_cannot_be_shifted(loaded: xr.Dataset, name: str) -> None:
    with pytest.raises(InputError, match=f"{name} cannot be shifted"):
        stamps(CANNOT[name](loaded), [(10.3, 12.8)], 9, centered=True)
    assert stamps(CANNOT[name](loaded), [(10.3, 12.8)], 9).sizes["source"] == 1


def test_real_stars_are_centered(quadrant_path: Path) -> None:
    """Windowed centroids of bright, isolated stars of the real quadrant, before and after; their flux stays."""
    ds = open_quadrant(quadrant_path).isel(y=slice(1000, 1600), x=slice(1000, 1600)).load()
    image = clean(ds, background=background(ds)["background"])
    pixels = np.ascontiguousarray(image.fillna(0.0).values)
    found = sep.extract(pixels, 60.0)
    x, y, flag = sep.winpos(pixels, found["x"], found["y"], 1.1)
    near = np.hypot(x[:, None] - x, y[:, None] - y) + np.where(np.eye(len(x)), 99.0, 0.0)
    good = (flag == 0) & (near.min(axis=1) > 25) & (found["peak"] < 20000) & (found["npix"] < 150)
    good &= (found["a"] < 1.5) & (np.minimum.reduce([x, y, 599 - x, 599 - y]) > 20)
    assert good.sum() >= 10
    where = np.column_stack([x, y])[good] + 1000
    many, whole = (stamps(image, where, 31, centered=c) for c in (True, False))
    usable = np.isfinite(many.values).all(axis=(1, 2)) & np.isfinite(whole.values).all(axis=(1, 2))
    assert usable.sum() >= 5
    for i in np.flatnonzero(usable):
        one = np.ascontiguousarray(many.values[i])
        cx, cy, _ = sep.winpos(one, [15.0], [15.0], 1.1)
        np.testing.assert_allclose((cx[0], cy[0]), (15.0, 15.0), rtol=0, atol=0.02)
        flux = sep.sum_circle(one, [15.0], [15.0], 9.0, subpix=0)[0][0]
        at = where[i] - [float(whole["x"][i, 0]), float(whole["y"][i, 0])]
        truth = sep.sum_circle(np.ascontiguousarray(whole.values[i]), [at[0]], [at[1]], 9.0, subpix=0)[0][0]
        np.testing.assert_allclose(flux, truth, rtol=3e-3, atol=20.0, err_msg="the noise of this sum is 160 DN")


# what is wrong


def test_wrong_stamps(loaded: xr.Dataset) -> None:
    with pytest.raises(InputError, match="size is a whole number of pixels"):
        stamps(loaded, [(5, 5)], 0)
    with pytest.raises(InputError, match=r"dimensions y and x; got \('y',\)"):
        stamps(loaded["sci"].isel(x=0, drop=True), [(5, 5)])
    with pytest.raises(InputError, match="the image has source already"):
        stamps(loaded["sci"].expand_dims(source=2), [(5, 5)])
    with pytest.raises(InputError, match="the image has source, dy, dx already"):
        stamps(stamps(loaded, [(5, 5)], 5).drop_vars(["y", "x"]).expand_dims(y=3, x=3), [(5, 5)])
    with pytest.raises(InputError, match="interpolation is one of lanczos3, spline; got 'cubic'"):
        stamps(loaded["sci"], [(5, 5)], centered=True, interpolation="cubic")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="positions are"):
        stamps(loaded, [(5, 5, 5)])
    with pytest.raises(InputError, match="x does not count single pixels upwards"):
        stamps(loaded["sci"][:, ::-1], [(5, 5)])
    with dask.config.set(scheduler="synchronous"):
        assert stamps(loaded["sci"][:0], [(5, 5)], 3).isnull().all()
