"""Files of the forced photometry service: the real ones, and small ones by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

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
        ([row() + " 7"], COLUMNS, "line 4: 24 entries for 23 columns"),
        ([row(flux="many")], COLUMNS, "line 4: forcediffimflux is 'many'"),
        ([row().replace("ZTF_g", "ZTF_q")], COLUMNS, "unknown filter ZTF_q"),
        ([row().replace(" 8 1 ", " 8 4 ")], COLUMNS, "counts quadrants from 0 to 3"),
        (["<html>"], "<html>", "no column field"),
        ([], "", "no column field"),
    ],
)
def test_bad_files_say_what_is_wrong(tmp_path: Path, rows: list[str], columns: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        ztfxr.read_zfps(write(tmp_path, rows, columns))


def test_a_file_without_a_row_is_an_empty_light_curve(tmp_path: Path) -> None:
    assert ztfxr.read_zfps(write(tmp_path, [])).sizes == {"time": 0, "source": 1}
