"""Simulated stacks of epochs with a known truth: stars, galaxies, variables and transients over sky and detector."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import xarray as xr
from astropy.io import fits
from numpy.typing import ArrayLike, NDArray

from ztfxr.arrays.types import Bools, Floats
from ztfxr.errors import InputError
from ztfxr.io.cards import exposure_header
from ztfxr.io.times import mid_exposure, to_datetime
from ztfxr.ops.positions import pixel_origin
from ztfxr.samples import START_MJD, exposure_number, ramps, write_frame
from ztfxr.schema import MASK_PLANES, annotate_all, flag_attrs, planes_to_bits
from ztfxr.testing._population import Counts, Population, SceneOptions, make_sources
from ztfxr.testing._render import PSFShape, add_galaxy, add_stars, make_stamps
from ztfxr.wcs import assign_wcs

__all__ = ["Detector", "Optics", "Scene", "SceneOptions", "Sky", "make_scene", "true_psf"]

Shape = tuple[int, int]

_EXPTIME = 30.0
_FIELD, _CCD, _QUADRANT = 655, 13, 3
_UNITS = {
    "shift_x": "pixel",
    "shift_y": "pixel",
    "x_epoch": "pixel",
    "y_epoch": "pixel",
    "half_light_radius": "pixel",
    "orientation": "deg",
}


@dataclass(frozen=True)
class Optics:
    """The PSF: its profile, and how it changes from epoch to epoch and over the field.

    `fwhm` (px) is drawn per epoch from the range; `ellipticity` is the largest; `field_variation` is the largest
    relative change of the FWHM from the center to the edge, by a plane and a bowl; the light ends `reach` px from the
    central pixel, and sums to one within.
    """

    profile: Literal["moffat", "gaussian"] = "moffat"
    beta: float = 3.5
    fwhm: tuple[float, float] = (1.9, 2.8)
    ellipticity: float = 0.06
    field_variation: float = 0.05
    reach: int = 16

    def __post_init__(self) -> None:
        if self.profile not in ("moffat", "gaussian"):
            raise InputError(f"profile is 'moffat' or 'gaussian'; got {self.profile!r}")
        if not 0 < self.fwhm[0] <= self.fwhm[1] or self.reach < 1:
            raise InputError(f"fwhm is a range of positive widths, reach at least 1; got {self.fwhm}, {self.reach}")


@dataclass(frozen=True)
class Sky:
    """What lies over and before the sources: `level` (DN) and `transparency` are drawn per epoch from their ranges.

    `gradient` is the largest slope of the sky, relative to its level, from center to edge. `dither` (px) is the largest
    displacement of an epoch per axis; with 0 all epochs share one pixel grid.
    """

    level: tuple[float, float] = (120.0, 420.0)
    gradient: float = 0.03
    transparency: tuple[float, float] = (0.75, 1.05)
    dither: float = 0.0


@dataclass(frozen=True)
class Detector:
    """`gain` (electron/DN), `readnoise` (electron), `saturate` (DN), `magzp` (AB magnitude of 1 DN at transparency 1).

    `cosmic_rays` is the mean number per epoch, of which the fraction `flagged` is known to the mask. The fraction
    `bad_fraction` of the pixels, and `bad_columns` columns, are dead and hold junk, the same in every epoch.
    """

    gain: float = 6.0
    readnoise: float = 9.0
    saturate: float = 55000.0
    magzp: float = 26.3
    cosmic_rays: float = 10.0
    flagged: float = 1.0
    bad_fraction: float = 5e-4
    bad_columns: int = 1

    def __post_init__(self) -> None:
        if self.gain <= 0 or self.readnoise < 0:
            raise InputError(f"gain is positive, readnoise at least 0; got {self.gain}, {self.readnoise}")
        if not (0 <= self.flagged <= 1 and 0 <= self.bad_fraction <= 1):
            raise InputError(f"fractions go from 0 to 1; got flagged={self.flagged}, bad_fraction={self.bad_fraction}")


@dataclass(frozen=True, repr=False)
class Scene:
    """`images` (time, y, x), a deep `reference` (y, x), the `truth` of sources and epochs, and `ideal` images without
    noise; see `make_scene`.
    """

    images: xr.Dataset
    reference: xr.Dataset
    truth: xr.Dataset
    ideal: xr.Dataset

    def __repr__(self) -> str:
        n, (ny, nx) = self.images.sizes["time"], (self.images.sizes[d] for d in ("y", "x"))
        return f"<Scene: {n} epochs of {ny} x {nx} pixels (y, x), {self.truth.sizes['source']} sources>"

    def epochs(self) -> xr.DataTree:
        """The epochs as siblings, each with its own WCS, as `ztfxr.open_epochs` gives them."""
        frames = {f"epoch_{i:04d}": self._frame(i) for i in range(self.images.sizes["time"])}
        return xr.DataTree.from_dict(frames)

    def write(self, folder: Path | str) -> list[Path]:
        """Write every epoch and the reference as ZTF-named FITS files with masks; the reference's path is last.

        Computes. The folder is created where missing.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        frames = [self._frame(i) for i in range(self.images.sizes["time"])]
        return [_write(folder, frame) for frame in [*frames, self.reference]]

    def _frame(self, index: int) -> xr.Dataset:
        dx, dy = (float(self.truth[f"shift_{d}"][index]) for d in "xy")
        frame = self.images.isel(time=index).drop_vars(["ra", "dec"], errors="ignore")
        return assign_wcs(frame, _wcs_header(self.images.sizes["y"], self.images.sizes["x"], dx, dy))


def make_scene(
    shape: Shape = (512, 512),
    *,
    n_epochs: int = 20,
    n_stars: int = 500,
    n_galaxies: int = 20,
    n_variables: int = 10,
    n_transients: int = 5,
    sources: xr.Dataset | None = None,
    options: SceneOptions | None = None,
    optics: Optics | None = None,
    sky: Sky | None = None,
    detector: Detector | None = None,
    seed: int = 0,
) -> Scene:
    """Simulate a stack of epochs of one field, and everything that there is to know about it. Computes.

    Parameters
    ----------
    shape
        (y, x) of the frames, pixels.
    n_epochs, n_stars, n_galaxies, n_variables, n_transients
        Numbers; variables are stars whose flux oscillates, half of the transients lie on galaxies.
    sources
        More point sources: `x`, `y` (source) in 0-based pixels, `flux` (source) or (time, source) in DN at
        transparency 1. They come first in the truth, as kind ``"given"``.
    options
        Magnitudes and spacing of the sources, and the depth of the reference, which has the best seeing, no dither, no
        cosmic ray, and no transient.
    optics, sky, detector
        See `Optics`, `Sky`, `Detector`.
    seed
        All that is random follows from it; the sources do not depend on the number of epochs.

    Returns
    -------
    Scene
        `images`: `sci` (DN, with sky), `flags`, and `variance` (DN², the true one: expected photons and read noise) on
        (time, y, x), with the coordinates of epochs that `ztfxr.open_quadrant` gives, and `ra`, `dec` where nothing is
        dithered. `reference`: the same on (y, x). `truth`:

        - on `source`: `x`, `y` (px, without dither), `kind` (given, star, variable, galaxy, transient), `mag` (mean AB
          magnitude; of the peak for transients), `reference_flux` (DN, in the reference), `half_light_radius` (px),
          `axis_ratio`, `orientation` (deg, from +x towards +y), `host` (index of a transient's galaxy, else -1);
        - on (time, source): `flux` (DN on each epoch's scale, all of a source's light), `x_epoch`, `y_epoch` (px);
        - on `time`: `transparency`, `sky` (DN at the center), `shift_x`, `shift_y` (px, position in the epoch less that
          without dither), `fwhm` (px at the center) and the terms of the PSF's shape (see `true_psf`).

        `ideal`, on (time, y, x): `expected` (DN, without noise and saturation), `background` (DN, the sky),
        `cosmic_ray`.

    Raises
    ------
    InputError
        A number is negative, or so many sources do not fit at `min_separation`.

    Notes
    -----
    Pixels are ``Poisson(expected · gain) / gain`` plus Gaussian read noise, then come cosmic rays, saturation and dead
    pixels. Point sources are integrated over each pixel (Gauss-Legendre). A galaxy is a lattice of points half a pixel
    apart with a Sérsic profile of index 1 or 4, its cusp softened: every epoch sees exactly its convolution with the
    PSF at its center.
    """
    counts = Counts(n_stars, n_galaxies, n_variables, n_transients)
    _check(shape, n_epochs, counts)
    options, optics, sky, detector = options or SceneOptions(), optics or Optics(), sky or Sky(), detector or Detector()
    of_sources, of_epochs, of_detector, *of_frames = np.random.SeedSequence(seed).spawn(4 + n_epochs)
    days = _days(n_epochs, np.random.default_rng(of_epochs))
    population = make_sources(shape, counts, options, sources, days, detector.magzp, np.random.default_rng(of_sources))
    conditions = _draw_conditions(n_epochs, optics, sky, np.random.default_rng(of_epochs.spawn(1)[0]))
    dead = _dead_pixels(shape, detector, np.random.default_rng(of_detector))
    setup = _Setup(shape, optics, detector, population, dead)
    frames = [setup.expose(conditions, i, np.random.default_rng(s)) for i, s in enumerate(of_frames[:n_epochs])]
    truth = _truth(setup, conditions, frames, sky.dither)
    images = _label(frames, conditions, days, detector, sky.dither == 0)
    reference, light = _reference(setup, conditions, options.reference_frames, np.random.default_rng(of_frames[-1]))
    truth["reference_flux"] = ("source", light, {"units": "DN"})
    return Scene(images, reference, annotate_all(truth), _ideal(frames, images))


def true_psf(truth: xr.Dataset, epoch: int, x: ArrayLike, y: ArrayLike, *, size: int | None = None) -> xr.DataArray:
    """Stamps of a scene's PSF for sources at `x`, `y` (0-based pixels of the epoch), integrated over each pixel.

    Parameters
    ----------
    truth
        Of a `Scene`.
    epoch
        Index along time.
    x, y
        Positions, shape (source,); the middle pixel of a stamp is the one that holds the source.
    size
        Odd, at most and by default ``2 · reach + 1``, at which a stamp sums to one.

    Returns
    -------
    xarray.DataArray
        (source, psf_y, psf_x), the fraction of the light in each pixel.

    Notes
    -----
    ``fwhm(u, v) = fwhm · (1 + fwhm_x u + fwhm_y v + fwhm_r2 (u² + v²))`` with u, v from -1 to 1 over the frame;
    the ellipticity ``e1 + e1 u, e2 + e2 v`` with its values at the center.
    """
    px, py = (np.atleast_1d(np.asarray(v, dtype=np.float64)) for v in (x, y))
    shape = _psf_shape(truth, epoch, px, py)
    full = 2 * shape.reach + 1
    size = full if size is None else size
    if size % 2 == 0 or not 0 < size <= full:
        raise InputError(f"size is odd and at most {full}; got {size}")
    stamps = make_stamps(px - np.floor(px + 0.5), py - np.floor(py + 0.5), shape)
    cut = (full - size) // 2
    return xr.DataArray(stamps[:, cut : full - cut, cut : full - cut], dims=("source", "psf_y", "psf_x"), name="psf")


def _psf_shape(conditions: xr.Dataset, epoch: int, x: Floats, y: Floats) -> PSFShape:
    ny, nx = conditions.attrs["shape"]
    u, v = 2 * x / (nx - 1) - 1, 2 * y / (ny - 1) - 1
    at = {str(k): float(w[epoch]) for k, w in conditions.data_vars.items() if w.dims == ("time",)}
    fwhm = at["fwhm"] * (1 + at["fwhm_x"] * u + at["fwhm_y"] * v + at["fwhm_r2"] * (u**2 + v**2))
    e1, e2 = at["ellipticity_1"] * (1 + 0.5 * u), at["ellipticity_2"] * (1 + 0.5 * v)
    return PSFShape(fwhm, e1, e2, float(conditions.attrs["beta"]), int(conditions.attrs["reach"]))


def _check(shape: Shape, n_epochs: int, counts: Counts) -> None:
    if min(shape) < 32 or n_epochs < 1:
        raise InputError(f"a scene has at least 32 x 32 pixels and an epoch; got {shape}, {n_epochs}")
    if min(counts) < 0:
        raise InputError(f"numbers of sources cannot be negative; got {tuple(counts)}")


def _days(n_epochs: int, rng: np.random.Generator) -> Floats:
    """Days since the first night, one epoch a night at about the same hour."""
    return np.arange(n_epochs) + rng.uniform(-0.15, 0.15, n_epochs)


def _draw_conditions(n_epochs: int, optics: Optics, sky: Sky, rng: np.random.Generator) -> xr.Dataset:
    """How every epoch was observed, and as the last one the reference."""
    n = n_epochs + 1
    size, angle = optics.ellipticity * np.sqrt(rng.uniform(0, 1, n)), rng.uniform(0, 2 * np.pi, n)
    change = optics.field_variation
    columns = {
        "fwhm": rng.uniform(*optics.fwhm, n),
        "ellipticity_1": size * np.cos(angle) / 1.5,
        "ellipticity_2": size * np.sin(angle) / 1.5,
        "fwhm_x": rng.uniform(-change, change, n) / 3,
        "fwhm_y": rng.uniform(-change, change, n) / 3,
        "fwhm_r2": rng.uniform(0, change, n) / 6,
        "transparency": rng.uniform(*sky.transparency, n),
        "sky": rng.uniform(*sky.level, n),
        "slope_x": rng.uniform(-sky.gradient, sky.gradient, n),
        "slope_y": rng.uniform(-sky.gradient, sky.gradient, n),
        "shift_x": rng.uniform(-sky.dither, sky.dither, n),
        "shift_y": rng.uniform(-sky.dither, sky.dither, n),
    }
    best = {"fwhm": optics.fwhm[0], "transparency": 1.0, "shift_x": 0.0, "shift_y": 0.0}
    best["sky"] = float(np.median(columns["sky"][:-1]))
    for name, value in best.items():
        columns[name][-1] = value
    beta = optics.beta if optics.profile == "moffat" else 0.0
    return xr.Dataset({k: ("time", v) for k, v in columns.items()}, attrs={"beta": beta, "reach": optics.reach})


@dataclass(frozen=True)
class _Exposure:
    """One frame, (y, x) each."""

    sci: NDArray[np.float32]
    flags: NDArray[np.uint16]
    variance: NDArray[np.float32]
    expected: NDArray[np.float32]
    background: NDArray[np.float32]
    cosmic_ray: Bools
    flux: Floats = field(repr=False)


@dataclass(frozen=True)
class _Setup:
    """What the epochs share."""

    shape: Shape
    optics: Optics
    detector: Detector
    sources: Population
    dead: Bools

    def expose(self, conditions: xr.Dataset, epoch: int, rng: np.random.Generator) -> _Exposure:
        """One epoch, with noise, cosmic rays, saturation and dead pixels."""
        flux = self.sources.flux[epoch] * float(conditions["transparency"][epoch])
        background, expected = self.render(conditions, epoch, flux)
        sci, variance = _observe(expected, self.detector, 1, rng)
        rays, known = _cosmic_rays(self.shape, self.detector, rng)
        sci += rays
        flags = np.zeros(self.shape, dtype=np.uint16)
        flags[known] |= planes_to_bits(["spikes"])
        flags[sci >= self.detector.saturate] |= planes_to_bits(["saturated"])
        flags[self.dead] |= planes_to_bits(["dead"])
        sci = np.where(self.dead, rng.choice((-400.0, 30000.0), self.shape), np.minimum(sci, self.detector.saturate))
        f4 = [np.asarray(v, dtype=np.float32) for v in (sci, variance, expected, background)]
        return _Exposure(f4[0], flags, f4[1], f4[2], f4[3], rays > 0, flux)

    def render(self, conditions: xr.Dataset, epoch: int, flux: Floats) -> tuple[Floats, Floats]:
        """Sky, and sky with sources, in DN."""
        conditions = conditions.assign_attrs(shape=self.shape)
        v, u = ramps(self.shape)
        at = {str(k): float(w[epoch]) for k, w in conditions.data_vars.items()}
        background = at["sky"] * (1 + at["slope_x"] * u + at["slope_y"] * v)
        image = background.copy()
        x, y = self.sources.x + at["shift_x"], self.sources.y + at["shift_y"]
        psf = _psf_shape(conditions, epoch, x, y)
        extended = self.sources.kind == "galaxy"
        add_stars(image, x, y, np.where(extended, 0.0, flux), psf)
        for i in np.flatnonzero(extended).tolist():
            add_galaxy(image, x[i], y[i], flux[i] * self.sources.light[i], psf.of(np.array([i])))
        return background, image


def _observe(expected: Floats, detector: Detector, n_frames: int, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Pixels of the mean of `n_frames` exposures, and their true variance."""
    gain, n = detector.gain, n_frames
    electrons = rng.poisson(expected * gain * n) + rng.normal(0.0, detector.readnoise * np.sqrt(n), expected.shape)
    return electrons / (gain * n), (expected / gain + (detector.readnoise / gain) ** 2) / n


def _cosmic_rays(shape: Shape, detector: Detector, rng: np.random.Generator) -> tuple[Floats, Bools]:
    """Charge in DN of straight tracks, and which pixels of them the mask knows."""
    charge, known = np.zeros(shape), np.zeros(shape, dtype=bool)
    for _ in range(rng.poisson(detector.cosmic_rays)):
        length, angle = 1 + rng.geometric(0.3), rng.uniform(0, np.pi)
        steps = np.arange(length)
        rows = np.rint(rng.uniform(0, shape[0] - 1) + steps * np.sin(angle)).astype(int)
        columns = np.rint(rng.uniform(0, shape[1] - 1) + steps * np.cos(angle)).astype(int)
        inside = (rows < shape[0]) & (columns >= 0) & (columns < shape[1])
        place = rows[inside], columns[inside]
        charge[place] += (50.0 + rng.exponential(800.0, length))[inside]
        known[place] |= rng.uniform() < detector.flagged
    return charge, known


def _dead_pixels(shape: Shape, detector: Detector, rng: np.random.Generator) -> Bools:
    dead = np.asarray(rng.uniform(size=shape) < detector.bad_fraction)
    dead[:, rng.integers(0, shape[1], detector.bad_columns)] = True
    return dead


def _reference(
    setup: _Setup, conditions: xr.Dataset, n_frames: int, rng: np.random.Generator
) -> tuple[xr.Dataset, Floats]:
    """The reference, and the flux of every source in it."""
    flux = setup.sources.quiescent
    _, expected = setup.render(conditions, conditions.sizes["time"] - 1, flux)
    sci, variance = _observe(expected, setup.detector, n_frames, rng)
    flags = np.where(sci >= setup.detector.saturate, planes_to_bits(["saturated"]), 0)
    sci = np.minimum(sci, setup.detector.saturate)
    effective = {
        "gain": setup.detector.gain * n_frames,
        "readnoise": setup.detector.readnoise * np.sqrt(n_frames),
        "saturate": setup.detector.saturate,
        "magzp": setup.detector.magzp,
        "seeing": float(conditions["fwhm"][-1]),
    }
    planes = {"sci": sci.astype(np.float32), "flags": flags.astype(np.uint16), "variance": variance.astype(np.float32)}
    frame = xr.Dataset({k: (("y", "x"), v) for k, v in planes.items()})
    frame = _with_place(frame.assign_coords(_epoch(-365.0)), effective)
    return assign_wcs(frame, _wcs_header(*setup.shape, 0.0, 0.0)), flux


def _truth(setup: _Setup, conditions: xr.Dataset, frames: list[_Exposure], dither: float) -> xr.Dataset:
    population, seen = setup.sources, conditions.isel(time=slice(None, -1))
    truth = seen.assign_attrs(shape=setup.shape, **seen.attrs, dither=dither)
    per_source = ("x", "y", "kind", "mag", "half_light_radius", "axis_ratio", "orientation", "host")
    truth = truth.assign({k: ("source", getattr(population, k)) for k in per_source})
    truth["flux"] = (("time", "source"), np.stack([f.flux for f in frames]))
    for axis in ("x", "y"):
        truth[f"{axis}_epoch"] = (truth[axis] + truth[f"shift_{axis}"]).transpose("time", "source")
    for name, unit in _UNITS.items():
        truth[name].attrs["units"] = unit
    return truth


def _ideal(frames: list[_Exposure], images: xr.Dataset) -> xr.Dataset:
    planes = {k: np.stack([getattr(f, k) for f in frames]) for k in ("expected", "background", "cosmic_ray")}
    return annotate_all(xr.Dataset({k: (("time", "y", "x"), v) for k, v in planes.items()}, images.coords))


def _label(
    frames: list[_Exposure], conditions: xr.Dataset, days: Floats, detector: Detector, aligned: bool
) -> xr.Dataset:
    planes = {k: np.stack([getattr(f, k) for f in frames]) for k in ("sci", "flags", "variance")}
    images = xr.Dataset({k: (("time", "y", "x"), v) for k, v in planes.items()})
    clear = np.log10(conditions["transparency"].values[:-1])
    each = {"magzp": detector.magzp + 2.5 * clear, "seeing": conditions["fwhm"].values[:-1]}
    same = {"gain": detector.gain, "readnoise": detector.readnoise, "saturate": detector.saturate}
    n = len(frames)
    values = {**each, **{k: np.full(n, v) for k, v in same.items()}}
    epochs = [_epoch(d) for d in days]
    names = {k: ("time", np.array([e[k] for e in epochs])) for k in epochs[0]}
    images = _with_place(images.assign_coords(names), {k: ("time", v) for k, v in values.items()})
    return assign_wcs(images, _wcs_header(images.sizes["y"], images.sizes["x"], 0.0, 0.0)) if aligned else images


def _epoch(day: float) -> dict[str, Any]:
    start = START_MJD + float(day)
    mjd = mid_exposure(start, _EXPTIME)
    return {"time": to_datetime(mjd), "mjd": mjd, "exptime": _EXPTIME, "filefracday": exposure_number(start)}


def _with_place(frame: xr.Dataset, values: dict[str, Any]) -> xr.Dataset:
    place = {"field": _FIELD, "ccdid": _CCD, "qid": _QUADRANT, "rcid": 4 * (_CCD - 1) + _QUADRANT - 1, "filter": "ztfr"}
    pixels = {d: (d, np.arange(frame.sizes[d])) for d in ("y", "x")}
    out = annotate_all(frame.assign_coords({**pixels, **values, **place, "magzprms": 0.02}))
    out["flags"].attrs.update(flag_attrs(MASK_PLANES))
    return out


def _wcs_header(ny: int, nx: int, dx: float, dy: float) -> str:
    """WCS cards of a frame whose sources lie (dx, dy) further than in the reference."""
    header = fits.Header()
    header["WCSAXES"], header["RADESYS"] = 2, "ICRS"
    header["CTYPE1"], header["CTYPE2"], header["CUNIT1"], header["CUNIT2"] = "RA---TAN", "DEC--TAN", "deg", "deg"
    header["CRPIX1"], header["CRPIX2"] = (nx + 1) / 2 + dx, (ny + 1) / 2 + dy
    header["CRVAL1"], header["CRVAL2"] = 150.3, 20.7
    header["CD1_1"], header["CD1_2"], header["CD2_1"], header["CD2_2"] = -2.811e-4, 0.0, 0.0, 2.811e-4
    return str(header.tostring(sep="\n", endcard=False, padding=False))


def _write(folder: Path, frame: xr.Dataset) -> Path:
    """A frame and its mask as ZTF names and keeps them."""
    stem = f"ztf_{frame['filefracday'].item()}_{_FIELD:06d}_zr_c{_CCD:02d}_o_q{_QUADRANT}"
    header = exposure_header(frame, pixel_origin(frame))
    header["FILENAME"] = f"{stem}_sciimg.fits"
    start = frame["mjd"].item() - frame["exptime"].item() / 2 / 86400.0
    # ZTF's headers tell the start alone.
    header.remove("MJD-AVG")
    header["OBSMJD"] = (start, "start of the exposure [d]")
    header["HISTORY"] = "simulated by ztfxr.testing; not an observation"
    return write_frame(folder, stem, header, frame["sci"].values, frame["flags"].values)
