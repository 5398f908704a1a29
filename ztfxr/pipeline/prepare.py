"""What all epochs share: the reference on its grid, where to measure on it, and the PSF."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from ztfxr.arrays.geometry.registration import Stars
from ztfxr.errors import FrameError, InputError, StoreError
from ztfxr.io.cameras import get_camera
from ztfxr.io.frames import open_frame, open_frames
from ztfxr.io.names import suffix_of
from ztfxr.io.remote import file_name, location, shown
from ztfxr.ops.background import variance as noise_model
from ztfxr.ops.exposure import gather
from ztfxr.ops.filters import band, bands
from ztfxr.ops.positions import resolve_positions
from ztfxr.ops.stacks.align import align
from ztfxr.ops.stacks.coadd import build_reference
from ztfxr.ops.stacks.register import stars_of
from ztfxr.ops.stacks.stack import stack
from ztfxr.ops.stamps import stamp
from ztfxr.photometry.psf_build import build_psf
from ztfxr.pipeline.job import Job, Noise
from ztfxr.schema import kept
from ztfxr.store.zarr import open_zarr

__all__ = ["FRAME_SHAPE", "Shared", "frame_noise", "prepare"]

FRAME_SHAPE = "frame_shape"
_CANDIDATES = 20


@dataclass(frozen=True)
class Shared:
    """What every epoch is measured with; all in memory."""

    reference: xr.Dataset
    """`sci`, `mask`, and `variance` where it is known."""
    positions: xr.Dataset
    psf: xr.Dataset | None

    @cached_property
    def stars(self) -> Stars | FrameError:
        """The stars of the reference, by which frames are aligned; found once in a process."""
        return stars_of(self.reference)


def prepare(job: Job, headers: Sequence[Mapping[str, Any]]) -> Shared:
    """Read or build what the epochs share. Computes."""
    reference = _reference(job, headers).load()
    positions = resolve_positions(reference, _columns(job))
    psf = build_psf(reference).load() if job.photometry["method"] == "psf" else None
    if psf is not None and not bool(np.isfinite(psf["fwhm"])):
        raise InputError("no PSF can be built from the reference: too few bright stars; use method 'aperture'")
    return Shared(reference, positions, psf)


def _columns(job: Job) -> dict[str, np.ndarray[Any, Any]]:
    return {name: np.asarray(values) for name, values in job.positions.items()}


def _reference(job: Job, headers: Sequence[Mapping[str, Any]]) -> xr.Dataset:
    if isinstance(job.reference, str):
        whole = _opened(job, job.reference)
    else:
        whole = _built(job, dict(job.reference["build"]), headers)
    shape = [whole.sizes["y"], whole.sizes["x"]]
    cut = _cut(whole, job).load()
    image = xr.Dataset({"sci": cut["sci"].astype(np.float32), "mask": gather(cut, name="sci").bad}, cut.coords)
    found = frame_noise(cut, "photon")
    if found is not None:
        image["variance"] = found.astype(np.float32)
    image = image.drop_vars([c for c in image.coords if "frame" in image.coords[c].dims], errors="ignore")
    image.attrs = kept(cut.attrs, "grid")
    return image.assign_attrs({FRAME_SHAPE: whole.attrs.get(FRAME_SHAPE, shape)})


def frame_noise(frame: xr.Dataset, method: Noise) -> xr.DataArray | None:
    """The variance of a frame in memory: its own, else by a job's `noise`; None where the difference must tell."""
    if "variance" in frame:
        return frame["variance"]
    gain, readnoise = (float(frame.coords[name]) if name in frame.coords else np.nan for name in ("gain", "readnoise"))
    if method == "measured" or not gain > 0 or (method == "photon" and not readnoise >= 0):
        return None
    return noise_model(frame, method=method)


def _cut(whole: xr.Dataset, job: Job) -> xr.Dataset:
    return whole if job.cutout is None else stamp(whole, boundary="trim", **job.cutout)


def _opened(job: Job, path: str) -> xr.Dataset:
    place = location(path)
    if isinstance(place, Path) and not place.exists():
        raise FileNotFoundError(f"the reference does not exist: {path}")
    if place.is_file() if isinstance(place, Path) else suffix_of(file_name(place)):
        return open_frame(path, camera=get_camera(job.camera), mask=None if job.mask else False)
    found = open_zarr(path)
    image = found["reference"].to_dataset() if isinstance(found, xr.DataTree) and "reference" in found else found
    if not isinstance(image, xr.Dataset) or not {"y", "x"} <= set(image.get("sci", xr.DataArray()).dims):
        raise StoreError(f"{shown(path)} holds no reference: an image 'sci' (y, x), as ztfxr.build_reference makes it")
    return image


def _built(job: Job, options: dict[str, Any], headers: Sequence[Mapping[str, Any]]) -> xr.Dataset:
    """A reference of the frames with the best seeing, on the grid of the first of them."""
    candidates = sorted(_of_one_filter(headers, options.pop("filter", None)), key=_by_seeing)
    chosen = [h["path"] for h in candidates[: int(options.pop("n_frames", _CANDIDATES))]]
    if not chosen:
        raise InputError(f"no reference can be built: none of the {len(headers)} frames can be read")
    tree = open_frames(chosen, camera=get_camera(job.camera), mask=None if job.mask else False)
    nodes = {name: node.to_dataset() for name, node in tree.children.items()}
    grid = next((ds for ds in nodes.values() if "sci" in ds), None)
    if grid is None:
        raise InputError(f"no reference can be built; {chosen[0]}: {next(iter(nodes.values())).attrs['message']}")
    shape, grid = [grid.sizes["y"], grid.sizes["x"]], _cut(grid, job)
    if job.align is None:
        tree = xr.DataTree.from_dict({n: _cut(ds, job) if "sci" in ds else ds for n, ds in nodes.items()})
        frames = stack(tree, like=grid)
    else:
        frames = align(tree, to=grid, method=job.align)
    return build_reference(frames, **options).assign_attrs({FRAME_SHAPE: shape})


def _of_one_filter(headers: Sequence[Mapping[str, Any]], name: str | None) -> list[Mapping[str, Any]]:
    """The usable frames of the filter that is asked for; `InputError` where none is and there are several."""
    usable = [h for h in headers if not h["epoch_status"]]
    found = bands(h["filter"] for h in usable)
    if name is None and len(found) > 1:
        first = next(iter(found.values()))
        raise InputError(
            f"the frames are of several filters, {', '.join(found.values())}, and a reference is of one: run a job for "
            f"each, or say of which to build it, for example reference={{'build': {{'filter': {first!r}}}}}"
        )
    if name is not None and band(name) not in found:
        raise InputError(f"no frame is of filter {name!r}; theirs are {', '.join(found.values()) or 'unknown'}")
    return usable if name is None else [h for h in usable if band(h["filter"]) == band(name)]


def _by_seeing(header: Mapping[str, Any]) -> tuple[float, str]:
    seeing = float(header["seeing"])
    return (seeing if np.isfinite(seeing) else np.inf), str(header["frame"])
