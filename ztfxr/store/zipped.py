"""A zarr store in a zip file, of which a read takes no more than its own bytes.

zarr's own `ZipStore` reads a file of the archive from its start whatever part of it is asked for: a whole shard for a
stamp.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from zipfile import ZIP_STORED, BadZipFile, ZipFile

from zarr.abc.store import ByteRequest, OffsetByteRequest, RangeByteRequest, Store, SuffixByteRequest
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.core.buffer.core import default_buffer_prototype

from ztfxr.errors import StoreError

__all__ = ["ZippedStore"]

_LOCAL_HEADER_BYTES = 30


class ZippedStore(Store):
    """The files of a zip archive that are stored without compression, read only; no handle stays open."""

    supports_writes = False
    supports_deletes = False
    supports_listing = True

    def __init__(self, path: Path) -> None:
        super().__init__(read_only=True)
        self.path = path
        self._places = _places(path)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ZippedStore) and (self.path, self._places) == (other.path, other._places)

    def __hash__(self) -> int:
        return hash(self.path)

    def __str__(self) -> str:
        return f"zip://{self.path}"

    async def get(
        self, key: str, prototype: BufferPrototype | None = None, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """The bytes of a file, or a part of them; None where there is no such file."""
        if key not in self._places:
            return None
        first, size = self._places[key]
        start, stop = _bounds(byte_range, size)
        with self.path.open("rb") as file:
            file.seek(first + start)
            piece = file.read(stop - start)
        return (prototype or default_buffer_prototype()).buffer.from_bytes(piece)

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        """Several parts, one after the other."""
        return [await self.get(key, prototype, byte_range) for key, byte_range in key_ranges]

    async def exists(self, key: str) -> bool:
        """Whether there is such a file."""
        return key in self._places

    async def set(self, key: str, value: Buffer) -> None:  # noqa: ARG002
        """`StoreError`: the store is read only."""
        raise StoreError(f"{self.path} is a zip file, which is only read; write it anew with ztfxr.to_zarr")

    async def delete(self, key: str) -> None:  # noqa: ARG002
        """`StoreError`: the store is read only."""
        raise StoreError(f"{self.path} is a zip file, from which nothing can be removed; write it anew")

    async def list(self) -> AsyncIterator[str]:
        """The names of all files."""
        for key in self._places:
            yield key

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        """The names that begin so."""
        for key in self._places:
            if key.startswith(prefix):
                yield key

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """The names of files and folders in a folder."""
        folder = prefix.rstrip("/") + "/" if prefix.strip("/") else ""
        inside = (key.removeprefix(folder).split("/")[0] for key in self._places if key.startswith(folder))
        for name in dict.fromkeys(inside):
            yield name


def _bounds(byte_range: ByteRequest | None, size: int) -> tuple[int, int]:
    if isinstance(byte_range, RangeByteRequest):
        return min(byte_range.start, size), min(byte_range.end, size)
    if isinstance(byte_range, OffsetByteRequest):
        return min(byte_range.offset, size), size
    if isinstance(byte_range, SuffixByteRequest):
        return max(0, size - byte_range.suffix), size
    return 0, size


def _places(path: Path) -> dict[str, tuple[int, int]]:
    """Where the bytes of each file begin in the archive, and how many there are."""
    try:
        with ZipFile(path) as packed, path.open("rb") as file:
            found = {}
            for info in packed.infolist():
                if info.compress_type != ZIP_STORED:
                    raise StoreError(f"{path} holds compressed files; unpack it, or pack it with `zip -0`")
                # Name and extra field stand before the bytes, and may differ in length from those of the directory.
                file.seek(info.header_offset)
                header = file.read(_LOCAL_HEADER_BYTES)
                skip = int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
                if not info.is_dir():
                    found[info.filename] = (info.header_offset + _LOCAL_HEADER_BYTES + skip, info.file_size)
            return found
    except (OSError, BadZipFile) as error:
        if isinstance(error, StoreError):
            raise
        raise StoreError(f"{path} cannot be read as a zip file ({error}); write it again") from error
