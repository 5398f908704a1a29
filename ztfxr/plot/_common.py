"""What the plots share: types, labels, the extent of an image and the time axis."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ztfxr.errors import InputError

Image: TypeAlias = xr.Dataset | xr.DataArray
AxesArray: TypeAlias = NDArray[np.object_]

MJD_EPOCH = np.datetime64("1858-11-17", "ns")


def label_of(array: xr.DataArray) -> str:
    name, units = str(array.attrs.get("long_name", array.name or "")), units_of(array)
    return f"{name} ({units})" if units else name


def units_of(array: xr.DataArray) -> str:
    return str(array.attrs.get("units", "")).replace("uJy", "µJy").replace("DN2", "DN²")


def date_of(image: xr.DataArray) -> str:
    """The date of a single epoch to the minute, or its MJD; empty where it has neither."""
    time, mjd = (image.coords.get(name) for name in ("time", "mjd"))
    if time is not None and time.ndim == 0 and time.dtype.kind == "M" and not np.isnat(time.values):
        return str(np.datetime_as_string(time.values, unit="m")).replace("T", " ")
    if mjd is not None and mjd.ndim == 0 and np.isfinite(mjd.values):
        return f"MJD {mjd.item():.4f}"
    return ""


def float_pixels(image: xr.DataArray) -> NDArray[np.floating[Any]]:
    """The pixel values as floats; `image` and its lazy labels stay as they are."""
    values = image.variable.values
    return values if values.dtype.kind == "f" else values.astype(np.float64)


def edges(image: xr.DataArray, dim: str) -> tuple[float, float]:
    """The outer edges of the first and last pixel along `dim`, in absolute pixels."""
    n = image.sizes[dim]
    centers = np.asarray(image.coords[dim].values if dim in image.coords else np.arange(n), dtype=float)
    if not evenly_spaced(centers):
        raise InputError(f"the pixels are not evenly spaced along {dim!r}; select a slice, not a list of pixels")
    half = (centers[1] - centers[0]) / 2 if n > 1 else 0.5
    return float(centers[0] - half), float(centers[-1] + half)


def evenly_spaced(labels: NDArray[Any]) -> bool:
    """Whether labels step by one value other than 0."""
    steps = np.diff(labels)
    return steps.size == 0 or bool(steps[0] != 0 and np.allclose(steps, steps[0]))


def moments(obj: Image, mjd: bool) -> NDArray[Any]:
    """The x values of a light curve: MJD, or datetimes."""
    if mjd and "mjd" in obj.coords:
        return np.atleast_1d(obj.coords["mjd"].values.astype(float))
    if "time" not in obj.coords:
        raise InputError(
            "the light curve has neither a coordinate 'time' nor 'mjd'; assign one with .assign_coords(time=...)"
        )
    time = np.atleast_1d(obj.coords["time"].values)
    return (time - MJD_EPOCH) / np.timedelta64(1, "D") if mjd else time
