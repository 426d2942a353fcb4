"""Runs, and workers of a cluster, that are killed at random moments, and come back."""

import os
import random
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.streaming.helpers import VARIABLE, Child, job, windows_of
from xcloudmask.errors import ClusterError
from xcloudmask.streaming import ProgressEvent

#: Seconds after which a test is given up, with the state of the cluster; less than pytest's own patience.
PATIENCE = 240


def run_and_kill(
    start: Callable[[Path], Child],
    done: Callable[[], set[tuple[int, ...]]],
    owner: dict[float, Any],
    moment: Callable[[], float],
    notes: Path,
    most: int = 100,
) -> int:
    """Start a run again and again, each killed at its moment, until one ends; return how many were killed.

    No region that was done before a run began is inferred in it, and none twice. After the `most` kills a
    run is left alone, as on a slow machine one that is killed early over and over might never end.
    """
    seen: set[float] = set()
    kills = 0
    while True:
        finished, noted = done(), notes.with_name(f"{notes.name}-{kills}")
        child = start(noted)
        killed = kills < most and child.kill_after(moment())
        kills += killed
        if not killed:
            assert child.end(180) is None
        inferred = windows_of(noted)
        assert len(set(inferred)) == len(inferred)
        again = {owner[value] for value in inferred} & finished
        assert not again, f"regions {again} were done, and were inferred again"
        seen.update(inferred)
        if not killed:
            break
    assert seen == set(owner)
    return kills


class KillableCluster:
    """Two workers in processes of their own, that come back when they are killed."""

    def __init__(self, notes: Path) -> None:
        from distributed import Client, LocalCluster

        self.notes = notes
        self.cluster = LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0", host="127.0.0.1"
        )
        self.client = Client(self.cluster)

    def close(self) -> None:
        self.client.close()
        self.cluster.close()

    def state(self) -> str:
        """What there is to say when nothing goes on."""
        scheduler = self.cluster.scheduler
        tasks = Counter(task.state for task in scheduler.tasks.values())
        nannies = {name: (nanny.status.name, nanny.pid) for name, nanny in self.cluster.workers.items()}
        return f"tasks {dict(tasks)}, workers {list(scheduler.workers.values())}, nannies {nannies}"

    def kill_20_times(
        self, seed: int, target: Callable[[int], dict[str, Any]], owner: dict[float, Any]
    ) -> None:
        """Run the job over and over until 20 workers were killed; no region that was done is made again."""
        chance, kills, rounds, stuck = random.Random(seed), 0, 0, []

        def give_up() -> None:
            stuck.append(self.state())
            self.client.close()  # so that the call ends

        watchdog = threading.Timer(PATIENCE, give_up)
        watchdog.daemon = True
        watchdog.start()
        try:
            while kills < 20:
                rounds += 1
                self.notes.write_text("")
                dead, done_when = self._run_and_kill(chance, target(rounds))
                kills += len(dead)
                inferred = windows_of(self.notes)
                assert set(inferred) == set(owner)
                for number, value in enumerate(inferred):
                    assert number < done_when[owner[value]], f"{owner[value]} was done and inferred again"
        except ClusterError:
            raise AssertionError(f"nothing went on after {kills} kills in {rounds} runs: {stuck}") from None
        finally:
            watchdog.cancel()

    def _run_and_kill(
        self, chance: random.Random, target: dict[str, Any]
    ) -> tuple[list[int], dict[Any, int]]:
        """Return the workers that were killed, and how many windows there were when each region was done."""
        done_when: dict[Any, int] = {}
        stop, begun, dead = threading.Event(), threading.Event(), []

        def note(event: ProgressEvent) -> None:
            begun.set()
            if event.kind == "done":
                done_when[event.region] = len(windows_of(self.notes))

        def kill() -> None:
            begun.wait()
            while len(dead) < 7 and not stop.wait(chance.uniform(0.1, 1.5)):
                self._kill_one(chance, dead)

        killer = threading.Thread(target=kill)
        killer.start()
        try:
            job(notes=str(self.notes), progress=note, retries=10, **target)
        finally:
            stop.set()
            begun.set()
            killer.join()
        return dead, done_when

    def _kill_one(self, chance: random.Random, dead: list[int]) -> None:
        """Kill a worker's process, at work or just starting, if there is one that was not yet killed."""
        pids = [nanny.pid for nanny in self.cluster.workers.values()]
        pids = [pid for pid in pids if pid is not None and pid not in dead]
        if pids:
            dead.append(chance.choice(pids))
            os.kill(dead[-1], signal.SIGKILL)


@pytest.fixture
def killable(tmp_path: Path) -> Iterator[KillableCluster]:
    import dask
    import distributed  # noqa: F401  brings its settings

    os.environ[VARIABLE] = str(tmp_path / "notes")  # workers inherit it
    # LocalCluster looks after a worker some seconds after it died. If it has come back and been killed again
    # by then, it is given up for good: in the end there is none.
    with dask.config.set({"distributed.deploy.lost-worker-timeout": "1h"}):
        made = KillableCluster(tmp_path / "notes")
        try:
            yield made
        finally:
            made.close()
            del os.environ[VARIABLE]
