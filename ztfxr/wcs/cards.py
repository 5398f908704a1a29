"""The celestial WCS cards of a header, and exact conversions by them."""

from __future__ import annotations

import re
import threading
from functools import lru_cache
from typing import Any

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS, FITSFixedWarning

from ztfxr._quiet import quiet
from ztfxr.arrays.types import Floats

__all__ = ["build_wcs", "pixel_of", "same_cards", "sky_of", "wcs_cards"]

_KEYWORDS = ("WCSAXES", "RADESYS", "RADECSYS", "EQUINOX", "LONPOLE", "LATPOLE", "MJD-OBS", "DATE-OBS", "RA", "DEC")
_STEMS = ("CTYPE", "CUNIT", "CRPIX", "CRVAL", "CDELT", "CROTA", "CD1_", "CD2_", "PC1_", "PC2_", "PV1_", "PV2_")
_SIP = re.compile(r"[AB]P?_(\d|ORDER|DMAX)")
_DISTORTION = re.compile(r"PV[12]_|[AB]_(\d|ORDER)")
_local = threading.local()


def wcs_cards(header: fits.Header) -> str | None:
    """The celestial WCS cards of `header` as text, or None where it has no celestial WCS.

    The pointing (RA, DEC) goes with them, so that a cut-out or a stack knows it too; it plays no part in the WCS.
    Projections written as TAN with SCAMP's PV cards become TPV, which is what they mean.
    """
    cards: dict[str, Any] = {}
    for card in header.cards:
        key = card.keyword
        if key in _KEYWORDS or key.startswith(_STEMS) or _SIP.match(key):
            cards[key] = card.value
    axes = (str(cards.get("CTYPE1", "")), str(cards.get("CTYPE2", "")))
    if not (axes[0].startswith("RA--") and axes[1].startswith("DEC-")) or "CRVAL1" not in cards:
        return None
    if axes == ("RA---TAN", "DEC--TAN") and any(k.startswith(("PV1_", "PV2_")) for k in cards):
        cards["CTYPE1"], cards["CTYPE2"] = "RA---TPV", "DEC--TPV"
    if "RADECSYS" in cards:
        cards.setdefault("RADESYS", cards.pop("RADECSYS"))
    return "\n".join(_card(key, value) for key, value in cards.items())


def _card(key: str, value: Any) -> str:
    """A header card as text; `fits.Card` takes ten times as long over a number, and cuts it to 20 characters."""
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f"{key:8}= {repr(value).upper():>20}"
    return str(fits.Card(key, value)).rstrip()


def build_wcs(cards: str) -> WCS:
    """An `astropy.wcs.WCS` of the cards, this thread's own: wcslib structures are not shared between threads."""
    cache: dict[str, WCS] = _local.__dict__.setdefault("cache", {})
    if cards not in cache:
        if len(cache) > 256:
            cache.clear()
        with quiet(FITSFixedWarning):
            wcs = WCS(fits.Header.fromstring(cards, sep="\n"), naxis=2)
            wcs.wcs.set()
        cache[cards] = wcs
    return cache[cards]


def sky_of(cards: str, y: Floats, x: Floats) -> tuple[Floats, Floats]:
    """RA and Dec in degrees of 0-based pixels, by the whole WCS."""
    lon, lat = build_wcs(cards).all_pix2world(x, y, 0)
    return np.asarray(lon, dtype=float), np.asarray(lat, dtype=float)


def pixel_of(cards: str, ra: Floats, dec: Floats) -> tuple[Floats, Floats]:
    """0-based x, y; NaN where the position lies on the far side of the sky."""
    wcs = build_wcs(cards)
    finite = np.isfinite(ra) & np.isfinite(dec)
    near = np.zeros(np.shape(ra), dtype=bool)
    lon0, lat0 = np.deg2rad(wcs.wcs.crval)
    lon, lat = np.deg2rad(np.where(finite, ra, 0.0)), np.deg2rad(np.where(finite, dec, 0.0))
    near = finite & (np.sin(lat) * np.sin(lat0) + np.cos(lat) * np.cos(lat0) * np.cos(lon - lon0) > 0.5)
    x, y = np.full(np.shape(ra), np.nan), np.full(np.shape(ra), np.nan)
    if near.any():
        found = wcs.all_world2pix(np.asarray(ra)[near], np.asarray(dec)[near], 0, tolerance=1e-7, quiet=True)
        x[near], y[near] = found
    return x, y


def same_cards(a: str, b: str, tolerance: float = 1e-10) -> bool:
    """Whether two WCS texts describe the same pixel grid on the sky."""
    if a == b:
        return True
    first, second = _distortion(a), _distortion(b)
    if first.keys() != second.keys() or any(abs(first[k] - second[k]) > tolerance for k in first):
        return False
    return bool(build_wcs(a).wcs.compare(build_wcs(b).wcs, cmp=1, tolerance=tolerance))


@lru_cache(maxsize=256)
def _distortion(cards: str) -> dict[str, float]:
    """The distortion terms, PV and SIP, which `Wcsprm.compare` does not look at."""
    header = fits.Header.fromstring(cards, sep="\n")
    return {key: float(value) for key, value in header.items() if _DISTORTION.match(key)}
