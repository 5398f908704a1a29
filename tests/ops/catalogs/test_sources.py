"""Catalogs of the sources of labeled images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
import sep
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import ztfxr
from tests.conftest import WriteFrame, make_sky
from ztfxr.arrays.photometry.extraction import COLUMNS, Detection
from ztfxr.errors import AlignmentError, ChunkError, InputError
from ztfxr.ops.background import SkyOptions
from ztfxr.ops.catalogs.sources import source_flags, sources
from ztfxr.ops.masks import source_mask
from ztfxr.schema import EXTRACTION_PLANES, SOURCE_PLANES, SPECS, planes_to_bits

SHAPE = (160, 140)
CUT = {"y": slice(1000, 1600), "x": slice(700, 1300)}
POSITIONS = ("x_centroid", "y_centroid", "x_centroid_win", "y_centroid_win")


def star_field(seed: int, n: int = 30, shape: tuple[int, int] = SHAPE) -> NDArray[np.float32]:
    """A sky with stars; the stars are the same for every seed, the noise is not."""
    y, x = np.indices(shape)
    rng = np.random.default_rng(11)
    image = make_sky(shape, seed).astype(float)
    for _ in range(n):
        px, py, flux = rng.uniform(0, shape[1]), rng.uniform(0, shape[0]), 10 ** rng.uniform(3, 5)
        image += flux / (2 * np.pi * 1.4) * np.exp(-0.5 * ((x - px) ** 2 + (y - py) ** 2) / 1.4)
    return image.astype(np.float32)


@pytest.fixture
def frame(tmp_path: Path, write_frame: WriteFrame) -> xr.Dataset:
    """A frame with stars, a WCS, a zero point and a few bad pixels."""
    flags = np.zeros(SHAPE, np.int16)
    flags[60:63, 20:90] = 1
    flags[100:110] = 1 << 1
    return ztfxr.open_quadrant(write_frame(sci=star_field(0), flags=flags)).load()


@pytest.fixture
def stack(frame: xr.Dataset) -> xr.Dataset:
    """Three epochs: the second has nothing but noise, and each its own zero point."""
    epochs = []
    for i, n in enumerate((30, 0, 30)):
        one = frame.assign(sci=frame["sci"].copy(data=star_field(i, n)))
        epochs.append(one.assign_coords(magzp=26.0 + i, mjd=59000.0 + i, time=one["time"] + np.timedelta64(i, "D")))
    return xr.concat(epochs, "time", data_vars="all", coords="different", compat="equals")


@pytest.fixture(scope="module")
def quadrant(quadrant_path: Path) -> xr.Dataset:
    """A part of the real quadrant, with coordinates of the whole."""
    return ztfxr.open_quadrant(quadrant_path).isel(CUT).load()


def by_hand(
    frame: xr.Dataset, **options: Any
) -> tuple[Any, NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_]]:
    """What sep gives for the frame, brightest first; and the image, the rms and the mask that it was given."""
    bad = (frame["flags"].values & 6141) != 0
    pixels = np.ascontiguousarray(np.where(bad, 0, frame["sci"].values), np.float32)
    sky = sep.Background(pixels, mask=bad)
    clean = pixels - sky.back()
    found = sep.extract(clean, 5.0, err=sky.rms(), mask=bad, **{"clean": False, **options})
    return found[np.argsort(-found["flux"], kind="stable")], clean, sky.rms(), bad


def assert_same(found: xr.Dataset, expected: xr.Dataset) -> None:
    assert set(found.variables) == set(expected.variables)
    for name in expected.variables:
        np.testing.assert_array_equal(found[name].values, expected[name].values, err_msg=str(name))


# ---- against sep on real data ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("clean", [None, 1.0])
def test_equals_sep_by_hand(quadrant: xr.Dataset, clean: float | None) -> None:
    expected, *_ = by_hand(quadrant, clean=clean is not None)
    found = sources(quadrant, detection=Detection(clean=clean))
    assert found.sizes["source"] == len(expected) > 300
    for name, column, origin in (("x_centroid", "x", 700.0), ("y_centroid", "y", 1000.0)):
        np.testing.assert_array_equal(found[name], expected[column] + origin)
    for name, column in (("flux", "flux"), ("peak", "peak"), ("segment_area", "npix"), ("semimajor_axis", "a")):
        np.testing.assert_array_equal(found[name], expected[column])
    np.testing.assert_array_equal(found["orientation"], np.rad2deg(expected["theta"]))


def test_kron_flux_equals_sep_by_hand(quadrant: xr.Dataset) -> None:
    o, image, rms, bad = by_hand(quadrant)
    where = o["x"], o["y"], o["a"], o["b"], np.clip(o["theta"], -np.pi / 2, np.pi / 2)
    kron, _ = sep.kron_radius(image, *where, 6.0, mask=bad)
    options = {"err": rms, "mask": bad, "gain": float(quadrant["gain"]), "subpix": 0}
    flux, error, _ = sep.sum_ellipse(image, *where, 2.5 * np.maximum(kron, 1.4), **options)
    found = sources(quadrant)
    np.testing.assert_array_equal(found["kron_flux"], flux)
    np.testing.assert_array_equal(found["kron_flux_err"], error)
    np.testing.assert_array_equal(found["snr"], flux / error)
    np.testing.assert_allclose(found["mag"], float(quadrant["magzp"]) - 2.5 * np.log10(flux), rtol=1e-12)
    np.testing.assert_allclose(found["mag_err"], 2.5 / np.log(10) * error / flux, rtol=1e-12)


@pytest.mark.slow
def test_the_whole_quadrant_equals_sep_by_hand(quadrant_path: Path) -> None:
    frame = ztfxr.open_quadrant(quadrant_path).load()
    expected, *_ = by_hand(frame)
    found = sources(frame)
    assert found.sizes["source"] == len(expected) == int(found["n_sources"])
    for name, column in (("x_centroid", "x"), ("y_centroid", "y"), ("flux", "flux"), ("semiminor_axis", "b")):
        np.testing.assert_array_equal(found[name], expected[column])
    assert found["extraction_status"] == 0
    assert np.isfinite(found["ra"]).all()


@pytest.mark.slow
def test_what_is_found_is_real(quadrant: xr.Dataset) -> None:
    """The negative image has next to no sources; sep's cleaning takes real ones away."""
    image = ztfxr.clean(quadrant)
    found, mirrored = (sources(i, background=False).sizes["source"] for i in (image, -image))
    assert mirrored < 0.02 * found


def test_stars_have_their_catalog_magnitudes_in_the_right_band(quadrant: xr.Dataset) -> None:
    """ZTF is complete to about 20.5 in 30 s, saturates at about 12.5, and is calibrated."""
    found = sources(quadrant)
    mag = found["mag"].where(found["sep_flags"] == 0, drop=True)
    assert 11.5 < float(mag.min()) < 15
    assert 19.5 < float(mag.quantile(0.95)) < 21.5


# ---- positions ------------------------------------------------------------------------------------------------------


def test_sky_is_that_of_the_pixels(quadrant: xr.Dataset) -> None:
    found = sources(quadrant)
    sky = ztfxr.pixel_to_sky(quadrant, found["x_centroid"], found["y_centroid"])
    np.testing.assert_array_equal(found["ra"], sky.ra.deg)
    np.testing.assert_array_equal(found["dec"], sky.dec.deg)
    assert (found["ra"].attrs["units"], found["ra"].dims) == ("deg", ("source",))


@settings(max_examples=12)
@given(x=st.integers(0, 300), y=st.integers(0, 300), size=st.integers(150, 300))
def test_a_stamp_has_the_sources_of_its_frame(quadrant: xr.Dataset, x: int, y: int, size: int) -> None:
    """To the last digit, but for those that the edge cuts; pixels between blends are given away at random by sep."""
    window = {"y": slice(y, y + size), "x": slice(x, x + size)}
    sky = ztfxr.background(quadrant)
    frame, cut = sources(quadrant, background=sky), sources(quadrant.isel(window), background=sky.isel(window))
    margin, low = 40, np.array([700 + x, 1000 + y])

    def inside(catalog: xr.Dataset) -> xr.Dataset:
        place = np.stack([catalog["x_centroid"], catalog["y_centroid"]], axis=-1) - low
        deep = ((place > margin) & (place < size - margin)).all(-1)
        alone = ~source_flags(catalog)["deblended"].values
        return catalog.isel(source=deep & alone & (catalog["semimajor_axis"].values < 3))

    whole, part = inside(frame), inside(cut)
    assert part.sizes == whole.sizes
    for name in (*COLUMNS, "ra", "dec"):
        if name not in ("x_centroid_win", "y_centroid_win", "half_light_radius"):
            np.testing.assert_allclose(part[name], whole[name], rtol=1e-6, atol=1e-7, err_msg=name)
    same = np.isclose(part["half_light_radius"], whole["half_light_radius"], rtol=1e-6)
    assert same.mean() > 0.9
    for name in ("x_centroid_win", "y_centroid_win"):
        np.testing.assert_allclose(part[name][same], whole[name][same], rtol=1e-7, err_msg=name)


def test_sources_of_an_unlabeled_array_count_from_zero(frame: xr.Dataset) -> None:
    bare = xr.DataArray(frame["sci"].values, dims=("y", "x"))
    found = sources(bare)
    assert "ra" not in found.variables
    assert "mag" not in found
    moved = sources(bare.assign_coords(x=np.arange(SHAPE[1]) + 500, y=np.arange(SHAPE[0]) + 900))
    np.testing.assert_array_equal(moved["x_centroid"], found["x_centroid"] + 500)
    np.testing.assert_array_equal(moved["y_centroid_win"], found["y_centroid_win"] + 900)


def test_dimensions_in_any_order(frame: xr.Dataset) -> None:
    assert_same(sources(frame.transpose("x", "y")), sources(frame))
    assert_same(sources(frame.transpose("x", "y"), max_sources=9), sources(frame, max_sources=9))


# ---- what goes in ---------------------------------------------------------------------------------------------------


def test_the_catalog_describes_itself(frame: xr.Dataset) -> None:
    found = sources(frame)
    assert set(found.data_vars) == {
        *COLUMNS,
        "mag",
        "mag_err",
        "sep_flags",
        "n_sources",
        "extraction_status",
        "threshold_factor",
    }
    for name, variable in found.data_vars.items():
        assert variable.dtype == SPECS[str(name)].dtype
        assert variable.attrs["long_name"] == SPECS[str(name)].meaning
        assert variable.dims == (() if name in ("n_sources", "extraction_status", "threshold_factor") else ("source",))
    assert found["sep_flags"].attrs["flag_masks"] == [p.value for p in SOURCE_PLANES]
    assert found["extraction_status"].attrs["flag_meanings"].split() == [p.name for p in EXTRACTION_PLANES]
    assert found.attrs == {"threshold": 5.0, "threshold_unit": "sigma"}
    assert {"ra", "dec", "time", "mjd", "filter", "magzp"} <= set(found.coords)
    assert not {"x", "y"} & set(found.variables)
    assert sources(frame, threshold=50.0).attrs == {"threshold": 50.0, "threshold_unit": "the image"}


def test_bad_pixels_hold_no_source(frame: xr.Dataset) -> None:
    """Those of the recommended planes; a plane that marks sources is not among them."""
    bright = frame["sci"].values.copy()
    bright[61, 30:80] = 5e4
    bright[104:107, 50:53] += 2000
    found = sources(frame.assign(sci=(("y", "x"), bright)))
    assert not ((found["y_centroid"].round() == 61) & (found["x_centroid"] > 30) & (found["x_centroid"] < 80)).any()
    assert ((found["y_centroid"].round() == 105) & (found["x_centroid"].round() == 51)).any()
    everything = sources(frame.assign(sci=(("y", "x"), bright)), mask=False)
    assert float(everything["peak"].max()) > 4.9e4
    own = xr.zeros_like(frame["sci"], dtype=bool)
    own[100:110] = True
    assert not (abs(sources(frame, mask=own)["y_centroid"] - 104.5) < 4).any()


def test_the_sky_may_be_given(frame: xr.Dataset) -> None:
    expected, sky, bad = sources(frame), ztfxr.background(frame), ztfxr.mask(frame)
    assert_same(sources(frame, background=sky), expected)
    clean, rms2 = ztfxr.clean(frame), sky["background_rms"] ** 2
    by_gain = [n for n in expected.variables if not str(n).startswith(("flux_err", "kron_flux_err", "snr", "mag_err"))]
    for found in (
        sources(frame, background=sky["background"]),
        sources(frame, background=sky[["background"]]),
        sources(frame, background=sky["background"], variance=rms2),
        sources(clean, background=False, variance=rms2),
        sources(clean, background=0.0, mask=bad, variance=rms2),
    ):
        for name in by_gain:
            np.testing.assert_array_equal(found[name].values, expected[name].values, err_msg=str(name))


def test_a_clean_image_may_be_measured_again(frame: xr.Dataset) -> None:
    """Its background is measured as zero, nearly."""
    expected, found = sources(frame), sources(ztfxr.clean(frame))
    assert found.sizes == expected.sizes
    np.testing.assert_allclose(found["x_centroid"], expected["x_centroid"], atol=0.05)
    again = sources(ztfxr.clean(frame), background=False)
    np.testing.assert_allclose(again["kron_flux"], expected["kron_flux"], rtol=1e-3, atol=5)


def test_noise_of_ones_own(frame: xr.Dataset) -> None:
    """It sets the threshold and the errors; in a Dataset it is taken without being asked for."""
    twice = 4 * ztfxr.background(frame)["background_rms"] ** 2
    found = sources(frame, variance=twice)
    assert_same(sources(frame.assign(variance=twice)), found)
    np.testing.assert_array_equal(found["flux"], sources(frame, n_sigma=10.0)["flux"])
    np.testing.assert_allclose(found["flux_err"] ** 2 / found["segment_area"], float(twice.mean()), rtol=0.3)


def test_photons_of_the_source_need_a_gain(frame: xr.Dataset) -> None:
    with_gain, without = sources(frame), sources(frame.drop_vars("gain"))
    extra = with_gain["flux_err"] ** 2 - without["flux_err"] ** 2
    np.testing.assert_allclose(extra, with_gain["flux"] / float(frame["gain"]), rtol=1e-6)
    unknown = sources(frame.assign_coords(gain=np.nan))
    np.testing.assert_array_equal(unknown["kron_flux_err"], without["kron_flux_err"])


def test_options_of_the_sky_reach_it(frame: xr.Dataset) -> None:
    for options in ({"box_size": 32}, {"method": "median"}, {"filter_size": 1}):
        sky = ztfxr.background(frame, **options)
        assert_same(sources(frame, background=SkyOptions(**options)), sources(frame, background=sky))


def test_a_difference_image_has_no_sky() -> None:
    image, variance = star_field(0, 5) - np.float32(200), np.full(SHAPE, 81.0, dtype=np.float32)
    bad = np.zeros(SHAPE, dtype=bool)
    bad[:30] = True
    layers = {"difference": image, "difference_variance": variance, "mask": bad}
    diff = xr.Dataset({k: (("y", "x"), v) for k, v in layers.items()}, {"magzp": 26.0})
    found = sources(diff)
    expected = sources(
        xr.DataArray(image, dims=("y", "x")), mask=diff["mask"], variance=diff["difference_variance"], background=0
    )
    np.testing.assert_array_equal(found["kron_flux"], expected["kron_flux"])
    assert "mag" in found
    assert (found["y_centroid"] > 29).all()


# ---- stacks ---------------------------------------------------------------------------------------------------------


def test_a_stack_is_its_images(stack: xr.Dataset) -> None:
    together = sources(stack, max_sources=40)
    counts = []
    for i in range(3):
        one = sources(stack.isel(time=i))
        n = one.sizes["source"]
        counts.append(n)
        assert int(together["n_sources"][i]) == n
        for name in (*COLUMNS, "ra", "dec", "mag", "mag_err", "sep_flags"):
            assert together[name].dims == ("time", "source")
            np.testing.assert_array_equal(together[name][i, :n], one[name], err_msg=name)
        assert together["flux"][i, n:].isnull().all()
        assert together["ra"][i, n:].isnull().all()
        assert (together["sep_flags"][i, n:] == planes_to_bits(["empty"], SOURCE_PLANES)).all()
    assert counts[0] > 15
    assert counts[1] == 0
    np.testing.assert_array_equal(together["magzp"], [26.0, 27.0, 28.0])


@pytest.mark.parametrize("number", [1, 7])
def test_the_brightest_are_kept(stack: xr.Dataset, number: int) -> None:
    every, some = sources(stack, max_sources=60), sources(stack, max_sources=number)
    for name in every.variables:
        expected = every[name].isel(source=slice(number)) if "source" in every[name].dims else every[name]
        np.testing.assert_array_equal(some[name].values, expected.values)
    assert int(some["n_sources"][0]) > number


def test_one_image_may_be_lazy_too(frame: xr.Dataset) -> None:
    found, every = sources(frame.chunk(), max_sources=5), sources(frame)
    assert found["flux"].chunks == ((5,),)
    np.testing.assert_array_equal(found["kron_flux"], every["kron_flux"][:5])
    assert_same(sources(frame.chunk()), every)


@pytest.mark.parametrize("time", [1, 2, 3])
@pytest.mark.parametrize("scheduler", ["synchronous", "threads"])
def test_dask_equals_numpy(stack: xr.Dataset, time: int, scheduler: str) -> None:
    lazy = sources(stack.chunk(time=time), max_sources=20, segmentation=True)
    assert all(lazy[name].chunks is not None for name in (*COLUMNS, "ra", "mag", "sep_flags", "n_sources"))
    with dask.config.set(scheduler=scheduler):
        xr.testing.assert_identical(lazy.compute(), sources(stack, max_sources=20, segmentation=True))


@pytest.mark.slow
def test_processes_and_distributed_equal_numpy(stack: xr.Dataset) -> None:
    from distributed import Client, LocalCluster

    expected, lazy = sources(stack, max_sources=20), sources(stack.chunk(time=1), max_sources=20)
    with dask.config.set(scheduler="processes", num_workers=2):
        xr.testing.assert_identical(lazy.compute(), expected)
    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": "127.0.0.1:0"}
    with LocalCluster(**options) as cluster, Client(cluster):
        xr.testing.assert_identical(lazy.compute(), expected)


def test_nothing_is_computed(stack: xr.Dataset, raising_scheduler: Any) -> None:
    lazy = sources(stack.chunk(time=1), max_sources=20, segmentation=True)
    with pytest.raises(AssertionError, match="stayed lazy"):
        lazy["flux"].compute()
    source_flags(lazy)


def test_an_overflow_is_reported_where_it_was(stack: xr.Dataset) -> None:
    before, expected = sep.get_extract_pixstack(), sources(stack, max_sources=20)
    sep.set_extract_pixstack(100)
    try:
        found = sources(stack.chunk(time=1), max_sources=20).compute(scheduler="threads")
    finally:
        sep.set_extract_pixstack(before)
    assert found["extraction_status"].values.tolist() == [1, 0, 1]
    assert_same(found.drop_vars("extraction_status"), expected.drop_vars("extraction_status"))


# ---- segmentation, flags --------------------------------------------------------------------------------------------


def test_segmentation_names_the_rows(frame: xr.Dataset) -> None:
    found = sources(frame, segmentation=True)
    image = found["segmentation"]
    assert (image.dims, image.dtype) == (("y", "x"), np.int32)
    for name in ("y", "x"):
        np.testing.assert_array_equal(image[name], frame[name])
    area = np.bincount(image.values.ravel(), minlength=found.sizes["source"] + 1)[1:]
    np.testing.assert_array_equal(area, found["segment_area"])
    at = image.sel(x=found["x_centroid"].round(), y=found["y_centroid"].round())
    assert (at == np.arange(found.sizes["source"]) + 1).mean() > 0.9
    assert "segmentation" not in sources(frame)


def test_flags_by_name(stack: xr.Dataset) -> None:
    for catalog in (sources(stack, max_sources=20), sources(stack.chunk(time=1), max_sources=20)):
        found = source_flags(catalog)
        assert list(found.data_vars) == [p.name for p in SOURCE_PLANES]
        for plane in SOURCE_PLANES:
            np.testing.assert_array_equal(found[plane.name], (catalog["sep_flags"] & plane.value) != 0)
            assert found[plane.name].attrs["long_name"] == plane.meaning
        np.testing.assert_array_equal(found["empty"], catalog["flux"].isnull())
        xr.testing.assert_identical(catalog["sep_flags"].ztf.source_flags(), found)


# ---- nothing to find ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", ["all masked", "all nan", "flat", "noise"])
def test_an_image_without_sources_gives_an_empty_catalog(frame: xr.Dataset, case: str) -> None:
    """Without a warning: warnings are errors here."""
    if case == "all masked":
        frame["flags"] = xr.full_like(frame["flags"], 1)
    else:
        values = {"all nan": np.nan, "flat": 200.0, "noise": make_sky(SHAPE)}[case]
        frame["sci"] = frame["sci"].copy(data=np.broadcast_to(np.float32(values), SHAPE).copy())
    found, padded = sources(frame, segmentation=True), sources(frame, max_sources=3)
    assert found.sizes["source"] == int(found["n_sources"]) == 0
    assert not found["segmentation"].any()
    assert found["extraction_status"] == (
        0 if case == "noise" else planes_to_bits(["no_good_pixels"], EXTRACTION_PLANES)
    )
    full = sources(frame.assign(sci=(("y", "x"), star_field(0)), flags=xr.zeros_like(frame["flags"])))
    assert set(full.variables) == set(found.variables) - {"segmentation", "x", "y"} == set(padded.variables)
    for name in full.variables:
        assert found[name].dtype == padded[name].dtype == full[name].dtype
    assert padded["mag"].isnull().all()
    assert padded.sizes["source"] == 3


def test_an_empty_catalog_goes_on(frame: xr.Dataset) -> None:
    """What comes after takes it."""
    nothing = sources(frame, n_sigma=1e6)
    assert not source_mask(frame, nothing).any()
    assert ztfxr.match(nothing, sources(frame), radius=1.0).sizes["match"] == 0
    assert ztfxr.aperture_photometry(frame, nothing, radius=3.0).sizes["source"] == 0


def test_sources_go_on(frame: xr.Dataset) -> None:
    """As positions, as a mask, as one side of a match."""
    found = sources(frame)
    flux = ztfxr.aperture_photometry(ztfxr.clean(frame), found, radius=5.0, variance=ztfxr.variance(frame))
    good = (found["sep_flags"] == 0).values
    ratio = (flux["flux"].values / found["kron_flux"].values)[good]
    assert abs(np.median(ratio) - 1) < 0.05
    assert source_mask(frame, found).mean() < 0.3
    pairs = ztfxr.match(found, found, radius=0.1)
    np.testing.assert_array_equal(pairs["left_index"], np.arange(found.sizes["source"]))


# ---- bad input ------------------------------------------------------------------------------------------------------


def test_a_stack_needs_a_number(stack: xr.Dataset) -> None:
    with pytest.raises(InputError, match="a stack over time have different numbers of sources: give max_sources="):
        sources(stack)


@pytest.mark.parametrize("number", [None, 4])
def test_chunked_images_are_refused(frame: xr.Dataset, number: int | None) -> None:
    with pytest.raises(ChunkError, match=r"use \.chunk\(y=-1\)"):
        sources(frame.chunk(y=50), max_sources=number)
    with pytest.raises(ChunkError, match=r"use \.chunk\(y=-1\)"):
        sources(frame.chunk(y=50), max_sources=number, background=False, variance=frame["sci"], mask=False)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_sigma": 0.0}, "a threshold is positive; got 0.0"),
        ({"threshold": -3.0}, "a threshold is positive; got -3.0"),
        ({"threshold": np.nan}, "a threshold is positive"),
        ({"max_sources": 0}, "max_sources is at least 1; got 0"),
    ],
)
def test_options_are_checked(frame: xr.Dataset, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        sources(frame, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_pixels": 0}, "n_pixels and n_levels are at least 1; got 0 and 32"),
        ({"contrast": 1.5}, "contrast is a fraction from 0 to 1; got 1.5"),
        ({"clean": 0.0}, "clean is positive, or None"),
        ({"kron_params": (2.5, 1.4)}, "kron_params are three numbers"),
        ({"kernel": "gauss"}, r"kernel is None or a 2-D array .*; got shape \(\)"),
        ({"kernel": [1.0, 2.0]}, r"kernel is None or a 2-D array .*; got shape \(2,\)"),
        ({"kernel": np.zeros((3, 3))}, "not all 0"),
    ],
)
def test_options_of_the_detection_check_themselves(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Detection(**options)


def test_options_of_the_sky_check_themselves() -> None:
    with pytest.raises(InputError, match="the sky is measured by method 'sep', 'median', 'none'; got 'mode'"):
        SkyOptions("mode")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="box_size must be at least 1 pixel; got 0"):
        SkyOptions(box_size=0)


@pytest.mark.parametrize("name", ["mask", "background", "variance"])
def test_what_is_given_covers_the_image(frame: xr.Dataset, name: str) -> None:
    given = xr.zeros_like(frame["sci"], dtype=bool if name == "mask" else np.float32)
    for wrong, message in (
        (given.isel(y=slice(100)), "different shapes|other labels"),
        (ztfxr.drop_wcs(given).assign_coords(y=given["y"] + 1), "start at different y: 0 and 1|other labels"),
    ):
        for number in (None, 4):
            with pytest.raises(AlignmentError, match=message):
                sources(frame, max_sources=number, **{name: wrong})
    if name == "variance":
        with pytest.raises(InputError, match="variance is a DataArray on y and x; got float"):
            sources(frame, variance=3.0)  # type: ignore[arg-type]


def test_flags_must_be_there(frame: xr.Dataset) -> None:
    for wrong in (frame, frame["sci"]):
        with pytest.raises(InputError, match="the planes are those of the integers 'sep_flags'"):
            source_flags(wrong)
