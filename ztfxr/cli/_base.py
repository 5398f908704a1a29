"""What all commands share: replies for people and for machines, the log, errors of one line, exit codes."""

from __future__ import annotations

import json
import logging
import math
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import numpy as np
import rich_click

from ztfxr.errors import ZtfxrError

__all__ = ["FAILED", "STYLE", "USAGE", "Command", "Group", "Reply", "command", "plain", "whisper"]

FAILED, USAGE, INTERRUPTED = 1, 2, 130
"""Exit codes beside 0: an error, a command that was not understood, Ctrl-C."""

STYLE: dict[str, Any] = {
    "help_option_names": ["-h", "--help"],
    "rich_help_config": rich_click.RichHelpConfiguration(
        max_width=100,
        show_arguments=True,
        options_table_column_types=["required", "opt_all_metavar", "help"],
        commands_before_options=True,
        default_panels_first=True,
    ),
}


@dataclass(frozen=True)
class Reply:
    """What a command found.

    Parameters
    ----------
    lines
        For people.
    data
        The same for machines.
    outputs
        What was written.
    failed
        The command did its work, and what it found is a failure.
    said
        The log has told people already what was written.
    """

    lines: Sequence[str] = ()
    data: Mapping[str, Any] = field(default_factory=dict)
    outputs: Sequence[Path] = ()
    failed: bool = False
    said: bool = False


class Command(rich_click.RichCommand):
    """A command that returns a `Reply`, with the options that all commands have."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params += flags()

    def invoke(self, ctx: click.Context) -> None:
        """Run the command, and say what it found; an error ends it by `click.exceptions.Exit`."""
        as_json, quiet = asked(ctx, "json"), asked(ctx, "quiet")
        try:
            with _log_shown(sys.stderr if as_json else sys.stdout, quiet=quiet):
                reply: Reply = super().invoke(ctx)
            _say(ctx, reply, as_json=as_json, quiet=quiet)
        except (click.ClickException, click.exceptions.Exit, BrokenPipeError):
            raise
        except KeyboardInterrupt:
            _fail(ctx, "interrupted", None, as_json=as_json)
            raise click.exceptions.Exit(INTERRUPTED) from None
        except Exception as error:
            if asked(ctx, "debug"):
                traceback.print_exc()
            _fail(ctx, _message(error), error, as_json=as_json)
            raise click.exceptions.Exit(FAILED) from error
        if reply.failed:
            raise click.exceptions.Exit(FAILED)


class Group(rich_click.RichGroup):
    """A group of commands, before which the options of all commands may stand too."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params += flags()


_FLAGS = {
    "json": "One JSON object on standard output; the log goes to stderr.",
    "quiet": "Say nothing but errors.",
    "debug": "Show the trace of an error.",
}


def flags() -> list[click.Option]:
    """The options of all commands; `asked` tells whether one was given."""
    return [
        rich_click.RichOption(
            [f"--{name}"], is_flag=True, expose_value=False, callback=_remember, help=text, panel="Every command"
        )
        for name, text in _FLAGS.items()
    ]


def _remember(ctx: click.Context, option: click.Parameter, value: bool) -> None:
    if value:
        ctx.meta[f"ztfxr.{option.name}"] = True


def asked(ctx: click.Context, name: str) -> bool:
    """Whether an option of all commands was given, to this command or to the group that it belongs to."""
    return bool(ctx.meta.get(f"ztfxr.{name}", False))


def whisper() -> bool:
    """Whether the command that runs was asked to say nothing."""
    return asked(click.get_current_context(), "quiet")


def command(name: str, **kwargs: Any) -> Callable[[Callable[..., Reply]], Command]:
    """Make a `Command` of a function that returns a `Reply`."""
    return click.command(name, cls=Command, context_settings=STYLE, **kwargs)


def plain(value: Any) -> Any:
    """A value as JSON can hold it: arrays as lists, times as text, numbers that are not finite as null."""
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, np.ndarray):
        if value.dtype.kind == "M":
            return plain(np.datetime_as_string(value).tolist()) if value.ndim else str(value)
        return plain(value.tolist())
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    if isinstance(value, np.generic):
        return plain(np.asarray(value))
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def _say(ctx: click.Context, reply: Reply, *, as_json: bool, quiet: bool) -> None:
    if as_json:
        whole = {"command": _name(ctx), **reply.data, "outputs": [str(path) for path in reply.outputs]}
        print(json.dumps(plain(whole), allow_nan=False))
    elif not quiet:
        lines = [*reply.lines, *(f"wrote {path}" for path in reply.outputs if not reply.said)]
        if lines:
            print("\n".join(lines))


def _fail(ctx: click.Context, message: str, error: Exception | None, *, as_json: bool) -> None:
    print(f"{ctx.command_path}: {message}", file=sys.stderr)
    if as_json:
        about = {"type": type(error).__name__ if error else "KeyboardInterrupt", "message": message}
        print(json.dumps({"command": _name(ctx), "error": about}))


def _name(ctx: click.Context) -> str:
    return ctx.command_path.removeprefix("ztfxr ")


def _message(error: Exception) -> str:
    """One line that says what was wrong; errors that nobody expected say so."""
    text = " ".join(str(error).split()).replace("overwrite=True", "--overwrite")
    if isinstance(error, ZtfxrError) or (isinstance(error, FileNotFoundError) and error.errno is None):
        return text
    if isinstance(error, OSError):
        return text or type(error).__name__
    return f"unexpected {type(error).__name__}: {text}; this is a fault of ztfxr: report what --debug shows"


@contextmanager
def _log_shown(stream: Any, *, quiet: bool) -> Iterator[None]:
    """What ztfxr logs, on a stream."""
    logger, handler = logging.getLogger("ztfxr"), logging.StreamHandler(stream)
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.ERROR if quiet else logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
