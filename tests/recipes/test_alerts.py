"""Real alert packets through the recipe, against what the packets state."""

from __future__ import annotations

import contextlib
import io
import re

import numpy as np
import pytest
import xarray as xr

import ztfxr
from ztfxr import cli
from ztfxr.recipes.alerts import compare_packets, packet_table


@pytest.fixture(scope="module")
def demonstration(tmp_path_factory, alert_paths):
    """What the command prints, and the light curves as they are read back."""
    folder, printed = tmp_path_factory.mktemp("alerts"), io.StringIO()
    with contextlib.redirect_stdout(printed):
        assert cli.main(["demo", "alerts", str(alert_paths[0].parent), "--out", str(folder)]) == 0
    tree = ztfxr.open_zarr(folder / "lightcurve.zarr")
    curves = {name: tree[f"lightcurve/{name}"].to_dataset().load() for name in ("ztfg", "ztfr")}
    return printed.getvalue(), folder, curves


@pytest.fixture(scope="module")
def curves(demonstration):
    return demonstration[2]


def test_the_alert_demonstration(demonstration):
    printed, folder, _ = demonstration
    medians = re.search(r"brighter than 15 mag: ([\d.]+) %", printed)
    assert medians is not None
    assert float(medians[1]) <= 0.5
    scatter = re.search(r"residual scatter over IPAC's: ([\d.]+)", printed)
    assert scatter is not None
    assert float(scatter[1]) <= 1.02
    assert "outside 10 px of the transient" in printed
    compared = [line.split() for line in printed.splitlines() if line.startswith("2021-") and "%" in line]
    assert len(compared) == 34
    for words in compared:
        assert words[1] in ("ztfg", "ztfr")
        assert np.isfinite([float(word) for word in words[2:15]]).all()
    assert (folder / "magnitudes.png").read_bytes().startswith(b"\x89PNG")


def fraction(pulls, n=1):
    return float((np.abs(pulls) <= n).mean())


@pytest.mark.parametrize("name", ["ztfg", "ztfr"])
def test_magnitudes_of_real_alerts_agree_with_the_packets(curves, name):
    lc = curves[name].isel(source=0)
    psf = lc["deviation_psf"] / lc["sigmapsf"]
    assert abs(float(psf.median())) < 0.4
    assert fraction(psf) >= 0.8
    assert fraction(psf, 2) >= 0.85
    assert fraction(lc["deviation_psf"] / np.hypot(lc["sigmapsf"], lc["mag_psf_err"]), 2.6) >= 0.9
    assert fraction((lc["mag"] - lc["magpsf"]) / lc["sigmapsf"]) >= 0.8


@pytest.mark.parametrize("name", ["ztfg", "ztfr"])
def test_what_magap_differs_by_is_the_host_left_by_ipac(curves, name):
    lc = curves[name].isel(source=0)
    assert abs(float(lc["deviation_ipac"].median())) < 0.005
    after = lc["deviation_ap"] - lc["deviation_ipac"] - lc["deviation_host"]
    assert fraction(after / lc["mag_err"], 2.5) >= 0.9
    assert float(np.abs(after).median()) < 0.004
    if name == "ztfr":
        assert np.corrcoef(lc["deviation_host"], lc["deviation_ap"] - lc["deviation_ipac"])[0, 1] > 0.97


def test_the_packets_own_magnitudes_differ_by_what_ours_differ_from_magap(curves):
    """No light curve can be within `sigmagap` of `magap` and near `magpsf`: the packets are not themselves."""
    lc = curves["ztfr"].isel(source=0)
    assert fraction((lc["magap"] - lc["magpsf"]) / lc["sigmagap"]) < 0.1
    assert fraction((lc["mag"] - lc["mag_psf"]) / lc["sigmagap"], 2) > 0.8
    assert np.corrcoef(lc["deviation_ap"], lc["magpsf"] - lc["magap"])[0, 1] > 0.9


def test_the_alert_light_curve_is_reopened_equal(curves, alert_paths):
    stamps = ztfxr.open_alerts(alert_paths, filter="ztfg").load()
    expected = ztfxr.lightcurve(stamps, [(0, 0)], radius=7, exclude_radius=10).compute()
    xr.testing.assert_identical(curves["ztfg"][list(expected.data_vars)], expected)
    assert np.isfinite(curves["ztfg"].flux).all()
    assert np.isfinite(curves["ztfg"].mag_psf).all()
    assert curves["ztfg"].mag_psf.attrs["units"] == "mag"


def test_fading_transients_have_the_magnitude_of_what_is_missing(alert_paths):
    stamps = ztfxr.open_alerts(alert_paths, filter="ztfg").isel(time=slice(3, 6)).load()
    diff = stamps.ztf.difference(exclude_radius=10, model_error=True).compute()
    rising = compare_packets(stamps, diff)
    negative = stamps.assign_coords(isdiffpos=("time", [False] * 3))
    fading = compare_packets(negative, diff.assign(difference=-diff["difference"]))
    for name in ("mag", "mag_psf", "mag_err"):
        np.testing.assert_allclose(fading[name], rising[name], rtol=1e-6)
    assert np.isnan(compare_packets(negative, diff)["mag"]).all()


def test_an_epoch_that_cannot_be_differenced_keeps_its_row(alert_paths):
    stamps = ztfxr.open_alerts(alert_paths, filter="ztfg").isel(time=slice(0, 3)).load()
    stamps["sci"][1] = np.nan
    lc = compare_packets(stamps, stamps.ztf.difference(exclude_radius=10, model_error=True).compute())
    assert np.isnan(lc["mag"].values[:, 0]).tolist() == [False, True, False]
    assert np.isnan(lc["mag_psf"].values[:, 0]).tolist() == [False, True, False]
    lines = list(packet_table({"ztfg": lc}))
    assert sum(line.startswith("2021-") for line in lines) == 3
    assert "(3 epochs)" in " ".join(lines)


def test_the_profile_and_the_host_of_made_up_stamps():
    """A Gaussian star of known flux on a broad host, of which IPAC's difference holds 2 %."""
    y, x = np.mgrid[-31:32, -31:32].astype(np.float64)
    rng = np.random.default_rng(0)
    star = 50000 * np.exp(-0.5 * ((x - 0.3) ** 2 + (y + 0.2) ** 2) / 1.4**2) / (2 * np.pi * 1.4**2)
    host = 400 * np.exp(-0.5 * (x**2 + (2 * y) ** 2) / 15**2)
    noise = rng.normal(scale=5.0, size=(4, 63, 63))
    dims, coords = ("time", "y", "x"), {"y": np.arange(-31, 32), "x": np.arange(-31, 32), "filter": "ztfg"}
    images = {
        "reference": host + 100 + 0.2 * noise[0] + 0 * noise,
        "ipac_difference": star + 0.02 * host + noise,
        "sci": star + noise,
    }
    stamps = xr.Dataset(
        {k: (dims, v) for k, v in images.items()} | {"variance": (dims, 25 + star / 6 + 0 * noise)}, coords
    )
    same = {"magzp": 26.0, "magap": 14.0, "magpsf": 14.0, "sigmagap": 0.01, "sigmapsf": 0.02, "isdiffpos": True}
    stamps = stamps.assign_coords({k: ("time", [v] * 4) for k, v in same.items()})
    diff = ztfxr.difference(
        stamps.assign(sci=stamps["sci"] + stamps["reference"]), stamps["reference"].isel(time=0), model_error=True
    )
    # The kernel is not what is tested, and so smooth a host leaves it free.
    diff = diff.compute().assign(difference=stamps["sci"], difference_variance=stamps["variance"])
    diff = diff.assign(model_error=xr.zeros_like(diff["model_error"]), epoch_status=xr.zeros_like(diff["epoch_status"]))
    lc = compare_packets(stamps, diff)
    np.testing.assert_allclose(lc["host_left"], 0.02, atol=0.002)
    assert (abs(lc["flux_psf"] - 50000) < 4 * lc["flux_psf_err"]).all()
    assert (lc["profile_chi2"] < 1.4).all()
    np.testing.assert_allclose(lc["mag_psf"], 26.0 - 2.5 * np.log10(50000), atol=0.01)
