"""One method on one pair, in a process of its own: ``worker.py METHOD PAIR OUT`` writes a difference, prints JSON.

The methods that are not ztfxr get images whose bad pixels were filled for them, for they take no masks that help;
what they make of those pixels is not counted. Everything a method needs is imported before its clock starts.
"""

from __future__ import annotations

import json
import resource
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

Images = NDArray[np.float32]
Solve = Callable[[], tuple[Images, Images | None]]

_REPEATS = 5
_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class Pair:
    """What a pair's folder holds."""

    folder: Path

    def read(self, name: str) -> Images:
        """An image in native byte order."""
        return fits.getdata(self.folder / f"{name}.fits").astype(np.float32)

    def mask(self, which: str) -> NDArray[np.bool_]:
        """Bad pixels of "sci" or "ref"."""
        return np.asarray(fits.getdata(self.folder / f"mask_{which}.fits")) > 0

    def filled(self, which: str) -> Images:
        """An image with its bad pixels replaced by the median of the good ones around."""
        from scipy.ndimage import distance_transform_edt, median_filter

        image, bad = self.read(which), self.mask(which)
        nearest = distance_transform_edt(bad, return_distances=False, return_indices=True)
        image = image[tuple(nearest)]
        return np.where(bad, median_filter(image, size=5), image)


def ztfxr_plain(pair: Pair, *, told: bool = False, **options: Any) -> Solve:
    """Images and masks, and nothing else told; or the pair's noise as well."""
    import xarray as xr

    import ztfxr

    def label(image: NDArray[Any]) -> xr.DataArray:
        return xr.DataArray(image, dims=("y", "x"))

    given = {"mask": label(pair.mask("sci")), "reference_mask": label(pair.mask("ref"))}
    if told:
        given["variance"] = label(pair.read("sci_noise") ** 2)
        given["reference_variance"] = label(pair.read("ref_noise") ** 2)
    science, reference = label(pair.read("sci")), label(pair.read("ref"))

    def solve() -> tuple[Images, Images | None]:
        found = ztfxr.difference(science, reference, **given, **options)
        return found["difference"].values, np.sqrt(found["difference_variance"].values)

    return solve


def ztfxr_noise(pair: Pair) -> Solve:
    """With the noise of both images told."""
    return ztfxr_plain(pair, told=True)


def sfft_order1(pair: Pair) -> Solve:
    """sfft on the CPU: kernel of 9 × 9 pixels and background of order 1; order 2 needs more than 24 GB."""
    from sfft.CustomizedPacket import Customized_Packet

    science, reference = pair.filled("sci"), pair.filled("ref")

    def solve() -> tuple[Images, Images | None]:
        from tempfile import TemporaryDirectory

        with TemporaryDirectory() as folder:
            paths = {name: str(Path(folder) / f"{name}.fits") for name in ("ref", "sci", "mref", "msci", "diff")}
            for name, image in (("ref", reference), ("sci", science), ("mref", reference), ("msci", science)):
                fits.writeto(paths[name], image.astype(np.float64))
            Customized_Packet.CP(
                paths["ref"],
                paths["sci"],
                paths["mref"],
                paths["msci"],
                ForceConv="REF",
                GKerHW=4,
                FITS_DIFF=paths["diff"],
                KerPolyOrder=1,
                BGPolyOrder=1,
                ConstPhotRatio=True,
                BACKEND_4SUBTRACT="Numpy",
                NUM_CPU_THREADS_4SUBTRACT=2,
                VERBOSE_LEVEL=0,
            )
            return fits.getdata(paths["diff"]).astype(np.float32), None

    return solve


def ois_grid(pair: Pair) -> Solve:
    """ois (Bramich's delta basis): 11 × 11 pixels, each cell of a 6 × 6 grid by itself."""
    from ois import optimal_system

    science, reference = pair.filled("sci").astype(np.float64), pair.filled("ref").astype(np.float64)

    def solve() -> tuple[Images, Images | None]:
        found = optimal_system(science, reference, kernelshape=(11, 11), bkgdegree=1, gridshape=(6, 6))
        return np.asarray(found[0], dtype=np.float32), None

    return solve


METHODS: dict[str, Callable[[Pair], Solve]] = {
    "ztfxr": ztfxr_plain,
    "ztfxr-noise": ztfxr_noise,
    "sfft-order1": sfft_order1,
    "ois-grid": ois_grid,
}


def _kilobytes(field: str) -> int:
    """A line of this process's status; 0 where there is none."""
    if not _STATUS.exists():
        return 0
    lines = (line.split() for line in _STATUS.read_text().splitlines())
    return next((int(words[1]) for words in lines if words[0] == f"{field}:"), 0)


def _reset_peak() -> None:
    """Forget the highest memory use so far, where the system can (Linux)."""
    if _RESET.exists():
        _RESET.write_text("5")


def _seconds(function: Callable[[], Any]) -> float:
    start = perf_counter()
    function()
    return perf_counter() - start


def _one_convolution(reference: Images) -> Callable[[], NDArray[Any]]:
    """The yardstick: the frame convolved once with 17 × 17 pixels by FFT, in its own precision."""
    from scipy.signal import oaconvolve

    kernel = np.full((17, 17), 1 / 289, dtype=np.float32)
    return lambda: oaconvolve(reference, kernel, mode="same")


def measure(method: str, folder: Path, out: Path) -> dict[str, float]:
    """Run a method; times in seconds and memory in GB."""
    pair = Pair(folder)
    solve = METHODS[method](pair)
    before = _kilobytes("VmRSS")
    _reset_peak()
    start = perf_counter()
    difference, sigma = solve()
    result = {"first_s": perf_counter() - start, "beyond_GB": (_kilobytes("VmHWM") - before) / 1e6}
    fits.writeto(out, difference, overwrite=True)
    if sigma is not None:
        fits.writeto(out.with_suffix(".sigma.fits"), sigma, overwrite=True)
    del difference, sigma
    result["peak_GB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    if method.startswith("ztfxr"):
        convolve = _one_convolution(pair.read("ref"))
        start = perf_counter()
        convolve()
        times = [(_seconds(solve), _seconds(convolve)) for _ in range(_REPEATS)]
        result["warm_s"], result["oaconvolve_s"] = (min(values) for values in zip(*times, strict=True))
        result["repeats_s"] = perf_counter() - start
    return result


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))))
