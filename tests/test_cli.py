"""The command line: its commands, their errors, and what importing costs."""

from __future__ import annotations

import logging
import subprocess
import sys

import pytest

from ztfxr import cli, recipes


def test_the_demonstration_alone_is_the_semireal_one(monkeypatch):
    """README's first command needs no further word."""
    calls = []
    monkeypatch.setattr(recipes, "run_semireal", lambda *given, **options: calls.append((given, options)))
    assert cli.main(["demo"]) == cli.main(["demo", "semireal"]) == 0
    assert calls[0] == calls[1]
    assert str(calls[0][0][0]) == "ztfxr-demo"
    assert calls[0][1] == {"n_epochs": 15, "photometry": "aperture"}


@pytest.mark.parametrize(
    ("arguments", "name", "options"),
    [
        (["alerts", "packets"], "run_alerts", {}),
        (["cluster", "--workers", "3"], "run_cluster", {"n_epochs": 100, "workers": 3, "photometry": "aperture"}),
        (["semireal", "--photometry", "psf"], "run_semireal", {"n_epochs": 15, "photometry": "psf"}),
    ],
)
def test_every_demonstration_has_a_word(monkeypatch, arguments, name, options):
    calls = []
    monkeypatch.setattr(recipes, name, lambda *given, **options: calls.append(options))
    assert cli.main(["demo", *arguments]) == 0
    assert calls == [options]


def test_a_field_is_all_fits_files_of_a_folder(monkeypatch, tmp_path):
    for name in ("b.fits", "a.fits.gz", "notes.txt"):
        (tmp_path / name).touch()
    calls = []
    monkeypatch.setattr(recipes, "run_field", lambda *given, **options: calls.append((given, options)))
    assert cli.main(["demo", "field", str(tmp_path), "--seeing", "PFWHM", "--out", str(tmp_path / "o")]) == 0
    (((paths, out), options),) = calls
    assert [path.name for path in paths] == ["a.fits.gz", "b.fits"]
    assert out == tmp_path / "o"
    assert options == {"photometry": "psf", "camera": "fits", "saturate": 60000.0, "seeing": "PFWHM"}


def test_the_log_is_shown_while_a_command_runs_and_not_afterwards(monkeypatch, capsys):
    logger = logging.getLogger("ztfxr")
    before = list(logger.handlers), logger.level
    monkeypatch.setattr(recipes, "run_semireal", lambda *given, **options: logger.getChild("x").info("a line, 5 %"))
    assert cli.main(["demo"]) == 0
    assert capsys.readouterr().out == "a line, 5 %\n"
    assert (list(logger.handlers), logger.level) == before


def test_errors_are_one_line_and_an_exit_status(tmp_path, capsys):
    assert cli.main(["demo", "alerts", str(tmp_path), "--out", str(tmp_path / "o")]) == 1
    assert "no alert packets" in capsys.readouterr().err
    assert cli.main([]) == 2


@pytest.mark.slow
def test_the_module_runs_as_a_command():
    out = subprocess.run([sys.executable, "-m", "ztfxr", "demo", "--help"], capture_output=True, text=True, check=True)
    assert "alerts" in out.stdout


def test_importing_ztfxr_imports_little():
    heavy = ("matplotlib", "fastavro", "photutils", "distributed", "scipy", "numba", "sep", "astropy", "zarr")
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
