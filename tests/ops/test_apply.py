"""The one place that maps array code over images: numpy and dask agree, one task an image, BLAS set back."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr
from dask.base import tokenize
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from threadpoolctl import threadpool_info, threadpool_limits

from ztfxr.arrays.threads import one_blas_thread, workers
from ztfxr.errors import ChunkError
from ztfxr.ops._apply import apply_images, require_whole

NT, NY, NX, NS = 6, 4, 5, 3
RNG = np.random.default_rng(3)
CUBE = xr.DataArray(RNG.normal(size=(NT, NY, NX)), dims=("time", "y", "x"), coords={"time": np.arange(NT)}, name="sci")
PLATE = xr.DataArray(RNG.normal(size=(NY, NX)), dims=("y", "x"), name="plate")
GAIN = xr.DataArray(RNG.uniform(1, 2, NT), dims="time")
X = xr.DataArray(RNG.uniform(0, NX, NS), dims="source")

OUTPUTS = {"background": ("y", "x"), "flux": ("source",), "kernel": ("ky", "kx"), "chi2": (), "n_pixels": ()}
INPUTS = [("y", "x"), ("y", "x"), (), ("source",)]


def measure(
    image: NDArray[Any], plate: NDArray[Any], gain: NDArray[Any], x: NDArray[Any], *, power: int = 1
) -> tuple[Any, ...]:
    """Results of every rank from one image; fails on anything but one image."""
    assert image.shape == plate.shape == (NY, NX)
    assert gain.shape == ()
    assert x.shape == (NS,)
    level = (image * plate).sum() ** power
    return image - plate * gain, x * level, np.full((2, 3), level), level / gain, image.size


def run(*arrays: xr.DataArray, **options: Any) -> dict[str, xr.DataArray]:
    return apply_images(measure, *arrays, outputs=OUTPUTS, inputs=INPUTS, sizes={"ky": 2, "kx": 3}, **options)


def compositions(total: int) -> st.SearchStrategy[tuple[int, ...]]:
    """Chunks that add up to `total`."""
    cuts = st.sets(st.integers(1, total - 1)).map(sorted)
    return cuts.map(lambda c: tuple(int(n) for n in np.diff([0, *c, total])))


def test_by_hand() -> None:
    found = run(CUBE, PLATE, GAIN, X, kwargs={"power": 2})
    level = (CUBE * PLATE).sum(["y", "x"]) ** 2
    xr.testing.assert_allclose(found["background"].transpose(*CUBE.dims), CUBE - PLATE * GAIN)
    xr.testing.assert_allclose(found["flux"], level * X)
    assert found["kernel"].dims == ("time", "ky", "kx")
    np.testing.assert_allclose(found["kernel"].values[:, 1, 2], level)
    xr.testing.assert_allclose(found["chi2"], level / GAIN)
    assert found["n_pixels"].values.tolist() == [NY * NX] * NT


def test_dtypes_are_the_schema_s() -> None:
    for lazy in (False, True):
        found = run(CUBE.chunk(time=1) if lazy else CUBE, PLATE, GAIN, X)
        dtypes = {k: v.dtype.name for k, v in found.items()}
        wanted = {"background": "float32", "flux": "float64", "kernel": "float64", "chi2": "float64"}
        assert dtypes == {**wanted, "n_pixels": "int64"}
        assert {k: v.compute().dtype.name for k, v in found.items()} == dtypes


@settings(max_examples=30)
@given(compositions(NT), st.sampled_from(["all", "cube", "cube and gain", "plate"]))
def test_dask_agrees_with_numpy(chunks: tuple[int, ...], which: str) -> None:
    arrays = [CUBE, PLATE, GAIN, X]
    if which != "plate":
        arrays[0] = CUBE.chunk(time=chunks)
    if which in ("all", "cube and gain"):
        arrays[2] = GAIN.chunk(time=chunks if which == "all" else NT)
    if which in ("all", "plate"):
        arrays[1], arrays[3] = PLATE.chunk(), X.chunk()
    lazy, eager = run(*arrays), run(CUBE, PLATE, GAIN, X)
    assert all(isinstance(v.data, da.Array) for v in lazy.values())
    for name, value in dask.compute(lazy, scheduler="sync")[0].items():
        xr.testing.assert_identical(value, eager[name])
    if which == "all":
        assert lazy["background"].chunks == (chunks, (NY,), (NX,))
        assert lazy["chi2"].chunks == (chunks,)


@pytest.mark.parametrize("chunk", [False, True])
def test_one_image_without_time(chunk: bool) -> None:
    image = CUBE[2].drop_vars("time")
    found = run(image.chunk() if chunk else image, PLATE, GAIN[2], X)
    whole = run(CUBE, PLATE, GAIN, X)
    assert found["chi2"].dims == ()
    for name, value in found.items():
        xr.testing.assert_allclose(value.compute(), whole[name].isel(time=2, drop=True))


@pytest.mark.parametrize("chunk", [False, True])
def test_two_leading_dimensions(chunk: bool) -> None:
    bands = xr.concat([CUBE, CUBE + 1], "band")
    stacked = bands.chunk(time=2, band=1) if chunk else bands
    found = run(stacked, PLATE, GAIN, X)
    for i in range(2):
        for name, value in run(CUBE + i, PLATE, GAIN, X).items():
            xr.testing.assert_allclose(found[name].compute().isel(band=i), value)


@pytest.mark.parametrize("chunk", [False, True])
def test_no_epoch_and_one_output(chunk: bool) -> None:
    none = CUBE[:0].chunk() if chunk else CUBE[:0]
    found = apply_images(lambda image: image * 2, none, outputs={"sci": ("y", "x")})["sci"]
    assert found.compute().shape == (0, NY, NX)
    doubled = apply_images(lambda image: image * 2, CUBE.chunk(time=4), outputs={"sci": ("y", "x")})["sci"]
    np.testing.assert_array_equal(doubled, (CUBE.values * 2).astype(np.float32))


def test_input_of_other_epochs_is_refused() -> None:
    with pytest.raises(ValueError, match=r"(?i)exact"):
        run(CUBE, PLATE, GAIN.assign_coords(time=np.arange(NT) + 1), X)


@pytest.mark.parametrize("dim", ["y", "x"])
def test_chunked_core_dimension(dim: str) -> None:
    message = rf"sci has 2 chunks along '{dim}', which this operation needs whole; use \.chunk\({dim}=-1\)"
    with pytest.raises(ChunkError, match=message):
        run(CUBE.chunk({dim: 3}), PLATE, GAIN, X)
    require_whole(CUBE.chunk(time=1), ("y", "x"))
    require_whole(CUBE, ("time",))
    require_whole(CUBE.chunk(time=1).assign_coords(gain=GAIN.chunk(time=4)), ("y", "x"))


def test_lazy(raising_scheduler: Any) -> None:
    found = run(CUBE.chunk(time=1), PLATE, GAIN, X)
    with pytest.raises(AssertionError, match="should have stayed lazy"):
        found["chi2"].compute()


def test_function_is_not_called_while_the_graph_is_built() -> None:
    def refuse(image: NDArray[Any]) -> None:
        raise AssertionError("called")

    apply_images(refuse, CUBE.chunk(time=1), outputs={"sci": ("y", "x")})


def count_tasks(*results: xr.DataArray) -> int:
    """Keys of the optimized graph, those that hold the pixels aside."""
    (optimized,) = dask.optimize(xr.Dataset(dict(enumerate(results))))
    graph = optimized.__dask_graph__()
    return sum(not str(k[0] if isinstance(k, tuple) else k).startswith("array-") for k in graph)


@pytest.mark.parametrize("names", [["flux"], ["flux", "chi2"], list(OUTPUTS)])
def test_one_task_an_image_and_one_an_output(names: list[str]) -> None:
    lazy = CUBE.copy(data=da.from_array(CUBE.values, chunks=(1, -1, -1), name="array-cube"))
    plate = PLATE.copy(data=da.from_array(PLATE.values, chunks=-1, name="array-plate"))
    gain = GAIN.copy(data=da.from_array(GAIN.values, chunks=1, name="array-gain"))
    x = X.copy(data=da.from_array(X.values, chunks=-1, name="array-x"))
    found = run(lazy, plate, gain, x)
    assert count_tasks(*(found[n] for n in names)) == NT * (1 + len(names))


@pytest.mark.parametrize("chunk", [1, 4])
def test_each_image_is_measured_once(chunk: int) -> None:
    """Whatever outputs are computed together share one call."""
    calls: list[float] = []

    def count(image: NDArray[Any]) -> tuple[Any, ...]:
        calls.append(float(image[0, 0]))
        return image, image.sum(), image.size

    outputs: dict[str, tuple[str, ...]] = {"background": ("y", "x"), "chi2": (), "n_pixels": ()}
    found = xr.Dataset(apply_images(count, CUBE.chunk(time=chunk), outputs=outputs))
    found.compute(scheduler="sync")
    assert sorted(calls) == sorted(CUBE.values[:, 0, 0])
    calls.clear()
    found["chi2"].isel(time=[1]).compute(scheduler="sync")
    assert len(calls) == chunk


def test_same_call_has_the_same_name() -> None:
    """Dask recognizes equal work by its token."""
    lazy = CUBE.chunk(time=1)
    one, two = run(lazy, PLATE, GAIN, X)["flux"], run(lazy, PLATE, GAIN, X)["flux"]
    assert tokenize(one) == tokenize(two)
    other = run(lazy, PLATE, GAIN, X, kwargs={"power": 3})["flux"]
    assert tokenize(one) != tokenize(other)


# copies


def _double(image: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """A result of the schema's dtype, and one that is not."""
    return np.float32(2) * image.astype(np.float32), 3 * image.astype(np.float64)


@pytest.mark.parametrize("chunks", [None, (6,), (1, 5), (1, 1, 1, 1, 1, 1)])
@pytest.mark.parametrize("fresh", [False, True])
def test_fresh_results_are_the_same(chunks: tuple[int, ...] | None, fresh: bool) -> None:
    cube = CUBE if chunks is None else CUBE.chunk(time=chunks)
    outputs = {"background": ("y", "x"), "background_rms": ("y", "x")}
    for image in (cube, cube[0], cube[:1]):
        found = apply_images(_double, image, outputs=outputs, fresh=fresh)
        for name, expected in zip(outputs, _double(image.values), strict=True):
            assert found[name].dtype == np.float32
            np.testing.assert_array_equal(found[name].values, expected.astype(np.float32))


@pytest.mark.parametrize("fresh", [False, True])
def test_only_a_fresh_result_is_handed_on(fresh: bool) -> None:
    made = []

    def keep(image: NDArray[Any]) -> NDArray[np.float32]:
        made.append(np.ones(image.shape, np.float32))
        return made[-1]

    found = apply_images(keep, PLATE, outputs={"background": ("y", "x")}, fresh=fresh)["background"]
    assert np.shares_memory(found.values, made[0]) == fresh


@pytest.mark.parametrize("chunk", [None, 1, 4])
def test_a_deferred_result_is_made_where_it_is_asked_for(chunk: int | None) -> None:
    made = []

    def defer(image: NDArray[Any]) -> tuple[Any, Any]:
        return tuple(partial(make, name, image) for name in ("background", "background_rms"))  # type: ignore[return-value]

    def make(name: str, image: NDArray[Any]) -> NDArray[np.float32]:
        made.append(name)
        return image.astype(np.float32) + len(name)

    cube = CUBE if chunk is None else CUBE.chunk(time=chunk)
    found = apply_images(defer, cube, outputs={"background": ("y", "x"), "background_rms": ("y", "x")}, fresh=True)
    level = found["background"].compute(scheduler="synchronous")
    np.testing.assert_array_equal(level.values, CUBE.values.astype("f4") + 10)
    if chunk is not None:
        assert made == ["background"] * NT
    np.testing.assert_array_equal(found["background_rms"].values, CUBE.values.astype("f4") + 14)


def test_chunks_reach_the_function_without_a_copy() -> None:
    pixels = RNG.normal(size=(NY, NX))
    shared = []

    def look(image: NDArray[Any]) -> float:
        shared.append(np.shares_memory(image, pixels))
        return 0.0

    read = da.from_delayed(dask.delayed(lambda: pixels)(), pixels.shape, pixels.dtype)
    lazy = xr.DataArray(read, dims=("y", "x"))
    apply_images(look, lazy, outputs={"chi2": ()})["chi2"].compute(scheduler="synchronous")
    assert shared == [True]


# BLAS threads


def blas_threads() -> list[int]:
    return [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]


@pytest.fixture
def two_threads() -> Any:
    """BLAS at two threads, as a user may have set it."""
    with threadpool_limits(limits=2, user_api="blas"):
        assert blas_threads()
        assert set(blas_threads()) == {2}
        yield


def test_one_thread_inside_and_restored_after(two_threads: Any) -> None:
    with one_blas_thread():
        assert set(blas_threads()) == {1}
        with one_blas_thread():
            assert set(blas_threads()) == {1}
        assert set(blas_threads()) == {1}
    assert set(blas_threads()) == {2}


def test_restored_after_an_error(two_threads: Any) -> None:
    with pytest.raises(ZeroDivisionError), one_blas_thread(), one_blas_thread():
        raise ZeroDivisionError
    assert set(blas_threads()) == {2}


def test_overlapping_threads(two_threads: Any) -> None:
    """The first to enter leaves first: the limit stays until the last leaves."""
    first_left, second_entered = threading.Event(), threading.Event()

    def first() -> set[int]:
        with one_blas_thread():
            assert second_entered.wait(10)
            inside = set(blas_threads())
        first_left.set()
        return inside

    def second() -> set[int]:
        with one_blas_thread():
            second_entered.set()
            assert first_left.wait(10)
            return set(blas_threads())

    with ThreadPoolExecutor(2) as pool:
        found = [pool.submit(first), pool.submit(second)]
        assert [f.result() for f in found] == [{1}, {1}]
    assert set(blas_threads()) == {2}


def test_many_threads(two_threads: Any) -> None:
    def work(seed: int) -> set[int]:
        with one_blas_thread():
            a = np.random.default_rng(seed).normal(size=(20, 20))
            np.linalg.solve(a @ a.T + np.eye(20), a)
            if seed % 7 == 0:
                return set(blas_threads())
            return {1}

    with ThreadPoolExecutor(8) as pool:
        assert all(found == {1} for found in pool.map(work, range(200)))
    assert set(blas_threads()) == {2}


def seen_threads(image: NDArray[Any]) -> Any:
    return float(max(blas_threads()))


def test_tasks_run_with_one_blas_thread(two_threads: Any) -> None:
    lazy = apply_images(seen_threads, CUBE.chunk(time=1), outputs={"chi2": ()})["chi2"]
    assert lazy.compute(scheduler="threads", num_workers=4).values.tolist() == [1.0] * NT
    assert set(blas_threads()) == {2}


def test_tasks_run_no_threads_of_their_own() -> None:
    lazy = apply_images(lambda image: workers(), CUBE.chunk(time=1), outputs={"n_pixels": ()})["n_pixels"]
    before = workers()
    for scheduler in ("threads", "sync"):
        assert lazy.compute(scheduler=scheduler).values.tolist() == [1] * NT
        assert workers() == before


def test_numpy_inside_keeps_the_user_s_threads(two_threads: Any) -> None:
    eager = apply_images(seen_threads, CUBE, outputs={"chi2": ()})["chi2"]
    assert eager.values.tolist() == [2.0] * NT


def test_restored_after_failing_tasks(two_threads: Any) -> None:
    def fail(image: NDArray[Any]) -> Any:
        if image[0, 0] != CUBE.values[0, 0, 0]:
            raise ArithmeticError("no solution")
        return 1.0

    lazy = apply_images(fail, CUBE.chunk(time=1), outputs={"chi2": ()})["chi2"]
    for _ in range(3):
        with pytest.raises(ArithmeticError, match="no solution"):
            lazy.compute(scheduler="threads", num_workers=4)
    deadline = time.monotonic() + 10
    while set(blas_threads()) != {2} and time.monotonic() < deadline:
        time.sleep(0.01)  # dask raises at the first error; tasks that had begun by then end a little later
    assert set(blas_threads()) == {2}
