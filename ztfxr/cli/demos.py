"""``ztfxr demo``: whole programs on data that are packaged or simulated."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import rich_click as click

from ztfxr.cli._base import STYLE, Group, Reply, command
from ztfxr.cli._programs import finished, recipes
from ztfxr.cli.curves import alerts, survey

__all__ = ["demo"]

F = TypeVar("F", bound=Callable[..., Any])

_OUT = {"semireal": "ztfxr-demo", "cluster": "ztfxr-example"}


def _options(function: F) -> F:
    for option in (
        click.option(
            "--photometry", type=click.Choice(["aperture", "psf"]), metavar="HOW", help="aperture (default) or psf."
        ),
        click.option("--epochs", type=click.IntRange(1), metavar="N", help="Number of epochs."),
        click.option(
            "--out", metavar="DIR", help="Folder to write to [default: ztfxr-demo, or ztfxr-example of cluster]."
        ),
    ):
        function = option(function)
    return function


def _given(name: str, default: Any) -> Any:
    """An option of this command, else of ``ztfxr demo`` before it, else the default."""
    ctx: click.Context | None = click.get_current_context()
    while ctx is not None:
        if ctx.params.get(name) is not None:
            return ctx.params[name]
        ctx = ctx.parent
    return default


@command("semireal")
@_options
def semireal(**_: Any) -> Reply:
    """Packaged epochs with an injected supernova; a minute.

    Real pixels of ZTF under other seeing, sky, shifts and noise are subtracted from a reference, and what is measured
    is compared with what was injected.
    """
    how = {"n_epochs": _given("epochs", 15), "photometry": _given("photometry", "aperture")}
    return finished(recipes().run_semireal(Path(_given("out", _OUT["semireal"])), **how))


@command("cluster")
@_options
@click.option("--workers", type=click.IntRange(1), default=2, show_default=True, metavar="N", help="Processes.")
def cluster(workers: int, **_: Any) -> Reply:
    """A job of simulated epochs on a dask cluster of this machine."""
    how = {"n_epochs": _given("epochs", 100), "workers": workers, "photometry": _given("photometry", "aperture")}
    return finished(recipes().run_cluster(Path(_given("out", _OUT["cluster"])), **how))


@click.group("demo", cls=Group, context_settings=STYLE, invoke_without_command=True)
@_options
@click.pass_context
def demo(ctx: click.RichContext, /, **_: Any) -> None:
    """What ztfxr does, on packaged data; semireal by default."""
    if ctx.invoked_subcommand is None:
        with semireal.make_context("semireal", [], parent=ctx) as own:
            semireal.invoke(own)


demo.add_command(semireal)
demo.add_command(cluster)
demo.add_command(alerts)
demo.add_command(survey, "field")
