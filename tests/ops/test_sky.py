"""Where an image lies on the sky, against astropy's own WCS, and MOCs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.table import Table
from astropy.wcs import WCS
from astropy.wcs.utils import proj_plane_pixel_scales
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import MakeHeader
from ztfxr.errors import HeaderError, InputError, MissingDependencyError, MissingWCSError
from ztfxr.io.frames import open_epochs, open_quadrant
from ztfxr.ops.sky import (
    center,
    contains,
    corners,
    footprint,
    pixel_scale,
    pixel_to_tangent,
    pointing,
    sky_to_tangent,
    tangent_to_pixel,
    tangent_to_sky,
)
from ztfxr.ops.stacks.stack import stack
from ztfxr.ops.stamps import stamp
from ztfxr.wcs import assign_wcs, drop_wcs, pixel_to_sky

SHAPE = (60, 50)
CARDS = {"RA": "+10:01:12.0", "DEC": "+20:42:00"}
POINTING = (150.3, 20.7)


def image(header: fits.Header, shape: tuple[int, int] = SHAPE) -> xr.DataArray:
    coords = {d: np.arange(n) for d, n in zip(("y", "x"), shape, strict=True)}
    return assign_wcs(xr.DataArray(np.zeros(shape), coords, ("y", "x"), "sci"), header)


@pytest.fixture(scope="module")
def header(wcs_header: MakeHeader) -> fits.Header:
    header = wcs_header(SHAPE, crval=(151.0, 21.0))
    header.update(CARDS)
    return header


@pytest.fixture(scope="module")
def frame(header: fits.Header) -> xr.DataArray:
    return image(header)


@pytest.fixture(scope="module")
def quadrant(quadrant_path: Path) -> xr.Dataset:
    return open_quadrant(quadrant_path)


# pointing and tangent plane


@pytest.mark.parametrize(
    ("ra", "dec"),
    [
        ("+10:01:12.0", "+20:42:00"),
        ("10 01 12", "20 42 00"),
        ("10h01m12s", "+20d42m"),
        (150.3, 20.7),
        ("150.3", "20.7"),
        ("+150.3", "+20.7"),
    ],
)
def test_pointing_in_any_form(header: fits.Header, ra: Any, dec: Any) -> None:
    """Right ascension is in hours where it is sexagesimal, else in degrees."""
    other = header.copy()
    other["RA"], other["DEC"] = ra, dec
    found = pointing(image(other))
    np.testing.assert_allclose((found.ra.deg, found.dec.deg), POINTING, rtol=0, atol=1e-12)


@pytest.mark.parametrize("cards", [{}, {"RA": 150.3}, {"RA": "", "DEC": ""}, {"RA": "UNKNOWN", "DEC": "UNKNOWN"}])
def test_no_pointing(wcs_header: MakeHeader, cards: dict[str, Any]) -> None:
    header = wcs_header(SHAPE)
    header.update(cards)
    with pytest.raises(HeaderError, match=r"names no pointing \(RA=.*give center="):
        pixel_to_tangent(image(header), 3, 4)
    assert np.isfinite(pixel_to_tangent(image(header), 3, 4, center=(150.3, 20.7))).all()


def test_real_pointing_survives(quadrant: xr.Dataset) -> None:
    """In an array of the Dataset, a cut-out and a stack."""
    expected = SkyCoord("03h40m14.59s", "+33d21m00s")
    cut = stamp(quadrant, x=10, y=10, size=5)
    stacked = stack(xr.DataTree.from_dict({"a": cut, "b": cut}))
    for obj in (quadrant, quadrant["sci"], quadrant["sci"][100:, 7:30], cut, stacked, stacked["sci"]):
        assert pointing(obj).separation(expected).arcsec < 1e-6
    u0, v0 = pixel_to_tangent(quadrant["sci"], 10, 10)
    np.testing.assert_array_equal(pixel_to_tangent(cut, 10, 10), (u0, v0))
    assert 10_000 < u0 < 10_300, "this quadrant lies 2.8 degrees east of the pointing"


def tan(center: tuple[float, float]) -> WCS:
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval, wcs.wcs.crpix, wcs.wcs.cdelt = center, [1.0, 1.0], [1 / 3600, 1 / 3600]
    return wcs


@given(st.floats(-100, 200), st.floats(-100, 200))
def test_tangent_plane_is_tan(frame: xr.DataArray, x: float, y: float) -> None:
    """To 1e-7 arcsec, and back to the pixel."""
    sky = pixel_to_sky(frame, x, y)
    expected = tan(POINTING).wcs_world2pix(sky.ra.deg, sky.dec.deg, 0)
    found = pixel_to_tangent(frame, x, y)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-7)
    np.testing.assert_array_equal(sky_to_tangent(frame, sky), found)
    np.testing.assert_array_equal(sky_to_tangent(frame, ra=sky.ra.deg, dec=sky.dec.deg), found)
    np.testing.assert_array_equal(sky_to_tangent(frame, sky.galactic), sky_to_tangent(frame, sky.galactic.icrs))
    assert tangent_to_sky(frame, *found).separation(sky).arcsec < 1e-7
    np.testing.assert_allclose(tangent_to_pixel(frame, *found), (x, y), rtol=0, atol=1e-6)


def test_another_center(frame: xr.DataArray) -> None:
    sky = pixel_to_sky(frame, [3.0, 40.0], [5.0, 50.0])
    middle = center(frame)
    for place in (middle, (float(middle.ra.deg), float(middle.dec.deg)), middle.galactic):
        found = pixel_to_tangent(frame, [3.0, 40.0], [5.0, 50.0], center=place)
        truth = middle.spherical_offsets_to(sky)
        np.testing.assert_allclose(found, [t.arcsec for t in truth], rtol=0, atol=1e-3)
        back = tangent_to_pixel(frame, *found, center=place)
        np.testing.assert_allclose(back, ([3.0, 40.0], [5.0, 50.0]), rtol=0, atol=1e-6)
    assert np.abs(pixel_to_tangent(frame, 24.5, 29.5, center=center(frame))).max() < 1e-9


def test_tangent_shapes_and_nan(frame: xr.DataArray) -> None:
    u0, v0 = sky_to_tangent(frame, ra=[[150.3, np.nan]], dec=[[20.7, 20.0]])
    assert u0.shape == v0.shape == (1, 2)
    assert np.isnan(u0).tolist() == np.isnan(v0).tolist() == [[False, True]]
    assert np.isnan(sky_to_tangent(frame, ra=330.3, dec=-20.7)).all()
    assert sky_to_tangent(frame, ra=[], dec=[])[0].shape == (0,)


@pytest.mark.parametrize(
    "center", [(150.3, 91.0), (np.nan, 3.0), ([1.0, 2.0], [3.0, 4.0]), SkyCoord([1, 2], 3, unit="deg")]
)
def test_wrong_center(frame: xr.DataArray, center: Any) -> None:
    with pytest.raises(InputError, match="center is one SkyCoord, or"):
        pixel_to_tangent(frame, 3, 4, center=center)


def test_half_a_position(frame: xr.DataArray) -> None:
    with pytest.raises(InputError, match="give a SkyCoord, or both ra= and dec="):
        sky_to_tangent(frame, ra=150.3)


# center, corners, scale


def test_corners_are_those_of_astropy(quadrant: xr.Dataset) -> None:
    header = fits.Header.fromstring(quadrant.attrs["header"], sep="\n")
    wcs = WCS(header)
    for outer in (True, False):
        truth = wcs.calc_footprint(center=not outer)[[0, 3, 2, 1]]
        found = corners(quadrant, outer=outer)
        np.testing.assert_allclose(np.column_stack([found.ra.deg, found.dec.deg]), truth, rtol=0, atol=1e-11)
    assert center(quadrant).separation(SkyCoord(*wcs.all_pix2world(1535.5, 1539.5, 0), unit="deg")).arcsec < 1e-7


def test_corners_of_a_cut_out(frame: xr.DataArray) -> None:
    cut = frame[10:30, 5:20]
    truth = pixel_to_sky(frame, [4.5, 19.5, 19.5, 4.5], [9.5, 9.5, 29.5, 29.5])
    assert corners(cut).separation(truth).arcsec.max() == 0.0
    assert center(cut).separation(pixel_to_sky(frame, 12.0, 19.5)).arcsec == 0.0


def test_real_pixel_scale(quadrant: xr.Dataset) -> None:
    """The header says 1.012; so does the sky, to a part in a thousand, all over the quadrant."""
    y, x = np.mgrid[0:3080:308, 0:3072:307]
    scale = pixel_scale(quadrant, x, y)
    assert scale.y.shape == scale.x.shape == y.shape
    for along in scale:
        np.testing.assert_allclose(along, 1.012, rtol=3e-3)
    middle = pixel_scale(quadrant)
    assert middle.y.shape == middle.x.shape == ()
    np.testing.assert_array_equal(middle, pixel_scale(quadrant, 1535.5, 1539.5))


def test_pixel_scale_by_axis(wcs_header: MakeHeader) -> None:
    header = wcs_header(SHAPE, ctype="TAN")
    for key in [k for k in header if k.startswith("PV")]:
        del header[key]
    header["CD1_1"], header["CD2_2"], header["CD1_2"], header["CD2_1"] = -2e-4, 3e-4, 0.0, 0.0
    found = pixel_scale(image(header))
    np.testing.assert_allclose((found.x, found.y), proj_plane_pixel_scales(WCS(header)) * 3600, rtol=1e-8)
    np.testing.assert_allclose(found, (1.08, 0.72), rtol=1e-8)
    with pytest.raises(InputError, match="both x= and y="):
        pixel_scale(image(header), x=3)


# footprint


def signed_area(polygon: SkyCoord) -> float:
    """Square degrees, positive where the vertices run counter-clockwise with north up and east left."""
    east, north = tan((float(polygon.ra.deg[0]), float(polygon.dec.deg[0]))).wcs_world2pix(polygon.ra, polygon.dec, 0)
    return float(np.sum(np.roll(east, -1) * north - east * np.roll(north, -1)) / 2 / 3600**2)


@pytest.mark.parametrize("flip", [(1, 1), (-1, 1), (1, -1), (-1, -1)])
@pytest.mark.parametrize("per_side", [1, 5])
def test_polygon_runs_counter_clockwise(wcs_header: MakeHeader, flip: tuple[int, int], per_side: int) -> None:
    """Whatever the parity of the detector."""
    header = wcs_header(SHAPE)
    for row in (1, 2):
        for column in (1, 2):
            header[f"CD{row}_{column}"] *= flip[column - 1]
    one = image(header)
    polygon = footprint(one, per_side=per_side)
    assert polygon.shape == (4 * per_side,)
    scale = pixel_scale(one)
    np.testing.assert_allclose(signed_area(polygon), SHAPE[0] * SHAPE[1] * scale.x * scale.y / 3600**2, rtol=1e-3)
    assert {round(a, 9) for a in corners(one).ra.deg} <= {round(a, 9) for a in polygon.ra.deg}


@pytest.mark.parametrize(("per_side", "limit"), [(1, 0.18), (8, 0.006)])
def test_how_straight_the_edges_are(quadrant: xr.Dataset, per_side: int, limit: float) -> None:
    """The true edge of a real quadrant strays from the great circles of the polygon by what the docstring says."""
    dense, coarse = (footprint(quadrant, per_side=n).cartesian.xyz.value.T for n in (64, per_side))
    step = 64 // per_side
    dense = np.roll(dense, -int(np.argmin(np.linalg.norm(dense - coarse[0], axis=1))), axis=0)
    stray = 0.0
    for i, (a, b) in enumerate(zip(coarse, np.roll(coarse, -1, axis=0), strict=True)):
        normal = np.cross(a, b) / np.linalg.norm(np.cross(a, b))
        stray = max(stray, float(np.abs(dense[i * step : (i + 1) * step] @ normal).max()))
    assert limit / 2 < np.rad2deg(stray) * 3600 < limit


def test_stcs(frame: xr.DataArray) -> None:
    text = footprint(frame, "stcs", per_side=2)
    words = text.split()
    assert words[:2] == ["Polygon", "ICRS"]
    values = np.array(words[2:], dtype=float).reshape(-1, 2)
    polygon = footprint(frame, per_side=2)
    np.testing.assert_allclose(values, np.column_stack([polygon.ra.deg, polygon.dec.deg]), rtol=0, atol=5e-8)


@pytest.mark.parametrize("crval", [(150.3, 20.7), (0.0, 5.0), (30.0, 90.0), (200.0, -89.999)])
def test_moc(wcs_header: MakeHeader, crval: tuple[float, float]) -> None:
    """Every pixel lies in it; what is some cells beyond the edge does not; its area is that of the pixels."""
    pytest.importorskip("mocpy")
    one = image(wcs_header((300, 200), crval=crval), (300, 200))
    moc = footprint(one, "moc", max_depth=16)
    y, x = (g.ravel() for g in np.mgrid[0:300:7, 0:200:7])
    assert moc.contains_skycoords(pixel_to_sky(one, x, y)).all()
    off = (np.array([-12.0, 211.0, 100.0, 100.0]), np.array([150.0, 150.0, -12.0, 311.0]))
    assert not moc.contains_skycoords(pixel_to_sky(one, *off)).any()
    scale = pixel_scale(one)
    area = 300 * 200 * float(scale.x * scale.y) / 3600**2
    assert 1.0 <= moc.sky_fraction * 41252.96125 / area < 1.05


def test_moc_of_the_real_quadrant(quadrant: xr.Dataset) -> None:
    pytest.importorskip("mocpy")
    moc = footprint(quadrant, "moc")
    assert moc.max_order == 15
    cut = footprint(stamp(quadrant, x=50, y=50, size=63), "moc")
    assert moc.intersection(cut) == cut
    other = footprint(quadrant["sci"][2000:, :], "moc")
    assert other.difference(moc).sky_fraction < 1e-3 * moc.sky_fraction
    np.testing.assert_allclose(other.sky_fraction / moc.sky_fraction, 1080 / 3080, rtol=0.02)
    assert cut.intersection(other).empty()


def test_moc_without_mocpy(frame: xr.DataArray, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mocpy", None)
    with pytest.raises(MissingDependencyError, match=r'mocpy is not installed.*pip install "ztfxr\[moc\]"'):
        footprint(frame, "moc")


def test_wrong_footprint(frame: xr.DataArray) -> None:
    with pytest.raises(InputError, match="kind is 'polygon', 'stcs' or 'moc'; got 'circle'"):
        footprint(frame, "circle")  # type: ignore[call-overload]
    with pytest.raises(InputError, match="per_side is at least 1; got 0"):
        footprint(frame, per_side=0)


# contains


@given(st.lists(st.tuples(st.floats(-20, 80), st.floats(-20, 80)), min_size=1, max_size=8), st.floats(-5, 20))
def test_contains(frame: xr.DataArray, where: list[tuple[float, float]], margin: float) -> None:
    cut = frame[10:50, 5:45]
    x, y = np.array(where).T
    found = contains(cut, where)
    expected = (x >= 4.5) & (x < 44.5) & (y >= 9.5) & (y < 49.5)
    assert found.dims == ("source",)
    assert found.dtype == bool
    np.testing.assert_array_equal(found.values, expected)
    edge = np.minimum.reduce([np.abs(x - 4.5), np.abs(x - 44.5), np.abs(y - 9.5), np.abs(y - 49.5)]) > 1e-5
    sky = contains(cut, pixel_to_sky(frame, x, y))
    np.testing.assert_array_equal(sky.values[edge], expected[edge])
    narrow = (x - 4.5 >= margin) & (44.5 - x > margin) & (y - 9.5 >= margin) & (49.5 - y > margin)
    far = np.abs(np.minimum.reduce([x - 4.5, 44.5 - x, y - 9.5, 49.5 - y]) - margin) > 1e-9
    np.testing.assert_array_equal(contains(cut, where, margin=margin).values[far], narrow[far])


def test_contains_cuts_catalogs(frame: xr.DataArray) -> None:
    sky = pixel_to_sky(frame, [3.0, 70.0, np.nan, 49.4], [3.0, 3.0, 3.0, 59.4])
    table = Table({"ra": sky.ra.deg, "dec": sky.dec.deg, "name": list("abcd")})
    inside = contains(frame, table)
    assert inside.values.tolist() == [True, False, False, True]
    assert list(table[inside.values]["name"]) == ["a", "d"]
    dataset = xr.Dataset(
        {"flux": ("source", [1.0, 2.0, 3.0, 4.0])}, {"ra": ("source", sky.ra.deg), "dec": ("source", sky.dec.deg)}
    )
    assert dataset.isel(source=contains(frame, dataset).values)["flux"].values.tolist() == [1.0, 4.0]
    assert inside["source_id"].values.tolist() == list("abcd")
    bare = xr.DataArray(np.zeros(SHAPE), dims=("y", "x"))
    assert contains(bare, [(0, 0), (50, 0)]).values.tolist() == [True, False]


# what is missing


def test_without_a_wcs(frame: xr.DataArray) -> None:
    bare: Any = drop_wcs(frame)
    for function in (pointing, center, corners, pixel_scale, footprint):
        with pytest.raises(MissingWCSError, match="give one with"):
            function(bare)
    for function in (pixel_to_tangent, tangent_to_pixel):
        with pytest.raises(MissingWCSError, match="give one with"):
            function(bare, 1.0, 2.0)
    with pytest.raises(MissingWCSError, match="give one with"):
        contains(bare, pixel_to_sky(frame, 3, 4))


def test_empty_image(frame: xr.DataArray) -> None:
    for function in (center, corners, pixel_scale, footprint):
        with pytest.raises(InputError, match=r"the image is empty: it has \(0, 50\) pixels"):
            function(frame[:0])


def test_epochs(quadrant_path: Path, raising_scheduler: Any) -> None:
    """All of it from headers alone."""
    node = next(iter(open_epochs([quadrant_path]).children.values())).to_dataset()
    assert abs((center(node).ra - 58 * u.deg).value) < 0.1
    assert contains(node, [(0, 0)]).values.all()
    assert footprint(node).shape == corners(node).shape == (4,)
