"""Positions in every form that users have them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.table import MaskedColumn, QTable, Table

from tests.conftest import WriteFrame
from ztfxr.errors import InputError, MissingWCSError
from ztfxr.io.frames import open_quadrant
from ztfxr.ops.positions import pixel_origin, position_columns, resolve_positions
from ztfxr.schema import find_columns
from ztfxr.wcs import pixel_to_sky, sky_to_pixel

X, Y = np.array([3.25, 20.0, -2.5]), np.array([40.0, 11.75, 60.0])
NAMES = np.array(["one", "two", "three"])


@pytest.fixture(scope="module")
def frame(write_frame_in: WriteFrame, tmp_path_factory: pytest.TempPathFactory) -> xr.Dataset:
    return open_quadrant(write_frame_in(tmp_path_factory.mktemp("frame")))


@pytest.fixture(scope="module")
def bare() -> xr.DataArray:
    """An image without a WCS."""
    return xr.DataArray(np.zeros((48, 40), dtype=np.float32), dims=("y", "x"), name="sci")


@pytest.fixture(scope="module")
def sky(frame: xr.Dataset) -> SkyCoord:
    return pixel_to_sky(frame, X, Y)


def pixel_forms() -> dict[str, Any]:
    columns = {"x": X, "y": Y}
    record = np.empty(3, dtype=[("x", ">f4"), ("y", ">f8")])
    record["x"], record["y"] = X, Y
    return {
        "pairs": list(zip(X, Y, strict=True)),
        "array": np.stack([X, Y], axis=1),
        "dict": columns,
        "lists": {"x": list(X), "y": list(Y)},
        "table": Table(columns),
        "pixels": QTable({"x": X * u.pix, "y": Y * u.pix}),
        "frame": pd.DataFrame(columns),
        "dataset": xr.Dataset({k: ("source", v) for k, v in columns.items()}),
        "photutils": Table({"x_centroid": X, "y_centroid": Y}),
        "resolved": {"x_pixel": X, "y_pixel": Y},
        "record": record,
    }


@pytest.mark.parametrize("form", pixel_forms())
@pytest.mark.parametrize("image", ["frame", "bare"])
def test_pixels_in_every_form(form: str, image: str, request: pytest.FixtureRequest, sky: SkyCoord) -> None:
    found = resolve_positions(request.getfixturevalue(image), pixel_forms()[form])
    assert dict(found.sizes) == {"source": 3}
    for name, values in (("x_pixel", X), ("y_pixel", Y)):
        assert found[name].dtype == np.float64
        assert found[name].attrs["units"] == "pixel"
        np.testing.assert_array_equal(found[name], values)
    if image == "bare":
        assert not {"ra", "dec"} & set(found.coords)
    else:
        np.testing.assert_allclose(found["ra"], sky.ra.deg, rtol=1e-12)
        np.testing.assert_allclose(found["dec"], sky.dec.deg, rtol=1e-12)
        assert found["ra"].attrs["units"] == "deg"


def sky_forms(sky: SkyCoord) -> dict[str, Any]:
    ra, dec = sky.ra.deg, sky.dec.deg
    columns = {"ra": ra, "dec": dec}
    return {
        "skycoord": sky,
        "galactic": sky.galactic,
        "dict": columns,
        "table": Table(columns),
        "degrees": QTable({"ra": ra * u.deg, "dec": dec * u.deg}),
        "hours": QTable({"ra": sky.ra.to(u.hourangle), "dec": sky.dec.to(u.rad)}),
        "column unit": Table({"ra": sky.ra.rad, "dec": sky.dec.deg}, units={"ra": "rad"}),
        "frame": pd.DataFrame(columns),
        "dataset": xr.Dataset({k: ("source", v) for k, v in columns.items()}),
    }


@pytest.mark.parametrize(
    "form", ["skycoord", "galactic", "dict", "table", "degrees", "hours", "column unit", "frame", "dataset"]
)
def test_sky_in_every_form(frame: xr.Dataset, sky: SkyCoord, form: str) -> None:
    found = resolve_positions(frame, sky_forms(sky)[form])
    np.testing.assert_allclose(found["x_pixel"], X, atol=1e-5)
    np.testing.assert_allclose(found["y_pixel"], Y, atol=1e-5)
    np.testing.assert_allclose(found["ra"], sky.ra.deg, rtol=1e-12)
    np.testing.assert_allclose(found["dec"], sky.dec.deg, rtol=1e-12)


@pytest.mark.parametrize("one", [(3.25, 40.0), [3.25, 40.0], np.array([3.25, 40.0]), {"x": 3.25, "y": 40}])
def test_one_pixel_position(bare: xr.DataArray, one: Any) -> None:
    found = resolve_positions(bare, one)
    assert found["x_pixel"].values.tolist() == [3.25]
    assert found["y_pixel"].values.tolist() == [40.0]


def test_one_sky_position(frame: xr.Dataset, sky: SkyCoord) -> None:
    found = resolve_positions(frame, sky[0])
    np.testing.assert_allclose([found["x_pixel"][0], found["y_pixel"][0]], [X[0], Y[0]], atol=1e-5)


def test_no_position_at_all(frame: xr.Dataset) -> None:
    """A catalog may be empty."""
    found = resolve_positions(frame, Table({"ra": np.array([]), "dec": np.array([])}))
    assert found.sizes["source"] == 0


@pytest.mark.parametrize("column", ["source_id", "id", "name"])
@pytest.mark.parametrize("ids", [NAMES, np.array([2**60, 5, 7]), ["a", "bb", "c"]])
@pytest.mark.parametrize("make", [dict, Table, pd.DataFrame])
def test_ids_are_kept(bare: xr.DataArray, column: str, ids: Any, make: Any) -> None:
    found = resolve_positions(bare, make({"x": X, "y": Y, column: ids}))
    assert found["source_id"].dims == ("source",)
    assert found["source_id"].dtype.kind in "Ui"
    assert found["source_id"].values.tolist() == list(ids)


def test_result_resolves_to_itself(frame: xr.Dataset, sky: SkyCoord) -> None:
    once = resolve_positions(frame, {"ra": sky.ra.deg, "dec": sky.dec.deg, "id": NAMES})
    xr.testing.assert_allclose(resolve_positions(frame, once), once, atol=1e-9)


def test_sky_wins_where_there_is_a_wcs(frame: xr.Dataset, bare: xr.DataArray, sky: SkyCoord) -> None:
    """Pixels of a catalog belong to the frame that it was made from, its sky to every frame."""
    both = {"ra": sky.ra.deg, "dec": sky.dec.deg, "x": X + 100, "y": Y - 100}
    np.testing.assert_allclose(resolve_positions(frame, both)["x_pixel"], X, atol=1e-5)
    found = resolve_positions(bare, both)
    np.testing.assert_array_equal(found["x_pixel"], X + 100)
    np.testing.assert_array_equal(found["y_pixel"], Y - 100)


def test_half_a_pair_is_no_pair(frame: xr.Dataset, bare: xr.DataArray, sky: SkyCoord) -> None:
    np.testing.assert_array_equal(resolve_positions(frame, {"ra": sky.ra.deg, "x": X, "y": Y})["x_pixel"], X)
    with pytest.raises(MissingWCSError):
        resolve_positions(bare, {"ra": sky.ra.deg, "dec": sky.dec.deg, "x": X})


def test_missing_values_become_nan(frame: xr.Dataset) -> None:
    masked = Table({"ra": MaskedColumn([150.3, 0.0], mask=[False, True]), "dec": [20.7, 20.7]})
    found = resolve_positions(frame, masked)
    assert np.isfinite(found["x_pixel"][0])
    assert np.isnan(found["x_pixel"][1])
    whole = Table({"x": MaskedColumn([1, 2], mask=[True, False]), "y": [5, 6]})
    np.testing.assert_array_equal(resolve_positions(frame, whole)["x_pixel"], [np.nan, 2.0])


def test_absolute_pixels_of_a_slice(frame: xr.Dataset, sky: SkyCoord) -> None:
    """Pixels count from the full frame, so a slice changes nothing."""
    cut = frame["sci"][7:30, 5:20]
    xr.testing.assert_identical(resolve_positions(cut, sky), resolve_positions(frame, sky))
    np.testing.assert_allclose(sky_to_pixel(cut, sky)[0], resolve_positions(cut, sky)["x_pixel"])


@pytest.mark.parametrize(
    ("positions", "message"),
    [
        ({"ra": [1.0], "y": [2.0]}, "columns ra and dec, or x and y; got ra, y"),
        ({}, "columns ra and dec, or x and y"),
        (Table({"a": [1.0]}), "got a"),
        ({"x": [1.0, 2.0], "y": [2.0]}, "differ in length"),
        ({"x": [1.0, 2.0], "y": [2.0, 3.0], "id": [1]}, "differ in length"),
        ({"x": [[1.0, 2.0]], "y": [[2.0, 3.0]]}, "differ in length"),
        (np.zeros((4, 3)), r"got shape \(4, 3\)"),
        ([], r"got shape \(0,\)"),
        (5.0, r"got shape \(\)"),
    ],
)
def test_errors(bare: xr.DataArray, positions: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        resolve_positions(bare, positions)


def test_sky_needs_a_wcs(bare: xr.DataArray, sky: SkyCoord) -> None:
    with pytest.raises(MissingWCSError, match="no celestial WCS"):
        resolve_positions(bare, sky)


def test_reads_no_pixel(frame: xr.Dataset, sky: SkyCoord, raising_scheduler: Any) -> None:
    for obj in (frame, frame["sci"]):
        resolve_positions(obj, sky)
        resolve_positions(obj, [(1.0, 2.0)])
        pixel_origin(obj)


def test_origin(frame: xr.Dataset, bare: xr.DataArray) -> None:
    assert pixel_origin(frame) == {"y": 0, "x": 0}
    assert pixel_origin(frame[["sci"]].isel(y=slice(7, 9), x=slice(3, None))) == {"y": 7, "x": 3}
    assert pixel_origin(frame["sci"][7:9, 3:].drop_vars(["x", "y"])) == {"y": 7, "x": 3}
    assert pixel_origin(bare[5:]) == {"y": 0, "x": 0}
    assert pixel_origin(frame["sci"][:0]) == {"y": 0, "x": 0}


@pytest.mark.parametrize("cut", [slice(None, None, -1), slice(None, None, 2)])
def test_no_origin_where_pixels_are_not_consecutive(frame: xr.Dataset, cut: slice) -> None:
    with pytest.raises(InputError, match="does not count single pixels upwards"):
        pixel_origin(frame["sci"][:, cut])


def test_half_pixels_of_a_binned_image(frame: xr.Dataset) -> None:
    with pytest.raises(InputError, match=r"it runs 0.5, 2.5, ... 38.5"):
        pixel_origin(frame["sci"].coarsen(x=2).mean())


# units, text, and names of columns


@pytest.mark.parametrize(
    ("unit", "per_degree"), [("hourangle", 1 / 15), ("rad", np.pi / 180), ("deg", 1), ("degree", 1)]
)
def test_columns_of_a_dataset_have_the_unit_that_they_state(unit: str, per_degree: float) -> None:
    columns = {"ra": ("source", [57.9 * per_degree], {"units": unit}), "dec": ("source", [35.8])}
    found = position_columns(xr.Dataset(columns))
    np.testing.assert_allclose([found["ra"], found["dec"]], [[57.9], [35.8]], rtol=1e-12)
    frame = pd.DataFrame({"ra": [57.9], "dec": [35.8]})
    np.testing.assert_allclose(position_columns(frame)["ra"], [57.9])


def test_a_unit_that_is_no_angle_is_refused() -> None:
    with pytest.raises(InputError, match="ra is in 'pixel', which is no angle; degrees are needed"):
        position_columns(xr.Dataset({"ra": ("source", [1.0], {"units": "pixel"}), "dec": ("source", [2.0])}))


@pytest.mark.parametrize(
    "given",
    [
        "03:51:36 +35:48:00",
        "03h51m36s +35d48m00s",
        "03 51 36 35 48 00",
        "57.9 35.8",
        "57.9, +35.8",
        ["03:51:36 +35:48:00"],
        (57.9 * u.deg, 35.8 * u.deg),
        (3.86 * u.hourangle, 35.8 * u.deg),
        ([57.9] * u.deg, [35.8] * u.deg),
        [SkyCoord(57.9, 35.8, unit="deg")],
        {"ra": ["03:51:36"], "dec": ["+35:48:00"]},
        {"ra": ["57.9"], "dec": ["35.8"]},
        {"RA_ICRS": [57.9], "DE_ICRS": [35.8]},
        {"raMean": [57.9], "decMean": [35.8]},
        {"RAJ2000": [57.9], "DEJ2000": [35.8]},
    ],
)
def test_positions_as_people_write_them(given: Any) -> None:
    found = position_columns(given)
    np.testing.assert_allclose([found["ra"], found["dec"]], [[57.9], [35.8]], rtol=1e-9)


def test_many_positions_as_text_and_coordinates() -> None:
    several = [SkyCoord(10, 20, unit="deg"), SkyCoord(1, 2, unit="deg", frame="galactic")]
    np.testing.assert_allclose(position_columns(several)["dec"], [20, several[1].icrs.dec.deg])
    np.testing.assert_allclose(position_columns(["10 20", "11 21"])["ra"], [10, 11])
    found = position_columns({"ra": ["03:51:36", "", None], "dec": ["1", "2", "3"]})
    np.testing.assert_allclose(found["ra"], [57.9, np.nan, np.nan])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("a star", "'a star' is no position; write '03:51:36"),
        ({"ra": ["here"], "dec": ["there"]}, "ra 'here' is no angle; write degrees, or parts such as '03:51:36'"),
        ({"x": ["a"], "y": ["b"]}, "the column x holds <U1, but numbers are needed"),
        (object(), r"positions are \(x, y\) pairs, a SkyCoord, text such as"),
    ],
)
def test_positions_that_are_none(given: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        position_columns(given)


def test_names_of_columns() -> None:
    """Those of the sky in any case, the plain one first; pixels by their exact names."""
    assert find_columns(["RA", "Dec", "x", "id"]) == {"ra": "RA", "dec": "Dec", "x": "x", "id": "id"}
    assert find_columns(["RA", "ra", "x_pixel", "x"]) == {"ra": "ra", "x": "x_pixel"}
    assert find_columns(["X", "X_IMAGE", "NAME"]) == {}
