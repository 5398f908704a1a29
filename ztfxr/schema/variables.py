"""Every variable and coordinate, in sections: its dimensions, dtype, unit and meaning."""

from __future__ import annotations

from collections.abc import Mapping

from ztfxr.schema.specs import Spec

__all__ = ["EFFECTIVE_WAVELENGTHS", "EPOCH_QUALITY", "EXPOSURE", "FILTERS", "REGISTRATION", "SECTIONS", "SPECS"]

# An image, or stamps of it.
_YX = "time? y x | time? source dy dx"
_TS = "time? source"


def _of_the_verdict(name: str, units: str, meaning: str) -> Spec:
    """A number that says whether an epoch should be believed."""
    return Spec(name, "time?", "float64", units, meaning, epoch_quality=True)


_IMAGES: tuple[Spec, ...] = (
    Spec("sci", _YX, "float32", "DN", "science image"),
    Spec("flags", _YX, "uint16", "", "mask bit planes"),
    Spec("variance", _YX, "float32", "DN2", "variance of the noise per pixel"),
    Spec("mask", _YX, "bool", "", "True where the pixel is bad"),
    Spec("background", _YX, "float32", "DN", "sky background"),
    Spec("background_rms", _YX, "float32", "DN", "rms of the sky background"),
    Spec("sky_noise", "time?", "float64", "DN", "noise of a sky pixel"),
    Spec("source_mask", _YX, "bool", "", "True where the pixel lies in a source"),
    Spec("mask_fraction", "time? plane", "float64", "", "fraction of pixels in which the plane is set"),
    Spec("planes", "time?", "str", "", "names of the planes that are set, separated by spaces"),
    Spec("reference", _YX, "float32", "DN", "reference image"),
    Spec("reference_variance", _YX, "float32", "DN2", "variance of the reference image"),
    Spec("aligned", _YX, "float32", "DN", "science image on the reference's grid"),
    Spec("cosmic_ray", _YX, "bool", "", "True where a pixel is sharper than the PSF allows", fill=False),
    Spec(
        "ipac_difference",
        _YX,
        "float32",
        "DN",
        "difference image made by IPAC: science minus reference, whatever its sign in the packet",
    ),
)

_DIFFERENCES: tuple[Spec, ...] = (
    Spec("difference", _YX, "float32", "DN", "science minus matched reference, on the science flux scale"),
    Spec("difference_variance", _YX, "float32", "DN2", "variance of the difference image"),
    Spec("model", _YX, "float32", "DN", "reference as the science image should see it"),
    Spec(
        "model_error",
        "time? mode y x",
        "float32",
        "DN",
        "error of what was subtracted, as independent images of one standard deviation each",
    ),
)

_KERNELS: tuple[Spec, ...] = (
    Spec("kernel", "time? ky kx", "float64", "", "PSF-matching kernel that acts on the reference"),
    Spec("kernel_err", "time? ky kx", "float64", "", "standard error of each kernel pixel"),
    Spec("kernel_coeff", "time? kterm ky kx", "float64", "", "kernel coefficients of the spatial terms"),
    Spec("background_coeff", "time? term", "float64", "DN", "polynomial coefficients of the background"),
    Spec("background_coeff_err", "time? term", "float64", "DN", "standard error of the background coefficients"),
    Spec("decorrelation_kernel", "time? phi_y phi_x", "float64", "", "kernel that whitened the difference"),
    Spec("psf_difference", "time? psf_y psf_x", "float64", "", "PSF of the difference image"),
    Spec("covariance", "parameter parameter2", "float64", "", "covariance of the free parameters of a kernel solution"),
    Spec("cutout_chi2", "cutout", "float64", "", "reduced chi-square of a cut-out"),
    Spec("cutout_kept", "cutout", "bool", "", "True where the solution rests on the cut-out"),
)

_EPOCH_QUALITY: tuple[Spec, ...] = (
    Spec(
        "kernel_sum",
        "time?",
        "float64",
        "",
        "sum of the kernel: flux of the image left alone over that of the one convolved",
        epoch_quality=True,
        short="kernel sum",
    ),
    Spec("kernel_sum_err", "time?", "float64", "", "standard error of the kernel sum", epoch_quality=True),
    Spec("kernel_order", "time?", "int64", "", "spatial order of the kernel", epoch_quality=True),
    Spec(
        "chi2",
        "time?",
        "float64",
        "",
        "reduced chi-square of the kernel solution over the pixels used",
        epoch_quality=True,
        short="χ² of the solution",
    ),
    Spec(
        "noise_ratio",
        "time?",
        "float64",
        "",
        "scatter of the difference over its stated noise",
        epoch_quality=True,
        short="noise ratio",
    ),
    Spec(
        "lost_fraction",
        "time?",
        "float64",
        "",
        "fraction of good science pixels without a difference",
        fill=1.0,
        epoch_quality=True,
        short="lost pixels (%)",
    ),
    _of_the_verdict("kernel_sum_pull", "", "kernel sum less what was known of it, in units of both errors"),
    _of_the_verdict("kernel_shift_y", "pixel", "shift in y of the reference that the kernel takes out"),
    _of_the_verdict("kernel_shift_x", "pixel", "shift in x of the reference that the kernel takes out"),
    _of_the_verdict("border_light", "", "fraction of the kernel's sum in its outermost pixels"),
    _of_the_verdict("light_left", "", "fraction of the brightest light that is left in the difference"),
    _of_the_verdict("kept_light", "", "share of the light in the cut-outs that were not rejected"),
    _of_the_verdict("rejected_chi2", "", "reduced chi-square of the pixels that were rejected"),
    _of_the_verdict("background_chi2", "", "variance of the residuals' means in boxes over that of noise"),
    Spec(
        "convolved_share",
        "time?",
        "float64",
        "",
        "variance of the convolved image before that, over the variance of the difference",
        epoch_quality=True,
    ),
    Spec("n_pixels", "time?", "int64", "", "pixels used in the kernel solution", epoch_quality=True),
    Spec("n_cutouts", "time?", "int64", "", "cut-outs that were offered to the kernel solution", epoch_quality=True),
    Spec("n_rejected", "time?", "int64", "", "cut-outs that were rejected", epoch_quality=True),
    Spec("condition", "time?", "float64", "", "condition number of the scaled normal matrix", epoch_quality=True),
    Spec(
        "science_convolved",
        "time?",
        "bool",
        "",
        "True where the science image was convolved, not the reference",
        fill=False,
        epoch_quality=True,
    ),
    Spec("epoch_status", "time?", "uint32", "", "what happened to the epoch; 0 is good", epoch_quality=True),
)

_JUDGMENT: tuple[Spec, ...] = (
    Spec("chi2_map", "time? block_y block_x", "float64", "", "mean squared difference over its variance"),
    Spec("chi2_high", "time?", "float64", "", "90th percentile of chi2_map"),
    Spec(
        "kernel_sum_deviation", "time?", "float64", "", "relative deviation of the kernel sum from the stack's median"
    ),
    Spec("kernel_sum_scatter", "", "float64", "", "robust relative scatter of the kernel sum over the stack"),
    Spec("good", "time?", "bool", "", "True where the difference image passes every limit of quality"),
)

_ZOGY: tuple[Spec, ...] = (
    Spec("zogy_difference", _YX, "float32", "DN", "proper difference image D / F_D, on the science flux scale"),
    Spec("zogy_variance", _YX, "float32", "DN2", "variance of the proper difference image"),
    Spec("zogy_score", _YX, "float32", "", "significance of a point source at each pixel: S_corr of ZOGY"),
    Spec("zogy_flux", _YX, "float32", "DN", "flux of a point source at each pixel: S / F_S of ZOGY"),
    Spec("zogy_flux_err", _YX, "float32", "DN", "standard error of the flux of a point source at each pixel"),
    Spec("zogy_scale", "time?", "float64", "", "flux scale of the science image over the reference"),
    Spec("zogy_scale_err", "time?", "float64", "", "standard error of that flux scale"),
    Spec("shift_y", "time?", "float64", "pixel", "position in y in the science image less that in the reference"),
    Spec("shift_x", "time?", "float64", "pixel", "position in x in the science image less that in the reference"),
    Spec("astrometric_error", "time?", "float64", "pixel", "scatter of star positions between images, per axis"),
)

_STACKS: tuple[Spec, ...] = (
    Spec("sky", "time?", "float64", "DN", "level of the sky"),
    Spec("fwhm", "time?", "float64", "pixel", "FWHM of the PSF, measured on stars"),
    Spec("coverage", "time?", "float64", "", "fraction of good pixels"),
    Spec("flux_scale", "time?", "float64", "", "flux in this epoch over flux in the anchor epoch"),
    Spec("star_position", "star axis", "float64", "pixel", "row and column of stars that fix flux scales"),
    Spec("star_flux", "time? star", "float64", "DN", "flux of those stars"),
    Spec("star_flux_err", "time? star", "float64", "DN", "standard error of their flux"),
    Spec("weight", "time?", "float64", "", "weight of an epoch in a coadd"),
    Spec("contribution", "time? plane y x", "float32", "", "what an epoch adds to a coadd"),
    Spec("n_frames", _YX, "int32", "", "epochs that a pixel of a coadd rests on"),
    Spec("score", "time?", "float64", "", "signal-to-noise ratio of a faint star, relative to the best epoch"),
    Spec("selected", "time?", "bool", "", "True where the epoch was selected"),
    Spec("reason", "time?", "str", "", "why the epoch was left out"),
)

_REGISTRATION: tuple[Spec, ...] = (
    Spec("coefficients", "axis term", "float64", "pixel", "position on the image, a polynomial of the target's"),
    Spec("registration_rms", "time?", "float64", "pixel", "rms of star positions about the fitted transform"),
    Spec("registration_shift_x", "time?", "float64", "pixel", "median x of stars on the image less that by its WCS"),
    Spec("registration_shift_y", "time?", "float64", "pixel", "median y of stars on the image less that by its WCS"),
    Spec("n_matched", "time?", "int64", "", "stars that the transform was fitted to"),
    Spec("n_cosmic_rays", "time?", "int64", "", "pixels of the image that were left out as cosmic rays"),
    Spec("message", "...", "str", "", "what is wrong with the epoch or frame"),
)

_PSF: tuple[Spec, ...] = (
    Spec("psf", "time? source? psf_y psf_x", "float64", "", "fraction of a point source's light in each pixel"),
    Spec(
        "psf_coeff",
        "time? psf_term psf_dy psf_dx",
        "float32",
        "",
        "light of a point source that a pixel at this offset collects, coefficients of the spatial terms",
    ),
    Spec(
        "psf_flux_cov",
        "time? psf_term psf_coterm",
        "float64",
        "",
        "covariance, over the spatial terms, of the relative error of fluxes measured with the PSF",
    ),
    Spec("psf_order", "time?", "int64", "", "spatial order of the PSF"),
    Spec("psf_chi2", "time?", "float64", "", "median reduced chi-square of the stars that the PSF was built from"),
    Spec("n_stars", "time?", "int64", "", "stars that the result rests on"),
    Spec("n_stars_rejected", "time?", "int64", "", "stars that were unlike the others"),
)

_PHOTOMETRY: tuple[Spec, ...] = (
    Spec("flux", "time? source radius?", "float64", "DN", "flux"),
    Spec("flux_err", "time? source radius?", "float64", "DN", "standard error of the flux"),
    Spec(
        "model_err",
        "time? source radius?",
        "float64",
        "DN",
        "error of the flux that comes from that of kernel and background",
    ),
    Spec("psf_err", _TS, "float64", "", "relative error of the flux that comes from that of the PSF"),
    Spec("flux_err_bound", _TS, "float64", "DN", "least standard error that an unbiased flux can have"),
    Spec("area", "time? source radius?", "float64", "pixel2", "good area inside the aperture"),
    Spec(
        "masked_fraction",
        "time? source radius?",
        "float64",
        "",
        "fraction of the aperture, or of the PSF's light, bad or outside",
    ),
    Spec("local_background", _TS, "float64", "DN", "background under the source"),
    Spec("local_background_err", _TS, "float64", "DN", "standard error of the local background"),
    Spec("fit_chi2", _TS, "float64", "", "reduced chi-square of the PSF fit"),
    Spec("fit_pixels", _TS, "int64", "", "good pixels in the PSF fit"),
    Spec(
        "fit_flags",
        _TS,
        "uint16",
        "",
        "what the PSF fit met with; none of it makes the flux wrong by itself",
    ),
    Spec("status", "time? source radius?", "uint32", "", "what happened to the measurement; 0 is good"),
    Spec("position_equations", "time? source equation", "float64", "", "gradient and curvature by position"),
    Spec("x_refined", "source", "float64", "pixel", "x position, refined over all epochs"),
    Spec("y_refined", "source", "float64", "pixel", "y position, refined over all epochs"),
    Spec(
        "aperture_correction",
        "time? radius | time? source",
        "float64",
        "",
        "flux of a star over that inside the aperture",
    ),
    Spec("aperture_correction_err", "time? radius", "float64", "", "standard error of the aperture correction"),
    Spec("aperture_correction_scatter", "time? radius", "float64", "", "scatter of the stars about it"),
    Spec("surface_brightness", _TS, "float64", "DN", "light of the image around the place, over its median"),
    Spec("flux_injected", _TS, "float64", "DN", "flux of the artificial star"),
    Spec("mag_injected", "source", "float64", "mag", "AB magnitude of the artificial star"),
)

_CURVES: tuple[Spec, ...] = (
    Spec("flux_ujy", "...", "float64", "uJy", "flux density"),
    Spec("flux_ujy_err", "...", "float64", "uJy", "standard error of the flux density"),
    Spec("flux_lambda", "...", "float64", "erg/s/cm2/A", "flux density per wavelength"),
    Spec("flux_lambda_err", "...", "float64", "erg/s/cm2/A", "standard error of the flux density per wavelength"),
    Spec("counts", "...", "float64", "DN", "counts"),
    Spec("counts_err", "...", "float64", "DN", "standard error of the counts"),
    Spec("mag", "...", "float64", "mag", "AB magnitude"),
    Spec("mag_err", "...", "float64", "mag", "standard error of the magnitude"),
    Spec("mag_limit", _TS, "float64", "mag", "AB magnitude of the upper limit where nothing was detected"),
    Spec("detected", "time? source radius?", "bool", "", "True where the flux stands above the threshold"),
    Spec("cuts", "time? source radius?", "uint16", "", "why the measurement was cut; 0 is kept"),
    Spec("baseline", _TS, "float64", "DN", "level of the group that was taken off the flux, in its unit"),
    Spec("baseline_err", _TS, "float64", "DN", "standard error of that level, common to the group"),
    Spec("error_factor", _TS, "float64", "", "factor by which the errors were raised"),
    Spec("n_baseline", _TS, "int64", "", "epochs that the level rests on"),
    Spec("reference_ujy", _TS, "float64", "uJy", "flux density of the source in the reference"),
    Spec("reference_ujy_err", _TS, "float64", "uJy", "its standard error, common to all epochs of a reference"),
    Spec("total_ujy", _TS, "float64", "uJy", "flux density of the source: difference plus reference"),
    Spec("total_ujy_err", _TS, "float64", "uJy", "standard error of the total flux density"),
    Spec("scale", "time?", "float64", "", "flux in this epoch over the mean flux, of constant stars"),
    Spec("scale_err", "time?", "float64", "", "standard error of the photometric scale"),
    Spec("scale_scatter", "time", "float64", "", "scatter of the stars about the photometric scale"),
    Spec("scale_coeff", "time scale_term", "float64", "", "coefficients of the photometric scale over the field"),
    Spec("constant", "source", "bool", "", "True where the star is constant"),
    Spec(
        "chi2_night",
        _TS,
        "float64",
        "",
        "reduced chi-square of the measurements about the mean of their bin",
    ),
    Spec("n_binned", _TS, "int64", "", "measurements in the bin"),
    Spec("mean_flux", _TS, "float64", "DN", "mean flux"),
    Spec("mean_flux_err", "source", "float64", "DN", "standard error of the mean flux"),
    Spec("quiet", "time source", "bool", "", "True where the epoch was used for the level of its group"),
    Spec("n_good", "group? source", "int64", "", "measurements that were used"),
    Spec("n_epochs", "...", "int64", "", "number of epochs"),
)

_PACKETS: tuple[Spec, ...] = (
    Spec("ipac_flux", _TS, "float64", "DN", "flux in the same aperture on IPAC's difference"),
    Spec("scatter_over_ipac", "time?", "float64", "", "scatter around the transient over that of IPAC's difference"),
    Spec("host_flux", _TS, "float64", "DN", "light of the reference above its sky in the aperture"),
    Spec(
        "host_flux_psf",
        _TS,
        "float64",
        "DN",
        "light of the reference above its sky, weighted as in the PSF fit",
    ),
    Spec("host_left", "time?", "float64", "", "fraction of the host that IPAC's difference still holds"),
    Spec("flux_psf", _TS, "float64", "DN", "flux of the PSF fit"),
    Spec("flux_psf_err", _TS, "float64", "DN", "standard error of the flux of the PSF fit"),
    Spec("mag_psf", _TS, "float64", "mag", "AB magnitude of the PSF fit"),
    Spec("mag_psf_err", _TS, "float64", "mag", "standard error of the magnitude of the PSF fit"),
    Spec("profile_err", "time?", "float64", "", "relative error of the sum of the transient's own profile"),
    Spec("profile_chi2", "time?", "float64", "", "reduced chi-square of the transient's own profile"),
    Spec("deviation_ap", _TS, "float64", "mag", "mag less the packet's magap"),
    Spec("deviation_psf", _TS, "float64", "mag", "mag_psf less the packet's magpsf"),
    Spec("deviation_ipac", _TS, "float64", "mag", "magnitude by ipac_flux less the packet's magap"),
    Spec("deviation_host", _TS, "float64", "mag", "part of deviation_ap that the host left by IPAC predicts"),
    Spec(
        "deviation_host_psf",
        _TS,
        "float64",
        "mag",
        "part of deviation_psf that the host left by IPAC predicts",
    ),
)

_VARIABILITY: tuple[Spec, ...] = (
    Spec("scatter", "source", "float64", "DN", "robust standard deviation of the flux"),
    Spec("median_err", "source", "float64", "DN", "median error of a measurement"),
    Spec("reduced_chi2", "source", "float64", "", "chi-square of a constant source per degree of freedom"),
    Spec("excess_variance", "source", "float64", "DN2", "variance beyond the errors"),
    Spec(
        "fractional_excess",
        "source",
        "float64",
        "",
        "scatter beyond the errors over the mean flux; negative where the errors are larger",
    ),
    Spec("fractional_excess_err", "source", "float64", "", "standard error of the fractional excess"),
    Spec("von_neumann", "source", "float64", "", "mean squared successive difference over the variance; 2 for noise"),
    Spec("stetson_j", "source", "float64", "", "Stetson J of consecutive measurements; 0 for noise"),
    Spec("consecutive_excess", "source", "float64", "", "shared excess of consecutive measurements; 0 for noise"),
    Spec("rank", "source", "int64", "", "0 for the most variable source"),
)

_CATALOGS: tuple[Spec, ...] = (
    Spec("x_centroid", _TS, "float64", "pixel", "centroid along x, absolute 0-based FITS pixels"),
    Spec("y_centroid", _TS, "float64", "pixel", "centroid along y, absolute 0-based FITS pixels"),
    Spec(
        "x_centroid_win",
        _TS,
        "float64",
        "pixel",
        "Gaussian-windowed centroid along x, absolute 0-based FITS pixels",
    ),
    Spec(
        "y_centroid_win",
        _TS,
        "float64",
        "pixel",
        "Gaussian-windowed centroid along y, absolute 0-based FITS pixels",
    ),
    Spec("semimajor_axis", _TS, "float64", "pixel", "1-sigma dispersion of the light along the major axis"),
    Spec("semiminor_axis", _TS, "float64", "pixel", "1-sigma dispersion of the light along the minor axis"),
    Spec("orientation", _TS, "float64", "deg", "angle of the major axis, from +x towards +y"),
    Spec("segment_area", _TS, "float64", "pixel2", "pixels that belong to the source"),
    Spec("peak", _TS, "float64", "DN", "highest pixel"),
    Spec("kron_flux", _TS, "float64", "DN", "flux in the Kron aperture"),
    Spec("kron_flux_err", _TS, "float64", "DN", "standard error of the flux in the Kron aperture"),
    Spec("kron_radius", _TS, "float64", "", "Kron radius before scaling, in units of the 1-sigma axes"),
    Spec("half_light_radius", _TS, "float64", "pixel", "radius of the circle with half of the Kron flux"),
    Spec("snr", _TS, "float64", "", "signal-to-noise ratio of the Kron flux"),
    Spec("sep_flags", _TS, "uint16", "", "what happened to the source; 0 is good"),
    Spec("segmentation", _YX, "int32", "", "row of the source that a pixel belongs to, counted from 1; 0 is none"),
    Spec("n_sources", "time?", "int64", "", "sources that were detected"),
    Spec("extraction_status", "time?", "uint16", "", "what happened to the extraction; 0 is good"),
    Spec(
        "threshold_factor", "time?", "float64", "", "factor by which the threshold that was asked for had to be raised"
    ),
    Spec("angsep_arcsec", "match", "float64", "arcsec", "separation on the sky"),
    Spec("isolated", "source", "bool", "", "True without a neighbor"),
    Spec("unmatched", "source", "bool", "", "True without a partner"),
)

_ZERO_POINTS: tuple[Spec, ...] = (
    Spec("magzp_err", "time?", "float64", "mag", "standard error of the zero point"),
    Spec("color_term", "time?", "float64", "", "magnitudes to add per magnitude of color"),
    Spec("color_term_err", "time?", "float64", "", "standard error of the color term"),
    Spec("intrinsic_scatter", "time?", "float64", "mag", "scatter about the fit beyond the stated errors"),
    Spec("n_used", "time?", "int64", "", "stars that the fit rests on"),
    Spec("n_missing", "time?", "int64", "", "stars without a magnitude, error or color, codes such as -999 included"),
)

_PIXELS: tuple[Spec, ...] = (
    Spec("x", "x | source? dx?", "int64", "pixel", "0-based FITS column in the full frame"),
    Spec("y", "y | source? dy?", "int64", "pixel", "0-based FITS row in the full frame"),
    Spec("ra", "y x | time? source?", "float64", "deg", "right ascension (ICRS)"),
    Spec("dec", "y x | time? source?", "float64", "deg", "declination (ICRS)"),
    Spec("radius", "radius", "float64", "pixel", "radius of the aperture"),
    Spec("psf_dy", "psf_dy", "float64", "pixel", "offset in y from the source"),
    Spec("psf_dx", "psf_dx", "float64", "pixel", "offset in x from the source"),
    Spec("psf_origin", "axis", "float64", "pixel", "y and x where the PSF's polynomial coordinates are zero"),
    Spec("psf_scale", "axis", "float64", "pixel", "what is one in the PSF's polynomial coordinates, in y and x"),
    Spec("x_pixel", "source", "float64", "pixel", "x position, absolute 0-based FITS pixels"),
    Spec("y_pixel", "source", "float64", "pixel", "y position, absolute 0-based FITS pixels"),
    Spec("stamp_status", "source", "uint32", "", "what is missing of the stamp; 0 is nothing"),
)

_EXPOSURE: tuple[Spec, ...] = (
    Spec("time", "time?", "datetime64[ns]", "", "middle of the exposure (UTC)"),
    Spec("mjd", "time?", "float64", "d", "middle of the exposure (MJD, UTC)"),
    Spec("filter", "time?", "str", "", "ZTF filter: ztfg, ztfr or ztfi"),
    Spec("exptime", "time?", "float64", "s", "exposure time"),
    Spec("field", "time?", "int64", "", "ZTF field", fill=-1),
    Spec("ccdid", "time?", "int64", "", "CCD, 1 to 16", fill=-1),
    Spec("qid", "time?", "int64", "", "quadrant of the CCD, 1 to 4", fill=-1),
    Spec("rcid", "time?", "int64", "", "readout channel, 4 (ccdid - 1) + qid - 1", fill=-1),
    Spec("filefracday", "time?", "int64", "", "night and fraction of day that name the exposure", fill=-1),
    Spec("magzp", "time?", "float64", "mag", "AB magnitude of 1 DN"),
    Spec("magzprms", "time?", "float64", "mag", "scatter of the zero point"),
    Spec("gain", "time?", "float64", "electron/DN", "gain"),
    Spec("readnoise", "time?", "float64", "electron", "read noise"),
    Spec("saturate", "time?", "float64", "DN", "saturation level"),
    Spec("seeing", "time?", "float64", "pixel", "FWHM of the PSF"),
)

_RUNS: tuple[Spec, ...] = (
    Spec("frame", "...", "str", "", "name of the frame"),
    Spec("path", "time", "str", "", "path of the frame, or its URL without credentials"),
    Spec("checksum", "time", "str", "", "hash of the file's size, first and last 64 KiB"),
    Spec("done", "time", "bool", "", "True where the epoch is whole", fill=False),
    Spec("outcome", "outcome", "str", "", "what became of epochs"),
    Spec("example", "outcome", "str", "", "frame and message of the first epoch with this outcome"),
    Spec("workers", "workers", "int64", "", "number of workers"),
    Spec("seconds", "workers", "float64", "s", "time for the whole job"),
    Spec("seconds_per_epoch", "", "float64", "s", "time for an epoch on one worker"),
    Spec("seconds_layout", "", "float64", "s", "time for the reference and the layout"),
    Spec("memory_total", "workers", "float64", "byte", "memory of all workers"),
    Spec("memory_per_worker", "", "float64", "byte", "peak of memory of a worker"),
    Spec("bytes_read", "", "float64", "byte", "bytes read from frames"),
    Spec("store_bytes", "", "float64", "byte", "size of the store"),
    Spec("store_bytes_fixed", "", "float64", "byte", "size of the store without epochs"),
)

SECTIONS: Mapping[str, tuple[Spec, ...]] = {
    "Images": _IMAGES,
    "Difference images": _DIFFERENCES,
    "Kernels": _KERNELS,
    "Quality of an epoch": _EPOCH_QUALITY,
    "Judgment of differences": _JUDGMENT,
    "ZOGY": _ZOGY,
    "Stacks and coadds": _STACKS,
    "Registration": _REGISTRATION,
    "Point spread functions": _PSF,
    "Photometry": _PHOTOMETRY,
    "Light curves": _CURVES,
    "Comparison with alert packets": _PACKETS,
    "Variability": _VARIABILITY,
    "Catalogs": _CATALOGS,
    "Zero points": _ZERO_POINTS,
    "Coordinates of pixels": _PIXELS,
    "The exposure": _EXPOSURE,
    "Runs of the pipeline": _RUNS,
}
"""The rows by section, in the order of the page of variables."""

SPECS: Mapping[str, Spec] = {spec.name: spec for rows in SECTIONS.values() for spec in rows}
"""Every variable and coordinate by name."""

EPOCH_QUALITY: tuple[str, ...] = tuple(name for name, spec in SPECS.items() if spec.epoch_quality)
"""The numbers that say how well an epoch was differenced; light curves and runs carry them."""

EXPOSURE: tuple[str, ...] = tuple(spec.name for spec in _EXPOSURE)
"""What is known of an exposure before anything is measured."""

REGISTRATION: tuple[str, ...] = ("registration_rms", "n_matched", "registration_shift_x", "registration_shift_y")
"""What is known of how a frame was aligned."""

FILTERS: Mapping[int, str] = {1: "ztfg", 2: "ztfr", 3: "ztfi"}
"""ZTF filter names by FILTERID (`fid`)."""

EFFECTIVE_WAVELENGTHS: Mapping[str, float] = {"ztfg": 4813.97, "ztfr": 6421.81, "ztfi": 7883.06}
"""Effective wavelength of each filter in Angstrom."""
