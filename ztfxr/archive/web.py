"""Requests: retried with patience, redirected with care, a log-in for its own host alone.

urllib3 does the work: one pool of connections for all threads, typed, without dependencies, and it follows no redirect,
reads no netrc and unpacks no body unless it is told to. What is told is here.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urljoin, urlsplit
from urllib.request import getproxies, proxy_bypass

from ztfxr.archive.login import FAMILY
from ztfxr.archive.settings import Archive
from ztfxr.errors import ArchiveError, MissingDependencyError

if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse, PoolManager

T = TypeVar("T")

__all__ = ["Answer", "BusyError", "Client", "StoppedError", "Transfer"]

_REDIRECTS = (301, 302, 303, 307, 308)
_MOST_REDIRECTS = 5
_BUSY = (429, 500, 502, 503, 504)
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_STEP = 1 << 16
_SLOWEST = 200.0
"""Bytes per second below which an answer is taken as stuck."""
_LONGEST_PAUSE = 300.0


class StoppedError(ArchiveError):
    """An answer that ended early, came too slowly, or did not come; it may come at another try."""


class BusyError(StoppedError):
    """The server has too much to do; `wait` is how many seconds it asks for."""

    def __init__(self, message: str, wait: float = 0.0) -> None:
        super().__init__(message)
        self.wait = wait


@dataclass
class Answer:
    """A whole answer in memory."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass
class Transfer:
    """An answer under way: its status, its headers, its length if it was told, and its bytes as they come."""

    status: int
    headers: Mapping[str, str]
    length: int | None
    chunks: Iterator[bytes]


class Client:
    """Asks an archive, from as many threads at once as the archive's `connections`; close it in the end."""

    def __init__(self, archive: Archive) -> None:
        self.archive = archive
        self.requests = self.bytes = 0
        self._pools: dict[str, PoolManager] = {}
        self._lock = threading.Lock()
        _require_urllib3()
        self._gate = _Gate(archive.connections)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *error: object) -> None:
        for pool in self._pools.values():
            pool.clear()

    def ask(
        self,
        url: str,
        fields: Mapping[str, str] | None = None,
        *,
        method: str = "GET",
        login: Any = None,
        limit: int = 1 << 32,
        files: Mapping[str, tuple[str, str]] | None = None,
    ) -> Answer:
        """The whole answer to a request, retried where the server has too much to do or the answer ends early.

        Raises
        ------
        ArchiveError
            No answer after all tries, or one longer than `limit` bytes.
        """

        def once() -> Answer:
            form: dict[str, Any] = {**(fields or {}), **(files or {})}
            with self.open(url, form, method=method, login=login, multipart=files is not None) as answer:
                body = bytearray()
                for chunk in answer.chunks:
                    body += chunk
                    if len(body) > limit:
                        raise ArchiveError(f"{named(url)} sent more than {limit} bytes")
                return Answer(answer.status, answer.headers, bytes(body))

        return self.retried(once)

    def retried(self, action: Callable[[], T]) -> T:
        """What `action` gives, tried again after a pause while it is `StoppedError`; the last of these is raised."""
        for number in range(self.archive.tries):
            try:
                return action()
            except StoppedError as error:
                if isinstance(error, BusyError):
                    self._gate.halve()
                if number + 1 == self.archive.tries:
                    raise
                pause = self.archive.pause * 2**number * random.uniform(0.5, 1.5)
                wait = error.wait if isinstance(error, BusyError) else 0.0
                time.sleep(min(_LONGEST_PAUSE, max(pause, wait)))
        raise AssertionError("unreachable")

    @contextmanager
    def open(
        self,
        url: str,
        fields: Mapping[str, Any] | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        method: str = "GET",
        login: Any = None,
        multipart: bool = False,
    ) -> Iterator[Transfer]:
        """One request, its redirects followed, and its answer as it comes.

        Raises
        ------
        StoppedError
            It may be tried again.
        ArchiveError
            A redirect to a place that is none of the archive's, or endless ones.
        """
        import urllib3

        home, given = origin(url), fields
        with self._gate:
            for _ in range(_MOST_REDIRECTS + 1):
                sent = {"Accept-Encoding": "identity", "User-Agent": "ztfxr", **(headers or {})}
                if login is not None and origin(url) == home and is_safe(url):
                    sent["Authorization"] = login.header
                # Errors of urllib3 hold the URL, and with it what was asked: none is chained.
                try:
                    response = self._send(url, given, sent, method, multipart)
                except urllib3.exceptions.HTTPError as error:
                    raise StoppedError(f"{named(url)} does not answer ({type(error).__name__})") from None
                try:
                    if response.status not in _REDIRECTS:
                        yield self._transfer(url, response)
                        return
                    url, method, given = self._next(url, response, home), "GET", None
                finally:
                    response.close()
                    response.release_conn()
        raise ArchiveError(f"{named(url)} redirects without end")

    def _send(
        self, url: str, fields: Mapping[str, Any] | None, headers: Mapping[str, str], method: str, multipart: bool
    ) -> BaseHTTPResponse:
        import urllib3

        timeout = urllib3.Timeout(connect=min(30.0, self.archive.timeout), read=self.archive.timeout)
        with self._lock:
            self.requests += 1
        how: dict[str, Any] = {"encode_multipart": multipart} if method == "POST" else {}
        return self._pool(url).request(
            method,
            url,
            fields=dict(fields) if fields else None,
            headers=dict(headers),
            timeout=timeout,
            retries=False,
            redirect=False,
            preload_content=False,
            decode_content=False,
            **how,
        )

    def _next(self, url: str, response: BaseHTTPResponse, home: tuple[str, str, int | None]) -> str:
        """Where a redirect leads, if that is a place of the archive's."""
        try:
            target = urljoin(url, response.headers.get("Location", ""))
            host = urlsplit(target).hostname or ""
        except ValueError:
            raise ArchiveError(f"{named(url)} redirects to what is no address") from None
        if not (host == home[1] or host.endswith(FAMILY)) or not (is_safe(target) or urlsplit(url).scheme == "http"):
            raise ArchiveError(f"{named(url)} redirects to {host or 'nowhere'}, which is no place of the archive")
        return target

    def _transfer(self, url: str, response: BaseHTTPResponse) -> Transfer:
        if response.status in _BUSY:
            raise BusyError(f"{named(url)} answers {response.status}: it has too much to do", _seconds(response))
        text = response.headers.get("Content-Length", "")
        length = int(text) if text.isascii() and text.isdigit() else None
        return Transfer(response.status, response.headers, length, self._chunks(url, response, length))

    def _chunks(self, url: str, response: BaseHTTPResponse, length: int | None) -> Iterator[bytes]:
        import urllib3

        got, start = 0, time.monotonic()
        while length is None or got < length:
            try:
                chunk = response.read1(_STEP, decode_content=False)
            except (urllib3.exceptions.HTTPError, OSError) as error:
                raise StoppedError(f"{named(url)} stopped after {got} bytes ({type(error).__name__})") from None
            if not chunk:
                break
            got += len(chunk)
            with self._lock:
                self.bytes += len(chunk)
            yield chunk
            seconds = time.monotonic() - start
            if seconds > self.archive.timeout and got < _SLOWEST * seconds:
                raise StoppedError(f"{named(url)} sent {got} bytes in {seconds:.0f} s, and was given up")
        if length is not None and got < length:
            raise StoppedError(f"{named(url)} stopped after {got} of {length} bytes")

    def _pool(self, url: str) -> PoolManager:
        parts = urlsplit(url)
        proxy = "" if proxy_bypass(parts.netloc) or parts.hostname in _LOOPBACK else getproxies().get(parts.scheme, "")
        with self._lock:
            if proxy not in self._pools:
                self._pools[proxy] = _new_pool(proxy, self.archive.connections)
            return self._pools[proxy]


class _Gate:
    """Lets so many threads through at once, and half as many after `halve`."""

    def __init__(self, limit: int) -> None:
        self.limit, self._inside = limit, 0
        self._changed = threading.Condition()

    def halve(self) -> None:
        with self._changed:
            self.limit = max(1, self.limit // 2)

    def __enter__(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._inside < self.limit)
            self._inside += 1

    def __exit__(self, *error: object) -> None:
        with self._changed:
            self._inside -= 1
            self._changed.notify_all()


def _new_pool(proxy: str, connections: int) -> PoolManager:
    import urllib3

    how: dict[str, Any] = {"maxsize": connections, "block": False, "retries": False}
    return urllib3.ProxyManager(proxy, **how) if proxy else urllib3.PoolManager(**how)


def _require_urllib3() -> None:
    if find_spec("urllib3") is None:
        raise MissingDependencyError.for_extra("urllib3", "archive")
    # Adding it again changes nothing.
    logging.getLogger("urllib3.connectionpool").addFilter(_without_secrets)


def _without_secrets(record: logging.LogRecord) -> bool:
    """Cut off what was asked where it says who asks: urllib3 logs every URL when it is told to log all."""
    if isinstance(record.args, tuple) and any("userpass=" in str(value) for value in record.args):
        record.args = tuple(v.partition("?")[0] if isinstance(v, str) else v for v in record.args)
    return True


def _seconds(response: BaseHTTPResponse) -> float:
    text = response.headers.get("Retry-After", "")
    return float(text) if text.isascii() and text.isdigit() else 0.0


def origin(url: str) -> tuple[str, str, int | None]:
    """Scheme, host and port of a URL."""
    parts = urlsplit(url)
    return parts.scheme, parts.hostname or "", parts.port


def is_safe(url: str) -> bool:
    """Whether nobody can listen: https, or this machine."""
    parts = urlsplit(url)
    return parts.scheme == "https" or parts.hostname in _LOOPBACK


def named(url: str) -> str:
    """A URL for messages: without what is asked, which may hold secrets."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname or ''}{parts.path}"
