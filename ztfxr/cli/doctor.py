"""``ztfxr doctor``: whether this installation works."""

from __future__ import annotations

import os
import platform
import re
import time
from importlib.metadata import PackageNotFoundError, requires, version
from typing import Any

import numpy as np
import xarray as xr
from threadpoolctl import threadpool_info

from ztfxr.cli._base import Reply, command
from ztfxr.photometry.lightcurve import lightcurve
from ztfxr.testing import make_scene

__all__ = ["doctor"]

_FLUX, _PULL = 5000.0, 5.0
_NAME = re.compile(r"[A-Za-z0-9._-]+")
_EXTRA = re.compile(r"extra\s*==\s*['\"]([^'\"]+)['\"]")
_NOT_FOR_USERS = ("all", "test", "docs")


@command("doctor")
def doctor() -> Reply:
    """Whether this installation works.

    Versions, threads and extras are listed, and a simulated star of known flux is measured. The exit code is 1
    where the star is not measured as it should be.
    """
    packages, extras = _packages()
    threads = {str(pool.get("internal_api", "")): int(pool.get("num_threads", 0)) for pool in threadpool_info()}
    check = _self_check()
    lines = [f"{name:16s} {text}" for name, text in packages.items()]
    lines.append(f"{'machine':16s} {platform.system()} {platform.machine()}, {_cores()} cores")
    lines.append(f"{'threads':16s} {', '.join(f'{name} {n}' for name, n in threads.items())}")
    for name, missing in extras.items():
        note = "there" if not missing else f'missing {", ".join(missing)}: pip install "ztfxr[{name}]"'
        lines.append(f"{f'extra {name}':16s} {note}")
    measured = f"a change of {check['injected']:.0f} DN measured as {check['flux']:.0f} +- {check['flux_err']:.0f}"
    lines.append(f"{'self-check':16s} {measured}: {'good' if check['good'] else 'WRONG'} ({check['seconds']:.1f} s)")
    data = {"packages": packages, "cores": _cores(), "threads": threads, "extras": extras, "self_check": check}
    return Reply(lines, data, failed=not check["good"])


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _packages() -> tuple[dict[str, str], dict[str, list[str]]]:
    """Versions of ztfxr, Python and what ztfxr rests on, and what each extra lacks."""
    found, extras = {"ztfxr": version("ztfxr"), "python": platform.python_version()}, dict[str, list[str]]()
    for requirement in requires("ztfxr") or []:
        match, extra = _NAME.match(requirement), _EXTRA.search(requirement)
        name = match[0] if match else requirement
        if name == "ztfxr" or (extra and extra[1] in _NOT_FOR_USERS):
            continue
        there = _version(name)
        if extra is None:
            found[name] = there or "missing"
        else:
            extras.setdefault(extra[1], []).extend([] if there else [name])
    return found, extras


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _self_check() -> dict[str, Any]:
    """Light curve of a simulated star that was in no reference."""
    start = time.monotonic()
    place = {"x": ("source", [48.3]), "y": ("source", [51.6])}
    star = xr.Dataset({**place, "flux": (("time", "source"), np.array([[0.0], [_FLUX]]))})
    made = make_scene(
        (96, 96), n_epochs=2, n_stars=40, n_galaxies=0, n_variables=0, n_transients=0, sources=star, seed=1
    )
    lc = lightcurve(made.images, [(48.3, 51.6)], reference=made.reference, radius=7.0).compute()
    truth = made.truth.isel(source=0)
    changed = truth["flux"].values - truth["reference_flux"].values * truth["transparency"].values
    flux, error = (lc[name].isel(source=0).values for name in ("flux", "flux_err"))
    good = bool(np.all(abs(flux - changed) < _PULL * error))
    found = {"injected": float(changed[-1]), "flux": float(flux[-1]), "flux_err": float(error[-1])}
    return {"good": good, **found, "seconds": time.monotonic() - start}
