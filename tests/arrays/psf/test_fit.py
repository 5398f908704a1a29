"""Forced PSF fits: exactness, honest errors, blends, bad pixels, correlated noise."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from astropy.table import Table
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from photutils.psf import CircularGaussianPRF, PSFPhotometry
from scipy import signal

from tests.arrays.psf._scenes import draw, gaussian_pixels, lattice, mad, model_of
from ztfxr.arrays.psf.fit import (
    ConvolvedNoise,
    FitImage,
    FitOptions,
    SourceFits,
    fit_sources,
    group_sources,
    position_equations,
)
from ztfxr.arrays.psf.model import PSFModel

Floats = NDArray[np.float64]

SIGMA, SKY, GAIN = 1.1, 6.0, 5.0
FWHM = 2.3548 * np.sqrt(SIGMA**2 + 1 / 12)
MODEL_WEIGHTS, MAP_WEIGHTS = FitOptions(), FitOptions(weights="variance")


def gaussian(sigma: float = SIGMA):
    pixels = partial(gaussian_pixels, sigma=sigma)
    pixels.__name__ = "gaussian"
    return pixels


@pytest.fixture(scope="module")
def model() -> PSFModel:
    return model_of(gaussian())


def observed(truth: Floats, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """An image with the noise of sky and photons, and the variance that its own pixels suggest."""
    image = truth + rng.normal(size=truth.shape) * np.sqrt(SKY**2 + np.maximum(truth, 0) / GAIN)
    return image, SKY**2 + np.maximum(image, 0) / GAIN


def no_mask(image: Floats) -> NDArray[np.bool_]:
    return np.zeros(image.shape, dtype=bool)


def fit(
    image: Floats, variance: Floats, y: Floats, x: Floats, model: PSFModel, options: FitOptions = MODEL_WEIGHTS, **more
) -> SourceFits:
    background = more.pop("background", "none")
    given = FitImage(image, variance, more.pop("bad", no_mask(image)), **more)
    return fit_sources(given, y, x, model, options, background)


# exactness


def test_fluxes_without_noise_are_exact(model: PSFModel) -> None:
    rng = np.random.default_rng(0)
    y, x = lattice(5, 22.0, rng)
    flux = rng.uniform(-100, 1e4, len(y))
    image = draw((130, 131), y, x, flux, gaussian())
    fits = fit(image, np.full(image.shape, 4.0), y, x, model)
    np.testing.assert_allclose(fits.flux, flux, rtol=3e-5, atol=1e-3)
    assert not fits.blended.any()
    assert np.all(fits.lost < 1e-12)
    assert np.all(fits.n_pixels > 100)


def test_groups_without_noise_are_exact(model: PSFModel) -> None:
    """Six stars within a few pixels, and one far away."""
    y = np.array([30.0, 33.1, 31.4, 36.0, 28.2, 33.0, 70.0])
    x = np.array([30.0, 31.2, 35.4, 30.3, 27.1, 24.9, 70.3])
    flux = np.array([100.0, 5e4, 300.0, 20.0, 1e3, 70.0, 500.0])
    image = draw((100, 100), y, x, flux, gaussian())
    fits = fit(image, np.full(image.shape, 9.0), y, x, model)
    np.testing.assert_allclose(fits.flux, flux, rtol=1e-4, atol=0.5)
    assert fits.blended.tolist() == [True] * 6 + [False]


def test_it_is_the_weighted_least_squares_solution(model: PSFModel) -> None:
    """Against a dense solution over the same pixels, with and without a constant."""
    rng = np.random.default_rng(3)
    image, variance = rng.normal(100, 10, (40, 41)), rng.uniform(1, 5, (40, 41)).astype(np.float32).astype(float)
    y, x, radius = 19.3, 21.2, 6.0
    rows, columns = np.mgrid[:40, :41]
    disk = np.hypot(rows - y, columns - x) <= radius
    psf = gaussian_pixels(np.arange(40) - y, np.arange(41) - x, SIGMA)
    for background, design in (
        ("none", psf[disk][:, None]),
        ("fit", np.column_stack([psf[disk], np.ones(disk.sum())])),
    ):
        options = FitOptions(radius=radius, weights="variance")
        found = fit(image, variance, np.array([y]), np.array([x]), model, options, background=background)
        normal = design.T @ (design / variance[disk][:, None])
        expected = np.linalg.solve(normal, design.T @ (image / variance)[disk])
        assert found.flux[0] == pytest.approx(expected[0], rel=1e-4)
        assert found.flux_err[0] == pytest.approx(np.linalg.inv(normal)[0, 0] ** 0.5, rel=1e-4)
        rest = (image[disk] - design @ expected) / np.sqrt(variance[disk])
        assert found.chi2[0] == pytest.approx((rest**2).sum() / (disk.sum() - design.shape[1]), rel=1e-3)
        assert found.n_pixels[0] == disk.sum()
        if background == "fit":
            assert found.background[0] == pytest.approx(expected[1], rel=1e-4)


def test_photutils_agrees(model: PSFModel) -> None:
    rng = np.random.default_rng(4)
    y, x = lattice(5, 22.0, rng)
    image, _ = observed(draw((130, 130), y, x, rng.uniform(500, 5e3, len(y)), gaussian()), rng)
    psf = CircularGaussianPRF(fwhm=2.3548200450309493 * SIGMA)
    psf.x_0.fixed = psf.y_0.fixed = psf.fwhm.fixed = True
    start = Table({"x_init": x, "y_init": y, "flux_init": np.full(len(x), 1000.0)})
    theirs = PSFPhotometry(psf, (17, 17), finder=None)(image, error=np.full(image.shape, SKY), init_params=start)
    ours = fit(image, np.full(image.shape, SKY**2), y, x, model, FitOptions(radius=8.0))
    np.testing.assert_allclose(ours.flux, theirs["flux_fit"], rtol=2e-3)
    np.testing.assert_allclose(ours.flux_err, theirs["flux_err"], rtol=0.02)


# honest errors


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_bias_pulls_and_bound_at_every_magnitude(model: PSFModel, seed: int) -> None:
    """Bias within 0.1 % and 0.2 σ, pulls of unit width, variance at the Cramér-Rao bound, from noisy variance maps."""
    rng = np.random.default_rng(seed)
    y, x = lattice(80, 20.0, rng)
    levels = np.array([100.0, 300.0, 1e3, 1e4, 3e5])
    flux = levels[np.arange(len(y)) % len(levels)]
    truth = draw((1640, 1640), y, x, flux, gaussian())
    image, variance = observed(truth, rng)
    fits = fit(image, variance, y, x, model)
    bound = fit(image, SKY**2 + truth / GAIN, y, x, model, FitOptions(radius=10.0, weights="variance")).flux_err
    pull = (fits.flux - flux) / fits.flux_err
    for level in levels:
        some = flux == level
        n = some.sum()
        error = np.median(fits.flux_err[some])
        margin = 3 * error / np.sqrt(n)
        assert abs(fits.flux[some].mean() - level) < max(1e-3 * level, 0.0) + margin
        assert abs(pull[some].mean()) < 0.2
        assert abs(pull[some].std() - 1) < 0.03 + 2 / np.sqrt(2 * n)
        assert fits.flux[some].var() < 1.03 * np.mean(bound[some] ** 2) * (1 + 3 * np.sqrt(2 / n))
        assert np.median(fits.flux_err[some] / bound[some]) == pytest.approx(1.0, abs=0.015)
        assert np.median(fits.chi2[some]) == pytest.approx(1.0, abs=0.03)


def test_weights_by_noisy_pixels_pull_fluxes_low(model: PSFModel) -> None:
    """Why the weights are a model: weights from a variance map that is made of the data itself give a bias."""
    rng = np.random.default_rng(8)
    y, x = lattice(60, 20.0, rng)
    truth = draw((1240, 1240), y, x, np.full(len(y), 1500.0), gaussian())
    image, variance = observed(truth, rng)
    modeled, raw = (fit(image, variance, y, x, model, o).flux.mean() / 1500 - 1 for o in (MODEL_WEIGHTS, MAP_WEIGHTS))
    error = fit(image, variance, y, x, model).flux_err.mean() / 1500 / np.sqrt(len(y))
    assert raw < -1e-3
    assert raw < -4 * error
    assert abs(modeled) < 3 * error
    assert abs(modeled) < 1e-3


@pytest.mark.parametrize("ratio", [1.0, 0.1])
def test_blended_pairs(model: PSFModel, ratio: float) -> None:
    """Pairs 1.5 FWHM apart: bias within 0.3 %, pulls of unit width."""
    rng = np.random.default_rng(5)
    y, x = lattice(50, 30.0, rng)
    angle = rng.uniform(0, 2 * np.pi, len(y))
    y, x = np.r_[y, y + 1.5 * FWHM * np.sin(angle)], np.r_[x, x + 1.5 * FWHM * np.cos(angle)]
    n = len(angle)
    flux = np.r_[np.full(n, 8000.0), np.full(n, 8000.0 * ratio)]
    image, variance = observed(draw((1540, 1540), y, x, flux, gaussian()), rng)
    fits = fit(image, variance, y, x, model)
    assert fits.blended.all()
    pull = (fits.flux - flux) / fits.flux_err
    for some in (np.arange(2 * n) < n, np.arange(2 * n) >= n):
        error = fits.flux_err[some].mean() / np.sqrt(n)
        assert abs((fits.flux - flux)[some].mean()) < 0.003 * flux[some][0] + 2 * error
        assert pull[some].std() == pytest.approx(1.0, abs=0.04)


def test_a_bright_star_beyond_the_disk_counts(model: PSFModel) -> None:
    """The far wings of a member of the group are taken off, though its own disk ends before them."""
    y, x = np.array([40.0, 40.0]), np.array([40.0, 48.6])
    image = draw((80, 90), y, x, np.array([100.0, 3e8]), gaussian())
    alone = fit(image, np.full(image.shape, 1.0), y[:1], x[:1], model).flux[0]
    joint = fit(image, np.full(image.shape, 1.0), y, x, model, FitOptions(radius=5.0, group_radius=10.0)).flux[0]
    assert alone > 200
    assert joint == pytest.approx(100.0, abs=20)


@pytest.mark.parametrize("background", ["annulus", "fit"])
def test_local_background(model: PSFModel, background: str) -> None:
    rng = np.random.default_rng(6)
    y, x = lattice(30, 45.0, rng)
    flux = np.full(len(y), 3000.0)
    truth = draw((1360, 1360), y, x, flux, gaussian())
    slope = np.linspace(-30, 50, 1360)[:, None] + np.zeros(1360)
    image, variance = observed(truth, rng)
    fits = fit(image + slope, variance, y, x, model, background=background)
    pull = (fits.flux - flux) / fits.flux_err
    assert abs(pull.mean()) < 0.12
    assert pull.std() == pytest.approx(1.0, abs=0.07)
    np.testing.assert_allclose(fits.background, slope[np.rint(y).astype(int), 0], atol=3.0)


def test_annulus_ignores_neighbors_and_bad_pixels(model: PSFModel) -> None:
    rng = np.random.default_rng(7)
    y, x = np.array([50.0]), np.array([50.0])
    image = draw((100, 100), np.r_[y, 50.0], np.r_[x, 65.0], np.array([5e3, 1e5]), gaussian()) + 20.0
    image += rng.normal(0, 0.1, image.shape)
    bad = no_mask(image)
    image[30:45, 60:70], bad[30:45, 60:70] = 1e6, True
    options = FitOptions(group_radius=0.0)
    fits = fit(image, np.full(image.shape, 0.01), y, x, model, options, bad=bad, background=(10.0, 20.0))
    assert fits.background[0] == pytest.approx(20.0, abs=0.05)
    assert fits.flux[0] == pytest.approx(5e3, rel=2e-3)


# bad pixels and edges


def test_bad_pixels_have_no_weight(model: PSFModel) -> None:
    rng = np.random.default_rng(9)
    y, x = np.array([30.2]), np.array([31.4])
    image = draw((60, 60), y, x, np.array([1000.0]), gaussian())
    bad = rng.uniform(size=image.shape) < 0.2
    junk = np.where(bad, rng.choice([np.nan, np.inf, 1e9], image.shape), image)
    fits = fit(junk, np.where(bad, np.nan, 1.0), y, x, model, bad=bad)
    assert fits.flux[0] == pytest.approx(1000.0, rel=1e-4)
    assert 0 < fits.lost[0] < 0.5
    light = gaussian_pixels(np.arange(60) - y[0], np.arange(60) - x[0], SIGMA)
    assert fits.lost[0] == pytest.approx(light[bad].sum(), abs=0.01)


def test_nan_and_bad_variance_are_bad_without_a_mask(model: PSFModel) -> None:
    image = draw((40, 40), np.array([20.0]), np.array([20.0]), np.array([1000.0]), gaussian())
    variance = np.ones_like(image)
    image[19, 20], variance[21, 20], variance[20, 22] = np.nan, 0.0, np.inf
    fits = fit(image, variance, np.array([20.0]), np.array([20.0]), model)
    assert fits.flux[0] == pytest.approx(1000.0, rel=1e-4)
    assert (
        fits.n_pixels[0]
        == fit(np.ones((40, 40)), np.ones((40, 40)), np.array([20.0]), np.array([20.0]), model).n_pixels[0] - 3
    )


def test_too_little_light_gives_nan(model: PSFModel) -> None:
    image = draw((40, 40), np.array([20.0]), np.array([20.0]), np.array([1000.0]), gaussian())
    bad = no_mask(image)
    bad[19:22, 19:22] = True
    fits = fit(image, np.ones_like(image), np.array([20.0]), np.array([20.0]), model, bad=bad)
    assert np.isnan(fits.flux[0])
    assert np.isnan(fits.flux_err[0])
    assert fits.lost[0] > 0.5
    generous = fit(
        image,
        np.ones_like(image),
        np.array([20.0]),
        np.array([20.0]),
        model,
        FitOptions(max_masked_fraction=0.95),
        bad=bad,
    )
    assert generous.flux[0] == pytest.approx(1000.0, rel=1e-3)


def test_an_unusable_member_does_not_spoil_its_group(model: PSFModel) -> None:
    y, x = np.array([20.0, 20.0]), np.array([20.0, 26.0])
    image = draw((40, 40), y, x, np.array([0.0, 1000.0]), gaussian())
    bad = no_mask(image)
    bad[15:26, 15:23] = True
    fits = fit(image, np.ones_like(image), y, x, model, bad=bad)
    assert np.isnan(fits.flux[0])
    assert fits.flux[1] == pytest.approx(1000.0, rel=1e-3)


@pytest.mark.parametrize(("y", "x"), [(0.2, 20.0), (39.4, 39.4), (-0.4, 7.0)])
def test_edges(model: PSFModel, y: float, x: float) -> None:
    image = draw((40, 40), np.array([y]), np.array([x]), np.array([1000.0]), gaussian())
    fits = fit(image, np.ones_like(image), np.array([y]), np.array([x]), model, FitOptions(max_masked_fraction=0.9))
    assert 0.2 < fits.outside[0] < 0.85
    assert fits.lost[0] == pytest.approx(fits.outside[0])
    assert fits.flux[0] == pytest.approx(1000.0, rel=2e-3)


def test_positions_that_cannot_be_measured(model: PSFModel) -> None:
    image = np.ones((30, 30))
    y, x = np.array([np.nan, 1e9, -50.0, np.inf, 15.0]), np.array([3.0, 1e9, 5.0, 3.0, 15.0])
    fits = fit(image, image, y, x, model)
    assert np.isnan(fits.flux[:4]).all()
    assert np.isfinite(fits.flux[4])
    np.testing.assert_array_equal(fits.outside[:4], 1.0)


def test_a_position_given_twice_is_one_source(model: PSFModel) -> None:
    y, x = np.array([20.3, 26.0, 20.3, np.nan, 20.3]), np.array([20.1, 21.0, 20.1, 1.0, 20.1])
    image = draw((50, 50), y[:2], x[:2], np.array([1000.0, 300.0]), gaussian())
    fits = fit(image, np.ones_like(image), y, x, model)
    np.testing.assert_allclose(fits.flux, [1000.0, 300.0, 1000.0, np.nan, 1000.0], rtol=1e-3)
    assert fits.flux[0] == fits.flux[2] == fits.flux[4]
    assert fits.blended.tolist() == [True, True, True, False, True]


def test_positions_that_no_pixel_tells_apart_give_nan(model: PSFModel) -> None:
    y, x = np.array([20.0, 20.0, 60.0]), np.array([20.0, 20.0 + 1e-9, 20.0])
    image = draw((80, 40), y[[0, 2]], x[[0, 2]], np.array([1000.0, 500.0]), gaussian())
    fits = fit(image, np.ones_like(image), y, x, model)
    assert np.isnan(fits.flux[:2]).all()
    assert fits.flux[2] == pytest.approx(500.0, rel=1e-3)


def test_no_sources(model: PSFModel) -> None:
    fits = fit(np.ones((30, 30)), np.ones((30, 30)), np.empty(0), np.empty(0), model)
    assert fits.flux.shape == fits.blended.shape == (0,)


def test_saturated_pixels_are_counted(model: PSFModel) -> None:
    y, x = np.array([15.0, 15.0]), np.array([15.0, 45.0])
    image = draw((30, 60), y, x, np.array([1000.0, 1000.0]), gaussian())
    saturated = no_mask(image)
    saturated[14, 14] = True
    assert fit(image, np.ones_like(image), y, x, model, saturated=saturated).saturated.tolist() == [True, False]


# groups


@settings(max_examples=60)
@given(seed=st.integers(0, 10**6), n=st.integers(0, 60), distance=st.floats(0.5, 9.0))
def test_groups_are_linked_neighbors(seed: int, n: int, distance: float) -> None:
    y, x = np.random.default_rng(seed).uniform(0, 40, (2, n))
    members, starts, keep = group_sources(y, x, distance)
    assert sorted(members.tolist()) == list(range(n))
    assert starts[0] == 0
    assert starts[-1] == n
    label = np.empty(n, dtype=int)
    for g in range(len(keep)):
        label[members[starts[g] : starts[g + 1]]] = g
        assert keep[g] == starts[g + 1] - starts[g]
    close = np.hypot(y[:, None] - y, x[:, None] - x) <= distance
    assert np.all(label[:, None] == label, where=close)
    reach = close.copy()
    for _ in range(7):
        reach = (reach.astype(int) @ reach.astype(int)) > 0
    np.testing.assert_array_equal(reach, label[:, None] == label)


def test_large_groups_are_taken_apart() -> None:
    """Each source of a crowd leads a group of its neighbors, and every source is solved once."""
    y, x = (p.ravel() for p in np.mgrid[0:12, 0:12] * 4.0)
    members, starts, keep = group_sources(np.r_[y, 500.0], np.r_[x, 500.0], 5.0)
    own = np.concatenate([members[s : s + k] for s, k in zip(starts, keep, strict=False)])
    assert sorted(own.tolist()) == list(range(145))
    places = np.column_stack([np.r_[y, 500.0], np.r_[x, 500.0]])
    for g in np.flatnonzero(np.diff(starts) > 1):
        some = members[starts[g] : starts[g + 1]]
        expected = np.flatnonzero(np.hypot(*(places - places[some[0]]).T) <= 7.5)
        assert set(some.tolist()) == set(expected.tolist())


def test_crowded_field(model: PSFModel) -> None:
    """400 stars 2 FWHM apart, all linked: no bias, honest errors."""
    rng = np.random.default_rng(10)
    y, x = lattice(20, 2.2 * FWHM, rng)
    flux = rng.uniform(1e3, 1e4, len(y))
    image, variance = observed(draw((170, 170), y, x, flux, gaussian()), rng)
    fits = fit(image, variance, y, x, model)
    assert fits.blended.all()
    pull = (fits.flux - flux) / fits.flux_err
    assert abs(pull.mean()) < 0.15
    assert pull.std() == pytest.approx(1.0, abs=0.1)


# correlated noise


def test_noise_of_a_convolved_image_is_exact(model: PSFModel) -> None:
    """Against the covariance matrix of ``D = S - K ⊗ R``, with a variance of R that changes from pixel to pixel."""
    rng = np.random.default_rng(11)
    n = 33
    kernel = gaussian_pixels(np.arange(-3, 4) - 0.4, np.arange(-3, 4) * 1.0, 1.0)
    own, other = rng.uniform(20, 40, (n, n)), rng.uniform(10, 60, (n, n))
    variance = own + signal.convolve(other, kernel**2, mode="same")
    y, x = np.array([16.3]), np.array([15.8])
    convolved = ConvolvedNoise(np.ones((1, 1)), kernels=kernel[None], variance=other)
    found = fit(
        np.zeros((n, n)), variance, y, x, model, FitOptions(radius=6.0, weights="variance"), convolved=convolved
    )
    rows, columns = np.mgrid[:n, :n]
    disk = np.hypot(rows - y[0], columns - x[0]) <= 6.0
    psf = np.where(disk, gaussian_pixels(np.arange(n) - y[0], np.arange(n) - x[0], SIGMA), 0.0)
    factors = psf / variance / (psf**2 / variance).sum()
    spread = signal.correlate(factors, kernel, mode="same")
    expected = (factors**2 * own).sum() + (spread**2 * other).sum()
    assert found.flux_err[0] ** 2 == pytest.approx(expected, rel=1e-4)
    white = fit(np.zeros((n, n)), variance, y, x, model, FitOptions(radius=6.0, weights="variance"))
    assert white.flux_err[0] ** 2 < 0.9 * expected


def test_pulls_on_convolved_noise(model: PSFModel) -> None:
    """Monte Carlo: with a reference as noisy as the science image, errors without covariance are a third too small."""
    rng = np.random.default_rng(12)
    kernel = gaussian_pixels(np.arange(-4, 5) * 1.0, np.arange(-4, 5) * 1.0, 0.9)
    y, x = lattice(50, 20.0, rng)
    shape = (1040, 1040)
    truth = draw(shape, y, x, np.full(len(y), 400.0), gaussian())
    noise = rng.normal(0, SKY, shape) - signal.fftconvolve(rng.normal(0, SKY, shape), kernel, mode="same")
    variance = np.full(shape, SKY**2 * (1 + (kernel**2).sum()))
    convolved = ConvolvedNoise(np.ones((len(y), 1)), kernels=kernel[None], variance=np.full(shape, SKY**2))
    honest, naive = (fit(truth + noise, variance, y, x, model, convolved=c) for c in (convolved, None))
    assert (honest.flux - 400).mean() == pytest.approx(0, abs=3 * honest.flux_err.mean() / np.sqrt(len(y)))
    assert ((honest.flux - 400) / honest.flux_err).std() == pytest.approx(1.0, abs=0.045)
    assert ((naive.flux - 400) / naive.flux_err).std() > 1.2


def test_pulls_on_smoothed_noise(model: PSFModel) -> None:
    """The same from the autocorrelation alone, as of a resampled image."""
    rng = np.random.default_rng(13)
    kernel = np.outer([0.25, 0.5, 0.25], [0.1, 0.8, 0.1])
    shape = (1040, 1040)
    y, x = lattice(50, 20.0, rng)
    noise = signal.convolve(rng.normal(0, SKY, shape), kernel, mode="same")
    variance = np.full(shape, SKY**2 * (kernel**2).sum())
    correlation = signal.correlate(np.pad(kernel, 2), kernel, mode="valid") / (kernel**2).sum()
    fits = fit(noise, variance, y, x, model, correlation=correlation)
    assert (fits.flux / fits.flux_err).std() == pytest.approx(1.0, abs=0.045)
    assert (fits.flux / fit(noise, variance, y, x, model).flux_err).std() > 1.2


def test_kernels_act_on_the_psf() -> None:
    """A kernel turns the sharp PSF of the reference into that of the science image, as it varies over the frame."""
    sharp, kernel_sigma = 0.9, 0.8
    offset = np.arange(-5, 6) * 1.0
    kernel = np.exp(-0.5 * (offset[:, None] ** 2 + offset[None, :] ** 2) / kernel_sigma**2)
    rng = np.random.default_rng(14)
    y, x = lattice(3, 30.0, rng)
    sharp_image = draw((110, 110), y, x, np.full(len(y), 1000.0), gaussian(sharp))
    image = signal.convolve(sharp_image, kernel / kernel.sum(), mode="same")
    kernels = np.stack([3 * kernel, 0.3 * kernel])
    spread = ConvolvedNoise(np.column_stack([np.ones(9), rng.uniform(-1, 1, 9)]), kernels)
    fits = fit(image, np.ones_like(image), y, x, model_of(gaussian(sharp)), convolved=spread)
    np.testing.assert_allclose(fits.flux, 1000.0, rtol=3e-4)
    assert np.all(fits.chi2 < 1e-3)


# positions


def test_position_equations_point_home(model: PSFModel) -> None:
    rng = np.random.default_rng(15)
    y, x = lattice(6, 25.0, rng)
    image, variance = observed(draw((170, 170), y, x, np.full(len(y), 2e4), gaussian()), rng)
    dy, dx = rng.uniform(-0.2, 0.2, (2, len(y)))
    py, px = y + dy, x + dx
    for _ in range(3):
        fits = fit(image, variance, py, px, model)
        given = FitImage(image, variance, no_mask(image))
        g_y, g_x, yy, yx, xx = position_equations(fits, given, py, px, model, MODEL_WEIGHTS).T
        determinant = yy * xx - yx**2
        py, px = py + (xx * g_y - yx * g_x) / determinant, px + (yy * g_x - yx * g_y) / determinant
    pull = np.r_[(py - y) * np.sqrt(yy), (px - x) * np.sqrt(xx)]
    assert abs(pull.mean()) < 0.5
    assert pull.std() == pytest.approx(1.0, abs=0.3)


def test_blended_sources_stay_where_they_are(model: PSFModel) -> None:
    y, x = np.array([20.0, 20.0]), np.array([20.0, 24.0])
    image = draw((40, 40), y + 0.1, x, np.array([1e4, 1e4]), gaussian())
    fits = fit(image, np.ones_like(image), y, x, model)
    given = FitImage(image, np.ones_like(image), no_mask(image))
    assert not position_equations(fits, given, y, x, model, MODEL_WEIGHTS).any()


def test_robust_scatter_of_many_is_the_error(model: PSFModel) -> None:
    rng = np.random.default_rng(16)
    y, x = lattice(40, 20.0, rng)
    image, variance = observed(np.zeros((840, 840)), rng)
    fits = fit(image, variance, y, x, model)
    assert mad(fits.flux / fits.flux_err) == pytest.approx(1.0, abs=0.06)
