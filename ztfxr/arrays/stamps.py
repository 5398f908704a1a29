"""Small square images around one place: kernels and PSFs with their borders of zeros taken off or put on, or moved."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from ztfxr.arrays.types import Floats, Scalar

__all__ = ["pad", "shift_stamps", "trim", "zero_margin"]


def zero_margin(stamps: NDArray[Scalar]) -> int:
    """Width of the border of stamps (..., y, x) that is zero on all four sides; 0 where all is zero."""
    used = np.any(stamps, axis=tuple(range(stamps.ndim - 2)))
    rows, columns = np.flatnonzero(used.any(axis=1)), np.flatnonzero(used.any(axis=0))
    if not len(rows):
        return 0
    ny, nx = used.shape
    return int(min(rows[0], columns[0], ny - 1 - rows[-1], nx - 1 - columns[-1]))


def trim(stamps: NDArray[Scalar], *, keep: int = 0) -> NDArray[Scalar]:
    """Stamps (..., y, x) without the border that is zero on all four sides, but for `keep` pixels of it.

    What was in the middle stays there.
    """
    cut = max(zero_margin(stamps) - keep, 0)
    ny, nx = stamps.shape[-2:]
    return stamps[..., cut : ny - cut, cut : nx - cut]


def pad(stamps: NDArray[Scalar], size: int) -> NDArray[Scalar]:
    """Stamps (..., y, x) of odd sides in the middle of `size` × `size` pixels of zeros; larger ones stay."""
    margins = [(max((size - n) // 2, 0),) * 2 for n in stamps.shape[-2:]]
    return np.pad(stamps, [(0, 0)] * (stamps.ndim - 2) + margins)


def shift_stamps(stamps: Floats, dy: Floats, dx: Floats) -> Floats:
    """Stamps (..., y, x) moved by (dy, dx) pixels to larger indices, by the Fourier shift theorem.

    Shifts broadcast over the leading dimensions. Flux is conserved exactly; the stamps are taken as periodic, so their
    borders should be at zero.
    """
    ky, kx = fft.fftfreq(stamps.shape[-2]), fft.rfftfreq(stamps.shape[-1])
    rows = np.exp(-2j * np.pi * np.asarray(dy)[..., None] * ky)
    columns = np.exp(-2j * np.pi * np.asarray(dx)[..., None] * kx)
    moved = fft.rfft2(stamps) * rows[..., :, None] * columns[..., None, :]
    return np.asarray(fft.irfft2(moved, s=stamps.shape[-2:]))
