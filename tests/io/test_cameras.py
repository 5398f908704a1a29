"""Cameras as data: real frames of five, a toy one, and what headers, masks and units of others mean."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.time import Time
from astropy.wcs import WCS, FITSFixedWarning

import ztfxr
from ztfxr._quiet import quiet
from ztfxr.errors import HeaderError, InputError, MissingMaskError, ShapeError
from ztfxr.io.cameras import CAMERAS, ZTF, Camera, Layer, get_camera, unit_of
from ztfxr.io.cards import window_start
from ztfxr.ops.exposure import gather
from ztfxr.schema import STATUS_PLANES, Plane, planes_to_bits

PIXELS = np.arange(30, dtype=np.float32).reshape(5, 6)


def bad_pixels(frame: xr.Dataset) -> list[list[int]]:
    """Rows and columns of the pixels that are bad by the planes of the frame's own mask."""
    return np.argwhere((frame["flags"].values & gather(frame).bad_bits) != 0).tolist()


def write(path: Path, pixels: Any = PIXELS, *cards: str, beside: dict[str, Any] | None = None, **values: Any) -> Path:
    """A frame with cards as they stand in a file (`cards`) or as values, and further named images."""
    header = fits.Header()
    for key, value in {"MJD-OBS": 56470.5, "EXPTIME": 100.0, "GAIN": 2.0, "RDNOISE": 5.0, **values}.items():
        if value is not None:
            header[key.replace("_", "-")] = value
    hdus = [fits.PrimaryHDU(pixels, header), *(fits.ImageHDU(v, name=k) for k, v in (beside or {}).items())]
    fits.HDUList(hdus).writeto(path)
    if cards:
        raw = path.read_bytes()
        end = raw.index(b"END".ljust(80))
        added = b"".join(card.ljust(80).encode() for card in cards)
        assert end + len(added) + 80 <= 2880
        path.write_bytes(raw[:end] + added + raw[end : 2880 - len(added)] + raw[2880:])
    return path


# real frames, by nothing but the camera's name; the numbers are worked out by hand from the headers


REAL: dict[str, tuple[str, dict[str, Any], str]] = {
    # OBSMJD 59116.4317708 is 10:21:44.997; the middle of 30 s.
    "ztf": (
        "ztf_quadrant/ztf_20200924431759_000655_zr_c13_o_q3_sciimg.fits.gz",
        {"gain": 6.0, "readnoise": 9.0, "saturate": 58647.152, "exptime": 30.0, "filter": "ztfr", "field": 655},
        "2020-09-24T10:21:59.997",
    ),
    # UTSTART 21:16:05.072 and UTSTOP 21:16:50.337.
    "lco": (
        "lco/banzai_test_frame.fits.fz",
        {"gain": 1.0, "readnoise": 16.4, "saturate": 153440.0, "exptime": 45.265, "filter": "w"},
        "2016-06-25T21:16:27.7045",
    ),
    # UT 23:13:12 and half of 300.045 s; the same as PHJDMID less its heliocentric correction of 506.42 s.
    "saao": (
        "saao_kb13475/AKB13475I0001.fits.gz",
        {"gain": 1.9, "readnoise": 5.0, "saturate": 65000.0, "exptime": 300.045, "filter": "I"},
        "2013-06-27T23:15:42.0225",
    ),
    # UTSTART 21:46:59.509 and half of 60 s.
    "rise": (
        "rise/q_e_20200830_1_11_1_1.fits.gz",
        {"gain": 2.4, "readnoise": 12.0, "saturate": 63433.0, "exptime": 60.0, "seeing": 4.489311},
        "2020-08-30T21:47:29.509",
    ),
    # DATE-OBS 09:23:31.598174 and half of 330 s.
    "decam": (
        "decam_minis/DEC-OBS04a.mini.fits.gz",
        {"gain": 3.984046692260535, "readnoise": 11.83702, "saturate": 46536.1041736873, "filter": "i"},
        "2018-08-04T09:26:16.598174",
    ),
}


@pytest.mark.parametrize("name", REAL)
def test_real_frames_by_the_name_of_their_camera(shared: Path, name: str) -> None:
    path, expected, middle = REAL[name]
    frame = ztfxr.open_frame(shared / "data" / path, camera=name)
    assert abs((Time(float(frame["mjd"]), format="mjd") - Time(middle, scale="utc")).sec) < 5e-3
    assert abs(frame["time"].values - np.datetime64(middle, "ns")) < np.timedelta64(5, "ms")
    assert {k: frame[k].item() for k in expected} == expected
    assert frame["sci"].attrs["units"] == "DN"
    assert frame["gain"].attrs["units"] == "electron/DN"
    with fits.open(shared / "data" / path) as hdus:
        hdu = next(h for h in hdus if h.is_image and h.data is not None)
        np.testing.assert_array_equal(frame["sci"][10:20, 30:40].values, hdu.data[10:20, 30:40].astype(np.float32))
        first = [-int(hdu.header.get(f"LTV{axis}", 0)) for axis in (2, 1)]
        assert [int(frame[d][0]) for d in ("y", "x")] == first
        if name == "saao":
            assert "ra" not in frame.coords
            return
        with quiet(FITSFixedWarning):
            sky = WCS(hdu.header, naxis=2).pixel_to_world(30, 10).icrs
    found = SkyCoord(float(frame["ra"][10, 30]), float(frame["dec"][10, 30]), unit="deg")
    assert found.separation(sky) < 0.05 * u.arcsec


def test_a_real_disagreement_is_said(shared: Path) -> None:
    """The raw start of BANZAI's MJD-OBS is 1.41 s before the start that DATE-OBS tells, corrected for its latency."""
    frame = ztfxr.open_lco(shared / "data" / REAL["lco"][0])
    assert frame.attrs["time_note"] == "time from DATE-OBS; MJD-OBS differs by -1.410 s"


# a camera of one's own


TOY = Camera(
    "toy",
    cards={
        "time": "SHUTTER",
        "exptime": "TINT",
        "gain": "EPERADU",
        "saturate": 50.0,
        "seeing": "FWHM",
        "filter": "BAND",
    },
    time_is="middle",
    filters={"Bessel": "R", "7": "I"},
    units={"seeing": "arcsec"},
    image="IMAGE",
    mask=Layer("planes", extension="DQ"),
    weight=Layer("weight", extension="WHT", optional=True),
    planes=(Plane("hot", 0, "hot pixel"), Plane("star", 5, "star"), Plane("trail", 17, "trail of a satellite")),
    bad_planes=("hot", "trail"),
)


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    header = fits.Header([("SHUTTER", "2024-02-29T12:00:00"), ("TINT", 60), ("EPERADU", 1.5), ("FWHM", 0.8)])
    header["BAND"] = "Bessel R (4)"
    image = fits.ImageHDU(PIXELS, header, name="IMAGE")
    planes, weight = np.zeros((5, 6), np.int32), np.full((5, 6), 4.0, np.float32)
    planes[0, 0], planes[1, 1], planes[2, 2] = 1, 32, 1 << 17
    weight[3, 3] = 0.0
    hdus = [fits.PrimaryHDU(), image, fits.ImageHDU(planes, name="DQ"), fits.ImageHDU(weight, name="WHT")]
    fits.HDUList(hdus).writeto(tmp_path / "toy.fits")
    return tmp_path / "toy.fits"


@pytest.mark.parametrize("chunks", [None, False])
def test_a_camera_of_ones_own(toy: Path, chunks: Any) -> None:
    frame = ztfxr.open_frame(toy, camera=TOY, chunks=chunks)
    assert frame["time"].values == np.datetime64("2024-02-29T12:00:00")
    assert [frame[k].item() for k in ("gain", "saturate", "filter", "exptime")] == [1.5, 50.0, "R", 60.0]
    assert (float(frame["seeing"]), frame["seeing"].attrs["units"]) == (0.8, "arcsec")
    assert frame["flags"].attrs["flag_meanings"] == "hot dead star trail"
    assert frame["flags"].attrs["bad_planes"] == "hot dead trail"
    assert bad_pixels(frame) == [[0, 0], [2, 2], [3, 3]]
    expected = np.full((5, 6), 0.25)
    expected[3, 3] = np.nan
    np.testing.assert_array_equal(frame["variance"].values, expected)
    assert frame["variance"].attrs["units"] == "DN2"


def test_the_same_by_xarrays_own_door(toy: Path) -> None:
    frame = xr.open_dataset(toy, engine="ztf", camera=TOY)
    expected = ztfxr.open_frame(toy, camera=TOY)
    xr.testing.assert_identical(frame.load(), expected.load())
    np.testing.assert_array_equal(
        xr.open_dataset(toy, engine="ztf", camera=TOY)["flags"][::-2, 1].values, expected["flags"][::-2, 1]
    )


def test_cameras_travel_as_plain_data() -> None:
    for camera in (*CAMERAS.values(), TOY):
        assert Camera.from_dict(camera.to_dict()) == camera
        assert get_camera(camera.to_dict()) == camera
    assert get_camera("ZTF") is ZTF


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cards": {"sautrate": 1.0}}, "a camera has no coordinate sautrate; it has time, exptime"),
        ({"required": ("seing",)}, "a camera has no coordinate seing"),
        ({"time_is": "begin"}, "time_is is one of start, middle, end; got 'begin'"),
        ({"bad_planes": ("hot",)}, "bad_planes names hot; the planes are tracks"),
        ({"planes": (Plane("a", 1, ""), Plane("b", 1, "")), "bad_planes": ()}, "every plane has a name and a bit"),
        ({"cards": {"filter": 3}}, "filter is the name of a card, or a value as '=r'; got 3"),
    ],
)
def test_cameras_check_themselves(options: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Camera("mine", **options)


def test_layers_and_names_check_themselves(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a layer holds one of planes, codes"):
        Layer("flags", extension="DQ")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="nothing says where the layer is"):
        Layer("bad")
    with pytest.raises(InputError, match="camera is one of ztf, lco, saao, rise, decam, fits"):
        ztfxr.open_frame(write(tmp_path / "a.fits"), camera="hubble")
    with pytest.raises(InputError, match="a camera has no coordinate gian"):
        ztfxr.open_frame(tmp_path / "a.fits", gian=2.0)


# numbers that are not known


@pytest.mark.parametrize("gain", [0.0, -1.0, "N/A", "UNKNOWN", "", "NaN", None])
def test_unknown_gains_are_nan(tmp_path: Path, gain: Any) -> None:
    frame = ztfxr.open_frame(write(tmp_path / "a.fits", GAIN=gain))
    assert np.isnan(float(frame["gain"]))
    assert gather(frame).gain is None


def test_numbers_as_text_and_settings_of_cameras(tmp_path: Path) -> None:
    """GAIN is a setting where EGAIN stands beside it."""
    frame = ztfxr.open_frame(
        write(tmp_path / "a.fits", GAIN=139, EGAIN="0.8", SATURATE=-1, FILTER=fits.card.Undefined())
    )
    assert float(frame["gain"]) == 0.8
    assert np.isnan(float(frame["saturate"]))
    assert frame["filter"].item() == ""


@pytest.mark.parametrize(
    ("card", "message"),
    [
        ("GAIN    = NAN", "a.fits: a card of the header cannot be understood .*GAIN"),
        ("MJD-OBS =                1.6E9", "MJD-OBS = 1600000000.0 is not an MJD"),
        ("EXPTIME =                 long", "a card of the header cannot be understood .*EXPTIME"),
    ],
)
def test_one_bad_card_makes_one_bad_frame(tmp_path: Path, card: str, message: str) -> None:
    good = write(tmp_path / "good.fits")
    bad = write(tmp_path / "a.fits", PIXELS, card, **{card.split("=")[0].strip(): None})
    with pytest.raises(HeaderError, match=message):
        ztfxr.open_frame(bad)
    tree = ztfxr.open_frames([bad, good])
    assert tree["a"].attrs["status"] == planes_to_bits(["bad_header"], STATUS_PLANES)
    assert "sci" in tree["good"]


# units


@pytest.mark.parametrize(
    ("bunit", "unit", "gain", "saturate"),
    [
        (None, "DN", 2.0, 600.0),
        ("adu", "DN", 2.0, 600.0),
        ("count", "count", 2.0, 600.0),
        ("ADU/s", "DN/s", 200.0, 6.0),
        ("electron", "electron", 1.0, 600.0),
        ("ELECTRONS", "electron", 1.0, 600.0),
        ("e-/sec", "electron/s", 100.0, 6.0),
        ("electron s-1", "electron/s", 100.0, 6.0),
        ("nJy", "nJy", np.nan, np.nan),
        ("MJy/sr", "MJy/sr", np.nan, np.nan),
    ],
)
def test_units_of_the_pixels(tmp_path: Path, bunit: str | None, unit: str, gain: float, saturate: float) -> None:
    path = write(tmp_path / "a.fits", BUNIT=bunit, SATURATE=600.0)
    frame = ztfxr.open_frame(path)
    assert frame["sci"].attrs["units"] == unit
    np.testing.assert_equal([float(frame["gain"]), float(frame["saturate"])], [gain, saturate])
    assert frame["gain"].attrs["units"] == (f"electron/{unit}" if unit.isalpha() else f"electron/({unit})")
    assert float(ztfxr.open_frame(path, gain=3.0)["gain"]) == 3.0
    ztfxr.to_fits(frame, tmp_path / "b.fits")
    back = ztfxr.open_fits(tmp_path / "b.fits")
    assert u.Unit(back["sci"].attrs["units"].replace("DN", "adu")) == u.Unit(unit.replace("DN", "adu"))
    np.testing.assert_equal(float(back["gain"]), gain)


def test_words_for_units() -> None:
    assert [unit_of(t) for t in ("Data Value", "adu2", "e-", "electron/s", "DN/s", "erg", "")] == [
        *("DN", "DN2", "electron", "electron/s", "DN/s", "erg", "")
    ]


def test_variance_of_electrons(tmp_path: Path) -> None:
    """Poisson noise of 100 electrons and a read noise of 5: 125, whatever GAIN the detector had."""
    frame = ztfxr.open_frame(write(tmp_path / "a.fits", np.full((5, 6), 100.0, np.float32), BUNIT="electron"))
    np.testing.assert_allclose(ztfxr.variance(frame, method="photon").values, 125.0, rtol=1e-6)


# masks


def test_codes_become_planes(tmp_path: Path) -> None:
    """A number for each pixel, not bits: 3 is saturated, not bad and no value."""
    codes = np.zeros((5, 6), np.int32)
    codes[0, :4] = 1, 3, 7, 8
    write(tmp_path / "c4d_ooi_r.fits")
    write(tmp_path / "c4d_ood_r.fits", codes)
    write(tmp_path / "alone.fits")
    frame = ztfxr.open_frame(tmp_path / "c4d_ooi_r.fits", camera="decam")
    np.testing.assert_array_equal(frame["flags"][0, :4], [1, 4, 64, 128])
    assert bad_pixels(frame) == [[0, 0], [0, 1], [0, 3]]
    assert (
        ztfxr.open_frame(tmp_path / "alone.fits", camera="decam")["flags"].attrs["flag_meanings"].startswith("tracks")
    )
    with pytest.raises(MissingMaskError, match=r"this is a mask \(_ood_\), not a science image \(_ooi_\)"):
        ztfxr.open_frame(tmp_path / "c4d_ood_r.fits", camera="decam")


def test_masks_and_weights_by_option(tmp_path: Path) -> None:
    bad, sigma = np.zeros((5, 6), np.uint8), np.full((5, 6), 3.0, np.float32)
    bad[1, 2], sigma[4, 4], sigma[4, 5] = 7, 0.0, np.nan
    path = write(tmp_path / "a.fits", beside={"ERR": sigma})
    write(tmp_path / "mask.fits", bad)
    frame = ztfxr.open_frame(path, mask=tmp_path / "mask.fits", weight=Layer("sigma", extension="ERR"), saturate=29.0)
    assert bad_pixels(frame) == [[1, 2], [4, 4], [4, 5]]
    assert frame["flags"].values[4, 5] == planes_to_bits(["dead", "saturated"])
    assert float(frame["variance"][0, 0]) == 9.0
    assert np.isnan(frame["variance"].values[4, 4:]).all()
    write(tmp_path / "small.fits", bad[:3])
    with pytest.raises(ShapeError, match=r"the mask is \(3, 6\) \(y, x\), the science image \(5, 6\)"):
        ztfxr.open_frame(path, mask=tmp_path / "small.fits")


def test_planes_of_another_survey_are_never_ipacs(tmp_path: Path) -> None:
    """2 is saturated and 32 a star there; nothing in the file says so, and nothing is guessed."""
    planes = np.zeros((5, 6), np.int16)
    planes[0, 0], planes[0, 1] = 2, 32
    path = write(tmp_path / "a.fits", beside={"MSK": planes})
    frame = ztfxr.open_fits(path)
    assert "saturated" not in frame["flags"].attrs["flag_meanings"]
    with pytest.raises(InputError, match=r"planes that ztfxr does not know .*bit1.*bad_planes"):
        bad_pixels(frame)
    frame["flags"].attrs["bad_planes"] = "bit1"
    assert bad_pixels(frame) == [[0, 0]]
    with fits.open(path, mode="update") as hdus:
        hdus["MSK"].header["MP_SAT"], hdus["MSK"].header["MP_STAR"] = 1, 5
    assert ztfxr.open_fits(path)["flags"].attrs["flag_meanings"] == "sat star"


def test_planes_survive_a_fits_file(toy: Path, tmp_path: Path) -> None:
    frame = ztfxr.open_frame(toy, camera=TOY)
    ztfxr.to_fits(frame, tmp_path / "b.fits")
    back = ztfxr.open_fits(tmp_path / "b.fits")
    for name in ("flag_masks", "flag_meanings", "bad_planes"):
        assert np.array_equal(back["flags"].attrs[name], frame["flags"].attrs[name])
    np.testing.assert_array_equal(back["flags"], frame["flags"])


# pixels of the full frame


def test_cut_outs_keep_the_pixels_of_their_frame(tmp_path: Path, wcs_header: Any) -> None:
    cards = {k: v for k, v in wcs_header((5, 6), ctype="TAN").items() if not k.startswith(("PV", "CD"))}
    cards |= {"CDELT1": -3e-4, "CDELT2": 3e-4}
    frame = ztfxr.open_frame(write(tmp_path / "a.fits", **cards, LTV1=-2000, LTV2=-100.0))
    assert (int(frame["x"][0]), int(frame["y"][0])) == (2000, 100)
    whole = ztfxr.open_frame(write(tmp_path / "b.fits", **cards))
    np.testing.assert_allclose(frame["ra"].values, whole["ra"].values, rtol=0, atol=1e-9)
    cut = frame.isel(x=slice(2, None))
    ztfxr.to_fits(cut, tmp_path / "c.fits")
    header = fits.getheader(tmp_path / "c.fits")
    assert (header["LTV1"], header["LTV2"]) == (-2002.0, -100.0)
    back = ztfxr.open_fits(tmp_path / "c.fits")
    assert (int(back["x"][0]), int(back["y"][0])) == (2002, 100)
    np.testing.assert_allclose(back["dec"].values, cut["dec"].values, rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("cards", "start"),
    [
        ({"LTV1": -7}, 7),
        ({"LTV1": 50.0}, -50),
        ({"LTV1": -7.5}, 0),
        ({"LTV1": -7, "LTM1_1": 0.5}, 0),
        ({"LTV1": -7, "LTM1_1": 1.0, "LTM1_2": 0.0}, 7),
        ({"LTV1": -7, "LTM1_2": 0.1}, 0),
        ({"LTV1": "N/A"}, 0),
        ({"LTV1": -7, "ZXR_X0": 3}, 3),
    ],
)
def test_physical_coordinates(cards: dict[str, Any], start: int) -> None:
    assert window_start(fits.Header(cards)) == {"x": start, "y": 0}


# what people give


def test_patterns_folders_and_single_paths(tmp_path: Path) -> None:
    for name in ("b.FITS", "a.fit", "c.fits.gz"):
        write(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no frame")
    assert list(ztfxr.open_frames(tmp_path).children) == ["a", "b", "c"]
    assert list(ztfxr.open_frames(str(tmp_path / "[ab].*")).children) == ["a", "b"]
    assert list(ztfxr.open_frames(tmp_path / "b.FITS").children) == ["b"]
    with pytest.raises(InputError, match="no frames to open: nothing matches"):
        ztfxr.open_frames(str(tmp_path / "*.nothing"))
    with pytest.raises(InputError, match="holds no FITS file named"):
        ztfxr.open_epochs(tmp_path)
    with pytest.raises(InputError, match="errors is 'status' or 'raise'; got 'ignore'"):
        ztfxr.open_frames(tmp_path, errors="ignore")  # type: ignore[arg-type]


def test_the_mask_image_as_science_image(tmp_path: Path, write_frame: Any) -> None:
    path = write_frame()
    with pytest.raises(MissingMaskError, match=r"this is a mask \(mskimg\), not a science image \(sciimg\)"):
        ztfxr.open_quadrant(path.with_name(path.name.replace("sciimg", "mskimg")))
    assert list(ztfxr.open_epochs(tmp_path).children) == [path.name.removesuffix(".fits")]
