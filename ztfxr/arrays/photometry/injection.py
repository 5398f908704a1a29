"""Artificial stars in one image, and statistics of what was measured of them."""

from __future__ import annotations

import numpy as np
from numba import njit

from ztfxr.arrays.images.annuli import measure_annuli
from ztfxr.arrays.statistics import mad_std
from ztfxr.arrays.types import Bools, Floats, Numbers

__all__ = ["add_stamps", "light_at", "summarize"]


_RING = (3.0, 6.0)
_NAMES = ("efficiency", "bias", "bias_err", "pull_mean", "pull_width", "pull_width_err", "pull_mad")


@njit(nogil=True, cache=True)
def _light(flux: Floats, stamps: Floats, x: Floats, y: Floats, out: Floats) -> None:
    """Add stars to a (y, x) image; what is not finite is left out."""
    half = stamps.shape[1] // 2
    for k in range(len(flux)):
        if not np.isfinite(x[k] + y[k] + flux[k] + stamps[k].sum()):
            continue
        top, left = np.floor(y[k] + 0.5) - half, np.floor(x[k] + 0.5) - half
        if not (-2 * half <= top < out.shape[0] and -2 * half <= left < out.shape[1]):
            continue
        row, column = int(top), int(left)
        for i in range(max(0, -row), min(stamps.shape[1], out.shape[0] - row)):
            for j in range(max(0, -column), min(stamps.shape[2], out.shape[1] - column)):
                out[row + i, column + j] += flux[k] * stamps[k, i, j]


def add_stamps(
    image: Numbers,
    variance: Numbers | None,
    flux: Floats,
    stamps: Floats,
    x: Floats,
    y: Floats,
    gain: Numbers | None,
    seed: Numbers,
    *,
    noise: bool,
) -> tuple[Numbers, Numbers | None]:
    """One (y, x) image with stars at array positions `x`, `y`, and its variance, where it has one, with their photons'.

    `stamps` (source, v, u) are the fractions of light around the pixels ``floor(x + 0.5)``. Stars whose position, flux
    or stamp is not finite are left out. With `noise` the light is drawn from a Poisson distribution of its electrons
    where it is positive, by `seed`.
    """
    light = np.zeros(image.shape)
    _light(_plain(flux), _plain(stamps), _plain(x), _plain(y), light)
    if not noise or gain is None:
        return (image + light).astype(image.dtype), variance
    rng, scale, lit = np.random.default_rng(int(seed)), float(gain), light > 0
    drawn, more = light.copy(), np.zeros_like(light)
    more[lit] = light[lit] / scale
    drawn[lit] = rng.poisson(light[lit] * scale) / scale
    grown = None if variance is None else (variance + more).astype(variance.dtype)
    return (image + drawn).astype(image.dtype), grown


def light_at(image: Numbers, bad: Bools, x: Floats, y: Floats) -> Floats:
    """Mean of one (y, x) image's good pixels 3 to 6 px from array positions, less the median of all; NaN without any.

    The pixels of the place itself are those that a star there is measured on: to sort stars by them would sort the
    stars by their noise.
    """
    good = image[~bad & np.isfinite(image)]
    level = float(np.median(good)) if good.size else np.nan
    inner, outer = _RING
    around = measure_annuli(image, bad, x, y, inner=inner, outer=outer, n_sigma=np.inf, statistic="mean")
    return around.level - level


def _plain(array: Numbers) -> Floats:
    """The array as the compiled loops know it."""
    return np.ascontiguousarray(array, dtype=np.float64)


def summarize(
    value: Floats, error: Floats, truth: Floats, good: Bools, number: Numbers, n_bins: int, snt: float
) -> dict[str, Numbers]:
    """Statistics per bin; `number` is the bin of each measurement, -1 for none. NaN where a bin has too few."""
    out = {k: np.full(n_bins, np.nan) for k in _NAMES}
    counts = np.zeros(n_bins, dtype=np.int64)
    for b in range(n_bins):
        inside = number == b
        counts[b] = inside.sum()
        if counts[b] == 0:
            continue
        chosen = inside & good & np.isfinite(truth)
        found = chosen & (value > snt * error)
        out["efficiency"][b] = found.sum() / counts[b]
        if chosen.sum() < 2:
            continue
        v, e, t = value[chosen], error[chosen], truth[chosen]
        weight = (t / e) ** 2
        if weight.sum() > 0:
            out["bias"][b] = np.sum(v * t / e**2) / weight.sum() - 1.0
            out["bias_err"][b] = weight.sum() ** -0.5
        pull = (v - t) / e
        out["pull_mean"][b], out["pull_width"][b] = pull.mean(), pull.std(ddof=1)
        out["pull_width_err"][b] = _width_error(pull)
        out["pull_mad"][b] = mad_std(pull)
    return {"n": counts, **out}


def _width_error(values: Floats) -> float:
    """Standard error of a standard deviation, whatever the distribution: ``√((m₄ - m₂²) / n) / (2 √m₂)``."""
    squares = (values - values.mean()) ** 2
    return float(squares.std() / np.sqrt(4.0 * len(values) * squares.mean())) if squares.any() else 0.0
