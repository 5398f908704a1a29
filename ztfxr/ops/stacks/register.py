"""Where the pixels of one image lie on another: by WCS, by catalogs, or by the pattern of the stars."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from ztfxr.arrays.geometry.registration import Stars, find_stars, fit_pairs, not_registered, register_stars
from ztfxr.arrays.geometry.transform import Kind, Transform, fit_transform, n_coefficients
from ztfxr.arrays.images.image import Image
from ztfxr.arrays.images.stars import star_fwhm
from ztfxr.arrays.polynomials import exponents
from ztfxr.arrays.types import Floats
from ztfxr.errors import AlignmentError, FrameError, InputError, MissingWCSError
from ztfxr.ops.exposure import Exposure, Labeled, MaskChoice, gather
from ztfxr.ops.masks import mask as decode_mask
from ztfxr.ops.masks import own_planes
from ztfxr.ops.positions import Positions, pixel_origin, position_columns
from ztfxr.schema import annotate_all, status_of
from ztfxr.wcs import WCSIndex, has_wcs, pixel_to_sky, sky_to_pixel

__all__ = [
    "Fit",
    "Method",
    "Settings",
    "fit_of",
    "method_for",
    "recognizable",
    "register",
    "sharpest",
    "solve",
    "solve_many",
    "stars_of",
    "transform_of",
    "window",
]

Method = Literal["auto", "wcs", "catalogs", "stars"]

_WCS_TOLERANCE = 5e-4
_WCS_ORDERS = range(1, 9)
_NODES = 20
_MARGIN = 4
_UNRECOGNIZABLE = {"saturated", "spikes", "brightstarhalo", "ghosts", "spillage"}


@dataclass(frozen=True)
class Settings:
    """How to register; the arguments of `register` that say so."""

    method: Method = "auto"
    kind: Kind | None = None
    order: int = 3
    max_rms: float = 0.5
    radius: float = 2.0

    def __post_init__(self) -> None:
        for name, value, choices in (("method", self.method, Method), ("kind", self.kind or "affine", Kind)):
            if value not in get_args(choices):
                raise InputError(f"{name} is one of {', '.join(get_args(choices))}; got {value!r}")
        if self.kind == "polynomial" and not 1 <= self.order <= 8:
            raise InputError(f"order of a polynomial transform is 1 to 8; got {self.order}")


@dataclass(frozen=True)
class Fit:
    """A transform, or none; why it must not be used, as status bits and a message (0 and "" if it may)."""

    transform: Transform | None
    status: int = 0
    message: str = ""

    @classmethod
    def failed(cls, error: FrameError) -> Fit:
        """The fit that an error prevented."""
        return cls(None, *status_of(error))

    def checked(self, max_rms: float) -> Fit:
        """The same, refused where its residuals are too large."""
        if self.transform is None or self.status or not self.transform.rms > max_rms:
            return self
        rms, n = self.transform.rms, self.transform.n_matched
        error = not_registered(
            f"the residuals are {rms:.3f} px rms ({n} stars), more than max_rms = {max_rms:g}; "
            "try another kind or order, or allow more"
        )
        return Fit(self.transform, Fit.failed(error).status, str(error))


def register(
    image: xr.Dataset | xr.DataArray,
    to: xr.Dataset | xr.DataArray,
    *,
    method: Method = "auto",
    kind: Kind | None = None,
    order: int = 3,
    max_rms: float = 0.5,
    catalogs: tuple[Positions, Positions] | None = None,
    radius: float = 2.0,
    mask: MaskChoice = None,
) -> xr.Dataset:
    """Where each pixel of `to` lies on `image`. Computes, where stars must be found (``"stars"``); else reads no pixel.

    Parameters
    ----------
    image, to
        Images (y, x) or Datasets with `sci` and, where it exists, `flags`; for ``"wcs"`` also (..., y, x).
    method
        ``"wcs"``: the pixel-to-pixel map of the two WCS. ``"catalogs"``: pairs of catalog entries. ``"stars"``: stars
        are found in both images and their patterns matched, whatever the shift and rotation. ``"auto"``: catalogs
        where they are given, else WCS where both images have one, else stars.
    kind, order
        ``"shift"``, ``"affine"`` or ``"polynomial"`` of total order `order`. By default affine for stars and
        catalogs; by WCS, the polynomial of the lowest order that is good to 0.0005 px.
    max_rms
        The largest rms of the residuals, in pixels; beyond it the status is ``not_registered``.
    catalogs
        Catalogs of `image` and of `to`, each as for `ztfxr.resolve_positions` with pixel positions `x`, `y` (or names
        that it knows). Entries are paired by `id` where both have it, else by `ra`, `dec` within `radius`, else by
        their pattern, brightest (`flux`) first.
    radius
        Largest distance of a pair on the sky, in arcsec.
    mask
        As in `ztfxr.background`; by default the recommended planes but those that come with bright stars.

    Returns
    -------
    xarray.Dataset
        `coefficients` (axis, term), in pixels, of x' and y' on `image` as polynomials of
        ``u = (x - center_x) / scale``, ``v = (y - center_y) / scale`` on `to`, with `power_u` and `power_v` on `term`;
        both in absolute 0-based pixels.
        Scalars `registration_rms` (two-dimensional, of the fitted stars, or of the polynomial about the WCS),
        `n_matched` (stars; 0 by WCS), `epoch_status` (0 is good) and `message`. Where nothing was found the
        coefficients are NaN. It is what `ztfxr.align` takes as `transform`.

    Raises
    ------
    InputError
        Unknown options, or catalogs without pixel positions.
    MissingWCSError
        ``"wcs"`` was asked of an image without one.

    Notes
    -----
    Patterns: triangles (Groth 1986; Valdes et al. 1995) that vote for a similarity; see
    `ztfxr.arrays.registration.match_patterns`. Fits: least squares with clipping at 3 robust standard deviations.
    """
    settings = Settings(method, kind, order, max_rms, radius)
    return describe(solve(image, to, settings, catalogs=catalogs, mask=mask), settings)


def solve(
    image: xr.Dataset | xr.DataArray,
    to: xr.Dataset | xr.DataArray,
    settings: Settings,
    *,
    catalogs: tuple[Positions, Positions] | None = None,
    mask: MaskChoice = None,
    stars: Stars | FrameError | None = None,
) -> Fit:
    """The fit of `register`; `stars` are those of the target, where they are known."""
    method = method_for(image, to, settings, catalogs)
    if method == "stars":
        return solve_many([image], to, settings, mask=mask, stars=stars)[0]
    try:
        if method == "wcs":
            return Fit(_by_wcs(image, to, settings)).checked(settings.max_rms)
        if catalogs is None:
            raise InputError("method='catalogs' needs catalogs=(of the image, of the target)")
        return Fit(_by_catalogs(catalogs, settings)).checked(settings.max_rms)
    except MissingWCSError:
        raise
    except AlignmentError as error:
        return Fit.failed(error)


def method_for(
    image: xr.Dataset | xr.DataArray,
    to: xr.Dataset | xr.DataArray,
    settings: Settings,
    catalogs: tuple[Positions, Positions] | None = None,
) -> Method:
    """The method that is asked for, or that "auto" stands for here."""
    if settings.method != "auto":
        return settings.method
    return "catalogs" if catalogs is not None else "wcs" if has_wcs(image) and has_wcs(to) else "stars"


# ---- by WCS ----------------------------------------------------------------------------------------------------------


def _by_wcs(image: xr.Dataset | xr.DataArray, to: xr.Dataset | xr.DataArray, settings: Settings) -> Transform:
    """The map from pixels of `to` to pixels of `image` through the sky, as a polynomial fitted on a coarse grid."""
    indexes = [obj.xindexes.get("ra") for obj in (image, to)]
    for index, name in zip(indexes, ("image", "target"), strict=True):
        if not isinstance(index, WCSIndex):
            raise MissingWCSError(f"the {name} has no celestial WCS; register by stars (method='stars') or catalogs")
    try:
        indexes[0].join(indexes[1])  # type: ignore[union-attr]
    except AlignmentError:
        bounds = _overlap(image, to)
    else:
        return Transform.shift()

    def pairs(x: Floats, y: Floats) -> tuple[Floats, Floats]:
        grid = np.column_stack([p.ravel() for p in np.meshgrid(x, y)])
        found = np.column_stack(sky_to_pixel(image, pixel_to_sky(to, grid[:, 0], grid[:, 1])))
        known = np.isfinite(found).all(axis=1)
        return found[known], grid[known]

    node = np.cos(np.pi * (np.arange(_NODES) + 0.5) / _NODES)
    y, x = ((a + b) / 2 + node * (b - a) / 2 for a, b in (bounds[:2], bounds[2:]))
    check = pairs(np.linspace(*bounds[2:], _NODES + 1), np.linspace(*bounds[:2], _NODES + 1))
    return _lowest_order(pairs(x, y), check, bounds, settings)


def _lowest_order(
    nodes: tuple[Floats, Floats], check: tuple[Floats, Floats], bounds: tuple[float, float, float, float], s: Settings
) -> Transform:
    """The kind that was asked for; else the polynomial of the lowest order that is right wherever it is checked."""
    orders: Sequence[int] = _WCS_ORDERS if s.kind is None else [s.order]
    for order in orders:
        fit = fit_transform(*nodes, kind=s.kind or "polynomial", order=order)
        off = np.hypot(*(p - check[0][:, k] for k, p in enumerate(fit(check[1][:, 0], check[1][:, 1]))))
        if off.max() < _WCS_TOLERANCE:
            break
    else:
        if s.kind is None:
            raise not_registered(
                f"no polynomial up to order {order} follows the two WCS; the best is off by {off.max():.2g} px"
            )
    rms = float(np.sqrt((off**2).mean()))
    return Transform(fit.kind, fit.order, fit.coefficients, rms, 0, fit.center, fit.scale, bounds)


def _overlap(image: xr.Dataset | xr.DataArray, to: xr.Dataset | xr.DataArray) -> tuple[float, float, float, float]:
    """The box (y0, y1, x0, x1) of pixels of `to` that `image` covers, and a margin; `AlignmentError` without any."""
    centers, reach = [], 0.0
    for obj in (image, to):
        (y0, y1), (x0, x1) = window(obj)
        sky = pixel_to_sky(obj, [(x0 + x1) / 2, x0, x0, x1, x1], [(y0 + y1) / 2, y0, y1, y0, y1])
        centers.append(sky[0])
        reach += float(sky[0].separation(sky[1:]).deg.max())
    apart = float(centers[0].separation(centers[1]).deg)
    limits = window(to)
    box = [(0.0, -1.0)] * 2
    # Beyond the frames the distortion polynomials are not to be trusted, and may even fold back into them.
    if apart < 1.05 * reach:
        (y0, y1), (x0, x1) = window(image)
        x, y = (p.ravel() for p in np.meshgrid(np.linspace(x0, x1, 9), np.linspace(y0, y1, 9)))
        px, py = sky_to_pixel(to, pixel_to_sky(image, x, y))
        known = np.isfinite(px) & np.isfinite(py)
        if known.any():
            box = [
                (max(low, float(p[known].min()) - _MARGIN), min(high, float(p[known].max()) + _MARGIN))
                for p, (low, high) in zip((py, px), limits, strict=True)
            ]
    if any(b <= a for a, b in box):
        raise not_registered(f"the image does not overlap the target: their centers are {apart:.3f} deg apart")
    return (*box[0], *box[1])


def window(obj: xr.Dataset | xr.DataArray) -> list[tuple[float, float]]:
    """First and last absolute pixel along y and along x."""
    origin = pixel_origin(obj)
    return [(float(origin[d]), float(origin[d] + obj.sizes[d] - 1)) for d in ("y", "x")]


# ---- by catalogs ---------------------------------------------------------------------------------------------------


def _by_catalogs(catalogs: tuple[Positions, Positions], settings: Settings) -> Transform:
    source, target = (_Catalog.of(c) for c in catalogs)
    kind = settings.kind or "affine"
    if source.id is not None and target.id is not None:
        i, j = np.intersect1d(source.id, target.id, return_indices=True)[1:]
    elif source.sky is not None and target.sky is not None:
        i, j = _pairs_on_sky(source.sky, target.sky, settings.radius)
    else:
        return register_stars(source.stars, target.stars, kind=kind, order=settings.order)
    return fit_pairs(source.xy[i], target.xy[j], kind=kind, order=settings.order)


@dataclass(frozen=True)
class _Catalog:
    """Positions in pixels, and what else a catalog knows: names, unit vectors on the sky, fluxes."""

    xy: Floats
    id: NDArray[Any] | None
    sky: Floats | None
    flux: Floats | None

    @classmethod
    def of(cls, positions: Positions) -> _Catalog:
        """The columns that registration uses; `InputError` without pixel positions."""
        columns = position_columns(positions)
        if "x" not in columns:
            raise InputError("a catalog to register by needs pixel positions: columns x and y")
        sky = None
        if "ra" in columns:
            ra, dec = np.deg2rad(columns["ra"]), np.deg2rad(columns["dec"])
            sky = np.column_stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)])
        xy = np.column_stack([columns["x"], columns["y"]])
        return cls(xy, columns.get("id"), sky, _flux(positions))

    @property
    def stars(self) -> Stars:
        """As stars, brightest first; in their order where there is no flux."""
        flux = -np.arange(len(self.xy), dtype=float) if self.flux is None else self.flux
        known = np.flatnonzero(np.isfinite(self.xy).all(axis=1) & np.isfinite(flux))
        order = known[np.argsort(-flux[known], kind="stable")]
        return Stars(self.xy[order, 0], self.xy[order, 1], flux[order], np.ones(len(order), bool))


def _flux(table: Any) -> Floats | None:
    """The column `flux` of a table, mapping or Dataset as floats; None where there is none."""
    names = getattr(table, "colnames", None) or (table.keys() if hasattr(table, "keys") else ())
    known = "flux" in names or (isinstance(table, xr.Dataset) and "flux" in table.variables)
    return np.asarray(np.ma.filled(np.ma.asarray(table["flux"], dtype=float), np.nan)) if known else None


def _pairs_on_sky(source: Floats, target: Floats, radius: float) -> tuple[NDArray[Any], NDArray[Any]]:
    """Entries that are each other's nearest on the sky within `radius` arcsec."""
    known = [np.flatnonzero(np.isfinite(v).all(axis=1)) for v in (source, target)]
    a, b = source[known[0]], target[known[1]]
    if not len(a) or not len(b):
        return known[0][:0], known[1][:0]
    distance, nearest = cKDTree(a).query(b, distance_upper_bound=2 * np.sin(np.deg2rad(radius / 3600) / 2))
    matched = np.flatnonzero(np.isfinite(distance))
    matched = matched[cKDTree(b).query(a)[1][nearest[matched]] == matched]
    return known[0][nearest[matched]], known[1][matched]


# ---- by stars --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Pixels:
    """What a task needs to find the stars of an image; opaque to dask, so that a failed read fails in the task."""

    arrays: tuple[Any, ...]
    saturation: float
    origin: tuple[int, int]

    @classmethod
    def of(cls, obj: Labeled, mask: MaskChoice) -> _Pixels:
        exposure = gather(obj, name="sci", mask=mask)
        image = exposure.image
        if image.ndim != 2:
            raise InputError(
                f"stars are matched in one image (y, x); this one has the dimensions {image.dims}: "
                "align a DataTree of frames, or one epoch at a time"
            )
        level = float(image.coords["saturate"]) if "saturate" in image.coords else np.nan
        arrays = tuple(a.transpose("y", "x").data for a in (image, *recognizable(exposure)))
        origin = exposure.origin
        return cls(arrays, level if np.isfinite(level) else np.inf, (origin["y"], origin["x"]))

    def width(self) -> float:
        """The FWHM of the stars; NaN where there are none, or where the image cannot be read."""
        from dask.base import compute

        try:
            pixels, bad, _ = compute(*self.arrays, scheduler="synchronous")
        except FrameError:
            return np.nan
        return float(star_fwhm(Image.of(pixels, None, bad)))

    def stars(self) -> Stars | FrameError:
        """The stars, or the error that says why there are none."""
        from dask.base import compute

        try:
            pixels, bad, saturated = compute(*self.arrays, scheduler="synchronous")
            return find_stars(pixels, bad, saturated=saturated, saturation=self.saturation, origin=self.origin)
        except FrameError as error:
            return error


def recognizable(exposure: Exposure) -> tuple[xr.DataArray, xr.DataArray]:
    """The pixels in which no star can be recognized, and the saturated ones, in which it can but is not trusted."""
    bad, saturated = exposure.bad_or_flags, xr.zeros_like(exposure.image, dtype=bool)
    if bad.dtype == bool:
        return bad, saturated
    named = {p.name for p in own_planes(bad)}
    saturated = decode_mask(bad, ["saturated"]) if "saturated" in named else saturated
    return decode_mask(bad, **dict.fromkeys(named & _UNRECOGNIZABLE, False)), saturated


def stars_of(obj: Labeled, mask: MaskChoice = None) -> Stars | FrameError:
    """The stars of an image, or the error that says why there are none. Computes."""
    return _Pixels.of(obj, mask).stars()


class _Opaque:
    """Keeps dask from looking into an object."""

    def __init__(self, pixels: _Pixels) -> None:
        self.pixels = pixels


def _stars(opaque: _Opaque) -> Stars | FrameError:
    return opaque.pixels.stars()


def _width(opaque: _Opaque) -> float:
    return opaque.pixels.width()


def sharpest(frames: Mapping[str, xr.Dataset], *, mask: MaskChoice = None) -> str:
    """The name of the frame with the narrowest stars: by the coordinate `seeing` where all have it, else measured."""
    from dask.base import compute
    from dask.delayed import delayed

    known = [float(f.coords["seeing"]) if "seeing" in f.coords else np.nan for f in frames.values()]
    if not np.isfinite(known).all():
        known = compute(*(delayed(_width, pure=False)(_Opaque(_Pixels.of(f, mask))) for f in frames.values()))
    widths = np.asarray(known, dtype=float)
    if not np.isfinite(widths).any():
        raise not_registered("no frame has stars that tell which is the sharpest; name one with to=")
    return list(frames)[int(np.nanargmin(widths))]


def _fit(stars: Stars | FrameError, target: Stars | FrameError, settings: Settings) -> Fit:
    if isinstance(target, FrameError):
        return Fit.failed(not_registered(f"the target cannot be used: {target}"))
    if isinstance(stars, FrameError):
        return Fit.failed(stars)
    try:
        fit = register_stars(stars, target, kind=settings.kind or "affine", order=settings.order)
    except AlignmentError as error:
        return Fit.failed(error)
    return Fit(fit).checked(settings.max_rms)


def solve_many(
    images: Sequence[xr.Dataset | xr.DataArray],
    to: xr.Dataset | xr.DataArray,
    settings: Settings,
    *,
    mask: MaskChoice = None,
    stars: Stars | FrameError | None = None,
) -> list[Fit]:
    """The fits of images to one target by their stars: one task an image, which keeps nothing but its stars."""
    from dask.base import compute
    from dask.delayed import delayed

    found, fit = delayed(_stars, pure=False), delayed(_fit, pure=False)
    target = found(_Opaque(_Pixels.of(to, mask))) if stars is None else stars
    tasks = [fit(found(_Opaque(_Pixels.of(image, mask))), target, settings) for image in images]
    return list(compute(*tasks))


# ---- description -----------------------------------------------------------------------------------------------------


def describe(fit: Fit, settings: Settings) -> xr.Dataset:
    """A fit as a Dataset; see `register`."""
    transform = fit.transform
    if transform is None:
        kind = settings.kind or "affine"
        order = {"shift": 0, "affine": 1}.get(kind, settings.order)
        transform = Transform(kind, order, np.full((2, n_coefficients(kind, order)), np.nan))
    powers = np.array(exponents(transform.order)).reshape(-1, 2)
    out = xr.Dataset(
        {
            "coefficients": (("axis", "term"), transform.coefficients),
            "registration_rms": transform.rms,
            "n_matched": transform.n_matched,
            "epoch_status": np.uint32(fit.status),
            "message": fit.message,
        },
        coords={
            "axis": ["x", "y"],
            "power_u": ("term", powers[:, 0]),
            "power_v": ("term", powers[:, 1]),
        },
        attrs={
            "kind": transform.kind,
            "center_x": transform.center[0],
            "center_y": transform.center[1],
            "scale": transform.scale,
            **({} if transform.bounds is None else {"bounds": list(transform.bounds)}),
        },
    )
    return annotate_all(out)


def transform_of(description: xr.Dataset | Transform) -> Transform:
    """The transform that a Dataset of `register` describes; `AlignmentError` where it describes a failure."""
    if isinstance(description, Transform):
        return description
    fit = fit_of(description)
    if fit.transform is None or fit.status:
        raise not_registered(fit.message or "the transform has no coefficients")
    return fit.transform


def fit_of(description: xr.Dataset) -> Fit:
    """The fit that a Dataset of `register` describes."""
    attrs = description.attrs
    values = np.asarray(description["coefficients"].values, dtype=float)
    order = int(description["power_u"].max())
    transform = Transform(
        attrs["kind"],
        order,
        values,
        float(description["registration_rms"]),
        int(description["n_matched"]),
        (float(attrs["center_x"]), float(attrs["center_y"])),
        float(attrs["scale"]),
        tuple(float(b) for b in attrs["bounds"]) if "bounds" in attrs else None,  # type: ignore[arg-type]
    )
    known = bool(np.isfinite(values).all())
    return Fit(transform if known else None, int(description["epoch_status"]), str(description["message"].values))
