"""Artificial stars in one image, and statistics of what was measured of them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ztfxr.arrays.noise import mad_std

__all__ = ["add_stamps", "light_at", "summarise"]

Floats = NDArray[np.float64]


def add_stamps(
    image: NDArray[Any],
    variance: NDArray[Any],
    flux: Floats,
    stamps: Floats,
    x: Floats,
    y: Floats,
    gain: NDArray[Any],
    seed: NDArray[Any],
    *,
    noise: bool,
) -> tuple[NDArray[Any], NDArray[Any]]:
    """One (y, x) image with stars at array positions `x`, `y`, and its variance with their photons'.

    `stamps` (source, v, u) are the fractions of light around the pixels ``floor(x + 0.5)``. Stars whose position, flux
    or stamp is not finite are left out. With `noise` the light is drawn from a Poisson distribution of its electrons
    where it is positive, by `seed`.
    """
    light = np.zeros(image.shape)
    half = stamps.shape[-1] // 2
    usable = np.isfinite(x) & np.isfinite(y) & np.isfinite(flux) & np.isfinite(stamps).all(axis=(-2, -1))
    for k in np.flatnonzero(usable):
        row, column = int(np.floor(y[k] + 0.5)), int(np.floor(x[k] + 0.5))
        top, bottom = max(0, row - half), min(image.shape[0], row + half + 1)
        left, right = max(0, column - half), min(image.shape[1], column + half + 1)
        if top < bottom and left < right:
            cut = stamps[k, top - row + half : bottom - row + half, left - column + half : right - column + half]
            light[top:bottom, left:right] += flux[k] * cut
    if not noise:
        return (image + light).astype(image.dtype), variance
    rng, scale = np.random.default_rng(int(seed)), float(gain)
    drawn = np.where(light > 0, rng.poisson(np.maximum(light, 0.0) * scale) / scale, light)
    return (image + drawn).astype(image.dtype), (variance + np.maximum(light, 0.0) / scale).astype(variance.dtype)


def light_at(image: NDArray[Any], x: Floats, y: Floats) -> Floats:
    """Mean of the 3 × 3 pixels around array positions inside one (y, x) image, less the image's median."""
    column, row = (np.floor(v + 0.5).astype(np.int64) for v in (x, y))
    steps = np.arange(-1, 2)
    rows = np.clip(row[:, None, None] + steps[:, None], 0, image.shape[0] - 1)
    columns = np.clip(column[:, None, None] + steps[None, :], 0, image.shape[1] - 1)
    finite = image[np.isfinite(image)]
    level = float(np.median(finite)) if finite.size else np.nan
    return np.asarray(image[rows, columns].mean(axis=(1, 2)) - level)


def summarise(
    value: Floats, error: Floats, truth: Floats, good: NDArray[np.bool_], number: NDArray[Any], n_bins: int, snt: float
) -> dict[str, NDArray[Any]]:
    """Statistics per bin; `number` is the bin of each measurement, -1 for none. NaN where a bin has too few."""
    names = ("efficiency", "bias", "bias_err", "pull_mean", "pull_width", "pull_mad")
    out = {k: np.full(n_bins, np.nan) for k in names}
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
        out["pull_mad"][b] = mad_std(pull)
    return {"n": counts, **out}
