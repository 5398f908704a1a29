"""Difference images: injected truth, honest errors, chunkings, statuses, and IPAC's differences of real alerts."""

from __future__ import annotations

import dask
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage, signal

import ztfxr
from ztfxr.arrays.statistics import mad_std
from ztfxr.schema import STATUS_PLANES, planes_to_bits
from ztfxr.testing import Detector, SceneOptions, Sky, make_scene

NY, NX = 58, 66
SIGMA = 3.0


def star(x: float, y: float, flux: float, fwhm: float = 2.6) -> np.ndarray:
    yy, xx = np.mgrid[:NY, :NX]
    s = fwhm / 2.3548
    return flux * np.exp(-((xx - x) ** 2 + (yy - y) ** 2) / 2 / s**2) / (2 * np.pi * s**2)


def field(seed: int, n: int = 45) -> np.ndarray:
    rng = np.random.default_rng(seed)
    stars = zip(rng.uniform(0, NX, n), rng.uniform(0, NY, n), rng.uniform(300, 4000, n), strict=True)
    return sum((star(*s) for s in stars), np.zeros((NY, NX)))


KERNEL = np.outer([0.15, 0.6, 0.3], [0.1, 0.7, 0.2]) / np.outer([0.15, 0.6, 0.3], [0.1, 0.7, 0.2]).sum() * 1.07


def pair(
    seed: int = 0, epochs: int = 3, extra: np.ndarray | float = 0.0, sigma: float = SIGMA
) -> tuple[xr.Dataset, xr.Dataset]:
    """A stack and its reference with white noise of known variance, and what is added to the science images."""
    rng = np.random.default_rng(seed)
    scene = field(seed)
    model = signal.convolve2d(scene, KERNEL, mode="same") + 20 + extra
    sci = model + rng.normal(scale=sigma, size=(epochs, NY, NX))
    ref = scene + rng.normal(scale=sigma / 5, size=(NY, NX))
    dims = ("time", "y", "x")
    coords = {
        "time": np.datetime64("2020-01-01", "ns") + np.arange(epochs) * np.timedelta64(1, "D"),
        "y": np.arange(NY),
        "x": np.arange(NX),
    }
    science = xr.Dataset(
        {
            "sci": (dims, sci.astype("f4")),
            "variance": (dims, np.full(sci.shape, sigma**2, "f4")),
            "flags": (dims, np.zeros(sci.shape, "u2")),
        },
        coords,
    )
    spatial = {k: coords[k] for k in ("y", "x")}
    reference = xr.Dataset(
        {"sci": (dims[1:], ref.astype("f4")), "variance": (dims[1:], np.full(ref.shape, (sigma / 5) ** 2, "f4"))},
        spatial,
    )
    return science, reference


def test_constant_stars_vanish_and_the_noise_is_the_stated_one():
    science, reference = pair(1)
    diff = ztfxr.difference(science, reference, kernel_size=5)
    pull = (diff.difference / np.sqrt(diff.difference_variance)).values
    assert np.nanstd(pull) == pytest.approx(1.0, abs=0.03)
    assert np.abs(np.nanmean(pull)) < 0.03
    np.testing.assert_allclose(diff.chi2, 1.0, atol=0.08)
    np.testing.assert_allclose(diff.kernel_sum, KERNEL.sum(), atol=4 * float(diff.kernel_sum_err.max()))
    assert (diff.kernel.isel(time=0) - diff.kernel.isel(time=1)).std() < 3 * diff.kernel_err.max()
    assert diff.difference.attrs["units"] == "DN"
    assert diff.difference_variance.attrs["units"] == "DN2"


def test_a_new_source_keeps_its_sign_and_flux_and_its_error_is_honest():
    pulls = []
    for seed in range(25):
        science, reference = pair(seed, epochs=4, extra=star(30.3, 25.8, 2500.0) - star(12.2, 40.1, 1500.0))
        where = [(30.3, 25.8), (12.2, 40.1)]
        diff = ztfxr.difference(science, reference, kernel_size=5, exclude=where, exclude_radius=7)
        phot = ztfxr.aperture_photometry(diff, where, radius=6)
        pulls.append(((phot.flux - xr.DataArray([2500.0, -1500.0], dims="source")) / phot.flux_err).values)
    pulls = np.array(pulls)
    assert np.abs(pulls.mean()) < 4 / np.sqrt(pulls.size)
    assert pulls.std() == pytest.approx(1.0, abs=0.15)


@given(chunks=st.sampled_from([1, 2, 5, (2, 3), (1, 3, 1)]), reference_lazy=st.booleans())
@settings(max_examples=6)
def test_chunking_never_changes_a_result(chunks, reference_lazy):
    science, reference = pair(2, epochs=5)
    eager = ztfxr.difference(science, reference, kernel_size=3)
    lazy = ztfxr.difference(
        science.chunk(time=chunks), reference.chunk() if reference_lazy else reference, kernel_size=3
    )
    assert all(v.chunks is not None for v in lazy.data_vars.values())
    xr.testing.assert_allclose(lazy.compute(), eager, rtol=1e-9)


@pytest.mark.parametrize("scheduler", ["synchronous", "threads"])
def test_schedulers_agree_exactly(scheduler):
    science, reference = pair(3, epochs=4)
    diff = ztfxr.difference(science.chunk(time=1), reference, kernel_size=3)
    with dask.config.set(scheduler="synchronous"):
        expected = diff.compute()
    with dask.config.set(scheduler=scheduler):
        xr.testing.assert_identical(diff.compute(), expected)


def test_one_epoch_is_the_stack_of_one():
    science, reference = pair(4, epochs=2)
    one = ztfxr.difference(science.isel(time=1), reference, kernel_size=3)
    assert one.difference.dims == ("y", "x")
    xr.testing.assert_allclose(
        one.difference, ztfxr.difference(science, reference, kernel_size=3).difference.isel(time=1)
    )


def test_junk_under_the_masks_never_leaks():
    science, reference = pair(5, epochs=2)
    clean = ztfxr.difference(science, reference, kernel_size=5)
    flags = np.zeros(science.sci.shape, "u2")
    flags[:, 20:24, 30:37] = 1 << 9
    spoiled = science.assign(flags=(science.sci.dims, flags))
    spoiled["sci"] = spoiled.sci.where(flags == 0, 1e6)
    diff = ztfxr.difference(spoiled, reference, kernel_size=5)
    assert bool(diff.mask[0, 20:24, 30:37].all())
    assert bool(np.isnan(diff.difference[0, 20:24, 30:37]).all())
    good = ~diff.mask.values
    assert np.abs((diff.difference - clean.difference).values[good]).max() < 0.5
    np.testing.assert_array_equal(np.isnan(diff.difference.values), diff.mask.values)
    spoiled["sci"] = spoiled.sci.where(flags == 0, np.nan)
    xr.testing.assert_allclose(ztfxr.difference(spoiled, reference, kernel_size=5).difference, diff.difference)


def test_a_bad_reference_pixel_spoils_just_the_kernel_footprint():
    science, reference = pair(6, epochs=1)
    bad = np.zeros((NY, NX), bool)
    bad[30, 40] = True
    reference["sci"] = reference.sci.where(~bad, 3e4)
    diff = ztfxr.difference(science, reference, kernel_size=5, reference_mask=xr.DataArray(bad, dims=("y", "x")))
    inner = diff.mask.isel(time=0).values[2:-2, 2:-2]
    assert inner.sum() == 25
    assert inner[26:31, 36:41].all()
    assert np.abs(diff.difference).max() < 8 * SIGMA


def test_epochs_that_cannot_be_solved_have_a_status_and_harm_no_other():
    science, reference = pair(7, epochs=3)
    expected = ztfxr.difference(science, reference, kernel_size=3)
    science["sci"] = science.sci.where(science.time != science.time[1], np.nan)
    diff = ztfxr.difference(science, reference, kernel_size=3)
    assert diff.epoch_status.values.tolist() == [0, planes_to_bits(["too_few_pixels"], STATUS_PLANES), 0]
    assert bool(diff.difference.isel(time=1).isnull().all())
    xr.testing.assert_identical(diff.difference.isel(time=[0, 2]), expected.difference.isel(time=[0, 2]))
    blank = ztfxr.difference(science, xr.zeros_like(reference).assign(variance=reference.variance), kernel_size=3)
    assert int(blank.epoch_status[0]) == planes_to_bits(["solve_failed"], STATUS_PLANES)


def test_errors_name_what_is_wrong():
    science, reference = pair(8, epochs=1)
    with pytest.raises(ztfxr.InputError, match=r"kernel_size must be odd.*got 4: use 5"):
        ztfxr.difference(science, reference, kernel_size=4)
    with pytest.raises(ztfxr.InputError, match="background_order must be 0, 1, 2 or 3; got 7"):
        ztfxr.difference(science, reference, background_order=7)
    with pytest.raises(ztfxr.InputError, match="no reference"):
        ztfxr.difference(science)
    with pytest.raises(ztfxr.AlignmentError, match="different shapes"):
        ztfxr.difference(science, reference.isel(x=slice(0, 50)))
    with pytest.raises(ztfxr.AlignmentError, match="start at different x"):
        ztfxr.difference(science.isel(x=slice(0, 50)), reference.isel(x=slice(1, 51)))
    with pytest.raises(ztfxr.ChunkError, match="chunks along 'y'"):
        ztfxr.difference(science.chunk(y=20), reference)


@pytest.fixture(scope="module")
def alerts(alert_paths):
    return ztfxr.open_alerts(alert_paths)


def test_real_alerts_agree_with_ipac(alerts):
    """Flux in 7 px: median deviation below 1 % for epochs brighter than 15; residual scatter at most 1.02 of IPAC's."""
    deviation, scatter = [], []
    for node in alerts.children.values():
        stamps = node.to_dataset()
        diff = stamps.ztf.difference(exclude_radius=10).compute()
        ours = ztfxr.aperture_photometry(diff, [(0, 0)], radius=7).flux
        ipac = ztfxr.aperture_photometry(
            stamps.ipac_difference, [(0, 0)], radius=7, variance=stamps.variance, mask=False
        ).flux
        ratio = (ours / ipac).values[:, 0]
        deviation += list(np.abs(ratio - 1)[stamps.magap.values < 15])
        r = np.hypot(stamps.y, stamps.x).values
        ring = (r >= 11) & (r <= 24)
        scatter += [
            mad_std(diff.difference.values[i][ring]) / mad_std(stamps.ipac_difference.values[i][ring])
            for i in range(len(ratio))
        ]
    assert len(deviation) == 25
    assert np.median(deviation) <= 0.01
    assert len(scatter) == 34
    assert np.median(scatter) <= 1.02


def test_the_alert_target_does_not_shape_its_own_kernel(alerts):
    stamps = alerts["ztfg"].to_dataset().isel(time=[3]).load()
    r = np.hypot(stamps.y, stamps.x)
    spoiled = stamps.assign(sci=stamps.sci.where(r > 7, 5e4))
    first, second = (s.ztf.difference() for s in (stamps, spoiled))
    xr.testing.assert_identical(first.kernel, second.kernel)


def simulated_frame(
    n_stars: int, shape: tuple[int, int] = (540, 600), seed: int = 1
) -> tuple[xr.DataArray, xr.DataArray]:
    """A pair that counts as a frame: stars with a Gaussian PSF, the science image blurred and brightened."""
    rng = np.random.default_rng(seed)
    scene = np.zeros(shape)
    y, x = np.mgrid[-12:13, -12:13]
    for cx, cy in zip(rng.uniform(30, shape[1] - 30, n_stars), rng.uniform(30, shape[0] - 30, n_stars), strict=True):
        ix, iy = round(cx), round(cy)
        psf = np.exp(-((x - cx + ix) ** 2 + (y - cy + iy) ** 2) / 2 / 0.95**2)
        scene[iy - 12 : iy + 13, ix - 12 : ix + 13] += rng.pareto(1.0) * 200 * psf + 100 * psf
    blurred = signal.oaconvolve(scene, KERNEL, mode="same")
    images = blurred + 30 + rng.normal(scale=2, size=shape), scene + 5 + rng.normal(scale=0.5, size=shape)
    science, reference = (xr.DataArray(i.astype("f4"), dims=("y", "x"), name="sci") for i in images)
    return science, reference


def test_a_frame_is_matched_on_its_stars_with_nothing_else_told():
    science, reference = simulated_frame(500)
    diff = ztfxr.difference(science, reference)
    assert diff.attrs["solve_on"] == "stars"
    assert diff.sizes["ky"] == 25
    assert int(diff.epoch_status) == 0
    assert float(diff.noise_ratio) == pytest.approx(1.0, abs=0.05)
    assert float(diff.kernel_sum) == pytest.approx(KERNEL.sum(), rel=0.003)
    assert float(diff.lost_fraction) < 0.06
    shape = {"y": 540, "x": 600}
    assert dict(diff.difference.sizes) == shape


def test_frames_do_not_depend_on_the_scheduler():
    science, reference = simulated_frame(300)
    stack = xr.concat([science, science + 1], dim="time").chunk(time=1)
    eager = ztfxr.difference(science, reference)
    lazy = ztfxr.difference(stack, reference)
    for scheduler in ("synchronous", "threads"):
        with dask.config.set(scheduler=scheduler):
            np.testing.assert_array_equal(lazy.difference.isel(time=0).values, eager.difference.values)


@pytest.mark.parametrize(("n_stars", "status"), [(0, "too_few_pixels"), (1, "too_few_pixels")])
def test_frames_with_next_to_no_stars_say_so(n_stars, status):
    science, reference = simulated_frame(n_stars)
    diff = ztfxr.difference(science, reference, kernel_size=13)
    assert int(diff.epoch_status) == planes_to_bits([status], STATUS_PLANES)
    assert bool(diff.difference.isnull().all())


def test_a_saturated_star_shapes_no_kernel():
    science, reference = simulated_frame(300)
    flags = xr.zeros_like(science, dtype="u2")
    spoiled = science.copy()
    spoiled[200:215, 300:315] = 6e4
    flags[200:215, 300:315] = 1 << 8
    diff = ztfxr.difference(xr.Dataset({"sci": spoiled, "flags": flags}), reference, kernel_size=9)
    clean = ztfxr.difference(science, reference, kernel_size=9)
    assert float(diff.kernel_sum) == pytest.approx(float(clean.kernel_sum), rel=0.002)
    assert bool(diff.mask[200:215, 300:315].all())


def test_stars_too_faint_to_see_do_not_count_as_noise():
    made = make_scene((320, 320), n_epochs=2, n_stars=700, n_transients=0, n_variables=0, seed=4)
    epochs, reference = (ds.drop_vars(["variance", "ra", "dec"]) for ds in (made.images, made.reference))
    diff = ztfxr.difference(epochs, reference).compute()
    sky = (made.ideal.expected - made.ideal.background) < 1.0
    modeled = (ztfxr.variance(epochs) / made.images.variance).where(sky).median(("y", "x"))
    found = (diff.difference_variance / made.images.variance).where(sky).median(("y", "x"))
    assert (modeled > 1.04).all()
    np.testing.assert_allclose(found, 1.0, atol=0.025)
    told = ztfxr.difference(epochs, reference, variance=made.images.variance).compute()
    assert not told.difference_variance.equals(diff.difference_variance)


@pytest.mark.parametrize(("solve_on", "kernel_order"), [("stars", 1), ("all", 1), ("all", 0)])
def test_a_variance_of_noisy_pixels_shifts_no_sky(solve_on, kernel_order):
    """With 40 photons a pixel, weights that follow each pixel's own would make the sky half a photon too bright."""
    made = make_scene(
        (320, 320), n_epochs=2, n_stars=150, n_transients=0, n_variables=0, n_galaxies=0,
        options=SceneOptions(magnitudes=(16.0, 19.0)),
        sky=Sky(level=(40.0, 40.0), transparency=(1.0, 1.0)), detector=Detector(gain=1.0, readnoise=1.0), seed=6,
    )  # fmt: skip
    images, reference = made.images, made.reference
    stated = images.variance + np.maximum(images.sci - made.ideal.expected, 0)
    options = {"kernel_size": 9, "kernel_order": kernel_order, "solve_on": solve_on}
    noisy, told = (ztfxr.difference(images, reference, variance=v, **options) for v in (stated, images.variance))
    shift = (noisy.difference - told.difference).mean(("y", "x"))
    assert np.abs(shift).max() < 0.062


def test_the_kernels_frame_is_kept_where_pixels_are_those_of_a_frame():
    science, reference = (ds.isel(y=slice(3, None), x=slice(5, None)) for ds in pair(2, epochs=1))
    assert ztfxr.difference(science, reference, kernel_size=5).attrs["frame"] == [3, 5, NY - 3, NX - 5]
    thinned = (ds.isel(x=slice(None, None, 2)) for ds in (science, reference))
    assert "frame" not in ztfxr.difference(*thinned, kernel_size=5).attrs


def test_the_seeing_of_both_images_tells_how_wide_a_kernel_is() -> None:
    """A bright host and no star: the scale is known as well as the width of the kernel is."""
    rng, (y, x) = np.random.default_rng(0), np.mgrid[:63, :63] - 31.0
    scene = 3000 * np.exp(-np.hypot(y, x) / 3)
    images = []
    for width, scale in ((1.25, 0.8), (0.9, 1.0)):
        light = scale * ndimage.gaussian_filter(scene, width)
        noisy = light + rng.normal(size=light.shape) * np.sqrt(35 + light / 6.2)
        images.append(xr.Dataset({"sci": (("y", "x"), noisy), "variance": (("y", "x"), 35 + light / 6.2)}))
    seen = [
        i.assign_coords(seeing=((), 2.355 * w, {"units": "pixel"})) for i, w in zip(images, (1.25, 0.9), strict=True)
    ]
    arcsec = [
        i.assign_coords(seeing=((), 2.355 * w, {"units": "arcsec"})) for i, w in zip(images, (1.25, 0.9), strict=True)
    ]
    plain, told, unused = (ztfxr.difference(*pair, exclude=[(31, 31)]) for pair in (images, seen, arcsec))
    stated = ztfxr.difference(*images, exclude=[(31, 31)], fwhm=(2.355 * 1.25, 2.355 * 0.9))
    errors = [float(d["kernel_sum_err"]) for d in (plain, told, stated)]
    assert errors[0] > 1.5 * errors[1] > 2.0 * errors[2]
    for diff, error in zip((told, stated), errors[1:], strict=True):
        assert float(diff["kernel_sum"]) == pytest.approx(0.8, abs=3 * error)
    np.testing.assert_array_equal(unused["kernel"], plain["kernel"])
    for wrong in ((2.0, -1.0), 2.0, "2", (np.nan, 1.0), (1.0, 2.0, 3.0)):
        with pytest.raises(ztfxr.InputError, match="fwhm is that of the science image and of the reference"):
            ztfxr.difference(*images, fwhm=wrong)  # type: ignore[arg-type]
        with pytest.raises(ztfxr.InputError, match="known_scale is a positive ratio of fluxes and its error"):
            ztfxr.difference(*images, known_scale=wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("unit", [1e-25, 1e25])
def test_a_unit_that_single_precision_cannot_hold_is_refused(unit: float) -> None:
    rng = np.random.default_rng(0)
    pair = [xr.DataArray(unit * rng.normal(100, 5, (64, 64)), dims=("y", "x")) for _ in range(2)]
    with pytest.raises(ztfxr.InputError, match="beyond single precision; give the image in another unit"):
        ztfxr.difference(*pair)
