"""What `plot_lightcurve` draws, read back from the Axes."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr

from tests.plot.conftest import MJD, NT, by_label, lightcurve, times
from ztfxr.arrays.curves.smooth import smooth_nights
from ztfxr.errors import InputError
from ztfxr.plot import FILTER_COLORS, plot_lightcurve
from ztfxr.plot.lightcurves import plot_packets, plot_smooth
from ztfxr.schema import annotate_all


def test_good_flagged_and_missing_epochs() -> None:
    ax = plot_lightcurve(lightcurve())
    ax.figure.canvas.draw()
    handles = by_label(ax)
    assert set(handles) == {"ztfr", "flagged (edge, masked)", "no measurement"}
    good, flagged, missing = (handles[k] for k in ("ztfr", "flagged (edge, masked)", "no measurement"))
    assert good.lines[0].get_xdata().tolist() == MJD[[0, 2, 4]].tolist()
    assert good.lines[0].get_ydata().tolist() == [100.0, 120.0, 140.0]
    assert good.lines[0].get_markerfacecolor() == FILTER_COLORS["ztfr"] == "crimson"
    assert flagged.lines[0].get_xdata().tolist() == [MJD[1]]
    assert flagged.lines[0].get_markerfacecolor() == "white"
    assert missing.get_xdata().tolist() == [MJD[3]]
    assert missing.get_transform() == ax.get_xaxis_transform()
    assert ax.get_ylim()[1] < 160


def test_error_bars_have_the_length_of_the_errors() -> None:
    (bars,) = by_label(plot_lightcurve(lightcurve()))["ztfr"].lines[2]
    assert [np.ptp(segment[:, 1]) for segment in bars.get_segments()] == [6.0, 6.0, 6.0]


def test_axes_have_units_and_mjd_only_where_known() -> None:
    ax = plot_lightcurve(lightcurve())
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("MJD (d)", "flux (DN)")
    ax = plot_lightcurve(lightcurve().drop_vars("mjd"))
    ax.figure.canvas.draw()
    assert ax.get_xlabel() == "time (UTC)"
    assert by_label(ax)["ztfr"].lines[0].get_xdata()[0] == times()[0]
    calibrated = annotate_all(lightcurve().drop_attrs().rename(flux="flux_ujy", flux_err="flux_ujy_err"))
    assert plot_lightcurve(calibrated, flux="flux_ujy").get_ylabel() == "flux density (µJy)"


def test_light_curves_without_source_status_or_filter() -> None:
    bare = lightcurve().isel(source=0).drop_vars(["status", "filter"])
    assert set(by_label(plot_lightcurve(bare))) == {"flux", "no measurement"}
    assert set(by_label(plot_lightcurve(bare, label="SN"))) == {"SN", "no measurement"}


def test_all_sources_up_to_eight() -> None:
    handles = by_label(plot_lightcurve(lightcurve(sources=8), source=None))
    good = {k: v for k, v in handles.items() if "source" in k}
    assert list(good) == [f"ztfr source {i}" for i in range(8)]
    assert len({h.lines[0].get_color() for h in good.values()}) == 8
    with pytest.raises(InputError, match="9 sources, at most 8"):
        plot_lightcurve(lightcurve(sources=9), source=None)
    assert by_label(plot_lightcurve(lightcurve(sources=2), source=1))["ztfr"].lines[0].get_ydata()[0] == 110.0


def test_filters_of_a_mapping_a_tree_and_along_time_have_their_colors() -> None:
    two = {band: lightcurve(band) for band in ("ztfg", "ztfi")}
    mixed = lightcurve().assign_coords(filter=("time", ["ztfg", "ztfi", "ztfg", "ztfi", "ztfi"]))
    for lc in (two, xr.DataTree.from_dict({"/": xr.Dataset(), **two}), mixed):
        handles = by_label(plot_lightcurve(lc))
        assert {b: handles[b].lines[0].get_color() for b in two} == {b: FILTER_COLORS[b] for b in two}
    keyed = {band: one.drop_vars("filter") for band, one in two.items()}
    assert by_label(plot_lightcurve(keyed))["ztfi"].lines[0].get_color() == "goldenrod"


def test_mixed_time_axes_become_mjd() -> None:
    ax = plot_lightcurve({"ztfg": lightcurve("ztfg"), "ztfr": lightcurve().drop_vars("mjd")})
    np.testing.assert_allclose(by_label(ax)["ztfr"].lines[0].get_xdata(), MJD[[0, 2, 4]], atol=1e-9)


def test_epochs_without_time_and_all_missing_epochs() -> None:
    lc = lightcurve()
    lost = lc.assign_coords(mjd=("time", np.where(np.arange(NT) == 0, np.nan, MJD)))
    assert by_label(plot_lightcurve(lost))["ztfr"].lines[0].get_xdata().tolist() == MJD[[2, 4]].tolist()
    empty = lc.assign(flux=lc.flux * np.nan)
    ax = plot_lightcurve(empty)
    ax.figure.canvas.draw()
    assert by_label(ax)["no measurement"].get_xdata().tolist() == MJD.tolist()


def test_light_curve_draws_in_the_given_axes_and_changes_nothing() -> None:
    lc = lightcurve(sources=2)
    before = lc.copy(deep=True)
    ax = plt.figure().add_subplot()
    assert plot_lightcurve(lc.chunk(time=2), ax=ax, source=None) is ax
    plot_lightcurve(lc)
    xr.testing.assert_identical(lc, before)


def test_unusable_light_curves() -> None:
    with pytest.raises(InputError, match=r"no light curve with 'flux_ujy'.*flux, flux_err, status"):
        plot_lightcurve(lightcurve(), flux="flux_ujy")
    with pytest.raises(InputError, match="no light curve"):
        plot_lightcurve({})
    with pytest.raises(InputError, match="no source 3"):
        plot_lightcurve(lightcurve(), source=3)
    with pytest.raises(InputError, match="neither a coordinate 'time' nor 'mjd'"):
        plot_lightcurve(lightcurve().drop_vars(["time", "mjd"]))


def test_packets_beside_our_magnitudes(tmp_path) -> None:
    values = {"mag": 15.1, "mag_err": 0.01, "mag_psf": 15.0, "mag_psf_err": 0.02, "deviation_ap": -0.1}
    lc = xr.Dataset({k: ("time", np.full(NT, v)) for k, v in (values | {"deviation_psf": 0.2}).items()})
    packet = {k: ("time", np.full(NT, v)) for k, v in {"magpsf": 14.8, "sigmapsf": 0.03, "sigmagap": 0.01}.items()}
    lc = lc.assign_coords(mjd=("time", MJD), **packet)
    figure = plot_packets({"ztfg": lc, "ztfr": lc}, path=tmp_path / "p.png")
    top, psf, aperture = figure.axes
    assert top.yaxis_inverted()
    labels = set(by_label(top))
    assert labels == {f"{b} {what}" for b in ("ztfg", "ztfr") for what in ("magpsf", "ours, PSF", "ours, aperture")}
    for ax, deviation in ((psf, 0.2), (aperture, -0.1)):
        drawn = [c for c in ax.containers if c.lines[0] is not None]
        assert len(drawn) == 2
        np.testing.assert_allclose(drawn[0].lines[0].get_ydata(), deviation)
    assert (tmp_path / "p.png").stat().st_size > 1000


def test_a_smooth_curve_with_its_residuals(tmp_path) -> None:
    mjd = np.concatenate([np.linspace(0.0, 0.2, 9), [5.0, 5.1]])
    flux = np.where(mjd < 1, 100 * np.sin(10 * mjd), 3.0)
    lc = xr.Dataset({"flux": ("time", flux), "flux_err": ("time", np.ones(11))}).assign_coords(mjd=("time", mjd))
    curve = smooth_nights(mjd, flux, np.ones(11))
    figure = plot_smooth(annotate_all(lc), curve, path=tmp_path / "s.png")
    line = by_label(figure.axes[1])["smooth curve"]
    np.testing.assert_array_equal(line.get_xdata(), mjd[:9])
    np.testing.assert_allclose(line.get_ydata(), flux[:9], atol=1.0)
    assert "reduced chi-square" in figure.axes[2].get_xlabel()
    assert (tmp_path / "s.png").stat().st_size > 1000
