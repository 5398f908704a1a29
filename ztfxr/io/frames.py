"""What a ZTF image header says of the exposure, as coordinates."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from astropy.io import fits

from ztfxr.errors import HeaderError
from ztfxr.io.names import QuadrantName, parse_name
from ztfxr.io.times import JD_OF_MJD, mid_exposure, to_datetime
from ztfxr.schema import FILTERS, SPECS

__all__ = ["QUALITY_CARDS", "epoch_coords", "filter_of", "seeing_unit"]

QUALITY_CARDS: Mapping[str, str] = {
    "magzp": "MAGZP",
    "magzprms": "MAGZPRMS",
    "gain": "GAIN",
    "readnoise": "READNOI",
    "saturate": "SATURATE",
    "seeing": "SEEING",
}
"""Cards that describe the quality of an exposure, by coordinate."""


def epoch_coords(header: fits.Header, path: str) -> dict[str, xr.Variable]:
    """Scalar coordinates of an exposure from its header; `HeaderError` where an essential card is absent or wrong.

    The time is OBSMJD (the start) plus half of EXPTIME. Cards that describe quality (MAGZP, GAIN, ...) are NaN where
    absent.
    """
    name = parse_name(Path(path).name) or parse_name(str(header.get("FILENAME", "")))
    exptime = _number(header, path, "EXPTIME")
    start = _number(header, path, "OBSMJD") if "OBSMJD" in header else _number(header, path, "OBSJD") - JD_OF_MJD
    mjd = mid_exposure(start, exptime)
    values: dict[str, Any] = {
        "time": to_datetime(mjd),
        "mjd": mjd,
        "filter": _filter(header, path),
        "exptime": exptime,
        **_place(header, path, name),
        "filefracday": name.filefracday if name else -1,
        **{key: _number(header, path, card, default=np.nan) for key, card in QUALITY_CARDS.items()},
    }
    units = {"seeing": seeing_unit(header)}
    return {k: _scalar(k, v, units) for k, v in values.items()}


def _scalar(name: str, value: Any, units: Mapping[str, str]) -> xr.Variable:
    attrs = dict(SPECS[name].attrs)
    if name in units:
        attrs["units"] = units[name]
    return xr.Variable((), value, attrs)


def _place(header: fits.Header, path: str, name: QuadrantName | None) -> dict[str, int]:
    """Field and readout channel, from the header; the file name fills what the header lacks."""
    fallback = {"FIELDID": name.field, "CCDID": name.ccdid, "QID": name.qid} if name else {}
    field, ccdid, qid = (int(_number(header, path, k, default=fallback.get(k))) for k in ("FIELDID", "CCDID", "QID"))
    return {"field": field, "ccdid": ccdid, "qid": qid, "rcid": 4 * (ccdid - 1) + qid - 1}


def filter_of(header: fits.Header) -> str | None:
    """The ZTF filter that a header names by number or text; None where it names none."""
    number = header.get("FILTERID")
    if number in FILTERS:
        return FILTERS[int(number)]
    text = _filter_text(header)
    return text if text in FILTERS.values() else None


def _filter_text(header: fits.Header) -> str:
    return str(header.get("FILTER", "")).strip().lower().replace("_", "")


def _filter(header: fits.Header, path: str) -> str:
    found = filter_of(header)
    if found is None:
        raise HeaderError(
            f"{path}: FILTERID = {header.get('FILTERID')!r} and FILTER = {_filter_text(header)!r} name no ZTF filter "
            "(1 g, 2 r, 3 i)"
        )
    return found


def seeing_unit(header: fits.Header) -> str:
    """The unit of SEEING: arcsec where its comment says so, else pixel."""
    comment = header.comments["SEEING"].lower() if "SEEING" in header else ""
    return "arcsec" if "arcsec" in comment else "pixel"


def _number(header: fits.Header, path: str, card: str, default: float | None = None) -> float:
    value = header.get(card, default)
    if value is None:
        raise HeaderError(f"{path}: the header has no {card}; is this a ZTF science image?")
    if isinstance(value, bool | str) or not isinstance(value, int | float):
        if default is not None and np.isnan(default) and isinstance(value, fits.card.Undefined):
            return default
        raise HeaderError(f"{path}: {card} = {value!r} is not a number")
    return float(value)
