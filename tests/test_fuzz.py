"""Damaged files of every kind: each opens, or is refused by an error of ztfxr's, soon."""

from __future__ import annotations

import pytest

from benchmarks import fuzz


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("seed", [3, 4, 5, 6])
def test_damaged_files_are_named(seed: int) -> None:
    report = fuzz.run(seed, 500)
    assert not report.faults
    assert report.counts["opened"] > 100
    assert report.counts["refused"] > 100
    assert report.slowest < fuzz.SLOW
