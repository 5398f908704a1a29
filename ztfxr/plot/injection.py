"""What became of artificial stars, drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from ztfxr.errors import InputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["plot_injection"]

_LABELS = {"mag": "AB magnitude", "surface_brightness": "light around the place", "seeing": "seeing, FWHM"}


def plot_injection(report: xr.Dataset) -> Figure:
    """Draw efficiency, bias and pull width of a report, a column for each quantity that it bins by. Computes.

    Parameters
    ----------
    report
        What `ztfxr.injection_report` returned.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    InputError
        The report has no bins.
    """
    from matplotlib.figure import Figure

    quantities = [str(d).removesuffix("_bin") for d in report.dims if str(d).endswith("_bin")]
    if not quantities:
        raise InputError("the report has no bins to draw; see the bins= of ztfxr.injection_report")
    figure = Figure(figsize=(4.2 * len(quantities), 7.5), layout="constrained")
    axes = figure.subplots(3, len(quantities), sharex="col", squeeze=False)
    for column, name in enumerate(quantities):
        _draw(axes[:, column], report, name)
    axes[0, 0].set_ylabel(f"efficiency at {report.attrs.get('snt', np.nan):g} σ")
    axes[1, 0].set_ylabel("bias of the flux [%]")
    axes[2, 0].set_ylabel("width of the pulls")
    return figure


def _draw(axes: Any, report: xr.Dataset, name: str) -> None:
    middle = report[f"{name}_bin"].values
    n = np.maximum(report[f"{name}_n"].values, 1)
    share = report[f"{name}_efficiency"].values
    style: dict[str, Any] = {"fmt": "o-", "ms": 4, "lw": 1, "capsize": 2, "color": "#1f5a8a"}
    axes[0].errorbar(middle, share, np.sqrt(share * (1 - share) / n), **style)
    axes[0].set_ylim(-0.03, 1.05)
    axes[1].errorbar(middle, 100 * report[f"{name}_bias"], 100 * report[f"{name}_bias_err"], **style)
    axes[1].axhline(0, color="0.6", lw=0.8)
    axes[2].errorbar(middle, report[f"{name}_pull_width"], report[f"{name}_pull_width_err"], **style)
    axes[2].plot(middle, report[f"{name}_pull_mad"], "s", mfc="none", color="#b4552d", ms=4, label="by the MAD")
    axes[2].axhline(1, color="0.6", lw=0.8)
    axes[2].legend(frameon=False, fontsize=8)
    unit = report[f"{name}_bin"].attrs.get("units", "")
    axes[2].set_xlabel(_LABELS.get(name, name) + (f" [{unit}]" if unit else ""))
