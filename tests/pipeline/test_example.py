"""The example that readers run: a cluster, its dashboard's address, light curves."""

from __future__ import annotations

import re

import numpy as np
import pytest

import ztfxr
from ztfxr.errors import InputError
from ztfxr.pipeline import example

pytestmark = pytest.mark.slow


def test_example_gives_the_injected_light_curve(tmp_path, capsys):
    arguments = ["--epochs", "8", "--out", str(tmp_path / "out")]
    found = example.main(arguments)
    said = capsys.readouterr().out
    assert re.search(r"dashboard: http://127\.0\.0\.1:\d+/status", said)
    assert f"store:  {tmp_path / 'out' / 'run.zarr'}" in said
    assert len(re.findall(r"^20\d\d-\d\d-\d\dT", said, re.MULTILINE)) == 8
    assert ztfxr.open_zarr(tmp_path / "out" / "run.zarr")["lightcurve"].sizes == {"time": 8, "source": 1}
    assert (tmp_path / "out" / "lightcurve.png").read_bytes().startswith(b"\x89PNG")
    pull = (found["flux"] - found["injected"]) / found["flux_err"]
    assert (found["status"] == 0).sum() >= 6
    assert np.abs(pull[found["status"] == 0]).max() < 5
    again = example.main(["--epochs", "2", "--out", str(tmp_path / "out")])
    assert again.sizes == {"time": 2}


def test_example_replaces_only_its_own(tmp_path):
    (tmp_path / "frames").mkdir()
    with pytest.raises(InputError, match="is not of this example"):
        example.main(["--epochs", "2", "--out", str(tmp_path)])
