"""A pair gathered once: each image asked for once, noise by one policy, units, labels and the options of the kernel."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import xarray as xr

import ztfxr
from tests.dia.test_difference import pair
from ztfxr.dia.kernel_frame import KernelFrame
from ztfxr.ops.exposure import gather
from ztfxr.schema import STATUS_PLANES, planes_to_bits


@pytest.fixture
def gathered(monkeypatch: pytest.MonkeyPatch) -> list[str | None]:
    """The names under which images are gathered, wherever in ztfxr."""
    names: list[str | None] = []

    def counting(obj: Any, *, name: str | None = None, **options: Any) -> Any:
        names.append(name)
        return gather(obj, name=name, **options)

    for module in [m for n, m in sys.modules.items() if n.startswith("ztfxr.")]:
        if getattr(module, "gather", None) is gather:
            monkeypatch.setattr(module, "gather", counting)
    return names


def unlabeled_noise(seed: int = 1, epochs: int = 3) -> tuple[xr.Dataset, xr.Dataset]:
    """A stack and its reference whose noise nobody states."""
    science, reference = pair(seed, epochs=epochs)
    return science.drop_vars("variance"), reference.drop_vars("variance")


def in_one(science: xr.Dataset, reference: xr.Dataset) -> xr.Dataset:
    """A Dataset that holds its own reference, as one of alerts does."""
    return science.assign(reference=reference["sci"], reference_variance=reference["variance"])


@pytest.mark.parametrize(
    ("call", "names"),
    [
        (lambda s, r: ztfxr.difference(s, r, kernel_size=3), ["sci", "sci"]),
        (lambda s, r: ztfxr.difference(in_one(s, r), kernel_size=3), ["sci", "reference"]),
        (lambda s, r: ztfxr.difference(s.sci.assign_coords(gain=2.0), r.sci, kernel_size=3), ["sci", "sci"]),
        (lambda s, r: ztfxr.solve_kernel(s.isel(time=0), r, kernel_size=3), ["sci", "sci"]),
        (lambda s, r: ztfxr.zogy(s, r, scale=1.0, psf=9), ["sci", "sci"]),
    ],
)
def test_each_image_of_a_pair_is_gathered_once(gathered: list[str | None], call: Callable, names: list[str]) -> None:
    call(*pair(1, epochs=2))
    assert gathered == names


@pytest.mark.parametrize("call", [ztfxr.decorrelate, ztfxr.difference_quality])
def test_a_difference_is_gathered_once(gathered: list[str | None], call: Callable) -> None:
    diff = ztfxr.difference(*pair(1, epochs=2), kernel_size=3)
    gathered.clear()
    call(diff)
    assert gathered == ["difference"]


@pytest.mark.parametrize("unknown", [np.nan, 0.0, -1.0])
def test_the_noise_of_an_epoch_without_a_gain_is_measured(unknown: float) -> None:
    science, reference = unlabeled_noise()
    measured = ztfxr.difference(science, reference, kernel_size=3)
    some = ztfxr.difference(science.assign_coords(gain=("time", [2.0, unknown, 2.0])), reference, kernel_size=3)
    none = ztfxr.difference(science.assign_coords(gain=("time", [unknown] * 3)), reference, kernel_size=3)
    assert some.epoch_status.values.tolist() == [0, 0, 0]
    for name in ("difference", "difference_variance", "kernel_sum"):
        np.testing.assert_array_equal(some[name][1], measured[name][1])
        np.testing.assert_array_equal(none[name], measured[name])
    assert not np.allclose(some["difference_variance"][0], measured["difference_variance"][0])
    np.testing.assert_allclose(measured["noise_ratio"], 1.0, atol=0.1)


def test_the_gain_of_a_reference_is_its_own() -> None:
    """One image with one gain, and a reference of another, by the noise model of each."""
    science, reference = unlabeled_noise(epochs=1)
    one, known = science.isel(time=0).assign_coords(gain=3.0), reference.assign_coords(gain=50.0)
    noise = {"variance": ztfxr.variance(one), "reference_variance": ztfxr.variance(known)}
    found = ztfxr.difference(one, known, kernel_size=3)
    stated = ztfxr.difference(one, known, kernel_size=3, **noise)
    np.testing.assert_array_equal(found["difference"], stated["difference"])


def test_proper_subtraction_measures_the_noise_of_an_epoch_without_a_gain() -> None:
    science, reference = pair(1)
    lost = science.assign(variance=science["variance"].where(science["time"] != science["time"][1]))
    psf = xr.DataArray(np.outer([0.2, 0.6, 0.2], [0.2, 0.6, 0.2]), dims=("psf_y", "psf_x"))
    options = {"psf": psf, "reference_psf": psf, "scale": 1.0, "background": False}
    found = ztfxr.zogy(lost, reference, **options)
    measured = ztfxr.zogy(science.drop_vars("variance"), reference, **options)
    assert found["epoch_status"].values.tolist() == [0, 0, 0]
    np.testing.assert_array_equal(found["zogy_score"][1], measured["zogy_score"][1])


def test_results_are_in_the_unit_of_the_science_image() -> None:
    science, reference = pair(1, epochs=1)
    science["sci"].attrs["units"] = "electron"
    diff = ztfxr.difference(science, reference, kernel_size=3)
    assert diff["difference"].attrs["units"] == "electron"
    assert diff["difference_variance"].attrs["units"] == "electron2"
    assert diff["background_coeff"].attrs["units"] == "electron"
    assert ztfxr.decorrelate(diff)["difference"].attrs["units"] == "electron"
    assert ztfxr.solve_kernel(science.isel(time=0), reference, kernel_size=3)["background_coeff"].units == "electron"
    assert ztfxr.zogy(science, reference, scale=1.0, psf=9)["zogy_flux"].attrs["units"] == "electron"


def test_a_status_that_an_epoch_had_stays() -> None:
    science, reference = pair(1)
    before = xr.DataArray(np.array([0, 1 << 14, 0], np.uint32), dims="time")
    lost = science.assign(sci=science["sci"].where(science["time"] != science["time"][2]))
    for given in (lost.assign_coords(epoch_status=before), lost.assign(epoch_status=before)):
        diff = ztfxr.difference(given, reference, kernel_size=3)
        assert diff["epoch_status"].values.tolist() == [0, 1 << 14, 1 << 8]
        assert ztfxr.decorrelate(diff)["epoch_status"].values.tolist() == [0, 1 << 14, 1 << 8]


@pytest.mark.parametrize("names", [("ztfr", "zr"), ("R", "R"), ("", "ztfg"), ("ZTF_r", "r"), (None, "ztfg")])
def test_names_of_one_filter_or_of_none_go_together(names: tuple[str | None, str]) -> None:
    science, reference = pair(1, epochs=1)
    if names[0] is not None:
        science = science.assign_coords(filter=names[0])
    diff = ztfxr.difference(science, reference.assign_coords(filter=names[1]), kernel_size=3)
    assert diff["epoch_status"].values.tolist() == [0]


DIFFERENCES = [
    lambda s, r: ztfxr.difference(s, r, kernel_size=3),
    lambda s, r: ztfxr.zogy(s, r, scale=1.0, psf=9),
    lambda s, r: ztfxr.lightcurve(s, [(20.0, 20.0)], reference=r, kernel_size=3),
]


@pytest.mark.parametrize("call", [*DIFFERENCES, lambda s, r: ztfxr.solve_kernel(s.isel(time=0), r)])
def test_an_image_of_another_filter_than_the_reference_is_refused(call: Callable) -> None:
    science, reference = pair(1, epochs=1)
    with pytest.raises(ztfxr.InputError, match="filter 'ztfg', its reference of 'zr'"):
        call(science.assign_coords(filter="ztfg"), reference.assign_coords(filter="zr"))


@pytest.mark.parametrize("call", DIFFERENCES)
@pytest.mark.parametrize("lazy", [False, True])
def test_an_epoch_of_another_filter_has_a_status_and_changes_no_other(call: Callable, lazy: bool) -> None:
    science, reference = pair(1, epochs=3)
    alone = call(science, reference)
    labels = {"filter": ("time", ["ztfr", "ztfg", "r"]), "message": ("time", [""] * 3)}
    mixed = science.assign_coords(labels)
    found = call(mixed.chunk(time=1) if lazy else mixed, reference.assign_coords(filter="zr")).compute()
    assert (found["epoch_status"].values & planes_to_bits(["other_filter"], STATUS_PLANES) > 0).tolist() == [0, 1, 0]
    name = next(n for n in ("difference", "zogy_difference", "flux") if n in found)
    assert np.isnan(found[name][1]).all()
    np.testing.assert_array_equal(found[name][[0, 2]], alone[name].compute()[[0, 2]])
    if not lazy:
        assert found["message"].values.tolist() == ["", "the image is of filter 'ztfg', its reference of 'zr'", ""]


def test_a_mask_of_false_masks_nothing() -> None:
    science, reference = pair(1, epochs=1)
    science["flags"][0, 20:24, 30:34] = 1 << 4
    masked, whole = (ztfxr.difference(science, reference, kernel_size=3, mask=m) for m in (None, False))
    assert int(masked["mask"].sum() - whole["mask"].sum()) == 16


def test_an_option_that_does_not_exist_is_named() -> None:
    science, reference = pair(1, epochs=1)
    with pytest.raises(ztfxr.InputError, match=r"no option kernl_size; its options are kernel_size, kernel_order"):
        ztfxr.solve_kernel(science.isel(time=0), reference, kernl_size=5)
    with pytest.raises(ztfxr.InputError, match=r"basis is one of 'delta', 'gaussian'; got 'splines'"):
        ztfxr.difference(science, reference, basis="splines")


def test_the_frame_is_read_where_it_is_written() -> None:
    science, reference = pair(1, epochs=1)
    moved = [d.assign_coords(y=d["y"] + 100, x=d["x"] + 40) for d in (science, reference)]
    diff = ztfxr.difference(*moved, kernel_size=3)
    frame = KernelFrame.of(diff)
    assert frame == KernelFrame(100, 40, 58, 66)
    assert KernelFrame.of(diff.isel(y=slice(5, 20), x=slice(7, 9))) == frame
    assert KernelFrame.of(ztfxr.solve_kernel(moved[0].isel(time=0), moved[1], kernel_size=3)) == frame
    assert KernelFrame.of(xr.Dataset(attrs=frame.attrs())) == frame
    bare = diff.isel(y=slice(5, 20))
    bare.attrs = {}
    assert KernelFrame.of(bare) == KernelFrame(105, 40, 15, 66)
    with pytest.raises(ztfxr.InputError, match="the attribute 'frame' is missing"):
        KernelFrame.of(xr.Dataset())
    np.testing.assert_allclose(
        frame.terms(np.array([100.0, 157.0]), np.array([40.0, 105.0]), 3), [[1, -1, -1], [1, 1, 1]]
    )
