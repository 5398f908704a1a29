"""Judging difference images: what is measured on simulated pulls with a known flaw."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import xarray as xr

from ztfxr.dia.quality import block_means, difference_quality
from ztfxr.errors import ChunkError, InputError

NT, NY, NX = 6, 100, 130


def make_diff(**changes: Any) -> xr.Dataset:
    """Six epochs of pure noise with the right variance."""
    rng = np.random.default_rng(0)
    variance = rng.uniform(4, 9, (NT, NY, NX))
    pixels = rng.normal(size=variance.shape) * np.sqrt(variance)
    pixels[:, :5], variance[:, :5] = np.nan, np.nan
    data = {
        "difference": (("time", "y", "x"), pixels.astype(np.float32)),
        "difference_variance": (("time", "y", "x"), variance.astype(np.float32)),
        "kernel_sum": ("time", 1 + 0.002 * rng.normal(size=NT)),
        "lost_fraction": ("time", np.full(NT, 0.05)),
        "epoch_status": ("time", np.zeros(NT, np.uint32)),
    }
    return xr.Dataset(data, {"y": np.arange(NY) + 1000, "x": np.arange(NX) + 500}).assign(changes)


def test_a_right_difference_is_good() -> None:
    out = difference_quality(make_diff())
    np.testing.assert_allclose(out.noise_ratio, 1, atol=0.03)
    assert out.chi2_map.dims == ("time", "block_y", "block_x")
    assert out.chi2_map.shape == (NT, 3, 4)
    np.testing.assert_allclose(out.chi2_map, 1, atol=0.2)
    assert out.block_y.values.tolist() == [1016, 1049, 1082.5]
    assert out.block_x.values[0] == 515.5
    assert out.good.all()
    assert float(out.kernel_sum_scatter) < 0.006
    assert out.good.dtype == bool
    assert out.noise_ratio.attrs["long_name"]


def test_each_flaw_is_seen() -> None:
    diff = make_diff()
    diff["difference"][0] *= 1.5
    diff["difference"][1, 40:70, 30:90] += 20
    diff["difference"][1, 80:, :] += 20
    diff["lost_fraction"][2] = 0.7
    diff["epoch_status"][3] = 1 << 9
    diff["kernel_sum"][4] = 1.3
    out = difference_quality(diff)
    assert out.good.values.tolist() == [False, False, False, False, False, True]
    assert float(out.noise_ratio[0]) == pytest.approx(1.5, abs=0.03)
    assert out.chi2_high.values[1] > 10
    assert float(out.kernel_sum_deviation[4]) == pytest.approx(0.3, abs=0.01)
    loose = difference_quality(diff, noise_ratio=(0.5, 10), max_chi2=1e4, max_lost=1, max_deviation=1)
    assert loose.good.values.tolist() == [True, True, True, False, True, True]


def test_transparency_that_the_zero_points_know_is_no_flaw() -> None:
    through = np.array([1, 0.7, 0.9, 1.1, 0.6, 1.0])
    diff = make_diff()
    diff["kernel_sum"] = diff.kernel_sum * through
    assert not difference_quality(diff).good.all() or float(difference_quality(diff).kernel_sum_scatter) > 0.1
    zp = xr.DataArray(26 + 2.5 * np.log10(through), dims="time")
    known = difference_quality(diff.assign_coords(magzp=zp))
    assert float(known.kernel_sum_scatter) < 0.006
    assert known.good.all()


def test_a_convolved_science_image_has_the_inverse_kernel_sum() -> None:
    diff = make_diff()
    diff["kernel_sum"] = diff.kernel_sum * 1.5
    diff["kernel_sum"][2] = 1 / 1.5
    assert not difference_quality(diff).good[2]
    convolved = xr.DataArray(np.arange(NT) == 2, dims="time")
    assert difference_quality(diff.assign(science_convolved=convolved)).good.all()


def test_an_epoch_without_a_solution_is_not_good() -> None:
    diff = make_diff()
    diff["difference"][2], diff["kernel_sum"][2] = np.nan, np.nan
    out = difference_quality(diff)
    assert np.isnan(out.noise_ratio[2])
    assert np.isnan(out.chi2_map[2]).all()
    assert out.good.values.tolist() == [True, True, False, True, True, True]


def test_one_epoch_and_a_bare_dataset() -> None:
    one = difference_quality(make_diff().isel(time=0))
    assert one.chi2_map.dims == ("block_y", "block_x")
    assert one.good.ndim == 0
    assert bool(one.good)
    assert "kernel_sum_scatter" not in one
    assert "kernel_sum_deviation" not in difference_quality(make_diff().isel(time=slice(0, 3)))
    assert difference_quality(make_diff()[["difference", "difference_variance"]]).good.all()


def test_blocks_of_any_shape() -> None:
    image = np.arange(30.0).reshape(5, 6)
    image[:2, :3], image[4, 5] = np.nan, np.nan
    means = block_means(image, (2, 2))
    assert np.isnan(means[0, 0])
    assert means[1, 1] == np.nanmean(image[2:, 3:])
    assert block_means(image, (1, 1))[0, 0] == np.nanmean(image)


def test_dask_equals_numpy_and_stays_lazy(raising_scheduler: Any) -> None:
    lazy = difference_quality(make_diff().chunk(time=1))
    with pytest.raises(AssertionError, match="stayed lazy"):
        lazy.good.compute()
    xr.testing.assert_allclose(lazy.compute(scheduler="synchronous"), difference_quality(make_diff()))
    with pytest.raises(ChunkError, match="along 'y'"):
        difference_quality(make_diff().chunk(y=50))


def test_unusable_arguments() -> None:
    with pytest.raises(InputError, match="no variable 'difference'"):
        difference_quality(xr.Dataset())
    with pytest.raises(InputError, match="block_size is at least 1"):
        difference_quality(make_diff(), block_size=0)
