"""Detection and measurement of the sources of one image."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import sep
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ztfxr.arrays.photometry import extraction
from ztfxr.arrays.photometry.extraction import COLUMNS, Detection, Extraction, Threshold, extract_sources
from ztfxr.schema import EXTRACTION_PLANES, SOURCE_PLANES, SPECS

NOISE = 3.0


@pytest.fixture(autouse=True)
def sep_as_it_was() -> Iterator[None]:
    """The settings of sep belong to the process."""
    before = sep.get_extract_pixstack(), sep.get_sub_object_limit()
    yield
    sep.set_extract_pixstack(before[0])
    sep.set_sub_object_limit(before[1])


def star(
    shape: tuple[int, int], x: float, y: float, flux: float, a: float = 1.3, b: float | None = None, angle: float = 0.0
) -> NDArray[np.float64]:
    """A Gaussian source."""
    b = a if b is None else b
    rows, columns = np.indices(shape)
    cosine, sine = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
    u = (columns - x) * cosine + (rows - y) * sine
    v = -(columns - x) * sine + (rows - y) * cosine
    return np.asarray(flux / (2 * np.pi * a * b) * np.exp(-0.5 * ((u / a) ** 2 + (v / b) ** 2)))


def field(shape: tuple[int, int] = (120, 100), n: int = 40, seed: int = 3) -> NDArray[np.float32]:
    """Stars of all fluxes, some of them blended."""
    rng = np.random.default_rng(seed)
    image = rng.normal(0.0, NOISE, shape)
    for _ in range(n):
        image += star(shape, rng.uniform(0, shape[1]), rng.uniform(0, shape[0]), 10 ** rng.uniform(2.3, 4.5))
    return image.astype(np.float32)


def extract(
    image: NDArray[Any], bad: Any = None, gain: float = np.nan, limit: Any = None, **options: Any
) -> Extraction:
    bad = np.zeros(image.shape, dtype=bool) if bad is None else bad
    variance = np.full(image.shape, NOISE**2, dtype=np.float32)
    level = Threshold(options.pop("threshold", 5.0), options.pop("absolute", False))
    return extract_sources(image, bad, variance, gain, threshold=level, detection=Detection(**options), limit=limit)


def by_sep(image: NDArray[Any], threshold: float = 5.0, **options: Any) -> Any:
    """What sep gives by hand, brightest first."""
    sigma = np.full(image.shape, NOISE, dtype=np.float32)
    found = sep.extract(image, threshold, **{"err": sigma, "clean": False, **options})
    return found[np.argsort(-found["flux"], kind="stable")]


# ---- against sep ----------------------------------------------------------------------------------------------------

SAME = {
    "x_centroid": "x",
    "y_centroid": "y",
    "semimajor_axis": "a",
    "semiminor_axis": "b",
    "segment_area": "npix",
    "peak": "peak",
    "flux": "flux",
}


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ({}, {}),
        ({"clean": 1.0}, {"clean": True}),
        ({"clean": 2.0}, {"clean": True, "clean_param": 2.0}),
        ({"n_pixels": 9, "threshold": 3.0}, {"minarea": 9, "threshold": 3.0}),
        ({"n_levels": 1}, {"deblend_nthresh": 1}),
        ({"n_levels": 8, "contrast": 0.1}, {"deblend_nthresh": 8, "deblend_cont": 0.1}),
        ({"kernel": None}, {"filter_kernel": None}),
        ({"kernel": ((1.0, 3.0, 1.0),)}, {"filter_kernel": np.array([[1, 3, 1]], np.float32)}),
        ({"threshold": 20.0, "absolute": True}, {"threshold": 20.0, "err": None}),
    ],
)
def test_equals_sep(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    image = field()
    found, expected = extract(image, **ours).columns, by_sep(image, **theirs)
    assert len(expected) > 5
    for name, column in SAME.items():
        np.testing.assert_array_equal(found[name], expected[column], err_msg=name)
    np.testing.assert_array_equal(found["orientation"], np.rad2deg(expected["theta"]))
    np.testing.assert_array_equal(found["sep_flags"] & 0b1111, expected["flag"])


def test_measurements_equal_sep() -> None:
    """Kron flux, half-light radius and windowed centroid, by the recipe of sep's documentation."""
    image, sigma = field(), np.full((120, 100), NOISE, dtype=np.float32)
    o = by_sep(image)
    where, ellipse = (o["x"], o["y"]), (o["a"], o["b"], o["theta"])
    kron, kron_flag = sep.kron_radius(image, *where, *ellipse, 6.0)
    kron = np.maximum(kron, 1.4)
    flux, error, flag = sep.sum_ellipse(image, *where, *ellipse, 2.5 * kron, err=sigma, gain=6.0, subpix=0)
    half, _ = sep.flux_radius(image, *where, 6.0 * o["a"], 0.5, normflux=flux, subpix=5)
    x, y, _ = sep.winpos(image, *where, 2.0 / 2.35 * half)
    found = extract(image, gain=6.0).columns
    np.testing.assert_array_equal(found["kron_flux"], flux)
    np.testing.assert_array_equal(found["kron_flux_err"], error)
    np.testing.assert_array_equal(found["kron_radius"], kron)
    np.testing.assert_array_equal(found["half_light_radius"], half)
    np.testing.assert_array_equal(found["snr"], flux / error)
    np.testing.assert_array_equal(found["sep_flags"] & 0xFF, o["flag"] | kron_flag | flag)
    kept = found["sep_flags"] & extraction.WINDOW_FAILED == 0
    assert kept.mean() > 0.5
    np.testing.assert_array_equal(found["x_centroid_win"], np.where(kept, x, o["x"]))
    np.testing.assert_array_equal(found["y_centroid_win"], np.where(kept, y, o["y"]))


def test_error_of_the_isophotal_flux() -> None:
    image = field()
    for gain, photons in ((np.nan, 0.0), (5.0, 0.2)):
        found = extract(image, gain=gain).columns
        expected = np.sqrt(found["segment_area"] * NOISE**2 + photons * found["flux"])
        np.testing.assert_allclose(found["flux_err"], expected, rtol=1e-6)


def test_small_kron_apertures_are_circles() -> None:
    image = field()
    found, o = extract(image, kron_params=(2.5, 0.0, 6.0)).columns, by_sep(image)
    kron, _ = sep.kron_radius(image, o["x"], o["y"], o["a"], o["b"], o["theta"], 6.0)
    small = 2.5 * kron * np.sqrt(o["a"] * o["b"]) < 6.0
    assert 0 < small.sum() < small.size
    np.testing.assert_array_equal(found["sep_flags"] & extraction.KRON_CIRCULAR != 0, small)
    circle, _, _ = sep.sum_circle(image, o["x"], o["y"], 6.0, subpix=0)
    np.testing.assert_allclose(found["kron_flux"][small], circle[small], rtol=1e-6)
    np.testing.assert_array_equal(found["kron_radius"], kron)


# ---- against the truth ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("angle", [-60.0, 0.0, 30.0, 90.0])
def test_an_elongated_source(angle: float) -> None:
    image = star((80, 90), 41.3, 37.8, 3e4, a=4.0, b=2.0, angle=angle).astype(np.float32)
    found = {k: v[0] for k, v in extract(image, kernel=None, threshold=0.01, absolute=True).columns.items()}
    assert (found["x_centroid"], found["y_centroid"]) == pytest.approx((41.3, 37.8), abs=0.01)
    assert (found["x_centroid_win"], found["y_centroid_win"]) == pytest.approx((41.3, 37.8), abs=1e-3)
    assert (found["semimajor_axis"], found["semiminor_axis"]) == pytest.approx((4.0, 2.0), rel=0.03)
    assert np.abs((found["orientation"] - angle + 90) % 180 - 90) < 0.5
    assert found["flux"] == pytest.approx(3e4, rel=1e-3)
    assert found["kron_flux"] == pytest.approx(3e4, rel=0.01)


def test_half_light_radius_of_a_gaussian() -> None:
    image = star((80, 80), 40.0, 40.0, 1e5, a=4.0).astype(np.float32)
    found = extract(image).columns
    assert found["half_light_radius"][0] == pytest.approx(4.0 * np.sqrt(2 * np.log(2)), rel=0.02)


def test_fluxes_scatter_as_their_errors_say() -> None:
    pulls = []
    for seed in range(150):
        rng = np.random.default_rng(seed)
        truth = star((30, 30), 15 + rng.uniform(-0.5, 0.5), 15, 4000.0)
        image = truth + rng.normal(0, NOISE, (30, 30)) + rng.normal(size=(30, 30)) * np.sqrt(truth / 2.0)
        found = extract(image.astype(np.float32), gain=2.0).columns
        pulls.append((found["kron_flux"][0] - 4000.0) / found["kron_flux_err"][0])
    assert 0.8 < np.std(pulls) < 1.25
    assert abs(np.mean(pulls)) < 1.0


@settings(max_examples=20)
@given(dx=st.integers(0, 40), dy=st.integers(0, 40))
def test_sources_move_with_the_image(dx: int, dy: int) -> None:
    """Wherever they lie in the array, they are measured alike."""
    sky = np.zeros((90, 95), dtype=np.float32)
    sky[dy : dy + 50, dx : dx + 50] = (
        field((50, 50), 0) * 0.1 + star((50, 50), 20, 22, 4e3) + star((50, 50), 31, 30, 2e3)
    )
    found, first = extract(sky).columns, extract(np.roll(sky, (-dy, -dx), (0, 1))[:60, :60]).columns
    assert found["flux"].size == 2
    for name in COLUMNS:
        shift = {"x": dx, "y": dy}.get(name[0], 0) if "centroid" in name else 0
        np.testing.assert_allclose(found[name], first[name] + shift, rtol=1e-6, atol=1e-9, err_msg=name)


# ---- order, limit, segmentation -------------------------------------------------------------------------------------


def test_brightest_first_and_no_more_than_the_limit() -> None:
    image = field()
    every = extract(image)
    assert (np.diff(every.columns["flux"]) <= 0).all()
    for limit in (1, 7, 1000):
        some = extract(image, limit=limit)
        assert some.n_sources == every.n_sources == every.columns["flux"].size
        for name, column in every.columns.items():
            np.testing.assert_array_equal(some.columns[name], column[:limit])
        np.testing.assert_array_equal(some.segmentation, np.where(every.segmentation <= limit, every.segmentation, 0))


def test_segmentation_names_the_rows() -> None:
    image = field()
    found = extract(image)
    labels = found.segmentation
    assert (labels.dtype, labels.shape) == (np.int32, image.shape)
    np.testing.assert_array_equal(np.bincount(labels.ravel())[1:], found.columns["segment_area"])
    flux = np.bincount(labels.ravel(), weights=image.ravel().astype(float))[1:]
    np.testing.assert_allclose(flux, found.columns["flux"], rtol=1e-5)


# ---- bad pixels, nothing to find ------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["mask", "nan", "inf", "no variance", "zero variance"])
def test_all_ways_of_being_bad_are_one(how: str) -> None:
    image, holes = field(), np.zeros((120, 100), dtype=bool)
    holes[40:50, 20:60] = True
    expected = extract(image, holes)
    pixels, bad, variance = image.copy(), np.zeros_like(holes), np.full(image.shape, NOISE**2, np.float32)
    if how == "mask":
        pixels[holes], bad = 1e9, holes
    elif how in ("nan", "inf"):
        pixels[holes] = float(how)
    else:
        variance[holes] = np.nan if how == "no variance" else 0.0
    found = extract_sources(pixels, bad, variance, np.nan, threshold=Threshold(), detection=Detection())
    for name, column in expected.columns.items():
        np.testing.assert_array_equal(found.columns[name], column)


def test_an_absolute_threshold_needs_no_variance() -> None:
    image = field()
    found = extract_sources(
        image,
        np.zeros(image.shape, bool),
        image * np.nan,
        1.0,
        threshold=Threshold(20.0, absolute=True),
        detection=Detection(),
    )
    expected = extract(image, threshold=20.0, absolute=True)
    np.testing.assert_array_equal(found.columns["kron_flux"], expected.columns["kron_flux"])
    for name in ("flux_err", "kron_flux_err", "snr"):
        assert np.isnan(found.columns[name]).all()


@pytest.mark.parametrize("case", ["all bad", "all nan", "no pixel", "flat", "one pixel"])
def test_nothing_to_find_is_an_empty_catalog(case: str) -> None:
    image = np.zeros({"no pixel": (0, 5), "one pixel": (1, 1)}.get(case, (20, 30)), dtype=np.float32)
    bad = np.full(image.shape, case == "all bad")
    found = extract(image * np.nan if case == "all nan" else image, bad)
    assert found.n_sources == 0
    assert found.status == (0 if case in ("flat", "one pixel") else extraction.NO_GOOD_PIXELS)
    assert set(found.columns) == {*COLUMNS, "sep_flags"}
    for name, column in found.columns.items():
        assert (column.shape, column.dtype) == ((0,), SPECS[name].dtype)
    assert (found.segmentation.shape, found.segmentation.dtype) == (image.shape, np.int32)


def test_moments_that_overflow_are_left_out() -> None:
    found = extract(np.full((30, 30), 1e38, dtype=np.float32))
    assert found.n_sources == found.columns["flux"].size == 0
    assert not found.segmentation.any()


@pytest.mark.parametrize("dtype", [">f4", "f8", ">f8", "i2", ">i4"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_any_kind_of_array(dtype: str, order: Any) -> None:
    image = np.rint(field())
    found = extract(np.asarray(image.astype(dtype), order=order))
    expected = extract(image)
    for name, column in expected.columns.items():
        np.testing.assert_array_equal(found.columns[name], column)


def test_input_stays_as_it_was() -> None:
    image, bad = field(), np.zeros((120, 100), dtype=bool)
    bad[3:5] = True
    image[7, 7] = np.nan
    before = image.copy(), bad.copy()
    extract(image, bad)
    np.testing.assert_array_equal(image, before[0])
    np.testing.assert_array_equal(bad, before[1])


# ---- crowded frames -------------------------------------------------------------------------------------------------


def test_a_full_pixel_buffer_is_enlarged() -> None:
    image = field()
    expected = extract(image)
    sep.set_extract_pixstack(100)
    with pytest.raises(Exception, match="pixel buffer full"):
        by_sep(image)
    found = extract(image)
    assert (found.status, found.threshold_factor) == (extraction.BUFFER_GROWN, 1.0)
    assert sep.get_extract_pixstack() == 100
    for name, column in expected.columns.items():
        np.testing.assert_array_equal(found.columns[name], column)


def blend() -> NDArray[np.float32]:
    """Many stars within one isophote."""
    grid = [(x, y) for x in range(20, 100, 8) for y in range(20, 100, 8)]
    image = sum(star((120, 120), x, y, 3e3 + 10 * x + y, a=1.8) for x, y in grid)
    return np.asarray(image + 20.0, dtype=np.float32)


def test_a_limit_of_sub_objects_is_raised() -> None:
    image = blend()
    expected = extract(image, contrast=1e-4)
    assert expected.n_sources == 100
    sep.set_sub_object_limit(3)
    with pytest.raises(Exception, match="deblending overflow"):
        by_sep(image, deblend_cont=1e-4)
    found = extract(image, contrast=1e-4)
    assert (found.status, found.threshold_factor) == (extraction.LIMIT_GROWN, 1.0)
    assert sep.get_sub_object_limit() == 3
    for name, column in expected.columns.items():
        np.testing.assert_array_equal(found.columns[name], column)


def test_what_no_limit_helps_gets_a_higher_threshold(monkeypatch: pytest.MonkeyPatch) -> None:
    image = blend()
    monkeypatch.setattr(extraction, "_MOST_SUB_OBJECTS", 3)
    sep.set_sub_object_limit(3)
    found = extract(image, contrast=1e-4)
    assert found.status == extraction.THRESHOLD_RAISED
    assert found.threshold_factor > 1.0
    again = extract(image, contrast=1e-4, threshold=5.0 * found.threshold_factor)
    assert again.status == 0
    np.testing.assert_array_equal(found.columns["flux"], again.columns["flux"])
    assert found.n_sources > 50


def test_sub_objects_stay_within_what_sep_can_count() -> None:
    """It numbers them in 16 bits."""
    assert np.iinfo(np.int16).max >= extraction._MOST_SUB_OBJECTS


def test_every_pixel_may_be_active() -> None:
    sep.set_extract_pixstack(10)
    found = extract(np.full((30, 30), 50.0, dtype=np.float32))
    assert (found.n_sources, found.status) == (1, extraction.BUFFER_GROWN)


def test_other_troubles_of_sep_are_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: Any, **kwargs: Any) -> None:
        raise Exception("memory allocation error")

    monkeypatch.setattr(sep, "extract", broken)
    sep.set_extract_pixstack(100)
    with pytest.raises(Exception, match="memory allocation"):
        extract(field())
    assert sep.get_extract_pixstack() == 100


def test_threads_do_not_disturb_each_other() -> None:
    """The settings that one of them raises neither help nor outlive another."""
    sep.set_extract_pixstack(200)
    images = [field(n=40, seed=i) if i % 2 else field(n=1, seed=i) for i in range(16)]
    expected = [extract(image) for image in images]
    assert {e.status for e in expected} == {0, extraction.BUFFER_GROWN}
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(extract, images))
    assert sep.get_extract_pixstack() == 200
    for one, two in zip(found, expected, strict=True):
        assert one.status == two.status
        for name, column in two.columns.items():
            np.testing.assert_array_equal(one.columns[name], column)


# ---- names ----------------------------------------------------------------------------------------------------------


def test_planes_are_those_of_the_schema() -> None:
    source, image = ({p.name: p.value for p in planes} for planes in (SOURCE_PLANES, EXTRACTION_PLANES))
    theirs = {
        "deblended": sep.OBJ_MERGED,
        "truncated": sep.OBJ_TRUNC,
        "deblend_overflow": sep.OBJ_DOVERFLOW,
        "singular": sep.OBJ_SINGU,
        "aperture_truncated": sep.APER_TRUNC,
        "aperture_masked": sep.APER_HASMASKED,
        "aperture_all_masked": sep.APER_ALLMASKED,
        "kron_nonpositive": sep.APER_NONPOSITIVE,
    }
    ours = {
        "kron_circular": extraction.KRON_CIRCULAR,
        "window_failed": extraction.WINDOW_FAILED,
        "empty": extraction.EMPTY,
    }
    assert source == {k: int(v) for k, v in theirs.items()} | ours
    assert image == {
        "pixel_buffer_grown": extraction.BUFFER_GROWN,
        "deblend_limit_grown": extraction.LIMIT_GROWN,
        "threshold_raised": extraction.THRESHOLD_RAISED,
        "no_good_pixels": extraction.NO_GOOD_PIXELS,
    }
    assert all(SPECS[name].dtype == "float64" for name in COLUMNS)


def test_flags_of_blends_edges_and_holes() -> None:
    image, bad = np.zeros((60, 60), dtype=np.float32), np.zeros((60, 60), dtype=bool)
    for x, y, flux in ((15, 15, 9e3), (20, 15, 8e3), (59, 40, 7e3), (30, 45, 6e3), (45, 15, 5e3)):
        image += star(image.shape, x, y, flux).astype(np.float32)
    bad[48, 28:33] = True
    found = extract(image, bad).columns
    planes = {p.name: (found["sep_flags"] & p.value) != 0 for p in SOURCE_PLANES}
    x, y = found["x_centroid"].round(), found["y_centroid"].round()
    np.testing.assert_array_equal(planes["deblended"], (y == 15) & (x < 30))
    np.testing.assert_array_equal(planes["truncated"], x > 55)
    np.testing.assert_array_equal(planes["aperture_truncated"], x > 55)
    np.testing.assert_array_equal(planes["aperture_masked"], y == 45)
    assert found["sep_flags"][(x == 45) & (y == 15)].tolist() == [0]
    assert x.size == 5
