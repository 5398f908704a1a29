"""The bytes of a gzip file, in order and a little at a time."""

from __future__ import annotations

import zlib
from typing import Any

from ztfxr.io.remote import BinaryFile

__all__ = ["Unpacked"]

_GZIP_FORMAT = 31
_FIRST_INPUT_BYTES, _INPUT_BYTES = 1 << 14, 1 << 18
_OUTPUT_BYTES = 1 << 20


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
