"""The gnomonic projection: sky positions to a tangent plane, and back."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from ztfxr.arrays.types import Floats

__all__ = ["from_tangent", "to_tangent"]


_ARCSEC = 180.0 * 3600.0 / np.pi


def to_tangent(lon: ArrayLike, lat: ArrayLike, center: tuple[float, float]) -> tuple[Floats, Floats]:
    """Offsets u (east) and v (north) in arcsec of positions in degrees, on the plane that touches the sky at `center`.

    Any shape. NaN where a position lies 90 degrees or more from the center: it has no place on the plane. Calabretta &
    Greisen 2002, A&A 395, 1077, section 5.1.3.
    """
    lon0, lat0 = np.deg2rad(center)
    d, b = np.deg2rad(lon) - lon0, np.deg2rad(lat)
    depth = np.sin(lat0) * np.sin(b) + np.cos(lat0) * np.cos(b) * np.cos(d)
    depth = np.where(depth > 1e-9, depth, np.nan)
    u = np.cos(b) * np.sin(d) / depth
    v = (np.cos(lat0) * np.sin(b) - np.sin(lat0) * np.cos(b) * np.cos(d)) / depth
    return u * _ARCSEC, v * _ARCSEC


def from_tangent(u: ArrayLike, v: ArrayLike, center: tuple[float, float]) -> tuple[Floats, Floats]:
    """Positions in degrees of offsets in arcsec from `center`: the inverse of `to_tangent`. NaN in, NaN out."""
    lon0, lat0 = np.deg2rad(center)
    east, north = np.asarray(u, dtype=float) / _ARCSEC, np.asarray(v, dtype=float) / _ARCSEC
    toward = np.cos(lat0) - north * np.sin(lat0)
    up = np.sin(lat0) + north * np.cos(lat0)
    lon = np.rad2deg(lon0 + np.arctan2(east, toward)) % 360.0
    return lon, np.rad2deg(np.arctan2(up, np.hypot(toward, east)))
