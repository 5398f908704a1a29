"""The time of an exposure, from every card that FITS headers have for it; astropy is the oracle."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from astropy.time import Time, TimeDelta
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import EXAMPLES
from ztfxr.errors import HeaderError
from ztfxr.io.times import middle_of_exposure, to_datetime, to_mjd


def header(*cards: str, **values: Any) -> fits.Header:
    """A header of cards as they stand in a file, and of values."""
    out = fits.Header()
    for key, value in values.items():
        out[key.replace("_", "-")] = value
    return fits.Header.fromstring("".join([*(card.ljust(80) for card in cards), out.tostring()]))


def middle(exptime: float, *cards: str, source: Any = None, reference: Any = "start", **values: Any) -> Time:
    return Time(middle_of_exposure(header(*cards, **values), exptime, source, reference=reference).mjd, format="mjd")


def apart(found: Time, expected: str) -> float:
    return abs((found - Time(expected, scale="utc")).sec)


NIGHT = "2017-12-20T01:34:13.317"


@pytest.mark.parametrize(
    ("exptime", "cards", "expected"),
    [
        (60.0, {"DATE_OBS": "2017-12-19T18:33:43.317-0700"}, NIGHT),
        (60.0, {"DATE_OBS": "2017-12-19T18:33:43.317-0700", "MJD_OBS": 58107.065}, NIGHT),
        (60.0, {"DATE_OBS": "2017-12-20T01:33:43.317Z"}, NIGHT),
        (60.0, {"DATE_OBS": "2017-12-20 03:03:43.317 +01:30"}, NIGHT),
        (60.0, {"DATE_OBS": "2017-12-20", "UT": "01:33:43.317"}, NIGHT),
        (60.0, {"DATE_OBS": "2017-12-20", "TIME_OBS": "01:33:43.317"}, NIGHT),
        (60.0, {"DATE_OBS": "2017-12-20", "UTSTART": "01:33:43.317", "MJD_OBS": 58107.06}, NIGHT),
        (60.0, {"DATE_OBS": "2017-12-19", "UT_OBS": "2017-12-20T01:33:43.317-0000"}, NIGHT),
        (60.0, {"DATE_BEG": "2017-12-20T01:33:43.317"}, NIGHT),
        (60.0, {"DATE_END": "2017-12-20T01:34:43.317"}, NIGHT),
        (np.nan, {"DATE_AVG": NIGHT}, NIGHT),
        (99.0, {"DATE_AVG": NIGHT, "DATE_OBS": "2017-12-20T01:33:13.317"}, NIGHT),
        (np.nan, {"DATE_BEG": "2017-12-20T01:33:43.317", "DATE_END": "2017-12-20T01:34:43.317"}, NIGHT),
        (0.0, {"DATE_OBS": "27/06/94", "UT": "23:59:59.5"}, "1994-06-27T23:59:59.5"),
        (0.0, {"JD": 2456471.25}, "2013-06-27T18:00:00"),
        (0.0, {"MJD": "56470.75"}, "2013-06-27T18:00:00"),
        (0.0, {"DATE_OBS": "2020-01-01T00:00:37", "TIMESYS": "TAI"}, "2020-01-01T00:00:00"),
        (0.0, {"DATE_OBS": "2020-01-01T00:01:09.184", "TIMESYS": "TT"}, "2020-01-01T00:00:00"),
        (0.0, {"DATE_OBS": "2020-01-01T00:00:18", "TIMESYS": "GPS"}, "2020-01-01T00:00:00"),
        (0.0, {"DATE_OBS": "2020-01-01T00:00:00Z", "TIMESYS": "TT"}, "2020-01-01T00:00:00"),
        (20.0, {"DATE_OBS": "2016-12-31T23:59:55"}, "2017-01-01T00:00:04"),
        (0.0, {"DATE_OBS": "2016-12-31T23:59:60.5"}, "2016-12-31T23:59:60.5"),
        (0.0, {"DATE_OBS": "UNKNOWN", "MJD_OBS": 58107.25}, "2017-12-20T06:00:00"),
        (0.0, {"DATE_OBS": "2017-12-20T06:00:00", "MJD_OBS": 0.0}, "2017-12-20T06:00:00"),
    ],
)
def test_every_card_of_the_time(exptime: float, cards: dict[str, Any], expected: str) -> None:
    assert apart(middle(exptime, **cards), expected) < 3e-6


@pytest.mark.parametrize(
    ("cards", "message"),
    [
        ({}, "the header has no MJD-OBS"),
        ({"DATE_OBS": "2017-12-20"}, "DATE-OBS has no time of day"),
        ({"DATE_OBS": "2017-12-20", "UT": 6.5}, "DATE-OBS has no time of day"),
        ({"DATE_OBS": "2017-13-20T01:02:03"}, "DATE-OBS = '2017-13-20T01:02:03' is not an MJD, a JD or an ISO 8601"),
        ({"DATE_OBS": "2017-12-20T25:02:03"}, "is no time of day"),
        ({"MJD_OBS": 1.6e9}, "MJD-OBS = 1600000000.0 is not an MJD"),
        ({"MJD_OBS": -1.0}, "MJD-OBS = -1.0 is not an MJD"),
        ({"BJD_TDB": 2456470.1}, "BJD-TDB is barycentric or heliocentric"),
        ({"HJD": 2456470.1}, "HJD is barycentric or heliocentric"),
        ({"MJD_OBS": 58107.0, "TIMESYS": "LOCAL"}, "TIMESYS = 'LOCAL' cannot be converted to UTC"),
        ({"MJD_OBS": 58107.0, "TIMESYS": "UT1"}, "TIMESYS = 'UT1' cannot be converted to UTC"),
    ],
)
def test_times_that_are_refused_by_name(cards: dict[str, Any], message: str) -> None:
    with pytest.raises(HeaderError, match=message):
        middle(30.0, **cards)


def test_an_unknown_length_is_refused_where_it_is_needed() -> None:
    with pytest.raises(HeaderError, match="MJD-OBS is the start of an exposure of unknown length; give exptime="):
        middle(np.nan, MJD_OBS=58107.5)
    assert middle(np.nan, MJD_OBS=58107.5, reference="middle").mjd == 58107.5


def test_a_named_card() -> None:
    cards = {"DATE_OBS": "2020-09-24", "UT": "06:00:00", "UTMID": "06:10:00", "MJD_OBS": 1.0}
    assert apart(middle(0.0, source="DATE-OBS", **cards), "2020-09-24T06:00:00") < 1e-6
    assert apart(middle(0.0, source="DATE-OBS+UTMID", **cards), "2020-09-24T06:10:00") < 1e-6
    assert apart(middle(0.0, source=("NOTHERE", "DATE-OBS"), **cards), "2020-09-24T06:00:00") < 1e-6
    with pytest.raises(HeaderError, match="the header has no A or B; give time="):
        middle(0.0, source=("A", "B"), **cards)
    with pytest.raises(HeaderError, match="barycentric"):
        middle(0.0, source="BJD", BJD=2459116.5)


def test_the_finer_of_two_cards_is_taken_and_said() -> None:
    coarse, fine = "MJD-OBS =          56470.96750 / start", "DATE-OBS= '2013-06-27T23:13:52.25'"
    found = middle_of_exposure(header(coarse, fine), 0.0)
    assert apart(Time(found.mjd, format="mjd"), "2013-06-27T23:13:52.25") < 1e-5
    assert found.note == "time from DATE-OBS; MJD-OBS differs by -40.250 s"
    agreeing = "DATE-OBS= '2013-06-27T23:13:12.25'"
    assert middle_of_exposure(header(coarse, agreeing), 0.0).note == ""
    # Three decimals of a day are 86 s: 42 s are no contradiction.
    assert middle_of_exposure(header("MJD-OBS = 56470.967", agreeing), 0.0).note == ""


def test_a_bad_card_does_not_hide_a_good_one() -> None:
    assert middle(0.0, "MJD-OBS = NAN", DATE_OBS="2017-12-20T06:00:00").mjd == pytest.approx(58107.25)
    with pytest.raises(HeaderError, match="MJD-OBS cannot be read"):
        middle(0.0, "MJD-OBS = NAN")


def test_dates_and_mjds_are_inverse_to_each_other() -> None:
    for text in ("2016-12-31T18:00:00", "2017-01-01T00:00:00", "2020-06-30T12:34:56.789012", "1999-12-31T23:59:59"):
        when = np.datetime64(text, "ns")
        assert abs(to_datetime(to_mjd(when)) - when) < np.timedelta64(2, "us")
        assert to_mjd(when) == pytest.approx(Time(text, scale="utc").mjd, abs=1e-11)
    assert np.isnat(to_datetime(np.nan))


SCALES = {"UTC": "utc", "TAI": "tai", "TT": "tt", "TDB": "tdb", "TCB": "tcb", "UT": "utc", "TDT": "tt"}


@st.composite
def timed(draw: st.DrawFn) -> tuple[dict[str, Any], float, Time]:
    """Cards of an exposure, its length, and its middle by astropy."""
    scale = draw(st.sampled_from(sorted(SCALES)))
    start = Time(draw(st.integers(44300, 62000)), draw(st.floats(0, 0.99999)), format="mjd", scale=SCALES[scale])
    # At the precision of the card, so that astropy is given what the card says.
    start = Time(start.isot, scale=SCALES[scale])
    exptime = draw(st.sampled_from([0.0, 0.1, 30.0, 300.045, 3600.0]))
    kind = draw(st.sampled_from(["-OBS", "-BEG", "-AVG", "-END"]))
    factor = {"-OBS": 0.5, "-BEG": 0.5, "-AVG": 0.0, "-END": -0.5}[kind]
    expected = start.utc + TimeDelta(factor * exptime, format="sec")
    written = draw(st.sampled_from(["MJD", "DATE", "both", "two cards"]))
    cards: dict[str, Any] = {} if scale == "UTC" else {"TIMESYS": scale}
    day, clock = start.isot.split("T")
    if written == "two cards" and kind == "-OBS":
        return cards | {"DATE_OBS": day, draw(st.sampled_from(["UT", "TIME_OBS", "UTSTART"])): clock}, exptime, expected
    if written in ("MJD", "both", "two cards"):
        cards[f"MJD{kind.replace('-', '_')}"] = start.mjd
    if written in ("DATE", "both"):
        cards[f"DATE{kind.replace('-', '_')}"] = start.isot
    return cards, exptime, expected


@settings(max_examples=EXAMPLES)
@given(timed())
def test_times_equal_astropys(case: tuple[dict[str, Any], float, Time]) -> None:
    cards, exptime, expected = case
    found = middle_of_exposure(header(**cards), exptime)
    assert abs(found.mjd - expected.mjd) * 86400 < 5e-6
    assert found.note == ""
    assert abs(to_datetime(found.mjd) - expected.datetime64) < np.timedelta64(5000, "ns")


@pytest.mark.parametrize(
    ("cards", "mjd", "scale"),
    [
        ({"MJDREFI": 51910, "MJDREFF": 7.428703703703703e-4, "TIMESYS": "TT"}, 51910.0007428703703703, "tt"),
        ({"MJDREF": 50814.0, "TIMESYS": "TT", "TIMEUNIT": "s"}, 50814.0, "tt"),
        ({"MJDREF": 50000.25, "TIMEZERO": 0.0}, 50000.25, "utc"),
        ({"JDREFI": 2451544, "JDREFF": 0.5, "TIMESYS": "TAI"}, 51544.0, "tai"),
        ({"MJDREF": 55000.0, "TIMEZERO": 86400.0, "TIMESYS": "TDB"}, 55001.0, "tdb"),
    ],
)
def test_times_that_count_from_a_day(cards: dict[str, Any], mjd: float, scale: str) -> None:
    header = fits.Header({"TSTART": 1.0e8, "TSTOP": 1.0e8 + 40.0, **cards})
    right = Time(mjd, (1.0e8 + 20.0) / 86400, format="mjd", scale=scale).utc.mjd
    found = middle_of_exposure(header, 40.0)
    assert abs(found.mjd - right) * 86400 < 1e-3
    assert abs(middle_of_exposure(header, np.nan).mjd - right) * 86400 < 1e-3
    header.remove("TSTART")
    assert abs(middle_of_exposure(header, 40.0).mjd - right) * 86400 < 1e-3


@pytest.mark.parametrize(
    ("cards", "message"),
    [
        ({"MJDREF": 51544.0, "TIMEREF": "SOLARSYSTEM"}, "barycentric"),
        ({"MJDREF": "none"}, "no time is found"),
        ({"MJDREF": 51544.0, "TIMEUNIT": "fortnight"}, "no time is found"),
        ({"BJDREFI": 2457000}, "barycentric"),
    ],
)
def test_times_that_count_from_nothing_known(cards: dict[str, Any], message: str) -> None:
    with pytest.raises(HeaderError, match=message):
        middle_of_exposure(fits.Header({"TSTART": 1.0e8, **cards}), 40.0)


def test_dates_go_before_times_that_count() -> None:
    header = fits.Header({"TSTART": 1.0e8, "MJDREF": 51544.0, "MJD-OBS": 58000.0})
    assert middle_of_exposure(header, 0.0).mjd == 58000.0
