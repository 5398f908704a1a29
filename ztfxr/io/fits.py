"""FITS images: headers now, pixels when asked; plain, gzipped and tile-compressed."""

from __future__ import annotations

import gzip
import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from astropy.utils.exceptions import AstropyUserWarning
from numpy.typing import NDArray

from ztfxr._quiet import quiet
from ztfxr.errors import NotFITSError, ShapeError, TruncatedFileError

__all__ = ["ImageFile", "header_text", "inspect", "read_window"]

_GZIP = b"\x1f\x8b"
_SIGNATURE = b"SIMPLE  ="
_READ_ERRORS = (OSError, EOFError, ValueError, TypeError, IndexError, zlib.error, struct.error)
_CARD, _BLOCK = 80, 2880
_END = b"END".ljust(_CARD)
_STORED = {8: "u1", 16: ">i2", 32: ">i4", 64: ">i8", -32: ">f4", -64: ">f8"}
_READ_BYTES = 1 << 20


@dataclass(frozen=True)
class RawPixels:
    """Where a plain file holds pixels that are numbers as they stand, big-endian and in rows."""

    offset: int
    dtype: str
    file_size: int


@dataclass(frozen=True)
class ImageFile:
    """Where an image's pixels are, which native dtype to read them to, and what the header says.

    `raw` and the header's `text`, a card a line, are there where the file gives them without ado.
    """

    path: str
    hdu: int
    shape: tuple[int, int]
    dtype: np.dtype[Any]
    header: fits.Header
    raw: RawPixels | None = None
    text: str | None = None


def inspect(path: str | PathLike[str], extension: str | None = None) -> ImageFile:
    """Read the header of the first 2-D image of a FITS file, or of the first with this name; no pixel is read.

    Raises
    ------
    FileNotFoundError, NotFITSError, TruncatedFileError, ShapeError
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no such file: {path}")
    _check_signature(path)
    plain = _plain_primary(path) if extension is None else None
    if plain is not None:
        return plain
    with _opened(path) as hdus:
        number, hdu = _first_image(path, hdus, extension)
        _check_length(path, hdu)
        dtype = _native_dtype(hdu.header)
        shape = (int(hdu.shape[0]), int(hdu.shape[1]))
        return ImageFile(str(path), number, shape, dtype, hdu.header, _raw_extension(path, hdu, dtype))


def header_text(image: ImageFile) -> str:
    """The cards of the header, one a line; as they stand in the file where that is plain."""
    return image.text or str(image.header.tostring(sep="\n", endcard=False, padding=False))


def read_window(image: ImageFile, rows: slice, columns: slice) -> NDArray[Any]:
    """The pixels ``[rows, columns]`` (unit step) in native byte order; reads only what the format allows.

    A plain file is read by rows, a tile-compressed one by tiles, a gzipped one from its start. The file is
    closed on return.

    Raises
    ------
    TruncatedFileError
        The pixels end early or cannot be decompressed.
    """
    shape = (len(range(*rows.indices(image.shape[0]))), len(range(*columns.indices(image.shape[1]))))
    if 0 in shape:
        return np.empty(shape, dtype=image.dtype)
    if image.raw is not None:
        pixels = _read_raw(image, image.raw, rows, columns)
        if pixels is not None:
            return pixels
    with _opened(Path(image.path)) as hdus:
        try:
            with quiet(AstropyUserWarning):
                hdu = hdus[image.hdu]
            # Whole rows: a column window seeks once per row, and each seek backwards decompresses a gzip file anew.
            tiled = isinstance(hdu, fits.CompImageHDU)
            pixels = hdu.section[rows, columns] if tiled else hdu.section[rows, :][:, columns]
            if rows.stop >= image.shape[0]:
                _check_sum(hdu)
        except _READ_ERRORS as error:
            raise TruncatedFileError(
                f"{image.path}: the pixels cannot be read ({error}); fetch the file again"
            ) from error
    return np.ascontiguousarray(pixels, dtype=image.dtype)


def _plain_primary(path: Path) -> ImageFile | None:
    """The image of a plain file that begins with it, from its first blocks alone; None for every other file.

    astropy's way to the same takes twice as long.
    """
    block = _first_header(path)
    if block is None:
        return None
    with quiet(AstropyUserWarning):
        header = fits.Header.fromstring(block.decode("ascii"))
    shape = (header.get("NAXIS2"), header.get("NAXIS1"))
    standard = header.get("SIMPLE") is True and header.get("NAXIS") == 2 and header.get("BITPIX") in _STORED
    if not standard or not all(isinstance(n, int) and n > 0 for n in shape):
        return None
    dtype, size = _native_dtype(header), path.stat().st_size
    _require_length(path, size, len(block) + prod(shape) * abs(int(header["BITPIX"])) // 8)
    cards = [block[i : i + _CARD] for i in range(0, len(block), _CARD)]
    text = b"\n".join(cards[: cards.index(_END)]).decode("ascii")
    return ImageFile(str(path), 0, shape, dtype, header, _raw_pixels(header, dtype, len(block), size), text)


def _first_header(path: Path) -> bytes | None:
    """The blocks of the first header; None where they are not ASCII or do not end."""
    blocks = b""
    with path.open("rb") as file:
        while len(block := file.read(_BLOCK)) == _BLOCK and block.isascii():
            blocks += block
            if any(block[i : i + _CARD] == _END for i in range(0, _BLOCK, _CARD)):
                return blocks
    return None


def _raw_pixels(header: fits.Header, dtype: np.dtype[Any], offset: int, file_size: int) -> RawPixels | None:
    """Where the pixels lie, or None where they are scaled or have blanks, which astropy undoes."""
    stored = np.dtype(_STORED[int(header["BITPIX"])])
    if stored.newbyteorder("=") != dtype or "BLANK" in header:
        return None
    return RawPixels(offset, stored.str, file_size)


def _raw_extension(path: Path, hdu: Any, dtype: np.dtype[Any]) -> RawPixels | None:
    """`_raw_pixels` of an HDU, or None where it is packed."""
    info = hdu.fileinfo()
    if info is None or info["file"].compression is not None or isinstance(hdu, fits.CompImageHDU):
        return None
    return _raw_pixels(hdu.header, dtype, int(info["datLoc"]), path.stat().st_size)


def _read_raw(image: ImageFile, raw: RawPixels, rows: slice, columns: slice) -> NDArray[Any] | None:
    """A window of a plain file, swapped block by block while it is in cache; None where the file has changed."""
    first, last, _ = rows.indices(image.shape[0])
    left, right, _ = columns.indices(image.shape[1])
    stored, native = np.dtype(raw.dtype), image.dtype
    if (stored.kind, native.kind) == ("i", "u") and stored.itemsize == native.itemsize:
        stored = native.newbyteorder(">")  # the same bits; to swap them is faster than to convert them
    row_bytes = image.shape[1] * stored.itemsize
    out = np.empty((last - first, right - left), dtype=native)
    block = np.empty((min(last - first, max(1, _READ_BYTES // row_bytes)), image.shape[1]), dtype=stored)
    with Path(image.path).open("rb") as file:
        if os.fstat(file.fileno()).st_size != raw.file_size:
            return None
        file.seek(raw.offset + first * row_bytes)
        for start in range(0, last - first, len(block)):
            part = block[: last - first - start]
            if file.readinto(part.view(np.uint8)) != part.nbytes:
                return None
            out[start : start + len(part)] = part[:, left:right]
    return out


@contextmanager
def _opened(path: Path) -> Iterator[fits.HDUList]:
    """The file's HDUs; never memory-mapped, so that no handle outlives the block."""
    try:
        with quiet(AstropyUserWarning):
            hdus = fits.open(path, memmap=False, lazy_load_hdus=True, uint=True)
    except FileNotFoundError:
        raise
    except (OSError, EOFError, zlib.error) as error:
        _check_signature(path)
        raise TruncatedFileError(f"{path}: the file is cut off or corrupt ({error}); fetch it again") from error
    with hdus:
        yield hdus


def _check_sum(hdu: Any) -> None:
    """Read a gzipped file on to its end, where zlib compares its checksum; nothing for other files."""
    file = (hdu.fileinfo() or {}).get("file")
    if file is not None and file.compression == "gzip":
        file._file.read()


def _check_signature(path: Path) -> None:
    try:
        with path.open("rb") as raw:
            head = raw.read(16)
        if head.startswith(_GZIP):
            with gzip.open(path) as stream:
                head = stream.read(16)
    except (OSError, EOFError, zlib.error) as error:
        raise TruncatedFileError(f"{path}: the file is cut off or corrupt ({error}); fetch it again") from error
    if not head:
        raise TruncatedFileError(f"{path}: the file is empty; fetch it again")
    if head.startswith(_SIGNATURE):
        return
    if head.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        raise NotFITSError(f"{path}: an HTML or XML page, not FITS; the server sent an error or a login page")
    raise NotFITSError(f"{path}: not FITS; it begins with {head[:9]!r}, not {_SIGNATURE!r}")


def _first_image(path: Path, hdus: fits.HDUList, extension: str | None) -> tuple[int, Any]:
    number = 0
    while True:
        try:
            with quiet(AstropyUserWarning):
                hdu = hdus[number]
        except IndexError:
            break
        except _READ_ERRORS as error:
            raise TruncatedFileError(f"{path}: its header is cut off ({error}); fetch it again") from error
        named = extension is None or hdu.name == extension
        if named and getattr(hdu, "is_image", False) and len(hdu.shape) == 2:
            return number, hdu
        number += 1
    info = hdus[-1].fileinfo()
    end = info["datLoc"] + info["datSpan"]
    if _length(path, end) != end:
        raise TruncatedFileError(f"{path}: cut off in the header of HDU {number}; fetch it again")
    wanted = "" if extension is None else f" named {extension}"
    raise ShapeError(f"{path}: holds no 2-D image{wanted} in its {number} HDUs")


def _native_dtype(header: fits.Header) -> np.dtype[Any]:
    """The dtype of the scaled pixels: unsigned 16-bit and scaled integers by the FITS conventions."""
    bitpix, zero, scale = int(header["BITPIX"]), header.get("BZERO", 0), header.get("BSCALE", 1)
    stored = np.dtype(_STORED[bitpix]).newbyteorder("=")
    if bitpix > 8 and scale == 1 and zero == 2 ** (bitpix - 1):
        return np.dtype(stored.str.replace("i", "u"))
    if bitpix > 0 and (zero != 0 or scale != 1):
        return np.dtype("f4" if bitpix <= 16 else "f8")
    return stored


def _check_length(path: Path, hdu: Any) -> None:
    """Raise `TruncatedFileError` where the file is shorter than its header says, without reading pixels."""
    info = hdu.fileinfo()
    if info is None:
        return
    span = info["datSpan"]
    if not isinstance(hdu, fits.CompImageHDU):
        span = prod(hdu.shape) * abs(int(hdu.header["BITPIX"])) // 8
    expected = info["datLoc"] + span
    _require_length(path, _length(path, expected), expected)


def _require_length(path: Path, found: int, expected: int) -> None:
    if found < expected:
        raise TruncatedFileError(f"{path}: {found} bytes, but its header announces {expected}; fetch it again")


def _length(path: Path, expected: int) -> int:
    """Bytes of the uncompressed file.

    A whole gzip file ends with its length modulo 2**32; where that disagrees (several members, or a cut
    file) the stream is read to its end.
    """
    with path.open("rb") as raw:
        gzipped = raw.read(2) == _GZIP
        size = raw.seek(0, 2)
        if not gzipped:
            return size
        raw.seek(-4, 2)
        stated = int(struct.unpack("<I", raw.read(4))[0])
    if expected <= stated <= expected + 2880:
        return stated
    total = 0
    try:
        with gzip.open(path) as stream:
            while block := stream.read(1 << 20):
                total += len(block)
    except (OSError, EOFError, zlib.error):
        pass
    return total
