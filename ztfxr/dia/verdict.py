"""The verdict on an epoch: which of its numbers say that its difference should not be believed."""

from __future__ import annotations

import numpy as np

from ztfxr.arrays.matching.match import Matched
from ztfxr.schema import STATUS_PLANES, planes_to_bits

__all__ = ["verdict_numbers", "verdict_status"]

_LEAST_SCALE_SNR = 3.0
_SCALE_PULL, _SCALE_OFFSET = 5.0, 0.1
_SHIFT, _SHIFT_SNR = 0.9, 5.0
_LEAST_KEPT_LIGHT, _MOST_LIGHT_LEFT = 0.5, 0.1
_MOST_BORDER, _BORDER_SNR = 0.7, 5.0
_NOISE_RATIO = (0.7, 1.3)


def verdict_numbers(matched: Matched) -> dict[str, float]:
    """The numbers of the verdict by their names in the schema, whichever image was convolved."""
    verdict, sign = matched.verdict, -1.0 if matched.convolved == "science" else 1.0
    return {
        "kernel_sum_pull": sign * verdict.scale_deviation,
        "kernel_shift_y": sign * verdict.shift_y,
        "kernel_shift_x": sign * verdict.shift_x,
        "border_light": verdict.border_light,
        "light_left": verdict.light_left,
        "kept_light": verdict.kept_light,
        "rejected_chi2": verdict.rejected_chi2,
        "background_chi2": verdict.background_chi2,
    }


def verdict_status(matched: Matched, n_blank: int) -> int:
    """The bit planes of what is wrong with a difference; 0 where nothing is. `n_blank` pixels of the images are blank.

    The limits lie well outside what clean simulated epochs show (crowded and sparse fields, and bright hosts without a
    star), and outside most of what real ones do. A number that cannot be measured flags nothing, but for the scale.
    `background_chi2` is stated without a plane: in crowded fields faint stars look like a background that is not
    followed.
    """
    v, ratio = matched.verdict, matched.noise_ratio()
    found = {
        "scale_not_significant": not v.scale_snr >= _LEAST_SCALE_SNR,
        "scale_unexpected": abs(v.scale_deviation) > _SCALE_PULL and abs(v.scale_offset) > _SCALE_OFFSET,
        "misregistered": float(np.hypot(v.shift_y, v.shift_x)) > _SHIFT and v.shift_snr > _SHIFT_SNR,
        "light_rejected": v.kept_light < _LEAST_KEPT_LIGHT,
        "light_left": v.light_left > _MOST_LIGHT_LEFT,
        "kernel_cut": abs(v.border_light) > _MOST_BORDER and v.border_snr > _BORDER_SNR,
        "noise_unexpected": ratio < _NOISE_RATIO[0] or ratio > _NOISE_RATIO[1],
        "blank_region": n_blank > 0,
    }
    return planes_to_bits([name for name, wrong in found.items() if wrong], STATUS_PLANES)
