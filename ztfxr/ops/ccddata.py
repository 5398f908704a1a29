"""Images to and from astropy's `CCDData`."""

from __future__ import annotations

import numpy as np
import xarray as xr
from astropy.io import fits
from astropy.nddata import CCDData, VarianceUncertainty
from astropy.wcs import WCS, FITSFixedWarning

from ztfxr._quiet import quiet
from ztfxr.errors import InputError
from ztfxr.io.cameras import unit_of
from ztfxr.io.cards import as_unit, exposure_coords, exposure_header, window_header, window_start
from ztfxr.ops.exposure import MaskChoice, gather
from ztfxr.ops.positions import pixel_origin
from ztfxr.schema import annotate, annotate_all
from ztfxr.wcs import assign_wcs, has_wcs, sky_to_pixel, wcs_cards

__all__ = ["from_ccddata", "to_ccddata"]

# Without a WCS, only its size tells whether a CCDData was sliced after its header was written.
_SIZES = {"x": "ZXR_NX", "y": "ZXR_NY"}


def to_ccddata(obj: xr.Dataset | xr.DataArray, *, mask: MaskChoice = None) -> CCDData:
    """One image as an `astropy.nddata.CCDData`. Computes.

    Parameters
    ----------
    obj
        An image (y, x), or a Dataset with `sci`, and `flags` and `variance` where they exist.
    mask
        Boolean, True where bad. By default the recommended planes of ``obj.flags``; False masks nothing.

    Returns
    -------
    astropy.nddata.CCDData
        The pixels in adu (DN) or in the image's own unit; `variance` as `VarianceUncertainty`; the mask; the bit planes
        as `flags`; the WCS of exactly these pixels, also for a stamp; the header, its cards in agreement with the
        coordinates.

    Raises
    ------
    InputError
        More or other dimensions than (y, x), pixels that are not consecutive, or an unknown unit.
    """
    exposure = gather(obj, name="sci", mask=mask)
    image = exposure.image
    if set(image.dims) != {"y", "x"}:
        raise InputError(f"CCDData holds one image (y, x); this has {image.dims}: select one, with isel(time=...)")
    parts = {"data": image}
    for name in ("variance", "flags"):
        if isinstance(obj, xr.Dataset) and name in obj:
            parts[name] = obj[name]
    if mask is not None or "flags" in parts or (isinstance(obj, xr.Dataset) and "mask" in obj):
        parts["mask"] = exposure.bad
    loaded = xr.Dataset({k: v.variable for k, v in parts.items()}).transpose("y", "x").compute()
    pixels = {str(k): v.values for k, v in loaded.data_vars.items()}
    start = pixel_origin(obj)
    header = exposure_header(obj, start)
    for dim, card in _SIZES.items():
        header[card] = (obj.sizes[dim], f"pixels along {dim}")
    return CCDData(
        pixels["data"],
        unit=as_unit(str(image.attrs.get("units", "DN"))),
        uncertainty=VarianceUncertainty(pixels["variance"]) if "variance" in pixels else None,
        mask=pixels.get("mask"),
        flags=pixels.get("flags"),
        wcs=_wcs(window_header(obj, start)) if has_wcs(obj) else None,
        meta=header,
    )


def _wcs(header: fits.Header) -> WCS:
    with quiet(FITSFixedWarning):
        return WCS(header, naxis=2)


def from_ccddata(ccd: CCDData) -> xr.Dataset:
    """A `CCDData` as a labeled image; the arrays are those of `ccd`, nothing is copied or computed.

    Parameters
    ----------
    ccd
        A 2-D image. Its sky is that of ``ccd.wcs`` (not of WCS cards in its header alone), also after it was sliced.

    Returns
    -------
    xarray.Dataset
        `sci` (y, x) with its unit, `variance` from any kind of uncertainty, `flags` where ``ccd.flags`` holds integers,
        `mask` (bool) where it is not what the recommended planes of these flags say; `x`, `y` in absolute pixels and
        the scalars of the exposure where the header tells them; lazy `ra`, `dec`; ``attrs["header"]``.

    Raises
    ------
    InputError
        Not 2-D, or an uncertainty of no known kind.

    Notes
    -----
    What ztfxr calculates reads `flags` first and `mask` only without them: pass ``mask=ds.mask`` to use yours.
    """
    if ccd.data.ndim != 2:
        raise InputError(f"an image has two dimensions (y, x); this CCDData has shape {ccd.data.shape}")
    header = ccd.meta.copy() if isinstance(ccd.meta, fits.Header) else fits.Header(ccd.meta)
    variables = {"sci": xr.Variable(("y", "x"), ccd.data)}
    variance = _variance(ccd)
    if variance is not None:
        variables["variance"] = xr.Variable(("y", "x"), variance)
    if ccd.flags is not None and np.asarray(ccd.flags).dtype.kind in "iu":
        variables["flags"] = xr.Variable(("y", "x"), np.asarray(ccd.flags))
    cards, start = _sky(ccd, header)
    grid = {d: start[d] + np.arange(n) for d, n in zip(("y", "x"), ccd.data.shape, strict=True)}
    out = annotate_all(xr.Dataset(variables, coords=grid).assign_coords(exposure_coords(header)))
    for name, unit in (("sci", ccd.unit), ("variance", None if ccd.unit is None else ccd.unit**2)):
        if unit is not None and name in out:
            out[name].attrs["units"] = unit_of(unit.to_string())
    if ccd.mask is not None:
        out = _with_mask(out, np.broadcast_to(np.asarray(ccd.mask, dtype=bool), ccd.data.shape))
    out.attrs["header"] = header.tostring(sep="\n", endcard=False, padding=False)
    return out if cards is None else assign_wcs(out, cards)


def _variance(ccd: CCDData) -> np.ndarray | None:
    if ccd.uncertainty is None:
        return None
    try:
        return np.asarray(ccd.uncertainty.represent_as(VarianceUncertainty).array)
    except TypeError as error:
        raise InputError(f"the uncertainty is of no known kind ({ccd.uncertainty.uncertainty_type})") from error


def _with_mask(image: xr.Dataset, mask: np.ndarray) -> xr.Dataset:
    if "flags" in image and np.array_equal(gather(image).bad.values, mask):
        return image
    return image.assign(mask=annotate(xr.DataArray(mask, dims=("y", "x")), "mask"))


def _sky(ccd: CCDData, header: fits.Header) -> tuple[str | None, dict[str, int]]:
    """The WCS cards of the full frame, and the pixel of it at which `ccd` begins."""
    start = window_start(header)
    if ccd.wcs is None:
        whole = (header.get(_SIZES["y"]), header.get(_SIZES["x"])) == ccd.data.shape
        return None, start if whole else {"x": 0, "y": 0}
    base, offset = header, _offset(ccd, header)
    if offset is None:
        nowhere = {"x": 0, "y": 0}
        base, offset, start = ccd.wcs.to_header(relax=True), nowhere, nowhere
    frame = base.copy()
    for axis, dim in ((1, "x"), (2, "y")):
        frame[f"CRPIX{axis}"] = float(frame.get(f"CRPIX{axis}", 0.0)) + start[dim]
    return wcs_cards(frame), {d: start[d] + offset[d] for d in start}


def _offset(ccd: CCDData, header: fits.Header) -> dict[str, int] | None:
    """Where the pixels of `ccd` begin in the image that the header's WCS is of; None where they are not of it."""
    cards = wcs_cards(header)
    if cards is None:
        return None
    ny, nx = ccd.data.shape
    x, y = np.array([0.0, nx - 1.0, 0.0, nx - 1.0]), np.array([0.0, 0.0, ny - 1.0, ny - 1.0])
    ra, dec = ccd.wcs.all_pix2world(x, y, 0)
    blank = assign_wcs(xr.Dataset(coords={"y": [0], "x": [0]}), cards)
    px, py = sky_to_pixel(blank, ra=ra, dec=dec)
    offset = {"x": np.round(px[0]), "y": np.round(py[0])}
    if not np.allclose([px - x - offset["x"], py - y - offset["y"]], 0.0, atol=1e-5):
        return None
    return {d: int(v) for d, v in offset.items()}
