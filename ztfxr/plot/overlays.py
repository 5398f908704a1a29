"""What is laid over an image: bit planes, catalogs, the cross of a stamp, and the legend of them."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pandas as pd
import xarray as xr
from astropy.coordinates import SkyCoord
from astropy.table import Table
from numpy.typing import NDArray

from ztfxr.arrays.geometry.blocks import block_or, block_range
from ztfxr.arrays.types import Bools, Floats
from ztfxr.errors import InputError
from ztfxr.io.tables import Catalog, as_catalog
from ztfxr.ops.mapping import map_images
from ztfxr.ops.masks import get_flags, mask_planes, own_planes, resolve_planes
from ztfxr.plot._common import Image
from ztfxr.schema import MASK_PLANES, SPECS
from ztfxr.wcs import has_wcs, sky_to_pixel

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

__all__ = [
    "Catalogs",
    "Layers",
    "Legend",
    "MaskLayers",
    "draw_catalogs",
    "draw_cross",
    "draw_layers",
    "draw_legend",
    "find_layers",
    "layer_colors",
    "name_catalogs",
    "rebin_bits",
]

MaskLayers: TypeAlias = xr.DataArray | xr.Dataset | bool | str | Sequence[str] | None
Catalogs: TypeAlias = Catalog | Mapping[str, Catalog] | xr.DataTree | None
Extent: TypeAlias = tuple[float, float, float, float]
"""Left, right, bottom and top edges of an image in absolute pixels."""

_LONE_COLOR = "crimson"
_ALPHA = 0.45
_COLORS = (
    "crimson", "tab:blue", "tab:green", "gold", "tab:purple", "tab:cyan", "tab:brown",
    "tab:pink", "darkorange", "black", "limegreen", "navy", "magenta", "teal",
)  # fmt: skip
_PLANE_COLORS = {p.name: _COLORS[i % len(_COLORS)] for i, p in enumerate(MASK_PLANES)}
_CATALOG_COLORS = ("deepskyblue", "darkorange", "limegreen", "magenta", "gold", "red")
_POSITIONS = ({"ra", "dec"}, {"x_centroid", "y_centroid"})
_SHAPE = ("semimajor_axis", "semiminor_axis", "orientation")
_ELLIPSE_SCALE = 3.0
_MAX_LAYERS = 16
_LEGEND_COLUMNS = 4


@dataclass(frozen=True)
class Entry:
    """A line of the legend: of a plane, or of a catalog with the number of sources that were drawn."""

    color: str
    count: int | None = None


Legend: TypeAlias = dict[str, Entry]


@dataclass(frozen=True)
class Layers:
    """Bits on the pixels of an image, and the value of each plane to draw; a plane without a name has no legend."""

    bits: xr.DataArray
    planes: Mapping[str, int]


def find_layers(obj: Image, mask: MaskLayers) -> Layers | None:
    """The planes that `mask` asks for, of the `flags` of `obj` or of its own; None for no mask."""
    if mask is None or mask is False:
        return None
    if isinstance(mask, xr.Dataset):
        return _stacked(mask)
    if isinstance(mask, xr.DataArray):
        if mask.dtype == bool:
            return Layers(mask.astype(np.uint16), {"": 1})
        if mask.dtype.kind in "iu":
            return _planes_of(mask, None)
        raise InputError(f"a mask is boolean, or integer bit planes such as ds.flags; this one is {mask.dtype}")
    if not (isinstance(obj, xr.Dataset) and "flags" in obj):
        raise InputError(
            "mask=True and names of planes need a Dataset with 'flags'; else give mask= the planes themselves"
        )
    return _planes_of(get_flags(obj), None if mask is True else mask)


def _planes_of(flags: xr.DataArray, names: str | Sequence[str] | None) -> Layers:
    """Some of the flags' own planes, by default those that mark bad pixels."""
    chosen = resolve_planes(flags, names)
    planes = {p.name: p.value for p in own_planes(flags) if p.value & chosen}
    if max(planes.values(), default=0) > np.iinfo(SPECS["flags"].dtype).max:
        return _stacked(mask_planes(flags, list(planes)))
    return Layers(flags, planes)


def _stacked(masks: xr.Dataset) -> Layers:
    """A plane per boolean variable."""
    wrong = [str(k) for k, v in masks.data_vars.items() if v.dtype != bool]
    if wrong or not 1 <= len(masks.data_vars) <= _MAX_LAYERS:
        what = f"{wrong[0]} is {masks[wrong[0]].dtype}" if wrong else f"this one has {len(masks.data_vars)} variables"
        raise InputError(f"a Dataset of masks has 1 to {_MAX_LAYERS} boolean variables; {what}")
    shifted = [v.astype(np.uint16) << i for i, v in enumerate(masks.data_vars.values())]
    return Layers(sum(shifted[1:], shifted[0]), {str(k): 1 << i for i, k in enumerate(masks.data_vars)})


def rebin_bits(bits: xr.DataArray, factor: int) -> xr.DataArray:
    """The planes set anywhere in each block of pixels, so that a lone bad pixel stays to be seen; lazy."""
    if factor == 1:
        return bits
    sizes = {dim: block_range(0, bits.sizes[dim], factor)[1] for dim in ("y", "x")}
    return map_images(block_or, {"bits": bits}, ["flags"], sizes=sizes, options={"factor": factor})["flags"]


def draw_layers(ax: Axes, bits: NDArray[Any], planes: Mapping[str, int], extent: Extent) -> Legend:
    """A veil over the pixels, colored by plane; pixels of several planes have their mean color."""
    from matplotlib.colors import to_rgb

    shown = {name: value for name, value in planes.items() if not name or (bits & value).any()}
    colors = layer_colors(planes)
    rgb, count = np.zeros((*bits.shape, 3), dtype=np.float32), np.zeros(bits.shape, dtype=np.uint8)
    for name, value in shown.items():
        on = (bits & value) != 0
        rgb[on] += to_rgb(colors[name])
        count += on
    rgba = np.zeros((*bits.shape, 4), dtype=np.uint8)
    rgba[..., :3] = np.round(255 * rgb / np.maximum(count, 1)[..., np.newaxis])
    rgba[..., 3] = np.where(count > 0, round(255 * _ALPHA), 0)
    ax.imshow(rgba, origin="lower", aspect="equal", extent=extent, interpolation="nearest")
    return {name: Entry(colors[name]) for name in shown if name}


def layer_colors(planes: Mapping[str, int]) -> dict[str, str]:
    """IPAC's planes have a color each; others take those in turn."""
    named = {name: _PLANE_COLORS.get(name, _COLORS[i % len(_COLORS)]) for i, name in enumerate(planes)}
    return named | ({"": _LONE_COLOR} if "" in planes else {})


def name_catalogs(catalogs: Catalogs) -> dict[str, xr.Dataset]:
    """Catalogs by name; a single one is named "catalog". `InputError` for one without positions."""
    tables = _named(catalogs)
    for name, table in tables.items():
        if not any(pair <= set(table.variables) for pair in _POSITIONS):
            raise InputError(
                f"{name} has neither x_centroid, y_centroid nor ra, dec; its columns are "
                f"{', '.join(sorted(map(str, table.variables)))}"
            )
    return tables


def _named(catalogs: Catalogs) -> dict[str, xr.Dataset]:
    if catalogs is None:
        return {}
    if isinstance(catalogs, xr.DataTree):
        return {name: as_catalog(node.to_dataset()) for name, node in catalogs.children.items()}
    if (
        isinstance(catalogs, Mapping)
        and not isinstance(catalogs, xr.Dataset)
        and all(map(_is_table, catalogs.values()))
    ):
        return {str(name): as_catalog(catalog) for name, catalog in catalogs.items()}
    return {"catalog": as_catalog(catalogs)}


def _is_table(value: Any) -> bool:
    whole = isinstance(value, xr.Dataset | Table | pd.DataFrame | SkyCoord | Mapping)
    return whole or (isinstance(value, np.ndarray) and value.dtype.names is not None)


def draw_catalogs(ax: Axes, image: xr.DataArray, catalogs: Mapping[str, xr.Dataset], extent: Extent) -> Legend:
    """Marks at the sources that fall on the image, or their ellipses."""
    legend = {}
    for i, (name, catalog) in enumerate(catalogs.items()):
        color = _CATALOG_COLORS[i % len(_CATALOG_COLORS)]
        x, y = _pixels(catalog, image)
        inside = _within(x, extent[:2]) & _within(y, extent[2:])
        _mark(ax, catalog, x, y, inside, color, name)
        legend[name] = Entry(color, int(inside.sum()))
    return legend


def _pixels(catalog: xr.Dataset, image: xr.DataArray) -> tuple[Floats, Floats]:
    """Absolute pixels of the sources: by the sky where the image has a WCS, else by the columns of the catalog."""
    sky, pixels = (pair <= set(catalog.variables) for pair in _POSITIONS)
    if sky and (has_wcs(image) or not pixels):
        return sky_to_pixel(image, ra=catalog["ra"].values, dec=catalog["dec"].values)
    return _column(catalog, "x_centroid"), _column(catalog, "y_centroid")


def _column(catalog: xr.Dataset, name: Hashable) -> Floats:
    return np.asarray(catalog[name].values, dtype=np.float64)


def _within(values: Floats, ends: tuple[float, float]) -> Bools:
    return (values >= min(ends)) & (values <= max(ends))


def _mark(
    ax: Axes,
    catalog: xr.Dataset,
    x: Floats,
    y: Floats,
    inside: Bools,
    color: str,
    name: str,
) -> None:
    """Ellipses of the sources that have a shape, circles of fixed size around the others."""
    from matplotlib.collections import EllipseCollection

    bare = inside
    if set(_SHAPE) <= set(catalog.variables):
        major, minor, angle = (_column(catalog, column) for column in _SHAPE)
        if catalog["orientation"].attrs.get("units") in ("rad", "radian"):
            angle = np.rad2deg(angle)
        shaped = inside & np.isfinite(angle) & (major > 0) & (minor > 0)
        ellipses = EllipseCollection(
            2 * _ELLIPSE_SCALE * major[shaped],
            2 * _ELLIPSE_SCALE * minor[shaped],
            angle[shaped],
            units="xy",
            offsets=np.stack([x[shaped], y[shaped]], axis=-1),
            offset_transform=ax.transData,
            facecolors="none",
            edgecolors=color,
            gid=name,
        )
        ax.add_collection(ellipses, autolim=False)
        bare = inside & ~shaped
    ax.plot(x[bare], y[bare], ls="none", marker="o", mfc="none", mec=color, gid=name, scalex=False, scaley=False)


def draw_cross(ax: Axes, x: float, y: float) -> None:
    """A white cross with a dark rim, to be seen on any gray, and an open middle, to leave the target visible."""
    from matplotlib.path import Path
    from matplotlib.patheffects import Normal, Stroke

    arms = [(r * dx, r * dy) for dx, dy in ((1, 0), (-1, 0), (0, 1), (0, -1)) for r in (0.5, 1.0)]
    shape = Path(arms, [Path.MOVETO, Path.LINETO] * 4)
    line = ax.plot(
        [x], [y], marker=shape, ms=26, mew=1.6, mec="white", mfc="none", ls="none", scalex=False, scaley=False
    )
    line[0].set_gid("stamp")
    line[0].set_path_effects([Stroke(linewidth=3.2, foreground="black"), Normal()])


def draw_legend(ax: Axes, legends: Iterable[Legend], *, outside: bool) -> None:
    """One legend for all panels, below them if `outside` (of a figure with constrained layout), else below `ax`."""
    entries: Legend = {}
    for legend in legends:
        for name, entry in legend.items():
            before = entries[name].count if name in entries else None
            total = entry.count if before is None or entry.count is None else before + entry.count
            entries[name] = replace(entry, count=total)
    handles = [_handle(name, entry) for name, entry in entries.items()]
    if not handles:
        return
    options: dict[str, Any] = {"ncols": min(len(handles), _LEGEND_COLUMNS), "fontsize": "small", "frameon": False}
    if outside:
        ax.figure.legend(handles=handles, loc="outside lower center", **options)
    else:
        ax.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.12), **options)


def _handle(name: str, entry: Entry) -> Artist:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    if entry.count is None:
        return Patch(color=entry.color, alpha=_ALPHA, label=name)
    return Line2D([], [], marker="o", ls="none", mfc="none", mec=entry.color, label=f"{name} ({entry.count})")
