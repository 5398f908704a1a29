"""Catalogs beside an image: matching, isolation, footprint, the tree, and VizieR without a network."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.io.votable import from_table
from astropy.table import MaskedColumn, Table
from hypothesis import given
from hypothesis import strategies as st

import ztfxr
from tests.conftest import MakeHeader, WriteFrame
from ztfxr.errors import CatalogError, InputError, MissingDependencyError, MissingWCSError
from ztfxr.ops.catalogs import match as module


@pytest.fixture(scope="module")
def frame(write_frame_in: WriteFrame, tmp_path_factory: pytest.TempPathFactory) -> xr.Dataset:
    return ztfxr.open_quadrant(write_frame_in(tmp_path_factory.mktemp("frame")))


@pytest.fixture(scope="module")
def sources(frame: xr.Dataset) -> xr.Dataset:
    """Five sources on the frame, in the form that detection gives them."""
    x, y = np.array([5.0, 30.0, 12.5, 20.0, 8.0]), np.array([7.0, 40.0, 22.25, 3.0, 44.0])
    sky = ztfxr.pixel_to_sky(frame, x, y)
    columns = {"x_centroid": x, "y_centroid": y, "mag": np.arange(5) + 18.0, "flux": np.arange(5) * 10.0}
    out = xr.Dataset({k: ("source", v) for k, v in columns.items()})
    out["mag"].attrs = {"units": "mag", "long_name": "magnitude"}
    return out.assign_coords(ra=("source", sky.ra.deg), dec=("source", sky.dec.deg))


@pytest.fixture(scope="module")
def ps1(sources: xr.Dataset) -> pd.DataFrame:
    """Three of them in another order with 0.1 arcsec of offset, one elsewhere on the frame, one far away."""
    order = [3, 0, 2]
    ra, dec = sources["ra"].values[order], sources["dec"].values[order] + 0.1 / 3600
    middle = (float(sources["ra"].mean()), float(sources["dec"].mean()) + 10 / 3600)
    return pd.DataFrame(
        {
            "ra": [*ra, middle[0], 10.0],
            "dec": [*dec, middle[1], -10.0],
            "mag": [21.1, 18.1, 20.1, 15.0, 14.0],
            "name": list("abcde"),
        }
    )


# ---- matching


def test_matched_entries_side_by_side(sources: xr.Dataset, ps1: pd.DataFrame) -> None:
    out = ztfxr.match(
        sources, ps1, radius=1 * u.arcsec, names=("sources", "ps1"), columns=["ra", "dec", "x", "mag", "name"]
    )
    assert list(out.data_vars) == [
        "sources_index", "ps1_index", "angsep_arcsec", "sources_ra", "ps1_ra", "sources_dec", "ps1_dec", "sources_x",
        "sources_mag", "ps1_mag", "ps1_name",
    ]  # fmt: skip
    assert out["sources_index"].values.tolist() == [0, 2, 3]
    assert out["ps1_index"].values.tolist() == [1, 2, 0]
    np.testing.assert_allclose(out["angsep_arcsec"], 0.1, atol=1e-6)
    np.testing.assert_array_equal(out["sources_x"], sources["x_centroid"][[0, 2, 3]])
    np.testing.assert_array_equal(out["ps1_mag"], ps1["mag"].to_numpy()[[1, 2, 0]])
    assert out["ps1_name"].values.tolist() == ["b", "c", "a"]
    assert out["sources_mag"].attrs == {"units": "mag", "long_name": "magnitude"}
    assert out["angsep_arcsec"].attrs["units"] == "arcsec"
    assert out.attrs == {"radius_arcsec": 1.0, "mode": "unique"}


def test_by_default_every_column_and_the_sides_names(sources: xr.Dataset, ps1: pd.DataFrame) -> None:
    out = sources.ztf.match(ps1, radius=1.0)
    assert {"left_flux", "right_name", "left_ra", "right_ra", "left_index"} <= set(out)
    assert "right_flux" not in out


def test_the_sides_can_be_swapped(sources: xr.Dataset, ps1: pd.DataFrame) -> None:
    there, back = ztfxr.match(sources, ps1, radius=1.0), ztfxr.match(ps1, sources, radius=1.0)
    pairs = {(int(i), int(j)) for i, j in zip(there["left_index"], there["right_index"], strict=True)}
    assert pairs == {(int(j), int(i)) for i, j in zip(back["left_index"], back["right_index"], strict=True)}


def test_modes() -> None:
    """One left source with two right ones near, another left source nearer to one of these."""
    left = {"ra": [10.0, 10.0], "dec": [0.0, 1.5 / 3600]}
    right = {"ra": [10.0, 10.0], "dec": [-1.0 / 3600, 1.0 / 3600]}
    pairs = {}
    for mode in ("unique", "nearest", "all"):
        out = ztfxr.match(left, right, radius=1.0, mode=mode)  # type: ignore[arg-type]
        pairs[mode] = list(zip(out["left_index"].values.tolist(), out["right_index"].values.tolist(), strict=True))
    assert pairs == {"unique": [(0, 0), (1, 1)], "nearest": [(0, 0), (1, 1)], "all": [(0, 0), (0, 1), (1, 1)]}


@given(
    st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), max_size=8),
    st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), max_size=8),
    st.sampled_from(["unique", "nearest", "all"]),
)
def test_match_is_that_of_brute_force(left: Any, right: Any, mode: Any) -> None:
    """Around RA 0: sources on a grid of arcseconds, ties and duplicates among them."""
    sides = [np.array(p, dtype=float).reshape(-1, 2) / 3600.0 for p in (left, right)]
    a, b = ({"ra": p[:, 0] % 360.0, "dec": p[:, 1]} for p in sides)
    out = ztfxr.match(a, b, radius=1.5, mode=mode)
    table = [
        (round(3600.0 * float(np.hypot(*(p - q))), 6), i, j)
        for i, p in enumerate(sides[0])
        for j, q in enumerate(sides[1])
        if np.hypot(*(p - q)) * 3600.0 <= 1.5
    ]
    expected: list[tuple[int, int]] = []
    for _, i, j in sorted(table):
        free = all(i != m and j != n for m, n in expected)
        if mode == "all" or (mode == "unique" and free) or (mode == "nearest" and i not in dict(expected)):
            expected.append((i, j))
    found = list(zip(out["left_index"].values.tolist(), out["right_index"].values.tolist(), strict=True))
    assert sorted(found) == sorted(expected)
    alone = ztfxr.unmatched(a, b, radius=1.5, mode=mode)
    assert set(np.flatnonzero(alone)) == set(range(len(left))) - {i for i, _ in expected}


def test_columns_stay_lazy(sources: xr.Dataset, ps1: pd.DataFrame, raising_scheduler: Any) -> None:
    out = ztfxr.match(sources.assign(lazy=("source", da.arange(5))), ps1, radius=1.0, columns=["lazy", "mag"])
    assert out["left_lazy"].chunks is not None
    assert out["left_lazy"].sizes == {"match": 3}


def test_a_column_over_time_is_refused_unless_left_out(sources: xr.Dataset, ps1: pd.DataFrame) -> None:
    curve = sources.assign(curve=(("time", "source"), np.zeros((4, 5))))
    assert "left_curve" not in ztfxr.match(curve, ps1, radius=1.0)
    with pytest.raises(InputError, match=r"curve has dimensions .*select one epoch first"):
        ztfxr.match(curve, ps1, radius=1.0, columns=["curve"])


def test_empty_catalogs_match_nothing(sources: xr.Dataset) -> None:
    out = ztfxr.match(sources, sources.isel(source=[]), radius=1.0)
    assert out.sizes == {"match": 0}
    assert out["left_mag"].dtype == sources["mag"].dtype
    assert ztfxr.unmatched(sources, sources.isel(source=[]), radius=1.0).all()
    assert ztfxr.isolated(sources.isel(source=[]), 1.0).sizes == {"source": 0}


def test_the_real_quadrant_matches_its_own_distorted_copy(quadrant_path: Path) -> None:
    """A thousand positions to the sky and back through the TPV solution: every one finds itself."""
    image = ztfxr.open_quadrant(quadrant_path)
    rng = np.random.default_rng(2)
    x, y = rng.uniform(0, 3071, 1000), rng.uniform(0, 3079, 1000)
    sky = ztfxr.pixel_to_sky(image, x, y)
    scattered = SkyCoord(sky.ra, sky.dec + rng.normal(0, 0.1, 1000) * u.arcsec)
    tree = ztfxr.with_catalogs(image, sources={"x": x, "y": y}, gaia=scattered)
    out = tree.ztf.match("sources", "gaia", radius=1.0, columns=["x", "y"])
    assert out.sizes["match"] > 990
    np.testing.assert_array_equal(out["sources_index"], out["gaia_index"])
    np.testing.assert_allclose(out["sources_x"], out["gaia_x"], atol=0.5)
    np.testing.assert_allclose(out["angsep_arcsec"], sky[out["sources_index"].values].separation(
        scattered[out["gaia_index"].values]).arcsec, atol=2e-6)  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"radius": -1.0}, "radius must be at least 0 arcsec; got -1.0"),
        ({"radius": np.nan}, "radius must be at least 0"),
        ({"radius": 1 * u.pix}, "radius is an angle, or a number of arcsec"),
        ({"radius": "5"}, "radius is an angle, or a number of arcsec; got '5'"),
        ({"radius": "wide"}, "radius is an angle"),
        ({"radius": 1.0, "mode": "best"}, "mode is 'unique', 'nearest' or 'all'; got 'best'"),
        ({"radius": 1.0, "names": ("a", "a")}, "both catalogs are named 'a'"),
        ({"radius": 1.0, "columns": ["mag", "color"]}, "no catalog has a column color; there are ra, dec, "),
    ],
)
def test_arguments_that_make_no_sense(
    sources: xr.Dataset, ps1: pd.DataFrame, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        ztfxr.match(sources, ps1, **arguments)


def test_catalogs_that_cannot_be_matched(sources: xr.Dataset) -> None:
    with pytest.raises(InputError, match="two catalogs are matched; got 1"):
        ztfxr.match(sources, radius=1.0)
    with pytest.raises(InputError, match="'ps1' names a catalog of a tree, but got no tree"):
        ztfxr.match(sources, "ps1", radius=1.0)
    with pytest.raises(InputError, match="right has no sky positions: columns ra and dec are needed, it has flux"):
        ztfxr.match(sources, {"flux": [1.0]}, radius=1.0)
    epochs = sources.assign_coords({n: (("time", "source"), sources[n].values[None]) for n in ("ra", "dec")})
    with pytest.raises(InputError, match=r"left has positions on \('time', 'source'\); select one epoch first"):
        ztfxr.match(epochs, sources, radius=1.0)
    with pytest.raises(InputError, match="right has declinations beyond 90 degrees; are ra and dec swapped"):
        ztfxr.match(sources, {"ra": [10.0], "dec": [150.0]}, radius=1.0)


def test_a_radius_that_pairs_everything_is_refused(sources: xr.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ztfxr.arrays.geometry.skymatch.MAX_PAIRS", 24)
    with pytest.raises(InputError, match=r"makes 25 pairs.*give a smaller one"):
        ztfxr.match(sources, sources, radius=1 * u.deg, mode="all")


# ---- isolated


def test_isolated_sources() -> None:
    ra = np.array([10.0, 10.0 + 5 / 3600, 10.01, np.nan, 10.02])
    catalog = {"ra": ra, "dec": np.zeros(5)}
    assert ztfxr.isolated(catalog, 5.0).values.tolist() == [False, False, True, False, True]
    assert ztfxr.isolated(catalog, 4.9 * u.arcsec).values.tolist() == [True, True, True, False, True]
    assert not ztfxr.isolated({"ra": [1.0, 1.0], "dec": [2.0, 2.0]}, 0.0).any()


def test_isolated_from_another_catalog() -> None:
    catalog = {"ra": [10.0, 11.0, 12.0], "dec": [0.0, 0.0, 0.0]}
    others = {"ra": [10.0 + 0.1 / 3600, 11.0, 11.0 + 3 / 3600, 13.0], "dec": np.zeros(4)}
    assert ztfxr.isolated(catalog, 5.0, others=others).values.tolist() == [False, False, True]
    assert ztfxr.isolated(catalog, 5.0, others=others, counterpart=0.5).values.tolist() == [True, False, True]
    with pytest.raises(InputError, match="give others= too"):
        ztfxr.isolated(catalog, 5.0, counterpart=0.5)


def test_booleans_select(sources: xr.Dataset, ps1: pd.DataFrame) -> None:
    alone = sources.isel(source=sources.ztf.unmatched(ps1, radius=1.0))
    np.testing.assert_array_equal(alone["mag"], sources["mag"][[1, 4]])
    assert sources.isel(source=sources.ztf.isolated(1.0)).sizes["source"] == 5


# ---- footprint


def test_footprint_cut_adds_pixels(frame: xr.Dataset, ps1: pd.DataFrame, sources: xr.Dataset) -> None:
    out = ztfxr.in_footprint(ps1, frame)
    assert out["name"].values.tolist() == ["a", "b", "c", "d"]
    x, y = ztfxr.sky_to_pixel(frame, ra=out["ra"].values, dec=out["dec"].values)
    np.testing.assert_allclose(out["x_centroid"], x)
    np.testing.assert_allclose(out["y_centroid"], y)
    assert out["x_centroid"].attrs["units"] == "pixel"
    kept = sources.ztf.in_footprint(frame)
    np.testing.assert_array_equal(kept["x_centroid"], sources["x_centroid"])


def test_footprint_of_a_stamp_is_its_window(frame: xr.Dataset, sources: xr.Dataset) -> None:
    stamp = frame.isel(y=slice(20, 45), x=slice(10, 35))
    x, y = sources["x_centroid"], sources["y_centroid"]
    for image in (stamp, stamp["sci"], ztfxr.drop_wcs(stamp)):
        for margin in (0.0, -3.0, 2.5):
            inside = (x >= 9.5 + margin) & (x < 34.5 - margin) & (y >= 19.5 + margin) & (y < 44.5 - margin)
            out = ztfxr.in_footprint(sources, image, margin=margin)
            np.testing.assert_array_equal(out["mag"], sources["mag"][inside.values])
    assert 0 < int(inside.sum()) < 5


def test_a_distortion_that_folds_over_brings_nothing_in(wcs_header: MakeHeader) -> None:
    """59 degrees away this SIP polynomial leads back into the frame: its pixels are of another place on the sky."""
    header = wcs_header((3080, 3072), ctype="TAN-SIP")
    del header["PV*"]
    header.update(A_ORDER=2, B_ORDER=2, A_2_0=2e-6, A_1_1=1e-6, B_0_2=-3e-6)
    image = ztfxr.assign_wcs(xr.Dataset({"sci": (("y", "x"), np.zeros((3080, 3072), np.float32))}), header)
    far, near = (157.64520638210251, 79.29122746088531), (150.3, 20.7)
    assert ztfxr.contains(image, SkyCoord(*far, unit="deg")).all()
    out = ztfxr.in_footprint({"ra": [far[0], near[0]], "dec": [far[1], near[1]]}, image)
    assert out["ra"].values.tolist() == [near[0]]


def test_sources_without_a_position_are_outside(frame: xr.Dataset, sources: xr.Dataset) -> None:
    blank = sources.assign_coords(ra=sources["ra"].where(sources["mag"] != 19.0))
    assert ztfxr.in_footprint(blank, frame)["mag"].values.tolist() == [18.0, 20.0, 21.0, 22.0]
    with pytest.raises(InputError, match="the cut needs columns ra and dec"):
        ztfxr.in_footprint({"ra": [1.0], "dec": [2.0]}, ztfxr.drop_wcs(frame))


# ---- beside an image


def test_catalogs_beside_an_image(frame: xr.Dataset, sources: xr.Dataset, ps1: pd.DataFrame) -> None:
    tree = ztfxr.with_catalogs(frame, sources=sources, ps1=ps1)
    assert list(tree.children) == ["image", "sources", "ps1"]
    xr.testing.assert_identical(tree["image"].to_dataset(), frame)
    out = tree.ztf.match("sources", "ps1", radius=1.0, columns=["ra", "dec", "x", "y", "mag"])
    expected = ztfxr.match(
        sources, tree["ps1"].to_dataset(), radius=1.0, names=("sources", "ps1"), columns=["ra", "dec", "x", "y", "mag"]
    )
    xr.testing.assert_identical(out, expected)
    np.testing.assert_allclose(out["sources_x"], out["ps1_x"], atol=0.2)
    xr.testing.assert_identical(
        tree.ztf.unmatched("ps1", "sources", radius=1.0), ztfxr.unmatched(ps1, sources, radius=1.0)
    )
    mixed = tree.ztf.match("sources", ps1, radius=1.0)
    assert "sources_index" in mixed
    assert "right_index" in mixed


def test_catalogs_are_added_to_a_tree(frame: xr.Dataset, sources: xr.Dataset, ps1: pd.DataFrame) -> None:
    tree = frame["sci"].ztf.with_catalogs(sources=sources)
    more = tree.ztf.with_catalogs(ps1=ps1, gaia=SkyCoord(sources["ra"], sources["dec"], unit="deg"))
    assert list(tree.children) == ["image", "sources"]
    assert list(more.children) == ["image", "sources", "ps1", "gaia"]
    assert more.ztf.match("sources", "gaia", radius=0.1).sizes["match"] == 5
    np.testing.assert_allclose(more["gaia"]["x_centroid"], sources["x_centroid"], atol=1e-5)
    pixels = ztfxr.with_catalogs(frame, mine={"x": [5.0], "y": [7.0]})
    assert float(pixels["mine"]["ra"][0]) == pytest.approx(float(sources["ra"][0]), abs=1e-9)


def test_the_tree_survives_zarr(frame: xr.Dataset, sources: xr.Dataset, ps1: pd.DataFrame, tmp_path: Path) -> None:
    tree = ztfxr.with_catalogs(frame, sources=sources, ps1=ps1)
    tree.ztf.to_zarr(tmp_path / "tree.zarr")
    back = ztfxr.open_zarr(tmp_path / "tree.zarr")
    assert isinstance(back, xr.DataTree)
    xr.testing.assert_identical(back.compute(), tree.compute())
    options: dict[str, Any] = {"radius": 1.0, "columns": ["x", "mag", "name"]}
    xr.testing.assert_identical(
        back.ztf.match("sources", "ps1", **options).compute(), tree.ztf.match("sources", "ps1", **options)
    )


def test_trees_that_make_no_sense(frame: xr.Dataset, ps1: pd.DataFrame) -> None:
    for name in ("image", "a/b"):
        with pytest.raises(InputError, match=f"cannot be named '{name}'"):
            ztfxr.with_catalogs(frame, **{name: ps1})
    with pytest.raises(InputError, match="the tree has no node 'image'; it has none"):
        ztfxr.with_catalogs(xr.DataTree(), ps1=ps1)
    with pytest.raises(InputError, match="the tree has no node 'gaia'; it has image, ps1"):
        ztfxr.with_catalogs(frame, ps1=ps1).ztf.match("ps1", "gaia", radius=1.0)


# ---- VizieR


class FakeVizier:
    """Stands in for astroquery's client: notes what it is asked, answers with `tables`."""

    asked: dict[str, Any]
    tables: Any

    def __init__(self, **options: Any) -> None:
        type(self).asked = options

    def query_region(self, center: SkyCoord, **options: Any) -> Any:
        type(self).asked |= {"center": center, **options}
        if isinstance(self.tables, Exception):
            raise self.tables
        return self.tables


@pytest.fixture
def vizier(monkeypatch: pytest.MonkeyPatch) -> type[FakeVizier]:
    """A fake astroquery; no network is touched."""
    package, client, errors = (
        types.ModuleType(n) for n in ("astroquery", "astroquery.vizier", "astroquery.exceptions")
    )
    for name in ("RemoteServiceError", "TableParseError", "TimeoutError"):
        setattr(errors, name, type(name, (Exception,), {}))
    fake = type("Vizier", (FakeVizier,), {})
    client.Vizier, package.vizier, package.exceptions = fake, client, errors  # type: ignore[attr-defined]
    for part in (package, client, errors):
        monkeypatch.setitem(sys.modules, part.__name__, part)
    return fake


def answer(frame: xr.Dataset) -> Table:
    """What VizieR sends of Gaia: two stars on the frame, one with a proper motion, and one beyond its edge."""
    sky = ztfxr.pixel_to_sky(frame, np.array([10.0, 30.0, 50.0]), np.array([10.0, 30.0, 30.0]))
    return Table(
        {
            "Source": np.array([2**60 + 1, 2, 3]),
            "RA_ICRS": sky.ra,
            "DE_ICRS": sky.dec,
            "pmRA": MaskedColumn([1000.0, 0.0, 0.0], mask=[False, True, True]),
            "pmDE": MaskedColumn([-500.0, 0.0, 0.0], mask=[False, True, True]),
            "Gmag": np.array([15.5, 17.0, 18.0], dtype=np.float32) * u.mag,
        }
    )


def test_gaia_on_a_frame(frame: xr.Dataset, vizier: type[FakeVizier]) -> None:
    table = answer(frame)
    vizier.tables = [table]
    out = frame.ztf.query_catalog("gaia", max_mag=19.0)
    asked = vizier.asked
    assert asked["catalog"] == "I/355/gaiadr3"
    assert asked["row_limit"] == -1
    assert asked["cache"] is False
    assert asked["column_filters"] == {"Gmag": "<19"}
    assert {"RA_ICRS", "DE_ICRS", "Source", "pmRA", "Gmag", "BPmag"} <= set(asked["columns"])
    corners = ztfxr.corners(frame)
    assert (asked["center"].separation(corners) < asked["radius"]).all()
    assert asked["radius"] < asked["center"].separation(corners).max() + 1 * u.arcmin
    assert out["source_id"].values.tolist() == [2**60 + 1, 2]
    assert out["mag"].values.tolist() == out["mag_g"].values.tolist() == [15.5, 17.0]
    np.testing.assert_allclose(out["x_centroid"][1], 30.0, atol=1e-4)
    years = (float(frame["mjd"]) - 51544.5) / 365.25 - 16.0
    shift = SkyCoord(table["RA_ICRS"], table["DE_ICRS"])[0].separation(SkyCoord(out["ra"], out["dec"], unit="deg")[0])
    assert shift.arcsec == pytest.approx(np.hypot(1.0, 0.5) * years, rel=1e-5)
    assert out.attrs["epoch"] == pytest.approx(2016.0 + years, abs=1e-3)
    assert out.attrs["vizier"] == "I/355/gaiadr3"


def test_ps1_takes_the_band_of_the_image(frame: xr.Dataset, vizier: type[FakeVizier]) -> None:
    sky = ztfxr.pixel_to_sky(frame, 10.0, 12.0)
    columns = {"objID": [7], "RAJ2000": [sky.ra.deg], "DEJ2000": [sky.dec.deg], "gmag": [20.0], "rmag": [19.5]}
    vizier.tables = [Table(columns)]
    out = ztfxr.query_catalog(frame["sci"], "ps1", max_mag=21.5)
    assert vizier.asked["catalog"] == "II/349/ps1"
    assert vizier.asked["column_filters"] == {"rmag": "<21.5"}
    assert (float(out["mag"][0]), float(out["mag_g"][0]), float(out["mag_r"][0])) == (19.5, 20.0, 19.5)
    assert "epoch" not in out.attrs


def test_a_cone_is_not_cut(frame: xr.Dataset, vizier: type[FakeVizier]) -> None:
    vizier.tables = [answer(frame)]
    here = ztfxr.query_catalog(SkyCoord(150.3, 20.7, unit="deg"), "gaia", radius=2 * u.arcmin, timeout=5.0)
    assert here.sizes["source"] == 3
    assert "x_centroid" not in here
    assert here.attrs["epoch"] == 2016.0
    assert vizier.asked["radius"].to_value("arcmin") == pytest.approx(2.0)
    assert vizier.asked["timeout"] == 5.0
    wide = ztfxr.query_catalog(frame, "gaia", radius=60.0)
    assert wide.sizes["source"] == 3
    assert float(wide["x_centroid"][2]) == pytest.approx(50.0, abs=1e-4)


def test_a_wider_margin_asks_for_a_wider_cone(frame: xr.Dataset, vizier: type[FakeVizier]) -> None:
    vizier.tables = [answer(frame)]
    assert ztfxr.query_catalog(frame, "gaia").sizes["source"] == 2
    narrow = vizier.asked["radius"]
    assert ztfxr.query_catalog(frame, "gaia", margin=-20.0).sizes["source"] == 3
    assert (vizier.asked["radius"] - narrow).to_value("arcsec") == pytest.approx(20 * 1.012, rel=0.01)


def test_no_source_is_an_empty_catalog(frame: xr.Dataset, vizier: type[FakeVizier]) -> None:
    vizier.tables = []
    for name in ("gaia", "ps1"):
        out = ztfxr.query_catalog(frame, name)  # type: ignore[arg-type]
        assert out.sizes["source"] == 0
        assert {"ra", "dec", "mag", "mag_g", "x_centroid"} <= set(out.variables)


def test_a_service_that_fails_is_named(frame: xr.Dataset, vizier: type[FakeVizier]) -> None:
    timeout = sys.modules["astroquery.exceptions"].TimeoutError
    for error in (ConnectionError("no route"), timeout("too slow")):
        vizier.tables = error
        with pytest.raises(CatalogError, match=r"VizieR gave no catalog I/355/gaiadr3 \(.*read_catalog"):
            ztfxr.query_catalog(frame, "gaia")
    vizier.tables = None
    with pytest.raises(CatalogError, match="is no table"):
        ztfxr.query_catalog(frame, "gaia")


def test_questions_that_make_no_sense(frame: xr.Dataset, vizier: type[FakeVizier]) -> None:
    vizier.tables = []
    here = SkyCoord(150.3, 20.7, unit="deg")
    with pytest.raises(InputError, match="catalog is 'ps1' or 'gaia'; got '2mass'"):
        ztfxr.query_catalog(frame, "2mass")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="give one, and a radius="):
        ztfxr.query_catalog(here, "gaia")
    with pytest.raises(InputError, match="max_mag needs to know the filter"):
        ztfxr.query_catalog(here, "ps1", radius=10.0, max_mag=20.0)
    with pytest.raises(MissingWCSError):
        ztfxr.query_catalog(ztfxr.drop_wcs(frame), "gaia")


def test_without_astroquery_the_extra_is_named(frame: xr.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "astroquery", None)
    with pytest.raises(MissingDependencyError, match=r'pip install "ztfxr\[catalogs\]"'):
        ztfxr.query_catalog(frame, "gaia")


def test_the_real_client_sends_and_reads_what_we_mean(frame: xr.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """astroquery itself, with the connection replaced by a VOTable as VizieR sends it."""
    vizier = pytest.importorskip("astroquery.vizier")
    sent: dict[str, Any] = {}

    def respond(self: Any, method: str, url: str, **options: Any) -> Any:
        sent.update(options)
        return types.SimpleNamespace(content=_votable(answer(frame)))

    monkeypatch.setattr(vizier.VizierClass, "_request", respond)
    out = ztfxr.query_catalog(frame, "gaia", max_mag=19.0)
    assert out["source_id"].values.tolist() == [2**60 + 1, 2]
    assert out["mag_g"].attrs["units"] == "mag"
    body = str(sent["data"])
    assert "I/355/gaiadr3" in body
    assert "Gmag=<19" in body
    assert "-out.max=unlimited" in body
    assert sent["cache"] is False


def _votable(table: Table) -> bytes:
    import io

    document = from_table(table)
    document.resources[0].tables[0].name = "I/355/gaiadr3"
    stream = io.BytesIO()
    document.to_xml(stream)
    return stream.getvalue()


def test_module_names_are_the_public_ones() -> None:
    assert all(getattr(ztfxr, name) is getattr(module, name) for name in module.__all__)
