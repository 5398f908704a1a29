"""Aperture corrections from the growth of stars' fluxes with the radius."""

from __future__ import annotations

import numpy as np

from ztfxr.arrays.statistics import median_and_scatter
from ztfxr.arrays.types import Bools, Floats, Ints

__all__ = ["correct_apertures"]


_ROUNDS = 20
_SATURATION = 10.0


def correct_apertures(
    flux: Floats,
    error: Floats,
    good: Bools,
    *,
    large: int,
    min_snr: float,
    min_stars: int,
    n_sigma: float,
) -> tuple[Floats, Floats, Floats, Ints]:
    """Factors from the flux at each radius to that at radius number `large`.

    `flux`, `error` and `good` have the shape (source, radius). The results are the weighted mean of the stars' ratios,
    its standard error and the scatter of a star, each (radius,), and the number of stars. NaN below `min_stars`.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        snr = flux[:, large] / error[:, large]
        ratio = flux[:, large, None] / flux
    usable = good[:, large] & (snr >= min_snr)
    weight = np.minimum(np.nan_to_num(snr), _SATURATION * min_snr) ** 2
    columns = [_mean(ratio[:, k], weight, usable & good[:, k], min_stars, n_sigma) for k in range(flux.shape[1])]
    mean, spread, scatter = (np.array(v, dtype=np.float64) for v in zip(*columns, strict=True))
    return mean, spread, scatter, np.array(usable.sum(), dtype=np.int64)


def _mean(ratio: Floats, weight: Floats, usable: Bools, min_stars: int, n_sigma: float) -> tuple[float, float, float]:
    """Weighted mean of the usable ratios within `n_sigma` of their median, its error, and their scatter."""
    kept = usable & np.isfinite(ratio)
    for _ in range(_ROUNDS):
        if kept.sum() < max(min_stars, 2):
            return np.nan, np.nan, np.nan
        middle, spread = median_and_scatter(ratio[kept])
        inside = kept & (np.abs(ratio - middle) <= n_sigma * spread + 1e-12)
        if np.array_equal(inside, kept):
            break
        kept = inside
    w, r = weight[kept], ratio[kept]
    mean = float(np.sum(w * r) / w.sum())
    squares = (r - mean) ** 2 * len(r) / (len(r) - 1)
    error = float(np.sqrt(np.sum(w**2 * squares)) / w.sum())
    return mean, error, float(np.sqrt(np.sum(w * squares) / w.sum()))
