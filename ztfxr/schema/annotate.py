"""Names, units and meanings put on variables by the schema, and what stands where there is no value."""

from __future__ import annotations

from contextlib import suppress
from functools import lru_cache
from typing import Any

import numpy as np
import xarray as xr
from astropy import units as u

from ztfxr._quiet import quiet
from ztfxr.schema.attributes import Attrs
from ztfxr.schema.planes import FLAG_PLANES, flag_attrs, planes_to_bits
from ztfxr.schema.variables import SPECS

__all__ = ["annotate", "annotate_all", "fill_value"]

_STATED_FLAGS = ("flag_masks", "flag_meanings", "bad_planes")
_ANGLES = {"pixel", "arcsec", "arcmin", "deg", "mas", "rad"}
_BRIGHTNESSES = {"DN", "DN2", "electron", "uJy", "erg/s/cm2/A"}
_NO_BRIGHTNESS = ({spec.units for spec in SPECS.values()} | _ANGLES) - _BRIGHTNESSES


def annotate(array: xr.DataArray, name: str | None = None, *, unit: str | None = None, **extra: object) -> xr.DataArray:
    """`array` with the name and attributes that the schema gives to `name`; pixels untouched, lazy.

    Parameters
    ----------
    array
        The array, whose own name is looked up where `name` is None.
    name
        A name of the schema.
    unit
        The unit of the image that was measured, for quantities that the schema has in DN. Where it is None, a unit
        that the array states stays, if it is one of the same quantity; an array without one is in the schema's.
    **extra
        Further attributes, which come before all others.
    """
    wanted = str(name or array.name)
    out = array.copy(deep=False).rename(wanted)
    out.attrs = _attrs(wanted, array.attrs, unit) | extra
    return out


def annotate_all(dataset: xr.Dataset, *, unit: str | None = None) -> xr.Dataset:
    """`dataset` with every variable and coordinate that the schema knows annotated; lazy. `unit` as in `annotate`."""
    out = dataset.copy()
    for name, variable in out.variables.items():
        if name in SPECS:
            variable.attrs = _attrs(str(name), variable.attrs, unit)
    return out


def _attrs(name: str, stated: Attrs, unit: str | None) -> dict[str, Any]:
    """The schema's attributes, but for what the variable says better: its unit, and the planes of its flags.

    SEEING comes in pixels or in arcsec, and another camera's mask has planes of its own.
    """
    spec = SPECS[name]
    attrs = spec.attrs_in(unit or "DN")
    explicit = unit is not None and spec.units in ("DN", "DN2")
    if "units" in stated and not explicit and _measures_the_same(str(stated["units"]), spec.units):
        attrs["units"] = stated["units"]
    if name in FLAG_PLANES:
        attrs |= flag_attrs(FLAG_PLANES[name])
        if {"flag_masks", "flag_meanings"} <= set(stated):
            attrs |= {k: stated[k] for k in _STATED_FLAGS if k in stated}
    return attrs


@lru_cache(maxsize=1024)
def _measures_the_same(stated: str, units: str) -> bool:
    """Whether a stated unit can be that of a quantity which the schema has in `units`.

    xarray's arithmetic hands on the attributes of what went in, so that a magnitude made of counts may state DN.
    """
    squared = stated.endswith(("2", "²"))
    if units in ("DN", "DN2"):
        return squared == (units == "DN2") and stated not in _NO_BRIGHTNESS
    if not units:
        return False
    if units == "electron/DN":
        return stated.startswith("electron/")
    if {stated, units} <= _ANGLES:
        return True
    with suppress(ValueError, TypeError), quiet(u.UnitsWarning):
        return bool(u.Unit(stated.replace("adu", "DN")).is_equivalent(u.Unit(units)))
    # What astropy cannot read may be anything.
    return True


def fill_value(name: str, dtype: np.dtype[Any] | None = None) -> Any:
    """What stands where there is no pixel or no answer: the plane `outside` in `flags`, True in masks, NaN, else 0."""
    if name == "flags":
        return planes_to_bits(["outside"])
    spec = SPECS.get(name)
    if spec is not None and spec.fill is not None:
        return spec.fill
    kind = np.dtype(SPECS[name].dtype if dtype is None else dtype).kind
    return {"b": True, "f": np.nan, "M": np.datetime64("NaT", "ns"), "U": ""}.get(kind, 0)
