"""Log-ins: where they come from, and that they are nowhere to be seen."""

from __future__ import annotations

import pickle
import subprocess
import sys
import traceback
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest

from tests.archive.conftest import Serve, ask
from ztfxr.archive import Addresses, Archive, Login, download, find_login, search
from ztfxr.errors import ArchiveError, InputError

CANARY = "canary&secret#100%+x"
HERE = (58.2573, 35.5884)
HOST = "irsa.ipac.caltech.edu"


def test_environment_comes_before_netrc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "netrc"
    path.write_text(f"machine {HOST} login a password b\n")
    path.chmod(0o600)
    monkeypatch.setenv("NETRC", str(path))
    assert find_login(HOST) == Login("a", "b")
    assert find_login("elsewhere.org") is None
    assert Archive(tmp_path).who == Login("a", "b")
    monkeypatch.setenv("IRSA_USER", "c")
    monkeypatch.setenv("IRSA_PASSWORD", "d")
    assert find_login(HOST) == Login("c", "d")
    assert find_login("elsewhere.org") is None
    assert find_login("irsa.ipac.caltech.edu.elsewhere.org") is None
    assert Archive(tmp_path, login=Login("e", "f")).who == Login("e", "f")
    assert Archive(tmp_path, login=False).who is None
    other = Archive(tmp_path, addresses=Addresses(tap="https://elsewhere.org/TAP"))
    assert other.login_for("https://elsewhere.org/TAP") is None
    assert other.login_for(f"https://{HOST}/ibe/x") == Login("c", "d")


def test_no_text_shows_it(tmp_path: Path) -> None:
    login = Login("me", CANARY)
    for text in (repr(login), str(login), f"{login}", repr(Archive(tmp_path, login=login)), repr([login])):
        assert CANARY not in text
        assert "me" not in text.replace("timeout", "")
    with pytest.raises(InputError, match="not written to files"):
        pickle.dumps(login)


def test_a_netrc_that_cannot_be_read_is_named_without_its_words(tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "netrc"
    path.write_text(f"machine {HOST} login me password {CANARY} {CANARY}\n")
    path.chmod(0o600)
    monkeypatch.setenv("NETRC", str(path))
    with pytest.raises(InputError, match="line") as caught:
        find_login(HOST)
    assert CANARY not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(("user", "password"), [("", "a"), ("a", ""), ("a:b", "c"), ("a", "b\nc")])
def test_log_ins_that_http_cannot_say(user: str, password: str) -> None:
    with pytest.raises(InputError, match="a log-in has a name"):
        Login(user, password)


@pytest.mark.parametrize("address", ["ftp://a/b", "https://me:word@host/x", "https://host/x?password=1", "host"])
def test_addresses_hold_no_log_in(address: str) -> None:
    with pytest.raises(InputError, match="without a log-in") as caught:
        Addresses(data=address)
    assert "word" not in str(caught.value).replace("password", "")


def test_the_canary_is_nowhere(serve: Serve, tmp_path: Path, caplog, capfd) -> None:
    """Not in URLs, logs, exceptions, output, or any file below the folder, whatever the archive answers."""
    name = "ztf_20180705481609_001735_zg_c01_o_q2_sciimg.fits"
    server = serve(users={"me": CANARY})
    names = [row["filefracday"] for row in server.rows["sci"]]
    assert names
    root, said = tmp_path / "root", []
    with caplog.at_level("DEBUG"):
        archive = ask(server, root, login=Login("me", CANARY), tries=2)
        rows = search(HERE, archive=archive)
        out = download(rows, size=31, archive=archive)
        said += [repr(rows), repr(out), str(rows.attrs), str(out.attrs), repr(download([name], archive=archive))]
        for fault in ("loop", "elsewhere", "503", "reset", "truncated", "xml"):
            server.faults[name] = [fault]
            server.lasting.add(name)
            said.append(str(download([name], archive=archive, retry_missing=True).to_dict()))
        server.answers.append(b"<html>" + CANARY[:3].encode() + b"</html>")
        for wrong in (Login("you", CANARY), Login("me", CANARY)):
            with pytest.raises(ArchiveError) as caught:
                search(field=1, where="no", archive=ask(server, root, login=wrong))
            said.append("".join(traceback.format_exception(caught.value)))
            server.answers.append(b"<html></html>")
    said += [caplog.text, *capfd.readouterr(), *(f"{a.path}?{a.query}" for a in server.asked)]
    said += [p.read_bytes().decode("latin-1") + str(p) for p in root.rglob("*") if p.is_file()]
    forms = {CANARY, quote(CANARY), quote_plus(CANARY), Login("me", CANARY).header.split()[1]}
    assert [form for form in forms for text in said if form in text] == []
    assert any(a.login for a in server.asked)


def test_a_log_in_is_not_sent_where_others_listen(monkeypatch, tmp_path: Path) -> None:
    from ztfxr.archive import web

    assert web.is_safe("https://irsa.ipac.caltech.edu/a")
    assert not web.is_safe("http://irsa.ipac.caltech.edu/a")


def test_without_urllib3_the_extra_is_named(tmp_path: Path) -> None:
    script = (
        "import sys; sys.modules['urllib3'] = None\n"
        "import importlib.util as u; real = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name == 'urllib3' else real(name, *a)\n"
        "import ztfxr\n"
        "try:\n    ztfxr.archive.search(field=1, archive=ztfxr.archive.Archive(sys.argv[1], login=False))\n"
        "except ztfxr.MissingDependencyError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True)
    assert 'pip install "ztfxr[archive]"' in done.stdout
