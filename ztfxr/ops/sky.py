"""Where an image lies on the sky: pointing, tangent plane, center, corners, pixel scale, footprint. Reads no pixel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias, get_args, overload

import numpy as np
import xarray as xr
from astropy.coordinates import SkyCoord
from astropy.io import fits
from numpy.typing import ArrayLike

from ztfxr.arrays.geometry.tangent import from_tangent, to_tangent
from ztfxr.arrays.types import Floats
from ztfxr.errors import HeaderError, InputError, MissingDependencyError
from ztfxr.ops.positions import Positions, pixel_origin, resolve_positions
from ztfxr.wcs import Angles, WCSIndex, Window, get_wcs, pixel_to_sky, sky_degrees, sky_to_pixel

if TYPE_CHECKING:
    from mocpy import MOC

__all__ = [
    "PixelScale",
    "center",
    "contains",
    "corners",
    "footprint",
    "pixel_scale",
    "pixel_to_tangent",
    "pointing",
    "sky_to_tangent",
    "tangent_to_pixel",
    "tangent_to_sky",
]

Image: TypeAlias = xr.Dataset | xr.DataArray
Center: TypeAlias = SkyCoord | tuple[float, float] | None
Kind = Literal["polygon", "stcs", "moc"]


class PixelScale(NamedTuple):
    """Arcsec per pixel along the rows' axis `y` and the columns' axis `x`."""

    y: Floats
    x: Floats


def pointing(obj: Image) -> SkyCoord:
    """Where the telescope was asked to point: the cards RA and DEC of the header (ICRS).

    Of ZTF this is the middle of the field, where the 16 CCDs meet: one place for all quadrants and epochs of a field,
    and degrees away from the middle of a quadrant. (TELRA, TELDEC, what the mount reported, differ from it by arcsec.)
    A stack has that of its first epoch.

    Parameters
    ----------
    obj
        An image with a celestial WCS.

    Returns
    -------
    astropy.coordinates.SkyCoord
        One position.

    Raises
    ------
    HeaderError
        The header names none.
    MissingWCSError
        The image has no celestial WCS.
    """
    cards = fits.Header.fromstring(_index(obj).transform.cards, sep="\n")
    ra, dec = cards.get("RA"), cards.get("DEC")
    try:
        sexagesimal = isinstance(ra, str) and not ra.strip().lstrip("+-").replace(".", "", 1).isdigit()
        return SkyCoord(ra, dec, unit=("hourangle" if sexagesimal else "deg", "deg"), frame="icrs")
    except (TypeError, ValueError) as error:
        raise HeaderError(f"the header names no pointing (RA={ra!r}, DEC={dec!r}); give center=") from error


def sky_to_tangent(
    obj: Image,
    sky: SkyCoord | None = None,
    *,
    ra: Angles | None = None,
    dec: Angles | None = None,
    center: Center = None,
) -> tuple[Floats, Floats]:
    """Tangent-plane offsets u (east) and v (north) in arcsec of sky positions; any shape.

    Parameters
    ----------
    obj
        An image with a celestial WCS.
    sky, ra, dec
        A `SkyCoord`, or RA and Dec (ICRS): degrees, `Quantity`, or text such as ``"03:51:36"``.
    center
        Where the plane touches the sky: a `SkyCoord`, or (RA, Dec) in degrees; by default `ztfxr.pointing`.

    Returns
    -------
    tuple of numpy.ndarray
        u and v, by gnomonic projection; NaN for positions 90 degrees or more from the center.

    Raises
    ------
    InputError, HeaderError, MissingWCSError
    """
    lon, lat = sky_degrees(sky, ra, dec)
    return to_tangent(lon, lat, _touch(obj, center))


def pixel_to_tangent(obj: Image, x: ArrayLike, y: ArrayLike, *, center: Center = None) -> tuple[Floats, Floats]:
    """Tangent-plane offsets u, v in arcsec of absolute 0-based FITS pixels; see `ztfxr.sky_to_tangent`.

    Parameters
    ----------
    obj
        An image with a celestial WCS.
    x, y
        Pixel positions, numbers or arrays that broadcast.
    center
        Where the plane touches the sky: a `SkyCoord`, or RA and Dec in degrees. Default: the telescope's pointing.

    Returns
    -------
    tuple of numpy.ndarray
        Offsets towards east and north, of the shape of the positions.
    """
    return sky_to_tangent(obj, pixel_to_sky(obj, x, y), center=center)


def tangent_to_sky(obj: Image, u: ArrayLike, v: ArrayLike, *, center: Center = None) -> SkyCoord:
    """Sky positions (ICRS) of tangent-plane offsets in arcsec: the inverse of `ztfxr.sky_to_tangent`.

    Parameters
    ----------
    obj
        An image, whose pointing is the default center.
    u, v
        Offsets towards east and north in arcsec, numbers or arrays that broadcast.
    center
        Where the plane touches the sky: a `SkyCoord`, or RA and Dec in degrees. Default: the telescope's pointing.

    Returns
    -------
    astropy.coordinates.SkyCoord
        Positions of the shape of the offsets.
    """
    ra, dec = from_tangent(u, v, _touch(obj, center))
    return SkyCoord(ra, dec, unit="deg", frame="icrs")


def tangent_to_pixel(obj: Image, u: ArrayLike, v: ArrayLike, *, center: Center = None) -> tuple[Floats, Floats]:
    """Absolute 0-based FITS pixels (x, y) of tangent-plane offsets in arcsec; inverts `ztfxr.pixel_to_tangent`.

    Parameters
    ----------
    obj
        An image with a celestial WCS.
    u, v
        Offsets towards east and north in arcsec, numbers or arrays that broadcast.
    center
        Where the plane touches the sky: a `SkyCoord`, or RA and Dec in degrees. Default: the telescope's pointing.

    Returns
    -------
    tuple of numpy.ndarray
        Columns x and rows y, of the shape of the offsets.
    """
    return sky_to_pixel(obj, tangent_to_sky(obj, u, v, center=center))


def center(obj: Image) -> SkyCoord:
    """Sky position (ICRS) of the middle of an image or cut-out.

    Parameters
    ----------
    obj
        An image with a celestial WCS.

    Returns
    -------
    astropy.coordinates.SkyCoord
        One position.

    Raises
    ------
    MissingWCSError
        The image has no celestial WCS.
    InputError
        The image is empty.
    """
    return pixel_to_sky(obj, *_middle(obj))


def corners(obj: Image, *, outer: bool = True) -> SkyCoord:
    """Sky positions (ICRS) of the four corners, (4,), along the pixels: (0, 0), (nx, 0), (nx, ny), (0, ny).

    Parameters
    ----------
    obj
        An image with a celestial WCS.
    outer
        The outer corners of the corner pixels; False for their centers.

    Returns
    -------
    astropy.coordinates.SkyCoord
        Four positions.

    Raises
    ------
    MissingWCSError
        The image has no celestial WCS.
    InputError
        The image is empty.
    """
    return pixel_to_sky(obj, *_border(_window(obj), 0.5 if outer else 0.0, 1))


def pixel_scale(obj: Image, x: ArrayLike | None = None, y: ArrayLike | None = None) -> PixelScale:
    """Arcsec per pixel along y and x at absolute 0-based FITS pixels, by default at the middle of the image.

    Parameters
    ----------
    obj
        An image with a celestial WCS.
    x, y
        Pixel positions, numbers or arrays that broadcast.

    Returns
    -------
    PixelScale
        Named tuple ``(y, x)``, each of the shape of the positions: the distance on the sky over one pixel around them.

    Raises
    ------
    InputError
        Only one of `x` and `y` is given, or the image is empty.
    MissingWCSError
    """
    if (x is None) != (y is None):
        raise InputError("give both x= and y=, or neither for the middle of the image")
    px, py = _middle(obj) if x is None or y is None else (np.asarray(x, dtype=float), np.asarray(y, dtype=float))
    scales = []
    for dx, dy in ((0.0, 0.5), (0.5, 0.0)):
        before, after = pixel_to_sky(obj, px - dx, py - dy), pixel_to_sky(obj, px + dx, py + dy)
        scales.append(np.asarray(before.separation(after).arcsec))
    return PixelScale(*scales)


@overload
def footprint(obj: Image, kind: Literal["polygon"] = ..., *, per_side: int = ..., max_depth: int = ...) -> SkyCoord: ...
@overload
def footprint(obj: Image, kind: Literal["stcs"], *, per_side: int = ..., max_depth: int = ...) -> str: ...
@overload
def footprint(obj: Image, kind: Literal["moc"], *, per_side: int = ..., max_depth: int = ...) -> MOC: ...
def footprint(obj: Image, kind: Kind = "polygon", *, per_side: int = 1, max_depth: int = 15) -> Any:
    """The outline of an image or cut-out on the sky: the outer edge of its pixels, good or bad.

    Parameters
    ----------
    obj
        An image with a celestial WCS.
    kind
        ``"polygon"``: a `SkyCoord` of vertices, counter-clockwise as seen on the sky (north up, east left) and not
        closed. ``"stcs"``: the same as an IVOA STC-S string, ``Polygon ICRS ra dec ra dec ...`` in degrees. ``"moc"``:
        a `mocpy.MOC` with every HEALPix cell that the polygon touches (extra `moc`).
    per_side
        Vertices for each side. A polygon's sides are great circles; the true edge of a whole ZTF quadrant strays from
        them by 0.17 arcsec with 1, by 0.006 arcsec with 8.
    max_depth
        HEALPix order of the finest cells of the MOC: 15 is 6.4 arcsec.

    Returns
    -------
    astropy.coordinates.SkyCoord, str or mocpy.MOC
        The outline, as `kind` has it.

    Raises
    ------
    MissingWCSError, InputError, MissingDependencyError

    Examples
    --------
    >>> ds = ztfxr.open_quadrant(ztfxr.samples.sample_path())
    >>> ztfxr.footprint(ds, "stcs")[:13]
    'Polygon ICRS '
    """
    if kind not in get_args(Kind):
        raise InputError(f"kind is 'polygon', 'stcs' or 'moc'; got {kind!r}")
    if per_side < 1:
        raise InputError(f"per_side is at least 1; got {per_side}")
    vertices = _outline(obj, per_side)
    if kind == "polygon":
        return vertices
    if kind == "stcs":
        degrees = np.column_stack([vertices.ra.deg, vertices.dec.deg]).ravel()
        return "Polygon ICRS " + " ".join(f"{d:.7f}" for d in degrees)
    try:
        from mocpy import MOC
    except ImportError as error:
        raise MissingDependencyError.for_extra("mocpy", "moc") from error
    return MOC.from_polygon_skycoord(vertices, max_depth=max_depth)


def contains(obj: Image, positions: Positions, *, margin: float = 0.0) -> xr.DataArray:
    """Which positions lie on the pixels of an image or cut-out, good or bad.

    Parameters
    ----------
    obj
        An image or Dataset with dimensions (..., y, x).
    positions
        As for `ztfxr.resolve_positions`.
    margin
        Pixels that a position must keep from the edge; negative ones let it lie outside.

    Returns
    -------
    xarray.DataArray
        Boolean on `source`, with `x_pixel`, `y_pixel` and, where known, `ra`, `dec`; False where a position is NaN.
        ``.values`` selects the rows of a Table or DataFrame.

    Raises
    ------
    InputError, MissingWCSError
    """
    where = resolve_positions(obj, positions)
    inside = np.ones(where.sizes["source"], dtype=bool)
    for dim, origin in pixel_origin(obj).items():
        offset = where[f"{dim}_pixel"].values - origin
        inside &= (offset >= margin - 0.5) & (offset < obj.sizes[dim] - 0.5 - margin)
    return xr.DataArray(inside, where.coords, ("source",), "inside", {"long_name": "True where the image has a pixel"})


def _index(obj: Image) -> WCSIndex:
    index = obj.xindexes.get("ra")
    if not isinstance(index, WCSIndex):
        get_wcs(obj)
        raise AssertionError
    return index


def _window(obj: Image) -> Window:
    window = _index(obj).transform.window
    if 0 in window.shape:
        raise InputError(f"the image is empty: it has {window.shape} pixels (y, x)")
    return window


def _middle(obj: Image) -> tuple[Floats, Floats]:
    window = _window(obj)
    y, x = ((a + b - 1) / 2 for a, b in zip(window.start, window.stop, strict=True))
    return np.asarray(x), np.asarray(y)


def _touch(obj: Image, center: Center) -> tuple[float, float]:
    """Where the tangent plane touches the sky, in degrees."""
    if center is None:
        center = pointing(obj)
    if isinstance(center, SkyCoord):
        center = (center.icrs.ra.deg, center.icrs.dec.deg)
    ra, dec = (np.asarray(c, dtype=float) for c in center)
    if ra.shape or dec.shape or not (np.isfinite(ra) and abs(dec) <= 90.0):
        raise InputError(f"center is one SkyCoord, or (RA, Dec) in degrees; got {center!r}")
    return float(ra), float(dec)


def _border(window: Window, reach: float, per_side: int) -> tuple[Floats, Floats]:
    """Pixels x, y around a window, `reach` beyond the centers of its outermost pixels, from its first corner on."""
    (y0, x0), (y1, x1) = window.start, window.stop
    low, high = (x0 - reach, y0 - reach), (x1 - 1 + reach, y1 - 1 + reach)
    t = np.arange(4 * per_side) / per_side
    x = np.interp(t, np.arange(5), [low[0], high[0], high[0], low[0], low[0]])
    y = np.interp(t, np.arange(5), [low[1], low[1], high[1], high[1], low[1]])
    return x, y


def _outline(obj: Image, per_side: int) -> SkyCoord:
    """Vertices around the image, counter-clockwise as seen on the sky."""
    vertices = pixel_to_sky(obj, *_border(_window(obj), 0.5, per_side))
    u, v = sky_to_tangent(obj, vertices, center=center(obj))
    eastwards = float(np.sum(u * np.roll(v, -1) - np.roll(u, -1) * v)) > 0
    return vertices[::-1] if eastwards else vertices
