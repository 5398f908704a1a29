"""Frames of one field to the light curves of all its stars, ranked: what ``ztfxr demo field`` runs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import xarray as xr

from ztfxr.arrays.curves.smooth import SmoothCurve, smooth_nights
from ztfxr.arrays.geometry.registration import find_stars
from ztfxr.arrays.statistics import mad_std
from ztfxr.errors import InputError
from ztfxr.io.cameras import CameraLike, Source, get_camera
from ztfxr.io.frames import open_frames
from ztfxr.io.names import AnyPath
from ztfxr.ops.stacks.align import align
from ztfxr.ops.stacks.coadd import build_reference
from ztfxr.photometry.cuts import kept
from ztfxr.photometry.lightcurve import Method, lightcurve
from ztfxr.photometry.variability import variability
from ztfxr.plot import plot_summary
from ztfxr.plot.lightcurves import plot_smooth
from ztfxr.recipes.chain import Finished, finish, measure, say, store, subtract, with_noise

__all__ = ["run_field", "smooth_line", "variables_table"]

_GOOD_RMS, _WIDE = 0.1, 10.0
_COLUMNS = {
    "rank": "4d",
    "x_pixel": "7.1f",
    "y_pixel": "7.1f",
    "n_good": "8d",
    "scatter": "10.0f",
    "median_err": "10.0f",
    "reduced_chi2": "9.1f",
    "von_neumann": "12.2f",
    "consecutive_excess": "14.2f",
}


def run_field(
    paths: AnyPath | Iterable[AnyPath],
    folder: Path | str,
    *,
    camera: CameraLike = "fits",
    best: int = 12,
    kernel_size: int = 13,
    photometry: Method = "psf",
    radius: float = 3.5,
    **cards: Source,
) -> Finished:
    """Measure every star of a field over frames that need neither WCS nor alignment, and rank the stars. Computes.

    By default fluxes are forced PSF fits on the differences, which do not follow the seeing as sums in small apertures
    do.

    Parameters
    ----------
    paths
        FITS frames of one field: paths, a pattern or a folder, as `ztfxr.open_frames` takes them.
    folder
        Gets the store ``field.zarr`` (`/lightcurves`, `/stars`, `/reference`) and two figures of the most variable
        star: its images, and a smooth curve through each of its nights with the residuals.
    camera, **cards
        What the headers of the frames mean, as `ztfxr.open_frames` takes it.
    best
        Number of frames that make the reference.
    kernel_size
        Side of the matching kernel in pixels.
    photometry
        Forced fits of the reference's PSF, or sums in apertures.
    radius
        Radius in pixels of apertures. The most variable star is measured in one for comparison, and all stars are where
        the reference has too few stars for a PSF.

    Returns
    -------
    Finished
        Its result has statistics per star, as `ztfxr.variability` gives them, with positions on the reference.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    stack = _aligned(open_frames(paths, camera=get_camera(camera).with_cards(None, **cards)))
    reference = build_reference(stack, best=best).load()
    say(f"reference of the best {best} frames, effective gain {float(reference['gain']):.1f} electron/DN")
    diff = subtract(stack, reference, kernel_size=kernel_size, kernel_order=1, background_order=2, solve_on="all")
    ratio, solved = float(diff["noise_ratio"].median()), int((diff["epoch_status"] == 0).sum())
    say(f"{solved} frames differenced; noise over its stated value {ratio:.2f} (median)")
    stars = find_stars(reference["sci"].values, reference["mask"].values)
    places = {"x": stars.x, "y": stars.y}
    curves = measure(diff, places, reference, photometry=photometry, radius=radius, scale="reference")
    ranked = variability(curves)
    say(*variables_table(ranked), *_errors_table(curves))
    first = int(np.argmin(ranked["rank"].values))
    say(*_first_table(curves, diff, first, radius))
    path, figures = folder / "field.zarr", (folder / "most_variable.png", folder / "smooth_curve.png")
    _draw(stack, reference, diff, curves, first, figures[0])
    plot_smooth(curves.isel(source=first), _smooth(curves, first), path=figures[1])
    store({"lightcurves": curves, "stars": ranked, "reference": reference}, path)
    return finish(ranked, path, *figures)


def _aligned(frames: xr.DataTree) -> xr.Dataset:
    """The frames on the grid of the sharpest; what became of each is said."""
    nodes = {name: node.to_dataset() for name, node in frames.children.items()}
    noisy = {name: with_noise(ds) for name, ds in nodes.items() if "sci" in ds}
    if not noisy:
        raise InputError(
            "no frames: none of them can be used; " + "; ".join(ds.attrs["message"] for ds in nodes.values())
        )
    sharpest = min(noisy, key=lambda name: float(np.nan_to_num(noisy[name].coords.get("seeing", np.inf), nan=np.inf)))
    say(f"registering {len(nodes)} frames on {sharpest} by their star patterns ...")
    stack = align(xr.DataTree.from_dict(nodes | noisy), to=sharpest)
    rms = stack["registration_rms"].values
    good, found = int((rms <= _GOOD_RMS).sum()), int(np.isfinite(rms).sum())
    messages = zip(stack["frame"].values, stack["message"].values, strict=True)
    say(
        f"{found} registered (rms {np.nanmedian(rms):.3f} px median; {good} within {_GOOD_RMS} px)",
        *(f"  {name}: {message}" for name, message in messages if message),
    )
    return stack.load().chunk(time=1)


def variables_table(ranked: xr.Dataset, n: int = 5) -> Iterator[str]:
    """The most variable stars, one line each, and the scatter of all over their errors."""
    yield "rank       x       y   epochs    scatter      error  chi2/dof  von Neumann  shared excess"
    for i in np.argsort(ranked["rank"].values)[:n]:
        star = ranked.isel(source=int(i))
        yield " ".join(f"{star[name].item():{shape}}" for name, shape in _COLUMNS.items())
    yield f"{ranked.sizes['source']} stars; median scatter over error: {_scatter_over_error(ranked):.2f}"


def _errors_table(curves: xr.Dataset) -> Iterator[str]:
    """How the errors fit the scatter as they are stated: of all stars, and of quarters by the size of their errors.

    Errors grow with the light of the star.
    """
    stated = variability(curves, rescale=False)
    known = stated.isel(source=np.flatnonzero(np.isfinite(stated["median_err"].values)))
    quarters = ""
    if known.sizes["source"] >= 4:
        order = np.argsort(known["median_err"].values)
        parts = [_scatter_over_error(known.isel(source=rows)) for rows in np.array_split(order, 4)]
        quarters = f"({', '.join(f'{part:.2f}' for part in parts)} by quarters of growing error)"
    yield f"  by the errors as stated, each epoch's not rescaled: {_scatter_over_error(stated):.2f} {quarters}"


def _scatter_over_error(ranked: xr.Dataset) -> float:
    return float((ranked["scatter"] / ranked["median_err"]).median())


def _first_table(curves: xr.Dataset, diff: xr.Dataset, source: int, radius: float) -> Iterator[str]:
    """The errors of one star about a smooth curve, and what sums in apertures would give."""
    yield f"most variable star, smooth curve through each night: {smooth_line(curves, source)}"
    place = {axis: curves[f"{axis}_pixel"].values[[source]] for axis in "xy"}
    for size in (radius, _WIDE):
        sums = lightcurve(diff, place, radius=size, scale="reference").compute()
        yield f"  from sums within {size:g} px instead: {smooth_line(sums, 0)}"


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


def _draw(
    stack: xr.Dataset, reference: xr.Dataset, diff: xr.Dataset, curves: xr.Dataset, source: int, path: Path
) -> None:
    flux = curves["flux"].values[:, source]
    usable = np.flatnonzero(np.isfinite(flux))
    epochs = sorted({int(usable[np.argmin(flux[usable])]), int(usable[np.argmax(flux[usable])]), int(usable[0])})
    place = (float(curves["x_pixel"][source]), float(curves["y_pixel"][source]))
    plot_summary(stack, reference, diff, curves, epochs=epochs, source=source, position=place, path=path)
