"""Combining epochs, as arrays: medians, clipped means, flux ratios and effective detectors against truth."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from ztfxr.arrays.images.coadd import (
    MAX_STARS,
    anchor_stars,
    clipped_mean,
    effective_detector,
    epoch_planes,
    flux_ratio,
    mean_of_sums,
    measure_anchor,
    measure_epoch,
    median_inefficiency,
    median_stack,
    star_fluxes,
)
from ztfxr.arrays.images.image import Image


def sky(n: int, shape: tuple[int, int] = (80, 90), seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(0, 3, (n, *shape)).astype(np.float32)


def nine(image: NDArray[Any]) -> NDArray[Any]:
    return np.full(image.shape, 9, np.float32)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 6, 7, 10, 21])
def test_the_medians_variance_is_that_of_its_scatter(n: int) -> None:
    values = sky(n, (300, 300))
    middle, variance, count = median_stack(values, nine(values))
    assert (count == n).all()
    assert np.std(middle / np.sqrt(variance)) == pytest.approx(1, abs=0.015)
    np.testing.assert_allclose(middle, np.median(values, axis=0), rtol=1e-6)


def test_median_inefficiency_reaches_its_limit() -> None:
    assert median_inefficiency(np.array([1, 2]))[:] == pytest.approx([1, 1], abs=0.01)
    assert median_inefficiency(np.array(100001)) == pytest.approx(np.pi / 2, rel=1e-4)


@pytest.mark.parametrize("n", [2, 3, 5, 12])
def test_a_clipped_mean_of_noise_is_a_weighted_mean(n: int) -> None:
    scatter = np.linspace(0.5, 2, n)[:, None, None]
    values = (sky(n, (200, 200)) * scatter).astype(np.float32)
    variance = (nine(values) * scatter**2).astype(np.float32)
    weights = 1 / scatter[:, 0, 0] ** 2
    mean, noise, count = clipped_mean(values, variance, weights, clip=3.5)
    assert np.std(mean / np.sqrt(noise)) == pytest.approx(1, abs=0.015)
    assert count.mean() > n * 0.998
    loose = clipped_mean(values, variance, weights, clip=1e9)[0]
    np.testing.assert_allclose(loose, np.average(values, axis=0, weights=weights), rtol=1e-4, atol=1e-5)


def test_outliers_are_clipped_from_three_epochs_on() -> None:
    values = sky(5)
    clean = values.copy()
    values[1, 40, 45], values[2, 10, 10], values[0, 10, 60], values[3, 10, 60] = 900, -500, 300, 4000
    mean, noise, count = clipped_mean(values, nine(values), np.ones(5), clip=3.5)
    assert (count[40, 45], count[10, 10], count[10, 60]) == (4, 4, 3)
    assert abs(mean[40, 45] - clean[[0, 2, 3, 4], 40, 45].mean()) < 1e-4
    assert noise[10, 60] == pytest.approx(3)
    two = clipped_mean(values[:2], nine(values[:2]), np.ones(2), clip=3.5)
    assert two[2][40, 45] == 2, "nothing says which of two values is the wrong one"


def test_stars_of_different_seeing_are_not_clipped() -> None:
    """The steps of the median image widen the limits; without them flanks would lose flux."""
    x = np.arange(41) - 20.0
    widths, shifts = np.linspace(0.9, 1.5, 9), np.linspace(-0.6, 0.6, 9)
    shapes = [np.exp(-0.5 * ((x - d) / w) ** 2) / w for w, d in zip(widths, shifts, strict=True)]
    values = np.array([1e5 * np.outer(p, p) for p in shapes], np.float32) + sky(9, (41, 41))
    variance = (9 + np.maximum(values, 0) / 6).astype(np.float32)
    mean, _, count = clipped_mean(values, variance, np.ones(9), clip=3.5)
    assert (count < 9).mean() < 0.03
    assert mean.sum() == pytest.approx(values.mean(axis=0).sum(), rel=0.004), "0.010 without"


def test_bad_pixels_and_pixels_without_any_value() -> None:
    values, variance = sky(4), nine(sky(4))
    values[:, 3, 4], values[1:, 5, 6], values[0, 7, 8] = np.nan, np.nan, np.inf
    for mean, noise, count in (
        clipped_mean(values, variance, np.ones(4), clip=3.5),
        median_stack(values, variance),
    ):
        assert np.isnan(mean[3, 4])
        assert np.isnan(noise[3, 4])
        assert (count[3, 4], count[5, 6], count[7, 8]) == (0, 1, 3)
        assert mean[5, 6] == values[0, 5, 6]
        assert np.isfinite(mean).sum() == mean.size - 1


@given(seed=st.integers(0, 50), n=st.integers(1, 9), fraction=st.floats(0, 0.9))
def test_planes_and_their_sums_are_the_weighted_mean(seed: int, n: int, fraction: float) -> None:
    rng = np.random.default_rng(seed)
    values, variance = rng.normal(5, 2, (n, 6, 7)), rng.uniform(1, 4, (n, 6, 7))
    bad, weights = rng.random((n, 6, 7)) < fraction, rng.uniform(0.1, 3, n)
    junk = np.where(bad & (rng.random(bad.shape) < 0.5), np.nan, np.where(bad, 1e30, values))
    planes = [epoch_planes(v, u, b, w, summed=True) for v, u, b, w in zip(junk, variance, bad, weights, strict=True)]
    mean, noise, count = mean_of_sums(np.moveaxis(np.sum(planes, axis=0, dtype=float), 0, -1))
    share = np.where(bad, 0, weights[:, None, None])
    total = np.where(share.sum(0) > 0, share.sum(0), np.nan)
    np.testing.assert_allclose(mean, (share * values).sum(0) / total, rtol=1e-5)
    np.testing.assert_allclose(noise, (share**2 * variance).sum(0) / total**2, rtol=1e-5)
    assert np.array_equal(count, (~bad).sum(0))


def field(scale: float = 1.0, seed: int = 1, width: float = 1.1, noise: float = 5.0) -> NDArray[np.float64]:
    """Sixty stars over a sky of 200."""
    rng = np.random.default_rng(7)
    y, x = np.mgrid[:300, :320]
    image = np.full(y.shape, 200.0)
    for cy, cx, flux in zip(rng.uniform(15, 285, 60), rng.uniform(15, 305, 60), rng.uniform(8e3, 6e4, 60), strict=True):
        image += scale * flux * np.exp(-0.5 * ((y - cy) ** 2 + (x - cx) ** 2) / width**2) / (2 * np.pi * width**2)
    return image + np.random.default_rng(seed).normal(0, noise, image.shape)


def test_flux_scales_are_recovered_through_other_seeing() -> None:
    none = np.zeros((300, 320), bool)
    stars, flux, error, noise, width = measure_anchor(field(), none)
    assert (stars.shape, noise, width) == ((MAX_STARS, 2), pytest.approx(5, abs=0.1), pytest.approx(2.6, abs=0.15))
    for scale, blur in ((0.6, 1.5), (1.0, 1.1), (1.7, 0.9)):
        image = field(scale, seed=2, width=blur)
        image[:, 100] = 3e4
        bad = none.copy()
        bad[:, 100] = True
        found = measure_epoch(image, bad, stars, flux, error, np.nan, by_stars=True)
        assert found[4] == pytest.approx(scale, rel=0.005)
        assert found[:2] == (pytest.approx(200, abs=0.5), pytest.approx(5, abs=0.1))
        assert found[3] == pytest.approx(1 - 1 / 320)


def test_variable_stars_do_not_shift_the_flux_scale() -> None:
    flux, error = np.geomspace(1e3, 1e5, 30), np.full(30, 50.0)
    other = 0.8 * flux
    other[::6] *= 3
    assert flux_ratio(other, error, flux, error) == pytest.approx(0.8, rel=0.005)
    assert np.isnan(flux_ratio(other[:4], error[:4], flux[:4], error[:4])), "too few stars"
    assert np.isnan(flux_ratio(-other, error, flux, error)), "no scale is negative"


def test_a_known_scale_stands_in_where_stars_are_missing() -> None:
    empty = np.random.default_rng(0).normal(0, 1, (64, 64))
    bad = np.zeros((64, 64), bool)
    anchor = measure_anchor(empty, bad)[:3]
    assert measure_epoch(empty, bad, *anchor, 0.7, by_stars=True)[4] == 0.7
    assert np.isnan(measure_epoch(empty, bad, *anchor, np.nan, by_stars=True)[4])


def test_an_epoch_without_a_good_pixel_measures_nothing_and_warns_of_nothing() -> None:
    image, bad = np.full((40, 40), np.nan), np.ones((40, 40), bool)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not np.isfinite(anchor_stars(Image.of(image, None, bad))).any()
        level, noise, width, coverage, scale = measure_epoch(
            image, bad, *measure_anchor(image, bad)[:3], 1.0, by_stars=True
        )
    assert np.isnan([level, noise, width]).all()
    assert (coverage, scale) == (0, 1)


def test_star_windows_with_a_bad_pixel_have_no_flux() -> None:
    image, bad = field(), np.zeros((300, 320), bool)
    stars = anchor_stars(Image.of(image, None, bad))
    y, x = stars[0].astype(int)
    bad[y + 6, x - 6] = True
    flux, error = star_fluxes(image, bad, stars, 5.0)
    assert np.isnan(flux[0])
    assert np.isnan(error[0])
    assert np.isfinite(flux[np.isfinite(stars[:, 0])]).sum() > 20


@pytest.mark.parametrize("with_sky", [True, False])
def test_the_effective_detector_of_equal_frames(with_sky: bool) -> None:
    one, n, level, readnoise, gain = np.ones(8), 8, 100.0, 9.0, 6.0
    noise = np.sqrt(level / gain + (readnoise / gain) ** 2)
    g, r = effective_detector(one, one, noise * one, level * one, gain * one, median=False, with_sky=with_sky)
    assert g == pytest.approx(n * gain)
    assert r == pytest.approx(readnoise * np.sqrt(n) if with_sky else noise * gain * np.sqrt(n))
    unused = np.r_[one, 0]
    assert effective_detector(
        unused, *(np.r_[a * one, np.nan] for a in (1, noise, level, gain)), median=False, with_sky=with_sky
    ) == (pytest.approx(g), pytest.approx(r))
    assert np.isnan(effective_detector(0 * one, one, one, one, one, median=False, with_sky=with_sky)).all()
