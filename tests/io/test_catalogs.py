"""Catalogs from local files."""

from __future__ import annotations

import builtins
import gzip
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from astropy.io import fits
from astropy.table import MaskedColumn, Table

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


BIG = 2**62 + 1


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        (["007", "12"], ["007", "12"]),
        (["12", "0"], [12, 0]),
        ([str(BIG), str(BIG + 2)], [BIG, BIG + 2]),
        ([str(BIG), ""], [str(BIG), ""]),
        ([str(2**63 + 1), "5"], [2**63 + 1, 5]),
        ([str(-BIG), "5"], [-BIG, 5]),
        ([str(10**20 + 1), "5"], [str(10**20 + 1), "5"]),
        (["1", "N/A"], [1.0, np.nan]),
        (["15.5", "--"], [15.5, np.nan]),
        (["15.5", "null"], [15.5, np.nan]),
        (["1e-3", ".5"], [0.001, 0.5]),
        (["True", "false"], [True, False]),
        (["1_000", "2"], ["1_000", "2"]),
        (["Vega", ""], ["Vega", ""]),
        (["", ""], [np.nan, np.nan]),
    ],
)
def test_entries_of_csv_are_what_they_say(tmp_path: Path, entries: list[str], expected: list[Any]) -> None:
    path = tmp_path / "c.csv"
    path.write_text("ra,dec,name\n" + "".join(f"1.0,02,{entry}\n" for entry in entries))
    found = ztfxr.read_catalog(path)
    np.testing.assert_array_equal(found["name"].values, np.array(expected))
    assert found["name"].values.tolist() == expected or found["name"].dtype.kind == "f"
    assert found["dec"].values.tolist() == [2.0, 2.0]


@pytest.mark.parametrize("form", ["masked", "nullable", "objects", "positions"])
def test_ids_are_exact_where_some_are_missing(form: str) -> None:
    sky = {"ra": [1.0, 2.0], "dec": [1.0, 2.0]}
    tables = {
        "masked": Table({"id": MaskedColumn([BIG, 5], mask=[False, True]), **sky}),
        "nullable": pd.DataFrame({"id": pd.array([BIG, None], dtype="Int64"), **sky}),
        "objects": {"id": np.array([BIG, None], dtype=object), **sky},
    }
    if form != "positions":
        assert ztfxr.as_catalog(tables[form])["id"].values.tolist() == [str(BIG), ""]
        return
    image = xr.Dataset({"sci": (("y", "x"), np.zeros((4, 4)))})
    for table in tables.values():
        columns = dict(table.items()) if isinstance(table, dict) else table
        where = {"x": [1, 2], "y": [1, 2], "id": columns["id"]}
        assert ztfxr.resolve_positions(image, where)["source_id"].values.tolist() == [str(BIG), ""]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("above", ["", "\n\n", "# made, by hand\n", "# a\n\n# b, c, d\n", "#ra, dec ,mag\n"])
def test_marks_comments_and_blank_lines_are_no_rows(tmp_path: Path, above: str, encoding: str) -> None:
    path = tmp_path / "c.csv"
    head = "" if above.startswith("#ra") else "ra, dec, mag\n"
    path.write_text(f"{above}{head}1.5,2.5,15\n\n# between\n3.5,4.5,16\n", encoding=encoding)
    found = ztfxr.read_catalog(path)
    assert found["ra"].values.tolist() == [1.5, 3.5]
    assert found["mag"].values.tolist() == [15, 16]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("ra,dec\n1,2,3\n", "line 2 has 3 entries for 2 columns"),
        ("ra,dec,mag\n1,2,3\n4,5\n", "line 3 has 2 entries for 3 columns"),
        ("ra,dec,mag,mag\n1,2,3,4\n", "two columns have one name"),
        ("# ra, dec\n", "it has no row"),
    ],
)
def test_rows_that_do_not_fit_are_named(tmp_path: Path, content: str, message: str) -> None:
    """A row with an entry too many moved every column by one."""
    path = tmp_path / "c.csv"
    path.write_text(content)
    with pytest.raises(CatalogError, match=message):
        ztfxr.read_catalog(path)


@pytest.mark.parametrize(
    ("name", "values", "lost"),
    [
        ("gmag", [15.0, -999.0, 99.0], 2),
        ("gmag", [15.0, 0.0, 9999.0], 2),
        ("e_gmag", [0.0, 0.1, -1.0], 1),
        ("mag_r_err", [0.02, 99.0, 9.999], 2),
        ("dmag", [0.0, 1.0, -0.5], 0),
        ("mag", [0.0, 1.0, -1.46], 0),
        ("x_image", [0.0, 999.0, 99.0], 0),
        ("flux", [0.0, -999.0, 99.0], 0),
    ],
)
def test_codes_for_missing_magnitudes_are_nan_and_counted(name: str, values: list[float], lost: int) -> None:
    table = {"ra": np.arange(3.0), "dec": np.arange(3.0), name: np.array(values)}
    found = ztfxr.as_catalog(ztfxr.as_catalog(table))[name]
    assert int(np.isnan(found).sum()) == lost == found.attrs.get("n_codes", 0)
    np.testing.assert_array_equal(found.values[~np.isnan(found)], np.array(values)[~np.isnan(found)])
    lazy = ztfxr.as_catalog(ztfxr.as_catalog(table).drop_vars(name).assign({name: ("source", da.from_array(values))}))
    assert lazy[name].chunks is not None
