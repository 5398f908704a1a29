"""Alert packets to light curves, compared with what the packets state: what ``ztfxr demo alerts`` runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import xarray as xr

from ztfxr.arrays.images.comparison import fraction_left, scatter_ratio
from ztfxr.arrays.psf.lone import lone_profile
from ztfxr.arrays.statistics import mad_std
from ztfxr.arrays.types import Floats
from ztfxr.io.alerts import open_alerts
from ztfxr.ops.mapping import map_images
from ztfxr.photometry.aperture import aperture_photometry
from ztfxr.photometry.calibrate import calibrate_flux
from ztfxr.photometry.forced import forced_photometry
from ztfxr.photometry.lightcurve import lightcurve
from ztfxr.photometry.magnitudes import magnitudes
from ztfxr.plot import plot_summary
from ztfxr.plot.lightcurves import plot_packets
from ztfxr.recipes.chain import APERTURE, EXCLUDED, Finished, day_of, finish, say, store, subtract
from ztfxr.schema import annotate_all

__all__ = ["compare_packets", "packet_table", "run_alerts"]

_PROFILE = 9.0
_HOST_RING, _NEAR_RING = 11.0, (11.0, 24.0)
_HOST_SKY = 0.02
_BRIGHT = 15.0
_CENTER = [(0, 0)]


def run_alerts(alerts: Path | str, folder: Path | str) -> Finished:
    """Difference the stamps of real alert packets, compare with IPAC's differences, store and draw. Computes.

    Fluxes are measured both in apertures and by the transient's own profile: there are no stars in the stamps.

    Parameters
    ----------
    alerts
        A folder of packets (``*.avro``).
    folder
        Gets the store ``lightcurve.zarr`` and the figures ``lightcurve.png`` and ``magnitudes.png``.

    Returns
    -------
    Finished
        Its result is the light curve of the filter with most epochs, as read back from the store.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tree = open_alerts(alerts)
    assert isinstance(tree, xr.DataTree)
    stamps = {name: node.to_dataset() for name, node in tree.children.items()}
    most = max(stamps, key=lambda name: stamps[name].sizes["time"])
    counts = ", ".join(f"{frames.sizes['time']} epochs in {name}" for name, frames in stamps.items())
    say(f"{stamps[most].attrs['object']}: {counts}")
    say(f"The kernel is solved outside {EXCLUDED:g} px of the transient; fluxes are sums within {APERTURE:g} px.")
    stamps = {name: frames.load() for name, frames in stamps.items()}
    diffs = {name: subtract(s, exclude_radius=EXCLUDED, model_error=True) for name, s in stamps.items()}
    groups = {f"lightcurve/{name}": compare_packets(stamps[name], diff) for name, diff in diffs.items()}
    diffs = {name: diff.drop_vars("model_error") for name, diff in diffs.items()}
    path, figures = folder / "lightcurve.zarr", (folder / "lightcurve.png", folder / "magnitudes.png")
    reopened = store(groups | {f"difference/{name}": diff for name, diff in diffs.items()}, path)
    curves = {name: reopened[f"lightcurve/{name}"].to_dataset().load() for name in stamps}
    say(*_flux_table(curves), "", *packet_table(curves))
    n = stamps[most].sizes["time"]
    epochs = [0, n // 2, n - 1]
    plot_summary(stamps[most], stamps[most]["reference"], diffs[most], curves, epochs=epochs, path=figures[0])
    plot_packets(curves, path=figures[1])
    return finish(curves[most], path, *figures)


def compare_packets(stamps: xr.Dataset, diff: xr.Dataset) -> xr.Dataset:
    """Light curve of the transient of alert packets by aperture and by PSF, beside the packets' own. Computes.

    Parameters
    ----------
    stamps
        One filter of `ztfxr.open_alerts`, loaded.
    diff
        Its `ztfxr.difference`, computed, with `model_error`: the host is all that the kernel is known by.

    Returns
    -------
    xarray.Dataset
        `ztfxr.lightcurve` with fluxes by PSF fits and by IPAC, magnitudes and their deviations, on time or (time,
        source). Magnitudes are AB, by the packet's `magzpsci`, and those of the absolute flux in the direction that the
        packet's `isdiffpos` states. `host_left` is found beyond 11 pixels, `scatter_over_ipac` from 11 to 24.

    Notes
    -----
    There is not one star in these stamps, so the PSF is the transient's own profile: Gaussians times harmonics up to
    the fourth about its centroid, fitted to each difference within 9 pixels. The flux of the fit then is that of the
    profile, the pixels weighted by their noise.
    """
    lc = lightcurve(diff, _CENTER, radius=APERTURE)
    sign = xr.where(stamps["isdiffpos"].variable, 1.0, -1.0)
    host = _above_sky(stamps["reference"])
    sums = {"ipac_flux": _sum(stamps, stamps["ipac_difference"]), "host_flux": _sum(stamps, host)}
    lc = lc.assign(sums | _beside_ipac(stamps, diff, host) | _psf_fluxes(stamps, diff, host))
    lc["mag"], lc["mag_err"] = _magnitude(lc, lc["flux"] * sign, lc["flux_err"])
    lc["mag_psf"], lc["mag_psf_err"] = _magnitude(lc, lc["flux_psf"] * sign, lc["flux_psf_err"])
    return annotate_all(lc.assign(_deviations(lc, sign)))


def _deviations(lc: xr.Dataset, sign: xr.Variable) -> dict[str, xr.DataArray]:
    """Ours less the packets', the same of the sum on IPAC's difference, and what the host left there predicts."""
    theirs, _ = _magnitude(lc, abs(lc["ipac_flux"]), lc["flux_err"])
    left = 2.5 / np.log(10) * lc["host_left"] * sign
    return {
        "deviation_ap": lc["mag"] - lc["magap"],
        "deviation_psf": lc["mag_psf"] - lc["magpsf"],
        "deviation_ipac": theirs - lc["magap"],
        "deviation_host": left * lc["host_flux"] / abs(lc["flux"]),
        "deviation_host_psf": left * lc["host_flux_psf"] / abs(lc["flux_psf"]),
    }


def _sum(stamps: xr.Dataset, image: xr.DataArray) -> xr.Variable:
    found = aperture_photometry(image, _CENTER, radius=APERTURE, variance=stamps["variance"], mask=False)
    return found["flux"].variable


def _above_sky(reference: xr.DataArray) -> xr.DataArray:
    """The reference less its second percentile: the host fills these stamps, and what sky there is is the lowest."""
    return reference - reference.quantile(_HOST_SKY, ("y", "x")).drop_vars("quantile")


def _magnitude(lc: xr.Dataset, flux: xr.DataArray, error: xr.DataArray) -> tuple[xr.DataArray, xr.DataArray]:
    calibrated = magnitudes(calibrate_flux(lc.assign(flux=flux, flux_err=error)), flux="flux_ujy")
    return calibrated["mag"], calibrated["mag_err"]


def _distance(stamps: xr.Dataset) -> Floats:
    """Pixels from the transient, (y, x)."""
    y, x = (stamps[axis].values.astype(np.float64) for axis in ("y", "x"))
    return np.asarray(np.hypot(y[:, None], x[None, :]))


def _beside_ipac(stamps: xr.Dataset, diff: xr.Dataset, host: xr.DataArray) -> dict[str, xr.Variable]:
    """Scatter around the transient over that of IPAC's difference, and the host that the latter still holds."""
    r, theirs = _distance(stamps), stamps["ipac_difference"]
    ring = (r >= _NEAR_RING[0]) & (r <= _NEAR_RING[1])
    images = {"image": diff["difference"], "other": theirs}
    found = map_images(scatter_ratio, images, ["scatter_over_ipac"], options={"where": ring})
    light = {"difference": theirs, "light": host}
    found |= map_images(fraction_left, light, ["host_left"], options={"where": r > _HOST_RING})
    return {name: array.variable for name, array in found.items()}


def _psf_fluxes(stamps: xr.Dataset, diff: xr.Dataset, host: xr.DataArray) -> dict[str, xr.Variable]:
    """Forced PSF fits with each epoch's own profile, and the same fits to the host."""
    side = 2 * int(_PROFILE) + 1
    own = map_images(
        lone_profile,
        {"image": diff["difference"], "variance": diff["difference_variance"]},
        {"psf": ("psf_y", "psf_x"), "profile_err": (), "profile_chi2": ()},
        sizes={"psf_y": side, "psf_x": side},
        options={"radius": _PROFILE},
    )
    fit = forced_photometry(diff, _CENTER, psf=own["psf"])
    weighted = forced_photometry(
        host,
        _CENTER,
        psf=own["psf"],
        variance=stamps["variance"],
        mask=False,
        background="none",
        fit={"weights": "variance"},
    )
    flux, model = fit["flux"].variable, fit["model_err"].variable
    pixels = np.sqrt(fit["flux_err"].variable ** 2 - model**2)
    freedom = flux * own["profile_err"].variable
    return {
        "flux_psf": flux,
        "flux_psf_err": np.sqrt(np.maximum(pixels, freedom) ** 2 + model**2),
        "host_flux_psf": weighted["flux"].variable,
        "profile_chi2": own["profile_chi2"].variable,
    }


# ---- tables ---------------------------------------------------------------------------------------------------------


_PAIRS = (("magap", "sigmagap", "mag", "deviation_ap"), ("magpsf", "sigmapsf", "mag_psf", "deviation_psf"))
_LEGEND = (
    "dev: ours less the packet's; s: the packet's error alone. sigmagap is the noise of the pixels and knows no error",
    "of the kernel, as ours does. host left: what IPAC's difference still holds of the host beyond 11 px of the",
    "transient, found without our difference. Notes, where magap deviates by more than 2 s: 'noise': not by more than",
    "2 of our errors; 'sky': not so from the same sum on IPAC's difference (IPAC takes a local sky off); 'host': the",
    "host left there explains the rest within 2 of our errors; 'more': it does not.",
)


def _flux_table(curves: Mapping[str, xr.Dataset]) -> Iterator[str]:
    """Our fluxes against IPAC's per epoch, and the medians over the epochs brighter than magap 15."""
    yield "date        filter  magap     flux (DN)      error   flux/IPAC  scatter/IPAC  chi2"
    deviations, scatters = {}, []
    for name, lc in curves.items():
        v = _columns(lc)
        ratio = v["flux"] / v["ipac_flux"]
        scatters.append(v["scatter_over_ipac"])
        deviations[name] = np.abs(ratio - 1)[v["magap"] < _BRIGHT]
        for i, time in enumerate(lc["time"].values):
            yield (
                f"{day_of(time)}  {name:6}  {v['magap'][i]:5.2f}  {v['flux'][i]:12.1f}{v['flux_err'][i]:11.1f}"
                f"{ratio[i]:12.4f}{v['scatter_over_ipac'][i]:14.3f}{v['chi2'][i]:6.2f}"
            )
    every = np.concatenate(list(deviations.values()))
    bright = f"{every.size} epochs brighter than {_BRIGHT:g} mag"
    yield f"median |flux/IPAC − 1| of the {bright}: {100 * np.median(every):.2f} %"
    for name, some in deviations.items():
        if some.size:
            yield f"  {name} alone ({some.size}): {100 * np.median(some):.2f} %"
    yield f"median residual scatter over IPAC's: {np.median(np.concatenate(scatters)):.3f}"


def packet_table(curves: Mapping[str, xr.Dataset]) -> Iterator[str]:
    """The light curve in magnitudes, one line an epoch, and how it agrees with the packets' per filter."""
    yield (
        "date        filter   magap  error   ours  error    dev  dev/s   magpsf  error   ours  error    dev  dev/s"
        "  host left  note"
    )
    columns = {name: _columns(lc) for name, lc in curves.items()}
    for name, v in columns.items():
        for i, time in enumerate(curves[name]["time"].values):
            parts = [
                f"{v[mag][i]:7.3f}{v[sigma][i]:7.3f}{v[ours][i]:7.3f}{v[f'{ours}_err'][i]:7.3f}{v[dev][i]:+7.3f}"
                f"{v[dev][i] / v[sigma][i]:+7.1f}"
                for mag, sigma, ours, dev in _PAIRS
            ]
            left = f"{100 * v['host_left'][i]:+9.2f} %"
            yield f"{day_of(time)}  {name:6} {parts[0]}  {parts[1]}{left}  {_note(v, i)}".rstrip()
    for name, v in columns.items():
        yield from _summary(name, v)
    yield from _LEGEND


def _columns(lc: xr.Dataset) -> dict[str, Floats]:
    """Everything that has one value an epoch."""
    named = {str(name): lc[name].values for name in (*lc.data_vars, *lc.coords)}
    return {name: values.ravel() for name, values in named.items() if values.size == lc.sizes["time"]}


def _note(v: dict[str, Floats], i: int) -> str:
    """Why an aperture flux deviates by more than two of the packet's errors."""
    deviation, own = v["deviation_ap"][i], 2 * v["mag_err"][i]
    if not abs(deviation) > 2 * v["sigmagap"][i]:
        return ""
    ours = deviation - v["deviation_ipac"][i]
    found = {"noise": deviation, "sky": ours, "host": ours - v["deviation_host"][i]}
    return next((name for name, rest in found.items() if abs(rest) <= own), "more")


def _summary(name: str, v: dict[str, Floats]) -> Iterator[str]:
    """How many of its errors one filter's light curve is from the packets', by way of comparison."""
    after = v["deviation_ap"] - v["deviation_ipac"] - v["deviation_host"]
    both = np.hypot(v["sigmapsf"], v["mag_psf_err"])
    rows = {
        "PSF fit less magpsf, in sigmapsf": v["deviation_psf"] / v["sigmapsf"],
        "  in both errors": v["deviation_psf"] / both,
        "  less the host left in IPAC's, in both errors": (v["deviation_psf"] - v["deviation_host_psf"]) / both,
        "aperture less magpsf, in sigmapsf": (v["mag"] - v["magpsf"]) / v["sigmapsf"],
        "aperture less magap, in sigmagap": v["deviation_ap"] / v["sigmagap"],
        "  the packet's own magap less magpsf, in sigmagap": (v["magap"] - v["magpsf"]) / v["sigmagap"],
        "  our own aperture less PSF fit, in sigmagap": (v["mag"] - v["mag_psf"]) / v["sigmagap"],
        "  the same sum on IPAC's difference": v["deviation_ipac"] / v["sigmagap"],
        "  less that and the host left there, in our errors": after / v["mag_err"],
    }
    yield f"{f'{name} ({len(after)} epochs)':52}  median    MAD  within 1  within 2"
    yield from (_row(label, pull) for label, pull in rows.items())


def _row(label: str, pull: Floats) -> str:
    known = pull[np.isfinite(pull)]
    inside = [100 * float(np.mean(np.abs(known) <= n)) for n in (1, 2)] if known.size else [np.nan, np.nan]
    middle = float(np.median(known)) if known.size else np.nan
    return f"  {label:50}{middle:+8.2f}{mad_std(known):7.2f}{inside[0]:8.0f} %{inside[1]:8.0f} %"
