"""The SAAO field: frames without a WCS to light curves of all stars; the code itself finds the microlensing event."""

from __future__ import annotations

import re

import numpy as np
import pytest
import xarray as xr

import ztfxr
from ztfxr.recipes import field

ODD = ("0003", "0005", "0006", "0008", "0009")
"""Frames beside the 58 of the field; in one of them the event's flux is wrong by far more than its error."""


@pytest.fixture(scope="module")
def saao_paths(shared):
    paths = sorted((shared / "data" / "saao_kb13475").glob("*.fits.gz"))
    paths = [path for path in paths if path.name[9:13] not in ODD]
    if not paths:
        pytest.skip("no SAAO frames")
    return paths


@pytest.mark.slow
def test_the_event_is_found(saao_paths, tmp_path, caplog):
    caplog.set_level("INFO", logger="ztfxr")
    chosen = saao_paths[::3]
    done = field.run_field(chosen, tmp_path, best=7, kernel_size=9, saturate=60000.0, seeing="PFWHM")
    lines, ranked = caplog.messages, done.result
    assert f"registering {len(chosen)} frames" in lines[0]
    first = ranked.isel(source=int(np.argmin(ranked["rank"].values)))
    assert float(first.x_pixel) == pytest.approx(267, abs=60)
    assert float(first.y_pixel) == pytest.approx(218, abs=60)
    excess = np.sort(ranked.consecutive_excess.values[np.isfinite(ranked.consecutive_excess.values)])
    assert float(first.consecutive_excess) > 2 * excess[-2]
    assert 0.8 < float((ranked.scatter / ranked.median_err).median()) < 1.3
    found = re.search(r"smooth curve through each night: chi2/dof ([\d.]+) .*pull MAD ([\d.]+)", "\n".join(lines))
    assert found is not None
    assert float(found[1]) < 2.5
    assert any("PSF of the reference from" in line for line in lines)
    assert (tmp_path / "smooth_curve.png").read_bytes().startswith(b"\x89PNG")
    curves = ztfxr.open_zarr(tmp_path / "field.zarr")["lightcurves"].to_dataset()
    assert curves.sizes["time"] == len(chosen)
    assert (tmp_path / "most_variable.png").read_bytes().startswith(b"\x89PNG")


def test_no_frames_is_an_error(tmp_path):
    with pytest.raises(ztfxr.InputError, match="no frames"):
        field.run_field([], tmp_path)


def test_a_smooth_curve_knows_wrong_errors():
    rng = np.random.default_rng(0)
    mjd = np.sort(rng.uniform(0.0, 0.2, 60))
    noise = rng.normal(size=60)
    flux = 100.0 * np.sin(20 * mjd) + 5.0 * noise
    lc = xr.Dataset(
        {"flux": (("time", "source"), flux[:, None]), "flux_err": (("time", "source"), np.full((60, 1), 5.0))}
    )
    lc = lc.assign_coords(mjd=("time", mjd))
    honest, small = (field.smooth_line(lc.assign(flux_err=lc["flux_err"] * k), 0) for k in (1.0, 0.5))
    chi2 = [float(re.search(r"chi2/dof ([\d.]+)", line)[1]) for line in (honest, small)]
    assert 0.7 < chi2[0] < 1.3
    assert chi2[1] == pytest.approx(4 * chi2[0], rel=0.02)
