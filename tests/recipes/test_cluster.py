"""The example that readers run: a cluster, its dashboard's address, light curves."""

from __future__ import annotations

import re

import numpy as np
import pytest

import ztfxr
from ztfxr.errors import InputError
from ztfxr.recipes import run_cluster

pytestmark = pytest.mark.slow


def test_example_gives_the_injected_light_curve(tmp_path, caplog):
    caplog.set_level("INFO", logger="ztfxr")
    found = run_cluster(tmp_path / "out", n_epochs=8).result
    said = "\n".join(caplog.messages)
    assert re.search(r"dashboard: http://127\.0\.0\.1:\d+/status", said)
    assert f"Store:  {tmp_path / 'out' / 'run.zarr'}" in said
    assert len(re.findall(r"^20\d\d-\d\d-\d\d ", said, re.MULTILINE)) == 8
    assert ztfxr.open_zarr(tmp_path / "out" / "run.zarr")["lightcurve"].sizes == {"time": 8, "source": 1}
    assert (tmp_path / "out" / "lightcurve.png").read_bytes().startswith(b"\x89PNG")
    pull = (found["flux"] - found["injected"]) / found["flux_err"]
    assert (found["status"] == 0).sum() >= 6
    assert np.abs(pull[found["status"] == 0]).max() < 5
    again = run_cluster(tmp_path / "out", n_epochs=2, photometry="psf")
    assert again.result.sizes == {"time": 2}
    assert np.isfinite(again.result["fit_chi2"]).all()


def test_example_replaces_only_its_own(tmp_path):
    (tmp_path / "frames").mkdir()
    with pytest.raises(InputError, match="is not of this example"):
        run_cluster(tmp_path, n_epochs=2)
