"""The command line: ``ztfxr demo``, ``ztfxr run``, ``ztfxr plan``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; 0 on success, 1 with a message on an error that ztfxr names."""
    options = _parser().parse_args(arguments)
    if not hasattr(options, "run"):
        _parser().print_help()
        return 2
    from ztfxr.errors import ZtfxrError

    try:
        options.run(options)
    except (ZtfxrError, FileNotFoundError) as error:
        print(f"ztfxr: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="ztfxr", description="From ZTF images to light curves.")
    commands = parser.add_subparsers(title="commands")
    demo = commands.add_parser("demo", help="run the main job on packaged semi-real epochs, or on alert packets")
    demo.add_argument(
        "--alerts", type=Path, metavar="DIR", help="a folder of ZTF alert packets (*.avro) to run on instead"
    )
    demo.add_argument(
        "--out", type=Path, default=Path("ztfxr-demo"), metavar="DIR", help="where to write (default: ztfxr-demo)"
    )
    demo.add_argument(
        "--frames", type=Path, metavar="DIR", help="a folder of FITS frames of one field, with or without WCS"
    )
    demo.add_argument("--saturate", type=float, default=60000.0, metavar="DN", help="saturation of --frames (60000)")
    demo.add_argument("--seeing", default=None, metavar="CARD", help="header card of the seeing of --frames")
    demo.add_argument("--epochs", type=int, default=15, metavar="N", help="number of semi-real epochs (default: 15)")
    demo.set_defaults(run=_demo)
    _add_jobs(commands)
    return parser


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


def _demo(options: argparse.Namespace) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from ztfxr import demo, survey

    if options.alerts is not None:
        demo.run_alerts(options.alerts, options.out)
    elif options.frames is not None:
        paths = sorted(p for p in options.frames.iterdir() if ".fits" in p.name)
        survey.run_frames(paths, options.out, saturate=options.saturate, seeing=options.seeing)
    else:
        demo.run_semireal(options.out, n_epochs=options.epochs)


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
