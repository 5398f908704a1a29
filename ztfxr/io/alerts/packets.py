"""Single alert packets (Avro containers): what they hold, checked, or what they are instead.

Format: Masci et al. 2019, PASP 131, 018003, and the alert schemas 3.3 and 4.02.
"""

from __future__ import annotations

import io
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from astropy.utils.exceptions import AstropyUserWarning
from numpy.typing import NDArray

from ztfxr._quiet import quiet
from ztfxr.arrays.types import Floats, Ints
from ztfxr.errors import AlertError, InputError, MissingDependencyError
from ztfxr.io.fits import DAMAGE, require_few_counts
from ztfxr.io.times import JD_OF_MJD, mid_exposure
from ztfxr.schema import FILTERS

__all__ = ["STAMPS", "UNKNOWN_NUMBER", "Packet", "packet_files", "read_packets", "whole"]

STAMPS: Mapping[str, str] = {
    "sci": "cutoutScience",
    "reference": "cutoutTemplate",
    "ipac_difference": "cutoutDifference",
}
UNKNOWN_NUMBER = -1
_SENTINEL, _EXPTIME, _NO_VALUE = -999.0, 30.0, 1e30
_CONTAINER, _FRAMED, _LARGEST = b"Obj\x01", b"\x00", 64 << 20
_NEEDED = ("objectId", "candid", "candidate", *STAMPS.values())
_NEEDED_OF_CANDIDATE = ("jd", "fid", "isdiffpos")
_WHAT_IS_READ = "ztfxr reads packets of ZTF, schemas 3 and 4"
_POSITIVE, _NEGATIVE = ("t", "true", "1", "y", "yes"), ("f", "false", "0", "n", "no")


@dataclass(frozen=True)
class Packet:
    """One alert: its object, its filter, and what it says of itself.

    Parameters
    ----------
    path
        Where it was read from.
    record
        As the file holds it.
    stamps
        Pixels (y, x) of science image, reference and IPAC's difference by ztfxr's names; the difference is science less
        reference, whatever its sign in the file.
    positive
        Whether the object is brighter than in the reference.
    """

    path: str
    record: Mapping[str, Any]
    stamps: Mapping[str, NDArray[np.float32]]
    positive: bool

    @property
    def candidate(self) -> Mapping[str, Any]:
        """The detection that the alert is about."""
        found: Mapping[str, Any] = self.record["candidate"]
        return found

    @property
    def object(self) -> str:
        """The name of the object."""
        return str(self.record["objectId"])

    @property
    def filter(self) -> str:
        """The name of the filter."""
        return FILTERS[int(self.candidate["fid"])]

    @property
    def exptime(self) -> float:
        """Exposure time in seconds; 30 where the packet does not say."""
        value = self.number("exptime")
        return value if np.isfinite(value) else _EXPTIME

    @property
    def mjd(self) -> float:
        """Mid-exposure; the packet has the start."""
        return float(mid_exposure(float(self.candidate["jd"]) - JD_OF_MJD, self.exptime))

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the stamps."""
        rows, columns = self.stamps["sci"].shape
        return rows, columns

    def number(self, key: str) -> float:
        """A number of the candidate; NaN where it is absent, null or -999."""
        value = self.candidate.get(key)
        if value is None or isinstance(value, str | bytes):
            return np.nan
        return np.nan if float(value) == _SENTINEL else float(value)


def whole(values: Floats) -> Ints:
    """Whole numbers; those that are not known are -1."""
    return np.where(np.isfinite(values), values, UNKNOWN_NUMBER).astype(np.int64)


def packet_files(paths: str | PathLike[str] | Iterable[str | PathLike[str]]) -> list[Path]:
    """The files that are meant: some, one, or all ``*.avro`` of a folder; `InputError` for none."""
    if isinstance(paths, str | PathLike):
        one = Path(paths)
        if one.is_dir():
            files = sorted(one.glob("*.avro"))
        elif any(sign in one.name for sign in "*?["):
            files = sorted(one.parent.glob(one.name))
        else:
            files = [one]
    else:
        files = [Path(p) for p in paths]
    if not files:
        raise InputError(f"no alert packets (*.avro) in {paths}")
    return files


def read_packets(path: Path) -> list[Packet]:
    """All packets of one file.

    Raises
    ------
    MissingDependencyError
        fastavro is not installed.
    AlertError
        The file is something else, is damaged, or lacks what a ZTF packet has.
    FileNotFoundError
    """
    if path.is_file() and path.stat().st_size > _LARGEST:
        raise AlertError(f"{path}: {path.stat().st_size} bytes; a packet has a tenth of a megabyte: unpack the archive")
    data = path.read_bytes()
    _refuse_others(path, data)
    records = list(_records(path, data))
    if not records:
        raise AlertError(f"{path}: not a whole ZTF alert packet (no record); fetch it again")
    return [_packet(path, record) for record in records]


def _refuse_others(path: Path, data: bytes) -> None:
    """`AlertError` that names what the file is, where it is no Avro container."""
    if data.startswith(_CONTAINER):
        return
    if data.lstrip()[:1] == b"{" and _is_schema(data):
        raise AlertError(f"{path}: an Avro schema, not a packet; give the packets themselves (*.avro)")
    if data.startswith(_FRAMED):
        raise AlertError(
            f"{path}: a bare message, as streams with a schema registry send it (Rubin's do): its schema is not in it; "
            "write it as an Avro container with its schema first"
        )
    raise AlertError(f"{path}: not a whole ZTF alert packet (it begins with {data[:8]!r}); fetch it again")


def _is_schema(data: bytes) -> bool:
    try:
        return "type" in json.loads(data)
    except (ValueError, TypeError):
        return False


def _records(path: Path, data: bytes) -> Iterator[Mapping[str, Any]]:
    """The records of a container. It is read from memory, where a damaged length cannot ask for more than there is."""
    try:
        import fastavro
    except ImportError as error:
        raise MissingDependencyError.for_extra("fastavro", "alerts") from error
    try:
        for record in fastavro.reader(io.BytesIO(data)):
            if not isinstance(record, dict):
                raise TypeError(f"a record is a {type(record).__name__}")
            yield record
    except (*DAMAGE, MemoryError, RecursionError, fastavro.schema.SchemaParseException) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: BaseException) -> AlertError:
    return AlertError(f"{path}: not a whole ZTF alert packet ({type(error).__name__}: {error}); fetch it again")


def _packet(path: Path, record: Mapping[str, Any]) -> Packet:
    missing = [name for name in _NEEDED if record.get(name) is None]
    candidate = record.get("candidate")
    own = candidate if isinstance(candidate, Mapping) else {}
    if "candidate" not in missing:
        missing += [f"candidate.{name}" for name in _NEEDED_OF_CANDIDATE if own.get(name) is None]
    if missing:
        publisher = record.get("publisher") or "unknown"
        raise AlertError(
            f"{path}: not a whole ZTF alert packet: it has no {', '.join(missing)} (publisher: {publisher}); "
            f"{_WHAT_IS_READ}"
        )
    if not str(record["objectId"]).startswith("ZTF"):
        raise AlertError(
            f"{path}: a packet of another survey (object {record['objectId']}, publisher {record.get('publisher')}); "
            f"{_WHAT_IS_READ}"
        )
    if own["fid"] not in FILTERS:
        raise AlertError(f"{path}: fid = {own['fid']} names no ZTF filter (1 g, 2 r, 3 i)")
    positive = _is_positive(path, own["isdiffpos"])
    try:
        int(record["candid"]), float(own["jd"])
        stamps = {name: _stamp(record[key]) for name, key in STAMPS.items()}
    except DAMAGE as error:
        raise _damaged(path, error) from error
    if not positive:
        stamps["ipac_difference"] = -stamps["ipac_difference"]
    for stamp in stamps.values():
        if stamp.shape != stamps["sci"].shape:
            raise AlertError(f"{path}: a stamp of {stamp.shape} (y, x) pixels, the others have {stamps['sci'].shape}")
    return Packet(str(path), record, stamps, positive)


def _is_positive(path: Path, value: object) -> bool:
    """What `isdiffpos` says, in all the ways in which packets are written."""
    text = str(value).strip().lower()
    if text not in (*_POSITIVE, *_NEGATIVE):
        raise AlertError(f"{path}: isdiffpos is {value!r}; it is one of {', '.join((*_POSITIVE, *_NEGATIVE))}")
    return text in _POSITIVE


def _stamp(field: Any) -> NDArray[np.float32]:
    """A FITS stamp, gzipped or not, in native byte order.

    Early packets misformat the SIMPLE card; the pixels are sound.
    """
    data: bytes = field["stampData"] if isinstance(field, Mapping) else field
    if data[:2] == b"\x1f\x8b":
        unpacker = zlib.decompressobj(wbits=31)
        data = unpacker.decompress(data, _LARGEST)
        if not unpacker.eof:
            raise EOFError("a stamp ends before its pixels do")
    require_few_counts("a stamp", io.BytesIO(data), 0)
    with quiet(AstropyUserWarning), fits.open(io.BytesIO(data), memmap=False, ignore_missing_simple=True) as hdus:
        pixels = hdus[0].data
        if pixels is None or pixels.ndim != 2:
            raise ValueError("a stamp is no image")
        out = np.ascontiguousarray(pixels, dtype=np.float32)
        # IPAC writes the largest float where it has no value.
        out[~(np.abs(out) < _NO_VALUE)] = np.nan
        return out
