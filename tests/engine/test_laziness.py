"""Building a mask reads no pixel, loads no model, runs nothing, and costs little."""

import pickle
from typing import Any

import dask
import dask.array as darr
import numpy as np
import pytest
import xarray as xr

from tests.scenes import CountingScheduler, calls, forbidden, scene
from xcloudmask import testing
from xcloudmask.engine import predictor
from xcloudmask.engine.tiling import AxisPlan
from xcloudmask.testing import COUNTING, TOY


@pytest.fixture
def counted() -> None:
    """Forget what `COUNTING` saw, and every loaded model."""
    predictor.unload()
    testing.seen.clear()
    testing.loads.clear()


ONE = np.ones((1, 200, 170), np.float32)
WAYS = {
    "predict": lambda da: da.cloudmask.predict(COUNTING, working_resolution="native"),
    "predict_proba": lambda da: da.cloudmask.predict_proba(COUNTING, working_resolution="native", tta=True),
    "coarse": lambda da: da.cloudmask.predict(COUNTING, working_resolution=90),
    "valid": lambda da: da.cloudmask.predict(COUNTING, valid=da.isel(band=0, drop=True) > 0),
    "sliced": lambda da: da.cloudmask.predict(COUNTING)[:50, 20:40],
    "transposed": lambda da: da.transpose("x", "band", "y").cloudmask.predict(COUNTING),
    "names": lambda da: da.cloudmask.predict(COUNTING).data.__dask_graph__().keys(),
}


@pytest.mark.parametrize("way", WAYS)
def test_building_computes_nothing_and_loads_nothing(way: str, counted: None) -> None:
    da = scene(ONE, ["red"])
    lazy = da.copy(
        data=darr.from_array(ONE, chunks=(1, 37, 90)).map_blocks(forbidden, dtype="f4", meta=ONE[:0])
    )
    scheduler = CountingScheduler()
    with dask.config.set(scheduler=scheduler):
        WAYS[way](lazy)
    assert scheduler.computes == 0
    assert testing.loads == []
    assert testing.seen == []


def test_the_counting_scheduler_counts() -> None:
    scheduler = CountingScheduler()
    with dask.config.set(scheduler=scheduler):
        scene(ONE, ["red"]).chunk(y=100).cloudmask.predict(COUNTING, working_resolution="native").compute()
    assert scheduler.computes == 1


@pytest.mark.parametrize(
    "chunk", [None, {"y": 37, "x": (90, 3, 77)}, {"y": 200, "x": 170}, {"y": 5, "x": 64}, {"y": 1, "x": 170}]
)
@pytest.mark.parametrize("batch", ["auto", 7])
def test_each_window_is_inferred_once(chunk: dict[str, Any] | None, batch: int | str, counted: None) -> None:
    pixels = (np.arange(200 * 170, dtype=np.float32) / 34_000).reshape(1, 200, 170)
    da = scene(pixels, ["red"])
    da = da if chunk is None else da.chunk(chunk)
    da.cloudmask.predict(COUNTING, working_resolution="native", batch_size=batch).compute()
    starts_y, starts_x = AxisPlan(200, 32, 8).starts, AxisPlan(170, 32, 8).starts
    assert sorted(testing.seen) == sorted(float(pixels[0, y, x]) for y in starts_y for x in starts_x)
    assert testing.loads == ["counting"]


def test_a_slice_infers_only_the_windows_that_reach_it(counted: None) -> None:
    pixels = (np.arange(200 * 200, dtype=np.float32) / 40_000).reshape(1, 200, 200)
    da = scene(pixels, ["red"]).chunk(y=50, x=50)
    whole = da.cloudmask.predict(COUNTING, working_resolution="native")
    corner = whole[:20, :20].compute()
    starts = [start for start in AxisPlan(200, 32, 8).starts if start < 50]
    assert sorted(testing.seen) == sorted(float(pixels[0, y, x]) for y in starts for x in starts)
    np.testing.assert_array_equal(corner.values, whole.compute().values[:20, :20])


def test_windows_without_a_valid_pixel_are_not_inferred_and_no_model_is_loaded_for_them(
    counted: None,
) -> None:
    pixels = np.full((1, 200, 200), np.nan, np.float32)
    mask = (
        scene(pixels, ["red"]).chunk(y=64).cloudmask.predict(COUNTING, working_resolution="native").compute()
    )
    assert (mask.values == 255).all()
    assert testing.seen == []
    assert testing.loads == []
    pixels[0, 130, 130] = 0.5  # in the windows that start at 120 only, of those at 96, 120, 144
    mask = (
        scene(pixels, ["red"]).chunk(y=64).cloudmask.predict(COUNTING, working_resolution="native").compute()
    )
    assert (mask.values != 255).sum() == 1
    assert len(testing.seen) == 1


def big(name: str, step: float | None = None, across: int = 100) -> xr.DataArray:
    """100 x 100 chunks, or as many as are asked for."""
    rows = {"chunks of 512": 512, "chunks of 256": 256, "chunks of a patch and a bit": 300}[name]
    side = across * rows
    data = darr.zeros((2, side, side), chunks=(2, rows, rows), dtype="f4")
    coords = {} if step is None else {"y": -step * np.arange(side), "x": step * np.arange(side)}
    da = xr.DataArray(data, dims=("band", "y", "x"), coords=coords)
    return da.cloudmask.describe(bands=["red", "nir"], level="L1C")


def plan_and_write(da: xr.DataArray, **options: Any) -> tuple[Any, dict[Any, Any]]:
    mask = da.cloudmask.predict(TOY, **{"working_resolution": "native", **options})
    layer = mask.data.dask.layers[mask.data.name]
    return layer, dict(layer)


def test_ten_thousand_chunks_are_planned_with_few_calls_each() -> None:
    """Both halves: the call to predict, and the writing of every task, which a scheduler asks for later."""
    small, large = big("chunks of 512", across=30), big("chunks of 512")
    plan_and_write(small)  # imports are done
    few, many = calls(lambda: plan_and_write(small)), calls(lambda: plan_and_write(large))
    assert (many - few) / (100**2 - 30**2) < 400  # 216
    _, tasks = plan_and_write(large)
    assert sum(key[0].startswith("cloudmask") for key in tasks if isinstance(key, tuple)) == 10_000
    assert len(tasks) < 12 * 10_000


def test_predict_itself_costs_the_same_for_any_number_of_chunks() -> None:
    small, large = big("chunks of 512", across=30), big("chunks of 512")
    small.cloudmask.predict(TOY, working_resolution="native")  # imports are done
    few, many = (
        calls(lambda da=da: da.cloudmask.predict(TOY, working_resolution="native")) for da in (small, large)
    )
    assert many < 1.5 * few  # 1.06; with eleven times the chunks


@pytest.mark.parametrize(
    ("name", "factor", "options"),
    [
        ("chunks of 512", 1, {}),
        ("chunks of 256", 1, {"patch_size": 256, "overlap": 48}),
        ("chunks of a patch and a bit", 1, {"patch_size": 256, "overlap": 48}),
        ("chunks of 512", 3, {"patch_size": 256, "overlap": 48}),
        ("chunks of 256", 3, {"patch_size": 256, "overlap": 48}),
    ],
)
def test_a_chunk_costs_less_than_a_kilobyte(name: str, factor: int, options: dict[str, Any]) -> None:
    """At factor 3, that of 10 m pixels, a chunk is smaller than a window, and most tasks are strips."""
    layer, tasks = plan_and_write(big(name, step=30 / factor), working_resolution=30.0, **options)
    assert layer.plan.options.factors == (factor, factor)
    assert len(pickle.dumps(layer)) < 10_000
    assert len(pickle.dumps(tasks)) < 1024 * 10_000


def test_no_model_is_in_the_graph() -> None:
    da = scene(np.ones((2, 64, 64), np.float32), ["red", "nir"]).chunk(y=32)
    _, tasks = plan_and_write(da)
    text = pickle.dumps(tasks)
    assert b"xcloudmask.testing:load_toy" in text, "the name of the loader is all"
    assert b"torch.nn" not in text
    assert len(text) < 20_000
