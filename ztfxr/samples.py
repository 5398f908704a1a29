"""Packaged samples: a real cut-out, and semi-real epochs of it with other seeing, sky and noise and a supernova."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from astropy.io import fits
from numpy.typing import NDArray
from scipy import ndimage, special

from ztfxr.arrays.statistics import FWHM_TO_SIGMA
from ztfxr.arrays.types import Floats
from ztfxr.errors import InputError
from ztfxr.io.times import mid_exposure, to_datetime
from ztfxr.ops.background import background
from ztfxr.ops.masks import mask
from ztfxr.schema import planes_to_bits

__all__ = ["START_MJD", "SemiReal", "exposure_number", "make_epochs", "ramps", "sample_path", "write_frame"]

START_MJD = 59116.4317708
"""When the first night of simulated epochs begins: the time of the packaged cut-out."""

_SAMPLE = "ztf_20200924431759_000655_zr_c13_o_q3_sciimg.fits.gz"
_MARGIN = 10
_SCENE_FWHM = 2.0
_REFERENCE_FRAMES = 20
_JUNK = (-400.0, 30000.0)


@dataclass(frozen=True)
class SemiReal:
    """Written frames, the reference among them, and what was put into them.

    `truth` has on `time`: `flux` (DN on each epoch's scale), `blur` (sigma of the added seeing, px), `shift_x`,
    `shift_y` (px), `transparency`, `sky` (DN); and the scalars `x`, `y` of the supernova.
    """

    paths: tuple[Path, ...]
    reference: Path
    truth: xr.Dataset


def sample_path() -> Path:
    """The packaged real cut-out (320 × 320 px of a ZTF r-band quadrant); its mask lies beside it."""
    return Path(str(files("ztfxr") / "data" / _SAMPLE))


def exposure_number(start_mjd: float) -> int:
    """The night and fraction of day by which ZTF's file names tell exposures apart."""
    night = np.datetime_as_string(to_datetime(start_mjd), unit="D").replace("-", "")
    return int(f"{night}{int((start_mjd % 1) * 1e6):06d}")


def ramps(shape: tuple[int, int]) -> tuple[Floats, Floats]:
    """Coordinates from -1 to 1 over an image: a column of y and a row of x."""
    return np.linspace(-1, 1, shape[0])[:, None], np.linspace(-1, 1, shape[1])[None, :]


def write_frame(
    folder: Path, stem: str, header: fits.Header, sci: NDArray[np.float32], flags: NDArray[np.integer[Any]]
) -> Path:
    """Write a frame and its mask as ZTF names and keeps them; the path of the frame."""
    for kind, data in (("sci", sci), ("msk", flags.astype(np.int16))):
        fits.PrimaryHDU(data, header).writeto(folder / f"{stem}_{kind}img.fits", overwrite=True)
    return folder / f"{stem}_sciimg.fits"


def _gaussian(sigma: float, dx: float, dy: float, half: int = 7) -> Floats:
    """A unit-sum Gaussian integrated over pixels, shifted by (dx, dy); shape (2 half + 1, 2 half + 1)."""
    edges = np.arange(-half, half + 2) - 0.5
    columns, rows = (np.diff(special.ndtr((edges - shift) / sigma)) for shift in (dx, dy))
    kernel = np.outer(rows, columns)
    return np.asarray(kernel / kernel.sum())


def supernova(days: Floats) -> Floats:
    """A supernova-like light curve of unit peak: nothing before day 0, peak at day 16, a slower decline."""
    after = days - 16.0
    shape = np.where(after < 0, np.exp(-0.5 * (after / 6.5) ** 2), np.exp(-np.maximum(after, 0) / 22.0))
    return np.asarray(np.where(days < 0, 0.0, shape))


def make_epochs(
    folder: Path | str,
    *,
    n_epochs: int = 15,
    peak_flux: float = 4000.0,
    position: tuple[float, float] = (193.4, 181.7),
    bad_fraction: float = 0.001,
    seed: int = 655,
    light_curve: Callable[[Floats], Floats] = supernova,
) -> SemiReal:
    """Write `n_epochs` science frames with masks and one deep reference, as ZTF-named FITS files. Computes.

    The scene is the packaged real cut-out less its sky: its own noise becomes part of the scene and is the same in
    every frame. Each epoch sees it blurred, shifted by a fraction of a pixel and dimmed, over another sky, with its
    own photon and read noise by the header's gain, and with bad pixels that hold junk and are flagged in the mask.

    Parameters
    ----------
    folder
        Created where missing.
    n_epochs
        Number of science frames.
    peak_flux
        Peak of the supernova in DN, through perfect transparency.
    position
        The x and y of the supernova, 0-based pixels of the written frames.
    bad_fraction
        Fraction of single bad pixels; two bad columns and two blobs come on top.
    seed
        All that is random follows from it.
    light_curve
        Flux in units of the peak against days since the explosion.

    Returns
    -------
    SemiReal
        Paths of the frames and of the reference, and what was put into them.

    Raises
    ------
    InputError
        No epoch is asked for.
    """
    if n_epochs < 1:
        raise InputError(f"at least one epoch is needed; got {n_epochs}")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    scene, header = _scene(position)
    rng = np.random.default_rng(seed)
    days = np.linspace(-9.0, 51.0, n_epochs) + rng.uniform(-0.4, 0.4, n_epochs)
    reference = _write(
        folder, header, scene.sky_free, _Conditions(day=-365.0, sky=160.0, frames=_REFERENCE_FRAMES), 0.0, rng
    )
    paths, rows = [], []
    for day, flux in zip(days, peak_flux * light_curve(days), strict=True):
        conditions = _Conditions(
            day=float(day),
            blur=rng.uniform(0.55, 1.15),
            shift=(rng.uniform(-0.6, 0.6), rng.uniform(-0.6, 0.6)),
            transparency=rng.uniform(0.75, 1.05),
            sky=rng.uniform(120.0, 420.0),
            slope=(rng.uniform(-6, 6), rng.uniform(-6, 6)),
        )
        image = ndimage.convolve(
            scene.sky_free + flux * scene.star,
            _gaussian(conditions.blur, *conditions.shift)[::-1, ::-1],
            mode="reflect",
        )
        paths.append(_write(folder, header, conditions.transparency * image, conditions, bad_fraction, rng))
        rows.append({"flux": flux * conditions.transparency, **conditions.row()})
    truth = xr.Dataset(
        {k: ("time", np.array([r[k] for r in rows])) for k in rows[0]}, {"x": position[0], "y": position[1]}
    )
    return SemiReal(tuple(paths), reference, truth)


@dataclass(frozen=True)
class _Scene:
    """The cut-out without its sky, and a unit-flux star at the supernova's place; both with a margin for the blur."""

    sky_free: Floats
    star: Floats


@dataclass(frozen=True)
class _Conditions:
    """How one epoch was observed."""

    day: float
    blur: float = 0.0
    shift: tuple[float, float] = (0.0, 0.0)
    transparency: float = 1.0
    sky: float = 160.0
    slope: tuple[float, float] = (0.0, 0.0)
    frames: int = 1

    def row(self) -> dict[str, Any]:
        """As a row of the truth table."""
        names = {"blur": self.blur, "shift_x": self.shift[0], "shift_y": self.shift[1]}
        time = to_datetime(mid_exposure(START_MJD + self.day, 30.0))
        return {**names, "transparency": self.transparency, "sky": self.sky, "time": time}

    def background(self, shape: tuple[int, int]) -> Floats:
        """Sky with a slope, in DN."""
        v, u = ramps(shape)
        return np.asarray(self.sky + self.slope[0] * u + self.slope[1] * v)


def _scene(position: tuple[float, float]) -> tuple[_Scene, fits.Header]:
    path = sample_path()
    with (
        fits.open(path, memmap=False) as hdus,
        fits.open(path.with_name(path.name.replace("sciimg", "mskimg"))) as masks,
    ):
        header = hdus[0].header.copy()
        image = xr.DataArray(hdus[0].data.astype(np.float64), dims=("y", "x"))
        bad = mask(xr.DataArray(masks[0].data.astype(np.uint16), dims=("y", "x")))
    level = background(image, mask=bad, box_size=160)["background"]
    sky_free = (image - level).values
    sky_free[bad.values] = ndimage.median_filter(sky_free, size=5)[bad.values]
    half = 12
    x, y = position[0] + _MARGIN, position[1] + _MARGIN
    ix, iy = round(x), round(y)
    star = np.zeros_like(sky_free)
    star[iy - half : iy + half + 1, ix - half : ix + half + 1] = _gaussian(
        _SCENE_FWHM * FWHM_TO_SIGMA, x - ix, y - iy, half
    )
    header["CRPIX1"] -= _MARGIN
    header["CRPIX2"] -= _MARGIN
    return _Scene(sky_free, star), header


def _write(
    folder: Path,
    header: fits.Header,
    image: Floats,
    conditions: _Conditions,
    bad_fraction: float,
    rng: np.random.Generator,
) -> Path:
    """Crop the margin, add sky and noise, spoil bad pixels, write frame and mask; the path of the frame."""
    inner = image[_MARGIN:-_MARGIN, _MARGIN:-_MARGIN]
    gain, readnoise = float(header["GAIN"]), float(header["READNOI"])
    expected = inner + conditions.background((inner.shape[0], inner.shape[1]))
    variance = (np.maximum(expected, 0) / gain + (readnoise / gain) ** 2) / conditions.frames
    pixels = expected + rng.normal(size=inner.shape) * np.sqrt(variance)
    flags = _bad_pixels((inner.shape[0], inner.shape[1]), bad_fraction, rng)
    junk = rng.choice(_JUNK, size=inner.shape)
    pixels = np.where(flags > 0, junk, pixels)
    out = _header(header, conditions)
    stem = Path(out["FILENAME"]).stem.replace("_o", "_o_q3")
    return write_frame(folder, stem, out, pixels.astype(np.float32), flags)


def _header(header: fits.Header, conditions: _Conditions) -> fits.Header:
    """The real header with this epoch's time, zero point and effective noise."""
    out = header.copy()
    for card in ("LTV1", "LTV2"):
        # The frames are whole ones: their pixels are counted from their own corner.
        out.remove(card, ignore_missing=True)
    start = START_MJD + conditions.day
    out["OBSMJD"], out["OBSJD"] = start, start + 2400000.5
    out["FILENAME"] = f"ztf_{exposure_number(start)}_{int(out['FIELDID']):06d}_zr_c{int(out['CCDID']):02d}_o.fits"
    out["MAGZP"] = float(header["MAGZP"]) + 2.5 * float(np.log10(conditions.transparency))
    out["GAIN"] = float(header["GAIN"]) * conditions.frames
    out["READNOI"] = float(header["READNOI"]) * float(np.sqrt(conditions.frames))
    out["SEEING"] = (float(np.hypot(_SCENE_FWHM, conditions.blur / FWHM_TO_SIGMA)), "seeing FWHM [pixels]")
    out["HISTORY"] = "semi-real: made by ztfxr.samples from a real cut-out; not an observation"
    return out


def _bad_pixels(shape: tuple[int, int], fraction: float, rng: np.random.Generator) -> NDArray[np.int64]:
    """Bit planes of bad pixels: single ones, two columns and two blobs; none for fraction 0."""
    flags = np.zeros(shape, dtype=np.int64)
    if fraction <= 0:
        return flags
    flags[rng.uniform(size=shape) < fraction] |= planes_to_bits(["noisy"])
    for column in rng.integers(0, shape[1], 2):
        flags[:, column] |= planes_to_bits(["dead"])
    for _ in range(2):
        y, x, size = rng.integers(0, shape[0] - 12), rng.integers(0, shape[1] - 12), rng.integers(4, 12)
        flags[y : y + size, x : x + size] |= planes_to_bits(["tracks"])
    return flags
