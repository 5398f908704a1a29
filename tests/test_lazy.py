"""Every function that claims to be lazy runs under a scheduler that raises; every public name is accounted for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import dask
import numpy as np
import pytest
import xarray as xr

import ztfxr


@pytest.fixture
def path(write_frame):
    return write_frame()


@pytest.fixture
def frame(path) -> xr.Dataset:
    return ztfxr.open_quadrant(path)


@pytest.fixture
def frames(path) -> xr.DataTree:
    return ztfxr.open_epochs([path])


def _stack(frame: xr.Dataset, n: int = 3) -> xr.Dataset:
    return xr.concat(
        [frame.assign_coords(mjd=59000.0 + i) for i in range(n)], dim="time", coords="minimal", compat="override"
    )


def _solution() -> xr.Dataset:
    """A kernel solution of two small images."""
    rng = np.random.default_rng(0)
    image = xr.DataArray(rng.normal(size=(40, 41)).astype("f4"), dims=("y", "x"))
    one = xr.ones_like(image)
    with dask.config.set(scheduler="synchronous"):
        return ztfxr.psf_match(image, image, variance=one, reference_variance=one, kernel_size=3)


LAZY: dict[str, Callable[[xr.Dataset, xr.DataTree], Any]] = {
    "align": lambda f, t: ztfxr.align(f, to=f, method="wcs"),
    "aperture_photometry": lambda f, t: ztfxr.aperture_photometry(f, [(10, 10)], radius=3),
    "assign_wcs": lambda f, t: ztfxr.assign_wcs(f, f.attrs["wcs_header"]),
    "background": lambda f, t: ztfxr.background(f),
    "calibrate_flux": lambda f, t: ztfxr.calibrate_flux(ztfxr.aperture_photometry(f, [(10, 10)], radius=3)),
    "clean": lambda f, t: ztfxr.clean(f),
    "coadd": lambda f, t: ztfxr.coadd(_stack(f), scale=None),
    "decorrelate": lambda f, t: ztfxr.decorrelate(ztfxr.difference(_stack(f), f, kernel_size=3)),
    "difference": lambda f, t: ztfxr.difference(_stack(f), f, kernel_size=3),
    "drop_wcs": lambda f, t: ztfxr.drop_wcs(f),
    "get_wcs": lambda f, t: ztfxr.get_wcs(f),
    "kernel_at": lambda f, t: ztfxr.kernel_at(_solution(), 20, 20),
    "lightcurve": lambda f, t: ztfxr.lightcurve(t, [(10, 10)], reference=f, kernel_size=3),
    "mask": lambda f, t: ztfxr.mask(f, grow=2),
    "measure_epochs": lambda f, t: ztfxr.measure_epochs(_stack(f)),
    "pixel_to_sky": lambda f, t: ztfxr.pixel_to_sky(f, 3, 4),
    "quality": lambda f, t: ztfxr.quality(ztfxr.difference(_stack(f), f, kernel_size=3)),
    "register": lambda f, t: ztfxr.register(f, f, method="wcs"),
    "resolve_positions": lambda f, t: ztfxr.resolve_positions(f, [(3, 4)]),
    "sky_to_pixel": lambda f, t: ztfxr.sky_to_pixel(f, ztfxr.pixel_to_sky(f, 3, 4)),
    "stack": lambda f, t: ztfxr.stack(t),
    "stamp": lambda f, t: ztfxr.stamp(f, x=2, y=3, size=21),
    "zogy": lambda f, t: ztfxr.zogy(_stack(f), f),
    "variance": lambda f, t: ztfxr.variance(f),
}
READS_HEADERS_ONLY = {"open_epochs", "open_frame", "open_frames", "open_lco", "open_quadrant", "open_zarr"}
COMPUTES = {
    "difference_photometry",
    "write_extensions",
    "build_reference",
    "report",
    "select_epochs",
    "variability",
    "open_alerts",
    "psf_match",
    "read_lco_catalog",
    "plot_lightcurve",
    "plot_summary",
    "plot_triplet",
    "show",
    "to_zarr",
}


@pytest.mark.parametrize("name", sorted(LAZY))
def test_it_computes_nothing(name, frame, frames, monkeypatch):
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("a pixel was read while the graph was built")

    monkeypatch.setattr("ztfxr.io.backend.read_window", refuse)
    with dask.config.set(scheduler=refuse):
        result = LAZY[name](frame, frames)
    if isinstance(result, xr.Dataset | xr.DataArray) and name != "resolve_positions":
        monkeypatch.undo()
        result.compute()


@pytest.mark.parametrize("name", sorted(LAZY))
def test_the_lazy_result_equals_the_eager_one(name, frame, frames):
    lazy = LAZY[name](frame, frames)
    if not isinstance(lazy, xr.Dataset | xr.DataArray):
        pytest.skip("the result is not an xarray object")
    loaded = frame.load()
    eager = LAZY[name](loaded, xr.DataTree.from_dict({k: v.to_dataset().load() for k, v in frames.children.items()}))
    xr.testing.assert_allclose(lazy.compute(), eager.compute(), rtol=1e-6)


@pytest.mark.parametrize("name", ["open_epochs", "open_quadrant"])
def test_opening_reads_no_pixel(name, path, monkeypatch):
    monkeypatch.setattr("ztfxr.io.backend.read_window", lambda *a: pytest.fail("a pixel was read on opening"))
    getattr(ztfxr, name)(path if name == "open_quadrant" else [path])


def test_every_public_function_is_in_one_of_the_tables():
    functions = {n for n in ztfxr.__all__ if not isinstance(getattr(ztfxr, n), type)}
    assert functions == set(LAZY) | READS_HEADERS_ONLY | COMPUTES


@pytest.mark.parametrize("name", sorted(COMPUTES))
def test_what_computes_says_so(name):
    assert "Computes" in (getattr(ztfxr, name).__doc__ or "")


def test_public_functions_are_typed_and_documented():
    for name in LAZY | dict.fromkeys(READS_HEADERS_ONLY | COMPUTES):
        function = getattr(ztfxr, name)
        assert function.__doc__, name
        assert "return" in function.__annotations__, name
