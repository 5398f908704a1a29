"""Text that is safe to show, and callbacks in the form that Bokeh asks for."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

__all__ = ["harmless", "when_changed"]


def harmless(text: object) -> str:
    """Text of a header or a catalog without TeX, for which a page would fetch something from outside."""
    return re.sub(r"\$\$|\\[()\[\]]", " ", str(text))


def when_changed(model: Any, name: str, react: Callable[[Any], object]) -> None:
    """Call `react` with the new value of an attribute of one of Bokeh's models."""

    def changed(attr: str, old: object, new: Any) -> None:  # noqa: ARG001
        react(new)

    model.on_change(name, changed)
