"""The command line: ``ztfxr demo``."""

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
    return parser


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


if __name__ == "__main__":
    sys.exit(main())
