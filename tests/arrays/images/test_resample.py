"""Resampling: copies where it must, conserves flux and places stars, and never lets a bad pixel speak."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

from ztfxr.arrays.geometry.transform import Transform, fit_transform
from ztfxr.arrays.images.resample import SIGNIFICANT, kernel_table, resample
from ztfxr.arrays.threads import task
from ztfxr.errors import InputError

KERNELS = ("lanczos3", "spline")
SIGMA = 2.0 / 2.3548


def noise(shape: tuple[int, int] = (40, 50), seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(200.0, 9.0, shape).astype(np.float32)


def star_field(shape: tuple[int, int], x: Any, y: Any, flux: float = 1000.0) -> NDArray[np.float64]:
    """Gaussians of FWHM 2 pixels, sampled at pixel centers."""
    yy, xx = np.mgrid[: shape[0], : shape[1]]
    out = np.zeros(shape)
    for px, py in zip(np.atleast_1d(x), np.atleast_1d(y), strict=True):
        out += flux * np.exp(-((xx - px) ** 2 + (yy - py) ** 2) / (2 * SIGMA**2)) / (2 * np.pi * SIGMA**2)
    return out


def measure(image: NDArray[Any], x: float, y: float, half: int = 9) -> tuple[float, float, float]:
    """Flux and centroid of an isolated star without a sky."""
    cx, cy = int(np.rint(x)), int(np.rint(y))
    cut = np.asarray(image[cy - half : cy + half + 1, cx - half : cx + half + 1], dtype=float)
    yy, xx = np.mgrid[cy - half : cy + half + 1, cx - half : cx + half + 1]
    return cut.sum(), (cut * xx).sum() / cut.sum(), (cut * yy).sum() / cut.sum()


@pytest.mark.parametrize("kernel", KERNELS)
def test_weights_sum_to_one_and_keep_the_place(kernel: Any) -> None:
    table = kernel_table(kernel).astype(float)
    taps, phase = table.shape[1], np.arange(1025) / 1024
    offset = np.arange(taps) - taps // 2 + 1
    np.testing.assert_allclose(table.sum(axis=1), 1.0, atol=3e-7)
    np.testing.assert_allclose(table @ offset, phase, atol=1e-6)
    assert sorted(table[0])[-2:] == [0.0, 1.0]
    np.testing.assert_allclose(table[::-1, ::-1], table, atol=1e-6)


def test_unknown_interpolation() -> None:
    with pytest.raises(InputError, match=r"interpolation is one of lanczos3.*got 'cubic'"):
        resample(noise(), Transform.shift(), (4, 4), interpolation="cubic")  # type: ignore[arg-type]


@given(
    shape=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    dtype=st.sampled_from(["f4", ">f4", "u2"]),
    kernel=st.sampled_from(KERNELS),
    share=st.sampled_from([0.0, 0.1, 1.0]),
    seed=st.integers(0, 99),
)
def test_identity_returns_the_image(shape: Any, dtype: str, kernel: Any, share: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 65535, shape).astype(dtype)
    bad = rng.random(shape) < share
    flags = rng.integers(0, 4096, shape).astype(np.uint16)
    found = resample(image, Transform.shift(), shape, variance=image / 3, bad=bad, flags=flags, interpolation=kernel)
    np.testing.assert_array_equal(found.image, np.where(bad, np.float32(np.nan), image.astype("f4")))
    np.testing.assert_array_equal(found.variance, np.where(bad, np.float32(np.nan), (image / 3).astype("f4")))
    np.testing.assert_array_equal(found.bad, bad)
    np.testing.assert_array_equal(found.flags, flags)


@given(dx=st.integers(-9, 9), dy=st.integers(-9, 9), ox=st.integers(-5, 5))
def test_whole_pixels_copy_and_the_rest_is_outside(dx: int, dy: int, ox: int) -> None:
    image = noise((12, 14))
    found = resample(image, Transform.shift(dx, dy), (13, 11), outside=32768, flags=np.zeros((12, 14)), origin=(0, ox))
    for y in range(13):
        for x in range(11):
            yy, xx = y + dy, x + dx - ox
            inside = 0 <= yy < 12 and 0 <= xx < 14
            assert found.bad[y, x] == (not inside)
            assert found.flags[y, x] == (0 if inside else 32768)
            if inside:
                assert found.image[y, x] == image[yy, xx]


def brute(
    image: NDArray[Any], variance: NDArray[Any], bad: NDArray[np.bool_], x: float, y: float, kernel: Any
) -> tuple[float, float, bool]:
    """One resampled pixel in double precision, by the book."""
    table = kernel_table(kernel).astype(float)
    taps = table.shape[1]
    ix, iy = int(np.floor(x)), int(np.floor(y))
    phase = np.arange(1025) / 1024
    wx, wy = (np.array([np.interp(p - i, phase, table[:, t]) for t in range(taps)]) for p, i in ((x, ix), (y, iy)))
    total = square = norm = 0.0
    spoilt = False
    for b in range(taps):
        for a in range(taps):
            w, yy, xx = wx[a] * wy[b], iy + b - taps // 2 + 1, ix + a - taps // 2 + 1
            if not (0 <= yy < image.shape[0] and 0 <= xx < image.shape[1]) or bad[yy, xx]:
                spoilt |= abs(w) > SIGNIFICANT
                continue
            total, square, norm = total + w * image[yy, xx], square + w * w * variance[yy, xx], norm + w
    return total / norm, square / norm**2, spoilt


@pytest.mark.parametrize("kernel", KERNELS)
def test_every_pixel_against_the_definition(kernel: Any) -> None:
    rng = np.random.default_rng(3)
    image, bad = noise((30, 32)), rng.random((30, 32)) < 0.01
    variance = rng.uniform(50, 90, image.shape)
    transform = Transform.affine([[0.98, 0.05], [-0.04, 1.01]], (1.3, 0.7))
    found = resample(image, transform, (28, 30), variance=variance, bad=bad, interpolation=kernel)
    area = abs(np.linalg.det(transform.matrix))
    for y in range(28):
        for x in range(30):
            px, py = (float(p) for p in transform(x, y))
            if not (-0.5 < px < 31.5 and -0.5 < py < 29.5):
                assert found.bad[y, x]
                continue
            value, square, spoilt = brute(image, variance, bad, px, py, kernel)
            assert found.bad[y, x] == spoilt
            if spoilt:
                assert np.isnan(found.image[y, x])
                assert np.isnan(found.variance[y, x])
            else:
                np.testing.assert_allclose(found.image[y, x], value * area, rtol=2e-5)
                np.testing.assert_allclose(found.variance[y, x], square * area**2, rtol=1e-4)


def test_spline_against_scipy() -> None:
    image = star_field((60, 60), [22.3, 38.1], [30.6, 25.2]) + 5.0
    transform = Transform.similarity(np.exp(0.05j), 1.2 - 2.1j)
    found = resample(image, transform, (60, 60), interpolation="spline")
    xs, ys, area = transform.on_grid(np.arange(60.0), np.arange(60.0))
    truth = map_coordinates(image, [ys, xs], order=3, mode="mirror") * area
    good = ~found.bad
    assert good.mean() > 0.7
    np.testing.assert_allclose(found.image[good], truth[good], atol=1e-4 * image.max())


@given(
    dx=st.floats(-1.0, 1.0),
    dy=st.floats(-1.0, 1.0),
    angle=st.floats(-0.5, 0.5),
    scale=st.floats(0.99, 1.01),
    kernel=st.sampled_from(KERNELS),
)
def test_undersampled_stars_keep_flux_and_place(dx: float, dy: float, angle: float, scale: float, kernel: Any) -> None:
    x, y = np.array([25.3, 70.9, 48.5]), np.array([28.1, 35.4, 71.6])
    transform = Transform.similarity(scale * np.exp(1j * angle), complex(dx, dy) + 50 - 50 * scale * np.exp(1j * angle))
    found = resample(star_field((100, 100), x, y), transform, (100, 100), interpolation=kernel)
    back = transform.inverse()
    for px, py in zip(*back(x, y), strict=True):
        flux, cx, cy = measure(found.image, px, py)
        assert flux == pytest.approx(1000.0, rel=1e-3)
        assert np.hypot(cx - px, cy - py) < 0.01


def test_a_polynomial_map_conserves_flux() -> None:
    grid = np.column_stack([p.ravel() for p in np.meshgrid(np.linspace(0, 99, 12), np.linspace(0, 99, 12))])
    bent = grid + 1e-4 * np.column_stack([(grid[:, 0] - 40) ** 2, (grid[:, 0] - 20) * grid[:, 1]])
    transform = fit_transform(bent, grid, kind="polynomial", order=2)
    x, y = np.array([30.2, 60.7]), np.array([30.3, 55.1])
    found = resample(star_field((100, 100), *transform(x, y)), transform, (100, 100))
    for px, py in zip(x, y, strict=True):
        flux, cx, cy = measure(found.image, px, py)
        assert flux == pytest.approx(1000.0, rel=1e-3)
        assert np.hypot(cx - px, cy - py) < 0.01


@given(junk=st.sampled_from([np.nan, np.inf, -np.inf, 1e38, -1e38]), kernel=st.sampled_from(KERNELS))
def test_what_is_bad_never_leaks(junk: float, kernel: Any) -> None:
    rng = np.random.default_rng(5)
    image, bad = noise((40, 40)), rng.random((40, 40)) < 0.02
    variance = np.full(image.shape, 81.0, np.float32)
    transform = Transform.similarity(np.exp(0.02j), 0.4 + 0.3j)
    clean = resample(image, transform, (40, 40), variance=variance, bad=bad, interpolation=kernel)
    dirty_image, dirty_variance = np.where(bad, np.float32(junk), image), np.where(bad, np.float32(junk), variance)
    dirty = resample(dirty_image, transform, (40, 40), variance=dirty_variance, bad=bad, interpolation=kernel)
    for a, b in zip(clean, dirty, strict=True):
        np.testing.assert_array_equal(a, b)
    assert np.isfinite(dirty.image[~dirty.bad]).all()
    assert (np.abs(dirty.image[~dirty.bad] - 200) < 80).all()


def test_what_is_not_finite_is_bad_without_being_told() -> None:
    image, variance = noise(), np.full((40, 50), 81.0)
    image[20, 20], variance[10, 10] = np.nan, np.inf
    found = resample(image, Transform.shift(0.5, 0.5), (39, 49), variance=variance)
    assert found.bad[19, 19]
    assert found.bad[9, 9]
    assert not found.bad[30, 30]


def test_variance_is_that_of_the_noise() -> None:
    sky = np.random.default_rng(1).normal(0, 3, (400, 400))
    transform = Transform.similarity(1.02 * np.exp(0.3j), 60 - 30j)
    found = resample(sky, transform, (400, 400), variance=np.full(sky.shape, 9.0))
    good = ~found.bad
    assert good.sum() > 50_000
    assert np.std(found.image[good] / np.sqrt(found.variance[good])) == pytest.approx(1.0, abs=0.01)


def test_flags_spread_only_from_what_is_bad() -> None:
    flags = np.zeros((20, 20), np.uint16)
    flags[10, 10], flags[5, 5] = 256 | 2, 2
    found = resample(noise((20, 20)), Transform.shift(0.4, 0.0), (20, 20), flags=flags, bad=flags > 2, spread=256)
    assert found.flags[10, 8] == 256
    assert found.flags[10, 10] == 256 | 2
    assert found.flags[5, 4:7].tolist() == [0, 2, 0]
    assert not found.bad[5, 5]
    assert np.flatnonzero(found.bad[10, 3:16]).tolist() == [4, 5, 6, 7, 8, 9]


def test_bounds_limit_the_map() -> None:
    transform = fit_transform(
        np.array([[0, 0], [9, 0], [0, 9], [9, 9.0]]), np.array([[0, 0], [9, 0], [0, 9], [9, 9.0]])
    )
    limited = Transform("affine", 1, transform.coefficients, center=transform.center, scale=transform.scale,
                        bounds=(0.0, 9.0, 3.0, 6.0))  # fmt: skip
    found = resample(noise((20, 20)), limited, (20, 20))
    assert np.flatnonzero(~found.bad.all(axis=0)).tolist() == [3, 4, 5, 6]


def test_no_overlap_is_all_bad() -> None:
    found = resample(noise(), Transform.shift(1e6, 0), (5, 6), variance=noise())
    assert found.bad.all()
    assert np.isnan(found.image).all()
    assert np.isnan(found.variance).all()


def test_threads_change_nothing() -> None:
    image, transform = noise((200, 150)), Transform.similarity(np.exp(0.01j), 0.3)
    with task():
        alone = resample(image, transform, (200, 150), variance=image)
    for a, b in zip(alone, resample(image, transform, (200, 150), variance=image), strict=True):
        np.testing.assert_array_equal(a, b)
