"""The steps that recipes share: subtract, measure, store, table; each is written once."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import xarray as xr
from dask.diagnostics.progress import ProgressBar

from ztfxr.dia.difference import difference
from ztfxr.errors import InputError
from ztfxr.ops.background import variance
from ztfxr.ops.positions import Positions
from ztfxr.photometry.forced import forced_photometry
from ztfxr.photometry.lightcurve import Method, as_lightcurve, lightcurve
from ztfxr.photometry.psf_build import build_psf
from ztfxr.schema import plane_names
from ztfxr.store.zarr import open_zarr, to_zarr

__all__ = [
    "APERTURE",
    "EXCLUDED",
    "Finished",
    "day_of",
    "finish",
    "measure",
    "say",
    "store",
    "subtract",
    "truth_table",
    "with_noise",
]

APERTURE = 7.0
"""Radius of apertures in pixels; the schema of alert packets calls `magap` a sum within 14 pixels' diameter."""
EXCLUDED = 10.0
"""Pixels around a transient that do not shape the kernel."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Finished:
    """What a recipe leaves: the path of its store, the paths of its figures, and its main result."""

    store: Path
    figures: tuple[Path, ...]
    result: xr.Dataset


def say(*lines: str) -> None:
    """Log lines of progress, or of a table."""
    _log.info("\n".join(lines))


def with_noise(frame: xr.Dataset) -> xr.Dataset:
    """The frame or stack with the `variance` that its own pixels and gain give."""
    return frame.assign(variance=variance(frame, method="photon"))


def subtract(frames: xr.Dataset, reference: xr.Dataset | None = None, **options: Any) -> xr.Dataset:
    """Difference images in memory, by `ztfxr.difference`, with a progress bar where a person watches. Computes."""
    # A bar would fill a log.
    bar: AbstractContextManager[Any] = ProgressBar(out=sys.stderr) if sys.stderr.isatty() else nullcontext()
    with bar:
        return difference(frames, reference, **options).compute()


def measure(
    diff: xr.Dataset,
    positions: Positions,
    reference: xr.Dataset,
    *,
    photometry: Method,
    radius: float = APERTURE,
    scale: Literal["science", "reference"] = "science",
) -> xr.Dataset:
    """Fluxes on difference images with the numbers of their epochs, as `ztfxr.lightcurve` gives them. Computes.

    Parameters
    ----------
    diff
        Difference images, as `subtract` gives them.
    positions
        Positions as for `ztfxr.resolve_positions`.
    reference
        The reference that was subtracted; its stars make the PSF.
    photometry
        ``"aperture"`` for sums; ``"psf"`` for forced fits of the reference's PSF, which the kernel widens to each
        epoch's. Each source is fitted alone, since its neighbors are gone. A reference with too few stars for a PSF
        leaves sums.
    radius
        Radius of the apertures in pixels.
    scale
        The scale of the fluxes, as for `ztfxr.lightcurve`.
    """
    if photometry not in get_args(Method):
        raise InputError(f"photometry is one of {get_args(Method)}; got {photometry!r}")
    psf = build_psf(reference).compute() if photometry == "psf" else None
    if psf is not None and not int(psf["epoch_status"]):
        say(f"PSF of the reference from {int(psf['n_stars'])} stars, FWHM {float(psf['fwhm']):.2f} px; forced fits")
        fits = forced_photometry(diff, positions, reference_psf=psf, fit={"group_radius": 0.0})
        return as_lightcurve(fits, diff, scale).compute()
    if psf is not None:
        say(f"too few stars for a PSF; fluxes are sums within {radius:g} px, and follow the seeing")
    return lightcurve(diff, positions, radius=radius, scale=scale).compute()


def store(tree: Mapping[str, xr.Dataset], path: Path) -> xr.DataTree:
    """Write datasets by group, in place of what is there, and open them again. Computes."""
    to_zarr(xr.DataTree.from_dict(dict(tree)), path, overwrite=True)
    reopened = open_zarr(path)
    assert isinstance(reopened, xr.DataTree)
    return reopened


def finish(result: xr.Dataset, path: Path, *figures: Path) -> Finished:
    """Say where everything is."""
    label = "Figure:" if len(figures) == 1 else "Figures:"
    say(f"{'Store:':{len(label)}} {path}\n{label} {', '.join(map(str, figures))}")
    return Finished(path, figures, result)


def day_of(time: np.datetime64) -> str:
    """The date of an epoch, in UTC."""
    return str(np.datetime_as_string(time, unit="D"))


def truth_table(lc: xr.Dataset, truth: xr.Dataset) -> Iterable[str]:
    """Injected against measured flux of the first source, one line per epoch, and the pulls' mean and scatter."""
    first = lc.isel(source=0) if "source" in lc.dims else lc
    flux, error, status, seeing = (first[name].values for name in ("flux", "flux_err", "status", "seeing"))
    injected = truth["flux"].values
    pull = (flux - injected) / error
    yield "date        seeing  shift (px)     injected   measured      error    pull  note"
    for i, time in enumerate(lc["time"].values):
        note = " ".join(plane_names(int(status[i])))
        shift = f"{float(truth['shift_x'][i]):+.2f} {float(truth['shift_y'][i]):+.2f}"
        numbers = f"{injected[i]:11.1f}{flux[i]:11.1f}{error[i]:11.1f}{pull[i]:8.2f}"
        yield f"{day_of(time)}  {seeing[i]:5.2f}  {shift}  {numbers}  {note}".rstrip()
    clear = np.isfinite(pull) & (status == 0)
    yield (
        f"pulls of the {int(clear.sum())} epochs without bad pixels in the aperture: mean {pull[clear].mean():+.2f}, "
        f"standard deviation {pull[clear].std():.2f}"
    )
