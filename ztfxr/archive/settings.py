"""Where the archive is, where its files are kept, and how it is asked: all in one place, all to be replaced."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from ztfxr.archive.login import Login, find_login
from ztfxr.errors import InputError

__all__ = ["Addresses", "Archive"]

_DATA = "ZTFDATA"
_MOST_CONNECTIONS = 16


@dataclass(frozen=True)
class Addresses:
    """Where the services are. Each may be another one's, such as a mirror's or a test's.

    Parameters
    ----------
    search, data
        Where products are looked up, and where the files are.
    tap
        Where tables are asked by a list of positions.
    service
        The forced photometry service's pages.
    """

    search: str = "https://irsa.ipac.caltech.edu/ibe/search/ztf/products"
    data: str = "https://irsa.ipac.caltech.edu/ibe/data/ztf/products"
    tap: str = "https://irsa.ipac.caltech.edu/TAP/sync"
    service: str = "https://ztfweb.ipac.caltech.edu"

    def __post_init__(self) -> None:
        for name in ("search", "data", "tap", "service"):
            _check(name, getattr(self, name))

    @classmethod
    def at(cls, root: str) -> Addresses:
        """All services under one address, with the paths that IRSA has."""
        root = root.rstrip("/")
        products = f"{root}/ibe/{{}}/ztf/products"
        return cls(products.format("search"), products.format("data"), f"{root}/TAP/sync", root)


@dataclass(frozen=True)
class Archive:
    """How ZTF's archive is asked, and where its files are kept.

    Parameters
    ----------
    root
        The folder of the files, laid out as the archive itself; by default ``$ZTFDATA``, else ``Data``. Trees of
        ztfquery are such folders.
    mirrors
        Further folders of that layout, which are only read.
    login
        Who asks; by default as `find_login` finds it. False asks as nobody, for what is public.
    addresses
        Where the services are.
    connections
        How many files are fetched at once, 16 at most. It halves whenever the archive says that it has too much to do.
    timeout
        Seconds without progress after which a request is given up.
    tries
        How often a request is made before it has failed.
    pause
        Seconds before the second try; they double from try to try, with some chance.
    offline
        Ask nothing, and use what is kept.
    answers_hours
        For how many hours the kept answer to a search is taken without asking again.

    Examples
    --------
    >>> import ztfxr
    >>> ztfxr.archive.Archive("ztf", login=False).connections
    6
    """

    root: Path = field(default_factory=lambda: Path(os.environ.get(_DATA) or "Data"))
    mirrors: tuple[Path, ...] = ()
    login: Login | bool | None = None
    addresses: Addresses = field(default_factory=Addresses)
    connections: int = 6
    timeout: float = 120.0
    tries: int = 5
    pause: float = 2.0
    offline: bool = False
    answers_hours: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "root", Path(self.root).expanduser())
        object.__setattr__(self, "mirrors", tuple(Path(m).expanduser() for m in self.mirrors))
        if not 1 <= self.connections <= _MOST_CONNECTIONS:
            raise InputError(f"connections is a number from 1 to {_MOST_CONNECTIONS}; got {self.connections!r}")
        if not (self.timeout > 0 and self.tries >= 1 and self.pause >= 0):
            raise InputError("timeout and tries are positive, and pause is not negative")
        if self.login is None or self.login is True:
            object.__setattr__(self, "login", find_login(urlsplit(self.addresses.data).hostname or ""))

    @property
    def who(self) -> Login | None:
        """The log-in; None for nobody."""
        return self.login if isinstance(self.login, Login) else None

    def login_for(self, url: str) -> Login | None:
        """The log-in, for an address on the host of the files; None for every other host."""
        same = urlsplit(url).hostname == urlsplit(self.addresses.data).hostname
        return self.who if same else None


def _check(name: str, address: str) -> None:
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc or parts.query:
        raise InputError(f"{name} is the address of a service, https://…, without a log-in in it and without a query")
