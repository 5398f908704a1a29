"""Forced PSF photometry of one image: fluxes of sources at known positions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from ztfxr.arrays.images.annuli import LEVELS
from ztfxr.arrays.psf.loops import COLUMNS, Frame, Rules, Sources, Spread, fit_groups, position_sums
from ztfxr.arrays.psf.model import PSFModel, psf_fwhm
from ztfxr.arrays.types import Bools, Floats, Images, Ints, Numbers, Scalar
from ztfxr.errors import InputError

__all__ = [
    "ConvolvedNoise",
    "FitImage",
    "FitOptions",
    "LocalBackground",
    "SourceFits",
    "Weights",
    "fit_sources",
    "group_sources",
    "position_equations",
]

Weights: TypeAlias = Literal["model", "variance"]
Level: TypeAlias = Literal["median", "mad"]
LocalBackground: TypeAlias = Literal["none", "annulus", "fit"] | tuple[float, float]

_RADIUS_FWHM, _LEAST_RADIUS = 3.0, 4.0
_ANNULUS_FWHM = (4.0, 8.0)
_LARGEST_GROUP, _NEIGHBORHOOD = 64, 1.5
_FAR = 1 << 40
_BACKGROUNDS = {"none": 0, "fit": 1, "annulus": 2}


@dataclass(frozen=True)
class FitOptions:
    """How PSFs are fitted.

    Parameters
    ----------
    radius
        Radius in pixels of the disk that is fitted; by default 3 FWHM, where less than 1 % of the information is lost.
    group_radius
        Sources closer than this, in pixels, are solved jointly; by default `radius` and one FWHM. Zero for none.
    weights
        Weights of the pixels. ``"model"`` takes the inverse of the sky's variance plus that of the sources' light, both
        fitted to the variance map, so that no pixel's own noise enters its weight. ``"variance"`` takes the inverse of
        the map itself, which biases fluxes unless the map is free of noise.
    max_masked_fraction
        Largest fraction of its light that a source may lose to bad pixels and still have a flux.
    level
        Estimator of the background in an annulus: ``"mad"`` is the median of the pixels within three robust standard
        deviations, ``"median"`` that of the pixels within three standard deviations, in up to ten rounds.

    Raises
    ------
    InputError
        A value is out of its range.
    """

    radius: float | None = None
    group_radius: float | None = None
    weights: Weights = "model"
    max_masked_fraction: float = 0.5
    level: Level = "mad"

    def __post_init__(self) -> None:
        if self.radius is not None and not (np.isfinite(self.radius) and self.radius >= 1):
            raise InputError(f"radius must be at least 1 pixel; got {self.radius}")
        if self.group_radius is not None and not self.group_radius >= 0:
            raise InputError(f"group_radius must not be negative; got {self.group_radius}")
        if self.weights not in get_args(Weights):
            raise InputError(f"weights is 'model' or 'variance'; got {self.weights!r}")
        if self.level not in get_args(Level):
            raise InputError(f"level is 'median' or 'mad'; got {self.level!r}")
        if not 0 <= self.max_masked_fraction < 1:
            raise InputError(f"max_masked_fraction is a fraction from 0 to below 1; got {self.max_masked_fraction}")


@dataclass(frozen=True)
class ConvolvedNoise:
    """What a matching kernel did to the PSF and to the noise.

    Parameters
    ----------
    terms
        The kernels' polynomial terms at the sources, (source, term).
    spread
        Kernels (term, y, x) that act on the PSF; None where none does.
    kernels, variance
        Kernels (term, y, x) that one of the two images was convolved with, and its variance (y, x) before that; None
        where the noise is white.
    """

    terms: Floats
    spread: Floats | None = None
    kernels: Floats | None = None
    variance: Numbers | None = None

    @property
    def margin(self) -> int:
        """Pixels that the kernels add to the reach of the PSF."""
        return 0 if self.spread is None else self.spread.shape[1] // 2

    def white(self) -> ConvolvedNoise:
        """The same where the noise of the pixels is independent."""
        return ConvolvedNoise(self.terms, self.spread)


@dataclass(frozen=True)
class FitImage:
    """One image to fit to.

    Parameters
    ----------
    image, variance, bad
        Pixels, their variance in the square of the image's unit, and True where a pixel is bad; each (y, x).
    origin
        Absolute pixel (y, x) of the first row and column.
    saturated
        True where a pixel is saturated, (y, x).
    convolved
        What a matching kernel did to PSF and noise.
    correlation
        Autocorrelation of the noise (lag_y, lag_x) of odd lengths, 1 in the middle, in units of the variance map.
    modes
        Error of what was subtracted, (mode, y, x); see `ztfxr.arrays.matching.model_error`.
    """

    image: Numbers
    variance: Numbers
    bad: Bools
    origin: tuple[float, float] = (0.0, 0.0)
    saturated: Bools | None = None
    convolved: ConvolvedNoise | None = None
    correlation: Floats | None = None
    modes: Numbers | None = None


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
    image: FitImage,
    y: Floats,
    x: Floats,
    model: PSFModel,
    options: FitOptions,
    background: LocalBackground = "none",
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
    image
        What is fitted to; in single precision.
    y, x
        Array positions (source,); NaN gives NaN.
    model
        The PSF, in absolute pixels.
    options
        How it is fitted.
    background
        Level under the sources. ``"none"``: zero. ``"fit"``: a constant for each source, solved with the fluxes. A pair
        of radii in pixels: the clipped median of the ring between them; ``"annulus"``: the same from 4 to 8 FWHM.

    Returns
    -------
    SourceFits
        One value a source.
    """
    frame, spread, sources, rules = _prepared(image, y, x, model, options, background)
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
    fits: SourceFits, image: FitImage, y: Floats, x: Floats, model: PSFModel, options: FitOptions
) -> Floats:
    """What an image says of the sources' positions: (source, 5) with gradient and curvature of χ²/2.

    ``g_y, g_x, H_yy, H_yx, H_xx``: the sums over images give the step ``H⁻¹ g``. Zero for sources without a flux and
    for blended ones, whose neighbors would pull.
    """
    frame, spread, sources, rules = _prepared(image, y, x, model, options, "none")
    flux = np.where(fits.blended, np.nan, fits.flux)
    out = np.zeros((len(y), 5))
    position_sums(frame, spread, sources, rules, flux, np.nan_to_num(fits.background), out)
    return out


def _prepared(
    image: FitImage, y: Floats, x: Floats, model: PSFModel, options: FitOptions, background: LocalBackground
) -> tuple[Frame, Spread, Sources, Rules]:
    """The arguments of the compiled loops, in types that they know; what is not there is empty."""
    acting = image.convolved or ConvolvedNoise(np.zeros((len(y), 1)))
    bad = image.bad | ~np.isfinite(image.image) | ~(image.variance > 0) | ~np.isfinite(image.variance)
    frame = Frame(
        _plain(image.image),
        _plain(image.variance),
        bad,
        np.zeros((0, 0), bool) if image.saturated is None else np.array(image.saturated, dtype=bool, order="C"),
        _plain(_or_empty(acting.variance, 2)),
        _plain(_or_empty(image.modes, 3)),
    )
    spread = Spread(
        model.table,
        model.sums,
        model.oversampling,
        model.reach,
        _or_empty(acting.spread, 3),
        _or_empty(acting.kernels, 3),
        np.ascontiguousarray(_or_empty(image.correlation, 2), dtype=np.float64),
    )
    known = np.isfinite(y) & np.isfinite(x) & (np.abs(y) < _FAR) & (np.abs(x) < _FAR)
    py, px = np.where(known, y, -_FAR), np.where(known, x, -_FAR)
    row, column = np.floor(py + 0.5), np.floor(px + 0.5)
    sources = Sources(
        row.astype(np.int64),
        column.astype(np.int64),
        np.column_stack([py - row, px - column]),
        model.terms(np.where(known, y, 0.0) + image.origin[0], np.where(known, x, 0.0) + image.origin[1]),
        np.ascontiguousarray(acting.terms, dtype=np.float64),
    )
    return frame, spread, sources, _rules(model, options, background, acting.spread)


def _or_empty(array: NDArray[Scalar] | None, ndim: int) -> NDArray[Scalar] | Floats:
    """`array`, or one without an element: compiled code knows no None."""
    return np.zeros((0,) * ndim) if array is None else array


def _plain(array: Numbers) -> Images:
    """A contiguous, writable array in single precision: one type, so that the loops are compiled once."""
    out = np.ascontiguousarray(array, dtype=np.float32)
    return out if out.flags.writeable else out.copy()


def _rules(model: PSFModel, options: FitOptions, background: LocalBackground, spread: Floats | None) -> Rules:
    """The options with their defaults in units of the FWHM."""
    fwhm = psf_fwhm(model, *model.origin, kernel=None if spread is None else spread[0])
    fwhm = fwhm if np.isfinite(fwhm) else _LEAST_RADIUS
    radius = options.radius or max(_RADIUS_FWHM * fwhm, _LEAST_RADIUS)
    if isinstance(background, str):
        inner, outer = (max(f * fwhm, radius + 1.0 + 3.0 * i) for i, f in enumerate(_ANNULUS_FWHM))
    else:
        inner, outer = background
    return Rules(
        float(radius),
        int(np.ceil(radius + 0.5)),
        options.weights == "model",
        _BACKGROUNDS[background if isinstance(background, str) else "annulus"],
        LEVELS[options.level],
        float(inner),
        float(outer),
        1.0 - options.max_masked_fraction,
    )
