"""The kernel solution against a dense least-squares oracle, injected truth and its own error bars."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.lib.stride_tricks import sliding_window_view
from scipy import signal

from ztfxr.arrays import matching

SHAPE = (46, 53)


def scene(seed: int, shape: tuple[int, int] = SHAPE, n_stars: int = 40) -> np.ndarray:
    rng = np.random.default_rng(seed)
    image = np.zeros(shape)
    y, x = np.mgrid[: shape[0], : shape[1]]
    for _ in range(n_stars):
        cx, cy, flux = rng.uniform(0, shape[1]), rng.uniform(0, shape[0]), rng.uniform(50, 500)
        image += flux * np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / 2 / 0.9**2)
    return image


def lopsided_kernel(size: int, seed: int = 3) -> np.ndarray:
    rng = np.random.default_rng(seed)
    u = np.arange(size) - size // 2
    kernel = np.exp(-((u[:, None] - 0.6) ** 2) / 2 - ((u[None, :] + 0.4) ** 2) / 1.5)
    return kernel * (1 + 0.1 * rng.normal(size=kernel.shape)) / kernel.sum() * 1.1


def border_weight(shape: tuple[int, int], size: int, value: float = 1.0) -> np.ndarray:
    weight = np.zeros(shape)
    half = size // 2
    weight[half : shape[0] - half, half : shape[1] - half] = value
    return weight


def dense_solution(reference, science, weight, size, order):
    """The seed's method: a dense U matrix and numpy's least squares."""
    half = size // 2
    windows = sliding_window_view(reference, (size, size))[:, :, ::-1, ::-1].reshape(-1, size * size)
    inner = np.s_[half:-half, half:-half] if half else np.s_[:, :]
    v, u = np.meshgrid(np.linspace(-1, 1, science.shape[0]), np.linspace(-1, 1, science.shape[1]), indexing="ij")
    terms = [u[inner].ravel() ** i * v[inner].ravel() ** j for i in range(order + 1) for j in range(order + 1 - i)]
    design = np.column_stack([windows, *terms])
    root = np.sqrt(weight[inner].ravel())
    return np.linalg.lstsq(design * root[:, None], science[inner].ravel() * root, rcond=None)[0]


@pytest.mark.parametrize("size", [1, 3, 7])
@pytest.mark.parametrize("order", [0, 1, 3])
def test_an_injected_kernel_and_background_are_recovered_exactly(size, order):
    reference, kernel = scene(1), lopsided_kernel(size)
    coefficients = np.random.default_rng(order).normal(size=matching.n_terms(order)) * 5
    science = signal.convolve2d(reference, kernel, mode="same") + matching.polynomial(SHAPE, coefficients)
    equations = matching.accumulate(reference, science, border_weight(SHAPE, size), size=size, order=order)
    solution = matching.solve(equations, size)
    np.testing.assert_allclose(solution.kernel, kernel, atol=1e-9)
    np.testing.assert_allclose(solution.background, coefficients, atol=1e-7)
    assert solution.kernel_sum[0] == pytest.approx(kernel.sum(), abs=1e-9)


@given(seed=st.integers(0, 50), size=st.sampled_from([3, 5]), order=st.integers(0, 2))
@settings(max_examples=15)
def test_the_solution_equals_dense_weighted_least_squares(seed, size, order):
    rng = np.random.default_rng(seed)
    reference = scene(seed) + rng.normal(size=SHAPE)
    science = scene(seed) * 1.2 + rng.normal(size=SHAPE)
    weight = border_weight(SHAPE, size) * rng.uniform(0.1, 2.0, SHAPE) * (rng.uniform(size=SHAPE) > 0.1)
    solution = matching.solve(matching.accumulate(reference, science, weight, size=size, order=order), size)
    oracle = dense_solution(reference, science, weight, size, order)
    np.testing.assert_allclose(solution.parameters, oracle, rtol=1e-7, atol=1e-8)


def test_errors_are_honest():
    size, order, sigma = 5, 1, 4.0
    reference, kernel = scene(5), lopsided_kernel(5)
    clean = signal.convolve2d(reference, kernel, mode="same")
    weight = border_weight(SHAPE, size, 1 / sigma**2)
    truth = np.r_[kernel.ravel(), np.zeros(matching.n_terms(order))]
    whitened, chi2, scale_pulls = [], [], []
    for seed in range(150):
        science = clean + np.random.default_rng(seed).normal(scale=sigma, size=SHAPE)
        solution = matching.solve(matching.accumulate(reference, science, weight, size=size, order=order), size)
        whitened.append(np.linalg.solve(np.linalg.cholesky(solution.covariance), solution.parameters - truth))
        scale_pulls.append((solution.kernel_sum[0] - kernel.sum()) / solution.kernel_sum[1])
        chi2.append(solution.chi2)
    assert np.std(whitened) == pytest.approx(1.0, abs=0.04)
    assert np.std(scale_pulls) == pytest.approx(1.0, abs=0.15)
    assert np.mean(chi2) == pytest.approx(1.0, abs=0.02)


@given(scale=st.floats(0.01, 100), seed=st.integers(0, 20))
@settings(max_examples=10)
def test_the_kernel_scales_with_the_flux_of_the_science_image(scale, seed):
    rng = np.random.default_rng(seed)
    reference, science = scene(seed) + rng.normal(size=SHAPE), scene(seed + 1) + rng.normal(size=SHAPE)
    weight = border_weight(SHAPE, 3)
    one = matching.solve(matching.accumulate(reference, science, weight, size=3, order=1), 3)
    other = matching.solve(matching.accumulate(reference, scale * science, weight, size=3, order=1), 3)
    np.testing.assert_allclose(other.parameters, scale * one.parameters, rtol=1e-7, atol=1e-9 * scale)


def test_a_transposed_problem_has_the_transposed_kernel():
    rng = np.random.default_rng(2)
    reference, science = scene(2) + rng.normal(size=SHAPE), scene(3) + rng.normal(size=SHAPE)
    weight = border_weight(SHAPE, 5)
    one = matching.solve(matching.accumulate(reference, science, weight, size=5, order=0), 5)
    other = matching.solve(matching.accumulate(reference.T, science.T, weight.T, size=5, order=0), 5)
    np.testing.assert_allclose(other.kernel, one.kernel.T, rtol=1e-8, atol=1e-10)


def test_pixels_of_zero_weight_do_not_matter():
    rng = np.random.default_rng(4)
    reference = scene(4)
    science = signal.convolve2d(reference, lopsided_kernel(5), mode="same")
    weight = border_weight(SHAPE, 5) * (rng.uniform(size=SHAPE) > 0.2)
    spoiled = np.where(weight > 0, science, 1e9)
    one = matching.solve(matching.accumulate(reference, science, weight, size=5, order=1), 5)
    other = matching.solve(matching.accumulate(reference, spoiled, weight, size=5, order=1), 5)
    np.testing.assert_array_equal(one.parameters, other.parameters)


def test_smoothing_lowers_the_roughness_and_keeps_the_scale():
    rng = np.random.default_rng(6)
    reference = scene(6)
    science = signal.convolve2d(reference, lopsided_kernel(7), mode="same") + rng.normal(scale=5, size=SHAPE)
    equations = matching.accumulate(reference, science, border_weight(SHAPE, 7, 1 / 25), size=7, order=0)
    penalty = matching.smoothing_matrix(7)
    rough, smooth = (matching.solve(equations, 7, smoothing=s) for s in (0.0, 1e-3))
    roughness = [s.kernel.ravel() @ penalty @ s.kernel.ravel() for s in (rough, smooth)]
    assert roughness[1] < 0.9 * roughness[0]
    assert smooth.kernel_sum[0] == pytest.approx(rough.kernel_sum[0], rel=0.02)
    assert smooth.kernel_err.mean() < rough.kernel_err.mean()


def test_an_empty_reference_has_no_solution():
    equations = matching.accumulate(np.zeros(SHAPE), scene(1), border_weight(SHAPE, 3), size=3, order=0)
    with pytest.raises(np.linalg.LinAlgError, match="not constrained"):
        matching.solve(equations, 3)


@given(size=st.sampled_from([1, 3, 5, 9]), seed=st.integers(0, 30))
@settings(max_examples=15)
def test_the_footprint_mask_covers_every_pixel_that_the_kernel_reaches(size, seed):
    rng = np.random.default_rng(seed)
    bad = rng.uniform(size=(17, 21)) < 0.05
    touched = signal.convolve2d(
        np.pad(bad, size // 2, constant_values=True).astype(int), np.ones((size, size)), "valid"
    )
    np.testing.assert_array_equal(matching.footprint_mask(bad, size), touched > 0)


def test_convolution_is_the_textbook_one():
    image, kernel = scene(8), lopsided_kernel(5)
    np.testing.assert_allclose(
        matching.convolve(image, kernel), signal.convolve2d(image, kernel, mode="same"), atol=1e-9
    )


def test_polynomials_agree_between_pixels_and_image():
    coefficients = np.arange(1.0, 7.0)
    v, u = np.meshgrid(np.linspace(-1, 1, 9), np.linspace(-1, 1, 12), indexing="ij")
    np.testing.assert_allclose(
        matching.polynomial((9, 12), coefficients), matching.polynomial_terms(v, u, 2) @ coefficients, atol=1e-12
    )
