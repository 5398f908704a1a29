"""Simulated alert packets in ZTF's form, where tests need packets and none of the real ones is at hand."""

from __future__ import annotations

import gzip
import io
from pathlib import Path
from typing import Any

import fastavro
import numpy as np
import xarray as xr
from astropy.io import fits

from ztfxr.io.alerts.packets import STAMPS
from ztfxr.testing import make_scene

_NUMBERS = ("jd", "magpsf", "sigmapsf", "magap", "sigmagap", "magzpsci", "fwhm", "xpos", "ypos", "exptime")
_WHOLE = ("fid", "field", "rcid", "nframesref")


def _stamp(pixels: np.ndarray[Any, Any]) -> dict[str, bytes]:
    stream = io.BytesIO()
    fits.PrimaryHDU(pixels.astype(np.float32)).writeto(stream)
    return {"stampData": gzip.compress(stream.getvalue(), mtime=0)}


def _schema() -> Any:
    cutout = {"type": "record", "name": "cutout", "fields": [{"name": "stampData", "type": "bytes"}]}
    candidate = {
        "type": "record",
        "name": "candidate",
        "fields": [{"name": n, "type": "double"} for n in _NUMBERS]
        + [{"name": n, "type": "int"} for n in _WHOLE]
        + [{"name": "isdiffpos", "type": "string"}],
    }
    named = [{"name": "objectId", "type": "string"}, {"name": "candid", "type": "long"}]
    stamps = [{"name": k, "type": cutout if i == 0 else "cutout"} for i, k in enumerate(STAMPS.values())]
    return fastavro.parse_schema(
        {"type": "record", "name": "alert", "fields": [*named, {"name": "candidate", "type": candidate}, *stamps]}
    )


def write_packets(folder: Path, n: int, *, flux: float = 4000.0, one_object: bool = False, seed: int = 0) -> list[Path]:
    """Write packets with a new star of `flux` DN, each a pair of its own, or all of one object."""
    folder.mkdir(parents=True)
    sources = xr.Dataset({"x": ("source", [31.0]), "y": ("source", [31.0])})
    light = np.full((n, 1), flux)
    none = {"n_galaxies": 0, "n_variables": 0, "n_transients": 0}
    scene = make_scene(
        (63, 63), n_epochs=n, n_stars=6, sources=sources.assign(flux=(("time", "source"), light)), seed=seed, **none
    )
    empty = make_scene((63, 63), n_epochs=1, n_stars=6, seed=seed, **none)
    paths = []
    for i in range(n):
        image, magzp = scene.images.isel(time=i), float(scene.images["magzp"][i])
        counts = float(scene.truth["flux"][i, 0])
        mag = magzp - 2.5 * np.log10(counts)
        reference = (
            empty.reference["sci"].values - float(empty.reference["sci"].median()) + float(image["sci"].median())
        )
        numbers = {
            "jd": float(image["mjd"]) + 2400000.5 - 15.0 / 86400.0,
            "magpsf": mag, "sigmapsf": 0.05, "magap": mag, "sigmagap": 0.05, "magzpsci": magzp,
            "fwhm": float(scene.truth["fwhm"][i]), "xpos": 1500.0, "ypos": 1600.0, "exptime": 30.0,
        }  # fmt: skip
        candidate = {**numbers, "fid": 2, "field": 655, "rcid": 50, "nframesref": 15, "isdiffpos": "t"}
        stamps = (image["sci"].values, reference, image["sci"].values - reference)
        record = {
            "objectId": "ZTF00simulat" if one_object else f"ZTF00simul{i:02d}",
            "candid": 1000 + i,
            "candidate": candidate,
            **{k: _stamp(pixels) for k, pixels in zip(STAMPS.values(), stamps, strict=True)},
        }
        paths.append(folder / f"{1000 + i}.avro")
        with paths[-1].open("wb") as stream:
            fastavro.writer(stream, _schema(), [record])
    return paths
