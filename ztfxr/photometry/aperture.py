"""Aperture photometry at fixed positions."""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ztfxr.arrays.apertures import ApertureSums, sum_apertures
from ztfxr.errors import InputError
from ztfxr.ops._apply import IMAGE, apply_images
from ztfxr.ops.background import get_image, get_mask
from ztfxr.ops.background import variance as noise_model
from ztfxr.ops.positions import Positions, pixel_origin, resolve_positions
from ztfxr.schema import STATUS_PLANES, annotate_all, planes_to_bits

__all__ = ["aperture_photometry", "image_and_noise"]

Masked = Literal["correct", "drop", "nan"]

_OUTPUTS = dict.fromkeys(("flux", "flux_err", "area", "masked_fraction", "status"), ("source",))
_OUTSIDE, _EDGE, _MASKED, _NO_GOOD = (
    planes_to_bits([name], STATUS_PLANES) for name in ("outside", "edge", "masked", "no_good_pixels")
)


def aperture_photometry(
    obj: xr.Dataset | xr.DataArray,
    positions: Positions,
    *,
    radius: float,
    variance: xr.DataArray | None = None,
    mask: xr.DataArray | Literal[False] | None = None,
    masked: Masked = "correct",
    max_masked_fraction: float = 0.5,
) -> xr.Dataset:
    """Sum images in circular apertures with exact pixel overlap; lazy, one epoch a task.

    Parameters
    ----------
    obj
        A background-subtracted image (..., y, x), or a Dataset with `difference` (else `sci`).
    positions
        As for `ztfxr.resolve_positions`: Dataset, Table, DataFrame, SkyCoord, or (x, y) pairs in absolute 0-based
        pixels.
    radius
        In pixels.
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

    Returns
    -------
    xarray.Dataset
        `flux`, `flux_err` (unit of the image), `area`, `masked_fraction`, `status` on (..., source). A flux that could
        not be measured is NaN with a status that says why; an epoch's own status is passed on to each source.

    Raises
    ------
    InputError, MissingWCSError, ChunkError

    Notes
    -----
    ``flux_err² = Σ w² V`` with w the overlap of each pixel and V its variance, pixels taken as independent.
    """
    _check(radius, masked, max_masked_fraction)
    image, noise, bad = image_and_noise(obj, variance, mask)
    where = resolve_positions(image, positions)
    origin = pixel_origin(image)
    x, y = (xr.DataArray(where[f"{d}_pixel"].values - origin[d], dims="source") for d in ("x", "y"))
    options = {"radius": float(radius), "masked": masked, "limit": max_masked_fraction}
    found = apply_images(
        _measure,
        image,
        noise,
        bad,
        x,
        y,
        inputs=[IMAGE, IMAGE, IMAGE, ("source",), ("source",)],
        outputs=_OUTPUTS,
        kwargs=options,
    )
    out = xr.Dataset(found).assign_coords(where.coords)
    epoch_status = obj.get("epoch_status") if isinstance(obj, xr.Dataset) else obj.coords.get("epoch_status")
    if epoch_status is not None:
        out["status"] = out["status"] | epoch_status.variable
    out.attrs = {"radius_pixel": float(radius), "masked": masked}
    return annotate_all(out)


def _check(radius: float, masked: str, max_masked_fraction: float) -> None:
    if not (np.isfinite(radius) and radius > 0):
        raise InputError(f"radius must be positive, in pixels; came {radius}")
    if masked not in get_args(Masked):
        raise InputError(f"masked is 'correct', 'drop' or 'nan'; came {masked!r}")
    if not 0 <= max_masked_fraction <= 1:
        raise InputError(f"max_masked_fraction is a fraction from 0 to 1; came {max_masked_fraction}")


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
    bad: NDArray[np.bool_],
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    *,
    radius: float,
    masked: Masked,
    limit: float,
) -> tuple[NDArray[Any], ...]:
    """Measure one image; see `_OUTPUTS` for the results."""
    unusable = bad | ~np.isfinite(image) | ~np.isfinite(variance)
    sums = sum_apertures(image, variance, unusable, x, y, radius=radius)
    return _interpret(sums, masked, limit)


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
    return flux, error, sums.area, lost, status.astype(np.uint16)
