"""How far to trust difference images."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ztfxr.arrays.statistics import mad_std
from ztfxr.arrays.types import Floats
from ztfxr.errors import InputError
from ztfxr.ops.exposure import gather
from ztfxr.ops.mapping import IMAGE, map_images
from ztfxr.schema import annotate_all

__all__ = ["difference_quality"]

_MIN_SCALES = 4
_MIN_FILL = 0.1


def difference_quality(
    diff: xr.Dataset,
    *,
    block_size: int = 32,
    noise_ratio: tuple[float, float] = (0.8, 1.25),
    max_chi2: float = 2.0,
    max_lost: float = 0.5,
    max_deviation: float = 0.1,
) -> xr.Dataset:
    """Judge difference images by their own noise; lazy, one epoch a task.

    Parameters
    ----------
    diff
        The result of `ztfxr.difference`, (y, x) or (time, y, x).
    block_size
        Pixels along the side of a block of the chi2 map, roughly: blocks are of equal size.
    noise_ratio, max_chi2, max_lost, max_deviation
        Limits within which a difference counts as `good`, as described below.

    Returns
    -------
    xarray.Dataset
        `noise_ratio`: robust scatter (1.4826 MAD) of difference over its stated noise, over all good pixels; 1 where
        the variance is right, less where an epoch is part of its own reference and shares its noise. `chi2_map`
        (block_y, block_x): mean squared difference over its variance, NaN where fewer than a tenth of a block's pixels
        are good; its coordinates are absolute pixels of block centers. `chi2_high`: its 90th percentile.
        `lost_fraction` of `diff`. A stack of four epochs or more has `kernel_sum_deviation` too: how far the kernel sum
        is from its median over the stack, relative, after the zero points' differences are taken out where `magzp` is
        known; and `kernel_sum_scatter`, its robust scatter. `good`: the epoch was solved, `noise_ratio` lies within its
        limits, `chi2_high` and `lost_fraction` are not above theirs, and the kernel sum deviates by no more than
        `max_deviation` or five `kernel_sum_scatter`, whichever is larger.

    Raises
    ------
    InputError
        `diff` is not a difference Dataset, or `block_size` is below 1.
    ChunkError
        An image is chunked along y or x.
    """
    if block_size < 1:
        raise InputError(f"block_size is at least 1 pixel; got {block_size}")
    exposure = gather(diff, name="difference")
    image, variance = exposure.image, exposure.own_variance
    if variance is None:
        raise InputError("the Dataset has no variable 'difference_variance': its noise is not stated")
    blocks = {f"block_{d}": max(round(image.sizes[d] / block_size), 1) for d in IMAGE}
    found = map_images(
        _pulls,
        {"difference": image, "variance": variance},
        _Results._fields,
        sizes=blocks,
        options={"blocks": tuple(blocks.values())},
    )
    out = xr.Dataset(found).assign_coords({f"block_{d}": (f"block_{d}", _centers(image, d, blocks)) for d in IMAGE})
    lost = diff["lost_fraction"] if "lost_fraction" in diff else found["noise_ratio"].isnull() * 1.0
    out["lost_fraction"] = lost
    good = (out["noise_ratio"] >= noise_ratio[0]) & (out["noise_ratio"] <= noise_ratio[1])
    good &= (out["chi2_high"] <= max_chi2) & (lost <= max_lost)
    if "epoch_status" in diff:
        good &= diff["epoch_status"] == 0
    if "kernel_sum" in diff and diff["kernel_sum"].sizes.get("time", 0) >= _MIN_SCALES:
        out["kernel_sum_deviation"], out["kernel_sum_scatter"] = _stability(diff)
        limit = (5 * out["kernel_sum_scatter"]).clip(min=max_deviation)
        good &= np.abs(out["kernel_sum_deviation"]) <= limit
    out["good"] = good
    return annotate_all(out)


class _Results(NamedTuple):
    """What is found of one image, by the names of the schema."""

    noise_ratio: float
    chi2_map: Floats
    chi2_high: float


def _pulls(*, difference: NDArray[Any], variance: NDArray[Any], blocks: tuple[int, int]) -> _Results:
    """Noise ratio, chi2 map and its 90th percentile of one image."""
    with np.errstate(invalid="ignore", divide="ignore"):
        pull = np.where(variance > 0, difference / np.sqrt(variance), np.nan).astype(np.float64)
    chi2 = block_means(pull**2, blocks)
    known = chi2[np.isfinite(chi2)]
    return _Results(mad_std(pull), chi2, float(np.percentile(known, 90)) if known.size else np.nan)


def block_means(image: Floats, blocks: tuple[int, int]) -> Floats:
    """Means of the finite pixels of (y, x) blocks; NaN where fewer than a tenth are finite."""
    good = np.isfinite(image)
    starts = [(np.arange(n) * size) // n for n, size in zip(blocks, image.shape, strict=True)]

    def total(values: NDArray[Any]) -> Floats:
        rows = np.add.reduceat(values.astype(np.float64), starts[0], axis=0)
        return np.asarray(np.add.reduceat(rows, starts[1], axis=1))

    count, pixels = total(good), total(np.ones(image.shape))
    sums = total(np.where(good, image, 0.0))
    return np.where(count >= _MIN_FILL * pixels, sums / np.maximum(count, 1.0), np.nan)


def _centers(image: xr.DataArray, dim: str, blocks: dict[str, int]) -> Floats:
    """Absolute pixel positions of the blocks' centers."""
    n, size = blocks[f"block_{dim}"], image.sizes[dim]
    edges = np.append((np.arange(n) * size) // n, size)
    first = float(image.coords[dim][0]) if dim in image.coords else 0.0
    return np.asarray(first + 0.5 * (edges[:-1] + edges[1:] - 1))


def _stability(diff: xr.Dataset) -> tuple[xr.DataArray, xr.DataArray]:
    """Relative deviation of each kernel sum from the stack's median, and its robust scatter."""
    scale = diff["kernel_sum"]
    if "science_convolved" in diff:
        # The kernel that was solved acts on the science image there, and its sum is the inverse.
        scale = scale.where(~diff["science_convolved"], 1.0 / scale.where(scale != 0))
    zeropoint = scale.coords["magzp"] if "magzp" in scale.coords else xr.zeros_like(scale)
    inputs = [a.chunk(time=-1) if a.chunks is not None else a for a in xr.broadcast(scale, zeropoint)]
    deviation, scatter = xr.apply_ufunc(
        _deviation,
        *inputs,
        input_core_dims=[("time",)] * 2,
        output_core_dims=[("time",), ()],
        output_dtypes=[float, float],
        dask="parallelized",
    )
    return deviation, scatter


def _deviation(scale: Floats, zeropoint: Floats) -> tuple[Floats, float]:
    known = np.isfinite(zeropoint)
    shift = np.where(known, zeropoint - (np.median(zeropoint[known]) if known.any() else 0.0), 0.0)
    level = scale * 10 ** (-0.4 * shift)
    finite = level[np.isfinite(level)]
    center = float(np.median(finite)) if finite.size else np.nan
    relative = level / center - 1.0 if center else np.full_like(level, np.nan)
    return relative, mad_std(relative)
