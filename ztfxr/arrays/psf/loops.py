"""The loops of forced PSF photometry: one group of sources at a time, without Python objects."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from ztfxr.arrays.images.annuli import inliers, level_of, ring_pixels
from ztfxr.arrays.psf.model import cubic_taps, gather_stamp, unit_sum
from ztfxr.arrays.psf.noise import bounds, convolved_noise, corner_variance, correlated_noise
from ztfxr.arrays.types import Bools, Floats, Ints, Numbers

__all__ = ["COLUMNS", "Frame", "Rules", "Sources", "Spread", "fit_groups", "position_sums"]


COLUMNS = ("flux", "variance", "background", "chi2", "n_pixels", "lost", "outside", "saturated", "model_variance")
_FLUX, _VARIANCE, _BACKGROUND, _CHI2, _PIXELS, _LOST, _OUTSIDE, _SATURATED, _MODEL = range(9)
_FIT, _ANNULUS = 1, 2
_SINGULAR = 1e-13
_RING_CLIP = 3.0


class Frame(NamedTuple):
    """One image (y, x); `convolved` is the variance of the image that was convolved with the kernels, `modes` (mode, y,
    x) the error of what was subtracted; both may be empty.
    """

    image: Numbers
    variance: Numbers
    bad: Bools
    saturated: Bools
    convolved: Numbers
    modes: Numbers


class Spread(NamedTuple):
    """The PSF, as in `PSFModel`; kernels (term, y, x) that act on it, and the noise's autocorrelation, or empty."""

    table: Floats
    sums: Floats
    oversampling: int
    reach: int
    kernels: Floats
    noise_kernels: Floats
    correlation: Floats


class Sources(NamedTuple):
    """Central pixels, positions less those (source, 2), and polynomial terms of PSF and kernels (source, term)."""

    y: Ints
    x: Ints
    fraction: Floats
    terms: Floats
    kernel_terms: Floats


class Rules(NamedTuple):
    """How to fit: radius of the disk and half the window around it, weights, background and the level of its ring, what
    is too little.
    """

    radius: float
    half: int
    model_weights: bool
    background: int
    level: int
    inner: float
    outer: float
    least_good: float


class _Pixels(NamedTuple):
    """The good pixels of a group's disks: where they are, what they hold; for each source (source, pixel) what they
    get of it, and whether they are in its disk.
    """

    row: Ints
    column: Ints
    data: Floats
    variance: Floats
    values: Floats
    inside: Bools


@njit(nogil=True, cache=True, error_model="numpy")
def _fill_psf(spread: Spread, sources: Sources, source: int, derivative: int, out: Floats) -> None:
    """The stamp of a source, convolved with the kernel where there is one."""
    phase, first = np.empty((2, 4), np.int64), np.empty((2, 4), np.int64)
    weight, slope = np.empty((2, 4)), np.empty((2, 4))
    half = out.shape[0] // 2
    side = min(half + spread.kernels.shape[1] // 2, spread.reach)
    for axis in range(2):
        cubic_taps(
            sources.fraction[source, axis],
            spread.oversampling,
            spread.reach,
            side,
            phase[axis],
            first[axis],
            weight[axis],
            slope[axis],
        )
    total = unit_sum(spread.sums, sources.terms[source], phase, weight[0], weight[1])
    along_y = slope[0] if derivative == 1 else weight[0]
    along_x = slope[1] if derivative == 2 else weight[1]
    if spread.kernels.size == 0 and side == half:
        gather_stamp(spread.table, sources.terms[source], phase, first, along_y, along_x, 1.0 / total, out)
        return
    plain = np.empty((2 * side + 1, 2 * side + 1))
    gather_stamp(spread.table, sources.terms[source], phase, first, along_y, along_x, 1.0 / total, plain)
    if spread.kernels.size == 0:
        out[:] = 0.0
        for y in range(2 * side + 1):
            for x in range(2 * side + 1):
                out[half - side + y, half - side + x] = plain[y, x]
        return
    _convolve(plain, _kernel_at(spread.kernels, sources.kernel_terms[source]), out)


@njit(nogil=True, cache=True, error_model="numpy")
def _kernel_at(kernels: Floats, terms: Floats) -> Floats:
    out = np.zeros((kernels.shape[1], kernels.shape[2]))
    for t in range(terms.size):
        for a in range(out.shape[0]):
            for b in range(out.shape[1]):
                out[a, b] += terms[t] * kernels[t, a, b]
    return out


@njit(nogil=True, fastmath=True, cache=True, error_model="numpy")
def _convolve(image: Floats, kernel: Floats, out: Floats) -> None:
    """Convolution with the kernel over its sum, of which `out` is the middle; zero beyond the image."""
    out[:] = 0.0
    total = 0.0
    for a in range(kernel.shape[0]):
        for b in range(kernel.shape[1]):
            total += kernel[a, b]
    shift = image.shape[0] // 2 - out.shape[0] // 2 + kernel.shape[0] // 2
    n = out.shape[1]
    for a in range(kernel.shape[0]):
        for y in range(out.shape[0]):
            row = y + shift - a
            if row < 0 or row >= image.shape[0]:
                continue
            for b in range(kernel.shape[1]):
                w = kernel[a, b] / total
                low = max(0, b - shift)
                high = min(n, image.shape[1] + b - shift)
                for x in range(low, high):
                    out[y, x] += w * image[row, x + shift - b]


@njit(nogil=True, cache=True, error_model="numpy")
def _invert(matrix: Floats) -> bool:
    """Invert a square matrix in place (Gauss-Jordan with row pivots); False where it is singular."""
    n, least = matrix.shape[0], 0.0
    order = np.empty(n, np.int64)
    for i in range(n):
        least = max(least, _SINGULAR * abs(matrix[i, i]))
    for i in range(n):
        pivot = i
        for r in range(i + 1, n):
            if abs(matrix[r, i]) > abs(matrix[pivot, i]):
                pivot = r
        order[i] = pivot
        if pivot != i:
            for c in range(n):
                matrix[i, c], matrix[pivot, c] = matrix[pivot, c], matrix[i, c]
        scale = matrix[i, i]
        if not abs(scale) > least:
            return False
        matrix[i, i] = 1.0
        for c in range(n):
            matrix[i, c] /= scale
        for r in range(n):
            if r != i:
                factor = matrix[r, i]
                matrix[r, i] = 0.0
                for c in range(n):
                    matrix[r, c] -= factor * matrix[i, c]
    for i in range(n - 1, -1, -1):
        if order[i] != i:
            for r in range(n):
                matrix[r, i], matrix[r, order[i]] = matrix[r, order[i]], matrix[r, i]
    return True


@njit(nogil=True, cache=True, error_model="numpy")
def _in_disk(sources: Sources, source: int, row: int, column: int, radius: float) -> bool:
    dy = row - sources.y[source] - sources.fraction[source, 0]
    dx = column - sources.x[source] - sources.fraction[source, 1]
    return bool(dy * dy + dx * dx <= radius * radius)


@njit(nogil=True, cache=True, error_model="numpy")
def _light(frame: Frame, sources: Sources, rules: Rules, source: int, stamp: Floats, out: Floats) -> None:
    """How much of a source's light in its disk is lost and outside, its good and its saturated pixels."""
    y, x, half = sources.y[source], sources.x[source], rules.half
    center = stamp.shape[0] // 2
    total, good, outside, n, saturated = 0.0, 0.0, 0.0, 0, 0
    for row in range(y - half, y + half + 1):
        for column in range(x - half, x + half + 1):
            if not _in_disk(sources, source, row, column, rules.radius):
                continue
            value = abs(stamp[row - y + center, column - x + center])
            total += value
            if row < 0 or column < 0 or row >= frame.image.shape[0] or column >= frame.image.shape[1]:
                outside += value
                continue
            saturated += frame.saturated[row, column] if frame.saturated.size else 0
            if not frame.bad[row, column]:
                good += value
                n += 1
    out[_LOST], out[_OUTSIDE] = (1.0 - good / total, outside / total) if total > 0 else (1.0, 1.0)
    out[_PIXELS], out[_SATURATED] = n, saturated


@njit(nogil=True, cache=True, error_model="numpy")
def _box(sources: Sources, numbers: Ints, half: int) -> tuple[int, int, int, int]:
    """First row and column of the windows of a group, and the size of the box that holds them."""
    top, bottom = sources.y[numbers[0]], sources.y[numbers[0]]
    left, right = sources.x[numbers[0]], sources.x[numbers[0]]
    for a in range(1, numbers.size):
        top, bottom = min(top, sources.y[numbers[a]]), max(bottom, sources.y[numbers[a]])
        left, right = min(left, sources.x[numbers[a]]), max(right, sources.x[numbers[a]])
    return top - half, left - half, bottom - top + 2 * half + 1, right - left + 2 * half + 1


@njit(nogil=True, cache=True, error_model="numpy")
def _pixels_of(
    frame: Frame, sources: Sources, rules: Rules, numbers: Ints, usable: Bools, stamps: Floats, largest: int
) -> _Pixels:
    """The good pixels in the disks of a group's usable sources, each once."""
    n, count = numbers.size, 0
    low_y, low_x, n_rows, n_columns = _box(sources, numbers, rules.half)
    known = np.full((n_rows, n_columns) if n > 1 else (1, 1), -1, np.int64)
    rows, columns = np.empty(largest, np.int64), np.empty(largest, np.int64)
    inside = np.zeros((n, largest), np.bool_)
    for a in range(n):
        if not usable[a]:
            continue
        top, bottom = bounds(sources.y[numbers[a]], rules.half, frame.image.shape[0])
        left, right = bounds(sources.x[numbers[a]], rules.half, frame.image.shape[1])
        for row in range(top, bottom):
            for column in range(left, right):
                if frame.bad[row, column] or not _in_disk(sources, numbers[a], row, column, rules.radius):
                    continue
                place = known[row - low_y, column - low_x] if n > 1 else -1
                if place < 0:
                    place = count
                    rows[place], columns[place] = row, column
                    if n > 1:
                        known[row - low_y, column - low_x] = place
                    count += 1
                inside[a, place] = True
    data, variance, values = np.empty(count), np.empty(count), np.zeros((n, count))
    half = stamps.shape[1] // 2
    for p in range(count):
        data[p], variance[p] = frame.image[rows[p], columns[p]], frame.variance[rows[p], columns[p]]
        for a in range(n):
            i, j = rows[p] - sources.y[numbers[a]] + half, columns[p] - sources.x[numbers[a]] + half
            if 0 <= i <= 2 * half and 0 <= j <= 2 * half:
                values[a, p] = stamps[a, i, j]
    return _Pixels(rows[:count], columns[:count], data, variance, values, inside)


@njit(nogil=True, fastmath=True, cache=True, error_model="numpy")
def _products(
    pixels: _Pixels, weight: Floats, target: Floats, usable: Bools, constants: bool, matrix: Floats, vector: Floats
) -> None:
    """Fill in ``Σ w g_e g_f`` and ``Σ w g_e target`` over the disk of each usable source.

    The g are the sources' light, and after them, where asked, a constant in each disk.
    """
    n = usable.size
    own = np.empty(weight.size)
    for e in range(vector.size):
        a = e % n
        if not usable[a]:
            matrix[e, e] = 1.0
            continue
        total = 0.0
        for p in range(weight.size):
            own[p] = weight[p] * (pixels.values[a, p] if e < n else 1.0) if pixels.inside[a, p] else 0.0
            total += own[p] * target[p]
        vector[e] = total
        for b in range(n):
            if usable[b]:
                total = 0.0
                for p in range(weight.size):
                    total += own[p] * pixels.values[b, p]
                matrix[e, b] = total
        if constants:
            total = 0.0
            for p in range(weight.size):
                total += own[p]
            matrix[e, n + a] = total


@njit(nogil=True, cache=True, error_model="numpy")
def _solution(inverse: Floats, vector: Floats) -> Floats:
    out = np.zeros(vector.size)
    for e in range(vector.size):
        for f in range(vector.size):
            out[e] += inverse[e, f] * vector[f]
    return out


@njit(nogil=True, cache=True, error_model="numpy")
def _weights(
    frame: Frame, sources: Sources, rules: Rules, numbers: Ints, usable: Bools, pixels: _Pixels, space: Floats
) -> Floats:
    """Inverse variances: of each pixel's own, or of sky plus sources, which is the map without its noise."""
    n, count = numbers.size, pixels.data.size
    smooth = pixels.variance.copy()
    if rules.model_weights:
        base, known = 0.0, 0
        for a in range(n):
            if usable[a]:
                y, x = sources.y[numbers[a]], sources.x[numbers[a]]
                base += corner_variance(frame.variance, frame.bad, y, x, rules.half, rules.radius, space)
                known += 1
        base = base / max(known, 1)
        matrix, vector, one, excess = np.zeros((n, n)), np.zeros(n), np.ones(count), np.empty(count)
        for p in range(count):
            excess[p], smooth[p] = pixels.variance[p] - base, base
        _products(pixels, one, excess, usable, False, matrix, vector)
        if _invert(matrix):
            slopes = _solution(matrix, vector)
            for a in range(n):
                for p in range(count):
                    smooth[p] += max(slopes[a], 0.0) * max(pixels.values[a, p], 0.0)
    for p in range(count):
        smooth[p] = 1.0 / smooth[p]
    return smooth


@njit(nogil=True, cache=True, error_model="numpy")
def _estimator(pixels: _Pixels, weight: Floats, row_of_inverse: Floats) -> Floats:
    """The factor with which each pixel enters a flux."""
    n = pixels.values.shape[0]
    out = np.zeros(weight.size)
    for a in range(n):
        constant = row_of_inverse[n + a] if row_of_inverse.size > n else 0.0
        for p in range(weight.size):
            if pixels.inside[a, p]:
                out[p] += weight[p] * (row_of_inverse[a] * pixels.values[a, p] + constant)
    return out


@njit(nogil=True, cache=True, error_model="numpy")
def _noise_of(
    frame: Frame, spread: Spread, sources: Sources, source: int, half: int, pixels: _Pixels, factors: Floats
) -> float:
    """Variance of ``Σ c D``: that of independent pixels, and what the correlation between them adds."""
    total = 0.0
    for p in range(factors.size):
        total += factors[p] * factors[p] * pixels.variance[p]
    if spread.correlation.size == 0 and frame.convolved.size == 0:
        return total
    y, x = sources.y[source], sources.x[source]
    canvas, root = np.zeros((2 * half + 1, 2 * half + 1)), np.zeros((2 * half + 1, 2 * half + 1))
    for p in range(factors.size):
        i, j = pixels.row[p] - y + half, pixels.column[p] - x + half
        if 0 <= i <= 2 * half and 0 <= j <= 2 * half:
            canvas[i, j] = factors[p]
            root[i, j] = factors[p] * np.sqrt(pixels.variance[p])
    if spread.correlation.size:
        total += correlated_noise(root, spread.correlation)
    if frame.convolved.size:
        kernel = _kernel_at(spread.noise_kernels, sources.kernel_terms[source])
        total += convolved_noise(frame.convolved, kernel, canvas, y, x)
    return total


@njit(nogil=True, cache=True, error_model="numpy")
def _model_variance(modes: Numbers, pixels: _Pixels, factors: Floats) -> float:
    """Variance of ``Σ c M`` of what was subtracted."""
    variance = 0.0
    for k in range(modes.shape[0]):
        total = 0.0
        for p in range(factors.size):
            total += factors[p] * modes[k, pixels.row[p], pixels.column[p]]
        variance += total * total
    return variance


@njit(nogil=True, cache=True, error_model="numpy")
def _levels(
    frame: Frame, sources: Sources, rules: Rules, numbers: Ints, usable: Bools, space: Floats
) -> tuple[float, float]:
    """The sky under a group and its variance: the mean of its sources' rings; sources without one are not usable."""
    level, noise, known = 0.0, 0.0, 0
    for a in range(numbers.size):
        if usable[a]:
            y, x = float(sources.y[numbers[a]]), float(sources.x[numbers[a]])
            n = ring_pixels(frame.image, frame.bad, y, x, rules.inner, rules.outer, space)
            kept = inliers(space[:n], rules.level, _RING_CLIP)
            usable[a] = len(kept) > 0
            if usable[a]:
                level += level_of(kept, rules.level)
                ring_pixels(frame.variance, frame.bad, y, x, rules.inner, rules.outer, space)
                # The variance of a median, as of the estimators that fits are given.
                noise += 0.5 * np.pi * float(np.mean(space[:n])) / len(kept)
                known += 1
    known = max(known, 1)
    return level / known, noise / (known * known)


@njit(nogil=True, cache=True, error_model="numpy")
def _misfit(pixels: _Pixels, weight: Floats, rest: Floats, member: int, constant: float) -> float:
    """``Σ w (D - M)²`` over a source's disk."""
    total = 0.0
    for p in range(weight.size):
        if pixels.inside[member, p]:
            total += weight[p] * (rest[p] - constant) ** 2
    return total


@njit(nogil=True, cache=True, error_model="numpy")
def _fit_group(
    frame: Frame,
    spread: Spread,
    sources: Sources,
    rules: Rules,
    numbers: Ints,
    stamps: Floats,
    keep: int,
    space: Floats,
    out: Floats,
) -> None:
    """Solve one group and write the results of its first `keep` sources."""
    n, largest, level, level_noise = numbers.size, 0, 0.0, 0.0
    usable, light = np.zeros(n, np.bool_), np.full(len(COLUMNS), np.nan)
    for a in range(n):
        _light(frame, sources, rules, numbers[a], stamps[a], light)
        usable[a] = 1.0 - light[_LOST] >= rules.least_good and light[_PIXELS] > 1
        largest += int(light[_PIXELS]) if usable[a] else 0
        for column in range(light.size if a < keep else 0):
            out[numbers[a], column] = light[column]
    if rules.background == _ANNULUS:
        level, level_noise = _levels(frame, sources, rules, numbers, usable, space)
    pixels = _pixels_of(frame, sources, rules, numbers, usable, stamps, largest)
    weight = _weights(frame, sources, rules, numbers, usable, pixels, space)
    fit = rules.background == _FIT
    unknowns = 2 * n if fit else n
    inverse, vector = np.zeros((unknowns, unknowns)), np.zeros(unknowns)
    rest = np.empty(weight.size)
    for p in range(weight.size):
        rest[p] = pixels.data[p] - level
    _products(pixels, weight, rest, usable, fit, inverse, vector)
    if not _invert(inverse):
        return
    solution = _solution(inverse, vector)
    for a in range(n):
        for p in range(weight.size):
            rest[p] -= solution[a] * pixels.values[a, p]
    for a in range(keep):
        if usable[a]:
            factors, total = _estimator(pixels, weight, inverse[a]), 0.0
            for p in range(weight.size):
                total += factors[p]
            constant, row = solution[n + a] if fit else 0.0, out[numbers[a]]
            noise = _noise_of(frame, spread, sources, numbers[a], rules.half * min(n, 2), pixels, factors)
            row[_FLUX], row[_VARIANCE], row[_BACKGROUND] = solution[a], noise + total**2 * level_noise, level + constant
            row[_MODEL] = _model_variance(frame.modes, pixels, factors)
            row[_CHI2] = _misfit(pixels, weight, rest, a, constant) / max(row[_PIXELS] - (2 if fit else 1), 1.0)


@njit(nogil=True, cache=True, error_model="numpy")
def fit_groups(
    frame: Frame,
    spread: Spread,
    sources: Sources,
    rules: Rules,
    members: Ints,
    starts: Ints,
    keep: Ints,
    out: Floats,
) -> None:
    """Fit groups of sources; `out` (source, column) receives `COLUMNS`, NaN where there is no flux.

    Group g holds ``members[starts[g]:starts[g + 1]]``, of which the first ``keep[g]`` are written. A source alone is
    seen through its own window; members of a group through all that the PSF reaches, so that the far wings of a bright
    star count at its neighbors.
    """
    wide = max(spread.reach + spread.kernels.shape[1] // 2, rules.half)
    reach = int(np.ceil(max(rules.outer, 1.5 * rules.half))) + 1
    space = np.empty((2 * reach + 1) ** 2)
    for g in range(len(keep)):
        numbers = members[starts[g] : starts[g + 1]]
        half = rules.half if numbers.size == 1 else wide
        stamps = np.empty((numbers.size, 2 * half + 1, 2 * half + 1))
        for a in range(numbers.size):
            _fill_psf(spread, sources, numbers[a], 0, stamps[a])
        _fit_group(frame, spread, sources, rules, numbers, stamps, keep[g], space, out)


@njit(nogil=True, cache=True, error_model="numpy")
def position_sums(
    frame: Frame, spread: Spread, sources: Sources, rules: Rules, flux: Floats, level: Floats, out: Floats
) -> None:
    """For each source with a flux, the gradient of χ²/2 by its position and the curvature: g_y, g_x, H_yy, H_yx, H_xx.

    The position that minimizes χ² is moved by ``H⁻¹ g``; sums over epochs add up.
    """
    side = 2 * rules.half + 1
    space = np.empty(side * side)
    numbers, usable = np.empty(1, np.int64), np.ones(1, np.bool_)
    stamps = np.empty((3, side, side))
    for s in range(flux.size):
        out[s] = 0.0
        if not np.isfinite(flux[s]):
            continue
        numbers[0] = s
        for derivative in range(3):
            _fill_psf(spread, sources, s, derivative, stamps[derivative])
        pixels = _pixels_of(frame, sources, rules, numbers, usable, stamps[:1], side * side)
        weight = _weights(frame, sources, rules, numbers, usable, pixels, space)
        for p in range(weight.size):
            i, j = pixels.row[p] - sources.y[s] + rules.half, pixels.column[p] - sources.x[s] + rules.half
            rest = pixels.data[p] - level[s] - flux[s] * stamps[0, i, j]
            dy, dx = flux[s] * stamps[1, i, j], flux[s] * stamps[2, i, j]
            out[s, 0] += weight[p] * dy * rest
            out[s, 1] += weight[p] * dx * rest
            out[s, 2] += weight[p] * dy * dy
            out[s, 3] += weight[p] * dy * dx
            out[s, 4] += weight[p] * dx * dx
