"""What users plausibly get wrong: each is an error of ztfxr's own that says what came and what to do, nothing else."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
import xarray as xr

import ztfxr
from tests.test_labels import _psf, curve, scene, stack
from ztfxr.errors import ZtfxrError

PLACES = [(20.0, 30.0), (40.0, 22.0)]
ARRAY = np.zeros((20, 20))


@cache
def image() -> xr.Dataset:
    return stack().isel(time=0, drop=True)


def flat(**dims: int) -> xr.DataArray:
    return xr.DataArray(np.zeros(tuple(dims.values())), dims=tuple(dims))


def plain() -> xr.Dataset:
    return ztfxr.drop_wcs(image()[["sci"]])


MISTAKES: dict[str, Callable[[], Any]] = {
    "clean an array": lambda: ztfxr.clean(ARRAY),
    "background of a path": lambda: ztfxr.background("image.fits"),
    "noise of None": lambda: ztfxr.noise(None),
    "sources of a tree": lambda: ztfxr.sources(xr.DataTree()),
    "difference of arrays": lambda: ztfxr.difference(ARRAY, ARRAY),
    "dimensions row, col": lambda: ztfxr.background(flat(row=9, col=9)),
    "one dimension": lambda: ztfxr.background(flat(x=9)),
    "complex pixels": lambda: ztfxr.background(flat(y=9, x=9) * 1j),
    "text pixels": lambda: ztfxr.background(xr.DataArray(np.full((4, 4), "a"), dims=("y", "x"))),
    "dataset without sci": lambda: ztfxr.background(xr.Dataset({"a": flat(y=9, x=9)})),
    "integer mask": lambda: ztfxr.background(image(), mask=image()["flags"]),
    "array as mask": lambda: ztfxr.background(image(), mask=np.zeros((56, 64), dtype=bool)),
    "mask=True": lambda: ztfxr.background(image(), mask=True),
    "mask of another shape": lambda: ztfxr.background(image(), mask=flat(y=9, x=9) > 0),
    "box_size text": lambda: ztfxr.background(image(), box_size="64"),
    "box_size float": lambda: ztfxr.background(image(), box_size=64.5),
    "box_size negative": lambda: ztfxr.background(image(), box_size=-4),
    "unknown sky": lambda: ztfxr.background(image(), method="photutils"),
    "unknown statistic": lambda: ztfxr.noise(image(), statistic="mean"),
    "variance by photons without gain": lambda: ztfxr.variance(
        plain().drop_vars(["gain"], errors="ignore"), method="photon"
    ),
    "unknown variance": lambda: ztfxr.variance(image(), method="poisson"),
    "gain text": lambda: ztfxr.variance(image(), gain="six"),
    "clean by text": lambda: ztfxr.clean(image(), background="median"),
    "threshold text": lambda: ztfxr.sources(image(), n_sigma="5"),
    "n_sigma negative": lambda: ztfxr.sources(image(), n_sigma=-1),
    "radius text": lambda: ztfxr.aperture_photometry(image(), PLACES, radius="5"),
    "radius negative": lambda: ztfxr.aperture_photometry(image(), PLACES, radius=-3),
    "radius None": lambda: ztfxr.aperture_photometry(image(), PLACES, radius=None),
    "annulus inside out": lambda: ztfxr.aperture_photometry(image(), PLACES, radius=3, annulus=(9, 5)),
    "annulus number": lambda: ztfxr.aperture_photometry(image(), PLACES, radius=3, annulus=5),
    "positions a number": lambda: ztfxr.aperture_photometry(image(), 5, radius=3),
    "positions of three": lambda: ztfxr.aperture_photometry(image(), [(1, 2, 3)], radius=3),
    "positions without columns": lambda: ztfxr.aperture_photometry(image(), {"a": [1]}, radius=3),
    "positions by words": lambda: ztfxr.aperture_photometry(image(), "M 31 somewhere", radius=3),
    "sky without WCS": lambda: ztfxr.aperture_photometry(plain(), {"ra": [1.0], "dec": [2.0]}, radius=3),
    "columns of two lengths": lambda: ztfxr.resolve_positions(image(), {"x": [1, 2], "y": [1]}),
    "fit without psf": lambda: ztfxr.forced_photometry(plain(), PLACES),
    "psf of text": lambda: ztfxr.forced_photometry(image(), PLACES, "gauss"),
    "psf of an array": lambda: ztfxr.forced_photometry(image(), PLACES, np.ones((9, 9))),
    "unknown fit option": lambda: ztfxr.forced_photometry(image(), PLACES, _psf(), fit={"radus": 3}),
    "stamp without a place": lambda: ztfxr.stamp(image()),
    "stamp of x alone": lambda: ztfxr.stamp(image(), x=3),
    "stamp size text": lambda: ztfxr.stamp(image(), x=3, y=3, size="63"),
    "stamp size zero": lambda: ztfxr.stamp(image(), x=3, y=3, size=0),
    "stamps size float": lambda: ztfxr.stamps(image(), PLACES, 9.5),
    "unknown boundary": lambda: ztfxr.stamp(image(), x=3, y=3, boundary="wrap"),
    "kernel even": lambda: ztfxr.difference(image(), scene().reference, kernel_size=8),
    "kernel text": lambda: ztfxr.difference(image(), scene().reference, kernel_size="7"),
    "unknown basis": lambda: ztfxr.difference(image(), scene().reference, basis="hermite"),
    "reference of another shape": lambda: ztfxr.difference(plain(), plain().isel(x=slice(9))),
    "no reference": lambda: ztfxr.difference(image()),
    "coadd of one image": lambda: ztfxr.coadd(image()),
    "unknown coadd": lambda: ztfxr.coadd(stack(), method="sum"),
    "clip text": lambda: ztfxr.coadd(stack(), clip="3"),
    "weights a list": lambda: ztfxr.coadd(stack(), weights=[1, 2, 3]),
    "best=0": lambda: ztfxr.build_reference(stack(), best=0),
    "anchor beyond": lambda: ztfxr.coadd(stack(), anchor=99),
    "stack of a dataset": lambda: ztfxr.stack(stack()),
    "align to nothing": lambda: ztfxr.align(image(), to="best"),
    "rebin by half": lambda: ztfxr.rebin(image(), 0.5),
    "rebin by zero": lambda: ztfxr.rebin(image(), 0),
    "unknown plane": lambda: ztfxr.mask(image(), ["stars"]),
    "mask of numbers": lambda: ztfxr.mask(image()["sci"]),
    "explain a word": lambda: ztfxr.explain("saturated"),
    "flux text": lambda: ztfxr.flux_to_mag("12"),
    "flux complex": lambda: ztfxr.flux_to_mag(1j),
    "unknown unit": lambda: ztfxr.flux_to_mag(3.0, unit="mJy"),
    "no zero point": lambda: ztfxr.counts_to_mag(3.0),
    "unknown filter": lambda: ztfxr.counts_to_flux(3.0, magzp=25, unit="erg/s/cm2/A", wavelength="sdssz"),
    "catalog a list": lambda: ztfxr.as_catalog([1, 2]),
    "catalog an image": lambda: ztfxr.as_catalog(image()),
    "match of one": lambda: ztfxr.match({"ra": [1.0], "dec": [1.0]}, radius=1),
    "match without sky": lambda: ztfxr.match({"a": [1.0]}, {"a": [1.0]}, radius=1),
    "match radius text": lambda: ztfxr.match({"ra": [1.0], "dec": [1.0]}, {"ra": [1.0], "dec": [1.0]}, radius="1"),
    "unknown match": lambda: ztfxr.match({"ra": [1.0], "dec": [1.0]}, {"ra": [1.0], "dec": [1.0]}, radius=1, mode="x"),
    "zero point without a column": lambda: ztfxr.zero_point(xr.Dataset({"a": ("source", [1.0])})),
    "bin magnitudes": lambda: ztfxr.bin_by_night(curve(), flux="mag"),
    "bins of no length": lambda: ztfxr.bin_by_night(curve(), days=0),
    "bins of text": lambda: ztfxr.bin_by_night(curve(), days="1"),
    "baseline of an image": lambda: ztfxr.correct_baseline(image()),
    "baseline by what is not there": lambda: ztfxr.correct_baseline(curve(), by=["night"]),
    "cuts of an image": lambda: ztfxr.quality_cuts(image()[["flags"]]),
    "counts without cuts": lambda: ztfxr.cut_counts(curve()),
    "magnitudes of DN": lambda: ztfxr.magnitudes(curve()),
    "variability of an image": lambda: ztfxr.variability(image()),
    "scale without flux": lambda: ztfxr.apply_scale(image(), xr.Dataset()),
    "scale by itself": lambda: ztfxr.apply_scale(curve(), curve()),
    "light curve of an array": lambda: ztfxr.lightcurve(ARRAY, PLACES),
    "frames of nothing": lambda: ztfxr.open_frames([]),
    "frames of a number": lambda: ztfxr.open_frames(5),
    "unknown camera": lambda: ztfxr.open_frame("a.fits", camera="hubble"),
    "zarr of an array": lambda: ztfxr.to_zarr(ARRAY, "a.zarr"),
    "zarr that is not there": lambda: ztfxr.open_zarr("none.zarr"),
    "fits of an array": lambda: ztfxr.to_fits(ARRAY, "a.fits"),
    "table of an image": lambda: ztfxr.to_dataframe(image()),
    "wcs of text": lambda: ztfxr.assign_wcs(image(), "CRVAL1 = 3"),
    "sky of no WCS": lambda: ztfxr.pixel_to_sky(plain(), 3, 4),
    "center of no WCS": lambda: ztfxr.center(plain()),
    "inject text": lambda: ztfxr.inject(image(), PLACES, "bright", _psf()),
    "inject too few": lambda: ztfxr.inject(image(), PLACES, [1.0, 2.0, 3.0], _psf()),
    "show an array of text": lambda: ztfxr.show("image"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_named(name: str) -> None:
    with pytest.raises(ZtfxrError) as caught:
        MISTAKES[name]()
    assert len(str(caught.value)) > 20


def test_there_are_enough_of_them() -> None:
    assert len(MISTAKES) >= 60
