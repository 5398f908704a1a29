"""Sky background, noise and clean images."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import sep
import xarray as xr
from numpy.typing import NDArray

from ztfxr.arrays.noise import photon_variance
from ztfxr.errors import InputError
from ztfxr.ops._apply import IMAGE, apply_images
from ztfxr.ops.masks import mask as decode_mask
from ztfxr.schema import annotate, annotate_all

__all__ = ["background", "clean", "get_image", "get_mask", "variance"]

MaskChoice = xr.DataArray | Literal[False] | None


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


def _sep_background(
    image: NDArray[np.floating[Any]], bad: NDArray[np.bool_], *, box: tuple[int, int], filter_size: tuple[int, int]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Background and rms of one image by sep; NaN pixels are masked, an image without a good pixel gives NaN."""
    bad = bad | ~np.isfinite(image)
    if bad.all():
        empty = np.full(image.shape, np.nan, dtype=np.float32)
        return empty, empty
    pixels = np.ascontiguousarray(np.where(bad, 0.0, image), dtype=np.float32)
    found = sep.Background(pixels, mask=bad, bh=box[0], bw=box[1], fh=filter_size[0], fw=filter_size[1])
    return found.back(dtype=np.float32), found.rms(dtype=np.float32)


def _pair(value: int | tuple[int, int], name: str) -> tuple[int, int]:
    pair = (value, value) if isinstance(value, int) else (int(value[0]), int(value[1]))
    if min(pair) < 1:
        raise InputError(f"{name} must be at least 1 pixel; came {value}")
    return pair


def background(
    obj: xr.Dataset | xr.DataArray,
    *,
    mask: MaskChoice = None,
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
    box_size, filter_size
        Boxes of the mesh and of its median filter, in pixels and boxes: an integer or (y, x).

    Returns
    -------
    xarray.Dataset
        `background` and `background_rms`, float32, dims of the image and in its unit. An image without a
        good pixel gives NaN.

    Notes
    -----
    `sep.Background` (Barbary 2016; Bertin & Arnouts 1996): clipped mean or mode per box, median-filtered, bicubic
    spline.
    """
    image, bad = get_image(obj), get_mask(obj, mask)
    kwargs = {"box": _pair(box_size, "box_size"), "filter_size": _pair(filter_size, "filter_size")}
    maps = apply_images(
        _sep_background, image, bad, outputs={"background": IMAGE, "background_rms": IMAGE}, kwargs=kwargs
    )
    return annotate_all(xr.Dataset({k: v.transpose(*image.dims) for k, v in maps.items()}))


def clean(
    obj: xr.Dataset | xr.DataArray,
    *,
    mask: MaskChoice = None,
    background: xr.DataArray | Literal[False] | None = None,
    box_size: int | tuple[int, int] = 64,
) -> xr.DataArray:
    """The image minus its background, NaN where bad; float32, dims and unit of the image; lazy.

    `background` is a map to subtract, or False for none; by default `ztfxr.background` is measured. `mask` as there.
    """
    image, bad = get_image(obj), get_mask(obj, mask)
    if background is None:
        background = _background(obj, mask=mask, box_size=box_size)["background"]
    level = image if background is False else image - background
    out = level.where(~bad).astype(np.float32)
    return annotate(out, "sci", **{k: v for k, v in image.attrs.items() if k not in ("long_name",)}).assign_attrs(
        long_name="science image, background subtracted and masked"
    )


_background = background


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
        can be measured. ``"photon"``: max(image, median) / gain + (readnoise / gain)², for images that still hold their
        sky; needs no sky of its own and so suits small or crowded cut-outs.
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
    """
    image = get_image(obj)
    gain = _detector(image, gain, "gain", "electron/DN")
    if method == "photon":
        inputs = [image, gain, _detector(image, readnoise, "readnoise", "electron")]
        out = apply_images(_photon, *inputs, inputs=[IMAGE, (), ()], outputs={"variance": IMAGE})["variance"]
        return annotate(out.transpose(*image.dims), "variance")
    maps = _background(obj, mask=mask, box_size=box_size) if background is None else background
    signal = (image - maps["background"]).clip(min=0.0)
    out = (maps["background_rms"] ** 2 + signal / gain).astype(np.float32)
    return annotate(out.transpose(*image.dims), "variance")


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


def _photon(image: NDArray[Any], gain: NDArray[Any], readnoise: NDArray[Any]) -> NDArray[np.float64]:
    return photon_variance(image, gain=gain, readnoise=readnoise)
