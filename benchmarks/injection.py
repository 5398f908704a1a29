"""Artificial stars in simulated stacks: what share is found, and whether fluxes and errors can be believed.

``python -m benchmarks.injection [--figures FOLDER]`` puts stars into simulated epochs through the true PSF, a few at a
time so that they do not crowd the field, and measures them on science images by the true PSF and by one built from each
epoch's own stars, and on difference images. It prints efficiency, bias and pulls by magnitude and seeing, away from
galaxies, and by local light, everywhere, with at least 5,000 measurements in every bin.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TypeAlias

import numpy as np
import xarray as xr
from scipy.spatial import cKDTree

import ztfxr
from benchmarks._stacks import gridded_psf
from ztfxr.testing import Scene, make_scene

Measure: TypeAlias = Callable[[xr.Dataset, xr.Dataset], xr.Dataset]

STARS_PER_PIXEL, GALAXIES_PER_PIXEL = 6000 / 3080**2, 400 / 3080**2
MAGNITUDES, AT_ONCE, CLEAR_OF_GALAXIES = (16.0, 22.0), 300, 20.0
MAG_BINS, LIGHT_BINS, SEEING_BINS = 8, 5, 4
SHARE = 1.08
"""How many more stars than those that lie away from galaxies."""
COLUMNS = ("n", "efficiency", "bias", "bias_err", "pull_mean", "pull_width", "pull_width_err", "pull_mad")


def make_stack(size: int, epochs: int, seed: int) -> Scene:
    """A field as sparse as most of ZTF's, with changing seeing, bad pixels and cosmic rays."""
    stars, galaxies = (int(density * size**2) for density in (STARS_PER_PIXEL, GALAXIES_PER_PIXEL))
    return make_scene(
        (size, size),
        n_epochs=epochs,
        n_stars=stars,
        n_galaxies=galaxies,
        n_variables=0,
        n_transients=0,
        seed=seed,
    )


def measured(images: xr.Dataset, positions: xr.Dataset, *, psfs: Mapping[str, xr.Dataset]) -> xr.Dataset:
    """Forced photometry of the positions with every PSF, on dimension `psf`."""
    fits = [ztfxr.forced_photometry(images, positions, p).drop_attrs() for p in psfs.values()]
    return xr.concat(fits, dim=xr.IndexVariable("psf", list(psfs)))


def on_science(
    images: xr.Dataset, positions: xr.Dataset, *, psfs: Mapping[str, xr.Dataset], stars: xr.Dataset
) -> xr.Dataset:
    """On the images, the stars of the field solved with the new ones."""
    both = xr.concat([positions, stars], dim="source")
    return measured(images, both, psfs=psfs).isel(source=slice(positions.sizes["source"]))


def on_difference(
    images: xr.Dataset, positions: xr.Dataset, *, psfs: Mapping[str, xr.Dataset], reference: xr.Dataset
) -> xr.Dataset:
    """On the images less the reference."""
    return measured(ztfxr.difference(images, reference), positions, psfs=psfs)


def jobs(scene: Scene, true: xr.Dataset) -> dict[str, Measure]:
    """The ways of measuring."""
    psfs = {"true PSF": true, "PSF of the epoch's stars": ztfxr.build_psf(scene.images.chunk(time=1)).compute()}
    return {
        "science images": partial(on_science, psfs=psfs, stars=places_of(scene, "star")),
        "difference images": partial(on_difference, psfs=psfs, reference=scene.reference),
    }


def places_of(scene: Scene, kind: str) -> xr.Dataset:
    """Pixel positions of a kind of source."""
    chosen = scene.truth["kind"].values == kind
    return xr.Dataset({d: ("source", scene.truth[d].values[chosen]) for d in ("x", "y")})


def injected(scene: Scene, measure: Measure, psf: xr.Dataset, rounds: int) -> xr.Dataset:
    """What was measured of stars that were put in a few at a time."""
    parts = []
    for number in range(rounds):
        lazy = ztfxr.inject_and_measure(
            scene.images.chunk(time=1), measure, psf.chunk(time=1), mag=MAGNITUDES, n_sources=AT_ONCE, seed=number
        )
        parts.append(lazy.drop_vars(["ra", "dec"], errors="ignore").compute())
    return xr.concat(parts, dim="source")


def reports(scene: Scene, found: xr.Dataset) -> xr.Dataset:
    """By magnitude and seeing away from galaxies, and by local light everywhere, in one Dataset."""
    galaxies = cKDTree(np.column_stack(list(places_of(scene, "galaxy").values())))
    near, _ = galaxies.query(np.column_stack([found["x_pixel"], found["y_pixel"]]))
    away = found.isel(source=near > CLEAR_OF_GALAXIES)
    clear = ztfxr.injection_report(away, bins={"mag": MAG_BINS, "seeing": SEEING_BINS})
    light = ztfxr.injection_report(found, bins={"surface_brightness": LIGHT_BINS})
    return clear.merge(light.drop_vars([v for v in light.data_vars if str(v).startswith("all_")]))


def lines(report: xr.Dataset, name: str) -> Iterator[str]:
    """A table of one quantity."""
    yield f"  {name:>20s}      n  found       bias [%]         mean    width of pulls    by MAD"
    for k in range(report.sizes[f"{name}_bin"]):
        at = {c: float(report[f"{name}_{c}"][k]) for c in COLUMNS}
        bias = f"{100 * at['bias']:7.3f} +- {100 * at['bias_err']:5.3f}"
        width = f"{at['pull_width']:6.3f} +- {at['pull_width_err']:5.3f}   {at['pull_mad']:6.3f}"
        middle = float(report[f"{name}_bin"][k])
        yield f"  {middle:20.2f} {at['n']:6.0f}  {at['efficiency']:5.3f} {bias} {at['pull_mean']:9.3f}   {width}"


def main() -> None:
    """Print the tables, and draw them where asked."""
    parser = argparse.ArgumentParser(description="Artificial stars in simulated stacks.")
    parser.add_argument("--per-bin", type=int, default=5000, help="least number of measurements in a bin")
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--epochs", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--figures", type=Path, help="folder for a figure of each way of measuring")
    options = parser.parse_args()
    scene = make_stack(options.size, options.epochs, options.seed)
    true = gridded_psf(scene.truth.isel(time=slice(options.epochs)))
    rounds = int(np.ceil(SHARE * MAG_BINS * options.per_bin / (AT_ONCE * options.epochs)))
    for name, measure in jobs(scene, true).items():
        start = time.perf_counter()
        found = injected(scene, measure, true, rounds)
        print(f"{name}: {rounds} x {AT_ONCE} stars, {options.epochs} epochs, {time.perf_counter() - start:.0f} s")
        for psf in found["psf"].values:
            report = reports(scene, found.sel(psf=psf))
            print(f" {name}, {psf}")
            for quantity in ("mag", "seeing", "surface_brightness"):
                print("\n".join(lines(report, quantity)), flush=True)
            if options.figures:
                options.figures.mkdir(exist_ok=True)
                file = options.figures / f"{name} {psf}.png".replace(" ", "-").replace("'", "")
                ztfxr.plot_injection(report).savefig(file)


if __name__ == "__main__":
    main()
