"""Attributes of objects: what each one means, which of them stay with a result, and how JSON holds them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from os import PathLike
from typing import Any, Literal, TypeAlias

import numpy as np

from ztfxr.errors import InputError, ZtfxrError

__all__ = ["ATTRS", "About", "Attribute", "Attrs", "kept", "plain"]

About = Literal[
    "file", "grid", "object", "target", "stamp", "solution", "kernel", "registration", "stack", "photometry", "scale",
    "catalog", "variable",
]  # fmt: skip
"""What attributes tell of: results keep those about what they still have."""


@dataclass(frozen=True)
class Attribute:
    """One attribute of a Dataset or of a variable: what it tells of, its type and its meaning."""

    name: str
    about: About
    type: str
    meaning: str


_ROWS: tuple[Attribute, ...] = (
    Attribute("header", "file", "str", "the FITS header, a card a line"),
    Attribute("source", "file", "str", "name of the file"),
    Attribute("time_note", "file", "str", "which cards of the time disagree, and which was taken"),
    Attribute("status", "file", "int", "status planes of a frame that could not be used"),
    Attribute("message", "file", "str", "why the frame could not be used"),
    Attribute("unreadable", "file", "str", "numbers of the lines that do not fit the file's columns"),
    Attribute("missing", "file", "str", "names of the quadrants without a file, separated by spaces"),
    Attribute("unusable", "file", "str", "names of the nodes without pixels, separated by spaces"),
    Attribute("filefracday", "file", "int", "night and fraction of day that name the exposure"),
    Attribute("field", "file", "int", "ZTF field of the exposure"),
    Attribute("filter", "file", "str", "filter of the exposure"),
    Attribute("ccdid", "file", "int", "CCD of the quadrants"),
    Attribute("wcs_header", "grid", "str", "the celestial WCS cards of the full frame, a card a line"),
    Attribute("object", "object", "str", "name of the transient"),
    Attribute("target_x", "target", "float", "column of the transient, in absolute 0-based FITS pixels"),
    Attribute("target_y", "target", "float", "row of the transient, in absolute 0-based FITS pixels"),
    Attribute("reference_scale", "file", "float", "flux of a star in the science image over that in the reference"),
    Attribute("reference_scale_err", "file", "float", "standard error of that ratio"),
    Attribute("stamp_x", "stamp", "float", "column that the stamp was cut around, in absolute 0-based FITS pixels"),
    Attribute("stamp_y", "stamp", "float", "row that the stamp was cut around, in absolute 0-based FITS pixels"),
    Attribute("kernel_size", "solution", "int or str", "side of the kernel in pixels, or 'auto'"),
    Attribute("kernel_order", "solution", "int or str", "spatial order of the kernel, or 'auto'"),
    Attribute("scale_order", "solution", "int", "spatial order of the kernel's sum"),
    Attribute("background_order", "solution", "int", "spatial order of the background"),
    Attribute("solve_on", "solution", "str", "pixels that the kernel was solved on: 'all' or 'stars'"),
    Attribute("basis", "solution", "str", "functions that the kernel is made of"),
    Attribute("exclude_radius", "solution", "float", "radius in pixels around targets that the solution left out"),
    Attribute("convolved", "solution", "str", "which image was convolved: 'science' or 'reference'"),
    Attribute("frame", "kernel", "list of int", "first row and column, rows and columns that the polynomials run over"),
    Attribute("kind", "registration", "str", "kind of the transform: 'shift', 'affine' or 'polynomial'"),
    Attribute("center_x", "registration", "float", "column where the transform's coordinates are zero"),
    Attribute("center_y", "registration", "float", "row where the transform's coordinates are zero"),
    Attribute("scale", "registration", "float", "pixels that are one in the transform's coordinates"),
    Attribute("bounds", "registration", "list of float", "pixels over which the transform was fitted"),
    Attribute("anchor", "stack", "int", "position of the epoch whose flux scale is one"),
    Attribute("method", "stack", "str", "how a coadd weighs its epochs"),
    Attribute("rejected", "stack", "str", "epochs that were left out, and why"),
    Attribute("frame_shape", "stack", "list of int", "rows and columns of the frame that a reference was cut from"),
    Attribute("masked", "photometry", "str", "what becomes of bad pixels in an aperture"),
    Attribute("radius_pixel", "photometry", "float", "radius of the aperture"),
    Attribute("annulus_pixel", "photometry", "list of float", "inner and outer radius of the background's annulus"),
    Attribute("weights", "photometry", "str", "weights of the pixels in the PSF fit"),
    Attribute("background", "photometry", "str", "local background of the PSF fit"),
    Attribute("flux_scale", "photometry", "str", "'reference' where fluxes are on the scale of the reference"),
    Attribute("center_deviation", "photometry", "float", "largest deviation from the center stamp over its peak"),
    Attribute("snt", "photometry", "float", "signal-to-noise ratio above which a source is detected"),
    Attribute("snu", "photometry", "float", "upper limits are so many standard errors"),
    Attribute("order", "scale", "int", "spatial order of the photometric scale"),
    Attribute("flux", "scale", "str", "name of the fluxes that a fit rests on"),
    Attribute("x_middle", "scale", "float", "column where the scale's coordinates are zero"),
    Attribute("y_middle", "scale", "float", "row where the scale's coordinates are zero"),
    Attribute("x_half", "scale", "float", "pixels that are one in the scale's coordinates, along x"),
    Attribute("y_half", "scale", "float", "pixels that are one in the scale's coordinates, along y"),
    Attribute("mag", "scale", "str", "name of the magnitudes that a zero point rests on"),
    Attribute("color", "scale", "str", "name of the color that a zero point rests on"),
    Attribute("n_sigma", "scale", "float", "standard deviations beyond which stars were left out"),
    Attribute("threshold", "catalog", "float", "threshold of the detection"),
    Attribute("threshold_unit", "catalog", "str", "unit of the threshold"),
    Attribute("catalog", "catalog", "str", "name of the survey"),
    Attribute("vizier", "catalog", "str", "its table at VizieR"),
    Attribute("epoch", "catalog", "float", "year that the positions hold for"),
    Attribute("distance_arcsec", "catalog", "float", "separation within which a source has a neighbor"),
    Attribute("long_name", "variable", "str", "what the variable is"),
    Attribute("units", "variable", "str", "its unit"),
    Attribute("n_codes", "variable", "int", "how many codes for a missing magnitude, such as -999, were made NaN"),
    Attribute("planes", "variable", "str", "names of the planes that a mask was made of, separated by spaces"),
    Attribute("flag_masks", "variable", "list of int", "values of the bit planes"),
    Attribute("flag_meanings", "variable", "str", "names of the bit planes, separated by spaces"),
    Attribute("flag_mask", "variable", "int", "value of the one bit plane that the variable shows"),
    Attribute("until_mjd", "variable", "float", "last MJD at which the bit plane means what it says"),
    Attribute("bad_planes", "variable", "str", "names of the planes that make a pixel bad, separated by spaces"),
    Attribute("positive", "variable", "str", "where a coordinate grows: 'left', 'right', 'up' or 'down'"),
)

Attrs: TypeAlias = Mapping[Any, Any]
"""The attributes of a variable or a Dataset, as xarray holds them."""

ATTRS: Mapping[str, Attribute] = {row.name: row for row in _ROWS}
"""Every attribute by name."""


def kept(attrs: Attrs, *about: About) -> dict[str, Any]:
    """Those of `attrs` that tell of the things named, such as ``kept(image.attrs, "grid", "object")``."""
    return {str(k): v for k, v in attrs.items() if k in ATTRS and ATTRS[str(k)].about in about}


def plain(value: object, what: str, error: type[ZtfxrError] = InputError) -> Any:
    """`value` in JSON's types: dates and paths as text, arrays and tuples as lists; an `error` where it has none."""
    if isinstance(value, np.datetime64 | np.timedelta64):
        return str(value)
    if isinstance(value, np.generic) and not isinstance(value, np.longdouble | np.clongdouble):
        return plain(value.item(), what, error)
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        return _encodable(value, what, error)
    if isinstance(value, np.ndarray):
        return plain(value.astype(str).tolist() if value.dtype.kind in "mM" else value.tolist(), what, error)
    if isinstance(value, list | tuple):
        return [plain(v, what, error) for v in value]
    if isinstance(value, Mapping):
        return {_key(k, what, error): plain(v, what, error) for k, v in value.items()}
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, PathLike):
        return os.fspath(value)
    raise error(
        f"{what} is of type {type(value).__name__}, which JSON cannot hold; make it text, a number or a list first"
    )


def _key(key: object, what: str, error: type[ZtfxrError]) -> str:
    if not isinstance(key, str):
        raise error(f"{what} has the key {key!r}, which is no text; JSON has keys of text only: use {str(key)!r}")
    return _encodable(key, what, error)


def _encodable(text: str, what: str, error: type[ZtfxrError]) -> str:
    """`text` if UTF-8 can hold it."""
    try:
        text.encode()
    except UnicodeEncodeError as cause:
        raise error(f"{what} holds {text!r}, which UTF-8 cannot; take the broken characters out first") from cause
    return text
