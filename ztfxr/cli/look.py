"""``ztfxr info``, ``show``, ``mask``, ``stamp``, ``view``: what is in a file, as words, numbers and pictures."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rich_click as click
import xarray as xr

from ztfxr.cli._base import Reply, command
from ztfxr.cli._inputs import (
    camera_option,
    mask_option,
    one_place,
    open_any,
    open_image,
    open_many,
    paths_of,
    position_options,
    positions_of,
)
from ztfxr.cli._outputs import FIGURES, IMAGES, STORES, check_outputs, out_option, plots, save_figure, suffix, write
from ztfxr.errors import InputError, OutsideFrameError
from ztfxr.io.catalogs import read_catalog
from ztfxr.io.names import frame_name
from ztfxr.io.remote import is_url
from ztfxr.ops.masks import explain, mask_fractions, own_planes
from ztfxr.ops.masks import mask as bad_pixels
from ztfxr.ops.positions import resolve_positions
from ztfxr.ops.sky import center, contains, pixel_scale
from ztfxr.ops.stamps import stamp as cut_out
from ztfxr.ops.stamps import stamps as cut_outs
from ztfxr.wcs import has_wcs

__all__ = ["info", "mask", "show", "stamp", "view"]

_SCALARS = (
    "time",
    "mjd",
    "filter",
    "exptime",
    "seeing",
    "magzp",
    "gain",
    "readnoise",
    "saturate",
    "field",
    "ccdid",
    "qid",
)
_VARIABLES = 12


# ---- info -----------------------------------------------------------------------------------------------------------


@command("info")
@click.argument("files", nargs=-1, required=True, metavar="FILES...", help="Frames, packets, stores, tables, or URLs.")
@camera_option
def info(files: Sequence[str], camera: str | None) -> Reply:
    """What files hold: images, planes, sky, exposure, columns.

    Headers are read, no pixel.
    """
    found = [(path, open_any(path, camera)) for word in files for path in _each(word)]
    data = [{"file": path} | _about(obj) for path, obj in found]
    lines = [line for path, obj in found for line in [path, *(f"  {each}" for each in _words(obj))]]
    return Reply(lines, {"files": data})


def _each(word: str) -> list[str]:
    """A store and a folder of packets are one thing; a pattern, or another folder, is the frames in it."""
    place = Path(word)
    one = place.is_file() or (place / "zarr.json").exists() or (place.is_dir() and any(place.glob("*.avro")))
    return [word] if one or is_url(word) else paths_of([word])


def _nodes(obj: xr.Dataset | xr.DataTree) -> dict[str, xr.Dataset]:
    if isinstance(obj, xr.Dataset):
        return {"": obj}
    return {node.path.strip("/"): node.to_dataset() for node in obj.subtree if node.data_vars}


def _about(obj: xr.Dataset | xr.DataTree) -> dict[str, Any]:
    nodes = {name: _about_one(ds) for name, ds in _nodes(obj).items()}
    return nodes[""] if set(nodes) == {""} else {"groups": nodes}


def _about_one(ds: xr.Dataset) -> dict[str, Any]:
    out: dict[str, Any] = {"sizes": dict(ds.sizes)}
    out["variables"] = {
        str(name): {"dims": list(v.dims), "dtype": str(v.dtype), "units": str(v.attrs.get("units", ""))}
        for name, v in ds.data_vars.items()
    }
    out |= {name: ds.coords[name].values for name in _SCALARS if name in ds.coords and ds.coords[name].ndim == 0}
    if {"y", "x"} <= set(ds.sizes) and has_wcs(ds):
        middle, scale = center(ds), pixel_scale(ds)
        out["center"] = {"ra": float(middle.ra.deg), "dec": float(middle.dec.deg)}
        out["pixel_scale_arcsec"] = [float(scale.y), float(scale.x)]
    if "flags" in ds:
        out["planes"] = [plane.name for plane in own_planes(ds["flags"])]
    return out


def _words(obj: xr.Dataset | xr.DataTree) -> list[str]:
    lines = []
    for name, ds in _nodes(obj).items():
        lines += [f"/{name}"] if name else []
        indent = "  " if name else ""
        lines += [indent + line for line in _words_of(_about_one(ds))]
    return lines


def _words_of(about: dict[str, Any]) -> list[str]:
    lines = [", ".join(f"{dim} {n}" for dim, n in about["sizes"].items())]
    for name, v in list(about["variables"].items())[:_VARIABLES]:
        lines.append(f"{name:24s} ({', '.join(v['dims'])}) {v['dtype']} {v['units']}".rstrip())
    more = len(about["variables"]) - _VARIABLES
    lines += [f"and {more} more"] if more > 0 else []
    if "center" in about:
        ra, dec = about["center"]["ra"], about["center"]["dec"]
        lines.append(
            f"center                   RA {ra:.5f} Dec {dec:+.5f} deg, {about['pixel_scale_arcsec'][0]:.3f} arcsec/px"
        )
    for name in (name for name in _SCALARS if name in about):
        value = about[name]
        text = str(value)[:19] if value.dtype.kind == "M" else value.item()
        lines.append(f"{name:24s} {text:.9g}" if isinstance(text, float) else f"{name:24s} {text}")
    if "planes" in about:
        text = " ".join(about["planes"])
        lines += textwrap.wrap(text, 76, initial_indent=f"{'planes':25s}", subsequent_indent=" " * 25)
    return lines


# ---- show -----------------------------------------------------------------------------------------------------------


@command("show")
@click.argument("frames", nargs=-1, required=True, metavar="FRAMES...", help="Frames or stores: files, a folder, URLs.")
@position_options
@click.option("--size", type=click.IntRange(1), metavar="PX", help="Side of a cut-out around the position.")
@click.option("--planes", is_flag=True, help="Draw the planes of bad pixels over the image.")
@click.option(
    "--stretch",
    type=click.Choice(["linear", "asinh", "sqrt", "log"]),
    metavar="HOW",
    help="linear, asinh, sqrt or log.",
)
@click.option("--cmap", metavar="NAME", help="Color map of matplotlib.")
@click.option("--wcs", is_flag=True, help="Axes in RA and Dec.")
@camera_option
@mask_option
@out_option("Picture: .png .pdf .svg [default: the frame's name with .png, here].")
def show(frames: Sequence[str], camera: str | None, mask: bool, out: str | None, overwrite: bool, **how: Any) -> Reply:
    """Pictures of images: one, or a panel for each."""
    place = _one_place(**{name: how.pop(name) for name in _PLACES})
    size = how.pop("size")
    if (place is None) != (size is None):
        raise click.UsageError("a cut-out has a position and a --size; one of them is missing")
    paths = [path for word in frames for path in _each(word)]
    path = out or f"{frame_name(paths[0])}.png"
    check_outputs([path], FIGURES, overwrite=overwrite)
    images = [open_image(each, camera, mask=mask) for each in paths]
    cut = [image if place is None else cut_out(image, size=size, **place) for image in images]
    return Reply([], {"frames": [str(each) for each in paths]}, [_draw(cut, paths, path, overwrite, **how)])


def _draw(
    images: list[xr.Dataset], paths: Sequence[str], out: str, overwrite: bool, *, planes: bool, wcs: bool, **how: Any
) -> Path:
    names = [frame_name(path) for path in paths]
    if len(set(names)) < len(names):
        raise InputError("two frames have one name; show them apart")
    what: Any = images[0] if len(images) == 1 else xr.DataTree.from_dict(dict(zip(names, images, strict=True)))
    drawn = plots().show(what, mask=True if planes else None, ax="wcs" if wcs else None, **how)
    return save_figure(drawn, out, overwrite=overwrite)


_PLACES = ("ra", "dec", "x", "y", "positions")


def _one_place(**given: Any) -> dict[str, Any] | None:
    """The keywords of `ztfxr.stamp` for the one position that the options name; None where they name none."""
    places = positions_of(**given)
    return None if places is None else one_place(places)


# ---- mask -----------------------------------------------------------------------------------------------------------


@command("mask")
@click.argument("frame", metavar="FRAME", help="A frame with its mask, a file that ztfxr wrote, or a store.")
@click.option("--planes", metavar="NAME,...", help="Planes that mark bad pixels [default: the recommended ones].")
@click.option("--grow", type=click.FloatRange(0), default=0.0, metavar="PX", help="Grow bad pixels by this radius.")
@position_options
@camera_option
@out_option("The mask as an image, 1 where bad: .fits .fits.gz .zarr .zarr.zip.")
def mask(
    frame: str, planes: str | None, grow: float, camera: str | None, out: str | None, overwrite: bool, **where: Any
) -> Reply:
    """What a mask marks, in all and at positions."""
    if out is not None:
        check_outputs([out], tuple(IMAGES), overwrite=overwrite)
    image = open_image(frame, camera)
    chosen = None if planes is None else planes.replace(",", " ").split()
    bad = bad_pixels(image, chosen, grow=grow)
    share = float(bad.mean())
    fractions = mask_fractions(image).compute()
    shares = dict(zip(fractions["plane"].values.tolist(), fractions.values.tolist(), strict=True))
    lines = [f"{share:10.4%} bad", *(f"{value:10.4%} {name}" for name, value in shares.items() if value > 0)]
    data: dict[str, Any] = {"bad_fraction": share, "planes": shares}
    places = positions_of(**where)
    if places is not None:
        at = _planes_at(image, resolve_positions(image, places))
        lines += [f"x {x:.1f} y {y:.1f}: {text or 'nothing set'}" for x, y, text in at]
        data["positions"] = [{"x": x, "y": y, "planes": text.split()} for x, y, text in at]
    if out is None:
        return Reply(lines, data)
    layer = bad.astype(np.uint8).rename("mask").to_dataset()
    return Reply(lines, data, [write(layer, out, IMAGES, overwrite=overwrite)])


def _planes_at(image: xr.Dataset, where: xr.Dataset) -> list[tuple[float, float, str]]:
    x, y = (where[f"{axis}_pixel"].values for axis in "xy")
    names = np.atleast_1d(explain(image, x=x, y=y).values)
    return list(zip(x.tolist(), y.tolist(), map(str, names), strict=True))


# ---- stamp ----------------------------------------------------------------------------------------------------------


@command("stamp")
@click.argument("frames", nargs=-1, required=True, metavar="FRAMES...", help="Files, 'patterns', a folder, or URLs.")
@position_options
@click.option("--size", type=click.IntRange(1), default=63, show_default=True, metavar="PX", help="Side of the stamp.")
@camera_option
@mask_option
@out_option("Image (.fits .fits.gz), store (.zarr .zarr.zip) or picture (.png .pdf .svg).", default="stamp.fits")
def stamp(
    frames: Sequence[str], size: int, camera: str | None, mask: bool, out: str, overwrite: bool, **where: Any
) -> Reply:
    """Cut-outs of one or many frames.

    One position out of many frames, or many positions out of one. Pixels are copied, never resampled. Several
    stamps go into a store or a picture.
    """
    check_outputs([out], (*IMAGES, *FIGURES), overwrite=overwrite)
    places = positions_of(**where)
    if places is None:
        raise click.UsageError("say where to cut: --ra and --dec, --x and --y, or --positions TABLE")
    paths = paths_of(frames)
    n = len(next(iter(places.values())))
    if n > 1 and len(paths) > 1:
        raise click.UsageError(
            f"{n} positions of {len(paths)} frames are too many at once; give one position or one frame"
        )
    if n * len(paths) > 1 and suffix(out, (*IMAGES, *FIGURES)) not in (*STORES, *FIGURES):
        raise click.UsageError(f"--out {out}: {n * len(paths)} stamps go into one of {' '.join((*STORES, *FIGURES))}")
    found: Any
    if n > 1:
        found = cut_outs(_holding(open_image(paths[0], camera, mask=mask), places, paths[0]), places, size=size)
    elif len(paths) > 1:
        one, tree = _one_place(**where) or {}, open_many(paths, camera, mask=mask)
        images = {name: _holding(node.to_dataset(), places, name) for name, node in tree.children.items()}
        cut = {name: cut_out(frame, size=size, **one) for name, frame in images.items()}
        found = xr.DataTree.from_dict(cut)
    else:
        image = _holding(open_image(paths[0], camera, mask=mask), places, paths[0])
        found = cut_out(image, size=size, **_one_place(**where) or {})
    return Reply(
        [f"{n * len(paths)} stamp{'s' if n * len(paths) > 1 else ''} of {size} px"],
        {"stamps": n * len(paths)},
        [_kept(found, out, overwrite)],
    )


def _holding(image: xr.Dataset, places: dict[str, Any], path: str) -> xr.Dataset:
    """The image, if a position lies on it."""
    if not bool(contains(image, places).any()):
        x0, x1, y0, y1 = (int(image[d][i]) for d in ("x", "y") for i in (0, -1))
        raise OutsideFrameError(
            f"{frame_name(path)} has x from {x0} to {x1} and y from {y0} to {y1}; the position lies off it"
        )
    return image


def _kept(found: xr.Dataset | xr.DataTree, out: str, overwrite: bool) -> Path:
    if suffix(out, (*IMAGES, *FIGURES)) not in FIGURES:
        return write(found, out, IMAGES, overwrite=overwrite)
    what: Any = found["sci"] if isinstance(found, xr.Dataset) else found
    return save_figure(plots().show(what), out, overwrite=overwrite)


# ---- view -----------------------------------------------------------------------------------------------------------


@command("view")
@click.argument("files", nargs=-1, required=True, metavar="FILES...", help="A store, frames, or patterns of them.")
@camera_option
@click.option("--catalog", "catalogs", multiple=True, metavar="FILE", help="Positions to draw; as often as you like.")
@click.option("--port", type=click.IntRange(0, 65535), default=0, show_default="any", help="Of this machine alone.")
@click.option("--browser/--no-browser", default=True, help="Open one, or only print the address.")
def view(files: Sequence[str], camera: str | None, catalogs: Sequence[str], port: int, browser: bool) -> Reply:
    """Images and light curves in a browser, linked.

    It runs until Ctrl-C. Click a point of a light curve to see its images, kernel and verdict.
    """
    from ztfxr.viewer import view as start

    viewer = start(
        files[0] if len(files) == 1 else list(files),
        camera=camera,
        catalogs={name: read_catalog(name) for name in catalogs},
        port=port,
        browser=browser,
    )
    if viewer is not None:
        click.echo(f"viewer at {viewer.url}; Ctrl-C ends it", err=True)
        viewer.wait()
    return Reply([], {})
