"""Images and stacks of them."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ztfxr.errors import InputError
from ztfxr.ops.background import get_image
from ztfxr.plot._common import AxesArray, Image, date_of, label_of
from ztfxr.wcs import get_wcs, same_grid

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.image import AxesImage

__all__ = ["show"]

Stretch: TypeAlias = Literal["linear", "sqrt", "log", "asinh"]
Limits: TypeAlias = Literal["zscale"] | tuple[float, float]

_STRETCHES = {"linear": "LinearStretch", "sqrt": "SqrtStretch", "log": "LogStretch", "asinh": "AsinhStretch"}
_BAD_COLOR = "lightsteelblue"
_MASK_COLOR = "crimson"
_MASK_ALPHA = 0.45
_MAX_PANELS = 36
_SMOOTH_ABOVE = 512


@dataclass(frozen=True)
class Style:
    """How one image is drawn."""

    stretch: str = "linear"
    limits: Limits = "zscale"
    vmin: float | None = None
    vmax: float | None = None
    cmap: str = "gray_r"
    colorbar: bool = True
    marker: bool = True


def show(
    obj: Image,
    *,
    ax: Axes | None = None,
    stretch: Stretch = "linear",
    limits: Limits = "zscale",
    vmin: float | None = None,
    vmax: float | None = None,
    mask: xr.DataArray | None = None,
    cmap: str = "gray_r",
    colorbar: bool = True,
    title: str | None = None,
    marker: bool = True,
    wcs_axes: bool = False,
) -> Axes | AxesArray:
    """Draw an image, or a panel per epoch of a stack. Computes.

    The axes count absolute pixels, centres at integers, the first row at the bottom. Pixels that are not finite are
    light blue. The limits come from the finite pixels of each panel; an image without one is drawn between 0 and 1.

    Parameters
    ----------
    obj
        An image (y, x) or kernel (ky, kx), with at most one more dimension (such as time), or a Dataset with `sci`.
    ax
        Draw a single image here; by default in a new figure.
    stretch
        How pixel values between the limits become grey levels: `astropy.visualization`'s stretch of that name.
    limits
        "zscale" (IRAF's), or two percentiles such as ``(1, 99.5)``.
    vmin, vmax
        Limits in the unit of the image; each one given replaces its side of `limits`.
    mask
        Boolean on the pixels of the image: a red veil where True.
    cmap, colorbar
        A matplotlib colour map, and whether to draw its bar, labelled with the unit of the image.
    title
        By default the filter and the date, where the image has them. A stack puts `title` above all panels.
    marker
        A white cross, open in its middle, at ``attrs["stamp_x"], attrs["stamp_y"]`` (absolute pixels) where present.
    wcs_axes
        Label the axes of a new figure with RA and Dec, by astropy's WCSAxes.

    Returns
    -------
    matplotlib.axes.Axes, or a 1-D array of them where `obj` has a dimension besides y and x.

    Raises
    ------
    InputError
        Not an image, unevenly spaced pixels, a stack of no epoch or of more than 36, or an unusable option.
    AlignmentError
        The mask is on other pixels than the image.
    MissingWCSError
        `wcs_axes` of an image without a celestial WCS.
    """
    image = to_image(obj, "sci")
    _check_style(stretch, limits)
    style = Style(stretch, limits, vmin, vmax, cmap, colorbar, marker)
    if mask is not None:
        mask = _check_mask(_canonical(mask), image)
    if wcs_axes and ax is not None:
        raise InputError(
            "wcs_axes=True makes its own axes; leave out ax=, or give only an ax= made with projection=wcs"
        )
    projection = {"projection": get_wcs(image)} if wcs_axes else {}
    if image.ndim == 2:
        axes = _new_axes(projection) if ax is None else ax
        draw_image(axes, image, style, mask, _describe(image) if title is None else title)
        return axes
    if ax is not None:
        raise InputError(
            f"a stack along {image.dims[0]!r} makes its own panels; leave out ax=, or select one image first"
        )
    return _draw_stack(image, style, mask, title, projection)


def to_image(obj: Image, *names: str) -> xr.DataArray:
    """The image of `obj` as (one more dimension,) y, x; of a Dataset the first variable of `names` that it has."""
    # `in` of a DataArray would compare, and compute, its pixels.
    known = names if isinstance(obj, xr.DataArray) else [n for n in names if n in obj]
    image = _canonical(get_image(obj, known[0] if known else names[-1]))
    extra = [d for d in image.dims if d not in ("y", "x")]
    if not {"y", "x"} <= set(image.dims) or len(extra) > 1 or 0 in image.shape:
        raise InputError(
            f"an image to draw has pixels along y and x, and at most one more dimension; came {dict(image.sizes)}: "
            "select the rest with .isel(...)"
        )
    if isinstance(obj, xr.Dataset):
        stamp = {k: obj.attrs[k] for k in ("stamp_x", "stamp_y") if k in obj.attrs}
        image = image.assign_attrs(stamp | image.attrs)
    return image.transpose(*extra, "y", "x")


def _canonical(image: xr.DataArray) -> xr.DataArray:
    """`image` with the pixel dimensions named y and x, as kernels name them ky and kx."""
    return image.rename({k: d for k, d in (("ky", "y"), ("kx", "x")) if k in image.dims and d not in image.dims})


def _check_style(stretch: str, limits: Any) -> None:
    if stretch not in _STRETCHES:
        raise InputError(f"unknown stretch {stretch!r}; the stretches are {', '.join(_STRETCHES)}")
    if limits == "zscale":
        return
    if not (isinstance(limits, tuple) and len(limits) == 2 and 0 <= limits[0] < limits[1] <= 100):
        raise InputError(
            f'limits are "zscale" or two rising percentiles such as (1, 99.5); came {limits!r}. '
            "Pixel values are given by vmin= and vmax="
        )


def _check_mask(mask: xr.DataArray, image: xr.DataArray) -> xr.DataArray:
    if mask.dtype != bool:
        raise InputError(
            f"a mask is boolean, True where bad; this one is {mask.dtype}: decode bit planes with ztfxr.mask"
        )
    if not {"y", "x"} <= set(mask.dims) <= set(image.dims):
        raise InputError(f"the mask has dimensions {mask.dims}, the image {image.dims}")
    same_grid(image, mask)
    return mask.transpose(*(d for d in image.dims if d in mask.dims))


def _new_axes(projection: Mapping[str, Any]) -> Axes:
    import matplotlib.pyplot as plt

    figure = plt.figure(layout="constrained")
    axes: Axes = figure.add_subplot(**projection)
    return axes


def _draw_stack(
    image: xr.DataArray, style: Style, mask: xr.DataArray | None, title: str | None, projection: Mapping[str, Any]
) -> AxesArray:
    """One panel per image of a stack; a 1-D array of their Axes."""
    import matplotlib.pyplot as plt

    dim, n = image.dims[0], image.shape[0]
    if n > _MAX_PANELS:
        raise InputError(
            f"{n} images along {dim!r}, at most {_MAX_PANELS} are drawn; select fewer: .isel({dim}=slice(0, 12))"
        )
    columns = math.ceil(math.sqrt(n))
    rows = math.ceil(n / columns)
    figure = plt.figure(figsize=(3.0 * columns, 2.7 * rows + 0.3), layout="constrained")
    if title:
        figure.suptitle(title)
    values = image.variable.compute()
    axes = np.empty(n, dtype=object)
    for i in range(n):
        panel = image.isel({dim: i}).copy(data=values[i].values)
        veil = mask.isel({dim: i}) if mask is not None and dim in mask.dims else mask
        axes[i] = figure.add_subplot(rows, columns, i + 1, **projection)
        _shrink_labels(draw_image(axes[i], panel, style, veil, _panel_title(panel, dim, i)))
    return axes


def _panel_title(panel: xr.DataArray, dim: Hashable, i: int) -> str:
    if dim == "time":
        return date_of(panel) or f"epoch {i}"
    return f"{dim} {panel.coords[dim].item() if dim in panel.coords else i}"


def _shrink_labels(drawn: AxesImage) -> None:
    ax, bar = drawn.axes, drawn.colorbar
    ax.title.set_fontsize("small")
    ax.set_xlabel("")
    ax.set_ylabel("")
    ax.tick_params(labelsize="x-small")
    if bar is not None:
        bar.ax.tick_params(labelsize="x-small")
        bar.ax.yaxis.label.set_fontsize("small")


def draw_image(ax: Axes, image: xr.DataArray, style: Style, mask: xr.DataArray | None, title: str) -> AxesImage:
    """Draw one (y, x) image with its overlays."""
    import matplotlib as mpl

    pixels = float_pixels(image)
    extent = (*edges(image, "x"), *edges(image, "y"))
    drawn = ax.imshow(
        pixels,
        origin="lower",
        aspect="equal",
        extent=extent,
        norm=_norm(pixels, style),
        cmap=mpl.colormaps[style.cmap].with_extremes(bad=_BAD_COLOR),
        interpolation="nearest" if max(pixels.shape) <= _SMOOTH_ABOVE else None,
    )
    if mask is not None:
        ax.imshow(_veil(mask.values), origin="lower", aspect="equal", extent=extent, interpolation="nearest")
    if style.marker and {"stamp_x", "stamp_y"} <= set(image.attrs):
        draw_cross(ax, float(image.attrs["stamp_x"]), float(image.attrs["stamp_y"]))
    _label_pixels(ax)
    ax.set_title(title)
    if style.colorbar:
        draw_colorbar(drawn, label_of(image))
    return drawn


def draw_colorbar(drawn: AxesImage, label: str) -> None:
    """A colour bar of the height of its panel."""
    ax = drawn.axes
    # An ordinary bar is higher than a panel of fixed aspect; but the layout does not see what is inset in WCSAxes.
    where: dict[str, Any] = {"ax": ax} if hasattr(ax, "wcs") else {"cax": ax.inset_axes((1.03, 0.0, 0.05, 1.0))}
    ax.figure.colorbar(drawn, label=label, **where)


def float_pixels(image: xr.DataArray) -> NDArray[np.floating[Any]]:
    """The pixel values as floats; `image` and its lazy labels stay as they are."""
    values = image.variable.values
    return values if values.dtype.kind == "f" else values.astype(np.float64)


def edges(image: xr.DataArray, dim: str) -> tuple[float, float]:
    """The outer edges of the first and last pixel along `dim`, in absolute pixels."""
    n = image.sizes[dim]
    centres = np.asarray(image.coords[dim].values if dim in image.coords else np.arange(n), dtype=float)
    steps = np.diff(centres)
    if n > 1 and not (steps[0] != 0 and np.allclose(steps, steps[0])):
        raise InputError(f"the pixels are not evenly spaced along {dim!r}; select a slice, not a list of pixels")
    half = steps[0] / 2 if n > 1 else 0.5
    return float(centres[0] - half), float(centres[-1] + half)


def _norm(pixels: NDArray[np.floating[Any]], style: Style) -> Any:
    from astropy import visualization

    low, high = find_limits(pixels, style.limits)
    low = low if style.vmin is None else style.vmin
    high = high if style.vmax is None else style.vmax
    if not low < high:
        if style.vmin is not None and style.vmax is not None:
            raise InputError(f"vmin must be below vmax; came {style.vmin} and {style.vmax}")
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


def _veil(mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """RGBA pixels, coloured where `mask` is True and clear elsewhere."""
    from matplotlib.colors import to_rgba

    color = np.round(255 * np.array(to_rgba(_MASK_COLOR, _MASK_ALPHA))).astype(np.uint8)
    return mask[..., np.newaxis] * color


def draw_cross(ax: Axes, x: float, y: float) -> None:
    """A white cross with a dark rim, to be seen on any grey, and an open middle, to leave the target visible."""
    from matplotlib.path import Path
    from matplotlib.patheffects import Normal, Stroke

    arms = [(r * dx, r * dy) for dx, dy in ((1, 0), (-1, 0), (0, 1), (0, -1)) for r in (0.5, 1.0)]
    shape = Path(arms, [Path.MOVETO, Path.LINETO] * 4)
    line = ax.plot(
        [x], [y], marker=shape, ms=26, mew=1.6, mec="white", mfc="none", ls="none", scalex=False, scaley=False
    )
    line[0].set_gid("stamp")
    line[0].set_path_effects([Stroke(linewidth=3.2, foreground="black"), Normal()])


def _label_pixels(ax: Axes) -> None:
    sky = hasattr(ax, "wcs")
    if sky:
        # WCSAxes outlines the axes where their limits were before the image, until they are drawn.
        ax.patch.set_in_layout(False)
    ax.set_xlabel("RA (ICRS)" if sky else "x (pixel)")
    ax.set_ylabel("Dec (ICRS)" if sky else "y (pixel)")


def _describe(image: xr.DataArray) -> str:
    band = image.coords.get("filter")
    return " ".join(filter(None, (str(band.item()) if band is not None and band.ndim == 0 else "", date_of(image))))
