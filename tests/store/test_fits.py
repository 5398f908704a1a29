"""Images as FITS files, and read again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from astropy.io import fits
from astropy.wcs import WCS

import ztfxr
from tests.conftest import WriteFrame, make_sky
from ztfxr.errors import InputError, NotFITSError, ShapeError, StoreError, TruncatedFileError
from ztfxr.io.fits import inspect


@pytest.fixture(scope="module")
def frame(write_frame_in: WriteFrame, tmp_path_factory: pytest.TempPathFactory) -> xr.Dataset:
    """A frame with mask and variance, lazy."""
    out = ztfxr.open_quadrant(write_frame_in(tmp_path_factory.mktemp("frame")))
    return out.assign(variance=ztfxr.variance(out, method="photon"))


def windows() -> dict[str, Any]:
    return {
        "frame": lambda f: f,
        "cut": lambda f: f.isel(y=slice(5, 40), x=slice(11, 30)),
        "stamp over the edge": lambda f: ztfxr.stamp(f, x=2, y=46, size=(15, 21)),
        "no wcs": lambda f: ztfxr.drop_wcs(f).isel(y=slice(5, 40)),
    }


@pytest.mark.parametrize("suffix", [".fits", ".fit", ".fits.gz"])
@pytest.mark.parametrize("window", windows())
def test_round_trip(frame: xr.Dataset, tmp_path: Path, window: str, suffix: str) -> None:
    original = windows()[window](frame)
    path = tmp_path / f"image{suffix}"
    assert original.ztf.to_fits(path) is None
    back = ztfxr.open_fits(path)
    assert back["sci"].chunks is not None
    xr.testing.assert_equal(back.compute(), original.compute())
    assert {n: v.dtype for n, v in back.variables.items()} == {n: v.dtype for n, v in original.variables.items()}
    for name in original.variables:
        assert back[name].attrs.get("units") == original[name].attrs.get("units"), name
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    if window != "no wcs":
        np.testing.assert_array_equal(back["ra"], original["ra"])


def test_a_second_generation_is_like_the_first(frame: xr.Dataset, tmp_path: Path) -> None:
    """A stamp of a stamp, written, read and written again, is where it was."""
    first = frame.isel(y=slice(5, 40), x=slice(11, 30))
    ztfxr.to_fits(first, tmp_path / "a.fits")
    again = ztfxr.open_fits(tmp_path / "a.fits").isel(y=slice(3, 20), x=slice(2, 9))
    ztfxr.to_fits(again, tmp_path / "b.fits")
    back = ztfxr.open_fits(tmp_path / "b.fits")
    xr.testing.assert_equal(back.compute(), frame.isel(y=slice(8, 25), x=slice(13, 20)).compute())
    assert fits.getheader(tmp_path / "b.fits")["LTV1"] == -13.0
    whole = ztfxr.open_fits(tmp_path / "a.fits")
    assert (whole["sci"] - frame["sci"]).sizes == first["sci"].sizes


def test_other_programs_see_the_right_sky(frame: xr.Dataset, tmp_path: Path) -> None:
    cut = frame.isel(y=slice(5, 40), x=slice(11, 30))
    ztfxr.to_fits(cut, tmp_path / "cut.fits")
    with fits.open(tmp_path / "cut.fits", checksum=True) as hdus:
        assert [h.name for h in hdus] == ["SCI", "MSK", "VAR"]
        for hdu in hdus:
            y, x = np.indices(hdu.shape)
            ra, dec = WCS(hdu.header).all_pix2world(x, y, 0)
            np.testing.assert_allclose(ra, cut["ra"], rtol=0, atol=1e-9)
            np.testing.assert_allclose(dec, cut["dec"], rtol=0, atol=1e-9)
            # ds9's physical coordinates are 1-based pixels of the full frame.
            assert (1 - hdu.header["LTV1"], 1 - hdu.header["LTV2"]) == (12, 6)
        assert (hdus["SCI"].header["BUNIT"], hdus["VAR"].header["BUNIT"]) == ("adu", "adu2")
        np.testing.assert_array_equal(hdus[0].data, cut["sci"])
    np.testing.assert_array_equal(fits.getdata(tmp_path / "cut.fits"), cut["sci"])


def test_the_real_header_is_kept(plain_quadrant_path: Path, tmp_path: Path) -> None:
    image = ztfxr.open_quadrant(plain_quadrant_path).isel(y=slice(0, 60), x=slice(0, 50))
    ztfxr.to_fits(image, tmp_path / "cut.fits")
    old, new = fits.getheader(plain_quadrant_path), fits.getheader(tmp_path / "cut.fits")
    ours = {"SIMPLE", "NAXIS", "NAXIS1", "NAXIS2", "PCOUNT", "GCOUNT", "EXTNAME", "BUNIT", "BITPIX", "EXTEND"}
    kept = [c for c in old.cards if c.keyword not in ours]
    assert len(kept) > 250
    assert [str(c) for c in new.cards if c.keyword in old and c.keyword not in ours] == [str(c) for c in kept]
    mask = fits.getheader(plain_quadrant_path.with_name(plain_quadrant_path.name.replace("sciimg", "mskimg")))
    planes = fits.getheader(tmp_path / "cut.fits", "MSK")
    for bit in range(15):
        card = f"BIT{bit:02d}"
        assert (planes[card], planes.comments[card]) == (mask[card], mask.comments[card])
    assert planes["BITPIX"] == mask["BITPIX"] == 16
    assert "BZERO" not in planes
    assert list(planes).index("COMMENT") < list(planes).index("BIT00")


def test_planes_that_need_the_sign_bit_stay_positive(frame: xr.Dataset, tmp_path: Path) -> None:
    padded = ztfxr.stamp(frame, x=2, y=46, size=15)
    assert int(padded["flags"].max()) >= 1 << 15
    ztfxr.to_fits(padded, tmp_path / "padded.fits")
    np.testing.assert_array_equal(fits.getdata(tmp_path / "padded.fits", "MSK"), padded["flags"])
    assert fits.getheader(tmp_path / "padded.fits", "MSK").comments["BIT15"] == "OUTSIDE THE FRAME (SET BY ZTFXR)"


def test_changed_coordinates_reach_the_file(frame: xr.Dataset, tmp_path: Path) -> None:
    changed = frame.assign_coords(magzp=25.0, gain=np.nan, filter="ztfg", exptime=60.0)
    ztfxr.to_fits(changed, tmp_path / "image.fits")
    back = ztfxr.open_fits(tmp_path / "image.fits")
    for name in ("magzp", "gain", "filter", "exptime", "mjd", "time"):
        xr.testing.assert_equal(back[name].reset_coords(drop=True), changed[name].reset_coords(drop=True))


def test_a_time_without_mjd_is_kept(frame: xr.Dataset, tmp_path: Path) -> None:
    own = xr.Dataset({"sci": frame["sci"].variable}, coords={"time": np.datetime64("2021-02-03T04:05:06.789012", "ns")})
    ztfxr.to_fits(own, tmp_path / "image.fits")
    assert ztfxr.open_fits(tmp_path / "image.fits")["time"].values == own["time"].values


def test_an_image_that_lost_its_wcs_is_written_without(frame: xr.Dataset, tmp_path: Path) -> None:
    """The header text still has the WCS of the full frame, which would be wrong for these pixels."""
    bare = ztfxr.drop_wcs(frame)
    ztfxr.to_fits(bare, tmp_path / "bare.fits")
    header = fits.getheader(tmp_path / "bare.fits")
    assert not [c for c in header if c.startswith(("CTYPE", "CRVAL", "CD1", "PV1"))]
    assert "ra" not in ztfxr.open_fits(tmp_path / "bare.fits").coords
    with pytest.raises(InputError, match="x does not count single pixels"):
        ztfxr.to_fits(frame.isel(x=slice(None, None, 2)), tmp_path / "thinned.fits")


def test_any_variables_and_dtypes(frame: xr.Dataset, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    shape = (frame.sizes["y"], frame.sizes["x"])
    pixels = {
        "background": rng.normal(size=shape).astype(np.float32),
        "mask": rng.random(shape) > 0.5,
        "counts": rng.integers(0, 2**32, shape, dtype=np.uint32),
        "small": rng.integers(-128, 127, shape, dtype=np.int8),
        "half": rng.normal(size=shape).astype(np.float16),
        "double": rng.normal(size=shape),
    }
    image = xr.Dataset({k: (("y", "x"), v) for k, v in pixels.items()})
    image["double"].attrs["units"] = "uJy"
    ztfxr.to_fits(image, tmp_path / "many.fits")
    back = ztfxr.open_fits(tmp_path / "many.fits")
    xr.testing.assert_equal(back.compute().reset_coords(drop=True).drop_vars(["x", "y"]), image)
    assert {n: v.dtype for n, v in back.data_vars.items()} == {n: v.dtype for n, v in image.data_vars.items()}
    assert back["double"].attrs["units"] == "uJy"
    with fits.open(tmp_path / "many.fits") as hdus:
        assert hdus[0].name == "BACKGROUND"
        assert hdus["MASK"].data.dtype == np.uint8


def test_a_data_array(frame: xr.Dataset, tmp_path: Path) -> None:
    image = frame["sci"].rename(None).transpose("x", "y").drop_vars(["ra", "dec"])
    image.ztf.to_fits(tmp_path / "one.fits")
    back = ztfxr.open_fits(tmp_path / "one.fits")
    assert list(back.data_vars) == ["sci"]
    np.testing.assert_array_equal(back["sci"], frame["sci"])
    assert float(back["magzp"]) == float(frame["magzp"])


def test_ztfxrs_other_readers_read_it(frame: xr.Dataset, tmp_path: Path) -> None:
    ztfxr.to_fits(frame, tmp_path / "image.fits")
    own = ztfxr.open_quadrant(tmp_path / "image.fits", mask=False)
    np.testing.assert_array_equal(own["sci"], frame["sci"])
    xr.testing.assert_equal(own["time"].reset_coords(drop=True), frame["time"].reset_coords(drop=True))


def test_foreign_files(tmp_path: Path, shared: Path) -> None:
    pixels = make_sky((6, 7))
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(pixels, name="SCI"), fits.ImageHDU(2 * pixels, name="ERR")]).writeto(
        tmp_path / "two.fits"
    )
    back = ztfxr.open_fits(tmp_path / "two.fits")
    np.testing.assert_array_equal(back["err"], 2 * pixels)
    lco = ztfxr.open_fits(shared / "data" / "lco" / "banzai_test_frame.fits.fz")
    own = ztfxr.open_lco(shared / "data" / "lco" / "banzai_test_frame.fits.fz")
    np.testing.assert_array_equal(lco["sci"], own["sci"])
    assert float(lco["mjd"]) == float(own["mjd"])
    assert lco["bpm"].sizes == own["flags"].sizes


def test_an_lco_frame_survives(shared: Path, tmp_path: Path) -> None:
    """Its cards have other names: the coordinates decide what is written."""
    original = ztfxr.open_lco(shared / "data" / "lco" / "banzai_test_frame.fits.fz")
    ztfxr.to_fits(original, tmp_path / "lco.fits")
    back = ztfxr.open_fits(tmp_path / "lco.fits")
    for name in ("sci", "flags", "gain", "readnoise", "saturate", "seeing", "time", "mjd", "filter", "exptime"):
        np.testing.assert_array_equal(back[name], original[name])
        assert back[name].attrs.get("units") == original[name].attrs.get("units"), name


def test_nothing_is_replaced_unasked(frame: xr.Dataset, tmp_path: Path) -> None:
    path = tmp_path / "image.fits"
    path.write_text("mine")
    with pytest.raises(StoreError, match="exists already; write elsewhere, or replace it with overwrite=True"):
        ztfxr.to_fits(frame, path)
    assert path.read_text() == "mine"
    ztfxr.to_fits(frame, path, overwrite=True)
    # Its own lazy source may be replaced too: what is read is read before.
    ztfxr.to_fits(ztfxr.open_fits(path).isel(y=slice(0, 9)), path, overwrite=True)
    assert ztfxr.open_fits(path).sizes["y"] == 9
    with pytest.raises(StoreError, match="is a folder"):
        ztfxr.to_fits(frame, _folder(tmp_path / "folder.fits"), overwrite=True)
    with pytest.raises(StoreError, match="cannot be written"):
        ztfxr.to_fits(frame, tmp_path / "nowhere" / "image.fits")


def _folder(path: Path) -> Path:
    path.mkdir()
    return path


def test_a_failure_leaves_nothing_behind(frame: xr.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "image.fits"
    ztfxr.to_fits(frame, path)
    before = path.read_bytes()

    def half(self: fits.HDUList, target: Path, **options: Any) -> None:
        target.write_bytes(b"SIMPLE  =")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(fits.HDUList, "writeto", half)
    with pytest.raises(StoreError, match="No space left"):
        ztfxr.to_fits(frame, path, overwrite=True)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["image.fits"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.expand_dims("time"), r"is on \(y, x\); got .*'time', 'y', 'x'"),
        (lambda f: f.assign(flux=("source", [1.0])), r"got \{'flux': \('source',\)\}.*to_zarr"),
        (lambda f: f.drop_vars(list(f.data_vars)), "got no variable"),
        (lambda f: f.isel(y=slice(0, 0)), "the image has no pixels"),
        (lambda f: f.assign(wave=f["sci"] * 1j), r"no pixels of dtype complex64 \(wave\)"),
    ],
)
def test_what_fits_cannot_hold_is_refused(frame: xr.Dataset, tmp_path: Path, change: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        ztfxr.to_fits(change(frame), tmp_path / "image.fits")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["image.fits.fz", "image.png", "image"])
def test_other_suffixes_are_refused(frame: xr.Dataset, tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=r"a FITS file is named \.fits"):
        ztfxr.to_fits(frame, tmp_path / name)


def test_files_that_cannot_be_opened(frame: xr.Dataset, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        ztfxr.open_fits(tmp_path / "none.fits")
    (tmp_path / "page.fits").write_text("<html>log in</html>")
    with pytest.raises(NotFITSError):
        ztfxr.open_fits(tmp_path / "page.fits")
    ztfxr.to_fits(frame, tmp_path / "image.fits")
    (tmp_path / "cut.fits").write_bytes((tmp_path / "image.fits").read_bytes()[:-8000])
    with pytest.raises(TruncatedFileError):
        ztfxr.open_fits(tmp_path / "cut.fits")
    images = [fits.PrimaryHDU(np.zeros((2, 2))), fits.ImageHDU(np.zeros((2, 2)), name="A")]
    fits.HDUList([*images, fits.ImageHDU(np.zeros((2, 2)), name="A")]).writeto(tmp_path / "twice.fits")
    with pytest.raises(InputError, match=r"several images have one name \(PRIMARY, A, A\)"):
        ztfxr.open_fits(tmp_path / "twice.fits")
    fits.HDUList([*images, fits.ImageHDU(np.zeros((3, 2)), name="B")]).writeto(tmp_path / "shapes.fits")
    with pytest.raises(ShapeError, match=r"the image B is \(3, 2\) \(y, x\), the first one \(2, 2\)"):
        ztfxr.open_fits(tmp_path / "shapes.fits")


def test_a_dtype_card_that_lies_is_not_believed(frame: xr.Dataset, tmp_path: Path) -> None:
    for text in ("object", "no dtype", "M8[ns]"):
        ztfxr.to_fits(frame, tmp_path / "image.fits", overwrite=True)
        fits.setval(tmp_path / "image.fits", "ZXR_TYPE", value=text)
        assert ztfxr.open_fits(tmp_path / "image.fits")["sci"].dtype == np.float32


def test_opening_reads_no_pixel(frame: xr.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ztfxr.to_fits(frame, tmp_path / "image.fits")
    monkeypatch.setattr("ztfxr.io.backend.read_window", lambda *a: pytest.fail("a pixel was read on opening"))
    ztfxr.open_fits(tmp_path / "image.fits")
    assert inspect(tmp_path / "image.fits", "MSK").shape == (48, 40)
