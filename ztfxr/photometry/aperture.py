"""Aperture photometry at fixed positions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ztfxr.arrays.images.annuli import measure_annuli
from ztfxr.arrays.photometry.apertures import ApertureSums, sum_apertures
from ztfxr.arrays.photometry.growth import correct_apertures
from ztfxr.arrays.types import Bools, Floats
from ztfxr.errors import InputError
from ztfxr.ops._apply import IMAGE, apply_images
from ztfxr.ops.background import get_image, get_mask
from ztfxr.ops.background import variance as noise_model
from ztfxr.ops.positions import Positions, pixel_origin, resolve_positions
from ztfxr.photometry.cuts import kept
from ztfxr.schema import STATUS_PLANES, annotate_all, planes_to_bits

__all__ = ["aperture_correction", "aperture_photometry", "image_and_noise"]

Masked = Literal["correct", "drop", "nan"]
Statistic = Literal["median", "mean"]

_SUMS = ("flux", "flux_err", "area", "masked_fraction", "status")
_LEVELS = ("local_background", "local_background_err")
_OUTSIDE, _EDGE, _MASKED, _NO_GOOD = (
    planes_to_bits([name], STATUS_PLANES) for name in ("outside", "edge", "masked", "no_good_pixels")
)


def aperture_photometry(
    obj: xr.Dataset | xr.DataArray,
    positions: Positions,
    *,
    radius: float | Sequence[float] | NDArray[Any],
    variance: xr.DataArray | None = None,
    mask: xr.DataArray | Literal[False] | None = None,
    masked: Masked = "correct",
    max_masked_fraction: float = 0.5,
    annulus: tuple[float, float] | None = None,
    background: Statistic = "median",
    clip: float = 3.0,
) -> xr.Dataset:
    """Sum images in circular apertures with exact pixel overlap; lazy, one epoch a task.

    Parameters
    ----------
    obj
        An image (..., y, x) without its sky, or with it where an `annulus` is given; or a Dataset with `difference`
        (else `sci`).
    positions
        As for `ztfxr.resolve_positions`: Dataset, Table, DataFrame, SkyCoord, or (x, y) pairs in absolute 0-based
        pixels.
    radius
        In pixels; several give the results the dimension `radius`, and cost little more than the largest.
    variance
        Variance per pixel; by default `difference_variance` or `variance` of the Dataset, else `ztfxr.variance`.
    mask
        Boolean, True where bad; by default that of the Dataset. Non-finite pixels are always bad.
    masked
        What bad pixels do: ``"correct"`` scales the sum of the good ones by the missing area, ``"drop"`` leaves them
        out, ``"nan"`` gives up the flux. All three set the status `masked`, or `edge` where the aperture leaves the
        image.
    max_masked_fraction
        Apertures with a larger bad fraction have no flux (status `no_good_pixels`).
    annulus
        Inner and outer radius (px) in which a local background is measured and then taken off, its error included in
        `flux_err`. Without a good pixel there the flux is NaN (status `no_good_pixels`).
    background
        Of the annulus' pixels: their ``"median"`` or ``"mean"``, after clipping.
    clip
        Pixels of the annulus further than this many standard deviations from their median are left out.

    Returns
    -------
    xarray.Dataset
        `flux`, `flux_err` (unit of the image), `area`, `masked_fraction`, `status` on (..., source) or (..., source,
        radius); `model_err` where the Dataset has `model_error` (see `ztfxr.difference`), part of `flux_err`; with an
        annulus `local_background`, `local_background_err` (per pixel) on (..., source). A flux that
        could not be measured is NaN with a status that says why; an epoch's own status is passed on to each source.

    Raises
    ------
    InputError, MissingWCSError, ChunkError

    Notes
    -----
    ``flux_err² = Σ w² V + A² σ_b²`` with w the overlap of each pixel, V its variance, A the area and σ_b the error of
    the local background, pixels taken as independent.
    """
    options = {k: v for k, v in locals().items() if k not in ("obj", "positions")}
    radii = _radii(radius)
    _check(radii, masked, max_masked_fraction, annulus, background)
    image, noise, bad = image_and_noise(obj, variance, mask)
    where = resolve_positions(image, positions)
    origin = pixel_origin(image)
    x, y = (xr.DataArray(where[f"{d}_pixel"].values - origin[d], dims="source") for d in ("x", "y"))
    found = apply_images(
        _measure,
        image,
        noise,
        bad,
        x,
        y,
        inputs=[IMAGE, IMAGE, IMAGE, ("source",), ("source",)],
        outputs=dict.fromkeys(_SUMS, ("source", "radius"))
        | (dict.fromkeys(_LEVELS, ("source",)) if annulus is not None else {}),
        sizes={"radius": len(radii)},
        kwargs={
            "radii": radii,
            "masked": masked,
            "limit": max_masked_fraction,
            "annulus": annulus,
            "statistic": background,
            "clip": clip,
        },
    )
    out = xr.Dataset(found).assign_coords(where.coords)
    out = out.isel(radius=0) if np.ndim(radius) == 0 else out.assign_coords(radius=("radius", radii))
    epoch_status = obj.get("epoch_status") if isinstance(obj, xr.Dataset) else obj.coords.get("epoch_status")
    if epoch_status is not None:
        out["status"] = out["status"] | epoch_status.variable
    out.attrs = {"masked": masked} | ({"radius_pixel": float(radii[0])} if np.ndim(radius) == 0 else {})
    if annulus is not None:
        out.attrs["annulus_pixel"] = [float(r) for r in annulus]
    if not isinstance(obj, xr.Dataset) or not {"difference", "model_error"} <= set(obj.variables):
        return annotate_all(out)
    modes = obj.drop_vars("model_error").assign(difference=obj["model_error"])
    return _with_model_error(out, aperture_photometry(modes, positions, **options)["flux"])


def _with_model_error(photometry: xr.Dataset, modes: xr.DataArray) -> xr.Dataset:
    """`photometry` with the error of what was subtracted, from the fluxes of its modes, which add up in squares."""
    dims = photometry["flux"].dims
    square = (modes**2).sum("mode", skipna=False).transpose(*dims)
    total = np.sqrt(photometry["flux_err"] ** 2 + square)
    return annotate_all(photometry.assign(model_err=np.sqrt(square), flux_err=total))


def aperture_correction(
    photometry: xr.Dataset,
    *,
    radius: float | None = None,
    stars: xr.DataArray | None = None,
    min_snr: float = 30.0,
    min_stars: int = 5,
    n_sigma: float = 3.0,
) -> xr.Dataset:
    """The factor from the flux inside each aperture to that inside a large one, from a frame's stars; lazy.

    Parameters
    ----------
    photometry
        Of stars, at several radii: what `ztfxr.aperture_photometry` gives for a sequence of radii.
    radius
        The aperture (px, one of the radii) that holds all the light; by default the largest.
    stars
        Boolean on `source`, True for the isolated stars to use; by default all that are measured without a flag.
    min_snr
        Stars count with a signal-to-noise ratio of at least this in the large aperture.
    min_stars
        Fewer stars give NaN.
    n_sigma
        Stars further from the median than this many robust standard deviations are left out.

    Returns
    -------
    xarray.Dataset
        `aperture_correction`, `aperture_correction_err` (of the mean), `aperture_correction_scatter` (of a star), on
        (..., radius), and `n_stars`. Multiply `flux` and `flux_err` by the correction; for one star's error add
        flux × aperture_correction_err in quadrature, which all stars of the frame share.

    Raises
    ------
    InputError
        There is no dimension `radius`, or no such radius.

    Notes
    -----
    The mean over stars of F_large / F(r), weighted by the squared signal-to-noise ratio in the large aperture up to ten
    times `min_snr`, clipped. The ratio of nested apertures is noisy by the light between them alone, so the error comes
    from the scatter of the stars, not from the errors of their fluxes.
    """
    if "radius" not in photometry.dims:
        raise InputError("an aperture correction needs photometry at several radii: radius=[3, 5, 10], for example")
    radii = photometry["radius"].values
    large = int(np.argmax(radii)) if radius is None else int(np.argmin(np.abs(radii - radius)))
    if radius is not None and abs(radii[large] - radius) > 1e-6:
        raise InputError(f"no aperture of radius {radius}; the radii are {', '.join(f'{r:g}' for r in radii)}")
    good = kept(photometry, "flux")
    good = good & stars if stars is not None else good
    found = apply_images(
        correct_apertures,
        photometry["flux"].reset_coords(drop=True),
        photometry["flux_err"].reset_coords(drop=True),
        good,
        inputs=[("source", "radius")] * 3,
        outputs={
            "aperture_correction": ("radius",),
            "aperture_correction_err": ("radius",),
            "aperture_correction_scatter": ("radius",),
            "n_stars": (),
        },
        kwargs={"large": large, "min_snr": min_snr, "min_stars": min_stars, "n_sigma": n_sigma},
    )
    coords = {k: v for k, v in photometry.coords.items() if "source" not in v.dims}
    out = xr.Dataset(found).assign_coords(coords)
    return annotate_all(out.assign_attrs(radius_pixel=float(radii[large])))


def _radii(radius: float | Sequence[float] | NDArray[Any]) -> Floats:
    radii = np.atleast_1d(np.asarray(radius, dtype=np.float64))
    if radii.ndim != 1 or radii.size == 0 or not np.all(np.isfinite(radii) & (radii > 0)):
        raise InputError(f"radius must be positive, in pixels; got {radius}")
    if len(np.unique(radii)) < radii.size:
        raise InputError(f"the radii must differ; got {radius}")
    return radii


def _check(
    radii: Floats,
    masked: str,
    max_masked_fraction: float,
    annulus: tuple[float, float] | None,
    background: str,
) -> None:
    if masked not in get_args(Masked):
        raise InputError(f"masked is 'correct', 'drop' or 'nan'; got {masked!r}")
    if not 0 <= max_masked_fraction <= 1:
        raise InputError(f"max_masked_fraction is a fraction from 0 to 1; got {max_masked_fraction}")
    if background not in get_args(Statistic):
        raise InputError(f"background is 'median' or 'mean'; got {background!r}")
    if annulus is not None and not 0 <= annulus[0] < annulus[1] < np.inf:
        raise InputError(f"annulus is the inner and the larger outer radius in pixels; got {annulus}")
    if annulus is not None and annulus[0] < radii.min():
        raise InputError(
            f"the annulus begins at {annulus[0]} px, inside every aperture; the smallest is {radii.min()} px"
        )


def image_and_noise(
    obj: xr.Dataset | xr.DataArray, variance: xr.DataArray | None, mask: xr.DataArray | Literal[False] | None
) -> tuple[xr.DataArray, xr.DataArray, xr.DataArray]:
    """The image to measure, its variance and its mask."""
    name = "difference" if isinstance(obj, xr.Dataset) and "difference" in obj else "sci"
    image = get_image(obj, name)
    bad = get_mask(obj if name == "sci" else image, mask) if not _has_mask(obj, name, mask) else obj["mask"]
    if variance is not None:
        return image, variance, bad
    own = "difference_variance" if name == "difference" else "variance"
    if isinstance(obj, xr.Dataset) and own in obj:
        return image, obj[own], bad
    return image, noise_model(image, mask=bad), bad


def _has_mask(obj: xr.Dataset | xr.DataArray, name: str, choice: Any) -> bool:
    return choice is None and name == "difference" and isinstance(obj, xr.Dataset) and "mask" in obj


def _measure(
    image: NDArray[Any],
    variance: NDArray[Any],
    bad: Bools,
    x: Floats,
    y: Floats,
    *,
    radii: Floats,
    masked: Masked,
    limit: float,
    annulus: tuple[float, float] | None,
    statistic: Statistic,
    clip: float,
) -> tuple[NDArray[Any], ...]:
    """Measure one image: `_SUMS` (source, radius), and `_LEVELS` (source,) with an annulus."""
    sums = sum_apertures(image, variance, bad, x, y, radii=radii)
    flux, error, area, lost, status = _interpret(sums, masked, limit)
    if annulus is None:
        return flux, error, area, lost, status
    inner, outer = annulus
    sky = measure_annuli(image, bad, x, y, inner=inner, outer=outer, n_sigma=clip, statistic=statistic)
    covered = area if masked == "drop" else np.broadcast_to(sums.total_area, area.shape)
    flux = flux - covered * sky.level[:, None]
    error = np.hypot(error, covered * sky.error[:, None])
    status = status | np.where(np.isnan(sky.level), _NO_GOOD, 0).astype(np.uint32)[:, None]
    return flux, error, area, lost, status, sky.level, sky.error


def _interpret(sums: ApertureSums, masked: Masked, limit: float) -> tuple[NDArray[Any], ...]:
    lost = 1.0 - sums.area / sums.total_area
    lost = np.where(lost < 1e-9, 0.0, lost)
    outside = sums.outside_area / sums.total_area
    off, edge = outside > 1 - 1e-9, (outside > 1e-9) & (outside <= 1 - 1e-9)
    hit = lost - outside > 1e-9
    hopeless = ~off & ((lost > limit) | (sums.area <= 0))
    status = off * _OUTSIDE + edge * _EDGE + hit * _MASKED + hopeless * _NO_GOOD
    unmeasured = off | hopeless | ((lost > 0) if masked == "nan" else False)
    scale = sums.total_area / np.where(sums.area > 0, sums.area, 1.0) if masked == "correct" else 1.0
    flux = np.where(unmeasured, np.nan, sums.flux * scale)
    error = np.where(unmeasured, np.nan, np.sqrt(sums.variance) * scale)
    return flux, error, sums.area, lost, status.astype(np.uint32)
