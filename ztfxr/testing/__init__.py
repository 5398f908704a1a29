"""Simulated scenes with a known truth, for tests, ours and yours."""

from __future__ import annotations

from ztfxr.testing.scenes import Detector, Optics, Scene, SceneOptions, Sky, make_scene, true_psf

__all__ = ["Detector", "Optics", "Scene", "SceneOptions", "Sky", "make_scene", "true_psf"]
