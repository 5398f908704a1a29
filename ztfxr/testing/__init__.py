"""Helpers for tests, ours and yours: semi-real epochs and simulated scenes, with a known truth."""

from __future__ import annotations

from ztfxr.testing.scenes import Detector, Optics, Scene, Sky, make_scene, true_psf
from ztfxr.testing.semireal import SemiReal, make_epochs, sample_path

__all__ = [
    "Detector",
    "Optics",
    "Scene",
    "SemiReal",
    "Sky",
    "make_epochs",
    "make_scene",
    "sample_path",
    "true_psf",
]
