"""A run gives what the functions give, continues, appends, and refuses what would spoil it."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import zarr
from zarr.storage import LocalStore

import ztfxr
from tests.pipeline.conftest import N_EPOCHS, POSITIONS, chunks, make_job, run
from ztfxr.errors import InputError, StoreError
from ztfxr.pipeline import runner, summary
from ztfxr.pipeline import worker as worker_module
from ztfxr.pipeline.lock import locked
from ztfxr.pipeline.progress import Progress
from ztfxr.pipeline.results import EpochWriter, Results
from ztfxr.schema import STATUS_PLANES, planes_to_bits

NOT_RUN = planes_to_bits(["not_run"], STATUS_PLANES)


class Killed(BaseException):
    """Ends a run as a signal would, but in this process."""


def kill_after(monkeypatch: pytest.MonkeyPatch, n: int) -> None:
    """The next run ends when it has measured `n` epochs, with nothing of them in its tables."""
    count = iter(range(10**6))

    def record(self, row, epoch):
        if next(count) == n:
            raise Killed

    monkeypatch.setattr(Results, "record", record)


def cut_with_noise(path):
    cut = ztfxr.stamp(xr.open_dataset(path, engine="ztf"), x=190, y=180, size=72).load()
    return cut.assign(variance=ztfxr.variance(cut, method="photon"))


def test_numbers_are_those_of_the_functions(made, undisturbed):
    tree = ztfxr.open_zarr(undisturbed)
    found = tree["lightcurve"].to_dataset().load()
    reference = cut_with_noise(made.reference)
    for path, time in zip(made.paths, found["time"].values, strict=True):
        cut = cut_with_noise(path)
        expected = ztfxr.lightcurve(cut, POSITIONS, reference=reference, kernel_size=7, radius=5.0)
        one = found.sel(time=time)
        assert time == expected["time"].values
        for name in ("flux", "flux_err", "flux_ujy", "status", "masked_fraction"):
            np.testing.assert_array_equal(one[name], expected[name], err_msg=name)
        np.testing.assert_array_equal(tree["epochs"]["kernel_sum"].sel(time=time), expected["kernel_sum"])
    assert found["source_id"].values.tolist() == POSITIONS["source_id"]
    assert found["flux"].attrs["units"] == "DN"


def test_store_is_labeled_and_says_where_it_is_from(made, undisturbed):
    tree = ztfxr.open_zarr(undisturbed)
    assert set(tree.children) == {"epochs", "lightcurve", "kernels", "stamps", "reference"}
    epochs = tree["epochs"].to_dataset()
    assert epochs["done"].values.all()
    assert epochs["path"].values.tolist() == [str(p) for p in made.paths]
    assert len(set(epochs["checksum"].values)) == N_EPOCHS
    assert epochs["frame"].dtype.kind == "U"
    assert (np.diff(epochs["time"].values) > np.timedelta64(0)).all()
    assert "ra" in tree["reference"].coords
    runs = tree.attrs["runs"]
    assert runs[0]["versions"]["numpy"] == np.__version__
    assert json.loads(tree.attrs["options"])["difference"] == {"kernel_size": 7}


def test_stamps_and_kernels_are_kept(undisturbed):
    tree = ztfxr.open_zarr(undisturbed)
    assert tree["stamps"]["difference"].shape == (N_EPOCHS, 3, 9, 9)
    assert np.isfinite(tree["stamps"]["difference"]).mean() > 0.9
    kernel = tree["kernels"]["kernel"]
    np.testing.assert_allclose(kernel.sum(("ky", "kx")), tree["epochs"]["kernel_sum"], rtol=1e-6)
    files = zarr.open_group(undisturbed, mode="r")["stamps"]["difference"]
    assert files.shards == (1, 3, 9, 9)
    assert files.chunks == (1, 1, 9, 9)


def test_an_interrupted_run_continues_to_the_same_bytes(made, undisturbed, tmp_path, monkeypatch):
    job, store = make_job(made, stamps=9, kernels=True), tmp_path / "run.zarr"
    for n in (0, 2):
        with monkeypatch.context() as patch:
            kill_after(patch, n)
            with pytest.raises(Killed):
                run(job, store)
    assert summary(store).attrs["not_run"] == N_EPOCHS
    found = run(job, store)
    assert found.attrs["run"] == N_EPOCHS
    assert chunks(store) == chunks(undisturbed)


def test_what_is_done_is_not_done_again(made, store, monkeypatch):
    before = chunks(store)
    monkeypatch.setattr(runner, "run_epoch", lambda *a, **k: pytest.fail("an epoch was measured again"))
    found = run(make_job(made, stamps=9, kernels=True), store)
    assert found.attrs["run"] == 0
    assert found.attrs["measured"] == N_EPOCHS
    assert chunks(store) == before


def test_a_worker_reads_the_store_itself(store, raising_scheduler):
    """Not by tasks for the scheduler on whose behalf it works."""
    state = worker_module.WorkerState(str(store))
    assert state.shared.reference.sizes == {"y": 72, "x": 72}
    assert not any(v.chunks for v in state.shared.reference.variables.values())
    assert state.shared.positions["source_id"].values.tolist() == POSITIONS["source_id"]


def test_half_a_run_shows_whole_epochs_only(made, tmp_path, monkeypatch):
    job, store = make_job(made), tmp_path / "run.zarr"
    true, count = EpochWriter.write, iter(range(10**6))

    def write(self, row, epoch):
        if next(count) == 3:
            epoch.arrays.pop(("lightcurve", "status"))
            flux = self._arrays["lightcurve", "flux"]
            self._put(flux, row, epoch.arrays["lightcurve", "flux"])
            raise Killed
        true(self, row, epoch)

    monkeypatch.setattr(EpochWriter, "write", write)
    with pytest.raises(Killed):
        run(job, store)
    tree = ztfxr.open_zarr(store)
    done = tree["epochs"]["done"].values
    assert done.tolist() == [True] * 3 + [False] * 3
    status = tree["lightcurve"]["status"].values
    assert (status[~done] == NOT_RUN).all()
    assert (status[done] & NOT_RUN == 0).all()
    assert (tree["epochs"]["epoch_status"].values[~done] == NOT_RUN).all()
    assert summary(store)["n_epochs"].sel(outcome="not_run") == 3


def test_tonights_frames_are_appended(made, undisturbed, tmp_path):
    job, store = make_job(made, stamps=9, kernels=True), tmp_path / "run.zarr"
    run(job.with_frames([str(p) for p in made.paths[:4]]), store)
    found = run(job, store)
    assert found.attrs["run"] == N_EPOCHS - 4
    assert chunks(store) == chunks(undisturbed)
    assert len(ztfxr.open_zarr(store).attrs["runs"]) == 2


def test_earlier_frames_are_appended_behind(made, undisturbed, tmp_path):
    job, store = make_job(made, stamps=9, kernels=True), tmp_path / "run.zarr"
    run(job.with_frames([str(p) for p in made.paths[3:]]), store)
    run(job, store)
    found = ztfxr.open_zarr(store)["lightcurve"].to_dataset().sortby("time")
    expected = ztfxr.open_zarr(undisturbed)["lightcurve"].to_dataset()
    xr.testing.assert_identical(found.load(), expected.load())


def test_an_interrupted_append_is_taken_back(made, undisturbed, tmp_path, monkeypatch):
    job, store = make_job(made, stamps=9, kernels=True), tmp_path / "run.zarr"
    run(job.with_frames([str(p) for p in made.paths[:4]]), store)
    with monkeypatch.context() as patch:
        patch.setattr(Results, "_set_units", lambda *a: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            run(job, store)
    assert zarr.open_group(store)["lightcurve"]["flux"].shape[0] == N_EPOCHS
    run(job, store)
    assert chunks(store) == chunks(undisturbed)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"difference": {"kernel_size": 9}}, r'difference: {"kernel_size": 7} then, {"kernel_size": 9} now'),
        ({"stamps": None}, "stamps: 9 then, null now"),
        ({"positions": {"x": [1.0], "y": [2.0]}}, "positions"),
    ],
)
def test_other_options_are_refused(made, store, options, message):
    before = chunks(store)
    with pytest.raises(StoreError, match=message):
        run(make_job(made, **({"stamps": 9, "kernels": True} | options)), store)
    assert chunks(store) == before


def test_another_reference_of_that_name_is_refused(made, tmp_path):
    reference = tmp_path / "ref_sciimg.fits"
    reference.write_bytes(made.reference.read_bytes())
    mask = made.reference.name.replace("sciimg", "mskimg")
    (tmp_path / "ref_mskimg.fits").write_bytes((made.reference.parent / mask).read_bytes())
    job = make_job(made, reference=str(reference))
    run(job, tmp_path / "run.zarr")
    with reference.open("r+b") as file:
        file.seek(20000)
        file.write(b"\x00\x00\x00\x00")
    with pytest.raises(StoreError, match="reference"):
        run(job, tmp_path / "run.zarr")


def test_resume_false_refuses_what_is_there(made, store):
    with pytest.raises(StoreError, match="exists already"):
        run(make_job(made, stamps=9, kernels=True), store, resume=False)


def test_a_second_run_is_refused(made, store):
    with locked(store):
        program = (
            "import sys; from pathlib import Path; from ztfxr.pipeline.lock import locked\n"
            "from ztfxr.errors import StoreError\n"
            "try:\n    locked(Path(sys.argv[1])).__enter__()\n"
            "except StoreError as error:\n    print(error)\n"
        )
        done = subprocess.run([sys.executable, "-c", program, str(store)], capture_output=True, text=True, check=True)
    assert "another run writes to" in done.stdout
    assert "(process " in done.stdout
    with locked(store):
        pass


def change_attrs(store, **attrs):
    path = store / "zarr.json"
    meta = json.loads(path.read_text())
    meta["attributes"] |= attrs
    path.write_text(json.dumps(meta))


def test_a_store_of_another_layout_is_refused(made, store):
    change_attrs(store, ztfxr_pipeline=2)
    with pytest.raises(StoreError, match="has layout 2, written by ztfxr"):
        run(make_job(made, stamps=9, kernels=True), store)


def test_a_store_of_another_version_is_refused_or_accepted(made, store):
    runs = ztfxr.open_zarr(store).attrs["runs"]
    runs[0]["versions"]["ztfxr"] = "0.0.1"
    change_attrs(store, runs=runs)
    job = make_job(made, stamps=9, kernels=True)
    with pytest.raises(StoreError, match=r"was begun by ztfxr 0\.0\.1"):
        run(job, store)
    assert run(job, store, accept_version=True).attrs["measured"] == N_EPOCHS


def test_other_things_at_the_path_are_left_alone(made, tmp_path):
    folder = tmp_path / "precious"
    folder.mkdir()
    (folder / "thesis.tex").write_text("x")
    with pytest.raises(StoreError, match="no zarr store that can be read"):
        run(make_job(made), folder)
    assert (folder / "thesis.tex").read_text() == "x"
    ztfxr.to_zarr(xr.Dataset({"a": 1}), tmp_path / "other.zarr")
    with pytest.raises(StoreError, match=r"was not written by ztfxr\.pipeline\.run"):
        run(make_job(made), tmp_path / "other.zarr")
    with pytest.raises(StoreError, match="no lock file can be made"):
        run(make_job(made), tmp_path / "missing" / "run.zarr")
    with pytest.raises(InputError, match="not to a URL"):
        run(make_job(made), "s3://bucket/run.zarr")


def full_disk(*args, **kwargs):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_stops_the_run_and_loses_nothing(made, undisturbed, tmp_path, monkeypatch):
    job, store = make_job(made, stamps=9, kernels=True), tmp_path / "run.zarr"
    true, count = EpochWriter._put, iter(range(10**6))

    def write(array, row, values):
        return full_disk() if next(count) > 30 else true(array, row, values)

    with monkeypatch.context() as patch:
        patch.setattr(EpochWriter, "_put", staticmethod(write))
        with pytest.raises(StoreError, match="No space left on device"):
            run(job, store)
    found = summary(store)
    assert 0 < found.attrs["measured"] < N_EPOCHS
    assert found.attrs["skipped"] == 0
    run(job, store)
    assert chunks(store) == chunks(undisturbed)


def test_a_full_disk_before_the_first_epoch_leaves_nothing(made, tmp_path, monkeypatch):
    monkeypatch.setattr(Results, "_write", full_disk)
    with pytest.raises(StoreError, match="cannot write"):
        run(make_job(made), tmp_path / "run.zarr")
    assert [p.name for p in tmp_path.iterdir()] == [".run.zarr.lock"]


@pytest.fixture(scope="module")
def four(made, tmp_path_factory):
    """The store of the first four epochs; no test changes it."""
    store = tmp_path_factory.mktemp("four") / "run.zarr"
    run(make_job(made, frames=made.paths[:4], stamps=9, kernels=True), store)
    return store


@pytest.mark.parametrize(
    ("key", "code"),
    [
        ("lightcurve/flux/c/4", errno.ENOSPC),
        ("lightcurve/status/c/5", errno.EROFS),
        ("epochs/kernel_sum/c", errno.ENOSPC),
        ("epochs/done/c", errno.EROFS),
        ("zarr.json", errno.EROFS),
    ],
)
def test_a_file_system_that_refuses_loses_nothing(made, undisturbed, four, tmp_path, monkeypatch, key, code):
    """What a worker writes, and what the run does; holds for root too, whom no permission stops."""
    job, store = make_job(made, stamps=9, kernels=True), Path(shutil.copytree(four, tmp_path / "run.zarr"))
    before = ztfxr.open_zarr(store)["lightcurve"].to_dataset().load()
    true = LocalStore.set

    async def write(self, name, value):
        if key in name:
            raise OSError(code, os.strerror(code))
        await true(self, name, value)

    with monkeypatch.context() as patch:
        patch.setattr(LocalStore, "set", write)
        with pytest.raises(StoreError, match=rf"cannot write .*run\.zarr \({os.strerror(code)}\); nothing that was"):
            run(job, store)
    tree = ztfxr.open_zarr(store)
    done = tree["epochs"]["done"].values
    assert done[:4].all()
    assert done.sum() < N_EPOCHS
    xr.testing.assert_identical(tree["lightcurve"].to_dataset().load().isel(time=slice(4)), before)
    run(job, store)
    assert chunks(store) == chunks(undisturbed)


def test_a_store_below_a_file_is_refused(made, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError, match="no lock file can be made in"):
        run(make_job(made), tmp_path / "file" / "run.zarr")
    assert (tmp_path / "file").read_text() == "x"


def test_a_built_reference_is_kept(made, tmp_path):
    job = make_job(made, reference={"build": {"best": 3}})
    found = run(job, tmp_path / "run.zarr")
    assert found.attrs["measured"] == N_EPOCHS
    reference = ztfxr.open_zarr(tmp_path / "run.zarr")["reference"].to_dataset()
    assert reference.sizes == {"y": 72, "x": 72}
    assert int(reference["y"][0]) == 180 - 36
    with_path = replace(job, reference=str(tmp_path / "run.zarr"), cutout=None)
    again = run(with_path, tmp_path / "again.zarr")
    assert again.attrs["measured"] == N_EPOCHS
    first, second = (ztfxr.open_zarr(tmp_path / f"{n}.zarr")["lightcurve"]["flux"].values for n in ("run", "again"))
    np.testing.assert_array_equal(first, second)


def test_frames_are_aligned_where_asked(made, tmp_path):
    found = run(make_job(made, align="wcs"), tmp_path / "wcs.zarr")
    assert found.attrs["measured"] == N_EPOCHS
    plain = run(make_job(made), tmp_path / "plain.zarr")
    assert plain.attrs["measured"] == N_EPOCHS
    aligned, direct = (ztfxr.open_zarr(tmp_path / f"{n}.zarr")["lightcurve"] for n in ("wcs", "plain"))
    # One WCS for all: aligning changes nothing but what bad pixels take away.
    both = (aligned["status"].values == 0) & (direct["status"].values == 0)
    assert both.any()
    off = (aligned["flux"].values - direct["flux"].values) / direct["flux_err"].values
    assert np.abs(off[both]).max() < 0.5


def test_psf_photometry(made, tmp_path):
    job = make_job(made, photometry={"method": "psf"}, cutout=None)
    found = run(job, tmp_path / "run.zarr")
    assert found.attrs["measured"] == N_EPOCHS
    curve = ztfxr.open_zarr(tmp_path / "run.zarr")["lightcurve"].to_dataset().isel(source=0).load()
    pull = (curve["flux"] - made.truth["flux"].values) / curve["flux_err"]
    assert np.abs(pull[curve["status"].values == 0]).max() < 5


def test_progress_says_rate_and_remaining_time():
    progress = Progress(100, enabled=False)
    for i in range(20):
        progress.step(skipped=i == 0)
    assert progress.line(10.0) == "20 of 100 epochs, 2 per second, 40 s left, 1 skipped"
    assert Progress(100, enabled=False).line(1.0).endswith("time left unknown")


def test_progress_and_summary_are_printed(made, store, capsys):
    run(make_job(made, stamps=9, kernels=True), store, progress=True)
    said = capsys.readouterr().err
    assert "6 measured" in said
