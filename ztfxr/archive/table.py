"""What the archive has at many positions: one question with a table."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from urllib.parse import urlencode
from xml.sax.saxutils import escape

import numpy as np
import xarray as xr

from ztfxr.archive.rows import SHAPE, Family, Kind, as_rows, pixel_of, place_columns, read_csv
from ztfxr.archive.search import Quality, ask, conditions, finished, many_degrees
from ztfxr.archive.settings import Archive
from ztfxr.arrays.types import Floats
from ztfxr.errors import ArchiveError, InputError
from ztfxr.ops.positions import Positions

__all__ = ["search_table"]

_REACH_DEG = 0.65
"""From the middle of a quadrant to its corners, and a little more."""
_MARGIN = 2.0


def search_table(
    positions: Positions,
    *,
    kind: Kind = "science",
    filter: str | Iterable[str] | None = None,  # noqa: A002
    time: tuple[Any, Any] | None = None,
    quality: Quality | None = None,
    archive: Archive | None = None,
) -> xr.Dataset:
    """The exposures or references at many positions, a row for each position and image. Computes: asks once, by TAP.

    Parameters
    ----------
    positions
        RA and Dec in degrees, as `ztfxr.resolve_positions` takes them: a table, pairs, a `SkyCoord`.
    kind
        ``"science"``, ``"difference"``, ``"reference"`` or ``"deep"``.
    filter, time, quality
        What to choose, as for `search`.
    archive
        How to ask; by default as `Archive` says.

    Returns
    -------
    xarray.Dataset
        As of `search`, with `target`, the number of the position in `positions`; `x`, `y` are its place on the image by
        the linear WCS, and lie within it, or up to two pixels beside it.

    Raises
    ------
    InputError
        No positions on the sky, or a kind whose images have no WCS there.
    ArchiveError
        No usable answer.
    """
    archive, family, quality = archive or Archive(), Family.of(kind), quality or Quality()
    if family.folder not in ("sci", "ref", "deep"):
        raise InputError(f"search_table takes kind 'science', 'difference', 'reference' or 'deep'; got {kind!r}")
    ra, dec = many_degrees(positions)
    near = f"CONTAINS(POINT('ICRS', m.ra, m.dec), CIRCLE('ICRS', t.ra, t.dec, {_REACH_DEG})) = 1"
    chosen = [near, *family.conditions(), *conditions(family, filter_=filter, time=time, quality=quality)]
    query = (
        f"SELECT t.target, m.* FROM ztf.ztf_current_meta_{family.folder} AS m, TAP_UPLOAD.targets AS t "
        f"WHERE {' AND '.join(chosen)}"
    )
    fields = {"REQUEST": "doQuery", "LANG": "ADQL", "FORMAT": "csv", "QUERY": query, "UPLOAD": "targets,param:file"}
    text, when = ask(archive, archive.addresses.tap, fields, table=_votable(ra, dec))
    rows = as_rows(read_csv(text, family), family)
    if "target" not in rows:
        raise ArchiveError("the archive's answer does not say which position each row is of")
    target = rows["target"].values.astype(np.int64)
    if target.size and not (target.min() >= 0 and target.max() < ra.size):
        raise ArchiveError("the archive's answer has rows of positions that were not asked for")
    x, y = pixel_of(rows, ra[target], dec[target])
    there = (np.abs(x - (SHAPE[1] - 1) / 2) < SHAPE[1] / 2 + _MARGIN) & (
        np.abs(y - (SHAPE[0] - 1) / 2) < SHAPE[0] / 2 + _MARGIN
    )
    rows = rows.assign(target=("row", target), **place_columns(x, y)).isel(row=np.flatnonzero(there))
    return finished(rows, archive, quality, asked=urlencode(fields), asked_at=when, kind=kind)


def _votable(ra: Floats, dec: Floats) -> str:
    """The positions as the table that goes along."""
    names = (("target", "int"), ("ra", "double"), ("dec", "double"))
    fields = "".join(f'<FIELD name="{escape(name)}" datatype="{kind}"/>' for name, kind in names)
    cells = "".join(
        f"<TR><TD>{n}</TD><TD>{r:.7f}</TD><TD>{d:.7f}</TD></TR>" for n, (r, d) in enumerate(zip(ra, dec, strict=True))
    )
    return (
        '<?xml version="1.0"?><VOTABLE version="1.4" xmlns="http://www.ivoa.net/xml/VOTable/v1.3"><RESOURCE><TABLE>'
        f"{fields}<DATA><TABLEDATA>{cells}</TABLEDATA></DATA></TABLE></RESOURCE></VOTABLE>"
    )
