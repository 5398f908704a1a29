"""Frames and references at URLs: the same numbers as from disk, one at a time missing, secrets kept."""

from __future__ import annotations

import shutil
from pathlib import Path

import fsspec
import numpy as np
import pytest

import ztfxr
from tests.io.test_remote import Served, served  # noqa: F401
from tests.pipeline.conftest import N_EPOCHS, chunks, make_job, run
from ztfxr import pipeline
from ztfxr.errors import FrameError, InputError, RemoteFileError, StoreError
from ztfxr.io.remote import Address, matching
from ztfxr.pipeline.epoch import file_checksum

PATTERN = "ztf_202[01]*_sciimg.fits"


@pytest.fixture
def server(served: Served, made) -> Served:  # noqa: F811
    """It has the frames and the reference in ``/frames/``."""
    shutil.copytree(made.reference.parent, served.folder / "frames")
    return served


@pytest.fixture
def memory(made):
    system = fsspec.filesystem("memory")
    for path in made.reference.parent.iterdir():
        system.pipe_file(f"/night/{path.name}", path.read_bytes())
    yield "memory://night"
    system.rm("/night", recursive=True)


def remote_job(made, folder: str, **options):
    frames = f"{folder}/{PATTERN}"
    reference = f"{folder}/{made.reference.name}"
    return make_job(made, **({"frames": frames, "reference": reference, "stamps": 9, "kernels": True} | options))


def secret(server: Served) -> str:
    return f"{server.address}/frames".replace("//", "//me:secret@")


def without_paths(store: Path) -> dict[str, bytes]:
    return {name: data for name, data in chunks(store).items() if not name.startswith("epochs/path/")}


def test_frames_of_a_server_give_the_same(made, undisturbed, server, tmp_path, capsys):
    job, store = remote_job(made, secret(server)), tmp_path / "run.zarr"
    found = run(job, store, progress=True)
    assert found.attrs["measured"] == N_EPOCHS
    assert without_paths(store) == without_paths(undisturbed)
    paths = ztfxr.open_zarr(store)["epochs"]["path"].values
    assert paths.tolist() == [f"{server.address}/frames/{path.name}" for path in made.paths]
    said = capsys.readouterr()
    assert "secret" not in said.out + said.err + str(found) + repr(job)
    assert not any(b"secret" in path.read_bytes() for path in store.rglob("*") if path.is_file())


def test_frames_in_memory_give_the_same(made, undisturbed, memory, tmp_path):
    run(remote_job(made, memory), tmp_path / "run.zarr")
    assert without_paths(tmp_path / "run.zarr") == without_paths(undisturbed)
    ztfxr.to_zarr(ztfxr.open_zarr(undisturbed)["reference"].to_dataset().load(), "memory://night/reference.zarr")
    job = remote_job(made, memory, reference="memory://night/reference.zarr", cutout=None)
    run(job, tmp_path / "again.zarr")
    flux = [ztfxr.open_zarr(tmp_path / n)["lightcurve"]["flux"].values for n in ("run.zarr", "again.zarr")]
    np.testing.assert_array_equal(*flux)


@pytest.mark.slow
def test_workers_fetch_frames_themselves(made, undisturbed, server, tmp_path):
    pipeline.run(remote_job(made, secret(server)), tmp_path / "run.zarr", workers=2, progress=False)
    assert without_paths(tmp_path / "run.zarr") == without_paths(undisturbed)


def test_a_frame_that_is_refused_is_its_own_matter(made, undisturbed, server, tmp_path):
    server.refused = made.paths[2].name
    urls = [f"{secret(server)}/{path.name}?token=secret" for path in made.paths]
    job, store = remote_job(made, secret(server), frames=urls), tmp_path / "run.zarr"
    found = run(job, store)
    assert (found.attrs["measured"], found.attrs["skipped"]) == (N_EPOCHS - 1, 1)
    tree = ztfxr.open_zarr(store)
    epochs, curve = (tree[name].to_dataset().load() for name in ("epochs", "lightcurve"))
    assert epochs["frame"].values[-1] == made.paths[2].name.removesuffix(".fits")
    assert "status 503" in str(epochs["message"].values[-1])
    assert "secret" not in str(epochs["message"].values)
    expected = ztfxr.open_zarr(undisturbed)["lightcurve"].to_dataset().load().isel(time=[0, 1, 3, 4, 5])
    for name in ("flux", "flux_err", "status"):
        np.testing.assert_array_equal(curve[name][:-1], expected[name])
    with pytest.raises(FrameError, match="status 503") as caught:
        run(job, tmp_path / "strict.zarr", errors="raise")
    assert "secret" not in str(caught.value)
    server.refused = ""
    assert run(job, store, retry_skipped=True).attrs["measured"] == N_EPOCHS


def test_another_token_continues_and_another_reference_does_not(made, server, tmp_path):
    one = f"{server.address}/frames/{made.reference.name}?token="
    some = [f"{server.address}/frames/{path.name}" for path in made.paths[:2]]
    run(make_job(made, reference=one + "a", frames=some[:1]), tmp_path / "run.zarr")
    assert run(make_job(made, reference=one + "b", frames=some), tmp_path / "run.zarr").attrs["run"] == 1
    path = server.folder / "frames" / made.reference.name
    path.write_bytes(path.read_bytes()[:-2880] + bytes(2880))
    with pytest.raises(StoreError, match="reference_checksum"):
        run(make_job(made, reference=one + "b", frames=some), tmp_path / "run.zarr")


def test_checksum_is_that_of_the_file(made, server):
    for path in (made.paths[0], made.reference):
        there = f"{server.address}/frames/{path.name}"
        assert file_checksum(there) == file_checksum(str(path)) != ""
    server.asked.clear()
    file_checksum(there)
    assert server.sent <= 4 << 17
    assert file_checksum(f"{server.address}/nothing.fits") == ""


def test_patterns(made, server, memory, tmp_path):
    names = [path.name for path in made.paths]
    assert matching(f"{made.reference.parent}/{PATTERN}") == [str(path) for path in made.paths]
    assert matching(f"file://{made.reference.parent}/{PATTERN}") == [str(path) for path in made.paths]
    for folder in (memory.replace("//", "///"), f"simplecache::{memory.replace('//', '///')}", secret(server)):
        assert matching(f"{folder}/{PATTERN}") == [f"{folder}/{name}" for name in names]
    assert matching(f"{memory}/nothing*.fits") == []
    assert matching("https://host/a.fits?token=secret") == ["https://host/a.fits?token=secret"]
    with pytest.raises(InputError, match=r"nothing matches 'http://127.*/frames/nothing\*") as caught:
        remote_job(made, secret(server), frames=f"{secret(server)}/nothing*").paths()
    assert "secret" not in str(caught.value)
    server.refuse = 403
    with pytest.raises((RemoteFileError, InputError)) as caught:
        remote_job(made, secret(server), frames=f"{secret(server)}/other[12]*.fits").paths()
    assert "secret" not in str(caught.value)


def test_addresses_show_no_secrets():
    url = "https://me:secret@host/a.fits?token=secret"
    job = pipeline.Job([url], [(1.0, 2.0)], reference=url)
    assert "secret" not in repr(job) + str(job.paths()) + job.without_secrets().to_json()
    assert pipeline.Job.from_json(job.to_json()).frames == (url,)
    assert repr(Address("/a b.fits")) == "'/a b.fits'"
    with pytest.raises(InputError, match=r"two frames are named a: https://host/a\.fits and x/a\.fits\.gz"):
        job.with_frames([url, "x/a.fits.gz"]).paths()
