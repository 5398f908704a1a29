"""What to do, as data: a job is written down once and runs anywhere."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from os import PathLike
from pathlib import Path
from typing import Any, Literal, get_args

from ztfxr.arrays.matching.match import MatchOptions
from ztfxr.dia.kernel_options import KernelOptions
from ztfxr.errors import InputError
from ztfxr.io.cameras import Camera, CameraLike, get_camera
from ztfxr.io.names import frame_name, frame_paths
from ztfxr.io.remote import Address, shown
from ztfxr.ops.positions import Positions, position_columns
from ztfxr.photometry.lightcurve import photometry_options
from ztfxr.schema import plain

__all__ = ["Job"]

Noise = Literal["photon", "background", "measured"]
Align = Literal["wcs", "stars", "auto"]

_FORMAT = 1
_FORMAT_KEY = "ztfxr_job"
_NOT_NUMBERS = ("frames", "positions")
_BESIDE_THE_KERNEL = ("exclude", "exclude_radius", "model_error")


@dataclass(frozen=True)
class Job:
    """Frames to light curves, as plain data that JSON can hold.

    Parameters
    ----------
    frames
        Paths or URLs (``s3://``, ``https://``) of science images; or one of them, a folder, or a glob pattern
        (``"night/*_sciimg.fits*"``), looked up when the job runs. Relative paths start at the working directory. A file
        name is a frame's identity: it must be unique. Every worker opens the frames itself, with its own credentials;
        those in a URL reach it, but neither the store nor a message.
    positions
        Where to measure, as `ztfxr.resolve_positions` takes it; pixels are those of the reference. A file with a table
        is read when the job is made.
    reference
        The path or URL of a FITS image (its mask beside it) or of a zarr store of `ztfxr.build_reference`; or
        ``{"build": {...}}`` with options of `ztfxr.build_reference`, `n_frames` (default 20), the number of frames of
        the best seeing that it may choose from, and `filter`, which of the frames' filters it is of; without it they
        must be of one. It is built once, and kept in the store. Frames of another filter than the reference's get the
        status ``other_filter``.
    cutout
        ``{"ra": deg, "dec": deg, "size": pixels}`` or ``{"x": …, "y": …, "size": …}`` on the reference; None for whole
        frames.
    align
        None where frames share the reference's pixel grid; else how `ztfxr.align` registers them: ``"wcs"``,
        ``"stars"``, ``"auto"``.
    mask
        Whether to open the masks that the camera has; False for frames without them.
    noise
        Of the frames: ``"photon"`` or ``"background"`` as in `ztfxr.variance`; ``"measured"`` on the residuals of the
        difference, which is also what happens where no gain is known.
    difference
        Options of `ztfxr.difference`. What is measured is left out of the kernel's solution as in `ztfxr.lightcurve`.
    photometry
        ``{"method": "aperture", "radius": 5.0, …}`` with `masked`, `max_masked_fraction` and `annulus` of
        `ztfxr.aperture_photometry`, or ``{"method": "psf", …}`` with `background` and the options of the fit of
        `ztfxr.forced_photometry`; the PSF is built once from the reference.
    stamps
        Side in pixels of the stamps of every source's difference to keep; None for none.
    kernels
        Whether to keep the matching kernels.
    camera
        What the headers of the frames mean: the name of a camera in `ztfxr.CAMERAS`, or a `ztfxr.Camera`.

    Raises
    ------
    InputError
        An option that does not exist, or that JSON cannot hold.
    """

    frames: tuple[str, ...] | str
    positions: Mapping[str, Any]
    reference: str | Mapping[str, Any] = field(default_factory=lambda: {"build": {}})
    cutout: Mapping[str, Any] | None = None
    align: Align | None = None
    mask: bool = True
    noise: Noise = "photon"
    difference: Mapping[str, Any] = field(default_factory=dict)
    photometry: Mapping[str, Any] = field(default_factory=lambda: {"method": "aperture", "radius": 5.0})
    stamps: int | None = None
    kernels: bool = False
    camera: CameraLike = "ztf"

    def __post_init__(self) -> None:
        values: dict[str, Any] = {"frames": _frames(self.frames), "positions": _positions(self.positions)}
        values["camera"] = self.camera.to_dict() if isinstance(self.camera, Camera) else self.camera
        get_camera(values["camera"])
        for each in fields(self):
            if each.name not in values:
                values[each.name] = plain(getattr(self, each.name), each.name)
        if self.reference == "build":
            values["reference"] = {"build": {}}
        elif isinstance(values["reference"], str):
            values["reference"] = Address(values["reference"])
        values["photometry"] = {"method": "aperture"} | values["photometry"]
        for name, value in values.items():
            object.__setattr__(self, name, value)
        _check(self)

    def to_json(self, path: str | PathLike[str] | None = None) -> str:
        """The job as JSON text, also written to `path`."""
        text = json.dumps({_FORMAT_KEY: _FORMAT} | {f.name: getattr(self, f.name) for f in fields(self)}, indent=1)
        if path is not None:
            Path(path).write_text(text + "\n")
        return text

    @classmethod
    def from_json(cls, source: str | PathLike[str]) -> Job:
        """The job of a JSON file, or of JSON text.

        Raises
        ------
        InputError
            It is no job, or names what this version does not know.
        """
        text = source if isinstance(source, str) and source.lstrip().startswith("{") else None
        if text is None and not Path(source).is_file():
            raise FileNotFoundError(f"no such file of a job: {source}")
        try:
            found = json.loads(Path(source).read_bytes() if text is None else text)
        except ValueError as error:
            raise InputError(f"the job is not JSON ({error})") from error
        if not isinstance(found, dict) or found.pop(_FORMAT_KEY, _FORMAT) != _FORMAT:
            raise InputError(f"not a job of format {_FORMAT}; write one with Job(...).to_json(path)")
        known = {f.name for f in fields(cls)}
        unknown = sorted(set(found) - known)
        missing = sorted({"frames", "positions"} - set(found))
        if unknown or missing:
            raise InputError(f"a job has {', '.join(sorted(known))}; unknown: {unknown}, missing: {missing}")
        return cls(**found)

    def options(self) -> dict[str, Any]:
        """All that the numbers of one epoch depend on, but the contents of files; positions by their digest.

        A reference at a URL is named without credentials and query, which change while it stays the same.
        """
        out = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in _NOT_NUMBERS}
        if isinstance(self.reference, str):
            out["reference"] = shown(self.reference)
        return out | {"positions": _digest(self.positions)}

    @property
    def photometry_by_method(self) -> dict[str, Any]:
        """The arguments of `photometry_options`."""
        return {
            "method": self.photometry["method"],
            "given": {name: value for name, value in self.photometry.items() if name != "method"},
        }

    @property
    def fingerprint(self) -> str:
        """A hash of `options`: jobs with equal fingerprints give equal numbers for a frame."""
        return _digest(self.options())

    def paths(self) -> list[str]:
        """The frames that are there now, by name.

        Raises
        ------
        InputError
            There are none, or two have one name.
        RemoteFileError
            The server of a pattern does not answer, or refuses.
        """
        names: dict[str, str] = {}
        for path in map(str, frame_paths(self.frames, get_camera(self.camera).science)):
            other = names.setdefault(frame_name(path), path)
            if other != path:
                raise InputError(
                    f"two frames are named {frame_name(path)}: {shown(other)} and {shown(path)}; rename one"
                )
        return [Address(path) for path in names.values()]

    def with_frames(self, frames: Iterable[str]) -> Job:
        """The same job on other frames."""
        return replace(self, frames=tuple(frames))

    def without_secrets(self) -> Job:
        """The same job with its URLs as they may be shown and stored."""
        frames = shown(self.frames) if isinstance(self.frames, str) else tuple(map(shown, self.frames))
        return replace(
            self, frames=frames, reference=shown(self.reference) if isinstance(self.reference, str) else self.reference
        )


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _frames(frames: Any) -> tuple[str, ...] | str:
    return Address(frames) if isinstance(frames, str | PathLike) else tuple(Address(path) for path in frames)


def _positions(positions: Positions) -> dict[str, list[Any]]:
    """Columns of plain lists, all of one length."""
    found = position_columns(positions)
    out = {"source_id" if name == "id" else name: values.tolist() for name, values in found.items()}
    if not all(out.values()):
        raise InputError("no positions are given: the columns are empty; give at least one")
    return out


def _check(job: Job) -> None:
    photometry_options(**job.photometry_by_method)
    kernel = KernelOptions.__annotations__
    _only("difference", job.difference, (*kernel, *_BESIDE_THE_KERNEL))
    MatchOptions(**{k: v for k, v in job.difference.items() if k in kernel and v not in (None, "auto")})
    if job.noise not in get_args(Noise):
        raise InputError(f"noise is one of {get_args(Noise)}; got {job.noise!r}")
    if job.align not in (None, *get_args(Align)):
        raise InputError(f"align is None or one of {get_args(Align)}; got {job.align!r}")
    if job.cutout is not None and set(job.cutout) not in ({"ra", "dec", "size"}, {"x", "y", "size"}):
        raise InputError(f"cutout has ra, dec, size or x, y, size; got {', '.join(job.cutout)}")
    if isinstance(job.reference, Mapping) and set(job.reference) != {"build"}:
        raise InputError(f"reference is a path or {{'build': {{...}}}}; got {dict(job.reference)}")
    if job.stamps is not None and job.stamps < 1:
        raise InputError(f"stamps is the side of the stamps in pixels, at least 1; got {job.stamps}")


def _only(what: str, given: Mapping[str, Any], allowed: Iterable[str]) -> None:
    unknown = sorted(set(given) - set(allowed))
    if unknown:
        raise InputError(f"{what} has no option {', '.join(unknown)}; its options are {', '.join(allowed)}")
