"""What is in the folder already: every product below it, by name."""

from __future__ import annotations

from contextlib import suppress

import numpy as np
import xarray as xr

from ztfxr.archive.settings import Archive
from ztfxr.errors import InputError
from ztfxr.io.names import Product, parse_product

__all__ = ["kept"]


def kept(archive: Archive | None = None) -> xr.Dataset:
    """Every product of the archive that is kept in the root and the mirrors, by name; asks nobody. Computes.

    Trees of ztfquery are laid out alike, and are read as they are. Nothing is opened.

    Parameters
    ----------
    archive
        Where files are kept; by default ``$ZTFDATA``, else ``Data``.

    Returns
    -------
    xarray.Dataset
        On `row`, in order of name: `name`, `path` (that of the archive, or of the cut-out in the cache), `local`
        (on this machine), `kind`, `filter`, and `field`, `ccdid`, `qid`, `rcid`, -1 where a product has none.
    """
    archive = archive or Archive()
    found: dict[Product, str] = {}
    for root in (archive.root, *archive.mirrors):
        for path in root.rglob("ztf_*"):
            with suppress(InputError):
                product = parse_product(path)
                if path == root / product.path:
                    found.setdefault(product, str(path))
    products = sorted(found, key=lambda product: product.name)
    texts = {"name": [p.name for p in products], "path": [p.path for p in products]}
    texts |= {"local": [found[p] for p in products], "kind": [p.kind for p in products]}
    texts |= {"filter": [p.filter for p in products]}
    numbers = {name: [getattr(p, name) for p in products] for name in ("field", "ccdid", "qid", "rcid")}
    out = {name: ("row", np.array(values, dtype=str)) for name, values in texts.items()}
    return xr.Dataset(out | {name: ("row", np.array(values, dtype=np.int64)) for name, values in numbers.items()})
