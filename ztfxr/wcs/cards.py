"""The celestial WCS cards of a header, and exact conversions by them."""

from __future__ import annotations

import re
import threading
from functools import lru_cache
from typing import Any

import numpy as np
from astropy.coordinates import ICRS, BaseCoordinateFrame, SkyCoord
from astropy.io import fits
from astropy.wcs import WCS, FITSFixedWarning
from astropy.wcs.utils import wcs_to_celestial_frame

from ztfxr._quiet import quiet
from ztfxr.arrays.types import Bools, Floats
from ztfxr.errors import HeaderError

__all__ = ["build_wcs", "check_cards", "pixel_of", "same_cards", "sky_of", "wcs_cards"]

_AXES = ("WCSAXES", "RADESYS", "RADECSYS", "EQUINOX", "EPOCH", "LONPOLE", "LATPOLE", "MJD-OBS", "DATE-OBS", "RA", "DEC")
# The plate solution of the Digitized Sky Survey, which wcslib reads; AMDX and AMDY go with it.
_PLATE = ("XPIXELSZ", "YPIXELSZ", "PLTSCALE", "PPO3", "PPO6", *(f"PLTRA{c}" for c in "HMS"))
_PLATE += tuple(f"PLTDEC{c}" for c in ("SN", "D", "M", "S"))
_KEYWORDS = frozenset((*_AXES, *_PLATE))
_NEEDED = re.compile(
    r"(CTYPE|CUNIT|CRPIX|CRVAL|CDELT|CROTA|CNPIX|PROJP)\d|CD[12]_[12]|CD00[12]00[12]|PC[12]_[12]|PC00[12]00[12]|PV[12]_\d+"
    r"|WAT[012]_\d+|AMD[XY]\d+|[AB]P?_(\d_\d|ORDER|DMAX)|(CPDIS|CQDIS|D2IMDIS|DP|DQ|D2IM)\d"
)
_TERMS = re.compile(r"PV[12]_|WAT[012]_|AMD[XY]\d|[AB]_(\d|ORDER)")
# PV1_1 to PV1_4 are the native pole, and TAN has no PV2_m of its own: all others are SCAMP's polynomial.
_POLYNOMIAL = re.compile(r"PV1_([5-9]|\d\d)|PV2_")
_NUMBER = re.compile(r"(CRPIX|CRVAL|CDELT|CROTA|CD|PC|PV)\d")
_PLANE = frozenset(("TAN", "TPV", "TNX", "ZPX", "ZPN", "SIN"))
_local = threading.local()


def wcs_cards(header: fits.Header) -> str | None:
    """The celestial WCS cards of `header` as text, or None where it has no celestial WCS.

    The pointing (RA, DEC) goes with them, so that a cut-out or a stack knows it too; it plays no part in the WCS.
    Projections written as TAN with SCAMP's PV cards become TPV, which is what they mean. Raises `HeaderError` where a
    card cannot be read.
    """
    wanted = (c for c in header.cards if c.keyword in _KEYWORDS or _NEEDED.match(c.keyword))
    cards = {card.keyword: value for card in wanted if (value := _value(card)) is not None}
    axes = (str(cards.get("CTYPE1", "")), str(cards.get("CTYPE2", "")))
    if not any(a[:4] in ("RA--", "GLON", "ELON") for a in axes) or "CRVAL1" not in cards:
        return None
    polynomial = any(_POLYNOMIAL.match(k) and v != 0 for k, v in cards.items())
    if axes == ("RA---TAN", "DEC--TAN") and polynomial:
        cards["CTYPE1"], cards["CTYPE2"] = "RA---TPV", "DEC--TPV"
    if "RADECSYS" in cards:
        cards.setdefault("RADESYS", cards.pop("RADECSYS"))
    return "\n".join(_card(key, value) for key, value in cards.items())


def _value(card: fits.Card) -> Any:
    """The value of a card; None where it has none, or where the telescope's pointing is no number."""
    try:
        value = card.value
    except (fits.VerifyError, ValueError) as error:
        raise HeaderError(f"the WCS card {card.keyword} cannot be read ({error}); correct the header") from error
    if isinstance(value, fits.card.Undefined):
        return None
    if isinstance(value, float) and not np.isfinite(value):
        if card.keyword in ("RA", "DEC"):
            return None
        raise HeaderError(f"the WCS card {card.keyword} is {value}; plate-solve the image again")
    if isinstance(value, str) and _NUMBER.match(card.keyword):
        raise HeaderError(f"the WCS card {card.keyword} is a number; got {value!r}: correct the header")
    return value


def _card(key: str, value: Any) -> str:
    """A header card as text; `fits.Card` takes ten times as long over a number, and cuts it to 20 characters."""
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f"{key:8}= {repr(value).upper():>20}"
    return str(fits.Card(key, value)).rstrip()


def build_wcs(cards: str) -> WCS:
    """An `astropy.wcs.WCS` of the cards, this thread's own: wcslib structures are not shared between threads.

    Raises `HeaderError` where the cards are no WCS.
    """
    cache: dict[str, WCS] = _local.__dict__.setdefault("cache", {})
    if cards not in cache:
        if len(cache) > 256:
            cache.clear()
        cache[cards] = _new_wcs(cards)
    return cache[cards]


def _new_wcs(cards: str) -> WCS:
    try:
        with quiet(FITSFixedWarning):
            wcs = WCS(fits.Header.fromstring(cards, sep="\n"), naxis=2)
            wcs.wcs.set()
    # wcslib's errors are many, and have no base but Exception.
    except Exception as error:
        raise HeaderError(f"the WCS cannot be used ({_first_line(error)}); plate-solve the image again") from error
    if wcs.wcs.lng < 0 or wcs.wcs.lat < 0:
        raise HeaderError(f"the WCS has the axes {', '.join(wcs.wcs.ctype)}; a longitude and a latitude are needed")
    return wcs


def _first_line(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(error).__name__


@lru_cache(maxsize=256)
def _frame(cards: str) -> BaseCoordinateFrame | None:
    """The frame of the WCS's longitude and latitude; None where they are ICRS already."""
    try:
        frame = wcs_to_celestial_frame(build_wcs(cards))
    except ValueError as error:
        raise HeaderError(f"the WCS names no celestial frame that is known ({error}); see RADESYS, EQUINOX") from error
    return None if isinstance(frame, ICRS) else frame


def check_cards(cards: str) -> None:
    """Raise `HeaderError` where the cards are no WCS, or name no frame that is known."""
    build_wcs(cards)
    _frame(cards)


def sky_of(cards: str, y: Floats, x: Floats) -> tuple[Floats, Floats]:
    """ICRS RA and Dec in degrees of 0-based pixels, by the whole WCS."""
    wcs, frame = build_wcs(cards), _frame(cards)
    world = wcs.all_pix2world(x, y, 0)
    lon, lat = (np.asarray(world[axis], dtype=float) for axis in (wcs.wcs.lng, wcs.wcs.lat))
    if frame is None:
        return lon, lat
    sky = SkyCoord(lon, lat, unit="deg", frame=frame).icrs
    return np.asarray(sky.ra.deg), np.asarray(sky.dec.deg)


def pixel_of(cards: str, ra: Floats, dec: Floats) -> tuple[Floats, Floats]:
    """0-based x, y of ICRS positions in degrees; NaN where the position lies on the far side of the sky."""
    wcs, frame = build_wcs(cards), _frame(cards)
    finite = np.isfinite(ra) & np.isfinite(dec)
    lon, lat = np.where(finite, ra, 0.0), np.where(finite, dec, 0.0)
    if frame is not None:
        sky = SkyCoord(lon, lat, unit="deg", frame="icrs").transform_to(frame)
        lon, lat = np.asarray(sky.spherical.lon.deg), np.asarray(sky.spherical.lat.deg)
    near = finite & _on_plane(wcs, lon, lat)
    x, y = np.full(np.shape(ra), np.nan), np.full(np.shape(ra), np.nan)
    if near.any():
        world = (lon[near], lat[near]) if wcs.wcs.lng < wcs.wcs.lat else (lat[near], lon[near])
        x[near], y[near] = wcs.all_world2pix(*world, 0, tolerance=1e-7, quiet=True)
    return x, y


def _on_plane(wcs: WCS, lon: Floats, lat: Floats) -> Bools:
    """Whether positions lie within 60 degrees of the point where a projection touches the sky, if it is one of a plane.

    Beyond it a position has no pixel, or by a distorted projection a false one. All-sky projections have no such side.
    """
    if wcs.wcs.ctype[wcs.wcs.lng][5:8] not in _PLANE:
        return np.ones(np.shape(lon), dtype=bool)
    lon0, lat0 = np.deg2rad((wcs.wcs.crval[wcs.wcs.lng], wcs.wcs.crval[wcs.wcs.lat]))
    a, d = np.deg2rad(lon), np.deg2rad(lat)
    return np.asarray(np.sin(d) * np.sin(lat0) + np.cos(d) * np.cos(lat0) * np.cos(a - lon0) > 0.5)


def same_cards(a: str, b: str, tolerance: float = 1e-10) -> bool:
    """Whether two WCS texts describe the same pixel grid on the sky."""
    if a == b:
        return True
    if not _same_terms(_terms(a), _terms(b), tolerance) or not _same_frame(_frame(a), _frame(b)):
        return False
    return bool(build_wcs(a).wcs.compare(build_wcs(b).wcs, cmp=1, tolerance=tolerance))


def _same_frame(a: BaseCoordinateFrame | None, b: BaseCoordinateFrame | None) -> bool:
    return a is b if a is None or b is None else bool(a.is_equivalent_frame(b))


def _same_terms(a: dict[str, float | str], b: dict[str, float | str], tolerance: float) -> bool:
    def close(first: float | str, second: float | str) -> bool:
        if isinstance(first, str) or isinstance(second, str):
            return first == second
        return abs(first - second) <= tolerance

    return a.keys() == b.keys() and all(close(a[key], b[key]) for key in a)


@lru_cache(maxsize=256)
def _terms(cards: str) -> dict[str, float | str]:
    """The terms of the distortion, which `Wcsprm.compare` does not look at."""
    header = fits.Header.fromstring(cards, sep="\n")
    return {k: v if isinstance(v, str) else float(v) for k, v in header.items() if _TERMS.match(k)}
