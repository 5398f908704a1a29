"""Alert packets measured by ztfxr, in magnitudes, against what the packets state."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ztfxr.arrays.psf.profiles import profile_basis
from ztfxr.arrays.statistics import mad_std
from ztfxr.arrays.types import Floats
from ztfxr.photometry.aperture import aperture_photometry
from ztfxr.photometry.baseline import magnitudes
from ztfxr.photometry.calibrate import calibrate_flux
from ztfxr.photometry.forced import forced_photometry
from ztfxr.photometry.lightcurve import lightcurve

__all__ = ["APERTURE", "EXCLUDED", "compare_packets", "packet_lines"]


APERTURE = 7.0
"""Radius in pixels: the packets' schema calls `magap` a sum within 14 pixels' diameter."""
EXCLUDED = 10.0
_PROFILE = 9.0
_CENTROID_WIDTH, _CENTROID_STEPS, _HARMONICS = 2.5, 12, 4
_HOST_RING, _NEAR_RING = 11.0, (11.0, 24.0)
_HOST_SKY = 0.02
_CENTER = [(0, 0)]

_MEANINGS = {
    "ipac_flux": ("DN", "the same aperture on IPAC's difference"),
    "scatter_over_ipac": ("", "residual scatter from 11 to 24 pixels over that of IPAC's difference"),
    "host_flux": ("DN", "light of the reference above its sky in the aperture"),
    "host_flux_psf": ("DN", "light of the reference above its sky, weighted as in the PSF fit"),
    "host_left": ("", "host that IPAC's difference still holds beyond 11 pixels, as a fraction of the reference"),
    "mag_err": ("mag", "standard error of mag: noise of the pixels, error of kernel and background"),
    "flux_psf": ("DN", "flux of the PSF fit"),
    "flux_psf_err": (
        "DN",
        "its standard error: noise of the pixels, freedom of the profile, error of kernel and background",
    ),
    "mag_psf": ("mag", "AB magnitude of the PSF fit"),
    "mag_psf_err": ("mag", "standard error of mag_psf"),
    "profile_chi2": ("", "reduced chi-square of the transient's own profile"),
    "deviation_ap": ("mag", "mag less the packet's magap"),
    "deviation_psf": ("mag", "mag_psf less the packet's magpsf"),
    "deviation_ipac": ("mag", "magnitude of the same aperture on IPAC's difference less magap"),
    "deviation_host": ("mag", "what the host left in IPAC's difference makes of deviation_ap, predicted"),
    "deviation_host_psf": ("mag", "what the host left in IPAC's difference makes of deviation_psf, predicted"),
}


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
        `ztfxr.lightcurve` with the variables of this module, on time or (time, source); magnitudes are AB, by the
        packet's `magzpsci`, and of the absolute flux in the direction that the packet's `isdiffpos` states.

    Notes
    -----
    There is not one star in these stamps, so the PSF is the transient's own profile: Gaussians times harmonics up to
    the fourth about its centroid, fitted to each difference within 9 pixels. The flux of the fit then is that of the
    profile, the pixels weighted by their noise.
    """
    lc = lightcurve(diff, _CENTER, radius=APERTURE)
    sign = xr.where(stamps["isdiffpos"].variable, 1.0, -1.0)
    host = _above_sky(stamps["reference"])
    found: dict[str, Any] = {
        "ipac_flux": _sum(stamps, stamps["ipac_difference"]),
        "scatter_over_ipac": ("time", _scatter_ratio(stamps, diff)),
        "host_flux": _sum(stamps, host),
        "host_left": ("time", _host_left(stamps, host)),
    }
    found |= _psf_fluxes(stamps, diff, host)
    lc = lc.assign(found)
    lc["mag"], lc["mag_err"] = _magnitude(lc, lc["flux"] * sign, lc["flux_err"])
    lc["mag_psf"], lc["mag_psf_err"] = _magnitude(lc, lc["flux_psf"] * sign, lc["flux_psf_err"])
    lc = lc.assign(_deviations(lc, sign))
    for name, (units, meaning) in _MEANINGS.items():
        lc[name].attrs = {"long_name": meaning, **({"units": units} if units else {})}
    return lc


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


def _magnitude(lc: xr.Dataset, flux: xr.DataArray, error: Any) -> tuple[xr.DataArray, xr.DataArray]:
    calibrated = magnitudes(calibrate_flux(lc.assign(flux=flux, flux_err=error)), flux="flux_ujy")
    return calibrated["mag"], calibrated["mag_err"]


def _distance(stamps: xr.Dataset) -> Floats:
    y, x = (stamps[d].values.astype(np.float64) for d in ("y", "x"))
    return np.asarray(np.hypot(y[:, None], x[None, :]))


def _scatter_ratio(stamps: xr.Dataset, diff: xr.Dataset) -> Floats:
    r = _distance(stamps)
    ring = (r >= _NEAR_RING[0]) & (r <= _NEAR_RING[1])
    pairs = zip(diff["difference"].values, stamps["ipac_difference"].values, strict=True)
    return np.array([mad_std(ours[ring]) / mad_std(theirs[ring]) for ours, theirs in pairs])


def _host_left(stamps: xr.Dataset, host: xr.DataArray) -> Floats:
    """By least squares with a plane, on IPAC's difference where the transient is faint."""
    y, x = (
        np.broadcast_to(stamps[d].values[i], host.shape[1:]) for d, i in (("y", np.s_[:, None]), ("x", np.s_[None]))
    )
    far = _distance(stamps) > _HOST_RING
    out = []
    for light, left in zip(host.values, stamps["ipac_difference"].values, strict=True):
        good = far & np.isfinite(light) & np.isfinite(left)
        design = np.stack([light[good], np.ones(good.sum()), y[good], x[good]], axis=1).astype(np.float64)
        out.append(np.linalg.lstsq(design, left[good].astype(np.float64), rcond=None)[0][0])
    return np.array(out)


def _psf_fluxes(stamps: xr.Dataset, diff: xr.Dataset, host: xr.DataArray) -> dict[str, xr.Variable]:
    """Forced PSF fits with each epoch's own profile, and the same fits to the host."""
    images = zip(diff["difference"].values, diff["difference_variance"].values, strict=True)
    profiles, errors, chi2 = zip(*(_own_profile(image, variance) for image, variance in images), strict=True)
    psf = xr.DataArray(np.stack(profiles), dims=("time", "psf_y", "psf_x"))
    fit = forced_photometry(diff, _CENTER, psf=psf)
    weighted = forced_photometry(
        host, _CENTER, psf=psf, variance=stamps["variance"], mask=False, background="none", weights="variance"
    )
    model = fit["model_err"].values
    pixels = np.sqrt(fit["flux_err"].values ** 2 - model**2)
    freedom = fit["flux"].values * np.array(errors)[:, None]
    dims = ("time", "source")
    return {
        "flux_psf": xr.Variable(dims, fit["flux"].values),
        "flux_psf_err": xr.Variable(dims, np.hypot(np.maximum(pixels, freedom), model)),
        "host_flux_psf": xr.Variable(dims, weighted["flux"].values),
        "profile_chi2": xr.Variable("time", np.array(chi2)),
    }


def _own_profile(image: NDArray[Any], variance: NDArray[Any]) -> tuple[Floats, float, float]:
    """The profile of the source in the middle, of unit sum; the relative error of its sum; reduced χ².

    All NaN where half of its pixels are bad, as in an epoch that could not be differenced.
    """
    middle = image.shape[0] // 2
    offset = np.arange(image.shape[0], dtype=np.float64) - middle
    inside = np.hypot(offset[:, None], offset[None, :]) <= _PROFILE
    good = inside & np.isfinite(image) & (variance > 0)
    half = int(_PROFILE)
    if good.sum() < inside.sum() / 2:
        return np.full((2 * half + 1, 2 * half + 1), np.nan), np.nan, np.nan
    center, fwhm = _centroid(np.where(good, image, 0.0), offset)
    basis = profile_basis(fwhm, _PROFILE, 0, harmonics=_HARMONICS)
    functions = basis.values(offset - center[0], offset - center[1])
    noise = np.sqrt(variance[good])
    design = functions[:, good].T / noise[:, None]
    size = np.sqrt((design**2).sum(axis=0))
    left, singular, right = np.linalg.svd(design / size, full_matrices=False)
    used = singular > 1e-6 * singular[0]
    data = image[good] / noise
    solved = (left[:, used].T @ data / singular[used]) @ right[used] / size
    profile = np.where(inside, np.einsum("f,fyx->yx", solved, functions), 0.0)
    total, sums = profile.sum(), functions[:, inside].sum(axis=1) / size
    error = np.sqrt((((right[used] @ sums) / singular[used]) ** 2).sum()) / abs(total)
    chi2 = ((data - design @ solved) ** 2).sum() / max(good.sum() - used.sum(), 1)
    cut = slice(middle - half, middle + half + 1)
    return profile[cut, cut] / total, float(error), float(chi2)


def _centroid(image: Floats, offset: Floats) -> tuple[tuple[float, float], float]:
    """Windowed centroid and FWHM of a lone source near the middle of the image."""
    y, x = 0.0, 0.0
    for _ in range(_CENTROID_STEPS):
        dy, dx = np.meshgrid(offset - y, offset - x, indexing="ij")
        weighted = image * np.exp(-0.5 * (dy**2 + dx**2) / _CENTROID_WIDTH**2)
        total = weighted.sum()
        y, x = (p + float(np.clip(2 * (weighted * d).sum() / total, -1, 1)) for p, d in ((y, dy), (x, dx)))
    width = float((weighted * (dy**2 + dx**2)).sum() / total) / 2
    own = 1.0 / max(1.0 / max(width, 0.1) - _CENTROID_WIDTH**-2.0, 0.05)
    return (y, x), 2.3548 * float(np.sqrt(own))


def packet_lines(curves: dict[str, xr.Dataset]) -> list[str]:
    """The light curve in magnitudes, one line an epoch, and how it agrees with the packets' per filter."""
    lines = [
        "date        filter   magap  error   ours  error    dev  dev/s   magpsf  error   ours  error    dev  dev/s"
        "  host left  note"
    ]
    columns = {name: _columns(lc) for name, lc in curves.items()}
    for name, v in columns.items():
        for i, time in enumerate(curves[name]["time"].values):
            parts = [
                f"{v[mag][i]:7.3f}{v[sigma][i]:7.3f}{v[ours][i]:7.3f}{v[f'{ours}_err'][i]:7.3f}{v[dev][i]:+7.3f}"
                f"{v[dev][i] / v[sigma][i]:+7.1f}"
                for mag, sigma, ours, dev in _PAIRS
            ]
            day = np.datetime_as_string(time, unit="D")
            left = f"{100 * v['host_left'][i]:+9.2f} %"
            lines.append(f"{day}  {name:6} {parts[0]}  {parts[1]}{left}  {_note(v, i)}".rstrip())
    for name, v in columns.items():
        lines += _summary(name, v)
    return [*lines, *_LEGEND]


_PAIRS = (("magap", "sigmagap", "mag", "deviation_ap"), ("magpsf", "sigmapsf", "mag_psf", "deviation_psf"))
_LEGEND = (
    "dev: ours less the packet's; s: the packet's error alone. sigmagap is the noise of the pixels and knows no error",
    "of the kernel, as ours does. host left: what IPAC's difference still holds of the host beyond 11 px of the",
    "transient, found without our difference. Notes, where magap deviates by more than 2 s: 'noise': not by more than",
    "2 of our errors; 'sky': not so from the same sum on IPAC's difference (IPAC takes a local sky off); 'host': the",
    "host left there explains the rest within 2 of our errors; 'more': it does not.",
)


def _columns(lc: xr.Dataset) -> dict[str, Floats]:
    names = ("mag", "magap", "sigmagap", "magpsf", "sigmapsf", *_MEANINGS)
    return {name: lc[name].values.reshape(lc.sizes["time"]) for name in names}


def _note(v: dict[str, Floats], i: int) -> str:
    """Why an aperture flux deviates by more than two of the packet's errors."""
    deviation, own = v["deviation_ap"][i], 2 * v["mag_err"][i]
    if not abs(deviation) > 2 * v["sigmagap"][i]:
        return ""
    ours = deviation - v["deviation_ipac"][i]
    found = {"noise": deviation, "sky": ours, "host": ours - v["deviation_host"][i]}
    return next((name for name, rest in found.items() if abs(rest) <= own), "more")


def _summary(name: str, v: dict[str, Floats]) -> list[str]:
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
    head = f"{name} ({len(after)} epochs)"
    return [f"{head:52}  median    MAD  within 1  within 2"] + [_row(k, pull) for k, pull in rows.items()]


def _row(label: str, pull: Floats) -> str:
    known = pull[np.isfinite(pull)]
    inside = [100 * float(np.mean(np.abs(known) <= n)) for n in (1, 2)] if known.size else [np.nan, np.nan]
    middle = float(np.median(known)) if known.size else np.nan
    return f"  {label:50}{middle:+8.2f}{mad_std(known):7.2f}{inside[0]:8.0f} %{inside[1]:8.0f} %"
