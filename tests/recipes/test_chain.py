"""The steps that recipes share."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

import ztfxr
from ztfxr.errors import InputError
from ztfxr.recipes import chain
from ztfxr.testing import SceneOptions, make_scene


@pytest.fixture(scope="module")
def scene():
    options = SceneOptions(magnitudes=(15.0, 18.5))
    return make_scene((120, 120), n_epochs=3, n_stars=30, n_galaxies=0, options=options, seed=2)


@pytest.fixture(scope="module")
def diff(scene):
    return chain.subtract(scene.images, scene.reference)


@pytest.fixture(scope="module")
def stars(scene):
    return {"x": scene.truth["x"].values[:5], "y": scene.truth["y"].values[:5]}


@pytest.mark.parametrize("enough", [True, False])
def test_fluxes_are_psf_fits_where_the_reference_has_a_psf(enough, scene, diff, stars, monkeypatch, caplog):
    """With too few stars for a PSF they are sums in apertures, and the user is told."""
    caplog.set_level("INFO", logger="ztfxr")
    psf = ztfxr.build_psf(scene.reference)
    if not enough:
        lost = psf.assign(epoch_status=psf["epoch_status"] * 0 + 256)
        monkeypatch.setattr(chain, "build_psf", lambda reference: lost)
    found = chain.measure(diff, stars, scene.reference, photometry="psf", radius=3.5, scale="reference")
    scale = np.where(diff["science_convolved"], 1 / diff["kernel_sum"], diff["kernel_sum"])[:, None]
    if enough:
        expected = ztfxr.forced_photometry(diff, stars, reference_psf=psf, fit={"group_radius": 0.0})
        assert "PSF of the reference from" in caplog.messages[0]
    else:
        expected = ztfxr.aperture_photometry(diff, stars, radius=3.5)
        assert "too few stars for a PSF" in caplog.messages[0]
    np.testing.assert_allclose(found["flux"], expected["flux"].values / scale)
    np.testing.assert_allclose(found["flux_err"], expected["flux_err"].values / scale, rtol=1e-4)
    assert found.attrs["flux_scale"] == "reference"
    assert found["flux"].attrs["units"] == "DN"


@pytest.mark.parametrize("photometry", ["aperture", "psf"])
def test_fluxes_are_calibrated_whatever_they_are_measured_by(photometry, scene, diff, stars):
    found = chain.measure(diff, stars, scene.reference, photometry=photometry)
    factor = 10 ** (-0.4 * (scene.images["magzp"].values[:, None] - 23.9))
    np.testing.assert_allclose(found["flux_ujy"], found["flux"].values * factor)
    assert {"kernel_sum", "chi2", "epoch_status"} <= set(found.data_vars)


def test_other_photometry_is_refused(scene, diff, stars):
    with pytest.raises(InputError, match="photometry is one of"):
        chain.measure(diff, stars, scene.reference, photometry="eye")


def test_a_table_of_the_truth():
    time = np.array(["2020-09-23T09:20", "2020-09-28T10:00", "2020-10-02T07:00"], dtype="M8[ns]")
    lc = xr.Dataset(
        {
            "flux": ("time", [10.0, 120.0, np.nan]),
            "flux_err": ("time", [5.0, 10.0, np.nan]),
            "status": ("time", np.array([0, 4096, 8192 | 2])),
        },
        {"time": time, "seeing": ("time", [2.0, 3.0, 2.5])},
    )
    truth = xr.Dataset(
        {"flux": ("time", [0.0, 100.0, 50.0])} | dict.fromkeys(["shift_x", "shift_y"], ("time", [0.5] * 3))
    )
    for given in (lc, lc.expand_dims("source", axis=1)):
        _, first, second, third, last = chain.truth_table(given, truth)
        assert first.split() == ["2020-09-23", "2.00", "+0.50", "+0.50", "0.0", "10.0", "5.0", "2.00"]
        assert second.split()[-2:] == ["2.00", "masked"]
        assert third.split()[-3:] == ["nan", "not_fits", "no_good_pixels"]
        assert "the 1 epochs without bad pixels in the aperture: mean +2.00" in last


def test_what_is_stored_is_read_back_and_told(tmp_path, caplog):
    caplog.set_level("INFO", logger="ztfxr")
    one = xr.Dataset({"flux": ("time", [1.0, 2.0])})
    path = tmp_path / "some.zarr"
    xr.testing.assert_equal(chain.store({"a/b": one}, path)["a/b"].to_dataset().load(), one)
    xr.testing.assert_equal(chain.store({"c": one}, path)["c"].to_dataset().load(), one)
    done = chain.finish(one, path, tmp_path / "x.png", tmp_path / "y.png")
    assert done.figures == (tmp_path / "x.png", tmp_path / "y.png")
    assert caplog.messages == [f"Store:   {path}\nFigures: {tmp_path / 'x.png'}, {tmp_path / 'y.png'}"]
