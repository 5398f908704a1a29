"""ZTF images as labeled, lazy xarray objects; difference imaging; light curves.

Every operation is a function here, ``ztfxr.f(obj, ...)``, and a method of the accessor that importing ztfxr
registers, ``obj.ztf.f(...)``. Lazy in, lazy out; what computes says "Computes" in its docstring.

Names are imported when they are first used (SPEC 1); ``__init__.pyi`` lists them.
"""

from __future__ import annotations

from importlib.metadata import version as _version
from typing import TYPE_CHECKING

import lazy_loader as _lazy
import xarray as _xr

if TYPE_CHECKING:
    from ztfxr.accessor import DataArrayAccessor, DatasetAccessor, DataTreeAccessor

__version__ = _version("ztfxr")
__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)


@_xr.register_dataarray_accessor("ztf")
def _of_array(array: _xr.DataArray) -> DataArrayAccessor:
    """ZTF operations on an image or on mask bit planes."""
    from ztfxr.accessor import DataArrayAccessor

    return DataArrayAccessor(array)


@_xr.register_dataset_accessor("ztf")
def _of_dataset(dataset: _xr.Dataset) -> DatasetAccessor:
    """ZTF operations on a frame, a stack or a light curve."""
    from ztfxr.accessor import DatasetAccessor

    return DatasetAccessor(dataset)


@_xr.register_datatree_accessor("ztf")
def _of_tree(tree: _xr.DataTree) -> DataTreeAccessor:
    """ZTF operations on frames that are not (yet) aligned."""
    from ztfxr.accessor import DataTreeAccessor

    return DataTreeAccessor(tree)
