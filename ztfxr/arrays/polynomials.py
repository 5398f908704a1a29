"""Polynomials over the frame: their terms, orders and degrees."""

from __future__ import annotations

import numpy as np

from ztfxr.arrays.types import Floats, Ints, Numbers

__all__ = ["degrees", "exponents", "n_terms", "order_of", "polynomial_at", "polynomial_terms", "unit_position"]


def n_terms(order: int) -> int:
    """Terms of a 2-D polynomial of total degree `order`; none for order -1."""
    return (order + 1) * (order + 2) // 2


def order_of(terms: int) -> int:
    """The lowest order, from 0 on, of a polynomial that has at least so many terms."""
    order = 0
    while n_terms(order) < terms:
        order += 1
    return order


def exponents(order: int) -> list[tuple[int, int]]:
    """Exponents (i, j) of ``u**i * v**j`` with i + j <= order, by total degree; u along x, v along y."""
    return [(d - j, j) for d in range(order + 1) for j in range(d + 1)]


def degrees(order: int) -> Ints:
    """Total degree of each term of `exponents`."""
    return np.array([i + j for i, j in exponents(order)], dtype=np.int64)


def unit_position(position: Numbers, size: int) -> Floats:
    """Pixel positions 0 … size − 1 mapped to [-1, 1], where the polynomials are at home."""
    return (2.0 * np.asarray(position, dtype=float) - (size - 1)) / max(size - 1, 1)


def polynomial_terms(v: Floats, u: Floats, order: int) -> Floats:
    """The terms of `exponents` at positions u, v in [-1, 1], stacked on a last axis."""
    terms = [u**i * v**j for i, j in exponents(order)]
    return np.stack(np.broadcast_arrays(*terms), axis=-1) if terms else np.empty((*np.shape(u), 0))


def polynomial_at(coefficients: Floats, v: Floats | float, u: Floats | float) -> Floats:
    """Values of polynomials at positions u, v in [-1, 1]; `coefficients` (term, ...) in the order of `exponents`."""
    terms = polynomial_terms(np.asarray(v), np.asarray(u), order_of(len(coefficients)))
    return np.asarray(np.tensordot(terms[..., : len(coefficients)], coefficients, axes=1))
