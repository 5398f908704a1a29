"""Ways to work on one image: ``clean.py PATH`` runs them as it is told, by lines ``time METHOD`` or ``memory METHOD``.

Every line of its input is answered by a number: seconds, or the megabytes by which memory rose.
"""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

Run = Callable[[], Any]

PLANES = 6141
_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def mask_beside(path: str) -> str:
    """The mask image of a science image."""
    return path.replace("sciimg", "mskimg")


def read_by_hand(path: str) -> tuple[Any, Any]:
    """The image in native byte order, and where IPAC's recommended planes are set."""
    from astropy.io import fits

    with fits.open(path) as hdus:
        image = hdus[0].data.astype(np.float32)
    with fits.open(mask_beside(path)) as hdus:
        bad = (hdus[0].data & PLANES) != 0
    return image, bad


def by_hand(path: str) -> Run:
    """astropy, sep and numpy as one writes it."""
    import sep

    def run() -> Any:
        image, bad = read_by_hand(path)
        out = image - sep.Background(image, mask=bad).back()
        out[bad] = np.nan
        return out

    return run


def by_hand_in_place(path: str) -> Run:
    """The same with as few arrays as it takes."""
    import sep

    def run() -> Any:
        image, bad = read_by_hand(path)
        sep.Background(image, mask=bad).subfrom(image)
        image[bad] = np.nan
        return image

    return run


def with_dask(path: str) -> Run:
    """ztfxr's defaults: dask inside until somebody asks for numbers."""
    import ztfxr

    return lambda: ztfxr.open_quadrant(path).ztf.clean().compute().values


def loaded(path: str) -> Run:
    """Read first, then numpy inside."""
    import ztfxr

    return lambda: ztfxr.open_quadrant(path).load().ztf.clean().values


def without_dask(path: str) -> Run:
    """Numpy inside from the start."""
    import ztfxr

    return lambda: ztfxr.open_quadrant(path, chunks=False).ztf.clean().values


def by_ztfimg(path: str) -> Run:
    """ztfimg's defaults: sources masked for the background, boxes of 192 pixels."""
    from ztfimg.science import ScienceQuadrant

    def run() -> Any:
        image = ScienceQuadrant.from_filename(path, filename_mask=mask_beside(path))
        return image.get_data(apply_mask=True, rm_bkgd=True)

    return run


def large_boxes(path: str) -> Run:
    """ztfxr with dask and the boxes of ztfimg."""
    import ztfxr

    return lambda: ztfxr.open_quadrant(path).ztf.clean(background=ztfxr.SkyOptions(box_size=192)).compute().values


def like_ztfimg(path: str) -> Run:
    """ztfxr with dask, the background measured as ztfimg does."""
    import ztfxr

    def run() -> Any:
        frame = ztfxr.open_quadrant(path)
        sky = frame.ztf.background(mask=frame.ztf.mask(sexsources=True, psfsources=True), box_size=192)
        return frame.ztf.clean(background=sky).compute().values

    return run


def labels(path: str) -> Run:
    """RA and Dec of all pixels, read off the labels."""
    import ztfxr

    def run() -> Any:
        frame = ztfxr.open_quadrant(path)
        return frame["ra"].values, frame["dec"].values

    return run


def labels_by_hand(path: str) -> Run:
    """RA and Dec of all pixels by astropy."""
    from astropy.io import fits
    from astropy.wcs import WCS

    def run() -> Any:
        header = fits.getheader(path)
        header["RADESYS"] = header.pop("RADECSYS", "ICRS")
        y, x = np.mgrid[: header["NAXIS2"], : header["NAXIS1"]]
        return WCS(header).all_pix2world(x, y, 0)

    return run


METHODS: dict[str, Callable[[str], Run]] = {
    "by hand": by_hand,
    "by hand, in place": by_hand_in_place,
    "ztfxr": with_dask,
    "ztfxr, loaded": loaded,
    "ztfxr, no dask": without_dask,
    "ztfimg": by_ztfimg,
    "ztfxr, boxes of 192": large_boxes,
    "ztfxr like ztfimg": like_ztfimg,
    "labels": labels,
    "labels by hand": labels_by_hand,
}


def megabytes(field: str) -> float:
    """A line of this process's status; 0 where the system has none."""
    if not _STATUS.exists():
        return 0.0
    lines = (line.split() for line in _STATUS.read_text().splitlines())
    return next((int(words[1]) / 1024 for words in lines if words[0] == f"{field}:"), 0.0)


def seconds(run: Run) -> float:
    """Time of one run, with the garbage collector off as in `timeit`."""
    gc.collect()
    gc.disable()
    try:
        start = perf_counter()
        run()
        return perf_counter() - start
    finally:
        gc.enable()


def memory(run: Run) -> float:
    """Megabytes above what was in use before; what is free is given back first, where the system can."""
    gc.collect()
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
    if _RESET.exists():
        _RESET.write_text("5")
    before = megabytes("VmRSS")
    run()
    return megabytes("VmHWM") - before


MEASURES: dict[str, Callable[[Run], float]] = {"time": seconds, "memory": memory}


def main() -> None:
    """Answer line by line; a method warms up when it is first asked for."""
    runs: dict[str, Run] = {}
    for line in sys.stdin:
        measure, method = line.strip().split(maxsplit=1)
        if method not in runs:
            runs[method] = METHODS[method](sys.argv[1])
            runs[method]()
        print(MEASURES[measure](runs[method]), flush=True)


if __name__ == "__main__":
    main()
