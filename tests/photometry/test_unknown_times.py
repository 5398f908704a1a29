"""Epochs without a time are passed over by all that goes by time; times of users are understood or refused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from astropy.time import Time

import ztfxr
from ztfxr.errors import InputError


@pytest.fixture
def curve() -> xr.Dataset:
    """Two seasons of daily epochs, twelve stars of which the last brightens, in µJy."""
    rng = np.random.default_rng(4)
    n, m = 40, 12
    flux = 500.0 + rng.normal(0, 5, (n, m))
    flux[20:26, -1] += 300.0
    lc = xr.Dataset(
        {"flux_ujy": (("time", "source"), flux), "flux_ujy_err": (("time", "source"), np.full((n, m), 5.0))}
    )
    days = np.datetime64("2020-05-31T06:00", "ns") + np.arange(n) * np.timedelta64(1, "D")
    return lc.assign_coords(time=days, mjd=("time", 59000.25 + np.arange(n)), filter=("time", ["ztfg", "ztfr"] * 20))


def without_time(lc: xr.Dataset, rows: Any) -> xr.Dataset:
    """The same with rows of unknown time, whose fluxes would spoil every result."""
    out = lc.copy(deep=True)
    time, mjd = out["time"].values.copy(), out["mjd"].values.copy()
    time[rows], mjd[rows] = np.datetime64("NaT"), np.nan
    out["flux_ujy"].values[rows] = 1e5
    return out.assign_coords(time=time, mjd=("time", mjd))


ROWS = ([0], [39], [5, 6, 21], list(range(0, 40, 3)))


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("days", [1.0, 7.0])
def test_binning(curve: xr.Dataset, rows: list[int], days: float) -> None:
    known = np.setdiff1d(np.arange(40), rows)
    found = ztfxr.bin_by_night(without_time(curve, rows), days=days)
    xr.testing.assert_identical(found, ztfxr.bin_by_night(curve.isel(time=known), days=days))


@pytest.mark.parametrize("rows", ROWS)
def test_levels(curve: xr.Dataset, rows: list[int]) -> None:
    known = np.setdiff1d(np.arange(40), rows)
    found = ztfxr.correct_baseline(without_time(curve, rows))
    right = ztfxr.correct_baseline(curve.isel(time=known))
    for name in ("flux_ujy", "baseline", "error_factor", "quiet"):
        np.testing.assert_allclose(found[name].values[known], right[name].values)
    assert not found["quiet"].values[rows].any()


@pytest.mark.parametrize("rows", ROWS)
def test_statistics(curve: xr.Dataset, rows: list[int]) -> None:
    known = np.setdiff1d(np.arange(40), rows)
    found, right = (
        ztfxr.variability(lc, flux="flux_ujy") for lc in (without_time(curve, rows), curve.isel(time=known))
    )
    xr.testing.assert_allclose(found, right)


def test_no_time_at_all(curve: xr.Dataset) -> None:
    lost = without_time(curve, list(range(40)))
    assert ztfxr.bin_by_night(lost).sizes["time"] == 0
    assert (ztfxr.correct_baseline(lost)["n_baseline"] == 0).all()
    assert (ztfxr.variability(lost, flux="flux_ujy")["n_good"] == 0).all()


FIRST, LAST = 59020.25, 59026.25
UTC_7 = timezone(timedelta(hours=-7))


@pytest.mark.parametrize(
    "pair",
    [
        (np.float32(59020.25), np.int64(59027)),
        ("2020-06-20T06:00", "2020-06-26T06:00"),
        ("2020-06-19T23:00-07:00", "2020-06-25T23:00-07:00"),
        (pd.Timestamp("2020-06-20 06:00", tz="UTC"), pd.Timestamp("2020-06-25 23:00", tz="US/Arizona")),
        (datetime(2020, 6, 20, 6, tzinfo=UTC), datetime(2020, 6, 25, 23, tzinfo=UTC_7)),
        (np.datetime64("2020-06-20T06:00"), np.datetime64("2020-06-26T06:00")),
        (Time(FIRST, format="mjd"), Time(LAST, format="mjd")),
        [Time(FIRST + 69.184 / 86400, format="mjd", scale="tdb"), LAST],
        np.array([FIRST, LAST]),
    ],
)
def test_a_quiet_time_in_every_form(curve: xr.Dataset, pair: Any) -> None:
    right = ztfxr.correct_baseline(curve, quiet=(FIRST - 0.01, LAST + 0.01))
    xr.testing.assert_identical(ztfxr.correct_baseline(curve, quiet=pair), right)


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        ((2459020.75, 2459026.75), r"2459020.75 is no MJD of an observation; MJD = JD - 2400000.5"),
        ((FIRST, 2459026.75), "2459026.75 is no MJD"),
        ((FIRST, np.nan), "nan is no MJD"),
        ((FIRST, None), "None is no MJD"),
        (("tomorrowish", LAST), "got 'tomorrowish'"),
        ((True, LAST), "got True"),
        ((LAST, FIRST), r"quiet is \(start, end\)"),
        ((FIRST,), "a pair of times"),
        (FIRST, "a pair of times"),
        ("2020-06-20", "a pair of times"),
        ((-10, 20), "-10 is no MJD"),
    ],
)
def test_quiet_times_that_cannot_be(curve: xr.Dataset, pair: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        ztfxr.correct_baseline(curve, quiet=pair)


def test_a_quiet_array_is_boolean_on_time(curve: xr.Dataset) -> None:
    for bad in (curve["mjd"], xr.DataArray(np.ones(12, dtype=bool), dims="source")):
        with pytest.raises(InputError, match="quiet is boolean on time"):
            ztfxr.correct_baseline(curve, quiet=bad)
