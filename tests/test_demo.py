"""The two demonstrations and the command line."""

from __future__ import annotations

import re
import subprocess
import sys

import numpy as np
import pytest
import xarray as xr

import ztfxr
from ztfxr import cli, demo


def test_the_semireal_demonstration(tmp_path, capsys):
    assert cli.main(["demo", "--out", str(tmp_path), "--epochs", "6"]) == 0
    printed = capsys.readouterr().out
    assert "not observations" in printed
    assert len(re.findall(r"^2020-", printed, re.M)) == 6
    lc = ztfxr.open_zarr(tmp_path / "lightcurve.zarr")["lightcurve"].to_dataset()
    assert lc.sizes["time"] == 6
    assert (tmp_path / "lightcurve.png").read_bytes().startswith(b"\x89PNG")
    pulls = [float(p) for p in re.findall(r"^2020-.{56}\s+\S+\s+\S+\s+(\S+)", printed, re.M)]
    assert all(abs(p) < 5 for p in pulls)


def test_the_alert_demonstration(tmp_path, capsys, alert_paths):
    assert cli.main(["demo", "--alerts", str(alert_paths[0].parent), "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    medians = re.search(r"brighter than 15 mag: ([\d.]+) %", printed)
    assert medians is not None
    assert float(medians[1]) <= 1.0
    scatter = re.search(r"residual scatter over IPAC's: ([\d.]+)", printed)
    assert scatter is not None
    assert float(scatter[1]) <= 1.02
    assert "outside 10 px of the transient" in printed


def test_the_alert_light_curve_is_reopened_equal(tmp_path, alert_paths):
    result = demo.run_alerts(alert_paths[0].parent, tmp_path, report=lambda line: None)
    tree = ztfxr.open_alerts(alert_paths)
    stamps = tree["ztfg"].to_dataset()
    expected = ztfxr.lightcurve(stamps.ztf.difference(exclude_radius=10).compute(), [(0, 0)], radius=7)
    xr.testing.assert_identical(result.lightcurve[list(expected.data_vars)], expected)
    assert np.isfinite(result.lightcurve.flux).all()


def test_errors_are_one_line_and_an_exit_status(tmp_path, capsys):
    assert cli.main(["demo", "--alerts", str(tmp_path), "--out", str(tmp_path / "o")]) == 1
    assert "no alert packets" in capsys.readouterr().err
    assert cli.main([]) == 2


@pytest.mark.slow
def test_the_module_runs_as_a_command():
    out = subprocess.run([sys.executable, "-m", "ztfxr", "demo", "--help"], capture_output=True, text=True, check=True)
    assert "--alerts" in out.stdout


def test_importing_ztfxr_needs_neither_matplotlib_nor_the_extras():
    heavy = ("matplotlib", "fastavro", "photutils", "distributed")
    code = f"import sys, ztfxr; print([m for m in {heavy} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
