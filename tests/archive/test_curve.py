"""From a position to a light curve in one call: truth that was injected, and nothing asked twice."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

import ztfxr
from tests.archive.conftest import N_EPOCHS, Serve, ask
from ztfxr.archive import lightcurve
from ztfxr.errors import ArchiveError, InputError
from ztfxr.samples import SemiReal
from ztfxr.testing.loopback import Loopback

HOW = {"size": 121, "difference": {"kernel_size": 7}, "photometry": {"method": "aperture", "radius": 5.0}}


@pytest.fixture(scope="module")
def place(made: tuple[Path, SemiReal]) -> tuple[float, float]:
    """Where the supernova is on the sky."""
    path = next((made[0] / "ref").rglob("*_refimg.fits"))
    x, y = float(made[1].truth["x"]), float(made[1].truth["y"])
    sky = WCS(fits.getheader(path)).pixel_to_world(x, y)
    return float(sky.ra.deg), float(sky.dec.deg)


def products(server: Loopback) -> list[str]:
    return [a.name for a in server.asked if "/data/" in a.path]


def test_one_call_from_a_position_to_the_light_curve(serve: Serve, tmp_path: Path, made, place) -> None:
    server, truth = serve(), made[1].truth
    tomorrow = [row for row in server.rows["sci"] if row["obsjd"] > server.rows["sci"][-2]["obsjd"]]
    server.rows["sci"] = [row for row in server.rows["sci"] if row not in tomorrow]
    archive, store = ask(server, tmp_path / "data"), tmp_path / "sn.zarr"
    first = lightcurve(place, store, archive=archive, **HOW)
    assert first.sizes == {"time": N_EPOCHS - 1, "source": 1}
    assert (first.attrs["measured"], first.attrs["left_out"]) == (N_EPOCHS - 1, "")
    assert first.attrs["bytes"] > 0
    assert len(products(server)) == 2 * (N_EPOCHS - 1) + 1
    assert "public rows only" in first.attrs["access"]
    check(first, truth.isel(time=slice(0, N_EPOCHS - 1)))

    before = len(server.asked)
    again = lightcurve(place, store, archive=archive, **HOW)
    assert (again.attrs["requests"], again.attrs["bytes"], again.attrs["measured"]) == (0, 0, 0)
    assert len(server.asked) == before
    np.testing.assert_array_equal(again["flux"], first["flux"])

    server.rows["sci"] += tomorrow
    for kept in (tmp_path / "data" / ".ztfxr" / "answers").iterdir():
        kept.unlink()
    third = lightcurve(place, store, archive=archive, **HOW)
    assert third.attrs["measured"] == 1
    assert len(products(server)) == 2 * N_EPOCHS + 1
    np.testing.assert_array_equal(third["flux"][: N_EPOCHS - 1], first["flux"])
    check(third, truth)


def check(lc, truth) -> None:
    """Within the errors of what was injected."""
    pull = (lc["flux"].values[:, 0] - truth["flux"].values) / lc["flux_err"].values[:, 0]
    usable = np.isfinite(pull) & (lc["status"].values[:, 0] == 0)
    assert usable.sum() >= 3
    assert np.abs(pull[usable]).max() < 4.5
    assert np.isfinite(lc["flux_ujy"].values).sum() >= 3


def test_frames_that_do_not_come_are_left_out_and_named(serve: Serve, tmp_path: Path, made, place) -> None:
    lost = made[1].paths[1].name.replace("sciimg", "mskimg")
    server = serve(faults={lost: ["404"]}, lasting={lost})
    out = lightcurve(place, tmp_path / "sn.zarr", archive=ask(server, tmp_path), reference="build", **HOW)
    assert out.sizes["time"] == N_EPOCHS - 1
    assert "mskimg" in out.attrs["left_out"]
    assert "missing" in out.attrs["left_out"]


def test_what_there_is_not(serve: Serve, tmp_path: Path, place) -> None:
    server = serve()
    archive = ask(server, tmp_path)
    with pytest.raises(ArchiveError, match="no exposure in g"):
        lightcurve(place, tmp_path / "a.zarr", filter="g", archive=archive)
    server.rows["ref"].clear()
    with pytest.raises(ArchiveError, match='use reference="build"'):
        lightcurve(place, tmp_path / "a.zarr", archive=archive, **HOW)
    with pytest.raises(InputError, match="'archive' or 'build'"):
        lightcurve(place, tmp_path / "a.zarr", reference="none", archive=archive, **HOW)
    assert not (tmp_path / "a.zarr").exists()


def test_it_is_no_twin_of_the_light_curve_of_images() -> None:
    assert ztfxr.archive.lightcurve is not ztfxr.lightcurve


def test_the_command(serve: Serve, tmp_path: Path, made, place) -> None:
    """A store, a table and a figure; again, and nothing is asked."""
    server = serve()
    words = ["fetch", "--ra", str(place[0]), "--dec", str(place[1]), "--size", "121", "--data", str(tmp_path / "data")]
    words += ["--server", server.address, "--out", str(tmp_path / "sn"), "--json"]
    found = []
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-m", "ztfxr", *words], capture_output=True, text=True, check=False, cwd=tmp_path
        )
        assert done.returncode == 0, done.stderr
        found.append(json.loads(done.stdout))
    first, again = found
    assert (first["measured"], first["epochs"]) == (N_EPOCHS, N_EPOCHS)
    assert (again["requests"], again["bytes"], again["measured"]) == (0, 0, 0)
    assert again["light_curve"] == first["light_curve"]
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith("sn")) == [
        "sn.ecsv",
        "sn.png",
        "sn.zarr",
    ]
