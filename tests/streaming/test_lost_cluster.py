"""What else a cluster can do to a run: restart, lose all its workers, go away, lose a future."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dask
import pytest
from distributed import Client, Future, LocalCluster

from tests.streaming.helpers import COUNTED, files, numbered
from xcloudmask.errors import ClusterError, StoreError
from xcloudmask.streaming import ProgressEvent, StreamReport, stream
from xcloudmask.streaming import cluster as module
from xcloudmask.streaming.cluster import ClusterPool

CUT: dict[str, Any] = {"chunks": {"y": 24, "x": 24}, "shards": {"y": 48, "x": 48}}


def write(
    store: Path, progress: Callable[[ProgressEvent], None] | bool = False, retries: int = 2
) -> StreamReport:
    """24 regions."""
    da = numbered(1, 180, 280).chunk(time=1, y=70)
    return stream(da, store, predict={"model": COUNTED}, progress=progress, retries=retries, **CUT)


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    home = tmp_path_factory.mktemp("alone")
    with dask.config.set(scheduler="sync"):
        stream(numbered(1, 180, 280), home, predict={"model": COUNTED}, progress=False, **CUT)
    return files(home)


@contextmanager
def connected(cluster: LocalCluster) -> Iterator[Client]:
    client = Client(cluster)  # one that is closed within its own `with` stays Dask's scheduler for ever
    try:
        yield client
    finally:
        client.close()


@pytest.fixture
def client() -> Iterator[Client]:
    before = dask.config.get("scheduler", None)
    with (
        LocalCluster(
            processes=False, n_workers=1, threads_per_worker=2, dashboard_address="127.0.0.1:0"
        ) as cluster,
        connected(cluster) as client,
    ):
        yield client
    assert dask.config.get("scheduler", None) == before


def once(done: int, act: Callable[[], Any]) -> Callable[[ProgressEvent], None]:
    """Do something when a number of regions are done."""
    acted: list[int] = []

    def progress(event: ProgressEvent) -> None:
        if event.done >= done and not acted:
            acted.append(event.done)
            act()

    return progress


def test_what_a_cluster_drops_is_made_again(
    client: Client, expected: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("xcloudmask.streaming.run.PAUSE", 0.05)
    dropped: set[str] = set()

    def progress(event: ProgressEvent) -> None:
        if event.kind == "done" and event.done < 12:
            futures = [Future(key, client) for key in list(client.futures)]
            dropped.update(future.key.partition("-")[0] for future in futures if future.status == "pending")
            client.cancel(futures)

    report = write(tmp_path / "a", progress, retries=30)
    assert dropped
    assert report.complete
    assert files(tmp_path / "a") == expected


def test_a_client_that_is_closed_ends_the_run_and_the_next_goes_on(
    client: Client, expected: dict[str, bytes], tmp_path: Path
) -> None:
    with pytest.raises(ClusterError, match=r"cluster is gone.*run the same call again"):
        write(tmp_path / "a", once(5, client.close))
    with connected(client.cluster):
        report = write(tmp_path / "a")
    assert report.skipped >= 5
    assert files(tmp_path / "a") == expected


def dismiss(client: Client) -> None:
    """Have no worker any more; nothing is started meanwhile."""
    client.cluster.scale(0)
    deadline = time.monotonic() + 60
    while client.nthreads():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_workers_that_are_all_gone_are_waited_for(
    client: Client,
    expected: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(module, "LOOK", 0.2)

    def dismiss_for_a_while() -> None:
        dismiss(client)
        threading.Timer(2, client.cluster.scale, (1,)).start()

    with caplog.at_level(logging.WARNING, "xcloudmask.streaming"):
        report = write(tmp_path / "a", once(5, dismiss_for_a_while))
    assert "has had no worker for" in caplog.text
    assert report.complete
    assert files(tmp_path / "a") == expected


def test_workers_that_do_not_come_back_end_the_run(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOOK", 0.2)
    monkeypatch.setattr(module, "NO_WORKERS", 1.0)
    with pytest.raises(ClusterError, match=r"has had no worker for \d+ s.*run the same call again"):
        write(tmp_path / "a", once(5, lambda: dismiss(client)))


def refuse(block: Any) -> Any:
    raise StoreError("cannot write region (0, 1, 2) to there: the disk is full")


def test_a_store_that_refuses_a_worker_ends_the_run(client: Client, tmp_path: Path) -> None:
    bad = numbered(1, 180, 280).chunk(time=1, y=70)
    bad = bad.copy(data=bad.data.map_blocks(refuse, dtype=bad.dtype, meta=bad.data._meta))
    with pytest.raises(StoreError, match="to there: the disk is full"):
        stream(bad, tmp_path, predict={"model": COUNTED}, progress=False, **CUT)


class FakeClient:
    """As much of a client as a pool looks at."""

    status = "running"

    def __init__(self, threads: int = 2) -> None:
        self.threads = threads

    def nthreads(self) -> dict[str, int]:
        return {"tcp://a": self.threads} if self.threads else {}


class FakeFuture:
    """A future whose callback Dask never calls."""

    def __init__(self, status: str) -> None:
        self.status = status

    def add_done_callback(self, call: Any) -> None:
        pass

    def exception(self) -> BaseException | None:
        return ValueError("no such band") if self.status == "error" else None


def test_a_future_whose_callback_never_comes_is_noticed_and_a_lost_one_is_not_done() -> None:
    pool = ClusterPool(FakeClient(), None)
    assert pool.size == 4
    futures = {status: FakeFuture(status) for status in ("pending", "finished", "lost", "error", "cancelled")}
    for future in futures.values():
        pool._watch(future)
    assert pool.wait(0.01) == [futures["finished"], futures["error"], futures["cancelled"]]
    assert pool.wait(0.01) == []
    futures["lost"].status = "finished"
    assert pool.wait(0.01) == [futures["lost"]]
    assert pool.error(futures["finished"]) is None
    assert isinstance(pool.error(futures["error"]), ValueError)
    assert "dropped" in str(pool.error(futures["cancelled"]))


def test_a_cluster_that_never_had_a_worker_is_not_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK", 0.0)
    monkeypatch.setattr(module, "NO_WORKERS", 0.05)
    client = FakeClient(threads=0)
    pool = ClusterPool(client, None)
    assert pool.size == 2
    time.sleep(0.1)
    assert pool.wait(0) == []
    client.threads = 8
    assert pool.wait(0) == []
    assert pool.size == 16
    client.threads = 0
    time.sleep(0.1)
    with pytest.raises(ClusterError, match="no worker"):
        pool.wait(0)


def test_it_is_told_when_nothing_ends_for_long(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "SLOW", 0.0)
    pool = ClusterPool(FakeClient(), None)
    pool._watch(FakeFuture("pending"))
    with caplog.at_level(logging.WARNING, "xcloudmask.streaming"):
        pool.wait(0.01)
        pool.wait(0.01)
    assert [record.getMessage()[:22] for record in caplog.records] == ["no region has ended for"[:22]]
