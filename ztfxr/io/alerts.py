"""ZTF alert packets: their three stamps as time stacks, their photometry on time.

Format: Masci et al. 2019, PASP 131, 018003, and the alert schema 3.3.
"""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterable, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import numpy as np
import xarray as xr
from astropy.io import fits
from astropy.utils.exceptions import AstropyUserWarning
from numpy.typing import NDArray

from ztfxr._quiet import quiet
from ztfxr.arrays.images.noise import photon_variance
from ztfxr.arrays.statistics import mad_std
from ztfxr.arrays.types import Floats
from ztfxr.errors import AlertError, InputError, MissingDependencyError
from ztfxr.io.times import JD_OF_MJD, mid_exposure, to_datetime
from ztfxr.schema import FILTERS, annotate_all

__all__ = ["open_alerts"]

_STAMPS = {"sci": "cutoutScience", "reference": "cutoutTemplate", "ipac_difference": "cutoutDifference"}
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
_DIMS = ("time", "y", "x")
_NOMINAL_GAIN = 6.2
_NOMINAL_READNOISE = 10.0
_NOMINAL_NFRAMES = 15.0
_SKY_RING, _TYPICAL_SQUARE = 20.0, 0.3


def open_alerts(
    paths: str | PathLike[str] | Iterable[str | PathLike[str]],
    *,
    filter: Literal["ztfg", "ztfr", "ztfi"] | None = None,  # noqa: A002
    gain: float = _NOMINAL_GAIN,
    readnoise: float = _NOMINAL_READNOISE,
) -> xr.DataTree | xr.Dataset:
    """Open ZTF alert packets (Avro) of one object as time stacks, one Dataset per filter.

    Computes: packets are read whole.

    Parameters
    ----------
    paths
        Packets, or one folder of ``*.avro`` packets. Their order does not matter.
    filter
        Return the Dataset of this filter instead of the tree of all.
    gain, readnoise
        Packets do not carry them; ZTF's nominal values in electron/DN and electron.

    Returns
    -------
    xarray.DataTree or xarray.Dataset
        One node per filter (``tree["ztfg"]``), sorted by time: `sci`, `reference` and `ipac_difference`
        (time, y, x) float32 in DN, with `variance` and `reference_variance` by photon statistics (the reference is a
        mean of `reference_nframes`, 15 where the packet does not say). IPAC shifts the sky of the science stamps to
        that of the reference, so that their pixels understate the noise of moonlit nights, the variance up to
        twentyfold: what the scatter of IPAC's difference has more, beyond 20 pixels from the middle, is added. `y`, `x`
        are offsets from the central pixel: packets carry no WCS, and each science/reference pair is aligned while
        epochs among themselves are not. The packet's photometry (`magpsf`, `magap`, `magzpsci`, `fwhm`, `isdiffpos`,
        ...), `candid`, `mjd` (mid-exposure), `gain`, `readnoise` and `reference_nframes` lie on `time`.

    Raises
    ------
    MissingDependencyError
        fastavro is not installed (``pip install "ztfxr[alerts]"``).
    AlertError
        A packet is unreadable, of another object, or has stamps of another shape.
    """
    files = _packet_files(paths)
    packets = sorted((_read_packet(f) for f in files), key=lambda p: float(p["candidate"]["jd"]))
    objects = sorted({str(p["objectId"]) for p in packets})
    if len(objects) > 1:
        raise AlertError(
            f"the packets belong to {len(objects)} objects ({', '.join(objects[:3])}, ...); open one at a time"
        )
    groups: dict[str, list[dict[str, Any]]] = {}
    for packet in packets:
        groups.setdefault(FILTERS[int(packet["candidate"]["fid"])], []).append(packet)
    if filter is not None:
        if filter not in groups:
            raise InputError(f"no packet in {filter}; the packets are in {', '.join(sorted(groups))}")
        return _stack(groups[filter], filter, gain, readnoise)
    return xr.DataTree.from_dict({name: _stack(group, name, gain, readnoise) for name, group in sorted(groups.items())})


def _packet_files(paths: str | PathLike[str] | Iterable[str | PathLike[str]]) -> list[Path]:
    if isinstance(paths, str | PathLike):
        one = Path(paths)
        files = sorted(one.glob("*.avro")) if one.is_dir() else [one]
    else:
        files = [Path(p) for p in paths]
    if not files:
        raise InputError(f"no alert packets (*.avro) in {paths}")
    return files


def _read_packet(path: Path) -> dict[str, Any]:
    try:
        import fastavro
    except ImportError as error:
        raise MissingDependencyError.for_extra("fastavro", "alerts") from error
    try:
        with path.open("rb") as stream:
            packet: dict[str, Any] = next(iter(fastavro.reader(stream)))  # type: ignore[arg-type]
        packet["stamps"] = {name: _stamp(packet[key]["stampData"]) for name, key in _STAMPS.items()}
        packet["path"] = str(path)
        fid = packet["candidate"]["fid"]
    except FileNotFoundError:
        raise
    except (OSError, EOFError, ValueError, TypeError, KeyError, IndexError, StopIteration, zlib.error) as error:
        raise AlertError(
            f"{path}: not a whole ZTF alert packet ({type(error).__name__}: {error}); fetch it again"
        ) from error
    if fid not in FILTERS:
        raise AlertError(f"{path}: fid = {fid} names no ZTF filter (1 g, 2 r, 3 i)")
    return packet


def _stamp(data: bytes) -> NDArray[np.float32]:
    """A gzipped FITS stamp in native byte order. Early packets misformat the SIMPLE card; the pixels are sound."""
    stream = io.BytesIO(gzip.decompress(data))
    with quiet(AstropyUserWarning), fits.open(stream, memmap=False, ignore_missing_simple=True) as hdus:
        return np.ascontiguousarray(hdus[0].data, dtype=np.float32)


def _stack(packets: Sequence[dict[str, Any]], name: str, gain: float, readnoise: float) -> xr.Dataset:
    shape = packets[0]["stamps"]["sci"].shape
    for packet in packets:
        for stamp in packet["stamps"].values():
            if stamp.shape != shape:
                raise AlertError(f"{packet['path']}: a stamp of {stamp.shape} (y, x) pixels, the others have {shape}")
    coords = _coordinates(packets, name, shape, gain, readnoise)
    images = {key: xr.Variable(_DIMS, np.stack([p["stamps"][key] for p in packets])) for key in _STAMPS}
    n_frames = coords["reference_nframes"][1]
    images["variance"] = _noise(images["sci"], gain, readnoise, np.ones_like(n_frames))
    images["reference_variance"] = _noise(images["reference"], gain, readnoise, n_frames)
    images["variance"] += _missing_noise(images)
    epochs = {k: v.chunk(time=1) for k, v in images.items()}
    dataset = xr.Dataset(epochs, coords)
    dataset.attrs = {"object": str(packets[0]["objectId"]), "target_x": 0, "target_y": 0}
    # IPAC brings the science stamp to the scale of the reference before it cuts both out.
    dataset.attrs |= {"reference_scale": 1.0, "reference_scale_err": 0.001}
    out = annotate_all(dataset)
    for dim in ("y", "x"):
        out[dim].attrs["long_name"] = "offset from the central pixel of the stamp"
    for key, units in _PHOTOMETRY.items():
        if units:
            out[_column_name(key)].attrs["units"] = units
    return out


def _noise(stamps: xr.Variable, gain: float, readnoise: float, n_frames: Floats) -> xr.Variable:
    noise = photon_variance(stamps.values, gain=gain, readnoise=readnoise, n_frames=n_frames)
    return xr.Variable(_DIMS, noise.astype(np.float32))


def _missing_noise(images: dict[str, xr.Variable]) -> xr.Variable:
    """Variance of each science stamp's sky that its pixels do not tell of, by the scatter of IPAC's difference."""
    ny, nx = images["sci"].shape[1:]
    far = np.hypot(np.arange(ny)[:, None] - ny // 2, np.arange(nx)[None] - nx // 2) > _SKY_RING
    if not far.any():
        return xr.Variable("time", np.zeros(len(images["sci"]), dtype=np.float32))
    modeled = (images["variance"] + _TYPICAL_SQUARE * images["reference_variance"]).values[:, far]
    found = np.array([mad_std(stamp[far]) ** 2 for stamp in images["ipac_difference"].values])
    missing = np.nan_to_num(np.maximum(found - np.nanmedian(modeled, axis=1), 0.0))
    return xr.Variable("time", missing.astype(np.float32))


def _coordinates(
    packets: Sequence[dict[str, Any]], name: str, shape: tuple[int, int], gain: float, readnoise: float
) -> dict[str, Any]:
    candidates = [p["candidate"] for p in packets]

    def column(key: str) -> Floats:
        return np.array([_value(c.get(key)) for c in candidates], dtype=float)

    exptime = np.nan_to_num(column("exptime"), nan=30.0)
    mjd = np.array([mid_exposure(float(c["jd"]) - JD_OF_MJD, e) for c, e in zip(candidates, exptime, strict=True)])
    on_time: dict[str, Any] = {
        "time": np.array([to_datetime(m) for m in mjd]),
        "mjd": mjd,
        "exptime": exptime,
        "field": column("field").astype(np.int64),
        "rcid": column("rcid").astype(np.int64),
        "candid": np.array([int(p["candid"]) for p in packets], dtype=np.int64),
        "isdiffpos": np.array([str(c["isdiffpos"]) in ("t", "1") for c in candidates]),
        "reference_nframes": np.nan_to_num(column("nframesref"), nan=_NOMINAL_NFRAMES),
        "gain": np.full(len(packets), gain),
        "readnoise": np.full(len(packets), readnoise),
        "magzp": column("magzpsci"),
        **{_column_name(k): column(k) for k in _PHOTOMETRY},
    }
    offsets = {d: np.arange(n) - n // 2 for d, n in zip(("y", "x"), shape, strict=True)}
    return {"filter": name, **{k: ("time", v) for k, v in on_time.items()}, **{d: (d, v) for d, v in offsets.items()}}


def _column_name(key: str) -> str:
    """The coordinate that holds a packet's `key`: `ra` and `dec` are names of pixel labels."""
    return f"packet_{key}" if key in ("ra", "dec") else key


def _value(value: Any) -> float:
    """A packet number; absent and the sentinel -999 become NaN."""
    return np.nan if value is None or value == -999.0 else float(value)
