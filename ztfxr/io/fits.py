"""FITS images: headers now, pixels when asked; plain, gzipped and tile-compressed; from disk and from URLs."""

from __future__ import annotations

import gzip
import re
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from io import BufferedReader
from math import prod
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from astropy.utils.exceptions import AstropyUserWarning
from numpy.typing import NDArray

from ztfxr._quiet import quiet
from ztfxr.errors import FrameError, HeaderError, NotFITSError, ShapeError, TruncatedFileError, ZtfxrError
from ztfxr.io.remote import BinaryFile, Location, location, open_binary, shown, size_of

__all__ = ["DAMAGE", "ImageFile", "header_text", "inspect", "open_hdus", "read_window", "require_few_counts"]

_GZIP_FORMAT = 31
_FIRST_INPUT_BYTES, _INPUT_BYTES = 1 << 14, 1 << 18
_OUTPUT_BYTES = 1 << 20
_GZIP = b"\x1f\x8b"
_SIGNATURE = b"SIMPLE  ="
DAMAGE = (
    AssertionError,
    OSError,
    EOFError,
    ValueError,
    TypeError,
    LookupError,
    NameError,
    AttributeError,
    ArithmeticError,
    zlib.error,
    struct.error,
    fits.VerifyError,
)
"""What other packages raise of files that are damaged, or whose cards contradict each other."""
_CARD, _RECORD = 80, 2880
_COUNT, _MOST = re.compile(rb"(Z?NAXIS|TFIELDS) *= *\+?(\d+)"), 999
_END = "END".ljust(_CARD)
_STRUCTURE = ("SIMPLE", "BITPIX", "NAXIS", "NAXIS1", "NAXIS2", "BZERO", "BSCALE", "BLANK")
_OF_ITS_HDU = re.compile(
    r"SIMPLE|XTENSION|BITPIX|NAXIS\d*|[PG]COUNT|EXTEND|NEXTEND|EXT(NAME|VER|LEVEL)|INHERIT|B(SCALE|ZERO|LANK|UNIT)|"
    r"CHECKSUM|DATASUM|COMMENT|HISTORY|END"
)
_MAX_HEADER_BYTES = 1 << 22
_BLOCK_BYTES = 1 << 20
_REMOTE_BLOCK_BYTES = 1 << 23
_STORED = {8: "u1", 16: ">i2", 32: ">i4", 64: ">i8", -32: ">f4", -64: ">f8"}


@dataclass(frozen=True)
class Encoding:
    """How a file writes pixels: the dtype of its numbers, and the scale, offset and blank value of its header."""

    stored: str
    scale: float = 1.0
    zero: float = 0.0
    blank: int | None = None

    @classmethod
    def of(cls, header: fits.Header) -> Encoding:
        """What a header says of its pixels; `HeaderError` where that is no number."""
        stored, scale, zero = _STORED[int(header["BITPIX"])], header.get("BSCALE", 1), header.get("BZERO", 0)
        for card, value in (("BSCALE", scale), ("BZERO", zero)):
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise HeaderError(f"{card} = {value!r} is not a number")
        blank = header.get("BLANK") if int(header["BITPIX"]) > 0 else None
        return cls(stored, scale, zero, int(blank) if isinstance(blank, int | float) else None)

    @property
    def is_plain(self) -> bool:
        """Whether pixels need nothing but their bytes swapped."""
        return self.scale == 1 and self.zero == 0 and self.blank is None

    @property
    def native(self) -> np.dtype[Any]:
        """The dtype of the decoded pixels: unsigned and scaled integers by the FITS conventions, blanks as NaN."""
        stored = np.dtype(self.stored).newbyteorder("=")
        if stored.kind == "f" or self.is_plain:
            return stored
        if stored.itemsize > 1 and self.scale == 1 and self.zero == 2 ** (8 * stored.itemsize - 1):
            return np.dtype(stored.str.replace("i", "u")) if self.blank is None else _float_for(stored)
        return _float_for(stored)

    def decoded(self, pixels: NDArray[Any]) -> NDArray[Any]:
        """What the numbers of the file stand for, in the steps and dtypes of astropy, so equal to the last bit."""
        if self.is_plain:
            return pixels
        values = pixels.astype(self.native)
        if values.dtype.kind == "u":
            values += values.dtype.type(int(self.zero))
            return values
        if self.scale != 1:
            values *= self.scale
        if self.zero != 0:
            values += self.zero
        if self.blank is not None:
            values[pixels == self.blank] = np.nan
        return values


def _float_for(stored: np.dtype[Any]) -> np.dtype[Any]:
    return np.dtype("f4" if stored.itemsize <= 2 else "f8")


@dataclass(frozen=True)
class RawPixels:
    """Where a file, once unpacked, holds its pixels in rows, and how long it was when it was opened."""

    offset: int
    file_size: int


@dataclass(frozen=True)
class ImageFile:
    """Where an image's pixels are, which native dtype to read them to, and what the header says."""

    path: str = field(repr=False)
    """A path, or a URL as it was given; `ztfxr.io.remote.shown` is what may be shown of it."""
    hdu: int
    shape: tuple[int, int]
    dtype: np.dtype[Any]
    encoding: Encoding
    gzipped: bool = False
    raw: RawPixels | None = None
    cards: fits.Header | str = field(default="", repr=False)
    """The header, or its text as it stands in the file, one card a line."""

    @cached_property
    def header(self) -> fits.Header:
        """The header; text is taken apart here, where somebody asks."""
        if isinstance(self.cards, fits.Header):
            return self.cards
        with quiet(AstropyUserWarning):
            return fits.Header.fromstring(self.cards, sep="\n")


def inspect(path: str | PathLike[str], extension: str | None = None) -> ImageFile:
    """Read the header of the first 2-D image of a FITS file, or of the first with this name; no pixel is read.

    `path` may be a URL of fsspec's (``https://``, ``s3://``, ``memory://``), of which only the
    header is fetched.

    Raises
    ------
    FileNotFoundError, NotFITSError, TruncatedFileError, ShapeError
    RemoteFileError
        The server of a URL does not answer, or refuses.
    """
    place = location(path)
    if isinstance(place, Path) and not place.is_file():
        raise FileNotFoundError(f"no such file: {place}")
    with open_binary(place) as file, _damage_is_an_error(place):
        gzipped = _check_signature(place, file)
        image = _primary_image(place, file, gzipped) if extension is None else None
        return image or _image_by_astropy(place, file, gzipped, extension)


def header_text(image: ImageFile) -> str:
    """The cards of the header, one a line."""
    if isinstance(image.cards, str):
        return image.cards
    with quiet(AstropyUserWarning), _damage_is_an_error(location(image.path)):
        return str(image.cards.tostring(sep="\n", endcard=False, padding=False))


def _primary_image(place: Location, file: BufferedReader, gzipped: bool) -> ImageFile | None:
    """The image that the primary header describes, as ZTF's are: several times faster than by way of astropy's HDUs.

    None where there is no such image, or anything is unusual.
    """
    file.seek(0)
    try:
        block = _header_block(Unpacked(file) if gzipped else file).decode("ascii")
    except (EOFError, UnicodeDecodeError, zlib.error):
        return None
    cards = [block[i : i + _CARD] for i in range(0, len(block), _CARD)]
    cards = cards[: cards.index(_END)]
    with quiet(AstropyUserWarning):
        header = fits.Header.fromstring("".join(c for c in cards if c[:8].rstrip() in _STRUCTURE))
    shape = (header.get("NAXIS2"), header.get("NAXIS1"))
    standard = header.get("SIMPLE") is True and header.get("NAXIS") == 2 and header.get("BITPIX") in _STORED
    if not standard or not all(isinstance(n, int) and n > 0 for n in shape):
        return None
    encoding = _encoding(place, header)
    end = len(block) + prod(shape) * np.dtype(encoding.stored).itemsize
    _require_length(place, _length(file, gzipped, end), end)
    raw = RawPixels(len(block), size_of(file))
    return ImageFile(str(place), 0, shape, encoding.native, encoding, gzipped, raw, "\n".join(cards))


def _header_block(source: BinaryFile) -> bytes:
    """The primary header with its padding; `EOFError` where it does not end."""
    block = b""
    while len(block) < _MAX_HEADER_BYTES:
        record = source.read(_RECORD)
        if len(record) < _RECORD:
            break
        block += record
        if any(record[i : i + _CARD] == _END.encode() for i in range(0, _RECORD, _CARD)):
            return block
    raise EOFError("the header does not end")


def _encoding(place: Location, header: fits.Header) -> Encoding:
    try:
        return Encoding.of(header)
    except (HeaderError, fits.VerifyError, KeyError) as error:
        raise HeaderError(f"{shown(place)}: how its pixels are written cannot be read ({error})") from error


def _image_by_astropy(place: Location, file: BufferedReader, gzipped: bool, extension: str | None) -> ImageFile:
    size = size_of(file)
    with _opened(place, file, gzipped) as hdus:
        number, hdu = _first_image(place, file, gzipped, hdus, extension)
        shape, encoding = (int(hdu.shape[0]), int(hdu.shape[1])), _encoding(place, hdu.header)
        header = _inheriting(hdu.header, hdus[0].header) if number else hdu.header
        info = hdu.fileinfo()
        packed = isinstance(hdu, fits.CompImageHDU)
        if info is not None:
            span = info["datSpan"] if packed else prod(shape) * np.dtype(encoding.stored).itemsize
            end = int(info["datLoc"]) + span
            _require_length(place, _length(file, gzipped, end), end)
    raw = None if info is None or packed else RawPixels(int(info["datLoc"]), size)
    return ImageFile(str(place), number, shape, encoding.native, encoding, gzipped, raw, header)


def _inheriting(header: fits.Header, primary: fits.Header) -> fits.Header:
    """The header of an extension with what the primary header says of all of them, where that has no image itself."""
    if header.get("INHERIT", True) is not True or primary.get("NAXIS", 0) != 0:
        return header
    out = header.copy()
    for card in primary.cards:
        if card.keyword and card.keyword not in header and not _OF_ITS_HDU.fullmatch(card.keyword):
            out.append(card, end=True)
    return out


def read_window(image: ImageFile, rows: slice, columns: slice) -> NDArray[Any]:
    """The pixels ``[rows, columns]`` (unit step) in native byte order; reads only what the format allows.

    A plain file is read by rows, a tile-compressed one by tiles, a gzipped one from its start to the last row. Little
    more than the window is held, and the file is closed on return.

    Raises
    ------
    TruncatedFileError
        The pixels end early or cannot be decompressed.
    RemoteFileError
        The server of a URL does not answer, or refuses.
    """
    shape = (len(range(*rows.indices(image.shape[0]))), len(range(*columns.indices(image.shape[1]))))
    if 0 in shape:
        return np.empty(shape, dtype=image.dtype)
    try:
        pixels = None if image.raw is None else _read_raw(image, image.raw, rows, columns)
        return _read_by_astropy(image, rows, columns) if pixels is None else pixels
    except (FileNotFoundError, FrameError, MemoryError):
        raise
    except Exception as error:  # codecs of tiles raise classes of their own, which are not public
        raise TruncatedFileError(
            f"{shown(image.path)}: the pixels cannot be read ({error}); fetch the file again"
        ) from error


def _read_by_astropy(image: ImageFile, rows: slice, columns: slice) -> NDArray[Any]:
    place = location(image.path)
    with open_binary(place) as file, _opened(place, file, image.gzipped) as hdus:
        with quiet(AstropyUserWarning):
            hdu = hdus[image.hdu]
        # Whole rows: a column window seeks once per row, and each seek backwards decompresses a gzip file anew.
        tiled = isinstance(hdu, fits.CompImageHDU)
        pixels = hdu.section[rows, columns] if tiled else hdu.section[rows, :][:, columns]
        if rows.stop >= image.shape[0]:
            _check_sum(hdu)
    return np.ascontiguousarray(_decoded(image, pixels), dtype=image.dtype)


def _decoded(image: ImageFile, pixels: NDArray[Any]) -> NDArray[Any]:
    """What stored pixels stand for; where integers are wanted, blanks keep their number."""
    encoding = image.encoding
    return (replace(encoding, blank=None) if image.dtype.kind in "iu" else encoding).decoded(pixels)


def _read_raw(image: ImageFile, raw: RawPixels, rows: slice, columns: slice) -> NDArray[Any] | None:
    """A window of a file without tiles, decoded block by block while in cache; None where the file has changed."""
    first, last, _ = rows.indices(image.shape[0])
    left, right, _ = columns.indices(image.shape[1])
    stored = np.dtype(image.encoding.stored)
    same_size = (stored.kind, image.dtype.kind) == ("i", "u") and stored.itemsize == image.dtype.itemsize
    if same_size and image.encoding.is_plain:
        stored = image.dtype.newbyteorder(">")  # the same bits; to swap them is faster than to convert them
    row_bytes = image.shape[1] * stored.itemsize
    start, end = raw.offset + first * row_bytes, raw.offset + last * row_bytes
    out = np.empty((last - first, right - left), dtype=image.dtype)
    block = np.empty((min(last - first, max(1, _BLOCK_BYTES // row_bytes)), image.shape[1]), dtype=stored)
    place = location(image.path)
    stop, step = (raw.file_size, _BLOCK_BYTES) if image.gzipped else (end, min(end - start, _REMOTE_BLOCK_BYTES))
    with open_binary(place, stop=stop, block=step) as file:
        if isinstance(place, Path) and size_of(file) != raw.file_size:
            return None
        source: BinaryFile = Unpacked(file) if image.gzipped else file
        source.seek(start)
        for row in range(0, last - first, len(block)):
            part = block[: last - first - row]
            if source.readinto(part.reshape(-1).view(np.uint8)) != part.nbytes:
                raise EOFError("they end early")
            out[row : row + len(part)] = _decoded(image, part[:, left:right])
        if image.gzipped and last == image.shape[0]:
            source.seek(0, 2)
    return out


@contextmanager
def open_hdus(path: str | PathLike[str]) -> Iterator[fits.HDUList]:
    """The HDUs of a FITS file or URL, plain or gzipped, for the block; `FrameError` where it is not FITS."""
    place = location(path)
    with (
        _damage_is_an_error(place),
        open_binary(place) as file,
        _opened(place, file, _check_signature(place, file)) as hdus,
    ):
        for _ in _each_hdu(place, hdus):
            pass
        yield hdus


@contextmanager
def _opened(place: Location, file: BufferedReader, gzipped: bool) -> Iterator[fits.HDUList]:
    """The file's HDUs; never memory-mapped, so that no handle outlives the block."""
    source: Any = place
    if not isinstance(place, Path):
        source = gzip.GzipFile(fileobj=file) if gzipped else file
    file.seek(0)
    require_few_counts(shown(place), Unpacked(file) if gzipped else file, 0)
    file.seek(0)
    try:
        with quiet(AstropyUserWarning):
            hdus = fits.open(source, memmap=False, lazy_load_hdus=True, do_not_scale_image_data=True)
    except (FileNotFoundError, FrameError):
        raise
    except (OSError, EOFError, zlib.error) as error:
        _check_signature(place, file)
        raise _cut_off(place, error) from error
    with hdus:
        yield hdus


def _each_hdu(place: Location, hdus: fits.HDUList) -> Iterator[Any]:
    """The HDUs, each read only when it is asked for, and after a look at its header."""
    number = 0
    while True:
        if number:
            info = hdus[number - 1].fileinfo()
            require_few_counts(shown(place), info["file"], info["datLoc"] + info["datSpan"])
        try:
            with quiet(AstropyUserWarning):
                hdu = hdus[number]
        except IndexError:
            return
        yield hdu
        number += 1


def require_few_counts(name: str, source: Any, start: int) -> None:
    """Refuse a header of more axes or columns than FITS has: astropy looks for the cards of each, for hours.

    `source` is a binary file and `start` where the header begins in it; `name` is for the message.
    """
    source.seek(start)
    try:
        block = _header_block(source)
    except (OSError, EOFError, zlib.error):
        return  # what is cut off is named where it is read
    for card in (block[i : i + _CARD] for i in range(0, len(block), _CARD)):
        count = _COUNT.match(card)
        if count is not None and float(count[2]) > _MOST:
            card_name, number = count[1].decode(), count[2].decode()
            raise HeaderError(f"{name}: {card_name} = {number}, but FITS has at most {_MOST}; fetch it again")


@contextmanager
def _damage_is_an_error(place: Location) -> Iterator[None]:
    """What astropy raises of a header, as a `HeaderError` that names the file."""
    try:
        yield
    except (FileNotFoundError, ZtfxrError):
        raise
    except DAMAGE as error:
        raise HeaderError(f"{shown(place)}: its header cannot be read ({error}); fetch or write it again") from error


def _check_sum(hdu: Any) -> None:
    """Read a gzipped file on to its end, where zlib compares its checksum; nothing for other files."""
    file = (hdu.fileinfo() or {}).get("file")
    if file is not None and isinstance(file._file, gzip.GzipFile):
        file._file.read()


def _cut_off(place: Location, error: BaseException) -> TruncatedFileError:
    return TruncatedFileError(f"{shown(place)}: the file is cut off or corrupt ({error}); fetch it again")


def _check_signature(place: Location, file: BufferedReader) -> bool:
    """Whether the file is gzipped; an error where it, or what is packed in it, does not begin as FITS does."""
    try:
        file.seek(0)
        head = file.read(_RECORD)
        gzipped = head.startswith(_GZIP)
        if gzipped:
            file.seek(0)
            head = Unpacked(file).read(_RECORD)
    except FrameError:
        raise
    except (OSError, EOFError, zlib.error) as error:
        raise _cut_off(place, error) from error
    name = shown(place)
    if not head:
        raise TruncatedFileError(f"{name}: the file is empty; fetch it again")
    if head.startswith(_SIGNATURE):
        return gzipped
    if head.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        raise NotFITSError(f"{name}: an HTML or XML page, not FITS; the server sent an error or a login page")
    raise NotFITSError(f"{name}: not FITS; it begins with {head[:9]!r}, not {_SIGNATURE!r}")


def _first_image(
    place: Location, file: BufferedReader, gzipped: bool, hdus: fits.HDUList, extension: str | None
) -> tuple[int, Any]:
    name, number = shown(place), -1
    try:
        for number, hdu in enumerate(_each_hdu(place, hdus)):
            named = extension is None or hdu.name == extension
            # Random groups, and headers without pixels, have an axis of 0 beside one of any length.
            if named and getattr(hdu, "is_image", False) and len(hdu.shape) == 2 and all(hdu.shape):
                return number, hdu
    except (FileNotFoundError, ZtfxrError):
        raise
    except DAMAGE as error:
        raise TruncatedFileError(f"{name}: its header is cut off ({error}); fetch it again") from error
    number += 1
    info = hdus[-1].fileinfo()
    end = info["datLoc"] + info["datSpan"]
    if _length(file, gzipped, end) != end:
        raise TruncatedFileError(f"{name}: cut off in the header of HDU {number}; fetch it again")
    wanted = "" if extension is None else f" named {extension}"
    raise ShapeError(f"{name}: holds no 2-D image{wanted} in its {number} HDUs")


def _require_length(place: Location, found: int, expected: int) -> None:
    if found < expected:
        raise TruncatedFileError(f"{shown(place)}: {found} bytes, but its header announces {expected}; fetch it again")


def _length(file: BufferedReader, gzipped: bool, expected: int) -> int:
    """Bytes of the uncompressed file.

    A whole gzip file ends with its length modulo 2**32; where that disagrees (several members, or a cut
    file) the stream is read to its end.
    """
    size = size_of(file)
    if not gzipped:
        return size
    file.seek(max(0, size - 4))
    trailer = file.read(4)
    stated = int(struct.unpack("<I", trailer)[0]) if len(trailer) == 4 else 0
    if expected <= stated <= expected + _RECORD:
        return stated
    file.seek(0)
    stream, total = Unpacked(file), 0
    try:
        while block := stream.read(_BLOCK_BYTES):
            total += len(block)
    except (EOFError, zlib.error):
        total = stream.seek(0)
    return total


# ---- gzip -----------------------------------------------------------------------------------------------------------


class Unpacked:
    """Read a gzip file of one or more members forwards; its checksums are compared where members end.

    `EOFError` where the file ends early, `zlib.error` where it is corrupt. Never more than about 1 MiB is held.
    """

    def __init__(self, file: BinaryFile) -> None:
        self._file, self._input, self._position = file, b"", 0
        self._member = zlib.decompressobj(_GZIP_FORMAT)
        # Little at first: often only the header is wanted.
        self._step = _FIRST_INPUT_BYTES

    def read(self, size: int = -1, /) -> bytes:
        """The next `size` bytes, fewer at the end; all that is left where `size` is negative."""
        pieces, left = [], size
        while left and (piece := self._next(left if size >= 0 else _OUTPUT_BYTES)):
            pieces.append(piece)
            left -= len(piece)
        return b"".join(pieces)

    def readinto(self, buffer: Any, /) -> int:
        """Fill `buffer`, a flat array of bytes; how many bytes there were."""
        view, filled = memoryview(buffer), 0
        while filled < len(view) and (piece := self._next(len(view) - filled)):
            view[filled : filled + len(piece)] = piece
            filled += len(piece)
        return filled

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Go forwards to a place counted from the start, or (`whence` 2) to the end; the position."""
        while whence == 2 or self._position < offset:
            if not self._next(_OUTPUT_BYTES if whence == 2 else offset - self._position):
                break
        return self._position

    def _next(self, limit: int) -> bytes:
        """At most `limit` bytes; none at the end."""
        while True:
            if self._member.eof and not self._next_member():
                return b""
            ended = not self._input and not self._fill()
            piece = self._member.decompress(self._input, min(limit, _OUTPUT_BYTES))
            self._input = self._member.unconsumed_tail
            if piece:
                self._position += len(piece)
                return piece
            if ended and not self._member.eof:
                raise EOFError("the compressed stream ends early")

    def _fill(self) -> bool:
        self._input = self._file.read(self._step)
        self._step = min(2 * self._step, _INPUT_BYTES)
        return bool(self._input)

    def _next_member(self) -> bool:
        """Go on to the next member; False where there is none. Members may be padded with zeros."""
        self._input = self._member.unused_data.lstrip(b"\0")
        while not self._input and self._fill():
            self._input = self._input.lstrip(b"\0")
        if self._input:
            self._member = zlib.decompressobj(_GZIP_FORMAT)
        return bool(self._input)
