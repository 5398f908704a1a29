"""Sky background, noise and clean images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ztfxr.arrays.images.noise import photon_variance, sky_variance
from ztfxr.arrays.images.sky import METHODS, STATISTICS, SkyOptions, deferred_maps, sky_maps, sky_scatter, without_sky
from ztfxr.arrays.types import Bools, Floats
from ztfxr.errors import InputError
from ztfxr.ops._apply import IMAGE, apply_images
from ztfxr.ops.masks import get_flags, resolve_planes, source_mask
from ztfxr.ops.masks import mask as decode_mask
from ztfxr.schema import annotate, annotate_all

__all__ = ["background", "clean", "get_image", "get_mask", "noise", "variance"]

MaskChoice: TypeAlias = xr.DataArray | Literal[False] | None
Level: TypeAlias = xr.DataArray | xr.Dataset | float | Literal[False] | None
Method: TypeAlias = Literal["sep", "median", "none"]
Statistic: TypeAlias = Literal["mad", "std", "rms"]

_SOURCE_PLANES = ("sexsources", "psfsources")


def get_image(obj: xr.Dataset | xr.DataArray, name: str = "sci") -> xr.DataArray:
    """The image of `obj`: itself, or its variable `name`."""
    if isinstance(obj, xr.DataArray):
        return obj
    if name not in obj:
        raise InputError(f"the Dataset has no variable {name!r}; it has {', '.join(map(str, obj.data_vars)) or 'none'}")
    return obj[name]


def get_mask(obj: xr.Dataset | xr.DataArray, choice: MaskChoice) -> xr.DataArray:
    """The boolean mask for `obj`: the one given, else the recommended planes of its `flags`, else nothing masked."""
    image = get_image(obj)
    if isinstance(choice, xr.DataArray):
        if choice.dtype != bool:
            raise InputError(
                f"a mask is boolean, True where bad; this one is {choice.dtype}: decode bit planes with ztfxr.mask"
            )
        return choice
    if choice is None and isinstance(obj, xr.Dataset):
        if "flags" in obj:
            return decode_mask(obj)
        if "mask" in obj:
            return obj["mask"]
    return xr.zeros_like(image, dtype=bool)


def _pair(value: int | tuple[int, int], name: str) -> tuple[int, int]:
    pair = (value, value) if isinstance(value, int) else (int(value[0]), int(value[1]))
    if min(pair) < 1:
        raise InputError(f"{name} must be at least 1 pixel; got {value}")
    return pair


def _options(method: str, box_size: int | tuple[int, int], filter_size: int | tuple[int, int]) -> SkyOptions:
    if method not in METHODS:
        raise InputError(f"the sky is measured by method {', '.join(map(repr, METHODS))}; got {method!r}")
    planes = resolve_planes(None, {})
    return SkyOptions(method, _pair(box_size, "box_size"), _pair(filter_size, "filter_size"), planes)


def _bad_pixels(obj: xr.Dataset | xr.DataArray, choice: MaskChoice) -> xr.DataArray:
    """`get_mask`, but the flags themselves where it would decode them: array code does that on its way."""
    if choice is None and isinstance(obj, xr.Dataset) and "flags" in obj:
        return get_flags(obj["flags"])
    return get_mask(obj, choice)


def background(
    obj: xr.Dataset | xr.DataArray,
    *,
    mask: MaskChoice = None,
    method: Method = "sep",
    box_size: int | tuple[int, int] = 64,
    filter_size: int | tuple[int, int] = 3,
) -> xr.Dataset:
    """The sky background and its rms, one image at a time; lazy.

    Parameters
    ----------
    obj
        An image (..., y, x), or a Dataset with `sci` and `flags`.
    mask
        Boolean, True where bad. By default the recommended planes of ``obj.flags``; False uses every finite pixel.
    method
        ``"sep"``: a mesh of boxes. ``"median"``: the median of all good pixels, with the standard deviation that their
        median absolute deviation gives. ``"none"``: zero, with the same scatter, for an image that has no sky left.
    box_size, filter_size
        Boxes of the mesh and of its median filter, in pixels of the frame and in boxes: an integer or (y, x).

    Returns
    -------
    xarray.Dataset
        `background` and `background_rms`, float32, dims of the image and in its unit. An image without a
        good pixel gives NaN.

    Notes
    -----
    `sep.Background` (Barbary 2016; Bertin & Arnouts 1996): clipped mean or mode per box, median-filtered, bicubic
    spline. Sources are not masked for it, the clipping deals with them; ``mask=bad | ztfxr.source_mask(ds, sources)``
    masks them too.
    """
    image, bad = get_image(obj), _bad_pixels(obj, mask)
    maps = apply_images(
        deferred_maps,
        image,
        bad,
        outputs={"background": IMAGE, "background_rms": IMAGE},
        kwargs={"options": _options(method, box_size, filter_size)},
        fresh=True,
    )
    return annotate_all(xr.Dataset({k: _like(v, image) for k, v in maps.items()}))


def clean(
    obj: xr.Dataset | xr.DataArray,
    *,
    mask: MaskChoice = None,
    background: Level = None,
    method: Method = "sep",
    box_size: int | tuple[int, int] = 64,
    filter_size: int | tuple[int, int] = 3,
) -> xr.DataArray:
    """The image minus its background, NaN where it is bad or not finite; lazy.

    Parameters
    ----------
    obj
        An image (..., y, x), or a Dataset with `sci` and `flags`.
    mask
        Boolean, True where bad. By default the recommended planes of ``obj.flags``; False uses every finite pixel.
    background
        What to subtract: a map, a number, the Dataset of `ztfxr.background`, or False for nothing. Measured by default.
    method, box_size, filter_size
        How it is measured, as in `ztfxr.background`.

    Returns
    -------
    xarray.DataArray
        `sci`, float32, dims and unit of the image.
    """
    image = get_image(obj)
    if background is None:
        options = {"options": _options(method, box_size, filter_size)}
        inputs = [image, _bad_pixels(obj, mask)]
        out = apply_images(without_sky, *inputs, outputs={"sci": IMAGE}, kwargs=options, fresh=True)["sci"]
    else:
        level = background["background"] if isinstance(background, xr.Dataset) else background
        out = _elementwise(_minus, image, 0.0 if level is False else level, get_mask(obj, mask))
    kept = {k: v for k, v in image.attrs.items() if k != "long_name"}
    return annotate(_like(out, image), "sci", **kept, long_name="science image, background subtracted and masked")


def _like(out: xr.DataArray, image: xr.DataArray) -> xr.DataArray:
    """`out` with its dimensions in the order of the image's; others, of a stack of masks, stay in front."""
    return out if out.dims == image.dims else out.transpose(..., *image.dims)


def _elementwise(function: Callable[..., NDArray[np.float32]], *arrays: Any) -> xr.DataArray:
    """Pixel by pixel, whatever the chunks; on the overlap of the images, as in xarray's arithmetic."""
    found: xr.DataArray = xr.apply_ufunc(
        function, *arrays, dask="parallelized", output_dtypes=[np.float32], join="inner"
    )
    return found


def _minus(image: NDArray[Any], level: NDArray[Any] | float, bad: Bools) -> NDArray[np.float32]:
    difference = np.subtract(image, level).astype(np.float32, copy=False)
    shape = np.broadcast_shapes(difference.shape, bad.shape)
    out = difference if difference.shape == shape else np.broadcast_to(difference, shape).copy()
    np.copyto(out, np.nan, where=bad | ~np.isfinite(out))
    return np.asarray(out)


_background = background


def noise(
    obj: xr.Dataset | xr.DataArray,
    *,
    statistic: Statistic = "mad",
    mask: MaskChoice = None,
    sources: xr.Dataset | MaskChoice = None,
    method: Method = "sep",
    box_size: int | tuple[int, int] = 64,
    filter_size: int | tuple[int, int] = 3,
) -> xr.DataArray:
    """One number per image for the noise of a sky pixel; lazy.

    Parameters
    ----------
    obj
        An image (..., y, x), or a Dataset with `sci` and `flags`.
    statistic
        Of `ztfxr.clean`, outside the sources: ``"mad"``, the standard deviation that the median absolute deviation of a
        Gaussian gives, or ``"std"``, the standard deviation itself. Or ``"rms"``, the global rms of the background: the
        median rms of the boxes of its mesh, which needs no sources.
    mask
        As in `ztfxr.background`.
    sources
        What to leave out for "mad" and "std": a catalog (its ellipses, by `ztfxr.source_mask`), a boolean image, or
        False for nothing. By default the planes `sexsources` and `psfsources` of ``obj.flags``.
    method, box_size, filter_size
        How the background is measured, as in `ztfxr.background`.

    Returns
    -------
    xarray.DataArray
        `sky_noise`, float64, in the image's unit, on its leading dimensions; NaN for an image without a good pixel.

    Raises
    ------
    InputError
        Nothing says where the sources are.

    See Also
    --------
    ztfxr.background : the noise of the sky as a map, `background_rms`.
    ztfxr.variance : the variance of every pixel, sources included.
    """
    if statistic not in STATISTICS:
        raise InputError(f"statistic is one of {', '.join(map(repr, STATISTICS))}; got {statistic!r}")
    image, bad = get_image(obj), _bad_pixels(obj, mask)
    options = _options(method, box_size, filter_size)
    hidden = xr.DataArray(False) if statistic == "rms" else _source_pixels(obj, image, sources)
    found = apply_images(
        sky_scatter,
        image,
        bad,
        hidden,
        inputs=[IMAGE, IMAGE, IMAGE if hidden.ndim else ()],
        outputs={"sky_noise": ()},
        kwargs={"statistic": statistic, "options": options},
    )
    return annotate(found["sky_noise"], "sky_noise")


def _source_pixels(
    obj: xr.Dataset | xr.DataArray, image: xr.DataArray, sources: xr.Dataset | MaskChoice
) -> xr.DataArray:
    """True where a source is."""
    if isinstance(sources, xr.Dataset):
        return source_mask(obj, sources)
    if sources is None:
        if not isinstance(obj, xr.Dataset) or "flags" not in obj:
            raise InputError(
                "nothing says where the sources are: give sources= as a catalog or a boolean image, or sources=False"
            )
        return decode_mask(obj, _SOURCE_PLANES)
    return get_mask(image, sources)


def variance(
    obj: xr.Dataset | xr.DataArray,
    *,
    method: Literal["background", "photon"] = "background",
    mask: MaskChoice = None,
    gain: xr.DataArray | float | None = None,
    readnoise: xr.DataArray | float | None = None,
    background: xr.Dataset | None = None,
    box_size: int | tuple[int, int] = 64,
) -> xr.DataArray:
    """The variance of the noise per pixel; lazy.

    Parameters
    ----------
    obj
        An image (..., y, x), or a Dataset with `sci` and `flags`.
    method
        ``"background"``: the measured rms² of the sky plus max(image − background, 0) / gain; right wherever the sky
        can be measured. The read noise is in the rms. ``"photon"``: max(image, median) / gain + (readnoise / gain)²,
        for images that still hold their sky; needs no sky of its own and so suits small or crowded cut-outs.
    mask, box_size
        As in `ztfxr.background`, where the sky is measured.
    gain, readnoise
        In electron/DN and electron; by default the coordinates of these names.
    background
        `background` and `background_rms` as `ztfxr.background` gives them; measured by default.

    Returns
    -------
    xarray.DataArray
        `variance` in DN², float32, dims of the image; NaN where the image is.

    Raises
    ------
    InputError
        The gain, or the read noise where it is needed, is not known.

    Notes
    -----
    To use a noise model of your own, put it into the Dataset: ``ds["variance"] = (("y", "x"), my_variance)``, in DN²,
    never a standard deviation. What needs the noise of a Dataset takes its `variance` where there is one; functions of
    an image alone take ``variance=``. A sky of your own goes in by `background`: a Dataset with `background` and
    `background_rms`, maps or numbers.
    """
    image = get_image(obj)
    gain = _detector(image, gain, "gain", "electron/DN")
    if method == "photon":
        inputs = [image, gain, _detector(image, readnoise, "readnoise", "electron")]
        out = apply_images(_photon, *inputs, inputs=[IMAGE, (), ()], outputs={"variance": IMAGE})["variance"]
    elif background is None:
        options = _options("sep", box_size, 3)
        inputs = [image, _bad_pixels(obj, mask), gain]
        out = apply_images(
            _above_sky,
            *inputs,
            inputs=[IMAGE, IMAGE, ()],
            outputs={"variance": IMAGE},
            kwargs={"options": options},
            fresh=True,
        )["variance"]
    else:
        out = _elementwise(sky_variance, image, background["background"], background["background_rms"], gain)
    return annotate(_like(out, image), "variance")


def _above_sky(image: NDArray[Any], bad: Bools, gain: NDArray[Any], *, options: SkyOptions) -> NDArray[np.float32]:
    return sky_variance(image, *sky_maps(image, bad, options=options), gain)


def _detector(image: xr.DataArray, given: xr.DataArray | float | None, name: str, unit: str) -> xr.DataArray:
    """A detector constant: the one given, else the coordinate; without its own coordinates."""
    if given is None:
        if name not in image.coords or _nowhere_known(image.coords[name]):
            raise InputError(f"no {name} is known: give {name}= in {unit}, or a coordinate {name!r}")
        given = image.coords[name]
    return given.reset_coords(drop=True) if isinstance(given, xr.DataArray) else xr.DataArray(float(given))


def _nowhere_known(values: xr.DataArray) -> bool:
    """Whether values in memory are all NaN; values that are lazy may be known."""
    return values.chunks is None and not bool(np.isfinite(values.values).any())


def _photon(image: NDArray[Any], gain: NDArray[Any], readnoise: NDArray[Any]) -> Floats:
    return photon_variance(image, gain=gain, readnoise=readnoise)
