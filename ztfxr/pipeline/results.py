"""The store of a run: laid out before it, filled epoch by epoch, whole at every moment.

Arrays on (time, source) and larger have one chunk, or shard, per epoch and are written by whoever measured the epoch;
no two epochs share a file. The tables on `time` are written by the run alone, a flag `done` after everything else.
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ztfxr.errors import StoreError
from ztfxr.io.remote import shown
from ztfxr.pipeline.epoch import HEADER, QUALITY, Epoch, products, unknown
from ztfxr.pipeline.job import Job
from ztfxr.pipeline.prepare import Shared
from ztfxr.schema import SPECS, STATUS_PLANES, annotate, planes_to_bits
from ztfxr.store.zarr import DTYPE_ATTR, VERSION_ATTR, to_zarr, tree_attrs

__all__ = ["DONE", "ROOT", "Results", "create", "growing", "storage_errors"]

FORMAT = 1
ROOT = {
    "format": "ztfxr_pipeline",
    "epochs": "ztfxr_epochs",
    "layout": "ztfxr_layout",
    "job": "job",
    "options": "options",
    "runs": "runs",
}
"""Attributes of the root: format of the layout, committed rows, what names the layout, the job, provenance."""
DONE = "done"

_ROWS = 1024
_TEXT = ("path", "message", "checksum")
_NANOSECONDS = {"units": "nanoseconds since 1970-01-01", "calendar": "proleptic_gregorian"}
_NOT_RUN = planes_to_bits(["not_run"], STATUS_PLANES)
_SHARED_COORDS = ("time", "frame")


@dataclass(frozen=True)
class Column:
    """An array of the store with `time` in front: what of it lies in one file, and what stands where nothing is."""

    group: str
    name: str
    dtype: Any
    fill: Any
    attrs: Mapping[str, Any]
    dims: tuple[str, ...] = ()
    shape: tuple[int, ...] = ()
    rows: int = _ROWS


@contextmanager
def storage_errors(store: Path | str) -> Iterator[None]:
    """What the file system refuses, as a `StoreError` that says what to do."""
    try:
        yield
    except StoreError:
        raise
    except OSError as error:
        raise StoreError(
            f"cannot write {store} ({error.strerror or error}); nothing that was there is lost: make room, or get the "
            "right to write there, and run again to continue"
        ) from error


# ---- layout ---------------------------------------------------------------------------------------------------------


def create(
    store: Path, job: Job, shared: Shared, headers: Sequence[Mapping[str, Any]], attrs: Mapping[str, Any]
) -> None:
    """Write the store of a new run, without any epoch yet; it appears whole or not at all."""
    partial = store.with_name(f".{store.name}.partial-{uuid.uuid4().hex}")
    try:
        with storage_errors(store):
            _lay_out(partial, job, shared, attrs)
            results = Results(partial)
            results.append(headers)
            partial.rename(store)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _lay_out(path: Path, job: Job, shared: Shared, attrs: Mapping[str, Any]) -> None:
    import zarr

    template = _template(job, shared)
    groups = list(dict.fromkeys(group for group, _ in template))
    nodes = [*groups, "reference", *(["psf"] if shared.psf is not None else [])]
    about = tree_attrs(nodes)
    about |= {ROOT["format"]: FORMAT, ROOT["epochs"]: 0, ROOT["layout"]: uuid.uuid4().hex, **attrs}
    root = zarr.create_group(str(path), zarr_format=3, attributes=about)
    for name in groups:
        columns = _columns(name, template)
        static = _static(name, template, shared)
        coords = [c.name for c in columns if _is_coord(c)] + [k for k in static if k not in ("ky", "kx", "dy", "dx")]
        group = root.create_group(name, attributes={"coordinates": " ".join(c for c in coords if c != "time")})
        for column in columns:
            _create(group, column)
        for key, variable in static.items():
            _write_static(group, key, variable)
    to_zarr(shared.reference, path / "reference")
    if shared.psf is not None:
        to_zarr(shared.psf, path / "psf")


def _template(job: Job, shared: Shared) -> dict[tuple[str, str], xr.DataArray]:
    """What an epoch will give, lazy, with the reference for a frame: names, shapes and dtypes; checks options too."""
    coords = {name: unknown(name) for name in HEADER if name not in shared.reference.coords}
    return products(shared.reference.assign_coords(coords).chunk(), job, shared)


def _columns(group: str, template: Mapping[tuple[str, str], xr.DataArray]) -> list[Column]:
    header = HEADER if group in ("epochs", "lightcurve") else ("time",)
    out = [_scalar(group, name) for name in header]
    out.append(Column(group, "frame", "str", "", {"long_name": "name of the frame"}))
    if group == "epochs":
        out += [_text(name) for name in _TEXT]
        out += [_scalar(group, name) for name in QUALITY]
        out.append(Column(group, DONE, "bool", False, {"long_name": "True where the epoch is whole"}))
        return out
    for (owner, name), array in template.items():
        if owner == group:
            attrs = annotate(xr.DataArray(0), name).attrs if name in SPECS else array.attrs
            dims = tuple(str(d) for d in array.dims)
            out.append(Column(group, name, array.dtype, _fill(name, array.dtype), attrs, dims, array.shape, 1))
    return out


def _scalar(group: str, name: str) -> Column:
    dtype: Any = np.dtype(SPECS[name].dtype)
    attrs = annotate(xr.DataArray(0), name).attrs
    if dtype.kind == "M":
        return Column(group, name, "int64", np.iinfo(np.int64).min, {**attrs, **_NANOSECONDS})
    if dtype.kind == "U":
        return Column(group, name, "str", "", attrs)
    return Column(group, name, dtype, _fill(name, dtype) if name in QUALITY else unknown(name), attrs)


def _text(name: str) -> Column:
    meaning = {
        "path": "path of the frame, or its URL without credentials",
        "message": "what is wrong with the epoch",
        "checksum": "hash of the file's size, first and last 64 KiB",
    }
    return Column("epochs", name, "str", "", {"long_name": meaning[name]})


def _fill(name: str, dtype: np.dtype[Any]) -> Any:
    if name in ("status", "epoch_status"):
        return _NOT_RUN
    return np.nan if dtype.kind == "f" else dtype.type(0)


def _is_coord(column: Column) -> bool:
    return not column.dims and column.name not in (*QUALITY, DONE)


def _static(group: str, template: Mapping[tuple[str, str], xr.DataArray], shared: Shared) -> dict[str, xr.Variable]:
    """Coordinates of a group that do not change with time."""
    arrays = [array for (owner, _), array in template.items() if owner == group]
    dims = {str(d) for array in arrays for d in array.dims}
    out = {d: array.coords[d].variable for array in arrays for d in map(str, array.dims) if d in array.coords}
    if "source" in dims:
        out |= {str(k): v.variable for k, v in shared.positions.coords.items()}
    return out


def _create(group: Any, column: Column) -> None:
    inner = column.shape
    options: dict[str, Any] = {"chunks": (column.rows, *inner)}
    if column.dims[:1] == ("source",) and len(inner) == 3:
        # Stamps: an epoch is one file, a source's stamp a few kilobytes of it.
        options = {"chunks": (1, 1, *inner[1:]), "shards": (1, *inner)}
    group.create_array(
        column.name,
        shape=(0, *inner),
        dtype=column.dtype,
        fill_value=column.fill,
        dimension_names=("time", *column.dims),
        attributes=_plain(column.attrs) | ({DTYPE_ATTR: "<U1"} if column.dtype == "str" else {}),
        **options,
    )


def _write_static(group: Any, name: str, variable: xr.Variable) -> None:
    values = variable.values
    text = values.dtype.kind in "USO"
    attrs = _plain(variable.attrs) | ({DTYPE_ATTR: values.dtype.str} if text else {})
    array = group.create_array(
        name,
        shape=values.shape,
        dtype="str" if text else values.dtype,
        dimension_names=tuple(map(str, variable.dims)),
        attributes=attrs,
    )
    array[...] = values.astype(object) if text else values


def _plain(attrs: Mapping[Any, Any]) -> dict[str, Any]:
    return {str(k): v.tolist() if isinstance(v, np.ndarray | np.generic) else v for k, v in attrs.items()}


# ---- what the run itself writes -------------------------------------------------------------------------------------


class Results:
    """The tables on `time` of a store, held in memory and written in whole chunks; only one run may have it open."""

    def __init__(self, store: Path) -> None:
        self.store = store
        self._root = _open(store)
        self._arrays = growing(self._root)
        self.n_epochs = int(self._root.attrs[ROOT["epochs"]])
        self._repair()
        self._columns = {
            key: np.asarray(array[...])
            for key, array in self._arrays.items()
            if array.ndim == 1 and array.chunks[0] > 1
        }
        self._dirty: set[int] = set()

    @property
    def attrs(self) -> dict[str, Any]:
        """Attributes of the root."""
        return dict(self._root.attrs)

    @property
    def token(self) -> str:
        """Names this state of the layout, for what is cached of it."""
        return f"{self._root.attrs[ROOT['layout']]}-{self.n_epochs}"

    def column(self, name: str) -> NDArray[Any]:
        """A column of `/epochs`, for reading."""
        return self._columns["epochs", name]

    def add_run(self, about: Mapping[str, Any]) -> None:
        """Note the provenance of one more run."""
        with storage_errors(self.store):
            self._root.attrs[ROOT["runs"]] = [*self._root.attrs.get(ROOT["runs"], []), dict(about)]

    def append(self, headers: Sequence[Mapping[str, Any]]) -> None:
        """Rows for more epochs; until the last step the store has the old number of rows."""
        first, n = self.n_epochs, self.n_epochs + len(headers)
        with storage_errors(self.store):
            for array in self._arrays.values():
                array.resize((n, *array.shape[1:]))
            for key, old in self._columns.items():
                new = np.full(len(headers), self._arrays[key].fill_value, dtype=old.dtype)
                if headers and key[1] in headers[0] and key[1] not in ("epoch_status", "message"):
                    new[...] = [_stored(key[1], header[key[1]]) for header in headers]
                self._columns[key] = np.concatenate([old, new])
            self._set_units(headers)
            self._dirty |= set(range(first // _ROWS, -(-n // _ROWS)))
            self._flush(tuple(self._columns))
            self._root.attrs[ROOT["epochs"]] = n
        self.n_epochs = n

    def _set_units(self, headers: Sequence[Mapping[str, Any]]) -> None:
        units = next((h["seeing_units"] for h in headers if h.get("seeing_units")), None)
        for (_, name), array in self._arrays.items():
            if name == "seeing" and units is not None:
                array.attrs["units"] = units

    def record(self, row: int, epoch: Epoch) -> None:
        """Take down a finished epoch, whose arrays are in the store; visible after the next `flush`."""
        values = epoch.quality | {"message": epoch.message, "checksum": epoch.checksum, DONE: True}
        for name, value in values.items():
            self._columns["epochs", name][row] = value
        self._dirty.add(row // _ROWS)

    def forget(self, rows: NDArray[Any]) -> None:
        """Mark rows as not done, before they are measured again."""
        self.column(DONE)[rows] = False
        self._dirty |= {int(row) // _ROWS for row in rows}
        with storage_errors(self.store):
            self._flush((("epochs", DONE),))
        for name in (*QUALITY, "message", "checksum"):
            self.column(name)[rows] = self._arrays["epochs", name].fill_value

    def flush(self) -> None:
        """Write what was recorded; `done` last, so that a row that says so is whole."""
        with storage_errors(self.store):
            own = [("epochs", name) for name in (*QUALITY, "message", "checksum")]
            self._flush((*own, ("epochs", DONE)))

    def _flush(self, keys: Sequence[tuple[str, str]]) -> None:
        for key in keys:
            self._widen(key)
            for chunk in sorted(self._dirty):
                rows = slice(chunk * _ROWS, min((chunk + 1) * _ROWS, len(self._columns[key])))
                self._arrays[key][rows] = self._columns[key][rows]
        self._dirty.clear()

    def _widen(self, key: tuple[str, str]) -> None:
        """Note the longest text of a column, which readers turn into a dtype of fixed length."""
        attrs, values = self._arrays[key].attrs, self._columns[key]
        if DTYPE_ATTR in attrs and values.size:
            longest = max(map(len, values))
            if longest > int(attrs[DTYPE_ATTR][2:]):
                attrs[DTYPE_ATTR] = f"<U{longest}"

    def _repair(self) -> None:
        """Take back rows of an append that was interrupted."""
        for array in self._arrays.values():
            if array.shape[0] != self.n_epochs:
                with storage_errors(self.store):
                    array.resize((self.n_epochs, *array.shape[1:]))


def _stored(name: str, value: Any) -> Any:
    if name == "path":
        return shown(value)
    return value.astype("datetime64[ns]").astype(np.int64) if isinstance(value, np.datetime64) else value


def _open(store: Path) -> Any:
    import zarr

    try:
        root = zarr.open_group(str(store), mode="r+", zarr_format=3, use_consolidated=False)
        found = root.attrs.get(ROOT["format"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"{store} exists and is no zarr store that can be read ({type(error).__name__}: {error}); it is left as it "
            "is: choose another path"
        ) from error
    if found is None:
        raise StoreError(
            f"{store} exists and was not written by ztfxr.pipeline.run; it is left as it is: choose another path"
        )
    if found != FORMAT:
        raise StoreError(
            f"{store} has layout {found!r}, written by ztfxr {root.attrs.get(VERSION_ATTR, '?')}; this ztfxr "
            f"{version('ztfxr')} continues layout {FORMAT}: continue with that version, or choose another path"
        )
    return root


def growing(root: Any) -> dict[tuple[str, str], Any]:
    """Arrays with `time` in front, by group and name."""
    out = {}
    for group, members in root.groups():
        for name, array in members.arrays():
            if array.metadata.dimension_names and array.metadata.dimension_names[0] == "time":
                out[group, name] = array
    return out
