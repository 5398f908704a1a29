"""Every method of the accessor is the public function of its name: same signature, words and results; no state."""

from __future__ import annotations

import inspect
import typing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import ztfxr
from tests.conftest import WriteFrame
from ztfxr.accessor import DataArrayAccessor, DatasetAccessor, DataTreeAccessor

ACCESSORS = {xr.DataArray: DataArrayAccessor, xr.Dataset: DatasetAccessor, xr.DataTree: DataTreeAccessor}


def methods(accessor: type) -> list[str]:
    return [n for n, v in inspect.getmembers(accessor, inspect.isfunction) if not n.startswith("_")]


METHODS = [(kind, name) for kind, accessor in ACCESSORS.items() for name in methods(accessor)]
IDS = [f"{kind.__name__}.{name}" for kind, name in METHODS]


@pytest.fixture(scope="module")
def paths(write_frame_in: WriteFrame, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("frames")
    names = [f"ztf_2020092443170{n}_000655_zr_c13_o_q3_sciimg" for n in range(2)]
    return [
        write_frame_in(folder, name=name, seed=n, cards={"OBSMJD": 59116.4 + n}, flags=np.zeros((48, 40), np.int16))
        for n, name in enumerate(names)
    ]


@pytest.fixture(scope="module")
def frame(paths: list[Path]) -> xr.Dataset:
    return ztfxr.open_quadrant(paths[0])


@pytest.fixture(scope="module")
def tree(paths: list[Path]) -> xr.DataTree:
    return ztfxr.open_epochs(paths)


# methods are functions


@pytest.mark.parametrize(("kind", "name"), METHODS, ids=IDS)
def test_method_is_the_public_function(kind: type, name: str) -> None:
    assert name in ztfxr.__all__
    function, method = getattr(ztfxr, name), getattr(ACCESSORS[kind], name)
    assert inspect.unwrap(method) is function
    assert method.__doc__ == function.__doc__
    assert method.__name__ == name
    assert method.__annotations__ == function.__annotations__
    assert "return" in method.__annotations__
    (first, *rest), (own, *parameters) = (list(inspect.signature(f).parameters.values()) for f in (function, method))
    assert parameters == rest
    assert inspect.signature(method).return_annotation == inspect.signature(function).return_annotation
    assert own.name == "self"
    assert own.kind is inspect.Parameter.POSITIONAL_ONLY
    assert first.kind in (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


@pytest.mark.parametrize(("kind", "name"), METHODS, ids=IDS)
def test_first_parameter_takes_the_object(kind: type, name: str) -> None:
    """A method is not offered on a type that its function refuses."""
    function = getattr(ztfxr, name)
    first = next(iter(inspect.signature(function).parameters))
    annotation = eval(function.__annotations__[first], inspect.getmodule(function).__dict__)
    allowed = getattr(annotation, "__constraints__", None) or typing.get_args(annotation) or (annotation,)
    assert kind in allowed


@pytest.mark.parametrize(("kind", "name"), METHODS, ids=IDS)
def test_method_passes_everything_on(kind: type, name: str) -> None:
    """The object first, then the arguments as they were given, and the result untouched."""
    seen = []

    def record(*args: Any, **kwargs: Any) -> object:
        seen.append((args, kwargs))
        return result

    result, obj = object(), kind()
    method = getattr(obj.ztf, name)
    (cell,) = [c for c in method.__func__.__closure__ if c.cell_contents is getattr(ztfxr, name)]
    original = cell.cell_contents
    cell.cell_contents = record
    try:
        assert method(1, "two", three=3, obj=4) is result
    finally:
        cell.cell_contents = original
    assert seen[0][0][0] is obj
    assert seen == [((obj, 1, "two"), {"three": 3, "obj": 4})]


@pytest.mark.parametrize("kind", ACCESSORS)
def test_registered_without_state(kind: type) -> None:
    obj = kind()
    assert type(obj.ztf) is ACCESSORS[kind]
    assert vars(obj.ztf) == {"_obj": obj}
    assert vars(obj.ztf)["_obj"] is obj
    public = [n for n in dir(obj.ztf) if not n.startswith("_")]
    assert public == sorted(methods(ACCESSORS[kind]))


def test_accessor_follows_its_object(frame: xr.Dataset) -> None:
    """xarray caches accessors by object: each new object has its own."""
    cut = frame.isel(y=slice(5, 25))
    assert frame.ztf._obj is frame
    assert cut.ztf._obj is cut
    assert cut.ztf.clean().sizes["y"] == 20
    changed = frame.copy()
    before = changed.ztf.mask().sum().compute()
    changed["flags"] = changed["flags"] | np.uint16(1)
    assert changed.ztf.mask().sum().compute() > before


# calls give equal results

CALLS: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {
    "mask": ((), {"tracks": False}),
    "background": ((), {"box_size": 24, "filter_size": 1}),
    "clean": ((), {"background": ztfxr.SkyOptions(box_size=24)}),
    "variance": ((), {"method": "photon"}),
    "stamp": ((), {"x": 3, "y": 20, "size": 9}),
    "aperture_photometry": (([(20.0, 21.5), (3.0, 4.0)],), {"radius": 3.0}),
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("kind", ["Dataset", "DataArray"])
def test_equal_results(frame: xr.Dataset, name: str, kind: str) -> None:
    obj: Any = frame if kind == "Dataset" else frame["flags" if name == "mask" else "sci"]
    args, kwargs = CALLS[name]
    xr.testing.assert_identical(getattr(obj.ztf, name)(*args, **kwargs), getattr(ztfxr, name)(obj, *args, **kwargs))


def test_equal_sky(frame: xr.Dataset) -> None:
    for obj in (frame, frame["sci"]):
        sky = obj.ztf.pixel_to_sky([3.0, 4.0], 5.0)
        assert (sky == ztfxr.pixel_to_sky(obj, [3.0, 4.0], 5.0)).all()
        np.testing.assert_array_equal(obj.ztf.sky_to_pixel(sky), ztfxr.sky_to_pixel(obj, sky))
        assert obj.ztf.get_wcs().wcs.compare(ztfxr.get_wcs(obj).wcs)
        bare = ztfxr.drop_wcs(obj)
        again = bare.ztf.assign_wcs(frame.attrs["wcs_header"])
        xr.testing.assert_identical(again, ztfxr.assign_wcs(bare, frame.attrs["wcs_header"]))


def test_equal_difference_and_light_curve(tree: xr.DataTree) -> None:
    epochs = tree.ztf.stack()
    xr.testing.assert_identical(epochs, ztfxr.stack(tree))
    reference = epochs.isel(time=0)
    options = {"kernel_size": 3, "smoothing": 0.0}
    for obj, ref in ((epochs, reference), (epochs["sci"], reference)):
        diff = obj.ztf.difference(ref, **options)
        xr.testing.assert_identical(diff.compute(), ztfxr.difference(obj, ref, **options).compute())
    curve = epochs.ztf.lightcurve([(20.0, 20.0)], reference=reference, radius=3.0, **options).compute()
    expected = ztfxr.lightcurve(epochs, [(20.0, 20.0)], reference=reference, radius=3.0, **options).compute()
    xr.testing.assert_identical(curve, expected)
    from_tree = tree.ztf.lightcurve([(20.0, 20.0)], reference=reference, radius=3.0, **options).compute()
    xr.testing.assert_identical(from_tree, expected)
    xr.testing.assert_identical(curve.ztf.calibrate_flux(), ztfxr.calibrate_flux(curve))


def test_same_errors(frame: xr.Dataset) -> None:
    with pytest.raises(ztfxr.InputError, match="give the position"):
        frame.ztf.stamp(x=3)
    with pytest.raises(TypeError, match="unexpected keyword argument 'widht'"):
        frame.ztf.stamp(x=3, y=3, widht=3)
