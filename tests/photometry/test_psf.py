"""PSFs as labeled data: built, evaluated, carried into difference images."""

from __future__ import annotations

from functools import lru_cache, partial
from pathlib import Path

import dask
import numpy as np
import pytest
import xarray as xr
from numpy.typing import NDArray
from scipy import signal

import ztfxr
from tests.arrays.psf._scenes import draw, gaussian_pixels
from ztfxr.errors import ChunkError, InputError
from ztfxr.testing import SceneOptions, make_scene

SKY, GAIN, SIGMA, SHAPE = 5.0, 6.0, 1.0, (420, 400)


@lru_cache
def _stars(seed: int = 0) -> tuple[NDArray[np.float64], ...]:
    rng = np.random.default_rng(seed)
    y, x = (p.ravel() for p in np.mgrid[25:400:42, 25:380:42].astype(float))
    y, x = y + rng.uniform(-3, 3, y.size), x + rng.uniform(-3, 3, x.size)
    return y, x, np.exp(rng.uniform(np.log(5e3), np.log(1e5), y.size))


@lru_cache
def _pixels(sigma: float, seed: int) -> NDArray[np.float64]:
    rng = np.random.default_rng(100 + seed)
    truth = draw(SHAPE, *_stars(), partial(gaussian_pixels, sigma=sigma))
    return truth + 300.0 + rng.normal(size=SHAPE) * np.sqrt(SKY**2 + truth / GAIN)


def frame(sigma: float = SIGMA, seed: int = 0, origin: tuple[int, int] = (1000, 500)) -> xr.Dataset:
    """A frame cut from a larger one, with its sky."""
    coords = {"y": origin[0] + np.arange(SHAPE[0]), "x": origin[1] + np.arange(SHAPE[1]), "gain": GAIN, "mjd": 59000.0}
    return xr.Dataset({"sci": (("y", "x"), _pixels(sigma, seed).astype("f4"))}, coords)


def stack(sigmas: tuple[float, ...] = (0.9, 1.1, 1.3)) -> xr.Dataset:
    times = np.datetime64("2020-01-01", "ns") + np.arange(len(sigmas)) * np.timedelta64(1, "D")
    frames = [
        frame(s, i).drop_vars("mjd").expand_dims(time=[t]) for i, (s, t) in enumerate(zip(sigmas, times, strict=True))
    ]
    return xr.concat(frames, dim="time").chunk(time=1)


@lru_cache
def built() -> xr.Dataset:
    """The PSF of a frame."""
    return ztfxr.build_psf(frame())


# building


def test_a_frame_gives_its_psf() -> None:
    psf = built()
    assert psf["psf_coeff"].dims == ("psf_term", "psf_dy", "psf_dx")
    assert psf["psf_coeff"].dtype == np.float32
    assert int(psf["epoch_status"]) == 0
    assert int(psf["n_stars"]) > 40
    assert float(psf["fwhm"]) == pytest.approx(2.3548 * np.sqrt(SIGMA**2 + 1 / 12), abs=0.1)
    np.testing.assert_allclose(psf["psf_origin"], [1000 + 209.5, 500 + 199.5])
    assert psf["psf_coeff"].attrs["long_name"]
    assert psf["psf_dy"].attrs["units"] == "pixel"
    stamp = ztfxr.psf_at(psf, 700.3, 1200.8, size=11)
    offset = np.arange(-5, 6)
    truth = gaussian_pixels(offset + 0.2, offset - 0.3, SIGMA)
    assert np.abs(stamp - truth).max() < 0.01 * truth.max()


def test_stacks_are_built_lazily_one_by_one(raising_scheduler) -> None:
    images = stack()
    psf = ztfxr.build_psf(images)
    assert psf["psf_coeff"].chunks is not None
    assert psf["psf_coeff"].sizes["time"] == 3
    with dask.config.set(scheduler="synchronous"):
        widths = psf["fwhm"].compute()
        alone = ztfxr.build_psf(images.isel(time=1).compute())
        xr.testing.assert_allclose(
            psf["psf_coeff"].isel(time=1).compute().drop_vars("time"), alone["psf_coeff"].drop_vars("time")
        )
    assert np.all(np.diff(widths) > 0.2)


def test_an_epoch_without_stars_is_nan_with_a_status() -> None:
    images = stack().compute()
    images["sci"][1] = np.random.default_rng(0).normal(300, SKY, SHAPE)
    psf = ztfxr.build_psf(images)
    assert psf["epoch_status"].values.tolist() == [0, 1 << 8, 0]
    assert np.isnan(psf["psf_coeff"].isel(time=1)).all()
    assert np.isnan(ztfxr.psf_at(psf, 700, 1200, size=5).isel(time=1)).all()


def test_chosen_stars_and_options() -> None:
    y, x, _ = _stars()
    psf = ztfxr.build_psf(frame(), stars={"x": x[:30] + 500, "y": y[:30] + 1000}, order=1, radius=12, saturation=1e5)
    assert int(psf["n_stars"]) + int(psf["n_stars_rejected"]) <= 30
    assert int(psf["psf_order"]) == 1
    assert psf.sizes["psf_term"] == 3
    assert psf["psf_dx"].max() == 12


def test_saturated_stars_are_left_out() -> None:
    with_level = frame().assign_coords(saturate=6000.0)
    few = ztfxr.build_psf(with_level)
    assert int(few["n_stars"] + few["n_stars_rejected"]) < int(built()["n_stars"]) - 5


def test_without_a_gain_the_sky_is_the_noise() -> None:
    psf = ztfxr.build_psf(frame().drop_vars("gain"))
    assert int(psf["epoch_status"]) == 0
    assert float(psf["fwhm"]) == pytest.approx(2.45, abs=0.15)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"order": 4}, "order must be 0, 1, 2 or 3 or auto; got 4"),
        ({"max_order": -1}, "max_order must be 0, 1, 2 or 3; got -1"),
        ({"radius": 50}, "radius is a whole number of pixels from 3 to 20; got 50"),
        ({"n_stars": 1}, "n_stars must be at least 3"),
        ({"min_snr": 0.0}, "min_snr positive"),
    ],
)
def test_bad_options(options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        ztfxr.build_psf(frame(), **options)


def test_chunked_images_are_refused() -> None:
    with pytest.raises(ChunkError, match="which this operation needs whole"):
        ztfxr.build_psf(frame().chunk(y=100))


def test_persists(tmp_path: Path) -> None:
    psf = ztfxr.build_psf(stack())
    ztfxr.to_zarr(psf, tmp_path / "psf.zarr")
    again = ztfxr.open_zarr(tmp_path / "psf.zarr")
    xr.testing.assert_allclose(
        ztfxr.psf_at(again, 700.2, 1300.1, size=9).compute(),
        ztfxr.psf_at(psf, 700.2, 1300.1, size=9).compute(),
        rtol=1e-6,
    )


# evaluating


@pytest.fixture
def gaussian_psf() -> xr.DataArray:
    offset = np.arange(-8, 9) * 1.0
    return xr.DataArray(gaussian_pixels(offset, offset, 1.4), dims=("psf_y", "psf_x"))


def test_stamps_at_positions(gaussian_psf: xr.DataArray) -> None:
    stamps = ztfxr.psf_at(gaussian_psf, [10.0, 20.4], [5.0, 5.6], size=13)
    assert stamps.dims == ("source", "psf_y", "psf_x")
    assert stamps["x_pixel"].values.tolist() == [10.0, 20.4]
    offset = np.arange(-6, 7)
    np.testing.assert_allclose(stamps[1], gaussian_pixels(offset + 0.4, offset - 0.4, 1.4), atol=2e-4)
    scalar = ztfxr.psf_at(gaussian_psf, 20.4, 5.6, size=13)
    assert scalar.dims == ("psf_y", "psf_x")
    np.testing.assert_array_equal(scalar, stamps[1])
    assert scalar.name == "psf"


@pytest.mark.parametrize("lazy", [True, False])
def test_psf_at_follows_the_psf(gaussian_psf: xr.DataArray, lazy: bool) -> None:
    stamp = ztfxr.psf_at(gaussian_psf.chunk() if lazy else gaussian_psf, 3.0, 4.0)
    assert (stamp.chunks is not None) == lazy
    assert float(stamp.sum()) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("psf", "message"),
    [
        (xr.DataArray(np.ones((4, 5)), dims=("psf_y", "psf_x")), "of odd lengths; got {'psf_y': 4, 'psf_x': 5}"),
        (xr.DataArray(np.ones((5, 5)), dims=("y", "x")), "stamp with dimensions"),
        (xr.Dataset(), "a PSF is a Dataset of ztfxr.build_psf"),
        (np.ones((5, 5)), "got ndarray"),
    ],
)
def test_what_is_no_psf(psf: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        ztfxr.psf_at(psf, 1, 2)


def test_a_thinned_grid_is_refused() -> None:
    psf = built().isel(psf_dx=slice(None, None, 3))
    with pytest.raises(InputError, match="psf_dx must count in equal parts of a pixel"):
        ztfxr.psf_at(psf, 1, 2)


def test_bad_positions_and_sizes(gaussian_psf: xr.DataArray) -> None:
    with pytest.raises(InputError, match="size is odd; got 0 dimensions and size 4"):
        ztfxr.psf_at(gaussian_psf, 1, 2, size=4)
    with pytest.raises(InputError, match="got 2 dimensions"):
        ztfxr.psf_at(gaussian_psf, [[1.0]], [[2.0]])


# difference images


@pytest.fixture(scope="module")
def pair() -> dict[str, xr.Dataset]:
    """A science image less sharp than the reference, both differences, and a whitened one."""
    science, reference = frame(1.3, 1), frame(0.9, 2)
    out = {"science": science, "reference": reference}
    for which in ("reference", "science"):
        out[f"{which} convolved"] = ztfxr.difference(
            *((science, reference) if which == "reference" else (reference, science)),
            kernel_size=11, kernel_order=1, solve_on="stars", convolve=which,
        )  # fmt: skip
    return out


def _close(stamp: xr.DataArray, truth: NDArray[np.float64], tolerance: float) -> None:
    assert np.abs(stamp.values - truth).max() < tolerance * truth.max()


def test_psf_of_a_difference(pair: dict[str, xr.Dataset]) -> None:
    """The kernel makes the science image's PSF out of the reference's."""
    sharp, wide = (ztfxr.build_psf(pair[k]) for k in ("reference", "science"))
    diff, offset = pair["reference convolved"], np.arange(-6, 7)
    truth = gaussian_pixels(offset - 0.3, offset + 0.25, 1.3)
    for psf, of in ((wide, "science"), (sharp, "reference")):
        stamp = ztfxr.psf_at(psf, 699.75, 1200.3, size=13, difference=diff, of=of)
        _close(stamp, truth, 0.03)
        assert float(stamp.sum()) == pytest.approx(1.0, abs=0.01)


def test_psf_of_a_difference_whose_science_image_was_convolved(pair: dict[str, xr.Dataset]) -> None:
    sharp, wide = (ztfxr.build_psf(pair[k]) for k in ("reference", "science"))
    diff, offset = pair["science convolved"], np.arange(-6, 7)
    assert bool(diff["science_convolved"])
    truth = gaussian_pixels(offset - 0.3, offset + 0.25, 1.3)
    for psf, of in ((sharp, "science"), (wide, "reference")):
        _close(ztfxr.psf_at(psf, 699.75, 1200.3, size=13, difference=diff, of=of), truth, 0.03)


def test_psf_of_a_whitened_difference(pair: dict[str, xr.Dataset]) -> None:
    diff = ztfxr.decorrelate(pair["reference convolved"], size=11)
    wide = ztfxr.build_psf(pair["science"])
    stamp = ztfxr.psf_at(wide, 700.0, 1200.0, size=13, difference=diff)
    plain = ztfxr.psf_at(wide, 700.0, 1200.0, size=31)
    expected = signal.convolve(plain.values, diff["decorrelation_kernel"].values, mode="same")[9:-9, 9:-9]
    np.testing.assert_allclose(stamp, expected / diff["decorrelation_kernel"].sum().item(), atol=2e-4)


def test_what_is_no_difference(gaussian_psf: xr.DataArray) -> None:
    with pytest.raises(InputError, match=r"a difference is the Dataset that ztfxr\.difference returns"):
        ztfxr.psf_at(gaussian_psf, 1, 2, difference=frame())


@pytest.mark.slow
def test_a_dozen_stars_know_little_of_the_wings_and_do_not_invent_them() -> None:
    errors = []
    for seed in range(3):
        made = make_scene(
            (300, 300),
            n_epochs=3,
            n_stars=250,
            n_variables=0,
            n_transients=0,
            n_galaxies=0,
            options=SceneOptions(min_separation=8),
            seed=seed,
        )
        psf = ztfxr.build_psf(made.images).compute()
        bright = made.truth.isel(source=np.argsort(made.truth.mag.values)[:40])
        fits = ztfxr.forced_photometry(made.images, np.column_stack([bright.x, bright.y]), psf).compute()
        weight = (bright.flux.values / fits.flux_err) ** 2
        errors.append((fits.flux / bright.flux.values).weighted(weight).mean("source").values - 1.0)
    assert (psf.n_stars < 40).all()
    assert np.sqrt(np.mean(np.square(errors))) < 0.012
