"""An archive on this machine that answers as ZTF's does, and fails as it does: for tests, ours and yours.

Files are those of a folder laid out as the archive; rows of metadata are made from their headers. What was asked is
kept, and faults are set by a file's name. It is none of ZTF's software; it follows what is published.
"""

from __future__ import annotations

import gzip
import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal, get_args
from urllib.parse import parse_qs, urlsplit

from ztfxr.errors import InputError
from ztfxr.io.cutouts import cut_out
from ztfxr.io.names import Window
from ztfxr.testing._metadata import columns_of, csv_of, matches, metadata

__all__ = ["Asked", "Fault", "Loopback", "serve_archive"]

Fault = Literal[
    "400", "401", "403", "404", "429", "500", "503", "elsewhere", "loop", "html", "login page", "xml", "truncated",
    "drip", "chunked", "long", "gzip", "bomb", "other epoch", "changed", "reset", "not fits", "bad sum",
]  # fmt: skip
"""What goes wrong with a file: a status, or a body that is not it."""

_PRODUCTS = "/ibe/data/ztf/products/"
_SEARCH = "/ibe/search/ztf/products/"
_BATCH = 1500


@dataclass(frozen=True)
class Asked:
    """One request: its method, path and query, the log-in that came with it, where it started, and the bytes sent."""

    method: str
    path: str
    query: str
    login: str
    start: int
    sent: int

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rpartition("/")[2]


@dataclass
class Loopback:
    """What the archive has, what goes wrong, and what was asked.

    Parameters
    ----------
    folder
        The files, laid out as in the archive (``sci/2020/0924/…``).
    rows
        Metadata by kind of products; made of the files where it is not given.
    faults
        Faults of files by name, the next one for each request; the last one stays where it is in `lasting`.
    lasting
        Names whose last fault stays.
    users
        Passwords by name.
    private
        Names of files that need a log-in.
    answers
        Bodies for searches, in place of the rows, the next one for each search.
    polls_needed
        How often the status of a job is asked for before its light curve is there.
    """

    folder: Path
    rows: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    faults: dict[str, list[Fault]] = field(default_factory=dict)
    lasting: set[str] = field(default_factory=set)
    users: dict[str, str] = field(default_factory=dict)
    private: set[str] = field(default_factory=set)
    answers: list[bytes] = field(default_factory=list)
    polls_needed: int = 1
    address: str = ""
    elsewhere: str = ""
    asked: list[Asked] = field(default_factory=list)
    jobs: list[dict[str, Any]] = field(default_factory=list)
    most_at_once: int = 0
    _inside: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def sent(self) -> int:
        """Bytes of bodies sent so far."""
        return sum(each.sent for each in self.asked)

    def next_fault(self, name: str) -> Fault | None:
        """What goes wrong with this request for a file."""
        with self._lock:
            waiting = self.faults.get(name, [])
            if not waiting:
                return None
            return waiting[0] if len(waiting) == 1 and name in self.lasting else waiting.pop(0)


@contextmanager
def serve_archive(folder: Path | str, **options: Any) -> Iterator[Loopback]:
    """Serve a folder as an archive while the block runs; its address is `address`.

    Parameters
    ----------
    folder
        The files, laid out as in the archive.
    **options
        Fields of `Loopback`.
    """
    found = Loopback(Path(folder), **options)
    wrong = {fault for faults in found.faults.values() for fault in faults} - set(get_args(Fault))
    if wrong:
        raise InputError(f"faults are {', '.join(get_args(Fault))}; got {', '.join(sorted(map(str, wrong)))}")
    found.rows = found.rows or metadata(found.folder)
    with _running(found) as address, _running(found) as other:
        found.address, found.elsewhere = address, other.replace("127.0.0.1", "localhost")
        yield found


class _Server(ThreadingHTTPServer):
    """A server that keeps what goes wrong with its clients to itself."""

    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: clients that go away are among the tests."""


@contextmanager
def _running(found: Loopback) -> Iterator[str]:
    server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"archive": found}))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    """Answers one request."""

    archive: Loopback
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Say nothing."""

    def do_GET(self) -> None:
        """Answer a question."""
        with self._counted(), suppress(BrokenPipeError, ConnectionResetError):
            parts = urlsplit(self.path)
            self._route(parts.path, parts.query, {k: v[-1] for k, v in parse_qs(parts.query, True).items()})

    def do_POST(self) -> None:
        """Answer a form."""
        with self._counted(), suppress(BrokenPipeError, ConnectionResetError):
            body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
            kind = self.headers.get("Content-Type", "")
            form = _multipart(body) if "multipart" in kind else {k: v[-1] for k, v in parse_qs(body, True).items()}
            self._route(urlsplit(self.path).path, "", form)

    @contextmanager
    def _counted(self) -> Iterator[None]:
        with self.archive._lock:
            self.archive._inside += 1
            self.archive.most_at_once = max(self.archive.most_at_once, self.archive._inside)
        try:
            yield
        finally:
            with self.archive._lock:
                self.archive._inside -= 1

    def _route(self, path: str, query: str, form: dict[str, str]) -> None:
        self._query = query
        if path.startswith(_SEARCH):
            self._search(path.removeprefix(_SEARCH), form)
        elif path.startswith(_PRODUCTS):
            self._file(path.removeprefix(_PRODUCTS), form)
        elif path == "/TAP/sync":
            self._table(form)
        elif path.startswith(("/cgi-bin/", "/ztf/ops/")):
            self._service(path, form)
        else:
            self._send(404, b"<html>not found</html>")

    # ---- what is sent ----

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None, start: int = 0) -> None:
        given = {"Content-Length": str(len(body)), **(headers or {})}
        self.send_response(status)
        for name, value in given.items():
            if value:
                self.send_header(name, value)
        self.end_headers()
        self._note(len(body), start)
        self.wfile.write(body)
        if int(given["Content-Length"] or len(body)) != len(body):
            self.close_connection = True

    def _note(self, sent: int, start: int = 0) -> None:
        login = self.headers.get("Authorization", "")
        asked = Asked(self.command, urlsplit(self.path).path, self._query, login, start, sent)
        with self.archive._lock:
            self.archive.asked.append(asked)

    # ---- metadata ----

    def _search(self, kind: str, form: dict[str, str]) -> None:
        if not self._known_user():
            self._send(401, b"<html>log in</html>")
            return
        if self.archive.answers:
            self._send(200, self.archive.answers.pop(0), {"Content-Type": "text/csv"})
            return
        rows = [r for r in self.archive.rows.get(kind, []) if self._may_see(r) and matches(r, form)]
        wanted = form["COLUMNS"].split(",") if "COLUMNS" in form else columns_of(kind)
        self._send(200, csv_of(rows, wanted).encode(), {"Content-Type": "text/csv"})

    def _table(self, form: dict[str, str]) -> None:
        cells = [re.findall(r"<TD>([^<]*)</TD>", row) for row in re.findall(r"<TR>(.*?)</TR>", form.get("file", ""))]
        kind = re.findall(r"current_meta_(\w+)", form.get("QUERY", ""))[0]
        found = []
        for target, ra, dec in cells:
            at = {"POS": f"{ra},{dec}"}
            found += [{"target": int(target), **r} for r in self.archive.rows.get(kind, []) if matches(r, at)]
        self._send(200, csv_of(found, ["target", *columns_of(kind)]).encode(), {"Content-Type": "text/csv"})

    def _known_user(self) -> bool:
        """Whether the request has no log-in, or one that holds."""
        given = self.headers.get("Authorization")
        return given is None or given in _headers(self.archive.users)

    def _may_see(self, row: dict[str, Any]) -> bool:
        return row.get("ipac_gid", 1) == 1 or self.headers.get("Authorization") in _headers(self.archive.users)

    # ---- files ----

    def _file(self, path: str, form: dict[str, str]) -> None:
        name = path.rpartition("/")[2]
        fault, place = self.archive.next_fault(name), self.archive.folder / path
        if fault is not None and self._failed(fault):
            return
        if not self._known_user() or (name in self.archive.private and "Authorization" not in self.headers):
            self._send(401, b"<html>log in</html>")
            return
        if ".." in path or not place.is_file():
            self._send(404, b"<html>404 Not Found</html>")
            return
        data: bytes | None = place.read_bytes()
        if "center" in form and data is not None:
            data = cut_out(data, _window(form))
        if data is None:
            self._send(400, b"the cut-out lies off the image")
            return
        if form.get("gzip", "true") == "true" and "center" in form:
            data = gzip.compress(data)
        self._body(name, data, fault)

    def _failed(self, fault: Fault) -> bool:
        """Answer with a fault that needs no file; False for others."""
        if fault.isdigit():
            self._send(int(fault), b"<html>no</html>", {"Retry-After": "1"} if fault == "429" else None)
        elif fault in ("html", "login page", "xml"):
            page = {"html": b"<!DOCTYPE html><html>no", "login page": b"<html>Log in, password</html>"}
            self._send(200, page.get(fault, b"<?xml version='1.0'?><VOTABLE/>"), {"Content-Type": "text/html"})
        elif fault in ("elsewhere", "loop"):
            host = self.archive.elsewhere if fault == "elsewhere" else ""
            self._send(302, b"", {"Location": host + self.path})
        elif fault == "reset":
            self._note(0)
            self.close_connection = True
        else:
            return False
        return True

    def _body(self, name: str, data: bytes, fault: Fault | None) -> None:
        tag = f'"{len(data)}-{name}"' if fault != "changed" else '"another"'
        data = _spoiled(data, fault)
        start = self._start(len(data))
        headers = {"ETag": tag, "Content-Type": "image/fits"}
        if start and self.headers.get("If-Range") in (tag, None):
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
            self._send(206, data[start:], headers, start)
        elif fault == "truncated":
            self._send(200, data[: len(data) // 2], {**headers, "Content-Length": str(len(data))})
        elif fault == "long":
            self._send(200, data, {**headers, "Content-Length": str(len(data) + 100)})
        elif fault in ("drip", "chunked"):
            self._slowly(data, headers, fault)
        else:
            self._send(200, data, headers)

    def _start(self, n: int) -> int:
        found = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        return int(found[1]) if found and int(found[1]) < n else 0

    def _slowly(self, data: bytes, headers: dict[str, str], fault: Fault) -> None:
        """In chunks of unknown number; or byte after byte, without end."""
        self.send_response(200)
        length = ("Content-Length", str(len(data))) if fault == "drip" else ("Transfer-Encoding", "chunked")
        for name, value in [*headers.items(), length]:
            self.send_header(name, value)
        self.end_headers()
        self._note(len(data) if fault == "chunked" else 0)
        if fault == "chunked":
            for i in range(0, len(data), 5000):
                piece = data[i : i + 5000]
                self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            self.wfile.write(b"0\r\n\r\n")
            return
        for i in range(100):
            self.wfile.write(data[i : i + 1])
            time.sleep(0.1)
        self.close_connection = True

    # ---- the forced photometry service ----

    def _service(self, path: str, form: dict[str, str]) -> None:
        archive = self.archive
        if archive.users and self.headers.get("Authorization") not in _headers(archive.users):
            self._send(401, b"<html>log in</html>")
        elif path == "/cgi-bin/batchfp.py/submit":
            self._submit(form)
        elif path == "/cgi-bin/getBatchForcedPhotometryRequests.cgi":
            for job in archive.jobs:
                job["polls"] += 1
            self._send(200, _status_page(archive).encode(), {"Content-Type": "text/html"})
        elif path.endswith("_lc.txt") and any(job["path"] == path for job in archive.jobs):
            (job,) = (job for job in archive.jobs if job["path"] == path)
            self._send(200, b"" if job.get("empty") else light_curve_text(job["ra"], job["dec"]).encode())
        else:
            self._send(404, b"<html>no</html>")

    def _submit(self, form: dict[str, str]) -> None:
        if self.archive.next_fault("submit") == "500":
            self._send(500, b"<html>no</html>")
            return
        ra, dec = json.loads(form["ra"]), json.loads(form["dec"])
        if len(ra) > _BATCH:
            self._send(200, b"<html>too many positions</html>")
            return
        for r, d in zip(ra, dec, strict=True):
            number = len(self.archive.jobs) + 1
            job = {"id": number, "ra": r, "dec": d, "start": form["jdstart"], "end": form["jdend"], "polls": 0}
            job["path"] = f"/ztf/ops/forcedphot/lc/0/1/batchfp_req{number:010d}_lc.txt"
            self.archive.jobs.append(job)
        self._send(200, f"<html>Number of light-curve requests queued: {len(ra)}</html>".encode())


def _headers(users: dict[str, str]) -> set[str]:
    import base64

    return {"Basic " + base64.b64encode(f"{user}:{word}".encode()).decode() for user, word in users.items()}


def _multipart(body: str) -> dict[str, str]:
    """The parts of a form by name."""
    parts = re.findall(r'name="([^"]+)"[^\r\n]*\r\n(?:[^\r\n]+\r\n)*\r\n(.*?)\r\n--', body, flags=re.DOTALL)
    return dict(parts)


def _window(form: dict[str, str]) -> Window:
    x, y = (round(float(v)) for v in form["center"].removesuffix("px").split(","))
    width, height = (round(float(v)) for v in form["size"].removesuffix("px").split(","))
    return Window(x, y, width, height)


def _spoiled(data: bytes, fault: Fault | None) -> bytes:
    if fault == "gzip":
        return gzip.compress(data)
    if fault == "bomb":
        return _bomb()
    if fault == "not fits":
        return b"hello " * 480
    if fault == "other epoch":
        found = re.search(rb"OBSM?JD *= +([0-9.]+)", data)
        return data.replace(found[1], found[1][:3] + b"0" + found[1][4:]) if found else data
    if fault == "bad sum":
        middle = len(data) - 2880 * 2
        return data[:middle] + bytes([data[middle] ^ 255]) + data[middle + 1 :]
    return data


@cache
def _bomb() -> bytes:
    """A small gzip file that unpacks to 64 MiB of nothing."""
    return gzip.compress(b"SIMPLE  =" + bytes(1 << 26), compresslevel=1)


def _status_page(archive: Loopback) -> str:
    names = ("reqId", "ra", "dec", "startJD", "endJD", "exitcode", "lightcurve")
    lines = []
    for job in archive.jobs:
        done = job["polls"] >= archive.polls_needed
        code = job.get("exitcode", 0) if done else ""
        cells = (job["id"], job["ra"], job["dec"], job["start"], job["end"], code, job["path"] if done else "")
        lines.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    head = "".join(f"<th>{name}</th>" for name in names)
    return f"<html><table><tr>{head}</tr>{''.join(lines)}</table></html>"


def light_curve_text(ra: float, dec: float, n: int = 3) -> str:
    """A small result file of the forced photometry service, of made-up fluxes."""
    columns = "index, field, ccdid, qid, filter, pid, infobitssci, sciinpseeing, jd, zpdiff, exptime, forcediffimflux, "
    columns += "forcediffimfluxunc, forcediffimchisq, procstatus"
    lines = [f"# Requested input R.A. = {ra} degrees", f"# Requested input Dec. = {dec} degrees", columns]
    row = "{0} 655 13 2 ZTF_r {1} 0 2.1 {2} 26.2 30.0 {3} 5.0 1.0 0"
    lines += [row.format(i, 1000 + i, 2459116.5 + i, 100.0 + i) for i in range(n)]
    return "\n".join(lines) + "\n"
