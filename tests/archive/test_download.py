"""Downloads: every fault over two hundred files, kills, two processes on one folder, cut-outs to the pixel."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from astropy.io import fits

from tests.archive.conftest import N_EPOCHS, Serve, ask
from ztfxr.archive import Login, Product, Window, download, kept, parse_product, search, web
from ztfxr.archive import files as archive_files
from ztfxr.archive.download import _Bar
from ztfxr.errors import InputError, StoreError
from ztfxr.samples import exposure_number
from ztfxr.testing.loopback import Fault, Loopback

HERE = (58.2573, 35.5884)
N_FILES = 200
CANARY = "canary&secret#100%"
FIRST_MJD = 59000.2


def write_small(folder: Path, number: int, packed: bool = False) -> str:
    """A science image of a few records, or a packed difference image with a checksum; its name."""
    mjd = FIRST_MJD + number / 500
    stem, ending = ("scimrefdiffimg", "fits.fz") if packed else ("sciimg", "fits")
    product = Product("sci", str(exposure_number(mjd)), 655, "zr", 13, 3, "o", stem, ending)
    path = folder / product.path
    path.parent.mkdir(parents=True, exist_ok=True)
    cards = {"FIELDID": 655, "CCDID": 13, "QID": 3, "FILTERID": 2, "OBSJD": mjd + 2400000.5, "EXPTIME": 30.0}
    image = np.random.default_rng(number).normal(100, 5, (40, 36)).astype(np.float32)
    header = fits.Header(cards)
    hdus: Any = fits.PrimaryHDU(image, header)
    if packed:
        hdus = fits.HDUList([fits.PrimaryHDU(), fits.CompImageHDU(image, header, compression_type="GZIP_2")])
    hdus.writeto(path, checksum=True)
    return product.name


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """Two hundred small files, some of them packed, and their names."""
    folder = tmp_path_factory.mktemp("small")
    return folder, [write_small(folder, n, packed=n % 20 == 19) for n in range(N_FILES)]


ONCE_OK: tuple[Fault, ...] = (
    "429", "500", "503", "truncated", "chunked", "long", "gzip", "bomb", "other epoch", "reset", "not fits", "drip",
    "changed",
)  # fmt: skip
STATE_OF: dict[Fault, str] = {
    "400": "failed", "401": "no access", "403": "no access", "404": "missing", "elsewhere": "failed",
    "loop": "failed", "html": "missing", "login page": "missing", "xml": "missing",
}  # fmt: skip
FOR_GOOD: dict[Fault, str] = {
    "503": "failed", "reset": "failed", "truncated": "ok", "bomb": "damaged", "other epoch": "damaged",
    "not fits": "damaged", "bad sum": "damaged",
}  # fmt: skip


def plan(names: list[str]) -> tuple[dict[str, list[Fault]], set[str], dict[str, str]]:
    """Faults by name, those that last, and the state in which each file must end."""
    plain, packed = ([n for n in names if n.endswith(".fz") is is_packed] for is_packed in (False, True))
    faults: dict[str, list[Fault]] = {}
    lasting, states = set(), dict.fromkeys(names, "ok")
    queue = iter(plain)
    for fault in ONCE_OK:
        for _ in range(5 if fault != "drip" else 1):
            faults[next(queue)] = [fault]
    for fault, state in {**STATE_OF, **FOR_GOOD}.items():
        for _ in range(2):
            name = packed.pop() if fault == "bad sum" else next(queue)
            faults[name], states[name] = [fault], state
            lasting.add(name)
    for several in (["truncated", "truncated", "429", "reset"], ["truncated", "changed"], ["bomb", "503"]):
        faults[next(queue)] = several  # type: ignore[assignment]
    return faults, lasting, states


def everything_below(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_every_fault_over_two_hundred_files(serve: Serve, small, tmp_path: Path, caplog, monkeypatch) -> None:
    folder, names = small
    faults, lasting, states = plan(names)
    assert {f for several in faults.values() for f in several} == set(get_args(Fault))
    monkeypatch.setattr(web, "_SLOWEST", 1000.0)
    monkeypatch.setattr(archive_files, "_MOST_BYTES", 1 << 22)
    server = serve(folder, faults={k: list(v) for k, v in faults.items()}, lasting=lasting)
    root = tmp_path / "root"
    with caplog.at_level("DEBUG"):
        out = download(names, archive=ask(server, root, timeout=3.0, pause=0.0))
    ended = dict(zip(out["name"].values.tolist(), out["state"].values.tolist(), strict=True))
    assert {n: (s, faults.get(n)) for n, s in ended.items() if s != states[n]} == {}
    assert all(reason for reason, state in zip(out["reason"].values, out["state"].values, strict=True) if state != "ok")
    good = [name for name, state in states.items() if state == "ok"]
    found = {k: v for k, v in everything_below(root).items() if not k.startswith(".ztfxr/") and ".part" not in k}
    assert found == {parse_product(n).path: (folder / parse_product(n).path).read_bytes() for n in good}
    assert {p.name for p in tmp_path.iterdir()} == {"root"}
    assert set(kept(ask(server, root))["name"].values) == set(good)
    before = len(server.asked)
    again = download(good, archive=ask(server, root))
    assert set(again["state"].values) == {"cached"}
    assert len(server.asked) == before
    assert again.attrs == {"requests": 0, "bytes": 0}


def test_the_server_is_asked_less_when_it_is_busy(serve: Serve, small, tmp_path: Path) -> None:
    folder, names = small
    server = serve(folder, faults={name: ["503"] for name in names[:8]})
    out = download(names[:40], archive=ask(server, tmp_path, connections=16))
    assert set(out["state"].values) == {"ok"}
    assert server.most_at_once <= 16


def test_what_is_cut_off_goes_on_where_it_stopped(serve: Serve, small, tmp_path: Path) -> None:
    folder, names = small
    server = serve(folder, faults={names[0]: ["truncated"]})
    assert download(names[:1], archive=ask(server, tmp_path))["state"].item() == "ok"
    size = (folder / parse_product(names[0]).path).stat().st_size
    assert [(a.start, a.sent) for a in server.asked] == [(0, size // 2), (size // 2, size - size // 2)]


def test_missing_files_are_asked_for_another_day(serve: Serve, small, tmp_path: Path) -> None:
    folder, names = small
    server = serve(folder, faults={names[0]: ["404"]})
    archive = ask(server, tmp_path)
    assert download(names[0], archive=archive)["state"].item() == "missing"
    again = download(names[0], archive=archive)
    assert (again["state"].item(), len(server.asked)) == ("missing", 1)
    assert "a day later" in again["reason"].item()
    (note,) = (tmp_path / ".ztfxr" / "missing").iterdir()
    os.utime(note, (time.time() - 90000,) * 2)
    assert download(names[0], archive=archive)["state"].item() == "ok"


def test_half_files_of_others_are_fetched_anew(serve: Serve, small, tmp_path: Path) -> None:
    """ztfquery writes in place: a kill leaves a half file that exists."""
    folder, names = small
    for name, text in zip(names[:3], (b"SIMPLE  = half", b"", b"<html>log in</html>"), strict=True):
        path = tmp_path / parse_product(name).path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text)
    out = download(names[:3], archive=ask(serve(folder), tmp_path))
    assert out["state"].values.tolist() == ["ok"] * 3
    for name, path in zip(names, out["path"].values, strict=False):
        assert Path(path).read_bytes() == (folder / parse_product(name).path).read_bytes()


def test_existing_trees_are_found_and_only_read(serve: Serve, small, tmp_path: Path) -> None:
    folder, names = small
    server = serve(folder)
    before = everything_below(folder)
    out = download(names[:5], archive=ask(server, tmp_path / "mine", mirrors=(folder,), offline=True))
    assert set(out["state"].values) == {"cached"}
    assert all(path.startswith(str(folder)) for path in out["path"].values)
    gone = download(names[:1], archive=ask(server, tmp_path / "mine", offline=True))
    assert (gone["state"].item(), gone["reason"].item()) == ("missing", "offline, and not kept")
    assert (server.asked, everything_below(folder)) == ([], before)


def test_stale_parts_are_removed(serve: Serve, small, tmp_path: Path) -> None:
    folder, names = small
    target = tmp_path / parse_product(names[0]).path
    target.parent.mkdir(parents=True)
    stale, fresh = (target.with_name(f".{n}.part") for n in (names[1], names[2]))
    for path in (stale, fresh):
        path.write_bytes(b"x")
    os.utime(stale, (time.time() - 90000,) * 2)
    download(names[:1], archive=ask(serve(folder), tmp_path))
    assert (stale.exists(), fresh.exists()) == (False, True)


# ---- kills and company ----------------------------------------------------------------------------------------------

SCRIPT = """
import sys
from ztfxr.archive import Addresses, Archive, download
names = open(sys.argv[3]).read().split()
how = {"login": False, "pause": 0.01, "connections": 2, "addresses": Addresses.at(sys.argv[1])}
out = download(names, archive=Archive(sys.argv[2], **how))
print(sorted(set(out["state"].values.tolist())), out.attrs["bytes"])
"""


def start(server: Loopback, root: Path, listed: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-W", "error", "-c", SCRIPT, server.address, str(root), str(listed)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def asked_whole(server: Loopback) -> Counter[str]:
    return Counter(a.name for a in server.asked if a.sent)


def test_no_byte_of_finished_files_is_asked_for_twice_after_a_kill(serve: Serve, small, tmp_path: Path) -> None:
    folder, names = small
    server, listed, root = serve(folder), tmp_path / "names", tmp_path / "root"
    listed.write_text("\n".join(names))
    process = start(server, root, listed)
    while len(server.asked) < 60 and process.poll() is None:
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    finished = set(kept(ask(server, root))["name"].values)
    assert len(finished) < N_FILES
    server.asked.clear()
    out = download(names, archive=ask(server, root))
    assert set(out["state"].values) == {"ok", "cached"}
    assert not finished & {a.name for a in server.asked}
    assert len([p for p in everything_below(root) if ".part" in p]) == 0


def test_two_processes_share_a_folder(serve: Serve, small, tmp_path: Path) -> None:
    folder, names = small
    server, listed, root = serve(folder), tmp_path / "names", tmp_path / "root"
    names = names[:60]
    listed.write_text("\n".join(names))
    both = [start(server, root, listed) for _ in range(2)]
    said = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert set(asked_whole(server).values()) == {1}
    paths = [parse_product(name).path for name in names]
    assert everything_below(root) == {path: (folder / path).read_bytes() for path in paths}


def test_threads_wait_for_each_other(tmp_path: Path) -> None:
    target, order = tmp_path / "a" / "ztf_x.fits", []

    def second() -> None:
        with archive_files.partial(target) as part:
            order.append(("second", target.exists(), part.path.exists()))
            part.discard()

    with archive_files.partial(target) as part:
        thread = threading.Thread(target=second)
        thread.start()
        time.sleep(0.05)
        part.file.write(b"whole")
        order.append(("first", target.exists(), True))
        part.finish(target)
    thread.join()
    assert order == [("first", False, True), ("second", True, True)]
    assert target.read_bytes() == b"whole"


def test_a_folder_that_cannot_be_written(serve: Serve, small, tmp_path: Path) -> None:
    folder, names = small
    (tmp_path / "root").write_text("a file")
    with pytest.raises(StoreError, match="cannot be written"):
        download(names[:1], archive=ask(serve(folder), tmp_path / "root"))


# ---- cut-outs -------------------------------------------------------------------------------------------------------


def test_cut_outs_are_exact_to_the_pixel(serve: Serve, tmp_path: Path, made) -> None:
    server = serve()
    archive = ask(server, tmp_path)
    rows = search(HERE, archive=archive)
    out = download(rows, ("sciimg.fits", "mskimg.fits"), size=65, archive=archive)
    assert out["state"].values.tolist() == ["ok"] * 2 * N_EPOCHS
    assert out["row"].values.tolist() == [n for n in range(N_EPOCHS) for _ in range(2)]
    for name, path in zip(out["name"].values, out["path"].values, strict=True):
        product = parse_product(str(name))
        assert product.window is not None
        whole = fits.getdata(made[0] / product.whole.path)
        x, y = product.window.x - 1, product.window.y - 1
        np.testing.assert_array_equal(fits.getdata(path), whole[y - 32 : y + 33, x - 32 : x + 33])
        assert fits.getheader(path)["LTV1"] == 32 - x
    assert not set(kept(archive)["name"].values) & set(rows["name"].values)
    sent = server.sent
    again = download(rows, ("sciimg.fits", "mskimg.fits"), size=65, archive=ask(server, tmp_path, offline=True))
    assert (set(again["state"].values), server.sent) == ({"cached"}, sent)
    assert all("gzip=false" in a.query for a in server.asked if "/data/" in a.path)


def test_cut_outs_off_and_at_the_edge_of_the_image(serve: Serve, tmp_path: Path, made) -> None:
    rows = search(HERE, archive=ask(serve(), tmp_path)).isel(row=slice(0, 2))
    rows["x"][:] = [5000.0, 3.0]
    out = download(rows, size=31, archive=ask(serve(), tmp_path))
    assert out["state"].values.tolist() == ["off frame", "ok"]
    assert fits.getdata(out["path"].values[1]).shape == (31, 19)


def test_cut_outs_of_kept_files_are_made_of_them(serve: Serve, tmp_path: Path, made) -> None:
    """Without a request, equal to what the archive sends, and named damage where a kept file is damaged."""
    server = serve()
    rows = search(HERE, archive=ask(server, tmp_path / "a"))
    sent = download(rows, size=41, archive=ask(server, tmp_path / "a"))
    before = len(server.asked)
    mine = download(rows, size=41, archive=ask(server, tmp_path / "b", mirrors=(made[0],), offline=True))
    assert (set(mine["state"].values), len(server.asked)) == ({"cached"}, before)
    for ours, theirs in zip(mine["path"].values, sent["path"].values, strict=True):
        assert Path(ours).read_bytes() == Path(theirs).read_bytes()
    rows["x"][0] = 5000.0
    off = download(rows.isel(row=[0]), size=41, archive=ask(server, tmp_path / "b", mirrors=(made[0],), offline=True))
    assert off["state"].values.tolist() == ["off frame"]
    broken = tmp_path / "c" / str(rows["path"].values[1])
    broken.parent.mkdir(parents=True)
    broken.write_bytes(b"SIMPLE  =".ljust(2880))
    bad = download(rows.isel(row=[1]), size=41, archive=ask(server, tmp_path / "c", offline=True))
    assert bad["state"].values.tolist() == ["damaged"]
    assert list((tmp_path / "c").rglob("*.part*")) == []


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"rows": ["a.fits"]}, "no name of ZTF's archive"),
        ({"rows": ["ztf_001735_zg_c01_q2_refimg.fits"], "size": 65}, "rows of a search by position"),
        ({"rows": ["ztf_001735_zg_c01_q2_refimg.fits"], "size": 64}, "odd"),
        ({"rows": ["ztf_001735_zg_c01_q2_refimg.fits"], "products": "../a"}, "no name of ZTF's archive"),
    ],
)
def test_downloads_of_nothing(how, said: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=said):
        download(**how, archive=ask(Loopback(tmp_path, address="http://127.0.0.1:9"), tmp_path))


# ---- log-ins --------------------------------------------------------------------------------------------------------


def test_a_refused_log_in_is_tried_once(serve: Serve, small, tmp_path: Path) -> None:
    folder, names = small
    server = serve(folder, users={"me": "right"})
    archive = ask(server, tmp_path, login=Login("me", "wrong"), connections=1)
    out = download(names[:5], archive=archive)
    assert (set(out["state"].values), len(server.asked)) == ({"no access"}, 1)
    assert out["reason"].values[-1] == "not asked: the log-in was refused"
    assert download(names[:5], archive=ask(server, tmp_path))["state"].values.tolist() == ["ok"] * 5


def test_private_files_need_a_log_in(serve: Serve, small, tmp_path: Path) -> None:
    folder, names = small
    server = serve(folder, users={"me": "right"}, private={names[0]})
    assert download(names[:2], archive=ask(server, tmp_path))["state"].values.tolist() == ["no access", "ok"]
    mine = ask(server, tmp_path, login=Login("me", "right"))
    assert download(names[:2], archive=mine)["state"].values.tolist() == ["ok", "cached"]


def test_a_log_in_goes_nowhere_else(serve: Serve, small, tmp_path: Path, monkeypatch) -> None:
    folder, names = small
    server = serve(folder, users={"me": CANARY}, faults={names[0]: ["elsewhere"], names[1]: ["elsewhere"]})
    archive = ask(server, tmp_path, login=Login("me", CANARY))
    out = download(names[:1], archive=archive)
    assert out["state"].item() == "failed"
    assert "no place of the archive" in out["reason"].item()
    # A place that is the archive's gets the question without the log-in.
    monkeypatch.setattr(web, "FAMILY", "localhost")
    assert download(names[1:2], archive=archive)["state"].item() == "ok"
    assert [bool(a.login) for a in server.asked if a.name == names[1]] == [False] or server.asked[-1].login == ""


def test_the_bar_says_rate_and_remaining_time(small, serve: Serve, tmp_path: Path, capsys) -> None:
    folder, names = small
    download(names[:3], archive=ask(serve(folder), tmp_path), progress=True)
    said = capsys.readouterr().err
    assert "3 of 3 files" in said
    assert "MB/s, 0 s left" in said
    assert _Bar.__doc__


def test_windows_have_names() -> None:
    assert Window(1, 2, 65, 65).label == "_x0001y0002w065h065"
