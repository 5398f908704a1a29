"""Two frames to difference photometry of a catalog on a cut-out, in one call, the way microlensing groups work."""

from __future__ import annotations

from os import PathLike
from typing import Any, Literal

import numpy as np
import xarray as xr

from ztfxr.errors import InputError
from ztfxr.ops.exposure import gather
from ztfxr.ops.positions import Positions, resolve_positions
from ztfxr.ops.sky import contains
from ztfxr.ops.stacks.align import align
from ztfxr.ops.stamps import stamp
from ztfxr.photometry.lightcurve import Method
from ztfxr.recipes.chain import measure, say, subtract
from ztfxr.schema import annotate_all
from ztfxr.store.fits import to_extensions
from ztfxr.wcs import has_wcs

__all__ = ["difference_photometry"]


def difference_photometry(
    image: xr.Dataset,
    reference: xr.Dataset,
    *,
    positions: Positions,
    center: tuple[float, float] | None = None,
    size: int = 250,
    kernel_size: int = 17,
    photometry: Method = "aperture",
    radius: float = 4.0,
    method: Literal["wcs", "stars", "auto", "none"] = "auto",
    write_to: str | PathLike[str] | None = None,
    source: str | PathLike[str] | None = None,
    **options: Any,
) -> xr.Dataset:
    """Align a frame to the reference, subtract on a cut-out, and measure every catalog star. Computes.

    Parameters
    ----------
    image, reference
        Datasets with `sci` (y, x), and `flags` and `variance` where they exist, as the readers give them.
    positions
        The star catalog, as for `ztfxr.resolve_positions`, on the reference's frame; stars off the cut-out are
        left out.
    center
        RA and Dec in degrees of the cut-out's center, or x, y where the reference has no WCS; by default the middle.
    size, kernel_size
        Sides of the cut-out and of the kernel, in pixels.
    photometry
        Sums in apertures, or forced fits of the PSF that the stars of the reference make.
    radius
        Radius of the apertures in pixels.
    method
        How to align, as for `ztfxr.align`; ``"none"`` for frames that are aligned already.
    write_to, source
        Write the results to a new FITS file with `ztfxr.to_extensions`, after the HDUs of the file `source` if one is
        given; `source` is never changed.
    **options
        Passed on to `ztfxr.difference`.

    Returns
    -------
    xarray.Dataset
        `aligned`, `model`, `difference`, `difference_variance`, `mask` (y, x) on the reference's grid; `kernel`,
        `kernel_err` (ky, kx); `background_coeff` with errors; `flux`, `flux_err`, `status`, `source_ra`,
        `source_dec`, … on `source`. ``attrs["log"]`` tells what was done, a line each; the logger ``ztfxr`` has the
        same lines.

    Raises
    ------
    InputError, AlignmentError, OutsideFrameError, StoreError
    """
    log: list[str] = []
    cut = _cut(reference, center, size)
    corner = f"x = {int(cut['x'][0])}, y = {int(cut['y'][0])}"
    _note(log, f"cut-out of {cut.sizes['x']} x {cut.sizes['y']} px at {corner} of the reference")
    aligned = image if method == "none" else align(image, to=reference, method=method)
    _note(log, "the frames are taken as aligned" if method == "none" else _aligned_line(aligned))
    target = aligned.sel({d: slice(int(cut[d][0]), int(cut[d][-1])) for d in ("y", "x")})
    diff = subtract(target, cut, kernel_size=kernel_size, solve_on="all", **options)
    _note(log, _solution_line(diff))
    stars = _inside(cut, positions)
    found = measure(diff, stars, cut, photometry=photometry, radius=radius)
    means = "by PSF fits" if "fit_chi2" in found else f"in {radius:g} px"
    _note(log, f"{found.sizes['source']} stars {means}, {int((found['status'] > 0).sum())} with a flag")
    out = _together(diff, found, gather(target, name="sci").image.compute())
    out.attrs["log"] = log
    if write_to is not None:
        to_extensions(out, write_to, source=source)
    return out


def _note(log: list[str], line: str) -> None:
    """Say a line, and keep it in the log."""
    log.append(line)
    say(line)


def _together(diff: xr.Dataset, found: xr.Dataset, science: xr.DataArray) -> xr.Dataset:
    """Images and fluxes in one dataset; the coordinates of the pixels keep their names."""
    sky = {f"source_{name}": ("source", found[name].values) for name in ("ra", "dec") if name in found.coords}
    own = found.drop_vars([name for name in found.coords if name in diff.coords]).assign_coords(sky)
    images = {"aligned": science.variable, "model": science.variable - diff["difference"].variable}
    return annotate_all(diff.assign(own.data_vars).assign_coords(own.coords).assign(images))


def _cut(reference: xr.Dataset, center: tuple[float, float] | None, size: int) -> xr.Dataset:
    missing = {d: np.arange(reference.sizes[d]) for d in ("y", "x") if d not in reference.coords}
    labeled = reference.assign_coords(missing)
    if center is None:
        middle = {d: float(labeled[d][labeled.sizes[d] // 2]) for d in ("x", "y")}
        return stamp(labeled, x=middle["x"], y=middle["y"], size=size, boundary="trim")
    names = ("ra", "dec") if has_wcs(labeled) else ("x", "y")
    place: dict[str, Any] = dict(zip(names, center, strict=True))
    return stamp(labeled, **place, size=size, boundary="trim")


def _aligned_line(aligned: xr.Dataset) -> str:
    rms = aligned.get("registration_rms", aligned.coords.get("registration_rms"))
    return "aligned" if rms is None else f"aligned with residuals of {float(rms):.3f} px rms"


def _solution_line(diff: xr.Dataset) -> str:
    scale, error = float(diff["kernel_sum"]), float(diff["kernel_sum_err"])
    return f"kernel sum {scale:.4f} +- {error:.4f}, chi2 {float(diff['chi2']):.2f} over {int(diff['n_pixels'])} px"


def _inside(cut: xr.Dataset, positions: Positions) -> xr.Dataset:
    stars = resolve_positions(cut, positions)
    inside = contains(cut, stars).values
    if not inside.any():
        raise InputError("no catalog star lies on the cut-out; check center and size, or the catalog's coordinates")
    return stars.isel(source=np.flatnonzero(inside))
