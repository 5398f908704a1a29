"""Sky labels: lazy `ra` and `dec` coordinates from a FITS WCS, and conversions between pixels and sky.

An image's WCS is the text of its FITS header cards and an integer window on the full frame. Slicing moves
the window; nothing is ever recomputed or approximated twice.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, Self, TypeVar, cast

import numpy as np
import xarray as xr
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.wcs import WCS, FITSFixedWarning
from numpy.typing import ArrayLike
from xarray.core.indexing import CoordinateTransformIndexingAdapter, IndexSelResult
from xarray.indexes import CoordinateTransform, CoordinateTransformIndex

from ztfxr._quiet import quiet
from ztfxr.arrays.geometry.chebyshev import GridExpansion, expand
from ztfxr.arrays.types import Floats
from ztfxr.errors import AlignmentError, InputError, MissingWCSError, OutsideFrameError
from ztfxr.schema import SPECS

__all__ = [
    "WCSIndex",
    "WCSTransform",
    "Window",
    "assign_wcs",
    "drop_wcs",
    "get_wcs",
    "has_wcs",
    "pixel_to_sky",
    "same_grid",
    "sky_to_pixel",
    "wcs_cards",
]

T = TypeVar("T", xr.Dataset, xr.DataArray)

_NAMES = ("ra", "dec")
_KEYWORDS = ("WCSAXES", "RADESYS", "RADECSYS", "EQUINOX", "LONPOLE", "LATPOLE", "MJD-OBS", "DATE-OBS", "RA", "DEC")
_STEMS = ("CTYPE", "CUNIT", "CRPIX", "CRVAL", "CDELT", "CROTA", "CD1_", "CD2_", "PC1_", "PC2_", "PV1_", "PV2_")
_SIP = re.compile(r"[AB]P?_(\d|ORDER|DMAX)")
_DISTORTION = re.compile(r"PV[12]_|[AB]_(\d|ORDER)")
_LARGE_GRID = 100_000
_GRID_TOLERANCE_DEG = 1e-8


def wcs_cards(header: fits.Header) -> str | None:
    """The celestial WCS cards of `header` as text, or None where it has no celestial WCS.

    The pointing (RA, DEC) goes with them, so that a cut-out or a stack knows it too; it plays no part in the WCS.
    Projections written as TAN with SCAMP's PV cards become TPV, which is what they mean.
    """
    cards: dict[str, Any] = {}
    for card in header.cards:
        key = card.keyword
        if key in _KEYWORDS or key.startswith(_STEMS) or _SIP.match(key):
            cards[key] = card.value
    axes = (str(cards.get("CTYPE1", "")), str(cards.get("CTYPE2", "")))
    if not (axes[0].startswith("RA--") and axes[1].startswith("DEC-")) or "CRVAL1" not in cards:
        return None
    if axes == ("RA---TAN", "DEC--TAN") and any(k.startswith(("PV1_", "PV2_")) for k in cards):
        cards["CTYPE1"], cards["CTYPE2"] = "RA---TPV", "DEC--TPV"
    if "RADECSYS" in cards:
        cards.setdefault("RADESYS", cards.pop("RADECSYS"))
    return "\n".join(_card(key, value) for key, value in cards.items())


def _card(key: str, value: Any) -> str:
    """A header card as text; `fits.Card` takes ten times as long over a number, and cuts it to 20 characters."""
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f"{key:8}= {repr(value).upper():>20}"
    return str(fits.Card(key, value)).rstrip()


_local = threading.local()


def _build(cards: str) -> WCS:
    """An `astropy.wcs.WCS` of the cards, this thread's own: wcslib structures are not shared between threads."""
    cache: dict[str, WCS] = _local.__dict__.setdefault("cache", {})
    if cards not in cache:
        if len(cache) > 256:
            cache.clear()
        with quiet(FITSFixedWarning):
            wcs = WCS(fits.Header.fromstring(cards, sep="\n"), naxis=2)
            wcs.wcs.set()
        cache[cards] = wcs
    return cache[cards]


def _exact_sky(cards: str, y: Floats, x: Floats) -> tuple[Floats, Floats]:
    lon, lat = _build(cards).all_pix2world(x, y, 0)
    return np.asarray(lon, dtype=float), np.asarray(lat, dtype=float)


class _Sky(dict[Hashable, Any]):
    """`ra` and `dec` of a grid, each worked out when it is asked for: of a full frame one takes 76 MB."""

    def __init__(self, plane: Callable[[int], Floats]) -> None:
        super().__init__()
        self._plane = plane

    def __missing__(self, name: Hashable) -> Floats:
        self[name] = self._plane(_NAMES.index(str(name)))
        return cast("Floats", self[name])


@lru_cache(maxsize=64)
def _grid_expansion(cards: str, bounds: tuple[float, float, float, float]) -> tuple[GridExpansion, bool]:
    """The expansion of (ra, dec) over `bounds`, and whether its RA may leave 0 to 360 degrees."""
    y0, y1, x0, x1 = bounds
    ra0 = float(_exact_sky(cards, np.array((y0 + y1) / 2), np.array((x0 + x1) / 2))[0])

    def offset(y: Floats, x: Floats) -> tuple[Floats, Floats]:
        lon, lat = _exact_sky(cards, y, x)
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
            return _Sky(lambda i: _wrapped(expansion.plane(i, y, x), wraps and _NAMES[i] == "ra"))
    yy, xx = np.meshgrid(y, x, indexing="ij")
    return dict(zip(_NAMES, _exact_sky(cards, yy, xx), strict=True))


def _wrapped(degrees: Floats, wraps: bool) -> Floats:
    return np.remainder(degrees, 360.0, out=degrees) if wraps else degrees


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
        super().__init__(_NAMES, dict(zip(dims, window.shape, strict=True)))
        self.cards, self.window = cards, window

    @property
    def wcs(self) -> WCS:
        """The full frame's WCS; each thread has its own."""
        return _build(self.cards)

    def forward(self, dim_positions: dict[str, Any]) -> dict[Hashable, Any]:
        """RA and Dec of array positions."""
        (yd, xd), (y0, x0) = self.dims, self.window.start
        y, x = np.asarray(dim_positions[yd]) + float(y0), np.asarray(dim_positions[xd]) + float(x0)
        if _is_grid(y, x):
            return sky_on_grid(self.cards, y[:, 0], x[0])
        return dict(zip(self.coord_names, _exact_sky(self.cards, y, x), strict=True))

    def reverse(self, coord_labels: dict[Hashable, Any]) -> dict[str, Any]:
        """Array positions of RA and Dec; NaN where the sky position has no pixel."""
        (yd, xd), (y0, x0) = self.dims, self.window.start
        x, y = _exact_pixel(self.cards, *(np.asarray(coord_labels[n], dtype=float) for n in self.coord_names))
        return {yd: y - y0, xd: x - x0}

    def generate_coords(self, dims: tuple[str, ...] | None = None) -> dict[Hashable, Any]:
        """RA and Dec of every pixel of the window."""
        y, x = (np.arange(a, b, dtype=float) for a, b in zip(self.window.start, self.window.stop, strict=True))
        sky = sky_on_grid(self.cards, y, x)
        turned = dims is not None and tuple(dims) != self.dims
        return _Sky(lambda i: sky[_NAMES[i]].T) if turned else sky

    def equals(self, other: CoordinateTransform, **kwargs: Any) -> bool:  # noqa: ARG002
        """Whether both describe the same window of the same frame."""
        return isinstance(other, WCSTransform) and self.window == other.window and _same_cards(self.cards, other.cards)

    def __dask_tokenize__(self) -> tuple[Any, ...]:
        return ("ztfxr.WCSTransform", self.cards, self.window.start, self.window.stop, self.dims)


def _is_grid(y: Floats, x: Floats) -> bool:
    """Whether 2-D positions are the mesh of a column of rows and a row of columns, and large."""
    large = y.ndim == 2 and y.shape == x.shape and y.size > _LARGE_GRID
    return large and bool((y == y[:, :1]).all() and (x == x[:1]).all())


def _exact_pixel(cards: str, ra: Floats, dec: Floats) -> tuple[Floats, Floats]:
    """0-based x, y; NaN where the position lies on the far side of the sky."""
    wcs = _build(cards)
    finite = np.isfinite(ra) & np.isfinite(dec)
    near = np.zeros(np.shape(ra), dtype=bool)
    lon0, lat0 = np.deg2rad(wcs.wcs.crval)
    lon, lat = np.deg2rad(np.where(finite, ra, 0.0)), np.deg2rad(np.where(finite, dec, 0.0))
    near = finite & (np.sin(lat) * np.sin(lat0) + np.cos(lat) * np.cos(lat0) * np.cos(lon - lon0) > 0.5)
    x, y = np.full(np.shape(ra), np.nan), np.full(np.shape(ra), np.nan)
    if near.any():
        found = wcs.all_world2pix(np.asarray(ra)[near], np.asarray(dec)[near], 0, tolerance=1e-7, quiet=True)
        x[near], y[near] = found
    return x, y


def _same_cards(a: str, b: str, tolerance: float = 1e-10) -> bool:
    """Whether two WCS texts describe the same pixel grid on the sky."""
    if a == b:
        return True
    first, second = _distortion(a), _distortion(b)
    if first.keys() != second.keys() or any(abs(first[k] - second[k]) > tolerance for k in first):
        return False
    return bool(_build(a).wcs.compare(_build(b).wcs, cmp=1, tolerance=tolerance))


@lru_cache(maxsize=256)
def _distortion(cards: str) -> dict[str, float]:
    """The distortion terms, PV and SIP, which `Wcsprm.compare` does not look at."""
    header = fits.Header.fromstring(cards, sep="\n")
    return {key: float(value) for key, value in header.items() if _DISTORTION.match(key)}


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
        if set(labels) != set(_NAMES):
            raise InputError(f"select with both ra= and dec=; got {', '.join(map(str, labels))}")
        if any(isinstance(v, slice) for v in labels.values()):
            return IndexSelResult(self._box(labels["ra"], labels["dec"]))
        positions = _sky_labels(labels)
        self._refuse_outside(positions)
        return super().sel(positions, method="nearest")

    def _box(self, ra: Any, dec: Any) -> dict[Hashable, slice]:
        """Slices of the smallest window that holds the pixel centers of a box."""
        (west, east), (south, north) = (_bounds(name, box) for name, box in zip(_NAMES, (ra, dec), strict=True))
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
        found = self.transform.reverse({n: labels[n].values for n in _NAMES})
        bad = np.zeros(np.shape(labels["ra"]), dtype=bool)
        for dim, position in found.items():
            bad |= ~((np.round(position) >= 0) & (np.round(position) < self.transform.dim_size[dim]))
        if bad.any():
            raise OutsideFrameError(
                f"{int(bad.sum())} of {bad.size} sky positions fall outside the image {self._repr_inline_(80)}; "
                "remove them, or use ztfxr.stamp, which pads"
            )

    def _same_frame(self, other: WCSIndex) -> None:
        if not _same_cards(self.transform.cards, other.transform.cards):
            raise AlignmentError(
                "the images have different WCS, so their pixels do not see the same sky; "
                "resample one onto the other first"
            )

    def join(self, other: Self, how: Any = "inner") -> Self:
        """The overlap (inner) or the enclosing window (outer) of two windows of one frame."""
        self._same_frame(other)
        a, b = self.transform.window, other.transform.window
        return self._with(a & b if how == "inner" else a | b)

    def reindex_like(self, other: Self, method: Any = None, tolerance: Any = None) -> dict[Hashable, Any]:  # noqa: ARG002
        """Positions in this window of each pixel of `other`, -1 where it has none."""
        self._same_frame(other)
        a, b = self.transform.window, other.transform.window
        found: dict[Hashable, Any] = {}
        for axis, dim in enumerate(self.transform.dims):
            position = np.arange(b.start[axis], b.stop[axis]) - a.start[axis]
            found[dim] = np.where((position >= 0) & (position < a.shape[axis]), position, -1)
        return found

    @classmethod
    def concat(cls, indexes: Any, dim: Hashable, positions: Any = None) -> WCSIndex:  # noqa: ARG003
        """The common index of images stacked along a new dimension."""
        first: WCSIndex = indexes[0]
        for other in indexes[1:]:
            first._same_frame(other)
            if not first.equals(other):
                raise AlignmentError("cannot stack windows of different size or place; select the same window first")
        return first

    def _repr_inline_(self, max_width: int) -> str:  # noqa: ARG002
        (y0, x0), (y1, x1) = self.transform.window.start, self.transform.window.stop
        return f"WCSIndex(y={y0}:{y1}, x={x0}:{x1})"


def _sky_labels(labels: Mapping[Any, Any]) -> dict[Any, xr.DataArray]:
    """Sky positions as arrays of float that broadcast against each other."""
    try:
        numbers = [v.to_value("deg") if hasattr(v, "to_value") else v for v in labels.values()]
        arrays = [xr.DataArray(v).drop_vars(list(getattr(v, "coords", ()))).astype(float) for v in numbers]
        return dict(zip(labels, xr.broadcast(*arrays), strict=True))
    except (TypeError, ValueError) as error:
        raise InputError(f"ra and dec are degrees, numbers or arrays of one shape: {error}") from error


def _bounds(name: str, box: Any) -> tuple[float, float]:
    try:
        if box.step is None:
            return float(box.start), float(box.stop)
    except (AttributeError, TypeError, ValueError):
        pass
    raise InputError(f"a box is ra=slice(west, east), dec=slice(south, north) in degrees; got {name} as {box!r}")


def assign_wcs(obj: T, header: fits.Header | str) -> T:
    """`obj` with `ra` and `dec` as lazy index coordinates from a FITS header.

    The object's `x` and `y` coordinates, where present, are its absolute pixels in the header's frame; else it
    is the full frame. The WCS cards travel in ``attrs["wcs_header"]`` too. Lazy.

    Raises
    ------
    MissingWCSError
        The header has no celestial WCS.
    InputError
        `x` or `y` are not whole pixels (those of a stamp that was shifted, for example).
    """
    cards = wcs_cards(header) if isinstance(header, fits.Header) else header
    if cards is None:
        raise MissingWCSError("the header has no celestial WCS (CTYPE1, CRVAL1, ...); plate-solve the image first")
    start = tuple(_first_pixel(obj, d) for d in ("y", "x"))
    window = Window((start[0], start[1]), (start[0] + obj.sizes["y"], start[1] + obj.sizes["x"]))
    coords = xr.Coordinates.from_xindex(WCSIndex(WCSTransform(cards, window)))
    out = drop_wcs(obj).assign_coords(coords)
    for name in _NAMES:
        out.coords[name].attrs.update(SPECS[name].attrs)
    out.attrs["wcs_header"] = cards
    return out


def _first_pixel(obj: xr.Dataset | xr.DataArray, dim: str) -> int:
    first = obj.coords[dim].values[0] if dim in obj.coords and obj.sizes[dim] else 0
    if first != int(first):
        raise InputError(f"{dim} begins at {first}, which is no whole pixel: a WCS labels the pixels of its frame")
    return int(first)


def drop_wcs(obj: T) -> T:
    """`obj` without `ra` and `dec`; the WCS cards in its attributes stay."""
    indexed = [n for n in _NAMES if n in obj.coords]
    return obj.drop_indexes([n for n in indexed if n in obj.xindexes]).drop_vars(indexed)


def _index(obj: xr.Dataset | xr.DataArray) -> WCSIndex | None:
    index = obj.xindexes.get("ra")
    return index if isinstance(index, WCSIndex) else None


def has_wcs(obj: xr.Dataset | xr.DataArray) -> bool:
    """Whether `obj` carries a celestial WCS index."""
    return _index(obj) is not None


def get_wcs(obj: xr.Dataset | xr.DataArray) -> WCS:
    """The full frame's `astropy.wcs.WCS`, in absolute 0-based pixels; a copy. `MissingWCSError` without one."""
    index = _index(obj)
    if index is None:
        raise MissingWCSError("the image has no celestial WCS; give one with ztfxr.assign_wcs(image, header)")
    return index.transform.wcs.deepcopy()


def pixel_to_sky(obj: xr.Dataset | xr.DataArray, x: ArrayLike, y: ArrayLike) -> SkyCoord:
    """Sky position (ICRS) of absolute 0-based FITS pixels, any shape; reads no pixel.

    Pixels outside the image are extrapolated by the WCS. NaN in, NaN out. Raises `MissingWCSError`.
    """
    index = _index(obj)
    if index is None:
        get_wcs(obj)
        raise AssertionError
    xx, yy = np.broadcast_arrays(np.asarray(x, dtype=float), np.asarray(y, dtype=float))
    ra, dec = _exact_sky(index.transform.cards, yy, xx)
    return SkyCoord(ra, dec, unit="deg", frame="icrs")


def sky_to_pixel(
    obj: xr.Dataset | xr.DataArray,
    sky: SkyCoord | None = None,
    *,
    ra: ArrayLike | None = None,
    dec: ArrayLike | None = None,
    outside: Literal["keep", "nan", "raise"] = "keep",
) -> tuple[Floats, Floats]:
    """Absolute 0-based FITS pixels (x, y) of sky positions in degrees; reads no pixel.

    Parameters
    ----------
    obj
        An image with a celestial WCS.
    sky, ra, dec
        A `SkyCoord`, or RA and Dec in degrees (ICRS), any shape.
    outside
        Positions off the image keep their extrapolated pixel, become NaN, or raise `OutsideFrameError`.

    Raises
    ------
    MissingWCSError, InputError, OutsideFrameError
    """
    index = _index(obj)
    if index is None:
        get_wcs(obj)
        raise AssertionError
    lon, lat = _degrees(sky, ra, dec)
    x, y = _exact_pixel(index.transform.cards, lon, lat)
    if outside != "keep":
        (y0, x0), (y1, x1) = index.transform.window.start, index.transform.window.stop
        off = ~((x >= x0 - 0.5) & (x < x1 - 0.5) & (y >= y0 - 0.5) & (y < y1 - 0.5))
        if outside == "raise" and off.any():
            raise OutsideFrameError(f"{int(off.sum())} of {off.size} sky positions fall outside the image")
        x, y = np.where(off, np.nan, x), np.where(off, np.nan, y)
    return x, y


def _degrees(sky: SkyCoord | None, ra: ArrayLike | None, dec: ArrayLike | None) -> tuple[Floats, Floats]:
    if sky is not None:
        icrs = sky.icrs
        return np.asarray(icrs.ra.deg, dtype=float), np.asarray(icrs.dec.deg, dtype=float)
    if ra is None or dec is None:
        raise InputError("give a SkyCoord, or both ra= and dec= in degrees")
    lon, lat = np.broadcast_arrays(np.asarray(ra, dtype=float), np.asarray(dec, dtype=float))
    return lon, lat


def same_grid(a: xr.Dataset | xr.DataArray, b: xr.Dataset | xr.DataArray, *, strict: bool = False) -> None:
    """Raise `AlignmentError` unless two images cover the same pixels of the same sky; reads no pixel.

    Where both have a WCS, xarray's own arithmetic compares it: ``a - b`` of different WCS raises `AlignmentError`, and
    cut-outs of one frame pair on their overlap. Where one has none, xarray pairs pixels by `x` and `y`, or by their
    place in the array, in silence, and so does this check; ``strict=True`` refuses that.
    """
    if (a.sizes["y"], a.sizes["x"]) != (b.sizes["y"], b.sizes["x"]):
        raise AlignmentError(
            f"the images have different shapes, {(a.sizes['y'], a.sizes['x'])} and {(b.sizes['y'], b.sizes['x'])} "
            "(y, x); cut or resample one onto the other first"
        )
    first, second = _index(a), _index(b)
    if first is not None and second is not None and not first.equals(second):
        raise AlignmentError("the images have different WCS or windows; resample one onto the other first")
    if strict and (first is None or second is None):
        raise AlignmentError("not both images have a celestial WCS, so nothing says that they see the same sky")
    for dim in ("y", "x"):
        if dim in a.coords and dim in b.coords and int(a[dim][0]) != int(b[dim][0]):
            raise AlignmentError(f"the images start at different {dim}: {int(a[dim][0])} and {int(b[dim][0])}")
