"""``ztfxr view``: images, light curves and what is behind every point, in a browser."""

from __future__ import annotations

from collections.abc import Sequence

import rich_click as click

from ztfxr.cli._base import Reply, command
from ztfxr.cli._inputs import camera_option
from ztfxr.io.catalogs import read_catalog
from ztfxr.viewer import view as start

__all__ = ["view"]


@command("view")
@click.argument("files", nargs=-1, required=True, metavar="FILES...", help="A store, frames, or patterns of them.")
@camera_option
@click.option("--catalog", "catalogs", multiple=True, metavar="FILE", help="Positions to draw; as often as you like.")
@click.option("--port", type=click.IntRange(0, 65535), default=0, show_default="any", help="Of this machine alone.")
@click.option("--browser/--no-browser", default=True, help="Open one, or only print the address.")
def view(files: Sequence[str], camera: str | None, catalogs: Sequence[str], port: int, browser: bool) -> Reply:
    """Images and light curves in a browser, linked: until Ctrl-C.

    Click a point of a light curve to see its images, kernel and verdict.
    """
    viewer = start(
        files[0] if len(files) == 1 else list(files),
        camera=camera,
        catalogs={name: read_catalog(name) for name in catalogs},
        port=port,
        browser=browser,
    )
    if viewer is not None:
        click.echo(f"viewer at {viewer.url}; Ctrl-C ends it", err=True)
        viewer.wait()
    return Reply([], {})
