"""Smooth functions of pixel position on a whole grid, by a tensor Chebyshev expansion and two matrix products."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.polynomial import chebyshev

from ztfxr.arrays.types import Floats

__all__ = ["GridExpansion", "expand"]

Pair = tuple[Floats, Floats]


def _unit(values: Floats, low: float, high: float) -> Floats:
    """`values` mapped from [low, high] to [-1, 1]."""
    return (2.0 * np.asarray(values, dtype=float) - (low + high)) / max(high - low, 1.0)


@dataclass(frozen=True)
class GridExpansion:
    """Chebyshev coefficients of two functions of (y, x) on a rectangle, with the error that was measured."""

    bounds: tuple[float, float, float, float]
    coefficients: Pair
    error: float

    def on_grid(self, y: Floats, x: Floats) -> Pair:
        """Both functions on the grid of 1-D `y` and `x`, each of shape (y, x)."""
        return self.plane(0, y, x), self.plane(1, y, x)

    def plane(self, which: int, y: Floats, x: Floats) -> Floats:
        """The first (0) or the second (1) function on the grid of 1-D `y` and `x`, of shape (y, x)."""
        y0, y1, x0, x1 = self.bounds
        coefficients = self.coefficients[which]
        degree = coefficients.shape[0] - 1
        ty = chebyshev.chebvander(_unit(y, y0, y1), degree)
        tx = chebyshev.chebvander(_unit(x, x0, x1), degree)
        return np.asarray(ty @ coefficients @ tx.T)

    def plus(self, first: float, second: float) -> GridExpansion:
        """The expansion of both functions plus a constant each."""
        shifted = tuple(c.copy() for c in self.coefficients)
        for coefficients, constant in zip(shifted, (first, second), strict=True):
            coefficients[0, 0] += constant
        return GridExpansion(self.bounds, (shifted[0], shifted[1]), self.error)


def expand(
    function: Callable[[Floats, Floats], Pair],
    bounds: tuple[float, float, float, float],
    *,
    degree: int = 12,
) -> GridExpansion:
    """Expand ``function(y, x) -> (f, g)`` on ``bounds = (y0, y1, x0, x1)``.

    The functions are interpolated at Chebyshev nodes; `error` is the largest deviation found half-way
    between the nodes and on the border, in the functions' own unit.
    """
    y0, y1, x0, x1 = bounds
    nodes = chebyshev.chebpts1(degree + 1)
    inverse = np.linalg.inv(chebyshev.chebvander(nodes, degree))
    values = _evaluate(function, bounds, nodes)
    coefficients = tuple(inverse @ v @ inverse.T for v in values)
    expansion = GridExpansion(bounds, (coefficients[0], coefficients[1]), np.inf)
    check = np.concatenate([[-1.0], (nodes[1:] + nodes[:-1]) / 2, [1.0]])
    truth = _evaluate(function, bounds, check)
    found = expansion.on_grid(_from_unit(check, y0, y1), _from_unit(check, x0, x1))
    error = max(float(np.max(np.abs(t - f))) for t, f in zip(truth, found, strict=True))
    return GridExpansion(bounds, expansion.coefficients, error)


def _from_unit(u: Floats, low: float, high: float) -> Floats:
    return (low + high) / 2 + u * max(high - low, 1.0) / 2


def _evaluate(
    function: Callable[[Floats, Floats], Pair],
    bounds: tuple[float, float, float, float],
    nodes: Floats,
) -> Pair:
    y0, y1, x0, x1 = bounds
    yy, xx = np.meshgrid(_from_unit(nodes, y0, y1), _from_unit(nodes, x0, x1), indexing="ij")
    return function(yy, xx)
