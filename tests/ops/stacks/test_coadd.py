"""Selecting and coadding epochs: truth by simulation, laziness, memory, semi-real epochs."""

from __future__ import annotations

import warnings
from functools import cache
from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr
from dask.callbacks import Callback
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import ztfxr
from tests.conftest import make_wcs_header
from ztfxr.arrays.images.coadd import anchor_stars, star_fluxes
from ztfxr.arrays.images.image import Image
from ztfxr.errors import ChunkError, InputError
from ztfxr.ops.stacks.coadd import build_reference, coadd
from ztfxr.ops.stacks.epochs import measure_epochs, select_epochs
from ztfxr.samples import make_epochs

GAIN, READNOISE = 6.0, 9.0
SCALES = np.array([1.0, 0.8, 1.1, 0.6, 0.95, 1.2])
SKIES = np.array([150.0, 300.0, 120.0, 500.0, 200.0, 180.0])
WIDTHS = np.array([1.1, 1.2, 1.0, 1.6, 1.15, 1.3])
METHODS = ("clipped", "mean", "median")


def scene(shape: tuple[int, int], width: float, n: int = 60) -> NDArray[np.float64]:
    """The stars alone, on the flux scale of the anchor."""
    rng = np.random.default_rng(5)
    y, x = np.mgrid[: shape[0], : shape[1]]
    places = rng.uniform(15, np.array(shape) - 15, (n, 2))
    image = np.zeros(shape)
    for (cy, cx), flux in zip(places, rng.uniform(5e3, 8e4, n), strict=True):
        window = np.s_[max(int(cy) - 12, 0) : int(cy) + 13, max(int(cx) - 12, 0) : int(cx) + 13]
        square = (y[window] - cy) ** 2 + (x[window] - cx) ** 2
        image[window] += flux * np.exp(-0.5 * square / width**2) / (2 * np.pi * width**2)
    return image


def make_stack(
    shape: tuple[int, int] = (260, 280),
    *,
    seed: int = 0,
    widths: NDArray[Any] = WIDTHS,
    skies: NDArray[Any] = SKIES,
    n_stars: int = 60,
) -> xr.Dataset:
    """Epochs with their own scale, sky, seeing and photon noise; junk where `mask` is True."""
    rng = np.random.default_rng(seed)
    expected = np.array([f * scene(shape, w, n_stars) + b for f, b, w in zip(SCALES, skies, widths, strict=True)])
    pixels = rng.normal(expected, np.sqrt(expected / GAIN + (READNOISE / GAIN) ** 2))
    bad = rng.random(pixels.shape) < 0.001
    pixels[bad] = rng.choice([-400.0, 30000.0, np.nan], bad.sum())
    n = len(SCALES)
    coords: dict[str, Any] = {k: ("time", np.full(n, v)) for k, v in (("gain", GAIN), ("readnoise", READNOISE))}
    coords |= {"exptime": ("time", np.full(n, 30.0)), "filter": ("time", ["ztfr"] * n), "field": ("time", [655] * n)}
    coords |= {"y": np.arange(shape[0]) + 100, "x": np.arange(shape[1]) + 200}
    coords["time"] = np.datetime64("2021-07-01", "ns") + np.arange(n) * np.timedelta64(1, "D")
    data = {"sci": (("time", "y", "x"), pixels.astype(np.float32)), "mask": (("time", "y", "x"), bad)}
    return ztfxr.assign_wcs(xr.Dataset(data, coords), make_wcs_header(shape)).assign_attrs(object="field")


@pytest.fixture(scope="module")
def epochs() -> xr.Dataset:
    return make_stack()


def photon_stack(stack: xr.Dataset) -> xr.DataArray:
    """The true variance of the simulation, as far as a noisy pixel tells it."""
    signal = stack["sci"].clip(min=1.0) / GAIN + (READNOISE / GAIN) ** 2
    return signal.drop_vars(["ra", "dec"])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("weights", ["snr", "equal"])
def test_the_pulls_of_a_coadd_have_unit_width(method: Any, weights: Any) -> None:
    sky = make_stack((400, 400), n_stars=0)
    out = coadd(sky, method=method, weights=weights, scale=xr.DataArray(SCALES, dims="time"), background="median")
    pull = (out.sci / np.sqrt(out.variance)).values
    assert np.nanstd(pull) == pytest.approx(1, abs=0.03)
    assert abs(np.nanmean(pull)) < 0.03


@pytest.mark.parametrize("method", ["clipped", "mean"])
def test_stars_and_their_noise_come_out_on_the_anchors_scale(method: Any) -> None:
    """Against the weighted mean of the noiseless epochs: no bias, pulls of unit width, also in the stars."""
    same = np.full(6, 1.2)
    stack = make_stack(widths=same)
    scale = xr.DataArray(SCALES, dims="time")
    out = coadd(stack, method=method, scale=scale, background="median")
    truth = scene((260, 280), 1.2)
    pull = ((out.sci - truth) / np.sqrt(out.variance)).values
    stars = truth > 100
    assert np.nanstd(pull) == pytest.approx(1, abs=0.03)
    assert np.nanstd(pull[stars]) == pytest.approx(1, abs=0.05)
    assert float(out.sci.where(stars).sum() / truth[stars & ~out.mask.values].sum()) == pytest.approx(1, abs=0.002)


@pytest.mark.parametrize("method", METHODS)
def test_a_variance_given_or_in_the_dataset_is_used(epochs: xr.Dataset, method: Any) -> None:
    given = coadd(epochs, method=method, variance=photon_stack(epochs))
    inside = coadd(epochs.assign(variance=photon_stack(epochs)), method=method)
    xr.testing.assert_equal(given.drop_vars(["ra", "dec"]), inside.drop_vars(["ra", "dec"]))
    doubled = coadd(epochs, method="mean", variance=4 * photon_stack(epochs)).variance
    np.testing.assert_allclose(doubled, 4 * coadd(epochs, method="mean", variance=photon_stack(epochs)).variance, 1e-5)


def test_measures_of_the_epochs(epochs: xr.Dataset) -> None:
    found = measure_epochs(epochs)
    assert np.abs(found.flux_scale / SCALES - 1).max() < 0.005
    np.testing.assert_allclose(found.sky, SKIES, atol=1.5)
    np.testing.assert_allclose(found.sky_noise, np.sqrt(SKIES / GAIN + (READNOISE / GAIN) ** 2), rtol=0.03)
    np.testing.assert_allclose(found.fwhm, 2.3548 * np.hypot(WIDTHS, 0.29), rtol=0.06)
    assert (found.coverage > 0.997).all()
    assert (found.fwhm.attrs["units"], found.sky.attrs["units"], found.attrs["anchor"]) == ("pixel", "DN", 0)
    other = measure_epochs(epochs, anchor=3).flux_scale
    np.testing.assert_allclose(other, SCALES / SCALES[3], rtol=0.01)


def test_scales_by_zero_point_by_hand_and_none(epochs: xr.Dataset) -> None:
    zp = epochs.assign_coords(magzp=("time", 26 + 2.5 * np.log10(SCALES)))
    np.testing.assert_allclose(measure_epochs(zp, scale="magzp").flux_scale, SCALES, rtol=1e-12)
    starless = make_stack((120, 120), n_stars=0).assign_coords(magzp=zp.magzp)
    np.testing.assert_allclose(measure_epochs(starless).flux_scale, SCALES, rtol=1e-12)
    assert np.isnan(measure_epochs(starless, scale="stars").flux_scale).all()
    assert (measure_epochs(epochs, scale=None).flux_scale == 1).all()
    given = measure_epochs(epochs, scale=xr.DataArray(2 * SCALES, {"time": epochs.time}, "time"))
    assert (given.flux_scale == 2 * SCALES).all()
    assert float(coadd(zp, scale="magzp", anchor=3).magzp) == zp.magzp.values[3]


def test_cosmic_rays_and_a_variable_are_clipped(epochs: xr.Dataset) -> None:
    rng = np.random.default_rng(3)
    hit = rng.random(epochs.sci.shape) < 0.001
    spoiled = epochs.assign(sci=epochs.sci + np.where(hit, rng.uniform(500, 9000, hit.shape), 0).astype(np.float32))
    spoiled["sci"][4, 130:133, 140:143] += 800
    clean, out, plain = (coadd(s, method=m) for s, m in ((epochs, "clipped"), (spoiled, "clipped"), (spoiled, "mean")))
    where = hit.any(axis=0) & ~clean.mask.values & (scene((260, 280), 1.6) < 30)
    change, unclipped = (((c.sci - clean.sci) / np.sqrt(clean.variance)).values[where] for c in (out, plain))
    assert np.mean(np.abs(change) < 3) > 0.98
    assert np.mean(np.abs(unclipped) < 3) < 0.3
    assert abs(float((out.sci - clean.sci)[130:133, 140:143].mean())) < 3


def test_clipping_costs_stars_no_flux_though_seeing_differs(epochs: xr.Dataset) -> None:
    plain, clipped = (coadd(epochs, method=m) for m in ("mean", "clipped"))
    bad = plain.mask.values | clipped.mask.values
    stars = anchor_stars(Image.of(plain.sci.values, None, bad))
    fluxes = [star_fluxes(np.where(bad, 0, c.sci.values), bad, stars, 5.0)[0] for c in (clipped, plain)]
    assert abs(np.nansum(fluxes[0]) / np.nansum(fluxes[1]) - 1) < 0.001
    assert np.nanmax(np.abs(fluxes[0] / fluxes[1] - 1)) < 0.01


@pytest.mark.parametrize("method", METHODS)
def test_masked_junk_never_leaks(epochs: xr.Dataset, method: Any) -> None:
    other = epochs.assign(sci=epochs.sci.where(~epochs.mask, -1e30))
    a, b = (coadd(s, method=method).drop_vars(["ra", "dec"]) for s in (epochs, other))
    xr.testing.assert_equal(a, b)
    assert float(abs(a.sci.where(scene((260, 280), 1.6) < 1)).max()) < 60


@pytest.mark.parametrize("method", METHODS)
def test_a_pixel_without_a_good_epoch_is_nan_and_masked(epochs: xr.Dataset, method: Any) -> None:
    lost = epochs.mask.copy()
    lost[:, 5, 6] = True
    lost[1:, 7, 8] = True
    out = coadd(epochs, mask=lost, method=method)
    assert out.mask[5, 6]
    assert np.isnan(out.sci[5, 6])
    assert np.isnan(out.variance[5, 6])
    assert (int(out.n_frames[5, 6]), int(out.n_frames[7, 8])) == (0, int(~lost[0, 7, 8]))
    assert np.array_equal(out.mask, np.isnan(out.sci))
    assert out.n_frames.max() == 6


@pytest.mark.parametrize("method", ["clipped", "mean"])
def test_the_effective_gain_and_read_noise_give_the_variance(method: Any) -> None:
    """On the stars too: their photon noise is what the gain is for. (Where seeing differs it is the mean one.)"""
    epochs = make_stack(widths=np.full(6, 1.2))
    out = coadd(epochs, method=method, background="median")
    model = out.sci.clip(min=0) / out.gain + (out.readnoise / out.gain) ** 2
    whole = (out.n_frames == 6).values
    ratio = (out.variance / model).values
    assert np.median(ratio[whole]) == pytest.approx(1, abs=0.03)
    bright = whole & (out.sci.values > 1000)
    assert np.median(ratio[bright]) == pytest.approx(1, abs=0.06)
    kept = coadd(make_stack(widths=np.full(6, 1.2), skies=200 * SCALES), method=method, background=False)
    assert float(kept.sci.median()) == pytest.approx(200, abs=1)
    photon = kept.sci / kept.gain + (kept.readnoise / kept.gain) ** 2
    assert np.median((kept.variance / photon).values[whole]) == pytest.approx(1, abs=0.03)


def test_weights(epochs: xr.Dataset) -> None:
    noise = np.sqrt(SKIES / GAIN + (READNOISE / GAIN) ** 2)
    expected = {"variance": (SCALES / noise) ** 2, "snr": (SCALES / noise / np.hypot(WIDTHS, 0.29)) ** 2}
    expected["equal"] = np.ones(6)
    for name, weights in expected.items():
        found = coadd(epochs, weights=name, method="mean").weight  # type: ignore[arg-type]
        np.testing.assert_allclose(found, weights / weights.sum(), rtol=0.12)
    one = coadd(epochs, weights=xr.DataArray([0, 0, 1, 0, 0, 0], dims="time"), method="mean", anchor=2)
    assert one.weight.values.tolist() == [0, 0, 1, 0, 0, 0]
    assert (int(one.n_frames.max()), float(one.exptime)) == (1, 30)
    alone = ztfxr.clean(epochs.isel(time=2))
    np.testing.assert_allclose(one.sci.values, alone.values, atol=1e-3)


def test_labels_and_table(epochs: xr.Dataset) -> None:
    out = coadd(epochs)
    assert set(out.data_vars) == {
        "sci",
        "variance",
        "mask",
        "n_frames",
        "sky",
        "sky_noise",
        "fwhm",
        "coverage",
        "flux_scale",
        "weight",
    }
    assert type(out.xindexes["ra"]).__name__ == "WCSIndex"
    assert out.x.values[0] == 200
    assert ztfxr.get_wcs(out).wcs.crval.tolist() == ztfxr.get_wcs(epochs).wcs.crval.tolist()
    assert out.sci.dims == ("y", "x")
    assert (str(out["filter"].values), int(out.field), float(out.exptime)) == ("ztfr", 655, 180.0)
    assert out.frame.values[1].startswith("2021-07-02")
    assert out.attrs["object"] == "field"
    assert "time" not in out.coords
    plain = coadd(epochs.sci.drop_vars(["time", "gain"]), mask=epochs.mask)
    assert plain.frame.values[2] == "epoch 2"
    assert "gain" not in plain.coords
    assert np.isfinite(plain.variance).any()


def test_a_coadd_is_a_reference(epochs: xr.Dataset) -> None:
    out = coadd(epochs, anchor=2)
    diff = ztfxr.difference(epochs.isel(time=[1]), out, kernel_size=9)
    assert float(diff.kernel_sum[0]) == pytest.approx(SCALES[1] / SCALES[2], rel=0.01)


def chunked(stack: xr.Dataset, chunks: Any) -> xr.Dataset:
    return stack.drop_vars(["ra", "dec"]).chunk(time=chunks)


@pytest.fixture(scope="module")
def small() -> xr.Dataset:
    return make_stack((90, 100), n_stars=30)


@cache
def tiny() -> xr.Dataset:
    return make_stack((70, 80), n_stars=30).drop_vars(["ra", "dec"])


@settings(max_examples=12)
@given(cuts=st.sets(st.integers(1, 5)), method=st.sampled_from(METHODS), rows=st.sampled_from([5e3, 3e4, 64e6]))
def test_dask_equals_numpy_for_any_chunks(cuts: set[int], method: Any, rows: float) -> None:
    stack = tiny()
    chunks = tuple(int(c) for c in np.diff([0, *sorted(cuts), 6]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ztfxr.ops.stacks.coadd._BLOCK_BYTES", rows)
        lazy = coadd(stack.chunk(time=chunks), method=method)
        assert lazy.sci.chunks is not None
        found = lazy.compute(scheduler="synchronous")
    eager = coadd(stack, method=method)
    xr.testing.assert_allclose(found, eager, rtol=2e-6, atol=1e-4)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("scale", ["auto", None])
def test_nothing_is_computed_until_asked(small: xr.Dataset, raising_scheduler: Any, method: Any, scale: Any) -> None:
    stack = chunked(small, 1)
    out = coadd(stack, method=method, scale=scale)
    table = measure_epochs(stack)
    with pytest.raises(AssertionError, match="stayed lazy"):
        out.sci.compute()
    with pytest.raises(AssertionError, match="stayed lazy"):
        table.compute()
    with pytest.raises(AssertionError, match="stayed lazy"):
        select_epochs(stack)
    assert out.gain.chunks == ()


class Peak(Callback):  # type: ignore[misc]
    """The most bytes of results that wait in memory at once."""

    def __init__(self) -> None:
        self.bytes = 0

    def _posttask(self, key: Any, value: Any, dsk: Any, state: Any, worker_id: Any) -> None:
        self.bytes = max(self.bytes, sum(_size(v) for v in state["cache"].values()))


def _size(value: Any) -> int:
    if isinstance(value, np.ndarray):
        return sum(map(_size, value.ravel())) if value.dtype == object else int(value.nbytes)
    return sum(map(_size, value)) if isinstance(value, tuple | list) else 0


def _frame(block_info: Any) -> NDArray[np.float32]:
    number = block_info[None]["array-location"][0][0]
    return np.random.default_rng(number).normal(100, 5, (1, 64, 64)).astype(np.float32)


def peak_images(n: int, method: Any) -> float:
    """Images of float32 that wait in memory at once, for n epochs."""
    meta = np.empty((0, 0, 0), np.float32)
    pixels = da.map_blocks(_frame, chunks=((1,) * n, (64,), (64,)), dtype=np.float32, meta=meta)
    stack = xr.Dataset({"sci": (("time", "y", "x"), pixels)}, {"gain": GAIN})
    with dask.config.set(scheduler="synchronous"), Peak() as peak:
        coadd(stack, method=method, scale=None).compute()
    return peak.bytes / (64 * 64 * 4)


def test_a_mean_needs_a_few_epochs_at_once() -> None:
    """An epoch's contribution is four images: 64 epochs wait as eight of them."""
    peaks = [peak_images(n, "mean") for n in (4, 16, 64)]
    assert peaks[2] < 40
    assert peaks[2] - peaks[1] <= 9
    assert peaks[1] - peaks[0] <= 9


def test_clipping_needs_each_epoch_twice_in_float32() -> None:
    assert peak_images(32, "clipped") < 2 * 32 + 8


def test_selection_says_why(epochs: xr.Dataset) -> None:
    lost = epochs.mask.copy()
    lost[1] = True
    table = select_epochs(epochs, mask=lost, best=3, max_sky=400)
    assert table.selected.dims == ("time",)
    assert table.reason.values[1] == "0 % of the pixels are good, fewer than 50 %"
    assert table.reason.values[3].startswith("sky 500")
    assert table.selected.sum() == 3
    assert [r for r in table.reason.values if r.startswith("rank 4 by score: only the best 3")]
    assert np.nanmax(table.score) == 1
    noise = np.sqrt(SKIES / GAIN + (READNOISE / GAIN) ** 2)
    assert int(np.nanargmax(table.score.values)) == int(np.argmax(SCALES / WIDTHS / noise))
    seeing = select_epochs(epochs, max_seeing=2.8).reason.values
    assert seeing[3].startswith("fwhm 3.")
    assert seeing[2] == ""
    bad = epochs.assign_coords(epoch_status=("time", [4, 0, 0, 0, 0, 0]), message=("time", ["cut off", *[""] * 5]))
    table = select_epochs(bad)
    assert (table.reason.values[0], table.attrs["anchor"]) == ("unusable: cut off", 1)


def test_epochs_with_a_status_are_left_out(epochs: xr.Dataset) -> None:
    spoiled = epochs.assign(sci=epochs.sci.where(xr.DataArray(np.arange(6) != 0, dims="time"), 7e4))
    spoiled = spoiled.assign_coords(epoch_status=("time", [4, 0, 0, 0, 0, 0]))
    out = coadd(spoiled)
    assert out.weight.values[0] == 0
    assert out.n_frames.max() == 5
    xr.testing.assert_allclose(out.sci, coadd(epochs.isel(time=slice(1, None))).sci, rtol=1e-5)


def test_build_reference(epochs: xr.Dataset) -> None:
    weights = xr.DataArray(np.arange(1.0, 7.0), dims="time")
    out = build_reference(epochs.drop_vars(["ra", "dec"]).chunk(time=1), best=4, weights=weights, mask=epochs.mask)
    assert out.sci.chunks is not None
    assert len(out.attrs["rejected"]) == 2
    assert out.sizes["frame"] == 4
    chosen = select_epochs(epochs, best=4)
    kept = np.flatnonzero(chosen.selected)
    np.testing.assert_allclose(out.weight, (kept + 1) / (kept + 1).sum())
    assert float(out.flux_scale[out.attrs["anchor"]]) == 1
    direct = coadd(
        epochs.isel(time=kept),
        weights=weights.isel(time=kept),
        anchor=out.attrs["anchor"],
        mask=epochs.mask.isel(time=kept),
    )
    bright = direct.sci.values > 500
    assert np.median((out.sci.values / direct.sci.values)[bright]) == pytest.approx(1, abs=0.005)
    with pytest.raises(InputError, match=r"none of the 6 epochs can be used; 2021.*: sky"):
        build_reference(epochs, max_sky=3)


def test_epochs_of_several_filters_are_not_added(epochs: xr.Dataset) -> None:
    """One filter, or none that is known, is added; so is what a selection leaves."""
    mixed = epochs.assign_coords(filter=("time", ["ztfg", "ztfr", "ztfr", "", "ztfr", "ztfg"]))
    for function in (coadd, build_reference):
        with pytest.raises(InputError, match=r"the epochs are of several filters, ztfg, ztfr, .*: select one"):
            function(mixed)
    one = coadd(mixed.isel(time=mixed["filter"].values == "ztfr"))
    assert str(one["filter"].values) == "ztfr"
    named = epochs.assign_coords(filter=("time", ["", "zr", "ztfr", "", "r", "ZTF_r"]))
    assert str(coadd(named)["filter"].values) == "zr"


@pytest.mark.parametrize("unit", ["DN", "electron"])
def test_a_coadd_has_the_unit_of_its_epochs(small: xr.Dataset, unit: str) -> None:
    stack = small.copy()
    stack["sci"] = stack["sci"].assign_attrs(units=unit)
    out = coadd(stack)
    assert (out["sci"].attrs["units"], out["variance"].attrs["units"]) == (unit, f"{unit}2")
    assert measure_epochs(stack)["sky"].attrs["units"] == unit
    gain = {"DN": float(out["gain"]) / float(coadd(small)["gain"]), "electron": None}[unit]
    assert gain in (1.0, None)


def test_unusable_arguments(epochs: xr.Dataset) -> None:
    for wrong, message in (
        ({"method": "mode"}, "method is .* got 'mode'"),
        ({"weights": "best"}, "weights are .* got 'best'"),
        ({"weights": xr.DataArray([1.0, 2.0], dims="time")}, "one number per epoch"),
        ({"scale": "star"}, "scale is"),
        ({"scale": "magzp"}, "no zero points"),
        ({"background": "mesh"}, "background is"),
        ({"clip": 0}, "clip must be above 0"),
        ({"anchor": 6}, "no epoch 6 to anchor"),
    ):
        with pytest.raises(InputError, match=message):
            coadd(epochs, **wrong)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="has the dimension time"):
        coadd(epochs.isel(time=0))
    with pytest.raises(InputError, match="has no epoch"):
        coadd(epochs.isel(time=slice(0)))
    with pytest.raises(InputError, match="best is the number"):
        select_epochs(epochs, best=0)
    with pytest.raises(ChunkError, match="along 'x'"):
        coadd(epochs.drop_vars(["ra", "dec"]).chunk(time=1, x=50))


def test_an_epoch_without_a_good_pixel_warns_of_nothing(small: xr.Dataset) -> None:
    dead = small.assign(sci=small.sci.where(xr.DataArray(np.arange(6) != 2, dims="time")))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for method in METHODS:
            out = coadd(chunked(dead, 1), method=method).compute()
            assert out.weight.values[2] == 0
            empty = coadd(xr.full_like(small, np.nan).assign(mask=small.mask), method=method).compute()
            assert empty.mask.all()


def test_semi_real_epochs(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The flux scales are the transparencies, the coadd's own difference from single epochs is quiet."""
    made = make_epochs(tmp_path_factory.mktemp("epochs"), n_epochs=8)
    stack = ztfxr.stack(ztfxr.open_epochs(made.paths))
    out = build_reference(stack, best=6).load()
    through = made.truth.transparency.values
    table = select_epochs(stack)
    ratio = table.flux_scale.values / (through / through[0])
    assert np.std(ratio) < 0.008
    assert out.mask.mean() < 0.002
    names = {p.stem for p in made.paths}
    assert all(any(n in name for n in names) for name in out.frame.values)
    rest = np.flatnonzero(~np.isin(stack.frame.values, out.frame.values))
    diff = ztfxr.difference(stack.isel(time=rest), out, kernel_size=11, exclude=[(193.4, 181.7)]).load()
    assert (diff.epoch_status == 0).all()
    assert diff.noise_ratio.max() < 1.05
    expected = (
        through[rest] / through[int(np.flatnonzero(stack.frame.values == out.frame.values[out.attrs["anchor"]])[0])]
    )
    np.testing.assert_allclose(diff.kernel_sum, expected, rtol=0.015)


def test_epochs_of_another_filter_have_no_weight_where_names_are_lazy(epochs: xr.Dataset) -> None:
    mixed = epochs.assign_coords(filter=("time", ["ztfg", "ztfr", "zg", "", "ztfr", "g"])).chunk(time=1)
    mixed = mixed.assign_coords(filter=mixed["filter"].chunk(time=1))
    found = coadd(mixed, scale=None, method="mean").compute()
    assert (found["weight"] > 0).values.tolist() == [True, False, True, True, False, True]
    with pytest.raises(InputError, match="several filters, ztfg, ztfr"):
        build_reference(mixed)
