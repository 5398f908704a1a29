"""Alert packets: the real ones by hand, bad ones by name."""

from __future__ import annotations

import contextlib
import gzip
import io
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import dask
import fastavro
import numpy as np
import pytest
import xarray as xr
from astropy.io import fits
from astropy.time import Time

from ztfxr.arrays.images.noise import photon_variance
from ztfxr.arrays.statistics import mad_std
from ztfxr.errors import AlertError, InputError, MissingDependencyError
from ztfxr.io.alerts import open_alerts, read_fp_hists

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


def repack(packet: dict[str, Any], target: Path, **changes: Any) -> Path:
    """The packet under a schema that lets any field of its candidate be null, text, true or false."""

    def typed(name: str) -> dict[str, Any]:
        return {"name": name, "type": ["null", "boolean", "long", "double", "string"]}

    candidate = dict(packet["candidate"]) | changes
    cutout = {"type": "record", "name": "cutout", "fields": [{"name": "stampData", "type": "bytes"}]}
    keys = list(STAMPS.values())
    fields: list[dict[str, Any]] = [{"name": "objectId", "type": "string"}, {"name": "candid", "type": "long"}]
    inner = {"type": "record", "name": "candidate", "fields": [typed(k) for k in candidate]}
    fields += [{"name": "candidate", "type": inner}]
    fields += [{"name": k, "type": cutout if k == keys[0] else "cutout"} for k in keys]
    schema = fastavro.parse_schema({"type": "record", "name": "alert", "fields": fields})
    record = {"objectId": packet["objectId"], "candid": packet["candid"], "candidate": candidate}
    record |= {k: {"stampData": packet[k]["stampData"]} for k in keys}
    with target.open("wb") as stream:
        fastavro.writer(stream, schema, [record])
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


def test_missing_numbers_are_nan(packet_paths: list[Path], tmp_path: Path) -> None:
    path = rewrite(packet_paths[0], tmp_path / "a.avro", magap=-999.0, clrcoeff=None)
    tree = open_alerts(path)
    node = next(iter(tree.children.values()))
    assert np.isnan(node["magap"]).all()
    assert np.isnan(node["clrcoeff"]).all()
    assert np.isfinite(node["magpsf"]).all()


# bad packets


@pytest.mark.parametrize("fraction", [0.0, 0.001, 0.05, 0.3, 0.7, 0.999])
def test_truncated(packet_paths: list[Path], tmp_path: Path, fraction: float) -> None:
    data = packet_paths[0].read_bytes()
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


def test_corrupt_stamp(packet_paths: list[Path], tmp_path: Path) -> None:
    broken = {"fileName": "stamp.fits.gz", "stampData": b"not gzip"}
    path = rewrite(packet_paths[0], tmp_path / "a.avro", cutoutTemplate=broken)
    with pytest.raises(AlertError, match=r"a\.avro: not a whole ZTF alert packet \(OSError"):
        open_alerts(path)


# many objects


def test_many_objects_are_a_tree(alert_paths: list[Path], tmp_path: Path) -> None:
    other = rewrite(alert_paths[0], tmp_path / "other.avro", objectId="ZTF18aaaaaaa", fid=1)
    tree = open_alerts([*alert_paths, other])
    assert isinstance(tree, xr.DataTree)
    assert sorted(node.path for node in tree.leaves) == [
        "/ZTF18aaaaaaa/ztfg",
        "/ZTF21abiuvdk/ztfg",
        "/ZTF21abiuvdk/ztfr",
    ]
    one = open_alerts([*alert_paths, other], filter="ztfg")
    assert isinstance(one, xr.DataTree)
    xr.testing.assert_identical(one["ZTF21abiuvdk"].to_dataset(), tree["ZTF21abiuvdk/ztfg"].to_dataset())


def test_a_night_of_many_objects(shared: Path, raising_scheduler: Any) -> None:
    """Differenced and measured in one call, lazily, in each shape alike; alone or among others."""
    folder = shared / "data" / "ztf_alerts_night"
    night = open_alerts(folder, along="object")
    assert isinstance(night, xr.Dataset)
    assert night.sizes == {"object": 100, "y": 63, "x": 63}
    some = night.isel(object=slice(0, 6))
    fluxes, diff = some.ztf.lightcurve(), some.ztf.difference()
    tree = open_alerts([p for p in sorted(folder.glob("*.avro")) if read(p)["objectId"] in some["object"]])
    of_tree, diffs = tree.ztf.lightcurve(), tree.ztf.difference()
    with dask.config.set(scheduler="synchronous"):
        fluxes = fluxes.load()
        for name in some["object"].values:
            alone = of_tree[f"{name}/ztfg"].to_dataset()
            np.testing.assert_array_equal(alone["flux"][0], fluxes["flux"].sel(object=name))
            np.testing.assert_array_equal(alone["flux_err"][0], fluxes["flux_err"].sel(object=name))
        np.testing.assert_array_equal(
            diffs[f"{name}/ztfg"]["difference"][0].values, diff["difference"].sel(object=name).values
        )
    assert fluxes["flux"].dims == ("object", "source")
    assert fluxes["flux_ujy"].notnull().all()


def test_objects_side_by_side_must_be_alone(alert_paths: list[Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"in ztfg, ztfr; along='object' takes those of one: give filter="):
        open_alerts(alert_paths, along="object")
    with pytest.raises(AlertError, match=r"1 objects have several packets in ztfg \(ZTF21abiuvdk has 18\)"):
        open_alerts(alert_paths, along="object", filter="ztfg")
    with pytest.raises(InputError, match="along is 'time' or 'object'; got 'field'"):
        open_alerts(alert_paths, along="field")  # type: ignore[arg-type]


def test_packets_that_cannot_be_read_are_skipped_if_asked(packet_paths: list[Path], tmp_path: Path) -> None:
    bad = tmp_path / "bad.avro"
    bad.write_bytes(b"<html>")
    found = open_alerts([*packet_paths[:2], bad], errors="skip")
    assert [message.split(":")[0] for message in found.attrs["skipped"]] == [str(bad)]
    with pytest.raises(AlertError, match=r"none of 1 packets could be read; the first: .*bad\.avro"):
        open_alerts(bad, errors="skip")


# odd packets


@pytest.mark.parametrize(
    ("stated", "sign"), [(True, 1), ("true", 1), ("y", 1), ("1", 1), (False, -1), ("f", -1), ("0", -1)]
)
def test_the_difference_has_one_sign(packet_paths: list[Path], tmp_path: Path, stated: Any, sign: int) -> None:
    """Packets of fading objects hold reference less science."""
    packet = read(packet_paths[0])
    path = repack(packet, tmp_path / "a.avro", isdiffpos=stated)
    found = next(iter(open_alerts(path).children.values())).to_dataset()
    assert bool(found["isdiffpos"][0]) == (sign > 0)
    np.testing.assert_array_equal(found["ipac_difference"][0], sign * stamp(packet["cutoutDifference"]["stampData"]))


def test_an_unknown_sign_is_refused(packet_paths: list[Path], tmp_path: Path) -> None:
    with pytest.raises(AlertError, match="isdiffpos is 'maybe'; it is one of t, true, 1"):
        open_alerts(rewrite(packet_paths[0], tmp_path / "a.avro", isdiffpos="maybe"))


@pytest.mark.parametrize(("rows", "columns", "x", "y"), [(63, 40, -31, -31), (63, 40, -8, -31), (25, 63, -31, -5)])
def test_stamps_that_the_edge_cuts_keep_the_object_in_place(
    packet_paths: list[Path], tmp_path: Path, rows: int, columns: int, x: int, y: int
) -> None:
    """A star of 3000 DN at the object, among whole stamps: its labels are (0, 0), its flux is its own."""
    yy, xx = np.mgrid[y : y + rows, x : x + columns]
    star = 3000 / (2 * np.pi * 1.3**2) * np.exp(-(xx**2 + yy**2) / 2 / 1.3**2)
    noise = np.random.default_rng(0).normal(100, 3, (2, rows, columns))
    stamps = {
        "cutoutScience": noise[0] + star,
        "cutoutTemplate": noise[1],
        "cutoutDifference": noise[0] - noise[1] + star,
    }
    fields = {name: stamp_field(pixels.astype(np.float32)) for name, pixels in stamps.items()}
    place = {"xpos": -x + 1.2 if x > -31 else 1500.0, "ypos": -y + 0.8 if y > -31 else 900.0}
    cut = rewrite(packet_paths[0], tmp_path / "cut.avro", fid=1, **fields, **place)
    found = open_alerts([cut, rewrite(packet_paths[1], tmp_path / "whole.avro", fid=1)], filter="ztfg").load()
    assert (found["x"].min(), found["x"].max(), found["y"].min(), found["y"].max()) == (-31, 31, -31, 31)
    epoch = found.isel(time=int(np.flatnonzero(found["candid"].values == read(cut)["candid"])[0]))
    assert int(epoch["sci"].notnull().sum()) == rows * columns
    flux = (epoch["sci"] - 100).where(epoch["x"] ** 2 + epoch["y"] ** 2 <= 16).sum()
    assert float(flux) == pytest.approx(3000, rel=0.05)
    alone = next(iter(open_alerts(cut).children.values()))
    assert alone["x"].values[0] == x
    assert alone["y"].values[0] == y


def test_nulls_are_said(packet_paths: list[Path], tmp_path: Path) -> None:
    path = repack(read(packet_paths[0]), tmp_path / "a.avro", field=None, rcid=None, magpsf=None)
    found = next(iter(open_alerts(path).children.values()))
    assert found["field"].values.tolist() == found["rcid"].values.tolist() == [-1]
    assert "-1: not stated" in found["field"].attrs["long_name"]
    assert np.isnan(found["magpsf"]).all()


def test_forced_photometry_of_earlier_exposures(shared: Path, alert_paths: list[Path]) -> None:
    paths = sorted((shared / "data" / "alerts_schema4").glob("2475*.avro"))
    row = read(paths[0])["fp_hists"][5]
    lc = read_fp_hists(paths[0])
    assert isinstance(lc, xr.Dataset)
    assert lc.attrs["object"] == read(paths[0])["objectId"]
    (i,) = np.flatnonzero(np.isclose(lc["mjd"].values, row["jd"] - 2400000.5 + 15 / 86400, atol=1e-6, rtol=0))
    missing = row["forcediffimflux"] == -99999.0
    expected = np.nan if missing else row["forcediffimflux"]
    np.testing.assert_allclose(lc["flux"][i, 0], expected, rtol=1e-6)
    assert lc["filter"].values[i] == {1: "ztfg", 2: "ztfr", 3: "ztfi"}[row["fid"]]
    assert lc["rcid"].values[i] == row["rcid"]
    assert lc["procstatus"].values[i] == row["procstatus"]
    np.testing.assert_allclose(lc["magzp"].values[i], row["magzpsci"])
    np.testing.assert_allclose(lc["ra"], read(paths[0])["candidate"]["ra"])
    assert (lc["procstatus"] != "0").any()
    tree = read_fp_hists(paths)
    assert isinstance(tree, xr.DataTree)
    xr.testing.assert_identical(tree[lc.attrs["object"]].to_dataset(), lc)
    with pytest.raises(AlertError, match=r"no forced photometry history of ZTF21abiuvdk \(schema 3"):
        read_fp_hists(alert_paths[0])


# other surveys, and other files


OTHERS = [
    ("114297926", r"it has no candidate\.fid \(publisher: pgirdps\); ztfxr reads packets of ZTF"),
    ("3608694", r"it has no objectId, cutoutScience, .* \(publisher: WINTER-mirar\)"),
]


def test_a_packet_with_all_fields_of_another_survey_is_refused(packet_paths: list[Path], tmp_path: Path) -> None:
    with pytest.raises(AlertError, match=r"a packet of another survey \(object WNTR24abcde"):
        open_alerts(rewrite(packet_paths[0], tmp_path / "a.avro", objectId="WNTR24abcde"))


def test_the_largest_float_is_no_light(shared: Path) -> None:
    path = shared / "data" / "ztf_alerts_night" / "697252384215015000.avro"
    found = next(iter(open_alerts(path).children.values()))
    assert float(abs(found["sci"]).max()) < 1e6
    assert found["sci"].isnull().any()


@pytest.mark.parametrize(("name", "message"), OTHERS)
def test_packets_of_other_surveys_are_named(shared: Path, name: str, message: str) -> None:
    with pytest.raises(AlertError, match=message):
        open_alerts(shared / "data" / "alerts_schema4" / f"{name}.avro")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"type": "record", "name": "alert", "fields": []}', "an Avro schema, not a packet"),
        (b"\x00\x00\x00\x02\xbd\x10abc", "a bare message, as streams with a schema registry send it"),
        (b"Obj\x01\xff\xff\xff\xff\xff\xff\xff\xff\x7f", "not a whole ZTF alert packet"),
    ],
)
def test_what_is_no_packet_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "a.avro"
    path.write_bytes(content)
    with pytest.raises(AlertError, match=message):
        open_alerts(path)


def test_a_damaged_length_asks_for_no_memory(packet_paths: list[Path], tmp_path: Path) -> None:
    """Wherever a length is overwritten by one of gigabytes, little is allocated."""
    data = packet_paths[0].read_bytes()
    path = tmp_path / "a.avro"
    tracemalloc.start()
    for place in np.random.default_rng(0).integers(4, len(data) - 10, 60):
        path.write_bytes(data[:place] + b"\xfe\xff\xff\xff\x7f" + data[place + 5 :])
        with contextlib.suppress(AlertError):
            open_alerts(path)
    assert tracemalloc.get_traced_memory()[1] < 100e6
    tracemalloc.stop()


def test_stamp_of_another_shape(packet_paths: list[Path], tmp_path: Path) -> None:
    small = rewrite(
        packet_paths[0], tmp_path / "small.avro", cutoutDifference=stamp_field(np.zeros((50, 63), np.float32))
    )
    with pytest.raises(
        AlertError, match=r"small\.avro: a stamp of \(50, 63\) \(y, x\) pixels, the others have \(63, 63\)"
    ):
        open_alerts(small)


def test_unknown_filter(packet_paths: list[Path], tmp_path: Path) -> None:
    odd = rewrite(packet_paths[0], tmp_path / "odd.avro", fid=7)
    with pytest.raises(AlertError, match=r"odd\.avro: fid = 7 names no ZTF filter"):
        open_alerts(odd)


def test_nothing_to_open(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no alert packets \(\*\.avro\)"):
        open_alerts(tmp_path)
    with pytest.raises(InputError, match="no alert packets"):
        open_alerts([])
    with pytest.raises(FileNotFoundError):
        open_alerts(tmp_path / "nothing.avro")


def test_without_fastavro(packet_paths: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fastavro", None)
    with pytest.raises(MissingDependencyError, match=r'fastavro is not installed; .*pip install "ztfxr\[alerts\]"'):
        open_alerts(packet_paths)
