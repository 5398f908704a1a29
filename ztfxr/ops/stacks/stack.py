"""Frames that share one pixel grid, as one Dataset with a time dimension."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from ztfxr.errors import FrameError, HeaderError, InputError, MissingWCSError, ShapeError
from ztfxr.ops.masks import own_planes, with_planes
from ztfxr.schema import annotate_all, fill_value, kept, planes_to_bits, status_of
from ztfxr.wcs import has_wcs, same_grid

if TYPE_CHECKING:
    import dask.array as da

__all__ = ["stack"]


def stack(frames: xr.DataTree, *, like: xr.Dataset | xr.DataArray | None = None) -> xr.Dataset:
    """Stack the aligned frames of a tree along `time`, earliest first; lazy.

    Parameters
    ----------
    frames
        As `ztfxr.open_epochs` gives it. Siblings may have any order.
    like
        The grid that every frame must share, by default that of the first usable frame.

    Returns
    -------
    xarray.Dataset
        The frames' variables with dims (time, y, x), their scalar coordinates on `time`, `frame` (the node's name),
        `epoch_status` (bit planes) and `message`. A frame that is unusable, or on another grid, or without a WCS where
        others have one, keeps its place with NaN pixels and a status that says why (at the end where its time is
        unknown); the others are untouched.

    Raises
    ------
    InputError
        The tree has no frames.
    FrameError
        No frame is usable; its message names the first reason.

    Examples
    --------
    >>> made = ztfxr.testing.make_scene((96, 96), n_epochs=2, n_stars=40)
    >>> ztfxr.stack(made.epochs()).sci.dims
    ('time', 'y', 'x')
    """
    import dask.array as da

    if not isinstance(frames, xr.DataTree):
        raise InputError(
            f"a stack is made of a tree of frames, as ztfxr.open_epochs gives it; got {type(frames).__name__}"
        )
    nodes = {name: node.to_dataset() for name, node in frames.children.items()}
    if not nodes:
        raise InputError("the tree holds no frames; open some with ztfxr.open_epochs")
    verdicts = {name: _verdict(ds, like) for name, ds in nodes.items()}
    first = _first_usable(nodes, verdicts).transpose("y", "x", ...)
    for name in [n for n, (bits, _) in verdicts.items() if bits == 0]:
        verdicts[name] = _against(nodes[name], first)
    order = sorted(nodes, key=lambda name: _sort_key(nodes[name], name))
    if "flags" in first:
        first["flags"] = with_planes(first["flags"], "outside")
    variables: dict[str, Any] = {}
    for key, model in first.data_vars.items():
        if model.dims == ("y", "x"):
            pixels = [_pixels(nodes[n], key, model, verdicts[n][0] == 0) for n in order]
            variables[str(key)] = (("time", "y", "x"), da.stack(pixels), model.attrs if key == "flags" else {})
    scalars = [k for k, v in first.coords.items() if v.ndim == 0]
    spatial = first.drop_vars(list(first.data_vars)).reset_coords(scalars, drop=True)
    out = spatial.assign(variables).assign_coords(_on_time(nodes, order, first, verdicts))
    out.attrs = kept(first.attrs, "grid")
    return annotate_all(out)


def _first_usable(nodes: dict[str, xr.Dataset], verdicts: dict[str, tuple[int, str]]) -> xr.Dataset:
    usable = [nodes[name] for name, (bits, _) in verdicts.items() if bits == 0]
    if usable:
        return next((frame for frame in usable if has_wcs(frame)), usable[0])
    name, (_, message) = next(iter(verdicts.items()))
    raise FrameError(f"none of the {len(nodes)} frames can be used; {name}: {message}")


def _verdict(frame: xr.Dataset, like: xr.Dataset | xr.DataArray | None) -> tuple[int, str]:
    """Status bits and message of a frame on its own (`like` None) or against a grid."""
    if frame.attrs.get("status"):
        return int(frame.attrs["status"]), str(frame.attrs.get("message", ""))
    try:
        if not {"y", "x"} <= set(frame.dims):
            raise ShapeError(f"the frame holds no image (y, x); it has the dimensions {tuple(map(str, frame.dims))}")
        if like is not None:
            _same_shape(frame, like)
            same_grid(frame, like)
            if has_wcs(like) and not has_wcs(frame):
                raise MissingWCSError("the frame has no celestial WCS, so nothing says that it is on the grid")
    except FrameError as error:
        return status_of(error)
    return 0, ""


def _same_shape(frame: xr.Dataset, like: xr.Dataset | xr.DataArray) -> None:
    found, wanted = ((obj.sizes["y"], obj.sizes["x"]) for obj in (frame, like))
    if found != wanted:
        raise ShapeError(f"the frame is {found} pixels (y, x), its companions are {wanted}")


def _against(frame: xr.Dataset, first: xr.Dataset) -> tuple[int, str]:
    """Status bits and message of a frame against the first usable one: same grid, same variables."""
    bits, message = _verdict(frame, first)
    if bits:
        return bits, message
    missing = [str(k) for k in first.data_vars if k not in frame]
    if missing:
        return status_of(ShapeError(f"the frame lacks {', '.join(missing)}, which the others have"))
    if "flags" in first and _planes(frame) != _planes(first):
        own, others = (", ".join(_planes(f)) for f in (frame, first))
        return status_of(HeaderError(f"the planes of the frame's flags are {own}; those of the others are {others}"))
    return 0, ""


def _planes(frame: xr.Dataset) -> dict[str, int]:
    """The names and values of the frame's planes, those of ztfxr aside."""
    return {p.name: p.value for p in own_planes(frame["flags"]) if p.name not in ("outside", "nan")}


def _sort_key(frame: xr.Dataset, name: str) -> tuple[bool, int, str]:
    """Earliest first, unknown times last, equal times by name."""
    time = np.asarray(frame.coords["time"].values if "time" in frame.coords else np.datetime64("NaT"))
    return bool(np.isnat(time)), int(time.astype("datetime64[ns]").astype(np.int64)), name


def _pixels(frame: xr.Dataset, name: Hashable, like: xr.DataArray, good: bool) -> da.Array:
    import dask.array as da

    if not good:
        outside = planes_to_bits(["outside"], own_planes(like)) if name == "flags" else None
        fill = fill_value(str(name), like.dtype) if outside is None else outside
        return da.full(like.shape, fill, dtype=like.dtype, chunks=like.shape)  # type: ignore[no-any-return]
    data = frame[name].transpose("y", "x").data
    lazy = data if isinstance(data, da.Array) else da.from_array(data, chunks=like.shape)
    return lazy.astype(like.dtype)  # type: ignore[no-any-return]


def _on_time(
    nodes: dict[str, xr.Dataset], order: list[str], first: xr.Dataset, verdicts: dict[str, tuple[int, str]]
) -> dict[str, Any]:
    coords: dict[str, Any] = {}
    for key, model in first.coords.items():
        if model.ndim == 0:
            coords[str(key)] = ("time", _column(nodes, order, str(key), model), model.attrs)
    coords["frame"] = ("time", np.array(order))
    coords["epoch_status"] = ("time", _statuses(nodes, order, verdicts))
    coords["message"] = ("time", np.array([verdicts[n][1] for n in order]))
    return coords


def _statuses(nodes: dict[str, xr.Dataset], order: list[str], verdicts: dict[str, tuple[int, str]]) -> Any:
    """The statuses of the frames, with those that they hold themselves, which may be lazy."""
    model = xr.DataArray(np.uint32(0))
    own = _column(nodes, order, "epoch_status", model)
    return own | np.array([verdicts[n][0] for n in order], dtype=np.uint32)


def _column(nodes: dict[str, xr.Dataset], order: list[str], key: str, model: xr.DataArray) -> Any:
    """One scalar coordinate over the epochs, lazy where it is in a frame; NaN, NaT, -1 or "" where a frame has none."""
    missing: Any = {"f": np.nan, "M": np.datetime64("NaT", "ns"), "i": -1, "u": 0}.get(model.dtype.kind, "")
    if any(key in nodes[n].coords and nodes[n].coords[key].chunks is not None for n in order):
        import dask.array as da

        lazy = [da.asarray(nodes[n].coords[key].data if key in nodes[n].coords else missing) for n in order]
        return da.stack([each.astype(model.dtype) for each in lazy])
    values = [nodes[n].coords[key].values[()] if key in nodes[n].coords else missing for n in order]
    return np.array(values) if model.dtype.kind == "U" else np.array(values, dtype=model.dtype)
