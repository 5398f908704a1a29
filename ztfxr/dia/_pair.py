"""What every method that pairs a science image with a reference shares: its inputs, and the shape of its results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from ztfxr.arrays.matching.cutouts import unit_position
from ztfxr.arrays.polynomials import order_of, polynomial_terms
from ztfxr.errors import InputError
from ztfxr.ops._apply import IMAGE
from ztfxr.ops.background import get_image, get_mask
from ztfxr.ops.background import variance as noise_model
from ztfxr.ops.positions import pixel_origin

__all__ = [
    "KernelFrame",
    "bare",
    "epoch_results",
    "has_variance",
    "kept_attrs",
    "known_variance",
    "reference_image",
    "reference_mask",
    "reference_noise",
]


@dataclass(frozen=True)
class KernelFrame:
    """The pixels over which the kernel's polynomials run from -1 to 1: the first absolute ones, and how many."""

    y: float
    x: float
    rows: int
    columns: int

    @classmethod
    def of(cls, diff: xr.Dataset) -> KernelFrame:
        """That of a difference image; an attribute `frame` (y, x, rows, columns) wins over the image itself."""
        if "frame" in diff.attrs:
            y, x, rows, columns = diff.attrs["frame"]
            return cls(float(y), float(x), int(rows), int(columns))
        first = pixel_origin(diff["difference"])
        return cls(float(first["y"]), float(first["x"]), diff.sizes["y"], diff.sizes["x"])

    def coefficients_of(self, diff: xr.Dataset, kernel: xr.DataArray) -> xr.DataArray:
        """Coefficients (..., kterm, ky, kx) over this frame as those over the pixels of `diff`, a slice of it."""
        first = pixel_origin(diff["difference"])
        own = KernelFrame(float(first["y"]), float(first["x"]), diff.sizes["y"], diff.sizes["x"])
        if own == self:
            return kernel
        order = order_of(kernel.sizes["kterm"])
        nodes = np.linspace(0.0, 1.0, order + 1)
        y, x = (p.ravel() for p in np.meshgrid(nodes * (own.rows - 1), nodes * (own.columns - 1), indexing="ij"))
        ours = polynomial_terms(unit_position(y, own.rows), unit_position(x, own.columns), order)
        v, u = unit_position(y + own.y - self.y, self.rows), unit_position(x + own.x - self.x, self.columns)
        change = np.linalg.lstsq(ours, polynomial_terms(v, u, order), rcond=None)[0]
        turned: xr.DataArray = xr.dot(xr.DataArray(change, dims=("_own", "kterm")), kernel, dim="kterm")
        return turned.rename(_own="kterm").transpose(*kernel.dims)


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
