"""Mask bit planes to boolean masks."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ztfxr.arrays import bits
from ztfxr.errors import InputError
from ztfxr.ops._apply import apply_images
from ztfxr.schema import MASK_PLANES, RECOMMENDED_PLANES, annotate, planes_to_bits

__all__ = ["get_flags", "mask", "resolve_planes"]

_NAMES = tuple(p.name for p in MASK_PLANES)


def get_flags(obj: xr.Dataset | xr.DataArray) -> xr.DataArray:
    """The bit planes of `obj`: itself, or its variable `flags`; `InputError` where it has none."""
    if isinstance(obj, xr.DataArray):
        if obj.dtype.kind not in "iu":
            raise InputError(
                f"mask planes are integers; {obj.name or 'the array'} is {obj.dtype}: call this on ds.flags"
            )
        return obj
    if "flags" not in obj:
        raise InputError("the Dataset has no variable 'flags'; open the frame with its mask image")
    return obj["flags"]


def resolve_planes(planes: Iterable[str] | int | None, keywords: dict[str, bool]) -> int:
    """Bits of a choice of planes: names or an integer (by default the recommended), keywords that add or remove."""
    if isinstance(planes, bool | str):
        planes = [str(planes)]
    start = RECOMMENDED_PLANES if planes is None else planes
    chosen = int(start) if isinstance(start, int | np.integer) else planes_to_bits(start)
    for name, wanted in keywords.items():
        value = planes_to_bits([name])
        chosen = chosen | value if wanted else chosen & ~value
    return chosen


def mask(
    obj: xr.Dataset | xr.DataArray,
    /,
    planes: Iterable[str] | int | None = None,
    *,
    grow: float = 0.0,
    **keywords: bool,
) -> xr.DataArray:
    """A boolean mask, True where the pixel is bad; lazy.

    Parameters
    ----------
    obj
        The bit planes (``ds.flags``, (..., y, x) integers), or a Dataset with them.
    planes
        Plane names, or their bits as an integer. By default IPAC's recommended set: every plane but `sexsources` and
        `psfsources`, which mark detected sources (6141), and ztfxr's own `outside`.
    grow
        Dilate the mask by a disk of this radius in pixels.
    **keywords
        ``tracks=True``, ``brightstarhalo=False``, ... add a plane to the set or take it away.

    Returns
    -------
    xarray.DataArray
        Boolean, same dimensions; ``attrs["planes"]`` names what was used.

    Raises
    ------
    InputError
        An unknown plane, or flags that are not integers.
    """
    flags = get_flags(obj)
    chosen = resolve_planes(planes, keywords)
    names = [p.name for p in MASK_PLANES if p.value & chosen]

    def decode(image: NDArray[np.integer]) -> NDArray[np.bool_]:
        return bits.any_bit(image, chosen & int(np.iinfo(image.dtype).max))

    if grow > 0:
        out = apply_images(lambda image: bits.grow(decode(image), grow), flags, outputs={"mask": ("y", "x")})["mask"]
        out = out.transpose(*flags.dims)
    else:
        out = xr.apply_ufunc(decode, flags, dask="parallelized", output_dtypes=[bool])
    return annotate(out, "mask", planes=" ".join(names))
