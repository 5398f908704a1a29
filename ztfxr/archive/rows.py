"""Rows of the archive's metadata: from its text to labeled columns, with the names of the files that they stand for."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from ztfxr.arrays.geometry.tangent import to_tangent
from ztfxr.arrays.types import Floats
from ztfxr.errors import ArchiveError, InputError
from ztfxr.io.names import Product, parse_product
from ztfxr.io.times import JD_OF_MJD, mid_exposure

__all__ = ["AUTHORIZED", "SHAPE", "Family", "Kind", "as_rows", "pixel_of", "place_columns", "read_csv"]

Kind = Literal["science", "difference", "reference", "deep", "raw", "calibration"]

AUTHORIZED = "public rows, and those of the log-in's programs"
_BAD = 1 << 25
SHAPE = (3080, 3072)
"""Rows and columns of a quadrant's image."""
_TEXTS = frozenset(
    [
        "filtercode",
        "imgtype",
        "imgtypecode",
        "caltype",
        "nightdate",
        "obsdate",
        "startobsdate",
        "endobsdate",
        "ipac_pub_date",
        "poly",
    ]
)
_WHOLE = frozenset(
    [
        "infobits",
        "field",
        "ccdid",
        "qid",
        "rcid",
        "fid",
        "pid",
        "nid",
        "expid",
        "rfid",
        "cid",
        "nframes",
        "filefracday",
        "ipac_gid",
        "itid",
        "meta_id",
    ]
)
_UNITS = {
    **dict.fromkeys(("ra", "dec", "crval1", "crval2", "telra", "teldec"), "deg"),
    **{f"{axis}{corner}": "deg" for axis in ("ra", "dec") for corner in range(1, 5)},
    "exptime": "s",
    "seeing": "arcsec",
    "maglimit": "mag",
    "obsjd": "d",
}
_MEANINGS = {"obsjd": "start of the exposure (JD)", "seeing": "FWHM of stars", "maglimit": "limiting magnitude"}


@dataclass(frozen=True)
class Family:
    """A kind of products: the archive's folder of it, the suffix of its file, and the columns that make its name."""

    folder: Literal["sci", "raw", "cal", "ref", "deep"]
    suffix: str
    needed: tuple[str, ...]

    @classmethod
    def of(cls, kind: str) -> Family:
        """The family of a kind, by its name."""
        if kind not in _FAMILIES:
            raise InputError(f"kind is one of {', '.join(get_args(Kind))}; got {kind!r}")
        return _FAMILIES[kind]

    def conditions(self) -> list[str]:
        """What rows must fulfill to be of this kind."""
        return ["imgtypecode = 'o'"] if self.folder == "sci" else []


_EXPOSURE = ("filefracday", "field", "filtercode", "ccdid", "imgtypecode")
_REFERENCE = ("field", "filtercode", "ccdid", "qid")
_FAMILIES = {
    "science": Family("sci", "sciimg.fits", (*_EXPOSURE, "qid")),
    "difference": Family("sci", "scimrefdiffimg.fits.fz", (*_EXPOSURE, "qid")),
    "reference": Family("ref", "refimg.fits", _REFERENCE),
    "deep": Family("deep", "refimg.fits", _REFERENCE),
    "raw": Family("raw", "fits.fz", _EXPOSURE),
    "calibration": Family("cal", "fits", ("nightdate", "filtercode", "ccdid", "qid", "caltype")),
}


def read_csv(text: bytes, family: Family) -> pd.DataFrame:
    """The table of an answer, columns by name in lower case; `ArchiveError` for what is none, or lacks a column."""
    try:
        table = pd.read_csv(
            io.BytesIO(text),
            encoding="utf-8-sig",
            dtype=dict.fromkeys(_TEXTS, str),
            keep_default_na=True,
            low_memory=False,
        )
    except (ValueError, UnicodeDecodeError) as error:
        raise ArchiveError(f"the archive's answer is no table ({type(error).__name__}); ask again") from None
    table.columns = table.columns.str.strip().str.lower()
    missing = [name for name in family.needed if name not in table]
    if missing:
        raise ArchiveError(f"the archive's answer has no column {', '.join(missing)}; it has {', '.join(table)}"[:300])
    return table


def as_rows(table: pd.DataFrame, family: Family, place: tuple[Any, Any] | None = None) -> xr.Dataset:
    """A table of the archive as a Dataset on `row` in order of time, with names, paths and times; see `search`."""
    order = [name for name in ("obsjd", "field", "rcid", "pid") if name in table]
    table = table.sort_values(order, kind="stable", ignore_index=True) if order else table
    out = xr.Dataset({str(name): ("row", _column(str(name), table[name])) for name in table})
    for name, variable in out.variables.items():
        variable.attrs = {"units": _UNITS[str(name)]} if name in _UNITS else {}
        variable.attrs |= {"long_name": _MEANINGS[str(name)]} if name in _MEANINGS else {}
    products = _products(out, family)
    out["name"] = ("row", np.array([p.name for p in products], dtype=str))
    out["path"] = ("row", np.array([p.path for p in products], dtype=str))
    out["filter"] = ("row", np.array([p.filter for p in products], dtype=str))
    if {"obsjd", "exptime"} <= set(out):
        mjd = mid_exposure(out["obsjd"].values - JD_OF_MJD, out["exptime"].values)  # type: ignore[arg-type]
        out["mjd"] = ("row", mjd, {"units": "d", "long_name": "middle of the exposure (MJD, UTC)"})
    if "infobits" in out:
        out["bad"] = ("row", (out["infobits"].values & _BAD) != 0, {"long_name": "the archive calls it bad"})
    if place is not None and {"crpix1", "cd11", "crval1"} <= set(out):
        out = out.assign(place_columns(*pixel_of(out, *place)))
    return out


def pixel_of(rows: xr.Dataset, ra: Any, dec: Any) -> tuple[Floats, Floats]:
    """Where a position (deg) is on each row's image, in 0-based pixels, by the linear terms of its WCS."""
    value = {
        name: rows[name].values for name in ("crpix1", "crpix2", "crval1", "crval2", "cd11", "cd12", "cd21", "cd22")
    }
    u, v = (w / 3600.0 for w in to_tangent(ra, dec, cast("Any", (value["crval1"], value["crval2"]))))
    determinant = value["cd11"] * value["cd22"] - value["cd12"] * value["cd21"]
    with np.errstate(divide="ignore", invalid="ignore"):
        x = (value["cd22"] * u - value["cd12"] * v) / determinant + value["crpix1"] - 1
        y = (value["cd11"] * v - value["cd21"] * u) / determinant + value["crpix2"] - 1
    return np.asarray(x), np.asarray(y)


def place_columns(x: Floats, y: Floats) -> dict[str, Any]:
    """The columns `x` and `y` of where a position is on each row's image."""
    about = {"units": "pixel", "long_name": "place of the position, 0-based, by the linear WCS"}
    return {"x": ("row", x, about), "y": ("row", y, about)}


def _column(name: str, column: pd.Series[Any]) -> NDArray[Any]:
    if name in _TEXTS:
        return np.asarray(column.fillna("").astype(str).to_numpy(dtype=str))
    if name in _WHOLE:
        return np.asarray(pd.to_numeric(column, errors="coerce").fillna(-1).astype(np.int64).to_numpy())
    numbers = pd.to_numeric(column, errors="coerce")
    if bool((numbers.isna() & column.notna()).any()):
        return np.asarray(column.fillna("").astype(str).to_numpy(dtype=str))
    return np.asarray(numbers.to_numpy(dtype=np.float64))


def _products(rows: xr.Dataset, family: Family) -> list[Product]:
    """The files of rows; made by the grammar, and read by it again, so that nothing else passes."""
    columns = {name: rows[name].values.tolist() for name in family.needed}
    return [_product(dict(zip(columns, values, strict=True)), family) for values in zip(*columns.values(), strict=True)]


def _product(row: dict[str, Any], family: Family) -> Product:
    has_stem = family.folder not in ("raw", "cal")
    stem, _, ending = family.suffix.partition(".") if has_stem else ("", "", family.suffix)
    product = Product(
        family.folder,
        f"{row['filefracday']:014d}" if "filefracday" in row else _digits(str(row.get("nightdate", ""))),
        max(0, row.get("field", 0)),
        row["filtercode"] or "00",
        row["ccdid"],
        row.get("qid", 0),
        row.get("caltype") or row.get("imgtypecode", ""),
        stem,
        ending,
    )
    try:
        return parse_product(product.name, family.folder)
    except InputError:
        raise ArchiveError(f"the archive has a row that names no product: {product.name!r}") from None


def _digits(text: str) -> str:
    return "".join(c for c in text if c.isdigit())[:8]
