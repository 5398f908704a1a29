"""Sources of an image, or of every image of a stack, as a catalog."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import xarray as xr
from dask.base import compute
from numpy.typing import NDArray

from ztfxr.arrays.images.bits import any_bit
from ztfxr.arrays.options import require_number
from ztfxr.arrays.photometry.extraction import COLUMNS, EMPTY, Detection, Extraction, Threshold, extract_sources
from ztfxr.arrays.types import Floats
from ztfxr.errors import InputError
from ztfxr.ops.background import Level, SkyOptions, sky_of
from ztfxr.ops.exposure import Exposure, Labeled, MaskChoice, gather
from ztfxr.ops.mapping import IMAGE, core_dims, map_images, require_whole
from ztfxr.ops.photcal import counts_to_mag
from ztfxr.ops.positions import pixel_origin
from ztfxr.schema import SOURCE_PLANES, SPECS, annotate_all
from ztfxr.wcs import WCSIndex, WCSTransform, same_grid

__all__ = ["Detection", "source_flags", "sources"]

_POSITIONS = ("x_centroid", "y_centroid", "x_centroid_win", "y_centroid_win")
_PER_IMAGE = ("n_sources", "extraction_status", "threshold_factor")


@dataclass(frozen=True)
class _Input:
    """An image without its sky, with all that `extract_sources` needs."""

    exposure: Exposure
    arrays: Mapping[str, xr.DataArray | None]
    threshold: Threshold
    detection: Detection

    @property
    def options(self) -> dict[str, Any]:
        """How sources are detected and measured."""
        return {"threshold": self.threshold, "detection": self.detection}


def sources(
    obj: Labeled,
    *,
    n_sigma: float = 5.0,
    threshold: float | None = None,
    mask: MaskChoice = None,
    background: Level = None,
    variance: xr.DataArray | None = None,
    detection: Detection | None = None,
    max_sources: int | None = None,
    segmentation: bool = False,
) -> xr.Dataset:
    """Detect and measure sources with sep. Computes, because their number is not known; lazy with `max_sources`.

    Parameters
    ----------
    obj
        An image (y, x), or a Dataset with `sci` and `flags`, or with `difference`; with `max_sources` a stack too.
    n_sigma
        Detection threshold in units of the noise of each pixel.
    threshold
        Detection threshold in the unit of the image, the same over the frame; it is used in place of `n_sigma`.
    mask
        Boolean, True where bad: as in `ztfxr.background`. Pixels that are not finite are bad in any case.
    background
        The sky to subtract, as in `ztfxr.clean`: a map, a number, the Dataset of `ztfxr.background`, or False for an
        image that has no sky left. By default it is measured, but not for a difference image;
        ``ztfxr.SkyOptions(box_size=32)`` says how.
    variance
        Variance of the noise per pixel, that of the sources included. By default `variance` or `difference_variance` of
        the Dataset; without it the noise that sources are detected against is the measured rms of the sky, and that of
        the fluxes has the photons of the source too, where the gain is known.
    detection
        How sources are told apart and measured: `ztfxr.Detection`, with the deblending, the detection kernel and the
        Kron aperture.
    max_sources
        Number of sources to keep, the brightest; rows are filled up with NaN where there are fewer, and the catalog is
        lazy.
    segmentation
        Add `segmentation`, (..., y, x): 1 + the row of the source that a pixel belongs to, 0 for none.

    Returns
    -------
    xarray.Dataset
        On (..., source), by falling `flux`:

        - `x_centroid`, `y_centroid`, and Gaussian-windowed `x_centroid_win`, `y_centroid_win`: absolute 0-based FITS
          pixels, on a stamp too; `ra`, `dec` (deg, ICRS; of `x_centroid`, `y_centroid`) as coordinates where there is
          a WCS;
        - `semimajor_axis`, `semiminor_axis` (1-sigma, pixels), `orientation` (degrees, from +x towards +y),
          `segment_area`, `half_light_radius`;
        - `peak`; `flux`, `flux_err` of the pixels above the threshold; `kron_flux`, `kron_flux_err`, `kron_radius`,
          `snr`; `mag`, `mag_err` (AB, of the Kron flux) where there is a coordinate `magzp`, NaN where it is negative;
        - `sep_flags`, bit planes: see `ztfxr.source_flags`.

        Per image: `n_sources` that were detected, `extraction_status`, and the `threshold_factor` by which the
        threshold had to be raised in a frame too crowded for sep. An image without a good pixel or without sources
        gives an empty catalog.

    Raises
    ------
    InputError
        A stack without `max_sources`, or an argument that has no meaning.
    AlignmentError
        The mask, background or variance that was given covers other pixels.
    ChunkError
        An image is chunked along y or x.

    Notes
    -----
    `sep` (Barbary 2016, JOSS 1, 58), which is SExtractor (Bertin & Arnouts 1996, A&AS 117, 393) as a library. Apertures
    make up for bad pixels with the mean of the good ones (`sep_flags` says so), and hold what neighbors add. sep keeps
    the GIL: parallelism is by processes. Columns are named as in photutils where it has them.

    Examples
    --------
    >>> ds = ztfxr.open_quadrant(ztfxr.samples.sample_path())
    >>> src = ztfxr.sources(ds, n_sigma=5)
    >>> src.kron_flux.dims, src.kron_flux.attrs["units"]
    (('source',), 'DN')
    """
    require_number("n_sigma" if threshold is None else "threshold", n_sigma if threshold is None else threshold)
    level = Threshold(float(n_sigma if threshold is None else threshold), threshold is not None)
    exposure = gather(obj, variance=variance, mask=mask)
    target = _Input(exposure, _inputs(exposure, background), level, detection or Detection())
    if max_sources is None:
        found = _all_sources(target)
    elif max_sources >= 1:
        found = _brightest(target, int(max_sources), segmentation)
    else:
        raise InputError(f"max_sources is at least 1; got {max_sources}")
    if not segmentation:
        found.pop("segmentation", None)
    out = _catalog(found, exposure.image)
    unit = "the image" if level.absolute else "sigma"
    return annotate_all(out.assign_attrs(threshold=level.level, threshold_unit=unit), unit=exposure.unit)


def source_flags(catalog: xr.Dataset | xr.DataArray) -> xr.Dataset:
    """The bit planes of `sep_flags`, one boolean variable each; lazy.

    Parameters
    ----------
    catalog
        A catalog of `ztfxr.sources`, or its `sep_flags`.

    Returns
    -------
    xarray.Dataset
        On (..., source), True where the plane is set; the attribute ``long_name`` says what it means.

    Raises
    ------
    InputError
        There is no `sep_flags`, or it is not an integer.
    """
    flags = catalog.get("sep_flags") if isinstance(catalog, xr.Dataset) else catalog
    if flags is None or flags.dtype.kind not in "iu":
        raise InputError("the planes are those of the integers 'sep_flags' of a catalog of ztfxr.sources")
    out = {}
    for plane in SOURCE_PLANES:
        found = xr.apply_ufunc(partial(any_bit, bits=plane.value), flags, dask="parallelized", output_dtypes=[bool])
        out[plane.name] = found.variable.copy(deep=False)
        out[plane.name].attrs = {"long_name": plane.meaning, "flag_mask": plane.value}
    return xr.Dataset(out, flags.coords)


# ---- input ----------------------------------------------------------------------------------------------------------


def _inputs(exposure: Exposure, background: Level) -> dict[str, xr.DataArray | None]:
    """The arrays of `extract_sources`; nothing is measured that was given."""
    image, bad, variance = exposure.image, exposure.bad, exposure.own_variance
    for given in (bad, variance, background):
        if isinstance(given, xr.DataArray):
            same_grid(image, given)
    if background is False or (background is None and exposure.name == "difference"):
        background = 0.0
    maps = dict(background) if isinstance(background, xr.Dataset) else {}
    measured = background is None or isinstance(background, SkyOptions)
    if measured or (variance is None and "background_rms" not in maps):
        sky = background if isinstance(background, SkyOptions) else SkyOptions()
        maps = dict(sky_of(exposure, sky)) | maps
    level: Any = maps["background"] if measured or isinstance(background, xr.Dataset) else background
    if isinstance(level, xr.DataArray):
        same_grid(image, level)
    gain = exposure.gain if variance is None else None
    noise = maps["background_rms"] ** 2 if variance is None else variance
    return {"image": image - level, "bad": bad, "variance": noise, "gain": gain}


# ---- extraction -----------------------------------------------------------------------------------------------------


def _all_sources(target: _Input) -> dict[str, xr.Variable]:
    """All sources of one image, by name."""
    image = target.exposure.image
    extra = [d for d in image.dims if d not in IMAGE]
    if extra:
        raise InputError(
            f"the images of a stack over {', '.join(map(str, extra))} have different numbers of sources: give "
            "max_sources=, or select one image"
        )
    arrays = {k: a for k, a in target.arrays.items() if a is not None}
    for array in arrays.values():
        require_whole(array, IMAGE)
    names, ordered = zip(*((k, a.transpose(*core_dims(a)).data) for k, a in arrays.items()), strict=True)
    arguments: dict[str, Any] = {"gain": None, **target.options}
    arguments |= zip(names, map(np.asarray, compute(*ordered)), strict=True)
    found = extract_sources(**arguments)
    columns = {name: xr.Variable("source", values) for name, values in found.columns.items()}
    single = {k: xr.Variable((), np.asarray(v, SPECS[k].dtype)) for k, v in _scalars(found).items()}
    return columns | single | {"segmentation": xr.Variable(IMAGE, found.segmentation)}


def _scalars(found: Extraction) -> dict[str, Any]:
    return {
        "n_sources": found.n_sources,
        "extraction_status": found.status,
        "threshold_factor": found.threshold_factor,
    }


def _brightest(target: _Input, number: int, segmentation: bool) -> dict[str, xr.Variable]:
    """The brightest sources of every image, filled up with NaN, by name."""
    outputs: dict[str, tuple[str, ...]] = dict.fromkeys((*COLUMNS, "sep_flags"), ("source",))
    outputs |= dict.fromkeys(_PER_IMAGE, ())
    if segmentation:
        outputs["segmentation"] = IMAGE
    options = {**target.options, "limit": number}
    found = map_images(_padded, target.arrays, outputs, sizes={"source": number}, options=options)
    return {name: array.variable for name, array in found.items()}


def _padded(*, limit: int, **arguments: Any) -> dict[str, Any]:
    found = extract_sources(**arguments, limit=limit)
    columns = {}
    for name in (*COLUMNS, "sep_flags"):
        values = found.columns[name]
        columns[name] = np.full(limit, EMPTY if name == "sep_flags" else np.nan, dtype=values.dtype)
        columns[name][: values.size] = values
    return {**columns, **_scalars(found), "segmentation": found.segmentation}


# ---- catalog ------------------------------------------------------------------------------------------------------


def _catalog(found: dict[str, xr.Variable], image: xr.DataArray) -> xr.Dataset:
    """The columns as a Dataset with the coordinates of the image, absolute positions, sky and magnitudes."""
    origin = pixel_origin(image)
    for name in _POSITIONS:
        found[name] = found[name] + float(origin[name[0]])
    coords = {k: v.variable for k, v in image.coords.items() if not set(IMAGE) & set(v.dims)}
    if "segmentation" in found:
        coords |= {d: image.coords[d].variable for d in IMAGE if d in image.coords}
    out = xr.Dataset(found, coords)
    index = image.xindexes.get("ra")
    if isinstance(index, WCSIndex):
        sky = xr.apply_ufunc(
            partial(_sky, transform=index.transform),
            out["x_centroid"],
            out["y_centroid"],
            output_core_dims=[(), ()],
            dask="parallelized",
            output_dtypes=[np.float64, np.float64],
        )
        out = out.assign_coords(dict(zip(("ra", "dec"), sky, strict=True)))
    if "magzp" in out.coords:
        mag, error = counts_to_mag(out["kron_flux"], out["kron_flux_err"])
        out = out.assign(mag=mag.variable, mag_err=error.variable)
    return out


def _sky(x: Floats, y: Floats, *, transform: WCSTransform) -> tuple[NDArray[Any], ...]:
    return tuple(np.asarray(v, dtype=np.float64) for v in transform.wcs.all_pix2world(x, y, 0))
