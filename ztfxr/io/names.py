"""The naming scheme of ZTF files."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from ztfxr.io.remote import Location, exists, file_name

__all__ = ["SUFFIXES", "QuadrantName", "find_mask", "parse_name", "suffix_of"]

_PATTERN = re.compile(
    r"ztf_(?P<filefracday>\d{14})_(?P<field>\d{6})_(?P<filter>z[gri])_c(?P<ccdid>\d{2})_(?P<kind>[a-z])"
    r"(?:_q(?P<qid>[1-4]))?"
)
SUFFIXES = (".fits", ".fits.gz", ".fits.fz")
"""How names of FITS files end: plain, gzipped, tile-compressed."""


@dataclass(frozen=True)
class QuadrantName:
    """What a ZTF file name says; the time is deliberately not taken from it."""

    filefracday: int
    field: int
    filter: str
    ccdid: int
    qid: int | None


def parse_name(name: str) -> QuadrantName | None:
    """The parts of a ZTF file name, or None where it is not one."""
    found = _PATTERN.search(name)
    if found is None:
        return None
    qid = found["qid"]
    return QuadrantName(
        filefracday=int(found["filefracday"]),
        field=int(found["field"]),
        filter=f"ztf{found['filter'][1]}",
        ccdid=int(found["ccdid"]),
        qid=int(qid) if qid else None,
    )


def suffix_of(name: str) -> str:
    """The one of `SUFFIXES` that a name has; empty where it has none."""
    return next((suffix for suffix in SUFFIXES if name.endswith(suffix)), "")


def find_mask(path: Location) -> Location | None:
    """The mask image beside a science image, compressed the same way or not; None where there is none.

    Of a URL the query is kept: the mask of a cut-out is the same cut-out.
    """
    name = file_name(path)
    if "sciimg" not in name:
        return None
    own = suffix_of(name)
    stem = name.removesuffix(own).replace("sciimg", "mskimg")
    for suffix in dict.fromkeys((own, *SUFFIXES)):
        candidate = _beside(path, name, stem + suffix)
        if suffix and exists(candidate):
            return candidate
    return None


def _beside(path: Location, name: str, other: str) -> Location:
    if isinstance(path, Path):
        return path.with_name(other)
    address, mark, query = path.partition("?")
    return address.removesuffix(name) + other + mark + query
