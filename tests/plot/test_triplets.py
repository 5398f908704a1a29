"""What `plot_triplet` and `plot_summary` draw, read back from the Axes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr
from astropy.visualization import ZScaleInterval

from tests.plot.conftest import MJD, NT, by_label, image, lightcurve, stack, times
from ztfxr.arrays.statistics import MAD_TO_SIGMA
from ztfxr.errors import InputError, OutsideFrameError
from ztfxr.plot import plot_summary, plot_triplet


def test_triplet_limits() -> None:
    science, difference = stack(level=100), stack("difference")
    reference = image()
    axes = plot_triplet(science, reference, difference, time=1, size=None)
    norms = [ax.images[0].norm for ax in axes]
    both = np.concatenate([science.sci.values[1].ravel(), reference.values.ravel()])
    assert (norms[0].vmin, norms[0].vmax) == (norms[1].vmin, norms[1].vmax) == ZScaleInterval().get_limits(both)
    pixels = difference.difference.values[1]
    spread = 5 * MAD_TO_SIGMA * np.median(np.abs(pixels - np.median(pixels)))
    np.testing.assert_allclose((norms[2].vmin, norms[2].vmax), (-spread, spread), rtol=1e-6)
    assert [ax.get_title() for ax in axes] == ["science\n2021-07-02 06:00", "reference", "difference"]
    assert axes[2].images[0].colorbar.ax.get_ylabel() == "DN"


def test_triplet_cuts_every_image_at_the_same_absolute_pixels() -> None:
    science, difference = stack(level=100), stack("difference").isel(x=slice(5, None))
    axes = plot_triplet(science, image(), difference, time=0, size=11, position=(520.3, 1019.8))
    for ax in axes:
        assert tuple(ax.images[0].get_extent()) == (514.5, 525.5, 1014.5, 1025.5)
        assert ax.lines[0].get_xdata()[0] == 520.3
    assert np.array_equal(axes[1].images[0].get_array(), image().values[15:26, 15:26])
    at_edge = plot_triplet(science, image(), stack("difference"), time=0, size=11, position=(501, 1001))
    assert tuple(at_edge[0].images[0].get_extent()) == (499.5, 506.5, 999.5, 1006.5)


@pytest.mark.parametrize(("n", "size"), [(7, 3), (7, 4), (8, 3), (8, 4)])
def test_triplet_default_center_gives_the_asked_size(n: int, size: int) -> None:
    one = xr.DataArray(np.random.default_rng(0).normal(size=(n, n)), dims=("y", "x"))
    axes = plot_triplet(one, one, one, size=size)
    assert all(ax.images[0].get_array().shape == (size, size) for ax in axes)
    assert not axes[0].lines


def test_triplet_is_centered_on_the_stamp() -> None:
    stamp = image(stamp_x=510.0, stamp_y=1010.0)
    axes = plot_triplet(stamp, image(), image(), size=5)
    assert tuple(axes[2].images[0].get_extent()) == (507.5, 512.5, 1007.5, 1012.5)


def test_triplet_of_one_dataset_takes_its_own_variables() -> None:
    data = stack(level=100).assign(reference=stack(level=50).sci, difference=stack("difference").difference)
    axes = plot_triplet(data, data, data, time="2021-07-03", size=None)
    for ax, name in zip(axes, ("sci", "reference", "difference"), strict=True):
        assert np.array_equal(ax.images[0].get_array(), data[name].values[2])


def test_triplet_without_a_finite_pixel() -> None:
    empty = xr.full_like(image(), np.nan)
    axes = plot_triplet(empty, empty, empty)
    axes[0].figure.canvas.draw()
    assert (axes[2].images[0].norm.vmin, axes[2].images[0].norm.vmax) == (-1.0, 1.0)


def test_unusable_triplets() -> None:
    science, difference = stack(), stack("difference")
    with pytest.raises(InputError, match="choose the one to draw"):
        plot_triplet(science, image(), difference)
    with pytest.raises(InputError, match="no epoch 9: the stack has 5"):
        plot_triplet(science, image(), difference, time=9)
    with pytest.raises(InputError, match="the difference of 2021-07-02"):
        plot_triplet(science, image(), difference.isel(time=slice(1, None)), time=0)
    with pytest.raises(InputError, match="three axes; got 2"):
        plot_triplet(science, image(), difference, time=0, axes=list(plt.subplots(1, 2)[1]))
    with pytest.raises(OutsideFrameError, match="x = 50 is outside the image, which spans 500 to 549"):
        plot_triplet(science, image(), difference, time=0, position=(50, 1010))
    with pytest.raises(InputError, match="at least 1 pixel"):
        plot_triplet(science, image(), difference, time=0, size=0)


def test_summary(tmp_path: Path) -> None:
    truth = xr.DataArray(np.arange(NT, dtype=float), {"time": times()}, name="flux")
    path = tmp_path / "summary.png"
    science, difference = stack(level=100), stack("difference")
    kwargs: dict[str, Any] = {"truth": truth, "truth_label": "injected", "size": 21, "path": path}
    figure = plot_summary(science, image(), difference, lightcurve(), epochs=(0, 4), **kwargs)
    top, *panels = [ax for ax in figure.axes if ax.get_subplotspec() is not None]
    assert len(panels) == 6
    assert [panels[i].get_title() for i in (0, 3)] == ["a  science\n2021-07-01 06:00", "b  science\n2021-07-05 06:00"]
    assert np.array_equal(panels[5].images[0].get_array(), difference.difference.values[4, 9:30, 14:35])
    line = by_label(top)["injected"]
    np.testing.assert_allclose(line.get_xdata(), MJD, atol=1e-9)
    assert line.get_ydata().tolist() == truth.values.tolist()
    assert {t.get_text() for t in top.texts} == {"a", "b"}
    assert plt.imread(path).shape[:2] == tuple(np.round(figure.get_size_inches()[::-1] * 150).astype(int))


def test_summary_on_dates_and_without_epochs() -> None:
    science, difference = stack(), stack("difference")
    figure = plot_summary(science, image(), difference, lightcurve().drop_vars("mjd"), epochs=[1])
    figure.canvas.draw()
    assert figure.axes[0].get_xlabel() == "time (UTC)"
    with pytest.raises(InputError, match="no epochs to draw"):
        plot_summary(science, image(), difference, lightcurve(), epochs=())
