"""Transforms between pixel grids: shift, affine, polynomial."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from ztfxr.arrays.polynomials import exponents, n_terms
from ztfxr.arrays.types import Floats, Numbers
from ztfxr.errors import InputError

__all__ = ["Kind", "Transform", "fit_transform", "n_coefficients"]

Kind = Literal["shift", "affine", "polynomial"]
Bounds = tuple[float, float, float, float]


@dataclass(frozen=True, eq=False)
class Transform:
    """Where a pixel (x, y) of the target grid lies on the source image, both in absolute 0-based pixels.

    Parameters
    ----------
    kind
        ``"shift"``: x' = x + c. ``"affine"``: a polynomial of order 1. ``"polynomial"``: of total order `order`.
    order
        0 for a shift, 1 for an affine transform.
    coefficients
        (2, term), for x' and y'; the terms are those of `ztfxr.arrays.basis.exponents` in ``u = (x - center[0]) /
        scale``, ``v = (y - center[1]) / scale``.
    rms
        Root mean square of the (two-dimensional) residuals of the fit, in pixels of the source; NaN if not fitted.
    n_matched
        Stars that were fitted.
    center, scale
        Of the polynomial's arguments, in pixels of the target.
    bounds
        (y0, y1, x0, x1): the pixels of the target for which the transform holds; None for all.
    """

    kind: Kind
    order: int
    coefficients: Floats
    rms: float = np.nan
    n_matched: int = 0
    center: tuple[float, float] = (0.0, 0.0)
    scale: float = 1.0
    bounds: Bounds | None = None

    @classmethod
    def shift(cls, dx: float = 0.0, dy: float = 0.0) -> Transform:
        """X' = x + dx, y' = y + dy."""
        return cls("shift", 0, np.array([[dx], [dy]], dtype=float))

    @classmethod
    def similarity(cls, a: complex, b: complex) -> Transform:
        """Z' = a z + b with z = x + iy: a rotation and scale by `a`, then a shift by `b`."""
        matrix = np.array([[a.real, -a.imag], [a.imag, a.real]])
        return cls.affine(matrix, (b.real, b.imag))

    @classmethod
    def affine(cls, matrix: ArrayLike, offset: ArrayLike) -> Transform:
        """(x', y') = matrix · (x, y) + offset."""
        m, b = np.asarray(matrix, dtype=float), np.asarray(offset, dtype=float)
        columns = {(0, 0): b, (1, 0): m[:, 0], (0, 1): m[:, 1]}
        return cls("affine", 1, np.column_stack([columns[e] for e in exponents(1)]))

    @property
    def identity(self) -> bool:
        """Whether it is a shift by nothing."""
        return self.kind == "shift" and not np.any(self.coefficients)

    @property
    def matrix(self) -> Floats:
        """The derivative d(x', y') / d(x, y) at the center, (2, 2)."""
        if self.kind == "shift":
            return np.eye(2)
        terms = exponents(self.order)
        return np.column_stack([self.coefficients[:, terms.index(e)] for e in ((1, 0), (0, 1))]) / self.scale

    def __call__(self, x: ArrayLike, y: ArrayLike) -> tuple[Floats, Floats]:
        """Source positions (x', y') of target positions, any shape; `bounds` are not looked at."""
        xx, yy = np.broadcast_arrays(np.asarray(x, dtype=float), np.asarray(y, dtype=float))
        if self.kind == "shift":
            dx, dy = self.coefficients[:, 0]
            return xx + dx, yy + dy
        u, v = self._unit(xx, yy)
        out = [np.zeros(xx.shape), np.zeros(xx.shape)]
        for t, (i, j) in enumerate(exponents(self.order)):
            term = u**i * v**j
            for axis in (0, 1):
                out[axis] += self.coefficients[axis, t] * term
        return out[0], out[1]

    def on_grid(self, x: Floats, y: Floats) -> tuple[Floats, Floats, Floats]:
        """x', y' and the area of the source per pixel of the target, on the grid of 1-D `x`, `y`; each (y, x).

        Three matrix products of Vandermonde matrices per map; NaN outside `bounds`.
        """
        if self.kind == "shift":
            xs, ys = self(x[None, :], y[:, None])
            return xs.copy(), ys.copy(), np.ones(xs.shape)
        u, v = self._unit(x, y)
        n = self.order + 1
        pu, pv = np.vander(u, n, increasing=True), np.vander(v, n, increasing=True)
        tables = [self._table(axis) for axis in (0, 1)]
        maps = [pv @ t @ pu.T for t in tables]
        power = np.arange(1, n)
        du = [pv @ (t[:, 1:] * power) @ pu[:, :-1].T for t in tables]
        dv = [pv[:, :-1] @ (t[1:] * power[:, None]) @ pu.T for t in tables]
        area = np.abs(du[0] * dv[1] - du[1] * dv[0]) / self.scale**2
        if self.bounds is not None:
            y0, y1, x0, x1 = self.bounds
            outside = ((y < y0) | (y > y1))[:, None] | ((x < x0) | (x > x1))[None, :]
            maps[0][outside] = np.nan
        return maps[0], maps[1], area

    def _unit(self, x: Floats, y: Floats) -> tuple[Floats, Floats]:
        return (x - self.center[0]) / self.scale, (y - self.center[1]) / self.scale

    def _table(self, axis: int) -> Floats:
        """Coefficients by power of v (row) and u (column)."""
        table = np.zeros((self.order + 1, self.order + 1))
        for c, (i, j) in zip(self.coefficients[axis], exponents(self.order), strict=True):
            table[j, i] = c
        return table

    def inverse(self, bounds: Bounds | None = None) -> Transform:
        """From the source to the target: exact for shifts and affine transforms, else fitted over `bounds`.

        `bounds` (y0, y1, x0, x1) are pixels of the target; a polynomial's own bounds by default. The inverse of a
        polynomial is one of the same order, its `rms` that of the fit on a grid of 33 × 33 points.
        """
        if self.kind == "shift":
            return replace(self, coefficients=-self.coefficients)
        if self.kind == "affine":
            matrix = np.linalg.inv(self.matrix)
            target, source = np.array(self.center), np.array(self(*self.center), dtype=float)
            found = Transform.affine(matrix, target - matrix @ source)
            return replace(found, rms=self.rms, n_matched=self.n_matched)
        bounds = bounds or self.bounds
        if bounds is None:
            raise InputError("the inverse of a polynomial is fitted: give bounds=(y0, y1, x0, x1) on the target")
        y, x = (np.linspace(a, b, 33) for a, b in (bounds[:2], bounds[2:]))
        grid = np.column_stack([p.ravel() for p in np.meshgrid(x, y)])
        return fit_transform(grid, np.column_stack(self(grid[:, 0], grid[:, 1])), kind="polynomial", order=self.order)


def n_coefficients(kind: Kind, order: int) -> int:
    """Coefficients per axis."""
    return {"shift": 1, "affine": 3}.get(kind) or n_terms(order)


def fit_transform(
    source: Floats, target: Floats, *, kind: Kind = "affine", order: int = 1, weights: Floats | None = None
) -> Transform:
    """Least-squares transform of target positions (n, 2) to source positions (n, 2), columns x and y."""
    if kind not in ("shift", "affine", "polynomial"):
        raise InputError(f"kind is 'shift', 'affine' or 'polynomial'; got {kind!r}")
    if kind == "shift":
        offset = source - target
        mean = np.average(offset, axis=0, weights=weights)
        return replace(Transform.shift(*mean), rms=_rms(offset - mean), n_matched=len(source))
    order = 1 if kind == "affine" else order
    low, high = target.min(axis=0), target.max(axis=0)
    center, scale = (low + high) / 2, max(float((high - low).max()) / 2, 1.0)
    u, v = ((target - center) / scale).T
    design = np.column_stack([u**i * v**j for i, j in exponents(order)])
    root = np.ones((len(source), 1)) if weights is None else np.sqrt(weights)[:, None]
    solution = np.linalg.lstsq(design * root, source * root, rcond=None)[0]
    residual = design @ solution - source
    place = (float(center[0]), float(center[1]))
    return Transform(kind, order, solution.T.copy(), _rms(residual), len(source), place, scale)


def _rms(residual: Numbers) -> float:
    return float(np.sqrt((residual**2).sum(axis=1).mean())) if len(residual) else np.nan
