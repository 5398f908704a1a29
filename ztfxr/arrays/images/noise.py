"""Noise models of a pixel."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from ztfxr.arrays.types import Floats, Images, Numbers

__all__ = ["photon_variance", "sky_variance"]


def photon_variance(image: Numbers, *, gain: ArrayLike, readnoise: ArrayLike, n_frames: ArrayLike = 1.0) -> Floats:
    """Variance in DN² of (..., y, x) images that still hold their sky.

    ``(max(S, median) / gain + (readnoise / gain)²) / n_frames``: the signal is floored at the image's median, so that
    pixels that fluctuate low are not given more weight than the sky. `gain` (electron/DN), `readnoise` (electron) and
    `n_frames` (frames averaged) broadcast over the leading dimensions. NaN stays NaN.
    """
    g, r, n = (np.asarray(v, dtype=float)[..., None, None] for v in (gain, readnoise, n_frames))
    finite = np.where(np.isfinite(image), image, np.nan)
    empty = np.isnan(finite).all(axis=(-2, -1), keepdims=True)
    with np.errstate(invalid="ignore"):
        level = np.nanmedian(np.where(empty, 0.0, finite), axis=(-2, -1), keepdims=True)
        signal = np.maximum(np.maximum(finite, level), 0.0)
    return np.asarray((signal / g + (r / g) ** 2) / n, dtype=float)


def sky_variance(image: Numbers, level: ArrayLike, rms: ArrayLike, gain: ArrayLike) -> Images:
    """Variance in DN² of images whose sky is known: ``rms² + max(S - level, 0) / gain``; the arguments broadcast.

    What the sky and the detector add is in `rms` (DN) as measured; only the light above the sky adds photon noise of
    its own, by `gain` (electron/DN). NaN stays NaN.
    """
    out = np.maximum(np.subtract(image, level), 0.0).astype(np.float32, copy=False)
    scatter, factor = np.asarray(rms, dtype=np.float32), np.asarray(gain, dtype=np.float32)
    return np.asarray(out / factor + scatter * scatter)
