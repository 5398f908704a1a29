"""A science image and its reference, gathered together, and results that keep the labels of the science image."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import xarray as xr

from ztfxr.arrays.matching.exclusion import FARTHEST, distances
from ztfxr.arrays.no_solution import NoSolutionError
from ztfxr.arrays.types import Bools, Floats
from ztfxr.errors import InputError
from ztfxr.ops.exposure import Exposure, Labeled, MaskChoice, gather
from ztfxr.ops.filters import other_filter, unlike
from ztfxr.ops.mapping import IMAGE, bare, map_images
from ztfxr.ops.positions import Positions, resolve_positions
from ztfxr.schema import SPECS, annotate_all, kept
from ztfxr.wcs import same_grid

__all__ = ["Pair", "gather_pair", "number_or_array"]

_FWHM_ERROR, _SEEING_ERROR = 0.03, 0.1
_PER_MAG = 0.4 * np.log(10.0)
_MOST_AROUND, _CUTOUT_PIXELS = 0.25, 512 * 512


@dataclass(frozen=True)
class Pair:
    """A science image, or a stack of them, and the reference on the same pixels."""

    science: Exposure
    reference: Exposure
    other_filter: xr.DataArray | None = None
    """True where an image of a stack is of another filter than the reference: it has no difference."""

    @property
    def is_alert(self) -> bool:
        """The reference came with the science image, as in alert packets."""
        return self.reference.name == "reference"

    @property
    def n_pixels(self) -> int:
        """Pixels of one image."""
        rows, columns = self.science.shape
        return rows * columns

    def inputs(self) -> dict[str, xr.DataArray | None]:
        """Pixels, masks and noise of both images, as array code takes them; None for noise that must be measured."""
        return {
            "science": self.science.image,
            "science_bad": self.science.bad,
            "science_variance": self.science.variance_or_none,
            "reference": self.reference.image,
            "reference_bad": self.reference.bad,
            "reference_variance": self.reference.variance_or_none,
        }

    def require_its_filter(self) -> None:
        """Raise `InputError` where the image is of another filter, which lazy names tell only now. Computes."""
        if self.other_filter is not None and bool(self.other_filter):
            raise InputError(unlike(*(e.image.coords["filter"].values for e in (self.science, self.reference))))

    def map(
        self,
        function: Callable[..., Any],
        inputs: Mapping[str, xr.DataArray | Mapping[str, xr.DataArray | None] | None],
        outputs: Iterable[str],
        *,
        sizes: Mapping[str, int],
        options: Mapping[str, Any],
    ) -> dict[str, xr.DataArray]:
        """`map_images`, but of images that the reference does not suit: they are lost, with a status that says why."""
        refusing = partial(_unless_other_filter, function)
        return map_images(
            refusing, {**inputs, "other_filter": self.other_filter}, outputs, sizes=sizes, options=options
        )

    def near(self, positions: Positions | None, radius: float) -> xr.DataArray:
        """True (y, x) within `radius` pixels of the positions, by default of that which an alert was raised for."""
        attrs = self.science.owner.attrs
        out = np.zeros(self.science.shape, dtype=bool)
        if positions is None and "target_x" in attrs:
            positions = [(float(attrs["target_x"]), float(attrs["target_y"]))]
        if positions is not None and radius > 0:
            (y, x), (rows, columns) = self._places(positions)
            for py, px in zip(y, x, strict=True):
                _add_disk(out, columns - px, rows - py, radius)
        return xr.DataArray(out, dims=IMAGE)

    def around(self, positions: Positions | None, radius: float) -> tuple[xr.DataArray | None, bool, Floats]:
        """Pixels (y, x) from the nearest position that is to be measured, whether all are at one place, and where.

        None where there is none, or where circles of that radius would take more than a quarter of the image. The rows
        and columns (place, 2) are none on a frame.
        """
        nowhere = np.empty((0, 2))
        if positions is None or not radius > 0:
            return None, False, nowhere
        places, axes = self._places(positions)
        inside = np.ones(len(places[0]), dtype=bool)
        for place, axis in zip(places, axes, strict=True):
            inside &= (place > axis.min() - FARTHEST) & (place < axis.max() + FARTHEST)
        y, x = (place[inside] for place in places)
        if not y.size:
            return None, False, nowhere
        small = self.n_pixels <= _CUTOUT_PIXELS
        rows = np.column_stack([y - axes[0][0], x - axes[1][0]]) if small else nowhere
        one_place = bool(np.hypot(np.ptp(y), np.ptp(x)) <= 2 * radius)
        if not one_place and y.size * np.pi * radius**2 > _MOST_AROUND * self.n_pixels:
            return None, False, rows
        return xr.DataArray(distances(axes, y, x), dims=IMAGE), one_place, rows

    def _places(self, positions: Positions) -> tuple[tuple[Floats, Floats], tuple[Floats, Floats]]:
        """The y and x of positions, and those of the rows and columns of the image."""
        image = self.science.image
        found = resolve_positions(image, positions)
        y, x = (np.asarray(image[d] if d in image.coords else range(image.sizes[d]), dtype=float) for d in IMAGE)
        return (found["y_pixel"].values, found["x_pixel"].values), (y, x)

    def told_widths(self, given: tuple[float, float] | None) -> dict[str, xr.DataArray | None]:
        """FWHM of both PSFs in pixels, and the relative error of each; None where unknown.

        They are what is given, else what both images state as `seeing` in pixels.
        """
        if given is not None:
            told = _two_positive(given, "fwhm is that of the science image and of the reference, in pixels")
            widths: list[xr.DataArray] = [xr.DataArray(width) for width in told]
            error = _FWHM_ERROR
        else:
            stated = [e.image.coords.get("seeing") for e in (self.science, self.reference)]
            widths = [bare(w).astype(np.float64) for w in stated if w is not None and w.attrs.get("units") == "pixel"]
            error = _SEEING_ERROR
        if len(widths) < 2:
            return {"science_fwhm": None, "reference_fwhm": None, "fwhm_error": None}
        return {"science_fwhm": widths[0], "reference_fwhm": widths[1], "fwhm_error": xr.DataArray(error)}

    def told_scale(self, given: tuple[float, float] | None) -> dict[str, xr.DataArray | None]:
        """The photometric scale that is known beforehand, with its error: science over reference; None where unknown.

        It is what is given, else what the reader says of a reference that comes with the science image, else what the
        zero points of both images say, where both come with their scatter `magzprms`.
        """
        attrs = self.science.owner.attrs
        if given is None and self.is_alert and "reference_scale" in attrs:
            given = (float(attrs["reference_scale"]), float(attrs["reference_scale_err"]))
        if given is not None:
            value, error = _two_positive(given, "known_scale is a positive ratio of fluxes and its error")
            return {"scale": xr.DataArray(value), "error": xr.DataArray(error)}
        points = [e.image.coords.get(name) for e in (self.science, self.reference) for name in ("magzp", "magzprms")]
        if any(p is None for p in points):
            return {"scale": None, "error": None}
        zp, rms, zp_ref, rms_ref = (bare(p).astype(np.float64) for p in points if p is not None)
        told = 10 ** (0.4 * (zp - zp_ref))
        return {"scale": told, "error": _PER_MAG * told * np.sqrt(rms**2 + rms_ref**2)}

    def results(self, found: Mapping[str, xr.DataArray]) -> xr.Dataset:
        """What array code found, with the dimensions, unit and attributes of the science image, and its status."""
        image = self.science.image
        images = {n: a.transpose(..., *image.dims) if SPECS[n].core_dims == IMAGE else a for n, a in found.items()}
        if self.science.status is not None:
            images["epoch_status"] = images["epoch_status"] | self.science.status
        # Variables on the coordinates of the image: to align twenty arrays that have them already would take longer.
        coords = image.coords.to_dataset().drop_vars("epoch_status", errors="ignore").coords
        out = xr.Dataset({name: array.variable for name, array in images.items()}, coords)
        out = self._explained(out)
        out.attrs = kept(self.science.owner.attrs, "grid", "object", "target")
        return annotate_all(out, unit=self.science.unit)

    def _explained(self, out: xr.Dataset) -> xr.Dataset:
        """The results with a message for each epoch of another filter, where the epochs have messages."""
        other, message = self.other_filter, out.coords.get("message")
        if other is None or message is None or message.dims != other.dims or other.chunks or message.chunks:
            return out
        names = np.broadcast_arrays(*(e.image.coords["filter"].values for e in (self.science, self.reference)))
        said = np.array([unlike(*pair) for pair in zip(*names, strict=True)])
        return out.assign_coords(message=message.copy(data=np.where(other & (message == ""), said, message)))


def _unless_other_filter(function: Callable[..., Any], /, *, other_filter: Bools | None, **given: Any) -> Any:
    """The function of an image, but where that is of another filter than the reference."""
    if other_filter is not None and bool(other_filter):
        raise NoSolutionError("other_filter")
    return function(**given)


def gather_pair(
    science: Labeled,
    reference: Labeled | None,
    *,
    variance: xr.DataArray | None = None,
    reference_variance: xr.DataArray | None = None,
    mask: MaskChoice = None,
    reference_mask: MaskChoice = None,
) -> Pair:
    """Gather a science image and its reference, each once; reads no pixel.

    Parameters
    ----------
    science
        An image (..., y, x), or a Dataset with `sci`.
    reference
        An image on the same pixels, or a Dataset with `sci`; None for the variable `reference` of the science Dataset.
    variance, reference_variance, mask, reference_mask
        Noise and masks by which those of the images are replaced; see `ztfxr.ops.exposure.Exposure`.

    Raises
    ------
    InputError
        There is no reference, an image is none, or the images are of another filter than the reference.
    AlignmentError
        The images do not share one pixel grid.
    """
    if reference is None and not (isinstance(science, xr.Dataset) and "reference" in science):
        raise InputError(
            "no reference: give one, or a Dataset that holds a variable 'reference' (see ztfxr.open_alerts)"
        )
    new = gather(science, name="sci", variance=variance, mask=mask)
    old = gather(
        science if reference is None else reference,
        name="reference" if reference is None else "sci",
        variance=reference_variance,
        mask=reference_mask,
    )
    same_grid(new.image, old.image)
    return Pair(new, old, None if old.owner is science else other_filter(new.image, old.image))


def number_or_array(value: xr.DataArray | float | None) -> xr.DataArray | None:
    """What may be one number for all images or one for each, as an array; None stays None."""
    return value if value is None or isinstance(value, xr.DataArray) else xr.DataArray(float(value))


def _add_disk(out: Bools, dx: Floats, dy: Floats, radius: float) -> None:
    """Set the pixels of a disk, whose center is these distances away from each column and row."""
    columns, rows = np.flatnonzero(np.abs(dx) <= radius), np.flatnonzero(np.abs(dy) <= radius)
    if columns.size and rows.size:
        inside = dx[columns][None, :] ** 2 + dy[rows][:, None] ** 2 <= radius**2
        out[np.ix_(rows, columns)] |= inside


def _two_positive(given: tuple[float, float], meaning: str) -> tuple[float, float]:
    """Two positive numbers; `InputError` that says what they mean for anything else."""
    try:
        first, second = (float(value) for value in given)
    except (TypeError, ValueError):
        first = second = np.nan
    if not (0 < first < np.inf and 0 < second < np.inf):
        raise InputError(f"{meaning}: two positive numbers; got {given!r}")
    return first, second
