"""The sky of one image: against sep, numpy and astropy."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
import sep
from astropy.stats import mad_std as astropy_mad_std
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.conftest import make_flags, make_sky
from ztfxr.arrays.images.sky import SkyOptions, deferred_maps, sky_maps, sky_scatter, without_sky

SHAPE = (150, 130)
IMAGE = make_sky(SHAPE) + np.arange(SHAPE[1], dtype=np.float32)
FLAGS = make_flags(SHAPE).astype(np.uint16)
PLANES = 6141
BAD = (FLAGS & PLANES) != 0
NONE = np.zeros(SHAPE, bool)
MESH = SkyOptions(box_size=(40, 50), filter_size=(3, 1))


def mesh(image: NDArray[Any], bad: NDArray[np.bool_]) -> Any:
    return sep.Background(image, mask=bad, bh=40, bw=50, fh=3, fw=1)


def test_mesh_is_seps_to_the_bit() -> None:
    expected = mesh(IMAGE, BAD)
    level, rms = sky_maps(IMAGE, BAD, options=MESH)
    np.testing.assert_array_equal(level, expected.back())
    np.testing.assert_array_equal(rms, expected.rms())
    np.testing.assert_array_equal(
        without_sky(IMAGE, BAD, options=MESH), np.where(BAD, np.float32(np.nan), IMAGE - expected.back())
    )
    assert sky_scatter(IMAGE, BAD, NONE, statistic="rms", options=MESH) == expected.globalrms


@pytest.mark.parametrize("method", ["sep", "median", "none"])
@pytest.mark.parametrize("dtype", ["uint16", "int16", "int32", "uint8"])
def test_bit_planes_equal_the_mask_they_make(method: str, dtype: str) -> None:
    planes: dict[str, Any] = {"options": SkyOptions(method=method), "planes": PLANES | 1 << 15}
    flags = FLAGS.astype(dtype)
    bad = (flags & (PLANES & np.iinfo(dtype).max)) != 0
    for found, expected in zip(
        (*sky_maps(IMAGE, flags, **planes), without_sky(IMAGE, flags, **planes)),
        (*sky_maps(IMAGE, bad, **planes), without_sky(IMAGE, bad, **planes)),
        strict=True,
    ):
        np.testing.assert_array_equal(found, expected)


def test_median() -> None:
    options = SkyOptions(method="median")
    level, rms = sky_maps(IMAGE, BAD, options=options)
    np.testing.assert_array_equal(level, np.full(SHAPE, np.median(IMAGE[~BAD])))
    np.testing.assert_allclose(rms, astropy_mad_std(IMAGE[~BAD]), rtol=1e-6)
    found = without_sky(IMAGE, BAD, options=options)
    np.testing.assert_array_equal(found[~BAD], (IMAGE - level)[~BAD])
    assert np.isnan(found[BAD]).all()


def test_no_sky() -> None:
    options = SkyOptions(method="none")
    level, rms = sky_maps(IMAGE, BAD, options=options)
    assert not level.any()
    np.testing.assert_allclose(rms, astropy_mad_std(IMAGE[~BAD]), rtol=1e-6)
    np.testing.assert_array_equal(without_sky(IMAGE, BAD, options=options), np.where(BAD, np.float32(np.nan), IMAGE))


@pytest.mark.parametrize("method", ["sep", "median", "none"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_pixels_that_are_not_finite_are_bad(method: str, value: float) -> None:
    holes = np.random.default_rng(0).random(SHAPE) < 0.05
    image = np.where(holes, np.float32(value), IMAGE)
    options = SkyOptions(method=method)
    for found, expected in zip(
        (*sky_maps(image, BAD, options=options), without_sky(image, BAD, options=options)),
        (*sky_maps(IMAGE, BAD | holes, options=options), without_sky(IMAGE, BAD | holes, options=options)),
        strict=True,
    ):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("method", ["sep", "median", "none"])
@pytest.mark.parametrize("how", ["masked", "nan"])
def test_nothing_good_is_nan(method: str, how: str) -> None:
    image, bad = (IMAGE, ~NONE) if how == "masked" else (np.full_like(IMAGE, np.nan), NONE)
    options = SkyOptions(method=method)
    for found in (*sky_maps(image, bad, options=options), without_sky(image, bad, options=options)):
        assert found.dtype == np.float32
        assert np.isnan(found).all()
    for statistic in ("mad", "std", "rms"):
        assert np.isnan(sky_scatter(image, bad, NONE, statistic=statistic, options=options))


@pytest.mark.parametrize("method", ["sep", "median", "none"])
def test_inputs_of_every_kind_are_taken_and_left_alone(method: str) -> None:
    """Other dtypes and orders, byte-swapped, read-only: the results are those of the plain image."""
    options = SkyOptions(method=method)
    whole = np.round(IMAGE)
    expected = without_sky(whole, BAD, options=options)
    fixed = whole.copy()
    fixed.flags.writeable = False
    mask = np.asfortranarray(BAD)
    mask.flags.writeable = False
    for image in (
        fixed,
        whole.astype(np.float64),
        whole.astype(">f4"),
        whole.astype(np.int32),
        np.asfortranarray(whole),
    ):
        before = image.copy()
        np.testing.assert_array_equal(without_sky(image, mask, options=options), expected)
        np.testing.assert_array_equal(
            sky_maps(image, mask, options=options)[0], sky_maps(whole, BAD, options=options)[0]
        )
        np.testing.assert_array_equal(image, before)
    np.testing.assert_array_equal(mask, BAD)


def test_results_are_new_arrays() -> None:
    """`map_images` hands them on without a copy."""
    for method in ("sep", "median", "none"):
        for image in (IMAGE, np.full_like(IMAGE, np.nan)):
            options = SkyOptions(method=method)
            level, rms = sky_maps(image, NONE, options=options)
            assert not np.shares_memory(level, rms)
            for found in (level, rms, without_sky(image, NONE, options=options)):
                assert found.flags.owndata
                assert found.flags.writeable
                assert not np.shares_memory(found, image)


@pytest.mark.parametrize("method", ["sep", "median", "none"])
def test_deferred_maps_travel(method: str) -> None:
    """To another process, which a mesh of sep's cannot; each call gives a new array."""
    options = SkyOptions(method=method)
    for deferred, expected in zip(
        deferred_maps(IMAGE, BAD, options=options), sky_maps(IMAGE, BAD, options=options), strict=True
    ):
        there = pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(deferred))))
        for found in (deferred, there):
            np.testing.assert_array_equal(found(), expected)
            assert not np.shares_memory(found(), found())
            assert found().flags.owndata


@given(st.floats(-50, 50), st.sampled_from(["sep", "median"]))
def test_a_constant_goes_into_the_level(constant: float, method: str) -> None:
    options = SkyOptions(method=method)
    shifted = IMAGE + np.float32(constant)
    np.testing.assert_allclose(
        without_sky(shifted, BAD, options=options), without_sky(IMAGE, BAD, options=options), rtol=0, atol=0.05
    )


def test_scatter_leaves_sources_out() -> None:
    rng = np.random.default_rng(3)
    image = rng.normal(100.0, 4.0, (400, 380)).astype(np.float32)
    sources = np.zeros(image.shape, bool)
    sources[::10, ::10] = True
    bright = image + np.where(sources, np.float32(1e4), 0)
    bad = rng.random(image.shape) < 0.1
    bright[bad] = -1e5
    options = SkyOptions(method="median")
    cleaned = without_sky(image, bad, options=options)
    left = cleaned[~(sources | bad)]
    for statistic, expected in (("std", np.std(left, dtype=float)), ("mad", astropy_mad_std(left))):
        found = sky_scatter(bright, bad, sources, statistic=statistic, options=options)
        assert found == pytest.approx(expected, rel=1e-3)
        assert found == pytest.approx(4.0, rel=0.02)
    assert sky_scatter(bright, bad, np.zeros_like(sources), statistic="std", options=options) > 100
    assert sky_scatter(image, bad, sources, statistic="rms", options=options) == pytest.approx(4.0, rel=0.02)


def test_nothing_outside_the_sources_is_nan() -> None:
    for statistic in ("mad", "std"):
        assert np.isnan(sky_scatter(IMAGE, BAD, ~NONE, statistic=statistic, options=SkyOptions()))


@pytest.mark.parametrize("shape", [(41, 41), (63, 63), (90, 150)])
@pytest.mark.parametrize("box", [(64, 64), (20, 30)])
def test_a_mesh_without_a_usable_box_is_the_median(shape: tuple[int, int], box: tuple[int, int]) -> None:
    """sep says 0 and 1 there; where one box is half good its mesh is used."""
    rng = np.random.default_rng(4)
    image = (200 + 5 * rng.normal(size=shape)).astype(np.float32)
    scattered = rng.random(shape) < 0.85
    options, median = SkyOptions(box_size=box), SkyOptions("median")
    found, expected = (sky_maps(image, scattered, options=o) for o in (options, median))
    np.testing.assert_array_equal(found, expected)
    assert found[0][0, 0] == pytest.approx(200, abs=1)
    np.testing.assert_array_equal(
        without_sky(image, scattered, options=options), without_sky(image, scattered, options=median)
    )
    assert sky_scatter(image, scattered, statistic="rms", options=options) == pytest.approx(5, rel=0.2)
    scattered[: min(box[0], shape[0]), : min(box[1], shape[1])] = False
    mesh = sep.Background(image, mask=scattered, bh=box[0], bw=box[1])
    np.testing.assert_array_equal(sky_maps(image, scattered, options=options)[0], mesh.back())
