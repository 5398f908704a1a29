"""The real quadrant, unpacked to a temporary folder; benchmarks on it are skipped where it is missing."""

from __future__ import annotations

import gzip
import os
import shutil
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

QUADRANT = "ztf_20200924431759_000655_zr_c13_o_q3_sciimg.fits"
_folders: list[TemporaryDirectory[str]] = []


@cache
def quadrant_path() -> Path:
    """The science image, its mask beside it; NotImplementedError, which asv takes for "skip", without the data."""
    shared = Path(os.environ.get("ZTFXR_SHARED") or Path(__file__).parents[2] / "shared")
    packed = shared / "data" / "ztf_quadrant" / f"{QUADRANT}.gz"
    if not packed.exists():
        raise NotImplementedError(f"no real data: {packed} is missing; set ZTFXR_SHARED to the folder that holds data/")
    folder = TemporaryDirectory(prefix="ztfxr-benchmark-")
    _folders.append(folder)
    for source in (packed, packed.with_name(packed.name.replace("sciimg", "mskimg"))):
        with gzip.open(source) as stream, (Path(folder.name) / source.stem).open("wb") as plain:
            shutil.copyfileobj(stream, plain, 1 << 20)
    return Path(folder.name) / QUADRANT
