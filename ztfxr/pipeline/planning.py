"""What a job will take, from a few of its frames: time, memory, reading, room for the store."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import xarray as xr

from ztfxr.errors import InputError
from ztfxr.io.remote import is_url
from ztfxr.pipeline.job import Job
from ztfxr.pipeline.results import Results
from ztfxr.pipeline.runner import run
from ztfxr.pipeline.worker import read_headers, run_epoch
from ztfxr.schema import annotate_all

__all__ = ["measure_run_time", "plan", "plan_lines"]

_START_S = 3.0
_SCHEDULER_S = 0.005
_PROGRAM = "import sys; from ztfxr.pipeline.planning import measure_run_time; print(measure_run_time(*sys.argv[1:]))"


def plan(job: Job, *, workers: int | Sequence[int] = 1, sample: int = 3) -> xr.Dataset:
    """Estimate what a job takes, by running it on `sample` frames in a process of its own. Computes.

    Parameters
    ----------
    job
        As for `ztfxr.pipeline.run`; a reference that it builds is built here too, once, of the sampled frames.
    workers
        Numbers of workers to estimate for, each a core of its own that is as fast as this machine's.
    sample
        Frames to measure, spread evenly over the job's, besides the first, which warms up.

    Returns
    -------
    xarray.Dataset
        `seconds` and `memory_total` (bytes) on `workers`; `seconds_per_epoch` on one worker, `seconds_layout`,
        `memory_per_worker`, `bytes_read`, `store_bytes`, `store_bytes_fixed` (the part that does not grow with the
        number of epochs) and `n_epochs` for the whole job. Reading is counted where the system counts it (files on
        Linux), else NaN.

    Notes
    -----
    ``seconds = start + layout + n · max(seconds_per_epoch / workers, 5 ms)``: workers are taken to share nothing but a
    scheduler, whose tasks cost up to 5 ms each. Many workers on one disk may read more slowly.

    Raises
    ------
    InputError
        None of the sampled frames can be measured.
    """
    counts = np.atleast_1d(np.asarray(workers))
    if counts.dtype.kind not in "iu" or counts.min() < 1 or sample < 1:
        raise InputError(f"workers and sample are at least 1; got {workers} and {sample}")
    frames = job.paths()
    chosen = [frames[i] for i in np.unique(np.linspace(0, len(frames) - 1, sample + 1).round().astype(int))]
    return _estimate(_measured(job.with_frames(chosen)), len(frames), counts)


def _measured(job: Job) -> dict[str, Any]:
    """`measure_run_time` in a new process, whose peak of memory is that of the job alone."""
    with TemporaryDirectory(prefix="ztfxr-plan-") as folder:
        path = Path(folder) / "job.json"
        job.to_json(path)
        command = [sys.executable, "-c", _PROGRAM, str(path), str(Path(folder) / "plan.zarr")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise InputError(f"the job does not run on {len(job.frames)} of its frames: {reason}")
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


def _estimate(found: dict[str, Any], n: int, counts: np.ndarray[Any, Any]) -> xr.Dataset:
    each, header = found["seconds_per_epoch"], found["seconds_per_header"]
    start = np.where(counts > 1, _START_S, 0.0)
    seconds = (
        start + found["seconds_layout"] + n * (np.maximum(each / counts, _SCHEDULER_S * (counts > 1)) + header / counts)
    )
    variables = {
        "seconds": ("workers", seconds),
        "memory_total": ("workers", counts * found["memory"]),
        "seconds_per_epoch": each,
        "seconds_layout": found["seconds_layout"],
        "memory_per_worker": found["memory"],
        "bytes_read": n * found["bytes_read"],
        "store_bytes": found["store_fixed"] + n * found["store_bytes"],
        "store_bytes_fixed": found["store_fixed"],
        "n_epochs": n,
    }
    return annotate_all(xr.Dataset(variables, {"workers": counts}, {"sampled_epochs": found["sampled"]}))


def plan_lines(found: xr.Dataset) -> list[str]:
    """A plan for people."""
    values = {str(k): float(v) for k, v in found.data_vars.items() if v.ndim == 0}
    lines = [
        f"{values['n_epochs']:.0f} epochs at {values['seconds_per_epoch']:.3g} s on one worker",
        f"{values['bytes_read'] / 1e9:.3g} GB to read, {values['store_bytes'] / 1e9:.3g} GB of store, "
        f"{values['memory_per_worker'] / 1e9:.2f} GB of memory a worker",
    ]
    for n, seconds in zip(found["workers"].values, found["seconds"].values, strict=True):
        lines.append(f"{int(n):5d} worker{'s' if n > 1 else ' '}: {float(seconds) / 60:.1f} min")
    return lines


def measure_run_time(job: str, store: str) -> str:
    """What the frames of a job take, measured in this process, as JSON. Computes; `plan` runs it in one of its own."""
    given = Job.from_json(Path(job))
    first, *rest = given.paths()
    start = time.perf_counter()
    run(given.with_frames([first]), store, workers=1, progress=False)
    layout, fixed = time.perf_counter() - start, _size(Path(store))
    start = time.perf_counter()
    headers = read_headers(tuple(rest or [first]), given.camera)
    header = (time.perf_counter() - start) / len(headers)
    results = Results(Path(store))
    results.append(headers if rest else [])
    seconds, read = [], []
    for row, each in enumerate(headers, start=1 if rest else 0):
        before, start = _bytes_read(), time.perf_counter()
        epoch = run_epoch((row, each["path"]), store=store, token=results.token)
        if not epoch.skipped:
            seconds.append(time.perf_counter() - start)
            read.append(np.nan if is_url(each["path"]) else _bytes_read() - before)
    if not seconds:
        raise InputError(f"none of the {len(headers)} sampled frames can be measured; {each['frame']}: {epoch.message}")
    out = {"seconds_per_epoch": float(np.median(seconds)), "seconds_per_header": header, "seconds_layout": layout}
    out |= {"bytes_read": float(np.median(read)), "memory": _peak_memory(), "sampled": len(seconds)}
    out["store_fixed"] = fixed
    return json.dumps(out | {"store_bytes": max(0.0, (_size(Path(store)) - fixed) / max(1, len(rest)))})


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _bytes_read() -> float:
    """Bytes that this process has read so far, cached by the system or not; NaN where it does not count them."""
    return _proc("io", "rchar")


def _peak_memory() -> float:
    """Peak of resident memory of this process, in bytes."""
    # Not getrusage where there is better: in it a new process starts from the peak of the one that made it.
    peak = _proc("status", "VmHWM") * 1024
    if np.isfinite(peak) or sys.platform == "win32":
        return peak
    import resource

    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def _proc(file: str, key: str) -> float:
    path = Path("/proc/self") / file
    lines = path.read_text().splitlines() if path.exists() else []
    return next((float(line.split()[1]) for line in lines if line.startswith(f"{key}:")), np.nan)
