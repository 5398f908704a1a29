"""Light curves of simulated epochs by a dask cluster on this machine: ``python -m ztfxr.pipeline.example``.

A module and not a script in the documentation, so that it runs from a clone and from an installed package alike.
"""

from __future__ import annotations

import argparse
import shutil
import time
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import xarray as xr

from ztfxr.errors import InputError
from ztfxr.pipeline.job import Job
from ztfxr.pipeline.runner import run
from ztfxr.samples import make_epochs
from ztfxr.store.zarr import open_zarr

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> xr.Dataset:
    """Make the epochs, measure them on a `LocalCluster`, print and draw the light curve; it is returned. Computes."""
    options = _parser().parse_args(arguments)
    folder = _fresh(options.out)
    print(f"making {options.epochs} simulated epochs with an injected supernova in {folder / 'frames'}")
    made = make_epochs(folder / "frames", n_epochs=options.epochs)
    job = Job(
        frames=str(folder / "frames" / "ztf_202[01]*_sciimg.fits"),
        positions={"x": [float(made.truth["x"])], "y": [float(made.truth["y"])], "source_id": ["supernova"]},
        reference=str(made.reference),
        cutout={"x": 150, "y": 150, "size": 256},
    )
    start = time.monotonic()
    _run(job, folder / "run.zarr", options.workers)
    seconds = time.monotonic() - start
    found = open_zarr(folder / "run.zarr")["lightcurve"].to_dataset().isel(source=0).load()
    found = found.assign(injected=("time", made.truth["flux"].values))
    print(*_table(found), sep="\n")
    _draw(found, folder / "lightcurve.png")
    print(f"{options.epochs} epochs in {seconds:.1f} s by {options.workers} workers, their start included")
    print(f"store:  {folder / 'run.zarr'}\nfigure: {folder / 'lightcurve.png'}")
    return found


def _run(job: Job, store: Path, workers: int) -> None:
    from distributed import Client, LocalCluster

    with (
        LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address="127.0.0.1:0") as cluster,  # type: ignore[no-untyped-call]
        Client(cluster) as client,  # type: ignore[no-untyped-call]
    ):
        hint = "" if find_spec("bokeh") else "  (its pages need bokeh: pip install bokeh)"
        print(f"dashboard: {client.dashboard_link}{hint}", flush=True)
        run(job, store, client=client)


def _fresh(folder: Path) -> Path:
    """The folder, without what an earlier call of this example left in it."""
    for name in ("frames", "run.zarr"):
        if (folder / name).exists() and not (folder / ".ztfxr-example").exists():
            raise InputError(f"{folder / name} exists and is not of this example; give another folder with --out")
        shutil.rmtree(folder / name, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ".ztfxr-example").touch()
    return folder


def _table(found: xr.Dataset) -> Iterator[str]:
    """A line for each epoch, and how far all are from what was injected."""
    flux, error, injected = (found[name].values for name in ("flux", "flux_err", "injected"))
    pull = (flux - injected) / error
    yield f"{'date':<16} {'flux':>9} {'error':>7} {'injected':>9} {'pull':>6}"
    for date, *numbers in zip(np.datetime_as_string(found["time"], unit="m"), flux, error, injected, pull, strict=True):
        yield "{} {:9.1f} {:7.1f} {:9.1f} {:6.2f}".format(date, *numbers)
    good = pull[found["status"].values == 0]
    yield f"pulls of {good.size} good epochs: mean {good.mean():.2f}, standard deviation {good.std():.2f}"


def _draw(found: xr.Dataset, path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.plot(found["mjd"], found["injected"], color="0.6", label="injected")
    axes.errorbar(found["mjd"], found["flux"], found["flux_err"], fmt=".", color="tab:red", label="measured")
    axes.set(xlabel="MJD", ylabel="flux (DN)", title=f"{found.sizes['time']} simulated epochs")
    axes.legend()
    figure.savefig(path, dpi=150)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m ztfxr.pipeline.example", description=__doc__)
    parser.add_argument("--epochs", type=int, default=100, metavar="N", help="simulated epochs (default: 100)")
    parser.add_argument("--workers", type=int, default=2, metavar="N", help="processes (default: 2)")
    parser.add_argument(
        "--out", type=Path, default=Path("ztfxr-example"), metavar="DIR", help="where to write (default: ztfxr-example)"
    )
    return parser


if __name__ == "__main__":
    main()
