"""xarray's door to frames of every camera: ``xr.open_dataset(path, engine="ztf", camera="ztf")``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from typing import Any, Literal, TypeAlias

import numpy as np
import xarray as xr
from astropy.io import fits
from numpy.typing import NDArray
from xarray.backends import BackendArray, BackendEntrypoint
from xarray.core import indexing

from ztfxr.errors import MissingMaskError, ShapeError
from ztfxr.io.cameras import CAMERAS, Camera, CameraLike, Layer, get_camera, header_errors
from ztfxr.io.cards import window_start
from ztfxr.io.fits import ImageFile, header_text, inspect, read_window
from ztfxr.io.names import AnyPath, companion
from ztfxr.io.remote import Location, file_name, location, shown
from ztfxr.schema import MASK_PLANES, Plane, annotate, annotate_all, flag_attrs
from ztfxr.wcs import assign_wcs, wcs_cards

__all__ = [
    "FITSArray",
    "LayerChoice",
    "Recipe",
    "Unread",
    "ZTFBackendEntrypoint",
    "grid_of",
    "lazy_image",
    "open_frame_unread",
    "open_layers",
    "with_sky",
]

LayerChoice: TypeAlias = AnyPath | Layer | Literal[False] | None
"""A layer, the file that holds it, False for none, None for the camera's."""

_DIMS = ("y", "x")


class _Windows(BackendArray):
    """Pixels that are read when they are indexed: the rows and columns that enclose what is asked for."""

    shape: tuple[int, int]
    dtype: np.dtype[Any]

    def read(self, rows: slice, columns: slice) -> NDArray[Any]:
        """The pixels ``[rows, columns]``, unit step."""
        raise NotImplementedError

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        known = type(key)(tuple(_no_empty_reversal(k, n) for k, n in zip(key.tuple, self.shape, strict=True)))
        return indexing.explicit_indexing_adapter(known, self.shape, indexing.IndexingSupport.BASIC, self._read)

    def _read(self, key: tuple[int | slice, ...]) -> NDArray[Any]:
        enclosing, inner = zip(*(_enclose(k, n) for k, n in zip(key, self.shape, strict=True)), strict=True)
        return np.asarray(self.read(enclosing[0], enclosing[1])[inner])


class FITSArray(_Windows):
    """Pixels of one image; every read opens and closes the file."""

    def __init__(self, image: ImageFile, dtype: str) -> None:
        # Without the header, which would travel with every task.
        self.image = replace(image, dtype=np.dtype(dtype), cards="")
        self.shape = image.shape
        self.dtype = np.dtype(dtype)

    def read(self, rows: slice, columns: slice) -> NDArray[Any]:
        """The pixels ``[rows, columns]``, unit step."""
        return read_window(self.image, rows, columns)


class _DerivedArray(_Windows):
    """Pixels that are calculated from those of other arrays, window by window."""

    def __init__(
        self, sources: Sequence[_Windows], function: Callable[..., NDArray[Any]], dtype: np.dtype[Any]
    ) -> None:
        self.sources, self.function, self.shape, self.dtype = tuple(sources), function, sources[0].shape, dtype

    def read(self, rows: slice, columns: slice) -> NDArray[Any]:
        """The pixels ``[rows, columns]``, unit step."""
        return self.function(*(source.read(rows, columns) for source in self.sources))


def _no_empty_reversal(key: Any, size: int) -> Any:
    """`key`; an empty slice with a negative step, which xarray's adapter cannot take apart, becomes ``0:0``."""
    return slice(0, 0) if isinstance(key, slice) and len(range(*key.indices(size))) == 0 else key


def _enclose(key: int | slice, size: int) -> tuple[slice, int | slice]:
    """A unit-step slice that covers `key`, and `key` relative to it."""
    if isinstance(key, slice):
        positions = range(*key.indices(size))
        if len(positions) == 0:
            return slice(0, 0), slice(0, 0)
        low, high = min(positions[0], positions[-1]), max(positions[0], positions[-1])
        return slice(low, high + 1), slice(None, None, positions.step)
    position = int(key) % size
    return slice(position, position + 1), 0


class ZTFBackendEntrypoint(BackendEntrypoint):
    """Open a frame with its mask as a labeled Dataset: a ZTF science image, or one of another camera."""

    description = "ZTF science images with their masks, and FITS frames of other cameras"
    url = "https://ztfxr.readthedocs.io"
    open_dataset_parameters = ("filename_or_obj", "drop_variables", "camera", "mask", "weight")

    def guess_can_open(self, filename_or_obj: Any) -> bool:
        """Whether the name is that of a science image of a camera that names its files."""
        name = file_name(str(filename_or_obj)) if isinstance(filename_or_obj, str | PathLike) else ""
        return any(f"{c.science}.fits" in name and c.name_parts(name) for c in CAMERAS.values() if c.science)

    def open_dataset(  # type: ignore[override]
        self,
        filename_or_obj: AnyPath,
        *,
        drop_variables: str | Iterable[str] | None = None,
        camera: CameraLike = "ztf",
        mask: LayerChoice = None,
        weight: LayerChoice = None,
    ) -> xr.Dataset:
        """The Dataset of one frame, its pixels unread; see `ztfxr.open_frame`."""
        frame = open_frame_unread(filename_or_obj, camera=get_camera(camera), mask=mask, weight=weight)
        return with_sky(_without(frame, drop_variables))


class Unread(BackendEntrypoint):
    """What a function opens, its pixels unread, for xarray to put into dask arrays."""

    description = "images opened by ztfxr"
    open_dataset_parameters = ("filename_or_obj", "drop_variables", "opener")

    def open_dataset(  # type: ignore[override]
        self,
        filename_or_obj: AnyPath,
        *,
        drop_variables: str | Iterable[str] | None = None,
        opener: Callable[[AnyPath], xr.Dataset],
    ) -> xr.Dataset:
        """What `opener` makes of the path."""
        return _without(opener(filename_or_obj), drop_variables)


def _without(dataset: xr.Dataset, drop_variables: str | Iterable[str] | None) -> xr.Dataset:
    return dataset.drop_vars([drop_variables] if isinstance(drop_variables, str) else list(drop_variables or ()))


def lazy_image(image: ImageFile, dtype: np.dtype[Any] | str) -> xr.Variable:
    """An image on (y, x) whose pixels are read when they are used."""
    # A gzipped file can only be read from its start, so several chunks would decompress it several times.
    whole = {"preferred_chunks": dict(zip(_DIMS, image.shape, strict=True))}
    data = indexing.LazilyIndexedArray(FITSArray(image, np.dtype(dtype).str))
    return xr.Variable(_DIMS, data, encoding=whole if image.gzipped else {})


def with_sky(dataset: xr.Dataset) -> xr.Dataset:
    """`dataset` with `ra` and `dec`, where its header has a celestial WCS."""
    cards = dataset.attrs.get("wcs_header")
    if cards is None:
        return dataset
    with header_errors(str(dataset.attrs["source"])):
        return assign_wcs(dataset, cards)


def grid_of(header: fits.Header, shape: tuple[int, int]) -> tuple[dict[str, NDArray[np.int64]], str | None]:
    """The labels of the pixels, absolute in the full frame, and the cards of the WCS that goes with them."""
    start = window_start(header)
    labels = {d: start[d] + np.arange(n) for d, n in zip(_DIMS, shape, strict=True)}
    if any(start.values()):
        header = header.copy()
        for axis, dim in ((1, "x"), (2, "y")):
            if f"CRPIX{axis}" in header:
                header[f"CRPIX{axis}"] = float(header[f"CRPIX{axis}"]) + start[dim]
    return labels, wcs_cards(header)


# ---- one frame of a camera ------------------------------------------------------------------------------------------


def open_frame_unread(path: AnyPath, *, camera: Camera, mask: LayerChoice, weight: LayerChoice) -> xr.Dataset:
    """One frame without sky labels: pixels, flags and variance, each read when it is used."""
    layers = open_layers(path, camera=camera, mask=mask, weight=weight)
    recipe = Recipe.of(layers, camera, mask, weight)
    held: dict[str, Any] = {str(k): v._data for k, v in layers.variables.items() if k in (*_STORED, "sci")}
    arrays: dict[str, _Windows] = {name: data.array for name, data in held.items()}
    return recipe.finished(layers, lambda names, function, dtype: _derived([arrays[n] for n in names], function, dtype))


def _derived(sources: Sequence[_Windows], function: Callable[..., NDArray[Any]], dtype: str) -> xr.Variable:
    return xr.Variable(_DIMS, indexing.LazilyIndexedArray(_DerivedArray(sources, function, np.dtype(dtype))))


def open_layers(path: AnyPath, *, camera: Camera, mask: LayerChoice, weight: LayerChoice) -> xr.Dataset:
    """The images of a frame as they stand in its files, with the coordinates of the exposure and the WCS as text."""
    place = location(path)
    name = file_name(place)
    if camera.mask is not None and camera.mask.replace is not None:
        science, other = camera.mask.replace
        if other in name and science not in name:
            raise MissingMaskError(f"{shown(place)}: this is a mask ({other}), not a science image ({science})")
    image = inspect(place, camera.image)
    with header_errors(str(place)):
        coords, note = camera.coords(image.header, str(place))
        labels, cards = grid_of(image.header, image.shape)
        unit = camera.unit_of(image.header)
    variables = {"sci": lazy_image(image, "f4")}
    for stored, layer in zip(_STORED, _layers(camera, mask, weight), strict=True):
        found = None if layer is None else _find(place, layer, image.shape)
        if found is not None and layer is not None:
            variables[stored] = lazy_image(found, _stored_dtype(layer, found))
    out = annotate_all(xr.Dataset(variables, {**{d: (d, v) for d, v in labels.items()}, **coords}), unit=unit)
    out.attrs = {"header": header_text(image), "source": name}
    out.attrs |= {"time_note": note} if note else {}
    out.attrs |= {} if cards is None else {"wcs_header": cards}
    out.encoding["source"] = shown(place)
    return out


def _layers(camera: Camera, mask: LayerChoice, weight: LayerChoice) -> tuple[Layer | None, Layer | None]:
    """Where the mask and the weights are, if there are any."""
    return _chosen(mask, camera.mask, "bad"), _chosen(weight, camera.weight, "weight")


def _chosen(choice: LayerChoice, usual: Layer | None, holds: Literal["bad", "weight"]) -> Layer | None:
    if choice is None or choice is False:
        return usual if choice is None else None
    if isinstance(choice, Layer):
        return choice
    return Layer(holds if usual is None else usual.holds, path=str(choice))


def _find(place: Location, layer: Layer, shape: tuple[int, int]) -> ImageFile | None:
    """The image of a layer; None where it is missing and may be."""
    found: Location | None = place if layer.path is None else location(layer.path)
    if layer.replace is not None and layer.path is None:
        found = companion(place, *layer.replace)
    if found is None:
        if layer.optional:
            return None
        new = layer.replace[1] if layer.replace else ""
        raise MissingMaskError(
            f"{shown(place)}: no mask image (…{new}.fits, .gz or .fz) beside it; name it with mask=PATH, or open "
            "without one by mask=False"
        )
    image = inspect(found, layer.extension)
    if image.shape != shape:
        raise ShapeError(
            f"{shown(found)}: the {layer.extension or 'mask'} is {image.shape} (y, x), the science image {shape}; a "
            "cropped frame? Open it with mask=False"
        )
    return image


def _stored_dtype(layer: Layer, image: ImageFile) -> np.dtype[Any]:
    if layer.holds == "planes":
        return np.dtype("u2" if np.dtype(image.encoding.stored).itemsize <= 2 else "u4")
    return image.encoding.native if layer.holds in ("codes", "bad") else np.dtype("f4")


_STORED = ("mask_layer", "weight_layer")


@dataclass(frozen=True)
class Recipe:
    """How flags and variance come from the images that are stored: what those hold, and the bits of the planes."""

    mask: str | None
    weight: str | None
    saturate: float
    dtype: str
    planes: tuple[Plane, ...]
    attrs: Mapping[str, Any]
    has_flags: bool = True

    @classmethod
    def of(cls, layers: xr.Dataset, camera: Camera, mask: LayerChoice, weight: LayerChoice) -> Recipe:
        """The recipe for the images that `open_layers` found."""
        held = [
            layer.holds if layer is not None and stored in layers else None
            for stored, layer in zip(_STORED, _layers(camera, mask, weight), strict=True)
        ]
        own = held[0] in ("planes", "codes")
        planes, attrs = (camera.planes, camera.flag_attrs()) if own else (MASK_PLANES, flag_attrs(MASK_PLANES))
        if held[1] is not None and "dead" not in {p.name for p in planes}:
            free = min(set(range(32)) - {p.bit for p in planes})
            planes = tuple(sorted((*planes, Plane("dead", free, "no weight")), key=lambda p: p.bit))
            bad = " ".join(p.name for p in planes if p.name in (*camera.bad_planes, "dead"))
            attrs = {**flag_attrs(planes), "bad_planes": bad}
        wide = max(p.bit for p in planes) > 15 or (held[0] == "planes" and layers[_STORED[0]].dtype.itemsize > 2)
        only_planes = camera.mask is not None and camera.mask.holds == "planes"
        flagged = held != [None, None] or not (mask is False and only_planes)
        return cls(held[0], held[1], float(layers["saturate"]), "u4" if wide else "u2", planes, attrs, flagged)

    def finished(
        self, layers: xr.Dataset, derive: Callable[[list[str], Callable[..., NDArray[Any]], str], xr.Variable]
    ) -> xr.Dataset:
        """`layers` with flags and variance for the stored masks and weights."""
        stored = [name for name in _STORED if name in layers]
        out = layers.drop_vars(stored)
        if self.mask == "planes" and self.weight is None:
            out["flags"] = layers[_STORED[0]].variable
        elif self.has_flags:
            out["flags"] = derive(["sci", *stored], self.flags, self.dtype)
        if self.weight is not None:
            out["variance"] = derive([_STORED[1]], self.variance, "f4")
        unit = str(layers["sci"].attrs["units"])
        for name in ("flags", "variance"):
            if name in out:
                out[name] = annotate(out[name], name, unit=unit, **(self.attrs if name == "flags" else {}))
        return out

    def flags(self, sci: NDArray[np.float32], *stored: NDArray[Any]) -> NDArray[np.unsignedinteger[Any]]:
        """The planes of every pixel."""
        bit = {p.name: np.uint32(p.value) for p in self.planes}
        layers = list(stored)
        mask = layers.pop(0) if self.mask is not None else None
        if self.mask == "planes":
            out = np.asarray(mask).astype(np.uint32)
        elif self.mask == "codes":
            code = np.nan_to_num(np.asarray(mask)).astype(np.int64)
            out = np.where(code > 0, np.left_shift(1, np.clip(code, 1, 32) - 1), 0).astype(np.uint32)
        else:
            out = (sci >= self.saturate) * bit["saturated"] | np.isnan(sci) * bit["nan"]
            out = out if mask is None else out | (mask != 0) * bit["dead"]
        if layers:
            out = out | ~(layers[0] > 0) * bit["dead"]
        return out.astype(self.dtype)

    def variance(self, weight: NDArray[np.float32]) -> NDArray[np.float32]:
        """The variance of every pixel; NaN where its weight is zero or none."""
        known = np.where(weight > 0, weight, np.float32(np.nan))
        values = {"variance": known, "weight": 1 / known, "sigma": known * known}[str(self.weight)]
        return values.astype(np.float32)
