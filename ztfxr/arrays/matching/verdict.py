"""Numbers that tell whether a matched difference can be believed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ztfxr.arrays.matching.prior import ExpectedKernel
from ztfxr.arrays.matching.spatial import SpatialKernel
from ztfxr.arrays.statistics import mad_std
from ztfxr.arrays.types import Bools, Floats, Numbers, Scalar

__all__ = ["Verdict", "background_excess", "verdict_of"]

_SMALLEST_BOX, _LARGEST_BOX, _BOXES_PER_SIDE, _FILLED, _FEWEST_BOXES, _ROWS_OF_BOXES = 4, 32, 8, 0.5, 9, 24
_ROBUST_VARIANCE_SCATTER = 5.4
_BRIGHT, _FEWEST_BRIGHT, _MAJORITY, _LIKELY = 100.0, 4, 0.65, 3.0


@dataclass(frozen=True)
class Verdict:
    """What a solution says of itself; NaN where there is nothing to say it from.

    Parameters
    ----------
    scale_snr
        The photometric scale in units of its error.
    scale_deviation, scale_offset
        What the images alone say of the scale, less what was told: in units of both errors, and of the scale told.
    light_left
        Fraction of the light that the model leaves, of the cut-outs that hold half of the light and fit best, or of the
        best two thirds of the bright ones, whichever is more.
    light_chi2
        Reduced χ² in the cut-outs, weighted by their light (median), over that of all.
    kept_light
        Share of the light in the cut-outs that were not rejected.
    rejected_chi2
        Reduced χ² of the pixels that were rejected.
    shift_y, shift_x, shift_snr
        The kernel's center of light in pixels: where the reference lies beside the science image; and how far from 0 it
        is in units of its error.
    border_light, border_snr
        What the outermost pixels of the kernel hold of its sum, and that in units of its error.
    background_chi2, background_sigma
        Variance of the residuals' means in boxes, 1 where the background is followed, and its significance.
    """

    scale_snr: float
    scale_deviation: float
    scale_offset: float
    light_left: float
    light_chi2: float
    kept_light: float
    rejected_chi2: float
    shift_y: float
    shift_x: float
    shift_snr: float
    border_light: float
    border_snr: float
    background_chi2: float
    background_sigma: float


def verdict_of(solution: SpatialKernel, expected: ExpectedKernel, background: tuple[float, float]) -> Verdict:
    """The verdict on a solution, with that on its background."""
    size = solution.basis.size
    total = solution.scale if solution.scale != 0 else np.nan
    deviation, relative = _scale_deviation(solution, expected)
    shift_y, shift_x, shift_snr = _shift(solution)
    ring = np.ones((size, size))
    ring[1:-1, 1:-1] = 0.0
    border, border_error = solution.weighted_sum(ring)
    light_left, light_chi2 = _light_left(solution)
    kept_light, rejected_chi2 = _rejected(solution)
    return Verdict(
        scale_snr=_ratio(solution.scale, solution.scale_error()),
        scale_deviation=deviation,
        scale_offset=relative,
        light_left=light_left,
        light_chi2=light_chi2,
        kept_light=kept_light,
        rejected_chi2=rejected_chi2,
        shift_y=shift_y,
        shift_x=shift_x,
        shift_snr=shift_snr,
        border_light=float(border / total),
        border_snr=_ratio(border, border_error),
        background_chi2=background[0],
        background_sigma=background[1],
    )


def _ratio(value: float, error: float) -> float:
    return value / error if error > 0 else np.nan


def _shift(solution: SpatialKernel) -> tuple[float, float, float]:
    """The kernel's center of light (y, x), and its distance from the middle in units of its error."""
    if solution.scale == 0:
        return np.nan, np.nan, np.nan
    size = solution.basis.size
    offset = np.arange(size, dtype=np.float64) - size // 2
    axes = np.repeat(offset[:, None], size, axis=1), np.repeat(offset[None, :], size, axis=0)
    center = [solution.weighted_sum(axis)[0] / solution.scale for axis in axes]
    # How the center changes with each pixel, at a sum that changes with it.
    errors = [solution.weighted_sum((a - c) / solution.scale)[1] for a, c in zip(axes, center, strict=True)]
    distance = float(np.hypot(center[0], center[1]))
    error = float(np.hypot(center[0] * errors[0], center[1] * errors[1])) / distance if distance > 0 else np.nan
    return center[0], center[1], _ratio(distance, error)


def _scale_deviation(solution: SpatialKernel, expected: ExpectedKernel) -> tuple[float, float]:
    """The scale by the images alone, less what was told, in units of both errors and of the scale told."""
    error = solution.scale_error()
    if not expected.knows_scale or not error > 0:
        return np.nan, np.nan
    prior = solution.prior_scale_error**-2.0
    own = error**-2.0 - prior
    if own <= 1e-6 * prior:
        return 0.0, 0.0
    alone = (solution.scale * error**-2.0 - expected.scale * prior) / own
    deviation = (alone - expected.scale) / np.sqrt(1.0 / own + expected.scale_error**2)
    return float(deviation), float(alone / expected.scale - 1.0)


def _light_left(solution: SpatialKernel) -> tuple[float, float]:
    """`light_left` and `light_chi2`, over all cut-outs, rejected ones too.

    One bright star can hold half of the light, and the kernel then fits it; one variable among few stars must not
    count for all. So bright cut-outs have one vote each beside the votes by their light, and two thirds must fit.
    """
    chi2, light, n = solution.cutout_chi2, solution.cutout_light, solution.cutout_pixels
    total = light * n
    if not total.sum() > 0:
        return np.nan, np.nan
    typical = max(float(np.median(chi2[n > 0])), 1e-300)
    likely = typical * (1.0 + _LIKELY * np.sqrt(2.0 / np.maximum(n, 1)))
    misfit = np.sqrt(np.maximum(chi2 - likely, 0.0) / np.maximum(light, 1e-300))
    left, bright = _weighted_median(misfit, total), total > _BRIGHT**2
    if bright.sum() >= _FEWEST_BRIGHT:
        left = max(left, float(np.quantile(misfit[bright], _MAJORITY)))
    return left, _weighted_median(chi2, total) / typical


def _weighted_median(values: Floats, weights: Floats) -> float:
    order = np.argsort(values)
    cumulative = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(cumulative, 0.5 * cumulative[-1])])


def _rejected(solution: SpatialKernel) -> tuple[float, float]:
    """`kept_light` and `rejected_chi2`."""
    n, gone = solution.cutout_pixels, ~solution.kept
    light = solution.cutout_light * n
    kept = float(light[~gone].sum() / light.sum()) if light.sum() > 0 else np.nan
    lost = float(n[gone].sum())
    return kept, float((solution.cutout_chi2 * n)[gone].sum()) / lost if lost > 0 else np.nan


def background_excess(residual: Numbers, variance: Numbers, unused: Bools) -> tuple[float, float]:
    """Robust variance of box means in units of their noise, and how significantly it exceeds 1.

    Parameters
    ----------
    residual, variance
        The difference, and what a pixel adds to the variance of a sum over many.
    unused
        Pixels that do not count.

    Notes
    -----
    The variance is normalized by that of single pixels, so that a wrong unit of noise is no wrong background.
    """
    side = int(np.clip(min(residual.shape) // _BOXES_PER_SIDE, _SMALLEST_BOX, _LARGEST_BOX))
    rows, columns = residual.shape[0] // side, residual.shape[1] // side
    some = np.arange(0, rows, max(rows // _ROWS_OF_BOXES, 1))

    def taken(image: NDArray[Scalar]) -> NDArray[Scalar]:
        return image[: rows * side, : columns * side].reshape(rows, side, columns, side)[some]

    def sums(boxes: Numbers) -> Floats:
        return np.asarray(boxes.sum(axis=(1, 3), dtype=np.float64))

    residual, variance, unused = taken(residual), taken(variance), taken(unused)

    count = sums(np.asarray(~unused, dtype=np.float64))
    noise = sums(np.where(unused, 0.0, variance))
    full = (count > _FILLED * side**2) & (noise > 0)
    if full.sum() < _FEWEST_BOXES:
        return np.nan, np.nan
    total = sums(np.where(unused, 0.0, residual))[full]
    excess = mad_std(total / np.sqrt(noise[full])) ** 2
    return float(excess), float((excess - 1.0) / np.sqrt(_ROBUST_VARIANCE_SCATTER / full.sum()))
