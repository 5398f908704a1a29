"""Light curves of IPAC's ZTF forced photometry service (Masci et al. 2023, arXiv:2305.16279)."""

from __future__ import annotations

import re
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ztfxr.errors import InputError
from ztfxr.io.times import JD_OF_MJD, mid_exposure, to_datetime
from ztfxr.schema import FILTERS, annotate_all

__all__ = ["forced_light_curve", "read_zfps"]

_MISSING = -99999.0
_NULLS = ("null", "nan", "", "n/a", "na", "none", "-", "--", "inf", "-inf")
_NEEDED = ("filter", "jd", "exptime", "forcediffimflux", "forcediffimfluxunc")
_TEXTS = ("filter", "procstatus")
_LARGEST_WHOLE = 2**53
_LAST_MJD = 146000.0
_POSITION = re.compile(r"Requested input (R\.A\.|Dec\.) = (\S+) degrees")
_DEGREES = re.compile(r"[+-]?\d+\.?\d*(e[+-]?\d+)?")
_WHOLE = ("field", "ccdid", "qid")
_MEASURED = {
    "forcediffimflux": ("flux", "DN"),
    "forcediffimfluxunc": ("flux_err", "DN"),
    "forcediffimchisq": ("fit_chi2", ""),
    "forcediffimfluxap": ("flux_aperture", "DN"),
    "forcediffimfluxuncap": ("flux_aperture_err", "DN"),
    "aperturecorr": ("aperture_correction", ""),
    "dnearestrefsrc": ("reference_distance", "arcsec"),
    "nearestrefmag": ("reference_mag", "mag"),
    "nearestrefmagunc": ("reference_mag_err", "mag"),
    "nearestrefchi": ("reference_chi", ""),
    "nearestrefsharp": ("reference_sharp", ""),
}
_EPOCH = {
    "zpdiff": ("magzp", "mag"),
    "zpmaginpsci": ("magzp_science", "mag"),
    "zpmaginpscirms": ("magzprms", "mag"),
    "clrcoeff": ("color_term", ""),
    "clrcoeffunc": ("color_term_err", ""),
    "ncalmatches": ("n_calibrators", ""),
    "sciinpseeing": ("seeing", "pixel"),
    "scibckgnd": ("sky", "DN"),
    "scisigpix": ("sky_noise", "DN"),
    "diffmaglim": ("limiting_mag", "mag"),
    "adpctdif1": ("astrometric_rms_ra", "arcsec"),
    "adpctdif2": ("astrometric_rms_dec", "arcsec"),
}
_COORDINATES = ("magzp", "magzprms", "color_term", "seeing")


def read_zfps(path: str | PathLike[str]) -> xr.Dataset:
    """Read a result file of the forced photometry service. Computes.

    Parameters
    ----------
    path
        ``forcedphotometry_req..._lc.txt`` as the service gives it.

    Returns
    -------
    xarray.Dataset
        On (time, source), with one source: `flux`, `flux_err` (DN, of the PSF fit on the difference image), `fit_chi2`
        (reduced), `flux_aperture`, `flux_aperture_err` (DN), and what the reference has nearby: `reference_mag`,
        `reference_mag_err` (mag), `reference_distance` (arcsec). On `time`: `procstatus` (text, codes separated by
        commas), `infobits`, `sky`, `sky_noise` (DN), `n_calibrators`, `limiting_mag`, ...; as coordinates `mjd` and
        `time` at mid-exposure (the file has its start), `filter`, `exptime`, `field`, `ccdid`, `qid` (1 to 4; the file
        has 0 to 3), `rcid`, `rfid` (the reference image), `magzp` (of the difference image), `magzprms`, `color_term`,
        `seeing` (pixel); `ra`, `dec` on `source`. Rows in order of time, those of unknown time last. Entries that are
        -99999, null, N/A or blank are NaN, -1 where they are whole numbers, and empty where they are text. A row with
        another number of entries than the table has columns is kept without a value, which cuts it;
        ``attrs["unreadable"]`` has its line. Columns that an older file lacks are absent, or -1.

    Raises
    ------
    FileNotFoundError
    InputError
        The file is no such table, or an entry is no number; the message names the line.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"no such file: {path}")
    text = Path(path).read_text(encoding="utf-8-sig", errors="replace")
    columns, unreadable = _columns(text, str(path))
    out = _with_position(forced_light_curve(columns, str(path)), text)
    return out.assign_attrs(unreadable=" ".join(map(str, unreadable))) if unreadable else out


def forced_light_curve(columns: dict[str, NDArray[Any]], path: str) -> xr.Dataset:
    """A light curve from columns under the names of the service, as `read_zfps` describes it, without its position.

    Raises `InputError`, which names `path`, for filters and quadrants that the service does not have.
    """
    order = np.argsort(columns["jd"], kind="stable")
    columns = {k: v[order] for k, v in columns.items()}
    mjd = np.array([mid_exposure(jd - JD_OF_MJD, s) for jd, s in zip(columns["jd"], columns["exptime"], strict=True)])
    mjd = np.where((mjd > 0) & (mjd < _LAST_MJD), mjd, np.nan)
    out = xr.Dataset(coords={**_labels(columns, str(path)), "mjd": ("time", mjd)})
    out = out.assign_coords(time=("time", np.array([to_datetime(t) for t in mjd], dtype="datetime64[ns]")))
    for column, (name, unit) in _MEASURED.items():
        if column in columns:
            out[name] = (("time", "source"), columns[column][:, None], {"units": unit} if unit else {})
    for column, (name, unit) in _EPOCH.items():
        if column in columns:
            out[name] = ("time", columns[column], {"units": unit} if unit else {})
    out["infobits"] = ("time", _whole(columns.get("infobitssci", np.zeros(len(mjd))), 0))
    if "procstatus" in columns:
        out["procstatus"] = ("time", columns["procstatus"])
    out = out.set_coords([name for name in _COORDINATES if name in out])
    return annotate_all(out)


def _columns(text: str, path: str) -> tuple[dict[str, NDArray[Any]], list[int]]:
    """Every column by the name that the service gives it, sentinels as NaN; and the lines that do not fit them."""
    lines = [(n, line) for n, line in enumerate(text.splitlines(), 1) if line.strip() and not line.startswith("#")]
    names = [name.strip().lower() for name in lines[0][1].split(",")] if lines else []
    missing = [name for name in _NEEDED if name not in names]
    if missing:
        raise InputError(f"{path} is no light curve of the forced photometry service: no column {', '.join(missing)}")
    rows = [(n, _entries(line, len(names))) for n, line in lines[1:]]
    unreadable = [n for n, row in rows if len(row) != len(names)]
    whole = [(n, row if len(row) == len(names) else [""] * len(names)) for n, row in rows]
    columns = {
        name: np.array([_text(row[i]) for _, row in whole], dtype=str)
        if name in _TEXTS
        else np.array([_number(row[i], name, number, path) for number, row in whole], dtype=np.float64)
        for i, name in enumerate(names)
    }
    return columns, unreadable


def _entries(line: str, n: int) -> list[str]:
    """The entries of a row, which spaces separate, or commas; those of procstatus have commas inside."""
    by_comma = [entry.strip() for entry in line.split(",")]
    return by_comma if len(by_comma) == n else line.split()


def _text(entry: str) -> str:
    return "" if entry.lower() in _NULLS else entry


def _number(entry: str, column: str, line: int, path: str) -> float:
    if entry.lower() in _NULLS:
        return np.nan
    try:
        value = float(entry)
    except ValueError:
        raise InputError(f"{path}, line {line}: {column} is {entry!r}, which is no number") from None
    return np.nan if value == _MISSING or not np.isfinite(value) else value


def _labels(columns: dict[str, NDArray[Any]], path: str) -> dict[str, Any]:
    """Where and through which filter each epoch was taken; quadrants counted from 1."""
    known = {f"ztf_{name[-1]}": name for name in FILTERS.values()} | {"": ""}
    filters = [known.get(name.lower()) for name in columns["filter"].tolist()]
    if None in filters:
        unknown = columns["filter"][filters.index(None)]
        raise InputError(f"{path}: unknown filter {unknown}; the service knows ZTF_g, ZTF_r, ZTF_i")
    nothing = np.full(len(filters), np.nan)
    place = {name: _whole(columns.get(name, nothing), -1) for name in _WHOLE}
    if np.any(place["qid"] > 3):
        raise InputError(f"{path}: qid runs to {place['qid'].max()}, but the service counts quadrants from 0 to 3")
    is_known = (place["qid"] >= 0) & (place["ccdid"] > 0)
    place["qid"] = np.where(place["qid"] >= 0, place["qid"] + 1, -1)
    place["rcid"] = np.where(is_known, 4 * (place["ccdid"] - 1) + place["qid"] - 1, -1)
    labels: dict[str, Any] = {name: ("time", values) for name, values in place.items()}
    if "rfid" in columns:
        labels["rfid"] = ("time", _whole(columns["rfid"], -1), {"long_name": "reference image"})
    labels["filter"] = ("time", np.array(filters, dtype="U4"))
    return labels | {"exptime": ("time", columns["exptime"])}


def _whole(values: NDArray[Any], fill: int) -> NDArray[np.int64]:
    return np.where(np.abs(values) < _LARGEST_WHOLE, values, fill).astype(np.int64)


def _with_position(out: xr.Dataset, text: str) -> xr.Dataset:
    found = {name: float(value) for name, value in _POSITION.findall(text) if _DEGREES.fullmatch(value)}
    for axis, name in (("R.A.", "ra"), ("Dec.", "dec")):
        out = out.assign_coords({name: ("source", [found.get(axis, np.nan)])})
    return annotate_all(out)
