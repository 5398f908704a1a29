"""An exposure as FITS cards, and back: what ztfxr writes into headers, and reads from them again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from astropy import units as u
from astropy.io import fits

from ztfxr.errors import InputError
from ztfxr.io.frames import QUALITY_CARDS, filter_of, seeing_unit
from ztfxr.io.names import parse_name
from ztfxr.io.times import JD_OF_MJD, mid_exposure, to_datetime, to_mjd
from ztfxr.schema import FILTERS, MASK_PLANES, SPECS
from ztfxr.wcs import WCSIndex, wcs_cards

__all__ = [
    "EXTENSIONS",
    "TYPE_CARD",
    "as_unit",
    "exposure_coords",
    "exposure_header",
    "fits_unit",
    "plane_cards",
    "unit_of",
    "window_header",
    "window_start",
]

EXTENSIONS: Mapping[str, str] = {"sci": "SCI", "flags": "MSK", "variance": "VAR"}
"""Names of FITS extensions by variable; any other variable goes by its own name in capitals."""

TYPE_CARD = "ZXR_TYPE"
"""The dtype of a variable, where FITS has another or none for it."""

_START = {"x": "ZXR_X0", "y": "ZXR_Y0"}
_PHYSICAL = {"x": "LTV1", "y": "LTV2"}
_INTEGERS = {"field": "FIELDID", "ccdid": "CCDID", "qid": "QID", "rcid": "RCID", "filefracday": "FILEFRAC"}
_NUMBERS = {"exptime": "EXPTIME", **QUALITY_CARDS}
_MID_EXPOSURE = "MJD-AVG"
_COMMENT_LENGTH = 47
_OF_THE_ARRAY = ("EXTNAME", "EXTVER", "EXTLEVEL", "INHERIT", "BUNIT", "BLANK", "CHECKSUM", "DATASUM", TYPE_CARD)
# The WCS text carries these too, but they tell of the exposure, and stay where the image has lost its WCS.
_NOT_ONLY_WCS = ("MJD-OBS", "DATE-OBS", "EQUINOX", "RA", "DEC", "OBJRAD", "OBJDECD")
_UNITS = {"DN": "adu", "DN2": "adu2"}
_UNITS_BACK = {"adu": "DN", "adu2": "DN2", "dn": "DN", "data value": "DN"}

_IPAC_PLANES = {
    "tracks": "AIRCRAFT/SATELLITE TRACK",
    "sexsources": "CONTAINS SEXTRACTOR DETECTION",
    "lowresponsivity": "LOW RESPONSIVITY",
    "highresponsivity": "HIGH RESPONSIVITY",
    "noisy": "NOISY",
    "ghosts": "GHOST FROM BRIGHT SOURCE",
    "spillage": "POSSIBLE GHOST FROM CHARGE SPILLAGE",
    "spikes": "PIXEL SPIKE (POSSIBLE RAD HIT)",
    "saturated": "SATURATED",
    "dead": "DEAD (UNRESPONSIVE)",
    "nan": "NAN (not a number)",
    "psfsources": "CONTAINS PSF-EXTRACTED SOURCE POSITION",
    "brightstarhalo": "HALO FROM BRIGHT SOURCE",
    "outside": "OUTSIDE THE FRAME (SET BY ZTFXR)",
}


# ---- writing --------------------------------------------------------------------------------------------------------


def exposure_header(obj: xr.Dataset | xr.DataArray, start: Mapping[str, int]) -> fits.Header:
    """The header of the image's window that begins at pixel `start`.

    The header that the object carries, without the cards that describe the array in its file; where a scalar coordinate
    says otherwise than its card, the card follows; WCS and start are those of the window.
    """
    header = fits.Header.fromstring(str(obj.attrs.get("header", "")), sep="\n").copy(strip=True)
    for card in _OF_THE_ARRAY:
        header.remove(card, ignore_missing=True, remove_all=True)
    _state_exposure(header, obj)
    window = window_header(obj, start)
    for card in (_wcs_keywords(header) | {*_START.values(), *_PHYSICAL.values()}) - set(window):
        header.remove(card, ignore_missing=True, remove_all=True)
    for card, value, comment in window.cards:
        if card not in header:
            header[card] = (value, comment)
        elif header[card] != value:
            header[card] = value
    return header


def window_header(obj: xr.Dataset | xr.DataArray, start: Mapping[str, int]) -> fits.Header:
    """The WCS of the window, if the image has one, and where the window begins in the full frame."""
    header = fits.Header()
    index = obj.xindexes.get("ra")
    if isinstance(index, WCSIndex):
        header = fits.Header.fromstring(index.transform.cards, sep="\n")
        for axis, dim in ((1, "x"), (2, "y")):
            header[f"CRPIX{axis}"] = float(header.get(f"CRPIX{axis}", 0.0)) - start[dim]
    before = fits.Header.fromstring(str(obj.attrs.get("header", "")), sep="\n")
    for dim, card in _START.items():
        # IRAF's and ds9's physical coordinates: pixels of the full frame, or of what that was itself cut from.
        physical = float(before.get(_PHYSICAL[dim], 0.0)) + int(before.get(card, 0)) - start[dim]
        if start[dim]:
            header[card] = (start[dim], f"first {dim} pixel in the full frame (0-based)")
        if physical:
            header[_PHYSICAL[dim]] = (physical, "physical coordinates: logical = physical + LTV")
    return header


def _wcs_keywords(header: fits.Header) -> set[str]:
    cards = wcs_cards(header)
    known = set() if cards is None else set(fits.Header.fromstring(cards, sep="\n")) | {"RADECSYS"}
    return known - set(_NOT_ONLY_WCS)


def _state_exposure(header: fits.Header, obj: xr.Dataset | xr.DataArray) -> None:
    """Make the cards agree with the scalar coordinates of `obj`; cards that do are left as they are."""
    stated = exposure_coords(header)
    for name, card in (*_INTEGERS.items(), *_NUMBERS.items()):
        value = _scalar(obj, name)
        if value is None or _same(value, stated.get(name)):
            continue
        unit = str(obj.coords[name].attrs.get("units", SPECS[name].units))
        comment = f"[{unit}] {SPECS[name].meaning}" if unit else SPECS[name].meaning
        known = value if isinstance(value, int) or np.isfinite(value) else None
        header[card] = (known, comment[:_COMMENT_LENGTH])
    mjd = _mjd(obj)
    if mjd is not None and not _same(mjd, exposure_coords(header).get("mjd")):
        header[_MID_EXPOSURE] = (mjd, SPECS["mjd"].meaning)
    if "filter" in obj.coords and obj.coords["filter"].ndim == 0:
        _state_filter(header, str(obj.coords["filter"].values))


def _state_filter(header: fits.Header, name: str) -> None:
    if _filter(header) == name:
        return
    header.remove("FILTERID", ignore_missing=True)
    numbers = {text: number for number, text in FILTERS.items()}
    if name in numbers:
        header["FILTERID"] = numbers[name]
        name = f"ZTF_{name[-1]}"
    header["FILTER"] = name


def _mjd(obj: xr.Dataset | xr.DataArray) -> float | None:
    """The middle of the exposure, from `mjd` or else from `time`."""
    time = obj.coords.get("time")
    if "mjd" in obj.coords or time is None or time.ndim or time.dtype.kind != "M":
        return _scalar(obj, "mjd")
    return to_mjd(time.values)


def _scalar(obj: xr.Dataset | xr.DataArray, name: str) -> int | float | None:
    """The value of a scalar coordinate; None where there is none."""
    if name not in obj.coords or obj.coords[name].ndim or obj.coords[name].dtype.kind not in "iuf":
        return None
    value: int | float = obj.coords[name].values.item()
    return value


def _same(value: int | float, stated: xr.Variable | None) -> bool:
    return stated is not None and bool(np.array_equal(value, stated.values, equal_nan=True))


def plane_cards(flags: xr.DataArray) -> fits.Header:
    """The cards BIT00 to BIT15 that tell the planes of a mask, in IPAC's words where the planes are IPAC's."""
    names = {p.bit: p.name for p in MASK_PLANES}
    if "flag_masks" in flags.attrs and "flag_meanings" in flags.attrs:
        values, meanings = np.atleast_1d(flags.attrs["flag_masks"]), str(flags.attrs["flag_meanings"]).split()
        names = {int(v).bit_length() - 1: meaning for v, meaning in zip(values, meanings, strict=True)}
    header = fits.Header()
    header["COMMENT"] = "bit-mask definitions:"
    for bit in range(16):
        name = names.get(bit)
        text = "RESERVED FOR FUTURE USE" if name is None else _IPAC_PLANES.get(name, name.upper())
        header.append((f"BIT{bit:02d}", bit, text), bottom=True)
    return header


def fits_unit(units: str) -> str:
    """A unit in the words of the FITS standard, where it has any; adu for DN."""
    if units in _UNITS:
        return _UNITS[units]
    unit = u.Unit(units, parse_strict="silent")
    try:
        return str(unit.to_string("fits"))
    except (ValueError, TypeError):
        return units


# ---- reading --------------------------------------------------------------------------------------------------------


def exposure_coords(header: fits.Header) -> dict[str, xr.Variable]:
    """The scalar coordinates that a header knows; NaN where a card is there without a value."""
    values: dict[str, Any] = {}
    for name, card in (*_INTEGERS.items(), *_NUMBERS.items()):
        number = _number(header, card)
        if number is not None:
            values[name] = number if name in _NUMBERS else int(number)
    named = parse_name(str(header.get("FILENAME", "")))
    if named is not None:
        values.setdefault("filefracday", named.filefracday)
    mjd = _mid_exposure(header, values.get("exptime"))
    if mjd is not None:
        values |= {"mjd": mjd, "time": to_datetime(mjd)}
    if _filter(header):
        values["filter"] = _filter(header)
    out = {name: xr.Variable((), value, SPECS[name].attrs) for name, value in values.items()}
    if "seeing" in out:
        out["seeing"].attrs["units"] = seeing_unit(header)
    return out


def _number(header: fits.Header, card: str) -> float | None:
    value = header.get(card)
    if card in header and (value is None or isinstance(value, fits.card.Undefined)):
        return float("nan") if card in _NUMBERS.values() else None
    return None if isinstance(value, bool | str) or not isinstance(value, int | float) else value


def _mid_exposure(header: fits.Header, exptime: float | None) -> float | None:
    middle = _number(header, _MID_EXPOSURE)
    if middle is not None:
        return float(middle)
    start = _number(header, "OBSMJD")
    if start is None and (jd := _number(header, "OBSJD")) is not None:
        start = jd - JD_OF_MJD
    start = _number(header, "MJD-OBS") if start is None else start
    return None if start is None or exptime is None else mid_exposure(float(start), float(exptime))


def _filter(header: fits.Header) -> str:
    """ZTF's name of the filter, or what the header calls it."""
    return filter_of(header) or str(header.get("FILTER", "")).strip()


def window_start(header: fits.Header) -> dict[str, int]:
    """The first pixel, by `x` and `y`, that a file of ztfxr's says; 0 where it is not said."""
    return {dim: int(header.get(card, 0)) for dim, card in _START.items()}


def unit_of(text: str) -> str:
    """A unit as ztfxr writes it, from a header's."""
    return _UNITS_BACK.get(text.strip().lower(), text.strip())


def as_unit(text: str) -> u.UnitBase:
    """A unit as astropy has it; `InputError` where astropy does not know it."""
    try:
        return u.Unit(_UNITS.get(text, text))
    except ValueError as error:
        raise InputError(f"the unit {text!r} is none that astropy knows; set attrs['units'] of the image") from error
