"""The gnomonic projection against wcslib's TAN."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.wcs import WCS
from hypothesis import given
from hypothesis import strategies as st

from ztfxr.arrays.geometry.tangent import from_tangent, to_tangent

CENTERS = [(150.3, 20.7), (0.0, 0.0), (359.99, -30.0), (10.0, 90.0), (200.0, -90.0), (77.0, 89.5)]


def tan(center: tuple[float, float]) -> WCS:
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval, wcs.wcs.crpix, wcs.wcs.cdelt = center, [0.0, 0.0], [1 / 3600, 1 / 3600]
    wcs.wcs.lonpole = 180.0
    return wcs


@pytest.mark.parametrize("center", CENTERS)
def test_it_is_tan_of_wcslib(center: tuple[float, float]) -> None:
    """To 1e-8 arcsec within five degrees, a ZTF field; east and north are positive."""
    u, v = np.random.default_rng(0).uniform(-18000, 18000, (2, 500))
    lon, lat = tan(center).wcs_pix2world(u, v, 1)
    lon, lat = np.asarray(lon), np.asarray(lat)
    np.testing.assert_allclose(to_tangent(lon, lat, center), (u, v), rtol=0, atol=1e-8)
    ra, dec = from_tangent(u, v, center)
    np.testing.assert_allclose(np.cos(np.deg2rad(lat)) * ((ra - lon + 180) % 360 - 180), 0, atol=1e-12)
    np.testing.assert_allclose(dec, lat, rtol=0, atol=1e-12)


@given(st.sampled_from(CENTERS), st.floats(-3e5, 3e5), st.floats(-3e5, 3e5))
def test_round_trip(center: tuple[float, float], u: float, v: float) -> None:
    np.testing.assert_allclose(to_tangent(*from_tangent(u, v, center), center), (u, v), rtol=1e-11, atol=1e-8)


def test_what_is_far_has_no_place() -> None:
    u, v = to_tangent([10.0, 100.0, 190.0, 279.0, np.nan], 0.0, (10.0, 0.0))
    assert np.isnan(u).tolist() == np.isnan(v).tolist() == [False, True, True, True, True]
    assert from_tangent(np.nan, 1.0, (10.0, 0.0))[0].shape == ()
    assert np.isnan(from_tangent(np.nan, 1.0, (10.0, 0.0))).all()
