"""Counts, flux densities and magnitudes; the fit of a zero point."""

from __future__ import annotations

from dataclasses import astuple

import dask.array as da
import numpy as np
import pytest
from astropy import units as u
from hypothesis import given
from hypothesis import strategies as st

from ztfxr.arrays.photometry.magnitudes import (
    AB_MICROJANSKY,
    ZeroPointFit,
    ab_per_wavelength,
    fit_zero_point,
    from_mag,
    linear_error,
    mag_error,
    rescale,
    to_mag,
)

MAGS = st.floats(-5, 35)
ZERO_POINTS = st.floats(-30, 35)
VALUES = st.floats(1e-12, 1e12)


# ---- conversions ----------------------------------------------------------------------------------------------------


@given(mag=MAGS)
def test_microjansky_are_those_of_astropy(mag: float) -> None:
    assert from_mag(mag, AB_MICROJANSKY) == pytest.approx((mag * u.ABmag).to_value(u.uJy), rel=1e-9)


@given(mag=MAGS, wavelength=st.floats(1000, 50000))
def test_flux_per_wavelength_is_that_of_astropy(mag: float, wavelength: float) -> None:
    unit = u.erg / u.s / u.cm**2 / u.AA
    expected = (mag * u.ABmag).to_value(unit, u.spectral_density(wavelength * u.AA))
    assert from_mag(mag, ab_per_wavelength(wavelength)) == pytest.approx(expected, rel=1e-9)


@given(value=VALUES, zero_point=ZERO_POINTS)
def test_value_to_magnitude_and_back(value: float, zero_point: float) -> None:
    assert from_mag(to_mag(value, zero_point), zero_point) == pytest.approx(value, rel=1e-12)


@given(mag=MAGS, zero_point=ZERO_POINTS)
def test_magnitude_to_value_and_back(mag: float, zero_point: float) -> None:
    assert to_mag(from_mag(mag, zero_point), zero_point) == pytest.approx(mag, rel=1e-12, abs=1e-12)


@given(value=st.floats(-1e12, 1e12), first=ZERO_POINTS, second=ZERO_POINTS)
def test_value_to_another_unit_and_back(value: float, first: float, second: float) -> None:
    there = rescale(value, first, second)
    assert np.sign(there) == np.sign(value) or abs(value) < 1e-290
    assert rescale(there, second, first) == pytest.approx(value, rel=1e-12, abs=1e-290)


@given(value=VALUES, first=ZERO_POINTS, second=ZERO_POINTS)
def test_another_unit_is_the_same_magnitude(value: float, first: float, second: float) -> None:
    assert to_mag(rescale(value, first, second), second) == pytest.approx(to_mag(value, first), abs=1e-12)


@given(value=VALUES, relative=st.floats(1e-6, 0.5), zero_point=ZERO_POINTS)
def test_errors_there_and_back(value: float, relative: float, zero_point: float) -> None:
    error = mag_error(value, relative * value)
    assert error == pytest.approx(2.5 / np.log(10) * relative, rel=1e-12)
    back = linear_error(from_mag(to_mag(value, zero_point), zero_point), error)
    assert back == pytest.approx(relative * value, rel=1e-11)


def test_small_errors_are_the_difference_of_magnitudes() -> None:
    assert mag_error(100.0, 1e-4) == pytest.approx(float(to_mag(100.0, 0.0) - to_mag(100.0001, 0.0)), rel=1e-5)


@pytest.mark.parametrize("value", [0.0, -1.0, -np.inf, np.nan])
def test_what_is_not_positive_has_no_magnitude(value: float) -> None:
    """Without a warning: warnings are errors here."""
    assert np.isnan(to_mag(np.array([value, 1.0]), 25.0)).tolist() == [True, False]
    assert np.isnan(mag_error(np.array([value, 1.0]), 1.0)).tolist() == [True, False]


def test_dask_stays_lazy() -> None:
    values = da.from_array(np.array([-1.0, 1.0, 10.0]), chunks=1)
    for found in (to_mag(values, 25.0), mag_error(values, 0.1), from_mag(values, 25.0), rescale(values, 25.0, 23.9)):
        assert isinstance(found, da.Array)
        assert found.dtype == np.float64
    np.testing.assert_array_equal(to_mag(values, 25.0).compute(), to_mag(values.compute(), 25.0))


# ---- zero point -----------------------------------------------------------------------------------------------------


def stars(
    n: int, seed: int = 0, *, scatter: float = 0.0, color_term: float = 0.08
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Offsets, errors and colors of stars with the zero point 26.3."""
    rng = np.random.default_rng(seed)
    color, error = rng.normal(0.6, 0.3, n), rng.uniform(0.005, 0.08, n)
    offset = 26.3 + color_term * color + rng.normal(size=n) * np.hypot(error, scatter)
    return offset, error, color


OPTIONS = {"n_sigma": 3.0, "with_color": True, "min_stars": 5}


def test_equals_weighted_least_squares() -> None:
    """Where nothing is clipped and the errors say it all, against numpy's own weighted polynomial fit."""
    offset, error, color = stars(60)
    found = fit_zero_point(offset, error, color, **{**OPTIONS, "n_sigma": 10.0})
    (slope, zero), covariance = np.polyfit(color, offset, 1, w=1 / error, cov="unscaled")
    if found.intrinsic_scatter > 0:
        (slope, zero), covariance = np.polyfit(
            color, offset, 1, w=1 / np.hypot(error, found.intrinsic_scatter), cov="unscaled"
        )
    expected = (zero, np.sqrt(covariance[1, 1]), slope, np.sqrt(covariance[0, 0]))
    assert astuple(found)[:4] == pytest.approx(expected, rel=1e-6)
    assert (found.n_stars, found.n_used) == (60, 60)


def test_pulls_have_unit_width() -> None:
    """The errors are honest, with scatter that nobody stated."""
    fits = [fit_zero_point(*stars(80, seed, scatter=0.03), **OPTIONS) for seed in range(200)]
    zero = [(f.magzp - 26.3) / f.magzp_err for f in fits]
    slope = [(f.color_term - 0.08) / f.color_term_err for f in fits]
    for pulls in (zero, slope):
        assert abs(np.mean(pulls)) < 0.25
        assert 0.85 < np.std(pulls) < 1.2
    assert np.median([f.intrinsic_scatter for f in fits]) == pytest.approx(0.03, rel=0.1)
    assert np.median([f.magzprms for f in fits]) == pytest.approx(np.hypot(0.048, 0.03), rel=0.1)


@pytest.mark.parametrize("with_color", [True, False])
def test_outliers_do_not_move_it(with_color: bool) -> None:
    offset, error, color = stars(200, color_term=0.08 if with_color else 0.0)
    clean = fit_zero_point(offset, error, color, **{**OPTIONS, "with_color": with_color})
    spoilt = offset.copy()
    spoilt[:50] += np.linspace(0.5, 3.0, 50)
    found = fit_zero_point(spoilt, error, color, **{**OPTIONS, "with_color": with_color})
    assert found.magzp == pytest.approx(26.3, abs=5 * clean.magzp_err)
    assert found.n_used <= 150
    assert found.n_used > 140
    if not with_color:
        assert (found.color_term, found.color_term_err) == (0.0, 0.0)


@given(shift=st.floats(-5, 5), seed=st.integers(0, 50))
def test_a_shift_of_the_offsets_is_one_of_the_zero_point(shift: float, seed: int) -> None:
    offset, error, color = stars(40, seed)
    first, second = (fit_zero_point(o, error, color, **OPTIONS) for o in (offset, offset + shift))
    assert second.magzp - first.magzp == pytest.approx(shift, abs=1e-5)
    assert second.color_term == pytest.approx(first.color_term, abs=1e-5)


def test_rows_without_a_number_are_left_out() -> None:
    offset, error, color = stars(30)
    expected = fit_zero_point(offset, error, color, **OPTIONS)
    more = [np.append(a, bad) for a, bad in ((offset, [np.nan, 26, 26, 26]), (color, [1, np.nan, 1, 1]))]
    found = fit_zero_point(more[0], np.append(error, [0.1, 0.1, np.nan, 0.0]), more[1], **OPTIONS)
    assert found == expected
    assert found.n_stars == 30


@pytest.mark.parametrize("n", [0, 1, 4])
def test_too_few_stars_are_no_fit(n: int) -> None:
    found = fit_zero_point(*stars(n), **OPTIONS)
    assert np.isnan(astuple(found)[:6]).all()
    assert (found.n_stars, found.n_used) == (n, 0)


def test_stars_of_one_color_have_no_color_term() -> None:
    offset, error, _ = stars(30)
    same = np.full(30, 0.5)
    assert np.isnan(fit_zero_point(offset, error, same, **OPTIONS).magzp)
    assert np.isfinite(fit_zero_point(offset, error, same, **{**OPTIONS, "with_color": False}).magzp)


def test_exact_stars_have_no_scatter() -> None:
    found = fit_zero_point(np.full(9, 26.0), np.full(9, 0.01), np.arange(9.0), **OPTIONS)
    assert (found.magzp, found.color_term) == pytest.approx((26.0, 0.0), abs=1e-9)
    assert (found.intrinsic_scatter, found.n_used) == (0.0, 9)
    assert isinstance(found, ZeroPointFit)
