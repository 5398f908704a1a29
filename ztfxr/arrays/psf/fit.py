"""Forced PSF photometry of one image: fluxes of sources at known positions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from ztfxr.arrays.images.annuli import LEVELS
from ztfxr.arrays.psf.loops import COLUMNS, Frame, Rules, Sources, Spread, fit_groups, position_sums
from ztfxr.arrays.psf.model import PSFModel, psf_fwhm
from ztfxr.arrays.types import Bools, Floats

__all__ = ["ConvolvedNoise", "FitOptions", "SourceFits", "fit_sources", "group_sources", "position_equations"]

Ints = NDArray[np.int64]

_RADIUS_FWHM, _LEAST_RADIUS = 3.0, 4.0
_ANNULUS_FWHM = (4.0, 8.0)
_LARGEST_GROUP, _NEIGHBORHOOD = 64, 1.5
_FAR = 1 << 40
_BACKGROUNDS = {"none": 0, "fit": 1, "annulus": 2}


@dataclass(frozen=True)
class FitOptions:
    """How to fit; see `ztfxr.forced_photometry`. None stands for a multiple of the FWHM.

    `level` is the estimator of an annulus, one of `ztfxr.arrays.images.annuli.LEVELS` that are medians.
    """

    radius: float | None = None
    group_radius: float | None = None
    model_weights: bool = True
    background: str = "none"
    annulus: tuple[float, float] | None = None
    max_masked_fraction: float = 0.5
    level: Literal["median", "mad"] = "mad"


@dataclass(frozen=True)
class ConvolvedNoise:
    """What a matching kernel did: to the PSF (`spread`, kernels (term, y, x) or None) and to the noise.

    `noise` are the kernels that one of the two images was convolved with, `variance` (y, x) its variance before that;
    both empty where the noise is white. `terms` (source, term) are the kernels' polynomial terms at the sources.
    """

    spread: Floats
    noise: Floats
    variance: NDArray[Any]
    terms: Floats


@dataclass(frozen=True)
class SourceFits:
    """One value a source; the flux is NaN where none could be measured.

    `flux_err` is that of the pixels' noise, `model_err` that of what was subtracted. `lost` is the fraction of the
    PSF's light that falls on bad pixels or outside the image, `outside` the latter alone.
    """

    flux: Floats
    flux_err: Floats
    model_err: Floats
    background: Floats
    chi2: Floats
    n_pixels: Ints
    lost: Floats
    outside: Floats
    saturated: Bools
    blended: Bools


def group_sources(y: Floats, x: Floats, distance: float) -> tuple[Ints, Ints, Ints]:
    """Groups of sources linked by less than `distance`: members, where each group starts, and how many are its own.

    A group of more than 64 is taken apart: each of its sources is solved with the neighbors within 1.5 times the
    distance, and only its own result is kept.
    """
    n = len(y)
    if n == 0:
        return np.empty(0, np.int64), np.zeros(1, np.int64), np.empty(0, np.int64)
    places = np.column_stack([y, x])
    tree = cKDTree(places)
    pairs = tree.query_pairs(distance, output_type="ndarray")
    links = coo_array((np.ones(len(pairs), dtype=np.int8), (pairs[:, 0], pairs[:, 1])), shape=(n, n))
    count, label = connected_components(links, directed=False)
    size = np.bincount(label, minlength=count)
    order = np.argsort(label, kind="stable")
    small = np.flatnonzero(size <= _LARGEST_GROUP)
    parts = [order[size[label[order]] <= _LARGEST_GROUP]]
    sizes, keep = [size[small]], [size[small]]
    crowded = np.flatnonzero(size[label] > _LARGEST_GROUP)
    if len(crowded):
        near = cKDTree(places[crowded]).sparse_distance_matrix(tree, _NEIGHBORHOOD * distance, output_type="ndarray")
        other = near["j"].astype(np.int64)
        own_first = np.lexsort((other != crowded[near["i"]], near["i"]))
        parts.append(other[own_first])
        sizes.append(np.bincount(near["i"], minlength=len(crowded)))
        keep.append(np.ones(len(crowded), dtype=np.int64))
    starts = np.r_[0, np.cumsum(np.concatenate(sizes))]
    return np.concatenate(parts).astype(np.int64), starts.astype(np.int64), np.concatenate(keep).astype(np.int64)


def fit_sources(
    image: NDArray[Any],
    variance: NDArray[Any],
    bad: Bools,
    y: Floats,
    x: Floats,
    model: PSFModel,
    *,
    options: FitOptions,
    origin: tuple[float, float] = (0.0, 0.0),
    saturated: Bools | None = None,
    convolved: ConvolvedNoise | None = None,
    correlation: Floats | None = None,
    modes: NDArray[Any] | None = None,
) -> SourceFits:
    """Fluxes of sources at known positions, by weighted linear least squares.

    A source alone has ``f = Σ w P D / Σ w P²`` over the good pixels of a disk, with P the PSF at its sub-pixel place.
    Sources closer than `group_radius` are solved jointly: each has the equation ``Σ w P_i (D - Σ_j f_j P_j) = 0`` over
    its own disk. The weights do not follow the noise of the pixels that they weigh, which would pull bright fluxes low:
    w is the inverse of ``a + Σ b_j P_j``, fitted to the variance map, which makes it smooth. The error is that of the
    linear estimate under the variance map itself, ``Σ c² V`` with ``c = w P / Σ w P²``, and under what is known of the
    noise's correlation; so it is right whatever the weights.

    Parameters
    ----------
    image, variance, bad
        (y, x) in DN and DN², taken in single precision.
    y, x
        Array positions (source,); NaN gives NaN.
    model
        The PSF, in absolute pixels.
    options
        See there.
    origin
        Absolute pixel (y, x) of the array's first.
    saturated
        (y, x), where pixels are saturated.
    convolved
        What a matching kernel did to PSF and noise.
    correlation
        Autocorrelation of the noise (lag_y, lag_x), odd, 1 in the middle, in units of the variance map.
    modes
        Error of what was subtracted, (mode, y, x), see `ztfxr.arrays.matching.model_error`.
    """
    frame, spread, sources, rules = _prepared(
        image, variance, bad, y, x, model, options, origin, saturated, convolved, correlation, modes
    )
    n = len(y)
    known, place = _distinct(y, x)
    distance = options.group_radius
    if distance is None:
        distance = rules.radius * (1 + 1 / _RADIUS_FWHM)
    members, starts, keep = group_sources(y[known], x[known], distance)
    out = np.full((n, len(COLUMNS)), np.nan)
    fit_groups(frame, spread, sources, rules, known[members], starts, keep, out)
    blended = np.zeros(n, dtype=bool)
    first = np.repeat(starts[:-1], keep) + _counts(keep)
    blended[known[members[first]]] = np.repeat(np.diff(starts) > 1, keep)
    column = dict(zip(COLUMNS, out[place].T, strict=True))
    return SourceFits(
        flux=column["flux"],
        flux_err=np.sqrt(np.maximum(column["variance"], 0.0)),
        model_err=np.sqrt(column["model_variance"]),
        background=column["background"],
        chi2=column["chi2"],
        n_pixels=np.nan_to_num(column["n_pixels"]).astype(np.int64),
        lost=np.where(np.isfinite(column["lost"]), column["lost"], 1.0),
        outside=np.where(np.isfinite(column["outside"]), column["outside"], 1.0),
        saturated=np.nan_to_num(column["saturated"]) > 0,
        blended=blended[place],
    )


def _distinct(y: Floats, x: Floats) -> tuple[Ints, Ints]:
    """The sources to solve, each position once, and for every source the one that stands for it."""
    known = np.flatnonzero(np.isfinite(y) & np.isfinite(x))
    _, first, which = np.unique(np.column_stack([y[known], x[known]]), axis=0, return_index=True, return_inverse=True)
    place = np.arange(len(y))
    place[known] = known[first][which.ravel()]
    return np.sort(known[first]), place


def _counts(lengths: Ints) -> Ints:
    """0, 1, ... for each length in turn."""
    return np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)


def position_equations(
    fits: SourceFits,
    image: NDArray[Any],
    variance: NDArray[Any],
    bad: Bools,
    y: Floats,
    x: Floats,
    model: PSFModel,
    *,
    options: FitOptions,
    origin: tuple[float, float] = (0.0, 0.0),
    convolved: ConvolvedNoise | None = None,
) -> Floats:
    """What an image says of the sources' positions: (source, 5) with gradient and curvature of χ²/2.

    ``g_y, g_x, H_yy, H_yx, H_xx``: the sums over images give the step ``H⁻¹ g``. Zero for sources without a flux and
    for blended ones, whose neighbors would pull.
    """
    frame, spread, sources, rules = _prepared(image, variance, bad, y, x, model, options, origin, None, convolved)
    flux = np.where(fits.blended, np.nan, fits.flux)
    out = np.zeros((len(y), 5))
    position_sums(frame, spread, sources, rules, flux, np.nan_to_num(fits.background), out)
    return out


def _prepared(
    image: NDArray[Any],
    variance: NDArray[Any],
    bad: Bools,
    y: Floats,
    x: Floats,
    model: PSFModel,
    options: FitOptions,
    origin: tuple[float, float],
    saturated: Bools | None,
    convolved: ConvolvedNoise | None,
    correlation: Floats | None = None,
    modes: NDArray[Any] | None = None,
) -> tuple[Frame, Spread, Sources, Rules]:
    """The arguments of the compiled loops, in types that they know."""
    none = np.zeros((0, 0, 0))
    extra = convolved or ConvolvedNoise(none, none, np.zeros((0, 0)), np.zeros((len(y), 1)))
    unusable = bad | ~np.isfinite(image) | ~(variance > 0) | ~np.isfinite(variance)
    frame = Frame(
        _plain(image),
        _plain(variance),
        unusable,
        np.zeros((0, 0), bool) if saturated is None else np.array(saturated, dtype=bool, order="C"),
        _plain(extra.variance),
        _plain(none if modes is None else modes),
    )
    spread = Spread(
        model.table,
        model.sums,
        model.oversampling,
        model.reach,
        extra.spread,
        extra.noise,
        np.zeros((0, 0)) if correlation is None else np.ascontiguousarray(correlation, dtype=np.float64),
    )
    known = np.isfinite(y) & np.isfinite(x) & (np.abs(y) < _FAR) & (np.abs(x) < _FAR)
    py, px = np.where(known, y, -_FAR), np.where(known, x, -_FAR)
    row, column = np.floor(py + 0.5), np.floor(px + 0.5)
    terms = model.terms(np.where(known, y, 0.0) + origin[0], np.where(known, x, 0.0) + origin[1])
    sources = Sources(
        row.astype(np.int64),
        column.astype(np.int64),
        np.column_stack([py - row, px - column]),
        terms,
        np.ascontiguousarray(extra.terms, dtype=np.float64),
    )
    return frame, spread, sources, _rules(model, options, extra)


def _plain(array: NDArray[Any]) -> NDArray[np.float32]:
    """A contiguous, writable array in single precision: one type, so that the loops are compiled once."""
    out = np.ascontiguousarray(array, dtype=np.float32)
    return out if out.flags.writeable else out.copy()


def _rules(model: PSFModel, options: FitOptions, extra: ConvolvedNoise) -> Rules:
    """The options with their defaults in units of the FWHM."""
    kernel = extra.spread[0] if extra.spread.size else None
    fwhm = psf_fwhm(model, *model.origin, kernel=kernel)
    fwhm = fwhm if np.isfinite(fwhm) else _LEAST_RADIUS
    radius = options.radius or max(_RADIUS_FWHM * fwhm, _LEAST_RADIUS)
    inner, outer = options.annulus or (max(f * fwhm, radius + 1.0 + 3.0 * i) for i, f in enumerate(_ANNULUS_FWHM))
    return Rules(
        float(radius),
        int(np.ceil(radius + 0.5)),
        options.model_weights,
        _BACKGROUNDS[options.background],
        LEVELS[options.level],
        float(inner),
        float(outer),
        1.0 - options.max_masked_fraction,
    )
