"""The xarray index of `ra` and `dec`: WCS cards and an integer window on the full frame, never arrays."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Self

import numpy as np
import xarray as xr
from astropy.wcs import WCS
from xarray.core.indexing import CoordinateTransformIndexingAdapter, IndexSelResult
from xarray.indexes import CoordinateTransform, CoordinateTransformIndex

from ztfxr.errors import AlignmentError, InputError, OutsideFrameError
from ztfxr.wcs.angles import degrees
from ztfxr.wcs.cards import build_wcs, pixel_of, same_cards, sky_of
from ztfxr.wcs.grid import NAMES, SkyPlanes, is_grid, sky_on_grid

__all__ = ["WCSIndex", "WCSTransform", "Window"]


@dataclass(frozen=True)
class Window:
    """A half-open window of pixels of a full frame, in (y, x) order."""

    start: tuple[int, int]
    stop: tuple[int, int]

    @property
    def shape(self) -> tuple[int, int]:
        """Size of the window, (y, x)."""
        return (self.stop[0] - self.start[0], self.stop[1] - self.start[1])

    def __and__(self, other: Window) -> Window:
        start = (max(self.start[0], other.start[0]), max(self.start[1], other.start[1]))
        stop = (max(start[0], min(self.stop[0], other.stop[0])), max(start[1], min(self.stop[1], other.stop[1])))
        return Window(start, stop)

    def __or__(self, other: Window) -> Window:
        start = (min(self.start[0], other.start[0]), min(self.start[1], other.start[1]))
        return Window(start, (max(self.stop[0], other.stop[0]), max(self.stop[1], other.stop[1])))


class WCSTransform(CoordinateTransform):
    """Array positions of a window to RA and Dec, and back; holds text and integers only."""

    def __init__(self, cards: str, window: Window, dims: tuple[str, str] = ("y", "x")) -> None:
        super().__init__(NAMES, dict(zip(dims, window.shape, strict=True)))
        self.cards, self.window = cards, window

    @property
    def wcs(self) -> WCS:
        """The full frame's WCS; each thread has its own."""
        return build_wcs(self.cards)

    def forward(self, dim_positions: dict[str, Any]) -> dict[Hashable, Any]:
        """RA and Dec of array positions."""
        (yd, xd), (y0, x0) = self.dims, self.window.start
        y, x = np.asarray(dim_positions[yd]) + float(y0), np.asarray(dim_positions[xd]) + float(x0)
        if is_grid(y, x):
            return sky_on_grid(self.cards, y[:, 0], x[0])
        return dict(zip(self.coord_names, sky_of(self.cards, y, x), strict=True))

    def reverse(self, coord_labels: dict[Hashable, Any]) -> dict[str, Any]:
        """Array positions of RA and Dec; NaN where the sky position has no pixel."""
        (yd, xd), (y0, x0) = self.dims, self.window.start
        x, y = pixel_of(self.cards, *(np.asarray(coord_labels[n], dtype=float) for n in self.coord_names))
        return {yd: y - y0, xd: x - x0}

    def generate_coords(self, dims: tuple[str, ...] | None = None) -> dict[Hashable, Any]:
        """RA and Dec of every pixel of the window."""
        y, x = (np.arange(a, b, dtype=float) for a, b in zip(self.window.start, self.window.stop, strict=True))
        sky = sky_on_grid(self.cards, y, x)
        turned = dims is not None and tuple(dims) != self.dims
        return SkyPlanes(lambda i: sky[NAMES[i]].T) if turned else sky

    def equals(self, other: CoordinateTransform, *, exclude: frozenset[Hashable] | None = None) -> bool:
        """Whether both describe the same window of the same frame; along dimensions to `exclude` windows may differ."""
        if not isinstance(other, WCSTransform) or not same_cards(self.cards, other.cards):
            return False
        kept = [axis for axis, dim in enumerate(self.dims) if dim not in (exclude or ())]
        own, theirs = self.window, other.window
        return all((own.start[i], own.stop[i]) == (theirs.start[i], theirs.stop[i]) for i in kept)

    def __dask_tokenize__(self) -> tuple[Any, ...]:
        return ("ztfxr.WCSTransform", self.cards, self.window.start, self.window.stop, self.dims)


class _SkyVariable(xr.Variable):
    """A sky coordinate that loading the image around it leaves lazy.

    Its values come from the WCS, not from a file: in memory they are two planes of float64 that few users look at, four
    times the image, and take longer than to read it.
    """

    def load(self, **kwargs: Any) -> Self:
        """Load what is not computed from the WCS."""
        return self if isinstance(self._data, CoordinateTransformIndexingAdapter) else super().load(**kwargs)

    async def load_async(self, **kwargs: Any) -> Self:
        """Load what is not computed from the WCS."""
        return self.load(**kwargs)


class WCSIndex(CoordinateTransformIndex):
    """An xarray index for `ra` and `dec` over (y, x) that survives slicing, joins exactly and stays lazy.

    Two windows of one frame join on their exact overlap. Images with different WCS refuse to align
    (`AlignmentError`) instead of pairing pixels that see different sky. Assignment (``ds["name"] = image``) is beyond
    the reach of an index: xarray drops the sky of what is assigned; `same_grid` checks.
    """

    transform: WCSTransform

    def _with(self, window: Window) -> Self:
        dims = (str(self.transform.dims[0]), str(self.transform.dims[1]))
        return type(self)(WCSTransform(self.transform.cards, window, dims))

    def create_variables(self, variables: Mapping[Any, xr.Variable] | None = None) -> dict[Any, xr.Variable]:
        """`ra` and `dec`, which stay lazy when an image is loaded."""
        created = super().create_variables(variables)
        return {k: _SkyVariable(v.dims, v._data, v.attrs, fastpath=True) for k, v in created.items()}

    def isel(self, indexers: Mapping[Any, Any]) -> Self | None:
        """The index of a slice; None (the labels stay, without an index) for any other selection."""
        start, stop = list(self.transform.window.start), list(self.transform.window.stop)
        for axis, dim in enumerate(self.transform.dims):
            indexer = indexers.get(dim, slice(None))
            if not isinstance(indexer, slice):
                return None
            low, high, step = indexer.indices(self.transform.dim_size[dim])
            if step != 1:
                return None
            origin = self.transform.window.start[axis]
            start[axis], stop[axis] = origin + low, origin + max(low, high)
        return self._with(Window((start[0], start[1]), (stop[0], stop[1])))

    def sel(self, labels: dict[Any, Any], method: Any = None, tolerance: Any = None) -> IndexSelResult:
        """The nearest pixel to sky positions, or the window around a box of sky; degrees.

        Positions are numbers or arrays that broadcast; a box is ``ra=slice(west, east), dec=slice(south, north)``, may
        cross RA 0, and gives the smallest window with every pixel whose center lies in it. `OutsideFrameError` where a
        position or the whole box is off the image.
        """
        if method not in (None, "nearest"):
            raise InputError(f"sky positions select the nearest pixel; method={method!r} is not known")
        if tolerance is not None:
            raise InputError(f"a position selects the pixel that it lies in: tolerance={tolerance!r} has no meaning")
        if set(labels) != set(NAMES):
            raise InputError(f"select with both ra= and dec=; got {', '.join(map(str, labels))}")
        if any(isinstance(v, slice) for v in labels.values()):
            return IndexSelResult(self._box(labels["ra"], labels["dec"]))
        positions = _sky_labels(labels)
        self._refuse_outside(positions)
        return super().sel(positions, method="nearest")

    def _box(self, ra: Any, dec: Any) -> dict[Hashable, slice]:
        """Slices of the smallest window that holds the pixel centers of a box."""
        (west, east), (south, north) = (_bounds(name, box) for name, box in zip(NAMES, (ra, dec), strict=True))
        width = east - west if abs(east - west) <= 180.0 else (east - west) % 360.0
        if not 0.0 <= width <= 180.0 or south > north:
            raise InputError(
                f"a box runs eastwards, over at most 180 degrees, and northwards: ra=slice({west}, {east}), "
                f"dec=slice({south}, {north}) does not"
            )
        sky = self.transform.generate_coords()
        inside = ((sky["ra"] - west) % 360.0 <= width) & (sky["dec"] >= south) & (sky["dec"] <= north)
        if not inside.any():
            raise OutsideFrameError(f"no pixel of the image {self._repr_inline_(80)} lies in the box")
        found = (np.flatnonzero(inside.any(axis=axis)) for axis in (1, 0))
        return {d: slice(int(n[0]), int(n[-1]) + 1) for d, n in zip(self.transform.dims, found, strict=True)}

    def _refuse_outside(self, labels: Mapping[Any, xr.DataArray | xr.Variable]) -> None:
        found = self.transform.reverse({n: labels[n].values for n in NAMES})
        bad = np.zeros(np.shape(labels["ra"]), dtype=bool)
        for dim, position in found.items():
            bad |= ~((np.round(position) >= 0) & (np.round(position) < self.transform.dim_size[dim]))
        if bad.any():
            raise OutsideFrameError(
                f"{int(bad.sum())} of {bad.size} sky positions fall outside the image {self._repr_inline_(80)}; "
                "remove them, or use ztfxr.stamp, which pads"
            )

    def require_same_frame(self, other: WCSIndex) -> None:
        """Raise `AlignmentError` where `other` is of another sky."""
        if not same_cards(self.transform.cards, other.transform.cards):
            raise AlignmentError(
                "the images have different WCS, so their pixels do not see the same sky; "
                "resample one onto the other first"
            )

    def join(self, other: Self, how: Any = "inner") -> Self:
        """The overlap (inner) or the enclosing window (outer) of two windows of one frame."""
        self.require_same_frame(other)
        a, b = self.transform.window, other.transform.window
        return self._with(a & b if how == "inner" else a | b)

    def reindex_like(self, other: Self, method: Any = None, tolerance: Any = None) -> dict[Hashable, Any]:  # noqa: ARG002
        """Positions in this window of each pixel of `other`, -1 where it has none."""
        self.require_same_frame(other)
        a, b = self.transform.window, other.transform.window
        found: dict[Hashable, Any] = {}
        for axis, dim in enumerate(self.transform.dims):
            position = np.arange(b.start[axis], b.stop[axis]) - a.start[axis]
            found[dim] = np.where((position >= 0) & (position < a.shape[axis]), position, -1)
        return found

    @classmethod
    def concat(cls, indexes: Any, dim: Hashable, positions: Any = None) -> WCSIndex:  # noqa: ARG003
        """The common index of images stacked along a new dimension, or that of neighboring slices put together."""
        first: WCSIndex = indexes[0]
        for other in indexes[1:]:
            first.require_same_frame(other)
        if dim in first.transform.dims:
            return first._joined(indexes, first.transform.dims.index(dim))
        for other in indexes[1:]:
            if not first.equals(other):
                raise AlignmentError("cannot stack windows of different size or place; select the same window first")
        return first

    def _joined(self, indexes: Any, axis: int) -> WCSIndex:
        """The index of slices of one frame that follow each other along an axis."""
        windows = [index.transform.window for index in indexes]
        across = {(w.start[1 - axis], w.stop[1 - axis]) for w in windows}
        steps = [after.start[axis] - before.stop[axis] for before, after in pairwise(windows)]
        if len(across) > 1 or any(steps):
            raise AlignmentError(
                f"these are no neighboring slices of one frame, in their order along {self.transform.dims[axis]!r}: "
                "to put them together all the same, take their sky off with ztfxr.drop_wcs"
            )
        start, stop = list(windows[0].start), list(windows[0].stop)
        stop[axis] = windows[-1].stop[axis]
        return self._with(Window((start[0], start[1]), (stop[0], stop[1])))

    def _repr_inline_(self, max_width: int) -> str:  # noqa: ARG002
        (y0, x0), (y1, x1) = self.transform.window.start, self.transform.window.stop
        return f"WCSIndex(y={y0}:{y1}, x={x0}:{x1})"


def _sky_labels(labels: Mapping[Any, Any]) -> dict[Any, xr.DataArray]:
    """Sky positions as arrays of float that broadcast against each other."""
    try:
        numbers = {name: degrees(str(name), value) for name, value in labels.items()}
        arrays = [xr.DataArray(numbers[name], dims=getattr(v, "dims", None)) for name, v in labels.items()]
        return dict(zip(labels, xr.broadcast(*arrays), strict=True))
    except (TypeError, ValueError) as error:
        raise InputError(f"ra and dec are degrees, numbers or arrays of one shape: {error}") from error


def _bounds(name: str, box: Any) -> tuple[float, float]:
    try:
        if box.step is None and None not in (box.start, box.stop):
            return float(degrees(name, box.start)), float(degrees(name, box.stop))
    except (AttributeError, TypeError, ValueError):
        pass
    raise InputError(f"a box is ra=slice(west, east), dec=slice(south, north) in degrees; got {name} as {box!r}")
