"""Forced photometry that alert packets carry of the days before (`fp_hists`, schema 4)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ztfxr.errors import AlertError
from ztfxr.io.alerts.packets import Packet, packet_files, read_packets
from ztfxr.io.zfps import forced_light_curve
from ztfxr.schema import FILTERS

__all__ = ["read_fp_hists"]

_MISSING = (-99999.0, -999.0)
_RENAMED = {"zpdiff": "magzpsci", "zpmaginpsci": "magzpsci", "zpmaginpscirms": "magzpscirms", "clrcoeffunc": "clrcounc"}
_SAME = (
    "forcediffimflux",
    "forcediffimfluxunc",
    "sciinpseeing",
    "scibckgnd",
    "scisigpix",
    "clrcoeff",
    "diffmaglim",
    "adpctdif1",
    "adpctdif2",
    "jd",
    "exptime",
    "field",
    "rfid",
    "rcid",
    "fid",
)


def read_fp_hists(paths: str | PathLike[str] | Iterable[str | PathLike[str]]) -> xr.Dataset | xr.DataTree:
    """Forced photometry of alert packets' objects at earlier exposures. Computes.

    Parameters
    ----------
    paths
        Packets of schema 4, a pattern of them, or one folder of ``*.avro`` packets. Where several packets of an object
        list an exposure, the last packet counts.

    Returns
    -------
    xarray.Dataset or xarray.DataTree
        As of `ztfxr.read_zfps`, on (time, source) with one source, so that `ztfxr.clean_zfps`, `ztfxr.magnitudes` and
        all that follows take it: `flux`, `flux_err` (DN, of the PSF fit on the difference image), `procstatus`,
        `magzp`, `filter`, ...; `ra`, `dec` are those of the last packet. Entries that are -99999, -999 or null are
        NaN. For several objects a DataTree with a node for each.

    Raises
    ------
    MissingDependencyError
        fastavro is not installed (``pip install "ztfxr[alerts]"``).
    AlertError
        A packet is unreadable, or no packet of an object has a history (schemas before 4 have none).
    """
    packets = [packet for path in packet_files(paths) for packet in read_packets(path)]
    groups: dict[str, list[Packet]] = {}
    for packet in sorted(packets, key=lambda p: p.mjd):
        groups.setdefault(packet.object, []).append(packet)
    found = {name: _history(name, group) for name, group in sorted(groups.items())}
    return next(iter(found.values())) if len(found) == 1 else xr.DataTree.from_dict(found)


def _history(name: str, packets: Sequence[Packet]) -> xr.Dataset:
    rows: dict[tuple[Any, ...], Mapping[str, Any]] = {}
    for packet in packets:
        for row in packet.record.get("fp_hists") or []:
            if row.get("jd") is not None and row.get("fid") in FILTERS:
                rows[(row["jd"], row["fid"], row.get("field"), row.get("rcid"))] = row
    if not rows:
        version = packets[-1].record.get("schemavsn")
        raise AlertError(f"{packets[-1].path}: no forced photometry history of {name} (schema {version}; 4 has one)")
    out = forced_light_curve(_columns(list(rows.values())), packets[-1].path)
    place = {axis: ("source", [packets[-1].number(axis)]) for axis in ("ra", "dec")}
    return out.assign_coords(place).assign_attrs(object=name)


def _columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, NDArray[Any]]:
    """The history as columns under the names of the forced photometry service."""

    def numbers(key: str) -> NDArray[np.float64]:
        values = np.array([np.nan if row.get(key) is None else float(row[key]) for row in rows])
        return np.where(np.isin(values, _MISSING), np.nan, values)

    columns: dict[str, NDArray[Any]] = {key: numbers(key) for key in _SAME}
    columns |= {key: numbers(source) for key, source in _RENAMED.items()}
    rcid = columns.pop("rcid")
    columns["ccdid"], columns["qid"] = rcid // 4 + 1, rcid % 4
    columns["filter"] = np.array([f"ZTF_{FILTERS[row['fid']][-1]}" for row in rows])
    columns["procstatus"] = np.array(["" if row.get("procstatus") is None else str(row["procstatus"]) for row in rows])
    return columns
