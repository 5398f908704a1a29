"""ZTF images as labeled, lazy xarray objects; difference imaging; light curves.

Every operation is a function here, ``ztfxr.f(obj, ...)``, and a method of the accessor that importing ztfxr
registers, ``obj.ztf.f(...)``. Lazy in, lazy out; what computes says "Computes" in its docstring.
"""

from __future__ import annotations

from importlib.metadata import version as _version

from ztfxr import accessor as _accessor
from ztfxr import pipeline as pipeline
from ztfxr import recipes as recipes
from ztfxr import samples as samples
from ztfxr import testing as testing
from ztfxr.dia.decorrelate import decorrelate
from ztfxr.dia.difference import difference
from ztfxr.dia.quality import difference_quality
from ztfxr.dia.solve_kernel import kernel_at, solve_kernel
from ztfxr.dia.zogy import zogy
from ztfxr.errors import (
    AlertError,
    AlignmentError,
    CatalogError,
    ChunkError,
    FrameError,
    HeaderError,
    InputError,
    MatchFailedError,
    MissingDependencyError,
    MissingMaskError,
    MissingWCSError,
    NotFITSError,
    OutsideFrameError,
    PSFError,
    RemoteFileError,
    ShapeError,
    StoreError,
    TruncatedFileError,
    ZtfxrError,
)
from ztfxr.io.alerts import open_alerts, read_fp_hists
from ztfxr.io.cameras import CAMERAS, Camera, Layer
from ztfxr.io.catalogs import read_catalog
from ztfxr.io.frames import open_epochs, open_fits, open_frame, open_frames, open_lco, open_quadrant
from ztfxr.io.psf import read_psf
from ztfxr.io.quadrants import open_ccd, open_exposure
from ztfxr.io.tables import as_catalog, read_lco_catalog
from ztfxr.io.zfps import read_zfps
from ztfxr.ops.background import SkyOptions, background, clean, noise, variance
from ztfxr.ops.catalogs.match import in_footprint, isolated, match, query_catalog, unmatched, with_catalogs
from ztfxr.ops.catalogs.sources import Detection, source_flags, sources
from ztfxr.ops.catalogs.zeropoint import zero_point
from ztfxr.ops.ccddata import from_ccddata, to_ccddata
from ztfxr.ops.cosmic_rays import cosmic_rays
from ztfxr.ops.masks import explain, mask, mask_fractions, mask_planes, source_mask
from ztfxr.ops.mosaic import mosaic, rebin, sky_to_mosaic
from ztfxr.ops.photcal import (
    convert_flux,
    counts_to_flux,
    counts_to_mag,
    flux_to_counts,
    flux_to_mag,
    mag_to_counts,
    mag_to_flux,
)
from ztfxr.ops.positions import resolve_positions
from ztfxr.ops.sky import (
    center,
    contains,
    corners,
    footprint,
    pixel_scale,
    pixel_to_tangent,
    pointing,
    sky_to_tangent,
    tangent_to_pixel,
    tangent_to_sky,
)
from ztfxr.ops.stacks.align import align
from ztfxr.ops.stacks.coadd import build_reference, coadd
from ztfxr.ops.stacks.epochs import measure_epochs, select_epochs
from ztfxr.ops.stacks.register import register
from ztfxr.ops.stacks.stack import stack
from ztfxr.ops.stamps import stamp, stamps
from ztfxr.photometry.aperture import Annulus, aperture_correction, aperture_photometry
from ztfxr.photometry.baseline import baseline_table, correct_baseline, rescale_errors
from ztfxr.photometry.binning import bin_by_night
from ztfxr.photometry.calibrate import apply_scale, calibrate_flux, photometric_scale
from ztfxr.photometry.cuts import cut_counts, quality_cuts
from ztfxr.photometry.forced import ConvolvedVariance, FitOptions, forced_photometry
from ztfxr.photometry.inject import inject, inject_and_measure, injection_report
from ztfxr.photometry.lightcurve import lightcurve
from ztfxr.photometry.magnitudes import magnitudes, total_flux
from ztfxr.photometry.psf import psf_at
from ztfxr.photometry.psf_build import build_psf
from ztfxr.photometry.variability import variability
from ztfxr.photometry.zfps import clean_zfps
from ztfxr.plot import Style, plot_difference, plot_injection, plot_lightcurve, plot_summary, plot_triplet, show
from ztfxr.recipes.pair import difference_photometry
from ztfxr.schema import Plane
from ztfxr.store.fits import to_extensions, to_fits
from ztfxr.store.regions import to_regions
from ztfxr.store.tables import to_dataframe, to_parquet, to_table
from ztfxr.store.zarr import open_zarr, to_zarr
from ztfxr.wcs import assign_wcs, drop_wcs, get_wcs, pixel_to_sky, same_grid, sky_to_pixel

__version__ = _version("ztfxr")

__all__ = [
    "CAMERAS",
    "AlertError",
    "AlignmentError",
    "Annulus",
    "Camera",
    "CatalogError",
    "ChunkError",
    "ConvolvedVariance",
    "Detection",
    "FitOptions",
    "FrameError",
    "HeaderError",
    "InputError",
    "Layer",
    "MatchFailedError",
    "MissingDependencyError",
    "MissingMaskError",
    "MissingWCSError",
    "NotFITSError",
    "OutsideFrameError",
    "PSFError",
    "Plane",
    "RemoteFileError",
    "ShapeError",
    "SkyOptions",
    "StoreError",
    "Style",
    "TruncatedFileError",
    "ZtfxrError",
    "align",
    "aperture_correction",
    "aperture_photometry",
    "apply_scale",
    "as_catalog",
    "assign_wcs",
    "background",
    "baseline_table",
    "bin_by_night",
    "build_psf",
    "build_reference",
    "calibrate_flux",
    "center",
    "clean",
    "clean_zfps",
    "coadd",
    "contains",
    "convert_flux",
    "corners",
    "correct_baseline",
    "cosmic_rays",
    "counts_to_flux",
    "counts_to_mag",
    "cut_counts",
    "decorrelate",
    "difference",
    "difference_photometry",
    "difference_quality",
    "drop_wcs",
    "explain",
    "flux_to_counts",
    "flux_to_mag",
    "footprint",
    "forced_photometry",
    "from_ccddata",
    "get_wcs",
    "in_footprint",
    "inject",
    "inject_and_measure",
    "injection_report",
    "isolated",
    "kernel_at",
    "lightcurve",
    "mag_to_counts",
    "mag_to_flux",
    "magnitudes",
    "mask",
    "mask_fractions",
    "mask_planes",
    "match",
    "measure_epochs",
    "mosaic",
    "noise",
    "open_alerts",
    "open_ccd",
    "open_epochs",
    "open_exposure",
    "open_fits",
    "open_frame",
    "open_frames",
    "open_lco",
    "open_quadrant",
    "open_zarr",
    "photometric_scale",
    "pixel_scale",
    "pixel_to_sky",
    "pixel_to_tangent",
    "plot_difference",
    "plot_injection",
    "plot_lightcurve",
    "plot_summary",
    "plot_triplet",
    "pointing",
    "psf_at",
    "quality_cuts",
    "query_catalog",
    "read_catalog",
    "read_fp_hists",
    "read_lco_catalog",
    "read_psf",
    "read_zfps",
    "rebin",
    "register",
    "rescale_errors",
    "resolve_positions",
    "same_grid",
    "select_epochs",
    "show",
    "sky_to_mosaic",
    "sky_to_pixel",
    "sky_to_tangent",
    "solve_kernel",
    "source_flags",
    "source_mask",
    "sources",
    "stack",
    "stamp",
    "stamps",
    "tangent_to_pixel",
    "tangent_to_sky",
    "to_ccddata",
    "to_dataframe",
    "to_extensions",
    "to_fits",
    "to_parquet",
    "to_regions",
    "to_table",
    "to_zarr",
    "total_flux",
    "unmatched",
    "variability",
    "variance",
    "with_catalogs",
    "zero_point",
    "zogy",
]

del _accessor
