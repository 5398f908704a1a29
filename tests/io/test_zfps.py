"""Files of the forced photometry service: the real ones, and small ones by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import ztfxr
from ztfxr.errors import InputError

COLUMNS = (
    "index, field, ccdid, qid, filter, pid, infobitssci, sciinpseeing, scibckgnd, scisigpix, zpmaginpsci, "
    "zpmaginpscirms, exptime, zpdiff, jd, rfid, forcediffimflux, forcediffimfluxunc, forcediffimchisq, "
    "dnearestrefsrc, nearestrefmag, nearestrefmagunc, procstatus"
)
ROW = "{i} 574 8 1 ZTF_g 1 0 2.9 150 5.0 26.3 0.03 30. 26.3 {jd} 574120129 {flux} 10.0 1.0 0.1 19.9 0.07 {status}"
ROWS = {"10458": 50, "10459": 683, "10550": 1711, "12210": 92, "12234": 55}


def write(folder: Path, rows: list[str], columns: str = COLUMNS) -> Path:
    head = ["# Requested input R.A. = 169.5 degrees", "# Requested input Dec. = 18.8 degrees", columns]
    path = folder / "forcedphotometry_req1_lc.txt"
    path.write_text("\n".join([*head, *rows, "# ---END---"]))
    return path


def row(i: int = 0, jd: float = 2459250.5, flux: object = 12.5, status: object = 0) -> str:
    return ROW.format(i=i, jd=jd, flux=flux, status=status)


@pytest.mark.parametrize("request_number", ROWS)
def test_real_files(shared: Path, request_number: str) -> None:
    (path,) = (shared / "data" / "zfps").glob(f"*{request_number}*")
    lc = ztfxr.read_zfps(path)
    lines = [
        line.split() for line in path.read_text().splitlines() if line[:1] not in ("#", "") and "field" not in line
    ]
    assert lc.sizes == {"time": ROWS[request_number], "source": 1}
    assert len(lines) == ROWS[request_number]
    assert set(np.unique(lc["qid"])) == {int(line[3]) + 1 for line in lines}
    assert (lc["rcid"] == 4 * (lc["ccdid"] - 1) + lc["qid"] - 1).all()
    jd = np.sort([float(line[22]) + float(line[16]) / 2 / 86400 for line in lines])
    np.testing.assert_allclose(lc["mjd"], jd - 2400000.5, atol=1e-8)
    missing = sum(line[24] in ("null", "-99999") for line in lines)
    assert int(lc["flux"].isnull().sum()) == missing
    known = sorted(float(line[24]) for line in lines if line[24] not in ("null", "-99999"))
    np.testing.assert_array_equal(np.sort(lc["flux"].values[np.isfinite(lc["flux"].values)]), known)
    assert set(lc["procstatus"].values.tolist()) == {line[-1] for line in lines}
    assert lc["flux"].attrs["units"] == "DN"
    assert lc["seeing"].attrs["units"] == "pixel"


def test_sentinels_order_and_position(tmp_path: Path) -> None:
    rows = [row(0, 2459252.5, 3.0), row(1, 2459250.5, -99999), row(2, 2459251.5, "null", "56,57")]
    lc = ztfxr.read_zfps(write(tmp_path, rows))
    np.testing.assert_array_equal(lc["flux"].values[:, 0], [np.nan, np.nan, 3.0])
    assert lc["procstatus"].values.tolist() == ["0", "56,57", "0"]
    assert (lc["ra"].item(), lc["dec"].item()) == (169.5, 18.8)
    assert str(lc["time"].values[0]) == "2021-02-05T00:00:15.000000000"
    assert lc["filter"].values.tolist() == ["ztfg"] * 3
    assert lc["qid"].values.tolist() == [2] * 3


@pytest.mark.parametrize(
    ("rows", "columns", "message"),
    [
        ([row(flux="many")], COLUMNS, "line 4: forcediffimflux is 'many'"),
        ([row().replace("ZTF_g", "ZTF_q")], COLUMNS, "unknown filter ZTF_q"),
        ([row().replace(" 8 1 ", " 8 4 ")], COLUMNS, "counts quadrants from 0 to 3"),
        (["<html>"], "<html>", "no column filter"),
        ([], "", "no column filter"),
    ],
)
def test_bad_files_say_what_is_wrong(tmp_path: Path, rows: list[str], columns: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        ztfxr.read_zfps(write(tmp_path, rows, columns))


def test_a_file_without_a_row_is_an_empty_light_curve(tmp_path: Path) -> None:
    assert ztfxr.read_zfps(write(tmp_path, [])).sizes == {"time": 0, "source": 1}


@pytest.mark.parametrize("null", ["null", "N/A", "nan", "None", "-99999", "-99999.0", "--", "1e999"])
@pytest.mark.parametrize("column", COLUMNS.split(", "))
def test_an_entry_that_is_missing_costs_no_other(tmp_path: Path, column: str, null: str) -> None:
    rows = [row(i, 2459250.5 + i) for i in range(6)]
    entries = rows[2].split()
    entries[COLUMNS.split(", ").index(column)] = null
    if column == "filter" and null in ("-99999", "-99999.0", "1e999"):
        null = entries[4] = "null"
    rows[2] = " ".join(entries)
    whole, lc = (ztfxr.read_zfps(write(tmp_path, r)) for r in ([row(i, 2459250.5 + i) for i in range(6)], rows))
    place = 5 if column == "jd" else 2
    others = np.arange(6) != place
    expected = whole.isel(time=np.arange(6) != 2)
    xr.testing.assert_identical(lc.isel(time=others), expected)
    cleaned = ztfxr.clean_zfps(write(tmp_path, rows), min_epochs=3)
    assert cleaned.sizes["time"] == 6
    if column in ("procstatus", "forcediffimflux", "forcediffimfluxunc"):
        assert int(cleaned["cuts"][place, 0]) != 0
    assert (cleaned["cuts"].values[others] == 0).all()
    binned = ztfxr.bin_by_night(cleaned)
    assert binned.sizes["time"] == (5 if column in ("jd", "exptime") else 6)


@pytest.mark.parametrize("bad", [row()[:40], row() + " 7", row().replace(" 5.0 ", " "), ""])
def test_rows_that_do_not_fit_are_kept_and_named(tmp_path: Path, bad: str) -> None:
    rows = [row(i, 2459250.5 + i) for i in range(6)]
    rows.insert(2, bad)
    lc = ztfxr.read_zfps(write(tmp_path, rows))
    assert lc.attrs.get("unreadable") == ("6" if bad else None)
    assert lc.sizes["time"] == (7 if bad else 6)
    cut = ztfxr.quality_cuts(lc)["cuts"].values[:, 0] != 0
    assert cut.tolist() == [False] * 6 + [True] * bool(bad)
    assert np.isnat(lc["time"].values[6:]).all()


def test_other_versions_of_the_file(tmp_path: Path) -> None:
    """New columns, fewer columns, a byte order mark, Windows line ends, commas, capitals: the same fluxes."""
    rows = [row(i, 2459250.5 + i, float(i)) for i in range(3)]
    path = write(tmp_path, rows)
    text = path.read_text()
    names = COLUMNS.split(", ")
    kept = [i for i, name in enumerate(names) if name not in ("procstatus", "field", "ccdid", "qid", "infobitssci")]
    fewer = [" ".join(r.split()[i] for i in kept) for r in rows]
    forms = [
        write(tmp_path, [r + " 3.5" for r in rows], COLUMNS + ", new").read_text(),
        write(tmp_path, fewer, ", ".join(names[i] for i in kept)).read_text(),
        "\ufeff" + text,
        text.replace("\n", "\r\n"),
        write(tmp_path, [", ".join(r.split()) for r in rows]).read_text(),
        text.replace(COLUMNS, COLUMNS.upper()),
    ]
    for form in forms:
        path.write_text(form, encoding="utf-8", newline="")
        lc = ztfxr.clean_zfps(path, min_epochs=2)
        assert lc["flux"].values[:, 0].tolist() == [0.0, 1.0, 2.0]
        assert (lc["cuts"].values == 0).all()


def test_a_date_that_is_none_is_unknown(tmp_path: Path) -> None:
    lc = ztfxr.read_zfps(write(tmp_path, [row(0, 2459250.5), row(1, 5.0), row(2, 1e9)]))
    assert np.isnan(lc["mjd"].values).sum() == np.isnat(lc["time"].values).sum() == 2


def test_a_missing_file_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such file"):
        ztfxr.read_zfps(tmp_path / "none.txt")
