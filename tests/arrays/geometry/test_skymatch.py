"""Pairs of sky positions against brute force: poles, RA = 0, ties, duplicates, NaN, nothing at all."""

from __future__ import annotations

import numpy as np
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord, angular_separation
from hypothesis import given
from hypothesis import strategies as st

from ztfxr.arrays.geometry import skymatch
from ztfxr.arrays.geometry.skymatch import (
    Pairs,
    all_pairs,
    moved,
    nearest_pairs,
    neighbor_separation,
    unique_pairs,
)

Positions = tuple[np.ndarray, np.ndarray]


@st.composite
def two_catalogs(draw: st.DrawFn) -> tuple[Positions, Positions]:
    """Two small clusters about one center on a grid of arcseconds: duplicates and ties are frequent."""
    ra0 = draw(st.sampled_from([0.0, 359.9999, 57.3, 180.0]))
    dec0 = draw(st.sampled_from([0.0, 35.7, -61.0, 89.9998, 90.0, -90.0]))
    sides = []
    for _ in range(2):
        n = draw(st.integers(0, 12))
        offsets = draw(st.lists(st.tuples(st.integers(-4, 4), st.integers(-4, 4)), min_size=n, max_size=n))
        finite = draw(st.lists(st.sampled_from([True, True, True, True, False]), min_size=n, max_size=n))
        dx, dy = np.array(offsets, dtype=float).reshape(-1, 2).T / 3600.0
        dec = np.clip(dec0 + dy, -90.0, 90.0)
        ra = ra0 + dx / max(np.cos(np.deg2rad(dec0)), 1e-3)
        wrapped = ra % 360.0 if draw(st.booleans()) else ra
        sides.append((np.where(finite, wrapped, np.nan), dec))
    return sides[0], sides[1]


def separations(left: Positions, right: Positions) -> np.ndarray:
    """The full matrix in arcsec, to the micro-arcsecond, by Vincenty's formula."""
    a, b = (np.deg2rad(np.array(p)) for p in (left, right))
    with np.errstate(invalid="ignore"):
        found = angular_separation(a[0][:, None], a[1][:, None], b[0][None], b[1][None])
    return np.round(np.rad2deg(found) * 3600.0, 6)


def as_set(pairs: Pairs) -> list[tuple[int, int]]:
    return list(zip(pairs.left.tolist(), pairs.right.tolist(), strict=True))


def brute_all(matrix: np.ndarray, radius: float) -> list[tuple[int, int]]:
    within = [
        (i, float(matrix[i, j]), j) for i in range(matrix.shape[0]) for j in range(matrix.shape[1])
        if matrix[i, j] <= radius
    ]  # fmt: skip
    return [(i, j) for i, _, j in sorted(within)]


def brute_unique(matrix: np.ndarray, radius: float) -> list[tuple[int, int]]:
    pool = sorted((float(matrix[i, j]), i, j) for i, j in brute_all(matrix, radius))
    out = []
    while pool:
        _, i, j = pool[0]
        out.append((i, j))
        pool = [p for p in pool if p[1] != i and p[2] != j]
    return sorted(out)


def brute_nearest(matrix: np.ndarray, radius: float) -> list[tuple[int, int]]:
    out = []
    for i, row in enumerate(matrix):
        near = [(float(s), j) for j, s in enumerate(row) if s <= radius]
        if near:
            out.append((i, min(near)[1]))
    return out


@given(two_catalogs(), st.sampled_from([0.0, 0.7, 1.0, 2.0, 5.0, 648000.0]))
def test_pairs_are_those_of_brute_force(catalogs: tuple[Positions, Positions], radius: float) -> None:
    left, right = catalogs
    matrix = separations(left, right)
    for function, brute in ((all_pairs, brute_all), (unique_pairs, brute_unique), (nearest_pairs, brute_nearest)):
        found = function(left, right, radius)
        assert as_set(found) == brute(matrix, radius), function.__name__
        np.testing.assert_allclose(found.separation, matrix[found.left, found.right], atol=2e-6)
        assert (found.separation <= radius).all()


@given(two_catalogs())
def test_unique_pairs_are_one_to_one_and_stable(catalogs: tuple[Positions, Positions]) -> None:
    """No position twice; and none of the pairs left out is closer than what both of its ends have."""
    left, right = catalogs
    found = unique_pairs(left, right, 3.0)
    assert len(set(found.left.tolist())) == len(set(found.right.tolist())) == found.left.size
    mine = dict(zip(found.left.tolist(), found.separation.tolist(), strict=True))
    theirs = dict(zip(found.right.tolist(), found.separation.tolist(), strict=True))
    every = all_pairs(left, right, 3.0)
    for i, j, s in zip(every.left.tolist(), every.right.tolist(), every.separation.tolist(), strict=True):
        assert mine.get(i, np.inf) <= s or theirs.get(j, np.inf) <= s


@given(two_catalogs())
def test_neighbor_separation_is_that_of_brute_force(catalogs: tuple[Positions, Positions]) -> None:
    left, right = catalogs
    own = separations(left, left)
    np.fill_diagonal(own, np.inf)
    bad = np.isnan(left[0])
    expected = np.where(bad, np.nan, np.where(np.isnan(own), np.inf, own).min(axis=1, initial=np.inf))
    np.testing.assert_allclose(neighbor_separation(left), expected, atol=2e-6)
    cross = separations(left, right)
    cross = np.sort(np.where(np.isnan(cross), np.inf, cross), axis=1)
    cross = np.concatenate([cross, np.full((cross.shape[0], 2), np.inf)], axis=1)
    np.testing.assert_allclose(neighbor_separation(left, right), np.where(bad, np.nan, cross[:, 0]), atol=2e-6)
    other = np.where(cross[:, 0] <= 1.0, cross[:, 1], cross[:, 0])
    np.testing.assert_allclose(neighbor_separation(left, right, 1.0), np.where(bad, np.nan, other), atol=2e-6)


def test_nearest_agrees_with_astropy_on_a_field_of_stars() -> None:
    rng = np.random.default_rng(3)
    left = (rng.uniform(55.0, 56.0, 3000), rng.uniform(33.0, 34.0, 3000))
    right = (left[0] + rng.normal(0, 1e-4, 3000), left[1] + rng.normal(0, 1e-4, 3000))
    mine = nearest_pairs(left, right, 2.0)
    sky = [SkyCoord(*p, unit="deg") for p in (left, right)]
    index, separation, _ = sky[0].match_to_catalog_sky(sky[1])
    near = np.flatnonzero(separation.arcsec <= 2.0)
    np.testing.assert_array_equal(mine.left, near)
    np.testing.assert_array_equal(mine.right, index[near])
    np.testing.assert_allclose(mine.separation, separation.arcsec[near], atol=1e-6)
    every = all_pairs(left, right, 30.0)
    i, j, _, _ = sky[1].search_around_sky(sky[0], 30 * u.arcsec)
    assert set(as_set(every)) == set(zip(i.tolist(), j.tolist(), strict=True))


def test_too_many_pairs_are_refused_before_they_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(skymatch, "MAX_PAIRS", 99)
    same = (np.zeros(10), np.zeros(10))
    with pytest.raises(OverflowError, match="100"):
        all_pairs(same, same, 1.0)
    assert nearest_pairs(same, same, 1.0).right.tolist() == [0] * 10


def test_proper_motion_agrees_with_astropy() -> None:
    rng = np.random.default_rng(1)
    ra, dec = rng.uniform(0, 360, 200), rng.uniform(-89.9, 89.9, 200)
    ra[0], dec[0] = 359.99999, 89.9
    pmra, pmdec = rng.normal(0, 500, 200), rng.normal(0, 500, 200)
    found = SkyCoord(*moved(ra, dec, pmra, pmdec, 10.0), unit="deg")
    start = SkyCoord(
        ra * u.deg, dec * u.deg, pm_ra_cosdec=pmra * u.mas / u.yr, pm_dec=pmdec * u.mas / u.yr, distance=100 * u.pc,
    )  # fmt: skip
    expected = start.apply_space_motion(dt=10 * u.yr)
    assert SkyCoord(expected.ra, expected.dec).separation(found).arcsec.max() < 1e-4
    pmra[5] = np.nan
    stay = moved(ra, dec, pmra, pmdec, 10.0)
    assert (stay[0][5], stay[1][5]) == (ra[5], dec[5])
