"""What the viewer shows: images by epoch, light curves and what belongs to their points; no word of how it is drawn."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias, overload

import dask.array
import numpy as np
import xarray as xr
from dask.delayed import delayed

from ztfxr.arrays.curves.variability import reduced_chi2
from ztfxr.arrays.geometry.pyramid import Pyramid
from ztfxr.arrays.types import Floats, Ints
from ztfxr.errors import InputError, ZtfxrError
from ztfxr.io.cameras import CameraLike, camera_of
from ztfxr.io.frames import open_frame, open_frames
from ztfxr.io.names import frame_paths
from ztfxr.io.tables import as_catalog
from ztfxr.ops.masks import own_planes
from ztfxr.plot._common import moments
from ztfxr.plot.panels import to_image
from ztfxr.schema import FIT_PLANES, STATUS_PLANES, plane_names
from ztfxr.store.zarr import open_zarr
from ztfxr.wcs import has_wcs, pixel_to_sky, sky_to_pixel

__all__ = ["Content", "Picture", "Viewable", "find_content"]

Viewable: TypeAlias = xr.Dataset | xr.DataArray | xr.DataTree | str | Path | Sequence[str | Path]

_PANELS = {"sci": "science", "reference": "reference", "difference": "difference"}
_IMAGE = {"y", "x"}
_KEPT = 12
_FLUXES = (("flux_ujy", "flux_ujy_err"), ("flux", "flux_err"))
_OF_NO_INTEREST = ("header", "message", "path", "checksum")


@dataclass
class Picture:
    """An image, or a stack of epochs, of which some are kept in memory.

    Parameters
    ----------
    name
        ``"science"``, ``"reference"`` or ``"difference"``.
    image
        (y, x) or (time, y, x); lazy.
    bits
        Bit planes on the same pixels, or None.
    planes
        Their names and values.
    frames
        The images of the epochs where each has a WCS of its own.
    """

    name: str
    image: xr.DataArray
    bits: xr.DataArray | None = None
    planes: Mapping[str, int] = field(default_factory=dict)
    frames: Sequence[xr.DataArray] = ()
    _kept: OrderedDict[tuple[str, int], Pyramid] = field(default_factory=OrderedDict, repr=False)

    @property
    def n_epochs(self) -> int:
        """Epochs of a stack; 1 for one image."""
        return int(self.image.sizes.get("time", 1))

    @property
    def origin(self) -> tuple[float, float]:
        """The absolute pixel (x, y) of the first column and row."""
        first = (float(self.image[d].values[0]) if d in self.image.coords else 0.0 for d in ("x", "y"))
        x, y = first
        return x, y

    def pixels(self, epoch: int) -> Pyramid:
        """The pixels of an epoch, in single precision. Computes."""
        return self._pyramid("image", self.image, epoch, np.float32)

    def flags(self, epoch: int) -> Pyramid | None:
        """The bit planes of an epoch. Computes."""
        return None if self.bits is None else self._pyramid("bits", self.bits, epoch, None)

    def _pyramid(self, kind: str, of: xr.DataArray, epoch: int, dtype: Any) -> Pyramid:
        key = kind, epoch if "time" in of.dims else 0
        if key not in self._kept:
            one = of.isel(time=epoch) if "time" in of.dims else of
            values = one.transpose("y", "x").values
            self._kept[key] = Pyramid(np.ascontiguousarray(values, dtype=dtype))
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return self._kept[key]

    def frame(self, epoch: int) -> xr.DataArray | None:
        """The image with the WCS of an epoch; None where its file is gone or damaged."""
        if isinstance(self.frames, _Frames):
            return self.frames.opened(epoch)
        return self.frames[epoch] if self.frames else self.image

    def sky(self, x: float, y: float, epoch: int = 0) -> tuple[float, float] | None:
        """Right ascension and declination in degrees of an absolute pixel; None without a WCS."""
        image = self.frame(epoch)
        if image is None or not has_wcs(image):
            return None
        place = pixel_to_sky(image, x, y)
        return float(place.ra.deg), float(place.dec.deg)


@dataclass
class Content:
    """All that the viewer shows of an object.

    Parameters
    ----------
    title
        What it is called.
    pictures
        By the names of the panels.
    curve
        A light curve on (time, source), or None.
    epochs
        Quality numbers of the epochs on `time`, or None.
    kernels
        Matching kernels (time, ky, kx), or None.
    stamps
        Stamps of the differences (time, source, dy, dx), or None.
    catalogs
        Positions to draw, by name.
    """

    title: str
    pictures: dict[str, Picture] = field(default_factory=dict)
    curve: xr.Dataset | None = None
    epochs: xr.Dataset | None = None
    kernels: xr.DataArray | None = None
    stamps: xr.DataArray | None = None
    catalogs: dict[str, xr.Dataset] = field(default_factory=dict)

    @property
    def times(self) -> np.ndarray[Any, Any]:
        """The epochs that can be chosen: those of the light curve, else of the first stack; one without a name else."""
        for found in (self.curve, *(p.image for p in self.pictures.values())):
            if found is not None and "time" in found.dims:
                labels = found.coords.get("time")
                return np.arange(found.sizes["time"]) if labels is None else np.asarray(labels.values)
        return np.arange(1)

    def place(self, picture: Picture, epoch: int, source: int) -> tuple[float, float] | None:
        """The absolute pixel (x, y) of a source on a picture, by its sky position where both have one."""
        if self.curve is None:
            return None
        image = picture.frame(epoch)
        if image is not None and {"ra", "dec"} <= set(self.curve.coords) and has_wcs(image):
            ra, dec = (float(np.atleast_1d(self.curve[n].values)[source]) for n in ("ra", "dec"))
            x, y = sky_to_pixel(image, ra=ra, dec=dec)
            return float(x), float(y)
        places = self.places()
        return None if places is None else (float(places[0][source]), float(places[1][source]))

    def epoch_of(self, picture: Picture, epoch: int) -> int | None:
        """Which epoch of a picture belongs to one of `times`; None where it has none."""
        if "time" not in picture.image.dims:
            return 0
        labels = picture.image.coords.get("time")
        own = np.arange(picture.n_epochs) if labels is None else labels.values
        wanted = self.times
        if len(own) == len(wanted) and np.array_equal(own, wanted):
            return epoch
        found = np.flatnonzero(own == wanted[epoch])
        return int(found[0]) if len(found) else None

    def fluxes(self) -> tuple[str, str] | None:
        """The variables of the light curve: calibrated where they are; None without a light curve."""
        if self.curve is None:
            return None
        found = next((pair for pair in _FLUXES if pair[0] in self.curve), None)
        if found is None:
            raise InputError(f"the light curve has neither flux_ujy nor flux; it has {', '.join(map(str, self.curve))}")
        return found

    def points(self, source: int) -> dict[str, Any]:
        """The light curve of a source: MJD, flux, its error, status and epoch, of the rows that have a time."""
        names = self.fluxes()
        if names is None or self.curve is None:
            return {}
        one = self.curve.isel(source=source) if "source" in self.curve.dims else self.curve
        mjd = _mjd(self.curve)
        status = one["status"].values if "status" in one else np.zeros(mjd.shape, dtype=np.int64)
        columns = {"mjd": mjd, "flux": one[names[0]].values, "flux_err": one[names[1]].values, "status": status}
        if "filter" in one.coords:
            columns["filter"] = np.broadcast_to(np.asarray(one["filter"].values).astype(str), mjd.shape)
        rows = np.flatnonzero(np.isfinite(mjd))
        return {k: np.asarray(v)[rows] for k, v in columns.items()} | {"epoch": rows}

    def places(self) -> tuple[Floats, Floats] | None:
        """Absolute pixels (x, y) of the sources; None where they are not known."""
        if self.curve is None:
            return None
        for names in (("x_pixel", "y_pixel"), ("x", "y")):
            if all(n in self.curve.coords for n in names):
                x, y = (np.atleast_1d(np.asarray(self.curve[n].values, dtype=float)) for n in names)
                return x, y
        return None

    def ranked(self) -> Ints:
        """The sources, the most variable first: by the reduced χ² of a constant flux."""
        names = self.fluxes()
        if self.curve is None or names is None or "source" not in self.curve.dims:
            return np.zeros(0 if self.curve is None else 1, dtype=np.int64)
        order = np.argsort(-np.nan_to_num(self.variability(), nan=-1.0), kind="stable")
        return np.asarray(order, dtype=np.int64)

    def variability(self) -> Floats:
        """Reduced χ² of a constant flux of each source."""
        names = self.fluxes()
        if self.curve is None or names is None:
            return np.zeros(0)
        flux, err = (self.curve[n].transpose("time", ...).values.astype(float) for n in names)
        return np.atleast_1d(reduced_chi2(flux, err))

    def describe(self, epoch: int, source: int) -> list[tuple[str, str]]:
        """What is known of an epoch and a source: verdicts by name, then numbers."""
        out: list[tuple[str, str]] = []
        if self.curve is not None:
            point = self.curve.isel({d: i for d, i in (("time", epoch), ("source", source)) if d in self.curve.dims})
            for name, planes in (("epoch_status", STATUS_PLANES), ("status", STATUS_PLANES), ("fit_flags", FIT_PLANES)):
                holder = point if name in point else self._epoch(epoch)
                if holder is not None and name in holder:
                    out.append((name, ", ".join(plane_names(int(holder[name]), planes)) or "good"))
            out += _numbers(point)
        found = self._epoch(epoch)
        return out + ([] if found is None else [row for row in _numbers(found) if row[0] not in dict(out)])

    def _epoch(self, epoch: int) -> xr.Dataset | None:
        if self.epochs is not None:
            return self.epochs.isel(time=epoch)
        for picture in self.pictures.values():
            own = self.epoch_of(picture, epoch)
            if own is not None and "time" in picture.image.dims:
                return picture.image.isel(time=own).coords.to_dataset()
        return None


def _numbers(dataset: xr.Dataset) -> list[tuple[str, str]]:
    """Names and values of all that is one value, small enough to read."""
    out = []
    for name, value in dataset.variables.items():
        if value.ndim or str(name) in (*_OF_NO_INTEREST, "status", "epoch_status", "fit_flags"):
            continue
        one = value.values.item() if value.dtype.kind != "M" else value.values
        text = f"{one:.6g}" if isinstance(one, float) else str(one)
        out.append((str(name), f"{text} {value.attrs.get('units', '')}".strip()))
    return out


def _mjd(curve: xr.Dataset) -> Floats:
    if "mjd" in curve.variables:
        return np.asarray(curve["mjd"].values, dtype=float)
    return moments(curve, mjd=True) if "time" in curve.coords else np.arange(curve.sizes["time"], dtype=float)


# ---- what an object holds -------------------------------------------------------------------------------------------


def find_content(
    obj: Viewable,
    *,
    lightcurve: xr.Dataset | None = None,
    reference: xr.Dataset | xr.DataArray | None = None,
    difference: xr.Dataset | xr.DataArray | None = None,
    catalogs: Mapping[str, Any] | None = None,
    camera: CameraLike | None = None,
    title: str | None = None,
) -> Content:
    """What there is to be shown of an object, a store or files; see `ztfxr.view`."""
    opened = _opened(obj, camera)
    content = Content(title or _title(obj, opened))
    _add_all(content, opened)
    for panel, given in (("reference", reference), ("difference", difference)):
        if given is not None:
            content.pictures[panel] = _picture(panel, given, to_image(given, panel, "sci"))
    if lightcurve is not None:
        content.curve = lightcurve
    if "science" not in content.pictures and content.epochs is not None and "path" in content.epochs.coords:
        science = _frames_of_a_run(content.epochs, camera)
        content.pictures |= {} if science is None else {"science": science}
    content.catalogs = {str(k): as_catalog(v) for k, v in (catalogs or {}).items()}
    if not content.pictures and content.curve is None and content.stamps is None:
        raise InputError(
            f"nothing to view in {content.title}: give an image (y, x), a stack of them, or a light curve with flux "
            f"and flux_err; got {type(opened).__name__}"
        )
    content.pictures = {k: content.pictures[k] for k in _PANELS.values() if k in content.pictures}
    return content


def _opened(obj: Viewable, camera: CameraLike | None) -> xr.Dataset | xr.DataArray | xr.DataTree:
    if isinstance(obj, xr.Dataset | xr.DataArray | xr.DataTree):
        return obj
    if isinstance(obj, str | Path):
        path = Path(obj)
        if path.suffix in (".zarr", ".zip") or (path / "zarr.json").is_file():
            return open_zarr(path)
        if path.is_file() or "://" in str(obj):
            return open_frame(obj, camera=camera_of([obj], camera))
    paths = frame_paths(obj)
    return open_frames(paths, camera=camera_of(paths, camera))


def _title(obj: Viewable, opened: Any) -> str:
    if isinstance(obj, str | Path):
        return Path(obj).name
    name = getattr(opened, "attrs", {}).get("object") or getattr(opened, "name", None)
    return str(name) if name else "ztfxr"


def _add_all(content: Content, opened: xr.Dataset | xr.DataArray | xr.DataTree) -> None:
    if isinstance(opened, xr.DataArray):
        name = "difference" if opened.name == "difference" else "sci"
        image = to_image(opened, name)
        content.pictures[_PANELS[name]] = _picture(_PANELS[name], image, image)
        return
    if isinstance(opened, xr.Dataset):
        _add(content, "", opened)
        return
    nodes = {node.path.strip("/"): node.to_dataset() for node in opened.subtree if node.variables}
    frames = {k: v for k, v in nodes.items() if "sci" in v and v["sci"].dims == ("y", "x") and k != "reference"}
    for name, dataset in nodes.items():
        if name not in frames:
            _add(content, name, dataset)
    if frames:
        content.pictures["science"] = _stack_of(frames)


def _add(content: Content, name: str, dataset: xr.Dataset) -> None:
    """Take what a node holds."""
    if name == "reference" and "sci" in dataset:
        content.pictures["reference"] = _picture("reference", dataset, dataset["sci"])
        return
    for variable, panel in _PANELS.items():
        if variable in dataset and set(dataset[variable].dims) >= _IMAGE:
            content.pictures[panel] = _picture(panel, dataset, dataset[variable])
    if "flux" in dataset and "time" in dataset["flux"].dims:
        content.curve = dataset
    if "kernel" in dataset and {"ky", "kx"} <= set(dataset["kernel"].dims):
        content.kernels = dataset["kernel"]
    if "difference" in dataset and {"dy", "dx"} <= set(dataset["difference"].dims):
        content.stamps = dataset["difference"]
    if "epoch_status" in dataset and dataset["epoch_status"].dims == ("time",):
        small = [k for k, v in dataset.variables.items() if v.dims == ("time",)]
        names = [str(k) for k in small if k in dataset.data_vars]
        if content.epochs is None or len(names) > len(content.epochs.data_vars):
            content.epochs = dataset[names]


def _picture(panel: str, obj: xr.Dataset | xr.DataArray, image: xr.DataArray) -> Picture:
    extra = [str(d) for d in image.dims if d not in ("time", "y", "x")]
    if extra:
        raise InputError(f"the {panel} image has the dimension {extra[0]!r}: select one along it before viewing")
    if isinstance(obj, xr.Dataset) and "flags" in obj:
        return Picture(panel, image, obj["flags"], {p.name: p.value for p in own_planes(obj["flags"])})
    if isinstance(obj, xr.Dataset) and "mask" in obj and obj["mask"].dtype == bool:
        return Picture(panel, image, obj["mask"].astype(np.uint8), {"masked": 1})
    return Picture(panel, image)


class _Frames(Sequence[xr.DataArray]):
    """The images of files, each opened when it is asked for."""

    def __init__(self, paths: Sequence[str], camera: CameraLike | None) -> None:
        self._paths, self._camera = paths, camera

    def __len__(self) -> int:
        return len(self._paths)

    @overload
    def __getitem__(self, key: int) -> xr.DataArray: ...

    @overload
    def __getitem__(self, key: slice) -> Sequence[xr.DataArray]: ...

    def __getitem__(self, key: int | slice) -> xr.DataArray | Sequence[xr.DataArray]:
        if isinstance(key, slice):
            return [self[i] for i in range(*key.indices(len(self)))]
        path = self._paths[key]
        return open_frame(path, camera=camera_of([path], self._camera), mask=False)["sci"]

    def opened(self, number: int) -> xr.DataArray | None:
        """The image of a file; None where it is gone or damaged."""
        try:
            return self[number]
        except (ZtfxrError, FileNotFoundError):
            return None

    def pixels(self, number: int, shape: tuple[int, int]) -> np.ndarray[Any, Any]:
        """The pixels of a file; NaN where it cannot be read, or has another shape."""
        try:
            values = np.asarray(self[number].values, dtype=np.float32)
        except (ZtfxrError, FileNotFoundError):
            return np.full(shape, np.nan, dtype=np.float32)
        return values if values.shape == shape else np.full(shape, np.nan, dtype=np.float32)


def _frames_of_a_run(epochs: xr.Dataset, camera: CameraLike | None) -> Picture | None:
    """The science frames of a run where they still lie where they were; None where none of them can be read."""
    paths = [str(p) for p in epochs["path"].values]
    frames = _Frames(paths, camera)
    first = next((image for i in range(len(paths)) if (image := frames.opened(i)) is not None), None)
    if first is None:
        return None
    shape = (first.sizes["y"], first.sizes["x"])
    parts = [
        dask.array.from_delayed(delayed(frames.pixels)(i, shape), shape, np.float32)[None] for i in range(len(paths))
    ]
    labels = {"time": epochs["time"].values, "y": first["y"].values, "x": first["x"].values}
    stack = xr.DataArray(dask.array.concatenate(parts), labels, ("time", "y", "x"), attrs=first.attrs)
    return Picture("science", stack, frames=frames)


def _stack_of(frames: Mapping[str, xr.Dataset]) -> Picture:
    """Frames one behind the other, each on its own pixels; those of another shape than the first are left out."""
    first = next(iter(frames.values()))
    same = [f for f in frames.values() if f["sci"].shape == first["sci"].shape]
    images = [f["sci"] for f in same]
    bare = [xr.DataArray(i.data, dims=("y", "x")) for i in images]
    labels = {d: first[d].values for d in ("x", "y") if d in first.coords}
    times = [f.coords["time"].values if "time" in f.coords else np.datetime64("NaT", "ns") for f in same]
    stack = xr.concat(bare, dim="time").assign_coords(labels | {"time": np.asarray(times)})
    bits, planes = None, {}
    if all("flags" in f for f in same):
        bits = xr.concat([xr.DataArray(f["flags"].data, dims=("y", "x")) for f in same], dim="time")
        planes = {p.name: p.value for p in own_planes(first["flags"])}
    return Picture("science", stack.assign_attrs(images[0].attrs), bits, planes, images)
