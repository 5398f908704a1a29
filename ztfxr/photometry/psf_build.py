"""The PSF of images as data, built from their own stars."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ztfxr.arrays.images.stars import saturation_level
from ztfxr.arrays.polynomials import n_terms
from ztfxr.arrays.psf.build import BuiltPSF, PSFOptions
from ztfxr.arrays.psf.build import build_psf as build_psf_array
from ztfxr.arrays.psf.model import grid_offsets
from ztfxr.arrays.types import Bools, Floats
from ztfxr.errors import InputError
from ztfxr.ops.exposure import Exposure, Labeled, MaskChoice, gather
from ztfxr.ops.mapping import IMAGE, map_images
from ztfxr.ops.positions import Positions, array_positions, resolve_positions
from ztfxr.schema import annotate_all

__all__ = ["build_psf", "psf_of"]

_OUTPUTS = (
    "psf_coeff",
    "psf_flux_cov",
    "psf_order",
    "fwhm",
    "psf_chi2",
    "n_stars",
    "n_stars_rejected",
    "epoch_status",
)
_OVERSAMPLING = 4
_MAX_RADIUS = 20
# Peaks of stars that reach this fraction of the saturation level may already be bent.
_LINEAR = 0.8


def build_psf(
    obj: Labeled,
    *,
    stars: Positions | None = None,
    order: int | Literal["auto"] = "auto",
    max_order: int = 2,
    radius: int | None = None,
    n_stars: int = 300,
    min_snr: float = 20.0,
    saturation: float | None = None,
    background: bool = True,
    variance: xr.DataArray | None = None,
    mask: MaskChoice = None,
) -> xr.Dataset:
    """The PSF of an image, or of each of a stack, from its own stars; lazy, one epoch a task.

    The result is an effective PSF: it includes the integration over the pixel, and is found without resampling any
    star, so PSFs of two pixels' width are no obstacle. It varies over the image as a polynomial.

    Parameters
    ----------
    obj
        An image (..., y, x), or a Dataset with `sci` and, where they exist, `flags` or `mask` and `variance`.
    stars
        Positions of the stars to use, as `ztfxr.resolve_positions` takes them. By default bright, unsaturated, isolated
        ones are found, evenly over the image.
    order
        Spatial order, 0 to 3. ``"auto"`` takes the highest up to `max_order` that the number of stars allows (15 for
        order 1, 40 for 2, 120 for 3) and whose terms lower χ² by more than noise would.
    max_order
        Highest spatial order that ``order="auto"`` tries.
    radius
        Radius of the PSF in pixels: what is beyond counts as sky. By default 5.5 FWHM, within 10 and 20 pixels.
    n_stars
        Largest number of stars that are used.
    min_snr
        Least peak of a star, in units of the noise of the sky.
    saturation
        Stars with a higher peak, in DN above the sky, are left out; by default those above 0.8 of the coordinate
        `saturate`, where it is known.
    background
        Whether to subtract `ztfxr.background` first.
    variance
        Variance per pixel in the square of the image's unit; by default the Dataset's, else `ztfxr.variance` where the
        gain is known, else that of the sky.
    mask
        Boolean, True where bad; by default the Dataset's recommended planes.

    Returns
    -------
    xarray.Dataset
        `psf_coeff` (..., psf_term, psf_dy, psf_dx) on a grid of four nodes per pixel, of unit sum (per pixel) at the
        image's center, zero beyond the radius, for the terms 1, u, v, u², uv, v², … of u and v along x and y, which
        are zero at `psf_origin` and one `psf_scale` pixels from there; `psf_flux_cov` (..., psf_term, psf_coterm): with
        the terms t of a place, ``tᵀ psf_flux_cov t`` is the variance of the relative error that the PSF's own error
        makes of all fluxes there, which `ztfxr.forced_photometry` adds to theirs; `psf_order`; `fwhm` (pixel) at the
        center; `psf_chi2`, `n_stars` and `n_stars_rejected`; `epoch_status`: an epoch without a PSF is NaN with a
        status that says why. `psf_at` evaluates it.

    Raises
    ------
    InputError
        An order outside 0–3, a radius outside 3–20.
    ChunkError
        An image is chunked along y or x.

    Notes
    -----
    Effective PSF: Anderson & King 2000, PASP 112, 1360. Gaussians of growing widths times harmonics (Cappellari 2002,
    MNRAS 333, 400), all coefficients in one weighted least squares over the pixels of all stars, in turn with the
    stars' fluxes and positions. The center of the PSF is its windowed centroid. Where stars are few, what they do not
    determine of the wings is that of a Moffat profile (β = 3): from 12 to 26 stars the light that the PSF holds came
    out right to 0.7 % (rms) instead of 1.7 %, from a hundred to 0.3 % instead of 0.5 %. The jackknife over the stars of
    an image says how well its PSF is known (see `ztfxr.arrays.psf.error`).

    Examples
    --------
    >>> ds = ztfxr.open_quadrant(ztfxr.samples.sample_path())
    >>> psf = ztfxr.build_psf(ds)
    >>> psf.psf_coeff.dims
    ('psf_term', 'psf_dy', 'psf_dx')
    """
    if radius is not None and not 3 <= radius <= _MAX_RADIUS:
        raise InputError(f"radius is a whole number of pixels from 3 to {_MAX_RADIUS}; got {radius!r}")
    highest = max_order if order == "auto" else order
    options = PSFOptions(
        order=None if order == "auto" else order,
        max_order=highest,
        radius=radius,
        oversampling=_OVERSAMPLING,
        maximum=n_stars,
        min_snr=min_snr,
    )
    exposure = gather(obj, name="sci", variance=variance, mask=mask)
    return psf_of(exposure, options, stars=stars, saturation=saturation, background=background)


def psf_of(
    exposure: Exposure,
    options: PSFOptions | None = None,
    *,
    stars: Positions | None = None,
    saturation: float | None = None,
    background: bool = True,
) -> xr.Dataset:
    """`build_psf` of what has been gathered already."""
    options = options or PSFOptions(oversampling=_OVERSAMPLING)
    star_y, star_x = None, None
    if stars is not None:
        star_y, star_x = (
            place.rename(source="star")
            for place in array_positions(resolve_positions(exposure.image, stars), exposure.origin)
        )
    size = _side(options)
    terms = n_terms(options.max_order)
    found = map_images(
        _built,
        {
            "image": exposure.image,
            "variance": exposure.variance_or_sky,
            "bad": exposure.bad,
            "level": exposure.background if background else None,
            "saturation": _highest_peak(exposure, saturation),
            "star_y": star_y,
            "star_x": star_x,
        },
        _OUTPUTS,
        sizes={"psf_term": terms, "psf_coterm": terms, "psf_dy": size, "psf_dx": size},
        options={"options": options},
    )
    return _labeled(found, exposure, size)


def _side(options: PSFOptions) -> int:
    """Nodes along the side of the grid that holds any PSF of these options."""
    return 2 * (options.radius or _MAX_RADIUS) * options.oversampling + 1


def _highest_peak(exposure: Exposure, given: float | None) -> xr.DataArray | None:
    """Highest peak of a star, above the sky where the sky has been measured; None where it is not known."""
    if given is not None:
        return xr.DataArray(float(given))
    return None if exposure.saturation is None else _LINEAR * exposure.saturation


def _built(
    image: NDArray[Any],
    variance: NDArray[Any],
    bad: Bools,
    level: NDArray[Any] | None,
    saturation: Floats | None,
    star_y: Floats | None,
    star_x: Floats | None,
    *,
    options: PSFOptions,
) -> dict[str, Any]:
    """The PSF of one image: the values of `_OUTPUTS`."""
    clean = image if level is None else image - level
    limit = saturation_level(saturation)
    if level is not None and np.any(level):
        limit -= float(np.nanmedian(level))
    built = build_psf_array(
        clean,
        variance,
        bad | ~np.isfinite(clean),
        origin=_middle(image.shape),
        scale=_half(image.shape),
        options=replace(options, saturation=limit),
        stars=None if star_y is None or star_x is None else (star_y, star_x),
    )
    return _padded(built, n_terms(options.max_order), _side(options)) | {
        "psf_order": built.order,
        "fwhm": built.fwhm,
        "psf_chi2": built.chi2,
        "n_stars": built.n_stars,
        "n_stars_rejected": built.n_rejected,
        "epoch_status": 0,
    }


def _padded(built: BuiltPSF, terms: int, size: int) -> dict[str, Floats]:
    """Coefficients and covariance among zeros that make up the terms and nodes that all images share."""
    margin, more = (size - built.values.shape[1]) // 2, terms - len(built.values)
    missing = terms - len(built.flux_cov)
    return {
        "psf_coeff": np.pad(built.values, [(0, more), (margin, margin), (margin, margin)]),
        "psf_flux_cov": np.pad(built.flux_cov, (0, missing)),
    }


def _middle(shape: tuple[int, ...]) -> tuple[float, float]:
    return (shape[0] - 1) / 2, (shape[1] - 1) / 2


def _half(shape: tuple[int, ...]) -> tuple[float, float]:
    return max((shape[0] - 1) / 2, 1.0), max((shape[1] - 1) / 2, 1.0)


def _labeled(found: dict[str, xr.DataArray], exposure: Exposure, size: int) -> xr.Dataset:
    """The results with their coordinates, and those of the epochs."""
    first, offset = exposure.origin, grid_offsets(size, _OVERSAMPLING)
    origin = [middle + first[d] for middle, d in zip(_middle(exposure.shape), IMAGE, strict=True)]
    out = xr.Dataset({k: v.drop_vars("epoch_status", errors="ignore") for k, v in found.items()})
    out = out.assign_coords(
        psf_dy=offset, psf_dx=offset, psf_origin=("axis", origin), psf_scale=("axis", list(_half(exposure.shape)))
    )
    if exposure.status is not None:
        out["epoch_status"] = out["epoch_status"] | exposure.status
    return annotate_all(out)
