"""Light curves of simulated epochs by a dask cluster on this machine: what ``ztfxr demo cluster`` runs."""

from __future__ import annotations

import shutil
import time
from importlib.util import find_spec
from pathlib import Path

import xarray as xr

from ztfxr.errors import InputError
from ztfxr.photometry.lightcurve import Method
from ztfxr.pipeline.job import Job
from ztfxr.pipeline.runner import run
from ztfxr.plot import plot_lightcurve
from ztfxr.recipes.chain import Finished, finish, say, truth_table
from ztfxr.samples import make_epochs
from ztfxr.store.zarr import open_zarr

__all__ = ["run_cluster"]

_MARK = ".ztfxr-example"


def run_cluster(
    folder: Path | str, *, n_epochs: int = 100, workers: int = 2, photometry: Method = "aperture"
) -> Finished:
    """Make semi-real epochs, run them as a job on a `LocalCluster`, print and draw the light curve. Computes.

    Parameters
    ----------
    folder
        Gets the frames, the store ``run.zarr`` and the figure ``lightcurve.png``.
    n_epochs
        Number of epochs to make.
    workers
        Number of processes.
    photometry
        Sums in apertures, or forced fits of the reference's PSF.

    Returns
    -------
    Finished
        Its result is the light curve of the supernova, with the flux that was `injected`.
    """
    folder = _fresh(Path(folder))
    say(f"making {n_epochs} simulated epochs with an injected supernova in {folder / 'frames'}")
    made = make_epochs(folder / "frames", n_epochs=n_epochs)
    job = Job(
        frames=str(folder / "frames" / "ztf_202[01]*_sciimg.fits"),
        positions={"x": [float(made.truth["x"])], "y": [float(made.truth["y"])], "source_id": ["supernova"]},
        reference=str(made.reference),
        cutout={"x": 150, "y": 150, "size": 256},
        photometry={"method": "psf"} if photometry == "psf" else {"method": "aperture", "radius": 5.0},
    )
    path, figure = folder / "run.zarr", folder / "lightcurve.png"
    start = time.monotonic()
    _run(job, path, workers)
    seconds = time.monotonic() - start
    found = open_zarr(path)["lightcurve"].to_dataset().isel(source=0).load()
    found = found.assign(injected=("time", made.truth["flux"].values))
    say(*truth_table(found, made.truth))
    _draw(found, figure)
    say(f"{n_epochs} epochs in {seconds:.1f} s by {workers} workers, their start included")
    return finish(found, path, figure)


def _run(job: Job, store: Path, workers: int) -> None:
    from distributed import Client, LocalCluster

    with (
        LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address="127.0.0.1:0") as cluster,  # type: ignore[no-untyped-call]
        Client(cluster) as client,  # type: ignore[no-untyped-call]
    ):
        hint = "" if find_spec("bokeh") else "  (its pages need bokeh: pip install bokeh)"
        say(f"dashboard: {client.dashboard_link}{hint}")
        run(job, store, client=client)


def _fresh(folder: Path) -> Path:
    """The folder, without what an earlier call of this recipe left in it."""
    for name in ("frames", "run.zarr"):
        if (folder / name).exists() and not (folder / _MARK).exists():
            raise InputError(f"{folder / name} exists and is not of this example; give another folder with --out")
        shutil.rmtree(folder / name, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / _MARK).touch()
    return folder


def _draw(found: xr.Dataset, path: Path) -> None:
    import matplotlib.pyplot as plt

    figure, ax = plt.subplots(figsize=(8.0, 4.5), layout="constrained")
    ax.plot(found["mjd"], found["injected"], color="0.6", label="injected")
    plot_lightcurve(found, ax=ax, label="measured")
    figure.savefig(path, dpi=150)
