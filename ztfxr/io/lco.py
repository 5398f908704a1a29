"""Las Cumbres Observatory frames: image, bad-pixel mask and catalog in one file (BANZAI)."""

from __future__ import annotations

from os import PathLike
from typing import Any, Literal

import numpy as np
import xarray as xr
from astropy.io import fits
from xarray.core import indexing

from ztfxr.errors import HeaderError, ShapeError
from ztfxr.io.backend import FITSArray
from ztfxr.io.fits import ImageFile, inspect, open_hdus
from ztfxr.io.remote import file_name, shown
from ztfxr.io.times import mid_exposure, to_datetime
from ztfxr.schema import SPECS, annotate_all, planes_to_bits
from ztfxr.wcs import assign_wcs, wcs_cards

__all__ = ["open_lco", "read_lco_catalog"]

_NUMBERS = {"gain": "GAIN", "readnoise": "RDNOISE", "saturate": "SATURATE", "seeing": "L1FWHM"}
_COLUMNS = {"X": "x_centroid", "Y": "y_centroid", "RA": "ra", "DEC": "dec", "FLUX": "flux", "FLUXERR": "flux_err"}


def open_lco(path: str | PathLike[str], *, mask: Literal[False] | None = None) -> xr.Dataset:
    """Open an LCO frame (extensions ``SCI`` and ``BPM``) lazily; only headers are read.

    Parameters
    ----------
    path
        A BANZAI frame, plain, gzipped or tile-compressed; or its URL, as of `ztfxr.open_quadrant`.
    mask
        False leaves the bad-pixel mask out (cropped frames may carry that of the full frame).

    Returns
    -------
    xarray.Dataset
        As of `ztfxr.open_quadrant`: `sci` (y, x) float32, `flags` (y, x) uint16 with the planes `dead` (from the BPM)
        and `saturated` (at or above SATURATE), lazy `ra`, `dec`; `time` is the middle of the exposure (UTC).

    Raises
    ------
    FileNotFoundError, NotFITSError, TruncatedFileError, HeaderError, RemoteFileError
    ShapeError
        No image named SCI, or a BPM of another shape.
    """
    image = inspect(path, "SCI")
    coords = _coords(image.header, shown(path))
    sci = _lazy(image, "float32")
    flags = xr.where(sci >= coords["saturate"], planes_to_bits(["saturated"]), 0)
    if mask is not False:
        bad = inspect(path, "BPM")
        if bad.shape != image.shape:
            raise ShapeError(
                f"{shown(path)}: the BPM is {bad.shape} (y, x), the image {image.shape}; a cropped frame? "
                "open with mask=False"
            )
        flags = flags | xr.where(_lazy(bad, "uint8") != 0, planes_to_bits(["dead"]), 0)
    grid = {d: np.arange(n) for d, n in zip(("y", "x"), image.shape, strict=True)}
    out = annotate_all(xr.Dataset({"sci": sci, "flags": flags.astype(np.uint16)}).assign_coords({**grid, **coords}))
    out.attrs = {"header": image.header.tostring(sep="\n", endcard=False, padding=False), "source": file_name(path)}
    cards = wcs_cards(image.header)
    return out if cards is None else assign_wcs(out, cards)


def _lazy(image: ImageFile, dtype: str) -> xr.DataArray:
    variable = xr.Variable(("y", "x"), indexing.LazilyIndexedArray(FITSArray(image, dtype)))
    return xr.DataArray(variable).chunk()


def _coords(header: fits.Header, path: str) -> dict[str, Any]:
    missing = [k for k in ("MJD-OBS", "EXPTIME") if not isinstance(header.get(k), int | float)]
    if missing:
        raise HeaderError(f"{path}: the header has no number in {' and '.join(missing)}; is this an LCO frame?")
    exptime = float(header["EXPTIME"])
    mjd = mid_exposure(float(header["MJD-OBS"]), exptime)
    numbers = {name: float(header.get(card, np.nan)) for name, card in _NUMBERS.items()}
    values = {
        "time": to_datetime(mjd),
        "mjd": mjd,
        "exptime": exptime,
        "filter": str(header.get("FILTER", "")),
        **numbers,
    }
    # BANZAI gives L1FWHM in arcsec.
    units = {"seeing": "arcsec"}
    return {
        k: xr.Variable((), v, {**SPECS[k].attrs, **({"units": units[k]} if k in units else {})})
        for k, v in values.items()
    }


def read_lco_catalog(path: str | PathLike[str]) -> xr.Dataset:
    """The catalog of an LCO frame (extension ``CAT``) on `source`. Computes.

    Returns
    -------
    xarray.Dataset
        `x_centroid`, `y_centroid` (0-based pixels; the file counts from 1), `flux`, `flux_err`, and `ra`, `dec` (deg)
        where the file has them, brightest first.

    Raises
    ------
    ShapeError
        The file has no table named CAT.
    """
    with open_hdus(path) as hdus:
        if "CAT" not in hdus:
            raise ShapeError(f"{shown(path)}: holds no table named CAT")
        table = hdus["CAT"].data
        columns = {new: np.asarray(table[old], dtype=np.float64) for old, new in _COLUMNS.items() if old in table.names}
    for axis in ("x_centroid", "y_centroid"):
        columns[axis] = columns[axis] - 1.0
    order = np.argsort(-columns["flux"], kind="stable")
    return xr.Dataset({name: ("source", values[order]) for name, values in columns.items()})
