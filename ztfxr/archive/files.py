"""The folder of the files: what is kept, where a new one goes, and what makes a file whole."""

from __future__ import annotations

import fcntl
import json
import os
import re
import time
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from astropy.io import fits
from astropy.utils.exceptions import AstropyUserWarning

from ztfxr._quiet import quiet
from ztfxr.archive.settings import Archive
from ztfxr.errors import FrameError, StoreError
from ztfxr.io.fits import open_hdus
from ztfxr.io.names import FILTER_IDS, Product
from ztfxr.io.times import JD_OF_MJD, to_mjd

__all__ = ["DamagedError", "Partial", "check", "find", "is_page", "partial", "place_of", "remove_stale", "unpack"]

_RECORD = 2880
_GZIP, _SIMPLE = b"\x1f\x8b", b"SIMPLE  ="
_MOST_BYTES = 1 << 28
"""More than any product has, unpacked; what goes on beyond is no such file."""
_STALE_S = 86400.0
_SAME_EXPOSURE_S = 20.0
"""The name's fraction of the day and the header's time differ by a second or so; exposures, by 38 s and more."""
_CARDS = {"FIELDID": "field", "CCDID": "ccdid", "QID": "qid"}


class DamagedError(FrameError):
    """A file is not what its name says."""


def place_of(archive: Archive, product: Product) -> Path:
    """Where a product is kept: from the parts of its name, so below the root whatever a server says."""
    return archive.root / product.path


def find(archive: Archive, product: Product) -> Path | None:
    """The kept file of a product, in the root or in a mirror; None where there is none that is whole."""
    for root in (archive.root, *archive.mirrors):
        path = root / product.path
        with suppress(DamagedError, OSError):
            check(path, product, thorough=False)
            return path
    return None


def check(path: Path, product: Product, *, thorough: bool = True) -> None:
    """Refuse a file that is not whole, or not what its name says.

    Raises
    ------
    DamagedError
        Its length, its cards, or with `thorough` its checksum where a packed file has one.
    FileNotFoundError
    """
    with path.open("rb") as file:
        start, size = file.read(_RECORD), os.fstat(file.fileno()).st_size
    if size == 0:
        raise DamagedError("the file is empty")
    if not product.ending.startswith("fits"):
        if start.lstrip().startswith(b"<"):
            raise DamagedError("a web page is in its place")
        return
    if product.ending == "fits.gz":
        if not start.startswith(_GZIP):
            raise DamagedError("the file is no gzip file")
        return
    if not start.startswith(_SIMPLE):
        raise DamagedError("the file is no FITS file")
    if size % _RECORD:
        raise DamagedError(f"the file has {size} bytes, which is no multiple of {_RECORD}: it is cut off")
    if thorough:
        _check_cards(path, product)


def _check_cards(path: Path, product: Product) -> None:
    try:
        with open_hdus(path) as hdus:
            for hdu in hdus:
                _compare(hdu.header, product)
        if product.ending == "fits.fz":
            _check_sums(path)
    except DamagedError:
        raise
    except (FrameError, OSError, ValueError) as error:
        raise DamagedError(f"the file cannot be read as FITS ({type(error).__name__})") from None


def _check_sums(path: Path) -> None:
    """Refuse data with another checksum than its header says; of packed files the sum is of what is packed."""
    with quiet(AstropyUserWarning), fits.open(path, memmap=False, disable_image_compression=True) as hdus:
        if any("DATASUM" in hdu.header and hdu.verify_datasum() == 0 for hdu in hdus):
            raise DamagedError("the checksum of the data is another than its header says")


def _compare(header: fits.Header, product: Product) -> None:
    """Refuse a header that says of another field, quadrant, filter or exposure."""
    wanted: dict[str, Any] = {card: getattr(product, name) for card, name in _CARDS.items()}
    wanted["FILTERID"] = FILTER_IDS.get(product.code, 0)
    for card, value in wanted.items():
        found = header.get(card)
        if isinstance(found, int | float) and not isinstance(found, bool) and value > 0 and int(found) != value:
            raise DamagedError(f"the header says {card} = {found}, the name {value}: another file came")
    moment = header.get("OBSMJD", header.get("OBSJD", 0.0) - JD_OF_MJD if "OBSJD" in header else None)
    if product.kind in ("sci", "raw") and isinstance(moment, int | float):
        seconds = abs(moment - _start_of(product.when)) * 86400
        if seconds > _SAME_EXPOSURE_S:
            raise DamagedError(f"the header's time is {seconds:.0f} s from the name's: another exposure came")


def _start_of(when: str) -> float:
    day = to_mjd(np.datetime64(f"{when[:4]}-{when[4:6]}-{when[6:8]}", "ns"))
    return day + int(when[8:]) / 1e6


def remove_stale(paths: Iterable[Path]) -> None:
    """Remove what killed downloads left beside these files more than a day ago."""
    for folder in {path.parent for path in paths}:
        for left in folder.glob(".ztf_*.part*"):
            with suppress(OSError):
                if time.time() - left.stat().st_mtime > _STALE_S:
                    left.unlink()


@dataclass
class Partial:
    """A file on its way, which only this thread of this process writes."""

    path: Path
    file: IO[bytes]

    @property
    def tag_path(self) -> Path:
        """Beside it, what tells whether the server still has the same file."""
        return self.path.with_name(self.path.name + ".tag")

    def resumed(self) -> tuple[int, str]:
        """How much of it is there, and the tag under which it came; 0 and "" where that is not known."""
        size = os.fstat(self.file.fileno()).st_size
        try:
            found = json.loads(self.tag_path.read_text())
            return (size, str(found["tag"])) if size and found["tag"] else (0, "")
        except (OSError, ValueError, KeyError, TypeError):
            return 0, ""

    def begin(self, tag: str) -> None:
        """Start anew with the file of this tag."""
        self.file.seek(0)
        self.file.truncate()
        self.tag_path.write_text(json.dumps({"tag": tag}))

    def finish(self, target: Path) -> None:
        """Give it its name, whole."""
        self.file.flush()
        os.fsync(self.file.fileno())
        self.path.replace(target)
        self.tag_path.unlink(missing_ok=True)

    def discard(self) -> None:
        """Leave nothing."""
        self.path.unlink(missing_ok=True)
        self.tag_path.unlink(missing_ok=True)


@contextmanager
def partial(target: Path) -> Iterator[Partial]:
    """Hold the only right to fetch a file. Waits while another thread or process does.

    The lock is the operating system's on the open file: it ends with its holder, however that dies.

    Raises
    ------
    StoreError
        The folder cannot be written to.
    """
    path = target.with_name(f".{target.name}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        while True:
            with path.open("ab+") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                # Who held it may have given the file its name; then this is that file, and no part.
                if _is_at(file, path):
                    yield Partial(path, file)
                    return
    except StoreError:
        raise
    except OSError as error:
        raise StoreError(f"{target.parent} cannot be written ({error.strerror or error})") from None


def _is_at(file: IO[bytes], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def unpack(part: Partial, product: Product) -> None:
    """Unpack a gzip file that came where none was asked for, in its place; `DamagedError` for damage and bombs."""
    if product.ending == "fits.gz":
        return
    part.file.flush()
    part.file.seek(0)
    if part.file.read(2) != _GZIP:
        return
    part.file.seek(0)
    packed = part.file.read()
    unpacker = zlib.decompressobj(31)
    try:
        data = unpacker.decompress(packed, _MOST_BYTES)
    except zlib.error:
        raise DamagedError("the gzip file that came is damaged") from None
    if not unpacker.eof:
        raise DamagedError("the gzip file that came is cut off, or has no end")
    part.file.seek(0)
    part.file.truncate()
    part.file.write(data)


_PAGE = re.compile(rb"\s*<(\?xml|!doctype|html)", re.IGNORECASE)


def is_page(start: bytes) -> bool:
    """Whether an answer begins as a web page does."""
    return _PAGE.match(start) is not None
