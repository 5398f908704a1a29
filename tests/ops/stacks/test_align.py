"""Alignment by WCS, by catalogs and by stars; failures keep their place with a reason."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
import xarray as xr
from astropy.io import fits
from astropy.table import Table
from numpy.typing import NDArray
from scipy import ndimage

import ztfxr
from tests.conftest import MakeHeader
from ztfxr.arrays.geometry.transform import Transform
from ztfxr.arrays.statistics import mad_std
from ztfxr.errors import AlignmentError, ChunkError, FrameError, InputError, MissingWCSError
from ztfxr.io.frames import open_frames
from ztfxr.ops.stacks.align import align
from ztfxr.ops.stacks.register import register, transform_of
from ztfxr.schema import STATUS_PLANES, planes_to_bits
from ztfxr.wcs import assign_wcs, get_wcs, pixel_to_sky, same_grid, sky_to_pixel

SHAPE = (300, 320)
SIGMA = 2.2 / 2.3548
NOT_REGISTERED = planes_to_bits(["not_registered"], STATUS_PLANES)
OUTSIDE = planes_to_bits(["outside"])


def stars(n: int = 80, seed: int = 0) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    rng = np.random.default_rng(seed)
    return rng.uniform(-40, 360, n), rng.uniform(-40, 340, n), rng.pareto(1.5, n) * 3000 + 2000


def picture(x: Any, y: Any, flux: Any, *, seed: int = 0, noise: float = 4.0) -> NDArray[np.float32]:
    """Stars of FWHM 2.2 pixels on a sky of 100 DN."""
    out = np.random.default_rng(seed).normal(100.0, noise, SHAPE) if noise else np.full(SHAPE, 0.0)
    for px, py, f in zip(x, y, flux, strict=True):
        cy, cx = round(py), round(px)
        rows, columns = (slice(max(c - 12, 0), max(c + 13, 0)) for c in (cy, cx))
        yy, xx = np.mgrid[: SHAPE[0], : SHAPE[1]][:, rows, columns]
        out[rows, columns] += f * np.exp(-((xx - px) ** 2 + (yy - py) ** 2) / (2 * SIGMA**2)) / (2 * np.pi * SIGMA**2)
    return out.astype(np.float32)


def frame(pixels: NDArray[Any], header: fits.Header | None = None, **coords: Any) -> xr.Dataset:
    grid = {d: np.arange(n) for d, n in zip(("y", "x"), pixels.shape, strict=True)}
    out = xr.Dataset(
        {"sci": (("y", "x"), pixels), "flags": (("y", "x"), np.zeros(pixels.shape, np.uint16))}, {**grid, **coords}
    )
    return out if header is None else assign_wcs(out, header)


@pytest.fixture
def headers(wcs_header: MakeHeader) -> tuple[fits.Header, fits.Header]:
    """Two TPV headers, a second pointing 25 arcsec off and turned by half a degree."""
    first = wcs_header(SHAPE)
    second = wcs_header(SHAPE, crval=(150.307, 20.704))
    matrix = np.array([[second["CD1_1"], second["CD1_2"]], [second["CD2_1"], second["CD2_2"]]])
    turn = np.deg2rad(0.5)
    matrix = matrix @ np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    for i in (0, 1):
        for j in (0, 1):
            second[f"CD{i + 1}_{j + 1}"] = matrix[i, j]
    return first, second


@pytest.fixture
def pair(headers: tuple[fits.Header, fits.Header]) -> tuple[xr.Dataset, xr.Dataset]:
    """The same stars seen through two WCS: an image and its target."""
    target = frame(np.zeros(SHAPE, np.float32), headers[0], mjd=59000.0)
    image = frame(np.zeros(SHAPE, np.float32), headers[1], mjd=59001.0, magzp=26.0)
    x, y, flux = stars()
    there = sky_to_pixel(image, pixel_to_sky(target, x, y))
    image["sci"][:] = picture(*there, flux, seed=1)
    target["sci"][:] = picture(x, y, flux, seed=2)
    return image, target


# ---- by WCS ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(300, 320), (3080, 3072)])
def test_the_coarse_map_is_astropys(wcs_header: MakeHeader, size: tuple[int, int]) -> None:
    lazy = xr.DataArray(np.broadcast_to(np.float32(0), size), dims=("y", "x"))
    to = assign_wcs(lazy, wcs_header(size))
    image = assign_wcs(lazy, wcs_header(size, crval=(150.52, 20.61) if size[0] > 1000 else (150.32, 20.69)))
    found = register(image, to, method="wcs", max_rms=1e-3)
    assert int(found["epoch_status"]) == 0
    transform = transform_of(found)
    x, y = (p.ravel() for p in np.meshgrid(np.arange(0, size[1], size[1] / 41), np.arange(0, size[0], size[0] / 37)))
    px, py = get_wcs(image).all_world2pix(*get_wcs(to).all_pix2world(x, y, 0), 0)
    inside = (px >= -0.5) & (px <= size[1] - 0.5) & (py >= -0.5) & (py <= size[0] - 0.5)
    assert inside.mean() > 0.5
    mx, my = transform(x, y)
    assert np.hypot(mx - px, my - py)[inside].max() < 1e-3


def test_frames_without_overlap(wcs_header: MakeHeader) -> None:
    image, to = (frame(picture([], [], []), wcs_header(SHAPE, crval=c)) for c in ((10.0, -3.0), (150.0, 20.0)))
    found = register(image, to)
    assert int(found["epoch_status"]) == NOT_REGISTERED
    assert "does not overlap the target" in str(found["message"].values)
    assert np.isnan(found["coefficients"]).all()
    with pytest.raises(AlignmentError, match="does not overlap"):
        align(image, to)


def test_stars_come_to_their_place_with_their_flux(pair: Any) -> None:
    image, to = pair
    x, y, flux = stars()
    image["sci"][:] = picture(*sky_to_pixel(image, pixel_to_sky(to, x, y)), flux, noise=0)
    truth = picture(x, y, flux, noise=0)
    found = align(image, to, method="wcs")["sci"].values
    good = np.isfinite(found)
    assert good.mean() > 0.75
    assert np.abs(found - truth)[good].max() < 0.03 * truth.max()
    alone = [i for i in range(len(x)) if np.sort(np.hypot(x - x[i], y - y[i]))[1] > 16]
    n = 0
    for i in alone:
        cy, cx = round(y[i]), round(x[i])
        cut = np.s_[max(cy - 7, 0) : cy + 8, max(cx - 7, 0) : cx + 8]
        if not (8 < cy < SHAPE[0] - 8 and 8 < cx < SHAPE[1] - 8) or np.isnan(found[cut]).any():
            continue
        yy, xx = np.mgrid[cut]
        total = found[cut].sum()
        assert total == pytest.approx(flux[i], rel=1e-3)
        assert np.hypot((found[cut] * xx).sum() / total - x[i], (found[cut] * yy).sum() / total - y[i]) < 0.01
        n += 1
    assert n > 10


def test_labels_are_the_targets_and_the_epoch_the_images(pair: Any) -> None:
    image, to = pair
    found = align(image, to)
    same_grid(found, to)
    assert float(found["mjd"]) == 59001.0
    assert float(found["magzp"]) == 26.0
    assert found.attrs["wcs_header"] == to.attrs["wcs_header"]
    assert found["sci"].attrs["units"] == "DN"
    assert float(align(image, to, check=False)["registration_rms"]) < 5e-4
    assert float(found["registration_rms"]) < 0.05
    outside = np.isnan(found["sci"].values)
    assert 0.01 < outside.mean() < 0.3
    np.testing.assert_array_equal(found["flags"], np.where(outside, OUTSIDE, 0))
    cut = align(image, to.isel(y=slice(40, 90), x=slice(100, 130)))
    same_grid(cut, to.isel(y=slice(40, 90), x=slice(100, 130)))
    np.testing.assert_allclose(cut["sci"], found["sci"].isel(y=slice(40, 90), x=slice(100, 130)), rtol=2e-5)


def test_windows_of_one_frame_copy(pair: Any) -> None:
    image, _ = pair
    found = align(image.isel(y=slice(20, 200), x=slice(30, 320)), image)
    inside = found.isel(y=slice(20, 200), x=slice(30, 320))
    np.testing.assert_array_equal(inside["sci"], image["sci"].isel(y=slice(20, 200), x=slice(30, 320)))
    assert int(np.isfinite(found["sci"]).sum()) == 180 * 290
    assert (found["flags"].values[:20] == OUTSIDE).all()


def test_variance_and_flags_travel(pair: Any) -> None:
    image, to = pair
    image["variance"] = image["sci"].copy(data=np.full(SHAPE, 16.0, np.float32))
    image["flags"][150, 160] = planes_to_bits(["dead"])
    image["flags"][100, 60] = planes_to_bits(["sexsources"])
    image["sci"][150, 160] = 1e9
    found = align(image, to)
    assert list(found.data_vars) == ["sci", "variance", "flags"]
    bad = (found["flags"] & planes_to_bits(["dead"])).values > 0
    assert 9 <= bad.sum() <= 36
    np.testing.assert_array_equal(np.isnan(found["sci"].values) & (found["flags"].values != OUTSIDE), bad)
    image["flags"][150, 160] = 0
    image["sci"][150, 160] = np.nan
    nan = align(image, to)["flags"].values == planes_to_bits(["nan"])
    np.testing.assert_array_equal(nan, bad)
    image["sci"][150, 160] = 1e9
    np.testing.assert_array_equal(np.isnan(found["variance"]), np.isnan(found["sci"]))
    assert int((found["flags"] == planes_to_bits(["sexsources"])).sum()) == 1
    assert float(found["sci"].max()) < 1e6
    kept = align(image, to, mask=False, cosmic_rays=False)
    assert float(kept["sci"].max()) > 1e8


# ---- a WCS that stars check ------------------------------------------------------------------------------------------


def wrong(image: xr.Dataset, header: fits.Header, x: float, y: float, scale: float = 1.0) -> xr.Dataset:
    """The image with a WCS by which stars should lie (x, y) pixels from where they are, and farther apart."""
    header = header.copy()
    header["CRPIX1"] += x
    header["CRPIX2"] += y
    for card in ("CD1_1", "CD1_2", "CD2_1", "CD2_2"):
        header[card] /= scale
    return frame(image["sci"].values, header, mjd=59001.0)


def test_a_wcs_that_is_right_stays_as_it_is(pair: Any) -> None:
    image, to = pair
    found, trusting = align(image, to), align(image, to, check=False)
    np.testing.assert_array_equal(found["sci"], trusting["sci"])
    assert int(found["n_matched"]) > 30
    assert np.hypot(found["registration_shift_x"], found["registration_shift_y"]) < 0.02
    assert np.isnan(trusting["registration_shift_x"])


@pytest.mark.parametrize(
    ("x", "y", "scale", "limit"),
    [(0.3, -0.2, 1.0, 0.02), (5.3, -6.2, 1.0, 0.02), (1.0, 0.5, 1.002, 0.04), (70.0, 30.0, 1.0, 0.1)],
)
def test_a_wcs_that_is_wrong_is_corrected(
    pair: Any, headers: Any, x: float, y: float, scale: float, limit: float
) -> None:
    """By a shift, by scale and shift, and by the pattern of the stars where it is far off."""
    image, to = pair
    right, found = align(image, to), align(wrong(image, headers[1], x, y, scale), to)
    both = np.isfinite(right["sci"].values) & np.isfinite(found["sci"].values)
    assert both.mean() > 0.6
    step = np.nan_to_num(np.abs(np.gradient(right["sci"].values)).max(axis=0)[both], nan=np.inf)
    off = np.abs((found["sci"] - right["sci"]).values)[both]
    assert (off < 1.5 * limit * step + 4.0).mean() > 0.999
    assert float(found["registration_rms"]) < 0.1
    shift = (float(found["registration_shift_x"]), float(found["registration_shift_y"]))
    np.testing.assert_allclose(shift, (-x, -y), atol=0.05 if scale == 1.0 else 0.4)


def test_hot_pixels_do_not_confirm_a_wcs(wcs_header: MakeHeader) -> None:
    """A WCS that was never updated says that nothing moved, and so do warm blobs; the stars know better."""
    rng, (x, y, flux) = np.random.default_rng(8), stars(60)
    blobs = np.zeros(SHAPE, np.float32)
    for row, column in zip(rng.integers(3, 297, 120), rng.integers(3, 317, 120), strict=True):
        blobs[row - 1 : row + 2, column - 1 : column + 2] = 400.0
    image, to = (
        frame(picture(x + dx, y + dy, flux, seed=i) + blobs, wcs_header(SHAPE))
        for i, (dx, dy) in enumerate([(2.2, -1.4), (0.0, 0.0)])
    )
    found = align(image, to)
    shift = (float(found["registration_shift_x"]), float(found["registration_shift_y"]))
    np.testing.assert_allclose(shift, (2.2, -1.4), atol=0.03)


def test_a_field_that_is_not_where_the_wcs_says_is_refused(pair: Any, headers: Any) -> None:
    image, to = pair
    other = frame(picture(*stars(100, seed=77), seed=3), headers[1], mjd=59001.0)
    with pytest.raises(AlignmentError, match="do not lie where their WCS say") as caught:
        align(other, to)
    assert caught.value.status == "not_registered"
    assert np.isfinite(align(other, to, check=False)["sci"]).mean() > 0.5
    nodes = {"good": image.assign_coords(time=time(0)), "other": other.assign_coords(time=time(1))}
    for tree in ({k: f.chunk() for k, f in nodes.items()}, nodes):
        found = align(xr.DataTree.from_dict(tree), to=to).compute()
        assert found["epoch_status"].values.tolist() == [0, NOT_REGISTERED]
        np.testing.assert_array_equal(found["sci"][0], align(image, to)["sci"])
        assert np.isnan(found["sci"][1]).all()
        assert (found["flags"][1] == OUTSIDE).all()
        assert np.isfinite(found["registration_shift_x"].values).tolist() == [True, False]


def test_too_few_stars_judge_no_wcs(pair: Any, headers: Any) -> None:
    _, to = pair
    sparse = frame(picture(*stars(4, seed=77), seed=3), headers[1])
    found = align(sparse, to)
    assert (int(found["n_matched"]), int(found["epoch_status"])) == (0, 0)
    np.testing.assert_array_equal(found["sci"], align(sparse, to, check=False)["sci"])


def test_rise_and_decam(shared: Path) -> None:
    """Frames whose WCS is off by up to 1.3 px at the corners; stamps that count as aligned, but are 0.7 px apart."""
    folder = shared / "data"
    rise = [ztfxr.open_frame(p, camera="rise").load() for p in sorted((folder / "rise").glob("*.gz"))]
    for image, to in itertools.permutations(rise, 2):
        found = align(image, to)
        assert float(found["registration_rms"]) < 0.1
        assert int(found["n_matched"]) > 30
    paths = sorted((folder / "decam_minis").glob("*a.mini*"))
    decam = [ztfxr.open_frame(p, camera="decam", mask=False).load() for p in paths]
    before, after = (ztfxr.difference(align(decam[0], decam[1], check=c), decam[1]) for c in (False, True))
    shift = [float(np.hypot(d["kernel_shift_y"], d["kernel_shift_x"])) for d in (before, after)]
    assert shift[1] < 0.35 < 0.7 < shift[0]


def test_an_image_without_flags_gets_a_mask(pair: Any) -> None:
    image, to = pair
    found = align(image["sci"], to["sci"])
    assert list(found.data_vars) == ["sci", "mask"]
    np.testing.assert_array_equal(found["mask"], np.isnan(found["sci"]))


def test_by_wcs_nothing_is_computed(pair: Any, raising_scheduler: Any) -> None:
    image, to = (f.chunk() for f in pair)
    found = align(image, to)
    assert all(v.chunks is not None for v in found.data_vars.values())
    description = register(image, to)
    assert description["coefficients"].chunks is None
    with dask.config.set(scheduler="synchronous"):
        xr.testing.assert_identical(found.compute(), align(*pair))


def test_chunks_in_time_change_nothing(pair: Any) -> None:
    image, to = pair
    epochs = xr.concat([image, image + 1, image * 2], "time", coords="minimal", compat="override")
    epochs["flags"] = epochs["flags"].astype("u2")
    epochs["flags"][1, 50:60, 50:60] = 256
    whole = align(epochs, to)
    assert whole["sci"].dims == ("time", "y", "x")
    for n in (1, 2, 3):
        xr.testing.assert_identical(align(epochs.chunk(time=n), to).compute(), whole)
    np.testing.assert_array_equal(whole["sci"][0], align(image, to)["sci"])
    with pytest.raises(ChunkError, match="chunks along 'y'"):
        align(epochs.chunk(y=100), to)


def test_other_kinds_by_wcs(pair: Any) -> None:
    shift = register(*pair, method="wcs", kind="shift", max_rms=5.0)
    assert shift.attrs["kind"] == "shift"
    assert 0.3 < float(shift["registration_rms"]) < 5
    affine = register(*pair, method="wcs", kind="affine", max_rms=5.0)
    assert float(affine["registration_rms"]) < 0.05


def test_no_wcs_to_register_by(pair: Any) -> None:
    image, to = pair
    with pytest.raises(MissingWCSError, match=r"the image has no celestial WCS; register by stars"):
        register(frame(image["sci"].values), to, method="wcs")
    with pytest.raises(MissingWCSError, match="the target has no celestial WCS"):
        align(image, frame(to["sci"].values), method="wcs")


# ---- by stars and catalogs -----------------------------------------------------------------------------------------


TRUTH = Transform.similarity(np.exp(0.02j), 21.3 - 14.8j)


def moved(seed: int = 1, **coords: Any) -> xr.Dataset:
    x, y, flux = stars(150)
    return frame(picture(*TRUTH(x, y), flux, seed=seed), **coords)


@pytest.fixture
def target() -> xr.Dataset:
    return frame(picture(*stars(150), seed=9))


def test_by_stars(target: xr.Dataset) -> None:
    found = register(moved(), target)
    assert int(found["epoch_status"]) == 0
    assert 0 < float(found["registration_rms"]) < 0.1
    assert int(found["n_matched"]) > 30
    x, y = np.meshgrid(np.linspace(0, 300, 5), np.linspace(0, 300, 5))
    np.testing.assert_allclose(transform_of(found)(x, y), TRUTH(x, y), atol=0.05)
    aligned = align(moved(), target, method="stars")
    good = np.isfinite(aligned["sci"].values)
    assert 4 < mad_std((aligned["sci"] - target["sci"]).values[good]) < 6.5
    assert float(aligned["n_matched"]) == int(found["n_matched"])


def test_a_target_without_its_brightest_stars(target: xr.Dataset) -> None:
    """As a coadd is, where the saturated cores of its epochs are masked."""
    cores = target["sci"] > np.sort(target["sci"].values.ravel())[-60]
    image = moved(saturate=float(target["sci"].values[cores.values].min()))
    masked = target.assign(
        sci=target["sci"].where(~cores), flags=(cores * planes_to_bits(["saturated"])).astype(np.uint16)
    )
    assert int(cores.sum()) > 50
    np.testing.assert_allclose(transform_of(register(image, masked))(100.0, 200.0), TRUTH(100.0, 200.0), atol=0.05)


def test_a_description_is_a_transform(target: xr.Dataset) -> None:
    image = moved()
    found = register(image, target, kind="polynomial", order=2)
    again = xr.Dataset.from_dict(json.loads(json.dumps(found.to_dict())))
    xr.testing.assert_identical(align(image, target, transform=again), align(image, target, kind="polynomial", order=2))
    xr.testing.assert_identical(
        align(image, target, transform=found), align(image, target, transform=transform_of(found))
    )


def test_residuals_too_large_are_reported(target: xr.Dataset) -> None:
    found = register(moved(), target, max_rms=1e-3)
    assert int(found["epoch_status"]) == NOT_REGISTERED
    assert np.isfinite(found["coefficients"]).all()
    assert "more than max_rms = 0.001" in str(found["message"].values)
    with pytest.raises(AlignmentError, match=r"px rms .* more than max_rms"):
        align(moved(), target, max_rms=1e-3)
    with pytest.raises(AlignmentError, match="more than max_rms"):
        align(moved(), target, transform=found)


def test_a_field_without_common_stars(target: xr.Dataset) -> None:
    other = frame(picture(*stars(100, seed=77), seed=3))
    with pytest.raises(AlignmentError, match="no common star pattern") as caught:
        align(other, target)
    assert caught.value.status == "not_registered"
    with pytest.raises(AlignmentError, match="a pattern needs at least 4"):
        align(frame(picture([], [], [])), target)


def catalogs() -> tuple[dict[str, Any], dict[str, Any]]:
    """Two catalogs in different orders, each with entries of its own, one of them wrong."""
    x, y, flux = stars(60)
    px, py = TRUTH(x, y)
    px[3] += 40
    order = np.random.default_rng(0).permutation(60)[:50]
    target = {"x": x, "y": y, "flux": flux, "id": np.arange(60), "ra": 10 + x / 3600, "dec": y / 3600}
    source = {"x": px, "y": py, "flux": flux, "id": np.arange(60), "ra": 10 + x / 3600, "dec": y / 3600}
    return {k: v[order] for k, v in source.items()}, target


@pytest.mark.parametrize("columns", ["x y id", "x y ra dec", "x y flux"])
@pytest.mark.parametrize("form", [dict, Table])
def test_by_catalogs(target: xr.Dataset, columns: str, form: Any) -> None:
    pair = [form({k: c[k] for k in columns.split()}) for c in catalogs()]
    found = register(moved(), target, catalogs=(pair[0], pair[1]))
    assert int(found["epoch_status"]) == 0
    assert int(found["n_matched"]) >= 40
    np.testing.assert_allclose(transform_of(found)(100.0, 200.0), TRUTH(100.0, 200.0), atol=1e-5)
    assert "sci" in align(moved(), target, method="catalogs", catalogs=(pair[0], pair[1]))


def test_catalogs_that_do_not_help(target: xr.Dataset) -> None:
    sky = {"ra": [1.0, 2.0], "dec": [3.0, 4.0]}
    with pytest.raises(InputError, match="needs pixel positions"):
        register(moved(), target, catalogs=(sky, sky))
    with pytest.raises(InputError, match="needs catalogs="):
        register(moved(), target, method="catalogs")
    source, wanted = catalogs()
    found = register(moved(), target, catalogs=({**source, "id": source["id"] + 1000}, wanted))
    assert "0 stars in common" in str(found["message"].values)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "sky"}, "method is one of auto, wcs, catalogs, stars; got 'sky'"),
        ({"kind": "rotation"}, "kind is one of shift, affine, polynomial"),
        ({"kind": "polynomial", "order": 9}, "order of a polynomial transform is 1 to 8"),
        ({"interpolation": "nearest"}, "interpolation is one of"),
        ({"to": "name"}, "names a frame of a tree"),
    ],
)
def test_wrong_options(target: xr.Dataset, options: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        align(moved(), **{"to": target, **options})


def test_a_time_stack_is_not_matched_by_stars(target: xr.Dataset) -> None:
    with pytest.raises(InputError, match="align a DataTree of frames"):
        align(target.expand_dims(time=2), target)


# ---- trees -----------------------------------------------------------------------------------------------------------


def time(day: int) -> np.datetime64:
    return np.datetime64("2020-01-01", "ns") + np.timedelta64(day, "D")


@pytest.fixture
def tree(target: xr.Dataset) -> xr.DataTree:
    bits = planes_to_bits(["truncated"], STATUS_PLANES)
    return xr.DataTree.from_dict(
        {
            "later": moved(seed=1, time=time(3), gain=1.5).chunk(),
            "first": target.assign_coords(time=time(0), gain=1.5).chunk(),
            "blank": frame(picture([], [], [], seed=4), time=time(1), gain=1.5).chunk(),
            "other": frame(picture(*stars(100, seed=77)), time=time(2), gain=1.5).chunk(),
            "broken": xr.Dataset(attrs={"status": bits, "message": "cut off"}),
            "list": xr.Dataset({"a": ("n", [1, 2])}, {"time": time(4)}),
        }
    )


def test_a_tree_becomes_a_stack(tree: xr.DataTree, target: xr.Dataset) -> None:
    found = align(tree, to="first")
    assert found["frame"].values.tolist() == ["first", "blank", "other", "later", "list", "broken"]
    names = [[p.name for p in STATUS_PLANES if p.value & int(s)] for s in found["epoch_status"].values]
    assert names == [[], ["not_registered"], ["not_registered"], [], ["wrong_shape"], ["truncated"]]
    assert found["sci"].dims == ("time", "y", "x")
    assert found["sci"].chunks is not None
    assert "needs at least 4" in str(found["message"].values[1])
    assert "no common star pattern" in str(found["message"].values[2])
    assert found["message"].values[5] == "cut off"
    np.testing.assert_allclose(found["registration_rms"].values[[0, 3]], 0.03, atol=0.03)
    assert np.isnan(found["registration_rms"].values[[1, 2, 4, 5]]).all()
    assert (found["n_matched"].values[[0, 3]] > 30).all()
    pixels = found.compute()
    assert np.isnan(pixels["sci"].values[[1, 2, 4, 5]]).all()
    assert (pixels["flags"].values[1] == OUTSIDE).all()
    np.testing.assert_allclose(pixels["sci"].values[0], target["sci"].values, rtol=1e-5)
    alone = align(tree["later"].to_dataset(), target)
    np.testing.assert_array_equal(pixels["sci"].values[3], alone["sci"])
    eager = xr.DataTree.from_dict({k: v.to_dataset().compute() for k, v in tree.children.items()})
    xr.testing.assert_identical(align(eager, to="first").compute(), pixels)


def test_the_best_frame_is_the_sharpest(target: xr.Dataset) -> None:
    """By the coordinate `seeing` where all have it, else by their stars; frames with a status are no candidates."""
    blurred = target.assign(sci=target["sci"].copy(data=ndimage.gaussian_filter(target["sci"].values, 1.2)))
    frames = {"blurred": blurred.assign_coords(time=time(0)), "sharp": moved(seed=1, time=time(1))}
    frames["broken"] = xr.Dataset(attrs={"status": 1, "message": "lost"})
    measured = align(xr.DataTree.from_dict(frames), to="best")
    xr.testing.assert_identical(measured, align(xr.DataTree.from_dict(frames), to="sharp"))
    stated = {k: f.assign_coords(seeing=s) for (k, f), s in zip(frames.items(), (2.0, 3.0, 1.0), strict=True)}
    found = align(xr.DataTree.from_dict(stated), to="best")
    np.testing.assert_array_equal(found["sci"].values[0], align(blurred, to=blurred)["sci"])
    with pytest.raises(FrameError, match="none of the 1 frames can be used; broken: lost"):
        align(xr.DataTree.from_dict({"broken": frames["broken"]}), to="best")


def test_a_tree_by_wcs_is_lazy(pair: Any, raising_scheduler: Any) -> None:
    image, to = pair
    tree = xr.DataTree.from_dict({"a": image.assign_coords(time=time(0)).chunk(), "b": to.assign_coords(time=time(1))})
    found = align(tree, to=to)
    assert align(tree, to=to, check=False)["epoch_status"].values.tolist() == [0, 0]
    with dask.config.set(scheduler="synchronous"):
        assert found["epoch_status"].values.tolist() == [0, 0]
        np.testing.assert_array_equal(found["sci"].values[0], align(image, to)["sci"])
        np.testing.assert_array_equal(found["sci"].values[1], to["sci"])


def test_a_frame_that_breaks_while_it_is_read(tmp_path: Path, target: xr.Dataset) -> None:
    paths = [tmp_path / f"{k}.fits.gz" for k in ("a", "b")]
    for path in paths:
        header = fits.Header([("MJD-OBS", 59000.0), ("EXPTIME", 30.0)])
        fits.PrimaryHDU(moved()["sci"].values, header).writeto(path)
    paths[1].write_bytes(paths[1].read_bytes()[:-60_000])
    found = align(open_frames(paths, time="MJD-OBS"), to=target)
    names = [[p.name for p in STATUS_PLANES if p.value & int(s)] for s in found["epoch_status"].values]
    assert names == [[], ["truncated"]]
    assert np.isnan(found["sci"].values[1]).all()


def test_trees_that_cannot_be_aligned(tree: xr.DataTree, target: xr.Dataset) -> None:
    with pytest.raises(InputError, match=r"the tree has no frame 'last'; it has later, first, .*and 'best'"):
        align(tree, to="last")
    with pytest.raises(InputError, match="the tree holds no frames"):
        align(xr.DataTree(), to=target)
    with pytest.raises(InputError, match="one transform each"):
        align(tree, to=target, transform=Transform.shift())
    with pytest.raises(FrameError, match=r"none of the 6 frames can be used; .* more than max_rms"):
        align(tree, to=moved(seed=5), max_rms=1e-9)


def test_saao(shared: Path) -> None:
    paths = sorted((shared / "data" / "saao_kb13475").glob("*.fits.gz"))
    frames = open_frames(paths, saturate=60_000.0, seeing="PFWHM", filter="=I")
    found = align(frames, to="AKB13475I0104")
    assert found.sizes["time"] >= 58
    assert (found["epoch_status"] == 0).all()
    rms, seeing = found["registration_rms"].values, found["seeing"].values
    assert (rms <= 0.1).sum() >= 53
    assert rms[seeing < 6.5].max() <= 0.1
    assert rms.max() < 0.3
    assert found["n_matched"].values.min() > 60
    sharp = found.isel(time=np.flatnonzero(seeing < 5.2)).compute()
    assert sharp["sci"].notnull().mean() > 0.85


def test_cosmic_rays_are_left_out_before_they_are_spread() -> None:
    """A ray three pixels from a star: resampled, it would be part of the star's flux."""
    made = ztfxr.testing.make_scene(
        (160, 160), n_epochs=2, n_stars=40, n_galaxies=0, detector=ztfxr.testing.Detector(cosmic_rays=0), seed=3
    )
    image = made.images.isel(time=0).drop_vars("flags").load()
    star = made.truth.isel(source=int(np.argmax(made.truth["flux"].isel(time=0).values)))
    y, x = round(float(star["y"])), round(float(star["x"]))
    spoiled = image.copy(deep=True)
    spoiled["sci"][y, x + 4] += 4000.0
    shift = ztfxr.register(image, image, method="stars")
    kept, lost, clean = (
        ztfxr.align(i, image, transform=shift, cosmic_rays=how)
        for i, how in ((spoiled, False), (spoiled, True), (image, True))
    )
    assert int(lost["n_cosmic_rays"]) == int(clean["n_cosmic_rays"]) + 1
    assert np.isnan(lost["sci"].sel(x=x + 4, y=y))
    assert np.isfinite(kept["sci"].sel(x=x + 4, y=y))
    assert "n_cosmic_rays" not in kept.coords
