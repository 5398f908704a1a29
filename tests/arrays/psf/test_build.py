"""PSFs built from simulated stars, judged by what they make of the true PSF's flux."""

from __future__ import annotations

from functools import lru_cache, partial

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.arrays.psf._scenes import draw, gaussian_pixels, moffat_pixels
from ztfxr.arrays.no_solution import NoSolutionError
from ztfxr.arrays.psf.build import BuiltPSF, PSFOptions, build_psf
from ztfxr.arrays.psf.model import PSFModel, psf_stamps

Floats = NDArray[np.float64]

SKY, GAIN, SIZE = 5.0, 6.0, 900
CENTER = ((SIZE - 1) / 2, (SIZE - 1) / 2)


def star_pixels(fwhm: float, beta: float = 3.5, ratio: float = 0.9):
    return partial(moffat_pixels, fwhm=fwhm, beta=beta, ratio=ratio)


@lru_cache
def field(fwhm: float, *, n: int = 180, variation: float = 0.0, seed: int = 0, flux: tuple[float, float] = (2e3, 2e5)):
    """Image, variance and truth of stars whose width grows along x and shrinks along y."""
    rng = np.random.default_rng(seed)
    y, x = rng.uniform(5, SIZE - 6, (2, n))
    light = np.exp(rng.uniform(*np.log(flux), n))
    image = np.zeros((SIZE, SIZE))
    for py, px, f in zip(y, x, light, strict=True):
        width = fwhm * (1 + variation * ((px - CENTER[1]) / CENTER[1] - 0.5 * (py - CENTER[0]) / CENTER[0]))
        image += draw_one(image.shape, py, px, f, star_pixels(width))
    noisy = image + rng.normal(size=image.shape) * np.sqrt(SKY**2 + image / GAIN)
    return noisy, SKY**2 + np.maximum(noisy, 0) / GAIN, y, x, light


def draw_one(shape: tuple[int, int], y: float, x: float, flux: float, pixels) -> Floats:
    return draw(shape, np.array([y]), np.array([x]), np.array([flux]), pixels, half=15)


def built(
    image: Floats, variance: Floats, bad: NDArray[np.bool_] | None = None, **options
) -> tuple[BuiltPSF, PSFModel]:
    bad = np.zeros(image.shape, bool) if bad is None else bad
    stars = options.pop("stars", None)
    found = build_psf(image, variance, bad, origin=CENTER, scale=CENTER, options=PSFOptions(**options), stars=stars)
    return found, PSFModel.of(found.values, PSFOptions().oversampling, CENTER, CENTER)


def flux_ratios(model: PSFModel, pixels_at, n: int = 60) -> Floats:
    """Flux of noiseless true stars in units of the truth, by unweighted fits."""
    rng = np.random.default_rng(99)
    y, x = rng.uniform(60, SIZE - 60, (2, n))
    stamps = psf_stamps(model, y, x, size=15)
    offset = np.arange(-7, 8)
    truth = np.array(
        [
            pixels_at(py, px)(offset - (py - np.floor(py + 0.5)), offset - (px - np.floor(px + 0.5)))
            for py, px in zip(y, x, strict=True)
        ]
    )
    return (stamps * truth).sum((1, 2)) / (stamps**2).sum((1, 2)) - 1


@pytest.mark.parametrize("fwhm", [1.3, 2.0, 3.0])
def test_constant_psf(fwhm: float) -> None:
    """Undersampled and well sampled PSFs give fluxes to a few thousandths, without knowing positions or fluxes."""
    image, variance, *_ = field(fwhm)
    found, model = built(image, variance)
    ratios = flux_ratios(model, lambda y, x: star_pixels(fwhm))
    assert abs(ratios.mean()) < 3e-3
    assert ratios.std() < 4e-3
    assert found.n_stars > 50
    assert 0.5 < found.chi2 < 1.2
    assert psf_stamps(model, np.array([450.0]), np.array([450.0])).sum() == pytest.approx(1.0)


def test_varying_psf() -> None:
    image, variance, *_ = field(2.2, variation=0.08)

    def truth(y: float, x: float):
        return star_pixels(2.2 * (1 + 0.08 * ((x - CENTER[1]) / CENTER[1] - 0.5 * (y - CENTER[0]) / CENTER[0])))

    found, model = built(image, variance)
    assert found.order >= 1
    ratios = flux_ratios(model, truth)
    assert abs(ratios.mean()) < 3e-3
    assert ratios.std() < 5e-3
    constant = built(image, variance, order=0)[1]
    assert flux_ratios(constant, truth).std() > 3 * ratios.std()


def test_the_order_is_no_higher_than_the_stars_say() -> None:
    image, variance, *_ = field(2.2, n=100)
    found, _ = built(image, variance)
    assert found.order == 0
    assert not found.values[1:].any()
    assert built(image, variance, order=2)[0].order == 2


def test_the_center_is_the_windowed_centroid() -> None:
    """A lopsided PSF is centered on its core; the position of a round one is that of the stars."""
    image, variance, *_ = field(2.2)
    model = built(image, variance)[1]
    stamp = psf_stamps(model, np.array([450.0]), np.array([450.0]), size=11)[0]
    offset = np.arange(-5, 6)
    window = stamp * np.exp(-0.5 * (offset[:, None] ** 2 + offset[None, :] ** 2) / 1.1**2)
    assert abs((window * offset).sum() / window.sum()) < 0.01
    assert abs((window * offset[:, None]).sum() / window.sum()) < 0.01


def test_outliers_are_left_out() -> None:
    """Cosmic rays, galaxies and bad columns among the stars do not shape the PSF."""
    image, _, y, x, light = field(2.2)
    image, rng = image.copy(), np.random.default_rng(5)
    bad = np.zeros(image.shape, bool)
    hit = rng.choice(len(y), 50, replace=False)
    for s in hit[:25]:
        py, px = np.clip((int(y[s]) + rng.integers(-6, 7), int(x[s]) + rng.integers(-6, 7)), 1, SIZE - 3)
        image[py : py + 2, px] += rng.uniform(500, 5000)
    for s in hit[25:]:
        image += draw_one(image.shape, y[s], x[s] + 0.4, light[s], star_pixels(4.5))
    bad[:, 333], image[:, 333] = True, 3e4
    found, model = built(image, SKY**2 + np.maximum(image, 0) / GAIN, bad)
    assert found.n_rejected > 5
    ratios = flux_ratios(model, lambda y, x: star_pixels(2.2))
    assert abs(ratios.mean()) < 4e-3
    assert ratios.std() < 5e-3


def test_stars_of_ones_own_choice() -> None:
    image, variance, y, x, light = field(2.2)
    some = np.argsort(-light)[:40]
    found, _ = built(image, variance, stars=(y[some], x[some]), order=0)
    assert found.n_stars + found.n_rejected <= 40
    assert found.n_stars > 15


def test_fwhm_and_radius() -> None:
    image, variance, *_ = field(2.5)
    found, _ = built(image, variance, order=0, radius=12)
    assert found.values.shape == (1, 97, 97)
    assert found.fwhm == pytest.approx(2.5 * np.sqrt(0.9) + 0.1, abs=0.15)
    assert found.values[0, 0, 0] == 0
    offset = (np.arange(97) - 48) / 4
    assert np.all(found.values[0][np.hypot(offset[:, None], offset[None, :]) > 12] == 0)


@pytest.mark.parametrize("what", ["no stars", "two stars", "all bad", "small", "nan"])
def test_what_cannot_be_built_says_so(what: str) -> None:
    rng = np.random.default_rng(6)
    image = rng.normal(0, SKY, (400, 400))
    bad = np.zeros(image.shape, bool)
    if what == "two stars":
        for y, x in ((100.0, 120.0), (300.0, 310.0)):
            image += draw_one(image.shape, y, x, 1e5, partial(gaussian_pixels, sigma=1.0))
    if what == "all bad":
        bad[:] = True
    if what == "small":
        image, bad = image[:20, :20], bad[:20, :20]
    if what == "nan":
        image[:], bad[:] = np.nan, True
    with pytest.raises(NoSolutionError, match="too_few_pixels"):
        built(image, np.full(image.shape, SKY**2), bad)
