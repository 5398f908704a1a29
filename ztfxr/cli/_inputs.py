"""What commands are given: files of every kind that ztfxr reads, and positions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import rich_click as click
import xarray as xr

from ztfxr.errors import InputError
from ztfxr.io.alerts import open_alerts
from ztfxr.io.cameras import CAMERAS, ZTF, camera_of
from ztfxr.io.catalogs import read_catalog
from ztfxr.io.fits import open_hdus
from ztfxr.io.frames import open_fits, open_frame, open_frames
from ztfxr.io.names import companion, frame_paths, suffix_of
from ztfxr.io.remote import file_name, location, shown
from ztfxr.io.zfps import read_zfps
from ztfxr.ops.positions import position_columns
from ztfxr.store.zarr import open_zarr

__all__ = [
    "align_option",
    "camera_option",
    "mask_option",
    "one_place",
    "open_any",
    "open_image",
    "open_many",
    "paths_of",
    "position_options",
    "positions_of",
]

F = TypeVar("F", bound=Callable[..., Any])

_WHERE = "Positions"
_TABLES = (".csv", ".ecsv", ".parquet", ".vot", ".xml", ".csv.gz", ".ecsv.gz")


def camera_option(function: F) -> F:
    """The option that says which camera took the frames."""
    names = sorted(CAMERAS)
    about = f"Camera: {', '.join(names)} [default: ztf for sciimg files, else fits]."
    return click.option("--camera", type=click.Choice(names), metavar="NAME", help=about)(function)


def mask_option(function: F) -> F:
    """The option that leaves masks out."""
    return click.option("--mask/--no-mask", "mask", default=True, help="Open the masks beside the frames, or none.")(
        function
    )


def align_option(function: F) -> F:
    """The option that says how frames come to the reference's pixels."""
    return click.option(
        "--align",
        type=click.Choice(["auto", "wcs", "stars", "none"]),
        metavar="HOW",
        default="auto",
        help="To the reference's pixels: auto (the default), wcs, stars, or none for frames that share them.",
    )(function)


def position_options(function: F) -> F:
    """The options that say where."""
    for option in reversed(
        (
            click.option(
                "--ra",
                multiple=True,
                metavar="RA",
                help="Degrees, or hours as 03:51:36; may be repeated.",
                panel=_WHERE,
            ),
            click.option("--dec", multiple=True, metavar="DEC", help="Degrees, or parts as +35:48:00.", panel=_WHERE),
            click.option(
                "--x",
                multiple=True,
                type=float,
                metavar="PX",
                help="Pixel column, 0-based, of the frame.",
                panel=_WHERE,
            ),
            click.option(
                "--y", multiple=True, type=float, metavar="PX", help="Pixel row, 0-based, of the frame.", panel=_WHERE
            ),
            click.option(
                "--positions",
                metavar="TABLE",
                help="A table with ra, dec or x, y (CSV, ECSV, FITS, ...), or text: '03:51:36 +35:48:00'.",
                panel=_WHERE,
            ),
        )
    ):
        function = option(function)
    return function


def positions_of(
    ra: Sequence[str], dec: Sequence[str], x: Sequence[float], y: Sequence[float], positions: str | None
) -> dict[str, Any] | None:
    """The positions that the options name, as columns; None where they name none.

    Raises `click.UsageError` where the options do not go together, and `InputError` where one is no position.
    """
    given = [name for name, found in (("--ra/--dec", (*ra, *dec)), ("--x/--y", (*x, *y))) if found]
    given += ["--positions"] if positions is not None else []
    if len(given) > 1:
        raise click.UsageError(f"positions are given twice, by {' and '.join(given)}; give one of them")
    for (first, many), (second, others) in ((("--ra", ra), ("--dec", dec)), (("--x", x), ("--y", y))):
        if len(many) != len(others):
            raise click.UsageError(f"{len(many)} {first} but {len(others)} {second}; they go in pairs")
    if positions is not None:
        return {("source_id" if k == "id" else k): v for k, v in position_columns(positions).items()}
    if ra:
        return dict(position_columns({"ra": list(ra), "dec": list(dec)}))
    return {"x": list(x), "y": list(y)} if x else None


def one_place(places: dict[str, Any], needed: str = "one position is needed") -> dict[str, Any]:
    """The keywords of `ztfxr.stamp` for the only position of `positions_of`; `click.UsageError` for several."""
    names = ("ra", "dec") if "ra" in places else ("x", "y")
    if len(places[names[0]]) != 1:
        raise click.UsageError(f"{needed}; {len(places[names[0]])} are given")
    return {name: float(places[name][0]) for name in names}


def paths_of(frames: Sequence[str]) -> list[str]:
    """The files that words of the command line stand for: files, patterns, folders, URLs.

    Where there are ZTF's science images, other images beside them (masks) are none.
    """
    found = [str(path) for word in frames for path in frame_paths(word)]
    science = [path for path in found if ZTF.science in file_name(path)]
    return science or found


def open_many(frames: Sequence[str], camera: str | None, *, mask: bool = True) -> xr.DataTree:
    """Many frames as a tree; one that cannot be used is an error."""
    paths = paths_of(frames)
    return open_frames(paths, camera=camera_of(paths, camera), mask=None if mask else False, errors="raise")


def open_image(path: str, camera: str | None = None, *, mask: bool = True) -> xr.Dataset:
    """One image with its mask: a frame of a camera, a file that ztfxr wrote, or a store."""
    found = open_any(path, camera, mask=mask)
    if isinstance(found, xr.DataTree):
        held = [node.path.strip("/") for node in found.subtree if {"y", "x"} <= set(node.sizes)]
        if held != ["reference"]:
            raise InputError(f"{shown(path)} holds no single image; it has {_groups(found)}")
        found = found["reference"].to_dataset()
    if not {"y", "x"} <= set(found.sizes):
        raise InputError(f"{shown(path)} holds no image, but {', '.join(map(str, found.data_vars)) or 'nothing'}")
    return found


def open_any(path: str, camera: str | None = None, *, mask: bool = True) -> xr.Dataset | xr.DataTree:
    """What a file is, lazily: a frame, images that ztfxr wrote, alert packets, a store, a table, or a light curve."""
    place, name = location(path), file_name(path).lower()
    if isinstance(place, Path) and not place.exists():
        raise FileNotFoundError(f"no such file: {path}")
    if suffix_of(name):
        return _open_fits(path, camera, mask=mask)
    if name.endswith(_TABLES):
        return read_catalog(path)
    if name.endswith(".avro") or (isinstance(place, Path) and place.is_dir() and any(place.glob("*.avro"))):
        return open_alerts(path)
    if name.endswith(".txt"):
        return read_zfps(path)
    if isinstance(place, Path) and place.is_dir() and not (place / "zarr.json").exists():
        raise InputError(f"{path} is a folder without a zarr store or alert packets; name a file in it, or a pattern")
    return open_zarr(path)


def _open_fits(path: str, camera: str | None, *, mask: bool) -> xr.Dataset:
    if camera is None and ZTF.science not in file_name(path):
        with open_hdus(path) as hdus:
            images = [hdu for hdu in hdus if getattr(hdu, "is_image", False) and len(hdu.shape) == 2]
            tables = [hdu for hdu in hdus if hasattr(hdu, "columns")]
        if not images and tables:
            return read_catalog(path)
        if len(images) > 1:
            return open_fits(path)
    chosen = camera_of([path], camera)
    alone = chosen == "ztf" and camera is None and companion(location(path), ZTF.science, "mskimg") is None
    return open_frame(path, camera=chosen, mask=None if mask and not alone else False)


def _groups(tree: xr.DataTree) -> str:
    return ", ".join(node.path.strip("/") for node in tree.subtree if node.path != "/") or "nothing"
