"""Science, reference and difference side by side, and the summary of a light curve with them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from os import PathLike
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ztfxr.arrays.statistics import mad_std
from ztfxr.errors import InputError, OutsideFrameError
from ztfxr.plot._common import MJD_EPOCH, AxesArray, Image, date_of, moments, units_of
from ztfxr.plot.images import (
    Style,
    draw_colorbar,
    draw_cross,
    draw_image,
    edges,
    find_limits,
    float_pixels,
    to_image,
    widen,
)
from ztfxr.plot.lightcurves import FluxName, LightCurves, draw_legend, plot_lightcurve

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["plot_summary", "plot_triplet"]

Epoch: TypeAlias = int | str | np.datetime64


def plot_triplet(
    science: Image,
    reference: Image,
    difference: Image,
    *,
    time: Epoch | None = None,
    size: int | None = 63,
    position: tuple[float, float] | None = None,
    axes: AxesArray | Sequence[Axes] | None = None,
) -> AxesArray:
    """Draw science, reference and difference of one epoch side by side. Computes.

    Science and reference share zscale limits, taken over the pixels of both; the difference is drawn to 5 robust
    standard deviations (1.4826 MAD) on either side of zero.

    Parameters
    ----------
    science, reference, difference
        Images (y, x) or stacks (time, y, x), in one unit, or Datasets with `sci`, with `reference` or `sci`, and with
        `difference`. The reference may lack the time dimension.
    time
        The epoch of a stack: its position, or a date, of which the nearest epoch is drawn.
    size
        Side of the cut-out in pixels; None draws all of the images.
    position
        Center of the cut-out and of the cross, (x, y) in absolute pixels. By default the position that the stamp was
        cut at, else the middle of the science image, without a cross.
    axes
        Three Axes to draw in; by default a new figure.

    Returns
    -------
    1-D array of three matplotlib.axes.Axes: science, reference, difference.

    Raises
    ------
    InputError
        Not an image, an epoch that is not in the stack or none chosen, science and difference of different epochs, or
        not three axes.
    OutsideFrameError
        The cut-out has no pixel on an image.
    """
    images = [_epoch(to_image(science, "sci"), time), _epoch(to_image(reference, "reference", "sci"), time)]
    images.append(_epoch(to_image(difference, "difference"), time))
    _check_epoch(images[0], images[2])
    center = position or _stamp_position(images[0])
    if size is not None:
        images = [_cut(image, center or _middle(images[0]), size) for image in images]
    images = [image.copy(data=float_pixels(image)) for image in images]
    panels = _triplet_axes(axes)
    _draw_triplet(panels, images, center)
    return panels


def _draw_triplet(axes: AxesArray, images: Sequence[xr.DataArray], center: tuple[float, float] | None) -> None:
    low, high = find_limits(np.concatenate([image.values.ravel() for image in images[:2]]), "zscale")
    low, high = (low, high) if low < high else widen(low, high, Style())
    wide = _symmetric_limit(images[2].values)
    direct = Style(vmin=low, vmax=high, colorbar=False, marker=False)
    styles = (direct, direct, replace(direct, vmin=-wide, vmax=wide, cmap="RdBu_r"))
    titles = (f"science\n{date_of(images[0])}".strip(), "reference", "difference")
    drawn = [draw_image(*args) for args in zip(axes, images, styles, titles, strict=True)]
    for i, ax in enumerate(axes):
        if center is not None:
            draw_cross(ax, *center)
        ax.locator_params(nbins=4)
        if i > 0:
            ax.set_ylabel("")
            ax.tick_params(labelleft=False)
    for i in (1, 2):
        draw_colorbar(drawn[i], units_of(images[i]))


def _symmetric_limit(pixels: NDArray[np.floating[Any]]) -> float:
    """Five robust standard deviations of the finite pixels; 1 where that is nothing."""
    finite = pixels[np.isfinite(pixels)]
    return (5 * mad_std(finite) if finite.size else 0.0) or 1.0


def _triplet_axes(axes: AxesArray | Sequence[Axes] | None) -> AxesArray:
    import matplotlib.pyplot as plt

    if axes is None:
        return np.asarray(plt.subplots(1, 3, figsize=(10.0, 3.4), layout="constrained")[1], dtype=object)
    panels = np.asarray(axes, dtype=object).ravel()
    if panels.size != 3:
        raise InputError(f"a triplet is drawn in three axes; got {panels.size}")
    return panels


def _epoch(image: xr.DataArray, time: Epoch | None) -> xr.DataArray:
    """One epoch of a stack; an image that is none is itself."""
    if image.ndim == 2:
        return image
    dim, n = image.dims[0], image.shape[0]
    if time is None and n > 1:
        raise InputError(f"{n} images along {dim!r}: choose the one to draw with time=0, or a date")
    index = _nearest(image, time) if isinstance(time, str | np.datetime64) else time or 0
    if not -n <= index < n:
        raise InputError(f"no epoch {index}: the stack has {n}, counted from 0")
    return image.isel({dim: index})


def _nearest(image: xr.DataArray, time: str | np.datetime64) -> int:
    if "time" not in image.coords:
        raise InputError(f"the stack has no coordinate 'time' to find {time} in; choose by position, such as time=0")
    wanted = (np.datetime64(time) - MJD_EPOCH) / np.timedelta64(1, "D")
    return int(np.nanargmin(np.abs(moments(image, True) - wanted)))


def _check_epoch(science: xr.DataArray, difference: xr.DataArray) -> None:
    first, second = date_of(science), date_of(difference)
    if first and second and first != second:
        raise InputError(f"the science image is of {first}, the difference of {second}; give stacks of the same epochs")


def _stamp_position(image: xr.DataArray) -> tuple[float, float] | None:
    if not {"stamp_x", "stamp_y"} <= set(image.attrs):
        return None
    return float(image.attrs["stamp_x"]), float(image.attrs["stamp_y"])


def _middle(image: xr.DataArray) -> tuple[float, float]:
    """The pixel that `image` has as many pixels before as after, in absolute pixels (x, y)."""
    (x0, x1), (y0, y1) = edges(image, "x"), edges(image, "y")
    return (x0 + x1) / 2, (y0 + y1) / 2


def _cut(image: xr.DataArray, center: tuple[float, float], size: int) -> xr.DataArray:
    """At most `size` pixels on a side about `center`; less at the edges of the image."""
    if size < 1:
        raise InputError(f"a cut-out has at least 1 pixel on a side; got size={size}")
    slices = {}
    for dim, middle in zip(("x", "y"), center, strict=True):
        labels = image.coords[dim].values if dim in image.coords else np.arange(image.sizes[dim])
        start = math.ceil(middle - size / 2)
        inside = np.flatnonzero((labels >= start) & (labels < start + size))
        if inside.size == 0:
            raise OutsideFrameError(f"{dim} = {middle:g} is outside the image, which spans {labels[0]} to {labels[-1]}")
        slices[dim] = slice(int(inside[0]), int(inside[-1]) + 1)
        if dim not in image.coords:
            image = image.assign_coords({dim: labels})
    return image.isel(slices)


def plot_summary(
    science: Image,
    reference: Image,
    diff: Image,
    lc: LightCurves,
    *,
    epochs: Sequence[int],
    source: int = 0,
    flux: FluxName = "flux",
    truth: xr.DataArray | None = None,
    truth_label: str = "truth",
    size: int | None = 63,
    position: tuple[float, float] | None = None,
    path: str | PathLike[str] | None = None,
) -> Figure:
    """Draw a light curve and, below it, the images of a few of its epochs. Computes.

    Parameters
    ----------
    science, reference, diff, size, position
        As `plot_triplet` takes them; science and difference are stacks (time, y, x) or single images.
    lc, source, flux
        As `plot_lightcurve` takes them.
    epochs
        Positions along time of the epochs to draw, one row each; the light curve marks them with letters.
    truth
        Flux on (time,) in the unit of the light curve, where it is known: a line.
    truth_label
        Name of that line in the legend.
    path
        Save the figure here too, at 150 dots per inch.

    Returns
    -------
    matplotlib.figure.Figure
        The figure, which is not closed.

    Raises
    ------
    InputError, OutsideFrameError
        As `plot_triplet` and `plot_lightcurve`; no epochs.
    """
    import matplotlib.pyplot as plt

    if len(epochs) == 0:
        raise InputError("no epochs to draw; name some by position, such as epochs=(0, 5)")
    rows = len(epochs)
    figure = plt.figure(figsize=(9.0, 3.4 + 2.9 * rows), layout="constrained")
    grid = figure.add_gridspec(rows + 1, 3, height_ratios=[1.15] + [1.0] * rows)
    top = plot_lightcurve(lc, source=source, flux=flux, ax=figure.add_subplot(grid[0, :]))
    if truth is not None:
        _draw_truth(top, truth, truth_label)
    for row, epoch in enumerate(epochs):
        panels = np.array([figure.add_subplot(grid[row + 1, column]) for column in range(3)], dtype=object)
        plot_triplet(science, reference, diff, time=epoch, size=size, position=position, axes=panels)
        _mark_epoch(top, panels[0], _epoch(to_image(science, "sci"), epoch), chr(ord("a") + row % 26))
        _compact(panels, last=row == rows - 1)
    if path is not None:
        figure.savefig(path, dpi=150)
    return figure


def _draw_truth(ax: Axes, truth: xr.DataArray, label: str) -> None:
    when = moments(truth, ax.get_xlabel().startswith("MJD"))
    order = np.argsort(when)
    ax.plot(when[order], truth.values.ravel()[order], color="0.25", lw=1.2, zorder=1, label=label)
    draw_legend(ax)


def _mark_epoch(ax: Axes, panel: Axes, image: xr.DataArray, letter: str) -> None:
    """Tie the panels of an epoch to its point on the light curve by a letter."""
    panel.set_title(f"{letter}  {panel.get_title()}")
    if not {"time", "mjd"} & set(image.coords):
        return
    when = moments(image, ax.get_xlabel().startswith("MJD"))[0]
    ax.axvline(when, color="0.6", lw=0.9, ls=":", zorder=0)
    ax.text(when, 1.02, letter, transform=ax.get_xaxis_transform(), ha="center", va="bottom")


def _compact(panels: AxesArray, *, last: bool) -> None:
    for panel in panels:
        panel.title.set_fontsize("medium")
        panel.tick_params(labelsize="small", labelbottom=last)
        if not last:
            panel.set_xlabel("")
