"""Files by path or by URL: opened, read in part, and named without the secrets that a URL may hold.

URLs are fsspec's: ``memory://``, ``https://``, ``s3://``, chains such as ``simplecache::https://…``. Credentials come
from where each file system looks for them (environment, configuration files, `fsspec.config`), best never from the URL;
where one holds them, they are in no message and no attribute.
"""

from __future__ import annotations

import io
import os
import re
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from glob import glob
from os import PathLike
from pathlib import Path
from typing import Any, Protocol, cast
from urllib.parse import urlsplit
from urllib.request import url2pathname

import fsspec

from ztfxr.errors import InputError, MissingDependencyError, RemoteFileError

__all__ = [
    "Address",
    "BinaryFile",
    "Location",
    "exists",
    "file_name",
    "is_url",
    "location",
    "matching",
    "open_binary",
    "shown",
    "size_of",
]

Location = Path | str
"""A path on this machine, or a URL."""

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*(://|::)")
_MAGIC = re.compile(r"[*\[]")
_SECRETS = re.compile(r"(?<=://)[^/?#]*@")
_EXTRAS = {"http": ("aiohttp", "remote"), "https": ("aiohttp", "remote"), "s3": ("s3fs", "s3"), "s3a": ("s3fs", "s3")}
_PART_BYTES, _PARTS_KEPT = 1 << 17, 8


class Address(str):
    """A path or URL whose repr, which logs show, is `shown`."""

    __slots__ = ()

    def __repr__(self) -> str:
        return repr(shown(str(self)))


class BinaryFile(Protocol):
    """What the readers need of a file."""

    def read(self, size: int = -1, /) -> bytes:
        """The next bytes."""

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Go to a place."""

    def readinto(self, buffer: Any, /) -> int:
        """Fill `buffer`; how many bytes there were."""


def is_url(path: object) -> bool:
    """Whether `path` is a URL of fsspec's, not a path on this machine."""
    return isinstance(path, str) and _URL.match(path) is not None


def location(path: str | PathLike[str]) -> Location:
    """`path` as a `Path` if it is on this machine (``file://`` too), else the URL."""
    if not isinstance(path, str) or not is_url(path):
        return Path(path)
    return Path(url2pathname(urlsplit(path).path)) if path.startswith("file://") else path


def shown(path: str | PathLike[str]) -> str:
    """`path` for messages and attributes: a URL without user, password, query and fragment."""
    if not isinstance(path, str) or not is_url(path):
        return str(path)
    return re.split(r"[?#]", _SECRETS.sub("", path), maxsplit=1)[0]


def file_name(path: str | PathLike[str]) -> str:
    """The last part of a path or URL."""
    return Path(shown(path)).name


def exists(path: Location) -> bool:
    """Whether there is a file. A server that does not answer raises `RemoteFileError`."""
    if isinstance(path, Path):
        return path.is_file()
    system, name = _system(path)
    with _named(path):
        return bool(system.exists(name))


def matching(pattern: str) -> list[str]:
    """Files that match a glob pattern (``*``, ``**``, ``[…]``), sorted: paths, or URLs where the pattern is one.

    A web server must list its folders as pages of links. A URL that is no pattern is taken as it is, there or not.

    Raises
    ------
    RemoteFileError
        The server of a URL does not answer, or refuses.
    """
    place = location(pattern)
    if isinstance(place, Path):
        # Not Path.glob, which refuses absolute patterns.
        return sorted(glob(str(place) if is_url(pattern) else pattern, recursive=True))  # noqa: PTH207
    if not _MAGIC.search(place):
        return [pattern]
    chain, mark, last = place.rpartition("::")
    system, name = _system(last)
    try:
        with _named(place):
            return sorted(chain + mark + str(system.unstrip_protocol(found)) for found in system.glob(name))
    except FileNotFoundError:
        return []


def open_binary(path: Location, *, stop: int | None = None, block: int = io.DEFAULT_BUFFER_SIZE) -> io.BufferedReader:
    """Open a file for reading; one at a URL is fetched in parts, the last few of which are kept.

    With `stop`, the file is one to read in order: it ends there, its size is not asked for, and what is fetched is what
    is read, in steps of `block` bytes.

    Raises
    ------
    FileNotFoundError
    RemoteFileError
        The server does not answer, or refuses; reading raises it too.
    MissingDependencyError
        The package for this kind of URL is not installed.
    """
    if isinstance(path, Path):
        return path.open("rb")
    return io.BufferedReader(_RemoteFile(path, stop), max(1, block))


def size_of(file: io.BufferedReader) -> int:
    """Bytes of a file that `open_binary` opened."""
    raw = file.raw
    return raw.size if isinstance(raw, _RemoteFile) else os.fstat(file.fileno()).st_size


class _RemoteFile(io.RawIOBase):
    """A file at a URL; each read is one request for a range of bytes."""

    def __init__(self, url: str, stop: int | None) -> None:
        self._url, self._position = url, 0
        self._system, self._path = _system(url)
        self._whole: bytes | None = None
        self._parts: OrderedDict[int, bytes] | None = OrderedDict() if stop is None else None
        self.size = self._length() if stop is None else stop

    def _length(self) -> int:
        with _named(self._url):
            size = self._system.info(self._path).get("size")
            if size is None:
                self._whole = bytes(self._system.cat_file(self._path))
        return len(self._whole) if self._whole is not None else int(size)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.size}[whence]
        self._position = max(0, start + offset)
        return self._position

    def readinto(self, buffer: Any, /) -> int:
        stop = min(self.size, self._position + len(buffer))
        if stop <= self._position:
            return 0
        piece = self._range(self._position, stop)
        buffer[: len(piece)] = piece
        self._position += len(piece)
        return len(piece)

    def _range(self, start: int, stop: int) -> bytes:
        if self._parts is None or stop - start >= _PART_BYTES:
            return self._fetch(start, stop)
        first, last = start // _PART_BYTES, (stop - 1) // _PART_BYTES
        joined = b"".join(self._part(number) for number in range(first, last + 1))
        return joined[start - first * _PART_BYTES : stop - first * _PART_BYTES]

    def _part(self, number: int) -> bytes:
        """One of the equal parts of the file: who reads tiles goes to and fro between them and their table."""
        assert self._parts is not None
        if number not in self._parts:
            start = number * _PART_BYTES
            self._parts[number] = self._fetch(start, min(self.size, start + _PART_BYTES))
        self._parts.move_to_end(number)
        if len(self._parts) > _PARTS_KEPT:
            self._parts.popitem(last=False)
        return self._parts[number]

    def _fetch(self, start: int, stop: int) -> bytes:
        if self._whole is None:
            with _named(self._url):
                piece = bytes(self._system.cat_file(self._path, start=start, end=stop))
            if len(piece) <= stop - start:
                return piece
            # A server that knows no ranges sends the file each time: once is enough.
            self._whole = piece
        return self._whole[start:stop]


def _system(url: str) -> tuple[Any, str]:
    """The file system of a URL, and the path in it."""
    kind = url.split("::")[-1].split("://")[0]
    try:
        return cast("tuple[Any, str]", fsspec.core.url_to_fs(url))
    except ImportError:
        package, extra = _EXTRAS.get(kind, ("", ""))
        if extra:
            raise MissingDependencyError.for_extra(package, extra) from None
        raise MissingDependencyError(f"{shown(url)}: fsspec's package for {kind}:// is not installed") from None
    except ValueError:
        raise InputError(f"{shown(url)}: fsspec cannot take this URL apart, or knows no {kind}://") from None


@contextmanager
def _named(url: str) -> Iterator[None]:
    """Errors of a file system as ours. Not chained: their messages may hold the URL with its secrets."""
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:
        # fsspec says "not found" of every answer but a good one; what the server said is its cause.
        cause = (error.__cause__ or error) if isinstance(error, FileNotFoundError) else error
        code = getattr(cause, "status", None)
        if isinstance(cause, FileNotFoundError) or code in (404, 410):
            raise FileNotFoundError(f"no such file: {shown(url)}") from None
        what = type(cause).__name__ + (f", status {code}" if isinstance(code, int) else "")
        raise RemoteFileError(
            f"{shown(url)} cannot be read ({what}); check the address, the network and the credentials"
        ) from None
