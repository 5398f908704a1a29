"""Noise models of a pixel."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from ztfxr.arrays.types import Floats, Images, Numbers

__all__ = ["photon_variance", "sky_variance"]

_MANY_BELOW_ZERO, _FEW_PIXELS, _MEDIAN_OF_HALF_A_NORMAL = 0.05, 20, 0.6745


def photon_variance(image: Numbers, *, gain: ArrayLike, readnoise: ArrayLike, n_frames: ArrayLike = 1.0) -> Floats:
    """Variance in DN² of (..., y, x) images by the photons in them.

    ``(max(S, median) / gain + (readnoise / gain)²) / n_frames``: the signal is floored at the image's median, so that
    pixels that fluctuate low are not given more weight than the sky. `gain` (electron/DN), `readnoise` (electron) and
    `n_frames` (frames averaged) broadcast over the leading dimensions. NaN stays NaN.

    Where the sky was subtracted, its photons are missing: many pixels lie below zero, further than read noise takes
    them. Their scatter then stands for the noise of sky and detector, and only light above the median adds photons.
    """
    g, r, n = (np.asarray(v, dtype=float)[..., None, None] for v in (gain, readnoise, n_frames))
    finite = np.where(np.isfinite(image), image, np.nan)
    empty = np.isnan(finite).all(axis=(-2, -1), keepdims=True)
    with np.errstate(invalid="ignore"):
        level = np.nanmedian(np.where(empty, 0.0, finite), axis=(-2, -1), keepdims=True)
        signal = np.maximum(np.maximum(finite, level), 0.0)
    of_sky = (level.clip(0.0) / g + (r / g) ** 2) / n
    scatter = _scatter_without_sky(finite, level)
    lost = scatter**2 > 2 * of_sky
    out = np.where(lost, np.fmax(finite - level, 0.0) / g / n + scatter**2, (signal / g + (r / g) ** 2) / n)
    out[np.isnan(finite)] = np.nan
    return np.asarray(out, dtype=float)


def _scatter_without_sky(images: Floats, level: Floats) -> Floats:
    """The scatter below the median where that is zero within twice as much, (..., 1, 1); else 0."""
    out = np.zeros(level.shape)
    many = (images < 0).mean(axis=(-2, -1)) > _MANY_BELOW_ZERO
    for i in np.ndindex(many.shape):
        depth = level[i] - images[i] if many[i] else np.zeros(0)
        below = depth[depth > 0]
        scatter = np.median(below) / _MEDIAN_OF_HALF_A_NORMAL if below.size > _FEW_PIXELS else 0.0
        out[i] = scatter if level[i] < 2 * scatter else 0.0
    return out


def sky_variance(image: Numbers, level: ArrayLike, rms: ArrayLike, gain: ArrayLike) -> Images:
    """Variance in DN² of images whose sky is known: ``rms² + max(S - level, 0) / gain``; the arguments broadcast.

    What the sky and the detector add is in `rms` (DN) as measured; only the light above the sky adds photon noise of
    its own, by `gain` (electron/DN). NaN stays NaN.
    """
    out = np.maximum(np.subtract(image, level), 0.0).astype(np.float32, copy=False)
    scatter, factor = np.asarray(rms, dtype=np.float32), np.asarray(gain, dtype=np.float32)
    return np.asarray(out / factor + scatter * scatter)
