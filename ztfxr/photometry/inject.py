"""Artificial stars: put them into images, measure them like any other, and see what came back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ztfxr.arrays.photometry.injection import add_stamps, light_at, summarize
from ztfxr.arrays.types import Floats
from ztfxr.errors import InputError
from ztfxr.ops.exposure import Exposure, gather
from ztfxr.ops.mapping import IMAGE, aligned, map_images
from ztfxr.ops.positions import Positions, array_positions, resolve_positions
from ztfxr.photometry.cuts import kept
from ztfxr.photometry.psf import PSF, psf_at
from ztfxr.schema import annotate_all

__all__ = ["inject", "inject_and_measure", "injection_report"]

P = TypeVar("P", xr.Dataset, xr.DataArray, xr.Dataset | xr.DataArray)

_STAMP = ("source", "psf_y", "psf_x")


def inject(
    obj: xr.Dataset,
    positions: Positions,
    flux: xr.DataArray | NDArray[Any] | Sequence[float],
    psf: PSF,
    *,
    noise: bool = True,
    gain: float | None = None,
    seed: int = 0,
) -> xr.Dataset:
    """Add point sources to science images, with their photon noise; lazy, one epoch a task.

    Parameters
    ----------
    obj
        Images with `sci` (..., y, x); a `variance` beside it grows by that of the new photons.
    positions
        Where to put the stars, as `ztfxr.resolve_positions` takes it.
    flux
        Fluxes in the unit of the image, (source,), or (time, source) for a light curve. They may be negative.
    psf
        The PSF, from `ztfxr.build_psf` or `ztfxr.read_psf`, or stamps (..., source, psf_y, psf_x) around the pixels
        that the positions fall on, the fractions of the light.
    noise
        Add the photon noise of the new light: Poisson for positive fluxes. Without it, what comes back has less noise
        than its error says.
    gain
        Electrons per unit of the image; by default the coordinate `gain`. Not needed without noise.
    seed
        Whole number from 0 to 4194303. The noise of an epoch follows from it and from `mjd` (or the epoch's number),
        whatever the chunks.

    Returns
    -------
    xarray.Dataset
        `obj` with the stars in `sci`; the rest, flags included, is as it was: saturation is not modeled.

    Raises
    ------
    InputError, ChunkError, AlignmentError
    """
    exposure = gather(obj, name="sci")
    image = exposure.image
    where = resolve_positions(image, positions)
    y, x = array_positions(where, exposure.origin)
    found = map_images(
        _with_stars,
        {
            "image": image,
            "variance": exposure.own_variance if noise else None,
            "flux": _light(flux, image, where.sizes["source"]),
            "stamps": _stamps(_chunked_like(psf, image), where),
            "x": x,
            "y": y,
            "gain": _gain(exposure, gain) if noise else None,
            "seed": _seeds(image, seed),
        },
        ["sci", "variance"] if noise and "variance" in obj else ["sci"],
        options={"noise": noise},
    )
    changed = {k: obj[k].copy(data=v.transpose(*obj[k].dims).data) for k, v in found.items()}
    return annotate_all(obj.assign(changed), unit=exposure.unit)


def _with_stars(*, noise: bool, **arrays: Any) -> dict[str, NDArray[Any] | None]:
    """`add_stamps` by the names of the results."""
    image, variance = add_stamps(**arrays, noise=noise)
    return {"sci": image, "variance": variance}


def _chunked_like(psf: P, image: xr.DataArray) -> P:
    """The PSF in chunks of the images' epochs, so that stamps exist only of those in work."""
    chunks = {d: c for d, c in image.chunksizes.items() if d not in IMAGE and psf.sizes.get(d) == image.sizes[d]}
    return psf.chunk(chunks) if chunks else psf


def _stamps(psf: PSF, where: xr.Dataset) -> xr.DataArray:
    """The PSF at every position."""
    n = where.sizes["source"]
    if isinstance(psf, xr.DataArray) and "source" in psf.dims:
        if psf.sizes["source"] != n or not set(_STAMP) <= set(psf.dims):
            raise InputError(
                f"the PSF's stamps need dims (source, psf_y, psf_x) for {n} sources; got {dict(psf.sizes)}"
            )
        stamps = psf
    else:
        stamps = psf_at(psf, where["x_pixel"].values, where["y_pixel"].values)
    if stamps.sizes["psf_y"] % 2 == 0 or stamps.sizes["psf_y"] != stamps.sizes["psf_x"]:
        raise InputError(
            f"the PSF's stamps are odd by odd squares; got {stamps.sizes['psf_y']} x {stamps.sizes['psf_x']}"
        )
    return stamps


def _light(given: Any, image: xr.DataArray, n: int) -> xr.DataArray:
    """The fluxes on (source,) or (time, source)."""
    if isinstance(given, xr.DataArray):
        flux: xr.DataArray = aligned(given, image, "flux").astype(np.float64)
    else:
        try:
            values = np.asarray(given, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise InputError(f"flux is a number in DN for each source; got {given!r}"[:200]) from error
        flux = xr.DataArray(values, dims=("time", "source")[2 - values.ndim :])
    flux = flux if "source" in flux.dims else flux.expand_dims(source=n)
    if flux.sizes.get("source") != n or not set(flux.dims) <= {*image.dims, "source"}:
        raise InputError(f"flux needs the dims (source,) or (time, source) for {n} sources; got {dict(flux.sizes)}")
    if "time" in flux.dims and flux.sizes["time"] != image.sizes["time"]:
        raise InputError(f"flux has {flux.sizes['time']} epochs, the images have {image.sizes['time']}")
    return flux


def _gain(exposure: Exposure, given: float | None) -> xr.DataArray:
    if given is not None:
        return xr.DataArray(float(given))
    if exposure.gain is None:
        raise InputError(
            "photon noise needs the gain: give gain= (electron/DN), or a coordinate 'gain'; or noise=False"
        )
    return exposure.gain


def _seeds(image: xr.DataArray, seed: int) -> xr.DataArray:
    """A number per image, the same however the stack is cut."""
    loop = [d for d in image.dims if d not in IMAGE]
    if seed not in range(1 << 22):
        raise InputError(f"seed is a whole number from 0 to {(1 << 22) - 1}; got {seed!r}")
    if "mjd" in image.coords:
        mjd = image.coords["mjd"].variable
        seconds = np.round(np.nan_to_num(mjd.values) * 86400.0).astype(np.int64)
        return xr.DataArray(seconds + (seed << 40), dims=mjd.dims)
    shape = [image.sizes[d] for d in loop]
    return xr.DataArray(np.arange(int(np.prod(shape))).reshape(shape) + (seed << 40), dims=loop)


def inject_and_measure(
    obj: xr.Dataset,
    measure: Callable[[xr.Dataset, xr.Dataset], xr.Dataset],
    psf: PSF,
    *,
    mag: tuple[float, float],
    n_sources: int = 200,
    margin: float = 15.0,
    min_separation: float = 12.0,
    subtract: bool = False,
    seed: int = 0,
) -> xr.Dataset:
    """Put artificial stars at random places into every epoch and measure them; lazy but for the places.

    Parameters
    ----------
    obj
        A stack (time, y, x) or a frame with `sci` and the coordinates `magzp` and, for the noise, `gain`.
    measure
        Called as ``measure(images, positions)``, it gives a Dataset with `flux`, `flux_err` (DN) on (time, source): the
        job that is to be tried, from the images on.
    psf
        The PSF, as `ztfxr.inject` takes it.
    mag
        Range of AB magnitudes, evenly filled; the stars keep theirs over all epochs.
    n_sources
        How many stars are put in at once: few beside those of the field, since what the job learns from the images,
        such as their sky, it learns with the new stars in them. For more, run again with other seeds.
    margin
        Distance (px) of the places from the edge.
    min_separation
        Least distance (px) of the places from one another.
    subtract
        Measure the images without the new stars too, and take that off: the stars and galaxies that the places happen
        to lie on do not count as bias, but neither does the noise of the images as noise: the pulls are too narrow.
    seed
        Places, magnitudes and noise follow from it.

    Returns
    -------
    xarray.Dataset
        On (time, source): `flux_injected`, `flux`, `flux_err`, `status`, and `surface_brightness`, the image's own
        light 3 to 6 px from the place (good pixels, DN over the median: nearer by, its noise would be the star's); on
        `source`: `mag_injected`, `x_pixel`, `y_pixel`. For `ztfxr.injection_report`.

    Raises
    ------
    InputError
        No zero point, or so many stars do not fit.
    """
    exposure = gather(obj, name="sci")
    image = exposure.image
    if "magzp" not in image.coords:
        raise InputError("magnitudes need a zero point: the images have no coordinate 'magzp'")
    rng = np.random.default_rng(seed)
    places = _places(exposure, n_sources, margin, min_separation, rng)
    magnitudes = xr.DataArray(rng.uniform(min(mag), max(mag), n_sources), dims="source")
    magzp = image.coords["magzp"].reset_coords(drop=True)
    flux = 10.0 ** (0.4 * (magzp - magnitudes))
    positions = xr.Dataset({"x": ("source", places[:, 0]), "y": ("source", places[:, 1])})
    measured = measure(inject(obj, positions, flux, psf, seed=seed), positions)
    value = measured["flux"]
    if subtract:
        value = value - measure(obj, positions)["flux"]
    out = measured.assign(flux=value)[[v for v in ("flux", "flux_err", "status") if v in measured]]
    light = _local_light(exposure, places)
    out = out.assign(flux_injected=flux.transpose(*[d for d in value.dims if d in flux.dims]), surface_brightness=light)
    out = out.assign_coords(mag_injected=magnitudes, x_pixel=("source", places[:, 0]), y_pixel=("source", places[:, 1]))
    return annotate_all(out, unit=exposure.unit)


def _places(exposure: Exposure, n: int, margin: float, separation: float, rng: np.random.Generator) -> Floats:
    """Random places in absolute pixels that keep their distance: a jittered lattice, drawn from."""
    origin, size = exposure.origin, dict(zip(IMAGE, exposure.shape, strict=True))
    step = separation * 1.5
    counts = {d: int((size[d] - 1 - 2 * margin) // step) for d in IMAGE}
    if counts["x"] < 1 or counts["y"] < 1 or counts["x"] * counts["y"] < n:
        raise InputError(
            f"{n} stars {separation} px apart do not fit into {size['y']} x {size['x']} px; give fewer, and run again "
            "with another seed"
        )
    chosen = rng.choice(counts["x"] * counts["y"], n, replace=False)
    cell = np.stack([chosen % counts["x"], chosen // counts["x"]], axis=-1)
    first = np.array([origin["x"], origin["y"]]) + margin
    return np.asarray(first + (cell + 0.5) * step + rng.uniform(-separation / 4, separation / 4, (n, 2)))


def _local_light(exposure: Exposure, places: Floats) -> xr.DataArray:
    """Light over the image's median around the places, by good pixels."""
    x, y = (xr.DataArray(places[:, i] - exposure.origin[d], dims="source") for i, d in enumerate(("x", "y")))
    inputs = {"image": exposure.image, "bad": exposure.bad, "x": x, "y": y}
    return map_images(light_at, inputs, ["surface_brightness"])["surface_brightness"]


def injection_report(
    injected: xr.Dataset,
    *,
    snt: float = 5.0,
    bins: Mapping[str, int | Sequence[float]] | None = None,
) -> xr.Dataset:
    """Efficiency, bias and pulls of measured artificial stars, by what they depend on. Computes.

    Parameters
    ----------
    injected
        Measured stars, from `ztfxr.inject_and_measure`, or any Dataset with `flux`, `flux_err`, `flux_injected` on
        (time, source).
    snt
        A star is found where its flux is more than this many standard errors.
    bins
        For each quantity the number of bins with equally many stars, or their edges; by default ``mag`` 8,
        ``surface_brightness`` 5 and ``seeing`` 4, where they are known.

    Returns
    -------
    xarray.Dataset
        For each quantity q, on dimension ``q_bin`` (its coordinate is the median of q): ``q_low``, ``q_high``, and
        ``q_`` with `n`, `efficiency` (found over injected; lost and flagged ones count as not found), `bias` and
        `bias_err` (relative, of the measured flux, by the slope against the injected with weights 1/σ²), `pull_mean`,
        `pull_width` (standard deviation of (measured − injected) / error) and `pull_width_err`, `pull_mad` (the width
        from the median absolute deviation). ``all_`` with the same is over all.

    Raises
    ------
    InputError
    """
    missing = {"flux", "flux_err", "flux_injected"} - {str(v) for v in injected.data_vars}
    if missing:
        raise InputError(f"a report needs flux, flux_err and flux_injected; {', '.join(sorted(missing))} is missing")
    shape = injected["flux"].dims
    good = kept(injected, "flux").values.ravel()
    value, error, truth = (
        injected[k].broadcast_like(injected["flux"]).transpose(*shape).values.ravel()
        for k in ("flux", "flux_err", "flux_injected")
    )
    every = summarize(value, error, truth, good, np.zeros(len(value), int), 1, snt)
    found: dict[str, Any] = {f"all_{k}": v[0] for k, v in every.items()}
    coords: dict[str, Any] = {}
    for name, wanted in (bins or {"mag": 8, "surface_brightness": 5, "seeing": 4}).items():
        quantity = _quantity(injected, name)
        if quantity is None and bins is not None:
            raise InputError(f"no {name} to bin by")
        if quantity is None:
            continue
        q = quantity.broadcast_like(injected["flux"]).transpose(*shape).values.ravel()
        edges = _edges(q, wanted)
        number = np.clip(np.searchsorted(edges, q, "right") - 1, 0, len(edges) - 2)
        number = np.where((q >= edges[0]) & (q <= edges[-1]), number, -1)
        dim = f"{name}_bin"
        columns = summarize(value, error, truth, good, number, len(edges) - 1, snt)
        found |= {f"{name}_{k}": (dim, v) for k, v in columns.items()}
        found |= {f"{name}_low": (dim, edges[:-1]), f"{name}_high": (dim, edges[1:])}
        middles = [np.median(q[number == b]) if (number == b).any() else np.nan for b in range(len(edges) - 1)]
        coords[dim] = (dim, np.array(middles), {"units": str(quantity.attrs.get("units", ""))})
    return xr.Dataset(found, coords, attrs={"snt": float(snt)})


def _quantity(injected: xr.Dataset, name: str) -> xr.DataArray | None:
    own = {"mag": "mag_injected"}.get(name, name)
    return injected[own].reset_coords(drop=True) if own in injected.variables else None


def _edges(q: Floats, wanted: int | Sequence[float]) -> Floats:
    if isinstance(wanted, int):
        finite = q[np.isfinite(q)]
        edges = np.unique(np.quantile(finite, np.linspace(0, 1, wanted + 1))) if finite.size else np.array([0.0, 1.0])
        return edges if len(edges) > 1 else np.array([edges[0] - 0.5, edges[0] + 0.5])
    edges = np.asarray(wanted, dtype=np.float64)
    if edges.ndim != 1 or len(edges) < 2 or np.any(np.diff(edges) <= 0):
        raise InputError(f"the edges of bins ascend, at least two; got {wanted}")
    return edges
