"""What goes wrong with each command: one line that says what to do, an exit code, and nothing left behind."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from tests.cli.conftest import Shell
from ztfxr import cli
from ztfxr.cli.app import ztfxr as group
from ztfxr.samples import SemiReal, sample_path

SAMPLE = str(sample_path())
PLACE = ("--x", "700", "--y", "2000")
ROOT = Path(cli.__file__).parents[1]

MISUNDERSTOOD = {
    "no such command": (["lightcurv"], "Did you mean 'lightcurve'"),
    "no such option": (["info", SAMPLE, "--raa", "1"], "No such option '--raa'"),
    "no frames": (["lightcurve"], "Missing argument"),
    "no position": (["lightcurve", SAMPLE], "--ra and --dec, --x and --y, or --positions"),
    "half a position": (["stamp", SAMPLE, "--ra", "58.2"], "1 --ra but 0 --dec"),
    "two kinds of position": (["stamp", SAMPLE, "--ra", "1", "--dec", "1", "--x", "1", "--y", "1"], "given twice"),
    "unknown extension": (["sources", SAMPLE, "--out", "s.xlsx"], ".csv .ecsv .parquet .fits .reg"),
    "no extension": (["stamp", SAMPLE, "--x", "700", "--y", "2000", "--out", "s"], ".fits .fits.gz .zarr"),
    "extension of a store": (["lightcurve", SAMPLE, "--x", "700", "--y", "2000", "--out", "s.doc"], ".zarr"),
    "several stamps in FITS": (
        ["stamp", SAMPLE, "--x", "700", "--y", "2000", "--x", "710", "--y", "2010", "--out", "s.fits"],
        "2 stamps go into one of .zarr",
    ),
    "radius of a fit": (["lightcurve", SAMPLE, "--x", "1", "--y", "1", "--psf", "--radius", "3"], "--psf"),
    "no brightness": (["inject", SAMPLE, "--x", "700", "--y", "2000"], "--flux or by --mag"),
    "size without position": (["difference", SAMPLE, SAMPLE, "--size", "99"], "--size"),
    "no workers": (["plan", "job.json", "--workers", "many"], "1,2,8"),
    "nowhere to export": (["export", SAMPLE], "--out is needed"),
    "unknown camera": (["info", SAMPLE, "--camera", "kodak"], "'ztf'"),
}

FAILED = {
    "no file": (["info", "nowhere.fits"], "nothing matches 'nowhere.fits'"),
    "no file to mask": (["mask", "nowhere.fits"], "no such file: nowhere.fits"),
    "no frame": (["show", "page.fits"], "page.fits"),
    "no angle": (["stamp", SAMPLE, "--ra", "here", "--dec", "35"], "ra 'here' is no angle"),
    "off the frame": (["stamp", SAMPLE, "--x", "5", "--y", "5"], "lies off it"),
    "no table": (["lightcurve", SAMPLE, "--positions", "nowhere.csv"], "no such file of positions: nowhere.csv"),
    "no reference": (["lightcurve", SAMPLE, "--x", "700", "--y", "2000", "--reference", "r.fits"], "r.fits"),
    "itself": (["lightcurve", SAMPLE, "--x", "700", "--y", "2000", "--reference", SAMPLE], "the reference itself"),
    "no folder": (["sources", SAMPLE, "--out", "none/s.csv"], "none does not exist"),
    "a store that exists": (["lightcurve", SAMPLE, *PLACE, "--out", "old.zarr", "--overwrite"], "old.zarr exists"),
    "what exists": (["sources", SAMPLE, "--out", "page.csv"], "--overwrite"),
    "an image as a table": (["export", SAMPLE, "--out", "s.csv"], ".csv does not hold images"),
    "a group of a frame": (["export", SAMPLE, "--group", "g", "--out", "s.fits"], "leave out --group"),
    "no job": (["run", "nowhere.json"], "no such file of a job"),
    "no job to plan": (["plan", "nowhere.json"], "no such file of a job"),
    "no packets": (["alerts", "."], "no alert packets"),
    "no frames of a field": (["survey", "none*"], "nothing matches"),
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with files that are not what their names say."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "page.fits").write_text("<html>")
    (tmp_path / "old.zarr").mkdir()
    (tmp_path / "page.csv").write_text("<html>")
    return tmp_path


def said(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line of an error."""
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("ztfxr")
    return err


@pytest.mark.parametrize("case", MISUNDERSTOOD)
def test_what_is_not_understood(case: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words, message = MISUNDERSTOOD[case]
    before = sorted(folder.rglob("*"))
    assert cli.main(words) == 2
    assert message in said(capsys)
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize("case", FAILED)
def test_what_fails(case: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words, message = FAILED[case]
    before = sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock")
    assert cli.main(words) == 1
    assert message in said(capsys)
    assert sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock") == before


def test_an_error_for_machines_is_json_too(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["info", "page.fits", "--json"]) == 1
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert found["command"] == "info"
    assert found["error"]["type"] == "NotFITSError"
    assert found["error"]["message"] in err


def test_debug_shows_the_trace(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--debug", "info", "page.fits"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_a_fault_of_ours_is_one_line_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], folder: Path
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise KeyError("oops")

    monkeypatch.setattr("ztfxr.cli.measure.detect", broken)
    assert cli.main(["sources", SAMPLE]) == 1
    assert "unexpected KeyError: 'oops'; this is a fault of ztfxr: report what --debug shows" in said(capsys)


def test_what_fails_late_leaves_no_part_of_a_file(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], folder: Path
) -> None:
    """The figure cannot be drawn to its end; what is there stays as it was."""

    def half(figure: object, path: Path, **_: object) -> None:
        Path(path).write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", half)
    before = {path: path.read_bytes() for path in folder.glob("*.*") if path.is_file()}
    assert cli.main(["show", SAMPLE, "--out", "new.png"]) == 1
    assert "disk full" in said(capsys)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_failures_of_a_process(shell: Shell, made: SemiReal, tmp_path: Path) -> None:
    where = ("--ra", "1", "--dec", "1", "--reference", made.reference, "--json")
    done = shell("lightcurve", *made.paths, *where)
    assert done.returncode == 1
    assert "no pixel" in json.loads(done.stdout)["error"]["message"]
    assert [path for path in tmp_path.iterdir() if not path.name.endswith(".lock")] == []
    done = shell("lightcurve")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)


def options(command: click.Command) -> Iterator[str]:
    """The options of a command and of those in it."""
    yield from (name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts))
    if isinstance(command, click.Group):
        for name in command.list_commands(click.Context(command)):
            yield from options(command.get_command(click.Context(command), name))


def test_every_option_that_a_message_names_exists() -> None:
    known = {*options(group), "--help"}
    named = set()
    for path in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                named |= set(re.findall(r"(?<![\w-])--[a-z][a-z-]*[a-z]", node.value))
    assert named - known == set()
    assert len(named & known) > 20
