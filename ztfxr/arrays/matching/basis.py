"""Kernel bases: what the matching kernel is made of, and how it may vary over the frame."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from ztfxr.arrays.polynomials import exponents
from ztfxr.arrays.types import Floats, Ints

__all__ = [
    "BASES",
    "Basis",
    "KernelBasis",
    "delta_basis",
    "gaussian_basis",
]

Basis: TypeAlias = Literal["delta", "gaussian"]


@dataclass(frozen=True)
class KernelBasis:
    """Components of a kernel of (size, size) pixels; the first has unit sum, the others sum to zero.

    So the photometric scale is the coefficient of the first component alone, and holding it constant over the frame
    is a matter of its order (Alard 2000, A&AS 144, 363, eq. 13).

    `matrix` is (size**2, component) in the convention of a convolution; `orders` the spatial order of each component;
    `delta` says that the components are single pixels less the central one, which `cutouts.equations` exploits.
    """

    size: int
    matrix: Floats
    orders: Ints
    delta: bool

    @property
    def n_components(self) -> int:
        """Number of components."""
        return int(self.matrix.shape[1])

    @property
    def order(self) -> int:
        """The highest spatial order."""
        return int(self.orders.max())

    def limited(self, order: int) -> KernelBasis:
        """The same components, none varying with more than `order`."""
        return KernelBasis(self.size, self.matrix, np.minimum(self.orders, order), self.delta)


def delta_basis(size: int, order: int = 0, scale_order: int = 0) -> KernelBasis:
    """One component per kernel pixel (Bramich 2008, MNRAS 386, L77): complete, absorbs sub-pixel shifts."""
    n = size * size
    matrix = np.eye(n)
    center = n // 2
    matrix[center] = -1.0
    matrix[center, center] = 1.0
    orders = np.full(n, order)
    orders[center] = scale_order
    return KernelBasis(size, matrix, orders, delta=True)


def gaussian_basis(
    size: int,
    order: int = 0,
    scale_order: int = 0,
    *,
    sigmas: tuple[float, ...] = (0.7, 1.5, 3.0),
    polynomial_orders: tuple[int, ...] = (4, 3, 2),
) -> KernelBasis:
    """Gaussians times polynomials (Alard & Lupton 1998, ApJ 503, 325, eq. 3), made zero-sum but for the first."""
    offset = np.arange(size) - size // 2
    y, x = np.meshgrid(offset, offset, indexing="ij")
    columns = []
    for sigma, degree in zip(sigmas, polynomial_orders, strict=True):
        gauss = np.exp(-(x**2 + y**2) / (2.0 * sigma**2))
        columns += [(gauss * (x / sigma) ** i * (y / sigma) ** j).ravel() for i, j in exponents(degree)]
    first = columns[0] / columns[0].sum()
    others = [c / np.linalg.norm(c) for c in columns[1:]]
    matrix = np.column_stack([first, *(c - c.sum() * first for c in others)])
    orders = np.full(matrix.shape[1], order)
    orders[0] = scale_order
    return KernelBasis(size, matrix, orders, delta=False)


BASES: Mapping[Basis, Callable[[int, int, int], KernelBasis]] = {"delta": delta_basis, "gaussian": gaussian_basis}
"""What makes each basis, from the kernel's size, its spatial order and that of the photometric scale."""
