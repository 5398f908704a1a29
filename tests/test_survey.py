"""The SAAO field: frames without a WCS to light curves of all stars; the code itself finds the microlensing event."""

from __future__ import annotations

import numpy as np
import pytest

import ztfxr
from ztfxr import survey


@pytest.fixture(scope="module")
def saao_paths(shared):
    paths = sorted((shared / "data" / "saao_kb13475").glob("*.fits.gz"))
    if not paths:
        pytest.skip("no SAAO frames")
    return paths


@pytest.mark.slow
def test_the_event_is_found(saao_paths, tmp_path):
    lines: list[str] = []
    chosen = saao_paths[::3]
    ranked = survey.run_frames(
        chosen, tmp_path, report=lines.append, best=7, kernel_size=9, saturate=60000.0, seeing="PFWHM"
    )
    assert f"registering {len(chosen)} frames" in lines[0]
    first = ranked.isel(source=int(np.argmin(ranked["rank"].values)))
    assert float(first.x_pixel) == pytest.approx(267, abs=60)
    assert float(first.y_pixel) == pytest.approx(218, abs=60)
    excess = np.sort(ranked.consecutive_excess.values[np.isfinite(ranked.consecutive_excess.values)])
    assert float(first.consecutive_excess) > 2 * excess[-2]
    assert 0.8 < float((ranked.scatter / ranked.median_err).median()) < 1.3
    curves = ztfxr.open_zarr(tmp_path / "survey.zarr")["lightcurves"].to_dataset()
    assert curves.sizes["time"] == len(chosen)
    assert (tmp_path / "most_variable.png").read_bytes().startswith(b"\x89PNG")


def test_no_frames_is_an_error(tmp_path):
    with pytest.raises(ztfxr.InputError, match="no frames"):
        survey.run_frames([], tmp_path)
