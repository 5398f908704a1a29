"""Cosmic rays against injected ones; stars of every width, phase and brightness survive."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import cosmic_rays as benchmark
from ztfxr.arrays.images.cosmic_rays import find_cosmic_rays, neighbor_ratios
from ztfxr.arrays.images.image import Image


@pytest.mark.parametrize("fwhm", benchmark.WIDTHS)
def test_rays_are_found_and_stars_are_kept(fwhm: float) -> None:
    found, lost = benchmark.shares(fwhm, 1)
    assert found[10.0] > 0.7
    assert found[30.0] > 0.85
    assert found[1000.0] > 0.97
    assert lost < 1e-3


def test_noise_and_the_sky_hold_no_rays() -> None:
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:400, :400]
    image = rng.normal(0, 10, (400, 400)) + 0.5 * x + 1e-3 * (y - 200) ** 2
    none = np.zeros(image.shape, dtype=bool)
    assert find_cosmic_rays(Image.of(image, np.full(image.shape, 100.0), none)).sum() <= 1
    assert not find_cosmic_rays(Image.of(np.full(image.shape, 7.0), None, none)).any()


def test_what_is_masked_or_saturated_is_no_ray() -> None:
    rng = np.random.default_rng(1)
    image, bad = rng.normal(100, 5, (80, 80)), np.zeros((80, 80), dtype=bool)
    image[20, 20] = image[40, 40] = image[60, 60] = 3000.0
    bad[20, 20] = True
    found = find_cosmic_rays(Image.of(image, None, bad), saturation=2900.0)
    assert not found.any()
    found = find_cosmic_rays(Image.of(image, None, bad), saturation=1e5)
    assert sorted(zip(*np.nonzero(found), strict=True)) == [(40, 40), (60, 60)]


def test_neighbors_of_a_broad_star_are_as_bright_as_its_center() -> None:
    assert (neighbor_ratios(50.0) > 0.99).all()
    assert (neighbor_ratios(1.5) < 0.45).all()
