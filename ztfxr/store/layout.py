"""How variables are cut into files: images in small tiles, an epoch a file, all else whole."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

__all__ = ["IMAGE_DIMS", "chunk_encoding", "file_shape"]

IMAGE_DIMS = ("y", "x")
_TILE = 192
_MAX_CHUNK_BYTES = 2**24


def _is_image(var: xr.Variable) -> bool:
    return var.dims[-2:] == IMAGE_DIMS and var.dtype.kind in "biufc"


def _tile(size: int) -> int:
    """Even tiles of at most 192 pixels: 182 for a size of 3080, which pads 14 rows where 192 would pad 184.

    A stamp of 63 pixels takes some 180 kB of a quadrant's 31 MB in such tiles, 260 kB in tiles of 256, 110 kB in tiles
    of 128, which take twice as long to write.
    """
    count = max(1, -(-size // _TILE))
    return max(1, -(-size // count))


def _tiles(var: xr.Variable) -> tuple[int, ...]:
    """Shape of the tiles of an image: one epoch deep."""
    return (1,) * (var.ndim - 2) + tuple(_tile(n) for n in var.shape[-2:])


def file_shape(var: xr.Variable) -> tuple[int, ...]:
    """Shape of what one file holds: one epoch of an image, in whole tiles; else the variable, split above 16 MiB."""
    if _is_image(var):
        tiles = _tiles(var)
        return tiles[:-2] + tuple(max(1, -(-n // t)) * t for n, t in zip(var.shape[-2:], tiles[-2:], strict=True))
    shape = [max(1, n) for n in var.shape]
    while np.prod(shape, dtype=float) * var.dtype.itemsize > _MAX_CHUNK_BYTES and max(shape) > 1:
        longest = shape.index(max(shape))
        shape[longest] = -(-shape[longest] // 2)
    return tuple(shape)


def chunk_encoding(var: xr.Variable) -> dict[str, Any]:
    """The layout of a variable in xarray's words."""
    if not var.ndim:
        return {}
    shape = file_shape(var)
    if _is_image(var) and _tiles(var) != shape:
        return {"chunks": _tiles(var), "shards": shape}
    return {"chunks": shape}
