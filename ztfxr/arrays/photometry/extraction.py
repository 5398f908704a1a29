"""Sources of one image, detected and measured by sep."""

from __future__ import annotations

import threading
from dataclasses import dataclass

import numpy as np
import sep
from numpy.typing import ArrayLike, NDArray

from ztfxr.arrays.types import Bools, Floats, Images, Ints, Numbers, Table
from ztfxr.errors import InputError

__all__ = ["COLUMNS", "DEFAULT_KERNEL", "Detection", "Extraction", "Threshold", "extract_sources"]


COLUMNS = (
    "x_centroid",
    "y_centroid",
    "x_centroid_win",
    "y_centroid_win",
    "semimajor_axis",
    "semiminor_axis",
    "orientation",
    "segment_area",
    "peak",
    "flux",
    "flux_err",
    "kron_flux",
    "kron_flux_err",
    "kron_radius",
    "half_light_radius",
    "snr",
)
"""What is measured of each source, as float64; `sep_flags` comes on top."""

DEFAULT_KERNEL = ((1.0, 2.0, 1.0), (2.0, 4.0, 2.0), (1.0, 2.0, 1.0))

KRON_CIRCULAR, WINDOW_FAILED, EMPTY = 1 << 8, 1 << 9, 1 << 15
BUFFER_GROWN, LIMIT_GROWN, THRESHOLD_RAISED, NO_GOOD_PIXELS = 1, 2, 4, 8

_GROWTH = 8
# sep numbers sub-objects in 16-bit integers: past this limit it would write outside its arrays.
_MOST_SUB_OBJECTS = 32767
_KRON_EXTENT = 6.0
_FWHM_TO_SIGMA = 2.0 / 2.35

# The buffer and the limit belong to the process. sep holds the GIL, so that waiting here costs nothing.
_lock = threading.Lock()


@dataclass(frozen=True)
class Detection:
    """How sources are told apart and measured once pixels stand above the threshold.

    Parameters
    ----------
    n_pixels
        Connected pixels above the threshold that make a source.
    n_levels
        Thresholds of the deblending between that of the detection and the peak; 1 deblends nothing.
    contrast
        The fraction of the flux that a branch needs to be a source of its own, from 0 to 1.
    kernel
        2-D kernel to convolve with for the detection (as matched filter where the noise varies); None for none. By
        default sep's 3 × 3 pyramid.
    clean
        Width of the wings of a bright source whose false detections are taken away (SExtractor's ``CLEAN_PARAM``; sep's
        own default is 1). By default nothing is taken away: after the matched filter, cleaning also removes faint
        stars far from anything bright, as soon as one long artifact lies at the edge of the frame (a third of the
        sources of a ZTF quadrant), and a stamp and its frame then disagree.
    kron_params
        Kron radii that the aperture measures, the smallest Kron radius, and the smallest radius of the aperture in
        pixels, below which it is a circle.

    Raises
    ------
    InputError
        A value that has no meaning.
    """

    n_pixels: int = 5
    n_levels: int = 32
    contrast: float = 0.005
    kernel: ArrayLike | None = DEFAULT_KERNEL
    clean: float | None = None
    kron_params: tuple[float, float, float] = (2.5, 1.4, 1.75)

    def __post_init__(self) -> None:
        if min(self.n_pixels, self.n_levels) < 1:
            raise InputError(f"n_pixels and n_levels are at least 1; got {self.n_pixels} and {self.n_levels}")
        if not 0 <= self.contrast <= 1:
            raise InputError(f"contrast is a fraction from 0 to 1; got {self.contrast}")
        if self.clean is not None and not self.clean > 0:
            raise InputError(f"clean is positive, or None for no cleaning; got {self.clean}")
        if len(self.kron_params) != 3 or not all(p >= 0 for p in self.kron_params):
            raise InputError(f"kron_params are three numbers that are not negative; got {self.kron_params}")
        if self.kernel is not None:
            # A tuple, since dask names tasks by their options and an array would be hashed anew each time.
            object.__setattr__(self, "kernel", _checked_kernel(self.kernel))


def _checked_kernel(given: ArrayLike) -> tuple[tuple[float, ...], ...]:
    kernel = np.asarray(given)
    numbers = kernel.dtype.kind in "fiu" and kernel.ndim == 2 and kernel.size > 0
    if not (numbers and np.isfinite(kernel).all() and kernel.any()):
        raise InputError(f"kernel is None or a 2-D array of finite numbers, not all 0; got shape {kernel.shape}")
    return tuple(tuple(row) for row in kernel.astype(np.float64).tolist())


@dataclass(frozen=True)
class Threshold:
    """What a pixel must exceed: so many times its own noise, or a level in the unit of the image if `absolute`."""

    level: float = 5.0
    absolute: bool = False

    def __post_init__(self) -> None:
        if not (np.isfinite(self.level) and self.level > 0):
            raise InputError(f"a threshold is positive; got {self.level}")


@dataclass(frozen=True)
class Extraction:
    """The sources of an image, brightest first, and how they were found.

    `columns` holds `COLUMNS` and `sep_flags`, shape (source,); positions count from the first pixel of the array.
    `n_sources` counts those beyond the limit too. `segmentation` is, per pixel, 1 + the row of its source, or 0.
    """

    columns: dict[str, Numbers]
    n_sources: int
    status: int
    threshold_factor: float
    segmentation: NDArray[np.int32]


@dataclass(frozen=True)
class _Frame:
    """An image ready for sep: zero, and without variance, where it is bad."""

    pixels: Images
    bad: Bools
    variance: Images
    sigma: Images
    gain: float | None
    threshold: Threshold


def extract_sources(
    image: Numbers,
    bad: Bools,
    variance: Numbers,
    gain: float | None,
    *,
    threshold: Threshold,
    detection: Detection,
    limit: int | None = None,
) -> Extraction:
    """Detect and measure the sources of one (y, x) image without sky.

    Parameters
    ----------
    image
        Pixels; those that are not finite are bad, and so are, for a threshold in units of the noise, those without a
        positive variance.
    bad
        True where a pixel must not be used.
    variance
        Of the noise per pixel.
    gain
        electron/DN, which adds the photon noise of the sources to their errors; None or NaN where `variance` holds it,
        or where it is not known.
    threshold, detection
        How sources are detected and measured.
    limit
        Keep this many of the brightest sources.

    Notes
    -----
    sep (Barbary 2016, JOSS 1, 58) after SExtractor (Bertin & Arnouts 1996, A&AS 117, 393). Where a frame overflows
    sep's pixel buffer or its limit of sub-objects these are raised for it, and restored; where that does not help the
    threshold is doubled until it does. A detection whose second moments overflow single precision is left out.
    """
    frame = _prepared(image, bad, variance, np.nan if gain is None else float(gain), threshold)
    if frame.bad.all():
        return _nothing(frame.bad.shape)
    found, labels, status, factor = _detected(frame, detection)
    order = np.argsort(-found["flux"], kind="stable")
    order = order[np.isfinite(found["a"] + found["b"])[order]]
    kept = order[:limit]
    rows = np.zeros(len(found) + 1, dtype=np.int32)
    rows[kept + 1] = np.arange(1, kept.size + 1)
    segmentation = rows[labels]
    return Extraction(_measured(frame, found[kept], segmentation, detection), order.size, status, factor, segmentation)


def _nothing(shape: tuple[int, ...]) -> Extraction:
    """What an image without a good pixel gives."""
    columns: dict[str, Numbers] = {name: np.zeros(0) for name in COLUMNS}
    columns["sep_flags"] = np.zeros(0, dtype=np.uint16)
    return Extraction(columns, 0, NO_GOOD_PIXELS, 1.0, np.zeros(shape, dtype=np.int32))


def _prepared(image: Numbers, bad: Bools, variance: Numbers, gain: float, threshold: Threshold) -> _Frame:
    unusable = np.ascontiguousarray(bad | ~np.isfinite(image))
    if not threshold.absolute:
        unusable |= ~((variance > 0) & (variance < np.inf))
    pixels, noise = (np.array(a, dtype=np.float32, order="C") for a in (image, variance))
    for array in (pixels, noise):
        np.copyto(array, 0.0, where=unusable)
    np.maximum(noise, 0.0, out=noise)
    known = np.isfinite(gain) and gain > 0
    return _Frame(pixels, unusable, noise, np.sqrt(noise), gain if known else None, threshold)


def _detected(frame: _Frame, detection: Detection) -> tuple[Table, NDArray[np.int32], int, float]:
    """Objects and labels by sep, what had to be raised for them, and the factor on the threshold."""
    with _lock:
        before = sep.get_extract_pixstack(), sep.get_sub_object_limit()
        try:
            return _insisting(frame, detection, *before)
        finally:
            sep.set_extract_pixstack(before[0])
            sep.set_sub_object_limit(before[1])


def _insisting(
    frame: _Frame, detection: Detection, buffer: int, sub_objects: int
) -> tuple[Table, NDArray[np.int32], int, float]:
    status, factor, most = 0, 1.0, frame.pixels.size + 2
    while True:
        sep.set_extract_pixstack(buffer)
        sep.set_sub_object_limit(sub_objects)
        try:
            found, labels = _extract(frame, detection, factor)
        except Exception as error:  # sep raises nothing more specific
            if "pixel buffer full" in str(error) and buffer < most:
                buffer, status = min(_GROWTH * buffer, most), status | BUFFER_GROWN
            elif "deblending overflow" in str(error) and sub_objects < _MOST_SUB_OBJECTS:
                sub_objects, status = min(_GROWTH * sub_objects, _MOST_SUB_OBJECTS), status | LIMIT_GROWN
            elif "pixel buffer full" in str(error) or "deblending overflow" in str(error):
                factor, status = 2.0 * factor, status | THRESHOLD_RAISED
            else:
                raise
        else:
            return found, labels, status, factor


def _extract(frame: _Frame, detection: Detection, factor: float) -> tuple[Table, NDArray[np.int32]]:
    kernel = None if detection.kernel is None else np.array(detection.kernel, dtype=np.float32)
    found, labels = sep.extract(
        frame.pixels,
        factor * frame.threshold.level,
        err=None if frame.threshold.absolute else frame.sigma,
        mask=frame.bad,
        minarea=detection.n_pixels,
        filter_kernel=kernel,
        deblend_nthresh=detection.n_levels,
        deblend_cont=detection.contrast,
        clean=detection.clean is not None,
        clean_param=detection.clean or 1.0,
        segmentation_map=True,
    )
    return found, labels


def _measured(frame: _Frame, found: Table, labels: NDArray[np.int32], detection: Detection) -> dict[str, Numbers]:
    """The columns of the sources, in the order of `found` and `labels`."""
    kron, kron_err, radius, flags = _kron(frame, found, detection.kron_params)
    half = _half_light(frame, found, kron)
    x_win, y_win, failed = _windowed(frame, found, half)
    columns = {
        "x_centroid": found["x"],
        "y_centroid": found["y"],
        "x_centroid_win": x_win,
        "y_centroid_win": y_win,
        "semimajor_axis": found["a"],
        "semiminor_axis": found["b"],
        "orientation": np.rad2deg(found["theta"]),
        "segment_area": found["npix"],
        "peak": found["peak"],
        "flux": found["flux"],
        "flux_err": _isophotal_error(frame, found["flux"], labels),
        "kron_flux": kron,
        "kron_flux_err": kron_err,
        "kron_radius": radius,
        "half_light_radius": half,
        "snr": np.divide(kron, kron_err, out=np.full(kron.size, np.nan), where=kron_err > 0),
    }
    out: dict[str, Numbers] = {name: np.asarray(columns[name], dtype=np.float64) for name in COLUMNS}
    return out | {"sep_flags": (found["flag"] | flags | failed * WINDOW_FAILED).astype(np.uint16)}


def _isophotal_error(frame: _Frame, flux: Floats, labels: NDArray[np.int32]) -> Floats:
    """Standard error of the sums over the pixels of the sources."""
    inside = np.flatnonzero(labels)
    weights = frame.variance.ravel()[inside]
    variance = np.bincount(labels.ravel()[inside], weights=weights, minlength=flux.size + 1)[1:]
    photons = 0.0 if frame.gain is None else np.maximum(flux, 0.0) / frame.gain
    return np.asarray(np.sqrt(variance + photons))


def _kron(frame: _Frame, found: Table, params: tuple[float, float, float]) -> tuple[Floats, Floats, Floats, Ints]:
    """Flux in the ellipse of so many Kron radii (Kron 1980, ApJS 43, 305), its error, that radius, and flags."""
    scale, smallest, circle = params
    # sep keeps the angle in single precision, whose π/2 is larger than the one that it accepts.
    ellipse = [found["a"], found["b"], np.clip(found["theta"], -np.pi / 2, np.pi / 2)]
    where = [found["x"], found["y"]]
    measured, flags = sep.kron_radius(frame.pixels, *where, *ellipse, _KRON_EXTENT, mask=frame.bad)
    radius = np.maximum(np.where(np.isfinite(measured), measured, 0.0), smallest)
    circular = scale * radius * np.sqrt(ellipse[0] * ellipse[1]) < circle
    ellipse = [np.where(circular, v, e) for v, e in zip((1.0, 1.0, 0.0), ellipse, strict=True)]
    flux, error, more = sep.sum_ellipse(
        frame.pixels,
        *where,
        *ellipse,
        np.where(circular, circle, scale * radius),
        err=frame.sigma,
        mask=frame.bad,
        gain=frame.gain,
        subpix=0,
    )
    return flux, error, radius, flags.astype(np.int64) | more | circular * KRON_CIRCULAR


def _half_light(frame: _Frame, found: Table, flux: Floats) -> Floats:
    """Radius of the circle with half of the flux; NaN for fluxes that are not positive."""
    positive = flux > 0
    radius, _ = sep.flux_radius(
        frame.pixels,
        found["x"],
        found["y"],
        _KRON_EXTENT * found["a"],
        0.5,
        normflux=np.where(positive, flux, 1.0),
        mask=frame.bad,
    )
    return np.where(positive, radius, np.nan)


def _windowed(frame: _Frame, found: Table, half: Floats) -> tuple[Floats, Floats, Bools]:
    """Gaussian-windowed centroids; the isophotal one where the iteration left the 1-sigma ellipse or broke off."""
    sigma = _FWHM_TO_SIGMA * np.where(np.isfinite(half), half, 0.0)
    x, y, _ = sep.winpos(frame.pixels, found["x"], found["y"], sigma, mask=frame.bad)
    dx, dy = x - found["x"], y - found["y"]
    failed = ~(found["cxx"] * dx**2 + found["cyy"] * dy**2 + found["cxy"] * dx * dy <= 1.0)
    return np.where(failed, found["x"], x), np.where(failed, found["y"], y), failed
