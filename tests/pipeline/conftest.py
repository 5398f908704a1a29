"""Semi-real frames, a small job on them, and what its store holds, byte by byte."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from ztfxr import pipeline
from ztfxr.samples import SemiReal, make_epochs

POSITIONS = {"x": [193.4, 170.0, 200.3], "y": [181.7, 190.0, 170.2], "source_id": ["sn", "a", "b"]}
N_EPOCHS = 6


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> SemiReal:
    """Frames that no test changes."""
    return make_epochs(tmp_path_factory.mktemp("frames"), n_epochs=N_EPOCHS)


def make_job(made: SemiReal, **options: Any) -> pipeline.Job:
    """A job on a cut-out of 72 pixels."""
    given = {"frames": made.paths, "positions": POSITIONS, "reference": str(made.reference)}
    given |= {"cutout": {"x": 190, "y": 180, "size": 72}, "difference": {"kernel_size": 7}}
    return pipeline.Job(**(given | options))


def run(job: pipeline.Job, store: Path, **options: Any) -> Any:
    """`pipeline.run` in this process, in silence."""
    return pipeline.run(job, store, **({"workers": 1, "progress": False} | options))


def chunks(store: Path) -> dict[str, bytes]:
    """Every file with data of a store, by its place in it."""
    files = [path for path in store.rglob("*") if path.is_file() and path.name != "zarr.json"]
    return {str(path.relative_to(store)): path.read_bytes() for path in files}


@pytest.fixture(scope="session")
def undisturbed(made: SemiReal, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of the whole job; no test changes it."""
    store = tmp_path_factory.mktemp("undisturbed") / "run.zarr"
    run(make_job(made, stamps=9, kernels=True), store)
    return store


@pytest.fixture
def store(undisturbed: Path, tmp_path: Path) -> Path:
    """A copy of it to change."""
    return Path(shutil.copytree(undisturbed, tmp_path / "run.zarr"))
