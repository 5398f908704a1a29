"""The sky of headers of every kind is astropy's, in ICRS, or is refused by name."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import astropy
import numpy as np
import pytest
import xarray as xr
from astropy.io import fits
from astropy.wcs import WCS
from hypothesis import given, settings
from hypothesis import strategies as st

import ztfxr
from tests.conftest import EXAMPLES
from ztfxr.errors import HeaderError, ZtfxrError
from ztfxr.wcs.cards import pixel_of, same_cards, sky_of, wcs_cards

X, Y = np.array([0.0, 10.0, 333.3, 720.0]), np.array([0.0, 900.0, 70.5, 150.0])


def header(projection: str = "TAN", **cards: float | str) -> fits.Header:
    """A header of 1000 by 1000 pixels of about one arcsecond at (150, 20) degrees."""
    out = fits.Header()
    plain = {"CRVAL1": 150.0, "CRVAL2": 20.0, "CRPIX1": 500.0, "CRPIX2": 480.0}
    matrix = {"CD1_1": -3e-4, "CD1_2": 1e-5, "CD2_1": 1.2e-5, "CD2_2": 3e-4}
    out["CTYPE1"], out["CTYPE2"] = f"RA---{projection}", f"DEC--{projection}"
    out.update({**plain, **matrix, **cards})
    return out


def astropy_sky(head: fits.Header) -> tuple[np.ndarray, np.ndarray]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sky = WCS(head, naxis=2).pixel_to_world(X, Y).icrs
    return sky.ra.deg, sky.dec.deg


def separation(a: tuple[np.ndarray, np.ndarray], b: tuple[np.ndarray, np.ndarray]) -> float:
    """The largest difference in arcsec, right ascension along the parallel."""
    ra = (a[0] - b[0] + 180.0) % 360.0 - 180.0
    return float(3600 * np.max(np.hypot(ra * np.cos(np.deg2rad(b[1])), a[1] - b[1])))


def assert_is_astropys(head: fits.Header) -> None:
    cards = wcs_cards(head)
    assert cards is not None
    ra, dec = sky_of(cards, Y, X)
    assert separation((ra, dec), astropy_sky(head)) < 1e-3
    np.testing.assert_allclose(pixel_of(cards, ra, dec), (X, Y), atol=1e-4)


POLYNOMIAL = {"PV1_0": 1e-4, "PV1_1": 1.0, "PV1_2": 1e-3, "PV1_7": 1e-2, "PV2_0": 0.0, "PV2_1": 1.0, "PV2_7": -1e-2}
NATIVE_POLE = {"PV1_1": 0.0, "PV1_2": 90.0, "PV1_3": 180.0}
CORRECTIONS = {
    "WAT1": 'wtype=tnx axtype=ra lngcor = "3. 3. 3. 2. -0.15 0.15 -0.15 0.15 1.E-4 3.E-4 -2.E-4 1.E-4 2.E-4 5.E-5 "',
    "WAT2": 'wtype=tnx axtype=dec latcor = "3. 3. 3. 2. -0.15 0.15 -0.15 0.15 -2.E-4 1.E-4 1.E-4 2.E-4 -1.E-4 3.E-5 "',
}
# IRAF fills each card to its 68 characters.
WAT = {f"{name}_{i:03d}": text[68 * i - 68 : 68 * i] for name, text in CORRECTIONS.items() for i in (1, 2)}
FAR = {"CRVAL1": 0.0, "CRVAL2": 0.0, "CRPIX2": -1.5e5}
FRAMES: list[dict[str, float | str]] = [{}, {"RADESYS": "ICRS"}, {"EQUINOX": 2000.0}, {"EQUINOX": 1950.0}]
FRAMES.append({"RADESYS": "FK5", "EQUINOX": 1975.0})
KINDS = {
    "ICRS": header(RADESYS="ICRS"),
    "no frame named": header(),
    "FK5": header(EQUINOX=2000.0),
    "FK5 of date": header(RADESYS="FK5", EQUINOX=2018.5),
    "FK4": header(RADESYS="FK4", EQUINOX=1950.0),
    "equinox 1950": header(EQUINOX=1950.0),
    "epoch 1950": header(EPOCH=1950.0),
    "old name of the frame": header(RADECSYS="FK5", EQUINOX=2000.0),
    "TPV": header("TPV", **POLYNOMIAL),
    "TAN with SCAMP's polynomial": header(**POLYNOMIAL),
    "native pole": header(**NATIVE_POLE),
    "native pole and zeros": header(**NATIVE_POLE, PV2_1=0.0, PV2_2=0.0),
    "TNX": header("TNX", **WAT),
    "SIP": header("TAN-SIP", A_ORDER=2, B_ORDER=2, A_0_2=1e-6, B_2_0=-2e-6),
    "SIN": header("SIN"),
    "galactic": header(CTYPE1="GLON-TAN", CTYPE2="GLAT-TAN"),
    "latitude first": header(CTYPE1="DEC--TAN", CTYPE2="RA---TAN", CRVAL1=20.0, CRVAL2=150.0),
    **{f"{name} far from its reference": header(name, **FAR) for name in ("CAR", "CEA", "ZEA", "AIT")},
}


@pytest.mark.parametrize("head", KINDS.values(), ids=KINDS)
def test_kinds(head: fits.Header) -> None:
    assert_is_astropys(head)


def test_old_matrix() -> None:
    head = header()
    for key in list(head["CD*"]):
        del head[key]
    head.update({"CDELT1": -3e-4, "CDELT2": 3e-4})
    head.update({"PC001001": 0.8, "PC001002": 0.6, "PC002001": -0.6, "PC002002": 0.8})
    assert_is_astropys(head)


@pytest.mark.parametrize(
    ("cards", "message"),
    [
        ({"A_ORDER": 2, "A_0_2": 1e-6}, "A_ORDER provided without corresponding B_ORDER"),
        ({"CRVAL1": "here"}, "CRVAL1 is a number; got 'here'"),
        ({"CD1_1": 0.0, "CD1_2": 0.0}, "WCS cannot be used"),
        ({"CTYPE2": "FREQ"}, "WCS cannot be used|axes"),
        ({"CUNIT1": "degrees"}, "CUNIT1"),
        ({"RADESYS": "GAPPT"}, "no celestial frame"),
    ],
)
def test_what_is_no_wcs_is_refused(cards: dict[str, float | str], message: str) -> None:
    image = xr.DataArray(np.zeros((4, 5)), dims=("y", "x"))
    with pytest.raises(HeaderError, match=message):
        ztfxr.assign_wcs(image, header("TAN-SIP" if "A_ORDER" in cards else "TAN", **cards))


def test_a_card_that_cannot_be_read() -> None:
    head = fits.Header.fromstring(header().tostring(sep="\n").replace("150.0", "  NAN"), sep="\n")
    with pytest.raises(HeaderError, match="CRVAL1"):
        wcs_cards(head)


def test_frames_tell_images_apart() -> None:
    icrs, fk5 = wcs_cards(header(RADESYS="ICRS")), wcs_cards(header(RADESYS="FK5", EQUINOX=2000.0))
    assert icrs is not None
    assert fk5 is not None
    assert not same_cards(icrs, fk5)
    assert same_cards(fk5, fk5 + " ")


angles = st.floats(-180.0, 180.0)


@settings(max_examples=EXAMPLES, deadline=None)
@given(
    projection=st.sampled_from(["TAN", "SIN", "STG", "ARC", "ZEA", "TPV", "TAN-SIP", "CAR", "CEA"]),
    ra=st.floats(0.0, 359.99),
    dec=st.floats(-85.0, 85.0),
    turn=angles,
    frame=st.sampled_from(FRAMES),
    terms=st.lists(st.floats(-1e-2, 1e-2), min_size=4, max_size=4),
)
def test_generated_headers(
    projection: str, ra: float, dec: float, turn: float, frame: dict[str, float | str], terms: list[float]
) -> None:
    c, s = np.cos(np.deg2rad(turn)), np.sin(np.deg2rad(turn))
    matrix = {"CD1_1": -3e-4 * c, "CD1_2": 3e-4 * s, "CD2_1": 3e-4 * s, "CD2_2": 3e-4 * c}
    extra: dict[str, float | str] = {}
    if projection == "TPV":
        extra = {"PV1_1": 1.0, "PV2_1": 1.0, "PV1_2": terms[0], "PV1_5": terms[1], "PV2_4": terms[2], "PV2_7": terms[3]}
    if projection == "TAN-SIP":
        terms = [1e-4 * t for t in terms]
        extra = {"A_ORDER": 2, "B_ORDER": 2, "A_0_2": terms[0], "A_1_1": terms[1], "B_2_0": terms[2], "B_0_2": terms[3]}
    cylinder = projection in ("CAR", "CEA")
    assert_is_astropys(header(projection, CRVAL1=ra, CRVAL2=0.0 if cylinder else dec, **matrix, **frame, **extra))


def headers_of_astropy() -> Iterator[tuple[str, fits.Header]]:
    """Every header in the data that astropy's own tests come with."""
    root = Path(astropy.__file__).parent
    for part in ("io/fits", "wcs", "nddata", "utils"):
        for path in sorted((root / part / "tests" / "data").rglob("*")):
            try:
                if path.suffix in (".hdr", ".txt"):
                    yield path.name, fits.Header.fromtextfile(path)
                elif path.is_file():
                    with fits.open(path) as hdus:
                        yield from ((f"{path.name}[{i}]", hdu.header) for i, hdu in enumerate(hdus))
            except Exception:
                continue


def test_headers_of_astropys_tests() -> None:
    right, wrong = 0, []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, head in headers_of_astropy():
            try:
                cards = wcs_cards(head)
                if cards is None:
                    continue
                found = sky_of(cards, Y, X)
            except ZtfxrError:
                continue
            truth = astropy_sky(head)
            there = np.isfinite(truth[0])
            same = np.array_equal(there, np.isfinite(found[0]))
            near = not there.any() or separation(tuple(v[there] for v in found), tuple(v[there] for v in truth)) < 1e-3
            right += same and near
            wrong += [] if same and near else [name]
    assert wrong == []
    assert right >= 15
