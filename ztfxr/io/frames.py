"""Opening frames of every camera: one, or many as a tree; and files of named images, as ztfxr writes them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import xarray as xr
from astropy.utils.exceptions import AstropyUserWarning

from ztfxr._quiet import quiet
from ztfxr.errors import NOT_THE_FRAME, InputError, ShapeError
from ztfxr.io.backend import LayerChoice, Recipe, Unread, grid_of, lazy_image, open_frame_unread, open_layers, with_sky
from ztfxr.io.cameras import CameraLike, Layer, Source, get_camera, header_errors, unit_of
from ztfxr.io.cards import EXTENSIONS, TYPE_CARD, exposure_coords, plane_attrs
from ztfxr.io.fits import ImageFile, header_text, inspect, open_hdus
from ztfxr.io.names import AnyPath, frame_name, frame_paths
from ztfxr.io.remote import file_name, location, shown
from ztfxr.io.times import Reference
from ztfxr.schema import annotate_all, status_of

__all__ = ["open_epochs", "open_fits", "open_frame", "open_frames", "open_lco", "open_quadrant"]

Chunks: TypeAlias = Mapping[str, int] | Literal["auto", False] | None
Errors: TypeAlias = Literal["status", "raise"]

_VARIABLES = {**{extension: name for name, extension in EXTENSIONS.items()}, "PRIMARY": "sci", "": "sci"}


def open_frame(
    path: AnyPath,
    *,
    camera: CameraLike = "fits",
    mask: LayerChoice = None,
    weight: LayerChoice = None,
    chunks: Chunks = None,
    time_is: Reference | None = None,
    **cards: Source,
) -> xr.Dataset:
    """Open one frame of any camera, lazily; only headers are read.

    Parameters
    ----------
    path
        A FITS file: plain, gzipped or tile-compressed; on this machine, or at a URL of fsspec's (``https://``,
        ``s3://``), of which only the bytes that are needed are fetched. Credentials in a URL are in no attribute.
    camera
        What the headers mean: the name of a camera in `ztfxr.CAMERAS`, or a `ztfxr.Camera`. By default any FITS file,
        by the cards that most cameras write.
    mask, weight
        The image of the mask and of the noise: a file, a `ztfxr.Layer`, or False for none; by default those that the
        camera has. A file has what the camera's own mask has, else every number but 0 marks a bad pixel; a file of the
        noise has inverse variances.
    chunks
        Dask chunks, by default one chunk for the frame. False for no dask: pixels are read when they are first used,
        and what is made of them is computed at once.
    time_is
        What the card of the time marks: the start, the middle or the end of the exposure; by default what the camera
        says.
    **cards
        Where a coordinate comes from, if not from where the camera has it: ``gain="EGAIN"`` is a header card, which
        must be there, ``saturate=65000.0`` and ``filter="=r"`` are values. The names are those of `ztfxr.Camera`.

    Returns
    -------
    xarray.Dataset
        `sci` (y, x) float32 in the unit of BUNIT, or DN; `flags` (y, x), bit planes with the attributes `flag_masks`
        and `flag_meanings`; `variance` where the camera has the noise. All are in native byte order and FITS pixel
        order. The coordinates are `x`, `y` (absolute 0-based pixels: a cut-out keeps those of the full frame), lazy
        `ra`, `dec` (deg, ICRS) where the header has a celestial WCS, and the scalars of the exposure: `time` and `mjd`
        (its middle, UTC), `exptime`, `filter`, `gain` (electrons per pixel value, NaN where unknown), `readnoise`,
        `saturate`, and those that the camera adds. ``attrs["header"]`` is the full FITS header as text;
        ``attrs["time_note"]`` tells where two cards of the time disagree.

    Raises
    ------
    FileNotFoundError, NotFITSError, TruncatedFileError, MissingMaskError, ShapeError
    HeaderError
        A card that is needed is absent or cannot be understood.
    InputError
        A camera or coordinate that does not exist.
    RemoteFileError, MissingDependencyError
        A server does not answer or refuses; the package for this kind of URL is not installed.

    Examples
    --------
    >>> open_frame("AKB13475I0001.fits.gz", camera="saao")  # doctest: +SKIP
    >>> open_frame("image.fits", gain=2.1, seeing="FWHM", filter="=R", time_is="middle")  # doctest: +SKIP
    """
    known = get_camera(camera)
    known = known.with_cards(time_is, **cards) if cards or time_is else known
    if chunks is False:
        whole = partial(open_frame_unread, camera=known, mask=mask, weight=weight)
        return with_sky(_in_chunks(path, whole, chunks))
    layers = _in_chunks(path, partial(open_layers, camera=known, mask=mask, weight=weight), chunks)
    return with_sky(Recipe.of(layers, known, mask, weight).finished(layers, partial(_on_chunks, layers)))


def _in_chunks(path: AnyPath, opener: Callable[[AnyPath], xr.Dataset], chunks: Chunks) -> xr.Dataset:
    """What `opener` opens, in dask arrays; the scalars in memory."""
    wanted: Any = {} if chunks is None else None if chunks is False else chunks
    out = xr.open_dataset(location(path), engine=Unread, opener=opener, chunks=wanted)
    for name in out.coords:
        if out.variables[name].ndim == 0:
            out.variables[name].load()
    return out


def _on_chunks(layers: xr.Dataset, names: list[str], function: Callable[..., Any], dtype: str) -> xr.Variable:
    arrays = [layers[name].variable for name in names]
    found: xr.Variable = xr.apply_ufunc(function, *arrays, dask="parallelized", output_dtypes=[np.dtype(dtype)])
    return found


def open_quadrant(path: AnyPath, *, mask: AnyPath | Literal[False] | None = None, chunks: Chunks = None) -> xr.Dataset:
    """Open one ZTF science quadrant with its mask, lazily; only headers are read.

    This is `ztfxr.open_frame` for ``camera="ztf"``.

    Parameters
    ----------
    path
        A ``sciimg`` file or its URL.
    mask
        The mask image. By default the ``mskimg`` beside the science image, compressed or not; False opens none.
    chunks
        Dask chunks, by default one chunk for the frame; False for no dask.

    Returns
    -------
    xarray.Dataset
        As `ztfxr.open_frame` lays it out: `sci` in DN and `flags` with IPAC's planes, uint16; among the coordinates
        `magzp`, `magzprms`, `seeing`, `field`, `ccdid`, `qid`, `rcid` and `filefracday`.

    Raises
    ------
    FileNotFoundError, NotFITSError, TruncatedFileError, MissingMaskError, ShapeError, HeaderError, RemoteFileError

    Examples
    --------
    >>> ds = ztfxr.open_quadrant(ztfxr.samples.sample_path())
    >>> ds.sci.dims, str(ds["filter"].values)
    (('y', 'x'), 'ztfr')
    """
    return open_frame(path, camera="ztf", mask=mask, chunks=chunks)


def open_lco(path: AnyPath, *, mask: Literal[False] | None = None) -> xr.Dataset:
    """Open a frame of the Las Cumbres Observatory (BANZAI), lazily; only headers are read.

    This is `ztfxr.open_frame` for ``camera="lco"``.

    Parameters
    ----------
    path
        A file with the extensions ``SCI`` and ``BPM``, or its URL.
    mask
        False leaves the bad-pixel mask out (cropped frames may carry that of the full frame).

    Returns
    -------
    xarray.Dataset
        As `ztfxr.open_frame` lays it out; the planes are `dead` (from the BPM), `saturated` and `nan`.

    Raises
    ------
    FileNotFoundError, NotFITSError, TruncatedFileError, HeaderError, RemoteFileError
    ShapeError
        No image named SCI, or a BPM of another shape.
    """
    return open_frame(path, camera="lco", mask=mask)


def open_frames(
    paths: AnyPath | Iterable[AnyPath],
    *,
    camera: CameraLike = "fits",
    mask: Layer | Literal[False] | None = None,
    weight: Layer | Literal[False] | None = None,
    chunks: Chunks = None,
    errors: Errors = "status",
    time_is: Reference | None = None,
    **cards: Source,
) -> xr.DataTree:
    """Open many frames of a camera, aligned or not, as siblings of a DataTree; only headers are read.

    Parameters
    ----------
    paths
        FITS files in the order of the tree, whose nodes are named by them; or one file, a pattern (``"night/*.fits"``),
        or a folder, whose frames are taken in the order of their names.
    errors
        ``"status"`` keeps a frame that cannot be used as a node without pixels whose attributes `status` (a plane of
        the schema's `STATUS_PLANES`) and `message` say why; ``"raise"`` raises.
    camera, mask, weight, chunks, time_is, **cards
        The options of `ztfxr.open_frame`, for all frames.

    Returns
    -------
    xarray.DataTree
        One node per frame, each a Dataset of `ztfxr.open_frame`.

    Raises
    ------
    InputError
        No frames, or two with one name.
    """
    if errors not in get_args(Errors):
        raise InputError(f"errors is 'status' or 'raise'; got {errors!r}")
    known = get_camera(camera)
    known = known.with_cards(time_is, **cards) if cards or time_is else known
    nodes: dict[str, xr.Dataset] = {}
    for path in frame_paths(paths, known.science):
        name = frame_name(path)
        if name in nodes:
            raise InputError(f"two frames are named {name}; open them apart or rename one")
        try:
            nodes[name] = open_frame(path, camera=known, mask=mask, weight=weight, chunks=chunks)
        except NOT_THE_FRAME:
            raise
        except Exception as error:
            if errors == "raise":
                raise
            status, message = status_of(error)
            nodes[name] = xr.Dataset(attrs={"status": status, "message": message, "source": file_name(path)})
    return xr.DataTree.from_dict(nodes)


def open_epochs(
    paths: AnyPath | Iterable[AnyPath],
    *,
    mask: Literal[False] | None = None,
    chunks: Chunks = None,
    errors: Errors = "status",
) -> xr.DataTree:
    """Open many ZTF science quadrants as siblings of a DataTree; only headers are read.

    This is `ztfxr.open_frames` for ``camera="ztf"``, which says what the arguments and the result are.

    Parameters
    ----------
    paths
        Science images, one of them, a pattern, or a folder.
    mask
        False opens no masks.
    chunks, errors
        The options of `ztfxr.open_frames`.

    Returns
    -------
    xarray.DataTree

    Raises
    ------
    InputError
        No frames, or two with one name.

    Examples
    --------
    >>> import tempfile
    >>> paths = ztfxr.samples.make_epochs(tempfile.mkdtemp(), n_epochs=2).paths
    >>> sorted(ztfxr.open_epochs(paths).children)[0][:4]
    'ztf_'
    """
    return open_frames(paths, camera="ztf", mask=mask, chunks=chunks, errors=errors)


# ---- files of named images ------------------------------------------------------------------------------------------


def open_fits(path: AnyPath, *, chunks: Chunks = None) -> xr.Dataset:
    """Open a FITS file that `ztfxr.to_fits` wrote, lazily; only headers are read.

    Parameters
    ----------
    path
        A plain, gzipped or tile-compressed FITS file, or its URL, as `ztfxr.open_frame` takes it. Others than ztfxr's
        open too: the first image is `sci`, named extensions (``ERR``, ``BPM``) become variables by their name in lower
        case.
    chunks
        Dask chunks, by default one chunk for the frame; False for no dask.

    Returns
    -------
    xarray.Dataset
        Every image on (y, x) with its dtype and unit: `sci`, `flags` (from ``MSK``, with the planes that its header
        names, else `bit0`, `bit1`, ...), `variance` (from ``VAR``), ...; `x`, `y` in absolute 0-based pixels of the
        full frame, lazy `ra`, `dec` where the header has a celestial WCS, and the scalars of the exposure that the
        header knows. ``attrs["header"]`` is the first image's header as text.

    Raises
    ------
    FileNotFoundError, NotFITSError, TruncatedFileError, RemoteFileError, HeaderError
    ShapeError
        No image, or images of different shape.
    InputError
        Two images have one name.
    """
    return with_sky(_in_chunks(path, _open_images, chunks))


def _open_images(path: AnyPath) -> xr.Dataset:
    """Every image on `y`, `x`, the exposure, and the first one's header as text."""
    images = _images(path)
    first = next(iter(images.values()))
    with header_errors(str(path)):
        labels, cards = grid_of(first.header, first.shape)
        coords = exposure_coords(first.header)
        variables = {name: lazy_image(image, _dtype(image)) for name, image in images.items()}
        units = {name: unit_of(str(i.header["BUNIT"])) for name, i in images.items() if "BUNIT" in i.header}
        out = annotate_all(xr.Dataset(variables, {**{d: (d, v) for d, v in labels.items()}, **coords}))
        for name, unit in units.items():
            out[name].attrs["units"] = unit
        if "flags" in images:
            out["flags"].attrs |= plane_attrs(images["flags"].header)
    out.attrs = {"header": header_text(first), "source": file_name(path)}
    out.attrs |= {} if cards is None else {"wcs_header": cards}
    return out


def _images(path: AnyPath) -> dict[str, ImageFile]:
    """The 2-D images of a file by variable name; `ShapeError` where they do not belong together."""
    first = inspect(path)
    with quiet(AstropyUserWarning), open_hdus(path) as hdus:
        names = [hdu.name for hdu in hdus if getattr(hdu, "is_image", False) and len(hdu.shape) == 2 and all(hdu.shape)]
    if len(set(names)) < len(names):
        raise InputError(
            f"{shown(path)}: several images have one name ({', '.join(names)}); open one with ztfxr.open_frame"
        )
    found: dict[str, ImageFile] = {}
    for name in names:
        image = inspect(path, name)
        if image.shape != first.shape:
            raise ShapeError(f"{shown(path)}: the image {name} is {image.shape} (y, x), the first one {first.shape}")
        found[_VARIABLES.get(name, name.lower())] = image
    return found


def _dtype(image: ImageFile) -> np.dtype[Any]:
    """The dtype that the variable had, where the file tells one that pixels can have."""
    try:
        stated = np.dtype(str(image.header.get(TYPE_CARD, "")) or image.dtype)
    except TypeError:
        return image.dtype
    return stated if stated.kind in "biuf" else image.dtype
