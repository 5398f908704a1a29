"""Sky labels: lazy `ra` and `dec` coordinates from a FITS WCS, and conversions between pixels and sky.

An image's WCS is the text of its FITS header cards and an integer window on the full frame. Slicing moves
the window; nothing is ever recomputed or approximated twice.
"""

from ztfxr.wcs.angles import Angles, degrees
from ztfxr.wcs.cards import wcs_cards
from ztfxr.wcs.convert import assign_wcs, drop_wcs, get_wcs, has_wcs, pixel_to_sky, same_grid, sky_degrees, sky_to_pixel
from ztfxr.wcs.grid import sky_on_grid
from ztfxr.wcs.index import WCSIndex, WCSTransform, Window

__all__ = [
    "Angles",
    "WCSIndex",
    "WCSTransform",
    "Window",
    "assign_wcs",
    "degrees",
    "drop_wcs",
    "get_wcs",
    "has_wcs",
    "pixel_to_sky",
    "same_grid",
    "sky_degrees",
    "sky_on_grid",
    "sky_to_pixel",
    "wcs_cards",
]
