"""The smooth curve of nights: right errors give a reduced χ² of 1, wrong ones what they should."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.interpolate import make_smoothing_spline

from ztfxr.arrays.curves.smooth import _roughness, smooth_nights


def nights(seed, n=30, n_nights=12):
    """Nights of a curve that bends, their levels without relation, and flat ones of one to four epochs."""
    rng = np.random.default_rng(seed)
    sizes = [n] * n_nights + [1, 2, 3, 4]
    time = np.concatenate([k + np.sort(rng.uniform(0.0, 0.28, size)) for k, size in enumerate(sizes)])
    error = rng.uniform(50.0, 150.0, len(time))
    bend = np.where(time < n_nights, 3000.0 * np.tanh(((time % 1) - 0.14) / 0.05), 0.0)
    truth = bend + 1e4 * np.sin(np.floor(time) * 5.0)
    return time, truth, error, rng


@pytest.mark.parametrize("factor", [1.0, 2.0])
def test_the_reduced_chi_square_tells_right_from_wrong_errors(factor):
    found = []
    for seed in range(6):
        time, truth, error, rng = nights(seed)
        curve = smooth_nights(time, truth + factor * error * rng.normal(size=len(time)), error)
        found.append(curve.chi2 / curve.dof)
    assert np.mean(found) == pytest.approx(0.94 * factor**2, rel=0.05)


def test_pulls_have_unit_width():
    pulls = []
    for seed in range(6):
        time, truth, error, rng = nights(seed)
        flux = truth + error * rng.normal(size=len(time))
        pulls.append(smooth_nights(time, flux, error).pulls(flux, error))
    pulls = np.concatenate(pulls)
    assert np.nanstd(pulls) == pytest.approx(0.95, abs=0.05)


def test_a_bad_point_and_missing_ones_do_not_spread():
    time, truth, error, rng = nights(0)
    flux = truth + error * rng.normal(size=len(time))
    alone = int(np.flatnonzero(np.floor(time) == 12)[0])
    flux[5], error[40] = np.nan, 0.0
    curve = smooth_nights(time, flux, error)
    assert np.isnan(curve.value[[5, 40, alone]]).all()
    assert np.isfinite(np.delete(curve.value, [5, 40, alone])).all()
    other = flux.copy()
    other[0] += 1e4
    changed = smooth_nights(time, other, error)
    same = np.floor(time) > 0
    np.testing.assert_array_equal(changed.value[same], curve.value[same])


def test_the_order_of_epochs_does_not_matter():
    time, truth, error, rng = nights(1)
    flux = truth + error * rng.normal(size=len(time))
    order = rng.permutation(len(time))
    straight, mixed = smooth_nights(time, flux, error), smooth_nights(time[order], flux[order], error[order])
    np.testing.assert_allclose(mixed.value, straight.value[order], rtol=1e-9)
    assert mixed.dof == pytest.approx(straight.dof)


def test_the_spline_is_that_of_scipy():
    rng = np.random.default_rng(0)
    t, f, w = np.sort(rng.uniform(0, 1, 20)), rng.normal(size=20), rng.uniform(0.5, 2, 20)
    stiffness = 1e-3
    ours = np.linalg.solve(np.diag(w) + stiffness * _roughness(t), w * f)
    np.testing.assert_allclose(ours, make_smoothing_spline(t, f, w=w, lam=stiffness)(t), atol=1e-8)


def test_nothing_to_smooth():
    curve = smooth_nights(np.zeros(0), np.zeros(0), np.zeros(0))
    assert (curve.chi2, curve.dof) == (0.0, 0.0)
    same = smooth_nights(np.zeros(6), np.arange(6.0), np.ones(6))
    assert same.value == pytest.approx(np.full(6, 2.5))
