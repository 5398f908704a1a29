"""Whether the stars of two images lie where a transform says, and the transform that puts them in place."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.spatial import cKDTree

from ztfxr.arrays.geometry.registration import Stars, fit_pairs, not_registered, register_stars
from ztfxr.arrays.geometry.stationary import at_rest
from ztfxr.arrays.geometry.transform import Kind, Transform, fit_transform, n_coefficients
from ztfxr.arrays.types import Floats, Ints
from ztfxr.errors import AlignmentError

__all__ = ["Agreement", "Window", "agreement"]

Window = tuple[float, float, float, float]
"""First and last row and column of an image in absolute pixels: (y0, y1, x0, x1)."""

_COMPARED = 300
_REACH = 12.0
_PEAK = 1.5
_EVIDENCE = 12.0
_FEWEST, _ENOUGH_TO_REFUSE = 3, 12
_SKY_MOVES = 0.12
_MARGIN_OF_PROOF, _WORTH = 10.0, 0.05
_STARS_PER_COEFFICIENT = 4
_CORRECTIONS: tuple[tuple[Kind, int], ...] = (("shift", 0), ("affine", 1), ("polynomial", 2))
_NODES = 12


@dataclass(frozen=True)
class Agreement:
    """A transform that stars agree with, or that there were too few to judge: then `n_matched` is 0.

    `shift` (x, y) is by how much stars lie beside the places that were predicted, in the median, and `rms` how much
    they scatter about the `transform` that is returned; both in pixels of the source.
    """

    transform: Transform
    shift: tuple[float, float] = (np.nan, np.nan)
    rms: float = np.nan
    n_matched: int = 0


def agreement(stars: Stars, target: Stars, predicted: Transform, windows: tuple[Window, Window]) -> Agreement:
    """Check a transform by the stars of both images, and correct it where they prove it wrong.

    Parameters
    ----------
    stars, target
        Stars of the source and the target image, brightest first.
    predicted
        The transform from the pixels of the target to those of the source, as the WCS of both give it.
    windows
        Of the source and of the target.

    Raises
    ------
    AlignmentError
        Both images have many stars where they overlap, but not where the transform says, and in no pattern of their
        own.

    Notes
    -----
    The offsets of all pairs within 12 pixels of their predicted place vote for a shift. It counts where so many agree
    within 1.5 pixels as would not by chance (the Chernoff bound of a Poisson tail). The correction is a shift, an
    affine transform or a polynomial of order 2 in the target's pixels, each taken only where it lowers the scatter by
    more than its coefficients would by chance (Bayesian information criterion, by a margin of 10) and moves stars by
    0.05 pixels or more. Without a shift on which stars agree, their patterns are matched. Detections at the same pixel
    in both images are left out where the sky has moved.
    """
    source, wanted = _in_common(stars, target, predicted, windows)
    if min(len(source), len(wanted)) < _FEWEST:
        return Agreement(predicted)
    pairs = _agreeing(source, wanted, predicted)
    if pairs is not None:
        return _corrected(*pairs, predicted, windows[1])
    if min(len(source), len(wanted)) < _ENOUGH_TO_REFUSE:
        return Agreement(predicted)
    return _by_pattern(source, wanted, predicted)


def _in_common(
    stars: Stars, target: Stars, predicted: Transform, windows: tuple[Window, Window]
) -> tuple[Stars, Stars]:
    """The brightest good stars of each image that the other may have too."""
    (y0, y1, x0, x1), wanted = windows[0], target.take(np.flatnonzero(target.good))
    px, py = predicted(wanted.x, wanted.y)
    seen = (px > x0 - _REACH) & (px < x1 + _REACH) & (py > y0 - _REACH) & (py < y1 + _REACH)
    sides = np.linspace(windows[1][2], windows[1][3], 9), np.linspace(windows[1][0], windows[1][1], 9)
    bx, by = predicted(*np.meshgrid(*sides))
    near = stars.good.copy()
    for values, corner in ((stars.x, bx), (stars.y, by)):
        near &= (values > corner.min() - _REACH) & (values < corner.max() + _REACH)
    return stars.take(np.flatnonzero(near)[:_COMPARED]), wanted.take(np.flatnonzero(seen)[:_COMPARED])


def _agreeing(source: Stars, target: Stars, predicted: Transform) -> tuple[Floats, Floats] | None:
    """Positions (star, 2) of stars of both that agree on a shift from the predicted places; None without agreement.

    What is at rest at a pixel counts only where what is not does not say that the sky moved.
    """
    rest = at_rest(source.xy, target.xy)
    if rest[0].any():
        pairs = _peak(source.xy[~rest[0]], target.xy[~rest[1]], predicted)
        if pairs is not None and np.median(np.hypot(*(pairs[0] - pairs[1]).T)) > _SKY_MOVES:
            return pairs
    return _peak(source.xy, target.xy, predicted)


def _peak(source: Floats, target: Floats, predicted: Transform) -> tuple[Floats, Floats] | None:
    """Pairs whose offsets from the predicted place are within 1.5 pixels of the most frequent one."""
    if min(len(source), len(target)) < _FEWEST:
        return None
    place = np.column_stack(predicted(target[:, 0], target[:, 1]))
    near = cKDTree(place).sparse_distance_matrix(cKDTree(source), _REACH, output_type="ndarray")
    i, j = near["j"], near["i"]
    if len(i) < _FEWEST:
        return None
    offset = source[i] - place[j]
    votes = cKDTree(offset)
    counts = votes.query_ball_point(offset, _PEAK, return_length=True)
    # Of places with as many votes the one nearest to no shift.
    best = np.lexsort((np.hypot(*offset.T), -counts))[0]
    chosen = np.array(votes.query_ball_point(offset[best], _PEAK))
    center = np.median(offset[chosen], axis=0)
    chosen = np.array(votes.query_ball_point(center, _PEAK), dtype=np.int64)
    chosen = _nearest_only(i, j, np.hypot(*(offset - center).T), chosen)
    n, share = len(chosen), (_PEAK / _REACH) ** 2
    area = float(np.prod(np.maximum(np.ptp(source, axis=0), 1.0)))
    expected = max((len(i) - n) * share, len(source) * len(target) * np.pi * _PEAK**2 / area)
    if n < _FEWEST or n <= expected or n * np.log(n / expected) - (n - expected) < _EVIDENCE:
        return None
    return source[i[chosen]], target[j[chosen]]


def _nearest_only(i: Ints, j: Ints, distance: Floats, chosen: Ints) -> Ints:
    """Of the chosen pairs those whose stars have no better one: each star once."""
    order = chosen[np.argsort(distance[chosen], kind="stable")]
    first_i = np.unique(i[order], return_index=True)[1]
    first_j = np.unique(j[order], return_index=True)[1]
    return order[np.intersect1d(first_i, first_j)]


def _corrected(source: Floats, target: Floats, predicted: Transform, window: Window) -> Agreement:
    """The transform with what the stars prove to be wrong with it taken off."""
    off = source - np.column_stack(predicted(target[:, 0], target[:, 1]))
    shift = (float(np.median(off[:, 0])), float(np.median(off[:, 1])))
    found, spread, used = None, _spread(off), len(off)
    for kind, order in _CORRECTIONS:
        n = n_coefficients(kind, order)
        if len(off) < max(_FEWEST, _STARS_PER_COEFFICIENT * n if n > 1 else 0):
            break
        try:
            fit = fit_pairs(target + off, target, kind=kind, order=order)
        except AlignmentError:
            break
        moved = np.column_stack(fit(target[:, 0], target[:, 1])) - target
        scatter = _spread(off - moved)
        before = 0 if found is None else n_coefficients(found.kind, found.order)
        proof = 4 * len(off) * np.log(spread / scatter) - 2 * (n - before) * np.log(2 * len(off))
        if proof > _MARGIN_OF_PROOF and np.sqrt((moved**2).sum(axis=1).mean()) > _WORTH:
            found, spread, used = fit, scatter, fit.n_matched
    if found is None:
        return Agreement(predicted, shift, _rms(off), used)
    transform = _sum(predicted, found, window)
    left = source - np.column_stack(transform(target[:, 0], target[:, 1]))
    return Agreement(transform, shift, _rms(left), used)


def _spread(off: Floats) -> float:
    """Robust scale of two-dimensional residuals, to a thousandth of a pixel."""
    return max(float(np.median(np.hypot(*off.T))), 1e-3)


def _rms(off: Floats) -> float:
    """Root mean square of residuals without those beyond four times the robust scale."""
    distance = np.hypot(*off.T)
    return float(np.sqrt(np.mean(distance[distance <= 4 * _spread(off)] ** 2)))


def _sum(predicted: Transform, correction: Transform, window: Window) -> Transform:
    """The transform whose places are those of one plus what the other moves."""
    if predicted.kind == correction.kind == "shift":
        return replace(predicted, coefficients=predicted.coefficients + correction.coefficients)
    order = max(predicted.order, correction.order, 1)
    y0, y1, x0, x1 = window if predicted.bounds is None else predicted.bounds
    node = np.cos(np.pi * (np.arange(_NODES) + 0.5) / _NODES)
    x, y = ((a + b) / 2 + node * max(b - a, 1.0) / 2 for a, b in ((x0, x1), (y0, y1)))
    grid = np.column_stack([p.ravel() for p in np.meshgrid(x, y)])
    places = np.column_stack(predicted(*grid.T)) + np.column_stack(correction(*grid.T)) - grid
    fit = fit_transform(places, grid, kind="affine" if order == 1 else "polynomial", order=order)
    return replace(fit, bounds=predicted.bounds)


def _by_pattern(source: Stars, target: Stars, predicted: Transform) -> Agreement:
    """The transform by the pattern of the stars, where they lie far from the predicted places."""
    try:
        fit = register_stars(source, target)
    except AlignmentError as error:
        raise not_registered(
            f"{len(source)} stars of the image and {len(target)} of the target do not lie where the WCS of both says, "
            f"within {_REACH:g} px, nor in a common pattern; is a WCS wrong, or does one show another field?"
        ) from error
    moved = np.column_stack(fit(*target.xy.T)) - np.column_stack(predicted(*target.xy.T))
    shift = (float(np.median(moved[:, 0])), float(np.median(moved[:, 1])))
    return Agreement(fit, shift, fit.rms, fit.n_matched)
