"""Who asks the archive: from an argument, the environment or netrc, and never in sight."""

from __future__ import annotations

import base64
import netrc
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from ztfxr.errors import InputError

__all__ = ["FAMILY", "Login", "find_login"]

FAMILY = ".ipac.caltech.edu"
"""How the names of the archive's hosts end: a log-in of IRSA's is for these alone."""
_VARIABLES = (("IRSA_USER", "IRSA_PASSWORD"), ("ZTFORCE_IRSA_USER", "ZTFORCE_IRSA_PASS"))


@dataclass(frozen=True)
class Login:
    """A name and a password, which no text of it shows and no file keeps: it cannot be pickled.

    Parameters
    ----------
    user
        The name.
    password
        The password.
    """

    user: str = field(repr=False)
    password: str = field(repr=False)

    def __post_init__(self) -> None:
        if not self.user or not self.password or ":" in self.user or "\n" in self.user + self.password:
            raise InputError("a log-in has a name without a colon, and a password, each on one line")

    def __repr__(self) -> str:
        return "Login(…)"

    def __reduce__(self) -> NoReturn:
        raise InputError("a log-in is not written to files; let each process find it in the environment or in netrc")

    @property
    def header(self) -> str:
        """What HTTP's header ``Authorization`` has of it."""
        return "Basic " + base64.b64encode(f"{self.user}:{self.password}".encode()).decode()


def find_login(host: str) -> Login | None:
    """The log-in for `host`: of the environment (``IRSA_USER``, ``IRSA_PASSWORD``), else of netrc; None where none is.

    That of the environment is IRSA's, and for its hosts alone. netrc is the file ``$NETRC`` or ``~/.netrc``.

    Raises
    ------
    InputError
        netrc cannot be read.
    """
    for user, password in _VARIABLES if f".{host}".endswith(FAMILY) else ():
        if os.environ.get(user) and os.environ.get(password):
            return Login(os.environ[user], os.environ[password])
    path = Path(os.environ.get("NETRC") or "~/.netrc").expanduser()
    if not path.is_file():
        return None
    try:
        found = netrc.netrc(path).hosts.get(host)
    except (netrc.NetrcParseError, OSError, UnicodeDecodeError) as error:
        line = getattr(error, "lineno", None)
        where = f"line {line}" if line else type(error).__name__
        # The parser's message may quote a password.
        raise InputError(f"{path} cannot be read as netrc ({where}); mend it, or give login=") from None
    return Login(found[0], found[2]) if found and found[0] and found[2] else None
