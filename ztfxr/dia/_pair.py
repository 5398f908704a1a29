"""Arrays without the coordinates of another exposure."""

from __future__ import annotations

import xarray as xr

__all__ = ["bare"]


def bare(array: xr.DataArray) -> xr.DataArray:
    """Without coordinates: the result's are the science image's, and a reference has another time, filter and
    exposure.
    """
    keep = {"time"} if "time" in array.dims else set()
    return array.drop_vars([k for k in array.coords if k not in keep])
