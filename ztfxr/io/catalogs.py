"""Catalogs from local files, and from VizieR."""

from __future__ import annotations

import csv
import gzip
import io
import re
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.table import Table
from astropy.utils.exceptions import AstropyWarning
from numpy.typing import NDArray

from ztfxr._quiet import quiet
from ztfxr.errors import CatalogError, InputError, MissingDependencyError
from ztfxr.io.fits import DAMAGE, open_hdus
from ztfxr.io.tables import as_catalog
from ztfxr.schema import find_columns

__all__ = ["SURVEYS", "Survey", "query_cone", "read_catalog", "read_table"]

_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_NULLS = ("", "nan", "null", "none", "n/a", "na", "-", "--", "---", "...")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?inf|nan", re.IGNORECASE)
_WHOLE = re.compile(r"[+-]?\d+")


def read_catalog(
    path: str | PathLike[str],
    *,
    columns: Iterable[str] | Mapping[str, str] | None = None,
    hdu: int | str | None = None,
) -> xr.Dataset:
    """Read a catalog from a local file. Computes.

    Parameters
    ----------
    path
        A FITS table, Parquet (``pip install "ztfxr[parquet]"``), ECSV, VOTable or CSV file; all but Parquet may be
        gzipped. What it is, is seen from its first bytes, not from its name. Of CSV, blank lines and lines that begin
        with ``#`` are passed over; whole numbers are exact, those with leading zeros (``007``) stay text; blank, null,
        N/A and ``--`` are missing.
    columns
        Names of the columns to read besides `ra`, `dec`, as the file has them; or new names to those of the file,
        ``{"mag": "rmag"}``. All by default.
    hdu
        The table's number or name in a FITS file; by default the first table.

    Returns
    -------
    xarray.Dataset
        On `source`, as `ztfxr.as_catalog` gives it, with units; ``attrs["source"]`` is the file's name.

    Raises
    ------
    FileNotFoundError
    CatalogError
        The file is none of these, or cannot be read.
    InputError
        A column that the file does not have.
    MissingDependencyError
        A Parquet file without pyarrow.
    """
    path = Path(path)
    out = as_catalog(read_table(path, hdu))
    return _selected(out, columns, str(path)).assign_attrs(source=path.name)


def read_table(path: Path, hdu: int | str | None = None, *, guess: bool = False) -> Any:
    """A table as `ztfxr.read_catalog` takes it, its columns as they are in the file.

    With `guess`, a file of none of its kinds is read as whichever of astropy's formats it is.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no such file: {path}")
    read = _reader(path, guess)
    try:
        with quiet(AstropyWarning):
            return read(path, hdu)
    except (*DAMAGE, csv.Error) as error:
        raise CatalogError(f"{path}: the table cannot be read ({error}); fetch or write it again") from error


def _reader(path: Path, guess: bool) -> Callable[[Path, int | str | None], Any]:
    head = _head(path)
    if head.startswith(b"SIMPLE  ="):
        return _read_fits
    if head.startswith(b"PAR1"):
        return _read_parquet
    if head.startswith(b"# %ECSV"):
        return _read_ecsv
    if b"<VOTABLE" in head:
        return _read_votable
    if head.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        raise CatalogError(f"{path}: an HTML or XML page; the server sent an error or a login page")
    if head.startswith(_UTF16) or (b"\0" not in head and b"," in head):
        return _read_csv
    if guess:
        return _read_guess
    raise CatalogError(f"{path}: no FITS table, Parquet, ECSV, VOTable or CSV file; it begins with {head[:9]!r}")


def _is_gzipped(path: Path) -> bool:
    with path.open("rb") as raw:
        return raw.read(2) == b"\x1f\x8b"


def _head(path: Path) -> bytes:
    try:
        with gzip.open(path) if _is_gzipped(path) else path.open("rb") as stream:
            return stream.read(4096)
    except (OSError, EOFError, zlib.error) as error:
        raise CatalogError(f"{path}: the file is cut off or corrupt ({error}); fetch it again") from error


def _read_fits(path: Path, hdu: int | str | None) -> Table:
    with open_hdus(path):  # headers on which astropy would hang are refused here
        return Table.read(path, format="fits", hdu=hdu, memmap=False)


def _read_ecsv(path: Path, hdu: int | str | None) -> Table:  # noqa: ARG001
    return Table.read(path, format="ascii.ecsv")


def _read_votable(path: Path, hdu: int | str | None) -> Table:  # noqa: ARG001
    return Table.read(path, format="votable")


def _read_guess(path: Path, hdu: int | str | None) -> Table:  # noqa: ARG001
    return Table.read(path)


def _read_csv(path: Path, hdu: int | str | None) -> dict[str, NDArray[Any]]:  # noqa: ARG001
    """The columns of a CSV file; every row has as many entries as the header, or the table cannot be trusted."""
    raw = gzip.decompress(path.read_bytes()) if _is_gzipped(path) else path.read_bytes()
    header, rows = _rows(raw.decode("utf-16" if raw.startswith(_UTF16) else "utf-8-sig"))
    for number, row in rows:
        if len(row) != len(header):
            raise ValueError(f"line {number} has {len(row)} entries for {len(header)} columns")
    columns = {name: [row[i] for _, row in rows] for i, name in enumerate(header) if name}
    if len(columns) < sum(map(bool, header)):
        raise ValueError(f"two columns have one name: {', '.join(header)}")
    nameless = [i for i, name in enumerate(header) if not name and any(row[i] for _, row in rows)]
    columns |= {f"column_{i + 1}": [row[i] for _, row in rows] for i in nameless}
    sky = {column for key, column in find_columns(columns).items() if key != "id"}
    return {name: _parsed(entries, is_number=name in sky) for name, entries in columns.items()}


def _rows(text: str) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """The names of the columns, and every row with the number of its line; comments and blank lines left out.

    A comment above the rows has the names where the first line that is none holds numbers.
    """
    reader = csv.reader(io.StringIO(text), skipinitialspace=True, strict=True)
    lines = [(reader.line_num, [entry.strip() for entry in row]) for row in reader if row and any(map(str.strip, row))]
    rows = [line for line in lines if not line[1][0].startswith("#")]
    above = [row for number, row in lines if row[0].startswith("#") and rows and number < rows[0][0]]
    if above and all(map(_NUMBER.fullmatch, filter(None, rows[0][1]))) and len(above[-1]) == len(rows[0][1]):
        return [above[-1][0].lstrip("# "), *above[-1][1:]], rows
    if not rows:
        raise ValueError("it has no row")
    return rows[0][1], rows[1:]


def _parsed(entries: list[str], *, is_number: bool) -> NDArray[Any]:
    """The entries of a column: whole numbers exactly, numbers, or text as it is."""
    present = [entry for entry in entries if entry.lower() not in _NULLS]
    if present and all(entry.lower() in ("true", "false") for entry in entries):
        return np.array([entry.lower() == "true" for entry in entries])
    if not all(map(_NUMBER.fullmatch, present)) or (not present and any(entries)):
        return np.array(entries, dtype=str)
    whole = bool(present) and all(map(_WHOLE.fullmatch, present))
    if whole and not is_number:
        if any(entry.lstrip("+-")[0] == "0" and len(entry.lstrip("+-")) > 1 for entry in present):
            return np.array(entries, dtype=str)
        numbers = [int(entry) for entry in present]
        exact = next((d for d in (np.int64, np.uint64) if _holds(d, numbers)), None)
        if exact is None or (len(present) < len(entries) and max(map(abs, numbers)) >= 2**53):
            return np.array([entry if entry.lower() not in _NULLS else "" for entry in entries], dtype=str)
        if len(present) == len(entries):
            return np.array(numbers, dtype=exact)
    return np.array([np.nan if entry.lower() in _NULLS else float(entry) for entry in entries], dtype=np.float64)


def _holds(dtype: Any, numbers: list[int]) -> bool:
    return np.iinfo(dtype).min <= min(numbers) and max(numbers) <= np.iinfo(dtype).max


def _read_parquet(path: Path, hdu: int | str | None) -> pd.DataFrame:  # noqa: ARG001
    try:
        return pd.read_parquet(path, engine="pyarrow")
    except ImportError as error:
        raise MissingDependencyError.for_extra("pyarrow", "parquet") from error


def _selected(catalog: xr.Dataset, columns: Iterable[str] | Mapping[str, str] | None, path: str) -> xr.Dataset:
    if columns is None:
        return catalog
    wanted = dict(columns) if isinstance(columns, Mapping) else {name: name for name in columns}
    missing = [old for old in wanted.values() if old not in catalog.variables]
    if missing:
        found = ", ".join(map(str, catalog.variables))
        raise InputError(f"{path} has no column {', '.join(missing)}; it has {found}")
    kept = catalog.drop_vars([name for name in catalog.data_vars if name not in wanted.values()])
    return kept.rename({old: new for new, old in wanted.items() if old != new})


# ---- VizieR ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Survey:
    """A catalog at VizieR: its columns as they are there and here, and the epoch of its positions."""

    vizier: str
    columns: Mapping[str, str]
    bands: Mapping[str, str]
    epoch: float | None = None

    def band(self, image_filter: str) -> str | None:
        """The column of magnitudes that goes with an image's filter."""
        return self.bands.get(image_filter, self.bands.get("any"))

    def column(self, name: str) -> str:
        """What VizieR calls the column `name`."""
        return next(theirs for theirs, ours in self.columns.items() if ours == name)


_PS1_BANDS = {
    column: name
    for band in "grizy"
    for column, name in ((f"{band}mag", f"mag_{band}"), (f"e_{band}mag", f"mag_{band}_err"))
}
SURVEYS: Mapping[str, Survey] = {
    "ps1": Survey(
        vizier="II/349/ps1",
        columns={"objID": "source_id", "RAJ2000": "ra", "DEJ2000": "dec", **_PS1_BANDS, "Qual": "quality"},
        bands={"ztfg": "mag_g", "ztfr": "mag_r", "ztfi": "mag_i"},
    ),
    "gaia": Survey(
        vizier="I/355/gaiadr3",
        columns={
            "Source": "source_id",
            "RA_ICRS": "ra",
            "DE_ICRS": "dec",
            "pmRA": "pmra",
            "pmDE": "pmdec",
            "Plx": "parallax",
            "Gmag": "mag_g",
            "e_Gmag": "mag_g_err",
            "BPmag": "mag_bp",
            "e_BPmag": "mag_bp_err",
            "RPmag": "mag_rp",
            "e_RPmag": "mag_rp_err",
            "RUWE": "ruwe",
        },
        bands={"any": "mag_g"},
        epoch=2016.0,
    ),
}
"""Catalogs that `ztfxr.query_catalog` knows by name."""


def query_cone(
    survey: Survey, center: SkyCoord, radius: float, *, limits: Mapping[str, float], timeout: float
) -> xr.Dataset:
    """The sources of a survey within `radius` degrees, its columns under our names. Asks the network.

    `limits` are upper limits by our names of the columns. Raises `CatalogError` where there is no usable answer,
    `MissingDependencyError` without astroquery.
    """
    try:
        from astroquery import exceptions
        from astroquery.vizier import Vizier
    except ImportError as error:
        raise MissingDependencyError.for_extra("astroquery", "catalogs") from error
    filters = {survey.column(name): f"<{limit:g}" for name, limit in limits.items()}
    client = Vizier(columns=list(survey.columns), column_filters=filters, row_limit=-1, timeout=timeout)
    try:
        # astroquery's cache on disk is made of pickles, which ztfxr never reads.
        tables = client.query_region(center, radius=radius * u.deg, catalog=survey.vizier, cache=False)
    except (
        OSError,
        ValueError,
        exceptions.RemoteServiceError,
        exceptions.TableParseError,
        exceptions.TimeoutError,
    ) as error:
        raise CatalogError(
            f"VizieR gave no catalog {survey.vizier} ({type(error).__name__}: {error}); try again later, or read a "
            "local file with ztfxr.read_catalog"
        ) from error
    if tables is None:
        raise CatalogError(f"VizieR's answer for {survey.vizier} is no table; try again later")
    table = tables[0] if len(tables) else Table({name: np.empty(0) for name in survey.columns})
    return as_catalog({ours: table[theirs] for theirs, ours in survey.columns.items() if theirs in table.colnames})
