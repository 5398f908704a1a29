"""The one place that maps array code over labeled images, with numpy or dask inside."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from dask.base import is_dask_collection
from numpy.typing import NDArray

from ztfxr.arrays.threads import task
from ztfxr.errors import ChunkError
from ztfxr.schema import SPECS

if TYPE_CHECKING:
    import dask.array as da

__all__ = ["IMAGE", "apply_images", "require_whole"]

IMAGE: tuple[str, str] = ("y", "x")


@dataclass(frozen=True)
class _Output:
    """One result of the mapped function; `fresh` where nothing else holds the array."""

    dtype: str
    shape: tuple[int, ...]
    fresh: bool


def require_whole(array: xr.DataArray, dims: Sequence[str]) -> None:
    """Raise `ChunkError` where `array` is chunked along a dimension that an operation needs whole."""
    for dim in dims:
        chunks = array.variable.chunksizes.get(dim, ())
        if len(chunks) > 1:
            raise ChunkError(
                f"{array.name or 'the array'} has {len(chunks)} chunks along {dim!r}, which this operation needs "
                f"whole; use .chunk({dim}=-1), and keep one epoch per chunk along time"
            )


def apply_images(
    function: Callable[..., Any],
    *arrays: xr.DataArray,
    outputs: Mapping[str, Sequence[str]],
    inputs: Sequence[Sequence[str]] | None = None,
    sizes: Mapping[str, int] | None = None,
    kwargs: Mapping[str, Any] | None = None,
    fresh: bool = False,
) -> dict[str, xr.DataArray]:
    """Call `function` once per image and collect its results by schema name; lazy where an input is.

    Parameters
    ----------
    function
        Array code: one array per input, a tuple of arrays (or one array) as result. A result may be a function of
        nothing that gives the array, and is not called where nobody asks for that result.
    *arrays
        The inputs, with numpy or dask inside.
    outputs
        Schema name to core dimensions of each result; dtypes come from the schema.
    inputs
        Core dimensions of each input, by default (y, x) for all.
    sizes
        Sizes of output dimensions that no input has.
    kwargs
        Keyword arguments of `function`.
    fresh
        Promises that `function` returns new arrays which it does not keep and which share no memory with each other or
        with its inputs; the result of a single image is then handed on without a copy.

    Raises
    ------
    ChunkError
        A core dimension is chunked.

    Notes
    -----
    With dask, an image is one task for the function and one small task per result that is used.
    """
    core = [tuple(c) for c in inputs] if inputs is not None else [IMAGE] * len(arrays)
    lengths = dict(sizes or {})
    for array, dims in zip(arrays, core, strict=True):
        require_whole(array, dims)
        lengths |= {d: array.sizes[d] for d in dims}
    specs = [_Output(SPECS[name].dtype, tuple(lengths[d] for d in dims), fresh) for name, dims in outputs.items()]
    results = xr.apply_ufunc(
        partial(_dispatch, partial(function, **(kwargs or {})), core, specs),
        *arrays,
        input_core_dims=core,
        output_core_dims=[tuple(d) for d in outputs.values()],
        dask="allowed",
        join="exact",
    )
    return dict(zip(outputs, results if len(outputs) > 1 else (results,), strict=True))


def _dispatch(
    function: Callable[..., Any], core: Sequence[tuple[str, ...]], specs: Sequence[_Output], *arrays: Any
) -> Any:
    """Results for arrays whose core dimensions come last; dask arrays in, dask arrays out."""
    n_core = [len(dims) for dims in core]
    if any(is_dask_collection(a) for a in arrays):
        results: list[Any] = list(_lazy(function, core, specs, *arrays))
    else:
        bundle = _per_image(*arrays, function=function, n_core=n_core)
        results = [_unbundle(bundle, position=i, spec=spec) for i, spec in enumerate(specs)]
    return tuple(results) if len(specs) > 1 else results[0]


def _lazy(
    function: Callable[..., Any], core: Sequence[tuple[str, ...]], specs: Sequence[_Output], *arrays: Any
) -> list[da.Array]:
    """A bundle of all results per image, and a cheap task that takes each out of it."""
    import dask.array as da

    n_loop = max(a.ndim - len(dims) for a, dims in zip(arrays, core, strict=True))
    loop = tuple(range(n_loop))
    labels = {d: n_loop + i for i, d in enumerate(sorted({d for dims in core for d in dims}))}
    operands: list[Any] = []
    for array, dims in zip(arrays, core, strict=True):
        lazy = array if isinstance(array, da.Array) else da.from_array(array, chunks=-1)
        operands += [lazy, (*loop[n_loop - (array.ndim - len(dims)) :], *(labels[d] for d in dims))]
    bundle = da.blockwise(
        _in_a_task,
        loop,
        *operands,
        function=function,
        n_core=[len(dims) for dims in core],
        concatenate=False,
        dtype=object,
        meta=np.empty((0,) * n_loop, dtype=object),
    )
    fresh = count(n_loop)
    results = []
    for position, spec in enumerate(specs):
        axes = {next(fresh): size for size in spec.shape}
        meta = np.empty((0,) * (n_loop + len(axes)), dtype=spec.dtype)
        results.append(
            da.blockwise(
                _unbundle,
                (*loop, *axes),
                bundle,
                loop,
                position=position,
                spec=spec,
                new_axes=axes,
                dtype=spec.dtype,
                meta=meta,
            )
        )
    return results


def _in_a_task(*chunks: Any, function: Callable[..., Any], n_core: Sequence[int]) -> NDArray[Any]:
    """`_per_image` as dask runs it: beside other tasks, so without BLAS threads of its own."""
    with task():
        return _per_image(*map(_only, chunks), function=function, n_core=n_core)


def _only(chunk: Any) -> NDArray[Any]:
    """The array in dask's nested lists of chunks, which hold one each: to concatenate it would copy it."""
    while isinstance(chunk, list):
        (chunk,) = chunk
    return np.asarray(chunk)


def _per_image(*arrays: NDArray[Any], function: Callable[..., Any], n_core: Sequence[int]) -> NDArray[Any]:
    """An object array over the leading dimensions, each item the tuple of results of one image."""
    leading = [a.shape[: a.ndim - n] for a, n in zip(arrays, n_core, strict=True)]
    shape = np.broadcast_shapes(*leading)
    full = [np.broadcast_to(a, (*shape, *a.shape[a.ndim - n :])) for a, n in zip(arrays, n_core, strict=True)]
    bundle = np.empty(shape, dtype=object)
    for index in np.ndindex(shape):
        result = function(*(a[index] for a in full))
        bundle[index] = result if isinstance(result, tuple) else (result,)
    return bundle


def _unbundle(bundle: NDArray[Any], *, position: int, spec: _Output) -> NDArray[Any]:
    """Result number `position` of every image, stacked over the leading dimensions."""
    if spec.fresh and bundle.size == 1:
        only = np.asarray(_result(bundle.item()[position]))
        if only.dtype == spec.dtype and only.shape == spec.shape:
            return only.reshape((*bundle.shape, *spec.shape))
    out = np.empty((*bundle.shape, *spec.shape), dtype=spec.dtype)
    for index in np.ndindex(bundle.shape):
        out[index] = _result(bundle[index][position])
    return out


def _result(given: Any) -> Any:
    return given() if callable(given) else given
