"""What each variable, coordinate and bit plane is: one registry that annotates, validates and documents."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from ztfxr.errors import InputError

__all__ = [
    "CORE_DIMS",
    "CUT_PLANES",
    "EFFECTIVE_WAVELENGTHS",
    "EXTRACTION_PLANES",
    "FILTERS",
    "FIT_PLANES",
    "MASK_PLANES",
    "RECOMMENDED_PLANES",
    "SOURCE_PLANES",
    "SPECS",
    "STATUS_PLANES",
    "Plane",
    "Spec",
    "annotate",
    "annotate_all",
    "fill_value",
    "flag_attrs",
    "planes_to_bits",
]


CORE_DIMS: tuple[str, ...] = (
    *("source", "star", "axis", "radius", "equation", "mode", "plane", "kterm", "term", "psf_term", "psf_coterm"),
    *("y", "x", "ky", "kx", "phi_y", "phi_x", "psf_y", "psf_x", "psf_dy", "psf_dx", "lag_y", "lag_x"),
    *("block_y", "block_x", "dy", "dx"),
)
"""Dimensions of the arrays of one image, in the order in which array code takes them; others are looped over."""


@dataclass(frozen=True)
class Spec:
    """One variable: its name, dimensions, dtype, unit and meaning."""

    name: str
    dims: tuple[str, ...]
    dtype: str
    units: str
    meaning: str
    fill: Any = None
    """What stands where there is no value, if not NaN, 0 or, in masks, True."""

    @property
    def core_dims(self) -> tuple[str, ...]:
        """The dimensions that belong to one image; a stack of images adds its own in front."""
        return tuple(d for d in self.dims if d in CORE_DIMS)

    @property
    def attrs(self) -> dict[str, Any]:
        """The attributes that the variable carries where pixels are in DN."""
        return self.attrs_in("DN")

    def attrs_in(self, unit: str) -> dict[str, Any]:
        """The attributes that the variable carries where pixels are in `unit`."""
        attrs: dict[str, Any] = {"long_name": self.meaning}
        if self.units:
            squared = f"{unit}2" if unit.isalpha() else f"({unit})2"
            attrs["units"] = {"DN": unit, "DN2": squared}.get(self.units, self.units)
        return attrs


@dataclass(frozen=True)
class Plane:
    """One bit plane of an integer flag image."""

    name: str
    bit: int
    meaning: str
    until_mjd: float = math.inf
    """The last MJD of an exposure at which the plane means what it says."""

    @property
    def value(self) -> int:
        """The integer value of the plane, ``2**bit``."""
        return 1 << self.bit


MASK_PLANES: tuple[Plane, ...] = (
    Plane("tracks", 0, "aircraft or satellite track"),
    Plane("sexsources", 1, "SExtractor source: not a defect"),
    Plane("lowresponsivity", 2, "low responsivity in the flat field"),
    Plane("highresponsivity", 3, "high responsivity in the flat field"),
    Plane("noisy", 4, "noisy pixel"),
    Plane("ghosts", 5, "ghost of a bright source; absent from masks of early 2018"),
    Plane(
        "spillage",
        6,
        "possible ghost of charge spillage; meaningful only up to OBSMJD 58779, absent from masks of early 2018",
        until_mjd=58779.0,
    ),
    Plane("spikes", 7, "spike in a pixel, possibly a cosmic ray"),
    Plane("saturated", 8, "saturated pixel"),
    Plane("dead", 9, "dead or otherwise unusable pixel"),
    Plane("nan", 10, "not a number"),
    Plane("psfsources", 11, "PSF-fit source: not a defect"),
    Plane("brightstarhalo", 12, "halo of a bright star; absent from masks of early 2018"),
    Plane("outside", 15, "outside the frame: set by ztfxr where a stamp is padded, never by IPAC"),
)

RECOMMENDED_PLANES: tuple[str, ...] = tuple(p.name for p in MASK_PLANES if p.name not in ("sexsources", "psfsources"))
"""IPAC's template 6141, every plane but the two that mark detected sources, and ztfxr's own `outside`."""

STATUS_PLANES: tuple[Plane, ...] = (
    Plane("unreadable", 0, "the frame could not be read"),
    Plane("not_fits", 1, "the file is not FITS"),
    Plane("truncated", 2, "the file ends before its pixels do"),
    Plane("missing_mask", 3, "no mask image beside the science image"),
    Plane("bad_header", 4, "a header card is missing or has the wrong type"),
    Plane("wrong_shape", 5, "the frame has another shape than its companions"),
    Plane("no_wcs", 6, "no celestial WCS"),
    Plane("not_aligned", 7, "the frame is on another pixel grid than the reference"),
    Plane("too_few_pixels", 8, "too few good pixels to solve the kernel"),
    Plane("solve_failed", 9, "the normal equations have no stable solution"),
    Plane("outside", 10, "the position is outside the frame"),
    Plane("edge", 11, "the aperture reaches over the edge of the frame"),
    Plane("masked", 12, "bad pixels inside the aperture"),
    Plane("no_good_pixels", 13, "no good pixel inside the aperture, or too many bad ones"),
    Plane("not_registered", 14, "the frame could not be registered, or not well enough"),
    Plane("not_run", 15, "the run has not come to this epoch yet"),
)

SOURCE_PLANES: tuple[Plane, ...] = (
    Plane("deblended", 0, "parted from a neighbor that it was detected with"),
    Plane("truncated", 1, "reaches over the edge of the image"),
    Plane("deblend_overflow", 2, "deblending ran out of memory"),
    Plane("singular", 3, "its pixels lie on a line, or nearly so"),
    Plane("aperture_truncated", 4, "the Kron aperture reaches over the edge of the image"),
    Plane("aperture_masked", 5, "bad pixels inside the Kron aperture"),
    Plane("aperture_all_masked", 6, "no good pixel inside the Kron aperture"),
    Plane("kron_nonpositive", 7, "no positive flux to take a Kron radius from; it is the smallest allowed"),
    Plane("kron_circular", 8, "the Kron ellipse was too small; the aperture is the smallest circle"),
    Plane("window_failed", 9, "the windowed centroid strayed; it is the isophotal one"),
    Plane("empty", 15, "no source: the row fills up the catalog"),
)
"""What happened to a detected source; bits 0 to 7 are sep's."""

EXTRACTION_PLANES: tuple[Plane, ...] = (
    Plane(
        "pixel_buffer_grown", 0, "more pixels over the threshold than sep's buffer holds; detected with a larger one"
    ),
    Plane("deblend_limit_grown", 1, "more sub-objects than sep's limit; detected with a higher one"),
    Plane("threshold_raised", 2, "too crowded at the threshold asked for; detected at threshold_factor times it"),
    Plane("no_good_pixels", 3, "no good pixel in the image"),
)
"""What happened when an image was searched for sources."""

FIT_PLANES: tuple[Plane, ...] = (
    Plane("saturated", 0, "saturated pixels in the fit"),
    Plane("blended", 1, "solved together with neighbors"),
)

CUT_PLANES: tuple[Plane, ...] = (
    Plane("no_flux", 0, "no flux, or no positive error"),
    Plane("status", 1, "the status of the measurement or of its epoch"),
    Plane("procstatus", 2, "the processing status of the forced photometry service"),
    Plane("infobits", 3, "bad by the processing summary of the science image"),
    Plane("sky_noise", 4, "too noisy a sky"),
    Plane("seeing", 5, "too bad a seeing"),
    Plane("magzprms", 6, "too much scatter about the zero point"),
    Plane("calibrators", 7, "too few stars behind the zero point"),
    Plane("fit_chi2", 8, "too bad a PSF fit"),
    Plane("no_baseline", 9, "too few epochs without the transient to find the level of its group"),
)
"""Why a measurement was cut from a light curve."""

_YX = ("y", "x")
_TYX = ("time", "y", "x")
_TS = ("time", "source")
_S = ("source",)

_VARIABLES: tuple[Spec, ...] = (
    Spec("sci", _YX, "float32", "DN", "science image"),
    Spec("flags", _YX, "uint16", "", "mask bit planes"),
    Spec("variance", _YX, "float32", "DN2", "variance of the noise per pixel"),
    Spec("background", _YX, "float32", "DN", "sky background"),
    Spec("background_rms", _YX, "float32", "DN", "rms of the sky background"),
    Spec("mask", _YX, "bool", "", "True where the pixel is bad"),
    Spec("source_mask", _YX, "bool", "", "True where the pixel lies in a source"),
    Spec("mask_fraction", ("plane",), "float64", "", "fraction of pixels in which the plane is set"),
    Spec("planes", (), "str", "", "names of the planes that are set, separated by spaces"),
    Spec("reference", _TYX, "float32", "DN", "reference image"),
    Spec("reference_variance", _TYX, "float32", "DN2", "variance of the reference image"),
    Spec("ipac_difference", _TYX, "float32", "DN", "difference image made by IPAC"),
    Spec("aligned", _YX, "float32", "DN", "science image on the reference's grid"),
    Spec("model", _YX, "float32", "DN", "reference as the science image should see it"),
    Spec("difference", _TYX, "float32", "DN", "science minus matched reference, on the science flux scale"),
    Spec("difference_variance", _TYX, "float32", "DN2", "variance of the difference image"),
    Spec("kernel", ("time", "ky", "kx"), "float64", "", "PSF-matching kernel that acts on the reference"),
    Spec("kernel_err", ("time", "ky", "kx"), "float64", "", "standard error of each kernel pixel"),
    Spec("kernel_coeff", ("time", "kterm", "ky", "kx"), "float64", "", "kernel coefficients of the spatial terms"),
    Spec("kernel_order", ("time",), "int64", "", "spatial order of the kernel"),
    Spec(
        "kernel_sum",
        ("time",),
        "float64",
        "",
        "sum of the kernel: flux of the image left alone over that of the one convolved",
    ),
    Spec("kernel_sum_err", ("time",), "float64", "", "standard error of the kernel sum"),
    Spec("background_coeff", ("time", "term"), "float64", "DN", "polynomial coefficients of the background"),
    Spec("background_coeff_err", ("time", "term"), "float64", "DN", "standard error of the background coefficients"),
    Spec(
        "model_error",
        ("time", "mode", "y", "x"),
        "float32",
        "DN",
        "error of what was subtracted, as independent images of one standard deviation each",
    ),
    Spec("chi2", ("time",), "float64", "", "reduced chi-square of the kernel solution over the pixels used"),
    Spec("noise_ratio", ("time",), "float64", "", "scatter of the difference over its stated noise"),
    Spec("lost_fraction", ("time",), "float64", "", "fraction of good science pixels without a difference", 1.0),
    Spec("n_cutouts", ("time",), "int64", "", "cut-outs that were offered to the kernel solution"),
    Spec("n_rejected", ("time",), "int64", "", "cut-outs that were rejected"),
    Spec(
        "science_convolved",
        ("time",),
        "bool",
        "",
        "True where the science image was convolved, not the reference",
        False,
    ),
    Spec("n_pixels", ("time",), "int64", "", "pixels used in the kernel solution"),
    Spec("condition", ("time",), "float64", "", "condition number of the scaled normal matrix"),
    Spec("n_frames", _YX, "int32", "", "epochs that a pixel of a coadd rests on"),
    Spec("sky", ("time",), "float64", "DN", "level of the sky"),
    Spec("sky_noise", ("time",), "float64", "DN", "noise of a sky pixel"),
    Spec("fwhm", ("time",), "float64", "pixel", "FWHM of the PSF, measured on stars"),
    Spec("coverage", ("time",), "float64", "", "fraction of good pixels"),
    Spec("star_position", ("star", "axis"), "float64", "pixel", "row and column of stars that fix flux scales"),
    Spec("star_flux", ("time", "star"), "float64", "DN", "flux of those stars"),
    Spec("star_flux_err", ("time", "star"), "float64", "DN", "standard error of their flux"),
    Spec("flux_scale", ("time",), "float64", "", "flux in this epoch over flux in the anchor epoch"),
    Spec("weight", ("time",), "float64", "", "weight of an epoch in a coadd"),
    Spec("contribution", ("time", "plane", "y", "x"), "float32", "", "what an epoch adds to a coadd"),
    Spec("score", ("time",), "float64", "", "signal-to-noise ratio of a faint star, relative to the best epoch"),
    Spec("selected", ("time",), "bool", "", "True where the epoch was selected"),
    Spec("chi2_map", ("time", "block_y", "block_x"), "float64", "", "mean squared difference over its variance"),
    Spec("chi2_high", ("time",), "float64", "", "90th percentile of chi2_map"),
    Spec("scale_deviation", ("time",), "float64", "", "relative deviation of the kernel sum from the stack's median"),
    Spec("scale_scatter", (), "float64", "", "robust relative scatter of the kernel sum over the stack"),
    Spec("good", ("time",), "bool", "", "True where the difference image passes every limit of quality"),
    Spec("zogy_difference", _TYX, "float32", "DN", "proper difference image D / F_D, on the science flux scale"),
    Spec("zogy_variance", _TYX, "float32", "DN2", "variance of the proper difference image"),
    Spec("zogy_score", _TYX, "float32", "", "significance of a point source at each pixel: S_corr of ZOGY"),
    Spec("zogy_flux", _TYX, "float32", "DN", "flux of a point source at each pixel: S / F_S of ZOGY"),
    Spec("zogy_flux_err", _TYX, "float32", "DN", "standard error of the flux of a point source at each pixel"),
    Spec("psf_difference", ("time", "psf_y", "psf_x"), "float64", "", "PSF of the difference image"),
    Spec("decorrelation_kernel", ("time", "phi_y", "phi_x"), "float64", "", "kernel that whitened the difference"),
    Spec(
        "psf_coeff",
        ("time", "psf_term", "psf_dy", "psf_dx"),
        "float32",
        "",
        "light of a point source that a pixel at this offset collects, coefficients of the spatial terms",
    ),
    Spec(
        "psf_flux_cov",
        ("time", "psf_term", "psf_coterm"),
        "float64",
        "",
        "covariance, over the spatial terms, of the relative error of fluxes measured with the PSF",
    ),
    Spec("psf", ("source", "psf_y", "psf_x"), "float64", "", "fraction of a point source's light in each pixel"),
    Spec("psf_order", ("time",), "int64", "", "spatial order of the PSF"),
    Spec("psf_chi2", ("time",), "float64", "", "median reduced chi-square of the stars that the PSF was built from"),
    Spec("n_stars", ("time",), "int64", "", "stars that the result rests on"),
    Spec("n_stars_rejected", ("time",), "int64", "", "stars that were unlike the others"),
    Spec("zogy_scale", ("time",), "float64", "", "flux scale of the science image over the reference"),
    Spec("zogy_scale_err", ("time",), "float64", "", "standard error of that flux scale"),
    Spec("shift_y", ("time",), "float64", "pixel", "position in y in the science image less that in the reference"),
    Spec("shift_x", ("time",), "float64", "pixel", "position in x in the science image less that in the reference"),
    Spec("astrometric_error", ("time",), "float64", "pixel", "scatter of star positions between images, per axis"),
    Spec("flux", _TS, "float64", "DN", "flux"),
    Spec("flux_err", _TS, "float64", "DN", "standard error of the flux"),
    Spec("area", _TS, "float64", "pixel2", "good area inside the aperture"),
    Spec("masked_fraction", _TS, "float64", "", "fraction of the aperture, or of the PSF's light, bad or outside"),
    Spec("local_background", _TS, "float64", "DN", "background under the source"),
    Spec("fit_chi2", _TS, "float64", "", "reduced chi-square of the PSF fit"),
    Spec("fit_pixels", _TS, "int64", "", "good pixels in the PSF fit"),
    Spec("fit_flags", _TS, "uint16", "", "what the PSF fit met with; none of it makes the flux wrong by itself"),
    Spec("model_err", _TS, "float64", "DN", "error of the flux that comes from that of kernel and background"),
    Spec("psf_err", _TS, "float64", "", "relative error of the flux that comes from that of the PSF"),
    Spec("flux_err_bound", _TS, "float64", "DN", "least standard error that an unbiased flux can have"),
    Spec("position_equations", ("time", "source", "equation"), "float64", "", "gradient and curvature by position"),
    Spec("x_refined", ("source",), "float64", "pixel", "x position, refined over all epochs"),
    Spec("y_refined", ("source",), "float64", "pixel", "y position, refined over all epochs"),
    Spec("status", _TS, "uint32", "", "what happened to the measurement; 0 is good"),
    Spec("surface_brightness", _TS, "float64", "DN", "light of the image around the place, over its median"),
    Spec("flux_injected", _TS, "float64", "DN", "flux of the artificial star"),
    Spec("mag_injected", _S, "float64", "mag", "AB magnitude of the artificial star"),
    Spec("cuts", _TS, "uint16", "", "why the measurement was cut; 0 is kept"),
    Spec("baseline", _TS, "float64", "", "level of the group that was taken off the flux, in its unit"),
    Spec("baseline_err", _TS, "float64", "", "standard error of that level, common to the group"),
    Spec("error_factor", _TS, "float64", "", "factor by which the errors were raised"),
    Spec("n_baseline", _TS, "int64", "", "epochs that the level rests on"),
    Spec("reference_ujy", _TS, "float64", "uJy", "flux density of the source in the reference"),
    Spec("reference_ujy_err", _TS, "float64", "uJy", "its standard error, common to all epochs of a reference"),
    Spec("total_ujy", _TS, "float64", "uJy", "flux density of the source: difference plus reference"),
    Spec("total_ujy_err", _TS, "float64", "uJy", "standard error of the total flux density"),
    Spec("mag_limit", _TS, "float64", "mag", "AB magnitude of the upper limit where nothing was detected"),
    Spec("detected", _TS, "bool", "", "True where the flux stands above the threshold"),
    Spec("radius", ("radius",), "float64", "pixel", "radius of the aperture"),
    Spec("aperture_correction", ("time", "radius"), "float64", "", "flux of a star over that inside the aperture"),
    Spec("aperture_correction_err", ("time", "radius"), "float64", "", "standard error of the aperture correction"),
    Spec("aperture_correction_scatter", ("time", "radius"), "float64", "", "scatter of the stars about it"),
    Spec("local_background_err", _TS, "float64", "DN", "standard error of the local background"),
    Spec("scale", ("time",), "float64", "", "flux in this epoch over the mean flux, of constant stars"),
    Spec("scale_err", ("time",), "float64", "", "standard error of the photometric scale"),
    Spec("chi2_night", _TS, "float64", "", "reduced chi-square of the measurements about the mean of their bin"),
    Spec("n_binned", _TS, "int64", "", "measurements in the bin"),
    Spec("epoch_status", ("time",), "uint32", "", "what happened to the epoch; 0 is good"),
    Spec("registration_rms", ("time",), "float64", "pixel", "rms of star positions about the fitted transform"),
    Spec("n_matched", ("time",), "int64", "", "stars that the transform was fitted to"),
    Spec("coefficients", ("axis", "term"), "float64", "pixel", "position on the image, a polynomial of the target's"),
    Spec("flux_ujy", _TS, "float64", "uJy", "flux density"),
    Spec("flux_ujy_err", _TS, "float64", "uJy", "standard error of the flux density"),
    Spec("flux_lambda", _TS, "float64", "erg/s/cm2/A", "flux density per wavelength"),
    Spec("flux_lambda_err", _TS, "float64", "erg/s/cm2/A", "standard error of the flux density per wavelength"),
    Spec("counts", _TS, "float64", "DN", "counts"),
    Spec("counts_err", _TS, "float64", "DN", "standard error of the counts"),
    Spec("mag", _TS, "float64", "mag", "AB magnitude"),
    Spec("mag_err", _TS, "float64", "mag", "standard error of the magnitude"),
    Spec("ipac_flux", _TS, "float64", "DN", "flux in the same aperture on IPAC's difference"),
    Spec("scatter_over_ipac", ("time",), "float64", "", "scatter around the transient over that of IPAC's difference"),
    Spec("host_flux", _TS, "float64", "DN", "light of the reference above its sky in the aperture"),
    Spec("host_flux_psf", _TS, "float64", "DN", "light of the reference above its sky, weighted as in the PSF fit"),
    Spec("host_left", ("time",), "float64", "", "fraction of the host that IPAC's difference still holds"),
    Spec("flux_psf", _TS, "float64", "DN", "flux of the PSF fit"),
    Spec("flux_psf_err", _TS, "float64", "DN", "standard error of the flux of the PSF fit"),
    Spec("mag_psf", _TS, "float64", "mag", "AB magnitude of the PSF fit"),
    Spec("mag_psf_err", _TS, "float64", "mag", "standard error of the magnitude of the PSF fit"),
    Spec("profile_chi2", ("time",), "float64", "", "reduced chi-square of the transient's own profile"),
    Spec("deviation_ap", _TS, "float64", "mag", "mag less the packet's magap"),
    Spec("deviation_psf", _TS, "float64", "mag", "mag_psf less the packet's magpsf"),
    Spec("deviation_ipac", _TS, "float64", "mag", "magnitude by ipac_flux less the packet's magap"),
    Spec("deviation_host", _TS, "float64", "mag", "part of deviation_ap that the host left by IPAC predicts"),
    Spec("deviation_host_psf", _TS, "float64", "mag", "part of deviation_psf that the host left by IPAC predicts"),
    Spec("x_centroid", _S, "float64", "pixel", "centroid along x, absolute 0-based FITS pixels"),
    Spec("y_centroid", _S, "float64", "pixel", "centroid along y, absolute 0-based FITS pixels"),
    Spec("x_centroid_win", _S, "float64", "pixel", "Gaussian-windowed centroid along x, absolute 0-based FITS pixels"),
    Spec("y_centroid_win", _S, "float64", "pixel", "Gaussian-windowed centroid along y, absolute 0-based FITS pixels"),
    Spec("semimajor_axis", _S, "float64", "pixel", "1-sigma dispersion of the light along the major axis"),
    Spec("semiminor_axis", _S, "float64", "pixel", "1-sigma dispersion of the light along the minor axis"),
    Spec("orientation", _S, "float64", "deg", "angle of the major axis, from +x towards +y"),
    Spec("segment_area", _S, "float64", "pixel2", "pixels that belong to the source"),
    Spec("peak", _S, "float64", "DN", "highest pixel"),
    Spec("kron_flux", _S, "float64", "DN", "flux in the Kron aperture"),
    Spec("kron_flux_err", _S, "float64", "DN", "standard error of the flux in the Kron aperture"),
    Spec("kron_radius", _S, "float64", "", "Kron radius before scaling, in units of the 1-sigma axes"),
    Spec("half_light_radius", _S, "float64", "pixel", "radius of the circle with half of the Kron flux"),
    Spec("snr", _S, "float64", "", "signal-to-noise ratio of the Kron flux"),
    Spec("sep_flags", _S, "uint16", "", "what happened to the source; 0 is good"),
    Spec("segmentation", _YX, "int32", "", "row of the source that a pixel belongs to, counted from 1; 0 is none"),
    Spec("n_sources", (), "int64", "", "sources that were detected"),
    Spec("angsep_arcsec", ("match",), "float64", "arcsec", "separation on the sky"),
    Spec("isolated", _S, "bool", "", "True without a neighbor"),
    Spec("unmatched", _S, "bool", "", "True without a partner"),
    Spec("extraction_status", (), "uint16", "", "what happened to the extraction; 0 is good"),
    Spec("threshold_factor", (), "float64", "", "factor by which the threshold that was asked for had to be raised"),
    Spec("magzp_err", (), "float64", "mag", "standard error of the zero point"),
    Spec("color_term", (), "float64", "", "magnitudes to add per magnitude of color"),
    Spec("color_term_err", (), "float64", "", "standard error of the color term"),
    Spec("intrinsic_scatter", (), "float64", "mag", "scatter about the fit beyond the stated errors"),
    Spec("n_used", (), "int64", "", "stars that the fit rests on"),
)

_COORDINATES: tuple[Spec, ...] = (
    Spec("x", ("x",), "int64", "pixel", "0-based FITS column in the full frame"),
    Spec("y", ("y",), "int64", "pixel", "0-based FITS row in the full frame"),
    Spec("psf_dy", ("psf_dy",), "float64", "pixel", "offset in y from the source"),
    Spec("psf_dx", ("psf_dx",), "float64", "pixel", "offset in x from the source"),
    Spec("psf_origin", ("axis",), "float64", "pixel", "y and x where the PSF's polynomial coordinates are zero"),
    Spec("psf_scale", ("axis",), "float64", "pixel", "what is one in the PSF's polynomial coordinates, in y and x"),
    Spec("ra", _YX, "float64", "deg", "right ascension (ICRS)"),
    Spec("dec", _YX, "float64", "deg", "declination (ICRS)"),
    Spec("time", (), "datetime64[ns]", "", "middle of the exposure (UTC)"),
    Spec("mjd", (), "float64", "d", "middle of the exposure (MJD, UTC)"),
    Spec("filter", (), "str", "", "ZTF filter: ztfg, ztfr or ztfi"),
    Spec("exptime", (), "float64", "s", "exposure time"),
    Spec("field", (), "int64", "", "ZTF field"),
    Spec("ccdid", (), "int64", "", "CCD, 1 to 16"),
    Spec("qid", (), "int64", "", "quadrant of the CCD, 1 to 4"),
    Spec("rcid", (), "int64", "", "readout channel, 4 (ccdid - 1) + qid - 1"),
    Spec("filefracday", (), "int64", "", "night and fraction of day that name the exposure"),
    Spec("magzp", (), "float64", "mag", "AB magnitude of 1 DN"),
    Spec("magzprms", (), "float64", "mag", "scatter of the zero point"),
    Spec("gain", (), "float64", "electron/DN", "gain"),
    Spec("readnoise", (), "float64", "electron", "read noise"),
    Spec("saturate", (), "float64", "DN", "saturation level"),
    Spec("seeing", (), "float64", "pixel", "FWHM of the PSF"),
)

SPECS: Mapping[str, Spec] = {spec.name: spec for spec in (*_VARIABLES, *_COORDINATES)}
"""Every variable and coordinate by name."""

FILTERS: Mapping[int, str] = {1: "ztfg", 2: "ztfr", 3: "ztfi"}
"""ZTF filter names by FILTERID (`fid`)."""

EFFECTIVE_WAVELENGTHS: Mapping[str, float] = {"ztfg": 4813.97, "ztfr": 6421.81, "ztfi": 7883.06}
"""Effective wavelength of each filter in Angstrom."""


def flag_attrs(planes: Iterable[Plane]) -> dict[str, Any]:
    """CF attributes that make an integer flag variable describe itself."""
    planes = tuple(planes)
    return {
        "flag_masks": [p.value for p in planes],
        "flag_meanings": " ".join(p.name for p in planes),
    }


def planes_to_bits(names: Iterable[str], planes: Iterable[Plane] = MASK_PLANES) -> int:
    """The integer with the named planes set; `InputError` on an unknown name."""
    values = {p.name: p.value for p in planes}
    bits = 0
    for name in names:
        if name not in values:
            raise InputError(f"unknown plane {name!r}; the planes are {', '.join(values)}")
        bits |= values[name]
    return bits


_FLAG_PLANES = {
    "fit_flags": FIT_PLANES,
    "flags": MASK_PLANES,
    "status": STATUS_PLANES,
    "epoch_status": STATUS_PLANES,
    "sep_flags": SOURCE_PLANES,
    "extraction_status": EXTRACTION_PLANES,
    "cuts": CUT_PLANES,
}


def annotate(array: xr.DataArray, name: str | None = None, *, unit: str = "DN", **extra: Any) -> xr.DataArray:
    """`array` with the name and attributes that the schema gives to `name`; pixels untouched, lazy.

    `unit` is that of the image which was measured, for quantities that the schema has in DN.
    """
    spec = SPECS[str(name or array.name)]
    flags = flag_attrs(_FLAG_PLANES[spec.name]) if spec.name in _FLAG_PLANES else {}
    out = array.copy(deep=False).rename(spec.name)
    out.attrs = {**spec.attrs_in(unit), **flags, **extra}
    return out


def annotate_all(dataset: xr.Dataset, *, unit: str = "DN") -> xr.Dataset:
    """`dataset` with every variable and coordinate that the schema knows annotated; lazy. `unit` as in `annotate`."""
    out = dataset.copy()
    for name in out.variables:
        spec = SPECS.get(str(name))
        if spec is None:
            continue
        flags = flag_attrs(_FLAG_PLANES[spec.name]) if spec.name in _FLAG_PLANES else {}
        variable = out.variables[name]
        stated = _stated(variable.attrs) if name in out.coords else {}
        variable.attrs = {**spec.attrs_in(unit), **flags, **stated}
    return out


def _stated(attrs: Mapping[Any, Any]) -> dict[str, Any]:
    """What a file states of a coordinate better than the schema can: SEEING comes in pixels or arcsec."""
    return {"units": attrs["units"]} if "units" in attrs else {}


def fill_value(name: str, dtype: np.dtype[Any]) -> Any:
    """What stands where there is no pixel or no answer: the plane `outside` in `flags`, True in masks, NaN, else 0."""
    if name == "flags":
        return planes_to_bits(["outside"])
    spec = SPECS.get(name)
    if spec is not None and spec.fill is not None:
        return spec.fill
    if dtype.kind == "b":
        return True
    return np.nan if dtype.kind == "f" else 0
