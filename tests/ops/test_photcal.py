"""Conversions between counts, flux densities and magnitudes of labeled arrays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import dask.array as da
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from astropy import units as u
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import ztfxr
from ztfxr.errors import InputError
from ztfxr.ops.photcal import (
    convert_flux,
    counts_to_flux,
    counts_to_mag,
    flux_to_counts,
    flux_to_mag,
    mag_to_counts,
    mag_to_flux,
)
from ztfxr.schema import EFFECTIVE_WAVELENGTHS

FLAM = "erg/s/cm2/A"
ARRAYS = hnp.arrays(np.float64, hnp.array_shapes(max_dims=3, max_side=4), elements=st.floats(1e-6, 1e9))


@pytest.fixture
def counts() -> xr.DataArray:
    """Counts of four sources at three epochs, each with its own filter and zero point."""
    values = np.random.default_rng(2).normal(100, 80, (3, 4))
    coords = {"magzp": ("time", [26.3, 26.2, 25.9]), "filter": ("time", ["ztfg", "ztfr", "ztfi"]), "time": [1, 2, 2]}
    return xr.DataArray(values, dims=("time", "source"), coords=coords, name="flux", attrs={"units": "DN"})


# ---- round trips ----------------------------------------------------------------------------------------------------


@given(values=ARRAYS, magzp=st.floats(20, 30), wavelength=st.floats(3000, 10000))
def test_all_round_trips(values: np.ndarray, magzp: float, wavelength: float) -> None:
    """Every way there and back, in both units of flux, to 1e-12."""
    error = 0.01 * values
    for unit in ("uJy", FLAM):
        flux = {"unit": unit, "wavelength": wavelength}
        ways: list[tuple[Callable[..., Any], Callable[..., Any], dict[str, Any], dict[str, Any]]] = [
            (counts_to_mag, mag_to_counts, {"magzp": magzp}, {"magzp": magzp}),
            (counts_to_flux, flux_to_counts, {"magzp": magzp, **flux}, {"magzp": magzp, **flux}),
            (flux_to_mag, mag_to_flux, flux, flux),
            (convert_flux, convert_flux, {"to": FLAM, **flux}, {"to": unit, "unit": FLAM, "wavelength": wavelength}),
        ]
        for there, back, going, coming in ways:
            found, found_error = back(*there(values, error, **going), **coming)
            np.testing.assert_allclose(found, values, rtol=1e-12)
            np.testing.assert_allclose(found_error, error, rtol=1e-11)


@given(values=ARRAYS, magzp=st.floats(20, 30))
def test_two_ways_to_one_place(values: np.ndarray, magzp: float) -> None:
    """Over magnitudes or over fluxes, it is the same."""
    direct = counts_to_flux(values, unit=FLAM, magzp=magzp, wavelength="ztfr")
    np.testing.assert_allclose(mag_to_flux(counts_to_mag(values, magzp=magzp), unit=FLAM, wavelength="ztfr"), direct)
    np.testing.assert_allclose(convert_flux(counts_to_flux(values, magzp=magzp), to=FLAM, wavelength="ztfr"), direct)


def test_against_astropy() -> None:
    mag = np.array([15.0, 20.5])
    for name, wavelength in EFFECTIVE_WAVELENGTHS.items():
        flux = mag_to_flux(mag, unit=FLAM, wavelength=name)
        expected = (mag * u.ABmag).to_value(u.Unit("erg / (s cm2 AA)"), u.spectral_density(wavelength * u.AA))
        np.testing.assert_allclose(flux, expected, rtol=1e-9)
    np.testing.assert_allclose(mag_to_flux(mag), (mag * u.ABmag).to_value(u.uJy), rtol=1e-9)
    assert dict(EFFECTIVE_WAVELENGTHS) == {"ztfg": 4813.97, "ztfr": 6421.81, "ztfi": 7883.06}


def test_light_curves_have_the_same_fluxes(counts: xr.DataArray) -> None:
    curve = ztfxr.calibrate_flux(xr.Dataset({"flux": counts, "flux_err": abs(counts)}))
    np.testing.assert_allclose(counts_to_flux(counts), curve["flux_ujy"], rtol=1e-12)


# ---- labels ---------------------------------------------------------------------------------------------------------


def test_each_epoch_has_its_zero_point_and_filter(counts: xr.DataArray) -> None:
    mag, flux = counts_to_mag(counts), counts_to_flux(counts, unit=FLAM)
    for i, (magzp, band) in enumerate([(26.3, "ztfg"), (26.2, "ztfr"), (25.9, "ztfi")]):
        np.testing.assert_array_equal(mag[i], counts_to_mag(counts[i].values, magzp=magzp))
        one = counts_to_flux(counts[i].values, unit=FLAM, magzp=magzp, wavelength=EFFECTIVE_WAVELENGTHS[band])
        np.testing.assert_allclose(flux[i], one, rtol=1e-14)
    assert mag.dims == counts.dims
    assert (mag.name, mag.attrs["units"], mag.dtype) == ("mag", "mag", np.float64)
    assert (flux.name, flux.attrs["units"]) == ("flux_lambda", FLAM)
    assert counts_to_flux(counts).name == "flux_ujy"
    xr.testing.assert_identical(mag["time"], counts["time"])
    assert counts.attrs == {"units": "DN"}


def test_errors_come_as_a_pair(counts: xr.DataArray) -> None:
    mag, error = counts_to_mag(counts, counts * 0 + 5.0)
    np.testing.assert_array_equal(mag, counts_to_mag(counts))
    assert (error.name, error.attrs["units"], error.dims) == ("mag_err", "mag", counts.dims)
    good = counts > 0
    np.testing.assert_allclose(error.where(good), (1.0857362047581296 * 5 / counts).where(good), rtol=1e-12)
    for scalar in (5.0, np.full(counts.shape, 5.0)):
        np.testing.assert_array_equal(counts_to_mag(counts, scalar)[1], error)


def test_negative_counts(counts: xr.DataArray) -> None:
    """NaN magnitudes, negative fluxes, and no warning."""
    values = counts.copy(data=np.where(np.arange(4) % 2, -abs(counts), 0.0))
    assert counts_to_mag(values).isnull().all()
    assert counts_to_mag(values, 1.0)[1].isnull().all()
    flux, error = counts_to_flux(values, 1.0, unit=FLAM)
    np.testing.assert_array_equal(np.sign(flux), np.sign(values))
    assert (error > 0).all()
    np.testing.assert_allclose(flux_to_counts(flux), values, rtol=1e-12)


def test_methods_of_the_accessor(counts: xr.DataArray) -> None:
    xr.testing.assert_identical(counts.ztf.counts_to_mag(), counts_to_mag(counts))
    flux = counts.ztf.counts_to_flux(unit=FLAM)
    xr.testing.assert_identical(flux.ztf.flux_to_mag(), flux_to_mag(flux, unit=FLAM))
    np.testing.assert_allclose(flux.ztf.convert_flux(to="uJy"), counts.ztf.counts_to_flux())


def test_the_unit_is_known_from_the_flux(counts: xr.DataArray) -> None:
    good = abs(counts)
    for unit in ("uJy", FLAM):
        flux = counts_to_flux(good.assign_attrs(units="DN"), unit=unit)
        np.testing.assert_allclose(flux_to_mag(flux), counts_to_mag(good), rtol=1e-12)
        np.testing.assert_allclose(flux_to_counts(flux), good, rtol=1e-12)


@pytest.mark.parametrize("chunks", [{"time": 1}, {"time": 2, "source": 3}, {}])
def test_lazy_equals_numpy(counts: xr.DataArray, chunks: dict[str, int], raising_scheduler: Any) -> None:
    lazy = counts.chunk(chunks)
    flux = counts_to_flux(lazy, unit=FLAM)
    found = {
        "mag": counts_to_mag(lazy),
        "err": counts_to_mag(lazy, lazy * 0 + 1)[1],
        "flux": flux,
        "back": flux_to_counts(flux),
        "ujy": convert_flux(flux, to="uJy"),
    }
    assert all(v.chunks is not None and v.dtype == np.float64 for v in found.values())
    computed = xr.Dataset(found).compute(scheduler="synchronous")
    flux = counts_to_flux(counts, unit=FLAM)
    expected = {
        "mag": counts_to_mag(counts),
        "err": counts_to_mag(counts, counts * 0 + 1)[1],
        "flux": flux,
        "back": flux_to_counts(flux),
        "ujy": convert_flux(flux, to="uJy"),
    }
    xr.testing.assert_identical(computed, xr.Dataset(expected))


def test_bare_dask_arrays_stay_lazy() -> None:
    values = da.from_array(np.array([1.0, -1.0]), chunks=1)
    found = counts_to_mag(values, magzp=25.0)
    assert isinstance(found, da.Array)
    np.testing.assert_array_equal(found.compute(), [25.0, np.nan])


@pytest.mark.parametrize("values", [[1, 2], np.array([1, 2], np.float32), pd.Series([1, 2]), (1.0, 2.0)])
def test_other_arrays_are_double(values: Any) -> None:
    found = counts_to_mag(values, magzp=25.0)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, [25.0, 25.0 - 2.5 * np.log10(2)], rtol=1e-12)


def test_masked_entries_are_nan() -> None:
    np.testing.assert_array_equal(counts_to_mag(np.ma.array([1, 1], mask=[0, 1]), magzp=25.0), [25.0, np.nan])


def test_an_epoch_without_a_filter_is_nan(counts: xr.DataArray) -> None:
    known = counts.assign_coords({"filter": ("time", ["ztfg", "", "ztfi"])})
    assert counts_to_flux(known, unit=FLAM).isnull().all("source").values.tolist() == [False, True, False]


# ---- bad input ------------------------------------------------------------------------------------------------------


def test_what_is_not_known_is_asked_for(counts: xr.DataArray) -> None:
    with pytest.raises(InputError, match="no zero point is known: give magzp="):
        counts_to_mag(counts.drop_vars("magzp"))
    with pytest.raises(InputError, match="no zero point is known"):
        mag_to_counts(20.0)
    with pytest.raises(InputError, match="no wavelength is known: give wavelength= in Å or as a filter"):
        counts_to_flux(counts.drop_vars("filter"), unit=FLAM)
    with pytest.raises(InputError, match="for the filter 'r', only for ztfg, ztfr, ztfi; give wavelength="):
        mag_to_flux(20.0, unit=FLAM, wavelength="r")


@pytest.mark.parametrize(
    ("function", "units", "message"),
    [
        (counts_to_mag, "mag", "counts is wanted, but flux is in mag: convert it with ztfxr.mag_to_counts"),
        (counts_to_flux, "uJy", "convert it with ztfxr.flux_to_counts"),
        (flux_to_mag, "DN", "flux is wanted, but flux is in DN: convert it with ztfxr.counts_to_flux"),
        (flux_to_counts, "mag", "ztfxr.mag_to_flux"),
        (mag_to_counts, FLAM, "ztfxr.flux_to_mag"),
        (mag_to_flux, "DN", "ztfxr.counts_to_mag"),
    ],
)
def test_another_quantity_is_refused(counts: xr.DataArray, function: Any, units: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        function(counts.assign_attrs(units=units))


def test_units_are_checked(counts: xr.DataArray) -> None:
    with pytest.raises(InputError, match="a flux is in 'uJy' or 'erg/s/cm2/A'; got 'Jy'"):
        counts_to_flux(counts, unit="Jy")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="unit='uJy', but the attribute units of the flux says 'erg/s/cm2/A'"):
        flux_to_mag(counts_to_flux(counts, unit=FLAM), unit="uJy")
    with pytest.raises(InputError, match="numbers are wanted, without a unit; got uJy"):
        flux_to_mag(3.0 * u.uJy)


@pytest.mark.parametrize("value", ["12", np.array(["1", "2"]), 3 + 4j, xr.DataArray([1j]), b"5"])
def test_text_and_complex_numbers_are_no_fluxes(value: Any) -> None:
    with pytest.raises(InputError, match="real numbers are wanted; got"):
        flux_to_mag(value)


def test_bare_arrays_beside_labels_have_their_shape(counts: xr.DataArray) -> None:
    with pytest.raises(InputError, match=r"shape \(4,\) beside a DataArray of dimensions .*'source': 4"):
        counts_to_mag(counts, np.ones(4))
    with pytest.raises(InputError, match="give it as a DataArray too"):
        counts_to_mag(counts, magzp=np.ones(3))


@pytest.mark.parametrize("unit", ["Jy", "mJy", "nJy", "MJy/sr", "nanojansky", "Jy/beam"])
def test_fluxes_in_units_without_a_zero_point_are_refused(unit: str) -> None:
    """They were taken as microjansky, or as counts."""
    flux = xr.DataArray([1.0, 2.0], dims="source", name="flux", attrs={"units": unit})
    lc = xr.Dataset({"flux": flux, "flux_err": flux}).assign_coords(magzp=25.0)
    calls = [
        lambda: ztfxr.flux_to_mag(flux),
        lambda: ztfxr.flux_to_counts(flux, magzp=25.0),
        lambda: ztfxr.convert_flux(flux, to="erg/s/cm2/A", wavelength="ztfr"),
        lambda: ztfxr.counts_to_mag(flux, magzp=25.0),
        lambda: ztfxr.counts_to_flux(flux, magzp=25.0),
        lambda: ztfxr.calibrate_flux(lc),
    ]
    for call in calls:
        with pytest.raises(InputError, match=f"is in {unit}: convert it"):
            call()


@pytest.mark.parametrize("unit", ["DN", "DN/s", "electron", "electron/s", "adu", "count", ""])
def test_counts_of_every_kind_take_a_zero_point(unit: str) -> None:
    counts = xr.DataArray([1.0, 10.0], dims="source", attrs={"units": unit} if unit else {})
    np.testing.assert_allclose(ztfxr.counts_to_mag(counts, magzp=25.0), [25.0, 22.5])
    if unit:
        with pytest.raises(InputError, match="flux is wanted"):
            ztfxr.flux_to_mag(counts)
