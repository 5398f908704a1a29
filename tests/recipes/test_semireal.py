"""The demonstration on packaged epochs."""

from __future__ import annotations

import re

import numpy as np
import pytest

import ztfxr
from ztfxr import cli
from ztfxr.recipes import run_semireal


def test_the_semireal_demonstration(tmp_path, capsys):
    assert cli.main(["demo", "semireal", "--out", str(tmp_path), "--epochs", "6"]) == 0
    printed = capsys.readouterr().out
    assert "not observations" in printed
    assert len(re.findall(r"^2020-", printed, re.M)) == 6
    lc = ztfxr.open_zarr(tmp_path / "lightcurve.zarr")["lightcurve"].to_dataset()
    assert lc.sizes["time"] == 6
    assert (tmp_path / "lightcurve.png").read_bytes().startswith(b"\x89PNG")
    pulls = [float(p) for p in re.findall(r"^2020-.{56}\s+\S+\s+\S+\s+(\S+)", printed, re.M)]
    assert all(abs(p) < 5 for p in pulls)


@pytest.mark.slow
def test_psf_fits_measure_the_injected_flux_too(tmp_path, caplog):
    caplog.set_level("INFO", logger="ztfxr")
    done = run_semireal(tmp_path, n_epochs=4, photometry="psf")
    assert any("PSF of the reference from" in line for line in caplog.messages)
    assert done.figures == (tmp_path / "lightcurve.png",)
    assert done.store == tmp_path / "lightcurve.zarr"
    table = [line for line in caplog.text.splitlines() if line.startswith("2020-")]
    assert len(table) == 4
    lc = done.result
    assert np.isfinite(lc["fit_chi2"]).all()
    pulls = [float(line.split()[7]) for line in table]
    assert np.abs(pulls).max() < 5
