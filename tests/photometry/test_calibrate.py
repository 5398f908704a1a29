"""Zero points, photometric scales of epochs and nightly means against what went in."""

from __future__ import annotations

import dask
import numpy as np
import pytest
import xarray as xr

import ztfxr
from ztfxr.errors import InputError


def stars(n_time=40, n_source=120, seed=0, slope=0.0, intrinsic=0.0, n_variables=10):
    """Constant stars through clouds that may differ over the field, and a few variables."""
    rng = np.random.default_rng(seed)
    mean = 10 ** rng.uniform(2.7, 4.5, n_source)
    x, y = rng.uniform(0, 1000, (2, n_source))
    cloud = rng.uniform(0.6, 1.0, n_time)
    tilt = slope * rng.normal(size=n_time)
    scale = cloud[:, None] * (1 + tilt[:, None] * (x - 500) / 500)
    change = 1 + intrinsic * rng.normal(size=(n_time, n_source))
    change[:, :n_variables] += 0.3 * np.sin(np.arange(n_time)[:, None] / 3.0)
    error = np.sqrt(mean * scale / 6.0 + 400.0)
    flux = scale * mean * change + rng.normal(size=error.shape) * error
    lc = xr.Dataset({"flux": (("time", "source"), flux), "flux_err": (("time", "source"), error)})
    return lc.assign_coords(x_pixel=("source", x), y_pixel=("source", y)), scale, mean


@pytest.mark.parametrize("seed", range(3))
def test_scales_of_clouds_are_found_with_honest_errors(seed):
    lc, scale, _ = stars(seed=seed)
    found = ztfxr.photometric_scale(lc)
    truth = scale[:, 0] / np.median(scale[:, 0])
    pull = (found["scale"] * np.median(truth / found["scale"]) - truth) / found["scale_err"]
    assert 0.7 < float(pull.std()) < 1.3
    assert float(found["scale_err"].max()) < 0.01
    assert not found["constant"][:10].any()
    assert found["constant"][10:].mean() > 0.8


def test_scaled_light_curves_are_flat():
    lc, _, _ = stars()
    out = ztfxr.apply_scale(lc, ztfxr.photometric_scale(lc))
    chi2 = ztfxr.variability(out, rescale=False)["reduced_chi2"][10:]
    assert float(chi2.median()) == pytest.approx(1.0, abs=0.15)
    assert float(ztfxr.variability(lc, rescale=False)["reduced_chi2"][10:].median()) > 5


def test_scales_may_vary_over_the_field():
    lc, scale, _ = stars(slope=0.05, n_source=300)
    flat, tilted = (ztfxr.apply_scale(lc, ztfxr.photometric_scale(lc, order=k)) for k in (0, 1))
    scatter = [float((v["flux"] / v["flux"].mean("time")).std("time")[10:].median()) for v in (flat, tilted)]
    assert scatter[1] < 0.8 * scatter[0]
    relative = tilted["flux"] / (lc["flux"] / scale)
    assert float((relative / relative.mean()).std()) < 0.01


def test_intrinsic_scatter_enters_the_error():
    lc, scale, _ = stars(intrinsic=0.03)
    found = ztfxr.photometric_scale(lc)
    truth = scale[:, 0] * np.median(found["scale"] / scale[:, 0])
    assert 0.7 < float(((found["scale"] - truth) / found["scale_err"]).std()) < 1.3


def test_an_epoch_without_stars_has_no_scale():
    lc, _, _ = stars()
    lc["flux"][3] = np.nan
    found = ztfxr.photometric_scale(lc)
    assert np.isnan(found["scale"][3])
    assert found["n_used"][3] == 0
    assert np.isfinite(found["scale"].drop_isel(time=3)).all()


def test_known_constant_stars_alone_are_used():
    lc, _, _ = stars()
    known = xr.DataArray(np.arange(120) >= 100, dims="source")
    assert (ztfxr.photometric_scale(lc, constant=known)["n_used"] <= 20).all()


def test_scales_need_what_they_need():
    lc, _, _ = stars()
    with pytest.raises(InputError, match="needs x_pixel"):
        ztfxr.photometric_scale(lc.drop_vars("x_pixel"), order=1)
    with pytest.raises(InputError, match="needs flux with dims"):
        ztfxr.photometric_scale(lc.isel(source=0))
    with pytest.raises(InputError, match="is of 40 epochs, the light curve has 39"):
        ztfxr.apply_scale(lc.isel(time=slice(1, None)), ztfxr.photometric_scale(lc))


def test_too_few_stars_are_an_error_and_not_a_scale_of_nan():
    lc, _, _ = stars()
    with pytest.raises(InputError, match="4 stars have a median signal-to-noise ratio of 10 or more, and 5 are needed"):
        ztfxr.photometric_scale(lc.isel(source=slice(20, 24)))
    with pytest.raises(InputError, match="lower min_snr"):
        ztfxr.photometric_scale(lc.assign(flux=lc["flux"] * np.nan))
    assert np.isfinite(ztfxr.photometric_scale(lc.isel(source=slice(20, 24)), min_stars=3)["scale"]).all()


def test_zero_point_color_exposure_and_scatter():
    lc, _, _ = stars(n_time=2, n_source=3)
    lc = lc.assign_coords(magzp=("time", [26.0, 26.4]), exptime=("time", [30.0, 60.0]), magzprms=("time", [0.02, 0.03]))
    plain = ztfxr.calibrate_flux(lc)
    factor = 10 ** (-0.4 * (lc["magzp"] - 23.9))
    np.testing.assert_allclose(plain["flux_ujy"], lc["flux"] * factor)
    color = xr.DataArray([0.0, 0.5, 1.0], dims="source")
    reddened = ztfxr.calibrate_flux(lc, color=color, color_term=0.1)
    np.testing.assert_allclose(reddened["flux_ujy"], plain["flux_ujy"] * 10 ** (-0.04 * color))
    assert reddened["flux_ujy"].dims == ("time", "source")
    second = ztfxr.calibrate_flux(lc, zero_point_exptime=1.0)
    np.testing.assert_allclose(second["flux_ujy"], plain["flux_ujy"] / lc["exptime"])
    rough = ztfxr.calibrate_flux(lc, zero_point_scatter=True)
    relative = np.log(10) / 2.5 * lc["magzprms"]
    np.testing.assert_allclose(
        rough["flux_ujy_err"] ** 2, plain["flux_ujy_err"] ** 2 + (relative * plain["flux_ujy"]) ** 2
    )
    assert plain["flux_ujy"].attrs["units"] == "uJy"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "no zero point"),
        ({"magzp": 26.0, "color": 0.3}, "needs a color_term"),
        ({"magzp": 26.0, "color_term": 0.3}, "no effect without"),
        ({"magzp": 26.0, "zero_point_exptime": 1.0}, "no exptime"),
        ({"magzp": 26.0, "zero_point_scatter": True}, "no magzprms"),
    ],
)
def test_calibration_says_what_is_missing(options, message):
    with pytest.raises(InputError, match=message):
        ztfxr.calibrate_flux(stars(n_time=2, n_source=3)[0], **options)


def nights(seed=0):
    rng = np.random.default_rng(seed)
    mjd = 59000 + rng.integers(0, 6, 40) + rng.uniform(0.1, 0.5, 40)
    error = rng.uniform(1, 3, (40, 3))
    flux = 50 + rng.normal(size=error.shape) * error
    lc = xr.Dataset({"flux": (("time", "source"), flux), "flux_err": (("time", "source"), error)})
    names = np.where(rng.random(40) < 0.5, "ztfg", "ztfr")
    return lc.assign_coords(mjd=("time", mjd), filter=("time", names), ra=("source", [1.0, 2.0, 3.0]))


def test_nightly_means_by_hand():
    lc = nights()
    lc["flux"][5] = np.nan
    lc["status"] = xr.zeros_like(lc["flux"], dtype=np.uint32)
    lc["status"][7, 1] = 1
    out = ztfxr.bin_by_night(lc)
    keys = sorted(set(zip(np.floor(lc["mjd"].values), lc["filter"].values, strict=True)))
    assert out.sizes == {"time": len(keys), "source": 3}
    for i, (night, name) in enumerate(keys):
        rows = (np.floor(lc["mjd"].values) == night) & (lc["filter"].values == name)
        assert out["filter"].values[i] == name
        assert float(out["mjd"][i]) == pytest.approx(lc["mjd"].values[rows].mean())
        for s in range(3):
            good = rows & np.isfinite(lc["flux"].values[:, s]) & (lc["status"].values[:, s] == 0)
            f, w = lc["flux"].values[good, s], lc["flux_err"].values[good, s] ** -2.0
            assert int(out["n_binned"][i, s]) == good.sum()
            if good.any():
                mean = np.average(f, weights=w)
                assert float(out["flux"][i, s]) == pytest.approx(mean)
                assert float(out["flux_err"][i, s]) == pytest.approx(w.sum() ** -0.5)
            else:
                assert np.isnan(out["flux"][i, s])
            if good.sum() > 1:
                assert float(out["chi2_night"][i, s]) == pytest.approx((w * (f - mean) ** 2).sum() / (good.sum() - 1))


@pytest.mark.parametrize("chunks", [{"time": 7}, {"time": 1, "source": 2}])
def test_binning_is_lazy_and_does_not_depend_on_chunks(chunks, raising_scheduler):
    lc = nights()
    lazy = ztfxr.bin_by_night(lc.assign({k: v.chunk(chunks) for k, v in lc.reset_coords(drop=True).data_vars.items()}))
    assert lazy["flux"].chunks is not None
    eager = ztfxr.bin_by_night(lc)
    with dask.config.set(scheduler="synchronous"):
        xr.testing.assert_identical(lazy.compute(), eager)


def test_counts_of_two_zero_points_are_not_averaged():
    """A constant star has 2.5 times the counts where the zero point is one magnitude deeper: the mean is neither."""
    lc = nights()
    magzp = 26.0 + np.arange(lc.sizes["time"]) % 2
    lc["flux"] = 50 * 10 ** (0.4 * (xr.DataArray(magzp, dims="time") - 26)) + lc["flux"] * 0
    lc = lc.assign_coords(magzp=("time", magzp))
    with pytest.raises(InputError, match="differ by up to 1 mag within a bin; calibrate first"):
        ztfxr.bin_by_night(lc)
    right = ztfxr.bin_by_night(ztfxr.calibrate_flux(lc))["flux_ujy"]
    np.testing.assert_allclose(right, 50 * 10 ** (-0.4 * (26 - 23.9)))
    apart = ztfxr.bin_by_night(lc, by=("filter", "magzp"))
    np.testing.assert_allclose(apart["flux"], 50 * 10 ** (0.4 * (apart["magzp"] - 26)) + apart["flux"] * 0)
    on_one_scale = lc.assign_attrs(flux_scale="reference")
    assert int(ztfxr.bin_by_night(on_one_scale)["n_binned"].sum()) == lc["flux"].size


def test_binning_needs_times():
    with pytest.raises(InputError, match="coordinate mjd"):
        ztfxr.bin_by_night(nights().drop_vars("mjd"))
    with pytest.raises(InputError, match="days must be positive"):
        ztfxr.bin_by_night(nights(), days=0)
