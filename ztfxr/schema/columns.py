"""The names that tables give to positions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["COLUMN_ALIASES", "find_columns"]

COLUMN_ALIASES: Mapping[str, tuple[str, ...]] = {
    "ra": ("ra", "ra_icrs", "raj2000", "_raj2000", "ra_deg", "ramean", "alphawin_j2000", "alpha_j2000"),
    "dec": ("dec", "de_icrs", "dej2000", "_dej2000", "dec_deg", "decmean", "deltawin_j2000", "delta_j2000"),
    "x": ("x_centroid", "xcentroid", "x_pixel", "x"),
    "y": ("y_centroid", "ycentroid", "y_pixel", "y"),
    "id": ("source_id", "id", "name"),
}
"""The names of each column, best first; those of the sky count in any case.

`X`, `X_IMAGE` and the like count from 1 and are no pixels of ztfxr.
"""


def find_columns(names: Iterable[object]) -> dict[str, Any]:
    """Which of the columns `names` are the keys of `COLUMN_ALIASES`."""
    exact = {str(name): name for name in names}
    lower = {name.lower(): original for name, original in reversed(exact.items())}
    found = {}
    for column, aliases in COLUMN_ALIASES.items():
        known = lower | exact if column in ("ra", "dec") else exact
        present = [known[alias] for alias in aliases if alias in known]
        if present:
            found[column] = present[0]
    return found
