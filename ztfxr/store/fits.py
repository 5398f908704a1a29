"""Images as FITS files that other programs, and ztfxr, read."""

from __future__ import annotations

from os import PathLike
from typing import Any

import numpy as np
import xarray as xr
from astropy.io import fits
from numpy.typing import NDArray

from ztfxr.errors import InputError
from ztfxr.io.cards import EXTENSIONS, TYPE_CARD, exposure_header, fits_unit, plane_cards, window_header
from ztfxr.ops.positions import pixel_origin
from ztfxr.schema import SPECS
from ztfxr.store._files import new_file

__all__ = ["to_fits"]

_SUFFIXES = (".fits", ".fit", ".fits.gz", ".fit.gz")


def to_fits(obj: xr.Dataset | xr.DataArray, path: str | PathLike[str], *, overwrite: bool = False) -> None:
    """Write an image, with its mask and variance, as one FITS file, whole or not at all. Computes.

    Parameters
    ----------
    obj
        An image (y, x), or a Dataset of images on (y, x).
    path
        ``.fits`` or ``.fit``, plain or with ``.gz``.
    overwrite
        Replace a file that exists, once the new one is whole.

    Notes
    -----
    `sci` (or the only, or first, image) is the primary HDU, so that every program shows it; the others are extensions:
    `flags` as ``MSK``, `variance` as ``VAR``, any other by its name in capitals. All carry the WCS of exactly these
    pixels, shifted for a stamp, with ``LTV`` cards (ds9's physical coordinates are pixels of the full frame), ``BUNIT``
    and checksums. The primary header is that of the frame, its cards in agreement with the coordinates (the middle of
    the exposure as ``MJD-AVG`` where the header did not tell it). ``MSK`` has the ``BITnn`` cards that IPAC writes, and
    IPAC's 16-bit signed integers unless bit 15 is in use. `ztfxr.open_fits` reads the file back: same values, dtypes,
    sky and exposure.

    Raises
    ------
    InputError
        Variables with other dimensions than (y, x), pixels that are not consecutive, a dtype that FITS has not, or
        another suffix.
    StoreError
        The file exists, or cannot be written.
    """
    if not str(path).lower().endswith(_SUFFIXES):
        raise InputError(f"{path}: a FITS file is named {', '.join(_SUFFIXES)}")
    images = _images(obj)
    start = pixel_origin(obj)
    headers = [exposure_header(obj, start), *(window_header(obj, start) for _ in range(len(images) - 1))]
    with new_file(path, overwrite) as partial:
        hdus = [_hdu(v, header, i) for i, (v, header) in enumerate(zip(images, headers, strict=True))]
        fits.HDUList(hdus).writeto(partial, checksum=True)


def _images(obj: xr.Dataset | xr.DataArray) -> list[xr.DataArray]:
    """The loaded images (y, x), `sci` first, then flags and variance."""
    dataset = obj if isinstance(obj, xr.Dataset) else obj.to_dataset(name=str(obj.name or "sci"))
    wrong = {str(name): v.dims for name, v in dataset.data_vars.items() if set(v.dims) != {"y", "x"}}
    if wrong or not dataset.data_vars:
        raise InputError(
            f"a FITS image is on (y, x); got {wrong or 'no variable'}: choose with ds[['sci', 'flags']] or "
            "isel(time=...), or keep everything with ztfxr.to_zarr"
        )
    if 0 in (dataset.sizes["y"], dataset.sizes["x"]):
        raise InputError("the image has no pixels")
    rank = {name: i for i, name in enumerate(EXTENSIONS)}
    names = sorted(map(str, dataset.data_vars), key=lambda name: rank.get(name, len(rank)))
    bare = xr.Dataset({name: dataset[name].variable for name in names}).transpose("y", "x").compute()
    return [bare[name] for name in names]


def _hdu(image: xr.DataArray, window: fits.Header, position: int) -> Any:
    name = str(image.name)
    pixels, header = _storable(image), window.copy()
    header["EXTNAME"] = EXTENSIONS.get(name, name.upper())
    header[TYPE_CARD] = (image.dtype.name, "dtype of the variable")
    units = image.attrs.get("units", SPECS[name].units if name in SPECS else "")
    if units:
        header["BUNIT"] = fits_unit(str(units))
    if name == "flags":
        header.extend(plane_cards(image), bottom=True)
    return fits.ImageHDU(pixels, header) if position else fits.PrimaryHDU(pixels, header)


def _storable(image: xr.DataArray) -> NDArray[Any]:
    """The pixels in a dtype that FITS has; planes as IPAC's signed integers where the sign bit is free."""
    pixels = image.values
    if pixels.dtype.kind not in "biuf" or pixels.dtype.itemsize > 8:
        raise InputError(f"FITS has no pixels of dtype {pixels.dtype} ({image.name}); convert them with astype first")
    if pixels.dtype.kind == "b":
        return pixels.astype(np.uint8)
    if pixels.dtype == np.float16:
        return pixels.astype(np.float32)
    if image.name == "flags" and pixels.dtype == np.uint16 and not np.any(pixels & np.uint16(1 << 15)):
        return pixels.view(np.int16)
    return pixels
