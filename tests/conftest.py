"""Fixtures: the real data, a scheduler that refuses to compute, and small synthetic frames."""

from __future__ import annotations

import gzip
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

# Before numpy is there: tests share the cores with each other, and threads of BLAS that wait for one another are slow.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import dask
import matplotlib as mpl
import numpy as np
import pytest
from astropy.io import fits
from hypothesis import settings
from numpy.typing import ArrayLike, NDArray

from tests.packets import write_packets

mpl.use("Agg")
settings.register_profile("ztfxr", deadline=None, derandomize=True, database=None)
settings.load_profile("ztfxr")

EXAMPLES = int(os.environ.get("ZTFXR_EXAMPLES", "100"))
"""Of the property tests of files, times, sky, stores and labels."""

QUADRANT = "ztf_20200924431759_000655_zr_c13_o_q3_sciimg"

WriteFrame = Callable[..., Path]
MakeHeader = Callable[..., fits.Header]


def _shared() -> Path:
    return Path(os.environ.get("ZTFXR_SHARED") or Path(__file__).parents[2] / "shared")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data; the test is skipped where it is missing."""
    folder = _shared()
    if not (folder / "data").is_dir():
        pytest.skip(f"no real data: {folder / 'data'} is missing; set ZTFXR_SHARED to the folder that holds data/")
    return folder


@pytest.fixture(scope="session")
def quadrant_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real science quadrant, gzipped, its mask beside it; without it one made of its cut-out in `data`."""
    whole = _shared() / "data" / "ztf_quadrant" / f"{QUADRANT}.fits.gz"
    if whole.is_file():
        return whole
    folder = tmp_path_factory.mktemp("mirrored")
    for cut in (Path(__file__).parent / "data" / "ztf_quadrant").glob("*.fits.gz"):
        _mirror(cut, folder / cut.name)
    return folder / whole.name


def _mirror(cut: Path, target: Path, shape: tuple[int, int] = (3080, 3072)) -> None:
    """Write a frame that has the pixels of a cut-out at their place, and its mirror images around them."""
    with fits.open(cut, memmap=False) as hdus:
        header, pixels = hdus[0].header.copy(), hdus[0].data
    x, y = (-int(header.pop(f"LTV{axis}")) for axis in (1, 2))
    header["CRPIX1"] += x
    header["CRPIX2"] += y
    beyond = ((y, shape[0] - y - pixels.shape[0]), (x, shape[1] - x - pixels.shape[1]))
    with gzip.open(target, "wb", compresslevel=1) as packed:
        fits.PrimaryHDU(np.pad(pixels, beyond, mode="symmetric"), header).writeto(packed)


@pytest.fixture(scope="session")
def plain_quadrant_path(quadrant_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same frame and mask, not compressed. Do not write to it."""
    folder = tmp_path_factory.mktemp("quadrant")
    for source in (quadrant_path, quadrant_path.with_name(quadrant_path.name.replace("sciimg", "mskimg"))):
        with gzip.open(source) as packed, (folder / source.name.removesuffix(".gz")).open("wb") as plain:
            shutil.copyfileobj(packed, plain, 1 << 20)
    return folder / f"{QUADRANT}.fits"


@pytest.fixture(scope="session")
def alert_paths(shared: Path) -> list[Path]:
    """The 34 real alert packets of one supernova."""
    return sorted((shared / "data" / "ztf_alerts").glob("*.avro"))


@pytest.fixture(scope="session")
def packet_paths(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Alert packets of one object: the real ones, or simulated ones where these are missing."""
    real = sorted((_shared() / "data" / "ztf_alerts").glob("*.avro"))
    return real or write_packets(tmp_path_factory.mktemp("packets") / "one", 6, one_object=True)


def _refuse(dsk: Any, keys: Any, **kwargs: Any) -> Any:
    raise AssertionError("something was computed that should have stayed lazy")


@pytest.fixture
def raising_scheduler() -> Iterator[Callable[..., Any]]:
    """Every dask computation fails within the test."""
    with dask.config.set(scheduler=_refuse):
        yield _refuse


@pytest.fixture
def write_frame(tmp_path: Path) -> WriteFrame:
    """``write_frame(suffix=".fits.gz", ...)`` writes a frame in `tmp_path`; see `make_frame`."""

    def write(folder: Path = tmp_path, **options: Any) -> Path:
        return make_frame(folder, **options)

    return write


@pytest.fixture(scope="session")
def write_frame_in() -> WriteFrame:
    """``write_frame_in(folder, ...)``, for fixtures that outlive one test; see `make_frame`."""
    return make_frame


@pytest.fixture(scope="session")
def wcs_header() -> MakeHeader:
    """``wcs_header(shape, crval=(ra, dec), ctype="TPV")`` makes a distorted WCS header; see `make_wcs_header`."""
    return make_wcs_header


def make_wcs_header(
    shape: tuple[int, int], crval: tuple[float, float] = (150.3, 20.7), ctype: str = "TPV"
) -> fits.Header:
    """A WCS like ZTF's: about 1.012 arcsec per pixel, slightly rotated, distorted by a few PV terms."""
    header = fits.Header()
    header["WCSAXES"] = 2
    header["RADESYS"] = "ICRS"
    header["EQUINOX"] = 2000.0
    for axis, (name, size) in enumerate(zip(("RA---", "DEC--"), shape[::-1], strict=True), start=1):
        header[f"CTYPE{axis}"] = name + ctype
        header[f"CUNIT{axis}"] = "deg"
        header[f"CRPIX{axis}"] = (size + 1) / 2
        header[f"CRVAL{axis}"] = crval[axis - 1]
    header["CD1_1"], header["CD1_2"] = -2.811e-4, -7.697e-6
    header["CD2_1"], header["CD2_2"] = 7.721e-6, -2.8117e-4
    for axis, terms in ((1, (-4.9e-5, 1.00003, 9.4e-5, 2.4e-4)), (2, (-4.5e-5, 0.99999, 3.1e-5, 3.8e-4))):
        for number, value in zip((0, 1, 2, 4), terms, strict=True):
            header[f"PV{axis}_{number}"] = value
    return header


def make_frame(
    folder: Path,
    *,
    name: str = QUADRANT,
    suffix: str = ".fits",
    mask_suffix: str | None = None,
    shape: tuple[int, int] = (48, 40),
    seed: int = 0,
    sci: ArrayLike | None = None,
    flags: ArrayLike | None = None,
    mask: bool = True,
    wcs: fits.Header | bool = True,
    cards: Mapping[str, Any] | None = None,
) -> Path:
    """Write a small ZTF-like science image with its mask beside it; the path of the science image.

    `suffix` is ``.fits``, ``.fits.gz`` or ``.fits.fz`` (lossless tiles); `mask_suffix` is the same by default.
    `cards` overrides header cards, None removes one. `wcs` is a header to use, or False for none.
    """
    pixels = make_sky(shape, seed) if sci is None else np.asarray(sci)
    planes = make_flags(pixels.shape, seed) if flags is None else np.asarray(flags)
    header = make_header(name, pixels.shape, wcs, cards or {})
    path = folder / f"{name}{suffix}"
    write_image(path, pixels, header)
    if mask:
        beside = folder / f"{name.replace('sciimg', 'mskimg')}{mask_suffix or suffix}"
        write_image(beside, planes, fits.Header([("FILTERID", 2)]))
    return path


def make_sky(shape: tuple[int, ...], seed: int = 0) -> NDArray[np.float32]:
    """A noisy sky of 200 DN."""
    return np.random.default_rng(seed).normal(200.0, 9.0, shape).astype(np.float32)


def make_flags(shape: tuple[int, ...], seed: int = 0) -> NDArray[np.int16]:
    """Sparse bit planes 0 to 12, in the 16-bit integers that IPAC writes."""
    rng = np.random.default_rng(seed + 1)
    planes = (1 << rng.integers(0, 13, shape)) | (1 << rng.integers(0, 13, shape))
    return np.where(rng.random(shape) < 0.3, planes, 0).astype(np.int16)


def make_header(name: str, shape: tuple[int, ...], wcs: fits.Header | bool, cards: Mapping[str, Any]) -> fits.Header:
    """The cards of an exposure, its WCS among them."""
    header = fits.Header()
    header["FILENAME"] = f"{name}.fits"
    header["OBSMJD"] = (59116.4317708, "MJD corresponds to UTC-OBS (day)")
    header["OBSJD"] = 2459116.9317708
    header["EXPTIME"] = (30.0, "Exposure time (s)")
    header["FILTERID"], header["FILTER"] = 2, "ZTF_r"
    header["FIELDID"], header["CCDID"], header["QID"] = 655, 13, 3
    header["MAGZP"], header["MAGZPRMS"] = 26.285139, 0.024661
    header["GAIN"], header["READNOI"], header["SATURATE"] = 6.0, 9.0, 58647.152
    header["SEEING"] = (1.241, "seeing FWHM [pixels]")
    if wcs is not False:
        header.update(make_wcs_header((shape[-2], shape[-1])) if wcs is True else wcs)
    for key, value in cards.items():
        if value is None:
            del header[key]
        else:
            header[key] = value
    return header


def write_image(path: Path, pixels: NDArray[Any], header: fits.Header) -> None:
    """One image in a plain, a gzipped or a tile-compressed (lossless) file."""
    hdus: Any = fits.PrimaryHDU(pixels, header)
    if path.suffix == ".fz":
        options = {"compression_type": "GZIP_2", "quantize_level": 0}
        if pixels.dtype.kind in "iu":
            options = {"compression_type": "RICE_1"}
        tile = (1, *pixels.shape[1:])
        hdus = fits.HDUList([fits.PrimaryHDU(), fits.CompImageHDU(pixels, header, tile_shape=tile, **options)])
    hdus.writeto(path)
