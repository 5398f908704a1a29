"""What is known of a matching kernel before any pixel is looked at, and how far the data let it deviate."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

from ztfxr.arrays.types import Floats

__all__ = ["NOTHING_TOLD", "ExpectedKernel", "KernelPrior", "choose_prior", "gaussian_kernel"]

Complexes: TypeAlias = NDArray[np.complex128]

_AMPLITUDES, _LENGTHS, _FLOOR = (0.1, 0.3, 1.0, 3.0, 10.0), (0.4, 0.8, 1.4), 0.02
_WIDTH, _WIDTH_ERROR, _SHIFT_ERROR, _ELLIPSE_ERROR = 1.0, 1.0, 0.3, 0.15
_CONTRADICTION, _DOUBT, _UNTOLD = 2.0, 0.007, 1e-6
_NOT_SHARP, _FREE_SCALE, _STEP, _PADDING, _FIT_STEPS, _MAX_DAMPING = 0.5, 10.0, 1e-3, 2, 30, 1e8


@dataclass(frozen=True)
class ExpectedKernel:
    """What is told of a kernel: its sum, and its width as a variance in px² (that of the target's PSF less that of the
    template's); an infinite error stands for "not told".

    Where nothing is told, the kernel is taken for about as wide as its pixels (1 ± 1 px²), round to 0.15 px² and
    shifted by no more than some tenths of a pixel; its sum is free.
    """

    scale: float = 1.0
    scale_error: float = np.inf
    width: float = _WIDTH
    width_error: float = np.inf

    @property
    def knows_scale(self) -> bool:
        """The sum is told."""
        return bool(np.isfinite(self.scale_error))

    @classmethod
    def of_psfs(cls, target_fwhm: float, template_fwhm: float, *, relative_error: float = 0.03) -> ExpectedKernel:
        """The width that follows from two FWHM in pixels, each known to `relative_error`."""
        variances = np.array([target_fwhm, template_fwhm]) ** 2 / (8.0 * np.log(2.0))
        if not np.isfinite(variances).all():
            return cls()
        error = float(2.0 * relative_error * np.hypot(*variances))
        return cls(width=float(variances[0] - variances[1]), width_error=error)

    def inverted(self) -> ExpectedKernel:
        """What is told of the kernel that acts on the other image instead."""
        return ExpectedKernel(1.0 / self.scale, self.scale_error / self.scale**2, -self.width, self.width_error)


NOTHING_TOLD = ExpectedKernel()


@dataclass(frozen=True)
class KernelPrior:
    """A normal distribution of kernel components, `mean` and `precision`, and the error of the sum that went into it;
    where the images contradict what was told of the sum, that is more than was told.
    """

    mean: Floats
    precision: Floats
    scale_error: float


@dataclass(frozen=True)
class _Shape:
    """A smooth kernel: sum, shift (dy, dx), mean variance, half the difference of the variances, covariance."""

    center: Floats
    error: Floats

    @classmethod
    def of(cls, expected: ExpectedKernel) -> _Shape:
        scale = (expected.scale, expected.scale_error) if expected.knows_scale else (1.0, np.inf)
        told = np.isfinite(expected.width_error)
        width = (max(expected.width, 0.0), expected.width_error) if told else (_WIDTH, _WIDTH_ERROR)
        error = [scale[1], _SHIFT_ERROR, _SHIFT_ERROR, width[1], _ELLIPSE_ERROR, _ELLIPSE_ERROR]
        return cls(np.array([scale[0], 0.0, 0.0, width[0], 0.0, 0.0]), np.array(error))


def gaussian_kernel(size: int, shape: Floats) -> Floats:
    """A Gaussian, flattened, made from its transform: of no width it is the band-limited shift, not a spike.

    Parameters
    ----------
    size
        Pixels along its side.
    shape
        Sum, shift (dy, dx), mean of the variances along y and x, half their difference (y less x), covariance.
    """
    return _with_derivatives(size, shape)[0]


def _with_derivatives(size: int, shape: Floats) -> tuple[Floats, Floats]:
    """`gaussian_kernel`, and its derivatives by its six numbers, (size**2, 6)."""
    rows, columns, wy, wx = _transforms(size)
    scale, dy, dx, mean, half, mixed = shape
    exponent = 0.5 * ((mean + half) * wy**2 + (mean - half) * wx**2) + mixed * wy * wx
    spectrum = np.exp(-exponent - 1j * (wy * dy + wx * dx))
    square = 0.5 * (wy**2 + wx**2)
    slopes = (np.ones_like(square), -1j * wy, -1j * wx, -square, 0.5 * (wx**2 - wy**2), -wy * wx)
    images = np.stack([(rows @ (spectrum * slope) @ columns).real.ravel() for slope in slopes])
    total, sums = images[0].sum(), images.sum(axis=1)
    unit = images[0] / total
    derivatives = scale * (images - sums[:, None] * unit) / total
    derivatives[0] = unit
    return scale * unit, derivatives.T


@cache
def _transforms(size: int) -> tuple[Complexes, Complexes, Floats, Floats]:
    """Matrices that turn a spectrum, given at some frequencies along y and x, into the middle of its image."""
    n = _PADDING * size
    frequency: Floats = np.asarray(2.0 * np.pi * np.fft.fftfreq(n), dtype=np.float64)
    rows: Complexes = np.exp(1j * np.outer(np.arange(size) - size // 2, frequency))
    return rows, rows.T, frequency[:, None], frequency[None, :]


def choose_prior(
    information: Floats, vector: Floats, matrix: Floats, size: int, expected: ExpectedKernel
) -> KernelPrior:
    """A prior around the smooth kernel that fits best, as loose as the data ask for (by the evidence).

    Parameters
    ----------
    information, vector
        Normal matrix and right-hand side of the kernel's components, the background taken out.
    matrix
        From components to kernel pixels.
    size
        Pixels along the kernel's side.
    expected
        What is told of the kernel.

    Notes
    -----
    The kernel is a Gaussian (sum, shift, width, ellipse: known as well as `expected` says) plus smooth deviations
    that sum to zero, so that the freedom of the scale is stated by one number alone. Strength and smoothness of the
    deviations are those with the highest marginal likelihood; see Gull 1989 and MacKay 1992 for the principle. A sum
    that is told is taken at its word unless the images alone say, by more than two of their errors, that it is wrong:
    then its error is as large as they say, so that they decide.
    """
    told = _Shape.of(expected)
    if not expected.knows_scale and not np.trace(information) > 0:
        raise np.linalg.LinAlgError("the reference holds no light, and nothing is told of the scale")
    data = _Data(information, vector, np.asarray(np.linalg.pinv(matrix), dtype=np.float64), size)
    prior = _around(data, told)
    if not expected.knows_scale:
        return prior
    error = _contradicted(data, prior, matrix.sum(axis=0), told)
    if error <= expected.scale_error:
        return prior
    return _around(data, _Shape(told.center, np.r_[error, told.error[1:]]))


@dataclass(frozen=True)
class _Data:
    """What the images say of the components, which `inverse` makes of the pixels of a kernel of `size` pixels."""

    information: Floats
    vector: Floats
    inverse: Floats
    size: int


def _around(data: _Data, told: _Shape) -> KernelPrior:
    """The prior around the smooth kernel that fits best."""
    found = _fit(data, told)
    kernel, slopes = gaussian_kernel(data.size, found), _with_derivatives(data.size, _not_sharp(found))[1]
    error, center = told.error.copy(), told.center.copy()
    if not np.isfinite(error[0]):
        error[0], center[0] = _FREE_SCALE * max(found[0], _STEP), found[0]
    mean = data.inverse @ (kernel + slopes @ (center - found))
    shifted = data.vector - data.information @ mean
    root = data.inverse @ (slopes * error)
    best: tuple[float, Floats] = (-np.inf, np.empty(0))
    for length in _LENGTHS:
        deviation = data.inverse @ _zero_sum_deviations(data.size, found, length)
        for amplitude in _AMPLITUDES:
            covariance = (amplitude * found[0]) ** 2 * (deviation @ deviation.T) + root @ root.T
            evidence = _evidence(covariance, data.information, shifted)
            if evidence > best[0]:
                best = (evidence, covariance)
    if not np.isfinite(best[0]):
        raise np.linalg.LinAlgError("no prior of the kernel agrees with the data")
    covariance = best[1]
    covariance[np.diag_indices_from(covariance)] += 1e-10 * max(found[0], _STEP) ** 2
    return KernelPrior(mean, linalg.inv(covariance), float(told.error[0]))


def _contradicted(data: _Data, prior: KernelPrior, carrier: Floats, told: _Shape) -> float:
    """The error of the sum by which the images alone would not contradict what was told; 0 where they do not.

    `carrier` weighs the components in the sum, which the prior takes for independent of all else.
    """
    factor = linalg.cho_factor(data.information + prior.precision, check_finite=False)
    row = linalg.cho_solve(factor, carrier)
    posterior, variance = float(row @ (data.vector + prior.precision @ prior.mean)), float(carrier @ row)
    told_information = told.error[0] ** -2.0
    own = 1.0 / variance - told_information
    if own <= _UNTOLD * told_information:
        return 0.0
    alone = (posterior / variance - told.center[0] * told_information) / own
    wrong = np.sqrt(max((alone - told.center[0]) ** 2 - _CONTRADICTION**2 / own, 0.0))
    return float(min(wrong, (_DOUBT * told.center[0]) ** 2 * np.sqrt(own)))


def _evidence(covariance: Floats, information: Floats, vector: Floats) -> float:
    """Logarithm of the marginal likelihood of data with this information, under a prior of zero mean."""
    system = np.eye(len(vector)) + covariance @ information
    factors = linalg.lu_factor(system, check_finite=False)
    logarithm = float(np.log(np.abs(np.diag(factors[0]))).sum())
    return 0.5 * float(vector @ linalg.lu_solve(factors, covariance @ vector)) - 0.5 * logarithm


def _fit(data: _Data, told: _Shape) -> Floats:
    """The smooth kernel of the highest posterior, by damped Gauss-Newton steps."""
    information, vector, inverse, size = data.information, data.vector, data.inverse, data.size
    weight = np.where(np.isfinite(told.error), told.error, 1e3) ** -2.0

    def cost(shape: Floats) -> float:
        own = inverse @ gaussian_kernel(size, shape)
        return float(own @ information @ own - 2.0 * vector @ own + (weight * (shape - told.center) ** 2).sum())

    shape = told.center.copy()
    if not np.isfinite(told.error[0]):
        shape[0] = _free_scale(information, vector, inverse @ gaussian_kernel(size, shape))
    now, damping = cost(shape), 1e-3
    for _ in range(_FIT_STEPS):
        kernel, slopes = (inverse @ part for part in _with_derivatives(size, shape))
        curvature = slopes.T @ information @ slopes + np.diag(weight)
        down = slopes.T @ (vector - information @ kernel)
        down -= weight * (shape - told.center)
        while damping < _MAX_DAMPING:
            new = _possible(shape + np.linalg.solve(curvature + damping * np.diag(np.diag(curvature)), down), size)
            lower = cost(new)
            if lower <= now:
                break
            damping *= 10.0
        else:
            break
        done = now - lower < 1e-3
        shape, now, damping = new, lower, damping / 10.0
        if done:
            break
    return shape


def _free_scale(information: Floats, vector: Floats, kernel: Floats) -> float:
    """The multiple of a kernel that fits best; 1 where it would not be positive."""
    square = float(kernel @ information @ kernel)
    scale = float(vector @ kernel) / square if square > 0 else 1.0
    return scale if scale > 0 else 1.0


def _possible(shape: Floats, size: int) -> Floats:
    """The nearest shape that a kernel of `size` pixels can have: no negative width, its middle inside."""
    out = shape.copy()
    out[0] = max(out[0], 1e-6)
    out[1:3] = np.clip(out[1:3], -size / 3, size / 3)
    out[3] = np.clip(out[3], 0.0, (size / 3) ** 2)
    out[4:] *= min(1.0, 0.9 * out[3] / max(float(np.hypot(out[4], out[5])), 1e-9))
    return out


def _not_sharp(shape: Floats) -> Floats:
    """The shape where derivatives stand for the change over its likely widths: at no width they would be too steep."""
    out = shape.copy()
    out[3] = max(out[3], _NOT_SHARP)
    return out


def _zero_sum_deviations(size: int, shape: Floats, length: float) -> Floats:
    """L with ``L Lᵀ`` the covariance of deviations (of a kernel of unit sum) that are smooth over `length` pixels,
    largest where the kernel is, and sum to zero.
    """
    offset = np.arange(size) - size // 2
    square = (offset[:, None] - shape[1]) ** 2 + (offset[None, :] - shape[2]) ** 2
    envelope = np.exp(-0.5 * square / (1.6 * np.sqrt(shape[3]) + 0.5) ** 2).ravel()
    values, vectors = np.linalg.eigh(np.exp(-0.5 * (offset[:, None] - offset[None, :]) ** 2 / length**2))
    line = vectors * np.sqrt(np.maximum(values, 0.0))
    root = ((envelope + _FLOOR) / envelope.sum())[:, None] * np.kron(line, line)
    sums = root.sum(axis=0)
    along = root @ sums
    return np.asarray(root - np.outer(along / along.sum(), sums))
