"""The PSF of a whole image against the truth: shape, flux, center, junk and neighbors."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from ztfxr.arrays.no_solution import NoSolutionError
from ztfxr.arrays.psf.build import constant_psf

SHAPE = (260, 250)
SKY, NOISE = 40.0, 3.0


def psf_of(image, bad, size=25):
    variance = np.full(image.shape, NOISE**2)
    return constant_psf(image - SKY, variance, bad, size=size)


def moffat(y, x, fwhm=2.6, q=0.9, beta=3.5):
    r2 = (x * q) ** 2 + (y / q) ** 2
    return (1 + r2 * 4 * (2 ** (1 / beta) - 1) / fwhm**2) ** -beta


def truth(size=25, **shape):
    y, x = np.mgrid[:size, :size] - size // 2
    psf = moffat(y, x, **shape)
    return psf / psf.sum()


def field(seed=0, n=60, sigma=NOISE, low=3.3, high=4.8, **shape):
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    norm = truth(101, **shape).max()
    image = np.full(SHAPE, SKY)
    for cy, cx, f in zip(
        rng.uniform(0, SHAPE[0], n), rng.uniform(0, SHAPE[1], n), 10 ** rng.uniform(low, high, n), strict=True
    ):
        image += f * norm * moffat(y - cy, x - cx, **shape)
    return image + rng.normal(scale=sigma, size=SHAPE)


@pytest.mark.parametrize("shape", [{"fwhm": 2.6}, {"fwhm": 2.2, "q": 1.0, "beta": 4.5}, {"fwhm": 4.0, "q": 1.1}])
def test_the_psf_is_recovered_and_measures_flux_within_a_percent(shape):
    size = 35 if shape["fwhm"] > 3 else 25
    expected = truth(size, **shape)
    psf = psf_of(field(1, **shape), np.zeros(SHAPE, bool), size=size)
    assert psf.shape == (size, size)
    assert psf.sum() == pytest.approx(1.0)
    assert np.abs(psf - expected).max() < 0.02 * expected.max()
    assert (psf * expected).sum() / (psf**2).sum() == pytest.approx(1.0, abs=0.01)


def test_it_is_centered_and_ends_at_zero():
    psf = psf_of(field(2), np.zeros(SHAPE, bool), size=21)
    center = np.array(ndimage.center_of_mass(np.where(psf > 0.1 * psf.max(), psf, 0)))
    np.testing.assert_allclose(center, 10, atol=0.02)
    assert max(np.abs(psf[0]).max(), np.abs(psf[:, -1]).max()) < 1e-4 * psf.max()


def test_junk_under_the_mask_never_enters():
    image = field(3)
    bad = np.random.default_rng(0).uniform(size=SHAPE) < 0.01
    one = psf_of(np.where(bad, 0.0, image), bad)
    np.testing.assert_array_equal(psf_of(np.where(bad, 6e4, image), bad), one)
    assert np.abs(one - truth()).max() < 0.02 * truth().max()


def test_galaxies_among_the_stars_are_left_out():
    image = field(4)
    extended = field(5, n=12, sigma=0.0, fwhm=7.0) - SKY
    psf = psf_of(image + extended, np.zeros(SHAPE, bool))
    assert np.abs(psf - truth()).max() < 0.03 * truth().max()


@pytest.mark.parametrize(
    "image",
    [np.zeros(SHAPE), np.random.default_rng(0).normal(size=SHAPE), np.random.default_rng(0).normal(size=(20, 20))],
)
def test_too_few_stars_have_a_status(image):
    with pytest.raises(NoSolutionError, match="too_few_pixels"):
        psf_of(image, np.zeros(image.shape, bool))
