"""One real ZTF quadrant: opening and cleaning it, and the sky position of every pixel."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import sep
from astropy.io import fits
from astropy.wcs import WCS
from numpy.typing import NDArray

import ztfxr
from benchmarks._data import quadrant_path

_PLANES = 6141
_BOX = 64


def our_clean(path: Path) -> NDArray[np.float32]:
    """Open, mask, background, clean; with ztfxr's defaults."""
    return np.asarray(ztfxr.open_quadrant(path).ztf.clean())


def clean_by_hand(path: Path) -> NDArray[np.float32]:
    """The same with astropy and sep."""
    image = fits.getdata(path).astype(np.float32)
    bad = (fits.getdata(str(path).replace("sciimg", "mskimg")).astype(np.uint16) & _PLANES) != 0
    bad |= ~np.isfinite(image)
    image[bad] = 0.0
    image -= sep.Background(image, mask=bad, bw=_BOX, bh=_BOX).back(dtype=np.float32)
    image[bad] = np.nan
    return image


def our_labels(path: Path) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """RA and Dec of all pixels, read off the labels of an opened frame."""
    frame = ztfxr.open_quadrant(path)
    return np.asarray(frame["ra"]), np.asarray(frame["dec"])


def labels_by_hand(path: Path) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """RA and Dec of all pixels by astropy."""
    header = fits.getheader(path)
    header["RADESYS"] = header.pop("RADECSYS", "ICRS")
    y, x = np.mgrid[: header["NAXIS2"], : header["NAXIS1"]]
    ra, dec = WCS(header).all_pix2world(x, y, 0)
    return ra, dec


CLEAN: dict[str, Callable[[Path], object]] = {"ztfxr": our_clean, "by hand": clean_by_hand}
LABELS: dict[str, Callable[[Path], object]] = {"ztfxr": our_labels, "by hand": labels_by_hand}


class Clean:
    """From two files to a background-subtracted image, NaN where bad."""

    params = (["ztfxr", "by hand"],)
    param_names = ("method",)

    def setup(self, method: str) -> None:
        self.path, self.run = quadrant_path(), CLEAN[method]
        self.run(self.path)

    def time_clean(self, *_: object) -> None:
        self.run(self.path)

    def peakmem_clean(self, *_: object) -> None:
        self.run(self.path)


class SkyLabels:
    """The sky position of every pixel."""

    params = (["ztfxr", "by hand"],)
    param_names = ("method",)
    timeout = 120

    def setup(self, method: str) -> None:
        self.path, self.run = quadrant_path(), LABELS[method]

    def time_labels(self, *_: object) -> None:
        self.run(self.path)

    def peakmem_labels(self, *_: object) -> None:
        self.run(self.path)
