"""What commands write: the extension of ``--out`` decides how, and a file is there whole or not at all."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import numpy as np
import rich_click as click
import xarray as xr

from ztfxr.errors import InputError, StoreError
from ztfxr.io.remote import is_url
from ztfxr.store._files import new_file
from ztfxr.store.fits import to_fits
from ztfxr.store.regions import to_regions
from ztfxr.store.tables import to_dataframe, to_parquet, to_table
from ztfxr.store.zarr import to_zarr

__all__ = [
    "FIGURES",
    "IMAGES",
    "STORES",
    "TABLES",
    "check_outputs",
    "out_option",
    "plots",
    "save_figure",
    "suffix",
    "write",
]

F = TypeVar("F", bound=Callable[..., Any])
Writer = Callable[..., None]

FIGURES = (".png", ".pdf", ".svg")
STORES = (".zarr", ".zarr.zip")


def _csv(obj: Any, path: Path, *, overwrite: bool) -> None:
    with new_file(path, overwrite) as partial:
        to_dataframe(obj).to_csv(partial, index=False)


def _astropy(form: str) -> Writer:
    def writer(obj: Any, path: Path, *, overwrite: bool) -> None:
        with new_file(path, overwrite) as partial:
            to_table(obj).write(partial, format=form)

    return writer


IMAGES: Mapping[str, Writer] = {".fits": to_fits, ".fits.gz": to_fits, ".zarr": to_zarr, ".zarr.zip": to_zarr}
"""Writers of images by extension."""
TABLES: Mapping[str, Writer] = {
    ".csv": _csv,
    ".ecsv": _astropy("ascii.ecsv"),
    ".parquet": to_parquet,
    ".fits": _astropy("fits"),
    ".reg": to_regions,
    ".zarr": to_zarr,
    ".zarr.zip": to_zarr,
}
"""Writers of tables by extension; CSV has no units, the others do."""


def out_option(help: str, *, multiple: bool = False, default: str | None = None) -> Callable[[F], F]:  # noqa: A002
    """The options ``--out`` and ``--overwrite``."""

    def decorate(function: F) -> F:
        name = click.option("--out", multiple=multiple, metavar="FILE", default=default, help=help)
        return name(click.option("--overwrite", is_flag=True, help="Replace what exists.")(function))

    return decorate


def suffix(path: str, known: Sequence[str]) -> str:
    """Which of the extensions `known` a path has; `click.UsageError` where it has none of them."""
    found = [each for each in known if path.lower().rstrip("/").endswith(each)]
    if not found:
        raise click.UsageError(f"--out {path}: its extension decides the format, and is one of {' '.join(known)}")
    return max(found, key=len)


def check_outputs(paths: Sequence[str], known: Sequence[str], *, overwrite: bool) -> None:
    """Refuse, before anything is computed, what could not be written in the end."""
    for path in paths:
        suffix(path, known)
        if is_url(path):
            continue
        place = Path(path)
        if place.exists() and not overwrite:
            raise StoreError(f"{path} exists already; name another file with --out, or replace it with --overwrite")
        if not place.absolute().parent.is_dir():
            raise InputError(f"the folder {place.parent} does not exist; make it first, or name another with --out")


def write(
    obj: xr.Dataset | xr.DataArray | xr.DataTree, path: str, how: Mapping[str, Writer], *, overwrite: bool
) -> Path:
    """Write an object as the extension of `path` says."""
    how[suffix(path, tuple(how))](obj, path if is_url(path) else Path(path), overwrite=overwrite)
    return Path(path)


def plots() -> ModuleType:
    """`ztfxr.plot`, which draws without a screen."""
    import matplotlib as mpl

    mpl.use("Agg")
    from ztfxr import plot

    return plot


def save_figure(drawn: Any, path: str, *, overwrite: bool) -> Path:
    """Write a figure, or that of axes, and forget it."""
    import matplotlib.pyplot as plt

    figure = drawn if hasattr(drawn, "savefig") else np.ravel(drawn)[0].get_figure()
    with new_file(path, overwrite) as partial:
        figure.savefig(partial, dpi=150, format=suffix(path, FIGURES)[1:])
    plt.close(figure)
    return Path(path)
