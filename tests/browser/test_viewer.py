"""The viewer in a real browser: needs Chromium and `pip install playwright`; `.ci/run` has both."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import xarray as xr

import ztfxr
from ztfxr.testing import make_scene
from ztfxr.viewer.content import find_content
from ztfxr.viewer.words import harmless

playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
HOSTILE = "<img src=http://192.0.2.1/x> $$x$$ <script>document.title='taken'</script>"
IDLE = "() => window.Bokeh && Bokeh.documents.length && Bokeh.documents[0].is_idle"

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")


@pytest.fixture(scope="module")
def tree() -> xr.DataTree:
    scene = make_scene((120, 110), n_epochs=3, n_stars=60, n_galaxies=0, n_variables=0, n_transients=0, seed=4)
    images, reference = scene.images.load(), scene.reference.load()
    bits = np.zeros((3, 120, 110), dtype=np.uint16)
    bits[:, 60:64, 50:54] = 1 << 2
    images["flags"] = (("time", "y", "x"), bits)
    diff = ztfxr.difference(images, reference, kernel_size=7).load()
    curve = ztfxr.aperture_photometry(diff, [(40.0, 45.0), (70.0, 80.0)], radius=4).load()
    curve = curve.assign_coords(message=("time", [HOSTILE] * 3))
    return xr.DataTree.from_dict({"images": images, "reference": reference, "d": diff, "lightcurve": curve})


@pytest.fixture(scope="module")
def page(tree: xr.DataTree) -> Iterator[Any]:
    """A page of the viewer, with all that it asked for and complained of."""
    viewer = ztfxr.view(tree, browser=False, title=HOSTILE)
    assert viewer is not None
    with viewer, playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": 1500, "height": 1250})
        page.asked, page.errors = [], []
        page.on("request", lambda r: page.asked.append(r.url))
        page.on("console", lambda m: page.errors.append(m.text) if m.type == "error" else None)
        page.goto(viewer.url)
        page.wait_for_function(IDLE, timeout=60000)
        yield page
        outside = [u for u in page.asked if not u.startswith(("http://127.0.0.1", "ws://127.0.0.1", "data:", "blob:"))]
        assert outside == []
        assert page.errors == []
        browser.close()


def model(page: Any, name: str, field: str) -> Any:
    return page.evaluate(f"() => Bokeh.documents[0].get_model_by_name({name!r}).{field}")


def pixels(page: Any, name: str) -> np.ndarray[Any, Any]:
    """The image that the browser holds."""
    code = f"() => {{const i = Bokeh.documents[0].get_model_by_name({name!r}).data.image[0]; return [i.shape, [...i]]}}"
    shape, values = page.evaluate(code)
    return np.array([np.nan if v is None else v for v in values], dtype=float).reshape(shape)


def settle(page: Any, condition: str) -> None:
    page.wait_for_function(f"() => {{const d = Bokeh.documents[0]; return d.is_idle && ({condition})}}", timeout=20000)


def test_the_browser_has_the_pixels(page: Any, tree: xr.DataTree) -> None:
    np.testing.assert_allclose(pixels(page, "science image"), tree["images"]["sci"][0], rtol=1e-6)


def test_zooming_brings_the_pixels_of_the_view(page: Any, tree: xr.DataTree) -> None:
    for axis, low in (("x", 30), ("y", 40)):
        page.evaluate(f"() => Bokeh.documents[0].get_model_by_name('{axis}').setv({{start: {low}, end: {low + 20}}})")
    settle(page, "d.get_model_by_name('science image').data.dw[0] <= 31")
    x, y = model(page, "science image", "data.x[0]"), model(page, "science image", "data.y[0]")
    found = pixels(page, "science image")
    rows, columns = (slice(int(v + 0.5), int(v + 0.5) + n) for v, n in zip((y, x), found.shape, strict=True))
    np.testing.assert_allclose(found, tree["images"]["sci"][0, rows, columns], rtol=1e-6)


def test_an_epoch_moves_and_a_plane_is_seen(page: Any, tree: xr.DataTree) -> None:
    for axis, n in (("x", 110), ("y", 120)):
        page.evaluate(f"() => Bokeh.documents[0].get_model_by_name('{axis}').setv({{start: -0.5, end: {n - 0.5}}})")
    page.evaluate("() => { Bokeh.documents[0].get_model_by_name('epoch').value = 2 }")
    settle(page, "d.get_model_by_name('epoch').value == 2 && d.get_model_by_name('science image').data.dw[0] == 110")
    page.wait_for_timeout(500)
    np.testing.assert_allclose(pixels(page, "science image"), tree["images"]["sci"][2], rtol=1e-6)
    plane = ztfxr.mask_planes(tree["images"]["flags"][0]).data_vars
    name = next(str(k) for k, v in plane.items() if bool(v.any()))
    page.evaluate(f"() => {{ Bokeh.documents[0].get_model_by_name('planes').value = [{name!r}] }}")
    settle(page, "d.get_model_by_name('science planes').data.image.length == 1")
    np.testing.assert_array_equal(pixels(page, "science planes") != 0, tree["images"]["flags"][0] != 0)


def test_a_click_on_a_point_brings_its_triplet(page: Any, tree: xr.DataTree) -> None:
    """A real click of the mouse at the place where the browser draws the second epoch."""
    place = page.evaluate(
        """() => {
            const d = Bokeh.documents[0], f = d.get_model_by_name('light curve'), p = d.get_model_by_name('points').data
            const find = (v) => { if (v.model === f) return v; for (const c of v.child_views ?? []) {
                const r = find(c); if (r) return r } return null }
            let v = null
            for (const root of Bokeh.index.roots ?? Object.values(Bokeh.index)) { v = v ?? find(root) }
            const box = v.el.getBoundingClientRect()
            const i = [...p.epoch].indexOf(1)
            return [box.x + v.frame.x_scale.compute(p.mjd[i]), box.y + v.frame.y_scale.compute(p.flux[i])]
        }"""
    )
    page.mouse.click(*place)
    settle(page, "d.get_model_by_name('epoch').value == 1")
    page.wait_for_timeout(500)
    source = int(find_content(tree).ranked()[0])
    row, column = ((45, 40), (80, 70))[source]
    stamps = [pixels(page, f"{name} stamp")[32, 32] for name in ("science", "reference", "difference")]
    images = (tree["images"]["sci"][1], tree["reference"]["sci"], tree["d"]["difference"][1])
    np.testing.assert_allclose(stamps, [float(i[row, column]) for i in images], rtol=1e-5)


def test_a_star_is_drawn_where_it_is(page: Any, tree: xr.DataTree) -> None:
    """The center of light of the drawn image, by the browser's own numbers, is the centroid in pixels."""
    image = tree["images"]["sci"][1].values.astype(float)
    row, column = np.unravel_index(np.argmax(image[20:-20, 20:-20]), (80, 70))
    row, column = int(row) + 20, int(column) + 20
    part = np.s_[row - 5 : row + 6, column - 5 : column + 6]
    drawn = pixels(page, "science image")[part] - np.median(image)
    step = model(page, "science image", "data.dw[0]") / image.shape[1]
    left = model(page, "science image", "data.x[0]")
    x = left + (np.arange(column - 5, column + 6) + 0.5) * step
    ours = (drawn.sum(axis=0) * x).sum() / drawn.sum()
    own = ((image[part] - np.median(image)).sum(axis=0) * np.arange(column - 5, column + 6)).sum()
    assert ours == pytest.approx(own / (image[part] - np.median(image)).sum(), abs=0.1)


def test_hostile_text_stays_text(page: Any) -> None:
    assert page.title().split() == harmless(HOSTILE).split()
    assert page.evaluate("() => document.querySelectorAll('img[src*=\"192.0.2.1\"]').length") == 0
    assert model(page, "words", "text").count("<script>") == 0
