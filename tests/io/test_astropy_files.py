"""Every FITS file of astropy's own tests: an image reads as astropy reads it, or is refused by an error of ztfxr's."""

from __future__ import annotations

import warnings
from pathlib import Path

import astropy
import numpy as np
import pytest
from astropy.io import fits
from numpy.typing import NDArray

import ztfxr
from ztfxr.errors import ZtfxrError
from ztfxr.io.cameras import FITS

ROOT = Path(astropy.__file__).parent
FILES = sorted(p for p in ROOT.rglob("*") if p.suffix in (".fits", ".fit", ".fts", ".gz", ".fz") and "fit" in p.name)
ANY = FITS.with_cards(None, time=59000.0, exptime=1.0)


def expected(path: Path) -> NDArray[np.float32] | None:
    """The first image with two axes, as astropy has it; None where astropy has none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with fits.open(path) as hdus:
                for hdu in hdus:
                    if hdu.is_image and hdu.data is not None and hdu.data.ndim == 2:
                        return np.asarray(hdu.data, dtype=np.float32)
        except Exception:
            return None
    return None


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
def test_pixels_are_astropys(path: Path) -> None:
    try:
        found = ztfxr.open_frame(path, camera=ANY)["sci"].values
    except (ZtfxrError, FileNotFoundError):
        return
    right = expected(path)
    assert right is not None
    np.testing.assert_array_equal(found, right)


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
def test_images_by_name_are_astropys(path: Path) -> None:
    try:
        found = ztfxr.open_fits(path).load()
    except (ZtfxrError, FileNotFoundError):
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with fits.open(path) as hdus:
            images = [np.asarray(h.data) for h in hdus if h.is_image and h.data is not None and h.data.ndim == 2]
    assert len(found.data_vars) == len(images)
    for variable, image in zip(found.data_vars.values(), images, strict=True):
        np.testing.assert_array_equal(variable.values, image.astype(variable.dtype))


def test_there_are_files() -> None:
    assert len(FILES) > 20
