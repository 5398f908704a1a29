"""What a row of the schema says of a variable: its dimensions, dtype, unit and meaning."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["CORE_DIMS", "Spec"]

CORE_DIMS: tuple[str, ...] = (
    *("source", "star", "axis", "radius", "equation", "mode", "plane", "kterm", "term", "psf_term", "psf_coterm"),
    *("y", "x", "ky", "kx", "phi_y", "phi_x", "psf_y", "psf_x", "psf_dy", "psf_dx", "lag_y", "lag_x"),
    *("block_y", "block_x", "dy", "dx"),
)
"""Dimensions of the arrays of one image, in the order in which array code takes them; others are looped over."""

_ANY = "..."


@dataclass(frozen=True)
class Spec:
    """One variable: its name, dimensions, dtype, unit and meaning."""

    name: str
    dims: str
    """Its dimensions in order, such as ``"time? source radius?"``: those with a question mark may be missing. A bar
    parts two forms, and ``"..."`` stands for the dimensions of what it was computed from."""
    dtype: str
    units: str
    meaning: str
    fill: Any = None
    """What stands where there is no value, if not NaN, 0 or, in masks, True."""
    epoch_quality: bool = False
    """Whether the number says how well an epoch was differenced; it goes with light curves and runs then."""
    short: str = ""
    """A few words for the panel of a figure, where the number is drawn for every epoch."""

    @property
    def core_dims(self) -> tuple[str, ...]:
        """The dimensions that the arrays of one image always have; a stack of images adds its own in front."""
        return tuple(d for d in self.dims.split("|")[0].split() if d in CORE_DIMS)

    def fits(self, dims: Iterable[object]) -> bool:
        """Whether an array on `dims` is what the row says; loops over further dimensions may come first."""
        return any(_matches([str(d) for d in dims], form.split()) for form in self.dims.split("|"))

    @property
    def attrs(self) -> dict[str, Any]:
        """The attributes that the variable carries where pixels are in DN."""
        return self.attrs_in("DN")

    def attrs_in(self, unit: str) -> dict[str, Any]:
        """The attributes that the variable carries where pixels are in `unit`."""
        attrs: dict[str, Any] = {"long_name": self.meaning}
        if self.units:
            squared = f"{unit}2" if unit.isalpha() else f"({unit})2"
            attrs["units"] = {"DN": unit, "DN2": squared}.get(self.units, self.units)
        return attrs


def _matches(dims: Sequence[str], form: Sequence[str]) -> bool:
    """Whether the dimensions are those of a form in its order, some of its optional ones left out."""
    if _ANY in form:
        return True
    known = [d.rstrip("?") for d in form]
    needed = [d for d in form if not d.endswith("?")]
    first = dims.index(needed[0]) if needed and needed[0] in dims else len(dims)
    # What the form does not name is looped over, if it comes first; an image within a number is a mistake.
    loop = [d for d in dims[:first] if d not in known and d not in ("y", "x")]
    rest = [d for d in dims if d not in loop]
    return set(needed) <= set(rest) <= set(known) and rest == sorted(rest, key=known.index)
