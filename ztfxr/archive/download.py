"""Files and cut-outs into the folder: in parallel, resumed, whole or not at all, and for each what became of it."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeAlias
from urllib.parse import quote

import numpy as np
import xarray as xr

from ztfxr.archive.files import DamagedError, Partial, check, find, is_page, partial, place_of, remove_stale, unpack
from ztfxr.archive.settings import Archive
from ztfxr.archive.web import Client, StoppedError, Transfer
from ztfxr.errors import ArchiveError, InputError
from ztfxr.io.cutouts import cut_out
from ztfxr.io.fits import DAMAGE
from ztfxr.io.names import Product, Window, parse_product

__all__ = ["STATES", "Outcome", "State", "download", "fetch"]

State: TypeAlias = Literal["ok", "cached", "missing", "no access", "off frame", "damaged", "failed"]
STATES = ("ok", "cached", "missing", "no access", "off frame", "damaged", "failed")
"""What becomes of a file: fetched; there before; not in the archive; not for this log-in; beside the image; not what
its name says, each time it came; not fetched for another reason."""

_NOT_THERE = "the archive does not have it"
_REFUSED = "not asked: the log-in was refused"
_MOST_BYTES = 1 << 28
_RETRY_MISSING_S = 86400.0
_TRIES_IF_DAMAGED = 2


@dataclass(frozen=True)
class Outcome:
    """What became of one file."""

    product: Product
    state: State
    reason: str = ""
    path: Path | None = None


def download(
    rows: xr.Dataset | Iterable[str],
    products: str | Sequence[str] | None = None,
    *,
    size: int | None = None,
    archive: Archive | None = None,
    retry_missing: bool = False,
    progress: bool = False,
) -> xr.Dataset:
    """Fetch the files of rows, or cut-outs of them, into the archive's root. Computes: asks for what is not there.

    Cut-outs of files that are kept whole are made from these. A file is written beside its place and renamed when it is
    whole; what is there is not asked for again, nor what was missing less than a day ago. A download that was killed
    goes on where it stopped. Processes may share a root.

    Parameters
    ----------
    rows
        Rows of `search`, or names of products.
    products
        Suffixes to fetch for each row, such as ``("sciimg.fits", "mskimg.fits")``; by default the rows' own files.
    size
        Side in pixels of square cut-outs around the position that was searched; odd. All products of a row are cut
        alike, to the pixel. By default whole files.
    archive
        How to ask, and where files go; by default as `Archive` says.
    retry_missing
        Ask again for what was missing less than a day ago.
    progress
        Say on standard error how far it is, with rate and remaining time.

    Returns
    -------
    xarray.Dataset
        On `file`: `name`, `row` (its number), `state` (one of `STATES`), `reason`, and the `path` on this
        machine ("" for none). ``attrs`` count `requests` and `bytes` received.

    Raises
    ------
    InputError
        `size` without rows of a position, or a name that is none of the archive's.
    StoreError
        The root cannot be written to.
    """
    archive = archive or Archive()
    numbers, wanted = _wanted(rows, [products] if isinstance(products, str) else products, size)
    found, requests, received = fetch(wanted, archive, retry_missing=retry_missing, progress=progress)
    out = xr.Dataset(
        {
            "name": ("file", np.array([o.product.name for o in found], dtype=str)),
            "row": ("file", np.array(numbers, dtype=np.int64)),
            "state": ("file", np.array([o.state for o in found], dtype=str)),
            "reason": ("file", np.array([o.reason for o in found], dtype=str)),
            "path": ("file", np.array([str(o.path or "") for o in found], dtype=str)),
        }
    )
    return out.assign_attrs(requests=requests, bytes=received)


def fetch(
    wanted: Sequence[Product], archive: Archive, *, retry_missing: bool = False, progress: bool = False
) -> tuple[list[Outcome], int, int]:
    """What became of each product, the number of requests, and the bytes received. Each product is fetched once."""
    once = list(dict.fromkeys(wanted))
    remove_stale(place_of(archive, product) for product in once)
    with Client(archive) as client, _Bar(len(once), client, enabled=progress) as bar:
        work = _Work(archive, client, retry_missing)
        with _pool(archive.connections) as pool:
            outcomes = {}
            for outcome in pool.map(work.fetch_one, once):
                outcomes[outcome.product] = outcome
                bar.step()
        return [outcomes[product] for product in wanted], client.requests, client.bytes


@contextmanager
def _pool(workers: int) -> Iterator[ThreadPoolExecutor]:
    """Threads that begin nothing new once the block was left by an error or by the user."""
    pool = ThreadPoolExecutor(workers, thread_name_prefix="ztfxr-archive")
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


@dataclass
class _Work:
    """Fetches one product after the other; what all threads share."""

    archive: Archive
    client: Client
    retry_missing: bool

    def __post_init__(self) -> None:
        self._refused = threading.Event()

    def fetch_one(self, product: Product) -> Outcome:
        """What became of a product; every failure is a state, but for a folder that cannot be written."""
        kept = find(self.archive, product)
        if kept is not None:
            return Outcome(product, "cached", path=kept)
        whole = find(self.archive, product.whole) if product.window is not None else None
        if whole is not None:
            return self._cut(product, whole)
        if self.archive.offline:
            return Outcome(product, "missing", "offline, and not kept")
        if self._refused.is_set():
            return Outcome(product, "no access", _REFUSED)
        if not self.retry_missing and (since := _missed(self.archive, product)):
            return Outcome(product, "missing", f"was missing at {since}, and is asked for again a day later")
        target = place_of(self.archive, product)
        with partial(target) as part:
            if find(self.archive, product) == target:
                part.discard()
                return Outcome(product, "cached", path=target)
            outcome = self._fetched(product, part, target)
            if outcome.state not in ("ok", "failed"):
                part.discard()
        if outcome.state == "missing" and outcome.reason.startswith(_NOT_THERE):
            _note_missing(self.archive, product)
        return outcome

    def _cut(self, product: Product, whole: Path) -> Outcome:
        """A cut-out of a file that is kept."""
        target = place_of(self.archive, product)
        with partial(target) as part:
            try:
                data = cut_out(whole, product.window) if product.window is not None else None
            except DAMAGE as error:
                part.discard()
                return Outcome(product, "damaged", f"{whole.name}, which is kept, cannot be read: {error}")
            if data is None:
                part.discard()
                return Outcome(product, "off frame", "the cut-out lies off the image")
            part.begin("")
            part.file.write(data)
            part.finish(target)
        return Outcome(product, "cached", "cut from the file that is kept", target)

    def _fetched(self, product: Product, part: Partial, target: Path) -> Outcome:
        damaged: list[str] = []

        def once() -> Outcome:
            url, fields, headers = self._question(product, part)
            with self.client.open(url, fields, headers=headers, login=self.archive.login_for(url)) as answer:
                refusal = self._refusal(product, answer, part)
                if refusal is not None:
                    return refusal
                try:
                    return self._keep(product, part, target, answer)
                except DamagedError as error:
                    part.begin("")
                    damaged.append(str(error))
            if len(damaged) < _TRIES_IF_DAMAGED:
                raise StoppedError(damaged[-1])
            return Outcome(product, "damaged", damaged[-1])

        try:
            return self.client.retried(once)
        except ArchiveError as error:
            return Outcome(product, "failed", str(error))

    def _question(self, product: Product, part: Partial) -> tuple[str, dict[str, str], dict[str, str]]:
        url = f"{self.archive.addresses.data}/{quote(product.whole.path)}"
        cut = product.window
        if cut is not None:
            fields = {"center": f"{cut.x},{cut.y}px", "size": f"{cut.width},{cut.height}px", "gzip": "false"}
            return url, fields, {}
        got, tag = part.resumed()
        return url, {}, {"Range": f"bytes={got}-", "If-Range": tag} if got else {}

    def _refusal(self, product: Product, answer: Transfer, part: Partial) -> Outcome | None:
        """What a status other than that of a file means."""
        if answer.status in (200, 206):
            return None
        if answer.status == 416:
            part.begin("")
            raise StoppedError("the file on the server is shorter than what came of it")
        if answer.status in (404, 410):
            return Outcome(product, "missing", f"{_NOT_THERE} ({answer.status})")
        if answer.status == 400 and product.window is not None:
            return Outcome(product, "off frame", "the cut-out lies off the image")
        if answer.status in (401, 403):
            if answer.status == 401 and self.archive.who is not None:
                self._refused.set()
                return Outcome(product, "no access", "the archive refuses the log-in (401)")
            return Outcome(product, "no access", f"it needs another log-in ({answer.status})")
        return Outcome(product, "failed", f"the archive answers {answer.status}")

    def _keep(self, product: Product, part: Partial, target: Path, answer: Transfer) -> Outcome:
        """Write what comes, check it, and give it its name."""
        _begin(part, answer)
        size = 0
        for chunk in answer.chunks:
            if size == 0 and answer.status == 200 and is_page(chunk):
                return Outcome(product, "missing", "a web page came in its place: no such file, or a log-in page")
            size += len(chunk)
            if size > _MOST_BYTES:
                raise DamagedError(f"more than {_MOST_BYTES} bytes came")
            part.file.write(chunk)
        part.file.flush()
        unpack(part, product)
        part.file.flush()
        check(part.path, product)
        part.finish(target)
        return Outcome(product, "ok", path=target)


def _begin(part: Partial, answer: Transfer) -> None:
    """Go on behind what is there, if the server does too and still has the same file; else from the start."""
    tag, (got, known) = answer.headers.get("ETag", ""), part.resumed()
    if answer.status == 206:
        if got and tag in ("", known) and answer.headers.get("Content-Range", "").startswith(f"bytes {got}-"):
            part.file.seek(0, 2)
            return
        part.begin("")
        raise StoppedError("the file changed on the server while it came")
    part.begin("" if tag.startswith("W/") else tag)


def _wanted(
    rows: xr.Dataset | Iterable[str], suffixes: Sequence[str] | None, size: int | None
) -> tuple[list[int], list[Product]]:
    """The products to fetch, and the number of the row of each."""
    if not isinstance(rows, xr.Dataset):
        whole = [parse_product(name) for name in ([rows] if isinstance(rows, str) else rows)]
    elif "path" in rows and "row" in rows["path"].dims:
        whole = [parse_product(str(path)) for path in rows["path"].values]
    else:
        raise InputError("download takes rows as ztfxr.archive.search gives them, or names of products")
    windows = [None] * len(whole) if size is None else _windows(rows, size)
    numbers, out = [], []
    for number, (product, window) in enumerate(zip(whole, windows, strict=True)):
        beside = [product] if suffixes is None else [product.beside(suffix) for suffix in suffixes]
        out += [replace(one, window=window) if window is not None else one for one in beside]
        numbers += [number] * len(beside)
    return numbers, out


def _windows(rows: xr.Dataset | Iterable[str], size: int) -> list[Window]:
    """The window of each row, around the pixel where the linear WCS has the position."""
    if not (isinstance(size, int) and size > 0 and size % 2 == 1):
        raise InputError(f"size is a side in pixels, odd so that it has a middle; got {size!r}")
    if not isinstance(rows, xr.Dataset) or not {"x", "y"} <= set(rows):
        raise InputError("cut-outs need rows of a search by position, with x and y")
    x, y = (np.rint(rows[name].values) + 1 for name in ("x", "y"))
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise InputError("a row has no WCS, so no cut-out of it can be asked for; leave it out")
    return [Window(max(0, int(a)), max(0, int(b)), size, size) for a, b in zip(x, y, strict=True)]


# ---- what was missing -----------------------------------------------------------------------------------------------


def _record(archive: Archive, product: Product) -> Path:
    return archive.root / ".ztfxr" / "missing" / f"{product.name}.json"


def _missed(archive: Archive, product: Product) -> str:
    """When a product was missing, if that is less than a day ago; else ""."""
    path = _record(archive, product)
    try:
        if time.time() - path.stat().st_mtime < _RETRY_MISSING_S:
            return str(json.loads(path.read_text())["asked"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return ""


def _note_missing(archive: Archive, product: Product) -> None:
    path = _record(archive, product)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"asked": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}))


# ---- progress -------------------------------------------------------------------------------------------------------


class _Bar:
    """Files, bytes, rate and remaining time, on one line that renews itself."""

    def __init__(self, total: int, client: Client, *, enabled: bool) -> None:
        self.total, self.done, self._client, self._enabled = total, 0, client, enabled and total > 0
        self._start, self._said = time.monotonic(), 0.0

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *error: object) -> None:
        if self._enabled:
            print(f"\r{self.line():<78}", file=sys.stderr, flush=True)

    def step(self) -> None:
        """One more file."""
        self.done += 1
        now = time.monotonic()
        if self._enabled and now - self._said > 0.5:
            self._said = now
            print(f"\r{self.line():<78}", end="", file=sys.stderr, flush=True)

    def line(self) -> str:
        """What is said."""
        seconds = max(1e-3, time.monotonic() - self._start)
        left = (self.total - self.done) * seconds / self.done if self.done else float("nan")
        rate = self._client.bytes / seconds / 1e6
        return (
            f"{self.done} of {self.total} files, {self._client.bytes / 1e6:.1f} MB, {rate:.1f} MB/s, {left:.0f} s left"
        )
