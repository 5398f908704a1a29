"""A matching kernel that varies over the frame: assembly, solution, order, rejection of cut-outs, errors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import linalg

from ztfxr.arrays.matching.basis import KernelBasis
from ztfxr.arrays.matching.cutouts import CutoutEquations
from ztfxr.arrays.polynomials import degrees, n_terms, polynomial_terms
from ztfxr.arrays.statistics import median_and_scatter
from ztfxr.arrays.types import Bools, Floats

__all__ = ["SpatialKernel", "chi2_limit", "solve_kernel"]


_SIGNIFICANT = 2.0


@dataclass(frozen=True)
class SpatialKernel:
    """A solved kernel: ``K(x) = Σ_t p_t(u, v) coefficients[t]`` with u, v in [-1, 1] over the frame.

    `coefficients` (term, size, size) in the convention of a convolution; `background` (term) coefficients; `free`
    marks the parameters (term, component) and background terms that were solved for, in whose order `factor` (lower
    Cholesky factor of the scaled normal matrix) and `scaling` are.
    """

    basis: KernelBasis
    order: int
    coefficients: Floats
    background: Floats
    background_order: int
    free: Bools
    factor: Floats
    scaling: Floats
    matrix: Floats
    smoothed: bool
    chi2: float
    n_pixels: int
    condition: float
    kept: Bools
    cutout_chi2: Floats

    def at(self, v: float, u: float) -> Floats:
        """The kernel at a position, (size, size)."""
        terms = polynomial_terms(np.asarray(v), np.asarray(u), self.basis.order)
        return np.asarray(np.tensordot(terms, self.coefficients, axes=1))

    @property
    def scale(self) -> float:
        """The photometric scale at the center of the frame: the sum of the kernel."""
        return float(self.coefficients[0].sum())

    def covariance(self, combinations: Floats) -> Floats:
        """Covariance of linear combinations (combination, free parameter) of the free parameters."""
        rows = self._whitened(combinations)
        return np.asarray(rows.T @ self.matrix @ rows if self.smoothed else rows.T @ rows)

    def half_covariance(self, combinations: Floats) -> Floats:
        """A matrix H (free parameter, combination) with ``Hᵀ H`` the covariance of the combinations."""
        rows = self._whitened(combinations)
        return np.asarray(linalg.cholesky(self.matrix) @ rows if self.smoothed else rows)

    def _whitened(self, combinations: Floats) -> Floats:
        """The combinations by parameters of unit variance; those of a smoothed kernel have `matrix` for covariance."""
        rows = (combinations * self.scaling).T
        half = linalg.solve_triangular(self.factor, rows, lower=True, check_finite=False)
        if not self.smoothed:
            return np.asarray(half)
        full = linalg.solve_triangular(self.factor, half, lower=True, trans="T", check_finite=False)
        return np.asarray(full * self.scaling[:, None])

    def _kernel_combinations(self, v: float, u: float) -> Floats:
        """Kernel pixels (size**2) at a position as combinations of the free parameters."""
        terms = polynomial_terms(np.asarray(v), np.asarray(u), self.basis.order)
        n_kernel = len(terms) * self.basis.n_components
        full = np.zeros((self.basis.size**2, len(self.free)))
        full[:, :n_kernel] = (terms[None, :, None] * self.basis.matrix[:, None, :]).reshape(len(full), n_kernel)
        return full[:, self.free]

    def error_at(self, v: float, u: float) -> Floats:
        """Standard error of each kernel pixel at a position, (size, size)."""
        variance = np.diag(self.covariance(self._kernel_combinations(v, u)))
        return np.sqrt(np.maximum(variance, 0.0)).reshape(self.basis.size, self.basis.size)

    def scale_error(self) -> float:
        """Standard error of the photometric scale at the center of the frame."""
        row = self._kernel_combinations(0.0, 0.0).sum(axis=0, keepdims=True)
        return float(np.sqrt(max(self.covariance(row)[0, 0], 0.0)))

    def background_error(self) -> Floats:
        """Standard errors of the background coefficients."""
        n = len(self.background)
        rows = np.zeros((n, int(self.free.sum())))
        rows[np.arange(n), np.arange(rows.shape[1] - n, rows.shape[1])] = 1.0
        return np.sqrt(np.maximum(np.diag(self.covariance(rows)), 0.0)) if n else np.empty(0)


@dataclass
class _Sums:
    """Products of spatial terms with the cut-outs' equations, summed over the cut-outs that are kept."""

    kernel: Floats
    mixed: Floats
    background: Floats
    vector: Floats
    background_vector: Floats
    square: float
    n_pixels: int

    @classmethod
    def of(cls, equations: CutoutEquations, terms: Floats, which: Bools) -> _Sums:
        """The sums over the cut-outs `which`; few of them are gathered, many are weighted in place."""
        if which.sum() < len(which) // 4:
            index = np.flatnonzero(which)
            equations = CutoutEquations(
                *(
                    getattr(equations, f)[index]
                    for f in ("kernel", "mixed", "background", "vector", "square", "n_pixels")
                )
            )
            terms, which = terms[index], np.ones(len(index), dtype=bool)
        p = np.where(which[:, None], terms, 0.0)
        s, t = np.triu_indices(terms.shape[1])
        n_k = equations.n_kernel
        return cls(
            kernel=(p[:, s] * terms[:, t]).T @ equations.kernel,
            mixed=np.tensordot(p, equations.mixed, axes=(0, 0)),
            background=equations.background[which].sum(axis=0),
            vector=p.T @ equations.vector[:, :n_k],
            background_vector=equations.vector[which, n_k:].sum(axis=0),
            square=float(equations.square[which].sum()),
            n_pixels=int(equations.n_pixels[which].sum()),
        )

    def plus(self, other: _Sums, sign: int) -> _Sums:
        """The sums with those of other cut-outs added (1) or taken away (-1)."""
        names = ("kernel", "mixed", "background", "vector", "background_vector", "square", "n_pixels")
        return _Sums(*(getattr(self, f) + sign * getattr(other, f) for f in names))


def _assemble(sums: _Sums) -> tuple[Floats, Floats]:
    """The normal matrix and right-hand side over (term, component) and background terms."""
    n_t, n_k, n_b = sums.mixed.shape
    matrix = np.empty((n_t * n_k + n_b, n_t * n_k + n_b))
    upper = np.triu_indices(n_k)
    block = np.empty((n_k, n_k))
    for packed, s, t in zip(sums.kernel, *np.triu_indices(n_t), strict=True):
        block[upper] = packed
        block.T[upper] = packed
        matrix[s * n_k : (s + 1) * n_k, t * n_k : (t + 1) * n_k] = block
        matrix[t * n_k : (t + 1) * n_k, s * n_k : (s + 1) * n_k] = block
    mixed = sums.mixed.reshape(n_t * n_k, n_b)
    matrix[: n_t * n_k, n_t * n_k :], matrix[n_t * n_k :, : n_t * n_k] = mixed, mixed.T
    matrix[n_t * n_k :, n_t * n_k :] = sums.background
    return matrix, np.r_[sums.vector.ravel(), sums.background_vector]


def _free(basis: KernelBasis, order: int, full_order: int, n_background: int) -> Bools:
    """Which (term, component) pairs and background terms are solved for, of those up to `full_order`."""
    wanted = degrees(full_order)[:, None] <= np.minimum(basis.orders, order)[None, :]
    return np.concatenate([wanted.ravel(), np.ones(n_background, dtype=bool)])


def _smoothness(basis: KernelBasis) -> Floats:
    """The squared discrete Laplacian of the kernel in the basis (Becker et al. 2012, MNRAS 425, 1341, eq. 19)."""
    n = basis.size
    second = 2.0 * np.eye(n) - np.eye(n, k=1) - np.eye(n, k=-1)
    laplacian = (np.kron(second, np.eye(n)) + np.kron(np.eye(n), second)) @ basis.matrix
    return np.asarray(laplacian.T @ laplacian)


def _penalized(matrix: Floats, basis: KernelBasis, smoothing: float) -> Floats:
    """`matrix` with the smoothness penalty on each spatial term, relative to the mean diagonal of the first."""
    out, n_k = matrix.copy(), basis.n_components
    penalty = _smoothness(basis)
    weight = smoothing * np.trace(matrix[:n_k, :n_k]) / np.trace(penalty)
    for t in range(n_terms(basis.order)):
        out[t * n_k : (t + 1) * n_k, t * n_k : (t + 1) * n_k] += weight * penalty
    return out


@dataclass(frozen=True)
class _Solved:
    """Solution of the free part, with all parameters in place."""

    order: int
    parameters: Floats
    free: Bools
    factor: Floats
    scaling: Floats
    matrix: Floats
    condition: float
    chi2: float


def _solve(sums: _Sums, system: tuple[Floats, Floats], basis: KernelBasis, order: int, smoothing: float) -> _Solved:
    """Cholesky solution at a spatial order, scaled to a unit diagonal."""
    matrix, vector = system
    free = _free(basis, order, basis.order, sums.mixed.shape[2])
    own, right = matrix[np.ix_(free, free)], vector[free]
    part = _penalized(matrix, basis, smoothing)[np.ix_(free, free)] if smoothing > 0 else own
    diagonal = np.diag(part)
    if not np.all(np.isfinite(diagonal)) or np.any(diagonal <= 0):
        raise np.linalg.LinAlgError("a kernel component or background term is not constrained by any data")
    scaling = 1.0 / np.sqrt(diagonal)
    scaled = part * scaling[:, None]
    scaled *= scaling[None, :]
    norm = float(np.abs(scaled).sum(axis=0).max())
    factor = linalg.cholesky(scaled.T, lower=True, overwrite_a=True, check_finite=False)
    inverse_condition, _ = linalg.lapack.dpocon(factor, norm, uplo="L")
    solution = scaling * linalg.cho_solve((factor, True), scaling * right, check_finite=False)
    quadratic = float(solution @ own @ solution) if smoothing > 0 else float(solution @ right)
    parameters = np.zeros(len(free))
    parameters[free] = solution
    chi2 = max(sums.square - 2.0 * float(solution @ right) + quadratic, 0.0)
    kept = own if smoothing > 0 else np.empty((0, 0))
    return _Solved(order, parameters, free, factor, scaling, kept, 1.0 / max(inverse_condition, 1e-300), chi2)


def solve_kernel(
    equations: CutoutEquations,
    v: Floats,
    u: Floats,
    basis: KernelBasis,
    *,
    background_order: int,
    order: int | None = None,
    smoothing: float = 0.0,
    clip: float = 4.0,
    iterations: int = 5,
    min_pixels: int = 1,
) -> SpatialKernel:
    """Solve for the kernel over the frame, rejecting cut-outs whose χ² stands out.

    Parameters
    ----------
    equations, basis, background_order
        The cut-outs' equations, and the basis and background order that they were made with.
    v, u
        Positions of the cut-outs in [-1, 1] along y and x.
    order
        Spatial order; None chooses the highest up to `basis.order` whose terms are significant.
    smoothing
        Weight of the squared Laplacian of each spatial term relative to the mean diagonal of the first.
    clip
        A cut-out is rejected where its reduced χ² exceeds the median by this many robust standard deviations;
        infinity keeps all.
    iterations
        Solutions at most; it ends when the rejected cut-outs do not change.
    min_pixels
        Cut-outs with fewer weighted pixels are left out.

    Raises
    ------
    numpy.linalg.LinAlgError
        The normal matrix is not positive definite: too few cut-outs, or none with signal.
    """
    terms = polynomial_terms(v, u, basis.order)
    usable = equations.n_pixels >= min_pixels
    kept = usable.copy()
    sums = _Sums.of(equations, terms, kept)
    for _ in range(max(iterations, 1)):
        system = _assemble(sums)
        solved = (
            _best(sums, system, basis, smoothing) if order is None else _solve(sums, system, basis, order, smoothing)
        )
        order = solved.order
        chi2 = equations.chi2(_per_cutout(solved.parameters, terms, equations))
        keep = usable & (chi2 <= chi2_limit(chi2[kept], clip))
        if np.array_equal(keep, kept):
            break
        gone, back = kept & ~keep, keep & ~kept
        sums = sums.plus(_Sums.of(equations, terms, gone), -1)
        if back.any():
            sums = sums.plus(_Sums.of(equations, terms, back), 1)
        kept = keep
    return _result(solved, sums, basis, background_order, smoothing > 0, kept, chi2)


def chi2_limit(chi2: Floats, clip: float) -> float:
    """The median and `clip` robust standard deviations above it; infinity for few values or no clip."""
    if not np.isfinite(clip) or len(chi2) < 3:
        return np.inf
    median, scatter = median_and_scatter(chi2)
    return median + clip * max(scatter, 1e-6 * median)


def _per_cutout(parameters: Floats, terms: Floats, equations: CutoutEquations) -> Floats:
    """Kernel components at each cut-out, followed by the background terms."""
    n_t, n_k = terms.shape[1], equations.n_kernel
    kernel = terms @ parameters[: n_t * n_k].reshape(n_t, n_k)
    return np.concatenate(
        [kernel, np.broadcast_to(parameters[n_t * n_k :], (len(terms), equations.n_background))], axis=1
    )


def _best(sums: _Sums, system: tuple[Floats, Floats], basis: KernelBasis, smoothing: float) -> _Solved:
    """The highest spatial order whose terms lower χ² by more than noise would.

    Without real variation, the χ² falls by as many as there are new terms, with the scatter of a χ² distribution. A
    criterion that also weighs the terms' cost in noise (AIC) leaves out variation that only bright stars show, and
    they are what a difference image is judged by: on 1500 stars in a quadrant it chose order 2, and their χ² rose
    from 1.010 to 1.026.
    """
    found: list[_Solved] = []
    failure = np.linalg.LinAlgError("too few pixels for even a constant kernel")
    for order in range(basis.order + 1):
        if 2 * _free(basis, order, basis.order, sums.mixed.shape[2]).sum() >= sums.n_pixels:
            break
        try:
            found.append(_solve(sums, system, basis, order, smoothing))
        except np.linalg.LinAlgError as error:
            failure = error
            break
    if not found:
        raise failure
    unit = max(found[-1].chi2 / max(sums.n_pixels - found[-1].free.sum(), 1), 1e-300)
    best = found[0]
    for higher in found[1:]:
        n_new = int(higher.free.sum() - best.free.sum())
        if (best.chi2 - higher.chi2) / unit > n_new + _SIGNIFICANT * np.sqrt(2.0 * n_new):
            best = higher
    return best


def _result(
    solved: _Solved, sums: _Sums, basis: KernelBasis, background_order: int, smoothed: bool, kept: Bools, chi2: Floats
) -> SpatialKernel:
    n_t, n_k = n_terms(basis.order), basis.n_components
    components = solved.parameters[: n_t * n_k].reshape(n_t, n_k)
    return SpatialKernel(
        basis=basis,
        order=solved.order,
        coefficients=(components @ basis.matrix.T).reshape(n_t, basis.size, basis.size),
        background=solved.parameters[n_t * n_k :],
        background_order=background_order,
        free=solved.free,
        factor=solved.factor,
        scaling=solved.scaling,
        matrix=solved.matrix,
        smoothed=smoothed,
        chi2=solved.chi2 / max(sums.n_pixels - int(solved.free.sum()), 1),
        n_pixels=sums.n_pixels,
        condition=solved.condition,
        kept=kept,
        cutout_chi2=chi2,
    )
