"""The main job from end to end, on packaged semi-real epochs or on alert packets: what ``ztfxr demo`` runs."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from dask.diagnostics.progress import ProgressBar

from ztfxr.dia.difference import difference
from ztfxr.io.alerts import open_alerts
from ztfxr.io.backend import open_epochs, open_quadrant
from ztfxr.ops.background import variance
from ztfxr.ops.stack import stack
from ztfxr.packets import APERTURE, EXCLUDED, compare_packets, packet_lines
from ztfxr.photometry.lightcurve import lightcurve
from ztfxr.plot import plot_summary
from ztfxr.plot.lightcurves import plot_packets
from ztfxr.samples import make_epochs
from ztfxr.store.zarr import open_zarr, to_zarr

__all__ = ["DemoResult", "run_alerts", "run_semireal"]

Report = Callable[[str], Any]


@dataclass(frozen=True)
class DemoResult:
    """What a demonstration wrote, and its light curve as read back from the store."""

    store: Path
    figure: Path
    lightcurve: xr.Dataset


def run_semireal(folder: Path | str, *, n_epochs: int = 15, report: Report = print) -> DemoResult:
    """Make semi-real epochs in `folder`, difference them, measure the injected supernova, store, reopen and draw.
    Computes.
    """
    folder = Path(folder)
    report(f"Making {n_epochs} semi-real epochs: a real ZTF cut-out seen through other seeing, sky, transparency,")
    report("sub-pixel shift, noise and bad pixels, with one injected supernova. They are not observations.")
    made = make_epochs(folder / "frames", n_epochs=n_epochs)
    reference = open_quadrant(made.reference)
    reference["variance"] = variance(reference, method="photon")
    frames = stack(open_epochs(made.paths), like=reference)
    frames["variance"] = variance(frames, method="photon")
    position = [(float(made.truth["x"]), float(made.truth["y"]))]
    report(f"Differencing {n_epochs} epochs of {frames.sizes['y']} × {frames.sizes['x']} px ...")
    with _progress():
        diff = difference(frames, reference, exclude=position, exclude_radius=EXCLUDED).compute()
    lc = lightcurve(diff, position, radius=APERTURE)
    store, figure = folder / "lightcurve.zarr", folder / "lightcurve.png"
    to_zarr(xr.DataTree.from_dict({"lightcurve": lc, "difference": diff}), store, overwrite=True)
    reopened = open_zarr(store)["lightcurve"].to_dataset().load()
    injected = made.truth["flux"].values
    for line in semireal_table(reopened, made.truth):
        report(line)
    best = int(np.argmax(injected))
    plot_summary(
        frames,
        reference,
        diff,
        reopened,
        epochs=sorted({0, best, len(injected) - 1}),
        truth=made.truth["flux"],
        truth_label="injected",
        position=position[0],
        path=figure,
    )
    report(f"Store:  {store}\nFigure: {figure}")
    return DemoResult(store, figure, reopened)


def _progress() -> AbstractContextManager[Any]:
    """A progress bar where a person watches; a log would be filled by it."""
    return ProgressBar(out=sys.stderr) if sys.stderr.isatty() else nullcontext()


def semireal_table(lc: xr.Dataset, truth: xr.Dataset) -> list[str]:
    """Injected against measured flux, one line per epoch, and the pulls' mean and scatter."""
    flux, error, injected = lc["flux"].values[:, 0], lc["flux_err"].values[:, 0], truth["flux"].values
    pull = (flux - injected) / error
    lines = ["date        seeing  shift (px)     injected   measured      error    pull  note"]
    meanings = dict(zip(lc["status"].attrs["flag_masks"], lc["status"].attrs["flag_meanings"].split(), strict=True))
    for i, time in enumerate(lc["time"].values):
        note = " ".join(name for value, name in meanings.items() if int(lc["status"].values[i, 0]) & value)
        shift = f"{float(truth['shift_x'][i]):+.2f} {float(truth['shift_y'][i]):+.2f}"
        lines.append(
            f"{_day(time)}  {float(lc['seeing'][i]):5.2f}  {shift}  {injected[i]:11.1f}{flux[i]:11.1f}{error[i]:11.1f}"
            f"{pull[i]:8.2f}  {note}".rstrip()
        )
    clear = np.isfinite(pull) & (lc["status"].values[:, 0] == 0)
    lines.append(
        f"pulls of the {int(clear.sum())} epochs without bad pixels in the aperture: mean {pull[clear].mean():+.2f}, "
        f"standard deviation {pull[clear].std():.2f}"
    )
    return lines


def run_alerts(alerts: Path | str, folder: Path | str, *, report: Report = print) -> DemoResult:
    """Difference the stamps of real alert packets in folder `alerts`, compare with IPAC's difference, store and draw.
    Computes.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tree = open_alerts(alerts)
    assert isinstance(tree, xr.DataTree)
    counts = ", ".join(f"{node.sizes['time']} epochs in {name}" for name, node in tree.children.items())
    report(f"{next(iter(tree.children.values())).attrs['object']}: {counts}")
    report(f"The kernel is solved outside {EXCLUDED:g} px of the transient; fluxes are sums within {APERTURE:g} px.")
    curves, diffs = {}, {}
    for name, node in tree.children.items():
        with _progress():
            stamps = node.to_dataset().load()
            diff = difference(stamps, exclude_radius=EXCLUDED, model_error=True).compute()
        curves[name] = compare_packets(stamps, diff)
        diffs[name] = diff.drop_vars("model_error")
    store, figure = folder / "lightcurve.zarr", folder / "lightcurve.png"
    to_zarr(
        xr.DataTree.from_dict(
            {f"lightcurve/{k}": v for k, v in curves.items()} | {f"difference/{k}": v for k, v in diffs.items()}
        ),
        store,
        overwrite=True,
    )
    reopened = {name: open_zarr(store)[f"lightcurve/{name}"].to_dataset().load() for name in curves}
    for line in [*alerts_table(reopened), "", *packet_lines(reopened)]:
        report(line)
    name = max(curves, key=lambda k: curves[k].sizes["time"])
    stamps, n = tree[name].to_dataset(), tree[name].sizes["time"]
    plot_summary(stamps, stamps["reference"], diffs[name], reopened, epochs=[0, n // 2, n - 1], path=figure)
    magnitudes = folder / "magnitudes.png"
    plot_packets(reopened, path=magnitudes)
    report(f"Store:   {store}\nFigures: {figure}, {magnitudes}")
    return DemoResult(store, figure, reopened[name])


def _day(time: np.datetime64) -> str:
    return str(np.datetime_as_string(time, unit="D"))


def alerts_table(curves: dict[str, xr.Dataset]) -> list[str]:
    """Our fluxes against IPAC's per epoch, and the medians over the epochs brighter than magap 15."""
    lines = ["date        filter  magap     flux (DN)      error   flux/IPAC  scatter/IPAC  chi2"]
    deviations, scatters = [], []
    for name, lc in curves.items():
        ratio = (lc["flux"] / lc["ipac_flux"]).values[:, 0]
        scatters.append(lc["scatter_over_ipac"].values)
        deviations.append(np.abs(ratio - 1)[lc["magap"].values < 15])
        flux, error, magap, scatter, chi2 = (
            lc[k].values.reshape(lc.sizes["time"]) for k in ("flux", "flux_err", "magap", "scatter_over_ipac", "chi2")
        )
        lines += [
            f"{_day(time)}  {name:6}  {magap[i]:5.2f}  {flux[i]:12.1f}{error[i]:11.1f}{ratio[i]:12.4f}"
            f"{scatter[i]:14.3f}{chi2[i]:6.2f}"
            for i, time in enumerate(lc["time"].values)
        ]
    every = np.concatenate(deviations)
    lines.append(
        f"median |flux/IPAC − 1| of the {every.size} epochs brighter than 15 mag: {100 * np.median(every):.2f} %"
    )
    lines += [
        f"  {name} alone ({d.size}): {100 * np.median(d):.2f} %"
        for name, d in zip(curves, deviations, strict=True)
        if d.size
    ]
    lines.append(f"median residual scatter over IPAC's: {np.median(np.concatenate(scatters)):.3f}")
    return lines
