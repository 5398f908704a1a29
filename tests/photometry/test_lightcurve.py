"""The main job end to end on semi-real epochs with a known truth."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from scipy import ndimage

import ztfxr
from ztfxr.arrays.images.image import Image
from ztfxr.arrays.matching.exclusion import Measured, excluded_with
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


SPOT = (52.3, 47.6)


@pytest.fixture(scope="module")
def changed():
    """A cut-out of 100 pixels with 25 stars, in which one more is there that the reference does not know."""
    new = xr.Dataset({"x": ("source", [SPOT[0]]), "y": ("source", [SPOT[1]]), "flux": ("source", [30_000.0])})
    options = {"n_stars": 25, "n_galaxies": 0, "n_variables": 0, "n_transients": 0, "seed": 3}
    scene = make_scene((100, 100), n_epochs=2, sources=new, **options)
    return scene, make_scene((100, 100), n_epochs=1, **options).reference


def brightness(changed, positions, **options):
    """The new star's flux over the true one, and the result."""
    scene, reference = changed
    lc = ztfxr.lightcurve(scene.images, positions, reference=reference, **options).compute()
    return lc["flux"][:, 0] / scene.truth["flux"].isel(source=0), lc


def test_what_is_measured_does_not_shape_the_kernel(changed):
    """Failure A31: without care the kernel follows the new star, and 2.5 to 7 % of its flux are lost."""
    kept, lc = brightness(changed, [SPOT])
    np.testing.assert_allclose(kept, 1.0, atol=0.012)
    np.testing.assert_array_equal(kept, brightness(changed, [SPOT], exclude=[SPOT])[0])
    np.testing.assert_allclose(lc["kernel_sum"], changed[0].truth["transparency"], rtol=0.03)
    lost = brightness(changed, [SPOT], exclude_radius=0)[0]
    assert (lost < 0.95).all()
    np.testing.assert_allclose(
        brightness(changed, [SPOT, (20.0, 80.0)], exclude_radius=9, exclude=[(80, 20)])[0], kept, atol=0.005
    )
    with pytest.raises(InputError, match="exclude_radius is a number of pixels, 0 for none; got -1"):
        brightness(changed, [SPOT], exclude_radius=-1)


GRADIENTS = {
    "quadratic 100": lambda v, u: 100 * (0.7 * u**2 + 0.3 * v**2),
    "quadratic 300": lambda v, u: 300 * (0.7 * u**2 + 0.3 * v**2),
    "linear 300": lambda v, u: 150 * (1 + u) + 0 * v,
    "linear 1000": lambda v, u: 500 * (1 + v) + 0 * u,
}


@pytest.fixture(scope="module")
def field():
    """A cut-out of 200 pixels with a new star of 5000 DN, on a sky that is flat so far; no noise is stated."""
    new = xr.Dataset({"x": ("source", [103.2]), "y": ("source", [97.8]), "flux": ("source", [5000.0])})
    options = {"n_stars": 60, "n_galaxies": 0, "n_variables": 0, "n_transients": 0, "seed": 5}
    scene = make_scene((200, 200), n_epochs=6, sources=new, **options)
    reference = make_scene((200, 200), n_epochs=1, **options).reference.drop_vars("variance")
    images = scene.images.drop_vars("variance")
    return images, reference, ztfxr.lightcurve(images, [(103.2, 97.8)], reference=reference).compute()


@pytest.mark.parametrize("gradient", GRADIENTS)
def test_a_sky_that_is_steep_is_followed_and_is_no_noise(field, gradient):
    """Failure A32: a gradient over a cut-out bent fluxes, by up to 90 %, or made errors up to 3.5 times too large."""
    images, reference, flat = field
    v, u = (np.linspace(-1, 1, 200)[:, None], np.linspace(-1, 1, 200)[None, :])
    sky = GRADIENTS[gradient](v, u)
    added = (np.random.default_rng(1).poisson(6.0 * sky, (6, 200, 200)) / 6.0).astype(np.float32)
    lc = ztfxr.lightcurve(images.assign(sci=images["sci"] + added), [(103.2, 97.8)], reference=reference).compute()
    photons = float(np.pi * 7**2 * sky[98, 103] / 6.0)
    np.testing.assert_allclose(lc["flux_err"], np.hypot(flat["flux_err"], np.sqrt(photons)), rtol=0.12)
    assert (np.abs(lc["flux"] - flat["flux"]) < 3 * np.sqrt(photons + 40**2)).all()
    assert (lc["epoch_status"] == 0).all()
    np.testing.assert_allclose(lc["noise_ratio"], 1.0, atol=0.1)
    assert (lc["chi2"] > 0.65).all()
    assert (lc["chi2"] < 1.15).all()


def test_positions_that_hold_the_light_of_the_field_are_kept_in(changed):
    """All stars of a field as positions: to leave them out would leave nothing to find the kernel by."""
    scene, reference = changed
    stars = np.column_stack([scene.truth["x"], scene.truth["y"]])[1:]
    free = {"exclude": [SPOT], "exclude_radius": 9}
    alone = ztfxr.difference(scene.images, reference, **free)
    for positions in (stars, stars[np.argsort(-scene.truth["reference_flux"].values[1:])][:4]):
        lc = ztfxr.lightcurve(scene.images, positions, reference=reference, **free)
        np.testing.assert_allclose(lc["kernel_sum_err"], alone["kernel_sum_err"], rtol=0.2)
        np.testing.assert_allclose(lc["kernel_sum"], alone["kernel_sum"], rtol=0.03)


def test_of_positions_that_are_kept_in_those_that_changed_are_not(changed):
    """The new star is measured beside all others of the field: 8 % of its flux would go into the kernel."""
    scene, _ = changed
    positions = np.column_stack([scene.truth["x"], scene.truth["y"]])
    kept, lc = brightness(changed, positions, known_scale=(0.8, 10.0))
    np.testing.assert_allclose(kept, 1.0, atol=0.012)
    np.testing.assert_allclose(lc["kernel_sum"], scene.truth["transparency"], rtol=0.03)


def test_many_positions_do_not_empty_a_frame():
    scene = make_scene((560, 560), n_epochs=1, n_stars=900, n_galaxies=0, n_variables=0, seed=2)
    rng = np.random.default_rng(0)
    places = rng.uniform(5, 555, (400, 2))
    found = [ztfxr.lightcurve(scene.images, p, reference=scene.reference, kernel_size=9) for p in (places, places[:20])]
    alone = ztfxr.difference(scene.images, scene.reference, kernel_size=9)
    np.testing.assert_array_equal(found[0]["kernel_sum"], alone["kernel_sum"])
    assert 0.7 * int(alone["n_cutouts"][0]) < int(found[1]["n_cutouts"][0])
    np.testing.assert_allclose(found[1]["kernel_sum"], alone["kernel_sum"], rtol=0.005)


def test_wide_stars_are_left_out_by_their_width(changed):
    _, reference = changed
    sharp = np.hypot(*(np.mgrid[:100, :100] - np.array([SPOT[1], SPOT[0]])[:, None, None]))
    image = Image.of(reference["sci"].values, reference["variance"].values, np.zeros((100, 100), bool))
    wide = Image.of(ndimage.gaussian_filter(image.pixels, 2.0), image.variance, image.bad)
    given = {"named": np.zeros((100, 100), bool), "distance": np.ceil(sharp)}
    for science, radius in ((image, 10.0), (wide, 16.5)):
        out = excluded_with(science, image, given, Measured(10.0, False, True, True, np.empty((0, 2))))
        assert np.sqrt(out.sum() / np.pi) == pytest.approx(radius, abs=2.5)


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
    expected = np.hypot(lc.flux_err, lc.flux * lc.kernel_sum_err / lc.kernel_sum) / lc.kernel_sum
    np.testing.assert_allclose(out.flux_err, expected, rtol=1e-12)
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
