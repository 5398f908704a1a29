"""A matching kernel that varies over the frame: assembly, solution, order, rejection of cut-outs, errors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from scipy import linalg

from ztfxr.arrays.matching.basis import KernelBasis
from ztfxr.arrays.matching.cutouts import CutoutEquations
from ztfxr.arrays.matching.dilution import dilution, undiluted
from ztfxr.arrays.matching.prior import NOTHING_TOLD, ExpectedKernel, KernelPrior, choose_prior
from ztfxr.arrays.polynomials import degrees, n_terms, polynomial_terms
from ztfxr.arrays.statistics import median_and_scatter
from ztfxr.arrays.types import Bools, Floats, Ints

__all__ = ["SpatialKernel", "chi2_limits", "followed_order", "solve_kernel"]


_SIGNIFICANT, _SIGNIFICANT_BACKGROUND = 2.0, 3.0
_TOLERATED, _MOST_MISFIT, _JUST_MORE = 3.0, 0.02, 1.01
# A prior takes out the noise of the reference by eigenvectors: of order 3, for half a minute, and fits no better.
_HIGHEST_SCARCE = 1
_PULLED, _MATTERS, _POORLY_KNOWN, _AS_WELL_AS_TOLD = 0.3, 3e-4, 0.003, 9.0


@dataclass(frozen=True)
class SpatialKernel:
    """A solved kernel: ``K(x) = Σ_t p_t(u, v) coefficients[t]`` with u, v in [-1, 1] over the frame.

    `coefficients` (term, size, size) in the convention of a convolution; `background` (term) coefficients; `free`
    marks the parameters (term, component) and background terms that were solved for, in whose order `factor` (lower
    Cholesky factor of the scaled normal matrix) and `scaling` are. `prior_scale_error` is the error of the scale in
    the prior, infinite where it had none.
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
    cutout_light: Floats
    cutout_pixels: Ints
    prior_scale_error: float

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
        return self.weighted_sum(np.ones((self.basis.size, self.basis.size)))[1]

    def weighted_sum(self, weights: Floats) -> tuple[float, float]:
        """The sum of the kernel's pixels at the center of the frame, times `weights` (size, size), with its error."""
        row = weights.reshape(1, -1) @ self._kernel_combinations(0.0, 0.0)
        return float((self.at(0.0, 0.0) * weights).sum()), float(np.sqrt(max(self.covariance(row)[0, 0], 0.0)))

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
    noise: Floats

    @classmethod
    def of(cls, equations: CutoutEquations, terms: Floats, which: Bools) -> _Sums:
        """The sums over the cut-outs `which`; few of them are gathered, many are weighted in place."""
        if which.sum() < len(which) // 4:
            index = np.flatnonzero(which)
            equations = equations.take(index)
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
            noise=(p[:, s] * terms[:, t]).T @ equations.noise,
        )

    def plus(self, other: _Sums, sign: int) -> _Sums:
        """The sums with those of other cut-outs added (1) or taken away (-1)."""
        names = ("kernel", "mixed", "background", "vector", "background_vector", "square", "n_pixels", "noise")
        return _Sums(*(getattr(self, f) + sign * getattr(other, f) for f in names))


def _blocks(packed: Floats, n_k: int) -> Floats:
    """Symmetric matrices from their upper triangles (which, n_k, n_k)."""
    out = np.empty((len(packed), n_k, n_k))
    upper = np.triu_indices(n_k)
    out[:, upper[0], upper[1]] = packed
    out[:, upper[1], upper[0]] = packed
    return out


def _by_terms(blocks: Floats, n_t: int, n_b: int) -> Floats:
    """The matrix over (term, component) and `n_b` background terms (left empty) of the blocks of pairs of terms."""
    n_k = blocks.shape[-1]
    matrix = np.zeros((n_t * n_k + n_b, n_t * n_k + n_b))
    for block, s, t in zip(blocks, *np.triu_indices(n_t), strict=True):
        matrix[s * n_k : (s + 1) * n_k, t * n_k : (t + 1) * n_k] = block
        matrix[t * n_k : (t + 1) * n_k, s * n_k : (s + 1) * n_k] = block
    return matrix


@dataclass(frozen=True)
class _System:
    """Normal matrix and right-hand side over (term, component) and background terms; what the noise of the reference
    adds to the matrix, where the light is `scarce`.
    """

    matrix: Floats
    vector: Floats
    noise: Floats
    scarce: bool

    @classmethod
    def of(cls, sums: _Sums, basis: KernelBasis, expected: ExpectedKernel, *, smoothed: bool) -> _System:
        n_t, n_k, n_b = sums.mixed.shape
        matrix = _by_terms(_blocks(sums.kernel, n_k), n_t, n_b)
        mixed = sums.mixed.reshape(n_t * n_k, n_b)
        matrix[: n_t * n_k, n_t * n_k :], matrix[n_t * n_k :, : n_t * n_k] = mixed, mixed.T
        matrix[n_t * n_k :, n_t * n_k :] = sums.background
        vector = np.r_[sums.vector.ravel(), sums.background_vector]
        scarce = not smoothed and _scarce(sums, matrix, vector, basis, expected)
        noise = _by_terms(_noise_blocks(sums.noise, basis), n_t, n_b) if scarce else np.empty((0, 0))
        return cls(matrix, vector, noise, scarce)


def _noise_blocks(noise: Floats, basis: KernelBasis) -> Floats:
    """Diagonal matrices over kernel pixels as matrices over components; zero where the noise is not told."""
    if noise.shape[1] == 0:
        return np.zeros((len(noise), basis.n_components, basis.n_components))
    if not basis.delta:
        return np.asarray(np.einsum("pi,sp,pj->sij", basis.matrix, noise, basis.matrix, optimize=True))
    center = basis.n_components // 2
    out = np.broadcast_to(noise[:, center, None, None], (len(noise), basis.n_components, basis.n_components)).copy()
    out[:, center] *= -1.0
    out[:, :, center] *= -1.0
    others = np.r_[0:center, center + 1 : basis.n_components]
    out[:, others, others] += noise[:, others]
    return out


def _scarce(sums: _Sums, matrix: Floats, vector: Floats, basis: KernelBasis, expected: ExpectedKernel) -> bool:
    """Whether the light does not fix a constant kernel: the reference's noise pulls its sum by what matters, or the
    error of the sum is large by itself or beside what is told. Never where nothing is told, of noise neither.
    """
    if sums.noise.shape[1] == 0 and expected == NOTHING_TOLD:
        return False
    free = _free(basis, 0, basis.order, sums.mixed.shape[2])
    n_k = basis.n_components
    noise = np.zeros((int(free.sum()), int(free.sum())))
    noise[:n_k, :n_k] = _noise_blocks(sums.noise[:1], basis)[0]
    carrier = np.r_[basis.matrix.sum(axis=0), np.zeros(len(noise) - n_k)]
    try:
        scale, error, pull = dilution(matrix[np.ix_(free, free)], noise, vector[free], carrier)
    except np.linalg.LinAlgError:
        return True
    known = scale > 0 and error < _POORLY_KNOWN * scale and _AS_WELL_AS_TOLD * error < expected.scale_error
    return not known or abs(pull) > max(_PULLED * error, _MATTERS * scale)


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


def _penalty(matrix: Floats, basis: KernelBasis, smoothing: float) -> Floats:
    """The smoothness penalty on each spatial term, relative to the mean diagonal of the first."""
    out, n_k = np.zeros_like(matrix), basis.n_components
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
    prior_scale_error: float


def _solve(
    sums: _Sums, system: _System, basis: KernelBasis, order: int, *, smoothing: float, expected: ExpectedKernel
) -> _Solved:
    """Cholesky solution at a spatial order, scaled to a unit diagonal."""
    free = _free(basis, order, basis.order, sums.mixed.shape[2])
    own, right = system.matrix[np.ix_(free, free)], system.vector[free]
    information, vector, told = own, right, np.inf
    if system.scarce:
        information, vector, told = _with_prior(system, free, basis, sums, expected)
    part = information
    if smoothing > 0:
        part = information + _penalty(system.matrix, basis, smoothing)[np.ix_(free, free)]
    diagonal = np.diag(part)
    if not np.all(np.isfinite(diagonal)) or np.any(diagonal <= 0):
        raise np.linalg.LinAlgError("a kernel component or background term is not constrained by any data")
    scaling = 1.0 / np.sqrt(diagonal)
    scaled = part * scaling[:, None]
    scaled *= scaling[None, :]
    norm = float(np.abs(scaled).sum(axis=0).max())
    factor = linalg.cholesky(scaled.T, lower=True, overwrite_a=True, check_finite=False)
    inverse_condition, _ = linalg.lapack.dpocon(factor, norm, uplo="L")
    solution = scaling * linalg.cho_solve((factor, True), scaling * vector, check_finite=False)
    plain = part is own
    quadratic = float(solution @ right) if plain else float(solution @ own @ solution)
    parameters = np.zeros(len(free))
    parameters[free] = solution
    chi2 = max(sums.square - 2.0 * float(solution @ right) + quadratic, 0.0)
    kept = information if smoothing > 0 else np.empty((0, 0))
    condition = 1.0 / max(inverse_condition, 1e-300)
    return _Solved(order, parameters, free, factor, scaling, kept, condition, chi2, told)


def _with_prior(
    system: _System, free: Bools, basis: KernelBasis, sums: _Sums, expected: ExpectedKernel
) -> tuple[Floats, Floats, float]:
    """Information and right-hand side of the free parameters without the reference's noise and with the prior, and
    the error of the scale in the prior.
    """
    chosen = np.ix_(free, free)
    matrix, vector = system.matrix[chosen], system.vector[free]
    n_k, n_free = basis.n_components, int(free.sum())
    if np.any(system.noise):
        matrix, vector = undiluted(matrix, system.noise[chosen], vector, sums.n_pixels, n_k)
    else:
        matrix = matrix.copy()
    rest = slice(n_free - sums.mixed.shape[2], n_free)
    prior = _prior(matrix, vector, rest, basis, expected)
    if prior is None:
        return system.matrix[chosen], system.vector[free], np.inf
    full = np.zeros(len(free))
    full[:n_k] = prior.precision @ prior.mean
    blocks = np.zeros((len(free), len(free)))
    for t in range(n_terms(basis.order)):
        blocks[t * n_k : (t + 1) * n_k, t * n_k : (t + 1) * n_k] = prior.precision
    return matrix + blocks[chosen], vector + full[free], prior.scale_error


def _prior(
    matrix: Floats, vector: Floats, rest: slice, basis: KernelBasis, expected: ExpectedKernel
) -> KernelPrior | None:
    """The prior of a constant kernel, by what the equations say of one with any background (`rest`).

    None where the reference holds no light and nothing is told of the scale: there a prior has nothing to stand on.
    """
    n_k = basis.n_components
    information, right = matrix[:n_k, :n_k], vector[:n_k]
    mixed = matrix[:n_k, rest]
    if mixed.size:
        taken = np.linalg.solve(matrix[rest, rest], np.column_stack([mixed.T, vector[rest]]))
        information, right = information - mixed @ taken[:, :-1], right - mixed @ taken[:, -1]
    if not expected.knows_scale and not np.trace(information) > 0:
        return None
    return choose_prior(information, right, basis.matrix, basis.size, expected)


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
    expected: ExpectedKernel | None = None,
) -> SpatialKernel:
    """Solve for the kernel over the frame, rejecting cut-outs whose χ² stands out.

    Parameters
    ----------
    equations, basis, background_order
        The cut-outs' equations, and the basis and background order that they were made with.
    v, u
        Positions of the cut-outs in [-1, 1] along y and x.
    order
        Spatial order; None chooses the highest up to `basis.order`, or 1 where light is scarce, whose terms are
        significant.
    smoothing
        Weight of the squared Laplacian of each spatial term relative to the mean diagonal of the first.
    clip
        A cut-out is rejected where its reduced χ² exceeds the median by this many robust standard deviations;
        infinity keeps all.
    iterations
        Solutions at most; it ends when the rejected cut-outs do not change.
    min_pixels
        Cut-outs with fewer weighted pixels are left out.
    expected
        What is told of the kernel; it counts where the light does not fix the kernel by itself.

    Raises
    ------
    numpy.linalg.LinAlgError
        The normal matrix is not positive definite: too few cut-outs, or none with signal.
    """
    terms, told = polynomial_terms(v, u, basis.order), expected or NOTHING_TOLD
    usable = equations.n_pixels >= min_pixels
    kept = usable.copy()
    sums = _Sums.of(equations, terms, kept)
    for _ in range(max(iterations, 1)):
        system = _System.of(sums, basis, told, smoothed=smoothing > 0)
        solve = partial(_solve, sums, system, basis, smoothing=smoothing, expected=told)
        highest = min(basis.order, _HIGHEST_SCARCE) if system.scarce else basis.order
        solved = _best(sums, basis, solve, highest) if order is None else solve(order)
        order = solved.order
        chi2, light = equations.chi2_and_light(_per_cutout(solved.parameters, terms, equations))
        keep = usable & (chi2 <= chi2_limits(chi2, light, kept, clip))
        if np.array_equal(keep, kept):
            break
        gone, back = kept & ~keep, keep & ~kept
        sums = sums.plus(_Sums.of(equations, terms, gone), -1)
        if back.any():
            sums = sums.plus(_Sums.of(equations, terms, back), 1)
        kept = keep
    return _result(solved, sums, basis, background_order, smoothing > 0, kept, chi2, light, equations.n_pixels)


def followed_order(equations: CutoutEquations, basis: KernelBasis, highest: int, min_pixels: int = 1) -> int:
    """The highest order of a background polynomial, up to `highest`, whose terms lower χ² by more than noise would.

    Parameters
    ----------
    equations, basis, highest
        Of a background of order `highest`, and the basis that they were made with; the kernel is taken as constant.
    min_pixels
        Cut-outs with fewer weighted pixels are left out.
    """
    usable = equations.n_pixels >= min_pixels
    sums = _Sums.of(equations, np.ones((len(usable), 1)), usable)
    constant = basis.limited(0)
    system = _System.of(sums, constant, NOTHING_TOLD, smoothed=True)
    n_k, found = basis.n_components, []
    for order in range(highest + 1):
        own = np.s_[: n_k + n_terms(order)]
        matrix, vector = system.matrix[own, own], system.vector[own]
        diagonal = np.arange(len(matrix))
        matrix[diagonal, diagonal] *= 1.0 + 1e-10
        found.append(sums.square - float(vector @ linalg.solve(matrix, vector, assume_a="pos")))
    unit = max(found[-1] / max(sums.n_pixels - n_k, 1), 1e-300)
    best = 0
    for order in range(1, highest + 1):
        n_new = n_terms(order) - n_terms(best)
        if (found[best] - found[order]) / unit > n_new + _SIGNIFICANT_BACKGROUND * np.sqrt(2.0 * n_new):
            best = order
    return best


def chi2_limits(chi2: Floats, light: Floats, kept: Bools, clip: float) -> Floats:
    """The largest reduced χ² of each cut-out that is not rejected; infinity for few that are kept or no clip.

    It is `clip` robust standard deviations above the median, and higher where there is light: a model that is wrong by
    a fraction of the light raises χ² by its square times `light`, the variance of the convolved template in units of
    the noise. Bright cut-outs show that first, and they are what fixes the kernel. The fraction allowed is three times
    that of the cut-outs that fit best and hold half of the light, at most 6 %; but never so little that more than half
    of the light is rejected.

    Parameters
    ----------
    chi2, light, kept
        Reduced χ², light per pixel, and which are kept so far, of each cut-out.
    clip
        Robust standard deviations.
    """
    own = chi2[kept]
    if not np.isfinite(clip) or len(own) < 3:
        return np.full(len(chi2), np.inf)
    median, scatter = median_and_scatter(own)
    limit = median + clip * max(scatter, 1e-6 * median)
    weight = np.maximum(light[kept], 0.0)
    misfit = np.sqrt(np.maximum(own - median, 0.0) / np.maximum(weight, 1e-300))
    order = np.argsort(misfit)
    total = np.cumsum(weight[order])
    typical = float(misfit[order][np.searchsorted(total, 0.5 * total[-1])]) if total[-1] > 0 else 0.0
    allowed = max(_TOLERATED * min(typical, _MOST_MISFIT), _JUST_MORE * typical)
    return np.asarray(limit + allowed**2 * np.maximum(light, 0.0))


def _per_cutout(parameters: Floats, terms: Floats, equations: CutoutEquations) -> Floats:
    """Kernel components at each cut-out, followed by the background terms."""
    n_t, n_k = terms.shape[1], equations.n_kernel
    kernel = terms @ parameters[: n_t * n_k].reshape(n_t, n_k)
    return np.concatenate(
        [kernel, np.broadcast_to(parameters[n_t * n_k :], (len(terms), equations.n_background))], axis=1
    )


def _best(sums: _Sums, basis: KernelBasis, solve: Callable[[int], _Solved], highest_order: int) -> _Solved:
    """The highest spatial order, up to `highest_order`, whose terms lower χ² by more than noise would.

    Without real variation, the χ² falls by as many as there are new terms, with the scatter of a χ² distribution. A
    criterion that also weighs the terms' cost in noise (AIC) leaves out variation that only bright stars show, and
    they are what a difference image is judged by: on 1500 stars in a quadrant it chose order 2, and their χ² rose
    from 1.010 to 1.026.
    """
    found: list[_Solved] = []
    failure = np.linalg.LinAlgError("too few pixels for even a constant kernel")
    for order in range(highest_order + 1):
        if 2 * _free(basis, order, basis.order, sums.mixed.shape[2]).sum() >= sums.n_pixels:
            break
        try:
            found.append(solve(order))
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
    solved: _Solved,
    sums: _Sums,
    basis: KernelBasis,
    background_order: int,
    smoothed: bool,
    kept: Bools,
    chi2: Floats,
    light: Floats,
    n_pixels: Ints,
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
        cutout_light=light,
        cutout_pixels=n_pixels,
        prior_scale_error=solved.prior_scale_error,
    )
