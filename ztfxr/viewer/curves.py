"""The light curve of the viewer, the table of its sources, and the pictures and words behind a point."""

from __future__ import annotations

import html
from collections.abc import Callable
from typing import Any

import numpy as np

from ztfxr.arrays.types import Images
from ztfxr.plot.images import find_limits
from ztfxr.schema import plane_names
from ztfxr.viewer.content import Content, Picture
from ztfxr.viewer.words import harmless, when_changed

__all__ = ["Curves"]

_WIDTH, _HEIGHT, _STAMP, _THUMB = 640, 300, 65, 190
_FILTER_COLORS = {"ztfg": "#009e73", "ztfr": "#d55e00", "ztfi": "#882255"}
_OTHER_COLORS = ("#0072b2", "#cc79a7", "#56b4e9", "#e69f00")
_FLAGGED = "#999999"
_DETECTED = 3.0


class Curves:
    """A light curve and what belongs to it; `choose` is told the epoch, or the epoch and source, that is clicked."""

    def __init__(self, content: Content, choose: Callable[..., None]) -> None:
        from bokeh.models import ColumnDataSource

        self.content, self.choose = content, choose
        self.source, self.epoch = -1, -1
        self.points = ColumnDataSource({}, name="points")
        self.bars = ColumnDataSource({"x": [], "y": []})
        self.chosen = ColumnDataSource({"mjd": [], "flux": []}, name="chosen")
        self.thumbs = {name: self._thumb(name) for name in self._thumb_names()}
        self._silent = False

    def _thumb_names(self) -> list[str]:
        names = list(self.content.pictures)
        if self.content.stamps is not None and "difference" not in names:
            names.append("difference")
        return names + (["kernel"] if self.content.kernels is not None else [])

    def _thumb(self, name: str) -> tuple[Any, Any, Any]:
        from bokeh.models import ColumnDataSource, LinearColorMapper
        from bokeh.palettes import Greys256, RdBu11
        from bokeh.plotting import figure

        data = ColumnDataSource({"image": [], "dw": [], "dh": [], "x": [], "y": []}, name=f"{name} stamp")
        signed = name in ("difference", "kernel")
        mapper = LinearColorMapper(list(reversed(RdBu11)) if signed else list(reversed(Greys256)))
        drawn = figure(width=_THUMB, height=_THUMB + 20, tools="save", title=name, name=f"{name} thumb")
        drawn.image("image", source=data, x="x", y="y", dw="dw", dh="dh", color_mapper=mapper)
        drawn.axis.visible = drawn.grid.visible = False
        return drawn, data, mapper

    # ---- what is chosen ---------------------------------------------------------------------------------------------

    def show(self, epoch: int, source: int) -> None:
        """The light curve of a source, and the epoch among its points."""
        if source != self.source:
            self.source = source
            self._draw(source)
        self.epoch = epoch
        row = np.flatnonzero(np.asarray(self.points.data.get("epoch", [])) == epoch)
        self.chosen.data = {k: np.asarray(self.points.data[k])[row] for k in ("mjd", "flux")}
        for name in self.thumbs:
            self._show_thumb(name, epoch, source)
        self.words.text = _table(self.content.describe(epoch, source))

    def _draw(self, source: int) -> None:
        rows = self.content.points(source)
        flux, err = np.asarray(rows["flux"], dtype=float), np.asarray(rows["flux_err"], dtype=float)
        bands = rows.get("filter", np.full(flux.shape, "flux"))
        colors = _colors(bands)
        flagged = np.asarray(rows["status"]).astype(np.int64) != 0
        self.points.data = {
            "mjd": rows["mjd"],
            "flux": flux,
            "flux_err": err,
            "epoch": rows["epoch"],
            "filter": bands,
            "color": np.where(flagged, _FLAGGED, colors),
            "fill": np.where(flux >= _DETECTED * err, 0.9, 0.0),
            "status": [", ".join(plane_names(int(s))) or "good" for s in rows["status"]],
        }
        self.points.selected.indices = []
        good = np.isfinite(flux) & np.isfinite(err)
        self.bars.data = {
            "x": [[m, m] for m in rows["mjd"][good]],
            "y": [[f - e, f + e] for f, e in zip(flux[good], err[good], strict=True)],
        }
        label = f"source {source}" if self.content.curve is not None and "source" in self.content.curve.dims else ""
        self.figure.title.text = label

    def _show_thumb(self, name: str, epoch: int, source: int) -> None:
        _, data, mapper = self.thumbs[name]
        values = self._pixels(name, epoch, source)
        if values is None or not np.isfinite(values).any():
            data.data = {k: [] for k in ("image", "dw", "dh", "x", "y")}
            return
        height, width = values.shape
        data.data = {"image": [values], "dw": [width], "dh": [height], "x": [0], "y": [0]}
        if name in ("difference", "kernel"):
            peak = float(np.nanpercentile(np.abs(values), 99.5)) or 1.0
            mapper.low, mapper.high = -peak, peak
        else:
            mapper.low, mapper.high = find_limits(values, "zscale")

    def _pixels(self, name: str, epoch: int, source: int) -> Images | None:
        """The stamp of a picture around the source, or the kernel; None where there is none."""
        content = self.content
        if name == "kernel" and content.kernels is not None:
            one = content.kernels.isel(time=epoch) if "time" in content.kernels.dims else content.kernels
            one = one.isel({d: 0 for d in one.dims if d not in ("ky", "kx")})
            return np.asarray(one.values, dtype=np.float32)
        picture = content.pictures.get(name)
        if picture is None:
            if content.stamps is None:
                return None
            stamp = content.stamps.isel(time=epoch, source=source)
            return np.asarray(stamp.values, dtype=np.float32)
        own = content.epoch_of(picture, epoch)
        place = None if own is None else content.place(picture, own, source)
        return None if own is None or place is None else _stamp(picture, own, place)

    # ---- how it is drawn --------------------------------------------------------------------------------------------

    def layout(self) -> Any:
        """Light curve, stamps, table and words."""
        from bokeh.layouts import column, row
        from bokeh.models import Div

        self.words = Div(text="", name="words", width=380, height=520, styles={"overflow": "auto"}, disable_math=True)
        stamps = row(*(drawn for drawn, *_ in self.thumbs.values()))
        left = [self._figure(), stamps]
        if self.content.curve is not None and self.content.curve.sizes.get("source", 1) > 1:
            left.append(self._sources())
        return row(column(*left), self.words)

    def _figure(self) -> Any:
        from bokeh.models import HoverTool, TapTool
        from bokeh.plotting import figure

        names, curve = self.content.fluxes(), self.content.curve
        unit = "" if names is None or curve is None else str(curve[names[0]].attrs.get("units", ""))
        drawn = figure(
            width=_WIDTH, height=_HEIGHT, tools="pan,wheel_zoom,box_zoom,reset,save", name="light curve", title="",
            x_axis_label="MJD", y_axis_label=f"flux ({unit.replace('uJy', 'µJy')})",
        )  # fmt: skip
        self.figure = drawn
        drawn.multi_line("x", "y", source=self.bars, line_color="#bbbbbb")
        marks = drawn.scatter(
            "mjd", "flux", source=self.points, size=8, line_color="color", fill_color="color", fill_alpha="fill",
            nonselection_alpha=1.0, legend_field="filter",
        )  # fmt: skip
        drawn.scatter("mjd", "flux", source=self.chosen, size=16, marker="circle", fill_alpha=0.0, line_color="black")
        tips = [("MJD", "@mjd{0.0000}"), ("flux", "@flux ± @flux_err"), ("filter", "@filter"), ("status", "@status")]
        drawn.add_tools(HoverTool(renderers=[marks], tooltips=tips), TapTool(renderers=[marks]))
        drawn.legend.location, drawn.legend.background_fill_alpha = "top_right", 0.5
        when_changed(self.points.selected, "indices", self._clicked)
        return drawn

    def _clicked(self, rows: list[int]) -> None:
        if rows:
            self.choose(int(self.points.data["epoch"][rows[0]]))

    def _sources(self) -> Any:
        from bokeh.models import ColumnDataSource, DataTable, NumberFormatter, TableColumn

        order = self.content.ranked()
        columns: dict[str, Any] = {"rank": np.arange(1, len(order) + 1), "source": order}
        columns["chi2"] = self.content.variability()[order]
        places = self.content.places()
        if places is not None:
            columns |= {"x": places[0][order], "y": places[1][order]}
        self.table = ColumnDataSource(columns, name="table")
        number = NumberFormatter(format="0.000")
        titles = {"chi2": "χ² of a constant"}
        shown = [
            TableColumn(field=k, title=titles.get(k, k), **({} if k in ("rank", "source") else {"formatter": number}))
            for k in columns
        ]
        when_changed(self.table.selected, "indices", self._row)
        return DataTable(
            source=self.table, columns=shown, width=_WIDTH, height=200, index_position=None, name="sources table"
        )

    def _row(self, rows: list[int]) -> None:
        if rows:
            self.choose(self.epoch, int(self.table.data["source"][rows[0]]))


def _colors(bands: Any) -> Any:
    """A color for each band, those of ZTF always the same."""
    names = sorted(set(map(str, bands)) - set(_FILTER_COLORS))
    known = _FILTER_COLORS | {n: _OTHER_COLORS[i % len(_OTHER_COLORS)] for i, n in enumerate(names)}
    return np.array([known[str(b)] for b in bands], dtype=object)


def _stamp(picture: Picture, epoch: int, place: tuple[float, float]) -> Images | None:
    """The pixels around an absolute position, NaN beyond the image; None where it is nowhere near."""
    if not np.isfinite(place).all():
        return None
    left, low = picture.origin
    pixels = picture.pixels(epoch).image
    column, row = round(place[0] - left), round(place[1] - low)
    half = _STAMP // 2
    out = np.full((_STAMP, _STAMP), np.nan, dtype=np.float32)
    rows, columns = (slice(max(0, c - half), max(0, c + half + 1)) for c in (row, column))
    part = pixels[rows, columns]
    if part.size:
        first = rows.start - (row - half), columns.start - (column - half)
        out[first[0] : first[0] + part.shape[0], first[1] : first[1] + part.shape[1]] = part
    return out


def _table(rows: list[tuple[str, str]]) -> str:
    lines = (f"<tr><td>{html.escape(harmless(k))}</td><td>{html.escape(harmless(v))}</td></tr>" for k, v in rows)
    return f"<table>{''.join(lines)}</table>"
