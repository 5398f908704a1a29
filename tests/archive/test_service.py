"""The forced photometry service: each position once, whatever is killed; light curves fetched and read."""

from __future__ import annotations

import json
import pickle
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import ztfxr
from tests.archive.conftest import Serve, ask
from ztfxr.archive import Account, Login, Service
from ztfxr.archive import service as service_module
from ztfxr.errors import ArchiveError, InputError, StoreError
from ztfxr.testing.loopback import Loopback

TIME = (59000.0, 59100.0)
CANARY = "canary&userpass#1"
PLACES = [(58.2573, 35.5884), (359.99999, -20.5), (10.0, 0.0)]


def account() -> Account:
    return Account("me@example.org", CANARY, Login("ztffps", "pages-canary"))


def service(server: Loopback, folder: Path, **options: float) -> Service:
    return Service(folder, account(), ask(server, folder / "none", tries=1), settle=options.get("settle", 0.0))


@pytest.fixture
def server(serve: Serve) -> Loopback:
    return serve(users={"ztffps": "pages-canary"}, polls_needed=2)


def submitted(server: Loopback) -> Counter[tuple[float, float]]:
    return Counter((job["ra"], job["dec"]) for job in server.jobs)


def test_from_positions_to_light_curves(server: Loopback, tmp_path: Path) -> None:
    asked = service(server, tmp_path)
    assert asked.submit(PLACES, time=TIME)["state"].values.tolist() == ["waiting"] * 3
    assert asked.follow()["state"].values.tolist() == ["waiting"] * 3
    done = asked.wait(every=0.0)
    assert done["state"].values.tolist() == ["done"] * 3
    lc = ztfxr.read_zfps(done["path"].values[0])
    assert (lc["ra"].item(), lc["dec"].item()) == PLACES[0]
    np.testing.assert_array_equal(lc["flux"].values[:, 0], [100.0, 101.0, 102.0])
    before = len(server.asked)
    assert service(server, tmp_path).wait()["state"].values.tolist() == ["done"] * 3
    assert len(server.asked) == before


def test_nothing_is_submitted_twice(server: Loopback, tmp_path: Path) -> None:
    service(server, tmp_path).submit(PLACES[:2], time=TIME)
    service(server, tmp_path).submit([*PLACES, PLACES[0]], time=TIME)
    assert submitted(server) == dict.fromkeys(PLACES, 1)
    service(server, tmp_path).submit(PLACES[:1], time=(59000.0, 59200.0))
    assert submitted(server)[PLACES[0]] == 2


def test_batches_are_of_1500(server: Loopback, tmp_path: Path) -> None:
    places = [(i * 0.1, 5.0) for i in range(1600)]
    out = service(server, tmp_path).submit(places, time=TIME)
    assert set(out["state"].values) == {"waiting"}
    assert [a.method for a in server.asked] == ["POST"] * 2
    assert len(server.jobs) == 1600


@pytest.mark.parametrize("heard", [True, False])
def test_a_kill_between_request_and_answer(server: Loopback, tmp_path: Path, monkeypatch, heard: bool) -> None:
    """The ledger says `sending`: what the service has is kept, what it has not is sent, each once."""
    first = service(server, tmp_path)
    real = Service._ask

    def killed(self, path, fields, **how):
        if heard:
            real(self, path, fields, **how)
        raise KeyboardInterrupt

    monkeypatch.setattr(Service, "_ask", killed)
    with pytest.raises(KeyboardInterrupt):
        first.submit(PLACES, time=TIME)
    monkeypatch.undo()
    assert first.jobs()["state"].values.tolist() == ["sending"] * 3
    hasty = service(server, tmp_path, settle=1000.0)
    hasty.submit(PLACES, time=TIME)
    assert sum(submitted(server).values()) == (3 if heard else 0)
    out = service(server, tmp_path).submit(PLACES, time=TIME)
    assert submitted(server) == dict.fromkeys(PLACES, 1)
    assert out["state"].values.tolist() in (["waiting"] * 3, ["ready"] * 3)


def test_an_answer_that_says_something_else(server: Loopback, tmp_path: Path) -> None:
    server.faults["submit"] = ["500"]
    with pytest.raises(ArchiveError, match=r"too much to do|status 500"):
        service(server, tmp_path).submit(PLACES, time=TIME)
    service(server, tmp_path).submit(PLACES, time=TIME)
    assert submitted(server) == dict.fromkeys(PLACES, 1)


def test_failures_of_jobs_are_named(server: Loopback, tmp_path: Path) -> None:
    asked = service(server, tmp_path)
    asked.submit(PLACES[:2], time=TIME)
    server.jobs[0]["exitcode"] = 64
    server.jobs[1]["empty"] = True
    out = asked.wait(every=0.0)
    assert out["state"].values.tolist() == ["failed", "failed"]
    assert "exit code 64" in out["reason"].values[0]
    assert "0 bytes" in out["reason"].values[1]


def test_pages_that_are_no_tables_and_paths_that_lead_out(server: Loopback, tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match="no table with ra and dec"):
        service_module._table("<html>Bad login</html>")
    job = {"state": "waiting", "remote": ""}
    service_module._take(job, {"lightcurve": "/ztf/ops/../../etc/x_lc.txt", "exitcode": "0"})
    assert job == {"state": "waiting", "remote": ""}


def test_who_asks_is_nowhere(server: Loopback, tmp_path: Path, caplog) -> None:
    asked = service(server, tmp_path)
    with caplog.at_level("DEBUG"):
        asked.submit(PLACES, time=TIME)
        out = asked.wait(every=0.0)
    kept = [p.read_text() + p.name for p in tmp_path.rglob("*") if p.is_file()]
    for text in (*kept, repr(out), repr(account()), repr(asked)):
        assert CANARY not in text
        assert "pages-canary" not in text
    assert "canary" not in caplog.text
    assert "getBatchForcedPhotometryRequests.cgi" in caplog.text
    with pytest.raises(InputError, match="not written to files"):
        pickle.dumps(account())
    assert "refuses the log-in" not in caplog.text


def test_a_wrong_account_is_refused(serve: Serve, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(service_module, "_TRIES_IF_REFUSED", 2)
    wrong = Service(tmp_path, Account("me", CANARY, Login("ztffps", "no")), ask(serve(users={"a": "b"}), tmp_path))
    with pytest.raises(ArchiveError, match="refuses the log-in") as caught:
        wrong.submit(PLACES, time=TIME)
    assert CANARY not in str(caught.value)


@pytest.mark.parametrize(
    ("positions", "time", "said"),
    [
        (PLACES, (2459000.5, 2459001.5), "not JD"),
        (PLACES, (59001, 59000), "first and the last MJD"),
        (PLACES, 5, "first and the last MJD"),
        ([(10.0, 95.0)], TIME, "RA and Dec in degrees"),
    ],
)
def test_requests_that_are_none(server: Loopback, tmp_path: Path, positions, time, said: str) -> None:
    with pytest.raises(InputError, match=said):
        service(server, tmp_path).submit(positions, time=time)
    assert server.asked == []


def test_a_ledger_that_is_none(server: Loopback, tmp_path: Path) -> None:
    (tmp_path / "ledger.json").write_text(json.dumps([1]))
    with pytest.raises(StoreError, match="is no ledger"):
        service(server, tmp_path).jobs()


def test_the_environment_has_the_account(monkeypatch, tmp_path: Path) -> None:
    for name in ("ZTFFPS_EMAIL", "ZTFFPS_USERPASS", "ZTFFPS_USER"):
        monkeypatch.setenv(name, "a")
    with pytest.raises(InputError, match="ZTFFPS_PASSWORD"):
        Service(tmp_path)
    monkeypatch.setenv("ZTFFPS_PASSWORD", "b")
    assert Account.from_environment() == Account("a", "a", Login("a", "b"))
