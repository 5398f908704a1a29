"""Which sources a simulated scene has, where, and how bright at every epoch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from ztfxr.arrays.photometry.magnitudes import from_mag, to_mag
from ztfxr.arrays.types import Floats
from ztfxr.errors import InputError

__all__ = ["Counts", "Population", "SceneOptions", "make_sources"]


_TRIES = 200
_LIGHT_HALF = 40


class Counts(NamedTuple):
    """How many sources of each kind."""

    n_stars: int
    n_galaxies: int
    n_variables: int
    n_transients: int


@dataclass(frozen=True)
class SceneOptions:
    """How bright the sources of a scene are, how far they keep apart, and how deep its reference is.

    `magnitudes` are the AB magnitudes of the stars from bright to faint, with ``log10 N ∝ slope · m``. Stars are no
    nearer to one another, and to galaxies, than `min_separation` (px); transients on galaxies are exempt. Random
    sources keep the distance `margin` (px) from the edge. The reference is as deep as `reference_frames` median epochs.
    """

    magnitudes: tuple[float, float] = (15.0, 21.5)
    slope: float = 0.3
    min_separation: float = 0.0
    margin: float = 12.0
    reference_frames: int = 20

    def __post_init__(self) -> None:
        if self.magnitudes[0] > self.magnitudes[1]:
            raise InputError(f"magnitudes go from bright to faint; got {self.magnitudes}")
        if min(self.min_separation, self.margin) < 0 or self.reference_frames < 1:
            raise InputError(
                "a separation and a margin are at least 0, and a reference has at least one frame; got "
                f"{self.min_separation}, {self.margin}, {self.reference_frames}"
            )


@dataclass(frozen=True)
class Population:
    """Sources (source,), their flux (time, source) in DN at transparency 1, and the light of galaxies by index."""

    x: Floats
    y: Floats
    kind: NDArray[np.str_]
    mag: Floats
    half_light_radius: Floats
    axis_ratio: Floats
    orientation: Floats
    host: NDArray[np.int64]
    flux: Floats
    quiescent: Floats
    light: dict[int, Floats]


def make_sources(
    shape: tuple[int, int],
    counts: Counts,
    options: SceneOptions,
    given: xr.Dataset | None,
    days: Floats,
    magzp: float,
    rng: np.random.Generator,
) -> Population:
    """The sources of a scene: given ones, stars, variables, galaxies and transients, in that order."""
    own = _given(given, len(days))
    n_point = counts.n_stars + counts.n_variables
    x, y = _places(shape, counts, options, own[0], rng)
    host_of = np.where(np.arange(counts.n_transients) % 2 == 0, rng.integers(0, 1 << 30, counts.n_transients), -1)
    shapes = _galaxy_shapes(counts.n_galaxies, rng)
    host = _attach(x, y, host_of, n_point, shapes[0], rng)
    point_mag = _power_law(n_point, options.magnitudes, options.slope, rng)
    middling = options.magnitudes[0] + 1.5, options.magnitudes[1] - 1.0
    extended_mag, peak_mag = (rng.uniform(*middling, n) for n in (counts.n_galaxies, counts.n_transients))
    mag = np.concatenate([point_mag, extended_mag, peak_mag])
    relative, quiet = _light_curves(counts, days, rng)
    level = from_mag(mag, magzp)
    n_own = len(own[0])
    names = ("star", "variable", "galaxy", "transient")
    numbers = (counts.n_stars, counts.n_variables, counts.n_galaxies, counts.n_transients)
    kind = np.repeat(np.array(["given", *names]), [n_own, *numbers])
    extended = np.flatnonzero(kind == "galaxy")
    radius, ratio, angle = (
        _spread(v, extended, len(kind), f) for v, f in zip(shapes[:3], (0.0, 1.0, 0.0), strict=True)
    )
    flux = np.concatenate([own[1], level * relative], axis=1)
    own_level = own[1].mean(axis=0) if n_own else np.zeros(0)
    return Population(
        x=np.concatenate([own[0][:, 0], x]),
        y=np.concatenate([own[0][:, 1], y]),
        kind=kind,
        mag=np.concatenate([to_mag(own_level, magzp), mag]),
        half_light_radius=radius,
        axis_ratio=ratio,
        orientation=np.degrees(angle),
        host=np.concatenate([np.full(n_own, -1), np.where(host < 0, -1, host + n_own)]).astype(np.int64),
        flux=flux,
        quiescent=np.concatenate([own_level, level * quiet]),
        light={int(i): _galaxy(*(float(v[k]) for v in shapes)) for k, i in enumerate(extended)},
    )


def _given(given: xr.Dataset | None, n_epochs: int) -> tuple[Floats, Floats]:
    """Positions (source, 2) and flux (time, source) of the user's own sources."""
    if given is None:
        return np.zeros((0, 2)), np.zeros((n_epochs, 0))
    missing = {"x", "y", "flux"} - {str(v) for v in given.variables}
    if missing or "source" not in given.dims:
        raise InputError(
            f"sources needs x, y and flux on 'source'; {', '.join(sorted(missing)) or 'source'} is missing"
        )
    flux = given["flux"].values.astype(np.float64)
    if "time" in given["flux"].dims:
        flux = given["flux"].transpose("time", "source").values.astype(np.float64)
        if len(flux) != n_epochs:
            raise InputError(f"sources has {len(flux)} epochs of flux for {n_epochs} epochs; give n_epochs={len(flux)}")
    positions = np.stack([given[d].values for d in ("x", "y")], axis=-1).astype(np.float64)
    return positions, np.broadcast_to(flux, (n_epochs, len(positions)))


def _places(
    shape: tuple[int, int], counts: Counts, options: SceneOptions, taken: Floats, rng: np.random.Generator
) -> tuple[Floats, Floats]:
    """Random places for all but the given sources, transients too, that keep their distance."""
    n_apart = counts.n_stars + counts.n_variables + counts.n_galaxies
    low = options.margin
    high = np.array([shape[1] - 1 - low, shape[0] - 1 - low])
    if min(high) <= low:
        raise InputError(f"a margin of {low} px leaves no room in a frame of {shape} px")
    found = np.zeros((0, 2))
    for _ in range(_TRIES):
        fresh = rng.uniform(low, high, (n_apart - len(found), 2))
        found = np.concatenate([found, fresh])
        if options.min_separation > 0:
            found = _thin(found, taken, options.min_separation)
        if len(found) == n_apart:
            break
    else:
        raise InputError(
            f"{n_apart} sources do not fit into {shape} px at min_separation={options.min_separation}: "
            f"{len(found)} do; ask for fewer, or nearer ones"
        )
    every = np.concatenate([found, rng.uniform(low, high, (counts.n_transients, 2))])
    return every[:, 0].copy(), every[:, 1].copy()


def _thin(found: Floats, taken: Floats, separation: float) -> Floats:
    """The places that keep their distance from all earlier ones and from those taken."""
    both = np.concatenate([taken, found])
    kept = np.ones(len(both), dtype=bool)
    pairs = cKDTree(both).query_pairs(separation, output_type="ndarray")
    for i, j in pairs[np.lexsort((pairs[:, 0], pairs[:, 1]))]:
        if kept[i] and j >= len(taken):
            kept[j] = False
    return np.asarray(found[kept[len(taken) :]])


def _power_law(n: int, limits: tuple[float, float], slope: float, rng: np.random.Generator) -> Floats:
    """Magnitudes with log10 N ∝ slope · m between the limits."""
    share = rng.uniform(0, 1, n)
    if slope == 0:
        return np.asarray(limits[0] + share * (limits[1] - limits[0]))
    ends = [10.0 ** (slope * (m - limits[0])) for m in limits]
    return np.asarray(limits[0] + np.log10(ends[0] + share * (ends[1] - ends[0])) / slope)


def _galaxy_shapes(n: int, rng: np.random.Generator) -> tuple[Floats, Floats, Floats, Floats]:
    """Half-light radius (px), axis ratio, orientation (rad), Sérsic index."""
    return (
        rng.uniform(1.5, 5.0, n),
        rng.uniform(0.35, 1.0, n),
        rng.uniform(0, np.pi, n),
        np.where(rng.uniform(size=n) < 0.7, 1.0, 4.0),
    )


def _galaxy(radius: float, ratio: float, angle: float, index: float) -> Floats:
    """A Sérsic profile of unit sum as points half a pixel apart; its cusp is softened by a quarter of a pixel."""
    steps = np.arange(-_LIGHT_HALF, _LIGHT_HALF + 1) / 2
    u = steps[None, :] * np.cos(angle) + steps[:, None] * np.sin(angle)
    v = -steps[None, :] * np.sin(angle) + steps[:, None] * np.cos(angle)
    distance = np.sqrt(ratio * u**2 + v**2 / ratio + 0.0625) / radius
    # Ciotti & Bertin (1999, A&A 352, 447), eq. 18.
    scale = 2 * index - 1 / 3 + 4 / (405 * index)
    light = np.where(
        np.hypot(steps[:, None], steps[None, :]) <= steps[-1], np.exp(-scale * distance ** (1 / index)), 0.0
    )
    return np.asarray(light / light.sum())


def _attach(
    x: Floats, y: Floats, host_of: NDArray[np.int64], first_galaxy: int, radius: Floats, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Move transients, which come last, onto their galaxies, in place; the index of each source's host."""
    host = np.full(len(x), -1, dtype=np.int64)
    for transient, lot in enumerate(host_of, start=len(x) - len(host_of)):
        distance, angle = rng.uniform(0.1, 1.2), rng.uniform(0, 2 * np.pi)
        if lot < 0 or len(radius) == 0:
            continue
        galaxy = int(lot) % len(radius)
        host[transient] = first_galaxy + galaxy
        x[transient] = x[first_galaxy + galaxy] + distance * radius[galaxy] * np.cos(angle)
        y[transient] = y[first_galaxy + galaxy] + distance * radius[galaxy] * np.sin(angle)
    return host


def _light_curves(counts: Counts, days: Floats, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Flux over mean (of transients: over peak) at every epoch, (time, source), and before any transient."""
    constant = np.ones((len(days), counts.n_stars))
    extended = np.ones((len(days), counts.n_galaxies))
    n = counts.n_variables
    amplitude, period, phase = rng.uniform(0.05, 0.4, n), rng.uniform(0.3, 20.0, n), rng.uniform(0, 2 * np.pi, n)
    wave = 1 + amplitude * np.sin(2 * np.pi * days[:, None] / period + phase)
    start = rng.uniform(0.1, 0.6, counts.n_transients) * max(float(days[-1] - days[0]), 1.0)
    after = days[:, None] - start
    rise, fall = rng.uniform(1.0, 3.0, counts.n_transients), rng.uniform(5.0, 15.0, counts.n_transients)
    flash = np.where(after < 0, 0.0, (1 - np.exp(-np.maximum(after, 0) / rise)) * np.exp(-np.maximum(after, 0) / fall))
    quiet = np.concatenate([np.ones(counts.n_stars + n + counts.n_galaxies), np.zeros(counts.n_transients)])
    return np.concatenate([constant, wave, extended, flash], axis=1), quiet


def _spread(values: Floats, index: NDArray[np.int64], size: int, fill: float) -> Floats:
    """`values` at `index` of an array of `size`, `fill` elsewhere."""
    out = np.full(size, fill)
    out[index] = values
    return out
