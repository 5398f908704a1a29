"""Images and stacks of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ztfxr.errors import InputError
from ztfxr.plot._common import AxesArray, edges, float_pixels, label_of, units_of
from ztfxr.plot.overlays import Catalogs, Legend, MaskLayers, draw_catalogs, draw_cross, draw_layers, draw_legend
from ztfxr.plot.panels import Compared, Drawn, Shown, compute_panels, describe, find_panels, to_image
from ztfxr.wcs import get_wcs

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.image import AxesImage

__all__ = [
    "Style",
    "draw_colorbar",
    "draw_cross",
    "draw_image",
    "edges",
    "find_limits",
    "float_pixels",
    "show",
    "to_image",
    "widen",
]

Stretch: TypeAlias = Literal["linear", "sqrt", "log", "asinh", "sinh", "squared"]
Limits: TypeAlias = Literal["zscale"] | tuple[float, float]

_STRETCHES = {
    "linear": "LinearStretch",
    "sqrt": "SqrtStretch",
    "log": "LogStretch",
    "asinh": "AsinhStretch",
    "sinh": "SinhStretch",
    "squared": "SquaredStretch",
}
_BAD_COLOR = "lightsteelblue"
_SMOOTH_ABOVE = 512


@dataclass(frozen=True)
class Style:
    """How images are drawn.

    Parameters
    ----------
    stretch
        How pixel values between the limits become gray levels: `astropy.visualization`'s stretch of that name.
    limits
        "zscale" (IRAF's), or two percentiles such as ``(1, 99.5)``.
    vmin, vmax
        Limits in the unit of the image; each one given replaces its side of `limits`.
    cmap
        A matplotlib color map.
    colorbar
        Draw the bar of the color map, labeled with the unit of the image.
    marker
        A white cross, open in its middle, where a stamp was requested: ``attrs["stamp_x"], attrs["stamp_y"]`` of
        `ztfxr.stamp`, or the coordinates `x_pixel`, `y_pixel` of `ztfxr.stamps` (absolute pixels).
    max_pixels
        An image with more pixels on a side is drawn as means of square blocks, in which pixels that are not finite do
        not count and a mask shows where any pixel is bad. None draws every pixel.

    Raises
    ------
    InputError
        A value that has no meaning.
    """

    stretch: Stretch = "linear"
    limits: Limits = "zscale"
    vmin: float | None = None
    vmax: float | None = None
    cmap: str = "gray_r"
    colorbar: bool = True
    marker: bool = True
    max_pixels: int | None = 1500

    def __post_init__(self) -> None:
        if self.stretch not in _STRETCHES:
            raise InputError(f"unknown stretch {self.stretch!r}; the stretches are {', '.join(_STRETCHES)}")
        if self.max_pixels is not None and not (isinstance(self.max_pixels, int) and self.max_pixels >= 1):
            raise InputError(f"max_pixels is a whole number from 1 on, or None; got {self.max_pixels!r}")
        if self.limits != "zscale" and not _are_percentiles(self.limits):
            raise InputError(
                f'limits are "zscale" or two rising percentiles such as (1, 99.5); got {self.limits!r}. '
                "Pixel values are given by vmin= and vmax="
            )


def _are_percentiles(limits: Any) -> bool:
    return isinstance(limits, tuple) and len(limits) == 2 and 0 <= limits[0] < limits[1] <= 100


def show(
    obj: Shown,
    *,
    ax: Axes | Literal["wcs"] | None = None,
    compare: Compared = None,
    mask: MaskLayers = None,
    catalogs: Catalogs = None,
    title: str | None = None,
    stretch: Stretch | None = None,
    limits: Limits | None = None,
    vmin: float | None = None,
    vmax: float | None = None,
    cmap: str | None = None,
    style: Style | None = None,
) -> Axes | AxesArray:
    """Draw an image, or a panel per epoch of a stack, with masks and catalogs over it. Computes.

    The axes count absolute pixels, centers at integers, the first row at the bottom (FITS order; a mosaic is drawn with
    north up and east to the right). Pixels that are not finite are light blue. The limits come from the finite pixels
    of each panel; an image without one is drawn between 0 and 1. The data stay as they are.

    Parameters
    ----------
    obj
        An image (y, x), kernel (ky, kx) or stamp, with at most one more dimension (such as time, or the source of many
        stamps), or a Dataset with `sci`; a tree of frames, aligned or not, for a panel each; or a tree of
        `ztfxr.with_catalogs`, for its image with its catalogs.
    ax
        Axes to draw a single image in; by default those of a new figure. ``"wcs"`` labels the axes of a new figure with
        RA and Dec, by astropy's WCSAxes and the exact WCS of the frame.
    compare
        Another image of the same pixels, such as ``ds.ztf.clean()``, or several by name: panels beside that of `obj`,
        with the same limits, taken over the pixels of all, and axes that move together.
    mask
        A veil where pixels are bad. A boolean image is red. Bit planes have a color each, and a legend: True draws the
        recommended planes of ``obj.flags``; names of planes such as ``["saturated", "tracks"]`` draw those; integer
        bit planes are drawn as with True; a Dataset of boolean images (`ztfxr.mask_planes`) a plane per variable.
    catalogs
        A catalog (Dataset, Table, DataFrame or SkyCoord), or several by name, as a mapping or tree: a color each,
        and a legend with the numbers of sources on the image. They lie where `ra`, `dec` (deg) say if the image has a
        WCS, else where `x_centroid`, `y_centroid` (absolute pixels) say. Sources with `semimajor_axis`,
        `semiminor_axis` (pixels) and `orientation` (degrees, from +x towards +y) are ellipses, of three times these.
    title
        Title of the image, or above all panels. By default the filter and the date, where the image has them.
    stretch, limits, vmin, vmax, cmap
        How pixel values become colors: as in `ztfxr.Style`, and in place of what `style` says.
    style
        How images are drawn otherwise: `ztfxr.Style`, with the color bar, the cross of a stamp, and the size from which
        images are drawn in blocks of pixels.

    Returns
    -------
    matplotlib.axes.Axes, or a 1-D array of them where `obj` has a dimension besides y and x, is a tree of frames, or is
    compared.

    Raises
    ------
    InputError
        Not an image, unevenly spaced pixels, a stack of no epoch or of more than 36 panels, a catalog without
        positions, or an unusable option.
    AlignmentError
        The mask, or the image to compare, is on other pixels than the image.
    MissingWCSError
        ``ax="wcs"``, or a catalog with only sky positions, for an image without a celestial WCS.
    """
    given = {"stretch": stretch, "limits": limits, "vmin": vmin, "vmax": vmax, "cmap": cmap}
    drawn_as = replace(style or Style(), **{k: v for k, v in given.items() if v is not None})  # type: ignore[arg-type]
    panels, several = find_panels(obj, compare, mask, catalogs)
    if several and ax not in (None, "wcs"):
        raise InputError(
            "a stack, a tree or a comparison makes its own panels; leave out ax=, or select one image first"
        )
    projections = [{"projection": get_wcs(panel.image)} if ax == "wcs" else {} for panel in panels]
    drawn = compute_panels(panels, drawn_as.max_pixels)
    if several:
        return _draw_grid(drawn, drawn_as, title, projections, shared=compare is not None)
    axes = _new_axes(projections[0]) if ax is None or isinstance(ax, str) else ax
    heading = panels[0].title if title is None else title
    legend = _draw_panel(axes, drawn[0], drawn_as, heading, label_of(panels[0].image))
    draw_legend(axes, [legend], outside=axes is not ax)
    return axes


def _new_axes(projection: Mapping[str, Any]) -> Axes:
    import matplotlib.pyplot as plt

    figure = plt.figure(layout="constrained")
    axes: Axes = figure.add_subplot(**projection)
    return axes


def _draw_grid(
    drawn: Sequence[Drawn], style: Style, title: str | None, projections: Sequence[dict[str, Any]], *, shared: bool
) -> AxesArray:
    """The panels of one figure; a 1-D array of their Axes. `shared` panels have one scale, in one row."""
    import matplotlib.pyplot as plt

    n = len(drawn)
    columns = n if shared and n <= 4 else math.ceil(math.sqrt(n))
    rows, side = math.ceil(n / columns), 4.5 if shared else 3.0
    ny, nx = drawn[0].image.shape
    height = 0.9 * side * min(max(ny / nx, 0.4), 2.5)
    figure = plt.figure(figsize=(side * columns, height * rows + 0.3), layout="constrained")
    common = describe(drawn[0].image) if shared else _common_filter(drawn)
    figure.suptitle(common if title is None else title)
    style = _shared_style(drawn, style) if shared else style
    axes, legends = np.empty(n, dtype=object), []
    for i, (one, projection) in enumerate(zip(drawn, projections, strict=True)):
        together = {"sharex": axes[0], "sharey": axes[0]} if shared and i else {}
        axes[i] = figure.add_subplot(rows, columns, i + 1, **projection, **together)
        label = units_of(one.panel.image) if shared else label_of(one.panel.image)
        legends.append(_draw_panel(axes[i], one, style, one.panel.title, label))
        _shrink_labels(axes[i])
    draw_legend(axes[0], legends, outside=True)
    return axes


def _common_filter(drawn: Sequence[Drawn]) -> str:
    """The filter of all panels, where they have one and do not name it themselves."""
    bands = {str(one.image.coords["filter"].values) if "filter" in one.image.coords else "" for one in drawn}
    band = bands.pop() if len(bands) == 1 else ""
    return "" if any(one.panel.title.startswith(band) for one in drawn) else band


def _shared_style(drawn: Sequence[Drawn], style: Style) -> Style:
    """`style` with the limits of the pixels of all images."""
    pixels = np.concatenate([float_pixels(one.image).ravel() for one in drawn])
    norm = _norm(pixels, style)
    return replace(style, vmin=float(norm.vmin), vmax=float(norm.vmax))


def _shrink_labels(ax: Axes) -> None:
    ax.title.set_fontsize("small")
    ax.set_xlabel("")
    ax.set_ylabel("")
    ax.tick_params(labelsize="x-small")
    bar = ax.images[0].colorbar
    if bar is not None:
        bar.ax.tick_params(labelsize="x-small")
        bar.ax.yaxis.label.set_fontsize("small")


def _draw_panel(ax: Axes, drawn: Drawn, style: Style, title: str, label: str) -> Legend:
    """One image and all that lies over it; its legend."""
    panel = drawn.panel
    extent = (*edges(panel.image, "x"), *edges(panel.image, "y"))
    if drawn.factor > 1:
        side = round(drawn.factor * abs(extent[1] - extent[0]) / panel.image.sizes["x"])
        label += f"{', ' if label else ''}means of {side} × {side} pixels"
    draw_image(ax, drawn.image, style, title, label)
    legend: Legend = {}
    if drawn.bits is not None and panel.layers is not None:
        over = (*edges(drawn.image, "x"), *edges(drawn.image, "y"))
        legend |= draw_layers(ax, drawn.bits, panel.layers.planes, over)
    legend |= draw_catalogs(ax, panel.image, panel.catalogs, extent)
    for set_limits, dim, ends in ((ax.set_xlim, "x", extent[:2]), (ax.set_ylim, "y", extent[2:])):
        set_limits(*(ends[::-1] if _reversed(panel.image, dim) else ends))
    return legend


def _reversed(image: xr.DataArray, dim: str) -> bool:
    """Whether pixels count to the left or down, as the CF attribute `positive` of a mosaic's coordinates says."""
    return dim in image.coords and image.coords[dim].attrs.get("positive") in ("left", "down")


def draw_image(ax: Axes, image: xr.DataArray, style: Style, title: str, label: str | None = None) -> AxesImage:
    """Draw one (y, x) image, with its cross; `label` is that of the color bar, by default name and unit."""
    import matplotlib as mpl

    pixels = float_pixels(image)
    drawn = ax.imshow(
        pixels,
        origin="lower",
        aspect="equal",
        extent=(*edges(image, "x"), *edges(image, "y")),
        norm=_norm(pixels, style),
        cmap=mpl.colormaps[style.cmap].with_extremes(bad=_BAD_COLOR),
        interpolation="nearest" if max(pixels.shape) <= _SMOOTH_ABOVE else None,
    )
    requested = _requested(image)
    if style.marker and requested is not None:
        draw_cross(ax, *requested)
    _label_pixels(ax)
    ax.set_title(title)
    if style.colorbar:
        draw_colorbar(drawn, label_of(image) if label is None else label)
    return drawn


def _requested(image: xr.DataArray) -> tuple[float, float] | None:
    """Where the stamp was asked for, (x, y) in absolute pixels."""
    if {"stamp_x", "stamp_y"} <= set(image.attrs):
        return float(image.attrs["stamp_x"]), float(image.attrs["stamp_y"])
    places = [image.coords.get(name) for name in ("x_pixel", "y_pixel")]
    if any(place is None or place.ndim > 0 for place in places):
        return None
    x, y = (float(place.values) for place in places)  # type: ignore[union-attr]
    return (x, y) if math.isfinite(x) and math.isfinite(y) else None


def draw_colorbar(drawn: AxesImage, label: str) -> None:
    """A color bar of the height of its panel."""
    ax = drawn.axes
    # An ordinary bar is higher than a panel of fixed aspect; but the layout does not see what is inset in WCSAxes.
    where: dict[str, Any] = {"ax": ax} if hasattr(ax, "wcs") else {"cax": ax.inset_axes((1.03, 0.0, 0.05, 1.0))}
    ax.figure.colorbar(drawn, label=label, **where)


def _norm(pixels: NDArray[np.floating[Any]], style: Style) -> Any:
    from astropy import visualization

    low, high = find_limits(pixels, style.limits)
    low = low if style.vmin is None else style.vmin
    high = high if style.vmax is None else style.vmax
    if not low < high:
        if style.vmin is not None and style.vmax is not None:
            raise InputError(f"vmin must be below vmax; got {style.vmin} and {style.vmax}")
        low, high = widen(low, high, style)
    stretch = getattr(visualization, _STRETCHES[style.stretch])()
    # Clipping would make ImageNormalize drop the mask, and paint bad pixels as the brightest ones.
    return visualization.ImageNormalize(vmin=low, vmax=high, stretch=stretch, clip=False)


def widen(low: float, high: float, style: Style) -> tuple[float, float]:
    """Limits of some width about the one that is fixed, for an image of one value or limits beside its values."""
    fixed = style.vmin if style.vmin is not None else style.vmax if style.vmax is not None else (low + high) / 2
    width = max(1.0, abs(fixed) * 1e-3)
    return (fixed if style.vmin is not None else fixed - width), (fixed if style.vmax is not None else fixed + width)


def find_limits(pixels: NDArray[np.floating[Any]], limits: Limits) -> tuple[float, float]:
    """Limits from the finite pixels; 0 and 1 where there are none."""
    from astropy.visualization import ZScaleInterval

    finite = pixels[np.isfinite(pixels)]
    if finite.size == 0:
        return 0.0, 1.0
    low, high = ZScaleInterval().get_limits(finite) if limits == "zscale" else np.percentile(finite, limits)
    return float(low), float(high)


def _label_pixels(ax: Axes) -> None:
    sky = hasattr(ax, "wcs")
    if sky:
        # WCSAxes outlines the axes where their limits were before the image, until they are drawn.
        ax.patch.set_in_layout(False)
    ax.set_xlabel("RA (ICRS)" if sky else "x (pixel)")
    ax.set_ylabel("Dec (ICRS)" if sky else "y (pixel)")
