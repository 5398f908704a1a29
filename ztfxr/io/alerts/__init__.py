"""ZTF alert packets: their stamps as stacks, their histories as light curves."""

from __future__ import annotations

from ztfxr.io.alerts.histories import read_fp_hists
from ztfxr.io.alerts.stacks import open_alerts

__all__ = ["open_alerts", "read_fp_hists"]
