"""``ztfxr view`` as a process."""

from __future__ import annotations

import re
import signal
import subprocess
import urllib.request
from pathlib import Path

import ztfxr
from tests.cli.conftest import Shell, process


def test_it_serves_until_it_is_interrupted(tmp_path: Path) -> None:
    how = process("view", ztfxr.samples.sample_path(), "--no-browser")
    with subprocess.Popen(**how, stderr=subprocess.PIPE, cwd=tmp_path) as running:
        assert running.stderr is not None
        found = next((m for line in running.stderr if (m := re.search(r"http://127\S+(?=;)", line))), None)
        assert found is not None
        with urllib.request.urlopen(found[0], timeout=60) as answer:
            assert answer.status == 200
        running.send_signal(signal.SIGINT)
        assert running.wait(30) == 0


def test_what_it_cannot_show_is_one_line(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "a.fits").write_bytes(b"no image")
    found = shell("view", "a.fits", "--no-browser")
    assert found.returncode == 1
    assert "a.fits: not FITS" in " ".join(found.stderr.split())
