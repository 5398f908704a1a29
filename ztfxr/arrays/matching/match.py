"""Match two images: choose cut-outs, weigh pixels, solve the kernel, subtract; arrays in, arrays out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, TypeAlias, get_args

import numpy as np

from ztfxr.arrays.images.convolve import background_image, footprint_mask, varying_convolution
from ztfxr.arrays.images.image import Image
from ztfxr.arrays.images.residuals import PhotonNoise, fit_noise, sky_excess, without_own_noise
from ztfxr.arrays.images.stars import bright_stars, star_fwhm
from ztfxr.arrays.images.windows import Cutouts
from ztfxr.arrays.matching.basis import BASES, Basis, KernelBasis
from ztfxr.arrays.matching.cutouts import CutoutEquations, equations, tile_cutouts
from ztfxr.arrays.matching.model_error import model_modes
from ztfxr.arrays.matching.prior import NOTHING_TOLD, ExpectedKernel
from ztfxr.arrays.matching.spatial import SpatialKernel, chi2_limits, followed_order, solve_kernel
from ztfxr.arrays.matching.verdict import Verdict, background_excess, verdict_of
from ztfxr.arrays.matching.whole_image import whole_equations
from ztfxr.arrays.no_solution import NoSolutionError
from ztfxr.arrays.polynomials import n_terms, unit_position
from ztfxr.arrays.statistics import SAMPLE, mad_std, some_rows
from ztfxr.arrays.threads import one_blas_thread
from ztfxr.arrays.types import Bools, Floats, Images, Ints, Numbers
from ztfxr.errors import InputError

__all__ = [
    "MAX_KERNEL_SIZE",
    "Convolve",
    "MatchOptions",
    "Matched",
    "SolveOn",
    "Weights",
    "match",
    "solve_match",
]

SolveOn: TypeAlias = Literal["all", "stars"]
Convolve: TypeAlias = Literal["reference", "science", "auto"]
Weights: TypeAlias = Literal["variance", "uniform"]

MAX_KERNEL_SIZE = 25
_MIN_KERNEL_SIZE = 7
_CUTOUT, _MAX_CUTOUT, _CUTOUT_PER_FWHM = 17, 41, 2.8
_TRIAL_CUTOUTS, _NOISE_CUTOUTS = 200, 300
_TYPICAL_SQUARE, _NEGLIGIBLE_NOISE = 0.3, 0.05
# Images on other scales than 1 to 1 need a second trial: noise taken for ten times what it is hides the kernel.
_TRIALS = 3
_TYPICAL_SLOPE = 0.03
_ITERATIONS = 5
_TILES, _TILE_SIZES, _TILES_PER_SIDE, _MIN_TILES_TO_CLIP = 150, (24, 64), 30, 25
_MAX_ORDER = 3
_CHOICES = {"basis": Basis, "solve_on": SolveOn, "convolve": Convolve, "weights": Weights}


@dataclass(frozen=True)
class MatchOptions:
    """How to match; see `ztfxr.difference`. A `kernel_size`, `kernel_order`, `background_order` or `cutout_size` of
    None is chosen by the images.

    `measure_sky`: the variance of the sky in the difference is that of its residuals, whatever the images' say.
    `expected`: what is told of the kernel that makes the science image out of the reference.

    Raises
    ------
    InputError
        An option has a value that it cannot have.
    """

    kernel_size: int | None = None
    kernel_order: int | None = None
    scale_order: int = 0
    background_order: int | None = 1
    basis: Basis = "delta"
    solve_on: SolveOn = "all"
    convolve: Convolve = "reference"
    n_cutouts: int = 1500
    cutout_size: int | None = None
    weights: Weights = "variance"
    smoothing: float = 0.0
    clip: float = 4.0
    saturation: float = np.inf
    measure_sky: bool = False
    expected: ExpectedKernel = NOTHING_TOLD

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in get_args(choices):
                known = ", ".join(map(repr, get_args(choices)))
                raise InputError(f"{name} is one of {known}; got {getattr(self, name)!r}")
        size = self.kernel_size
        if size is not None and (not isinstance(size, int | np.integer) or size < 1):
            raise InputError(f"kernel_size is an odd number of pixels, or 'auto'; got {size!r}")
        if size is not None and size % 2 == 0:
            raise InputError(f"kernel_size must be odd, so that the kernel has a center; got {size}: use {size + 1}")
        for name in ("kernel_order", "background_order", "scale_order"):
            order = getattr(self, name)
            if order not in range(_MAX_ORDER + 1) and not (name != "scale_order" and order is None):
                raise InputError(f"{name} must be 0, 1, 2 or 3; got {order!r}")
        if self.smoothing < 0 or (self.cutout_size or _CUTOUT) < 3 or self.n_cutouts < 1:
            raise InputError("smoothing must be at least 0, cutout_size at least 3 and n_cutouts at least 1")

    @property
    def max_order(self) -> int:
        """The highest spatial order that the kernel may have."""
        return _MAX_ORDER if self.kernel_order is None else self.kernel_order

    @property
    def max_background_order(self) -> int:
        """The highest order that the background may have."""
        return _MAX_ORDER if self.background_order is None else self.background_order

    @property
    def max_size(self) -> int:
        """Pixels along the side of the largest kernel that may be chosen."""
        return MAX_KERNEL_SIZE if self.kernel_size is None else self.kernel_size


@dataclass(frozen=True)
class Matched:
    """A difference image on the science flux scale, NaN where it is not defined, and the solution behind it."""

    difference: Images
    variance: Images
    bad: Bools
    template: Images
    template_variance: Images
    solution: SpatialKernel
    convolved: Literal["reference", "science"]
    fwhm: tuple[float, float]
    verdict: Verdict

    def model_error(self) -> Images:
        """The error of what was subtracted, by `model_modes` (mode, y, x), on the scale of the difference."""
        scale = self.solution.scale if self.convolved == "science" else 1.0
        modes = (model_modes(self.template, self.solution) / scale).astype(np.float32)
        modes[:, self.bad] = np.nan
        return modes

    def noise_ratio(self) -> float:
        """Robust scatter of the difference over its stated noise, on some rows; 1 where the variance is right."""
        some = some_rows(self.difference)
        return mad_std((self.difference[some] / np.sqrt(self.variance[some]))[~self.bad[some]])

    def convolved_share(self) -> float:
        """Variance that the convolved image had before, over that of the difference: the median on some rows."""
        some = some_rows(self.difference)
        good = ~self.bad[some]
        if not good.any():
            return np.nan
        return float(np.median(self.template_variance[some][good] / self.variance[some][good]))


def match(science: Image, reference: Image, excluded: Bools, options: MatchOptions) -> Matched:
    """Subtract the matched reference from the science image.

    Parameters
    ----------
    science, reference, options
        Images of one shape, and how to match them.
    excluded
        True where a pixel must not shape the kernel.

    Raises
    ------
    NoSolutionError
        ``too_few_pixels`` or ``solve_failed``.

    Notes
    -----
    BLAS runs on one thread, and the loops over cut-outs and rows on all: faster on small matrices, and the result
    does not depend on the number of threads.
    """
    with one_blas_thread():
        problem, solved, swap, fwhm = _solved_problem(science, reference, excluded, options)
        solution = solved.kernel
        difference, variance = _subtract(problem, solution)
        if science.variance is None:
            problem = _calibrated(problem, solution, difference, variance)
        assert problem.target.variance is not None
        variance += problem.target.variance
        verdict = verdict_of(solution, problem.options.expected, _background(problem, solution, difference, variance))
        if options.measure_sky and science.variance is not None:
            _add_excess(problem, solution, difference, variance)
    if swap:
        difference, variance = -difference / np.float32(solution.scale), variance / np.float32(solution.scale**2)
    difference[problem.bad], variance[problem.bad] = np.nan, np.nan
    convolved: Literal["reference", "science"] = "science" if swap else "reference"
    template = problem.template
    assert template.variance is not None
    return Matched(
        difference, variance, problem.bad, template.pixels, template.variance, solution, convolved, fwhm, verdict
    )


def solve_match(
    science: Image, reference: Image, excluded: Bools, options: MatchOptions
) -> tuple[SpatialKernel, Cutouts, bool]:
    """The solution of `match` without the subtraction, its cut-outs, and whether the science image is convolved."""
    with one_blas_thread():
        _, solved, swap, _ = _solved_problem(science, reference, excluded, options)
    return solved.kernel, solved.cutouts, swap


def _solved_problem(
    science: Image, reference: Image, excluded: Bools, options: MatchOptions
) -> tuple[_Problem, _Solved, bool, tuple[float, float]]:
    """Choose what is convolved and with which kernel size, and solve; measures noise that is not known.

    It is measured from the residuals of a small solution, whose weights rest on a guess of the photon noise: without
    it, the brightest stars would outweigh all others. A guess that is wrong by a factor of three changes the noise
    measured in the end by one per cent.
    """
    fwhm = (np.nan, np.nan)
    by_width = options.cutout_size is None and options.solve_on == "stars"
    if options.kernel_size is None or options.convolve == "auto" or by_width:
        fwhm = (star_fwhm(science), star_fwhm(reference))
    if by_width:
        options = replace(options, cutout_size=_cutout_size(fwhm))
    swap = options.convolve == "science" or (options.convolve == "auto" and fwhm[1] > 1.05 * fwhm[0])
    target, template = (reference, science) if swap else (science, reference)
    if swap:
        options = replace(options, expected=options.expected.inverted())
    size = options.kernel_size or _kernel_size(fwhm)
    bad = target.bad | footprint_mask(template.bad, size)
    target, template = _with_noise(target, _TYPICAL_SLOPE), _with_noise(template)
    problem = _Problem(target, template, bad, bad | excluded, size, options)
    if science.variance is None:
        first = replace(
            options,
            n_cutouts=min(options.n_cutouts, _NOISE_CUTOUTS),
            kernel_order=min(options.max_order, 2),
            weights="uniform" if options.solve_on == "all" else options.weights,
        )
        problem = _first_calibration(problem, _solved(replace(problem, options=first)).kernel)
        return problem, _solved(problem), swap, fwhm
    assert target.variance is not None
    weighed = replace(target, variance=without_own_noise(target.variance, target.bad))
    return problem, _solved(replace(problem, target=weighed)), swap, fwhm


@dataclass(frozen=True)
class _Problem:
    """``target = convolve(template, kernel) + background``; pixels in `unused` carry no weight."""

    target: Image
    template: Image
    bad: Bools
    unused: Bools
    size: int
    options: MatchOptions

    def basis(self, order: int) -> KernelBasis:
        return BASES[self.options.basis](self.size, order, min(self.options.scale_order, order))

    def _tile_size(self, shape: tuple[int, int]) -> int:
        """Large for speed; small enough that a varying kernel is nearly constant over a tile."""
        rows, columns = (n - 2 * (self.size // 2) for n in shape)
        if min(rows, columns) < 1:
            raise NoSolutionError("too_few_pixels")
        tile = int(np.clip(np.sqrt(rows * columns / _TILES), *_TILE_SIZES))
        if self.options.max_order > 0:
            tile = min(tile, max(min(rows, columns) // _TILES_PER_SIDE, 3))
        return min(tile, rows, columns)

    def cutouts(self, maximum: int) -> Cutouts:
        options, half = self.options, self.size // 2
        shape = (self.unused.shape[0], self.unused.shape[1])
        if options.solve_on == "all":
            tiles = tile_cutouts(shape, half, size=self._tile_size(shape))
            return tiles.take(np.arange(0, len(tiles), max(len(tiles) // maximum, 1)))
        return bright_stars(
            self.template.pixels,
            self.template.bad | self.unused,
            sky=self.template.sky,
            size=options.cutout_size or _CUTOUT,
            margin=half,
            maximum=maximum,
            saturation=options.saturation,
        )


@dataclass(frozen=True)
class _Solved:
    """A kernel and the cut-outs that it was solved on."""

    kernel: SpatialKernel
    cutouts: Cutouts


def _solved(problem: _Problem) -> _Solved:
    """The kernel; where the template's noise matters, pixels are weighted with it as a first kernel convolves it."""
    options = problem.options
    square = np.zeros((problem.size, problem.size))
    square[problem.size // 2, problem.size // 2] = _TYPICAL_SQUARE
    if _template_noise(problem) > _NEGLIGIBLE_NOISE:
        trial = problem.cutouts(_TILES // 4 if options.solve_on == "all" else _TRIAL_CUTOUTS)
        for _ in range(_TRIALS):
            guess, square = (
                square,
                _solve_on(problem, trial, _weight(problem, square), order=0).kernel.at(0.0, 0.0) ** 2,
            )
            if guess.sum() < 3.0 * square.sum() and square.sum() < 3.0 * guess.sum():
                break
    return _solve_on(problem, problem.cutouts(options.n_cutouts), _weight(problem, square), order=options.kernel_order)


def _template_noise(problem: _Problem) -> float:
    """Variance of the convolved template relative to the target's, roughly."""
    assert problem.target.variance is not None
    assert problem.template.variance is not None
    some = some_rows(problem.unused)
    good = ~problem.unused[some]
    ratio = problem.template.variance[some][good] / problem.target.variance[some][good]
    return _TYPICAL_SQUARE * float(np.median(ratio)) if ratio.size else 0.0


def _weight(problem: _Problem, square: Floats) -> Images:
    """Inverse variance of target minus convolved template; 0 where a pixel is not used."""
    assert problem.target.variance is not None
    assert problem.template.variance is not None
    if np.count_nonzero(square) == 1:
        noise = np.float32(square.sum()) * problem.template.variance
    else:
        noise = varying_convolution(problem.template.variance, None, square[None])[0]
    variance = problem.target.variance + np.maximum(noise, 0)
    if problem.options.weights == "uniform" and not problem.unused.all():
        variance = np.float32(np.median(variance[~problem.unused]))
    return np.where(problem.unused, np.float32(0), 1 / variance)


def _solve_on(problem: _Problem, cutouts: Cutouts, weight: Images, *, order: int | None) -> _Solved:
    options = problem.options
    basis = problem.basis(options.max_order if order is None else order)
    if len(cutouts) == 0:
        raise NoSolutionError("too_few_pixels")
    tiles = options.solve_on == "all"
    blunt = tiles and (options.weights == "uniform" or len(cutouts) < _MIN_TILES_TO_CLIP)
    clip = np.inf if blunt else options.clip
    if tiles and basis.delta and basis.order == 0:
        found = _solve_whole(problem, cutouts, weight, basis, clip)
        if found is not None:
            return found
    normal = equations(
        problem.template.pixels,
        problem.target.pixels,
        weight,
        cutouts,
        basis,
        background_order=options.max_background_order,
        tiles=tiles,
        noise=problem.template.variance,
    )
    minimum = 1 if tiles else int(0.6 * cutouts.size**2)
    return _Solved(_kernel(problem, normal, cutouts, basis, order=order, clip=clip, minimum=minimum), cutouts)


def _solve_whole(problem: _Problem, tiles: Cutouts, weight: Images, basis: KernelBasis, clip: float) -> _Solved | None:
    """A constant kernel from the equations of the whole image, less the tiles whose χ² stands out.

    None where the weights do not allow it.
    """
    template, target = problem.template.pixels, problem.target.pixels
    whole = Cutouts(np.array([weight.shape[0] // 2]), np.array([weight.shape[1] // 2]), min(weight.shape))
    kept, own = np.ones(len(tiles), dtype=bool), weight
    for _ in range(_ITERATIONS):
        normal = whole_equations(
            template,
            target,
            own,
            size=problem.size,
            background_order=problem.options.max_background_order,
            noise=problem.template.variance,
        )
        if normal is None:
            return None
        kernel = _kernel(problem, normal, whole, basis, order=0, clip=np.inf, minimum=1)
        chi2, light, count = _tile_chi2(problem, kernel, weight, tiles)
        if not np.isfinite(clip):
            kept = count > 0
            break
        keep = (count > 0) & (chi2 <= chi2_limits(chi2, light, kept & (count > 0), clip))
        if np.array_equal(keep, kept):
            break
        kept, own = keep, _without(weight, tiles.take(np.flatnonzero(~keep)))
    return _Solved(replace(kernel, kept=kept, cutout_chi2=chi2, cutout_light=light, cutout_pixels=count), tiles)


def _tile_chi2(problem: _Problem, kernel: SpatialKernel, weight: Images, tiles: Cutouts) -> tuple[Floats, Floats, Ints]:
    """Reduced χ² of each tile, the light per pixel that it holds, and the pixels that it rests on."""

    def sums(image: Numbers) -> Floats:
        return np.asarray(tiles.windows(image).sum(axis=(1, 2), dtype=np.float64))

    model, _ = varying_convolution(problem.template.pixels, None, kernel.coefficients)
    light = sums(weight * model**2) - sums(weight * model) ** 2 / np.maximum(sums(weight), 1e-300)
    model += background_image((model.shape[0], model.shape[1]), kernel.background)
    count = (tiles.windows(weight) > 0).sum(axis=(1, 2))
    n_pixels = np.maximum(count, 1)
    return sums(weight * (problem.target.pixels - model) ** 2) / n_pixels, np.maximum(light, 0.0) / n_pixels, count


def _without(weight: Images, tiles: Cutouts) -> Images:
    """The weights with those of some tiles set to zero."""
    out = weight.copy()
    for y, x in zip(tiles.y - tiles.size // 2, tiles.x - tiles.size // 2, strict=True):
        out[y : y + tiles.size, x : x + tiles.size] = 0
    return out


def _kernel(
    problem: _Problem,
    normal: CutoutEquations,
    cutouts: Cutouts,
    basis: KernelBasis,
    *,
    order: int | None,
    clip: float,
    minimum: int,
) -> SpatialKernel:
    """The kernel that solves the equations of some cut-outs with at least `minimum` pixels each."""
    needed = 2 * (basis.n_components + n_terms(problem.options.max_background_order))
    if normal.n_pixels[normal.n_pixels >= minimum].sum() < needed:
        raise NoSolutionError("too_few_pixels")
    shape = problem.target.pixels.shape
    v, u = unit_position(cutouts.y, shape[0]), unit_position(cutouts.x, shape[1])
    background = problem.options.max_background_order
    try:
        if problem.options.background_order is None:
            background = followed_order(normal, basis, background, minimum)
            normal = normal.limited(background)
        return solve_kernel(
            normal,
            v,
            u,
            basis,
            background_order=background,
            order=order,
            smoothing=problem.options.smoothing,
            clip=clip,
            min_pixels=minimum,
            expected=problem.options.expected,
        )
    except np.linalg.LinAlgError as error:
        raise NoSolutionError("solve_failed") from error


def _subtract(problem: _Problem, solution: SpatialKernel, every: int = 1) -> tuple[Images, Images]:
    """Target minus convolved template and background, and the variance of the convolved template."""
    model, variance = varying_convolution(
        problem.template.pixels, problem.template.variance, solution.coefficients, every=every
    )
    np.subtract(problem.target.pixels, model, out=model)
    model -= background_image((model.shape[0], model.shape[1]), solution.background)
    return model, variance


def _with_noise(image: Image, slope: float = 0.0) -> Image:
    """The image with its variance, or, where it is unknown, with that of its sky and photon noise of a guessed `slope`
    per noise of the sky.
    """
    if image.variance is not None:
        return image
    level, noise = image.sky
    if not noise > 0:
        raise NoSolutionError("too_few_pixels")
    guess = PhotonNoise(level, noise**2, slope * noise)
    return Image(image.pixels, guess.variance(image.pixels, image.bad), image.bad)


def _first_calibration(problem: _Problem, solution: SpatialKernel) -> _Problem:
    """The problem with a target variance for weights, measured from the residuals in some rows.

    The signal is that of the target, smoothed, which spares a convolution of the whole frame.
    """
    pixels = problem.target.pixels
    residual, template = _subtract(problem, solution, every=max(pixels.size // SAMPLE, 1))
    rows = np.flatnonzero(np.isfinite(residual[:, pixels.shape[1] // 2]))
    signal = pixels - background_image((pixels.shape[0], pixels.shape[1]), solution.background)
    noise = fit_noise(
        signal[rows] - residual[rows], residual[rows], template[rows], problem.bad[rows], problem.unused[rows]
    )
    return _with_variance(problem, noise.variance(signal, problem.bad))


def _calibrated(problem: _Problem, solution: SpatialKernel, residual: Images, template: Images) -> _Problem:
    """The problem with a target variance that is measured from the residuals of a solution.

    The signal is that of the model and of what is new, smoothed.
    """
    signal = background_image((residual.shape[0], residual.shape[1]), solution.background)
    np.subtract(problem.target.pixels, signal, out=signal)
    signal -= residual
    some = some_rows(signal)
    noise = fit_noise(signal[some], residual[some], template[some], problem.bad[some], problem.unused[some])
    return _with_variance(problem, noise.variance(signal, problem.bad, new=residual))


def _background(problem: _Problem, solution: SpatialKernel, residual: Images, variance: Images) -> tuple[float, float]:
    """Whether the background is followed; the noise of the convolved template adds up over neighboring pixels."""
    assert problem.template.variance is not None
    some = some_rows(residual)
    used = ~problem.unused[some]
    single = float(np.sum(solution.at(0.0, 0.0) ** 2))
    pull = residual[some][used] / np.sqrt(variance[some][used])
    ratio = mad_std(pull) ** 2
    if not ratio > 0:
        return np.nan, np.nan
    summed = variance + np.float32(solution.scale**2 - single) * problem.template.variance
    return background_excess(residual, np.float32(ratio) * summed, problem.unused)


def _add_excess(problem: _Problem, solution: SpatialKernel, residual: Images, variance: Images) -> None:
    """Set the variance of a difference right by its own sky, in place."""
    some = some_rows(residual)
    background = background_image((residual.shape[0], residual.shape[1]), solution.background)[some]
    signal = problem.target.pixels[some] - background - residual[some]
    excess = sky_excess(signal, residual[some], variance[some], problem.bad[some], problem.unused[some])
    np.maximum(variance + np.float32(excess), np.float32(0.05) * variance, out=variance)


def _with_variance(problem: _Problem, variance: Images) -> _Problem:
    return replace(problem, target=Image(problem.target.pixels, variance, problem.target.bad))


def _cutout_size(fwhm: tuple[float, float]) -> int:
    """An odd size that holds a star of the broader PSF and some sky: what lies outside would be left to the kernel."""
    width = max([w for w in fwhm if np.isfinite(w)], default=0.0)
    return int(np.clip(2 * int(np.ceil(_CUTOUT_PER_FWHM * width)) + 1, _CUTOUT, _MAX_CUTOUT))


def _kernel_size(fwhm: tuple[float, float]) -> int:
    """An odd size that holds the wings of the broader PSF."""
    widths = [w for w in fwhm if np.isfinite(w)]
    if not widths:
        raise NoSolutionError("too_few_pixels")
    return int(np.clip(2 * int(np.ceil(2.0 * max(widths))) + 1, _MIN_KERNEL_SIZE, MAX_KERNEL_SIZE))
