"""The code of the documentation runs as it stands, block after block."""

from __future__ import annotations

import ast
import re
import shlex
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest

import ztfxr
from tests.packets import write_packets
from ztfxr.cli import main

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
LIGHT_CURVES = DOCS / "light_curves.md"
PAGES = [ROOT / "README.md", *sorted(p for p in DOCS.rglob("*.md") if "_build" not in p.parts)]
RUN = [p for p in PAGES if p.name == "README.md" or p.parent.name in ("start", "howto", "explain")]
BLOCK = re.compile(r"^```(python|console)\n(.*?)^```", flags=re.M | re.S)
NOT_OURS = ("python3 -m venv", "python3 -m pip", "python3 -m pytest", "pip install")
SHOWN_ELSEWHERE = ("ztfxr demo", "ztfxr survey", "ztfxr plan")  # they take long; tests/cli and tests/recipes run them


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def shell(line: str) -> None:
    """Run a line for the shell that calls ztfxr; pass over what installs."""
    if line.startswith((*NOT_OURS, *SHOWN_ELSEWHERE)):
        return
    words = [path for word in shlex.split(line) for path in (sorted(map(str, Path().glob(word))) or [word])]
    assert words[0] == "ztfxr", f"who runs this? {line}"
    assert main(words[1:]) in (0, None)


def run_page(path: Path) -> dict[str, Any]:
    """Run all blocks of a page in their order, in the working directory."""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for language, block in BLOCK.findall(path.read_text(encoding="utf-8")):
        if language == "python":
            exec(compile(block, name(path), "exec"), namespace)
        else:
            for line in re.findall(r"^\$ (.*)$", block, flags=re.M):
                shell(line)
        plt.close("all")
    return namespace


@pytest.fixture
def a_batch_system(monkeypatch: pytest.MonkeyPatch) -> None:
    """``dask_jobqueue`` with a SLURM that is one process of this machine."""
    from distributed import LocalCluster

    class SLURMCluster(LocalCluster):
        def __init__(self, *, cores: int, processes: int, memory: str, walltime: str) -> None:
            assert cores == processes
            super().__init__(n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None)

        def adapt(self, *, maximum_jobs: int) -> None:
            assert maximum_jobs > 0

    module = ModuleType("dask_jobqueue")
    module.SLURMCluster = SLURMCluster  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "dask_jobqueue", module)


@pytest.mark.slow
@pytest.mark.parametrize("path", RUN, ids=name)
def test_every_block_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, a_batch_system: None) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("webbrowser.open", lambda *a, **k: True)
    if path.name == "alerts.md":
        write_packets(tmp_path / "night", 4)
        write_packets(tmp_path / "supernova", 3, one_object=True)
    run_page(path)


@pytest.mark.parametrize("path", PAGES, ids=name)
def test_blocks_use_names_that_exist(path: Path) -> None:
    for language, block in BLOCK.findall(path.read_text(encoding="utf-8")):
        if language != "python":
            continue
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "ztfxr":
                assert hasattr(ztfxr, node.attr), f"{name(path)}: ztfxr.{node.attr}"


def run(section: str, namespace: dict[str, Any]) -> dict[str, Any]:
    """Execute the blocks under one heading of the second level."""
    (text,) = (
        part
        for part in re.split(r"^## ", LIGHT_CURVES.read_text(encoding="utf-8"), flags=re.M)
        if part.startswith(section)
    )
    blocks = re.findall(r"^```python\n(.*?)^```", text, flags=re.M | re.S)
    assert blocks
    for block in blocks:
        exec(compile(block, str(LIGHT_CURVES), "exec"), namespace)
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
    alerts = run("Alert packets", {"ztfxr": ztfxr})
    lc = alerts["lc"].compute()
    assert float(abs(alerts["mag"][:, 0] - lc["magap"]).median()) < 0.02
    assert alerts["fluxes"]["flux_ujy"].shape == (100, 1)
    service = run("The forced photometry service", {"ztfxr": ztfxr})
    assert int(ztfxr.cut_counts(service["lc"]).sel(reason="kept")) == 46
    assert service["table"]["detected"].any()
