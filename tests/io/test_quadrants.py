"""The quadrants of one exposure as a tree."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import ztfxr
from tests.conftest import WriteFrame
from ztfxr.errors import FrameError, InputError, MissingMaskError, TruncatedFileError
from ztfxr.io.quadrants import open_ccd, open_exposure
from ztfxr.schema import STATUS_PLANES, planes_to_bits

WriteQuadrant = Callable[..., Path]

EXPOSURE = 20200924431759


def name_of(ccdid: int, qid: int, fracday: int = EXPOSURE, field: int = 655, band: str = "zr") -> str:
    return f"ztf_{fracday}_{field:06d}_{band}_c{ccdid:02d}_o_q{qid}_sciimg"


@pytest.fixture
def write(write_frame: WriteFrame) -> WriteQuadrant:
    """``write(ccdid, qid)`` writes the frame of one quadrant, its number in every pixel."""

    def quadrant(ccdid: int, qid: int, cards: dict[str, Any] | None = None, **options: Any) -> Path:
        own = {k: options.pop(k) for k in ("fracday", "field", "band") if k in options}
        cards = {"CCDID": ccdid, "QID": qid, "FIELDID": own.get("field", 655)} | (cards or {})
        pixels = np.full((6, 5), 4 * (ccdid - 1) + qid - 1, np.float32)
        return write_frame(name=name_of(ccdid, qid, **own), sci=pixels, cards=cards, **options)

    return quadrant


def leaves(tree: xr.DataTree) -> list[str]:
    return [node.path.strip("/") for node in tree.leaves]


def test_ccd_in_the_order_of_the_quadrants(write: WriteQuadrant) -> None:
    paths = [write(13, qid) for qid in (3, 1, 4, 2)]
    tree = open_ccd(paths)
    assert leaves(tree) == ["q1", "q2", "q3", "q4"]
    for qid in range(1, 5):
        one = tree[f"q{qid}"].to_dataset()
        xr.testing.assert_identical(one, ztfxr.open_quadrant(paths[[3, 1, 4, 2].index(qid)]))
        assert one.rcid == 4 * 12 + qid - 1
        assert (one.sci == one.rcid).all()
        assert "ra" in one.xindexes
    expected = {"filefracday": EXPOSURE, "field": 655, "filter": "ztfr", "ccdid": 13, "missing": "", "unusable": ""}
    assert tree.attrs == expected


def test_rcid_of_the_real_quadrant(quadrant_path: Path) -> None:
    """IPAC's own card RCID is 4 (CCDID - 1) + QID - 1."""
    tree = open_ccd(quadrant_path)
    one = tree["q3"].to_dataset()
    card = next(line for line in one.attrs["header"].splitlines() if line.startswith("RCID"))
    assert one.rcid == int(card.split("=")[1].split("/")[0]) == 4 * (13 - 1) + 3 - 1
    assert tree.attrs["missing"] == "q1 q2 q4"


@pytest.mark.parametrize("suffix", [".fits", ".fits.gz", ".fits.fz"])
def test_companions_of_one_file(write: WriteQuadrant, suffix: str) -> None:
    write(13, 1, suffix=".fits")
    write(13, 2, suffix=".fits.gz")
    one = write(13, 3, suffix=suffix)
    write(12, 1)
    write(13, 4, fracday=EXPOSURE + 1)
    assert leaves(open_ccd(one)) == ["q1", "q2", "q3"]
    assert open_ccd(str(one)).attrs["missing"] == "q4"
    tree = open_exposure(one)
    assert leaves(tree) == ["c12/q1", "c13/q1", "c13/q2", "c13/q3"]
    assert len(tree.attrs["missing"].split()) == 60


def test_companions_are_compressed_like_the_one_given(write: WriteQuadrant) -> None:
    for suffix in (".fits", ".fits.gz"):
        for qid in (1, 2):
            path = write(13, qid, suffix=suffix)
    assert [node.to_dataset().attrs["source"][-8:] for node in open_ccd(path).leaves] == [".fits.gz"] * 2


def test_whole_exposure_from_its_folder(write: WriteQuadrant, tmp_path: Path) -> None:
    for ccdid in range(1, 17):
        for qid in range(1, 5):
            write(ccdid, qid)
    tree = open_exposure(tmp_path)
    assert leaves(tree) == [f"c{c:02d}/q{q}" for c in range(1, 17) for q in range(1, 5)]
    assert [node.to_dataset().rcid.item() for node in tree.leaves] == list(range(64))
    assert tree.attrs["missing"] == ""
    assert tree["c07"].children.keys() == {"q1", "q2", "q3", "q4"}
    assert tree["c07/q2"].sci.dims == ("y", "x")


def test_nothing_is_read(write: WriteQuadrant, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [write(c, q) for c in (1, 16) for q in (1, 2)]
    monkeypatch.setattr("ztfxr.io.backend.read_window", lambda *a: pytest.fail("a pixel was read on opening"))
    tree = open_exposure(paths)
    assert all(node.sci.chunks is not None for node in tree.leaves)


def test_options_reach_every_quadrant(write: WriteQuadrant) -> None:
    paths = [write(2, q, mask=False) for q in (1, 2)]
    tree = open_ccd(paths, mask=False, chunks={"y": 3})
    assert all("flags" not in node for node in tree.leaves)
    assert all(node.sci.chunks == ((3, 3), (5,)) for node in tree.leaves)


def test_unusable_quadrants_have_a_status(write: WriteQuadrant, tmp_path: Path) -> None:
    good, bare, cut = write(4, 1), write(4, 2, mask=False), write(4, 3)
    cut.write_bytes(cut.read_bytes()[:-2850])
    (tmp_path / "notes.fits").write_text("<html>")
    tree = open_exposure([good, bare, cut, tmp_path / "notes.fits"])
    assert tree.attrs["unusable"] == "c04/q2 c04/q3 notes"
    assert "c04/q4" in tree.attrs["missing"].split()
    assert len(tree.attrs["missing"].split()) == 61
    for name, status in (("c04/q2", "missing_mask"), ("c04/q3", "truncated"), ("notes", "not_fits")):
        node = tree[name]
        assert node.attrs["status"] == planes_to_bits([status], STATUS_PLANES)
        assert node.attrs["message"]
    for path, error in ((bare, MissingMaskError), (cut, TruncatedFileError), (tmp_path / "notes.fits", FrameError)):
        with pytest.raises(error):
            open_exposure([good, path], errors="raise")


def test_two_frames_of_one_quadrant_are_refused(write: WriteQuadrant, tmp_path: Path) -> None:
    first = write(5, 2)
    second = first.rename(tmp_path / f"again_{first.name}")
    mask = first.with_name(first.name.replace("sciimg", "mskimg"))
    mask.rename(mask.with_name(f"again_{mask.name}"))
    first = write(5, 2)
    with pytest.raises(InputError, match=r"two frames of CCD 5 quadrant 2: again_ztf_.*leave one out"):
        open_ccd([second, first])


@pytest.mark.parametrize(
    ("other", "cards"),
    [({"fracday": EXPOSURE + 1}, {}), ({"field": 656}, {}), ({"band": "zg"}, {"FILTERID": 1, "FILTER": "ZTF_g"})],
)
def test_other_exposures_are_refused(write: WriteQuadrant, other: dict[str, Any], cards: dict[str, Any]) -> None:
    paths = [write(5, 1), write(5, 2, cards=cards, **other)]
    for opened in (open_ccd, open_exposure):
        with pytest.raises(InputError, match=r"the frames are of 2 exposures .*: open one exposure at a time"):
            opened(paths)


def test_an_unreadable_frame_of_another_exposure_is_refused_too(write: WriteQuadrant) -> None:
    paths = [write(5, 1), write(5, 2, fracday=EXPOSURE + 1, mask=False)]
    with pytest.raises(InputError, match="2 exposures"):
        open_ccd(paths)


def test_frames_of_two_ccds_are_no_ccd(write: WriteQuadrant) -> None:
    with pytest.raises(InputError, match=r"2 CCDs \(5, 6\); open them with ztfxr.open_exposure"):
        open_ccd([write(5, 1), write(6, 1)])


def test_unusable_paths(write: WriteQuadrant, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such file"):
        open_ccd(tmp_path / name_of(1, 1))
    with pytest.raises(InputError, match="no frames to open"):
        open_exposure([])
    with pytest.raises(InputError, match="no frames to open"):
        open_exposure(tmp_path)
    other = write(1, 1).rename(tmp_path / "image.fits")
    with pytest.raises(InputError, match="not named like a ZTF quadrant"):
        open_ccd(other)
    assert leaves(open_ccd([other], mask=False)) == ["q1"]
