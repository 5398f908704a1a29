"""Whitening of difference images whose template was convolved (Reiss & Lupton 2016, DMTN-021)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import fft

from ztfxr.arrays.images.convolve import background_image, footprint_mask, varying_convolution
from ztfxr.arrays.images.correlation import autocorrelation, convolved_share
from ztfxr.arrays.polynomials import order_of, polynomial_terms
from ztfxr.arrays.types import Bools, Floats, Images, Numbers

__all__ = ["Decorrelated", "decorrelated", "effective_psf", "variance_ratio", "whitening_kernel"]


_SIGNIFICANT = 0.02
_LAGS, _LEAST_PIXELS, _CLIP = 4, 100, 4.0
_NODES, _ORDER = 9, 3
_LEAST_SHARE = 0.01


@dataclass(frozen=True)
class Decorrelated:
    """A whitened difference with its variance, NaN where `bad`, and the whitening kernel at the frame's center."""

    difference: Images
    variance: Images
    bad: Bools
    kernel: Floats


def whitening_kernel(kernel: Numbers, ratio: float, size: int) -> Floats:
    """The kernel that makes the noise of ``a - kernel ⊗ b`` white, (size, size), with unit sum.

    ``phi(k) = sqrt((s² + t² K(0)²) / (s² + t² |K(k)|²))``, with s² the variance of a and t² that of b: DMTN-021
    but for its constant, which is chosen such that ``phi(0) = 1``. So the flux of a point source, in the effective PSF
    ``PSF ⊗ phi``, stays what it was, and the white noise has the variance ``s² + K(0)² t²`` of the difference of two
    images that are not convolved. This is D / F_D of Zackay et al. 2016 for PSFs that `kernel` connects.

    Parameters
    ----------
    kernel
        Matching kernel, odd, in the convention of a convolution.
    ratio
        ``t² / s²``: variance of the image that is convolved over that of the one that is not.
    size
        Pixels along the result's side, odd. What the cut loses of the sum is spread over the stamp, which leaves high
        frequencies alone.
    """
    n = int(fft.next_fast_len(max(64, 4 * max(len(kernel), size)), real=True))
    power = np.abs(fft.rfft2(kernel, s=(n, n))) ** 2
    phi = fft.irfft2(np.sqrt((1 + ratio * power[0, 0]) / (1 + ratio * power)), s=(n, n))
    half = size // 2
    stamp = np.roll(phi, (half, half), (0, 1))[:size, :size]
    return np.asarray(stamp + (1 - stamp.sum()) / stamp.size)


def effective_psf(psf: Numbers, *kernels: Numbers) -> Floats:
    """A PSF stamp convolved with kernels in turn, cut to its own size; flux beyond the stamp is lost."""
    from scipy import signal

    out = np.asarray(psf, dtype=np.float64)
    for kernel in kernels:
        margin = kernel.shape[0] // 2
        full = signal.convolve(out, kernel)
        out = full[margin : margin + psf.shape[0], margin : margin + psf.shape[1]]
    return out


def variance_ratio(difference: Numbers, variance: Numbers, bad: Bools, kernel: Numbers) -> float:
    """``t² / s²`` of `whitening_kernel`, from the correlation that the difference image's own noise has.

    t² is that of `convolved_share` over lags of up to 4 pixels, s² what is left of the variance. NaN with fewer than a
    hundred good pixels.
    """
    if np.count_nonzero(~bad) < _LEAST_PIXELS:
        return np.nan
    correlation = autocorrelation(difference, variance, bad, reach=_LAGS, clip=_CLIP, grown=0.0, least=_LEAST_PIXELS)
    square = float((np.asarray(kernel, dtype=np.float64) ** 2).sum())
    share = min(convolved_share(correlation, kernel) * square, 1 - _LEAST_SHARE)
    return share / square / (1 - share)


def decorrelated(
    difference: Numbers,
    variance: Numbers,
    bad: Bools,
    coefficients: Floats,
    *,
    ratio: float,
    size: int,
) -> Decorrelated:
    """Whiten a difference image by the kernel that made it, which may vary over the frame.

    Parameters
    ----------
    difference, variance, bad
        (y, x): ``a - K ⊗ b``, its variance, and where they must not be used.
    coefficients
        (term, ky, kx) of K for the terms of `basis.exponents`, in the convention of a convolution.
    ratio, size
        As in `whitening_kernel`.

    Returns
    -------
    Decorrelated
        Masked pixels enter as zero, and the mask grows by the square within which the whitening kernel exceeds 2 % of
        its peak; the outermost ``size // 2`` rows and columns are masked.

    Notes
    -----
    A varying kernel is whitened at 9 × 9 places, and the results are joined by polynomials of order 3. The variance
    is ``V ⊗ phi²`` less what the correlation of the template's noise cancels: exact on the sky and for the noise of
    sources in the image that was not convolved; the convolved one's sources are counted as if theirs were white.
    """
    bad = bad | ~np.isfinite(difference) | ~(variance > 0)
    if bad.all():
        raise ValueError("no good pixel")
    sky = float(np.median(variance[~bad]))
    phi, levels = _whitening(coefficients, ratio, size)
    values = np.where(bad, np.float32(0), difference)
    noise = np.where(bad, np.float32(sky), variance)
    image, spread = varying_convolution(values, noise, phi)
    shape = (image.shape[0], image.shape[1])
    final, before = (background_image(shape, level) for level in levels)
    spread = np.maximum(spread + np.float32(sky) * (final - before), spread * (final / before))
    grown = footprint_mask(bad, _reach(phi[0]))
    border = size // 2
    if border:
        grown[:border] = grown[-border:] = True
        grown[:, :border] = grown[:, -border:] = True
    image[grown], spread[grown] = np.nan, np.nan
    return Decorrelated(image, spread, grown, phi[0])


def _whitening(coefficients: Floats, ratio: float, size: int) -> tuple[Floats, list[Floats]]:
    """Polynomial coefficients of phi, and of two variances in units of the difference's on the sky.

    The two are the variance after whitening, and what ``V ⊗ phi²`` makes of it.
    """
    constant = not np.any(coefficients[1:])
    places = np.zeros(1) if constant else np.linspace(-1, 1, _NODES)
    v, u = (p.ravel() for p in np.meshgrid(places, places, indexing="ij"))
    order = order_of(len(coefficients))
    kernels = np.tensordot(polynomial_terms(v, u, order), coefficients, axes=1)
    phis = np.stack([whitening_kernel(k, ratio, size) for k in kernels])
    difference = 1 + ratio * (kernels**2).sum(axis=(1, 2))
    final = (1 + ratio * kernels.sum(axis=(1, 2)) ** 2) / difference
    before = (phis**2).sum(axis=(1, 2))
    stacked = np.column_stack([phis.reshape(len(phis), -1), final, before])
    terms = polynomial_terms(v, u, 0 if constant else _ORDER)
    fitted = np.linalg.lstsq(terms, stacked, rcond=None)[0]
    return np.ascontiguousarray(fitted[:, :-2]).reshape(-1, size, size), [fitted[:, -2], fitted[:, -1]]


def _reach(phi: Floats) -> int:
    """Odd size of the square outside which the kernel is below a fraction of its peak."""
    offset = np.abs(np.arange(len(phi)) - len(phi) // 2)
    strong = np.abs(phi) > _SIGNIFICANT * np.abs(phi).max()
    return 2 * int(max(offset[strong.any(axis=0)].max(), offset[strong.any(axis=1)].max())) + 1
