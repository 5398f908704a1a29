"""What combines two labeled objects goes by their labels: reordered ones are aligned, others refused, never mixed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import ztfxr
from tests.conftest import EXAMPLES
from ztfxr.errors import AlignmentError, ZtfxrError
from ztfxr.testing import make_scene

PLACES = np.array([[20.0, 30.0], [40.0, 22.0], [33.0, 40.0]])
Call = Callable[[Any], Any]


@cache
def scene() -> Any:
    return make_scene((56, 64), n_epochs=3, n_stars=25, n_galaxies=0, n_variables=0, n_transients=0, seed=3)


@cache
def stack() -> xr.Dataset:
    images = scene().images.load()
    return images.assign(variance=(images["sci"] * 0 + 150.0 + images["y"] % 7 * 20 + images["x"] % 5 * 9))


@cache
def curve() -> xr.Dataset:
    rng = np.random.default_rng(2)
    n, m = 12, 8
    flux = 1e4 * rng.uniform(1, 3, m) * rng.uniform(0.5, 1.5, n)[:, None] * rng.normal(1, 1e-3, (n, m))
    lc = xr.Dataset({"flux": (("time", "source"), flux), "flux_err": (("time", "source"), flux * 1e-3)})
    days = np.datetime64("2020-01-01", "ns") + np.arange(n) * np.timedelta64(1, "D")
    zero = ("time", 26.0 + np.arange(n) * 0.01)
    return lc.assign_coords(time=days, mjd=("time", 58849.0 + np.arange(n)), source=np.arange(m), magzp=zero)


def bad() -> xr.DataArray:
    """A mask that differs from epoch to epoch and from pixel to pixel."""
    rng = np.random.default_rng(1)
    return xr.zeros_like(stack()["sci"], dtype=bool).copy(data=rng.random(stack()["sci"].shape) < 0.1)


def one(array: xr.DataArray) -> xr.DataArray:
    return array.isel(time=0, drop=True)


def along(name: str, values: Any, of: xr.Dataset) -> xr.DataArray:
    return xr.DataArray(values, {name: of[name]}, name)


def of_pixels() -> dict[str, tuple[Any, Call]]:
    """What goes with an image, and the function that takes both."""
    images, image = stack(), stack().isel(time=0, drop=True)
    plain = images.drop_vars("variance")
    noise, mask = images["variance"] * (1 + along("time", [0.0, 1.0, 2.0], images)), bad()
    ref = scene().reference.load()
    gain = along("time", [2.0, 6.0, 9.0], images)
    place = xr.DataArray(np.arange(9.0).reshape(3, 3) * 100 + 500, {"time": images["time"]}, ("time", "source"))
    return {
        "clean mask": (mask, lambda m: ztfxr.clean(images, mask=m)),
        "clean level": (images["sci"] * 0 + images["y"], lambda m: ztfxr.clean(images, background=m)),
        "background mask": (mask, lambda m: ztfxr.background(images, mask=m)),
        "noise mask": (mask, lambda m: ztfxr.noise(images, mask=m)),
        "noise sources": (mask, lambda m: ztfxr.noise(images, sources=m)),
        "variance mask": (mask, lambda m: ztfxr.variance(images, mask=m)),
        "variance gain": (gain, lambda m: ztfxr.variance(plain, method="photon", gain=m)),
        "variance readnoise": (gain, lambda m: ztfxr.variance(plain, method="photon", readnoise=m)),
        "variance background": (
            ztfxr.background(images),
            lambda m: ztfxr.variance(plain, background=m),
        ),
        "sources mask": (one(mask), lambda m: ztfxr.sources(image, mask=m)),
        "sources variance": (one(noise), lambda m: ztfxr.sources(image, variance=m)),
        "apertures variance": (
            noise,
            lambda m: ztfxr.aperture_photometry(images, PLACES, radius=4, variance=m),
        ),
        "apertures mask": (mask, lambda m: ztfxr.aperture_photometry(images, PLACES, radius=4, mask=m)),
        "coadd mask": (mask, lambda m: ztfxr.coadd(images, mask=m, scale="magzp")),
        "coadd variance": (noise, lambda m: ztfxr.coadd(images, variance=m, scale="magzp")),
        "coadd sky": (noise, lambda m: ztfxr.coadd(images, background=m, scale="magzp")),
        "coadd weights": (gain, lambda m: ztfxr.coadd(images, weights=m, scale="magzp")),
        "coadd scale": (gain / 6, lambda m: ztfxr.coadd(images, scale=m)),
        "reference weights": (gain, lambda m: ztfxr.build_reference(images, weights=m, best=2)),
        "reference mask": (mask, lambda m: ztfxr.build_reference(images, mask=m, best=2)),
        "epochs mask": (mask, lambda m: ztfxr.measure_epochs(images, mask=m)),
        "ccddata mask": (one(mask), lambda m: xr.DataArray(ztfxr.to_ccddata(image, mask=m).mask)),
        "psf mask": (one(mask), lambda m: ztfxr.build_psf(image, mask=m, min_snr=5)),
        "psf variance": (one(noise), lambda m: ztfxr.build_psf(image, variance=m, min_snr=5)),
        "rebin mask": (mask, lambda m: ztfxr.rebin(images, 2, mask=m)),
        "stamps mask": (mask, lambda m: ztfxr.stamps(images, PLACES, 9, centered=True, mask=m)),
        "difference mask": (mask, lambda m: ztfxr.difference(images, ref, kernel_size=5, mask=m)),
        "difference variance": (noise, lambda m: ztfxr.difference(images, ref, kernel_size=5, variance=m)),
        "difference reference": (ref, lambda m: ztfxr.difference(images, m, kernel_size=5)),
        "inject flux": (place, lambda m: ztfxr.inject(images, PLACES, m, _psf(), noise=False)),
        "fit variance": (noise, lambda m: ztfxr.forced_photometry(images, PLACES, _psf(), variance=m)),
        "fit mask": (mask, lambda m: ztfxr.forced_photometry(images, PLACES, _psf(), mask=m)),
        "fit psf": (_psf(gain), lambda m: ztfxr.forced_photometry(images, PLACES, m)),
    }


def _psf(widths: xr.DataArray | None = None) -> xr.DataArray:
    """A Gaussian stamp; of another width in each epoch, where they are given."""
    axis = np.arange(-8, 9) * 1.0
    y, x = xr.DataArray(axis, dims="psf_y"), xr.DataArray(axis, dims="psf_x")
    sigma = 1.2 if widths is None else 1.0 + widths / 10
    stamp = np.exp(-0.5 * (y**2 + x**2) / sigma**2)
    return stamp / stamp.sum(["psf_y", "psf_x"])


def of_curves() -> dict[str, tuple[Any, Call]]:
    """What goes with a light curve, and the function that takes both."""
    lc = curve()
    scale = ztfxr.photometric_scale(lc).drop_dims("source")
    per_epoch = along("time", np.linspace(25.0, 26.0, 12), lc)
    per_source = along("source", np.linspace(0.1, 1.2, 8), lc)
    counts = lc["flux"]
    calibrated = ztfxr.calibrate_flux(lc)
    return {
        "apply_scale": (scale, lambda m: ztfxr.apply_scale(lc, m)),
        "magzp": (per_epoch, lambda m: ztfxr.calibrate_flux(lc, magzp=m)),
        "color": (per_source, lambda m: ztfxr.calibrate_flux(lc, color=m, color_term=0.1)),
        "color term": (per_epoch, lambda m: ztfxr.calibrate_flux(lc, color=0.5, color_term=m)),
        "quiet": (per_epoch < 25.6, lambda m: ztfxr.correct_baseline(calibrated, quiet=m)),
        "constant": (per_source < 0.9, lambda m: ztfxr.photometric_scale(lc, constant=m)),
        "reference": (per_source + 18, lambda m: ztfxr.total_flux(calibrated, reference_mag=m, reference_mag_err=0.1)),
        "mag err": (lc["flux_err"], lambda m: ztfxr.counts_to_mag(counts, m)[1]),
        "mag zero point": (per_epoch, lambda m: ztfxr.counts_to_mag(counts, magzp=m)),
        "counts zero point": (per_epoch, lambda m: ztfxr.mag_to_counts(counts * 0 + 18, magzp=m)),
        "flux zero point": (per_epoch, lambda m: ztfxr.counts_to_flux(counts, magzp=m)),
        "flux wavelength": (
            per_epoch * 200,
            lambda m: ztfxr.counts_to_flux(counts, unit="erg/s/cm2/A", wavelength=m),
        ),
        "flux err": (lc["flux_err"], lambda m: ztfxr.flux_to_mag(counts, m)[1]),
    }


def perturbed(other: Any, dim: str, how: str) -> Any:
    n = other.sizes[dim]
    if how == "reversed":
        return other.isel({dim: slice(None, None, -1)})
    if how == "rolled":
        return other.isel({dim: np.roll(np.arange(n), 1)})
    if how == "sliced":
        return other.isel({dim: slice(1, None)})
    labels = other[dim].values
    step = labels[1] - labels[0]
    return other.assign_coords({dim: labels + step}) if how == "shifted" else other.isel({dim: [0] * n})


def same(found: Any, right: Any) -> bool:
    if not isinstance(found, xr.Dataset):
        found, right = (a.to_dataset(name="a") for a in (found, right))
    right = right.reindex_like(found)
    return all(
        np.allclose(found[k].values, right[k].values, rtol=1e-5, atol=1e-8, equal_nan=True)
        for k in right.data_vars
        if right[k].dtype.kind in "fiub"
    )


def check(cases: Mapping[str, tuple[Any, Call]], name: str, how: str) -> None:
    other, call = cases[name]
    right = call(other)
    for dim in (d for d in ("time", "source", "y", "x") if d in other.xindexes):
        try:
            found = call(perturbed(other, dim, how))
            found = found.load() if hasattr(found, "load") else found
        except ZtfxrError:
            continue
        on_overlap = name in ("clean level", "variance background") and how != "repeated"
        assert on_overlap or how in ("reversed", "rolled"), f"{name}: {how} along {dim} was taken"
        if how == "shifted":
            continue
        assert same(found, right), f"{name}: {how} along {dim} was mixed"


HOW = ("reversed", "rolled", "sliced", "shifted", "repeated")


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("name", of_pixels())
def test_pixels(name: str, how: str) -> None:
    check(of_pixels(), name, how)


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("name", of_curves())
def test_curves(name: str, how: str) -> None:
    check(of_curves(), name, how)


@st.composite
def selections(draw: st.DrawFn, n: int) -> tuple[list[int], int]:
    """Rows of an axis in any order, all of them or not, some of them twice or not; and by how many its labels move."""
    rows = draw(st.permutations(range(n)))
    kept = draw(st.sampled_from([n, n, n, n - 1, 1]))
    again = draw(st.sampled_from([[], [], [], [0]]))
    return [*rows[:kept], *again], draw(st.sampled_from([0, 0, 0, 1, -1]))


FAST = ("clean mask", "noise mask", "variance gain", "apertures mask", "coadd weights", "rebin mask")


@cache
def known(name: str) -> tuple[Any, Call, Any]:
    """What is given, to what, and what comes out where the labels agree."""
    other, call = {**of_curves(), **of_pixels()}[name]
    return other, call, call(other)


@settings(max_examples=EXAMPLES)
@given(name=st.sampled_from([*of_curves(), *FAST]), data=st.data())
def test_any_order_of_labels(name: str, data: st.DataObject) -> None:
    """All axes at once: a result is that of the labels as they stand, or there is none."""
    other, call, right = known(name)
    moved, whole = other, True
    for dim in (d for d in ("time", "source", "y", "x") if d in other.xindexes):
        rows, shift = data.draw(selections(other.sizes[dim]), dim)
        moved = moved.isel({dim: rows})
        if shift:
            moved = moved.assign_coords(
                {dim: moved[dim].values + shift * (other[dim].values[1] - other[dim].values[0])}
            )
        whole &= not shift and sorted(rows) == list(range(other.sizes[dim]))
    try:
        found = call(moved)
        found = found.load() if hasattr(found, "load") else found
    except ZtfxrError:
        return
    assert whole
    assert same(found, right)


def test_masks_of_another_sky_are_refused() -> None:
    """Two frames count their pixels alike: only their WCS tells that a mask is of the other one."""
    image = stack().isel(time=0, drop=True)
    header = ztfxr.get_wcs(image).to_header()
    header["CRVAL1"] += 0.1
    other = ztfxr.assign_wcs(ztfxr.drop_wcs(image), header)
    for call in (ztfxr.background, ztfxr.variance, ztfxr.clean):
        with pytest.raises(AlignmentError, match="different WCS"):
            call(image, mask=other["sci"] > 500)
