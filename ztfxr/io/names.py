"""Names of files: how FITS files end, what a frame is called, which lies beside which; products of ZTF's archive."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import date
from os import PathLike
from pathlib import Path
from typing import Literal, TypeAlias

from ztfxr.errors import InputError
from ztfxr.io.remote import Address, Location, exists, file_name, location, matching, shown
from ztfxr.schema import FILTERS

__all__ = [
    "FILTER_CODES",
    "FILTER_IDS",
    "SUFFIXES",
    "AnyPath",
    "Kind",
    "Product",
    "Window",
    "ccd_and_quadrant",
    "companion",
    "frame_name",
    "frame_paths",
    "parse_product",
    "rcid_of",
    "suffix_of",
]

AnyPath: TypeAlias = str | PathLike[str]

SUFFIXES = (".fits", ".fits.gz", ".fits.fz")
"""How names of FITS files end most often: plain, gzipped, tile-compressed."""

_SUFFIX = re.compile(r"\.(fits?|fts)(\.(gz|fz))?$", re.IGNORECASE)


def suffix_of(name: str) -> str:
    """How the name of a FITS file ends (``.fits``, ``.FITS``, ``.fit.gz``, ...); empty where it is none."""
    found = _SUFFIX.search(name)
    return "" if found is None else found[0]


def frame_name(path: AnyPath) -> str:
    """The name of a frame: its file's, without the suffix that makes it a FITS file."""
    name = file_name(path)
    return name.removesuffix(suffix_of(name))


def frame_paths(paths: AnyPath | Iterable[AnyPath], named: str = "") -> list[AnyPath]:
    """The files that `paths` stand for: themselves, one file, the matches of a pattern, or the frames in a folder.

    Parameters
    ----------
    paths
        Paths or URLs; or one of them, which may be a pattern (``night/*.fits``) or a folder.
    named
        What the names of frames in a folder contain.

    Raises
    ------
    InputError
        There are none.
    """
    found: list[AnyPath]
    if not isinstance(paths, str | PathLike | Iterable):
        raise InputError(f"frames are a path, a pattern, a folder or several paths; got {type(paths).__name__}")
    if paths == "" or not isinstance(paths, str | PathLike):
        found, what = list(paths), "the list of paths is empty"
    elif isinstance(place := location(paths), Path) and place.is_dir():
        files: list[AnyPath] = [each for each in sorted(place.iterdir()) if suffix_of(each.name) and named in each.name]
        found, what = files, f"the folder {place} holds no FITS file{f' named *{named}*' if named else ''}"
    else:
        is_file = isinstance(place, Path) and place.is_file()
        found = [paths] if is_file else list(matching(str(paths)))
        what = f"nothing matches {Address(paths)!r}"
    if not found:
        raise InputError(f"no frames to open: {what}")
    return found


def companion(path: Location, old: str, new: str) -> Location | None:
    """The file beside `path` whose name has `new` for `old`, compressed the same way or not; None where there is none.

    Of a URL the query is kept: the mask of a cut-out is the same cut-out.
    """
    name = file_name(path)
    own = suffix_of(name)
    if old not in name or not own:
        return None
    stem = name.removesuffix(own).replace(old, new)
    for suffix in dict.fromkeys((own, *SUFFIXES)):
        candidate = _beside(path, name, stem + suffix)
        if exists(candidate):
            return candidate
    return None


def _beside(path: Location, name: str, other: str) -> Location:
    if isinstance(path, Path):
        return path.with_name(other)
    address, mark, query = path.partition("?")
    return address.removesuffix(name) + other + mark + query


# ---- products of the archive ----------------------------------------------------------------------------------------

Kind: TypeAlias = Literal["sci", "raw", "cal", "ref", "deep"]
"""The folders of ZTF's archive: science quadrants with what is made of them, raw CCDs, calibration, references."""

FILTER_CODES = {f"z{name[-1]}": name for name in FILTERS.values()}
"""Filters by the two letters of file names."""
FILTER_IDS = {f"z{name[-1]}": number for number, name in FILTERS.items()}
"""Their numbers by the same letters."""

_ENDING = r"(?:fits(?:\.(?:fz|gz))?|psf|txt)"
_WINDOW = r"(?:_x(?P<x>\d{4,})y(?P<y>\d{4,})w(?P<w>\d{3,})h(?P<h>\d{3,}))?"
_CHIP = r"(?P<code>z[gri]|00|OO|bi|dk)_c(?P<ccdid>\d{2})"
_STEM = rf"(?P<stem>[a-z][a-z0-9]*){_WINDOW}\.(?P<ending>{_ENDING})"
_GRAMMAR: Mapping[Kind, str] = {
    "sci": rf"ztf_(?P<when>\d{{14}})_(?P<field>\d{{6}})_{_CHIP}_(?P<type>[a-z])_q(?P<qid>[1-4])_{_STEM}",
    "raw": rf"ztf_(?P<when>\d{{14}})_(?P<field>\d{{6}})_{_CHIP}_(?P<type>[a-z])\.(?P<ending>{_ENDING})",
    "cal": rf"ztf_(?P<when>\d{{8}})_{_CHIP}_q(?P<qid>[1-4])_(?P<caltype>bias|hifreqflat)(?P<stem>unc|log)?"
    rf"\.(?P<ending>{_ENDING})",
    "ref": rf"ztf_(?P<field>\d{{6}})_{_CHIP}_q(?P<qid>[1-4])_{_STEM}",
}
_PRODUCTS = {kind: re.compile(text, re.ASCII) for kind, text in _GRAMMAR.items()}


@dataclass(frozen=True)
class Window:
    """A cut-out: its middle pixel, counted from 1 as FITS does, and its sides in pixels."""

    x: int
    y: int
    width: int
    height: int

    @property
    def label(self) -> str:
        """What names of cut-outs have between stem and suffix."""
        return f"_x{self.x:04d}y{self.y:04d}w{self.width:03d}h{self.height:03d}"


@dataclass(frozen=True)
class Product:
    """A file of ZTF's archive by the parts of its name, from which its name and its path are made.

    Parameters
    ----------
    kind
        Which of the archive's folders it is in.
    when
        The night and fraction of day that name an exposure (14 digits), the night of a calibration (8), or "".
    field
        The field; -1 for calibration.
    code
        The two letters of the filter: zg, zr, zi; others where there is none.
    ccdid, qid
        CCD (1 to 16) and quadrant (1 to 4; 0 for a whole CCD).
    type
        The letter of the exposure's type (o, b, d, f); the word of a calibration's (bias, hifreqflat).
    stem
        What the file is (sciimg, mskimg, refcov, ...).
    ending
        How its name ends, such as fits.fz.
    window
        Of a cut-out.
    """

    kind: Kind
    when: str
    field: int
    code: str
    ccdid: int
    qid: int
    type: str
    stem: str
    ending: str
    window: Window | None = None

    @property
    def name(self) -> str:
        """The name of the file."""
        chip = f"{self.code}_c{self.ccdid:02d}"
        label = "" if self.window is None else self.window.label
        if self.kind == "sci":
            return f"ztf_{self.when}_{self.field:06d}_{chip}_{self.type}_q{self.qid}_{self.stem}{label}.{self.ending}"
        if self.kind == "raw":
            return f"ztf_{self.when}_{self.field:06d}_{chip}_{self.type}.{self.ending}"
        if self.kind == "cal":
            return f"ztf_{self.when}_{chip}_q{self.qid}_{self.type}{self.stem}.{self.ending}"
        return f"ztf_{self.field:06d}_{chip}_q{self.qid}_{self.stem}{label}.{self.ending}"

    @property
    def folder(self) -> str:
        """Where the archive has it, below its root of products."""
        chip = f"{self.code}/ccd{self.ccdid:02d}/q{self.qid}"
        if self.kind in ("sci", "raw"):
            return f"{self.kind}/{self.when[:4]}/{self.when[4:8]}/{self.when[8:]}"
        if self.kind == "cal":
            return f"cal/{self.when[:4]}/{self.when[4:]}/{self.type}/{chip}"
        return f"{self.kind}/{self.field // 1000:03d}/field{self.field:06d}/{chip}"

    @property
    def path(self) -> str:
        """Folder and name; of a cut-out as the cache has it, below ``cutouts/``."""
        return f"{'' if self.window is None else 'cutouts/'}{self.folder}/{self.name}"

    @property
    def whole(self) -> Product:
        """The file that a cut-out is of; itself where it is none."""
        return replace(self, window=None)

    @property
    def rcid(self) -> int:
        """The number of the quadrant on the focal plane, 0 to 63; -1 for a whole CCD."""
        return rcid_of(self.ccdid, self.qid) if self.qid else -1

    @property
    def filter(self) -> str:
        """The filter as ztfxr calls it; "" where there is none."""
        return FILTER_CODES.get(self.code, "")

    def beside(self, suffix: str) -> Product:
        """Another file of the same exposure or reference, such as ``"mskimg.fits"``; `InputError` for no such name."""
        stem, _, ending = suffix.partition(".")
        return parse_product(replace(self, stem=stem, ending=ending, window=None).name, self.kind)

    def cut(self, window: Window) -> Product:
        """A cut-out of it."""
        return replace(self, window=window)


def parse_product(path: AnyPath, kind: str = "") -> Product:
    """The product of ZTF's archive that a name, a path or a URL is of; only the name counts.

    A name of a reference is one of ``deep`` where `kind` or the path says so: both are named alike.

    Raises
    ------
    InputError
        The name is none of the archive's: another form, no such day, CCD or quadrant.

    Examples
    --------
    >>> parse_product("ztf_001735_zg_c01_q2_refimg.fits").path
    'ref/001/field001735/zg/ccd01/q2/ztf_001735_zg_c01_q2_refimg.fits'
    """
    name = file_name(path)
    is_deep = kind == "deep" or re.search(r"(^|/)deep/", shown(path)) is not None
    for found_kind, pattern in _PRODUCTS.items():
        found = pattern.fullmatch(name)
        if found is not None:
            parts = {k: v or "" for k, v in found.groupdict().items()}
            product = _product("deep" if found_kind == "ref" and is_deep else found_kind, parts)
            if 1 <= product.ccdid <= 16 and _is_day(product.when):
                return product
    raise InputError(
        f"{name!r} is no name of ZTF's archive; such are ztf_20180705481609_001735_zg_c01_o_q2_sciimg.fits and "
        "ztf_001735_zg_c01_q2_refimg.fits"
    )


def _product(kind: Kind, parts: Mapping[str, str]) -> Product:
    window = Window(*(int(parts[k]) for k in "xywh")) if parts.get("x") else None
    return Product(
        kind,
        parts.get("when", ""),
        int(parts.get("field", -1)),
        parts["code"],
        int(parts["ccdid"]),
        int(parts.get("qid", 0)),
        parts.get("type") or parts.get("caltype", ""),
        parts.get("stem", ""),
        parts["ending"],
        window,
    )


def _is_day(when: str) -> bool:
    try:
        return not when or bool(date(int(when[:4]), int(when[4:6]), int(when[6:8])))
    except ValueError:
        return False


def rcid_of(ccdid: int, qid: int) -> int:
    """The number of a quadrant on the focal plane, 0 to 63, from its CCD (1 to 16) and quadrant (1 to 4)."""
    if not (1 <= ccdid <= 16 and 1 <= qid <= 4):
        raise InputError(f"ZTF has CCDs 1 to 16 with quadrants 1 to 4; got CCD {ccdid}, quadrant {qid}")
    return 4 * (ccdid - 1) + qid - 1


def ccd_and_quadrant(rcid: int) -> tuple[int, int]:
    """The CCD (1 to 16) and quadrant (1 to 4) of a number on the focal plane, 0 to 63."""
    if not 0 <= rcid <= 63:
        raise InputError(f"rcid runs from 0 to 63; got {rcid}")
    return rcid // 4 + 1, rcid % 4 + 1
