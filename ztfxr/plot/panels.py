"""From what a user gives to the panels of a figure: which images, what lies over them, and their pixels as drawn."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ztfxr.errors import InputError
from ztfxr.ops.exposure import find_image
from ztfxr.ops.mosaic import rebin
from ztfxr.plot._common import Image, date_of, edges, evenly_spaced
from ztfxr.plot.overlays import Catalogs, Layers, MaskLayers, find_layers, name_catalogs, rebin_bits
from ztfxr.wcs import same_grid

__all__ = ["Compared", "Drawn", "Panel", "Shown", "compute_panels", "describe", "find_panels", "to_image"]

Shown: TypeAlias = xr.Dataset | xr.DataArray | xr.DataTree
Compared: TypeAlias = xr.Dataset | xr.DataArray | Mapping[str, xr.Dataset | xr.DataArray] | None

MAX_PANELS = 36
_PIXEL_DIMS = (("y", "ky", "dy"), ("x", "kx", "dx"))
_FRAME_NODE = "image"


@dataclass(frozen=True)
class Panel:
    """One image (y, x) and what to lay over it, nothing computed."""

    image: xr.DataArray
    title: str
    layers: Layers | None
    catalogs: Mapping[str, xr.Dataset]


@dataclass(frozen=True)
class Drawn:
    """The pixels of a panel in memory, `factor` × `factor` of the image's in one."""

    panel: Panel
    image: xr.DataArray
    bits: NDArray[Any] | None
    factor: int


def find_panels(obj: Shown, compare: Compared, mask: MaskLayers, catalogs: Catalogs) -> tuple[list[Panel], bool]:
    """The panels, and whether they are a grid: False for a single image."""
    tables = name_catalogs(catalogs)
    if isinstance(obj, xr.DataTree):
        if compare is not None:
            raise InputError("compare= is of two images; got a tree, so select a node of it first")
        if _FRAME_NODE not in obj.children:
            return _tree_panels(obj, mask, tables), True
        tables = name_catalogs({k: v.to_dataset() for k, v in obj.children.items() if k != _FRAME_NODE}) | tables
        obj = obj[_FRAME_NODE].to_dataset()
    if compare is not None:
        return list(_compared_panels(obj, compare, mask, tables)), True
    image, _ = find_image(obj, "sci")
    extra = _other_dims(image)
    if not extra:
        image = to_image(obj, "sci")
        return [_panel(obj, describe(image), find_layers(obj, mask), tables)], False
    return _stack_panels(obj, image, extra[0], mask, tables), True


def _other_dims(image: xr.DataArray) -> list[Hashable]:
    """The dimensions beside those of the pixels, of which an image to draw has one at most."""
    extra = [d for d in image.dims if not any(d in names for names in _PIXEL_DIMS)]
    whole = all(any(name in image.dims for name in names) for names in _PIXEL_DIMS)
    if not whole or len(extra) > 1 or 0 in image.shape:
        raise InputError(
            f"an image to draw has pixels along y and x, and at most one more dimension; got {dict(image.sizes)}: "
            "select the rest with .isel(...)"
        )
    return extra


def to_image(obj: Image, *names: str) -> xr.DataArray:
    """The image of `obj` as (one more dimension,) y, x; of a Dataset the first variable of `names` that it has."""
    # `in` of a DataArray would compare, and compute, its pixels.
    known = names if isinstance(obj, xr.DataArray) else [n for n in names if n in obj]
    image, _ = find_image(obj, known[0] if known else names[-1])
    extra = _other_dims(image)
    image = _canonical(image)
    if isinstance(obj, xr.Dataset):
        stamp = {k: obj.attrs[k] for k in ("stamp_x", "stamp_y") if k in obj.attrs}
        image = image.assign_attrs(stamp | image.attrs)
    return image.transpose(*extra, "y", "x")


def _canonical(image: xr.DataArray) -> xr.DataArray:
    """`image` with the pixel dimensions named y and x; kernels name them ky and kx, many stamps dy and dx."""
    for name, *others in _PIXEL_DIMS:
        own = next((d for d in others if d in image.dims and name not in image.dims), None)
        if own is None:
            continue
        absolute = image.coords.get(name)
        if absolute is not None and absolute.dims == (own,) and evenly_spaced(absolute.values):
            image = image.swap_dims({own: name})
        else:
            image = image.drop_vars(name, errors="ignore").rename({own: name})
    return image


def _panel(obj: Image, title: str, layers: Layers | None, catalogs: Mapping[str, xr.Dataset]) -> Panel:
    image = to_image(obj, "sci")
    if image.ndim != 2:
        raise InputError(f"one image (y, x) a panel; {title or 'this one'} has {dict(image.sizes)}: select one first")
    return Panel(image, title, None if layers is None else _on_pixels(layers, image), catalogs)


def _on_pixels(layers: Layers, image: xr.DataArray) -> Layers:
    bits = _canonical(layers.bits)
    if set(bits.dims) != {"y", "x"}:
        raise InputError(f"the mask has dimensions {bits.dims}, the image {image.dims}")
    same_grid(image, bits)
    return Layers(bits.transpose("y", "x"), layers.planes)


def _stack_panels(
    obj: Image, image: xr.DataArray, dim: Hashable, mask: MaskLayers, catalogs: Mapping[str, xr.Dataset]
) -> list[Panel]:
    _check_number(image.sizes[dim], f"along {dim!r}", f".isel({dim}=slice(0, 12))")
    panels = []
    for i in range(image.sizes[dim]):
        one = _select(obj, dim, i)
        veil = _select(mask, dim, i) if isinstance(mask, xr.Dataset | xr.DataArray) else mask
        tables = {k: v if dim == "source" else _select(v, dim, i) for k, v in catalogs.items()}
        panels.append(_panel(one, _stack_title(image, dim, i), find_layers(one, veil), tables))
    return panels


def _select(obj: Any, dim: Hashable, i: int) -> Any:
    return obj.isel({dim: i}) if dim in obj.dims else obj


def _stack_title(image: xr.DataArray, dim: Hashable, i: int) -> str:
    panel = image.isel({dim: i})
    if dim == "time":
        varying = "filter" in image.coords and dim in image.coords["filter"].dims
        return (describe(panel) if varying else date_of(panel)) or f"epoch {i}"
    return f"{dim} {panel.coords[dim].item() if dim in panel.coords else i}"


def _tree_panels(tree: xr.DataTree, mask: MaskLayers, catalogs: Mapping[str, xr.Dataset]) -> list[Panel]:
    """A panel per frame with pixels, titled by date and filter, or by node where that does not tell them apart."""
    frames = {node.path.strip("/"): node.to_dataset() for node in tree.subtree if "sci" in node}
    if not frames:
        raise InputError("no frame of the tree has an image 'sci'")
    _check_number(len(frames), "in the tree", "a part of it, or ztfxr.mosaic for quadrants")
    titles = [describe(frame["sci"]) for frame in frames.values()]
    names = titles if all(titles) and len(set(titles)) == len(titles) else list(frames)
    pairs = zip(frames.values(), names, strict=True)
    return [_panel(frame, name, find_layers(frame, mask), catalogs) for frame, name in pairs]


def _compared_panels(
    obj: Image, compare: Compared, mask: MaskLayers, catalogs: Mapping[str, xr.Dataset]
) -> Iterator[Panel]:
    named = isinstance(compare, Mapping) and not isinstance(compare, xr.Dataset)
    others: Mapping[str, Any] = dict(compare) if named else {"": compare}  # type: ignore[arg-type]
    _check_number(1 + len(others), "to compare", "some of them")
    first = to_image(obj, "sci")
    titles = [_meaning(first), *(name or _meaning(to_image(other, "sci")) for name, other in others.items())]
    if len(set(titles)) < len(titles):
        titles = ["before", "after"] if len(titles) == 2 else [f"{title} {i}" for i, title in enumerate(titles)]
    layers = find_layers(obj, mask)
    for one, title in zip((obj, *others.values()), titles, strict=True):
        panel = _panel(one, title, layers, catalogs)
        same_grid(first, panel.image)
        yield panel


def _meaning(image: xr.DataArray) -> str:
    return str(image.attrs.get("long_name", image.name or "image"))


def describe(image: xr.DataArray) -> str:
    """Filter and date of a single exposure, as far as they are known."""
    band = image.coords.get("filter")
    return " ".join(filter(None, (str(band.item()) if band is not None and band.ndim == 0 else "", date_of(image))))


def _check_number(n: int, where: str, instead: str) -> None:
    if n > MAX_PANELS:
        raise InputError(f"{n} images {where}, at most {MAX_PANELS} are drawn; select fewer: {instead}")


def compute_panels(panels: Sequence[Panel], max_pixels: int | None) -> list[Drawn]:
    """All pixels, computed together; large images as means of blocks, and the planes set in them."""
    from dask.base import compute

    factors = [1 if max_pixels is None else -(-max(panel.image.shape) // max_pixels) for panel in panels]
    images, bits = [], []
    for panel, factor in zip(panels, factors, strict=True):
        for dim in ("y", "x"):
            edges(panel.image, dim)
        images.append(_reduced(panel.image, factor))
        bits.append(None if panel.layers is None else rebin_bits(_whole(panel.layers.bits), factor).variable)
    pixels, planes = compute([image.variable for image in images], bits)
    return [
        Drawn(panel, image.copy(data=own.values), None if over is None else np.asarray(over.values), factor)
        for panel, image, own, over, factor in zip(panels, images, pixels, planes, factors, strict=True)
    ]


def _reduced(image: xr.DataArray, factor: int) -> xr.DataArray:
    return image if factor == 1 else rebin(_whole(image), factor, mask=False)


def _whole(image: xr.DataArray) -> xr.DataArray:
    """`image` in one chunk, as its blocks of pixels may lie across chunks."""
    return image if image.chunks is None else image.chunk(y=-1, x=-1)
