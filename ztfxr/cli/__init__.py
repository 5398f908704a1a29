"""The command line: ``ztfxr COMMAND``, or ``python -m ztfxr COMMAND``."""

from __future__ import annotations

from ztfxr.cli.app import main

__all__ = ["main"]
