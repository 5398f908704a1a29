"""Searches: what is asked, what comes back as rows, answers that are none."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import parse_qs

import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.wcs import WCS

from tests.archive.conftest import N_EPOCHS, Serve, ask
from ztfxr.archive import Login, Quality, search, search_table
from ztfxr.archive.rows import Family, as_rows, read_csv
from ztfxr.archive.search import degrees
from ztfxr.errors import ArchiveError, InputError
from ztfxr.io.names import parse_product
from ztfxr.testing._metadata import columns_of, csv_of

HERE = (58.2573, 35.5884)


def asked(server) -> dict[str, str]:
    return {k: v[0] for k, v in parse_qs(server.asked[-1].query, keep_blank_values=True).items()}


def test_rows_have_what_is_needed_to_choose(serve: Serve, tmp_path: Path, made) -> None:
    server = serve()
    rows = search(HERE, filter="r", archive=ask(server, tmp_path))
    assert rows.sizes == {"row": N_EPOCHS}
    assert np.all(np.diff(rows["obsjd"]) > 0)
    assert list(rows["name"].values) == sorted(p.name for p in made[1].paths)
    assert all((made[0] / path).is_file() for path in rows["path"].values)
    assert rows["filefracday"].dtype == np.int64
    assert set(rows["filter"].values) == {"ztfr"}
    np.testing.assert_allclose((rows["mjd"] - rows["obsjd"] + 2400000.5) * 86400, 15.0, atol=1e-3)
    assert "public rows only" in rows.attrs["access"]
    assert asked(server)["POS"] == "58.2573000,35.5884000"


def test_the_linear_wcs_is_good_to_a_pixel(serve: Serve, tmp_path: Path, made) -> None:
    """Against the whole TPV terms, by astropy."""
    rows = search(HERE, archive=ask(serve(), tmp_path))
    header = fits.getheader(made[0] / str(rows["path"].values[0]))
    x, y = WCS(header).world_to_pixel(SkyCoord(*HERE, unit="deg"))
    assert abs(float(rows["x"][0]) - x) < 1.0
    assert abs(float(rows["y"][0]) - y) < 1.0


def test_what_is_asked(serve: Serve, tmp_path: Path) -> None:
    server = serve()
    search(
        SkyCoord(*HERE, unit="deg"), size=0.02, field=[655, 1655], rcid=50, filter=["zr", "ztfg"],
        time=("2018-07-05", 59000.5), quality=Quality(max_seeing=3, min_maglimit=20), where="pid > 3",
        columns=["seeing"], intersect="covers", archive=ask(server, tmp_path),
    )  # fmt: skip
    found = asked(server)
    where = found["WHERE"].split(" AND ")
    assert where == [
        "imgtypecode = 'o'", "field IN (655,1655)", "rcid IN (50)", "fid IN (2,1)", "obsjd >= 2458304.5000000",
        "obsjd <= 2459001.0000000", "seeing <= 3.0", "maglimit >= 20.0", "(pid > 3)",
    ]  # fmt: skip
    assert (found["SIZE"], found["INTERSECT"], found["ct"]) == ("0.0200000", "COVERS", "csv")
    assert found["COLUMNS"].split(",")[-1] == "seeing"
    search(HERE, intersect="nearest", archive=ask(server, tmp_path))
    assert "mcen" in asked(server)


def test_bad_exposures_are_left_out_by_their_bit(serve: Serve, tmp_path: Path) -> None:
    server = serve()
    server.rows["sci"][0]["infobits"] = 1 << 25
    server.rows["sci"][1]["infobits"] = 1 << 26
    archive = ask(server, tmp_path)
    assert search(HERE, archive=archive).sizes["row"] == N_EPOCHS - 1
    rows = search(HERE, quality=Quality(good=False), archive=archive)
    assert rows["bad"].values.tolist() == [True] + [False] * (N_EPOCHS - 1)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("difference", "sci/2020/0924/431759/ztf_20200924431759_000655_zr_c13_o_q3_scimrefdiffimg.fits.fz"),
        ("reference", "ref/000/field000655/zr/ccd13/q3/ztf_000655_zr_c13_q3_refimg.fits"),
        ("deep", "deep/000/field000655/zr/ccd13/q3/ztf_000655_zr_c13_q3_refimg.fits"),
        ("raw", "raw/2020/0924/431759/ztf_20200924431759_000655_zr_c13_o.fits.fz"),
        ("calibration", "cal/2020/0924/bias/00/ccd13/q3/ztf_20200924_00_c13_q3_bias.fits"),
    ],
)
def test_every_kind_has_its_path(kind: str, name: str) -> None:
    row = {"filefracday": 20200924431759, "field": 655, "filtercode": "zr", "ccdid": 13, "qid": 3, "imgtypecode": "o"}
    row |= {"nightdate": "2020-09-24", "caltype": "bias"} | ({"filtercode": "00"} if kind == "calibration" else {})
    family = Family.of(kind)
    rows = as_rows(read_csv(csv_of([row], columns_of(family.folder)).encode(), family), family)
    assert rows["path"].item() == name
    assert rows["pid" if family.folder == "sci" else "ccdid"].item() == (-1 if family.folder == "sci" else 13)


def test_quotes_marks_and_many_rows_are_read(serve: Serve, tmp_path: Path) -> None:
    text = "﻿filefracday,field,filtercode,ccdid,qid,imgtypecode,seeing,poly\n"
    text += '20200924431759,655,zr,13,3,o,,"POLYGON\n1,2"\n20200924431760,655,zr,13,3,o,2.5,"a,b"\n'
    server = serve(answers=[text.encode()])
    rows = search(field=655, archive=ask(server, tmp_path))
    assert rows["poly"].values.tolist() == ["POLYGON\n1,2", "a,b"]
    assert np.isnan(rows["seeing"].values[0])
    row = "20200924{0:06d},655,zr,13,3,o,2.5,x\n"
    server.answers.append((text.splitlines()[0] + "\n" + "".join(map(row.format, range(20000)))).encode())
    assert search(field=655, archive=ask(server, tmp_path)).sizes["row"] == 20000


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"<?xml version='1.0'?><VOTABLE><INFO name='ERROR'>no such column: foo</INFO>", "no such column: foo"),
        (b"<!DOCTYPE html><html>down for maintenance</html>", "down for maintenance"),
        (b"", "no table"),
        (b"one,two\n1,2\n", "no column filefracday"),
        (b"filefracday,field,filtercode,ccdid,qid,imgtypecode\n1,2,../..,4,5,6\n", "names no product"),
        (b"\xff\xfe\x00", "no table"),
    ],
)
def test_answers_that_are_no_table(serve: Serve, tmp_path: Path, answer: bytes, said: str) -> None:
    with pytest.raises(ArchiveError, match=said):
        search(HERE, archive=ask(serve(answers=[answer]), tmp_path))


def test_nothing_found_is_no_error(serve: Serve, tmp_path: Path) -> None:
    rows = search((10.0, -80.0), archive=ask(serve(), tmp_path))
    assert rows.sizes["row"] == 0
    assert rows["name"].dtype.kind == "U"


def test_offline_knows_what_was_asked_before(serve: Serve, tmp_path: Path) -> None:
    server = serve()
    online = search(HERE, archive=ask(server, tmp_path))
    before = len(server.asked)
    offline = search(HERE, archive=ask(server, tmp_path, offline=True))
    assert offline.drop_attrs().identical(online.drop_attrs())
    with pytest.raises(ArchiveError, match="not asked before"):
        search((1.0, 2.0), archive=ask(server, tmp_path, offline=True))
    assert len(server.asked) == before


def test_who_may_see_what_is_said(serve: Serve, tmp_path: Path) -> None:
    server = serve(users={"me": "secret"})
    server.rows["sci"][0]["ipac_gid"] = 2
    assert search(HERE, archive=ask(server, tmp_path)).sizes["row"] == N_EPOCHS - 1
    mine = search(HERE, archive=ask(server, tmp_path, login=Login("me", "secret")))
    assert mine.sizes["row"] == N_EPOCHS
    assert mine.attrs["access"] == "public rows, and those of the log-in's programs"
    with pytest.raises(ArchiveError, match="refuses the log-in"):
        search(HERE, archive=ask(server, tmp_path, login=Login("me", "wrong")))


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({}, "say what to search for"),
        ({"position": (10, 95)}, "within 90"),
        ({"position": [(1.0, 2.0), (3.0, 4.0)]}, "one position"),
        ({"field": "abc"}, "whole numbers"),
        ({"filter": "u", "field": 1}, "filters are g, r, i"),
        ({"kind": "flat", "field": 1}, "kind is one of"),
        ({"kind": "reference", "time": (59000, None)}, "only exposures have a time"),
        ({"time": (2459000.5, None)}, "MJDs, not JDs"),
        ({"time": ("soon", None)}, "a time is an MJD"),
        ({"position": (1, 2), "intersect": "near"}, "intersect is one of"),
        ({"position": (1, 2), "size": -1}, "side in degrees"),
        ({"field": 1, "columns": ["a;b"]}, "names of the archive's"),
    ],
)
def test_questions_that_are_none(how, said: str, tmp_path: Path) -> None:
    from ztfxr.archive import Archive

    with pytest.raises(InputError, match=said):
        search(**how, archive=Archive(tmp_path, offline=True, login=False))


def test_positions_are_brought_to_one_turn() -> None:
    assert degrees((-10, 5)) == (350.0, 5.0)
    assert degrees("10.5 -20") == pytest.approx((10.5, -20.0))


def test_many_positions_are_one_question(serve: Serve, tmp_path: Path) -> None:
    server = serve()
    places = [HERE, (10.0, -80.0), (HERE[0] + 0.01, HERE[1]), (HERE[0], HERE[1] + 2.0)]
    archive = ask(server, tmp_path)
    rows = search_table(places, archive=archive)
    assert len(server.asked) == 1
    assert sorted(rows["target"].values.tolist()) == [0] * N_EPOCHS + [2] * N_EPOCHS
    for number in (0, 2):
        one = search(places[number], archive=archive)
        same = rows.isel(row=rows["target"].values == number)
        assert same["name"].values.tolist() == one["name"].values.tolist()
        np.testing.assert_allclose(same["x"], one["x"])
    again = search_table(places, archive=ask(server, tmp_path, offline=True))
    assert again.drop_attrs().identical(rows.drop_attrs())
    with pytest.raises(InputError, match="takes kind"):
        search_table(places, kind="raw", archive=archive)
    with pytest.raises(InputError, match="one pair or more"):
        search_table([(1.0, 99.0)], archive=archive)


def test_names_of_rows_are_those_of_the_grammar(serve: Serve, tmp_path: Path) -> None:
    rows = search(HERE, kind="difference", archive=ask(serve(), tmp_path))
    products = [parse_product(name) for name in rows["name"].values]
    assert [p.rcid for p in products] == rows["rcid"].values.tolist()
