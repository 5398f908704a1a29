"""Helpers for tests, ours and yours: semi-real epochs with a known truth."""

from __future__ import annotations

from ztfxr.testing.semireal import SemiReal, make_epochs, sample_path

__all__ = ["SemiReal", "make_epochs", "sample_path"]
