"""One figure by which to judge a difference image."""

from __future__ import annotations

from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ztfxr.arrays.polynomials import polynomial_at
from ztfxr.arrays.stamps import zero_margin
from ztfxr.arrays.statistics import mad_std
from ztfxr.arrays.types import Floats
from ztfxr.dia.quality import difference_quality
from ztfxr.errors import InputError
from ztfxr.ops.mosaic import rebin
from ztfxr.plot._common import date_of, moments, units_of
from ztfxr.plot.images import Style, draw_colorbar, draw_image, edges, to_image
from ztfxr.schema import EPOCH_QUALITY, SPECS, plane_names

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

__all__ = ["plot_difference"]

_NEEDED = ("difference", "difference_variance", "kernel_coeff", "kernel_sum", "kernel_sum_err", "noise_ratio")
_MAX_DRAWN = 700
_PULL_LIMIT = 6.0
_MEASURES = {name: SPECS[name].short for name in EPOCH_QUALITY if SPECS[name].short}
_CORNERS = {(0, 0): (1.0, -1.0), (0, 2): (1.0, 1.0), (1, 1): (0.0, 0.0), (2, 0): (-1.0, -1.0), (2, 2): (-1.0, 1.0)}
"""Where the kernels are drawn, by row and column of the grid: v, u on the image."""
_MARK, _BAD = "crimson", "0.72"


def plot_difference(
    diff: xr.Dataset, *, epoch: int | None = None, block_size: int = 32, path: str | PathLike[str] | None = None
) -> Figure:
    """Draw what tells a good difference image from a bad one. Computes.

    The difference image; the histogram of difference over its stated noise beside the unit Gaussian; chi2 in blocks,
    which shows *where* the match fails; the kernel at the center and the corners, which shows whether it is compact and
    varies smoothly; the numbers; and of a stack, the same measures against time, the epoch drawn in red.

    Parameters
    ----------
    diff
        The result of `ztfxr.difference`, (y, x) or (time, y, x).
    epoch
        Position of the epoch to draw. By default the one whose `noise_ratio` is farthest from 1, the worst.
    block_size
        Pixels along the side of a block of the chi2 map; see `ztfxr.difference_quality`.
    path
        Where to save the figure too, at 130 dots per inch.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    InputError
        `diff` lacks what a difference Dataset has, or has no such epoch.
    """
    import matplotlib.pyplot as plt

    missing = [k for k in _NEEDED if k not in diff]
    if missing:
        raise InputError(f"not a Dataset of ztfxr.difference: it lacks {', '.join(missing)}")
    stacked = "time" in diff["difference"].dims
    chosen = _choose(diff, epoch) if stacked else None
    one = (diff if chosen is None else diff.isel(time=chosen)).load()
    measured = difference_quality(one, block_size=block_size).compute()
    figure = plt.figure(figsize=(13.5, 10.4 if stacked else 7.6), layout="constrained")
    if chosen is None:
        _draw_epoch(figure, one, measured, chosen)
    else:
        parts: Any = figure.subfigures(2, 1, height_ratios=[7.6, 2.8])
        _draw_epoch(parts[0], one, measured, chosen)
        _draw_stack(parts[1], diff, chosen)
    if path is not None:
        figure.savefig(path, dpi=130)
    return figure


def _choose(diff: xr.Dataset, epoch: int | None) -> int:
    n = diff.sizes["time"]
    if epoch is not None:
        if not -n <= epoch < n:
            raise InputError(f"no epoch {epoch}: the stack has {n}, counted from 0")
        return epoch % n
    ratio = diff["noise_ratio"].values
    solved = np.isfinite(ratio) & (ratio > 0)
    return int(np.argmax(np.where(solved, np.abs(np.log(np.where(solved, ratio, 1.0))), -1.0)))


def _draw_epoch(figure: Figure | SubFigure, one: xr.Dataset, measured: xr.Dataset, chosen: int | None) -> None:
    """The panels of one epoch: image, chi2 map and text above, histogram and kernels below."""
    grid = figure.add_gridspec(2, 3, width_ratios=[1.15, 1.0, 1.0])
    image = to_image(one, "difference")
    label = " ".join(filter(None, (date_of(image), "" if chosen is None else f"(epoch {chosen})")))
    _draw_difference(figure.add_subplot(grid[0, 0]), image, label)
    _draw_chi2(figure.add_subplot(grid[0, 1]), measured["chi2_map"], image)
    _draw_text(figure.add_subplot(grid[0, 2]), _numbers(one, measured))
    _draw_histogram(figure.add_subplot(grid[1, 0]), _pull(one))
    _draw_kernels(figure, grid[1, 1], one)
    _draw_profile(figure.add_subplot(grid[1, 2]), one)


def _draw_difference(ax: Axes, image: xr.DataArray, label: str) -> None:
    factor = -(-max(image.shape) // _MAX_DRAWN)
    shown = rebin(image, factor)
    spread = 5 * mad_std(shown.values)
    wide = spread if np.isfinite(spread) and spread > 0 else 1.0
    title = f"difference {label}".strip() + (f"\nmeans of {factor} × {factor} pixels" if factor > 1 else "")
    drawn = draw_image(ax, shown, Style(vmin=-wide, vmax=wide, cmap="RdBu_r", colorbar=False), title)
    # The usual light blue of bad pixels is a value on this scale.
    drawn.set_cmap(drawn.get_cmap().with_extremes(bad=_BAD))
    draw_colorbar(drawn, units_of(image))


def _draw_chi2(ax: Axes, chi2: xr.DataArray, image: xr.DataArray) -> None:
    import matplotlib as mpl

    drawn = ax.imshow(
        chi2.values,
        origin="lower",
        extent=(*edges(image, "x"), *edges(image, "y")),
        cmap=mpl.colormaps["PuOr_r"].with_extremes(bad=_BAD),
        vmin=0.0,
        vmax=2.0,
        interpolation="nearest",
    )
    ax.set(title=f"χ² in {chi2.shape[0]} × {chi2.shape[1]} blocks (1 is right)", xlabel="x (pixel)")
    draw_colorbar(drawn, "mean of difference² / variance")


def _pull(one: xr.Dataset) -> Floats:
    """Difference over its stated noise, of good pixels."""
    difference, variance = (one[k].values.astype(np.float64) for k in ("difference", "difference_variance"))
    good = np.isfinite(difference) & (variance > 0)
    return np.asarray(difference[good] / np.sqrt(variance[good]))


def _draw_histogram(ax: Axes, pull: Floats) -> None:
    bins = np.linspace(-_PULL_LIMIT, _PULL_LIMIT, 97)
    x = 0.5 * (bins[1:] + bins[:-1])
    if pull.size:
        counts, _ = np.histogram(np.clip(pull, -_PULL_LIMIT, _PULL_LIMIT), bins)
        density = counts / (pull.size * np.diff(bins))
        ax.stairs(density, bins, fill=True, color="0.75", label=f"{pull.size:,} pixels")
        ax.set_ylim(0.3 / (pull.size * np.diff(bins)[0]), 40.0)
        width, center = mad_std(pull), float(np.median(pull))
        if width > 0:
            ax.plot(x, _gaussian(x, center, width), color=_MARK, lw=1.3, label=f"robust width {width:.3f}")
    ax.plot(x, _gaussian(x, 0.0, 1.0), color="black", ls="--", lw=1.0, label="unit Gaussian")
    ax.set(yscale="log", xlabel="difference / noise", ylabel="pixels per unit", title="pulls (end bins: all beyond)")
    ax.set_xlim(-_PULL_LIMIT, _PULL_LIMIT)
    ax.legend(loc="upper center", fontsize="small", ncols=2)


def _gaussian(x: Floats, center: float, width: float) -> Floats:
    return np.asarray(np.exp(-0.5 * ((x - center) / width) ** 2) / (width * np.sqrt(2 * np.pi)))


def support(coefficients: Floats) -> slice:
    """The rows, and columns, that are not zero in every term: automatic sizes are padded."""
    margin = zero_margin(coefficients)
    return slice(margin, coefficients.shape[-1] - margin) if margin else slice(None)


def _draw_kernels(figure: Figure | SubFigure, cell: Any, one: xr.Dataset) -> None:
    """The kernel where it belongs on the frame: center and corners, or once where it is the same everywhere."""
    coefficients = one["kernel_coeff"].transpose("kterm", "ky", "kx").values
    inside = support(coefficients)
    varies = bool(np.any(coefficients[1:]))
    places = _CORNERS if varies else {(0, 0): (0.0, 0.0)}
    kernels = {at: polynomial_at(coefficients, *place)[inside, inside] for at, place in places.items()}
    peak = max((float(np.abs(k).max()) for k in kernels.values() if np.isfinite(k).all()), default=1.0) or 1.0
    grid = cell.subgridspec(3, 3, wspace=0.0, hspace=0.0) if varies else cell.subgridspec(1, 1)
    for (row, column), kernel in kernels.items():
        _draw_kernel(figure.add_subplot(grid[row, column]), kernel, peak)
    size = len(range(*inside.indices(coefficients.shape[-1])))
    title = f"kernel over the frame, {size} × {size}" if varies else f"kernel, {size} × {size}, the same everywhere"
    figure.axes[-len(kernels)].set_title(title, loc="left", fontsize="large")


def _draw_kernel(ax: Axes, kernel: Floats, peak: float) -> None:
    from matplotlib.colors import AsinhNorm

    norm = AsinhNorm(linear_width=0.1 * peak, vmin=-peak, vmax=peak)
    ax.imshow(kernel, origin="lower", cmap="RdBu_r", norm=norm, interpolation="nearest")
    ax.set(xticks=[], yticks=[])
    ax.text(0.04, 0.95, f"Σ {kernel.sum():.4f}", fontsize="x-small", va="top", transform=ax.transAxes)


def _draw_profile(ax: Axes, one: xr.Dataset) -> None:
    """The kernel's rows and columns through its center, with errors: negative lobes and rings show here."""
    kernel = one["kernel"].transpose("ky", "kx").values
    error = one["kernel_err"].transpose("ky", "kx").values if "kernel_err" in one else np.zeros_like(kernel)
    inside, half = support(one["kernel_coeff"].transpose("kterm", "ky", "kx").values), kernel.shape[0] // 2
    offset = (np.arange(kernel.shape[0]) - half)[inside]
    ax.axhline(0.0, color="0.7", lw=0.8)
    cuts = {"along x": (kernel[half], error[half], "o-"), "along y": (kernel[:, half], error[:, half], "s--")}
    for (name, (values, errors, style)), color in zip(cuts.items(), ("tab:blue", "tab:orange"), strict=True):
        if np.isfinite(values).any():
            ax.errorbar(offset, values[inside], errors[inside], fmt=style, ms=3.5, lw=1.0, color=color, label=name)
    ax.set(title="kernel through its center", xlabel="offset (pixel)", ylabel="kernel")
    if ax.get_legend_handles_labels()[0]:
        ax.legend(fontsize="small")


def _numbers(one: xr.Dataset, measured: xr.Dataset) -> list[tuple[str, str]]:
    """Names and values of the text box."""
    scale, error = (float(one[k]) for k in ("kernel_sum", "kernel_sum_err"))
    rows = [("status", _status(one)), ("verdict", "good" if bool(measured["good"]) else "look closer")]
    rows += [("noise ratio", f"{float(measured['noise_ratio']):.3f}  (1 is right)")]
    rows += [("χ² of the solution", _number(one, "chi2", ".3f"))]
    rows += [("χ² of blocks, 90 %", f"{float(measured['chi2_high']):.3f}")]
    rows += [("kernel sum", f"{scale:.5f} ± {error:.5f}")]
    used = int(one["n_cutouts"] - one["n_rejected"]) if {"n_cutouts", "n_rejected"} <= set(one) else None
    rows += [("cut-outs", "–" if used is None else f"{used} used, {int(one['n_rejected'])} rejected")]
    rows += [("pixels in the solution", _number(one, "n_pixels", ",d"))]
    rows += [("condition", _number(one, "condition", ".2g")), ("lost pixels", _number(one, "lost_fraction", ".1%"))]
    convolved = bool(one["science_convolved"]) if "science_convolved" in one else False
    rows += [("convolved", "science" if convolved else "reference"), ("background", _background(one))]
    return rows


def _status(one: xr.Dataset) -> str:
    bits = int(one["epoch_status"]) if "epoch_status" in one else 0
    return ", ".join(plane_names(bits)) or "solved"


def _number(one: xr.Dataset, name: str, form: str) -> str:
    return format(one[name].values[()].item(), form) if name in one else "–"


def _background(one: xr.Dataset) -> str:
    """The background's level at the center, and how far it departs from it over the frame."""
    if "background_coeff" not in one:
        return "–"
    c = one["background_coeff"].values
    v, u = np.meshgrid(np.linspace(-1, 1, 21), np.linspace(-1, 1, 21), indexing="ij")
    surface = polynomial_at(c, v, u)
    return f"{c[0]:.1f} {units_of(one['background_coeff'])}, {surface.min() - c[0]:+.1f} to {surface.max() - c[0]:+.1f}"


def _draw_text(ax: Axes, rows: list[tuple[str, str]]) -> None:
    ax.set_axis_off()
    ax.set_title("the numbers")
    for i, (name, value) in enumerate(rows):
        y = 0.96 - i * 0.082
        ax.text(0.0, y, name, color="0.35", va="center", fontsize=9.5, transform=ax.transAxes)
        color = _MARK if value == "look closer" or (name == "status" and value != "solved") else "black"
        ax.text(0.47, y, value, va="center", color=color, fontsize=9.5, transform=ax.transAxes)


def _draw_stack(figure: SubFigure, diff: xr.Dataset, chosen: int) -> None:
    """What each epoch of the stack measures, against time."""
    shown = {k: title for k, title in _MEASURES.items() if k in diff}
    when, unit = _times(diff)
    for ax, (name, title) in zip(np.atleast_1d(figure.subplots(1, len(shown))), shown.items(), strict=True):
        factor = 100.0 if name == "lost_fraction" else 1.0
        values = factor * diff[name].values.astype(float)
        error = diff[f"{name}_err"].values if f"{name}_err" in diff else np.zeros_like(values)
        ax.errorbar(when, values, error, fmt="o", ms=4, lw=1.0, color="0.3")
        ax.plot(when[chosen], values[chosen], "o", ms=7, color=_MARK, zorder=3)
        if name in ("noise_ratio", "chi2"):
            ax.axhline(1.0, color="0.6", ls="--", lw=0.9, zorder=0)
        ax.set_title(title, fontsize="medium")
        ax.set_xlabel(unit)
        ax.tick_params(labelsize="small")
        ax.locator_params(nbins=5)
        ax.ticklabel_format(useOffset=False)


def _times(diff: xr.Dataset) -> tuple[NDArray[Any], str]:
    """Positions along the time axis, MJD where it is known for every epoch."""
    if {"mjd", "time"} & set(diff.coords):
        when = moments(diff["kernel_sum"], True)
        if np.isfinite(when).all():
            return when, f"MJD ({SPECS['mjd'].units})"
    return np.arange(diff.sizes["time"]), "epoch"
