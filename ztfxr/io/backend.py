"""xarray's door to ZTF frames: ``xr.open_dataset(path, engine="ztf")`` and `open_quadrant`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from os import PathLike
from typing import Any, Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from xarray.backends import BackendArray, BackendEntrypoint
from xarray.core import indexing

from ztfxr.errors import FrameError, InputError, MissingMaskError, ShapeError
from ztfxr.io.fits import ImageFile, header_text, inspect, read_window
from ztfxr.io.frames import epoch_coords
from ztfxr.io.names import find_mask, parse_name
from ztfxr.io.remote import Location, file_name, location, shown
from ztfxr.schema import STATUS_PLANES, annotate_all, planes_to_bits
from ztfxr.wcs import assign_wcs, wcs_cards

__all__ = ["ZTFBackendEntrypoint", "open_epochs", "open_quadrant"]

Path_ = str | PathLike[str]
MaskChoice = Path_ | Literal[False] | None


class FITSArray(BackendArray):
    """Pixels of one image, read when indexed; every read opens and closes the file."""

    def __init__(self, image: ImageFile, dtype: str) -> None:
        # Without the header, which would travel with every task.
        self.image = replace(image, dtype=np.dtype(dtype), cards="")
        self.shape = image.shape
        self.dtype = np.dtype(dtype)

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        known = type(key)(tuple(_no_empty_reversal(k, n) for k, n in zip(key.tuple, self.shape, strict=True)))
        return indexing.explicit_indexing_adapter(known, self.shape, indexing.IndexingSupport.BASIC, self._read)

    def _read(self, key: tuple[int | slice, ...]) -> NDArray[Any]:
        """Read the rows and columns that enclose `key`, then apply it."""
        enclosing, inner = zip(*(_enclose(k, n) for k, n in zip(key, self.shape, strict=True)), strict=True)
        pixels = read_window(self.image, enclosing[0], enclosing[1])
        return np.asarray(pixels[inner])


def _no_empty_reversal(key: Any, size: int) -> Any:
    """`key`; an empty slice with a negative step, which xarray's adapter cannot take apart, becomes ``0:0``."""
    return slice(0, 0) if isinstance(key, slice) and len(range(*key.indices(size))) == 0 else key


def _enclose(key: int | slice, size: int) -> tuple[slice, int | slice]:
    """A unit-step slice that covers `key`, and `key` relative to it."""
    if isinstance(key, slice):
        positions = range(*key.indices(size))
        if len(positions) == 0:
            return slice(0, 0), slice(0, 0)
        low, high = min(positions[0], positions[-1]), max(positions[0], positions[-1])
        return slice(low, high + 1), slice(None, None, positions.step)
    position = int(key) % size
    return slice(position, position + 1), 0


class ZTFBackendEntrypoint(BackendEntrypoint):
    """Open a ZTF science image with its mask as a labeled Dataset."""

    description = "ZTF science images with their masks"
    url = "https://ztfxr.readthedocs.io"
    open_dataset_parameters = ("filename_or_obj", "drop_variables", "mask")

    def guess_can_open(self, filename_or_obj: Any) -> bool:
        """Whether the name is that of a ZTF science image."""
        name = file_name(str(filename_or_obj)) if isinstance(filename_or_obj, str | PathLike) else ""
        return parse_name(name) is not None and "sciimg.fits" in name

    def open_dataset(  # type: ignore[override]
        self,
        filename_or_obj: Path_,
        *,
        drop_variables: str | Iterable[str] | None = None,
        mask: MaskChoice = None,
    ) -> xr.Dataset:
        """The Dataset of one frame, its pixels unread; see `open_quadrant`."""
        dataset = _with_sky(_frame(location(filename_or_obj), mask))
        dropped = [drop_variables] if isinstance(drop_variables, str) else list(drop_variables or ())
        return dataset.drop_vars(dropped)


class _PixelsEntrypoint(ZTFBackendEntrypoint):
    """The same without sky labels, which xarray would put into dask arrays."""

    def open_dataset(  # type: ignore[override]
        self,
        filename_or_obj: Path_,
        *,
        drop_variables: str | Iterable[str] | None = None,  # noqa: ARG002
        mask: MaskChoice = None,
    ) -> xr.Dataset:
        return _frame(location(filename_or_obj), mask)


def _with_sky(dataset: xr.Dataset) -> xr.Dataset:
    """`dataset` with `ra` and `dec`, where its header has a celestial WCS."""
    cards = dataset.attrs.get("wcs_header")
    return dataset if cards is None else assign_wcs(dataset, cards)


def _frame(path: Location, mask: MaskChoice) -> xr.Dataset:
    """Pixels, flags and the coordinates of the exposure; the WCS as text in the attributes."""
    image = inspect(path)
    variables = {"sci": _lazy(image, "float32")}
    mask_path = _mask_path(path, mask)
    if mask_path is not None:
        mask_image = inspect(mask_path)
        if mask_image.shape != image.shape:
            raise ShapeError(
                f"{shown(mask_path)}: the mask is {mask_image.shape} (y, x), the science image {image.shape}"
            )
        variables["flags"] = _lazy(mask_image, "uint16")
    coords: dict[str, xr.Variable] = {
        **{d: xr.Variable(d, np.arange(n)) for d, n in zip(("y", "x"), image.shape, strict=True)},
        **epoch_coords(image.header, shown(path)),
    }
    dataset = annotate_all(xr.Dataset(variables, coords))
    dataset.attrs = {"header": header_text(image), "source": file_name(path)}
    dataset.encoding["source"] = shown(path)
    cards = wcs_cards(image.header)
    return dataset if cards is None else dataset.assign_attrs(wcs_header=cards)


def _lazy(image: ImageFile, dtype: str) -> xr.Variable:
    data = indexing.LazilyIndexedArray(FITSArray(image, dtype))
    whole = {"preferred_chunks": dict(zip(("y", "x"), image.shape, strict=True))}
    return xr.Variable(("y", "x"), data, encoding=whole if image.gzipped else {})


def _mask_path(path: Location, mask: MaskChoice) -> Location | None:
    if mask is False:
        return None
    if mask is not None:
        return location(mask)
    found = find_mask(path)
    if found is None:
        raise MissingMaskError(
            f"{shown(path)}: no mask image (…mskimg.fits, .gz or .fz) beside it; name it with mask=PATH, "
            "or open without one by mask=False"
        )
    return found


def open_quadrant(
    path: Path_,
    *,
    mask: MaskChoice = None,
    chunks: Mapping[str, int] | Literal["auto", False] | None = None,
) -> xr.Dataset:
    """Open one ZTF science quadrant with its mask, lazily; only headers are read.

    Parameters
    ----------
    path
        A ``sciimg`` file: ``.fits``, ``.fits.gz`` or ``.fits.fz``; on this machine, or at a URL of fsspec's (``https://``,
        ``s3://``), of which only the bytes that are needed are fetched. Credentials in a URL are in no attribute.
    mask
        The mask image. By default the ``mskimg`` beside the science image, compressed or not; False opens none.
    chunks
        Dask chunks, by default one chunk for the frame. False for no dask: pixels are read when they are first used,
        and what is made of them is computed at once.

    Returns
    -------
    xarray.Dataset
        `sci` (y, x) float32 in DN and `flags` (y, x) uint16 bit planes, in native byte order and FITS pixel order;
        coordinates `x`, `y` (absolute 0-based pixels), lazy `ra`, `dec` (deg, ICRS) where the header has a celestial
        WCS, and the scalars of the exposure, `time` being its middle (UTC). ``attrs["header"]`` is the full FITS header
        as text.

    Raises
    ------
    FileNotFoundError, NotFITSError, TruncatedFileError, MissingMaskError, ShapeError, HeaderError
    RemoteFileError, MissingDependencyError
        A server does not answer or refuses; the package for this kind of URL is not installed.
    """
    whole: Any = {} if chunks is None else chunks
    dataset = xr.open_dataset(
        location(path), engine=_PixelsEntrypoint, mask=mask, chunks=None if chunks is False else whole
    )
    for name in dataset.coords:
        if dataset.variables[name].ndim == 0:
            dataset.variables[name].load()
    return _with_sky(dataset)


def open_epochs(
    paths: Iterable[Path_],
    *,
    mask: Literal[False] | None = None,
    chunks: Mapping[str, int] | Literal["auto"] | None = None,
    errors: Literal["status", "raise"] = "status",
) -> xr.DataTree:
    """Open many frames, aligned or not, as siblings of a DataTree in the order of `paths`; only headers are read.

    A frame that cannot be used is a node without pixels whose attributes `status` (a plane of the schema's
    `STATUS_PLANES`) and `message` say why; ``errors="raise"`` raises instead. The nodes are named by the files.

    Raises
    ------
    InputError
        No paths, or two frames with one file name.
    """
    nodes: dict[str, xr.Dataset] = {}
    for path in paths:
        name = file_name(path).split(".fits")[0]
        if name in nodes:
            raise InputError(f"two frames are named {name}; open them apart or rename one")
        nodes[name] = _node(path, mask, chunks, errors)
    if not nodes:
        raise InputError("no frames to open: the list of paths is empty")
    return xr.DataTree.from_dict(nodes)


def _node(path: Path_, mask: Literal[False] | None, chunks: Any, errors: str) -> xr.Dataset:
    try:
        return open_quadrant(path, mask=mask, chunks=chunks)
    except (FrameError, FileNotFoundError) as error:
        if errors == "raise":
            raise
        status = getattr(error, "status", "unreadable")
        bits = planes_to_bits([status], STATUS_PLANES)
        return xr.Dataset(attrs={"status": bits, "message": str(error), "source": file_name(path)})
