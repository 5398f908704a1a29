"""A basis for effective PSFs: Gaussians of many widths times harmonics, integrated over the pixel."""

from __future__ import annotations

from dataclasses import dataclass
from math import comb

import numpy as np
from scipy.special import erf, gammainc

from ztfxr.arrays.polynomials import degrees
from ztfxr.arrays.statistics import FWHM_TO_SIGMA
from ztfxr.arrays.types import Bools, Floats, Ints

__all__ = ["ProfileBasis", "profile_basis"]


_NARROWEST, _RATIO = 0.35, 1.35
_WIDEST_HARMONIC, _WIDEST_VARYING, _WING_ORDER = 2.0, 3.0, 1
_PIXEL_VARIANCE, _LEAST_CORE = 1 / 12, 0.25


@dataclass(frozen=True)
class ProfileBasis:
    """Functions ``g(r / sigma) (r / sigma)^m cos(m θ)`` and sin, with g a Gaussian, integrated over pixels.

    A sum of Gaussians follows any smooth profile, core and wings (Cappellari 2002, MNRAS 333, 400), and the harmonics
    give it its shape. It has a hundred times fewer parameters than a grid of free values, and none for what pixels
    cannot see. So the noise in the wings, which decide how much of the light the PSF holds, stays small.

    `sigma`, `harmonic`, `sine` and `order` (the highest spatial order) have one value a function.
    """

    sigma: Floats
    harmonic: Ints
    sine: Bools
    order: Ints

    def __len__(self) -> int:
        return len(self.sigma)

    def free(self, order: int, max_order: int) -> Bools:
        """Which (term, function) pairs a model of spatial order `order` has, of the terms up to `max_order`."""
        return np.asarray(degrees(max_order)[:, None] <= np.minimum(self.order, order)[None, :])

    def values(self, dy: Floats, dx: Floats) -> Floats:
        """The functions at the offsets `dy` (..., y) and `dx` (..., x) of pixels: (..., function, y, x).

        ``(x + iy)^m`` times a Gaussian is, but for a factor, ``(∂x + i ∂y)^m`` of the Gaussian, which is a sum of
        products of derivatives along x and y; the integral of a derivative is the one before it at the pixel's edges.
        """
        out = np.empty((*dy.shape[:-1], len(self), dy.shape[-1], dx.shape[-1]))
        for sigma in np.unique(self.sigma):
            own = np.flatnonzero(self.sigma == sigma)
            highest = int(self.harmonic[own].max())
            along_y, along_x = (_integrated_derivatives(d, float(sigma), highest) for d in (dy, dx))
            for i in own:
                m = int(self.harmonic[i])
                powers = range(1 if self.sine[i] else 0, m + 1, 2)
                out[..., i, :, :] = sum(
                    (-1.0) ** (k // 2) * comb(m, k) * along_y[k][..., :, None] * along_x[m - k][..., None, :]
                    for k in powers
                )
        return out

    def moffat(self, fwhm: float, beta: float) -> Floats:
        """How much of the light of a round Moffat profile each function would have: (function,).

        The profile ``(1 + r² / a²)^-β`` is a sum of Gaussians whose ``a² / 2σ²`` follows a gamma distribution of shape
        ``β - 1``; each width stands for those nearer to it than to the others.
        """
        a2 = fwhm**2 / (4 * (2 ** (1 / beta) - 1))
        below, above = (gammainc(beta - 1, a2 / (2 * self.sigma**2 * step)) for step in (1 / _RATIO, _RATIO))
        return np.where(self.harmonic == 0, below - above, 0.0)


def _integrated_derivatives(offset: Floats, sigma: float, highest: int) -> list[Floats]:
    """Derivatives 0 … `highest`, in units of 1 / sigma, of a Gaussian of unit sum, integrated over pixels."""
    edges = [(offset + side) / sigma for side in (-0.5, 0.5)]
    out = [0.5 * (erf(edges[1] / np.sqrt(2.0)) - erf(edges[0] / np.sqrt(2.0)))]
    bells = [np.exp(-0.5 * t**2) / np.sqrt(2.0 * np.pi) for t in edges]
    hermite = [np.ones_like(t) for t in edges], [np.zeros_like(t) for t in edges]
    for n in range(highest):
        out.append((-1.0) ** n * (hermite[0][1] * bells[1] - hermite[0][0] * bells[0]))
        following = [t * now - n * before for t, now, before in zip(edges, *hermite, strict=True)]
        hermite = following, hermite[0]
    return out


def profile_basis(fwhm: float, radius: float, order: int, harmonics: int = 6) -> ProfileBasis:
    """The basis for a PSF that looks as wide as `fwhm` on the pixels, out to `radius`, both in pixels.

    Widths grow by 1.35 (with 1.5, a Gaussian between two of them came out with 0.2 % more light) from a third of the
    PSF's, without the pixel's part in it, to a third of the radius. Those within twice the PSF's width have the
    harmonics 1 to `harmonics`; those within three times vary over the frame up to `order`, the wings linearly.
    """
    core = np.sqrt(max((fwhm * FWHM_TO_SIGMA) ** 2 - _PIXEL_VARIANCE, _LEAST_CORE**2))
    steps = np.log(max(radius / 3.0, 2 * core) / (_NARROWEST * core)) / np.log(_RATIO)
    sigma = core * _NARROWEST * _RATIO ** np.arange(int(np.ceil(steps)) + 1)
    near = sigma[sigma <= _WIDEST_HARMONIC * core]
    rows = [(s, 0, False) for s in sigma]
    rows += [(s, m, sine) for m in range(1, harmonics + 1) for s in near for sine in (False, True)]
    widths, numbers, sines = (np.array(c) for c in zip(*rows, strict=True))
    orders = np.where(widths <= _WIDEST_VARYING * core, order, min(_WING_ORDER, order))
    return ProfileBasis(widths, numbers.astype(np.int64), sines, orders.astype(np.int64))
