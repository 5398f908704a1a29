"""Every command as a process, on packaged frames: its exit code, its JSON, and what it leaves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table

import ztfxr
from tests.cli.conftest import COMMANDS, Shell
from tests.pipeline.conftest import make_job
from ztfxr.samples import SemiReal, sample_path

SAMPLE = sample_path()
PLACE = ("--x", "193.4", "--y", "181.7")
RA, DEC = "03:52:57.975", "+35:34:46.4"


def answer(done: Any) -> dict[str, Any]:
    """What a process printed: one JSON object, and nothing else."""
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert all(Path(path).name for path in found["outputs"])
    return found


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_info(shell: Shell, tmp_path: Path) -> None:
    (about,) = answer(shell("info", SAMPLE, "--json"))["files"]
    assert about["sizes"] == {"y": 320, "x": 320}
    assert about["filter"] == "ztfr"
    assert abs(about["center"]["ra"] - 58.25708) < 1e-4
    assert left(tmp_path) == []


def test_show(shell: Shell, tmp_path: Path) -> None:
    assert answer(shell("show", SAMPLE, "--planes", "--json"))["outputs"] == left(tmp_path)
    (picture,) = tmp_path.iterdir()
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_mask(shell: Shell, tmp_path: Path) -> None:
    frame = ztfxr.open_quadrant(SAMPLE)
    flags = frame.flags.ztf.mask(["saturated"]).values
    y, x = np.argwhere(flags)[0] + [int(frame.y[0]), int(frame.x[0])]
    star = ztfxr.pixel_to_sky(frame, x, y)
    where = ("--ra", star.ra.to_string(unit="hour", sep=":", precision=5), "--dec", star.dec.deg)
    found = answer(shell("mask", SAMPLE, *where, "--planes", "saturated", "--out", "m.fits", "--json"))
    assert found["bad_fraction"] == pytest.approx(flags.mean())
    assert "saturated" in found["positions"][0]["planes"]
    np.testing.assert_array_equal(fits.getdata(tmp_path / "m.fits") > 0, flags)


def test_stamp(shell: Shell, tmp_path: Path, made: SemiReal) -> None:
    answer(shell("stamp", *made.paths, *PLACE, "--size", "21", "--out", "s.zarr", "--json"))
    tree = ztfxr.open_zarr(tmp_path / "s.zarr")
    assert len(tree.children) == 3
    first = ztfxr.open_quadrant(made.paths[0]).sci.sel(x=slice(183, 203), y=slice(172, 192))
    np.testing.assert_array_equal(tree[made.paths[0].stem].to_dataset().sci.values, first.values)


def test_sources(shell: Shell, tmp_path: Path) -> None:
    n = answer(shell("sources", SAMPLE, "--out", "s.ecsv", "--json"))["n_sources"]
    table = Table.read(tmp_path / "s.ecsv", format="ascii.ecsv")
    assert len(table) == n > 100
    assert str(table["ra"].unit) == "deg"


def test_difference(shell: Shell, tmp_path: Path, made: SemiReal) -> None:
    best = int(np.argmax(made.truth["flux"].values))
    where = (*PLACE, "--size", "120", "--align", "none", "--kernel-size", "9")
    found = answer(shell("difference", made.paths[best], made.reference, *where, "--out", "d.fits", "--json"))
    assert found["kernel_sum"] == pytest.approx(float(made.truth["transparency"][best]), abs=0.03)
    image = ztfxr.open_fits(tmp_path / "d.fits")
    peak = image["difference"].where(~image["mask"]).argmax(("y", "x"))
    assert np.hypot(int(image.x.values[int(peak["x"])]) - 193.4, int(image.y.values[int(peak["y"])]) - 181.7) < 2.5


def test_lightcurve(shell: Shell, tmp_path: Path, made: SemiReal) -> None:
    """README's line: a pattern, a sexagesimal position and a reference give a store, a table and a figure."""
    pattern = str(made.reference.parent / "*sciimg*")
    words = ("lightcurve", pattern, "--ra", RA, "--dec", DEC, "--reference", made.reference, "--size", "120")
    found = answer(shell(*words, "--json"))
    assert left(tmp_path) == [".lightcurve.zarr.lock", "lightcurve.ecsv", "lightcurve.png", "lightcurve.zarr"]
    flux, error = (np.ravel(found["light_curve"][name]) for name in ("flux", "flux_err"))
    assert len(flux) == 3
    assert np.all(np.abs(flux - made.truth["flux"].values) < 5 * error + 0.05 * made.truth["flux"].values)
    table = Table.read(tmp_path / "lightcurve.ecsv", format="ascii.ecsv")
    np.testing.assert_allclose(table["flux"], flux)
    assert str(table["flux_ujy"].unit) == "uJy"


def test_export_and_inject(shell: Shell, tmp_path: Path, made: SemiReal) -> None:
    found = answer(shell("inject", made.reference, *PLACE, "--flux", "9000", "--out", "in.fits", "--json"))
    assert found["flux"] == [9000.0]
    put = ztfxr.open_fits(tmp_path / "in.fits").sci - ztfxr.open_quadrant(made.reference).sci
    near = put.sel(x=slice(186, 201), y=slice(174, 189))
    assert float(near.sum()) == pytest.approx(9000, rel=0.03)
    assert float(put.sum()) == pytest.approx(float(near.sum()), rel=0.02)
    answer(shell("export", "in.fits", "--out", "in.zarr", "--json"))
    np.testing.assert_array_equal(ztfxr.open_zarr(tmp_path / "in.zarr").sci, ztfxr.open_fits(tmp_path / "in.fits").sci)


def test_run_and_plan(shell: Shell, tmp_path: Path, made: SemiReal) -> None:
    make_job(made).to_json(tmp_path / "job.json")
    assert answer(shell("run", "job.json", "lc.zarr", "--workers", "1", "--json"))["measured"] == 3
    assert ztfxr.open_zarr(tmp_path / "lc.zarr")["lightcurve"].sizes["time"] == 3
    assert answer(shell("plan", "job.json", "--workers", "1,4", "--sample", "1", "--json"))["workers"] == [1, 4]


@pytest.mark.parametrize("words", [["demo", "--out", "here"], ["demo", "--out", "here", "semireal"]])
def test_demo(shell: Shell, tmp_path: Path, words: list[str]) -> None:
    """The options of the demonstration count with and without the word that names it."""
    found = answer(shell(*words[:1], "--epochs", "2", *words[1:], "--json"))
    assert found["outputs"] == ["here/lightcurve.zarr", "here/lightcurve.png"]
    assert left(tmp_path) == ["here"]


@pytest.mark.slow
def test_alerts(shell: Shell, tmp_path: Path, shared: Path) -> None:
    found = answer(shell("alerts", shared / "data" / "ztf_alerts", "--json"))
    assert left(tmp_path / "ztfxr-alerts") == sorted(Path(path).name for path in found["outputs"])
    table = Table.read(tmp_path / "ztfxr-alerts" / "lightcurve.ecsv", format="ascii.ecsv")
    assert np.nanmedian(np.abs(table["deviation_psf"])) < 0.05


def test_doctor(shell: Shell) -> None:
    found = answer(shell("doctor", "--json"))
    assert found["self_check"]["good"] is True
    assert found["packages"]["ztfxr"] == ztfxr.__version__
    assert "alerts" in found["extras"]


def test_every_command_is_here() -> None:
    """A command without a process in this module fails; some run where what they call is tested."""
    text, elsewhere = Path(__file__).read_text(encoding="utf-8"), ("survey", "fetch", "view")
    assert [name for name in COMMANDS if f'"{name}"' not in text and name not in elsewhere] == []
