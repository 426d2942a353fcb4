"""The graph: names, keys and what Dask may do with the layer."""

import pickle
from typing import Any

import dask
import numpy as np
import pytest
import xarray as xr
from dask.core import flatten

from tests.scenes import noise, scene
from xcloudmask.engine import run_dask
from xcloudmask.testing import TOY

DA = scene(noise(2, 2, 64, 64), ["red", "nir"]).chunk(time=1, y=30)


@pytest.fixture(params=["passed whole", "cut to strips"])
def small(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether the chunks of these tests count as small."""
    if request.param == "cut to strips":
        monkeypatch.setattr(run_dask, "SMALL", 0)
    return request.param == "passed whole"


def test_names_follow_from_pixels_and_options_alone() -> None:
    name = DA.cloudmask.predict(TOY).data.name
    assert DA.cloudmask.predict(TOY).data.name == name
    others = [
        DA.cloudmask.predict_proba(TOY),
        DA.cloudmask.predict(TOY, overlap=4),
        DA.cloudmask.predict(TOY, threshold=0.3),
        DA.cloudmask.predict(TOY, tta=True),
        DA.chunk(y=20).cloudmask.predict(TOY),
        (DA + 0).cloudmask.predict(TOY),
    ]
    names = {name, *(other.data.name for other in others)}
    assert len(names) == 1 + len(others)


def test_two_calls_share_their_tasks() -> None:
    one, two = DA.cloudmask.predict(TOY), DA.cloudmask.predict(TOY)
    assert set(one.data.dask) == set((one + two).data.dask) & set(one.data.dask)
    assert len(dict((one == two).data.dask)) < 1.5 * len(dict(one.data.dask))


def test_the_layer_travels_and_is_the_same_there() -> None:
    for mask in (DA.cloudmask.predict(TOY), DA.cloudmask.predict_proba(TOY)):
        layer = mask.data.dask.layers[mask.data.name]
        twin = pickle.loads(pickle.dumps(layer))
        assert not twin.is_materialized()
        assert set(twin) == set(layer)
        assert twin.get_output_keys() == set(flatten(mask.data.__dask_keys__())) <= set(layer)


@pytest.mark.parametrize("elsewhere", [{}, {"priority": 9}])
def test_annotations_travel_with_the_layer(elsewhere: dict[str, int]) -> None:
    said = {"resources": {"GPU": 1}, "retries": 2}
    with dask.annotate(**said), dask.config.set(collection_annotations={"note": "measured"}):
        mask = DA.cloudmask.predict(TOY)
    plain = DA.cloudmask.predict_proba(TOY)
    layers = [each.data.dask.layers[each.data.name] for each in (mask, plain)]
    assert layers[0].annotations == said
    with dask.annotate(**elsewhere):  # what is said where it arrives is not its own
        twin, twin_of_plain = (pickle.loads(pickle.dumps(layer)) for layer in layers)
    assert twin.annotations == said
    assert twin.collection_annotations == layers[0].collection_annotations
    assert twin.collection_annotations["note"] == "measured"
    assert twin_of_plain.annotations is None


def test_the_output_has_the_inputs_chunks() -> None:
    mask = DA.cloudmask.predict(TOY)
    assert mask.chunksizes == {dim: DA.chunksizes[dim] for dim in ("time", "y", "x")}
    assert mask.dtype == np.uint8
    odds = DA.cloudmask.predict_proba(TOY)
    assert odds.chunksizes == {"time": (1, 1), "class": (3,), "y": (30, 30, 4), "x": (64,)}
    assert odds.dtype == np.float32
    assert odds.data._meta.dtype == np.float32


def test_chunks_computed_one_by_one_are_those_of_the_whole() -> None:
    mask = DA.cloudmask.predict(TOY)
    whole = mask.compute().values
    for (date, row, col), block in np.ndenumerate(mask.data.to_delayed()):
        top = sum(DA.chunksizes["y"][:row])
        found = block.compute(scheduler="sync")
        np.testing.assert_array_equal(found[0], whole[date, top : top + found.shape[1]])
        assert col == 0


def test_no_task_is_written_that_no_output_needs(small: bool) -> None:
    mask = (
        scene(noise(2, 130, 110), ["red", "nir"])
        .chunk(y=7, x=9)
        .cloudmask.predict(TOY, working_resolution="native")
    )
    layer = mask.data.dask.layers[mask.data.name]
    needed, waiting = set(), list(layer.get_output_keys())
    while waiting:
        key = waiting.pop()
        if key not in needed and key in layer:
            needed.add(key)
            waiting.extend(layer[key].dependencies)
    assert needed == set(layer)


def tasks_named(mask: xr.DataArray, *beginnings: str) -> list[Any]:
    layer = mask.data.dask.layers[mask.data.name]
    return [key for key in layer if isinstance(key, tuple) and key[0].startswith(beginnings)]


def test_a_large_chunk_is_cut_to_strips_but_not_for_its_own_windows(small: bool) -> None:
    mask = scene(noise(2, 130, 110), ["red", "nir"]).chunk(y=50, x=60).cloudmask.predict(TOY)
    strips = tasks_named(mask, "read-", "part-")
    assert small == (not strips)
    assert len(tasks_named(mask, "states-")) == (0 if small else 6)
    assert not [key for key in strips if key[1:3] == key[3:5]]


def test_a_chunk_of_many_dates_is_not_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_dask, "SMALL", 50 * 60)
    pixels = scene(noise(2, 2, 130, 110), ["red", "nir"]).chunk(y=50, x=60)
    for dates, cut in ((1, False), (2, True)):
        mask = pixels.chunk(time=dates).cloudmask.predict(TOY)
        assert bool(tasks_named(mask, "read-")) == cut
