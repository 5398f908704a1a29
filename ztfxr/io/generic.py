"""FITS frames of any telescope: the reader is told which header cards say what."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from os import PathLike
from typing import Any, Literal, TypeAlias

import numpy as np
import xarray as xr
from astropy.io import fits
from astropy.time import Time
from xarray.backends import BackendEntrypoint
from xarray.core import indexing

from ztfxr.errors import FrameError, HeaderError, InputError
from ztfxr.io.backend import FITSArray
from ztfxr.io.fits import inspect
from ztfxr.io.remote import file_name, location, shown
from ztfxr.io.times import JD_OF_MJD, mid_exposure, to_datetime
from ztfxr.schema import STATUS_PLANES, annotate, annotate_all, planes_to_bits
from ztfxr.wcs import assign_wcs, wcs_cards

__all__ = ["open_frame", "open_frames"]

Path_ = str | PathLike[str]
Number: TypeAlias = str | float | None

_ESSENTIAL = ("time", "exptime")


@dataclass(frozen=True)
class Cards:
    """Where each coordinate of a frame comes from: the name of a header card, a value, or None where it is unknown.

    Parameters
    ----------
    time
        A card with an MJD, a JD or an ISO 8601 date and time (UTC); or an MJD, or a `numpy.datetime64`.
    exptime
        Exposure time in seconds.
    gain, readnoise, saturate, seeing, magzp
        In electron/DN, electron, DN, pixels and mag. NaN where the card is absent.
    filter
        A card; an absent card gives "". A value is given as ``"=r"``.
    time_is
        What `time` marks: the start, the middle or the end of the exposure.
    """

    time: str | float | np.datetime64 = "MJD-OBS"
    exptime: Number = "EXPTIME"
    gain: Number = "GAIN"
    readnoise: Number = "RDNOISE"
    saturate: Number = "SATURATE"
    seeing: Number = None
    magzp: Number = None
    filter: str | None = "FILTER"
    time_is: Literal["start", "middle", "end"] = "start"

    def coords(self, header: fits.Header, path: str) -> dict[str, Any]:
        """The scalar coordinates of a frame; `HeaderError` where time or exposure time cannot be had."""
        exptime = self._number("exptime", header, path)
        shift = {"start": 0.0, "middle": -exptime / 2, "end": -exptime}[self.time_is]
        mjd = mid_exposure(self._mjd(header, path) + shift / 86400.0, exptime)
        names = ("gain", "readnoise", "saturate", "seeing", "magzp")
        numbers = {name: self._number(name, header, path) for name in names}
        return {
            "time": to_datetime(mjd),
            "mjd": mjd,
            "filter": self._filter(header),
            "exptime": exptime,
            **{k: v for k, v in numbers.items() if k not in ("seeing", "magzp") or getattr(self, k) is not None},
        }

    def _filter(self, header: fits.Header) -> str:
        if self.filter is None:
            return ""
        return self.filter[1:] if self.filter.startswith("=") else str(header.get(self.filter, "")).strip()

    def _number(self, name: str, header: fits.Header, path: str) -> float:
        """The value of a coordinate: as given, or from its card, which must be there if the caller named it."""
        source = getattr(self, name)
        if source is None:
            return np.nan
        if not isinstance(source, str):
            return float(source)
        value = header.get(source)
        named = source != getattr(Cards, name)
        if value is None and (named or name in _ESSENTIAL):
            raise HeaderError(f"{path}: the header has no {source}; give {name}= the name of another card, or a value")
        if value is None or isinstance(value, fits.card.Undefined):
            return np.nan
        if isinstance(value, bool | str):
            raise HeaderError(f"{path}: {source} = {value!r} is not a number; give {name}= another card, or a value")
        return float(value)

    def _mjd(self, header: fits.Header, path: str) -> float:
        value = header.get(self.time) if isinstance(self.time, str) else self.time
        if value is None:
            raise HeaderError(f"{path}: the header has no {self.time}; give time= the name of another card, or a value")
        try:
            if isinstance(value, str | np.datetime64):
                return float(Time(str(value).strip().removesuffix("Z"), format="isot", scale="utc").mjd)
            number = float(value)
        except (TypeError, ValueError) as error:
            raise HeaderError(f"{path}: {self.time} = {value!r} is not an MJD, a JD or an ISO 8601 date") from error
        return number - JD_OF_MJD if number > 1e6 else number


class FrameBackend(BackendEntrypoint):
    """The image of any FITS file as a Dataset, its pixels unread; the engine of `open_frame`."""

    description = "FITS frames of any telescope"
    open_dataset_parameters = ("filename_or_obj", "drop_variables")

    def open_dataset(  # type: ignore[override]
        self, filename_or_obj: Path_, *, drop_variables: str | Iterable[str] | None = None
    ) -> xr.Dataset:
        """`sci` on `y`, `x`, and the header as text."""
        image = inspect(filename_or_obj)
        # A gzipped file can only be read from its start, so several chunks would decompress it several times.
        whole = {"preferred_chunks": dict(zip(("y", "x"), image.shape, strict=True))}
        sci = xr.Variable(("y", "x"), indexing.LazilyIndexedArray(FITSArray(image, "float32")), encoding=whole)
        grid = {d: np.arange(n) for d, n in zip(("y", "x"), image.shape, strict=True)}
        out = xr.Dataset({"sci": sci}, coords=grid)
        out.attrs = {
            "header": image.header.tostring(sep="\n", endcard=False, padding=False),
            "source": file_name(filename_or_obj),
        }
        dropped = [drop_variables] if isinstance(drop_variables, str) else list(drop_variables or ())
        return out.drop_vars(dropped)


def open_frame(
    path: Path_,
    *,
    time: str | float | np.datetime64 = "MJD-OBS",
    exptime: Number = "EXPTIME",
    gain: Number = "GAIN",
    readnoise: Number = "RDNOISE",
    saturate: Number = "SATURATE",
    seeing: Number = None,
    magzp: Number = None,
    filter: str | None = "FILTER",  # noqa: A002
    time_is: Literal["start", "middle", "end"] = "start",
    chunks: Mapping[str, int] | Literal["auto"] | None = None,
) -> xr.Dataset:
    """Open the first image of a FITS file of any telescope, lazily; only headers are read.

    Parameters
    ----------
    path
        A plain, gzipped or tile-compressed FITS file; or its URL, as of `ztfxr.open_quadrant`.
    time, exptime, gain, readnoise, saturate, seeing, magzp, filter, time_is
        The header card that says it (a string), or its value; see `Cards`. A card that is named here must be in the
        header; of the default ones only those of the time must be.
    chunks
        Dask chunks, by default one chunk for the frame.

    Returns
    -------
    xarray.Dataset
        Laid out as by `ztfxr.open_quadrant`: `sci` (y, x) float32 in DN, `flags` (y, x) uint16 with the planes
        `saturated` (at or above `saturate`) and `nan`; coordinates `x`, `y` (absolute 0-based pixels), `time` and `mjd`
        (middle of the exposure, UTC), `exptime`, `gain`, `readnoise`, `saturate`, `filter`, and lazy `ra`, `dec` where
        the header has a celestial WCS. ``attrs["header"]`` is the full FITS header as text.

    Raises
    ------
    FileNotFoundError, NotFITSError, TruncatedFileError, ShapeError, RemoteFileError
    HeaderError
        A card that is needed is absent or no number.

    Examples
    --------
    >>> open_frame("AKB13475I0001.fits.gz", saturate=65000.0, seeing="PFWHM", filter="=I")  # doctest: +SKIP
    """
    cards = Cards(time, exptime, gain, readnoise, saturate, seeing, magzp, filter, time_is)
    return _open(path, cards, chunks)


def _open(path: Path_, cards: Cards, chunks: Any) -> xr.Dataset:
    out = xr.open_dataset(location(path), engine=FrameBackend, chunks={} if chunks is None else chunks)
    header = fits.Header.fromstring(out.attrs["header"], sep="\n")
    coords = cards.coords(header, shown(path))
    out = annotate_all(out.assign_coords(coords).assign(flags=_flags(out["sci"], coords["saturate"])))
    wcs = wcs_cards(header)
    return out if wcs is None else assign_wcs(out, wcs)


def _flags(sci: xr.DataArray, saturate: float) -> xr.DataArray:
    """The planes `saturated` and `nan`, from the pixels themselves; lazy."""
    saturated, nan = (np.uint16(planes_to_bits([name])) for name in ("saturated", "nan"))
    flags = (sci >= saturate) * saturated | sci.isnull() * nan
    return annotate(flags.astype(np.uint16), "flags")


def open_frames(
    paths: Iterable[Path_],
    *,
    chunks: Mapping[str, int] | Literal["auto"] | None = None,
    errors: Literal["status", "raise"] = "status",
    **cards: Any,
) -> xr.DataTree:
    """Open many frames of any telescope as siblings of a DataTree in the order of `paths`; only headers are read.

    Parameters
    ----------
    paths
        FITS files; the nodes are named by them.
    chunks
        As of `open_frame`.
    errors
        ``"status"`` keeps a frame that cannot be used as a node without pixels whose attributes `status` (a plane of
        the schema's `STATUS_PLANES`) and `message` say why; ``"raise"`` raises.
    **cards
        `time`, `exptime`, `gain`, `saturate`, ... as of `open_frame`, for all frames.

    Raises
    ------
    InputError
        No paths, or two frames with one file name.
    """
    nodes: dict[str, xr.Dataset] = {}
    for path in paths:
        name = file_name(path).split(".fits")[0].split(".fit")[0]
        if name in nodes:
            raise InputError(f"two frames are named {name}; open them apart or rename one")
        nodes[name] = _node(path, errors, partial(open_frame, path, chunks=chunks, **cards))
    if not nodes:
        raise InputError("no frames to open: the list of paths is empty")
    return xr.DataTree.from_dict(nodes)


def _node(path: Path_, errors: str, opened: Callable[[], xr.Dataset]) -> xr.Dataset:
    try:
        return opened()
    except (FrameError, FileNotFoundError) as error:
        if errors == "raise":
            raise
        bits = planes_to_bits([getattr(error, "status", "unreadable")], STATUS_PLANES)
        return xr.Dataset(attrs={"status": bits, "message": str(error), "source": file_name(path)})
