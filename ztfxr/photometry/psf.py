"""The PSF as data: built from an image's stars, evaluated anywhere, carried into difference images."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from ztfxr.arrays.no_solution import NoSolutionError
from ztfxr.arrays.polynomials import n_terms
from ztfxr.arrays.psf.build import PSFOptions
from ztfxr.arrays.psf.build import build_psf as build_psf_array
from ztfxr.arrays.psf.model import PSFModel, grid_offsets, psf_stamps, resample_stamp
from ztfxr.arrays.types import Bools, Floats
from ztfxr.dia._pair import bare
from ztfxr.dia.kernel_frame import KernelFrame
from ztfxr.errors import InputError
from ztfxr.ops._apply import IMAGE, apply_images
from ztfxr.ops.background import background as sky_background
from ztfxr.ops.background import get_image, get_mask
from ztfxr.ops.background import variance as noise_model
from ztfxr.ops.positions import Positions, pixel_origin, resolve_positions
from ztfxr.photometry._kernels import Side, kernel_inputs, kernel_terms, spread_kernels
from ztfxr.schema import STATUS_PLANES, annotate, annotate_all, planes_to_bits

__all__ = ["PSFInputs", "build_psf", "psf_at", "psf_inputs", "psf_model"]


_GRID = ("psf_term", "psf_dy", "psf_dx")
_STAMP, _SAMPLES = ("psf_y", "psf_x"), ("sample_y", "sample_x")
_AXIS = ("axis",)
_FLUX_COV = ("psf_term", "psf_coterm")
_OUTPUTS: dict[str, tuple[str, ...]] = {
    "psf_coeff": _GRID,
    "psf_flux_cov": _FLUX_COV,
    "psf_order": (),
    "fwhm": (),
    "psf_chi2": (),
    "n_stars": (),
    "n_stars_rejected": (),
    "epoch_status": (),
}
_MAX_RADIUS, _OVERSAMPLING, _STAMP_OVERSAMPLING = 20, 4, 4


def build_psf(
    obj: xr.Dataset | xr.DataArray,
    *,
    stars: Positions | None = None,
    order: int | Literal["auto"] = "auto",
    max_order: int = 2,
    radius: int | None = None,
    n_stars: int = 300,
    min_snr: float = 20.0,
    saturation: float | None = None,
    background: bool = True,
    variance: xr.DataArray | None = None,
    mask: xr.DataArray | Literal[False] | None = None,
) -> xr.Dataset:
    """The PSF of an image, or of each of a stack, from its own stars; lazy, one epoch a task.

    The result is an effective PSF: it includes the integration over the pixel, and is found without resampling any
    star, so PSFs of two pixels' width are no obstacle. It varies over the image as a polynomial.

    Parameters
    ----------
    obj
        An image (..., y, x), or a Dataset with `sci` and, where they exist, `flags` or `mask` and `variance`.
    stars
        Which stars to use, as for `ztfxr.resolve_positions`. By default bright, unsaturated, isolated ones are found,
        evenly over the image.
    order
        Spatial order, 0 to 3, or ``"auto"``: the highest up to `max_order` that the number of stars allows (15 for
        order 1, 40 for 2, 120 for 3) and whose terms lower χ² by more than noise would.
    max_order
        Of ``"auto"``.
    radius
        Of the PSF in pixels: what is beyond counts as sky. By default 5.5 FWHM, within 10 and 20 pixels.
    n_stars, min_snr
        Stars at most, and the least peak in units of the noise of the sky.
    saturation
        Stars with a higher peak, in DN above the sky, are left out; by default those above 0.8 of the coordinate
        `saturate`, where it is known.
    background
        Subtract `ztfxr.background`; False where it has been done.
    variance
        Variance per pixel in DN²; by default the Dataset's, else `ztfxr.variance` where the gain is known, else that
        of the sky.
    mask
        Boolean, True where bad; by default the Dataset's recommended planes.

    Returns
    -------
    xarray.Dataset
        `psf_coeff` (..., psf_term, psf_dy, psf_dx) on a grid of four nodes per pixel, of unit sum (per pixel) at the
        image's center, zero beyond the radius, for the terms 1, u, v, u², uv, v², … of u and v along x and y, which
        are zero at `psf_origin` and one `psf_scale` pixels from there; `psf_flux_cov` (..., psf_term, psf_coterm): with
        the terms t of a place, ``tᵀ psf_flux_cov t`` is the variance of the relative error that the PSF's own error
        makes of all fluxes there, which `ztfxr.forced_photometry` adds to theirs; `psf_order`; `fwhm` (pixel) at the
        center; `psf_chi2`, `n_stars` and `n_stars_rejected`; `epoch_status`: an epoch without a PSF is NaN with a
        status that says why. `psf_at` evaluates it.

    Raises
    ------
    InputError
        An order outside 0–3, a radius outside 3–20.
    ChunkError
        An image is chunked along y or x.

    Notes
    -----
    Effective PSF: Anderson & King 2000, PASP 112, 1360. Gaussians of growing widths times harmonics (Cappellari 2002,
    MNRAS 333, 400), all coefficients in one weighted least squares over the pixels of all stars, in turn with the
    stars' fluxes and positions. The center of the PSF is its windowed centroid. Where stars are few, what they do not
    determine of the wings is that of a Moffat profile (β = 3): from 12 to 26 stars the light that the PSF holds came
    out right to 0.7 % (rms) instead of 1.7 %, from a hundred to 0.3 % instead of 0.5 %. How well it is known in an
    image, the jackknife over its stars says (see `ztfxr.arrays.psf.error`).
    """
    _check(order, max_order, radius, n_stars, min_snr)
    image, bad = get_image(obj), get_mask(obj, mask)
    noise = _variance(obj, image, bad, variance)
    level = sky_background(image, mask=bad)["background"] if background else xr.DataArray(np.float32(0))
    limit = _saturation(image, saturation)
    places = [_star_pixels(image, stars, axis) for axis in ("y", "x")]
    grid = 2 * (radius or _MAX_RADIUS) * _OVERSAMPLING + 1
    highest = max_order if order == "auto" else order
    options = PSFOptions(
        order=None if order == "auto" else order,
        max_order=highest,
        radius=radius,
        oversampling=_OVERSAMPLING,
        maximum=n_stars,
        min_snr=min_snr,
    )
    inputs = [image, noise, bad, level, limit, *places]
    known = (IMAGE, ("star",))
    core = [next((d for d in known if set(d) <= set(a.dims)), ()) for a in inputs]
    found = apply_images(
        _build_one,
        *(bare(a) for a in inputs),
        inputs=core,
        outputs=_OUTPUTS,
        sizes={"psf_term": n_terms(highest), "psf_coterm": n_terms(highest), "psf_dy": grid, "psf_dx": grid},
        kwargs={"options": options},
    )
    return _labeled(found, image, grid)


def _check(order: int | str, max_order: int, radius: int | None, n_stars: int, min_snr: float) -> None:
    for name, value in (("order", order), ("max_order", max_order)):
        if value != "auto" and value not in (0, 1, 2, 3):
            raise InputError(f"{name} must be 0, 1, 2 or 3{' or auto' * (name == 'order')}; got {value!r}")
    if radius is not None and not 3 <= radius <= _MAX_RADIUS:
        raise InputError(f"radius is a whole number of pixels from 3 to {_MAX_RADIUS}; got {radius!r}")
    if n_stars < 3 or not min_snr > 0:
        raise InputError(f"n_stars must be at least 3 and min_snr positive; got {n_stars} and {min_snr}")


def _variance(
    obj: xr.Dataset | xr.DataArray, image: xr.DataArray, bad: xr.DataArray, given: xr.DataArray | None
) -> xr.DataArray:
    if given is not None:
        return given
    if isinstance(obj, xr.Dataset) and "variance" in obj:
        return obj["variance"]
    if "gain" in image.coords:
        return noise_model(image, mask=bad)
    return sky_background(image, mask=bad)["background_rms"] ** 2


def _saturation(image: xr.DataArray, given: float | None) -> xr.DataArray:
    """Highest peak of a star, above the sky where the sky has been measured."""
    if given is not None:
        return xr.DataArray(float(given))
    known = image.coords.get("saturate")
    return xr.DataArray(np.inf) if known is None else 0.8 * known.astype(np.float64)


def _star_pixels(image: xr.DataArray, stars: Positions | None, axis: str) -> xr.DataArray:
    """Array positions of the stars to use; NaN where they are to be found."""
    if stars is None:
        return xr.DataArray(np.nan)
    places = resolve_positions(image, stars)[f"{axis}_pixel"].values - pixel_origin(image)[axis]
    return xr.DataArray(places, dims="star")


def _build_one(
    image: NDArray[Any],
    variance: NDArray[Any],
    bad: Bools,
    level: NDArray[Any],
    saturation: Floats,
    star_y: Floats,
    star_x: Floats,
    *,
    options: PSFOptions,
) -> tuple[Any, ...]:
    """The PSF of one image: the values of `_OUTPUTS`."""
    clean = image - level
    bad = bad | ~np.isfinite(clean)
    limit = float(saturation) if np.isfinite(saturation) else np.inf
    if np.any(level) and np.isfinite(limit):
        limit -= float(np.nanmedian(level))
    chosen = PSFOptions(**{**vars(options), "saturation": limit})
    size = 2 * (options.radius or _MAX_RADIUS) * options.oversampling + 1
    shape = (n_terms(options.max_order), size, size)
    stars = None if star_y.ndim == 0 else (star_y, star_x)
    try:
        built = build_psf_array(
            clean, variance, bad, origin=_middle(image.shape), scale=_half(image.shape), options=chosen, stars=stars
        )
    except NoSolutionError as error:
        status = np.uint32(planes_to_bits([error.status], STATUS_PLANES))
        nothing = np.full(shape, np.nan), np.full(shape[:1] * 2, np.nan)
        return *nothing, np.int64(0), np.nan, np.nan, np.int64(0), np.int64(0), status
    values = np.zeros(shape)
    margin = (size - built.values.shape[1]) // 2
    inner = slice(margin, size - margin)
    values[: len(built.values), inner, inner] = built.values
    flux_cov = np.zeros(shape[:1] * 2)
    flux_cov[: len(built.flux_cov), : len(built.flux_cov)] = built.flux_cov
    counts = np.int64(built.n_stars), np.int64(built.n_rejected)
    return values, flux_cov, np.int64(built.order), built.fwhm, built.chi2, *counts, np.uint32(0)


def _middle(shape: tuple[int, ...]) -> tuple[float, float]:
    return (shape[0] - 1) / 2, (shape[1] - 1) / 2


def _half(shape: tuple[int, ...]) -> tuple[float, float]:
    return max((shape[0] - 1) / 2, 1.0), max((shape[1] - 1) / 2, 1.0)


def _labeled(found: dict[str, xr.DataArray], image: xr.DataArray, grid: int) -> xr.Dataset:
    """The results with their coordinates, and those of the epochs."""
    shape = (image.sizes["y"], image.sizes["x"])
    first = pixel_origin(image)
    origin = [m + first[d] for m, d in zip(_middle(shape), ("y", "x"), strict=True)]
    offset = grid_offsets(grid, _OVERSAMPLING)
    epochs = {k: v for k, v in image.coords.items() if not set(v.dims) & set(IMAGE) and k != "epoch_status"}
    out = xr.Dataset(found).assign_coords(epochs)
    out = out.assign_coords(
        psf_dy=offset, psf_dx=offset, psf_origin=("axis", origin), psf_scale=("axis", list(_half(shape)))
    )
    prior = image.coords.get("epoch_status")
    if prior is not None:
        out["epoch_status"] = out["epoch_status"] | prior.variable
    return annotate_all(out)


# ---- evaluation -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PSFInputs:
    """A PSF as inputs of a mapped function: coefficients, origin, scale and the covariance of the relative error of
    fluxes (NaN where it is not known), with their core dimensions.
    """

    arrays: tuple[xr.DataArray, xr.DataArray, xr.DataArray, xr.DataArray]
    core: tuple[tuple[str, ...], ...]
    oversampling: int

    @property
    def reach(self) -> int:
        """Pixels from the center to the edge of the grid, rounded up."""
        sides = [self.arrays[0].sizes[d] for d in self.core[0][-2:]]
        return -(-(max(sides) // 2) // self.oversampling)


def psf_inputs(psf: xr.Dataset | xr.DataArray) -> PSFInputs:
    """A PSF of `build_psf` or `read_psf`, or a stamp (..., psf_y, psf_x) with one value per pixel.

    Raises `InputError` for anything else.
    """
    unknown = xr.DataArray(np.nan)
    if isinstance(psf, xr.Dataset) and "psf_coeff" in psf:
        error = psf.get("psf_flux_cov", unknown)
        arrays = bare(psf["psf_coeff"]), bare(psf["psf_origin"]), bare(psf["psf_scale"]), bare(error)
        return PSFInputs(arrays, (_GRID, _AXIS, _AXIS, _FLUX_COV if error.ndim else ()), _oversampling(psf))
    if isinstance(psf, xr.DataArray) and set(_STAMP) <= set(psf.dims) and all(psf.sizes[d] % 2 for d in _STAMP):
        flat = xr.DataArray(np.zeros(2), dims="axis"), xr.DataArray(np.ones(2), dims="axis")
        stamp = bare(psf).rename(dict(zip(_STAMP, _SAMPLES, strict=True)))
        return PSFInputs((stamp, *flat, unknown), (_SAMPLES, _AXIS, _AXIS, ()), 1)
    found = f"{dict(psf.sizes)}" if isinstance(psf, xr.DataArray | xr.Dataset) else type(psf).__name__
    raise InputError(
        "a PSF is a Dataset of ztfxr.build_psf or ztfxr.read_psf, or a stamp with dimensions (psf_y, psf_x) of odd "
        f"lengths; got {found}"
    )


def _oversampling(psf: xr.Dataset) -> int:
    """Nodes per pixel, from the offsets of the grid."""
    for name in ("psf_dy", "psf_dx"):
        offset = np.asarray(psf[name].values, dtype=float)
        k = round(1.0 / float(np.diff(offset).mean())) if offset.size > 1 else 0
        if k < 1 or offset.size % 2 == 0 or not np.allclose(offset, grid_offsets(offset.size, k), atol=1e-6):
            raise InputError(f"{name} must count in equal parts of a pixel, with 0 in the middle")
    return k


def psf_model(
    coefficients: NDArray[Any], origin: Floats, scale: Floats, flux_cov: Floats, oversampling: int
) -> PSFModel | None:
    """The model of one image from the arrays of `PSFInputs`; None where there is no PSF."""
    if not np.isfinite(coefficients).all():
        return None
    values = np.asarray(coefficients, dtype=np.float64)
    if values.ndim == 2:
        values, oversampling = resample_stamp(values, _STAMP_OVERSAMPLING)[None], _STAMP_OVERSAMPLING
    used = [t for t in range(len(values)) if np.any(values[t])]
    if not used:
        return None
    highest = next(n for n in (n_terms(order) for order in range(99)) if n > used[-1])
    values = _trimmed(values[:highest], oversampling)
    places = (float(origin[0]), float(origin[1])), (float(scale[0]), float(scale[1]))
    known = flux_cov if flux_cov.ndim and np.isfinite(flux_cov).all() else None
    return replace(PSFModel.of(values, oversampling, *places), flux_cov=known)


def _trimmed(values: Floats, oversampling: int) -> Floats:
    """Without the pixels around the edge that are zero everywhere."""
    some = np.any(values, axis=0)
    rows, columns = (np.flatnonzero(some.any(axis=a)) for a in (1, 0))
    margin = min(rows[0], columns[0], some.shape[0] - 1 - rows[-1], some.shape[1] - 1 - columns[-1])
    cut = max(int(margin) - oversampling, 0)
    return values[:, cut : some.shape[0] - cut, cut : some.shape[1] - cut]


def psf_at(
    psf: xr.Dataset | xr.DataArray,
    x: ArrayLike,
    y: ArrayLike,
    *,
    size: int | None = None,
    difference: xr.Dataset | None = None,
    of: Side = "science",
) -> xr.DataArray:
    """The PSF as stamps at positions of the image; lazy where the PSF is.

    Parameters
    ----------
    psf
        Of `ztfxr.build_psf` or `ztfxr.read_psf`; or a stamp (..., psf_y, psf_x) sampled once per pixel.
    x, y
        Absolute 0-based pixels with their fractions, scalars or 1-D.
    size
        Pixels along the side, odd; by default all that the PSF reaches.
    difference
        A result of `ztfxr.difference` (or `ztfxr.decorrelate`): the PSF that a source has in it. It is the science
        image's, or what the matching kernel makes of the reference's, on whichever the kernel acts, convolved with the
        whitening kernel where there is one.
    of
        Which image's PSF `psf` is, with `difference`.

    Returns
    -------
    xarray.DataArray
        `psf` (..., source, psf_y, psf_x): fractions of the light in the pixels around the one that the position falls
        on, ``floor(x + 0.5)``. The sum over all pixels is 1; a stamp that is smaller than the PSF holds less. For
        scalars without `source`. NaN where there is no PSF or no position.

    Raises
    ------
    InputError
    """
    px, py = np.broadcast_arrays(np.asarray(x, dtype=float), np.asarray(y, dtype=float))
    if px.ndim > 1 or (size is not None and (size < 1 or size % 2 == 0)):
        raise InputError(f"positions are scalars or 1-D and size is odd; got {px.ndim} dimensions and size {size}")
    source = psf_inputs(psf)
    acting, acting_core = kernel_inputs(difference)
    side = size or 2 * (source.reach + 1) + 1
    place = [xr.DataArray(p.ravel(), dims="source") for p in (py, px)]
    found = apply_images(
        _stamps,
        *source.arrays,
        *acting,
        *place,
        inputs=[*source.core, *acting_core, ("source",), ("source",)],
        outputs={"psf": ("source", *_STAMP)},
        sizes=dict.fromkeys(_STAMP, side),
        kwargs={
            "oversampling": source.oversampling,
            "side": side,
            "of": of,
            "frame": None if difference is None else KernelFrame.of(difference),
        },
    )["psf"]
    offset = np.arange(side) - side // 2
    out = found.assign_coords(
        psf_y=offset, psf_x=offset, x_pixel=("source", px.ravel()), y_pixel=("source", py.ravel())
    )
    out = annotate(out, "psf")
    return out if px.ndim else out.isel(source=0)


def _stamps(
    coefficients: NDArray[Any],
    origin: Floats,
    scale: Floats,
    flux_cov: Floats,
    kernel: NDArray[Any],
    swapped: Bools,
    phi: NDArray[Any],
    y: Floats,
    x: Floats,
    *,
    oversampling: int,
    side: int,
    of: Side,
    frame: KernelFrame | None,
) -> Floats:
    """Stamps of one image at some positions."""
    from scipy import signal

    model = psf_model(coefficients, origin, scale, flux_cov, oversampling)
    kernels = spread_kernels(kernel, swapped, phi, of)
    if model is None or kernels is None:
        return np.full((len(y), side, side), np.nan)
    if frame is None or kernels.size == 0:
        return psf_stamps(model, y, x, size=side)
    margin = kernels.shape[1] // 2
    plain = psf_stamps(model, y, x, size=side + 2 * margin)
    local = np.tensordot(kernel_terms(y, x, frame, len(kernels)), kernels, axes=1)
    local /= local.sum(axis=(1, 2), keepdims=True)
    return np.asarray(signal.fftconvolve(plain, local, mode="valid", axes=(1, 2)))
