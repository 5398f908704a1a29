"""Items on the workers of a cluster: each once, short ones together, deadly ones alone."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import dask
import pytest
from distributed import Client, LocalCluster
from distributed.diagnostics.plugin import SchedulerPlugin

from ztfxr.errors import InputError
from ztfxr.pipeline.pools import _MAX_BATCH, _TASK_S, DaskPool, WorkersDiedError, _batch_size, open_pool

pytestmark = pytest.mark.slow


class Finished(SchedulerPlugin):
    """Counts the tasks that finish."""

    name = "finished"

    def __init__(self) -> None:
        self.count = 0

    def transition(self, *change: Any, **_: Any) -> None:
        self.count += change[2] == "memory"


def finished(dask_scheduler: Any) -> int:
    return int(dask_scheduler.plugins[Finished.name].count)


def in_scheduler(dask_scheduler: Any) -> int:
    return len(dask_scheduler.tasks)


# One retry after a death. A LocalCluster forgets a worker that is not back in time, and these die again and again.
CONFIG = {"distributed.scheduler.allowed-failures": 1, "distributed.deploy.lost-worker-timeout": "10 minutes"}


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with (
        dask.config.set(CONFIG),
        LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address="127.0.0.1:0", silence_logs=50
        ) as cluster,
        Client(cluster) as client,
    ):
        client.register_plugin(Finished(), name=Finished.name)
        yield client


def noted(item: int, *, folder: Path, seconds: float = 0.0) -> int:
    """A file for every time that an item is worked on."""
    with (folder / str(item)).open("a") as file:
        file.write("x")
    time.sleep(seconds)
    return -item


def deadly(item: int, *, folder: Path, bad: frozenset[int]) -> int:
    if item in bad:
        os._exit(1)
    time.sleep(0.002)
    return noted(item, folder=folder)


def raising(item: int) -> int:
    if item == 37:
        raise InputError("item 37 is the matter")
    return item


def times(folder: Path) -> dict[int, int]:
    return {int(path.name): len(path.read_text()) for path in folder.iterdir()}


def nothing_left(client: Client) -> bool:
    deadline = time.monotonic() + 10
    while client.run_on_scheduler(in_scheduler) and time.monotonic() < deadline:
        time.sleep(0.2)
    return client.run_on_scheduler(in_scheduler) == 0


def test_short_items_share_tasks_and_none_is_lost(client, tmp_path):
    before = client.run_on_scheduler(finished)
    found = list(DaskPool(client).map(partial(noted, folder=tmp_path), range(400)))
    assert Counter(item for item, _ in found) == Counter(range(400))
    assert all(result == -item for item, result in found)
    assert times(tmp_path) == dict.fromkeys(range(400), 1)
    assert 400 / _MAX_BATCH <= client.run_on_scheduler(finished) - before < 100
    assert nothing_left(client)


def test_long_items_have_a_task_each(client, tmp_path):
    before = client.run_on_scheduler(finished)
    found = dict(DaskPool(client).map(partial(noted, folder=tmp_path, seconds=1.05 * _TASK_S), range(6)))
    assert found == {i: -i for i in range(6)}
    assert client.run_on_scheduler(finished) - before == 6


def test_items_are_taken_as_they_are_needed(client):
    taken = []

    def items():
        for i in range(10_000):
            taken.append(i)
            yield i

    mapped = DaskPool(client).map(raising, (i for i in items() if i != 37))
    for _ in range(5):
        next(mapped)
    mapped.close()
    assert len(taken) < 500
    assert nothing_left(client)


def test_deadly_items_are_alone_in_their_fate(client, tmp_path):
    """Among the first tasks, of one item each, and later in a batch."""
    found = list(DaskPool(client).map(partial(deadly, folder=tmp_path, bad=frozenset({0, 60})), range(120)))
    assert Counter(item for item, _ in found) == Counter(range(120))
    died = {item: str(result) for item, result in found if isinstance(result, WorkersDiedError)}
    assert set(died) == {0, 60}
    assert all("every worker that took it died" in message for message in died.values())
    assert all(result == -item for item, result in found if item not in died)
    assert nothing_left(client)


def test_an_error_of_the_function_is_raised(client):
    with pytest.raises(InputError, match="item 37 is the matter"):
        list(DaskPool(client).map(raising, range(100)))
    assert nothing_left(client)


def test_closing_early_cancels_what_is_in_flight(client, tmp_path):
    mapped = DaskPool(client).map(partial(noted, folder=tmp_path, seconds=0.3), range(50))
    next(mapped)
    mapped.close()
    assert nothing_left(client)
    assert len(times(tmp_path)) < 10


def test_one_process_maps_in_order():
    with open_pool(None, 1, 10) as pool:
        assert list(pool.map(raising, range(10))) == [(i, i) for i in range(10)]


def test_batches_grow_by_twice_at_most_and_shrink_at_once():
    assert _batch_size(1, 1e-4) == 2
    assert _batch_size(2, 0.0) == 4
    assert _batch_size(_MAX_BATCH, 1e-4) == _MAX_BATCH
    assert _batch_size(16, _TASK_S / 3) == 3
    assert _batch_size(16, 10 * _TASK_S) == 1
