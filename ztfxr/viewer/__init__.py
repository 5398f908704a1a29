"""Images, light curves and the pictures behind every point, in a browser."""

from ztfxr.viewer.server import Viewer, view

__all__ = ["Viewer", "view"]
