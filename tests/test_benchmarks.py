"""Every benchmark runs once with its smallest parameters, and both sides of a comparison agree."""

from __future__ import annotations

import importlib
import inspect
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from photutils.aperture import CircularAperture

from benchmarks import _scenes, apertures, image, injection, lco, lightcurves, psf, reading, verdict
from benchmarks.peers import clean

MODULES = ("apertures", "difference", "image", "lco", "limits", "lightcurves", "pipeline", "reading", "psf")
FOLDER = Path(__file__).parents[1] / "benchmarks"


def _classes() -> list[type]:
    found = []
    for name in MODULES:
        module = importlib.import_module(f"benchmarks.{name}")
        members = inspect.getmembers(module, inspect.isclass)
        found += [c for n, c in members if c.__module__ == module.__name__ and not n.startswith("_")]
    return found


def _smallest(cls: Any) -> list[tuple[Any, ...]]:
    """All choices of methods, with the smallest number of each size."""
    words, numbers = [], []
    for values in cls.params:
        numeric = not isinstance(values[0], str)
        numbers.append(min(values) if numeric else None)
        words.append([None] if numeric else values)
    return [
        tuple(n if w is None else w for n, w in zip(numbers, choice, strict=True))
        for choice in np.array(np.meshgrid(*words, indexing="ij"), dtype=object).reshape(len(words), -1).T
    ]


def _cases() -> list[Any]:
    return [
        pytest.param(cls, parameters, id="-".join([cls.__name__, *map(str, parameters)]).replace(" ", "_"))
        for cls in _classes()
        for parameters in _smallest(cls)
    ]


@pytest.mark.parametrize(("cls", "parameters"), _cases())
def test_benchmark_runs(cls: type, parameters: tuple[Any, ...]) -> None:
    benchmark = cls()
    try:
        benchmark.setup(*parameters)
    except NotImplementedError as missing:
        pytest.skip(str(missing))
    methods = [m for n, m in inspect.getmembers(benchmark, inspect.ismethod) if n.startswith(("time_", "peakmem_"))]
    assert len({m.__name__.split("_")[0] for m in methods}) == 2
    for method in methods:
        method(*parameters)


@pytest.mark.parametrize("cls", _classes())
def test_parameters_are_named(cls: Any) -> None:
    assert len(cls.params) == len(cls.param_names)
    assert list(inspect.signature(cls.setup).parameters)[1:] == list(cls.param_names)


def test_asv_settings_are_json() -> None:
    settings = json.loads((FOLDER / "asv.conf.json").read_text())
    assert settings["project"] == "ztfxr"
    assert (FOLDER / settings["benchmark_dir"]).is_dir()


def test_dense_and_our_kernels_agree() -> None:
    stack, reference = _scenes.make_crowded_stack(1, size=120)
    (ours, image), (dense, dense_image) = (lco.METHODS[m](stack[0], reference) for m in ("ztfxr", "dense"))
    assert np.abs(ours - dense).max() < 1e-6 * np.abs(dense).max()
    np.testing.assert_allclose(image, dense_image, atol=0.01 * np.nanstd(dense_image))


def test_dense_kernel_is_a_convolution() -> None:
    kernel = np.zeros((5, 5))
    kernel[1, 3], kernel[2, 2] = 0.25, 0.75
    rng = np.random.default_rng(0)
    reference = rng.normal(size=(40, 44)).astype(np.float32)
    science = 0.75 * reference + 0.25 * np.roll(reference, (-1, 1), axis=(0, 1)) + np.float32(3.0)
    found, image = lco.dense_difference(science, reference, size=5)
    np.testing.assert_allclose(found, kernel, atol=1e-6)
    np.testing.assert_allclose(image[2:-2, 2:-2], 0.0, atol=1e-5)


def test_aperture_sums_agree() -> None:
    benchmark = apertures.Apertures()
    benchmark.setup("ztfxr", 100)
    sums = benchmark.ours()
    measured = np.isfinite(sums)
    assert measured.mean() > 0.9
    np.testing.assert_allclose(sums[measured], benchmark.sep()[measured], rtol=1e-4, atol=0.1)
    clear = CircularAperture(np.column_stack([benchmark.x, benchmark.y]), apertures.RADIUS).do_photometry(benchmark.bad)
    whole = clear[0] == 0
    assert whole.sum() > 50
    np.testing.assert_allclose(sums[whole], benchmark.photutils()[whole], rtol=1e-4, atol=0.1)


def test_psf_fits_agree() -> None:
    fluxes = {}
    for method in ("ztfxr", "photutils"):
        benchmark = psf.ForcedPhotometry()
        benchmark.setup(method, 100)
        fluxes[method] = benchmark.run()
    np.testing.assert_allclose(fluxes["ztfxr"], fluxes["photutils"], rtol=5e-3)
    np.testing.assert_allclose(fluxes["ztfxr"], benchmark.stars.flux, rtol=0.15)


def test_pairs_come_apart() -> None:
    """Jointly solved, by both programs; alone, each would hold a good part of its neighbor's light."""
    for method in ("ztfxr", "photutils"):
        benchmark = psf.Neighbors()
        benchmark.setup(method, 100)
        np.testing.assert_allclose(benchmark.run(), benchmark.stars.flux, rtol=0.2)


def test_both_ways_to_light_curves_agree() -> None:
    frames, stamps = (
        lightcurves.curves(k, 2, 100, lightcurves.SMALL_FRAME_SIZE).compute() for k in ("frames", "stamps")
    )
    stars, _ = lightcurves.scene(lightcurves.SMALL_FRAME_SIZE, 100)
    assert frames["flux"].shape == stamps["flux"].shape == (2, 100)
    assert np.abs((frames["flux"] - stamps["flux"]) / frames["flux_err"]).max() < 3
    assert float(((frames["flux"] - stars.flux) / frames["flux_err"]).std()) == pytest.approx(1.0, abs=0.2)


def test_artificial_stars_are_reported() -> None:
    """With the true PSF on science images: pulls of unit width."""
    scene = injection.make_stack(450, 2, seed=1)
    true = injection.gridded_psf(scene.truth.isel(time=slice(2)))
    measure = injection.jobs(scene, true)["science images"]
    found = injection.injected(scene, measure, true, rounds=1)
    report = injection.reports(scene, found.sel(psf="true PSF"))
    assert abs(float(report["all_pull_mad"]) - 1) < 0.15
    assert len(list(injection.lines(report, "mag"))) == 1 + injection.MAG_BINS
    assert int(report["surface_brightness_n"].sum()) == 2 * injection.AT_ONCE > int(report["mag_n"].sum()) > 0


def test_built_psfs_give_the_true_fluxes() -> None:
    for method, bias in (("ztfxr", 0.005), ("photutils", 0.02)):
        benchmark = psf.BuildPSF()
        benchmark.setup(method, 100)
        bright = benchmark.stars.flux > 5e3
        assert abs(np.nanmedian(benchmark.run()[bright]) - 1) < bias


def test_stamps_agree() -> None:
    try:
        expected = reading.astropy_stamp("plain")
    except NotImplementedError as missing:
        pytest.skip(str(missing))
    for kind, read in reading.READERS.items():
        np.testing.assert_allclose(read(kind), expected, atol=2.0 if kind == "fz lossy" else 0.0)


def _quadrant() -> Path:
    try:
        return image.quadrant_path()
    except NotImplementedError as missing:
        pytest.skip(str(missing))


def test_ways_to_a_clean_image_agree() -> None:
    """Bit for bit, whatever holds the pixels."""
    path = str(_quadrant())
    expected = clean.METHODS["by hand"](path)()
    for method in image.CLEAN[1:]:
        np.testing.assert_array_equal(clean.METHODS[method](path)(), expected)


def test_labels_are_astropys() -> None:
    assert image.label_error(_quadrant()) < 1e-3


@pytest.mark.slow
def test_workers_take_turns() -> None:
    """A process answers for every method that it is asked for, and says when it cannot."""
    path = _quadrant()
    found = image.compare(("by hand", "ztfxr, no dask"), path, repeats=1)
    assert list(found) == ["by hand", "ztfxr, no dask"]
    assert all(values["time"] > 0 and values["memory"] >= 0 for values in found.values())
    with image._Worker(path) as worker, pytest.raises(RuntimeError, match="nothing failed"):
        worker.ask("time", "nothing")


def test_every_method_is_compared() -> None:
    assert {*image.CLEAN, *image.PEERS, *image.LABELS} == set(clean.METHODS)


def test_scene_is_what_it_says() -> None:
    pair = _scenes.make_pair(512, seed=3)
    assert pair.science.shape == pair.reference.shape == (512, 512)
    assert 0.004 < pair.science_bad.mean() < 0.015
    sky = pair.science[~pair.science_bad]
    assert 1.4826 * np.median(np.abs(sky - np.median(sky))) == pytest.approx(_scenes.SKY_NOISE, rel=0.25)


@pytest.mark.parametrize("kind", verdict.KINDS)
def test_sabotage_is_caught_and_clean_pairs_are_not(kind: str) -> None:
    """The kernel can follow a host of another color, and the clouds over a few stars."""
    missed = {("host", "other filter"), ("sparse", "clouded by half")}
    for sabotage in verdict.SABOTAGES:
        assert verdict.caught(kind, sabotage, 1)[0] == 1 or (kind, sabotage) in missed, sabotage
    assert verdict.caught(kind, "", 4)[0] == 0
