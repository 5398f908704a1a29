"""One gathered object for what is measured: pixels, noise, masks, detector, unit, grid and status, by one policy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, TypeAlias

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ztfxr.arrays.images.noise import sky_variance
from ztfxr.arrays.images.sky import SkyOptions, deferred_maps, noise_maps
from ztfxr.errors import InputError
from ztfxr.ops.mapping import IMAGE, bare, in_order_of, map_images
from ztfxr.ops.masks import get_flags, recommended_bits
from ztfxr.ops.masks import mask as decode_mask
from ztfxr.ops.positions import pixel_origin
from ztfxr.schema import annotate
from ztfxr.wcs import WCSIndex

__all__ = ["Exposure", "Labeled", "MaskChoice", "find_image", "gather"]

Labeled: TypeAlias = xr.Dataset | xr.DataArray
MaskChoice: TypeAlias = xr.DataArray | Literal[False] | None

_VARIANCES = {"sci": "variance", "difference": "difference_variance", "reference": "reference_variance"}
_MASKS = {"sci": ("flags", "mask"), "difference": ("mask",)}
_IMAGES = ("difference", "sci")
_COUNTS = frozenset({"DN", "adu", "ADU", "count", "ct"})
_ELECTRONS = frozenset({"electron", "electrons", "e-"})


@dataclass(frozen=True)
class Exposure:
    """An image, or a stack of them, with all that measuring it needs; nothing is computed before it is asked for.

    Parameters
    ----------
    image
        The pixels (..., y, x), labeled.
    name
        The image's name in its Dataset: ``"sci"``, ``"difference"`` or ``"reference"``.
    owner
        The Dataset that holds the image, or the image itself.
    stated_mask, stated_variance
        What the caller gave; None: what the owner holds.

    Notes
    -----
    *Masks* are boolean, True where bad; pixels that are not finite are always bad, whatever the mask says. The mask
    that was given counts, else the owner's `mask` for differences, its `flags` (the recommended planes, by the flags'
    own `flag_meanings`) for other images, its `mask` where it has no flags; else no pixel is bad.

    *Noise* is a variance per pixel, in the square of the image's unit. The variance that was given counts, else the
    owner's own. Where there is none it is modeled from the sky's scatter and the gain (`modeled_variance`). Where no
    gain is known, a function either measures the noise itself (`variance_or_none`), takes that of the sky alone
    (`variance_or_sky`), or refuses (`variance`); its documentation says which.

    *Gain*, *read noise*, *saturation* and *zero point* are the coordinates of these names. A gain that is not finite
    and positive is unknown, and so is a read noise that is not finite or negative. The coordinate `gain` is in
    electron/DN: it counts for an image in DN. The gain of an image in electrons is 1, that of one in another unit is
    unknown.
    """

    image: xr.DataArray
    name: str
    owner: Labeled
    stated_mask: MaskChoice = None
    stated_variance: xr.DataArray | None = None

    # ---- masks ------------------------------------------------------------------------------------------------------

    @cached_property
    def bad(self) -> xr.DataArray:
        """True where a pixel is bad."""
        planes = self.bad_or_flags
        return planes if planes.dtype == bool else decode_mask(planes)

    @cached_property
    def bad_or_flags(self) -> xr.DataArray:
        """`bad`, or the flags that it would be decoded from: array code can do that on its way, by `bad_bits`."""
        if isinstance(self.stated_mask, xr.DataArray):
            return self.stated_mask
        if self.stated_mask is None:
            found = self._owned(*_MASKS.get(self.name, ()))
            if found is not None:
                return get_flags(found) if found.name == "flags" else _boolean(found)
        return xr.zeros_like(self.image, dtype=bool)

    @cached_property
    def bad_bits(self) -> int:
        """The bits that count as bad where `bad_or_flags` are flags; 0 where they are boolean."""
        planes = self.bad_or_flags
        return 0 if planes.dtype == bool else recommended_bits(planes)

    @cached_property
    def saturated(self) -> xr.DataArray | None:
        """True where a pixel is saturated, by the flags, else by the coordinate `saturate`; None where neither says."""
        flags = self._owned("flags")
        if flags is not None:
            return decode_mask(flags, ["saturated"])
        level = self.image.coords.get("saturate")
        if self.name == "difference" or level is None:
            return None
        return bare(self.image) >= bare(level)

    # ---- noise ------------------------------------------------------------------------------------------------------

    @cached_property
    def own_variance(self) -> xr.DataArray | None:
        """The variance that was given or that the owner holds; None where there is none."""
        if self.stated_variance is not None:
            return self.stated_variance
        return self._owned(_VARIANCES.get(self.name, "variance"))

    @cached_property
    def variance(self) -> xr.DataArray:
        """The variance per pixel; `InputError` where neither it nor the gain is known."""
        if self.own_variance is None and self.gain is None:
            own = "give variance=, put a variable 'variance' into the Dataset"
            if self.unit not in _COUNTS:
                raise InputError(
                    f"the noise of an image in {self.unit!r} does not follow from a gain in electron/DN: {own}"
                )
            raise InputError(
                f"no gain is known, so neither is the noise: {own}, or a coordinate 'gain' (electron/DN) into the image"
            )
        return self.own_variance if self.own_variance is not None else self.modeled_variance()

    @cached_property
    def variance_or_none(self) -> xr.DataArray | None:
        """The variance per pixel, or None where it must be measured for want of a gain."""
        return None if self.own_variance is None and self.gain is None else self.variance

    @cached_property
    def variance_or_sky(self) -> xr.DataArray:
        """The variance per pixel, or that of the sky alone where no gain is known."""
        return self.variance if self.own_variance is not None else self.modeled_variance(sky_alone=True)

    def modeled_variance(
        self, *, gain: xr.DataArray | None = None, sky: SkyOptions | None = None, sky_alone: bool = False
    ) -> xr.DataArray:
        """The measured variance of the sky plus the photon noise of the light above it.

        An epoch whose gain is unknown is NaN, or with `sky_alone` has the noise of its sky.
        """
        found = map_images(
            _variance_above_sky,
            {"image": self.image, "bad": self.bad_or_flags, "gain": self.gain if gain is None else gain},
            ["variance"],
            options={"sky": sky or SkyOptions(), "planes": self.bad_bits, "sky_alone": sky_alone},
            fresh=True,
        )["variance"]
        return annotate(found.transpose(..., *self.image.dims), "variance", unit=self.unit)

    @cached_property
    def model_error(self) -> xr.DataArray | None:
        """The error of what was subtracted, (..., mode, y, x); None where the owner holds none, or is no difference."""
        return self._owned("model_error") if self.name == "difference" else None

    @cached_property
    def background(self) -> xr.DataArray:
        """The level of the sky per pixel, by the mesh that `ztfxr.background` uses by default."""
        found = map_images(
            deferred_maps,
            {"image": self.image, "bad": self.bad_or_flags},
            ["background"],
            options={"options": SkyOptions(), "planes": self.bad_bits},
            fresh=True,
        )["background"]
        return annotate(found.transpose(..., *self.image.dims), "background", unit=self.unit)

    # ---- detector, unit, place --------------------------------------------------------------------------------------

    @cached_property
    def gain(self) -> xr.DataArray | None:
        """Electrons per unit of the image, NaN where an epoch's is unknown; None where nothing is known."""
        if self.unit in _ELECTRONS:
            return xr.DataArray(1.0)
        return self._known("gain", lambda values: values > 0) if self.unit in _COUNTS else None

    @cached_property
    def readnoise(self) -> xr.DataArray | None:
        """Read noise in electrons, NaN where an epoch's is unknown; None where nothing is known."""
        return self._known("readnoise", lambda values: values >= 0)

    @cached_property
    def saturation(self) -> xr.DataArray | None:
        """Level at which pixels saturate, NaN where an epoch's is unknown; None where nothing is known."""
        return self._known("saturate", lambda values: values > 0)

    @cached_property
    def zero_point(self) -> xr.DataArray | None:
        """AB magnitude of one count, without coordinates; None where it is not known."""
        found = self.image.coords.get("magzp")
        return None if found is None else bare(found)

    @property
    def unit(self) -> str:
        """The unit of the pixels; "DN" where none is stated."""
        return str(self.image.attrs.get("units", "DN"))

    @property
    def origin(self) -> dict[str, int]:
        """The absolute pixel of the first row and column, by `y` and `x`."""
        return pixel_origin(self.image)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.image.sizes["y"], self.image.sizes["x"]

    @property
    def status(self) -> xr.DataArray | None:
        """The bit planes of each epoch's status, without coordinates; None where no epoch has one."""
        found = self._owned("epoch_status")
        found = self.image.coords.get("epoch_status") if found is None else found
        return None if found is None else bare(found)

    def without_coordinates(self) -> Exposure:
        """The same pixels and noise to go with another image, whose coordinates count; labels of epochs stay."""
        keep = {"time", *IMAGE}
        return replace(self, image=self.image.drop_vars([k for k in self.image.coords if k not in keep]))

    # ---- what is here -----------------------------------------------------------------------------------------------

    def _owned(self, *names: str) -> xr.DataArray | None:
        """The first of the owner's variables of these names."""
        if not isinstance(self.owner, xr.Dataset):
            return None
        return next((self.owner[name] for name in names if name in self.owner), None)

    def _known(self, name: str, valid: Callable[[xr.DataArray], xr.DataArray]) -> xr.DataArray | None:
        """The coordinate `name`, NaN where its value cannot be true; None where no value can."""
        found = self.image.coords.get(name)
        if found is None:
            return None
        values = bare(found).astype(np.float64)
        values = values.where(np.isfinite(values) & valid(values))
        known = values.chunks is not None or bool(values.notnull().any())
        return values if known else None


def gather(
    obj: Labeled,
    *,
    name: str | None = None,
    variance: xr.DataArray | None = None,
    mask: MaskChoice = None,
) -> Exposure:
    """Gather what is known of an image, for every function that measures one; reads no pixel.

    Parameters
    ----------
    obj
        An image (..., y, x), or a Dataset that holds one.
    name
        The variable of the Dataset; by default `difference` where it has one, else `sci`.
    variance
        Variance per pixel in the square of the image's unit; by default that of the Dataset. See `Exposure`.
    mask
        Boolean, True where bad; by default that of the Dataset. False: no pixel is bad but those that are not finite.

    Returns
    -------
    Exposure

    Raises
    ------
    InputError
        `obj` is no labeled image (y, x), holds none, or its pixels are complex or text; the mask is not boolean, or
        neither an array, False nor None.
    AlignmentError
        The mask or the variance has other labels than the image; those in another order are put into the image's.
    """
    image, variable = find_image(obj, name)
    missing = [d for d in IMAGE if d not in image.dims]
    if missing:
        raise InputError(
            f"an image has the dimensions y and x; got {tuple(map(str, image.dims))}: rename them, for example "
            ".rename(row='y', col='x')"
        )
    if image.dtype.kind not in "fiub":
        raise InputError(f"pixels are real numbers; got {image.dtype}")
    if isinstance(mask, xr.DataArray):
        _boolean(mask)
    elif mask is not None and mask is not False:
        raise InputError(f"mask is a boolean DataArray, True where bad, or False; got {_kind(mask)}")
    if variance is not None and not isinstance(variance, xr.DataArray):
        raise InputError(f"variance is a DataArray on y and x; got {_kind(variance)}")
    if isinstance(mask, xr.DataArray):
        mask = _in_place(mask, image, "the mask")
    if variance is not None:
        variance = _in_place(variance, image, "the variance")
    return Exposure(image, variable, obj, mask, variance)


def _in_place(array: xr.DataArray, image: xr.DataArray, what: str) -> xr.DataArray:
    """What goes with an image, in its order; `AlignmentError` where it is of other pixels, or of another sky."""
    own, wanted = array.xindexes.get("ra"), image.xindexes.get("ra")
    if isinstance(own, WCSIndex) and isinstance(wanted, WCSIndex):
        own.require_same_frame(wanted)
    return in_order_of(array, image, what)


def find_image(obj: Any, name: str | None = None) -> tuple[xr.DataArray, str]:
    """The image of `obj`, whatever its dimensions, and its name there; by default the difference, else `sci`."""
    if isinstance(obj, xr.DataArray):
        return obj, "sci" if name is None else name
    if not isinstance(obj, xr.Dataset):
        raise InputError(
            f"an image is an xarray DataArray or Dataset; got {_kind(obj)}: open a file with ztfxr.open_quadrant, or "
            "wrap an array in xr.DataArray(array, dims=('y', 'x'))"
        )
    wanted = _IMAGES if name is None else (name,)
    found = next((n for n in wanted if n in obj), None)
    if found is None:
        held = ", ".join(map(str, obj.data_vars)) or "none"
        raise InputError(f"the Dataset has no variable {wanted[-1]!r}; it has {held}")
    return obj[found], found


def _boolean(mask: xr.DataArray) -> xr.DataArray:
    if mask.dtype != bool:
        raise InputError(
            f"a mask is boolean, True where bad; this one is {mask.dtype}: decode bit planes with ztfxr.mask, or write "
            "mask != 0 if every value but 0 is bad"
        )
    return mask


def _kind(value: Any) -> str:
    return f"{type(value).__module__.partition('.')[0]} {type(value).__name__}".replace("builtins ", "")


def _variance_above_sky(
    image: NDArray[Any],
    bad: NDArray[Any],
    gain: NDArray[Any] | None,
    *,
    sky: SkyOptions,
    planes: int,
    sky_alone: bool,
) -> NDArray[np.float32]:
    """`sky_variance` of one image; an unknown gain gives NaN, or the sky's own variance."""
    factor = np.nan if gain is None else float(gain)
    if sky_alone and np.isnan(factor):
        factor = np.inf
    return sky_variance(image, *noise_maps(image, bad, options=sky, planes=planes), factor)
