"""Catalogs beside an image: matched, isolated, cut to its footprint, asked from VizieR."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import xarray as xr
from astropy import units as u
from astropy.coordinates import SkyCoord, angular_separation

from ztfxr.arrays.geometry.skymatch import MAX_PAIRS, all_pairs, moved, nearest_pairs, neighbor_separation, unique_pairs
from ztfxr.arrays.types import Floats
from ztfxr.errors import InputError
from ztfxr.io.catalogs import SURVEYS, query_cone
from ztfxr.io.tables import Catalog, as_catalog
from ztfxr.ops.sky import center, contains, footprint, pixel_scale
from ztfxr.schema import SPECS, annotate
from ztfxr.wcs import has_wcs, pixel_to_sky, sky_to_pixel

__all__ = ["in_footprint", "isolated", "match", "query_catalog", "unmatched", "with_catalogs"]

Radius: TypeAlias = float | u.Quantity
Mode = Literal["unique", "nearest", "all"]
Image: TypeAlias = xr.Dataset | xr.DataArray

_PAIRINGS = {"unique": unique_pairs, "nearest": nearest_pairs, "all": all_pairs}
_SHORT = {"x": "x_centroid", "y": "y_centroid"}
_IMAGE_NODE = "image"
_SAME_PLACE = 5e-6
# A little more than the frame is asked for: the outline bends between its vertices, and since a catalog's epoch
# proper motion has carried stars in.
_MOVED_DEG = 30.0 / 3600.0


# ---- beside an image ------------------------------------------------------------------------------------------------


def with_catalogs(image: xr.Dataset | xr.DataArray | xr.DataTree, /, **catalogs: Catalog) -> xr.DataTree:
    """An image and any number of named catalogs in one DataTree; lazy.

    Parameters
    ----------
    image
        An image with its variables; or a tree that this function made, to which catalogs are added (or replaced).
    **catalogs
        Name to catalog, in any form that `ztfxr.as_catalog` takes.

    Returns
    -------
    xarray.DataTree
        The node ``image`` and one node per catalog, all siblings, so that a catalog's `ra`, `dec` on `source` and
        the image's on (y, x) do not meet. A catalog without `x_centroid`, `y_centroid` is given those that the
        image's WCS gives its sky positions; one without `ra`, `dec` is given these. Nothing is cut off: see
        `ztfxr.in_footprint`. The tree is written and read by `ztfxr.to_zarr` and `ztfxr.open_zarr`.

    Raises
    ------
    InputError
        A catalog named ``image`` or with a slash, or a tree without the node ``image``.

    Examples
    --------
    >>> tree = ztfxr.with_catalogs(ds, sources=src, ps1=ps1)  # doctest: +SKIP
    >>> tree.ztf.match("sources", "ps1", radius=1.0, columns=["ra", "dec", "x", "y", "mag"])  # doctest: +SKIP
    """
    wrong = [name for name in catalogs if name == _IMAGE_NODE or "/" in name]
    if wrong:
        raise InputError(f"a catalog cannot be named {wrong[0]!r}; 'image' is the image, and '/' parts a path")
    tree = image.copy() if isinstance(image, xr.DataTree) else xr.DataTree.from_dict({_IMAGE_NODE: _dataset(image)})
    frame = _node(tree, _IMAGE_NODE)
    for name, catalog in catalogs.items():
        tree[name] = xr.DataTree(_with_pixels(_with_sky(as_catalog(catalog), frame), frame))
    return tree


def _dataset(image: Image) -> xr.Dataset:
    return image if isinstance(image, xr.Dataset) else image.to_dataset(name=str(image.name or "sci"))


def _node(tree: xr.DataTree, name: str) -> xr.Dataset:
    if name not in tree.children:
        raise InputError(f"the tree has no node {name!r}; it has {', '.join(tree.children) or 'none'}")
    return tree[name].to_dataset()


def _has(catalog: xr.Dataset, *names: str) -> bool:
    return all(name in catalog.variables and catalog[name].dims == ("source",) for name in names)


def _with_pixels(catalog: xr.Dataset, image: Image) -> xr.Dataset:
    """`catalog` with the pixels of its sky positions, where it has none of its own."""
    if _has(catalog, "x_centroid", "y_centroid") or not (_has(catalog, "ra", "dec") and has_wcs(image)):
        return catalog
    x, y = _pixels(catalog, image)
    return as_catalog(catalog.assign(x_centroid=("source", x), y_centroid=("source", y)))


def _with_sky(catalog: xr.Dataset, image: Image) -> xr.Dataset:
    if _has(catalog, "ra", "dec") or not (_has(catalog, "x_centroid", "y_centroid") and has_wcs(image)):
        return catalog
    sky = pixel_to_sky(image, catalog["x_centroid"].values, catalog["y_centroid"].values)
    return as_catalog(catalog.assign(ra=("source", sky.ra.deg), dec=("source", sky.dec.deg)))


def _pixels(catalog: xr.Dataset, image: Image) -> tuple[Floats, Floats]:
    """Pixels of the catalog's sky positions; NaN where the WCS does not lead back to the same place on the sky."""
    ra, dec = _sky(catalog, "the catalog")
    x, y = sky_to_pixel(image, ra=ra, dec=dec)
    back = pixel_to_sky(image, x, y)
    # Far from the frame the distortion polynomial folds over, and the inverse finds pixels of other places.
    lost = ~(angular_separation(back.ra.rad, back.dec.rad, np.deg2rad(ra), np.deg2rad(dec)) < _SAME_PLACE)
    return np.where(lost, np.nan, x), np.where(lost, np.nan, y)


def in_footprint(catalog: Catalog, image: xr.Dataset | xr.DataArray, *, margin: float = 0.0) -> xr.Dataset:
    """The sources that lie on an image. Computes: the positions are read.

    Parameters
    ----------
    catalog
        A catalog in any form that `ztfxr.as_catalog` takes. Its sky positions decide where the image has a WCS, else
        its pixels.
    image
        An image with dimensions (..., y, x); a stamp is cut by its own window of the frame.
    margin
        Pixels that a source must keep from the edge; negative ones let it lie outside, as in `ztfxr.contains`.

    Returns
    -------
    xarray.Dataset
        The rows inside, in their order, with `x_centroid`, `y_centroid` (absolute 0-based FITS pixels on this image)
        where the catalog had none. A source without a position is outside.

    Raises
    ------
    InputError
        A catalog without positions that the image knows.
    """
    table = as_catalog(catalog)
    if has_wcs(image) and _has(table, "ra", "dec"):
        x, y = _pixels(table, image)
    elif _has(table, "x_centroid", "y_centroid"):
        x, y = table["x_centroid"].values, table["y_centroid"].values
    else:
        raise InputError("the cut needs columns ra and dec and an image with a WCS, or columns x_centroid, y_centroid")
    inside = contains(image, {"x": x, "y": y}, margin=margin)
    if not _has(table, "x_centroid", "y_centroid"):
        table = as_catalog(table.assign(x_centroid=("source", x), y_centroid=("source", y)))
    return table.isel(source=np.flatnonzero(inside.values))


# ---- matching -------------------------------------------------------------------------------------------------------


def match(
    obj: Catalog | xr.DataTree,
    *catalogs: Catalog | str,
    radius: Radius,
    mode: Mode = "unique",
    names: tuple[str, str] | None = None,
    columns: Iterable[str] | None = None,
) -> xr.Dataset:
    """Pairs of sources of two catalogs within a radius on the sky, their columns side by side. Computes: positions.

    Parameters
    ----------
    obj, *catalogs
        The left and the right catalog, in any form that `ztfxr.as_catalog` takes, with `ra` and `dec`; or a tree of
        `ztfxr.with_catalogs` and the names of two of its nodes (or one name and a catalog).
    radius
        Largest separation, inclusive: an angle, or a number of arcsec.
    mode
        ``"unique"``: no source twice. The closest pair of all is taken, then the closest of what is left, and so on; of
        equally close pairs the one with the lower left, then the lower right index.
        ``"nearest"``: every left source with its nearest right one, which may serve several; of equally near ones the
        first.
        ``"all"``: every pair within the radius.
    names
        Prefixes of the columns: by default the names of the nodes of a tree, else ``("left", "right")``.
    columns
        Columns to put side by side; a column that only one catalog has is given for that one. `x` and `y` stand for
        `x_centroid` and `y_centroid`. By default all that are along `source` alone.

    Returns
    -------
    xarray.Dataset
        On `match`, in the order of the left catalog, then of separation: `<name>_index`, where both sources are in
        their catalogs; `angsep_arcsec`; and `<name>_<column>`, lazy where the columns are. A source without a
        position matches nothing.

    Raises
    ------
    InputError
        Not two catalogs, no sky positions, an unknown column or mode, or a radius so large that the pairs would not
        fit in memory.

    Notes
    -----
    Great-circle separations by a KD-tree on unit vectors, taken to the micro-arcsecond, so that neither ties nor a pair
    at exactly the radius depend on rounding. ``"unique"`` is the "best match, symmetric" of TOPCAT (Taylor 2005).

    Examples
    --------
    >>> sources = ztfxr.sources(ztfxr.open_quadrant(ztfxr.samples.sample_path())).compute()
    >>> catalog = {"ra": sources.ra.values, "dec": sources.dec.values}
    >>> import astropy.table
    >>> matched = ztfxr.match(sources, astropy.table.Table(catalog), radius=1)
    >>> bool(matched.angsep_arcsec.max() < 0.01)
    True
    """
    left, right, default = _two(obj, catalogs)
    first, second = names or default
    if first == second:
        raise InputError(f"both catalogs are named {first!r}; give two different names=")
    if mode not in get_args(Mode):
        raise InputError(f"mode is 'unique', 'nearest' or 'all'; got {mode!r}")
    limit = _arcsec(radius, "radius")
    chosen = _chosen(left, right, columns)
    try:
        pairs = _PAIRINGS[mode](_sky(left, first), _sky(right, second), limit)
    except OverflowError as error:
        raise InputError(f"radius={radius} makes {error} pairs, more than {MAX_PAIRS}; give a smaller one") from error
    data: dict[str, Any] = {
        f"{first}_index": ("match", pairs.left, {"long_name": f"position in {first}"}),
        f"{second}_index": ("match", pairs.right, {"long_name": f"position in {second}"}),
        "angsep_arcsec": ("match", pairs.separation, SPECS["angsep_arcsec"].attrs),
    }
    for shown in chosen:
        for name, catalog, index in ((first, left, pairs.left), (second, right, pairs.right)):
            column = _column(catalog, shown)
            if column is not None:
                picked = column.variable.isel(source=index)
                data[f"{name}_{shown}"] = xr.Variable("match", picked.data, picked.attrs)
    return xr.Dataset(data, attrs={"radius_arcsec": limit, "mode": mode})


def unmatched(
    obj: Catalog | xr.DataTree, *catalogs: Catalog | str, radius: Radius, mode: Mode = "unique"
) -> xr.DataArray:
    """Which sources of the left catalog have no partner in the right one. Computes: the positions are read.

    For the other side give the catalogs in the other order.

    Parameters
    ----------
    obj, *catalogs, radius, mode
        The catalogs and how to pair them, as `ztfxr.match` takes them.

    Returns
    -------
    xarray.DataArray
        Boolean on `source`, True without a partner: ``src.isel(source=src.ztf.unmatched(ps1, radius=1.0))``.
    """
    left, right, _ = _two(obj, catalogs)
    pairs = match(left, right, radius=radius, mode=mode, columns=())
    alone = np.ones(left.sizes["source"], dtype=bool)
    alone[pairs["left_index"].values] = False
    return annotate(xr.DataArray(alone, dims="source"), "unmatched")


def isolated(
    catalog: Catalog, distance: Radius, *, others: Catalog | None = None, counterpart: Radius | None = None
) -> xr.DataArray:
    """Which sources have no neighbor within a distance on the sky. Computes: the positions are read.

    Parameters
    ----------
    catalog
        A catalog in any form that `ztfxr.as_catalog` takes, with `ra` and `dec`.
    distance
        A neighbor is at most this far away: an angle, or a number of arcsec.
    others
        The neighbors are those in this catalog, by default the others of the same one.
    counterpart
        The nearest of `others` within this radius is the source itself and no neighbor.

    Returns
    -------
    xarray.DataArray
        Boolean on `source`, True without a neighbor: ``src.isel(source=src.ztf.isolated(10.0))``. A source without a
        position is not known to be isolated: False.

    Raises
    ------
    InputError
        A catalog without sky positions, or `counterpart` without `others`.
    """
    if counterpart is not None and others is None:
        raise InputError("counterpart= says which of the others= is the source itself; give others= too")
    neighbors = None if others is None else _sky(as_catalog(others), "others")
    own = None if counterpart is None else _arcsec(counterpart, "counterpart")
    separation = neighbor_separation(_sky(as_catalog(catalog), "the catalog"), neighbors, own)
    limit = _arcsec(distance, "distance")
    return annotate(xr.DataArray(separation > limit, dims="source"), "isolated", distance_arcsec=limit)


def _two(obj: Any, catalogs: tuple[Any, ...]) -> tuple[xr.Dataset, xr.Dataset, tuple[str, str]]:
    """The two catalogs to match, and the names that they go by."""
    tree = obj if isinstance(obj, xr.DataTree) else None
    given = catalogs if tree is not None else (obj, *catalogs)
    if len(given) != 2:
        raise InputError(
            f"two catalogs are matched; got {len(given)}: match(left, right, radius=...), or "
            'match(tree, "left", "right", radius=...)'
        )
    names = tuple(c if isinstance(c, str) else side for c, side in zip(given, ("left", "right"), strict=True))
    left, right = (_resolve(tree, c) for c in given)
    return left, right, (names[0], names[1])


def _resolve(tree: xr.DataTree | None, catalog: Any) -> xr.Dataset:
    if not isinstance(catalog, str):
        return as_catalog(catalog)
    if tree is None:
        raise InputError(f"{catalog!r} names a catalog of a tree, but got no tree; see ztfxr.with_catalogs")
    return as_catalog(_node(tree, catalog))


def _sky(catalog: xr.Dataset, what: str) -> tuple[Floats, Floats]:
    if "ra" in catalog.variables and "source" in catalog["ra"].dims and catalog["ra"].ndim > 1:
        raise InputError(f"{what} has positions on {catalog['ra'].dims}; select one epoch first, with isel(time=...)")
    if not _has(catalog, "ra", "dec"):
        columns = ", ".join(map(str, catalog.variables)) or "none"
        raise InputError(f"{what} has no sky positions: columns ra and dec are needed, it has {columns}")
    ra, dec = (np.asarray(catalog[name].values, dtype=np.float64) for name in ("ra", "dec"))
    if np.any(np.abs(dec) > 90.0):
        raise InputError(f"{what} has declinations beyond 90 degrees; are ra and dec swapped, or in other units?")
    return ra, dec


def _arcsec(angle: Radius, name: str) -> float:
    """An angle in arcsec; `InputError` where it is none, negative or not finite."""
    if isinstance(angle, str):
        raise InputError(f"{name} is an angle, or a number of arcsec; got {angle!r}")
    try:
        value = float(angle.to_value(u.arcsec) if isinstance(angle, u.Quantity) else angle)
    except (u.UnitConversionError, TypeError, ValueError) as error:
        raise InputError(f"{name} is an angle, or a number of arcsec; got {angle!r}") from error
    if not (np.isfinite(value) and value >= 0.0):
        raise InputError(f"{name} must be at least 0 arcsec; got {angle!r}")
    return value


def _column(catalog: xr.Dataset, name: str) -> xr.DataArray | None:
    found = _SHORT.get(name, name)
    if found not in catalog.variables or "source" not in catalog[found].dims:
        return None
    if catalog[found].dims != ("source",):
        raise InputError(f"{name} has dimensions {catalog[found].dims}; select one epoch first, with isel(time=...)")
    return catalog[found]


def _chosen(left: xr.Dataset, right: xr.Dataset, columns: Iterable[str] | None) -> list[str]:
    """Columns to put side by side; `InputError` on one that neither catalog has."""
    known = [str(n) for c in (left, right) for n in ("ra", "dec", *c.variables) if _has(c, str(n))]
    if columns is None:
        return list(dict.fromkeys(known))
    wanted = [columns] if isinstance(columns, str) else list(dict.fromkeys(columns))
    unknown = [n for n in wanted if _column(left, n) is None and _column(right, n) is None]
    if unknown:
        raise InputError(f"no catalog has a column {', '.join(unknown)}; there are {', '.join(dict.fromkeys(known))}")
    return wanted


# ---- VizieR ---------------------------------------------------------------------------------------------------------


def query_catalog(
    obj: xr.Dataset | xr.DataArray | SkyCoord,
    catalog: Literal["ps1", "gaia"],
    *,
    radius: Radius | None = None,
    margin: float = 0.0,
    max_mag: float | None = None,
    timeout: float = 60.0,
) -> xr.Dataset:
    """The sources of Pan-STARRS1 or Gaia on an image, from VizieR over the network. Computes.

    Needs astroquery: ``pip install "ztfxr[catalogs]"``. Keep the result with `ztfxr.to_parquet`; `ztfxr.read_catalog`
    reads it, and any other local catalog, without a network.

    Parameters
    ----------
    obj
        An image with a WCS: the cone around it is asked for, and cut to the frame. Or a position, with `radius`.
    catalog
        ``"ps1"``, DR1 (`II/349/ps1`, Chambers et al. 2016): mean PSF magnitudes (AB) `mag_g`, `mag_r`, `mag_i`,
        `mag_z`, `mag_y`. ``"gaia"``, DR3 (`I/355/gaiadr3`, Gaia Collaboration 2023): `mag_g`, `mag_bp`, `mag_rp`
        (Vega), `pmra`, `pmdec` (mas/yr), `parallax` (mas), `ruwe`. Errors are `mag_g_err`, ...
    radius
        Radius of the cone: an angle, or a number of arcsec. Where it is given, nothing is cut to the frame.
    margin
        Pixels that a source must keep from the edge of the frame; negative ones let it lie outside.
    max_mag
        Only sources brighter than this in `mag`.
    timeout
        Seconds to wait for the answer.

    Returns
    -------
    xarray.Dataset
        On `source`: coordinates `ra`, `dec` (deg, ICRS), `source_id`, the magnitudes above, and as `mag` the one
        nearest to the image's filter (PS1 g, r, i for ztfg, ztfr, ztfi; always G for Gaia). Gaia's positions are moved
        from 2016.0 to the image's `time` where it has one. `x_centroid`, `y_centroid` on the image's frame.

    Raises
    ------
    InputError, MissingWCSError
    CatalogError
        The service gave no usable answer.
    MissingDependencyError
        astroquery is not installed.
    """
    if catalog not in SURVEYS:
        raise InputError(f"catalog is {' or '.join(map(repr, SURVEYS))}; got {catalog!r}")
    survey, image = SURVEYS[catalog], None if isinstance(obj, SkyCoord) else obj
    center, cone = _cone(obj, radius, margin)
    band = survey.band(_filter(image))
    if max_mag is not None and band is None:
        raise InputError("max_mag needs to know the filter: give an image with the coordinate 'filter'")
    limits = {} if max_mag is None or band is None else {band: max_mag}
    found = query_cone(survey, center, cone, limits=limits, timeout=timeout)
    if band in found:
        found = found.assign(mag=found[band])
    found.attrs = {"catalog": catalog, "vizier": survey.vizier}
    if survey.epoch is not None:
        found = _at_epoch(found, survey.epoch, image)
    if image is None:
        return found
    return in_footprint(found, image, margin=margin) if radius is None else _with_pixels(found, image)


def _cone(obj: Image | SkyCoord, radius: Radius | None, margin: float) -> tuple[SkyCoord, float]:
    """Center and radius in degrees of what to ask for."""
    if isinstance(obj, SkyCoord):
        if radius is None or not obj.isscalar:
            raise InputError("the sky around one position is asked for: give one, and a radius=, in arcsec or an angle")
        return obj.icrs, _arcsec(radius, "radius") / 3600.0
    middle = center(obj)
    if radius is not None:
        return middle, _arcsec(radius, "radius") / 3600.0
    edge = float(middle.separation(footprint(obj, per_side=8)).deg.max())
    around = max(0.0, -margin) * float(np.max(pixel_scale(obj))) / 3600.0
    return middle, edge + around + _MOVED_DEG


def _filter(image: Image | None) -> str:
    if image is None or "filter" not in image.coords or image.coords["filter"].ndim:
        return ""
    return str(image.coords["filter"].values)


def _at_epoch(catalog: xr.Dataset, epoch: float, image: Image | None) -> xr.Dataset:
    """`catalog` with its positions moved to the time of the image, where that is known."""
    time = None if image is None else image.coords.get("time")
    if time is None or time.ndim or not _has(catalog, "pmra", "pmdec"):
        return catalog.assign_attrs(epoch=epoch)
    days = (time.values - np.datetime64("2000-01-01T12:00:00", "ns")) / np.timedelta64(1, "D")
    now = 2000.0 + float(days) / 365.25
    pmra, pmdec = (catalog[name].values.astype(np.float64) for name in ("pmra", "pmdec"))
    ra, dec = moved(*_sky(catalog, "the catalog"), pmra, pmdec, now - epoch)
    out = as_catalog(catalog.assign(ra=("source", ra), dec=("source", dec)))
    return out.assign_attrs(epoch=round(now, 4))
