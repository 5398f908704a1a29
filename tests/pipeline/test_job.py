from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.table import Table

from ztfxr.errors import InputError
from ztfxr.ops.positions import position_columns
from ztfxr.pipeline import Job

PAIRS = [(1.0, 2.0), (3.0, 4.5)]


def test_json_gives_the_job_back(tmp_path):
    job = Job(
        frames=[Path("a.fits"), "b.fits"],
        positions=np.array(PAIRS),
        reference=Path("ref.fits"),
        cutout={"ra": np.float64(10.25), "dec": -3.5, "size": np.int64(63)},
        difference={"kernel_size": 7, "exclude": PAIRS},
        photometry={"radius": 4},
        stamps=21,
    )
    path = tmp_path / "job.json"
    assert Job.from_json(job.to_json(path)) == job
    assert Job.from_json(path) == job
    assert Job.from_json(path).fingerprint == job.fingerprint
    assert job.photometry == {"method": "aperture", "radius": 4}


def test_fingerprint_is_of_what_numbers_depend_on():
    job = Job("*.fits", PAIRS)
    assert job.fingerprint == Job(["other.fits"], PAIRS).fingerprint
    changed = [
        Job("*.fits", [(1.0, 2.0), (3.0, 4.4)]),
        Job("*.fits", PAIRS, reference="r.fits"),
        Job("*.fits", PAIRS, difference={"kernel_size": 7}),
        Job("*.fits", PAIRS, photometry={"radius": 5.5}),
        Job("*.fits", PAIRS, stamps=9),
        Job("*.fits", PAIRS, noise="measured"),
        Job("*.fits", PAIRS, align="wcs"),
        Job("*.fits", PAIRS, mask=False),
        Job("*.fits", PAIRS, cutout={"x": 1, "y": 2, "size": 3}),
    ]
    assert len({job.fingerprint, *(other.fingerprint for other in changed)}) == len(changed) + 1


def test_positions_come_in_many_forms(tmp_path):
    sky = SkyCoord([10.0, 11.0] * u.deg, [1.0, 2.0] * u.deg)
    table = Table({"ra": [10.0, 11.0], "dec": [1.0, 2.0], "source_id": ["a", "b"], "mag": [1, 2]})
    table.write(tmp_path / "p.csv", format="ascii.csv")
    table.write(tmp_path / "p.ecsv")
    table.write(tmp_path / "p.fits")
    for positions in (sky, table, {"ra": [10.0, 11.0], "dec": [1.0, 2.0]}, *(tmp_path.glob("p.*"))):
        found = Job("*.fits", positions).positions
        np.testing.assert_allclose([found["ra"], found["dec"]], [[10, 11], [1, 2]])
        assert set(found) <= {"ra", "dec", "source_id"}
    assert Job("*.fits", tmp_path / "p.csv").positions["source_id"] == ["a", "b"]


def test_positions_are_those_of_every_other_function():
    """Units, masked entries and other names of columns, as where positions are given to a function."""
    table = Table({"ra": [1.0, 2.0] * u.hourangle, "dec": [60.0, 90.0] * u.arcmin, "name": ["a", "b"]}, masked=True)
    table["dec"].mask = [False, True]
    found = Job("*.fits", table).positions
    expected = position_columns(table)
    np.testing.assert_allclose(found["ra"], [15.0, 30.0])
    np.testing.assert_allclose(found["dec"], [1.0, np.nan])
    assert found["source_id"] == ["a", "b"]
    for name, column in (("ra", "ra"), ("dec", "dec"), ("source_id", "id")):
        np.testing.assert_array_equal(found[name], expected[column])
    resolved = xr.Dataset({"x_centroid": ("source", [1, 2]), "y_centroid": ("source", [3, 4])})
    assert Job("*.fits", resolved).positions == {"x": [1.0, 2.0], "y": [3.0, 4.0]}
    assert Job("*.fits", np.array([(5.0, 6.0)], dtype=[("x", "f8"), ("y", "f8")])).positions == {"x": [5.0], "y": [6.0]}


def test_paths_of_a_pattern_are_looked_up_late(tmp_path):
    job = Job(str(tmp_path / "*.fits"), PAIRS)
    with pytest.raises(InputError, match="nothing matches"):
        job.paths()
    for nothing in ("", []):
        with pytest.raises(InputError, match="no frames to open: the list of paths is empty"):
            Job(nothing, PAIRS).paths()
    for name in ("b.fits", "a.fits"):
        (tmp_path / name).touch()
    assert [Path(p).name for p in job.paths()] == ["a.fits", "b.fits"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"difference": {"kernel": 7}}, "difference has no option kernel; its options are kernel_size"),
        ({"difference": {"variance": 7}}, "difference has no option variance"),
        ({"difference": {"kernel_size": 8}}, "kernel_size must be odd"),
        ({"difference": {"basis": "splines"}}, "basis is one of 'delta', 'gaussian'; got 'splines'"),
        ({"photometry": {"method": "eye"}}, "method is 'aperture' or 'psf'; got 'eye'"),
        ({"photometry": {"method": "psf", "masked": "drop"}}, "photometry by psf has no option masked"),
        ({"noise": "much"}, "noise is one of"),
        ({"align": "hand"}, "align is None or one of"),
        ({"cutout": {"ra": 1, "y": 2, "size": 3}}, "cutout has ra, dec, size or x, y, size"),
        ({"reference": {"best": 3}}, "reference is a path or"),
        ({"stamps": 0}, "at least 1"),
        ({"positions": [1.0, 2.0, 3.0]}, r"pairs of shape \(n, 2\)"),
        ({"positions": {"ra": [1.0], "x": [2.0]}}, "positions need columns"),
        ({"positions": {"ra": [1.0], "dec": [2.0, 3.0]}}, "differ in length"),
        ({"positions": {"ra": [], "dec": []}}, "no positions are given"),
        ({"difference": {"exclude": object()}}, "which JSON cannot hold"),
    ],
)
def test_what_is_wrong_with_a_job(options, message):
    with pytest.raises(InputError, match=message):
        Job(**({"frames": "*.fits", "positions": PAIRS} | options))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        (json.dumps({"ztfxr_job": 2, "frames": "a", "positions": PAIRS}), "not a job of format 1"),
        (json.dumps({"frames": "a", "positions": PAIRS, "color": 1}), r"unknown: \['color'\]"),
        (json.dumps({"frames": "a"}), r"missing: \['positions'\]"),
    ],
)
def test_what_is_wrong_with_json(text, message):
    with pytest.raises(InputError, match=message):
        Job.from_json(text)


def test_two_frames_of_one_name_are_refused():
    with pytest.raises(InputError, match="two frames are named a"):
        Job(["x/a.fits", "y/a.fits.gz"], PAIRS).paths()
