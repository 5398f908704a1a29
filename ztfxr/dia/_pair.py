"""What every method that pairs a science image with a reference shares: its inputs, and the shape of its results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from ztfxr.errors import InputError
from ztfxr.ops._apply import IMAGE
from ztfxr.ops.background import get_image, get_mask
from ztfxr.ops.background import variance as noise_model

__all__ = [
    "bare",
    "epoch_results",
    "has_variance",
    "kept_attrs",
    "known_variance",
    "reference_image",
    "reference_mask",
    "reference_noise",
]


def bare(array: xr.DataArray) -> xr.DataArray:
    """Without coordinates: the result's are the science image's, and a reference has another time, filter and
    exposure.
    """
    keep = {"time"} if "time" in array.dims else set()
    return array.drop_vars([k for k in array.coords if k not in keep])


def reference_image(science: xr.Dataset | xr.DataArray, reference: xr.Dataset | xr.DataArray | None) -> xr.DataArray:
    if reference is not None:
        return get_image(reference)
    if isinstance(science, xr.Dataset) and "reference" in science:
        return science["reference"]
    raise InputError("no reference: give one, or a Dataset that holds a variable 'reference' (see ztfxr.open_alerts)")


def known_variance(obj: xr.Dataset | xr.DataArray, given: xr.DataArray | None, name: str) -> xr.DataArray:
    """The variance given, or the Dataset's, or the noise model's; NaN where it must be measured from the residuals."""
    if given is not None:
        return given
    if isinstance(obj, xr.Dataset) and name in obj:
        return obj[name]
    return noise_model(obj) if "gain" in obj.coords else xr.DataArray(np.float32(np.nan))


def has_variance(obj: xr.Dataset | xr.DataArray, given: xr.DataArray | None) -> bool:
    """Whether somebody said what the variance is, so that it is neither modeled nor measured."""
    return given is not None or (isinstance(obj, xr.Dataset) and "variance" in obj)


def reference_noise(
    science: xr.Dataset | xr.DataArray, reference: xr.Dataset | xr.DataArray | None, given: xr.DataArray | None
) -> xr.DataArray:
    return (
        known_variance(science, given, "reference_variance")
        if reference is None
        else known_variance(reference, given, "variance")
    )


def reference_mask(
    reference: xr.Dataset | xr.DataArray | None, image: xr.DataArray, given: xr.DataArray | None
) -> xr.DataArray:
    return get_mask(image if reference is None else reference, given)


def epoch_results(
    found: Mapping[str, xr.DataArray], outputs: Mapping[str, Sequence[str]], sci: xr.DataArray
) -> xr.Dataset:
    """Results with the dimensions of the science image, and the status that its epochs already had."""
    images = {k: v.transpose(*sci.dims) if outputs[k] == IMAGE else v for k, v in found.items()}
    prior = sci.coords.get("epoch_status")
    if prior is not None:
        images["epoch_status"] = images["epoch_status"].drop_vars("epoch_status") | prior.variable
    return xr.Dataset({k: v.drop_vars("epoch_status", errors="ignore") for k, v in images.items()})


def kept_attrs(science: xr.Dataset | xr.DataArray) -> dict[str, Any]:
    """The attributes of the science image that its difference keeps."""
    return {k: v for k, v in science.attrs.items() if k in ("wcs_header", "object", "target_x", "target_y")}
