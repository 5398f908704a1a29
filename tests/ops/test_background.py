"""Sky background, clean images and variance."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
import sep
import xarray as xr
from astropy.io import fits
from distributed import Client, LocalCluster
from numpy.typing import NDArray

import ztfxr
from tests.conftest import make_flags, make_sky
from ztfxr.arrays.statistics import mad_std
from ztfxr.errors import ChunkError, InputError
from ztfxr.io.frames import open_quadrant
from ztfxr.ops.background import SkyOptions, background, clean, noise, variance
from ztfxr.ops.exposure import gather
from ztfxr.ops.masks import mask, source_mask

SHAPE = (130, 110)
RNG = np.random.default_rng(5)


def gradient(seed: int) -> NDArray[np.float32]:
    """A noisy sky that slopes, with one bright star."""
    y, x = np.indices(SHAPE)
    star = 5000 * np.exp(-((y - 40) ** 2 + (x - 70) ** 2) / 6)
    return (make_sky(SHAPE, seed) + 0.3 * y - 0.1 * x + star).astype(np.float32)


@pytest.fixture
def frame() -> xr.Dataset:
    """One frame with flags on a tenth of its pixels."""
    sparse = np.where(np.random.default_rng(9).random(SHAPE) < 0.3, make_flags(SHAPE), 0).astype(np.uint16)
    coords = {"y": np.arange(SHAPE[0]) + 7, "x": np.arange(SHAPE[1]), "gain": 6.2, "readnoise": 10.0}
    sci = xr.Variable(("y", "x"), gradient(0), {"units": "DN", "long_name": "science image"})
    return xr.Dataset({"sci": sci, "flags": (("y", "x"), sparse)}, coords)


@pytest.fixture
def stack(frame: xr.Dataset) -> xr.Dataset:
    """Three epochs of different sky and gain, with one mask each."""
    epochs = [
        frame.assign(sci=frame["sci"].copy(data=gradient(i) + 50 * i), flags=frame["flags"].roll(x=i)).assign_coords(
            gain=6.2 + i, time=i
        )
        for i in range(3)
    ]
    return xr.concat(epochs, "time", data_vars="all", coords="different", compat="equals")


def by_sep(image: NDArray[Any], bad: NDArray[Any], bw: int = 64, bh: int = 64, fw: int = 3, fh: int = 3) -> Any:
    pixels = np.ascontiguousarray(np.where(bad, 0, image), np.float32)
    return sep.Background(pixels, mask=bad, bw=bw, bh=bh, fw=fw, fh=fh)


# background


def test_equals_sep_by_hand(frame: xr.Dataset) -> None:
    expected = by_sep(frame["sci"].values, (frame["flags"].values & 6141) != 0)
    found = background(frame)
    np.testing.assert_array_equal(found["background"].values, expected.back())
    np.testing.assert_array_equal(found["background_rms"].values, expected.rms())
    assert {v.dtype for v in found.data_vars.values()} == {np.dtype(np.float32)}
    assert found["background"].attrs["units"] == "DN"
    within_box = np.hypot(0.3, 0.1) * 64 / np.sqrt(12)
    assert float(found["background_rms"].mean()) == pytest.approx(np.hypot(9.0, within_box), rel=0.05)


def test_options_reach_sep_in_the_right_order(frame: xr.Dataset) -> None:
    """(y, x): sep has heights and widths as separate names."""
    expected = by_sep(frame["sci"].values, np.zeros(SHAPE, bool), bh=20, bw=40, fh=1, fw=3)
    found = background(frame, mask=False, box_size=(20, 40), filter_size=(1, 3))
    np.testing.assert_array_equal(found["background"].values, expected.back())
    assert not np.array_equal(background(frame, mask=False, box_size=(40, 20))["background"], expected.back())


def test_mask_choices(frame: xr.Dataset) -> None:
    own = xr.zeros_like(frame["sci"], dtype=bool)
    own[:, 60:80] = True
    expected = by_sep(frame["sci"].values, own.values)
    for found in (
        background(frame, mask=own),
        background(frame["sci"], mask=own),
        background(frame[["sci"]].assign(mask=own)),
    ):
        np.testing.assert_array_equal(found["background"].values, expected.back())
    nothing = by_sep(frame["sci"].values, np.zeros(SHAPE, bool)).back()
    for found in (background(frame["sci"]), background(frame, mask=False)):
        np.testing.assert_array_equal(found["background"].values, nothing)
    with pytest.raises(InputError, match="a mask is boolean, True where bad; this one is uint16: decode bit planes"):
        background(frame, mask=frame["flags"])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_pixels_that_are_not_finite_are_masked(frame: xr.Dataset, value: float) -> None:
    holes = RNG.random(SHAPE) < 0.05
    image = frame["sci"].copy(data=np.where(holes, value, frame["sci"].values))
    expected = by_sep(frame["sci"].values, holes)
    found = background(image)
    np.testing.assert_array_equal(found["background"].values, expected.back())
    assert np.isfinite(found["background_rms"].values).all()


@pytest.mark.parametrize("how", ["nan", "masked"])
def test_nothing_good_gives_nan(frame: xr.Dataset, how: str) -> None:
    """Without a warning: warnings are errors here."""
    if how == "nan":
        frame["sci"] = frame["sci"] * np.float32(np.nan)
    else:
        frame["flags"] = xr.full_like(frame["flags"], 1)
    for image in (*background(frame).data_vars.values(), clean(frame), variance(frame)):
        assert image.isnull().all()
        assert image.dtype == np.float32
    photon = variance(frame, method="photon")
    assert bool(photon.isnull().all()) == (how == "nan")


def test_stack_equals_each_image(stack: xr.Dataset) -> None:
    together, cleaned, noise = background(stack), clean(stack), variance(stack)
    assert together["background"].dims == ("time", "y", "x")
    for i in range(3):
        one = stack.isel(time=i)
        for name, image in background(one).data_vars.items():
            np.testing.assert_array_equal(together[name][i].values, image.values)
        np.testing.assert_array_equal(cleaned[i].values, clean(one).values)
        np.testing.assert_array_equal(noise[i].values, variance(one).values)
        np.testing.assert_array_equal(variance(stack, method="photon")[i].values, variance(one, method="photon").values)


def test_one_epoch_without_a_good_pixel_leaves_the_others(stack: xr.Dataset) -> None:
    stack["sci"][1] = np.nan
    found = background(stack)["background"]
    np.testing.assert_array_equal(found.isnull().all(("y", "x")).values, [False, True, False])


def test_dask_equals_numpy(stack: xr.Dataset) -> None:
    lazy = stack.chunk(time=1)
    for function in (background, clean, variance, photon):
        computed = function(lazy).compute(scheduler="synchronous")
        xr.testing.assert_identical(computed, function(stack))


def photon(obj: xr.Dataset) -> xr.DataArray:
    return variance(obj, method="photon")


def test_lazy_in_lazy_out(stack: xr.Dataset, raising_scheduler: Any) -> None:
    lazy = stack.chunk(time=1)
    maps = background(lazy)
    for found in (*maps.data_vars.values(), clean(lazy), clean(lazy["sci"]), variance(lazy), photon(lazy)):
        assert found.chunks == ((1, 1, 1), (SHAPE[0],), (SHAPE[1],))
        assert found.dtype == np.float32
    with pytest.raises(AssertionError, match="stayed lazy"):
        maps.compute()


def test_numpy_stays_numpy(frame: xr.Dataset) -> None:
    assert all(v.chunks is None for v in (*background(frame).data_vars.values(), clean(frame), variance(frame)))


@pytest.mark.parametrize("dim", ["y", "x"])
def test_chunked_images_are_refused(frame: xr.Dataset, dim: str) -> None:
    with pytest.raises(ChunkError, match=rf"sci has \d chunks along '{dim}', .* use \.chunk\({dim}=-1\)"):
        background(frame.chunk({dim: 50}))


def test_dims_and_coordinates_stay(frame: xr.Dataset) -> None:
    turned = frame.transpose("x", "y")
    found = background(turned)["background"]
    assert found.dims == ("x", "y")
    np.testing.assert_array_equal(found.values.T, background(frame)["background"].values)
    xr.testing.assert_equal(found["y"], frame["y"])
    assert clean(turned).dims == variance(turned).dims == ("x", "y")


@pytest.mark.parametrize("option", [{"box_size": 0}, {"box_size": (64, -1)}, {"filter_size": 0}])
def test_sizes_are_positive(frame: xr.Dataset, option: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=f"{next(iter(option))} must be at least 1 pixel; got"):
        background(frame, **option)


# clean


def test_clean_is_nan_exactly_where_bad(frame: xr.Dataset) -> None:
    found = clean(frame)
    bad = mask(frame).values
    np.testing.assert_array_equal(np.isnan(found.values), bad)
    expected = frame["sci"].values - background(frame)["background"].values
    np.testing.assert_array_equal(found.values[~bad], expected[~bad])
    assert abs(float(found.median())) < 0.5
    assert (found.name, found.attrs["units"], found.dtype) == ("sci", "DN", np.float32)
    assert "background subtracted" in found.attrs["long_name"]
    assert frame["sci"].attrs["long_name"] == "science image"


def test_clean_choices(frame: xr.Dataset) -> None:
    np.testing.assert_array_equal(clean(frame, background=False, mask=False).values, frame["sci"].values)
    level = xr.full_like(frame["sci"], 100)
    np.testing.assert_array_equal(clean(frame, background=level, mask=False).values, frame["sci"].values - 100)
    fine = frame["sci"] - background(frame, mask=False, box_size=32)["background"]
    np.testing.assert_array_equal(clean(frame, mask=False, background=SkyOptions(box_size=32)).values, fine.values)


def test_clean_takes_a_level_of_its_own(frame: xr.Dataset) -> None:
    """A number, a map, or what `background` gives; the mask stays."""
    bad = mask(frame).values
    maps = background(frame, box_size=32)
    for level, values in ((200.0, 200.0), (maps, maps["background"].values), (maps["background"], maps["background"])):
        found = clean(frame, background=level)
        np.testing.assert_array_equal(np.isnan(found.values), bad)
        np.testing.assert_array_equal(found.values[~bad], (frame["sci"].values - np.asarray(values, "f4"))[~bad])
    np.testing.assert_array_equal(
        clean(frame, background=SkyOptions(box_size=32)).values, clean(frame, background=maps).values
    )


@pytest.mark.parametrize("background", [None, False, 3.0])
def test_clean_is_nan_where_the_image_is_not_finite(frame: xr.Dataset, background: Any) -> None:
    frame["sci"][3, 4:6] = [np.inf, np.nan]
    found = clean(frame, mask=False, background=background)
    assert int(found.isnull().sum()) == 2


def test_clean_of_a_cut_out_takes_the_map_of_the_frame(frame: xr.Dataset) -> None:
    maps = background(frame)
    cut = frame.isel(y=slice(20, 50), x=slice(3, 40))
    xr.testing.assert_identical(
        clean(cut, background=maps), clean(frame, background=maps).isel(y=slice(20, 50), x=slice(3, 40))
    )


def test_clean_with_a_mask_per_epoch_of_one_image(frame: xr.Dataset, stack: xr.Dataset) -> None:
    masks = mask(stack).reset_coords(drop=True)
    for given in ({"background": 3.0}, {}):
        found = clean(frame["sci"], mask=masks, **given)
        assert found.dims == ("time", "y", "x")
        for i in range(3):
            np.testing.assert_array_equal(found[i].values, clean(frame["sci"], mask=masks[i], **given).values)


def test_elementwise_work_needs_no_whole_images(frame: xr.Dataset) -> None:
    """Where the background is given, chunks along y and x do."""
    maps = background(frame)
    pieces = frame.chunk(y=50)
    xr.testing.assert_identical(clean(pieces, background=maps).compute(), clean(frame, background=maps))
    xr.testing.assert_identical(variance(pieces, background=maps).compute(), variance(frame, background=maps))


# methods


@pytest.mark.parametrize("method", ["sep", "median", "none"])
def test_methods_agree_with_each_other(stack: xr.Dataset, method: Any) -> None:
    """`clean` subtracts what `background` says, in memory and lazily, one epoch at a time."""
    level = background(stack, method=method)["background"]
    found = clean(stack, background=SkyOptions(method))
    xr.testing.assert_identical(found, clean(stack, background=level))
    for size in (1, 2):
        lazy = clean(stack.chunk(time=size), background=SkyOptions(method))
        xr.testing.assert_identical(lazy.compute(scheduler="synchronous"), found)


def test_median_and_none_by_hand(frame: xr.Dataset) -> None:
    good = frame["sci"].values[~mask(frame).values]
    median, none = (background(frame, method=m) for m in ("median", "none"))
    assert (median["background"] == np.median(good)).all()
    assert not none["background"].any()
    for maps in (median, none):
        np.testing.assert_allclose(maps["background_rms"], mad_std(good), rtol=1e-6)
        assert {v.dtype for v in maps.data_vars.values()} == {np.dtype(np.float32)}


@pytest.mark.parametrize("function", [background, lambda frame, method: clean(frame, background=SkyOptions(method))])
def test_unknown_method(frame: xr.Dataset, function: Any) -> None:
    with pytest.raises(InputError, match="the sky is measured by method 'sep', 'median', 'none'; got 'mean'"):
        function(frame, method="mean")


def test_given_mask_equals_the_flags_it_comes_from(stack: xr.Dataset) -> None:
    """Flags are decoded inside the task; a mask made of them gives the same."""
    bad = mask(stack)
    for function in (background, clean, variance, noise):
        xr.testing.assert_identical(function(stack, mask=bad), function(stack))


@pytest.mark.parametrize("dtype", ["int16", "uint8", "int64"])
def test_flags_of_other_dtypes(frame: xr.Dataset, dtype: str) -> None:
    frame["flags"] = frame["flags"].astype(dtype)
    np.testing.assert_array_equal(np.isnan(clean(frame).values), mask(frame).values)


def test_flags_must_be_integers(frame: xr.Dataset) -> None:
    frame["flags"] = frame["flags"].astype(float)
    for function in (background, clean, variance, noise):
        with pytest.raises(InputError, match="mask planes are integers; flags is float64"):
            function(frame)


def test_results_share_no_memory(frame: xr.Dataset) -> None:
    maps = background(frame)
    found = [maps["background"], maps["background_rms"], clean(frame), clean(frame, background=False, mask=False)]
    for i, one in enumerate(found):
        assert not np.shares_memory(one.values, frame["sci"].values)
        assert not any(np.shares_memory(one.values, other.values) for other in found[:i])


@pytest.mark.parametrize("scheduler", ["synchronous", "threads", pytest.param("processes", marks=pytest.mark.slow)])
def test_schedulers_agree(stack: xr.Dataset, scheduler: str) -> None:
    lazy = xr.merge([background(stack.chunk(time=1)), clean(stack.chunk(time=1)), noise(stack.chunk(time=1))])
    expected = xr.merge([background(stack), clean(stack), noise(stack)])
    with dask.config.set(scheduler=scheduler, num_workers=2):
        xr.testing.assert_identical(lazy.compute(), expected)


@pytest.mark.slow
def test_distributed_agrees(stack: xr.Dataset) -> None:
    """On two worker processes: a mesh of sep's cannot travel, its maps can."""
    lazy = xr.merge([background(stack.chunk(time=1)), variance(stack.chunk(time=1))])
    expected = xr.merge([background(stack), variance(stack)])
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0") as cluster, Client(cluster):
        xr.testing.assert_identical(lazy.compute(), expected)


def test_few_tasks_an_epoch(stack: xr.Dataset) -> None:
    """Decoding, measuring and subtracting is one task beside those that bring the pixels."""
    found = clean(stack.chunk(time=1))
    (optimized,) = dask.optimize(found.data)
    assert len(optimized.dask) <= 4 * found.sizes["time"]


# noise


def test_noise_by_hand(frame: xr.Dataset) -> None:
    sources = (frame["flags"].values & (1 << 1 | 1 << 11)) != 0
    left = clean(frame).values[~(sources | mask(frame).values)]
    for statistic, expected in (("mad", mad_std(left)), ("std", np.std(left, dtype=float))):
        found = noise(frame, statistic=statistic)  # type: ignore[arg-type]
        assert float(found) == pytest.approx(expected, rel=1e-6)
        assert (found.name, found.dtype, found.dims, found.attrs["units"]) == ("sky_noise", np.float64, (), "DN")
    expected = by_sep(frame["sci"].values, mask(frame).values).globalrms
    assert float(noise(frame, statistic="rms")) == expected
    assert float(noise(frame)) == pytest.approx(9.0, rel=0.05)


def test_noise_without_sources(frame: xr.Dataset) -> None:
    """A catalog, a boolean image, or nothing left out."""
    bright = frame.assign(sci=frame["sci"].copy())
    bright["sci"][60:66, 60:66] += 5000
    names = ("x_centroid", "y_centroid", "semimajor_axis", "semiminor_axis", "orientation")
    catalog = xr.Dataset({n: ("source", [v]) for n, v in zip(names, (62.5, 69.5, 2.0, 2.0, 0.0), strict=True)})
    hidden = source_mask(bright, catalog)
    for given in (catalog, hidden):
        found = float(noise(bright, statistic="std", sources=given, mask=False))
        left = clean(bright, mask=False).values[~hidden.values]
        assert found == pytest.approx(np.std(left, dtype=float), rel=1e-6)
    assert float(noise(bright, statistic="std", sources=False)) > 2 * found
    with pytest.raises(InputError, match="a mask is boolean, True where bad; this one is int64"):
        noise(bright, sources=hidden.astype(int))


def test_noise_of_an_image_alone(frame: xr.Dataset) -> None:
    for statistic in ("mad", "std"):
        with pytest.raises(InputError, match="nothing says where the sources are: give sources= as a catalog or"):
            noise(frame["sci"], statistic=statistic)  # type: ignore[arg-type]
        assert float(noise(frame["sci"], statistic=statistic, sources=False)) > 0  # type: ignore[arg-type]
    assert float(noise(frame["sci"], statistic="rms")) == by_sep(frame["sci"].values, np.zeros(SHAPE, bool)).globalrms
    with pytest.raises(InputError, match="statistic is one of 'mad', 'std', 'rms'; got 'var'"):
        noise(frame, statistic="var")  # type: ignore[arg-type]


@pytest.mark.parametrize("statistic", ["mad", "std", "rms"])
@pytest.mark.parametrize("method", ["sep", "median"])
def test_noise_of_a_stack(stack: xr.Dataset, statistic: Any, method: Any) -> None:
    options = {"statistic": statistic, "background": SkyOptions(method)}
    found = noise(stack, **options)
    assert found.dims == ("time",)
    for i in range(3):
        assert float(found[i]) == float(noise(stack.isel(time=i), **options))
    xr.testing.assert_identical(noise(stack.chunk(time=1), **options).compute(scheduler="synchronous"), found)


def test_noise_is_lazy(stack: xr.Dataset, raising_scheduler: Any) -> None:
    found = noise(stack.chunk(time=1))
    assert found.chunks == ((1, 1, 1),)
    with pytest.raises(AssertionError, match="stayed lazy"):
        found.compute()


# the real quadrant


def test_real_quadrant_equals_astropy_and_sep(plain_quadrant_path: Path) -> None:
    """Background, rms, clean image and global rms bit for bit, with dask and without."""
    with fits.open(plain_quadrant_path) as hdus:
        image = hdus[0].data.astype(np.float32)
    with fits.open(str(plain_quadrant_path).replace("sciimg", "mskimg")) as hdus:
        bad = (hdus[0].data & 6141) != 0
    found = sep.Background(image, mask=bad)
    cleaned = image - found.back()
    cleaned[bad] = np.nan
    for chunks in (None, False):
        frame = open_quadrant(plain_quadrant_path, chunks=chunks)
        np.testing.assert_array_equal(clean(frame).values, cleaned)
        assert float(noise(frame, statistic="rms")) == found.globalrms
    maps = background(frame).compute()
    np.testing.assert_array_equal(maps["background"].values, found.back())
    np.testing.assert_array_equal(maps["background_rms"].values, found.rms())


def test_real_noise_is_that_of_its_photons(plain_quadrant_path: Path) -> None:
    """It is no less than that of the sky's photons and of the read noise, and not much more."""
    frame = open_quadrant(plain_quadrant_path, chunks=False)
    level = float(background(frame, method="median")["background"][0, 0])
    photons = np.sqrt(level / 6.0 + (9.0 / 6.0) ** 2)
    for statistic in ("mad", "rms"):
        assert photons < float(noise(frame, statistic=statistic)) < 1.15 * photons  # type: ignore[arg-type]


# variance


def test_variance_by_hand(frame: xr.Dataset) -> None:
    """On a flat sky; on one that is steep in a box, what counts is how neighbors scatter."""
    steep, (y, x) = frame, np.indices(SHAPE)
    frame = frame.assign(sci=frame["sci"] - (0.3 * y - 0.1 * x).astype(np.float32))
    assert float((variance(steep) / variance(frame)).median()) == pytest.approx(1.0, abs=0.05)
    assert float((background(steep)["background_rms"] / background(frame)["background_rms"]).median()) > 1.08
    maps = background(frame)
    image, level, rms = (a.values.astype(float) for a in (frame["sci"], maps["background"], maps["background_rms"]))
    expected = rms**2 + np.maximum(image - level, 0) / 6.2
    found = variance(frame)
    np.testing.assert_allclose(found.values, expected, rtol=1e-5)
    assert (found.name, found.attrs["units"], found.dtype) == ("variance", "DN2", np.float32)
    np.testing.assert_array_equal(variance(frame, background=maps).values, found.values)
    np.testing.assert_allclose(variance(frame, gain=2.0), rms**2 + np.maximum(image - level, 0) / 2, rtol=1e-5)


def test_photon_variance_by_hand(frame: xr.Dataset) -> None:
    image = frame["sci"].values.astype(float)
    expected = np.maximum(image, np.median(image)) / 6.2 + (10 / 6.2) ** 2
    np.testing.assert_allclose(variance(frame, method="photon").values, expected, rtol=1e-6)
    given = variance(frame["sci"].drop_vars(("gain", "readnoise")), method="photon", gain=2.0, readnoise=0.0)
    np.testing.assert_allclose(given.values, np.maximum(image, np.median(image)) / 2, rtol=1e-6)


def test_variance_is_nan_where_the_image_is(frame: xr.Dataset) -> None:
    frame["sci"][3, 4] = np.nan
    for found in (variance(frame), photon(frame)):
        assert int(found.isnull().sum()) == 1
        assert np.isnan(found.values[3, 4])


@pytest.mark.parametrize("lost", ["gain", "readnoise"])
def test_detector_constants_must_be_known(frame: xr.Dataset, lost: str) -> None:
    """Absent, or NaN as a header without the card gives it."""
    for without in (frame.drop_vars(lost), frame.assign_coords({lost: np.nan})):
        with pytest.raises(InputError, match=rf"no {lost} is known: give {lost}= in electron"):
            variance(without, method="photon")
    if lost == "gain":
        with pytest.raises(InputError, match=r"give gain= in electron/DN, or a coordinate 'gain'"):
            variance(frame.drop_vars("gain"))


def test_one_epoch_without_gain_is_nan(stack: xr.Dataset) -> None:
    known = stack.assign_coords(gain=("time", [6.2, np.nan, 6.2]))
    np.testing.assert_array_equal(variance(known).isnull().all(("y", "x")).values, [False, True, False])


# inputs


def test_gather_names_what_there_is(frame: xr.Dataset) -> None:
    with pytest.raises(InputError, match="no variable 'difference'; it has sci, flags"):
        gather(frame, name="difference")
    with pytest.raises(InputError, match="no variable 'sci'; it has none"):
        background(xr.Dataset())
    assert gather(frame).image.identical(frame["sci"])
    assert not gather(frame["sci"]).bad.any()


@pytest.mark.parametrize("size", [41, 63])
def test_a_stamp_that_is_mostly_padding_has_its_sky(size: int) -> None:
    """No box of the mesh is half good there: the level is the median's, and so are cleaned pixels and fluxes."""
    shape = (200, 200)
    y, x = np.indices(shape)
    star = 5000 * np.exp(-((y - 4) ** 2 + (x - 4) ** 2) / (2 * 1.2**2)) / (2 * np.pi * 1.2**2)
    image = xr.DataArray((200 + star + np.random.default_rng(3).normal(0, 1, shape)).astype("f4"), dims=("y", "x"))
    stamp = ztfxr.stamp(image.assign_coords(gain=5.0), x=4, y=4, size=size)
    assert stamp.isnull().mean() > 0.5
    sky = background(stamp)
    np.testing.assert_allclose(sky["background"], 200, atol=0.3)
    np.testing.assert_allclose(sky["background_rms"], 1, rtol=0.3)
    assert float(clean(stamp).median()) == pytest.approx(0, abs=0.2)
    found = ztfxr.sources(stamp)
    assert found.sizes["source"] == 1
    assert float(found["kron_flux"][0]) == pytest.approx(5000, rel=0.05)
