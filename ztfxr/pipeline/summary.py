"""What became of the epochs of a run."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike

import numpy as np
import xarray as xr

from ztfxr.errors import StoreError
from ztfxr.pipeline.results import DONE, ROOT
from ztfxr.schema import NOT_MEASURED, plane_names
from ztfxr.store.zarr import open_zarr

__all__ = ["summary", "summary_lines"]

_MEASURED, _NOT_RUN = "measured", "not_run"


def summary(store: str | PathLike[str]) -> xr.Dataset:
    """How many epochs of a store were measured, how many skipped and why. Computes.

    Parameters
    ----------
    store
        Of `ztfxr.pipeline.run`, finished or not; may be read while a run writes to it.

    Returns
    -------
    xarray.Dataset
        `n_epochs` and `example`, the frame and message of the first of them, on `outcome`: ``"measured"``, the names of
        the statuses that epochs were skipped for, and ``"not_run"``. Attributes `measured`, `skipped`, `not_run`.

    Raises
    ------
    StoreError
        Nothing is there, or it is not a store of a run.
    """
    tree = open_zarr(store)
    if not isinstance(tree, xr.DataTree) or ROOT["format"] not in tree.attrs:
        raise StoreError(f"{store} was not written by ztfxr.pipeline.run")
    epochs = tree["epochs"].to_dataset()
    done, bits = epochs[DONE].values.astype(bool), epochs["epoch_status"].values
    outcomes = np.array([_outcome(int(b)) if d else _NOT_RUN for d, b in zip(done, bits, strict=True)], dtype=object)
    names = sorted(set(outcomes) | {_MEASURED}, key=lambda n: (n != _MEASURED, n == _NOT_RUN, n))
    counts = [int((outcomes == name).sum()) for name in names]
    examples = [_example(epochs, np.flatnonzero(outcomes == name)) for name in names]
    out = xr.Dataset({"n_epochs": ("outcome", counts), "example": ("outcome", examples)}, {"outcome": names})
    by_name = dict(zip(names, counts, strict=True))
    skipped = sum(n for name, n in by_name.items() if name not in (_MEASURED, _NOT_RUN))
    out.attrs = {"measured": by_name[_MEASURED], "skipped": skipped, "not_run": by_name.get(_NOT_RUN, 0)}
    return out


def _outcome(bits: int) -> str:
    return "+".join(plane_names(bits & NOT_MEASURED)) or _MEASURED


def _example(epochs: xr.Dataset, rows: Sequence[int] | np.ndarray[tuple[int], np.dtype[np.intp]]) -> str:
    if len(rows) == 0:
        return ""
    frame, message = (str(epochs[name].values[rows[0]]) for name in ("frame", "message"))
    return f"{frame}: {message}" if message else frame


def summary_lines(found: xr.Dataset) -> list[str]:
    """The summary for people: a line for each outcome."""
    lines = []
    for name, n, example in zip(
        found["outcome"].values, found["n_epochs"].values, found["example"].values, strict=True
    ):
        note = f"  (first: {example})" if example and name not in (_MEASURED, _NOT_RUN) else ""
        lines.append(f"{int(n):6d} {str(name).replace('_', ' ')}{note}")
    return lines
