"""Sources of an image, or of every image of a stack, as a catalog."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, TypeAlias

import numpy as np
import xarray as xr
from dask.base import compute
from numpy.typing import ArrayLike, NDArray

from ztfxr.arrays.images.bits import any_bit
from ztfxr.arrays.photometry.extraction import COLUMNS, DEFAULT_KERNEL, EMPTY, Detection, Extraction, extract_sources
from ztfxr.arrays.types import Bools, Floats
from ztfxr.errors import InputError
from ztfxr.ops._apply import IMAGE, apply_images, require_whole
from ztfxr.ops.background import Level, MaskChoice, Method, get_image, get_mask
from ztfxr.ops.background import background as measure_background
from ztfxr.ops.photcal import counts_to_mag
from ztfxr.ops.positions import pixel_origin
from ztfxr.schema import SOURCE_PLANES, SPECS, annotate_all
from ztfxr.wcs import WCSIndex, WCSTransform, same_grid

__all__ = ["source_flags", "sources"]

Kernel: TypeAlias = ArrayLike | Literal["default"] | None

_POSITIONS = ("x_centroid", "y_centroid", "x_centroid_win", "y_centroid_win")
_PER_IMAGE = ("n_sources", "extraction_status", "threshold_factor")


@dataclass(frozen=True)
class _Input:
    """An image without its sky, what is bad in it, and its noise."""

    image: xr.DataArray
    bad: xr.DataArray
    variance: xr.DataArray
    gain: xr.DataArray

    core = (IMAGE, IMAGE, IMAGE, ())

    @property
    def arrays(self) -> tuple[xr.DataArray, ...]:
        """The inputs of `extract_sources`."""
        return (self.image, self.bad, self.variance, self.gain)


def sources(
    obj: xr.Dataset | xr.DataArray,
    *,
    n_sigma: float = 5.0,
    threshold: float | None = None,
    mask: MaskChoice = None,
    background: Level = None,
    variance: xr.DataArray | None = None,
    method: Method = "sep",
    box_size: int | tuple[int, int] = 64,
    filter_size: int | tuple[int, int] = 3,
    n_pixels: int = 5,
    n_levels: int = 32,
    contrast: float = 0.005,
    filter_kernel: Kernel = "default",
    clean: float | None = None,
    kron_params: tuple[float, float, float] = (2.5, 1.4, 1.75),
    max_sources: int | None = None,
    segmentation: bool = False,
) -> xr.Dataset:
    """Detect and measure sources with sep. Computes, because their number is not known; lazy with `max_sources`.

    Parameters
    ----------
    obj
        An image (y, x), or a Dataset with `sci` and `flags`, or with `difference`; with `max_sources` a stack too.
    n_sigma
        Detection threshold in units of the noise of each pixel; or
    threshold
        the same over the frame, in the unit of the image.
    mask
        Boolean, True where bad: as in `ztfxr.background`. Pixels that are not finite are bad in any case.
    background
        As in `ztfxr.clean`: a map, a number, the Dataset of `ztfxr.background`, or False for an image that has no sky
        left, as `ztfxr.clean` gives it. By default it is measured, but not for a difference image.
    variance
        Of the noise per pixel, that of the sources included. By default `variance` or `difference_variance` of the
        Dataset; without it the noise that sources are detected against is the measured rms of the sky, and that of the
        fluxes has the photons of the source too, by the coordinate `gain`.
    method, box_size, filter_size
        How the sky is measured, as in `ztfxr.background`.
    n_pixels
        Connected pixels above the threshold that make a source.
    n_levels, contrast
        Of the deblending: thresholds between that of the detection and the peak, and the fraction of the flux that a
        branch needs to be a source of its own. ``n_levels=1`` deblends nothing.
    filter_kernel
        2-D kernel to convolve with for the detection (as matched filter where the noise varies); None for none. By
        default sep's 3 × 3 pyramid.
    clean
        Take away detections that the wings of a brighter one could have made, wings being as wide as this number says
        (SExtractor's ``CLEAN_PARAM``; sep's own default is 1). By default nothing is taken away: after the matched
        filter, cleaning also removes faint stars far from anything bright, as soon as one long artifact lies at the
        edge of the frame (a third of the sources of a ZTF quadrant), and a stamp and its frame then disagree.
    kron_params
        Kron radii that the aperture measures, the smallest Kron radius, and the smallest radius of the aperture in
        pixels, below which it is a circle.
    max_sources
        Keep the brightest ones, fill up with NaN where there are fewer, and stay lazy.
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
    """
    detection = _detection(n_sigma, threshold, n_pixels, n_levels, contrast, filter_kernel, clean, kron_params)
    sky = {"method": method, "box_size": box_size, "filter_size": filter_size}
    target = _input(obj, mask, background, variance, sky)
    if max_sources is None:
        found = _all_sources(target, detection)
    elif max_sources >= 1:
        found = _brightest(target, detection, int(max_sources), segmentation)
    else:
        raise InputError(f"max_sources is at least 1; got {max_sources}")
    if not segmentation:
        found.pop("segmentation", None)
    out = _catalog(found, target.image)
    unit = "the image" if detection.absolute else "sigma"
    return annotate_all(out.assign_attrs(threshold=detection.threshold, threshold_unit=unit))


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


def _detection(
    n_sigma: float,
    threshold: float | None,
    n_pixels: int,
    n_levels: int,
    contrast: float,
    filter_kernel: Kernel,
    clean: float | None,
    kron_params: tuple[float, float, float],
) -> Detection:
    """The options, checked."""
    level = n_sigma if threshold is None else threshold
    if not (np.isfinite(level) and level > 0):
        raise InputError(f"a threshold is positive; got {level}")
    if min(n_pixels, n_levels) < 1:
        raise InputError(f"n_pixels and n_levels are at least 1; got {n_pixels} and {n_levels}")
    if not 0 <= contrast <= 1:
        raise InputError(f"contrast is a fraction from 0 to 1; got {contrast}")
    if clean is not None and not clean > 0:
        raise InputError(f"clean is positive, or None for no cleaning; got {clean}")
    params = tuple(float(p) for p in kron_params)
    if len(params) != 3 or not all(p >= 0 for p in params):
        raise InputError(f"kron_params are three numbers that are not negative; got {kron_params}")
    kernel = _kernel(filter_kernel)
    return Detection(
        float(level), threshold is not None, int(n_pixels), int(n_levels), float(contrast), kernel, clean, params
    )


def _kernel(given: Kernel) -> tuple[tuple[float, ...], ...] | None:
    if given is None or isinstance(given, str):
        if given not in (None, "default"):
            raise InputError(f"filter_kernel is an array, 'default' or None; got {given!r}")
        return None if given is None else DEFAULT_KERNEL
    kernel = np.asarray(given, dtype=np.float64)
    if kernel.ndim != 2 or kernel.size == 0 or not np.isfinite(kernel).all() or not kernel.any():
        raise InputError(f"filter_kernel is a 2-D array of finite numbers, not all 0; got shape {kernel.shape}")
    return tuple(tuple(row) for row in kernel.tolist())


def _input(
    obj: xr.Dataset | xr.DataArray,
    mask: MaskChoice,
    background: Level,
    variance: xr.DataArray | None,
    sky: Mapping[str, Any],
) -> _Input:
    """What `extract_sources` needs; nothing is measured that was given."""
    name = "difference" if isinstance(obj, xr.Dataset) and "difference" in obj else "sci"
    image, bad = get_image(obj, name), _bad(obj, name, mask)
    same_grid(image, bad)
    if variance is None and isinstance(obj, xr.Dataset):
        variance = obj.get("difference_variance" if name == "difference" else "variance")
    if background is False or (background is None and name == "difference"):
        background = 0.0
    maps = dict(background) if isinstance(background, xr.Dataset) else {}
    if background is None or (variance is None and "background_rms" not in maps):
        maps = dict(measure_background(image, mask=bad, **sky)) | maps
    level = maps["background"] if background is None or isinstance(background, xr.Dataset) else background
    if isinstance(level, xr.DataArray):
        same_grid(image, level)
    if variance is None:
        gain = image.coords.get("gain", xr.DataArray(np.nan)).reset_coords(drop=True)
        return _Input(image - level, bad, maps["background_rms"] ** 2, gain)
    if not isinstance(variance, xr.DataArray):
        raise InputError(f"variance is a DataArray with the dimensions of the image; got {type(variance).__name__}")
    same_grid(image, variance)
    return _Input(image - level, bad, variance, xr.DataArray(np.nan))


def _bad(obj: xr.Dataset | xr.DataArray, name: str, mask: MaskChoice) -> xr.DataArray:
    if name == "sci" or not isinstance(obj, xr.Dataset):
        return get_mask(obj, mask)
    return get_mask(obj[name], obj.get("mask") if mask is None else mask)


# ---- extraction -----------------------------------------------------------------------------------------------------


def _all_sources(target: _Input, detection: Detection) -> dict[str, xr.Variable]:
    """All sources of one image, by name."""
    extra = [d for d in target.image.dims if d not in IMAGE]
    if extra:
        raise InputError(
            f"the images of a stack over {', '.join(map(str, extra))} have different numbers of sources: give "
            "max_sources=, or select one image"
        )
    for array in target.arrays[:3]:
        require_whole(array, IMAGE)
    ordered = [a.transpose(*dims) for a, dims in zip(target.arrays, _Input.core, strict=True)]
    image, bad, variance, gain = (np.asarray(a) for a in compute(*(a.data for a in ordered)))
    found = extract_sources(image, bad, variance, float(gain), detection=detection)
    columns = {name: xr.Variable("source", values) for name, values in found.columns.items()}
    scalars = dict(zip(_PER_IMAGE, _scalars(found), strict=True))
    single = {name: xr.Variable((), np.asarray(v, SPECS[name].dtype)) for name, v in scalars.items()}
    return columns | single | {"segmentation": xr.Variable(IMAGE, found.segmentation)}


def _scalars(found: Extraction) -> tuple[Any, ...]:
    return (found.n_sources, found.status, found.threshold_factor)


def _brightest(target: _Input, detection: Detection, number: int, segmentation: bool) -> dict[str, xr.Variable]:
    """The brightest sources of every image, filled up with NaN, by name."""
    outputs: dict[str, tuple[str, ...]] = dict.fromkeys((*COLUMNS, "sep_flags"), ("source",))
    outputs |= dict.fromkeys(_PER_IMAGE, ())
    if segmentation:
        outputs["segmentation"] = IMAGE
    found = apply_images(
        _padded,
        *target.arrays,
        inputs=_Input.core,
        outputs=outputs,
        sizes={"source": number},
        kwargs={"detection": detection, "number": number, "segmentation": segmentation},
    )
    return {name: array.variable for name, array in found.items()}


def _padded(
    image: NDArray[Any],
    bad: Bools,
    variance: NDArray[Any],
    gain: NDArray[Any],
    *,
    detection: Detection,
    number: int,
    segmentation: bool,
) -> tuple[Any, ...]:
    found = extract_sources(image, bad, variance, float(gain), detection=detection, limit=number)
    columns = []
    for name in (*COLUMNS, "sep_flags"):
        values = found.columns[name]
        full = np.full(number, EMPTY if name == "sep_flags" else np.nan, dtype=values.dtype)
        full[: values.size] = values
        columns.append(full)
    return (*columns, *_scalars(found), *((found.segmentation,) if segmentation else ()))


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
