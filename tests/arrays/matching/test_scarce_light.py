"""Kernels where light is scarce: against injected truth, a dense oracle, and what spoils a pair."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from ztfxr.arrays.images.image import Image
from ztfxr.arrays.matching.basis import delta_basis, gaussian_basis
from ztfxr.arrays.matching.cutouts import equations, tile_cutouts
from ztfxr.arrays.matching.dilution import undiluted
from ztfxr.arrays.matching.match import Matched, MatchOptions, match
from ztfxr.arrays.matching.prior import ExpectedKernel, choose_prior, gaussian_kernel
from ztfxr.arrays.matching.spatial import chi2_limits
from ztfxr.arrays.matching.whole_image import whole_equations
from ztfxr.arrays.polynomials import unit_position

SCALE, SHARP, BROAD = 0.8, 0.9, 1.25
WIDTH = BROAD**2 - SHARP**2
PSFS = ExpectedKernel(width=WIDTH, width_error=0.1)


class Pair:
    """A bright host (and stars), the science image blurred and fainter; both noisy."""

    def __init__(self, seed: int, *, n: int = 63, stars: int = 0, new: float = 0.0, exposures: int = 1) -> None:
        rng = np.random.default_rng(seed)
        y, x = np.mgrid[:n, :n] - n // 2
        self.radius = np.hypot(y, x)
        scene = 3000 * np.exp(-self.radius / 3)
        scene[rng.integers(6, n - 6, stars), rng.integers(6, n - 6, stars)] += rng.uniform(2000, 20000, stars)
        reference, science = ndimage.gaussian_filter(scene, SHARP), SCALE * ndimage.gaussian_filter(scene, BROAD)
        point = np.zeros((n, n))
        point[n // 2, n // 2] = new
        science = science + ndimage.gaussian_filter(point, BROAD)
        self.variance, self.reference_variance = 35 + science / 6.2, (35 + reference / 6.2) / exposures
        self.science = science + rng.normal(size=(n, n)) * np.sqrt(self.variance)
        self.reference = reference + rng.normal(size=(n, n)) * np.sqrt(self.reference_variance)

    def matched(self, expected: ExpectedKernel = PSFS, **options) -> Matched:
        none = np.zeros(self.science.shape, dtype=bool)
        chosen = {"kernel_size": 9, "kernel_order": 0, "background_order": 1, **options}
        return match(
            Image.of(self.science, self.variance, none),
            Image.of(self.reference, self.reference_variance, none),
            self.radius <= 10,
            MatchOptions(**chosen, expected=expected),
        )

    def flux(self, found: Matched) -> tuple[float, float]:
        inside = self.radius <= 7
        modes = found.model_error()[:, inside].sum(axis=1)
        error = np.sqrt(found.variance[inside].sum() + (modes**2).sum())
        return float(found.difference[inside].sum()), float(error)


@pytest.mark.parametrize("new", [0.0, 5000.0])
def test_the_noise_of_a_single_exposure_does_not_dilute_the_kernel_of_a_host(new):
    """Plain least squares finds 22,000 too much, with a sum of 0.66."""
    fluxes, errors, scales = [], [], []
    for seed in range(8):
        pair = Pair(seed, new=new)
        found = pair.matched()
        flux, error = pair.flux(found)
        fluxes.append(flux - new)
        errors.append(error)
        scales.append((found.solution.scale - SCALE) / found.solution.scale_error())
    assert abs(np.mean(fluxes)) < 2.5 * np.std(fluxes) / np.sqrt(8)
    assert np.mean(errors) < 1500
    assert 0.4 < np.sqrt(np.mean((np.array(fluxes) / errors) ** 2)) < 1.6
    assert 0.4 < np.sqrt(np.mean(np.square(scales))) < 1.6


def test_a_told_scale_makes_the_flux_certain():
    pair = Pair(1)
    free, told = (pair.matched(e) for e in (ExpectedKernel(), ExpectedKernel(SCALE, 0.001)))
    assert told.solution.scale == pytest.approx(SCALE, abs=0.003)
    assert pair.flux(told)[1] < 0.4 * pair.flux(free)[1]
    assert abs(pair.flux(told)[0]) < 3 * pair.flux(told)[1]


def test_images_that_know_the_scale_are_believed_against_what_is_told():
    """A bright host seen often: the zero point told is wrong by 7 %, as those of some alert packets are."""
    pair = Pair(4, stars=12, exposures=400)
    plain, told = (pair.matched(e) for e in (ExpectedKernel(), ExpectedKernel(SCALE / 0.93, 0.001)))
    assert plain.solution.scale_error() < 0.004
    assert told.solution.scale == pytest.approx(SCALE, abs=4 * told.solution.scale_error())
    assert told.solution.scale_error() > 0.5 * plain.solution.scale_error()
    assert told.verdict.scale_offset == pytest.approx(-0.07, abs=0.01)
    assert abs(told.verdict.scale_deviation) > 5


def test_what_is_told_is_believed_against_images_that_hardly_know():
    pair = Pair(5, exposures=1)
    pair.science = pair.science - 0.04 * ndimage.gaussian_filter(pair.reference, 2)
    told = pair.matched(ExpectedKernel(SCALE, 0.001))
    assert told.solution.scale == pytest.approx(SCALE, abs=0.005)


@pytest.mark.parametrize("options", [{"basis": "gaussian"}, {"kernel_order": 1}, {"background_order": None}])
def test_every_kind_of_kernel_is_undiluted(options):
    found = Pair(3, n=95).matched(**options)
    assert found.solution.scale == pytest.approx(SCALE, abs=4 * found.solution.scale_error() + 0.005)


def test_where_stars_abound_the_answer_is_that_of_least_squares():
    pair = Pair(2, n=127, stars=150, exposures=200)
    told, untold = pair.matched(PSFS), pair.matched(ExpectedKernel())
    np.testing.assert_array_equal(told.solution.coefficients, untold.solution.coefficients)


def test_information_is_the_matrix_where_nothing_dilutes_it():
    rng = np.random.default_rng(0)
    half = rng.normal(size=(6, 40))
    matrix, vector = half @ half.T, rng.normal(size=6)
    information, right = undiluted(matrix, np.zeros((6, 6)), vector, 10**8, 4)
    np.testing.assert_allclose(information, matrix, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(right, vector, rtol=1e-8, atol=1e-8)


def test_pure_noise_holds_no_information():
    noise = np.diag(np.full(6, 1000.0))
    rng = np.random.default_rng(1)
    scatter = rng.normal(size=(6, 6))
    information, right = undiluted(noise + 10 * (scatter + scatter.T), noise, rng.normal(size=6), 1000, 6)
    assert not information.any()
    assert not right.any()


@pytest.mark.parametrize("shape", [(30, 33)])
def test_the_noise_on_the_diagonal_is_that_of_a_dense_sum(shape):
    rng = np.random.default_rng(4)
    variance, image = rng.uniform(1, 2, shape), rng.normal(size=shape)
    weight = np.zeros(shape)
    weight[2:-2, 2:-2] = 0.5
    windows = np.lib.stride_tricks.sliding_window_view(variance, (5, 5))[:, :, ::-1, ::-1]
    expected = 0.5 * windows.sum(axis=(0, 1)).ravel()
    tiles = tile_cutouts(shape, 2, size=13)
    made = equations(
        image, image, weight, tiles, delta_basis(5), background_order=0, tiles=True, noise=variance
    ).noise.sum(axis=0)
    whole = whole_equations(image, image, weight, size=5, background_order=0, noise=variance)
    np.testing.assert_allclose(made, expected, rtol=1e-10)
    assert whole is not None
    np.testing.assert_allclose(whole.noise[0], expected, rtol=1e-10)


@pytest.mark.parametrize("make", [delta_basis, gaussian_basis])
def test_a_prior_alone_is_a_smooth_kernel_of_the_told_sum(make):
    basis = make(9)
    n = basis.n_components
    prior = choose_prior(np.zeros((n, n)), np.zeros(n), basis.matrix, 9, ExpectedKernel(1.3, 0.01, 1.0, 0.1))
    total = basis.matrix.sum(axis=0)
    assert total @ prior.mean == pytest.approx(1.3, rel=1e-3)
    assert np.sqrt(total @ np.linalg.solve(prior.precision, total)) == pytest.approx(0.01, rel=0.05)


def test_a_kernel_of_no_width_shifts():
    kernel = gaussian_kernel(11, np.array([1.0, 2.0, -1.0, 0.0, 0.0, 0.0])).reshape(11, 11)
    assert np.unravel_index(kernel.argmax(), kernel.shape) == (7, 4)
    assert kernel.sum() == pytest.approx(1.0)
    assert kernel.max() == pytest.approx(1.0, abs=0.05)


def test_half_of_the_light_is_never_rejected():
    chi2, light = np.r_[np.ones(40), 9.0, 30.0], np.r_[np.full(40, 0.1), 1e5, 1e6]
    kept = np.ones(42, dtype=bool)
    assert (chi2 <= chi2_limits(chi2, light, kept, 4.0)).all()
    chi2[-2:] = 9000.0, 1.0
    assert not (chi2 <= chi2_limits(chi2, light, kept, 4.0))[-2]


def test_a_curved_sky_is_followed():
    pair = Pair(5, n=95, stars=5)
    v = unit_position(np.arange(95), 95)
    pair.science = pair.science + 100 * (v[:, None] ** 2 + v[None, :] ** 2)
    followed, plane = pair.matched(background_order=None), pair.matched()
    assert followed.solution.background_order == 2
    assert followed.verdict.background_sigma < 5 < plane.verdict.background_sigma
    assert abs(pair.flux(followed)[0]) < 3 * pair.flux(followed)[1]


def rolled(pair: Pair, shift: int) -> Pair:
    pair.science, pair.variance = (np.roll(a, shift, axis=1) for a in (pair.science, pair.variance))
    return pair


def test_the_verdict_tells_a_good_pair_from_a_spoiled_one():
    good = Pair(6, n=95, stars=8, exposures=15).matched().verdict
    assert good.scale_snr > 20
    assert np.hypot(good.shift_y, good.shift_x) < 0.3
    assert good.light_chi2 < 1.4
    assert good.kept_light > 0.9
    assert abs(good.border_light) < 0.1
    beside = rolled(Pair(6, n=95, stars=8, exposures=15), 2).matched().verdict
    assert beside.shift_x == pytest.approx(2.0, abs=0.2)
    lost = rolled(Pair(6, n=95, stars=8, exposures=15), 12).matched().verdict
    assert lost.light_left > 0.3
    assert lost.light_chi2 > 2
    clouded = Pair(6, n=95, stars=8, exposures=15).matched(ExpectedKernel(1.6, 0.05)).verdict
    assert clouded.scale_deviation < -8
