"""Proper image subtraction (ZOGY)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ztfxr.arrays.images.image import Image
from ztfxr.arrays.matching.zogy import PSFImage, Registration, proper_subtraction, register
from ztfxr.arrays.no_solution import NoSolutionError
from ztfxr.arrays.psf.build import constant_psf
from ztfxr.arrays.stamps import pad
from ztfxr.arrays.types import Bools, Floats
from ztfxr.dia.decorrelate import require_psf
from ztfxr.dia.pair import gather_pair, number_or_array
from ztfxr.errors import InputError
from ztfxr.ops.background import SkyOptions, less_sky
from ztfxr.ops.exposure import Labeled, MaskChoice

__all__ = ["zogy"]

_PSF, _PSF_SIZE = ("psf_y", "psf_x"), 25


def zogy(
    science: Labeled,
    reference: Labeled | None = None,
    *,
    psf: xr.DataArray | int = 25,
    reference_psf: xr.DataArray | None = None,
    scale: xr.DataArray | float | None = None,
    shift: tuple[float, float] | None = None,
    astrometric_error: float | None = None,
    background: bool = True,
    variance: xr.DataArray | None = None,
    reference_variance: xr.DataArray | None = None,
    mask: MaskChoice = None,
    reference_mask: MaskChoice = None,
) -> xr.Dataset:
    """Proper difference image, its PSF, and the significance and flux of a point source at every pixel; lazy.

    The statistic is optimal for point sources where both images have white noise and each has one PSF. Over a field
    whose PSF varies, ``ztfxr.decorrelate(ztfxr.difference(...))`` is the same difference with a varying kernel.

    Parameters
    ----------
    science, reference
        Images as for `ztfxr.difference`.
    psf, reference_psf
        PSFs, (psf_y, psf_x) or (time, psf_y, psf_x), centered, odd, normalized here. One that is not given is built
        from the image's own stars, the same for the whole image; a number in place of `psf` is the side of PSFs that
        are built, in pixels.
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
        Noise and masks as in `ztfxr.difference`. Where no variance is known, the noise of the sky is measured (stars
        make it too high in crowded fields) and that of sources is left out.

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
        An even side of PSFs, a PSF of other dims, no reference.
    AlignmentError
        The images do not share one pixel grid.
    ChunkError
        An image is chunked along y or x.

    Notes
    -----
    Zackay, Ofek & Gal-Yam 2016, ApJ 830, 27: eq. 12-17 and 25-31; see `ztfxr.arrays.matching.zogy`. The noise of
    resampled images is correlated, which this statistic does not know.
    """
    psf_size = psf if isinstance(psf, int) else _PSF_SIZE
    stamps = {"science": None if isinstance(psf, int) else psf, "reference": reference_psf}
    _check(stamps, psf_size)
    pair = gather_pair(
        science,
        reference,
        variance=variance,
        reference_variance=reference_variance,
        mask=mask,
        reference_mask=reference_mask,
    )
    inputs = pair.inputs()
    if background:
        inputs |= {"science": less_sky(pair.science, SkyOptions()), "reference": less_sky(pair.reference, SkyOptions())}
    if scale is not None:
        shift = (0.0, 0.0) if shift is None else shift
        astrometric_error = 0.0 if astrometric_error is None else astrometric_error
    size = max([psf_size if p is None else max(p.sizes[d] for d in _PSF) for p in stamps.values()])
    found = pair.map(
        _subtracted,
        inputs | {"psfs": stamps, "scale": number_or_array(scale)},
        _Results._fields,
        sizes=dict.fromkeys(_PSF, size),
        options={"shift": shift, "astrometric_error": astrometric_error, "psf_size": psf_size, "size": size},
    )
    offset = np.arange(size) - size // 2
    return pair.results(found).assign_coords(psf_y=offset, psf_x=offset)


def _check(stamps: Mapping[str, xr.DataArray | None], size: int) -> None:
    for name, stamp in stamps.items():
        if stamp is not None:
            require_psf(stamp, "psf" if name == "science" else "reference_psf")
    if size < 5 or size % 2 == 0:
        raise InputError(f"psf is a PSF, or the odd side of those that are built, at least 5 pixels; got {size}")


class _Results(NamedTuple):
    """What is found of one image, by the names of the schema."""

    zogy_difference: NDArray[np.float32]
    zogy_variance: NDArray[np.float32]
    mask: Bools
    zogy_score: NDArray[np.float32]
    zogy_flux: NDArray[np.float32]
    zogy_flux_err: NDArray[np.float32]
    psf_difference: Floats
    zogy_scale: float
    zogy_scale_err: float
    shift_y: float
    shift_x: float
    astrometric_error: float
    epoch_status: int


def _subtracted(
    *,
    science: NDArray[Any],
    science_bad: Bools,
    science_variance: NDArray[Any] | None,
    reference: NDArray[Any],
    reference_bad: Bools,
    reference_variance: NDArray[Any] | None,
    psfs: dict[str, NDArray[Any] | None],
    scale: Floats | None,
    shift: tuple[float, float] | None,
    astrometric_error: float | None,
    psf_size: int,
    size: int,
) -> _Results:
    """Subtract one image (y, x); raises `NoSolutionError` where an image, a PSF or the registration fails."""
    new = _with_psf(Image.of(science, science_variance, science_bad), psfs["science"], psf_size)
    old = _with_psf(Image.of(reference, reference_variance, reference_bad), psfs["reference"], psf_size)
    known = _registration(new, old, None if scale is None else float(scale), shift, astrometric_error)
    old = replace(old, flux=1 / known.scale)
    done = proper_subtraction(new, old, shift=known.shift, astrometric_error=(0.0, known.jitter))
    factor = np.float32(done.flux_scale)
    return _Results(
        zogy_difference=done.difference / factor,
        zogy_variance=done.variance / factor**2,
        mask=done.bad,
        zogy_score=done.score,
        zogy_flux=done.flux,
        zogy_flux_err=done.flux_err,
        psf_difference=pad(done.psf, size),
        zogy_scale=known.scale,
        zogy_scale_err=known.scale_err,
        shift_y=known.shift[0],
        shift_x=known.shift[1],
        astrometric_error=known.jitter,
        epoch_status=0,
    )


def _with_psf(image: Image, psf: NDArray[Any] | None, psf_size: int) -> PSFImage:
    """An image with the PSF given, or with that of its stars."""
    if psf is not None:
        return PSFImage.of(image, psf)
    found = PSFImage.of(image, np.ones((1, 1)))
    return replace(found, psf=constant_psf(found.pixels, found.variance, found.bad, size=psf_size))


def _registration(
    new: PSFImage,
    old: PSFImage,
    scale: float | None,
    shift: tuple[float, float] | None,
    jitter: float | None,
) -> Registration:
    """What is given, completed by what the stars say; raises `NoSolutionError` where they are needed and do not."""
    if scale is None or not np.isfinite(scale):
        known = register(new, old)
    else:
        known = Registration(scale, np.nan, (0.0, 0.0), 0.0, 0)
    if not known.scale > 0:
        raise NoSolutionError("solve_failed")
    return replace(
        known, shift=known.shift if shift is None else shift, jitter=known.jitter if jitter is None else jitter
    )
