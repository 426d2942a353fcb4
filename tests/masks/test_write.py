"""Masks written to COG and Zarr: the pixels that were computed, whole or not at all."""

import os
import platform
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import dask.array as darr
import numpy as np
import pytest
import rasterio
import rasterio.shutil
import xarray as xr
import zarr
from affine import Affine
from dask.callbacks import Callback

import xcloudmask
from xcloudmask.classes import COLOURS
from xcloudmask.errors import CloudMaskError, OptionError, StoreLockedError
from xcloudmask.masks.geotiff import Written
from xcloudmask.masks.write import check_output, write
from xcloudmask.store.lock import Lock
from xcloudmask.store.store import Target, open_store
from xcloudmask.testing import TOY

ATTRS = {
    "flag_values": [0, 1, 3, 255],
    "flag_meanings": "clear cloud cloud_shadow no_data",
    "model": "toy",
    "model_version": "1",
    "model_sha256": "abc123",
    "patch_size": 32,
    "xcloudmask_version": "0.1.0",
}
UTM = Affine(30.0, 0.0, 600015.0, 0.0, -30.0, 4900005.0)


def mask(
    height: int = 700, width: int = 1100, chunks: Any = None, crs: str = "EPSG:32632", transform: Affine = UTM
) -> xr.DataArray:
    """A class map in which every class occurs and no two rows are alike."""
    codes = np.array([0, 1, 3, 255], "u1")
    pixels = codes[np.random.default_rng(5).integers(0, 4, (height, width))]
    pixels[:40] = 255
    coords = {
        "y": transform.f + (np.arange(height) + 0.5) * transform.e,
        "x": transform.c + (np.arange(width) + 0.5) * transform.a,
    }
    da = xr.DataArray(pixels, dims=("y", "x"), coords=coords, attrs=dict(ATTRS), name="cloud_mask")
    return (da if chunks is None else da.chunk(chunks)).rio.write_crs(crs)


def listing(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


@pytest.mark.parametrize("chunks", [None, {"y": 512, "x": 512}, {"y": (1, 299, 400), "x": (700, 13, 387)}])
def test_a_cog_holds_the_pixels_and_says_what_they_are(tmp_path: Path, chunks: Any) -> None:
    da = mask(chunks=chunks)
    written = write(da, tmp_path / "m.tif")
    with rasterio.open(tmp_path / "m.tif") as file:
        np.testing.assert_array_equal(file.read(1), da.values)
        assert file.count == 1
        assert file.dtypes == ("uint8",)
        assert file.nodata == 255
        assert file.crs == da.rio.crs
        assert file.transform == UTM
        assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert file.block_shapes == [(512, 512)]
        assert file.overviews(1) == [2, 4]
        colours = file.colormap(1)
        for code, name in ((0, "clear"), (1, "cloud"), (3, "cloud_shadow")):  # as in plots
            assert colours[code] == (*bytes.fromhex(COLOURS[name][1:]), 255)
        tags = file.tags()
        assert tags["TIFFTAG_SOFTWARE"] == "xcloudmask 0.1.0"
        for name in ("model", "model_version", "model_sha256", "flag_meanings"):
            assert tags[name] == ATTRS[name]
        assert tags["flag_values"] == "0 1 3 255"
    names = ("clear", "cloud", "cloud_shadow", "no_data")
    assert written.counts == {
        name: int((da.values == c).sum()) for c, name in zip((0, 1, 3, 255), names, strict=True)
    }
    assert listing(tmp_path) == ["m.tif", "m.tif.aux.xml"]


@pytest.mark.parametrize("ending", ["tif", "zarr"])
@pytest.mark.parametrize("place", [0, 2])
def test_uncertainty_is_counted_as_no_class(tmp_path: Path, ending: str, place: int) -> None:
    """It stands among the labels and may be larger than every probability."""
    labels = ["clear", "cloud"]
    values = [np.full((8, 8), 0.3, "f4"), np.full((8, 8), 0.35, "f4")]
    labels.insert(place, "uncertainty")
    values.insert(place, np.full((8, 8), 0.5, "f4"))
    values[1][:2] = np.nan
    coords = {"class": labels, "y": np.arange(8.0)[::-1], "x": np.arange(8.0)}
    da = xr.DataArray(np.stack(values), dims=("class", "y", "x"), coords=coords, name="cloud_probability")
    assert write(da, tmp_path / f"p.{ending}").counts == {"clear": 0, "cloud": 48, "no_data": 16}


def test_overviews_are_pixels_of_the_scene(tmp_path: Path) -> None:
    da = mask()
    write(da, tmp_path / "m.tif")
    with rasterio.open(tmp_path / "m.tif", overview_level=0) as file:
        small = file.read(1)
    assert set(np.unique(small)) <= {0, 1, 3, 255}  # not means of codes
    assert abs((small == 255).mean() - (da.values == 255).mean()) < 0.01  # gaps keep their share


def test_gdal_knows_the_names_of_the_classes(tmp_path: Path) -> None:
    write(mask(), tmp_path / "m.tif")
    rasterio.shutil.copy(tmp_path / "m.tif", tmp_path / "m.vrt", driver="VRT")
    text = (tmp_path / "m.vrt").read_text()
    found = [part.split("</")[0] for part in text.split("<Category")[1:] if part.startswith((">", " />"))]
    assert found == [">clear", ">cloud", found[2], ">cloud_shadow"]
    assert "cloud" not in found[2]  # code 2 is not in use


@pytest.mark.parametrize("degree", [1 / 336, 0.1 + 0.2, 0.00026949458523585647])
def test_a_transform_that_floating_point_cannot_hold_survives(tmp_path: Path, degree: float) -> None:
    transform = Affine(degree, 0, -180 - degree / 2, 0, -degree, 75 + degree / 2)
    da = mask(60, 70, crs="EPSG:4326", transform=transform).rio.write_transform(transform)
    write(da, tmp_path / "m.tif")
    with rasterio.open(tmp_path / "m.tif") as file:
        assert file.transform == transform
        assert file.crs.to_epsg() == 4326


def test_other_orders_and_names_of_dimensions(tmp_path: Path) -> None:
    da = mask(50, 60)
    turned = da.expand_dims(time=np.array(["2021-05-06T10:20:30"], "M8[ns]")).transpose("x", "time", "y")
    write(turned.rename(y="lat", x="lon"), tmp_path / "m.tif")
    with rasterio.open(tmp_path / "m.tif") as file:
        np.testing.assert_array_equal(file.read(1), da.values)
        assert file.transform == UTM
        assert file.tags()["TIFFTAG_DATETIME"] == "2021:05:06 10:20:30"


def test_each_chunk_is_computed_once_and_progress_ends_at_all(tmp_path: Path) -> None:
    seen: Counter[Any] = Counter()

    def block(block_id: tuple[int, ...]) -> Any:
        seen[block_id] += 1
        return np.full((64, 64), 1, "u1")

    da = mask(256, 192).copy(
        data=darr.map_blocks(block, chunks=((64,) * 4, (64,) * 3), dtype="u1", meta=np.empty((0, 0), "u1"))
    )
    told: list[tuple[int, int]] = []
    write(da, tmp_path / "m.tif", progress=lambda done, total: told.append((done, total)))
    assert seen == {(i, j): 1 for i in range(4) for j in range(3)}
    assert told == [(n * 4096, 12 * 4096) for n in range(13)]


def test_probabilities_become_one_band_a_class(tmp_path: Path) -> None:
    pixels = np.random.default_rng(1).random((3, 90, 80), "f4")
    pixels[:, :10] = np.nan
    coords = {**mask(90, 80).coords, "class": ["clear", "cloud", "cloud_shadow"]}
    da = xr.DataArray(pixels, dims=("class", "y", "x"), coords=coords, attrs={"model": "toy"})
    written = write(da.chunk({"class": 1, "y": 50}), tmp_path / "p.tif")
    with rasterio.open(tmp_path / "p.tif") as file:
        np.testing.assert_array_equal(file.read(), pixels)
        assert np.isnan(file.nodata)
        assert file.descriptions == tuple(f"probability of {name}" for name in coords["class"])
    best = pixels[:, 10:].argmax(axis=0)
    counts = dict(zip(coords["class"], np.bincount(best.ravel()).tolist(), strict=True))
    assert written.counts == {**counts, "no_data": 800}
    assert listing(tmp_path) == ["p.tif"]
    da = da.assign_coords({"class": ["clear", "cloud", "no_data"]})  # a network may say so, too
    empty = counts.pop("cloud_shadow") + 800
    assert write(da, tmp_path / "q.tif").counts == {**counts, "no_data": empty}


@pytest.mark.parametrize("chunks", [None, {"y": 128, "x": 100}, {"y": (1, 69, 30), "x": (50, 13, 17)}])
def test_a_zarr_store_reads_back_as_it_was(tmp_path: Path, chunks: Any) -> None:
    da = mask(100, 80)
    times = np.array(["2020-01-01", "2020-01-06"], "M8[ns]")
    both = xr.concat([da, da[::-1].assign_coords(y=da.y)], dim="time").assign_coords(time=times)
    both = (
        both.assign_attrs(ATTRS) if chunks is None else both.assign_attrs(ATTRS).chunk({"time": 1, **chunks})
    )
    written = write(both, tmp_path / "m.zarr")
    with xr.open_dataset(tmp_path / "m.zarr", engine="zarr", chunks={}, decode_coords="all") as ds:
        assert ds.cloud_mask.dtype == np.uint8
        np.testing.assert_array_equal(ds.cloud_mask.values, both.values)
        xr.testing.assert_equal(
            ds.cloud_mask.drop_vars("spatial_ref"), both.drop_vars("spatial_ref").compute()
        )
        assert ds.cloud_mask.rio.crs == da.rio.crs
        assert ds.cloud_mask.attrs["flag_meanings"] == ATTRS["flag_meanings"]
    stored = zarr.open_array(tmp_path / "m.zarr/cloud_mask", mode="r")
    assert stored.fill_value == 255
    assert stored.attrs["grid_mapping"] == "spatial_ref"  # CF's way to the CRS
    assert sum(written.counts.values()) == both.size
    assert listing(tmp_path) == ["m.zarr"]


def test_texts_along_time_are_written_though_chunk_made_them_lazy(tmp_path: Path) -> None:
    scenes = mask(40, 50).expand_dims(time=2)
    scenes = scenes.assign_coords(item_id=("time", np.array(["a", "b"], dtype=object))).chunk(y=20)
    assert scenes.item_id.chunks is not None
    write(scenes, tmp_path / "m.zarr")
    assert xr.open_zarr(tmp_path / "m.zarr").item_id.values.tolist() == ["a", "b"]


def test_a_geotiff_takes_one_scene(tmp_path: Path) -> None:
    two = xr.concat([mask(40, 40)] * 2, dim="time").assign_attrs(ATTRS)
    with pytest.raises(CloudMaskError, match=r"\{'time': 2\}.*\.zarr"):
        write(two, tmp_path / "m.tif")
    assert listing(tmp_path) == []


def test_reflectance_is_not_a_mask(tmp_path: Path) -> None:
    with pytest.raises(CloudMaskError, match="neither a class map nor probabilities"):
        write(mask(40, 40).astype("f4"), tmp_path / "m.tif")
    assert listing(tmp_path) == []


def broken(after: int) -> xr.DataArray:
    """A mask whose computation fails in the middle."""

    def block(block_id: tuple[int, ...]) -> Any:
        if block_id[0] >= after:
            raise RuntimeError("the disk with the pixels fell down")
        return np.zeros((64, 64), "u1")

    data = darr.map_blocks(block, chunks=((64,) * 8, (64,)), dtype="u1", meta=np.empty((0, 0), "u1"))
    return mask(512, 64).copy(data=data)


def test_a_failing_run_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="fell down"):
        write(broken(3), tmp_path / "m.tif")
    assert listing(tmp_path) == []


def test_a_failing_run_leaves_the_old_output_and_a_good_one_replaces_it(tmp_path: Path) -> None:
    out = tmp_path / "m.tif"

    def read() -> Any:
        with rasterio.open(out) as file:
            return file.read(1)

    first, second = mask(60, 60), mask(30, 90)
    write(first, out)
    with pytest.raises(RuntimeError):
        write(broken(3), out, overwrite=True)
    np.testing.assert_array_equal(read(), first.values)
    with pytest.raises(CloudMaskError, match=r"exists already.*overwrite=True"):
        write(second, out)
    np.testing.assert_array_equal(read(), first.values)
    write(second, out, overwrite=True)
    np.testing.assert_array_equal(read(), second.values)
    assert [n for n in listing(tmp_path) if n.startswith(".")] == []


def test_a_store_appears_when_it_is_complete_and_the_old_one_stands_until_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("xcloudmask.streaming.run.PAUSE", 0.0)
    out, first, second = tmp_path / "m.zarr", mask(60, 60), mask(30, 90)
    appeared: list[bool] = []
    with pytest.raises(CloudMaskError, match=r"(?s)/m\.zarr: .*fell down"):
        write(broken(3), out, progress=lambda done, total: appeared.append(out.exists()))
    assert appeared
    assert not any(appeared)
    assert listing(tmp_path) == []
    write(first, out)
    with pytest.raises(CloudMaskError, match="fell down"):
        write(broken(3), out, overwrite=True)
    np.testing.assert_array_equal(xr.open_zarr(out).cloud_mask, first)
    counts = write(second, out, overwrite=True).counts
    np.testing.assert_array_equal(xr.open_zarr(out).cloud_mask, second)
    assert sum(counts.values()) == second.size
    assert listing(tmp_path) == ["m.zarr"]


def test_a_store_that_is_in_use_or_holds_more_than_a_mask_is_not_replaced(tmp_path: Path) -> None:
    out = tmp_path / "m.zarr"
    first = mask(60, 60)
    first.cloudmask.to_zarr(out, progress=False)
    first.cloudmask.to_zarr(out, group="strict", progress=False)
    with pytest.raises(CloudMaskError, match="holds the groups strict, which would go"):
        write(broken(0), out, overwrite=True)
    assert xr.open_zarr(out, group="strict", consolidated=False).cloud_mask.shape == (60, 60)
    lock = Lock(Target(open_store(tmp_path / "l.zarr")))
    write(first, tmp_path / "l.zarr")
    lock.acquire()
    with pytest.raises(StoreLockedError):
        write(first, tmp_path / "l.zarr", overwrite=True)
    lock.release()
    (tmp_path / "file.zarr").write_text("no store")
    with pytest.raises(CloudMaskError, match="is a file"):
        write(broken(0), tmp_path / "file.zarr", overwrite=True)


def test_side_files_of_the_old_pixels_go(tmp_path: Path) -> None:
    write(mask(60, 60), tmp_path / "m.tif")
    (tmp_path / "m.tif.ovr").write_bytes(b"old overviews")
    da = xr.DataArray(np.ones((1, 8, 8), "f4"), dims=("class", "y", "x"), coords={"class": ["cloud"]})
    write(da, tmp_path / "m.tif", overwrite=True)
    assert listing(tmp_path) == ["m.tif"]


def test_what_killed_runs_left_is_swept_and_nothing_else(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True
    )
    dead, alive, node = int(done.stdout), os.getppid(), platform.node()
    gone = [f".m.tif.{node}-{dead}-abcd.part", f".m.tif.{node}-{os.getpid()}-abcd.part"]
    kept = [
        f".m.tif.{node}-{alive}-abcd.part",
        f".m.tif.elsewhere-{dead}-abcd.part",
        f".other.tif.{node}-{dead}-abcd.part",
        "m.tif.part",
    ]
    for name in [*gone, *kept]:
        (tmp_path / name).mkdir()
    write(mask(40, 40), tmp_path / "m.tif")
    assert listing(tmp_path) == sorted([*kept, "m.tif", "m.tif.aux.xml"])


@pytest.mark.parametrize("step", ["update_tags", "write", "write_colormap", "close"])
def test_gdals_own_errors_are_told_at_every_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    from rasterio._err import CPLE_AppDefinedError

    keep = rasterio.open

    class Full:
        """A dataset on a disk that is full when it comes to `step`."""

        def __init__(self, dataset: Any) -> None:
            self._dataset = dataset

        def __getattr__(self, name: str) -> Any:
            return self._full if name == step else getattr(self._dataset, name)

        def _full(self, *args: Any, **more: Any) -> None:
            self._dataset.close()
            raise CPLE_AppDefinedError(3, 1, "Write error at scanline 0")

    def opened(path: Any, *mode: str, **form: Any) -> Any:
        dataset = keep(path, *mode, **form)
        return Full(dataset) if mode else dataset

    monkeypatch.setattr(rasterio, "open", opened)
    with pytest.raises(CloudMaskError, match=r"cannot be written: Write error at scanline 0.*free space"):
        write(mask(40, 40), tmp_path / "m.tif")
    assert listing(tmp_path) == []


FULL_DISK = """
import resource, signal, sys, numpy as np, xarray as xr
from xcloudmask.masks.write import write
from xcloudmask.errors import CloudMaskError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
pixels = np.random.default_rng(0).integers(0, 2, (1500, 1500)).astype("u1")
da = xr.DataArray(pixels, dims=("y", "x"), attrs={"flag_values": [0, 1], "flag_meanings": "clear cloud"})
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
try:
    write(da.chunk(512), sys.argv[1])
except CloudMaskError as error:
    print(error)
else:
    print("written")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="sets a limit on file sizes in Linux's way")
@pytest.mark.parametrize(
    ("name", "limit"),
    [("m.tif", limit) for limit in (0, 100, 3_000, 100_000, 390_000)],
)
def test_a_full_disk_is_told_and_leaves_nothing(tmp_path: Path, name: str, limit: int) -> None:
    command = [sys.executable, "-W", "ignore", "-c", FULL_DISK, str(tmp_path / name), str(limit)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "cannot be written" in done.stdout, done.stdout + done.stderr
    assert "free space" in done.stdout
    assert listing(tmp_path) == []


def test_outputs_that_cannot_be_are_refused_before_anything_is_computed(tmp_path: Path) -> None:
    lazy = broken(0)
    (tmp_path / "folder.tif").mkdir()
    for name, words in {
        "none/m.tif": "there is no such folder.*mkdir",
        "s3://bucket/m.tif": "only files on this machine",
        "folder.tif": "is a folder",
    }.items():
        path = name if "://" in name else tmp_path / name
        with pytest.raises(CloudMaskError, match=words):
            write(lazy, path, overwrite=True)
    for name in ("m.jpg", "mask"):
        with pytest.raises(OptionError, match=r"\.tif, \.tiff, \.zarr"):
            check_output(tmp_path / name)


def test_shares_in_words() -> None:
    assert "cloud < 0.1 %" in str(Written(Path("m.tif"), {"clear": 99_999, "cloud": 1, "no_data": 0}))
    assert "all is no data" in str(Written(Path("m.tif"), {"clear": 0, "no_data": 9}))


def test_a_prediction_goes_through_chunk_by_chunk(tmp_path: Path) -> None:
    pixels = np.random.default_rng(2).random((2, 150, 170), "f4")
    coords = {"y": -30.0 * np.arange(150), "x": 30.0 * np.arange(170)}
    da = xr.DataArray(pixels, dims=("band", "y", "x"), coords=coords)
    da = da.cloudmask.describe(bands=["red", "nir"], level="L1C").rio.write_crs("EPSG:32632")
    expected = da.cloudmask.predict(TOY)
    write(da.chunk({"y": 64, "x": 90}).cloudmask.predict(TOY), tmp_path / "m.tif")
    with rasterio.open(tmp_path / "m.tif") as file:
        np.testing.assert_array_equal(file.read(1), expected.values)
        assert file.crs == da.rio.crs
        assert file.tags()["xcloudmask_version"] == xcloudmask.__version__


class Held(Callback):
    """Notes how many chunks of the scene Dask holds at once."""

    def __init__(self, source: str) -> None:
        self.source, self.most = source, 0

    def _posttask(self, key: Any, result: Any, dsk: Any, state: Any, worker: Any) -> None:
        here = [held for held in state["cache"] if isinstance(held, tuple) and held[0] == self.source]
        self.most = max(self.most, len(here))


def test_chunks_of_the_scene_are_let_go_however_wide_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from xcloudmask.engine import run_dask
    from xcloudmask.masks import geotiff

    monkeypatch.setattr(geotiff, "WORKERS", 1)
    monkeypatch.setattr(run_dask, "SMALL", 0)  # that these count as large: a row of small ones is held
    for width in (4, 12):
        pixels = darr.random.random((2, 4 * 50, width * 50), chunks=(2, 50, 50)).astype("f4").persist()
        pixels = pixels.map_blocks(np.abs, dtype="f4", meta=np.empty((0, 0, 0), "f4"))
        da = xr.DataArray(pixels, dims=("band", "y", "x")).rio.write_crs("EPSG:32632")
        da = da.cloudmask.describe(bands=["red", "nir"], level="L1C")
        folder = tmp_path / str(width)
        folder.mkdir()
        with Held(pixels.name) as held:
            write(da.cloudmask.predict(TOY, working_resolution="native"), folder / "m.tif")
        assert 1 <= held.most <= 6  # a row of the wide scene has 12


def test_a_block_that_gdal_lost_unnoticed_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from xcloudmask.masks import geotiff

    keep = geotiff._Raster.__setitem__

    def lose(self: Any, key: Any, block: Any) -> None:
        if key[-1].start == 0:
            keep(self, key, block)

    monkeypatch.setattr(geotiff._Raster, "__setitem__", lose)
    with pytest.raises(CloudMaskError, match="does not hold what was written"):
        write(mask(chunks={"x": 512}), tmp_path / "m.tif")
    assert listing(tmp_path) == []


def test_a_thinned_scene_is_written_where_its_coordinates_say(tmp_path: Path) -> None:
    whole = mask(80, 80).rio.write_transform(UTM)  # as every scene of open_rasterio has it
    write(whole[::2, ::2], tmp_path / "m.tif")
    with rasterio.open(tmp_path / "m.tif") as file:
        assert file.transform == Affine(60.0, 0.0, UTM.c - 15, 0.0, -60.0, UTM.f + 15)
    turned = Affine(26.0, 15.0, UTM.c, 15.0, -26.0, UTM.f)  # coordinates cannot tell
    write(whole.rio.write_transform(turned), tmp_path / "t.tif")
    with rasterio.open(tmp_path / "t.tif") as file:
        assert file.transform.almost_equals(turned)
