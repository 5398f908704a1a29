"""Images on the pixel grid of another: one image, a stack, or a tree of frames."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ztfxr.arrays.geometry.agreement import Agreement, agreement
from ztfxr.arrays.geometry.registration import Stars, find_stars, not_registered
from ztfxr.arrays.geometry.transform import Kind, Transform
from ztfxr.arrays.images.cosmic_rays import find_cosmic_rays
from ztfxr.arrays.images.image import Image
from ztfxr.arrays.images.resample import Interpolation, Resampled, kernel_table, resample
from ztfxr.arrays.images.stars import saturation_level
from ztfxr.arrays.types import Bools, Floats
from ztfxr.errors import AlignmentError, FrameError, InputError, ShapeError
from ztfxr.ops.exposure import Exposure, MaskChoice, gather
from ztfxr.ops.mapping import IMAGE, bare, map_images
from ztfxr.ops.masks import ResampledPlanes, get_flags, resampled_planes, with_planes
from ztfxr.ops.positions import Positions, pixel_origin
from ztfxr.ops.stacks.register import (
    Fit,
    Method,
    Settings,
    fit_of,
    method_for,
    recognizable,
    sharpest,
    solve,
    solve_many,
    transform_of,
)
from ztfxr.ops.stacks.stack import stack
from ztfxr.schema import REGISTRATION, annotate
from ztfxr.wcs import WCSIndex, assign_wcs

__all__ = ["align", "align_known"]

_STARS, _TABLE = 1000, ("star", "axis")
# Far from every pixel: what is resampled by it lies outside.
_NOWHERE = Transform.shift(-1e9, -1e9)


def align(
    image: xr.Dataset | xr.DataArray | xr.DataTree,
    to: xr.Dataset | xr.DataArray | str,
    *,
    transform: xr.Dataset | Transform | None = None,
    method: Method = "auto",
    kind: Kind | None = None,
    order: int = 3,
    max_rms: float = 0.5,
    interpolation: Interpolation = "lanczos3",
    catalogs: tuple[Positions, Positions] | None = None,
    mask: MaskChoice = None,
    check: bool = True,
    cosmic_rays: bool = True,
) -> xr.Dataset:
    """Resample an image, or a tree of frames as a stack, onto the pixel grid of another image.

    Lazy where the transform is known or comes from the WCS, which is checked where the pixels are resampled. Computes
    the transform where stars must be found: each frame is read once for it, one frame a task; the resampled pixels stay
    lazy where the input is.

    Parameters
    ----------
    image
        An image (..., y, x), a Dataset with `sci` and, where they exist, `variance` and `flags` or `mask`; or a
        DataTree of frames, as `ztfxr.open_epochs` or `ztfxr.open_frames` gives it.
    to
        The image with the grid. For a tree also the name of a frame, or ``"best"``: the sharpest frame, by its
        coordinate `seeing`, else by the stars that it holds.
    transform
        What `ztfxr.register` gave; by default it is found here.
    method, kind, order, max_rms, catalogs
        As in `ztfxr.register`.
    interpolation
        ``"lanczos3"``, or ``"spline"`` (cubic): slower, and better where the pixel scales differ by several per cent.
    mask
        Boolean, True where bad; by default the recommended planes of `flags`. False: only what is not finite is bad.
    check
        Whether the stars of both images check what their WCS say. Where the stars prove it wrong, the shift is
        corrected, and rotation, scale and curvature too where there are stars enough; where many stars of both agree
        nowhere, the frame is refused. Where there are too few, the WCS stands, and `n_matched` is 0.
    cosmic_rays
        Whether pixels that are sharper than the PSF, as `ztfxr.cosmic_rays` finds them, are bad before they are
        resampled; afterwards a ray is spread over its surroundings, and none finds it.

    Returns
    -------
    xarray.Dataset
        `sci` (float32, in DN per pixel of the new grid: flux is conserved), `variance` where there was one, and `flags`
        (or `mask`, for an image without flags) on the `y`, `x`, `ra`, `dec` of `to`; the other coordinates are the
        image's. NaN where a bad pixel or the outside carries a weight beyond 0.01; there `flags` has the planes of the
        bad pixels, or `outside`, or else `nan`; rays have the plane `spikes` where the flags have it. Coordinates:
        `n_cosmic_rays` (pixels of the image), `registration_rms` (pixels; of the stars, or without any
        of the polynomial about the WCS), `n_matched`, and where the WCS is checked `registration_shift_x` and
        `registration_shift_y` (pixels; where stars lie, less where the WCS says) and `epoch_status`.

        Of a tree: dims (time, y, x), earliest first, and these coordinates with `message` and `frame` on `time`. A
        frame that cannot be used or registered keeps its place, NaN, with a status that says why.

    Raises
    ------
    AlignmentError
        The image cannot be registered, its residuals are larger than `max_rms`, or its stars are not where its WCS
        says; of lazy pixels the last is a status.
    FrameError
        No frame of a tree can be used and registered; its message names the first reason.
    InputError, MissingWCSError, ChunkError

    Notes
    -----
    Lanczos kernels with their first moment restored, on a table of 1024 phases; values are multiplied by the Jacobian
    of the transform, variances summed with squared weights (the covariance of neighbors is not kept). See
    `ztfxr.arrays.images.resample`. How stars check a WCS: `ztfxr.arrays.geometry.agreement`.

    Examples
    --------
    >>> made = ztfxr.testing.make_scene((200, 200), n_epochs=2, n_stars=60)
    >>> frames = made.epochs()
    >>> stack = ztfxr.align(frames, to="epoch_0000")
    >>> stack.sci.dims, "registration_rms" in stack.coords
    (('time', 'y', 'x'), True)
    """
    settings = Settings(method, kind, order, max_rms)
    kernel_table(interpolation)
    if isinstance(image, xr.DataTree):
        if transform is not None or catalogs is not None:
            raise InputError("the frames of a tree have one transform each: align them one by one to give it")
        return _align_tree(image, to, settings, _How(interpolation, mask, check, cosmic_rays))
    if isinstance(to, str):
        raise InputError(f"to={to!r} names a frame of a tree; here it must be an image")
    if transform is not None:
        fit = Fit(transform) if isinstance(transform, Transform) else fit_of(transform)
        transform_of(transform)
        fit = fit.checked(max_rms)
        return _resampled(image, to, _usable_fit(fit), _How(interpolation, mask, cosmic_rays=cosmic_rays))
    how = _How(interpolation, mask, check, cosmic_rays)
    return align_known(image, to, settings, catalogs=catalogs, how=how)


@dataclass(frozen=True)
class _How:
    """How pixels are resampled, whether their WCS is checked, and whether cosmic rays are left out."""

    interpolation: Interpolation = "lanczos3"
    mask: MaskChoice = None
    check: bool = False
    cosmic_rays: bool = True


def align_known(
    image: xr.Dataset | xr.DataArray,
    to: xr.Dataset | xr.DataArray,
    settings: Settings,
    *,
    catalogs: tuple[Positions, Positions] | None = None,
    how: _How = _How(check=True),
    stars: Stars | FrameError | None = None,
) -> xr.Dataset:
    """`align` of one image to another whose `stars` may be known."""
    by_wcs = method_for(image, to, settings, catalogs) == "wcs"
    fit = solve(image, to, settings, catalogs=catalogs, mask=how.mask, stars=None if by_wcs else stars)
    against = _Against.of(to, how.mask, settings.max_rms, stars) if by_wcs and how.check else None
    return _resampled(image, to, _usable_fit(fit), how, against)


def _usable_fit(fit: Fit) -> Transform:
    if fit.transform is None or fit.status:
        raise not_registered(fit.message)
    return fit.transform


@dataclass(frozen=True)
class _Against:
    """The stars of the target (star, axis), by which an image's WCS is checked, and the scatter that is allowed."""

    stars: xr.DataArray
    max_rms: float

    @classmethod
    def of(
        cls,
        to: xr.Dataset | xr.DataArray,
        mask: MaskChoice,
        max_rms: float,
        stars: Stars | FrameError | None = None,
    ) -> _Against | None:
        """As lazy as the target; None where that is no single image."""
        exposure = gather(to, name="sci", mask=mask)
        if exposure.image.ndim != 2:
            return None
        if stars is not None:
            table = np.full((_STARS, 4), np.nan) if isinstance(stars, FrameError) else stars.table(_STARS)
            return cls(xr.DataArray(table, dims=_TABLE), max_rms)
        found = map_images(
            _table_of_stars,
            _look(exposure),
            {"star_position": _TABLE},
            sizes={"star": _STARS, "axis": 4},
            options={"origin": (exposure.origin["y"], exposure.origin["x"])},
        )
        return cls(bare(found["star_position"]), max_rms)


def _look(exposure: Exposure) -> dict[str, xr.DataArray | None]:
    """What finding stars needs, by name."""
    bad, saturated = recognizable(exposure)
    found = {"image": exposure.image, "bad": bad, "saturated": saturated, "saturation": exposure.saturation}
    return {name: None if array is None else bare(array) for name, array in found.items()}


def _table_of_stars(*, origin: tuple[int, int], **look: Any) -> Floats:
    return _stars_in(look, origin).table(_STARS)


def _stars_in(look: Mapping[str, Any], origin: tuple[int, int]) -> Stars:
    """The stars of an image; none where it has no sky to find them on."""
    saturation = saturation_level(look["saturation"])
    try:
        return find_stars(look["image"], look["bad"], saturated=look["saturated"], saturation=saturation, origin=origin)
    except AlignmentError:
        return Stars.of_table(np.empty((0, 4)))


def _align_tree(
    tree: xr.DataTree,
    to: xr.Dataset | xr.DataArray | str,
    settings: Settings,
    how: _How,
) -> xr.Dataset:
    nodes = {name: node.to_dataset() for name, node in tree.children.items()}
    if not nodes:
        raise InputError("the tree holds no frames; open some with ztfxr.open_epochs or ztfxr.open_frames")
    if isinstance(to, str):
        name = to if to != "best" or to in nodes else sharpest(_usable_frames(nodes), mask=how.mask)
        if name not in nodes:
            raise InputError(f"the tree has no frame {name!r}; it has {', '.join(list(nodes)[:5])}, ..., and 'best'")
        to = nodes[name]
    fits = _fits(nodes, to, settings, how.mask)
    checked = [n for n in nodes if how.check and fits[n].status == 0 and method_for(nodes[n], to, settings) == "wcs"]
    against = _Against.of(to, how.mask, settings.max_rms) if checked else None
    aligned = {name: _epoch(nodes[name], to, fits[name], how, against if name in checked else None) for name in nodes}
    return stack(xr.DataTree.from_dict(aligned))


def _fits(
    nodes: dict[str, xr.Dataset], to: xr.Dataset | xr.DataArray, settings: Settings, mask: MaskChoice
) -> dict[str, Fit]:
    """The fit of every frame; those by stars are computed together."""
    fits: dict[str, Fit] = {}
    by_stars: list[str] = []
    for name, frame in nodes.items():
        try:
            _usable(frame)
            if method_for(frame, to, settings) == "stars":
                by_stars.append(name)
            else:
                fits[name] = solve(frame, to, settings)
        except FrameError as error:
            fits[name] = Fit.failed(error)
        if frame.attrs.get("status"):
            fits[name] = Fit(None, int(frame.attrs["status"]), str(frame.attrs.get("message", "")))
    by_stars = [name for name in by_stars if name not in fits]
    if by_stars:
        fits |= dict(zip(by_stars, solve_many([nodes[n] for n in by_stars], to, settings, mask=mask), strict=True))
    return fits


def _usable_frames(nodes: dict[str, xr.Dataset]) -> dict[str, xr.Dataset]:
    found = {k: f for k, f in nodes.items() if set(IMAGE) <= set(f.dims) and not f.attrs.get("status")}
    if not found:
        name, frame = next(iter(nodes.items()))
        raise FrameError(f"none of the {len(nodes)} frames can be used; {name}: {frame.attrs.get('message', '')}")
    return found


def _usable(frame: xr.Dataset) -> None:
    if not set(IMAGE) <= set(frame.dims) and not frame.attrs.get("status"):
        raise ShapeError(f"the frame holds no image (y, x); it has the dimensions {tuple(map(str, frame.dims))}")


def _epoch(
    frame: xr.Dataset, to: xr.Dataset | xr.DataArray, fit: Fit, how: _How, against: _Against | None
) -> xr.Dataset:
    """One frame on the grid; a frame that failed as a Dataset without pixels that says why."""
    if fit.status == 0 and fit.transform is not None:
        try:
            return _resampled(frame, to, fit.transform, how, against)
        except AlignmentError as error:
            fit = Fit.failed(error)
    scalars = {k: v.variable for k, v in frame.coords.items() if v.ndim == 0}
    attrs = {"status": fit.status, "message": fit.message}
    none = {"n_cosmic_rays": annotate(xr.DataArray(0), "n_cosmic_rays").variable} if how.cosmic_rays else {}
    return xr.Dataset(coords={**scalars, **_quality(fit.transform), **none}, attrs=attrs)


def _quality(transform: Transform | None) -> dict[str, xr.Variable]:
    """What is known of a registration, as scalar coordinates."""
    values = (np.nan, 0) if transform is None else (transform.rms, transform.n_matched)
    arrays = {k: xr.DataArray(v) for k, v in zip(REGISTRATION, (*values, np.nan, np.nan), strict=True)}
    return {k: annotate(v, k).variable for k, v in arrays.items()}


def _grid(to: xr.Dataset | xr.DataArray) -> xr.Dataset:
    """The pixel and sky labels of an image, and nothing else."""
    origin = pixel_origin(to)
    grid = xr.Dataset(coords={d: np.arange(origin[d], origin[d] + to.sizes[d]) for d in IMAGE})
    index = to.xindexes.get("ra")
    return assign_wcs(grid, index.transform.cards) if isinstance(index, WCSIndex) else grid


def _resampled(
    obj: xr.Dataset | xr.DataArray,
    to: xr.Dataset | xr.DataArray,
    transform: Transform,
    how: _How,
    against: _Against | None = None,
) -> xr.Dataset:
    """`obj` on the grid of `to`, one image a task; lazy where it is."""
    exposure, grid = gather(obj, name="sci", mask=how.mask), _grid(to)
    image, owner = exposure.image, obj if isinstance(obj, xr.Dataset) else xr.Dataset()
    flags = with_planes(get_flags(owner), "outside", "nan") if "flags" in owner else None
    inputs = {"sci": image, "mask": exposure.bad, "variance": owner.get("variance"), "flags": flags}
    names = ["sci", *(["variance"] if "variance" in owner else []), "mask" if flags is None else "flags"]
    look = _look(exposure) if against is not None else {}
    origins = (pixel_origin(obj), pixel_origin(to))
    out = map_images(
        _resample,
        {
            **{k: None if a is None else bare(a) for k, a in inputs.items()},
            "look": {k: a for k, a in look.items() if k != "image"} or None,
            "target_stars": None if against is None else against.stars,
            "saturation": exposure.saturation,
        },
        [
            *names,
            *(["n_cosmic_rays"] if how.cosmic_rays else []),
            *([] if against is None else [*REGISTRATION, "epoch_status"]),
        ],
        sizes={d: grid.sizes[d] for d in IMAGE},
        options={
            "planes": resampled_planes(flags),
            "transform": transform,
            "shape": (grid.sizes["y"], grid.sizes["x"]),
            "origin": (origins[0]["y"], origins[0]["x"]),
            "target_origin": (origins[1]["y"], origins[1]["x"]),
            "interpolation": how.interpolation,
            "max_rms": np.inf if against is None else against.max_rms,
            "cosmic_rays": how.cosmic_rays,
        },
    )
    if against is not None:
        _require_agreement(found_status := out["epoch_status"], image)
        out["epoch_status"] = found_status if exposure.status is None else found_status | exposure.status
    kept = {k: v.variable for k, v in image.coords.items() if not {*IMAGE, "ra", "dec"} & {k, *v.dims}}
    described = {k: annotate(v, k, unit=exposure.unit) for k, v in out.items()}
    rays = {k: described.pop(k).variable for k in ("n_cosmic_rays",) if k in described}
    numbers = {k: described.pop(k).variable for k in (*REGISTRATION, "epoch_status") if k in described}
    if flags is not None:
        described["flags"].attrs |= flags.attrs
    found = grid.assign(described).assign_coords({**kept, **(numbers or _quality(transform)), **rays})
    found.attrs = {**{k: v for k, v in obj.attrs.items() if k != "wcs_header"}, **grid.attrs}
    return found


def _require_agreement(status: xr.DataArray, image: xr.DataArray) -> None:
    """Raise `AlignmentError` where a single image in memory is refused."""
    if status.ndim == 0 and status.chunks is None and image.chunks is None and int(status):
        raise not_registered(
            "the stars of both images do not lie where their WCS say, nor in a common pattern: is a WCS wrong, or does "
            "one show another field? check=False aligns by the WCS alone"
        )


def _resample(
    sci: NDArray[Any],
    mask: Bools,
    variance: NDArray[Any] | None,
    flags: NDArray[Any] | None,
    *,
    planes: ResampledPlanes,
    transform: Transform,
    look: Mapping[str, Any] | None,
    target_stars: Floats | None,
    saturation: Floats | None,
    max_rms: float,
    cosmic_rays: bool,
    **options: Any,
) -> dict[str, Any]:
    numbers: dict[str, Any] = {}
    if cosmic_rays:
        rays = find_cosmic_rays(Image.of(sci, variance, mask), saturation=saturation_level(saturation))
        mask = mask | rays
        flags = None if flags is None else np.where(rays, flags | np.uint16(planes.spikes), flags)
        numbers["n_cosmic_rays"] = int(rays.sum())
    if target_stars is not None and look is not None:
        try:
            found = _agreement({**look, "image": sci}, Stars.of_table(target_stars), transform, max_rms, options)
        except AlignmentError as error:
            transform, found = _NOWHERE, Agreement(transform)
            numbers["epoch_status"] = Fit.failed(error).status
        else:
            transform = found.transform
        numbers = {**_numbers(found), **numbers}
    out: Resampled = resample(
        sci,
        variance=variance,
        bad=mask,
        flags=flags,
        spread=planes.spread,
        outside=planes.outside,
        transform=transform,
        **options,
    )
    explained = planes.explained(out.flags, out.bad)
    return {"sci": out.image, "variance": out.variance, "mask": out.bad, "flags": explained, **numbers}


def _agreement(
    look: Mapping[str, Any], target: Stars, transform: Transform, max_rms: float, options: Mapping[str, Any]
) -> Agreement:
    """What the stars say of a transform; `AlignmentError` where they refuse it, or a correction scatters too much."""
    origins = (options["origin"], options["target_origin"])
    windows = [
        (float(y), float(y + ny - 1), float(x), float(x + nx - 1))
        for (y, x), (ny, nx) in zip(origins, (look["image"].shape, options["shape"]), strict=True)
    ]
    found = agreement(_stars_in(look, origins[0]), target, transform, (windows[0], windows[1]))
    if found.transform is not transform and found.rms > max_rms:
        raise not_registered(f"stars scatter by {found.rms:.3f} px about the corrected WCS, more than {max_rms:g}")
    return found


def _numbers(found: Agreement) -> dict[str, Any]:
    """An agreement by the names of the schema."""
    rms = found.rms if found.n_matched else found.transform.rms
    return {**dict(zip(REGISTRATION, (rms, found.n_matched, *found.shift), strict=True)), "epoch_status": 0}
