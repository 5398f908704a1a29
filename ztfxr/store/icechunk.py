"""Icechunk repositories: zarr stores whose changes become visible together, as commits, or not at all."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ztfxr.errors import MissingDependencyError, StoreError

__all__ = ["PREFIX", "commit", "is_icechunk", "open_repository", "open_session"]

PREFIX = "icechunk::"
"""What stands before the path or the s3:// URL of a repository."""
_BRANCH = "main"


def is_icechunk(store: object) -> bool:
    """Whether `store` is a repository or a session of one, or text that names one."""
    if isinstance(store, str):
        return store.startswith(PREFIX)
    return type(store).__module__.partition(".")[0] == "icechunk" and not hasattr(store, "list_dir")


def open_repository(address: str, *, create: bool) -> Any:
    """The repository in a folder (``icechunk::PATH``) or at ``icechunk::s3://BUCKET/PREFIX``.

    Credentials for S3 come from the environment.

    Raises
    ------
    MissingDependencyError, StoreError
    """
    if find_spec("icechunk") is None:
        raise MissingDependencyError.for_extra("icechunk", "icechunk")
    import icechunk

    place = address.removeprefix(PREFIX)
    parts = urlsplit(place)
    if parts.scheme == "s3":
        storage = icechunk.s3_storage(bucket=parts.netloc, prefix=parts.path.strip("/"), from_env=True)
    elif "://" in place:
        raise StoreError(f"icechunk is given a folder or s3://BUCKET/PREFIX; got {parts.scheme}://")
    elif not create and not Path(place).is_dir():
        raise StoreError(f"{place}: nothing is there; check the path, or write it first with ztfxr.to_zarr")
    else:
        storage = icechunk.local_filesystem_storage(place)
    try:
        return icechunk.Repository.open_or_create(storage) if create else icechunk.Repository.open(storage)
    except icechunk.IcechunkError as error:
        raise StoreError(f"{address} cannot be opened as an icechunk repository ({_first_line(error)})") from error


def open_session(store: Any, *, writable: bool) -> tuple[Any, bool]:
    """A session of what `is_icechunk` knows, and whether it was opened here, so that it is committed here too."""
    repository = open_repository(store, create=writable) if isinstance(store, str) else store
    if not hasattr(repository, "writable_session"):
        return repository, False
    session = repository.writable_session(_BRANCH) if writable else repository.readonly_session(_BRANCH)
    return session, True


def commit(session: Any, message: str) -> None:
    """Make the changes of a session visible; `StoreError` where another writer changed the same."""
    import icechunk

    try:
        session.commit(message)
    except (icechunk.IcechunkError, icechunk.ConflictError) as error:
        raise StoreError(f"the commit failed ({_first_line(error)}); nothing was changed") from error


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
