"""Whole programs: one chain from frames to light curves, tables and figures, with the options of five uses.

Each says what it does to the logger ``ztfxr``.
"""

from __future__ import annotations

from ztfxr.recipes.alerts import compare_packets, run_alerts
from ztfxr.recipes.chain import Finished
from ztfxr.recipes.cluster import run_cluster
from ztfxr.recipes.field import run_field
from ztfxr.recipes.pair import difference_photometry
from ztfxr.recipes.semireal import run_semireal

__all__ = [
    "Finished",
    "compare_packets",
    "difference_photometry",
    "run_alerts",
    "run_cluster",
    "run_field",
    "run_semireal",
]
