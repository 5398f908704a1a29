"""The `.ztf` accessor: every method is a public function with the object as its first argument.

Imported when somebody first asks for `.ztf`.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Concatenate, Generic, ParamSpec, TypeVar

import xarray as xr

from ztfxr import plot as _plot
from ztfxr import wcs as _wcs
from ztfxr.dia import decorrelate as _decorrelate
from ztfxr.dia import difference as _dia
from ztfxr.dia import quality as _quality
from ztfxr.dia import solve_kernel as _kernel
from ztfxr.dia import zogy as _zogy
from ztfxr.ops import background as _noise
from ztfxr.ops import ccddata as _ccddata
from ztfxr.ops import cosmic_rays as _rays
from ztfxr.ops import masks as _masks
from ztfxr.ops import mosaic as _mosaic
from ztfxr.ops import photcal as _photcal
from ztfxr.ops import sky as _sky
from ztfxr.ops import stamps as _stamps
from ztfxr.ops.catalogs import match as _catalogs
from ztfxr.ops.catalogs import sources as _sources
from ztfxr.ops.catalogs import zeropoint as _zeropoint
from ztfxr.ops.stacks import align as _align
from ztfxr.ops.stacks import coadd as _coadd
from ztfxr.ops.stacks import epochs as _epochs
from ztfxr.ops.stacks import register as _register
from ztfxr.ops.stacks import stack as _stack
from ztfxr.photometry import aperture as _aperture
from ztfxr.photometry import baseline as _baseline
from ztfxr.photometry import binning as _binning
from ztfxr.photometry import calibrate as _calibrate
from ztfxr.photometry import cuts as _cuts
from ztfxr.photometry import forced as _forced
from ztfxr.photometry import inject as _inject
from ztfxr.photometry import lightcurve as _lightcurve
from ztfxr.photometry import magnitudes as _magnitudes
from ztfxr.photometry import psf as _psf
from ztfxr.photometry import psf_build as _psf_build
from ztfxr.photometry import variability as _variability
from ztfxr.store import fits as _fits
from ztfxr.store import regions as _regions
from ztfxr.store import tables as _tables
from ztfxr.store import zarr as _zarr
from ztfxr.viewer import server as _viewer

__all__ = ["DataArrayAccessor", "DataTreeAccessor", "DatasetAccessor"]

T = TypeVar("T")
P = ParamSpec("P")
R = TypeVar("R")


class _Accessor(Generic[T]):
    """Holds the object and nothing else."""

    def __init__(self, obj: T) -> None:
        self._obj = obj


def _bound(function: Callable[Concatenate[T, P], R]) -> Callable[Concatenate[_Accessor[T], P], R]:
    """`function` as a method; signature, types and docstring stay."""

    @functools.wraps(function)
    def method(self: _Accessor[T], /, *args: P.args, **kwargs: P.kwargs) -> R:
        return function(self._obj, *args, **kwargs)

    signature = inspect.signature(function)
    parameters = list(signature.parameters.values())
    parameters[0] = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
    method.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return method


class DataArrayAccessor(_Accessor[xr.DataArray]):
    """ZTF operations on an image or on mask bit planes."""

    mask = _bound(_masks.mask)
    mask_planes = _bound(_masks.mask_planes)
    mask_fractions = _bound(_masks.mask_fractions)
    explain = _bound(_masks.explain)
    source_mask = _bound(_masks.source_mask)
    background = _bound(_noise.background)
    clean = _bound(_noise.clean)
    noise = _bound(_noise.noise)
    variance = _bound(_noise.variance)
    cosmic_rays = _bound(_rays.cosmic_rays)
    source_flags = _bound(_sources.source_flags)
    sources = _bound(_sources.sources)
    convert_flux = _bound(_photcal.convert_flux)
    counts_to_flux = _bound(_photcal.counts_to_flux)
    counts_to_mag = _bound(_photcal.counts_to_mag)
    flux_to_counts = _bound(_photcal.flux_to_counts)
    flux_to_mag = _bound(_photcal.flux_to_mag)
    mag_to_counts = _bound(_photcal.mag_to_counts)
    mag_to_flux = _bound(_photcal.mag_to_flux)
    rebin = _bound(_mosaic.rebin)
    stamp = _bound(_stamps.stamp)
    stamps = _bound(_stamps.stamps)
    difference = _bound(_dia.difference)
    solve_kernel = _bound(_kernel.solve_kernel)
    zogy = _bound(_zogy.zogy)
    coadd = _bound(_coadd.coadd)
    build_reference = _bound(_coadd.build_reference)
    measure_epochs = _bound(_epochs.measure_epochs)
    select_epochs = _bound(_epochs.select_epochs)
    aperture_photometry = _bound(_aperture.aperture_photometry)
    build_psf = _bound(_psf_build.build_psf)
    psf_at = _bound(_psf.psf_at)
    forced_photometry = _bound(_forced.forced_photometry)
    pixel_to_sky = _bound(_wcs.pixel_to_sky)
    sky_to_pixel = _bound(_wcs.sky_to_pixel)
    same_grid = _bound(_wcs.same_grid)
    center = _bound(_sky.center)
    contains = _bound(_sky.contains)
    corners = _bound(_sky.corners)
    footprint = _bound(_sky.footprint)
    pixel_scale = _bound(_sky.pixel_scale)
    pixel_to_tangent = _bound(_sky.pixel_to_tangent)
    pointing = _bound(_sky.pointing)
    sky_to_tangent = _bound(_sky.sky_to_tangent)
    tangent_to_pixel = _bound(_sky.tangent_to_pixel)
    tangent_to_sky = _bound(_sky.tangent_to_sky)
    assign_wcs = _bound(_wcs.assign_wcs)
    get_wcs = _bound(_wcs.get_wcs)
    show = _bound(_plot.show)
    view = _bound(_viewer.view)
    query_catalog = _bound(_catalogs.query_catalog)
    with_catalogs = _bound(_catalogs.with_catalogs)
    to_ccddata = _bound(_ccddata.to_ccddata)
    to_fits = _bound(_fits.to_fits)
    to_zarr = _bound(_zarr.to_zarr)


class DatasetAccessor(_Accessor[xr.Dataset]):
    """ZTF operations on a frame, a stack or a light curve."""

    mask = _bound(_masks.mask)
    mask_planes = _bound(_masks.mask_planes)
    mask_fractions = _bound(_masks.mask_fractions)
    explain = _bound(_masks.explain)
    source_mask = _bound(_masks.source_mask)
    background = _bound(_noise.background)
    clean = _bound(_noise.clean)
    noise = _bound(_noise.noise)
    variance = _bound(_noise.variance)
    cosmic_rays = _bound(_rays.cosmic_rays)
    source_flags = _bound(_sources.source_flags)
    sources = _bound(_sources.sources)
    zero_point = _bound(_zeropoint.zero_point)
    rebin = _bound(_mosaic.rebin)
    stamp = _bound(_stamps.stamp)
    stamps = _bound(_stamps.stamps)
    difference = _bound(_dia.difference)
    solve_kernel = _bound(_kernel.solve_kernel)
    decorrelate = _bound(_decorrelate.decorrelate)
    zogy = _bound(_zogy.zogy)
    align = _bound(_align.align)
    register = _bound(_register.register)
    coadd = _bound(_coadd.coadd)
    build_reference = _bound(_coadd.build_reference)
    measure_epochs = _bound(_epochs.measure_epochs)
    select_epochs = _bound(_epochs.select_epochs)
    difference_quality = _bound(_quality.difference_quality)
    plot_difference = _bound(_plot.plot_difference)
    aperture_photometry = _bound(_aperture.aperture_photometry)
    build_psf = _bound(_psf_build.build_psf)
    psf_at = _bound(_psf.psf_at)
    forced_photometry = _bound(_forced.forced_photometry)
    lightcurve = _bound(_lightcurve.lightcurve)
    calibrate_flux = _bound(_calibrate.calibrate_flux)
    inject = _bound(_inject.inject)
    inject_and_measure = _bound(_inject.inject_and_measure)
    injection_report = _bound(_inject.injection_report)
    plot_injection = _bound(_plot.plot_injection)
    photometric_scale = _bound(_calibrate.photometric_scale)
    apply_scale = _bound(_calibrate.apply_scale)
    aperture_correction = _bound(_aperture.aperture_correction)
    bin_by_night = _bound(_binning.bin_by_night)
    baseline_table = _bound(_baseline.baseline_table)
    correct_baseline = _bound(_baseline.correct_baseline)
    cut_counts = _bound(_cuts.cut_counts)
    magnitudes = _bound(_magnitudes.magnitudes)
    quality_cuts = _bound(_cuts.quality_cuts)
    rescale_errors = _bound(_baseline.rescale_errors)
    total_flux = _bound(_magnitudes.total_flux)
    variability = _bound(_variability.variability)
    pixel_to_sky = _bound(_wcs.pixel_to_sky)
    sky_to_pixel = _bound(_wcs.sky_to_pixel)
    same_grid = _bound(_wcs.same_grid)
    center = _bound(_sky.center)
    contains = _bound(_sky.contains)
    corners = _bound(_sky.corners)
    footprint = _bound(_sky.footprint)
    pixel_scale = _bound(_sky.pixel_scale)
    pixel_to_tangent = _bound(_sky.pixel_to_tangent)
    pointing = _bound(_sky.pointing)
    sky_to_tangent = _bound(_sky.sky_to_tangent)
    tangent_to_pixel = _bound(_sky.tangent_to_pixel)
    tangent_to_sky = _bound(_sky.tangent_to_sky)
    assign_wcs = _bound(_wcs.assign_wcs)
    get_wcs = _bound(_wcs.get_wcs)
    show = _bound(_plot.show)
    view = _bound(_viewer.view)
    plot_lightcurve = _bound(_plot.plot_lightcurve)
    match = _bound(_catalogs.match)
    unmatched = _bound(_catalogs.unmatched)
    isolated = _bound(_catalogs.isolated)
    in_footprint = _bound(_catalogs.in_footprint)
    query_catalog = _bound(_catalogs.query_catalog)
    with_catalogs = _bound(_catalogs.with_catalogs)
    to_ccddata = _bound(_ccddata.to_ccddata)
    to_dataframe = _bound(_tables.to_dataframe)
    to_fits = _bound(_fits.to_fits)
    to_parquet = _bound(_tables.to_parquet)
    to_regions = _bound(_regions.to_regions)
    to_table = _bound(_tables.to_table)
    to_zarr = _bound(_zarr.to_zarr)


class DataTreeAccessor(_Accessor[xr.DataTree]):
    """ZTF operations on frames that are not (yet) aligned."""

    align = _bound(_align.align)
    stack = _bound(_stack.stack)
    mosaic = _bound(_mosaic.mosaic)
    sky_to_mosaic = _bound(_mosaic.sky_to_mosaic)
    show = _bound(_plot.show)
    view = _bound(_viewer.view)
    difference = _bound(_dia.difference)
    lightcurve = _bound(_lightcurve.lightcurve)
    forced_photometry = _bound(_forced.forced_photometry)
    match = _bound(_catalogs.match)
    unmatched = _bound(_catalogs.unmatched)
    with_catalogs = _bound(_catalogs.with_catalogs)
    to_zarr = _bound(_zarr.to_zarr)
