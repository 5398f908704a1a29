"""A stamp out of a real quadrant: bytes and time, against reading the frame whole; files and stores.

``python -m benchmarks.reading`` prints the table.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import xarray as xr
import zarr
from astropy.io import fits

from benchmarks._data import quadrant_path
from ztfxr.io.fits import inspect, read_window
from ztfxr.store.zarr import open_zarr, to_zarr
from ztfxr.store.zipped import ZippedStore

KINDS = ("plain", "gz", "fz lossy", "fz lossless")
STORES = ("zarr", "zarr zip")
STAMP = (slice(1500, 1563), slice(1500, 1563))
EPOCHS = 2


@cache
def frame_path(kind: str) -> Path:
    """The real science image in another kind of file, beside the plain one."""
    plain = quadrant_path()
    if kind == "plain":
        return plain
    path = plain.with_name(f"{kind.replace(' ', '-')}.fits.{kind[:2]}")
    pixels, header = fits.getdata(plain, header=True)
    if kind == "gz":
        fits.PrimaryHDU(pixels, header).writeto(path)
        return path
    packing = {"compression_type": "RICE_1", "quantize_level": 16.0, "dither_seed": 1}
    if kind == "fz lossless":
        packing = {"compression_type": "GZIP_2", "quantize_level": 0.0}
    fits.HDUList([fits.PrimaryHDU(), fits.CompImageHDU(pixels, header, **packing)]).writeto(path)
    return path


@cache
def store_path(kind: str) -> Path:
    """A stack of the real image in a store."""
    image = inspect(quadrant_path())
    pixels = read_window(image, slice(0, image.shape[0]), slice(0, image.shape[1]))
    path = quadrant_path().with_name("stack.zarr" + (".zip" if kind.endswith("zip") else ""))
    to_zarr(xr.Dataset({"sci": (("time", "y", "x"), np.stack([pixels] * EPOCHS))}), path)
    return path


def read_frame(kind: str, window: tuple[slice, slice] | None = STAMP) -> Any:
    """A window of the frame, or all of it."""
    image = inspect(frame_path(kind))
    return read_window(image, *(window or tuple(slice(0, n) for n in image.shape)))


def read_store(kind: str, window: tuple[slice, slice] | None = STAMP) -> Any:
    """The same of one epoch of a store."""
    sci = open_zarr(store_path(kind))["sci"]
    return (sci[1] if window is None else sci[1, *window]).values


def astropy_stamp(kind: str) -> Any:
    """As it is done by hand: the frame whole, then the stamp."""
    with fits.open(frame_path(kind), memmap=False) as hdus:
        return hdus[1 if kind.startswith("fz") else 0].data[STAMP].copy()


READERS: dict[str, Callable[..., Any]] = {**dict.fromkeys(KINDS, read_frame), **dict.fromkeys(STORES, read_store)}


class Stamp:
    """63 × 63 pixels out of a quadrant, from opening the file on."""

    params = ([*KINDS, *STORES], ["stamp", "whole"])
    param_names = ("kind", "what")
    timeout = 300

    def setup(self, kind: str, what: str) -> None:
        self.read, self.window = READERS[kind], STAMP if what == "stamp" else None
        self.read(kind, self.window)

    def time_read(self, kind: str, _: str) -> None:
        self.read(kind, self.window)

    def peakmem_read(self, kind: str, _: str) -> None:
        self.read(kind, self.window)


class _Counted(io.RawIOBase):
    """A file on this machine that counts what is read of it."""

    taken = 0

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb", buffering=0)
        self.name, self.mode = str(path), "rb"

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0, /) -> int:
        return self._file.seek(offset, whence)

    def readinto(self, buffer: Any, /) -> int:
        found = self._file.readinto(buffer) or 0
        _Counted.taken += found
        return found

    def fileno(self) -> int:
        return self._file.fileno()

    def close(self) -> None:
        self._file.close()
        super().close()


class _CountedStore(zarr.storage.WrapperStore[Any]):
    """A store that counts what is read of it."""

    async def get(self, key: str, prototype: Any, byte_range: Any = None) -> Any:
        found = await self._store.get(key, prototype, byte_range)
        _Counted.taken += 0 if found is None else len(found)
        return found


def _bytes_of_frame(kind: str, window: tuple[slice, slice] | None) -> int:
    """What reading pixels takes of a file; opening it not counted, nor what the system reads ahead."""
    image = inspect(frame_path(kind))
    whole = fits.open
    _Counted.taken = 0
    with (
        patch("ztfxr.io.fits.open_binary", lambda path, **_: io.BufferedReader(_Counted(path), 1)),
        patch("ztfxr.io.fits.fits.open", lambda path, **options: whole(_Counted(path), **options)),
    ):
        read_window(image, *(window or tuple(slice(0, n) for n in image.shape)))
    return _Counted.taken


def _bytes_of_store(kind: str, window: tuple[slice, slice] | None) -> int:
    path = store_path(kind)
    sci = open_zarr(_CountedStore(ZippedStore(path) if path.is_file() else zarr.storage.LocalStore(path)))["sci"]
    _Counted.taken = 0
    (sci[1] if window is None else sci[1, *window]).values  # noqa: B018
    return _Counted.taken


def _best(run: Callable[[], Any], times: int = 5) -> float:
    """Seconds."""
    found = []
    for _ in range(times):
        start = time.perf_counter()
        run()
        found.append(time.perf_counter() - start)
    return min(found)


def table() -> list[str]:
    """Bytes and times of every kind, one a line; times from opening on, the file in the system's cache."""
    lines = [f"{'':12} {'file':>9} {'stamp':>9} {'stamp':>9} {'whole':>9} {'whole':>9} {'astropy, stamp':>15}"]
    for kind, read in READERS.items():
        is_frame = kind in KINDS
        count = _bytes_of_frame if is_frame else _bytes_of_store
        size = frame_path(kind).stat().st_size if is_frame else count(kind, None)
        times = [_best(lambda r=read, k=kind, w=w: r(k, w)) * 1e3 for w in (STAMP, None)]
        by_hand = f"{_best(lambda k=kind: astropy_stamp(k), 3) * 1e3:12.1f} ms" if is_frame else ""
        taken = [count(kind, w) / 1e3 for w in (STAMP, None)]
        lines.append(
            f"{kind:12} {size / 1e6:6.1f} MB {taken[0]:6.0f} kB {times[0]:6.1f} ms "
            f"{taken[1] / 1e3:6.1f} MB {times[1]:6.1f} ms {by_hand}"
        )
    return lines


if __name__ == "__main__":
    print("\n".join(table()))
