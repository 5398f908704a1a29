"""``ztfxr lightcurve``, ``survey``, ``alerts``: from frames or packets to light curves."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rich_click as click
import xarray as xr

from ztfxr.cli._base import Reply, command
from ztfxr.cli._inputs import align_option, camera_option, mask_option, paths_of, position_options, positions_of
from ztfxr.cli._outputs import FIGURES, STORES, TABLES, check_outputs, out_option, plots, save_figure, suffix, write
from ztfxr.cli._programs import finished, recipes
from ztfxr.cli.jobs import run_job, summary_data
from ztfxr.errors import InputError
from ztfxr.io.cameras import camera_of
from ztfxr.io.remote import is_url
from ztfxr.pipeline import Job
from ztfxr.schema import plane_names
from ztfxr.store.zarr import open_zarr

__all__ = ["Outputs", "alerts", "curve_outputs", "lightcurve", "survey"]

_KINDS = tuple(dict.fromkeys((*STORES, *TABLES, *FIGURES)))
_CUT, _MARGIN = 512, 100.0
_FEW = 24
_ROWS = 12
_CURVES = """Light curves at fixed positions, on frames less a reference.

\b
ztfxr lightcurve 'night/*sciimg*' --ra 57.9 --dec 35.8 --reference ref.fits
ztfxr lightcurve frames/ --positions targets.ecsv --psf --out lc

Every frame has a row in the result, whatever happened to it, and its status says what. Running the same command again
measures new frames only.
"""


curve_outputs = out_option(
    "Store (.zarr), table (.csv .ecsv .parquet .fits) or figure (.png .pdf .svg); may be repeated. A name without "
    "extension gives one of each [default: lightcurve].",
    multiple=True,
)
"""The options that `Outputs` takes apart."""


@command("lightcurve", help=_CURVES)
@click.argument("frames", nargs=-1, required=True, metavar="FRAMES...", help="Files, 'patterns', a folder, or URLs.")
@position_options
@click.option(
    "--reference", metavar="FILE", help="What to subtract: a FITS image or a store [default: made of the best frames]."
)
@click.option("--filter", "band", metavar="NAME", help="The filter to make the reference of, where there are several.")
@click.option("--radius", type=float, metavar="PX", help="Radius of the aperture [default: 5].")
@click.option("--psf", is_flag=True, help="Forced PSF fits in place of sums in an aperture.")
@click.option(
    "--size",
    type=click.IntRange(0),
    metavar="PX",
    help=f"Side of the cut-out around the positions; 0 for whole frames [default: {_CUT} where it holds them].",
)
@align_option
@camera_option
@mask_option
@click.option("--workers", type=click.IntRange(1), metavar="N", help="Processes [default: 1 for few frames].")
@curve_outputs
def lightcurve(**given: Any) -> Reply:
    """`_CURVES` says what it does."""
    places = positions_of(*(given[name] for name in ("ra", "dec", "x", "y", "positions")))
    if places is None:
        raise click.UsageError("say where to measure: --ra and --dec, --x and --y, or --positions TABLE")
    if given["psf"] and given["radius"] is not None:
        raise click.UsageError("--radius is that of an aperture; with --psf it would have no effect")
    outputs = Outputs.of(given["out"])
    outputs.check(overwrite=given["overwrite"])
    job = _job(given, places)
    workers = given["workers"] or (1 if len(job.paths()) < _FEW else None)
    with tempfile.TemporaryDirectory(prefix="ztfxr-") as scratch:
        store = Path(outputs.store or Path(scratch) / "run.zarr")
        found = run_job(job, store, workers=workers)
        tree = open_zarr(store)
        assert isinstance(tree, xr.DataTree)
        lc = tree["lightcurve"].to_dataset().load()
    written = outputs.write(lc)
    cut = {} if job.cutout is None else {"cutout": dict(job.cutout)}
    return Reply(list(_lines(lc, job)), summary_data(found) | cut | _data(lc), written)


@dataclass(frozen=True)
class Outputs:
    """Where the store, the tables and the figures go."""

    store: str | None
    tables: tuple[str, ...]
    figures: tuple[str, ...]

    @classmethod
    def of(cls, out: Sequence[str]) -> Outputs:
        """What ``--out`` names; a name without extension stands for a store, a table and a figure."""
        names = [each for name in out or ("lightcurve",) for each in _spelled_out(name)]
        stores = [name for name in names if suffix(name, _KINDS) == ".zarr"]
        figures = tuple(name for name in names if suffix(name, _KINDS) in FIGURES)
        if len(stores) > 1:
            raise click.UsageError(f"--out names {len(stores)} stores; a run has one")
        tables = tuple(name for name in names if name not in (*stores, *figures))
        return cls(stores[0] if stores else None, tables, figures)

    def check(self, *, overwrite: bool) -> None:
        """Refuse what cannot be written; a store is continued, and what was made of it is made anew with it."""
        continued = self.store is not None and Path(self.store).exists()
        if continued and overwrite:
            raise InputError(
                f"{self.store} exists, and a run continues it: remove it first, or name another with --out"
            )
        check_outputs([*self.tables, *self.figures], _KINDS, overwrite=overwrite or continued)

    def write(self, lc: xr.Dataset) -> list[Path]:
        """Write the tables and the figures of a light curve; all that is there then, the store first."""
        written = [Path(self.store)] if self.store else []
        written += [write(lc, path, TABLES, overwrite=True) for path in self.tables]
        return written + [_drawn(lc, path) for path in self.figures]


def _spelled_out(name: str) -> list[str]:
    return [name] if Path(name).suffix else [f"{name}{each}" for each in (".zarr", ".ecsv", ".png")]


def _job(given: dict[str, Any], places: dict[str, Any]) -> Job:
    paths = _without_reference(paths_of(given["frames"]), given["reference"])
    photometry: dict[str, Any] = {"method": "psf"} if given["psf"] else {"radius": given["radius"] or 5.0}
    build = {} if given["band"] is None else {"filter": given["band"]}
    return Job(
        frames=tuple(paths),
        positions=places,
        reference=given["reference"] or {"build": build},
        cutout=_cutout(places, given["size"]),
        align=None if given["align"] == "none" else given["align"],
        mask=given["mask"],
        photometry=photometry,
        camera=camera_of(paths, given["camera"]),
    )


def _without_reference(paths: list[str], reference: str | None) -> list[str]:
    """The frames but the reference, which a pattern may match too."""
    own = None if reference is None or is_url(reference) else Path(reference).resolve()
    frames = [path for path in paths if is_url(path) or Path(path).resolve() != own]
    if not frames:
        raise InputError(f"the only frame is the reference itself, {reference}; name the frames to subtract it from")
    return frames


def _cutout(places: dict[str, Any], size: int | None) -> dict[str, Any] | None:
    """The cut-out around the middle of the positions; None for whole frames."""
    names = ("ra", "dec") if "ra" in places else ("x", "y")
    first, second = (np.asarray(places[name], dtype=np.float64) for name in names)
    # Hardly any pixel of a survey is smaller than this, in degrees; right ascensions may pass 0.
    scale = 1.0 if names[0] == "x" else 1.0 / 3600.0
    if names[0] == "ra":
        first = first[0] + (first - first[0] + 180.0) % 360.0 - 180.0
    narrow = np.cos(np.radians(second.mean())) if names[0] == "ra" else 1.0
    spread = max(float(np.ptp(first)) * narrow, float(np.ptp(second))) / scale
    if size == 0 or (size is None and not spread + 2 * _MARGIN <= _CUT):
        return None
    middle = ((first.min() + first.max()) / 2, (second.min() + second.max()) / 2)
    return {**{name: float(value) for name, value in zip(names, middle, strict=True)}, "size": size or _CUT}


def _flux(lc: xr.Dataset) -> str:
    return "flux_ujy" if "flux_ujy" in lc and bool(np.isfinite(lc["flux_ujy"]).any()) else "flux"


def _drawn(lc: xr.Dataset, path: str) -> Path:
    """Write the figure of a light curve."""
    source = None if 1 < lc.sizes["source"] <= 8 else 0
    axes = plots().plot_lightcurve(lc, source=source, flux=_flux(lc))
    return save_figure(axes, path, overwrite=True)


def _lines(lc: xr.Dataset, job: Job) -> list[str]:
    """A row per epoch of one source, or per source."""
    flux = _flux(lc)
    unit = lc[flux].attrs.get("units", "")
    where = "whole frames" if job.cutout is None else f"a cut-out of {job.cutout['size']} px around the positions"
    lines = [f"{lc.sizes['time']} epochs, {lc.sizes['source']} positions, on {where}"]
    if lc.sizes["source"] > 1:
        return [*lines, *_source_rows(lc, flux, unit)]
    one = lc.isel(source=0)
    lines.append(f"{'date (UTC)':19s} {f'flux ({unit})':>14s} {'error':>10s}  status")
    for i in range(min(one.sizes["time"], 400)):
        value, error = float(one[flux][i]), float(one[f"{flux}_err"][i])
        note = _status(one, i)
        lines.append(f"{str(one['time'].values[i])[:19]:19s} {value:14.2f} {error:10.2f}  {note}".rstrip())
    return lines


def _source_rows(lc: xr.Dataset, flux: str, unit: str) -> list[str]:
    lines = [f"{'source':>10s} {'good':>6s} {f'median ({unit})':>14s} {'scatter':>10s} {'error':>10s}"]
    names = lc["source_id"].values if "source_id" in lc.coords else np.arange(lc.sizes["source"])
    for i in range(min(lc.sizes["source"], _ROWS)):
        value, error = lc[flux].values[:, i], lc[f"{flux}_err"].values[:, i]
        good = np.isfinite(value) & (_bits(lc)[:, i] == 0)
        numbers = [np.median(a[good]) if good.any() else np.nan for a in (value, error)]
        scatter = np.std(value[good]) if good.any() else np.nan
        lines.append(f"{names[i]!s:>10s} {good.sum():6d} {numbers[0]:14.2f} {scatter:10.2f} {numbers[1]:10.2f}")
    return [*lines, *(["..."] if lc.sizes["source"] > _ROWS else [])]


def _bits(lc: xr.Dataset) -> Any:
    """The status of every measurement, that of its epoch with it."""
    bits = lc["status"].values.astype(np.int64)
    epoch = lc["epoch_status"].values.astype(np.int64) if "epoch_status" in lc else np.zeros(len(bits), np.int64)
    return bits | epoch.reshape(epoch.shape + (1,) * (bits.ndim - epoch.ndim))


def _status(one: xr.Dataset, i: int) -> str:
    return " ".join(plane_names(int(_bits(one)[i])))


def _data(lc: xr.Dataset) -> dict[str, Any]:
    names = ("flux", "flux_err", "flux_ujy", "flux_ujy_err", "status", "epoch_status")
    known = {name: lc[name].values for name in names if name in lc}
    where = {name: lc[name].values for name in ("ra", "dec", "x_pixel", "y_pixel", "source_id") if name in lc.coords}
    return {"light_curve": {"time": lc["time"].values, "mjd": lc["mjd"].values, **known}, "sources": where}


# ---- programs -------------------------------------------------------------------------------------------------------


@command("survey")
@click.argument(
    "frames", nargs=-1, required=True, metavar="FRAMES...", help="Frames of one field: files, a folder, ..."
)
@click.option("--camera", default="fits", show_default=True, help="The camera that took them, by name.")
@click.option("--saturate", type=float, metavar="DN", help="Saturation [default: the camera's, or 60000].")
@click.option("--seeing", metavar="CARD", help="Header card of the seeing [default: the camera's].")
@click.option(
    "--photometry",
    type=click.Choice(["aperture", "psf"]),
    metavar="HOW",
    default="psf",
    help="psf (default) or aperture.",
)
@click.option("--out", metavar="DIR", default="ztfxr-survey", show_default=True, help="Folder to write to.")
def survey(
    frames: Sequence[str], camera: str, saturate: float | None, seeing: str | None, photometry: str, out: str
) -> Reply:
    """The variable stars of a field, from frames of any camera.

    Frames need neither WCS nor alignment: they are registered by their stars, a reference is made of the best, all
    stars are measured on the differences and ranked. The folder gets the store field.zarr, the table variables.ecsv
    and two figures of the first star.
    """
    level = 60000.0 if saturate is None and camera == "fits" else saturate
    cards = {k: v for k, v in (("saturate", level), ("seeing", seeing)) if v is not None}
    how = {"photometry": photometry, "camera": camera}
    found = recipes().run_field(paths_of(frames), Path(out), **how, **cards)
    return finished(found, write(found.result, str(Path(out) / "variables.ecsv"), TABLES, overwrite=True))


@command("alerts")
@click.argument("packets", metavar="PACKETS", help="A folder of ZTF alert packets (*.avro) of one object.")
@click.option("--out", metavar="DIR", default="ztfxr-alerts", show_default=True, help="Folder to write to.")
def alerts(packets: str, out: str) -> Reply:
    """Light curves of alert packets beside the packets' own.

    The folder gets the store lightcurve.zarr, the table lightcurve.ecsv of the filter with most epochs, and figures.
    """
    found = recipes().run_alerts(packets, Path(out))
    return finished(found, write(found.result, str(Path(out) / "lightcurve.ecsv"), TABLES, overwrite=True))
