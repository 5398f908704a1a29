"""Bit planes of integer flag variables: of masks, statuses, fits, cuts and detected sources."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ztfxr.errors import InputError, ZtfxrError

__all__ = [
    "CUT_PLANES",
    "EXTRACTION_PLANES",
    "FIT_PLANES",
    "FLAG_PLANES",
    "MASK_PLANES",
    "NOT_MEASURED",
    "RECOMMENDED_PLANES",
    "SOURCE_PLANES",
    "STATUS_PLANES",
    "Plane",
    "flag_attrs",
    "plane_names",
    "planes_to_bits",
    "status_of",
]


@dataclass(frozen=True)
class Plane:
    """One bit plane of an integer flag image."""

    name: str
    bit: int
    meaning: str
    until_mjd: float = math.inf
    """The last MJD of an exposure at which the plane means what it says."""

    @property
    def value(self) -> int:
        """The integer value of the plane, ``2**bit``."""
        return 1 << self.bit


MASK_PLANES: tuple[Plane, ...] = (
    Plane("tracks", 0, "aircraft or satellite track"),
    Plane("sexsources", 1, "SExtractor source: not a defect"),
    Plane("lowresponsivity", 2, "low responsivity in the flat field"),
    Plane("highresponsivity", 3, "high responsivity in the flat field"),
    Plane("noisy", 4, "noisy pixel"),
    Plane("ghosts", 5, "ghost of a bright source; absent from masks of early 2018"),
    Plane(
        "spillage",
        6,
        "possible ghost of charge spillage; meaningful only up to OBSMJD 58779, absent from masks of early 2018",
        until_mjd=58779.0,
    ),
    Plane("spikes", 7, "spike in a pixel, possibly a cosmic ray"),
    Plane("saturated", 8, "saturated pixel"),
    Plane("dead", 9, "dead or otherwise unusable pixel"),
    Plane("nan", 10, "not a number"),
    Plane("psfsources", 11, "PSF-fit source: not a defect"),
    Plane("brightstarhalo", 12, "halo of a bright star; absent from masks of early 2018"),
    Plane("outside", 15, "outside the frame: set by ztfxr where a stamp is padded, never by IPAC"),
)

RECOMMENDED_PLANES: tuple[str, ...] = tuple(p.name for p in MASK_PLANES if p.name not in ("sexsources", "psfsources"))
"""IPAC's template 6141, every plane but the two that mark detected sources, and ztfxr's own `outside`."""

STATUS_PLANES: tuple[Plane, ...] = (
    Plane("unreadable", 0, "the frame could not be read"),
    Plane("not_fits", 1, "the file is not FITS"),
    Plane("truncated", 2, "the file ends before its pixels do"),
    Plane("missing_mask", 3, "no mask image beside the science image"),
    Plane("bad_header", 4, "a header card is missing or has the wrong type"),
    Plane("wrong_shape", 5, "the frame has another shape than its companions"),
    Plane("no_wcs", 6, "no celestial WCS"),
    Plane("not_aligned", 7, "the frame is on another pixel grid than the reference"),
    Plane("too_few_pixels", 8, "too few good pixels to solve the kernel"),
    Plane("solve_failed", 9, "the normal equations have no stable solution"),
    Plane("outside", 10, "the position is outside the frame"),
    Plane("edge", 11, "the aperture reaches over the edge of the frame"),
    Plane("masked", 12, "bad pixels inside the aperture"),
    Plane("no_good_pixels", 13, "no good pixel inside the aperture, or too many bad ones"),
    Plane("not_registered", 14, "the frame could not be registered, or not well enough"),
    Plane("not_run", 15, "the run has not come to this epoch yet"),
    Plane("scale_not_significant", 16, "no light fixes the photometric scale: it is within 3 errors of 0, or below"),
    Plane("scale_unexpected", 17, "the photometric scale is far from what was known of it beforehand"),
    Plane("misregistered", 18, "the reference lies more than 0.9 pixels beside the science image"),
    Plane("light_rejected", 19, "most of the light that fixes the kernel did not fit and was rejected"),
    Plane("other_filter", 20, "the frame is of another filter than the reference"),
    Plane("light_left", 21, "more than a tenth of the light of bright stars is left in the difference"),
    Plane(
        "kernel_cut",
        22,
        "the outermost pixels of the kernel hold as much as all of it: it is too small, or its light moved",
    ),
    Plane("noise_unexpected", 23, "the scatter of the difference is not what its stated noise says, by 30 %"),
    Plane("blank_region", 24, "an image has regions of one value that no mask knew of; they are left out"),
)
"""What happened to an epoch or to a measurement."""

NOT_MEASURED = (1 << 16) - 1 | 1 << 20
"""The statuses of epochs that were not measured; the others say that what was measured should not be believed."""

SOURCE_PLANES: tuple[Plane, ...] = (
    Plane("deblended", 0, "parted from a neighbor that it was detected with"),
    Plane("truncated", 1, "reaches over the edge of the image"),
    Plane("deblend_overflow", 2, "deblending ran out of memory"),
    Plane("singular", 3, "its pixels lie on a line, or nearly so"),
    Plane("aperture_truncated", 4, "the Kron aperture reaches over the edge of the image"),
    Plane("aperture_masked", 5, "bad pixels inside the Kron aperture"),
    Plane("aperture_all_masked", 6, "no good pixel inside the Kron aperture"),
    Plane("kron_nonpositive", 7, "no positive flux to take a Kron radius from; it is the smallest allowed"),
    Plane("kron_circular", 8, "the Kron ellipse was too small; the aperture is the smallest circle"),
    Plane("window_failed", 9, "the windowed centroid strayed; it is the isophotal one"),
    Plane("empty", 15, "no source: the row fills up the catalog"),
)
"""What happened to a detected source; bits 0 to 7 are sep's."""

EXTRACTION_PLANES: tuple[Plane, ...] = (
    Plane(
        "pixel_buffer_grown", 0, "more pixels over the threshold than sep's buffer holds; detected with a larger one"
    ),
    Plane("deblend_limit_grown", 1, "more sub-objects than sep's limit; detected with a higher one"),
    Plane("threshold_raised", 2, "too crowded at the threshold asked for; detected at threshold_factor times it"),
    Plane("no_good_pixels", 3, "no good pixel in the image"),
)
"""What happened when an image was searched for sources."""

FIT_PLANES: tuple[Plane, ...] = (
    Plane("saturated", 0, "saturated pixels in the fit"),
    Plane("blended", 1, "solved together with neighbors"),
    Plane("poor_fit", 2, "the fit leaves more than noise, and more light than the source has"),
)

CUT_PLANES: tuple[Plane, ...] = (
    Plane("no_flux", 0, "no flux, or no positive error"),
    Plane("status", 1, "the status of the measurement or of its epoch"),
    Plane("procstatus", 2, "the processing status of the forced photometry service"),
    Plane("infobits", 3, "bad by the processing summary of the science image"),
    Plane("sky_noise", 4, "too noisy a sky"),
    Plane("seeing", 5, "too bad a seeing"),
    Plane("magzprms", 6, "too much scatter about the zero point"),
    Plane("calibrators", 7, "too few stars behind the zero point"),
    Plane("fit_chi2", 8, "too bad a PSF fit"),
    Plane("no_baseline", 9, "too few epochs without the transient to find the level of its group"),
)
"""Why a measurement was cut from a light curve."""

FLAG_PLANES: Mapping[str, tuple[Plane, ...]] = {
    "flags": MASK_PLANES,
    "status": STATUS_PLANES,
    "epoch_status": STATUS_PLANES,
    "stamp_status": STATUS_PLANES,
    "fit_flags": FIT_PLANES,
    "cuts": CUT_PLANES,
    "sep_flags": SOURCE_PLANES,
    "extraction_status": EXTRACTION_PLANES,
}
"""The planes of each integer flag variable of the schema."""


def flag_attrs(planes: Iterable[Plane]) -> dict[str, Any]:
    """CF attributes that make an integer flag variable describe itself."""
    planes = tuple(planes)
    return {
        "flag_masks": [p.value for p in planes],
        "flag_meanings": " ".join(p.name for p in planes),
    }


def planes_to_bits(names: Iterable[str], planes: Iterable[Plane] = MASK_PLANES) -> int:
    """The integer with the named planes set; `InputError` on an unknown name."""
    values = {p.name: p.value for p in planes}
    bits = 0
    for name in names:
        if name not in values:
            raise InputError(f"unknown plane {name!r}; the planes are {', '.join(values)}")
        bits |= values[name]
    return bits


def plane_names(bits: int, planes: Iterable[Plane] = STATUS_PLANES) -> list[str]:
    """The names of the planes that are set, in the order of the planes."""
    return [p.name for p in planes if bits & p.value]


def status_of(error: BaseException) -> tuple[int, str]:
    """Status bits and message for what went wrong with a frame."""
    expected = isinstance(error, ZtfxrError | OSError)
    message = str(error) if expected else f"unexpected {type(error).__name__}: {error}"
    return planes_to_bits([getattr(error, "status", "unreadable")], STATUS_PLANES), message
