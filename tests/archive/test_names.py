"""Names of the archive's products, both ways: the table of the published grammar, and any parts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ztfxr.errors import InputError
from ztfxr.io.names import Product, Window, ccd_and_quadrant, parse_product, rcid_of

TABLE = [
    ("ztf_20180705481609_001735_zg_c01_o_q2_sciimg.fits", "sci/2018/0705/481609", 1, "ztfg"),
    ("ztf_20180705481609_001735_zg_c01_o_q2_scimrefdiffimg.fits.fz", "sci/2018/0705/481609", 1, "ztfg"),
    ("ztf_20180705481609_001735_zg_c01_o_q2_sciimgdao.psf", "sci/2018/0705/481609", 1, "ztfg"),
    ("ztf_20180705481609_001735_zg_c01_o_q2_log.txt", "sci/2018/0705/481609", 1, "ztfg"),
    ("ztf_20190228482130_000600_zr_c16_o.fits.fz", "raw/2019/0228/482130", -1, "ztfr"),
    ("ztf_20190228123456_000000_bi_c01_b.fits.fz", "raw/2019/0228/123456", -1, ""),
    ("ztf_20200101_zr_c05_q3_hifreqflat.fits", "cal/2020/0101/hifreqflat/zr/ccd05/q3", 18, "ztfr"),
    ("ztf_20200101_00_c05_q3_bias.fits", "cal/2020/0101/bias/00/ccd05/q3", 18, ""),
    ("ztf_20200101_00_c05_q3_biasunc.fits", "cal/2020/0101/bias/00/ccd05/q3", 18, ""),
    ("ztf_20200101_00_c05_q3_biaslog.txt", "cal/2020/0101/bias/00/ccd05/q3", 18, ""),
    ("ztf_001735_zg_c01_q2_refimg.fits", "ref/001/field001735/zg/ccd01/q2", 1, "ztfg"),
    ("ztf_000655_zi_c16_q4_refpsfcat.fits", "ref/000/field000655/zi/ccd16/q4", 63, "ztfi"),
]
STEM = "ztf_20180705481609_001735_zg_c01_o_q2_"


@pytest.mark.parametrize(("name", "folder", "rcid", "band"), TABLE)
def test_the_published_table(name: str, folder: str, rcid: int, band: str) -> None:
    found = parse_product(name)
    assert (found.name, found.path, found.rcid, found.filter) == (name, f"{folder}/{name}", rcid, band)
    assert parse_product(f"https://irsa.ipac.caltech.edu/ibe/data/ztf/products/{found.path}?a=b") == found


def test_deep_references_are_told_by_their_folder() -> None:
    name = "ztf_001735_zg_c01_q2_refimg.fits"
    deep = parse_product(f"deep/001/field001735/zg/ccd01/q2/{name}")
    assert deep == parse_product(name, "deep")
    assert deep.path == f"deep/001/field001735/zg/ccd01/q2/{name}"


@pytest.mark.parametrize(
    "name",
    [
        "",
        "sciimg.fits",
        f"x{STEM}sciimg.fits",
        f"{STEM}sciimg.fits.part",
        f"{STEM}sciimg.fits\n",
        f"{STEM}sci/../img.fits",
        STEM.replace("c01", "c17") + "sciimg.fits",
        STEM.replace("c01", "c00") + "sciimg.fits",
        STEM.replace("q2", "q5") + "sciimg.fits",
        STEM.replace("0705", "1305") + "sciimg.fits",
        STEM.replace("2018", "２０１８") + "sciimg.fits",
        "ztf_20200101_zr_c05_q3_domeflat.fits",
        "../../etc/passwd",
        "ztf_001735_zg_c01_q2_refimg.fits\0",
    ],
)
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(InputError, match="is no name of ZTF's archive"):
        parse_product(name)


def test_products_beside_and_cut_outs() -> None:
    science = parse_product(f"{STEM}sciimg.fits")
    cut = science.cut(Window(1234, 567, 65, 65))
    assert cut.name == f"{STEM}sciimg_x1234y0567w065h065.fits"
    assert cut.path == f"cutouts/sci/2018/0705/481609/{cut.name}"
    assert parse_product(cut.path) == cut
    assert cut.whole == science
    assert cut.beside("mskimg.fits").name == f"{STEM}mskimg.fits"
    with pytest.raises(InputError):
        science.beside("../x.fits")


@given(
    when=st.dates().map(lambda d: f"{d:%Y%m%d}".zfill(8)),
    fraction=st.integers(0, 999999),
    field=st.integers(0, 999999),
    code=st.sampled_from(["zg", "zr", "zi"]),
    rcid=st.integers(0, 63),
    suffix=st.sampled_from(["sciimg.fits", "mskimg.fits", "psfcat.fits", "scimrefdiffimg.fits.fz", "sciimgdao.psf"]),
    window=st.none() | st.builds(Window, *[st.integers(1, 99999)] * 4),
)
def test_any_parts_come_back(when, fraction, field, code, rcid, suffix, window) -> None:
    ccd, q = ccd_and_quadrant(rcid)
    stem, _, ending = suffix.partition(".")
    product = Product("sci", f"{when}{fraction:06d}", field, code, ccd, q, "o", stem, ending, window)
    assert parse_product(product.path) == product
    assert product.rcid == rcid


def test_quadrants_by_number() -> None:
    assert [rcid_of(*ccd_and_quadrant(n)) for n in range(64)] == list(range(64))
    assert (rcid_of(16, 1), ccd_and_quadrant(18)) == (60, (5, 3))
    for wrong in ((0, 1), (17, 1), (1, 0), (1, 5)):
        with pytest.raises(InputError, match="CCDs 1 to 16"):
            rcid_of(*wrong)
    with pytest.raises(InputError, match="0 to 63"):
        ccd_and_quadrant(64)
