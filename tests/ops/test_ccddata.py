"""Images to and from `CCDData`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from astropy import units as u
from astropy.io import fits
from astropy.nddata import CCDData, InverseVariance, StdDevUncertainty, UnknownUncertainty, VarianceUncertainty
from astropy.wcs import WCS

import ztfxr
from tests.conftest import MakeHeader, WriteFrame
from ztfxr.errors import InputError


@pytest.fixture(scope="module")
def frame(write_frame_in: WriteFrame, tmp_path_factory: pytest.TempPathFactory) -> xr.Dataset:
    """A frame with mask and variance, loaded."""
    out = ztfxr.open_quadrant(write_frame_in(tmp_path_factory.mktemp("frame")))
    return out.assign(variance=ztfxr.variance(out, method="photon")).load()


def windows() -> dict[str, Any]:
    return {
        "frame": lambda f: f,
        "cut": lambda f: f.isel(y=slice(5, 40), x=slice(11, 30)),
        "stamp over the edge": lambda f: ztfxr.stamp(f, x=2, y=46, size=(15, 21)),
        "no wcs": lambda f: ztfxr.drop_wcs(f).isel(y=slice(5, 40)),
    }


@pytest.mark.parametrize("window", windows())
def test_round_trip(frame: xr.Dataset, window: str) -> None:
    original = windows()[window](frame)
    back = ztfxr.from_ccddata(original.ztf.to_ccddata())
    xr.testing.assert_equal(back, original)
    assert {n: v.dtype for n, v in back.data_vars.items()} == {n: v.dtype for n, v in original.data_vars.items()}
    for name in ("sci", "variance", "flags", "gain", "seeing", "x"):
        assert back[name].attrs == original[name].attrs
    if window != "no wcs":
        np.testing.assert_array_equal(back["ra"], original["ra"])
        assert (back["sci"] - frame["sci"]).sizes == (original["sci"] - frame["sci"]).sizes


@pytest.mark.parametrize("window", ["frame", "cut", "stamp over the edge"])
def test_astropy_sees_the_same_sky(frame: xr.Dataset, window: str) -> None:
    original = windows()[window](frame)
    ccd = ztfxr.to_ccddata(original)
    y, x = np.indices(ccd.shape)
    ra, dec = ccd.wcs.all_pix2world(x, y, 0)
    np.testing.assert_allclose(ra, original["ra"], rtol=0, atol=1e-9)
    np.testing.assert_allclose(dec, original["dec"], rtol=0, atol=1e-9)


def test_the_parts_are_astropys(frame: xr.Dataset) -> None:
    ccd = ztfxr.to_ccddata(frame)
    assert ccd.unit == u.adu
    assert isinstance(ccd.uncertainty, VarianceUncertainty)
    np.testing.assert_array_equal(ccd.uncertainty.array, frame["variance"])
    np.testing.assert_array_equal(ccd.mask, ztfxr.mask(frame))
    np.testing.assert_array_equal(ccd.flags, frame["flags"])
    assert ccd.header["MAGZP"] == 26.285139
    assert ccd.header.comments["EXPTIME"] == "Exposure time (s)"
    doubled = ccd.add(ccd)
    np.testing.assert_allclose(doubled.uncertainty.array, 2 * frame["variance"], rtol=1e-6)


def test_the_mask_can_be_chosen(frame: xr.Dataset) -> None:
    own = ztfxr.mask(frame, ["saturated"])
    ccd = ztfxr.to_ccddata(frame, mask=own)
    np.testing.assert_array_equal(ccd.mask, own)
    back = ztfxr.from_ccddata(ccd)
    np.testing.assert_array_equal(back["mask"], own)
    np.testing.assert_array_equal(back["flags"], frame["flags"])
    assert ztfxr.to_ccddata(frame["sci"]).mask is None
    assert not ztfxr.to_ccddata(frame, mask=False).mask.any()


def test_lazy_and_transposed_images_give_the_same(frame: xr.Dataset) -> None:
    expected = ztfxr.to_ccddata(frame)
    for image in (frame.chunk({"y": 10}), ztfxr.drop_wcs(frame).transpose("x", "y")):
        found = ztfxr.to_ccddata(image)
        np.testing.assert_array_equal(found.data, expected.data)
        np.testing.assert_array_equal(found.mask, expected.mask)


def test_changed_coordinates_reach_the_header(frame: xr.Dataset) -> None:
    changed = frame.assign_coords(magzp=25.0, filter="ztfi", mjd=59000.5, field=700, saturate=np.nan)
    changed = changed.assign_coords(time=np.datetime64("2020-05-31T12:00:00", "ns"))
    ccd = ztfxr.to_ccddata(changed)
    assert (ccd.header["MAGZP"], ccd.header["FILTERID"], ccd.header["FILTER"]) == (25.0, 3, "ZTF_i")
    assert (ccd.header["MJD-AVG"], ccd.header["FIELDID"]) == (59000.5, 700)
    xr.testing.assert_equal(ztfxr.from_ccddata(ccd).reset_coords(), changed.reset_coords())


def test_a_sliced_ccd_keeps_its_place(frame: xr.Dataset) -> None:
    for image in (frame, frame.isel(y=slice(3, 40), x=slice(7, 35))):
        part = ztfxr.from_ccddata(ztfxr.to_ccddata(image)[6:20, 4:21])
        expected = image.isel(y=slice(6, 20), x=slice(4, 21))
        xr.testing.assert_equal(part["sci"], expected["sci"])
        xr.testing.assert_equal(part["variance"], expected["variance"])
        np.testing.assert_array_equal(part["mask"], ztfxr.mask(expected))


def test_a_wcs_that_was_changed_wins_over_the_header(frame: xr.Dataset) -> None:
    ccd = ztfxr.to_ccddata(frame)
    ccd.wcs.wcs.crval = ccd.wcs.wcs.crval + 0.01
    ccd.wcs.wcs.set()
    back = ztfxr.from_ccddata(ccd)
    ra, dec = ccd.wcs.all_pix2world(np.arange(40.0), 3.0, 0)
    np.testing.assert_allclose(back["ra"][3], ra, rtol=0, atol=1e-9)
    np.testing.assert_allclose(back["dec"][3], dec, rtol=0, atol=1e-9)


def test_written_and_read_by_astropy(frame: xr.Dataset, tmp_path: Path) -> None:
    cut = frame.isel(y=slice(5, 40), x=slice(11, 30))
    ztfxr.to_ccddata(cut).write(tmp_path / "ccd.fits")
    back = ztfxr.from_ccddata(CCDData.read(tmp_path / "ccd.fits"))
    np.testing.assert_array_equal(back["sci"], cut["sci"])
    np.testing.assert_allclose(back["variance"], cut["variance"])
    np.testing.assert_array_equal(back["mask"], ztfxr.mask(cut))
    np.testing.assert_allclose(back["ra"], cut["ra"], rtol=0, atol=1e-9)
    np.testing.assert_allclose(back["dec"], cut["dec"], rtol=0, atol=1e-9)
    assert float(back["magzp"]) == float(cut["magzp"])


@pytest.mark.parametrize(
    ("kind", "stored"), [(VarianceUncertainty, 4.0), (StdDevUncertainty, 2.0), (InverseVariance, 0.25)]
)
def test_foreign_ccds(kind: Any, stored: float, wcs_header: MakeHeader) -> None:
    pixels = np.arange(12.0).reshape(3, 4)
    meta = {"OBJECT": "M31", "EXPTIME": 60.0, "MJD-OBS": 59000.0, "FILTER": "V"}
    wcs = WCS(wcs_header((3, 4)))
    ccd = CCDData(
        pixels, unit="electron", uncertainty=kind(np.full((3, 4), stored)), mask=pixels > 10, meta=meta, wcs=wcs
    )
    out = ztfxr.from_ccddata(ccd)
    np.testing.assert_allclose(out["variance"], 4.0)
    assert (out["sci"].attrs["units"], out["variance"].attrs["units"]) == ("electron", "electron2")
    np.testing.assert_array_equal(out["mask"], pixels > 10)
    assert (str(out["filter"].values), float(out["exptime"])) == ("V", 60.0)
    assert float(out["mjd"]) == pytest.approx(59000.0 + 30 / 86400, abs=1e-9)
    assert "OBJECT" in fits.Header.fromstring(out.attrs["header"], sep="\n")
    np.testing.assert_allclose(out["ra"][1, 2], wcs.all_pix2world(2, 1, 0)[0], rtol=0, atol=1e-9)
    back = ztfxr.to_ccddata(out)
    assert (back.unit, back.uncertainty.unit) == (u.electron, u.electron**2)


def test_what_cannot_be_converted_is_refused(frame: xr.Dataset) -> None:
    stack = xr.concat([frame, frame], dim="time", coords="minimal", compat="override")
    with pytest.raises(InputError, match=r"one image \(y, x\); this has \('time', 'y', 'x'\)"):
        ztfxr.to_ccddata(stack)
    with pytest.raises(InputError, match="x does not count single pixels"):
        ztfxr.to_ccddata(frame.isel(x=slice(None, None, 2)))
    with pytest.raises(InputError, match="the unit 'parrots' is none that astropy knows"):
        ztfxr.to_ccddata(frame.assign(sci=frame["sci"].assign_attrs(units="parrots")))
    with pytest.raises(InputError, match=r"this CCDData has shape \(3,\)"):
        ztfxr.from_ccddata(CCDData(np.zeros(3), unit="adu"))
    with pytest.raises(InputError, match="uncertainty is of no known kind"):
        ztfxr.from_ccddata(CCDData(np.zeros((2, 2)), unit="adu", uncertainty=UnknownUncertainty(np.ones((2, 2)))))


def test_a_slice_without_the_frames_header_begins_at_0(frame: xr.Dataset) -> None:
    """Nothing says where it began, but every pixel keeps its sky."""
    ccd = ztfxr.to_ccddata(frame)[3:9, 4:9]
    ccd.meta = fits.Header()
    out = ztfxr.from_ccddata(ccd)
    assert (int(out["x"][0]), int(out["y"][0])) == (0, 0)
    np.testing.assert_allclose(out["ra"], frame["ra"][3:9, 4:9], rtol=0, atol=1e-9)
    np.testing.assert_allclose(out["dec"], frame["dec"][3:9, 4:9], rtol=0, atol=1e-9)


def test_without_a_wcs_a_slice_loses_its_place(frame: xr.Dataset) -> None:
    ccd = ztfxr.to_ccddata(ztfxr.drop_wcs(frame).isel(y=slice(5, 40)))
    assert int(ztfxr.from_ccddata(ccd)["y"][0]) == 5
    assert int(ztfxr.from_ccddata(ccd[2:])["y"][0]) == 0
