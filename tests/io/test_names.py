"""ZTF file names."""

from __future__ import annotations

from pathlib import Path

import pytest

from ztfxr.io.cameras import ZTF
from ztfxr.io.names import companion

STEM = "ztf_20200924431759_000655_zr_c13_o_q3_"
SUFFIXES = (".fits", ".fits.gz", ".fits.fz")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_science_name(suffix: str) -> None:
    expected = {"filefracday": 20200924431759, "field": 655, "filter": "ztfr", "ccdid": 13, "qid": 3}
    assert ZTF.name_parts(f"{STEM}sciimg{suffix}") == expected


def test_other_names() -> None:
    raw = ZTF.name_parts("ztf_20180219397384_000487_zg_c01_o.fits.fz")
    assert raw == {"filefracday": 20180219397384, "field": 487, "filter": "ztfg", "ccdid": 1}
    assert ZTF.name_parts("ztf_20180219397384_000487_zi_c16_o_q1_psfcat.fits")


@pytest.mark.parametrize(
    "name",
    ["", "image.fits", STEM.replace("zr", "zu"), STEM.replace("000655", "655"), STEM.replace("2020092443", "2020")],
)
def test_not_ztf(name: str) -> None:
    assert ZTF.name_parts(name) == {}


def test_qid_0_is_not_a_quadrant() -> None:
    found = ZTF.name_parts(STEM.replace("_q3_", "_q0_"))
    assert found
    assert "qid" not in found


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("mask_suffix", SUFFIXES)
def test_mask_beside(tmp_path: Path, suffix: str, mask_suffix: str) -> None:
    (tmp_path / f"{STEM}mskimg{mask_suffix}").touch()
    assert companion(tmp_path / f"{STEM}sciimg{suffix}", "sciimg", "mskimg") == tmp_path / f"{STEM}mskimg{mask_suffix}"


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_mask_of_the_same_kind_comes_first(tmp_path: Path, suffix: str) -> None:
    for other in SUFFIXES:
        (tmp_path / f"{STEM}mskimg{other}").touch()
    found = companion(tmp_path / f"{STEM}sciimg{suffix}", "sciimg", "mskimg")
    assert found is not None
    assert found.name == f"{STEM}mskimg{suffix}"


def test_no_mask(tmp_path: Path) -> None:
    (tmp_path / f"{STEM.replace('q3', 'q4')}mskimg.fits").touch()
    assert companion(tmp_path / f"{STEM}sciimg.fits", "sciimg", "mskimg") is None
    assert companion(tmp_path / "image.fits", "sciimg", "mskimg") is None
    (tmp_path / f"{STEM}mskimg.fits").mkdir()
    assert companion(tmp_path / f"{STEM}sciimg.fits", "sciimg", "mskimg") is None
