"""Sky background, noise and clean images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ztfxr.arrays.images.noise import photon_variance, sky_variance
from ztfxr.arrays.images.sky import STATISTICS, Method, SkyOptions, deferred_maps, sky_scatter, without_sky
from ztfxr.arrays.options import require_number
from ztfxr.arrays.types import Bools
from ztfxr.errors import AlignmentError, InputError
from ztfxr.ops.exposure import Exposure, Labeled, MaskChoice, gather
from ztfxr.ops.mapping import aligned, map_images
from ztfxr.ops.masks import mask as decode_mask
from ztfxr.ops.masks import source_mask
from ztfxr.schema import annotate, annotate_all

__all__ = ["Level", "SkyOptions", "background", "clean", "less_sky", "noise", "sky_of", "variance"]

Level: TypeAlias = xr.DataArray | xr.Dataset | SkyOptions | float | Literal[False] | None
Statistic: TypeAlias = Literal["mad", "std", "rms"]

_MAPS = ("background", "background_rms")
_SOURCE_PLANES = ("sexsources", "psfsources")


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
        `background` and `background_rms`, float32, dims of the image and in its unit. Where no box of the mesh is at
        least half good, as in a stamp that is mostly padding, they are the median's. An image without a good pixel
        gives NaN.

    Notes
    -----
    `sep.Background` (Barbary 2016; Bertin & Arnouts 1996): clipped mean or mode per box, median-filtered, bicubic
    spline. Sources are not masked for it, the clipping deals with them; ``mask=bad | ztfxr.source_mask(ds, sources)``
    masks them too.

    Examples
    --------
    >>> ds = ztfxr.open_quadrant(ztfxr.samples.sample_path())
    >>> sky = ztfxr.background(ds)
    >>> list(sky.data_vars)
    ['background', 'background_rms']
    """
    sky = SkyOptions(method, box_size, filter_size)
    return sky_of(gather(obj, name="sci", mask=mask), sky)


def sky_of(exposure: Exposure, sky: SkyOptions) -> xr.Dataset:
    """The sky of a gathered image; see `background`."""
    maps = map_images(
        deferred_maps,
        {"image": exposure.image, "bad": exposure.bad_or_flags},
        _MAPS,
        options={"options": sky, "planes": exposure.bad_bits},
        fresh=True,
    )
    found = xr.Dataset({k: _like(v, exposure.image) for k, v in maps.items()})
    return annotate_all(found, unit=exposure.unit)


def less_sky(exposure: Exposure, sky: SkyOptions) -> xr.DataArray:
    """A gathered image minus the level of its sky, NaN where it is bad."""
    inputs = {"image": exposure.image, "bad": exposure.bad_or_flags}
    options = {"options": sky, "planes": exposure.bad_bits}
    return map_images(without_sky, inputs, ["sci"], options=options, fresh=True)["sci"]


def clean(obj: Labeled, *, mask: MaskChoice = None, background: Level = None) -> xr.DataArray:
    """The image minus its background, NaN where it is bad or not finite; lazy.

    Parameters
    ----------
    obj
        An image (..., y, x), or a Dataset with `sci` and `flags`.
    mask
        Boolean, True where bad. By default the recommended planes of ``obj.flags``; False uses every finite pixel.
    background
        The sky to subtract: a map, a number, the Dataset of `ztfxr.background`, or False for none. By default it is
        measured; ``ztfxr.SkyOptions(box_size=32)`` says how.

    Returns
    -------
    xarray.DataArray
        `sci`, float32, dims and unit of the image.

    Examples
    --------
    >>> ztfxr.clean(ds, background=ztfxr.SkyOptions("median"))  # doctest: +SKIP
    """
    exposure = gather(obj, name="sci", mask=mask)
    image = exposure.image
    if background is None or isinstance(background, SkyOptions):
        out = less_sky(exposure, background or SkyOptions())
    else:
        level = background["background"] if isinstance(background, xr.Dataset) else background
        if level is not False and not isinstance(level, xr.DataArray):
            require_number("background", level)
        out = _elementwise(_minus, image, 0.0 if level is False else level, exposure.bad)
    kept = {k: v for k, v in image.attrs.items() if k != "long_name"}
    return annotate(_like(out, image), "sci", **kept, long_name="science image, background subtracted and masked")


def _like(out: xr.DataArray, image: xr.DataArray) -> xr.DataArray:
    """`out` with its dimensions in the order of the image's; others, of a stack of masks, stay in front."""
    return out if out.dims == image.dims else out.transpose(..., *image.dims)


def _elementwise(function: Callable[..., NDArray[np.float32]], *arrays: Any) -> xr.DataArray:
    """Pixel by pixel, whatever the chunks; on the overlap of the images, as in xarray's arithmetic.

    Raises `AlignmentError` where there is none, or where labels do not say which pixels belong together.
    """
    labeled = [a for a in arrays if isinstance(a, xr.DataArray)]
    for array in labeled[1:]:
        twice = [d for d in array.dims if d in array.coords and np.unique(array[d].values).size < array.sizes[d]]
        if twice:
            raise AlignmentError(f"a map has one label along {twice[0]!r} twice; which pixels it is for cannot be told")
    try:
        found: xr.DataArray = xr.apply_ufunc(
            function, *arrays, dask="parallelized", output_dtypes=[np.float32], join="inner"
        )
    except ValueError as error:
        raise AlignmentError(
            f"the sky and the image do not go together ({error}); cut both to the same pixels"
        ) from error
    lost = [d for d, n in found.sizes.items() if n == 0 and all(a.sizes.get(d, 1) for a in labeled)]
    if lost:
        raise AlignmentError(f"the sky and the image share no label along {', '.join(map(repr, lost))}")
    return found


def _minus(image: NDArray[Any], level: NDArray[Any] | float, bad: Bools) -> NDArray[np.float32]:
    difference = np.subtract(image, level).astype(np.float32, copy=False)
    shape = np.broadcast_shapes(difference.shape, bad.shape)
    out = difference if difference.shape == shape else np.broadcast_to(difference, shape).copy()
    np.copyto(out, np.nan, where=bad | ~np.isfinite(out))
    return np.asarray(out)


def noise(
    obj: Labeled,
    *,
    statistic: Statistic = "mad",
    mask: MaskChoice = None,
    sources: xr.Dataset | MaskChoice = None,
    background: SkyOptions | None = None,
) -> xr.DataArray:
    """One number per image for the noise of a sky pixel; lazy.

    Parameters
    ----------
    obj
        An image (..., y, x), or a Dataset with `sci` and `flags`.
    statistic
        ``"mad"``: the standard deviation that the median absolute deviation of a Gaussian gives, over the pixels of
        `ztfxr.clean` outside the sources. ``"std"``: their standard deviation itself. ``"rms"``: the global rms of the
        background, the median rms of the boxes of its mesh, which needs no sources.
    mask
        Boolean, True where bad: as in `ztfxr.background`.
    sources
        Pixels to leave out for "mad" and "std": a catalog (its ellipses, by `ztfxr.source_mask`), a boolean image, or
        False for none. By default the planes `sexsources` and `psfsources` of ``obj.flags``.
    background
        How the sky is measured: `ztfxr.SkyOptions`.

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
    exposure = gather(obj, name="sci", mask=mask)
    hidden = None if statistic == "rms" else _source_pixels(exposure, sources)
    found = map_images(
        sky_scatter,
        {"image": exposure.image, "bad": exposure.bad_or_flags, "sources": hidden},
        {"sky_noise": ()},
        options={"statistic": statistic, "options": background or SkyOptions(), "planes": exposure.bad_bits},
    )
    return annotate(found["sky_noise"], "sky_noise", unit=exposure.unit)


def _source_pixels(exposure: Exposure, sources: xr.Dataset | MaskChoice) -> xr.DataArray | None:
    """True where a source is; None where no pixel is left out."""
    owner = exposure.owner
    if isinstance(sources, xr.Dataset):
        return source_mask(owner, sources)
    if sources is None:
        if not isinstance(owner, xr.Dataset) or "flags" not in owner:
            raise InputError(
                "nothing says where the sources are: give sources= as a catalog or a boolean image, or sources=False"
            )
        return decode_mask(owner["flags"], _SOURCE_PLANES)
    return None if sources is False else gather(exposure.image, mask=sources).bad


def variance(
    obj: Labeled,
    *,
    method: Literal["background", "photon"] = "background",
    mask: MaskChoice = None,
    gain: xr.DataArray | float | None = None,
    readnoise: xr.DataArray | float | None = None,
    background: xr.Dataset | SkyOptions | None = None,
) -> xr.DataArray:
    """The variance of the noise per pixel; lazy.

    Parameters
    ----------
    obj
        An image (..., y, x), or a Dataset with `sci` and `flags`.
    method
        ``"background"``: the measured rms² of the sky plus max(image − background, 0) / gain; right wherever the sky
        can be measured. The read noise is in the rms; the slope of a steep sky is not. ``"photon"``:
        max(image, median) / gain + (readnoise / gain)²; measures no sky and so suits small or crowded cut-outs. Where
        the sky was subtracted, the scatter of the pixels below zero stands for its noise.
    mask
        Boolean, True where bad: as in `ztfxr.background`, where the sky is measured.
    gain, readnoise
        Electrons per unit of the image, and electrons. By default the coordinates of these names; an image in electrons
        has a gain of 1.
    background
        `background` and `background_rms` as `ztfxr.background` gives them. By default they are measured;
        ``ztfxr.SkyOptions(box_size=32)`` says how.

    Returns
    -------
    xarray.DataArray
        `variance` in the square of the image's unit, float32, dims of the image; NaN where the image is.

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
    exposure = gather(obj, name="sci", mask=mask)
    image = exposure.image
    known_gain = _given(gain, exposure.gain, image, "gain", "electron/DN")
    if method not in ("background", "photon"):
        raise InputError(f"method is 'background' or 'photon'; got {method!r}")
    if method == "photon" and background is not None:
        raise InputError("background= has no effect with method='photon', which takes the sky from the image's level")
    if method == "photon":
        electrons = _given(readnoise, exposure.readnoise, image, "readnoise", "electron")
        inputs = {"image": image, "gain": known_gain, "readnoise": electrons}
        out = map_images(photon_variance, inputs, ["variance"])["variance"]
    elif background is None or isinstance(background, SkyOptions):
        return exposure.modeled_variance(gain=known_gain, sky=background)
    else:
        out = _elementwise(sky_variance, image, background["background"], background["background_rms"], known_gain)
    return annotate(_like(out, image), "variance", unit=exposure.unit)


def _given(
    given: xr.DataArray | float | None, known: xr.DataArray | None, image: xr.DataArray, name: str, unit: str
) -> xr.DataArray:
    """A detector constant without coordinates, in the image's order: the one that was given, else the image's own."""
    if given is None:
        if known is None:
            raise InputError(f"no {name} is known: give {name}= in {unit}, or a coordinate {name!r}")
        return known
    if isinstance(given, xr.DataArray):
        return aligned(given, image, name)
    require_number(name, given)
    return xr.DataArray(float(given))
