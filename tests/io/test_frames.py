"""FITS frames of any telescope, synthetic ones and the real SAAO ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits

from ztfxr.errors import HeaderError, InputError
from ztfxr.io.frames import open_frame, open_frames
from ztfxr.schema import STATUS_PLANES, planes_to_bits
from ztfxr.wcs import get_wcs, has_wcs

PIXELS = np.arange(30, dtype=np.uint16).reshape(5, 6) * 2000


def write(path: Path, pixels: Any = PIXELS, **cards: Any) -> Path:
    header = fits.Header()
    cards = {k.replace("_", "-"): v for k, v in cards.items()}
    for key, value in {"MJD-OBS": 56470.5, "EXPTIME": 864.0, "GAIN": 1.9, "RDNOISE": 5.0, **cards}.items():
        if value is not None:
            header[key] = value
    fits.PrimaryHDU(pixels, header).writeto(path)
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write(tmp_path / "a.fits.gz", FILTER="I ", SATURATE=50_000)


def test_a_frame_is_laid_out_like_a_quadrant(path: Path) -> None:
    frame = open_frame(path)
    assert frame["sci"].dims == frame["flags"].dims == ("y", "x")
    assert (frame["sci"].dtype, frame["flags"].dtype) == ("float32", "uint16")
    np.testing.assert_array_equal(frame["sci"], PIXELS)
    np.testing.assert_array_equal(frame["flags"], np.where(PIXELS >= 50_000, planes_to_bits(["saturated"]), 0))
    assert frame["mjd"] == pytest.approx(56470.505)
    assert frame["time"] == np.datetime64("2013-06-27T12:07:12", "ns")
    assert [float(frame[k]) for k in ("exptime", "gain", "readnoise", "saturate")] == [864.0, 1.9, 5.0, 50_000.0]
    assert frame["filter"] == "I"
    assert frame["gain"].attrs["units"] == "electron/DN"
    assert frame.attrs["source"] == "a.fits.gz"
    assert "RDNOISE" in frame.attrs["header"]
    assert not has_wcs(frame)


def test_only_headers_are_read(path: Path, raising_scheduler: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ztfxr.io.backend.read_window", lambda *a: pytest.fail("a pixel was read on opening"))
    frame = open_frame(path)
    assert frame["sci"].chunks is not None
    assert frame["flags"].chunks is not None
    assert open_frames([path]).children


def test_one_read_serves_pixels_and_flags(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ztfxr.io import backend

    reads = []
    real = backend.read_window
    monkeypatch.setattr(backend, "read_window", lambda *a: reads.append(a) or real(*a))
    open_frame(path).compute()
    assert len(reads) == 1


def test_the_same_file_has_the_same_token(path: Path) -> None:
    assert open_frame(path)["flags"].data.name == open_frame(path)["flags"].data.name
    assert open_frame(path)["flags"].data.name != open_frame(path, saturate=10.0)["flags"].data.name


@pytest.mark.parametrize(
    ("options", "cards", "mjd"),
    [
        ({"time_is": "middle"}, {}, 56470.5),
        ({"time_is": "end"}, {}, 56470.495),
        ({"time": "DATE-OBS"}, {"DATE-OBS": "2013-06-27T12:00:00.000"}, 56470.505),
        ({"time": "JD"}, {"JD": 2456471.0}, 56470.505),
        ({"time": 56470.25}, {"MJD_OBS": None}, 56470.255),
        ({"time": np.datetime64("2013-06-27T06:00:00")}, {"MJD_OBS": None}, 56470.255),
        ({"exptime": 8640.0}, {"EXPTIME": None}, 56470.55),
        ({"exptime": "EXPOSED"}, {"EXPTIME": None, "EXPOSED": 8640}, 56470.55),
    ],
)
def test_time_is_the_middle_whatever_the_header_calls_it(tmp_path: Path, options: Any, cards: Any, mjd: float) -> None:
    frame = open_frame(write(tmp_path / "a.fits", **cards), **options)
    assert float(frame["mjd"]) == pytest.approx(mjd, abs=1e-9)


def test_cards_and_values(tmp_path: Path) -> None:
    path = write(tmp_path / "a.fits", GAIN=None, PFWHM=5.25, FILTERS=58)
    frame = open_frame(path, gain=2.5, seeing="PFWHM", saturate=10_000.0, filter="FILTERS", magzp=25.0)
    assert [float(frame[k]) for k in ("gain", "seeing", "saturate", "magzp")] == [2.5, 5.25, 10_000.0, 25.0]
    assert frame["filter"] == "58"
    assert int((frame["flags"] != 0).sum()) == 25
    assert open_frame(path, filter="=I")["filter"] == "I"
    unknown = open_frame(path)
    assert np.isnan(float(unknown["gain"]))
    assert np.isnan(float(unknown["saturate"]))
    assert not unknown["flags"].any()
    assert not {"seeing", "magzp"} & set(unknown.coords)


@pytest.mark.parametrize(
    ("cards", "options", "message"),
    [
        ({"MJD_OBS": None}, {}, "the header has no MJD-OBS; give time="),
        ({"EXPTIME": None}, {}, "the header has no EXPTIME; give exptime="),
        ({"EXPTIME": "long"}, {}, "EXPTIME = 'long' is not a number"),
        ({}, {"gain": "EGAIN"}, "the header has no EGAIN; give gain="),
        ({"MJD_OBS": "yesterday"}, {}, "MJD-OBS = 'yesterday' is not an MJD, a JD or an ISO 8601 date"),
    ],
)
def test_headers_that_do_not_say_it(tmp_path: Path, cards: Any, options: Any, message: str) -> None:
    with pytest.raises(HeaderError, match=message):
        open_frame(write(tmp_path / "a.fits", **cards), **options)


def test_nan_pixels_are_flagged(tmp_path: Path) -> None:
    pixels = PIXELS.astype(">f4")
    pixels[1, 2] = np.nan
    frame = open_frame(write(tmp_path / "a.fits", pixels), saturate=1e5).compute()
    assert np.argwhere(frame["flags"].values).tolist() == [[1, 2]]
    assert frame["flags"].values[1, 2] == planes_to_bits(["nan"])


def test_a_wcs_labels_the_sky(tmp_path: Path, wcs_header: Any) -> None:
    path = tmp_path / "a.fits"
    header = wcs_header((5, 6))
    header["MJD-OBS"], header["EXPTIME"] = 56470.5, 30.0
    fits.PrimaryHDU(PIXELS, header).writeto(path)
    assert get_wcs(open_frame(path)).wcs.crval[0] == 150.3


def test_a_bad_frame_is_a_node_with_a_reason(tmp_path: Path) -> None:
    good, bad, cut = tmp_path / "good.fits", tmp_path / "bad.fits", tmp_path / "cut.fits.gz"
    write(good)
    bad.write_text("<!DOCTYPE html>")
    write(cut)
    cut.write_bytes(cut.read_bytes()[:40])
    headless = write(tmp_path / "headless.fits", MJD_OBS=None)
    paths = [good, bad, cut, headless, tmp_path / "none.fits"]
    tree = open_frames(paths, saturate=100.0)
    assert list(tree.children) == ["good", "bad", "cut", "headless", "none"]
    names = {p.name: p.value for p in STATUS_PLANES}
    found = [node.attrs.get("status", 0) for node in tree.children.values()]
    assert found == [0, *(names[k] for k in ("not_fits", "truncated", "bad_header", "unreadable"))]
    assert "HTML" in tree["bad"].attrs["message"]
    with pytest.raises(HeaderError):
        open_frames([headless], errors="raise")


def test_no_paths_and_equal_names(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no frames to open"):
        open_frames([])
    with pytest.raises(InputError, match="two frames are named a"):
        open_frames([write(tmp_path / "a.fits"), write(tmp_path / "a.fits.gz")])


def test_saao(shared: Path) -> None:
    paths = sorted((shared / "data" / "saao_kb13475").glob("*.fits.gz"))
    tree = open_frames(paths, saturate=65_000.0, seeing="PFWHM", filter="=I")
    assert len(tree.children) == len(paths) >= 58
    frames = [node.to_dataset() for node in tree.children.values()]
    assert all(float(f["gain"]) == 1.9 and float(f["readnoise"]) == 5.0 for f in frames)
    first = frames[0].compute()
    # PHJDMID less the heliocentric correction of its HISTORY.
    assert float(first["mjd"]) == pytest.approx(2456471.4750976888 - 2400000.5 - 0.005861, abs=2e-6)
    assert first["sci"].shape == (512, 512)
    assert int((first["flags"] == planes_to_bits(["saturated"])).sum()) == 120
