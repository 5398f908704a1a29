"""Tables of every kind as a Dataset on `source`."""

from __future__ import annotations

from typing import Any

import dask.array as da
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.table import Column, MaskedColumn, QTable, Table
from astropy.time import Time
from astropy.utils.masked import Masked

from ztfxr import as_catalog
from ztfxr.errors import InputError

RA, DEC, MAG = np.array([57.25, 359.5, 0.0]), np.array([35.0, -89.0, 0.5]), np.array([18.5, 20.25, 21.0])


def forms() -> dict[str, Any]:
    columns = {"ra": RA, "dec": DEC, "mag": MAG}
    record = np.empty(3, dtype=[("ra", ">f8"), ("dec", ">f4"), ("mag", ">f4")])
    for name, values in columns.items():
        record[name] = values
    return {
        "mapping": columns,
        "lists": {k: v.tolist() for k, v in columns.items()},
        "record": record,
        "frame": pd.DataFrame(columns),
        "indexed frame": pd.DataFrame(columns).set_index("mag"),
        "table": Table(columns),
        "hours": QTable({"ra": RA / 15 * u.hourangle, "dec": DEC * 60 * u.arcmin, "mag": MAG}),
        "vizier": Table({"RA_ICRS": RA, "DE_ICRS": DEC, "mag": MAG}),
        "mast": pd.DataFrame({"raMean": RA, "decMean": DEC, "mag": MAG}),
        "sky": Table({"sky": SkyCoord(RA, DEC, unit="deg"), "mag": MAG}),
        "dataset": xr.Dataset({k: ("source", v) for k, v in columns.items()}),
        "other dim": xr.Dataset({"mag": ("star", MAG)}, coords={"RAJ2000": ("star", RA), "DEJ2000": ("star", DEC)}),
        "lazy": xr.Dataset({k: ("source", da.from_array(v)) for k, v in columns.items()}),
    }


@pytest.mark.parametrize("form", forms())
def test_every_form_gives_the_same_catalog(form: str) -> None:
    out = as_catalog(forms()[form])
    assert out.sizes == {"source": 3}
    for name, expected in (("ra", RA), ("dec", DEC), ("mag", MAG)):
        np.testing.assert_allclose(out[name], expected, rtol=1e-14)
        assert out[name].dtype.isnative
    assert {"ra", "dec"} <= set(out.coords)
    assert out["ra"].attrs["units"] == out["dec"].attrs["units"] == "deg"


def test_a_sky_coord_is_taken_to_icrs() -> None:
    sky = SkyCoord(RA, DEC, unit="deg", frame="icrs")
    out = as_catalog(sky.galactic)
    assert SkyCoord(out["ra"].values, out["dec"].values, unit="deg").separation(sky).arcsec.max() < 1e-8
    assert as_catalog(SkyCoord(1.0, 2.0, unit="deg")).sizes == {"source": 1}


def test_what_is_lazy_stays_lazy(raising_scheduler: Any) -> None:
    lazy = as_catalog({"ra": RA, "dec": DEC, "flux": da.ones(3)})
    assert lazy["flux"].chunks is not None
    again = as_catalog(lazy.assign(curve=(("time", "source"), da.ones((4, 3)))))
    assert again["curve"].dims == ("time", "source")


def test_a_dataset_is_not_changed() -> None:
    given = xr.Dataset({"ra": ("star", RA), "dec": ("star", DEC)}, attrs={"a": 1})
    copy = given.copy(deep=True)
    as_catalog(given)["ra"].attrs["units"] = "mine"
    xr.testing.assert_identical(given, copy)


def test_dtypes_units_and_gaps() -> None:
    table = QTable(
        {
            "n": MaskedColumn([1, 2, 3], mask=[False, True, False]),
            "whole": np.array([1, 2, 2**60]),
            "flux": Column([1.0, 2.0, 3.0], unit="DN", description="the flux"),
            "name": np.array([b"a", b"bb", b""]),
            "text": MaskedColumn(["x", "y", "z"], mask=[True, False, False]),
            "time": Time([59000.0, 59001.0, 59002.0], format="mjd", scale="utc"),
            "apertures": np.arange(6.0).reshape(3, 2) * u.mag,
            "x": np.arange(3) * u.pix,
            "gap": Masked([1.0, 2.0, 3.0] * u.mag, mask=[False, False, True]),
        }
    )
    out = as_catalog(table)
    np.testing.assert_array_equal(out["n"], [1.0, np.nan, 3.0])
    assert out["whole"].values.tolist() == [1, 2, 2**60]
    assert (out["flux"].attrs["units"], out["flux"].attrs["long_name"]) == ("DN", "the flux")
    assert out["name"].values.tolist() == ["a", "bb", ""]
    assert out["text"].values.tolist() == ["", "y", "z"]
    assert out["time"].dtype == np.dtype("M8[ns]")
    assert out["time"].values[0] == np.datetime64("2020-05-31")
    np.testing.assert_array_equal(out["apertures_1"], [1.0, 3.0, 5.0])
    assert out["apertures_0"].attrs["units"] == "mag"
    assert out["x_centroid"].attrs["units"] == "pixel"
    np.testing.assert_array_equal(out["gap"], [1.0, 2.0, np.nan])


def test_pandas_types_and_gaps() -> None:
    frame = pd.DataFrame(
        {
            "n": pd.array([1, None, 3], dtype="Int64"),
            "whole": pd.array([1, 2, 2**60], dtype="Int64"),
            "good": pd.array([True, None, False], dtype="boolean"),
            "name": ["a", None, "c"],
            "kind": pd.Categorical(["s", "g", "s"]),
            "mixed": [1, "two", None],
            "time": pd.to_datetime(["2020-01-01T02:00+02:00"] * 3, utc=True),
        }
    )
    out = as_catalog(frame)
    np.testing.assert_array_equal(out["n"], [1.0, np.nan, 3.0])
    assert out["whole"].values.tolist() == [1, 2, 2**60]
    np.testing.assert_array_equal(out["good"], [1.0, np.nan, 0.0])
    assert out["name"].values.tolist() == ["a", "", "c"]
    assert out["kind"].values.tolist() == ["s", "g", "s"]
    assert out["mixed"].values.tolist() == ["1", "two", ""]
    assert out["time"].values[0] == np.datetime64("2020-01-01")
    assert not any(v.dtype == object for v in out.variables.values())


def test_a_column_named_source_is_an_identifier() -> None:
    assert as_catalog({"source": [7, 8], "ra": [1.0, 2.0]})["source_id"].values.tolist() == [7, 8]
    with pytest.raises(InputError, match="cannot be named 'source'"):
        as_catalog({"source": [7], "source_id": [1]})


@pytest.mark.parametrize(
    ("catalog", "message"),
    [
        ({"ra": [1.0, 2.0], "dec": [1.0]}, "differ in length.*'ra': 2, 'dec': 1"),
        ({"ra": ["here"], "dec": ["33:21:00"]}, "ra 'here' is no angle"),
        (QTable({"ra": [1.0] * u.mag, "dec": [1.0] * u.deg}), "ra is in 'mag', which is no angle"),
        ({"VIGNET": np.zeros((2, 3, 3))}, r"'VIGNET' holds arrays of shape \(3, 3\)"),
        ([1.0, 2.0], "got list"),
        (
            xr.Dataset({"flux": (("time", "star"), np.zeros((2, 2)))}),
            "has the dimension 'source'; this Dataset has time",
        ),
        (xr.Dataset(coords={"ra": (("y", "x"), np.zeros((2, 2)))}), "this is an image"),
        ({"a": xr.DataArray(np.zeros((2, 2)))}, "a catalog's have one"),
    ],
)
def test_what_is_no_catalog_is_refused(catalog: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        as_catalog(catalog)
