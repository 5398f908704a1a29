"""Opening frames: real quadrants against astropy, laziness, the three kinds of file, bad frames."""

from __future__ import annotations

import gzip
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sep
import xarray as xr
from astropy import units as u
from astropy.io import fits
from astropy.time import Time
from astropy.wcs import WCS
from dask.base import tokenize
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tests.conftest import MakeHeader, WriteFrame, make_flags, make_sky, write_image
from ztfxr.errors import (
    HeaderError,
    InputError,
    MissingMaskError,
    MissingWCSError,
    NotFITSError,
    ShapeError,
    TruncatedFileError,
)
from ztfxr.io.backend import ZTFBackendEntrypoint, _enclose
from ztfxr.io.frames import open_epochs, open_quadrant
from ztfxr.ops.background import background, clean, variance
from ztfxr.ops.masks import mask
from ztfxr.schema import SPECS, STATUS_PLANES, planes_to_bits
from ztfxr.wcs import WCSIndex, pixel_to_sky, sky_to_pixel

SUFFIXES = (".fits", ".fits.gz", ".fits.fz")
SHAPE = (48, 40)


def mask_path(path: Path) -> Path:
    return path.with_name(path.name.replace("sciimg", "mskimg"))


@pytest.fixture
def no_reading(monkeypatch: pytest.MonkeyPatch, raising_scheduler: Any) -> None:
    """No pixel may be read and no graph computed."""

    def refuse(*args: Any) -> None:
        raise AssertionError("pixels were read")

    monkeypatch.setattr("ztfxr.io.backend.read_window", refuse)


def build_everything(ds: xr.Dataset) -> list[Any]:
    """Every lazy object that this layer and the next can make of a frame."""
    sci = ds["sci"]
    overlap = sci[5:30, 4:20] - sci[10:40, 8:30]
    assert overlap.shape == (20, 12)
    return [
        mask(ds),
        mask(ds, grow=2),
        mask(ds["flags"], tracks=False),
        background(ds),
        clean(ds),
        variance(ds),
        sci[::-1, ::3],
        sci.isel(x=[3, 1, 2]),
        overlap,
        ds.copy(),
        ds.transpose("x", "y"),
        xr.concat([ds, ds], "time", coords="different", compat="equals", data_vars="all"),
        ds.sel(ra=float(ds.ra[7, 8]), dec=float(ds.dec[7, 8])),
        tokenize(ds),
        repr(ds),
        ds._repr_html_(),
    ]


# the real quadrant


@pytest.fixture(scope="module")
def real(plain_quadrant_path: Path) -> xr.Dataset:
    return open_quadrant(plain_quadrant_path)


@pytest.fixture(scope="module")
def by_hand(plain_quadrant_path: Path) -> tuple[Any, Any, fits.Header]:
    """Science pixels, mask pixels and science header, read by astropy."""
    with fits.open(plain_quadrant_path, memmap=False) as sci, fits.open(mask_path(plain_quadrant_path)) as msk:
        return sci[0].data.copy(), msk[0].data.copy(), sci[0].header.copy()


def test_real_pixels_bit_for_bit(real: xr.Dataset, by_hand: Any) -> None:
    sci, flags, _ = by_hand
    assert real["sci"].dtype == np.float32
    assert real["flags"].dtype == np.uint16
    found = real["sci"].values
    assert found.dtype.isnative
    assert real["flags"].values.dtype.isnative
    np.testing.assert_array_equal(found.view(np.uint32), sci.astype("=f4").view(np.uint32))
    np.testing.assert_array_equal(real["flags"].values, flags)


def test_real_gzip_equals_plain(real: xr.Dataset, quadrant_path: Path) -> None:
    packed = open_quadrant(quadrant_path)
    xr.testing.assert_identical(packed.coords.to_dataset()["time"], real.coords.to_dataset()["time"])
    np.testing.assert_array_equal(packed["sci"][1500:1600].values, real["sci"][1500:1600].values)


def test_real_default_mask(real: xr.Dataset, by_hand: Any) -> None:
    found = mask(real).values
    np.testing.assert_array_equal(found, (by_hand[1].astype(int) & 6141) != 0)
    assert 1000 < found.sum() < 10_000


def test_real_background_is_seps(real: xr.Dataset, by_hand: Any) -> None:
    sci, flags, _ = by_hand
    window = (slice(200, 900), slice(1000, 1800))
    pixels, bad = np.ascontiguousarray(sci[window], "=f4"), (flags[window] & 6141) != 0
    expected = sep.Background(pixels, mask=bad, bw=64, bh=64, fw=3, fh=3)
    found = background(real[{"y": window[0], "x": window[1]}]).compute()
    np.testing.assert_array_equal(found["background"].values, expected.back())
    np.testing.assert_array_equal(found["background_rms"].values, expected.rms())


def test_real_scalars(real: xr.Dataset, by_hand: Any) -> None:
    header = by_hand[2]
    middle = Time(header["OBSMJD"], format="mjd", scale="utc") + 15 * u.s
    assert header["EXPTIME"] == 30
    assert abs(real["time"].values - middle.to_value("datetime64")) < np.timedelta64(2, "us")
    assert abs(float(real["mjd"]) - middle.mjd) < 1e-10
    expected = {"field": 655, "ccdid": 13, "qid": 3, "rcid": 50, "filefracday": 20200924431759, "filter": "ztfr"}
    expected |= {"exptime": 30.0, "magzp": 26.285139, "magzprms": 0.024661, "gain": 6.0, "readnoise": 9.0}
    expected |= {"saturate": 58647.152, "seeing": 1.241}
    assert {k: real[k].item() for k in expected} == expected
    assert real["seeing"].attrs["units"] == "pixel"
    assert int(real["rcid"]) == header["RCID"]


def test_real_header_travels(real: xr.Dataset, by_hand: Any) -> None:
    header = fits.Header.fromstring(real.attrs["header"], sep="\n")
    assert dict(header.items()) == dict(by_hand[2].items())


CORNERS = ((0, 0), (0, 3071), (3079, 0), (3079, 3071), (1540, 1536))


def test_real_sky_of_corners_and_center(real: xr.Dataset, by_hand: Any) -> None:
    wcs = WCS(by_hand[2])
    ra, dec = real["ra"].values, real["dec"].values
    for y, x in CORNERS:
        sky = wcs.pixel_to_world(x, y)
        assert abs(ra[y, x] - sky.ra.deg) < 1e-6
        assert abs(dec[y, x] - sky.dec.deg) < 1e-6
        mine = pixel_to_sky(real, x, y)
        assert mine.separation(sky).deg < 1e-9


def test_real_fast_grid_is_good_everywhere(real: xr.Dataset, by_hand: Any) -> None:
    """2000 random pixels of the interpolated grid against wcslib."""
    rng = np.random.default_rng(7)
    y, x = rng.integers(0, 3080, 2000), rng.integers(0, 3072, 2000)
    ra, dec = WCS(by_hand[2]).all_pix2world(x, y, 0)
    assert np.abs(real["ra"].values[y, x] - ra).max() < 1e-8
    assert np.abs(real["dec"].values[y, x] - dec).max() < 1e-8


def test_real_sky_to_pixel_inverts(real: xr.Dataset) -> None:
    rng = np.random.default_rng(8)
    x, y = rng.uniform(-50, 3120, (2, 500))
    found = sky_to_pixel(real, pixel_to_sky(real, x, y))
    np.testing.assert_allclose(found, (x, y), rtol=0, atol=1e-6)


def test_real_cut_out_labels(real: xr.Dataset) -> None:
    """A small cut-out (exact WCS) and the whole grid (interpolated) agree."""
    cut = real["sci"][1000:1010, 2000:2020]
    np.testing.assert_allclose(cut["ra"].values, real["ra"].values[1000:1010, 2000:2020], rtol=0, atol=1e-8)


def test_real_builds_without_reading(plain_quadrant_path: Path, no_reading: None) -> None:
    build_everything(open_quadrant(plain_quadrant_path))


# laziness and the doors


def test_builds_from_a_file_that_is_gone(tmp_path: Path, write_frame: WriteFrame, no_reading: None) -> None:
    path = write_frame()
    ds = open_quadrant(path)
    path.unlink()
    mask_path(path).unlink()
    for lazy in build_everything(ds):
        for array in lazy.variables.values() if isinstance(lazy, xr.Dataset) else [lazy]:
            if isinstance(array, xr.DataArray):
                assert array.chunks is not None or array.ndim == 0


def test_no_reading_refuses(write_frame: WriteFrame, no_reading: None) -> None:
    """The guard of these tests can fail."""
    with pytest.raises(AssertionError, match="stayed lazy"):
        open_quadrant(write_frame())["sci"].compute()
    with pytest.raises(AssertionError, match="pixels were read"):
        xr.open_dataset(write_frame(name="ztf_20200924431759_000655_zr_c13_o_q4_sciimg"), engine="ztf")["sci"].load()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_xarrays_own_door(write_frame: WriteFrame, suffix: str) -> None:
    """By name of the engine, and by guessing it; `open_quadrant` gives the same."""
    path = write_frame(suffix=suffix)
    expected = open_quadrant(path)
    for ds in (xr.open_dataset(path, engine="ztf", chunks={}), xr.open_dataset(str(path), chunks={})):
        xr.testing.assert_identical(ds, expected)
        assert ds["sci"].chunks == expected["sci"].chunks == ((SHAPE[0],), (SHAPE[1],))
        assert isinstance(ds.xindexes["ra"], WCSIndex)
    assert xr.open_dataset(path, engine="ztf")["sci"].chunks is None


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_chunks(write_frame: WriteFrame, suffix: str) -> None:
    """Each chunk of a gzipped file reads it from its start: xarray says so."""
    path = write_frame(suffix=suffix)
    slow = pytest.warns(UserWarning, match="separate the stored chunks") if suffix == ".fits.gz" else nullcontext()
    with slow:
        ds = open_quadrant(path, chunks={"y": 16})
    assert ds["sci"].chunks == ((16,) * 3, (SHAPE[1],))
    np.testing.assert_array_equal(ds["sci"].values, make_sky(SHAPE))


def test_engine_guesses_only_science_images() -> None:
    guess = ZTFBackendEntrypoint().guess_can_open
    assert guess("dir/ztf_20200924431759_000655_zr_c13_o_q3_sciimg.fits.fz")
    assert not guess("ztf_20200924431759_000655_zr_c13_o_q3_mskimg.fits")
    assert not guess("image.fits")
    assert not guess(b"ztf")


def test_drop_variables(write_frame: WriteFrame) -> None:
    path = write_frame()
    assert set(xr.open_dataset(path, engine="ztf", drop_variables="flags").data_vars) == {"sci"}
    assert set(xr.open_dataset(path, engine="ztf", drop_variables=["sci"]).data_vars) == {"flags"}


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_kind_of_file_gives_the_same(tmp_path: Path, write_frame: WriteFrame, suffix: str) -> None:
    expected = open_quadrant(write_frame())
    (tmp_path / "other").mkdir()
    found = open_quadrant(write_frame(tmp_path / "other", suffix=suffix))
    xr.testing.assert_equal(found, expected)
    assert found.attrs["wcs_header"] == expected.attrs["wcs_header"]
    assert found.xindexes["ra"].equals(expected.xindexes["ra"])
    np.testing.assert_array_equal(found["sci"].values, make_sky(SHAPE))
    np.testing.assert_array_equal(found["flags"].values, make_flags(SHAPE))


def test_variables_follow_the_schema(write_frame: WriteFrame) -> None:
    ds = open_quadrant(write_frame())
    for name, variable in ds.variables.items():
        spec = SPECS[str(name)]
        assert variable.attrs["long_name"] == spec.meaning, name
        assert variable.attrs.get("units", "") == spec.units, name
        assert variable.dtype.kind == "U" if spec.dtype == "str" else variable.dtype == spec.dtype, name
    assert ds["flags"].attrs["flag_meanings"].startswith("tracks sexsources")
    assert list(ds["y"].values[:3]) == [0, 1, 2]


def test_tokens_are_deterministic(write_frame: WriteFrame) -> None:
    path = write_frame()
    first, second = open_quadrant(path), open_quadrant(path)
    assert tokenize(first) == tokenize(second)
    assert first["sci"].data.name == second["sci"].data.name
    assert tokenize(first) != tokenize(first[{"y": slice(1, None)}])


@pytest.mark.parametrize(
    ("card", "comment", "unit"), [(1.2, "seeing FWHM [pixels]", "pixel"), (2.0, "seeing [arcsec]", "arcsec")]
)
def test_seeing_keeps_its_unit(write_frame: WriteFrame, card: float, comment: str, unit: str) -> None:
    assert open_quadrant(write_frame(cards={"SEEING": (card, comment)}))["seeing"].attrs["units"] == unit


def test_time_without_obsmjd(write_frame: WriteFrame) -> None:
    """OBSJD is the start as well; exposures of 60 and 90 s exist."""
    ds = open_quadrant(write_frame(cards={"OBSMJD": None, "OBSJD": 2459116.5, "EXPTIME": 90}))
    assert ds["time"].values == np.datetime64("2020-09-24T00:00:45")


def test_name_fills_what_the_header_lacks(write_frame: WriteFrame) -> None:
    ds = open_quadrant(write_frame(cards={"FIELDID": None, "CCDID": None, "QID": None, "FILTERID": None}))
    assert [ds[k].item() for k in ("field", "ccdid", "qid", "rcid", "filter")] == [655, 13, 3, 50, "ztfr"]


def test_quality_cards_are_nan_where_absent(write_frame: WriteFrame) -> None:
    ds = open_quadrant(write_frame(cards={"MAGZP": None, "GAIN": None, "SEEING": None}))
    assert all(np.isnan(ds[k]) for k in ("magzp", "gain", "seeing"))
    with pytest.raises(InputError, match="gain"):
        variance(ds)


# indexing


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory, write_frame_in: WriteFrame) -> dict[str, xr.Dataset]:
    """The frame in every kind of file, without dask: every selection is a read."""
    folder = tmp_path_factory.mktemp("frames")
    return {s: xr.open_dataset(write_frame_in(folder, suffix=s), engine="ztf", cache=False) for s in SUFFIXES}


def slices(size: int) -> st.SearchStrategy[slice]:
    """Any slice, steps negative or past the end included."""
    bound = st.none() | st.integers(-size - 3, size + 3)
    return st.builds(slice, bound, bound, st.none() | st.integers(-9, 9).filter(bool))


def indexers(size: int) -> st.SearchStrategy[Any]:
    fancy = hnp.arrays(np.int64, st.integers(0, 6), elements=st.integers(-size, size - 1))
    return st.one_of(slices(size), st.integers(-size, size - 1), fancy)


@given(slices(9) | st.integers(-9, 8))
def test_enclosing_slices(key: slice | int) -> None:
    """What is read is contiguous, no more than needed, and gives the key back."""
    values = np.arange(9)
    outer, inner = _enclose(key, 9)
    np.testing.assert_array_equal(values[outer][inner], values[key])
    wanted = np.atleast_1d(values[key])
    assert outer.step is None
    assert len(values[outer]) == (np.ptp(wanted) + 1 if wanted.size else 0)


@pytest.mark.parametrize("suffix", SUFFIXES)
@example(y=slice(0, 0), x=slice(3, 3, -1))
@given(y=indexers(SHAPE[0]), x=indexers(SHAPE[1]))
def test_selections_equal_numpy(frames: dict[str, xr.Dataset], suffix: str, y: Any, x: Any) -> None:
    """Orthogonal indexing by slices, integers and arrays, in any combination."""
    found = frames[suffix]["sci"].drop_vars(("ra", "dec")).variable.isel(y=y, x=x)
    expected = make_sky(SHAPE)[y][..., x] if not isinstance(y, int) else make_sky(SHAPE)[y][x]
    np.testing.assert_array_equal(found.values, expected)
    assert found.dtype == np.float32


@given(st.lists(st.tuples(st.integers(0, SHAPE[0] - 1), st.integers(0, SHAPE[1] - 1)), min_size=1, max_size=9))
def test_pointwise_selection_equals_numpy(frames: dict[str, xr.Dataset], points: list[tuple[int, int]]) -> None:
    y, x = np.array(points).T
    flags = frames[".fits"]["flags"].isel(y=xr.DataArray(y, dims="p"), x=xr.DataArray(x, dims="p"))
    np.testing.assert_array_equal(flags.values, make_flags(SHAPE)[y, x])


@given(y=slices(SHAPE[0]), x=slices(SHAPE[1]))
def test_slices_of_dask_equal_numpy(frames: dict[str, xr.Dataset], y: slice, x: slice) -> None:
    lazy = frames[".fits"]["sci"].chunk(y=20)[y, x]
    np.testing.assert_array_equal(lazy.values, make_sky(SHAPE)[y, x])


# bad frames


def page(path: Path) -> None:
    path.write_bytes(b"<!DOCTYPE html><html>Please log in</html>")


def packed_page(path: Path) -> None:
    path.write_bytes(gzip.compress(b"<html>Please log in</html>"))


def half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def other_mask(path: Path) -> None:
    mask_path(path).unlink()
    write_image(mask_path(path), make_flags((9, 9)), fits.Header())


def cube(path: Path) -> None:
    path.unlink()
    write_image(path, np.zeros((2, 3, 4), np.float32), fits.Header())


Spoil = Callable[[Path], None]
SPOILED: list[tuple[str, str, Spoil, type[Exception], str]] = [
    ("truncated", ".fits", half, TruncatedFileError, r"bytes, but its header announces \d+; fetch it again"),
    ("truncated", ".fits.gz", half, TruncatedFileError, r"\.gz.*fetch it again"),
    ("truncated", ".fits.fz", half, TruncatedFileError, r"\.fz.*fetch it again"),
    ("truncated", ".fits", empty, TruncatedFileError, "the file is empty; fetch it again"),
    ("not_fits", ".fits", page, NotFITSError, "an HTML or XML page, not FITS; the server sent"),
    ("not_fits", ".fits.gz", packed_page, NotFITSError, "an HTML or XML page, not FITS; the server sent"),
    ("missing_mask", ".fits", lambda p: mask_path(p).unlink(), MissingMaskError, r"no mask image.*mask=False"),
    ("truncated", ".fits", lambda p: half(mask_path(p)), TruncatedFileError, "mskimg.*announces"),
    ("wrong_shape", ".fits", other_mask, ShapeError, r"mask is \(9, 9\) \(y, x\), the science image \(48, 40\)"),
    ("wrong_shape", ".fits", cube, ShapeError, "holds no 2-D image in its 1 HDUs"),
    ("unreadable", ".fits", Path.unlink, FileNotFoundError, "no such file"),
]
CARDS: list[tuple[dict[str, Any], str]] = [
    ({"EXPTIME": None}, "the header has no EXPTIME; is this a ZTF science image"),
    ({"OBSMJD": None, "OBSJD": None}, "the header has no OBSMJD or OBSJD; give time="),
    ({"EXPTIME": "thirty"}, "EXPTIME = 'thirty' is not a number"),
    ({"OBSMJD": "2020-09-24"}, "OBSMJD = '2020-09-24' is not a number"),
    ({"MAGZP": True}, "MAGZP = True is not a number"),
    (
        {"FILTERID": 7, "FILTER": "ZTF_u"},
        r"FILTERID = 7 and FILTER = 'ZTF_u' name no ZTF filter \(1 ztfg, 2 ztfr, 3 ztfi\)",
    ),
]


@pytest.mark.parametrize(("status", "suffix", "spoil", "error", "message"), SPOILED)
def test_bad_file(
    tmp_path: Path,
    write_frame: WriteFrame,
    status: str,
    suffix: str,
    spoil: Spoil,
    error: type[Exception],
    message: str,
) -> None:
    """One frame cannot be used: by itself it raises, among others it is a node that says why."""
    good = write_frame(name="ztf_20200924431759_000655_zr_c13_o_q1_sciimg")
    path = write_frame(suffix=suffix, shape=SHAPE)
    spoil(path)
    with pytest.raises(error, match=message):
        open_quadrant(path)
    tree = open_epochs([path, good])
    bad, fine = tree.children.values()
    assert bad.attrs["status"] == planes_to_bits([status], STATUS_PLANES)
    assert bad.attrs["source"] == path.name
    assert not bad.data_vars
    with pytest.raises(error, match=message):
        raise error(bad.attrs["message"])
    np.testing.assert_array_equal(fine["sci"].values, make_sky(SHAPE))
    assert "status" not in fine.attrs
    with pytest.raises(error, match=message):
        open_epochs([good, path], errors="raise")


@pytest.mark.parametrize(("cards", "message"), CARDS)
def test_bad_header(write_frame: WriteFrame, cards: dict[str, Any], message: str) -> None:
    path = write_frame(cards=cards)
    with pytest.raises(HeaderError, match=message):
        open_quadrant(path)
    node = next(iter(open_epochs([path]).children.values()))
    assert node.attrs["status"] == planes_to_bits(["bad_header"], STATUS_PLANES)


def test_mask_choices(tmp_path: Path, write_frame: WriteFrame) -> None:
    path = write_frame(mask=False)
    ds = open_quadrant(path, mask=False)
    assert set(ds.data_vars) == {"sci"}
    with pytest.raises(InputError, match="no variable 'flags'; open the frame with its mask"):
        mask(ds)
    elsewhere = tmp_path / "my_mask.fits"
    write_image(elsewhere, make_flags(SHAPE), fits.Header())
    xr.testing.assert_equal(
        open_quadrant(path, mask=elsewhere)["flags"].variable, xr.Variable(("y", "x"), make_flags(SHAPE))
    )
    with pytest.raises(FileNotFoundError, match=r"no such file.*nothing\.fits"):
        open_quadrant(path, mask=tmp_path / "nothing.fits")
    assert set(open_epochs([path], mask=False)[path.name.removesuffix(".fits")].data_vars) == {"sci"}


def test_no_wcs(write_frame: WriteFrame) -> None:
    """Such a frame opens, without `ra` and `dec`; what needs the sky says so."""
    ds = open_quadrant(write_frame(wcs=False))
    assert "ra" not in ds.coords
    assert "wcs_header" not in ds.attrs
    np.testing.assert_array_equal(ds["sci"].values, make_sky(SHAPE))
    with pytest.raises(MissingWCSError, match=r"no celestial WCS; give one with ztfxr\.assign_wcs"):
        pixel_to_sky(ds, 1.0, 2.0)
    with pytest.raises(MissingWCSError, match=r"no celestial WCS; give one with ztfxr\.assign_wcs"):
        sky_to_pixel(ds, ra=1.0, dec=2.0)


def test_pixels_that_go_bad_after_opening(write_frame: WriteFrame) -> None:
    path = write_frame(suffix=".fits.gz")
    ds = open_quadrant(path)
    half(path)
    with pytest.raises(TruncatedFileError, match="fetch"):
        ds["sci"].compute(scheduler="synchronous")


# many frames


def test_epochs_keep_order_and_place(tmp_path: Path, write_frame: WriteFrame, wcs_header: MakeHeader) -> None:
    """Frames of different size and WCS are siblings; nothing is aligned."""
    names = [f"ztf_2020092443{i}759_000655_zr_c13_o_q3_sciimg" for i in (3, 1, 2)]
    paths = [
        write_frame(name=n, shape=(40 + i, 30), wcs=wcs_header((40, 30), crval=(100.0 + i, 5.0)))
        for i, n in enumerate(names)
    ]
    tree = open_epochs(iter(paths))
    assert list(tree.children) == names
    assert [node.sizes["y"] for node in tree.children.values()] == [40, 41, 42]


def test_epochs_refuse_nothing_and_doubles(tmp_path: Path, write_frame: WriteFrame) -> None:
    with pytest.raises(InputError, match="no frames to open: the list of paths is empty"):
        open_epochs([])
    path = write_frame()
    (tmp_path / "copy").mkdir()
    other = shutil.copy(path, tmp_path / "copy")
    with pytest.raises(InputError, match=f"two frames are named {path.stem}"):
        open_epochs([path, other])


def test_epochs_read_nothing(write_frame: WriteFrame, no_reading: None) -> None:
    tree = open_epochs([write_frame()])
    assert next(iter(tree.children.values()))["sci"].chunks is not None
