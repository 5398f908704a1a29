"""Catalogs, matches and light curves as Table, DataFrame and Parquet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from astropy import units as u
from astropy.table import Table
from astropy.time import Time
from hypothesis import given, settings
from hypothesis import strategies as st

import ztfxr
from ztfxr.errors import InputError, StoreError
from ztfxr.store._files import new_file


@pytest.fixture
def catalog() -> xr.Dataset:
    """A catalog of every dtype, with units, flags and one lazy column."""
    columns = {
        "source_id": np.array([2**60 + 1, 5, 7]),
        "mag": np.array([18.5, np.nan, 20.0], dtype=np.float32),
        "name": np.array(["a", "", "ü c"]),
        "status": np.array([0, 3, 65535], dtype=np.uint16),
        "good": np.array([True, False, True]),
        "seen": np.array(["2020-01-01T00:00:00.123456789", "2021-01-01", "2022-01-01"], "M8[ns]"),
    }
    out = xr.Dataset({k: ("source", v) for k, v in columns.items()}, attrs={"catalog": "ps1", "header": "a\nb"})
    out["mag"].attrs = {"units": "mag", "long_name": "magnitude"}
    out["status"].attrs = {"flag_masks": np.array([1, 2]), "flag_meanings": "edge masked"}
    sky = {"ra": ("source", [1.0, 2.0, 359.9]), "dec": ("source", [-1.0, 89.0, 0.0])}
    return ztfxr.as_catalog(out.assign(flux=("source", da.arange(3.0))).assign_coords(sky))


@pytest.fixture
def curve() -> xr.Dataset:
    return xr.Dataset(
        {
            "flux": (("time", "source"), np.arange(6.0).reshape(2, 3), {"units": "uJy"}),
            "seeing": ("time", [2.0, 3.0]),
        },
        coords={
            "time": np.array(["2020-01-01", "2020-01-02"], "M8[ns]"),
            "ra": ("source", [1.0, 2.0, 3.0]),
            "filter": "ztfr",
        },
    )


def test_a_catalog_as_a_table(catalog: xr.Dataset) -> None:
    table = catalog.ztf.to_table()
    assert set(table.colnames) == set(map(str, catalog.variables))
    for name in ("ra", "dec", "source_id", "mag", "name", "status", "good", "flux"):
        np.testing.assert_array_equal(table[name], catalog[name])
        assert table[name].dtype == catalog[name].dtype
    assert table["mag"].unit == u.mag
    assert table["ra"].unit == u.deg
    assert table["mag"].description == "magnitude"
    assert isinstance(table["seen"], Time)
    np.testing.assert_array_equal(table["seen"].datetime64, catalog["seen"])
    assert table.meta == {"catalog": "ps1"}


@pytest.mark.parametrize("suffix", ["fits", "ecsv"])
def test_astropy_writes_the_table_and_we_read_it(catalog: xr.Dataset, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"catalog.{suffix}"
    # FITS knows no text but ASCII.
    catalog["name"] = ("source", np.array(["a", "", "b c"]))
    ztfxr.to_table(catalog).write(path, format="fits" if suffix == "fits" else "ascii.ecsv")
    back = ztfxr.read_catalog(path)
    for name in ("ra", "dec", "source_id", "mag", "name", "status", "good", "flux"):
        np.testing.assert_array_equal(back[name], catalog[name])
    assert back["mag"].attrs["units"] == "mag"


def test_parquet_keeps_values_dtypes_and_attributes(catalog: xr.Dataset, tmp_path: Path) -> None:
    assert catalog.ztf.to_parquet(tmp_path / "c.parquet") is None
    back = ztfxr.read_catalog(tmp_path / "c.parquet")
    for name in catalog.variables:
        np.testing.assert_array_equal(back[name], catalog[name])
        assert back[name].dtype == catalog[name].dtype
        assert back[name].attrs.keys() == catalog[name].attrs.keys()
    assert list(back["status"].attrs["flag_masks"]) == [1, 2]
    assert back["mag"].attrs == catalog["mag"].attrs
    assert [p.name for p in tmp_path.iterdir()] == ["c.parquet"]
    with pytest.raises(StoreError, match="exists already"):
        ztfxr.to_parquet(catalog, tmp_path / "c.parquet")
    ztfxr.to_parquet(catalog.isel(source=[0]), tmp_path / "c.parquet", overwrite=True)
    assert ztfxr.read_catalog(tmp_path / "c.parquet").sizes == {"source": 1}


def test_a_dataframe_and_back(catalog: xr.Dataset) -> None:
    frame = ztfxr.to_dataframe(catalog)
    assert isinstance(frame.index, pd.RangeIndex)
    back = ztfxr.as_catalog(frame)
    xr.testing.assert_equal(back, catalog.compute())
    assert back["mag"].attrs == catalog["mag"].attrs


def test_light_curves_are_long_tables(curve: xr.Dataset) -> None:
    frame = curve.ztf.to_dataframe()
    assert set(frame.columns) == {"flux", "seeing", "time", "ra", "filter", "source"}
    assert frame.columns[-1] == "filter"
    assert frame["flux"].tolist() == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    assert frame["source"].tolist() == [0, 1, 2, 0, 1, 2]
    assert frame["seeing"].tolist() == [2.0] * 3 + [3.0] * 3
    assert frame["filter"].tolist() == ["ztfr"] * 6
    expected = curve.to_dataframe(dim_order=["time", "source"]).reset_index()
    pd.testing.assert_frame_equal(frame[expected.columns], expected, check_dtype=False)
    assert len(curve.ztf.to_table()) == 6


@settings(max_examples=40)
@given(st.permutations(["time", "source", "band"]), st.lists(st.integers(0, 3), min_size=3, max_size=3))
def test_rows_are_those_of_xarray(order: list[str], sizes: list[int]) -> None:
    shape = tuple(sizes)
    values = np.arange(np.prod(shape), dtype=float).reshape(shape)
    ds = xr.Dataset({"flux": (order, values), "n": (order[1:2], np.arange(shape[1]))})
    frame = ztfxr.to_dataframe(ds)
    expected = ds.to_dataframe(dim_order=order).reset_index()
    for name in expected.columns:
        assert frame[name].tolist() == expected[name].tolist()


def test_a_match_is_a_table(catalog: xr.Dataset) -> None:
    out = ztfxr.match(catalog, catalog, radius=1.0, columns=["mag", "name"])
    frame = out.ztf.to_dataframe()
    assert len(frame) == 3
    assert list(frame.columns) == [
        "left_index",
        "right_index",
        "angsep_arcsec",
        "left_mag",
        "right_mag",
        "left_name",
        "right_name",
    ]
    assert out.ztf.to_table()["angsep_arcsec"].unit == u.arcsec


def test_other_tables_pass_through(catalog: xr.Dataset) -> None:
    frame = pd.DataFrame({"RAJ2000": [1.0], "DEJ2000": [2.0]})
    assert ztfxr.to_table(frame).colnames == ["ra", "dec"]
    assert isinstance(ztfxr.to_dataframe(Table({"ra": [1.0]})), pd.DataFrame)


def test_missing_times_and_odd_units() -> None:
    ds = xr.Dataset(
        {"t": ("source", np.array(["2020-01-01", "NaT"], "M8[ns]")), "f": ("source", [1.0, 2.0], {"units": "parrot"})}
    )
    table = ztfxr.to_table(ds)
    assert table["t"].tolist()[1] == "NaT"
    assert table["f"].unit is None


@pytest.mark.parametrize("function", ["to_table", "to_dataframe"])
def test_images_are_no_tables(function: str) -> None:
    image: Any = xr.Dataset({"sci": (("y", "x"), np.zeros((2, 2)))})
    with pytest.raises(InputError, match="images have no place in a table"):
        getattr(ztfxr, function)(image)


def test_a_toy_output_format_is_added_as_the_page_says(tmp_path: Path) -> None:
    """CONTRIBUTING: a module in `store/` that writes through `_files.new_file`; a name in `ztfxr`."""

    def to_lines(lc: xr.Dataset, path: Path, *, overwrite: bool = False) -> None:
        rows = zip(lc["mjd"].values, lc["flux"].values[:, 0], lc["flux_err"].values[:, 0], strict=True)
        with new_file(path, overwrite=overwrite) as part:
            Path(part).write_text("".join(f"{mjd:.6f} {flux:.3f} {error:.3f}\n" for mjd, flux, error in rows))

    made = ztfxr.testing.make_scene((96, 96), n_epochs=2, n_stars=40)
    lc = ztfxr.lightcurve(made.images, [(40.0, 41.0)], reference=made.reference).compute()
    path = tmp_path / "lc.txt"
    to_lines(lc, path)
    np.testing.assert_allclose(np.loadtxt(path)[:, 1], lc["flux"].values[:, 0], atol=1e-3)
    with pytest.raises(ztfxr.ZtfxrError, match=r"lc\.txt"):
        to_lines(lc, path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["lc.txt"]
