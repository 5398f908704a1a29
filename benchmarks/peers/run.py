"""ztfxr and its peers on one simulated pair: time, memory and the quality of the difference, as a markdown table.

``python benchmarks/peers/run.py --pair DIR --quality PATH`` with a pair and a scorer as `README.md` describes them.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

WORKER = Path(__file__).with_name("worker.py")
METHODS = ("ztfxr", "ztfxr-noise", "sfft-order1", "ois-grid")
COLUMNS = (
    "method",
    "wall s",
    "first s, no IO",
    "warm s, no IO",
    "/ oaconvolve",
    "peak GB",
    "beyond inputs GB",
    "sky MAD",
    "χ² median / mean",
    "bias %",
    "pull σ",
    "pull σ, own errors",
    "lost",
)


@dataclass(frozen=True)
class Job:
    """What to run, on what, with which interpreters."""

    pair: Path
    quality: Path
    peers_python: str
    timeout: float


@dataclass
class Row:
    """One line of the table; what is missing stays empty."""

    method: str
    measured: dict[str, float] = field(default_factory=dict)
    score: dict[str, Any] = field(default_factory=dict)
    own: dict[str, Any] = field(default_factory=dict)
    note: str = ""

    def cells(self) -> list[str]:
        """The table's cells."""
        if self.note:
            return [self.method, self.note, *[""] * (len(COLUMNS) - 2)]
        m, stars, trans = self.measured, self.score["stars_gt50"], self.score["trans"]
        warm = "warm_s" in m
        return [
            self.method,
            f"{m['wall_s']:.1f}",
            f"{m['first_s']:.2f}",
            f"{m['warm_s']:.2f}" if warm else "",
            f"{m['warm_s'] / m['oaconvolve_s']:.1f} × {m['oaconvolve_s']:.2f} s" if warm else "",
            f"{m['peak_GB']:.2f}",
            f"{m['beyond_GB']:.2f}",
            f"{self.score['sky_mad_std']:.3f}",
            f"{stars['chi2_med']:.3f} / {stars['chi2_mean']:.3f}",
            f"{trans['bias_wmean_pct']:+.2f} ± {trans['bias_err_pct']:.2f}",
            f"{trans['pull_std']:.3f}",
            f"{self.own['trans']['pull_std']:.3f}" if self.own else "",
            f"{self.score['lost_frac']:.4f}",
        ]


def score(job: Job, difference: Path, noise: str) -> dict[str, Any]:
    """The scorer's verdict on a difference image."""
    command = [sys.executable, str(job.quality), str(difference), noise, "--pair", str(job.pair)]
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def run(job: Job, method: str, folder: Path) -> Row:
    """Run one method in its own process and score it; a failure becomes a note."""
    python = sys.executable if method.startswith("ztfxr") else job.peers_python
    out = folder / f"{method}.fits"
    command = [python, str(WORKER), method, str(job.pair), str(out)]
    start = perf_counter()
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=job.timeout)
    except subprocess.TimeoutExpired:
        return Row(method, note=f"more than {job.timeout:.0f} s")
    if done.returncode or not out.exists():
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return Row(method, note=f"failed ({done.returncode}): {reason[:80]}")
    measured = json.loads(done.stdout.splitlines()[-1])
    repeats = measured.pop("repeats_s", 0.0)
    measured["wall_s"] = perf_counter() - start - repeats
    sigma = out.with_suffix(".sigma.fits")
    own = score(job, out, str(sigma)) if sigma.exists() else {}
    return Row(method, measured, score(job, out, "pair"), own)


def table(rows: list[Row]) -> str:
    """The rows as markdown."""
    lines = [COLUMNS, ["---"] * len(COLUMNS), *(row.cells() for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main() -> None:
    """Run what was asked for, one after the other, and print the table."""
    parser = argparse.ArgumentParser(description="Difference imaging by ztfxr and its peers on one simulated pair.")
    parser.add_argument("--pair", type=Path, required=True, help="folder with the images, masks, noise and truth")
    parser.add_argument("--quality", type=Path, required=True, help="script that scores a difference image")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--peers-python", default=sys.executable, help="interpreter that has the peers installed")
    parser.add_argument("--timeout", type=float, default=300.0, help="seconds for each method")
    options = parser.parse_args()
    job = Job(options.pair, options.quality, options.peers_python, options.timeout)
    with TemporaryDirectory() as folder:
        rows = []
        for method in options.methods:
            rows.append(run(job, method, Path(folder)))
            print(" ".join(rows[-1].cells()[:2]), file=sys.stderr, flush=True)
    print(table(rows))


if __name__ == "__main__":
    main()
