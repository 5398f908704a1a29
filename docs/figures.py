"""The figures of the site, made from packaged samples and simulated scenes: ``python docs/figures.py``."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.dates as mdates
import numpy as np
import xarray as xr

import ztfxr

_BLUE, _GRAY = "#2b6cb0", "#888888"
_STYLE = {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "figure.dpi": 110}


def make_figures(folder: Path) -> None:
    """Make every figure that is not there yet."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, draw in FIGURES.items():
        if not (folder / name).exists():
            save(draw, folder / name)


def save(draw: Callable[[], Any], path: Path) -> None:
    """Draw a figure and write it, the same bytes each time."""
    with mpl.rc_context({"backend": "agg"} | _STYLE):
        figure = draw()
        figure.savefig(path, bbox_inches="tight", metadata={"Software": None})
        figure.clear()


def epochs(n: int = 15) -> tuple[xr.Dataset, xr.Dataset, xr.Dataset]:
    """The stack, the reference and the truth of the packaged semi-real epochs."""
    with tempfile.TemporaryDirectory() as folder:
        made = ztfxr.samples.make_epochs(folder, n_epochs=n)
        stack = ztfxr.stack(ztfxr.open_epochs(made.paths)).load()
        return stack, ztfxr.open_quadrant(made.reference).load(), made.truth


def new_figure(*args: Any, **kwargs: Any) -> Any:
    """A figure with axes, in the style of the site."""
    import matplotlib.pyplot as plt

    return plt.subplots(*args, layout="constrained", **kwargs)


def draw_image(axes: Any, pixels: np.ndarray[Any, Any], title: str, span: float | None = None) -> None:
    """An image in gray, its range by percentiles, or ± `span`."""
    low, high = (-span, span) if span else np.nanpercentile(pixels, [5, 99])
    axes.imshow(pixels, origin="lower", cmap="gray_r", vmin=low, vmax=high, interpolation="nearest")
    axes.set_title(title, fontsize=9)
    axes.set_axis_off()


def draw_pair() -> Any:
    """Science, reference, model and difference around the supernova, and the kernel between them."""
    stack, reference, truth = epochs(5)
    x, y = float(truth["x"]), float(truth["y"])
    science = stack.isel(time=2)
    diff = ztfxr.difference(science, reference, exclude=[(x, y)]).compute()
    window = {"x": slice(x - 60, x + 60), "y": slice(y - 60, y + 60)}
    figure, axes = new_figure(1, 5, figsize=(9, 2.1))
    noise = float(np.sqrt(diff["difference_variance"].median()))
    draw_image(axes[0], science["sci"].sel(window).values, "science image")
    draw_image(axes[1], reference["sci"].sel(window).values, "reference")
    draw_image(axes[2], (science["sci"] - diff["difference"]).sel(window).values, "matched reference")
    draw_image(axes[3], diff["difference"].sel(window).values, "difference", 6 * noise)
    draw_image(axes[4], diff["kernel"].values, "kernel", float(abs(diff["kernel"]).max()))
    return figure


def draw_light_curve() -> Any:
    """What was injected and what came out."""
    stack, reference, truth = epochs(15)
    places = [(float(truth["x"]), float(truth["y"]))]
    lc = ztfxr.lightcurve(stack, places, reference=reference, radius=5).compute().isel(source=0)
    figure, axes = new_figure(figsize=(6, 2.6))
    draw_curve(axes, lc, truth)
    return figure


def draw_curve(axes: Any, lc: xr.Dataset, truth: xr.Dataset) -> None:
    """The flux of one source over time, with the truth behind it."""
    zero = 10 ** (-0.4 * (lc["magzp"].values - 23.9))
    axes.plot(lc["time"].values, truth["flux"].values * zero, color=_GRAY, label="injected")
    good = lc["status"].values == 0
    for chosen, style, label in ((good, {}, "measured"), (~good, {"mfc": "none"}, "measured, some pixels bad")):
        part = lc.isel(time=chosen)
        time, flux, error = (part[name].values for name in ("time", "flux_ujy", "flux_ujy_err"))
        axes.errorbar(time, flux, error, fmt="o", ms=4, color=_BLUE, label=label, **style)
    axes.xaxis.set_major_formatter(mdates.ConciseDateFormatter(axes.xaxis.get_major_locator()))
    axes.set_ylabel("flux (µJy)")
    axes.legend(frameon=False, fontsize=8, loc="upper right")


def draw_picture() -> Any:
    """The picture of the README: an epoch, the reference, the difference, and the light curve."""
    stack, reference, truth = epochs(15)
    x, y = float(truth["x"]), float(truth["y"])
    diff = ztfxr.difference(stack, reference, exclude=[(x, y)])
    lc = ztfxr.lightcurve(diff, [(x, y)], radius=5).compute().isel(source=0)
    best = int(lc["flux"].argmax("time"))
    window = {"x": slice(x - 50, x + 50), "y": slice(y - 50, y + 50)}
    figure, axes = new_figure(1, 4, figsize=(10, 2.2), width_ratios=(1, 1, 1, 2))
    one = diff.isel(time=best).compute()
    noise = float(np.sqrt(one["difference_variance"].median()))
    draw_image(axes[0], stack["sci"].isel(time=best).sel(window).values, "science image")
    draw_image(axes[1], reference["sci"].sel(window).values, "reference")
    draw_image(axes[2], one["difference"].sel(window).values, "difference", 6 * noise)
    draw_curve(axes[3], lc, truth)
    return figure


def draw_verdict() -> Any:
    """The same pair, aligned and shifted by 6 pixels: what the difference looks like, and what is said of it."""
    scene = ztfxr.testing.make_scene((200, 200), n_epochs=1, n_stars=120, n_transients=0, n_variables=0, seed=6)
    science, reference = scene.images.isel(time=0), scene.reference
    rolled = reference.copy(data={n: np.roll(v.values, 6, axis=-1) for n, v in reference.data_vars.items()})
    figure, axes = new_figure(1, 2, figsize=(6.4, 3.2))
    for ax, ref, words in ((axes[0], reference, "aligned"), (axes[1], rolled, "reference shifted by 6 px")):
        diff = ztfxr.difference(science, ref).compute()
        status = int(diff["epoch_status"])
        names = diff["epoch_status"].attrs["flag_meanings"].split()
        said = [n for n, m in zip(names, diff["epoch_status"].attrs["flag_masks"], strict=True) if status & int(m)]
        noise = float(np.sqrt(diff["difference_variance"].median()))
        draw_image(ax, diff["difference"].values, f"{words}\nepoch_status: {', '.join(said) or '0'}", 6 * noise)
    return figure


FIGURES = {"pair.png": draw_pair, "light_curve.png": draw_light_curve, "verdict.png": draw_verdict}


if __name__ == "__main__":
    docs = Path(__file__).parent
    make_figures(docs / "_static" / "made")
    save(draw_picture, docs / "picture.png")
