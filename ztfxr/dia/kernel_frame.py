"""The pixels over which a matching kernel's polynomials run, and the kernel at any of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr

from ztfxr.arrays.polynomials import order_of, polynomial_terms, unit_position
from ztfxr.arrays.types import Floats
from ztfxr.errors import InputError
from ztfxr.ops.positions import pixel_origin

__all__ = ["KernelFrame", "coefficients", "local_coefficients"]

_ATTRIBUTE = "frame"


@dataclass(frozen=True)
class KernelFrame:
    """The pixels over which the kernel's polynomials run from -1 to 1.

    Parameters
    ----------
    y, x
        The first absolute row and column.
    rows, columns
        How many there are.
    """

    y: int
    x: int
    rows: int
    columns: int

    @classmethod
    def of_image(cls, image: xr.DataArray) -> KernelFrame:
        """All pixels of an image; `InputError` where they are not single pixels of a frame (reversed, binned)."""
        origin = pixel_origin(image)
        return cls(origin["y"], origin["x"], image.sizes["y"], image.sizes["x"])

    @classmethod
    def of(cls, diff: xr.Dataset) -> KernelFrame:
        """The frame that a difference or a kernel solution states, also of a slice of it; else that of its pixels."""
        if _ATTRIBUTE in diff.attrs:
            y, x, rows, columns = (int(value) for value in diff.attrs[_ATTRIBUTE])
            return cls(y, x, rows, columns)
        if "difference" not in diff:
            raise InputError(
                f"nothing says over which pixels the kernel varies: the attribute {_ATTRIBUTE!r} is missing; take the "
                "result of ztfxr.difference or ztfxr.solve_kernel with its attributes"
            )
        return cls.of_image(diff["difference"])

    def attrs(self) -> dict[str, list[int]]:
        """The attribute from which `of` reads this frame."""
        return {_ATTRIBUTE: [self.y, self.x, self.rows, self.columns]}

    def terms(self, y: Floats, x: Floats, number: int) -> Floats:
        """The first `number` polynomial terms at absolute positions, (position, term)."""
        v, u = unit_position(y - self.y, self.rows), unit_position(x - self.x, self.columns)
        return np.ascontiguousarray(polynomial_terms(v, u, order_of(number))[..., :number])


def coefficients(diff: xr.Dataset) -> xr.DataArray:
    """The kernel's coefficients (..., kterm, ky, kx) over its frame; where there are none, the kernel as constant."""
    return diff["kernel_coeff"] if "kernel_coeff" in diff else diff["kernel"].expand_dims("kterm")


def local_coefficients(diff: xr.Dataset) -> xr.DataArray:
    """`coefficients`, but over the pixels of `diff`, which may be a slice of the images that were matched."""
    kernel = coefficients(diff)
    if _ATTRIBUTE not in diff.attrs:
        return kernel
    frame, own = KernelFrame.of(diff), KernelFrame.of_image(diff["difference"])
    if own == frame:
        return kernel
    number = kernel.sizes["kterm"]
    nodes = np.linspace(0.0, 1.0, order_of(number) + 1)
    grid = np.meshgrid(own.y + nodes * (own.rows - 1), own.x + nodes * (own.columns - 1), indexing="ij")
    y, x = (places.ravel() for places in grid)
    change = np.linalg.lstsq(own.terms(y, x, number), frame.terms(y, x, number), rcond=None)[0]
    turned: xr.DataArray = xr.dot(xr.DataArray(change, dims=("_own", "kterm")), kernel, dim="kterm")
    return turned.rename(_own="kterm").transpose(*kernel.dims)
