"""What a window on an image shows: means of blocks of pixels where it is wide, the pixels where it is not."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ztfxr.arrays.geometry.blocks import block_mean, block_or

__all__ = ["Cut", "Pyramid"]


@dataclass(frozen=True)
class Cut:
    """A part of an image and where it lies: edges in pixels, of which pixel i reaches from i - 0.5 to i + 0.5.

    Parameters
    ----------
    values
        (y, x), each the mean of `factor` × `factor` pixels, or the bits set in any of them.
    x, y, width, height
        Left and lower edge, and extent.
    factor
        Pixels along the side of a block.
    """

    values: NDArray[Any]
    x: float
    y: float
    width: float
    height: float
    factor: int


@dataclass(frozen=True)
class Pyramid:
    """An image (y, x) by blocks of 1, 2, 4, … pixels; each level is made once, from the pixels, when it is needed.

    Levels of floats are means of the finite pixels, NaN where there are none. Those of integers and booleans hold every
    bit that is set in a block, so that a lone bad pixel stays to be seen.
    """

    image: NDArray[Any]
    levels: dict[int, NDArray[Any]] = field(default_factory=dict, repr=False)

    def level(self, factor: int) -> NDArray[Any]:
        """The image by blocks of `factor` pixels."""
        if factor == 1:
            return self.image
        if factor not in self.levels:
            if self.image.dtype.kind == "f":
                none = np.zeros(self.image.shape, dtype=bool)
                self.levels[factor] = block_mean(self.image, none, factor=factor)[0]
            else:
                self.levels[factor] = block_or(self.image, factor=factor)
        return self.levels[factor]

    def cut(self, x: tuple[float, float], y: tuple[float, float], pixels: int, margin: float = 0.25) -> Cut:
        """What a window of some screen `pixels` shows from `x` and `y` (edges, in pixels), with a margin to move in.

        Outside the image there is nothing: the cut has a size of 0.
        """
        width = max(abs(x[1] - x[0]), abs(y[1] - y[0]), 1.0)
        factor = 1 << max(0, int(np.floor(np.log2(width / pixels))))
        values = self.level(factor)
        (left, right), (low, high) = (
            _blocks(side, margin * width, factor, n) for side, n in ((x, self.image.shape[1]), (y, self.image.shape[0]))
        )
        part = np.ascontiguousarray(values[low:high, left:right])
        return Cut(
            part,
            left * factor - 0.5,
            low * factor - 0.5,
            float(part.shape[1] * factor),
            float(part.shape[0] * factor),
            factor,
        )


def _blocks(side: tuple[float, float], margin: float, factor: int, n: int) -> tuple[int, int]:
    """The half-open range of blocks under a side of the window and its margin."""
    first, last = min(side) - margin + 0.5, max(side) + margin + 0.5
    most = -(-n // factor)
    return int(np.clip(np.floor(first / factor), 0, most)), int(np.clip(np.ceil(last / factor), 0, most))
