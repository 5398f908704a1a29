"""PSF files, written here by hand in their formats."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from astropy.io import fits
from numpy.typing import NDArray

import ztfxr
from ztfxr.errors import PSFError

NAME = "ztf_20200924431759_000655_zr_c13_o_q3"
SIZE, RADIUS = 47, 11
HALF_WIDTHS = (1.515331, 1.547476)
HEIGHT, X_HALF, Y_HALF = 6806.752, 1535.5, 1539.5


def tables(n: int, size: int = SIZE) -> NDArray[np.float64]:
    """Smooth tables of the size that ZTF's have."""
    rng = np.random.default_rng(3)
    offset = (np.arange(size) - size // 2) / 2
    r2 = offset[:, None] ** 2 + offset[None, :] ** 2
    out = [
        a * np.exp(-r2 / w) * (1 + s * offset[None, :])
        for a, w, s in rng.uniform((-90, 3, -0.2), (200, 8, 0.2), (n, 3))
    ]
    return np.array(out).reshape(n, size, size) * (r2 < (size / 4) ** 2)


def write_daophot(
    path: Path, n_tables: int = 3, *, glued: bool = True, header: str | None = None, drop: int = 0
) -> Path:
    """A file as Fortran writes it: fields of fixed width, which touch where a number is negative."""
    lines = [f" GAUSSIAN{SIZE:5d}{2:5d}{n_tables:5d}{0:5d}{13.489:9.3f}{HEIGHT:15.3f}{X_HALF:9.1f}{Y_HALF:9.1f}"]
    lines.append(" " + "".join(f"{p:13.6E}" for p in HALF_WIDTHS))
    values = [f"{v:13.6E}" for v in tables(n_tables).ravel()]
    values = values[: len(values) - drop]
    between = "" if glued else " "
    lines += [" " + between.join(values[i : i + 6]) for i in range(0, len(values), 6)]
    if header is not None:
        lines[0] = header
    path.write_text("\n".join(lines) + "\n")
    return path


def daophot_stamp(
    x: float, y: float, half: int, n_tables: int = 3, u: float = 0.0, v: float = 0.0
) -> NDArray[np.float64]:
    """The PSF of a star at a sub-pixel place: fine sums of the Gaussian, cubic convolution of the tables."""
    points, weights = np.polynomial.legendre.leggauss(16)

    def strip(offset: NDArray[np.float64], half_width: float) -> NDArray[np.float64]:
        fine = np.exp(-np.log(2) * ((offset[:, None] + points / 2) / half_width) ** 2)
        return fine @ (weights / 2)

    dy, dx = np.arange(-half, half + 1) - y, np.arange(-half, half + 1) - x
    out = HEIGHT * np.outer(strip(dy, HALF_WIDTHS[1]), strip(dx, HALF_WIDTHS[0])) / (HALF_WIDTHS[0] * HALF_WIDTHS[1])
    for weight, table in zip([1.0, u, v], tables(n_tables), strict=False):
        out += weight * cubic_convolution(table, 2 * dy + SIZE // 2, 2 * dx + SIZE // 2)
    return np.where(np.hypot(dy[:, None], dx[None, :]) < RADIUS, out, 0.0)


def cubic_convolution(
    table: NDArray[np.float64], rows: NDArray[np.float64], columns: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Keys's kernel with a = -1/2."""

    def kernel(t: NDArray[np.float64]) -> NDArray[np.float64]:
        t = np.abs(t)
        near = (1.5 * t - 2.5) * t * t + 1
        far = ((-0.5 * t + 2.5) * t - 4) * t + 2
        return np.where(t <= 1, near, np.where(t < 2, far, 0.0))

    nodes = np.arange(len(table))
    return kernel(rows[:, None] - nodes) @ table @ kernel(columns[:, None] - nodes).T


@pytest.mark.parametrize("glued", [True, False])
def test_daophot_stamps_anywhere(tmp_path: Path, glued: bool) -> None:
    """The polynomial runs over the full frame, with 0-based pixels."""
    psf = ztfxr.read_psf(write_daophot(tmp_path / "one.psf", glued=glued))
    assert isinstance(psf, xr.Dataset)
    assert psf.attrs["format"] == "daophot"
    assert float(psf["fwhm"]) == pytest.approx(2 * HALF_WIDTHS[0], rel=0.15)
    for x, y in ((X_HALF, Y_HALF), (100.3, 2900.8), (3000.0, 12.5)):
        stamp = ztfxr.psf_at(psf, x, y, size=2 * RADIUS + 1).values
        u, v = x / X_HALF - 1, y / Y_HALF - 1
        fx, fy = x - np.floor(x + 0.5), y - np.floor(y + 0.5)
        expected = daophot_stamp(fx, fy, RADIUS, u=u, v=v)
        np.testing.assert_allclose(stamp / stamp.sum(), expected / expected.sum(), atol=1.5e-3 * stamp.max())


@pytest.mark.parametrize(("n", "order"), [(0, 0), (1, 0), (3, 1), (6, 2)])
def test_daophot_orders(tmp_path: Path, n: int, order: int) -> None:
    psf = ztfxr.read_psf(write_daophot(tmp_path / "one.psf", n))
    assert int(psf["psf_order"]) == order
    assert psf.sizes["psf_term"] == (order + 1) * (order + 2) // 2
    assert float(ztfxr.psf_at(psf, 10.2, 3000.7).sum()) == pytest.approx(1.0, abs=1e-6)


def write_pair(folder: Path, stamp: NDArray[np.float64]) -> Path:
    fits.writeto(folder / f"{NAME}_sciimgdaopsfcent.fits", stamp.astype(np.float32))
    return write_daophot(folder / f"{NAME}_sciimgdao.psf")


def test_the_center_stamp_beside_it_is_reproduced(tmp_path: Path) -> None:
    stamp = daophot_stamp(0.0, 0.0, 12)
    psf = ztfxr.read_psf(write_pair(tmp_path, stamp / stamp.sum()))
    assert 0 <= psf.attrs["center_deviation"] < 2e-3


@pytest.mark.parametrize("wrong", ["shifted", "wide"])
def test_another_center_stamp_is_refused(tmp_path: Path, wrong: str) -> None:
    stamp = daophot_stamp(0.0, 0.0, 12)
    if wrong == "shifted":
        stamp = np.roll(stamp, 1, axis=1)
    if wrong == "wide":
        stamp = stamp + 0.05 * stamp.max() * (np.hypot(*np.mgrid[-12:13, -12:13]) < 6)
    path = write_pair(tmp_path, stamp)
    with pytest.raises(PSFError, match=r"differs from its own stamp of the center by \d+\.\d % of the peak"):
        ztfxr.read_psf(path)
    assert "center_deviation" not in ztfxr.read_psf(path, center=False).attrs


def test_a_center_stamp_may_be_named(tmp_path: Path) -> None:
    path = write_daophot(tmp_path / "any.psf")
    fits.writeto(tmp_path / "stamp.fits", 7 * daophot_stamp(0.0, 0.0, 9))
    assert ztfxr.read_psf(path, center=tmp_path / "stamp.fits").attrs["center_deviation"] < 2e-3
    fits.writeto(tmp_path / "even.fits", np.ones((24, 24)))
    with pytest.raises(PSFError, match=r"square with an odd side; it is \(24, 24\)"):
        ztfxr.read_psf(path, center=tmp_path / "even.fits")


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("<html><body>401</body>", "neither a PSFEx file nor one of DAOPHOT"),
        ("", "neither a PSFEx file"),
        (" GAUSSIAN   47    2    3", "four integers and four numbers"),
        (
            " GAUSSIAN   47    3    3    0   13.489       6806.752   1535.5   1539.5",
            "GAUSSIAN has 2 parameters; the file says 3",
        ),
        (
            " GAUSSIAN   47    2    3    5   13.489       6806.752   1535.5   1539.5",
            "without terms of the pixel's phase",
        ),
        (" GAUSSIAN   47    2   10    0   13.489       6806.752   1535.5   1539.5", "the tables are 0, 1, 3, 6"),
        (" GAUSSIAN   46    2    3    0   13.489       6806.752   1535.5   1539.5", "odd size"),
        (" GAUSSIAN   47    2    3    0   13.489       6806.752      0.0   1539.5", "a positive one"),
        (
            " GAUSSIAN   47    2    6    0   13.489       6806.752   1535.5   1539.5",
            r"13256 numbers .* there are 6629: is",
        ),
        (" GAUSSIAN   47    2    3    0   13.489      -1e9         1535.5   1539.5", "no positive finite sum"),
    ],
)
def test_what_is_no_daophot_file(tmp_path: Path, header: str, message: str) -> None:
    path = write_daophot(tmp_path / "bad.psf", header=header)
    with pytest.raises(PSFError, match=message) as caught:
        ztfxr.read_psf(path)
    assert str(path) in str(caught.value)


def test_truncated_file(tmp_path: Path) -> None:
    with pytest.raises(PSFError, match="is the file whole"):
        ztfxr.read_psf(write_daophot(tmp_path / "short.psf", drop=100))


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        ztfxr.read_psf(tmp_path / "none.psf")


# PSFEx


def psfex_samples(degree: int, step: float, n: int = 41) -> NDArray[np.float64]:
    """Gaussians of different widths for the terms, in PSFEx's order."""
    offset = (np.arange(n) - n // 2) * step
    r2 = offset[:, None] ** 2 + offset[None, :] ** 2
    out = [np.exp(-0.5 * r2 / 1.4**2)]
    out += [
        0.05 / k * np.exp(-0.5 * r2 / 1.7**2) * (1 + 0.1 * k * offset[None, :])
        for k in range(1, (degree + 1) * (degree + 2) // 2)
    ]
    return np.array(out)


def write_psfex(path: Path, degree: int = 2, step: float = 0.5, **cards) -> Path:
    """A file as PSFEx 3 writes it."""
    mask = psfex_samples(degree, step)
    column = fits.Column(
        "PSF_MASK",
        f"{mask.size}E",
        dim=f"({mask.shape[2]},{mask.shape[1]},{mask.shape[0]})",
        array=mask[None].astype(np.float32),
    )
    table = fits.BinTableHDU.from_columns([column], name="PSF_DATA")
    header = {
        "POLNAXIS": 2, "POLGRP1": 1, "POLNAME1": "X_IMAGE", "POLZERO1": 1001.0, "POLSCAL1": 900.0,
        "POLGRP2": 1, "POLNAME2": "Y_IMAGE", "POLZERO2": 801.0, "POLSCAL2": 700.0, "POLNGRP": 1, "POLDEG1": degree,
        "PSF_SAMP": step, "PSFNAXIS": 3,
    } | cards  # fmt: skip
    for key, value in header.items():
        if value is not None:
            table.header[key] = value
    fits.HDUList([fits.PrimaryHDU(), table]).writeto(path)
    return path


def psfex_stamp(x: float, y: float, half: int, degree: int, step: float) -> NDArray[np.float64]:
    """PSFEx's model: a polynomial of X_IMAGE and Y_IMAGE (from 1), samples joined by Lanczos-4."""
    u, v = (x + 1 - 1001.0) / 900.0, (y + 1 - 801.0) / 700.0
    powers = [(i, j) for j in range(degree + 1) for i in range(degree + 1 - j)]
    samples = np.tensordot([u**i * v**j for i, j in powers], psfex_samples(degree, step), axes=1)
    n = samples.shape[0]

    def rows(center: float) -> NDArray[np.float64]:
        offset = (np.arange(-half, half + 1) - (center - np.floor(center + 0.5))) / step
        d = offset[:, None] - (np.arange(n) - n // 2)
        w = np.where(np.abs(d) < 4, np.sinc(d) * np.sinc(d / 4), 0.0)
        return w / w.sum(axis=1, keepdims=True)

    return rows(y) @ samples @ rows(x).T


@pytest.mark.parametrize(("degree", "step"), [(0, 0.5), (1, 0.7), (2, 0.5), (3, 0.9)])
def test_psfex_stamps_anywhere(tmp_path: Path, degree: int, step: float) -> None:
    psf = ztfxr.read_psf(write_psfex(tmp_path / "one.psf", degree, step))
    assert int(psf["psf_order"]) == degree
    assert psf.attrs["format"] == "psfex"
    for x, y in ((1000.0, 800.0), (120.3, 1480.8), (1801.7, 95.5)):
        stamp = ztfxr.psf_at(psf, x, y, size=13).values
        expected = psfex_stamp(x, y, 6, degree, step)
        np.testing.assert_allclose(stamp / stamp.sum(), expected / expected.sum(), atol=2e-3 * stamp.max())


def test_psfex_without_variation(tmp_path: Path) -> None:
    path = write_psfex(tmp_path / "one.psf", 0, 0.5, POLNAXIS=0, POLDEG1=None, POLNAME1=None)
    assert int(ztfxr.read_psf(path)["psf_order"]) == 0


@pytest.mark.parametrize(
    ("cards", "message"),
    [
        ({"POLNAME1": "MAG_AUTO"}, "varies with MAG_AUTO, Y_IMAGE; only X_IMAGE and Y_IMAGE"),
        ({"POLDEG1": 3}, "degree 3 has 10 samples"),
        ({"PSF_SAMP": None}, "no number in PSF_SAMP"),
        ({"PSF_SAMP": "half"}, "no number in PSF_SAMP"),
        ({"PSF_SAMP": -1.0}, "PSF_SAMP pixels apart"),
        ({"EXTNAME": "OTHER"}, "no table PSF_DATA"),
    ],
)
def test_what_is_no_psfex_file(tmp_path: Path, cards: dict, message: str) -> None:
    with pytest.raises(PSFError, match=message):
        ztfxr.read_psf(write_psfex(tmp_path / "bad.psf", **cards))


def test_persists(tmp_path: Path) -> None:
    psf = ztfxr.read_psf(write_psfex(tmp_path / "one.psf"))
    ztfxr.to_zarr(psf, tmp_path / "psf.zarr")
    again = ztfxr.open_zarr(tmp_path / "psf.zarr")
    assert again["psf_coeff"].chunks is not None
    xr.testing.assert_identical(ztfxr.psf_at(psf, 300.2, 400.9), ztfxr.psf_at(again, 300.2, 400.9).compute())
