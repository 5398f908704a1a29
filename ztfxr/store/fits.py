"""Images as FITS files that other programs, and ztfxr, read."""

from __future__ import annotations

import gzip
import shutil
from io import BytesIO
from os import PathLike
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
import xarray as xr
from astropy.io import fits
from astropy.table import Table
from numpy.typing import NDArray

from ztfxr.errors import InputError
from ztfxr.io.cards import EXTENSIONS, TYPE_CARD, exposure_header, fits_unit, plane_cards, window_header
from ztfxr.ops.positions import pixel_origin
from ztfxr.schema import SPECS
from ztfxr.store._files import new_file

__all__ = ["to_extensions", "to_fits"]

_SUFFIXES = (".fits", ".fit", ".fits.gz", ".fit.gz")
_BLOCK = 2880
_IMAGES = ("aligned", "difference", "difference_variance", "model", "mask")
_KERNELS = ("kernel", "kernel_err")
_BACKGROUND = ("background_coeff", "background_coeff_err")
_PHOTOMETRY = (
    *("x_pixel", "y_pixel", "source_ra", "source_dec", "flux", "flux_err", "area", "masked_fraction", "fit_chi2"),
    *("fit_flags", "status"),
)


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

    Raises
    ------
    InputError
        Variables with other dimensions than (y, x), pixels that are not consecutive, a dtype that FITS has not, or
        another suffix.
    StoreError
        The file exists, or cannot be written.

    Notes
    -----
    `sci` (or the only, or first, image) is the primary HDU, so that every program shows it; the others are extensions:
    `flags` as ``MSK``, `variance` as ``VAR``, any other by its name in capitals. All carry the WCS of exactly these
    pixels, shifted for a stamp, with ``LTV`` cards (ds9's physical coordinates are pixels of the full frame), ``BUNIT``
    and checksums. The primary header is that of the frame, its cards in agreement with the coordinates (the middle of
    the exposure as ``MJD-AVG`` where the header did not tell it). ``MSK`` has the ``BITnn`` cards that IPAC writes, and
    IPAC's 16-bit signed integers unless bit 15 is in use. `ztfxr.open_fits` reads the file back: same values, dtypes,
    sky and exposure.

    Examples
    --------
    >>> made = ztfxr.testing.make_scene((96, 96), n_epochs=2, n_stars=40)
    >>> ztfxr.to_fits(made.reference, "reference.fits")
    >>> ztfxr.open_frame("reference.fits").sci.sizes["x"]
    96
    """
    _check_name(path)
    images = _images(obj)
    start = pixel_origin(obj)
    headers = [exposure_header(obj, start), *(window_header(obj, start) for _ in range(len(images) - 1))]
    with new_file(path, overwrite) as partial:
        hdus = [_hdu(v, header, i) for i, (v, header) in enumerate(zip(images, headers, strict=True))]
        fits.HDUList(hdus).writeto(partial, checksum=True)


def to_extensions(
    result: xr.Dataset,
    path: str | PathLike[str],
    *,
    source: str | PathLike[str] | None = None,
    overwrite: bool = False,
) -> None:
    """Write the results of `ztfxr.difference_photometry` as named FITS extensions, whole or not at all. Computes.

    Parameters
    ----------
    result
        Images, kernel, background, fluxes and log of one frame.
    path
        ``.fits`` or ``.fit``, plain or with ``.gz``.
    source
        A FITS file whose HDUs come first, byte for byte. It is only read.
    overwrite
        Replace a file that exists, once the new one is whole.

    Raises
    ------
    InputError
        The file is not named as a FITS file.
    StoreError
        The file exists, or cannot be written.

    Notes
    -----
    The images ``ALIGNED``, ``DIFFERENCE``, ``DIFFERENCE_VARIANCE``, ``MODEL`` and ``MASK`` carry the WCS of exactly
    these pixels, as in `ztfxr.to_fits`. ``KERNEL`` and ``KERNEL_ERR`` are images too, ``BACKGROUND``, ``PHOTOMETRY``
    and ``LOG`` tables.
    """
    _check_name(path)
    buffer = BytesIO()
    fits.HDUList([fits.PrimaryHDU(), *_extensions(result)]).writeto(buffer)
    with new_file(path, overwrite) as partial, _opened(partial, "wb") as file:
        if source is None:
            file.write(buffer.getvalue())
            return
        with _opened(Path(source), "rb") as old:
            shutil.copyfileobj(old, file)
            file.write(bytes(-old.tell() % _BLOCK))
        file.write(buffer.getvalue()[_BLOCK:])


def _check_name(path: str | PathLike[str]) -> None:
    if not str(path).lower().endswith(_SUFFIXES):
        raise InputError(f"{path}: a FITS file is named {', '.join(_SUFFIXES)}")


def _opened(path: Path, mode: Literal["rb", "wb"]) -> IO[bytes]:
    """A file as bytes, behind gzip where its name says so."""
    return gzip.open(path, mode) if path.suffix.lower() == ".gz" else path.open(mode)  # type: ignore[return-value]


def _extensions(result: xr.Dataset) -> list[fits.ImageHDU | fits.BinTableHDU]:
    header = window_header(result, pixel_origin(result))
    hdus = [fits.ImageHDU(_storable(result[name]), header, name=name.upper()) for name in _IMAGES]
    hdus += [fits.ImageHDU(_storable(result[name]), name=name.upper()) for name in _KERNELS]
    of_source = [n for n in _PHOTOMETRY if n in result.variables and result[n].dims == ("source",)]
    tables = {
        name: Table({n: result[n].values for n in columns})
        for name, columns in (("BACKGROUND", _BACKGROUND), ("PHOTOMETRY", of_source))
    }
    tables["LOG"] = Table({"line": np.array(result.attrs["log"])})
    return [*hdus, *(fits.BinTableHDU(table, name=name) for name, table in tables.items())]


def _images(obj: xr.Dataset | xr.DataArray) -> list[xr.DataArray]:
    """The loaded images (y, x), `sci` first, then flags and variance."""
    if not isinstance(obj, xr.Dataset | xr.DataArray):
        raise InputError(f"an image is a DataArray or a Dataset on y and x; got {type(obj).__name__}")
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
