"""The one place that maps array code over images: numpy and dask agree, one task an image, BLAS set back."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

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

from ztfxr.arrays.no_solution import NoSolutionError
from ztfxr.arrays.threads import one_blas_thread, workers
from ztfxr.errors import AlignmentError, ChunkError
from ztfxr.ops.mapping import core_dims, map_images, require_whole
from ztfxr.schema import STATUS_PLANES, planes_to_bits

NT, NY, NX, NS = 6, 4, 5, 3
RNG = np.random.default_rng(3)
CUBE = xr.DataArray(RNG.normal(size=(NT, NY, NX)), dims=("time", "y", "x"), coords={"time": np.arange(NT)}, name="sci")
PLATE = xr.DataArray(RNG.normal(size=(NY, NX)), dims=("y", "x"), name="plate")
GAIN = xr.DataArray(RNG.uniform(1, 2, NT), dims="time")
X = xr.DataArray(RNG.uniform(0, NX, NS), dims="source")

OUTPUTS = {"background": ("y", "x"), "flux": ("source",), "kernel": ("ky", "kx"), "chi2": (), "n_pixels": ()}


def measure(
    image: NDArray[Any], plate: NDArray[Any], gain: NDArray[Any], x: NDArray[Any], *, power: int = 1
) -> dict[str, Any]:
    """Results of every rank from one image; fails on anything but one image."""
    assert image.shape == plate.shape == (NY, NX)
    assert gain.shape == ()
    assert x.shape == (NS,)
    level = (image * plate).sum() ** power
    return {
        "background": image - plate * gain,
        "flux": x * level,
        "kernel": np.full((2, 3), level),
        "chi2": level / gain,
        "n_pixels": image.size,
    }


def run(*arrays: xr.DataArray, **options: Any) -> dict[str, xr.DataArray]:
    inputs = dict(zip(("image", "plate", "gain", "x"), arrays, strict=True))
    return map_images(measure, inputs, OUTPUTS, sizes={"ky": 2, "kx": 3}, options=options)


def compositions(total: int) -> st.SearchStrategy[tuple[int, ...]]:
    """Chunks that add up to `total`."""
    cuts = st.sets(st.integers(1, total - 1)).map(sorted)
    return cuts.map(lambda c: tuple(int(n) for n in np.diff([0, *c, total])))


def test_by_hand() -> None:
    found = run(CUBE, PLATE, GAIN, X, power=2)
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
    found = map_images(lambda image: image * 2, {"image": none}, {"sci": ("y", "x")})["sci"]
    assert found.compute().shape == (0, NY, NX)
    doubled = map_images(lambda image: image * 2, {"image": CUBE.chunk(time=4)}, {"sci": ("y", "x")})["sci"]
    np.testing.assert_array_equal(doubled, (CUBE.values * 2).astype(np.float32))


def test_input_of_other_epochs_is_refused() -> None:
    with pytest.raises(
        AlignmentError, match=r"gain and image have different labels along 'time'; bring them into line"
    ):
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

    map_images(refuse, {"image": CUBE.chunk(time=1)}, {"sci": ("y", "x")})


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

    def count(image: NDArray[Any]) -> dict[str, Any]:
        calls.append(float(image[0, 0]))
        return {"background": image, "chi2": image.sum(), "n_pixels": image.size}

    outputs: dict[str, tuple[str, ...]] = {"background": ("y", "x"), "chi2": (), "n_pixels": ()}
    found = xr.Dataset(map_images(count, {"image": CUBE.chunk(time=chunk)}, outputs))
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
    other = run(lazy, PLATE, GAIN, X, power=3)["flux"]
    assert tokenize(one) != tokenize(other)


# names, absence, loss


@pytest.mark.parametrize("chunk", [None, 1])
def test_results_are_taken_by_name(chunk: int | None) -> None:
    """The order does not matter, what nobody asked for is dropped, and what is missing is named."""

    class Found(NamedTuple):
        n_pixels: int
        chi2: float
        unasked: str

    cube = CUBE if chunk is None else CUBE.chunk(time=chunk)
    found = map_images(lambda image: Found(image.size, image[0, 0], "no"), {"image": cube}, ["chi2", "n_pixels"])
    assert list(found) == ["chi2", "n_pixels"]
    np.testing.assert_array_equal(found["chi2"].values, CUBE.values[:, 0, 0])
    assert found["n_pixels"].values.tolist() == [NY * NX] * NT
    with pytest.raises(TypeError, match=r"the mapped function gave \['n_pixels'\], without \['chi2'\]"):
        map_images(lambda image: {"n_pixels": 1}, {"image": cube}, ["chi2", "n_pixels"])["chi2"].compute()


@pytest.mark.parametrize("chunk", [None, 1])
def test_none_stays_none(chunk: int | None) -> None:
    def look(image: NDArray[Any], variance: NDArray[Any] | None, gain: NDArray[Any] | None) -> float:
        assert variance is None
        assert gain is not None
        return float(gain)

    cube = CUBE if chunk is None else CUBE.chunk(time=chunk)
    found = map_images(look, {"image": cube, "variance": None, "gain": GAIN}, ["chi2"])["chi2"]
    np.testing.assert_array_equal(found.values, GAIN.values)


@pytest.mark.parametrize("chunk", [None, 1, 4])
def test_a_lost_image_is_filled_from_the_schema(chunk: int | None) -> None:
    """NaN, 0, True or what the schema says, and the status why; the other images are untouched."""

    def solve(image: NDArray[Any]) -> dict[str, Any]:
        if image[0, 0] == CUBE.values[2, 0, 0]:
            raise NoSolutionError("solve_failed")
        names = {"chi2": 1.0, "n_pixels": 5, "lost_fraction": 0.25, "epoch_status": 0}
        return {**names, "mask": np.zeros(image.shape, bool), "kernel": np.ones((2, 3))}

    cube = CUBE if chunk is None else CUBE.chunk(time=chunk)
    names = ["chi2", "n_pixels", "lost_fraction", "epoch_status", "mask", "kernel"]
    found = xr.Dataset(map_images(solve, {"image": cube}, names, sizes={"ky": 2, "kx": 3})).compute()
    lost, kept = found.isel(time=2), found.isel(time=[0, 1, 3, 4, 5])
    assert np.isnan(lost["chi2"])
    assert (lost["n_pixels"], lost["lost_fraction"]) == (0, 1.0)
    assert lost["epoch_status"] == planes_to_bits(["solve_failed"], STATUS_PLANES)
    assert lost["mask"].all()
    assert lost["kernel"].isnull().all()
    assert (kept["chi2"] == 1).all()
    assert not kept["epoch_status"].any()
    assert not kept["mask"].any()


# labels and sizes


def test_labels_that_disagree_are_refused() -> None:
    """Also those of pixels; an array without labels goes with any."""
    labeled = CUBE.assign_coords(x=np.arange(NX))
    moved = PLATE.assign_coords(x=np.arange(NX) + 1)
    with pytest.raises(AlignmentError, match=r"plate and image have different labels along 'x'"):
        run(labeled, moved, GAIN, X)
    with pytest.raises(AlignmentError, match=r"gain and image have different labels along 'time'"):
        run(CUBE, PLATE, GAIN.assign_coords(time=np.arange(NT)[::-1]), X)
    assert run(labeled, PLATE, GAIN, X)["background"].dims == ("time", "y", "x")


def test_coordinates_are_those_of_the_first_input() -> None:
    image = CUBE.assign_coords(band="r", x=np.arange(NX), mjd=("time", np.arange(NT)))
    plate = PLATE.assign_coords(band="g", other=3)
    found = run(image, plate, GAIN, X)
    assert set(found["background"].coords) == {"time", "band", "x", "mjd"}
    assert set(found["chi2"].coords) == {"time", "band", "mjd"}
    assert found["chi2"]["band"] == "r"
    assert found["chi2"].name == "chi2"


@pytest.mark.parametrize("chunk", [None, 1])
def test_inputs_of_other_sizes(chunk: int | None) -> None:
    """Core dimensions may differ where `sizes` states what the results have; elsewhere they are refused."""

    def corner(image: NDArray[Any], other: NDArray[Any]) -> dict[str, Any]:
        return {"sci": image[:2, :3] + other[:2, :3]}

    small = PLATE[:3, :4]
    inputs = {"image": CUBE if chunk is None else CUBE.chunk(time=chunk), "other": small}
    found = map_images(corner, inputs, ["sci"], sizes={"y": 2, "x": 3})["sci"]
    np.testing.assert_array_equal(found.values, (CUBE.values[:, :2, :3] + PLATE.values[:2, :3]).astype("f4"))
    labeled = inputs | {"image": inputs["image"].assign_coords(x=np.arange(NX))}
    assert set(map_images(corner, labeled, ["sci"], sizes={"y": 2, "x": 3})["sci"].coords) == {"time"}
    with pytest.raises(AlignmentError, match=r"other has 3 along 'y', image has 4; cut both to the same size"):
        map_images(corner, inputs, ["sci"])
    with pytest.raises(AlignmentError, match=r"gain has 5 along 'time', image has 6"):
        map_images(corner, {"image": CUBE.drop_vars("time"), "gain": GAIN[:5]}, ["sci"], sizes={"time": 6})


def test_core_dimensions_are_the_schema_s() -> None:
    modes = xr.DataArray(np.zeros((2, NT, NY, NX)), dims=("mode", "time", "y", "x"))
    cutouts = xr.DataArray(np.zeros((2, NY, NX)), dims=("source", "y", "x"))
    assert core_dims(modes) == ("mode", "y", "x")
    assert core_dims(modes.transpose("x", "y", "mode", "time")) == ("mode", "y", "x")
    assert core_dims(cutouts) == ("y", "x")
    assert core_dims(X) == ("source",)
    assert core_dims(GAIN) == ()


def test_scalars_of_the_labels_are_not_copied() -> None:
    """xarray merges results without a question only where their coordinates are one object."""
    image = PLATE.assign_coords(readnoise=10.0)
    found = map_images(lambda image: 1.0, {"image": image}, ["chi2"])["chi2"]
    assert found.coords["readnoise"].variable._data is image.coords["readnoise"].variable._data


# copies


def _double(image: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """A result of the schema's dtype, and one that is not."""
    return {"background": np.float32(2) * image.astype(np.float32), "background_rms": 3 * image.astype(np.float64)}


@pytest.mark.parametrize("chunks", [None, (6,), (1, 5), (1, 1, 1, 1, 1, 1)])
@pytest.mark.parametrize("fresh", [False, True])
def test_fresh_results_are_the_same(chunks: tuple[int, ...] | None, fresh: bool) -> None:
    cube = CUBE if chunks is None else CUBE.chunk(time=chunks)
    outputs = {"background": ("y", "x"), "background_rms": ("y", "x")}
    for image in (cube, cube[0], cube[:1]):
        found = map_images(_double, {"image": image}, outputs, fresh=fresh)
        for name, expected in _double(image.values).items():
            assert found[name].dtype == np.float32
            np.testing.assert_array_equal(found[name].values, expected.astype(np.float32))


@pytest.mark.parametrize("fresh", [False, True])
def test_only_a_fresh_result_is_handed_on(fresh: bool) -> None:
    made = []

    def keep(image: NDArray[Any]) -> NDArray[np.float32]:
        made.append(np.ones(image.shape, np.float32))
        return made[-1]

    found = map_images(keep, {"image": PLATE}, {"background": ("y", "x")}, fresh=fresh)["background"]
    assert np.shares_memory(found.values, made[0]) == fresh


@pytest.mark.parametrize("chunk", [None, 1, 4])
def test_a_deferred_result_is_made_where_it_is_asked_for(chunk: int | None) -> None:
    made = []

    def defer(image: NDArray[Any]) -> dict[str, Any]:
        return {name: partial(make, name, image) for name in ("background", "background_rms")}

    def make(name: str, image: NDArray[Any]) -> NDArray[np.float32]:
        made.append(name)
        return image.astype(np.float32) + len(name)

    cube = CUBE if chunk is None else CUBE.chunk(time=chunk)
    found = map_images(defer, {"image": cube}, {"background": ("y", "x"), "background_rms": ("y", "x")}, fresh=True)
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
    map_images(look, {"image": lazy}, {"chi2": ()})["chi2"].compute(scheduler="synchronous")
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
    lazy = map_images(seen_threads, {"image": CUBE.chunk(time=1)}, {"chi2": ()})["chi2"]
    assert lazy.compute(scheduler="threads", num_workers=4).values.tolist() == [1.0] * NT
    assert set(blas_threads()) == {2}


def test_tasks_run_no_threads_of_their_own() -> None:
    lazy = map_images(lambda image: workers(), {"image": CUBE.chunk(time=1)}, {"n_pixels": ()})["n_pixels"]
    before = workers()
    for scheduler in ("threads", "sync"):
        assert lazy.compute(scheduler=scheduler).values.tolist() == [1] * NT
        assert workers() == before


def test_numpy_inside_keeps_the_user_s_threads(two_threads: Any) -> None:
    eager = map_images(seen_threads, {"image": CUBE}, {"chi2": ()})["chi2"]
    assert eager.values.tolist() == [2.0] * NT


def test_restored_after_failing_tasks(two_threads: Any) -> None:
    def fail(image: NDArray[Any]) -> Any:
        if image[0, 0] != CUBE.values[0, 0, 0]:
            raise ArithmeticError("no solution")
        return 1.0

    lazy = map_images(fail, {"image": CUBE.chunk(time=1)}, {"chi2": ()})["chi2"]
    for _ in range(3):
        with pytest.raises(ArithmeticError, match="no solution"):
            lazy.compute(scheduler="threads", num_workers=4)
    deadline = time.monotonic() + 10
    while set(blas_threads()) != {2} and time.monotonic() < deadline:
        time.sleep(0.01)  # dask raises at the first error; tasks that had begun by then end a little later
    assert set(blas_threads()) == {2}
