"""Into Icechunk: a commit a batch, nothing seen before it, and nothing mixed where two write."""

import json
import logging
import os
import pickle
import random
import time
import warnings
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
import xarray as xr
import zarr

from tests.streaming.helpers import COUNTED, VARIABLE, Child, numbered, windows_of
from tests.streaming.killing import run_and_kill
from tests.streaming.test_kill import expected_owners
from xcloudmask import testing
from xcloudmask.errors import CloudMaskError
from xcloudmask.store import icechunk as repository_module
from xcloudmask.store.icechunk import BranchStore
from xcloudmask.streaming import ProgressEvent, StoreError, StoreLockedError, stream, to_zarr

icechunk = pytest.importorskip("icechunk")
CUT: dict[str, Any] = {"chunks": {"y": 24, "x": 24}, "shards": {"y": 48, "x": 48}, "progress": False}


def make(folder: Path) -> Any:
    return icechunk.Repository.open_or_create(icechunk.local_filesystem_storage(str(folder)))


@pytest.fixture
def repo(tmp_path: Path) -> Any:
    return make(tmp_path / "repo")


def messages(repo: Any, branch: str = "main") -> list[str]:
    """The newest last, without the repository's own first."""
    return [commit.message for commit in repo.ancestry(branch=branch)][::-1][1:]


def content(repo: Any) -> dict[str, bytes]:
    """All keys of the last commit."""
    from zarr.core.buffer import default_buffer_prototype
    from zarr.core.sync import sync

    store = repo.readonly_session("main").store

    async def read() -> dict[str, bytes]:
        keys = [key async for key in store.list()]
        found = {key: await store.get(key, default_buffer_prototype()) for key in sorted(keys)}
        return {key: value.to_bytes() for key, value in found.items() if value is not None}

    return dict(sync(read()))


def last(repo: Any, group: str | None = None, branch: str = "main") -> xr.DataArray:
    store = repo.readonly_session(branch).store
    return xr.open_zarr(store, group=group, consolidated=False).cloud_mask


def done(repo: Any) -> set[tuple[int, ...]]:
    try:
        status = zarr.open_array(repo.readonly_session("main").store, path="stream/status", mode="r")[...]
    except FileNotFoundError:
        return set()
    return {tuple(int(i) for i in at) for at in np.argwhere(status == 1)}


def test_a_session_is_the_callers_transaction(repo: Any) -> None:
    da = numbered(3, 100, 110)
    session = repo.writable_session("main")
    first = stream(da.isel(time=slice(0, 2)), session, predict={"model": COUNTED}, **CUT)
    assert first.written == 2 * 9
    assert messages(repo) == []
    session.commit("S2A_000, S2A_001")
    crashed = repo.writable_session("main")
    stream(da, crashed, predict={"model": COUNTED}, **CUT)
    del crashed  # never committed
    expected = da.cloudmask.predict(COUNTED)
    np.testing.assert_array_equal(last(repo).values, expected.values[:2])
    session = repo.writable_session("main")
    report = stream(da, session, predict={"model": COUNTED}, **CUT)
    assert (report.written, report.skipped) == (9, 18)
    session.commit("S2A_002")
    np.testing.assert_array_equal(last(repo).values, expected.values)
    with pytest.raises(CloudMaskError, match="read-only"):
        stream(da, repo.readonly_session("main"), predict={"model": COUNTED}, **CUT)


def test_a_repository_gets_a_commit_a_batch_that_names_the_scenes(
    repo: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repository_module, "BATCH", 12)
    da, seen = numbered(3, 100, 110), []

    def progress(event: ProgressEvent) -> None:
        seen.append((event.done, len(messages(repo))))

    report = stream(
        da, repo, predict={"model": COUNTED}, **{**CUT, "progress": progress}, regions_in_flight=1
    )
    assert report.complete
    told = messages(repo)
    assert told[0] == "cloud_mask: arrays and labels"
    assert told[1] == (
        "cloud_mask: 12 regions of time 2026-05-01T10:30:00 S2A_000, time 2026-05-06T10:30:00 S2A_001"
    )
    assert sum(int(one.split()[1]) for one in told[1:]) == report.regions == 27
    assert all(f"S2A_{step:03d}" in " ".join(told) for step in range(3))
    assert len(told) == 4
    assert {commits for _, commits in seen} == {1, 2, 3}  # in the course of the run, not at its end
    metadata = next(iter(repo.ancestry(branch="main"))).metadata
    assert metadata["regions"] == 3
    assert metadata["scenes"] == ["time 2026-05-11T10:30:00 S2A_002"]
    np.testing.assert_array_equal(last(repo).values, da.cloudmask.predict(COUNTED).values)
    assert not [key for key in content(repo) if "strips" in key]

    testing.seen.clear()
    again = stream(da, repo, predict={"model": COUNTED}, **CUT)
    assert (again.written, again.skipped) == (0, 27)
    assert messages(repo) == told  # nothing to commit


def test_scenes_are_appended_replaced_and_told_apart_by_group_and_branch(repo: Any) -> None:
    da = numbered(3, 100, 110)
    expected = da.cloudmask.predict(COUNTED).values
    stream(da.isel(time=slice(0, 2)), repo, predict={"model": COUNTED}, group="a/b", **CUT)
    assert stream(da, repo, predict={"model": COUNTED}, group="a/b", **CUT).written == 9
    np.testing.assert_array_equal(last(repo, "a/b").values, expected)
    with pytest.raises(CloudMaskError, match="threshold"):
        stream(da, repo, predict={"model": COUNTED, "threshold": 0.9}, group="a/b", **CUT)
    before = messages(repo)
    repo.create_branch("trial", repo.lookup_branch("main"))
    branch = {"branch": "trial"}
    stream(
        da,
        repo,
        predict={"model": COUNTED, "threshold": 0.9},
        group="a/b",
        overwrite=True,
        storage_options=branch,
        **CUT,
    )
    assert messages(repo) == before
    np.testing.assert_array_equal(last(repo, "a/b").values, expected)
    other = da.cloudmask.predict(COUNTED, threshold=0.9).values
    assert (other != expected).any()
    np.testing.assert_array_equal(last(repo, "a/b", "trial").values, other)


def test_what_was_done_is_committed_when_a_run_fails(repo: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    da = numbered(2, 100, 110)

    def progress(event: ProgressEvent) -> None:
        if event.done == 11:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stream(da, repo, predict={"model": COUNTED}, **{**CUT, "progress": progress})
    assert len(messages(repo)) == 2
    kept = len(done(repo))
    assert 10 <= kept <= 18
    report = stream(da, repo, predict={"model": COUNTED}, **CUT)
    assert report.skipped == kept
    np.testing.assert_array_equal(last(repo).values, da.cloudmask.predict(COUNTED).values)


def test_a_failed_region_is_committed_as_such(repo: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xcloudmask.streaming.run.PAUSE", 0.01)
    da = numbered(1, 100, 110)

    def fail(block: Any, block_info: Any = None) -> Any:
        if block_info[0]["chunk-location"][2] == 1:
            raise ValueError("poison")
        return block

    bad = da.chunk(y=70)
    bad = bad.copy(data=bad.data.map_blocks(fail, dtype=da.dtype))
    with pytest.warns(UserWarning, match="poison"):
        report = stream(bad, repo, predict={"model": COUNTED}, retries=0, **CUT)
    assert report.failed
    status = zarr.open_array(repo.readonly_session("main").store, path="stream/status", mode="r")
    assert (status[...] == 2).sum() == len(report.failed)
    assert "poison" in json.dumps(dict(status.attrs))
    assert f"({len(report.failed)} failed)" in messages(repo)[-1]
    assert stream(da.chunk(y=70), repo, predict={"model": COUNTED}, **CUT).complete


def test_two_writers_of_a_group_are_never_mixed(repo: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repository_module, "BATCH", 4)
    da, inner = numbered(2, 100, 110), []

    def progress(event: ProgressEvent) -> None:
        if event.done == 10 and not inner:
            inner.append(
                stream(da, repo, predict={"model": COUNTED, "threshold": 0.9}, overwrite=True, **CUT)
            )

    with pytest.raises(StoreLockedError, match="another process has committed to the root group"):
        stream(da, repo, predict={"model": COUNTED}, **{**CUT, "progress": progress})
    np.testing.assert_array_equal(last(repo).values, da.cloudmask.predict(COUNTED, threshold=0.9).values)
    assert stream(da, repo, predict={"model": COUNTED, "threshold": 0.9}, **CUT).skipped == 18


def test_the_same_call_twice_at_once_ends_with_the_same_result(
    repo: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even where the two touched different chunks: what one knows of the regions would be out of date."""
    monkeypatch.setattr(repository_module, "BATCH", 4)
    da, inner = numbered(2, 100, 110), []

    def progress(event: ProgressEvent) -> None:
        if event.done == 10 and not inner:
            other = BranchStore(repo)
            zarr.open_array(other, path="cloud_mask")[1, 99:, 109:] = 7
            inner.append(other.commit("by hand", {}, "", None))

    with pytest.raises(StoreLockedError):
        stream(da, repo, predict={"model": COUNTED}, **{**CUT, "progress": progress}, regions_in_flight=1)
    assert stream(da, repo, predict={"model": COUNTED}, **CUT).complete
    np.testing.assert_array_equal(last(repo).values, da.cloudmask.predict(COUNTED).values)


def test_writers_of_two_groups_do_not_hinder_each_other(
    repo: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(repository_module, "BATCH", 4)
    da, inner = numbered(2, 100, 110), []

    def progress(event: ProgressEvent) -> None:
        if event.done == 10 and not inner:
            inner.append(stream(da, repo, predict={"model": COUNTED, "threshold": 0.9}, group="b", **CUT))

    with caplog.at_level(logging.INFO, "xcloudmask.streaming"):
        report = stream(da, repo, predict={"model": COUNTED}, group="a", **{**CUT, "progress": progress})
    assert report.complete
    assert "another process has committed elsewhere" in caplog.text
    for group, threshold in (("a", None), ("b", 0.9)):
        expected = da.cloudmask.predict(COUNTED, threshold=threshold).values
        np.testing.assert_array_equal(last(repo, group).values, expected)


def test_a_mask_is_written_and_a_store_read_elsewhere(repo: Any) -> None:
    mask = numbered(1, 100, 110).chunk(time=1, y=60).cloudmask.predict(COUNTED)
    to_zarr(mask, repo, **CUT)
    store = pickle.loads(pickle.dumps(BranchStore(repo)))
    with pytest.raises(ValueError, match="read-only"):
        zarr.open_array(store, path="cloud_mask", mode="r+")
    np.testing.assert_array_equal(zarr.open_array(store, path="cloud_mask", mode="r")[...], mask.values)


def test_a_repository_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    repo, da = make(tmp_path / "repo"), numbered(1, 100, 110)

    def progress(event: ProgressEvent) -> None:
        if event.done == 2 and (tmp_path / "repo" / "refs").is_dir():
            (tmp_path / "repo").rename(tmp_path / "away")
            (tmp_path / "repo").write_text("")

    with pytest.raises(StoreError, match="a part of the path is a file"):
        stream(da, repo, predict={"model": COUNTED}, **{**CUT, "progress": progress})
    (tmp_path / "repo").unlink()
    (tmp_path / "away").rename(tmp_path / "repo")
    repo = make(tmp_path / "repo")
    assert stream(da, repo, predict={"model": COUNTED}, **CUT).complete
    np.testing.assert_array_equal(last(repo).values, da.cloudmask.predict(COUNTED).values)


def job(folder: str, notes: str) -> None:
    """The work of the kill tests, four regions a commit."""
    os.environ[VARIABLE] = notes
    repository_module.BATCH = 4
    with warnings.catch_warnings(), dask.config.set(scheduler="threads"):
        da = numbered(4, 180, 190).chunk(time=1, y=70, x=190)
        stream(da, make(Path(folder)), predict={"model": COUNTED}, **CUT)


@pytest.mark.slow
def test_killed_at_random_moments_it_goes_on_at_the_last_commit(tmp_path: Path) -> None:
    """20 moments in runs of 64 regions."""
    make(tmp_path / "warm"), make(tmp_path / "whole")
    assert Child(job, str(tmp_path / "warm"), str(tmp_path / "notes-warm")).end() is None
    began = time.monotonic()
    assert Child(job, str(tmp_path / "whole"), str(tmp_path / "notes")).end() is None
    seconds = time.monotonic() - began
    whole = content(make(tmp_path / "whole"))
    owner, chance, kills, rounds = expected_owners(), random.Random(7), 0, 0
    assert sorted(windows_of(tmp_path / "notes")) == sorted(owner)
    while kills < 20:
        rounds += 1
        folder = tmp_path / str(rounds)

        def committed(folder: Path = folder) -> set[tuple[int, ...]]:
            repo = make(folder)  # the last commit is always readable
            finished = done(repo)
            if finished:
                assert last(repo).shape == (4, 180, 190)
            return finished

        kills += run_and_kill(
            lambda notes, folder=folder: Child(job, str(folder), str(notes)),
            committed,
            owner,
            lambda: chance.uniform(0.1, 0.7) * seconds,
            tmp_path / f"notes-{rounds}",
        )
        assert content(make(folder)) == whole
    assert rounds < 20


@pytest.mark.services
def test_a_repository_on_s3_by_its_address(s3_server: Any) -> None:
    s3_server.filesystem().makedirs("ice", exist_ok=True)
    options = {
        "endpoint_url": s3_server.url, "allow_http": True, "force_path_style": True, "region": "us-east-1",
        "access_key_id": s3_server.key, "secret_access_key": s3_server.secret,
    }  # fmt: skip
    da = numbered(1, 90, 80)
    how: dict[str, Any] = {"storage_options": options, **CUT}
    report = stream(da, "icechunk:s3://ice/deep/masks", predict={"model": COUNTED}, **how)
    assert (report.written, report.skipped) == (4, 0)
    repo = icechunk.Repository.open(icechunk.s3_storage(bucket="ice", prefix="deep/masks", **options))
    found = xr.open_zarr(repo.readonly_session("main").store, consolidated=False).cloud_mask
    np.testing.assert_array_equal(found.values, da.cloudmask.predict(COUNTED).values)
    assert stream(da, "icechunk:s3://ice/deep/masks", predict={"model": COUNTED}, **how).skipped == 4
    with pytest.raises(StoreError, match=r"icechunk:s3://ice/deep/masks \(branch gone\) cannot be opened"):
        stream(
            da,
            "icechunk:s3://ice/deep/masks",
            predict={"model": COUNTED},
            **{**how, "storage_options": {**options, "branch": "gone"}},
        )
