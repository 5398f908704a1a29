"""The viewer without a browser: what it finds in an object, and what its page sends when something is chosen."""

from __future__ import annotations

import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from bokeh.document import Document

import ztfxr
from ztfxr.errors import InputError, MissingDependencyError
from ztfxr.testing import make_scene
from ztfxr.viewer.content import find_content
from ztfxr.viewer.document import Page
from ztfxr.viewer.words import harmless


@pytest.fixture(scope="module")
def tree() -> xr.DataTree:
    """Images of four epochs, their differences and light curves of two sources."""
    scene = make_scene((90, 80), n_epochs=4, n_stars=40, n_galaxies=0, n_variables=0, n_transients=0, seed=5)
    images, reference = scene.images.load(), scene.reference.load()
    diff = ztfxr.difference(images, reference, kernel_size=7).load()
    curve = ztfxr.aperture_photometry(diff, [(40.0, 45.0), (20.0, 30.0)], radius=4).load()
    curve["flux"][:, 1] += 1e4 * np.arange(4)
    curve["status"][2, 0] = 1
    return xr.DataTree.from_dict({"": None, "images": images, "reference": reference, "d": diff, "lightcurve": curve})


@pytest.fixture
def page(tree: xr.DataTree) -> Page:
    page = Page(find_content(tree, title="a <b>bold</b> $$x$$ title"))
    page(Document())
    return page


def source(page: Page, name: str) -> Any:
    return page._document.get_model_by_name(name).data


def test_a_tree_has_all_that_belongs_together(tree: xr.DataTree) -> None:
    content = find_content(tree)
    assert list(content.pictures) == ["science", "reference", "difference"]
    assert content.curve is not None
    assert content.kernels is not None
    assert len(content.times) == 4
    assert content.ranked().tolist() == [1, 0]
    rows = dict(content.describe(2, 0))
    assert rows["status"] == ztfxr.schema.STATUS_PLANES[0].name
    assert rows["epoch_status"] == "good"
    assert "kernel_sum" in rows


def test_the_first_view_shows_the_whole_images(page: Page, tree: xr.DataTree) -> None:
    sent = source(page, "science image")
    assert sent["image"][0].shape == (90, 80)
    np.testing.assert_allclose(sent["image"][0], tree["images"]["sci"].isel(time=0), rtol=1e-6)
    assert (sent["x"][0], sent["y"][0], sent["dw"][0], sent["dh"][0]) == (-0.5, -0.5, 80.0, 90.0)


def test_a_narrow_view_is_cut_in_absolute_pixels() -> None:
    image = xr.DataArray(
        np.arange(200 * 300.0).reshape(200, 300), {"y": np.arange(1000, 1200), "x": np.arange(500, 800)}, ("y", "x")
    )
    page = Page(find_content(image))
    page(Document())
    page.x_range.start, page.x_range.end = 599.5, 619.5
    page.y_range.start, page.y_range.end = 1099.5, 1119.5
    page.view()
    sent = source(page, "science image")
    assert (sent["x"][0], sent["y"][0]) == (594.5, 1094.5)
    np.testing.assert_array_equal(sent["image"][0], image.sel(x=slice(595, 624), y=slice(1095, 1124)))
    assert "x 600.00" in page.panels["science"].value(600, 1100)
    assert f"{float(image.sel(x=600, y=1100)):.6g}" in page.panels["science"].value(600.2, 1099.8)
    assert page.panels["science"].value(10, 10) == ""


def test_an_epoch_moves_everything_with_it(page: Page, tree: xr.DataTree) -> None:
    page.slider.value = 3
    assert page.epoch == 3
    np.testing.assert_allclose(source(page, "science image")["image"][0], tree["images"]["sci"][3], rtol=1e-6)
    np.testing.assert_allclose(source(page, "difference image")["image"][0], tree["d"]["difference"][3], rtol=1e-5)
    np.testing.assert_allclose(source(page, "kernel stamp")["image"][0].sum(), tree["d"]["kernel_sum"][3], rtol=0.1)


def test_a_point_of_the_light_curve_brings_its_triplet(page: Page, tree: xr.DataTree) -> None:
    page.choose(0, 0)
    points = page._document.get_model_by_name("points")
    row = int(np.flatnonzero(np.asarray(points.data["epoch"]) == 2)[0])
    points.selected.indices = [row]
    assert page.slider.value == 2
    assert source(page, "chosen")["flux"][0] == pytest.approx(float(tree["lightcurve"]["flux"][2, 0]))
    stamp = source(page, "science stamp")["image"][0]
    assert stamp.shape == (65, 65)
    assert stamp[32, 32] == pytest.approx(float(tree["images"]["sci"][2, 45, 40]), rel=1e-6)
    assert points.data["color"][row] == "#999999"
    assert ztfxr.schema.STATUS_PLANES[0].name in page._document.get_model_by_name("words").text


def test_a_source_is_chosen_in_the_image_or_in_the_table(page: Page, tree: xr.DataTree) -> None:
    page._document.get_model_by_name("sources").selected.indices = [0]
    assert page.source == 0
    page._document.get_model_by_name("table").selected.indices = [0]
    assert page.source == 1
    np.testing.assert_allclose(source(page, "points")["flux"], tree["lightcurve"]["flux"][:, 1])


def test_planes_are_laid_over_the_image() -> None:
    sample = ztfxr.open_quadrant(ztfxr.samples.sample_path())
    page = Page(find_content(sample))
    page(Document())
    assert source(page, "science planes")["image"] == []
    page._document.get_model_by_name("planes").value = ["ghost", "sexsources"]
    veil = source(page, "science planes")["image"][0]
    flags = sample["flags"].values
    wanted = (flags & sum(p.value for p in ztfxr.schema.MASK_PLANES if p.name in ("ghost", "sexsources"))) != 0
    np.testing.assert_array_equal(veil != 0, wanted)


def test_text_of_files_stays_text(page: Page) -> None:
    assert "<b>bold</b>" not in page._document.get_model_by_name("page").children[0].children[0].children[0].text
    assert page._document.title == "a <b>bold</b>  x  title"
    assert harmless(r"\(x\) $$y$$ \[z\]").replace(" ", "") == "xyz"


def test_a_run_and_a_lone_light_curve(tree: xr.DataTree, tmp_path: Path) -> None:
    ztfxr.to_zarr(tree, tmp_path / "run.zarr")
    assert list(find_content(tmp_path / "run.zarr").pictures) == ["science", "reference", "difference"]
    lone = tree["lightcurve"].to_dataset().isel(source=0)
    content = find_content(lone)
    assert content.points(0)["flux"].shape == (4,)
    page = Page(content)
    page(Document())
    assert page.panels == {}
    late = lone.assign_coords(time=("time", np.array(["NaT"] + ["2020-01-01"] * 3, dtype="M8[ns]"))).drop_vars("mjd")
    assert find_content(late).points(0)["epoch"].tolist() == [1, 2, 3]


def test_the_frames_of_a_run_are_shown_where_they_are(tmp_path: Path) -> None:
    """The first is damaged, the second is gone, the third is whole."""
    sample = Path(ztfxr.samples.sample_path())
    mask = sample.with_name(sample.name.replace("sciimg", "mskimg"))
    for path in (sample, mask):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "a_sciimg.fits").write_bytes(b"SIMPLE  = nothing")
    paths = [str(tmp_path / n) for n in ("a_sciimg.fits", "gone_sciimg.fits", sample.name)]
    time = np.array(["2020-01-01", "2020-01-02", "2020-01-03"], dtype="M8[ns]")
    epochs = xr.Dataset({"epoch_status": ("time", np.zeros(3, np.uint32))}, {"time": time, "path": ("time", paths)})
    whole = ztfxr.open_quadrant(sample)["sci"]
    curve = xr.Dataset({k: (("time", "source"), np.ones((3, 1))) for k in ("flux", "flux_err")}, {"time": time})
    curve = curve.assign_coords(
        ra=("source", [float(whole.ra[150, 160])]), dec=("source", [float(whole.dec[150, 160])])
    )
    content = find_content(xr.DataTree.from_dict({"epochs": epochs, "lightcurve": curve}))
    science = content.pictures["science"]
    assert np.isnan(science.pixels(0).image).all()
    assert np.isnan(science.pixels(1).image).all()
    np.testing.assert_allclose(science.pixels(2).image, whole, rtol=1e-6)
    assert science.sky(*science.origin, 0) is None
    assert content.place(science, 2, 0) == pytest.approx((float(whole.x[160]), float(whole.y[150])), abs=1e-3)
    page = Page(content)
    page(Document())
    page.choose(2, 0)
    assert source(page, "science stamp")["image"][0][32, 32] == pytest.approx(float(whole[150, 160]), rel=1e-6)


@pytest.mark.parametrize(
    "obj",
    [
        xr.Dataset({"a": ("n", [1.0])}),
        xr.DataTree(),
        xr.DataArray(np.zeros((2, 2, 3, 3)), dims=("a", "time", "y", "x")),
    ],
)
def test_what_cannot_be_viewed_is_named(obj: Any) -> None:
    with pytest.raises(InputError):
        find_content(obj)


def test_without_bokeh_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "bokeh", None)
    with pytest.raises(MissingDependencyError, match=r'pip install "ztfxr\[viewer\]"'):
        ztfxr.view(np.zeros(3))  # type: ignore[arg-type]


def test_it_is_served_under_its_token_alone() -> None:
    image = xr.DataArray(np.zeros((20, 20)), dims=("y", "x"))
    with ztfxr.view(image, browser=False) as viewer:  # type: ignore[union-attr]
        assert viewer.url.startswith("http://127.0.0.1:")
        with urllib.request.urlopen(viewer.url, timeout=20) as answer:
            page = answer.read().decode()
        assert "bokeh" in page
        assert "cdn." not in page
        root = viewer.url.rpartition("/")[0]
        for other in ("/", "/index", "/" + "a" * 22):
            with pytest.raises(urllib.error.HTTPError, match="404"):
                urllib.request.urlopen(root + other, timeout=20)
        port = int(root.rpartition(":")[2])
        with pytest.raises(InputError, match="cannot be served"):
            ztfxr.view(image, browser=False, port=port)
    viewer.stop()


def test_pictures_do_not_fill_the_memory() -> None:
    long = xr.DataArray(np.zeros((40, 8, 8), dtype="f4"), dims=("time", "y", "x"))
    content = find_content(long)
    for epoch in range(40):
        content.pictures["science"].pixels(epoch)
    assert len(content.pictures["science"]._kept) <= 12
