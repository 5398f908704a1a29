"""Frames of one field to the light curves of all its stars: register, build a reference, difference, rank."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from ztfxr.arrays.curves.smooth import SmoothCurve, smooth_nights
from ztfxr.arrays.geometry.registration import find_stars
from ztfxr.arrays.statistics import mad_std
from ztfxr.dia.difference import difference
from ztfxr.errors import InputError
from ztfxr.io.generic import open_frames
from ztfxr.ops.align import align
from ztfxr.ops.background import variance
from ztfxr.ops.coadd import build_reference
from ztfxr.photometry.cuts import kept
from ztfxr.photometry.forced import forced_photometry
from ztfxr.photometry.lightcurve import OF_EPOCHS, lightcurve, on_reference_scale
from ztfxr.photometry.psf import build_psf
from ztfxr.photometry.variability import variability
from ztfxr.plot.lightcurves import plot_smooth
from ztfxr.plot.triplets import plot_summary
from ztfxr.schema import annotate_all
from ztfxr.store.zarr import to_zarr

__all__ = ["run_frames", "smooth_line", "survey_table"]

_GOOD_RMS, _WIDE = 0.1, 10.0
_STORE, _FIGURE, _SMOOTH = "survey.zarr", "most_variable.png", "smooth_curve.png"


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

    Fluxes are forced PSF fits on the differences, each star alone, since its neighbors are gone there; the PSF is the
    reference's, which each epoch's kernel widens. So they do not follow the seeing, as sums in small apertures do.

    Parameters
    ----------
    paths
        FITS frames of one field, as for `ztfxr.open_frames`.
    folder, report
        Gets a zarr store (`/lightcurves`, `/stars`, `/reference`) and two figures of the most variable star: its
        images, and a smooth curve through each of its nights with the residuals; and who is told what happens.
    best
        Frames that make the reference.
    kernel_size
        Of the matching kernel, in pixels.
    radius
        Of apertures, in pixels, which the most variable star is measured in for comparison, and all stars where the
        reference has too few stars for a PSF.
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
    curves = _curves(diff, reference, {"x": stars.x, "y": stars.y}, radius, report)
    ranked = variability(curves)
    first = _tell(ranked, curves, diff, radius, report)
    _draw(stack, reference, diff, curves, first, folder / _FIGURE)
    plot_smooth(curves.isel(source=first), _smooth(curves, first), path=folder / _SMOOTH)
    tree = {"lightcurves": curves, "stars": ranked, "reference": reference}
    to_zarr(xr.DataTree.from_dict(tree), folder / _STORE, overwrite=True)
    report(f"Store:   {folder / _STORE}\nFigures: {folder / _FIGURE}, {folder / _SMOOTH}")
    return ranked


def _tell(ranked: xr.Dataset, curves: xr.Dataset, diff: xr.Dataset, radius: float, report: Callable[[str], Any]) -> int:
    """Report the ranking and how the errors fit the scatter; the most variable star."""
    for line in survey_table(ranked):
        report(line)
    stated = variability(curves, rescale=False)
    report(
        f"  by the errors as stated, each epoch's not rescaled: {_scatter_over_error(stated):.2f} {_quarters(stated)}"
    )
    first = int(np.argmin(ranked["rank"].values))
    report(f"most variable star, smooth curve through each night: {smooth_line(curves, first)}")
    place = {axis: curves[f"{axis}_pixel"].values[[first]] for axis in "xy"}
    for size in (radius, _WIDE):
        sums = lightcurve(diff, place, radius=size, scale="reference").compute()
        report(f"  from sums within {size:g} px instead: {smooth_line(sums, 0)}")
    return first


def _curves(
    diff: xr.Dataset, reference: xr.Dataset, stars: dict[str, Any], radius: float, report: Callable[[str], Any]
) -> xr.Dataset:
    """Fluxes of all stars in all epochs, in DN of the reference."""
    psf = build_psf(reference).compute()
    if int(psf["epoch_status"]):
        report(f"too few stars for a PSF; fluxes are sums within {radius:g} px, and follow the seeing")
        return lightcurve(diff, stars, radius=radius, scale="reference").compute()
    report(f"PSF of the reference from {int(psf['n_stars'])} stars, FWHM {float(psf['fwhm']):.2f} px; forced fits")
    fits = forced_photometry(diff, stars, reference_psf=psf, group_radius=0.0)
    curves = on_reference_scale(fits, diff).assign({k: diff[k].variable for k in OF_EPOCHS})
    return annotate_all(curves).compute()


def _smooth(curves: xr.Dataset, source: int) -> SmoothCurve:
    one = curves.isel(source=source)
    flux = np.where(kept(one, "flux").values, one["flux"].values, np.nan)
    return smooth_nights(one["mjd"].values.astype(np.float64), flux, one["flux_err"].values)


def smooth_line(curves: xr.Dataset, source: int) -> str:
    """Whether the errors of a star fit its scatter about a smooth curve through each night, in words."""
    curve, one = _smooth(curves, source), curves.isel(source=source)
    pulls = curve.pulls(one["flux"].values, one["flux_err"].values)
    epochs, chi2 = int(np.isfinite(curve.value).sum()), curve.chi2 / max(curve.dof, 1e-9)
    freedom = f"{epochs} epochs, {curve.dof:.1f} degrees of freedom"
    return f"chi2/dof {chi2:.2f} ({freedom}), pull MAD {mad_std(pulls):.2f}"


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
    lines.append(f"{ranked.sizes['source']} stars; median scatter over error: {_scatter_over_error(ranked):.2f}")
    return lines


def _scatter_over_error(ranked: xr.Dataset) -> float:
    return float((ranked["scatter"] / ranked["median_err"]).median())


def _quarters(ranked: xr.Dataset) -> str:
    """The same by the size of the error, which grows with the light of the star."""
    known = ranked.isel(source=np.flatnonzero(np.isfinite(ranked["median_err"].values)))
    if known.sizes["source"] < 4:
        return ""
    order = np.argsort(known["median_err"].values)
    parts = [_scatter_over_error(known.isel(source=rows)) for rows in np.array_split(order, 4)]
    return f"({', '.join(f'{part:.2f}' for part in parts)} by quarters of growing error)"


def _draw(
    stack: xr.Dataset, reference: xr.Dataset, diff: xr.Dataset, curves: xr.Dataset, source: int, path: Path
) -> None:
    flux = curves["flux"].values[:, source]
    usable = np.flatnonzero(np.isfinite(flux))
    epochs = sorted({int(usable[np.argmin(flux[usable])]), int(usable[np.argmax(flux[usable])]), int(usable[0])})
    place = (float(curves["x_pixel"][source]), float(curves["y_pixel"][source]))
    plot_summary(stack, reference, diff, curves, epochs=epochs, source=source, position=place, path=path)
