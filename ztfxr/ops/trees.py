"""Trees of images that belong to themselves: each node is dealt with alone."""

from __future__ import annotations

from collections.abc import Callable

import xarray as xr

__all__ = ["holds_pairs", "on_each"]


def holds_pairs(tree: xr.DataTree) -> bool:
    """Every Dataset of images in the tree holds its own `reference` or `difference`, as alerts do."""
    images = _images(tree)
    return bool(images) and all("reference" in node.data_vars or "difference" in node.data_vars for node in images)


def on_each(function: Callable[[xr.Dataset], xr.Dataset], tree: xr.DataTree) -> xr.DataTree:
    """The results of a function for every Dataset of images, under the same names; lazy if the function is."""
    made = {node.path: function(node.to_dataset()) for node in _images(tree)}
    out = xr.DataTree.from_dict(made, name=tree.name)
    out.attrs = dict(tree.attrs)
    return out


def _images(tree: xr.DataTree) -> list[xr.DataTree]:
    """The nodes that hold images."""
    return [node for node in tree.subtree if "sci" in node.data_vars or "difference" in node.data_vars]
