"""``ztfxr``: the commands by name, and what they end with."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from difflib import get_close_matches
from importlib import import_module
from importlib.metadata import version
from typing import Any

import click
from click.shell_completion import CompletionItem

from ztfxr.cli._base import FAILED, STYLE, USAGE, Group

__all__ = ["main"]

_COMMANDS: dict[str, dict[str, tuple[str, str]]] = {
    "Look": {
        "info": ("look", "What files hold: images, planes, sky, exposure, columns."),
        "show": ("look", "Pictures of images: one, or a panel for each."),
        "mask": ("look", "What a mask marks, in all and at positions."),
        "stamp": ("look", "Cut-outs of one or many frames."),
        "view": ("look", "Images and light curves in a browser, linked."),
    },
    "Measure": {
        "sources": ("measure", "The sources of an image: a catalog."),
        "difference": ("subtract", "A frame less a reference, matched in PSF, flux and sky."),
        "lightcurve": ("curves", "Light curves at fixed positions, on frames less a reference."),
        "survey": ("curves", "The variable stars of a field, from frames of any camera."),
        "alerts": ("curves", "Light curves of alert packets beside the packets' own."),
        "fetch": ("fetch", "The light curve of a position, out of ZTF's archive."),
    },
    "Test and export": {
        "inject": ("measure", "Stars of known flux put into a frame, to test with."),
        "export": ("export", "A light curve, catalog or image in another format."),
    },
    "Thousands of frames": {
        "run": ("jobs", "A job of many frames: run it, continue it, append to it."),
        "plan": ("jobs", "What a job will take, from a few of its frames."),
    },
    "First steps": {
        "demo": ("demos", "What ztfxr does, on packaged data; semireal by default."),
        "doctor": ("doctor", "Whether this installation works."),
    },
}
"""Every command, in the groups that help shows: its module, and its first line of help."""

_HELP = """From ZTF images to light curves.

Frames are files, patterns in quotes, folders, or URLs. Positions are degrees, sexagesimal text, or a table. What
--out names decides what is written: by its extension.
"""


class _Commands(Group):
    """All commands; a module is imported when its command runs, not where commands are only listed."""

    _listing = False

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Names, in the order of help."""
        return [name for members in _COMMANDS.values() for name in members]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:  # noqa: ARG002
        """The command of a name; where commands are listed only its line."""
        for members in _COMMANDS.values():
            if name in members:
                module, line = members[name]
                if self._listing:
                    return click.Command(name, help=line)
                return getattr(import_module(f"ztfxr.cli.{module}"), name)  # type: ignore[no-any-return]
        return None

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        """The command that words name, or `click.UsageError` with the one that was meant."""
        known = self.list_commands(ctx)
        if args[0] not in known and not args[0].startswith("-"):
            near = get_close_matches(args[0], known, n=1)
            ctx.fail(f"No such command {args[0]!r}." + "".join(f" Did you mean {name!r}?" for name in near))
        return super().resolve_command(ctx, args)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write help."""
        with self._only_listed():
            super().format_help(ctx, formatter)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """What a shell offers after `incomplete`."""
        with self._only_listed():
            return super().shell_complete(ctx, incomplete)

    @contextmanager
    def _only_listed(self) -> Iterator[None]:
        self._listing = True
        try:
            yield
        finally:
            self._listing = False


def _style() -> dict[str, Any]:
    groups = [{"name": name, "commands": list(members)} for name, members in _COMMANDS.items()]
    shown = replace(STYLE["rich_help_config"], command_groups={"ztfxr": groups}, default_panels_first=False)
    return STYLE | {"rich_help_config": shown}


@click.group("ztfxr", cls=_Commands, context_settings=_style(), help=_HELP)
@click.version_option(version("ztfxr"), prog_name="ztfxr", message="%(prog)s %(version)s")
def ztfxr() -> None:
    """The group that holds all commands."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Parameters
    ----------
    arguments
        Words of the command line after ``ztfxr``; by default those that the process was given.

    Returns
    -------
    int
        The exit code: 0 on success, 1 with one line on standard error where something failed, 2 where the command was
        not understood, 130 after Ctrl-C.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        # An early end comes back as its exit code.
        ended = ztfxr.main(args=words or ["--help"], prog_name="ztfxr", standalone_mode=False)
    except click.ClickException as error:
        return _misunderstood(error)
    except BrokenPipeError:
        # Whoever read the output went away; Python would complain once more when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    if not words:
        return USAGE
    return ended if isinstance(ended, int) else 0


def _misunderstood(error: click.ClickException) -> int:
    ctx = getattr(error, "ctx", None)
    path = ctx.command_path if ctx else "ztfxr"
    print(f"{path}: {' '.join(error.format_message().split())}  (see {path} --help)", file=sys.stderr)
    return USAGE
