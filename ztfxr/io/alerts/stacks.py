"""The stamps of alert packets as time stacks, or one packet of each object beside the other."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from typing import Any, Literal, TypeAlias

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ztfxr.arrays.images.noise import photon_variance
from ztfxr.arrays.statistics import mad_std
from ztfxr.arrays.types import Floats
from ztfxr.errors import AlertError, InputError
from ztfxr.io.alerts.packets import STAMPS, UNKNOWN_NUMBER, Packet, packet_files, read_packets, whole
from ztfxr.io.times import to_datetime
from ztfxr.schema import annotate_all

__all__ = ["open_alerts"]

Along: TypeAlias = Literal["time", "object"]
Filter: TypeAlias = Literal["ztfg", "ztfr", "ztfi"]

_PHOTOMETRY = {
    "magpsf": "mag",
    "sigmapsf": "mag",
    "magap": "mag",
    "sigmagap": "mag",
    "magapbig": "mag",
    "sigmagapbig": "mag",
    "diffmaglim": "mag",
    "magzpsci": "mag",
    "magzpsciunc": "mag",
    "magzpscirms": "mag",
    "clrcoeff": "",
    "fwhm": "pixel",
    "xpos": "pixel",
    "ypos": "pixel",
    "ra": "deg",
    "dec": "deg",
    "magnr": "mag",
    "rb": "",
    "drb": "",
    "scorr": "",
}
_NOMINAL_GAIN = 6.2
_NOMINAL_READNOISE = 10.0
_NOMINAL_NFRAMES = 15.0
_HALF = 31
_SKY_RING, _TYPICAL_SQUARE = 20.0, 0.3


def open_alerts(
    paths: str | PathLike[str] | Iterable[str | PathLike[str]],
    *,
    filter: Filter | None = None,  # noqa: A002
    along: Along = "time",
    gain: float = _NOMINAL_GAIN,
    readnoise: float = _NOMINAL_READNOISE,
    errors: Literal["raise", "skip"] = "raise",
) -> xr.DataTree | xr.Dataset:
    """Open ZTF alert packets (Avro) of any number of objects as stacks of their stamps.

    Computes: packets are read whole.

    Parameters
    ----------
    paths
        Packets, a pattern of them, or one folder of ``*.avro`` packets. Their order does not matter.
    filter
        Only packets in this filter, and no level for filters in the result.
    along
        ``"time"``: a stack (time, y, x) of each object in each filter. ``"object"``: one Dataset (object, y, x) of the
        packets of one filter, one of each object, as a night has them.
    gain, readnoise
        Packets do not carry them; ZTF's nominal values in electron/DN and electron.
    errors
        ``"raise"``: a packet that cannot be read is an error. ``"skip"``: it is left out, and its message is in the
        attribute `skipped` of the result.

    Returns
    -------
    xarray.DataTree or xarray.Dataset
        For one object one node per filter (``tree["ztfg"]``), or with `filter` its Dataset; for several objects a node
        per object, and below it one per filter unless that was given (``tree["ZTF18abcdefg/ztfg"]``). Each Dataset is
        sorted by time: `sci`, `reference` and `ipac_difference` (time, y, x) float32 in DN, with `variance` and
        `reference_variance` by photon statistics (the reference is a mean of `reference_nframes`, 15 where the packet
        does not say). `ipac_difference` is science less reference also where `isdiffpos` is False and the packet holds
        the opposite. IPAC shifts the sky of the science stamps to that of the reference, so that their pixels
        understate the noise of moonlit nights, the variance up to twentyfold: what the scatter of IPAC's difference has
        more, beyond 20 pixels from the middle, is added. `y`, `x` are offsets from the object's pixel, also of stamps
        that the CCD's edge cuts; pixels that a packet lacks are NaN. Packets carry no WCS, and each science/reference
        pair is aligned while epochs among themselves are not. The packet's photometry (`magpsf`, `magap`, `magzpsci`,
        `fwhm`, `isdiffpos`, ...), `candid`, `mjd` (mid-exposure), `gain`, `readnoise` and `reference_nframes` lie on
        `time`; numbers that a packet does not state are NaN, `field` and `rcid` -1.

    Raises
    ------
    MissingDependencyError
        fastavro is not installed (``pip install "ztfxr[alerts]"``).
    AlertError
        A packet is unreadable or of another survey, or an object has several along ``"object"``.
    InputError
        No packet, or none in the filter; packets of several filters along ``"object"``.

    Examples
    --------
    >>> night = ztfxr.open_alerts("night/", along="object", filter="ztfg")  # doctest: +SKIP
    >>> fluxes = night.ztf.lightcurve(scale="reference").compute()  # doctest: +SKIP
    """
    if along not in ("time", "object"):
        raise InputError(f"along is 'time' or 'object'; got {along!r}")
    packets, skipped = _read_all(paths, errors)
    packets = sorted(packets, key=lambda p: p.mjd)
    if filter is not None:
        names = sorted({p.filter for p in packets})
        packets = [p for p in packets if p.filter == filter]
        if not packets:
            raise InputError(f"no packet in {filter}; the packets are in {', '.join(names)}")
    if along == "object":
        out: xr.DataTree | xr.Dataset = _side_by_side(packets, gain, readnoise)
    else:
        out = _stacks(packets, gain, readnoise, by_filter=filter is None)
    if skipped:
        out.attrs["skipped"] = skipped
    return out


def _read_all(
    paths: str | PathLike[str] | Iterable[str | PathLike[str]], errors: Literal["raise", "skip"]
) -> tuple[list[Packet], list[str]]:
    """All packets, and what was wrong with those that were skipped; `AlertError` where none is left."""
    if errors not in ("raise", "skip"):
        raise InputError(f"errors is 'raise' or 'skip'; got {errors!r}")
    packets: list[Packet] = []
    skipped: list[str] = []
    for path in packet_files(paths):
        try:
            packets += read_packets(path)
        except AlertError as error:
            if errors == "raise":
                raise
            skipped.append(str(error))
    if not packets:
        raise AlertError(f"none of {len(skipped)} packets could be read; the first: {skipped[0]}")
    return packets, skipped


def _stacks(packets: Sequence[Packet], gain: float, readnoise: float, *, by_filter: bool) -> xr.DataTree | xr.Dataset:
    """Stacks by object and filter; without a level that has but one object, or no choice of filter."""
    groups: dict[str, list[Packet]] = {}
    one = len({p.object for p in packets}) == 1
    for packet in packets:
        levels = ([] if one else [packet.object]) + ([packet.filter] if by_filter else [])
        groups.setdefault("/".join(levels), []).append(packet)
    made = {name: _dataset(group, "time", gain, readnoise) for name, group in sorted(groups.items())}
    return made[""] if list(made) == [""] else xr.DataTree.from_dict(made)


def _side_by_side(packets: Sequence[Packet], gain: float, readnoise: float) -> xr.Dataset:
    """One packet of each object, in the order of their names."""
    filters = sorted({p.filter for p in packets})
    if len(filters) > 1:
        raise InputError(f"the packets are in {', '.join(filters)}; along='object' takes those of one: give filter=")
    names = [p.object for p in packets]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise AlertError(
            f"{len(twice)} objects have several packets in {filters[0]} ({twice[0]} has {names.count(twice[0])}); open "
            "them along='time'"
        )
    return _dataset(sorted(packets, key=lambda p: p.object), "object", gain, readnoise)


def _dataset(packets: Sequence[Packet], along: Along, gain: float, readnoise: float) -> xr.Dataset:
    offsets = [_offsets(p) for p in packets]
    first = [min(o[axis] for o in offsets) for axis in (0, 1)]
    last = [max(o[axis] + p.shape[axis] for o, p in zip(offsets, packets, strict=True)) for axis in (0, 1)]
    labels = {d: np.arange(a, b) for d, a, b in zip(("y", "x"), first, last, strict=True)}
    dims = (along, "y", "x")
    planes = {key: np.full((len(packets), len(labels["y"]), len(labels["x"])), np.nan, np.float32) for key in STAMPS}
    for i, (packet, (y, x)) in enumerate(zip(packets, offsets, strict=True)):
        rows, columns = packet.shape
        where = np.s_[i, y - first[0] : y - first[0] + rows, x - first[1] : x - first[1] + columns]
        for key, plane in planes.items():
            plane[where] = packet.stamps[key]
    coords = _coordinates(packets, along, gain, readnoise)
    n_frames = coords["reference_nframes"][1]
    planes["variance"] = _noise(planes["sci"], gain, readnoise, np.ones_like(n_frames))
    planes["reference_variance"] = _noise(planes["reference"], gain, readnoise, n_frames)
    planes["variance"] += _missing_noise(planes, np.hypot(labels["y"][:, None], labels["x"]))[:, None, None]
    images = {key: xr.Variable(dims, plane).chunk({along: 1}) for key, plane in planes.items()}
    dataset = xr.Dataset(images, coords | {d: (d, values) for d, values in labels.items()})
    dataset.attrs = {"target_x": 0, "target_y": 0}
    if along == "time":
        dataset.attrs["object"] = packets[0].object
    # IPAC brings the science stamp to the scale of the reference before it cuts both out.
    dataset.attrs |= {"reference_scale": 1.0, "reference_scale_err": 0.001}
    return _annotated(dataset)


def _annotated(dataset: xr.Dataset) -> xr.Dataset:
    out = annotate_all(dataset)
    for dim in ("y", "x"):
        out[dim].attrs["long_name"] = "offset from the pixel of the object"
    for key, units in _PHOTOMETRY.items():
        if units:
            out[_column_name(key)].attrs["units"] = units
    for key in ("field", "rcid"):
        out[key].attrs["long_name"] = f"{out[key].attrs.get('long_name', key)} ({UNKNOWN_NUMBER}: not stated)"
    return out


def _offsets(packet: Packet) -> tuple[int, int]:
    """Where the first row and column of a packet's stamps lie from the object.

    A whole stamp has the object in its middle. The edge of the CCD cuts the side that is nearest, which the object's
    position (pixels counted from 1) tells; where it does not, the upper side.
    """
    return _offset(packet.shape[0], packet.number("ypos")), _offset(packet.shape[1], packet.number("xpos"))


def _offset(n: int, position: float) -> int:
    if n > 2 * _HALF:
        return -(n // 2)
    index = round(position) - 1 if np.isfinite(position) else _HALF
    low = index < _HALF and index + _HALF + 1 >= n
    return -index if low else -min(_HALF, n - 1)


def _noise(stamps: NDArray[np.float32], gain: float, readnoise: float, n_frames: Floats) -> NDArray[np.float32]:
    return photon_variance(stamps, gain=gain, readnoise=readnoise, n_frames=n_frames).astype(np.float32)


def _missing_noise(planes: Mapping[str, NDArray[np.float32]], radius: Floats) -> NDArray[np.float32]:
    """Variance of each science stamp's sky that its pixels do not tell of, by the scatter of IPAC's difference."""
    far = radius > _SKY_RING
    modeled = (planes["variance"] + _TYPICAL_SQUARE * planes["reference_variance"])[:, far]
    missing = np.zeros(len(modeled), dtype=np.float32)
    for i, (difference, variance) in enumerate(zip(planes["ipac_difference"][:, far], modeled, strict=True)):
        seen = np.isfinite(difference) & np.isfinite(variance)
        if seen.any():
            missing[i] = max(mad_std(difference[seen]) ** 2 - float(np.median(variance[seen])), 0.0)
    return missing


def _coordinates(packets: Sequence[Packet], along: Along, gain: float, readnoise: float) -> dict[str, Any]:
    def column(key: str) -> Floats:
        return np.array([p.number(key) for p in packets], dtype=float)

    mjd = np.array([p.mjd for p in packets])
    values: dict[str, Any] = {
        "time": np.array([to_datetime(m) for m in mjd]),
        "mjd": mjd,
        "exptime": np.array([p.exptime for p in packets]),
        "field": whole(column("field")),
        "rcid": whole(column("rcid")),
        "candid": np.array([int(p.record["candid"]) for p in packets], dtype=np.int64),
        "isdiffpos": np.array([p.positive for p in packets]),
        "reference_nframes": np.nan_to_num(column("nframesref"), nan=_NOMINAL_NFRAMES),
        "gain": np.full(len(packets), gain),
        "readnoise": np.full(len(packets), readnoise),
        "magzp": column("magzpsci"),
        **{_column_name(k): column(k) for k in _PHOTOMETRY},
    }
    if along == "object":
        values["object"] = np.array([p.object for p in packets])
    return {"filter": packets[0].filter, **{k: (along, v) for k, v in values.items()}}


def _column_name(key: str) -> str:
    """The coordinate that holds a packet's `key`: `ra` and `dec` are names of pixel labels."""
    return f"packet_{key}" if key in ("ra", "dec") else key
