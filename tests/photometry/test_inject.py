"""Artificial stars come back as they went in."""

from __future__ import annotations

import dask
import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

import ztfxr
from ztfxr.arrays.photometry.injection import add_stamps, light_at
from ztfxr.errors import InputError
from ztfxr.testing import Detector, Optics, make_scene, true_psf

CLEAN = Detector(cosmic_rays=0, bad_fraction=0, bad_columns=0)
SAME = Optics(profile="gaussian", ellipticity=0, field_variation=0, fwhm=(2.2, 2.2))


@pytest.fixture(scope="module")
def scene():
    return make_scene(
        (256, 256), n_epochs=6, n_stars=0, n_galaxies=0, n_variables=0, n_transients=0, detector=CLEAN, optics=SAME
    )


def stamps(scene, places):
    return true_psf(scene.truth, 0, places[:, 0], places[:, 1])


PLACES = np.array([[40.3, 60.8], [200.0, 10.2], [128.5, 250.0]])
FLUX = np.array([5000.0, 800.0, -300.0])


def test_without_noise_the_light_is_all_that_changes(scene):
    out = ztfxr.inject(scene.images, PLACES, FLUX, stamps(scene, PLACES), noise=False)
    added = (out["sci"] - scene.images["sci"]).astype(float)
    np.testing.assert_allclose(added[:, 20:100, 0:80].sum(("y", "x")), 5000.0, rtol=1e-5)
    assert float(added[0, 61, 40]) == pytest.approx(5000.0 * float(stamps(scene, PLACES)[0, 16, 16]), rel=1e-4)
    # The last star loses what lies beyond the edge.
    below = float(stamps(scene, PLACES)[2, : 16 + 6].sum())
    np.testing.assert_allclose(added[:, 200:, 80:180].sum(("y", "x")), -300.0 * below, rtol=1e-4)
    xr.testing.assert_equal(out["variance"], scene.images["variance"])


def test_light_curves_and_slices(scene):
    flux = np.arange(18.0).reshape(6, 3) * 100
    cut = scene.images.isel(x=slice(100, 256))
    out = ztfxr.inject(cut, PLACES[1:2], flux[:, 1:2], stamps(scene, PLACES[1:2]), noise=False)
    np.testing.assert_allclose((out["sci"] - cut["sci"]).sum(("y", "x")), flux[:, 1], rtol=1e-3, atol=0.1)


def test_the_noise_is_that_of_the_photons(scene):
    grid = np.stack(np.meshgrid(np.arange(30, 230, 20.0), np.arange(30, 230, 20.0)), -1).reshape(-1, 2)
    flux = np.full(len(grid), 20000.0)
    psf = stamps(scene, grid)
    smooth, noisy = (ztfxr.inject(scene.images, grid, flux, psf, noise=n) for n in (False, True))
    gap = (noisy["sci"] - smooth["sci"]).astype(float)
    more = (noisy["variance"] - scene.images["variance"]).astype(float)
    assert float((gap**2).sum() / more.sum()) == pytest.approx(1.0, abs=0.03)
    assert abs(float(gap.sum() / np.sqrt(more.sum()))) < 4


@given(
    places=st.lists(st.tuples(*[st.floats(-12, 30) | st.sampled_from([np.nan, np.inf, -1e9, 1e300])] * 2), max_size=6),
    side=st.sampled_from([1, 3, 7]),
)
def test_stars_anywhere_add_up(places, side):
    """Against one star at a time on a canvas that is larger than the image."""
    n, rng = len(places), np.random.default_rng(side)
    y, x = np.array(places).reshape(n, 2).T
    flux, stamps = rng.normal(size=n), rng.normal(size=(n, side, side))
    canvas = np.zeros((80, 80))
    for a, b, f, stamp in zip(y, x, flux, stamps, strict=True):
        if abs(a) < 31 and abs(b) < 31:
            top, left = (int(np.floor(p + 0.5)) - side // 2 + 30 for p in (a, b))
            canvas[top : top + side, left : left + side] += f * stamp
    image = np.ones((18, 20))
    found, _ = add_stamps(image, image, flux, stamps, x, y, np.array(1.0), np.array(0), noise=False)
    np.testing.assert_allclose(found - 1, canvas[30:48, 30:50], atol=1e-12)


def test_local_light_is_not_that_of_the_place(scene):
    image = scene.images["sci"].values[0].copy()
    bad = np.zeros(image.shape, bool)
    x, y = np.array([40.3, 0.2, np.nan, 4000.0]), np.array([60.8, 255.0, 3.0, 5.0])
    found = light_at(image, bad, x, y)
    v, u = np.indices(image.shape)
    for k in range(2):
        away = np.hypot(v - y[k], u - x[k])
        expected = image[(away >= 3) & (away <= 6)].mean(dtype=float) - np.median(image)
        assert found[k] == pytest.approx(expected, abs=1e-4)
    assert np.isnan(found[2:]).all()
    image[60:62, 39:42] = 1e6
    np.testing.assert_allclose(light_at(image, bad, x, y)[0], found[0], atol=0.1)
    image[55, 40], image[56, 40], bad[56, 40] = np.nan, 1e6, True
    np.testing.assert_allclose(light_at(image, bad, x, y)[0], found[0], atol=2.0)
    assert np.isnan(light_at(image, ~bad, x, y)[1])


def test_an_epoch_without_a_time_has_noise_of_its_own(scene):
    lost = scene.images.assign_coords(mjd=scene.images["mjd"].where(scene.images["mjd"] > scene.images["mjd"][0]))
    out = ztfxr.inject(lost, PLACES, FLUX, stamps(scene, PLACES), seed=3)
    whole = ztfxr.inject(scene.images, PLACES, FLUX, stamps(scene, PLACES), seed=3)
    assert np.isfinite(out["sci"]).all()
    xr.testing.assert_equal(out["sci"][1:], whole["sci"][1:])


def test_noise_does_not_depend_on_chunks_or_slices(scene):
    psf = stamps(scene, PLACES)
    whole = ztfxr.inject(scene.images, PLACES, FLUX, psf, seed=3)
    lazy = ztfxr.inject(scene.images.chunk(time=2), PLACES, FLUX, psf, seed=3)
    with dask.config.set(scheduler="threads"):
        xr.testing.assert_equal(lazy["sci"].compute(), whole["sci"])
    part = ztfxr.inject(scene.images.isel(time=slice(2, 4)), PLACES, FLUX, psf, seed=3)
    xr.testing.assert_equal(part["sci"], whole["sci"].isel(time=slice(2, 4)))
    assert not ztfxr.inject(scene.images, PLACES, FLUX, psf, seed=4)["sci"].equals(whole["sci"])


def test_stamps_of_a_psf_in_memory_wait_for_their_epoch(scene, monkeypatch):
    one = true_psf(scene.truth, 0, [0.0], [0.0]).isel(source=0)
    psf = xr.concat([one] * scene.images.sizes["time"], dim="time")
    whole = ztfxr.inject(scene.images, PLACES, FLUX, psf)

    def not_yet(*_, **__):
        raise AssertionError("evaluated too early")

    with monkeypatch.context() as patch:
        patch.setattr("ztfxr.photometry.psf.psf_stamps", not_yet)
        lazy = ztfxr.inject(scene.images.chunk(time=1), PLACES, FLUX, psf)
        with pytest.raises(AssertionError, match="too early"):
            ztfxr.inject(scene.images, PLACES, FLUX, psf)
    xr.testing.assert_equal(lazy["sci"].compute(), whole["sci"])


@pytest.fixture(scope="module")
def injected(scene):
    sky = scene.ideal["background"]

    def measure(images, positions):
        return ztfxr.aperture_photometry(images.assign(sci=images["sci"] - sky), positions, radius=6)

    one = true_psf(scene.truth, 0, [0.0], [0.0]).isel(source=0)
    places = ztfxr.inject_and_measure(scene.images, measure, one, mag=(17, 22), n_sources=70, seed=8)
    grid = np.stack([places["x_pixel"], places["y_pixel"]], -1)
    return ztfxr.inject_and_measure(scene.images, measure, stamps(scene, grid), mag=(17, 22), n_sources=70, seed=8)


def test_a_good_measurement_gets_a_good_report(injected):
    report = ztfxr.injection_report(injected)
    assert abs(float(report["all_bias"])) < 4 * float(report["all_bias_err"]) < 0.02
    assert float(report["all_pull_width"]) == pytest.approx(1.0, abs=0.12)
    assert report.sizes["mag_bin"] == 8
    assert float(report["mag_efficiency"][0]) == 1.0
    assert float(report["mag_efficiency"][-1]) < 0.2
    assert int(report["mag_n"].sum()) == int(report["all_n"]) == 70 * 6


@pytest.mark.parametrize("draw", ["standard_normal", "uniform"])
def test_the_error_of_the_width(draw):
    """Against the scatter of the widths of many samples, for errors of any distribution."""
    pulls = getattr(np.random.default_rng(3), draw)(size=(400, 300))
    flux = xr.DataArray(1000 + pulls, dims=("bin", "source"))
    stars = xr.Dataset({"flux": flux, "flux_err": xr.ones_like(flux), "flux_injected": xr.full_like(flux, 1000.0)})
    number = xr.DataArray(np.arange(400.0), dims="bin").broadcast_like(flux)
    report = ztfxr.injection_report(stars.assign(bin=number), bins={"bin": np.arange(401) - 0.5})
    assert float(report["bin_pull_width_err"].mean()) == pytest.approx(float(report["bin_pull_width"].std()), rel=0.12)
    lone = ztfxr.injection_report(xr.zeros_like(stars.isel(bin=0)).assign(flux_err=stars["flux_err"][0]))
    assert float(lone["all_pull_width"]) == float(lone["all_pull_width_err"]) == 0.0


def test_a_bad_measurement_gets_a_bad_report(injected):
    spoiled = injected.assign(flux=injected["flux"] * 0.95, flux_err=injected["flux_err"] / 2)
    report = ztfxr.injection_report(spoiled, bins={"mag": [17, 18.5, 22]})
    assert float(report["mag_bias"][0]) == pytest.approx(-0.05, abs=0.01)
    assert float(report["mag_pull_width"][1]) == pytest.approx(2.0, abs=0.3)
    lost = injected.assign(flux=injected["flux"].where(injected["mag_injected"] > 18))
    assert float(ztfxr.injection_report(lost, bins={"mag": [17, 18, 22]})["mag_efficiency"][0]) == 0.0


def test_the_report_is_drawn(injected):
    figure = ztfxr.plot_injection(ztfxr.injection_report(injected))
    assert len(figure.axes) == 9
    line = figure.axes[0].lines[0]
    np.testing.assert_allclose(line.get_ydata(), ztfxr.injection_report(injected)["mag_efficiency"])
    labels = [axes.get_xlabel() for axes in figure.axes if axes.get_xlabel()]
    assert labels == ["AB magnitude [mag]", "light around the place [DN]", "seeing, FWHM [pixel]"]
    with pytest.raises(InputError, match="no bins"):
        ztfxr.plot_injection(xr.Dataset())


def test_clear_errors(scene):
    images, psf = scene.images, stamps(scene, PLACES)
    with pytest.raises(InputError, match="for 3 sources; got"):
        ztfxr.inject(images, PLACES, FLUX[:2], psf)
    with pytest.raises(InputError, match="for 3 sources"):
        ztfxr.inject(images, PLACES, FLUX, psf.isel(source=slice(2)))
    with pytest.raises(InputError, match="odd by odd"):
        ztfxr.inject(images, PLACES, FLUX, psf.isel(psf_y=slice(10)))
    with pytest.raises(InputError, match="needs the gain"):
        ztfxr.inject(images.drop_vars("gain"), PLACES, FLUX, psf)
    with pytest.raises(InputError, match="do not fit"):
        ztfxr.inject_and_measure(images, lambda i, p: i, psf, mag=(18, 20), n_sources=4000)
    with pytest.raises(InputError, match="flux_injected is missing"):
        ztfxr.injection_report(xr.Dataset({"flux": 1, "flux_err": 1}))
    with pytest.raises(InputError, match="magnitudes need a zero point"):
        ztfxr.inject_and_measure(images.drop_vars("magzp"), lambda i, p: i, psf, mag=(18, 20))
    for seed in (-1, 1 << 22, 0.5):
        with pytest.raises(InputError, match="seed is a whole number"):
            ztfxr.inject(images, PLACES, FLUX, psf, seed=seed)
