"""What is gathered of an image: one policy on noise, masks, gain, units and status, row by row."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import xarray as xr

import ztfxr
from tests.conftest import make_sky
from ztfxr.arrays.geometry.transform import Transform
from ztfxr.errors import InputError
from ztfxr.ops.exposure import find_image, gather
from ztfxr.schema import MASK_PLANES, STATUS_PLANES, flag_attrs, planes_to_bits

SHAPE = (96, 80)
SATURATED, SOURCES = planes_to_bits(["saturated"]), planes_to_bits(["sexsources"])


def plane(value: Any, dtype: Any = np.float32) -> xr.Variable:
    return xr.Variable(("y", "x"), np.full(SHAPE, value, dtype=dtype))


@pytest.fixture
def frame() -> xr.Dataset:
    """One frame with a bright star, whose center is saturated by the flags."""
    y, x = np.indices(SHAPE)
    pixels = make_sky(SHAPE) + 5000 * np.exp(-((y - 40) ** 2 + (x - 30) ** 2) / 6)
    flags = plane(0, np.uint16)
    flags[40, 30] = SATURATED
    flags[10, :] = SOURCES
    coords = {"y": np.arange(SHAPE[0]) + 7, "x": np.arange(SHAPE[1]) + 20, "gain": 2.0, "readnoise": 10.0}
    return xr.Dataset({"sci": (("y", "x"), pixels.astype(np.float32)), "flags": flags}, coords)


# ---- noise: where the variance comes from --------------------------------------------------------------------------


def test_a_given_variance_counts_before_all(frame: xr.Dataset) -> None:
    given = xr.DataArray(plane(3.0))
    found = gather(frame.assign(variance=plane(4.0)), variance=given)
    for variance in (found.own_variance, found.variance, found.variance_or_none, found.variance_or_sky):
        assert variance is given


@pytest.mark.parametrize(
    ("image", "variance"),
    [
        ("sci", "variance"),
        ("difference", "difference_variance"),
        ("reference", "reference_variance"),
    ],
)
def test_the_owner_s_variance_goes_with_its_image(frame: xr.Dataset, image: str, variance: str) -> None:
    every = {n: plane(i + 1.0) for i, n in enumerate(("variance", "difference_variance", "reference_variance"))}
    owner = frame.assign({"difference": plane(0.0), "reference": plane(0.0), **every})
    found = gather(owner, name=image)
    for values in (found.own_variance, found.variance, found.variance_or_none, found.variance_or_sky):
        assert values is not None
        np.testing.assert_array_equal(values.values, every[variance].values)
    assert gather(owner.drop_vars(variance), name=image).own_variance is None


def test_without_a_variance_it_follows_from_sky_and_gain(frame: xr.Dataset) -> None:
    found = gather(frame)
    expected = ztfxr.variance(frame)
    sky = ztfxr.background(frame)
    above = np.maximum(frame["sci"] - sky["background"], 0) / 2.0
    for values in (found.variance, found.variance_or_none, found.variance_or_sky):
        assert values is not None
        xr.testing.assert_equal(values, expected)
        np.testing.assert_allclose(values, sky["background_rms"] ** 2 + above, rtol=1e-5)


@pytest.mark.parametrize("gain", [None, 0.0, -1.0, np.nan, np.inf])
def test_without_a_gain_each_function_does_what_it_says(frame: xr.Dataset, gain: float | None) -> None:
    """0 and -1 are what headers write for unknown."""
    unknown = frame.drop_vars("gain") if gain is None else frame.assign_coords(gain=gain)
    found = gather(unknown)
    assert found.gain is None
    assert found.variance_or_none is None
    rms = ztfxr.background(frame)["background_rms"]
    np.testing.assert_allclose(found.variance_or_sky, rms**2, rtol=1e-6)
    with pytest.raises(InputError, match=r"no gain is known, so neither is the noise: give variance=, put a variable"):
        assert found.variance is None


def test_a_gain_that_some_epochs_lack(frame: xr.Dataset) -> None:
    stack = xr.concat([frame, frame, frame], "time", coords="different", compat="equals")
    found = gather(stack.assign_coords(gain=("time", [2.0, 0.0, np.nan])))
    assert found.gain is not None
    np.testing.assert_array_equal(found.gain.values, [2.0, np.nan, np.nan])
    assert not found.gain.coords
    np.testing.assert_array_equal(found.variance.isnull().all(("y", "x")), [False, True, True])
    sky = found.variance_or_sky
    assert sky.notnull().all()
    assert (sky[0] >= sky[1]).all()
    xr.testing.assert_equal(sky[1].drop_vars("gain"), sky[2].drop_vars("gain"))


@pytest.mark.parametrize(("readnoise", "known"), [(0.0, True), (8.0, True), (-1.0, False), (np.nan, False)])
def test_read_noise(frame: xr.Dataset, readnoise: float, known: bool) -> None:
    found = gather(frame.assign_coords(readnoise=readnoise)).readnoise
    assert (found is not None) == known


# ---- units ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("unit", ["electron", "electrons", "e-"])
def test_an_image_in_electrons_has_a_gain_of_one(frame: xr.Dataset, unit: str) -> None:
    frame["sci"].attrs["units"] = unit
    found = gather(frame)
    assert found.gain is not None
    assert float(found.gain) == 1.0
    sky = ztfxr.background(frame)
    assert sky["background"].attrs["units"] == sky["background_rms"].attrs["units"] == unit
    expected = sky["background_rms"] ** 2 + np.maximum(frame["sci"] - sky["background"], 0)
    np.testing.assert_allclose(found.variance, expected, rtol=1e-5)
    assert found.variance.attrs["units"] == (f"{unit}2" if unit.isalpha() else f"({unit})2")


def test_photon_noise_of_electrons() -> None:
    """A sky of 100 electrons and a read noise of 5: 100 + 25, whatever the header's gain."""
    pixels = xr.DataArray(plane(100.0), coords={"gain": 1.6, "readnoise": 5.0}, attrs={"units": "electron"})
    found = ztfxr.variance(pixels, method="photon")
    np.testing.assert_allclose(found.values, 125.0)
    assert found.attrs["units"] == "electron2"
    in_counts = ztfxr.variance(pixels.assign_attrs(units="DN"), method="photon")
    np.testing.assert_allclose(in_counts.values, 100 / 1.6 + (5 / 1.6) ** 2)
    assert in_counts.attrs["units"] == "DN2"
    stated = ztfxr.variance(pixels.assign_attrs(units="DN"), method="photon", gain=2.0)
    np.testing.assert_allclose(stated.values, 100 / 2.0 + (5 / 2.0) ** 2)


def test_a_gain_in_electrons_per_count_says_nothing_of_other_units(frame: xr.Dataset) -> None:
    frame["sci"].attrs["units"] = "nJy"
    found = gather(frame)
    assert (found.unit, found.gain) == ("nJy", None)
    with pytest.raises(InputError, match="the noise of an image in 'nJy' does not follow from a gain in electron/DN"):
        assert found.variance is None
    assert found.variance_or_sky.attrs["units"] == "nJy2"
    catalog = ztfxr.sources(frame)
    assert catalog["kron_flux"].attrs["units"] == catalog["peak"].attrs["units"] == "nJy"


def test_the_unit_is_counts_where_none_is_stated(frame: xr.Dataset) -> None:
    assert gather(frame).unit == "DN"


# ---- masks ---------------------------------------------------------------------------------------------------------


def test_flags_count_for_the_science_image_before_a_mask(frame: xr.Dataset) -> None:
    found = gather(frame.assign(mask=plane(True, bool)))
    assert np.argwhere(found.bad.values).tolist() == [[40, 30]]
    assert found.bad_or_flags.dtype == np.uint16
    assert found.bad_bits == planes_to_bits([p.name for p in MASK_PLANES if p.name not in ("sexsources", "psfsources")])


def test_a_mask_counts_without_flags(frame: xr.Dataset) -> None:
    found = gather(frame.drop_vars("flags").assign(mask=plane(True, bool)))
    assert found.bad.all()
    assert found.bad_bits == 0


def test_a_difference_has_its_mask_and_not_the_flags(frame: xr.Dataset) -> None:
    diff = frame.assign(difference=plane(0.0))
    assert not gather(diff).bad.any()
    assert gather(diff.assign(mask=plane(True, bool))).bad.all()
    assert gather(diff, name="sci").bad.sum() == 1


def test_a_reference_has_no_mask_of_its_own(frame: xr.Dataset) -> None:
    assert not gather(frame.assign(reference=plane(0.0), mask=plane(True, bool)), name="reference").bad.any()


def test_a_given_mask_counts_before_all_and_false_is_none(frame: xr.Dataset) -> None:
    given = xr.DataArray(plane(True, bool))
    assert gather(frame, mask=given).bad is given
    assert not gather(frame, mask=False).bad.any()
    assert not gather(frame["sci"]).bad.any()


@pytest.mark.parametrize("dtype", ["int32", "uint8", "float32"])
def test_a_mask_of_numbers_is_refused_by_name(frame: xr.Dataset, dtype: str) -> None:
    """Whether it is the owner's or was given; every function that measures takes its masks from here."""
    numbers = plane(2, dtype)
    message = rf"a mask is boolean, True where bad; this one is {dtype}: decode bit planes with ztfxr\.mask"
    owner = frame.drop_vars("flags").assign(mask=numbers)
    with pytest.raises(InputError, match=message):
        gather(frame, mask=xr.DataArray(numbers))
    calls: list[Callable[[Any], Any]] = [
        ztfxr.background,
        ztfxr.clean,
        ztfxr.variance,
        ztfxr.sources,
        ztfxr.to_ccddata,
        lambda obj: ztfxr.noise(obj, sources=False),
        lambda obj: ztfxr.rebin(obj, 2),
        lambda obj: ztfxr.align(obj, obj, transform=Transform.shift()),
        lambda obj: ztfxr.register(obj, obj, method="stars"),
        lambda obj: ztfxr.stamps(obj, [(40.0, 40.0)], 9, centered=True),
        lambda obj: ztfxr.coadd(obj.expand_dims(time=2)),
        lambda obj: ztfxr.measure_epochs(obj.expand_dims(time=2)),
    ]
    for call in calls:
        with pytest.raises(InputError, match=message):
            call(owner)


@pytest.mark.parametrize("mask", [True, "flags", 3, np.zeros(SHAPE, bool)])
def test_a_mask_is_an_array_or_false(frame: xr.Dataset, mask: Any) -> None:
    with pytest.raises(InputError, match=r"mask is a boolean DataArray, True where bad, or False; got (numpy )?\w+"):
        gather(frame, mask=mask)


# ---- planes of other surveys ---------------------------------------------------------------------------------------


@pytest.fixture
def other(frame: xr.Dataset) -> xr.Dataset:
    """Flags of another survey: bit 1 is a saturated pixel, bit 5 lies in a star."""
    flags = xr.zeros_like(frame["flags"], dtype=np.int32)
    flags[40, 30] = 2
    flags[20:25, 20:25] = 32
    flags.attrs = {"flag_masks": [1, 2, 32], "flag_meanings": "BPM SATURATE STAR"}
    return frame.assign(flags=flags)


def test_planes_of_another_survey_are_never_taken_for_ipac_s(other: xr.Dataset) -> None:
    message = r"the flags have planes that ztfxr does not know to be good or bad: BPM, SATURATE, STAR; give a boolean"
    for function in (ztfxr.background, ztfxr.clean, ztfxr.variance, ztfxr.sources, ztfxr.mask):
        with pytest.raises(InputError, match=message):
            function(other)
    stated = ztfxr.mask(other, ["SATURATE"])
    assert np.argwhere(stated.values).tolist() == [[40, 30]]
    assert np.isnan(ztfxr.clean(other, mask=stated)).sum() == 1


def test_the_flags_may_say_which_of_their_planes_are_bad(other: xr.Dataset) -> None:
    other["flags"].attrs["bad_planes"] = "BPM SATURATE"
    assert np.argwhere(gather(other).bad.values).tolist() == [[40, 30]]
    assert np.isnan(ztfxr.clean(other)).sum() == 1
    assert ztfxr.mask(other, STAR=True).sum() == 26
    assert ztfxr.mask(other, SATURATE=False).sum() == 0


# ---- saturation, place, status -------------------------------------------------------------------------------------


def test_saturation_by_flags_else_by_level(frame: xr.Dataset) -> None:
    by_flags = gather(frame).saturated
    assert by_flags is not None
    assert by_flags.sum() == 1
    bare = frame["sci"]
    assert gather(bare).saturated is None
    by_level = gather(bare.assign_coords(saturate=4000.0)).saturated
    assert by_level is not None
    np.testing.assert_array_equal(by_level.values, bare.values >= 4000)
    difference = frame.drop_vars("flags").assign(difference=plane(0.0)).assign_coords(saturate=0.0)
    assert gather(difference).saturated is None


def test_place_and_zero_point(frame: xr.Dataset) -> None:
    found = gather(frame.assign_coords(magzp=26.0))
    assert found.origin == {"y": 7, "x": 20}
    assert found.shape == SHAPE
    assert found.zero_point is not None
    assert float(found.zero_point) == 26.0
    assert gather(frame).zero_point is None


def test_status_of_the_owner_or_of_the_image(frame: xr.Dataset) -> None:
    bad = np.uint32(planes_to_bits(["truncated"], STATUS_PLANES))
    assert gather(frame).status is None
    for obj in (frame.assign(epoch_status=bad), frame.assign_coords(epoch_status=bad)):
        status = gather(obj).status
        assert status is not None
        assert int(status) == bad
        assert not status.coords


def test_without_coordinates_the_labels_of_epochs_stay(frame: xr.Dataset) -> None:
    stack = frame.expand_dims(time=[3, 4]).assign_coords(mjd=("time", [1.0, 2.0]))
    found = gather(stack).without_coordinates()
    assert set(found.image.coords) == {"time", "y", "x"}
    assert found.owner is stack


# ---- what is no image ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (np.zeros((3, 4)), r"an image is an xarray DataArray or Dataset; got numpy ndarray: open a file with ztfxr"),
        (np.zeros((3, 4)), r"wrap an array in xr\.DataArray\(array, dims=\('y', 'x'\)\)"),
        ("frame.fits", "got str"),
        (xr.DataArray(np.zeros(5), dims="x"), r"an image has the dimensions y and x; got \('x',\)"),
        (
            xr.DataArray(np.zeros((3, 4)), dims=("row", "col")),
            r"got \('row', 'col'\): rename them, for example",
        ),
        (xr.DataArray(np.zeros((3, 4), complex), dims=("y", "x")), "pixels are real numbers; got complex128"),
        (xr.DataArray(np.full((3, 4), "a"), dims=("y", "x")), "pixels are real numbers; got <U1"),
        (xr.Dataset(), "the Dataset has no variable 'sci'; it has none"),
        (xr.Dataset({"image": (("y", "x"), np.zeros((3, 4)))}), "the Dataset has no variable 'sci'; it has image"),
    ],
)
def test_what_is_no_image_is_refused_by_name(given: Any, message: str) -> None:
    for function in (gather, ztfxr.background, ztfxr.clean, ztfxr.variance, ztfxr.sources):
        with pytest.raises(InputError, match=message):
            function(given)


def test_a_variance_is_an_array(frame: xr.Dataset) -> None:
    with pytest.raises(InputError, match="variance is a DataArray on y and x; got float"):
        gather(frame, variance=3.0)  # type: ignore[arg-type]


def test_the_difference_is_the_image_where_there_is_one(frame: xr.Dataset) -> None:
    diff = frame.assign(difference=plane(1.0))
    assert (gather(diff).name, gather(frame).name, gather(frame["sci"]).name) == ("difference", "sci", "sci")
    assert gather(diff).image.identical(diff["difference"])
    assert find_image(diff, "sci")[0].identical(diff["sci"])
    with pytest.raises(InputError, match="the Dataset has no variable 'reference'; it has sci, flags"):
        gather(frame, name="reference")


# ---- laziness ------------------------------------------------------------------------------------------------------


def test_nothing_is_computed(frame: xr.Dataset, raising_scheduler: Any) -> None:
    attrs = flag_attrs(MASK_PLANES)
    stack = frame.assign(flags=frame["flags"].assign_attrs(attrs)).expand_dims(time=[0, 1]).chunk(time=1)
    found = gather(stack)
    lazy = [found.image, found.bad, found.saturated, found.variance, found.variance_or_sky, found.variance_or_none]
    assert all(array is not None and array.chunks is not None for array in lazy)
    for array in lazy:
        assert array is not None
        with pytest.raises(AssertionError, match="stayed lazy"):
            array.compute()


def test_a_lazy_gain_may_be_known(frame: xr.Dataset, raising_scheduler: Any) -> None:
    stack = frame.expand_dims(time=[0, 1]).assign_coords(gain=("time", [np.nan, np.nan])).chunk(time=1)
    gain = gather(stack).gain
    assert gain is not None
    assert gain.chunks is not None
