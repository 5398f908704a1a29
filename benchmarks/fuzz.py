"""Mutated files into every reader: out comes a result or an error of ztfxr's. `python -m benchmarks.fuzz SEED N`.

Pixels of zarr stores are not read: a damaged chunk raises what its codec raises.
"""

from __future__ import annotations

import collections
import gzip
import io
import json
import resource
import sys
import tempfile
import time
import traceback
import warnings
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fastavro
import numpy as np
import xarray as xr
from astropy.io import fits
from astropy.table import QTable

import ztfxr
from ztfxr.errors import ZtfxrError
from ztfxr.pipeline import Job

CARD, BLOCK = 80, 2880
VALUES = (
    b"nan", b"-1", b"0", b"1e308", b"-1e-300", b"T", b"'x'", b"99999999999999999999", b"inf", b"", b"'2020-13-45'",
    b"1.5", b"'N/A'", b"32", b"'TNX'",
)  # fmt: skip
WORDS = (b"null", b"N/A", b"-999", b"1e999", b"", b"nan", b"{}", b"[", b'"', b"\xff\xfe", b"-1", b"0", b"true", b"\n")
SLOW, MEMORY = 5.0, 2 * 2**30


@dataclass(frozen=True)
class Target:
    """A file of one kind, and what reads it."""

    name: str
    content: bytes
    read: Callable[[Path], Any]
    is_fits: bool = True


@dataclass
class Report:
    """How many inputs opened, were refused, or came out otherwise; and an example of each of these."""

    counts: collections.Counter[str] = field(default_factory=collections.Counter)
    faults: dict[str, bytes] = field(default_factory=dict)
    slowest: float = 0.0


def load(found: Any) -> Any:
    """Every pixel of what a reader gave."""
    if isinstance(found, xr.DataTree):
        for node in found.subtree:
            node.to_dataset().load()
    elif isinstance(found, xr.Dataset | xr.DataArray):
        found.load()
    return found


def fits_bytes(
    folder: Path, *images: tuple[Any, fits.Header | None, str], table: fits.BinTableHDU | None = None
) -> bytes:
    """A FITS file of some images, the first one primary."""
    hdus: list[Any] = [
        fits.PrimaryHDU(data, header) if not i else fits.ImageHDU(data, header, name=name)
        for i, (data, header, name) in enumerate(images)
    ]
    path = folder / "seed.fits"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fits.HDUList(hdus + ([table] if table else [])).writeto(path, overwrite=True, output_verify="silentfix+ignore")
    return path.read_bytes()


def targets(folder: Path) -> list[Target]:
    """One small valid file for every reader."""
    rng = np.random.default_rng(0)
    sample = ztfxr.open_quadrant(ztfxr.samples.sample_path()).isel(y=slice(0, 40), x=slice(0, 48))
    header = fits.Header.fromstring(sample.attrs["header"], sep="\n")
    pixels = rng.normal(200, 9, (40, 48)).astype(np.float32)
    flags = (rng.random((40, 48)) < 0.1).astype(np.int16) * 256
    plain = fits.Header(
        {"DATE-OBS": "2020-09-24T06:00:00.5", "EXPTIME": 30.0, "GAIN": 1.5, "FILTER": "r", "BUNIT": "adu"}
    )
    lco = plain.copy()
    lco.update({"RDNOISE": 8.0, "SATURATE": 6e4, "L1FWHM": 2.0, "MJD-OBS": 59116.25})
    columns = [fits.Column(n, "D", array=rng.random(5)) for n in ("X", "Y", "FLUX", "FLUXERR", "RA", "DEC")]
    cat = fits.BinTableHDU.from_columns(columns, name="CAT")
    frame = fits_bytes(folder, (pixels, plain, ""))
    whole = fits_bytes(folder, (None, None, ""), (pixels, lco, "SCI"), (flags, None, "BPM"), table=cat)
    mask = fits_bytes(folder, (flags, header, ""))
    name = Path(ztfxr.samples.sample_path()).name.removesuffix(".gz").removesuffix(".fz")
    science = fits_bytes(folder, (pixels, header, ""))

    def with_mask(path: Path) -> Any:
        given = path.with_name("mask.fits")
        given.write_bytes(mask)
        return load(ztfxr.open_quadrant(path, mask=given))

    def as_mask(path: Path) -> Any:
        given = path.with_name(f"s_{name}")
        given.write_bytes(science)
        return load(ztfxr.open_quadrant(given, mask=path))

    job = {"frames": ["a.fits"], "positions": {"ra": [57.0], "dec": [35.0]}, "noise": "photon", "cutout": None}
    sky = "# stars\nid,ra,dec,mag\n" + "".join(f"{i:03d},{57 + i / 100},{35 + i / 50},{15 + i}\n" for i in range(6))
    zfps = _zfps()
    cameras = [
        Target(
            f"camera {camera}",
            frame,
            lambda path, camera=camera: load(ztfxr.open_frame(path, camera=camera, mask=False)),
        )
        for camera in ztfxr.CAMERAS
    ]
    return [
        *cameras,
        Target("quadrant", science, with_mask),
        Target("mask", mask, as_mask),
        Target("frames", science, lambda path: load(ztfxr.open_frames([path], mask=False))),
        Target("images", whole, lambda path: load(ztfxr.open_fits(path))),
        Target("lco", whole, lambda path: load(ztfxr.open_lco(path))),
        Target("lco catalog", whole, ztfxr.read_lco_catalog),
        Target(
            "psf",
            fits_bytes(folder, (rng.random((9, 9)).astype(np.float32), header, "")),
            lambda p: load(ztfxr.read_psf(p)),
        ),
        Target("catalog fits", whole, ztfxr.read_catalog),
        Target("catalog csv", sky.encode(), ztfxr.read_catalog, is_fits=False),
        Target("positions", sky.encode(), lambda path: Job(frames=["a.fits"], positions=path), is_fits=False),
        Target("job", json.dumps(job).encode(), lambda path: Job.from_json(path), is_fits=False),
        Target("zfps", zfps, ztfxr.read_zfps, is_fits=False),
        Target("zfps recipe", zfps, ztfxr.clean_zfps, is_fits=False),
        Target("zarr", _zarr(folder, sample), ztfxr.open_zarr, is_fits=False),
        Target("gzip", gzip.compress(science, 1), lambda path: load(ztfxr.open_fits(path)), is_fits=False),
        Target("fpack", _packed(folder, pixels), lambda path: load(ztfxr.open_fits(path))),
        Target("daophot", _daophot(), lambda path: load(ztfxr.read_psf(path)), is_fits=False),
        Target("psfex", _psfex(folder), lambda path: load(ztfxr.read_psf(path))),
        Target("catalog ecsv", _ecsv(), ztfxr.read_catalog, is_fits=False),
        Target("alert", _alert(), lambda path: load(ztfxr.open_alerts(path)), is_fits=False),
        Target("alert history", _alert(), lambda path: load(ztfxr.read_fp_hists(path)), is_fits=False),
    ]


def _packed(folder: Path, pixels: np.ndarray[Any, Any]) -> bytes:
    path = folder / "packed.fits"
    image = fits.CompImageHDU(pixels, compression_type="RICE_1", quantize_level=16)
    fits.HDUList([fits.PrimaryHDU(), image]).writeto(path)
    return path.read_bytes()


def _daophot() -> bytes:
    size = 15
    offset = np.arange(size) - size // 2
    table = np.exp(-(np.hypot(offset[:, None], offset) ** 2) / 20).ravel()
    lines = [f" GAUSSIAN{size:5d}{2:5d}{1:5d}{0:5d}{13.489:9.3f}{5000:15.3f}{24:9.1f}{20:9.1f}"]
    lines += [f" {1.1:13.6E}{1.2:13.6E}"]
    lines += [" " + "".join(f"{v:13.6E}" for v in table[i : i + 6]) for i in range(0, len(table), 6)]
    return "\n".join(lines).encode()


def _psfex(folder: Path) -> bytes:
    offset = (np.arange(21) - 10) / 2
    samples = np.exp(-(np.hypot(offset[:, None], offset) ** 2) / 4)[None]
    table = fits.BinTableHDU.from_columns(
        [fits.Column("PSF_MASK", f"{samples.size}E", dim="(21,21,1)", array=samples[None])], name="PSF_DATA"
    )
    table.header.update({"POLNAXIS": 0, "PSF_SAMP": 0.5})
    return fits_bytes(folder, (None, None, ""), table=table)


def _ecsv() -> bytes:
    rows = {"ra": [57.0, 57.1], "dec": [35.0, 35.1], "mag": [15.0, 16.0], "id": [1, 2]}
    stream = io.StringIO()
    QTable(rows, units={"ra": "deg", "dec": "deg", "mag": "mag"}).write(stream, format="ascii.ecsv")
    return stream.getvalue().encode()


def _alert() -> bytes:
    """A packet without compression, so that what is changed reaches its fields."""
    stamp = io.BytesIO()
    fits.PrimaryHDU(np.random.default_rng(1).normal(100, 5, (21, 21)).astype(np.float32)).writeto(stamp)
    candidate = {
        "jd": 2459250.5, "fid": 1, "pid": 1, "isdiffpos": "t", "ra": 57.0, "dec": 35.0, "xpos": 300.0, "ypos": 400.0,
        "magpsf": 18.0, "sigmapsf": 0.1, "magzpsci": 26.0, "nid": 1, "rcid": 1, "field": 600, "exptime": 30.0,
    }  # fmt: skip
    history = {"jd": 2459249.5, "fid": 1, "pid": 2, "forcediffimflux": 10.0, "forcediffimfluxunc": 2.0}
    kinds = {int: "long", float: "double", str: "string"}

    def record(name: str, values: dict[str, Any]) -> dict[str, Any]:
        return {
            "type": "record",
            "name": name,
            "fields": [{"name": k, "type": kinds[type(v)]} for k, v in values.items()],
        }

    stamps = ("cutoutScience", "cutoutTemplate", "cutoutDifference")
    fields = [{"name": "objectId", "type": "string"}, {"name": "candid", "type": "long"}]
    fields += [{"name": "candidate", "type": record("candidate", candidate)}]
    fields += [{"name": "fp_hists", "type": {"type": "array", "items": record("fp_hist", history)}}]
    fields += [{"name": name, "type": "bytes"} for name in stamps]
    packet = {"objectId": "ZTF20abcdefg", "candid": 1, "candidate": candidate, "fp_hists": [history]}
    stream = io.BytesIO()
    schema = fastavro.parse_schema({"type": "record", "name": "alert", "fields": fields})
    fastavro.writer(stream, schema, [packet | dict.fromkeys(stamps, stamp.getvalue())])
    return stream.getvalue()


def _zfps() -> bytes:
    names = "index, field, ccdid, qid, filter, infobitssci, sciinpseeing, scisigpix, exptime, zpdiff, jd, rfid, "
    names += "forcediffimflux, forcediffimfluxunc, forcediffimchisq, nearestrefmag, procstatus"
    rows = [f"{i} 574 8 1 ZTF_g 0 2.9 5.0 30. 26.3 {2459250.5 + i} 57412 {i}.5 10.0 1.0 19.9 0" for i in range(8)]
    return "\n".join(["# Requested input R.A. = 169.5 degrees", names, *rows]).encode()


def _zarr(folder: Path, sample: xr.Dataset) -> bytes:
    path = folder / "seed.zip"
    ztfxr.to_zarr(sample[["sci"]], path, overwrite=True)
    # Uncompressed members, so that what is changed is not only their checksum.
    out = folder / "plain.zip"
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as new:
        for item in old.namelist():
            new.writestr(item, old.read(item))
    return out.read_bytes()


def mutated(content: bytes, rng: np.random.Generator, *, is_fits: bool) -> bytes:
    """A file with one to three changes of one kind: bytes, values, cards, cuts, swaps, insertions."""
    b, kind = bytearray(content), int(rng.integers(7))
    for _ in range(int(rng.integers(1, 4))):
        head = max(1, min(len(b), 5 * BLOCK) if is_fits and rng.random() < 0.9 else len(b))
        i, j = int(rng.integers(head)), int(rng.integers(head))
        card = i // CARD * CARD
        if kind == 0:
            b[i : i + 1] = bytes([int(rng.integers(256))])
        elif kind == 1:
            b[i : i + 1] = bytes([int(rng.integers(32, 127))])
        elif kind == 2 and is_fits:
            b[card + 10 : card + CARD] = (b" " + VALUES[int(rng.integers(len(VALUES)))]).ljust(70)[:70]
        elif kind == 2:
            b[i : i + int(rng.integers(1, 8))] = WORDS[int(rng.integers(len(WORDS)))]
        elif kind == 3 and is_fits:
            b[card : card + CARD] = b" " * CARD
        elif kind == 3:
            del b[i : i + int(rng.integers(1, 50))]
        elif kind == 4:
            b = b[: int(rng.integers(1, len(b) + 1))]
        elif kind == 5:
            b[i : i + CARD], b[j : j + CARD] = b[j : j + CARD], b[i : i + CARD]
        else:
            b[i:i] = bytes(rng.integers(0, 256, int(rng.integers(1, 40)), dtype=np.uint8))
    return bytes(b)


def inputs(seed: int, n: int, folder: Path) -> Iterator[tuple[Target, bytes]]:
    """The targets in turn, each with a mutation of its file."""
    rng, known = np.random.default_rng(seed), targets(folder)
    for i in range(n):
        target = known[i % len(known)]
        yield target, mutated(target.content, rng, is_fits=target.is_fits)


def run(seed: int, n: int) -> Report:
    """Read `n` mutated files."""
    report = Report()
    with tempfile.TemporaryDirectory() as text, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        folder = Path(text)
        science = Path(ztfxr.samples.sample_path()).name.removesuffix(".gz").removesuffix(".fz")
        suffix = {
            "catalog csv": "c.csv", "catalog ecsv": "c.ecsv", "positions": "p.csv", "job": "j.json", "zarr": "z.zip",
            "zfps": "z.txt", "gzip": "f.fits.gz", "alert": "a.avro", "alert history": "a.avro",
        }  # fmt: skip
        for target, content in inputs(seed, n, folder):
            path = folder / suffix.get(target.name, science if target.is_fits else "file.txt")
            path.write_bytes(content)
            _one(target, path, content, report)
    return report


def _one(target: Target, path: Path, content: bytes, report: Report) -> None:
    start = time.process_time()  # other work on the machine is not the reader's
    try:
        target.read(path)
        report.counts["opened"] += 1
    except (ZtfxrError, FileNotFoundError):
        report.counts["refused"] += 1
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        report.counts["raw"] += 1
        text = f"{target.name}: {type(error).__name__} in {Path(where.filename).name}:{where.lineno}: {str(error)[:80]}"
        report.faults.setdefault(text, content)
    took = time.process_time() - start
    report.slowest = max(report.slowest, took)
    if took > SLOW:
        report.counts["slow"] += 1
        report.faults.setdefault(f"{target.name}: {took:.1f} s", content)


def main(seed: int, n: int) -> int:
    """Print what came out; 1 where anything was neither opened nor refused in time and memory."""
    start = time.perf_counter()
    report = run(seed, n)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(f"{n} inputs in {time.perf_counter() - start:.0f} s: {dict(report.counts)}")
    print(f"slowest {report.slowest:.2f} s, memory {memory / 2**30:.2f} GiB")
    for fault in sorted(report.faults):
        print(fault)
    return int(bool(report.faults) or memory > MEMORY)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2])))
