"""Frames of one field to the light curves of all its stars: register, build a reference, difference, rank."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from ztfxr.arrays.registration import find_stars
from ztfxr.dia.difference import difference
from ztfxr.errors import InputError
from ztfxr.io.generic import open_frames
from ztfxr.ops.align import align
from ztfxr.ops.background import variance
from ztfxr.ops.coadd import build_reference
from ztfxr.photometry.lightcurve import lightcurve
from ztfxr.photometry.variability import variability
from ztfxr.plot.triplets import plot_summary
from ztfxr.store.zarr import to_zarr

__all__ = ["run_frames", "survey_table"]

_GOOD_RMS = 0.1
_STORE, _FIGURE = "survey.zarr", "most_variable.png"


def run_frames(
    paths: Sequence[Path | str],
    folder: Path | str,
    *,
    report: Callable[[str], Any] = print,
    best: int = 12,
    kernel_size: int = 13,
    radius: float = 3.5,
    **cards: Any,
) -> xr.Dataset:
    """Measure every star of a field over frames that need neither WCS nor alignment, and rank the stars. Computes.

    Parameters
    ----------
    paths
        FITS frames of one field, as for `ztfxr.open_frames`.
    folder, report
        Gets a zarr store (`/lightcurves`, `/stars`, `/reference`) and a figure of the most
        variable star; and who is told what happens.
    best
        Frames that make the reference.
    kernel_size, radius
        Of the matching kernel and of the apertures, in pixels.
    **cards
        Passed on to `ztfxr.open_frames`.

    Returns
    -------
    xarray.Dataset
        Statistics per star, as of `ztfxr.variability`, with positions on the reference.
    """
    if not paths:
        raise InputError("no frames: the list of paths is empty")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    stack = _aligned(paths, cards, report)
    reference = build_reference(stack, best=best).load()
    report(f"reference of the best {best} frames, effective gain {float(reference['gain']):.1f} electron/DN")
    diff = difference(
        stack, reference, kernel_size=kernel_size, kernel_order=1, background_order=2, solve_on="all"
    ).load()
    ratio, solved = float(diff["noise_ratio"].median()), int((diff["epoch_status"] == 0).sum())
    report(f"{solved} frames differenced; noise over its stated value {ratio:.2f} (median)")
    stars = find_stars(reference["sci"].values, reference["mask"].values)
    curves = lightcurve(diff, {"x": stars.x, "y": stars.y}, radius=radius, scale="reference").compute()
    ranked = variability(curves)
    for line in survey_table(ranked):
        report(line)
    first = int(np.argmin(ranked["rank"].values))
    _draw(stack, reference, diff, curves, first, folder / _FIGURE)
    tree = {"lightcurves": curves, "stars": ranked, "reference": reference}
    to_zarr(xr.DataTree.from_dict(tree), folder / _STORE, overwrite=True)
    report(f"Store:  {folder / _STORE}\nFigure: {folder / _FIGURE}")
    return ranked


def _aligned(paths: Sequence[Path | str], cards: dict[str, Any], report: Callable[[str], Any]) -> xr.Dataset:
    """The frames on the grid of the sharpest, with what became of each reported."""
    nodes = {name: node.to_dataset() for name, node in open_frames(paths, **cards).children.items()}
    usable = {name: ds for name, ds in nodes.items() if "sci" in ds}
    noisy = {name: ds.assign(variance=variance(ds, method="photon")) for name, ds in usable.items()}
    sharpest = min(noisy, key=lambda name: float(np.nan_to_num(noisy[name]["seeing"].values, nan=np.inf)))
    report(f"registering {len(nodes)} frames on {sharpest} by their star patterns ...")
    stack = align(xr.DataTree.from_dict(nodes | noisy), to=sharpest)
    rms = stack["registration_rms"].values
    good = int((rms <= _GOOD_RMS).sum())
    found = int(np.isfinite(rms).sum())
    report(f"{found} registered (rms {np.nanmedian(rms):.3f} px median; {good} within {_GOOD_RMS} px)")
    for name, message in zip(stack["frame"].values, stack["message"].values, strict=True):
        if message:
            report(f"  {name}: {message}")
    return stack.load().chunk(time=1)


def survey_table(ranked: xr.Dataset, n: int = 5) -> list[str]:
    """The most variable stars, one line each, and the scatter of all over their errors."""
    lines = ["rank       x       y   epochs    scatter      error  chi2/dof  von Neumann  shared excess"]
    for i in np.argsort(ranked["rank"].values)[:n]:
        star = ranked.isel(source=int(i))
        lines.append(
            f"{int(star['rank']):4d} {float(star['x_pixel']):7.1f} {float(star['y_pixel']):7.1f} "
            f"{int(star['n_good']):8d} "
            f"{float(star['scatter']):10.0f} {float(star['median_err']):10.0f} {float(star['reduced_chi2']):9.1f} "
            f"{float(star['von_neumann']):12.2f} {float(star['consecutive_excess']):14.2f}"
        )
    ratio = float((ranked["scatter"] / ranked["median_err"]).median())
    lines.append(f"{ranked.sizes['source']} stars; median scatter over error: {ratio:.2f}")
    return lines


def _draw(
    stack: xr.Dataset, reference: xr.Dataset, diff: xr.Dataset, curves: xr.Dataset, source: int, path: Path
) -> None:
    flux = curves["flux"].values[:, source]
    usable = np.flatnonzero(np.isfinite(flux))
    epochs = sorted({int(usable[np.argmin(flux[usable])]), int(usable[np.argmax(flux[usable])]), int(usable[0])})
    place = (float(curves["x_pixel"][source]), float(curves["y_pixel"][source]))
    plot_summary(stack, reference, diff, curves, epochs=epochs, source=source, position=place, path=path)
