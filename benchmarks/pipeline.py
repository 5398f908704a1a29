"""Many epochs of a cut-out, or some of whole quadrants: time and memory per epoch, and what the scheduler adds.

``python -m benchmarks.pipeline 100 1000`` prints the numbers for runs of 100 and 1,000 epochs, and of 1 and 2 workers;
``python -m benchmarks.pipeline --quadrants 12 --positions 10000`` those of 12 frames of 3080 x 3072 pixels, and what
`ztfxr.pipeline.plan` says of them. The frames are simulated, in a temporary folder.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from distributed.diagnostics.plugin import SchedulerPlugin

from ztfxr import pipeline
from ztfxr.pipeline.planning import _peak_memory, plan_lines
from ztfxr.pipeline.pools import DaskPool
from ztfxr.samples import make_epochs
from ztfxr.testing.scenes import make_scene

SIZE, N_SOURCES, N_SCENES = 256, 200, 8
QUADRANT, N_STARS, N_QUADRANTS = (3080, 3072), 6000, 3
_OBSMJD = b"OBSMJD  ="
_folders: list[TemporaryDirectory[str]] = []


def make_frames(folder: Path, n: int) -> tuple[list[str], str]:
    """`n` frames with masks of 300 pixels, each exposure with a time of its own, and their reference."""
    made = make_epochs(folder / "scenes", n_epochs=min(n, N_SCENES))
    return _repeated(made.paths, folder / "frames", n), str(made.reference)


def make_quadrants(folder: Path, n: int) -> tuple[list[str], str]:
    """The same with frames of a whole quadrant."""
    scene = make_scene(QUADRANT, n_epochs=min(n, N_QUADRANTS), n_stars=N_STARS)
    *paths, reference = scene.write(folder / "scenes")
    return _repeated(paths, folder / "frames", n), str(reference)


def _repeated(paths: Sequence[Path], frames: Path, n: int) -> list[str]:
    """`n` frames that repeat those at `paths`, an exposure every quarter of an hour."""
    frames.mkdir()
    out = []
    for i in range(n):
        path = paths[i % len(paths)]
        name = f"ztf_{20210101000000 + i}_000655_zr_c13_o_q3_sciimg.fits"
        (frames / name).write_bytes(_at(path.read_bytes(), 59215.0 + i / 100))
        (frames / _mask(name)).write_bytes(path.with_name(_mask(path.name)).read_bytes())
        out.append(str(frames / name))
    return out


def _mask(name: str) -> str:
    return name.replace("sciimg", "mskimg")


def _at(frame: bytes, mjd: float) -> bytes:
    """The frame with another OBSMJD card."""
    place = frame.index(_OBSMJD)
    return frame[:place] + f"OBSMJD  = {mjd:20.6f}".encode().ljust(80) + frame[place + 80 :]


def make_job(frames: list[str], reference: str) -> pipeline.Job:
    """Difference imaging of a cut-out and forced photometry of 200 sources."""
    rng = np.random.default_rng(0)
    x, y = rng.uniform(30, 270, (2, N_SOURCES))
    return pipeline.Job(
        frames=tuple(frames), positions={"x": x, "y": y}, reference=reference, cutout={"x": 150, "y": 150, "size": SIZE}
    )


def make_quadrant_job(frames: list[str], reference: str, n_positions: int) -> pipeline.Job:
    """Difference imaging of whole frames and forced photometry."""
    rng = np.random.default_rng(0)
    y, x = (rng.uniform(20, side - 20, n_positions) for side in QUADRANT)
    return pipeline.Job(frames=tuple(frames), positions={"x": x, "y": y}, reference=reference)


class _Finished(SchedulerPlugin):  # type: ignore[misc]
    """Counts the tasks that finish."""

    name = "finished"

    def __init__(self) -> None:
        self.count = 0

    def transition(self, *change: Any, **_: Any) -> None:
        self.count += change[2] == "memory"


class Epochs:
    """A whole run in this process: layout, epochs, summary."""

    params = ([4, 40],)
    param_names = ("epochs",)
    timeout = 600

    def setup(self, epochs: int) -> None:
        self._folder = TemporaryDirectory(prefix="ztfxr-benchmark-")
        _folders.append(self._folder)
        self._job = make_job(*make_frames(Path(self._folder.name), epochs))
        self._store = Path(self._folder.name) / "run.zarr"

    def teardown(self, *_: object) -> None:
        self._folder.cleanup()

    def time_run(self, *_: object) -> None:
        shutil.rmtree(self._store, ignore_errors=True)
        pipeline.run(self._job, self._store, workers=1, progress=False)

    def peakmem_run(self, *_: object) -> None:
        self.time_run()


def measure(job: str, store: str, n: int) -> dict[str, float]:
    """Run the first `n` frames after one that warms up, in this process: its numbers."""
    whole = pipeline.Job.from_json(Path(job))
    pipeline.run(whole.with_frames(whole.paths()[:1]), f"{store}.warm", workers=1, progress=False)
    start = time.perf_counter()
    pipeline.run(whole.with_frames(whole.paths()[:n]), store, workers=1, progress=False)
    return {"epochs": n, "seconds_per_epoch": (time.perf_counter() - start) / n, "peak_mb": _peak_memory() / 1e6}


def in_new_process(*arguments: str) -> dict[str, float]:
    done = subprocess.run([sys.executable, "-m", "benchmarks.pipeline", "--measure", *arguments], capture_output=True)
    if done.returncode:
        raise RuntimeError(done.stderr.decode())
    return dict(json.loads(done.stdout.decode().splitlines()[-1]))


def nothing(item: int) -> int:
    """An epoch that only client and scheduler take time for."""
    return item


def on_cluster(job: pipeline.Job, folder: Path, n_workers: int) -> Iterator[tuple[str, Any]]:
    """Seconds, tasks and memory of a LocalCluster per epoch, and seconds per epoch that does nothing."""
    from distributed import Client, LocalCluster

    warm = job.with_frames(job.paths()[: max(n_workers, min(4 * n_workers, len(job.paths()) // 4))])
    with (
        LocalCluster(n_workers=n_workers, threads_per_worker=1, dashboard_address="127.0.0.1:0") as cluster,
        Client(cluster) as client,
    ):
        pipeline.run(warm, folder / f"warm-{n_workers}.zarr", client=client, progress=False)
        client.register_plugin(_Finished(), name=_Finished.name)
        cpu, start = sum(client.run(time.process_time).values()), time.perf_counter()
        pipeline.run(job, folder / f"run-{n_workers}.zarr", client=client, progress=False)
        n = len(job.paths())
        yield "seconds per epoch", (time.perf_counter() - start) / n
        yield "seconds of the workers' processors per epoch", (sum(client.run(time.process_time).values()) - cpu) / n
        yield "tasks per epoch", client.run_on_scheduler(_tasks) / n
        yield "peak MB of each worker", [round(v / 1e6) for v in client.run(_peak_memory).values()]
        start = time.perf_counter()
        count = sum(1 for _ in DaskPool(client).map(nothing, range(1000)))
        yield "seconds of the scheduler per empty epoch", (time.perf_counter() - start) / count


def _tasks(dask_scheduler: Any) -> int:
    return int(dask_scheduler.plugins[_Finished.name].count)


def whole_quadrants(n: int, n_positions: int) -> None:
    """Runs on one and on two workers, and the plan of an archive."""
    with TemporaryDirectory(prefix="ztfxr-benchmark-") as name:
        folder = Path(name)
        job = make_quadrant_job(*make_quadrants(folder, n), n_positions)
        for n_workers in (1, 2):
            print(f"LocalCluster of {n_workers}, {n} quadrants, {n_positions} positions:", flush=True)
            report(job, folder, n_workers)
        planned = pipeline.plan(job, workers=[1, 2], sample=3)
        print("plan of these epochs:", *plan_lines(planned), sep="\n  ")
        for scalar in (v for v in planned.data_vars.values() if v.ndim == 0):
            print(f"  {scalar.name}: {float(scalar):.4g} {scalar.attrs.get('units', '')}")


def report(job: pipeline.Job, folder: Path, n_workers: int) -> None:
    for what, value in on_cluster(job, folder, n_workers):
        print(f"  {what}: {value if isinstance(value, list) else round(value, 5)}", flush=True)


def main(counts: list[int]) -> None:
    with TemporaryDirectory(prefix="ztfxr-benchmark-") as name:
        folder = Path(name)
        job = make_job(*make_frames(folder, max(counts)))
        job.to_json(folder / "job.json")
        for n in counts:
            print(in_new_process(str(folder / "job.json"), str(folder / f"run-of-{n}.zarr"), str(n)), flush=True)
        for n_workers in (1, 2):
            print(f"LocalCluster of {n_workers}, {len(job.paths())} epochs:", flush=True)
            report(job, folder, n_workers)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pipeline", description=__doc__)
    parser.add_argument("counts", type=int, nargs="*", default=[100, 1000], metavar="N", help="epochs of the cut-out")
    parser.add_argument("--quadrants", type=int, metavar="N", help="whole quadrants instead, so many")
    parser.add_argument("--positions", type=int, default=10_000, metavar="N", help="on each quadrant (10000)")
    return parser.parse_args()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        print(json.dumps(measure(sys.argv[2], sys.argv[3], int(sys.argv[4]))))
    elif (options := parse()).quadrants:
        whole_quadrants(options.quadrants, options.positions)
    else:
        main(options.counts)
