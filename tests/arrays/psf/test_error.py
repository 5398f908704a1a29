"""The error of a PSF, against refits without each star and against the truth of simulated fields."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.arrays.psf.test_build import CENTER, built, field, star_pixels
from ztfxr.arrays.polynomials import n_terms
from ztfxr.arrays.psf.error import StarEquations, flux_covariance
from ztfxr.arrays.psf.model import PSFModel, psf_stamps
from ztfxr.arrays.psf.profiles import ProfileBasis, profile_basis

Floats = NDArray[np.float64]

FWHM, RADIUS = 2.4, 12


def equations(basis: ProfileBasis, order: int, n: int, seed: int = 0) -> StarEquations:
    """Noisy stars of a round PSF whose width changes along x, by the basis' functions."""
    rng = np.random.default_rng(seed)
    offset = np.arange(-RADIUS, RADIUS + 1.0)
    normal, right, places = [], [], rng.uniform(-1, 1, (2, n))
    for u in places[1]:
        dy, dx = rng.uniform(-0.5, 0.5, 2)
        design = basis.values(offset - dy, offset - dx).reshape(len(basis), -1)
        truth = design.T @ basis.moffat(FWHM * (1 + 0.05 * u * (order > 0)), 3.0)
        weight = rng.uniform(0.5, 1.5) * 1e6 / (1.0 + 1e2 * truth)
        data = truth + rng.normal(size=truth.size) / np.sqrt(weight)
        normal.append((design * weight) @ design.T)
        right.append((design * weight) @ data)
    return StarEquations(np.array(normal), np.array(right), *places, 0.0, 0)


def solved(stars: StarEquations, basis: ProfileBasis, precision: Floats, order: int) -> Floats:
    """Coefficients (term, function) by dense least squares, with an expectation of zero."""
    terms, free = stars.terms(order), basis.free(order, order).ravel()
    matrix, vector = stars.matrix(terms, precision), (terms.T @ stars.right).ravel()
    out = np.zeros(len(vector))
    scale = 1 / np.sqrt(np.diag(matrix)[free])
    scaled = matrix[np.ix_(free, free)] * scale * scale[:, None] + 1e-8 * np.eye(free.sum())
    out[free] = scale * np.linalg.solve(scaled, scale * vector[free])
    return out.reshape(-1, len(basis))


def flux_of(basis: ProfileBasis, profile: Floats, truth: Floats) -> float:
    """Flux of a noiseless star of unit sum `truth`, weighted as a bright star is."""
    offset = np.arange(-RADIUS, RADIUS + 1.0)
    r = np.hypot(offset[:, None], offset[None])
    stamp, true = (np.einsum("f,fyx->yx", c, basis.values(offset, offset)) * (r <= RADIUS) for c in (profile, truth))
    stamp, true = stamp / stamp.sum(), true / true.sum()
    weight = (r <= 3 * FWHM) / (0.03 * true.max() + true)
    return float((weight * stamp * true).sum() / (weight * stamp**2).sum())


@pytest.mark.parametrize(("order", "n", "rest"), [(0, 8, 1.0), (0, 60, 0.0), (1, 25, 1.0)])
def test_refits_without_each_star_are_the_oracle(order: int, n: int, rest: float) -> None:
    basis = profile_basis(FWHM, RADIUS, order, harmonics=0)
    stars = equations(basis, order, n)
    precision = np.full(n_terms(order) * len(basis), rest)
    whole = solved(stars, basis, precision, order)
    found = flux_covariance(stars, whole, basis, precision, order, fwhm=FWHM, radius=RADIUS)
    for place in (np.array([0.0, 0.0]), np.array([-0.6, 0.8])):
        terms = StarEquations(stars.normal, stars.right, *place[:, None], 0.0, 0).terms(order)[0]
        changes = []
        for s in range(n):
            kept = np.arange(n) != s
            fewer = StarEquations(stars.normal[kept], stars.right[kept], stars.v[kept], stars.u[kept], 0.0, 0)
            left = solved(fewer, basis, precision, order)
            changes.append(flux_of(basis, terms @ left, terms @ whole) - 1.0)
        doubt = (n - 1) / (n - 3) * np.square(np.array(changes) - np.mean(changes)).sum()
        assumed = flux_covariance(_exact(stars, whole, order), whole, basis, precision, order, fwhm=FWHM, radius=RADIUS)
        assert terms @ found @ terms == pytest.approx(doubt + terms @ assumed @ terms, rel=0.12)


def _exact(stars: StarEquations, coefficients: Floats, order: int) -> StarEquations:
    """The same stars without noise: what is left of the error is what was assumed."""
    right = np.einsum("sfg,st,tg->sf", stars.normal, stars.terms(order), coefficients)
    return StarEquations(stars.normal, right, stars.v, stars.u, 0.0, 0)


def test_the_error_is_that_of_the_flux() -> None:
    """Over simulated fields, the flux that a PSF makes of true bright stars is off by the error that it states."""
    pulls, stated = [], []
    for seed in range(8):
        image, variance, *_ = field(2.2, n=45, seed=300 + seed)
        found, model = built(image, variance, order=0)
        pulls.append(_off(model) / np.sqrt(found.flux_cov[0, 0]))
        stated.append(np.sqrt(found.flux_cov[0, 0]))
    assert 0.6 < np.sqrt(np.mean(np.square(pulls))) < 1.6
    image, variance, *_ = field(2.2)
    assert np.sqrt(built(image, variance, order=0)[0].flux_cov[0, 0]) < np.median(stated)


def _off(model: PSFModel) -> float:
    y, x = np.random.default_rng(1).uniform(60, 840, (2, 60))
    offset, stamps = np.arange(-7, 8), psf_stamps(model, y, x, size=15)
    pixels = star_pixels(2.2)
    truth = np.array([pixels(offset - (a - np.rint(a)), offset - (b - np.rint(b))) for a, b in zip(y, x, strict=True)])
    weight = (np.hypot(offset[:, None], offset[None]) <= 6.6) / (0.03 * truth.max() + np.maximum(stamps, 0))
    return float(((weight * stamps * truth).sum((1, 2)) / (weight * stamps**2).sum((1, 2))).mean() - 1)


def test_three_stars_say_nothing_of_it() -> None:
    image, variance, y, x, _ = field(2.2)
    found, _ = built(image, variance, stars=(y[:60], x[:60]), order=0)
    assert np.isfinite(found.flux_cov).all()
    image, variance, *_ = field(2.2, n=3, seed=50)
    found, _ = built(image, variance)
    assert found.n_stars == 3
    assert np.isnan(found.flux_cov).all()


def test_the_unit_of_the_image_does_not_matter() -> None:
    image, variance, *_ = field(2.2, n=45, seed=300)
    one, ten = (built(image * k, variance * k**2, order=1)[0].flux_cov for k in (1.0, 8.0))
    np.testing.assert_allclose(one, ten, rtol=1e-4)
    assert np.linalg.eigvalsh(one).min() > 0


def test_the_model_states_it_where_it_is_asked() -> None:
    image, variance, *_ = field(2.2, n=45, seed=300)
    found, model = built(image, variance, order=1)
    y, x = np.array([CENTER[0], 30.0]), np.array([CENTER[1], 860.0])
    assert np.isnan(model.flux_error(y, x)).all()
    own = PSFModel(**{**vars(model), "flux_cov": found.flux_cov})
    at = own.flux_error(y, x)
    assert at[0] == pytest.approx(np.sqrt(found.flux_cov[0, 0]))
    assert at[1] > at[0]
