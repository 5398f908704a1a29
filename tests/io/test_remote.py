"""Frames at URLs: the bytes that are fetched, servers that misbehave, secrets that stay secret."""

from __future__ import annotations

import gzip
import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import xarray as xr
from astropy.io import fits

from tests.conftest import WriteFrame, make_flags, make_sky
from ztfxr.errors import (
    InputError,
    MissingDependencyError,
    MissingMaskError,
    NotFITSError,
    RemoteFileError,
    TruncatedFileError,
)
from ztfxr.io.fits import inspect, read_window
from ztfxr.io.frames import open_epochs, open_fits, open_frame, open_frames, open_lco, open_quadrant
from ztfxr.io.names import companion
from ztfxr.io.remote import file_name, is_url, location, open_binary, shown, size_of
from ztfxr.io.tables import read_lco_catalog
from ztfxr.schema import STATUS_PLANES, planes_to_bits
from ztfxr.store.fits import to_fits
from ztfxr.store.zarr import to_zarr

SUFFIXES = (".fits", ".fits.gz", ".fits.fz")
SHAPE = (1200, 400)
WINDOW = (slice(500, 520), slice(30, 50))


@dataclass
class Served:
    """What a server gives, how, and what was asked of it."""

    folder: Path
    address: str = ""
    ranges: bool = True
    refuse: int = 0
    refused: str = ""
    page: bool = False
    asked: list[tuple[str, str, int]] = field(default_factory=list)

    @property
    def sent(self) -> int:
        return sum(n for _, _, n in self.asked)


def handler(served: Served) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args: Any) -> None:
            pass

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            path = served.folder / self.path.split("?")[0].lstrip("/")
            if served.refuse or (served.refused and served.refused in self.path):
                self.reply(served.refuse or 503, b"no", {})
                return
            if path.is_dir() and not served.page:
                links = "".join(f'<a href="{p.name}">{p.name}</a>' for p in path.iterdir())
                self.reply(200, f"<html>{links}</html>".encode(), {})
                return
            if not (served.page or path.is_file()):
                self.reply(404, b"no", {})
                return
            data = b"<!DOCTYPE html><html>Log in</html>" if served.page else path.read_bytes()
            wanted = self.headers.get("Range") if served.ranges else None
            if wanted is None:
                self.reply(200, data, {"Accept-Ranges": "bytes"} if served.ranges else {})
                return
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            start, stop = int(first), min(len(data), int(last) + 1 if last else len(data))
            self.reply(206, data[start:stop], {"Content-Range": f"bytes {start}-{stop - 1}/{len(data)}"})

        def reply(self, status: int, data: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for key, value in {**headers, "Content-Length": str(len(data))}.items():
                self.send_header(key, value)
            self.end_headers()
            body = b"" if self.command == "HEAD" else data
            served.asked.append((self.command, self.path, len(body)))
            self.wfile.write(body)

    return Handler


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    """A server of `tmp_path` on this machine."""
    pytest.importorskip("aiohttp", reason='aiohttp is not installed: pip install "ztfxr[remote]"')
    found = Served(tmp_path)
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler(found))
    found.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield found
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def memory(tmp_path: Path, write_frame: WriteFrame) -> Iterator[Any]:
    """``memory(suffix)`` puts a frame and its mask into fsspec's memory; the URL."""
    system = fsspec.filesystem("memory")

    def put(suffix: str = ".fits", **options: Any) -> str:
        path = write_frame(suffix=suffix, **options)
        for local in tmp_path.iterdir():
            system.pipe_file(f"/frames/{local.name}", local.read_bytes())
        return f"memory://frames/{path.name}"

    yield put
    if system.exists("/frames"):
        system.rm("/frames", recursive=True)


# names


@pytest.mark.parametrize(
    ("path", "safe", "name"),
    [
        ("/data/a#b?c.fits", "/data/a#b?c.fits", "a#b?c.fits"),
        ("https://host/d/a.fits", "https://host/d/a.fits", "a.fits"),
        ("https://me:secret@host:80/d/a.fits?token=secret#x", "https://host:80/d/a.fits", "a.fits"),
        ("https://me:sec@ret@host/a.fits?to=x@y", "https://host/a.fits", "a.fits"),
        ("s3://KEY:secret@bucket/a.fits.fz?versionId=3", "s3://bucket/a.fits.fz", "a.fits.fz"),
        ("simplecache::https://me:secret@host/a.fits?k=secret", "simplecache::https://host/a.fits", "a.fits"),
        ("zip://a.fits::https://me:secret@host/b.zip", "zip://a.fits::https://host/b.zip", "b.zip"),
    ],
)
def test_secrets_are_not_shown(path: str, safe: str, name: str) -> None:
    assert (shown(path), file_name(path)) == (safe, name)


def test_what_is_a_url(tmp_path: Path) -> None:
    assert [is_url(p) for p in ("a.fits", "/a:b", tmp_path, "s3://b/a", "simplecache::s3://b/a")] == [False] * 3 + [
        True
    ] * 2
    assert location("file:///data/a%20b.fits") == Path("/data/a b.fits")
    assert location("https://h/a.fits") == "https://h/a.fits"


# frames in memory and on a server


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_frames_in_memory(memory: Any, suffix: str) -> None:
    url = memory(suffix)
    ds = open_quadrant(url)
    assert ds.attrs["source"] == Path(url).name
    assert ds.encoding["source"] == url
    np.testing.assert_array_equal(ds["sci"].values, make_sky((48, 40)))
    np.testing.assert_array_equal(ds["flags"].values, make_flags((48, 40)))
    by_xarray = xr.open_dataset(url, engine="ztf", chunks={})
    xr.testing.assert_identical(by_xarray, ds)
    tree = open_epochs([url])
    assert list(tree.children) == [Path(url).name.split(".fits")[0]]


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("ranges", [True, False])
def test_frames_on_a_server(served: Served, write_frame: WriteFrame, suffix: str, ranges: bool) -> None:
    """Also where the server knows no ranges, and sends the file whole each time."""
    path = write_frame(suffix=suffix)
    served.ranges = ranges
    here, there = open_quadrant(path), open_quadrant(f"{served.address}/{path.name}")
    assert there.encoding.pop("source") == f"{served.address}/{path.name}"
    xr.testing.assert_identical(there, here)


@pytest.mark.parametrize(("suffix", "part"), [(".fits", 0.02), (".fits.gz", 0.7), (".fits.fz", 0.3)])
def test_a_window_takes_its_bytes(served: Served, write_frame: WriteFrame, suffix: str, part: float) -> None:
    path = write_frame(suffix=suffix, shape=SHAPE, mask=False)
    size = path.stat().st_size
    image = inspect(f"{served.address}/{path.name}")
    assert served.sent < min(size / 2, 300_000)
    served.asked.clear()
    found = read_window(image, *WINDOW)
    np.testing.assert_array_equal(found, make_sky(SHAPE)[WINDOW])
    assert 0 < served.sent <= part * size
    if suffix == ".fits":
        assert served.sent == 20 * SHAPE[1] * 4
        assert len(served.asked) == 1


def test_scaled_pixels_come_too(memory: Any) -> None:
    url = memory(".fits.gz", sci=np.arange(1920, dtype=np.uint16).reshape(48, 40))
    np.testing.assert_array_equal(open_quadrant(url)["sci"].values, np.arange(1920).reshape(48, 40))


def test_frames_travel(memory: Any) -> None:
    """A task carries the URL and no connection."""
    ds = pickle.loads(pickle.dumps(open_quadrant(memory())))
    np.testing.assert_array_equal(ds["sci"].values, make_sky((48, 40)))


@pytest.mark.parametrize("suffix", [".fits", ".fits.gz"])
def test_many_requests(served: Served, write_frame: WriteFrame, suffix: str) -> None:
    """A whole frame that is larger than one request."""
    path = write_frame(suffix=suffix, shape=(1500, 1600), mask=False)
    found = open_quadrant(f"{served.address}/{path.name}", mask=False)["sci"].values
    np.testing.assert_array_equal(found, make_sky((1500, 1600)))


# masks


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("mask_suffix", SUFFIXES)
def test_masks_are_found_beside(memory: Any, suffix: str, mask_suffix: str) -> None:
    url = memory(suffix, mask_suffix=mask_suffix)
    found = companion(url, "sciimg", "mskimg")
    assert found == url.replace("sciimg", "mskimg").removesuffix(suffix) + mask_suffix


def test_mask_of_a_query(served: Served, write_frame: WriteFrame) -> None:
    """The mask of a cut-out service is the same cut-out."""
    path = write_frame()
    url = f"{served.address}/{path.name}?center=55,33"
    assert companion(url, "sciimg", "mskimg") == url.replace("sciimg", "mskimg")
    assert set(open_quadrant(url).data_vars) == {"sci", "flags"}


def test_no_mask(memory: Any) -> None:
    url = memory(mask=False)
    with pytest.raises(MissingMaskError, match=r"memory://frames/.*no mask image"):
        open_quadrant(url)
    assert set(open_quadrant(url, mask=False).data_vars) == {"sci"}


# frames of other telescopes


def put(path: Path) -> str:
    """A file in fsspec's memory; the URL."""
    fsspec.filesystem("memory").pipe_file(f"/frames/{path.name}", path.read_bytes())
    return f"memory://frames/{path.name}"


@pytest.mark.parametrize("suffix", ["fits", "fits.gz"])
def test_other_readers_take_urls(memory: Any, tmp_path: Path, suffix: str) -> None:
    memory()
    rng = np.random.default_rng(0)
    header = fits.Header({"MJD-OBS": 59000.0, "EXPTIME": 30.0, "SATURATE": 5e4, "FILTER": "r"})
    header["GAIN"], header["RDNOISE"] = 1.5, 5.0
    table = fits.BinTableHDU.from_columns([fits.Column(n, "D", array=rng.normal(size=4)) for n in ("X", "Y", "FLUX")])
    table.name = "CAT"
    sci, bpm = rng.normal(size=(30, 40)).astype("f4"), (rng.uniform(size=(30, 40)) < 0.1).astype("u1")
    local = tmp_path / f"other.{suffix}"
    parts = [fits.PrimaryHDU(), fits.ImageHDU(sci, header, name="SCI"), fits.ImageHDU(bpm, name="BPM"), table]
    fits.HDUList(parts).writeto(local)
    url = put(local)
    xr.testing.assert_identical(open_frame(url), open_frame(local))
    xr.testing.assert_identical(open_lco(url), open_lco(local))
    xr.testing.assert_identical(read_lco_catalog(url), read_lco_catalog(local))
    assert list(open_frames([url]).children) == ["other"]
    saved = tmp_path / f"saved.{suffix}"
    to_fits(open_frame(local), saved)
    xr.testing.assert_identical(open_fits(put(saved)), open_fits(saved))


def test_other_readers_show_no_secrets(served: Served, tmp_path: Path) -> None:
    (tmp_path / "page.fits").write_text("<html>")
    url = f"{served.address}/page.fits?token=secret".replace("//", "//me:secret@")
    for read in (open_frame, open_lco, read_lco_catalog, open_fits):
        with pytest.raises(NotFITSError, match=r"page\.fits: an HTML") as caught:
            read(url)
        assert "secret" not in str(caught.value)
    assert "secret" not in str(next(iter(open_frames([url]).children.values())).attrs)


# what goes wrong


def test_nothing_there(served: Served) -> None:
    with pytest.raises(FileNotFoundError, match=r"no such file: http://127.*/nothing\.fits$"):
        inspect(f"{served.address}/nothing.fits?token=secret")
    with pytest.raises(FileNotFoundError, match="no such file: memory://nothing"):
        inspect("memory://nothing/at/all.fits")


@pytest.mark.parametrize("status", [401, 403, 503])
def test_refused(served: Served, write_frame: WriteFrame, status: int) -> None:
    url = f"{served.address}/{write_frame().name}?token=secret".replace("//", "//me:secret@")
    served.refuse = status
    with pytest.raises(RemoteFileError, match=rf"sciimg\.fits cannot be read \(.*{status}\); check") as caught:
        open_quadrant(url)
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__
    node = next(iter(open_epochs([url]).children.values()))
    assert node.attrs["status"] == planes_to_bits(["unreadable"], STATUS_PLANES)
    assert "secret" not in str(node.attrs)


def test_nobody_answers() -> None:
    pytest.importorskip("aiohttp", reason='aiohttp is not installed: pip install "ztfxr[remote]"')
    with pytest.raises((RemoteFileError, FileNotFoundError), match=r"127\.0\.0\.1:9/a\.fits"):
        inspect("http://127.0.0.1:9/a.fits")


def test_page_instead_of_a_frame(served: Served) -> None:
    """A login page with status 200, whatever the name."""
    served.page = True
    for name in ("a.fits", "a.fits.gz", "a.fits.fz"):
        with pytest.raises(NotFITSError, match="an HTML or XML page, not FITS; the server sent"):
            inspect(f"{served.address}/{name}")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_cut_file(memory: Any, tmp_path: Path, suffix: str) -> None:
    url = memory(suffix, shape=(96, 80))
    system = fsspec.filesystem("memory")
    image = inspect(url)
    system.pipe_file(url, system.cat_file(url)[: image.raw.file_size // 2 if image.raw else 9000])
    with pytest.raises(TruncatedFileError, match="fetch it again"):
        inspect(url)
    with pytest.raises(TruncatedFileError, match="fetch the file again"):
        read_window(image, slice(0, 96), slice(0, 80))


def test_server_dies_after_opening(served: Served, write_frame: WriteFrame) -> None:
    ds = open_quadrant(f"{served.address}/{write_frame().name}")
    served.refuse = 503
    with pytest.raises(RemoteFileError, match="status 503"):
        ds["sci"].compute(scheduler="synchronous")


def test_unknown_protocol() -> None:
    with pytest.raises(InputError, match="fsspec cannot take this URL apart, or knows no nonsense://"):
        inspect("nonsense://me:secret@host/a.fits")


def test_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(url: str) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr("fsspec.core.url_to_fs", refuse)
    with pytest.raises(MissingDependencyError, match=r's3fs is not installed.*pip install "ztfxr\[s3\]"'):
        inspect("s3://bucket/a.fits")
    with pytest.raises(MissingDependencyError, match=r"fsspec's package for gs:// is not installed"):
        inspect("gs://bucket/a.fits")


def test_secrets_in_nothing_that_lasts(served: Served, write_frame: WriteFrame, tmp_path: Path) -> None:
    url = f"{served.address}/{write_frame().name}?token=secret".replace("//", "//me:secret@")
    ds = open_quadrant(url)
    seen = [ds.attrs, ds.encoding, repr(ds), ds._repr_html_(), repr(inspect(url))]
    seen += [(v.attrs, v.encoding) for v in ds.variables.values()]
    assert "secret" not in str(seen)
    to_zarr(ds, tmp_path / "s.zarr")
    assert not any(b"secret" in p.read_bytes() for p in (tmp_path / "s.zarr").rglob("*") if p.is_file())


def test_seeking(memory: Any) -> None:
    url = memory()
    data = fsspec.filesystem("memory").cat_file(url)
    with open_binary(url, block=64) as file:
        assert size_of(file) == len(data)
        assert file.seek(-10, 2) == len(data) - 10
        assert file.read() == data[-10:]
        file.seek(100)
        file.seek(5, 1)
        assert file.read(3) == data[105:108]
        assert file.seek(len(data) + 5) == len(data) + 5
        assert file.read(3) == b""


# handles

MANY = """
import resource, sys
from pathlib import Path
resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
from ztfxr.io.frames import open_epochs
folder = Path(sys.argv[1])
tree = open_epochs(sorted(folder.glob("*sciimg*")), mask=False if sys.argv[2] == "alone" else None)
nodes = list(tree.children.values())
assert not any("message" in n.attrs for n in nodes)
total = sum(float(n["sci"][3:9, 4:8].mean()) for n in nodes[:: max(len(nodes) // 300, 1)])
print(len(nodes), total > 0)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no limit on handles to lower")
def test_thousands_of_frames(tmp_path: Path, write_frame: WriteFrame) -> None:
    """1,200 frames open and 300 stamps read under a limit of 256 handles."""
    first = write_frame(mask=False)
    for i in range(1, 1200):
        (tmp_path / first.name.replace("2020092443", f"2021{i:06d}")).hardlink_to(first)
    run = subprocess.run(
        [sys.executable, "-c", MANY, str(tmp_path), "alone"], capture_output=True, text=True, check=False
    )
    assert run.stdout.split() == ["1200", "True"], run.stderr


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no limit on handles to lower")
@pytest.mark.parametrize("suffix", [".fits.gz", ".fits.fz"])
def test_hundreds_of_packed_frames(tmp_path: Path, write_frame: WriteFrame, suffix: str) -> None:
    first = write_frame(suffix=suffix)
    for i in range(1, 280):
        for path in (first, first.with_name(first.name.replace("sciimg", "mskimg"))):
            (tmp_path / path.name.replace("2020092443", f"2021{i:06d}")).hardlink_to(path)
    run = subprocess.run(
        [sys.executable, "-c", MANY, str(tmp_path), "masks"], capture_output=True, text=True, check=False
    )
    assert run.stdout.split() == ["280", "True"], run.stderr


# gzip


def test_members_and_padding(tmp_path: Path, write_frame: WriteFrame) -> None:
    """A file of several gzip members with zeros between and after them."""
    plain = write_frame(mask=False).read_bytes()
    packed = tmp_path / "members.fits.gz"
    packed.write_bytes(b"\0".join([gzip.compress(plain[:5000]), gzip.compress(plain[5000:]), b"\0" * 600]))
    image = inspect(packed)
    np.testing.assert_array_equal(read_window(image, slice(0, 48), slice(0, 40)), make_sky((48, 40)))
    np.testing.assert_array_equal(read_window(image, slice(40, 48), slice(7, 9)), make_sky((48, 40))[40:, 7:9])


def test_checksum_is_compared(write_frame: WriteFrame) -> None:
    """Of the whole frame; a window stops before the checksum comes."""
    path = write_frame(suffix=".fits.gz", mask=False)
    data = bytearray(path.read_bytes())
    data[-8] ^= 1
    path.write_bytes(data)
    image = inspect(path)
    assert np.isfinite(read_window(image, slice(0, 3), slice(0, 3))).all()
    with pytest.raises(TruncatedFileError, match="fetch"):
        read_window(image, slice(40, 48), slice(0, 3))
