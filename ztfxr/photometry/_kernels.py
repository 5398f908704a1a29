"""What a matching kernel does to PSF and noise of a difference image, as inputs of mapped functions."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ztfxr.arrays.images.correlation import autocorrelation
from ztfxr.arrays.psf.fit import ConvolvedNoise
from ztfxr.arrays.types import Bools, Floats
from ztfxr.dia._pair import bare
from ztfxr.dia.kernel_frame import KernelFrame
from ztfxr.errors import InputError

__all__ = ["Side", "convolved_noise", "kernel_inputs", "kernel_terms", "spread_kernels"]

Side: TypeAlias = Literal["science", "reference"]

_KERNEL = ("kterm", "ky", "kx")
_PHI = ("phi_y", "phi_x")
_LAGS = 4


def kernel_inputs(diff: xr.Dataset | None) -> tuple[list[xr.DataArray], list[tuple[str, ...]]]:
    """Kernel, which image it acts on, and the whitening kernel, with their core dimensions; NaN for what is not."""
    if diff is None:
        return [xr.DataArray(np.nan), xr.DataArray(False), xr.DataArray(np.nan)], [(), (), ()]
    missing = [n for n in ("difference", "science_convolved") if n not in diff]
    if missing or not {"kernel", "kernel_coeff"} & set(diff.variables):
        raise InputError(
            f"a difference is the Dataset that ztfxr.difference returns; without {', '.join(missing) or 'kernel'}"
        )
    kernel = diff["kernel_coeff"] if "kernel_coeff" in diff else diff["kernel"].expand_dims("kterm")
    phi = diff["decorrelation_kernel"] if "decorrelation_kernel" in diff else xr.DataArray(np.nan)
    core = [_KERNEL, (), _PHI if phi.ndim else ()]
    return [bare(a) for a in (kernel, diff["science_convolved"], phi)], core


def kernel_terms(y: Floats, x: Floats, frame: KernelFrame, number: int) -> Floats:
    """The kernel's polynomial terms at absolute positions, (position, term)."""
    return frame.terms(y, x, number)


def spread_kernels(kernel: NDArray[Any], swapped: Bools, phi: NDArray[Any], of: Side) -> Floats | None:
    """The kernels (term, y, x) that act on the PSF of the science or the reference image; empty where none does.

    None where the difference has no kernel.
    """
    from scipy import signal

    if kernel.ndim == 0:
        return np.zeros((0, 0, 0))
    if not (np.isfinite(kernel).all() and (phi.ndim == 0 or np.isfinite(phi).all())):
        return None
    acts = bool(swapped) == (of == "science")
    one = np.zeros((len(kernel), 1, 1))
    one[0] = 1.0
    out = _trimmed(kernel) if acts else one
    if phi.ndim:
        out = signal.convolve(out, np.asarray(phi, dtype=np.float64)[None])
    return np.ascontiguousarray(out) if acts or phi.ndim else np.zeros((0, 0, 0))


def _trimmed(kernel: NDArray[Any]) -> Floats:
    """Without the pixels around the edge that are zero everywhere."""
    some = np.flatnonzero(np.any(kernel, axis=0).ravel())
    n = kernel.shape[-1]
    reach = int(np.abs(np.stack(np.divmod(some, n)) - n // 2).max()) if len(some) else 0
    inner = slice(n // 2 - reach, n // 2 + reach + 1)
    return np.ascontiguousarray(kernel[:, inner, inner], dtype=np.float64)


def convolved_noise(
    image: NDArray[Any],
    variance: NDArray[Any],
    bad: Bools,
    kernel: NDArray[Any],
    swapped: Bools,
    phi: NDArray[Any],
    science_variance: NDArray[Any],
    reference_variance: NDArray[Any],
    spread: Floats,
    terms: Floats,
) -> ConvolvedNoise:
    """What the kernel did, for `fit_sources`.

    The variance of the convolved image before that is the one given, or follows from that of the difference and from
    the correlation of the difference's own noise. A whitened difference has none.
    """
    none = np.zeros((0, 0, 0))
    if kernel.ndim == 0 or phi.ndim:
        return ConvolvedNoise(spread, none, np.zeros((0, 0)), terms)
    plain = _trimmed(kernel)
    if swapped:
        plain = plain / plain[0].sum()
    known = science_variance if swapped else reference_variance
    if known.ndim == 0 and np.isfinite(known):
        known = np.full(image.shape, float(known))
    if known.ndim == 0:
        known = np.full(image.shape, _convolved_variance(image, variance, bad, plain[0]))
    return ConvolvedNoise(spread, plain, np.where(np.isfinite(known), known, 0.0), terms)


def _convolved_variance(image: NDArray[Any], variance: NDArray[Any], bad: Bools, kernel: Floats) -> float:
    """Variance of the convolved image's sky, before that.

    Pixels l apart have the covariance ``t² Σ K(u) K(u + l)``; t² is its least-squares fit to the correlation that the
    noise of the difference shows over lags of up to four pixels. It is the sky's alone: which of the two images a
    source's photon noise is from the difference does not say, and that of a transient is not from the convolved one.
    """
    from scipy import signal

    usable = ~bad & (variance > 0) & np.isfinite(variance)
    if not usable.any():
        return 0.0
    found = autocorrelation(image, variance, bad, reach=_LAGS)
    shape = signal.correlate(np.pad(kernel, _LAGS), kernel, mode="valid")
    total, later = float(shape[_LAGS, _LAGS]), np.arange(shape.size) != shape.size // 2
    strength = float((shape.ravel()[later] ** 2).sum())
    if strength <= 1e-6 * total**2:
        return 0.0
    share = float((found * shape).ravel()[later].sum()) / strength
    return float(np.clip(share, 0.0, 1.0 / total)) * float(np.median(variance[usable]))
