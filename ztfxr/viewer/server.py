"""Serve the viewer to a browser of this machine, or into a notebook."""

from __future__ import annotations

import asyncio
import logging
import secrets
import socket
import sys
import threading
import webbrowser
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import xarray as xr

from ztfxr.errors import InputError, MissingDependencyError
from ztfxr.io.cameras import CameraLike
from ztfxr.viewer.content import Content, Viewable, find_content
from ztfxr.viewer.document import Page

if TYPE_CHECKING:
    from bokeh.server.server import Server

__all__ = ["Viewer", "view"]

_log = logging.getLogger(__name__)
_HOST = "127.0.0.1"


class Viewer:
    """A running viewer: where it is, and how to end it.

    Parameters
    ----------
    content
        What is shown.
    port
        Port of the loopback address; 0 for any that is free.

    Attributes
    ----------
    url
        Address with a random token, without which nothing is served.
    """

    def __init__(self, content: Content, port: int = 0) -> None:
        self._content, self._ready = content, threading.Event()
        self._loop: Any = None
        self._failure: BaseException | None = None
        self._token = secrets.token_urlsafe(16)
        self._thread = threading.Thread(target=self._serve, args=(port,), daemon=True)
        self._thread.start()
        self._ready.wait()
        if isinstance(self._failure, OSError):
            raise InputError(f"port {port} cannot be served ({self._failure}); take another, or 0 for any that is free")
        if self._failure is not None:
            raise self._failure

    def _serve(self, port: int) -> None:
        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
        try:
            server = _server(self._content, port, f"/{self._token}")
            server.start()
        except Exception as error:  # it is raised where the viewer is made, in another thread
            self._failure = error
            loop.close()
            self._ready.set()
            return
        self._loop = server.io_loop
        self.url = f"http://{_HOST}:{server.port}/{self._token}"
        self._ready.set()
        server.io_loop.start()
        server.stop()
        server.io_loop.close()

    def stop(self) -> None:
        """End it; twice does no harm."""
        loop, self._loop = self._loop, None
        if loop is not None:
            loop.add_callback(loop.stop)
            self._thread.join(5)

    def wait(self) -> None:
        """Serve until interrupted."""
        try:
            while self._thread.is_alive():
                self._thread.join(0.5)
        except KeyboardInterrupt:
            self.stop()

    def __enter__(self) -> Viewer:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def __repr__(self) -> str:
        return f"<ztfxr viewer of {self._content.title} at {self.url}>"


def _server(content: Content, port: int, path: str) -> Server:
    from bokeh.application import Application
    from bokeh.application.handlers.function import FunctionHandler
    from bokeh.server.server import Server

    def document(doc: Any) -> None:
        Page(content)(doc)

    port = _free_port(port)
    return Server(
        {path: Application(FunctionHandler(document))},
        port=port,
        address=_HOST,
        allow_websocket_origin=[f"{_HOST}:{port}"],
        use_index=False,
    )


def _free_port(port: int) -> int:
    """The port, or for 0 any, if nobody serves it: Bokeh asks beforehand which origin may talk to it."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((_HOST, port))
        return int(probe.getsockname()[1])


def view(
    obj: Viewable,
    *,
    lightcurve: xr.Dataset | None = None,
    reference: xr.Dataset | xr.DataArray | None = None,
    difference: xr.Dataset | xr.DataArray | None = None,
    catalogs: Mapping[str, Any] | None = None,
    camera: CameraLike | None = None,
    title: str | None = None,
    port: int = 0,
    browser: bool = True,
) -> Viewer | None:
    """Look at images, light curves and the pictures behind every point, in a browser. Computes what is looked at.

    Parameters
    ----------
    obj
        An image (y, x) or a stack (time, y, x); a Dataset with `sci`, `reference` or `difference`; a light curve with
        `flux` and `flux_err` on (time, source); a tree with these as nodes; or where one of them is: a zarr store, such
        as a run's, FITS files, a pattern or a list of them.
    lightcurve, reference, difference
        What belongs to `obj` and is not in it.
    catalogs
        Positions to draw over the images, by name, as `ztfxr.as_catalog` takes them; of each the 2,000 brightest.
    camera
        The camera of FITS files; by default ``"ztf"`` for science images by name, else ``"fits"``.
    title
        What the page is called; by default the name of the file or of the object.
    port
        Port of the loopback address; by default any that is free.
    browser
        Whether to open a browser. In a Jupyter notebook the viewer appears below the cell instead.

    Returns
    -------
    Viewer or None
        The running viewer with `url`, `stop` and `wait`; it ends with the process. None in a notebook.

    Raises
    ------
    InputError
        There is nothing to be viewed, or the port is taken.
    MissingDependencyError
        Without Bokeh: ``pip install "ztfxr[viewer]"``.

    Notes
    -----
    It is served to this machine alone, under a random token, and fetches nothing from outside. Of an image the browser
    has the part that it shows, as real values: means of 2 × 2, 4 × 4, … pixels where the view is wide.

    Examples
    --------
    >>> viewer = ztfxr.view(ztfxr.samples.sample_path(), browser=False)  # doctest: +SKIP
    >>> viewer.stop()  # doctest: +SKIP
    """
    try:
        import bokeh  # noqa: F401
    except ImportError:
        raise MissingDependencyError.for_extra("bokeh", "viewer") from None
    content = find_content(
        obj,
        lightcurve=lightcurve,
        reference=reference,
        difference=difference,
        catalogs=catalogs,
        camera=camera,
        title=title,
    )
    if _in_notebook():
        from bokeh.io import output_notebook, show

        output_notebook(hide_banner=True)
        show(lambda doc: Page(content)(doc))
        return None
    viewer = Viewer(content, port)
    _log.info("viewer at %s", viewer.url)
    if browser:
        webbrowser.open(viewer.url)
    return viewer


def _in_notebook() -> bool:
    shell = sys.modules.get("IPython")
    running = shell.get_ipython() if shell is not None else None
    return type(running).__name__ == "ZMQInteractiveShell"
