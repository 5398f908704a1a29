"""A small archive of semi-real frames, and a server of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from ztfxr.archive import Addresses, Archive
from ztfxr.io.names import parse_product
from ztfxr.samples import SemiReal, make_epochs
from ztfxr.testing.loopback import Loopback, serve_archive

N_EPOCHS = 6
Serve = Callable[..., Loopback]


def place(path: Path, tree: Path, name: str = "") -> Path:
    """Move a frame to where the archive has it."""
    target = tree / parse_product(name or path).path
    target.parent.mkdir(parents=True, exist_ok=True)
    return path.rename(target)


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, SemiReal]:
    """A tree of frames, masks and a reference, laid out as the archive; no test changes it."""
    folder = tmp_path_factory.mktemp("archive")
    found = make_epochs(folder / "made", n_epochs=N_EPOCHS)
    place(found.reference, folder / "tree", "ztf_000655_zr_c13_q3_refimg.fits")
    for path in sorted((folder / "made").glob("*.fits")):
        if path.name != found.reference.name.replace("sci", "msk"):
            place(path, folder / "tree")
    return folder / "tree", found


@pytest.fixture
def serve(made: tuple[Path, SemiReal]) -> Iterator[Serve]:
    """``serve(folder, **options)`` starts a server of a folder, by default of the semi-real frames."""
    with ExitStack() as stack:
        yield lambda folder=made[0], **options: stack.enter_context(serve_archive(folder, **options))


@pytest.fixture(autouse=True)
def nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No log-in of whoever runs the tests, and no proxy."""
    for name in ("IRSA_USER", "IRSA_PASSWORD", "ZTFORCE_IRSA_USER", "ZTFORCE_IRSA_PASS", "ZTFDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))


def ask(server: Loopback, root: Path, **options: Any) -> Archive:
    """An `Archive` for a server, impatient."""
    given = {"login": False, "addresses": Addresses.at(server.address), "pause": 0.005, "timeout": 5.0}
    return Archive(root, **{**given, **options})
