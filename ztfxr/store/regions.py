"""Catalogs as ds9 region files."""

from __future__ import annotations

import re
from collections.abc import Iterator
from os import PathLike
from typing import Literal, get_args

import numpy as np
import xarray as xr
from astropy import units as u
from astropy.coordinates import SkyCoord
from numpy.typing import NDArray

from ztfxr.arrays.types import Floats
from ztfxr.errors import InputError
from ztfxr.io.tables import Catalog, as_catalog
from ztfxr.store._files import new_file

__all__ = ["to_regions"]

Frame = Literal["icrs", "fk5", "physical"]

_SHAPE = ("semimajor_axis", "semiminor_axis", "orientation")
_COLOR = re.compile(r"[A-Za-z]+|#[0-9A-Fa-f]{6}")


def to_regions(
    catalog: Catalog,
    path: str | PathLike[str],
    *,
    frame: Frame = "icrs",
    radius: float | u.Quantity | str = 3.0,
    scale: float = 3.0,
    label: str | None = None,
    color: str = "green",
    overwrite: bool = False,
) -> None:
    """Write a catalog as a ds9 region file, whole or not at all. Computes.

    Parameters
    ----------
    catalog
        A catalog in any form that `ztfxr.as_catalog` takes. Sources without a position are left out.
    path
        The file, ``.reg`` by custom.
    frame
        ``"icrs"`` or ``"fk5"``: circles at `ra`, `dec`. ``"physical"``: at `x_centroid`, `y_centroid`, which are ds9's
        physical coordinates in the frame and in stamps of it that `ztfxr.to_fits` wrote; ellipses where the catalog
        has `semimajor_axis`, `semiminor_axis` (pixels) and `orientation` (degrees, or radians where its units say so,
        from +x to +y), else circles. There are no ellipses on the sky, because what their angle means in a mirrored
        image, as ZTF's are, differs between versions of ds9.
    radius
        Radius of the circles: an angle or a number of arcsec on the sky, pixels in the physical frame; or a column of
        these.
    scale
        By which the axes of ellipses are multiplied.
    label
        The column to write beside each source.
    color
        A name that ds9 knows, or ``#rrggbb``.
    overwrite
        Replace a file that exists.

    Raises
    ------
    InputError
        Columns that are missing, or an unknown frame or color.
    StoreError
        The file exists, or cannot be written.
    """
    if frame not in get_args(Frame):
        raise InputError(f"frame is 'icrs', 'fk5' or 'physical'; got {frame!r}")
    if not _COLOR.fullmatch(color):
        raise InputError(f"color is a name or #rrggbb; got {color!r}")
    table = as_catalog(catalog)
    shapes = _physical(table, radius, scale) if frame == "physical" else _circles(table, frame, radius)
    labels = [""] * table.sizes["source"] if label is None else _labels(_values(table, label))
    with new_file(path, overwrite) as partial, partial.open("w", encoding="utf-8") as file:
        file.write(f"# Region file format: DS9 version 4.1\nglobal color={color}\n{frame}\n")
        file.writelines(f"{shape}{text}\n" for shape, text in zip(shapes, labels, strict=True) if shape is not None)


def _values(table: xr.Dataset, name: str) -> NDArray[np.generic]:
    if name not in table.variables or table[name].dims != ("source",):
        raise InputError(f"the catalog has no column {name!r}; it has {', '.join(map(str, table.variables))}")
    values: NDArray[np.generic] = table[name].values
    return values


def _circles(table: xr.Dataset, frame: str, radius: float | u.Quantity | str) -> Iterator[str | None]:
    ra, dec = (_values(table, name).astype(np.float64) for name in ("ra", "dec"))
    sky = SkyCoord(ra, dec, unit="deg", frame="icrs").transform_to(frame)
    radii = _radii(table, radius, u.arcsec)
    for lon, lat, r in zip(sky.ra.deg, sky.dec.deg, radii, strict=True):
        yield f'circle({lon:.8f},{lat:.8f},{r:.4f}")' if np.isfinite([lon, lat, r]).all() else None


def _physical(table: xr.Dataset, radius: float | u.Quantity | str, scale: float) -> Iterator[str | None]:
    # ds9 counts pixels from 1.
    x, y = (_values(table, name).astype(np.float64) + 1.0 for name in ("x_centroid", "y_centroid"))
    if all(name in table.variables for name in _SHAPE):
        a, b, angle = (_values(table, name).astype(np.float64) for name in _SHAPE)
        angle = np.rad2deg(angle) if table["orientation"].attrs.get("units") in ("rad", "radian") else angle
        kind, numbers = "ellipse", np.stack([x, y, scale * a, scale * b, angle], axis=1)
    else:
        kind, numbers = "circle", np.stack([x, y, _radii(table, radius, u.pix)], axis=1)
    for row in numbers:
        yield f"{kind}({','.join(f'{n:.3f}' for n in row)})" if np.isfinite(row).all() else None


def _radii(table: xr.Dataset, radius: float | u.Quantity | str, unit: u.UnitBase) -> Floats:
    if isinstance(radius, str):
        return _values(table, radius).astype(np.float64)
    try:
        value = float(radius.to_value(unit) if isinstance(radius, u.Quantity) else radius)
    except u.UnitConversionError as error:
        raise InputError(f"radius={radius} is not in {unit}, which this frame needs") from error
    return np.full(table.sizes["source"], value)


def _labels(values: NDArray[np.generic]) -> list[str]:
    """Labels as ds9 writes them; what would end the label or the line is left out."""
    texts = [f"{v:.6g}" if values.dtype.kind == "f" else str(v) for v in values]
    return [f" # text={{{re.sub(r'[{}]|[^ -~]', '', text)}}}" for text in texts]
