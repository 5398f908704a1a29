"""Images on the pixel grid of another: one image, a stack, or a tree of frames."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ztfxr.arrays.geometry.registration import not_registered
from ztfxr.arrays.geometry.transform import Kind, Transform
from ztfxr.arrays.images.resample import Interpolation, Resampled, kernel_table, resample
from ztfxr.arrays.types import Bools
from ztfxr.errors import FrameError, InputError, ShapeError
from ztfxr.ops.exposure import MaskChoice, gather
from ztfxr.ops.mapping import IMAGE, bare, map_images
from ztfxr.ops.masks import ResampledPlanes, get_flags, resampled_planes, with_planes
from ztfxr.ops.positions import Positions, pixel_origin
from ztfxr.ops.stacks.register import Fit, Method, Settings, fit_of, sharpest, solve, solve_many, transform_of
from ztfxr.ops.stacks.stack import stack
from ztfxr.schema import annotate
from ztfxr.wcs import WCSIndex, assign_wcs, has_wcs

__all__ = ["align"]


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
) -> xr.Dataset:
    """Resample an image, or a tree of frames as a stack, onto the pixel grid of another image.

    Lazy where the transform is known or comes from the WCS. Computes the transform where stars must be found: each
    frame is read once for it, one frame a task; the resampled pixels stay lazy where the input is.

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

    Returns
    -------
    xarray.Dataset
        `sci` (float32, in DN per pixel of the new grid: flux is conserved), `variance` where there was one, and `flags`
        (or `mask`, for an image without flags) on the `y`, `x`, `ra`, `dec` of `to`; the other coordinates are the
        image's. NaN where a bad pixel or the outside carries a weight beyond 0.01; there `flags` has the planes of the
        bad pixels, or `outside`, or else `nan`. `registration_rms` (pixels) and `n_matched` are coordinates.

        Of a tree: dims (time, y, x), earliest first, and `epoch_status`, `message`, `frame`, `registration_rms`,
        `n_matched` on `time`. A frame that cannot be used or registered keeps its place, NaN, with the reason.

    Raises
    ------
    AlignmentError
        The image cannot be registered, or its residuals are larger than `max_rms`.
    FrameError
        No frame of a tree can be used and registered; its message names the first reason.
    InputError, MissingWCSError, ChunkError

    Notes
    -----
    Lanczos kernels with their first moment restored, on a table of 1024 phases; values are multiplied by the Jacobian
    of the transform, variances summed with squared weights (the covariance of neighbors is not kept). See
    `ztfxr.arrays.images.resample`.
    """
    settings = Settings(method, kind, order, max_rms)
    kernel_table(interpolation)
    if isinstance(image, xr.DataTree):
        if transform is not None or catalogs is not None:
            raise InputError("the frames of a tree have one transform each: align them one by one to give it")
        return _align_tree(image, to, settings, interpolation, mask)
    if isinstance(to, str):
        raise InputError(f"to={to!r} names a frame of a tree; here it must be an image")
    if transform is not None:
        fit = Fit(transform) if isinstance(transform, Transform) else fit_of(transform)
        transform_of(transform)
        fit = fit.checked(max_rms)
    else:
        fit = solve(image, to, settings, catalogs=catalogs, mask=mask)
    if fit.transform is None or fit.status:
        raise not_registered(fit.message)
    return _resampled(image, to, fit.transform, interpolation, mask)


def _align_tree(
    tree: xr.DataTree,
    to: xr.Dataset | xr.DataArray | str,
    settings: Settings,
    interpolation: Interpolation,
    mask: MaskChoice,
) -> xr.Dataset:
    nodes = {name: node.to_dataset() for name, node in tree.children.items()}
    if not nodes:
        raise InputError("the tree holds no frames; open some with ztfxr.open_epochs or ztfxr.open_frames")
    if isinstance(to, str):
        name = to if to != "best" or to in nodes else sharpest(_usable_frames(nodes), mask=mask)
        if name not in nodes:
            raise InputError(f"the tree has no frame {name!r}; it has {', '.join(list(nodes)[:5])}, ..., and 'best'")
        to = nodes[name]
    fits = _fits(nodes, to, settings, mask)
    aligned = {name: _epoch(nodes[name], to, fits[name], interpolation, mask) for name in nodes}
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
            if settings.method == "stars" or (settings.method == "auto" and not (has_wcs(frame) and has_wcs(to))):
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
    frame: xr.Dataset, to: xr.Dataset | xr.DataArray, fit: Fit, interpolation: Interpolation, mask: MaskChoice
) -> xr.Dataset:
    """One frame on the grid; a frame that failed as a Dataset without pixels that says why."""
    if fit.status == 0 and fit.transform is not None:
        return _resampled(frame, to, fit.transform, interpolation, mask)
    scalars = {k: v.variable for k, v in frame.coords.items() if v.ndim == 0}
    attrs = {"status": fit.status, "message": fit.message}
    return xr.Dataset(coords={**scalars, **_quality(fit.transform)}, attrs=attrs)


def _quality(transform: Transform | None) -> dict[str, xr.Variable]:
    """What is known of a registration, as scalar coordinates."""
    values = (np.nan, 0) if transform is None else (transform.rms, transform.n_matched)
    arrays = {k: xr.DataArray(v) for k, v in zip(("registration_rms", "n_matched"), values, strict=True)}
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
    interpolation: Interpolation,
    mask: MaskChoice,
) -> xr.Dataset:
    """`obj` on the grid of `to`, one image a task; lazy where it is."""
    exposure, grid = gather(obj, name="sci", mask=mask), _grid(to)
    image, owner = exposure.image, obj if isinstance(obj, xr.Dataset) else xr.Dataset()
    flags = with_planes(get_flags(owner), "outside", "nan") if "flags" in owner else None
    inputs = {"sci": image, "mask": exposure.bad, "variance": owner.get("variance"), "flags": flags}
    names = ["sci", *(["variance"] if "variance" in owner else []), "mask" if flags is None else "flags"]
    origins = (pixel_origin(obj), pixel_origin(to))
    out = map_images(
        _resample,
        {k: None if a is None else bare(a) for k, a in inputs.items()},
        names,
        sizes={d: grid.sizes[d] for d in IMAGE},
        options={
            "planes": resampled_planes(flags),
            "transform": transform,
            "shape": (grid.sizes["y"], grid.sizes["x"]),
            "origin": (origins[0]["y"], origins[0]["x"]),
            "target_origin": (origins[1]["y"], origins[1]["x"]),
            "interpolation": interpolation,
        },
    )
    kept = {k: v.variable for k, v in image.coords.items() if not {*IMAGE, "ra", "dec"} & {k, *v.dims}}
    described = {k: annotate(v, k, unit=exposure.unit) for k, v in out.items()}
    if flags is not None:
        described["flags"].attrs |= flags.attrs
    found = grid.assign(described).assign_coords({**kept, **_quality(transform)})
    found.attrs = {**{k: v for k, v in obj.attrs.items() if k != "wcs_header"}, **grid.attrs}
    return found


def _resample(
    sci: NDArray[Any],
    mask: Bools,
    variance: NDArray[Any] | None,
    flags: NDArray[Any] | None,
    *,
    planes: ResampledPlanes,
    **options: Any,
) -> dict[str, NDArray[Any]]:
    out: Resampled = resample(
        sci, variance=variance, bad=mask, flags=flags, spread=planes.spread, outside=planes.outside, **options
    )
    explained = planes.explained(out.flags, out.bad)
    return {"sci": out.image, "variance": out.variance, "mask": out.bad, "flags": explained}
