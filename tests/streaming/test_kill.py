"""Nothing finished is lost: SIGKILL at random moments, then the same call again."""

import json
import os
import random
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from tests.streaming.helpers import COUNTED, Child, files, job, numbered, owners, windows_of
from tests.streaming.killing import KillableCluster, killable, run_and_kill
from xcloudmask.engine.plan import Plan
from xcloudmask.predict.options import PredictOptions
from xcloudmask.predict.prepare import prepare
from xcloudmask.store.regions import Layout
from xcloudmask.streaming import StoreError
from xcloudmask.streaming.layout import WindowLayout

__all__ = ["killable"]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, bytes], float]:
    """The store of a run that nothing disturbs, each window once; and its seconds."""
    home = tmp_path_factory.mktemp("undisturbed")
    Child(job, str(home / "warm.zarr"), str(home / "warm")).end()
    began = time.monotonic()
    assert Child(job, str(home / "a.zarr"), str(home / "notes")).end() is None
    seconds = time.monotonic() - began
    assert sorted(windows_of(home / "notes")) == sorted(expected_owners())
    return files(home / "a.zarr"), seconds


def expected_owners() -> dict[float, Any]:
    da = numbered(4, 180, 190)
    plan: Plan = prepare(da, PredictOptions(model=COUNTED)).plan
    layout = Layout((4,), (180, 190), (1,), (48, 48))
    assert layout.count == 64
    return owners(WindowLayout(layout, plan.y, plan.x, plan.channels), da)


def done_regions(store: Path) -> set[tuple[int, ...]]:
    header = store / "stream" / "zarr.json"
    if not header.exists() or json.loads(header.read_text())["attributes"]["state"] != "ready":
        return set()
    status = zarr.open_array(store / "stream" / "status", mode="r")[...]
    return {tuple(int(i) for i in at) for at in np.argwhere(status == 1)}


def test_killed_at_random_moments_it_ends_byte_identical(
    undisturbed: tuple[dict[str, bytes], float], tmp_path: Path
) -> None:
    expected, seconds = undisturbed
    owner, chance, kills, rounds = expected_owners(), random.Random(11), 0, 0
    while kills < 20:
        rounds += 1
        store = tmp_path / f"{rounds}.zarr"
        kills += run_and_kill(
            lambda notes, store=store: Child(job, str(store), str(notes)),
            lambda store=store: done_regions(store),
            owner,
            lambda: chance.uniform(0.05, 0.6) * seconds,
            tmp_path / str(rounds),
            most=7,
        )
        assert files(store) == expected
    assert rounds < 20  # or the kills all came too late to be a test


@pytest.mark.slow
@pytest.mark.timeout(280)
def test_killed_workers_lose_nothing(
    undisturbed: tuple[dict[str, bytes], float], killable: KillableCluster, tmp_path: Path
) -> None:
    expected, _ = undisturbed
    home = tmp_path / "stores"
    killable.kill_20_times(13, lambda number: {"store": str(home / str(number))}, expected_owners())
    stores = list(home.iterdir())
    assert len(stores) < 20  # or the kills all came too late to be a test
    for store in stores:
        assert files(store) == expected


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 160 KiB."""
    place = tmp_path / "disk"
    place.mkdir()
    if shutil.which("mount") is None or os.name == "nt" or os.geteuid() != 0:
        pytest.skip("only root can mount a small file system")
    command = ["mount", "-t", "tmpfs", "-o", "size=160k", "tmpfs", str(place)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("this machine does not let root mount a file system")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_a_disk_that_is_really_full_is_named_and_the_run_goes_on_when_there_is_room(
    undisturbed: tuple[dict[str, bytes], float], small_disk: Path, tmp_path: Path
) -> None:
    store = small_disk / "a.zarr"
    with pytest.raises(StoreError, match=r"the disk is full\. Free some space.*run the same call again"):
        job(str(store), str(tmp_path / "first"))
    before = done_regions(store)
    assert 0 < len(before) < 64
    assert zarr.open_array(store / "cloud_mask", mode="r").shape == (4, 180, 190)
    subprocess.run(["mount", "-o", "remount,size=8m", str(small_disk)], check=True)
    job(str(store), str(tmp_path / "second"))
    owner = expected_owners()
    again = {owner[value] for value in windows_of(tmp_path / "second")} & before
    assert not again, f"regions {again} were done, and were inferred again"
    assert files(store) == undisturbed[0]


def test_a_disk_that_is_really_read_only_is_named(
    undisturbed: tuple[dict[str, bytes], float], small_disk: Path, tmp_path: Path
) -> None:
    subprocess.run(["mount", "-o", "remount,size=8m", str(small_disk)], check=True)
    store = small_disk / "a.zarr"
    job(str(store), str(tmp_path / "first"))
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(StoreError, match="the file system is read-only"):
        job(str(store), str(tmp_path / "second"), overwrite=True)
    with pytest.raises(StoreError, match="the file system is read-only"):
        job(str(small_disk / "b.zarr"), str(tmp_path / "second"))
    assert files(store) == undisturbed[0]


def as_nobody(store: str, scratch: str) -> None:
    notes = os.path.join(scratch, "notes")
    job(os.path.join(scratch, "a.zarr"), notes)  # imports what nobody may not be allowed to
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
    job(store, notes)


@pytest.mark.skipif(os.name == "nt", reason="permissions are those of POSIX")
def test_a_folder_that_really_may_not_be_written_is_named(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory() as home:  # pytest's own folders let nobody else in
        os.chmod(home, 0o555)
        error = Child(as_nobody, str(Path(home) / "a.zarr"), str(tmp_path)).end()
        os.chmod(home, 0o755)
    assert error is not None
    assert error.startswith("StoreError")
    assert "permission denied. Ask for write access" in error
