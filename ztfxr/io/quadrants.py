"""The quadrants of one exposure, of a CCD (4) or of the focal plane (64), as one tree."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, Literal, TypeAlias

import xarray as xr

from ztfxr.errors import InputError
from ztfxr.io.cameras import ZTF
from ztfxr.io.frames import Chunks, Errors, open_epochs
from ztfxr.io.names import SUFFIXES, AnyPath, suffix_of

__all__ = ["open_ccd", "open_exposure"]

Place: TypeAlias = tuple[int, int]

_CCDS, _QUADRANTS = tuple(range(1, 17)), tuple(range(1, 5))
_KEY = ("filefracday", "field", "filter")
_IN_NAME = re.compile(r"_c\d{2}_([a-z])_q[1-4]")


@dataclass(frozen=True)
class _Frame:
    """A frame, its (ccdid, qid) and its exposure, both None where neither header nor file name says them."""

    name: str
    dataset: xr.Dataset
    place: Place | None
    exposure: tuple[Any, ...] | None


def open_exposure(
    paths: AnyPath | Iterable[AnyPath],
    *,
    mask: Literal[False] | None = None,
    chunks: Chunks = None,
    errors: Errors = "status",
) -> xr.DataTree:
    """Open the quadrants of one exposure as a tree, ``tree["c13/q3"]``, lazily; only headers are read.

    Parameters
    ----------
    paths
        Science images, in any order; or one of them, whose up to 63 companions are found beside it by their names; or
        a folder with the science images of one exposure.
    mask, chunks
        Options of `ztfxr.open_quadrant`, for each quadrant.
    errors
        ``"status"`` keeps a quadrant that cannot be used as a node without pixels whose attributes `status` (a plane of
        the schema's `STATUS_PLANES`) and `message` say why; ``"raise"`` raises.

    Returns
    -------
    xarray.DataTree
        A node per CCD (``c01`` to ``c16``) and below it a node per quadrant (``q1`` to ``q4``), each a Dataset of
        `ztfxr.open_quadrant`. Quadrants without a file have no node: ``attrs["missing"]`` names them, such as
        "c01/q2 c05/q4"; ``attrs["unusable"]`` names the nodes without pixels. The attributes `filefracday`, `field` and
        `filter` are those of the exposure.

    Raises
    ------
    InputError
        No frames, two frames of one quadrant, or frames of more than one exposure: of another `filefracday`, field or
        filter.
    FileNotFoundError
        The one path that was given does not exist.
    FrameError
        With ``errors="raise"``: a frame that cannot be used.
    """
    frames = _open(_files(paths, _CCDS), mask, chunks, errors)
    return _tree(frames, {(c, q): f"c{c:02d}/q{q}" for c in _CCDS for q in _QUADRANTS})


def open_ccd(
    paths: AnyPath | Iterable[AnyPath],
    *,
    mask: Literal[False] | None = None,
    chunks: Chunks = None,
    errors: Errors = "status",
) -> xr.DataTree:
    """Open the four quadrants of one CCD as a tree, ``tree["q3"]``, lazily; only headers are read.

    Parameters
    ----------
    paths
        Science images of one CCD and one exposure, in any order; or one of them, whose companions are found beside it.
    mask, chunks, errors
        Options of `ztfxr.open_exposure`.

    Returns
    -------
    xarray.DataTree
        A node per quadrant (``q1`` to ``q4``), otherwise as of `ztfxr.open_exposure`; `ccdid` is an attribute too.

    Raises
    ------
    InputError, FileNotFoundError, FrameError
        As of `ztfxr.open_exposure`; frames of more than one CCD are an `InputError`.
    """
    frames = _open(_files(paths, ()), mask, chunks, errors)
    ccds = sorted({frame.place[0] for frame in frames if frame.place is not None})
    if len(ccds) > 1:
        raise InputError(
            f"the frames are of {len(ccds)} CCDs ({', '.join(map(str, ccds))}); open them with ztfxr.open_exposure"
        )
    tree = _tree(frames, {(c, q): f"q{q}" for c in ccds for q in _QUADRANTS})
    if ccds:
        tree.attrs["ccdid"] = ccds[0]
    return tree


def _files(paths: AnyPath | Iterable[AnyPath], ccds: Iterable[int]) -> list[Path]:
    """The files that `paths` stand for; beside a single one, those of its own CCD where `ccds` is empty."""
    if not isinstance(paths, str | PathLike):
        return [Path(path) for path in paths]
    one = Path(paths)
    if one.is_dir():
        return sorted(path for path in one.glob(f"ztf_*{ZTF.science}.*") if suffix_of(path.name))
    if not one.is_file():
        raise FileNotFoundError(f"no such file: {one}")
    name = ZTF.name_parts(one.name)
    if "qid" not in name:
        raise InputError(f"{one.name} is not named like a ZTF quadrant, so its companions cannot be found; list them")
    places = [(c, q) for c in (tuple(ccds) or (name["ccdid"],)) for q in _QUADRANTS]
    found = [one if place == (name["ccdid"], name["qid"]) else _companion(one, place) for place in places]
    return [path for path in found if path is not None]


def _companion(path: Path, place: Place) -> Path | None:
    """The file of another quadrant in the same folder, compressed the same way or not."""
    name = _IN_NAME.sub(rf"_c{place[0]:02d}_\1_q{place[1]}", path.name)
    own = suffix_of(name)
    candidates = (path.with_name(name.removesuffix(own) + suffix) for suffix in (own, *SUFFIXES))
    return next((c for c in candidates if c.is_file()), None)


def _open(paths: Iterable[Path], mask: Literal[False] | None, chunks: Chunks, errors: Errors) -> list[_Frame]:
    tree = open_epochs(paths, mask=mask, chunks=chunks, errors=errors)
    return [_frame(name, node.to_dataset()) for name, node in tree.children.items()]


def _frame(name: str, dataset: xr.Dataset) -> _Frame:
    """Place and exposure by the header, or by the file name of a frame that could not be read."""
    if "ccdid" in dataset.coords:
        values = {k: dataset.coords[k].item() for k in ("ccdid", "qid", *_KEY)}
    else:
        values = ZTF.name_parts(name)
        if "qid" not in values:
            return _Frame(name, dataset, None, None)
    return _Frame(name, dataset, (values["ccdid"], values["qid"]), tuple(values[k] for k in _KEY))


def _tree(frames: list[_Frame], names: Mapping[Place, str]) -> xr.DataTree:
    """The frames by place, in the order of `names`; frames without a place follow by file name."""
    exposures = list(dict.fromkeys(frame.exposure for frame in frames if frame.exposure is not None))
    if len(exposures) > 1:
        listed = "; ".join(", ".join(f"{k} {v}" for k, v in zip(_KEY, key, strict=True)) for key in exposures[:3])
        raise InputError(f"the frames are of {len(exposures)} exposures ({listed}): open one exposure at a time")
    placed: dict[Place, _Frame] = {}
    for frame in frames:
        if frame.place is None:
            continue
        other = placed.setdefault(frame.place, frame)
        if other is not frame:
            ccdid, qid = frame.place
            raise InputError(f"two frames of CCD {ccdid} quadrant {qid}: {other.name} and {frame.name}; leave one out")
    nodes = {name: placed[place].dataset for place, name in names.items() if place in placed}
    nodes |= {frame.name: frame.dataset for frame in frames if frame.place not in names}
    tree = xr.DataTree.from_dict(nodes)
    tree.attrs = {
        **dict(zip(_KEY, exposures[0] if exposures else (), strict=False)),
        "missing": " ".join(name for place, name in names.items() if place not in placed),
        "unusable": " ".join(name for name, dataset in nodes.items() if "sci" not in dataset),
    }
    return tree
