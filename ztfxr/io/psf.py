"""PSF files: ZTF's DAOPHOT product and PSFEx."""

from __future__ import annotations

import re
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import numpy as np
import xarray as xr
from astropy.io import fits

from ztfxr.arrays.polynomials import exponents, n_terms, order_of
from ztfxr.arrays.psf.daophot import PARAMETERS, TABLES, daophot_grid, daophot_radius
from ztfxr.arrays.psf.model import PSFModel, grid_offsets, psf_fwhm, window_stamps
from ztfxr.arrays.types import Floats
from ztfxr.errors import PSFError, ZtfxrError
from ztfxr.io.fits import DAMAGE, inspect, open_hdus, read_window
from ztfxr.schema import annotate_all

__all__ = ["read_psf"]


_OVERSAMPLING = 4
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[EeDd][-+]?\d+)?")
_TABLE_SUFFIX, _CENTER_SUFFIX = "sciimgdao.psf", "sciimgdaopsfcent.fits"
_CENTER_TOLERANCE = 0.01
_LANCZOS = 4


def read_psf(path: str | PathLike[str], *, center: str | PathLike[str] | Literal[False] | None = None) -> xr.Dataset:
    """A PSF from a file. Computes: the whole file is read.

    Parameters
    ----------
    path
        A PSF of DAOPHOT II in text (ZTF's ``*_sciimgdao.psf``), or of PSFEx (``*.psf``, a FITS table).
    center
        For DAOPHOT: the FITS stamp of the PSF at the image's center that the model must reproduce (ZTF's
        ``*_sciimgdaopsfcent.fits``). By default the one beside the file, if it is there; False for none.

    Returns
    -------
    xarray.Dataset
        As of `ztfxr.build_psf`: `psf_coeff` on four nodes per pixel, in absolute 0-based pixels of the full frame,
        `psf_order`, `fwhm`. ``attrs["center_deviation"]`` is the largest deviation from the center stamp over its peak.

    Raises
    ------
    PSFError
        Neither format, a part of the file is missing, or the model differs from its own center stamp by more than 1 %
        of the peak.
    FileNotFoundError

    Notes
    -----
    DAOPHOT: Stetson 1987, PASP 99, 191; see `ztfxr.arrays.psf.daophot`. The tables vary with u = x / XPSF - 1 and
    v = y / YPSF - 1, x and y counted from 0 in the full frame. PSFEx: Bertin 2011, ASPC 442, 435: polynomials of
    ``(X_IMAGE - POLZERO) / POLSCAL``, samples PSF_SAMP pixels apart joined by a Lanczos-4 kernel. Both are put on our
    grid once; between its nodes they are cubic splines.
    """
    place = Path(path)
    if not place.is_file():
        raise FileNotFoundError(f"no such file: {place}")
    try:
        return _read(place, center)
    except (FileNotFoundError, ZtfxrError):
        raise
    except DAMAGE as error:
        raise PSFError(f"{place}: the PSF cannot be read ({error}); fetch or write it again") from error


def _read(place: Path, center: str | PathLike[str] | Literal[False] | None) -> xr.Dataset:
    with place.open("rb") as stream:
        start = stream.read(9)
    if start.startswith(b"SIMPLE  ="):
        return _as_dataset(_read_psfex(place), place, "psfex")
    model = _read_daophot(place)
    out = _as_dataset(model, place, "daophot")
    beside = place.with_name(place.name.replace(_TABLE_SUFFIX, _CENTER_SUFFIX))
    if center is None and beside != place and beside.is_file():
        center = beside
    if center is None or center is False:
        return out
    return out.assign_attrs(center_deviation=_center_deviation(model, Path(center)))


@dataclass(frozen=True)
class _Model:
    """Values (term, y, x) on our grid, where the polynomials are zero, what is one, and the radius."""

    values: Floats
    origin: tuple[float, float]
    scale: tuple[float, float]
    radius: float

    def normalized(self) -> _Model:
        total = float(self.values[0].sum()) / _OVERSAMPLING**2
        if not (np.isfinite(self.values).all() and total > 0):
            raise PSFError("the PSF has no positive finite sum")
        return _Model(self.values / total, self.origin, self.scale, self.radius)


def _as_dataset(model: _Model, path: Path, kind: str) -> xr.Dataset:
    try:
        unit = model.normalized()
    except PSFError as error:
        raise PSFError(f"{path}: {error}") from None
    n = unit.values.shape[1]
    offset = grid_offsets(n, _OVERSAMPLING)
    fwhm = psf_fwhm(PSFModel.of(unit.values, _OVERSAMPLING), 0.0, 0.0)
    order = order_of(len(unit.values))
    out = xr.Dataset(
        {
            "psf_coeff": (("psf_term", "psf_dy", "psf_dx"), unit.values.astype(np.float32)),
            "psf_order": ((), np.int64(order)),
            "fwhm": ((), fwhm),
        },
        {
            "psf_dy": offset,
            "psf_dx": offset,
            "psf_origin": ("axis", list(unit.origin)),
            "psf_scale": ("axis", list(unit.scale)),
        },
        {"source": path.name, "format": kind},
    )
    return annotate_all(out)


# ---- DAOPHOT --------------------------------------------------------------------------------------------------------


def _read_daophot(path: Path) -> _Model:
    lines = path.read_text(encoding="ascii", errors="replace").splitlines()
    words = lines[0].split() if lines else []
    if not words or words[0] not in PARAMETERS:
        raise PSFError(
            f"{path}: neither a PSFEx file nor one of DAOPHOT, which starts with {', '.join(PARAMETERS)}; it starts "
            f"with {' '.join(words)[:40]!r}"
        )
    try:
        size, n_parameters, n_tables, n_fraction = (int(w) for w in words[1:5])
        _, height, x_half, y_half = (float(w) for w in words[5:9])
    except ValueError:
        raise PSFError(
            f"{path}: the first line of a DAOPHOT PSF has a name, four integers and four numbers; it is {lines[0]!r}"
        ) from None
    _check_daophot(path, words[0], size, n_parameters, n_tables, n_fraction, x_half, y_half)
    body = _NUMBER.findall(" ".join(_split_fields(lines[1:])))
    numbers = np.array([float(w.replace("D", "E").replace("d", "e")) for w in body])
    expected = n_parameters + n_tables * size**2
    if len(numbers) != expected:
        raise PSFError(
            f"{path}: {expected} numbers should follow the first line ({n_parameters} parameters and {n_tables} tables "
            f"of {size} x {size}); there are {len(numbers)}: is the file whole?"
        )
    tables = numbers[n_parameters:].reshape(n_tables, size, size)
    radius = daophot_radius(size)
    values = daophot_grid(words[0], numbers[:n_parameters], height, tables, radius, _OVERSAMPLING)
    return _Model(values, (y_half, x_half), (y_half, x_half), radius)


def _split_fields(lines: list[str]) -> list[str]:
    """Lines with a blank before each sign that is not an exponent's: fixed-width fields may touch."""
    return [re.sub(r"(?<![EeDd])([-+])", r" \1", line) for line in lines]


def _check_daophot(
    path: Path, name: str, size: int, n_parameters: int, n_tables: int, n_fraction: int, x_half: float, y_half: float
) -> None:
    if n_parameters != PARAMETERS[name]:
        raise PSFError(f"{path}: {name} has {PARAMETERS[name]} parameters; the file says {n_parameters}")
    if n_tables not in TABLES or n_fraction != 0:
        raise PSFError(
            f"{path}: the tables are {', '.join(map(str, TABLES))} without terms of the pixel's phase; the file has "
            f"{n_tables} and {n_fraction}"
        )
    if size < 7 or size % 2 == 0 or not (x_half > 0 and y_half > 0):
        raise PSFError(
            f"{path}: tables have an odd size of at least 7 and the frame a positive one; got {size}, {x_half} and "
            f"{y_half}"
        )


def _center_deviation(model: _Model, path: Path) -> float:
    """Largest deviation of the model at the frame's center from a stamp, over the peak, both of unit sum."""
    image = inspect(path)
    stamp = np.asarray(read_window(image, *(slice(0, n) for n in image.shape)), dtype=np.float64)
    if stamp.shape[0] != stamp.shape[1] or stamp.shape[0] % 2 == 0:
        raise PSFError(f"{path}: the stamp of the PSF's center is square with an odd side; it is {stamp.shape}")
    half = min(stamp.shape[0] // 2, int(model.radius))
    grid = PSFModel.of(model.values, _OVERSAMPLING)
    terms = np.zeros((1, len(model.values)))
    terms[0, 0] = 1.0
    ours = window_stamps(grid, np.zeros(1), np.zeros(1), terms, half)[0]
    middle = stamp.shape[0] // 2
    theirs = stamp[middle - half : middle + half + 1, middle - half : middle + half + 1]
    offset = np.arange(-half, half + 1)
    inside = np.hypot(offset[:, None], offset[None, :]) < model.radius
    ours, theirs = (np.where(inside, s, 0.0) / s[inside].sum() for s in (ours, theirs))
    deviation = float(np.abs(ours - theirs).max() / np.abs(theirs).max())
    if not deviation <= _CENTER_TOLERANCE:
        raise PSFError(
            f"{path}: the model differs from its own stamp of the center by {100 * deviation:.1f} % of the peak, more "
            f"than {100 * _CENTER_TOLERANCE:.0f} %; are they of the same exposure? center=False reads it all the same"
        )
    return deviation


# ---- PSFEx ----------------------------------------------------------------------------------------------------------


def _read_psfex(path: Path) -> _Model:
    with open_hdus(path) as hdus:
        if "PSF_DATA" not in hdus:
            raise PSFError(f"{path}: no table PSF_DATA, so this is no PSFEx file; it has {[h.name for h in hdus]}")
        header, table = hdus["PSF_DATA"].header, hdus["PSF_DATA"].data
        if "PSF_MASK" not in (table.names or []):
            raise PSFError(f"{path}: the table PSF_DATA has no column PSF_MASK")
        samples = np.asarray(table["PSF_MASK"][0], dtype=np.float64)
    degree, origin, scale = _psfex_polynomial(path, header)
    step = _card(path, header, "PSF_SAMP")
    if samples.ndim == 2:
        samples = samples[None]
    if samples.ndim != 3 or len(samples) != n_terms(degree) or not step > 0:
        raise PSFError(
            f"{path}: a polynomial of degree {degree} has {n_terms(degree)} samples of the PSF, PSF_SAMP pixels apart; "
            f"got {samples.shape} and {step}"
        )
    half = int(min(samples.shape[1:]) // 2 * step)
    offset = grid_offsets(2 * half * _OVERSAMPLING + 1, _OVERSAMPLING)
    rows, columns = (_lanczos(offset / step, n) for n in samples.shape[1:])
    values = np.einsum("yi,tij,xj->tyx", rows, samples, columns, optimize=True)
    return _Model(_by_degree(values, degree), origin, scale, float(half))


def _psfex_polynomial(path: Path, header: fits.Header) -> tuple[int, tuple[float, float], tuple[float, float]]:
    """Degree, and origin and scale (y, x) in 0-based pixels."""
    axes = int(_card(path, header, "POLNAXIS"))
    if axes == 0:
        return 0, (0.0, 0.0), (1.0, 1.0)
    names = [str(header.get(f"POLNAME{i}", "")).strip() for i in range(1, axes + 1)]
    known = {"X_IMAGE": 1, "Y_IMAGE": 0, "XWIN_IMAGE": 1, "YWIN_IMAGE": 0}
    if axes != 2 or [known.get(n) for n in names] != [1, 0] or int(header.get("POLNGRP", 1)) != 1:
        raise PSFError(
            f"{path}: the PSF varies with {', '.join(names)}; only X_IMAGE and Y_IMAGE, in one group, are known"
        )
    zero = [_card(path, header, f"POLZERO{i}") - 1.0 for i in (2, 1)]
    scale = [_card(path, header, f"POLSCAL{i}") for i in (2, 1)]
    return int(_card(path, header, "POLDEG1")), (zero[0], zero[1]), (scale[0], scale[1])


def _card(path: Path, header: fits.Header, name: str) -> float:
    value: Any = header.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise PSFError(f"{path}: the header of PSF_DATA has no number in {name}")
    return float(value)


def _lanczos(place: Floats, n: int) -> Floats:
    """Weights (place, sample) of `n` samples, counted from the middle one, in values at `place`."""
    distance = place[:, None] - (np.arange(n) - n // 2)[None, :]
    weights = np.where(np.abs(distance) < _LANCZOS, np.sinc(distance) * np.sinc(distance / _LANCZOS), 0.0)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def _by_degree(values: Floats, degree: int) -> Floats:
    """From PSFEx's order of terms, all powers of x for each of y, to that of `exponents`."""
    theirs = {(i, j): k for k, (i, j) in enumerate((i, j) for j in range(degree + 1) for i in range(degree + 1 - j))}
    return values[[theirs[e] for e in exponents(degree)]]
