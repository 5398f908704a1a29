"""``ztfxr sources`` and ``ztfxr inject``: catalogs of images, and stars of known flux put into them."""

from __future__ import annotations

from typing import Any

import numpy as np
import rich_click as click
import xarray as xr

from ztfxr.cli._base import Reply, command
from ztfxr.cli._inputs import camera_option, mask_option, open_image, position_options, positions_of
from ztfxr.cli._outputs import IMAGES, TABLES, check_outputs, out_option, write
from ztfxr.errors import InputError
from ztfxr.ops.catalogs.sources import sources as detect
from ztfxr.ops.photcal import mag_to_counts
from ztfxr.photometry.inject import inject as put_in
from ztfxr.photometry.psf_build import build_psf

__all__ = ["inject", "sources"]

_ROWS = 10
_COLUMNS = {"x_centroid": "9.2f", "y_centroid": "9.2f", "ra": "11.6f", "dec": "+11.6f", "snr": "9.1f", "mag": "7.3f"}


@command("sources")
@click.argument("frame", metavar="FRAME", help="A frame, a file that ztfxr wrote, or a store with one image.")
@click.option("--n-sigma", type=click.FloatRange(0, min_open=True), default=5.0, show_default=True, help="Threshold.")
@camera_option
@mask_option
@out_option("Table: .csv .ecsv .parquet .fits .reg .zarr.")
def sources(frame: str, n_sigma: float, camera: str | None, mask: bool, out: str | None, overwrite: bool) -> Reply:
    """The sources of an image: a catalog.

    The brightest are printed, --out keeps all.
    """
    if out is not None:
        check_outputs([out], tuple(TABLES), overwrite=overwrite)
    found = detect(open_image(frame, camera, mask=mask), n_sigma=n_sigma)
    n, known = found.sizes["source"], [name for name in _COLUMNS if name in found.variables]
    lines = [f"{n} sources above {n_sigma:g} sigma"]
    if n:
        lines.append(
            " ".join(f"{name.removesuffix('_centroid'):>{_COLUMNS[name].lstrip('+').split('.')[0]}s}" for name in known)
        )
    lines += [" ".join(f"{float(found[name][i]):{_COLUMNS[name]}}" for name in known) for i in range(min(n, _ROWS))]
    columns = {str(k): v.values for k, v in found.variables.items() if v.dims == ("source",)}
    outputs = [] if out is None else [write(found, out, TABLES, overwrite=overwrite)]
    return Reply(lines, {"n_sources": n} | ({} if outputs else {"sources": columns}), outputs)


@command("inject")
@click.argument("frame", metavar="FRAME", help="A science frame, with the stars that its PSF is built from.")
@position_options
@click.option("--flux", type=float, multiple=True, metavar="DN", help="Flux of each star, or one of all, in counts.")
@click.option("--mag", type=float, multiple=True, metavar="AB", help="AB magnitude instead, by the frame's zero point.")
@click.option("--seed", type=click.IntRange(0, 4194303), default=0, show_default=True, help="Of the photon noise.")
@click.option("--no-noise", is_flag=True, help="Leave the photon noise of the new light out.")
@camera_option
@mask_option
@out_option("The frame with the stars: .fits .fits.gz .zarr .zarr.zip.", default="injected.fits")
def inject(frame: str, camera: str | None, mask: bool, out: str, overwrite: bool, **given: Any) -> Reply:
    """Stars of known flux put into a frame, to test with."""
    check_outputs([out], tuple(IMAGES), overwrite=overwrite)
    places = positions_of(*(given[name] for name in ("ra", "dec", "x", "y", "positions")))
    if places is None:
        raise click.UsageError("say where the stars go: --ra and --dec, --x and --y, or --positions TABLE")
    n = len(next(iter(places.values())))
    image = open_image(frame, camera, mask=mask)
    flux = _fluxes(image, given["flux"], given["mag"], n)
    psf = build_psf(image).compute()
    if int(psf["epoch_status"]):
        raise InputError(
            "no PSF can be built from the frame: too few bright stars; give one with more, a whole quadrant"
        )
    made = put_in(image, places, flux, psf, noise=not given["no_noise"], seed=given["seed"])
    lines = [f"{n} stars of {flux.min():.1f} to {flux.max():.1f} counts; PSF of {float(psf['fwhm']):.2f} px FWHM"]
    data = {"flux": flux, "fwhm": float(psf["fwhm"]), "positions": places}
    return Reply(lines, data, [write(made, out, IMAGES, overwrite=overwrite)])


def _fluxes(image: xr.Dataset, flux: tuple[float, ...], mag: tuple[float, ...], n: int) -> np.ndarray[Any, Any]:
    if bool(flux) == bool(mag):
        raise click.UsageError("say how bright the stars are, by --flux or by --mag")
    values = np.asarray(flux or mag, dtype=np.float64)
    if values.size not in (1, n):
        raise click.UsageError(f"{values.size} fluxes for {n} positions; give one of each, or one for all")
    if mag:
        if "magzp" not in image.coords or not np.isfinite(float(image["magzp"])):
            raise InputError("the frame has no zero point, so magnitudes are no counts; give --flux instead of --mag")
        values = mag_to_counts(values, magzp=float(image["magzp"]))
    return np.broadcast_to(values, (n,)).copy()
