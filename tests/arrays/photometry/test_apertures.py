"""Exact apertures against photutils, sep and arithmetic."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import sep
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from photutils.aperture import CircularAperture
from scipy import signal

from ztfxr.arrays.images.annuli import measure_annuli
from ztfxr.arrays.photometry.apertures import ApertureSums, circle_overlap, correlation_factor, sum_apertures

SHAPE = (41, 53)
RNG = np.random.default_rng(7)
IMAGE = RNG.normal(100.0, 30.0, SHAPE)
VARIANCE = RNG.uniform(1.0, 9.0, SHAPE)
NONE_BAD = np.zeros(SHAPE, dtype=bool)

radii = st.floats(0.2, 15.0)
anywhere = st.tuples(st.floats(-20.0, SHAPE[1] + 20.0), st.floats(-20.0, SHAPE[0] + 20.0))
inside = st.tuples(st.floats(16.0, SHAPE[1] - 17.0), st.floats(16.0, SHAPE[0] - 17.0))


def measure(
    x: Any, y: Any, radius: float, image: NDArray[Any] = IMAGE, bad: NDArray[np.bool_] = NONE_BAD
) -> ApertureSums:
    return sum_apertures(
        image, VARIANCE, bad, np.atleast_1d(np.asarray(x, float)), np.atleast_1d(np.asarray(y, float)), radii=radius
    )


def photutils_weights(x: float, y: float, radius: float) -> NDArray[np.float64]:
    """Weights on the frame, zero where the aperture misses it."""
    weights = CircularAperture((x, y), radius).to_mask(method="exact").to_image(SHAPE)
    return np.zeros(SHAPE) if weights is None else weights


@given(anywhere, radii)
def test_photutils_exact(center: tuple[float, float], radius: float) -> None:
    weights = photutils_weights(*center, radius)
    found = measure(*center, radius)
    scale = 1e-10 * max(1.0, radius**2)
    np.testing.assert_allclose(found.flux, (weights * IMAGE).sum(), rtol=1e-10, atol=100 * scale)
    np.testing.assert_allclose(found.variance, (weights**2 * VARIANCE).sum(), rtol=1e-10, atol=scale)
    np.testing.assert_allclose(found.area, weights.sum(), rtol=1e-10, atol=scale)
    np.testing.assert_allclose(found.total_area, np.pi * radius**2, rtol=1e-10)
    np.testing.assert_allclose(found.outside_area, np.pi * radius**2 - weights.sum(), atol=scale)


@given(st.tuples(st.integers(0, SHAPE[1] - 1), st.integers(0, SHAPE[0] - 1)), st.integers(1, 30))
def test_photutils_at_pixel_centers_and_corners(pixel: tuple[int, int], twice_radius: int) -> None:
    """Where the circle touches pixel edges."""
    for shift in (0.0, 0.5):
        x, y = pixel[0] + shift, pixel[1] + shift
        weights = photutils_weights(x, y, twice_radius / 2)
        np.testing.assert_allclose(measure(x, y, twice_radius / 2).flux, (weights * IMAGE).sum(), rtol=1e-10)


@given(inside, st.floats(0.75, 15.0))
def test_sep(center: tuple[float, float], radius: float) -> None:
    """From 0.75 px on: sep 1.4.1 counts the whole pixel where a smaller disk is centered on it exactly."""
    flux, _, _ = sep.sum_circle(IMAGE, *([c] for c in center), radius, subpix=0)
    np.testing.assert_allclose(measure(*center, radius).flux[0], flux, rtol=1e-5)


@given(inside, st.floats(1.0, 15.0))
def test_photutils_and_sep_overestimate_the_variance(center: tuple[float, float], radius: float) -> None:
    """They sum w V where the variance of a sum of w I is the sum of w² V."""
    weights = photutils_weights(*center, radius)
    _, photutils_error = CircularAperture(center, radius).do_photometry(IMAGE, error=np.sqrt(VARIANCE), method="exact")
    np.testing.assert_allclose(photutils_error**2, (weights * VARIANCE).sum(), rtol=1e-9)
    _, sep_error, _ = sep.sum_circle(IMAGE, *([c] for c in center), radius, var=VARIANCE, subpix=0)
    np.testing.assert_allclose(sep_error**2, (weights * VARIANCE).sum(), rtol=1e-5)
    assert measure(*center, radius).variance[0] < photutils_error[0] ** 2


def test_variance_is_that_of_the_sum() -> None:
    """Over 4000 noise images: 5 sigma of the scatter of a variance is 11 %; the sum of w V would be 29 % off."""
    noise = RNG.normal(size=(4000, 9, 9)) * 2.0
    variance, bad = np.full((9, 9), 4.0), np.zeros((9, 9), dtype=bool)
    position = (np.array([4.3]), np.array([3.8]))
    found = [sum_apertures(image, variance, bad, *position, radii=1.5) for image in noise]
    fluxes = np.array([f.flux[0, 0] for f in found])
    np.testing.assert_allclose(fluxes.var() / found[0].variance[0, 0], 1.0, atol=5 * np.sqrt(2 / 4000))


def test_variance_by_hand() -> None:
    """A disk of half a pixel's radius on the corner of four pixels covers a quarter of itself in each."""
    found = measure(10.5, 20.5, 0.5)
    quarter = np.pi / 16
    np.testing.assert_allclose(found.flux, quarter * IMAGE[20:22, 10:12].sum(), rtol=1e-12)
    np.testing.assert_allclose(found.variance, quarter**2 * VARIANCE[20:22, 10:12].sum(), rtol=1e-12)


@given(inside, radii, st.integers(0, 2**32 - 1))
def test_bad_pixels_are_left_out(center: tuple[float, float], radius: float, seed: int) -> None:
    bad = np.random.default_rng(seed).random(SHAPE) < 0.3
    weights = np.where(bad, 0.0, photutils_weights(*center, radius))
    found = measure(*center, radius, np.where(bad, np.nan, IMAGE), bad)
    np.testing.assert_allclose(found.flux, (weights * IMAGE).sum(), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(found.variance, (weights**2 * VARIANCE).sum(), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(found.area, weights.sum(), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(found.outside_area, 0.0, atol=1e-12)


@given(st.floats(-0.5, 0.5), st.floats(-0.5, 0.5), radii)
def test_overlap(dx: float, dy: float, radius: float) -> None:
    half = int(np.ceil(radius + 0.5))
    offset = np.arange(-half, half + 1)
    x, y = offset[None, :] - dx, offset[:, None] - dy
    weights = circle_overlap(x, y, radius)
    assert weights.shape == (2 * half + 1, 2 * half + 1)
    assert weights.min() >= 0.0
    assert weights.max() <= 1.0 + 1e-12
    np.testing.assert_allclose(weights.sum(), np.pi * radius**2, rtol=1e-12)
    distance = np.hypot(x, y)
    np.testing.assert_allclose(weights[distance < radius - np.sqrt(0.5)], 1.0, rtol=1e-12)
    np.testing.assert_allclose(weights[distance > radius + np.sqrt(0.5)], 0.0, atol=1e-12)
    np.testing.assert_allclose(circle_overlap(-x, y, radius), weights, atol=1e-12)
    np.testing.assert_allclose(circle_overlap(y, x, radius), weights, atol=1e-12)


@given(anywhere, st.lists(radii, min_size=2, max_size=6, unique=True))
def test_many_radii_at_once_are_each_alone(center: tuple[float, float], many: list[float]) -> None:
    bad = RNG.random(SHAPE) < 0.1
    found = measure(*center, many, bad=bad)
    for k, radius in enumerate(many):
        alone = measure(*center, radius, bad=bad)
        for name in ("flux", "variance", "area", "outside_area"):
            np.testing.assert_allclose(getattr(found, name)[:, k], getattr(alone, name)[:, 0], rtol=1e-9, atol=1e-9)


def clipped(values: NDArray[np.float64], statistic: str) -> tuple[float, float]:
    """By the words of the docstring."""
    for _ in range(10):
        inside = np.abs(values - np.median(values)) <= 3 * values.std()
        if inside.all():
            break
        values = values[inside]
    error = values.std(ddof=1) / np.sqrt(len(values))
    return (np.median(values), error * np.sqrt(np.pi / 2)) if statistic == "median" else (values.mean(), error)


@pytest.mark.parametrize("statistic", ["median", "mean"])
def test_annuli_against_numpy(statistic: str) -> None:
    image = IMAGE.copy()
    image[RNG.random(SHAPE) < 0.02] = 1e5
    image[3, 7] = np.nan
    bad = RNG.random(SHAPE) < 0.1
    x, y = RNG.uniform(-3, 56, 20), RNG.uniform(-3, 44, 20)
    found = measure_annuli(image, bad, x, y, inner=4.0, outer=9.5, statistic=statistic)
    rows, columns = np.indices(SHAPE)
    for k in range(20):
        distance = np.hypot(columns - x[k], rows - y[k])
        chosen = image[(distance >= 4.0) & (distance <= 9.5) & ~bad & np.isfinite(image)]
        level, error = clipped(chosen, statistic)
        np.testing.assert_allclose(found.level[k], level, rtol=1e-10)
        np.testing.assert_allclose(found.error[k], error, rtol=1e-10)


def test_annuli_without_pixels() -> None:
    found = measure_annuli(IMAGE, NONE_BAD, np.array([np.nan, -50.0, 1e9]), np.full(3, 20.0), inner=3.0, outer=6.0)
    assert np.isnan(found.level).all()
    assert (found.n == 0).all()


@pytest.mark.parametrize("x", [np.nan, np.inf, -np.inf, 1e300, -1e12])
def test_positions_nowhere(x: float) -> None:
    for found in (measure(x, 20.0, 3.0), measure(20.0, x, 3.0), measure(x, x, 3.0)):
        assert found.area[0, 0] == found.flux[0, 0] == found.variance[0, 0] == 0.0
        np.testing.assert_allclose(found.outside_area[0], found.total_area)


def test_many_sources_are_each_alone() -> None:
    x, y = RNG.uniform(-5, 58, 500), RNG.uniform(-5, 46, 500)
    whole = measure(x, y, 4.2)
    one_by_one = [measure(a, b, 4.2).flux[0, 0] for a, b in zip(x, y, strict=True)]
    np.testing.assert_array_equal(whole.flux[:, 0], one_by_one)


def test_images_in_the_order_of_another_machine() -> None:
    found = measure(20.2, 20.0, 5.0, IMAGE.astype(">f8")[::1])
    np.testing.assert_array_equal(found.flux, measure(20.2, 20.0, 5.0).flux)


def test_no_source() -> None:
    found = measure([], [], 3.0)
    assert found.flux.shape == found.variance.shape == found.area.shape == (0, 1)


def test_dtype_of_single_precision_images() -> None:
    found = measure([20.2, 30.0], [20.0, 5.0], 5.0, IMAGE.astype(np.float32))
    assert found.flux.dtype == np.float64
    np.testing.assert_allclose(found.flux, measure([20.2, 30.0], [20.0, 5.0], 5.0).flux, rtol=1e-6)


@pytest.mark.parametrize("radius", [1.0, 3.5, 8.0])
def test_the_variance_of_sums_over_convolved_noise(radius: float) -> None:
    """Noise of variance 2, of which an eighth of the pixels' own is white."""
    rng = np.random.default_rng(5)
    kernel = np.outer([0.2, 0.7, 0.3], [0.1, 0.6, 0.4])
    share = 2.0 / (2.0 * (kernel**2).sum() + 0.125)
    sums = []
    for _ in range(6):
        noise = rng.normal(0, np.sqrt(2.0), (260, 260))
        image = signal.convolve(noise, kernel, mode="same") + rng.normal(0, np.sqrt(0.125), noise.shape)
        y, x = (axis.ravel().astype(np.float64) for axis in np.mgrid[15:245:18, 15:245:18])
        found = sum_apertures(image, np.full(image.shape, 2.0 / share), image > 1e9, x, y, radii=radius)
        sums.append(found.flux / np.sqrt(found.variance))
    assert np.var(np.concatenate(sums)) == pytest.approx(correlation_factor(kernel, share, radius)[0], rel=0.12)


@pytest.mark.parametrize("part", [0.0, 0.5, 0.89, 0.93, 1.0, 1.7])
def test_noise_of_a_sharpened_image_never_cancels_to_nothing(part: float) -> None:
    """A share that is measured a little too large must not make an error of zero."""
    kernel = np.array([[-1.0, -2.0, -1.0], [-2.0, 12.8, -2.0], [-1.0, -2.0, -1.0]])
    square = (kernel**2).sum()
    factor = correlation_factor(kernel, part / square, 7.0)[0]
    cancels = correlation_factor(kernel, 0.5 / square, 7.0)[0] * 2 - 1
    assert 0 < cancels < 0.2
    assert factor == pytest.approx(1 - min(part, 0.9) * (1 - cancels))
    assert factor > 0.09
