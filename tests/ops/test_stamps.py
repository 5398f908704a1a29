"""Stamps against `numpy.pad` of the whole frame."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from astropy.io import fits
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import ztfxr.io.backend
from tests.conftest import WriteFrame
from ztfxr.errors import InputError, MissingWCSError, OutsideFrameError
from ztfxr.io.backend import open_quadrant
from ztfxr.ops.background import clean
from ztfxr.ops.masks import mask
from ztfxr.ops.stamps import stamp
from ztfxr.wcs import has_wcs, pixel_to_sky

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


def window(centre: float, size: int) -> slice:
    """Where the stamp lies along one axis: `size // 2` pixels before the pixel that contains the position."""
    start = int(np.floor(centre + 0.5)) - size // 2
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


# what is not labelled, and what is wrong


def test_unlabelled_array_gets_labels() -> None:
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
    with pytest.raises(InputError, match="boundary is 'pad', 'raise' or 'trim'; came 'wrap'"):
        stamp(loaded, x=5, y=5, boundary="wrap")  # type: ignore[arg-type]


@pytest.mark.parametrize("cut", [slice(None, None, -1), slice(None, None, 2)])
def test_reversed_or_thinned_image(loaded: xr.Dataset, cut: slice) -> None:
    """Its first column is no origin to count from; taken for one, the stamp shows another place."""
    with pytest.raises(InputError, match="x does not count single pixels upwards"):
        stamp(loaded["sci"][:, cut], x=5, y=5)
