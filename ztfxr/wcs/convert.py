"""Images given a WCS, asked for it, and conversions between their pixels and the sky."""

from __future__ import annotations

from typing import Literal, TypeVar

import numpy as np
import xarray as xr
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.wcs import WCS
from numpy.typing import ArrayLike

from ztfxr.arrays.types import Floats
from ztfxr.errors import AlignmentError, InputError, MissingWCSError, OutsideFrameError
from ztfxr.schema import SPECS
from ztfxr.wcs.angles import Angles, degrees
from ztfxr.wcs.cards import check_cards, pixel_of, sky_of, wcs_cards
from ztfxr.wcs.grid import NAMES
from ztfxr.wcs.index import WCSIndex, WCSTransform, Window

__all__ = ["assign_wcs", "drop_wcs", "get_wcs", "has_wcs", "pixel_to_sky", "same_grid", "sky_degrees", "sky_to_pixel"]

T = TypeVar("T", xr.Dataset, xr.DataArray)


def assign_wcs(obj: T, header: fits.Header | str) -> T:
    """`obj` with `ra` and `dec` as lazy index coordinates from a FITS header.

    The object's `x` and `y` coordinates, where present, are its absolute pixels in the header's frame; else it
    is the full frame. The WCS cards travel in ``attrs["wcs_header"]`` too. Lazy.

    Parameters
    ----------
    obj
        An image or Dataset with dimensions y and x.
    header
        A FITS header, or the text of its WCS cards.

    Returns
    -------
    xarray.Dataset or xarray.DataArray
        What was given, with the labels.

    Raises
    ------
    MissingWCSError
        The header has no celestial WCS.
    HeaderError
        The header's WCS cannot be used.
    InputError
        `x` or `y` are not whole pixels (those of a stamp that was shifted, for example).
    """
    cards = wcs_cards(header) if isinstance(header, fits.Header) else header
    if cards is None:
        raise MissingWCSError("the header has no celestial WCS (CTYPE1, CRVAL1, ...); plate-solve the image first")
    check_cards(cards)
    start = tuple(_first_pixel(obj, d) for d in ("y", "x"))
    window = Window((start[0], start[1]), (start[0] + obj.sizes["y"], start[1] + obj.sizes["x"]))
    coords = xr.Coordinates.from_xindex(WCSIndex(WCSTransform(cards, window)))
    out = drop_wcs(obj).assign_coords(coords)
    for name in NAMES:
        out.coords[name].attrs.update(SPECS[name].attrs)
    out.attrs["wcs_header"] = cards
    return out


def _first_pixel(obj: xr.Dataset | xr.DataArray, dim: str) -> int:
    first = obj.coords[dim].values[0] if dim in obj.coords and obj.sizes[dim] else 0
    if first != int(first):
        raise InputError(f"{dim} begins at {first}, which is no whole pixel: a WCS labels the pixels of its frame")
    return int(first)


def drop_wcs(obj: T) -> T:
    """`obj` without `ra` and `dec`; the WCS cards in its attributes stay.

    Parameters
    ----------
    obj
        An image or Dataset, with sky labels or without.

    Returns
    -------
    xarray.Dataset or xarray.DataArray
        What was given, without the labels.
    """
    indexed = [n for n in NAMES if n in obj.coords]
    return obj.drop_indexes([n for n in indexed if n in obj.xindexes]).drop_vars(indexed)


def _index(obj: xr.Dataset | xr.DataArray) -> WCSIndex | None:
    index = obj.xindexes.get("ra")
    return index if isinstance(index, WCSIndex) else None


def _require_index(obj: xr.Dataset | xr.DataArray) -> WCSIndex:
    index = _index(obj)
    if index is None:
        raise MissingWCSError("the image has no celestial WCS; give one with ztfxr.assign_wcs(image, header)")
    return index


def has_wcs(obj: xr.Dataset | xr.DataArray) -> bool:
    """Whether `obj` carries a celestial WCS index."""
    return _index(obj) is not None


def get_wcs(obj: xr.Dataset | xr.DataArray) -> WCS:
    """The full frame's `astropy.wcs.WCS`, in absolute 0-based pixels; a copy.

    Parameters
    ----------
    obj
        An image with a celestial WCS.

    Returns
    -------
    astropy.wcs.WCS
        That of the full frame, also for a cut-out of it.

    Raises
    ------
    MissingWCSError
        The image has none.
    """
    return _require_index(obj).transform.wcs.deepcopy()


def pixel_to_sky(obj: xr.Dataset | xr.DataArray, x: ArrayLike, y: ArrayLike) -> SkyCoord:
    """Sky position (ICRS) of absolute 0-based FITS pixels, any shape; reads no pixel.

    Pixels outside the image are extrapolated by the WCS. NaN in, NaN out.

    Parameters
    ----------
    obj
        An image with a celestial WCS.
    x, y
        Pixel positions, numbers or arrays that broadcast.

    Returns
    -------
    astropy.coordinates.SkyCoord
        Positions of the shape of `x` and `y`.

    Raises
    ------
    MissingWCSError
        The image has no celestial WCS.

    Examples
    --------
    >>> ds = ztfxr.open_quadrant(ztfxr.samples.sample_path())
    >>> ztfxr.pixel_to_sky(ds, 1500.0, 1500.0).to_string(precision=3)
    '58.010 35.757'
    """
    index = _require_index(obj)
    xx, yy = np.broadcast_arrays(np.asarray(x, dtype=float), np.asarray(y, dtype=float))
    ra, dec = sky_of(index.transform.cards, yy, xx)
    return SkyCoord(ra, dec, unit="deg", frame="icrs")


def sky_to_pixel(
    obj: xr.Dataset | xr.DataArray,
    sky: SkyCoord | None = None,
    *,
    ra: Angles | None = None,
    dec: Angles | None = None,
    outside: Literal["keep", "nan", "raise"] = "keep",
) -> tuple[Floats, Floats]:
    """Absolute 0-based FITS pixels (x, y) of sky positions in degrees; reads no pixel.

    Parameters
    ----------
    obj
        An image with a celestial WCS.
    sky, ra, dec
        A `SkyCoord`, or RA and Dec (ICRS), any shape: degrees, `Quantity`, or text such as ``"03:51:36"``.
    outside
        Positions off the image keep their extrapolated pixel, become NaN, or raise `OutsideFrameError`.

    Returns
    -------
    tuple of numpy.ndarray
        Columns x and rows y, of the shape of the positions.

    Raises
    ------
    MissingWCSError, InputError, OutsideFrameError
    """
    index = _require_index(obj)
    lon, lat = sky_degrees(sky, ra, dec)
    x, y = pixel_of(index.transform.cards, lon, lat)
    if outside != "keep":
        (y0, x0), (y1, x1) = index.transform.window.start, index.transform.window.stop
        off = ~((x >= x0 - 0.5) & (x < x1 - 0.5) & (y >= y0 - 0.5) & (y < y1 - 0.5))
        if outside == "raise" and off.any():
            raise OutsideFrameError(f"{int(off.sum())} of {off.size} sky positions fall outside the image")
        x, y = np.where(off, np.nan, x), np.where(off, np.nan, y)
    return x, y


def sky_degrees(sky: SkyCoord | None, ra: Angles | None, dec: Angles | None) -> tuple[Floats, Floats]:
    """RA and Dec (ICRS) in degrees, of one shape, of a `SkyCoord` or of angles in every form.

    Raises `InputError` where neither is given, or one of them is no angle.
    """
    if sky is not None:
        icrs = sky.icrs
        return np.asarray(icrs.ra.deg, dtype=float), np.asarray(icrs.dec.deg, dtype=float)
    if ra is None or dec is None:
        raise InputError("give a SkyCoord, or both ra= and dec= in degrees")
    lon, lat = np.broadcast_arrays(degrees("ra", ra), degrees("dec", dec))
    return lon, lat


def same_grid(a: xr.Dataset | xr.DataArray, b: xr.Dataset | xr.DataArray, *, strict: bool = False) -> None:
    """Raise `AlignmentError` unless two images cover the same pixels of the same sky; reads no pixel.

    Where both have a WCS, xarray's own arithmetic compares it: ``a - b`` of different WCS raises `AlignmentError`, and
    cut-outs of one frame pair on their overlap. Where one has none, xarray pairs pixels by `x` and `y`, or by their
    place in the array, in silence, and so does this check; ``strict=True`` refuses that.

    Parameters
    ----------
    a, b
        Images or Datasets with dimensions y and x.
    strict
        Both must have a celestial WCS.

    Raises
    ------
    AlignmentError
        Shapes, WCS, windows or pixel labels differ.
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
        if dim not in a.coords or dim not in b.coords:
            continue
        if int(a[dim][0]) != int(b[dim][0]):
            raise AlignmentError(f"the images start at different {dim}: {int(a[dim][0])} and {int(b[dim][0])}")
        if not np.array_equal(a[dim].values, b[dim].values):
            raise AlignmentError(f"the images have their {dim} in different order, or count them in different steps")
