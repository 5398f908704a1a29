"""Stacks of frames on one grid: good frames untouched, bad ones in their place with the reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from astropy.io import fits

from tests.conftest import MakeHeader, WriteFrame
from ztfxr.errors import FrameError, InputError
from ztfxr.io.frames import open_epochs, open_quadrant
from ztfxr.ops.masks import mask
from ztfxr.ops.stacks.stack import stack
from ztfxr.schema import STATUS_PLANES
from ztfxr.wcs import WCSIndex, get_wcs

START = 59116.4
SHAPE = (48, 40)


def frame_name(number: int) -> str:
    return f"ztf_202009244317{number:02d}_000655_zr_c13_o_q3_sciimg"


@pytest.fixture
def write_epoch(write_frame: WriteFrame) -> WriteFrame:
    """``write_epoch(number, ...)``: a frame `number` days after the first, with pixels of its own."""

    def write(number: int, **options: Any) -> Path:
        cards = {"OBSMJD": START + number, "MAGZP": 26.0 + number / 10, **options.pop("cards", {})}
        return write_frame(name=frame_name(number), seed=number, cards=cards, **options)

    return write


def truncate(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[:-4000])
    return path


def status_names(bits: Any) -> list[str]:
    return [p.name for p in STATUS_PLANES if int(bits) & p.value]


def assert_untouched(epoch: xr.Dataset, path: Path) -> None:
    alone = open_quadrant(path)
    for name in ("sci", "flags"):
        np.testing.assert_array_equal(epoch[name].values, alone[name].values)
        assert epoch[name].dtype == alone[name].dtype
    for name, values in alone.coords.items():
        if values.ndim == 0:
            assert epoch[name].values == values.values
    assert epoch["epoch_status"] == 0
    assert epoch["message"] == ""
    assert epoch["frame"] == path.name.removesuffix(".fits")


def test_earliest_first_whatever_the_order_of_paths(write_epoch: WriteFrame) -> None:
    paths = {n: write_epoch(n) for n in (4, 0, 2, 3, 1)}
    found = stack(open_epochs(paths.values()))
    assert found["sci"].dims == found["flags"].dims == ("time", "y", "x")
    assert found["frame"].values.tolist() == [frame_name(n) for n in range(5)]
    assert (np.diff(found["time"].values) > np.timedelta64(0)).all()
    np.testing.assert_allclose(found["mjd"], START + np.arange(5) + 15 / 86400)
    for n, path in paths.items():
        assert_untouched(found.isel(time=n), path)
    other = stack(open_epochs(sorted(paths.values())))
    xr.testing.assert_identical(found, other)


def test_equal_times_are_ordered_by_name(write_epoch: WriteFrame) -> None:
    same = {"OBSMJD": START}
    paths = [write_epoch(n, cards=same) for n in (2, 0, 1)]
    assert stack(open_epochs(paths))["frame"].values.tolist() == [frame_name(n) for n in range(3)]


def test_scalar_coordinates_on_time(write_epoch: WriteFrame) -> None:
    tree = open_epochs([write_epoch(n) for n in range(3)])
    found = stack(tree)
    node = tree[frame_name(0)]
    for name, values in node.coords.items():
        if values.ndim == 0:
            assert found[name].dims == ("time",)
            assert found[name].dtype.kind == values.dtype.kind
            assert found[name].attrs == values.attrs
    np.testing.assert_allclose(found["magzp"], [26.0, 26.1, 26.2])
    assert found["filter"].values.tolist() == ["ztfr"] * 3
    assert found["epoch_status"].dtype == np.uint32
    assert found["epoch_status"].attrs["flag_meanings"].split()[2] == "truncated"


def test_sky_labels_survive(write_epoch: WriteFrame) -> None:
    paths = [write_epoch(n) for n in range(2)]
    found, alone = stack(open_epochs(paths)), open_quadrant(paths[0])
    assert isinstance(found.xindexes["ra"], WCSIndex)
    assert found.xindexes["ra"].equals(alone.xindexes["ra"])
    assert found["ra"].dims == ("y", "x")
    assert found.attrs["wcs_header"] == alone.attrs["wcs_header"]
    assert get_wcs(found).wcs.compare(get_wcs(alone).wcs)
    at = found.sel(ra=float(alone["ra"][7, 9]), dec=float(alone["dec"][7, 9]))
    assert (int(at["y"]), int(at["x"])) == (7, 9)
    for dim in ("y", "x"):
        xr.testing.assert_identical(found[dim].variable, alone[dim].variable)


def test_lazy_one_epoch_a_chunk(write_epoch: WriteFrame, raising_scheduler: Any) -> None:
    tree = open_epochs([write_epoch(0), truncate(write_epoch(1)), write_epoch(2)])
    found = stack(tree)
    for name in ("sci", "flags"):
        assert found[name].chunks == ((1, 1, 1), SHAPE[:1], SHAPE[1:])
    with pytest.raises(AssertionError, match="should have stayed lazy"):
        found["sci"].compute()


def other_wcs(make: MakeHeader) -> fits.Header:
    return make(SHAPE, crval=(150.31, 20.7))


@pytest.mark.parametrize(
    ("defect", "status", "message", "knows_its_time"),
    [
        ("truncated", "truncated", "its header announces", False),
        ("missing mask", "missing_mask", "no mask image", False),
        ("absent", "unreadable", "no such file", False),
        ("html", "not_fits", "an HTML or XML page", False),
        ("header", "bad_header", "the header has no EXPTIME", False),
        ("shape", "wrong_shape", "the frame is (40, 40) pixels (y, x)", True),
        ("wcs", "not_aligned", "different WCS", True),
        ("no wcs", "no_wcs", "no celestial WCS", True),
        ("mask of another shape", "wrong_shape", "the mask is", False),
    ],
)
def test_bad_frame_keeps_its_place(
    write_epoch: WriteFrame, wcs_header: MakeHeader, defect: str, status: str, message: str, knows_its_time: bool
) -> None:
    good = [write_epoch(0), write_epoch(2)]
    options: dict[str, dict[str, Any]] = {
        "missing mask": {"mask": False},
        "header": {"cards": {"EXPTIME": None}},
        "shape": {"shape": (40, 40)},
        "wcs": {"wcs": other_wcs(wcs_header)},
        "no wcs": {"wcs": False},
        "mask of another shape": {"flags": np.zeros((3, 4), np.int16)},
    }
    bad = write_epoch(1, **options.get(defect, {}))
    if defect == "truncated":
        truncate(bad)
    elif defect == "absent":
        bad.unlink()
    elif defect == "html":
        bad.write_text("<!DOCTYPE html><html>please log in</html>")
    found = stack(open_epochs([good[0], bad, good[1]]))
    place = 1 if knows_its_time else 2
    epoch = found.isel(time=place)
    assert epoch["frame"] == frame_name(1)
    assert status_names(epoch["epoch_status"]) == [status]
    assert message in str(epoch["message"].values)
    assert np.isnan(epoch["sci"].values).all()
    assert mask(epoch).values.all()
    assert epoch["flags"].dtype == np.uint16
    assert np.isnat(epoch["time"].values) != knows_its_time
    assert np.isnan(epoch["magzp"].values) != knows_its_time
    for path, n in zip(good, {0, 1, 2} - {place}, strict=True):
        assert_untouched(found.isel(time=n), path)


def test_several_bad_frames(write_epoch: WriteFrame) -> None:
    """Those without a time come last, by name."""
    paths = [truncate(write_epoch(3)), write_epoch(2), write_epoch(1, mask=False), write_epoch(0)]
    found = stack(open_epochs(paths))
    assert found["frame"].values.tolist() == [frame_name(n) for n in (0, 2, 1, 3)]
    assert [status_names(s) for s in found["epoch_status"].values] == [[], [], ["missing_mask"], ["truncated"]]
    np.testing.assert_array_equal(found["field"], [655, 655, -1, -1])
    assert found["filter"].values.tolist() == ["ztfr", "ztfr", "", ""]


def test_first_frame_without_wcs_does_not_decide(write_epoch: WriteFrame) -> None:
    """One frame that lost its WCS must not cost the others their sky labels."""
    found = stack(open_epochs([write_epoch(0, wcs=False), write_epoch(1), write_epoch(2)]))
    assert isinstance(found.xindexes["ra"], WCSIndex)
    assert [status_names(s) for s in found["epoch_status"].values] == [["no_wcs"], [], []]


def test_no_frame_has_a_wcs(write_epoch: WriteFrame) -> None:
    found = stack(open_epochs([write_epoch(n, wcs=False) for n in range(2)]))
    assert "ra" not in found.coords
    assert (found["epoch_status"] == 0).all()
    assert np.isfinite(found["sci"]).all()


def test_like_decides_the_grid(write_epoch: WriteFrame, wcs_header: MakeHeader) -> None:
    """By default the first usable frame does, which may be the odd one out."""
    odd = write_epoch(0, wcs=other_wcs(wcs_header))
    paths = [odd, write_epoch(1), write_epoch(2)]
    tree = open_epochs(paths)
    assert [status_names(s) for s in stack(tree)["epoch_status"].values] == [[], ["not_aligned"], ["not_aligned"]]
    reference = open_quadrant(paths[2])
    for like in (reference, reference["sci"]):
        found = stack(tree, like=like)
        assert [status_names(s) for s in found["epoch_status"].values] == [["not_aligned"], [], []]
        assert found.xindexes["ra"].equals(reference.xindexes["ra"])


def test_all_unusable(write_epoch: WriteFrame) -> None:
    tree = open_epochs([truncate(write_epoch(0)), write_epoch(1, mask=False)])
    with pytest.raises(FrameError, match=rf"none of the 2 frames can be used; {frame_name(0)}: .*announces"):
        stack(tree)


def test_none_on_the_grid_of_like(write_epoch: WriteFrame, wcs_header: MakeHeader) -> None:
    tree = open_epochs([write_epoch(0), write_epoch(1)])
    like = open_quadrant(write_epoch(2, wcs=other_wcs(wcs_header)))
    with pytest.raises(FrameError, match=r"none of the 2 frames can be used; .* different WCS"):
        stack(tree, like=like)


def test_empty_tree() -> None:
    with pytest.raises(InputError, match="the tree holds no frames"):
        stack(xr.DataTree())


def test_node_without_an_image(write_epoch: WriteFrame) -> None:
    tree = open_epochs([write_epoch(0)])
    tree["empty"] = xr.DataTree(xr.Dataset(attrs={"status": 0}))
    found = stack(tree)
    assert [status_names(s) for s in found["epoch_status"].values] == [[], ["wrong_shape"]]
    assert "holds no image" in str(found["message"].values[1])


def test_frame_without_flags_among_frames_with(write_epoch: WriteFrame) -> None:
    tree = open_epochs([write_epoch(0), write_epoch(1)])
    tree[frame_name(1)] = xr.DataTree(tree[frame_name(1)].to_dataset().drop_vars("flags"))
    found = stack(tree)
    assert [status_names(s) for s in found["epoch_status"].values] == [[], ["wrong_shape"]]
    assert "the frame lacks flags" in str(found["message"].values[1])


def test_flags_of_two_surveys_are_not_stacked(write_epoch: WriteFrame) -> None:
    """Their bits mean other things; a frame that is lost is outside by the planes that the others have."""
    tree = open_epochs([write_epoch(0), write_epoch(1)])
    attrs = {"flag_masks": [1, 1 << 15], "flag_meanings": "BPM COSMIC"}
    other = tree[frame_name(1)].to_dataset()
    tree[frame_name(1)] = xr.DataTree(other.assign(flags=other["flags"].assign_attrs(attrs)))
    found = stack(tree)
    assert [status_names(s) for s in found["epoch_status"].values] == [[], ["bad_header"]]
    assert "the planes of the frame's flags are BPM, COSMIC" in str(found["message"].values[1])
    both = {k: n.to_dataset() for k, n in tree.children.items()}
    both = {k: f.assign(flags=f["flags"].assign_attrs(attrs)) for k, f in both.items()}
    both["lost"] = xr.Dataset(attrs={"status": 1, "message": "lost"})
    flags = stack(xr.DataTree.from_dict(both))["flags"].compute()
    assert flags.attrs["flag_meanings"].split() == ["BPM", "COSMIC", "outside"]
    assert (flags[2] == 1 << 14).all()


def test_loaded_and_turned_frames(write_epoch: WriteFrame) -> None:
    """Trees that users made: numpy inside, other order of dimensions, other dtype."""
    tree = open_epochs([write_epoch(0), write_epoch(1), write_epoch(2)])
    expected = stack(tree).compute()
    frames = [node.to_dataset() for node in tree.children.values()]
    frames[1] = frames[1].compute().transpose("x", "y")
    frames[2] = frames[2].compute().assign(sci=frames[2]["sci"].astype(np.float64))
    mixed = xr.DataTree.from_dict({frame_name(i): frame for i, frame in enumerate(frames)})
    for order in ((0, 1, 2), (1, 2, 0)):
        chosen = xr.DataTree.from_dict({frame_name(i): mixed[frame_name(i)].to_dataset() for i in order})
        found = stack(chosen)
        assert found["sci"].dims == ("time", "y", "x")
        assert found["sci"].dtype == np.float32
        assert found["sci"].chunks is not None
        xr.testing.assert_equal(found.compute()["sci"], expected["sci"])
