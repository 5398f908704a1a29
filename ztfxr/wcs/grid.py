"""Sky positions of whole grids of pixels, interpolated where that is exact enough."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import lru_cache
from typing import Any, cast

import numpy as np

from ztfxr.arrays.geometry.chebyshev import GridExpansion, expand
from ztfxr.arrays.types import Floats
from ztfxr.wcs.cards import sky_of

__all__ = ["NAMES", "SkyPlanes", "is_grid", "sky_on_grid"]

NAMES = ("ra", "dec")

_LARGE_GRID = 100_000
_GRID_TOLERANCE_DEG = 1e-8


class SkyPlanes(dict[Hashable, Any]):
    """`ra` and `dec` of a grid, each worked out when it is asked for: of a full frame one takes 76 MB."""

    def __init__(self, plane: Callable[[int], Floats]) -> None:
        super().__init__()
        self._plane = plane

    def __missing__(self, name: Hashable) -> Floats:
        self[name] = self._plane(NAMES.index(str(name)))
        return cast("Floats", self[name])


@lru_cache(maxsize=64)
def _grid_expansion(cards: str, bounds: tuple[float, float, float, float]) -> tuple[GridExpansion, bool]:
    """The expansion of (ra, dec) over `bounds`, and whether its RA may leave 0 to 360 degrees."""
    y0, y1, x0, x1 = bounds
    ra0 = float(sky_of(cards, np.array((y0 + y1) / 2), np.array((x0 + x1) / 2))[0])

    def offset(y: Floats, x: Floats) -> tuple[Floats, Floats]:
        lon, lat = sky_of(cards, y, x)
        return (lon - ra0 + 180.0) % 360.0 - 180.0, lat

    found = expand(offset, bounds)
    reach = float(np.abs(found.coefficients[0]).sum())
    return found.plus(ra0, 0.0), not reach < ra0 < 360.0 - reach


def sky_on_grid(cards: str, y: Floats, x: Floats) -> dict[Hashable, Any]:
    """`ra` and `dec` in degrees, by name, on the grid of 1-D pixel positions `y`, `x`; each of shape (y, x).

    Grids of more than 1e5 pixels are interpolated by a tensor Chebyshev expansion where it is measured to
    be good to 1e-8 deg (4e-5 px of ZTF); near a pole, where it is not, every pixel is evaluated.
    """
    if y.size * x.size > _LARGE_GRID:
        bounds = (float(y.min()), float(y.max()), float(x.min()), float(x.max()))
        expansion, wraps = _grid_expansion(cards, bounds)
        if expansion.error < _GRID_TOLERANCE_DEG:
            return SkyPlanes(lambda i: _wrapped(expansion.plane(i, y, x), wraps and NAMES[i] == "ra"))
    yy, xx = np.meshgrid(y, x, indexing="ij")
    return dict(zip(NAMES, sky_of(cards, yy, xx), strict=True))


def _wrapped(degrees: Floats, wraps: bool) -> Floats:
    return np.remainder(degrees, 360.0, out=degrees) if wraps else degrees


def is_grid(y: Floats, x: Floats) -> bool:
    """Whether 2-D positions are the mesh of a column of rows and a row of columns, and large."""
    large = y.ndim == 2 and y.shape == x.shape and y.size > _LARGE_GRID
    return large and bool((y == y[:, :1]).all() and (x == x[:1]).all())
