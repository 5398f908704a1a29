"""Photometry gathers each image once, keeps its unit, and goes by the labels of what it combines."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import xarray as xr
from numpy.typing import NDArray

import ztfxr
from tests.arrays.psf._scenes import gaussian_pixels
from ztfxr.arrays.options import options_from
from ztfxr.errors import AlignmentError, InputError
from ztfxr.ops import exposure
from ztfxr.ops.mapping import aligned, map_images
from ztfxr.photometry.aperture import Annulus, ApertureOptions
from ztfxr.photometry.lightcurve import on_reference_scale, photometry_options
from ztfxr.photometry.status import Coverage
from ztfxr.schema import STATUS_PLANES, planes_to_bits
from ztfxr.testing import SceneOptions, make_scene

PLACES = np.array([[30.2, 40.7], [60.1, 25.4], [80.0, 90.3]])
DAYS = np.datetime64("2020-01-01", "ns") + np.arange(4) * np.timedelta64(1, "D")


@pytest.fixture(scope="module")
def scene() -> Any:
    options = SceneOptions(magnitudes=(15.0, 19.0))
    return make_scene((120, 128), n_epochs=3, n_stars=60, n_galaxies=0, options=options, seed=3)


@pytest.fixture(scope="module")
def diff(scene: Any) -> xr.Dataset:
    return ztfxr.difference(scene.images, scene.reference, kernel_size=7).load()


def stamp() -> xr.DataArray:
    offset = np.arange(-8, 9) * 1.0
    return xr.DataArray(gaussian_pixels(offset, offset, 1.2), dims=("psf_y", "psf_x"))


# each image once


@contextmanager
def gathered(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The names of the images that are gathered, wherever `gather` has been imported to."""
    import sys

    found: list[str] = []
    original = exposure.gather

    def counting(obj: Any, **given: Any) -> exposure.Exposure:
        one = original(obj, **given)
        found.append(one.name)
        return one

    with monkeypatch.context() as patch:
        for name, module in list(sys.modules.items()):
            if name.startswith("ztfxr") and getattr(module, "gather", None) is original:
                patch.setattr(module, "gather", counting)
        yield found


_CALLS: dict[str, tuple[Callable[[Any, xr.Dataset], object], list[str]]] = {
    "aperture_photometry": (lambda s, d: ztfxr.aperture_photometry(s.images, PLACES, radius=3), ["sci"]),
    "aperture_photometry, difference": (lambda s, d: ztfxr.aperture_photometry(d, PLACES, radius=3), ["difference"]),
    "forced_photometry": (lambda s, d: ztfxr.forced_photometry(s.images, PLACES, stamp()), ["sci"]),
    "forced_photometry, its own PSF": (lambda s, d: ztfxr.forced_photometry(s.images, PLACES), ["sci"]),
    "forced_photometry, refined": (lambda s, d: ztfxr.forced_photometry(s.images, PLACES, stamp(), refine=2), ["sci"]),
    "forced_photometry, difference": (lambda s, d: ztfxr.forced_photometry(d, PLACES, stamp()), ["difference"]),
    "build_psf": (lambda s, d: ztfxr.build_psf(s.images), ["sci"]),
    "inject": (lambda s, d: ztfxr.inject(s.images, PLACES, np.full(3, 9.0), stamp()), ["sci"]),
    "lightcurve": (
        lambda s, d: ztfxr.lightcurve(s.images, PLACES, reference=s.reference, kernel_size=7),
        ["sci", "sci", "difference"],
    ),
    "lightcurve by PSF": (
        lambda s, d: ztfxr.lightcurve(s.images, PLACES, reference=s.reference, kernel_size=7, psf=stamp()),
        ["sci", "sci", "difference"],
    ),
}


@pytest.mark.parametrize("name", list(_CALLS))
def test_each_image_is_gathered_once_a_stage(
    name: str, scene: Any, diff: xr.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    call, expected = _CALLS[name]
    with gathered(monkeypatch) as found:
        call(scene, diff)
    assert found == expected


def test_nothing_is_measured_that_was_given(scene: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """With variance and mask given and no background to take off, no sky is measured."""
    monkeypatch.setattr(exposure, "deferred_maps", lambda *_, **__: pytest.fail("the sky was measured"))
    monkeypatch.setattr(exposure, "noise_maps", lambda *_, **__: pytest.fail("the sky was measured"))
    image = scene.images["sci"]
    given = {"variance": scene.images["variance"], "mask": False}
    ztfxr.aperture_photometry(image, PLACES, radius=3, **given)
    for background in ("none", "fit", "annulus"):
        ztfxr.forced_photometry(image, PLACES, stamp(), background=background, **given)


# units


@pytest.mark.parametrize("unit", ["nJy", "electron", "MJy/sr"])
def test_fluxes_are_in_the_unit_of_the_image(scene: Any, unit: str) -> None:
    images = scene.images.copy()
    images["sci"] = images["sci"].assign_attrs(units=unit)
    summed = ztfxr.aperture_photometry(images, PLACES, radius=3, annulus=(6, 9))
    fitted = ztfxr.forced_photometry(images, PLACES, stamp(), bound=True)
    for out in (summed, fitted, ztfxr.quality_cuts(summed)):
        assert {out[n].attrs["units"] for n in ("flux", "flux_err", "local_background")} == {unit}
        assert "units" not in out["masked_fraction"].attrs
    assert fitted["flux_err_bound"].attrs["units"] == unit
    assert ztfxr.inject(images, PLACES, np.full(3, 9.0), stamp(), noise=False)["sci"].attrs["units"] == unit


# labels


def curves(n_source: int = 30) -> xr.Dataset:
    """Constant stars seen through clouds, each epoch with its date."""
    rng = np.random.default_rng(0)
    clouds, mean = np.array([1.0, 0.7, 0.9, 0.5]), 10 ** rng.uniform(3, 4, n_source)
    flux = clouds[:, None] * mean
    lc = xr.Dataset({"flux": (("time", "source"), flux), "flux_err": (("time", "source"), 0.001 * flux)})
    return lc.assign_coords(time=DAYS, mjd=("time", 58849.0 + np.arange(4)))


def test_the_scale_of_an_epoch_is_found_by_its_date() -> None:
    lc = curves()
    scale = ztfxr.photometric_scale(lc)
    flat = ztfxr.apply_scale(lc, scale)
    assert float(flat["flux"].std("time").max() / flat["flux"].mean()) < 1e-6
    for some in (slice(None, None, -1), slice(1, None), [2, 0]):
        xr.testing.assert_allclose(ztfxr.apply_scale(lc.isel(time=some), scale), flat.isel(time=some))
        if not isinstance(some, slice) or some.start is None:
            continue
        with pytest.raises(AlignmentError, match="the scale has other labels along 'time'"):
            ztfxr.apply_scale(lc, scale.isel(time=some))
    shifted = scale.assign_coords(time=DAYS + np.timedelta64(1, "D"))
    with pytest.raises(AlignmentError, match="the scale has other labels along 'time'"):
        ztfxr.apply_scale(lc, shifted)


def test_epochs_of_one_date_are_not_told_apart() -> None:
    lc = curves().assign_coords(time=DAYS[[0, 1, 1, 2]])
    scale = ztfxr.photometric_scale(lc)
    assert float(ztfxr.apply_scale(lc, scale)["flux"].std("time").max()) < 1e-3
    with pytest.raises(AlignmentError, match="or one of them twice"):
        ztfxr.apply_scale(lc.isel(time=slice(None, None, -1)), scale)


def test_what_is_given_along_time_goes_by_its_labels() -> None:
    lc, back = curves(), slice(None, None, -1)
    magzp = xr.DataArray([25.0, 26.0, 27.0, 28.0], {"time": DAYS}, "time")
    expected = ztfxr.calibrate_flux(lc, magzp=magzp)
    xr.testing.assert_identical(ztfxr.calibrate_flux(lc, magzp=magzp.isel(time=back)), expected)
    quiet = xr.DataArray([True, True, False, True], {"time": DAYS}, "time")
    leveled = ztfxr.correct_baseline(lc, quiet=quiet, min_epochs=2)
    xr.testing.assert_identical(ztfxr.correct_baseline(lc, quiet=quiet.isel(time=back), min_epochs=2), leveled)
    mag = xr.DataArray([20.0, 20.1, 20.2, 20.3], {"time": DAYS}, "time")
    total = ztfxr.total_flux(expected, reference_mag=mag, reference_mag_err=0.1)
    again = ztfxr.total_flux(expected, reference_mag=mag.isel(time=back), reference_mag_err=0.1)
    xr.testing.assert_identical(again, total)
    for call in (
        lambda: ztfxr.calibrate_flux(lc, magzp=magzp.isel(time=[0, 1, 2])),
        lambda: ztfxr.correct_baseline(lc, quiet=quiet.isel(time=[0, 1, 2])),
        lambda: ztfxr.total_flux(expected, reference_mag=mag.isel(time=[0]), reference_mag_err=0.1),
    ):
        with pytest.raises(AlignmentError, match="has other labels along 'time'"):
            call()


def test_constant_stars_and_colors_are_those_of_the_sources() -> None:
    lc = curves().assign_coords(source=np.arange(30))
    known = xr.DataArray(np.arange(30) < 12, {"source": np.arange(30)}, "source")
    used = ztfxr.photometric_scale(lc, constant=known)
    back = ztfxr.photometric_scale(lc, constant=known.isel(source=slice(None, None, -1)))
    xr.testing.assert_identical(back, used)
    color = xr.DataArray(np.linspace(0, 1, 30), {"source": np.arange(30)}, "source")
    given = {"magzp": 26.0, "color_term": 0.1}
    expected = ztfxr.calibrate_flux(lc, color=color, **given)
    xr.testing.assert_identical(
        ztfxr.calibrate_flux(lc, color=color.isel(source=slice(None, None, -1)), **given), expected
    )


def test_the_reference_scale_goes_by_the_epochs(diff: xr.Dataset) -> None:
    lc = ztfxr.aperture_photometry(diff, PLACES, radius=3)
    scaled = on_reference_scale(lc, diff)
    back = slice(None, None, -1)
    xr.testing.assert_identical(on_reference_scale(lc.isel(time=back), diff), scaled.isel(time=back))
    with pytest.raises(AlignmentError, match="the difference has other labels along 'time'"):
        on_reference_scale(lc, diff.isel(time=[0, 1]))


def test_psfs_and_fluxes_of_other_epochs_are_refused(scene: Any) -> None:
    psf = ztfxr.build_psf(scene.images)
    back = slice(None, None, -1)
    with pytest.raises(AlignmentError, match="different labels along 'time'"):
        ztfxr.forced_photometry(scene.images, PLACES, psf.isel(time=back))
    flux = xr.DataArray(np.ones((3, 3)) * [[1e3], [2e3], [3e3]], {"time": scene.images["time"]}, ("time", "source"))
    expected = ztfxr.inject(scene.images, PLACES, flux, stamp(), noise=False)
    found = ztfxr.inject(scene.images, PLACES, flux.isel(time=back), stamp(), noise=False)
    xr.testing.assert_identical(found, expected)


def test_aligned() -> None:
    like = xr.DataArray(np.zeros(3), {"a": [1, 2, 3]}, "a")
    found = aligned(xr.DataArray([30, 10, 20, 40], {"a": [3, 1, 2, 4], "b": 5}, "a"), like, "it")
    assert found.values.tolist() == [10, 20, 30]
    assert not found.coords
    assert aligned(xr.DataArray([1, 2, 3], dims="a"), like, "it").values.tolist() == [1, 2, 3]
    with pytest.raises(AlignmentError, match="it has 2 along 'a', not 3"):
        aligned(xr.DataArray([1, 2], dims="a"), like, "it")


# options


def test_options_of_a_job_are_those_of_the_functions(diff: xr.Dataset) -> None:
    plain = {"radius": [3, 5], "masked": "drop", "annulus": {"inner": 8, "outer": 12, "statistic": "mean"}}
    found = ztfxr.aperture_photometry(diff, PLACES, **photometry_options("aperture", plain))
    expected = ztfxr.aperture_photometry(diff, PLACES, radius=(3, 5), masked="drop", annulus=Annulus(8, 12, "mean"))
    xr.testing.assert_identical(found, expected)
    plain = {"background": [8, 12], "radius": 4, "weights": "variance"}
    found = ztfxr.forced_photometry(diff, PLACES, stamp(), **photometry_options("psf", plain))
    fit = ztfxr.FitOptions(radius=4, weights="variance")
    xr.testing.assert_identical(found, ztfxr.forced_photometry(diff, PLACES, stamp(), background=(8.0, 12.0), fit=fit))
    assert found.attrs["background"] == [8.0, 12.0]


@pytest.mark.parametrize(
    ("method", "given", "message"),
    [
        ("eye", {}, "method is 'aperture' or 'psf'; got 'eye'"),
        ("psf", {"masked": "drop"}, "photometry by psf has no option masked; its options are background, radius"),
        ("psf", {"background": "sky"}, "background is 'none', 'global', 'annulus' or 'fit'"),
        ("psf", {"background": [9, 3]}, "an inner and a larger outer radius"),
        ("psf", {"weights": "flat"}, "weights is 'model' or 'variance'"),
        ("aperture", {"radius": -1}, "radius must be positive"),
        ("aperture", {"annulus": [9, 3]}, "inner and the larger outer"),
        ("aperture", {"annulus": {"outer": 3}}, "annulus misses an option"),
        ("aperture", {"annulus": {"inner": 9, "outer": 12, "clip": 0}}, "clip is a positive number"),
    ],
)
def test_bad_options_of_a_job(method: str, given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        photometry_options(method, given)


def test_one_radius_of_a_light_curve(diff: xr.Dataset) -> None:
    found = ztfxr.lightcurve(diff, PLACES, photometry={"radius": 3, "masked": "nan"})
    assert found.attrs["radius_pixel"] == 3
    assert found.attrs["masked"] == "nan"
    assert ztfxr.lightcurve(diff, PLACES).attrs["radius_pixel"] == 7
    with pytest.raises(InputError, match="two radii are given"):
        ztfxr.lightcurve(diff, PLACES, radius=5, photometry={"radius": 3})


def test_options_from() -> None:
    given = ApertureOptions(3.0)
    assert options_from(ApertureOptions, given, "sums") is given
    assert options_from(ApertureOptions, {"radius": [3, 4]}, "sums").radius == (3, 4)
    with pytest.raises(InputError, match="sums is a ApertureOptions or a mapping of its options; got int"):
        options_from(ApertureOptions, 3, "sums")
    with pytest.raises(InputError, match="sums misses an option"):
        options_from(ApertureOptions, None, "sums")


# outcomes and inputs


def test_outcomes_are_read_in_one_way() -> None:
    lost = np.array([0.0, 1e-12, 0.3, 1.0, 0.6, 0.2])
    outside = np.array([0.0, 0.0, 0.3, 1.0, 0.1, 0.0])
    cover = Coverage(lost, outside)
    no_good, failed = lost > 0.5, np.array([False] * 5 + [True])
    names = [
        " ".join(p.name for p in STATUS_PLANES if bits & p.value)
        for bits in cover.status(no_good=no_good, failed=failed)
    ]
    assert names == ["", "", "edge", "outside", "edge masked no_good_pixels", "solve_failed masked"]
    assert cover.masked_fraction.tolist() == [0.0, 0.0, 0.3, 1.0, 0.6, 0.2]


def test_inputs_that_belong_together_arrive_together() -> None:
    image = xr.DataArray(np.arange(24.0).reshape(2, 3, 4), dims=("time", "y", "x"))

    def total(
        image: NDArray[np.float64], pair: dict[str, NDArray[np.float64] | None], alone: None
    ) -> dict[str, NDArray[np.float64]]:
        assert alone is None
        assert pair["b"] is None
        return {"sky": image.sum() * pair["a"]}

    inputs = {"image": image, "pair": {"a": xr.DataArray([1.0, 2.0], dims="time"), "b": None}, "alone": None}
    expected = image.sum(("y", "x")).values * [1, 2]
    for given in (inputs, inputs | {"image": image.chunk(time=1)}):
        np.testing.assert_array_equal(map_images(total, given, ["sky"])["sky"], expected)


def test_an_image_without_a_psf_is_lost_and_says_so(scene: Any) -> None:
    out = ztfxr.forced_photometry(scene.images, PLACES, stamp() * np.nan, background="none")
    assert np.isnan(out["flux"]).all()
    assert (out["status"] == planes_to_bits(["solve_failed"], STATUS_PLANES)).all()
    assert (out["fit_pixels"] == 0).all()
