"""Images that `ztfxr.to_fits` wrote, and other FITS files of named images, read again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from os import PathLike
from typing import Any, Literal

import numpy as np
import xarray as xr
from astropy.io import fits
from astropy.utils.exceptions import AstropyUserWarning
from xarray.backends import BackendEntrypoint
from xarray.core import indexing

from ztfxr._quiet import quiet
from ztfxr.errors import InputError, ShapeError
from ztfxr.io.backend import FITSArray
from ztfxr.io.cards import EXTENSIONS, TYPE_CARD, exposure_coords, unit_of, window_start
from ztfxr.io.fits import ImageFile, inspect, open_hdus
from ztfxr.io.remote import file_name, location, shown
from ztfxr.schema import annotate_all
from ztfxr.wcs import assign_wcs, wcs_cards

__all__ = ["open_fits"]

_VARIABLES = {**{extension: name for name, extension in EXTENSIONS.items()}, "PRIMARY": "sci", "": "sci"}
_DIMS = ("y", "x")


class SavedBackend(BackendEntrypoint):
    """The named images of a FITS file as a Dataset, their pixels unread; the engine of `open_fits`."""

    description = "FITS files of named images"
    open_dataset_parameters = ("filename_or_obj", "drop_variables")

    def open_dataset(  # type: ignore[override]
        self, filename_or_obj: str | PathLike[str], *, drop_variables: str | Iterable[str] | None = None
    ) -> xr.Dataset:
        """Every image on `y`, `x`, and the first one's header as text."""
        images = _images(filename_or_obj)
        first = next(iter(images.values()))
        start = window_start(first.header)
        grid = {d: start[d] + np.arange(n) for d, n in zip(_DIMS, first.shape, strict=True)}
        out = xr.Dataset({name: _lazy(image) for name, image in images.items()}, coords=grid)
        out.attrs = {
            "header": first.header.tostring(sep="\n", endcard=False, padding=False),
            "source": file_name(filename_or_obj),
        }
        return out.drop_vars([drop_variables] if isinstance(drop_variables, str) else list(drop_variables or ()))


def _images(path: str | PathLike[str]) -> dict[str, ImageFile]:
    """The 2-D images of a file by variable name; `ShapeError` where they do not belong together."""
    first = inspect(path)
    with quiet(AstropyUserWarning), open_hdus(path) as hdus:
        names = [hdu.name for hdu in hdus if getattr(hdu, "is_image", False) and len(hdu.shape) == 2]
    if len(set(names)) < len(names):
        raise InputError(
            f"{shown(path)}: several images have one name ({', '.join(names)}); open one with ztfxr.open_frame"
        )
    found: dict[str, ImageFile] = {}
    for name in names:
        image = inspect(path, name)
        if image.shape != first.shape:
            raise ShapeError(f"{shown(path)}: the image {name} is {image.shape} (y, x), the first one {first.shape}")
        found[_VARIABLES.get(name, name.lower())] = image
    return found


def _lazy(image: ImageFile) -> xr.Variable:
    whole = {"preferred_chunks": dict(zip(_DIMS, image.shape, strict=True))}
    attrs = {"units": unit_of(str(image.header["BUNIT"]))} if "BUNIT" in image.header else {}
    data = indexing.LazilyIndexedArray(FITSArray(image, _dtype(image).str))
    return xr.Variable(_DIMS, data, attrs, encoding=whole)


def _dtype(image: ImageFile) -> np.dtype[Any]:
    """The dtype that the variable had, where the file tells one that pixels can have."""
    try:
        stated = np.dtype(str(image.header.get(TYPE_CARD, "")) or image.dtype)
    except TypeError:
        return image.dtype
    return stated if stated.kind in "biuf" else image.dtype


def open_fits(path: str | PathLike[str], *, chunks: Mapping[str, int] | Literal["auto"] | None = None) -> xr.Dataset:
    """Open a FITS file that `ztfxr.to_fits` wrote, lazily; only headers are read.

    Parameters
    ----------
    path
        A plain, gzipped or tile-compressed FITS file, or its URL, as of `ztfxr.open_quadrant`. Others than ztfxr's open
        too: the first image is `sci`, named extensions (``ERR``, ``BPM``) become variables by their name in lower case.
    chunks
        Dask chunks, by default one chunk for the frame.

    Returns
    -------
    xarray.Dataset
        Every image on (y, x) with its dtype and unit: `sci`, `flags` (from ``MSK``), `variance` (from ``VAR``), ...;
        `x`, `y` in absolute 0-based pixels of the full frame, lazy `ra`, `dec` where the header has a celestial WCS,
        and the scalars of the exposure that the header knows. ``attrs["header"]`` is the first image's header as text.

    Raises
    ------
    FileNotFoundError, NotFITSError, TruncatedFileError, RemoteFileError
    ShapeError
        No image, or images of different shape.
    InputError
        Two images have one name.
    """
    out = xr.open_dataset(location(path), engine=SavedBackend, chunks={} if chunks is None else chunks)
    header = fits.Header.fromstring(out.attrs["header"], sep="\n")
    out = annotate_all(out.assign_coords(exposure_coords(header)))
    start = window_start(header)
    for axis, dim in ((1, "x"), (2, "y")):
        if f"CRPIX{axis}" in header:
            header[f"CRPIX{axis}"] = float(header[f"CRPIX{axis}"]) + start[dim]
    wcs: Any = wcs_cards(header)
    return out if wcs is None else assign_wcs(out, wcs)
