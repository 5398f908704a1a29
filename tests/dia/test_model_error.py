"""The error of kernel and background: in images, in sums over them, in PSF fits."""

from __future__ import annotations

from functools import lru_cache

import dask
import numpy as np
import pytest
import xarray as xr
from numpy.typing import NDArray
from scipy import signal

import ztfxr
from ztfxr.errors import InputError

Floats = NDArray[np.float64]

SIDE, NOISE, PLACE = 49, 6.0, (3.0, 2.0)
EXCLUDED = {"exclude": [PLACE], "exclude_radius": 8.0}


def gaussian(sigma: float, half: int = 8) -> Floats:
    offset = np.arange(-half, half + 1)
    values = np.exp(-0.5 * (offset[:, None] ** 2 + offset[None, :] ** 2) / sigma**2)
    return np.asarray(values / values.sum())


@lru_cache
def stamps(n: int = 40) -> tuple[xr.Dataset, xr.DataArray]:
    """Epochs of a bright, flat galaxy and a few faint stars, and their reference, which has no noise."""
    y, x = np.mgrid[-24:25, -24:25].astype(float)
    host = 3000 * np.exp(-np.hypot(x / 5, y / 2.0)) + 200 * np.exp(-0.5 * np.hypot(x + 15, y - 12) ** 2 / 1.2**2)
    reference = signal.fftconvolve(host, gaussian(1.1), mode="same")
    rng = np.random.default_rng(0)
    truth = 1.3 * signal.fftconvolve(reference, gaussian(0.8), mode="same") + 20.0
    images = truth + NOISE * rng.normal(size=(n, SIDE, SIDE))
    coords = {"y": np.arange(-24, 25), "x": np.arange(-24, 25)}
    dims = ("time", "y", "x")
    variance = xr.full_like(xr.DataArray(images, coords, dims), NOISE**2)
    science = xr.Dataset({"sci": (dims, images), "variance": variance}, coords)
    return science, xr.DataArray(reference, coords, ("y", "x"))


@lru_cache
def difference() -> xr.Dataset:
    science, reference = stamps()
    known = xr.full_like(reference, 1e-4)
    return ztfxr.difference(science, reference, kernel_size=7, reference_variance=known, model_error=True, **EXCLUDED)


def scatter(flux: xr.DataArray, error: xr.DataArray) -> float:
    return float(np.sqrt(((flux / error) ** 2).mean()))


def test_it_is_left_out_unless_asked_for() -> None:
    science, reference = stamps()
    plain = ztfxr.difference(
        science, reference, kernel_size=7, reference_variance=xr.full_like(reference, 1e-4), **EXCLUDED
    )
    xr.testing.assert_identical(plain, difference().drop_vars("model_error"))
    modes = difference()["model_error"]
    assert modes.dims == ("time", "mode", "y", "x")
    assert modes.sizes["mode"] == 7 * 7 + 10
    assert modes.attrs["units"] == "DN"
    assert bool((modes.isnull().any("mode") == difference()["mask"]).all())


def test_fluxes_on_a_bright_host_have_honest_errors() -> None:
    """Where the excluded host lies, the model is off by more than the pixels' noise; with its error pulls are one."""
    diff, psf = difference(), xr.DataArray(gaussian(1.5), dims=("psf_y", "psf_x"))
    for found in (
        ztfxr.aperture_photometry(diff, [PLACE], radius=5),
        ztfxr.forced_photometry(diff, [PLACE], psf, correlation={"reference": 1e-4}),
    ):
        pixels = np.sqrt(found["flux_err"] ** 2 - found["model_err"] ** 2)
        assert scatter(found["flux"], found["flux_err"]) == pytest.approx(1.0, abs=0.25)
        assert scatter(found["flux"], pixels) > 1.4


def test_a_dense_solution_is_the_oracle() -> None:
    """The variance of a sum over an aperture, from the inverse of the whole normal matrix."""
    science, reference = stamps(1)
    noise = {"variance": science["variance"], "reference_variance": xr.full_like(reference, 1e-6)}
    diff = ztfxr.difference(
        science["sci"], reference, kernel_size=5, background_order=1, model_error=True, **noise, **EXCLUDED
    )
    found = ztfxr.aperture_photometry(diff, [PLACE], radius=4, variance=science["variance"])["model_err"].values[0, 0]
    y, x = np.mgrid[-24:25, -24:25]
    shifts = [np.roll(reference.values, (i, j), (0, 1)) for i in range(-2, 3) for j in range(-2, 3)]
    design = np.stack([*shifts, np.ones((SIDE, SIDE)), x / 24, y / 24]).reshape(28, -1)
    used = (np.hypot(y - PLACE[1], x - PLACE[0]) > 8) & (np.maximum(np.abs(y), np.abs(x)) <= 22)
    covariance = np.linalg.inv(design[:, used.ravel()] @ design[:, used.ravel()].T / NOISE**2)
    inside = ztfxr.aperture_photometry(diff.assign(difference=(("y", "x"), np.zeros((SIDE, SIDE)))), [PLACE], radius=4)
    weight = _overlap(4.0)
    sums = design @ weight.ravel()
    assert inside["area"].item() == pytest.approx(weight.sum(), rel=1e-3)
    assert found == pytest.approx(np.sqrt(sums @ covariance @ sums), rel=0.02)


def _overlap(radius: float, fine: int = 20) -> Floats:
    """The part of each pixel within the aperture."""
    fraction = (np.arange(SIDE * fine) + 0.5) / fine - 0.5 - 24
    inside = np.hypot(fraction[:, None] - PLACE[1], fraction[None, :] - PLACE[0]) <= radius
    return np.asarray(inside.reshape(SIDE, fine, SIDE, fine).mean(axis=(1, 3)))


def test_convolving_the_science_image_gives_it_on_the_scale_of_the_science_image() -> None:
    science, reference = stamps(6)
    pair = [science["sci"].isel(time=0, drop=True), reference + NOISE * np.random.default_rng(5).normal(size=(49, 49))]
    noise = xr.full_like(reference, NOISE**2)
    options = {"kernel_size": 7, "variance": noise, "reference_variance": noise, "model_error": True, **EXCLUDED}
    one = ztfxr.difference(*pair, convolve="science", **options)
    ten = ztfxr.difference(10 * pair[0], pair[1], convolve="science", **(options | {"variance": 100 * noise}))
    # A mode is one of many sets with the same sum of squares, whose choice hangs on the last digits.
    sums = [(d["model_error"] ** 2).sum("mode") for d in (one, ten)]
    np.testing.assert_allclose(sums[1], 100 * sums[0], rtol=2e-3, atol=1e-3)


def test_a_smoothed_kernel_has_one() -> None:
    science, reference = stamps(2)
    found = ztfxr.difference(science, reference, kernel_size=5, smoothing=1e-3, model_error=True, **EXCLUDED)
    free = ztfxr.difference(science, reference, kernel_size=5, model_error=True, **EXCLUDED)
    smooth, rough = (np.sqrt((d["model_error"] ** 2).sum("mode").median(("y", "x"))) for d in (found, free))
    # Where nothing is asked for, the prior smooths as much as the data want.
    np.testing.assert_allclose(smooth, rough, rtol=0.1)
    assert (smooth > 0).all()


def test_light_curves_of_stamps_hold_it_and_stay_lazy(raising_scheduler) -> None:
    science, reference = stamps(4)
    lazy = science.chunk(time=1)
    lc = ztfxr.lightcurve(lazy, [PLACE], reference=reference, radius=5, kernel_size=7, **EXCLUDED)
    with dask.config.set(scheduler="synchronous"):
        lc = lc.compute()
    known = ztfxr.lightcurve(science, [PLACE], reference=reference, radius=5, kernel_size=7, **EXCLUDED)
    xr.testing.assert_allclose(lc, known)
    without = ztfxr.lightcurve(
        science, [PLACE], reference=reference, radius=5, kernel_size=7, model_error=False, **EXCLUDED
    )
    np.testing.assert_allclose(known["flux_err"] ** 2, without["flux_err"] ** 2 + known["model_err"] ** 2)
    assert known["model_err"].attrs["units"] == "DN"
    free = ztfxr.lightcurve(
        science, [PLACE], reference=reference, radius=5, kernel_size="auto", kernel_order=0, **EXCLUDED
    )
    assert "model_err" not in free


def test_it_follows_the_scale_of_the_flux() -> None:
    science, reference = stamps(3)
    options = {"reference": reference, "radius": 5, "kernel_size": 7, **EXCLUDED}
    own, other = (ztfxr.lightcurve(science, [PLACE], scale=s, **options) for s in ("science", "reference"))
    np.testing.assert_allclose(other["model_err"] / other["flux_err"], own["model_err"] / own["flux_err"], rtol=1e-4)
    np.testing.assert_allclose(own["model_err"] / other["model_err"], own["kernel_sum"].values[:, None])


def test_a_whitened_difference_has_none() -> None:
    white = ztfxr.decorrelate(difference().isel(time=[0]), science_variance=NOISE**2, reference_variance=1e-4)
    assert "model_error" not in white


def test_an_epoch_without_a_kernel_has_none() -> None:
    science, reference = stamps(2)
    science = science.copy(deep=True)
    science["sci"][1] = np.nan
    diff = ztfxr.difference(science, reference, kernel_size=5, model_error=True, **EXCLUDED)
    assert np.isnan(diff["model_error"][1]).all()
    lc = ztfxr.aperture_photometry(diff, [PLACE], radius=5)
    assert np.isfinite(lc["model_err"][0]).all()
    assert np.isnan(lc["flux"][1]).all()


@pytest.mark.parametrize(
    ("size", "options", "message"),
    [
        (300, {}, "at most 256 × 256 pixels; got 90000 pixels"),
        (64, {"kernel_size": "auto"}, "numbers, not 'auto'"),
        (64, {"kernel_order": "auto"}, "numbers, not 'auto'"),
    ],
)
def test_frames_and_free_kernels_are_refused(size: int, options: dict, message: str) -> None:
    image = xr.DataArray(np.zeros((size, size), dtype=np.float32), dims=("y", "x"))
    with pytest.raises(InputError, match=message):
        ztfxr.difference(image, image, model_error=True, **options)
