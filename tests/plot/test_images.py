"""What `show` draws, read back from the Axes and from the rendered pixels."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import dask
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.table import Table
from astropy.visualization import ZScaleInterval
from matplotlib.colors import to_rgba

from tests.plot.conftest import NT, NX, NY, X0, Y0, image, stack
from ztfxr.errors import AlignmentError, InputError, MissingWCSError
from ztfxr.io.frames import open_quadrant
from ztfxr.ops.mosaic import mosaic
from ztfxr.ops.stamps import stamps
from ztfxr.plot import Style, plot_triplet, show
from ztfxr.schema import MASK_PLANES, RECOMMENDED_PLANES, flag_attrs, planes_to_bits
from ztfxr.wcs import assign_wcs, get_wcs, pixel_to_sky


def header() -> fits.Header:
    cards = {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 55.0, "CRVAL2": 33.0, "CRPIX1": 520.0}
    return fits.Header({**cards, "CRPIX2": 1020.0, "CD1_1": -2.8e-4, "CD1_2": 0.0, "CD2_1": 0.0, "CD2_2": 2.8e-4})


def pixels_at(ax: Any, x: float, y: float) -> np.ndarray:
    """The rendered RGBA color at a position of the Axes."""
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


@pytest.mark.parametrize(
    ("stretch", "middle"),
    [("linear", 0.5), ("sqrt", 0.5**0.5), ("log", 0.9), ("asinh", 0.77), ("sinh", 0.21), ("squared", 0.25)],
)
def test_stretches(stretch: Any, middle: float) -> None:
    ax = show(image(), stretch=stretch, vmin=0, vmax=200)
    ax.figure.canvas.draw()
    assert float(ax.images[0].norm(100.0)) == pytest.approx(middle, abs=0.011)


@pytest.mark.parametrize("stretch", ["linear", "sqrt", "log", "asinh", "sinh", "squared"])
def test_nan_pixels_have_the_bad_color_under_every_stretch(stretch: Any) -> None:
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
    assert not show(image(stamp_x=512.3, stamp_y=1020.75), style=Style(marker=False)).lines
    assert not show(image()).lines


def test_cross_of_a_dataset_that_records_it() -> None:
    ax = show(image().to_dataset().assign_attrs(stamp_x=512.0, stamp_y=1020.0))
    assert ax.lines[0].get_xdata()[0] == 512.0


def test_color_bar_has_the_unit() -> None:
    ax = show(image())
    assert ax.images[0].colorbar.ax.get_ylabel() == "science image (DN)"
    assert show(image(), style=Style(colorbar=False)).images[0].colorbar is None


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
    show(data.sci.isel(time=0), compare=data.sci.isel(time=1), style=Style(max_pixels=7), catalogs=sources())
    show(xr.DataTree.from_dict({"a": data.isel(time=0), "b": data.isel(time=1)}), mask=data.sci.isel(time=1) > 100)
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
    ax = show(one, ax="wcs")
    ax.figure.canvas.draw()
    assert tuple(ax.images[0].get_extent()) == (499.5, 549.5, 999.5, 1039.5)
    assert ax.get_xlabel() == "RA (ICRS)"
    ax.plot(55.0, 33.0, "o", transform=ax.get_transform("world"))
    drawn = ax.transData.inverted().transform(ax.get_transform("world").transform([(55.0, 33.0)]))
    np.testing.assert_allclose(drawn, [get_wcs(one).all_world2pix([[55.0, 33.0]], 0)[0]], atol=1e-6)
    np.testing.assert_allclose(drawn, [(519.0, 1019.0)], atol=1e-6)
    assert len(show(assign_wcs(stack(n=2), header()), ax="wcs")) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"stretch": "cube"}, "unknown stretch 'cube'; the stretches are linear"),
        ({"limits": "minmax"}, "two rising percentiles"),
        ({"limits": (99, 1)}, "two rising percentiles"),
        ({"limits": (0, 1000)}, "vmin= and vmax="),
        ({"vmin": 5, "vmax": 5}, "vmin must be below vmax"),
        ({"mask": image()}, "a mask is boolean, or integer bit planes"),
        ({"mask": True}, "need a Dataset with 'flags'"),
        ({"mask": xr.Dataset({"a": image()})}, "1 to 16 boolean variables; a is float32"),
        ({"mask": xr.Dataset()}, "boolean variables; this one has 0"),
        ({"catalogs": xr.Dataset({"x": ("source", [1.0])})}, "catalog has neither x_centroid"),
        ({"catalogs": {"mine": xr.Dataset({"mag": ("source", [1.0])})}}, "mine has neither .*its columns are mag"),
        ({"mask": (image() > 0).expand_dims(time=2)}, "the mask has dimensions"),
    ],
)
def test_unusable_options(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        show(image(), **arguments)


def test_styles_check_themselves() -> None:
    with pytest.raises(InputError, match="max_pixels is a whole number from 1 on, or None; got 0"):
        Style(max_pixels=0)


def test_keywords_count_before_the_style() -> None:
    style = Style("asinh", vmin=1.0, vmax=5.0, colorbar=False)
    drawn = show(image(), vmin=2.0, cmap="viridis", style=style).images[0]
    assert (drawn.norm.vmin, drawn.norm.vmax, drawn.cmap.name) == (2.0, 5.0, "viridis")
    assert type(drawn.norm.stretch).__name__ == "AsinhStretch"
    assert drawn.colorbar is None


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
    with pytest.raises(MissingWCSError):
        show(image(), ax="wcs")
    with pytest.raises(AlignmentError):
        show(image(), mask=(image() > 0).isel(x=slice(1, None)))


def test_importing_plot_imports_no_matplotlib() -> None:
    code = "import sys, ztfxr.plot; sys.exit('matplotlib' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


# planes


def flagged() -> xr.Dataset:
    """`saturated` in rows 10 to 14, `tracks` in columns 5 to 7, `sexsources` everywhere."""
    bits = np.full((NY, NX), planes_to_bits(["sexsources"]), np.uint16)
    bits[10:15] |= planes_to_bits(["saturated"])
    bits[:, 5:8] |= planes_to_bits(["tracks"])
    flags = (("y", "x"), bits, flag_attrs(MASK_PLANES))
    return image().to_dataset().assign(flags=flags)


def legend_of(figure: Any) -> dict[str, Any]:
    (legend,) = [*figure.legends, *(ax.get_legend() for ax in figure.axes if ax.get_legend())]
    return {text.get_text(): handle for text, handle in zip(legend.get_texts(), legend.legend_handles, strict=True)}


def test_planes_have_a_color_each_and_a_legend() -> None:
    ax = show(flagged(), mask=True)
    rgba = np.asarray(ax.images[1].get_array())
    entries = legend_of(ax.figure)
    assert list(entries) == ["tracks", "saturated"]
    track, star, both = rgba[0, 6], rgba[12, 0], rgba[12, 6]
    for seen, handle in ((track, entries["tracks"]), (star, entries["saturated"])):
        np.testing.assert_allclose(seen[:3] / 255, handle.get_facecolor()[:3], atol=0.003)
    np.testing.assert_allclose(both[:3], (track[:3].astype(float) + star[:3]) / 2, atol=1)
    assert not np.array_equal(track, star)
    assert np.array_equal(rgba[..., 3] > 0, (flagged().flags & planes_to_bits(RECOMMENDED_PLANES)).values > 0)


@pytest.mark.parametrize(
    "mask",
    [["saturated"], "saturated", xr.Dataset({"saturated": (flagged().flags & 256) > 0}), flagged().flags & 256],
    ids=["list", "name", "boolean planes", "bits"],
)
def test_planes_by_name_and_by_value(mask: Any) -> None:
    ax = show(flagged(), mask=mask)
    assert list(legend_of(ax.figure)) == ["saturated"]
    assert np.array_equal(np.asarray(ax.images[1].get_array())[..., 3] > 0, (flagged().flags & 256).values > 0)


def test_a_plane_keeps_its_color() -> None:
    alone, among = show(flagged(), mask="saturated"), show(flagged(), mask=["tracks", "saturated"])
    assert np.array_equal(alone.images[1].get_array()[12, 0], among.images[1].get_array()[12, 0])


def test_an_unknown_plane_is_named() -> None:
    with pytest.raises(InputError, match="unknown plane 'satured'; the planes are tracks"):
        show(flagged(), mask=["satured"])


def test_legend_of_given_axes_is_in_them() -> None:
    ax = plt.figure().add_subplot()
    show(flagged(), mask=True, ax=ax)
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["tracks", "saturated"]
    assert not ax.figure.legends
    ax.figure.canvas.draw()


# catalogs


def sources(**columns: Any) -> xr.Dataset:
    """Three sources on the image, one off it, one nowhere."""
    x, y = [510.0, 520.5, 540.0, 10.0, np.nan], [1005.0, 1020.0, 1030.0, 1010.0, 1010.0]
    data = {"x_centroid": x, "y_centroid": y} | columns
    return xr.Dataset({name: ("source", values) for name, values in data.items()})


def marks(ax: Any, name: str) -> Any:
    (line,) = [line for line in ax.lines if line.get_gid() == name]
    return np.stack([line.get_xdata(), line.get_ydata()], axis=-1)


def test_sources_are_marked_where_their_pixels_are() -> None:
    ax = show(image(), catalogs=sources())
    assert marks(ax, "catalog").tolist() == [[510.0, 1005.0], [520.5, 1020.0], [540.0, 1030.0]]
    assert list(legend_of(ax.figure)) == ["catalog (3)"]
    assert ax.get_xlim() == (499.5, 549.5)
    assert ax.get_ylim() == (999.5, 1039.5)


def test_catalogs_by_name_have_a_color_each() -> None:
    few = sources().isel(source=[0])
    for catalogs in ({"sep": sources(), "few": few}, xr.DataTree.from_dict({"sep": sources(), "few": few})):
        ax = show(image(), catalogs=catalogs)
        entries = legend_of(ax.figure)
        assert list(entries) == ["sep (3)", "few (1)"]
        assert len({handle.get_markeredgecolor() for handle in entries.values()}) == 2
        assert marks(ax, "few").tolist() == [[510.0, 1005.0]]


@pytest.mark.parametrize("kind", ["dataset", "table", "frame", "columns", "skycoord"])
def test_sky_positions_are_marked_by_the_wcs(kind: str) -> None:
    one = assign_wcs(image(), tpv_header())
    sky = pixel_to_sky(one, [510.0, 530.0], [1005.0, 1030.0])
    columns = {"ra": sky.ra.deg, "dec": sky.dec.deg}
    catalog = {
        "dataset": xr.Dataset({k: ("source", v) for k, v in columns.items()}),
        "table": Table(columns),
        "frame": pd.DataFrame(columns),
        "columns": columns,
        "skycoord": sky,
    }[kind]
    for options in ({}, {"ax": "wcs"}, {"style": Style(max_pixels=9)}):
        ax = show(one, catalogs=catalog, **options)
        np.testing.assert_allclose(marks(ax, "catalog"), [[510.0, 1005.0], [530.0, 1030.0]], atol=1e-5)
    with pytest.raises(MissingWCSError):
        show(image(), catalogs=catalog)


def test_shapes_are_ellipses_in_pixels() -> None:
    shape = {"semimajor_axis": [4.0, 2.0, np.nan, 1, 1], "semiminor_axis": [1.0, 2.0, 1.0, 1, 1]}
    ax = show(image(), catalogs=sources(**shape, orientation=[30.0, 0.0, 0.0, 0, 0]), cmap="gray", vmin=0, vmax=1e6)
    (ellipses,) = ax.collections
    assert marks(ax, "catalog").tolist() == [[540.0, 1030.0]]
    angle = np.deg2rad(30)
    outline = [(510 + r * np.cos(a), 1005 + r * np.sin(a)) for r, a in ((12, angle), (3, angle + np.pi / 2))]
    for place in outline:
        assert ellipse_near(ax, place), place
    assert not ellipse_near(ax, (510 + 12 * np.cos(-angle), 1005 + 12 * np.sin(-angle)))
    assert ellipses.get_offsets().tolist() == [[510.0, 1005.0], [520.5, 1020.0]]
    radians = sources(**shape, orientation=[np.pi / 6, 0, 0, 0, 0])
    radians["orientation"].attrs["units"] = "rad"
    assert ellipse_near(show(image(), catalogs=radians, cmap="gray", vmin=0, vmax=1e6), outline[0])


def ellipse_near(ax: Any, place: tuple[float, float]) -> bool:
    """Whether a colored line passes within two rendered pixels of a position on the black image."""
    ax.figure.canvas.draw()
    column, row = ax.transData.transform(place)
    rendered = np.asarray(ax.figure.canvas.buffer_rgba())[::-1].astype(int)
    near = rendered[int(row) - 2 : int(row) + 3, int(column) - 2 : int(column) + 3, :3]
    return bool((near.max(axis=-1) - near.min(axis=-1) > 60).any())


def test_an_image_with_its_catalogs_in_one_tree() -> None:
    tree = xr.DataTree.from_dict({"image": flagged(), "sep": sources(), "few": sources().isel(source=[1])})
    before = tree.copy(deep=True)
    ax = show(tree, mask="tracks", catalogs={"mine": sources().isel(source=[2])})
    assert list(legend_of(ax.figure)) == ["tracks", "sep (3)", "few (1)", "mine (1)"]
    xr.testing.assert_identical(tree, before)


def test_catalogs_of_a_stack_go_with_their_epochs() -> None:
    per_epoch = xr.Dataset(
        {k: (("time", "source"), [[v], [v + 1]]) for k, v in (("x_centroid", 510), ("y_centroid", 1010))}
    )
    axes = show(stack(n=2), catalogs={"each": per_epoch, "all": sources()})
    assert [marks(ax, "each").tolist() for ax in axes] == [[[510, 1010]], [[511, 1011]]]
    assert list(legend_of(axes[0].figure)) == ["each (2)", "all (6)"]


# several panels


def test_before_and_after_share_limits_and_axes() -> None:
    one, other = image(), image(1).assign_attrs(long_name="cleaned") - 20
    axes = show(one, compare=other, catalogs=sources())
    norms = [ax.images[0].norm for ax in axes]
    assert axes.shape == (2,)
    expected = ZScaleInterval().get_limits(np.concatenate([one.values.ravel(), other.values.ravel()]))
    for norm in norms:
        np.testing.assert_allclose((norm.vmin, norm.vmax), expected)
    axes[0].set_xlim(510, 520)
    assert axes[1].get_xlim() == (510, 520)
    assert all(len(marks(ax, "catalog")) == 3 for ax in axes)


def test_titles_of_a_comparison() -> None:
    one = image()
    twice = (one * 2).assign_attrs(long_name="twice the image")
    assert [ax.get_title() for ax in show(one, compare=twice)] == ["science image", "twice the image"]
    assert [ax.get_title() for ax in show(one, compare=one)] == ["before", "after"]
    axes = show(stack().isel(time=0), compare={"twice": one * 2, "thrice": one * 3})
    assert [ax.get_title() for ax in axes] == ["science image", "twice", "thrice"]
    assert axes[0].figure.get_suptitle() == "ztfr 2021-07-01 06:00"


def test_masks_lie_on_both_panels() -> None:
    axes = show(flagged(), compare=image(), mask="tracks")
    assert [np.asarray(ax.images[1].get_array())[0, 6, 3] > 0 for ax in axes] == [True, True]
    constant = xr.full_like(image(), 3.0)
    norm = show(constant, compare=constant)[1].images[0].norm
    assert norm.vmin < 3.0 < norm.vmax


def test_unusable_comparisons() -> None:
    with pytest.raises(AlignmentError):
        show(image(), compare=image().isel(x=slice(1, None)))
    with pytest.raises(InputError, match=r"one image .* a panel"):
        show(image(), compare=stack())
    with pytest.raises(InputError, match="makes its own panels"):
        show(image(), compare=image(), ax=plt.figure().add_subplot())
    with pytest.raises(InputError, match="select a node"):
        show(xr.DataTree.from_dict({"a": stack()}), compare=image())


def test_a_tree_has_a_panel_per_frame() -> None:
    data = stack()
    nodes = {f"frame{i}": data.isel(time=i, x=slice(i, None)) for i in range(3)}
    lost = xr.Dataset(attrs={"status": 4, "message": "cut off"})
    axes = show(xr.DataTree.from_dict(nodes | {"lost": lost}).chunk())
    assert [ax.get_title() for ax in axes] == [f"ztfr 2021-07-0{i + 1} 06:00" for i in range(3)]
    assert [ax.get_xlim()[0] for ax in axes] == [499.5, 500.5, 501.5]
    same = xr.DataTree.from_dict({"c13/q1": image().to_dataset(), "c13/q2": image().to_dataset()})
    assert [ax.get_title() for ax in show(same)] == ["c13/q1", "c13/q2"]
    with pytest.raises(InputError, match="no frame of the tree"):
        show(xr.DataTree.from_dict({"lost": lost}))
    many = xr.DataTree.from_dict({f"f{i}": image().to_dataset() for i in range(37)})
    with pytest.raises(InputError, match=r"37 images in the tree.*ztfxr.mosaic for quadrants"):
        show(many)


def test_titles_of_epochs_in_several_filters() -> None:
    data = stack(n=2).assign_coords(filter=("time", ["ztfg", "ztfr"]))
    axes = show(data)
    assert [ax.get_title() for ax in axes] == ["ztfg 2021-07-01 06:00", "ztfr 2021-07-02 06:00"]
    assert axes[0].figure.get_suptitle() == ""
    assert show(stack(n=2))[0].figure.get_suptitle() == "ztfr"


def test_many_stamps_have_their_own_pixels_and_crosses() -> None:
    cuts = stamps(image(), [(510.3, 1010.0), (530.0, 1020.75), (np.nan, np.nan)], 9)
    axes = show(cuts, catalogs=sources())
    assert tuple(axes[1].images[0].get_extent()) == (525.5, 534.5, 1016.5, 1025.5)
    assert np.array_equal(axes[1].images[0].get_array(), image().values[17:26, 26:35])
    crosses = [[line for line in ax.lines if line.get_gid() == "stamp"] for ax in axes]
    assert [len(lines) for lines in crosses] == [1, 1, 0]
    assert (crosses[0][0].get_xdata()[0], crosses[1][0].get_ydata()[0]) == (510.3, 1020.75)
    assert tuple(axes[2].images[0].get_extent()) == (-4.5, 4.5, -4.5, 4.5)
    assert [ax.get_title() for ax in axes] == ["source 0", "source 1", "source 2"]


# large images


def test_large_images_are_drawn_as_means() -> None:
    one = image()
    one[3:6, 3:6] = np.nan
    one[8, 8] = np.nan
    ax = show(one, style=Style(max_pixels=20))
    drawn = ax.images[0].get_array()
    assert drawn.shape == (14, 17)
    assert np.isnan(drawn.filled(np.nan)[1, 1])
    np.testing.assert_allclose(drawn[2, 2], np.nanmean(one[6:9, 6:9]), rtol=1e-6)
    assert tuple(ax.images[0].get_extent()) == (499.5, 550.5, 999.5, 1041.5)
    assert ax.get_xlim() == (499.5, 549.5)
    assert ax.images[0].colorbar.ax.get_ylabel() == "science image (DN), means of 3 × 3 pixels"
    assert show(one, style=Style(max_pixels=None)).images[0].get_array().shape == one.shape
    coarse = show(one.coarsen(x=2, y=2).mean(), style=Style(max_pixels=10))
    assert coarse.images[0].colorbar.ax.get_ylabel().endswith("means of 6 × 6 pixels")


@pytest.mark.parametrize("chunks", [None, {"y": 7, "x": 11}])
def test_a_lone_bad_pixel_of_a_large_image_is_seen(chunks: dict[str, int] | None) -> None:
    data = flagged()
    data.flags[30, 40] |= planes_to_bits(["dead"])
    data = data if chunks is None else data.chunk(chunks)
    ax = show(data, mask=["dead"], style=Style(max_pixels=10))
    veil = np.asarray(ax.images[1].get_array())[..., 3] > 0
    assert np.argwhere(veil).tolist() == [[6, 8]]
    assert tuple(ax.images[1].get_extent()) == tuple(ax.images[0].get_extent())


def test_real_quadrant_is_drawn_reduced(plain_quadrant_path: Path) -> None:
    data = open_quadrant(plain_quadrant_path)
    ax = show(data, mask=True, catalogs=SkyCoord(58.0, 35.75, unit="deg"))
    assert ax.images[0].get_array().shape == (1027, 1024)
    assert ax.get_xlim() == (-0.5, 3071.5)
    assert "spikes" in legend_of(ax.figure)
    assert data.sci.chunks == ((3080,), (3072,))


# mosaics and sky axes


def test_a_mosaic_is_drawn_with_north_up_and_east_right() -> None:
    """The view q2 | q1 over q3 | q4, whatever the bins."""
    frames = {}
    for qid in range(1, 5):
        pixels = np.full((40, 30), float(qid), np.float32)
        frames[f"q{qid}"] = xr.Dataset({"sci": (("y", "x"), pixels)}, {"ccdid": 4, "qid": qid})
    found = mosaic(xr.DataTree.from_dict(frames), rebin=4, shape=(40, 30))
    ax = show(found, cmap="gray", vmin=0, vmax=4)
    assert ax.get_xlim() == (59.5, -0.5)
    assert ax.get_ylim() == (79.5, -0.5)
    ax.figure.canvas.draw()
    rendered = np.asarray(ax.figure.canvas.buffer_rgba())
    box = ax.get_window_extent()
    rows = [rendered.shape[0] - 1 - int(box.y0 + f * box.height) for f in (0.75, 0.25)]
    columns = [int(box.x0 + f * box.width) for f in (0.25, 0.75)]
    gray = [[round(float(rendered[row, column, 0]) * 4 / 255) for column in columns] for row in rows]
    assert gray == [[2, 1], [3, 4]]


def test_ellipses_and_veils_follow_a_mosaic() -> None:
    pixels = np.zeros((40, 30), np.float32)
    frame = xr.Dataset({"sci": (("y", "x"), pixels)}, {"ccdid": 4, "qid": 1})
    found = mosaic(xr.DataTree.from_dict({"q1": frame}), rebin=1, shape=(40, 30))
    columns = {
        "x_centroid": 15.0,
        "y_centroid": 20.0,
        "semimajor_axis": 4.0,
        "semiminor_axis": 1.0,
        "orientation": 30.0,
    }
    catalog = xr.Dataset({k: ("source", [v]) for k, v in columns.items()})
    ax = show(found, catalogs=catalog, mask=found.isnull(), cmap="gray", vmin=-1e-3, vmax=1)
    assert ellipse_near(ax, (15 + 12 * np.cos(np.pi / 6), 20 + 12 * np.sin(np.pi / 6)))
    assert np.ptp(pixels_at(ax, 50, 60)[:3]) > 0.1


def test_veils_are_the_flags_own_planes() -> None:
    """Another survey's planes have their names and a color each, also those beyond bit 15."""
    flags = np.zeros((20, 20), np.int32)
    flags[5, 5], flags[8, 8], flags[2, 2] = 2, 32, 1 << 20
    attrs = {"flag_masks": [1, 2, 32, 1 << 20], "flag_meanings": "BPM SATURATE STAR LATE"}
    data = xr.Dataset({"sci": (("y", "x"), np.zeros((20, 20), "f4")), "flags": (("y", "x"), flags, attrs)})
    legend = [text.get_text() for text in show(data, mask=["SATURATE", "LATE"]).get_figure().legends[0].get_texts()]
    assert legend == ["SATURATE", "LATE"]
    with pytest.raises(InputError, match="does not know to be good or bad: BPM, SATURATE, STAR, LATE"):
        show(data, mask=True)
    data["flags"].attrs["bad_planes"] = "SATURATE STAR"
    for mask in (True, data["flags"]):
        texts = show(data, mask=mask).get_figure().legends[0].get_texts()
        assert [text.get_text() for text in texts] == ["SATURATE", "STAR"]
    with pytest.raises(InputError, match="unknown plane 'saturated'"):
        show(data, mask=["saturated"])


def tpv_header() -> fits.Header:
    """A distorted WCS like ZTF's."""
    cards = header()
    cards["CTYPE1"], cards["CTYPE2"] = "RA---TPV", "DEC--TPV"
    for axis, terms in ((1, {0: -5e-5, 1: 1.0001, 2: 1e-3, 4: 5e-2}), (2, {0: 4e-5, 1: 0.9999, 2: 2e-3, 5: 4e-2})):
        for number, value in terms.items():
            cards[f"PV{axis}_{number}"] = value
    return cards


def test_sky_axes_of_a_distorted_window() -> None:
    """The frame's own WCS, in absolute pixels, on a cut-out of it."""
    one = assign_wcs(image(), tpv_header()).isel(x=slice(20, 40), y=slice(10, 30))
    ax = show(one, ax="wcs")
    ax.figure.canvas.draw()
    assert ax.get_xlim() == (519.5, 539.5)
    drawn = ax.transData.inverted().transform(ax.get_transform("world").transform([(55.001, 33.002)]))
    np.testing.assert_allclose(drawn, [get_wcs(one).all_world2pix([[55.001, 33.002]], 0)[0]], atol=1e-5)
