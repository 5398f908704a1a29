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
_NULLS = ("null", "nan", "")
_NEEDED = ("field", "ccdid", "qid", "filter", "jd", "exptime", "forcediffimflux", "forcediffimfluxunc", "procstatus")
_POSITION = re.compile(r"Requested input (R\.A\.|Dec\.) = (\S+) degrees")
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
        `seeing` (pixel); `ra`, `dec` on `source`. Rows in order of time. Entries that are -99999 or null are NaN.

    Raises
    ------
    InputError
        The file is no such table, or a row has too few or wrong entries; the message names the line.
    """
    text = Path(path).read_text(encoding="utf-8", errors="replace")
    return _with_position(forced_light_curve(_columns(text, str(path)), str(path)), text)


def forced_light_curve(columns: dict[str, NDArray[Any]], path: str) -> xr.Dataset:
    """A light curve from columns under the names of the service, as `read_zfps` describes it, without its position.

    Raises `InputError`, which names `path`, for filters and quadrants that the service does not have.
    """
    order = np.argsort(columns["jd"], kind="stable")
    columns = {k: v[order] for k, v in columns.items()}
    mjd = np.array([mid_exposure(jd - JD_OF_MJD, s) for jd, s in zip(columns["jd"], columns["exptime"], strict=True)])
    out = xr.Dataset(coords={**_labels(columns, str(path)), "mjd": ("time", mjd)})
    out = out.assign_coords(time=("time", np.array([to_datetime(t) for t in mjd], dtype="datetime64[ns]")))
    for column, (name, unit) in _MEASURED.items():
        if column in columns:
            out[name] = (("time", "source"), columns[column][:, None], {"units": unit} if unit else {})
    for column, (name, unit) in _EPOCH.items():
        if column in columns:
            out[name] = ("time", columns[column], {"units": unit} if unit else {})
    out["infobits"] = ("time", _whole(columns.get("infobitssci", np.zeros(len(mjd))), 0))
    out["procstatus"] = ("time", columns["procstatus"])
    out = out.set_coords([name for name in _COORDINATES if name in out])
    return annotate_all(out)


def _columns(text: str, path: str) -> dict[str, NDArray[Any]]:
    """Every column by the name that the service gives it, sentinels as NaN."""
    lines = [(n, line) for n, line in enumerate(text.splitlines(), 1) if line.strip() and not line.startswith("#")]
    names = [name.strip() for name in lines[0][1].split(",")] if lines else []
    missing = [name for name in _NEEDED if name not in names]
    if missing:
        raise InputError(f"{path} is no light curve of the forced photometry service: no column {', '.join(missing)}")
    rows = [(n, line.split()) for n, line in lines[1:]]
    for number, row in rows:
        if len(row) != len(names):
            raise InputError(f"{path}, line {number}: {len(row)} entries for {len(names)} columns; is it cut off?")
    text_columns = ("filter", "procstatus")
    return {
        name: np.array([row[i] for _, row in rows], dtype=str)
        if name in text_columns
        else np.array([_number(row[i], name, number, path) for number, row in rows], dtype=np.float64)
        for i, name in enumerate(names)
    }


def _number(entry: str, column: str, line: int, path: str) -> float:
    if entry.lower() in _NULLS:
        return np.nan
    try:
        value = float(entry)
    except ValueError:
        raise InputError(f"{path}, line {line}: {column} is {entry!r}, which is no number") from None
    return np.nan if value == _MISSING else value


def _labels(columns: dict[str, NDArray[Any]], path: str) -> dict[str, Any]:
    """Where and through which filter each epoch was taken; quadrants counted from 1."""
    known = {f"ZTF_{name[-1]}": name for name in FILTERS.values()}
    unknown = sorted(set(columns["filter"].tolist()) - set(known))
    if unknown:
        raise InputError(f"{path}: unknown filter {', '.join(unknown)}; the service knows {', '.join(known)}")
    place = {name: _whole(columns[name], -1) for name in _WHOLE}
    if np.any((place["qid"] < 0) | (place["qid"] > 3)):
        raise InputError(f"{path}: qid runs to {place['qid'].max()}, but the service counts quadrants from 0 to 3")
    place["qid"] = place["qid"] + 1
    place["rcid"] = 4 * (place["ccdid"] - 1) + place["qid"] - 1
    labels: dict[str, Any] = {name: ("time", values) for name, values in place.items()}
    if "rfid" in columns:
        labels["rfid"] = ("time", _whole(columns["rfid"], -1), {"long_name": "reference image"})
    labels["filter"] = ("time", np.array([known[name] for name in columns["filter"].tolist()], dtype="U4"))
    return labels | {"exptime": ("time", columns["exptime"])}


def _whole(values: NDArray[Any], fill: int) -> NDArray[np.int64]:
    return np.where(np.isfinite(values), values, fill).astype(np.int64)


def _with_position(out: xr.Dataset, text: str) -> xr.Dataset:
    found = {name: float(value) for name, value in _POSITION.findall(text)}
    for axis, name in (("R.A.", "ra"), ("Dec.", "dec")):
        out = out.assign_coords({name: ("source", [found.get(axis, np.nan)])})
    return annotate_all(out)
