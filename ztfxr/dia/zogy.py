"""Proper image subtraction (ZOGY)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ztfxr.arrays.match import MatchError
from ztfxr.arrays.starpsf import star_psf
from ztfxr.arrays.zogy import Exposure, Registration, proper_subtraction, register
from ztfxr.dia.decorrelate import require_psf
from ztfxr.dia.difference import _bare, _reference_image, _reference_mask, _reference_noise, _variance
from ztfxr.errors import InputError
from ztfxr.ops._apply import IMAGE, apply_images
from ztfxr.ops.background import background as sky_background
from ztfxr.ops.background import get_image, get_mask
from ztfxr.schema import STATUS_PLANES, annotate_all, planes_to_bits
from ztfxr.wcs import same_grid

__all__ = ["zogy"]

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

_PSF = ("psf_y", "psf_x")
_OUTPUTS: dict[str, tuple[str, ...]] = {
    "zogy_difference": IMAGE,
    "zogy_variance": IMAGE,
    "mask": IMAGE,
    "score": IMAGE,
    "score_flux": IMAGE,
    "score_flux_err": IMAGE,
    "psf_difference": _PSF,
    "flux_scale": (),
    "flux_scale_err": (),
    "shift_y": (),
    "shift_x": (),
    "astrometric_error": (),
    "epoch_status": (),
}


def zogy(
    science: xr.Dataset | xr.DataArray,
    reference: xr.Dataset | xr.DataArray | None = None,
    *,
    psf: xr.DataArray | None = None,
    reference_psf: xr.DataArray | None = None,
    psf_size: int = 25,
    scale: xr.DataArray | float | None = None,
    shift: tuple[float, float] | None = None,
    astrometric_error: float | None = None,
    background: bool = True,
    variance: xr.DataArray | None = None,
    reference_variance: xr.DataArray | None = None,
    mask: xr.DataArray | None = None,
    reference_mask: xr.DataArray | None = None,
) -> xr.Dataset:
    """Proper difference image, its PSF, and the significance and flux of a point source at every pixel; lazy, one epoch
    a task.

    The statistic is optimal for point sources where both images have white noise and each has one PSF. Over a field
    whose PSF varies, ``ztfxr.decorrelate(ztfxr.difference(...))`` is the same difference with a varying kernel.

    Parameters
    ----------
    science, reference
        As in `ztfxr.difference`.
    psf, reference_psf
        PSFs, (psf_y, psf_x) or (time, psf_y, psf_x), centred, odd, normalised here. By default each is estimated from
        the image's own stars, `psf_size` pixels wide: a robust mean, the same for the whole image.
    scale
        Flux scale of the science image over the reference. By default it is measured on the stars that both have, and
        with it whatever is not given of `shift` and `astrometric_error`.
    shift
        Position (y, x) of sources in the science image less that in the reference, in pixels; taken out. With a `scale`
        that is given: (0, 0) by default.
    astrometric_error
        Scatter of the registration per axis in pixels, which lessens the significance where the reference is steep
        (eq. 30 of the paper). With a `scale` that is given: 0 by default.
    background
        Subtract `ztfxr.background` from both images; False where it has been done.
    variance, reference_variance, mask, reference_mask
        As in `ztfxr.difference`. Without any variance the noise of the sky is measured and that of sources unknown.

    Returns
    -------
    xarray.Dataset
        `zogy_difference` (D / F_D: the flux of a source is its flux in the science image) and `zogy_variance`, NaN
        where `mask` is True; `psf_difference`, the PSF of `zogy_difference`, cut from a wider one of unit sum;
        `score` (S_corr: unit variance on empty sky, a point source's significance at its pixel), `score_flux`
        and `score_flux_err` (the flux that a point source centred on the pixel has), NaN where a filter reaches bad
        pixels; `flux_scale` with error (NaN if given), `shift_y`, `shift_x`, `astrometric_error`; `epoch_status`: an
        epoch without a result is NaN with a status that says why. The coordinates of `science` stay.

    Raises
    ------
    InputError
        An even `psf_size`, a PSF of other dims, no reference.
    AlignmentError
        The images do not share one pixel grid.
    ChunkError
        An image is chunked along y or x.

    Notes
    -----
    Zackay, Ofek & Gal-Yam 2016, ApJ 830, 27: eq. 12-17 and 25-31; see `ztfxr.arrays.zogy`. The noise of resampled
    images is correlated, which this statistic does not know.
    """
    _check(psf, reference_psf, psf_size)
    ref, sci = _reference_image(science, reference), get_image(science)
    same_grid(sci, ref)
    masks = get_mask(science, mask), _reference_mask(reference, ref, reference_mask)
    noise = _variance(science, variance, "variance"), _reference_noise(science, reference, reference_variance)
    images = [_levelled(*pair) if background else pair[0] for pair in zip((sci, ref), masks, strict=True)]
    values = _numbers(scale, shift, astrometric_error)
    inputs = [images[0], masks[0], noise[0], _optional(psf)]
    inputs += [_bare(v) for v in (images[1], masks[1], noise[1])] + [_optional(reference_psf), *values]
    core = [next((d for d in (IMAGE, _PSF) if set(d) <= set(a.dims)), ()) for a in inputs]
    inputs, core = _apart(inputs, core)
    size = max([psf_size if p is None else max(p.sizes[d] for d in _PSF) for p in (psf, reference_psf)])
    sizes = dict.fromkeys(_PSF, size)
    kwargs = {"psf_size": psf_size, "size": size}
    found = apply_images(_one_epoch, *inputs, inputs=core, outputs=_OUTPUTS, sizes=sizes, kwargs=kwargs)
    return _labelled(found, science, sci, size)
