"""What `ztfxr` holds and where it comes from: for type checkers, and for the loader that imports names on first use."""

from . import (
    archive as archive,
    dia as dia,
    errors as errors,
    io as io,
    ops as ops,
    photometry as photometry,
    pipeline as pipeline,
    plot as plot,
    recipes as recipes,
    samples as samples,
    schema as schema,
    store as store,
    testing as testing,
    wcs as wcs,
)
from .dia.decorrelate import decorrelate as decorrelate
from .dia.difference import difference as difference
from .dia.quality import difference_quality as difference_quality
from .dia.solve_kernel import kernel_at as kernel_at, solve_kernel as solve_kernel
from .dia.zogy import zogy as zogy
from .errors import (
    AlertError as AlertError,
    AlignmentError as AlignmentError,
    ArchiveError as ArchiveError,
    CatalogError as CatalogError,
    ChunkError as ChunkError,
    FrameError as FrameError,
    HeaderError as HeaderError,
    InputError as InputError,
    MatchFailedError as MatchFailedError,
    MissingDependencyError as MissingDependencyError,
    MissingMaskError as MissingMaskError,
    MissingWCSError as MissingWCSError,
    NotFITSError as NotFITSError,
    OutsideFrameError as OutsideFrameError,
    PSFError as PSFError,
    RemoteFileError as RemoteFileError,
    ShapeError as ShapeError,
    StoreError as StoreError,
    TruncatedFileError as TruncatedFileError,
    ZtfxrError as ZtfxrError,
)
from .io.alerts import open_alerts as open_alerts, read_fp_hists as read_fp_hists
from .io.cameras import CAMERAS as CAMERAS, Camera as Camera, Layer as Layer
from .io.catalogs import read_catalog as read_catalog
from .io.frames import (
    open_epochs as open_epochs,
    open_fits as open_fits,
    open_frame as open_frame,
    open_frames as open_frames,
    open_lco as open_lco,
    open_quadrant as open_quadrant,
)
from .io.psf import read_psf as read_psf
from .io.quadrants import open_ccd as open_ccd, open_exposure as open_exposure
from .io.tables import as_catalog as as_catalog, read_lco_catalog as read_lco_catalog
from .io.zfps import read_zfps as read_zfps
from .ops.background import (
    SkyOptions as SkyOptions,
    background as background,
    clean as clean,
    noise as noise,
    variance as variance,
)
from .ops.catalogs.match import (
    in_footprint as in_footprint,
    isolated as isolated,
    match as match,
    query_catalog as query_catalog,
    unmatched as unmatched,
    with_catalogs as with_catalogs,
)
from .ops.catalogs.sources import Detection as Detection, source_flags as source_flags, sources as sources
from .ops.catalogs.zeropoint import zero_point as zero_point
from .ops.ccddata import from_ccddata as from_ccddata, to_ccddata as to_ccddata
from .ops.cosmic_rays import cosmic_rays as cosmic_rays
from .ops.masks import (
    explain as explain,
    mask as mask,
    mask_fractions as mask_fractions,
    mask_planes as mask_planes,
    source_mask as source_mask,
)
from .ops.mosaic import mosaic as mosaic, rebin as rebin, sky_to_mosaic as sky_to_mosaic
from .ops.photcal import (
    convert_flux as convert_flux,
    counts_to_flux as counts_to_flux,
    counts_to_mag as counts_to_mag,
    flux_to_counts as flux_to_counts,
    flux_to_mag as flux_to_mag,
    mag_to_counts as mag_to_counts,
    mag_to_flux as mag_to_flux,
)
from .ops.positions import resolve_positions as resolve_positions
from .ops.sky import (
    center as center,
    contains as contains,
    corners as corners,
    footprint as footprint,
    pixel_scale as pixel_scale,
    pixel_to_tangent as pixel_to_tangent,
    pointing as pointing,
    sky_to_tangent as sky_to_tangent,
    tangent_to_pixel as tangent_to_pixel,
    tangent_to_sky as tangent_to_sky,
)
from .ops.stacks.align import align as align
from .ops.stacks.coadd import build_reference as build_reference, coadd as coadd
from .ops.stacks.epochs import measure_epochs as measure_epochs, select_epochs as select_epochs
from .ops.stacks.register import register as register
from .ops.stacks.stack import stack as stack
from .ops.stamps import stamp as stamp, stamps as stamps
from .photometry.aperture import (
    Annulus as Annulus,
    aperture_correction as aperture_correction,
    aperture_photometry as aperture_photometry,
)
from .photometry.baseline import (
    baseline_table as baseline_table,
    correct_baseline as correct_baseline,
    rescale_errors as rescale_errors,
)
from .photometry.binning import bin_by_night as bin_by_night
from .photometry.calibrate import (
    apply_scale as apply_scale,
    calibrate_flux as calibrate_flux,
    photometric_scale as photometric_scale,
)
from .photometry.cuts import cut_counts as cut_counts, quality_cuts as quality_cuts
from .photometry.forced import (
    ConvolvedVariance as ConvolvedVariance,
    FitOptions as FitOptions,
    forced_photometry as forced_photometry,
)
from .photometry.inject import (
    inject as inject,
    inject_and_measure as inject_and_measure,
    injection_report as injection_report,
)
from .photometry.lightcurve import lightcurve as lightcurve
from .photometry.magnitudes import magnitudes as magnitudes, total_flux as total_flux
from .photometry.psf import psf_at as psf_at
from .photometry.psf_build import build_psf as build_psf
from .photometry.variability import variability as variability
from .photometry.zfps import clean_zfps as clean_zfps
from .plot import (
    Style as Style,
    plot_difference as plot_difference,
    plot_injection as plot_injection,
    plot_lightcurve as plot_lightcurve,
    plot_summary as plot_summary,
    plot_triplet as plot_triplet,
    show as show,
)
from .recipes.pair import difference_photometry as difference_photometry
from .schema import Plane as Plane
from .store.fits import to_extensions as to_extensions, to_fits as to_fits
from .store.regions import to_regions as to_regions
from .store.tables import to_dataframe as to_dataframe, to_parquet as to_parquet, to_table as to_table
from .store.zarr import open_zarr as open_zarr, to_zarr as to_zarr
from .viewer import Viewer as Viewer, view as view
from .wcs import (
    assign_wcs as assign_wcs,
    drop_wcs as drop_wcs,
    get_wcs as get_wcs,
    pixel_to_sky as pixel_to_sky,
    same_grid as same_grid,
    sky_to_pixel as sky_to_pixel,
)

__version__: str
