"""``ztfxr difference``: one frame less a reference."""

from __future__ import annotations

from typing import Any

import rich_click as click
import xarray as xr

from ztfxr.cli._base import Reply, command, plain
from ztfxr.cli._inputs import (
    align_option,
    camera_option,
    mask_option,
    one_place,
    open_image,
    position_options,
    positions_of,
)
from ztfxr.cli._outputs import FIGURES, IMAGES, check_outputs, out_option, plots, save_figure, suffix, write
from ztfxr.dia.difference import difference as subtract
from ztfxr.ops.stacks.align import align as to_grid
from ztfxr.ops.stamps import stamp
from ztfxr.schema import EPOCH_QUALITY, plane_names

__all__ = ["difference"]

_SHOWN = ("kernel_sum", "kernel_sum_err", "chi2", "noise_ratio", "lost_fraction")


@command("difference")
@click.argument("science", metavar="SCIENCE", help="The frame to subtract from.")
@click.argument("reference", metavar="REFERENCE", help="What to subtract: a frame, or a store with a reference.")
@position_options
@click.option("--size", type=click.IntRange(1), metavar="PX", help="Side of a cut-out around a position.")
@align_option
@click.option("--kernel-size", type=click.IntRange(3), metavar="PX", help="Side of the kernel, odd [default: found].")
@camera_option
@mask_option
@out_option(
    "Image (.fits .fits.gz), all results (.zarr .zarr.zip) or a figure (.png .pdf .svg); may be repeated.",
    multiple=True,
)
def difference(
    science: str, reference: str, size: int | None, align: str, kernel_size: int | None, **given: Any
) -> Reply:
    """A frame less a reference, matched in PSF, flux and sky.

    The numbers of the solution are printed, with a status that says when not to believe it. Positions are left out of
    the solution, which a new star would bend.
    """
    outs, overwrite = given["out"] or ("difference.fits",), given["overwrite"]
    check_outputs(outs, (*IMAGES, *FIGURES), overwrite=overwrite)
    places = positions_of(*(given[name] for name in ("ra", "dec", "x", "y", "positions")))
    if size is not None and places is None:
        raise click.UsageError("--size is that of a cut-out around a position: give --ra and --dec, or --x and --y")
    target, base = (open_image(path, given["camera"], mask=given["mask"]) for path in (science, reference))
    if size is not None and places is not None:
        base = stamp(base, size=size, boundary="trim", **one_place(places, "--size needs one position"))
    how: Any = align
    aligned = _cut_like(target, base) if align == "none" else to_grid(target, to=base, method=how)
    found = subtract(aligned, base, exclude=places, kernel_size=kernel_size).compute()
    numbers = {str(name): found[name].values for name in EPOCH_QUALITY if name in found and found[name].ndim == 0}
    status = plane_names(int(numbers["epoch_status"]))
    lines = [f"{name:16s} {float(numbers[name]):.4f}" for name in _SHOWN if name in numbers]
    lines.append(f"{'status':16s} {' '.join(status) or 'good'}")
    outputs = [_written(found, path, overwrite) for path in outs]
    return Reply(lines, {"status": status, **plain(numbers)}, outputs)


def _cut_like(target: xr.Dataset, base: xr.Dataset) -> xr.Dataset:
    """The pixels of the frame that the reference has."""
    return target.sel({d: slice(int(base[d][0]), int(base[d][-1])) for d in ("y", "x")})


def _written(found: xr.Dataset, path: str, overwrite: bool) -> Any:
    kind = suffix(path, (*IMAGES, *FIGURES))
    if kind in FIGURES:
        return save_figure(plots().plot_difference(found), path, overwrite=overwrite)
    if kind.startswith(".fits"):
        images = [name for name in ("difference", "difference_variance", "mask") if name in found]
        return write(found[images], path, IMAGES, overwrite=overwrite)
    return write(found, path, IMAGES, overwrite=overwrite)
