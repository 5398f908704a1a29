"""``ztfxr export``: what a store or file holds, in another format."""

from __future__ import annotations

from typing import Any

import rich_click as click
import xarray as xr

from ztfxr.cli._base import Reply, command
from ztfxr.cli._inputs import camera_option, open_any
from ztfxr.cli._outputs import IMAGES, TABLES, check_outputs, out_option, suffix, write
from ztfxr.errors import InputError
from ztfxr.photometry.magnitudes import magnitudes

__all__ = ["export"]

_KNOWN = tuple(dict.fromkeys((*TABLES, *IMAGES)))


@command("export")
@click.argument(
    "source", metavar="SOURCE", help="A store, a frame, alert packets, a table, or a service's light curve."
)
@click.option("--group", metavar="NAME", help="Which part of a store [default: the light curve, or the only one].")
@click.option("--magnitudes", "as_mag", is_flag=True, help="Add AB magnitudes and limits to a light curve.")
@camera_option
@out_option("Table (.csv .ecsv .parquet .fits .reg), image (.fits .fits.gz) or store (.zarr .zarr.zip).")
def export(source: str, group: str | None, as_mag: bool, camera: str | None, out: str | None, overwrite: bool) -> Reply:
    """A light curve, catalog or image in another format."""
    if out is None:
        raise click.UsageError(f"--out is needed: its extension decides the format, and is one of {' '.join(_KNOWN)}")
    check_outputs([out], _KNOWN, overwrite=overwrite)
    found = _part(open_any(source, camera), group)
    if as_mag:
        if "flux_ujy" not in found:
            raise InputError("no magnitudes: the light curve has no calibrated flux_ujy; leave out --magnitudes")
        found = magnitudes(found, flux="flux_ujy")
    how = IMAGES if {"y", "x"} <= set(found.sizes) else TABLES
    kind = suffix(out, _KNOWN)
    if kind not in how:
        what = "images" if how is IMAGES else "a table"
        raise InputError(f"{kind} does not hold {what}; name --out with one of {' '.join(how)}")
    path = write(found, out, how, overwrite=overwrite)
    return Reply([], {"sizes": dict(found.sizes), "variables": [str(name) for name in found.data_vars]}, [path])


def _part(found: xr.Dataset | xr.DataTree, group: str | None) -> xr.Dataset:
    if isinstance(found, xr.Dataset):
        if group is not None:
            raise InputError("there are no groups in it; leave out --group")
        return found
    groups: dict[str, Any] = {node.path.strip("/"): node for node in found.subtree if node.data_vars}
    for name in [group] if group is not None else ["lightcurve", *(groups if len(groups) == 1 else ())]:
        if name in groups:
            return groups[name].to_dataset()  # type: ignore[no-any-return]
    asked = "say which with --group" if group is None else f"there is no group {group!r}"
    raise InputError(f"{asked}; the groups are {', '.join(groups)}")
