"""The time of an exposure: from any of the cards that FITS headers have for it to the middle of the exposure in UTC."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Literal, TypeAlias

import numpy as np
from astropy import units as u
from astropy.io import fits
from astropy.time import Time, TimeDelta

from ztfxr.errors import HeaderError

__all__ = [
    "JD_OF_MJD",
    "Middle",
    "Reference",
    "TimeSource",
    "mid_exposure",
    "middle_of_exposure",
    "to_datetime",
    "to_mjd",
]

Reference: TypeAlias = Literal["start", "middle", "end"]
TimeSource: TypeAlias = str | Sequence[str] | float | np.datetime64 | None

JD_OF_MJD = 2400000.5
"""The Julian date at which MJD begins."""

_DAY = 86400.0
_MJD_UNIX_EPOCH = 40587
_ORDINAL_OF_MJD = date(1858, 11, 17).toordinal()
_LAST_MJD = 146000.0
_JD_FROM, _JD_TO = 1.7e6, 2.7e6

_STANDARD: tuple[tuple[str, Reference | None], ...] = (
    ("MJD-AVG", "middle"),
    ("DATE-AVG", "middle"),
    ("MJD-OBS", None),
    ("DATE-OBS", None),
    ("MJD-BEG", "start"),
    ("DATE-BEG", "start"),
    ("MJD-END", "end"),
    ("DATE-END", "end"),
)
"""Cards of the FITS standard, and what they mark; None where the camera says it."""

_COMMON = ("MJD", "JD", "JD-OBS", "UT-OBS", "OBSMJD", "OBSJD", "JD_UTC", "MJD_OBS", "DATE_OBS")
"""Cards that many cameras write, looked at where none of the standard is there."""

_COUNTED: tuple[tuple[str, Reference], ...] = (("TSTART", "start"), ("TSTOP", "end"))
"""Cards of times that count from MJDREF."""

_TIME_UNITS = {"s": 1.0, "sec": 1.0, "second": 1.0, "min": 60.0, "h": 3600.0, "d": _DAY, "day": _DAY, "days": _DAY}

_TIMES_OF_DAY = ("TIME-OBS", "UT", "UTC-OBS", "UT-OBS", "UTSTART", "UTC", "UTCSTART", "UT-START", "UTOBS", "TIME")
"""Cards that hold the time of day where DATE-OBS is a date alone."""

_BARYCENTRIC = re.compile(r"[BH]JD")
_ISO = re.compile(
    r"(?P<y>\d{4})[-/](?P<m>\d{1,2})[-/](?P<d>\d{1,2})"
    r"(?:[T ]\s*(?P<time>\d{1,2}:\d{2}(?::\d{2}(?:\.\d*)?)?))?\s*(?P<zone>Z|UTC?|[+-]\d{2}(?::?\d{2})?)?"
)
_OLD = re.compile(r"(?P<d>\d{1,2})/(?P<m>\d{1,2})/(?P<y>\d{2})")
_CLOCK = re.compile(r"(?P<h>\d{1,2}):(?P<min>\d{2})(?::(?P<s>\d{2}(?:\.(?P<digits>\d*))?))?\s*(?:Z|UTC?)?")
_NUMBER = re.compile(r"[+-]?\d*\.?(?P<digits>\d*)(?:[EeDd](?P<power>[+-]?\d+))?")
_SCALES = {"UT": "utc", "UTC": "utc", "GMT": "utc", "TAI": "tai", "IAT": "tai", "TT": "tt", "TDT": "tt", "ET": "tt"} | {
    "TDB": "tdb",
    "TCB": "tcb",
    "TCG": "tcg",
}
_GPS_BEHIND_TAI = 19.0


@dataclass(frozen=True)
class Middle:
    """The middle of an exposure (MJD, UTC), how long the exposure was, and what had to be decided on the way."""

    mjd: float
    exptime: float
    note: str = ""


@dataclass(frozen=True)
class _Moment:
    """What one card says: a day (MJD) and seconds of it, the value of its last digit (s), and whether it is in UTC."""

    card: str
    day: int
    seconds: float
    digit: float
    reference: Reference
    in_utc: bool = False
    is_fraction: bool = False
    """Whether the card holds a fraction of the day, which is a second longer where UTC has a leap second."""

    def shifted(self, seconds: float, scale: str) -> float:
        """The MJD (UTC) that many seconds later."""
        scale = "utc" if self.in_utc else scale
        if scale == "gps":
            scale, seconds = "tai", seconds + _GPS_BEHIND_TAI
        if scale == "utc" and not _may_have_leap_second(self.day):
            return self.day + (self.seconds + seconds) / _DAY
        length = _DAY if self.is_fraction or scale != "utc" else _seconds_of(self.day)
        start = Time(self.day, self.seconds / length, format="mjd", scale=scale).utc
        return float((start + TimeDelta(seconds, format="sec")).mjd)


def to_datetime(mjd: float) -> np.datetime64:
    """UTC date of an MJD, to the microsecond that a float MJD can hold, as datetime64[ns]; NaT where it is unknown."""
    if not np.isfinite(mjd):
        return np.datetime64("NaT", "ns")
    day = int(mjd // 1)
    length = _seconds_of(day) if _may_have_leap_second(day) else _DAY
    microseconds = round(((day - _MJD_UNIX_EPOCH) * _DAY + (mjd - day) * length) * 1e6)
    return np.datetime64(microseconds * 1000, "ns")


def to_mjd(time: np.datetime64) -> float:
    """The MJD of a UTC date."""
    days = float((time - np.datetime64(0, "ns")) / np.timedelta64(1, "D"))
    day = int(days // 1) + _MJD_UNIX_EPOCH
    length = _seconds_of(day) if _may_have_leap_second(day) else _DAY
    return day + (days % 1) * _DAY / length


def mid_exposure(start_mjd: float, exptime: float) -> float:
    """MJD of the middle of an exposure that started at `start_mjd` and lasted `exptime` seconds."""
    return start_mjd + exptime / 2 / _DAY


def middle_of_exposure(
    header: fits.Header, exptime: float, source: TimeSource = None, *, reference: Reference = "start"
) -> Middle:
    """The middle of an exposure in UTC, from whatever the header says of its time.

    Parameters
    ----------
    header
        The header of the image.
    exptime
        Exposure time in seconds; NaN where it is not known.
    source
        A card, or several in order of preference: an MJD, a JD, a date with its time of day (ISO 8601), or a date
        alone, completed by ``"DATE-OBS+UT"`` or by the card that usually holds the time of day. Or a value: an MJD, or
        a `numpy.datetime64`. By default the cards of the FITS standard are looked for, then those that many cameras
        write.
    reference
        What `source`, MJD-OBS and DATE-OBS mark. MJD-BEG, DATE-AVG and the like say it by their names.

    Returns
    -------
    Middle

    Raises
    ------
    HeaderError
        There is no time, or none that can be converted: barycentric dates, local time, unknown scales.

    Notes
    -----
    Among cards that mark the same, the one with the finest last digit counts; where another differs from it by more
    than the coarser one's last digit, the note says so. The middle itself, where a card has it, goes before the start,
    the start before the end. Dates are in the scale of TIMESYS, or in UTC, or say their offset from UTC themselves.
    """
    if isinstance(source, np.datetime64):
        source = to_mjd(source)
    if isinstance(source, int | float):
        given = _number("the time", source, "", reference)
        return Middle(given.shifted(_to_middle(given, exptime), "utc"), exptime)
    scale = _scale(header)
    moments = _named_moments(header, source, reference) if source is not None else _found_moments(header, reference)
    by_reference = {r: sorted((m for m in moments if m.reference == r), key=lambda m: m.digit) for r in _ORDER}
    if np.isnan(exptime) and by_reference["start"] and by_reference["end"]:
        first, last = (by_reference[r][0].shifted(0.0, scale) for r in ("start", "end"))
        exptime = (last - first) * _DAY
    same = next(found for found in by_reference.values() if found)
    mjd = same[0].shifted(_to_middle(same[0], exptime), scale)
    if not 0 < mjd < _LAST_MJD:
        raise HeaderError(f"{same[0].card} gives MJD {mjd:.6g}, which is no time of an exposure")
    return Middle(mjd, exptime, _disagreement(same, scale))


_ORDER: tuple[Reference, ...] = ("middle", "start", "end")


def _to_middle(moment: _Moment, exptime: float) -> float:
    if moment.reference == "middle":
        return 0.0
    if not exptime >= 0:
        raise HeaderError(
            f"{moment.card} is the {moment.reference} of an exposure of unknown length; give exptime= in seconds"
        )
    return exptime / 2 if moment.reference == "start" else -exptime / 2


def _disagreement(same: Sequence[_Moment], scale: str) -> str:
    """What to say of coarser cards that differ from the finest by more than their own last digit."""
    taken = same[0].shifted(0.0, scale)
    off = [(m, (m.shifted(0.0, scale) - taken) * _DAY) for m in same[1:]]
    said = [f"{m.card} differs by {seconds:+.3f} s" for m, seconds in off if abs(seconds) > 1.001 * m.digit + 1e-5]
    return f"time from {same[0].card}; {', '.join(said)}" if said else ""


def _found_moments(header: fits.Header, reference: Reference) -> list[_Moment]:
    """What the standard cards say, else the common ones; those that cannot be understood are passed over."""
    refused: list[str] = []
    for cards in (_STANDARD, tuple((card, None) for card in _COMMON)):
        found: list[_Moment] = []
        for card, marks in cards:
            if card in header:
                try:
                    found += _moments(header, card, marks or reference)
                except HeaderError as error:
                    refused.append(str(error))
        whole = [m for m in found if m.digit < _DAY]
        if whole:
            return found
        refused += [f"{m.card} has no time of day" for m in found]
    counted = _counted_moments(header)
    if counted:
        return counted
    if refused:
        raise HeaderError(f"{'; '.join(refused)}; give time= another card, or a value")
    barycentric = [card for card in header if _BARYCENTRIC.match(card)]
    if barycentric:
        raise _barycentric(barycentric[0])
    raise HeaderError(
        "no time is found, for example the header has no MJD-OBS; give time= the name of another card, or a value"
    )


def _counted_moments(header: fits.Header) -> list[_Moment]:
    """TSTART and TSTOP, which count from MJDREF (or JDREF) in TIMEUNIT, as X-ray and other missions write them."""
    origin = _origin(header)
    length = _TIME_UNITS.get(str(header.get("TIMEUNIT", "s")).strip().lower())
    if origin is None or length is None:
        return []
    if not str(header.get("TIMEREF", "LOCAL")).strip().upper().startswith(("LOCAL", "TOPO", "GEO")):
        raise _barycentric(f"TIMEREF = {header['TIMEREF']!r}")
    zero = _value(header, "TIMEZERO")[0] if "TIMEZERO" in header else 0.0
    if not isinstance(zero, float):
        return []
    found: list[_Moment] = []
    for card, reference in _COUNTED:
        value = _value(header, card)[0] if card in header else ""
        if isinstance(value, float) and np.isfinite(value):
            days, seconds = divmod(origin[1] + (value + zero) * length, _DAY)
            found.append(_Moment(card, origin[0] + int(days), seconds, 1e-3, reference, is_fraction=True))
    return found


def _origin(header: fits.Header) -> tuple[int, float] | None:
    """The day (MJD) and the seconds of it from which times count."""
    for name, offset in (("MJDREF", 0.0), ("JDREF", JD_OF_MJD)):
        whole, fraction = (name, None) if name in header else (f"{name}I", f"{name}F")
        if whole not in header:
            continue
        parts = [_value(header, card)[0] if card in header else 0.0 for card in (whole, fraction) if card]
        numbers = [part for part in parts if isinstance(part, float) and np.isfinite(part)]
        if len(numbers) == len(parts):
            days, rest = divmod(numbers[0] - offset, 1.0)
            return int(days), (rest + sum(numbers[1:])) * _DAY
    return None


def _named_moments(header: fits.Header, source: str | Sequence[str], reference: Reference) -> list[_Moment]:
    """What the first of the named cards that is there says."""
    names = (source,) if isinstance(source, str) else tuple(source)
    for name in names:
        date_card, _, clock_card = name.partition("+")
        if date_card not in header:
            continue
        if _BARYCENTRIC.search(date_card):
            raise _barycentric(date_card)
        marks = dict(_STANDARD).get(date_card) or reference
        found = _moments(header, date_card, marks, (clock_card,) if clock_card else _TIMES_OF_DAY)
        if all(m.digit >= _DAY for m in found):
            raise HeaderError(f"{date_card} = {header[date_card]!r} is not a number, nor a date with a time of day")
        return found
    raise HeaderError(f"the header has no {' or '.join(names)}; give time= the name of another card, or a value")


def _barycentric(card: str) -> HeaderError:
    return HeaderError(
        f"{card} is barycentric or heliocentric, which depends on the target; give time= a card or value in UTC"
    )


def _moments(
    header: fits.Header, card: str, reference: Reference, clocks: Sequence[str] = _TIMES_OF_DAY
) -> list[_Moment]:
    """What a card says, together with the card of the time of day where it is a date alone."""
    value, text = _value(header, card)
    moment = _date(card, value, reference) if isinstance(value, str) else _number(card, value, text, reference)
    if moment.digit < _DAY:
        return [moment]
    for clock in clocks:
        of_day = str(_value(header, clock)[0]) if clock in header else ""
        if _ISO.fullmatch(of_day) and clock != card:
            return [_date(clock, of_day, reference)]
        if found := _CLOCK.fullmatch(of_day):
            seconds, digit = _clock(found)
            return [_Moment(f"{card} + {clock}", moment.day, seconds, digit, reference)]
    return [moment]


def _value(header: fits.Header, card: str) -> tuple[str | float, str]:
    """The value of a card, and the text of it as it stands."""
    try:
        value = header[card]
    except fits.VerifyError as error:
        raise HeaderError(f"{card} cannot be read: its value is neither a number nor quoted text") from error
    if isinstance(value, str):
        text = value.strip()
        return (float(text), text) if text and _NUMBER.fullmatch(text) and text[-1].isdigit() else (text, text)
    if isinstance(value, bool) or not isinstance(value, int | float | np.number):
        raise HeaderError(f"{card} has no value")
    return float(value), header.cards[card].image[10:].split("/")[0].strip()


def _number(card: str, value: float, text: str, reference: Reference) -> _Moment:
    """An MJD or a JD."""
    is_jd = _JD_FROM < value < _JD_TO
    if not (0 < value < _LAST_MJD or is_jd):
        raise HeaderError(f"{card} = {value!r} is not an MJD, a JD or an ISO 8601 date")
    whole = int(value)
    seconds = (value - whole) * _DAY
    day = whole - 2400001 if is_jd else whole
    if is_jd:
        seconds += _DAY / 2
    found = _NUMBER.fullmatch(text)
    power = 0 if found is None else int(found["power"] or 0) - len(found["digits"])
    digit = _DAY * 10.0**power if found is not None and text else 1e-6
    # A day without decimals is midnight, as programs write it: not a date whose time of day is elsewhere.
    return _Moment(card, day + int(seconds // _DAY), seconds % _DAY, min(digit, _DAY / 10), reference, is_fraction=True)


def _date(card: str, text: str, reference: Reference) -> _Moment:
    """A date with or without its time of day: ISO 8601, or the DD/MM/YY of FITS before the year 2000."""
    found = _ISO.fullmatch(text) or _OLD.fullmatch(text)
    try:
        if found is None:
            raise ValueError
        year = int(found["y"]) + (1900 if len(found["y"]) == 2 else 0)
        day = date(year, int(found["m"]), int(found["d"])).toordinal() - _ORDINAL_OF_MJD
    except ValueError as error:
        raise HeaderError(f"{card} = {text!r} is not an MJD, a JD or an ISO 8601 date") from error
    parts = found.groupdict()
    clock = _CLOCK.fullmatch(parts.get("time") or "")
    if clock is None:
        return _Moment(card, day, 0.0, _DAY, reference)
    seconds, digit = _clock(clock)
    zone = parts.get("zone") or ""
    ahead = _offset(zone)
    if ahead:
        days, seconds = divmod(seconds - ahead, _DAY)
        day += int(days)
    return _Moment(card, day, seconds, digit, reference, bool(zone))


def _clock(found: re.Match[str]) -> tuple[float, float]:
    """Seconds of the day of a time, and the value of its last digit."""
    hours, minutes, seconds = int(found["h"]), int(found["min"]), float(found["s"] or 0)
    if hours > 23 or minutes > 59 or seconds >= 61:
        raise HeaderError(f"{found[0]!r} is no time of day")
    digit = 60.0 if found["s"] is None else 10.0 ** -len(found["digits"] or "")
    return 3600.0 * hours + 60.0 * minutes + seconds, digit


def _offset(zone: str) -> float:
    """Seconds that a zone is ahead of UTC."""
    if zone[:1] not in ("+", "-"):
        return 0.0
    digits = zone[1:].replace(":", "").ljust(4, "0")
    return (3600.0 * int(digits[:2]) + 60.0 * int(digits[2:])) * (-1.0 if zone[0] == "-" else 1.0)


def _scale(header: fits.Header) -> str:
    """The scale of the header's times; `HeaderError` where it cannot be converted to UTC."""
    stated = str(header.get("TIMESYS", "UTC")).partition("(")[0].strip().upper() or "UTC"
    if stated == "GPS":
        return "gps"
    if stated not in _SCALES:
        raise HeaderError(f"TIMESYS = {stated!r} cannot be converted to UTC; give time= a value in UTC")
    return _SCALES[stated]


def _may_have_leap_second(day: int) -> bool:
    """Whether a day is the last of June or December, at whose end leap seconds are."""
    when = date.fromordinal(day + _ORDINAL_OF_MJD)
    return (when.month, when.day) in ((6, 30), (12, 31))


def _seconds_of(day: int) -> float:
    """Seconds of a day in UTC: 86401 where a leap second is at its end."""
    return float((Time(day + 1, format="mjd", scale="utc") - Time(day, format="mjd", scale="utc")).to_value(u.s))
