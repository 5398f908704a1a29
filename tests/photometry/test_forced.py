"""Forced PSF photometry of labeled images: stacks, differences, frames of their own."""

from __future__ import annotations

from functools import lru_cache, partial

import dask
import numpy as np
import pytest
import xarray as xr
from astropy.coordinates import SkyCoord
from numpy.typing import NDArray

import ztfxr
from benchmarks import _stacks, limits
from tests.arrays.psf._scenes import draw, gaussian_pixels
from ztfxr.errors import ChunkError, InputError
from ztfxr.photometry.forced import ConvolvedVariance
from ztfxr.schema import FIT_PLANES, STATUS_PLANES, planes_to_bits
from ztfxr.testing import Optics, SceneOptions, make_scene

SKY, GAIN, SHAPE, ORIGIN = 5.0, 6.0, (300, 280), (700, 400)


def bit(name: str) -> int:
    return planes_to_bits([name], STATUS_PLANES)


@lru_cache
def stars() -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Array positions and fluxes of stars 25 pixels apart."""
    rng = np.random.default_rng(0)
    y, x = (p.ravel() for p in np.mgrid[20:290:25, 20:270:25].astype(float))
    y, x = y + rng.uniform(-2, 2, y.size), x + rng.uniform(-2, 2, x.size)
    return y, x, np.exp(rng.uniform(np.log(1e3), np.log(5e4), y.size))


def positions() -> NDArray[np.float64]:
    """The same in absolute pixels, (x, y)."""
    y, x, _ = stars()
    return np.column_stack([x + ORIGIN[1], y + ORIGIN[0]])


def psf(sigma: float = 1.1) -> xr.Dataset:
    """The exact PSF of the stars."""
    offset = np.arange(-48, 49) / 4
    values = gaussian_pixels(offset, offset, sigma)[None]
    coords = {"psf_dy": offset, "psf_dx": offset, "psf_origin": ("axis", [0.0, 0.0]), "psf_scale": ("axis", [1.0, 1.0])}
    return xr.Dataset({"psf_coeff": (("psf_term", "psf_dy", "psf_dx"), values)}, coords)


@lru_cache
def _truth(sigma: float) -> NDArray[np.float64]:
    return draw(SHAPE, *stars(), partial(gaussian_pixels, sigma=sigma))


def frame(sigma: float = 1.1, seed: int = 0, sky: float = 0.0, scale: float = 1.0) -> xr.Dataset:
    rng = np.random.default_rng(seed)
    truth = scale * _truth(sigma)
    image = truth + sky + rng.normal(size=SHAPE) * np.sqrt(SKY**2 + truth / GAIN)
    variance = SKY**2 + np.maximum(image - sky, 0) / GAIN
    coords = {"y": ORIGIN[0] + np.arange(SHAPE[0]), "x": ORIGIN[1] + np.arange(SHAPE[1]), "gain": GAIN}
    dims = ("y", "x")
    return xr.Dataset({"sci": (dims, image.astype("f4")), "variance": (dims, variance.astype("f4"))}, coords)


def stack(n: int = 4) -> xr.Dataset:
    times = np.datetime64("2020-01-01", "ns") + np.arange(n) * np.timedelta64(1, "D")
    return xr.concat([frame(seed=i).expand_dims(time=[t]) for i, t in enumerate(times)], dim="time")


def pulls(out: xr.Dataset, flux: NDArray[np.float64]) -> NDArray[np.float64]:
    return ((out["flux"] - flux) / out["flux_err"]).values


# what comes out


def test_fluxes_of_a_frame() -> None:
    out = ztfxr.forced_photometry(frame(), positions(), psf(), background="none", bound=True)
    flux = stars()[2]
    pull = pulls(out, flux)
    assert abs(pull.mean()) < 0.3
    assert pull.std() == pytest.approx(1.0, abs=0.2)
    assert np.all(out["status"] == 0)
    assert np.all(out["fit_flags"] == 0)
    assert float(out["fit_chi2"].median()) == pytest.approx(1.0, abs=0.1)
    np.testing.assert_allclose(out["flux_err"], out["flux_err_bound"], rtol=0.02)
    assert np.all(out["flux_err"] >= out["flux_err_bound"] * 0.999)
    assert np.all(out["masked_fraction"] == 0)
    assert {v: out[v].dims for v in out.data_vars} == dict.fromkeys(out.data_vars, ("source",))
    assert out["flux"].attrs["units"] == out["local_background"].attrs["units"] == "DN"
    assert out["fit_flags"].attrs["flag_meanings"] == "saturated blended poor_fit"
    assert "x_pixel" in out.coords


@pytest.mark.parametrize("chunks", [None, {"time": 1}, {"time": 3}])
def test_stacks_give_the_same_whatever_the_chunks(chunks: dict | None) -> None:
    images = stack()
    expected = [ztfxr.forced_photometry(images.isel(time=i), positions(), psf())["flux"].values for i in range(4)]
    lazy = images if chunks is None else images.chunk(chunks)
    out = ztfxr.forced_photometry(lazy, positions(), psf())
    assert out["flux"].dims == ("time", "source")
    assert (out["flux"].chunks is not None) == (chunks is not None)
    np.testing.assert_array_equal(out["flux"].values, expected)


def test_it_stays_lazy(raising_scheduler) -> None:
    images = stack().chunk(time=1)
    out = ztfxr.forced_photometry(
        images, positions(), ztfxr.build_psf(images), bound=True, refine=2, correlation="measure"
    )
    assert out["flux"].chunks == ((1, 1, 1, 1), (len(positions()),))
    with dask.config.set(scheduler="threads"):
        assert np.isfinite(out["flux"].values).all()


def test_one_task_an_epoch() -> None:
    """The graph grows with epochs alone, not with sources."""
    images, own = stack().chunk(time=1), psf()
    few, many = (
        len(ztfxr.forced_photometry(images, positions()[:n], own, background="none")["flux"].__dask_graph__())
        for n in (3, 100)
    )
    assert few == many < 60


def test_psfs_by_epoch() -> None:
    images = xr.concat([frame(s, i).expand_dims(time=[i]) for i, s in enumerate((1.0, 1.4))], dim="time")
    psfs = psf().drop_vars("psf_coeff")
    psfs["psf_coeff"] = xr.concat(
        [psf(s)["psf_coeff"].expand_dims(time=[i]) for i, s in enumerate((1.0, 1.4))], dim="time"
    )
    out = ztfxr.forced_photometry(images.chunk(time=1), positions(), psfs, background="none")
    assert np.abs(pulls(out, stars()[2]).mean(axis=1)).max() < 0.4


def test_a_psf_is_built_where_none_is_given() -> None:
    out = ztfxr.forced_photometry(frame(sky=200.0), positions())
    flux = stars()[2]
    bright = flux > 1e4
    assert abs(np.median((out["flux"].values / flux - 1)[bright])) < 0.01


@pytest.mark.parametrize(
    ("background", "sky"), [(None, 200.0), ("global", 200.0), ("annulus", 200.0), ("fit", 200.0), ("none", 0.0)]
)
def test_backgrounds(background: str | None, sky: float) -> None:
    out = ztfxr.forced_photometry(frame(sky=sky), positions(), psf(), background=background)
    pull = pulls(out, stars()[2])
    assert abs(np.median(pull)) < 0.5
    assert out.attrs["background"] == (background or "global")
    if background in ("annulus", "fit"):
        np.testing.assert_allclose(out["local_background"], sky, atol=6.0)


def test_native_stamps_are_psfs_too() -> None:
    offset = np.arange(-12, 13) * 1.0
    stamp = xr.DataArray(gaussian_pixels(offset, offset, 1.6), dims=("psf_y", "psf_x"))
    image = frame(1.6)
    ours, theirs = (
        ztfxr.forced_photometry(image, positions(), p, background="none")["flux"] for p in (psf(1.6), stamp)
    )
    np.testing.assert_allclose(ours, theirs, rtol=2e-3)


# the error of the PSF


def test_the_error_of_the_psf_is_part_of_the_error() -> None:
    """It is relative to the flux, follows the place in the frame, and can be left out."""
    image, own = frame(), psf().isel(psf_term=[0, 0, 0]).copy()
    own["psf_coeff"][1:] = 0.0
    own = own.assign_coords(psf_origin=("axis", [float(ORIGIN[0]), float(ORIGIN[1])]), psf_scale=("axis", [300.0] * 2))
    own["psf_flux_cov"] = ("psf_term", "psf_coterm"), np.diag([1e-4, 4e-4, 9e-4])
    out = ztfxr.forced_photometry(image, positions(), own, background="none")
    plain = ztfxr.forced_photometry(image, positions(), own, background="none", psf_error=False)
    y, x, _ = stars()
    np.testing.assert_allclose(out["psf_err"], 0.01 * np.sqrt(1 + 4 * (x / 300) ** 2 + 9 * (y / 300) ** 2))
    np.testing.assert_allclose(out["flux_err"] ** 2, plain["flux_err"] ** 2 + (out["flux"] * out["psf_err"]) ** 2)
    xr.testing.assert_equal(out.drop_vars("flux_err"), plain.drop_vars("flux_err"))


@pytest.mark.parametrize("build", [psf, lambda: psf()["psf_coeff"][0, ::4, ::4].rename(psf_dy="psf_y", psf_dx="psf_x")])
def test_an_error_that_is_not_known_is_nan_and_adds_nothing(build) -> None:
    out = ztfxr.forced_photometry(frame(), positions(), build(), background="none")
    assert np.isnan(out["psf_err"]).all()
    assert np.isfinite(out["flux_err"]).all()


@pytest.mark.slow
def test_bright_stars_have_honest_errors_with_a_psf_of_few_stars() -> None:
    """A few dozen stars fix a PSF to some tenths of a per cent, which outweighs the photon noise of bright stars."""
    off, error, part = [], [], []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        y, x = (p.ravel() + rng.uniform(-3, 3, 81) for p in np.mgrid[30:390:42, 30:390:42].astype(float))
        flux = np.exp(rng.uniform(np.log(2e3), np.log(1e5), y.size))
        given = xr.Dataset({"x": ("source", x), "y": ("source", y), "flux": ("source", flux)})
        none = dict.fromkeys(("n_stars", "n_galaxies", "n_variables", "n_transients"), 0)
        scene = make_scene((420, 420), n_epochs=3, sources=given, seed=seed, **none)
        out = ztfxr.forced_photometry(scene.images.drop_vars("variance"), np.column_stack([x, y]))
        out = out.isel(source=flux > 3e4)
        off.append((out["flux"] - scene.truth["flux"].values[:, flux > 3e4]).values.ravel())
        error.append(out["flux_err"].values.ravel())
        part.append((out["flux"] * out["psf_err"]).values.ravel())
    off, error, part = (np.concatenate(p) for p in (off, error, part))
    honest, naive = (np.sqrt(np.mean((off / e) ** 2)) for e in (error, np.sqrt(error**2 - part**2)))
    assert honest == pytest.approx(1.0, abs=0.15)
    assert naive > honest + 0.1


def test_the_error_of_a_psf_that_all_epochs_share_is_stated_alone(difference: xr.Dataset) -> None:
    shared = psf(1.0)
    shared["psf_flux_cov"] = ("psf_term", "psf_coterm"), [[0.04]]
    left_out, wanted = (
        ztfxr.forced_photometry(difference, places(), reference_psf=shared, psf_error=choice) for choice in (None, True)
    )
    np.testing.assert_allclose(left_out["psf_err"], 0.2)
    np.testing.assert_allclose(wanted["flux_err"] ** 2, left_out["flux_err"] ** 2 + (0.2 * wanted["flux"]) ** 2)


# bad pixels, edges, flags


def test_masks_and_statuses() -> None:
    image = frame()
    y, x, flux = stars()
    bad = xr.zeros_like(image["sci"], dtype=bool)
    rows, columns = (np.rint(p).astype(int) for p in (y, x))
    bad[rows[0], columns[0] + 2] = True
    bad[rows[1] - 3 : rows[1] + 4, columns[1] - 3 : columns[1] + 4] = True
    image["sci"] = image["sci"].where(~bad, 1e5)
    places = np.vstack([positions()[:3], [[ORIGIN[1] + 2.0, ORIGIN[0] + 60.0], [0.0, 0.0], [np.nan, 3.0]]])
    out = ztfxr.forced_photometry(image, places, psf(), background="none", mask=bad)
    assert out["status"].values.tolist() == [
        bit("masked"), bit("masked") | bit("no_good_pixels"), 0, bit("edge"), bit("outside"), bit("outside"),
    ]  # fmt: skip
    assert abs(pulls(out.isel(source=[0, 2]), flux[[0, 2]])).max() < 4
    assert np.isnan(out["flux"].values[[1, 4, 5]]).all()
    assert 0 < float(out["masked_fraction"][0]) < 0.2
    assert float(out["masked_fraction"][4]) == 1


def test_flags() -> None:
    image = frame()
    image["flags"] = xr.zeros_like(image["sci"], dtype=np.uint16)
    y, x, _ = stars()
    image["flags"][int(y[0]), int(x[0])] = 1 << 8
    places = np.vstack([positions()[:2], positions()[1] + [3.0, 0.0]])
    out = ztfxr.forced_photometry(image, places, psf(), background="none", mask=False)
    saturated, blended = (planes_to_bits([n], FIT_PLANES) for n in ("saturated", "blended"))
    assert out["fit_flags"].values.tolist() == [saturated, blended, blended]
    by_level = ztfxr.forced_photometry(frame().assign_coords(saturate=500.0), positions(), psf(), background="none")
    assert 0 < (by_level["fit_flags"] == saturated).mean() < 1


def test_status_of_an_epoch_is_that_of_its_sources() -> None:
    images = stack(2).assign_coords(epoch_status=("time", np.array([0, bit("no_wcs")], np.uint32)))
    out = ztfxr.forced_photometry(images, positions()[:3], psf())
    assert out["status"].values.tolist() == [[0, 0, 0], [bit("no_wcs")] * 3]
    empty = stack(2).assign_coords()
    empty["sci"][1] = np.nan
    out = ztfxr.forced_photometry(empty, positions()[:3], psf())
    assert np.isnan(out["flux"][1]).all()
    assert np.all(out["status"][1] & bit("no_good_pixels"))


def test_no_psf_no_flux() -> None:
    images = stack(2)
    images["sci"][1] = np.random.default_rng(0).normal(0, SKY, SHAPE)
    own = ztfxr.build_psf(images)
    out = ztfxr.forced_photometry(images, positions()[:3], own)
    assert np.isfinite(out["flux"][0]).all()
    assert np.isnan(out["flux"][1]).all()
    assert np.all(out["status"][1] == bit("solve_failed") | bit("too_few_pixels"))


# positions


def test_refined_once_over_the_stack() -> None:
    """Positions that are off by a third of a pixel come home, the same for all epochs; faint sources stay."""
    flux, rng = stars()[2], np.random.default_rng(3)
    off = rng.uniform(-0.3, 0.3, (len(flux), 2))
    images = stack()
    start = np.vstack([positions() + off, [[ORIGIN[1] + 33.0, ORIGIN[0] + 34.0]]])
    rough = ztfxr.forced_photometry(images, start, psf(), background="none")
    out = ztfxr.forced_photometry(images.chunk(time=1), start, psf(), background="none", refine=3).compute()
    assert out["x_refined"].dims == ("source",)
    bright = np.flatnonzero(flux > 5e3)
    assert np.abs(out["x_refined"].values[bright] - positions()[bright, 0]).max() < 0.03
    assert np.abs(out["y_refined"].values[bright] - positions()[bright, 1]).max() < 0.03
    assert out["x_refined"].values[-1] == start[-1, 0]
    before, after = ((o["flux"].values[:, :-1] / flux - 1)[:, bright].mean() for o in (rough, out))
    assert before < -0.003
    assert abs(after) < 0.001


# differences


@pytest.fixture(scope="module")
def difference() -> xr.Dataset:
    """A science image with transients, less a sharper reference of the same depth."""
    rng = np.random.default_rng(7)
    science, reference = frame(1.4, 20), frame(1.0, 21)
    y, x = transients()
    added = draw(SHAPE, y, x, np.full(len(y), 800.0), partial(gaussian_pixels, sigma=1.4))
    science["sci"] = science["sci"] + (added + rng.normal(size=SHAPE) * np.sqrt(added / GAIN)).astype("f4")
    science["variance"] = science["variance"] + (added / GAIN).astype("f4")
    return ztfxr.difference(
        science, reference, kernel_size=11, kernel_order=0, background_order=0, solve_on="stars", convolve="reference"
    )


def transients() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    y, x, _ = stars()
    return y[:80] + 12.4, x[:80] + 12.3


def places() -> NDArray[np.float64]:
    y, x = transients()
    return np.column_stack([x + ORIGIN[1], y + ORIGIN[0]])


@pytest.mark.parametrize("given", ["psf", "reference_psf"])
def test_transients_in_a_difference(difference: xr.Dataset, given: str) -> None:
    """The science PSF, or the reference's through the kernel, give the flux on the science scale."""
    which = {"psf": psf(1.4)} if given == "psf" else {"reference_psf": psf(1.0)}
    out = ztfxr.forced_photometry(difference, places(), **which)
    pull = pulls(out, np.full(80, 800.0))
    assert out.attrs["background"] == "none"
    assert abs(pull.mean()) < 0.4
    assert pull.std() == pytest.approx(1.0, abs=0.25)


def test_errors_know_of_the_kernel(difference: xr.Dataset) -> None:
    """The covariance of the reference's noise, told or measured, makes the errors larger than independent pixels."""
    told = ztfxr.forced_photometry(difference, places(), psf(1.4), correlation={"reference": SKY**2})
    as_map = ConvolvedVariance(reference=xr.full_like(difference["difference"], SKY**2))
    mapped = ztfxr.forced_photometry(difference, places(), psf(1.4), correlation=as_map)
    measured = ztfxr.forced_photometry(difference, places(), psf(1.4))
    bound = ztfxr.forced_photometry(difference, places(), psf(1.4), bound=True)["flux_err_bound"]
    np.testing.assert_array_equal(told["flux_err"], mapped["flux_err"])
    assert float((told["flux_err"] / bound).median()) > 1.1
    assert float((measured["flux_err"] / told["flux_err"]).median()) == pytest.approx(1.0, abs=0.06)


def varying_pair() -> tuple[xr.Dataset, xr.Dataset]:
    """Epochs whose PSF changes over the frame, and their sharper reference."""
    scene = make_scene(
        (420, 400), n_epochs=1, n_stars=240, n_transients=0, n_variables=0, n_galaxies=0,
        options=SceneOptions(magnitudes=(15.0, 19.0)), optics=Optics(fwhm=(2.2, 2.8), field_variation=0.3), seed=8,
    )  # fmt: skip
    return scene.images, scene.reference


def test_a_slice_of_a_difference_keeps_the_kernels_coordinates() -> None:
    """Fluxes, errors and PSFs are those of the whole; without its frame, a slice would take itself for the whole."""
    images, reference = varying_pair()
    whole = ztfxr.difference(images, reference, kernel_size=9, kernel_order=1, solve_on="stars")
    assert list(whole.attrs["frame"]) == [0, 0, 420, 400]
    assert float(abs(whole["kernel_coeff"].isel(kterm=slice(1, 3))).max()) > 0.005
    part = whole.isel(y=slice(210, 400), x=slice(180, 390))
    where = np.column_stack([np.linspace(200.3, 370.1, 12), np.linspace(230.2, 380.4, 12)])
    given = {"reference_psf": psf(0.9), "correlation": {"reference": 2.0}, "fit": {"radius": 6.0}}
    expected, found = (ztfxr.forced_photometry(d, where, **given) for d in (whole, part))
    for name in ("flux", "flux_err"):
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-9)
    stamps = [ztfxr.psf_at(psf(0.9), *where.T, difference=d, of="reference") for d in (whole, part)]
    np.testing.assert_array_equal(*stamps)
    lost = part.copy()
    del lost.attrs["frame"]
    assert not np.allclose(ztfxr.forced_photometry(lost, where, **given)["flux"], expected["flux"], rtol=1e-6)


def test_positions_with_the_references_psf_are_places_in_the_reference() -> None:
    """The kernel holds the shift between the images: it takes a place in the reference to that in the science image."""
    rng, shift = np.random.default_rng(11), 0.4
    y, x, flux = stars()
    ny, nx = transients()
    profile = partial(gaussian_pixels, sigma=1.4)
    image = draw(SHAPE, y, x + shift, flux, profile) + draw(SHAPE, ny, nx + shift, np.full(80, 3e3), profile)
    science, reference = frame(1.4, 30), frame(1.0, 31)
    noise = SKY**2 + image / GAIN
    science["sci"] = science["sci"].copy(data=(image + rng.normal(size=SHAPE) * np.sqrt(noise)).astype("f4"))
    science["variance"] = science["variance"].copy(data=noise.astype("f4"))
    diff = ztfxr.difference(
        science, reference, kernel_size=11, kernel_order=0, background_order=0, solve_on="stars", convolve="reference"
    )
    moved = places() + np.array([shift, 0.0])
    there = ztfxr.forced_photometry(diff, places(), reference_psf=psf(1.0))["flux"].mean() / 3e3 - 1
    here = ztfxr.forced_photometry(diff, moved, psf(1.4))["flux"].mean() / 3e3 - 1
    wrong = ztfxr.forced_photometry(diff, moved, reference_psf=psf(1.0))["flux"].mean() / 3e3 - 1
    assert abs(float(here)) < 0.005
    assert abs(float(there)) < 0.008
    misplaced = np.exp(-(shift**2) / (4 * 1.4**2)) - 1
    assert 1.1 * misplaced < float(wrong) - float(there) < 0.5 * misplaced


def test_whitened_differences(difference: xr.Dataset) -> None:
    white = ztfxr.decorrelate(difference, size=11, science_variance=SKY**2, reference_variance=SKY**2)
    out = ztfxr.forced_photometry(white, places(), psf(1.4))
    pull = pulls(out, np.full(80, 800.0))
    assert np.nanstd(pull) == pytest.approx(1.0, abs=0.25)
    assert abs(np.nanmean(pull)) < 0.5


def test_an_epoch_without_a_kernel(difference: xr.Dataset) -> None:
    lost = difference.copy()
    lost["kernel_coeff"] = lost["kernel_coeff"] * np.nan
    out = ztfxr.forced_photometry(lost, places(), reference_psf=psf(1.0))
    assert np.isnan(out["flux"]).all()
    assert np.all(out["status"] & bit("solve_failed"))


# against the truth and the bound


def _honest(fits: _stacks.Fits) -> None:
    """Bias and pulls as they must be; the room for chance is that of the number of stars."""
    for row in limits.rows(fits):
        allowed = abs(row.bias[0]) / row.limit
        assert abs(row.bias[0]) < allowed + 3.5 * row.bias[1], row
        assert abs(row.width[0] - 1) < 0.03 + 3.5 * row.width[1], row


@pytest.mark.slow
def test_fluxes_and_errors_of_simulated_stacks() -> None:
    """Pulls of unit width at every magnitude, on science and difference images, at the Cramér-Rao bound."""
    lanes = _stacks.isolated(3, 3) | _stacks.blended(3, 2)
    for name, fits in lanes.items():
        told = "nothing" not in name and "reference" not in name
        _honest(fits.take(fits.truth < (np.inf if told else 3000.0)))
        if name.endswith("all told"):
            total = limits.row("all", fits)
            assert abs(total.variance[0] - 1) < 0.03 + 3.5 * total.variance[1]
            assert abs(total.percent[0]) < (0.3 if "pairs" in name else 0.1) + 3.5 * total.percent[1]
    raw, _, noise = limits.repeatability(lanes["science, all told"])
    assert raw / noise == pytest.approx(1.0, abs=0.1)


# frames of their own


def test_frames_on_their_own_pixels(write_frame_in, wcs_header, tmp_path) -> None:
    """Two pointings of one field: each frame's WCS says where a source is in it."""
    tree = {}
    sky = SkyCoord([150.300, 150.305], [20.700, 20.697], unit="deg")
    for n, crval in enumerate(((150.3, 20.7), (150.302, 20.701))):
        header = wcs_header((120, 110), crval=crval)
        blank = write_frame_in(
            tmp_path, name=f"ztf_2020092443170{n}_000655_zr_c13_o_q3_sciimg", shape=(120, 110), wcs=header, mask=False
        )
        opened = ztfxr.open_quadrant(blank, mask=False).load()
        x, y = ztfxr.sky_to_pixel(opened, sky)
        image = draw(
            (120, 110), np.asarray(y), np.asarray(x), np.array([5e3, 2e4]), partial(gaussian_pixels, sigma=1.1)
        )
        image += np.random.default_rng(n).normal(0, SKY, image.shape) + 100.0
        opened["sci"] = opened["sci"].copy(data=image.astype("f4"))
        tree[f"e{n}"] = opened
    out = ztfxr.forced_photometry(xr.DataTree.from_dict(tree), sky, psf())
    assert out["flux"].dims == ("time", "source")
    assert out["x_pixel"].dims == ("time", "source")
    assert out.sizes == {"time": 2, "source": 2}
    np.testing.assert_allclose(out["flux"], [[5e3, 2e4]] * 2, rtol=0.05)
    np.testing.assert_allclose(out["ra"], sky.ra.deg)
    assert out["mjd"].dims == ("time",)


# bad input


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"background": "sky"}, "background is 'none', 'global', 'annulus' or 'fit'; got 'sky'"),
        ({"fit": {"weights": "flat"}}, "weights is 'model' or 'variance'; got 'flat'"),
        ({"background": (5, 3)}, "annulus is an inner and a larger outer radius"),
        ({"fit": {"radius": 0.2}}, "radius must be at least 1 pixel"),
        ({"fit": {"group_radius": -1.0}}, "group_radius must not be negative"),
        ({"fit": {"max_masked_fraction": 1.0}}, "a fraction from 0 to below 1; got 1.0"),
        ({"fit": {"width": 3}}, "fit has no option width; its options are radius, group_radius, weights"),
        ({"correlation": {"reference": 2.0}}, "variances before the convolution are for difference images"),
        ({"refine": 99}, "refine is a number of steps from 0 to 10; got 99"),
        ({"correlation": xr.DataArray(np.ones((3, 3)), dims=("a", "b"))}, "correlation is 'measure' or a DataArray"),
        ({"correlation": xr.DataArray(np.ones((2, 3)), dims=("lag_y", "lag_x"))}, "correlation has odd lengths"),
        ({"reference_psf": psf()}, "reference_psf is for difference images, in place of psf"),
    ],
)
def test_bad_options(options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        ztfxr.forced_photometry(frame(), positions(), psf(), **options)


def test_differences_need_a_psf(difference: xr.Dataset) -> None:
    with pytest.raises(InputError, match="give psf= of the science image, or reference_psf="):
        ztfxr.forced_photometry(difference, places())


def test_images_in_chunks_are_refused() -> None:
    with pytest.raises(ChunkError, match="needs whole"):
        ztfxr.forced_photometry(frame().chunk(y=100), positions(), psf(), background="none").compute()


def test_trees_need_frames() -> None:
    with pytest.raises(InputError, match="no child with sci or difference"):
        ztfxr.forced_photometry(xr.DataTree(), positions(), psf())
    with pytest.raises(InputError, match="a DataTree of PSFs goes with a DataTree of frames"):
        ztfxr.forced_photometry(frame(), positions(), xr.DataTree())
    with pytest.raises(InputError, match="stack or align the frames first"):
        ztfxr.forced_photometry(xr.DataTree.from_dict({"a": frame()}), positions(), psf(), refine=1)


def test_a_fit_that_does_not_fit_is_flagged_and_a_bright_star_is_not() -> None:
    """A changed neighbor, three pixels from a faint source; and a bright star whose PSF is a little wrong."""
    y, x = np.mgrid[:60, :120].astype(float)

    def star(cx: float, cy: float, flux: float, sigma: float = 1.2) -> np.ndarray:
        return flux / (2 * np.pi * sigma**2) * np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / 2 / sigma**2)

    noise = np.random.default_rng(0).normal(0, 5, x.shape)
    pixels = noise + star(30, 30, 500) + star(33, 31, 30000) + star(90, 30, 3e5, 1.25)
    variance = 25 + np.maximum(pixels - noise, 0) / 6
    image = xr.Dataset({"sci": (("y", "x"), pixels), "variance": (("y", "x"), variance)})
    offset = np.arange(-8, 9)
    psf = np.exp(-(offset[:, None] ** 2 + offset**2) / 2 / 1.2**2)
    psf = xr.DataArray(psf / psf.sum(), dims=("psf_y", "psf_x"))
    found = ztfxr.forced_photometry(image, [(30, 30), (90, 30), (60, 45)], psf, background="none")
    assert (found["fit_chi2"] > 2).values.tolist() == [True, True, False]
    assert (found["fit_flags"] & 4 > 0).values.tolist() == [True, False, False]
    lc = found.expand_dims(time=1)
    assert (ztfxr.quality_cuts(lc)["cuts"].values[0] > 0).tolist() == [True, False, False]
