"""The one place that maps array code over labeled images, with numpy or dask inside."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from dask.base import is_dask_collection
from numpy.typing import NDArray

from ztfxr.arrays.no_solution import NoSolutionError
from ztfxr.arrays.threads import task
from ztfxr.errors import AlignmentError, ChunkError
from ztfxr.schema import CORE_DIMS, SPECS, STATUS_PLANES, fill_value, planes_to_bits

if TYPE_CHECKING:
    import dask.array as da

__all__ = ["IMAGE", "aligned", "bare", "core_dims", "in_order_of", "map_images", "require_whole"]

IMAGE: tuple[str, str] = ("y", "x")
_ALONG_IMAGES = ("mode", "plane", *IMAGE)


@dataclass(frozen=True)
class _Output:
    """One result of the mapped function; `fresh` where nothing else holds the array."""

    name: str
    shape: tuple[int, ...]
    fresh: bool

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(SPECS[self.name].dtype)

    def lost(self, status: str) -> Any:
        """What stands where an image has no answer: the schema's fill value, and in a status why."""
        if self.name in ("status", "epoch_status"):
            return np.full(self.shape, planes_to_bits([status], STATUS_PLANES), dtype=self.dtype)
        return np.full(self.shape, fill_value(self.name, self.dtype), dtype=self.dtype)


def require_whole(array: xr.DataArray, dims: Sequence[str]) -> None:
    """Raise `ChunkError` where `array` is chunked along a dimension that an operation needs whole."""
    for dim in dims:
        chunks = array.variable.chunksizes.get(dim, ())
        if len(chunks) > 1:
            raise ChunkError(
                f"{array.name or 'the array'} has {len(chunks)} chunks along {dim!r}, which this operation needs "
                f"whole; use .chunk({dim}=-1), and keep one epoch per chunk along time"
            )


def core_dims(array: xr.DataArray) -> tuple[str, ...]:
    """The dimensions of `array` that belong to one image, in the order in which array code takes them.

    `schema.CORE_DIMS` lists them. Beside `y` and `x` only those of planes and modes count: an image may be one of many
    cut-outs on `source`.
    """
    among = _ALONG_IMAGES if set(IMAGE) <= set(array.dims) else CORE_DIMS
    return tuple(d for d in among if d in array.dims)


def bare(array: xr.DataArray) -> xr.DataArray:
    """`array` without coordinates."""
    return array.drop_vars(list(array.coords))


def aligned(array: xr.DataArray, like: xr.Dataset | xr.DataArray, what: str) -> xr.DataArray:
    """`array` in the order of `like`, as `in_order_of` gives it, without coordinates."""
    return bare(in_order_of(array, like, what))


def in_order_of(array: xr.DataArray, like: xr.Dataset | xr.DataArray, what: str) -> xr.DataArray:
    """`array` in the order of `like`.

    Along a dimension that both label, by the labels; along another that both have, as it is. `what` names the array in
    messages. Raises `AlignmentError` where a label of `like` is missing or ambiguous, or the sizes differ.
    """
    for dim in (d for d in array.dims if d in like.sizes):
        own, wanted = array.xindexes.get(dim), like.xindexes.get(dim)
        if own is None or wanted is None or own.equals(wanted):
            if array.sizes[dim] != like.sizes[dim]:
                raise AlignmentError(f"{what} has {array.sizes[dim]} along {dim!r}, not {like.sizes[dim]}")
            continue
        labels = own.to_pandas_index()
        place = labels.get_indexer(wanted.to_pandas_index()) if labels.is_unique else np.array([-1])
        if (place < 0).any():
            raise AlignmentError(
                f"{what} has other labels along {dim!r}, or one of them twice; bring both into line with xr.align, or "
                f"with .sel({dim}=...), first"
            )
        array = array.isel({dim: place})
    return array


def map_images(
    function: Callable[..., Any],
    inputs: Mapping[str, xr.DataArray | Mapping[str, xr.DataArray | None] | None],
    outputs: Iterable[str] | Mapping[str, Sequence[str]],
    *,
    sizes: Mapping[str, int] | None = None,
    options: Mapping[str, Any] | None = None,
    fresh: bool = False,
) -> dict[str, xr.DataArray]:
    """Call `function` once per image and collect its results by schema name; lazy where an input is.

    Parameters
    ----------
    function
        Array code. It takes the inputs and the options by keyword and returns its results by name: a mapping or a named
        tuple, or a single array where there is one output; what else it returns is dropped. A result may be a function
        of nothing that gives the array; it is not called where nobody asks for that result. An image that raises
        `NoSolutionError` is lost: its results are the schema's fill values, its `epoch_status` or `status` says why.
    inputs
        Arrays by keyword, with numpy or dask inside; None stays None, and arrays that belong together may be a mapping,
        which arrives as a dict. The dimensions that `core_dims` names arrive whole and in its order, all others are
        looped over. The first array lends the results its coordinates; no other coordinate is used, but labels that two
        arrays share must agree.
    outputs
        Schema names of the results, with their core dimensions; from a plain list of names, those are the schema's.
        Dtypes come from the schema.
    sizes
        Sizes of output dimensions that no input has, or in which inputs differ from each other or from the results,
        which then have no labels along them.
    options
        Further keyword arguments of `function`.
    fresh
        Promises that `function` returns new arrays which it does not keep and which share no memory with each other or
        with its inputs; the result of a single image is then handed on without a copy.

    Raises
    ------
    ChunkError
        A core dimension is chunked.
    AlignmentError
        Two inputs differ in the labels or in the size of a dimension.

    Notes
    -----
    With dask, an image is one task for the function and one small task per result that is used.
    """
    given = _flat(inputs)
    arrays = {name: array for name, array in given.items() if array is not None}
    core = {name: core_dims(array) for name, array in arrays.items()}
    for name, array in arrays.items():
        require_whole(array, core[name])
    _require_same_labels(arrays)
    named = dict(outputs) if isinstance(outputs, Mapping) else {name: SPECS[name].core_dims for name in outputs}
    for name, dims in named.items():
        # Dimensions that the schema does not know are renamed by the caller.
        if set(dims) <= set(CORE_DIMS) and not SPECS[name].fits(dims):
            raise TypeError(f"{name} on {tuple(dims)} is not what the schema says of it: {SPECS[name].dims!r}")
    lengths = _lengths(arrays, core, sizes or {})
    specs = [_Output(name, tuple(lengths[d] for d in dims), fresh) for name, dims in named.items()]
    absent = [name for name, array in given.items() if array is None]
    loop = list(dict.fromkeys(str(d) for n, a in arrays.items() for d in a.dims if d not in core[n]))
    call = partial(_called, function, absent, dict(options or {}))
    results = _dispatch(call, arrays, core, loop, specs)
    found = {name: xr.Variable((*loop, *dims), data) for (name, dims), data in zip(named.items(), results, strict=True)}
    return _labeled(next(iter(arrays.values())), found, unlabeled=sizes or {})


def _labeled(
    like: xr.DataArray, results: Mapping[str, xr.Variable], *, unlabeled: Iterable[str]
) -> dict[str, xr.DataArray]:
    """Each result with those coordinates of `like` that lie on its dimensions.

    They are put into one Dataset, which takes a tenth of the time that as many arrays take, and where scalars are not
    copied: xarray merges without a question only what is one object.
    """
    dims = {d for v in results.values() for d in v.dims} - set(unlabeled)
    # Not of like.coords.items(), which makes an array with coordinates of its own for each.
    others = [k for k, v in like.coords.variables.items() if k in results or not set(v.dims) <= dims]
    together = like.coords.to_dataset().drop_vars(others).assign(results)
    return {name: together[name] for name in results}


def _flat(inputs: Mapping[str, xr.DataArray | Mapping[str, xr.DataArray | None] | None]) -> dict[str, Any]:
    """The arrays of all groups, named ``group.name``."""
    out: dict[str, Any] = {}
    for name, given in inputs.items():
        out |= {f"{name}.{k}": v for k, v in given.items()} if isinstance(given, Mapping) else {name: given}
    return out


def _called(function: Callable[..., Any], absent: Sequence[str], options: Mapping[str, Any], /, **arrays: Any) -> Any:
    """Call `function` with the arrays, those of a group in a dict, and None for each that is absent."""
    given: dict[str, Any] = {}
    for name, array in (arrays | dict.fromkeys(absent)).items():
        group, dot, own = name.partition(".")
        if dot:
            given.setdefault(group, {})[own] = array
        else:
            given[name] = array
    return function(**given, **options)


def _require_same_labels(arrays: Mapping[str, xr.DataArray]) -> None:
    """Raise `AlignmentError` where two arrays label a dimension differently."""
    known: dict[Any, tuple[str, Any]] = {}
    for name, array in arrays.items():
        for dim in array.dims:
            index = array.xindexes.get(dim)
            if index is None:
                continue
            first, labels = known.setdefault(dim, (name, index))
            if labels is not index and not labels.equals(index):
                raise AlignmentError(
                    f"{name} and {first} have different labels along {dim!r}; bring them into line with xr.align, or "
                    f"with .sel({dim}=...), first"
                )


def _lengths(
    arrays: Mapping[str, xr.DataArray], core: Mapping[str, tuple[str, ...]], sizes: Mapping[str, int]
) -> dict[str, int]:
    """Sizes of all dimensions; `AlignmentError` where two arrays differ in one that is not stated."""
    known: dict[str, tuple[str, int]] = {}
    for name, array in arrays.items():
        for dim, size in ((str(d), n) for d, n in array.sizes.items()):
            first, length = known.setdefault(dim, (name, size))
            if size != length and not (dim in sizes and dim in core[name]):
                raise AlignmentError(
                    f"{name} has {size} along {dim!r}, {first} has {length}; cut both to the same size"
                )
    return {dim: length for dim, (_, length) in known.items()} | dict(sizes)


def _dispatch(
    function: Callable[..., Any],
    arrays: Mapping[str, xr.DataArray],
    core: Mapping[str, tuple[str, ...]],
    loop: Sequence[str],
    specs: Sequence[_Output],
) -> list[Any]:
    """One array per output, loop dimensions first; dask arrays where an input is one."""
    turned = {n: a.variable.transpose(*(d for d in loop if d in a.dims), *core[n]) for n, a in arrays.items()}
    if any(map(is_dask_collection, turned.values())):
        return _lazy(function, turned, core, loop, specs)
    data = [_expanded(a.values, [d in a.dims for d in loop]) for a in turned.values()]
    bundle = _per_image(
        *data, function=function, names=list(turned), n_core=[len(core[n]) for n in turned], specs=specs
    )
    return [_unbundle(bundle, spec=spec) for spec in specs]


def _expanded(values: NDArray[Any], present: Sequence[bool]) -> NDArray[Any]:
    """`values` with a length of 1 for each loop dimension that they lack."""
    sides = iter(values.shape)
    leading = [next(sides) if there else 1 for there in present]
    return values.reshape((*leading, *sides))


def _lazy(
    function: Callable[..., Any],
    arrays: Mapping[str, xr.Variable],
    core: Mapping[str, tuple[str, ...]],
    loop: Sequence[str],
    specs: Sequence[_Output],
) -> list[da.Array]:
    """A bundle of all results per image, and a cheap task that takes each out of it."""
    import dask.array as da

    labels = {d: i for i, d in enumerate(loop)}
    fresh = count(len(loop))
    operands: list[Any] = []
    for name, array in arrays.items():
        lazy = array.data if isinstance(array.data, da.Array) else da.from_array(array.values, chunks=-1)
        operands += [lazy, (*(labels[d] for d in loop if d in array.dims), *(next(fresh) for _ in core[name]))]
    bundle = da.blockwise(
        _in_a_task,
        tuple(range(len(loop))),
        *operands,
        function=function,
        names=list(arrays),
        present=[[d in a.dims for d in loop] for a in arrays.values()],
        n_core=[len(core[n]) for n in arrays],
        specs=list(specs),
        concatenate=False,
        dtype=object,
        meta=np.empty((0,) * len(loop), dtype=object),
    )
    return [_taken(bundle, spec, fresh) for spec in specs]


def _taken(bundle: da.Array, spec: _Output, fresh: count[int]) -> da.Array:
    """One result of every image, as a dask array."""
    import dask.array as da

    loop = tuple(range(bundle.ndim))
    axes = {next(fresh): size for size in spec.shape}
    meta = np.empty((0,) * (len(loop) + len(axes)), dtype=spec.dtype)
    out: da.Array = da.blockwise(
        _unbundle, (*loop, *axes), bundle, loop, spec=spec, new_axes=axes, dtype=spec.dtype, meta=meta
    )
    return out


def _in_a_task(*chunks: Any, present: Sequence[Sequence[bool]], **call: Any) -> NDArray[Any]:
    """`_per_image` as dask runs it: beside other tasks, so without BLAS threads of its own."""
    with task():
        arrays = [_expanded(_only(chunk), there) for chunk, there in zip(chunks, present, strict=True)]
        return _per_image(*arrays, **call)


def _only(chunk: Any) -> NDArray[Any]:
    """The array in dask's nested lists of chunks, which hold one each: to concatenate it would copy it."""
    while isinstance(chunk, list):
        (chunk,) = chunk
    return np.asarray(chunk)


def _per_image(
    *arrays: NDArray[Any],
    function: Callable[..., Any],
    names: Sequence[str],
    n_core: Sequence[int],
    specs: Sequence[_Output],
) -> NDArray[Any]:
    """An object array over the leading dimensions, each item the results of one image by name."""
    shape = np.broadcast_shapes(*(a.shape[: a.ndim - n] for a, n in zip(arrays, n_core, strict=True)))
    full = [np.broadcast_to(a, (*shape, *a.shape[a.ndim - n :])) for a, n in zip(arrays, n_core, strict=True)]
    bundle = np.empty(shape, dtype=object)
    for index in np.ndindex(shape):
        given = {name: array[index] for name, array in zip(names, full, strict=True)}
        bundle[index] = _one_image(function, given, specs)
    return bundle


def _one_image(
    function: Callable[..., Any], given: Mapping[str, NDArray[Any]], specs: Sequence[_Output]
) -> dict[str, Any]:
    """The results of one image by name, or what stands for them where it has no answer."""
    try:
        result = function(**given)
    except NoSolutionError as error:
        return {spec.name: spec.lost(error.status) for spec in specs}
    if hasattr(result, "_asdict"):
        result = result._asdict()
    found = dict(result) if isinstance(result, Mapping) else {specs[0].name: result}
    missing = [spec.name for spec in specs if spec.name not in found]
    if missing:
        raise TypeError(f"the mapped function gave {sorted(found)}, without {missing}")
    return found


def _unbundle(bundle: NDArray[Any], *, spec: _Output) -> NDArray[Any]:
    """One result of every image, stacked over the leading dimensions."""
    if spec.fresh and bundle.size == 1:
        only = np.asarray(_result(bundle.item()[spec.name]))
        if only.dtype == spec.dtype and only.shape == spec.shape:
            return only.reshape((*bundle.shape, *spec.shape))
    out = np.empty((*bundle.shape, *spec.shape), dtype=spec.dtype)
    for index in np.ndindex(bundle.shape):
        out[index] = _result(bundle[index][spec.name])
    return out


def _result(given: Any) -> Any:
    return given() if callable(given) else given
