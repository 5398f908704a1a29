"""PSF models: interpolation, normalization, variation over the frame."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from tests.arrays.psf._scenes import gaussian_pixels, model_of, moffat_pixels
from ztfxr.arrays.psf.model import PSFModel, grid_offsets, psf_fwhm, psf_stamps, resample_stamp, window_stamps

OFFSET = np.arange(-6, 7)


def gaussian(sigma: float):
    pixels = partial(gaussian_pixels, sigma=sigma)
    pixels.__name__ = "gaussian"
    return pixels


def varying_model() -> PSFModel:
    """Width that grows linearly along x over 200 pixels, over a frame from (100, 50)."""
    offset = grid_offsets(81, 4)
    narrow, wide = (gaussian_pixels(offset, offset, s) for s in (0.9, 1.2))
    values = np.stack([(narrow + wide) / 2, (wide - narrow) / 2, np.zeros_like(wide)])
    return PSFModel.of(values, 4, origin=(200.0, 150.0), scale=(100.0, 100.0))


@pytest.mark.parametrize(
    ("fwhm", "oversampling", "tolerance"), [(0.8, 4, 1e-3), (1.3, 4, 5e-4), (2.0, 4, 1.2e-4), (2.6, 3, 2e-4)]
)
def test_stamps_are_those_of_the_pixels(fwhm: float, oversampling: int, tolerance: float) -> None:
    """Between the nodes the light of an undersampled star is right to a thousandth of its peak."""
    rng = np.random.default_rng(1)
    y, x = rng.uniform(-40, 40, (2, 200))
    model = model_of(gaussian(fwhm / 2.3548), oversampling=oversampling)
    truth = gaussian_pixels(
        OFFSET - (y - np.floor(y + 0.5))[:, None], OFFSET - (x - np.floor(x + 0.5))[:, None], fwhm / 2.3548
    )
    stamps = psf_stamps(model, y, x, size=13)
    assert np.abs(stamps - truth).max() < tolerance * truth.max()
    flux = (stamps * truth).sum((1, 2)) / (stamps**2).sum((1, 2))
    assert np.abs(flux - 1).max() < tolerance


def test_elliptical_moffat() -> None:
    pixels = partial(moffat_pixels, fwhm=2.2, ratio=0.8)
    pixels.__name__ = "moffat"
    model = model_of(pixels, reach=14, oversampling=4)
    for y, x in ((3.2, 7.9), (0.5, 0.49)):
        stamp = psf_stamps(model, np.array([y]), np.array([x]), size=13)[0]
        truth = pixels(OFFSET - (y - np.floor(y + 0.5)), OFFSET - (x - np.floor(x + 0.5)))
        lost = 1 - np.float64(pixels(np.arange(-14, 15) * 1.0, np.arange(-14, 15) * 1.0).sum())
        assert np.abs(stamp * (1 - lost) - truth).max() < 3e-4 * truth.max()


@given(y=st.floats(0, 400), x=st.floats(0, 300))
def test_sum_is_one_everywhere(y: float, x: float) -> None:
    model = varying_model()
    stamps = psf_stamps(model, np.array([y]), np.array([x]))
    assert stamps.shape == (1, 2 * model.reach + 1, 2 * model.reach + 1)
    assert stamps.sum() == pytest.approx(1.0, abs=1e-12)


@given(fraction=st.floats(-0.5, 0.499))
def test_stamps_center_where_the_star_is(fraction: float) -> None:
    stamp = psf_stamps(model_of(gaussian(1.0)), np.array([7.0]), np.array([5.0 + fraction]))[0]
    middle = np.arange(len(stamp)) - len(stamp) // 2
    assert (stamp.sum(axis=0) * middle).sum() == pytest.approx(fraction, abs=1e-4)
    assert (stamp.sum(axis=1) * middle).sum() == pytest.approx(0.0, abs=1e-9)


def test_variation_is_a_polynomial_of_the_frame() -> None:
    model = varying_model()
    assert model.order == 1
    for x, sigma in ((50.0, 0.9), (250.0, 1.2)):
        stamp = psf_stamps(model, np.array([200.25]), np.array([x]), size=13)[0]
        truth = gaussian_pixels(OFFSET - 0.25, OFFSET * 1.0, sigma)
        np.testing.assert_allclose(stamp, truth, atol=2e-4 * truth.max())


@pytest.mark.parametrize("derivative", [1, 2])
def test_derivatives(derivative: int) -> None:
    model, step = model_of(gaussian(1.0)), 1e-4
    move = np.array([step, 0.0]) if derivative == 1 else np.array([0.0, step])
    y, x = np.array([3.1, 4.4]), np.array([2.7, 9.0])
    higher = psf_stamps(model, y + move[0], x + move[1])
    lower = psf_stamps(model, y - move[0], x - move[1])
    slope = psf_stamps(model, y, x, derivative=derivative)
    np.testing.assert_allclose(slope, (higher - lower) / (2 * step), atol=1e-6 + 1e-3 * np.abs(slope).max())


def test_window_need_not_be_centered_on_the_star() -> None:
    model = model_of(gaussian(1.0))
    shifted = window_stamps(model, np.array([1.3]), np.array([-0.9]), np.ones((1, 1)), 5)[0]
    truth = gaussian_pixels(np.arange(-5, 6) - 1.3, np.arange(-5, 6) + 0.9, 1.0)
    np.testing.assert_allclose(shifted, truth, atol=1e-5)


def test_sizes() -> None:
    """A small stamp is cut from the whole one; a large one is that in zeros."""
    model, y, x = model_of(gaussian(1.0)), np.array([3.3]), np.array([4.4])
    whole = psf_stamps(model, y, x)[0]
    small, large = (psf_stamps(model, y, x, size=s)[0] for s in (5, 41))
    middle = len(whole) // 2
    np.testing.assert_array_equal(small, whole[middle - 2 : middle + 3, middle - 2 : middle + 3])
    margin = (41 - len(whole)) // 2
    np.testing.assert_array_equal(large[margin:-margin, margin:-margin], whole)
    assert large.sum() == pytest.approx(1.0)


def test_unknown_positions_give_nan() -> None:
    stamps = psf_stamps(model_of(gaussian(1.0)), np.array([np.nan, 1.0]), np.array([2.0, 2.0]), size=5)
    assert np.isnan(stamps[0]).all()
    assert np.isfinite(stamps[1]).all()


def test_resampled_stamp_moves_like_fourier() -> None:
    stamp = gaussian_pixels(np.arange(-10, 11) * 1.0, np.arange(-10, 11) * 1.0, 1.5)
    fine = resample_stamp(stamp, 4)
    assert fine.shape == (81, 81)
    np.testing.assert_allclose(fine[::4, ::4], stamp, atol=1e-12)
    moved = psf_stamps(PSFModel.of(fine[None], 4), np.array([5.37]), np.array([4.81]), size=15)[0]
    shifted = ndimage.fourier_shift(np.fft.fft2(stamp), (0.37, -0.19))
    np.testing.assert_allclose(moved, np.fft.ifft2(shifted).real[3:-3, 3:-3], atol=1e-4 * stamp.max())


@pytest.mark.parametrize("sigma", [0.6, 1.0, 1.6])
def test_fwhm(sigma: float) -> None:
    """The pixel adds a twelfth to the variance."""
    expected = 2.3548 * np.sqrt(sigma**2 + 1 / 12)
    assert psf_fwhm(model_of(gaussian(sigma)), 0.0, 0.0) == pytest.approx(expected, rel=0.04)


def test_fwhm_of_a_convolved_psf() -> None:
    kernel = gaussian_pixels(np.arange(-6, 7) * 1.0, np.arange(-6, 7) * 1.0, 1.0)
    assert psf_fwhm(model_of(gaussian(1.2)), 0.0, 0.0, kernel=kernel) == pytest.approx(
        2.3548 * np.sqrt(1.2**2 + 1.0 + 2 / 12), rel=0.04
    )
    assert np.isnan(psf_fwhm(PSFModel.of(np.zeros((1, 41, 41)), 4), 0.0, 0.0))
