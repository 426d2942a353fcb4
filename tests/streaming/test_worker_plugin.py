"""The plugin readies every worker, or names the one that is not fit."""

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from distributed import Client, LocalCluster

from tests.streaming.loaders import DEPENDENCY, WEIGHTS, cores, spec, times_loaded
from xcloudmask import models
from xcloudmask.engine.predictor import get_predictor
from xcloudmask.errors import CloudMaskError, OptionError
from xcloudmask.models.weights.fetch import digest
from xcloudmask.streaming import worker_plugin as module
from xcloudmask.streaming.worker_plugin import WorkerError, WorkerPlugin


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with (
        LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0", host="127.0.0.1"
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client


def hide(dependency: str) -> None:
    sys.modules[dependency] = None  # type: ignore[assignment]


def show(dependency: str) -> None:
    sys.modules.pop(dependency, None)


def point(path: str) -> None:
    os.environ[WEIGHTS] = path


def pretend(version: str) -> str:
    old, module.__version__ = module.__version__, version
    return old


def second(client: Client) -> tuple[str, Any]:
    """Address and name of one worker."""
    workers = client.scheduler_info(n_workers=-1)["workers"]
    address = sorted(workers)[-1]
    return address, workers[address]["name"]


def test_every_worker_loads_the_model_once_and_later_ones_too(client: Client) -> None:
    plugin = WorkerPlugin(spec("early"))
    client.register_plugin(plugin)
    assert list(client.run(times_loaded, "early").values()) == [1, 1]
    client.register_plugin(WorkerPlugin(spec("early")))
    assert list(client.run(times_loaded, "early").values()) == [1, 1]
    client.cluster.scale(3)
    client.wait_for_workers(3, timeout=60)
    assert list(client.run(times_loaded, "early").values()) == [1, 1, 1]
    client.unregister_worker_plugin(plugin.name)
    client.cluster.scale(2)
    # Not `wait_for_workers`: it overwrites the cluster's list of workers, and when the news that one has left
    # comes a moment after that, the cluster's own listener dies of a KeyError, which closing it then raises.
    deadline = time.monotonic() + 60
    while len(client.scheduler_info(n_workers=-1)["workers"]) > 2:
        assert time.monotonic() < deadline, "the third worker stayed"
        time.sleep(0.1)


def lanes_of(name: str) -> tuple[int, int]:
    predictor = get_predictor(models.get(name))
    return len(predictor._devices), predictor._devices[0].backend.lanes


@pytest.mark.network
def test_a_model_that_the_plugin_loads_uses_the_threads_of_the_worker_not_of_the_machine(
    client: Client,
) -> None:
    plugin = WorkerPlugin("ukis-4band-l1c")
    with cores(client, 8):
        client.register_plugin(plugin)
        assert set(client.run(lanes_of, "ukis-4band-l1c").values()) == {(1, 1)}
        client.unregister_worker_plugin(plugin.name)


def test_a_missing_dependency_is_named_with_the_worker(client: Client) -> None:
    address, name = second(client)
    client.run(hide, DEPENDENCY, workers=[address])
    plugin = WorkerPlugin(spec("lacking"))
    with pytest.raises(WorkerError, match=rf"worker {name} \({address}.*Install {DEPENDENCY} in the env"):
        client.register_plugin(plugin)
    client.run(show, DEPENDENCY, workers=[address])
    client.register_plugin(plugin)
    assert set(client.run(times_loaded, "lacking").values()) == {1}
    client.unregister_worker_plugin(plugin.name)


def test_other_weights_are_named_with_the_worker(client: Client, tmp_path: Path) -> None:
    (tmp_path / "right").write_bytes(b"weights")
    (tmp_path / "wrong").write_bytes(b"weighty")
    address, name = second(client)
    client.run(point, str(tmp_path / "right"))
    client.run(point, str(tmp_path / "wrong"), workers=[address])
    plugin = WorkerPlugin(spec("heavy", digest(b"weights")))
    with pytest.raises(WorkerError, match=rf"worker {name} .*wrong has SHA-256 {digest(b'weighty')}"):
        client.register_plugin(plugin)
    client.run(point, str(tmp_path / "right"))
    client.register_plugin(plugin)
    client.unregister_worker_plugin(plugin.name)


def test_another_version_is_named_with_the_worker(client: Client) -> None:
    address, name = second(client)
    old = client.run(pretend, "0.0.1", workers=[address])[address]
    with pytest.raises(WorkerError, match=rf"worker {name} .*it has xcloudmask 0\.0\.1, the client {old}"):
        client.register_plugin(WorkerPlugin(spec("aged")))
    client.run(pretend, old, workers=[address])
    client.unregister_worker_plugin("xcloudmask-aged-1")


def test_a_model_must_be_named() -> None:
    with pytest.raises(CloudMaskError, match="name the model"):
        WorkerPlugin("auto")
    with pytest.raises(OptionError, match="no-such"):
        WorkerPlugin("no-such")
