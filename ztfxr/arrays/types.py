"""Aliases for the arrays that array code takes and gives."""

from __future__ import annotations

from typing import Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

__all__ = ["Bools", "Floats", "Images", "Ints", "Numbers", "Scalar", "Table"]

Bools: TypeAlias = NDArray[np.bool_]
Floats: TypeAlias = NDArray[np.float64]
Images: TypeAlias = NDArray[np.float32]
Ints: TypeAlias = NDArray[np.int64]
Numbers: TypeAlias = NDArray[np.number[Any]]
"""Pixels or columns of whatever real or integer type a file had."""

Table: TypeAlias = NDArray[np.void]
"""Rows with named columns, as sep gives them."""

Scalar = TypeVar("Scalar", bound=np.generic)
"""The type of what is moved about and comes back as it was."""
