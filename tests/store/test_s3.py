"""The same promises on a real S3 server."""

import random
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr
from zarr.storage import FsspecStore

from tests.services.s3 import S3
from tests.streaming.forward import Forwarder
from tests.streaming.helpers import COUNTED, Child, files, job, numbered, windows_of
from tests.streaming.killing import KillableCluster, killable, run_and_kill
from tests.streaming.test_kill import expected_owners
from xcloudmask.store import lock as lock_module
from xcloudmask.streaming import ProgressEvent, StoreError

__all__ = ["killable"]

pytestmark = [pytest.mark.services, pytest.mark.slow]
#: All these stores have overviews, so that whatever is killed, or down, may be so while they are written.
WITH: dict[str, Any] = {"overviews": (4,)}


def objects(s3: S3, prefix: str) -> dict[str, bytes]:
    fs = s3.filesystem()
    return {key.removeprefix(prefix + "/"): data for key, data in fs.cat(fs.find(prefix)).items()}


@pytest.fixture(scope="module")
def bucket(s3_server: S3) -> str:
    s3_server.filesystem().makedirs("masks", exist_ok=True)
    return "masks"


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    home = tmp_path_factory.mktemp("local")
    assert Child(job, str(home / "a"), str(home / "notes"), **WITH).end() is None
    made = files(home / "a")
    assert "overviews/4/cloud_mask/c/3/3/3" in made
    return made


def done(store: Any) -> set[tuple[int, ...]]:
    try:
        status = zarr.open_array(store, path="stream/status", mode="r")[...]
    except (FileNotFoundError, KeyError):
        return set()
    return {tuple(int(i) for i in at) for at in np.argwhere(status == 1)}


@pytest.mark.timeout(600)
def test_killed_on_s3_it_ends_byte_identical(
    s3_server: S3, bucket: str, expected: dict[str, bytes], tmp_path: Path
) -> None:
    options = s3_server.storage_options()
    began = time.monotonic()
    undisturbed = f"s3://{bucket}/undisturbed.zarr"
    assert Child(job, undisturbed, str(tmp_path / "u"), storage_options=options, **WITH).end() is None
    seconds = time.monotonic() - began
    chance, owner, kills = random.Random(5), expected_owners(), 0
    for round_ in range(19):
        url = f"s3://{bucket}/killed-{round_}.zarr"
        kills += run_and_kill(
            lambda notes, url=url: Child(job, url, str(notes), storage_options=options, **WITH),
            lambda url=url: done(FsspecStore.from_url(url, storage_options=options, read_only=True)),
            owner,
            lambda: chance.uniform(0.1, 0.6) * seconds,
            tmp_path / str(round_),
            most=5,
        )
        assert objects(s3_server, url.removeprefix("s3://")) == expected
        if kills >= 20:
            return
    raise AssertionError("the kills all came too late to be a test")


@pytest.mark.timeout(280)
def test_killed_workers_lose_nothing_on_s3(
    s3_server: S3, bucket: str, expected: dict[str, bytes], killable: KillableCluster
) -> None:
    options = s3_server.storage_options()

    def target(number: int) -> dict[str, Any]:
        return {"store": f"s3://{bucket}/workers-{number}.zarr", "storage_options": options, **WITH}

    killable.kill_20_times(17, target, expected_owners())
    written = [name for name in s3_server.filesystem().ls(bucket) if "/workers-" in name]
    assert 0 < len(written) < 20
    for name in written:
        assert objects(s3_server, name) == expected


def test_a_server_that_is_down_for_20_seconds_is_waited_for(
    s3_server: S3, bucket: str, expected: dict[str, bytes], tmp_path: Path
) -> None:
    forwarder, downs = Forwarder(s3_server.port), []
    options = {**s3_server.storage_options(), "endpoint_url": f"http://127.0.0.1:{forwarder.port}"}

    def progress(event: ProgressEvent) -> None:
        if event.done == 20 and not downs:
            downs.append(time.monotonic())
            forwarder.down()
            threading.Timer(20, forwarder.up).start()

    job(
        f"s3://{bucket}/down.zarr",
        str(tmp_path / "notes"),
        storage_options=options,
        progress=progress,
        **WITH,
    )
    assert time.monotonic() - downs[0] > 20
    assert sorted(windows_of(tmp_path / "notes")) == sorted(expected_owners())
    assert objects(s3_server, f"{bucket}/down.zarr") == expected


def test_a_wrong_key_and_an_absent_server_are_named(
    s3_server: S3, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(StoreError, match=r"(permission|access) denied"):
        job(f"s3://{bucket}/key.zarr", "", storage_options=s3_server.storage_options("wrong-secret"))
    monkeypatch.setattr("xcloudmask.store.retry.PATIENCE", 0.5)
    options = {**s3_server.storage_options(), "endpoint_url": "http://127.0.0.1:9"}
    with pytest.raises(StoreError, match="did not answer"):
        job(f"s3://{bucket}/absent.zarr", "", storage_options=options)


def test_a_lock_on_s3_is_put_if_absent(s3_server: S3, bucket: str) -> None:
    from xcloudmask.store.store import Target, open_store

    target = Target(open_store(f"s3://{bucket}/lock.zarr", s3_server.storage_options()))
    results: list[str] = []
    barrier = threading.Barrier(4)

    def take() -> None:
        lock = lock_module.Lock(target)
        barrier.wait()
        try:
            lock.acquire()
            results.append("taken")
        except StoreError:
            results.append("refused")

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == ["refused", "refused", "refused", "taken"]


def test_obstore_holds_the_same(
    s3_server: S3, bucket: str, expected: dict[str, bytes], tmp_path: Path
) -> None:
    obstore = pytest.importorskip("obstore.store")
    store = obstore.S3Store(
        bucket, prefix="obstore.zarr", aws_access_key_id=s3_server.key,
        aws_secret_access_key=s3_server.secret,
        aws_endpoint=s3_server.url, aws_region="us-east-1", client_options={"allow_http": True},
        virtual_hosted_style_request=False,
    )  # fmt: skip
    job(store, str(tmp_path / "notes"), **WITH)
    assert objects(s3_server, f"{bucket}/obstore.zarr") == expected
    found = xr.open_zarr(f"s3://{bucket}/obstore.zarr", storage_options=s3_server.storage_options())
    mask = numbered(4, 180, 190).cloudmask.predict(COUNTED)
    np.testing.assert_array_equal(found.cloud_mask.values, mask.values)
