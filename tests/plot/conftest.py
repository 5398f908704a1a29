"""Small images, stacks and light curves to draw, and what was drawn."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr

from ztfxr.schema import annotate_all

Y0, X0, NY, NX, NT = 1000, 500, 40, 50, 5
MJD = 59396.25 + np.arange(NT)


@pytest.fixture(autouse=True)
def _close_figures() -> Iterator[None]:
    yield
    plt.close("all")


def times(mjd: np.ndarray = MJD) -> np.ndarray:
    return np.datetime64("1858-11-17", "ns") + np.round(mjd * 86400).astype("timedelta64[s]")


def image(seed: int = 0, **attrs: Any) -> xr.DataArray:
    pixels = np.random.default_rng(seed).normal(100, 5, (NY, NX)).astype(np.float32)
    pixels[20, 25] = 5000
    out = annotate_all(xr.Dataset({"sci": (("y", "x"), pixels)}, {"y": Y0 + np.arange(NY), "x": X0 + np.arange(NX)}))
    return out.sci.assign_attrs(attrs)


def stack(name: str = "sci", n: int = NT, level: float = 0.0) -> xr.Dataset:
    pixels = np.random.default_rng(1).normal(level, 5, (n, NY, NX)).astype(np.float32)
    mjd = 59396.25 + np.arange(n)
    coords = {"time": times(mjd), "mjd": ("time", mjd), "filter": "ztfr"}
    coords |= {"y": Y0 + np.arange(NY), "x": X0 + np.arange(NX)}
    return annotate_all(xr.Dataset({name: (("time", "y", "x"), pixels)}, coords))


def lightcurve(band: str = "ztfr", sources: int = 1) -> xr.Dataset:
    """Epoch 1 is flagged with a flux, epoch 3 has none."""
    flux = np.arange(NT * sources, dtype=float).reshape(NT, sources) * 10 + 100
    status = np.zeros((NT, sources), dtype=np.uint32)
    status[1], status[3] = (1 << 11) | (1 << 12), 1 << 13
    flux[3] = np.nan
    dims = ("time", "source")
    variables = {"flux": (dims, flux), "flux_err": (dims, np.full(flux.shape, 3.0)), "status": (dims, status)}
    return annotate_all(xr.Dataset(variables, {"time": times(), "mjd": ("time", MJD), "filter": band}))


def by_label(ax: Any) -> dict[str, Any]:
    return dict(zip(*reversed(ax.get_legend_handles_labels()), strict=True))
