"""Every form of a position means the same in every public function that takes positions."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.table import QTable, Table

import ztfxr
from tests.test_labels import _psf, scene, stack
from ztfxr.errors import InputError
from ztfxr.ops.positions import position_columns

PX = {"x": [20.3, 40.1, 30.7], "y": [30.2, 22.4, 40.6]}


@cache
def image() -> xr.Dataset:
    return stack().isel(time=0, drop=True)


@cache
def sky() -> SkyCoord:
    return ztfxr.pixel_to_sky(image(), PX["x"], PX["y"])


def hms() -> list[str]:
    return list(sky().ra.to_string(unit="hour", sep=":", precision=8, pad=True))


def dms() -> list[str]:
    return list(sky().dec.to_string(sep=":", precision=7, alwayssign=True, pad=True))


FORMS: dict[str, Callable[[Path], Any]] = {
    "degrees": lambda _: {"ra": sky().ra.deg, "dec": sky().dec.deg},
    "quantities": lambda _: {"ra": sky().ra.to(u.hourangle), "dec": sky().dec.to(u.arcmin)},
    "pair of quantities": lambda _: (sky().ra.to(u.rad), sky().dec.to(u.deg)),
    "pairs of quantities": lambda _: list(zip(sky().ra.to(u.hourangle), sky().dec.to(u.deg), strict=True)),
    "quantity (n, 2)": lambda _: u.Quantity([sky().ra, sky().dec]).T.to(u.rad),
    "sexagesimal columns": lambda _: {"ra": hms(), "dec": dms()},
    "sexagesimal pairs": lambda _: list(zip(hms(), dms(), strict=True)),
    "sexagesimal text": lambda _: [f"{ra} {dec}" for ra, dec in zip(hms(), dms(), strict=True)],
    "degrees as text": lambda _: [f"{p.ra.deg:.10f}, {p.dec.deg:.10f}" for p in sky()],
    "SkyCoord": lambda _: sky(),
    "galactic": lambda _: sky().galactic,
    "SkyCoords": lambda _: list(sky()),
    "table with units": lambda _: QTable({"RA_ICRS": sky().ra.to(u.hourangle), "DE_ICRS": sky().dec.to(u.arcsec)}),
    "frame": lambda _: pd.DataFrame({"raMean": sky().ra.deg, "decMean": sky().dec.deg}),
    "ECSV with units": lambda folder: written(
        folder / "stars.ecsv", ra=sky().ra.to(u.hourangle), dec=sky().dec.to(u.rad)
    ),
    "CSV of text": lambda folder: str(written(folder / "stars.csv", ra=hms(), dec=dms())),
    "FITS": lambda folder: written(folder / "stars.fits", ra=sky().ra.to(u.rad), dec=sky().dec.to(u.deg)),
}

FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "resolve_positions": lambda p: ztfxr.resolve_positions(image(), p),
    "contains": lambda p: ztfxr.contains(image(), p),
    "stamps": lambda p: ztfxr.stamps(image().sci, p, size=7),
    "aperture_photometry": lambda p: ztfxr.aperture_photometry(image(), p, radius=4),
    "forced_photometry": lambda p: ztfxr.forced_photometry(image(), p, _psf()),
    "build_psf": lambda p: ztfxr.build_psf(image(), stars=p, order=0),
    "inject": lambda p: ztfxr.inject(image(), p, [900.0, 800.0, 700.0], _psf(), noise=False),
    "difference": lambda p: ztfxr.difference(image(), scene().reference, kernel_size=3, exclude=p),
    "solve_kernel": lambda p: ztfxr.solve_kernel(image(), scene().reference, kernel_size=3, exclude=p),
    "lightcurve": lambda p: ztfxr.lightcurve(stack(), p, reference=scene().reference, kernel_size=3, radius=4),
    "difference_photometry": lambda p: ztfxr.difference_photometry(
        image(), scene().reference, positions=p, size=50, kernel_size=3, method="none"
    ),
    "pipeline.Job": lambda p: ztfxr.pipeline.Job(frames="*.fits", positions=p).positions,
}


def written(path: Path, **columns: Any) -> Path:
    Table(columns).write(path, overwrite=True)
    return path


@cache
def expected(function: str) -> Any:
    return computed(function, {"ra": sky().ra.deg, "dec": sky().dec.deg})


def computed(function: str, positions: Any) -> Any:
    found = FUNCTIONS[function](positions)
    return found.compute() if hasattr(found, "compute") else found


SLOW = ("build_psf", "difference", "solve_kernel", "lightcurve", "difference_photometry")
SOME = ("pair of quantities", "sexagesimal pairs", "ECSV with units")
"""Forms that functions which take long are tested with; the others are tested with all."""


@pytest.mark.parametrize(
    ("function", "form"), [(f, form) for f in FUNCTIONS for form in FORMS if f not in SLOW or form in SOME]
)
def test_every_form_in_every_function(function: str, form: str, tmp_path: Path) -> None:
    found, wanted = computed(function, FORMS[form](tmp_path)), expected(function)
    if isinstance(wanted, dict):
        assert set(found) == set(wanted)
        for name in wanted:
            np.testing.assert_allclose(found[name], wanted[name], atol=1e-8)
    else:
        xr.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-4)


ONE: dict[str, Callable[[], tuple[Any, Any]]] = {
    "degrees": lambda: (sky()[0].ra.deg, sky()[0].dec.deg),
    "text of degrees": lambda: (f"{sky()[0].ra.deg:.10f}", f"{sky()[0].dec.deg:.10f}"),
    "sexagesimal": lambda: (hms()[0], dms()[0]),
    "quantities": lambda: (sky()[0].ra.to(u.hourangle), sky()[0].dec.to(u.arcsec)),
}
AT: dict[str, Callable[[Any, Any], Any]] = {
    "stamp": lambda ra, dec: ztfxr.stamp(image().sci, ra=ra, dec=dec, size=5).values,
    "explain": lambda ra, dec: ztfxr.explain(image().flags, ra=ra, dec=dec).values,
    "sky_to_pixel": lambda ra, dec: ztfxr.sky_to_pixel(image(), ra=ra, dec=dec),
    "sky_to_tangent": lambda ra, dec: ztfxr.sky_to_tangent(image(), ra=ra, dec=dec, center=sky()[1]),
    "sel": lambda ra, dec: image().sci.sel(ra=ra, dec=dec).values,
}


@pytest.mark.parametrize("form", ONE)
@pytest.mark.parametrize("function", AT)
def test_every_form_of_one_position(function: str, form: str) -> None:
    found, wanted = AT[function](*ONE[form]()), AT[function](sky()[0].ra.deg, sky()[0].dec.deg)
    if function == "explain":
        assert found == wanted
    else:
        np.testing.assert_allclose(found, wanted, atol=1e-4)


def test_a_catalog_may_hold_text() -> None:
    found = ztfxr.as_catalog({"ra": hms(), "dec": dms(), "mag": [1.0, 2.0, 3.0]})
    np.testing.assert_allclose(found["ra"], sky().ra.deg, atol=1e-8)
    np.testing.assert_allclose(found["dec"], sky().dec.deg, atol=1e-8)


@pytest.mark.parametrize(
    ("positions", "error", "message"),
    [
        ("stars.csv", FileNotFoundError, "no such file of positions: stars.csv"),
        (Path("here"), FileNotFoundError, "no such file of positions: here"),
        ("M 31", InputError, "'M 31' is no position"),
        (("12.0 95.0",), InputError, "'12.0 95.0' is no position"),
        ((1 * u.deg, 2 * u.m), InputError, "positions are"),
        ([1, 2, 3] * u.deg, InputError, "two of them or two columns"),
        ({"ra": [1.0] * u.m, "dec": [2.0] * u.deg}, InputError, "no angle"),
        ({"ra": ["here"], "dec": ["there"]}, InputError, "ra 'here' is no angle"),
    ],
)
def test_what_is_no_position(positions: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        position_columns(positions)


def test_a_stamp_has_one_position() -> None:
    with pytest.raises(InputError, match="2 are given"):
        ztfxr.stamp(image(), ra=[1.0, 2.0], dec=[3.0, 4.0])
