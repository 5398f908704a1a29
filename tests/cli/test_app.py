"""The command line: its commands, their errors, and what importing costs."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import click
import numpy as np
import pytest
import xarray as xr
from click.shell_completion import ShellComplete

from tests.cli.conftest import COMMANDS
from ztfxr import cli, recipes
from ztfxr.cli._base import plain
from ztfxr.cli.app import ztfxr as group


@pytest.fixture
def calls(monkeypatch, tmp_path):
    """What each recipe was called with, in place of running it."""
    made = {}
    found = xr.Dataset({"flux": ("source", [1.0])})
    monkeypatch.chdir(tmp_path)

    def noted(name):
        def recipe(*given, **options):
            made.setdefault(name, []).append((given, options))
            Path(given[-1]).mkdir(exist_ok=True)
            return recipes.Finished(Path("a.zarr"), (Path("a.png"),), found)

        return recipe

    for name in ("run_semireal", "run_alerts", "run_cluster", "run_field"):
        monkeypatch.setattr(recipes, name, noted(name))
    return made


def test_the_demonstration_alone_is_the_semireal_one(calls):
    """README's first command needs no further word."""
    assert cli.main(["demo"]) == cli.main(["demo", "semireal"]) == 0
    first, second = calls["run_semireal"]
    assert first == second == ((Path("ztfxr-demo"),), {"n_epochs": 15, "photometry": "aperture"})


@pytest.mark.parametrize(
    ("arguments", "name", "folder", "options"),
    [
        (["alerts", "packets"], "run_alerts", "ztfxr-alerts", {}),
        (["demo", "alerts", "packets", "--out", "o"], "run_alerts", "o", {}),
        (["demo", "--out", "o"], "run_semireal", "o", {"n_epochs": 15, "photometry": "aperture"}),
        (["demo", "--out", "o", "semireal"], "run_semireal", "o", {"n_epochs": 15, "photometry": "aperture"}),
        (["demo", "semireal", "--out", "o"], "run_semireal", "o", {"n_epochs": 15, "photometry": "aperture"}),
        (
            ["demo", "--out", "p", "semireal", "--out", "o"],
            "run_semireal",
            "o",
            {"n_epochs": 15, "photometry": "aperture"},
        ),
        (
            ["demo", "cluster", "--workers", "3"],
            "run_cluster",
            "ztfxr-example",
            {"n_epochs": 100, "workers": 3, "photometry": "aperture"},
        ),
        (
            ["demo", "semireal", "--photometry", "psf"],
            "run_semireal",
            "ztfxr-demo",
            {"n_epochs": 15, "photometry": "psf"},
        ),
    ],
)
def test_every_recipe_has_a_word(calls, arguments, name, folder, options):
    assert cli.main(arguments) == 0
    ((given, how),) = calls[name]
    assert str(given[-1]) == folder
    assert how == options


@pytest.mark.parametrize("words", [["survey"], ["demo", "field"]])
def test_a_field_is_all_fits_files_of_a_folder(calls, tmp_path, words):
    for name in ("b.fits", "a.fits.gz", "notes.txt"):
        (tmp_path / name).touch()
    assert cli.main([*words, str(tmp_path), "--seeing", "PFWHM", "--out", str(tmp_path / "o")]) == 0
    (((paths, out), options),) = calls["run_field"]
    assert [Path(path).name for path in paths] == ["a.fits.gz", "b.fits"]
    assert out == tmp_path / "o"
    assert options == {"photometry": "psf", "camera": "fits", "saturate": 60000.0, "seeing": "PFWHM"}
    assert (tmp_path / "o" / "variables.ecsv").exists()


@pytest.mark.parametrize(("words", "stream"), [([], "out"), (["--json"], "err"), (["--quiet"], "")])
def test_the_log_is_shown_while_a_command_runs_and_not_afterwards(monkeypatch, capsys, tmp_path, words, stream):
    logger = logging.getLogger("ztfxr")
    before = list(logger.handlers), logger.level
    monkeypatch.chdir(tmp_path)

    def logs(*given, **options):
        logger.getChild("x").info("a line, 5 %")
        return recipes.Finished(Path("a.zarr"), (), xr.Dataset())

    monkeypatch.setattr(recipes, "run_semireal", logs)
    assert cli.main(["demo", *words]) == 0
    found = capsys.readouterr()
    assert [name for name in ("out", "err") if "a line, 5 %" in getattr(found, name)] == [stream][: bool(stream)]
    assert (list(logger.handlers), logger.level) == before


def test_help_reads_well_at_80_columns(monkeypatch, capsys):
    """Nothing is wider, and each command has its line."""
    monkeypatch.setenv("COLUMNS", "80")
    for words in ([], *([name] for name in COMMANDS)):
        assert cli.main([*words, "--help"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert max(map(len, lines)) <= 80
        assert not any("…" in line or "\\b" in line for line in lines)
        if not words:
            rows = {line.split()[1]: line for line in lines if line.startswith("│") and len(line.split()) > 3}
            assert set(COMMANDS) <= set(rows)
            listed = [rows[name].strip("│ ") for name in COMMANDS]
            assert [line for line in listed if not line.endswith(".")] == []


def test_no_words_are_help_and_not_understood(capsys):
    assert cli.main([]) == 2
    assert "Usage: ztfxr" in capsys.readouterr().out


def test_version(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"ztfxr {version('ztfxr')}\n"


def test_json_holds_what_is_not_finite_as_null():
    values = {"a": np.array([1.0, np.nan]), "b": np.float32(np.inf), "c": np.array("2020-01-01", "M8[s]"), "d": True}
    assert (
        json.dumps(plain(values), allow_nan=False)
        == '{"a": [1.0, null], "b": null, "c": "2020-01-01T00:00:00", "d": true}'
    )


@pytest.mark.parametrize("name", COMMANDS)
def test_the_line_of_a_command_is_its_own(name):
    assert COMMANDS[name].name == name
    assert group.get_command(click.Context(group), name) is COMMANDS[name]
    with group._only_listed():
        line = group.get_command(click.Context(group), name).help
    assert COMMANDS[name].help.startswith(f"{line}\n") or COMMANDS[name].help == line


def test_help_imports_no_machinery():
    """What help waits for is xarray and the library that draws it."""
    heavy = ("astropy", "scipy", "numba", "distributed", "matplotlib", "zarr")
    code = f"import sys; from ztfxr.cli import main; main(['--help']); print([m for m in {heavy} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.splitlines()[-1] == "[]"


def test_shells_complete_commands_and_options():
    complete = ShellComplete(group, {}, "ztfxr", "_ZTFXR_COMPLETE")
    assert [item.value for item in complete.get_completions([], "sou")] == ["sources"]
    assert "--reference" in [item.value for item in complete.get_completions(["lightcurve"], "--re")]


def test_importing_ztfxr_imports_little():
    heavy = (
        "matplotlib",
        "rich_click",
        "ztfxr.cli",
        "fastavro",
        "photutils",
        "distributed",
        "scipy",
        "numba",
        "sep",
        "astropy",
        "zarr",
    )
    code = f"import sys, ztfxr; print([m for m in {heavy} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_every_name_is_found_when_it_is_asked_for():
    code = (
        "import xarray as xr, ztfxr; assert set(ztfxr.__all__) <= set(dir(ztfxr)); "
        "missing = [n for n in ztfxr.__all__ if getattr(ztfxr, n, None) is None]; "
        "a = xr.DataArray([[1.0]], dims=('y', 'x')); kinds = [a, a.to_dataset(name='sci'), xr.DataTree()]; "
        "print(missing, [type(k.ztf).__name__ for k in kinds])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[] ['DataArrayAccessor', 'DatasetAccessor', 'DataTreeAccessor']"
