"""Aligned epochs averaged into one image: the reference for difference imaging."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import xarray as xr
from dask.base import is_dask_collection
from numpy.typing import NDArray

from ztfxr.arrays.images.coadd import (
    clipped_mean,
    effective_detector,
    epoch_planes,
    mean_of_sums,
    measure_epoch,
    median_stack,
)
from ztfxr.arrays.images.noise import sky_variance
from ztfxr.arrays.images.sky import SkyOptions, noise_maps
from ztfxr.arrays.options import require_number
from ztfxr.arrays.threads import task
from ztfxr.arrays.types import Bools
from ztfxr.errors import InputError
from ztfxr.ops.exposure import Exposure, gather
from ztfxr.ops.filters import bands, other_filter, require_one_filter
from ztfxr.ops.mapping import IMAGE, aligned, bare, in_order_of, map_images
from ztfxr.ops.stacks.epochs import MEASURES, FluxScale, Measuring, per_epoch, prepare, select_epochs, usable_epochs
from ztfxr.schema import annotate_all, kept

if TYPE_CHECKING:
    import dask.array as da

__all__ = ["build_reference", "coadd"]

Method = Literal["clipped", "mean", "median"]
Weights = Literal["snr", "variance", "equal"] | xr.DataArray
Sky = bool | Literal["median"] | xr.DataArray

_BLOCK_BYTES = 64e6
_PLANES = {"clipped": 2, "median": 2, "mean": 4}
_OF_AN_EPOCH = ("time", "mjd", "gain", "readnoise", "saturate", "seeing", "exptime", "message", "filefracday")
_CONSTANT = ("filter", "field", "ccdid", "qid", "rcid")


def coadd(
    stack: xr.Dataset | xr.DataArray,
    *,
    method: Method = "clipped",
    weights: Weights = "snr",
    scale: FluxScale = "auto",
    clip: float = 3.5,
    background: Sky = True,
    anchor: int | None = None,
    mask: xr.DataArray | None = None,
    variance: xr.DataArray | None = None,
) -> xr.Dataset:
    """Average an aligned stack into one image; lazy.

    Each epoch loses its sky, is divided by its flux scale, and is averaged with a weight that is one number per epoch;
    masked pixels carry none. PSFs are not homogenized: the coadd's is the weighted mean of theirs.

    Parameters
    ----------
    stack
        Images (time, y, x) on one pixel grid, or a Dataset with `sci` and, where they exist, `flags` or `mask` and
        `variance`. Epochs with an `epoch_status` are left out.
    method
        ``"clipped"``: weighted mean without outliers (cosmic rays, tracks, moving and variable objects). ``"mean"``:
        weighted mean of every good pixel. ``"median"``: unweighted median, up to π/2 noisier in variance.
    weights
        ``"snr"``: best for faint stars, ``(flux_scale / (sky_noise · fwhm))²`` (Annis et al. 2014, ApJ 794, 120);
        an unknown FWHM counts as the anchor's. ``"variance"``: the same without the FWHM, best for extended light.
        ``"equal"``: 1. Or an array on `time`; 0 leaves an epoch out.
    scale, anchor
        As in `ztfxr.measure_epochs`; the coadd is on the flux scale of the anchor epoch, and carries its `magzp`.
    clip
        Outliers differ from the median by more than this many errors, or scatters of the epochs at that pixel, the
        larger of both, plus 0.7 of the median image's step to its neighbors: stars are spared, whose PSFs differ.
    background
        True subtracts the mesh of `ztfxr.background` from each epoch, ``"median"`` its median, an array itself. False
        keeps the sky: the medians are taken off too, since skies differ, and their weighted mean is added in the end.
    mask
        Boolean, True where bad; by default as in `ztfxr.background`. Pixels that are not finite are always bad.
    variance
        In DN². By default the variable `variance`; else `ztfxr.variance` where the gain is known; else the
        measured rms² of the sky, without the photon noise of objects.

    Returns
    -------
    xarray.Dataset
        `sci`, `variance`, `mask` and `n_frames` (y, x); a pixel with no good epoch is NaN and masked. The labels of the
        stack's pixels stay. Scalars: `gain` and `readnoise` such that ``sci / gain + (readnoise / gain)²`` is the
        variance where all epochs are good (where the gain is known; sky that was subtracted is in `readnoise`),
        `exptime` in total, `magzp`. On `frame`: what was measured of each epoch, its `flux_scale` and `weight`
        (normalized; 0: not used).

    Raises
    ------
    InputError
        An unknown option, weights that are not one number per epoch, epochs of several filters (where their names are
        lazy, those of another filter than the anchor's have no weight).
    ChunkError
        An image is chunked along y or x.

    Notes
    -----
    ``"mean"`` streams: an epoch is read, measured, weighted and added to sums, and memory grows as the logarithm of the
    number of epochs. ``"clipped"`` and ``"median"`` need all epochs of a pixel at once and work on blocks of rows;
    in between, all epochs wait in memory as two float32 images each. Flux scales rest on sums over stars in windows of
    15 pixels, so they need stars, and epochs aligned to a pixel.
    """
    options = _Options(method, clip, *_check(method, weights, clip, background))
    exposure = gather(stack, name="sci", mask=mask, variance=variance)
    plan = prepare(exposure, scale, anchor)
    require_one_filter(exposure.image)
    found = _contributions(plan, options, weights, background)
    planes = found.pop("contribution").transpose("time", "plane", "y", "x")
    frames = xr.Dataset(found)
    images = _stream(planes) if method == "mean" else _by_blocks(planes, frames["weight"], method, clip)
    images["mask"] = images["n_frames"] == 0
    if options.background == "none":
        images["sci"] = (images["sci"] + _mean_sky(frames)).astype(np.float32)
    return _labeled(exposure, images, frames, plan.anchor, options)


@dataclass(frozen=True)
class _Options:
    """How epochs are combined."""

    method: str
    clip: float
    weights: str
    background: str
    by_stars: bool = True


def build_reference(
    stack: xr.Dataset | xr.DataArray,
    *,
    best: int | None = None,
    max_seeing: float | None = None,
    max_sky: float | None = None,
    min_coverage: float = 0.5,
    method: Method = "clipped",
    weights: Weights = "snr",
    scale: FluxScale = "auto",
    clip: float = 3.5,
    background: Sky = True,
    mask: xr.DataArray | None = None,
    variance: xr.DataArray | None = None,
) -> xr.Dataset:
    """Select the good epochs of an aligned stack and coadd them. Computes the selection; the coadd is lazy.

    An epoch that is part of the reference shares its noise, and whatever changed in it: its difference is quieter than
    its variance says (`ztfxr.difference_quality` shows it) and its transients are partly subtracted. Build the
    reference from other epochs, or from many.

    Parameters
    ----------
    stack
        Aligned images (time, y, x), or a Dataset of them.
    best, max_seeing, max_sky, min_coverage
        Which epochs to take, as in `ztfxr.select_epochs`.
    method, weights, scale, clip, background, mask, variance
        How to combine them, as in `ztfxr.coadd`.

    Returns
    -------
    xarray.Dataset
        The coadd, on the flux scale of the selected epoch with the highest score. ``attrs["rejected"]`` says which
        epochs were left out, and why.

    Raises
    ------
    InputError
        No epoch is left, or an argument is none that those two functions take.

    Examples
    --------
    >>> made = ztfxr.testing.make_scene((160, 160), n_epochs=4, n_stars=80)
    >>> reference = ztfxr.build_reference(made.images, best=3)
    >>> reference.sci.dims
    ('y', 'x')
    """
    limits: dict[str, Any] = {"best": best, "max_seeing": max_seeing, "max_sky": max_sky, "min_coverage": min_coverage}
    given: dict[str, Any] = {"weights": weights, "background": background, "mask": mask, "variance": variance}
    given = {k: in_order_of(v, stack, k) if isinstance(v, xr.DataArray) else v for k, v in given.items()}
    table = select_epochs(stack, scale=scale, mask=given["mask"], **limits)
    left_out = [f"{n}: {r}" for n, r in zip(_frame_names(table), table["reason"].values, strict=True) if r]
    which = np.flatnonzero(table["selected"].values)
    if not which.size:
        raise InputError(f"none of the {table.sizes['time']} epochs can be used; {'; '.join(left_out[:5])}")
    require_one_filter(gather(stack.isel(time=which), name="sci").image, compute=True)
    anchor = int(np.argmax(table["score"].values[which]))
    known = bare(table["flux_scale"]).isel(time=which)
    out = coadd(
        stack.isel(time=which),
        method=method,
        scale=known / float(known[anchor]),
        clip=clip,
        anchor=anchor,
        **{k: _take(v, which) for k, v in given.items()},
    )
    return out.assign_attrs(rejected=left_out)


def _take(option: Any, which: NDArray[np.int64]) -> Any:
    """An option for some of the epochs only."""
    return option.isel(time=which) if isinstance(option, xr.DataArray) and "time" in option.dims else option


def _check(method: Method, weights: Weights, clip: float, background: Sky) -> tuple[str, str]:
    """The kinds of weights and background, checked."""
    if method not in ("clipped", "mean", "median"):
        raise InputError(f'method is "clipped", "mean" or "median"; got {method!r}')
    require_number("clip", clip)
    if not clip > 0:
        raise InputError(f"clip must be above 0; got {clip}")
    weighting = "given" if isinstance(weights, xr.DataArray) else str(weights)
    if weighting not in ("snr", "variance", "equal", "given"):
        raise InputError(f'weights are "snr", "variance", "equal" or an array on time; got {weights!r}')
    names: dict[Any, str] = {True: "mesh", False: "none", "median": "median"}
    sky = "given" if isinstance(background, xr.DataArray) else names.get(background)
    if sky is None:
        raise InputError(f'background is True, False, "median" or an array; got {background!r}')
    return weighting, sky


def _contributions(plan: Measuring, options: _Options, weights: Weights, background: Sky) -> dict[str, xr.DataArray]:
    """What each epoch adds, and its measures.

    One task from pixels to contribution: with one task per step dask keeps all epochs of a step before it sums them.
    """
    exposure, variance = plan.exposure, plan.exposure.own_variance
    image = exposure.image
    given = per_epoch(weights, image, "weights") if isinstance(weights, xr.DataArray) else xr.DataArray(1.0)
    inputs = {
        **plan.arguments,
        "variance": None if variance is None else bare(variance),
        "sky": aligned(background, image, "background") if isinstance(background, xr.DataArray) else None,
        "gain": exposure.gain,
        "given": given * _coaddable(exposure, plan.anchor),
        "anchor_noise": plan.anchor_noise,
        "anchor_width": plan.anchor_width,
    }
    return map_images(
        _one_epoch,
        inputs,
        {"contribution": ("plane", *IMAGE), **dict.fromkeys((*MEASURES, "weight"), ())},
        sizes={"plane": _PLANES[options.method]},
        options={"options": replace(options, by_stars=plan.by_stars)},
    )


def _coaddable(exposure: Exposure, anchor: int) -> xr.DataArray:
    """True where an epoch is usable, and, by names of filters that are lazy, of the anchor's filter."""
    usable, image = usable_epochs(exposure), exposure.image
    other = other_filter(image, image.isel(time=anchor)) if "filter" in image.coords else None
    return usable if other is None else usable & ~other


def _one_epoch(
    *,
    variance: NDArray[Any] | None,
    sky: NDArray[Any] | None,
    gain: NDArray[Any] | None,
    given: NDArray[Any],
    anchor_noise: NDArray[Any],
    anchor_width: NDArray[Any],
    options: _Options,
    **epoch: Any,
) -> dict[str, Any]:
    """From the pixels of an epoch to what it adds to the coadd, and its measures."""
    measures = measure_epoch(**epoch, by_stars=options.by_stars)
    relative_noise = measures.sky_noise / float(anchor_noise) if anchor_noise > 0 else np.nan
    weight = float(given) * _weight(options, measures.flux_scale, measures.fwhm / float(anchor_width), relative_noise)
    scale = measures.flux_scale
    usable = np.isfinite(weight) and weight > 0 and np.isfinite(scale) and scale > 0
    weight, scale = (weight, scale) if usable else (0.0, 1.0)
    pixels, bad = epoch["image"], epoch["bad"]
    level, variance = _sky_and_variance(pixels, bad, variance, gain, with_level=options.background == "mesh")
    shade = {"none": measures.sky, "median": measures.sky, "given": sky}.get(options.background, level)
    light, noise = (pixels - shade) / scale, variance / scale**2
    planes = epoch_planes(light, noise, bad | (weight == 0), weight, summed=options.method == "mean")
    return {"contribution": planes, **measures._asdict(), "weight": weight}


def _sky_and_variance(
    pixels: NDArray[Any], bad: Bools, variance: NDArray[Any] | None, gain: NDArray[Any] | None, *, with_level: bool
) -> tuple[NDArray[Any] | None, NDArray[Any]]:
    """The level of an epoch's sky, where it is measured, and the variance: known, or of the sky and the light above."""
    if variance is not None and not with_level:
        return None, variance
    level, rms = noise_maps(pixels, bad, options=SkyOptions())
    if variance is not None:
        return level, variance
    factor = np.inf if gain is None or np.isnan(gain) else float(gain)
    return level, sky_variance(pixels, level, rms, factor)


def _weight(options: _Options, scale: float, width: float, noise: float) -> float:
    """The weight relative to the anchor's: it depends on no other epoch, so that a mean can stream."""
    if options.method == "median" or options.weights in ("equal", "given"):
        return 1.0
    if options.weights == "variance" or not np.isfinite(width):
        width = 1.0
    return float((scale / (noise * width)) ** 2) if noise * width > 0 else np.nan


def _stream(planes: xr.DataArray) -> dict[str, xr.DataArray]:
    """Weighted mean, its variance and the count, from sums over time."""
    total = xr.DataArray(_tree_sum(planes.data), dims=("plane", *IMAGE))
    found = xr.apply_ufunc(
        mean_of_sums,
        total,
        input_core_dims=[("plane",)],
        output_core_dims=[()] * 3,
        output_dtypes=[np.float32, np.float32, np.int32],
        dask="parallelized",
    )
    return dict(zip(("sci", "variance", "n_frames"), found, strict=True))


def _mean_sky(frames: xr.Dataset) -> xr.DataArray:
    """The weighted mean of the epochs' skies on the anchor's flux scale."""
    weight = frames["weight"]
    used = weight > 0
    level = (frames["sky"] / frames["flux_scale"]).where(used, 0.0)
    return (level * weight).sum("time", skipna=False) / weight.sum("time").where(used.any("time"))


def _tree_sum(planes: Any) -> Any:
    """The sum over the first axis; of a dask array in pairs.

    So 8 + 4 log2(N) images wait at most (measured with `dask.callbacks`; a chain of sums looks leaner, but dask then
    makes all N contributions before it adds any), and pairs keep float32 sums exact to 1e-6.
    """
    if not is_dask_collection(planes):
        return planes.sum(axis=0, dtype=np.float64)
    import dask.array as da

    return da.sum(planes, axis=0, dtype=np.float32, split_every=2)


def _by_blocks(planes: xr.DataArray, weight: xr.DataArray, method: Method, clip: float) -> dict[str, xr.DataArray]:
    """All epochs of a block of rows at a time."""
    function = partial(_block, method=method, clip=clip)
    lazy = is_dask_collection(planes.data)
    found: Any = _lazy_blocks(function, planes.data, weight.data) if lazy else function(planes.values, weight.values)
    sci, variance, count = (xr.DataArray(image, dims=IMAGE) for image in found)
    return {"sci": sci, "variance": variance, "n_frames": count.astype(np.int32)}


def _lazy_blocks(function: Callable[..., Any], planes: da.Array, weight: Any) -> da.Array:
    """Blocks of rows that overlap by the one row that the clipping looks beyond a pixel."""
    import dask.array as da

    rows = max(int(_BLOCK_BYTES / (planes[:, :, 0].nbytes)), 1)
    wide = da.overlap.overlap(planes.rechunk({0: -1, 1: -1, 2: rows, 3: -1}), depth={2: 1}, boundary="none")
    out = da.blockwise(
        partial(_in_a_task, function),
        "cyx",
        wide,
        "tpyx",
        da.asarray(weight).rechunk(-1),
        "t",
        new_axes={"c": 3},
        concatenate=True,
        dtype=np.float32,
        meta=np.empty((0, 0, 0), np.float32),
    )
    return da.overlap.trim_internal(out, {1: 1}, boundary="none")  # type: ignore[no-any-return]


def _in_a_task(function: Callable[..., Any], planes: NDArray[Any], weight: NDArray[Any]) -> NDArray[np.float32]:
    with task():
        return np.stack(function(planes, weight)).astype(np.float32)


def _block(planes: NDArray[Any], weight: NDArray[Any], *, method: Method, clip: float) -> tuple[Any, ...]:
    values, noise = planes[:, 0], planes[:, 1]
    return median_stack(values, noise) if method == "median" else clipped_mean(values, noise, weight, clip=clip)


def _labeled(
    exposure: Exposure,
    images: dict[str, xr.DataArray],
    frames: xr.Dataset,
    anchor: int,
    options: _Options,
) -> xr.Dataset:
    """The images with the stack's pixel labels, the effective detector constants, and the table of frames."""
    stack, image = exposure.owner, exposure.image
    obj = stack if isinstance(stack, xr.Dataset) else stack.rename("sci").to_dataset()
    out = obj.drop_vars([k for k, v in obj.variables.items() if k in obj.data_vars or not set(v.dims) <= set(IMAGE)])
    out = out.drop_vars([k for k in _OF_AN_EPOCH if k in out.coords])
    scalars = {**_shared(image, frames, anchor), **_effective(exposure.gain, frames, options)}
    total = frames["weight"].sum("time")
    frames["weight"] = frames["weight"] / total.where(total > 0)
    listed = frames.rename(time="frame").assign_coords(frame=("frame", _frame_names(stack)))
    out = out.assign({k: v.transpose("y", "x") for k, v in images.items()}).merge(listed, join="exact")
    out = annotate_all(out.assign_coords(scalars), unit=exposure.unit)
    out["sci"].attrs["long_name"] = "coadd of science images"
    return out.drop_attrs(deep=False).assign_attrs(
        **kept(stack.attrs, "grid", "object"), method=options.method, anchor=anchor
    )


def _frame_names(stack: xr.Dataset | xr.DataArray) -> list[str]:
    """The names of the epochs, else their times, else their positions."""
    known = next((stack.coords[k] for k in ("frame", "time") if k in stack.coords), None)
    if known is None or known.ndim == 0:
        return [f"epoch {i}" for i in range(stack.sizes["time"])]
    return [str(v) for v in known.values]


def _effective(gain: xr.DataArray | None, frames: xr.Dataset, options: _Options) -> dict[str, xr.DataArray]:
    """Gain and read noise that give the coadd's variance, where every epoch is good."""
    if gain is None:
        return {}
    columns = [frames[k] for k in ("weight", "flux_scale", "sky_noise", "sky")] + [gain + 0.0 * frames["weight"]]
    found = xr.apply_ufunc(
        effective_detector,
        *(c.chunk(time=-1) if c.chunks is not None else c for c in columns),
        input_core_dims=[("time",)] * 5,
        output_core_dims=[(), ()],
        output_dtypes=[float, float],
        dask="parallelized",
        kwargs={"median": options.method == "median", "with_sky": options.background == "none"},
    )
    return dict(zip(("gain", "readnoise"), found, strict=True))


def _shared(image: xr.DataArray, frames: xr.Dataset, anchor: int) -> dict[str, Any]:
    """Exposure time in total, the anchor's zero point, and what all epochs have in common."""
    out: dict[str, Any] = {}
    if "exptime" in image.coords:
        out["exptime"] = (bare(image.coords["exptime"]) * (frames["weight"] > 0)).sum("time")
    for name in ("magzp", "magzprms"):
        if name in image.coords and "time" in image.coords[name].dims:
            out[name] = bare(image.coords[name]).isel(time=anchor)
    for name in _CONSTANT:
        values = image.coords.get(name)
        if values is None or values.dims != ("time",):
            continue
        # Values that .chunk() has made lazy cannot be compared without computing them.
        if values.chunks is not None:
            out[name] = bare(values).isel(time=anchor)
        elif name == "filter" and (known := list(bands(values.values).values())):
            out[name] = xr.DataArray(known[0])
        elif len(set(values.values)) == 1:
            out[name] = bare(values).isel(time=anchor)
    return out
