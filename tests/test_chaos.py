"""Runs that are killed, with SIGKILL and at any moment, end as if nothing had happened."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import zarr

from tests.pipeline.conftest import chunks, make_job, run
from ztfxr import pipeline
from ztfxr.pipeline import summary
from ztfxr.samples import SemiReal, make_epochs

pytestmark = pytest.mark.slow

N_EPOCHS = 24
PROGRAM = """
import sys
from ztfxr import pipeline
from ztfxr.pipeline import runner
runner._FLUSH_EPOCHS = 2
if __name__ == "__main__":
    pipeline.run(pipeline.Job.from_json(sys.argv[1]), sys.argv[2], workers=1, progress=False)
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> SemiReal:
    return make_epochs(tmp_path_factory.mktemp("frames"), n_epochs=N_EPOCHS)


@pytest.fixture(scope="module")
def undisturbed(made, tmp_path_factory) -> Path:
    store = tmp_path_factory.mktemp("undisturbed") / "run.zarr"
    run(make_job(made, stamps=9, kernels=True), store)
    return store


def written(store: Path) -> int:
    """Epochs whose flux is in the store, done or not."""
    return len(list((store / "lightcurve" / "flux" / "c").glob("*"))) if store.exists() else 0


def start(folder: Path, job: Path, store: Path) -> subprocess.Popen[bytes]:
    (folder / "program.py").write_text(PROGRAM)
    return subprocess.Popen([sys.executable, str(folder / "program.py"), str(job), str(store)])


def test_three_kills_change_nothing(made, undisturbed, tmp_path):
    job, store = make_job(made, stamps=9, kernels=True), tmp_path / "run.zarr"
    job.to_json(tmp_path / "job.json")
    rng = np.random.default_rng(int(time.time()))
    before, kills = 0, 0
    for target in (3, 9, 16):
        process = start(tmp_path, tmp_path / "job.json", store)
        deadline = time.monotonic() + 120
        while written(store) < target and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.005)
        time.sleep(rng.uniform(0, 0.1))
        kills += process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait()
        done = np.asarray(zarr.open_group(store, mode="r")["epochs"]["done"])
        assert before <= done.sum() <= written(store)
        before = int(done.sum())
    assert kills == 3
    assert 0 < before < N_EPOCHS
    found = run(job, store)
    assert found.attrs["run"] == N_EPOCHS - before
    left = {k: v for k, v in chunks(store).items() if not k.endswith(".partial")}
    assert left == chunks(undisturbed)


def test_a_worker_that_dies_changes_nothing(made, undisturbed, tmp_path):
    from distributed import Client, LocalCluster

    job, store = make_job(made, stamps=9, kernels=True), tmp_path / "run.zarr"
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0", silence_logs=50) as cluster,
        Client(cluster) as client,
    ):
        killed = []

        def kill_one() -> None:
            while written(store) < 4:
                time.sleep(0.005)
            victim = next(iter(client.run(os.getpid).values()))
            os.kill(victim, signal.SIGKILL)
            killed.append(victim)

        thread = threading.Thread(target=kill_one)
        thread.start()
        found = pipeline.run(job, store, client=client, progress=False)
        thread.join()
    assert killed
    assert (found.attrs["measured"], found.attrs["skipped"], found.attrs["run"]) == (N_EPOCHS, 0, N_EPOCHS)
    left = {k: v for k, v in chunks(store).items() if not k.endswith(".partial")}
    assert left == chunks(undisturbed)


def test_processes_of_this_machine_give_the_same(made, undisturbed, tmp_path):
    store = tmp_path / "run.zarr"
    pipeline.run(make_job(made, stamps=9, kernels=True), store, workers=2, progress=False)
    assert chunks(store) == chunks(undisturbed)
    assert summary(store).attrs["measured"] == N_EPOCHS
