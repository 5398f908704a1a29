"""Damaged frames are reported each with its reason and change no other epoch."""

from __future__ import annotations

import gzip
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

import ztfxr
from tests.pipeline.conftest import make_job, run
from ztfxr.errors import FrameError, InputError
from ztfxr.pipeline import runner, summary
from ztfxr.pipeline.pools import WorkersDiedError
from ztfxr.samples import make_epochs
from ztfxr.schema import STATUS_PLANES, planes_to_bits


def mask_of(path: Path) -> Path:
    return path.with_name(path.name.replace("sciimg", "mskimg"))


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9000])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def login_page(path: Path) -> None:
    path.write_text("<!DOCTYPE html><html><body>Please log in</body></html>")


def random_bytes(path: Path) -> None:
    rng = np.random.default_rng(1)
    packed = bytearray(gzip.compress(path.read_bytes()))
    packed[5000:9000] = rng.bytes(4000)
    path.write_bytes(packed)


def change(path: Path, pixels=None, **cards) -> None:
    with fits.open(path, memmap=False) as hdus:
        data, header = hdus[0].data, hdus[0].header
    for key, value in cards.items():
        if value is None:
            header.remove(key, remove_all=True)
        else:
            header[key] = value
    fits.PrimaryHDU(data if pixels is None else pixels(data), header).writeto(path, overwrite=True)


def small(data):
    return data[:100, :90]


def wrong_shape(path: Path) -> None:
    change(path, small)
    change(mask_of(path), small)


def other_mask(path: Path) -> None:
    change(mask_of(path), small)


def no_wcs(path: Path) -> None:
    change(path, CTYPE1=None, CTYPE2=None)


def all_masked(path: Path) -> None:
    change(mask_of(path), lambda data: np.full_like(data, 2))
    change(mask_of(path), lambda data: np.full_like(data, 1 << 8))


def all_nan(path: Path) -> None:
    change(path, lambda data: np.full_like(data, np.nan))


def no_mask(path: Path) -> None:
    mask_of(path).unlink()


def text_for_a_number(path: Path) -> None:
    change(path, EXPTIME="thirty")


def shifted_wcs(path: Path) -> None:
    change(path, CRPIX1=999.0)


def other_filter(path: Path) -> None:
    change(path, FILTERID=1, FILTER="ZTF_g")


def gone(path: Path) -> None:
    path.unlink()


DAMAGES = {
    truncate: ("truncated", "announces"),
    empty: ("truncated", "is empty"),
    login_page: ("not_fits", "HTML"),
    random_bytes: ("truncated", "cut off or corrupt|cannot be read"),
    wrong_shape: ("wrong_shape", r"\(100, 90\)"),
    other_mask: ("wrong_shape", "the mask is"),
    no_wcs: ("no_wcs", "no celestial WCS"),
    all_masked: ("too_few_pixels", "too few good pixels"),
    all_nan: ("too_few_pixels", "too few good pixels"),
    no_mask: ("missing_mask", "no mask image"),
    text_for_a_number: ("bad_header", "EXPTIME = 'thirty' is not a number"),
    shifted_wcs: ("not_aligned", "different WCS"),
    other_filter: ("other_filter", "filter 'ztfg', its reference of 'ztfr'"),
    gone: ("unreadable", "no such file"),
}


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """More frames than there are kinds of damage, and the store of the sound ones."""
    frames = make_epochs(tmp_path_factory.mktemp("sound"), n_epochs=len(DAMAGES) + 3)
    store = tmp_path_factory.mktemp("store") / "run.zarr"
    run(make_job(frames), store)
    return frames, store


@pytest.fixture(scope="module")
def damaged(sound, tmp_path_factory):
    """The store of a run on copies of which all but three are damaged; what was done to each frame."""
    frames, _ = sound
    folder = Path(shutil.copytree(frames.reference.parent, tmp_path_factory.mktemp("damaged") / "frames"))
    paths = [folder / path.name for path in frames.paths]
    done = {}
    for damage, path in zip(DAMAGES, paths[1:], strict=False):
        damage(path)
        done[path.name.split(".fits")[0]] = damage
    store = folder.parent / "run.zarr"
    job = make_job(frames, frames=paths)
    found = run(job, store)
    return store, done, found, job


def test_each_is_reported_with_its_reason(damaged):
    store, done, found, _ = damaged
    epochs = ztfxr.open_zarr(store)["epochs"].to_dataset().load()
    assert epochs["done"].all()
    meanings = epochs["epoch_status"].attrs
    names = dict(zip(meanings["flag_masks"], meanings["flag_meanings"].split(), strict=True))
    for frame, status, message in zip(
        epochs["frame"].values, epochs["epoch_status"].values, epochs["message"].values, strict=True
    ):
        if frame not in done:
            assert (status, message) == (0, "")
            continue
        expected, words = DAMAGES[done[frame]]
        assert [n for v, n in names.items() if v & int(status)] == [expected], done[frame]
        assert re.search(words, message), (done[frame], message)
    assert found.attrs["skipped"] == len(DAMAGES)
    assert found.attrs["measured"] == 3
    assert int(found["n_epochs"].sel(outcome="truncated")) == 3


def test_no_other_epoch_is_changed(sound, damaged):
    store, done, *_ = damaged
    clean, spoiled = (ztfxr.open_zarr(s)["lightcurve"].to_dataset().load() for s in (sound[1], store))
    rows = {str(frame): i for i, frame in enumerate(clean["frame"].values)}
    for i, frame in enumerate(spoiled["frame"].values):
        one = spoiled.isel(time=i)
        if str(frame) in done:
            assert np.isnan(one["flux"]).all()
            assert (one["status"] != 0).all()
        else:
            for name in spoiled.data_vars:
                np.testing.assert_array_equal(one[name], clean[name][rows[str(frame)]], err_msg=str(name))


def test_mended_frames_are_tried_again_when_asked(sound, damaged):
    frames, clean = sound
    store, _, _, job = damaged
    assert run(job, store).attrs["run"] == 0
    for path in frames.paths:
        for source in (path, mask_of(path)):
            shutil.copy(source, Path(job.paths()[0]).parent / source.name)
    found = run(job, store, retry_skipped=True)
    assert found.attrs["run"] == len(DAMAGES)
    assert found.attrs["measured"] == len(DAMAGES) + 3
    flux = [ztfxr.open_zarr(s)["lightcurve"].to_dataset().sortby("frame")["flux"].values for s in (clean, store)]
    np.testing.assert_array_equal(flux[0], flux[1])


def test_the_first_bad_frame_stops_a_strict_run(sound, tmp_path):
    frames, _ = sound
    folder = Path(shutil.copytree(frames.reference.parent, tmp_path / "frames"))
    path = folder / frames.paths[1].name
    login_page(path)
    job = make_job(frames, frames=[folder / p.name for p in frames.paths[:4]])
    with pytest.raises(FrameError, match="HTML"):
        run(job, tmp_path / "run.zarr", errors="raise")
    assert summary(tmp_path / "run.zarr").attrs["skipped"] == 1


def test_a_wcs_that_the_stars_deny_is_a_status(sound, tmp_path):
    """One frame shows the field upside down, one lies 3 px beside its WCS."""
    frames, _ = sound
    folder = Path(shutil.copytree(frames.reference.parent, tmp_path / "frames"))
    paths = [folder / path.name for path in frames.paths[:4]]
    for kind in (paths[1], mask_of(paths[1])):
        change(kind, lambda data: np.ascontiguousarray(data[::-1, ::-1]))
    for kind in (paths[2], mask_of(paths[2])):
        change(kind, lambda data: np.roll(data, 3, axis=1))
    options = {"frames": paths, "align": "wcs", "cutout": {"x": 190, "y": 180, "size": 200}}
    run(make_job(frames, **options), tmp_path / "run.zarr")
    epochs = ztfxr.open_zarr(tmp_path / "run.zarr")["epochs"].to_dataset().load()
    assert epochs["epoch_status"].values.tolist() == [0, planes_to_bits(["not_registered"], STATUS_PLANES), 0, 0]
    assert "do not lie where their WCS say" in str(epochs["message"].values[1])
    np.testing.assert_allclose(epochs["registration_shift_x"][[0, 2, 3]], [0, 3, 0], atol=0.7)
    assert (epochs["n_matched"][[0, 2, 3]] > 5).all()
    assert np.hypot(epochs["kernel_shift_y"], epochs["kernel_shift_x"])[[0, 2, 3]].max() < 0.3
    assert np.isnan(epochs["registration_shift_x"][1])


def test_a_reference_is_built_of_one_filter(sound, tmp_path):
    frames, _ = sound
    folder = Path(shutil.copytree(frames.reference.parent, tmp_path / "frames"))
    paths = [folder / path.name for path in frames.paths[:5]]
    other_filter(paths[2])
    job = make_job(frames, frames=paths, reference={"build": {}})
    with pytest.raises(InputError, match=r"several filters, ztfg, ztfr, .*{'build': {'filter': 'ztfg'}}"):
        run(job, tmp_path / "run.zarr")
    with pytest.raises(InputError, match="no frame is of filter 'ztfi'; theirs are ztfg, ztfr"):
        run(make_job(frames, frames=paths, reference={"build": {"filter": "ztfi"}}), tmp_path / "run.zarr")
    found = run(make_job(frames, frames=paths, reference={"build": {"filter": "zr"}}), tmp_path / "run.zarr")
    assert found["n_epochs"].sel(outcome=["measured", "other_filter"]).values.tolist() == [4, 1]
    reference = ztfxr.open_zarr(tmp_path / "run.zarr")["reference"]
    assert str(reference["filter"].values) == "ztfr"


def test_an_epoch_whose_workers_die_is_reported(made, tmp_path, monkeypatch):
    class Deadly:
        def map(self, function, items):
            for i, item in enumerate(items):
                yield item, WorkersDiedError("every worker that took it died") if i == 1 else function(item)

    monkeypatch.setattr(runner, "open_pool", lambda *a: __import__("contextlib").nullcontext(Deadly()))
    monkeypatch.setattr(runner, "_HEADERS_A_TASK", 100)
    found = run(make_job(made), tmp_path / "run.zarr")
    assert found.attrs["skipped"] == 1
    assert "every worker that took it died" in str(found["example"].sel(outcome="unreadable").values)


def test_an_unexpected_error_in_one_frame_is_its_status(made, tmp_path, monkeypatch):
    from ztfxr.pipeline import epoch

    true = epoch.difference_for

    def difference(positions, frame, reference, **options):
        if frame.chunks == {} and str(frame["time"].values) == str(bad):
            raise ZeroDivisionError("a bug")
        return true(positions, frame, reference, **options)

    bad = made.truth["time"].values[2]
    monkeypatch.setattr(epoch, "difference_for", difference)
    found = run(make_job(made), tmp_path / "run.zarr")
    assert (found.attrs["measured"], found.attrs["skipped"]) == (5, 1)
    assert "unexpected ZeroDivisionError: a bug" in str(found["example"].sel(outcome="unreadable").values)


def test_options_that_cannot_work_stop_the_run_at_once(made, tmp_path):
    with pytest.raises(InputError, match="must be odd"):
        run(make_job(made, difference={"kernel_size": 8}), tmp_path / "run.zarr")
    assert not (tmp_path / "run.zarr").exists()
    with pytest.raises(FileNotFoundError, match="the reference does not exist"):
        run(make_job(made, reference="nowhere.fits"), tmp_path / "run.zarr")
