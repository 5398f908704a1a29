"""ds9 region files, read by hand and by the package `regions` where it is installed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from astropy import units as u
from astropy.coordinates import SkyCoord

import ztfxr
from ztfxr.errors import InputError, StoreError


@pytest.fixture
def catalog() -> xr.Dataset:
    columns = {
        "x_centroid": [0.0, 10.25, 3.5],
        "y_centroid": [4.0, 20.75, 1.0],
        "semimajor_axis": [2.0, 1.5, 1.0],
        "semiminor_axis": [1.0, 0.5, 1.0],
        "orientation": [0.0, np.deg2rad(30.0), -np.deg2rad(45.0)],
        "name": np.array(["a", "b}\n{c", "é"]),
        "size": [1.0, 2.0, 3.0],
    }
    out = xr.Dataset({k: ("source", np.asarray(v)) for k, v in columns.items()})
    out["orientation"].attrs["units"] = "rad"
    sky = {"ra": ("source", [57.12345678, 359.99999, np.nan]), "dec": ("source", [35.5, -0.00001, 1.0])}
    return out.assign_coords(sky)


def parse(path: Path) -> tuple[str, str, list[tuple[str, list[str], str]]]:
    """The global line, the frame, and shape, numbers and label of every region."""
    first, properties, frame, *rest = path.read_text().splitlines()
    assert first == "# Region file format: DS9 version 4.1"
    found = []
    for line in rest:
        match = re.fullmatch(r"(\w+)\(([^()]*)\)(?: # text=\{([^{}]*)\})?", line)
        assert match, line
        found.append((match[1], match[2].split(","), match[3] or ""))
    return properties, frame, found


def test_circles_on_the_sky(catalog: xr.Dataset, tmp_path: Path) -> None:
    assert catalog.ztf.to_regions(tmp_path / "a.reg", label="name", radius=1 * u.arcmin, color="#ff00aa") is None
    properties, frame, regions = parse(tmp_path / "a.reg")
    assert (properties, frame) == ("global color=#ff00aa", "icrs")
    assert [(shape, label) for shape, _, label in regions] == [("circle", "a"), ("circle", "bc")]
    for (_, (ra, dec, radius), _), i in zip(regions, (0, 1), strict=True):
        assert float(ra) == pytest.approx(float(catalog["ra"][i]), abs=1e-8)
        assert float(dec) == pytest.approx(float(catalog["dec"][i]), abs=1e-8)
        assert radius == '60.0000"'


def test_fk5_is_astropys(catalog: xr.Dataset, tmp_path: Path) -> None:
    ztfxr.to_regions(catalog, tmp_path / "a.reg", frame="fk5", radius="size")
    _, frame, regions = parse(tmp_path / "a.reg")
    expected = SkyCoord(catalog["ra"][:2], catalog["dec"][:2], unit="deg").fk5
    found = SkyCoord(
        [float(n[0]) for _, n, _ in regions], [float(n[1]) for _, n, _ in regions], unit="deg", frame="fk5"
    )
    assert frame == "fk5"
    assert found.separation(expected).arcsec.max() < 1e-4
    assert [n[2] for _, n, _ in regions] == ['1.0000"', '2.0000"']


def test_ellipses_on_pixels(catalog: xr.Dataset, tmp_path: Path) -> None:
    """ds9 counts pixels from 1 and angles in degrees from +x to +y."""
    ztfxr.to_regions(catalog, tmp_path / "a.reg", frame="physical", scale=2.0)
    _, frame, regions = parse(tmp_path / "a.reg")
    assert frame == "physical"
    assert [shape for shape, _, _ in regions] == ["ellipse"] * 3
    numbers = np.array([[float(v) for v in n] for _, n, _ in regions])
    np.testing.assert_allclose(numbers[:, 0], catalog["x_centroid"] + 1.0)
    np.testing.assert_allclose(numbers[:, 1], catalog["y_centroid"] + 1.0)
    np.testing.assert_allclose(numbers[:, 2:], [[4.0, 2.0, 0.0], [3.0, 1.0, 30.0], [2.0, 2.0, -45.0]])
    round_ones = catalog.drop_vars("orientation")
    ztfxr.to_regions(round_ones, tmp_path / "b.reg", frame="physical", radius=7.0)
    assert [n[2] for _, n, _ in parse(tmp_path / "b.reg")[2]] == ["7.000"] * 3


def test_degrees_need_no_conversion(catalog: xr.Dataset, tmp_path: Path) -> None:
    catalog["orientation"] = ("source", [0.0, 30.0, -45.0], {"units": "deg"})
    ztfxr.to_regions(catalog, tmp_path / "a.reg", frame="physical")
    assert [n[4] for _, n, _ in parse(tmp_path / "a.reg")[2]] == ["0.000", "30.000", "-45.000"]


def test_numbers_as_labels(catalog: xr.Dataset, tmp_path: Path) -> None:
    ztfxr.to_regions(catalog.assign(mag=("source", [18.123456789, 2.0, np.nan])), tmp_path / "a.reg", label="mag")
    assert [label for _, _, label in parse(tmp_path / "a.reg")[2]] == ["18.1235", "2"]


def test_an_independent_reader(catalog: xr.Dataset, tmp_path: Path) -> None:
    regions = pytest.importorskip("regions")
    ztfxr.to_regions(catalog, tmp_path / "a.reg", label="name", radius=2.0)
    found = regions.Regions.read(tmp_path / "a.reg", format="ds9")
    assert len(found) == 2
    sky = SkyCoord([r.center.ra for r in found], [r.center.dec for r in found])
    assert sky.separation(SkyCoord(catalog["ra"][:2], catalog["dec"][:2], unit="deg")).arcsec.max() < 1e-4
    assert found[0].radius.to_value("arcsec") == 2.0
    assert found[0].meta["text"] == "a"


def test_an_empty_catalog_is_a_file_without_regions(catalog: xr.Dataset, tmp_path: Path) -> None:
    ztfxr.to_regions(catalog.isel(source=[]), tmp_path / "a.reg", label="name")
    assert parse(tmp_path / "a.reg")[2] == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"frame": "galactic"}, "frame is 'icrs', 'fk5' or 'physical'; got 'galactic'"),
        ({"color": "red\nimage"}, "color is a name or #rrggbb"),
        ({"label": "title"}, "the catalog has no column 'title'; it has x_centroid"),
        ({"radius": 3 * u.pix}, r"radius=3\.0 pix is not in arcsec"),
        ({"radius": "width"}, "no column 'width'"),
    ],
)
def test_arguments_that_make_no_sense(
    catalog: xr.Dataset, tmp_path: Path, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        ztfxr.to_regions(catalog, tmp_path / "a.reg", **arguments)
    assert not list(tmp_path.iterdir())


def test_positions_are_needed(catalog: xr.Dataset, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no column 'ra'"):
        ztfxr.to_regions({"x": [1.0], "y": [2.0]}, tmp_path / "a.reg")
    with pytest.raises(InputError, match="no column 'x_centroid'"):
        ztfxr.to_regions({"ra": [1.0], "dec": [2.0]}, tmp_path / "a.reg", frame="physical")


def test_nothing_is_replaced_unasked(catalog: xr.Dataset, tmp_path: Path) -> None:
    ztfxr.to_regions(catalog, tmp_path / "a.reg")
    with pytest.raises(StoreError, match="exists already"):
        ztfxr.to_regions(catalog, tmp_path / "a.reg")
    ztfxr.to_regions(catalog, tmp_path / "a.reg", color="red", overwrite=True)
    assert "color=red" in (tmp_path / "a.reg").read_text()
