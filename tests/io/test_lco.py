"""LCO frames: real BANZAI files."""

from __future__ import annotations

import dask
import numpy as np
import pytest
from astropy.io import fits
from astropy.time import Time

import ztfxr


@pytest.fixture
def banzai(shared):
    path = shared / "data" / "lco" / "banzai_test_frame.fits.fz"
    if not path.is_file():
        pytest.skip(f"no {path}")
    return path


@pytest.fixture
def cropped(shared):
    path = shared / "data" / "lco" / "lsc1m005-fl15-20170614-0130-e91_cropped.fits.gz"
    if not path.is_file():
        pytest.skip(f"no {path}")
    return path


def refuse(*args, **kwargs):
    raise AssertionError("computed")


def test_a_compressed_frame_is_opened_lazily(banzai):
    with dask.config.set(scheduler=refuse):
        ds = ztfxr.open_lco(banzai)
    with fits.open(banzai) as hdus:
        np.testing.assert_array_equal(ds.sci.values, hdus["SCI"].data)
        np.testing.assert_array_equal((ds.flags.values & 512) != 0, hdus["BPM"].data != 0)
        header = hdus["SCI"].header
    # MJD-OBS is the raw start (RWSTART), 1.4 s before the shutter opened; DATE-OBS says that, and says it finer.
    opened = Time(header["DATE-OBS"], scale="utc").mjd
    assert float(ds.mjd) == pytest.approx(opened + header["EXPTIME"] / 2 / 86400, abs=1e-9)
    assert ds.attrs["time_note"] == "time from DATE-OBS; MJD-OBS differs by -1.410 s"
    assert ds.sci.dtype == np.float32
    assert ds.seeing.attrs["units"] == "arcsec"
    assert ztfxr.pixel_to_sky(ds, 10, 20).ra.deg == pytest.approx(float(ds.ra[20, 10]))


def test_a_cropped_frame_needs_no_mask(cropped):
    with pytest.raises(ztfxr.ShapeError, match=r"the BPM is .4096, 4096.*mask=False"):
        ztfxr.open_lco(cropped)
    ds = ztfxr.open_lco(cropped, mask=False)
    assert ds.sci.shape == (400, 400)
    assert np.isfinite(ds.sci.values).all()
    assert str(ds["filter"].values) == "ip"


def test_the_catalog_is_zero_based_and_sorted(cropped, banzai):
    cat = ztfxr.read_lco_catalog(cropped)
    with fits.open(cropped) as hdus:
        table = hdus["CAT"].data
        brightest = int(np.argmax(table["FLUX"]))
        assert float(cat.x_centroid[0]) == table["X"][brightest] - 1
        assert float(cat.ra[0]) == table["RA"][brightest]
    assert (np.diff(cat.flux) <= 0).all()
    assert "ra" not in ztfxr.read_lco_catalog(banzai)


def test_catalog_positions_fall_on_stars(banzai):
    ds, cat = ztfxr.open_lco(banzai), ztfxr.read_lco_catalog(banzai)
    image = ds.sci.values
    sky, spread = np.median(image), 1.4826 * np.median(np.abs(image - np.median(image)))
    on_star = []
    for x, y in zip(cat.x_centroid.values, cat.y_centroid.values, strict=True):
        ix, iy = round(float(x)), round(float(y))
        if 3 < ix < image.shape[1] - 4 and 3 < iy < image.shape[0] - 4:
            on_star.append(image[iy - 3 : iy + 4, ix - 3 : ix + 4].mean() > sky + 5 * spread / 7)
    assert len(on_star) > 25
    assert np.mean(on_star) > 0.9


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "a.fits"
    fits.PrimaryHDU(np.zeros((4, 4))).writeto(path)
    with pytest.raises(ztfxr.ShapeError, match="no 2-D image named SCI"):
        ztfxr.open_lco(path)
    with pytest.raises(ztfxr.ShapeError, match="no table named CAT"):
        ztfxr.read_lco_catalog(path)
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(np.zeros((4, 4)), name="SCI")]).writeto(tmp_path / "b.fits")
    with pytest.raises(ztfxr.HeaderError, match="the header has no EXPTIME; is this a LCO science image"):
        ztfxr.open_lco(tmp_path / "b.fits")
