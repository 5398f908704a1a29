import datetime as dt
import os
from pathlib import Path

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr
import zarr
from astropy.io import fits

from ztfxr.errors import InputError, StoreError
from ztfxr.store.zarr import open_zarr, to_zarr
from ztfxr.wcs import assign_wcs, get_wcs, has_wcs, pixel_to_sky, wcs_cards

SHARED = Path(os.environ.get("ZTFXR_SHARED", Path(__file__).parents[2] / ".." / "shared"))
EPOCHS, NY, NX = 3, 300, 520


def refuse(dsk, keys, **kwargs):
    raise AssertionError("a lazy operation computed")


def cards(crval1: float = 55.1, crval2: float = 33.4) -> str:
    header = fits.Header()
    header.update(
        CTYPE1="RA---TAN", CTYPE2="DEC--TAN", CUNIT1="deg", CUNIT2="deg", RADESYS="ICRS",
        CRPIX1=260.5, CRPIX2=150.5, CRVAL1=crval1, CRVAL2=crval2,
        CD1_1=-2.8e-4, CD1_2=1e-6, CD2_1=2e-6, CD2_2=2.8e-4,
    )  # fmt: skip
    found = wcs_cards(header)
    assert found is not None
    return found


@pytest.fixture
def stack() -> xr.Dataset:
    """A time stack of all the dtypes that ztfxr uses, with its sky labels."""
    rng = np.random.default_rng(7)
    shape, dims = (EPOCHS, NY, NX), ("time", "y", "x")
    sci = rng.normal(100.0, 5.0, shape).astype(np.float32)
    sci[0, 10:20, 30:40] = np.nan
    times = np.array(
        ["2020-09-24T10:21:57.123456789", "2020-09-25T00:00:00.000000001", "2021-01-01T00:00:00"], "M8[ns]"
    )
    flags = rng.integers(0, 2**16, shape, dtype=np.uint16)
    ds = xr.Dataset(
        {
            "sci": (dims, sci, {"units": "DN"}),
            "flags": (dims, flags, {"flag_masks": [1, 2, 4], "flag_meanings": "tracks sexsources noisy"}),
            "mask": (dims, flags > 60000),
            "flux": (("time", "source"), rng.normal(size=(EPOCHS, 5))),
            "kernel": (("time", "ky", "kx"), rng.normal(size=(EPOCHS, 7, 7))),
            "status": (("time", "source"), rng.integers(0, 9, (EPOCHS, 5), dtype=np.uint16)),
        },
        coords={
            "time": times,
            "start": ("time", times - np.timedelta64(15, "s")),
            "exptime": ("time", np.array([30.0, 30.0, 60.0]), {"units": "s"}),
            "filter": ("time", np.array(["ztfg", "ztfr", "ztfi"])),
            "note": "naïve",
            "name": ("source", np.array(["a", "bb", "", "dddd", "é"], dtype=object)),
            "y": np.arange(NY),
            "x": np.arange(NX),
        },
        attrs={"object": "ZTF21", "count": 3, "list": [1, 2], "words": ["a", "b"], "scale": 0.5, "good": True},
    )
    return assign_wcs(ds, cards())


def chunked(ds: xr.Dataset) -> xr.Dataset:
    """Chunks that agree with nothing on disk: two epochs in one, frames cut in unequal parts."""
    return ds.chunk({"time": 2, "y": 70, "x": 333})


def siblings(folder: Path) -> set[str]:
    return {p.name for p in folder.iterdir()}


@pytest.mark.parametrize("lazy", [False, True])
def test_round_trip_is_identical(stack, tmp_path, lazy):
    original = stack.copy(deep=True)
    to_zarr(chunked(stack) if lazy else stack, tmp_path / "s.zarr")
    back = open_zarr(tmp_path / "s.zarr")
    assert isinstance(back, xr.Dataset)
    xr.testing.assert_identical(back, stack)
    assert {n: v.dtype for n, v in back.variables.items()} == {n: v.dtype for n, v in stack.variables.items()}
    assert list(back.data_vars) == list(stack.data_vars)
    assert [n for n in back.coords if n not in ("ra", "dec")] == [n for n in stack.coords if n not in ("ra", "dec")]
    xr.testing.assert_identical(stack, original)
    assert siblings(tmp_path) == {"s.zarr"}


@pytest.mark.parametrize(
    "values",
    [
        np.array(["2020-01-01T00:00:00.123456789", "NaT"], "M8[ns]"),
        np.array(["2020-01-01T00:00:00.123456", "NaT"], "M8[us]"),
        np.array(["1880-01-01", "2030-01-01T00:00:01"], "M8[s]"),
        np.array([1, -(2**60) - 1, 0], "m8[ns]"),
        np.array([1, 90], "m8[s]"),
        np.array(["ztfg", "é"]),
        np.array(["a", ""], dtype=object),
        np.array([b"t", b"false"]),
        np.array(["a", "long text"], dtype=np.dtypes.StringDType()),
        np.array([], dtype="<U4"),
        np.array([1 + 2j, 0], dtype=np.complex64),
        np.array([np.inf, np.nan, -0.0]),
        np.array([2**63 - 1, -(2**63)]),
        np.array([True, False]),
        np.array([0, 255], dtype=np.uint8),
        np.array([], dtype=np.float32),
    ],
    ids=lambda v: f"{v.dtype.str}-{v.size}",
)
@pytest.mark.parametrize("kind", ["variable", "dask", "coordinate", "index", "scalar"])
def test_values_and_dtype_survive(values, kind, tmp_path):
    if kind == "index" and values.dtype.kind in "ScT":
        pytest.skip("pandas turns this dtype into another before it is written")
    if kind == "scalar" and values.size == 0:
        pytest.skip("an empty array has no scalar")
    data = values[:1].reshape(()) if kind == "scalar" else values
    dims = () if kind == "scalar" else ("t",)
    name = "t" if kind == "index" else "v"
    ds = xr.Dataset({"v": (dims, data)}) if kind != "index" else xr.Dataset(coords={"t": data})
    ds = ds.chunk({"t": 1}) if kind == "dask" and values.size else ds
    ds = ds.set_coords("v") if kind == "coordinate" else ds
    to_zarr(ds, tmp_path / "s.zarr")
    back = open_zarr(tmp_path / "s.zarr")
    xr.testing.assert_identical(back, ds)
    assert back[name].dtype == ds[name].dtype
    assert (name in back.xindexes) == (name in ds.xindexes)


def test_units_that_look_like_time_stay_numbers(tmp_path):
    ds = xr.Dataset({"age": ("t", [1.5, 2.0], {"units": "days"}), "n": ("t", [1, 2], {"units": "seconds"})})
    to_zarr(ds, tmp_path / "s.zarr")
    xr.testing.assert_identical(open_zarr(tmp_path / "s.zarr"), ds)


def test_attributes_become_plain(tmp_path):
    ds = xr.Dataset({"a": ("t", [1.0], {"mask": np.uint16(4)})})
    ds.attrs = {
        "n": np.int64(3), "f": np.float32(0.5), "b": np.bool_(True), "array": np.array([[1, 2]]), "pair": (1, "a"),
        "deep": {"k": [np.float64(1.5)]}, "none": None, "when": np.datetime64("2020-01-01", "D"),
        "day": dt.date(2020, 1, 2), "path": Path("a/b"), "times": np.array(["2020-01-01"], "M8[D]"),
    }  # fmt: skip
    to_zarr(ds, tmp_path / "s.zarr")
    back = open_zarr(tmp_path / "s.zarr")
    assert back.attrs == {
        "n": 3, "f": 0.5, "b": True, "array": [[1, 2]], "pair": [1, "a"], "deep": {"k": [1.5]}, "none": None,
        "when": "2020-01-01", "day": "2020-01-02", "path": "a/b", "times": ["2020-01-01"],
    }  # fmt: skip
    assert type(back.attrs["n"]) is int
    assert type(back.attrs["b"]) is bool
    assert back.a.attrs == {"mask": 4}


def test_attribute_without_json_form(tmp_path):
    with pytest.raises(StoreError, match="attribute 'bad' of the object is of type object"):
        to_zarr(xr.Dataset(attrs={"bad": object()}), tmp_path / "s.zarr")
    assert siblings(tmp_path) == set()


def test_objects_that_are_not_text(tmp_path):
    ds = xr.Dataset({"odd": ("t", np.array(["a", None], dtype=object))})
    with pytest.raises(StoreError, match="'odd' holds Python objects that are not text"):
        to_zarr(ds, tmp_path / "s.zarr")


# ---- the sky


def test_no_sky_planes_on_disk(stack, tmp_path):
    to_zarr(stack, tmp_path / "s.zarr")
    names = siblings(tmp_path / "s.zarr")
    assert not {"ra", "dec"} & names
    assert "sci" in names


@pytest.mark.parametrize(
    "window",
    [
        {},
        {"y": slice(17, 200), "x": slice(100, 101)},
        {"y": slice(299, 300)},
        {"time": 1, "y": slice(3, 9)},
        {"y": slice(5, 5)},
    ],
)
@pytest.mark.parametrize("labeled", [True, False])
def test_wcs_of_slices(stack, tmp_path, window, labeled):
    cut = stack.isel(window)
    cut = cut if labeled else cut.drop_vars(["x", "y"])
    to_zarr(cut, tmp_path / "s.zarr")
    back = open_zarr(tmp_path / "s.zarr")
    xr.testing.assert_identical(back, cut)
    assert back.xindexes["ra"].equals(cut.xindexes["ra"])
    truth, found = (pixel_to_sky(o, [0.0, 311.5], [0.0, 20.25]) for o in (stack, back))
    assert truth.separation(found).arcsec.max() == 0.0
    assert get_wcs(back).wcs.compare(get_wcs(stack).wcs)


def test_window_at_negative_pixels(stack, tmp_path):
    frame = stack.isel(y=slice(0, 40), x=slice(0, 50)).drop_vars(["ra", "dec"])
    stamp = assign_wcs(frame.assign_coords(x=np.arange(50) - 7, y=np.arange(40) - 20), cards())
    for name, obj in {"labeled": stamp, "bare": stamp.drop_vars(["x", "y"])}.items():
        to_zarr(obj, tmp_path / name)
        back = open_zarr(tmp_path / name)
        assert back.xindexes["ra"].transform.window.start == (-20, -7)
        xr.testing.assert_identical(back, obj)


def test_pixel_labels_that_are_not_the_window(stack, tmp_path):
    offsets = stack.isel(x=slice(10, 20)).assign_coords(x=np.arange(10) - 5)
    to_zarr(offsets, tmp_path / "s.zarr")
    back = open_zarr(tmp_path / "s.zarr")
    xr.testing.assert_identical(back, offsets)
    assert back.xindexes["ra"].transform.window.start == (0, 10)


def test_wcs_survives_lost_attributes(stack, tmp_path):
    bare = stack.copy()
    bare.attrs = {}
    to_zarr(bare, tmp_path / "s.zarr")
    back = open_zarr(tmp_path / "s.zarr")
    assert back.attrs == {"wcs_header": cards()}
    xr.testing.assert_identical(back.drop_attrs(deep=False), bare.drop_attrs(deep=False))
    assert back.xindexes["ra"].equals(stack.xindexes["ra"])


def test_labels_without_index_stay_plain(stack, tmp_path):
    thinned = stack.isel(x=slice(0, 40, 2), y=slice(0, 4))
    sources = xr.Dataset({"mag": ("source", [18.0])}, {"ra": ("source", [55.0]), "dec": ("source", [33.0])})
    for name, obj in {"thinned": thinned, "sources": sources}.items():
        assert not has_wcs(obj)
        to_zarr(obj, tmp_path / name)
        back = open_zarr(tmp_path / name)
        assert not has_wcs(back)
        xr.testing.assert_identical(back, obj)


def test_store_cut_by_another_tool(stack, tmp_path):
    for name, obj in {"labeled": stack, "bare": stack.drop_vars(["x", "y"])}.items():
        to_zarr(obj[["kernel", "mask"]].drop_vars(["filter", "note"]), tmp_path / name)
        plain = xr.open_zarr(tmp_path / name, consolidated=False, chunks=None).drop_encoding()
        cut = plain.isel(x=slice(100, 120))
        cut.to_zarr(tmp_path / f"{name}-cut", zarr_format=3, consolidated=False)
    right = open_zarr(tmp_path / "labeled-cut")
    assert right.xindexes["ra"].equals(stack.isel(x=slice(100, 120)).xindexes["ra"])
    with pytest.raises(StoreError, match="does not fit the pixels"):
        open_zarr(tmp_path / "bare-cut")


# ---- laziness and layout


def test_opening_computes_nothing(stack, tmp_path):
    to_zarr(xr.DataTree.from_dict({"a": stack, "b": stack.isel(time=0)}), tmp_path / "t.zarr")
    with dask.config.set(scheduler=refuse):
        back = open_zarr(tmp_path / "t.zarr")
        node = back["a"].to_dataset()
        assert all(v.chunks is not None for v in node.data_vars.values())
        difference = node.sci.isel(time=0) - back["b"].sci
        assert has_wcs(difference)
        with pytest.raises(AssertionError, match="computed"):
            difference.compute()
    assert float(difference.sum()) == 0.0


def test_opening_does_not_touch_the_pixels(stack, tmp_path):
    to_zarr(stack, tmp_path / "s.zarr")
    for shard in (tmp_path / "s.zarr" / "sci" / "c").rglob("*"):
        if shard.is_file():
            shard.write_bytes(b"not a shard")
    back = open_zarr(tmp_path / "s.zarr")
    xr.testing.assert_identical(back.flags, stack.flags)
    with pytest.raises(ValueError, match=r".*"):
        back.sci.compute()


def test_one_shard_per_epoch(stack, tmp_path):
    to_zarr(chunked(stack), tmp_path / "s.zarr")
    group = zarr.open_group(tmp_path / "s.zarr", mode="r")
    assert group["sci"].metadata.zarr_format == 3
    assert group["sci"].chunks == (1, 150, 174)
    assert group["sci"].shards == (1, 300, 522)
    assert group["flux"].chunks == (EPOCHS, 5)
    files = [p for p in (tmp_path / "s.zarr" / "sci" / "c").rglob("*") if p.is_file()]
    assert len(files) == EPOCHS


def test_large_tables_are_split(tmp_path):
    ds = xr.Dataset({"flux": (("time", "source"), da.ones((3000, 2000), chunks=(1, 2000)))})
    to_zarr(ds, tmp_path / "s.zarr")
    assert zarr.open_group(tmp_path / "s.zarr", mode="r")["flux"].chunks == (1500, 1000)
    assert bool((open_zarr(tmp_path / "s.zarr").flux == 1).all())


def test_dask_chunks(stack, tmp_path):
    to_zarr(stack, tmp_path / "s.zarr")
    back = open_zarr(tmp_path / "s.zarr")
    assert back.sci.chunks == ((1,) * EPOCHS, (NY,), (NX,))
    assert back.flux.chunks == ((EPOCHS,), (5,))
    assert back.exptime.chunks is None
    assert open_zarr(tmp_path / "s.zarr", chunks={"time": 2}).sci.chunks == ((2, 1), (NY,), (NX,))
    xr.testing.assert_identical(open_zarr(tmp_path / "s.zarr", chunks="auto"), stack)


def test_dask_names_tell_stores_apart(stack, tmp_path):
    def names():
        tree = open_zarr(tmp_path / "t.zarr")
        return [tree[n].sci.data.name for n in ("a", "b")]

    to_zarr(xr.DataTree.from_dict({"a": stack, "b": stack}), tmp_path / "t.zarr")
    first = names()
    assert first == names()
    assert first[0] != first[1]
    to_zarr(xr.DataTree.from_dict({"a": stack, "b": stack}), tmp_path / "t.zarr", overwrite=True)
    assert not set(first) & set(names())


# ---- trees


def test_epochs_keep_their_order(tmp_path):
    names = [f"epoch{i}" for i in (5, 3, 8, 1, 9, 2)]
    tree = xr.DataTree.from_dict({n: xr.Dataset({"a": i}) for i, n in enumerate(names)})
    to_zarr(tree, tmp_path / "t.zarr")
    xr.Dataset({"a": 6}).to_zarr(tmp_path / "t.zarr", group="added", zarr_format=3, consolidated=False)
    assert list(open_zarr(tmp_path / "t.zarr").children) == [*names, "added"]


def test_tree_round_trip(stack, tmp_path):
    tree = xr.DataTree.from_dict(
        {
            "/": xr.Dataset(attrs={"object": "ZTF21"}),
            "frames/one": stack.isel(time=0, y=slice(5, 30)),
            "frames/two": assign_wcs(stack.isel(time=1), cards(80.0, -10.0)),
            "failed": xr.Dataset(attrs={"status": np.uint32(4), "message": "the file ends early"}),
        },
        name="night",
    )
    to_zarr(tree, tmp_path / "t.zarr")
    back = open_zarr(tmp_path / "t.zarr")
    assert isinstance(back, xr.DataTree)
    assert back.identical(tree)
    for path in ("frames/one", "frames/two"):
        assert back[path].to_dataset().xindexes["ra"].equals(tree[path].to_dataset().xindexes["ra"])


def test_inherited_sky_is_kept_once(stack, tmp_path):
    tree = xr.DataTree.from_dict({"/": stack[["sci"]], "child": stack[["flags"]]})
    to_zarr(tree, tmp_path / "t.zarr")
    back = open_zarr(tmp_path / "t.zarr")
    xr.testing.assert_identical(back, tree)
    assert has_wcs(back["child"].to_dataset())
    to_zarr(tree["child"], tmp_path / "branch.zarr")
    branch = open_zarr(tmp_path / "branch.zarr")
    assert branch.name == "child"
    xr.testing.assert_identical(branch.to_dataset().flags, tree["child"].to_dataset().flags)


def test_tree_of_one_node_stays_a_tree(stack, tmp_path):
    to_zarr(xr.DataTree(stack), tmp_path / "t.zarr")
    back = open_zarr(tmp_path / "t.zarr")
    assert isinstance(back, xr.DataTree)
    xr.testing.assert_identical(back, xr.DataTree(stack))


def test_data_array(stack, tmp_path):
    to_zarr(stack.sci, tmp_path / "s.zarr")
    xr.testing.assert_identical(open_zarr(tmp_path / "s.zarr").sci, stack.sci)
    with pytest.raises(InputError, match="no name"):
        to_zarr(stack.sci.rename(None), tmp_path / "u.zarr")
    with pytest.raises(InputError, match="got ndarray"):
        to_zarr(stack.sci.values, tmp_path / "u.zarr")
    assert siblings(tmp_path) == {"s.zarr"}


# ---- whole or not at all


def failing(stack: xr.Dataset) -> xr.Dataset:
    def explode(block, block_id):
        if block_id[0] == EPOCHS - 1:
            raise RuntimeError("cosmic ray")
        return block

    data = da.from_array(stack.sci.values, chunks=(1, NY, NX)).map_blocks(explode, dtype=np.float32)
    return stack.assign(sci=(stack.sci.dims, data))


@pytest.mark.parametrize("overwrite", [False, True])
def test_failing_task_leaves_nothing_behind(stack, tmp_path, overwrite):
    if overwrite:
        to_zarr(stack, tmp_path / "s.zarr")
    with pytest.raises(RuntimeError, match="cosmic ray"):
        to_zarr(failing(stack), tmp_path / "s.zarr", overwrite=overwrite)
    assert siblings(tmp_path) == ({"s.zarr"} if overwrite else set())
    if overwrite:
        xr.testing.assert_identical(open_zarr(tmp_path / "s.zarr"), stack)


def test_interrupt_leaves_nothing_behind(stack, tmp_path, monkeypatch):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("ztfxr.store.zarr.compute", interrupt)
    with pytest.raises(KeyboardInterrupt):
        to_zarr(chunked(stack), tmp_path / "s.zarr")
    assert siblings(tmp_path) == set()


def test_failing_rename_puts_the_old_store_back(stack, tmp_path, monkeypatch):
    to_zarr(stack, tmp_path / "s.zarr")
    rename = Path.rename

    def fail(self, target):
        if ".partial-" in self.name:
            raise OSError(5, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(StoreError, match="cannot move the new store"):
        to_zarr(stack.isel(time=0), tmp_path / "s.zarr", overwrite=True)
    assert siblings(tmp_path) == {"s.zarr"}
    xr.testing.assert_identical(open_zarr(tmp_path / "s.zarr"), stack)


def test_existing_store(stack, tmp_path):
    to_zarr(stack, tmp_path / "s.zarr")
    with pytest.raises(StoreError, match=r"exists already.*overwrite=True"):
        to_zarr(stack.isel(time=0), tmp_path / "s.zarr")
    xr.testing.assert_identical(open_zarr(tmp_path / "s.zarr"), stack)
    to_zarr(stack[["flux"]].drop_attrs(), tmp_path / "s.zarr", overwrite=True)
    assert list(open_zarr(tmp_path / "s.zarr").data_vars) == ["flux"]
    assert siblings(tmp_path) == {"s.zarr"}


def test_store_that_appears_while_writing(stack, tmp_path, monkeypatch):
    def rival(*args, **kwargs):
        (tmp_path / "s.zarr").mkdir()

    monkeypatch.setattr("ztfxr.store.zarr.compute", rival)
    with pytest.raises(StoreError, match="exists already"):
        to_zarr(stack, tmp_path / "s.zarr")
    assert siblings(tmp_path) == {"s.zarr"}
    assert siblings(tmp_path / "s.zarr") == set()


def test_overwrite_the_store_one_reads_from(stack, tmp_path):
    to_zarr(stack, tmp_path / "s.zarr")
    lazy = open_zarr(tmp_path / "s.zarr").isel(time=slice(1, None), y=slice(20, 100))
    to_zarr(lazy, tmp_path / "s.zarr", overwrite=True)
    xr.testing.assert_identical(open_zarr(tmp_path / "s.zarr"), stack.isel(time=slice(1, None), y=slice(20, 100)))


def test_overwrite_through_a_link(stack, tmp_path):
    to_zarr(stack, tmp_path / "real.zarr")
    (tmp_path / "link.zarr").symlink_to(tmp_path / "real.zarr")
    to_zarr(stack.isel(time=0), tmp_path / "link.zarr", overwrite=True)
    assert (tmp_path / "link.zarr").is_symlink()
    xr.testing.assert_identical(open_zarr(tmp_path / "real.zarr"), stack.isel(time=0))


def test_overwrite_never_removes_other_things(stack, tmp_path):
    (tmp_path / "frames").mkdir()
    (tmp_path / "frames" / "a.fits").write_text("pixels")
    (tmp_path / "file").write_text("text")
    for name in ("frames", "file"):
        with pytest.raises(StoreError, match="is no zarr store, so overwrite=True does not replace it"):
            to_zarr(stack, tmp_path / name, overwrite=True)
    assert (tmp_path / "frames" / "a.fits").read_text() == "pixels"
    (tmp_path / "empty").mkdir()
    to_zarr(stack, tmp_path / "empty", overwrite=True)
    xr.testing.assert_identical(open_zarr(tmp_path / "empty"), stack)


def test_no_place_to_write(stack, tmp_path):
    with pytest.raises(StoreError, match=r"folder .*missing does not exist; create it first"):
        to_zarr(stack, tmp_path / "missing" / "s.zarr")
    (tmp_path / "file").write_text("text")
    with pytest.raises(StoreError, match=r"no folder can be made in .*file"):
        to_zarr(stack, tmp_path / "file" / "s.zarr")
    assert siblings(tmp_path) == {"file"}


def test_folder_without_permission(stack, tmp_path, monkeypatch):
    def deny(self, *args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", deny)
    with pytest.raises(StoreError, match=r"Permission denied.*can write to"):
        to_zarr(stack, tmp_path / "s.zarr")


# ---- stores that cannot be opened


def test_nothing_to_open(tmp_path):
    with pytest.raises(StoreError, match=r"no\.zarr: nothing is there"):
        open_zarr(tmp_path / "no.zarr")
    (tmp_path / "file").write_text("text")
    (tmp_path / "folder").mkdir()
    for name in ("file", "folder"):
        with pytest.raises(StoreError, match=f"{name} is no zarr store"):
            open_zarr(tmp_path / name)
    (tmp_path / "folder" / "zarr.json").write_text("<html>")
    with pytest.raises(StoreError, match="cannot be read as a zarr store"):
        open_zarr(tmp_path / "folder")


@pytest.mark.parametrize(("found", "words"), [(2, "formats up to 1: update ztfxr"), ("new", "does not exist")])
def test_store_of_another_format(stack, tmp_path, found, words):
    to_zarr(stack, tmp_path / "s.zarr")
    zarr.open_group(tmp_path / "s.zarr", mode="r+").attrs["ztfxr_store"] = found
    with pytest.raises(StoreError, match=words):
        open_zarr(tmp_path / "s.zarr")


def test_root_says_who_wrote_it(stack, tmp_path):
    to_zarr(stack, tmp_path / "s.zarr")
    attrs = dict(zarr.open_group(tmp_path / "s.zarr", mode="r").attrs)
    assert attrs["ztfxr_store"] == 1
    assert attrs["ztfxr_version"]
    assert attrs["wcs_header"] == cards()


def test_other_zarr_stores_open(tmp_path):
    ds = xr.Dataset({"a": (("y", "x"), np.ones((4, 5)))}, {"x": np.arange(5)})
    for version in (2, 3):
        ds.to_zarr(tmp_path / f"v{version}", zarr_format=version, consolidated=False)
        xr.testing.assert_identical(open_zarr(tmp_path / f"v{version}"), ds)


def test_plain_xarray_reads_the_store(stack, tmp_path):
    to_zarr(stack, tmp_path / "s.zarr")
    plain = xr.open_zarr(tmp_path / "s.zarr", consolidated=False, chunks=None)
    np.testing.assert_array_equal(plain.sci.values, stack.sci.values)
    np.testing.assert_array_equal(plain.time.values, stack.time.values)
    assert list(plain["filter"].values) == ["ztfg", "ztfr", "ztfi"]


def test_url(stack):
    pytest.importorskip("fsspec")
    store = "memory://ztfxr-test/s.zarr"
    to_zarr(stack, store, overwrite=True)
    xr.testing.assert_identical(open_zarr(store), stack)
    with pytest.raises(StoreError, match="exists already"):
        to_zarr(stack, store)
    with pytest.raises(StoreError, match="cannot be read"):
        open_zarr("memory://ztfxr-test/none")


# ---- real data


def test_alerts_round_trip(tmp_path):
    folder = SHARED / "data" / "ztf_alerts"
    if not folder.is_dir():
        pytest.skip(f"real alert packets are not at {folder}; set ZTFXR_SHARED")
    pytest.importorskip("fastavro")
    from ztfxr.io.alerts import open_alerts

    tree = open_alerts(folder)
    to_zarr(tree, tmp_path / "alerts.zarr")
    back = open_zarr(tmp_path / "alerts.zarr")
    xr.testing.assert_identical(back, tree)
    for name in ("ztfg", "ztfr"):
        now, then = (t[name].to_dataset() for t in (back, tree))
        assert {k: v.dtype for k, v in now.variables.items()} == {k: v.dtype for k, v in then.variables.items()}


def test_quadrant_round_trip(tmp_path):
    paths = sorted((SHARED / "data" / "ztf_quadrant").glob("*sciimg.fits*"))
    if not paths:
        pytest.skip(f"no real quadrant in {SHARED / 'data' / 'ztf_quadrant'}; set ZTFXR_SHARED")
    from ztfxr.io.frames import open_quadrant

    frame = open_quadrant(paths[0])
    to_zarr(frame, tmp_path / "q.zarr")
    back = open_zarr(tmp_path / "q.zarr")
    xr.testing.assert_identical(back, frame)
    assert back.flags.dtype == np.uint16
    assert sum(p.stat().st_size for p in (tmp_path / "q.zarr").rglob("*") if p.is_file()) < 45e6
