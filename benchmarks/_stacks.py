"""Forced photometry of simulated stacks with a known truth: what the tables of `benchmarks.limits` rest on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dask
import numpy as np
import xarray as xr
from numpy.typing import NDArray

import ztfxr
from ztfxr.testing import Optics, Scene, make_scene, true_psf

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

MAGNITUDES = (15.0, 16.5, 18.0, 19.0, 20.0, 20.7, 21.4)
MAGZP, BLANK = 26.3, -1
SPACING, EDGE, PER_SIDE = 33.0, 24.0, 30
PAIR_FWHM, PAIR_SPACING, PAIR_SIDE = 2.4, 45.0, 22
EPOCHS_PER_SCENE, NODES = 7, 4
BOUND_HALF, BOUND_EVERY = 8, 83


@dataclass(frozen=True)
class Fits:
    """Fluxes of one kind, (fit,) each: what came out and what is true in DN, the bound, the magnitude's bin (blank
    places: -1), and which star and epoch it was. `bound` is NaN where it was not computed.
    """

    flux: Floats
    error: Floats
    truth: Floats
    bound: Floats
    bin: Ints
    star: Ints
    epoch: Ints

    @classmethod
    def of(cls, found: xr.Dataset, truth: Floats, bins: Ints, first: int, bound: Floats | None = None) -> Fits:
        """Of a result of `ztfxr.forced_photometry` on (time, source), whose first epoch has the number `first`."""
        shape = found["flux"].shape
        own = found["flux_err_bound"].values if "flux_err_bound" in found else np.full(shape, np.nan)
        star = np.broadcast_to(first * 10_000 + np.arange(shape[1]), shape)
        epoch = np.broadcast_to(first + np.arange(shape[0])[:, None], shape)
        values = found["flux"].values, found["flux_err"].values, truth, own if bound is None else bound
        return cls(*(v.ravel() for v in values), np.broadcast_to(bins, shape).ravel(), star.ravel(), epoch.ravel())

    def take(self, which: NDArray[Any]) -> Fits:
        return Fits(*(v[which] for v in vars(self).values()))

    @classmethod
    def joined(cls, parts: list[Fits]) -> Fits:
        return cls(*(np.concatenate(p) for p in zip(*(vars(f).values() for f in parts), strict=True)))


# ---- scenes ---------------------------------------------------------------------------------------------------------


def gridded_psf(truth: xr.Dataset) -> xr.Dataset:
    """The true PSF of a scene's epochs as `ztfxr.build_psf` would give it, by polynomials of third order."""
    reach, (ny, nx) = int(truth.attrs["reach"]), truth.attrs["shape"]
    places = [p.ravel() for p in np.meshgrid(*(np.rint(np.linspace(0, n - 1, 5)) for n in (ny, nx)), indexing="ij")]
    v, u = (2 * p / (n - 1) - 1 for p, n in zip(places, (ny, nx), strict=True))
    terms = np.stack([u**i * v ** (order - i) for order in range(4) for i in range(order, -1, -1)], axis=-1)
    side = 2 * NODES * (reach + 1) + 1
    values = np.zeros((truth.sizes["time"], len(v), side, side))
    for epoch in range(truth.sizes["time"]):
        for a in range(-NODES // 2, NODES - NODES // 2):
            for b in range(-NODES // 2, NODES - NODES // 2):
                stamps = true_psf(truth, epoch, places[1] + b / NODES, places[0] + a / NODES).values
                rows, columns = (NODES - c + NODES * np.arange(2 * reach + 1) for c in (a, b))
                values[epoch][:, rows[:, None], columns] = stamps
    coefficients = np.einsum("tp,epyx->etyx", np.linalg.pinv(terms), values)
    offset = (np.arange(side) - side // 2) / NODES
    middle = [(n - 1) / 2 for n in (ny, nx)]
    return xr.Dataset(
        {"psf_coeff": (("time", "psf_term", "psf_dy", "psf_dx"), coefficients)},
        {"psf_dy": offset, "psf_dx": offset, "psf_origin": ("axis", middle), "psf_scale": ("axis", middle)},
    )


def _drawn(number: int, rng: np.random.Generator) -> tuple[Ints, Floats]:
    """Bins in turn, and fluxes (DN at transparency 1) of magnitudes anywhere in them."""
    bins = rng.permutation(np.arange(number) % (len(MAGNITUDES) - 1))
    low, high = np.array(MAGNITUDES)[bins], np.array(MAGNITUDES)[bins + 1]
    return bins, 10 ** (0.4 * (MAGZP - rng.uniform(low, high)))


def _lattice(side: int, spacing: float, rng: np.random.Generator) -> tuple[Floats, Floats]:
    y, x = (p.ravel() for p in np.meshgrid(*[EDGE + spacing * np.arange(side)] * 2, indexing="ij"))
    return y + rng.uniform(-0.5, 0.5, y.size), x + rng.uniform(-0.5, 0.5, x.size)


def _given(y: Floats, x: Floats, flux: Floats) -> xr.Dataset:
    return xr.Dataset({"x": ("source", x), "y": ("source", y), "flux": ("source", flux)})


def _scene(sources: xr.Dataset, side: int, spacing: float, epochs: int, seed: int, optics: Optics) -> Scene:
    size = int(2 * EDGE + spacing * (side - 1)) + 1
    none = dict.fromkeys(("n_stars", "n_galaxies", "n_variables", "n_transients"), 0)
    return make_scene((size, size), n_epochs=epochs, sources=sources, optics=optics, seed=seed, **none)


def _transients(scene: Scene, places: Floats, flux: Floats, seed: int) -> xr.Dataset:
    """Light in each pixel of point sources that the reference has not, and its variance; `flux` (time, source) in DN.

    They are added to the differences, which are linear: a thousand of them in one science image would be taken for its
    noise.
    """
    rng, half = np.random.default_rng(seed), int(scene.truth.attrs["reach"])
    gain, shape = float(scene.images["gain"][0]), scene.images["sci"].shape
    light = np.zeros(shape)
    columns, rows = np.floor(places.T + 0.5).astype(int)
    for epoch in range(len(light)):
        stamps = true_psf(scene.truth, epoch, *places.T).values
        for row, column, f, stamp in zip(rows, columns, flux[epoch], stamps, strict=True):
            light[epoch][_window(row, column, half)] += f * stamp
    seen = rng.poisson(light * gain) / gain
    return xr.Dataset({"light": (scene.images["sci"].dims, seen), "variance": (scene.images["sci"].dims, light / gain)})


def _with(diff: xr.Dataset, new: xr.Dataset) -> xr.Dataset:
    own = {"difference": "light", "difference_variance": "variance"}
    return diff.assign({name: (diff[name] + new[of].chunk(time=1)).astype("f4") for name, of in own.items()})


def _without_sky(scene: Scene) -> xr.Dataset:
    """The science images less their true sky, an epoch a task."""
    images = scene.images.chunk(time=1)
    return images.assign(sci=images["sci"] - scene.ideal["background"].variable)


# ---- measurements ---------------------------------------------------------------------------------------------------


def isolated(seed: int, epochs: int, *, side: int = PER_SIDE) -> dict[str, Fits]:
    """Stars on science images and transients between them on differences, each with all that is known told, and with
    nothing told: PSF, sky and noise as `ztfxr` finds them.
    """
    parts: dict[str, list[Fits]] = {}
    for number, first in enumerate(range(0, epochs, EPOCHS_PER_SCENE)):
        n = min(EPOCHS_PER_SCENE, epochs - first)
        for name, fits in _isolated_scene(seed * 1000 + number, n, side, seed * 1000 + first).items():
            parts.setdefault(name, []).append(fits)
    return {name: Fits.joined(p) for name, p in parts.items()}


def _isolated_scene(seed: int, epochs: int, side: int, first: int) -> dict[str, Fits]:
    rng = np.random.default_rng([seed, 1])
    y, x = _lattice(side, SPACING, rng)
    bins, flux = _drawn(len(y), rng)
    scene = _scene(_given(y, x, flux), side, SPACING, epochs, seed, Optics())
    ty, tx = (p.reshape(side, side)[:-1, :-1].ravel() + SPACING / 2 for p in _lattice(side, SPACING, rng))
    new_bins, new = _drawn(len(ty), rng)
    blank = np.arange(len(ty)) % 7 == 0
    new_bins, new = np.where(blank, BLANK, new_bins), np.where(blank, 0.0, new)
    stars, places = np.column_stack([x, y]), np.column_stack([tx, ty])
    light = new * scene.truth["transparency"].values[:, None]
    added = _transients(scene, places, light, seed)
    psf, reference = gridded_psf(scene.truth), scene.reference
    lazy = scene.images.chunk(time=1)
    told, untold = _without_sky(scene), lazy.drop_vars("variance")
    known = _with(ztfxr.difference(lazy, reference), added)
    found = _with(ztfxr.difference(untold, reference.drop_vars("variance")), added)
    built, sharp = ztfxr.build_psf(untold), ztfxr.build_psf(reference)
    forced = ztfxr.forced_photometry
    jobs = {
        "science, all told": forced(told, stars, psf, background="none", bound=True),
        "science, nothing told": forced(untold, stars, built),
        "difference, all told": forced(known, places, psf, correlation={"reference": reference["variance"]}),
        "difference, noise measured": forced(known, places, psf),
        "difference, nothing told": forced(found, places, built),
        "difference, PSF of the reference": forced(found, places, reference_psf=sharp),
    }
    kernels = known[["kernel_coeff", "science_convolved"]]
    *results, solution = dask.compute(*jobs.values(), kernels)
    true_stars = scene.truth["flux"].values
    variance = scene.images["variance"].values + added["variance"].values
    bound = _difference_bound(scene, variance, solution, psf, places)
    return {
        name: Fits.of(
            result,
            *((true_stars, bins) if "science" in name else (light, new_bins)),
            first,
            None if "science" in name else bound,
        )
        for name, result in zip(jobs, results, strict=True)
    }


def blended(seed: int, epochs: int) -> dict[str, Fits]:
    """Pairs of stars 1.5 FWHM apart, the second up to two magnitudes fainter; with all that is known told."""
    parts = []
    for number, first in enumerate(range(0, epochs, EPOCHS_PER_SCENE)):
        n, own = min(EPOCHS_PER_SCENE, epochs - first), seed * 1000 + 500 + number
        rng = np.random.default_rng([own, 1])
        y, x = _lattice(PAIR_SIDE, PAIR_SPACING, rng)
        _, flux = _drawn(len(y), rng)
        angle = rng.uniform(0, 2 * np.pi, len(y))
        apart = 1.5 * PAIR_FWHM
        ys, xs = np.r_[y, y + apart * np.sin(angle)], np.r_[x, x + apart * np.cos(angle)]
        light = np.r_[flux, flux * 10 ** (-0.4 * rng.uniform(0, 2, len(y)))]
        optics = Optics(fwhm=(PAIR_FWHM, PAIR_FWHM), field_variation=0.0)
        scene = _scene(_given(ys, xs, light), PAIR_SIDE, PAIR_SPACING, n, own, optics)
        psf = gridded_psf(scene.truth)
        found = ztfxr.forced_photometry(
            _without_sky(scene), np.column_stack([xs, ys]), psf, background="none", bound=True
        ).compute()
        mag = MAGZP - 2.5 * np.log10(light)
        own_bins = np.clip(np.digitize(mag, MAGNITUDES) - 1, 0, len(MAGNITUDES) - 2)
        parts.append(
            Fits.of(found, scene.truth["flux"].values, own_bins, seed * 1000 + first).take(
                np.tile(mag < MAGNITUDES[-1], n)
            )
        )
    return {"blended pairs, all told": Fits.joined(parts)}


def _difference_bound(scene: Scene, variance: Floats, solution: xr.Dataset, psf: xr.Dataset, places: Floats) -> Floats:
    """The Cramér-Rao bound (time, source) of transients in differences, ``(Pᵀ C⁻¹ P)^-1/2``, for some of them.

    C is the covariance of the difference's pixels: the science image's variance, and that of the reference through the
    kernel at the image's center. NaN where the kernel acts on the science image.
    """
    out = np.full((len(variance), len(places)), np.nan)
    reference, some = scene.reference["variance"].values, np.arange(0, len(places), BOUND_EVERY)
    bad = scene.images["flags"].values > 0
    columns, rows = np.floor(places.T + 0.5).astype(int)
    for epoch in np.flatnonzero(~solution["science_convolved"].values):
        kernel = _cut(solution["kernel_coeff"].values[epoch][0])
        shift, reach = _shifts(kernel, BOUND_HALF), kernel.shape[0] // 2
        stamps = ztfxr.psf_at(psf.isel(time=epoch), places[some, 0], places[some, 1], size=2 * BOUND_HALF + 1).values
        for source, stamp in zip(some, stamps, strict=True):
            inner = _window(rows[source], columns[source], BOUND_HALF)
            outer = _window(rows[source], columns[source], BOUND_HALF + reach)
            if bad[epoch][inner].any():
                continue
            noise = (shift * reference[outer].ravel()) @ shift.T
            noise[np.diag_indices_from(noise)] += variance[epoch][inner].ravel()
            out[epoch, source] = (stamp.ravel() @ np.linalg.solve(noise, stamp.ravel())) ** -0.5
    return out


def _window(row: int, column: int, half: int) -> tuple[slice, slice]:
    return slice(row - half, row + half + 1), slice(column - half, column + half + 1)


def _cut(kernel: Floats) -> Floats:
    """Without the rows and columns around the edge that are zero."""
    middle = len(kernel) // 2
    reach = int(max(np.abs(np.argwhere(kernel) - middle).max(), 1))
    return kernel[middle - reach : middle + reach + 1, middle - reach : middle + reach + 1]


def _shifts(kernel: Floats, half: int) -> Floats:
    """The matrix that convolves a window of half-size `half` + that of the kernel: ``D = shifts @ R``."""
    reach, side = kernel.shape[0] // 2, 2 * half + 1
    wide = side + 2 * reach
    out = np.zeros((side * side, wide * wide))
    row, column = (p.ravel() for p in np.mgrid[:side, :side])
    for a in range(kernel.shape[0]):
        for b in range(kernel.shape[1]):
            out[np.arange(side * side), (row + 2 * reach - a) * wide + column + 2 * reach - b] = kernel[a, b]
    return out


def referee(folder: Path, most: int = 2000) -> Fits:
    """The isolated stars of a simulated quadrant's science frame, by the PSF built from the frame itself.

    No other source within 20 pixels, 25 pixels from the edge, at most 1 % of the light masked.
    """
    from astropy.io import fits
    from scipy.spatial import cKDTree

    def read(name: str) -> Any:
        return np.asarray(fits.getdata(folder / f"{name}.fits"))

    stars, others = read("stars"), read("transients")
    light, x, y = (np.concatenate([t[k] for t in (stars, others)]).astype(float) for k in ("flux", "x", "y"))
    sci, noise, bad = (xr.DataArray(read(k), dims=("y", "x")) for k in ("sci", "sci_noise", "mask_sci"))
    given: dict[str, Any] = {"variance": noise**2, "mask": bad > 0}
    places = np.column_stack([x, y])
    found = ztfxr.forced_photometry(sci, places, ztfxr.build_psf(sci, **given), **given)
    nearest = cKDTree(places).query(places, k=2)[0][:, 1]
    edge = np.minimum(np.minimum(x, sci.sizes["x"] - 1 - x), np.minimum(y, sci.sizes["y"] - 1 - y))
    alone = (nearest > 20) & (edge > 25) & (found["masked_fraction"].values < 0.01) & (np.arange(len(x)) < len(stars))
    first = np.flatnonzero(alone)[:most]
    zero = np.zeros(len(first), dtype=np.int64)
    values = found["flux"].values[first], found["flux_err"].values[first], light[first], np.full(len(first), np.nan)
    return Fits(*values, zero, first, zero)
