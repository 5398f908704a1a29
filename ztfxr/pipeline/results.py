"""The store of a run: laid out before it, filled epoch by epoch, whole at every moment.

Arrays on (time, source) and larger have one chunk, or shard, per epoch and are written by whoever measured the epoch,
through `EpochWriter`; no two epochs share a file. The tables on `time` are written by the run alone, through `Results`.
Each writes last what says that the rest is there: the status of the sources, and the flag `done`.
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from ztfxr.errors import StoreError
from ztfxr.io.remote import shown
from ztfxr.schema import (
    EPOCH_QUALITY,
    EXPOSURE,
    NOT_MEASURED,
    REGISTRATION,
    SPECS,
    STATUS_PLANES,
    Attrs,
    annotate,
    fill_value,
    plain,
    planes_to_bits,
)
from ztfxr.store.encoding import DTYPE_ATTR, VERSION_ATTR
from ztfxr.store.zarr import to_zarr, tree_attrs

if TYPE_CHECKING:
    from zarr import Array, Group

__all__ = ["DONE", "ROOT", "Epoch", "EpochWriter", "Header", "Results", "Template", "create", "storage_errors"]

Header: TypeAlias = Mapping[str, Any]
"""What is known of one epoch before it is measured."""
Template: TypeAlias = Mapping[tuple[str, str], xr.DataArray]
"""What is stored of one epoch, by group and name: arrays whose shapes, dtypes and labels count, not their values."""

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
_MEASURED = (*EPOCH_QUALITY, *REGISTRATION, "message", "checksum")
_NANOSECONDS = {"units": "nanoseconds since 1970-01-01", "calendar": "proleptic_gregorian"}
_NOT_RUN = planes_to_bits(["not_run"], STATUS_PLANES)


@dataclass(frozen=True)
class Epoch:
    """The row of one epoch: a few numbers, and arrays by group and name."""

    quality: dict[str, Any]
    message: str = ""
    checksum: str = ""
    arrays: dict[tuple[str, str], NDArray[Any]] = field(default_factory=dict)

    @property
    def status(self) -> int:
        """Bit planes of `STATUS_PLANES`; 0 is good."""
        return int(self.quality["epoch_status"])

    @property
    def skipped(self) -> bool:
        """Whether the epoch was not measured; one that was may still not deserve to be believed."""
        return bool(self.status & NOT_MEASURED)


@dataclass(frozen=True)
class Column:
    """An array of the store with `time` in front: what of it lies in one file, and what stands where nothing is."""

    group: str
    name: str
    dtype: np.dtype[Any] | str
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
    store: Path,
    template: Template,
    static: Mapping[str, xr.Dataset],
    headers: Sequence[Header],
    attrs: Attrs,
) -> None:
    """Write the store of a new run, without any epoch yet; it appears whole or not at all.

    Parameters
    ----------
    store
        Where the store will be.
    template
        What will be stored of each epoch, with the labels that do not change with time.
    static
        Datasets that do not change with time, by node.
    headers
        What is known of each epoch before it is measured, row by row.
    attrs
        Attributes of the root.
    """
    partial = store.with_name(f".{store.name}.partial-{uuid.uuid4().hex}")
    try:
        with storage_errors(store):
            known = [name for name in EXPOSURE if name in headers[0]]
            _lay_out(partial, template, static, attrs, known)
            results = Results(partial)
            results.append(headers)
            partial.rename(store)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _lay_out(
    path: Path, template: Template, static: Mapping[str, xr.Dataset], attrs: Attrs, known: Sequence[str]
) -> None:
    import zarr

    groups = list(dict.fromkeys(group for group, _ in template))
    about = tree_attrs([*groups, *static])
    about |= {ROOT["format"]: FORMAT, ROOT["epochs"]: 0, ROOT["layout"]: uuid.uuid4().hex, **attrs}
    root = zarr.create_group(str(path), zarr_format=3, attributes=about)
    for name in groups:
        arrays = {key: array for (owner, key), array in template.items() if owner == name}
        columns, labels = _columns(name, arrays, known), _labels(arrays)
        coords = [c.name for c in columns if _is_coord(c)] + [k for k, v in labels.items() if v.dims != (k,)]
        group = root.create_group(name, attributes={"coordinates": " ".join(c for c in coords if c != "time")})
        for column in columns:
            _create(group, column)
        for key, variable in labels.items():
            _write_static(group, key, variable)
    for name, dataset in static.items():
        to_zarr(dataset, path / name)


def _columns(group: str, arrays: Mapping[str, xr.DataArray], known: Sequence[str]) -> list[Column]:
    header = known if group in ("epochs", "lightcurve") else ("time",)
    out = [_scalar(group, name) for name in (*header, "frame")]
    if group == "epochs":
        return out + [_scalar(group, name) for name in ("path", *_MEASURED, DONE)]
    for name, array in arrays.items():
        attrs = annotate(xr.DataArray(0), name).attrs if name in SPECS else array.attrs
        dims = tuple(str(d) for d in array.dims)
        out.append(Column(group, name, array.dtype, _fill(name, array.dtype), attrs, dims, array.shape, 1))
    return out


def _scalar(group: str, name: str) -> Column:
    dtype = np.dtype(SPECS[name].dtype)
    attrs = annotate(xr.DataArray(0), name).attrs
    if dtype.kind == "M":
        return Column(group, name, "int64", np.iinfo(np.int64).min, {**attrs, **_NANOSECONDS})
    if dtype.kind == "U":
        return Column(group, name, "str", "", attrs)
    return Column(group, name, dtype, _fill(name, dtype) if name in EPOCH_QUALITY else fill_value(name), attrs)


def _fill(name: str, dtype: np.dtype[Any]) -> Any:
    """What stands where an epoch was not measured."""
    if name in ("status", "epoch_status"):
        return _NOT_RUN
    return np.nan if dtype.kind == "f" else dtype.type(0)


def _is_coord(column: Column) -> bool:
    return not column.dims and column.name not in (*EPOCH_QUALITY, *REGISTRATION, DONE)


def _labels(arrays: Mapping[str, xr.DataArray]) -> dict[str, xr.Variable]:
    """Coordinates along the dimensions of one epoch's arrays: those of sources, of kernels, of stamps."""
    return {
        str(k): c.variable
        for array in arrays.values()
        for k, c in array.coords.items()
        if set(c.dims) & set(array.dims)
    }


def _create(group: Group, column: Column) -> None:
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
        attributes=_json(column.name, column.attrs) | ({DTYPE_ATTR: "<U1"} if column.dtype == "str" else {}),
        **options,
    )


def _write_static(group: Group, name: str, variable: xr.Variable) -> None:
    values = variable.values
    text = values.dtype.kind in "USO"
    array = group.create_array(
        name,
        shape=values.shape,
        dtype="str" if text else values.dtype,
        dimension_names=tuple(map(str, variable.dims)),
        attributes=_json(name, variable.attrs) | ({DTYPE_ATTR: values.dtype.str} if text else {}),
    )
    array[...] = values.astype(object) if text else values


def _json(name: str, attrs: Attrs) -> dict[str, Any]:
    return dict(plain(attrs, f"the attributes of {name}", StoreError))


# ---- what a worker writes -------------------------------------------------------------------------------------------


class EpochWriter:
    """The arrays of which every epoch has files of its own; their order is the one in which they are written."""

    def __init__(self, root: Group) -> None:
        own = {key: array for key, array in _growing(root).items() if array.chunks[:1] == (1,)}
        # The status of the sources says that the rest of an epoch is there.
        self._arrays = dict(sorted(own.items(), key=lambda item: item[0][1] == "status"))

    def write(self, row: int, epoch: Epoch) -> None:
        """Write the arrays of an epoch, file by file whole or not at all; a second try replaces what a first left."""
        for key, array in self._arrays.items():
            lost = epoch.status if key[1] == "status" else array.fill_value
            self._put(array, row, epoch.arrays.get(key, lost))

    @staticmethod
    def _put(array: Array[Any], row: int, values: ArrayLike) -> None:
        array[row] = values


# ---- what the run itself writes -------------------------------------------------------------------------------------


class Results:
    """The tables on `time` of a store, held in memory and written in whole chunks; only one run may have it open."""

    def __init__(self, store: Path) -> None:
        self.store = store
        self._root = _open(store)
        self._arrays = _growing(self._root)
        self.n_epochs = int(self.attrs[ROOT["epochs"]])
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
        """A column of `/epochs`, for reading only."""
        values = self._columns["epochs", name].view()
        values.flags.writeable = False
        return values

    def add_run(self, about: Attrs) -> None:
        """Note the provenance of one more run."""
        with storage_errors(self.store):
            self._root.attrs[ROOT["runs"]] = [*self.attrs.get(ROOT["runs"], []), dict(about)]

    def append(self, headers: Sequence[Header]) -> None:
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
            self._write(tuple(self._columns))
            self._root.attrs[ROOT["epochs"]] = n
        self.n_epochs = n

    def _set_units(self, headers: Sequence[Header]) -> None:
        units = next((h["seeing_units"] for h in headers if h.get("seeing_units")), None)
        for (_, name), array in self._arrays.items():
            if name == "seeing" and units is not None:
                array.attrs["units"] = units

    def record(self, row: int, epoch: Epoch) -> None:
        """Take a finished epoch into the tables, its arrays being in the store; visible after the next `flush`."""
        self._set(row, epoch.quality | {"message": epoch.message, "checksum": epoch.checksum, DONE: True})

    def forget(self, rows: NDArray[np.integer[Any]]) -> None:
        """Mark rows as not done, before they are measured again."""
        self._set(rows, {DONE: False})
        self._write((("epochs", DONE),))
        self._set(rows, {name: self._arrays["epochs", name].fill_value for name in _MEASURED})

    def flush(self) -> None:
        """Write what was recorded; `done` last, so that a row that says so is whole."""
        self._write(tuple(("epochs", name) for name in (*_MEASURED, DONE)))

    def _set(self, rows: int | NDArray[np.integer[Any]], values: Mapping[str, object]) -> None:
        """Change rows in memory, and note the chunks in which they lie."""
        for name, value in values.items():
            self._columns["epochs", name][rows] = value
        self._dirty |= {int(row) // _ROWS for row in np.atleast_1d(rows)}

    def _write(self, keys: Sequence[tuple[str, str]]) -> None:
        """Write the chunks that changed; nothing else puts a table into the store."""
        with storage_errors(self.store):
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
            if longest > int(str(attrs[DTYPE_ATTR])[2:]):
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


def _open(store: Path) -> Group:
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


def _growing(root: Group) -> dict[tuple[str, str], Array[Any]]:
    """Arrays with `time` in front, by group and name."""
    out = {}
    for group, members in root.groups():
        for name, array in members.arrays():
            dims = getattr(array.metadata, "dimension_names", None) or ()
            if dims[:1] == ("time",):
                out[group, name] = array
    return out
