"""Images, light curves and difference triplets drawn with matplotlib.

Everything here computes what it draws and changes none of it. matplotlib is imported when a function is called,
so that ``import ztfxr`` stays fast.
"""

from ztfxr.plot.difference import plot_difference
from ztfxr.plot.images import Style, show
from ztfxr.plot.injection import plot_injection
from ztfxr.plot.lightcurves import FILTER_COLORS, plot_lightcurve
from ztfxr.plot.triplets import plot_summary, plot_triplet

__all__ = [
    "FILTER_COLORS",
    "Style",
    "plot_difference",
    "plot_injection",
    "plot_lightcurve",
    "plot_summary",
    "plot_triplet",
    "show",
]
