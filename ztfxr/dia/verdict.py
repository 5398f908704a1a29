"""The verdict on an epoch: which of its numbers say that its difference should not be believed."""

from __future__ import annotations

import numpy as np

from ztfxr.arrays.matching.match import Matched
from ztfxr.schema import STATUS_PLANES, planes_to_bits

__all__ = ["verdict_numbers", "verdict_status"]

_LEAST_SCALE_SNR = 3.0
_SCALE_PULL, _SCALE_OFFSET = 5.0, 0.03
_SHIFT, _SHIFT_SNR = 0.75, 5.0
_LIGHT_LEFT, _LIGHT_CHI2 = 0.05, 1.5
_BORDER_LIGHT, _BORDER_SNR = 0.1, 4.0
# Of a kernel of five pixels or fewer the border is more than half, and says nothing.
_SMALL_KERNEL = 5
_LEAST_KEPT_LIGHT = 0.5
_NOISE_RATIO = (0.8, 1.25)
_BACKGROUND_CHI2, _BACKGROUND_SIGMA = 1.5, 5.0


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


def verdict_status(matched: Matched) -> int:
    """The bit planes of what is wrong with a difference; 0 where nothing is.

    The limits lie well outside what 450 clean simulated epochs show, none of which they flag: crowded and sparse fields
    and bright hosts without a star. A number that cannot be measured flags nothing, but for the scale.
    """
    v, noise = matched.verdict, matched.noise_ratio()
    judged = matched.solution.basis.size > _SMALL_KERNEL
    found = {
        "scale_not_significant": not v.scale_snr >= _LEAST_SCALE_SNR,
        "scale_unexpected": abs(v.scale_deviation) > _SCALE_PULL and abs(v.scale_offset) > _SCALE_OFFSET,
        "misregistered": float(np.hypot(v.shift_y, v.shift_x)) > _SHIFT and v.shift_snr > _SHIFT_SNR,
        "light_left": v.light_left > _LIGHT_LEFT and v.light_chi2 > _LIGHT_CHI2,
        "kernel_cut": judged and abs(v.border_light) > _BORDER_LIGHT and abs(v.border_snr) > _BORDER_SNR,
        "light_rejected": v.kept_light < _LEAST_KEPT_LIGHT,
        "noise_not_as_stated": noise < _NOISE_RATIO[0] or noise > _NOISE_RATIO[1],
        "background_not_followed": v.background_chi2 > _BACKGROUND_CHI2 and v.background_sigma > _BACKGROUND_SIGMA,
    }
    return planes_to_bits([name for name, wrong in found.items() if wrong], STATUS_PLANES)
