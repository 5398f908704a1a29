"""Alert packets: the real ones by hand, bad ones by name."""

from __future__ import annotations

import gzip
import io
import sys
from pathlib import Path
from typing import Any

import fastavro
import numpy as np
import pytest
import xarray as xr
from astropy.io import fits
from astropy.time import Time

from ztfxr.arrays.images.noise import photon_variance
from ztfxr.arrays.statistics import mad_std
from ztfxr.errors import AlertError, InputError, MissingDependencyError
from ztfxr.io.alerts import open_alerts

STAMPS = {"sci": "cutoutScience", "reference": "cutoutTemplate", "ipac_difference": "cutoutDifference"}


def read(path: Path) -> dict[str, Any]:
    with path.open("rb") as stream:
        packet: Any = next(iter(fastavro.reader(stream)))
    return packet


def rewrite(source: Path, target: Path, **changes: Any) -> Path:
    """A copy of a packet with some of its fields, or of its candidate's, replaced."""
    with source.open("rb") as stream:
        reader: Any = fastavro.reader(stream)
        schema, packet = reader.writer_schema, dict(next(iter(reader)))
    for key, value in changes.items():
        (packet if key in packet else packet["candidate"])[key] = value
    with target.open("wb") as stream:
        fastavro.writer(stream, schema, [packet])
    return target


def stamp_field(pixels: np.ndarray[Any, Any]) -> dict[str, Any]:
    buffer = io.BytesIO()
    fits.PrimaryHDU(pixels).writeto(buffer)
    return {"fileName": "stamp.fits.gz", "stampData": gzip.compress(buffer.getvalue())}


def stamp(data: bytes) -> Any:
    """The pixels by hand: big-endian floats after one header block, whose SIMPLE card astropy complains of."""
    raw = gzip.decompress(data)
    header = fits.Header.fromstring(raw[:2880])
    assert (header["NAXIS1"], header["NAXIS2"], header["BITPIX"]) == (63, 63, -32)
    end = (raw.index(b"END" + 77 * b" ") // 2880 + 1) * 2880
    return np.frombuffer(raw, ">f4", 63 * 63, end).reshape(63, 63)


@pytest.fixture(scope="module")
def tree(alert_paths: list[Path]) -> xr.DataTree:
    found = open_alerts(alert_paths[::-1])
    assert isinstance(found, xr.DataTree)
    return found


@pytest.fixture(scope="module")
def packets(alert_paths: list[Path]) -> dict[int, dict[str, Any]]:
    """By candid, read with fastavro."""
    return {p["candid"]: p for p in map(read, alert_paths)}


def test_one_stack_per_filter(tree: xr.DataTree) -> None:
    assert {name: node.sizes["time"] for name, node in tree.children.items()} == {"ztfg": 18, "ztfr": 16}
    for name, node in tree.children.items():
        assert node["filter"].item() == name
        assert node.attrs["object"] == "ZTF21abiuvdk"
        assert (np.diff(node["time"].values) > np.timedelta64(0)).all()
        assert list(node["x"].values) == list(node["y"].values) == list(range(-31, 32))
        for key in STAMPS:
            assert node[key].dims == ("time", "y", "x")
            assert node[key].dtype == np.float32
            assert node[key].values.dtype.isnative
            assert node[key].attrs["units"] == "DN"


def test_times_are_mid_exposure(tree: xr.DataTree, packets: dict[int, Any]) -> None:
    for node in tree.children.values():
        for time, candid, exptime, mjd in zip(
            *(node[k].values for k in ("time", "candid", "exptime", "mjd")), strict=True
        ):
            candidate = packets[candid]["candidate"]
            assert exptime == candidate["exptime"] == 30
            middle = Time(candidate["jd"] + 15 / 86400, format="jd")
            assert abs(time - middle.to_value("datetime64")) < np.timedelta64(100, "us")
            assert abs(mjd - middle.mjd) < 1e-9


def test_values_equal_the_packets(tree: xr.DataTree, packets: dict[int, Any]) -> None:
    numbers = ("magpsf", "sigmapsf", "magap", "magapbig", "magzpsci", "fwhm", "xpos", "ypos", "diffmaglim", "rb", "drb")
    for node in tree.children.values():
        for i, candid in enumerate(node["candid"].values):
            packet = packets[candid]
            for name in numbers:
                assert node[name].values[i] == packet["candidate"][name], name
            assert node["packet_ra"].values[i] == packet["candidate"]["ra"]
            assert node["magzp"].values[i] == packet["candidate"]["magzpsci"]
            assert bool(node["isdiffpos"].values[i]) == (packet["candidate"]["isdiffpos"] in ("t", "1"))
            for key, field in STAMPS.items():
                np.testing.assert_array_equal(node[key][i].values, stamp(packet[field]["stampData"]))


def test_sorted_by_time_not_by_name(alert_paths: list[Path], tmp_path: Path) -> None:
    late, early = (rewrite(alert_paths[i], tmp_path / f"{n}.avro", fid=1) for i, n in ((9, "a"), (3, "b")))
    found = open_alerts(tmp_path, filter="ztfg")
    assert list(found["candid"].values) == [read(early)["candid"], read(late)["candid"]]


def test_units_are_those_of_the_packet(tree: xr.DataTree) -> None:
    node = tree["ztfg"]
    assert [node[k].attrs["units"] for k in ("magpsf", "fwhm", "packet_ra", "gain")] == [
        "mag",
        "pixel",
        "deg",
        "electron/DN",
    ]


def test_ipacs_difference_gives_its_aperture_magnitude(tree: xr.DataTree) -> None:
    """A circular sum of radius 7 px at the center of the stamp: zero point, sign and orientation are right."""
    for node in tree.children.values():
        inside = node["x"] ** 2 + node["y"] ** 2 <= 49
        flux = node["ipac_difference"].compute().where(inside).sum(("y", "x")) * xr.where(node["isdiffpos"], 1, -1)
        residual = -2.5 * np.log10(flux) + node["magzpsci"] - node["magap"]
        assert abs(float(residual.median())) < 0.01
        assert float(residual.std()) < 0.01


def test_the_noise_of_moonlit_nights_is_in_the_variance(tree: xr.DataTree) -> None:
    """The stamps hold the reference's sky; differences scatter as the variance says all the same."""
    far = np.hypot(tree["ztfr"]["y"], tree["ztfr"]["x"]) > 20
    for node in tree.children.values():
        stamps = node.to_dataset().load()
        by_pixels = photon_variance(stamps["sci"].values, gain=6.2, readnoise=10.0)
        ratio = (stamps["variance"] / by_pixels).median(("y", "x"))
        assert float(ratio.min()) == pytest.approx(1.0, abs=0.1)
        assert float(ratio.max()) > 8
        diff = stamps.ztf.difference(exclude_radius=10)
        pull = (diff["difference"] / np.sqrt(diff["difference_variance"])).where(far)
        scatter = [mad_std(p[np.isfinite(p)]) for p in pull.values]
        assert 0.85 < min(scatter) < max(scatter) < 1.1
        assert float(diff["chi2"].max()) < 1.26


def test_folder_and_filter(alert_paths: list[Path], tree: xr.DataTree) -> None:
    found = open_alerts(alert_paths[0].parent, filter="ztfr", gain=5.0)
    assert isinstance(found, xr.Dataset)
    xr.testing.assert_identical(
        found[["sci", "magpsf"]].drop_vars("gain"), tree["ztfr"].to_dataset()[["sci", "magpsf"]].drop_vars("gain")
    )
    assert (found["gain"] == 5).all()
    with pytest.raises(InputError, match="no packet in ztfi; the packets are in ztfg, ztfr"):
        open_alerts(alert_paths, filter="ztfi")


def test_missing_numbers_are_nan(alert_paths: list[Path], tmp_path: Path) -> None:
    path = rewrite(alert_paths[0], tmp_path / "a.avro", magap=-999.0, clrcoeff=None)
    tree = open_alerts(path)
    node = next(iter(tree.children.values()))
    assert np.isnan(node["magap"]).all()
    assert np.isnan(node["clrcoeff"]).all()
    assert np.isfinite(node["magpsf"]).all()


# bad packets


@pytest.mark.parametrize("fraction", [0.0, 0.001, 0.05, 0.3, 0.7, 0.999])
def test_truncated(alert_paths: list[Path], tmp_path: Path, fraction: float) -> None:
    data = alert_paths[0].read_bytes()
    path = tmp_path / "cut.avro"
    path.write_bytes(data[: int(len(data) * fraction)])
    with pytest.raises(AlertError, match=r"cut\.avro: not a whole ZTF alert packet .*fetch it again"):
        open_alerts(path)


@pytest.mark.parametrize("content", [b"<!DOCTYPE html><html>503</html>", b"SIMPLE  =   T", b"Obj\x01 nonsense"])
def test_not_a_packet(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "page.avro"
    path.write_bytes(content)
    with pytest.raises(AlertError, match=r"page\.avro: not a whole ZTF alert packet"):
        open_alerts(path)


def test_another_avro_file(tmp_path: Path) -> None:
    schema = fastavro.parse_schema({"type": "record", "name": "other", "fields": [{"name": "a", "type": "int"}]})
    path = tmp_path / "other.avro"
    with path.open("wb") as stream:
        fastavro.writer(stream, schema, [{"a": 1}])
    with pytest.raises(AlertError, match=r"other\.avro: not a whole ZTF alert packet"):
        open_alerts(path)


def test_corrupt_stamp(alert_paths: list[Path], tmp_path: Path) -> None:
    broken = {"fileName": "stamp.fits.gz", "stampData": b"not gzip"}
    path = rewrite(alert_paths[0], tmp_path / "a.avro", cutoutTemplate=broken)
    with pytest.raises(AlertError, match=r"a\.avro: not a whole ZTF alert packet \(BadGzipFile"):
        open_alerts(path)


def test_two_objects(alert_paths: list[Path], tmp_path: Path) -> None:
    other = rewrite(alert_paths[0], tmp_path / "other.avro", objectId="ZTF18aaaaaaa")
    with pytest.raises(
        AlertError, match=r"belong to 2 objects \(ZTF18aaaaaaa, ZTF21abiuvdk, \.\.\.\); open one at a time"
    ):
        open_alerts([*alert_paths, other])


def test_stamp_of_another_shape(alert_paths: list[Path], tmp_path: Path) -> None:
    small = rewrite(
        alert_paths[0], tmp_path / "small.avro", cutoutDifference=stamp_field(np.zeros((50, 63), np.float32))
    )
    with pytest.raises(
        AlertError, match=r"small\.avro: a stamp of \(50, 63\) \(y, x\) pixels, the others have \(63, 63\)"
    ):
        open_alerts(small)


def test_unknown_filter(alert_paths: list[Path], tmp_path: Path) -> None:
    odd = rewrite(alert_paths[0], tmp_path / "odd.avro", fid=7)
    with pytest.raises(AlertError, match=r"odd\.avro: fid = 7 names no ZTF filter"):
        open_alerts(odd)


def test_nothing_to_open(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no alert packets \(\*\.avro\)"):
        open_alerts(tmp_path)
    with pytest.raises(InputError, match="no alert packets"):
        open_alerts([])
    with pytest.raises(FileNotFoundError):
        open_alerts(tmp_path / "nothing.avro")


def test_without_fastavro(alert_paths: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fastavro", None)
    with pytest.raises(MissingDependencyError, match=r'fastavro is not installed; .*pip install "ztfxr\[alerts\]"'):
        open_alerts(alert_paths)
