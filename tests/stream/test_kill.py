"""Nothing finished is lost: SIGKILL at random moments, then the same call again."""

import json
import random
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from tests.stream.helpers import COUNTED, Child, files, job, numbered, owners, windows_of
from xcloudmask.predict import Request, prepare
from xcloudmask.stream.layout import Layout, WindowLayout
from xcloudmask.tasks import Plan


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
    plan: Plan = prepare(da, Request(model=COUNTED)).plan
    layout = Layout((4,), (180, 190), (1,), (48, 48))
    assert layout.count == 64
    return owners(WindowLayout(layout, plan.y, plan.x, plan.classes), da)


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
        store, seen = tmp_path / f"{rounds}.zarr", set()
        for attempt in range(200):
            done, notes = done_regions(store), tmp_path / f"{rounds}-{attempt}"
            child = Child(job, str(store), str(notes))
            killed = child.kill_after(chance.uniform(0.05, 0.6) * seconds)
            kills += killed
            inferred = windows_of(notes)
            assert len(set(inferred)) == len(inferred)
            again = {owner[value] for value in inferred} & done
            assert not again, f"regions {again} were done, and were inferred again"
            seen.update(inferred)
            if not killed:
                assert child.end() is None
                break
        assert seen == set(owner)
        assert files(store) == expected
    assert rounds < 20  # or the kills all came too late to be a test
