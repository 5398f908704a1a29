"""The part of a FITS image within a window, as the archive cuts it."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.utils.exceptions import AstropyUserWarning

from ztfxr._quiet import quiet
from ztfxr.io.names import Window

__all__ = ["cut_out"]


def cut_out(source: Path | bytes, window: Window) -> bytes | None:
    """The file of the image within a window, clipped at the edges, with CRPIX and LTV shifted; None off the image.

    `source` is a file with one image, plain or packed; errors are those of astropy.
    """
    place = io.BytesIO(source) if isinstance(source, bytes) else source
    with quiet(AstropyUserWarning), fits.open(place, memmap=False) as hdus:
        index = next(i for i, hdu in enumerate(hdus) if hdu.header.get("NAXIS") == 2)
        header, shape = hdus[index].header.copy(), hdus[index].shape
        rows, columns = (
            _span(center, side, n)
            for center, side, n in zip((window.y, window.x), (window.height, window.width), shape, strict=True)
        )
        if rows.start >= rows.stop or columns.start >= columns.stop:
            return None
        pixels = np.ascontiguousarray(hdus[index].section[rows, columns])
    for axis, start in ((1, columns.start), (2, rows.start)):
        header[f"LTV{axis}"] = float(header.get(f"LTV{axis}", 0.0)) - start
        if f"CRPIX{axis}" in header:
            header[f"CRPIX{axis}"] -= start
    for card in ("XTENSION", "CHECKSUM", "DATASUM"):
        header.remove(card, ignore_missing=True)
    out = io.BytesIO()
    fits.PrimaryHDU(pixels, header).writeto(out, output_verify="silentfix")
    return out.getvalue()


def _span(center: int, side: int, n: int) -> slice:
    start = center - 1 - side // 2
    return slice(max(0, start), max(0, min(n, start + side)))
