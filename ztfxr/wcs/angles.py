"""Right ascensions and declinations in every form, as degrees: the one parser of all functions that take them."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from astropy import units as u
from astropy.coordinates import Angle
from numpy.typing import ArrayLike, NDArray

from ztfxr.arrays.types import Floats
from ztfxr.errors import InputError

__all__ = ["Angles", "degrees", "degrees_in", "degrees_of_text"]

Angles: TypeAlias = ArrayLike | u.Quantity
"""Numbers, which are degrees; quantities; or text."""


def degrees(name: str, values: Any) -> Floats:
    """An angle, or an array of them, as float64 degrees.

    Parameters
    ----------
    name
        ``"ra"`` or ``"dec"``: parts of a right ascension are hours.
    values
        Numbers, which are degrees; a `Quantity` or what else carries a unit of an angle; or text: a number of degrees,
        or parts as ``"03:51:36"``. A masked or empty entry is NaN.

    Raises
    ------
    InputError
        A unit that is no angle, or text that is none.
    """
    unit = getattr(values, "unit", None)
    if unit is None and hasattr(values, "attrs"):
        unit = values.attrs.get("units")
    has_value = hasattr(values, "unit") and unit is not None and hasattr(values, "value")
    held = values.value if has_value else getattr(values, "values", values)
    numbers = np.ma.asarray(held)
    if numbers.dtype.kind == "O" and _are_quantities(numbers):
        return np.array([degrees(name, one) for one in numbers.ravel()]).reshape(numbers.shape)
    if numbers.dtype.kind in "USO":
        return degrees_of_text(name, numbers)
    if numbers.dtype.kind not in "iuf":
        raise InputError(f"{name} is {numbers.dtype}, but degrees are needed, or text such as '03:51:36'")
    scale = degrees_in(unit, name)
    filled = np.asarray(np.ma.filled(numbers.astype(float), np.nan), dtype=float)
    return filled if scale == 1.0 else filled * scale


def _are_quantities(objects: Any) -> bool:
    return objects.size > 0 and all(isinstance(one, u.Quantity) for one in objects.ravel())


def degrees_in(unit: object, name: str) -> float:
    """How many degrees one of `unit` is, the unit of the column `name`; 1 where it has none."""
    text = str(unit or "deg")
    if text.lower().startswith("deg"):
        return 1.0
    parsed = u.Unit(text, parse_strict="silent")
    if not parsed.is_equivalent(u.deg):
        raise InputError(f"{name} is in {text!r}, which is no angle; degrees are needed")
    return float(parsed.to(u.deg))


def degrees_of_text(name: str, column: NDArray[Any]) -> Floats:
    """Text as degrees: plain numbers are degrees, right ascensions in parts are hours; masked or empty entries NaN."""
    out = np.full(column.shape, np.nan)
    for i, text in np.ndenumerate(np.ma.filled(column.astype(object), None)):
        if text is None or text == "" or text != text:
            continue
        try:
            out[i] = float(text)
        except ValueError:
            out[i] = _angle(name, str(text))
    return out


def _angle(name: str, text: str) -> float:
    try:
        return float(Angle(text, unit="hourangle" if name == "ra" else "deg").deg)
    except ValueError as error:
        raise InputError(f"{name} {text!r} is no angle; write degrees, or parts such as '03:51:36'") from error
