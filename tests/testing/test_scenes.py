"""The simulated scene is what its truth says."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from photutils.psf import MoffatPSF

import ztfxr
from ztfxr.errors import InputError
from ztfxr.testing import Detector, Optics, SceneOptions, Sky, make_scene, true_psf

CLEAN = Detector(cosmic_rays=0, bad_fraction=0, bad_columns=0)


def small(**options):
    defaults = {"n_epochs": 3, "n_stars": 20, "n_galaxies": 3, "n_variables": 2, "n_transients": 2, "seed": 4}
    return make_scene((96, 80), **(defaults | options))


@pytest.fixture(scope="module")
def scene():
    return small()


def test_the_same_seed_gives_the_same_scene(scene):
    again = small()
    for name in ("images", "reference", "truth", "ideal"):
        xr.testing.assert_identical(
            getattr(scene, name).drop_vars(["ra", "dec"], errors="ignore"),
            getattr(again, name).drop_vars(["ra", "dec"], errors="ignore"),
        )
    assert not small(seed=5).images["sci"].equals(scene.images["sci"])


def test_a_scene_says_in_a_line_what_it_is(scene):
    sizes, n = scene.images.sizes, scene.truth.sizes["source"]
    assert repr(scene) == f"<Scene: {sizes['time']} epochs of {sizes['y']} x {sizes['x']} pixels (y, x), {n} sources>"


def test_sources_do_not_depend_on_the_number_of_epochs(scene):
    longer = small(n_epochs=5)
    for name in ("x", "y", "mag", "kind"):
        np.testing.assert_array_equal(longer.truth[name], scene.truth[name])


def test_all_light_of_the_sources_is_in_the_expected_image():
    scene = small(options=SceneOptions(margin=30), n_galaxies=2)
    light = (scene.ideal["expected"] - scene.ideal["background"]).astype(float).sum(("y", "x"))
    inside = scene.truth["flux"].sum("source")
    np.testing.assert_allclose(light, inside, rtol=2e-3)


def test_noise_has_the_stated_variance():
    scene = make_scene((256, 256), n_epochs=2, detector=CLEAN, seed=1)
    pull = (scene.images["sci"] - scene.ideal["expected"]) / np.sqrt(scene.images["variance"])
    good = scene.images["flags"] == 0
    assert abs(float(pull.where(good).std()) - 1) < 0.01
    assert abs(float(pull.where(good).mean())) < 0.01


def test_psf_is_the_moffat_of_photutils_integrated_over_pixels():
    optics = Optics(ellipticity=0, field_variation=0, beta=3.0, fwhm=(2.0, 2.0))
    truth = small(optics=optics).truth
    ours = true_psf(truth, 0, [40.3], [30.8]).values[0]
    steps, weights = (v / 2 for v in np.polynomial.legendre.leggauss(20))
    alpha = 2.0 / 2 / np.sqrt(2 ** (1 / 3) - 1)
    model = MoffatPSF(flux=1, x_0=0.3, y_0=-0.2, alpha=alpha, beta=3.0)
    grid = (np.arange(-16, 17)[:, None] + steps).ravel()
    dense = np.einsum("iajb,a,b->ij", model(*np.meshgrid(grid, grid)).reshape(33, 20, 33, 20), weights, weights)
    dense = np.where(ours > 0, dense, 0)
    np.testing.assert_allclose(ours, dense / dense.sum(), atol=2e-6)


def test_psf_moments_follow_ellipticity_and_change_over_the_field():
    optics = Optics(profile="gaussian", ellipticity=0.3, field_variation=0.2, fwhm=(3.0, 3.0))
    truth = small(optics=optics).truth
    stamps = true_psf(truth, 1, [10.0, 70.0], [20.0, 60.0])
    k = np.arange(-16, 17)
    xx = (stamps * k[None, None, :] ** 2).sum(("psf_y", "psf_x"))
    yy = (stamps * k[None, :, None] ** 2).sum(("psf_y", "psf_x"))
    xy = (stamps * k[None, None, :] * k[None, :, None]).sum(("psf_y", "psf_x"))
    # For a Gaussian e = (a - b) / (a + b), so (xx - yy) / (xx + yy - 1/6) = 2 e1 / (1 + e²).
    u, v = 2 * np.array([10.0, 70.0]) / 79 - 1, 2 * np.array([20.0, 60.0]) / 95 - 1
    e1 = float(truth["ellipticity_1"][1]) * (1 + 0.5 * u)
    e2 = float(truth["ellipticity_2"][1]) * (1 + 0.5 * v)
    size = xx + yy - 2 / 12
    np.testing.assert_allclose((xx - yy) / size, 2 * e1 / (1 + e1**2 + e2**2), atol=1e-3)
    np.testing.assert_allclose(2 * xy / size, 2 * e2 / (1 + e1**2 + e2**2), atol=1e-3)
    assert abs(size[0] / size[1] - 1) > 0.01


def test_given_sources_come_first_with_their_flux():
    flux = np.array([[5000.0, 100.0], [7000.0, 0.0]])
    own = xr.Dataset({"x": ("source", [30.2, 50.0]), "y": ("source", [40.0, 61.5]), "flux": (("time", "source"), flux)})
    scene = small(n_epochs=2, sources=own, options=SceneOptions(min_separation=8.0))
    np.testing.assert_allclose(scene.truth["flux"][:, :2] / scene.truth["transparency"], flux)
    assert list(scene.truth["kind"].values[:2]) == ["given", "given"]
    gap = np.hypot(scene.truth["x"] - 30.2, scene.truth["y"] - 40.0)
    assert (np.sort(gap.where(scene.truth["kind"] != "transient", np.inf))[1:] >= 8).all()


def test_dither_moves_every_source_and_the_wcs_with_it():
    scene = small(sky=Sky(dither=3.0))
    assert "ra" not in scene.images.coords
    tree = scene.epochs()
    sky = ztfxr.pixel_to_sky(scene.reference, 40.0, 30.0)
    for i, node in enumerate(tree.children.values()):
        x, y = ztfxr.sky_to_pixel(node.to_dataset(), sky)
        assert float(x) == pytest.approx(40.0 + float(scene.truth["shift_x"][i]), abs=1e-6)
        assert float(y) == pytest.approx(30.0 + float(scene.truth["shift_y"][i]), abs=1e-6)


def test_defects_are_flagged():
    rays = small(detector=Detector(cosmic_rays=30, saturate=2000.0, bad_fraction=0.01))
    flags = rays.images["flags"]
    spikes, saturated, dead = (ztfxr.mask(flags, planes=[p]) for p in ("spikes", "saturated", "dead"))
    np.testing.assert_array_equal(spikes, rays.ideal["cosmic_ray"])
    assert (rays.images["sci"].where(saturated & ~dead) == 2000.0).sum() == (saturated & ~dead).sum() > 0
    assert (dead[0] == dead[1]).all()
    assert dead.any()


def test_transients_are_not_in_the_reference(scene):
    kind = scene.truth["kind"]
    assert (scene.truth["reference_flux"][kind == "transient"] == 0).all()
    hosts = scene.truth["host"][kind == "transient"]
    assert (kind[hosts[hosts >= 0].values] == "galaxy").all()


def test_written_frames_open_as_ztf_frames(scene, tmp_path):
    paths = scene.write(tmp_path)
    frame = ztfxr.open_quadrant(paths[1]).load()
    own = scene.images.isel(time=1)
    np.testing.assert_array_equal(frame["sci"], own["sci"])
    np.testing.assert_array_equal(frame["flags"], own["flags"])
    for name in ("magzp", "gain", "seeing", "time", "field", "qid", "filter"):
        assert frame[name].item() == own[name].item(), name
    ztfxr.same_grid(frame, scene.reference)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_stars": -1}, "cannot be negative"),
        ({"n_epochs": 0}, "an epoch"),
        ({"options": SceneOptions(min_separation=60.0)}, "do not fit"),
        ({"options": SceneOptions(margin=50.0)}, "no room"),
        ({"sources": xr.Dataset({"x": ("source", [1.0])})}, "flux, y"),
    ],
)
def test_impossible_scenes_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        small(**options)


@pytest.mark.parametrize(
    ("group", "options", "message"),
    [
        (SceneOptions, {"magnitudes": (20.0, 15.0)}, "bright to faint"),
        (SceneOptions, {"margin": -1.0}, "at least 0"),
        (SceneOptions, {"reference_frames": 0}, "one frame"),
        (Optics, {"profile": "airy"}, "'moffat' or 'gaussian'"),
        (Optics, {"fwhm": (0.0, 2.0)}, "positive widths"),
        (Detector, {"gain": 0.0}, "gain is positive"),
        (Detector, {"flagged": 2.0}, "from 0 to 1"),
    ],
)
def test_impossible_options_are_refused(group, options, message):
    with pytest.raises(InputError, match=message):
        group(**options)


def test_a_stamp_of_even_or_too_large_size_is_refused(scene):
    with pytest.raises(InputError, match="odd and at most 33"):
        true_psf(scene.truth, 0, [3], [4], size=35)
