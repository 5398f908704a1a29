"""Which stars teach the PSF."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.arrays.psf._scenes import draw, gaussian_pixels
from ztfxr.arrays.images.stars import find_peaks
from ztfxr.arrays.psf.stars import select_stars, star_windows

NOISE, FWHM = 2.0, 2.5


def field(y: list[float], x: list[float], flux: list[float], shape: tuple[int, int] = (120, 120), seed: int = 0):
    pixels = partial(gaussian_pixels, sigma=FWHM / 2.3548)
    image = draw(shape, np.array(y), np.array(x), np.array(flux), pixels)
    image += np.random.default_rng(seed).normal(0, NOISE, shape)
    return image, np.zeros(shape, bool)


def select(image: NDArray, bad: NDArray, **options) -> set[tuple[int, int]]:
    settings = {"radius": 14, "min_snr": 20.0, "saturation": np.inf, "maximum": 300} | options
    y, x = select_stars(find_peaks(image, bad, NOISE), bad, noise=NOISE, fwhm=FWHM, **settings)
    return set(zip(y.tolist(), x.tolist(), strict=True))


def test_peaks_are_where_the_stars_are() -> None:
    image, bad = field([30.0, 60.0, 90.0], [40.0, 20.0, 100.0], [1e3, 100.0, 1e4])
    peaks = find_peaks(image, bad, NOISE)
    assert set(zip(peaks.y.tolist(), peaks.x.tolist(), strict=True)) == {(30, 40), (60, 20), (90, 100)}
    brightest = np.argmax(peaks.height)
    assert peaks.height[brightest] == pytest.approx(image[90, 100], rel=1e-5)


def test_noise_has_few_peaks() -> None:
    image, bad = field([], [], [], shape=(1000, 1000))
    assert len(find_peaks(image, bad, NOISE).y) < 5


def test_flat_tops_are_one_peak() -> None:
    image = np.zeros((40, 40))
    image[18:24, 18:24] = 1000.0
    assert len(find_peaks(image, np.zeros((40, 40), bool), NOISE).y) == 1


def test_bad_pixels_are_no_peaks() -> None:
    image, bad = field([60.0], [60.0], [1e4])
    bad[30, 30], image[30, 30] = True, np.nan
    assert set(
        zip(*(p.tolist() for p in (find_peaks(image, bad, NOISE).y, find_peaks(image, bad, NOISE).x)), strict=True)
    ) == {(60, 60)}


def test_selection() -> None:
    """Only the first is alone, unsaturated, bright, with a good core and away from the edge."""
    y = [30.0, 30.0, 34.0, 85.0, 85.0, 60.0, 8.0]
    x = [30.0, 85.0, 87.0, 30.0, 85.0, 60.0, 60.0]
    image, bad = field(y, x, [1e4, 1e4, 3e3, 1e6, 300.0, 1e4, 1e4])
    bad[61, 60] = True
    assert select(image, bad, saturation=5e4) == {(30, 30)}
    assert select(image, bad) == {(30, 30), (85, 30)}


def test_crowded_fields_take_what_they_get() -> None:
    """Where fewer than 30 stars stand alone, a neighbor of a few per cent is accepted."""
    image, bad = field([60.0, 60.0], [60.0, 66.0], [1e4, 500.0])
    assert (60, 60) in select(image, bad)
    image, bad = field([60.0, 60.0], [60.0, 66.0], [1e4, 3000.0])
    assert (60, 60) not in select(image, bad)


def test_stars_are_spread_over_the_frame() -> None:
    """A crowded corner does not take all the places."""
    rng = np.random.default_rng(2)
    corner = [(20 + 12 * i, 20 + 12 * j) for i in range(8) for j in range(8)]
    sparse = [(20 + 60 * i, 200 + 60 * j) for i in range(6) for j in range(3)]
    y, x = (np.array(v, dtype=float) for v in zip(*corner, *sparse, strict=True))
    flux = np.r_[rng.uniform(2e4, 3e4, len(corner)), rng.uniform(5e3, 6e3, len(sparse))]
    image, bad = field(y.tolist(), x.tolist(), flux.tolist(), shape=(360, 360))
    chosen = select(image, bad, maximum=30)
    assert len(chosen) == 30
    assert sum(x > 150 for _, x in chosen) >= 15


def test_windows_hold_one_star() -> None:
    image, bad = field([60.0, 60.0], [60.0, 72.0], [1e4, 2e3])
    bad[50, 60] = True
    peaks = find_peaks(image, bad, NOISE)
    windows = star_windows(
        image,
        np.full(image.shape, NOISE**2),
        bad,
        np.array([60]),
        np.array([60]),
        peaks=peaks,
        half=16,
        noise=NOISE,
        fwhm=FWHM,
    )
    assert windows.half == 16
    good = windows.good[0]
    assert not good[6, 16]
    assert not good[14:19, 26:31].any()
    assert good[10:23, 10:22].all()
    assert windows.data[0][good].max() == pytest.approx(image[60, 60] / NOISE)
    assert np.all(windows.variance[0][good] == 1.0)
    assert np.all(windows.data[0][~good] == 0)
    assert np.all(np.isinf(windows.variance[0][~good]))


def test_the_noise_of_a_bright_star_is_no_neighbor() -> None:
    image, bad = field([60.0], [60.0], [1e6])
    rng = np.random.default_rng(3)
    image += rng.normal(size=image.shape) * np.sqrt(np.maximum(image, 0) / 2)
    windows = star_windows(
        image,
        np.full(image.shape, NOISE**2),
        bad,
        np.array([60]),
        np.array([60]),
        peaks=find_peaks(image, bad, NOISE),
        half=14,
        noise=NOISE,
        fwhm=FWHM,
    )
    assert windows.good[0][8:21, 8:21].all()


def test_windows_that_are_mostly_bad_are_left_out() -> None:
    image, bad = field([60.0, 40.0], [60.0, 60.0], [1e4, 1e4])
    bad[62:] = True
    y, x = np.array([60, 40]), np.array([60, 60])
    windows = star_windows(
        image, np.ones(image.shape), bad, y, x, peaks=find_peaks(image, bad, NOISE), half=14, noise=NOISE, fwhm=FWHM
    )
    assert windows.y.tolist() == [40]
    assert len(windows.take(np.array([], dtype=int))) == 0
