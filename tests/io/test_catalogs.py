"""Catalogs from local files."""

from __future__ import annotations

import builtins
import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from astropy.io import fits
from astropy.table import Table

import ztfxr
from ztfxr.errors import CatalogError, InputError, MissingDependencyError


@pytest.fixture
def table() -> Table:
    out = Table(
        {
            "objID": np.array([2**60 + 1, 5], dtype=np.int64),
            "RAJ2000": [57.25, 359.5],
            "DEJ2000": [35.5, -0.25],
            "rmag": np.array([18.25, np.nan], dtype=np.float32),
            "name": ["a, b", "c"],
        }
    )
    out["rmag"].unit = "mag"
    return out


def write(table: Table, folder: Path, kind: str) -> Path:
    path = folder / f"catalog.{kind}"
    if kind == "parquet":
        table.to_pandas().to_parquet(path)
    elif kind.endswith(".gz"):
        plain = write(table, folder, kind.removesuffix(".gz"))
        path.write_bytes(gzip.compress(plain.read_bytes()))
    else:
        table.write(path, format={"csv": "ascii.csv", "ecsv": "ascii.ecsv", "vot": "votable"}.get(kind, kind))
    return path


KINDS = ["fits", "fits.gz", "ecsv", "ecsv.gz", "csv", "csv.gz", "vot", "parquet"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_format_gives_the_same_catalog(table: Table, tmp_path: Path, kind: str) -> None:
    out = ztfxr.read_catalog(write(table, tmp_path, kind))
    np.testing.assert_array_equal(out["ra"], [57.25, 359.5])
    np.testing.assert_array_equal(out["dec"], [35.5, -0.25])
    np.testing.assert_array_equal(out["rmag"], [18.25, np.nan])
    assert out["objID"].values.tolist() == [2**60 + 1, 5]
    assert out["name"].values.tolist() == ["a, b", "c"]
    assert out.attrs == {"source": f"catalog.{kind}"}
    if not kind.startswith(("csv", "parquet")):
        assert out["rmag"].attrs["units"] == "mag"


def test_the_name_does_not_decide(table: Table, tmp_path: Path) -> None:
    path = write(table, tmp_path, "ecsv").rename(tmp_path / "catalog.csv")
    assert ztfxr.read_catalog(path)["rmag"].attrs["units"] == "mag"


def test_columns_are_chosen_and_renamed(table: Table, tmp_path: Path) -> None:
    path = write(table, tmp_path, "fits")
    assert set(ztfxr.read_catalog(path, columns=["rmag"]).variables) == {"ra", "dec", "rmag"}
    out = ztfxr.read_catalog(path, columns={"mag": "rmag", "source_id": "objID"})
    assert set(out.variables) == {"ra", "dec", "mag", "source_id"}
    assert set(ztfxr.read_catalog(path, columns=[]).variables) == {"ra", "dec"}
    with pytest.raises(InputError, match="has no column gmag; it has objID, ra, dec, rmag, name"):
        ztfxr.read_catalog(path, columns=["gmag"])


def test_a_table_is_chosen_among_extensions(table: Table, tmp_path: Path) -> None:
    path = tmp_path / "two.fits"
    fits.HDUList(
        [fits.PrimaryHDU(), fits.BinTableHDU(table[:1], name="ONE"), fits.BinTableHDU(table, name="TWO")]
    ).writeto(path)
    assert ztfxr.read_catalog(path, hdu="TWO").sizes["source"] == 2
    assert ztfxr.read_catalog(path, hdu=1).sizes["source"] == 1
    with pytest.raises(CatalogError, match=r"two\.fits: the table cannot be read"):
        ztfxr.read_catalog(path, hdu="THREE")


def test_the_catalog_of_an_lco_frame_keeps_its_one_based_pixels(shared: Path) -> None:
    """Upper-case X counts from 1 there: it must not become `x_centroid`, which counts from 0."""
    path = shared / "data" / "lco" / "banzai_test_frame.fits.fz"
    out, own = ztfxr.read_catalog(path, hdu="CAT"), ztfxr.read_lco_catalog(path)
    assert "x_centroid" not in out
    np.testing.assert_allclose(np.sort(out["X"]), np.sort(own["x_centroid"]) + 1.0)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no FITS table, Parquet, ECSV, VOTable or CSV file; it begins with b''"),
        (b"<html><body>log in</body></html>", "an HTML or XML page"),
        (b"just words\n", "begins with b'just word'"),
        (b"\x1f\x8b\x08\x00broken", "cut off or corrupt"),
        (b"SIMPLE  =                    T", "the table cannot be read"),
        (b"PAR1 no parquet", "the table cannot be read"),
        (b"# %ECSV 1.0\n# ---\nra,dec\n", "the table cannot be read"),
        (b'ra,dec\n1,2,3\n"4', "the table cannot be read"),
    ],
)
def test_what_is_no_table_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "catalog"
    path.write_bytes(content)
    with pytest.raises(CatalogError, match=message):
        ztfxr.read_catalog(path)


def test_a_missing_file_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such file"):
        ztfxr.read_catalog(tmp_path / "none.csv")


def test_parquet_without_pyarrow_names_the_extra(table: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(table, tmp_path, "parquet")
    own = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("pyarrow"):
            raise ImportError(f"No module named {name!r}")
        return own(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingDependencyError, match=r'pip install "ztfxr\[parquet\]"'):
        ztfxr.read_catalog(path)
    with pytest.raises(MissingDependencyError, match=r'pip install "ztfxr\[parquet\]"'):
        ztfxr.to_parquet(xr.Dataset({"a": ("source", [1])}), tmp_path / "new.parquet")
    assert not (tmp_path / "new.parquet").exists()


def test_no_pickle_is_read(tmp_path: Path) -> None:
    path = tmp_path / "frame.pkl"
    pd.DataFrame({"ra": [1.0], "dec": [2.0]}).to_pickle(path)
    with pytest.raises(CatalogError, match="no FITS table"):
        ztfxr.read_catalog(path)
