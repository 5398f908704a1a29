"""Registration of images by their stars: detection, pattern matching without a first guess, robust fits."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations

import numpy as np
import sep
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter
from scipy.spatial import cKDTree

from ztfxr.arrays.geometry.stationary import at_rest, lone_pixels
from ztfxr.arrays.geometry.transform import Kind, Transform, fit_transform, n_coefficients
from ztfxr.arrays.images.sky import median_sky
from ztfxr.arrays.statistics import FWHM_TO_SIGMA
from ztfxr.arrays.types import Bools, Floats, Images, Ints, Numbers, Table
from ztfxr.errors import AlignmentError

__all__ = ["Stars", "find_stars", "fit_pairs", "match_patterns", "not_registered", "register_stars"]


_SEARCHED = 1000
_FITTED = 100
_FITTED_PER_COEFFICIENT = 40
_PATTERN = (24, 40, 70)
_INVARIANT_TOLERANCE = 0.006
_CANDIDATES = 12
_COUNTED = 200
_MIN_PAIRS = 6
_EVIDENCE = 20.0
_REWEIGHTED = 12
_SKY_MOVES = 0.12
_STEEP = 0.5
_BY_CHANCE, _FEW = 3, 0.05
_ISOLATION = 1.5
# Root mean square over median of the distance from the center of a round Gaussian, 1 / √(ln 2).
_MEDIAN_TO_RMS = 1.2011


def not_registered(message: str) -> AlignmentError:
    """An `AlignmentError` whose status is the plane `not_registered`."""
    error = AlignmentError(message)
    error.status = "not_registered"
    return error


@dataclass(frozen=True)
class Stars:
    """Stars of one image, brightest first: positions in absolute pixels, flux, and whether a position is trusted.

    `good` is False for saturated, blended or masked stars: they serve to recognize the pattern, not to fit.
    """

    x: Floats
    y: Floats
    flux: Floats
    good: Bools
    _patterns: dict[tuple[int, bool], _Triangles] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.x)

    @classmethod
    def of_table(cls, table: Floats) -> Stars:
        """The stars of a `table`."""
        x, y, flux, good = table[np.isfinite(table[:, 0])].T
        return cls(x, y, flux, good > 0)

    def table(self, rows: int) -> Floats:
        """The brightest `rows` stars as columns x, y, flux and whether they are good; NaN where there are fewer."""
        some = self.brightest(rows)
        out = np.full((rows, 4), np.nan)
        out[: len(some)] = np.column_stack([some.x, some.y, some.flux, some.good])
        return out

    @property
    def xy(self) -> Floats:
        """Positions, (star, 2)."""
        return np.column_stack([self.x, self.y])

    def pattern(self, n: int, *, good: bool) -> _Triangles:
        """The triangles of the `n` brightest stars, by choice of the good ones only; made once."""
        if (n, good) not in self._patterns:
            self._patterns[n, good] = _triangles(self.brightest(n, good=good))
        return self._patterns[n, good]

    def brightest(self, n: int, *, good: bool = False) -> Stars:
        """The `n` brightest, by choice of the good ones only."""
        return self.take(np.flatnonzero(self.good)[:n] if good else np.arange(min(n, len(self))))

    def take(self, chosen: Ints | Bools) -> Stars:
        """Some of the stars, by index or by a boolean each."""
        return Stars(self.x[chosen], self.y[chosen], self.flux[chosen], self.good[chosen])


def find_stars(
    image: Numbers,
    bad: Bools | None = None,
    *,
    saturation: float = np.inf,
    saturated: Bools | None = None,
    n_sigma: float = 5.0,
    origin: tuple[int, int] = (0, 0),
    box: int = 64,
) -> Stars:
    """Stars of one image for registration, brightest first.

    Parameters
    ----------
    image, bad
        (y, x), any real or integer dtype; NaN is bad.
    saturation, saturated
        Pixel value (sky included) from which, and pixels (y, x) near which, a star's position is not trusted.
    n_sigma
        Detection threshold over the rms of the sky.
    origin
        Absolute pixel (y, x) of the first row and column.
    box
        Mesh of the background, in pixels.

    Notes
    -----
    Detection by sep (Barbary 2016; Bertin & Arnouts 1996), positions by its iterative Gaussian-windowed centroid, which
    for a bright star comes close to the error of a PSF fit. Stars whose flux is not isolated are not trusted: the
    centroid of a blend moves with the seeing.
    """
    pixels = np.ascontiguousarray(image, dtype=np.float32)
    unusable = ~np.isfinite(pixels) if bad is None else bad | ~np.isfinite(pixels)
    if unusable.all():
        raise not_registered("the image has no good pixel")
    level = np.where(unusable, np.float32(0.0), pixels)
    sky = sep.Background(level, mask=unusable, bw=box, bh=box)
    level -= sky.back(dtype=np.float32)
    level[unusable] = 0.0
    if not sky.globalrms > 0:
        raise not_registered("the image is flat: its sky has no noise and no star stands out")
    # A border without light, or a steep sky, makes boxes scatter far more than pixels do; crowded stars do not.
    noise, rms = median_sky(level, unusable)[1], float(sky.globalrms)
    found = _extract(level, unusable, n_sigma, noise if 0 < noise < _STEEP * rms else rms)
    spoilt = unusable | (pixels >= saturation)
    return _trusted(found, level, unusable, spoilt if saturated is None else spoilt | saturated, origin)


def _extract(level: Images, bad: Bools, n_sigma: float, rms: float) -> Table:
    """Detections but lone pixels, brightest first; in fields too crowded for sep's buffers only the brighter ones."""
    for factor in (1.0, 4.0, 16.0):
        try:
            found = sep.extract(level, factor * n_sigma, err=rms, mask=bad, minarea=5)
        except Exception as error:  # sep raises nothing more specific
            reason = error
            continue
        found = found[~lone_pixels(level, found["ypeak"], found["xpeak"])]
        return np.asarray(found[np.argsort(-found["flux"], kind="stable")])
    raise not_registered(f"no stars could be detected: {reason}")


def _trusted(found: Table, level: Images, bad: Bools, spoilt: Bools, origin: tuple[int, int]) -> Stars:
    """Centroids of detections, and which of them to trust: those with no spoilt pixel within a few sigma."""
    if len(found) == 0:
        empty = np.zeros(0)
        return Stars(empty, empty, empty, np.zeros(0, bool))
    sigma = max(float(np.median(np.sqrt(found["a"] * found["b"]))), 0.7)
    x, y, flag = sep.winpos(level, found["x"], found["y"], sigma, mask=bad)
    moved = np.hypot(x - found["x"], y - found["y"]) > sigma
    near_spoilt = maximum_filter(spoilt, size=2 * int(np.ceil(sigma)) + 1) if spoilt.any() else spoilt
    row, column = (np.clip(np.rint(found[k]).astype(int), 0, n - 1) for k, n in zip("yx", bad.shape, strict=True))
    elongated = found["b"] < 0.5 * found["a"]
    good = (flag == 0) & ~moved & ~near_spoilt[row, column] & ~elongated & np.isfinite(x) & np.isfinite(y)
    good &= _isolated(found, sigma / FWHM_TO_SIGMA * _ISOLATION)
    where = [np.where(moved | ~np.isfinite(p), found[k], p) for k, p in (("x", x), ("y", y))]
    return Stars(where[0] + origin[1], where[1] + origin[0], np.asarray(found["flux"], dtype=float), good)


def _isolated(found: Table, radius: float) -> Bools:
    """Whether no other detection of a tenth of a star's flux or more lies within `radius`."""
    pairs = cKDTree(np.column_stack([found["x"], found["y"]])).query_pairs(radius, output_type="ndarray")
    out = np.ones(len(found), dtype=bool)
    for a, b in (pairs.T, pairs.T[::-1]):
        out[a[found["flux"][b] > 0.1 * found["flux"][a]]] = False
    return out


@dataclass(frozen=True)
class _Triangles:
    """Triangles by their shape: `shape` (triangle, 2) are ratios of sides, `vertices` (triangle, 3) complex positions.

    The vertices are ordered by the side that they face, shortest first.
    """

    shape: Floats
    vertices: NDArray[np.complex128]

    @cached_property
    def tree(self) -> cKDTree:
        """A tree of the shapes."""
        return cKDTree(self.shape)


def _triangles(stars: Stars) -> _Triangles:
    """All triangles of some stars but the degenerate ones."""
    z = stars.x + 1j * stars.y
    corner = np.array(list(combinations(range(len(z)), 3)), dtype=np.int64).reshape(-1, 3)
    facing = np.abs(z[corner[:, [1, 2, 0]]] - z[corner[:, [2, 0, 1]]])
    order = np.argsort(facing, axis=1)
    sides = np.take_along_axis(facing, order, axis=1)
    vertices = z[np.take_along_axis(corner, order, axis=1)]
    shape = sides[:, :2] / np.maximum(sides[:, 2:], 1e-9)
    useful = (shape[:, 0] > 0.1) & (shape.sum(axis=1) > 1.02) & (sides[:, 0] > 8.0)
    return _Triangles(shape[useful], vertices[useful])


def match_patterns(stars: Stars, target: Stars, *, tolerance: float = 2.0, max_scale: float = 1.2) -> Transform:
    """The similarity that carries the pixels of `target` to those of `stars`, found from the pattern alone.

    Parameters
    ----------
    stars, target
        Stars of the source and the target image, brightest first.
    tolerance
        How far, in pixels, a star may be from its predicted place.
    max_scale
        Largest ratio of the pixel scales, either way.

    Raises
    ------
    AlignmentError
        No transform puts more stars in place than chance would.

    Notes
    -----
    All triangles of the 24 brightest stars (40, then 70 if that fails; of the trusted, then of all: a target that is
    masked where it is saturated has lost its brightest) are matched by their side ratios in a k-d tree, as in Groth
    (1986, AJ 91, 1244) and Valdes et al. (1995, PASP 107, 1119). Each match votes for a similarity; the densest places
    in the four-dimensional space of similarities are tried on the 200 brightest stars, and the one that puts most in
    place, against what chance would, wins. With a third of the brightest stars in common, hundreds of true votes agree.
    """
    if min(len(stars), len(target)) < 4:
        raise not_registered(
            f"{len(stars)} stars in the image and {len(target)} in the target; a pattern needs at least 4 in each"
        )
    for n in _PATTERN:
        for good in (True, False):
            score, guess = _best(stars, target, n, good, tolerance, max_scale)
            if score > _EVIDENCE:
                return guess
    raise not_registered(
        f"no common star pattern among {len(stars)} stars of the image and {len(target)} of the target; "
        "do they overlap?"
    )


def _best(
    stars: Stars, target: Stars, n: int, good: bool, tolerance: float, max_scale: float
) -> tuple[float, Transform]:
    """The similarity for which there is most evidence, from the `n` brightest stars, or good ones."""
    patterns = (target.pattern(n, good=good), stars.pattern(n, good=good))
    source, wanted = (side.brightest(_COUNTED, good=good) for side in (stars, target))
    found = _candidates(*patterns, wanted, tolerance, max_scale)
    guesses = [Transform.similarity(a, b) for a, b in found]
    scores = [_evidence(source.xy, wanted.xy, g, tolerance) for g in guesses]
    return max(zip(scores, guesses, strict=True), key=lambda pair: pair[0], default=(-np.inf, Transform.shift()))


def _candidates(
    target: _Triangles, source: _Triangles, stars: Stars, tolerance: float, max_scale: float
) -> list[tuple[complex, complex]]:
    """Similarities z' = a z + b for which many triangle matches vote, most votes first."""
    if not len(target.shape) or not len(source.shape):
        return []
    near = target.tree.sparse_distance_matrix(source.tree, _INVARIANT_TOLERANCE, output_type="ndarray")
    i, j = near["i"], near["j"]
    p, q = target.vertices[i], source.vertices[j]
    dp, dq = p - p.mean(axis=1, keepdims=True), q - q.mean(axis=1, keepdims=True)
    a = (dp.conj() * dq).sum(axis=1) / (np.abs(dp) ** 2).sum(axis=1)
    off = np.abs(dq - a[:, None] * dp).max(axis=1)
    fits = (np.abs(np.log(np.abs(a) + 1e-12)) < np.log(max_scale)) & (off < 2 * tolerance)
    a, p, q = a[fits], p[fits], q[fits]
    center = complex(stars.x.mean(), stars.y.mean())
    reach = float(np.hypot(stars.x.std(), stars.y.std()))
    place = q.mean(axis=1) + a * (center - p.mean(axis=1))
    return _densest(a, place, center, reach, 2 * tolerance)


def _densest(
    a: NDArray[np.complex128], place: NDArray[np.complex128], center: complex, reach: float, radius: float
) -> list[tuple[complex, complex]]:
    """The similarities around which most votes lie within `radius` pixels, each the mean of its votes."""
    if not len(a):
        return []
    votes = np.column_stack([place.real, place.imag, a.real * reach, a.imag * reach])
    tree = cKDTree(votes)
    counts = tree.query_ball_point(votes, radius, return_length=True)
    out: list[tuple[complex, complex]] = []
    taken = np.zeros(len(votes), dtype=bool)
    for seed in np.argsort(-counts, kind="stable"):
        if len(out) == _CANDIDATES or counts[seed] < 2:
            break
        if taken[seed]:
            continue
        members = tree.query_ball_point(votes[seed], radius)
        taken[members] = True
        mean = complex(a[members].mean())
        out.append((mean, complex(place[members].mean()) - mean * center))
    return out


def _pairs(source: Floats, target: Floats, transform: Transform, radius: float) -> tuple[Ints, Ints]:
    """Stars that are each other's nearest within `radius` pixels of the source: indices of source and target."""
    predicted = np.column_stack(transform(target[:, 0], target[:, 1]))
    distance, nearest = cKDTree(source).query(predicted, distance_upper_bound=radius)
    back = cKDTree(predicted).query(source)[1]
    matched = np.flatnonzero(np.isfinite(distance))
    matched = matched[back[nearest[matched]] == matched]
    return nearest[matched].astype(np.int64), matched.astype(np.int64)


def _evidence(source: Floats, target: Floats, transform: Transform, radius: float) -> float:
    """Minus the logarithm of the chance that a random field of that density puts as many stars in place.

    The Chernoff bound of a Poisson tail. A vote is made of three stars that are in place by construction, and there are
    up to 1e6 votes to choose from, so that three stars do not count and the logarithm must exceed 20.
    """
    predicted = np.column_stack(transform(target[:, 0], target[:, 1]))
    low, high = source.min(axis=0), source.max(axis=0)
    inside = int(((predicted >= low) & (predicted <= high)).all(axis=1).sum())
    area = float(np.prod(np.maximum(high - low, 1.0)))
    expected = max(inside, 1) * min(len(source) * np.pi * radius**2 / area, 1.0)
    n = len(_pairs(source, target, transform, radius)[0])
    more = n - 3
    if n < _MIN_PAIRS or more <= expected:
        return -np.inf
    return float(more * np.log(more / expected) - (more - expected))


def register_stars(
    stars: Stars,
    target: Stars,
    *,
    kind: Kind = "affine",
    order: int = 1,
    tolerance: float = 2.0,
    first_guess: Transform | None = None,
) -> Transform:
    """The transform from the pixels of the target to those of the source, from the stars of both.

    Parameters
    ----------
    stars, target
        Stars of the source and the target image, brightest first.
    kind, order
        Of the transform; see `Transform`.
    tolerance
        Pixels within which a star is looked for, once the pattern is recognized.
    first_guess
        A transform good to `tolerance`, by default that of `match_patterns`.

    Raises
    ------
    AlignmentError
        The patterns do not match, or fewer trusted stars are in common than the transform needs.

    Notes
    -----
    Detections that are at the same pixel in both images count only where the sky is: hot pixels do not move with it.
    All trusted stars are searched, and the brightest 100 of those in common are fitted (more for a polynomial of many
    terms): fainter ones add more error of blends and noise than they average away.
    """
    if first_guess is None:
        moving = _moving(stars, target, kind=kind, order=order, tolerance=tolerance)
        if moving is not None:
            return moving
    guess = match_patterns(stars, target, tolerance=tolerance) if first_guess is None else first_guess
    return _refined(stars, target, guess, kind=kind, order=order, tolerance=tolerance)


def _moving(stars: Stars, target: Stars, *, kind: Kind, order: int, tolerance: float) -> Transform | None:
    """The transform by what is not at rest, where some detections are at rest and the sky is not; else None."""
    rest = at_rest(stars.xy, target.xy)
    if rest[0].sum() <= max(_BY_CHANCE, _FEW * min(len(stars), len(target))):
        return None
    others = (stars.take(~rest[0]), target.take(~rest[1]))
    try:
        guess = match_patterns(*others, tolerance=tolerance)
        found = _refined(*others, guess, kind=kind, order=order, tolerance=tolerance)
    except AlignmentError:
        return None
    return found if _displacement(found, target) > _SKY_MOVES else None


def _displacement(transform: Transform, target: Stars) -> float:
    """By how many pixels a transform moves stars, in the median."""
    return float(np.median(np.hypot(*(p - q for p, q in zip(transform(*target.xy.T), target.xy.T, strict=True)))))


def _refined(stars: Stars, target: Stars, guess: Transform, *, kind: Kind, order: int, tolerance: float) -> Transform:
    """The transform of stars that a first guess puts in place."""
    source, wanted = stars.brightest(_SEARCHED, good=True).xy, target.brightest(_SEARCHED, good=True).xy
    n = max(_FITTED, _FITTED_PER_COEFFICIENT * n_coefficients(kind, order))
    first: Kind = "shift" if kind == "shift" else "affine"
    for step, radius in ((first, tolerance), (kind, tolerance), (kind, tolerance / 2), (kind, tolerance / 2)):
        i, j = _pairs(source, wanted, guess, radius)
        guess = fit_pairs(source[i[:n]], wanted[j[:n]], kind=step, order=order)
    return guess


def fit_pairs(source: Floats, target: Floats, *, kind: Kind = "affine", order: int = 1, clip: float = 3.0) -> Transform:
    """The transform that carries positions (pair, 2) of the target to those of the source; outliers are clipped.

    A start that outliers do not pull (least squares reweighted by a Cauchy function of the residuals), then least
    squares without pairs farther off than `clip` times the robust scatter until the set is stable. `rms` is that of the
    two-dimensional residuals, in pixels of the source.

    Raises
    ------
    AlignmentError
        Fewer pairs than the transform needs (twice its coefficients per axis, and 3 more), at first or in the end.
    """
    finite = np.isfinite(source).all(axis=1) & np.isfinite(target).all(axis=1)
    source, target = source[finite], target[finite]
    needed = 3 if kind == "shift" else 2 * n_coefficients(kind, order) + 3
    used, off = np.ones(len(source), dtype=bool), np.zeros(len(source))
    for step in range(_REWEIGHTED + 20):
        if used.sum() < needed:
            raise not_registered(f"{int(used.sum())} stars in common, but a transform of kind {kind!r} needs {needed}")
        scatter = max(_MEDIAN_TO_RMS * float(np.median(off[used])), 1e-6)
        weights = 1 / (1 + (off[used] / scatter) ** 2) if step < _REWEIGHTED else None
        fit = fit_transform(source[used], target[used], kind=kind, order=order, weights=weights)
        px, py = fit(target[:, 0], target[:, 1])
        off = np.hypot(px - source[:, 0], py - source[:, 1])
        keep = off < clip * max(_MEDIAN_TO_RMS * float(np.median(off[used])), 1e-6)
        if step < _REWEIGHTED - 1:
            continue
        if step >= _REWEIGHTED and (keep == used).all():
            break
        used = keep
    return fit
