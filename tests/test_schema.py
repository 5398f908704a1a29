"""The registry of variables and bit planes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from ztfxr.dia.difference import difference
from ztfxr.errors import InputError
from ztfxr.ops.mapping import map_images
from ztfxr.schema import (
    ATTRS,
    EPOCH_QUALITY,
    EXTRACTION_PLANES,
    FILTERS,
    FLAG_PLANES,
    MASK_PLANES,
    RECOMMENDED_PLANES,
    SECTIONS,
    SOURCE_PLANES,
    SPECS,
    STATUS_PLANES,
    Plane,
    Spec,
    annotate,
    annotate_all,
    fill_value,
    flag_attrs,
    kept,
    planes_to_bits,
    schema_page,
)

UNITS = (
    "",
    "DN",
    "DN2",
    "uJy",
    "pixel",
    "pixel2",
    "deg",
    "d",
    "s",
    "mag",
    "electron",
    "electron/DN",
    "erg/s/cm2/A",
    "arcsec",
    "byte",
)


def test_recommended_planes_are_ipacs_template() -> None:
    """6141 is every plane of IPAC's but 1 and 11; `outside` is ztfxr's own."""
    own = planes_to_bits(["outside"])
    assert own == 1 << 15
    assert planes_to_bits(RECOMMENDED_PLANES) == 6141 | own


@pytest.mark.parametrize("planes", [MASK_PLANES, STATUS_PLANES, SOURCE_PLANES, EXTRACTION_PLANES])
def test_planes_are_distinct_and_fit_their_bits(planes: tuple[Plane, ...]) -> None:
    assert len({p.name for p in planes}) == len(planes)
    assert len({p.value for p in planes}) == len(planes)
    bits = 32 if planes is STATUS_PLANES else 16
    assert all(0 <= p.bit < bits and p.value == 2**p.bit for p in planes)
    assert all(p.name.isidentifier() for p in planes)


def test_mask_planes_have_ipacs_bits() -> None:
    bits = {p.name: p.bit for p in MASK_PLANES if p.name != "outside"}
    assert bits == dict(zip(bits, range(13), strict=True))
    assert (bits["tracks"], bits["sexsources"], bits["spillage"], bits["psfsources"]) == (0, 1, 6, 11)


@pytest.mark.parametrize("name", list(SPECS))
def test_spec_is_complete(name: str) -> None:
    spec = SPECS[name]
    assert spec.name == name
    assert spec.meaning
    assert spec.units in UNITS
    assert spec.attrs["long_name"] == spec.meaning
    assert ("units" in spec.attrs) == bool(spec.units)
    np.dtype(spec.dtype)


def test_spec_names_are_unique() -> None:
    assert len(SPECS) == sum(len(rows) for rows in SECTIONS.values())


@pytest.mark.parametrize(
    ("dims", "form", "fits"),
    [
        ("y x", "time? y x", True),
        ("time y x", "time? y x", True),
        ("visit time y x", "time? y x", True),
        ("x y", "time? y x", False),
        ("y time x", "time? y x", False),
        ("y", "time? y x", False),
        ("", "time?", True),
        ("visit", "time?", True),
        ("y x", "time?", False),
        ("time source", "time? source radius?", True),
        ("time source radius", "time? source radius?", True),
        ("source time", "time? source radius?", False),
        ("source visit", "time? source radius?", False),
        ("source dx", "x | source? dx?", True),
        ("x", "x | source? dx?", True),
        ("x dx", "x | source? dx?", False),
        ("y source", "...", True),
    ],
)
def test_dims_of_a_row(dims: str, form: str, fits: bool) -> None:
    assert Spec("name", form, "float64", "", "meaning").fits(dims.split()) is fits


def test_core_dims_are_those_that_an_image_always_has() -> None:
    assert SPECS["flux"].core_dims == ("source",)
    assert SPECS["model_error"].core_dims == ("mode", "y", "x")
    assert SPECS["kernel_sum"].core_dims == ()


def test_planes_to_bits() -> None:
    assert planes_to_bits([]) == 0
    assert planes_to_bits(["tracks", "noisy", "tracks"]) == 0b10001
    assert planes_to_bits(["truncated"], STATUS_PLANES) == 4


def test_planes_to_bits_lists_the_names() -> None:
    with pytest.raises(InputError, match=r"unknown plane 'track'; the planes are tracks, sexsources, .*, outside"):
        planes_to_bits(["track"])


def test_flag_attrs_follow_cf() -> None:
    attrs = flag_attrs(MASK_PLANES)
    assert len(attrs["flag_masks"]) == len(attrs["flag_meanings"].split()) == len(MASK_PLANES)
    assert attrs["flag_masks"][:3] == [1, 2, 4]


def test_annotate_leaves_its_input_alone() -> None:
    image = xr.DataArray(np.zeros((2, 3)), dims=("y", "x"), name="anything", attrs={"kept": 1})
    out = annotate(image, "variance", extra=2)
    assert (out.name, out.attrs["units"], out.attrs["extra"]) == ("variance", "DN2", 2)
    assert (image.name, image.attrs) == ("anything", {"kept": 1})
    assert out.data is image.data


def test_annotate_describes_flags() -> None:
    flags = annotate(xr.DataArray(np.zeros((2, 3), np.uint16), dims=("y", "x"), name="flags"))
    status = annotate(xr.DataArray(np.zeros((2, 3), np.uint32), dims=("time", "source")), "status")
    assert flags.attrs["flag_meanings"].startswith("tracks sexsources")
    assert status.attrs["flag_meanings"].startswith("unreadable not_fits")


def test_annotate_all() -> None:
    image = xr.Variable(("y", "x"), np.zeros((2, 3)))
    dataset = xr.Dataset({"sci": image, "mine": image}, coords={"seeing": ((), 2.0, {"units": "arcsec"}), "gain": 6.0})
    out = annotate_all(dataset)
    assert out["sci"].attrs == SPECS["sci"].attrs
    assert out["mine"].attrs == {}
    assert out["gain"].attrs["units"] == "electron/DN"
    assert out["seeing"].attrs["units"] == "arcsec", "a unit that the file states wins"
    assert dataset["sci"].attrs == {}
    assert dataset["gain"].attrs == {}


@pytest.mark.parametrize(
    ("name", "stated", "unit", "found"),
    [
        ("sci", None, None, "DN"),
        ("sci", "nJy", None, "nJy"),
        ("sci", "nJy", "electron", "electron"),
        ("variance", "(MJy/sr)2", None, "(MJy/sr)2"),
        ("variance", None, "MJy/sr", "(MJy/sr)2"),
        ("seeing", "arcsec", "electron", "arcsec"),
        ("exptime", "min", None, "min"),
        ("flux_ujy", "mJy", None, "mJy"),
        ("gain", "electron/adu", None, "electron/adu"),
        # What xarray's arithmetic hands on is of another kind.
        ("flux_injected", "mag", None, "DN"),
        ("variance", "DN", None, "DN2"),
        ("mag", "DN", None, "mag"),
        ("gain", "DN", None, "electron/DN"),
        ("chi2", "DN", None, None),
    ],
)
def test_an_explicit_unit_wins_then_a_stated_one(name: str, stated: str, unit: str, found: str) -> None:
    array = xr.DataArray(1.0, attrs={} if stated is None else {"units": stated})
    assert annotate(array, name, unit=unit).attrs.get("units") == found
    assert annotate_all(array.to_dataset(name=name), unit=unit)[name].attrs.get("units") == found


def test_another_cameras_planes_stay() -> None:
    attrs = {"flag_masks": [1], "flag_meanings": "broken", "bad_planes": "broken"}
    flags = xr.DataArray(np.zeros((2, 3), np.uint8), dims=("y", "x"), attrs=attrs)
    assert annotate(flags, "flags").attrs.items() >= attrs.items()
    assert annotate_all(flags.to_dataset(name="flags")).flags.attrs.items() >= attrs.items()


def test_filters() -> None:
    assert dict(FILTERS) == {1: "ztfg", 2: "ztfr", 3: "ztfi"}


def test_fill_values() -> None:
    assert np.isnan(fill_value("sci", np.dtype("f4")))
    assert fill_value("flags", np.dtype("u2")) == 1 << 15
    assert fill_value("mask", np.dtype(bool)) is True
    assert fill_value("n_pixels", np.dtype("i8")) == 0


def test_the_page_is_what_the_registry_says() -> None:
    path = Path(__file__).parents[1] / "docs" / "variables.md"
    assert path.read_text(encoding="utf-8") == schema_page(), "stale: run python -m ztfxr.schema"


@pytest.mark.parametrize("name", FLAG_PLANES)
def test_planes_fit_the_dtype_of_their_variable(name: str) -> None:
    bits = 8 * np.dtype(SPECS[name].dtype).itemsize
    assert all(plane.bit < bits for plane in FLAG_PLANES[name])


def test_statuses_have_room_for_more() -> None:
    assert {SPECS[name].dtype for name in ("status", "epoch_status", "stamp_status")} == {"uint32"}


def test_attributes_that_stay_are_those_about_what_is_left() -> None:
    attrs = {"wcs_header": "cards", "object": "ZTF21", "target_x": 3.0, "kernel_size": 9, "mine": 1}
    assert kept(attrs, "grid") == {"wcs_header": "cards"}
    assert kept(attrs, "object", "target") == {"object": "ZTF21", "target_x": 3.0}
    assert all(name == row.name and row.meaning and row.type for name, row in ATTRS.items())


def test_numbers_of_an_epochs_quality_are_those_of_a_difference() -> None:
    image = xr.DataArray(np.random.default_rng(0).normal(size=(40, 41)).astype("f4"), dims=("y", "x"))
    one = xr.ones_like(image)
    found = difference(image, image, variance=one, reference_variance=one, kernel_size=3)
    assert {"kernel_sum", "chi2", "noise_ratio", "epoch_status"} <= set(EPOCH_QUALITY) <= set(found.data_vars)
    assert all(SPECS[name].fits(()) and SPECS[name].fits(("time",)) for name in EPOCH_QUALITY)


def test_results_that_are_not_what_the_schema_says_are_refused() -> None:
    image = xr.DataArray(np.zeros((4, 5)), dims=("y", "x"))
    for dims in (("x", "y"), ("y",), ("source",)):
        with pytest.raises(TypeError, match="not what the schema says"):
            map_images(lambda image: image, {"image": image}, {"sci": dims}, sizes={"source": 1})
    found = map_images(lambda image: image.mean(), {"image": image}, ["sky"])
    assert found["sky"].dims == ()
