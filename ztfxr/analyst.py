"""One call from two frames to difference photometry on a cut-out, the way microlensing groups work."""

from __future__ import annotations

import gzip
import shutil
from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

import numpy as np
import xarray as xr
from astropy.io import fits
from astropy.table import Table

from ztfxr.dia.difference import difference
from ztfxr.errors import InputError, StoreError
from ztfxr.ops.align import align
from ztfxr.ops.background import get_image
from ztfxr.ops.positions import Positions, resolve_positions
from ztfxr.ops.stamps import stamp
from ztfxr.photometry.aperture import aperture_photometry
from ztfxr.schema import annotate_all
from ztfxr.wcs import has_wcs

__all__ = ["difference_photometry", "write_extensions"]

_IMAGES = ("aligned", "difference", "difference_variance", "model")
_ARRAYS = ("kernel", "kernel_err")
_TABLE = ("x_pixel", "y_pixel", "source_ra", "source_dec", "flux", "flux_err", "area", "masked_fraction", "status")


def difference_photometry(
    image: xr.Dataset,
    reference: xr.Dataset,
    *,
    positions: Positions,
    center: tuple[float, float] | None = None,
    size: int = 250,
    kernel_size: int = 17,
    radius: float = 4.0,
    method: Literal["wcs", "stars", "auto", "none"] = "auto",
    write_to: str | PathLike[str] | None = None,
    source: str | PathLike[str] | None = None,
    report: Callable[[str], Any] | None = None,
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
    size, kernel_size, radius
        Of the cut-out, the kernel and the aperture, in pixels.
    method
        How to align, as for `ztfxr.align`; ``"none"`` for frames that are aligned already.
    write_to, source
        Write the results as named extensions of a new FITS file, after those of the file `source` if one is given;
        `source` is never changed.
    report
        Called with each line of the log, which ``attrs["log"]`` keeps.
    **options
        Passed on to `ztfxr.difference`.

    Returns
    -------
    xarray.Dataset
        `aligned`, `model`, `difference`, `difference_variance`, `mask` (y, x) on the reference's grid; `kernel`,
        `kernel_err` (ky, kx); `background_coeff` with errors; `flux`, `flux_err`, `status`, `source_ra`,
        `source_dec`, … on `source`.

    Raises
    ------
    InputError, AlignmentError, OutsideFrameError, StoreError
    """
    lines: list[str] = []

    def log(line: str) -> None:
        lines.append(line)
        if report is not None:
            report(line)

    cut = _cut(reference, center, size)
    corner = f"x = {int(cut['x'][0])}, y = {int(cut['y'][0])}"
    log(f"cut-out of {cut.sizes['x']} x {cut.sizes['y']} px at {corner} of the reference")
    aligned = image if method == "none" else align(image, to=reference, method=method)
    log("the frames are taken as aligned" if method == "none" else _aligned_line(aligned))
    target = aligned.sel({d: slice(int(cut[d][0]), int(cut[d][-1])) for d in ("y", "x")})
    diff = difference(target, cut, kernel_size=kernel_size, solve_on="all", **options).compute()
    log(_solution_line(diff))
    stars = _inside(resolve_positions(cut, positions), cut)
    photometry = aperture_photometry(diff, stars, radius=radius).compute()
    log(f"{photometry.sizes['source']} stars in {radius:g} px, {int((photometry['status'] > 0).sum())} with a flag")
    sci = get_image(target).compute()
    sky = {f"source_{n}": ("source", photometry[n].values) for n in ("ra", "dec") if n in photometry.coords}
    own = photometry.drop_vars([c for c in photometry.coords if c in diff.coords]).assign_coords(sky)
    out = annotate_all(
        diff.assign(own.data_vars)
        .assign_coords(own.coords)
        .assign(aligned=sci.variable, model=sci.variable - diff["difference"].variable)
    )
    out.attrs["log"] = lines
    if write_to is not None:
        write_extensions(out, write_to, source=source)
    return out


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


def _inside(stars: xr.Dataset, cut: xr.Dataset) -> xr.Dataset:
    inside = np.ones(stars.sizes["source"], dtype=bool)
    for d in ("x", "y"):
        low, high = float(cut[d][0]) - 0.5, float(cut[d][-1]) + 0.5
        inside &= (stars[f"{d}_pixel"].values >= low) & (stars[f"{d}_pixel"].values < high)
    if not inside.any():
        raise InputError("no catalog star lies on the cut-out; check center and size, or the catalog's coordinates")
    return stars.isel(source=np.flatnonzero(inside))


def write_extensions(
    result: xr.Dataset, path: str | PathLike[str], *, source: str | PathLike[str] | None = None
) -> None:
    """Write the results of `difference_photometry` as named FITS extensions, whole or not at all. Computes.

    Images carry the cut-out's WCS, the photometry is a table, and the log a table of lines. With `source`, its HDUs
    come first, byte for byte; `source` itself is only read.

    Raises
    ------
    StoreError
        The file exists already, or cannot be written.
    """
    path = Path(path)
    if path.exists():
        raise StoreError(f"{path} exists; remove it, or write elsewhere")
    partial = path.with_name(f".{path.name}.partial-{uuid4().hex}.fits")
    try:
        if source is None:
            fits.HDUList([fits.PrimaryHDU(), *_hdus(result)]).writeto(partial)
        else:
            _append(Path(source), partial, _hdus(result))
        partial.replace(path)
    except OSError as error:
        raise StoreError(f"{path} cannot be written ({error})") from error
    finally:
        partial.unlink(missing_ok=True)


def _append(source: Path, path: Path, hdus: list[Any]) -> None:
    """A copy of `source` at `path`, with `hdus` after its own."""
    with gzip.open(source) if source.suffix == ".gz" else source.open("rb") as old, path.open("wb") as new:
        shutil.copyfileobj(old, new)
    with fits.open(path, mode="append", memmap=False) as file:
        for hdu in hdus:
            file.append(hdu)


def _hdus(result: xr.Dataset) -> list[Any]:
    header = _window_header(result)
    images = [fits.ImageHDU(np.asarray(result[name].values), header, name=name.upper()) for name in _IMAGES]
    mask = fits.ImageHDU(result["mask"].values.astype(np.uint8), header, name="MASK")
    arrays = [fits.ImageHDU(np.asarray(result[name].values), name=name.upper()) for name in _ARRAYS]
    of_source = [n for n in _TABLE if n in result.variables and result[n].dims == ("source",)]
    tables = {
        "BACKGROUND": {name: result[name].values for name in ("background_coeff", "background_coeff_err")},
        "PHOTOMETRY": {name: result[name].values for name in of_source},
        "LOG": {"line": np.array(result.attrs["log"])},
    }
    return [*images, mask, *arrays, *(fits.BinTableHDU(Table(t), name=name) for name, t in tables.items())]


def _window_header(result: xr.Dataset) -> fits.Header:
    """The WCS of the cut-out's window; empty without one."""
    if not has_wcs(result):
        return fits.Header()
    transform = result.xindexes["ra"].transform  # type: ignore[attr-defined]
    cards = fits.Header.fromstring(str(transform.cards), sep="\n")
    for axis, start in ((1, transform.window.start[1]), (2, transform.window.start[0])):
        cards[f"CRPIX{axis}"] = float(cards[f"CRPIX{axis}"]) - start
    return cards
