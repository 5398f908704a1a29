"""The kernel solution against a dense least-squares oracle, injected truth and its own error bars."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.lib.stride_tricks import sliding_window_view
from scipy import ndimage, signal

from ztfxr.arrays import polynomials
from ztfxr.arrays.images import convolve as apply
from ztfxr.arrays.images.image import Image
from ztfxr.arrays.images.stars import bright_stars, star_fwhm
from ztfxr.arrays.matching import basis, cutouts, match, spatial
from ztfxr.arrays.matching import whole_image as lags
from ztfxr.arrays.polynomials import unit_position
from ztfxr.errors import InputError

SHAPE = (46, 53)
ALL = {"background_order": 1, "solve_on": "all", "kernel_order": 0}


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


def inside(shape: tuple[int, int], size: int, value: float = 1.0) -> np.ndarray:
    weight, half = np.zeros(shape), size // 2
    weight[half : shape[0] - half, half : shape[1] - half] = value
    return weight


def solved(reference, science, weight, kernel_basis, background=1, tile=24, **options):
    """The library's solution over all pixels of an image."""
    half = kernel_basis.size // 2
    tile = min(tile, min(science.shape) - 2 * half)
    tiles = cutouts.tile_cutouts(science.shape, half, size=tile)
    normal = cutouts.equations(reference, science, weight, tiles, kernel_basis, background_order=background, tiles=True)
    v, u = (unit_position(p, n) for p, n in zip((tiles.y, tiles.x), science.shape, strict=True))
    return spatial.solve_kernel(normal, v, u, kernel_basis, background_order=background, clip=np.inf, **options)


def dense_parameters(reference, science, weight, size, order):
    """Bramich's method as the LCO group runs it: a dense U matrix and numpy's least squares."""
    half = size // 2
    windows = sliding_window_view(reference, (size, size))[:, :, ::-1, ::-1].reshape(-1, size * size)
    inner = np.s_[half:-half, half:-half] if half else np.s_[:, :]
    v, u = np.meshgrid(np.linspace(-1, 1, science.shape[0]), np.linspace(-1, 1, science.shape[1]), indexing="ij")
    terms = [u[inner].ravel() ** i * v[inner].ravel() ** j for i, j in polynomials.exponents(order)]
    root = np.sqrt(weight[inner].ravel())
    design = np.column_stack([windows, *terms]) * root[:, None]
    return np.linalg.lstsq(design, science[inner].ravel() * root, rcond=None)[0]


@pytest.mark.parametrize("size", [1, 3, 7])
@pytest.mark.parametrize("order", [0, 1, 3])
def test_an_injected_kernel_and_background_are_recovered_exactly(size, order):
    reference, kernel = scene(1), lopsided_kernel(size)
    coefficients = np.random.default_rng(order).normal(size=polynomials.n_terms(order)) * 5
    background = apply.background_image(SHAPE, coefficients).astype(float)
    science = signal.convolve2d(reference, kernel, mode="same") + background
    solution = solved(reference, science, inside(SHAPE, size), basis.delta_basis(size), order)
    np.testing.assert_allclose(solution.coefficients[0], kernel, atol=1e-6)
    np.testing.assert_allclose(solution.background, coefficients, atol=1e-5)
    assert solution.scale == pytest.approx(kernel.sum(), abs=1e-6)


@given(
    seed=st.integers(0, 50), size=st.sampled_from([3, 5]), order=st.integers(0, 2), tile=st.sampled_from([7, 16, 40])
)
@settings(max_examples=15)
def test_the_solution_equals_dense_weighted_least_squares_however_it_is_tiled(seed, size, order, tile):
    rng = np.random.default_rng(seed)
    reference = scene(seed) + rng.normal(size=SHAPE)
    science = scene(seed) * 1.2 + rng.normal(size=SHAPE)
    weight = inside(SHAPE, size) * rng.uniform(0.1, 2.0, SHAPE) * (rng.uniform(size=SHAPE) > 0.1)
    solution = solved(reference, science, weight, basis.delta_basis(size), order, tile)
    oracle = dense_parameters(reference, science, weight, size, order)
    np.testing.assert_allclose(solution.coefficients.ravel(), oracle[: size**2], rtol=1e-7, atol=1e-8)
    np.testing.assert_allclose(solution.background, oracle[size**2 :], rtol=1e-6, atol=1e-7)


def test_errors_are_honest():
    size, order, sigma = 5, 1, 4.0
    reference, kernel = scene(5), lopsided_kernel(5)
    clean = signal.convolve2d(reference, kernel, mode="same")
    kernel_basis = basis.delta_basis(size)
    components = np.linalg.solve(kernel_basis.matrix, kernel.ravel())
    truth = np.r_[components, np.zeros(polynomials.n_terms(order))]
    whitened, scale, chi2, pixels = [], [], [], []
    for seed in range(150):
        science = clean + np.random.default_rng(seed).normal(scale=sigma, size=SHAPE)
        s = solved(reference, science, inside(SHAPE, size, sigma**-2), kernel_basis, order)
        found = np.r_[np.linalg.solve(kernel_basis.matrix, s.coefficients.ravel()), s.background]
        covariance = s.covariance(np.eye(len(truth)))
        whitened.append(np.linalg.solve(np.linalg.cholesky(covariance), found - truth))
        scale.append((s.scale - kernel.sum()) / s.scale_error())
        pixels.append((s.coefficients[0] - kernel) / s.error_at(0, 0))
        chi2.append(s.chi2)
    assert np.std(whitened) == pytest.approx(1.0, abs=0.04)
    assert np.std(scale) == pytest.approx(1.0, abs=0.15)
    assert np.std(pixels) == pytest.approx(1.0, abs=0.12)
    assert np.mean(chi2) == pytest.approx(1.0, abs=0.02)


@given(scale=st.floats(0.01, 100), seed=st.integers(0, 20))
@settings(max_examples=10)
def test_the_kernel_scales_with_the_flux_of_the_science_image(scale, seed):
    rng = np.random.default_rng(seed)
    reference, science = scene(seed) + rng.normal(size=SHAPE), scene(seed + 1) + rng.normal(size=SHAPE)
    one = solved(reference, science, inside(SHAPE, 3), basis.delta_basis(3))
    other = solved(reference, scale * science, inside(SHAPE, 3), basis.delta_basis(3))
    np.testing.assert_allclose(other.coefficients, scale * one.coefficients, rtol=1e-6, atol=1e-8 * scale)


def test_a_transposed_problem_has_the_transposed_kernel():
    rng = np.random.default_rng(2)
    reference, science = scene(2) + rng.normal(size=SHAPE), scene(3) + rng.normal(size=SHAPE)
    one = solved(reference, science, inside(SHAPE, 5), basis.delta_basis(5), 0)
    other = solved(reference.T, science.T, inside(SHAPE, 5).T, basis.delta_basis(5), 0)
    np.testing.assert_allclose(other.coefficients[0], one.coefficients[0].T, rtol=1e-7, atol=1e-9)


def test_pixels_of_zero_weight_do_not_matter():
    rng = np.random.default_rng(4)
    reference = scene(4)
    science = signal.convolve2d(reference, lopsided_kernel(5), mode="same")
    weight = inside(SHAPE, 5) * (rng.uniform(size=SHAPE) > 0.2)
    one = solved(reference, science, weight, basis.delta_basis(5))
    other = solved(reference, np.where(weight > 0, science, np.nan), weight, basis.delta_basis(5))
    np.testing.assert_array_equal(one.coefficients, other.coefficients)


def test_smoothing_lowers_the_roughness_and_keeps_the_scale():
    rng = np.random.default_rng(6)
    reference = scene(6)
    science = signal.convolve2d(reference, lopsided_kernel(7), mode="same") + rng.normal(scale=5, size=SHAPE)
    rough, smooth = (
        solved(reference, science, inside(SHAPE, 7, 1 / 25), basis.delta_basis(7), smoothing=s) for s in (0.0, 1e-3)
    )
    roughness = [float((ndimage.laplace(np.pad(s.coefficients[0], 2)) ** 2).sum()) for s in (rough, smooth)]
    assert roughness[1] < 0.9 * roughness[0]
    assert smooth.scale == pytest.approx(rough.scale, rel=0.02)
    assert smooth.error_at(0, 0).mean() < rough.error_at(0, 0).mean()


def test_an_empty_reference_has_no_solution():
    with pytest.raises(np.linalg.LinAlgError, match="not constrained"):
        solved(np.zeros(SHAPE), scene(1), inside(SHAPE, 3), basis.delta_basis(3))


def test_the_gaussian_basis_finds_a_gaussian_kernel():
    kernel_basis = basis.gaussian_basis(15)
    offset = np.arange(15) - 7
    kernel = 0.9 * np.exp(-(offset[:, None] ** 2 + offset[None] ** 2) / 2 / 1.5**2) / (2 * np.pi * 1.5**2)
    reference = scene(9, (80, 90), 60)
    solution = solved(reference, signal.convolve2d(reference, kernel, mode="same"), inside((80, 90), 15), kernel_basis)
    np.testing.assert_allclose(solution.coefficients[0], kernel, atol=2e-6)


@pytest.mark.parametrize("make", [basis.delta_basis, basis.gaussian_basis])
def test_only_the_first_component_carries_flux(make):
    sums = make(7, 2).matrix.sum(axis=0)
    carrier = int(np.argmax(make(7, 2, 0).orders == 0))
    np.testing.assert_allclose(np.delete(sums, carrier), 0, atol=1e-12)
    assert sums[carrier] == pytest.approx(1.0)


def varying_pair(order: int, shape=(220, 240), size=5, seed=0):
    """An image and its convolution with a kernel that is linear or quadratic in position and has a constant sum."""
    rng = np.random.default_rng(seed)
    reference = scene(seed, shape, 500)
    coefficients = np.zeros((polynomials.n_terms(order), size, size))
    coefficients[0] = lopsided_kernel(size)
    for t in range(1, len(coefficients)):
        c = rng.normal(scale=0.02, size=(size, size))
        coefficients[t] = c - c.mean()
    v, u = np.meshgrid(*(unit_position(np.arange(n), n) for n in shape), indexing="ij")
    terms = polynomials.polynomial_terms(v, u, order)
    parts = [signal.convolve2d(reference, c, mode="same") for c in coefficients]
    science = sum(terms[..., t] * p for t, p in enumerate(parts))
    return reference, science, coefficients


@pytest.mark.parametrize("order", [1, 2])
def test_a_varying_kernel_is_recovered_within_its_errors(order):
    reference, science, coefficients = varying_pair(order)
    sigma = 0.5
    noisy = science + np.random.default_rng(1).normal(scale=sigma, size=science.shape)
    s = solved(reference, noisy, inside(science.shape, 5, sigma**-2), basis.delta_basis(5, order), 0, tile=8)
    for v, u in ((0, 0), (-0.8, 0.7), (0.9, 0.9)):
        terms = polynomials.polynomial_terms(np.float64(v), np.float64(u), order)
        pull = (s.at(v, u) - np.tensordot(terms, coefficients, 1)) / s.error_at(v, u)
        assert np.abs(pull).max() < 6
    assert s.scale == pytest.approx(coefficients[0].sum(), abs=5 * s.scale_error())


@pytest.mark.parametrize("order", [0, 1])
def test_the_order_is_the_highest_that_is_significant(order):
    reference, science, _ = varying_pair(order)
    noisy = science + np.random.default_rng(1).normal(scale=20, size=science.shape)
    s = solved(reference, noisy, inside(science.shape, 5), basis.delta_basis(5, 3), 0, tile=8, order=None)
    assert s.order == order


def test_variable_cutouts_are_rejected():
    reference, science, coefficients = varying_pair(1)
    noisy = science + np.random.default_rng(1).normal(size=science.shape)
    new = np.zeros_like(noisy)
    new[100:124, 98:122] = 40 * scene(77, (24, 24), 3)
    noisy += new
    kernel_basis = basis.delta_basis(5, 1)
    tiles = cutouts.tile_cutouts(science.shape, 2, size=16)
    normal = cutouts.equations(
        reference, noisy, inside(science.shape, 5), tiles, kernel_basis, background_order=0, tiles=True
    )
    v, u = (unit_position(p, n) for p, n in zip((tiles.y, tiles.x), science.shape, strict=True))
    s = spatial.solve_kernel(normal, v, u, kernel_basis, background_order=0)
    touched = tiles.windows(new).sum(axis=(1, 2)) > 1000
    assert touched.any()
    assert not s.kept[touched].any()
    assert s.kept[~touched].mean() > 0.9
    assert s.scale == pytest.approx(coefficients[0].sum(), abs=6 * s.scale_error())


def test_cutout_chi2_is_that_of_the_pixels():
    reference, science, _ = varying_pair(1)
    noisy = science + np.random.default_rng(3).normal(size=science.shape)
    tiles = cutouts.tile_cutouts(science.shape, 2, size=12)
    kernel_basis = basis.delta_basis(5)
    weight = inside(science.shape, 5)
    normal = cutouts.equations(reference, noisy, weight, tiles, kernel_basis, background_order=0)
    parameters = np.random.default_rng(2).normal(size=(len(tiles), 26)) / 10
    kernel = (parameters[7, :25] @ kernel_basis.matrix.T).reshape(5, 5)
    model = signal.convolve2d(reference, kernel, mode="same") + parameters[7, 25]
    window = np.s_[tiles.y[7] - 6 : tiles.y[7] + 6, tiles.x[7] - 6 : tiles.x[7] + 6]
    expected = ((noisy - model)[window] ** 2 * weight[window]).sum() / (weight[window] > 0).sum()
    assert normal.chi2_and_light(parameters)[0][7] == pytest.approx(expected, rel=1e-9)


@given(
    size=st.sampled_from([1, 3, 9]), shape=st.tuples(st.integers(12, 90), st.integers(12, 150)), order=st.integers(0, 3)
)
@settings(max_examples=12)
def test_convolution_is_the_textbook_one_block_by_block(size, shape, order):
    rng = np.random.default_rng(size)
    image, variance = rng.normal(size=shape), rng.uniform(1, 2, size=shape)
    coefficients = np.zeros((polynomials.n_terms(order), size, size))
    coefficients[0] = rng.normal(size=(size, size))
    model, noise = apply.varying_convolution(image, variance, coefficients)
    half = size // 2
    inner = np.s_[half : shape[0] - half, half : shape[1] - half]
    expected = signal.convolve2d(image, coefficients[0], mode="same")
    np.testing.assert_allclose(model[inner], expected[inner], rtol=1e-4, atol=2e-4)
    expected = signal.convolve2d(variance, coefficients[0] ** 2, mode="same")
    np.testing.assert_allclose(noise[inner], expected[inner], rtol=1e-4)


def test_a_varying_kernel_is_applied_to_a_fraction_of_its_variation():
    reference, science, coefficients = varying_pair(2)
    model, _ = apply.varying_convolution(reference, None, coefficients)
    inner = np.s_[2:-2, 2:-2]
    error, signal_rms = (model - science)[inner], science[inner].std()
    assert error.std() < 0.01 * signal_rms


@given(size=st.sampled_from([1, 3, 5, 9]), seed=st.integers(0, 30))
@settings(max_examples=15)
def test_the_footprint_mask_covers_every_pixel_that_the_kernel_reaches(size, seed):
    bad = np.random.default_rng(seed).uniform(size=(17, 21)) < 0.05
    padded = np.pad(bad, size // 2, constant_values=True).astype(int)
    touched = signal.convolve2d(padded, np.ones((size, size)), "valid") > 0
    np.testing.assert_array_equal(apply.footprint_mask(bad, size), touched)


@given(shape=st.tuples(st.integers(20, 90), st.integers(20, 90)), margin=st.integers(0, 5), size=st.integers(3, 30))
@settings(max_examples=25)
def test_tiles_cover_every_inner_pixel_once(shape, margin, size):
    size = min(size, min(shape) - 2 * margin)
    tiles = cutouts.tile_cutouts(shape, margin, size=size)
    count = np.zeros(shape)
    ones = np.ones(shape)
    owned = cutouts._owned(tiles, tiles.windows(ones), shape)
    half = size // 2
    for c in range(len(tiles)):
        count[tiles.y[c] - half : tiles.y[c] - half + size, tiles.x[c] - half : tiles.x[c] - half + size] += owned[c]
    expected = np.pad(np.ones((shape[0] - 2 * margin, shape[1] - 2 * margin)), margin)
    np.testing.assert_array_equal(count, expected)


def test_star_cutouts_are_bright_good_and_spread():
    image = scene(12, (300, 320), 400) + np.random.default_rng(0).normal(size=(300, 320))
    bad = np.zeros(image.shape, bool)
    bad[:, 160:] = True
    stars = bright_stars(image, bad, sky=(0.0, 1.0), size=11, margin=4, maximum=100, grid=5)
    assert 20 < len(stars) <= 100
    assert (stars.x < 160).all()
    assert (image[stars.y, stars.x] > 10).all()
    assert min(stars.y.min(), stars.x.min()) >= 11 // 2 + 4
    cells = np.unique((stars.y * 5 // 300) * 5 + stars.x * 5 // 320, return_counts=True)[1]
    assert cells.max() <= 4


def images(seed=0, sigma=2.0, shape=(240, 250)):
    rng = np.random.default_rng(seed)
    reference = 30 * scene(seed, shape, 150)
    science = signal.convolve2d(reference, lopsided_kernel(5), mode="same") + 100
    variance = sigma**2 + np.maximum(science - 100, 0) / 5
    noisy = science + rng.normal(size=shape) * np.sqrt(variance)
    return noisy, variance, reference + rng.normal(size=shape) * 0.3, np.full(shape, 0.09)


def test_unknown_noise_is_measured_from_the_residuals():
    science, variance, reference, _ = images()
    none, bad = np.float32(np.nan), np.zeros(science.shape, bool)
    options = match.MatchOptions(kernel_size=5, **ALL)
    found = match.match(Image.of(science, none, bad), Image.of(reference, none, bad), np.zeros_like(bad), options)
    good = ~found.bad
    assert np.median(found.variance[good] / variance[good]) == pytest.approx(1.0, abs=0.08)
    bright = good & (variance > 20)
    assert np.median(found.variance[bright] / variance[bright]) == pytest.approx(1.0, abs=0.2)


def test_swapping_the_convolved_image_keeps_the_scale_and_sign():
    """The blurred image as reference: the science image is convolved and the result is still on the science scale."""
    rng = np.random.default_rng(3)
    sharp = 40 * scene(3, (120, 130), 150)
    blurred = signal.convolve2d(sharp, lopsided_kernel(5), mode="same") * 2
    new = np.zeros_like(sharp)
    new[60, 70] = 900.0
    new = ndimage.gaussian_filter(new, 0.9)
    science, bad = sharp + new + rng.normal(size=sharp.shape), np.zeros(sharp.shape, bool)
    one = np.ones(sharp.shape)
    excluded = np.hypot(*(np.mgrid[:120, :130] - np.array([60, 70])[:, None, None])) < 9
    options = match.MatchOptions(kernel_size=7, **(ALL | {"convolve": "auto"}))
    found = match.match(
        Image.of(science, one, bad),
        Image.of(blurred + 0.1 * rng.normal(size=one.shape), 0.01 * one, bad),
        excluded,
        options,
    )
    assert found.convolved == "science"
    flux = np.nansum(found.difference[50:71, 60:81])
    assert flux == pytest.approx(900.0, abs=float(10 * np.sqrt(np.nansum(found.variance[50:71, 60:81]))))
    pull = (found.difference / np.sqrt(found.variance))[~found.bad & ~excluded]
    assert pull.std() == pytest.approx(1.0, abs=0.08)


def test_psf_widths_are_measured():
    y, x = np.mgrid[:200, :200]
    rng = np.random.default_rng(1)
    for sigma in (0.9, 1.4):
        image = sum(
            800 * np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / 2 / sigma**2) for cx, cy in rng.uniform(12, 188, (40, 2))
        ) + rng.normal(size=(200, 200))
        frame = Image.of(image, np.ones_like(image), np.zeros(image.shape, bool))
        assert star_fwhm(frame) == pytest.approx(2.3548 * sigma, rel=0.12)


@pytest.mark.parametrize(
    ("spoil", "status"),
    [
        (lambda s, r: (np.full_like(s, np.nan), r), "too_few_pixels"),
        (lambda s, r: (s, np.full_like(r, np.nan)), "too_few_pixels"),
        (lambda s, r: (s, np.zeros_like(r)), "solve_failed"),
    ],
)
def test_hopeless_images_have_a_status(spoil, status):
    science, variance, reference, noise = images()
    science, reference = spoil(science, reference)
    bad = np.zeros(science.shape, bool)
    with pytest.raises(match.NoSolutionError, match=status):
        match.match(
            Image.of(science, variance, bad),
            Image.of(reference, noise, bad),
            np.zeros_like(bad),
            match.MatchOptions(kernel_size=5, **ALL),
        )


@given(seed=st.integers(0, 30), size=st.sampled_from([1, 3, 7]), order=st.integers(0, 2), lost=st.floats(0, 0.2))
@settings(max_examples=15)
def test_equations_by_lags_equal_those_of_the_design_matrix(seed, size, order, lost):
    rng = np.random.default_rng(seed)
    reference, science = rng.normal(size=SHAPE), rng.normal(size=SHAPE)
    used = (inside(SHAPE, size) > 0) & (rng.uniform(size=SHAPE) >= lost)
    found = lags.whole_equations(reference, science, 0.7 * used, size=size, background_order=order)
    assert found is not None
    tiles = cutouts.tile_cutouts(SHAPE, size // 2, size=11)
    plain = cutouts.equations(
        reference, science, 0.7 * used, tiles, basis.delta_basis(size), background_order=order, tiles=True
    )
    for name in ("kernel", "mixed", "background", "vector", "square", "n_pixels"):
        np.testing.assert_allclose(getattr(found, name)[0], getattr(plain, name).sum(axis=0), rtol=1e-9, atol=1e-8)


def test_uniform_weights_solve_the_dense_least_squares_problem():
    rng = np.random.default_rng(8)
    shape, size = (90, 100), 9
    reference = scene(8, shape, 120) + rng.normal(size=shape)
    science = signal.convolve2d(reference, lopsided_kernel(size), mode="same") + 7 + rng.normal(size=shape)
    reference, science = (i.astype(np.float32).astype(float) for i in (reference, science))
    bad, one = np.zeros(shape, bool), np.ones(shape)
    found = match.match(
        Image.of(science, one, bad),
        Image.of(reference, one * 1e-6, bad),
        bad,
        match.MatchOptions(kernel_size=size, **ALL),
    )
    oracle = dense_parameters(reference, science, inside(shape, size), size, 1)
    np.testing.assert_allclose(found.solution.coefficients.ravel(), oracle[: size**2], atol=1e-6 * np.abs(oracle).max())
    np.testing.assert_allclose(found.solution.background, oracle[size**2 :], rtol=1e-5, atol=1e-5)


def test_uniform_weights_can_be_asked_for():
    science, variance, reference, noise = images()
    bad = np.zeros(science.shape, bool)
    pair = Image.of(science, variance, bad), Image.of(reference, noise, bad)
    plain, uniform = (
        match.match(*pair, bad, match.MatchOptions(kernel_size=5, weights=w, **ALL)) for w in ("variance", "uniform")
    )
    assert uniform.solution.kept.all()
    assert len(plain.solution.kept) > 1
    assert uniform.solution.scale == pytest.approx(plain.solution.scale, rel=0.01)
    assert np.nanstd(uniform.difference) < 1.05 * np.nanstd(plain.difference)


@given(seed=st.integers(0, 30), size=st.sampled_from([1, 3, 5]), lost=st.floats(0, 0.2))
@settings(max_examples=15)
def test_equations_by_bands_equal_those_of_the_design_matrix(seed, size, lost):
    """A weight per band is exact where the weights are constant within bands."""
    rng = np.random.default_rng(seed)
    reference, science = scene(seed, SHAPE, 60) + rng.normal(size=SHAPE), rng.normal(size=SHAPE)
    used = (inside(SHAPE, size) > 0) & (rng.uniform(size=SHAPE) >= lost)
    half, weight = size // 2, np.zeros(SHAPE)
    band = lags._banded_part(reference, size, 1).band
    weight[half : SHAPE[0] - half, half : SHAPE[1] - half] = 1.0 / (1.0 + band)
    weight *= used
    found = lags.whole_equations(reference, science, weight, size=size, background_order=1)
    assert found is not None
    tiles = cutouts.tile_cutouts(SHAPE, half, size=11)
    plain = cutouts.equations(
        reference, science, weight, tiles, basis.delta_basis(size), background_order=1, tiles=True
    )
    for name in ("kernel", "mixed", "background", "vector", "square", "n_pixels"):
        expected = getattr(plain, name).sum(axis=0)
        np.testing.assert_allclose(getattr(found, name)[0], expected, rtol=1e-9, atol=1e-9 * np.abs(expected).max())


def test_weights_that_do_not_follow_the_signal_have_no_bands():
    rng = np.random.default_rng(2)
    reference = scene(2, SHAPE, 60)
    assert lags.whole_equations(reference, reference, rng.uniform(0.1, 3, SHAPE), size=3, background_order=0) is None
    few = np.zeros(SHAPE)
    few[4:10, 4:10] = 1.0
    assert lags.whole_equations(reference, reference, few, size=3, background_order=0) is None


def test_banded_weights_are_as_precise_as_those_of_each_pixel(monkeypatch):
    """Kernels of many epochs scatter about the true one as they do with the exact weights, and as they say."""
    rng = np.random.default_rng(4)
    shape, size, gain = (120, 130), 5, 2.0
    reference = scene(4, shape, 250).astype("f4")
    kernel = lopsided_kernel(size)
    model = signal.convolve2d(reference, kernel, mode="same")
    variance = 20.0 + model / gain
    bad, quiet = np.zeros(shape, bool), np.full(shape, 1e-6)
    options = match.MatchOptions(kernel_size=size, **ALL)
    found = {"bands": [], "pixels": []}
    for _ in range(30):
        science = model + rng.normal(size=shape) * np.sqrt(variance)
        pair = Image.of(science, variance, bad), Image.of(reference, quiet, bad)
        found["bands"].append(match.match(*pair, bad, options).solution)
        with monkeypatch.context() as patch:
            patch.setattr(match, "whole_equations", lambda *_, **__: None)
            found["pixels"].append(match.match(*pair, bad, options).solution)
    assert not np.array_equal(found["bands"][0].coefficients, found["pixels"][0].coefficients)
    error = {k: np.sqrt(np.mean([(s.coefficients[0] - kernel) ** 2 for s in v])) for k, v in found.items()}
    stated = np.sqrt(np.mean(found["bands"][0].error_at(0.0, 0.0) ** 2))
    assert error["bands"] < 1.06 * error["pixels"]
    assert error["bands"] == pytest.approx(stated, rel=0.1)


def test_a_variable_star_is_rejected_from_a_whole_image():
    rng = np.random.default_rng(5)
    shape, size = (160, 170), 5
    reference = (scene(5, shape, 200) + 30).astype("f4")
    science = signal.convolve2d(reference, lopsided_kernel(size), mode="same") + rng.normal(size=shape) * 5
    y, x = np.mgrid[: shape[0], : shape[1]]
    science += 3000 * np.exp(-((y - 80) ** 2 + (x - 90) ** 2) / 6.0)
    bad, one = np.zeros(shape, bool), np.ones(shape)
    pair = Image.of(science, 25 * one, bad), Image.of(reference, 1e-6 * one, bad)
    kept, lost = (
        match.match(*pair, bad, match.MatchOptions(kernel_size=size, clip=clip, **ALL)).solution
        for clip in (np.inf, 5.0)
    )
    inside_tile = (~lost.kept).sum()
    assert 1 <= inside_tile <= 6
    deviation = {
        name: np.abs(s.coefficients[0] - lopsided_kernel(size)).max() for name, s in (("kept", kept), ("lost", lost))
    }
    assert deviation["lost"] < 0.3 * deviation["kept"]
    assert deviation["lost"] < 5 * lost.error_at(0.0, 0.0).max()


def test_a_variance_that_is_nowhere_positive_is_measured():
    """An epoch whose gain is unknown has a variance of NaN; it is solved as if it had none."""
    rng = np.random.default_rng(8)
    reference = scene(8)
    science = reference + rng.normal(size=SHAPE)
    bad = np.zeros(SHAPE, bool)
    known = np.full(SHAPE, 1e-6)
    found = [
        match.match(
            match.Image.of(science, variance, bad),
            match.Image.of(reference, known, bad),
            bad,
            match.MatchOptions(kernel_size=3, **ALL),
        )
        for variance in (None, np.full(SHAPE, np.nan), np.zeros(SHAPE), np.full(SHAPE, -2.0))
    ]
    assert abs(found[0].noise_ratio() - 1) < 0.1
    for other in found[1:]:
        np.testing.assert_array_equal(other.difference, found[0].difference)
        np.testing.assert_array_equal(other.variance, found[0].variance)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kernel_size": 4}, r"kernel_size must be odd.*got 4: use 5"),
        ({"kernel_size": "large"}, r"kernel_size is an odd number of pixels, or 'auto'; got 'large'"),
        ({"kernel_size": -3}, r"kernel_size is an odd number of pixels"),
        ({"kernel_order": 4}, r"kernel_order must be 0, 1, 2 or 3; got 4"),
        ({"background_order": "auto"}, r"background_order must be 0, 1, 2 or 3; got 'auto'"),
        ({"scale_order": -1}, r"scale_order must be"),
        ({"basis": "splines"}, r"basis is one of 'delta', 'gaussian'; got 'splines'"),
        ({"solve_on": "galaxies"}, r"solve_on is one of 'all', 'stars'; got 'galaxies'"),
        ({"convolve": "both"}, r"convolve is one of 'reference', 'science', 'auto'"),
        ({"weights": None}, r"weights is one of 'variance', 'uniform'; got None"),
        ({"smoothing": -1.0}, r"smoothing must be at least 0"),
    ],
)
def test_options_name_what_they_cannot_be(options, message):
    with pytest.raises(InputError, match=message):
        match.MatchOptions(**options)
