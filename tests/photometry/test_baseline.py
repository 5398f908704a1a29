"""Cuts, levels of groups, error factors, total fluxes and limits; on simulated and on real light curves."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

import ztfxr
from benchmarks import zfps
from ztfxr.errors import InputError
from ztfxr.photometry.cuts import PROCSTATUS

LEVELS = (-40.0, 25.0)


def curve(n=160, peak=800.0, inflation=1.0, seed=0, contamination=0.0, n_source=1):
    """Two interleaved groups with levels of their own, and a transient from day 100 that decays."""
    rng = np.random.default_rng(seed)
    mjd = 59000.0 + np.arange(n)
    group = np.arange(n) % 2
    error = rng.uniform(5.0, 15.0, (n, n_source))
    light = peak * np.where(mjd < 59100, 0.0, np.exp(-(mjd - 59100) / 15))
    noise = rng.normal(size=error.shape) * error * inflation
    flux = light[:, None] + np.array(LEVELS)[group][:, None] + noise
    flux[rng.random(flux.shape) < contamination] += 500.0
    lc = xr.Dataset({"flux": (("time", "source"), flux), "flux_err": (("time", "source"), error)})
    lc = lc.assign_coords(mjd=("time", mjd), rfid=("time", group), filter="ztfr", magzp=("time", np.full(n, 23.9)))
    return lc, light


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("peak", [0.0, 800.0])
def test_levels_are_found_without_the_transient(seed, peak):
    lc, _ = curve(seed=seed, peak=peak)
    out = ztfxr.correct_baseline(lc)
    for group, level in enumerate(LEVELS):
        row = out.isel(time=group, source=0)
        assert abs(float(row["baseline"]) - level) < 4 * float(row["baseline_err"])
        assert float(row["baseline_err"]) < 2.5
    assert float(out["error_factor"].max()) < 1.2
    if peak:
        assert not out["quiet"].sel(time=(out["mjd"] > 59100) & (out["mjd"] < 59140)).any()


def test_outliers_do_not_move_the_level():
    lc, _ = curve(contamination=0.03)
    out = ztfxr.correct_baseline(lc)
    assert abs(float(out["baseline"][0, 0]) - LEVELS[0]) < 4 * float(out["baseline_err"][0, 0])


def test_errors_are_raised_to_the_scatter_and_never_lowered():
    lc, light = curve(n=400, inflation=2.0)
    out = ztfxr.correct_baseline(lc)
    assert float(out["error_factor"].mean()) == pytest.approx(2.0, rel=0.1)
    pulls = (out["flux"][:, 0] - light) / out["flux_err"][:, 0]
    assert float(pulls.std()) == pytest.approx(1.0, abs=0.1)
    small, _ = curve(inflation=0.5)
    assert (ztfxr.correct_baseline(small)["error_factor"] == 1).all()
    same = ztfxr.correct_baseline(lc, rescale=None)
    xr.testing.assert_equal(same["flux_err"], lc["flux_err"])


def test_quiet_epochs_can_be_given():
    lc, _ = curve()
    window = ztfxr.correct_baseline(lc, quiet=(59100.0, 59200.0))
    mask = xr.DataArray(lc["mjd"].values < 59100, dims="time")
    xr.testing.assert_equal(window, ztfxr.correct_baseline(lc, quiet=mask))
    assert (window["n_baseline"] >= 48).all()
    for group in range(2):
        rows = lc.isel(time=slice(group, 100, 2))
        weight = rows["flux_err"] ** -2
        mean = float((weight * rows["flux"]).sum() / weight.sum())
        assert float(window["baseline"][group, 0]) == pytest.approx(mean, abs=1.5)


def test_a_star_that_always_varies_has_no_level():
    lc, _ = curve()
    wave = lc.assign(flux=lc["flux"] + 500 * np.sin(lc["mjd"] / 3.0))
    out = ztfxr.correct_baseline(wave)
    xr.testing.assert_equal(out["flux"], wave["flux"])
    assert (ztfxr.cut_counts(out).sel(reason="no_baseline") == wave.sizes["time"]).all()


def test_cut_measurements_have_no_say():
    lc, _ = curve(peak=0.0)
    status = xr.zeros_like(lc["flux"], dtype=np.uint32)
    status[::4] = 1 << 12
    spoiled = lc.assign(status=status, flux=lc["flux"].where(status == 0, lc["flux"] + 300))
    out = ztfxr.correct_baseline(spoiled)
    assert abs(float(out["baseline"][0, 0]) - LEVELS[0]) < 4 * float(out["baseline_err"][0, 0])


def test_which_flags_cut_is_the_users_choice():
    """A fit that always loses a pixel keeps its level and its magnitudes where the user says so."""
    lc, _ = curve()
    lc = ztfxr.calibrate_flux(lc.assign(status=xr.full_like(lc["flux"], 1 << 12, dtype=np.uint32)))
    by_default = ztfxr.correct_baseline(ztfxr.quality_cuts(lc))
    assert (ztfxr.cut_counts(by_default).sel(reason=["status", "no_baseline"]) == lc.sizes["time"]).all()
    without_cuts = ztfxr.correct_baseline(lc)
    assert (ztfxr.cut_counts(without_cuts).sel(reason="status") == lc.sizes["time"]).all()
    assert not ztfxr.magnitudes(without_cuts)["detected"].any()
    chosen = ztfxr.correct_baseline(ztfxr.quality_cuts(lc, status=["no_good_pixels", "edge"]))
    assert (ztfxr.cut_counts(chosen).sel(reason="kept") == lc.sizes["time"]).all()
    assert np.isfinite(chosen["baseline"]).all()
    assert ztfxr.magnitudes(chosen)["detected"].any()
    assert int(ztfxr.bin_by_night(chosen)["n_binned"].sum()) == lc.sizes["time"]


def test_sources_are_each_alone():
    lc, _ = curve(n_source=3)
    together = ztfxr.correct_baseline(lc)
    for i in range(3):
        alone = ztfxr.correct_baseline(lc.isel(source=[i]))
        np.testing.assert_array_equal(together["baseline"][:, i], alone["baseline"][:, 0])


@given(st.permutations(range(24)))
def test_the_order_of_epochs_does_not_matter(order):
    lc, _ = curve(n=24, peak=0.0)
    shuffled = ztfxr.correct_baseline(lc.isel(time=list(order)))
    straight = ztfxr.correct_baseline(lc).isel(time=list(order))
    np.testing.assert_allclose(shuffled["baseline"], straight["baseline"], rtol=1e-12)


def test_rescaling_by_the_fit():
    lc, _ = curve(peak=0.0)
    lc["fit_chi2"] = xr.where(lc["rfid"] == 0, 4.0, 0.5) * xr.ones_like(lc["flux"])
    out = ztfxr.correct_baseline(lc, rescale="fit")
    np.testing.assert_array_equal(out["error_factor"][:, 0], np.where(lc["rfid"] == 0, 2.0, 1.0))
    again = ztfxr.rescale_errors(lc, flux="flux")
    xr.testing.assert_equal(again["flux_err"], out["flux_err"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rescale": "both"}, "'scatter', 'fit' or None"),
        ({"rescale": "fit"}, "needs fit_chi2"),
        ({"flux": "flux_ujy"}, "flux_ujy and flux_ujy_err are needed"),
        ({"by": ["ccdid"]}, "no coordinate ccdid"),
        ({"quiet": (5.0, 1.0)}, r"\(start, end\)"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(InputError, match=message):
        ztfxr.correct_baseline(curve()[0], **options)


def test_cuts_are_named_and_counted():
    lc, _ = curve(n=10)
    lc = lc.assign(
        sky_noise=("time", np.arange(10.0)),
        procstatus=("time", np.array(["0", "57", "56,57", "61", *["0"] * 6])),
        infobits=("time", np.array([0, 8, 1 << 25, *[0] * 7])),
    )
    lc = lc.assign_coords(seeing=("time", np.linspace(1, 5.5, 10), {"units": "pixel"}))
    lc["flux"][9] = np.nan
    out = ztfxr.quality_cuts(lc, max_sky_noise=7.5, max_seeing=4.0)
    counts = {str(k): int(v) for k, v in zip(out_counts(out).reason.values, out_counts(out).values, strict=True)}
    assert counts["no_flux"] == 1
    assert counts["procstatus"] == 2
    assert counts["infobits"] == 1
    assert counts["sky_noise"] == 2
    # 4 arcsec are 3.95 px: 4, 4.5, 5, 5.5 px are beyond.
    assert counts["seeing"] == 4
    assert (counts["kept"], counts["cut"]) == (4, 6)


def out_counts(lc):
    return ztfxr.cut_counts(lc)


def test_a_limit_for_what_is_not_there_is_refused():
    with pytest.raises(InputError, match="no sky_noise"):
        ztfxr.quality_cuts(curve()[0], max_sky_noise=25)
    with pytest.raises(InputError, match="no cuts yet"):
        ztfxr.cut_counts(curve()[0])


def test_status_planes_can_be_chosen():
    lc, _ = curve(n=4)
    lc["status"] = (("time", "source"), np.array([[0], [1 << 12], [1 << 10], [1 << 11]], dtype=np.uint32))
    assert (ztfxr.quality_cuts(lc)["cuts"].values[:, 0] != 0).tolist() == [False, True, True, True]
    chosen = ztfxr.quality_cuts(lc, status=["outside"])["cuts"].values[:, 0] != 0
    assert chosen.tolist() == [False, False, True, False]


def test_limits_and_detections():
    lc, _ = curve(n=5)
    lc = ztfxr.calibrate_flux(lc)
    lc["flux_ujy"][:, 0] = [100.0, 29.0, 31.0, -50.0, np.nan]
    lc["flux_ujy_err"][:, 0] = 10.0
    out = ztfxr.magnitudes(lc)
    assert out["detected"].values[:, 0].tolist() == [True, False, True, False, False]
    assert float(out["mag"][0, 0]) == pytest.approx(23.9 - 5.0)
    assert float(out["mag_err"][0, 0]) == pytest.approx(2.5 / np.log(10) / 10)
    assert float(out["mag_limit"][1, 0]) == pytest.approx(23.9 - 2.5 * np.log10(50))
    np.testing.assert_array_equal(np.isfinite(out["mag_limit"].values[:, 0]), [False, True, False, True, False])
    np.testing.assert_array_equal(np.isfinite(out["mag"].values[:, 0]), [True, False, True, False, False])


def test_total_flux_adds_the_reference():
    lc = ztfxr.calibrate_flux(curve(n=4)[0]).assign(reference_distance=("time", [0.1, 0.1, 3.0, 0.1]))
    options = {"reference_mag": 23.9 - 5.0, "reference_mag_err": 2.5 / np.log(10) * 0.05}
    out = ztfxr.total_flux(lc, **options)
    near = [0, 1, 3]
    np.testing.assert_allclose(out["total_ujy"][near], lc["flux_ujy"][near] + 100.0)
    np.testing.assert_allclose(out["total_ujy_err"][near], np.hypot(lc["flux_ujy_err"][near], 5.0))
    assert np.isnan(out["total_ujy"][2]).all()
    common = ztfxr.total_flux(lc, reference_error="common", **options)
    np.testing.assert_allclose(common["total_ujy_err"][near], lc["flux_ujy_err"][near])
    cancel = ztfxr.total_flux(lc, reference_error="cancel", **options)
    np.testing.assert_allclose(cancel["total_ujy_err"][near] ** 2, lc["flux_ujy_err"][near] ** 2 - 25.0)
    with pytest.raises(InputError, match="magnitude of the source in the reference"):
        ztfxr.total_flux(lc)


def test_reference_noise_cancels_in_the_total():
    """Difference and reference share the reference's noise, with opposite signs."""
    rng = np.random.default_rng(3)
    own, reference = rng.normal(size=(2, 4000)) * np.array([[6.0], [8.0]])
    lc = xr.Dataset({"flux_ujy": (("time", "source"), (own - reference)[None])})
    lc["flux_ujy_err"] = xr.full_like(lc["flux_ujy"], 10.0)
    mag = 23.9 - 2.5 * np.log10(1000.0 + reference)
    err = 2.5 / np.log(10) * 8.0 / (1000.0 + reference)
    out = ztfxr.total_flux(
        lc,
        reference_mag=xr.DataArray(mag, dims="source"),
        reference_mag_err=xr.DataArray(err, dims="source"),
        reference_error="cancel",
    )
    pulls = (out["total_ujy"] - 1000.0) / out["total_ujy_err"]
    assert float(pulls.std()) == pytest.approx(1.0, abs=0.04)


CUTS = {
    "10458": {"infobits": 2, "seeing": 2},
    "10459": {"no_flux": 7, "procstatus": 114, "sky_noise": 5, "seeing": 20},
    "10550": {"no_flux": 96, "procstatus": 103, "infobits": 10, "sky_noise": 45, "seeing": 47},
    "12210": {"infobits": 1, "sky_noise": 2, "seeing": 2},
    "12234": {"infobits": 2, "sky_noise": 2, "seeing": 11},
}
ROWS = {"10458": 50, "10459": 683, "10550": 1711, "12210": 92, "12234": 55}
KEPT = {"10458": 46, "10459": 548, "10550": 1534, "12210": 87, "12234": 42}


@pytest.mark.parametrize("number", CUTS)
def test_rows_of_the_real_files_are_kept_and_cut_for_these_reasons(shared: Path, number: str) -> None:
    (path,) = (shared / "data" / "zfps").glob(f"*{number}*")
    lc = ztfxr.quality_cuts(ztfxr.read_zfps(path), max_sky_noise=25.0, max_seeing=4.0)
    counts = ztfxr.cut_counts(lc).to_series()
    assert counts["kept"] == KEPT[number]
    assert counts["kept"] + counts["cut"] == ROWS[number]
    assert {reason: n for reason, n in counts.drop(["kept", "cut"]).items() if n} == CUTS[number]
    calibrated = ztfxr.calibrate_flux(lc)
    assert int((np.isfinite(calibrated["flux_ujy"]) & (lc["cuts"] == 0)).sum()) == KEPT[number]


def _by_hand(path: Path) -> tuple[list[str], list[list[str]]]:
    lines = [line for line in path.read_text().splitlines() if line.strip() and not line.startswith("#")]
    return [name.strip() for name in lines[0].split(",")], [line.split() for line in lines[1:]]


@pytest.mark.parametrize("number", CUTS)
def test_the_cuts_are_those_of_the_recipe_by_hand(shared: Path, number: str) -> None:
    """infobits below 2**25, scisigpix to 25 DN, seeing to 4 arcsec, a flux, and codes that do not condemn it."""
    (path,) = (shared / "data" / "zfps").glob(f"*{number}*")
    names, rows = _by_hand(path)
    tables = [dict(zip(names, row, strict=True)) for row in rows]
    kept = [
        t
        for t in tables
        if int(t["infobitssci"]) < 2**25
        and float(t["scisigpix"]) <= 25
        and float(t["sciinpseeing"]) * 1.012 <= 4
        and t["forcediffimflux"] not in ("null", "-99999")
        and not {"56", "61"} & set(t["procstatus"].split(","))
    ]
    assert len(kept) == KEPT[number]


def test_what_the_codes_mean_in_the_real_files(shared: Path) -> None:
    """57 lacks a source in the reference but has its flux, 61 never has one, 56 has in most rows."""
    seen: dict[str, list[tuple[bool, bool]]] = {}
    for path in (shared / "data" / "zfps").glob("*.txt"):
        lc = ztfxr.read_zfps(path).isel(source=0)
        known = zip(
            lc["procstatus"].values.tolist(),
            np.isfinite(lc["flux"].values).tolist(),
            np.isfinite(lc["reference_mag"].values).tolist(),
            strict=True,
        )
        for code, flux, reference in known:
            seen.setdefault(code, []).append((flux, reference))
    assert set(seen) == {"0", "56", "57", "61", "56,57", "57,61"}
    assert all(flux for flux, _ in seen["0"] + seen["57"])
    assert not any(reference for _, reference in seen["57"] + seen["56,57"] + seen["57,61"])
    assert not any(flux for flux, _ in seen["61"] + seen["57,61"])
    assert (sum(flux for flux, _ in seen["56"]), len(seen["56"])) == (114, 121)
    assert {int(c) for code in seen for c in code.split(",")} <= set(PROCSTATUS)


@pytest.mark.parametrize("code", sorted(PROCSTATUS))
def test_codes_that_say_nothing_against_the_flux_are_accepted(code: int) -> None:
    lc, _ = curve(n=4)
    marked = ztfxr.quality_cuts(lc.assign(procstatus=("time", np.array(["0", f"{code}", f"57,{code}", "0"]))))
    expected = code not in (0, 57, 58, 62)
    assert (marked["cuts"].values[:, 0] != 0).tolist() == [False, expected, expected, False]


def test_the_table_of_levels(shared: Path) -> None:
    lc, _ = curve(n_source=2)
    table = ztfxr.baseline_table(ztfxr.correct_baseline(lc))
    assert dict(table.sizes) == {"group": 2, "source": 2}
    assert table["rfid"].values.tolist() == [0, 1]
    assert table["n_epochs"].values.tolist() == [80, 80]
    assert np.abs(table["baseline"].values - np.array(LEVELS)[:, None]).max() < 10
    assert (table["n_good"] == 80).all()
    (path,) = (shared / "data" / "zfps").glob("*10458*")
    real = ztfxr.baseline_table(ztfxr.clean_zfps(path))
    names = zip(real["field"].values, real["ccdid"].values, real["qid"].values, real["filter"].values, strict=True)
    assert list(names) == [(573, 5, 1, "ztfg"), (573, 5, 1, "ztfr"), (574, 8, 2, "ztfg"), (574, 8, 2, "ztfr")]
    assert real["n_epochs"].values.tolist() == [13, 12, 12, 13]
    assert real["n_good"].values[:, 0].tolist() == [11, 12, 10, 13]
    variable = ztfxr.baseline_table(ztfxr.clean_zfps(path, variable=True))
    assert "baseline" not in variable
    assert (variable["error_factor"] >= 1).all()
    with pytest.raises(InputError, match="no baselines yet"):
        ztfxr.baseline_table(lc)


def test_a_group_without_a_level_counts_its_measurements() -> None:
    lc, _ = curve()
    table = ztfxr.baseline_table(ztfxr.correct_baseline(lc.assign(flux=lc["flux"] + 500 * np.sin(lc["mjd"] / 3.0))))
    assert np.isnan(table["baseline"]).all()
    assert (table["n_good"] == 80).all()


def test_the_command_prints_every_file(shared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    quiet = ["--quiet", "12210", "59110", "59300", "--min-epochs", "2"]
    zfps.main([str(shared / "data" / "zfps"), "--variable", "10459", "10550", *quiet])
    printed = capsys.readouterr().out
    for number, kept in KEPT.items():
        assert re.search(rf"req000{number}\S*: {kept} of {ROWS[number]} rows kept", printed)
    assert "calibrated: 87 rows on their level, 83 detected" in printed
    assert "calibrated: total flux of 1534 rows" in printed
    zfps.main([str(shared / "data" / "zfps")])
    assert capsys.readouterr().out.count("on no level") == 3


@pytest.mark.parametrize("number", ["10458", "12234"])
def test_real_transients_have_a_baseline(shared: Path, number: str) -> None:
    (path,) = (shared / "data" / "zfps").glob(f"*{number}*")
    lc = ztfxr.clean_zfps(path)
    assert int(ztfxr.cut_counts(lc).sel(reason="kept")) == KEPT[number]
    assert (abs(lc["baseline"]) < 5).all()
    before = lc.isel(time=lc["quiet"].values[:, 0])
    assert 0.6 < float((before["flux_ujy"] / before["flux_ujy_err"]).std()) < 1.2
    detected = ztfxr.magnitudes(lc)["detected"].values[:, 0]
    assert (lc["mjd"].values[detected] > lc["mjd"].values[lc["quiet"].values[:, 0]].max()).all()


@pytest.mark.parametrize("number", ["10459", "10550"])
def test_real_variables_get_their_total_flux(shared: Path, number: str) -> None:
    (path,) = (shared / "data" / "zfps").glob(f"*{number}*")
    lc = ztfxr.clean_zfps(path, variable=True)
    assert int(ztfxr.cut_counts(lc).sel(reason="kept")) == KEPT[number]
    good = lc.isel(time=(lc["cuts"][:, 0] == 0).values)
    red = good.isel(time=(good["filter"] == "ztfr").values)
    assert float((red["total_ujy"] > 0).mean()) > 0.98
    assert float(red["total_ujy"].std() / red["total_ujy"].mean()) > 0.02
    assert int(ztfxr.cut_counts(ztfxr.clean_zfps(path)).sel(reason="kept")) == 0


def test_a_real_transient_seen_too_late_needs_a_window(shared: Path) -> None:
    (path,) = (shared / "data" / "zfps").glob("*12210*")
    assert int(ztfxr.cut_counts(ztfxr.clean_zfps(path)).sel(reason="no_baseline")) == 92
    lc = ztfxr.clean_zfps(path, quiet=(59110.0, 59300.0), min_epochs=2)
    assert int(ztfxr.cut_counts(lc).sel(reason="kept")) == 87
    assert (lc["n_baseline"] == 2).all()
    assert float(ztfxr.magnitudes(lc)["mag"].min()) == pytest.approx(17.6, abs=0.1)
