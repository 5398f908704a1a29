"""ZTF images as labelled, lazy xarray objects; difference imaging; light curves.

Every operation is a function here, ``ztfxr.f(obj, ...)``, and a method of the accessor that importing ztfxr
registers, ``obj.ztf.f(...)``. Lazy in, lazy out; what computes says "Computes" in its docstring.
"""

from __future__ import annotations

from importlib.metadata import version as _version

from ztfxr import accessor as _accessor
from ztfxr.analyst import difference_photometry, write_extensions
from ztfxr.dia.decorrelate import decorrelate
from ztfxr.dia.difference import difference
from ztfxr.dia.psf_match import kernel_at, psf_match
from ztfxr.dia.quality import quality
from ztfxr.dia.zogy import zogy
from ztfxr.errors import (
    AlertError,
    AlignmentError,
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
    ShapeError,
    StoreError,
    TruncatedFileError,
    ZtfxrError,
)
from ztfxr.io.alerts import open_alerts
from ztfxr.io.backend import open_epochs, open_quadrant
from ztfxr.io.generic import open_frame, open_frames
from ztfxr.io.lco import open_lco, read_lco_catalog
from ztfxr.ops.align import align
from ztfxr.ops.background import background, clean, variance
from ztfxr.ops.coadd import build_reference, coadd
from ztfxr.ops.epochs import measure_epochs, select_epochs
from ztfxr.ops.masks import mask
from ztfxr.ops.positions import resolve_positions
from ztfxr.ops.register import register
from ztfxr.ops.stack import stack
from ztfxr.ops.stamps import stamp
from ztfxr.photometry.aperture import aperture_photometry
from ztfxr.photometry.lightcurve import calibrate_flux, lightcurve
from ztfxr.photometry.variability import variability
from ztfxr.plot import plot_lightcurve, plot_summary, plot_triplet, report, show
from ztfxr.store.zarr import open_zarr, to_zarr
from ztfxr.wcs import assign_wcs, drop_wcs, get_wcs, pixel_to_sky, sky_to_pixel

__version__ = _version("ztfxr")

__all__ = [
    "AlertError",
    "AlignmentError",
    "ChunkError",
    "FrameError",
    "HeaderError",
    "InputError",
    "MatchFailedError",
    "MissingDependencyError",
    "MissingMaskError",
    "MissingWCSError",
    "NotFITSError",
    "OutsideFrameError",
    "ShapeError",
    "StoreError",
    "TruncatedFileError",
    "ZtfxrError",
    "align",
    "aperture_photometry",
    "assign_wcs",
    "background",
    "build_reference",
    "calibrate_flux",
    "clean",
    "coadd",
    "decorrelate",
    "difference",
    "difference_photometry",
    "drop_wcs",
    "get_wcs",
    "kernel_at",
    "lightcurve",
    "mask",
    "measure_epochs",
    "open_alerts",
    "open_epochs",
    "open_frame",
    "open_frames",
    "open_lco",
    "open_quadrant",
    "open_zarr",
    "pixel_to_sky",
    "plot_lightcurve",
    "plot_summary",
    "plot_triplet",
    "psf_match",
    "quality",
    "read_lco_catalog",
    "register",
    "report",
    "resolve_positions",
    "select_epochs",
    "show",
    "sky_to_pixel",
    "stack",
    "stamp",
    "to_zarr",
    "variability",
    "variance",
    "write_extensions",
    "zogy",
]

del _accessor
