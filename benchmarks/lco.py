"""Cut-outs of 250 pixels with a 17 × 17 kernel, as for microlensing events on LCO frames: ours against dense algebra.

``python -m benchmarks.lco`` prints seconds per epoch of both, their ratio and how far the kernels differ, with
weights, rejection and smoothing off, so that both solve the same least-squares problem.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from time import perf_counter
from typing import Any

import dask
import numpy as np
import xarray as xr
from numpy.typing import NDArray

import ztfxr
from benchmarks._scenes import make_crowded_stack
from ztfxr.arrays.images.image import Image
from ztfxr.arrays.matching.match import MatchOptions, match
from ztfxr.arrays.polynomials import polynomial_terms, unit_position

Floats = NDArray[np.float64]
Images = NDArray[np.float32]

KERNEL_SIZE, BACKGROUND_ORDER, EPOCHS = 17, 1, 60
_DENSE_EPOCHS = 5
OPTIONS = MatchOptions(
    kernel_size=KERNEL_SIZE,
    kernel_order=0,
    background_order=BACKGROUND_ORDER,
    solve_on="all",
    clip=np.inf,
)


def shifted_indices(shape: tuple[int, int], size: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows and columns (pixel, kernel pixel) of the reference pixels that a convolution puts into each pixel."""
    half = size // 2
    y, x = np.mgrid[half : shape[0] - half, half : shape[1] - half].reshape(2, -1, 1)
    dy, dx = np.mgrid[-half : half + 1, -half : half + 1].reshape(2, 1, -1)
    return y - dy, x - dx


def background_columns(shape: tuple[int, int], size: int, order: int) -> Floats:
    """The background's terms (pixel, term) in the same pixels."""
    half = size // 2
    v, u = (unit_position(np.arange(n), n)[half : n - half] for n in shape)
    return polynomial_terms(v[:, None], u[None, :], order).reshape(v.size * u.size, -1)


def dense_difference(science: Images, reference: Images, *, size: int = KERNEL_SIZE) -> tuple[Floats, Floats]:
    """Kernel and difference by one dense least-squares problem: indices, design matrix, `numpy.linalg.lstsq`."""
    half = size // 2
    rows, columns = shifted_indices((reference.shape[0], reference.shape[1]), size)
    background = background_columns((reference.shape[0], reference.shape[1]), size, BACKGROUND_ORDER)
    design = np.hstack([reference[rows, columns].astype(np.float64), background])
    data = science[half:-half, half:-half].ravel().astype(np.float64)
    solution = np.linalg.lstsq(design, data, rcond=None)[0]
    out = np.full(science.shape, np.nan)
    out[half:-half, half:-half] = (data - design @ solution).reshape(out[half:-half, half:-half].shape)
    return solution[: size * size].reshape(size, size), out


def our_difference(science: Images, reference: Images) -> tuple[Floats, Floats]:
    """The same by ztfxr, with constant variances, so that the weights are uniform."""
    good = np.zeros(science.shape, dtype=bool)
    noise = np.ones(science.shape, dtype=np.float32)
    found = match(Image(science, noise, good), Image(reference, np.float32(1e-3) * noise, good), good, OPTIONS)
    return found.solution.coefficients[0], found.difference.astype(np.float64)


def stack_difference(stack: Images, reference: Images, noise: str, workers: int = 2) -> xr.Dataset:
    """Kernels and differences of a stack by the public function on threads.

    `noise` is "constant": one variance for all pixels, and no rejection, as in the dense algebra; "measured" from the
    residuals, the weights following it; or "measured, uniform weights".
    """
    science = xr.DataArray(stack, dims=("time", "y", "x")).chunk(time=1)
    template = xr.DataArray(reference, dims=("y", "x"))
    given: dict[str, Any] = {}
    if noise == "constant":
        given = {
            "variance": xr.ones_like(template),
            "reference_variance": xr.full_like(template, 1e-3),
            "clip": float("inf"),
        }
    if noise.endswith("uniform weights"):
        given = {"weights": "uniform"}
    lazy = ztfxr.difference(science, template, kernel_size=KERNEL_SIZE, background_order=BACKGROUND_ORDER, **given)
    with dask.config.set(scheduler="threads", num_workers=workers):
        return lazy[["difference", "difference_variance", "kernel", "epoch_status"]].compute()


METHODS: dict[str, Callable[[Images, Images], tuple[Floats, Floats]]] = {
    "ztfxr": our_difference,
    "dense": dense_difference,
}
NOISE = ("constant", "measured", "measured, uniform weights")


class OneEpoch:
    """One cut-out by either method; the reference is new each time, so that nothing known of it helps."""

    params = (["ztfxr", "dense"], [120, 250])
    param_names = ("method", "size")
    timeout = 120

    def setup(self, method: str, size: int) -> None:
        stack, self.reference = make_crowded_stack(1, size=size)
        self.science, self.solve = stack[0], METHODS[method]
        self.count = 0
        if method == "ztfxr":
            self.time_difference()

    def time_difference(self, *_: object) -> None:
        self.count += 1
        self.solve(self.science, fresh(self.reference, self.count))

    def peakmem_difference(self, *_: object) -> None:
        self.time_difference()


class Stack:
    """A stack of epochs with one reference, on two threads."""

    params = (list(NOISE), [2, EPOCHS])
    param_names = ("noise", "epochs")
    timeout = 300

    def setup(self, noise: str, epochs: int) -> None:
        self.noise = noise
        self.stack, self.reference = make_crowded_stack(epochs, size=120 if epochs == 2 else 250)
        stack_difference(self.stack[:1], self.reference, noise)

    def time_difference(self, *_: object) -> None:
        stack_difference(self.stack, self.reference, self.noise)

    def peakmem_difference(self, *_: object) -> None:
        self.time_difference()


def fresh(reference: Images, number: int) -> Images:
    """The reference on another background level: the same kernel, but a new image to any cache."""
    return reference + np.float32(0.01 * number)


def seconds(function: Callable[..., object], *arguments: object) -> float:
    """Wall time of one call."""
    start = perf_counter()
    function(*arguments)
    return perf_counter() - start


def deviations() -> tuple[float, float]:
    """Largest difference of the kernels over the peak; of the difference images over their scatter."""
    stack, reference = make_crowded_stack(1)
    (kernel, image), (dense_kernel, dense_image) = (METHODS[m](stack[0], reference) for m in ("ztfxr", "dense"))
    apart = float(np.abs(kernel - dense_kernel).max() / np.abs(dense_kernel).max())
    return apart, float(np.nanmax(np.abs(image - dense_image)) / np.nanstd(dense_image))


def one_epoch(repeats: int) -> dict[str, float]:
    """Best seconds of each method, taken in turns."""
    stack, reference = make_crowded_stack(1)
    our_difference(stack[0], reference)
    timings: dict[str, list[float]] = {"dense": [], "reference new": [], "reference known": []}
    for number in range(1, repeats + 1):
        new = fresh(reference, number)
        timings["reference new"].append(seconds(our_difference, stack[0], new))
        timings["reference known"].append(seconds(our_difference, stack[0], new))
        timings["dense"].append(seconds(dense_difference, stack[0], new))
    return {name: min(values) for name, values in timings.items()}


def whole_stack(epochs: int, repeats: int) -> dict[str, float]:
    """Best seconds per epoch: stacks on two threads by ztfxr; single epochs, with threads in BLAS, by dense algebra."""
    stack, reference = make_crowded_stack(epochs)
    timings: dict[str, list[float]] = {"dense": [], **{noise: [] for noise in NOISE}}
    for number in range(1, repeats + 1):
        new = fresh(reference, number)
        for noise in NOISE:
            timings[noise].append(seconds(stack_difference, stack, new, noise) / epochs)
        timings["dense"] += [seconds(dense_difference, image, new) for image in stack[:_DENSE_EPOCHS]]
    return {name: min(values) for name, values in timings.items()}


def report(title: str, found: dict[str, float]) -> None:
    """Seconds per epoch, and how much longer dense algebra takes."""
    print(title)
    for name, value in found.items():
        label = name if name == "dense" else f"ztfxr, {name}"
        print(f"  {label:42s} {value:.4f} s   {found['dense'] / value:6.1f} x")


def main() -> None:
    """Print the comparison."""
    parser = argparse.ArgumentParser(description="Cut-outs of 250 px with a 17 x 17 kernel: ztfxr and dense algebra.")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="in the stack; 0 for no stack")
    options = parser.parse_args()
    report("one epoch", one_epoch(options.repeats))
    apart, differ = deviations()
    print(f"  kernels differ by {apart:.1e} of the peak, images by {differ:.1e} of their scatter")
    if options.epochs:
        report(f"per epoch of {options.epochs}", whole_stack(options.epochs, max(options.repeats // 2, 1)))


if __name__ == "__main__":
    main()
