"""Quick looks: images in larger pixels, and the quadrants of a CCD or of the focal plane side by side.

ZTF images are mirrored: in FITS order `x` counts to the west and `y` to the south (CD1_1 and CD2_2 are both negative).
Seen with north up and east to the right, the quadrants of a CCD and the CCDs of the focal plane are

    q2 | q1        16 15 14 13
    ---+---        12 11 10  9
    q3 | q4         8  7  6  5
                    4  3  2  1

which is ZTF's layout (the quadrants' WCS say the same). A mosaic keeps FITS order: its `x` and `y` count to the west
and to the south too, from the north-eastern corner, so that pixel (x, y) of a quadrant is pixel (x0 + x, y0 + y) of the
mosaic, never flipped. Only the picture that `ztfxr.show` draws of it is turned by 180 degrees, to the view above.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import xarray as xr
from astropy.coordinates import SkyCoord
from dask.base import is_dask_collection
from numpy.typing import NDArray

from ztfxr.arrays.geometry.blocks import block_mean, block_range, combine_means
from ztfxr.arrays.types import Bools, Floats
from ztfxr.errors import InputError, MissingWCSError, ShapeError
from ztfxr.ops.exposure import MaskChoice, gather
from ztfxr.ops.mapping import map_images
from ztfxr.ops.positions import pixel_origin
from ztfxr.schema import SPECS
from ztfxr.wcs import Angles, has_wcs, pixel_to_sky, sky_degrees, sky_to_pixel

if TYPE_CHECKING:
    import dask.array as da

__all__ = ["CCD_GAPS", "QUADRANT_SHAPE", "mosaic", "rebin", "sky_to_mosaic"]

Pair: TypeAlias = tuple[int, int]
Place: TypeAlias = tuple[int, int]
Gaps: TypeAlias = bool | tuple[int, int]
Window: TypeAlias = tuple[Pair, Pair]
"""Half-open ranges of rows and of columns, in blocks."""
Part: TypeAlias = tuple[Window, Any]
"""A window with the means and numbers of good pixels of its blocks, or what dask will make of them."""

QUADRANT_SHAPE: Pair = (3080, 3072)
"""Rows and columns of a whole quadrant."""

CCD_GAPS: Pair = (641, 449)
"""Rows and columns without pixels between CCDs.

Fitted, with one shift, rotation and scale, to the centers of all 64 quadrants in the WCS of IPAC's archive: their
medians over fields, projected about the pointing (arc length from it), as tabulated by D. Kaplan in 2018 (ztf_tiling).
The centers scatter by 7 pixels about the fit, 16 at most, as CCDs are not mounted to the pixel; the gaps of ZTF's
nominal layout (0.1262 and 0.181 degrees) agree to 4 pixels.
"""


def rebin(obj: xr.Dataset | xr.DataArray, factor: int, *, mask: MaskChoice = None) -> xr.DataArray:
    """The image in larger pixels: means of the good ones among `factor` × `factor`; lazy.

    Parameters
    ----------
    obj
        An image (..., y, x), or a Dataset with `sci` and `flags`.
    factor
        Pixels along the side of a block. Blocks start at the first pixel; the last ones may hold fewer.
    mask
        Boolean, True where bad. By default the recommended planes of ``obj.flags``; False uses every finite pixel.

    Returns
    -------
    xarray.DataArray
        Dims, name, unit and attributes of the image, float32; NaN where a block has no good pixel. `x` and `y` are the
        centers of the blocks in pixels of the image. The WCS stays behind: it holds for single pixels.

    Raises
    ------
    InputError
        `factor` is no whole number from 1 on.
    ChunkError
        The image is chunked along y or x.
    """
    factor = _check_factor(factor)
    exposure = gather(obj, name="sci", mask=mask)
    image = exposure.image
    blocks = {d: block_range(0, image.sizes[d], factor)[1] for d in ("y", "x")}
    out = map_images(
        _means,
        {"image": image, "bad": exposure.bad},
        ["sci"],
        sizes=blocks,
        options={"factor": factor},
    )["sci"]
    out = out.transpose(*image.dims).rename(image.name)
    coords = {d: xr.Variable(d, *_coarse_labels(image, d, n, factor)) for d, n in blocks.items()}
    return out.assign_coords(coords).assign_attrs(image.attrs)


def _means(image: NDArray[Any], bad: Bools, *, factor: int) -> NDArray[np.float32]:
    return block_mean(image, bad, factor=factor)[0]


def _check_factor(factor: int) -> int:
    if isinstance(factor, bool) or not isinstance(factor, int | np.integer) or factor < 1:
        raise InputError(f"pixels are binned by a whole number, 1 or more; got {factor!r}")
    return int(factor)


def _coarse_labels(image: xr.DataArray, dim: str, n: int, factor: int) -> tuple[NDArray[Any], dict[Any, Any]]:
    """The centers of `n` blocks along `dim`, as if the last were full, and their attributes."""
    if dim not in image.coords:
        return _centers(0, n, factor), dict(SPECS[dim].attrs)
    labels = image.coords[dim]
    first = labels.values[0]
    step = labels.values[1] - first if labels.size > 1 else 1
    return first + step * _centers(0, n, factor), dict(labels.attrs)


def _centers(first: int, n: int, factor: int) -> NDArray[Any]:
    """The centers of `n` blocks from number `first` on, in pixels; integers for single pixels."""
    blocks = np.arange(first, first + n)
    return blocks if factor == 1 else (blocks + 0.5) * factor - 0.5


@dataclass(frozen=True)
class _Layout:
    """Where quadrants lie on the mosaic of the focal plane, or of one CCD."""

    shape: Pair
    gaps: Pair
    whole: bool

    @property
    def size(self) -> Pair:
        """Rows and columns of the mosaic at full resolution."""
        n = 4 if self.whole else 1
        return tuple(2 * n * s + (n - 1) * g for s, g in zip(self.shape, self.gaps, strict=True))  # type: ignore[return-value]

    def corner(self, place: Place) -> Pair:
        """The mosaic's (y, x) of the first pixel of a quadrant."""
        ccdid, qid = place
        ccd = (3 - (ccdid - 1) // 4, (ccdid - 1) % 4) if self.whole else (0, 0)
        quadrant = (int(qid in (3, 4)), int(qid in (2, 3)))
        y, x = (c * (2 * s + g) + q * s for c, q, s, g in zip(ccd, quadrant, self.shape, self.gaps, strict=True))
        return y, x

    def starts(self) -> tuple[list[int], list[int]]:
        """The rows and the columns at which quadrants start."""
        corners = [self.corner((c, q)) for c in (range(1, 17) if self.whole else (1,)) for q in range(1, 5)]
        return sorted({y for y, _ in corners}), sorted({x for _, x in corners})


def mosaic(
    tree: xr.DataTree,
    *,
    variable: str = "sci",
    rebin: int = 8,
    gaps: Gaps = True,
    mask: Literal[False] | None = None,
    shape: Pair = QUADRANT_SHAPE,
) -> xr.DataArray:
    """The quadrants of a CCD or of the focal plane side by side, for a quick look; lazy.

    With dask inside, a quadrant is read, averaged and dropped again: the focal plane is never in memory at full
    resolution, and only the quadrants that a selection needs are read.

    Parameters
    ----------
    tree
        As `ztfxr.open_ccd` or `ztfxr.open_exposure` gives it, or any tree of Datasets with the coordinates `ccdid` and
        `qid`, one per quadrant. Nodes without pixels, and quadrants that are missing, are left empty. A part of a
        quadrant lies where its `x` and `y` say. If all are of one CCD the mosaic is that CCD, else the focal plane.
    variable
        The image to show of each Dataset: `sci`, `background`, ...
    rebin
        Pixels along the side of a block; the mosaic has the mean of each block's good pixels. Blocks lie on a grid of
        the mosaic and may have pixels of several quadrants. 1 keeps full resolution, 2.7 GB for the focal plane.
    gaps
        Leave the gaps between CCDs: True for ZTF's 641 rows and 449 columns (see `CCD_GAPS`), False for none, or
        (rows, columns).
    mask
        By default the recommended planes of each quadrant's `flags` do not count; False takes every finite pixel.
    shape
        Rows and columns of a whole quadrant.

    Returns
    -------
    xarray.DataArray
        The variable as float32 (y, x), in its unit, NaN where there is no good pixel. `x` and `y` are centers of blocks
        in full-resolution pixels from the north-eastern corner to the west and to the south: FITS order, as in a
        quadrant, whose pixel (x, y) is (x0 + x, y0 + y) here. `ztfxr.show` draws it with north up and east to the right
        (the coordinates' attribute `positive`), so that q2 | q1 lie above q3 | q4. ``attrs["missing"]`` names the
        quadrants that are empty. There is no WCS: CCDs are not aligned to the pixel, and levels of the sky differ from
        quadrant to quadrant. `ztfxr.sky_to_mosaic` finds sky positions by the quadrants' own WCS.

    Raises
    ------
    InputError
        No quadrant with `variable`, two of one place, no single images, or an unusable `rebin` or `gaps`.
    ShapeError
        A quadrant has pixels beyond `shape`.
    """
    factor = _check_factor(rebin)
    frames = _quadrants(tree, variable)
    layout = _layout(frames, gaps, shape)
    tiles = [_tile(frame, variable, layout, place, mask) for place, frame in frames.items()]
    lazy = any(is_dask_collection(array) for tile in tiles for array in (tile.image, tile.bad))
    data = _lazy(tiles, layout, factor) if lazy else _paste(_window(layout, factor), [t.means(factor) for t in tiles])
    return _labeled(data, frames, layout, variable, factor)


def sky_to_mosaic(
    tree: xr.DataTree,
    sky: SkyCoord | None = None,
    *,
    ra: Angles | None = None,
    dec: Angles | None = None,
    gaps: Gaps = True,
    shape: Pair = QUADRANT_SHAPE,
) -> tuple[Floats, Floats]:
    """Pixels (x, y) of sky positions on the mosaic of `tree`, by the WCS of the quadrant they fall in; reads no pixel.

    Parameters
    ----------
    tree, gaps, shape
        The frames and how they are laid out, as in `ztfxr.mosaic`.
    sky, ra, dec
        A `SkyCoord`, or RA and Dec (ICRS), any shape: degrees, `Quantity`, or text such as ``"03:51:36"``.

    Returns
    -------
    x, y
        Full-resolution pixels of the mosaic, whatever its `rebin`; NaN in gaps, off the mosaic, and in quadrants that
        are missing or have no WCS.

    Raises
    ------
    InputError, ShapeError
        As of `ztfxr.mosaic`; neither `sky` nor both of `ra` and `dec`.
    MissingWCSError
        No quadrant has a WCS.
    """
    sky = SkyCoord(*sky_degrees(sky, ra, dec), unit="deg", frame="icrs")
    frames = _quadrants(tree, None)
    if not any(map(has_wcs, frames.values())):
        raise MissingWCSError("no quadrant of the tree has a celestial WCS; give one with ztfxr.assign_wcs")
    layout = _layout(frames, gaps, shape)
    places = sky.reshape(-1)
    x, y = np.full(places.size, np.nan), np.full(places.size, np.nan)
    for place, frame in frames.items():
        near = _near(frame, places)
        found_x, found_y = sky_to_pixel(frame, places[near], outside="nan") if near.size else (near, near)
        inside = np.isfinite(found_x)
        top, left = layout.corner(place)
        x[near[inside]], y[near[inside]] = found_x[inside] + left, found_y[inside] + top
    return x.reshape(sky.shape), y.reshape(sky.shape)


def _near(frame: xr.Dataset, places: SkyCoord) -> NDArray[np.intp]:
    """The places that may be on the frame: far from it, its WCS would be extrapolated in vain."""
    if not has_wcs(frame):
        return np.array([], dtype=np.intp)
    origin = pixel_origin(frame)
    (y0, y1), (x0, x1) = ((origin[d] - 0.5, origin[d] + frame.sizes[d] - 0.5) for d in ("y", "x"))
    center = pixel_to_sky(frame, (x0 + x1) / 2, (y0 + y1) / 2)
    reach = center.separation(pixel_to_sky(frame, [x0, x1, x0, x1], [y0, y0, y1, y1])).max()
    return np.flatnonzero(places.separation(center) <= 1.05 * reach)


def _quadrants(tree: xr.DataTree, variable: str | None) -> dict[Place, xr.Dataset]:
    """The Datasets with pixels, by (ccdid, qid)."""
    frames: dict[Place, xr.Dataset] = {}
    for node in tree.subtree:
        frame = node.to_dataset()
        if not {"y", "x"} <= set(frame.sizes) or (variable is not None and variable not in frame):
            continue
        if not {"ccdid", "qid"} <= set(frame.coords):
            raise InputError(f"{node.path} has no coordinates 'ccdid' and 'qid', so its place is not known")
        place = int(frame.coords["ccdid"]), int(frame.coords["qid"])
        if not (1 <= place[0] <= 16 and 1 <= place[1] <= 4):
            raise InputError(
                f"{node.path} is of CCD {place[0]}, quadrant {place[1]}; CCDs are 1 to 16, quadrants 1 to 4"
            )
        if place in frames:
            raise InputError(f"two frames of CCD {place[0]} quadrant {place[1]}; select one exposure first")
        frames[place] = frame
    if not frames:
        raise InputError(f"no quadrant with {variable or 'pixels'} in the tree; open one with ztfxr.open_exposure")
    return frames


def _layout(frames: Mapping[Place, xr.Dataset], gaps: Gaps, shape: Pair) -> _Layout:
    width = CCD_GAPS if gaps is True else (0, 0) if gaps is False else tuple(gaps)
    if len(width) != 2 or min(width) < 0:
        raise InputError(f"gaps is True, False, or (rows, columns) of at least 0; got {gaps!r}")
    for (ccdid, qid), frame in frames.items():
        origin = pixel_origin(frame)
        end = tuple(origin[d] + frame.sizes[d] for d in ("y", "x"))
        if any(e > s for e, s in zip(end, shape, strict=True)):
            raise ShapeError(
                f"CCD {ccdid} quadrant {qid} ends at {end} (y, x), a whole quadrant at {tuple(shape)}; give shape="
            )
    return _Layout((shape[0], shape[1]), (width[0], width[1]), whole=len({ccdid for ccdid, _ in frames}) > 1)


@dataclass(frozen=True)
class _Tile:
    """The pixels of a quadrant and the mosaic's (y, x) of its first one."""

    image: Any
    bad: Any
    start: Pair

    def window(self, factor: int) -> Window:
        """The blocks that it has pixels in."""
        (y0, y1), (x0, x1) = (block_range(s, n, factor) for s, n in zip(self.start, self.image.shape, strict=True))
        return (y0, y1), (x0, x1)

    def means(self, factor: int, call: Any = block_mean) -> Part:
        """Its blocks, their means and numbers of good pixels."""
        return self.window(factor), call(self.image, self.bad, factor=factor, start=self.start)


def _tile(frame: xr.Dataset, variable: str, layout: _Layout, place: Place, mask: Literal[False] | None) -> _Tile:
    image = frame[variable]
    if set(image.dims) != {"y", "x"}:
        raise InputError(f"a mosaic is of single images (y, x); {variable!r} has {image.dims}: select one with .isel()")
    bad = gather(frame.assign(sci=image), name="sci", mask=mask).bad
    origin, corner = pixel_origin(frame), layout.corner(place)
    start = (corner[0] + origin["y"], corner[1] + origin["x"])
    return _Tile(image.transpose("y", "x").data, bad.transpose("y", "x").data, start)


def _window(layout: _Layout, factor: int) -> Window:
    (y0, y1), (x0, x1) = (block_range(0, n, factor) for n in layout.size)
    return (y0, y1), (x0, x1)


def _paste(window: Window, parts: Sequence[Part]) -> NDArray[np.float32]:
    """The blocks of a window of the mosaic; those that quadrants share have the mean of the pixels of all."""
    shape = tuple(stop - start for start, stop in window)
    means, counts = np.full(shape, np.nan, dtype=np.float32), np.zeros(shape, dtype=np.int32)
    for place, part in parts:
        shared = [(max(a, c), min(b, d)) for (a, b), (c, d) in zip(window, place, strict=True)]
        here, there = (
            tuple(slice(low - start, high - start) for (low, high), (start, _) in zip(shared, origin, strict=True))
            for origin in (window, place)
        )
        new = part[0][there], part[1][there]
        means[here], counts[here] = combine_means((means[here], counts[here]), new) if counts[here].any() else new
    return means


def _lazy(tiles: Sequence[_Tile], layout: _Layout, factor: int) -> da.Array:
    """A chunk per quadrant, with the gap beside it, from the quadrants that have pixels in it."""
    import dask.array as da
    from dask.delayed import delayed

    parts = [tile.means(factor, delayed(block_mean, pure=True)) for tile in tiles]
    paste = delayed(_paste, pure=True)
    ranges = [
        list(pairwise(sorted({*(s // factor for s in starts), stop})))
        for starts, (_, stop) in zip(layout.starts(), _window(layout, factor), strict=True)
    ]

    def chunk(window: Window) -> Any:
        inside = [part for part in parts if _overlap(window, part[0])]
        shape = tuple(stop - start for start, stop in window)
        return da.from_delayed(paste(window, inside), shape, meta=np.empty((0, 0), dtype=np.float32))

    blocks = [[chunk((rows, columns)) for columns in ranges[1]] for rows in ranges[0]]
    return da.block(blocks)  # type: ignore[no-any-return]


def _overlap(first: Window, second: Window) -> bool:
    return all(max(a, c) < min(b, d) for (a, b), (c, d) in zip(first, second, strict=True))


def _labeled(
    data: Any, frames: Mapping[Place, xr.Dataset], layout: _Layout, variable: str, factor: int
) -> xr.DataArray:
    first = next(iter(frames.values()))
    coords = {
        name: coord.variable
        for name, coord in first.coords.items()
        if coord.ndim == 0 and all(_has(frame, name, coord.variable) for frame in frames.values())
    }
    for dim, n, way, end in (("y", data.shape[0], "south", "down"), ("x", data.shape[1], "west", "left")):
        attrs = {"long_name": f"0-based pixel of the mosaic, counted to the {way}", "units": "pixel", "positive": end}
        coords[dim] = xr.Variable(dim, _centers(0, n, factor), attrs)
    ccds = range(1, 17) if layout.whole else sorted({ccdid for ccdid, _ in frames})
    missing = " ".join(f"c{c:02d}/q{q}" for c in ccds for q in range(1, 5) if (c, q) not in frames)
    return xr.DataArray(data, coords, ("y", "x"), variable, first[variable].attrs | {"missing": missing})


def _has(frame: xr.Dataset, name: Hashable, value: xr.Variable) -> bool:
    return name in frame.coords and value.equals(frame.coords[name].variable)
