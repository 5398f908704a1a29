"""Proper image subtraction of two images with one PSF each (Zackay, Ofek & Gal-Yam 2016, ApJ 830, 27: "ZOGY")."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

from ztfxr.arrays.images.convolve import footprint_mask
from ztfxr.arrays.images.image import Image
from ztfxr.arrays.images.stars import bright_stars
from ztfxr.arrays.images.windows import Cutouts
from ztfxr.arrays.no_solution import NoSolutionError
from ztfxr.arrays.stamps import shift_stamps
from ztfxr.arrays.statistics import median_and_scatter
from ztfxr.arrays.threads import workers
from ztfxr.arrays.types import Bools, Floats, Images, Numbers

__all__ = ["PSFImage", "Registration", "Subtraction", "proper_subtraction", "register"]

Spectrum = NDArray[np.complexfloating[Any, Any]]

_SIGNIFICANT, _SIGNIFICANT_IN_SCORE = (0.01, 0.01), (0.1, 0.003)
_FILL_SIGMA = 1.0
_TINY, _ROUNDING = 1e-28, 1e-3
_STARS, _STAR_SIZE, _STAR_SNR, _MIN_STARS, _CLIP = 400, 11, 20.0, 3, 4.0


@dataclass(frozen=True)
class PSFImage:
    """An image with what proper subtraction must know of it; see `PSFImage.of`.

    `pixels` and `variance` (y, x) in DN and DN², finite everywhere, background-subtracted; `bad`; `psf` a stamp of
    unit sum with odd sides; `sigma` the noise of the sky; `flux` the flux F, in DN, of a source of unit flux.
    """

    pixels: Images
    variance: Images
    bad: Bools
    psf: Floats
    sigma: float
    flux: float = 1.0

    @classmethod
    def of(cls, image: Image, psf: Numbers, *, flux: float = 1.0) -> PSFImage:
        """An image with its PSF, normalized here.

        The noise of the sky is the root of the median variance, or measured where there is none. Raises
        `NoSolutionError`: no noise can be had (``too_few_pixels``), or the PSF has no positive sum (``solve_failed``).
        """
        known, bad = image.variance, image.bad
        sigma = float(np.sqrt(np.median(known[~bad]))) if known is not None and not bad.all() else image.sky[1]
        if not sigma > 0:
            raise NoSolutionError("too_few_pixels")
        sky = np.float32(sigma**2)
        variance = np.full(bad.shape, sky) if known is None else np.where(bad, sky, known)
        return cls(image.pixels, variance, bad, _unit_sum(psf), sigma, flux)


@dataclass(frozen=True)
class Subtraction:
    """What proper subtraction gives, in the units of the paper: D has unit noise and S is its matched filter.

    `difference` D, `variance` of D (1 on empty sky), `score` S_corr, `flux` S / F_S: the flux of a point source at each
    pixel, in units of the exposures' `flux`, with its standard error `flux_err`; `psf` P_D, cut from its full extent;
    `flux_scale` F_D. Images are float32, NaN where `bad` (D) or `score_bad` (the others).
    """

    difference: Images
    variance: Images
    bad: Bools
    score: Images
    flux: Images
    flux_err: Images
    score_bad: Bools
    psf: Floats
    flux_scale: float


def _unit_sum(psf: Numbers) -> Floats:
    total = float(np.sum(psf, dtype=np.float64))
    if not np.all(np.isfinite(psf)) or not total > 0:
        raise NoSolutionError("solve_failed")
    return np.asarray(psf, dtype=np.float64) / total


def proper_subtraction(
    new: PSFImage,
    reference: PSFImage,
    *,
    shift: tuple[float, float] = (0.0, 0.0),
    astrometric_error: tuple[float, float] = (0.0, 0.0),
) -> Subtraction:
    """Subtract a reference from a new image with equal treatment of both.

    Parameters
    ----------
    new, reference
        Images of one shape; their PSFs hold everywhere.
    shift
        Position (y, x) of sources in the new image less that in the reference, pixels; taken out by the Fourier shift
        theorem.
    astrometric_error
        Standard deviation, per axis and in pixels, of the positions of sources in the new and the reference image.

    Notes
    -----
    D is eq. 13 of the paper, P_D eq. 14, F_D eq. 15, S eq. 12 (17), S_corr eq. 25-31; eq. 26-28 propagate the variance
    of each pixel. White noise of both images gives white noise in D. Bad pixels are filled from their neighbors in
    their own image (filling them in both makes false sources: the fills differ as the PSFs do), and masked with the
    footprint over which a filter has more than 1 % of its peak (10 % for S, 0.3 % at the edges), at most the PSF
    stamp's. Images are padded with zeros by the PSF stamps; the filters are built in double and applied in single
    precision.
    """
    shape = (new.pixels.shape[0], new.pixels.shape[1])
    grid = _padded_shape(shape, new.psf.shape, reference.psf.shape)
    bank = _Filters.of(new, reference, grid, shift)
    spectra = [_forward(_filled(i.pixels, i.bad), grid) for i in (new, reference)]
    difference = _backward(spectra[0] * bank.new - spectra[1] * bank.reference, grid, shape)
    s_new = _backward(spectra[0] * bank.new * bank.match, grid, shape)
    s_ref = _backward(spectra[1] * bank.reference * bank.match, grid, shape)
    noise = [_forward(image.variance, grid) for image in (new, reference)]
    variance, kernels = _propagated(noise, (bank.new, bank.reference), grid, shape)
    matched = bank.new * bank.match, bank.reference * bank.match
    score_variance, score_kernels = _propagated(noise, matched, grid, shape)
    for part, error in zip((s_new, s_ref), astrometric_error, strict=True):
        if error > 0:
            score_variance += np.float32(error**2) * _squared_gradient(part)
    limit = min(max(new.psf.shape + reference.psf.shape), (min(shape) - 1) | 1)
    masks = [
        _grown((new.bad, reference.bad), group, share, limit)
        for group, share in ((kernels, _SIGNIFICANT), (score_kernels, _SIGNIFICANT_IN_SCORE))
    ]
    return _assembled(difference, variance, s_new - s_ref, score_variance, masks, bank, limit)


@dataclass(frozen=True)
class _Filters:
    """Transfer functions: D = new · N - reference · R, and S = match · D; `psf` is P_D; F_D and F_S."""

    new: NDArray[np.complex64]
    reference: NDArray[np.complex64]
    match: NDArray[np.complex64]
    psf: Images
    flux_scale: float
    score_scale: float

    @classmethod
    def of(cls, new: PSFImage, reference: PSFImage, grid: tuple[int, int], shift: tuple[float, float]) -> _Filters:
        """The filters on a padded grid, built in double precision."""
        p_n, p_r = (_transfer(image.psf, grid) for image in (new, reference))
        f_n, f_r = new.flux, reference.flux
        power = (new.sigma * f_r * np.abs(p_r)) ** 2 + (reference.sigma * f_n * np.abs(p_n)) ** 2
        root = np.sqrt(np.maximum(power, _TINY * power.max()))
        f_d = f_n * f_r / np.hypot(new.sigma * f_r, reference.sigma * f_n)
        p_d = f_n * f_r * p_n * p_r / (f_d * root)
        psf = fft.irfft2(p_d, s=grid, workers=workers())
        moved = _phase(grid, shift)
        return cls(
            new=(f_r * p_r / root).astype(np.complex64),
            reference=(f_n * p_n * moved / root).astype(np.complex64),
            match=(f_d * np.conj(p_d)).astype(np.complex64),
            psf=psf.astype(np.float32),
            flux_scale=f_d,
            score_scale=f_d**2 * float((psf**2).sum()),
        )


def _assembled(
    difference: Images,
    variance: Images,
    score: Images,
    score_variance: Images,
    masks: list[Bools],
    bank: _Filters,
    limit: int,
) -> Subtraction:
    """Results with NaN under the masks."""
    error: Images = np.sqrt(score_variance)
    significance: Images = score / error
    difference[masks[0]], variance[masks[0]] = np.nan, np.nan
    for image in (significance, score, error):
        image[masks[1]] = np.nan
    scale = np.float32(bank.score_scale)
    half = limit // 2
    psf = np.roll(bank.psf, (half, half), (0, 1))[:limit, :limit].astype(np.float64)
    return Subtraction(
        difference, variance, masks[0], significance, score / scale, error / scale, masks[1], psf, bank.flux_scale
    )


def _padded_shape(shape: tuple[int, int], *stamps: tuple[int, ...]) -> tuple[int, int]:
    """Lengths that transform fast and keep what wraps around a stamp's width away from the image."""
    extra = max(n for stamp in stamps for n in stamp)
    height, width = (int(fft.next_fast_len(n + extra, real=True)) for n in shape)
    return height, width


def _forward(image: Numbers, grid: tuple[int, int]) -> Spectrum:
    return np.asarray(fft.rfft2(image, s=grid, workers=workers()))


def _backward(spectrum: Spectrum, grid: tuple[int, int], shape: tuple[int, int]) -> Images:
    """The part of the image that is not padding, float32."""
    image = fft.irfft2(spectrum, s=grid, workers=workers(), overwrite_x=True)
    return np.ascontiguousarray(image[: shape[0], : shape[1]], dtype=np.float32)


def _transfer(stamp: Floats, grid: tuple[int, int]) -> Spectrum:
    """Transform of a stamp whose middle pixel is the origin."""
    full = np.zeros(grid)
    full[: stamp.shape[0], : stamp.shape[1]] = stamp
    return _forward(np.roll(full, (-(stamp.shape[0] // 2), -(stamp.shape[1] // 2)), (0, 1)), grid)


def _phase(grid: tuple[int, int], shift: tuple[float, float]) -> Spectrum:
    """Transfer function that moves an image by `shift` pixels."""
    rows = np.exp(-2j * np.pi * shift[0] * fft.fftfreq(grid[0]))
    return np.asarray(rows[:, None] * np.exp(-2j * np.pi * shift[1] * fft.rfftfreq(grid[1])))


def _filled(pixels: Images, bad: Bools) -> Images:
    """Bad pixels replaced by a Gaussian mean of their good neighbors, by zero where there are none."""
    if not bad.any():
        return pixels
    good = np.where(bad, np.float32(0), np.float32(1))
    options: dict[str, Any] = {"sigma": _FILL_SIGMA, "mode": "constant", "truncate": 3.0}
    weight = ndimage.gaussian_filter(good, **options)[bad]
    mean = ndimage.gaussian_filter(pixels * good, **options)[bad]
    out = pixels.copy()
    out[bad] = np.where(weight > 0.01, mean / np.maximum(weight, np.float32(0.01)), np.float32(0))
    return out


def _propagated(
    noise: list[Spectrum], filters: tuple[Spectrum, Spectrum], grid: tuple[int, int], shape: tuple[int, int]
) -> tuple[Images, list[Numbers]]:
    """Variance of a filtered pair, ``Σ V ⊗ k²``, and the kernels k on the periodic grid."""
    kernels = [fft.irfft2(transfer, s=grid, workers=workers()) for transfer in filters]
    total: Spectrum = np.zeros_like(noise[0])
    floor = 0.0
    for spectrum, kernel in zip(noise, kernels, strict=True):
        square = _forward(kernel**2, grid)
        total += spectrum * square
        floor += _ROUNDING * float(spectrum[0, 0].real * square[0, 0].real) / (shape[0] * shape[1])
    return np.maximum(_backward(total, grid, shape), np.float32(floor)), kernels


def _reach(kernel: Numbers, significant: float) -> int:
    """Odd size of the centered square outside which a kernel on a periodic grid stays below a fraction of its peak."""
    strong = np.abs(kernel) > significant * np.abs(kernel).max()
    half = 0
    for axis, n in enumerate(kernel.shape):
        offset = np.flatnonzero(strong.any(axis=1 - axis))
        half = max(half, int(np.minimum(offset, n - offset).max()))
    return 2 * half + 1


def _grown(bad: tuple[Bools, Bools], kernels: list[Numbers], significant: tuple[float, float], limit: int) -> Bools:
    """Where bad pixels, or the frame's edge, reach into a filter with more than these fractions of its peak.

    Bad pixels have neighbors that fill them; beyond the edge nothing says that half a star is missing.
    """
    out = np.zeros(bad[0].shape, dtype=bool)
    for holes, kernel in zip(bad, kernels, strict=True):
        out |= footprint_mask(holes, min(_reach(kernel, significant[0]), limit))
        border = min(_reach(kernel, significant[1]), limit) // 2
        if border:
            out[:border] = out[-border:] = True
            out[:, :border] = out[:, -border:] = True
    return out


def _squared_gradient(image: Images) -> Images:
    dy, dx = np.gradient(image)
    return np.asarray(dy**2 + dx**2, dtype=np.float32)


@dataclass(frozen=True)
class Registration:
    """How a new image lies on its reference: `scale` is the flux scale new over reference, `shift` (y, x) the position
    in the new image less that in the reference, and `jitter` what its stars scatter about it per axis beyond their
    noise, both in pixels.
    """

    scale: float
    scale_err: float
    shift: tuple[float, float]
    jitter: float
    n_stars: int


def register(new: PSFImage, reference: PSFImage) -> Registration:
    """Flux scale and shift between two images from the stars that they share.

    Both images are brought to one PSF by convolving each with that of the other (Zackay et al. 2016, section 3.4), so
    that crowding does not matter. Around each bright star of the reference the new image is fitted by scale, shift and
    a constant; the clipped mean over stars, weighted by their noise and the scatter between stars, is the answer.

    Raises
    ------
    NoSolutionError
        ``too_few_pixels``: fewer than three stars above 20 times the noise. ``solve_failed``: they do not agree.
    """
    bad = new.bad | reference.bad
    margin = max(max(new.psf.shape), max(reference.psf.shape)) // 2
    if min(bad.shape) < _STAR_SIZE + 2 * margin + 6:
        raise NoSolutionError("too_few_pixels")
    clear = bright_stars(
        reference.pixels,
        bad,
        sky=(0.0, reference.sigma),
        size=_STAR_SIZE,
        margin=margin,
        maximum=_STARS,
        min_snr=_STAR_SNR,
        clear=True,
    )
    if len(clear) < _MIN_STARS:
        raise NoSolutionError("too_few_pixels")
    found = Registration(1.0, np.nan, (0.0, 0.0), 0.0, 0)
    clean = [
        np.where(clear.windows(bad, margin), 0.0, clear.windows(image.pixels, margin)) for image in (new, reference)
    ]
    for _ in range(3):
        found = _registered(new, reference, clean, clear, margin, found.shift)
    return found


def _registered(
    new: PSFImage, reference: PSFImage, windows: list[Floats], stars: Cutouts, margin: int, shift: tuple[float, float]
) -> Registration:
    """A registration that improves on `shift`; `windows` of both images around the stars, with margins."""
    data = _crossed(windows[0], reference.psf, margin, (0.0, 0.0))
    model = _crossed(windows[1], new.psf, margin, shift)
    slopes = np.gradient(model, axis=(1, 2))
    design = np.stack([model, -slopes[0], -slopes[1], np.ones_like(model)], axis=1).reshape(len(stars), 4, -1)
    inverse = np.linalg.inv(design @ design.transpose(0, 2, 1))
    solved = (inverse @ (design @ data.reshape(len(stars), -1, 1)))[..., 0]
    weight = np.maximum(model, 0) ** 2 / (np.maximum(model, 0) ** 2).sum(axis=(1, 2), keepdims=True)
    scale = float(np.median(solved[:, 0]))
    noise = stars.windows(new.variance) + scale**2 * stars.windows(reference.variance)
    errors = np.sqrt(np.einsum("sii->si", inverse) * (noise * weight).sum(axis=(1, 2))[:, None])
    scale, scale_err, _ = _robust_mean(solved[:, 0], errors[:, 0])
    dy, dx = (_robust_mean(solved[:, i] / scale, errors[:, i] / scale) for i in (1, 2))
    jitter = float(np.hypot(dy[2], dx[2]) / np.sqrt(2))
    return Registration(scale, scale_err, (shift[0] + dy[0], shift[1] + dx[0]), jitter, len(stars))


def _crossed(windows: Floats, psf: Floats, margin: int, shift: tuple[float, float]) -> Floats:
    """Windows moved by `shift` and convolved with a PSF, without their margins."""
    size = windows.shape[-1]
    moved = shift_stamps(windows, np.asarray(shift[0]), np.asarray(shift[1]))
    out = fft.irfft2(fft.rfft2(moved) * _transfer(psf, (size, size)), s=(size, size))
    return np.asarray(out[:, margin : size - margin, margin : size - margin])


def _robust_mean(values: Floats, errors: Floats) -> tuple[float, float, float]:
    """Clipped weighted mean, its error, and the scatter between values beyond their errors."""
    keep = np.isfinite(values) & np.isfinite(errors)
    extra = 0.0
    for _ in range(5):
        center, spread = median_and_scatter(values[keep])
        extra = float(np.sqrt(max(spread**2 - np.median(errors[keep] ** 2), 0.0)))
        keep &= np.abs(values - center) <= _CLIP * np.hypot(errors, extra) + 1e-12
        if keep.sum() < _MIN_STARS:
            raise NoSolutionError("solve_failed")
    weight = 1 / np.maximum(errors[keep] ** 2 + extra**2, 1e-30)
    return float((weight * values[keep]).sum() / weight.sum()), float(weight.sum() ** -0.5), extra
