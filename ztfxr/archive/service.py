"""The forced photometry service: positions submitted in batches, followed, and fetched, each once, by a ledger."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import xarray as xr

from ztfxr.archive.login import Login
from ztfxr.archive.search import many_degrees
from ztfxr.archive.settings import Archive
from ztfxr.archive.web import Answer, Client
from ztfxr.errors import ArchiveError, InputError, StoreError
from ztfxr.io.times import JD_OF_MJD
from ztfxr.ops.positions import Positions
from ztfxr.pipeline.lock import locked
from ztfxr.store._files import new_file

__all__ = ["Account", "Service"]

_MOST_A_REQUEST = 1500
_CLOSE_DEG = 1e-4
_TRIES_IF_REFUSED = 10
_PATH = re.compile(r"/ztf/ops/[A-Za-z0-9_./-]+_lc\.txt")
_NAME = re.compile(r"[A-Za-z0-9_]+_lc\.txt")
_QUEUED = re.compile(
    r"(?:queued|submitted|accepted)\D{0,80}?(\d+)|(\d+)\D{0,80}?(?:queued|submitted|accepted)", re.IGNORECASE
)
_VARIABLES = ("ZTFFPS_EMAIL", "ZTFFPS_USERPASS", "ZTFFPS_USER", "ZTFFPS_PASSWORD")


@dataclass(frozen=True)
class Account:
    """Who asks the service, which no text of it shows and no file keeps: it cannot be pickled.

    Parameters
    ----------
    email, userpass
        What IPAC knows you by, as it sent it to you.
    pages
        The log-in that all users share, printed in the service's guide.
    """

    email: str = field(repr=False)
    userpass: str = field(repr=False)
    pages: Login

    def __reduce__(self) -> NoReturn:
        raise InputError("an account is not written to files; let each process find it in the environment")

    @classmethod
    def from_environment(cls) -> Account:
        """The account of ``ZTFFPS_EMAIL``, ``ZTFFPS_USERPASS``, ``ZTFFPS_USER`` and ``ZTFFPS_PASSWORD``.

        Raises
        ------
        InputError
            One of them is not set.
        """
        missing = [name for name in _VARIABLES if not os.environ.get(name)]
        if missing:
            raise InputError(f"the service needs an account: set {', '.join(missing)}, or give account=")
        email, userpass, user, password = (os.environ[name] for name in _VARIABLES)
        return cls(email, userpass, Login(user, password))

    @property
    def fields(self) -> dict[str, str]:
        """What forms have of it."""
        return {"email": self.email, "userpass": self.userpass}


class Service:
    """ZTF's forced photometry service, with a ledger of what was submitted, kept in a folder with the light curves.

    A position and its range of times are submitted once, whatever is killed in between: the ledger is written before
    and after each request, and what a killed one left open is looked for among the service's own jobs first.

    Parameters
    ----------
    folder
        Where the ledger and the light curves are.
    account
        Who asks; by default that of the environment.
    archive
        How to ask, and where the service is.
    settle
        Seconds after which a request without an answer was not heard, if the service does not list what it asked.

    Examples
    --------
    >>> import ztfxr
    >>> service = ztfxr.archive.Service("forced")  # doctest: +SKIP
    >>> service.submit([(210.8, 54.3)], time=(58200, 59000))  # doctest: +SKIP
    >>> service.wait()  # doctest: +SKIP
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        account: Account | None = None,
        archive: Archive | None = None,
        *,
        settle: float = 600.0,
    ) -> None:
        self.folder = Path(folder)
        self._account = account or Account.from_environment()
        self._archive = archive or Archive(login=False)
        self._ledger, self._settle = self.folder / "ledger.json", settle

    def submit(self, positions: Positions, *, time: tuple[float, float]) -> xr.Dataset:
        """Submit positions (RA, Dec in degrees) for a range of MJD, those that were not submitted before. Computes.

        Returns
        -------
        xarray.Dataset
            As of `jobs`.

        Raises
        ------
        InputError
            No positions on the sky, or times that are no range of MJD.
        ArchiveError
            The service refuses, or its answer cannot be understood; what was sent is looked for at the next call.
        """
        start, stop = _range(time)
        # As the service gets them.
        ra, dec = ([round(float(v), 7) for v in values] for values in many_degrees(positions))
        with self._held() as jobs:
            if any(job["state"] == "sending" for job in jobs):
                self._follow(jobs)
            jobs[:] = [job for job in jobs if job["state"] != "unsent"]
            known = {(job["ra"], job["dec"], job["start"], job["stop"]) for job in jobs}
            new = [(r, d, start, stop) for r, d in zip(ra, dec, strict=True)]
            new = [key for key in dict.fromkeys(new) if key not in known]
            for first in range(0, len(new), _MOST_A_REQUEST):
                self._send(jobs, new[first : first + _MOST_A_REQUEST])
        return self.jobs()

    def follow(self) -> xr.Dataset:
        """Ask how far the jobs are, and fetch the light curves that are there; as of `jobs`. Computes."""
        with self._held() as jobs:
            if any(job["state"] in ("sending", "waiting") for job in jobs):
                self._follow(jobs)
            for job in jobs:
                if job["state"] == "ready":
                    self._fetch(job)
                    self._write(jobs)
        return self.jobs()

    def wait(self, *, every: float = 60.0, at_most: float = 7200.0) -> xr.Dataset:
        """Follow until no job is waiting, or `at_most` seconds are over; as of `jobs`. Computes."""
        end = time.monotonic() + at_most
        while True:
            found = self.follow()
            if not np.isin(found["state"], ("sending", "waiting")).any() or time.monotonic() >= end:
                return found
            time.sleep(min(every, max(0.0, end - time.monotonic())))

    def jobs(self) -> xr.Dataset:
        """The ledger, asking nobody. Computes.

        On `job`: `ra`, `dec` (deg), `start`, `stop` (MJD), `state`, `reason`, `path`.
        `state` is ``"sending"`` (perhaps submitted), ``"waiting"``, ``"ready"``, ``"done"`` (`path` is the light curve,
        for `ztfxr.read_zfps`) or ``"failed"``, or ``"unsent"`` (the
        service did not hear it; `submit` sends it again), with the reason.
        """
        jobs = self._read()
        columns = {name: np.array([job[name] for job in jobs], dtype=float) for name in ("ra", "dec", "start", "stop")}
        texts = {name: np.array([job[name] for job in jobs], dtype=str) for name in ("state", "reason")}
        paths = np.array([str(self.folder / job["file"]) if job["file"] else "" for job in jobs], dtype=str)
        units = {"ra": "deg", "dec": "deg", "start": "d", "stop": "d"}
        out = {name: ("job", values, {"units": units[name]}) for name, values in columns.items()}
        return xr.Dataset(out | {name: ("job", values) for name, values in (texts | {"path": paths}).items()})

    # ---- the ledger ----

    @contextmanager
    def _held(self) -> Iterator[list[dict[str, Any]]]:
        self.folder.mkdir(parents=True, exist_ok=True)
        with locked(self._ledger):
            yield (jobs := self._read())
            self._write(jobs)

    def _read(self) -> list[dict[str, Any]]:
        if not self._ledger.is_file():
            return []
        try:
            jobs = json.loads(self._ledger.read_text())["jobs"]
            return [dict(job) for job in jobs]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StoreError(
                f"{self._ledger} is no ledger ({type(error).__name__}); move it away, or mend it"
            ) from None

    def _write(self, jobs: Sequence[dict[str, Any]]) -> None:
        with new_file(self._ledger, overwrite=True) as path, path.open("w") as file:
            json.dump({"jobs": list(jobs)}, file, indent=1)
            file.flush()
            os.fsync(file.fileno())

    # ---- the service ----

    def _send(self, jobs: list[dict[str, Any]], keys: Sequence[tuple[float, float, float, float]]) -> None:
        blank = {"state": "sending", "reason": "", "remote": "", "file": "", "sent": time.time()}
        new: list[dict[str, Any]] = [
            {"ra": r, "dec": d, "start": start, "stop": stop, **blank} for r, d, start, stop in keys
        ]
        jobs.extend(new)
        self._write(jobs)
        start, stop = (value + JD_OF_MJD for value in keys[0][2:])
        form = {"ra": json.dumps([k[0] for k in keys]), "dec": json.dumps([k[1] for k in keys])}
        form |= {"jdstart": json.dumps(start), "jdend": json.dumps(stop)}
        # Not tried again on failure: who knows whether it was heard. The next call looks.
        answer = self._ask("/cgi-bin/batchfp.py/submit", form, once=True)
        text = answer.body.decode("utf-8", "replace")
        found = _QUEUED.search(re.sub(r"<[^>]*>", " ", text))
        count = int(found[1] or found[2]) if found else 0
        if answer.status != 200 or count != len(keys):
            said = re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", text)).strip()[:200]
            raise ArchiveError(
                f"the service was sent {len(keys)} positions, and says ({answer.status}): {self._hidden(said)!r}; "
                "the next call asks it which it has"
            )
        for job in new:
            job["state"] = "waiting"
        self._write(jobs)

    def _follow(self, jobs: list[dict[str, Any]]) -> None:
        """What the service says of the jobs: by position and times, since it has no other name for them."""
        fields = {"option": "All recent jobs", "action": "Query Database"}
        answer = self._ask("/cgi-bin/getBatchForcedPhotometryRequests.cgi", fields)
        rows = _table(answer.body.decode("utf-8", "replace"))
        for job in jobs:
            if job["state"] not in ("sending", "waiting"):
                continue
            row = next((row for row in rows if _is_of(row, job)), None)
            if row is None:
                if job["state"] == "sending" and time.time() - job["sent"] >= self._settle:
                    job |= {"state": "unsent", "reason": "the service does not know it; submit it again"}
                continue
            rows.remove(row)
            _take(job, row)
        self._write(jobs)

    def _fetch(self, job: dict[str, Any]) -> None:
        answer = self._ask(job["remote"], {})
        if answer.status != 200 or not answer.body.strip() or answer.body.lstrip().startswith(b"<"):
            job |= {
                "state": "failed",
                "reason": f"no light curve came (status {answer.status}, {len(answer.body)} bytes)",
            }
            return
        name = job["remote"].rpartition("/")[2]
        with new_file(self.folder / name, overwrite=True) as path:
            path.write_bytes(answer.body)
        job |= {"state": "done", "file": name}

    def _ask(self, path: str, fields: dict[str, str], *, once: bool = False) -> Answer:
        """An answer; the service refuses now and then who may ask, so a refusal is tried again.

        With `once` nothing else is: who knows whether a request without an answer was heard.
        """
        url, method = self._archive.addresses.service.rstrip("/") + path, "POST" if once else "GET"
        form = {**fields, **(self._account.fields if path.startswith("/cgi-bin/") else {})}
        with Client(self._archive) as client:
            for number in range(_TRIES_IF_REFUSED):
                if once:
                    with client.open(url, form, method=method, login=self._account.pages) as one:
                        answer = Answer(one.status, one.headers, b"".join(one.chunks))
                else:
                    answer = client.ask(url, form, login=self._account.pages)
                if answer.status != 401:
                    return answer
                time.sleep(self._archive.pause * min(8, 2**number))
        raise ArchiveError("the service refuses the log-in (401), each time it was tried; check the account")

    def _hidden(self, text: str) -> str:
        for secret in (self._account.email, self._account.userpass, self._account.pages.password):
            text = text.replace(secret, "…")
        return text


def _range(time_: tuple[float, float]) -> tuple[float, float]:
    try:
        start, stop = (float(value) for value in time_)
    except (TypeError, ValueError):
        raise InputError(f"time is the first and the last MJD; got {time_!r}") from None
    if not 0 < start < stop < 200000:
        raise InputError(f"time is the first and the last MJD, not JD; got {start}, {stop}")
    return start, stop


class _Rows(HTMLParser):
    """The cells of the tables of a page, row by row."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self._inside = False

    def handle_starttag(self, tag: str, attrs: Any) -> None:  # noqa: ARG002
        if tag == "tr":
            self.rows.append([])
        self._inside = tag in ("td", "th") or (self._inside and tag != "tr")
        if tag in ("td", "th") and self.rows:
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        self._inside = self._inside and tag not in ("td", "th", "tr")

    def handle_data(self, data: str) -> None:
        if self._inside and self.rows and self.rows[-1]:
            self.rows[-1][-1] += data.strip()


def _table(page: str) -> list[dict[str, str]]:
    """Rows by the names in the header, in lower case; `ArchiveError` where the page has no such table."""
    parser = _Rows()
    parser.feed(page)
    head = next((row for row in parser.rows if {"ra", "dec"} <= {c.lower() for c in row}), None)
    if head is None:
        raise ArchiveError("the service's page of jobs has no table with ra and dec; ask again later")
    names = [cell.lower() for cell in head]
    after = parser.rows[parser.rows.index(head) + 1 :]
    return [dict(zip(names, row, strict=True)) for row in after if len(row) == len(names)]


def _is_of(row: dict[str, str], job: dict[str, Any]) -> bool:
    """Whether a row of the service is a job's: its position, and its times where the row has them."""
    try:
        ra, dec = float(row["ra"]), float(row["dec"])
        turn = abs((ra - job["ra"] + 180) % 360 - 180)
        same = turn <= _CLOSE_DEG and abs(dec - job["dec"]) <= _CLOSE_DEG
        for name, key in (("startjd", "start"), ("endjd", "stop")):
            if row.get(name):
                same = same and abs(float(row[name]) - JD_OF_MJD - job[key]) < 1e-3
    except ValueError:
        return False
    return bool(same)


def _take(job: dict[str, Any], row: dict[str, str]) -> None:
    """What a row says of its job."""
    job["state"] = "waiting"
    path = _PATH.search(row.get("lightcurve", ""))
    code = row.get("exitcode", "")
    if code not in ("", "0"):
        job |= {"state": "failed", "reason": f"the service ended with exit code {code}"}
    elif path is not None and ".." not in path[0] and _NAME.fullmatch(path[0].rpartition("/")[2]):
        job |= {"state": "ready", "remote": path[0]}
