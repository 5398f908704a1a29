"""Light curves."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from os import PathLike
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ztfxr.arrays.curves.smooth import SmoothCurve
from ztfxr.errors import InputError
from ztfxr.plot._common import label_of, moments

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["FILTER_COLORS", "plot_lightcurve", "plot_packets", "plot_smooth"]

LightCurves: TypeAlias = xr.Dataset | xr.DataTree | Mapping[str, xr.Dataset]
FluxName: TypeAlias = Literal["flux", "flux_ujy"]

FILTER_COLORS: Mapping[str, str] = {"ztfg": "seagreen", "ztfr": "crimson", "ztfi": "goldenrod"}
"""The color of each ZTF filter."""

_MAX_SOURCES = 8
_MARKERS = "osD^vP"


@dataclass(frozen=True)
class _Series:
    """One light curve on (time,) and how it is drawn."""

    data: xr.Dataset
    label: str
    color: str
    marker: str


def plot_lightcurve(
    lc: LightCurves,
    *,
    source: int | None = 0,
    ax: Axes | None = None,
    flux: FluxName = "flux",
    label: str | None = None,
) -> Axes:
    """Draw light curves. Computes.

    Good epochs are filled symbols with error bars, flagged ones that have a flux open symbols, epochs whose flux is NaN
    ticks at the bottom. An epoch without a time cannot be drawn. One source has the color of its filter, several
    sources have a color each. The x axis is MJD where a light curve has a coordinate `mjd`, else the date.

    Parameters
    ----------
    lc
        A Dataset with `flux` and `flux_err` on (time, source) or (time,), in the unit of their attributes, and where
        known `status` (0 is good) and the coordinate `filter`; or a mapping or DataTree of such Datasets.
    source
        Position along `source`; None draws all, at most 8.
    ax
        Draw here; by default in a new figure.
    flux
        Draw `flux`, or the calibrated `flux_ujy`.
    label
        Name in the legend, before or instead of the filter's.

    Returns
    -------
    matplotlib.axes.Axes
        What was drawn in.

    Raises
    ------
    InputError
        No light curve, no such source, more than 8 sources, or no time.
    """
    series = list(_series(lc, source, flux, label))
    mjd = any("mjd" in one.data.coords for one in series)
    if ax is None:
        import matplotlib.pyplot as plt

        ax = plt.subplots(figsize=(8.0, 4.0), layout="constrained")[1]
    for level, one in enumerate(series):
        _draw_series(ax, one, flux, mjd, level)
    low, high = ax.get_ylim()
    if low < 0 < high:
        ax.axhline(0.0, color="0.8", lw=0.8, zorder=0)
    ax.set_xlabel("MJD (d)" if mjd else "time (UTC)")
    ax.set_ylabel(label_of(series[0].data[flux]))
    draw_legend(ax)
    return ax


def _series(lc: LightCurves, source: int | None, flux: str, label: str | None) -> Iterator[_Series]:
    """The single light curves of `lc`: by Dataset, filter and source."""
    several: set[int] = set()
    curves: list[tuple[str, int, xr.Dataset]] = []
    for key, dataset in _datasets(lc, flux):
        for i, one in _sources(dataset, source):
            several.add(i)
            curves += [(band or key, i, part) for band, part in _filters(one)]
    bands = list(dict.fromkeys(band for band, _, _ in curves))
    for band, i, part in curves:
        names = [label or "", band, f"source {i}" if len(several) > 1 else ""]
        order = bands.index(band)
        yield _Series(
            part,
            " ".join(filter(None, names)) or "flux",
            f"C{i}" if len(several) > 1 else FILTER_COLORS.get(band, f"C{order}"),
            _MARKERS[order % len(_MARKERS)],
        )


def _datasets(lc: LightCurves, flux: str) -> list[tuple[str, xr.Dataset]]:
    """Named Datasets with `flux`; `InputError` where there are none."""
    found: Iterable[tuple[str, xr.Dataset]]
    if isinstance(lc, xr.Dataset):
        found = [("", lc)]
    elif isinstance(lc, xr.DataTree):
        found = [(node.path.strip("/"), node.to_dataset()) for node in lc.subtree]
    else:
        found = [(str(key), dataset) for key, dataset in lc.items()]
    good = [(key, ds) for key, ds in found if flux in ds and f"{flux}_err" in ds]
    if not good:
        names = sorted({str(n) for _, ds in found for n in ds.data_vars})
        raise InputError(
            f"no light curve with {flux!r} and '{flux}_err'; the variables are {', '.join(names) or 'none'}"
        )
    return good


def _sources(dataset: xr.Dataset, source: int | None) -> list[tuple[int, xr.Dataset]]:
    if "source" not in dataset.dims:
        return [(0, dataset)]
    n = dataset.sizes["source"]
    if source is None:
        if n > _MAX_SOURCES:
            raise InputError(f"{n} sources, at most {_MAX_SOURCES} are drawn; select fewer: .isel(source=slice(0, 8))")
        return [(i, dataset.isel(source=i)) for i in range(n)]
    if not -n <= source < n:
        raise InputError(f"no source {source}: the light curves are of {n} sources, counted from 0")
    return [(source, dataset.isel(source=source))]


def _filters(dataset: xr.Dataset) -> list[tuple[str, xr.Dataset]]:
    """The light curve of each filter, named; the name is empty where no filter is known."""
    if "filter" not in dataset.coords:
        return [("", dataset)]
    band = dataset.coords["filter"]
    if band.ndim == 0:
        return [(str(band.item()), dataset)]
    return [(str(b), dataset.isel({band.dims[0]: band.values == b})) for b in np.unique(band.values)]


def _draw_series(ax: Axes, series: _Series, flux: str, mjd: bool, level: int) -> None:
    """Draw the good, flagged and missing epochs of one light curve; `level` keeps the ticks of several apart."""
    data, when = series.data, moments(series.data, mjd)
    value, error = (np.atleast_1d(data[n].values).astype(float) for n in (flux, f"{flux}_err"))
    status = np.atleast_1d(data["status"].values) if "status" in data else np.zeros(value.shape, dtype=int)
    known, measured, good = ~np.isnan(when) if mjd else ~np.isnat(when), np.isfinite(value), status == 0
    look: dict[str, Any] = {"fmt": series.marker, "color": series.color, "ms": 4.5, "elinewidth": 0.9, "capsize": 0}
    chosen = known & measured & good
    ax.errorbar(when[chosen], value[chosen], error[chosen], label=series.label, **look)
    chosen = known & measured & ~good
    if chosen.any():
        name = f"flagged{_meanings(data, status[chosen])}"
        ax.errorbar(when[chosen], value[chosen], error[chosen], label=name, mfc="white", alpha=0.7, **look)
    chosen = known & ~measured
    if chosen.any():
        height = np.full(chosen.sum(), 0.025 + 0.035 * level)
        bottom = ax.get_xaxis_transform()
        ax.plot(when[chosen], height, "|", color=series.color, ms=9, transform=bottom, label="no measurement")


def _meanings(data: xr.Dataset, status: NDArray[Any]) -> str:
    """The names of the flags set in `status`, by the CF attributes of the light curve."""
    attrs = data["status"].attrs
    bits = int(np.bitwise_or.reduce(status.astype(np.int64)))
    masks = np.atleast_1d(attrs.get("flag_masks", [])).tolist()
    names = [n for n, m in zip(str(attrs.get("flag_meanings", "")).split(), masks, strict=False) if bits & int(m)]
    return f" ({', '.join(names)})" if names else ""


def draw_legend(ax: Axes) -> None:
    """A legend that names what several light curves have in common once."""
    handles, labels = ax.get_legend_handles_labels()
    once = dict(zip(reversed(labels), reversed(handles), strict=True))
    names = sorted(dict.fromkeys(labels), key=lambda name: name == "no measurement")
    ax.legend([once[name] for name in names], names, fontsize="small", framealpha=0.8)


def plot_packets(curves: Mapping[str, xr.Dataset], *, path: str | PathLike[str] | None = None) -> Figure:
    """Draw magnitudes of alert packets beside our own, and the deviations below. Computes.

    Parameters
    ----------
    curves
        By filter, as `ztfxr.recipes.compare_packets` gives them.
    path
        Save the figure here too, at 150 dots per inch.
    """
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(
        3, 1, figsize=(9.0, 8.0), sharex=True, height_ratios=[2.0, 1.0, 1.0], layout="constrained"
    )
    for order, (band, lc) in enumerate(curves.items()):
        color, when = FILTER_COLORS.get(band, f"C{order}"), moments(lc, True)
        _draw_magnitudes(axes[0], lc, when, band, color)
        shift = 0.25 * (order - (len(curves) - 1) / 2)
        for ax, (name, ours, sigma) in zip(axes[1:], _DEVIATIONS, strict=True):
            deviation, packet, own = (lc[k].values.reshape(len(when)) for k in (name, sigma, ours))
            ax.errorbar(when + shift, deviation, packet, fmt="none", ecolor=color, elinewidth=4, alpha=0.3)
            ax.errorbar(when + shift, deviation, own, fmt="o", ms=3.5, color=color, elinewidth=0.9)
            ax.axhline(0.0, color="0.6", lw=0.8, zorder=0)
    axes[0].invert_yaxis()
    axes[0].set_ylabel("AB magnitude")
    axes[0].legend(fontsize="small")
    axes[1].set_ylabel("PSF fit − magpsf (mag)")
    axes[2].set_ylabel("aperture − magap (mag)")
    axes[2].set_xlabel("MJD (d); thick bars: the packet's error, thin bars: ours")
    if path is not None:
        figure.savefig(path, dpi=150)
    return figure


_DEVIATIONS = (("deviation_psf", "mag_psf_err", "sigmapsf"), ("deviation_ap", "mag_err", "sigmagap"))


def _draw_magnitudes(ax: Axes, lc: xr.Dataset, when: NDArray[Any], band: str, color: str) -> None:
    n = len(when)
    packet, ours, error = (lc[k].values.reshape(n) for k in ("magpsf", "mag_psf", "mag_psf_err"))
    ax.errorbar(
        when, packet, lc["sigmapsf"].values, fmt="s", ms=8, mfc="none", color=color, alpha=0.6, label=f"{band} magpsf"
    )
    ax.errorbar(when, ours, error, fmt="o", ms=3.5, color=color, elinewidth=0.9, label=f"{band} ours, PSF")
    ax.plot(when, lc["mag"].values.reshape(n), "x", ms=5, color="0.2", label=f"{band} ours, aperture")


def plot_smooth(lc: xr.Dataset, curve: SmoothCurve, *, path: str | PathLike[str] | None = None) -> Figure:
    """Draw a light curve, its richest night with the smooth curve through it, and all residuals. Computes.

    Parameters
    ----------
    lc
        `flux`, `flux_err` of one source on (time,), with the coordinate `mjd` or `time`.
    curve
        Of `ztfxr.arrays.smooth.smooth_nights`.
    path
        Save the figure here too, at 150 dots per inch.
    """
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(3, 1, figsize=(9.0, 8.0), height_ratios=[1.2, 1.5, 0.8], layout="constrained")
    when, flux, error = moments(lc, True), lc["flux"].values, lc["flux_err"].values
    richest = np.argmax(np.bincount(curve.night[curve.night >= 0], minlength=1))
    rows = np.flatnonzero(curve.night == richest)
    rows = rows[np.argsort(when[rows])]
    look: dict[str, Any] = {"fmt": "o", "ms": 3.5, "elinewidth": 0.9, "color": "C0"}
    axes[0].errorbar(when, flux, error, **look)
    if rows.size:
        axes[0].axvspan(when[rows[0]], when[rows[-1]], color="C1", alpha=0.3, label="the night below")
        axes[0].legend(fontsize="small")
    axes[1].errorbar(when[rows], flux[rows], error[rows], **look)
    axes[1].plot(when[rows], curve.value[rows], color="C1", label="smooth curve")
    axes[2].plot(curve.pulls(flux, error), "o", ms=3.5)
    axes[2].axhspan(-1.0, 1.0, color="0.9", zorder=0)
    axes[2].set_xlabel(f"epoch; reduced chi-square {curve.chi2 / max(curve.dof, 1e-9):.2f} with {curve.dof:.1f} dof")
    axes[2].set_ylabel("residual / error")
    for ax in axes[:2]:
        ax.set_xlabel("MJD (d)")
        ax.set_ylabel(label_of(lc["flux"]))
    axes[1].legend(fontsize="small")
    if path is not None:
        figure.savefig(path, dpi=150)
    return figure
