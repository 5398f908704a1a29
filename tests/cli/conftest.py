"""Frames in a folder that no test changes, and commands as processes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest

from ztfxr.cli.app import ztfxr as group
from ztfxr.samples import SemiReal, make_epochs

COMMANDS = {name: group.get_command(click.Context(group), name) for name in group.list_commands(click.Context(group))}
"""Every command by its name."""

Shell = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> SemiReal:
    """Three epochs and a reference."""
    return make_epochs(tmp_path_factory.mktemp("night"), n_epochs=3)


def process(*words: object) -> dict[str, Any]:
    """The arguments of `subprocess.run` for ``ztfxr`` with these words, by the code of this tree."""
    root = Path(__file__).parents[2]
    paths = os.pathsep.join(filter(None, (str(root), os.environ.get("PYTHONPATH"))))
    env = {**os.environ, "MPLBACKEND": "Agg", "COLUMNS": "80", "PYTHONPATH": paths}
    return {"args": [sys.executable, "-m", "ztfxr", *map(str, words)], "env": env, "text": True}


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    """Run ``ztfxr`` as a process in a folder of its own, where every warning is an error."""

    def run(*words: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(**process(*words), cwd=tmp_path, capture_output=True, check=False)

    return run
