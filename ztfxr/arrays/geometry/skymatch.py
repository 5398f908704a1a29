"""Pairs of sky positions by separation: a KD-tree on unit vectors, so that poles and RA = 0 are ordinary places.

Positions are RA and Dec in degrees; one that is not finite has no partner. Separations are great-circle angles in
arcsec, rounded to the micro-arcsecond: neither ties nor a pair exactly at the radius hang on floating-point noise.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial import KDTree

from ztfxr.arrays.types import Floats, Ints, Numbers

__all__ = ["MAX_PAIRS", "Pairs", "all_pairs", "moved", "nearest_pairs", "neighbor_separation", "unique_pairs"]


ARCSEC = np.deg2rad(1.0 / 3600.0)
MAX_PAIRS = 50_000_000
_DECIMALS = 6
# A chord this much longer than the radius cannot lose a pair to rounding; what it lets in is sorted out exactly.
_SLACK = 1e-11


@dataclass(frozen=True)
class Pairs:
    """Index into the left and the right positions, and the separation in arcsec; one row a pair."""

    left: Ints
    right: Ints
    separation: Floats

    def take(self, rows: Numbers) -> Pairs:
        """The chosen rows."""
        return Pairs(self.left[rows], self.right[rows], self.separation[rows])

    def ordered(self) -> Pairs:
        """By left index, then separation, then right index."""
        return self.take(np.lexsort((self.right, self.separation, self.left)))


@dataclass(frozen=True)
class _Sphere:
    """The finite ones of some positions: their unit vectors (n, 3), and where they stood."""

    vectors: Floats
    index: Ints

    @classmethod
    def of(cls, ra: Floats, dec: Floats) -> _Sphere:
        index = np.flatnonzero(np.isfinite(ra) & np.isfinite(dec))
        return cls(_vectors(ra[index], dec[index]), index)


def _vectors(ra: Floats, dec: Floats) -> Floats:
    lon, lat = np.deg2rad(ra), np.deg2rad(dec)
    return np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=-1)


def _separation(a: Floats, b: Floats) -> Floats:
    """Angle between unit vectors (..., 3) in arcsec; accurate at 0 and at 180 degrees alike."""
    sine = np.linalg.norm(np.cross(a, b), axis=-1)
    angle: Floats = np.round(np.arctan2(sine, np.sum(a * b, axis=-1)) / ARCSEC, _DECIMALS)
    return angle


def _chord(radius: float) -> float:
    return float(2.0 * np.sin(min(radius * ARCSEC, np.pi) / 2.0)) + _SLACK


def _paired(a: _Sphere, b: _Sphere, i: Ints, j: Ints, radius: float) -> Pairs:
    """The candidates (rows of `a` and `b`) that lie within the radius, as indices of the positions that were given."""
    separation = _separation(a.vectors[i], b.vectors[j])
    near = separation <= round(radius, _DECIMALS)
    return Pairs(a.index[i[near]], b.index[j[near]], separation[near]).ordered()


def all_pairs(left: tuple[Floats, Floats], right: tuple[Floats, Floats], radius: float) -> Pairs:
    """Every pair of (RA, Dec) within `radius` arcsec (inclusive), by left index, separation, right index.

    Raises `OverflowError` with their number where there are more than `MAX_PAIRS`.
    """
    a, b = _Sphere.of(*left), _Sphere.of(*right)
    if not (a.index.size and b.index.size):
        nothing = np.empty(0, dtype=np.int64)
        return Pairs(nothing, nothing, np.empty(0))
    trees, chord = (KDTree(a.vectors), KDTree(b.vectors)), _chord(radius)
    count = int(trees[0].count_neighbors(trees[1], chord))
    if count > MAX_PAIRS:
        raise OverflowError(str(count))
    found = trees[0].sparse_distance_matrix(trees[1], chord, output_type="ndarray")
    return _paired(a, b, found["i"].astype(np.int64), found["j"].astype(np.int64), radius)


def nearest_pairs(left: tuple[Floats, Floats], right: tuple[Floats, Floats], radius: float) -> Pairs:
    """For each left position its nearest right one within `radius` arcsec; of equally near ones the first."""
    a, b = _Sphere.of(*left), _Sphere.of(*right)
    if not (a.index.size and b.index.size):
        return all_pairs(left, right, radius)
    tree = KDTree(b.vectors)
    distance, _ = tree.query(a.vectors, k=1, distance_upper_bound=_chord(radius))
    rows = np.flatnonzero(np.isfinite(distance))
    lists = tree.query_ball_point(a.vectors[rows], distance[rows] + _SLACK)
    counts = np.array([len(c) for c in lists], dtype=np.int64)
    j = np.array([k for c in lists for k in c], dtype=np.int64)
    pairs = _paired(a, b, np.repeat(rows, counts), j, radius)
    return pairs.take(np.unique(pairs.left, return_index=True)[1])


def unique_pairs(left: tuple[Floats, Floats], right: tuple[Floats, Floats], radius: float) -> Pairs:
    """One-to-one pairs within `radius` arcsec: the closest pair of all, then the closest of what is left, and so on.

    Of equally close pairs the one with the lower left index goes first, then the lower right index. By left index.
    Raises `OverflowError` as `all_pairs`.
    """
    pairs = all_pairs(left, right, radius)
    rivals = np.bincount(pairs.left)[pairs.left] + np.bincount(pairs.right)[pairs.right]
    chosen = rivals == 2
    contested = np.flatnonzero(~chosen)
    contested = contested[np.argsort(pairs.separation[contested], kind="stable")]
    taken_left: set[int] = set()
    taken_right: set[int] = set()
    for row, i, j in zip(contested, pairs.left[contested].tolist(), pairs.right[contested].tolist(), strict=True):
        if i not in taken_left and j not in taken_right:
            taken_left.add(i)
            taken_right.add(j)
            chosen[row] = True
    return pairs.take(np.flatnonzero(chosen))


def neighbor_separation(
    positions: tuple[Floats, Floats], others: tuple[Floats, Floats] | None = None, own: float | None = None
) -> Floats:
    """Separation in arcsec of each position from its nearest neighbor; infinite without one, NaN without a position.

    Neighbors are the other positions; or `others`, of which the nearest one within `own` arcsec is the position
    itself and does not count.
    """
    a = _Sphere.of(*positions)
    b = a if others is None else _Sphere.of(*others)
    two = np.full((a.index.size, 2), np.inf)
    if b.index.size and a.index.size:
        _, found = KDTree(b.vectors).query(a.vectors, k=2)
        i, k = np.nonzero(found < b.index.size)
        two[i, k] = _separation(a.vectors[i], b.vectors[found[i, k]])
        two.sort(axis=1)
    itself = np.full(a.index.size, others is None)
    if others is not None and own is not None:
        itself = two[:, 0] <= round(own, _DECIMALS)
    out = np.full(np.shape(positions[0]), np.nan)
    out[a.index] = np.where(itself, two[:, 1], two[:, 0])
    return out


def moved(ra: Floats, dec: Floats, pmra: Floats, pmdec: Floats, years: float) -> tuple[Floats, Floats]:
    """Positions in degrees after `years` of proper motion along great circles.

    `pmra` (in RA times cos Dec) and `pmdec` in mas per year; a star whose motion is not known stays.
    """
    lon, lat = np.deg2rad(ra), np.deg2rad(dec)
    east = np.stack([-np.sin(lon), np.cos(lon), np.zeros_like(lon)], axis=-1)
    north = np.stack([-np.sin(lat) * np.cos(lon), -np.sin(lat) * np.sin(lon), np.cos(lat)], axis=-1)
    step = years * ARCSEC / 1000.0
    known = np.isfinite(pmra) & np.isfinite(pmdec)
    mu_east, mu_north = (np.where(known, pm, 0.0)[:, None] * step for pm in (pmra, pmdec))
    x, y, z = (_vectors(ra, dec) + mu_east * east + mu_north * north).T
    new_ra, new_dec = np.rad2deg(np.arctan2(y, x)) % 360.0, np.rad2deg(np.arctan2(z, np.hypot(x, y)))
    return np.where(known, new_ra, ra), np.where(known, new_dec, dec)
