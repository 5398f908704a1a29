"""The command line: ``ztfxr demo``, ``ztfxr run``, ``ztfxr plan``."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; 0 on success, 1 with a message on an error that ztfxr names."""
    options = _parser().parse_args(arguments)
    if not hasattr(options, "run"):
        _parser().print_help()
        return 2
    from ztfxr.errors import ZtfxrError

    try:
        with _log_shown():
            options.run(options)
    except (ZtfxrError, FileNotFoundError) as error:
        print(f"ztfxr: {error}", file=sys.stderr)
        return 1
    return 0


@contextmanager
def _log_shown() -> Iterator[None]:
    """What ztfxr logs, on standard output."""
    logger, handler = logging.getLogger("ztfxr"), logging.StreamHandler(sys.stdout)
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="ztfxr", description="From ZTF images to light curves.")
    commands = parser.add_subparsers(title="commands")
    _add_demos(commands)
    _add_jobs(commands)
    return parser


def _add_demos(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    demo = commands.add_parser("demo", help="run the main job on packaged epochs (the default), or one of its kin")
    demo.set_defaults(run=_semireal, out=Path("ztfxr-demo"), epochs=15, photometry="aperture")
    kinds = demo.add_subparsers(title="demonstrations")
    semireal = kinds.add_parser("semireal", help="packaged semi-real epochs with an injected supernova")
    semireal.add_argument("--epochs", type=int, default=15, metavar="N", help="number of epochs (default: 15)")
    semireal.set_defaults(run=_semireal)
    alerts = kinds.add_parser("alerts", help="alert packets, compared with their own photometry")
    alerts.add_argument("alerts", type=Path, metavar="DIR", help="a folder of ZTF alert packets (*.avro)")
    alerts.set_defaults(run=_alerts)
    field = kinds.add_parser("field", help="frames of one field, with or without WCS: all its stars, ranked")
    field.add_argument("frames", metavar="FRAMES", help="a folder, or a pattern, of FITS frames of one field")
    field.add_argument("--camera", default="fits", help="the camera that took them (default: any, fits)")
    field.add_argument("--saturate", type=float, metavar="DN", help="saturation (default: the camera's, or 60000)")
    field.add_argument("--seeing", metavar="CARD", help="header card of the seeing (default: the camera's)")
    field.set_defaults(run=_field)
    cluster = kinds.add_parser("cluster", help="a job of simulated epochs on a dask cluster of this machine")
    cluster.add_argument("--epochs", type=int, default=100, metavar="N", help="number of epochs (default: 100)")
    cluster.add_argument("--workers", type=int, default=2, metavar="N", help="processes (default: 2)")
    cluster.set_defaults(run=_cluster)
    for kind, folder in ((semireal, "demo"), (alerts, "demo"), (field, "demo"), (cluster, "example")):
        out = Path(f"ztfxr-{folder}")
        kind.add_argument("--out", type=Path, default=out, metavar="DIR", help=f"where to write (default: {out})")
    for kind, default in ((semireal, "aperture"), (field, "psf"), (cluster, "aperture")):
        kind.add_argument(
            "--photometry", choices=["aperture", "psf"], default=default, help=f"how to measure (default: {default})"
        )


def _add_jobs(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    run = commands.add_parser("run", help="run a job of ztfxr.pipeline, or continue it, or append new frames")
    run.add_argument("job", type=Path, metavar="JOB.json", help="as Job.to_json writes it")
    run.add_argument("--store", type=Path, metavar="PATH", help="where results go (default: JOB.zarr beside the job)")
    run.add_argument("--workers", type=int, metavar="N", help="processes of this machine (default: one per core)")
    run.add_argument("--scheduler", metavar="ADDRESS", help="run on this dask scheduler instead (tcp://host:8786)")
    run.add_argument("--retry-skipped", action="store_true", help="measure skipped epochs again")
    run.add_argument("--quiet", action="store_true", help="no progress, no summary")
    run.set_defaults(run=_run)
    plan = commands.add_parser("plan", help="estimate time, memory, reading and room of a job from a few of its frames")
    plan.add_argument("job", type=Path, metavar="JOB.json")
    plan.add_argument("--workers", type=int, nargs="+", default=[1, 2, 8, 32], metavar="N", help="estimate for these")
    plan.add_argument("--sample", type=int, default=3, metavar="N", help="frames to measure (default: 3)")
    plan.set_defaults(run=_plan)


def _recipes() -> ModuleType:
    """The recipes, which draw without a screen."""
    import matplotlib as mpl

    mpl.use("Agg")
    from ztfxr import recipes

    return recipes


def _semireal(options: argparse.Namespace) -> None:
    _recipes().run_semireal(options.out, n_epochs=options.epochs, photometry=options.photometry)


def _alerts(options: argparse.Namespace) -> None:
    _recipes().run_alerts(options.alerts, options.out)


def _field(options: argparse.Namespace) -> None:
    from ztfxr.io.names import frame_paths

    saturate = 60000.0 if options.saturate is None and options.camera == "fits" else options.saturate
    cards = {k: v for k, v in (("saturate", saturate), ("seeing", options.seeing)) if v is not None}
    how = {"photometry": options.photometry, "camera": options.camera}
    _recipes().run_field(frame_paths(options.frames), options.out, **how, **cards)


def _cluster(options: argparse.Namespace) -> None:
    recipes, how = _recipes(), {"workers": options.workers, "photometry": options.photometry}
    recipes.run_cluster(options.out, n_epochs=options.epochs, **how)


def _run(options: argparse.Namespace) -> None:
    from ztfxr import pipeline

    job = pipeline.Job.from_json(options.job)
    store = options.store or options.job.with_suffix(".zarr")
    given = {"retry_skipped": options.retry_skipped, "progress": not options.quiet}
    if options.scheduler is None:
        pipeline.run(job, store, workers=options.workers, **given)
        return
    from distributed import Client

    with Client(options.scheduler) as client:  # type: ignore[no-untyped-call]
        pipeline.run(job, store, client=client, workers=options.workers, **given)


def _plan(options: argparse.Namespace) -> None:
    from ztfxr import pipeline
    from ztfxr.pipeline.planning import plan_lines

    found = pipeline.plan(pipeline.Job.from_json(options.job), workers=options.workers, sample=options.sample)
    print("\n".join(plan_lines(found)))


if __name__ == "__main__":
    sys.exit(main())
