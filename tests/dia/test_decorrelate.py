"""Decorrelated differences: white noise, flux, laziness, chunkings, statuses."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from scipy import signal

import ztfxr
from ztfxr.dia.decorrelate import decorrelate
from ztfxr.schema import STATUS_PLANES, planes_to_bits

NY, NX = 150, 160
DIMS = ("time", "y", "x")


def gaussian(size: int, fwhm: float, dy: float = 0.0, dx: float = 0.0) -> np.ndarray:
    y, x = np.mgrid[:size, :size] - size // 2
    out = np.exp(-((y - dy) ** 2 + (x - dx) ** 2) * 4 * np.log(2) / fwhm**2)
    return out / out.sum()


def stars(seed: int, n: int = 60) -> np.ndarray:
    rng = np.random.default_rng(seed)
    image = np.zeros((NY + 40, NX + 40))
    for y, x, f in zip(
        rng.integers(20, NY + 20, n), rng.integers(20, NX + 20, n), 10 ** rng.uniform(3, 4.3, n), strict=True
    ):
        image[y - 10 : y + 11, x - 10 : x + 11] += f * gaussian(21, 2.0, *rng.uniform(-0.5, 0.5, 2))
    return image[20:-20, 20:-20]


def pair(seed: int = 0, epochs: int = 2, sigmas: tuple[float, float] = (3.0, 3.0)) -> tuple[xr.Dataset, xr.Dataset]:
    """Science images and a reference of equal depth, the science images blurred and 1.1 times as bright."""
    rng = np.random.default_rng(seed)
    scene = stars(seed)
    model = signal.fftconvolve(scene, 1.1 * gaussian(9, 1.8), mode="same")
    sci = model + rng.normal(scale=sigmas[0], size=(epochs, NY, NX))
    ref = scene + rng.normal(scale=sigmas[1], size=(NY, NX))
    coords = {
        "time": np.datetime64("2020-01-01", "ns") + np.arange(epochs) * np.timedelta64(1, "D"),
        "y": np.arange(NY),
        "x": np.arange(NX),
    }
    levels = [np.full(a.shape, s**2, "f4") for a, s in ((sci, sigmas[0]), (ref, sigmas[1]))]
    science = xr.Dataset({"sci": (DIMS, sci.astype("f4")), "variance": (DIMS, levels[0])}, coords)
    reference = xr.Dataset({"sci": (DIMS[1:], ref.astype("f4")), "variance": (DIMS[1:], levels[1])})
    return science, reference.assign_coords(y=coords["y"], x=coords["x"])


def correlation(images: xr.DataArray, lag: int) -> float:
    values = images.values
    return float(np.nanmean(values[..., lag:] * values[..., :-lag]) / np.nanvar(values))


@pytest.fixture(scope="module")
def data() -> tuple[xr.Dataset, xr.Dataset]:
    return pair(1, epochs=3)


@pytest.fixture(scope="module")
def diff(data) -> xr.Dataset:
    return ztfxr.difference(*data, kernel_size=7)


@pytest.mark.parametrize("given", ["both", "science", "reference", "maps", "none"])
def test_the_noise_becomes_white_whatever_is_known_of_it(diff, data, given):
    options = {
        "both": {"science_variance": 9.0, "reference_variance": 9.0},
        "science": {"science_variance": 9.0},
        "reference": {"reference_variance": xr.DataArray([9.0, 9.0, 9.0], dims="time")},
        "maps": {"science_variance": data[0].variance, "reference_variance": data[1].variance},
        "none": {},
    }[given]
    assert max(abs(correlation(diff.difference, lag)) for lag in (1, 2, 3)) > 0.05
    white = decorrelate(diff, **options)
    assert max(abs(correlation(white.difference, lag)) for lag in (1, 2, 3)) < 0.02
    assert float((white.difference / np.sqrt(white.difference_variance)).std()) == pytest.approx(1.0, abs=0.03)
    np.testing.assert_allclose(white.difference_variance.median(), 9 * (1 + 1.21), rtol=0.03)
    np.testing.assert_allclose(white.decorrelation_kernel.sum(("phi_y", "phi_x")), 1.0)
    assert white.decorrelation_kernel.dims == ("time", "phi_y", "phi_x")
    assert white.difference.attrs["units"] == "DN"
    xr.testing.assert_identical(white.kernel, diff.kernel)


@pytest.mark.parametrize("convolve", ["reference", "science"])
def test_flux_stays_in_the_effective_psf(convolve):
    """With the science image convolved, roles swap: the PSF takes the matching kernel in too."""
    science, reference = pair(2, epochs=1)
    if convolve == "science":
        science, reference = reference.expand_dims("time"), science.isel(time=0)
    psf = (
        gaussian(25, 2.0)
        if convolve == "science"
        else signal.fftconvolve(gaussian(25, 2.0), gaussian(9, 1.8), mode="same")
    )
    places = [(y, x) for y in range(30, 130, 33) for x in range(30, 140, 33)]
    new = np.zeros((1, NY, NX), "f4")
    for y, x in places:
        new[0, y - 12 : y + 13, x - 12 : x + 13] += 2000 * psf
    where = [(x, y) for y, x in places]
    diff = ztfxr.difference(
        science.assign(sci=science.sci + new),
        reference,
        kernel_size=9,
        convolve=convolve,
        exclude=where,
        exclude_radius=9,
    )
    white = decorrelate(diff, psf=xr.DataArray(psf, dims=("psf_y", "psf_x")))
    assert bool(white.science_convolved.all()) is (convolve == "science")
    empty = white.difference.where(np.abs(new) < 1e-3)
    assert max(abs(correlation(empty, lag)) for lag in (1, 2, 3)) < 4 / np.sqrt(float(empty.count()))
    effective = white.psf_difference.values[0]
    values = white.difference.values[0]
    flux = [(values[y - 12 : y + 13, x - 12 : x + 13] * effective).sum() / (effective**2).sum() for y, x in places]
    error = np.sqrt(float(white.difference_variance.median()) / (effective**2).sum() / len(places))
    assert np.mean(flux) == pytest.approx(2000, abs=4 * error)
    assert error < 20


def test_chunking_never_changes_a_result(diff):
    eager = decorrelate(diff)
    for chunks in (1, 2, 3):
        lazy = decorrelate(diff.chunk(time=chunks))
        assert lazy.difference.chunks is not None
        xr.testing.assert_allclose(lazy.compute(), eager, rtol=1e-6)


def test_it_is_lazy(data, raising_scheduler):
    science, reference = (d.chunk() for d in data)
    lazy = decorrelate(
        ztfxr.difference(science.chunk(time=1), reference, kernel_size=7),
        science_variance=science.variance,
        psf=xr.DataArray(gaussian(25, 2.5), dims=("psf_y", "psf_x")).chunk(),
    )
    assert all(lazy[n].chunks is not None for n in ("difference", "difference_variance", "mask", "psf_difference"))


def test_one_epoch_is_the_stack_of_one(diff):
    one = decorrelate(diff.isel(time=1))
    assert one.difference.dims == ("y", "x")
    xr.testing.assert_allclose(one.difference, decorrelate(diff).difference.isel(time=1))


def test_masked_pixels_stay_masked_and_harm_nobody(data, diff):
    science, reference = data
    bad = xr.zeros_like(science.sci, dtype=bool)
    bad[:, 60:63, 70] = True
    spoiled = ztfxr.difference(science.assign(sci=science.sci.where(~bad, 5e4), mask=bad), reference, kernel_size=7)
    white, clean = decorrelate(spoiled), decorrelate(diff)
    assert bool(white.mask.values[bad.values].all())
    np.testing.assert_array_equal(np.isnan(white.difference.values), white.mask.values)
    extra = int(white.mask.sum() - clean.mask.sum())
    assert 3 * 9 <= extra <= 3 * 80
    assert np.abs(white.difference - clean.difference).max() < 1.0


def test_epochs_without_a_difference_keep_their_status(data):
    science, reference = data
    science = science.assign(sci=science.sci.where(science.time != science.time[1], np.nan))
    diff = ztfxr.difference(science, reference, kernel_size=7)
    white = decorrelate(diff)
    assert white.epoch_status.values.tolist() == [0, planes_to_bits(["too_few_pixels"], STATUS_PLANES), 0]
    assert bool(white.difference.isel(time=1).isnull().all())
    assert bool(white.mask.isel(time=1).all())
    one = decorrelate(diff.isel(time=[0, 2]))
    xr.testing.assert_identical(white.difference.isel(time=[0, 2]), one.difference)


def test_noise_that_cannot_be_measured_is_a_status(diff):
    few = diff.isel(time=0).copy(deep=True)
    keep = np.zeros((NY, NX), bool)
    keep[50:55, 50:55] = True
    few["mask"] = few.mask | ~xr.DataArray(keep, dims=("y", "x"))
    assert int(decorrelate(few).epoch_status) == planes_to_bits(["too_few_pixels"], STATUS_PLANES)
    assert int(decorrelate(few, science_variance=9.0).epoch_status) == 0


def test_errors_name_what_is_wrong(diff):
    with pytest.raises(ztfxr.InputError, match=r"without difference_variance, mask"):
        decorrelate(diff.drop_vars(["difference_variance", "mask"]))
    with pytest.raises(ztfxr.InputError, match="decorrelated already"):
        decorrelate(decorrelate(diff))
    with pytest.raises(ztfxr.InputError, match=r"must be odd.*got 8: use 9"):
        decorrelate(diff, size=8)
    with pytest.raises(ztfxr.InputError, match=r"psf has the dimensions.*'psf_y': 4"):
        decorrelate(diff, psf=xr.DataArray(np.ones((4, 5)), dims=("psf_y", "psf_x")))
    with pytest.raises(ztfxr.ChunkError, match="chunks along 'y'"):
        decorrelate(diff.chunk(y=20))


def test_a_slice_is_whitened_as_its_place_in_the_frame():
    diff = ztfxr.difference(*pair(3, epochs=1), kernel_size=7, kernel_order=2).compute()
    narrow, wide = gaussian(7, 0.8), gaussian(7, 2.6)
    diff["kernel_coeff"][0, :3] = np.stack([(narrow + wide) / 2, (wide - narrow) / 3, (narrow - wide) / 6])
    cut = diff.isel(y=slice(20, 130), x=slice(60, 155))
    lost = cut.copy()
    del lost.attrs["frame"]
    known = {"science_variance": 9.0, "reference_variance": 9.0}
    inner = {"y": slice(30, 120), "x": slice(70, 145)}
    whole, part, wrong = (decorrelate(d, **known).compute().sel(inner) for d in (diff, cut, lost))
    for name in ("difference", "difference_variance"):
        # Over the frame the whitening kernel is a polynomial of order 3, which fits a slice better.
        np.testing.assert_allclose(part[name], whole[name], rtol=0.03, atol=0.05 * float(whole[name].std()))
    apart = (float(abs(d.difference - whole.difference).std()) for d in (part, wrong))
    assert 5 * next(apart) < next(apart)
