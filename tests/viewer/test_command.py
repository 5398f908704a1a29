"""``ztfxr view`` as a process."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import ztfxr


def test_it_serves_until_it_is_interrupted(tmp_path: Path) -> None:
    paths = os.pathsep.join(filter(None, (str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH"))))
    words = [sys.executable, "-m", "ztfxr", "view", str(ztfxr.samples.sample_path()), "--no-browser"]
    env = {**os.environ, "PYTHONPATH": paths}
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True, env=env, cwd=tmp_path) as process:
        assert process.stderr is not None
        found = next((m for line in process.stderr if (m := re.search(r"http://127\S+(?=;)", line))), None)
        assert found is not None
        with urllib.request.urlopen(found[0], timeout=60) as answer:
            assert answer.status == 200
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0


def test_what_it_cannot_show_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "a.fits").write_bytes(b"no image")
    paths = os.pathsep.join(filter(None, (str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH"))))
    words = [sys.executable, "-m", "ztfxr", "view", "a.fits", "--no-browser"]
    env = {**os.environ, "PYTHONPATH": paths, "COLUMNS": "80"}
    found = subprocess.run(words, capture_output=True, text=True, env=env, cwd=tmp_path, check=False)
    assert found.returncode == 1
    assert "a.fits: not FITS" in " ".join(found.stderr.split())
