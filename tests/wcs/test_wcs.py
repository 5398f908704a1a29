"""Sky labels: the index, the fast grid, conversions, and what xarray's index has cost others (design §9.8)."""

from __future__ import annotations

import copy
import itertools
import pickle
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.wcs import WCS
from dask.base import tokenize
from hypothesis import given
from hypothesis import strategies as st

import ztfxr
from tests.conftest import MakeHeader
from ztfxr.arrays.geometry.chebyshev import GridExpansion
from ztfxr.errors import AlignmentError, InputError, MissingWCSError, OutsideFrameError
from ztfxr.io.frames import open_quadrant
from ztfxr.wcs import (
    WCSIndex,
    WCSTransform,
    Window,
    assign_wcs,
    drop_wcs,
    get_wcs,
    has_wcs,
    pixel_to_sky,
    same_grid,
    sky_to_pixel,
    wcs_cards,
)
from ztfxr.wcs import cards as cards_module
from ztfxr.wcs import grid as grid_module

SHAPE = (60, 50)
BIG = (400, 300)


def image(header: fits.Header | None, shape: tuple[int, int] = SHAPE, lazy: bool = True) -> xr.DataArray:
    """An image whose pixels are their own number, labeled by absolute pixels and sky."""
    pixels: Any = np.arange(shape[0] * shape[1], dtype=float).reshape(shape)
    coords = {d: np.arange(n) for d, n in zip(("y", "x"), shape, strict=True)}
    out = xr.DataArray(da.from_array(pixels, chunks=-1) if lazy else pixels, coords, ("y", "x"), "sci")
    return out if header is None else assign_wcs(out, header)


@pytest.fixture(scope="module")
def header(wcs_header: MakeHeader) -> fits.Header:
    return wcs_header(SHAPE)


@pytest.fixture(scope="module")
def frame(header: fits.Header) -> xr.DataArray:
    return image(header)


def exact(header: fits.Header, y: Any, x: Any) -> tuple[Any, Any]:
    """RA and Dec by astropy."""
    ra, dec = WCS(header).all_pix2world(x, y, 0)
    return ra, dec


# the header


def test_tan_with_pv_becomes_tpv(wcs_header: MakeHeader) -> None:
    """SCAMP's PV terms under the name TAN mean TPV; read as TAN they would be ignored."""
    tan, tpv = wcs_cards(wcs_header(SHAPE, ctype="TAN")), wcs_cards(wcs_header(SHAPE, ctype="TPV"))
    assert tan == tpv
    assert tan is not None
    assert fits.Header.fromstring(tan, sep="\n")["CTYPE1"] == "RA---TPV"
    ra, dec = exact(wcs_header(SHAPE, ctype="TPV"), 3.0, 4.0)
    sky = pixel_to_sky(image(wcs_header(SHAPE, ctype="TAN")), 4.0, 3.0)
    assert (sky.ra.deg, sky.dec.deg) == (ra, dec)


def test_plain_tan_stays(wcs_header: MakeHeader) -> None:
    header = wcs_header(SHAPE, ctype="TAN")
    for key in [k for k in header if k.startswith("PV")]:
        del header[key]
    cards = wcs_cards(header)
    assert cards is not None
    assert "RA---TAN'" in cards


def test_only_wcs_cards_are_kept(header: fits.Header) -> None:
    full = header.copy()
    full["GAIN"], full["A_NOTE"], full["RADECSYS"], full["MJD-OBS"] = 6.2, "text", "ICRS", 59116.4
    del full["RADESYS"]
    cards = wcs_cards(full)
    assert cards is not None
    kept = fits.Header.fromstring(cards, sep="\n")
    assert set(kept) == {*header, "MJD-OBS"}, "RADECSYS, of which astropy warns, is renamed"


@pytest.mark.parametrize("missing", ["CTYPE1", "CRVAL1"])
def test_no_celestial_wcs(header: fits.Header, missing: str) -> None:
    other = header.copy()
    del other[missing]
    assert wcs_cards(other) is None
    assert wcs_cards(fits.Header([("CTYPE1", "LINEAR"), ("CTYPE2", "LINEAR"), ("CRVAL1", 1.0)])) is None
    with pytest.raises(MissingWCSError, match=r"no celestial WCS .*plate-solve"):
        assign_wcs(image(None), other)


def sip_header(wcs_header: MakeHeader, a_2_0: float = 5e-4) -> fits.Header:
    header = wcs_header(SHAPE, ctype="TAN-SIP")
    for key in [k for k in header if k.startswith("PV")]:
        del header[key]
    for key, value in {"A_ORDER": 2, "B_ORDER": 2, "A_2_0": a_2_0, "B_0_2": 1e-4, "AP_ORDER": 2, "BP_ORDER": 2}.items():
        header[key] = value
    return header


def test_sip(wcs_header: MakeHeader) -> None:
    header = sip_header(wcs_header)
    labeled = image(header)
    kept = fits.Header.fromstring(labeled.attrs["wcs_header"], sep="\n")
    assert {"A_2_0", "B_0_2", "AP_ORDER", "BP_ORDER"} <= set(kept)
    ra, dec = exact(header, 30.0, 10.0)
    sky = pixel_to_sky(labeled, 10.0, 30.0)
    assert (sky.ra.deg, sky.dec.deg) == (ra, dec)
    x, y = np.meshgrid(np.arange(0.0, 50, 7), np.arange(0.0, 60, 7))
    np.testing.assert_allclose(sky_to_pixel(labeled, pixel_to_sky(labeled, x, y)), (x, y), rtol=0, atol=1e-7)


def test_the_pointing_goes_with_the_cards(header: fits.Header) -> None:
    """It is no part of the WCS: frames that differ in it alone pair."""
    pointed = header.copy()
    pointed["RA"], pointed["DEC"] = "+10:01:12.00", "+20:42:00.0"
    one, other = image(pointed), image(header)
    assert "RA      = '+10:01:12.00'" in one[3:9].attrs["wcs_header"]
    assert one.xindexes["ra"].equals(other.xindexes["ra"])
    np.testing.assert_array_equal(one["ra"].values, other["ra"].values)


@pytest.mark.parametrize("dim", ["y", "x"])
def test_half_pixels_have_no_labels(frame: xr.DataArray, dim: str) -> None:
    shifted = drop_wcs(frame).assign_coords({dim: frame[dim] + 0.25})
    with pytest.raises(InputError, match=rf"{dim} begins at 0\.25, which is no whole pixel"):
        assign_wcs(shifted, frame.attrs["wcs_header"])
    whole = drop_wcs(frame).assign_coords({dim: frame[dim].astype(float)})
    assert assign_wcs(whole, frame.attrs["wcs_header"]).xindexes["ra"].equals(frame.xindexes["ra"])


# the real frame, against TPV written out by hand

_POWERS = [(0, 0), (1, 0), (0, 1), None, (2, 0), (1, 1), (0, 2), (3, 0), (2, 1), (1, 2), (0, 3), None]
_POWERS += [(4, 0), (3, 1), (2, 2), (1, 3), (0, 4)]


def tpv(header: fits.Header, x: Any, y: Any) -> tuple[Any, Any]:
    """RA and Dec in degrees of 0-based pixels: matrix, polynomial, and a vector in the tangent plane."""
    p = np.stack([np.asarray(x) + 1.0 - header["CRPIX1"], np.asarray(y) + 1.0 - header["CRPIX2"]])
    u = header["CD1_1"] * p[0] + header["CD1_2"] * p[1]
    v = header["CD2_1"] * p[0] + header["CD2_2"] * p[1]
    plane = []
    for axis, (a, b) in ((1, (u, v)), (2, (v, u))):
        terms = {n: header.get(f"PV{axis}_{n}", 0.0) for n in range(17)}
        assert terms[3] == terms[11] == 0.0, "radial terms are not written out here"
        plane.append(sum(terms[n] * a ** k[0] * b ** k[1] for n, k in enumerate(_POWERS) if k is not None))
    xi, eta = np.deg2rad(plane)
    ra0, dec0 = np.deg2rad([header["CRVAL1"], header["CRVAL2"]])
    center = np.array([np.cos(dec0) * np.cos(ra0), np.cos(dec0) * np.sin(ra0), np.sin(dec0)])
    east = np.array([-np.sin(ra0), np.cos(ra0), 0.0])
    north = np.cross(center, east)
    vector = center[:, None] + east[:, None] * xi.ravel() + north[:, None] * eta.ravel()
    ra = np.rad2deg(np.arctan2(vector[1], vector[0])) % 360.0
    dec = np.rad2deg(np.arctan2(vector[2], np.hypot(vector[0], vector[1])))
    return ra.reshape(xi.shape), dec.reshape(xi.shape)


def test_real_quadrant_is_tpv_by_hand(quadrant_path: Path) -> None:
    """Inside, on the corner pixels and on the outer corners: positions to 1e-6 deg (in fact 1e-11), labels too."""
    ds = open_quadrant(quadrant_path)
    header = fits.Header.fromstring(ds.attrs["header"], sep="\n")
    ny, nx = ds["sci"].shape
    rng = np.random.default_rng(0)
    corners = [(a, b) for a in (-0.5, 0.0, nx - 1.0, nx - 0.5) for b in (-0.5, 0.0, ny - 1.0, ny - 0.5)]
    x, y = np.concatenate([np.array(corners), rng.uniform(0, (nx - 1, ny - 1), (2000, 2))]).T
    truth = tpv(header, x, y)
    sky = pixel_to_sky(ds, x, y)
    np.testing.assert_allclose((sky.ra.deg, sky.dec.deg), truth, rtol=0, atol=1e-11)
    np.testing.assert_allclose(sky_to_pixel(ds, ra=truth[0], dec=truth[1]), (x, y), rtol=0, atol=1e-5)
    rows, columns = np.r_[0, ny - 1, rng.integers(0, ny, 60)], np.r_[0, nx - 1, rng.integers(0, nx, 60)]
    at = tpv(header, *np.meshgrid(columns, rows))
    for name, expected in zip(("ra", "dec"), at, strict=True):
        np.testing.assert_allclose(ds[name].values[np.ix_(rows, columns)], expected, rtol=0, atol=1e-8)
        np.testing.assert_allclose(ds[name].isel(y=rows, x=columns).values, expected, rtol=0, atol=1e-8)


# labels


def test_labels_are_those_of_astropy(frame: xr.DataArray, header: fits.Header) -> None:
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    ra, dec = exact(header, y, x)
    np.testing.assert_array_equal(frame["ra"].values, ra)
    np.testing.assert_array_equal(frame["dec"].values, dec)
    assert frame["ra"].attrs["units"] == frame["dec"].attrs["units"] == "deg"


SLICES = st.tuples(
    *(
        st.builds(slice, st.none() | st.integers(-n, n), st.none() | st.integers(-n, n), st.none() | st.integers(1, 4))
        for n in SHAPE
    )
)


@given(SLICES, st.booleans())
def test_labels_of_a_slice_are_the_slice_of_the_labels(frame: xr.DataArray, where: Any, backwards: bool) -> None:
    y, x = where
    part = frame[y, x]
    if backwards:
        part, y = part[::-1], (y, slice(None, None, -1))
    for name in ("ra", "dec"):
        expected = frame[name].values[where]
        np.testing.assert_allclose(part[name].values, expected[::-1] if backwards else expected, rtol=0, atol=1e-12)


@given(SLICES)
def test_isel_keeps_the_index(frame: xr.DataArray, where: Any) -> None:
    """Stock `CoordinateTransformIndex.isel` drops it. A step other than 1 has labels, but no index."""
    part = frame[where]
    unit_step = all(s.step in (None, 1) for s in where)
    assert has_wcs(part) == unit_step
    assert part["ra"].shape == part.shape
    if unit_step:
        index = part.xindexes["ra"]
        assert isinstance(index, WCSIndex)
        assert index.transform.window.shape == part.shape
        if part.size:
            assert index.transform.window.start == (int(part["y"][0]), int(part["x"][0]))


def test_slices_of_slices(frame: xr.DataArray) -> None:
    part = frame[10:50, 5:45][5:30][:, 7:-3]
    index = part.xindexes["ra"]
    assert isinstance(index, WCSIndex)
    assert index.transform.window == Window((15, 12), (40, 42))
    assert repr(index.transform.window) in repr(Window((15, 12), (40, 42)))
    assert "WCSIndex(y=15:40, x=12:42)" in repr(part)


def test_single_rows_and_points_have_labels(frame: xr.DataArray) -> None:
    row, point = frame.isel(y=7), frame.isel(y=7, x=9)
    np.testing.assert_allclose(row["ra"].values, frame["ra"].values[7], rtol=0, atol=1e-12)
    assert point["dec"].item() == pytest.approx(frame["dec"].values[7, 9], abs=1e-12)
    assert not has_wcs(row)


def test_labels_stay_lazy(header: fits.Header, monkeypatch: pytest.MonkeyPatch, raising_scheduler: Any) -> None:
    """Labelling, slicing, copying, joining and arithmetic evaluate no WCS and no graph."""

    def refuse(*args: Any) -> None:
        raise AssertionError("the WCS was evaluated")

    for place in ("grid.sky_of", "index.sky_of", "convert.sky_of", "index.pixel_of", "convert.pixel_of"):
        monkeypatch.setattr(f"ztfxr.wcs.{place}", refuse)
    frame = image(header)
    part = frame[3:40, 4:30].copy()
    lazy = (part - frame[10:50]) * 2 + 1
    assert lazy.shape == (30, 26)
    same_grid(frame, image(header))
    xr.concat([frame, frame], "time", coords="minimal", compat="override")
    with pytest.raises(AssertionError, match="evaluated"):
        frame["ra"].values  # noqa: B018


# selection by position


@given(st.integers(0, SHAPE[0] - 1), st.integers(0, SHAPE[1] - 1), st.floats(-0.45, 0.45), st.floats(-0.45, 0.45))
def test_sel_nearest_pixel(frame: xr.DataArray, y: int, x: int, dy: float, dx: float) -> None:
    sky = pixel_to_sky(frame, x + dx, y + dy)
    found = frame.sel(ra=float(sky.ra.deg), dec=float(sky.dec.deg))
    assert (int(found["y"]), int(found["x"])) == (y, x)


def test_sel_in_a_cut_out(frame: xr.DataArray) -> None:
    cut = frame[20:40, 10:30]
    sky = pixel_to_sky(cut, [12, 29], [39, 20])
    found = cut.sel(
        ra=xr.DataArray(sky.ra.deg, dims="source"), dec=xr.DataArray(sky.dec.deg, dims="source"), method="nearest"
    )
    assert found.dims == ("source",)
    assert list(found.values) == [39 * SHAPE[1] + 12, 20 * SHAPE[1] + 29]
    listed = cut.sel(ra=list(sky.ra.deg), dec=list(sky.dec.deg))
    assert list(listed.values) == list(found.values)


@pytest.mark.parametrize(("y", "x"), [(-0.6, 5), (-1, 5), (-20, 5), (5, -1), (59.6, 5), (60, 5), (5, 50), (1e4, 1e4)])
def test_sel_outside_raises_instead_of_wrapping(frame: xr.DataArray, y: float, x: float) -> None:
    """Negative positions would select, as negative numbers do, from the far side."""
    sky = pixel_to_sky(frame, x, y)
    with pytest.raises(
        OutsideFrameError, match=r"1 of 1 sky positions fall outside the image WCSIndex\(y=0:60, x=0:50\)"
    ):
        frame.sel(ra=float(sky.ra.deg), dec=float(sky.dec.deg))


def test_sel_outside_a_cut_out_but_inside_the_frame(frame: xr.DataArray) -> None:
    sky = pixel_to_sky(frame, [15, 15], [25, 10])
    with pytest.raises(OutsideFrameError, match="1 of 2 sky positions"):
        frame[20:40, 10:30].sel(ra=list(sky.ra.deg), dec=list(sky.dec.deg))


def test_sel_broadcasts(frame: xr.DataArray) -> None:
    """Numbers with arrays, and two arrays of their own dimensions as an outer product."""
    sky = pixel_to_sky(frame, [3, 30], [40, 40])
    dec = float(sky.dec.deg[0])
    expected = [float(frame.sel(ra=float(r), dec=dec)) for r in sky.ra.deg]
    assert list(frame.sel(ra=list(sky.ra.deg), dec=dec).values) == expected
    assert list(frame.sel(ra=sky.ra, dec=dec * _deg()).values) == expected, "quantities carry their unit"
    assert list(frame.sel(ra=sky.ra.to("hourangle"), dec=dec).values) == expected
    outer = frame.sel(ra=xr.DataArray(sky.ra.deg, dims="a"), dec=xr.DataArray([dec, dec], dims="b"))
    assert outer.dims == ("a", "b")
    assert outer.values.tolist() == [[value, value] for value in expected]
    labeled = xr.DataArray(sky.ra.deg, {"source": [7, 8]}, ("source",))
    assert list(frame.sel(ra=labeled, dec=dec).values) == expected


BOX = st.tuples(st.integers(-8, 55), st.integers(0, 40), st.integers(-8, 65), st.integers(0, 40))


@pytest.fixture(scope="module", params=[(150.3, 20.7), (0.0, 5.0), (30.0, 89.999)], ids=["plain", "ra=0", "pole"])
def anywhere(request: pytest.FixtureRequest, wcs_header: MakeHeader) -> xr.DataArray:
    return image(wcs_header(SHAPE, crval=request.param))


@given(BOX)
def test_sel_box(anywhere: xr.DataArray, box: tuple[int, int, int, int]) -> None:
    """The smallest window with every pixel whose center is in the box; across RA 0 and near the pole too."""
    ra, dec = anywhere["ra"].values, anywhere["dec"].values
    x0, nx, y0, ny = box
    ends = pixel_to_sky(anywhere, [x0 + 0.3, x0 + nx], [y0 + 0.3, y0 + ny])
    south, north = sorted(ends.dec.deg.tolist())
    west, east = ends.ra.deg.tolist()
    if (east - west) % 360 > 180:
        west, east = east, west
    inside = ((ra - west) % 360 <= (east - west) % 360) & (dec >= south) & (dec <= north)
    if not inside.any():
        with pytest.raises(
            OutsideFrameError, match=r"no pixel of the image WCSIndex\(y=0:60, x=0:50\) lies in the box"
        ):
            anywhere.sel(ra=slice(west, east), dec=slice(south, north))
        return
    found = anywhere.sel(ra=slice(west, east), dec=slice(south, north))
    rows, columns = np.nonzero(inside)
    expected = anywhere[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    xr.testing.assert_identical(found, expected)
    assert found.xindexes["ra"].equals(expected.xindexes["ra"])
    if west > east:
        xr.testing.assert_identical(anywhere.sel(ra=slice(west - 360, east), dec=slice(south, north)), expected)


def test_sel_box_of_a_dataset_and_a_stack(frame: xr.DataArray) -> None:
    sky = pixel_to_sky(frame, [40.4, 9.6], [50.4, 19.6])
    box = {"ra": slice(*sky.ra.deg), "dec": slice(*sky.dec.deg)}
    expected = frame.sel(box)
    xr.testing.assert_identical(frame.to_dataset().sel(box)["sci"].drop_attrs(), expected.drop_attrs())
    stack = xr.concat([frame, 2 * frame], "time")
    np.testing.assert_array_equal(stack.sel(box).values, np.stack([expected.values, 2 * expected.values]))


@pytest.mark.parametrize(
    ("ra", "dec", "words"),
    [
        (slice(150.0, 151.0), 20.7, "got dec as 20.7"),
        (slice(150.0, None), slice(20.0, 21.0), "got ra as slice"),
        (slice(150.0, 151.0), slice(20.0, 21.0, 2), "got dec as slice"),
        (slice("a", "b"), slice(20.0, 21.0), "got ra as slice"),
        (slice(150.4, 150.2), slice(20.0, 21.0), "eastwards"),
        (slice(150.2, 150.4), slice(21.0, 20.0), "northwards"),
        (slice(150.2, np.nan), slice(20.0, 21.0), "eastwards"),
    ],
)
def test_sel_box_says_what_it_needs(frame: xr.DataArray, ra: Any, dec: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        frame.sel(ra=ra, dec=dec)


def test_sel_refuses_what_is_no_angle_and_tolerance(frame: xr.DataArray) -> None:
    with pytest.raises(InputError, match="ra 'there' is no angle"):
        frame.sel(ra="there", dec=20.7)
    with pytest.raises(InputError, match="ra and dec are degrees, numbers or arrays of one shape"):
        frame.sel(ra=[150.3, 150.31], dec=[20.7, 20.71, 20.72])
    with pytest.raises(InputError, match=r"tolerance=0\.1 has no meaning"):
        frame.sel(ra=150.3, dec=20.7, method="nearest", tolerance=0.1)


def test_sel_says_what_it_needs(frame: xr.DataArray) -> None:
    with pytest.raises(InputError, match="select with both ra= and dec=; got ra"):
        frame.sel(ra=150.0)
    with pytest.raises(InputError, match="method='pad' is not known"):
        frame.sel(ra=150.3, dec=20.7, method="pad")
    with pytest.raises(OutsideFrameError):
        frame.sel(ra=np.nan, dec=20.7)
    with pytest.raises(OutsideFrameError):
        frame.sel(ra=330.3, dec=-20.7)


# two images


WINDOWS = st.tuples(*(st.tuples(st.integers(0, n - 1), st.integers(1, n)) for n in SHAPE)).map(
    lambda w: tuple(slice(a, min(a + b, n)) for (a, b), n in zip(w, SHAPE, strict=True))
)


def expected_overlap(a: slice, b: slice) -> slice:
    low = max(a.start, b.start)
    return slice(low, max(low, min(a.stop, b.stop)))


@given(WINDOWS, WINDOWS)
def test_cut_outs_subtract_on_their_overlap(frame: xr.DataArray, a: Any, b: Any) -> None:
    """The difference of two windows of one frame is the window of the parent's difference."""
    found = (2 * frame)[a] - frame[b]
    overlap = tuple(expected_overlap(p, q) for p, q in zip(a, b, strict=True))
    parent = (2 * frame - frame)[overlap]
    assert found.shape == parent.shape
    np.testing.assert_array_equal(found.values, parent.values)
    np.testing.assert_array_equal(found["y"], parent["y"])
    if found.size:
        assert found.xindexes["ra"].equals(parent.xindexes["ra"])


@given(WINDOWS, WINDOWS)
def test_the_sky_of_a_difference_is_the_parents(frame: xr.DataArray, a: Any, b: Any) -> None:
    """Overlapping, one in the other, identical or apart; of arrays and of Datasets."""
    parent_ra, parent_dec = frame["ra"].values, frame["dec"].values
    for found in (frame[a] - frame[b], (frame.to_dataset()[{"y": a[0], "x": a[1]}] - frame[b])["sci"]):
        rows, columns = found["y"].values, found["x"].values
        for labels, n, p, q in ((rows, SHAPE[0], a[0], b[0]), (columns, SHAPE[1], a[1], b[1])):
            assert labels.tolist() == sorted({*range(n)[p]} & {*range(n)[q]})
        assert has_wcs(found)
        np.testing.assert_allclose(found["ra"].values, parent_ra[np.ix_(rows, columns)], rtol=0, atol=1e-12)
        np.testing.assert_allclose(found["dec"].values, parent_dec[np.ix_(rows, columns)], rtol=0, atol=1e-12)
        assert not found.values.any()


def test_a_difference_of_cut_outs_goes_on(frame: xr.DataArray) -> None:
    """Its index selects, slices and subtracts like any other; so does that of a stack."""
    a, b = frame[5:40, 3:30], frame[20:55, 10:45]
    found = (a - b)[2:]
    assert found.xindexes["ra"].equals(frame[22:40, 10:30].xindexes["ra"])
    sky = pixel_to_sky(frame, 12, 25)
    assert int((2 * a - b).sel(ra=float(sky.ra.deg), dec=float(sky.dec.deg))) == 25 * SHAPE[1] + 12
    stack = xr.concat([a, a + 1], "time")
    assert (stack - b).dims == ("time", "y", "x")
    assert (stack - b).xindexes["ra"].equals((a - b).xindexes["ra"])
    np.testing.assert_array_equal((stack - b)[1].values, 1.0)


@given(WINDOWS, WINDOWS)
def test_outer_join(frame: xr.DataArray, a: Any, b: Any) -> None:
    """The enclosing window, NaN where an image has no pixel; windows with a gap between them are refused."""
    if any(p.start > q.stop or q.start > p.stop for p, q in zip(a, b, strict=True)):
        with pytest.raises(xr.AlignmentError, match="conflicting"):
            xr.align(frame[a], frame[b], join="outer")
        return
    left, right = xr.align(frame[a], frame[b], join="outer")
    assert left.shape == right.shape
    index = left.xindexes["ra"]
    assert isinstance(index, WCSIndex)
    window = index.transform.window
    for axis in range(2):
        assert window.start[axis] == min(a[axis].start, b[axis].start)
        assert window.stop[axis] == max(a[axis].stop, b[axis].stop)
    for part, where in ((left, a), (right, b)):
        filled = np.full(SHAPE, np.nan)
        filled[where] = frame.values[where]
        inside = tuple(slice(i, j) for i, j in zip(window.start, window.stop, strict=True))
        np.testing.assert_array_equal(part.values, filled[inside])


@pytest.mark.parametrize("change", [{"CRVAL1": 150.31}, {"CRPIX2": 31.0}, {"PV1_4": 1e-3}, {"CD1_1": -2.8e-4}])
def test_different_wcs_refuse_to_subtract(frame: xr.DataArray, header: fits.Header, change: dict[str, float]) -> None:
    """Their distortion counts too, which wcslib's own comparison leaves out."""
    other = header.copy()
    other.update(change)
    with pytest.raises(AlignmentError, match="different WCS, so their pixels do not see the same sky; resample"):
        frame - image(other)
    with pytest.raises(AlignmentError, match="different WCS"):
        same_grid(frame, image(other))
    with pytest.raises(AlignmentError, match="different WCS"):
        xr.concat([frame, image(other)], "time", join="outer")
    with pytest.raises(xr.AlignmentError, match="cannot align objects with join='exact'"):
        xr.concat([frame, image(other)], "time", join="exact")


MIXES: dict[str, Callable[[xr.DataArray, xr.DataArray], Any]] = {
    "subtract": lambda a, b: a - b,
    "compare": lambda a, b: a > b,
    "subtract datasets": lambda a, b: a.to_dataset() - b.to_dataset(),
    "dataset and array": lambda a, b: a.to_dataset() - b,
    "merge": lambda a, b: xr.merge([a.rename("a"), b.rename("b")], join="outer", compat="no_conflicts"),
    "make a dataset": lambda a, b: xr.Dataset({"a": a, "b": b}),
    "where": lambda a, b: a.where(b > 0),
    "fillna": lambda a, b: a.fillna(b),
    "combine_first": lambda a, b: a.combine_first(b),
    "align": lambda a, b: xr.align(a, b),
    "reindex_like": lambda a, b: a.reindex_like(b),
    "concat": lambda a, b: xr.concat([a, b], "time", join="inner"),
    "apply_ufunc": lambda a, b: xr.apply_ufunc(np.hypot, a, b, join="inner", dask="allowed"),
    "dot": lambda a, b: xr.dot(a, b),
    "update": lambda a, b: a.to_dataset().update(b.to_dataset(name="b")),
}
EXACT: dict[str, Callable[[xr.DataArray, xr.DataArray], Any]] = {
    "where other": lambda a, b: a.where(a > 0, b),
    "xr.where": lambda a, b: xr.where(a > 0, a, b),
}


@pytest.mark.parametrize("mix", MIXES)
def test_no_way_around_the_wcs(frame: xr.DataArray, header: fits.Header, mix: str) -> None:
    """Whatever pairs the pixels of images with different WCS raises; the same with one WCS does not."""
    other = header.copy()
    other["CRVAL1"] += 1e-3
    MIXES[mix](frame, image(header))
    with pytest.raises(AlignmentError, match="different WCS, so their pixels do not see the same sky"):
        MIXES[mix](frame, image(other))


@pytest.mark.parametrize("mix", EXACT)
def test_exact_joins_name_the_sky(frame: xr.DataArray, header: fits.Header, mix: str) -> None:
    """Where xarray asks for equal labels it raises by itself, for another window of the same frame too."""
    other = header.copy()
    other["CRVAL1"] += 1e-3
    EXACT[mix](frame, image(header))
    for unequal in (image(other), frame[:, 1:]):
        with pytest.raises(xr.AlignmentError, match="not equal along these coordinates"):
            EXACT[mix](frame, unequal)


def test_assignment_takes_the_pixels_and_not_the_sky(frame: xr.DataArray, header: fits.Header) -> None:
    """What we cannot prevent: xarray drops the coordinates of what is assigned, and pairs it by `x` and `y`."""
    other = header.copy()
    other["CRVAL1"] += 1e-3
    assigned = frame.to_dataset().assign(other=image(other))
    assert assigned.xindexes["ra"].equals(frame.xindexes["ra"])
    assert float((assigned["sci"] - assigned["other"]).sum()) == 0.0
    with pytest.raises(AlignmentError, match="different WCS or windows"):
        same_grid(frame, image(other))


def test_in_place_arithmetic(frame: xr.DataArray, header: fits.Header) -> None:
    """xarray leaves the labels of an image that is changed in place alone, and so refuses any other window."""
    other = header.copy()
    other["CRVAL1"] += 1e-3
    one = image(header, lazy=False)
    with pytest.raises((AlignmentError, xr.MergeError)):
        one -= image(other)
    with pytest.raises((AlignmentError, xr.MergeError)):
        one -= frame[3:]
    one -= image(header, lazy=False)
    assert not one.values.any()
    assert has_wcs(one)


def test_different_sip_refuse_to_subtract(wcs_header: MakeHeader) -> None:
    with pytest.raises(AlignmentError, match="different WCS"):
        image(sip_header(wcs_header)) - image(sip_header(wcs_header, 6e-4))


def test_dates_do_not_make_another_wcs(frame: xr.DataArray, header: fits.Header) -> None:
    later = header.copy()
    later["MJD-OBS"], later["DATE-OBS"] = 59117.4, "2020-09-25T09:36:00"
    assert (frame - image(later)).shape == SHAPE


def test_unlabeled_images_pair_by_pixel(frame: xr.DataArray) -> None:
    """Without a WCS, the absolute pixels `y` and `x` decide what pairs; other windows are refused, if by xarray."""
    cut = (slice(10, 30), slice(5, 20))
    found = frame[cut] - image(None)[cut]
    assert found.shape == (20, 15)
    assert has_wcs(found)
    assert not found.values.any()
    with pytest.raises(ValueError, match="conflicting sizes"):
        frame - image(None)[cut]


def test_concat_in_time_keeps_the_index(header: fits.Header, raising_scheduler: Any) -> None:
    epochs = [image(header).assign_coords(time=t) for t in range(3)]
    stack = xr.concat(epochs, "time")
    assert stack.dims == ("time", "y", "x")
    assert stack["ra"].dims == ("y", "x")
    assert has_wcs(stack)
    assert has_wcs(stack[1])
    assert has_wcs(stack[:, 5:10])
    with pytest.raises(xr.AlignmentError, match="cannot align objects with join='exact'"):
        xr.concat([epochs[0], epochs[1][1:]], "time", join="exact")


def test_same_grid(frame: xr.DataArray, header: fits.Header) -> None:
    same_grid(frame, image(header))
    same_grid(frame.to_dataset(), image(None))
    with pytest.raises(AlignmentError, match=r"different shapes, \(60, 50\) and \(59, 50\) \(y, x\)"):
        same_grid(frame, frame[1:])
    with pytest.raises(AlignmentError, match="different WCS or windows"):
        same_grid(frame[1:], frame[:-1])
    with pytest.raises(AlignmentError, match="start at different y: 1 and 0"):
        same_grid(image(None)[1:], image(None)[:-1])


def test_strict_same_grid(frame: xr.DataArray, header: fits.Header) -> None:
    """What xarray's arithmetic lets pass in silence: an image without a WCS pairs by pixel with any sky."""
    same_grid(frame, image(header), strict=True)
    bare = image(None)
    assert (frame - bare).shape == SHAPE
    for pair in ((frame, bare), (bare, frame), (bare, bare), (frame, drop_wcs(frame)), (frame, frame[::-1][::-1])):
        same_grid(*pair)
        with pytest.raises(AlignmentError, match="not both images have a celestial WCS"):
            same_grid(*pair, strict=True)


# copies and tokens


def copies(frame: xr.DataArray) -> Iterator[xr.DataArray]:
    yield frame.copy()
    yield frame.copy(deep=True)
    yield copy.deepcopy(frame)
    yield pickle.loads(pickle.dumps(frame))
    yield frame.to_dataset()["sci"]
    yield frame.transpose("x", "y").transpose("y", "x")
    yield frame.rename("other").rename("sci")
    yield frame.astype(np.float32).astype(np.float64)


def test_copies_keep_the_index(frame: xr.DataArray) -> None:
    for twin in copies(frame):
        assert twin.xindexes["ra"].equals(frame.xindexes["ra"])
        np.testing.assert_array_equal(twin["ra"].values, frame["ra"].values)


def test_transposed_labels(frame: xr.DataArray, wcs_header: MakeHeader) -> None:
    for one in (frame, image(wcs_header(BIG), BIG)):
        turned = one.transpose("x", "y")
        assert has_wcs(turned)
        np.testing.assert_array_equal(turned["ra"].transpose("y", "x").values, one["ra"].values)
        part = turned[10:30, 5:9]
        np.testing.assert_allclose(part["dec"].values, one["dec"].values[5:9, 10:30].T, rtol=0, atol=1e-8)


def test_tokens(frame: xr.DataArray, header: fits.Header) -> None:
    with dask.config.set({"tokenize.ensure-deterministic": True}):
        transform = WCSTransform(frame.attrs["wcs_header"], Window((0, 0), SHAPE))
        assert tokenize(transform) == tokenize(pickle.loads(pickle.dumps(transform)))
        assert tokenize(frame["ra"]) == tokenize(image(header)["ra"])
        assert tokenize(frame["ra"][1:]) != tokenize(frame["ra"])
        assert tokenize(transform) != tokenize(WCSTransform(transform.cards, Window((1, 0), SHAPE)))


def test_drop_and_assign_again(frame: xr.DataArray) -> None:
    """The cards travel in the attributes; `x` and `y` say where a cut-out lies."""
    cut = frame[7:20, 9:30]
    bare = drop_wcs(cut)
    assert "ra" not in bare.coords
    assert not has_wcs(bare)
    again = assign_wcs(bare, bare.attrs["wcs_header"])
    assert again.xindexes["ra"].equals(cut.xindexes["ra"])
    xr.testing.assert_identical(again, cut)
    assert has_wcs(frame), "nothing happened to the parent"


def test_get_wcs_is_a_copy(frame: xr.DataArray) -> None:
    wcs = get_wcs(frame)
    wcs.wcs.crval = [0, 0]
    assert get_wcs(frame[3:]).wcs.crval[0] == pytest.approx(150.3)
    with pytest.raises(MissingWCSError, match="give one with"):
        get_wcs(image(None))


# conversions


@given(st.floats(-200, 300), st.floats(-200, 300))
def test_round_trip(frame: xr.DataArray, x: float, y: float) -> None:
    """Also beyond the edges, and in absolute pixels whatever the window."""
    sky = pixel_to_sky(frame[20:30, 10:20], x, y)
    np.testing.assert_allclose(sky_to_pixel(frame, sky), (x, y), rtol=0, atol=1e-6)
    np.testing.assert_allclose(sky_to_pixel(frame, ra=sky.ra.deg, dec=sky.dec.deg), (x, y), rtol=0, atol=1e-6)


def test_shapes_and_nan(frame: xr.DataArray) -> None:
    sky = pixel_to_sky(frame, np.zeros((3, 1)), np.arange(4.0))
    assert sky.shape == (3, 4)
    assert np.isnan(pixel_to_sky(frame, np.nan, 3.0).ra.deg)
    x, y = sky_to_pixel(frame, ra=[np.nan, 150.3], dec=20.7)
    assert x.shape == y.shape == (2,)
    assert np.isnan(x[0])
    assert np.isfinite(y[1])
    assert sky_to_pixel(frame, ra=[], dec=[])[0].shape == (0,)


def test_galactic_positions(frame: xr.DataArray) -> None:
    sky = pixel_to_sky(frame, 12.0, 34.0)
    np.testing.assert_allclose(sky_to_pixel(frame, sky.galactic), (12.0, 34.0), rtol=0, atol=1e-6)


def test_outside_choices(frame: xr.DataArray) -> None:
    cut = frame[10:20, 10:20]
    sky = pixel_to_sky(cut, [15.0, 9.6, 9.4, 19.4, 19.6], 15.0)
    assert np.isfinite(sky_to_pixel(cut, sky)[0]).all()
    x, y = sky_to_pixel(cut, sky, outside="nan")
    np.testing.assert_array_equal(np.isnan(x), [False, False, True, False, True])
    np.testing.assert_array_equal(np.isnan(y), np.isnan(x))
    with pytest.raises(OutsideFrameError, match="2 of 5 sky positions fall outside"):
        sky_to_pixel(cut, sky, outside="raise")
    with pytest.raises(InputError, match="give a SkyCoord, or both ra= and dec="):
        sky_to_pixel(cut, ra=1.0)


@pytest.mark.parametrize("distance", [1, 10, 45, 80, 100, 135, 180])
def test_far_positions_never_land_on_the_image(frame: xr.DataArray, distance: float) -> None:
    """A gnomonic projection shows the opposite half of the sky as well."""
    center = SkyCoord(150.3, 20.7, unit="deg")
    angles = np.arange(0, 360, 15)
    x, y = sky_to_pixel(frame, center.directional_offset_by(angles * 1.0 * _deg(), distance * _deg()))
    with np.errstate(invalid="ignore"):
        assert not ((abs(x) < 1000) & (abs(y) < 1000)).any()
    assert (np.isnan(x) == (distance > 60)).all()


def _deg() -> Any:
    from astropy import units as u

    return u.deg


# the fast grid


@pytest.fixture
def evaluated(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many pixels each call of wcslib evaluates."""
    grid_module._grid_expansion.cache_clear()
    sizes: list[int] = []
    original = cards_module.sky_of

    def counted(cards: str, y: Any, x: Any) -> Any:
        sizes.append(np.size(y))
        return original(cards, y, x)

    for user in ("grid", "index"):
        monkeypatch.setattr(f"ztfxr.wcs.{user}.sky_of", counted)
    return sizes


@pytest.mark.parametrize("crval", [(150.3, 20.7), (0.0, 5.0), (359.999, -30.0), (10.0, 75.0)])
def test_fast_grid(wcs_header: MakeHeader, evaluated: list[int], crval: tuple[float, float]) -> None:
    """Large grids cost a few hundred evaluations, agree to 1e-8 deg, and cross RA 0 in both directions."""
    header = wcs_header(BIG, crval=crval)
    large = image(header, BIG)
    ra, dec = large["ra"].values, large["dec"].values
    assert sum(evaluated) < 1000 < large.size
    truth = exact(header, *np.mgrid[: BIG[0], : BIG[1]])
    assert np.abs((ra - truth[0] + 180) % 360 - 180).max() < 1e-8
    assert np.abs(dec - truth[1]).max() < 1e-8
    assert ra.min() >= 0
    assert ra.max() < 360
    if crval[0] in (0.0, 359.999):
        assert ra.min() < 0.1
        assert ra.max() > 359.9


@pytest.mark.parametrize("dec", [90.0, -90.0, 89.98])
def test_near_the_pole_every_pixel_is_evaluated(wcs_header: MakeHeader, evaluated: list[int], dec: float) -> None:
    header = wcs_header(BIG, crval=(30.0, dec))
    large = image(header, BIG)
    found = large["ra"].values
    assert sum(evaluated) > large.size
    np.testing.assert_array_equal(found, exact(header, *np.mgrid[: BIG[0], : BIG[1]])[0])


def test_small_grids_are_exact(frame: xr.DataArray, evaluated: list[int]) -> None:
    frame["ra"].values  # noqa: B018
    assert evaluated == [frame.size]


def test_loading_an_image_leaves_its_labels_lazy(wcs_header: MakeHeader, evaluated: list[int]) -> None:
    """Two planes of float64 that few look at would take four times the image's memory."""
    large = image(wcs_header(BIG), BIG)
    loaded = [
        large.chunk().compute(),
        large.copy().load(),
        large.to_dataset(name="sci").compute()["sci"],
        large[3:, 4:].load(),
    ]
    assert evaluated == []
    for one in loaded:
        assert has_wcs(one)
    np.testing.assert_array_equal(loaded[0]["ra"].values, large["ra"].values)
    np.testing.assert_allclose(loaded[-1]["dec"].values, large["dec"].values[3:, 4:], rtol=0, atol=1e-8)
    thinned = large[::2].load()
    assert isinstance(thinned.variable._data, np.ndarray)


def test_only_the_plane_that_is_asked_for(wcs_header: MakeHeader, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    original = GridExpansion.plane

    def counted(self: GridExpansion, which: int, y: Any, x: Any) -> Any:
        if y.size * x.size > 1e5:
            asked.append(which)
        return original(self, which, y, x)

    monkeypatch.setattr(GridExpansion, "plane", counted)
    large = image(wcs_header(BIG), BIG)
    dec, ra = large["dec"].values, large.transpose("x", "y")["ra"].values
    assert asked == [1, 0]
    assert dec.shape == BIG
    assert ra.shape == BIG[::-1]


def test_strided_large_grid(wcs_header: MakeHeader) -> None:
    shape = (900, 800)
    header = wcs_header(shape)
    part = image(header, shape)[::2, ::-2]
    truth = exact(header, *np.mgrid[0:900:2, 799:-1:-2])
    np.testing.assert_allclose(part["ra"].values, truth[0], rtol=0, atol=1e-8)
    np.testing.assert_allclose(part["dec"].values, truth[1], rtol=0, atol=1e-8)


def test_each_thread_has_its_own_wcs(frame: xr.DataArray) -> None:
    """Structures of wcslib are not shared: astropy's were not thread-safe for years."""
    barrier = threading.Barrier(4)

    def own(_: int) -> Any:
        barrier.wait()
        return cards_module.build_wcs(frame.attrs["wcs_header"])

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(own, range(4)))
    assert len({id(wcs) for wcs in found}) == 4


@pytest.mark.parametrize("shape", [SHAPE, BIG])
def test_threads(wcs_header: MakeHeader, shape: tuple[int, int]) -> None:
    """Eight threads that label and convert at once agree with one."""
    labeled = image(wcs_header(shape, crval=(77.0, 11.0)), shape)
    grid_module._grid_expansion.cache_clear()

    def work(_: int) -> tuple[Any, Any, Any]:
        fresh = pickle.loads(pickle.dumps(labeled))
        sky = pixel_to_sky(fresh, np.arange(40.0), np.arange(40.0))
        return fresh["ra"].values, fresh["dec"].values, sky_to_pixel(fresh, sky)

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(work, range(24)))
    for ra, dec, pixels in results:
        np.testing.assert_array_equal(ra, labeled["ra"].values)
        np.testing.assert_array_equal(dec, labeled["dec"].values)
        np.testing.assert_allclose(pixels, (np.arange(40.0), np.arange(40.0)), rtol=0, atol=1e-6)


def test_numpy_numbers_in_a_header_are_numbers() -> None:
    header = fits.Header()
    for key, value in (("CTYPE1", "RA---TAN"), ("CTYPE2", "DEC--TAN"), ("CRPIX1", 20), ("CRPIX2", 30.5)):
        header[key] = value
    for key, number in (("CRVAL1", 150.25), ("CRVAL2", 2.0), ("CD1_1", -3e-4), ("CD2_2", 3e-4)):
        header[key] = np.float64(number)
    cards = wcs_cards(header)
    assert cards is not None
    assert "NP" not in cards
    assert fits.Header.fromstring(cards, sep="\n")["CRVAL1"] == 150.25


@pytest.mark.parametrize("dim", ["y", "x"])
@pytest.mark.parametrize("cuts", [[20], [7, 8, 31]])
def test_neighboring_slices_join_again(dim: str, cuts: list[int]) -> None:
    whole = ztfxr.open_quadrant(ztfxr.samples.sample_path()).isel(y=slice(10, 50), x=slice(30, 70))
    edges = [0, *cuts, 40]
    parts = [whole.isel({dim: slice(a, b)}) for a, b in itertools.pairwise(edges)]
    joined = xr.concat(parts, dim=dim)
    xr.testing.assert_identical(joined.load(), whole.load())
    assert ztfxr.sky_to_pixel(joined, ra=57.9, dec=35.8)[0] == ztfxr.sky_to_pixel(whole, ra=57.9, dec=35.8)[0]
    other = "x" if dim == "y" else "y"
    for wrong in (parts[::-1], [parts[0], parts[0]], [parts[0], parts[1].isel({other: slice(1, None)})]):
        with pytest.raises((AlignmentError, xr.AlignmentError)):
            xr.concat(wrong, dim=dim, join="exact")
    with pytest.raises(AlignmentError, match=r"no neighboring slices.*drop_wcs"):
        xr.concat(parts[::-1], dim=dim)
