"""What the epochs of a stack are worth, and which of them to use."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import xarray as xr

from ztfxr.arrays.images.coadd import MAX_STARS, EpochMeasures, measure_anchor, measure_epoch
from ztfxr.errors import InputError
from ztfxr.ops.exposure import Exposure, gather
from ztfxr.ops.mapping import aligned, bare, map_images
from ztfxr.schema import annotate_all

__all__ = [
    "MEASURES",
    "FluxScale",
    "Measuring",
    "measure_epochs",
    "per_epoch",
    "prepare",
    "select_epochs",
    "usable_epochs",
]

FluxScale: TypeAlias = Literal["auto", "stars", "magzp"] | xr.DataArray | None

_STARS = ("star", "axis")
_ANCHOR = {"star_position": _STARS, "star_flux": ("star",), "star_flux_err": ("star",), "sky_noise": (), "fwhm": ()}
MEASURES = EpochMeasures._fields


@dataclass(frozen=True)
class Measuring:
    """A stack, the arguments of `measure_epoch` without coordinates, and what is known of the anchor.

    Epochs are matched by position, since two may share a time, or have none.
    """

    exposure: Exposure
    arguments: dict[str, xr.DataArray]
    anchor_noise: xr.DataArray
    anchor_width: xr.DataArray
    anchor: int
    by_stars: bool


def usable_epochs(exposure: Exposure) -> xr.DataArray:
    """True where the status of an epoch is 0, everywhere where no epoch has one; as lazy as that is."""
    every = xr.DataArray(np.ones(exposure.image.sizes["time"], dtype=bool), dims="time")
    return every if exposure.status is None else every & (exposure.status == 0)


def measure_epochs(
    stack: xr.Dataset | xr.DataArray,
    *,
    scale: FluxScale = "auto",
    anchor: int | None = None,
    mask: xr.DataArray | None = None,
) -> xr.Dataset:
    """Sky, noise, seeing, coverage and flux scale of every epoch of an aligned stack; lazy, one epoch a task.

    Parameters
    ----------
    stack
        Images (time, y, x), or a Dataset with `sci` and, where it exists, `flags` or `mask`.
    scale
        The flux of one star in each epoch over its flux in the anchor epoch. ``"stars"`` measures it on bright stars,
        robustly; ``"magzp"`` takes it from the zero points; ``"auto"`` measures it and takes the zero points where
        there are too few stars; an array on `time` gives it; None: all epochs have one scale.
    anchor
        Position of the epoch that has scale 1 and gives the stars; by default the first with `epoch_status` 0
        (the first of all where that coordinate is lazy).
    mask
        Boolean, True where bad; by default as in `ztfxr.background`.

    Returns
    -------
    xarray.Dataset
        On `time`, with the stack's coordinates of time: `sky` and `sky_noise` (DN), `fwhm` (pixels: of the Gaussian
        with the peak-to-flux ratio of bright stars), `coverage` and `flux_scale`. NaN where an epoch has too few good
        pixels or stars.

    Raises
    ------
    InputError
        No dimension time, an anchor that is not an epoch, no zero points where they are asked for.
    ChunkError
        An image is chunked along y or x.
    """
    plan = prepare(gather(stack, name="sci", mask=mask), scale, anchor)
    outputs: dict[str, tuple[str, ...]] = dict.fromkeys(MEASURES, ())
    found = map_images(measure_epoch, plan.arguments, outputs, options={"by_stars": plan.by_stars})
    image = plan.exposure.image
    coords = {k: v.variable for k, v in image.coords.items() if v.dims == ("time",)}
    out = xr.Dataset(found).assign_coords(coords).assign_attrs(anchor=plan.anchor)
    return annotate_all(out, unit=plan.exposure.unit)


def prepare(exposure: Exposure, scale: FluxScale, anchor: int | None) -> Measuring:
    """Measure the anchor, lazily, and put together what measuring an epoch needs."""
    image = exposure.image
    if "time" not in image.dims:
        raise InputError(f"a stack has the dimension time; got {image.dims}: see ztfxr.stack")
    first, pixels = _anchor(exposure, anchor), {"image": bare(image), "bad": bare(exposure.bad)}
    one = {k: a.isel(time=first) if "time" in a.dims else a for k, a in pixels.items()}
    found = map_images(measure_anchor, one, _ANCHOR, sizes={"star": MAX_STARS, "axis": 2})
    arguments = {
        **pixels,
        "stars": found["star_position"],
        "anchor_flux": found["star_flux"],
        "anchor_error": found["star_flux_err"],
        "known_scale": _known_scale(image, scale, first),
    }
    return Measuring(exposure, arguments, found["sky_noise"], found["fwhm"], first, scale_by_stars(scale))


def scale_by_stars(scale: FluxScale) -> bool:
    """Whether flux scales are to be measured."""
    return isinstance(scale, str) and scale in ("auto", "stars")


def _anchor(exposure: Exposure, anchor: int | None) -> int:
    n = exposure.image.sizes["time"]
    if n == 0:
        raise InputError("the stack has no epoch")
    if anchor is None:
        usable = usable_epochs(exposure)
        return int(usable.values.argmax()) if usable.chunks is None else 0
    if not 0 <= anchor < n:
        raise InputError(f"no epoch {anchor} to anchor the flux scale: the stack has {n}, counted from 0")
    return int(anchor)


def _known_scale(image: xr.DataArray, scale: FluxScale, anchor: int) -> xr.DataArray:
    """Flux scales that need no pixels; NaN where there are none."""
    n = image.sizes["time"]
    if isinstance(scale, xr.DataArray):
        return per_epoch(scale, image, "scale").astype(float)
    if scale is None or scale == "stars":
        return xr.DataArray(np.full(n, 1.0 if scale is None else np.nan), dims="time")
    if scale not in ("auto", "magzp"):
        raise InputError(f'scale is "auto", "stars", "magzp", an array on time or None; got {scale!r}')
    if "magzp" not in image.coords:
        if scale == "magzp":
            raise InputError('no zero points are known: assign a coordinate magzp on time, or use scale="stars"')
        return xr.DataArray(np.full(n, np.nan), dims="time")
    zp = bare(image.coords["magzp"]) + xr.DataArray(np.zeros(n), dims="time")
    return 10 ** (0.4 * (zp - zp.isel(time=anchor)))


def per_epoch(values: xr.DataArray, image: xr.DataArray, name: str) -> xr.DataArray:
    """A number per epoch of the image, in its order; without coordinates."""
    n = image.sizes["time"]
    if values.dims != ("time",) or values.sizes["time"] != n:
        raise InputError(f"{name} has one number per epoch, on the dimension time of size {n}; got {values.sizes}")
    return aligned(values, image, name)


def select_epochs(
    stack: xr.Dataset | xr.DataArray,
    *,
    best: int | None = None,
    max_seeing: float | None = None,
    max_sky: float | None = None,
    min_coverage: float = 0.5,
    scale: FluxScale = "auto",
    anchor: int | None = None,
    mask: xr.DataArray | None = None,
) -> xr.Dataset:
    """Choose the epochs that are worth coadding. Computes the measures, one epoch a task, all in one pass.

    Epochs that fail no limit are ranked by their `score`, the signal-to-noise ratio that a faint star has in them,
    ``flux_scale / (fwhm · sky_noise)``, relative to the best (Annis et al. 2014, ApJ 794, 120, weigh by it).

    Parameters
    ----------
    stack, scale, anchor, mask
        As in `ztfxr.measure_epochs`.
    best
        Keep this many at most, those with the highest score. By default all that pass.
    max_seeing, max_sky
        Largest FWHM in pixels and sky level in DN. By default there is no limit.
    min_coverage
        Least fraction of good pixels.

    Returns
    -------
    xarray.Dataset
        In memory, on `time`: the measures, `score`, a boolean `selected`, and `reason`, which says why an epoch was
        left out and is empty where it was selected.

    Raises
    ------
    InputError
        As `ztfxr.measure_epochs`; `best` below 1.
    """
    if best is not None and best < 1:
        raise InputError(f"best is the number of epochs to keep, at least 1; got {best}")
    table = measure_epochs(stack, scale=scale, anchor=anchor, mask=mask).compute()
    width = table["fwhm"].values / table["fwhm"].values[table.attrs["anchor"]]
    noise = np.where(table["sky_noise"] > 0, table["sky_noise"], np.nan)
    score = table["flux_scale"].values / (np.where(np.isfinite(width), width, 1.0) * noise)
    table["score"] = ("time", score / np.max(score, where=np.isfinite(score), initial=1e-300))
    limits = {"fwhm": (max_seeing, "px"), "sky": (max_sky, "DN")}
    reasons = np.array([_reason(row, min_coverage, limits) for row in _rows(stack, table)], dtype=object)
    if best is not None:
        passed = np.flatnonzero(reasons == "")
        order = passed[np.argsort(-table["score"].values[passed], kind="stable")]
        for rank, i in enumerate(order[best:], start=best + 1):
            reasons[i] = f"rank {rank} by score: only the best {best} were asked for"
    table["selected"], table["reason"] = ("time", reasons == ""), ("time", reasons.astype(str))
    table["reason"].attrs = {"long_name": "why the epoch was left out"}
    return annotate_all(table)


def _rows(stack: xr.Dataset | xr.DataArray, table: xr.Dataset) -> Iterator[dict[str, Any]]:
    """Each epoch's measures, whether it is usable, and the message of its status."""
    usable = usable_epochs(gather(stack, name="sci")).values
    known = {str(k): v.values for k, v in table.data_vars.items()}
    messages = stack.coords["message"].values if "message" in stack.coords else np.full(len(usable), "")
    for i in range(len(usable)):
        yield {**{k: v[i] for k, v in known.items()}, "usable": usable[i], "message": str(messages[i])}


def _reason(row: dict[str, Any], min_coverage: float, limits: dict[str, tuple[float | None, str]]) -> str:
    """Why an epoch is left out; empty where it passes."""
    if not row["usable"]:
        return f"unusable: {row['message']}".rstrip(": ")
    if not row["coverage"] >= min_coverage:
        return f"{100 * row['coverage']:.0f} % of the pixels are good, fewer than {100 * min_coverage:.0f} %"
    if not row["sky_noise"] > 0:
        return "the noise of the sky cannot be measured"
    if not row["flux_scale"] > 0:
        return "the flux scale is unknown: too few stars in common with the anchor epoch, and no zero point"
    for name, (limit, unit) in limits.items():
        if limit is not None and not row[name] <= limit:
            return f"{name} {row[name]:.4g} {unit} above {limit:g} {unit}"
    return ""
