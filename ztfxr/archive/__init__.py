"""ZTF's archive: search, download, cut-outs, its forced photometry service; offline on what is kept."""

from __future__ import annotations

from ztfxr.archive.curve import lightcurve
from ztfxr.archive.download import STATES, download
from ztfxr.archive.kept import kept
from ztfxr.archive.login import Login, find_login
from ztfxr.archive.search import Quality, search
from ztfxr.archive.service import Account, Service
from ztfxr.archive.settings import Addresses, Archive
from ztfxr.archive.table import search_table
from ztfxr.io.names import Product, Window, ccd_and_quadrant, parse_product, rcid_of

__all__ = [
    "STATES",
    "Account",
    "Addresses",
    "Archive",
    "Login",
    "Product",
    "Quality",
    "Service",
    "Window",
    "ccd_and_quadrant",
    "download",
    "find_login",
    "kept",
    "lightcurve",
    "parse_product",
    "rcid_of",
    "search",
    "search_table",
]
