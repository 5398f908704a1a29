"""Stores in zip files, at URLs, on obstore, zarr and icechunk: one round trip for all, and what goes wrong."""

from __future__ import annotations

import pickle
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED, ZipFile

import fsspec
import numpy as np
import pytest
import xarray as xr
import zarr
from astropy.io import fits
from zarr.storage import LocalStore, MemoryStore

from tests.conftest import MakeHeader
from ztfxr.errors import InputError, MissingDependencyError, StoreError
from ztfxr.store.urls import as_store
from ztfxr.store.zarr import open_zarr, to_zarr
from ztfxr.store.zipped import ZippedStore
from ztfxr.wcs import assign_wcs, has_wcs, wcs_cards

EPOCHS, NY, NX = 2, 400, 420
KINDS = ("folder", "zip", "memory", "file", "zarr", "obstore", "repository", "session", "named")


@pytest.fixture
def stack(wcs_header: MakeHeader) -> xr.Dataset:
    rng = np.random.default_rng(3)
    ds = xr.Dataset(
        {
            "sci": (("time", "y", "x"), rng.normal(100.0, 5.0, (EPOCHS, NY, NX)).astype(np.float32)),
            "flux": (("time", "source"), rng.normal(size=(EPOCHS, 3))),
        },
        coords={
            "time": np.array(["2020-09-24", "2020-09-25"], "M8[ns]"),
            "filter": ("time", np.array(["ztfg", "ztfr"])),
            "y": np.arange(NY),
            "x": np.arange(NX),
        },
        attrs={"object": "ZTF21"},
    )
    cards = wcs_cards(fits.Header(wcs_header((NY, NX))))
    assert cards is not None
    return assign_wcs(ds, cards)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Any]:
    """``place(kind)`` makes a new place for a store of that kind."""
    name = uuid.uuid4().hex

    def make(kind: str) -> Any:
        if kind in ("repository", "session", "named"):
            icechunk = pytest.importorskip(
                "icechunk", reason='icechunk is not installed: pip install "ztfxr[icechunk]"'
            )
            if kind == "named":
                return f"icechunk::{tmp_path / 'named'}"
            repository = icechunk.Repository.create(icechunk.in_memory_storage())
            return repository if kind == "repository" else repository.writable_session("main")
        if kind == "obstore":
            store = pytest.importorskip(
                "obstore.store", reason='obstore is not installed: pip install "ztfxr[obstore]"'
            )
            return store.MemoryStore()
        return {
            "folder": tmp_path / "s.zarr",
            "zip": tmp_path / "s.zarr.zip",
            "memory": f"memory://{name}/s.zarr",
            "file": f"file://{tmp_path}/f.zarr",
            "zarr": MemoryStore(),
        }[kind]

    yield make
    system = fsspec.filesystem("memory")
    if system.exists(f"/{name}"):
        system.rm(f"/{name}", recursive=True)


@pytest.mark.parametrize("kind", KINDS)
def test_round_trip(stack: xr.Dataset, place: Any, kind: str) -> None:
    target = place(kind)
    to_zarr(stack.chunk(time=1, y=90), target)
    back = open_zarr(target)
    xr.testing.assert_identical(back, stack)
    assert has_wcs(back)
    assert back["sci"].chunks == ((1,) * EPOCHS, (NY,), (NX,))


@pytest.mark.parametrize("kind", KINDS)
def test_tree_round_trip(stack: xr.Dataset, place: Any, kind: str) -> None:
    tree = xr.DataTree.from_dict({"/": xr.Dataset(attrs={"a": 1}), "b": stack, "c/d": stack[["flux"]]}, name="night")
    target = place(kind)
    to_zarr(tree, target)
    assert open_zarr(target).identical(tree)


@pytest.mark.parametrize("kind", KINDS)
def test_existing_stores_are_kept(stack: xr.Dataset, place: Any, kind: str) -> None:
    target = place(kind)
    to_zarr(stack, target)
    with pytest.raises(StoreError, match=r"exists already; write to another \w+, or replace it with overwrite=True"):
        to_zarr(stack[["flux"]], target)
    xr.testing.assert_identical(open_zarr(target), stack)
    to_zarr(stack[["flux"]], target, overwrite=True)
    assert set(open_zarr(target).data_vars) == {"flux"}


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_that_fails(stack: xr.Dataset, place: Any, kind: str) -> None:
    """Local stores and repositories keep what was there; one written in place says that it is not whole."""
    target = place(kind)
    if kind != "session":
        to_zarr(stack, target)
    lazy = stack["sci"].chunk(time=1)
    broken = stack.assign(sci=lazy.copy(data=lazy.data.map_blocks(_fail, dtype=lazy.dtype, meta=lazy.data._meta)))
    with pytest.raises(RuntimeError, match="the second epoch fails"):
        to_zarr(broken, target, overwrite=True)
    if kind in ("folder", "zip", "file", "repository", "named"):
        xr.testing.assert_identical(open_zarr(target), stack)
    else:
        with pytest.raises(StoreError, match=r"was not written to its end: .*overwrite=True"):
            open_zarr(target)
        to_zarr(stack, target, overwrite=True)
        xr.testing.assert_identical(open_zarr(target), stack)


def _fail(block: Any, block_info: Any = None) -> Any:
    if block_info[0]["chunk-location"][0] == 1:
        raise RuntimeError("the second epoch fails")
    return block


def test_other_things_are_never_replaced(stack: xr.Dataset, place: Any, tmp_path: Path) -> None:
    url = place("memory")
    fsspec.filesystem("memory").pipe_file(f"{url}/frame.fits", b"pixels")
    with pytest.raises(StoreError, match="holds something that is no zarr store"):
        to_zarr(stack, url, overwrite=True)
    assert fsspec.filesystem("memory").cat_file(f"{url}/frame.fits") == b"pixels"
    frames = tmp_path / "frames.zip"
    with ZipFile(frames, "w") as packed:
        packed.writestr("frame.fits", b"pixels")
    before = frames.read_bytes()
    with pytest.raises(StoreError, match=r"frames\.zip exists and is no zarr store"):
        to_zarr(stack, frames, overwrite=True)
    assert frames.read_bytes() == before
    with pytest.raises(StoreError, match=r"frames\.zip is no zarr store"):
        open_zarr(frames)


def test_zip_leaves_nothing_beside(stack: xr.Dataset, tmp_path: Path) -> None:
    to_zarr(stack, tmp_path / "s.zip")
    to_zarr(stack, tmp_path / "s.zip", overwrite=True)
    assert {p.name for p in tmp_path.iterdir()} == {"s.zip"}
    assert not (tmp_path / "s.zip").is_dir()


def test_zip_travels(stack: xr.Dataset, tmp_path: Path) -> None:
    to_zarr(stack, tmp_path / "s.zip")
    back = pickle.loads(pickle.dumps(open_zarr(tmp_path / "s.zip")))
    xr.testing.assert_identical(back, stack)


def test_zip_opens_elsewhere(stack: xr.Dataset, tmp_path: Path) -> None:
    """zarr's own store reads it, and ours one that zarr packed."""
    to_zarr(stack, tmp_path / "s.zip")
    with zarr.storage.ZipStore(tmp_path / "s.zip", mode="r") as theirs:
        np.testing.assert_array_equal(zarr.open_group(theirs, mode="r")["sci"][1], stack["sci"].values[1])
    with zarr.storage.ZipStore(tmp_path / "t.zip", mode="w") as theirs:
        zarr.create_array(theirs, name="a", data=np.arange(6.0), chunks=(4,))
    np.testing.assert_array_equal(zarr.open_group(ZippedStore(tmp_path / "t.zip"), mode="r")["a"][:], np.arange(6.0))


def test_zip_is_read_only_and_uncompressed(stack: xr.Dataset, tmp_path: Path) -> None:
    to_zarr(stack[["flux"]], tmp_path / "s.zip")
    with pytest.raises(StoreError, match="is read-only; open it for writing"):
        to_zarr(stack, ZippedStore(tmp_path / "s.zip"), overwrite=True)
    with ZipFile(tmp_path / "small.zip", "w", ZIP_DEFLATED) as packed:
        packed.writestr("zarr.json", "{}")
    with pytest.raises(StoreError, match=r"small\.zip holds compressed files"):
        open_zarr(tmp_path / "small.zip")
    (tmp_path / "cut.zip").write_bytes((tmp_path / "s.zip").read_bytes()[:-30])
    with pytest.raises(StoreError, match=r"cut\.zip is no zarr store"):
        open_zarr(tmp_path / "cut.zip")


class Counted(zarr.storage.WrapperStore[Any]):
    """A store that counts the bytes that are read of pixels."""

    taken = 0

    async def get(self, key: str, prototype: Any, byte_range: Any = None) -> Any:
        found = await self._store.get(key, prototype, byte_range)
        if found is not None and "/c/" in key:
            Counted.taken += len(found)
        return found


@pytest.mark.parametrize("kind", ["folder", "zip", "obstore"])
def test_a_stamp_takes_its_tiles(stack: xr.Dataset, place: Any, kind: str) -> None:
    """Lazily and through dask too: 1 tile of 9 and the index of the shard."""
    target = place(kind)
    to_zarr(stack, target)
    inner = {
        "folder": lambda: LocalStore(target),
        "zip": lambda: ZippedStore(target),
        "obstore": lambda: as_store(target, read_only=True),
    }
    back = open_zarr(Counted(inner[kind]()))
    Counted.taken = 0
    found = back["sci"].isel(time=1, y=slice(10, 73), x=slice(20, 83)).compute()
    np.testing.assert_array_equal(found.values, stack["sci"].values[1, 10:73, 20:83])
    assert 0 < Counted.taken < NY * NX * 4 / 8


# read-only, unknown, missing


@pytest.mark.parametrize("kind", ["zarr", "obstore"])
def test_read_only_stores(stack: xr.Dataset, place: Any, kind: str) -> None:
    store = as_store(place(kind), read_only=False)
    to_zarr(stack, store)
    with pytest.raises(StoreError, match=r"the \w+ is read-only; open it for writing, or write elsewhere"):
        to_zarr(stack[["flux"]], store.with_read_only(True), overwrite=True)
    xr.testing.assert_identical(open_zarr(store.with_read_only(True)), stack)


def test_refused_by_the_server(stack: xr.Dataset, monkeypatch: pytest.MonkeyPatch, place: Any) -> None:
    """What a file system says may hold the URL; what we say does not."""
    url = place("memory").replace("//", "//me:secret@")

    def refuse(*args: Any, **options: Any) -> None:
        raise PermissionError(f"403 for {url}")

    monkeypatch.setattr("fsspec.implementations.memory.MemoryFileSystem.pipe_file", refuse)
    with pytest.raises(StoreError, match=r"cannot be written \(PermissionError\)") as caught:
        to_zarr(stack, url)
    assert "secret" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_nothing_there(place: Any, tmp_path: Path) -> None:
    for kind in ("memory", "zarr", "obstore", "session"):
        with pytest.raises(StoreError, match=r"cannot be read as a zarr store .*check that it is there"):
            open_zarr(place(kind))
    for kind in ("folder", "zip", "file", "named"):
        with pytest.raises(StoreError, match="nothing is there; check the path, or write it first"):
            open_zarr(place(kind))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["memory", "zip", "repository"])
def test_newer_format(stack: xr.Dataset, place: Any, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    target = place(kind)
    monkeypatch.setattr("ztfxr.store.zarr._FORMAT", 9)
    to_zarr(stack, target)
    monkeypatch.undo()
    with pytest.raises(StoreError, match=r"has ztfxr store format 9, written by ztfxr .*update ztfxr to read it"):
        open_zarr(target)


def test_no_store(stack: xr.Dataset) -> None:
    with pytest.raises(InputError, match=r"a store is a path, a URL, .*; got dict"):
        to_zarr(stack, {})
    with pytest.raises(InputError, match="fsspec knows no nonsense://"):
        to_zarr(stack, "nonsense://me:secret@host/s.zarr")


def test_missing_packages(stack: xr.Dataset, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(*args: Any, **options: Any) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr("zarr.storage.FsspecStore.from_url", refuse)
    monkeypatch.setattr("ztfxr.store.urls.find_spec", lambda name: None)
    monkeypatch.setattr("ztfxr.store.icechunk.find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r'the package for s3:// .*pip install "ztfxr\[s3\]"'):
        to_zarr(stack, "s3://bucket/s.zarr")
    with pytest.raises(MissingDependencyError, match="fsspec's package for gs:// is not installed"):
        open_zarr("gs://bucket/s.zarr")
    with pytest.raises(MissingDependencyError, match=r'icechunk is not installed.*pip install "ztfxr\[icechunk\]"'):
        to_zarr(stack, f"icechunk::{tmp_path / 'r'}")


def test_obstore_stands_in_for_s3fs(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("obstore", reason='obstore is not installed: pip install "ztfxr[obstore]"')

    def refuse(*args: Any, **options: Any) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr("zarr.storage.FsspecStore.from_url", refuse)
    store = as_store("s3://bucket/s.zarr", read_only=True)
    assert type(store.store).__name__ == "S3Store"


# icechunk


def test_one_commit_per_write(stack: xr.Dataset, place: Any) -> None:
    repository = place("repository")
    to_zarr(stack, repository)
    to_zarr(stack[["flux"]], repository, overwrite=True)
    snapshots = [s.message for s in repository.ancestry(branch="main")]
    assert len(snapshots) == 3
    assert all(m.startswith("ztfxr ") and m.endswith(": Dataset") for m in snapshots[:2])


def test_session_is_committed_by_its_owner(stack: xr.Dataset, place: Any) -> None:
    repository = place("repository")
    session = repository.writable_session("main")
    to_zarr(stack, session)
    with pytest.raises(StoreError, match="cannot be read as a zarr store"):
        open_zarr(repository)
    session.commit("by hand")
    xr.testing.assert_identical(open_zarr(repository), stack)
    earlier = repository.writable_session("main")
    to_zarr(stack[["flux"]], earlier.store, overwrite=True)
    xr.testing.assert_identical(open_zarr(repository), stack)


def test_two_writers(stack: xr.Dataset, place: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second to commit is told, and changes nothing."""
    from ztfxr.store import icechunk

    repository = place("repository")
    to_zarr(stack, repository)
    session, ours = icechunk.open_session(repository, writable=True)
    assert ours
    to_zarr(stack[["flux"]], repository, overwrite=True)
    zarr.open_group(session.store, mode="r+").attrs["late"] = 1
    with pytest.raises(StoreError, match=r"the commit failed .*nothing was changed"):
        icechunk.commit(session, "late")
    assert "late" not in open_zarr(repository).attrs


def test_named_repositories(place: Any, tmp_path: Path) -> None:
    place("named")
    with pytest.raises(StoreError, match=r"a folder or s3://BUCKET/PREFIX; got ftp://"):
        open_zarr("icechunk::ftp://host/x")
    (tmp_path / "empty").mkdir()
    with pytest.raises(StoreError, match="cannot be opened as an icechunk repository"):
        open_zarr(f"icechunk::{tmp_path / 'empty'}")
