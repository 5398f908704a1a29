"""What `show` draws, read back from the Axes and from the rendered pixels."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import dask
import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr
from astropy.io import fits
from astropy.visualization import ZScaleInterval
from matplotlib.colors import to_rgba

from tests.plot.conftest import NT, NX, NY, X0, Y0, image, stack
from ztfxr.errors import AlignmentError, InputError, MissingWCSError
from ztfxr.plot import plot_triplet, show
from ztfxr.wcs import assign_wcs, get_wcs


def header() -> fits.Header:
    cards = {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 55.0, "CRVAL2": 33.0, "CRPIX1": 520.0}
    return fits.Header({**cards, "CRPIX2": 1020.0, "CD1_1": -2.8e-4, "CD1_2": 0.0, "CD2_1": 0.0, "CD2_2": 2.8e-4})


def pixels_at(ax: Any, x: float, y: float) -> np.ndarray:
    """The rendered RGBA colour at a position of the Axes."""
    canvas = ax.figure.canvas
    canvas.draw()
    column, row = ax.transData.transform((x, y))
    rendered = np.asarray(canvas.buffer_rgba())
    return rendered[rendered.shape[0] - 1 - int(row), int(column)] / 255


def test_extent_is_in_absolute_pixels() -> None:
    ax = show(image())
    assert tuple(ax.images[0].get_extent()) == (499.5, 549.5, 999.5, 1039.5)
    assert ax.images[0].origin == "lower"
    assert ax.get_aspect() == 1.0
    assert ax.get_xlim() == (499.5, 549.5)


def test_extent_of_a_slice_and_without_coordinates() -> None:
    part = show(image().isel(x=slice(10, 20), y=slice(5, 6)))
    assert tuple(part.images[0].get_extent()) == (509.5, 519.5, 1004.5, 1005.5)
    bare = show(xr.DataArray(np.eye(3), dims=("y", "x")))
    assert tuple(bare.images[0].get_extent()) == (-0.5, 2.5, -0.5, 2.5)
    coarse = show(image().coarsen(x=2, y=2).mean())
    assert tuple(coarse.images[0].get_extent()) == (499.5, 549.5, 999.5, 1039.5)


def test_pixels_in_the_order_of_the_image() -> None:
    one = image()
    assert np.array_equal(show(one).images[0].get_array(), one.values)
    assert np.array_equal(show(one.transpose("x", "y")).images[0].get_array(), one.values)


def test_a_bright_pixel_is_rendered_at_its_place() -> None:
    ax = show(image(), cmap="gray")
    assert pixels_at(ax, X0 + 25, Y0 + 20)[:3].min() == 1.0
    assert pixels_at(ax, X0 + 25, Y0 + 23)[:3].min() < 1.0


def test_zscale_limits_are_those_of_the_finite_pixels() -> None:
    one = image()
    one[3:6, 3:6] = np.nan
    norm = show(one).images[0].norm
    assert (norm.vmin, norm.vmax) == ZScaleInterval().get_limits(one.values[np.isfinite(one.values)])


def test_percentile_and_explicit_limits() -> None:
    one = image()
    norm = show(one, limits=(5, 99)).images[0].norm
    np.testing.assert_allclose((norm.vmin, norm.vmax), np.percentile(one.values, (5, 99)))
    norm = show(one, limits=(5, 99), vmax=300).images[0].norm
    np.testing.assert_allclose((norm.vmin, norm.vmax), (np.percentile(one.values, 5), 300))
    norm = show(one, vmin=0, vmax=10).images[0].norm
    assert (norm.vmin, norm.vmax) == (0, 10)


@pytest.mark.parametrize(("stretch", "middle"), [("linear", 0.5), ("sqrt", 0.5**0.5), ("log", 0.9), ("asinh", 0.77)])
def test_stretches(stretch: Any, middle: float) -> None:
    ax = show(image(), stretch=stretch, vmin=0, vmax=200)
    ax.figure.canvas.draw()
    assert float(ax.images[0].norm(100.0)) == pytest.approx(middle, abs=0.011)


@pytest.mark.parametrize("stretch", ["linear", "sqrt", "log", "asinh"])
def test_nan_pixels_have_the_bad_colour_under_every_stretch(stretch: Any) -> None:
    one = image()
    one[3:6, 3:6] = np.nan
    one[8:11, 3:6] = np.inf
    ax = show(one, stretch=stretch)
    for row in (4, 9):
        np.testing.assert_allclose(pixels_at(ax, X0 + 4, Y0 + row), to_rgba("lightsteelblue"), atol=0.01)
    assert np.ptp(pixels_at(ax, X0 + 40, Y0 + 30)[:3]) < 0.01


@pytest.mark.parametrize("value", [np.nan, 0.0, 1e6, -3.0])
def test_an_image_of_one_value_is_drawn(value: float) -> None:
    ax = show(xr.full_like(image(), value))
    ax.figure.canvas.draw()
    norm = ax.images[0].norm
    if np.isnan(value):
        assert (norm.vmin, norm.vmax) == (0.0, 1.0)
    else:
        assert norm.vmin < value < norm.vmax


def test_one_given_limit_beyond_the_data_gives_a_range() -> None:
    assert show(image(), vmin=1e7).images[0].norm.vmax > 1e7
    assert show(image(), vmax=-1e7).images[0].norm.vmin < -1e7


def test_mask_veils_its_pixels_only() -> None:
    one = image()
    veil = xr.zeros_like(one, dtype=bool)
    veil[10:15, 10:20] = True
    ax = show(one, mask=veil)
    rgba = ax.images[1].get_array()
    assert tuple(ax.images[1].get_extent()) == tuple(ax.images[0].get_extent())
    assert np.array_equal(rgba[..., 3] > 0, veil.values)
    red, green, _, _ = pixels_at(ax, X0 + 15, Y0 + 12)
    assert red > green + 0.2
    assert np.ptp(pixels_at(ax, X0 + 40, Y0 + 12)[:3]) < 0.01


def test_cross_at_the_requested_position() -> None:
    ax = show(image(stamp_x=512.3, stamp_y=1020.75))
    (cross,) = [line for line in ax.lines if line.get_gid() == "stamp"]
    assert (cross.get_xdata()[0], cross.get_ydata()[0]) == (512.3, 1020.75)
    assert cross.get_markeredgecolor() == "white"
    assert ax.get_xlim() == (499.5, 549.5)
    assert not show(image(stamp_x=512.3, stamp_y=1020.75), marker=False).lines
    assert not show(image()).lines


def test_cross_of_a_dataset_that_records_it() -> None:
    ax = show(image().to_dataset().assign_attrs(stamp_x=512.0, stamp_y=1020.0))
    assert ax.lines[0].get_xdata()[0] == 512.0


def test_colour_bar_has_the_unit() -> None:
    ax = show(image())
    assert ax.images[0].colorbar.ax.get_ylabel() == "science image (DN)"
    assert show(image(), colorbar=False).images[0].colorbar is None


def test_default_title_is_filter_and_date() -> None:
    one = stack().isel(time=0)
    assert show(one).get_title() == "ztfr 2021-07-01 06:00"
    assert show(one, title="mine").get_title() == "mine"
    assert show(image()).get_title() == ""
    assert show(one.drop_vars("time")).get_title() == "ztfr MJD 59396.2500"


def test_draws_in_the_given_axes() -> None:
    ax = plt.figure().add_subplot()
    assert show(image(), ax=ax) is ax


def test_nothing_is_changed() -> None:
    data = stack(level=100)
    data.sci[0, 3, 4] = np.nan
    before = data.copy(deep=True)
    show(data)
    show(data.sci.isel(time=0), mask=data.sci.isel(time=0) > 100, stretch="asinh")
    plot_triplet(data, data, data.rename(sci="difference"), time=0, size=21)
    xr.testing.assert_identical(data, before)


def test_lazy_pixels_and_labels_stay_lazy() -> None:
    data = assign_wcs(stack(level=100), header()).chunk(time=1)
    show(data)
    assert dask.is_dask_collection(data.sci)
    with dask.config.set(scheduler=_refuse), pytest.raises(AssertionError, match="computed"):
        show(data.isel(time=0))


def test_a_lazy_array_is_computed_once_for_its_panels() -> None:
    calls = []

    def count(block: np.ndarray) -> np.ndarray:
        calls.append(block.shape)
        return block

    data = stack().sci.chunk(time=1)
    lazy = data.copy(data=data.data.map_blocks(count, dtype=data.dtype, meta=np.empty((0, 0, 0), data.dtype)))
    show(lazy)
    assert calls == [(1, NY, NX)] * NT
    calls.clear()
    plot_triplet(lazy, lazy, lazy, time=2)
    assert calls == [(1, NY, NX)] * 3


def _refuse(*args: Any, **kwargs: Any) -> None:
    raise AssertionError("computed")


def test_a_stack_draws_a_panel_per_epoch() -> None:
    data = stack()
    data.sci[2] += 1000
    axes = show(data, title="all")
    assert axes.shape == (NT,)
    figure = axes[0].figure
    assert figure.get_suptitle() == "all"
    assert len([ax for ax in figure.axes if ax.images and ax in set(axes)]) == NT
    for i, ax in enumerate(axes):
        assert np.array_equal(ax.images[0].get_array(), data.sci.values[i])
        assert ax.get_title() == f"2021-07-0{i + 1} 06:00"
    assert axes[2].images[0].norm.vmin > axes[1].images[0].norm.vmax


def test_masks_of_a_stack() -> None:
    data = stack()
    one = xr.zeros_like(data.sci, dtype=bool)
    one[1, 3] = True
    axes = show(data, mask=one)
    assert [bool((ax.images[1].get_array()[..., 3] > 0).any()) for ax in axes] == [False, True, False, False, False]
    axes = show(data, mask=one.isel(time=1))
    assert all((ax.images[1].get_array()[3, :, 3] > 0).all() for ax in axes)


def test_stacks_along_other_dimensions_and_kernels() -> None:
    axes = show(stack().sci.isel(time=[0, 1]).rename(time="source").drop_vars(["mjd", "source"]))
    assert [ax.get_title() for ax in axes] == ["source 0", "source 1"]
    kernel = xr.DataArray(np.eye(5), {"ky": np.arange(-2, 3), "kx": np.arange(-2, 3)}, name="kernel")
    assert tuple(show(kernel).images[0].get_extent()) == (-2.5, 2.5, -2.5, 2.5)


def test_at_most_36_panels() -> None:
    many = xr.DataArray(np.zeros((37, 4, 4)), dims=("time", "y", "x"))
    with pytest.raises(InputError, match=r"37 images along 'time', at most 36.*isel"):
        show(many)
    assert not plt.get_fignums()


def test_integers_and_booleans_are_drawn() -> None:
    assert show(image() > 100).images[0].get_array().dtype.kind == "f"
    assert show(image().astype(np.int32)).images[0].get_array().max() == 5000


def test_wcs_axes_put_sky_and_pixels_in_one_place() -> None:
    one = assign_wcs(image(), header())
    ax = show(one, wcs_axes=True)
    ax.figure.canvas.draw()
    assert tuple(ax.images[0].get_extent()) == (499.5, 549.5, 999.5, 1039.5)
    assert ax.get_xlabel() == "RA (ICRS)"
    ax.plot(55.0, 33.0, "o", transform=ax.get_transform("world"))
    drawn = ax.transData.inverted().transform(ax.get_transform("world").transform([(55.0, 33.0)]))
    np.testing.assert_allclose(drawn, [get_wcs(one).all_world2pix([[55.0, 33.0]], 0)[0]], atol=1e-6)
    np.testing.assert_allclose(drawn, [(519.0, 1019.0)], atol=1e-6)
    assert len(show(assign_wcs(stack(n=2), header()), wcs_axes=True)) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"stretch": "cube"}, "unknown stretch 'cube'; the stretches are linear"),
        ({"limits": "minmax"}, "two rising percentiles"),
        ({"limits": (99, 1)}, "two rising percentiles"),
        ({"limits": (0, 1000)}, "vmin= and vmax="),
        ({"vmin": 5, "vmax": 5}, "vmin must be below vmax"),
        ({"mask": image()}, "a mask is boolean"),
        ({"mask": (image() > 0).expand_dims(time=2)}, "the mask has dimensions"),
    ],
)
def test_unusable_options(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        show(image(), **arguments)


def test_unusable_images() -> None:
    with pytest.raises(InputError, match="at most one more dimension"):
        show(image().isel(y=0))
    with pytest.raises(InputError, match="at most one more dimension"):
        show(stack().sci.expand_dims("band"))
    with pytest.raises(InputError, match="not evenly spaced along 'x'"):
        show(image().isel(x=[0, 1, 5]))
    with pytest.raises(InputError, match="no variable 'sci'"):
        show(stack("variance"))
    with pytest.raises(InputError, match="makes its own panels"):
        show(stack(), ax=plt.figure().add_subplot())
    with pytest.raises(InputError, match="makes its own axes"):
        show(assign_wcs(image(), header()), ax=plt.figure().add_subplot(), wcs_axes=True)
    with pytest.raises(MissingWCSError):
        show(image(), wcs_axes=True)
    with pytest.raises(AlignmentError):
        show(image(), mask=(image() > 0).isel(x=slice(1, None)))


def test_importing_plot_imports_no_matplotlib() -> None:
    code = "import sys, ztfxr.plot; sys.exit('matplotlib' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
