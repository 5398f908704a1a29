"""Levels of groups of measurements, found without the epochs of a transient."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ztfxr.arrays.statistics import MAD_TO_SIGMA
from ztfxr.arrays.types import Bools, Floats, Ints

__all__ = ["BaselineRules", "Baselines", "fit_baselines"]


_ROUNDS = 8
_CLIP_ROUNDS = 20


@dataclass(frozen=True)
class BaselineRules:
    """How levels are found; times in days."""

    window: float = 12.0
    n_sigma: float = 5.0
    padding: float = 5.0
    clip: float = 4.0
    min_epochs: int = 5
    max_factor: float = 4.0
    max_trend: float = 4.0


@dataclass(frozen=True)
class Baselines:
    """Of one source: per group level, its error, error factor and epochs used; per epoch whether it was used."""

    level: Floats
    error: Floats
    factor: Floats
    n: Ints
    used: Bools


def fit_baselines(
    time: Floats, flux: Floats, error: Floats, group: Ints, quiet: Bools | None, rules: BaselineRules
) -> Baselines:
    """Levels of the groups of one source.

    Parameters
    ----------
    time, flux, error
        Days, fluxes and their errors, shape (time,); NaN where there is no usable measurement.
    group
        Number of each epoch's group, from 0.
    quiet
        Epochs known to be free of the transient; None to find them.
    rules
        See `BaselineRules`.

    Notes
    -----
    Epochs are found to be free of a transient in rounds. The first level of a group is its lowest that lasts, by the
    smallest running median of `min_epochs` consecutive fluxes, since a transient adds light. Deviations of all groups
    together, in units of their errors, are summed over a running window of time; where the sum stands out by more than
    `n_sigma`, the epochs of the window, and `padding` days around them, belong to the transient. The level of a group
    is then the inverse-variance mean of its other epochs, clipped, and its error factor the root of their reduced χ²,
    at least 1. What scatters by more than `max_factor` of its errors, or drifts with a slope of more than `max_trend`
    of its own error, is no level, and NaN.
    """
    good = np.isfinite(flux) & (error > 0)
    n_groups = int(group.max(initial=-1)) + 1
    if quiet is not None:
        return _levels(flux, error, group, good & quiet, n_groups, rules)
    order = np.argsort(time, kind="stable")
    first = [_lowest(flux, error, order[(good & (group == g))[order]], rules.min_epochs) for g in range(n_groups)]
    start, spread = (np.array(v, dtype=np.float64) for v in zip(*first, strict=True)) if first else (np.zeros(0),) * 2
    used = good & ~_transient(time, flux, error, group, good, start, spread, rules)
    for _ in range(_ROUNDS):
        found = _levels(flux, error, group, used, n_groups, rules)
        known = found.n >= rules.min_epochs
        level = np.where(known, found.level, start)
        factor = np.where(known, found.factor, spread)
        fresh = good & ~_transient(time, flux, error, group, good, level, factor, rules)
        if np.array_equal(fresh, used):
            break
        used = fresh
    return _only_steady(_levels(flux, error, group, used, n_groups, rules), time, flux, error, group, rules)


def _lowest(flux: Floats, error: Floats, index: Ints, n: int) -> tuple[float, float]:
    """The lowest level that lasts, of a group in order of time, and its noise in units of the errors, at least 1.

    It starts from the smallest running median, which noise makes too low, and climbs to the mean of all that lies
    within three standard deviations. The noise comes from differences of consecutive fluxes, which a slow change hardly
    enters.
    """
    f, e = flux[index], error[index]
    if len(index) < n:
        return (float(np.median(f)) if len(index) else np.nan), 1.0
    steps = np.abs(np.diff(f)) / np.hypot(e[1:], e[:-1])
    noise = max(MAD_TO_SIGMA * float(np.median(steps)), 1.0)
    level = float(np.median(np.lib.stride_tricks.sliding_window_view(f, n), axis=1).min())
    for _ in range(_CLIP_ROUNDS):
        near = np.abs(f - level) <= 3.0 * noise * e
        if not near.any():
            break
        level = float(np.average(f[near], weights=e[near] ** -2.0))
    return level, noise


def _only_steady(
    found: Baselines, time: Floats, flux: Floats, error: Floats, group: Ints, rules: BaselineRules
) -> Baselines:
    """Levels that scatter or drift too much taken back."""
    level, used = found.level.copy(), found.used.copy()
    for g in np.flatnonzero(np.isfinite(level)):
        chosen = np.flatnonzero(used & (group == g))
        weight = error[chosen] ** -2.0
        t = time[chosen] - np.sum(weight * time[chosen]) / weight.sum()
        leverage = float(np.sum(weight * t**2))
        trend = float(np.sum(weight * t * (flux[chosen] - level[g]))) / (
            found.factor[g] * np.sqrt(max(leverage, 1e-300))
        )
        if found.factor[g] > rules.max_factor or abs(trend) > rules.max_trend:
            level[g] = np.nan
            used[chosen] = False
    unknown = np.isnan(level)
    factor, spread = (np.where(unknown, np.nan, v) for v in (found.factor, found.error))
    return Baselines(level, spread, factor, np.where(unknown, 0, found.n), used)


def _transient(
    time: Floats,
    flux: Floats,
    error: Floats,
    group: Ints,
    good: Bools,
    level: Floats,
    factor: Floats,
    rules: BaselineRules,
) -> Bools:
    """Epochs within reach of a window whose summed deviation stands out."""
    index = np.flatnonzero(good)
    order = index[np.argsort(time[index], kind="stable")]
    t, pull = time[order], (flux[order] - level[group[order]]) / (error[order] * factor[group[order]])
    # A single bad epoch, however far off, must not look like a transient.
    total = np.concatenate([[0.0], np.cumsum(np.clip(pull, -rules.n_sigma, rules.n_sigma))])
    first = np.searchsorted(t, t - rules.window / 2, "left")
    last = np.searchsorted(t, t + rules.window / 2, "right")
    loud = np.abs(total[last] - total[first]) > rules.n_sigma * np.sqrt(np.maximum(last - first, 2))
    out = np.zeros(len(time), dtype=bool)
    loud_times = t[loud]
    if len(loud_times):
        nearest = np.searchsorted(loud_times, time)
        before = time - loud_times[np.maximum(nearest - 1, 0)]
        after = loud_times[np.minimum(nearest, len(loud_times) - 1)] - time
        out = (np.abs(before) <= rules.padding) | (np.abs(after) <= rules.padding)
    return out


def _levels(flux: Floats, error: Floats, group: Ints, used: Bools, n_groups: int, rules: BaselineRules) -> Baselines:
    """Clipped weighted means of the epochs used."""
    level, spread, factor = (np.full(n_groups, np.nan) for _ in range(3))
    n, kept = np.zeros(n_groups, dtype=np.int64), np.zeros(len(flux), dtype=bool)
    for g in range(n_groups):
        chosen = _clip(flux, error, np.flatnonzero(used & (group == g)), rules.clip)
        n[g] = len(chosen)
        if n[g] < max(rules.min_epochs, 2):
            continue
        weight = error[chosen] ** -2.0
        level[g] = np.sum(weight * flux[chosen]) / weight.sum()
        chi2 = float(np.sum(weight * (flux[chosen] - level[g]) ** 2)) / (n[g] - 1)
        factor[g] = max(np.sqrt(chi2), 1.0)
        spread[g] = factor[g] / np.sqrt(weight.sum())
        kept[chosen] = True
    return Baselines(level, spread, factor, n, kept)


def _clip(flux: Floats, error: Floats, index: Ints, n_sigma: float) -> Ints:
    """The epochs whose deviation from the median is below `n_sigma` of the typical one."""
    for _ in range(_CLIP_ROUNDS):
        if len(index) < 3:
            break
        pull = (flux[index] - np.median(flux[index])) / error[index]
        size = max(MAD_TO_SIGMA * float(np.median(np.abs(pull))), 1.0)
        inside = np.abs(pull) <= n_sigma * size
        if inside.all():
            break
        index = index[inside]
    return index
