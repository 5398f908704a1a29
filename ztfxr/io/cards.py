"""An exposure as FITS cards, and back: what ztfxr writes into headers, and reads from them again."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import xarray as xr
from astropy import units as u
from astropy.io import fits

from ztfxr.errors import InputError
from ztfxr.io.cameras import FITS, ZTF, Camera, card_names, electrons_per_unit
from ztfxr.io.times import to_mjd
from ztfxr.schema import FILTERS, MASK_PLANES, SPECS, Plane, flag_attrs
from ztfxr.wcs import WCSIndex, wcs_cards

__all__ = [
    "EXTENSIONS",
    "TYPE_CARD",
    "as_unit",
    "exposure_coords",
    "exposure_header",
    "fits_unit",
    "plane_attrs",
    "plane_cards",
    "window_header",
    "window_start",
]

EXTENSIONS: Mapping[str, str] = {"sci": "SCI", "flags": "MSK", "variance": "VAR"}
"""Names of FITS extensions by variable; any other variable goes by its own name in capitals."""

TYPE_CARD = "ZXR_TYPE"
"""The dtype of a variable, where FITS has another or none for it."""

_START = {"x": "ZXR_X0", "y": "ZXR_Y0"}
_PHYSICAL = {"x": "LTV1", "y": "LTV2"}
_INTEGER_CARDS = {"field": "FIELDID", "ccdid": "CCDID", "qid": "QID", "rcid": "RCID", "filefracday": "FILEFRAC"}
_INTEGERS = tuple(_INTEGER_CARDS)
_NUMBERS = {
    "exptime": "EXPTIME",
    "magzp": "MAGZP",
    "magzprms": "MAGZPRMS",
    "gain": "GAIN",
    "readnoise": "READNOI",
    "saturate": "SATURATE",
    "seeing": "SEEING",
}
_MID_EXPOSURE = "MJD-AVG"
_OWN_TIMES = (_MID_EXPOSURE, "OBSMJD", "OBSJD")
_SCALES_OF_PIXELS, _MIXED_PIXELS = ("LTM1_1", "LTM2_2"), ("LTM1_2", "LTM2_1")
_BIT_CARD, _PLANE_CARD, _BAD_BITS = re.compile(r"BIT\d\d"), "MP_", "BADBITS"
_COMMENT_LENGTH = 47
_OF_THE_ARRAY = ("EXTNAME", "EXTVER", "EXTLEVEL", "INHERIT", "BUNIT", "BLANK", "CHECKSUM", "DATASUM", TYPE_CARD)
# The WCS text carries these too, but they tell of the exposure, and stay where the image has lost its WCS.
_NOT_ONLY_WCS = ("MJD-OBS", "DATE-OBS", "EQUINOX", "RA", "DEC", "OBJRAD", "OBJDECD")
_UNITS = {"DN": "adu", "DN2": "adu2", "DN/s": "adu/s"}

SAVED = Camera(
    "fits",
    {
        **_INTEGER_CARDS,
        **_NUMBERS,
        "time": _OWN_TIMES,
        "exptime": FITS.cards["exptime"],
        "readnoise": ("READNOI", "RDNOISE", "READNOIS"),
        "filter": ZTF.cards["filter"],
    },
    filters=ZTF.filters,
    required=(),
    file_name=ZTF.file_name,
)
"""The cards that ztfxr writes, whatever the camera was; nothing in them is needed."""

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
    began = window_start(before)
    for dim, card in _START.items():
        # IRAF's and ds9's physical coordinates: pixels of the full frame, or of what that was itself cut from.
        physical = float(before.get(_PHYSICAL[dim], 0.0)) + began[dim] - start[dim]
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
    pixels = obj if isinstance(obj, xr.DataArray) else obj.get("sci", xr.DataArray())
    unit = str(pixels.attrs.get("units", "DN"))
    stated = exposure_coords(header, unit)
    for name, card in (*_INTEGER_CARDS.items(), *_NUMBERS.items()):
        value = _scalar(obj, name)
        if value is None or _same(value, stated.get(name)):
            continue
        if name == "gain":
            value = _in_counts(value, unit, _scalar(obj, "exptime"))
        said = str(obj.coords[name].attrs.get("units", SPECS[name].units))
        comment = f"[{said}] {SPECS[name].meaning}" if said else SPECS[name].meaning
        known = value if isinstance(value, int) or np.isfinite(value) else None
        header[card] = (known, comment[:_COMMENT_LENGTH])
    mjd = _mjd(obj)
    if mjd is not None and not _same(mjd, exposure_coords(header, unit).get("mjd")):
        header[_MID_EXPOSURE] = (mjd if np.isfinite(mjd) else None, SPECS["mjd"].meaning)
    if "filter" in obj.coords and obj.coords["filter"].ndim == 0:
        _state_filter(header, str(obj.coords["filter"].values))


def _in_counts(gain: float, unit: str, exptime: float | None) -> float:
    """The gain in electrons per count, as a card has it, of one in electrons per pixel value."""
    per_count = electrons_per_unit(unit, 1.0, np.nan if exptime is None else exptime)
    return gain / per_count if np.isfinite(per_count) else gain


def _state_filter(header: fits.Header, name: str) -> None:
    if exposure_coords(header).get("filter", xr.Variable((), "")).values == name:
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
    """The cards BITnn that tell the planes of a mask, in IPAC's words where the planes are IPAC's."""
    names = {p.bit: p.name for p in MASK_PLANES}
    if "flag_masks" in flags.attrs and "flag_meanings" in flags.attrs:
        values, meanings = np.atleast_1d(flags.attrs["flag_masks"]), str(flags.attrs["flag_meanings"]).split()
        names = {int(v).bit_length() - 1: meaning for v, meaning in zip(values, meanings, strict=True)}
    header = fits.Header()
    header["COMMENT"] = "bit-mask definitions:"
    for bit in range(max(16, *(bit + 1 for bit in names))):
        name = names.get(bit)
        text = "RESERVED FOR FUTURE USE" if name is None else _IPAC_PLANES.get(name, name.upper())
        header.append((f"BIT{bit:02d}", bit, text), bottom=True)
    if "bad_planes" in flags.attrs:
        bad = str(flags.attrs["bad_planes"]).split()
        header[_BAD_BITS] = (sum(1 << bit for bit, name in names.items() if name in bad), "planes of bad pixels")
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


def exposure_coords(header: fits.Header, unit: str | None = None) -> dict[str, xr.Variable]:
    """The scalar coordinates that a header knows, its pixels being in `unit` (by default BUNIT).

    Those whose card is there without a value are NaN.
    """
    camera = (
        SAVED if any(card in header for card in _OWN_TIMES) else replace(SAVED, cards={**SAVED.cards, "time": None})
    )
    found, _ = camera.coords(header, unit=unit)
    known = {name for name, source in SAVED.cards.items() if any(card in header for card in card_names(source))}
    known |= {"filefracday"} if found["filefracday"].values >= 0 else set()
    known |= {"time", "mjd"} if np.isfinite(found["mjd"].values) else set()
    unknown = {name for name in _INTEGERS if found[name].values < 0} | (
        {"filter"} if not found["filter"].values else set()
    )
    return {name: value for name, value in found.items() if name in known - unknown}


def window_start(header: fits.Header) -> dict[str, int]:
    """The first pixel, by `x` and `y`, as ztfxr's cards or IRAF's physical coordinates say; 0 where neither does.

    Physical coordinates count only where they are whole pixels of the same size.
    """
    same_size = all(header.get(card, 1.0) == 1.0 for card in _SCALES_OF_PIXELS) and not any(
        header.get(card) for card in _MIXED_PIXELS
    )
    out = {}
    for dim, card in _START.items():
        physical = header.get(_PHYSICAL[dim], 0.0)
        whole = isinstance(physical, int | float) and same_size and float(physical).is_integer()
        out[dim] = int(header.get(card, -physical if whole else 0))
    return out


def plane_attrs(header: fits.Header) -> dict[str, Any]:
    """What a header says of the planes of a mask, as attributes of `flags`; bits that nobody names are numbered.

    Read are the cards BITnn, with the names of planes as comments, and the cards MP_NAME of other surveys.
    """
    words = {text: name for name, text in _IPAC_PLANES.items()}
    names: dict[int, str] = {}
    for card in header.cards:
        key, bit, text = card.keyword, card.value, card.comment.strip()
        if not isinstance(bit, int) or isinstance(bit, bool) or not 0 <= bit < 32:
            continue
        if _BIT_CARD.fullmatch(key) and text and "RESERVED" not in text:
            names[bit] = words.get(text, "_".join(text.lower().split()))
        elif key.startswith(_PLANE_CARD):
            names[bit] = key.removeprefix(_PLANE_CARD).lower()
    if not names or len(set(names.values())) < len(names):
        names = {bit: f"bit{bit}" for bit in range(8 * _bytes_of(header))}
    out = flag_attrs([Plane(name, bit, name) for bit, name in sorted(names.items())])
    bad = header.get(_BAD_BITS)
    if isinstance(bad, int):
        out["bad_planes"] = " ".join(name for bit, name in sorted(names.items()) if bad >> bit & 1)
    return out


def _bytes_of(header: fits.Header) -> int:
    return min(4, max(1, abs(int(header.get("BITPIX", 16))) // 8))


def as_unit(text: str) -> u.UnitBase:
    """A unit as astropy has it; `InputError` where astropy does not know it."""
    try:
        return u.Unit(_UNITS.get(text, text))
    except ValueError as error:
        raise InputError(f"the unit {text!r} is none that astropy knows; set attrs['units'] of the image") from error
