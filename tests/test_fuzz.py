"""Damaged files of every kind: each opens, or is refused by an error of ztfxr's, soon."""

from __future__ import annotations

import pytest

from benchmarks import fuzz


@pytest.mark.filterwarnings("ignore")
def test_damaged_files_are_named() -> None:
    report = fuzz.run(3, 500)
    assert not report.faults
    assert report.counts["opened"] > 100
    assert report.counts["refused"] > 100
    assert report.slowest < fuzz.SLOW
