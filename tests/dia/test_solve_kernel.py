"""The kernel as data: covariance, cut-outs, and the kernel with errors at any position."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import ztfxr
from tests.arrays.matching.test_match import lopsided_kernel, varying_pair


def labeled(image: np.ndarray, x0: int = 0, y0: int = 0) -> xr.DataArray:
    coords = {"y": np.arange(image.shape[0]) + y0, "x": np.arange(image.shape[1]) + x0}
    return xr.DataArray(image.astype("f4"), dims=("y", "x"), coords=coords, name="sci")


@pytest.fixture(scope="module")
def pair():
    reference, science, coefficients = varying_pair(1)
    noisy = science + np.random.default_rng(4).normal(scale=0.5, size=science.shape)
    return labeled(noisy, 100, 50), labeled(reference, 100, 50), coefficients


@pytest.fixture(scope="module")
def options(pair):
    noise = xr.full_like(pair[0], 0.25)
    return {"variance": noise, "reference_variance": noise * 1e-4, "kernel_size": 5, "background_order": 0}


@pytest.fixture(scope="module")
def solution(pair, options):
    return ztfxr.solve_kernel(pair[0], pair[1], kernel_order=1, **options)


def test_the_kernel_anywhere_is_the_injected_one_within_its_errors(solution, pair):
    found = ztfxr.kernel_at(solution, [105, 220, 335], [55, 160, 265])
    shape = pair[0].shape
    for i, (x, y) in enumerate(((105, 55), (220, 160), (335, 265))):
        u, v = 2 * (x - 100) / (shape[1] - 1) - 1, 2 * (y - 50) / (shape[0] - 1) - 1
        truth = np.tensordot([1, u, v], pair[2], axes=1)
        pull = ((found.kernel[i] - truth) / found.kernel_err[i]).values
        assert np.abs(pull).max() < 6
        assert 0.2 < pull.std() < 2.5
    assert found.kernel_sum.std() < 1e-9
    assert float(found.kernel_sum[0]) == pytest.approx(lopsided_kernel(5).sum(), abs=6 * float(found.kernel_sum_err[0]))


def test_the_center_agrees_with_the_difference(solution, pair, options):
    diff = ztfxr.difference(pair[0], pair[1], kernel_order=1, **options)
    center = ztfxr.kernel_at(solution, 100 + (240 - 1) / 2, 50 + (220 - 1) / 2)
    np.testing.assert_allclose(center.kernel, diff.kernel, rtol=1e-9)
    np.testing.assert_allclose(center.kernel_err, diff.kernel_err, rtol=1e-6)
    assert float(center.kernel_sum_err) == pytest.approx(float(diff.kernel_sum_err), rel=1e-6)
    np.testing.assert_allclose(solution.background_coeff_err, diff.background_coeff_err, rtol=1e-6)


def test_covariance_and_cutouts_are_described(solution):
    n = 24 * 3 + 1 + 1
    assert solution.covariance.shape == (n, n)
    np.testing.assert_allclose(solution.covariance, solution.covariance.values.T, rtol=1e-6, atol=1e-15)
    assert np.linalg.eigvalsh(solution.covariance.values).min() > 0
    assert (solution.parameter_component == -1).sum() == 1
    assert solution.cutout_kept.dtype == bool
    assert float(solution.cutout_x.min()) > 100
    assert float(solution.cutout_chi2.median()) == pytest.approx(1.0, abs=0.1)


def test_it_survives_zarr(solution, tmp_path):
    ztfxr.to_zarr(solution, tmp_path / "kernel.zarr")
    again = ztfxr.open_zarr(tmp_path / "kernel.zarr").load()
    xr.testing.assert_identical(ztfxr.kernel_at(again, 200, 100), ztfxr.kernel_at(solution, 200, 100))


def test_what_cannot_be_solved_is_a_named_error(pair, options):
    with pytest.raises(ztfxr.MatchFailedError, match="too few pixels"):
        ztfxr.solve_kernel(pair[0].where(pair[0].x < 102), pair[1], **options)
    with pytest.raises(ztfxr.InputError, match="takes one image"):
        ztfxr.solve_kernel(pair[0].expand_dims(time=2), pair[1], **options)
    with pytest.raises(ztfxr.InputError, match="scalars or 1-D"):
        ztfxr.kernel_at(ztfxr.solve_kernel(*pair[:2], **options), np.zeros((2, 2)), 0)


@pytest.mark.slow
def test_cutouts_hold_wide_stars(shared: Path) -> None:
    """RISE: stars 4.5 and 5.4 px wide, whose flux ratio in 20 px is 0.94 ± 0.02; by cut-outs of 17 px 0.93 and 0.97."""
    paths = sorted((shared / "data" / "rise").glob("*.gz"))
    sharp, wide = (ztfxr.open_frame(p, camera="rise").load() for p in paths[:2])
    there = ztfxr.solve_kernel(ztfxr.align(wide, sharp), sharp, kernel_order=1)
    assert float(there["kernel_sum"]) == pytest.approx(1 / 0.94, abs=0.03)
    assert there.attrs["convolved"] == "reference"
    assert float(there["chi2"]) < 1.6
