"""Variability statistics: known distributions, an injected event among constant stars, outliers, gaps."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

import ztfxr
from ztfxr.arrays.curves import variability as stats


def curves(n_time=60, n_source=200, seed=0):
    rng = np.random.default_rng(seed)
    error = rng.uniform(5, 20, (n_time, n_source))
    flux = rng.normal(size=error.shape) * error + rng.uniform(0, 500, n_source)
    time = np.datetime64("2020-01-01", "ns") + np.sort(rng.uniform(0, 90, n_time) * 86400e9).astype("timedelta64[ns]")
    return xr.Dataset(
        {
            "flux": (("time", "source"), flux),
            "flux_err": (("time", "source"), error),
            "status": (("time", "source"), np.zeros(flux.shape, "u2")),
        },
        {"time": time, "source_id": ("source", np.arange(n_source))},
    )


def test_noise_has_the_statistics_of_noise():
    found = ztfxr.variability(curves(), rescale=False)
    assert float(found.reduced_chi2.mean()) == pytest.approx(1.0, abs=0.03)
    assert float(found.von_neumann.mean()) == pytest.approx(2.0, abs=0.06)
    assert float(found.stetson_j.mean()) == pytest.approx(0.0, abs=0.03)
    assert float(found.excess_variance.mean()) == pytest.approx(0.0, abs=5)


def test_means_are_those_of_numpy():
    lc = curves(n_source=3)
    weight = lc.flux_err.values**-2
    found = ztfxr.variability(lc)
    np.testing.assert_allclose(found.mean_flux, np.average(lc.flux, axis=0, weights=weight), rtol=1e-12)
    np.testing.assert_allclose(found.mean_flux_err, weight.sum(axis=0) ** -0.5, rtol=1e-12)


def test_an_event_ranks_first_and_one_outlier_does_not():
    lc = curves()
    t = (lc.time - lc.time[0]).values.astype(float) / 86400e9
    lc["flux"][:, 17] += 60 * np.exp(-0.5 * ((t - 40) / 8) ** 2)
    lc["flux"][5, 99] += 5000
    found = ztfxr.variability(lc)
    assert int(found["rank"][17]) == 0
    assert int(found["rank"][99]) > 5
    assert float(found.reduced_chi2[99]) > float(found.reduced_chi2[17])
    assert float(found.von_neumann[17]) < 1.3


def test_a_bad_night_makes_no_variables():
    lc = curves()
    lc["flux"][10:12] += 80 * np.random.default_rng(3).normal(size=(2, 200))
    plain, scaled = (ztfxr.variability(lc, rescale=r) for r in (False, True))
    assert float(plain.reduced_chi2.median()) > 1.5
    assert float(scaled.reduced_chi2.median()) < 1.2


def test_gaps_and_flags_are_left_out():
    lc = curves(n_source=12)
    lc["flux"][::7, 3] = np.nan
    lc["status"][:5, 4] = 4096
    lc["flux"][:5, 4] = 1e6
    lc["flux"][:, 5] = np.nan
    found = ztfxr.variability(lc)
    assert found.n_good.values[[3, 4, 5]].tolist() == [51, 55, 0]
    assert float(found.reduced_chi2[4]) < 2
    assert np.isnan(found.stetson_j[5])
    assert int(found["rank"][5]) == 11
    assert float(ztfxr.variability(lc, flagged=True).reduced_chi2[4]) > 100


def test_order_in_time_matters_and_is_restored():
    lc = curves()
    shuffled = lc.isel(time=np.random.default_rng(1).permutation(60))
    xr.testing.assert_allclose(ztfxr.variability(shuffled), ztfxr.variability(lc))


def test_excess_variance_is_recovered():
    rng = np.random.default_rng(5)
    error = np.full((4000, 3), 4.0)
    flux = rng.normal(size=error.shape) * 4 + rng.normal(size=error.shape) * np.array([0, 3, 10])
    np.testing.assert_allclose(stats.excess_variance(flux, error), [0, 9, 100], atol=4)


def test_a_dataset_without_light_curves_is_refused():
    with pytest.raises(ztfxr.InputError, match="needs flux with dims"):
        ztfxr.variability(curves().isel(source=0))


def test_fractional_excess_finds_the_variation_that_was_put_in():
    """Vaughan et al. (2003): the error is that of the scatter over realisations, without intrinsic scatter."""
    rng = np.random.default_rng(4)
    error = np.full((80, 3000), 10.0)
    flux = 100 * (1 + 0.2 * rng.normal(size=error.shape)) + rng.normal(size=error.shape) * error
    value, _ = stats.fractional_excess(flux, error)
    assert float(np.median(value)) == pytest.approx(0.2, rel=0.02)
    quiet = 100 + rng.normal(size=error.shape) * error
    value, _ = stats.fractional_excess(quiet, error)
    assert abs(float(np.median(value))) < 0.02
    assert np.isnan(stats.fractional_excess(-flux, error)[0]).all()


def test_gaps_do_not_part_consecutive_measurements():
    """Statistics of successive measurements are those of the measurements without their gaps."""
    rng = np.random.default_rng(6)
    flux, error = rng.normal(50, 9, (40, 6)), rng.uniform(2, 5, (40, 6))
    flux[rng.random(flux.shape) < 0.3] = np.nan
    for function in (stats.von_neumann, stats.stetson_j, stats.consecutive_excess):
        together = function(flux, error)
        for i in range(6):
            good = np.isfinite(flux[:, i])
            alone = function(flux[good, i : i + 1], error[good, i : i + 1])
            np.testing.assert_allclose(together[i], alone[0], rtol=1e-12)


def test_successive_statistics_by_their_formulae():
    rng = np.random.default_rng(7)
    flux, error = rng.normal(50, 9, 30), rng.uniform(2, 5, 30)
    r = (flux - np.average(flux, weights=error**-2.0)) / error
    neumann = (np.diff(r) ** 2).sum() / 29 / r.var()
    product = 30 / 29 * r[1:] * r[:-1]
    stetson = np.mean(np.sign(product) * np.sqrt(np.abs(product)))
    assert stats.von_neumann(flux[:, None], error[:, None])[0] == pytest.approx(neumann)
    assert stats.stetson_j(flux[:, None], error[:, None])[0] == pytest.approx(stetson)


def test_cut_measurements_are_left_out():
    lc = curves(n_source=5)
    cut = lc.assign(cuts=xr.zeros_like(lc.status))
    cut.flux[3] = 1e6
    cut.cuts[3] = 8
    xr.testing.assert_allclose(
        ztfxr.variability(cut).drop_vars("rank"), ztfxr.variability(lc.drop_isel(time=3)).drop_vars("rank")
    )
