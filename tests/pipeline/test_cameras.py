"""The pipeline on frames of other cameras: by stars without a WCS, by WCS, and of a camera of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from astropy.io import fits

import ztfxr
from ztfxr.errors import InputError
from ztfxr.pipeline import Job, run
from ztfxr.pipeline.epoch import header_names, read_header
from ztfxr.pipeline.prepare import frame_noise
from ztfxr.schema import STATUS_PLANES, planes_to_bits


def results(job: Job, store: Path) -> tuple[xr.Dataset, xr.Dataset]:
    """The epochs and the light curves of a job."""
    run(job, store, workers=1, progress=False)
    tree = ztfxr.open_zarr(store)
    return tree["epochs"].to_dataset().load(), tree["lightcurve"].to_dataset().load()


def test_saao_by_stars(shared: Path, tmp_path: Path) -> None:
    """Shifts of tens of pixels, no WCS; beside the frames a page that a server sent."""
    folder = shared / "data" / "saao_kb13475"
    page = tmp_path / "AKB13475I9999.fits"
    page.write_text("<html>Please log in</html>")
    names = ("0007", "0008", "0010")
    frames = [str(folder / f"AKB13475I{n}.fits.gz") for n in names]
    job = Job(
        frames=[*frames, str(page)],
        positions={"x": [256.0, 300.0], "y": [256.0, 350.0]},
        reference=str(folder / "AKB13475I0013.fits.gz"),
        align="stars",
        camera="saao",
    )
    epochs, lightcurve = results(Job.from_json(job.to_json()), tmp_path / "run.zarr")
    assert epochs["frame"].values.tolist() == [*(f"AKB13475I{n}" for n in names), page.stem]
    assert epochs["epoch_status"].values.tolist() == [0, 0, 0, planes_to_bits(["not_fits"], STATUS_PLANES)]
    assert (np.diff(epochs["mjd"][:3]) > 0).all()
    assert np.isnan(epochs["mjd"].values[3])
    assert epochs["filter"].values[:3].tolist() == ["I"] * 3
    assert "field" not in epochs.variables
    # The default kernel of 9 px is too small for the widest seeing, and the bright stars, which show it, count.
    assert ((epochs["chi2"][:3] > 0.8) & (epochs["chi2"][:3] < 2.5)).all()
    # Transparency is what differs between the nights; the sky is bright enough to be photon noise.
    np.testing.assert_allclose(epochs["kernel_sum"][:3], [1.94, 1.82, 1.46], atol=0.02)
    assert (lightcurve["status"][:3] == 0).all()
    assert np.isfinite(lightcurve["flux"][:3]).all()
    assert (np.abs(lightcurve["flux"][:3]) < 60 * lightcurve["flux_err"][:3]).all()


@pytest.mark.slow
def test_rise_by_wcs(shared: Path, tmp_path: Path) -> None:
    """The pointing drifts by pixels, and corners saw no light; bright stars stay as bright as they are."""
    folder = shared / "data" / "rise"
    reference = folder / "q_e_20200830_1_11_1_1.fits.gz"
    stars = {"x": [281.17, 214.42], "y": [212.64, 786.68]}
    job = Job(
        frames=str(folder / "*_1_1_1_1.fits.gz"),
        positions=stars,
        reference=str(reference),
        align="wcs",
        camera="rise",
        difference={"exclude_radius": 0},
    )
    assert [Path(p).name for p in job.paths()] == ["q_e_20200830_1_1_1_1.fits.gz"]
    epochs, lightcurve = results(job, tmp_path / "run.zarr")
    assert epochs["epoch_status"].values.tolist() == [0]
    assert epochs["time"].values[0] == np.datetime64("2020-08-30T21:37:29.101")
    assert float(epochs["kernel_sum"][0]) == pytest.approx(1.0, abs=0.06)
    assert float(epochs["noise_ratio"][0]) == pytest.approx(1.0, abs=0.15)
    assert float(epochs["registration_shift_y"][0]) == pytest.approx(-0.195, abs=0.02)
    assert float(epochs["registration_rms"][0]) < 0.1
    light = ztfxr.aperture_photometry(ztfxr.clean(ztfxr.open_frame(reference, camera="rise")), stars, radius=10.0)
    assert (np.abs(lightcurve["flux"].values[0] / light["flux"].values) < 0.02).all()


# a camera of one's own


MINE = ztfxr.Camera("mine", {"gain": "EPERADU", "seeing": "FWHM", "qid": "CHIP"}, time_is="middle")


@pytest.fixture
def frames(tmp_path: Path) -> list[Path]:
    """Four frames of a few stars on one grid."""
    rng, (y, x) = np.random.default_rng(3), np.mgrid[:64, :64]
    places = rng.uniform(8, 56, (12, 2))
    stars = sum(4000.0 * np.exp(-((y - a) ** 2 + (x - b) ** 2) / 4.5) for a, b in places)
    paths = []
    for i in range(4):
        header = fits.Header([("DATE-OBS", f"2024-03-0{i + 1}T01:00:00"), ("EXPTIME", 30.0), ("EPERADU", 2.0)])
        header["RDNOISE"], header["FWHM"], header["CHIP"] = 4.0, 3.0 + 0.1 * i, 2
        pixels = rng.poisson(2.0 * (stars + 300.0)) / 2.0
        fits.PrimaryHDU(pixels.astype(np.float32), header).writeto(tmp_path / f"m{i}.fits")
        paths.append(tmp_path / f"m{i}.fits")
    return paths


def test_a_camera_of_ones_own(frames: list[Path], tmp_path: Path) -> None:
    job = Job(frames=str(tmp_path), positions={"x": [32.0], "y": [32.0]}, reference=str(frames[0]), camera=MINE)
    assert Job.from_json(job.to_json()) == job
    epochs, lightcurve = results(job, tmp_path / "run.zarr")
    # The first frame is the reference: less itself it has no noise.
    assert epochs["epoch_status"].values.tolist() == [planes_to_bits(["noise_unexpected"], STATUS_PLANES), 0, 0, 0]
    assert epochs["time"].values[1] == np.datetime64("2024-03-02T01:00:00")
    assert epochs["qid"].values.tolist() == [2] * 4
    assert np.isnan(epochs["magzp"].values).all()
    assert (np.abs(lightcurve["flux"][1:] / lightcurve["flux_err"][1:]) < 4).all()


def test_headers_of_cameras() -> None:
    assert header_names(MINE) == (
        *("time", "mjd", "filter", "exptime", "qid"),
        *("magzp", "magzprms", "gain", "readnoise", "saturate", "seeing"),
    )
    assert {"field", "ccdid", "qid", "rcid", "filefracday"} <= set(header_names(ztfxr.CAMERAS["ztf"]))


def test_headers_of_frames(frames: list[Path]) -> None:
    found = read_header(str(frames[2]), MINE)
    assert (found["frame"], found["qid"], found["seeing"], found["epoch_status"]) == ("m2", 2, 3.2, 0)
    lost = read_header(str(frames[2]), "ztf")
    assert lost["epoch_status"] == planes_to_bits(["bad_header"], STATUS_PLANES)
    assert "is this a ZTF science image" in lost["message"]


def test_jobs_refuse_unknown_cameras() -> None:
    with pytest.raises(InputError, match="camera is one of ztf, lco"):
        Job(frames=("a.fits",), positions={"x": [1.0], "y": [1.0]}, camera="hst")


@pytest.mark.parametrize(("sky", "expected"), [(300.0, 12.4), (0.0, 12.4)])
def test_a_frame_that_lost_its_sky_keeps_its_noise(sky: float, expected: float) -> None:
    """300 DN of sky at 2 electrons/DN and a read noise of 4 electrons scatter by 12.4 DN, subtracted or not."""
    pixels = np.random.default_rng(1).normal(sky, 12.4, (200, 200)).astype(np.float32)
    coords: dict[str, Any] = {"gain": 2.0, "readnoise": 4.0}
    frame = xr.Dataset({"sci": (("y", "x"), pixels)}, coords)
    found = frame_noise(frame, "photon")
    assert found is not None
    assert np.sqrt(float(found.median())) == pytest.approx(expected, rel=0.03)


def test_a_real_frame_without_its_sky(shared: Path) -> None:
    """AVSIG of the header is 33.5 DN; the photons that are left would give 3 DN."""
    frame = ztfxr.open_frame(shared / "data" / "decam_minis" / "DEC-OBS04a.mini.fits.gz", camera="decam").load()
    found = frame_noise(frame, "photon")
    assert found is not None
    assert np.sqrt(float(found.median())) == pytest.approx(33.5, rel=0.1)
