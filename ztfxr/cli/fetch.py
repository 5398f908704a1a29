"""``ztfxr fetch``: from a position to its light curve, out of ZTF's archive."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import rich_click as click

from ztfxr.archive import Addresses, Archive, Quality, lightcurve
from ztfxr.cli._base import Reply, command
from ztfxr.cli._inputs import positions_of
from ztfxr.cli.curves import Outputs, curve_outputs

__all__ = ["fetch"]

_HELP = """The light curve of a position, out of ZTF's archive.

\b
ztfxr fetch --ra 210.802 --dec 54.349 --filter r --since 2023-05-01 --out sn
IRSA_USER=... IRSA_PASSWORD=... ztfxr fetch --ra 14:03:12.5 --dec +54:20:56 --out sn

Cut-outs of the science images, their masks and the reference are fetched, subtracted and measured. The same command
again fetches and measures what is new. A log-in is taken from the environment or from ~/.netrc; public data need none.
"""


@command("fetch", help=_HELP)
@click.option("--ra", multiple=True, required=True, metavar="RA", help="Degrees, or hours as 03:51:36.")
@click.option("--dec", multiple=True, required=True, metavar="DEC", help="Degrees, or parts as +35:48:00.")
@click.option("--filter", "band", type=click.Choice(["g", "r", "i"]), default="r", help="The filter [default: r].")
@click.option("--since", metavar="DATE", help="First date, such as 2023-05-01, or MJD.")
@click.option("--until", metavar="DATE", help="Last date.")
@click.option("--field", type=int, metavar="N", help="The field [default: the one with the most exposures].")
@click.option("--size", type=click.IntRange(21), default=257, metavar="PX", help="Side of the cut-out [default: 257].")
@click.option("--max-seeing", type=float, metavar="ARCSEC", help="Only exposures as sharp as this.")
@click.option("--min-maglimit", type=float, metavar="MAG", help="Only exposures as deep as this.")
@click.option(
    "--reference",
    type=click.Choice(["archive", "build"]),
    default="archive",
    help="ZTF's reference image, or one made of the best epochs [default: archive].",
)
@click.option("--psf", is_flag=True, help="Forced PSF fits in place of sums in an aperture.")
@click.option("--data", metavar="DIR", type=Path, help="Where files are kept [default: $ZTFDATA, else Data].")
@click.option("--offline", is_flag=True, help="Ask nothing; use what is kept.")
@click.option("--server", metavar="URL", help="Another archive with IRSA's paths, such as a test's.")
@curve_outputs
def fetch(**given: Any) -> Reply:
    """`_HELP` says what it does."""
    places = positions_of(given["ra"], given["dec"], (), (), None)
    if places is None or len(places["ra"]) != 1:
        raise click.UsageError("fetch takes one position: --ra and --dec once")
    outputs = Outputs.of(given["out"])
    if outputs.store is None:
        raise click.UsageError("--out names a store (.zarr), which the next call continues, or has no extension")
    outputs.check(overwrite=given["overwrite"])
    lc = lightcurve(
        (float(places["ra"][0]), float(places["dec"][0])),
        outputs.store,
        filter=given["band"],
        time=(_date(given["since"]), _date(given["until"])),
        field=given["field"],
        size=given["size"] | 1,
        reference=given["reference"],
        quality=Quality(max_seeing=given["max_seeing"], min_maglimit=given["min_maglimit"]),
        photometry={"method": "psf"} if given["psf"] else None,
        archive=_archive(given),
    )
    return Reply(_lines(lc), _data(lc), outputs.write(lc))


def _archive(given: dict[str, Any]) -> Archive:
    how: dict[str, Any] = {"offline": given["offline"]}
    how |= {"root": given["data"]} if given["data"] else {}
    how |= {"addresses": Addresses.at(given["server"])} if given["server"] else {}
    return Archive(**how)


def _date(text: str | None) -> float | str | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return text


def _data(lc: Any) -> dict[str, Any]:
    about = {name: lc.attrs[name] for name in ("access", "quadrant", "requests", "bytes", "measured", "left_out")}
    one = lc.isel(source=0)
    columns = {name: one[name].values for name in ("mjd", "flux_ujy", "flux_ujy_err", "status")}
    return about | {"epochs": lc.sizes["time"], "light_curve": columns}


def _lines(lc: Any) -> list[str]:
    about = lc.attrs
    good = int(np.isfinite(lc["flux_ujy"].values).sum())
    lines = [
        f"{about['quadrant']}; {about['access']}",
        f"{about['requests']} requests, {about['bytes'] / 1e6:.1f} MB, {about['measured']} epochs measured now",
        f"{lc.sizes['time']} epochs in all, {good} with a flux",
    ]
    return lines + ([f"left out: {about['left_out']}"] if about["left_out"] else [])
