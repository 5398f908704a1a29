"""Rows of metadata as the archive has them: made of files, chosen by a position and by conditions, written as CSV."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits

from ztfxr.arrays.geometry.tangent import from_tangent, to_tangent
from ztfxr.io.names import FILTER_CODES, Product, parse_product

__all__ = ["columns_of", "csv_of", "matches", "metadata"]

_CORNERS = "ra1 dec1 ra2 dec2 ra3 dec3 ra4 dec4"
_WCS = "crpix1 crpix2 crval1 crval2 cd11 cd12 cd21 cd22"
_COLUMNS = {
    "sci": "ra dec infobits field ccdid qid rcid fid filtercode pid nid expid itid imgtype imgtypecode obsdate obsjd "
    f"exptime filefracday seeing airmass moonillf moonesb maglimit {_WCS} {_CORNERS} "
    "ipac_pub_date ipac_gid meta_id poly",
    "ref": "infobits field ccdid qid rcid fid filtercode rfid nframes maglimit startobsdate endobsdate "
    f"{_WCS} ra dec {_CORNERS} ipac_pub_date ipac_gid meta_id poly",
    "raw": "infobits field ccdid fid filtercode nid expid itid imgtype imgtypecode filefracday obsdate obsjd exptime "
    "seeing airmass moonillf moonesb telra teldec ccdrot ipac_pub_date ipac_gid meta_id",
    "cal": "caltype ccdid qid rcid fid filtercode cid nightdate startobsdate endobsdate nid nframes ipac_pub_date "
    "meta_id",
}
_FIDS = {code: number for number, code in enumerate(FILTER_CODES, 1)}
_ONE = re.compile(r"(\w+)\s*(<=|>=|<>|!=|=|<|>)\s*('[^']*'|[-+.\deE]+)")
_IN = re.compile(r"(\w+)\s+IN\s*\(([^)]*)\)", re.IGNORECASE)
_BETWEEN = re.compile(r"(\w+)\s+BETWEEN\s+(\S+)\s+AND\s+(\S+)", re.IGNORECASE)


def columns_of(kind: str) -> list[str]:
    """The columns of a kind of products."""
    return _COLUMNS["ref" if kind == "deep" else kind].split()


def metadata(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Rows of every science and reference image below a folder, by kind."""
    out: dict[str, list[dict[str, Any]]] = {"sci": [], "ref": [], "raw": [], "cal": []}
    for path in sorted(folder.rglob("ztf_*_sciimg.fits")):
        out["sci"].append(_row(parse_product(path), fits.getheader(path), len(out["sci"])))
    for path in sorted(folder.rglob("ztf_*_refimg.fits")):
        out["ref"].append(_row(parse_product(path), fits.getheader(path), len(out["ref"])))
    return out


def _row(product: Product, header: fits.Header, number: int) -> dict[str, Any]:
    """What the archive would say of an image; what its header does not say is left out."""
    row: dict[str, Any] = {"field": product.field, "ccdid": product.ccdid, "qid": product.qid, "rcid": product.rcid}
    row |= {"filtercode": product.code, "fid": _FIDS[product.code], "infobits": int(header.get("INFOBITS", 0))}
    row |= {"pid": 10**9 + number, "rfid": 10**6 + number, "ipac_gid": 1, "maglimit": 20.5, "nframes": 20}
    if product.kind == "sci":
        start = float(header["OBSJD"])
        row |= {"filefracday": product.when, "imgtypecode": product.type, "imgtype": "object", "obsjd": start}
        row |= {"exptime": float(header["EXPTIME"]), "seeing": round(float(header.get("SEEING", 2)) * 1.012, 4)}
        row |= {"airmass": float(header.get("AIRMASS", 1.2))}
    for name in ("CRPIX1", "CRPIX2", "CRVAL1", "CRVAL2", "CD1_1", "CD1_2", "CD2_1", "CD2_2"):
        row[name.replace("_", "").lower()] = float(header.get(name, 0.0))
    row |= {"_nx": int(header["NAXIS1"]), "_ny": int(header["NAXIS2"])}
    x = np.array([row["_nx"] / 2, 1, row["_nx"], row["_nx"], 1])
    y = np.array([row["_ny"] / 2, 1, 1, row["_ny"], row["_ny"]])
    ra, dec = _sky(row, x, y)
    row |= (
        {"ra": ra[0], "dec": dec[0]} | {f"ra{i}": ra[i] for i in range(1, 5)} | {f"dec{i}": dec[i] for i in range(1, 5)}
    )
    return row | {"poly": f"POLYGON ICRS({', '.join(f'{v:.5f}' for v in np.ravel(np.transpose([ra[1:], dec[1:]])))})"}


def _sky(row: dict[str, Any], x: Any, y: Any) -> tuple[Any, Any]:
    dx, dy = x - row["crpix1"], y - row["crpix2"]
    u, v = row["cd11"] * dx + row["cd12"] * dy, row["cd21"] * dx + row["cd22"] * dy
    return from_tangent(3600 * u, 3600 * v, (row["crval1"], row["crval2"]))


def csv_of(rows: list[dict[str, Any]], columns: list[str]) -> str:
    """Rows as the archive writes them."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([row.get(name, "") for name in columns] for row in rows)
    return out.getvalue()


def matches(row: dict[str, Any], form: dict[str, str]) -> bool:
    """Whether a row is where a search looks, and fulfills its conditions."""
    return _is_there(row, form) and all(_holds(row, condition) for condition in _conditions(form.get("WHERE", "")))


def _is_there(row: dict[str, Any], form: dict[str, str]) -> bool:
    if "POS" not in form or "_nx" not in row:
        return True
    ra, dec = (float(v) for v in form["POS"].split(","))
    half = float(form.get("SIZE", "0").split(",")[0]) / 2
    u, v = to_tangent(ra, dec, (row["crval1"], row["crval2"]))
    turn = np.linalg.inv([[row["cd11"], row["cd12"]], [row["cd21"], row["cd22"]]])
    x, y = turn @ [float(u) / 3600, float(v) / 3600] + [row["crpix1"], row["crpix2"]]
    margin = half / abs(np.hypot(row["cd11"], row["cd12"]))
    return bool(0.5 - margin <= x <= row["_nx"] + 0.5 + margin and 0.5 - margin <= y <= row["_ny"] + 0.5 + margin)


def _conditions(where: str) -> list[Any]:
    """The parts of a condition that AND joins: comparisons, lists and ranges."""
    found: list[Any] = [(name, "in", [_value(v) for v in values.split(",")]) for name, values in _IN.findall(where)]
    found += [(name, "between", [_value(low), _value(high)]) for name, low, high in _BETWEEN.findall(where)]
    rest = _BETWEEN.sub("", _IN.sub("", where))
    return found + [(name, sign, [_value(value)]) for name, sign, value in _ONE.findall(rest)]


def _value(text: str) -> Any:
    text = text.strip().rstrip(")")
    return text[1:-1] if text.startswith("'") else float(text)


def _holds(row: dict[str, Any], condition: tuple[str, str, list[Any]]) -> bool:
    name, sign, values = condition
    got = row.get(name)
    if got is None:
        return False
    got = got if isinstance(values[0], str) else float(got)
    if sign == "in":
        return got in values
    if sign == "between":
        return bool(values[0] <= got <= values[1])
    low, equal = got < values[0], got == values[0]
    signs = {"=": equal, "<>": not equal, "!=": not equal, "<": low, "<=": low or equal}
    return bool(signs.get(sign, not low if sign == ">=" else not (low or equal)))
