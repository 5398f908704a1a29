"""Aperture photometry: injected stars, honest errors, bad pixels, statuses, laziness."""

from __future__ import annotations

import cProfile
import pstats
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from astropy.table import Table
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.special import erf

import ztfxr
from tests.conftest import WriteFrame
from ztfxr.arrays.photometry.apertures import circle_overlap, sum_apertures
from ztfxr.errors import ChunkError, InputError
from ztfxr.io.frames import open_epochs, open_quadrant
from ztfxr.ops.background import clean, variance
from ztfxr.ops.masks import mask
from ztfxr.ops.stacks.stack import stack
from ztfxr.photometry.aperture import aperture_photometry
from ztfxr.schema import STATUS_PLANES
from ztfxr.testing import Detector, Optics, SceneOptions, make_scene, true_psf
from ztfxr.wcs import pixel_to_sky

NY, NX = 48, 40
SIGMA = 1.1
POSITIONS = np.array([[20.3, 22.6], [9.5, 11.0], [30.0, 35.49]])


def gaussian_star(x: float, y: float, flux: float, shape: tuple[int, int] = (NY, NX)) -> NDArray[np.float64]:
    """A star integrated over each pixel exactly."""

    def share(n: int, center: float) -> NDArray[np.float64]:
        edges = (np.arange(n + 1) - 0.5 - center) / (SIGMA * np.sqrt(2))
        return np.asarray(np.diff(erf(edges)) / 2)

    return flux * np.outer(share(shape[0], y), share(shape[1], x))


def image(pixels: Any, x0: int = 0, y0: int = 0) -> xr.DataArray:
    pixels = np.asarray(pixels)
    coords = {"y": y0 + np.arange(pixels.shape[-2]), "x": x0 + np.arange(pixels.shape[-1])}
    return xr.DataArray(pixels, coords, ("time", "y", "x")[3 - pixels.ndim :], name="sci", attrs={"units": "DN"})


def names(bits: Any) -> list[str]:
    return [p.name for p in STATUS_PLANES if int(bits) & p.value]


def disk(x: float, y: float, radius: float) -> NDArray[np.bool_]:
    yy, xx = np.mgrid[:NY, :NX]
    return np.asarray(np.hypot(yy - y, xx - x) <= radius)


FLAT = image(np.full((NY, NX), 3.0))
ONE = image(np.ones((NY, NX)))
NOISE = image(np.random.default_rng(5).normal(10.0, 2.0, (NY, NX)))
GOOD = image(np.zeros((NY, NX), dtype=bool))


def measure(obj: Any, positions: Any = POSITIONS, **options: Any) -> xr.Dataset:
    return aperture_photometry(obj, positions, **{"radius": 5.0, "variance": ONE, "mask": False, **options})


# fluxes and errors


def test_injected_stars() -> None:
    """At 8 sigma of the star a disk holds all but e^-32 of it, plus its share of a level of 3 DN."""
    fluxes = np.array([1000.0, 55.5, -200.0])
    stars = np.stack([gaussian_star(x, y, f) for (x, y), f in zip(POSITIONS, fluxes, strict=True)])
    radius = 8 * SIGMA
    found = measure(image(stars), radius=radius)
    np.testing.assert_allclose(np.diag(found["flux"]), fluxes, rtol=1e-9)
    found = measure(image(stars.sum(0)) + 3.0, radius=radius)
    np.testing.assert_allclose(found["flux"], fluxes + 3 * np.pi * radius**2, rtol=1e-7)
    np.testing.assert_allclose(found["area"], np.pi * radius**2, rtol=1e-12)
    assert found["status"].values.tolist() == [0, 0, 0]


def test_enclosed_flux_of_a_star() -> None:
    """Of a round Gaussian, a disk of radius r holds 1 - exp(-r²/2σ²).

    Pixels blur it by 1/12 px² where it is sampled, and again where each is taken as flat.
    """
    star = image(gaussian_star(*POSITIONS[0], 1000.0))
    for radius in (3.0, 4.0):
        blurred = 1 - np.exp(-(radius**2) / 2 / (SIGMA**2 + 2 / 12))
        np.testing.assert_allclose(measure(star, POSITIONS[:1], radius=radius)["flux"], 1000 * blurred, rtol=2e-3)


def test_errors_are_honest() -> None:
    """Pulls of 400 noise realisations have unit width: its own standard error is 3.5 %."""
    rng = np.random.default_rng(11)
    star = gaussian_star(*POSITIONS[0], 500.0)
    noise = 4.0 + star / 6.0
    bad = disk(22.0, 22.0, 1.2)
    stacked = image(star + rng.normal(size=(400, NY, NX)) * np.sqrt(noise))
    for options in ({}, {"mask": image(bad), "masked": "drop"}, {"mask": image(bad), "masked": "correct"}):
        found = measure(stacked, POSITIONS[:1], radius=3.3, variance=image(noise), **options)
        truth = measure(image(star), POSITIONS[:1], radius=3.3, variance=image(noise), **options)
        np.testing.assert_allclose(found["flux_err"][0], truth["flux_err"], rtol=1e-12)
        pulls = ((found["flux"] - truth["flux"]) / found["flux_err"]).values
        assert 0.93 < pulls.std() < 1.07
        assert abs(pulls.mean()) < 5 / np.sqrt(400)


def test_measured_noise_gives_honest_errors(write_frame: WriteFrame) -> None:
    """A frame of pure sky of rms 9, whose variance is measured: 200 apertures that do not overlap."""
    path = write_frame(shape=(256, 240), flags=np.zeros((256, 240), np.int16))
    ds = open_quadrant(path)
    flat = xr.Dataset({"sci": clean(ds), "variance": variance(ds)})
    y, x = np.mgrid[12:246:15, 12:232:16]
    found = aperture_photometry(flat, np.stack([x.ravel() + 0.3, y.ravel() + 0.1], 1), radius=5)
    assert (found["status"] == 0).all()
    pulls = (found["flux"] / found["flux_err"]).values
    assert abs(pulls.std() - 1) < 5 / np.sqrt(2 * pulls.size)


@pytest.mark.parametrize("convolve", ["reference", "science"])
def test_the_noise_of_the_convolved_image_adds_up(convolve: Any) -> None:
    """Two single exposures: without the correlation the stated errors would be 25 % too small."""
    pulls = []
    for seed in range(4):
        many = {"n_epochs": 2, "n_stars": 60, "n_galaxies": 0, "n_variables": 0, "n_transients": 0}
        made = make_scene((160, 160), seed=seed, detector=Detector(cosmic_rays=0), **many).images
        by_seeing = [made.isel(time=i, drop=True) for i in np.argsort(made["seeing"].values)]
        reference, science = by_seeing if convolve == "reference" else by_seeing[::-1]
        diff = ztfxr.difference(science, reference, convolve=convolve)
        grid = [(x, y) for x in range(20, 141, 20) for y in range(20, 141, 20)]
        found = ztfxr.aperture_photometry(diff, grid, radius=[3.0, 6.0])
        pulls.append((found["flux"] / found["flux_err"]).where(found["status"] == 0).values)
    width = 1.4826 * np.nanmedian(np.abs(np.concatenate(pulls)), axis=0)
    np.testing.assert_allclose(width, 1.0, atol=0.12)


@given(st.floats(-1e6, 1e6), st.floats(0.5, 9.0), st.floats(1e-3, 1e6))
def test_flux_scales_with_the_image(scale: float, radius: float, noise_scale: float) -> None:
    one = measure(NOISE, radius=radius)
    found = measure(NOISE * scale, radius=radius, variance=ONE * noise_scale)
    np.testing.assert_allclose(found["flux"], one["flux"] * scale, rtol=1e-9, atol=1e-200)
    np.testing.assert_allclose(found["flux_err"], one["flux_err"] * np.sqrt(noise_scale), rtol=1e-9)


@given(st.integers(-4000, 4000), st.integers(-4000, 4000))
def test_absolute_pixels(x0: int, y0: int) -> None:
    shifted = image(NOISE.values, x0, y0)
    variance_there = image(ONE.values, x0, y0)
    found = measure(shifted, POSITIONS + np.array([x0, y0]), variance=variance_there)
    np.testing.assert_allclose(found["flux"], measure(NOISE)["flux"], rtol=1e-9)


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1), st.floats(0.5, 8.0))
def test_against_the_array_code(seed: int, radius: float) -> None:
    rng = np.random.default_rng(seed)
    x, y = rng.uniform(-10, NX + 10, 8), rng.uniform(-10, NY + 10, 8)
    bad, noise = rng.random((NY, NX)) < 0.05, rng.uniform(1, 5, (NY, NX))
    sums = sum_apertures(NOISE.values, noise, bad, x, y, radii=radius)
    found = measure(NOISE, np.stack([x, y], 1), radius=radius, variance=image(noise), mask=image(bad), masked="drop")
    measured = np.isfinite(found["flux"].values)
    np.testing.assert_allclose(found["flux"][measured], sums.flux[measured, 0], rtol=1e-12)
    np.testing.assert_allclose(found["flux_err"][measured] ** 2, sums.variance[measured, 0], rtol=1e-12)
    np.testing.assert_allclose(found["masked_fraction"], 1 - sums.area[:, 0] / sums.total_area, atol=1e-9)
    np.testing.assert_array_equal(measured, 1 - sums.area[:, 0] / sums.total_area <= 0.5)


# bad pixels


@given(st.integers(0, 2**32 - 1), st.sampled_from(["mask", "image", "variance"]), st.sampled_from([np.nan, np.inf]))
def test_flat_image_is_corrected_exactly(seed: int, where: str, hole: float) -> None:
    """However a pixel is bad, and whatever it holds, a flat image gives the same flux."""
    bad = np.random.default_rng(seed).random((NY, NX)) < 0.2
    junk = image(np.where(bad, hole, 1.0))
    found = measure(
        FLAT * junk if where != "variance" else FLAT,
        variance=ONE * junk if where == "variance" else ONE,
        mask=image(bad) if where == "mask" else False,
        max_masked_fraction=0.9,
    )
    np.testing.assert_allclose(found["flux"], 3 * np.pi * 25, rtol=1e-12)
    assert np.isfinite(found["flux_err"]).all()
    hit = found["masked_fraction"] > 0
    assert [names(s) for s in found["status"]] == [["masked"] if h else [] for h in hit.values]


def test_masked_choices() -> None:
    bad = disk(20.0, 22.0, 1.5)
    lost = measure(FLAT, mask=image(bad), masked="drop")
    corrected = measure(FLAT, mask=image(bad))
    nothing = measure(FLAT, mask=image(bad), masked="nan")
    fraction = float(lost["masked_fraction"][0])
    np.testing.assert_allclose(fraction, bad.sum() / (np.pi * 25), rtol=1e-12)
    np.testing.assert_allclose(lost["flux"][0], 3 * (np.pi * 25 - bad.sum()), rtol=1e-12)
    np.testing.assert_allclose(corrected["flux"][0], 3 * np.pi * 25, rtol=1e-12)
    np.testing.assert_allclose(corrected["flux_err"][0], lost["flux_err"][0] / (1 - fraction), rtol=1e-12)
    assert np.isnan(nothing["flux"][0])
    assert np.isnan(nothing["flux_err"][0])
    for found in (lost, corrected, nothing):
        assert [names(s) for s in found["status"]] == [["masked"], [], []]
        np.testing.assert_allclose(found["flux"][1:], 3 * np.pi * 25, rtol=1e-12)
        np.testing.assert_allclose(found["area"][0], np.pi * 25 - bad.sum(), rtol=1e-12)
        assert found.attrs["masked"] in ("drop", "correct", "nan")


def test_statuses() -> None:
    bad = image(disk(9.5, 11.0, 3.0) | disk(30.0, 35.0, 6.5) | disk(0.0, 24.0, 1.0))
    places = {
        (20.3, 22.6): [],
        (9.5, 11.0): ["masked"],
        (30.0, 35.0): ["masked", "no_good_pixels"],
        (20.0, 2.0): ["edge"],
        (0.0, 24.0): ["edge", "masked"],
        (-3.0, 40.0): ["edge", "no_good_pixels"],
        (-6.0, 20.0): ["outside"],
        (500.0, -500.0): ["outside"],
        (np.nan, 3.0): ["outside"],
        (5.0, np.inf): ["outside"],
        (-5.5, 20.0): ["outside"],
    }
    found = measure(FLAT, list(places), mask=bad)
    assert dict(zip(places, (names(s) for s in found["status"]), strict=True)) == places
    unmeasured = [bool({"outside", "no_good_pixels"} & set(s)) for s in places.values()]
    np.testing.assert_array_equal(np.isnan(found["flux"]), unmeasured)
    np.testing.assert_array_equal(np.isnan(found["flux_err"]), unmeasured)
    np.testing.assert_allclose(found["flux"][~np.array(unmeasured)], 3 * np.pi * 25, rtol=1e-12)
    assert found["status"].dtype == np.uint32
    assert "no_good_pixels" in found["status"].attrs["flag_meanings"].split()


@pytest.mark.parametrize("masked", ["correct", "drop", "nan"])
def test_no_pixel_at_all_is_never_a_flux_of_zero(masked: str) -> None:
    found = measure(FLAT, mask=~GOOD, masked=masked, max_masked_fraction=1.0)
    assert np.isnan(found["flux"]).all()
    assert np.isnan(found["flux_err"]).all()
    assert [names(s) for s in found["status"]] == [["masked", "no_good_pixels"]] * 3


def test_max_masked_fraction() -> None:
    bad = image(disk(20.0, 22.0, 2.5))
    fraction = float(measure(FLAT, mask=bad)["masked_fraction"][0])
    assert np.isfinite(measure(FLAT, mask=bad, max_masked_fraction=fraction + 1e-6)["flux"][0])
    found = measure(FLAT, mask=bad, max_masked_fraction=fraction - 1e-6)
    assert np.isnan(found["flux"][0])
    assert names(found["status"][0]) == ["masked", "no_good_pixels"]


# stacks, Datasets, laziness


@pytest.fixture
def epochs(write_frame: WriteFrame) -> xr.Dataset:
    """Four epochs of the factory's frames, the third without a mask file."""
    paths = []
    for n in range(4):
        name = f"ztf_2020092443170{n}_000655_zr_c13_o_q3_sciimg"
        paths.append(write_frame(name=name, seed=n, cards={"OBSMJD": 59116.4 + n}, mask=n != 2))
    return stack(open_epochs(paths))


@pytest.mark.parametrize("chunks", [{"time": 1}, {"time": 3}, {"time": -1}])
def test_stack_in_chunks_equals_numpy(epochs: xr.Dataset, chunks: dict[str, int]) -> None:
    found = aperture_photometry(epochs.chunk(chunks), POSITIONS, radius=4.0)
    assert found["flux"].dims == ("time", "source")
    assert found["flux"].chunks is not None
    eager = aperture_photometry(epochs.compute(), POSITIONS, radius=4.0)
    assert eager["flux"].chunks is None
    xr.testing.assert_allclose(found.compute(), eager, rtol=1e-12)
    assert np.isfinite(eager["flux"][:3]).any()


def test_epoch_status_is_passed_on(epochs: xr.Dataset) -> None:
    ones = xr.ones_like(epochs["sci"])
    one_by_one = [aperture_photometry(epochs.isel(time=t), POSITIONS, radius=4.0, variance=ones[t]) for t in range(4)]
    for found in (
        aperture_photometry(epochs, POSITIONS, radius=4.0),
        aperture_photometry(epochs["sci"], POSITIONS, radius=4.0, variance=ones),
        xr.concat(one_by_one, "time", coords="minimal", compat="override"),
    ):
        assert "missing_mask" in names(found["status"][3, 0])
        assert "no_good_pixels" in names(found["status"][3, 0])
        assert np.isnan(found["flux"][3]).all()
        assert not any("missing_mask" in names(s) for s in found["status"].values[:3].ravel())


def test_epoch_status_of_a_difference() -> None:
    cube = image(np.ones((2, NY, NX)))
    diff = xr.Dataset({"difference": cube, "difference_variance": cube, "epoch_status": ("time", np.uint32([0, 512]))})
    found = aperture_photometry(diff, POSITIONS, radius=2.0)
    assert [[names(s) for s in row] for row in found["status"].values] == [[[]] * 3, [["solve_failed"]] * 3]
    assert found["status"].dtype == np.uint32
    np.testing.assert_allclose(found["flux"], 4 * np.pi)


def test_datasets_bring_their_own_noise_and_mask(epochs: xr.Dataset) -> None:
    ds = epochs.isel(time=0).compute()
    by_hand = {"variance": variance(ds), "mask": mask(ds)}
    default = aperture_photometry(ds, POSITIONS, radius=4.0, max_masked_fraction=1)
    xr.testing.assert_identical(
        default, aperture_photometry(ds, POSITIONS, radius=4.0, max_masked_fraction=1, **by_hand)
    )
    own = ds.assign(variance=xr.full_like(ds["sci"], 16.0))
    found = aperture_photometry(own, POSITIONS, radius=4.0, mask=False)
    weights = sum_apertures(ONE.values, ONE.values, GOOD.values, *POSITIONS.T, radii=4.0)
    np.testing.assert_allclose(found["flux_err"], 4 * np.sqrt(weights.variance[:, 0]), rtol=1e-6)
    assert (found["status"] == 0).all()


def test_noise_is_measured_on_what_is_measured(epochs: xr.Dataset) -> None:
    """A difference without a variance is not given that of the science image beside it."""
    ds = epochs.isel(time=0).compute()
    noisy = ds.assign(difference=(ds["sci"] - 200) * 5)
    found = aperture_photometry(noisy, POSITIONS, radius=4.0)
    alone = aperture_photometry(noisy[["difference"]], POSITIONS, radius=4.0)
    xr.testing.assert_allclose(found["flux_err"], alone["flux_err"])
    assert (found["flux_err"] > 4 * 9 * np.sqrt(np.pi) * 4).all()


def test_difference_wins_over_sci() -> None:
    both = xr.Dataset({"sci": FLAT, "difference": FLAT * 2, "difference_variance": ONE, "mask": GOOD})
    np.testing.assert_allclose(aperture_photometry(both, POSITIONS, radius=2)["flux"], 24 * np.pi)
    masked = both.assign(mask=image(disk(*POSITIONS[0], 2.0)))
    assert names(aperture_photometry(masked, POSITIONS, radius=2)["status"][0])[0] == "masked"


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e30])
def test_nothing_leaks_from_under_the_mask(epochs: xr.Dataset, value: float) -> None:
    ds = epochs.isel(time=[0, 1]).compute().drop_vars("flags")
    bad = xr.DataArray(disk(21.0, 23.0, 2.0), dims=("y", "x"))
    expected = measure(ds, mask=bad, variance=ds["sci"])
    junk = ds.assign(sci=ds["sci"].where(~bad, value))
    xr.testing.assert_identical(measure(junk, mask=bad, variance=ds["sci"]), expected)
    xr.testing.assert_identical(measure(ds, mask=bad, variance=junk["sci"]), expected)


def test_coordinates(epochs: xr.Dataset) -> None:
    catalog = Table({"x": POSITIONS[:, 0], "y": POSITIONS[:, 1], "name": ["a", "b", "c"]})
    found = aperture_photometry(epochs, catalog, radius=4.0)
    assert found["source_id"].values.tolist() == ["a", "b", "c"]
    sky = pixel_to_sky(epochs, *POSITIONS.T)
    np.testing.assert_allclose(found["ra"], sky.ra.deg)
    np.testing.assert_allclose(found["dec"], sky.dec.deg)
    for name in ("time", "mjd", "filter", "magzp", "message"):
        xr.testing.assert_identical(found[name].variable, epochs[name].variable)
    assert not {"x", "y"} & set(found.coords)
    assert {found[n].attrs.get("units") for n in ("flux", "flux_err")} == {"DN"}
    assert found.attrs["radius_pixel"] == 4.0
    again = aperture_photometry(epochs, sky, radius=4.0)
    np.testing.assert_allclose(again["flux"], found["flux"], rtol=1e-6)


def test_lazy(epochs: xr.Dataset, raising_scheduler: Any) -> None:
    for obj, options in (
        (epochs, {}),
        (epochs["sci"], {}),
        (epochs.isel(time=0), {}),
        (epochs.assign(difference=epochs["sci"]), {}),
        (epochs["sci"], {"variance": epochs["sci"], "mask": epochs["flags"] > 0}),
    ):
        found = aperture_photometry(obj, POSITIONS, radius=4.0, **options)
        assert all(v.chunks is not None for v in found.data_vars.values())
        with pytest.raises(AssertionError, match="should have stayed lazy"):
            found["flux"].compute()


def test_lazy_epoch_status(epochs: xr.Dataset, raising_scheduler: Any) -> None:
    """As `ztfxr.difference` returns it, beside coordinates that are lazy too."""
    lazy = epochs.assign_coords(seeing=epochs["seeing"].chunk()).reset_coords("epoch_status")
    lazy["epoch_status"] = lazy["epoch_status"].chunk(time=1)
    assert aperture_photometry(lazy, POSITIONS, radius=4.0)["status"].chunks is not None


def test_real_star_against_its_surroundings(plain_quadrant_path: Path) -> None:
    """The brightest pixel of a cut-out of the real quadrant: the flux grows with the radius and levels off."""
    cut = open_quadrant(plain_quadrant_path).isel(y=slice(1500, 1700), x=slice(1500, 1700)).compute()
    flat = cut.assign(sci=clean(cut), variance=variance(cut))
    peak = flat["sci"][30:-30, 30:-30]
    at = peak.isel({str(k): int(v) for k, v in peak.argmax(["y", "x"]).items()})  # type: ignore[union-attr]
    where = [(float(at["x"]), float(at["y"]))]
    small, large, larger = (aperture_photometry(flat, where, radius=r).isel(source=0) for r in (2, 6, 8))
    assert float(small["flux"]) > 30 * float(small["flux_err"])
    assert 0.3 < float(small["flux"] / large["flux"]) < 0.95
    assert abs(float(larger["flux"] / large["flux"]) - 1) < 0.1


# errors


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"radius": 0}, "radius must be positive, in pixels; got 0"),
        ({"radius": -1.5}, "radius must be positive"),
        ({"radius": np.nan}, "radius must be positive"),
        ({"radius": np.inf}, "radius must be positive"),
        ({"masked": "corect"}, "masked is 'correct', 'drop' or 'nan'; got 'corect'"),
        ({"max_masked_fraction": 1.5}, "max_masked_fraction is a fraction from 0 to 1; got 1.5"),
        ({"mask": FLAT}, "a mask is boolean"),
        ({"positions": {"a": [1]}}, "positions need columns"),
    ],
)
def test_errors(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        measure(FLAT, **options)


def test_no_image() -> None:
    with pytest.raises(InputError, match="the Dataset has no variable 'sci'"):
        measure(xr.Dataset({"other": FLAT}))


def test_unknown_gain() -> None:
    with pytest.raises(InputError, match="no gain is known"):
        aperture_photometry(FLAT, POSITIONS, radius=3)


def test_chunked_image() -> None:
    with pytest.raises(ChunkError, match="2 chunks along 'y'"):
        measure(FLAT.chunk(y=30))


def test_reversed_image() -> None:
    """Its first pixel is no origin: read as one, the flux would be that of another place."""
    with pytest.raises(InputError, match="x does not count single pixels upwards"):
        measure(FLAT[:, ::-1])


# several radii, local background, aperture correction


def stars_on_a_sky(n_epochs: int = 2) -> tuple[xr.Dataset, xr.Dataset]:
    clean = Detector(cosmic_rays=0, bad_fraction=0, bad_columns=0)
    scene = make_scene(
        (256, 256),
        n_epochs=n_epochs,
        n_stars=55,
        n_galaxies=0,
        n_variables=0,
        n_transients=0,
        options=SceneOptions(magnitudes=(15.5, 20.5), slope=0.05, min_separation=21.0, margin=18),
        detector=clean,
        optics=Optics(field_variation=0),
        seed=2,
    )
    return scene.images, scene.truth


def test_many_radii_are_each_alone() -> None:
    radii = [6.0, 2.5, 4.0]
    found = measure(NOISE, radius=radii)
    assert found["flux"].dims == ("source", "radius")
    assert found["radius"].attrs["units"] == "pixel"
    for k, radius in enumerate(radii):
        alone = measure(NOISE, radius=radius)
        for name in ("flux", "flux_err", "area", "masked_fraction"):
            np.testing.assert_allclose(found[name][:, k], alone[name], rtol=1e-9, atol=1e-12)
        np.testing.assert_array_equal(found["status"][:, k], alone["status"])


def test_radii_and_annulus_on_a_lazy_stack() -> None:
    images, truth = stars_on_a_sky()
    options: dict[str, Any] = {"radius": [3, 5, 8], "annulus": (10, 16)}
    eager = aperture_photometry(images, truth, **options)
    lazy = aperture_photometry(images.chunk(time=1), truth, **options)
    assert lazy["flux"].chunks is not None
    assert eager["flux"].dims == ("time", "source", "radius")
    assert eager["local_background"].dims == ("time", "source")
    xr.testing.assert_identical(lazy.compute(), eager)


def test_local_background_takes_the_sky_off_with_an_honest_error() -> None:
    images, truth = stars_on_a_sky()
    found = aperture_photometry(images, truth, radius=9.0, annulus=ztfxr.Annulus(11, 20, "mean"))
    pull = (found["flux"] - truth["flux"]) / found["flux_err"]
    faint = (truth["mag"] > 17.5).values
    # Wings of the PSF beyond 9 px hold 0.3 % of the light.
    assert abs(float(pull[:, faint].mean())) < 0.5
    assert 0.85 < float(pull[:, faint].std()) < 1.2
    without = aperture_photometry(images, truth, radius=9.0)
    assert (without["flux"] > found["flux"] + 20000).all()


def test_without_a_background_there_is_no_flux() -> None:
    image_ = NOISE.copy()
    x, y = POSITIONS[0]
    yy, xx = np.indices(image_.shape)
    image_.values[(np.hypot(xx - x, yy - y) > 6)] = np.nan
    found = aperture_photometry(image_, POSITIONS[:1], radius=4.0, annulus=(7, 10), variance=xr.ones_like(image_))
    assert np.isnan(found["flux"][0])
    assert int(found["status"][0]) == 1 << 13


def test_aperture_correction_brings_small_apertures_to_the_whole_flux() -> None:
    images, truth = stars_on_a_sky(n_epochs=4)
    radii = [2.5, 4.0, 9.0]
    stars = aperture_photometry(images, truth, radius=radii, annulus=(11, 20))
    correction = ztfxr.aperture_correction(stars)
    assert correction["aperture_correction"].dims == ("time", "radius")
    np.testing.assert_allclose(correction["aperture_correction"][:, 2], 1.0)
    assert (correction["aperture_correction"][:, 0] > 1.2).all()
    assert (correction["aperture_correction_err"][:, :2] < 0.01).all()
    rows = np.arange(-16, 17)
    for t in range(4):
        stamp = true_psf(truth, t, [120.0], [120.0])[0].values
        inside = [(stamp * circle_overlap(rows[None, :], rows[:, None], r)).sum() for r in radii]
        error = np.hypot(correction["aperture_correction_err"][t, 1], 0.003)
        assert abs(float(correction["aperture_correction"][t, 1]) - inside[2] / inside[1]) < 4 * float(error)
    corrected = stars["flux"] * correction["aperture_correction"]
    bright = (truth["mag"] < 18).values
    ratio = (corrected.isel(radius=1) / corrected.isel(radius=2))[:, bright]
    assert float(ratio.mean()) == pytest.approx(1.0, abs=0.01)


def test_aperture_correction_needs_radii_and_stars() -> None:
    with pytest.raises(InputError, match="several radii"):
        ztfxr.aperture_correction(measure(NOISE))
    found = measure(NOISE, radius=[3, 5])
    with pytest.raises(InputError, match="no aperture of radius 4"):
        ztfxr.aperture_correction(found, radius=4)
    assert np.isnan(ztfxr.aperture_correction(found)["aperture_correction"]).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"radius": [3, 3]}, "must differ"),
        ({"radius": []}, "must be positive"),
        ({"radius": 3, "annulus": (8, 5)}, "inner and the larger outer"),
        ({"radius": 3, "annulus": (1, 5)}, "begins at 1 px, inside"),
        ({"radius": 3, "annulus": {"inner": 5, "outer": 8, "statistic": "mode"}}, "'median' or 'mean'"),
    ],
)
def test_bad_radii_and_annuli(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        aperture_photometry(NOISE, POSITIONS, **options)


_MEASURED: dict[str, Callable[[xr.Dataset, NDArray[Any], xr.DataArray], object]] = {
    "apertures": lambda i, p, psf: ztfxr.aperture_photometry(i, p, radius=[2, 3], annulus=(5, 8)),
    "apertures, radii": lambda i, p, psf: ztfxr.aperture_photometry(i, p, radius=np.linspace(2, 6, 10)),
    "psf": lambda i, p, psf: ztfxr.forced_photometry(i, p, psf, background="annulus"),
    "psf, alone": lambda i, p, psf: ztfxr.forced_photometry(i, p, psf, background="none", fit={"group_radius": 0}),
    "injection": lambda i, p, psf: ztfxr.inject(i, p, np.full(len(p), 9.0), psf),
}


@pytest.mark.parametrize("measured", list(_MEASURED))
def test_python_does_not_loop_over_sources(measured: str) -> None:
    """Twenty times as many sources make no more calls of functions, Python's or C's."""
    rng = np.random.default_rng(0)
    planes = {"sci": rng.normal(0, 3, (200, 200)), "variance": np.full((200, 200), 9.0)}
    images = xr.Dataset({k: (("y", "x"), v.astype(np.float32)) for k, v in planes.items()}).assign_coords(gain=6.0)
    psf = xr.DataArray(gaussian_star(6.0, 6.0, 1.0, (13, 13)), dims=("psf_y", "psf_x"))

    def calls(n: int) -> int:
        places = rng.uniform(30, 170, (n, 2))
        _MEASURED[measured](images, places, psf)
        with cProfile.Profile() as profile:
            _MEASURED[measured](images, places, psf)
        return int(pstats.Stats(profile).total_calls)  # type: ignore[attr-defined]

    assert calls(400) < calls(20) + 190
