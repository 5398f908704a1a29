"""Light curves of the ZTF forced photometry service by its recipe: rows kept and dropped, levels, calibration.

    python -m benchmarks.zfps DIR [--variable NAME ...] [--quiet NAME START END] [--min-epochs N]

NAME is a part of a file's name. Every file is read, cut, calibrated and put on the level of its quiet epochs. Stars
that always vary have none, and get the flux of the reference added (--variable). Where too few epochs are found to be
quiet, the time in which the transient was seen can be given as MJD (--quiet).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

import ztfxr
from ztfxr.photometry.cuts import PROCSTATUS


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table of each file of a folder."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.zfps", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", type=Path, metavar="DIR")
    parser.add_argument("--variable", nargs="+", default=[], metavar="NAME", help="stars that always vary")
    parser.add_argument("--quiet", nargs=3, action="append", default=[], metavar=("NAME", "START", "END"))
    parser.add_argument("--min-epochs", type=int, default=5, metavar="N", help="quiet epochs of a level (5)")
    options = parser.parse_args(arguments)
    windows = {name: (float(start), float(end)) for name, start, end in options.quiet}
    for path in sorted(options.folder.glob("*.txt")):
        variable = any(name in path.name for name in options.variable)
        window = next((w for name, w in windows.items() if name in path.name), None)
        given = {} if window is None else {"quiet": window, "min_epochs": options.min_epochs}
        print("\n".join(report(path, variable=variable, **given)), end="\n\n")


def report(path: Path, *, variable: bool = False, **baseline: Any) -> list[str]:
    """What became of one file, in words."""
    raw = ztfxr.read_zfps(path)
    marked = ztfxr.quality_cuts(raw, max_sky_noise=25.0, max_seeing=4.0)
    lc = ztfxr.clean_zfps(raw, variable=variable, **baseline)
    return [f"{path.name}: {_rows(marked)}", *_codes(raw), *_groups(lc), _calibrated(lc)]


def _rows(marked: xr.Dataset) -> str:
    counts = ztfxr.cut_counts(marked).to_series()
    why = ", ".join(f"{reason} {n}" for reason, n in counts.drop(["kept", "cut"]).items() if n)
    return f"{counts['kept']} of {marked['cuts'].size} rows kept, {counts['cut']} cut ({why or 'none'})"


def _codes(raw: xr.Dataset) -> list[str]:
    values, counts = np.unique(raw["procstatus"].values.astype(str), return_counts=True)
    meanings = (
        (value, n, [PROCSTATUS.get(int(c), "unknown") for c in value.split(",")])
        for value, n in zip(values, counts, strict=True)
    )
    return [f"  procstatus {value}: {n} rows ({'; '.join(what)})" for value, n, what in meanings]


def _groups(lc: xr.Dataset) -> list[str]:
    table = ztfxr.baseline_table(lc).isel(source=0)
    lines = ["  field ccd quadrant filter        rfid  rows  kept  quiet  baseline (uJy)    error  error factor"]
    for i in range(table.sizes["group"]):
        row = table.isel(group=i)
        level = [float(row[k]) if k in row else np.nan for k in ("n_baseline", "baseline", "baseline_err")]
        lines.append(
            f"  {int(row.field):5d} {int(row.ccdid):3d} {int(row.qid):8d} {row['filter'].item():6} {int(row.rfid):11d} "
            f"{int(row.n_epochs):5d} {int(row.n_good):5d} {level[0]:6.0f} {level[1]:15.2f} {level[2]:8.2f} "
            f"{float(row.error_factor):13.2f}"
        )
    return lines


def _calibrated(lc: xr.Dataset) -> str:
    if "total_ujy" in lc:
        good = (lc["cuts"] == 0) & np.isfinite(lc["total_ujy"])
        median = float(lc["total_ujy"].where(good).median())
        return f"  calibrated: total flux of {int(good.sum())} rows, median {median:.0f} uJy"
    mags = ztfxr.magnitudes(lc)
    usable, detected = int((lc["cuts"] == 0).sum()), int(mags["detected"].sum())
    if usable == 0:
        return "  calibrated, but on no level: too few quiet epochs were found; give --quiet, or --variable for a star"
    brightest = f", the brightest {float(mags['mag'].min()):.2f} mag" if detected else ""
    found = f"{detected} detected at 3 sigma{brightest}, {usable - detected} limits"
    return f"  calibrated: {usable} rows on their level, {found}"


if __name__ == "__main__":
    main()
