"""One writer at a time, and what a store may do to it."""

import errno
import io
import json
import os
import resource
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from zarr.storage import LocalStore, WrapperStore

import xcloudmask
from tests.streaming.helpers import COUNTED, VARIABLE, Child, described, files, job, numbered
from xcloudmask import testing
from xcloudmask.errors import CloudMaskError, ContractError
from xcloudmask.store import lock
from xcloudmask.store.retry import call_with_retries
from xcloudmask.store.store import Target
from xcloudmask.streaming import ProgressEvent, StoreError, StoreLockedError, progress, stream

SMALL: dict[str, Any] = {"chunks": {"y": 32, "x": 32}, "shards": {"y": 64, "x": 64}, "progress": False}


def scene() -> xr.DataArray:
    return described(np.random.default_rng(1).random((2, 2, 150, 130), dtype=np.float32), ["red", "nir"])


class Faulty(WrapperStore):
    """A local store whose writes fail from some moment on."""

    def __init__(
        self, store: Any, error: Exception | None = None, after: int = 0, until: int = 10**9
    ) -> None:
        super().__init__(store)
        self.error, self.after, self.until, self.writes = error, after, until, 0

    def _fail(self) -> None:
        self.writes += 1
        if self.error is not None and self.after < self.writes <= self.until:
            raise self.error

    async def set(self, key: str, value: Any) -> None:
        self._fail()
        await self._store.set(key, value)

    async def set_if_not_exists(self, key: str, value: Any) -> None:
        self._fail()
        await self._store.set_if_not_exists(key, value)


FAULTS = [
    (OSError(errno.ENOSPC, "No space left on device"), "the disk is full. Free some space"),
    (OSError(errno.EROFS, "Read-only file system"), "read-only"),
    (PermissionError(errno.EACCES, "Permission denied"), "permission denied. Ask for write access"),
    (
        OSError("An error occurred (AccessDenied) when calling PutObject"),
        "access denied. Check the credentials",
    ),
]


@pytest.mark.parametrize("after", [0, 3, 40, 55])
@pytest.mark.parametrize(("error", "words"), FAULTS)
def test_a_store_that_refuses_is_named_and_stays_usable(
    error: OSError, words: str, after: int, tmp_path: Path
) -> None:
    da, store = scene(), Faulty(LocalStore(tmp_path / "a"), error, after)
    with pytest.raises(StoreError, match=words) as caught:
        stream(da, store, predict={"model": testing.TOY}, **SMALL)
    assert "run the same call again" in str(caught.value)
    assert str(tmp_path) in str(caught.value)
    if after > 30:
        assert xr.open_zarr(tmp_path / "a").cloud_mask.shape == (2, 150, 130)
    store.error = None
    assert stream(da, store, predict={"model": testing.TOY}, **SMALL).complete
    stream(da, tmp_path / "b", predict={"model": testing.TOY}, **SMALL)
    assert files(tmp_path / "a") == files(tmp_path / "b")


def test_a_store_opened_read_only_is_refused(tmp_path: Path) -> None:
    stream(scene(), tmp_path, predict={"model": testing.TOY}, **SMALL)
    with pytest.raises(StoreError, match="opened read-only"):
        stream(scene(), LocalStore(tmp_path, read_only=True), predict={"model": testing.TOY}, **SMALL)


def test_a_path_through_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="a part of the path is a file"):
        stream(scene(), tmp_path / "file" / "masks", predict={"model": testing.TOY}, **SMALL)


def limited(store: str) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))
    stream(scene(), store, predict={"model": testing.TOY}, **SMALL)


def test_a_limit_on_file_sizes_is_named_by_a_real_kernel(tmp_path: Path) -> None:
    error = Child(limited, str(tmp_path)).end()
    assert error is not None
    assert "StoreError" in error
    assert "allows no file that large" in error
    assert stream(scene(), tmp_path, predict={"model": testing.TOY}, **SMALL).complete


def test_an_unreachable_store_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("xcloudmask.store.retry.time.sleep", pauses.append)
    store = Faulty(LocalStore(tmp_path), ConnectionRefusedError(111, "Connection refused"), 30, 36)
    assert stream(scene(), store, predict={"model": testing.TOY}, regions_in_flight=1, **SMALL).complete
    assert pauses[:2] == [0.25, 0.5]
    store.after, store.until = 0, 10**9
    monkeypatch.setattr("xcloudmask.store.retry.PATIENCE", 0.1)
    with pytest.raises(StoreError, match=r"did not answer for 0 s.*run the same call again"):
        stream(scene(), store, predict={"model": testing.TOY}, **SMALL)


def test_a_write_that_ends_while_its_place_is_cleared_is_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Vanishing(WrapperStore):
        vanished = 0

        async def delete_dir(self, prefix: str) -> None:
            if self.vanished < 2:
                self.vanished += 1
                raise FileNotFoundError(2, "No such file or directory", "zarr.5cb3.partial")
            await self._store.delete_dir(prefix)

    pauses: list[float] = []
    monkeypatch.setattr("xcloudmask.store.retry.time.sleep", pauses.append)
    store = Vanishing(LocalStore(tmp_path))
    assert stream(scene(), store, predict={"model": testing.TOY}, **SMALL).complete
    assert store.vanished == 2
    assert pauses == [0.25, 0.5]


def test_an_error_of_the_program_is_not_waited_out() -> None:
    with pytest.raises(ZeroDivisionError):
        call_with_retries("divide", lambda: 1 / 0)


def slow_job(store: str) -> None:
    stream(
        numbered(1, 300, 300), store, predict={"model": COUNTED}, shards={"y": 40, "x": 40},
        chunks={"y": 40, "x": 40}, regions_in_flight=1, progress=lambda event: time.sleep(0.2),
    )  # fmt: skip


def wait_for(condition: Any, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_second_writer_is_refused_and_a_killed_ones_lock_is_taken_at_once(tmp_path: Path) -> None:
    child = Child(slow_job, str(tmp_path))
    try:
        wait_for((tmp_path / "stream" / "status" / "c").exists)
        da = numbered(1, 300, 300)
        with pytest.raises(StoreLockedError, match=f"process {child.process.pid} on .* since"):
            stream(da, tmp_path, predict={"model": COUNTED}, progress=False)
        stream(da, tmp_path, predict={"model": COUNTED}, progress=False, group="another")
    finally:
        child.kill()
    options = {"shards": {"y": 40, "x": 40}, "chunks": {"y": 40, "x": 40}, "progress": False}
    report = stream(da, tmp_path, predict={"model": COUNTED}, **options)
    assert report.complete
    assert report.skipped > 0
    assert not list(tmp_path.rglob("lock.*"))


def test_who_is_gone() -> None:
    me, now = lock.here(), time.time()
    mine = {**me, "renewed": now}
    assert not lock.is_stale(mine, me, now)
    assert lock.is_stale({**mine, "pid": 2**22 + 1}, me, now)  # no such process
    assert lock.is_stale({**mine, "started": "1"}, me, now)  # the number was given to another process
    assert lock.is_stale({**mine, "boot": "before"}, me, now)  # this machine was restarted
    assert not lock.is_stale({**mine, "pids": "another container", "pid": 2**22 + 1}, me, now)
    assert not lock.is_stale({**mine, "host": "elsewhere", "boot": "other"}, me, now)
    assert lock.is_stale({**mine, "host": "elsewhere", "renewed": now - lock.LEASE - 1}, me, now)


def test_of_two_who_take_over_one_wins(tmp_path: Path) -> None:
    target = Target(LocalStore(tmp_path))
    stale = {**lock.here(), "host": "elsewhere", "renewed": 0.0, "owner": "x"}
    target.put_json(
        {"zarr_format": 3, "node_type": "group", "attributes": stale}, "stream", "lock.1", "zarr.json"
    )
    first, second = lock.Lock(target), lock.Lock(target)
    first.acquire()
    assert first.number == 2
    with pytest.raises(StoreLockedError):
        second.acquire()
    first.release()
    second.acquire()
    assert second.number == 1
    second.release()
    assert files(tmp_path) == {}


def test_an_owner_who_slept_and_was_replaced_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "RENEWAL", 0.02)
    target = Target(LocalStore(tmp_path))
    sleeper, other = lock.Lock(target), lock.Lock(target)
    sleeper.acquire()
    monkeypatch.setattr(lock, "is_stale", lambda *_: True)
    other.acquire()
    assert other.number == 2
    wait_for(lambda: sleeper.lost is not None)
    with pytest.raises(StoreLockedError, match="taken over"):
        sleeper.check()
    sleeper.release()
    other.release()


def race(store: str, notes: str) -> None:
    job(store, notes)


def test_two_writers_at_the_same_time_give_no_mixture(tmp_path: Path) -> None:
    children = [Child(race, str(tmp_path / "a"), str(tmp_path / f"notes{i}")) for i in range(2)]
    errors = [child.end() for child in children]
    refused = [error for error in errors if error is not None]
    assert len(refused) <= 1
    assert all("StoreLockedError" in error for error in refused)
    seen = [line for i in range(2) for line in _lines(tmp_path / f"notes{i}")]
    assert len(set(seen)) == len(seen) > 0
    Child(job, str(tmp_path / "b"), str(tmp_path / "alone")).end()
    assert files(tmp_path / "a") == files(tmp_path / "b")


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def test_half_created_stores_are_made_anew(tmp_path: Path) -> None:
    da = scene()
    stream(da, tmp_path / "whole", predict={"model": testing.TOY}, **SMALL)
    for after in (2, 4, 7, 11, 16, 21):
        store = Faulty(LocalStore(tmp_path / str(after)), OSError(errno.ENOSPC, "full"), after)
        with pytest.raises(StoreError):
            stream(da, store, predict={"model": testing.TOY}, **SMALL)
        stream(da, tmp_path / str(after), predict={"model": testing.TOY}, **SMALL)
        assert files(tmp_path / str(after)) == files(tmp_path / "whole")


def test_half_appended_stores_are_cut_back(tmp_path: Path) -> None:
    da = scene()
    stream(da, tmp_path / "whole", predict={"model": testing.TOY}, **SMALL)
    for after in (1, 3, 5, 6, 8, 11):
        path = tmp_path / str(after)
        stream(da.isel(time=[0]), path, predict={"model": testing.TOY}, **SMALL)
        with pytest.raises(StoreError):
            stream(
                da,
                Faulty(LocalStore(path), OSError(errno.ENOSPC, "full"), after),
                predict={"model": testing.TOY},
                **SMALL,
            )
        assert xr.open_zarr(path).sizes["time"] in (1, 2)  # whichever its list of arrays says
        stream(da, path, predict={"model": testing.TOY}, **SMALL)
        assert files(path) == files(tmp_path / "whole")


def test_progress_is_told_to_programs_people_and_notebooks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    events: list[ProgressEvent] = []
    stream(scene(), tmp_path / "a", predict={"model": testing.TOY}, **{**SMALL, "progress": events.append})
    assert [event.kind for event in events] == ["start", *["done"] * 18, "end"]
    assert [event.done for event in events] == [*range(19), 18]
    assert events[-1].megapixels == pytest.approx(2 * 150 * 130 / 1e6)
    assert events[5].scene.startswith("time 2026-05-01T10:30:00 S2A_000")
    assert events[-1].left == 0
    stream(scene(), tmp_path / "b", predict={"model": testing.TOY}, **{**SMALL, "progress": True})
    shown = capsys.readouterr().err
    assert "18/18 regions" in shown
    assert "Mpx/s" in shown
    terminal = io.StringIO()
    terminal.isatty = lambda: True  # type: ignore[method-assign]
    for stream_, lines in ((terminal, 1), (io.StringIO(), 2)):
        show = progress.Bar("masks", stream_)
        for event in events:
            show(event)
        assert stream_.getvalue().count("\n") == lines  # a file has the first and the last
        assert "18/18 regions" in stream_.getvalue()
    assert "100 %" in terminal.getvalue()
    assert terminal.getvalue().count("\r") > 1
    assert os.environ.get(VARIABLE) is None


def test_a_bar_is_shown_where_somebody_looks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {**SMALL, "progress": "auto"}
    stream(scene(), tmp_path / "a", predict={"model": testing.TOY}, **asked)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    stream(scene(), tmp_path / "b", predict={"model": testing.TOY}, **asked)
    assert "18/18 regions" in capsys.readouterr().err
    with pytest.raises(CloudMaskError, match=r"unknown progress 'yes'.*Allowed: auto, True, False"):
        stream(scene(), tmp_path / "c", predict={"model": testing.TOY}, **{**SMALL, "progress": "yes"})


def test_sweeping_leaves_groups_within_alone(tmp_path: Path) -> None:
    stream(scene(), tmp_path, predict={"model": testing.TOY}, **SMALL)
    stream(scene(), tmp_path, predict={"model": testing.TOY}, group="inner", **SMALL)
    left = tmp_path / "cloud_mask" / "c" / "0.ab.partial"
    others = tmp_path / "inner" / "cloud_mask" / "c" / "0.cd.partial"  # another writer is at it
    left.touch()
    others.touch()
    stream(scene(), tmp_path, predict={"model": testing.TOY}, **SMALL)
    assert not left.exists()
    assert others.exists()


def test_what_a_killed_writer_left_is_no_stranger(tmp_path: Path) -> None:
    """A kill while a new store is made may leave half a document: the list of arrays is made all the same."""
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    for store in (whole, cut):
        stream(scene(), store, predict={"model": testing.TOY}, **SMALL)
    shutil.rmtree(cut / "stream" / "copy")  # that is the last to be written
    header = cut / "stream" / "zarr.json"
    header.write_text(json.dumps({**json.loads(header.read_text()), "attributes": {"state": "creating"}}))
    (cut / "zarr.0123456789abcdef.partial").write_bytes(b"{")
    stream(scene(), cut, predict={"model": testing.TOY}, **SMALL)
    assert files(cut) == files(whole)


def test_locks_of_a_run_killed_as_it_gave_them_back_are_cleared_away(tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    for store in (whole, cut):
        stream(scene(), store, predict={"model": testing.TOY}, **SMALL)
    for number in (4, 5, 11):  # 1 to 3 were deleted already
        (cut / "stream" / f"lock.{number}").mkdir()
        (cut / "stream" / f"lock.{number}" / "zarr.json").write_text('{"node_type": "group"}')
    stream(scene(), cut, predict={"model": testing.TOY}, **SMALL)
    assert files(cut) == files(whole)
    assert not list((cut / "stream").glob("lock.*"))


@pytest.mark.parametrize("ending", [KeyboardInterrupt, RuntimeError])
def test_what_was_told_to_be_done_is_not_done_again(tmp_path: Path, ending: type[BaseException]) -> None:
    def stop(event: ProgressEvent) -> None:
        if event.kind == "done" and event.done == 3:
            raise ending

    with pytest.raises(ending):
        stream(scene(), tmp_path, predict={"model": testing.TOY}, **{**SMALL, "progress": stop})
    assert stream(scene(), tmp_path, predict={"model": testing.TOY}, **SMALL).skipped >= 3


def test_chunks_that_would_be_read_again_and_again_are_told_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stream(scene().chunk(time=2), tmp_path, predict={"model": testing.TOY}, **SMALL)
    assert "holds 2 steps along 'time', a region of the store 1" in caplog.text


@pytest.mark.parametrize("call", ["open_masks", "verify", "stac_of", "add_overviews", "timeseries"])
def test_what_reads_a_path_that_is_not_there_says_so_and_makes_nothing(call: str, tmp_path: Path) -> None:
    with pytest.raises(ContractError, match=r"mistyped\.zarr does not exist. Check the path"):
        getattr(xcloudmask, call)(tmp_path / "mistyped.zarr")
    assert not list(tmp_path.iterdir())
