"""ZTF file names."""

from __future__ import annotations

from pathlib import Path

import pytest

from ztfxr.io.names import QuadrantName, find_mask, parse_name

STEM = "ztf_20200924431759_000655_zr_c13_o_q3_"
SUFFIXES = (".fits", ".fits.gz", ".fits.fz")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_science_name(suffix: str) -> None:
    expected = QuadrantName(filefracday=20200924431759, field=655, filter="ztfr", ccdid=13, qid=3)
    assert parse_name(f"{STEM}sciimg{suffix}") == expected


def test_other_names() -> None:
    raw = parse_name("ztf_20180219397384_000487_zg_c01_o.fits.fz")
    assert raw == QuadrantName(20180219397384, 487, "ztfg", 1, None)
    assert parse_name("ztf_20180219397384_000487_zi_c16_o_q1_psfcat.fits") is not None


@pytest.mark.parametrize(
    "name",
    ["", "image.fits", STEM.replace("zr", "zu"), STEM.replace("000655", "655"), STEM.replace("2020092443", "2020")],
)
def test_not_ztf(name: str) -> None:
    assert parse_name(name) is None


def test_qid_0_is_not_a_quadrant() -> None:
    found = parse_name(STEM.replace("_q3_", "_q0_"))
    assert found is not None
    assert found.qid is None


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("mask_suffix", SUFFIXES)
def test_mask_beside(tmp_path: Path, suffix: str, mask_suffix: str) -> None:
    (tmp_path / f"{STEM}mskimg{mask_suffix}").touch()
    assert find_mask(tmp_path / f"{STEM}sciimg{suffix}") == tmp_path / f"{STEM}mskimg{mask_suffix}"


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_mask_of_the_same_kind_comes_first(tmp_path: Path, suffix: str) -> None:
    for other in SUFFIXES:
        (tmp_path / f"{STEM}mskimg{other}").touch()
    found = find_mask(tmp_path / f"{STEM}sciimg{suffix}")
    assert found is not None
    assert found.name == f"{STEM}mskimg{suffix}"


def test_no_mask(tmp_path: Path) -> None:
    (tmp_path / f"{STEM.replace('q3', 'q4')}mskimg.fits").touch()
    assert find_mask(tmp_path / f"{STEM}sciimg.fits") is None
    assert find_mask(tmp_path / "image.fits") is None
    (tmp_path / f"{STEM}mskimg.fits").mkdir()
    assert find_mask(tmp_path / f"{STEM}sciimg.fits") is None
