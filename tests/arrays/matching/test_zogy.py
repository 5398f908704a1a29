"""Proper subtraction against the paper's formulae, injected truth, its own errors and its symmetries."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ztfxr.arrays.images.image import Image
from ztfxr.arrays.matching.decorrelate import decorrelated
from ztfxr.arrays.matching.zogy import PSFImage, proper_subtraction, register
from ztfxr.arrays.no_solution import NoSolutionError

SHAPE = (150, 162)
WIDE, SHARP = {"fwhm": 2.7, "e": 0.06}, {"fwhm": 2.1}
CLEAR = np.zeros(SHAPE, bool)


def psf_image(pixels, variance, bad, psf, **known):
    return PSFImage.of(Image.of(pixels, variance, bad), psf, **known)


def profile(y, x, fwhm=2.4, e=0.0):
    s = fwhm / 2.3548
    return np.exp(-(x**2 / (1 + e) ** 2 + y**2 / (1 - e) ** 2) / 2 / s**2) / (2 * np.pi * s**2 * (1 - e * e))


def stamp(size=21, **shape):
    y, x = np.mgrid[:size, :size] - size // 2
    return profile(y, x, **shape)


def sky(positions, fluxes, **shape):
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    return sum(
        (f * profile(y - p[0], x - p[1], **shape) for p, f in zip(positions, fluxes, strict=True)), np.zeros(SHAPE)
    )


def stars(seed, n=50):
    rng = np.random.default_rng(seed)
    return rng.uniform(0, SHAPE, (n, 2)), 10 ** rng.uniform(2.5, 4.5, n)


def observe(model, seed, sky_variance, gain=np.inf):
    variance = sky_variance + np.maximum(model, 0) / gain
    return model + np.random.default_rng(seed).normal(size=SHAPE) * np.sqrt(variance), variance


def exposures(seed=0, scale=1.15, extra=0.0, gain=np.inf, sky_variance=(25.0, 9.0), shift=(0.0, 0.0)):
    """A new image and a reference, with the flux scale new over reference, of the same stars."""
    positions, fluxes = stars(seed)
    new = observe(
        sky(positions + np.array(shift), scale * fluxes, **WIDE) + extra, 2 * seed + 1000, sky_variance[0], gain
    )
    old = observe(sky(positions, fluxes, **SHARP), 2 * seed + 1001, sky_variance[1], gain)
    return psf_image(*new, CLEAR, stamp(**WIDE)), psf_image(*old, CLEAR, stamp(**SHARP), flux=1 / scale)


def correlation(image, lag):
    horizontal, vertical = image[:, lag:] * image[:, :-lag], image[lag:] * image[:-lag]
    return np.nanmean([np.nanmean(horizontal), np.nanmean(vertical)]) / np.nanvar(image)


def oracle(new, old):
    """Eq. 13, 14, 15 and 12 of the paper as written, on a periodic grid."""
    p_n, p_r = np.zeros(SHAPE), np.zeros(SHAPE)
    for full, psf in ((p_n, new.psf), (p_r, old.psf)):
        full[: psf.shape[0], : psf.shape[1]] = psf
    half = len(new.psf) // 2
    p_n, p_r = (np.fft.fft2(np.roll(p, (-half, -half), (0, 1))) for p in (p_n, p_r))
    n, r = np.fft.fft2(new.pixels.astype(float)), np.fft.fft2(old.pixels.astype(float))
    f_n, f_r, s_n, s_r = new.flux, old.flux, new.sigma, old.sigma
    root = np.sqrt(s_n**2 * f_r**2 * np.abs(p_r) ** 2 + s_r**2 * f_n**2 * np.abs(p_n) ** 2)
    d = (f_r * p_r * n - f_n * p_n * r) / root
    f_d = f_r * f_n / np.sqrt(s_n**2 * f_r**2 + s_r**2 * f_n**2)
    p_d = f_r * f_n * p_r * p_n / (f_d * root)
    return np.fft.ifft2(d).real, np.fft.ifft2(p_d).real, f_d, np.fft.ifft2(f_d * d * np.conj(p_d)).real


def test_it_is_the_formulae_of_the_paper():
    new, old = exposures(1)
    got = proper_subtraction(new, old)
    d, p_d, f_d, score = oracle(new, old)
    inner = np.s_[25:-25, 25:-25]
    np.testing.assert_allclose(got.difference[inner], d[inner], atol=2e-3)
    np.testing.assert_allclose(got.flux[inner] * f_d**2 * (p_d**2).sum(), score[inner], atol=2e-3 * score.std())
    np.testing.assert_allclose(got.psf, np.roll(p_d, (10, 10), (0, 1))[:21, :21], atol=1e-6)
    assert got.flux_scale == pytest.approx(f_d)
    assert got.psf.sum() == pytest.approx(1.0, abs=2e-3)


def test_noise_is_white_and_of_unit_variance():
    values = []
    for seed in range(6):
        noise = [observe(np.zeros(SHAPE), 10 * seed + i, v) for i, v in enumerate((25.0, 9.0))]
        new = psf_image(*noise[0], CLEAR, stamp(**WIDE))
        values.append(proper_subtraction(new, psf_image(*noise[1], CLEAR, stamp(**SHARP), flux=0.8)))
    difference = np.concatenate([v.difference for v in values])
    assert np.nanstd(difference) == pytest.approx(1.0, abs=0.01)
    assert max(abs(correlation(difference, lag)) for lag in (1, 2, 3)) < 0.01
    assert np.nanstd([v.score for v in values]) == pytest.approx(1.0, abs=0.03)
    np.testing.assert_allclose(values[0].variance[~values[0].bad], 1.0, rtol=1e-3)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_an_injected_flux_is_recovered_with_an_honest_error(sign):
    places = np.array([(y, x) for y in range(20, 140, 22) for x in range(20, 150, 22)])
    flux, pulls, fluxes, of_difference = 1500.0, [], [], []
    for seed in range(5):
        new, old = exposures(seed, extra=sky(places, np.full(len(places), flux), **WIDE), gain=5.0)
        if sign < 0:
            new, old = replace(old, flux=1.0), replace(new, flux=old.flux**-1)
        got = proper_subtraction(new, old)
        scale = flux if sign > 0 else -flux * new.flux / old.flux
        fluxes.append(got.flux[tuple(places.T)] / scale)
        pulls.append((got.flux - scale)[tuple(places.T)] / got.flux_err[tuple(places.T)])
        windows = [np.s_[y - 8 : y + 9, x - 8 : x + 9] for y, x in places]
        psf = got.psf[2:-2, 2:-2]
        of_difference += [(got.difference[w] * psf).sum() / (psf**2).sum() / got.flux_scale / scale for w in windows]
    assert np.mean(fluxes) == pytest.approx(1.0, abs=0.01)
    assert np.mean(of_difference) == pytest.approx(1.0, abs=0.01)
    assert np.std(pulls) == pytest.approx(1.0, abs=0.12)
    assert abs(np.mean(pulls)) < 0.3


def test_the_score_is_the_flux_over_its_error_and_stars_do_not_exceed_it():
    new, old = exposures(7, gain=5.0)
    got = proper_subtraction(new, old)
    good = ~got.score_bad
    np.testing.assert_allclose(got.score[good], (got.flux / got.flux_err)[good], rtol=1e-4)
    assert got.score[good].std() == pytest.approx(1.0, abs=0.04)
    assert np.abs(got.score[good]).max() < 5.5


def test_swapping_the_images_changes_the_sign_alone():
    new, old = exposures(2, gain=5.0)
    one, other = proper_subtraction(new, old), proper_subtraction(old, new)
    np.testing.assert_allclose(other.difference, -one.difference, atol=1e-4)
    np.testing.assert_allclose(other.score, -one.score, atol=1e-3)
    np.testing.assert_allclose(other.psf, one.psf, atol=1e-9)
    np.testing.assert_array_equal(other.bad, one.bad)


def test_a_transposed_problem_has_the_transposed_result():
    new, old = exposures(3)
    flipped = (
        replace(e, pixels=e.pixels.T, variance=e.variance.T, bad=e.bad.T, psf=e.psf.T.copy()) for e in (new, old)
    )
    one, other = proper_subtraction(new, old), proper_subtraction(*flipped)
    np.testing.assert_allclose(other.difference.T, one.difference, atol=1e-4)
    np.testing.assert_allclose(other.score.T, one.score, atol=1e-3)


@given(factor=st.floats(0.05, 50))
@settings(max_examples=6)
def test_the_unit_of_an_image_does_not_matter(factor):
    new, old = exposures(4)
    scaled = replace(
        old,
        pixels=old.pixels * np.float32(factor),
        variance=old.variance * np.float32(factor**2),
        sigma=old.sigma * factor,
        flux=old.flux * factor,
    )
    one, other = proper_subtraction(new, old), proper_subtraction(new, scaled)
    np.testing.assert_allclose(other.difference, one.difference, atol=5e-3)
    np.testing.assert_allclose(other.flux, one.flux, atol=0.05)


def test_junk_under_the_masks_never_leaks():
    new, old = exposures(5)
    bad, hole = CLEAR.copy(), CLEAR.copy()
    bad[40:44, 60:69] = True
    hole[100, 30] = True
    results = []
    for junk in (0.0, 1e7, np.nan, -np.inf):
        pair = [
            psf_image(np.where(m, np.float32(junk), e.pixels), e.variance, m, e.psf, flux=e.flux)
            for e, m in ((new, bad), (old, hole))
        ]
        results.append(proper_subtraction(*pair))
    for other in results[1:]:
        np.testing.assert_array_equal(other.difference, results[0].difference)
        np.testing.assert_array_equal(other.score, results[0].score)
    got, clean = results[0], proper_subtraction(new, old)
    assert got.bad[bad].all()
    assert got.bad[hole].all()
    assert np.isfinite(got.difference).all(where=~got.bad)
    assert np.isnan(got.difference[got.bad]).all()
    assert np.isnan(got.score[got.score_bad]).all()
    assert np.abs(got.difference - clean.difference)[~got.bad].max() < 0.5
    assert np.nanmax(np.abs(got.score)) < 6


def test_an_astrometric_error_lessens_the_significance_of_dipoles_only():
    new, old = exposures(6, shift=(0.12, -0.1))
    plain = proper_subtraction(new, old)
    corrected = proper_subtraction(new, old, astrometric_error=(0.0, 0.15))
    assert np.nanmax(np.abs(plain.score)) > 2.5 * np.nanmax(np.abs(corrected.score))
    np.testing.assert_array_equal(plain.difference, corrected.difference)
    transient = sky([(75, 80)], [4000.0], **WIDE)
    added = replace(new, pixels=(new.pixels + transient).astype(np.float32))
    gain = proper_subtraction(added, old, astrometric_error=(0.0, 0.15)).flux_err[75, 80] / corrected.flux_err[75, 80]
    assert gain == pytest.approx(1.0, abs=1e-3)


def test_scale_and_shift_are_measured_on_the_stars():
    new, old = exposures(8, scale=1.3, shift=(0.35, -0.6), gain=5.0)
    found = register(new, replace(old, flux=1.0))
    assert found.scale == pytest.approx(1.3, abs=4 * found.scale_err)
    assert found.scale_err < 0.01
    np.testing.assert_allclose(found.shift, (0.35, -0.6), atol=0.01)
    assert found.jitter < 0.01
    got = proper_subtraction(new, old, shift=found.shift)
    assert got.score[~got.score_bad].std() == pytest.approx(1.0, abs=0.06)


def test_the_scatter_of_star_positions_is_the_jitter():
    positions, fluxes = stars(9, 90)
    moved = positions + np.random.default_rng(1).normal(scale=0.1, size=positions.shape)
    new = psf_image(*observe(sky(moved, 10 * fluxes, **WIDE), 5, 25.0), CLEAR, stamp(**WIDE))
    old = psf_image(*observe(sky(positions, 10 * fluxes, **SHARP), 6, 9.0), CLEAR, stamp(**SHARP))
    assert register(new, old).jitter == pytest.approx(0.1, rel=0.35)


def test_without_a_variance_the_noise_of_the_sky_is_measured():
    new, old = exposures(10)
    measured = psf_image(new.pixels, None, CLEAR, new.psf)
    assert measured.sigma == pytest.approx(5.0, rel=0.2)
    assert proper_subtraction(measured, old).flux_scale == pytest.approx(
        proper_subtraction(new, old).flux_scale, rel=0.2
    )


def test_psfs_that_a_kernel_connects_give_the_decorrelated_difference():
    """D / F_D with P_n = P_r ⊗ K is the whitened N - K ⊗ R, by another road."""
    rng = np.random.default_rng(11)
    y, x = np.mgrid[:9, :9] - 4
    kernel = 1.2 * profile(y, x, fwhm=1.9) / profile(y, x, fwhm=1.9).sum()
    old = rng.normal(scale=3, size=SHAPE)
    new = rng.normal(scale=5, size=SHAPE)
    padded = np.fft.irfft2(
        np.fft.rfft2(stamp(fwhm=1.8), s=(41, 41)) * np.fft.rfft2(kernel / kernel.sum(), s=(41, 41)), s=(41, 41)
    )
    first = psf_image(new, np.full(SHAPE, 25.0), CLEAR, padded[4:25, 4:25])
    second = psf_image(old, np.full(SHAPE, 9.0), CLEAR, stamp(fwhm=1.8), flux=1 / 1.2)
    proper = proper_subtraction(first, second)
    model = np.fft.irfft2(
        np.fft.rfft2(old) * np.fft.rfft2(np.roll(np.pad(kernel, ((0, 141), (0, 153))), (-4, -4), (0, 1))), s=SHAPE
    )
    variance = np.full(SHAPE, 25 + 9 * (kernel**2).sum())
    white = decorrelated(new - model, variance, CLEAR, kernel[None], ratio=9 / 25, size=21)
    inner = np.s_[25:-25, 25:-25]
    np.testing.assert_allclose((proper.difference / proper.flux_scale)[inner], white.difference[inner], atol=0.02)


def cut(image):
    return replace(image, **{name: getattr(image, name)[:20, :20] for name in ("pixels", "variance", "bad")})


@pytest.mark.parametrize(
    "attempt",
    [
        lambda new, old: psf_image(new.pixels, None, ~CLEAR, new.psf),
        lambda new, old: register(new, replace(old, pixels=np.zeros_like(old.pixels))),
        lambda new, old: register(cut(new), cut(old)),
    ],
)
def test_hopeless_images_have_a_status(attempt):
    new, old = exposures(12)
    with pytest.raises(NoSolutionError, match="too_few_pixels"):
        attempt(new, old)
