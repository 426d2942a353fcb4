"""A stream's result is predict's, pixel for pixel, and each window is inferred once."""

import json
import logging
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import dask.array
import numpy as np
import pytest
import rasterio
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from zarr.storage import LocalStore, MemoryStore, WrapperStore

from tests.scenes import same_answer
from tests.streaming.helpers import COUNTED, described, files, numbered
from xcloudmask import models, testing
from xcloudmask.errors import CloudMaskError, OptionError
from xcloudmask.models import registry
from xcloudmask.store.verify import verify
from xcloudmask.streaming import ContractError, StreamReport, StreamWarning, stream, to_zarr

RNG = np.random.default_rng(5)
SMALL: dict[str, Any] = {"chunks": {"y": 32, "x": 32}, "shards": {"y": 64, "x": 64}, "progress": False}


def scene(steps: int = 2, height: int = 150, width: int = 130) -> xr.DataArray:
    return described(RNG.random((steps, 2, height, width), dtype=np.float32), ["red", "nir"])


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_the_store_holds_what_predict_returns(data: st.DataObject) -> None:
    height, width = data.draw(st.integers(1, 150)), data.draw(st.integers(2, 150))
    values = np.random.default_rng(height * 151 + width).random((2, 2, height, width), dtype=np.float32)
    top, left = data.draw(st.integers(0, height)), data.draw(st.integers(0, width))
    values[1, :, top : top + 50, left : left + 50] = np.nan
    da = described(values, ["red", "nir"], step=data.draw(st.sampled_from([10.0, 30.0])))
    asked = {
        "patch_size": data.draw(st.sampled_from([32, 40])),
        "overlap": data.draw(st.sampled_from([0, 7, 16, 27])),
        "working_resolution": data.draw(st.sampled_from(["auto", "native", 60])),
    }
    inner = {dim: data.draw(st.integers(20, 60)) for dim in ("y", "x")}
    inner["time"] = data.draw(st.sampled_from([1, 1, 2]))
    outer: Any = {dim: n * data.draw(st.integers(1, 2)) for dim, n in inner.items() if dim != "time"}
    if data.draw(st.booleans()):
        da = da.chunk(time=1, band=data.draw(st.integers(1, 2)), y=data.draw(st.integers(20, 90)))
    output = data.draw(st.sampled_from(["classes", "probabilities"]))
    store = MemoryStore()
    report = stream(
        da, store, predict={"model": testing.TOY, **asked}, output=output, chunks=inner, shards=outer,
        progress=False, encoding={"dtype": "float32"} if output == "probabilities" else None,
        regions_in_flight=data.draw(st.sampled_from([1, 4])),
    )  # fmt: skip
    assert report.complete
    made = da.cloudmask.predict if output == "classes" else da.cloudmask.predict_proba
    expected = made(testing.TOY, **asked).compute()
    found = xr.open_zarr(store)[expected.name]
    same_answer(found, expected.transpose(*found.dims))
    assert "strips" not in str(list(store._store_dict))


def test_the_tasks_of_the_whole_mask_are_never_written() -> None:
    """They would take 8 KiB for each chunk of the source, and be there until the stream ends."""
    mask = scene().chunk(time=1, y=40, x=40).cloudmask.predict(testing.TOY)
    layer = mask.data.dask.layers[mask.data.name]
    assert to_zarr(mask, MemoryStore(), **SMALL).complete
    assert not layer.is_materialized()
    assert len(layer)
    assert layer.is_materialized()


@pytest.mark.parametrize("chunked", [False, True])
def test_each_window_is_inferred_once(chunked: bool, tmp_path: Path) -> None:
    testing.seen.clear()
    da = numbered(2, 170, 150)
    source = da.chunk(time=1, y=37, x=60) if chunked else da
    stream(source, tmp_path / "a.zarr", predict={"model": testing.COUNTING}, **SMALL)
    first = sorted(testing.seen)
    testing.seen.clear()
    da.cloudmask.predict(testing.COUNTING)
    assert first == sorted(testing.seen)
    assert len(set(first)) == len(first)
    testing.seen.clear()
    again = stream(source, tmp_path / "a.zarr", predict={"model": testing.COUNTING}, **SMALL)
    assert (again.written, again.skipped, testing.seen) == (0, again.regions, [])


def test_a_lazy_mask_is_made_region_by_region_each_window_once(tmp_path: Path) -> None:
    da = numbered(2, 170, 150).chunk(time=1, y=60)
    mask = da.cloudmask.predict(testing.COUNTING)
    testing.seen.clear()
    report = to_zarr(mask, tmp_path / "a.zarr", **SMALL)
    assert report.regions == 2 * 3 * 3
    assert len(set(testing.seen)) == len(testing.seen)
    np.testing.assert_array_equal(xr.open_zarr(tmp_path / "a.zarr").cloud_mask.values, mask.values)
    stream(da, tmp_path / "b.zarr", predict={"model": testing.COUNTING}, **SMALL)
    assert files(tmp_path / "a.zarr") == files(tmp_path / "b.zarr")


@pytest.mark.parametrize("computed", [False, True])
def test_a_changed_mask_is_written_as_its_graph_says(computed: bool, tmp_path: Path) -> None:
    da = scene().chunk(time=1, y=60)
    mask = da.cloudmask.predict(testing.TOY).isel(y=slice(20, 140), time=[1, 0]).sortby("time")
    mask = mask.compute() if computed else mask
    report = to_zarr(mask, tmp_path / "a.zarr", **SMALL)
    assert report.complete
    found = xr.open_zarr(tmp_path / "a.zarr").cloud_mask
    np.testing.assert_array_equal(found.values, mask.values)
    assert found.attrs["flag_values"] == mask.attrs["flag_values"]


@pytest.mark.parametrize(("key", "options"), [("tta", {"tta": 8}), ("dtype", {"dtype": "bfloat16"})])
def test_a_changed_mask_made_otherwise_is_not_carried_on(
    key: str, options: dict[str, Any], tmp_path: Path
) -> None:
    da = scene().chunk(time=1, y=60)
    part = {"y": slice(20, 140)}
    to_zarr(da.cloudmask.predict(testing.TOY).isel(part), tmp_path / "a.zarr", **SMALL)
    other = da.cloudmask.predict(testing.TOY, **options).isel(part)
    with pytest.raises(ContractError, match=f"{key}: None in the store, {options[key]!r} in this call"):
        to_zarr(other, tmp_path / "a.zarr", **SMALL)


@pytest.mark.parametrize("order", [("time", "y", "x"), ("y", "x", "time")])
def test_dims_are_stored_in_one_order(order: tuple[str, ...], tmp_path: Path) -> None:
    da = scene().chunk(time=1).transpose(*order, "band")
    stream(da, tmp_path / "a.zarr", predict={"model": testing.TOY}, **SMALL)
    mask = da.cloudmask.predict(testing.TOY)
    to_zarr(mask, tmp_path / "b.zarr", **SMALL)
    for name in "ab":
        found = xr.open_zarr(tmp_path / f"{name}.zarr").cloud_mask
        assert found.dims == ("time", "y", "x")
        np.testing.assert_array_equal(found.values, mask.transpose(*found.dims).values)


def test_an_image_without_time_is_one_scene(tmp_path: Path) -> None:
    da = scene().isel(time=0)
    stream(da, tmp_path / "a.zarr", predict={"model": testing.TOY}, **SMALL)
    found = xr.open_zarr(tmp_path / "a.zarr")
    np.testing.assert_array_equal(found.cloud_mask.values, da.cloudmask.predict(testing.TOY).values)
    assert str(found.item_id.values) == "S2A_000"


@pytest.mark.parametrize(("dtype", "step"), [("uint8", 1 / 254), ("float16", 1e-3), ("float32", 0)])
def test_probabilities_are_packed_by_choice(dtype: str, step: float, tmp_path: Path) -> None:
    da = scene(1)
    da[0, :, :20] = np.nan
    stream(
        da,
        tmp_path,
        predict={"model": testing.TOY},
        output="probabilities",
        encoding={"dtype": dtype},
        **SMALL,
    )
    stored = json.loads((tmp_path / "cloud_probability" / "zarr.json").read_text())
    assert stored["data_type"] == dtype
    found = xr.open_zarr(tmp_path).cloud_probability
    expected = da.cloudmask.predict_proba(testing.TOY)
    np.testing.assert_allclose(found.values, expected.transpose(*found.dims).values, atol=step / 2 + 1e-6)
    assert list(found["class"].values) == list(testing.TOY.classes)


def test_it_opens_plainly_with_crs_items_and_what_made_it(tmp_path: Path) -> None:
    da = scene()
    stream(da, tmp_path, predict={"model": testing.TOY, "threshold": 0.4}, **SMALL)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = xr.open_zarr(tmp_path)
    mask = found.cloud_mask
    assert mask.dtype == np.uint8
    assert mask.rio.crs.to_epsg() == 32632
    assert list(found.item_id.values) == ["S2A_000", "S2A_001"]
    assert (found.time.values == da.time.values).all()
    assert mask.attrs["flag_meanings"].split()[-1] == "no_data"
    assert mask.attrs["standard_name"] == "quality_flag"
    assert (mask.attrs["model"], mask.attrs["model_version"], mask.attrs["threshold"]) == ("toy", "1", 0.4)
    assert {"model_sha256", "patch_size", "overlap", "scheme", "xcloudmask_version"} <= set(mask.attrs)
    assert mask.rio.transform() == da.rio.transform()
    document = json.loads((tmp_path / "cloud_mask" / "zarr.json").read_text())
    (sharding,) = document["codecs"]
    assert sharding["name"] == "sharding_indexed"
    *_, codec, checksum = sharding["configuration"]["codecs"]
    assert checksum["name"] == "crc32c"
    blosc = codec["configuration"]
    assert (blosc["cname"], blosc["shuffle"]) == ("zstd", "bitshuffle")
    assert document["fill_value"] == 255  # so that what was never written is no data


@pytest.mark.parametrize("shards", [False, None], ids=["no shards", "shards"])
def test_gdal_reads_the_mask_where_it_lies(shards: Any, tmp_path: Path) -> None:
    """GDAL 3.10 (rasterio 1.4) does not know the codec `bytes`, 3.12 (rasterio 1.5) no shards."""
    stream(scene(), tmp_path, predict={"model": testing.TOY}, **{**SMALL, "shards": shards})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if shards is False:
            with rasterio.open(tmp_path) as group:
                assert any(name.endswith("/cloud_mask") for name in group.subdatasets)
        try:
            opened = rasterio.open(f'ZARR:"{tmp_path}":/cloud_mask:0')
        except rasterio.errors.RasterioIOError as error:
            pytest.skip(f"GDAL {rasterio.__gdal_version__} cannot read these arrays of Zarr 3: {error}")
    with opened:
        assert opened.crs.to_epsg() == 32632
        assert opened.nodata == 255
        assert opened.transform == xr.open_zarr(tmp_path).cloud_mask.rio.transform()
        np.testing.assert_array_equal(opened.read(1), xr.open_zarr(tmp_path).cloud_mask.values[0])


class Counting(WrapperStore[Any]):
    """Notes which documents are read and which folders are listed."""

    asked: ClassVar[list[str]] = []

    async def get(self, key: str, *args: Any, **options: Any) -> Any:
        if key.endswith("zarr.json"):
            self.asked.append(key)
        return await self._store.get(key, *args, **options)

    def list_dir(self, prefix: str) -> Any:
        self.asked.append(f"list {prefix}")
        return self._store.list_dir(prefix)

    def with_read_only(self, read_only: bool = False) -> Any:
        return Counting(self._store.with_read_only(read_only))


def test_a_mask_opens_with_one_document_in_a_group_or_not(tmp_path: Path) -> None:
    da = scene()
    stream(da.isel(time=[0]), tmp_path, predict={"model": testing.TOY}, group="tiles/32TPR", **SMALL)
    stream(da, tmp_path, predict={"model": testing.TOY}, group="tiles/32TPR", **SMALL)  # the list keeps up
    stream(da, tmp_path / "plain", predict={"model": testing.TOY}, **SMALL)
    for folder in ("plain", "tiles/32TPR"):
        Counting.asked.clear()
        found = xr.open_zarr(Counting(LocalStore(tmp_path / folder)))
        assert found.sizes["time"] == 2
        assert Counting.asked == ["zarr.json"]
    stream(
        da, tmp_path, predict={"model": testing.TOY, "threshold": 0.3}, group="tiles/32TPR/strict", **SMALL
    )
    for group in ("tiles/32TPR", "tiles/32TPR/strict"):  # a group that holds groups has no list to hide them
        assert xr.open_zarr(tmp_path, group=group, consolidated=False).sizes["time"] == 2
    assert "/tiles/32TPR/strict" in xr.open_datatree(tmp_path, engine="zarr", consolidated=False).groups


def test_another_option_or_grid_is_refused_with_both_values(tmp_path: Path) -> None:
    da = scene()
    stream(da, tmp_path, predict={"model": testing.TOY}, **SMALL)
    before = files(tmp_path)
    with pytest.raises(
        ContractError, match=r"(?s)threshold: None in the store, 0.3 in this call.*overwrite.*group=$"
    ):
        stream(da, tmp_path, predict={"model": testing.TOY, "threshold": 0.3}, **SMALL)
    with pytest.raises(ContractError, match="model: 'toy' in the store, 'counting' in this call"):
        stream(da, tmp_path, predict={"model": testing.COUNTING, "working_resolution": "native"}, **SMALL)
    with pytest.raises(ContractError, match=r"shape: .*150.*140"):
        stream(da.isel(y=slice(0, 140)), tmp_path, predict={"model": testing.TOY}, **SMALL)
    with pytest.raises(ContractError, match="crs: 'EPSG:32632' in the store, 'EPSG:32633'"):
        stream(da.rio.write_crs(32633), tmp_path, predict={"model": testing.TOY}, **SMALL)
    with pytest.raises(ContractError, match="resume=True"):
        stream(da, tmp_path, predict={"model": testing.TOY}, resume=False, **SMALL)
    assert files(tmp_path) == before
    stream(da, tmp_path, predict={"model": testing.TOY, "threshold": 0.3}, group="strict", **SMALL)
    assert xr.open_zarr(tmp_path, group="strict", consolidated=False).cloud_mask.attrs["threshold"] == 0.3
    stream(da, tmp_path, predict={"model": testing.TOY, "threshold": 0.3}, overwrite=True, **SMALL)
    stream(da, tmp_path / "fresh", predict={"model": testing.TOY, "threshold": 0.3}, **SMALL)
    fresh = files(tmp_path / "fresh")
    for name in (
        "zarr.json",
        "stream/copy/zarr.json",
    ):  # which list the arrays
        fresh.pop(name)
    assert {name: data for name, data in files(tmp_path).items() if name in fresh} == fresh


@pytest.mark.parametrize("changed", [False, True])
def test_where_auto_chooses_another_model_it_is_said_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: bool
) -> None:
    def made(model: str) -> StreamReport:
        da = scene(steps=1)
        if not changed:
            return stream(da, tmp_path, predict={"model": model}, **SMALL)
        part = da.chunk(y=60).cloudmask.predict(model).isel(y=slice(20, 140))  # blocks of a graph
        return to_zarr(part, tmp_path, **SMALL)

    monkeypatch.setattr(registry, "registered", dict(registry.registered))
    models.register(testing.TOY, overwrite=True)
    models.register(replace(testing.TOY, name="richer"), overwrite=True)
    monkeypatch.setattr(models, "automatic", lambda: [models.get("toy")])
    made("auto")
    monkeypatch.setattr(models, "automatic", lambda: [models.get("richer")])
    with pytest.raises(ContractError, match=r"group=, or pass model='toy' to go on with it$"):
        made("auto")
    report = made("toy")
    assert report.complete
    assert report.written == 0


def test_a_stranger_is_not_written_over(tmp_path: Path) -> None:
    da = scene()
    xr.Dataset({"cloud_mask": ("y", np.zeros(3))}).to_zarr(tmp_path, zarr_format=3, consolidated=False)
    with pytest.raises(
        ContractError, match=r"did not write: cloud_mask.*shape \(3,\), this call's \(2, 150, 130\)"
    ):
        stream(da, tmp_path, predict={"model": testing.TOY}, **SMALL)
    assert xr.open_zarr(tmp_path, consolidated=False).cloud_mask.shape == (3,)
    xr.Dataset({"a": ("y", np.zeros(3))}).to_zarr(tmp_path / "two", zarr_format=2, consolidated=False)
    with pytest.raises(ContractError, match="format 2"):
        stream(da, tmp_path / "two", predict={"model": testing.TOY}, **SMALL)


def test_a_step_without_a_date_is_found_again(tmp_path: Path) -> None:
    """NaT differs from itself: each call took it for a new one."""
    source = scene(1).assign_coords(time=np.array(["NaT"], "M8[ns]"), item_id=("time", ["one"]))
    for done in (0, 1):
        report = stream(
            source,
            tmp_path / "m.zarr",
            predict={"model": COUNTED, "working_resolution": "native"},
            progress=False,
        )
        assert (report.written == 0) == bool(done)
    assert xr.open_zarr(tmp_path / "m.zarr", consolidated=False).sizes["time"] == 1
    other = source.assign_coords(item_id=("time", ["two"]))
    stream(
        other, tmp_path / "m.zarr", predict={"model": COUNTED, "working_resolution": "native"}, progress=False
    )
    assert xr.open_zarr(tmp_path / "m.zarr", consolidated=False)["item_id"].values.tolist() == ["one", "two"]


def test_later_steps_are_appended(tmp_path: Path) -> None:
    da = scene(5)
    stream(da.isel(time=slice(0, 2)), tmp_path / "a", predict={"model": testing.TOY}, **SMALL)
    report = stream(da.isel(time=slice(1, 4)), tmp_path / "a", predict={"model": testing.TOY}, **SMALL)
    assert (report.written, report.skipped) == (2 * 9, 9)
    report = stream(da, tmp_path / "a", predict={"model": testing.TOY}, **SMALL)
    assert (report.written, report.skipped) == (9, 4 * 9)
    found, expected = xr.open_zarr(tmp_path / "a"), da.cloudmask.predict(testing.TOY)
    np.testing.assert_array_equal(found.cloud_mask.values, expected.values)
    assert (found.time.values == da.time.values).all()
    assert list(found.item_id.values) == list(da.item_id.values)
    with pytest.raises(ContractError, match="S2A_000 stands twice"):
        stream(da.isel(time=[0, 0]), tmp_path / "b", predict={"model": testing.TOY}, **SMALL)
    stream(da, tmp_path / "c", predict={"model": testing.TOY}, **SMALL)
    whole, grown = files(tmp_path / "c"), files(tmp_path / "a")
    assert whole == grown
    late = da.isel(time=[0]).assign_coords(time=da.time[:1] + np.timedelta64(1, "D"))
    assert stream(late, tmp_path / "a", predict={"model": testing.TOY}, **SMALL).written == 9
    stored = xr.open_zarr(tmp_path / "a")
    assert stored.time.values[-1] == late.time.values[0] < stored.time.values[-2]
    np.testing.assert_array_equal(stored.cloud_mask.values[-1], expected.values[0])


@pytest.mark.parametrize("told_first", [False, True])
def test_steps_that_know_where_the_sun_stood_join_those_that_do_not(tmp_path: Path, told_first: bool) -> None:
    """Of items that tell it, in a store of items that do not, such as an earlier version's; or vice versa."""
    da = scene(3)
    sun = {"sun_elevation": ("time", [40.0, 41.0, 42.0]), "sun_azimuth": ("time", [150.0, 151.0, 152.0])}
    told = da.assign_coords(sun)
    parts = [told, da, told] if told_first else [da, told, da]
    for step, part in enumerate(parts):
        one = part.isel(time=[step])
        stream(one, tmp_path / "a", predict={"model": testing.TOY}, overviews=(2,), **SMALL)
    for consolidated in (True, False):
        stored = xr.open_zarr(tmp_path / "a", consolidated=consolidated)
        for name, (_, values) in sun.items():
            expected = [
                n if "sun_azimuth" in p.coords else np.nan for n, p in zip(values, parts, strict=True)
            ]
            np.testing.assert_array_equal(stored.cloud_mask[name], expected)
    np.testing.assert_array_equal(stored.cloud_mask, da.cloudmask.predict(testing.TOY))
    np.testing.assert_array_equal(stored.time, da.time)
    assert verify(tmp_path / "a").ok
    assert stream(told, tmp_path / "a", predict={"model": testing.TOY}, **SMALL).written == 0


class Poison:
    """A source whose chunks fail while they are told to."""

    def __init__(self, bad: set[tuple[int, int]]) -> None:
        self.bad = bad
        self.asked = 0

    def __call__(self, block: np.ndarray, block_info: Any = None) -> np.ndarray:
        if block_info and tuple(block_info[0]["chunk-location"][-2:]) in self.bad:
            self.asked += 1
            raise OSError("asset B04 of S2A_000: 404 Not Found")
        return block


def test_a_poisoned_region_is_recorded_and_the_others_finish(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("xcloudmask.streaming.run.PAUSE", 0.01)
    da, poison = scene(2, 192, 192), Poison({(1, 1)})
    data = dask.array.map_blocks(
        poison,
        dask.array.from_array(da.values, chunks=(1, 2, 64, 64)),
        dtype="f4",
        meta=np.empty((0,) * 4, "f4"),
    )
    bad = da.copy(data=data)
    how = {"model": testing.TOY, "working_resolution": "native"}
    with (
        pytest.warns(StreamWarning, match="404 Not Found"),
        caplog.at_level(logging.ERROR, "xcloudmask.streaming"),
    ):
        report = stream(bad, tmp_path, predict=how, retries=1, **SMALL)
    assert not report.complete
    reasons = {failure.region: failure.message for failure in report.failed}
    # Regions above and left of the bad chunk read a strip of it; those below and right wait for theirs.
    assert {at[1:] for at in reasons} == {
        (0, 0),
        (0, 1),
        (1, 0),
        (1, 1),
        (0, 2),
        (1, 2),
        (2, 0),
        (2, 1),
        (2, 2),
    } & {at[1:] for at in reasons}
    assert "404" in reasons[0, 1, 1]
    assert reasons[0, 2, 2].startswith("waits for region (0, 1, 1)")
    assert report.written == report.regions - len(report.failed)
    assert any(
        "2026-05-01" in record.getMessage() and "S2A_000" in record.getMessage() for record in caplog.records
    )
    with pytest.raises(CloudMaskError, match="Run the same call again"):
        report.raise_if_failed()
    status = json.loads((tmp_path / "stream" / "status" / "zarr.json").read_text())
    assert "404" in status["attributes"]["failures"]["0,1,1"]
    assert (xr.open_zarr(tmp_path).cloud_mask.values[0, 64:128, 64:128] == 255).all()
    poison.bad.clear()
    assert stream(bad, tmp_path, predict=how, **SMALL).complete
    stream(da, tmp_path / "fresh", predict=how, **SMALL)
    fresh = files(tmp_path / "fresh")
    assert {name: data for name, data in files(tmp_path).items() if not name.startswith("fresh")} == fresh


def test_a_passing_fault_of_the_source_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("xcloudmask.streaming.run.PAUSE", 0.01)
    da, poison = scene(1, 64, 64), Poison({(0, 0)})

    def once(block: np.ndarray, block_info: Any = None) -> np.ndarray:
        try:
            return poison(block, block_info)
        finally:
            poison.bad.clear()

    data = dask.array.map_blocks(
        once,
        dask.array.from_array(da.values, chunks=(1, 2, 64, 64)),
        dtype="f4",
        meta=np.empty((0,) * 4, "f4"),
    )
    assert stream(da.copy(data=data), tmp_path, predict={"model": testing.TOY}, **SMALL).complete
    assert poison.asked == 1


def test_bad_arguments_are_named(tmp_path: Path) -> None:
    da = scene()
    with pytest.raises(OptionError, match=r"encoding key 'zlib'.*dtype, compressors"):
        stream(da, tmp_path, predict={"model": testing.TOY}, encoding={"zlib": True}, progress=False)
    with pytest.raises(OptionError, match="int16"):
        stream(
            da,
            tmp_path,
            predict={"model": testing.TOY},
            output="probabilities",
            encoding={"dtype": "int16"},
            progress=False,
        )
    with pytest.raises(OptionError, match="progress 'yes'"):
        stream(da, tmp_path, predict={"model": testing.TOY}, progress="yes")  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="unknown store 'int'"):
        stream(da, 3, predict={"model": testing.TOY})
    with pytest.raises(CloudMaskError, match="DataArray"):
        stream(da.to_dataset(name="a"), tmp_path)  # type: ignore[arg-type]
    with pytest.raises(CloudMaskError, match="regions_in_flight=0"):
        stream(da, tmp_path, predict={"model": testing.TOY}, regions_in_flight=0)
    with pytest.raises(OptionError, match=r"append_dim 'tiem'; did you mean 'time'\?.*time"):
        stream(da, tmp_path, predict={"model": testing.TOY}, append_dim="tiem")
    with pytest.raises(OptionError, match=r"append_dim None\. Give a string"):
        stream(da[0], tmp_path, predict={"model": testing.TOY}, append_dim=None)  # type: ignore[arg-type]
    with pytest.raises(CloudMaskError, match=r"this is a scene, not a mask: it has 2 of 'band'.*predict\(\)"):
        da.cloudmask.to_zarr(tmp_path)
    with pytest.raises(CloudMaskError, match="this is a scene"):
        da.isel(band=[0]).cloudmask.to_zarr(tmp_path)
    assert not list(tmp_path.iterdir())
    assert COUNTED.name == "counted"
