"""``ztfxr run`` and ``ztfxr plan``: jobs of thousands of frames."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import rich_click as click
import xarray as xr

from ztfxr import pipeline
from ztfxr.cli._base import Reply, command, whisper
from ztfxr.pipeline.planning import plan_lines

__all__ = ["plan", "run", "run_job", "summary_data"]

_JOB = click.argument("job", metavar="JOB.json", help="As Job.to_json writes it.")


@command("run")
@_JOB
@click.argument("store", required=False, metavar="[STORE]", help="Where results go [default: JOB.zarr beside the job].")
@click.option("--workers", type=click.IntRange(1), metavar="N", help="Processes of this machine [default: one a core].")
@click.option("--scheduler", metavar="ADDRESS", help="Run on this dask scheduler instead: tcp://host:8786.")
@click.option("--retry-skipped", is_flag=True, help="Measure skipped epochs again.")
def run(job: str, store: str | None, workers: int | None, scheduler: str | None, retry_skipped: bool) -> Reply:
    """A job of many frames: run it, continue it, append to it."""
    made = pipeline.Job.from_json(job)
    path = Path(job).with_suffix(".zarr") if store is None else Path(store)
    given = {"workers": workers, "retry_skipped": retry_skipped}
    if scheduler is None:
        return Reply([], summary_data(run_job(made, path, **given)), [path])
    from distributed import Client

    with Client(scheduler) as client:  # type: ignore[no-untyped-call]
        return Reply([], summary_data(run_job(made, path, client=client, **given)), [path])


def run_job(job: pipeline.Job, store: Path, **how: Any) -> xr.Dataset:
    """The summary of a run, which says on standard error how far it is, unless nothing is to be said."""
    return pipeline.run(job, store, progress=not whisper(), **how)


def summary_data(found: xr.Dataset) -> dict[str, Any]:
    """The summary of a run for machines."""
    counts = dict(zip(found["outcome"].values.tolist(), found["n_epochs"].values.tolist(), strict=True))
    return {"outcomes": counts} | {name: found.attrs[name] for name in ("measured", "skipped", "run", "seconds")}


@command("plan")
@_JOB
@click.option(
    "--workers", default="1,2,8,32", show_default=True, metavar="N,N,...", help="Numbers of processes to estimate for."
)
@click.option("--sample", type=click.IntRange(1), default=3, show_default=True, metavar="N", help="Frames to measure.")
def plan(job: str, workers: str, sample: int) -> Reply:
    """What a job will take, from a few of its frames.

    Time, memory, reading and room.
    """
    numbers_of_workers = _numbers(workers)
    found = pipeline.plan(pipeline.Job.from_json(job), workers=numbers_of_workers, sample=sample)
    numbers = {str(name): value.values for name, value in found.data_vars.items()}
    return Reply(plan_lines(found), numbers | {"workers": found["workers"].values})


def _numbers(text: str) -> Sequence[int]:
    try:
        return [int(each) for each in text.replace(",", " ").split()]
    except ValueError:
        raise click.BadParameter(
            f"{text!r} is no list of whole numbers, such as 1,2,8", param_hint="--workers"
        ) from None
