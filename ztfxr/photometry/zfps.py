"""The recipe for light curves of the ZTF forced photometry service."""

from __future__ import annotations

from os import PathLike
from typing import Any

import xarray as xr

from ztfxr.errors import InputError
from ztfxr.io.zfps import read_zfps
from ztfxr.photometry.baseline import correct_baseline, rescale_errors
from ztfxr.photometry.calibrate import calibrate_flux
from ztfxr.photometry.cuts import quality_cuts
from ztfxr.photometry.magnitudes import total_flux

__all__ = ["clean_zfps"]


def clean_zfps(
    source: str | PathLike[str] | xr.Dataset,
    *,
    max_sky_noise: float | None = 25.0,
    max_seeing: float | None = 4.0,
    cuts: dict[str, Any] | None = None,
    variable: bool = False,
    **baseline: Any,
) -> xr.Dataset:
    """A light curve of the forced photometry service by its recipe: read, cut, calibrate, baseline, errors. Computes.

    Parameters
    ----------
    source
        The service's file, or what `ztfxr.read_zfps` made of it.
    max_sky_noise, max_seeing
        Limits of scisigpix (DN) and of the seeing (arcsec); None for none.
    cuts
        More options of `ztfxr.quality_cuts`.
    variable
        The source is a star that always varies: it has no baseline. Its errors are raised by the χ² of the PSF fits,
        and the reference's flux is added (`ztfxr.total_flux`).
    **baseline
        Passed on to `ztfxr.correct_baseline`.

    Returns
    -------
    xarray.Dataset
        The light curve in µJy with every row: `cuts` says which are not to be used, `ztfxr.cut_counts` how many. Then
        `ztfxr.total_flux` for variables, `ztfxr.magnitudes` for export.
    """
    lc = source if isinstance(source, xr.Dataset) else read_zfps(source)
    marked = quality_cuts(lc, max_sky_noise=max_sky_noise, max_seeing=max_seeing, **(cuts or {}))
    calibrated = calibrate_flux(marked)
    if not variable:
        return correct_baseline(calibrated, **baseline)
    if baseline:
        raise InputError(f"a variable has no baseline; {', '.join(baseline)} would have no effect")
    return total_flux(rescale_errors(calibrated))
