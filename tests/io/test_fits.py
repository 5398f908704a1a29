"""The FITS reader: headers now, pixels when asked, three kinds of file, bad files."""

from __future__ import annotations

import gzip
import io
import re
import tracemalloc
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import ztfxr
from tests.conftest import EXAMPLES, WriteFrame, make_sky, write_image
from ztfxr.errors import NotFITSError, ShapeError, TruncatedFileError, ZtfxrError
from ztfxr.io.fits import ImageFile, inspect, read_window

SHAPE = (48, 40)
SUFFIXES = (".fits", ".fits.gz", ".fits.fz")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory, write_frame_in: WriteFrame) -> dict[str, ImageFile]:
    """One image in every kind of file."""
    folder = tmp_path_factory.mktemp("kinds")
    return {s: inspect(write_frame_in(folder, suffix=s, shape=SHAPE)) for s in SUFFIXES}


def whole(image: ImageFile) -> Any:
    return read_window(image, slice(0, image.shape[0]), slice(0, image.shape[1]))


def window(size: int) -> st.SearchStrategy[slice]:
    return st.tuples(st.integers(0, size), st.integers(0, size)).map(lambda t: slice(min(t), max(t)))


@pytest.mark.parametrize("suffix", SUFFIXES)
@given(rows=window(SHAPE[0]), columns=window(SHAPE[1]))
@example(rows=slice(0, 0), columns=slice(0, 0))
@example(rows=slice(3, 3), columns=slice(2, 9))
@example(rows=slice(3, 5), columns=slice(9, 9))
@example(rows=slice(0, 48), columns=slice(0, 40))
def test_windows_equal_numpy(images: dict[str, ImageFile], suffix: str, rows: slice, columns: slice) -> None:
    found = read_window(images[suffix], rows, columns)
    np.testing.assert_array_equal(found, make_sky(SHAPE)[rows, columns])
    assert found.dtype == np.float32
    assert found.dtype.isnative
    assert found.flags.c_contiguous


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("dtype", ["u1", "i2", "u2", "i4", "u4", "f4", "f8"])
def test_dtypes(tmp_path: Path, suffix: str, dtype: str) -> None:
    """Unsigned integers are FITS integers with BZERO; whatever comes is native and exact."""
    info = np.iinfo(dtype) if dtype[0] in "iu" else np.finfo(dtype)
    values = np.array([info.min, 0, 1, 2, info.max / 2 if dtype[0] == "f" else info.max // 2, info.max], dtype)
    if suffix == ".fits.fz" and dtype == "u4":
        values //= 2  # RICE tiles do not hold the extremes of 32 bits
    pixels = np.tile(values, (4, 3))
    path = tmp_path / f"image{suffix}"
    write_image(path, pixels, fits.Header())
    image = inspect(path)
    assert image.dtype == np.dtype(dtype)
    found = whole(image)
    assert found.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(found, pixels)


def test_scaled_integers(tmp_path: Path) -> None:
    hdu = fits.PrimaryHDU(np.arange(12.0, dtype=np.float32).reshape(3, 4))
    hdu.scale("int16", bscale=0.5, bzero=3.0)
    hdu.writeto(tmp_path / "scaled.fits")
    image = inspect(tmp_path / "scaled.fits")
    assert image.dtype == np.float32
    np.testing.assert_allclose(whole(image), np.arange(12).reshape(3, 4))


def test_first_image_of_many(tmp_path: Path) -> None:
    """An empty primary, a table and a cube are passed over."""
    table = fits.BinTableHDU.from_columns([fits.Column("a", "E", array=np.zeros(3))])
    target = fits.ImageHDU(np.full((3, 4), 7, np.int32))
    cube = fits.ImageHDU(np.zeros((2, 3, 4), np.float32))
    fits.HDUList([fits.PrimaryHDU(), table, cube, target]).writeto(tmp_path / "many.fits")
    image = inspect(tmp_path / "many.fits")
    assert (image.hdu, image.shape) == (3, (3, 4))
    assert (whole(image) == 7).all()


def test_inspect_reads_no_pixel(images: dict[str, ImageFile], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any) -> None:
        raise AssertionError("pixels were read")

    monkeypatch.setattr("astropy.io.fits.hdu.image._ImageBaseHDU._get_scaled_image_data", refuse)
    monkeypatch.setattr("astropy.io.fits.hdu.compressed.compressed.CompImageHDU.data", property(refuse))
    for image in images.values():
        assert inspect(image.path).shape == SHAPE


def test_plain_files_are_read_by_rows(images: dict[str, ImageFile], monkeypatch: pytest.MonkeyPatch) -> None:
    """A cut-out reads its rows, not the file."""
    read = []

    class Counted(io.FileIO):
        def readinto(self, buffer: Any, /) -> int:
            read.append(super().readinto(buffer))
            return read[-1]

    monkeypatch.setattr("ztfxr.io.fits.open_binary", lambda path, **_: io.BufferedReader(Counted(path), 1))
    found = read_window(images[".fits"], slice(10, 13), slice(5, 9))
    np.testing.assert_array_equal(found, make_sky(SHAPE)[10:13, 5:9])
    assert sum(read) == 3 * SHAPE[1] * 4


@pytest.mark.parametrize("suffix", [".fits", ".fits.gz", ".fits.fz"])
def test_a_window_is_all_that_is_held(tmp_path: Path, write_frame: WriteFrame, suffix: str) -> None:
    """Its rows, and a block or two of the file."""
    image = inspect(write_frame(suffix=suffix, shape=(3000, 1200), mask=False))
    tracemalloc.start()
    found = read_window(image, slice(2900, 2960), slice(30, 90))
    held = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.shape == (60, 60)
    assert held < 3_500_000 < 3000 * 1200 * 4 / 4


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="no /proc/self/fd on this system")
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_no_handle_stays_open(images: dict[str, ImageFile], suffix: str) -> None:
    """Also where the arrays live on: nothing is memory-mapped."""
    before = open_files()
    kept = [
        (inspect(images[suffix].path), read_window(images[suffix], slice(i, i + 3), slice(2, 9))) for i in range(40)
    ]
    assert open_files() == before
    assert len(kept) == 40


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="no /proc/self/fd on this system")
def test_no_handle_stays_open_after_an_error(tmp_path: Path, write_frame: WriteFrame) -> None:
    paths = [truncate(write_frame(suffix=s), 0.5) for s in SUFFIXES]
    before = open_files()
    for _ in range(5):
        for path in paths:
            with pytest.raises(TruncatedFileError):
                inspect(path)
    assert open_files() == before


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_threads(images: dict[str, ImageFile], suffix: str) -> None:
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: whole(images[suffix]), range(24)))
    for pixels in found:
        np.testing.assert_array_equal(pixels, make_sky(SHAPE))


def test_threads_leave_the_warning_filters_alone(images: dict[str, ImageFile]) -> None:
    """`warnings.catch_warnings` in overlapping threads would leave its filters behind in the whole process."""
    before = list(warnings.filters)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: (inspect(images[".fits"].path), whole(images[".fits"])), range(200)))
    assert list(warnings.filters) == before


# bad files


def truncate(path: Path, fraction: float) -> Path:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * fraction)])
    return path


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("fraction", [0.01, 0.1, 0.3, 0.6, 0.8])
def test_truncated(write_frame: WriteFrame, suffix: str, fraction: float) -> None:
    path = truncate(write_frame(suffix=suffix, shape=(96, 80)), fraction)
    with pytest.raises(TruncatedFileError, match=r"sciimg\.fits.*(announces|cut off).*fetch it again"):
        inspect(path)


@pytest.mark.parametrize("suffix", [".fits", ".fits.gz"])
def test_one_pixel_short(tmp_path: Path, suffix: str) -> None:
    """Exactly at the end of the pixels a file is whole (padding may be lost), one byte before it is not."""
    pixels = np.random.default_rng(0).normal(size=(30, 24)).astype(np.float32)
    plain = tmp_path / "image.fits"
    write_image(plain, pixels, fits.Header())
    data = plain.read_bytes()[: 2880 + pixels.nbytes]
    whole_file, short = tmp_path / f"whole{suffix}", tmp_path / f"short{suffix}"
    pack = gzip.compress if suffix.endswith(".gz") else bytes
    whole_file.write_bytes(pack(data))
    short.write_bytes(pack(data[:-1]))
    np.testing.assert_array_equal(whole(inspect(whole_file)), pixels)
    with pytest.raises(TruncatedFileError, match=rf"{2880 + pixels.nbytes - 1} bytes, but its header announces"):
        inspect(short)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_cut_after_opening(write_frame: WriteFrame, suffix: str) -> None:
    image = inspect(write_frame(suffix=suffix, shape=(96, 80)))
    truncate(Path(image.path), 0.5)
    with pytest.raises(TruncatedFileError, match=r"sciimg\.fits.*fetch"):
        whole(image)


def test_corrupt_gzip(write_frame: WriteFrame) -> None:
    image = inspect(write_frame(suffix=".fits.gz", shape=(96, 80)))
    data = bytearray(Path(image.path).read_bytes())
    data[len(data) // 2 : len(data) // 2 + 200] = bytes(200)
    Path(image.path).write_bytes(data)
    with pytest.raises(TruncatedFileError, match="fetch"):
        whole(image)


def test_gone_after_opening(write_frame: WriteFrame) -> None:
    image = inspect(write_frame())
    Path(image.path).unlink()
    with pytest.raises(FileNotFoundError, match="sciimg"):
        whole(image)


@pytest.mark.parametrize("content", [b"", gzip.compress(b"", mtime=0)])
def test_empty(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "empty.fits"
    path.write_bytes(content)
    with pytest.raises(TruncatedFileError, match=r"empty\.fits: the file is empty; fetch it again"):
        inspect(path)


PAGES = [b"<!DOCTYPE html><html>Log in</html>", b"\n  <HTML><body>503</body></HTML>", b"<?xml version='1.0'?><error/>"]


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_web_page(tmp_path: Path, page: bytes, pack: Any) -> None:
    path = tmp_path / "page.fits"
    path.write_bytes(pack(page))
    with pytest.raises(NotFITSError, match=r"page\.fits: an HTML or XML page, not FITS; the server sent"):
        inspect(path)


def test_not_fits(tmp_path: Path) -> None:
    path = tmp_path / "noise.fits"
    path.write_bytes(b"PK\x03\x04 something else")
    with pytest.raises(NotFITSError, match=r"not FITS; it begins with b'PK"):
        inspect(path)


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no such file: .*nothing\.fits"):
        inspect(tmp_path / "nothing.fits")
    with pytest.raises(FileNotFoundError, match="no such file"):
        inspect(tmp_path)


@pytest.mark.parametrize("shape", [(5,), (2, 3, 4)])
def test_not_two_dimensions(tmp_path: Path, shape: tuple[int, ...]) -> None:
    write_image(tmp_path / "cube.fits", np.zeros(shape, np.float32), fits.Header())
    with pytest.raises(ShapeError, match=r"cube\.fits: holds no 2-D image in its 1 HDUs"):
        inspect(tmp_path / "cube.fits")


# pixels by every convention of FITS, against astropy


STORED = (">u1", ">i2", ">i4", ">i8", ">f4", ">f8")


@st.composite
def encoded(draw: st.DrawFn) -> tuple[NDArray[Any], dict[str, Any]]:
    """Pixels as they stand in a file, and the cards that say what they stand for."""
    stored = np.dtype(draw(st.sampled_from(STORED)))
    rng = np.random.default_rng(draw(st.integers(0, 9)))
    pixels = rng.integers(0, 120, (7, 5)).astype(stored)
    cards: dict[str, Any] = {}
    kind = draw(st.sampled_from(["plain", "unsigned", "scaled"]))
    if kind == "unsigned" and stored.kind == "i":
        return pixels, {"BZERO": 2 ** (8 * stored.itemsize - 1)}
    if kind == "scaled":
        cards = {
            "BSCALE": draw(st.sampled_from([2, 0.5, 0.1, -1.0, 1.0])),
            "BZERO": draw(st.sampled_from([0, 100, 0.3])),
        }
    if stored.kind == "f":
        pixels[2, 3] = np.nan
    elif draw(st.booleans()):
        cards["BLANK"] = int(pixels[draw(st.integers(0, 6)), draw(st.integers(0, 4))]) or 1
    return pixels, cards


def write_encoded(path: Path, pixels: NDArray[Any], cards: dict[str, Any], where: str) -> None:
    """A file with these very bytes and cards; by astropy's writer the scale would be its own choice."""
    hdu: Any = fits.PrimaryHDU(pixels) if where == "primary" else fits.ImageHDU(pixels)
    for key, value in cards.items():
        hdu.header[key] = value
    hdus = fits.HDUList([hdu] if where == "primary" else [fits.PrimaryHDU(), hdu])
    hdu._do_not_scale_image_data = True
    hdu._bzero = hdu._orig_bzero = 0
    hdus.writeto(path, output_verify="ignore")


@settings(max_examples=EXAMPLES)
@given(
    encoded(), st.sampled_from([".fits", ".fits.gz"]), st.sampled_from(["primary", "extension"]), window(7), window(5)
)
def test_pixels_equal_astropys(
    tmp_path_factory: pytest.TempPathFactory, case: Any, suffix: str, where: str, rows: slice, columns: slice
) -> None:
    path = tmp_path_factory.mktemp("pixels") / f"a{suffix}"
    write_encoded(path, *case, where)
    with warnings.catch_warnings(), fits.open(path, memmap=False) as hdus:
        warnings.simplefilter("ignore")
        expected = hdus[-1].data
    image = inspect(path)
    found = whole(image)
    assert found.dtype == expected.dtype.newbyteorder("=")
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(read_window(image, rows, columns), expected[rows, columns])
    as_sci = replace(image, dtype=np.dtype("f4"))
    np.testing.assert_array_equal(whole(as_sci), expected.astype(np.float32))


@pytest.mark.parametrize(
    ("dtype", "cards", "expected"),
    [
        (">f4", {"BSCALE": 2, "BZERO": 100}, [100, 102, 104, 106]),
        (">f8", {"BSCALE": 2, "BZERO": 100}, [100, 102, 104, 106]),
        (">i2", {"BLANK": 2}, [0, 1, np.nan, 3]),
        (">i2", {"BLANK": 0}, [np.nan, 1, 2, 3]),
        (">i2", {"BLANK": 2, "BZERO": 32768}, [32768, 32769, np.nan, 32771]),
        (">i4", {"BLANK": 2, "BSCALE": 0.5}, [0, 0.5, np.nan, 1.5]),
        (">u1", {"BZERO": -128}, [-128, -127, -126, -125]),
    ],
)
@pytest.mark.parametrize("where", ["primary", "extension"])
def test_blanks_are_nan_and_scales_count(tmp_path: Path, dtype: str, cards: Any, expected: Any, where: str) -> None:
    """The standard's words, where astropy leaves BLANK = 0 and blanks of unsigned integers as numbers."""
    write_encoded(tmp_path / "a.fits", np.arange(4).reshape(1, 4).astype(dtype), cards, where)
    np.testing.assert_array_equal(whole(inspect(tmp_path / "a.fits")), [expected])


@pytest.mark.parametrize("blank", [0, 3])
def test_blanks_of_tiles_are_nan(tmp_path: Path, blank: int) -> None:
    pixels = np.arange(35, dtype=np.int16).reshape(7, 5)
    hdu = fits.CompImageHDU(pixels, compression_type="RICE_1", tile_shape=(2, 5))
    hdu.header["BLANK"] = blank
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(tmp_path / "a.fits.fz")
    image = inspect(tmp_path / "a.fits.fz")
    np.testing.assert_array_equal(whole(image), np.where(pixels == blank, np.nan, pixels))
    np.testing.assert_array_equal(whole(replace(image, dtype=np.dtype("u2"))), pixels)


def test_extensions_inherit_what_the_primary_header_says(tmp_path: Path) -> None:
    primary, image = fits.PrimaryHDU(), fits.ImageHDU(np.zeros((3, 4), np.float32), name="SCI")
    primary.header["EXPTIME"], primary.header["GAIN"], image.header["GAIN"] = 30.0, 1.0, 2.0
    fits.HDUList([primary, image]).writeto(tmp_path / "a.fits")
    found = inspect(tmp_path / "a.fits").header
    assert (found["EXPTIME"], found["GAIN"], found["NAXIS"]) == (30.0, 2.0, 2)
    image.header["INHERIT"] = False
    fits.HDUList([primary, image]).writeto(tmp_path / "b.fits")
    assert "EXPTIME" not in inspect(tmp_path / "b.fits").header


@pytest.mark.parametrize("number", [b"1000", b"99999999999999999999"])
@pytest.mark.parametrize("card", [b"NAXIS   =", b"TFIELDS =", b"ZNAXIS  ="])
@pytest.mark.parametrize("packed", [False, True])
def test_a_header_of_endless_counts_is_refused_at_once(
    tmp_path: Path, card: bytes, number: bytes, packed: bool
) -> None:
    stream = io.BytesIO()
    table = fits.BinTableHDU.from_columns([fits.Column("PSF_MASK", "E", array=np.zeros(3))], name="PSF_DATA")
    image = fits.CompImageHDU(np.zeros((4, 4), dtype=np.float32))
    fits.HDUList([fits.PrimaryHDU(), table, image]).writeto(stream)
    content = stream.getvalue()
    for place in (m.start() for m in re.finditer(re.escape(card), content)):
        broken = content[: place + 10] + number.rjust(20) + content[place + 30 :]
        path = tmp_path / ("a.fits.gz" if packed else "a.fits")
        path.write_bytes(gzip.compress(broken) if packed else broken)
        for read in (inspect, ztfxr.read_catalog, ztfxr.read_lco_catalog) + (() if packed else (ztfxr.read_psf,)):
            with pytest.raises(ZtfxrError, match="FITS has at most 999"):
                read(path)
