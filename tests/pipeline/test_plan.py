"""The estimate against the run that it is of; the command line."""

from __future__ import annotations

import numpy as np
import pytest

import ztfxr
from tests.pipeline.conftest import N_EPOCHS, make_job
from ztfxr import cli, pipeline
from ztfxr.errors import InputError
from ztfxr.pipeline.planning import measure_run_time, plan_lines
from ztfxr.samples import SemiReal

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def planned(made: SemiReal):
    return pipeline.plan(make_job(made), workers=[1, 2, 1000], sample=2)


def size(folder) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_plan_is_near_the_truth(made, planned, tmp_path):
    store = tmp_path / "run.zarr"
    pipeline.run(make_job(made), store, workers=1, progress=False)
    assert float(planned["store_bytes"]) == pytest.approx(size(store), rel=0.1)
    rows = 72 + 1
    assert rows * 300 * 6 < float(planned["bytes_read"]) / N_EPOCHS < 3e6
    assert 5e7 < float(planned["memory_per_worker"]) < 3e9
    assert int(planned["n_epochs"]) == N_EPOCHS
    assert 0.001 < float(planned["seconds_per_epoch"]) < 10


def test_more_workers_take_less_time_and_more_memory(planned):
    each = float(planned["seconds_per_epoch"])
    fixed = float(planned["seconds_layout"])
    assert float(planned["seconds"].sel(workers=1)) >= fixed + N_EPOCHS * each
    assert float(planned["seconds"].sel(workers=1000)) >= fixed + N_EPOCHS * 0.005
    np.testing.assert_allclose(planned["memory_total"], planned["workers"] * planned["memory_per_worker"])
    lines = plan_lines(planned)
    assert lines[0].startswith("6 epochs at")
    assert lines[-1].startswith(" 1000 workers:")


def test_plan_says_why_nothing_can_be_measured(made, tmp_path):
    bad = tmp_path / "bad_sciimg.fits"
    bad.write_text("<html>")
    with pytest.raises(InputError, match="HTML"):
        pipeline.plan(make_job(made, frames=[bad]), sample=1)
    with pytest.raises(InputError, match="at least 1"):
        pipeline.plan(make_job(made), workers=0)


def test_calibration_counts_damaged_frames_out(made, tmp_path):
    bad = tmp_path / "bad_sciimg.fits"
    bad.write_text("<html>")
    job = make_job(made, frames=[*made.paths[:2], bad])
    job.to_json(tmp_path / "job.json")
    found = measure_run_time(str(tmp_path / "job.json"), str(tmp_path / "plan.zarr"))
    assert '"sampled": 1' in found


def test_command_line_runs_and_continues(made, tmp_path, capsys):
    job = make_job(made)
    job.to_json(tmp_path / "job.json")
    for _ in range(2):
        assert cli.main(["run", str(tmp_path / "job.json"), "--workers", "1"]) == 0
    assert "6 measured" in capsys.readouterr().err
    assert ztfxr.open_zarr(tmp_path / "job.zarr")["lightcurve"].sizes == {"time": N_EPOCHS, "source": 3}
    make_job(made, stamps=5).to_json(tmp_path / "job.json")
    assert cli.main(["run", str(tmp_path / "job.json"), "--quiet"]) == 1
    assert "other options" in capsys.readouterr().err


def test_command_line_plans(made, tmp_path, capsys):
    make_job(made).to_json(tmp_path / "job.json")
    assert cli.main(["plan", str(tmp_path / "job.json"), "--workers", "1,4", "--sample", "1"]) == 0
    said = capsys.readouterr().out
    assert "6 epochs at" in said
    assert "    4 workers:" in said
