"""Options as small objects that validate themselves, also from the plain mappings of a job file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeVar

import numpy as np

from ztfxr.errors import InputError

__all__ = ["option_names", "options_from", "require_number"]

T = TypeVar("T")


def require_number(name: str, value: Any, *, whole: bool = False) -> None:
    """Raise `InputError` where an option is text or another thing that is no number, or no whole one if `whole`."""
    is_number = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
    if not is_number or (whole and value != int(value)):
        raise InputError(f"{name} is a {'whole ' if whole else ''}number; got {value!r}")


def option_names(kind: type[Any]) -> tuple[str, ...]:
    """The names of the fields of a dataclass of options."""
    return tuple(field.name for field in fields(kind))


def options_from(kind: type[T], given: T | Mapping[str, Any] | None, what: str) -> T:
    """Options of a `kind`, a frozen dataclass: those given, or built from a mapping; None for the defaults.

    Lists become tuples, since JSON knows no others. `what` names the options in messages.

    Raises
    ------
    InputError
        An option does not exist, one is missing, or `given` is neither such options nor a mapping.
    """
    if isinstance(given, kind):
        return given
    if given is not None and not isinstance(given, Mapping):
        raise InputError(f"{what} is a {kind.__name__} or a mapping of its options; got {type(given).__name__}")
    names, own = option_names(kind), dict(given or {})
    unknown = sorted(set(own) - set(names))
    if unknown:
        raise InputError(f"{what} has no option {', '.join(unknown)}; its options are {', '.join(names)}")
    try:
        return kind(**{name: tuple(v) if isinstance(v, list) else v for name, v in own.items()})
    except TypeError as error:
        raise InputError(f"{what} misses an option ({error}); its options are {', '.join(names)}") from error
