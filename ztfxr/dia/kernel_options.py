"""The options of the kernel solution, and their defaults for whole frames and for cut-outs."""

from __future__ import annotations

from typing import Any, Literal, TypedDict

from ztfxr.arrays.matching.basis import Basis
from ztfxr.arrays.matching.match import Convolve, MatchOptions, SolveOn, Weights
from ztfxr.dia.pair import Pair
from ztfxr.errors import InputError

__all__ = ["KernelOptions", "match_options"]

_FRAME_PIXELS = 512 * 512


class KernelOptions(TypedDict, total=False):
    """Options of the kernel solution, as `ztfxr.difference` describes them; None stands for the default."""

    kernel_size: int | Literal["auto"] | None
    kernel_order: int | Literal["auto"] | None
    scale_order: int
    background_order: int | Literal["auto"] | None
    basis: Basis
    solve_on: SolveOn | None
    convolve: Convolve | None
    weights: Weights
    smoothing: float
    n_cutouts: int
    cutout_size: int | None
    clip: float


_OF_FRAMES: KernelOptions = {
    "kernel_size": "auto",
    "kernel_order": "auto",
    "background_order": 3,
    "solve_on": "stars",
    "convolve": "auto",
}
_OF_CUTOUTS: KernelOptions = {
    "kernel_size": 9,
    "kernel_order": 0,
    "background_order": "auto",
    "solve_on": "all",
    "convolve": "reference",
}


def match_options(pair: Pair, given: KernelOptions) -> MatchOptions:
    """The options for a pair: those that are given, else the defaults for its size.

    Raises
    ------
    InputError
        An option does not exist, or has a value that it cannot have.
    """
    known = KernelOptions.__annotations__
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise InputError(f"the kernel solution has no option {', '.join(unknown)}; its options are {', '.join(known)}")
    defaults = _OF_FRAMES if pair.n_pixels > _FRAME_PIXELS else _OF_CUTOUTS
    chosen: dict[str, Any] = {**defaults, **{k: v for k, v in given.items() if v is not None}}
    for name in ("kernel_size", "kernel_order", "background_order"):
        chosen[name] = None if chosen[name] == "auto" else chosen[name]
    return MatchOptions(**chosen, measure_sky=pair.science.own_variance is None)
