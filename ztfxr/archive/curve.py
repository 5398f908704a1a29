"""From a position to its light curve: search, cut-outs, difference, forced photometry, store; and on from there."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import numpy as np
import xarray as xr

from ztfxr.archive.download import download
from ztfxr.archive.search import Quality, degrees, search
from ztfxr.archive.settings import Archive
from ztfxr.errors import ArchiveError, InputError
from ztfxr.io.cameras import ZTF
from ztfxr.io.frames import open_frame
from ztfxr.io.names import parse_product
from ztfxr.ops.positions import Positions
from ztfxr.photometry.calibrate import calibrate_flux
from ztfxr.pipeline import Job, run
from ztfxr.store.zarr import open_zarr, to_zarr

__all__ = ["lightcurve"]

_MARGIN = 20
"""Pixels by which cut-outs of epochs are wider than the reference's on each side: pointings differ."""
_HOURS = 12.0
_log = logging.getLogger(__name__)


def lightcurve(
    position: Positions,
    store: str | PathLike[str],
    *,
    filter: str = "r",  # noqa: A002
    time: tuple[Any, Any] | None = None,
    field: int | None = None,
    size: int = 257,
    reference: Literal["archive", "build"] = "archive",
    quality: Quality | None = None,
    photometry: Mapping[str, Any] | None = None,
    archive: Archive | None = None,
    workers: int = 1,
    **options: Any,
) -> xr.Dataset:
    """The light curve of a position from ZTF's archive, measured on difference images, into a store. Computes.

    Cut-outs of the science images, their masks and the reference are fetched, differenced and measured. Called again,
    it fetches and measures only what is new: nothing, or tomorrow's exposures.

    Parameters
    ----------
    position
        RA and Dec in degrees (ICRS), a `SkyCoord` or text; one position.
    store
        The zarr store of the run, as `ztfxr.pipeline.run` makes it; made, or continued.
    filter
        g, r or i.
    time
        First and last start of an exposure, as for `search`.
    field
        The field to use, of those that have the position; by default the quadrant with the most exposures.
    size
        Side of the reference's cut-out in pixels, odd.
    reference
        ``"archive"``: ZTF's reference image. ``"build"``: a coadd of the best epochs of the first call.
    quality
        What an exposure must be, as for `search`.
    photometry
        As for `ztfxr.pipeline.Job`; by default sums in apertures.
    archive
        How to ask, and where files are kept.
    workers
        Processes that measure; more than one only from a script with ``if __name__ == "__main__":``.
    **options
        Further options of `ztfxr.pipeline.Job`, such as ``difference={"kernel_size": 9}``.

    Returns
    -------
    xarray.Dataset
        On (time, source): `flux`, `flux_err` (DN) with their status, and `flux_ujy`, `flux_ujy_err` as of
        `ztfxr.calibrate_flux`. ``attrs`` say the `access`, the `quadrant`, the `requests` and `bytes` of this call, how
        many epochs were `measured` by it, and which frames were `left_out`, with the reason.

    Raises
    ------
    ArchiveError
        No exposure, no reference, or none of the files that they need.
    InputError
        As of `search` and of `ztfxr.pipeline.Job`.
    StoreError
        The store was begun with other options.
    """
    archive = archive or Archive()
    asked = replace(archive, answers_hours=max(archive.answers_hours, _HOURS))
    ra, dec = degrees(position)
    rows = search((ra, dec), field=field, filter=filter, time=time, quality=quality, archive=asked)
    rows, quadrant = _one_quadrant(rows, (ra, dec), filter)
    fetched = download(rows, ("sciimg.fits", "mskimg.fits"), size=size + 2 * _MARGIN, archive=archive)
    frames, left_out = _frames(fetched)
    counts = [fetched.attrs]
    made: Any = {"build": {"filter": f"ztf{quadrant.filter[-1]}"}}
    if reference == "archive":
        made, count = _reference((ra, dec), quadrant, size, asked)
        counts.append(count)
    elif reference != "build":
        raise InputError(f"reference is 'archive' or 'build'; got {reference!r}")
    job = Job(
        frames=tuple(frames),
        positions={"ra": [ra], "dec": [dec], "source_id": ["target"]},
        reference=made,
        **{"align": "wcs", "photometry": photometry or {"method": "aperture", "radius": 5.0}, **options},
    )
    done = run(job, store, workers=workers, progress=False)
    tree = open_zarr(store)
    assert isinstance(tree, xr.DataTree)
    found = calibrate_flux(tree["lightcurve"].to_dataset()).compute()
    about: dict[str, Any] = {key: sum(int(count[key]) for count in counts) for key in ("requests", "bytes")}
    about |= {"measured": int(done.attrs["run"]), "left_out": left_out, "access": rows.attrs["access"]}
    return found.assign_attrs(about | {"quadrant": f"field {quadrant.field}, rcid {quadrant.rcid}, {quadrant.filter}"})


def _one_quadrant(rows: xr.Dataset, place: tuple[float, float], filter_: str) -> tuple[xr.Dataset, Any]:
    """The rows of the field and quadrant with the most exposures, and a product of it: images of others do not mix."""
    if not rows.sizes["row"]:
        raise ArchiveError(
            f"the archive has no exposure in {filter_} at RA {place[0]:.5f}, Dec {place[1]:.5f}; {rows.attrs['access']}"
        )
    keys, inverse, counts = np.unique(
        np.stack([rows["field"].values, rows["rcid"].values]), axis=1, return_inverse=True, return_counts=True
    )
    best = int(np.argmax(counts))
    if counts.size > 1:
        others = ", ".join(f"field {f} rcid {r} ({n})" for (f, r), n in zip(keys.T, counts, strict=True))
        _log.info("the position is on several quadrants: %s; the one with the most exposures is taken", others)
    chosen = rows.isel(row=np.flatnonzero(np.ravel(inverse) == best))
    return chosen, parse_product(str(chosen["path"].values[0]))


def _frames(fetched: xr.Dataset) -> tuple[list[str], str]:
    """The frames that came with their masks, and what the others lack."""
    good = np.isin(fetched["state"].values, ("ok", "cached"))
    frames, left_out = [], []
    for number in np.unique(fetched["row"].values):
        files = np.flatnonzero(fetched["row"].values == number)
        if good[files].all():
            frames.append(str(fetched["path"].values[files[0]]))
        else:
            bad = int(files[~good[files]][0])
            name, state, reason = (str(fetched[k].values[bad]) for k in ("name", "state", "reason"))
            left_out.append(f"{name}: {state}, {reason}")
    if not frames:
        raise ArchiveError(f"none of the exposures could be fetched; {left_out[0]}")
    return frames, "; ".join(left_out)


def _reference(place: tuple[float, float], quadrant: Any, size: int, archive: Archive) -> tuple[str, dict[str, int]]:
    """The reference's cut-out as a store that a job takes, and what it cost."""
    found = search(
        place, kind="reference", field=quadrant.field, rcid=quadrant.rcid, filter=quadrant.code, archive=archive
    )
    if not found.sizes["row"]:
        raise ArchiveError(
            f"the archive has no reference of field {quadrant.field}, rcid {quadrant.rcid}, {quadrant.filter}; "
            'use reference="build"'
        )
    fetched = download(found.isel(row=slice(0, 1)), size=size, archive=archive)
    state, reason, path = (str(fetched[name].values[0]) for name in ("state", "reason", "path"))
    if state not in ("ok", "cached"):
        raise ArchiveError(f'the reference could not be fetched ({state}: {reason}); use reference="build"')
    kept = Path(path).with_suffix(".zarr")
    if not kept.exists():
        # A reference is a coadd: it has no one time, and no mask beside it.
        to_zarr(open_frame(path, camera=replace(ZTF, required=(), mask=None), mask=False), kept)
    return str(kept), {key: int(fetched.attrs[key]) for key in ("requests", "bytes")}
