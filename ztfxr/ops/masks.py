"""Bit planes to boolean masks, names and fractions; source ellipses to masks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np
import xarray as xr
from dask.base import is_dask_collection
from numpy.typing import ArrayLike, NDArray

from ztfxr.arrays.images import bits
from ztfxr.arrays.types import Bools, Floats
from ztfxr.errors import InputError
from ztfxr.ops.mapping import IMAGE, map_images
from ztfxr.ops.positions import pixel_origin
from ztfxr.schema import MASK_PLANES, RECOMMENDED_PLANES, Plane, annotate, annotate_all, flag_attrs, planes_to_bits
from ztfxr.wcs import Angles, drop_wcs, sky_to_pixel

__all__ = [
    "ResampledPlanes",
    "explain",
    "get_flags",
    "mask",
    "mask_fractions",
    "mask_planes",
    "own_planes",
    "recommended_bits",
    "resampled_planes",
    "resolve_planes",
    "source_mask",
    "with_planes",
]

F = TypeVar("F", xr.DataArray, xr.Variable)

_BITS = 16
_KNOWN = frozenset(p.name for p in MASK_PLANES)
_ELLIPSE = ("x_centroid", "y_centroid", "semimajor_axis", "semiminor_axis", "orientation")


def get_flags(obj: xr.Dataset | xr.DataArray) -> xr.DataArray:
    """The bit planes of `obj`: itself, or its variable `flags`; `InputError` where it has none."""
    if isinstance(obj, xr.DataArray):
        if obj.dtype.kind not in "iu":
            raise InputError(
                f"mask planes are integers; {obj.name or 'the array'} is {obj.dtype}: call this on ds.flags"
            )
        return obj
    if "flags" not in obj:
        raise InputError("the Dataset has no variable 'flags'; open the frame with its mask image")
    return obj["flags"]


def resolve_planes(
    flags: xr.DataArray, planes: Iterable[str] | int | None, keywords: Mapping[str, bool] | None = None
) -> int:
    """Bits of a choice among the flags' own planes: names or an integer, and keywords that add or remove.

    By default the choice is `recommended_bits`.
    """
    own = own_planes(flags)
    if isinstance(planes, bool | str):
        planes = [str(planes)]
    if planes is None:
        chosen = recommended_bits(flags)
    else:
        chosen = int(planes) if isinstance(planes, int | np.integer) else planes_to_bits(planes, own)
    for name, wanted in (keywords or {}).items():
        value = planes_to_bits([name], own)
        chosen = chosen | value if wanted else chosen & ~value
    return chosen


def recommended_bits(flags: xr.DataArray) -> int:
    """The bits of `flags` that mark bad pixels, as an integer, by the meanings that the flags carry.

    The attribute `bad_planes` names them; without it they are IPAC's. Raises `InputError` where the flags have planes
    of another survey and nothing says which of them are bad.
    """
    own = own_planes(flags)
    if "bad_planes" in flags.attrs:
        return planes_to_bits(str(flags.attrs["bad_planes"]).split(), own)
    strange = [p.name for p in own if p.name not in _KNOWN]
    if strange:
        raise InputError(
            f"the flags have planes that ztfxr does not know to be good or bad: {', '.join(strange)}; give a boolean "
            "mask=, for example ztfxr.mask(ds, [names]), or name the bad ones in ds.flags.attrs['bad_planes']"
        )
    return planes_to_bits([p.name for p in own if p.name in RECOMMENDED_PLANES], own)


def own_planes(flags: xr.DataArray | xr.Variable) -> tuple[Plane, ...]:
    """The planes of `flags` by their CF attributes `flag_masks` and `flag_meanings`; IPAC's where they carry none."""
    if not {"flag_masks", "flag_meanings"} <= set(flags.attrs):
        return MASK_PLANES
    names = str(flags.attrs["flag_meanings"]).split()
    values = [int(v) for v in np.atleast_1d(flags.attrs["flag_masks"])]
    if len(names) != len(values) or any(v < 1 or v & (v - 1) for v in values):
        raise InputError(f"flag_masks and flag_meanings name one bit each; got {values} and {names}")
    known = {p.name: p for p in MASK_PLANES}
    planes = [Plane(n, v.bit_length() - 1, n) for n, v in zip(names, values, strict=True)]
    return tuple(known[p.name] if p.name in known and known[p.name].bit == p.bit else p for p in planes)


def with_planes(flags: F, *names: str) -> F:
    """`flags` whose meanings have the named planes of ztfxr too: at ztfxr's own bit, or at the highest free one.

    Padding sets `outside` and resampling `nan`, in flags of any survey. Raises `InputError` where no bit is free.
    """
    own = list(own_planes(flags))
    free = sorted(set(range(_BITS)) - {p.bit for p in own})
    missing = set(names) - {p.name for p in own}
    added: list[Plane] = [p for p in MASK_PLANES if p.name in missing]
    for plane in added:
        if not free:
            raise InputError(
                f"the flags use all of bits 0 to {_BITS - 1}, so none is left to mark {plane.name!r}: drop planes first"
            )
        bit = plane.bit if plane.bit in free else free[-1]
        free.remove(bit)
        own.append(Plane(plane.name, bit, plane.meaning))
    out = flags.copy(deep=False)
    if added:
        out.attrs = {**flags.attrs, **flag_attrs(own)}
        if "bad_planes" in flags.attrs:
            out.attrs["bad_planes"] = " ".join([str(flags.attrs["bad_planes"]), *(p.name for p in added)])
    return out


@dataclass(frozen=True)
class ResampledPlanes:
    """The bits that resampling asks of flags: those that bad pixels spread, and those for no pixel, for no value and
    for cosmic rays (0 where the flags have no such plane).
    """

    spread: int
    outside: int
    nan: int
    spikes: int

    def explained(self, flags: NDArray[np.integer], bad: Bools) -> NDArray[np.uint16]:
        """The flags, with the plane `nan` where a pixel is bad for a reason that no spread plane gives."""
        unexplained = bad & ((flags & self.spread) == 0)
        return np.where(unexplained, flags | np.uint16(self.nan), flags).astype(np.uint16)


def resampled_planes(flags: xr.DataArray | None) -> ResampledPlanes:
    """The bits of flags that `with_planes` gave `outside` and `nan`; IPAC's where there are no flags."""
    given = xr.DataArray(np.uint16(0)) if flags is None else flags
    own = own_planes(given)
    if max(p.bit for p in own) >= _BITS:
        raise InputError(f"flags are resampled as {_BITS} bits, but have planes beyond; drop them and give mask=")
    outside, nan = (planes_to_bits([name], own) for name in ("outside", "nan"))
    spikes = planes_to_bits(["spikes"], own) if any(p.name == "spikes" for p in own) else 0
    return ResampledPlanes(recommended_bits(given), outside, nan, spikes)


def mask(
    obj: xr.Dataset | xr.DataArray,
    /,
    planes: Iterable[str] | int | None = None,
    *,
    grow: float = 0.0,
    by_epoch: bool = False,
    **keywords: bool,
) -> xr.DataArray:
    """A boolean mask, True where the pixel is bad; lazy.

    Parameters
    ----------
    obj
        The bit planes (``ds.flags``, (..., y, x) integers), or a Dataset with them.
    planes
        Names of planes, as the flags' own attribute ``flag_meanings`` lists them, or their bits as an integer. By
        default those that the attribute ``bad_planes`` names; without it IPAC's recommended set: every plane but
        `sexsources` and `psfsources`, which mark detected sources (6141), and ztfxr's own `outside`.
    grow
        Dilate the mask by a disk of this radius in pixels.
    by_epoch
        Leave out, epoch by epoch, the planes that mean nothing at the time of the exposure (coordinate `mjd`):
        `spillage` after MJD 58779. By default every plane that was chosen counts at every epoch, which is IPAC's
        template to the bit.
    **keywords
        ``tracks=True``, ``brightstarhalo=False``, ... add a plane to the set or take it away.

    Returns
    -------
    xarray.DataArray
        Boolean, same dimensions; ``attrs["planes"]`` names what was chosen.

    Raises
    ------
    InputError
        An unknown plane, flags that are not integers, `by_epoch` without a time, or flags of another survey of which
        nothing says which planes are bad.

    Examples
    --------
    >>> ds = ztfxr.open_quadrant(ztfxr.samples.sample_path())
    >>> bad = ztfxr.mask(ds)
    >>> saturated = ztfxr.mask(ds, ["saturated"], grow=2)
    >>> bad.dtype, saturated.dtype
    (dtype('bool'), dtype('bool'))
    """
    flags = get_flags(obj)
    chosen = resolve_planes(flags, planes, keywords)
    names = [p.name for p in own_planes(flags) if p.value & chosen]
    wanted = _in_use(flags, chosen) if by_epoch else np.int64(chosen)
    if grow > 0:
        # A stack of numbers is an input like the flags; one number is the same for every image.
        inputs = {"flags": flags} | ({"wanted": wanted} if isinstance(wanted, xr.DataArray) else {})
        options = {"radius": grow} | ({} if isinstance(wanted, xr.DataArray) else {"wanted": wanted})
        out = map_images(_grown, inputs, ["mask"], options=options, fresh=True)["mask"].transpose(*flags.dims)
    else:
        out = xr.apply_ufunc(_decoded, flags, wanted, dask="parallelized", output_dtypes=[bool])
    return annotate(out, "mask", planes=" ".join(names))


def _decoded(flags: NDArray[np.integer], wanted: NDArray[np.int64] | np.int64) -> Bools:
    """Where any of the wanted planes is set, which may be others at each epoch."""
    if np.ndim(wanted) == 0:
        return bits.any_bit(flags, int(wanted))
    held = (wanted & np.iinfo(flags.dtype).max).astype(flags.dtype)
    return np.asarray(np.bitwise_and(flags, held) != 0)


def _grown(flags: NDArray[np.integer], wanted: NDArray[np.int64] | np.int64, radius: float) -> Bools:
    return bits.grow(_decoded(flags, wanted), radius)


def _in_use(flags: xr.DataArray, chosen: int) -> xr.DataArray:
    """The bits of `chosen` that mean something at each epoch."""
    mjd = flags.coords.get("mjd")
    if mjd is None or (mjd.chunks is None and not bool(np.isfinite(mjd).all())):
        raise InputError("by_epoch=True needs the time of every exposure: give a coordinate 'mjd' (MJD, UTC)")
    times = mjd.reset_coords(drop=True)
    wanted: xr.DataArray = xr.full_like(times, chosen, dtype=np.int64)
    for plane in (p for p in own_planes(flags) if np.isfinite(p.until_mjd)):
        wanted = wanted.where(times <= plane.until_mjd, wanted & ~plane.value)
    return wanted


def mask_planes(obj: xr.Dataset | xr.DataArray, /, planes: Iterable[str] | int | None = None) -> xr.Dataset:
    """One boolean variable per plane, True where the plane is set; lazy.

    Parameters
    ----------
    obj
        The bit planes (``ds.flags``, (..., y, x) integers), or a Dataset with them.
    planes
        Names of planes, as the flags' own attribute ``flag_meanings`` lists them, or their bits as an integer; by
        default all.

    Returns
    -------
    xarray.Dataset
        A variable for each plane, of the flags' dimensions. The attributes say what the plane means (`long_name`), its
        value (`flag_mask`), and the MJD after which it means nothing (`until_mjd`), where there is one. Planes that
        masks of early 2018 do not have are False in them everywhere: nobody looked.

    Raises
    ------
    InputError
        An unknown plane, or flags that are not integers.
    """
    flags = get_flags(obj)
    out = {}
    for plane in _chosen(flags, planes):
        found = xr.apply_ufunc(_decoded, flags, np.int64(plane.value), dask="parallelized", output_dtypes=[bool])
        out[plane.name] = found.variable.copy(deep=False)
        out[plane.name].attrs = _plane_attrs(plane)
    return xr.Dataset(out, flags.coords)


def _chosen(flags: xr.DataArray, planes: Iterable[str] | int | None) -> list[Plane]:
    own = own_planes(flags)
    wanted = -1 if planes is None else resolve_planes(flags, planes)
    return [p for p in own if p.value & wanted]


def _plane_attrs(plane: Plane) -> dict[str, Any]:
    until = {"until_mjd": plane.until_mjd} if np.isfinite(plane.until_mjd) else {}
    return {"long_name": plane.meaning, "flag_mask": plane.value, **until}


def mask_fractions(obj: xr.Dataset | xr.DataArray, /, planes: Iterable[str] | int | None = None) -> xr.DataArray:
    """The fraction of pixels in which each plane is set, image by image; lazy.

    Parameters
    ----------
    obj
        The bit planes (``ds.flags``, (..., y, x) integers), or a Dataset with them.
    planes
        Names of planes, as the flags' own attribute ``flag_meanings`` lists them, or their bits as an integer; by
        default all.

    Returns
    -------
    xarray.DataArray
        `mask_fraction` (..., plane), float64, with the names of the planes as the coordinate `plane` and what they mean
        as `meaning`. Of all pixels, those that a stamp was padded with among them; NaN for an image without pixels.

    Raises
    ------
    InputError
        An unknown plane, or flags that are not integers.
    """
    flags = get_flags(obj)
    chosen = _chosen(flags, planes)
    found = map_images(
        bits.fractions,
        {"flags": flags},
        ["mask_fraction"],
        sizes={"plane": len(chosen)},
        options={"values": tuple(p.value for p in chosen)},
    )["mask_fraction"]
    labels = {"plane": [p.name for p in chosen], "meaning": ("plane", [p.meaning for p in chosen])}
    return annotate(found.assign_coords(labels), "mask_fraction")


def explain(
    obj: xr.Dataset | xr.DataArray | int,
    x: ArrayLike | None = None,
    y: ArrayLike | None = None,
    *,
    ra: Angles | None = None,
    dec: Angles | None = None,
) -> xr.DataArray:
    """Why pixels are flagged: the names of the planes that are set. Computes.

    Parameters
    ----------
    obj
        The bit planes (``ds.flags``, (..., y, x) integers), or a Dataset with them; or one integer, which needs no
        position: ``explain(257)`` is "tracks saturated".
    x, y
        Absolute 0-based FITS pixel positions, numbers or 1-D; the pixel that contains each is looked at.
    ra, dec
        Sky positions (ICRS) in place of pixels: degrees, `Quantity`, or text such as ``"03:51:36"``.

    Returns
    -------
    xarray.DataArray
        `planes` (..., [source]), text: names separated by spaces, empty where no plane is set; ``"outside"`` off the
        image and where the position is not finite. The coordinates `x`, `y` are the pixels.

    Raises
    ------
    InputError
        No position, or flags that are not integers.
    MissingWCSError
        A sky position on an image without a celestial WCS.

    Examples
    --------
    >>> ztfxr.explain(257).item()
    'tracks saturated'
    """
    if isinstance(obj, int | np.integer):
        return annotate(xr.DataArray(_names(obj, MASK_PLANES)), "planes")
    flags = get_flags(obj)
    if x is None and y is None and ra is not None and dec is not None:
        x, y = sky_to_pixel(obj, ra=ra, dec=dec)
    elif x is None or y is None or ra is not None or dec is not None:
        raise InputError("give positions as x= and y= in pixels, or as ra= and dec= in degrees")
    px, py = np.broadcast_arrays(np.asarray(x, dtype=float), np.asarray(y, dtype=float))
    if px.ndim > 1:
        raise InputError(f"positions are numbers or 1-D; got shape {px.shape}")
    values, inside = _at(flags, px, py)
    names = np.vectorize(partial(_names, planes=own_planes(flags)), otypes=[str])(values.values)
    text = values.copy(data=names).where(inside, "outside")
    return annotate_all(annotate(text, "planes").to_dataset())["planes"]


def _names(value: int, planes: Iterable[Plane]) -> str:
    """The planes that are set in an integer, separated by spaces; bits that no plane has by their number."""
    known = {p.bit: p.name for p in planes}
    return " ".join(known.get(bit, f"bit{bit}") for bit in range(int(value).bit_length()) if int(value) >> bit & 1)


def _at(flags: xr.DataArray, x: Floats, y: Floats) -> tuple[xr.DataArray, xr.DataArray]:
    """The flags at positions, or of the nearest pixels, in memory; and where the position is on a pixel."""
    if 0 in (flags.sizes["y"], flags.sizes["x"]):
        raise InputError("the image has no pixel to look at: y or x is empty")
    origin, dims = pixel_origin(flags), ("source",) * x.ndim
    known = np.isfinite(x) & np.isfinite(y)
    pixels = {d: np.floor(np.where(known, p, -1.0) + 0.5).astype(np.int64) for d, p in (("y", y), ("x", x))}
    nearest = {d: np.clip(p - origin[d], 0, flags.sizes[d] - 1) for d, p in pixels.items()}
    inside = known & (nearest["y"] + origin["y"] == pixels["y"]) & (nearest["x"] + origin["x"] == pixels["x"])
    unlabeled = drop_wcs(flags).drop_vars(IMAGE, errors="ignore")
    found = unlabeled.isel({d: xr.DataArray(i, dims=dims) for d, i in nearest.items()}).compute().astype(np.int64)
    return found.assign_coords({d: (dims, p) for d, p in pixels.items()}), xr.DataArray(inside, dims=dims)


def source_mask(obj: xr.Dataset | xr.DataArray, sources: xr.Dataset, *, scale: float = 5.0) -> xr.DataArray:
    """A boolean mask, True where a pixel lies in the ellipse of a source; lazy where `obj` or `sources` is.

    Parameters
    ----------
    obj
        The image (..., y, x), or a Dataset with it: its grid counts, not its pixels.
    sources
        A catalog on `source`, or on (..., source) with NaN where an epoch has fewer, as `ztfxr.sources` gives it:
        `x_centroid`, `y_centroid` (absolute 0-based FITS pixels), `semimajor_axis`, `semiminor_axis` (1-σ axes in
        pixels), `orientation` (degrees, from +x towards +y).
    scale
        Axes of the ellipse in units of those of the source. At 5 the scatter of what is left has settled on ZTF images.

    Returns
    -------
    xarray.DataArray
        Boolean, (y, x), after the leading dimensions of `sources`; one mask serves all epochs where the catalog has
        no time. Sources that are not finite are passed over; every other one on the image masks a pixel at least.

    Raises
    ------
    InputError
        Columns are missing, or the scale is not positive.

    Notes
    -----
    `sep.mask_ellipse` (Barbary 2016). Combine it with the bad pixels by ``|``.
    """
    if not scale > 0:
        raise InputError(f"scale is positive; got {scale}")
    columns, origin, sizes = _ellipse_columns(sources), pixel_origin(obj), {d: obj.sizes[d] for d in IMAGE}
    if is_dask_collection(obj):
        columns = {k: c.chunk(dict.fromkeys(c.dims, 1) | {"source": -1}) for k, c in columns.items()}
    out = map_images(
        _ellipses,
        columns,
        ["source_mask"],
        sizes=sizes,
        options={"origin": (origin["y"], origin["x"]), "scale": scale, "shape": (sizes["y"], sizes["x"])},
        fresh=True,
    )["source_mask"]
    return annotate(out.assign_coords(_grid(obj)), "source_mask")


def _ellipse_columns(sources: xr.Dataset) -> dict[str, xr.DataArray]:
    """The columns of a catalog that make ellipses, with the labels of the other dimensions."""
    missing = [name for name in _ELLIPSE if name not in sources or "source" not in sources[name].dims]
    if missing:
        raise InputError(
            f"an ellipse needs {', '.join(_ELLIPSE)} on 'source'; the catalog has no such {', '.join(missing)}"
        )
    return {name: sources[name].reset_coords(drop=True).drop_vars("source", errors="ignore") for name in _ELLIPSE}


def _grid(obj: xr.Dataset | xr.DataArray) -> xr.Coordinates:
    """The coordinates of the pixels alone."""
    others = [k for k, c in obj.coords.items() if not c.dims or not set(c.dims) <= set(IMAGE)]
    return obj.coords.to_dataset().drop_vars(others).coords


def _ellipses(
    x_centroid: Floats,
    y_centroid: Floats,
    semimajor_axis: Floats,
    semiminor_axis: Floats,
    orientation: Floats,
    *,
    origin: tuple[int, int],
    scale: float,
    shape: tuple[int, int],
) -> Bools:
    axes = scale * semimajor_axis, scale * semiminor_axis
    return bits.ellipses(x_centroid - origin[1], y_centroid - origin[0], *axes, orientation, shape=shape)
