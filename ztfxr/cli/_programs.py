"""The recipes, as commands run them."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

from ztfxr.cli._base import Reply
from ztfxr.cli._outputs import plots
from ztfxr.recipes import Finished

__all__ = ["finished", "recipes"]


def recipes() -> ModuleType:
    """The recipes, which draw without a screen."""
    plots()
    from ztfxr import recipes as found

    return found


def finished(found: Finished, *more: Path) -> Reply:
    """What a recipe left; its own log has said it to people."""
    lines = [f"Table{'s' if len(more) > 1 else ''}: {', '.join(map(str, more))}"] if more else []
    return Reply(lines, {"store": str(found.store)}, [found.store, *found.figures, *more], said=True)
