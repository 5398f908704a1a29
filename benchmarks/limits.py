"""How near forced photometry comes to what the noise allows: bias, pulls, the Cramér-Rao bound, repeatability.

python -m benchmarks.limits [--seeds 1 2 3] [--epochs 42] [--pair DIR] [--figure limits.png]
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._stacks import BLANK, MAGNITUDES, Fits, Floats, Ints, blended, isolated, referee

# ---- figures of merit ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Row:
    """What a magnitude bin says: means with their statistical errors.

    `limit` is the bias over 0.1 % of the flux plus 0.2 of its error, `variance` that of the fluxes over the bound's.
    """

    name: str
    n: int
    snr: float
    bias: tuple[float, float]
    percent: tuple[float, float]
    limit: float
    width: tuple[float, float]
    variance: tuple[float, float]
    scatter: float
    bound: float


def row(name: str, fits: Fits) -> _Row:
    """The figures of some fits; of those that have a flux."""
    fits = fits.take(np.isfinite(fits.flux))
    off, n = fits.flux - fits.truth, len(fits.flux)
    pull, weight = off / fits.error, fits.truth / fits.error**2
    information = max(float((weight * fits.truth).sum()), 1e-300)
    share = 100 * float((weight * off).sum()) / information, 100 * information**-0.5
    width, known = float(pull.std()), np.isfinite(fits.bound)
    excess = float(((fits.error / fits.bound)[known] ** 2).mean()) if known.any() else np.nan
    limit = abs(off.mean()) / (0.001 * fits.truth.mean() + 0.2 * fits.error.mean())
    if not fits.truth.any():
        share = np.nan, np.nan
    return _Row(
        name,
        n,
        float((fits.truth / fits.error).mean()),
        (float(off.mean()), float(off.std() / n**0.5)),
        share,
        float(limit),
        (width, (2 * n) ** -0.5),
        (width**2 * excess, width**2 * excess * (2 / n) ** 0.5),
        float(off.std()),
        float(np.sqrt((fits.error**2).mean() / excess)),
    )


def rows(fits: Fits) -> list[_Row]:
    """A row for each magnitude bin, blank places first."""
    names = {BLANK: "none"} | {i: f"{a:g}-{b:g}" for i, (a, b) in enumerate(pairwise(MAGNITUDES))}
    return [row(name, fits.take(fits.bin == i)) for i, name in names.items() if (fits.bin == i).any()]


def repeatability(fits: Fits, least_snr: float = 100.0) -> tuple[float, float, float]:
    """Scatter of bright stars over epochs in mmag: as measured, with each epoch's median offset taken off, and what
    their stated errors (photons, sky and detector) allow.
    """
    fits = fits.take(np.isfinite(fits.flux) & (fits.truth > least_snr * fits.error))
    ratio, expected = fits.flux / fits.truth, float(np.sqrt(((fits.error / fits.truth) ** 2).mean()))
    level = _means(ratio, fits.epoch)
    return tuple(1085.7 * v for v in (_scatter(ratio, fits.star), _scatter(ratio - level, fits.star), expected))  # type: ignore[return-value]


def _means(values: Floats, group: Ints) -> Floats:
    """The median of each value's group."""
    labels, which = np.unique(group, return_inverse=True)
    return np.array([np.median(values[which == i]) for i in range(len(labels))])[which]


def _scatter(values: Floats, group: Ints) -> float:
    """Standard deviation within groups, pooled."""
    labels, which, counts = np.unique(group, return_inverse=True, return_counts=True)
    mean = np.bincount(which, values) / counts
    return float(np.sqrt(((values - mean[which]) ** 2).sum() / max(len(values) - len(labels), 1)))


# ---- tables and the figure ------------------------------------------------------------------------------------------

_HEAD = (
    f"{'magnitude':>10} {'n':>6} {'S/N':>7} {'bias [DN]':>15} {'bias [%]':>17} {'of limit':>8} {'pull width':>16} "
    f"{'variance/bound':>16}"
)


def _line(row: _Row) -> str:
    def pair(values: tuple[float, float], digits: int) -> str:
        return f"{values[0]:+.{digits}f} ± {values[1]:.{digits}f}" if values[0] == values[0] else "-"

    width, variance = (pair(v, 4).lstrip("+") for v in (row.width, row.variance))
    first = f"{row.name:>10} {row.n:>6} {row.snr:>7.1f} {pair(row.bias, 2):>15} {pair(row.percent, 3):>17}"
    return f"{first} {row.limit:>8.2f} {width:>16} {variance:>16}"


def report(lanes: dict[str, Fits]) -> str:
    """The tables of every kind of fits."""
    lines = []
    for name, fits in lanes.items():
        lines += ["", name, _HEAD, *(_line(r) for r in rows(fits)), _line(row("all", fits))]
    for name, fits in lanes.items():
        if name.startswith("science"):
            raw, relative, noise = repeatability(fits)
            ratios = f"ratios {raw / noise:.3f} and {relative / noise:.3f}"
            lines += [
                "",
                f"repeatability of stars with S/N > 100, {name}: {raw:.2f} mmag, {relative:.2f} relative to the",
                f"epoch's median; photon noise {noise:.2f}: {ratios}",
            ]
    return "\n".join(lines)


def referee_line(folder: Path) -> str:
    """Bias and pulls of the isolated stars of a referee pair's science frame."""
    fits = referee(folder)
    one, pull = row("all", fits), (fits.flux - fits.truth) / fits.error
    share = ((fits.flux - fits.truth) / fits.truth)[fits.truth > 50 * fits.error]
    spread = 1.4826 * float(np.median(np.abs(pull - np.median(pull))))
    return (
        f"{folder}: {one.n} isolated stars, bias {one.percent[0]:+.3f} ± {one.percent[1]:.3f} % (median of S/N > 50 "
        f"{100 * float(np.median(share)):+.3f} %), pull median {float(np.median(pull)):+.3f}, MAD {spread:.3f}, "
        f"standard deviation {one.width[0]:.3f}"
    )


def draw(lanes: dict[str, Fits]) -> Any:
    """Scatter and bound against magnitude, the variance over the bound's, widths and a histogram of the pulls."""
    from matplotlib.figure import Figure

    shown = {k: v for k, v in lanes.items() if k.endswith("all told")}
    figure = Figure(figsize=(4.4 * len(shown), 11.0), layout="constrained")
    axes = figure.subplots(4, len(shown), sharey="row", squeeze=False)
    for column, (name, fits) in zip(axes.T, shown.items(), strict=True):
        _draw_lane(column, name, fits)
    for axis, label in zip(
        axes[:, 0], ("scatter [% of flux]", "variance / bound", "width of the pulls", "density of pulls"), strict=True
    ):
        axis.set_ylabel(label)
    axes[0, 0].legend()
    return figure


def _draw_lane(axes: Any, name: str, fits: Fits) -> None:
    fits = fits.take((fits.bin != BLANK) & np.isfinite(fits.flux))
    table, middle = rows(fits), 0.5 * (np.array(MAGNITUDES)[1:] + np.array(MAGNITUDES)[:-1])
    flux = np.array([fits.truth[fits.bin == i].mean() for i in range(len(table))])
    axes[0].set(title=name, yscale="log")
    axes[0].plot(middle, [100 * r.scatter / f for r, f in zip(table, flux, strict=True)], "o", label="measured")
    axes[0].plot(middle, [100 * r.bound / f for r, f in zip(table, flux, strict=True)], "-", label="Cramér-Rao bound")
    for axis, values in ((axes[1], [r.variance for r in table]), (axes[2], [r.width for r in table])):
        axis.axhspan(0.97, 1.03, color="0.9")
        axis.errorbar(middle, *np.array(values).T, fmt="o", capsize=2)
        axis.set(xlabel="AB magnitude", ylim=(0.9, 1.1))
    grid = np.linspace(-5, 5, 101)
    axes[3].hist((fits.flux - fits.truth) / fits.error, bins=grid, density=True, histtype="step")
    axes[3].plot(grid, np.exp(-0.5 * grid**2) / np.sqrt(2 * np.pi), lw=1)
    axes[3].set(xlabel="(flux - truth) / error", yscale="log", ylim=(1e-5, 1))


def measure(seeds: Iterable[int], epochs: int) -> dict[str, Fits]:
    """Every kind of fits, of all seeds together; prints the tables of each seed on the way."""
    parts: dict[str, list[Fits]] = {}
    for seed in seeds:
        lanes = isolated(seed, epochs) | blended(seed, epochs)
        print(f"\nseed {seed}, {epochs} epochs", report(lanes), sep="\n", flush=True)
        for name, fits in lanes.items():
            parts.setdefault(name, []).append(fits)
    return {name: Fits.joined(p) for name, p in parts.items()}


def main() -> None:
    """Print the tables, and draw the figure where one is asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.limits", description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="*", default=[1, 2, 3])
    parser.add_argument("--epochs", type=int, default=42, help="per seed; 42 make 5000 fits a bin")
    parser.add_argument("--pair", type=Path, nargs="*", default=[], help="folders of referee pairs")
    parser.add_argument("--figure", type=Path)
    chosen = parser.parse_args()
    lanes = measure(chosen.seeds, chosen.epochs)
    if len(chosen.seeds) > 1:
        print("\nall seeds", report(lanes), sep="\n")
    if chosen.figure and lanes:
        draw(lanes).savefig(chosen.figure, dpi=130)
    for folder in chosen.pair:
        print("", referee_line(folder), sep="\n")


class Limits:
    """The chain behind the tables on a small frame: scene, PSF, differences, fits, bounds."""

    params = ([1, 7],)
    param_names = ("epochs",)
    timeout = 300

    def setup(self, epochs: int) -> None:
        self.time_limits(epochs)

    def time_limits(self, epochs: int) -> None:
        self.lanes = isolated(1, epochs, side=10)

    def peakmem_limits(self, epochs: int) -> None:
        self.time_limits(epochs)


if __name__ == "__main__":
    main()
