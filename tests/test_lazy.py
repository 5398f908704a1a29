"""Every function that claims to be lazy runs under a scheduler that raises; every public name is accounted for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import dask
import numpy as np
import pytest
import xarray as xr
from astropy.nddata import CCDData

import ztfxr
from ztfxr.schema import ATTRS, SPECS


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


def _pointed(frame: xr.Dataset) -> xr.Dataset:
    """The frame with a pointing in its header."""
    return ztfxr.assign_wcs(
        frame, frame.attrs["wcs_header"] + "\nRA      =                150.0\nDEC     =                 20.0"
    )


def _solution() -> xr.Dataset:
    """A kernel solution of two small images."""
    rng = np.random.default_rng(0)
    image = xr.DataArray(rng.normal(size=(40, 41)).astype("f4"), dims=("y", "x"))
    one = xr.ones_like(image)
    with dask.config.set(scheduler="synchronous"):
        return ztfxr.solve_kernel(image, image, variance=one, reference_variance=one, kernel_size=3)


def _gaussian_psf() -> xr.DataArray:
    """A PSF as one stamp."""
    offset = np.arange(-7, 8)
    stamp = np.exp(-0.4 * (offset[:, None] ** 2 + offset[None, :] ** 2))
    return xr.DataArray(stamp / stamp.sum(), dims=("psf_y", "psf_x")).chunk()


_ELLIPSES = xr.Dataset(
    {
        name: ("source", [value])
        for name, value in (
            ("x_centroid", 10.0),
            ("y_centroid", 12.0),
            ("semimajor_axis", 2.0),
            ("semiminor_axis", 1.5),
            ("orientation", 30.0),
        )
    }
)


def _stamp() -> xr.DataArray:
    """The PSF of one source."""
    return xr.DataArray(np.full((1, 5, 5), 0.04), dims=("source", "psf_y", "psf_x"))


def _scale() -> xr.Dataset:
    """Photometric scales of three epochs."""
    rng = np.random.default_rng(0)
    flux = 1000.0 + rng.normal(size=(3, 9))
    lc = xr.Dataset({"flux": (("time", "source"), flux), "flux_err": (("time", "source"), np.ones((3, 9)))})
    return ztfxr.photometric_scale(lc)


LAZY: dict[str, Callable[[xr.Dataset, xr.DataTree], Any]] = {
    "as_catalog": lambda f, t: ztfxr.as_catalog(ztfxr.aperture_photometry(f, [(10, 10)], radius=3)),
    "from_ccddata": lambda f, t: ztfxr.from_ccddata(CCDData(np.zeros((3, 4)), unit="adu")),
    "with_catalogs": lambda f, t: ztfxr.with_catalogs(f, ps1={"ra": [150.3], "dec": [20.7]}),
    "align": lambda f, t: ztfxr.align(f, to=f, method="wcs"),
    "aperture_photometry": lambda f, t: ztfxr.aperture_photometry(f, [(10, 10)], radius=3),
    "assign_wcs": lambda f, t: ztfxr.assign_wcs(f, f.attrs["wcs_header"]),
    "background": lambda f, t: ztfxr.background(f),
    "build_psf": lambda f, t: ztfxr.build_psf(_stack(f)),
    "calibrate_flux": lambda f, t: ztfxr.calibrate_flux(ztfxr.aperture_photometry(f, [(10, 10)], radius=3)),
    "clean": lambda f, t: ztfxr.clean(f),
    "center": lambda f, t: ztfxr.center(f),
    "contains": lambda f, t: ztfxr.contains(f, [(3, 4), (99, 4)]),
    "convert_flux": lambda f, t: ztfxr.convert_flux(f.sci.drop_attrs(), to="erg/s/cm2/A"),
    "corners": lambda f, t: ztfxr.corners(f),
    "cosmic_rays": lambda f, t: ztfxr.cosmic_rays(f),
    "counts_to_flux": lambda f, t: ztfxr.counts_to_flux(f.sci),
    "counts_to_mag": lambda f, t: ztfxr.counts_to_mag(f.sci),
    "coadd": lambda f, t: ztfxr.coadd(_stack(f), scale=None),
    "decorrelate": lambda f, t: ztfxr.decorrelate(ztfxr.difference(_stack(f), f, kernel_size=3)),
    "difference": lambda f, t: ztfxr.difference(_stack(f), f, kernel_size=3),
    "drop_wcs": lambda f, t: ztfxr.drop_wcs(f),
    "flux_to_counts": lambda f, t: ztfxr.flux_to_counts(ztfxr.counts_to_flux(f.sci, unit="erg/s/cm2/A")),
    "flux_to_mag": lambda f, t: ztfxr.flux_to_mag(ztfxr.counts_to_flux(f.sci)),
    "forced_photometry": lambda f, t: ztfxr.forced_photometry(
        _stack(f), [(10, 10), (15, 12)], _gaussian_psf(), refine=1, bound=True, correlation="measure"
    ),
    "footprint": lambda f, t: ztfxr.footprint(f, "stcs"),
    "get_wcs": lambda f, t: ztfxr.get_wcs(f),
    "kernel_at": lambda f, t: ztfxr.kernel_at(_solution(), 20, 20),
    "lightcurve": lambda f, t: ztfxr.lightcurve(t, [(10, 10)], reference=f, kernel_size=3),
    "mag_to_counts": lambda f, t: ztfxr.mag_to_counts(ztfxr.counts_to_mag(f.sci)),
    "mag_to_flux": lambda f, t: ztfxr.mag_to_flux(ztfxr.counts_to_mag(f.sci)),
    "mask": lambda f, t: ztfxr.mask(f, grow=2),
    "mask_fractions": lambda f, t: ztfxr.mask_fractions(f),
    "mask_planes": lambda f, t: ztfxr.mask_planes(f),
    "noise": lambda f, t: ztfxr.noise(f),
    "measure_epochs": lambda f, t: ztfxr.measure_epochs(_stack(f)),
    "pixel_scale": lambda f, t: ztfxr.pixel_scale(f),
    "mosaic": lambda f, t: ztfxr.mosaic(t, rebin=2, shape=(48, 40)),
    "pixel_to_sky": lambda f, t: ztfxr.pixel_to_sky(f, 3, 4),
    "pixel_to_tangent": lambda f, t: ztfxr.pixel_to_tangent(f, 3, 4, center=(150.0, 20.0)),
    "pointing": lambda f, t: ztfxr.pointing(_pointed(f)),
    "psf_at": lambda f, t: ztfxr.psf_at(_gaussian_psf(), [10.2, 11.0], [5.0, 6.3], size=9),
    "difference_quality": lambda f, t: ztfxr.difference_quality(ztfxr.difference(_stack(f), f, kernel_size=3)),
    "rebin": lambda f, t: ztfxr.rebin(f, 3),
    "register": lambda f, t: ztfxr.register(f, f, method="wcs"),
    "resolve_positions": lambda f, t: ztfxr.resolve_positions(f, [(3, 4)]),
    "same_grid": lambda f, t: ztfxr.same_grid(f, f, strict=True),
    "sky_to_mosaic": lambda f, t: ztfxr.sky_to_mosaic(t, ztfxr.pixel_to_sky(f, 3, 4), shape=(48, 40)),
    "sky_to_pixel": lambda f, t: ztfxr.sky_to_pixel(f, ztfxr.pixel_to_sky(f, 3, 4)),
    "sky_to_tangent": lambda f, t: ztfxr.sky_to_tangent(f, ra=150.0, dec=20.0, center=(150.0, 20.0)),
    "source_flags": lambda f, t: ztfxr.source_flags(ztfxr.sources(f, n_sigma=2.0, max_sources=4)),
    "sources": lambda f, t: ztfxr.sources(_stack(f), n_sigma=2.0, max_sources=4),
    "source_mask": lambda f, t: ztfxr.source_mask(f, _ELLIPSES),
    "stack": lambda f, t: ztfxr.stack(t),
    "stamp": lambda f, t: ztfxr.stamp(f, x=2, y=3, size=21),
    "stamps": lambda f, t: ztfxr.stamps(_stack(f), [(2, 3), (20, 21.4)], 21, centered=True),
    "tangent_to_pixel": lambda f, t: ztfxr.tangent_to_pixel(f, 3.0, 4.0, center=(150.0, 20.0)),
    "tangent_to_sky": lambda f, t: ztfxr.tangent_to_sky(f, 3.0, 4.0, center=(150.0, 20.0)),
    "zero_point": lambda f, t: ztfxr.zero_point(ztfxr.sources(_stack(f), n_sigma=2.0, max_sources=4)),
    "zogy": lambda f, t: ztfxr.zogy(_stack(f), f),
    "aperture_correction": lambda f, t: ztfxr.aperture_correction(
        ztfxr.aperture_photometry(f, [(10, 10), (20, 20)], radius=[3, 5])
    ),
    "bin_by_night": lambda f, t: ztfxr.bin_by_night(ztfxr.aperture_photometry(_stack(f), [(10, 10)], radius=3)),
    "magnitudes": lambda f, t: ztfxr.magnitudes(
        ztfxr.calibrate_flux(ztfxr.aperture_photometry(_stack(f), [(10, 10)], radius=3))
    ),
    "quality_cuts": lambda f, t: ztfxr.quality_cuts(
        ztfxr.aperture_photometry(_stack(f), [(10, 10)], radius=3), max_seeing=3.0
    ),
    "total_flux": lambda f, t: ztfxr.total_flux(
        ztfxr.calibrate_flux(ztfxr.aperture_photometry(_stack(f), [(10, 10)], radius=3)),
        reference_mag=18.0,
        reference_mag_err=0.01,
    ),
    "apply_scale": lambda f, t: ztfxr.apply_scale(ztfxr.aperture_photometry(_stack(f), [(10, 10)], radius=3), _scale()),
    "inject": lambda f, t: ztfxr.inject(_stack(f), [(10, 10)], [500.0], _stamp(), gain=6.0),
    "inject_and_measure": lambda f, t: ztfxr.inject_and_measure(
        f,
        lambda images, positions: ztfxr.aperture_photometry(images, positions, radius=3),
        xr.DataArray(_stamp().values[0], dims=("psf_y", "psf_x")),
        mag=(17.0, 19.0),
        n_sources=1,
        margin=5,
    ),
    "variance": lambda f, t: ztfxr.variance(f),
}
READS_HEADERS_ONLY = {
    "open_ccd",
    "open_epochs",
    "open_exposure",
    "open_fits",
    "open_frame",
    "open_frames",
    "open_lco",
    "open_quadrant",
    "open_zarr",
}
COMPUTES = {
    "view",
    "plot_injection",
    "injection_report",
    "rescale_errors",
    "read_zfps",
    "photometric_scale",
    "cut_counts",
    "baseline_table",
    "correct_baseline",
    "clean_zfps",
    "explain",
    "in_footprint",
    "isolated",
    "match",
    "query_catalog",
    "read_catalog",
    "to_ccddata",
    "to_dataframe",
    "to_fits",
    "to_parquet",
    "to_regions",
    "to_table",
    "unmatched",
    "difference_photometry",
    "to_extensions",
    "build_reference",
    "plot_difference",
    "select_epochs",
    "variability",
    "open_alerts",
    "read_fp_hists",
    "solve_kernel",
    "read_psf",
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


@pytest.mark.parametrize("name", sorted(LAZY))
def test_the_result_is_what_the_schema_says(name, frame, frames):
    result = LAZY[name](frame, frames)
    dataset = result.to_dataset(name=result.name or "unnamed") if isinstance(result, xr.DataArray) else result
    if not isinstance(dataset, xr.Dataset):
        pytest.skip("the result is not an xarray object")
    assert set(dataset.attrs) <= set(ATTRS)
    for key, variable in dataset.variables.items():
        assert set(variable.attrs) <= set(ATTRS), key
        if (spec := SPECS.get(str(key))) is None:
            continue
        assert spec.fits(variable.dims), f"{key} on {variable.dims}; the schema says {spec.dims!r}"
        if key in dataset.data_vars:
            assert variable.dtype == spec.dtype or spec.dtype == "str" or name == "from_ccddata", key
        if "units" in variable.attrs and name not in ("convert_flux", "flux_to_counts"):
            assert variable.attrs["units"] == spec.units, key


@pytest.mark.parametrize("name", ["open_epochs", "open_quadrant"])
def test_opening_reads_no_pixel(name, path, monkeypatch):
    monkeypatch.setattr("ztfxr.io.backend.read_window", lambda *a: pytest.fail("a pixel was read on opening"))
    getattr(ztfxr, name)(path if name == "open_quadrant" else [path])


def test_every_public_function_is_in_one_of_the_tables():
    functions = {n for n in ztfxr.__all__ if callable(f := getattr(ztfxr, n)) and not isinstance(f, type)}
    assert functions == set(LAZY) | READS_HEADERS_ONLY | COMPUTES


@pytest.mark.parametrize("name", sorted(COMPUTES))
def test_what_computes_says_so(name):
    assert "Computes" in (getattr(ztfxr, name).__doc__ or "")


def test_public_functions_are_typed_and_documented():
    for name in LAZY | dict.fromkeys(READS_HEADERS_ONLY | COMPUTES):
        function = getattr(ztfxr, name)
        assert function.__doc__, name
        assert "return" in function.__annotations__, name
