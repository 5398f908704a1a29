"""What the archive has: by position, field, time, filter and quality, as rows with the paths of their files."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, TypeAlias, get_args
from urllib.parse import urlencode

import numpy as np
import xarray as xr

from ztfxr.archive.rows import AUTHORIZED, Family, Kind, as_rows, read_csv
from ztfxr.archive.settings import Archive
from ztfxr.archive.web import Client
from ztfxr.arrays.types import Floats
from ztfxr.errors import ArchiveError, InputError
from ztfxr.io.names import FILTER_IDS
from ztfxr.io.times import JD_OF_MJD, to_mjd
from ztfxr.ops.positions import Positions, position_columns
from ztfxr.store._files import new_file

__all__ = ["Quality", "ask", "conditions", "degrees", "finished", "many_degrees", "search"]

Intersect = Literal["overlaps", "covers", "enclosed", "center", "nearest"]
Several: TypeAlias = int | Iterable[int] | None

_COLUMN = re.compile(r"[a-z][a-z0-9_]*")


@dataclass(frozen=True)
class Quality:
    """What an exposure must be to be chosen; None asks nothing.

    Parameters
    ----------
    max_seeing
        FWHM in arcsec.
    min_maglimit
        Limiting magnitude.
    max_airmass
        Airmass.
    good
        Leave out exposures that the archive calls bad (bit 25 of `infobits`, which no file has).
    """

    max_seeing: float | None = None
    min_maglimit: float | None = None
    max_airmass: float | None = None
    good: bool = True


def search(
    position: Positions | None = None,
    *,
    kind: Kind = "science",
    size: float = 0.0,
    field: Several = None,
    rcid: Several = None,
    filter: str | Iterable[str] | None = None,  # noqa: A002
    time: tuple[Any, Any] | None = None,
    quality: Quality | None = None,
    where: str | None = None,
    columns: Sequence[str] | None = None,
    intersect: Intersect = "overlaps",
    archive: Archive | None = None,
) -> xr.Dataset:
    """The products of ZTF's archive that fit, a row each. Computes: asks the archive, unless that is offline.

    Parameters
    ----------
    position
        RA and Dec in degrees (ICRS), a `SkyCoord` or text; one position. `search_table` asks for many.
    kind
        ``"science"``, ``"difference"``, ``"reference"``, ``"deep"``, ``"raw"`` or ``"calibration"``.
    size
        Side in degrees of a box around the position; 0 for the point.
    field, rcid
        Fields, and quadrants of the focal plane (0 to 63): one or several.
    filter
        g, r, i, or several; names such as ``"ztfg"`` and ``"zg"`` do, too.
    time
        First and last start of an exposure: MJD, `datetime64`, or text such as ``"2018-07-05"``; None is open.
    quality
        What an exposure must be; by default not one that the archive calls bad.
    where
        A further condition on columns, in SQL.
    columns
        Columns to get; by default all, and always those that make names.
    intersect
        What the image has to do with the box: it ``"overlaps"``, ``"covers"`` it, is ``"enclosed"``, has it
        at its ``"center"``; ``"nearest"`` is the one image that is best centered on the point.
    archive
        How to ask; by default as `Archive` says.

    Returns
    -------
    xarray.Dataset
        On `row`, in order of time: the archive's columns under its names (`seeing` in arcsec, `obsjd` the start of the
        exposure), and `name`, `path` of the file, `filter`, `mjd` at mid-exposure, `bad`; where a position was given
        also `x`, `y`, its place on the image by the linear WCS, in 0-based pixels, good to about a pixel. NaN, -1 and
        "" are unknown. ``attrs["access"]`` says whether only public rows were asked for.

    Raises
    ------
    InputError
        Nothing is asked for, or in a form that cannot be understood.
    ArchiveError
        No usable answer; offline, a question that was not asked before.

    Examples
    --------
    >>> import ztfxr
    >>> rows = ztfxr.archive.search((110.1, 32.5), filter="r", time=("2018-07-01", None))  # doctest: +SKIP
    >>> rows[["name", "seeing"]].to_pandas()  # doctest: +SKIP
    """
    archive, family, quality = archive or Archive(), Family.of(kind), quality or Quality()
    place = None if position is None else degrees(position)
    asked = family.conditions() + conditions(family, field=field, rcid=rcid, filter_=filter, time=time, quality=quality)
    asked += [f"({where})"] if where else []
    if place is None and not asked[len(family.conditions()) :]:
        raise InputError("say what to search for: a position, field=, rcid=, time=, or where=")
    fields = _region(place, size, intersect) | _columns(family, columns)
    fields |= {"WHERE": " AND ".join(asked)} if asked else {}
    text, when = ask(archive, f"{archive.addresses.search}/{family.folder}", {**fields, "ct": "csv"})
    rows = as_rows(read_csv(text, family), family, place)
    return finished(rows, archive, quality, asked=urlencode(fields), asked_at=when, kind=kind)


def finished(rows: xr.Dataset, archive: Archive, quality: Quality, **about: str) -> xr.Dataset:
    """Rows without those that the archive calls bad, and who may see them."""
    if quality.good and "bad" in rows:
        rows = rows.isel(row=np.flatnonzero(~rows["bad"].values))
    return rows.assign_attrs(access=_access(rows, archive), **about)


def ask(archive: Archive, url: str, fields: Mapping[str, str], *, table: str = "") -> tuple[bytes, str]:
    """The archive's answer to a question, and when it was given; kept, for later and for when the archive is offline.

    With `table`, a VOTable that goes along, the question is a form.

    Raises
    ------
    ArchiveError
        No answer, or one that says what was wrong with the question.
    """
    query = urlencode(sorted(fields.items()))
    audience = "all" if archive.who else "public"
    digest = hashlib.sha256(f"{url}?{query} {audience} {table}".encode()).hexdigest()[:32]
    kept = archive.root / ".ztfxr" / "answers" / f"{digest}.csv"
    if kept.is_file():
        written = datetime.fromtimestamp(kept.stat().st_mtime, UTC)
        if archive.offline or datetime.now(UTC) - written < timedelta(hours=archive.answers_hours):
            return kept.read_bytes(), written.isoformat(timespec="seconds")
    if archive.offline:
        raise ArchiveError(f"offline, and this was not asked before: {query}; ask it once with a connection")
    with Client(archive) as client:
        files = {"file": ("targets.xml", table)} if table else None
        answer = client.ask(url, fields, login=archive.login_for(url), method="POST" if table else "GET", files=files)
    _refuse_errors(answer.status, answer.body, query)
    kept.parent.mkdir(parents=True, exist_ok=True)
    with new_file(kept, overwrite=True) as path:
        path.write_bytes(answer.body)
    return answer.body, datetime.now(UTC).isoformat(timespec="seconds")


def degrees(position: Any) -> tuple[float, float]:
    """RA and Dec in degrees of one position; `InputError` for none, for several, and for one beyond a pole."""
    if isinstance(position, Sequence) and len(position) == 2 and all(isinstance(v, int | float) for v in position):
        found = {"ra": np.array([position[0]], float), "dec": np.array([position[1]], float)}
    else:
        found = position_columns(position)
    if "ra" not in found or found["ra"].size != 1:
        raise InputError("a search has one position on the sky: RA and Dec in degrees; search_table takes several")
    ra, dec = float(found["ra"][0]), float(found["dec"][0])
    if not (np.isfinite(ra) and abs(dec) <= 90):
        raise InputError(f"RA is a number of degrees and Dec lies within 90 of the equator; got {ra}, {dec}")
    return ra % 360.0, dec


def many_degrees(positions: Positions) -> tuple[Floats, Floats]:
    """RA (0 to 360) and Dec in degrees of one position or more; `InputError` for none, or one beyond a pole."""
    columns = position_columns(positions)
    ra, dec = columns.get("ra", columns.get("x")), columns.get("dec", columns.get("y"))
    if ra is None or dec is None or not ra.size or not (np.isfinite(ra).all() and (np.abs(dec) <= 90).all()):
        raise InputError("positions are RA and Dec in degrees, one pair or more")
    return ra % 360.0, dec


def _region(place: tuple[float, float] | None, size: float, intersect: str) -> dict[str, str]:
    if intersect not in get_args(Intersect):
        raise InputError(f"intersect is one of {', '.join(get_args(Intersect))}; got {intersect!r}")
    if place is None:
        return {}
    if not 0 <= size <= 180:
        raise InputError(f"size is a side in degrees; got {size!r}")
    out = {"POS": f"{place[0]:.7f},{place[1]:.7f}"} | ({"SIZE": f"{size:.7f}"} if size else {})
    return out | ({"mcen": ""} if intersect == "nearest" else {"INTERSECT": intersect.upper()})


def _columns(family: Family, columns: Sequence[str] | None) -> dict[str, str]:
    if columns is None:
        return {}
    wrong = [c for c in columns if not _COLUMN.fullmatch(c)]
    if wrong:
        raise InputError(f"columns are names of the archive's; got {wrong[0]!r}")
    return {"COLUMNS": ",".join(dict.fromkeys([*family.needed, *columns]))}


def conditions(
    family: Family,
    *,
    field: Several = None,
    rcid: Several = None,
    filter_: str | Iterable[str] | None = None,
    time: tuple[Any, Any] | None = None,
    quality: Quality,
) -> list[str]:
    """What is asked of columns, in SQL."""
    out = [
        f"{name} IN ({','.join(map(str, v))})" for name, v in (("field", _whole(field)), ("rcid", _whole(rcid))) if v
    ]
    if filter_ is not None:
        out.append(f"fid IN ({','.join(str(_fid(f)) for f in ([filter_] if isinstance(filter_, str) else filter_))})")
    timed = family.folder in ("sci", "raw")
    limits = [("seeing", "<=", quality.max_seeing), ("airmass", "<=", quality.max_airmass)]
    limits += [("maglimit", ">=", quality.min_maglimit)] if family.folder != "raw" else []
    chosen = [f"{name} {sign} {float(value)!r}" for name, sign, value in limits if value is not None]
    if (time is not None or chosen) and not timed:
        raise InputError("only exposures have a time, seeing and airmass: search kind 'science', 'difference' or 'raw'")
    for sign, moment in zip((">=", "<="), time or (None, None), strict=True):
        if moment is not None:
            out.append(f"obsjd {sign} {_jd(moment):.7f}")
    return out + chosen


def _whole(values: Several) -> list[int]:
    try:
        return [] if values is None else [int(v) for v in np.atleast_1d(np.array(list(_listed(values)), dtype=int))]
    except (TypeError, ValueError):
        raise InputError(f"field and rcid are whole numbers, one or several; got {values!r}") from None


def _listed(values: Any) -> Iterable[Any]:
    return values if isinstance(values, Iterable) else [values]


def _fid(name: str) -> int:
    code = "z" + str(name).lower().removeprefix("ztf").lstrip("_").removeprefix("z")
    if code not in FILTER_IDS:
        raise InputError(f"ZTF's filters are g, r, i; got {name!r}")
    return FILTER_IDS[code]


def _jd(moment: Any) -> float:
    try:
        number = isinstance(moment, int | float)
        mjd = float(moment) if number else to_mjd(np.datetime64(moment, "ns"))
    except (TypeError, ValueError):
        raise InputError(f"a time is an MJD, or a date such as '2018-07-05'; got {moment!r}") from None
    if not 0 < mjd < 200000:
        raise InputError(f"times are MJDs, not JDs; got {moment!r}")
    return mjd + JD_OF_MJD


def _access(rows: xr.Dataset, archive: Archive) -> str:
    if archive.who is None:
        return "public rows only: asked without a log-in"
    private = "ipac_gid" in rows and bool((rows["ipac_gid"] > 1).any())
    return AUTHORIZED if private else "public rows only: the log-in opened no others"


def _refuse_errors(status: int, body: bytes, query: str) -> None:
    """`ArchiveError` for an answer that is no table; errors come with a status of 200, too."""
    start = body[:4096].removeprefix(b"\xef\xbb\xbf").lstrip()
    if status == 200 and not start.startswith(b"<"):
        return
    if status in (401, 403):
        raise ArchiveError(f"the archive refuses the log-in ({status}); check the name and the password")
    text = re.sub(rb"<[^>]*>", b" ", body[:65536]).decode("utf-8", "replace")
    said = re.sub(r"\s+", " ", text).strip()[:300] or "nothing"
    raise ArchiveError(f"the archive gives no table (status {status}) for {query}; it says: {said}")
