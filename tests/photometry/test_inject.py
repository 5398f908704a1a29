"""Artificial stars come back as they went in."""

from __future__ import annotations

import dask
import numpy as np
import pytest
import xarray as xr

import ztfxr
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


def test_noise_does_not_depend_on_chunks_or_slices(scene):
    psf = stamps(scene, PLACES)
    whole = ztfxr.inject(scene.images, PLACES, FLUX, psf, seed=3)
    lazy = ztfxr.inject(scene.images.chunk(time=2), PLACES, FLUX, psf, seed=3)
    with dask.config.set(scheduler="threads"):
        xr.testing.assert_equal(lazy["sci"].compute(), whole["sci"])
    part = ztfxr.inject(scene.images.isel(time=slice(2, 4)), PLACES, FLUX, psf, seed=3)
    xr.testing.assert_equal(part["sci"], whole["sci"].isel(time=slice(2, 4)))
    assert not ztfxr.inject(scene.images, PLACES, FLUX, psf, seed=4)["sci"].equals(whole["sci"])


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
    with pytest.raises(InputError, match="no bins"):
        ztfxr.plot_injection(xr.Dataset())


def test_clear_errors(scene):
    images, psf = scene.images, stamps(scene, PLACES)
    with pytest.raises(InputError, match="for 3 sources; came"):
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
