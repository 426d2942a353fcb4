"""The same call on a cluster: workers write, the client gathers nothing."""

import os
import pickle
import random
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
import xarray as xr
from distributed import Client, LocalCluster

from tests.streaming.helpers import COUNTED, VARIABLE, files, numbered, windows_of
from xcloudmask.streaming import stream


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    os.environ[VARIABLE] = str(tmp_path_factory.mktemp("notes") / "windows")
    with (
        # LocalCluster would give up a worker that is just coming back after a second kill.
        dask.config.set({"distributed.deploy.lost-worker-timeout": "1h"}),
        LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0", host="127.0.0.1"
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client
    del os.environ[VARIABLE]


def notes() -> Path:
    return Path(os.environ[VARIABLE])


def cut() -> dict[str, Any]:
    return {"chunks": {"y": 24, "x": 24}, "shards": {"y": 48, "x": 48}, "progress": False}


def test_workers_write_each_window_once(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gather, gathered = client.gather, []

    def note(*args: Any, **kwargs: Any) -> Any:
        found = gather(*args, **kwargs)
        gathered.append(len(pickle.dumps(found)))
        return found

    da = numbered(2, 180, 190).chunk(time=1, y=70)
    monkeypatch.setattr(client, "gather", note)
    report = stream(da, tmp_path / "a", predict={"model": COUNTED}, **cut())
    assert report.written == 2 * 16
    seen = windows_of(notes())
    assert len(set(seen)) == len(seen)
    monkeypatch.undo()
    assert sum(gathered) < 2000  # labels only
    deadline = time.monotonic() + 20
    while any("infer" in str(key) or "finish" in str(key) for key in client.who_has()):  # all is let go
        assert time.monotonic() < deadline
        time.sleep(0.1)
    expected = da.compute(scheduler="sync").cloudmask.predict(COUNTED)
    np.testing.assert_array_equal(xr.open_zarr(tmp_path / "a").cloud_mask.values, expected.values)


def test_killed_workers_lose_nothing(client: Client, tmp_path: Path) -> None:
    chance, stop, kills = random.Random(3), threading.Event(), []

    def kill() -> None:
        while not stop.wait(chance.uniform(0.3, 1.0)):
            pids = list(client.run(os.getpid).values())
            if pids and len(kills) < 2:
                kills.append(pids[0])
                os.kill(pids[0], signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        da = numbered(2, 180, 190).chunk(time=1, y=70, x=190)
        report = stream(da, tmp_path / "a", predict={"model": COUNTED}, **cut())
    finally:
        stop.set()
        killer.join()
    assert report.complete
    assert kills
    environment = os.environ.pop(VARIABLE)
    try:
        with dask.config.set(scheduler="sync"):
            alone = numbered(2, 180, 190)
            stream(alone, tmp_path / "b", predict={"model": COUNTED}, **cut())
    finally:
        os.environ[VARIABLE] = environment
    assert files(tmp_path / "a") == files(tmp_path / "b")
