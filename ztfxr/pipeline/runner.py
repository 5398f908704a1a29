"""Run a job: lay out its store, fill it epoch by epoch, and continue wherever an earlier run stopped."""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from os import PathLike
from pathlib import Path
from typing import Any, Literal, cast, get_args

import numpy as np
import xarray as xr

from ztfxr.errors import FrameError, InputError, StoreError
from ztfxr.io.names import frame_name
from ztfxr.io.remote import shown
from ztfxr.pipeline.epoch import file_checksum, products
from ztfxr.pipeline.job import Job
from ztfxr.pipeline.lock import locked
from ztfxr.pipeline.pools import Pool, WorkersDiedError, open_pool
from ztfxr.pipeline.prepare import Shared, prepare
from ztfxr.pipeline.progress import Progress
from ztfxr.pipeline.results import DONE, ROOT, Epoch, Results, Template, create
from ztfxr.pipeline.summary import summary, summary_lines
from ztfxr.pipeline.worker import read_headers, run_epoch
from ztfxr.schema import EXPOSURE, NOT_MEASURED, STATUS_PLANES, fill_value, planes_to_bits

__all__ = ["run"]

Errors = Literal["status", "raise"]

_PACKAGES = ("ztfxr", "numpy", "scipy", "xarray", "dask", "zarr", "astropy", "numba", "sep")
_HEADERS_A_TASK = 50
_FLUSH_S, _FLUSH_EPOCHS = 2.0, 200
_UNREADABLE = planes_to_bits(["unreadable"], STATUS_PLANES)


def run(
    job: Job,
    store: str | PathLike[str],
    *,
    client: Any = None,
    workers: int | None = None,
    resume: bool = True,
    retry_skipped: bool = False,
    errors: Errors = "status",
    accept_version: bool = False,
    progress: bool = True,
) -> xr.Dataset:
    """Measure all frames of a job into a zarr store, each once; run it again to continue or to append. Computes.

    The store is laid out first, with a row for every frame: earliest first, unreadable ones last. A frame that is
    damaged keeps its row, NaN, with a status and a message; the others are not touched by it. A run that was killed
    continues where it stopped, and ends with the same arrays, bit by bit, as one that was not. Frames that are new to
    the job are appended behind the others, earliest first among themselves.

    Parameters
    ----------
    job
        What to do.
    store
        Path of the store on a file system that every worker sees; ``NAME.zarr`` by custom. A hidden file
        ``.NAME.zarr.lock`` beside it keeps a second run out.
    client
        A `distributed.Client` of any cluster to run on; by default processes of this machine.
    workers
        Number of those processes, by default one per core; 1 runs in this process. They start as new Python processes,
        so a script that calls this needs ``if __name__ == "__main__":``.
    resume
        Continue a store that is there. False: refuse it.
    retry_skipped
        Measure those epochs again that were skipped.
    errors
        ``"status"``, or ``"raise"``: stop at the first frame that cannot be used.
    accept_version
        Continue a store that another version of ztfxr began, whose numbers may differ.
    progress
        Say on standard error how far it is, and in the end what was skipped and why.

    Returns
    -------
    xarray.Dataset
        As of `ztfxr.pipeline.summary`, with `seconds` and the number of epochs `run` by this call among its attributes.

    Notes
    -----
    ``ztfxr.open_zarr(store)`` gives a DataTree: `lightcurve` (time, source), `epochs` (time) with `done`, `message`,
    `path` and `checksum`, `reference`, and, where the job keeps them, `stamps`, `kernels`, `psf`. An epoch that was not
    run yet is NaN with the status `not_run`. Attributes hold the job, its options, and the versions of each run.

    Raises
    ------
    InputError
        No frames, or two with one name.
    StoreError
        The options or positions are not those that the store was begun with, another run holds it, it cannot be
        written, or it is not the store of a run. What is there stays.
    FrameError
        With ``errors="raise"``.
    """
    if errors not in get_args(Errors):
        raise InputError(f"errors is 'status' or 'raise'; got {errors!r}")
    path, start = _local(store), time.monotonic()
    frames = job.paths()
    with locked(path), open_pool(client, workers, len(frames)) as pool:
        results = _open_results(job, frames, path, pool, resume, accept_version)
        if retry_skipped:
            results.forget(np.flatnonzero((results.column("epoch_status") & NOT_MEASURED != 0) & results.column(DONE)))
        pending = _pending(results, frames)
        _measure_pending(results, pending, pool, errors, progress=progress)
    found = summary(path)
    found.attrs |= {"store": str(path), "run": len(pending), "seconds": time.monotonic() - start}
    if progress:
        for line in summary_lines(found):
            print(line, file=sys.stderr)
    return found


def _local(store: str | PathLike[str]) -> Path:
    if isinstance(store, str) and "://" in store:
        raise InputError(f"a run writes to a path, which all its workers see, not to a URL; got {shown(store)}")
    return Path(os.path.realpath(store))


# ---- the store ------------------------------------------------------------------------------------------------------


def _open_results(
    job: Job, frames: Sequence[str], store: Path, pool: Pool, resume: bool, accept_version: bool
) -> Results:
    """The store, with a row for every frame."""
    about: dict[str, Any] = {
        "versions": {name: version(name) for name in _PACKAGES},
        "python": platform.python_version(),
    }
    about |= {"started": datetime.now(UTC).isoformat(timespec="seconds"), "frames": len(frames)}
    options = json.dumps(_options(job), sort_keys=True)
    if not store.exists():
        headers = _headers(job, frames, pool)
        kept = job.with_frames(frames[:1]).without_secrets()
        attrs = {ROOT["job"]: kept.to_json(), ROOT["options"]: options, ROOT["runs"]: [about]}
        shared = prepare(job, headers)
        static = {"reference": shared.reference} | ({} if shared.psf is None else {"psf": shared.psf})
        create(store, _template(job, shared), static, headers, attrs)
        return Results(store)
    if not resume:
        raise StoreError(f"{store} exists already; continue it with resume=True, or choose another path")
    results = Results(store)
    _same_job(results, options, accept_version)
    new = _new(results, frames)
    if new:
        results.append(_headers(job, new, pool))
    results.add_run(about)
    return results


def _template(job: Job, shared: Shared) -> Template:
    """What an epoch will give, lazy, with the reference for a frame; checks options too."""
    known = shared.reference.coords
    frame = shared.reference.assign_coords({name: fill_value(name) for name in EXPOSURE if name not in known}).chunk()
    return {key: _labeled(array, shared.positions) for key, array in products(frame, job, shared).items()}


def _labeled(array: xr.DataArray, positions: xr.Dataset) -> xr.DataArray:
    """The array with the labels of its dimensions and those of the positions, and no others."""
    array = array.drop_vars([name for name in array.coords if name not in array.dims])
    return array.assign_coords(positions.coords) if "source" in array.dims else array


def _options(job: Job) -> dict[str, Any]:
    """The options of a job, with what tells another reference of the same name."""
    out = job.options()
    if isinstance(job.reference, str) and (found := file_checksum(job.reference)):
        out["reference_checksum"] = found
    return out


def _same_job(results: Results, options: str, accept_version: bool) -> None:
    then, now = json.loads(results.attrs[ROOT["options"]]), json.loads(options)
    changed = [
        f"{k}: {_short(then.get(k))} then, {_short(now.get(k))} now" for k in now | then if then.get(k) != now.get(k)
    ]
    if changed:
        raise StoreError(
            f"{results.store} was begun with other options, and their results must not mix: {'; '.join(changed)}. "
            "Choose another path, or use the old options"
        )
    began = results.attrs[ROOT["runs"]][0]["versions"]["ztfxr"]
    if began != version("ztfxr") and not accept_version:
        raise StoreError(
            f"{results.store} was begun by ztfxr {began}, this is {version('ztfxr')}, and their numbers may differ: "
            "choose another path, continue with the old version, or mix them with accept_version=True"
        )


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _new(results: Results, frames: Sequence[str]) -> list[str]:
    known = {str(name) for name in results.column("frame")}
    return [path for path in frames if frame_name(path) not in known]


def _headers(job: Job, frames: Sequence[str], pool: Pool) -> list[dict[str, Any]]:
    """Headers of frames, earliest first, unknown times last."""
    batches = [tuple(frames[i : i + _HEADERS_A_TASK]) for i in range(0, len(frames), _HEADERS_A_TASK)]
    found: list[dict[str, Any]] = []
    for _, headers in pool.map(partial(read_headers, camera=job.camera), batches):
        if isinstance(headers, WorkersDiedError):
            raise headers
        found += headers
    return sorted(found, key=_when)


def _when(header: Mapping[str, Any]) -> tuple[bool, int, str]:
    time_ = np.datetime64(header["time"], "ns")
    return bool(np.isnat(time_)), int(time_.astype(np.int64)), str(header["frame"])


# ---- the epochs -----------------------------------------------------------------------------------------------------


def _pending(results: Results, frames: Sequence[str]) -> list[tuple[int, str]]:
    """Rows that are to be measured, with where their frames are now."""
    where = {frame_name(path): path for path in frames}
    names = results.column("frame")
    rows = np.flatnonzero(~results.column(DONE).astype(bool))
    return [(int(row), where[str(names[row])]) for row in rows if str(names[row]) in where]


def _measure_pending(
    results: Results, pending: Sequence[tuple[int, str]], pool: Pool, errors: Errors, *, progress: bool
) -> None:
    """Measure the pending epochs; what is finished is kept, whatever ends the loop."""
    function = cast(
        "Callable[[tuple[int, str]], Epoch]", partial(run_epoch, store=str(results.store), token=results.token)
    )
    with _flushing(results) as flush, closing(Progress(len(pending), enabled=progress)) as counter:
        for (row, path), found in pool.map(function, pending):
            epoch = _epoch_of_dead_worker(found) if isinstance(found, WorkersDiedError) else found
            results.record(row, epoch)
            counter.step(skipped=epoch.skipped)
            flush()
            if epoch.skipped and errors == "raise":
                raise FrameError(f"{shown(path)}: {epoch.message}")


def _epoch_of_dead_worker(error: WorkersDiedError) -> Epoch:
    return Epoch({"epoch_status": _UNREADABLE}, str(error))


@contextmanager
def _flushing(results: Results) -> Iterator[Callable[[], None]]:
    """Flush now and then, and at the end: a kill costs seconds of work, and the tables are not written per epoch."""
    last, count = time.monotonic(), 0

    def flush() -> None:
        nonlocal last, count
        count += 1
        if time.monotonic() - last >= _FLUSH_S or count >= _FLUSH_EPOCHS:
            results.flush()
            last, count = time.monotonic(), 0

    try:
        yield flush
    finally:
        results.flush()
