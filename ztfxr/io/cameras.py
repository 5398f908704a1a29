"""Cameras as data: where the header of a frame says what, what its masks mean, how its files are named.

A camera is one row: `CAMERAS` holds those that ztfxr knows, `Camera` makes another.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import xarray as xr
from astropy.io import fits

from ztfxr.errors import FrameError, HeaderError, InputError
from ztfxr.io.names import AnyPath
from ztfxr.io.remote import file_name, shown
from ztfxr.io.times import Middle, Reference, middle_of_exposure, to_datetime
from ztfxr.schema import MASK_PLANES, RECOMMENDED_PLANES, SPECS, Plane, flag_attrs

__all__ = [
    "CAMERAS",
    "DECAM",
    "FITS",
    "LCO",
    "PLACES",
    "RISE",
    "SAAO",
    "ZTF",
    "Camera",
    "CameraLike",
    "Layer",
    "Source",
    "camera_of",
    "card_names",
    "electrons_per_unit",
    "get_camera",
    "header_errors",
    "unit_of",
]

Source: TypeAlias = str | Sequence[str] | float | np.datetime64 | None
"""A header card, several in order of preference, a value, or None where nothing says it."""

Holds: TypeAlias = Literal["planes", "codes", "bad", "variance", "weight", "sigma"]

_QUALITY = ("magzp", "magzprms", "gain", "readnoise", "saturate", "seeing")
_ALWAYS = ("gain", "readnoise", "saturate")
PLACES = ("field", "ccdid", "qid", "rcid", "filefracday")
"""Coordinates that say which field, and which part of the detector, a frame is of."""
_KNOWN = ("time", "exptime", "filter", *_QUALITY, *PLACES)
_TRUE = {
    "exptime": (0.0, np.inf),
    "gain": (np.nextafter(0, 1), np.inf),
    "readnoise": (0.0, np.inf),
    "saturate": (np.nextafter(0, 1), np.inf),
    "seeing": (np.nextafter(0, 1), np.inf),
    "magzp": (-90.0, 90.0),
}
"""Between which values a number can be true; others stand for one that is not known."""
_NO_NUMBER = re.compile(r"|n/?a|nan|none|null|unknown|undefined|notpresent|-+", re.IGNORECASE)

_COUNTS = re.compile(r"dn|adu|counts?|ct|electrons?|e-?|photo-?electrons?", re.IGNORECASE)
_PER_SECOND = re.compile(r"\s*(/\s*s(ec(onds?)?)?|[ .*]s(ec)?(\*\*|\^)?\(?-1\)?)$", re.IGNORECASE)
_SQUARED = re.compile(r"(.*?)(?:\*\*|\^)?2")
_DN = ("adu", "dn", "data value", "data values")


@dataclass(frozen=True)
class Layer:
    """An image that goes with the pixels: where it is, and what its numbers mean.

    Parameters
    ----------
    holds
        ``"planes"``: bit planes; ``"codes"``: one number a pixel, code n being the plane of bit n - 1; ``"bad"``: every
        number but 0 is bad. ``"variance"``, ``"sigma"``, ``"weight"`` (inverse variance): the noise, of which a number
        that is not positive marks a bad pixel.
    extension
        The name of the extension that holds it.
    replace
        It is in a file beside the frame, whose name has the second text for the first.
    path
        It is in this file.
    optional
        Whether a frame without it can be used.
    """

    holds: Holds
    extension: str | None = None
    replace: tuple[str, str] | None = None
    path: str | None = None
    optional: bool = False

    def __post_init__(self) -> None:
        if self.holds not in get_args(Holds):
            raise InputError(f"a layer holds one of {', '.join(get_args(Holds))}; got {self.holds!r}")
        if self.extension is None and self.replace is None and self.path is None:
            raise InputError("nothing says where the layer is; give extension=, replace= or path=")
        if self.replace is not None:
            object.__setattr__(self, "replace", tuple(self.replace))


@dataclass(frozen=True)
class Camera:
    """Where the frames of a camera say what; a row of data, which every reader and the pipeline take.

    Parameters
    ----------
    name
        What the camera is called.
    cards
        Where each coordinate comes from: a header card, several in order of preference, or a value. The names are
        `time` (by default the cards of the FITS standard, see `ztfxr.io.times.middle_of_exposure`), `exptime`,
        `filter` (``"=r"`` is a value), `gain` (electron/DN), `readnoise` (electron), `saturate` (DN), `seeing`,
        `magzp`, `magzprms`, `field`, `ccdid`, `qid`, `filefracday`. What is not named is taken from `FITS`.
    time_is
        What the card of the time marks: the start, the middle or the end of the exposure.
    filters
        Names of filters by what the header calls them, whole or by its first word, in any case. What is not listed
        keeps the header's name, unless `required` has the filter.
    required
        Coordinates without which a frame cannot be used. Where there are none, cards without sense are passed over.
    units
        Units of coordinates whose comments in the header do not say them, such as ``{"seeing": "arcsec"}``.
    unit
        The unit of the pixels where the header has no BUNIT.
    image
        The name of the extension with the pixels; by default the first image of the file.
    mask, weight
        Where the mask and the noise are. Without a mask, pixels at or above `saturate` and those that are not finite
        are flagged.
    planes
        What the bits, or codes, of the mask mean.
    bad_planes
        The planes that make a pixel bad.
    file_name
        A regular expression of file names, whose groups are coordinates that the header may lack.
    science
        What the names of science images contain, where other images lie beside them.

    Raises
    ------
    InputError
        A coordinate that ztfxr does not know, a plane that does not exist, or two planes on one bit.

    Examples
    --------
    >>> mine = Camera("mine", {"gain": 2.1, "seeing": "FWHM"}, filters={"Bessel R": "R"}, time_is="middle")
    >>> mine.with_cards(gain="EGAIN").cards["gain"]
    'EGAIN'
    """

    name: str
    cards: Mapping[str, Source] = field(default_factory=dict)
    time_is: Reference = "start"
    filters: Mapping[str, str] = field(default_factory=dict)
    required: tuple[str, ...] = ("time",)
    units: Mapping[str, str] = field(default_factory=dict)
    unit: str = "DN"
    image: str | None = None
    mask: Layer | None = None
    weight: Layer | None = None
    planes: tuple[Plane, ...] = MASK_PLANES
    bad_planes: tuple[str, ...] = RECOMMENDED_PLANES
    file_name: str = ""
    science: str = ""

    def __post_init__(self) -> None:
        for name in ("required", "planes", "bad_planes"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        source = self.cards.get("filter")
        if source is not None and not card_names(source):
            raise InputError(f"filter is the name of a card, or a value as '=r'; got {source!r}")
        unknown = sorted({*self.cards, *self.required, *self.units} - set(_KNOWN))
        if unknown:
            raise InputError(f"a camera has no coordinate {', '.join(unknown)}; it has {', '.join(_KNOWN)}")
        if self.time_is not in get_args(Reference):
            raise InputError(f"time_is is one of {', '.join(get_args(Reference))}; got {self.time_is!r}")
        names, bits = [p.name for p in self.planes], [p.bit for p in self.planes]
        strange = sorted(set(self.bad_planes) - set(names))
        if strange:
            raise InputError(f"bad_planes names {', '.join(strange)}; the planes are {', '.join(names)}")
        if len(set(names)) < len(names) or len(set(bits)) < len(bits) or not all(0 <= b < 32 for b in bits):
            got = dict(zip(names, bits, strict=True))
            raise InputError(f"every plane has a name and a bit (0 to 31) of its own; got {got}")
        cards = {k: card_names(v) if isinstance(v, list | tuple) else v for k, v in self.cards.items()}
        object.__setattr__(self, "cards", {**_PLAIN, **cards})

    # ---- making others ----------------------------------------------------------------------------------------------

    def with_cards(self, time_is: Reference | None = None, /, **cards: Source) -> Camera:
        """The same camera with other cards or values; cards that are named here must be in the header."""
        named = [k for k, v in cards.items() if v is not None and _is_card(k, v)]
        return replace(
            self,
            cards={**self.cards, **cards},
            required=tuple(dict.fromkeys((*self.required, *named))),
            time_is=self.time_is if time_is is None else time_is,
        )

    def to_dict(self) -> dict[str, Any]:
        """The camera as plain data that JSON can hold."""
        return {f.name: _plain(getattr(self, f.name)) for f in fields(self)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Camera:
        """The camera of `to_dict`."""
        layers = {k: Layer(**data[k]) for k in ("mask", "weight") if data.get(k) is not None}
        planes = {"planes": tuple(Plane(**p) for p in data["planes"])} if "planes" in data else {}
        try:
            return cls(**{**data, **layers, **planes})
        except TypeError as error:
            raise InputError(f"a camera has {', '.join(f.name for f in fields(cls))}; {error}") from error

    # ---- reading ----------------------------------------------------------------------------------------------------

    @property
    def coordinates(self) -> tuple[str, ...]:
        """The scalar coordinates that every frame of the camera has."""
        given = [k for k in _QUALITY if k in _ALWAYS or self.cards.get(k) is not None]
        return ("time", "mjd", "filter", "exptime", *self.places, *given)

    def coords(
        self, header: fits.Header, path: str = "", unit: str | None = None
    ) -> tuple[dict[str, xr.Variable], str]:
        """The scalar coordinates of a frame with pixels in `unit` (BUNIT), and what had to be decided about its time.

        Raises
        ------
        HeaderError
            What the frame cannot be used without is not there, or a card is no number.
        """
        parts = self.name_parts(file_name(path)) or self.name_parts(str(header.get("FILENAME", "")))
        numbers = {name: self._number(name, header, parts) for name in ("exptime", *self.places, *_QUALITY)}
        middle = self._middle(header, numbers["exptime"])
        numbers["exptime"] = middle.exptime
        unit = self.unit_of(header) if unit is None else unit
        numbers |= self._in_unit(unit, numbers)
        if {"ccdid", "qid"} <= set(numbers):
            numbers["rcid"] = 4 * (numbers["ccdid"] - 1) + numbers["qid"] - 1
        values: dict[str, Any] = {"time": to_datetime(middle.mjd), "mjd": middle.mjd}
        values["filter"] = self._filter(header, parts)
        values |= {k: int(v) if k in PLACES else v for k, v in numbers.items()}
        return {k: _scalar(k, values[k], self._unit(k, header, unit)) for k in self.coordinates}, middle.note

    def name_parts(self, name: str) -> dict[str, Any]:
        """What the name of a file says: integers, and the filter by its name here; empty for other names."""
        found = re.search(self.file_name, name) if self.file_name else None
        parts = {} if found is None else {k: v for k, v in found.groupdict().items() if v is not None}
        return {k: self.filters.get(v, v) if k == "filter" else int(v) for k, v in parts.items()}

    def unit_of(self, header: fits.Header) -> str:
        """The unit of the pixels."""
        return unit_of(str(header.get("BUNIT") or "")) or self.unit

    def flag_attrs(self) -> dict[str, Any]:
        """What the planes of the mask are, as attributes of `flags`."""
        own = {} if self.planes == MASK_PLANES else {"bad_planes": " ".join(self.bad_planes)}
        return {**flag_attrs(self.planes), **own}

    @property
    def places(self) -> tuple[str, ...]:
        """The coordinates that say which field and which part of the detector a frame is of."""
        own = {k for k in PLACES if self.cards.get(k) is not None}
        return tuple(k for k in PLACES if k in own or (k == "rcid" and {"ccdid", "qid"} <= own))

    def _number(self, name: str, header: fits.Header, parts: Mapping[str, Any]) -> float:
        """The value of a coordinate: as given, from its card, or from the file's name; NaN (-1) where it is unknown."""
        source, unknown = self.cards.get(name), -1.0 if name in PLACES else np.nan
        if not card_names(source):
            return float(source) if isinstance(source, int | float) else unknown
        card = next((card for card in card_names(source) if card in header), None)
        if card is None:
            if name in self.required and name not in parts:
                raise self._missing(name)
            return float(parts.get(name, unknown))
        try:
            value = _float(header, card)
        except (HeaderError, fits.VerifyError):
            if self.required:
                raise
            return unknown
        if name in PLACES and name in self.required and not np.isfinite(value):
            raise HeaderError(f"{card} = {header[card]!r} is not a number")
        low, high = _TRUE.get(name, (-np.inf, np.inf))
        return value if low <= value <= high else unknown

    def _missing(self, name: str) -> HeaderError:
        about = f"is this a {self.name.upper()} science image? If so, " if self.name != _ANY else ""
        card = card_names(self.cards[name])[0]
        return HeaderError(f"the header has no {card}; {about}give {name}= the name of another card, or a value")

    def _middle(self, header: fits.Header, exptime: float) -> Middle:
        """The middle of the exposure; a missing length is named by its card."""
        try:
            return middle_of_exposure(header, exptime, self.cards["time"], reference=self.time_is)
        except HeaderError as error:
            if "time" not in self.required:
                return Middle(np.nan, exptime)
            cards = card_names(self.cards["exptime"])
            if np.isnan(exptime) and cards and not any(card in header for card in cards):
                raise self._missing("exptime") from error
            raise

    def _in_unit(self, unit: str, numbers: Mapping[str, float]) -> dict[str, float]:
        """Gain and saturation in the unit of the pixels, where a card gives them in counts."""
        out = {}
        if not isinstance(self.cards.get("gain"), int | float):
            out["gain"] = electrons_per_unit(unit, numbers["gain"], numbers["exptime"])
        if not isinstance(self.cards.get("saturate"), int | float):
            counts = {"total": 1.0, "rate": numbers["exptime"], "": np.nan}[_counted(unit)]
            out["saturate"] = numbers["saturate"] / counts if counts else np.nan
        return out

    def _filter(self, header: fits.Header, parts: Mapping[str, Any]) -> str:
        """The name of the filter: the camera's for what the header calls it, else the header's own."""
        source = self.cards.get("filter")
        if isinstance(source, str) and source.startswith("="):
            return source[1:]
        said = {card: _text(header, card) for card in card_names(source) if card in header}
        lower = {k.lower(): v for k, v in self.filters.items()}
        keys = [key for text in said.values() for key in (text.lower(), *text.lower().split()[:1])]
        known = next((lower[key] for key in keys if key in lower), None)
        if known is not None:
            return known
        if "filter" not in self.required or not self.filters:
            return next((text for text in said.values() if text), "")
        if not any(said.values()):
            if "filter" not in parts:
                raise self._missing("filter")
            return str(parts["filter"])
        first = {v: k for k, v in reversed(list(self.filters.items()))}
        listed = ", ".join(f"{first[v]} {v}" for v in dict.fromkeys(self.filters.values()))
        told = " and ".join(f"{card} = {header.get(card)!r}" for card in said)
        raise HeaderError(f"{told} name no {self.name.upper()} filter ({listed})")

    def _unit(self, name: str, header: fits.Header, unit: str) -> str:
        """The unit of a coordinate: as its comment says, as the camera does, or the schema's."""
        if name in ("gain", "saturate"):
            per = unit if unit.isalpha() else f"({unit})"
            return f"electron/{per}" if name == "gain" else unit
        card = next((c for c in card_names(self.cards.get(name)) if c in header), None)
        comment = header.comments[card].lower() if card is not None and name == "seeing" else ""
        if "arcsec" in comment:
            return "arcsec"
        return "pixel" if "pix" in comment else self.units.get(name, SPECS[name].units)


CameraLike: TypeAlias = Camera | str | Mapping[str, Any]


def camera_of(paths: Sequence[AnyPath], camera: CameraLike | None) -> CameraLike:
    """The camera that is named, else ZTF where all are its science images by name, else that of any FITS image."""
    return camera or ("ztf" if all(ZTF.science in file_name(path) for path in paths) else "fits")


def get_camera(camera: CameraLike) -> Camera:
    """A camera by its name in `CAMERAS`, by its data, or itself."""
    if isinstance(camera, Camera):
        return camera
    if isinstance(camera, Mapping):
        return Camera.from_dict(camera)
    if not isinstance(camera, str) or camera.lower() not in CAMERAS:
        raise InputError(
            f"camera is one of {', '.join(CAMERAS)}, or a ztfxr.Camera that says what its headers mean; got {camera!r}"
        )
    return CAMERAS[camera.lower()]


@contextmanager
def header_errors(path: str) -> Iterator[None]:
    """What goes wrong with the cards of a header, as a `HeaderError` that names the file."""
    try:
        yield
    except HeaderError as error:
        raise HeaderError(f"{shown(path)}: {error}") from error
    except (FrameError, InputError):
        raise
    except (fits.VerifyError, ValueError, TypeError, ArithmeticError) as error:
        raise HeaderError(f"{shown(path)}: a card of the header cannot be understood ({error})") from error


# ---- units ----------------------------------------------------------------------------------------------------------


def unit_of(text: str) -> str:
    """A unit as ztfxr writes it, from a header's: DN for adu, electron for its many spellings."""
    text = text.strip()
    squared = _SQUARED.fullmatch(text)
    stem = _PER_SECOND.sub("", text if squared is None else squared[1]).strip()
    if stem.lower() in _DN:
        known = "DN"
    elif _is_electron(stem):
        known = "electron"
    else:
        return text
    if squared is not None:
        return f"{known}2" if stem == squared[1].strip() else text
    return known if stem == text else f"{known}/s"


def electrons_per_unit(unit: str, gain: float, exptime: float) -> float:
    """Electrons that a pixel value of 1 stands for; NaN where nobody knows.

    `gain` is in electrons per count; pixels in electrons have a gain of 1, whatever the header says.
    """
    kind = _counted(unit)
    per_count = 1.0 if _is_electron(_PER_SECOND.sub("", unit)) else gain
    return {"total": per_count, "rate": per_count * exptime, "": np.nan}[kind]


def _counted(unit: str) -> Literal["total", "rate", ""]:
    """Whether a unit is one of counts or electrons, of those per second, or neither."""
    stem = _PER_SECOND.sub("", unit).strip()
    if not _COUNTS.fullmatch(stem):
        return ""
    return "total" if stem == unit.strip() else "rate"


def _is_electron(stem: str) -> bool:
    return bool(_COUNTS.fullmatch(stem)) and stem.lower() not in ("dn", "adu", "ct", "count", "counts")


# ---- cards ----------------------------------------------------------------------------------------------------------


def card_names(source: Source) -> tuple[str, ...]:
    """The cards of a source, in order of preference."""
    return (source,) if isinstance(source, str) else tuple(source) if isinstance(source, Sequence) else ()


def _is_card(name: str, source: Source) -> bool:
    return bool(card_names(source)) and not (name == "filter" and isinstance(source, str) and source.startswith("="))


def _float(header: fits.Header, card: str) -> float:
    """The number of a card; NaN where it says that there is none."""
    value = header[card]
    if value is None or isinstance(value, fits.card.Undefined):
        return np.nan
    if isinstance(value, str):
        if _NO_NUMBER.fullmatch(value.strip()):
            return np.nan
        try:
            return float(value)
        except ValueError:
            pass
    if isinstance(value, bool | str) or not isinstance(value, int | float):
        raise HeaderError(f"{card} = {value!r} is not a number; give another card, or a value")
    return float(value)


def _text(header: fits.Header, card: str) -> str:
    value = header[card]
    if value is None or isinstance(value, fits.card.Undefined | bool):
        return ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = str(value).strip()
    return "" if _NO_NUMBER.fullmatch(text) else text


def _scalar(name: str, value: Any, unit: str) -> xr.Variable:
    return xr.Variable((), value, {**SPECS[name].attrs, **({"units": unit} if unit else {})})


def _plain(value: Any) -> Any:
    """`value` in JSON's types."""
    if isinstance(value, Plane | Layer):
        return {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, np.datetime64):
        return str(value)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(v) for v in value]
    return value


# ---- the rows -------------------------------------------------------------------------------------------------------

_ANY = "fits"
_PLAIN: Mapping[str, Source] = {
    "time": None,
    "exptime": ("EXPTIME", "EXPOSURE", "XPOSURE"),
    "gain": ("EGAIN", "GAIN"),
    "readnoise": ("RDNOISE", "READNOIS", "READNOI"),
    "saturate": "SATURATE",
    "filter": "FILTER",
}

FITS = Camera(_ANY)
"""Any FITS file, by the cards that most cameras write."""

ZTF = Camera(
    "ztf",
    {
        "time": ("OBSMJD", "OBSJD"),
        "exptime": "EXPTIME",
        "filter": ("FILTERID", "FILTER"),
        "field": "FIELDID",
        "ccdid": "CCDID",
        "qid": "QID",
        "filefracday": "FILEFRAC",
        "magzp": "MAGZP",
        "magzprms": "MAGZPRMS",
        "gain": "GAIN",
        "readnoise": "READNOI",
        "seeing": "SEEING",
    },
    filters={"1": "ztfg", "2": "ztfr", "3": "ztfi"}
    | {text.format(band): f"ztf{band}" for band in "gri" for text in ("ztf_{}", "ztf{}", "z{}")},
    required=("time", "filter", "field", "ccdid", "qid"),
    mask=Layer("planes", replace=("sciimg", "mskimg")),
    file_name=(
        r"ztf_(?P<filefracday>\d{14})_(?P<field>\d{6})_(?P<filter>z[gri])_c(?P<ccdid>\d{2})_[a-z](?:_q(?P<qid>[1-4]))?"
    ),
    science="sciimg",
)
"""Science quadrants of the Zwicky Transient Facility, as IPAC makes them."""

LCO = Camera(
    "lco",
    {"gain": "GAIN", "readnoise": "RDNOISE", "seeing": "L1FWHM"},
    units={"seeing": "arcsec"},
    image="SCI",
    mask=Layer("bad", extension="BPM"),
)
"""Frames of the Las Cumbres Observatory, as BANZAI makes them."""

SAAO = Camera(
    "saao",
    {"gain": "GAIN", "saturate": 65000.0, "seeing": "PFWHM", "filter": "FILTERS"},
    filters={"58": "I"},
)
"""The 1.0 m telescope of the South African Astronomical Observatory with the STE3 CCD."""

RISE = Camera("rise", {"saturate": "SATURATN", "seeing": "SEEING", "filter": "FILTER1"})
"""The RISE camera of the Liverpool Telescope."""

DECAM = Camera(
    "decam",
    {"gain": "GAIN", "seeing": "FWHM", "magzp": "MAGZERO"},
    filters={band: band for band in ("u", "g", "r", "i", "z", "Y", "VR")},
    mask=Layer("codes", replace=("_ooi_", "_ood_"), optional=True),
    planes=(
        Plane("bad", 0, "defect of the detector"),
        Plane("no_value", 1, "no value, as in gaps of a stack"),
        Plane("saturated", 2, "saturated pixel"),
        Plane("bleed", 3, "bleed trail"),
        Plane("cosmic_ray", 4, "cosmic ray"),
        Plane("low_weight", 5, "low weight"),
        Plane("diff_detect", 6, "found by comparison with other exposures"),
        Plane("streak", 7, "streak of a satellite or meteor"),
    ),
    bad_planes=("bad", "no_value", "saturated", "bleed", "cosmic_ray", "low_weight", "streak"),
)
"""The Dark Energy Camera, as its community pipeline makes frames."""

CAMERAS: Mapping[str, Camera] = {camera.name: camera for camera in (ZTF, LCO, SAAO, RISE, DECAM, FITS)}
"""The cameras that ztfxr knows, by name."""
