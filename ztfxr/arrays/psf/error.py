"""How well an effective PSF is known: the error of all fluxes that are measured with it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ztfxr.arrays.polynomials import polynomial_terms
from ztfxr.arrays.psf.profiles import ProfileBasis
from ztfxr.arrays.types import Bools, Floats

__all__ = ["StarEquations", "flux_covariance"]


_FIT_FWHM, _LEAST_FIT = 3.0, 4.0
_SKY = 0.03
_RIDGE = 1e-8
_BATCH = 64


@dataclass(frozen=True)
class StarEquations:
    """Normal equations of each star's pixels, in units of its flux, for the profile's functions.

    `normal` (star, function, function), `right` (star, function), `v`, `u` (star,) where the stars are; `square` and
    `n_pixels` are the weighted sum of squares and the number of all pixels.
    """

    normal: Floats
    right: Floats
    v: Floats
    u: Floats
    square: float
    n_pixels: int

    def terms(self, order: int) -> Floats:
        """Polynomial terms at the stars, (star, term)."""
        return polynomial_terms(self.v, self.u, order)

    def matrix(self, terms: Floats, precision: Floats) -> Floats:
        """The matrix of all stars, for (term, function) ravelled, with what is known beforehand on its diagonal."""
        n = terms.shape[1] * self.normal.shape[1]
        out = np.einsum("st,sr,sfg->tfrg", terms, terms, self.normal, optimize=True).reshape(n, n)
        out[np.diag_indices(n)] += precision
        return np.asarray(out)


def flux_covariance(
    stars: StarEquations,
    coefficients: Floats,
    basis: ProfileBasis,
    precision: Floats,
    order: int,
    *,
    fwhm: float,
    radius: int,
) -> Floats:
    """Covariance of the relative error of fluxes fitted with a PSF built from `stars`.

    A PSF P that is off by δ makes a flux ``f = Σ w P D / Σ w P²``, P of unit sum, too large by
    ``ε = Σ δ / Σ P - Σ w P δ / Σ w P²``: light that the PSF holds beyond the pixels that are fitted. How far δ may be
    off follows from the stars themselves: the jackknife leaves out one after the other (Efron & Stein 1981, Ann. Stat.
    9, 586). So it knows the noise of the pixels, neighbors, and what the basis cannot follow. Found from n stars, its
    deviations follow Student's distribution, whose variance is (n - 1) / (n - 3) times as large. What was assumed of
    the wings adds its own doubt. Only functions that are round have a part in ε.

    Parameters
    ----------
    stars
        Those that the PSF was solved from.
    coefficients
        The solution (term, function).
    basis
        Its functions.
    precision
        Of what was assumed of the coefficients, ravelled.
    order
        Spatial order of the solution; higher terms are zero.
    fwhm, radius
        Of the PSF, in pixels.

    Returns
    -------
    numpy.ndarray
        (term, term) for the terms of `order`: at terms t of a position, ``var(ε) = tᵀ C t``. It holds for bright stars
        (weights of the photon noise), the only ones whose error it is. NaN where there are three stars or fewer.
    """
    terms = stars.terms(order)
    n = terms.shape[1]
    round_ = np.flatnonzero(basis.harmonic == 0)
    effect = _effect(basis, coefficients[0], fwhm, radius)[round_]
    free = basis.free(order, order)[:, round_].ravel()
    known = precision.reshape(-1, len(basis))[:n, round_].ravel()
    own = StarEquations(stars.normal[:, round_][:, :, round_], stars.right[:, round_], stars.v, stars.u, 0.0, 0)
    fitted = np.einsum("sfg,st,tg->sf", stars.normal, terms, coefficients[:n], optimize=True)[:, round_]
    score = (terms[:, :, None] * (own.right - fitted)[:, None, :]).reshape(len(terms), -1)[:, free]
    matrix = own.matrix(terms, known)[np.ix_(free, free)]
    scaling = 1.0 / np.sqrt(np.maximum(np.diag(matrix), 1e-300))
    matrix[np.diag_indices_from(matrix)] += _RIDGE / scaling**2
    changes = [
        _left_out(matrix, own.normal[some], terms[some], score[some], free, scaling)
        for some in np.split(np.arange(len(terms)), range(_BATCH, len(terms), _BATCH))
    ]
    doubt = scaling * np.linalg.solve(matrix * scaling * scaling[:, None], np.diag(scaling * np.sqrt(known[free])))
    change, assumed = (_on_terms(v, free, n, effect) for v in (np.concatenate(changes), doubt.T))
    change -= change.mean(axis=0)
    few = (len(terms) - 1) / (len(terms) - 3) if len(terms) > 3 else np.nan
    return np.asarray(few * change.T @ change + assumed.T @ assumed)


def _effect(basis: ProfileBasis, coefficients: Floats, fwhm: float, radius: int) -> Floats:
    """ε for a change by each function: (function,)."""
    offset = np.arange(-radius, radius + 1, dtype=np.float64)
    distance = np.hypot(offset[:, None], offset[None, :])
    functions = basis.values(offset, offset) * (distance <= radius)
    psf = np.einsum("f,fyx->yx", coefficients, functions)
    weight = (distance <= max(_FIT_FWHM * fwhm, _LEAST_FIT)) / (_SKY * psf.max() + np.maximum(psf, 0.0))
    share = np.einsum("yx,fyx->f", weight * psf, functions) / (weight * psf**2).sum()
    return np.asarray(functions.sum(axis=(1, 2)) / psf.sum() - share)


def _left_out(matrix: Floats, normal: Floats, terms: Floats, score: Floats, free: Bools, scaling: Floats) -> Floats:
    """By how much the solution changes where each star is left out: (star, parameter)."""
    size = len(free)
    own = np.einsum("st,sr,sfg->stfrg", terms, terms, normal, optimize=True).reshape(-1, size, size)
    rest = (matrix - own[:, free][:, :, free]) * scaling * scaling[:, None]
    return np.asarray(-scaling * np.linalg.solve(rest, (scaling * score)[..., None])[..., 0])


def _on_terms(parameters: Floats, free: Bools, n: int, effect: Floats) -> Floats:
    """ε of some changes of the parameters: (change, term)."""
    full = np.zeros((len(parameters), len(free)))
    full[:, free] = parameters
    return np.asarray(full.reshape(len(full), n, -1) @ effect)
