"""FITS images: headers now, pixels when asked; plain, gzipped and tile-compressed."""

from __future__ import annotations

import gzip
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

__all__ = ["ImageFile", "inspect", "read_window"]

_GZIP = b"\x1f\x8b"
_SIGNATURE = b"SIMPLE  ="
_READ_ERRORS = (OSError, EOFError, ValueError, TypeError, IndexError, zlib.error, struct.error)


@dataclass(frozen=True)
class ImageFile:
    """Where an image's pixels are, and what its header says."""

    path: str
    hdu: int
    shape: tuple[int, int]
    dtype: np.dtype[Any]
    header: fits.Header


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
    with _opened(path) as hdus:
        number, hdu = _first_image(path, hdus, extension)
        _check_length(path, hdu)
        dtype = _native_dtype(hdu.header)
        shape = (int(hdu.shape[0]), int(hdu.shape[1]))
        return ImageFile(str(path), number, shape, dtype, hdu.header.copy())


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
    stored = {8: "u1", 16: "i2", 32: "i4", 64: "i8", -32: "f4", -64: "f8"}[bitpix]
    if bitpix > 8 and scale == 1 and zero == 2 ** (bitpix - 1):
        return np.dtype(stored.replace("i", "u"))
    if bitpix > 0 and (zero != 0 or scale != 1):
        return np.dtype("f4" if bitpix <= 16 else "f8")
    return np.dtype(stored)


def _check_length(path: Path, hdu: Any) -> None:
    """Raise `TruncatedFileError` where the file is shorter than its header says, without reading pixels."""
    info = hdu.fileinfo()
    if info is None:
        return
    span = info["datSpan"]
    if not isinstance(hdu, fits.CompImageHDU):
        span = prod(hdu.shape) * abs(int(hdu.header["BITPIX"])) // 8
    expected = info["datLoc"] + span
    found = _length(path, expected)
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
