"""Filters of images: whether two names mean one filter, and what is refused where they do not."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ztfxr.arrays.types import Bools
from ztfxr.errors import InputError
from ztfxr.io.cameras import CAMERAS
from ztfxr.ops.mapping import bare

__all__ = ["band", "bands", "other_filter", "require_one_filter", "unlike"]

_UNKNOWN = frozenset({"", "nan", "none", "unknown", "n/a"})
_ZTF_NAMES = {name: known for name, known in CAMERAS["ztf"].filters.items() if not name.isdigit()}


def band(name: object) -> str:
    """What the names of one filter have in common: that of ``ztfg``, ``zg``, ``ZTF_g`` and ``g`` is ``g``.

    An unknown filter is "". Other names count as they are: R and r are two filters.
    """
    text = str(name).strip()
    if text.lower() in _UNKNOWN:
        return ""
    return _ZTF_NAMES.get(text.lower(), text).removeprefix("ztf")


def bands(names: Iterable[object]) -> dict[str, str]:
    """The bands among some names of filters, unknown ones aside, each with the first name that it has there."""
    found: dict[str, str] = {}
    for name in map(str, names):
        found.setdefault(band(name), name)
    found.pop("", None)
    return dict(sorted(found.items()))


def require_one_filter(image: xr.DataArray, *, compute: bool = False) -> None:
    """Refuse epochs of several filters, where that can be told without computing, or where that is allowed."""
    names = image.coords.get("filter")
    if names is None or (names.chunks is not None and not compute) or names.ndim == 0:
        return
    found = list(bands(names.values).values())
    if len(found) > 1:
        raise InputError(
            f"the epochs are of several filters, {', '.join(found)}, whose sum is of none: select one, for example "
            f"stack.isel(time=stack.filter.values == {found[0]!r})"
        )


def other_filter(image: xr.DataArray, reference: xr.DataArray) -> xr.DataArray | None:
    """True where an image is of another filter than its reference, without coordinates; as lazy as the names are.

    None where no image can be, since neither or only one names its filter. A filter that is unknown is no other.

    Raises
    ------
    InputError
        All images have one filter, which is known without computing, and it is another than the reference's.
    """
    names = [obj.coords.get("filter") for obj in (image, reference)]
    if names[0] is None or names[1] is None:
        return None
    differs: xr.DataArray = xr.apply_ufunc(
        _differ, *(bare(n) for n in names if n is not None), dask="parallelized", output_dtypes=[bool]
    )
    if differs.ndim or differs.chunks is not None:
        return differs
    if bool(differs):
        raise InputError(f"{unlike(names[0].values, names[1].values)}; take a reference of that filter")
    return None


def unlike(name: object, reference: object) -> str:
    """The sentence that names both filters."""
    return f"the image is of filter {str(name)!r}, its reference of {str(reference)!r}"


def _differ(names: NDArray[Any], others: NDArray[Any]) -> Bools:
    """Whether two known filters are not one, by name."""

    def one(a: object, b: object) -> bool:
        return "" not in (band(a), band(b)) and band(a) != band(b)

    return np.asarray(np.frompyfunc(one, 2, 1)(names, others), dtype=bool)
