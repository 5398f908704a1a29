"""Proper image subtraction (ZOGY)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ztfxr.arrays.images.image import Image
from ztfxr.arrays.matching.zogy import PSFImage, Registration, proper_subtraction, register
from ztfxr.arrays.no_solution import NoSolutionError
from ztfxr.arrays.psf.build import constant_psf
from ztfxr.arrays.stamps import pad
from ztfxr.arrays.types import Bools, Floats
from ztfxr.dia._pair import (
    bare,
    epoch_results,
    kept_attrs,
    known_variance,
    reference_image,
    reference_noise,
)
from ztfxr.dia._pair import (
    reference_mask as own_reference_mask,
)
from ztfxr.dia.decorrelate import require_psf
from ztfxr.errors import InputError
from ztfxr.ops._apply import IMAGE, apply_images
from ztfxr.ops.background import background as sky_background
from ztfxr.ops.background import get_image, get_mask
from ztfxr.schema import STATUS_PLANES, annotate_all, planes_to_bits
from ztfxr.wcs import same_grid

__all__ = ["zogy"]


_PSF = ("psf_y", "psf_x")
_CORES = (IMAGE, *(tuple(f"{name}_{d}" for d in _PSF) for name in ("sci", "ref")))
_OUTPUTS: dict[str, tuple[str, ...]] = {
    "zogy_difference": IMAGE,
    "zogy_variance": IMAGE,
    "mask": IMAGE,
    "zogy_score": IMAGE,
    "zogy_flux": IMAGE,
    "zogy_flux_err": IMAGE,
    "psf_difference": _PSF,
    "zogy_scale": (),
    "zogy_scale_err": (),
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
        PSFs, (psf_y, psf_x) or (time, psf_y, psf_x), centered, odd, normalized here. By default each is built from
        the image's own stars, the same for the whole image.
    psf_size
        Pixels along the side of a PSF that is built, odd.
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
        As in `ztfxr.difference`. Without any variance the noise of the sky is measured (stars make
        it too high in crowded fields) and that of sources is left out.

    Returns
    -------
    xarray.Dataset
        `zogy_difference` (D / F_D: the flux of a source is its flux in the science image) and `zogy_variance`, NaN
        where `mask` is True; `psf_difference`, the PSF of `zogy_difference`, cut from a wider one of unit sum;
        `zogy_score` (S_corr: unit variance on empty sky, a point source's significance at its pixel), `zogy_flux`
        and `zogy_flux_err` (the flux that a point source centered on the pixel has), NaN where a filter reaches bad
        pixels; `zogy_scale` with error (NaN if given), `shift_y`, `shift_x`, `astrometric_error`; `epoch_status`: an
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
    Zackay, Ofek & Gal-Yam 2016, ApJ 830, 27: eq. 12-17 and 25-31; see `ztfxr.arrays.matching.zogy`. The noise of
    resampled images is correlated, which this statistic does not know.
    """
    _check(psf, reference_psf, psf_size)
    ref, sci = reference_image(science, reference), get_image(science)
    same_grid(sci, ref)
    masks = get_mask(science, mask), own_reference_mask(reference, ref, reference_mask)
    noise = known_variance(science, variance, "variance"), reference_noise(science, reference, reference_variance)
    images = [_levelled(*pair) if background else pair[0] for pair in zip((sci, ref), masks, strict=True)]
    inputs = [images[0], masks[0], noise[0], *(bare(v) for v in (images[1], masks[1], noise[1]))]
    inputs += [_stamp(psf, "sci"), _stamp(reference_psf, "ref"), *_numbers(scale, shift, astrometric_error)]
    core = [next((d for d in _CORES if set(d) <= set(a.dims)), ()) for a in inputs]
    size = max([psf_size if p is None else max(p.sizes[d] for d in _PSF) for p in (psf, reference_psf)])
    sizes = dict.fromkeys(_PSF, size)
    kwargs = {"psf_size": psf_size, "size": size}
    found = apply_images(_one_epoch, *inputs, inputs=core, outputs=_OUTPUTS, sizes=sizes, kwargs=kwargs)
    return _labeled(found, science, sci, size)


def _check(psf: xr.DataArray | None, reference_psf: xr.DataArray | None, psf_size: int) -> None:
    for name, stamp in (("psf", psf), ("reference_psf", reference_psf)):
        if stamp is not None:
            require_psf(stamp, name)
    if psf_size < 5 or psf_size % 2 == 0:
        raise InputError(f"psf_size must be odd and at least 5; got {psf_size}")


def _levelled(image: xr.DataArray, bad: xr.DataArray) -> xr.DataArray:
    """The image less its background."""
    return image - sky_background(image, mask=bad)["background"]


def _stamp(psf: xr.DataArray | None, name: str) -> xr.DataArray:
    """A PSF with dimensions of its own, since the two may differ in size; NaN where it is to be estimated."""
    if psf is None:
        return xr.DataArray(np.nan)
    return bare(psf).transpose(..., *_PSF).rename({d: f"{name}_{d}" for d in _PSF})


def _numbers(
    scale: xr.DataArray | float | None, shift: tuple[float, float] | None, astrometric_error: float | None
) -> list[xr.DataArray]:
    """Scale, shift in y and x, and astrometric error; NaN for what is to be measured."""
    if scale is not None:
        shift = (0.0, 0.0) if shift is None else shift
        astrometric_error = 0.0 if astrometric_error is None else astrometric_error
    values = (scale, *(shift or (None, None)), astrometric_error)
    return [bare(v) if isinstance(v, xr.DataArray) else xr.DataArray(np.nan if v is None else float(v)) for v in values]


def _labeled(
    found: dict[str, xr.DataArray], science: xr.Dataset | xr.DataArray, sci: xr.DataArray, size: int
) -> xr.Dataset:
    """The results with their coordinates and attributes, and the status that epochs already had."""
    out = epoch_results(found, _OUTPUTS, sci)
    offset = np.arange(size) - size // 2
    out = out.assign_coords(psf_y=offset, psf_x=offset)
    out.attrs = kept_attrs(science)
    return annotate_all(out)


def _one_epoch(
    science: NDArray[Any],
    science_bad: Bools,
    science_variance: NDArray[Any],
    reference: NDArray[Any],
    reference_bad: Bools,
    reference_variance: NDArray[Any],
    psf: NDArray[Any],
    reference_psf: NDArray[Any],
    *numbers: Floats,
    psf_size: int,
    size: int,
) -> tuple[Any, ...]:
    """Subtract one image; arrays in, the values of `_OUTPUTS` out."""
    try:
        new = _with_psf(science, science_variance, science_bad, psf, psf_size)
        old = _with_psf(reference, reference_variance, reference_bad, reference_psf, psf_size)
        known = _registration(new, old, *(float(n) for n in numbers))
    except NoSolutionError as error:
        return _nothing(science.shape, size, error.status)
    old = replace(old, flux=1 / known.scale)
    done = proper_subtraction(new, old, shift=known.shift, astrometric_error=(0.0, known.jitter))
    scale = np.float32(done.flux_scale)
    return (
        done.difference / scale,
        done.variance / scale**2,
        done.bad,
        done.score,
        done.flux,
        done.flux_err,
        pad(done.psf, size),
        np.float64(known.scale),
        np.float64(known.scale_err),
        np.float64(known.shift[0]),
        np.float64(known.shift[1]),
        np.float64(known.jitter),
        np.uint32(0),
    )


def _with_psf(pixels: NDArray[Any], variance: NDArray[Any], bad: Bools, psf: NDArray[Any], psf_size: int) -> PSFImage:
    """An image with the PSF given, or with that of its stars."""
    image = Image.of(pixels, variance, bad)
    if psf.ndim == 2:
        return PSFImage.of(image, psf)
    found = PSFImage.of(image, np.ones((1, 1)))
    return replace(found, psf=constant_psf(found.pixels, found.variance, found.bad, size=psf_size))


def _registration(new: PSFImage, old: PSFImage, scale: float, dy: float, dx: float, jitter: float) -> Registration:
    """What is given, completed by what the stars say; raises `NoSolutionError` where they are needed and do not."""
    if np.isfinite(scale):
        if not scale > 0:
            raise NoSolutionError("solve_failed")
        return Registration(scale, np.nan, (dy, dx), jitter, 0)
    found = register(new, old)
    if not found.scale > 0:
        raise NoSolutionError("solve_failed")
    shift = found.shift if np.isnan(dy) else (dy, dx)
    return replace(found, shift=shift, jitter=found.jitter if np.isnan(jitter) else jitter)


def _nothing(shape: tuple[int, ...], size: int, status: str) -> tuple[Any, ...]:
    values: dict[str, Any] = {
        **{k: np.full(shape, np.nan, dtype=np.float32) for k, dims in _OUTPUTS.items() if dims == IMAGE},
        "mask": np.ones(shape, dtype=bool),
        "psf_difference": np.full((size, size), np.nan),
        "epoch_status": np.uint32(planes_to_bits([status], STATUS_PLANES)),
    }
    return tuple(values.get(name, np.float64(np.nan)) for name in _OUTPUTS)
