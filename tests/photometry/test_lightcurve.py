"""The main job end to end on semi-real epochs with a known truth."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

import ztfxr
from ztfxr.errors import InputError
from ztfxr.samples import make_epochs
from ztfxr.testing import SceneOptions, make_scene


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make_epochs(tmp_path_factory.mktemp("frames"), n_epochs=8, bad_fraction=0.0005, seed=11)


@pytest.fixture(scope="module")
def reference(made):
    ds = ztfxr.open_quadrant(made.reference)
    return ds.assign(variance=ds.ztf.variance(method="photon")).load()


@pytest.fixture(scope="module")
def frames(made, reference):
    ds = ztfxr.stack(ztfxr.open_epochs(made.paths), like=reference)
    return ds.assign(variance=ds.ztf.variance(method="photon"))


@pytest.fixture(scope="module")
def position(made):
    return [(float(made.truth.x), float(made.truth.y))]


@pytest.fixture(scope="module")
def lc(frames, reference, position):
    return ztfxr.lightcurve(frames, position, reference=reference, exclude=position).compute()


def test_the_supernova_is_measured_within_its_errors(lc, made):
    pull = ((lc.flux[:, 0] - made.truth.flux.values) / lc.flux_err[:, 0]).values
    assert np.abs(pull).max() < 4
    assert 0.4 < np.sqrt(np.mean(pull**2)) < 1.6
    assert float((lc.flux / lc.flux_err).max()) > 25


def test_the_photometric_scale_is_the_transparency(lc, made):
    np.testing.assert_allclose(lc.kernel_sum, made.truth.transparency, rtol=0.01)


def test_calibrated_flux_is_independent_of_transparency(lc, made):
    expected = made.truth.flux.values / made.truth.transparency.values * 10 ** (-0.4 * (26.285139 - 23.9))
    np.testing.assert_allclose(lc.flux_ujy[:, 0], expected, atol=float(4 * lc.flux_ujy_err.max()))
    assert lc.flux_ujy.attrs["units"] == "uJy"
    assert lc.flux.attrs["units"] == "DN"
    assert "units" not in lc.status.attrs


def test_the_reference_scale_takes_the_transparency_out(frames, reference, position, lc, made):
    out = ztfxr.lightcurve(frames, position, reference=reference, exclude=position, scale="reference").compute()
    np.testing.assert_allclose(out.flux, lc.flux / lc.kernel_sum, rtol=1e-12)
    np.testing.assert_allclose(out.flux_err, lc.flux_err / lc.kernel_sum, rtol=1e-12)
    assert "flux_ujy" not in out
    assert out.flux.attrs["units"] == "DN"


def test_every_epoch_has_a_row_and_its_coordinates(lc, made):
    assert lc.sizes == {"time": 8, "source": 1}
    np.testing.assert_array_equal(lc.time, made.truth.time)
    assert {"mjd", "filter", "seeing", "magzp", "frame"} <= set(lc.coords)
    assert not {"y", "x"} & set(lc.dims)


def test_difference_images_give_the_same_light_curve(frames, reference, position, lc):
    diff = ztfxr.difference(frames, reference, exclude=position)
    again = ztfxr.lightcurve(diff, position)
    xr.testing.assert_allclose(again.flux.compute(), lc.flux)
    with pytest.raises(ztfxr.InputError, match="difference images already; kernel_size would have no effect"):
        ztfxr.lightcurve(diff, position, kernel_size=5)


def test_a_broken_frame_is_a_status_and_changes_no_other_epoch(made, reference, position, lc, tmp_path):
    paths = list(made.paths)
    cut = tmp_path / paths[2].name
    cut.write_bytes(paths[2].read_bytes()[:200_000])
    (tmp_path / paths[2].name.replace("sciimg", "mskimg")).write_bytes(paths[2].read_bytes())
    paths[2] = cut
    stacked = ztfxr.stack(ztfxr.open_epochs(paths), like=reference)
    stacked["variance"] = stacked.ztf.variance(method="photon")
    out = ztfxr.lightcurve(stacked, position, reference=reference, exclude=position).compute()
    assert out.sizes["time"] == 8
    assert np.isnan(out.flux.values[-1, 0])
    assert np.isnat(out.time.values[-1])
    names = [
        m
        for v, m in zip(out.status.attrs["flag_masks"], out.status.attrs["flag_meanings"].split(), strict=True)
        if int(out.status[-1, 0]) & v
    ]
    assert "truncated" in names
    assert "announces" in str(out.message.values[-1])
    others = [i for i in range(8) if i != 2]
    np.testing.assert_array_equal(out.flux.values[:7], lc.flux.values[others])


def test_the_light_curve_survives_zarr(lc, tmp_path):
    lc.ztf.to_zarr(tmp_path / "lc.zarr")
    xr.testing.assert_identical(ztfxr.open_zarr(tmp_path / "lc.zarr").load(), lc)


def test_a_tree_goes_straight_to_a_light_curve(made, reference, position):
    out = ztfxr.open_epochs(made.paths).ztf.lightcurve(position, reference=reference, exclude=position)
    assert out.flux.chunks is not None
    assert np.isfinite(out.flux.compute()).all()


def test_forced_fits_and_apertures_see_the_same_transients():
    options = SceneOptions(magnitudes=(15.5, 20.0))
    scene = make_scene((192, 192), n_epochs=4, n_stars=120, n_galaxies=0, options=options, seed=11)
    here = scene.truth.isel(source=(scene.truth["kind"] == "transient").values)
    psf = ztfxr.build_psf(ztfxr.clean(scene.images))
    fitted = ztfxr.lightcurve(scene.images, here, reference=scene.reference, psf=psf)
    summed = ztfxr.lightcurve(scene.images, here, reference=scene.reference)
    assert fitted["flux_ujy"].dims == summed["flux_ujy"].dims == ("time", "source")
    assert (fitted["flux_err"] < summed["flux_err"]).mean() > 0.9
    pull = (fitted["flux"] - here["flux"]) / fitted["flux_err"]
    assert abs(float(pull.median())) < 1.0
    assert float(abs(pull).median()) < 1.5
    with pytest.raises(InputError, match="no effect"):
        ztfxr.lightcurve(scene.images, here, reference=scene.reference, psf=psf, radius=5)
