"""What `plot_difference` draws, read back from the Axes."""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr
from scipy import ndimage

from tests.plot.conftest import times
from ztfxr.arrays.polynomials import exponents, polynomial_at
from ztfxr.dia.difference import difference
from ztfxr.errors import InputError
from ztfxr.plot.difference import plot_difference, support

NT, NY, NX = 5, 96, 110


@cache
def make_diff(order: int = 1) -> xr.Dataset:
    """Differences of a crowded field seen through five blurs; epoch 3 states half of its noise."""
    rng = np.random.default_rng(2)
    scene = np.zeros((NY, NX))
    scene[rng.integers(0, NY, 80), rng.integers(0, NX, 80)] = rng.uniform(2e3, 3e4, 80)
    scene = ndimage.gaussian_filter(scene, 1.0)
    epochs = [ndimage.gaussian_filter(scene, 0.5 + 0.1 * i) * (1 + 0.05 * i) for i in range(NT)]
    noisy = rng.normal(epochs, 5.0)
    coords = {"time": times(), "y": np.arange(NY) + 40, "x": np.arange(NX) + 20}
    data = {"sci": (("time", "y", "x"), noisy), "variance": (("time", "y", "x"), np.full(noisy.shape, 25.0))}
    stack = xr.Dataset(data, coords)
    stack["variance"][3] /= 4
    reference = xr.Dataset(
        {"sci": (("y", "x"), scene), "variance": (("y", "x"), np.full(scene.shape, 1e-3))},
        {"y": coords["y"], "x": coords["x"]},
    )
    return difference(stack, reference, kernel_size=9, kernel_order=order)


def axes_of(figure: Any) -> dict[str, Any]:
    figure.canvas.draw()
    return {ax.get_title() or ax.get_title(loc="left"): ax for ax in figure.axes}


def texts(ax: Any) -> list[str]:
    return [t.get_text() for t in ax.texts]


def test_the_worst_epoch_is_drawn_with_the_stack(tmp_path: Path) -> None:
    diff = make_diff()
    figure = plot_difference(diff, path=tmp_path / "report.png")
    axes = axes_of(figure)
    first = next(name for name in axes if name.startswith("difference"))
    assert "epoch 3" in first
    assert "2021-07-04" in first
    assert np.array_equal(np.isnan(axes[first].images[0].get_array().filled(np.nan)), np.isnan(diff.difference[3]))
    assert {"the numbers", "kernel through its center", "noise ratio", "lost pixels (%)"} <= set(axes)
    drawn = axes["kernel sum"].lines[0]
    np.testing.assert_allclose(drawn.get_ydata(), diff.kernel_sum)
    assert axes["noise ratio"].lines[1].get_ydata()[0] == diff.noise_ratio[3]
    assert axes["noise ratio"].get_xlabel() == "MJD (d)"
    assert plt.imread(tmp_path / "report.png").shape[1] == round(13.5 * 130)


def test_the_numbers_are_those_of_the_dataset() -> None:
    diff = make_diff()
    words = texts(axes_of(plot_difference(diff, epoch=3))["the numbers"])
    assert "look closer" in words
    assert "noise_unexpected" in words
    good = texts(axes_of(plot_difference(diff, epoch=1))["the numbers"])
    assert "good" in good
    one = diff.isel(time=1)
    assert f"{float(one.kernel_sum):.5f} ± {float(one.kernel_sum_err):.5f}" in good
    assert f"{int(one.n_cutouts - one.n_rejected)} used, {int(one.n_rejected)} rejected" in good
    assert f"{float(one.lost_fraction):.1%}" in good


def test_the_histogram_is_normalized_and_states_the_width() -> None:
    ax = axes_of(plot_difference(make_diff(), epoch=0))["pulls (end bins: all beyond)"]
    labels = ax.get_legend_handles_labels()[1]
    assert "unit Gaussian" in labels
    width = next(float(x.split()[-1]) for x in labels if x.startswith("robust width"))
    assert width == pytest.approx(1, abs=0.06)
    data = ax.patches[0].get_data()
    assert np.sum(data.values * np.diff(data.edges)) == pytest.approx(1)


def test_the_chi2_map_covers_the_frame() -> None:
    figure = plot_difference(make_diff(), epoch=0, block_size=24)
    ax = next(ax for name, ax in axes_of(figure).items() if name.startswith("χ² in 4 × 5 blocks"))
    assert tuple(ax.images[0].get_extent()) == (19.5, 129.5, 39.5, 135.5)
    assert np.nanmedian(ax.images[0].get_array().filled(np.nan)) == pytest.approx(1, abs=0.1)


def kernels_of(figure: Any) -> list[Any]:
    return [ax for ax in figure.axes if any(t.startswith("Σ") for t in texts(ax))]


def test_kernels_at_the_center_and_the_corners() -> None:
    diff = make_diff()
    panels = kernels_of(plot_difference(diff, epoch=2))
    assert len(panels) == 5
    one = diff.isel(time=2)
    drawn = [ax.images[0].get_array().data for ax in panels]
    np.testing.assert_allclose(drawn[2], one.kernel, atol=1e-12)
    coefficients = one.kernel_coeff.values
    np.testing.assert_allclose(drawn[0], coefficients[0] - coefficients[1] + coefficients[2])
    assert len(kernels_of(plot_difference(make_diff(0), epoch=2))) == 1


def test_kernels_use_the_terms_of_the_basis() -> None:
    coefficients = np.arange(6.0)[:, None, None] * np.ones((6, 3, 3))
    expected = sum(c * 0.5**i * (-0.25) ** j for c, (i, j) in zip(range(6), exponents(2), strict=True))
    np.testing.assert_allclose(polynomial_at(coefficients, -0.25, 0.5), expected)


def test_padding_of_automatic_kernels_is_not_drawn() -> None:
    coefficients = np.zeros((3, 25, 25))
    coefficients[1, 8:17, 8:17] = 1
    assert support(coefficients) == slice(8, 17)
    assert support(np.zeros((3, 25, 25))) == slice(None)


def test_one_epoch_has_no_time_panels() -> None:
    axes = axes_of(plot_difference(make_diff().isel(time=0, drop=True)))
    assert "kernel sum" not in axes
    assert "difference" in axes


def test_an_epoch_that_was_not_solved_is_drawn_all_the_same() -> None:
    diff = make_diff().copy(deep=True)
    for name in diff.data_vars:
        if diff[name].dtype.kind == "f":
            diff[name][1] = np.nan
    diff["epoch_status"][1] = 1 << 8
    words = texts(axes_of(plot_difference(diff, epoch=1))["the numbers"])
    assert "too_few_pixels" in words
    assert "look closer" in words


def test_lazy_differences_are_drawn_and_unchanged() -> None:
    diff = make_diff()
    lazy = diff.chunk(time=1)
    plot_difference(lazy, epoch=0)
    assert lazy.difference.chunks is not None
    xr.testing.assert_identical(diff, make_diff())


def test_big_frames_are_binned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["ztfxr.plot.difference"], "_MAX_DRAWN", 60)
    name = next(n for n in axes_of(plot_difference(make_diff(), epoch=0)) if n.startswith("difference"))
    assert name.endswith("means of 2 × 2 pixels")


def test_unusable_differences() -> None:
    with pytest.raises(InputError, match=r"not a Dataset of ztfxr.difference: it lacks kernel_coeff"):
        plot_difference(make_diff().drop_vars("kernel_coeff"))
    with pytest.raises(InputError, match="no epoch 7: the stack has 5"):
        plot_difference(make_diff(), epoch=7)
