"""Where quadrants land on a mosaic, by their pixels and by the sky; block means against the full resolution."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import astropy.units as u
import dask
import numpy as np
import pytest
import xarray as xr
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.wcs import WCS
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import least_squares

import ztfxr
from tests.conftest import QUADRANT, WriteFrame
from ztfxr.errors import ChunkError, InputError, MissingWCSError, ShapeError
from ztfxr.ops.mosaic import CCD_GAPS, QUADRANT_SHAPE, _Layout, mosaic, rebin, sky_to_mosaic
from ztfxr.ops.stamps import stamp

SHAPE = (9, 7)
GAPS = (5, 4)

# Centers of the quadrants q1 to q4 of CCDs 1 to 16, degrees east and north of the pointing in its tangent plane: the
# medians over fields of the CRVALs in IPAC's archive, as tabulated by D. Kaplan, ztf_tiling, on 2018-08-13.
CENTERS = (
    ((3.208, -2.415), (2.341, -2.411), (2.336, -3.280), (3.204, -3.285)),
    ((1.348, -2.413), (0.482, -2.410), (0.479, -3.278), (1.345, -3.281)),
    ((-0.506, -2.406), (-1.372, -2.404), (-1.377, -3.272), (-0.511, -3.274)),
    ((-2.367, -2.403), (-3.235, -2.402), (-3.239, -3.272), (-2.372, -3.273)),
    ((3.213, -0.498), (2.346, -0.496), (2.345, -1.363), (3.212, -1.366)),
    ((1.350, -0.497), (0.485, -0.495), (0.484, -1.361), (1.349, -1.364)),
    ((-0.502, -0.488), (-1.367, -0.488), (-1.367, -1.355), (-0.502, -1.354)),
    ((-2.364, -0.486), (-3.231, -0.485), (-3.231, -1.353), (-2.364, -1.353)),
    ((3.214, 1.417), (2.347, 1.418), (2.346, 0.550), (3.213, 0.549)),
    ((1.351, 1.422), (0.486, 1.424), (0.486, 0.557), (1.351, 0.555)),
    ((-0.499, 1.428), (-1.364, 1.428), (-1.364, 0.562), (-0.499, 0.561)),
    ((-2.359, 1.430), (-3.226, 1.432), (-3.224, 0.564), (-2.358, 0.563)),
    ((3.220, 3.337), (2.352, 3.338), (2.350, 2.469), (3.217, 2.468)),
    ((1.358, 3.336), (0.492, 3.340), (0.488, 2.472), (1.354, 2.467)),
    ((-0.498, 3.344), (-1.365, 3.343), (-1.363, 2.474), (-0.497, 2.475)),
    ((-2.359, 3.345), (-3.227, 3.350), (-3.226, 2.480), (-2.359, 2.477)),
)
PLACES = [(c, q) for c in range(1, 17) for q in range(1, 5)]


def quadrant(ccdid: int, qid: int, shape: tuple[int, int] = SHAPE, seed: int | None = None) -> xr.Dataset:
    """A quadrant of noise with some masked and NaN pixels; without a seed, of its readout channel's number."""
    rcid = 4 * (ccdid - 1) + qid - 1
    pixels, flags = np.full(shape, rcid, np.float32), np.zeros(shape, np.uint16)
    if seed is not None:
        rng = np.random.default_rng(1000 * seed + rcid)
        pixels = rng.normal(200, 9, shape).astype(np.float32)
        pixels[rng.random(shape) < 0.1] = np.nan
        flags = np.where(rng.random(shape) < 0.2, 1 << 8, 1 << 1).astype(np.uint16)
    coords = {"y": np.arange(shape[0]), "x": np.arange(shape[1]), "ccdid": ccdid, "qid": qid, "filter": "ztfr"}
    return xr.Dataset({"sci": (("y", "x"), pixels, {"units": "DN"}), "flags": (("y", "x"), flags)}, coords)


def tree_of(places: list[tuple[int, int]], **options: Any) -> xr.DataTree:
    return xr.DataTree.from_dict({f"c{c:02d}/q{q}": quadrant(c, q, **options) for c, q in places})


def lazy(tree: xr.DataTree) -> xr.DataTree:
    return tree.map_over_datasets(lambda ds: ds.chunk() if "sci" in ds else ds)


# the layout


def centers(gaps: tuple[int, int]) -> np.ndarray:
    """Of all quadrants, pixels to the east and to the north of the mosaic's center."""
    layout = _Layout(QUADRANT_SHAPE, gaps, whole=True)
    corner = np.array([layout.corner(place) for place in PLACES], dtype=float)
    down_right = corner + np.array(QUADRANT_SHAPE) / 2 - np.array(layout.size) / 2
    return -down_right[:, ::-1]


def distances(gaps: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """The layout's scale (arcsec), angle (rad) and shift that fit IPAC's centers best, and what is left (pixels)."""
    found = np.deg2rad(np.array(CENTERS).reshape(64, 2))
    radius = np.hypot(*found.T)[:, None]
    sky = np.rad2deg(found * np.arctan(radius) / radius) * 3600
    east_north = centers(gaps)

    def offset(p: np.ndarray) -> np.ndarray:
        scale, angle, *shift = p
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        return ((scale * east_north @ turn.T + np.array(shift) - sky) / 1.0126).ravel()

    best = least_squares(offset, [1.0126, 0.0, 0.0, 0.0])
    return best.x, best.fun


def test_layout_is_that_of_the_focal_plane() -> None:
    (scale, angle, *_), found = distances(CCD_GAPS)
    assert scale == pytest.approx(1.0131, abs=2e-4)
    assert abs(np.rad2deg(angle)) < 0.2
    assert found.std() < 7.5
    assert abs(found).max() < 18


def test_gaps_are_those_that_fit_best() -> None:
    best = distances(CCD_GAPS)[1].std()
    for rows, columns in ((10, 0), (-10, 0), (0, 10), (0, -10), (31, 39)):
        assert distances((CCD_GAPS[0] + rows, CCD_GAPS[1] + columns))[1].std() > 1.1 * best


def test_size_with_gaps() -> None:
    assert _Layout(QUADRANT_SHAPE, CCD_GAPS, whole=True).size == (8 * 3080 + 3 * 641, 8 * 3072 + 3 * 449)
    assert _Layout(QUADRANT_SHAPE, CCD_GAPS, whole=False).size == (6160, 6144)


def test_the_real_quadrant_lies_where_its_wcs_says(quadrant_path: Path) -> None:
    """CCD 13, quadrant 3: within 0.06 degrees, of which the telescope's pointing error is most."""
    header = fits.getheader(quadrant_path)
    pointing = SkyCoord(header["TELRAD"], header["TELDECD"], unit="deg")
    sky = SkyCoord(*WCS(header).all_pix2world(1535.5, 1539.5, 0), unit="deg")
    angle, distance = pointing.position_angle(sky).rad, pointing.separation(sky).deg
    east_north = np.array([np.sin(angle), np.cos(angle)]) * distance
    expected = centers(CCD_GAPS)[PLACES.index((13, 3))] * 1.0129 / 3600
    np.testing.assert_allclose(east_north, expected, atol=0.06)
    assert header["CD1_1"] < 0
    assert header["CD2_2"] < 0


# pixels


@pytest.mark.parametrize("made", [lambda t: t, lazy])
def test_quadrants_of_a_ccd_land_unflipped(made: Callable[[xr.DataTree], xr.DataTree]) -> None:
    tree = tree_of([(13, q) for q in range(1, 5)], seed=1)
    found = mosaic(made(tree), rebin=1, mask=False, shape=SHAPE)
    (ny, nx), whole = SHAPE, np.full((18, 14), np.nan, np.float32)
    for qid, (y0, x0) in {1: (0, 0), 2: (0, nx), 3: (ny, nx), 4: (ny, 0)}.items():
        whole[y0 : y0 + ny, x0 : x0 + nx] = tree[f"c13/q{qid}"].sci.values
        np.testing.assert_equal(found.sel(y=y0 + 2, x=x0 + 5).values, tree[f"c13/q{qid}"].sci.sel(y=2, x=5).values)
    assert np.array_equal(found.values, whole, equal_nan=True)
    assert found.dtype == np.float32
    assert (found.x.values.tolist(), found.y.values.tolist()) == (list(range(14)), list(range(18)))
    assert found.attrs == {"units": "DN", "missing": ""}
    assert found.ccdid == 13
    assert "qid" not in found.coords


def test_view_with_north_up_and_east_to_the_right() -> None:
    found = mosaic(tree_of(PLACES), rebin=1, shape=SHAPE, gaps=False)
    view = found.values[:, ::-1]
    ccds = (view[:: 2 * SHAPE[0], :: 2 * SHAPE[1]] // 4 + 1).astype(int)
    assert ccds.tolist() == [[16, 15, 14, 13], [12, 11, 10, 9], [8, 7, 6, 5], [4, 3, 2, 1]]
    quadrants = (view[:: SHAPE[0], :: SHAPE[1]] % 4 + 1).astype(int)
    assert np.array_equal(quadrants, np.tile([[2, 1], [3, 4]], (4, 4)))
    assert found.shape == (8 * SHAPE[0], 8 * SHAPE[1])
    assert np.isfinite(found).all()


def test_gaps_have_no_pixels() -> None:
    tree = tree_of(PLACES)
    found = mosaic(tree, rebin=1, shape=SHAPE, gaps=GAPS)
    assert found.shape == (8 * SHAPE[0] + 3 * 5, 8 * SHAPE[1] + 3 * 4)
    rows = np.isfinite(found).any("x")
    assert np.flatnonzero(~rows).tolist() == [*range(18, 23), *range(41, 46), *range(64, 69)]
    columns = np.isfinite(found).any("y")
    assert np.flatnonzero(~columns).tolist() == [*range(14, 18), *range(32, 36), *range(50, 54)]
    full = found.where(rows, drop=True).where(columns, drop=True)
    assert np.array_equal(full.values, mosaic(tree, rebin=1, shape=SHAPE, gaps=False).values)


@settings(max_examples=25)
@given(
    st.integers(1, 9),
    st.sampled_from([True, False, GAPS, (0, 3)]),
    st.sampled_from([None, False]),
    st.booleans(),
    st.sets(st.sampled_from(PLACES[:12]), min_size=1),
    st.integers(0, 9),
)
def test_blocks_are_means_of_the_full_resolution(
    factor: int, gaps: Any, mask: Any, lazily: bool, places: set[tuple[int, int]], seed: int
) -> None:
    tree = tree_of(sorted(places), seed=seed)
    options: dict[str, Any] = {"gaps": GAPS if gaps is True else gaps, "mask": mask, "shape": SHAPE}
    full = mosaic(tree, rebin=1, **options)
    found = mosaic(lazy(tree) if lazily else tree, rebin=factor, **options)
    assert (found.chunks is not None) == lazily
    np.testing.assert_allclose(found.values, coarse(full.values, factor), rtol=1e-6)
    for dim in ("y", "x"):
        assert found[dim].values.tolist() == [factor * (i + 0.5) - 0.5 for i in range(found.sizes[dim])]


def coarse(image: np.ndarray, factor: int) -> np.ndarray:
    """Means of blocks of finite pixels, the last ones of what there is."""
    n = [-(-size // factor) for size in image.shape]
    padded = np.full([k * factor for k in n], np.nan)
    padded[: image.shape[0], : image.shape[1]] = image
    blocks = padded.reshape(n[0], factor, n[1], factor)
    count = np.isfinite(blocks).sum((1, 3))
    return np.where(count > 0, np.nansum(blocks, (1, 3)) / np.maximum(count, 1), np.nan)


def test_masked_pixels_do_not_count() -> None:
    tree = tree_of([(2, 1)], seed=1)
    one = tree["c02/q1"].to_dataset()
    bad = (one.flags.values & (1 << 8)) > 0
    assert bad.any()
    found = mosaic(tree, rebin=1, shape=SHAPE).values[:9, :7]
    assert np.array_equal(np.isnan(found), bad | np.isnan(one.sci.values))
    everything = mosaic(tree, rebin=1, mask=False, shape=SHAPE).values[:9, :7]
    assert np.array_equal(everything, one.sci.values, equal_nan=True)


def test_missing_and_unusable_quadrants_are_empty_and_named() -> None:
    tree = tree_of([(3, 1), (3, 2), (4, 1)])
    tree["c03/q3"] = xr.DataTree(xr.Dataset(attrs={"status": 4, "message": "cut off"}))
    tree["c04/q1"] = xr.DataTree(tree["c04/q1"].to_dataset().rename(sci="other"))
    found = mosaic(tree, rebin=1, shape=SHAPE)
    assert found.shape == (2 * SHAPE[0], 2 * SHAPE[1])
    assert found.attrs["missing"] == "c03/q3 c03/q4"
    assert np.isnan(found[SHAPE[0] :]).all()
    whole = mosaic(tree_of([(3, 1), (4, 1)]), rebin=4, shape=SHAPE, gaps=GAPS)
    assert len(whole.attrs["missing"].split()) == 62
    assert whole.ndim == 2
    assert "ccdid" not in whole.coords


def test_parts_of_quadrants_lie_where_their_pixels_say() -> None:
    tree = tree_of([(1, 1), (1, 3)], seed=2)
    cut = tree.map_over_datasets(lambda ds: ds.isel(y=slice(2, 6), x=slice(3, 5)) if "sci" in ds else ds)
    full, part = (mosaic(t, rebin=1, shape=SHAPE) for t in (tree, cut))
    inside = xr.zeros_like(full, dtype=bool)
    for y0, x0 in ((0, 0), (9, 7)):
        inside[y0 + 2 : y0 + 6, x0 + 3 : x0 + 5] = True
    np.testing.assert_array_equal(part, full.where(inside))


def test_other_variables_and_the_ccd_of_an_exposure() -> None:
    tree = tree_of(PLACES).map_over_datasets(lambda ds: ds.assign(background=ds.sci * 2) if "sci" in ds else ds)
    one = mosaic(tree["c07"], variable="background", rebin=1, shape=SHAPE)
    assert one.name == "background"
    assert np.unique(one).tolist() == [48.0, 50.0, 52.0, 54.0]
    xr.testing.assert_equal(one.drop_attrs(), tree["c07"].ztf.mosaic(variable="background", rebin=1, shape=SHAPE))


def test_stamps_of_a_mosaic_reach_over_quadrants() -> None:
    found = mosaic(tree_of([(5, q) for q in range(1, 5)]), rebin=1, shape=SHAPE)
    cut = stamp(found, x=SHAPE[1] - 0.5, y=SHAPE[0] - 0.5, size=2)
    assert (cut.values - 16).tolist() == [[0, 1], [3, 2]]


# laziness


def test_nothing_is_computed(raising_scheduler: Any) -> None:
    with dask.config.set(scheduler=raising_scheduler):
        found = mosaic(lazy(tree_of(PLACES, seed=0)), shape=SHAPE, rebin=2)
        sky_to_mosaic(xr.DataTree.from_dict({"q1": sky_frame(1)}), ra=POINTING.ra.deg, dec=POINTING.dec.deg)
        found.isel(x=0)
    assert found.chunks is not None


def test_a_quadrant_is_read_once_and_only_where_it_is_needed() -> None:
    calls: list[float] = []

    def count(block: np.ndarray) -> np.ndarray:
        calls.append(block[0, 0])
        return block

    def counted(ds: xr.Dataset) -> xr.Dataset:
        data = ds.sci.chunk().data.map_blocks(count, dtype="f4", meta=np.empty((0, 0), "f4"))
        return ds.assign(sci=ds.sci.copy(data=data))

    tree = tree_of([(1, q) for q in range(1, 5)]).map_over_datasets(lambda ds: counted(ds) if "sci" in ds else ds)
    mosaic(tree, rebin=4, shape=SHAPE).compute()
    assert sorted(calls) == [0, 1, 2, 3]
    calls.clear()
    assert mosaic(tree, rebin=1, shape=SHAPE).sel(x=13, y=1).compute() == 1
    assert calls == [1]


def test_threads_and_chunks_give_the_same() -> None:
    tree = tree_of(PLACES[:20], seed=3)
    eager = mosaic(tree, shape=SHAPE, gaps=GAPS, rebin=3)
    for scheduler in ("synchronous", "threads"):
        with dask.config.set(scheduler=scheduler):
            xr.testing.assert_identical(mosaic(lazy(tree), shape=SHAPE, gaps=GAPS, rebin=3).compute(), eager)
    split = tree.map_over_datasets(lambda ds: ds.chunk(y=2, x=3) if "sci" in ds else ds)
    xr.testing.assert_identical(mosaic(split, shape=SHAPE, gaps=GAPS, rebin=3).compute(), eager)


@pytest.mark.slow
def test_processes_and_distributed_give_the_same() -> None:
    from distributed import Client, LocalCluster

    tree = tree_of(PLACES[:5], seed=3)
    eager, found = mosaic(tree, shape=SHAPE, gaps=GAPS), mosaic(lazy(tree), shape=SHAPE, gaps=GAPS)
    with dask.config.set(scheduler="processes", num_workers=2):
        xr.testing.assert_identical(found.compute(), eager)
    with LocalCluster(n_workers=1, threads_per_worker=2, dashboard_address="127.0.0.1:0") as cluster, Client(cluster):
        xr.testing.assert_identical(found.compute(), eager)


def test_token_is_deterministic() -> None:
    first, second = (mosaic(lazy(tree_of(PLACES, seed=3)), shape=SHAPE) for _ in range(2))
    assert first.data.name == second.data.name


# the sky

POINTING = SkyCoord(150.3, 20.7, unit="deg")
SCALE = 1.012
SKY_SHAPE = (60, 50)
TOWARDS = {1: (1, 1), 2: (-1, 1), 3: (-1, -1), 4: (1, -1)}
"""East and north of the CCD's center, where ZTF's quadrants lie."""


def sky_header(qid: int) -> fits.Header:
    """The WCS of a quadrant of a CCD about `POINTING`; to the eye of the sky, not of the mosaic."""
    east, north = TOWARDS[qid]
    offset = [east * SKY_SHAPE[1] / 2 * SCALE, north * SKY_SHAPE[0] / 2 * SCALE] * u.arcsec
    center = POINTING.spherical_offsets_by(*offset)
    cards = {"CTYPE1": "RA---TPV", "CTYPE2": "DEC--TPV", "CUNIT1": "deg", "CUNIT2": "deg", "RADESYS": "ICRS"}
    cards |= {"CRVAL1": center.ra.deg, "CRVAL2": center.dec.deg, "PV1_1": 1.0, "PV2_1": 1.0}
    cards |= {"CRPIX1": (SKY_SHAPE[1] + 1) / 2, "CRPIX2": (SKY_SHAPE[0] + 1) / 2}
    return fits.Header(cards | {"CD1_1": -SCALE / 3600, "CD1_2": 0.0, "CD2_1": 0.0, "CD2_2": -SCALE / 3600})


def sky_frame(qid: int) -> xr.Dataset:
    return ztfxr.assign_wcs(quadrant(8, qid, shape=SKY_SHAPE), sky_header(qid))


def test_stars_at_known_places_of_the_sky(write_frame: WriteFrame) -> None:
    """Frames with a star each, written with their own WCS, opened, and put together."""
    star = {
        qid: POINTING.spherical_offsets_by(*([12.0 * e + 3.0 * qid, 20.0 * n] * u.arcsec))
        for qid, (e, n) in TOWARDS.items()
    }
    paths = []
    for qid, place in star.items():
        header, pixels = sky_header(qid), np.zeros(SKY_SHAPE, np.float32)
        x, y = WCS(header).all_world2pix(place.ra.deg, place.dec.deg, 0)
        pixels[round(float(y)), round(float(x))] = 1000.0
        name = QUADRANT.replace("c13", "c08").replace("q3", f"q{qid}")
        flags = np.zeros(SKY_SHAPE, np.int16)
        paths.append(write_frame(name=name, sci=pixels, flags=flags, wcs=header, cards={"CCDID": 8, "QID": qid}))
    tree = ztfxr.open_ccd(paths)
    found = tree.ztf.mosaic(rebin=1, shape=SKY_SHAPE).compute()
    for place in star.values():
        east, north = (float(o.arcsec) / SCALE for o in POINTING.spherical_offsets_to(place))
        expected = SKY_SHAPE[1] - 0.5 - east, SKY_SHAPE[0] - 0.5 - north
        x, y = tree.ztf.sky_to_mosaic(place, shape=SKY_SHAPE)
        np.testing.assert_allclose((x, y), expected, atol=0.02)
        assert found.sel(x=expected[0], y=expected[1], method="nearest") == 1000.0
    assert (found > 0).sum() == 4


def test_sky_positions_of_any_shape_and_in_gaps() -> None:
    frames = {f"q{q}": sky_frame(q) for q in (1, 3)}
    frames["q4"] = quadrant(8, 4, shape=SKY_SHAPE)
    tree = xr.DataTree.from_dict(frames)
    places = POINTING.spherical_offsets_by([[20, -20], [20, 900]] * u.arcsec, [[20, -20], [-20, 0]] * u.arcsec)
    x, y = sky_to_mosaic(tree, ra=places.ra.deg, dec=places.dec.deg, shape=SKY_SHAPE)
    np.testing.assert_allclose(x, [[29.74, 69.26], [np.nan, np.nan]], atol=0.02)
    np.testing.assert_allclose(y, [[39.74, 79.26], [np.nan, np.nan]], atol=0.02)
    two = xr.DataTree.from_dict({"c08/q1": frames["q1"], "c13/q3": sky_frame(3).assign_coords(ccdid=13)})
    x, y = sky_to_mosaic(two, places[0], shape=SKY_SHAPE, gaps=GAPS)
    np.testing.assert_allclose((x[0], y[0]), (3 * (100 + 4) + 29.74, 2 * (120 + 5) + 39.74), atol=0.02)
    np.testing.assert_allclose((x[1], y[1]), (69.26, 79.26), atol=0.02)
    with pytest.raises(MissingWCSError, match="no quadrant of the tree has a celestial WCS"):
        sky_to_mosaic(tree_of([(1, 1)]), ra=1.0, dec=1.0, shape=SHAPE)
    with pytest.raises(InputError, match="give a SkyCoord"):
        sky_to_mosaic(tree, ra=1.0, shape=SKY_SHAPE)


# larger pixels


@pytest.mark.parametrize("factor", [1, 2, 5, 20])
def test_rebin_of_an_image_and_of_a_stack(factor: int) -> None:
    one = quadrant(1, 1, seed=4)
    bad = ztfxr.mask(one)
    good = one.sci.where(~bad)
    found = rebin(one, factor)
    np.testing.assert_allclose(found.values, coarse(good.values, factor), rtol=1e-6)
    assert (found.dims, found.dtype, found.attrs, found.name) == (("y", "x"), np.float32, {"units": "DN"}, "sci")
    stack = xr.concat([one, one * 2], "time").drop_attrs()
    both = rebin(stack.sci.transpose("x", "time", "y").chunk(time=1), factor, mask=bad)
    assert both.chunks is not None
    np.testing.assert_allclose(both.transpose("time", "y", "x"), [found, found * 2], rtol=1e-6)
    assert both.dims == ("x", "time", "y")


def test_rebin_labels_are_centers_in_the_pixels_of_the_image() -> None:
    one = quadrant(1, 1).isel(y=slice(2, None), x=slice(3, None))
    found = rebin(one, 3)
    assert found.y.values.tolist() == [3.0, 6.0, 9.0]
    assert found.x.values.tolist() == [4.0, 7.0]
    assert rebin(one, 1).x.dtype == one.x.dtype
    xr.testing.assert_allclose(rebin(rebin(quadrant(1, 1), 2), 2), rebin(quadrant(1, 1), 4))
    assert rebin(xr.DataArray(np.eye(4), dims=("y", "x")), 2).x.values.tolist() == [0.5, 2.5]


def test_rebin_leaves_the_wcs_and_the_image_alone() -> None:
    one = sky_frame(1).assign_coords(time=np.datetime64("2020-01-01", "ns"))
    before = one.copy(deep=True)
    found = rebin(one, 4)
    assert not {"ra", "dec"} & set(found.coords)
    assert found.time == one.time
    xr.testing.assert_identical(one, before)
    with pytest.raises(ChunkError):
        rebin(one.chunk(y=10), 4)


# what cannot be


def test_unusable_trees_and_options() -> None:
    tree = tree_of([(1, 1), (1, 2)])
    for factor in (0, 2.0, True):
        with pytest.raises(InputError, match="binned by a whole number"):
            mosaic(tree, rebin=factor, shape=SHAPE)
    with pytest.raises(InputError, match="no quadrant with variance in the tree"):
        mosaic(tree, variable="variance", shape=SHAPE)
    for gaps in ((1, 2, 3), (-1, 0)):
        with pytest.raises(InputError, match="gaps is True, False, or"):
            mosaic(tree, gaps=gaps, shape=SHAPE)
    with pytest.raises(ShapeError, match=r"CCD 1 quadrant 1 ends at \(9, 7\) \(y, x\), a whole quadrant at \(9, 6\)"):
        mosaic(tree, shape=(9, 6))
    with pytest.raises(InputError, match="two frames of CCD 1 quadrant 2"):
        mosaic(twice(tree), shape=SHAPE)
    with pytest.raises(InputError, match="no coordinates 'ccdid' and 'qid'"):
        mosaic(xr.DataTree.from_dict({"a": quadrant(1, 1).drop_vars("qid")}), shape=SHAPE)
    with pytest.raises(InputError, match="CCD 1, quadrant 0; CCDs are 1 to 16"):
        mosaic(xr.DataTree.from_dict({"a": quadrant(1, 1).assign_coords(qid=0)}), shape=SHAPE)
    with pytest.raises(InputError, match="a mosaic is of single images"):
        mosaic(xr.DataTree.from_dict({"a": quadrant(1, 1).expand_dims(time=2)}), shape=SHAPE)


def twice(tree: xr.DataTree) -> xr.DataTree:
    return xr.DataTree.from_dict({"a": tree["c01/q2"].to_dataset(), "b": tree["c01/q2"].to_dataset()})
