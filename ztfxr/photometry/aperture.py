"""Aperture photometry at fixed positions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ztfxr.arrays.images.annuli import measure_annuli
from ztfxr.arrays.options import options_from
from ztfxr.arrays.photometry.apertures import correlation_factor, sum_apertures
from ztfxr.arrays.photometry.growth import correct_apertures
from ztfxr.arrays.stamps import trim
from ztfxr.arrays.types import Bools, Floats
from ztfxr.errors import InputError
from ztfxr.ops.exposure import Exposure, Labeled, MaskChoice, gather
from ztfxr.ops.mapping import map_images
from ztfxr.ops.positions import Positions, array_positions, resolve_positions
from ztfxr.photometry.cuts import kept
from ztfxr.photometry.status import NO_GOOD_PIXELS, Coverage
from ztfxr.schema import annotate_all

__all__ = ["Annulus", "ApertureOptions", "aperture_correction", "aperture_photometry"]

Masked: TypeAlias = Literal["correct", "drop", "nan"]
Statistic: TypeAlias = Literal["median", "mean"]
Radius: TypeAlias = float | Sequence[float] | NDArray[Any]

_SUMS = ("flux", "flux_err", "area", "masked_fraction", "status")
_LEVELS = ("local_background", "local_background_err")


@dataclass(frozen=True)
class Annulus:
    """A ring around each source in which its local background is measured.

    Parameters
    ----------
    inner, outer
        Radii in pixels.
    statistic
        The level is the ``"median"`` or the ``"mean"`` of the ring's good pixels, after clipping.
    clip
        Pixels further than this many standard deviations from the median are left out.

    Raises
    ------
    InputError
        A value is out of its range.
    """

    inner: float
    outer: float
    statistic: Statistic = "median"
    clip: float = 3.0

    def __post_init__(self) -> None:
        if not 0 <= self.inner < self.outer < np.inf:
            raise InputError(
                f"annulus is the inner and the larger outer radius in pixels; got {(self.inner, self.outer)}"
            )
        if self.statistic not in get_args(Statistic):
            raise InputError(f"the statistic of an annulus is 'median' or 'mean'; got {self.statistic!r}")
        if not self.clip > 0:
            raise InputError(f"clip is a positive number of standard deviations; got {self.clip}")

    @classmethod
    def of(cls, given: Annulus | tuple[float, float] | Mapping[str, Any] | None) -> Annulus | None:
        """From a pair of radii or a mapping; None stays None."""
        if given is None or isinstance(given, Annulus):
            return given
        return cls(*given) if isinstance(given, tuple | list) else options_from(cls, given, "annulus")


@dataclass(frozen=True)
class ApertureOptions:
    """How images are summed in apertures; see `ztfxr.aperture_photometry`.

    Raises
    ------
    InputError
        A value is out of its range.
    """

    radius: Radius
    masked: Masked = "correct"
    max_masked_fraction: float = 0.5
    annulus: Annulus | tuple[float, float] | Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        if np.asarray(self.radius).dtype.kind not in "iuf":
            raise InputError(f"radius is a number of pixels, or several; got {self.radius!r}")
        radii = self.radii
        if radii.ndim != 1 or radii.size == 0 or not np.all(np.isfinite(radii) & (radii > 0)):
            raise InputError(f"radius must be positive, in pixels; got {self.radius}")
        if len(np.unique(radii)) < radii.size:
            raise InputError(f"the radii must differ; got {self.radius}")
        if self.masked not in get_args(Masked):
            raise InputError(f"masked is 'correct', 'drop' or 'nan'; got {self.masked!r}")
        if not 0 <= self.max_masked_fraction <= 1:
            raise InputError(f"max_masked_fraction is a fraction from 0 to 1; got {self.max_masked_fraction}")
        if self.ring is not None and self.ring.inner < radii.min():
            raise InputError(
                f"the annulus begins at {self.ring.inner} px, inside every aperture; the smallest is {radii.min()} px"
            )

    @property
    def radii(self) -> Floats:
        """The radii, also of a single one."""
        return np.atleast_1d(np.asarray(self.radius, dtype=np.float64))

    @property
    def ring(self) -> Annulus | None:
        """The annulus; None without a local background."""
        return Annulus.of(self.annulus)

    @property
    def attrs(self) -> dict[str, Any]:
        """What a Dataset of fluxes says of them."""
        attrs: dict[str, Any] = {"masked": self.masked}
        if np.ndim(self.radius) == 0:
            attrs["radius_pixel"] = float(self.radii[0])
        if self.ring is not None:
            attrs["annulus_pixel"] = [float(self.ring.inner), float(self.ring.outer)]
        return attrs


def aperture_photometry(
    obj: Labeled,
    positions: Positions,
    *,
    radius: Radius,
    variance: xr.DataArray | None = None,
    mask: MaskChoice = None,
    masked: Masked = "correct",
    max_masked_fraction: float = 0.5,
    annulus: Annulus | tuple[float, float] | Mapping[str, Any] | None = None,
) -> xr.Dataset:
    """Sum images in circular apertures with exact pixel overlap; lazy, one epoch a task.

    Parameters
    ----------
    obj
        An image (..., y, x) without its sky, or with it where an `annulus` is given; or a Dataset with `difference`
        (else `sci`).
    positions
        Where to measure, as `ztfxr.resolve_positions` takes it: Dataset, Table, DataFrame, SkyCoord, or (x, y) pairs in
        absolute 0-based pixels.
    radius
        Radius of the apertures in pixels. Several give the results the dimension `radius`, and cost little more than
        the largest.
    variance
        Variance per pixel; by default `difference_variance` or `variance` of the Dataset, else `ztfxr.variance`.
    mask
        Boolean, True where bad; by default that of the Dataset. Non-finite pixels are always bad.
    masked
        What bad pixels do: ``"correct"`` scales the sum of the good ones by the missing area, ``"drop"`` leaves them
        out, ``"nan"`` gives up the flux. All three set the status `masked`, or `edge` where the aperture leaves the
        image.
    max_masked_fraction
        Apertures with a larger bad fraction have no flux (status `no_good_pixels`).
    annulus
        Ring in which a local background is measured and then taken off, its error included in `flux_err`: the inner
        and outer radius in pixels, or an `Annulus` with a statistic and clipping of its own. Without a good pixel there
        the flux is NaN (status `no_good_pixels`).

    Returns
    -------
    xarray.Dataset
        `flux`, `flux_err` (unit of the image), `area`, `masked_fraction`, `status` on (..., source) or (..., source,
        radius); `model_err` where the Dataset has `model_error` (see `ztfxr.difference`), part of `flux_err`; with an
        annulus `local_background`, `local_background_err` (per pixel) on (..., source). A flux that could not be
        measured is NaN with a status that says why; an epoch's own status is passed on to each source.

    Raises
    ------
    InputError, MissingWCSError, ChunkError, AlignmentError

    Notes
    -----
    ``flux_err² = c Σ w² V + A² σ_b²`` with w the overlap of each pixel, V its variance, A the area and σ_b the error of
    the local background. Pixels are taken as independent (c = 1), but for a difference, where the noise of the image
    that was convolved adds up: c follows from the kernel and `convolved_share`.

    Examples
    --------
    >>> ds = ztfxr.open_quadrant(ztfxr.samples.sample_path())
    >>> phot = ztfxr.aperture_photometry(ds, [(710.0, 730.0)], radius=5, annulus=(10, 16))
    >>> phot.flux.dims
    ('source',)
    """
    options = ApertureOptions(radius, masked, max_masked_fraction, annulus)
    exposure = gather(obj, variance=variance, mask=mask)
    where = resolve_positions(exposure.image, positions)
    y, x = array_positions(where, exposure.origin)
    modes = exposure.model_error
    outputs = dict.fromkeys([*_SUMS, *(["model_err"] if modes is not None else [])], ("source", "radius"))
    found = map_images(
        _measure,
        {
            "image": exposure.image,
            "variance": exposure.variance,
            "bad": exposure.bad,
            "modes": modes,
            "y": y,
            "x": x,
            **_convolution(exposure),
        },
        outputs | (dict.fromkeys(_LEVELS, ("source",)) if options.ring is not None else {}),
        sizes={"radius": len(options.radii)},
        options={"options": options},
    )
    out = xr.Dataset(found).assign_coords(where.coords)
    out = out.isel(radius=0) if np.ndim(radius) == 0 else out.assign_coords(radius=("radius", options.radii))
    if exposure.status is not None:
        out["status"] = out["status"] | exposure.status
    out.attrs = options.attrs
    return annotate_all(out, unit=exposure.unit)


def _convolution(exposure: Exposure) -> dict[str, xr.DataArray | None]:
    """What the noise of a difference was convolved with, where that is known."""
    names = ("kernel", "kernel_sum", "science_convolved", "convolved_share")
    owner = exposure.owner
    known = exposure.name == "difference" and isinstance(owner, xr.Dataset) and all(name in owner for name in names)
    return {name: owner[name] if known else None for name in names}


def aperture_correction(
    photometry: xr.Dataset,
    *,
    radius: float | None = None,
    stars: xr.DataArray | None = None,
    min_snr: float = 30.0,
    min_stars: int = 5,
    n_sigma: float = 3.0,
) -> xr.Dataset:
    """The factor from the flux inside each aperture to that inside a large one, from a frame's stars; lazy.

    Parameters
    ----------
    photometry
        Fluxes of stars at several radii: what `ztfxr.aperture_photometry` gives for a sequence of radii.
    radius
        The aperture (px, one of the radii) that holds all the light; by default the largest.
    stars
        Boolean on `source`, True for the isolated stars to use; by default all that are measured without a flag.
    min_snr
        Stars count with a signal-to-noise ratio of at least this in the large aperture.
    min_stars
        Fewer stars give NaN.
    n_sigma
        Stars further from the median than this many robust standard deviations are left out.

    Returns
    -------
    xarray.Dataset
        `aperture_correction`, `aperture_correction_err` (of the mean), `aperture_correction_scatter` (of a star), on
        (..., radius), and `n_stars`. Multiply `flux` and `flux_err` by the correction; for one star's error add
        flux × aperture_correction_err in quadrature, which all stars of the frame share.

    Raises
    ------
    InputError
        There is no dimension `radius`, or no such radius.

    Notes
    -----
    The mean over stars of F_large / F(r), weighted by the squared signal-to-noise ratio in the large aperture up to ten
    times `min_snr`, clipped. The ratio of nested apertures is noisy by the light between them alone, so the error comes
    from the scatter of the stars, not from the errors of their fluxes.
    """
    if "radius" not in photometry.dims:
        raise InputError("an aperture correction needs photometry at several radii: radius=[3, 5, 10], for example")
    radii = photometry["radius"].values
    large = int(np.argmax(radii)) if radius is None else int(np.argmin(np.abs(radii - radius)))
    if radius is not None and abs(radii[large] - radius) > 1e-6:
        raise InputError(f"no aperture of radius {radius}; the radii are {', '.join(f'{r:g}' for r in radii)}")
    found = map_images(
        _corrections,
        {
            "flux": photometry["flux"].reset_coords(drop=True),
            "error": photometry["flux_err"].reset_coords(drop=True),
            "good": kept(photometry, "flux"),
            "stars": stars,
        },
        ["aperture_correction", "aperture_correction_err", "aperture_correction_scatter", "n_stars"],
        options={"large": large, "min_snr": min_snr, "min_stars": min_stars, "n_sigma": n_sigma},
    )
    coords = {k: v for k, v in photometry.coords.items() if "source" not in v.dims}
    out = xr.Dataset(found).assign_coords(coords)
    return annotate_all(out.assign_attrs(radius_pixel=float(radii[large])))


def _corrections(
    flux: Floats, error: Floats, good: Bools, stars: Bools | None, **options: Any
) -> dict[str, NDArray[Any]]:
    """`correct_apertures` by the names of the results."""
    usable = good if stars is None else good & stars[:, None]
    names = ("aperture_correction", "aperture_correction_err", "aperture_correction_scatter", "n_stars")
    return dict(zip(names, correct_apertures(flux, error, usable, **options), strict=True))


def _measure(
    image: NDArray[Any],
    variance: NDArray[Any],
    bad: Bools,
    modes: NDArray[Any] | None,
    y: Floats,
    x: Floats,
    kernel: Floats | None,
    kernel_sum: Floats | None,
    science_convolved: Bools | None,
    convolved_share: Floats | None,
    *,
    options: ApertureOptions,
) -> dict[str, NDArray[Any]]:
    """Measure one image, and in the same apertures each mode of the error of what was subtracted from it."""
    variance_factor = np.ones(len(options.radii))
    if kernel is not None and kernel_sum is not None and convolved_share is not None and np.isfinite(convolved_share):
        own = kernel / kernel_sum if science_convolved else kernel
        variance_factor = correlation_factor(trim(own), float(convolved_share), options.radii)
    found = _summed(image, variance, bad, y, x, options, variance_factor)
    if modes is None:
        return found
    squares = [_summed(mode, variance, bad, y, x, options, variance_factor)["flux"] ** 2 for mode in modes]
    model = np.sqrt(np.sum(squares, axis=0))
    return found | {"model_err": model, "flux_err": np.hypot(found["flux_err"], model)}


def _summed(
    image: NDArray[Any],
    variance: NDArray[Any],
    bad: Bools,
    y: Floats,
    x: Floats,
    options: ApertureOptions,
    variance_factor: Floats,
) -> dict[str, NDArray[Any]]:
    """Fluxes and what belongs to them, (source, radius), and the local background (source,)."""
    sums = sum_apertures(image, variance, bad, x, y, radii=options.radii)
    cover = Coverage(1.0 - sums.area / sums.total_area, sums.outside_area / sums.total_area)
    lost = cover.masked_fraction
    no_good = (lost > options.max_masked_fraction) | (sums.area <= 0)
    status = cover.status(no_good=no_good)
    unmeasured = cover.off | no_good | ((lost > 0) & (options.masked == "nan"))
    corrected = options.masked == "correct"
    scale = sums.total_area / np.where(sums.area > 0, sums.area, 1.0) if corrected else np.ones(lost.shape)
    flux = np.where(unmeasured, np.nan, sums.flux * scale)
    error = np.where(unmeasured, np.nan, np.sqrt(sums.variance * variance_factor) * scale)
    found = {"area": sums.area, "masked_fraction": lost}
    ring = options.ring
    if ring is not None:
        sky = measure_annuli(
            image, bad, x, y, inner=ring.inner, outer=ring.outer, n_sigma=ring.clip, statistic=ring.statistic
        )
        covered = sums.area if options.masked == "drop" else np.broadcast_to(sums.total_area, lost.shape)
        flux = flux - covered * sky.level[:, None]
        error = np.hypot(error, covered * sky.error[:, None])
        status = status | np.where(np.isnan(sky.level), NO_GOOD_PIXELS, 0)[:, None].astype(status.dtype)
        found |= {"local_background": sky.level, "local_background_err": sky.error}
    return found | {"flux": flux, "flux_err": error, "status": status}
