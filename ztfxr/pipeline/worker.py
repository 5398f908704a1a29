"""What runs on a worker: an epoch measured and written, from nothing but a path and a row."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import xarray as xr

from ztfxr.errors import StoreError
from ztfxr.io.cameras import CameraLike
from ztfxr.pipeline.epoch import measure, read_header
from ztfxr.pipeline.job import Job
from ztfxr.pipeline.prepare import Shared
from ztfxr.pipeline.results import ROOT, Epoch, EpochWriter, storage_errors
from ztfxr.store.zarr import open_zarr

__all__ = ["read_headers", "run_epoch"]

# Within a task of a cluster dask would send these reads to the scheduler, as tasks for whichever worker.
_HERE = {"scheduler": "synchronous"}


def read_headers(paths: tuple[str, ...], camera: CameraLike = "ztf") -> list[dict[str, Any]]:
    """`read_header` of several frames."""
    return [read_header(path, camera) for path in paths]


def run_epoch(item: tuple[int, str], *, store: str, token: str) -> Epoch:
    """Measure the frame ``item = (row, path)`` and write its arrays; the rest of its row is returned.

    A worker that dies leaves nothing that a second try does not replace; the status of the sources says `not_run` until
    all else is there.
    """
    row, path = item
    state = _state(store, token)
    epoch = measure(path, state.job, state.shared)
    with storage_errors(store):
        state.writer.write(row, epoch)
    return replace(epoch, arrays={})


class WorkerState:
    """What a process keeps between epochs: the job, what its epochs share, and where it writes them."""

    def __init__(self, store: str) -> None:
        import zarr

        root = zarr.open_group(store, mode="r+", zarr_format=3, use_consolidated=False)
        self.job = Job.from_json(str(root.attrs[ROOT["job"]]))
        self.shared = _shared(Path(store), self.job)
        self.writer = EpochWriter(root)


@lru_cache(maxsize=2)
def _state(store: str, token: str) -> WorkerState:  # noqa: ARG001
    """The state for one layout of a store; the token names it, so that a store that grew is opened anew."""
    return WorkerState(store)


def _shared(store: Path, job: Job) -> Shared:
    positions = open_zarr(store)["lightcurve"]
    coords = {k: v.variable.load(**_HERE) for k, v in positions.coords.items() if v.dims == ("source",)}
    psf = _loaded(store / "psf") if job.photometry["method"] == "psf" else None
    return Shared(_loaded(store / "reference"), xr.Dataset(coords=coords), psf)


def _loaded(store: Path) -> xr.Dataset:
    found = open_zarr(store)
    if not isinstance(found, xr.Dataset):
        raise StoreError(f"{store} should hold a Dataset; it holds a tree: lay out a new store")
    return found.load(**_HERE)
