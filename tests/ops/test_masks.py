"""Bit planes to boolean masks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from astropy.io import fits
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from scipy import ndimage

import ztfxr
from tests.conftest import MakeHeader
from ztfxr.arrays.geometry.transform import Transform
from ztfxr.arrays.images.bits import disk, ellipses
from ztfxr.errors import ChunkError, InputError, MissingWCSError
from ztfxr.ops.masks import (
    explain,
    get_flags,
    mask,
    mask_fractions,
    mask_planes,
    resolve_planes,
    source_mask,
    with_planes,
)
from ztfxr.schema import MASK_PLANES
from ztfxr.wcs import has_wcs

NAMES = [p.name for p in MASK_PLANES]
VALUE = {p.name: p.value for p in MASK_PLANES}
IMAGES = hnp.arrays(np.uint16, st.tuples(st.integers(1, 7), st.integers(1, 7)))


def flags_of(values: NDArray[Any], *dims: str) -> xr.DataArray:
    return xr.DataArray(values, dims=dims or ("y", "x"), name="flags")


EVERY = flags_of(np.array([[0, *VALUE.values()]], np.uint16))


@pytest.mark.parametrize("name", NAMES)
def test_each_plane_by_name_and_keyword(name: str) -> None:
    alone = [False] + [n == name for n in NAMES]
    for found in (mask(EVERY, [name]), mask(EVERY, name), mask(EVERY, [], **{name: True}), mask(EVERY, VALUE[name])):
        np.testing.assert_array_equal(found.values[0], alone)
        assert found.attrs["planes"] == name
    np.testing.assert_array_equal(mask(EVERY, NAMES, **{name: False}).values[0][1:], [n != name for n in NAMES])
    assert mask(EVERY, **{name: True}).values[0][1 + NAMES.index(name)]
    assert not mask(EVERY, **{name: False}).values[0][1 + NAMES.index(name)]


def test_default_is_every_plane_but_the_sources() -> None:
    good = [NAMES[i - 1] for i in np.flatnonzero(~mask(EVERY).values[0]) if i > 0]
    assert good == ["sexsources", "psfsources"]
    assert mask(EVERY).values[0][0] == False  # noqa: E712
    assert "sexsources" not in mask(EVERY).attrs["planes"]


@given(IMAGES, st.sets(st.sampled_from(NAMES)), st.dictionaries(st.sampled_from(NAMES), st.booleans()))
def test_equals_integer_arithmetic(values: NDArray[np.uint16], names: set[str], keywords: dict[str, bool]) -> None:
    chosen = (names | {n for n, wanted in keywords.items() if wanted}) - {n for n, w in keywords.items() if not w}
    expected = np.zeros(values.shape, bool)
    for name in chosen:
        expected |= (values.astype(int) // VALUE[name]) % 2 == 1
    found = mask(flags_of(values), names, **keywords)
    assert found.dtype == bool
    assert found.name == "mask"
    np.testing.assert_array_equal(found.values, expected)
    assert resolve_planes(EVERY, names, keywords) == sum(VALUE[n] for n in chosen)


@given(IMAGES, st.integers(0, 2**16 - 1))
def test_integer_planes(values: NDArray[np.uint16], bits: int) -> None:
    for chosen in (bits, np.uint16(bits), np.int64(bits)):
        np.testing.assert_array_equal(mask(flags_of(values), chosen).values, (values.astype(int) & bits) != 0)  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", ["u1", "i2", ">i2", "u2", "i4", "i8"])
def test_integer_dtypes(dtype: str) -> None:
    """Planes above what the dtype holds are never set."""
    values = np.array([[0, 1, 2, 16, 64]], dtype)
    np.testing.assert_array_equal(mask(flags_of(values)).values, [[False, True, False, True, True]])


@given(IMAGES, st.floats(0.1, 3))
def test_grow_equals_scipy(values: NDArray[np.uint16], radius: float) -> None:
    found = mask(flags_of(values), grow=radius).values
    np.testing.assert_array_equal(found, ndimage.binary_dilation((values & 6141) | (values >> 15) != 0, disk(radius)))


@given(
    hnp.arrays(np.uint16, st.tuples(st.integers(1, 5), st.integers(1, 6), st.integers(1, 6))),
    st.sampled_from([0.0, 1.0, 2.5]),
    st.integers(1, 5),
)
def test_dask_equals_numpy(values: NDArray[np.uint16], grow: float, chunk: int) -> None:
    """A stack in chunks of time gives each image's own mask, and nothing grows from one epoch into the next."""
    stack = flags_of(values, "time", "y", "x")
    lazy = mask(stack.chunk(time=chunk), grow=grow)
    assert lazy.chunks is not None
    assert lazy.dims == stack.dims
    computed = lazy.compute(scheduler="synchronous")
    xr.testing.assert_identical(computed, mask(stack, grow=grow))
    for i in range(len(values)):
        np.testing.assert_array_equal(computed[i].values, mask(stack[i], grow=grow).values)


@pytest.mark.parametrize("grow", [0, 2])
def test_lazy(raising_scheduler: Any, grow: float) -> None:
    stack = flags_of(np.zeros((2, 5, 6), np.uint16), "time", "y", "x").chunk(time=1)
    found = mask(stack, grow=grow)
    assert found.chunks == ((1, 1), (5,), (6,))
    assert mask(stack.to_dataset(), grow=grow).dtype == bool
    with pytest.raises(AssertionError, match="stayed lazy"):
        found.compute()


def test_coordinates_stay() -> None:
    flags = flags_of(np.zeros((3, 4), np.uint16)).assign_coords(y=[5, 6, 7], x=[1, 2, 3, 4], gain=6.2)
    for grow in (0, 1):
        xr.testing.assert_identical(mask(flags, grow=grow).coords.to_dataset(), flags.coords.to_dataset())
    turned = mask(flags.transpose("x", "y"), grow=1)
    assert turned.dims == ("x", "y")


def test_input_is_left_alone() -> None:
    flags = EVERY.copy()
    flags.attrs["kept"] = 1
    mask(flags, grow=1)
    assert flags.attrs == {"kept": 1}
    assert flags.name == "flags"


def test_chunked_images_cannot_grow() -> None:
    flags = flags_of(np.zeros((4, 4), np.uint16)).chunk(y=2)
    assert not mask(flags).compute(scheduler="synchronous").any()
    with pytest.raises(ChunkError, match=r"flags has 2 chunks along 'y', which .* needs whole; use \.chunk\(y=-1\)"):
        mask(flags, grow=1)


@pytest.mark.parametrize("dtype", [bool, np.float32])
def test_flags_are_integers(dtype: Any) -> None:
    with pytest.raises(InputError, match=r"mask planes are integers; flags is (bool|float32): call this on ds\.flags"):
        mask(flags_of(np.zeros((2, 2), dtype)))


def test_unknown_plane_lists_the_names() -> None:
    for attempt in ({"planes": ["tracks", "halo"]}, {"planes": "halo"}, {"halo": True}, {"halo": False}):
        with pytest.raises(
            InputError, match=r"unknown plane 'halo'; the planes are tracks, sexsources, .*brightstarhalo"
        ):
            mask(EVERY, **attempt)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="unknown plane 'True'"):
        mask(EVERY, True)


def test_dataset_without_flags() -> None:
    with pytest.raises(InputError, match="no variable 'flags'; open the frame with its mask image"):
        mask(xr.Dataset({"sci": EVERY}))
    assert get_flags(EVERY.to_dataset()).identical(EVERY)


# planes that mean something for a while


def test_by_epoch_leaves_out_what_means_nothing() -> None:
    """`spillage` counts up to MJD 58779, epoch by epoch; all else always."""
    stack = flags_of(np.full((4, 2, 3), VALUE["spillage"], np.uint16), "time", "y", "x")
    stack[3] = VALUE["spillage"] | VALUE["tracks"]
    dated = stack.assign_coords(mjd=("time", [58000.0, 58779.0, 58779.01, 59000.0]))
    for grow in (0, 1):
        found = mask(dated, by_epoch=True, grow=grow)
        np.testing.assert_array_equal(found.all(("y", "x")), [True, True, False, True])
        assert mask(dated, grow=grow).all()
        lazy = mask(dated.chunk(time=1), by_epoch=True, grow=grow)
        assert lazy.chunks is not None
        xr.testing.assert_identical(lazy.compute(scheduler="synchronous"), found)
    for i in range(4):
        np.testing.assert_array_equal(mask(dated[i], by_epoch=True).values, mask(dated, by_epoch=True)[i].values)
    assert not mask(dated[3], ["spillage"], by_epoch=True).any()


def test_by_epoch_equals_keywords_after_the_date() -> None:
    dated = EVERY.assign_coords(mjd=59000.0)
    np.testing.assert_array_equal(mask(dated, by_epoch=True).values, mask(EVERY, spillage=False).values)


@pytest.mark.parametrize("mjd", [None, np.nan])
def test_by_epoch_needs_a_time(mjd: float | None) -> None:
    flags = EVERY if mjd is None else EVERY.assign_coords(mjd=mjd)
    with pytest.raises(InputError, match=r"by_epoch=True needs the time of every exposure: give a coordinate 'mjd'"):
        mask(flags, by_epoch=True)


# planes of other surveys


OTHER = flags_of(np.array([[0, 1, 2, 32, 35, 1 << 20]], np.int32)).assign_attrs(
    flag_masks=[1, 2, 32, 1 << 20], flag_meanings="BPM SATURATE STAR LATE"
)


def test_planes_are_the_flags_own() -> None:
    """Another survey's bits are never decoded as IPAC's."""
    np.testing.assert_array_equal(mask(OTHER, ["SATURATE"]).values[0], [False, False, True, False, True, False])
    assert mask(OTHER, ["BPM", "STAR"]).attrs["planes"] == "BPM STAR"
    with pytest.raises(InputError, match="unknown plane 'saturated'; the planes are BPM, SATURATE, STAR, LATE"):
        mask(OTHER, ["saturated"])
    with pytest.raises(InputError, match="unknown plane 'tracks'"):
        mask(OTHER, ["BPM"], tracks=True)
    for call in (mask, lambda flags: mask(flags, STAR=False), lambda flags: mask(flags, grow=1)):
        with pytest.raises(InputError, match="does not know to be good or bad: BPM, SATURATE, STAR, LATE; give a bool"):
            call(OTHER)


def test_flags_that_say_which_planes_are_bad() -> None:
    named = OTHER.assign_attrs(bad_planes="BPM SATURATE")
    np.testing.assert_array_equal(mask(named).values[0], [False, True, True, False, True, False])
    np.testing.assert_array_equal(mask(named, BPM=False, STAR=True).values[0], [False, False, True, True, True, False])
    assert mask(named.assign_coords(mjd=59000.0), by_epoch=True).attrs["planes"] == "BPM SATURATE"


def test_planes_of_another_survey_as_variables_fractions_and_names() -> None:
    found = mask_planes(OTHER)
    assert {n: int(p.sum()) for n, p in found.items()} == {"BPM": 2, "SATURATE": 2, "STAR": 2, "LATE": 1}
    assert found["LATE"].attrs["flag_mask"] == 1 << 20
    fractions = mask_fractions(OTHER, ["STAR", "LATE"])
    assert fractions["plane"].values.tolist() == ["STAR", "LATE"]
    np.testing.assert_allclose(fractions, [2 / 6, 1 / 6])
    assert explain(OTHER, [1, 4, 5, 9], [0, 0, 0, 0]).values.tolist() == ["BPM", "BPM SATURATE STAR", "LATE", "outside"]


def test_padding_and_resampling_have_planes_of_their_own() -> None:
    """At ztfxr's own bits where these are free, else at others; what the flags said stays."""
    assert with_planes(EVERY, "outside", "nan").identical(EVERY)
    padded = with_planes(OTHER.assign_attrs(bad_planes="BPM"), "outside", "nan")
    names = dict(zip(padded.attrs["flag_meanings"].split(), padded.attrs["flag_masks"], strict=True))
    assert names == {"BPM": 1, "SATURATE": 2, "STAR": 32, "LATE": 1 << 20, "nan": 1 << 10, "outside": 1 << 15}
    assert padded.attrs["bad_planes"] == "BPM nan outside"
    taken = OTHER.assign_attrs(flag_masks=[1, 1 << 15], flag_meanings="BPM COSMIC")
    stamp = ztfxr.stamp(taken.assign_attrs(bad_planes="COSMIC"), x=0, y=0, size=(3, 3))
    assert explain(stamp, x=-1, y=0).item() == "outside"
    assert mask(stamp).values[1].tolist() == [True, False, False]
    full = OTHER.assign_attrs(flag_masks=[1 << i for i in range(16)], flag_meanings=" ".join(map(str, range(16))))
    with pytest.raises(InputError, match="use all of bits 0 to 15, so none is left to mark 'outside'"):
        ztfxr.stamp(full, x=0, y=0, size=3)


def test_aligned_flags_keep_their_meanings() -> None:
    """Resampled flags of another survey are its own planes, spread where they are bad."""
    values = np.zeros((40, 40), np.int16)
    values[20, 20], values[30, 30] = 2, 32
    attrs = {"flag_masks": [1, 2, 32], "flag_meanings": "BPM SATURATE STAR", "bad_planes": "BPM SATURATE"}
    image = xr.Dataset({"sci": (("y", "x"), np.ones((40, 40), "f4")), "flags": (("y", "x"), values, attrs)})
    aligned = ztfxr.align(image, image, transform=Transform.shift(3.4, 0.0))
    found = mask_planes(aligned)
    assert list(found) == ["BPM", "SATURATE", "STAR", "nan", "outside"]
    assert found["SATURATE"].any()
    assert not found["BPM"].any()
    assert found["outside"].any()
    assert (mask(aligned) == aligned["sci"].isnull()).all()


# planes as variables, and fractions


@given(IMAGES, st.sets(st.sampled_from(NAMES)))
def test_mask_planes_are_masks_of_one_plane(values: NDArray[np.uint16], names: set[str]) -> None:
    found = mask_planes(flags_of(values), names)
    assert list(found) == [n for n in NAMES if n in names]
    for name, plane in found.items():
        assert plane.dtype == bool
        np.testing.assert_array_equal(plane.values, mask(flags_of(values), [str(name)]).values)


def test_mask_planes_say_what_they_are() -> None:
    found = mask_planes(EVERY)
    assert list(found) == NAMES
    assert {n: p.attrs["flag_mask"] for n, p in found.items()} == VALUE
    assert all(found[p.name].attrs["long_name"] == p.meaning for p in MASK_PLANES)
    assert {n: p.attrs["until_mjd"] for n, p in found.items() if "until_mjd" in p.attrs} == {"spillage": 58779.0}
    assert "58779" in found["spillage"].attrs["long_name"]
    assert [n for n, p in found.items() if "early 2018" in p.attrs["long_name"]] == [
        "ghosts",
        "spillage",
        "brightstarhalo",
    ]


def test_mask_planes_keep_coordinates(labeled: xr.DataArray) -> None:
    found = mask_planes(labeled, ["tracks"])
    assert has_wcs(found)
    xr.testing.assert_identical(found.coords.to_dataset().drop_attrs(), labeled.coords.to_dataset().drop_attrs())


@settings(max_examples=30)
@given(hnp.arrays(np.uint16, st.tuples(st.integers(1, 4), st.integers(1, 6), st.integers(1, 6))), st.integers(1, 4))
def test_mask_fractions_are_means(values: NDArray[np.uint16], chunk: int) -> None:
    stack = flags_of(values, "time", "y", "x")
    found = mask_fractions(stack)
    assert found.dims == ("time", "plane")
    assert found.dtype == np.float64
    for name, plane in mask_planes(stack).items():
        np.testing.assert_allclose(found.sel(plane=name).values, plane.mean(("y", "x")).values, rtol=1e-12)
    xr.testing.assert_identical(mask_fractions(stack.chunk(time=chunk)).compute(scheduler="synchronous"), found)


def test_mask_fractions_are_labeled() -> None:
    found = mask_fractions(EVERY.to_dataset(), ["tracks", "saturated"])
    assert found.name == "mask_fraction"
    assert found["plane"].values.tolist() == ["tracks", "saturated"]
    assert found["meaning"].sel(plane="tracks").item() == MASK_PLANES[0].meaning
    np.testing.assert_allclose(found, 1 / EVERY.size)
    with pytest.raises(InputError, match="unknown plane 'halo'"):
        mask_fractions(EVERY, ["halo"])


@pytest.mark.parametrize("function", [mask_planes, mask_fractions])
def test_planes_are_lazy(raising_scheduler: Any, function: Any) -> None:
    stack = flags_of(np.zeros((2, 5, 6), np.uint16), "time", "y", "x").chunk(time=1)
    found = function(stack)
    with pytest.raises(AssertionError, match="stayed lazy"):
        found.compute()


# explain


@pytest.fixture
def labeled(wcs_header: MakeHeader) -> xr.DataArray:
    """A cut-out of a frame, which starts at x = 100, y = 50."""
    values = np.zeros((8, 9), np.uint16)
    values[3, 4] = VALUE["tracks"] | VALUE["saturated"]
    values[0, 0] = VALUE["dead"] | 1 << 13
    frame = flags_of(values).assign_coords(y=50 + np.arange(8), x=100 + np.arange(9), gain=6.2)
    return ztfxr.assign_wcs(frame, wcs_header((3080, 3072)))


def test_explain_one_pixel(labeled: xr.DataArray) -> None:
    found = explain(labeled, 104, 53)
    assert found.item() == "tracks saturated"
    assert (found.name, found.dims) == ("planes", ())
    assert (int(found["x"]), int(found["y"])) == (104, 53)
    assert explain(labeled, x=103.51, y=53.49).item() == "tracks saturated"
    assert explain(labeled, 103.49, 53).item() == ""
    assert explain(labeled, 100, 50).item() == "dead bit13"


def test_explain_many_pixels(labeled: xr.DataArray) -> None:
    """Off the image, and without a position: outside, never a missing row and never a pixel of the far side."""
    x = [104, 100, 99.4, 109, 104, np.nan, np.inf, 101]
    y = [53, 50, 53, 53, 49, 53, 53, 51]
    found = explain(labeled.to_dataset(), x, y)
    assert found.dims == ("source",)
    assert found.values.tolist() == ["tracks saturated", "dead bit13", *["outside"] * 5, ""]
    assert found["x"].values[:3].tolist() == [104, 100, 99]
    assert explain(labeled, x, 53).dims == ("source",)


def test_explain_a_stack(labeled: xr.DataArray) -> None:
    stack = xr.concat([labeled, labeled * 0 + VALUE["noisy"]], "time").astype(np.uint16).assign_coords(time=[0, 1])
    found = explain(stack.chunk(time=1), [104, 0], [53, 0])
    assert found.dims == ("time", "source")
    assert found.values.tolist() == [["tracks saturated", "outside"], ["noisy", "outside"]]
    assert found["time"].values.tolist() == [0, 1]


def test_explain_sky_positions(labeled: xr.DataArray) -> None:
    sky = ztfxr.pixel_to_sky(labeled, [104.2, 100], [52.9, 50])
    found = explain(labeled, ra=sky.ra.deg, dec=sky.dec.deg)
    assert found.values.tolist() == ["tracks saturated", "dead bit13"]
    with pytest.raises(MissingWCSError):
        explain(EVERY, ra=10.0, dec=20.0)


@pytest.mark.parametrize("value", [0, 257, np.uint16(6141), 1 << 14 | 2])
def test_explain_an_integer(value: int) -> None:
    named = [p.name for p in MASK_PLANES if int(value) & p.value]
    assert explain(value).item() == " ".join([*named, *["bit14"] * bool(int(value) & 1 << 14)])


def test_explain_needs_a_position(labeled: xr.DataArray) -> None:
    for wrong in ({}, {"x": 1}, {"x": 1, "y": 2, "ra": 3.0}, {"ra": 3.0}, {"x": 1, "ra": 3.0, "dec": 4.0}):
        with pytest.raises(InputError, match="give positions as x= and y= in pixels, or as ra= and dec="):
            explain(labeled, **wrong)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"positions are numbers or 1-D; got shape \(2, 2\)"):
        explain(labeled, np.ones((2, 2)), np.ones((2, 2)))
    with pytest.raises(InputError, match="no pixel to look at"):
        explain(labeled[:0], 1, 2)
    with pytest.raises(InputError, match="mask planes are integers"):
        explain(labeled.astype(float), 1, 2)


# ellipses of sources


def catalog(*rows: tuple[float, float, float, float, float]) -> xr.Dataset:
    names = ("x_centroid", "y_centroid", "semimajor_axis", "semiminor_axis", "orientation")
    columns = np.array(rows, dtype=float).reshape(-1, 5).T
    return xr.Dataset({n: ("source", c) for n, c in zip(names, columns, strict=True)})


ROWS = ((103.2, 52.0, 1.2, 0.6, 30.0), (107.0, 55.5, 0.4, 0.3, -60.0), (np.nan, 52.0, 3.0, 3.0, 0.0))


def test_source_mask_is_in_absolute_pixels(labeled: xr.DataArray) -> None:
    found = source_mask(labeled, catalog(*ROWS), scale=2.0)
    x, y, a, b, angle = np.array(ROWS[:2]).T
    np.testing.assert_array_equal(found.values, ellipses(x - 100, y - 50, 2 * a, 2 * b, angle, shape=(8, 9)))
    assert found.dtype == bool
    assert found.dims == ("y", "x")
    assert has_wcs(found)
    assert "gain" not in found.coords
    cut = labeled[2:6, 3:8]
    xr.testing.assert_identical(source_mask(cut, catalog(*ROWS), scale=2.0), found[2:6, 3:8])


def test_source_mask_grows_with_its_scale(labeled: xr.DataArray) -> None:
    small, large = (source_mask(labeled, catalog(*ROWS), scale=s) for s in (1.0, 3.0))
    assert (large | ~small).all()
    assert large.sum() > small.sum() > 0
    assert not source_mask(labeled, catalog()).any()


def test_source_mask_of_a_stack(labeled: xr.DataArray) -> None:
    """One catalog serves all epochs; one per epoch, padded with NaN, gives each its own, lazily."""
    stack = xr.concat([labeled, labeled], "time").assign_coords(time=[0, 1])
    assert source_mask(stack, catalog(*ROWS)).dims == ("y", "x")
    epochs = xr.concat([catalog(*ROWS[:2]), catalog(ROWS[1], ROWS[2])], "time").assign_coords(time=[0, 1])
    found = source_mask(stack, epochs)
    assert found.dims == ("time", "y", "x")
    np.testing.assert_array_equal(found[0].values, source_mask(labeled, catalog(*ROWS)).values)
    np.testing.assert_array_equal(found[1].values, source_mask(labeled, catalog(ROWS[1])).values)
    for lazy in (source_mask(stack.chunk(time=1), epochs), source_mask(stack, epochs.chunk(time=1))):
        assert lazy.chunks == ((1, 1), (8,), (9,))
        xr.testing.assert_identical(lazy.compute(scheduler="synchronous"), found)


def test_source_mask_is_lazy(labeled: xr.DataArray, raising_scheduler: Any) -> None:
    found = source_mask(labeled.chunk(), catalog(*ROWS))
    assert found.chunks == ((8,), (9,))
    with pytest.raises(AssertionError, match="stayed lazy"):
        found.compute()


def test_source_mask_says_what_is_missing(labeled: xr.DataArray) -> None:
    with pytest.raises(InputError, match=r"an ellipse needs .* on 'source'; the catalog has no such orientation"):
        source_mask(labeled, catalog(*ROWS).drop_vars("orientation"))
    with pytest.raises(InputError, match=r"the catalog has no such x_centroid, y_centroid, "):
        source_mask(labeled, catalog(*ROWS).rename(source="star"))
    for scale in (0.0, -1.0, np.nan):
        with pytest.raises(InputError, match="scale is positive; got"):
            source_mask(labeled, catalog(*ROWS), scale=scale)


# the real mask


def test_real_mask_is_astropys(plain_quadrant_path: Path) -> None:
    """Bit for bit, and each of IPAC's planes by name."""
    frame = ztfxr.open_quadrant(plain_quadrant_path)
    planes = fits.getdata(str(plain_quadrant_path).replace("sciimg", "mskimg")).astype(np.uint16)
    np.testing.assert_array_equal(mask(frame).values, (planes & 6141) != 0)
    found = mask_planes(frame).compute()
    fractions = mask_fractions(frame).compute()
    for plane in MASK_PLANES:
        np.testing.assert_array_equal(found[plane.name].values, (planes & plane.value) != 0)
        assert float(fractions.sel(plane=plane.name)) == ((planes & plane.value) != 0).mean()
    y, x = np.argwhere(planes & VALUE["saturated"])[:5].T
    assert all("saturated" in text.split() for text in explain(frame, x, y).values)
