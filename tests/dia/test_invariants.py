"""What must hold of every difference image, over shapes, seeds, masks, chunkings and schedulers."""

from __future__ import annotations

import dask
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import signal

import ztfxr
from ztfxr.schema import STATUS_PLANES

STATUS = {p.name: p.value for p in STATUS_PLANES}
SHAPES = st.tuples(st.integers(44, 70), st.integers(44, 70))
SEEDS = st.integers(0, 1000)
NOISE, SIZE = 2.0, 5


def _kernel(rng: np.random.Generator, size: int = SIZE) -> np.ndarray:
    u = np.arange(size) - size // 2
    dy, dx = rng.uniform(-0.4, 0.4, 2)
    kernel = np.exp(-((u[:, None] - dy) ** 2) / 1.5 - (u[None, :] - dx) ** 2 / 1.1) * rng.uniform(
        0.8, 1.2, (size, size)
    )
    return kernel / kernel.sum() * rng.uniform(0.7, 1.4)


def _pair(seed: int, shape: tuple[int, int], n_epochs: int = 1) -> tuple[xr.DataArray, xr.DataArray, np.ndarray]:
    """A stack, its reference without noise, and the kernel between them."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: shape[0], : shape[1]]
    reference = np.full(shape, 100.0)
    for _ in range(shape[0] * shape[1] // 70):
        cy, cx, flux = rng.uniform(0, shape[0]), rng.uniform(0, shape[1]), rng.uniform(100, 3000)
        reference += flux * np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / 2.0)
    reference = reference.astype("f4")
    kernel = _kernel(rng)
    model = signal.convolve2d(reference, kernel, mode="same") + 7.0
    stack = model + rng.normal(scale=NOISE, size=(n_epochs, *shape))
    dims = ("time", "y", "x")
    return xr.DataArray(stack.astype("f4"), dims=dims), xr.DataArray(reference, dims=dims[1:]), kernel


def _difference(science: xr.DataArray, reference: xr.DataArray, **options: object) -> xr.Dataset:
    known = {"variance": xr.full_like(science, NOISE**2), "reference_variance": xr.full_like(reference, 1e-6)}
    return ztfxr.difference(science, reference, kernel_size=SIZE, background_order=0, **{**known, **options})  # type: ignore[arg-type]


@given(seed=SEEDS, shape=SHAPES)
@settings(max_examples=12)
def test_an_injected_kernel_is_recovered_within_its_errors(seed, shape):
    science, reference, kernel = _pair(seed, shape)
    found = _difference(science, reference).isel(time=0)
    pull = (found["kernel"].values - kernel) / found["kernel_err"].values
    assert np.abs(pull).max() < 5.0
    assert 0.4 < np.sqrt(np.mean(pull**2)) < 1.9
    assert abs(float(found["kernel_sum"]) - kernel.sum()) < 5.0 * float(found["kernel_sum_err"])


@given(seed=SEEDS, factor=st.sampled_from([1e-3, 0.5, 7.0, 1e4]))
@settings(max_examples=10)
def test_flux_scales_linearly(seed, factor):
    science, reference, _ = _pair(seed, (50, 61))
    one = _difference(science, reference)
    many = _difference(factor * science, reference, variance=xr.full_like(science, NOISE**2 * factor**2))
    for name, power in (("difference", 1), ("kernel", 1), ("kernel_err", 1), ("difference_variance", 2)):
        rounding = 1e-6 * float(science.max() if name == "difference" else np.nanmax(one[name]))
        np.testing.assert_allclose(many[name] / factor**power, one[name], rtol=1e-4, atol=rounding)


@given(seed=SEEDS, shape=SHAPES)
@settings(max_examples=10)
def test_a_transposed_problem_has_the_transposed_answer(seed, shape):
    science, reference, _ = _pair(seed, shape)
    plain = _difference(science, reference)
    turned = {"time": "time", "y": "x", "x": "y"}
    other = _difference(
        science.rename(turned).transpose("time", "y", "x"),
        reference.rename({"y": "x", "x": "y"}).transpose("y", "x"),
        variance=xr.full_like(science, NOISE**2).rename(turned).transpose("time", "y", "x"),
        reference_variance=xr.full_like(reference, 1e-6).rename({"y": "x", "x": "y"}).transpose("y", "x"),
    )
    np.testing.assert_allclose(other["kernel"].values.transpose(0, 2, 1), plain["kernel"].values, atol=1e-7)
    np.testing.assert_allclose(
        other["difference"].values.transpose(0, 2, 1), plain["difference"].values, atol=1e-2 * NOISE
    )


@given(seed=SEEDS, junk=st.sampled_from([np.nan, np.inf, -np.inf, 3e38, -400.0]), lost=st.floats(0.001, 0.03))
@settings(max_examples=15)
def test_what_is_under_a_mask_never_leaks(seed, junk, lost):
    science, reference, _ = _pair(seed, (52, 57))
    rng = np.random.default_rng(seed + 1)
    bad = xr.DataArray(rng.random(reference.shape) < lost, dims=("y", "x"))
    worse = xr.DataArray(rng.random(reference.shape) < lost / 5, dims=("y", "x"))
    options = {"mask": bad, "reference_mask": worse}
    clean = _difference(science, reference, **options)
    spoiled = _difference(science.where(~bad, junk), reference.where(~worse, junk), **options)
    xr.testing.assert_identical(spoiled, clean)
    assert bool(clean["difference"].where(bad).isnull().all())


@given(
    seed=SEEDS, chunks=st.sampled_from([1, 2, (1, 3), (3, 1)]), scheduler=st.sampled_from(["synchronous", "threads"])
)
@settings(max_examples=10)
def test_neither_chunks_nor_threads_change_anything(seed, chunks, scheduler):
    science, reference, _ = _pair(seed, (45, 50), n_epochs=4)
    with dask.config.set(scheduler=scheduler, num_workers=3):
        found = _difference(science.chunk(time=chunks), reference).compute()
    xr.testing.assert_identical(found, _difference(science, reference))


@pytest.mark.slow
def test_processes_change_nothing():
    science, reference, _ = _pair(3, (45, 50), n_epochs=3)
    with dask.config.set(scheduler="processes", num_workers=2):
        found = _difference(science.chunk(time=1), reference).compute()
    xr.testing.assert_identical(found, _difference(science, reference))


def test_an_even_kernel_is_refused_with_the_next_odd_one():
    science, reference, _ = _pair(1, (45, 50))
    with pytest.raises(ztfxr.InputError, match=r"kernel_size must be odd.*got 6: use 7"):
        ztfxr.difference(science, reference, kernel_size=6)


def test_a_fully_masked_epoch_has_a_status_and_the_others_their_values():
    science, reference, _ = _pair(2, (45, 50), n_epochs=3)
    spoiled = science.where(science["time"] != 1)
    found, expected = _difference(spoiled, reference), _difference(science, reference)
    assert found["epoch_status"].values.tolist() == [0, STATUS["too_few_pixels"], 0]
    assert bool(found["difference"][1].isnull().all())
    xr.testing.assert_identical(found.isel(time=[0, 2]), expected.isel(time=[0, 2]))


@pytest.mark.parametrize("solve_on", ["all", "stars"])
def test_no_star_gives_a_status_or_an_empty_sky_never_a_crash(solve_on):
    rng = np.random.default_rng(0)
    science, reference = (xr.DataArray(rng.normal(size=(60, 70)).astype("f4"), dims=("y", "x")) for _ in range(2))
    found = _difference(science, reference, solve_on=solve_on)
    status = int(found["epoch_status"])
    if status == 0:
        assert abs(float(found["kernel_sum"])) < 5 * float(found["kernel_sum_err"])
    elif status & (STATUS["too_few_pixels"] | STATUS["solve_failed"]):
        assert bool(found["difference"].isnull().all())
    else:
        assert status & STATUS["scale_not_significant"]


def test_one_star_is_enough_for_a_small_kernel():
    y, x = np.mgrid[:60, :71]
    reference = 1e4 * np.exp(-((y - 30) ** 2 + (x - 33) ** 2) / 2.5)
    rng = np.random.default_rng(7)
    science = 1.2 * reference + rng.normal(scale=NOISE, size=reference.shape)
    images = [xr.DataArray(i.astype("f4"), dims=("y", "x")) for i in (science, reference)]
    found = _difference(*images)
    assert int(found["epoch_status"]) == 0
    assert float(found["kernel_sum"]) == pytest.approx(1.2, abs=5 * float(found["kernel_sum_err"]))
    assert float(found["difference"].std()) == pytest.approx(NOISE, rel=0.05)
