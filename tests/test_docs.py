"""The code of the documentation runs as it stands, block after block."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

PAGE = Path(__file__).parents[1] / "docs" / "light_curves.md"


def run(section: str, namespace: dict[str, Any]) -> dict[str, Any]:
    """Execute the blocks under one heading of the second level."""
    (text,) = (
        part for part in re.split(r"^## ", PAGE.read_text(encoding="utf-8"), flags=re.M) if part.startswith(section)
    )
    blocks = re.findall(r"^```python\n(.*?)^```", text, flags=re.M | re.S)
    assert blocks
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), namespace)
    return namespace


@pytest.mark.slow
def test_light_curves_from_images(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = run("Images", {})
    lc, truth = found["lc"], found["truth"]
    transient = truth.isel(source=(truth["kind"] == "transient").values)
    expected = transient["flux"].values * 10 ** (-0.4 * (found["images"]["magzp"].values[:, None] - 23.9))
    usable = (lc["cuts"].values == 0) & np.isfinite(lc["flux_ujy"].values)
    pulls = ((lc["flux_ujy"].values - expected) / lc["flux_ujy_err"].values)[usable]
    assert usable.mean() > 0.5
    assert np.median(np.abs(pulls)) < 1.5
    star = found["star"].compute()
    light = truth["flux"].values[:, (truth["kind"] == "variable").values]
    light = light * 10 ** (-0.4 * (found["images"]["magzp"].values[:, None] - 23.9))
    assert np.nanmedian(np.abs(star["total_ujy"].values / light - 1)) < 0.05
    assert (tmp_path / "lc.zarr").exists()
    assert found["nights"].sizes["time"] <= star.sizes["time"]
    assert found["table"]["detected"].any()


@pytest.mark.slow
def test_light_curves_from_alerts_and_from_the_service(tmp_path, monkeypatch, shared):
    monkeypatch.chdir(tmp_path)
    for folder in ("ztf_alerts", "ztf_alerts_night", "alerts_schema4"):
        (tmp_path / folder).symlink_to(shared / "data" / folder)
    name = "forcedphotometry_req00010458_lc.txt"
    (tmp_path / name).symlink_to(shared / "data" / "zfps" / name)
    import ztfxr

    alerts = run("Alert packets", {"ztfxr": ztfxr})
    lc = alerts["lc"].compute()
    assert float(abs(alerts["mag"][:, 0] - lc["magap"]).median()) < 0.02
    assert alerts["fluxes"]["flux_ujy"].shape == (100, 1)
    service = run("The forced photometry service", {"ztfxr": ztfxr})
    assert int(ztfxr.cut_counts(service["lc"]).sel(reason="kept")) == 46
    assert service["table"]["detected"].any()
