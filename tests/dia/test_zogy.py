"""ZOGY on labeled images: flux, score, PSFs given and estimated, laziness, chunkings, statuses, real stamps."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

import ztfxr
from ztfxr.dia.zogy import zogy
from ztfxr.schema import SPECS, STATUS_PLANES, planes_to_bits

NY, NX = 180, 170
DIMS = ("time", "y", "x")
WIDE, SHARP = 2.8, 2.2
SCALE = 1.2


def profile(y, x, fwhm):
    s = fwhm / 2.3548
    return np.exp(-(x**2 + y**2) / 2 / s**2) / (2 * np.pi * s**2)


def stamp(fwhm, size=21):
    y, x = np.mgrid[:size, :size] - size // 2
    return xr.DataArray(profile(y, x, fwhm), dims=("psf_y", "psf_x"))


def sky(positions, fluxes, fwhm):
    y, x = np.mgrid[:NY, :NX]
    return sum(
        (f * profile(y - p[0], x - p[1], fwhm) for p, f in zip(positions, fluxes, strict=True)), np.zeros((NY, NX))
    )


def pair(seed=0, epochs=2, extra=0.0, sky_level=150.0):
    rng = np.random.default_rng(seed)
    positions, fluxes = rng.uniform(0, (NY, NX), (70, 2)), 10 ** rng.uniform(3, 4.5, 70)
    model = SCALE * sky(positions + np.array([0.2, -0.3]), fluxes, WIDE) + extra
    old = sky(positions, fluxes, SHARP)
    v_new, v_old = 25 + np.maximum(model, 0) / 6, 6 + np.maximum(old, 0) / 25
    sci = model + sky_level + rng.normal(size=(epochs, NY, NX)) * np.sqrt(v_new)
    ref = old + 10 + rng.normal(size=(NY, NX)) * np.sqrt(v_old)
    coords = {
        "time": np.datetime64("2020-01-01", "ns") + np.arange(epochs) * np.timedelta64(1, "D"),
        "y": np.arange(NY),
        "x": np.arange(NX),
    }
    noise = np.broadcast_to(v_new, sci.shape).astype("f4")
    science = xr.Dataset({"sci": (DIMS, sci.astype("f4")), "variance": (DIMS, noise)}, coords)
    reference = xr.Dataset({"sci": (DIMS[1:], ref.astype("f4")), "variance": (DIMS[1:], v_old.astype("f4"))})
    return science, reference.assign_coords(y=coords["y"], x=coords["x"])


PLACES = np.array([(y, x) for y in range(22, 170, 27) for x in range(22, 160, 27)])
FLUX = 1800.0


@pytest.fixture(scope="module")
def data():
    return pair(3, epochs=3, extra=sky(PLACES, np.full(len(PLACES), FLUX), WIDE))


@pytest.fixture(scope="module")
def known():
    return {"psf": stamp(WIDE), "reference_psf": stamp(SHARP)}


@pytest.mark.parametrize("estimated", [False, True])
def test_flux_error_and_score_are_right(data, known, estimated):
    out = zogy(*data, **({} if estimated else known))
    np.testing.assert_allclose(out.zogy_scale, SCALE, rtol=0.01)
    np.testing.assert_allclose([out.shift_y, out.shift_x], [[0.2] * 3, [-0.3] * 3], atol=0.02)
    y, x = (xr.DataArray(p, dims="source") for p in PLACES.T)
    flux, error = out.zogy_flux.isel(y=y, x=x), out.zogy_flux_err.isel(y=y, x=x)
    assert float(flux.mean()) == pytest.approx(FLUX, rel=0.01)
    assert float(((flux - FLUX) / error).std()) == pytest.approx(1.0, abs=0.15)
    xr.testing.assert_allclose((flux / error).rename("zogy_score"), out.zogy_score.isel(y=y, x=x), rtol=1e-4)
    assert float(out.zogy_score.isel(y=y, x=x).min()) > 10


def test_the_difference_is_on_the_science_scale_with_its_psf_and_variance(data, known):
    out = zogy(*data, **known)
    assert set(out.data_vars) <= set(SPECS)
    assert out.zogy_difference.dims == DIMS
    assert out.psf_difference.dims == ("time", "psf_y", "psf_x")
    assert out.zogy_difference.attrs["units"] == "DN"
    psf = out.psf_difference.values[0]
    assert psf.sum() == pytest.approx(1.0, abs=2e-3)
    values = out.zogy_difference.values
    core = psf[3:-3, 3:-3]
    flux = [(v[y - 7 : y + 8, x - 7 : x + 8] * core).sum() / (core**2).sum() for v in values for y, x in PLACES]
    assert np.mean(flux) == pytest.approx(FLUX, rel=0.01)
    empty = np.abs(sky(PLACES, np.full(len(PLACES), FLUX), WIDE)) < 1e-3
    pull = (out.zogy_difference / np.sqrt(out.zogy_variance)).where(empty)
    assert float(pull.std()) == pytest.approx(1.0, abs=0.04)


def test_empty_sky_has_a_score_of_unit_variance(known):
    out = zogy(*pair(5, epochs=2), **known)
    assert float(out.zogy_score.std()) == pytest.approx(1.0, abs=0.05)
    assert float(np.abs(out.zogy_score).max()) < 6


def test_noise_that_nobody_states_is_measured(data, known):
    science, reference = (d.drop_vars("variance") for d in data)
    out, expected = zogy(science, reference, **known), zogy(*data, **known)
    y, x = (xr.DataArray(p, dims="source") for p in PLACES.T)
    assert float(out.zogy_flux.isel(y=y, x=x).mean()) == pytest.approx(FLUX, rel=0.015)
    ratio = out.zogy_flux_err.median() / expected.zogy_flux_err.median()
    assert 0.9 < float(ratio) < 1.35


def test_given_numbers_are_used(data, known):
    out = zogy(*data, **known, scale=SCALE, shift=(0.2, -0.3))
    measured = zogy(*data, **known, astrometric_error=0.0)
    assert float(out.astrometric_error.max()) == 0
    assert bool(out.zogy_scale_err.isnull().all())
    y, x = (xr.DataArray(p, dims="source") for p in PLACES.T)
    np.testing.assert_allclose(out.zogy_flux.isel(y=y, x=x), measured.zogy_flux.isel(y=y, x=x), rtol=0.03)
    by_epoch = zogy(*data, **known, scale=xr.DataArray([1.0, SCALE, 1.4], dims="time"), shift=(0.2, -0.3))
    xr.testing.assert_identical(by_epoch.zogy_score.isel(time=1), out.zogy_score.isel(time=1))


def test_psfs_may_differ_by_epoch_and_size(data, known):
    several = xr.concat([stamp(WIDE), stamp(3.4), stamp(WIDE)], dim="time").assign_coords(time=data[0].time)
    out = zogy(*data, psf=several, reference_psf=stamp(SHARP, 17), scale=SCALE)
    same = zogy(*data, psf=stamp(WIDE), reference_psf=stamp(SHARP, 17), scale=SCALE)
    assert out.psf_difference.sizes["psf_y"] == 21
    xr.testing.assert_identical(out.zogy_score.isel(time=[0, 2]), same.zogy_score.isel(time=[0, 2]))
    assert float(np.abs(out.zogy_score - same.zogy_score).isel(time=1).max()) > 1


def test_chunking_never_changes_a_result(data, known):
    science, reference = data
    eager = zogy(science, reference, **known)
    for chunks, lazy_reference in ((1, True), (2, False)):
        lazy = zogy(science.chunk(time=chunks), reference.chunk() if lazy_reference else reference, **known)
        assert all(v.chunks is not None for v in lazy.data_vars.values())
        xr.testing.assert_allclose(lazy.compute(), eager, rtol=1e-5, atol=1e-4)


def test_it_is_lazy(data, known, raising_scheduler):
    science, reference = (d.chunk() for d in data)
    out = zogy(science.chunk(time=1), reference)
    assert all(v.chunks is not None for v in out.data_vars.values())
    given = {k: v.chunk() for k, v in known.items()}
    out = zogy(science.chunk(time=1), reference, **given, scale=xr.DataArray(np.ones(3), dims="time").chunk())
    assert out.zogy_score.chunks is not None


def test_one_epoch_is_the_stack_of_one(data, known):
    science, reference = data
    one = zogy(science.isel(time=1), reference, **known)
    assert one.zogy_score.dims == ("y", "x")
    xr.testing.assert_allclose(one.zogy_score, zogy(science, reference, **known).zogy_score.isel(time=1))


def test_junk_under_the_masks_never_leaks(data, known):
    science, reference = (d.isel(time=[0]) if "time" in d.dims else d for d in data)
    bad = xr.zeros_like(science.sci, dtype=bool)
    bad[:, 40:43, 50:60] = True
    results = [
        zogy(science.assign(sci=science.sci.where(~bad, junk), mask=bad), reference, **known, scale=SCALE)
        for junk in (0.0, 6e4, np.nan)
    ]
    for other in results[1:]:
        xr.testing.assert_identical(other, results[0])
    out = results[0]
    assert bool(out.mask.values[bad.values].all())
    np.testing.assert_array_equal(np.isnan(out.zogy_difference.values), out.mask.values)
    assert bool(out.zogy_score.isnull().values[bad.values].all())


def test_epochs_that_cannot_be_used_have_a_status_and_harm_no_other(data, known):
    science, reference = data
    expected = zogy(science, reference, **known)
    spoiled = science.assign(sci=science.sci.where(science.time != science.time[1], np.nan))
    out = zogy(spoiled, reference, **known)
    few = planes_to_bits(["too_few_pixels"], STATUS_PLANES)
    assert out.epoch_status.values.tolist() == [0, few, 0]
    assert bool(out.zogy_score.isel(time=1).isnull().all())
    assert bool(out.mask.isel(time=1).all())
    xr.testing.assert_identical(out.zogy_score.isel(time=[0, 2]), expected.zogy_score.isel(time=[0, 2]))
    blank = reference.assign(sci=xr.zeros_like(reference.sci))
    assert zogy(science, blank, **known).epoch_status.values.tolist() == [few] * 3
    assert zogy(science, blank, **known, scale=1.0).epoch_status.values.tolist() == [0] * 3
    negative = zogy(science, reference, **known, scale=-1.0)
    assert negative.epoch_status.values.tolist() == [planes_to_bits(["solve_failed"], STATUS_PLANES)] * 3


def test_errors_name_what_is_wrong(data):
    science, reference = data
    with pytest.raises(ztfxr.InputError, match=r"reference_psf has the dimensions.*got {'y': 3"):
        zogy(science, reference, reference_psf=xr.DataArray(np.ones((3, 3)), dims=("y", "x")))
    with pytest.raises(ztfxr.InputError, match="odd side of those that are built, at least 5 pixels; got 20"):
        zogy(science, reference, psf=20)
    with pytest.raises(ztfxr.InputError, match="no reference"):
        zogy(science)
    with pytest.raises(ztfxr.AlignmentError, match="different shapes"):
        zogy(science, reference.isel(x=slice(0, 50)))
    with pytest.raises(ztfxr.ChunkError, match="chunks along 'y'"):
        zogy(science.chunk(y=20), reference)


def test_real_alert_stamps_show_their_transient(alert_paths):
    """One supernova at the middle of every stamp: scores there follow IPAC's fluxes."""
    node = next(iter(ztfxr.open_alerts(alert_paths).children.values()))
    stamps = node.to_dataset().isel(time=slice(0, 4)).load()
    psf = stamp(2.2, 15)
    out = zogy(stamps, psf=psf, reference_psf=psf, scale=1.0)
    assert not out.epoch_status.any()
    middle = out.zogy_score.where(np.hypot(out.y, out.x) < 3).max(("y", "x"))
    assert bool((middle > 5).all())
