"""One epoch: from a path to its row of numbers, whatever happens to it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ztfxr.arrays.threads import task
from ztfxr.dia.difference import difference_for
from ztfxr.errors import NOT_THE_FRAME, FilterError, InputError, MissingWCSError, OutsideFrameError, ShapeError
from ztfxr.io.cameras import PLACES, Camera, CameraLike, get_camera, header_errors
from ztfxr.io.fits import inspect
from ztfxr.io.frames import open_frame
from ztfxr.io.names import frame_name
from ztfxr.io.remote import location, open_binary, size_of
from ztfxr.ops.filters import other_filter
from ztfxr.ops.positions import pixel_origin
from ztfxr.ops.stacks.align import align_known
from ztfxr.ops.stacks.register import Settings
from ztfxr.ops.stamps import stamp, stamps
from ztfxr.photometry.forced import forced_photometry
from ztfxr.photometry.lightcurve import calibrate_flux, lightcurve, photometry_options, with_model_error
from ztfxr.pipeline.job import Job
from ztfxr.pipeline.prepare import FRAME_SHAPE, Shared, frame_noise
from ztfxr.pipeline.results import Epoch
from ztfxr.schema import EPOCH_QUALITY, EXPOSURE, REGISTRATION, STATUS_PLANES, fill_value, status_of
from ztfxr.wcs import has_wcs, pixel_to_sky, sky_to_pixel

__all__ = ["file_checksum", "header_names", "measure", "products", "read_header"]

KERNELS = ("kernel", "kernel_err")
STAMPS = ("difference", "difference_variance")

_MARGIN = 16
_SAMPLE_BYTES = 1 << 16


def header_names(camera: Camera) -> tuple[str, ...]:
    """What is known of an epoch before it is measured; field and detector only where a camera has them."""
    return tuple(name for name in EXPOSURE if name in camera.places or name not in PLACES)


def read_header(path: str, camera: CameraLike = "ztf") -> dict[str, Any]:
    """What a frame's header says of the exposure; of an unusable one its status and why. Reads no pixel."""
    out: dict[str, Any] = {"path": path, "frame": frame_name(path), "epoch_status": 0, "message": ""}
    row = get_camera(camera)
    names = header_names(row)
    try:
        with header_errors(path):
            found, _ = row.coords(inspect(path, row.image).header, path)
    except NOT_THE_FRAME:
        raise
    except Exception as error:
        status, message = status_of(error)
        return out | {name: fill_value(name) for name in names} | {"epoch_status": status, "message": message}
    out["seeing_units"] = found["seeing"].attrs.get("units", "") if "seeing" in found else ""
    return out | {name: found[name].values[()] if name in found else fill_value(name) for name in names}


def measure(path: str, job: Job, shared: Shared) -> Epoch:
    """Open, cut, difference and measure one frame; what is wrong with the frame becomes its status. Computes.

    Runs with one BLAS thread, since other epochs run beside it.
    """
    checksum = file_checksum(path)
    try:
        with task():
            frame = _on_grid(_opened(path, job), job, shared)
            return _measured(frame, job, shared, checksum)
    except NOT_THE_FRAME:
        raise
    except Exception as error:
        status, message = status_of(error)
        return Epoch({"epoch_status": status}, message, checksum)


def file_checksum(path: str) -> str:
    """A hash of a file's size, first and last 64 KiB, to tell files apart by a part of them; "" without a file.

    Of a file at a URL too, whose server may change an ETag without cause: a copy of it has the same.
    """
    try:
        with open_binary(location(path)) as file:
            size = size_of(file)
            digest = hashlib.blake2b(str(size).encode(), digest_size=16)
            for start in (0, max(0, size - _SAMPLE_BYTES)):
                file.seek(start)
                digest.update(file.read(_SAMPLE_BYTES))
    except OSError:
        return ""
    return digest.hexdigest()


def _opened(path: str, job: Job) -> xr.Dataset:
    """The frame, its pixels unread and without dask: the epoch is one task already."""
    camera = get_camera(job.camera)
    frame = open_frame(path, camera=camera, mask=None if job.mask else False, chunks=False)
    return frame.assign_coords({name: fill_value(name) for name in header_names(camera) if name not in frame.coords})


def _on_grid(frame: xr.Dataset, job: Job, shared: Shared) -> xr.Dataset:
    """The pixels of the reference's grid, with their noise, in memory."""
    reference = shared.reference
    _require_its_filter(frame, reference)
    if has_wcs(reference) and not has_wcs(frame):
        raise MissingWCSError("the frame has no celestial WCS, so nothing says where it lies on the reference")
    if job.align is not None:
        window = {} if job.align == "stars" else _enclosing(frame, reference)
        part = _with_noise(frame.isel(window).load(), job)
        return align_known(part, reference, Settings(job.align), stars=shared.stars).load()
    found, wanted = (frame.sizes["y"], frame.sizes["x"]), tuple(reference.attrs[FRAME_SHAPE])
    if found != wanted:
        raise ShapeError(f"the frame is {found} pixels (y, x), the reference's frame {wanted}")
    sides = (reference.sizes["y"], reference.sizes["x"])
    first = {d: int(reference[d][0]) for d in ("y", "x")}
    if sides != found:
        frame = stamp(frame, y=first["y"] + sides[0] // 2, x=first["x"] + sides[1] // 2, size=sides)
    return _with_noise(frame.load(), job)


def _require_its_filter(frame: xr.Dataset, reference: xr.Dataset) -> None:
    """Raise `FilterError` where the frame is of another filter than the reference."""
    try:
        other_filter(frame["sci"], reference["sci"])
    except InputError as error:
        raise FilterError(str(error)) from error


def _enclosing(frame: xr.Dataset, reference: xr.Dataset) -> dict[str, slice]:
    """Rows and columns of the frame that see the reference, with a margin."""
    y, x = (reference[d].values[[0, -1]] for d in ("y", "x"))
    rows, columns = (np.linspace(float(ends[0]), float(ends[1]), 5) for ends in (y, x))
    grid = np.meshgrid(columns, rows)
    px, py = sky_to_pixel(frame, pixel_to_sky(reference, grid[0].ravel(), grid[1].ravel()))
    window, origin = {}, pixel_origin(frame)
    for dim, values in (("y", py - origin["y"]), ("x", px - origin["x"])):
        low, high = np.nanmin(values) - _MARGIN, np.nanmax(values) + _MARGIN
        window[dim] = slice(max(0, int(low)), max(0, min(frame.sizes[dim], int(high) + 1)))
        if window[dim].stop <= window[dim].start:
            raise OutsideFrameError("the frame does not overlap with the reference")
    return window


def _with_noise(frame: xr.Dataset, job: Job) -> xr.Dataset:
    found = frame_noise(frame, job.noise)
    return frame if found is None else frame.assign(variance=found)


def products(frame: xr.Dataset, job: Job, shared: Shared) -> dict[tuple[str, str], xr.DataArray]:
    """All that is stored of an epoch, by group and name; lazy where the frame is."""
    options = with_model_error(frame, _difference_options(job))
    diff = difference_for(_places(shared.positions), frame, shared.reference, **options)
    photometry = _photometry(diff, job, shared)
    out = {("epochs", name): diff[name] for name in EPOCH_QUALITY}
    out |= {("lightcurve", str(k)): v for k, v in photometry.data_vars.items() if v.dims == ("source",)}
    if job.kernels:
        out |= {("kernels", name): diff[name] for name in KERNELS}
    if job.stamps is not None:
        cut = stamps(diff[list(STAMPS)], _places(shared.positions), job.stamps)
        out |= {("stamps", name): cut[name] for name in STAMPS}
    return out


def _measured(frame: xr.Dataset, job: Job, shared: Shared, checksum: str) -> Epoch:
    found = {key: array.values for key, array in products(frame, job, shared).items()}
    quality = {name: found.pop(("epochs", name))[()] for name in EPOCH_QUALITY}
    quality |= {name: frame.coords[name].values[()] for name in REGISTRATION if name in frame.coords}
    status = int(quality["epoch_status"])
    reason = "; ".join(p.meaning for p in STATUS_PLANES if status & p.value)
    return Epoch(quality, reason, checksum, found)


def _difference_options(job: Job) -> dict[str, Any]:
    options = dict(job.difference)
    exclude = options.get("exclude")
    if exclude is not None and not isinstance(exclude, Mapping):
        options["exclude"] = np.asarray(exclude, dtype=float)
    return options


def _places(positions: xr.Dataset) -> dict[str, NDArray[Any]]:
    """The positions by pixel: the frame is on the reference's grid."""
    return {"x": positions["x_pixel"].values, "y": positions["y_pixel"].values}


def _photometry(diff: xr.Dataset, job: Job, shared: Shared) -> xr.Dataset:
    options, places = photometry_options(**job.photometry_by_method), _places(shared.positions)
    if job.photometry["method"] == "aperture":
        return lightcurve(diff, places, photometry=options)
    return calibrate_flux(forced_photometry(diff, places, reference_psf=shared.psf, **options))
