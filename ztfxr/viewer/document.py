"""One page of the viewer: linked images, a light curve, and what belongs to the point that is chosen.

The browser has only the part of an image that it shows, as real values; it is sent anew, 40 ms after the view moves,
from means of blocks of pixels where the view is wide. Stretch and limits are the browser's own.
"""

from __future__ import annotations

import html
from typing import Any

import numpy as np

from ztfxr.arrays.statistics import mad_std
from ztfxr.errors import ZtfxrError
from ztfxr.plot.images import find_limits
from ztfxr.plot.overlays import layer_colors
from ztfxr.viewer.content import Content, Picture
from ztfxr.viewer.curves import Curves
from ztfxr.viewer.words import harmless, when_changed
from ztfxr.wcs import has_wcs, sky_to_pixel

__all__ = ["Page"]

_SIDES, _DELAY = (860, 600, 430), 40
"""Screen pixels along a panel where there are one, two, three of them; milliseconds from a move to what it shows."""
_PALETTES = ("Greys256", "Viridis256", "Cividis256", "Inferno256")
_STRETCHES = ("linear", "asinh", "sqrt", "log")
_ALPHA = 110
_MOST_MARKS = 2000


def stretched(palette: tuple[str, ...], stretch: str) -> list[str]:
    """The colors of a palette at the values of a stretch: linear limits with these colors show the image so."""
    t = np.linspace(0.0, 1.0, 1024)
    shape = {
        "linear": t,
        "asinh": np.arcsinh(20 * t) / np.arcsinh(20),
        "sqrt": np.sqrt(t),
        "log": np.log1p(1000 * t) / np.log(1001),
    }[stretch]
    return [palette[i] for i in np.round(shape * (len(palette) - 1)).astype(int)]


class Panel:
    """One image: its figure, and the part of it that the browser has."""

    def __init__(self, picture: Picture, ranges: tuple[Any, Any], mapper: Any, side: int) -> None:
        from bokeh.models import ColumnDataSource
        from bokeh.plotting import figure

        self.picture, self.epoch, self.side = picture, 0, side
        self.shown: tuple[Any, ...] = ()
        self.figure = figure(
            width=side, height=side, x_range=ranges[0], y_range=ranges[1], name=picture.name, title=picture.name,
            tools="pan,wheel_zoom,box_zoom,reset,save", active_scroll="wheel_zoom", match_aspect=True,
        )  # fmt: skip
        self.figure.xaxis.axis_label, self.figure.yaxis.axis_label = "x (pixel)", "y (pixel)"
        self.image, self.veil = (ColumnDataSource(_nothing(), name=f"{picture.name} {k}") for k in ("image", "planes"))
        place = {"x": "x", "y": "y", "dw": "dw", "dh": "dh"}
        self.figure.image("image", source=self.image, color_mapper=mapper, **place)
        self.figure.image_rgba("image", source=self.veil, **place)
        self.planes: list[str] = []

    def show(self, x: tuple[float, float], y: tuple[float, float]) -> None:
        """Send what a view of these absolute pixels needs."""
        left, low = self.picture.origin
        local = (x[0] - left, x[1] - left), (y[0] - low, y[1] - low)
        pyramid = self.picture.pixels(self.epoch)
        cut = pyramid.cut(*local, pixels=self.side)
        key = (self.epoch, cut.x, cut.y, cut.values.shape, cut.factor, *self.planes)
        if key == self.shown:
            return
        self.shown = key
        if cut.values.size == 0:
            self.image.data = self.veil.data = _nothing()
            return
        where = {"x": [cut.x + left], "y": [cut.y + low], "dw": [cut.width], "dh": [cut.height]}
        self.image.data = {"image": [cut.values], **where}
        bits = self.picture.flags(self.epoch) if self.planes else None
        if bits is None:
            self.veil.data = _nothing()
            return
        under = bits.cut(*local, pixels=self.side)
        self.veil.data = {"image": [self.colored(under.values)], **where}

    def colored(self, bits: Any) -> Any:
        """The chosen planes as colors over the image, the first of them uppermost."""
        from matplotlib.colors import to_rgb

        colors = layer_colors(self.picture.planes)
        out = np.zeros(bits.shape, dtype=np.uint32)
        view = out.view(np.uint8).reshape(*bits.shape, 4)
        for name in reversed(self.planes):
            on = (bits & self.picture.planes[name]) != 0
            view[on] = (*(round(255 * c) for c in to_rgb(colors[name])), _ALPHA)
        return out

    def limits(self) -> tuple[float, float]:
        """Limits of gray for the whole image: zscale, or five robust standard deviations about 0 for a difference."""
        pyramid = self.picture.pixels(self.epoch)
        height, width = pyramid.image.shape
        values = pyramid.cut((0, width), (0, height), pixels=max(height, width) // 2).values
        low, high = find_limits(values, "zscale")
        if self.picture.name == "difference":
            finite = pyramid.image[np.isfinite(pyramid.image)]
            high = 5 * mad_std(finite) if finite.size else 1.0
            low = -high
        return (low, high) if high > low else (low - 1.0, low + 1.0)

    def value(self, x: float, y: float) -> str:
        """What is under the cursor."""
        left, low = self.picture.origin
        column, row = int(np.floor(x - left + 0.5)), int(np.floor(y - low + 0.5))
        pixels = self.picture.pixels(self.epoch).image
        if not (0 <= row < pixels.shape[0] and 0 <= column < pixels.shape[1]):
            return ""
        parts = [f"x {x:.2f}  y {y:.2f}", f"{pixels[row, column]:.6g} {self.picture.image.attrs.get('units', '')}"]
        sky = self.picture.sky(x, y, self.epoch)
        if sky is not None:
            parts.append(f"RA {sky[0]:.6f}  Dec {sky[1]:+.6f}")
        bits = self.picture.flags(self.epoch)
        if bits is not None:
            set_here = [n for n, v in self.picture.planes.items() if int(bits.image[row, column]) & v]
            parts.append(", ".join(set_here))
        return "   ".join(p for p in parts if p)


def _nothing() -> dict[str, list[Any]]:
    return {"image": [], "x": [], "y": [], "dw": [], "dh": []}


class Page:
    """The document of one browser tab."""

    def __init__(self, content: Content) -> None:
        from bokeh.models import ColumnDataSource, Range1d

        self.content, self.epoch, self.source = content, 0, 0
        x, y = _extent(content)
        self.x_range, self.y_range = Range1d(*x, name="x"), Range1d(*y, name="y")
        self.panels, self.mappers = self._panels()
        self.curves = Curves(content, self.choose) if content.curve is not None else None
        self.marks = ColumnDataSource({"x": [], "y": [], "name": []}, name="sources")
        self._pending: Any = None
        self._document: Any = None

    def _panels(self) -> tuple[dict[str, Panel], dict[str, Any]]:
        from bokeh.models import LinearColorMapper
        from bokeh.palettes import Greys256

        colors = tuple(reversed(Greys256))
        mappers = {
            name: LinearColorMapper(
                stretched(colors, "asinh" if name != "difference" else "linear"), name=f"{name} map"
            )
            for name in self.content.pictures
        }
        ranges = self.x_range, self.y_range
        side = _SIDES[max(len(mappers), 1) - 1]
        panels = {name: Panel(p, ranges, mappers[name], side) for name, p in self.content.pictures.items()}
        return panels, mappers

    # ---- what changes -----------------------------------------------------------------------------------------------

    def view(self) -> None:
        """Send all panels what they show now."""
        x, y = ((float(r.start), float(r.end)) for r in (self.x_range, self.y_range))
        for panel in self.panels.values():
            panel.show(x, y)

    def moved(self) -> None:
        """Send it soon: a drag moves the view many times."""
        if self._document is None or self._pending is not None:
            return

        def later() -> None:
            self._pending = None
            self.view()

        self._pending = self._document.add_timeout_callback(later, _DELAY)

    def choose(self, epoch: int, source: int | None = None) -> None:
        """Go to an epoch, and to a source where one is named."""
        self.epoch = epoch
        if source is not None:
            self.source = source
        for panel in self.panels.values():
            own = self.content.epoch_of(panel.picture, epoch)
            if own is not None:
                panel.epoch = own
            when = "" if own is not None else " (no image of this epoch)"
            panel.figure.title.text = harmless(f"{panel.picture.name}{when}")
        self.view()
        if self.slider is not None and self.slider.value != epoch:
            self.slider.value = epoch
        if self.curves is not None:
            self.curves.show(epoch, self.source)

    # ---- the page ---------------------------------------------------------------------------------------------------

    def __call__(self, document: Any) -> None:
        """Fill a document of Bokeh's."""
        from bokeh.layouts import column, row

        self._document = document
        document.title = harmless(self.content.title)
        for name, panel in self.panels.items():
            self.mappers[name].low, self.mappers[name].high = panel.limits()
        parts = (
            [self._controls(), row(*(p.figure for p in self.panels.values()))] if self.panels else [self._controls()]
        )
        if self.curves is not None:
            parts.append(self.curves.layout())
        self._mark()
        for side in (self.x_range, self.y_range):
            when_changed(side, "start", lambda _: self.moved())
            when_changed(side, "end", lambda _: self.moved())
        document.add_root(column(*parts, name="page"))
        self.choose(0, int(self.content.ranked()[0]) if len(self.content.ranked()) else 0)

    def _controls(self) -> Any:
        from bokeh.layouts import column, row
        from bokeh.models import Div

        n = len(self.content.times)
        self.slider = self._slider(n) if n > 1 else None
        self.readout = Div(text="", name="readout", width=2 * _SIDES[1], disable_math=True)
        title = Div(text=f"<b>{html.escape(harmless(self.content.title))}</b>", disable_math=True)
        for panel in self.panels.values():
            panel.figure.on_event("mousemove", self._pointed(panel))
        first = [title] + ([self.slider] if self.slider is not None else [])
        return column(row(*first, *self._appearance()), self.readout)

    def _slider(self, n: int) -> Any:
        from bokeh.models import Slider

        slider = Slider(start=0, end=n - 1, value=0, step=1, title="epoch", name="epoch", width=300)
        when_changed(slider, "value", lambda new: self.choose(int(new)) if int(new) != self.epoch else None)
        return slider

    def _appearance(self) -> list[Any]:
        from bokeh.models import CheckboxButtonGroup, MultiChoice, RangeSlider, Select

        if not self.panels:
            return []
        out: list[Any] = []
        first = next(iter(self.panels))
        low, high = self.mappers[first].low, self.mappers[first].high
        room = high - low
        limits = RangeSlider(
            title=f"limits of {first}", name="limits", value=(low, high), format="0.[000]", width=300,
            start=low - 2 * room, end=high + 10 * room, step=room / 200,
        )  # fmt: skip
        mapper = self.mappers[first]
        limits.js_link("value", mapper, "low", attr_selector=0)
        limits.js_link("value", mapper, "high", attr_selector=1)
        if {"science", "reference"} <= set(self.mappers):
            for name, index in (("low", 0), ("high", 1)):
                limits.js_link("value", self.mappers["reference"], name, attr_selector=index)
        stretch = Select(title="stretch", value="asinh", options=list(_STRETCHES), width=90, name="stretch")
        palette = Select(title="colors", value=_PALETTES[0], options=list(_PALETTES), width=110, name="palette")

        def recolor(*_: Any) -> None:
            for name, one in self.mappers.items():
                one.palette = stretched(_palette(palette.value), stretch.value if name != "difference" else "linear")

        for select in (stretch, palette):
            when_changed(select, "value", recolor)
        out += [limits, stretch, palette]
        planes = sorted({n for p in self.panels.values() for n in p.picture.planes})
        if planes:
            choice = MultiChoice(title="mask planes", options=planes, value=[], width=260, name="planes")
            when_changed(choice, "value", self.show_planes)
            out.append(choice)
        if {"science", "reference"} <= set(self.panels):
            blink = CheckboxButtonGroup(labels=["blink"], active=[], name="blink")
            blink.js_on_change("active", self._blinking())
            out.append(blink)
        return out

    def _blinking(self) -> Any:
        """In the browser: the reference over the science image, on and off, without a word to the server."""
        from bokeh.models import CustomJS

        science, reference = self.panels["science"], self.panels["reference"]
        over = science.figure.image(
            "image", source=reference.image, color_mapper=self.mappers["reference"], x="x", y="y", dw="dw", dh="dh",
            visible=False, name="blinking",
        )  # fmt: skip
        code = """
            if (window.ztfxr_blink) { clearInterval(window.ztfxr_blink); window.ztfxr_blink = null }
            over.visible = false
            if (cb_obj.active.length) window.ztfxr_blink = setInterval(() => { over.visible = !over.visible }, 600)
        """
        return CustomJS(args={"over": over}, code=code)

    def show_planes(self, names: list[str]) -> None:
        """Lay these mask planes over the images."""
        for panel in self.panels.values():
            panel.planes = [n for n in names if n in panel.picture.planes]
        self.view()

    def _pointed(self, panel: Panel) -> Any:
        def at(event: Any) -> None:
            try:
                text = panel.value(float(event.x), float(event.y))
            except (ZtfxrError, TypeError, ValueError):
                text = ""
            self.readout.text = html.escape(harmless(f"{panel.picture.name}   {text}" if text else ""))

        return at

    def _mark(self) -> None:
        """The sources of the light curve, which can be clicked, and the catalogs."""
        from bokeh.models import TapTool

        places = self.content.places()
        colors = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")
        for panel in self.panels.values():
            for (name, catalog), color in zip(self.content.catalogs.items(), colors * 9, strict=False):
                x, y = _catalog_places(catalog, panel.picture)
                panel.figure.scatter(x, y, marker="circle", size=12, fill_alpha=0.0, line_color=color, name=name)
            if places is None:
                continue
            self.marks.data = {"x": places[0], "y": places[1], "name": [str(i) for i in range(len(places[0]))]}
            drawn = panel.figure.scatter(
                "x", "y", source=self.marks, marker="square", size=16, fill_alpha=0.0, line_color="#e69f00"
            )
            panel.figure.add_tools(TapTool(renderers=[drawn]))
        when_changed(self.marks.selected, "indices", self._picked)

    def _picked(self, rows: list[int]) -> None:
        if rows:
            self.choose(self.epoch, int(rows[0]))


def _palette(name: str) -> tuple[str, ...]:
    from bokeh import palettes

    colors = tuple(getattr(palettes, name))
    return tuple(reversed(colors)) if name == "Greys256" else colors


def _extent(content: Content) -> tuple[tuple[float, float], tuple[float, float]]:
    """The first image's edges in absolute pixels, as a square."""
    for picture in content.pictures.values():
        left, low = picture.origin
        side = max(picture.image.sizes["x"], picture.image.sizes["y"])
        return (left - 0.5, left - 0.5 + side), (low - 0.5, low - 0.5 + side)
    return (0.0, 1.0), (0.0, 1.0)


def _catalog_places(catalog: Any, picture: Picture) -> tuple[Any, Any]:
    """Places of the brightest of a catalog on a picture."""
    image = picture.frame(0)
    if image is not None and {"ra", "dec"} <= set(catalog.variables) and has_wcs(image):
        x, y = sky_to_pixel(image, ra=catalog["ra"].values, dec=catalog["dec"].values)
    elif {"x", "y"} <= set(catalog.variables):
        x, y = catalog["x"].values, catalog["y"].values
    else:
        return np.zeros(0), np.zeros(0)
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    order = np.argsort(catalog["mag"].values) if "mag" in catalog else np.arange(len(x))
    kept = order[np.isfinite(x[order]) & np.isfinite(y[order])][:_MOST_MARKS]
    return x[kept], y[kept]
