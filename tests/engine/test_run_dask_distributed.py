"""A cluster gives what the laptop gives, bit for bit."""

from collections.abc import Iterator

import numpy as np
import pytest
from distributed import Client, LocalCluster

from tests.scenes import NAMES, noise, same_answer, scene, weather
from tests.streaming.loaders import cores
from xcloudmask.engine.malloc import map_large_blocks
from xcloudmask.testing import COUNTING, TOY


@pytest.fixture(scope="module", params=["threads", "processes"])
def client(request: pytest.FixtureRequest) -> Iterator[Client]:
    processes = request.param == "processes"
    workers = (
        {"n_workers": 2, "threads_per_worker": 1} if processes else {"n_workers": 1, "threads_per_worker": 4}
    )
    with (
        LocalCluster(
            processes=processes, dashboard_address=":0", protocol="tcp" if processes else "inproc", **workers
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client


@pytest.mark.parametrize("step", [10.0, 30.0])
def test_numpy_threads_and_cluster_agree(client: Client, step: float) -> None:
    pixels = noise(2, 2, 130, 110)
    pixels[1, :, 20:90, 30:] = np.nan
    da = scene(pixels, ["red", "nir"], step=step)
    lazy = da.chunk(time=1, band=1, y=(1, 50, 79), x=37)
    for predict in ("predict", "predict_proba"):
        expected = getattr(da.cloudmask, predict)(TOY)
        mask = getattr(lazy.cloudmask, predict)(TOY)
        same_answer(mask.compute(scheduler="threads"), expected)
        same_answer(mask.compute(scheduler="sync"), expected)
        same_answer(client.compute(mask).result(), expected)


@pytest.mark.network
def test_the_real_network_on_a_cluster(client: Client) -> None:
    da = scene(weather(300, 260, bands=4), NAMES[:4])
    expected = da.cloudmask.predict("ukis-4band-l1c").values
    assert len(np.unique(expected)) > 1
    mask = da.chunk(y=150, x=130).cloudmask.predict("ukis-4band-l1c")
    np.testing.assert_array_equal(client.compute(mask).result().values, expected)


def loads() -> int:
    from xcloudmask import testing

    return len(testing.loads)


def forget() -> None:
    from xcloudmask import testing
    from xcloudmask.engine import predictor

    predictor.unload()
    testing.loads.clear()
    testing.seen.clear()


def seen() -> int:
    from xcloudmask import testing

    return len(testing.seen)


def test_each_process_loads_the_model_once_and_each_window_is_inferred_once(client: Client) -> None:
    client.run(forget)
    da = scene(noise(1, 200, 200), ["red"]).chunk(y=40, x=40)
    mask = da.cloudmask.predict(COUNTING, working_resolution="native")
    client.compute(mask).result()
    assert set(client.run(loads).values()) == {1}
    assert sum(client.run(seen).values()) == 8 * 8


def threads() -> int:
    from xcloudmask.engine.devices import cpu_threads

    return cpu_threads()


def mapped() -> int:
    return map_large_blocks.cache_info().misses


def test_a_worker_that_runs_a_model_does_not_map_every_array_anew(client: Client) -> None:
    client.run(forget)
    map_large_blocks.cache_clear()
    da = scene(noise(1, 200, 200), ["red"]).chunk(y=40, x=40)
    client.compute(da.cloudmask.predict(COUNTING, working_resolution="native")).result()
    own_process = client.scheduler.address.startswith("tcp")
    assert set(client.run(mapped).values()) == {int(own_process)}, "in the user's process, nothing is changed"


def test_an_inference_uses_the_threads_of_its_worker(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    from dask.system import CPU_COUNT

    monkeypatch.delenv("XCLOUDMASK_NUM_THREADS", raising=False)
    own = set(client.nthreads().values())
    assert client.submit(threads, pure=False).result() == min(CPU_COUNT, *own)
    if client.scheduler.address.startswith("tcp"):  # processes of their own: not only in their tasks
        with cores(client, 8):
            assert set(client.run(threads).values()) == {1}
