"""The benchmarks run, on a toy network and small images: their shape, never their timings."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.scenes import noise

FOLDER = Path(__file__).parent.parent / "benchmarks"
#: A dozen processes start, each of which imports all: minutes where others use the machine.
pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any]]:
    out = tmp_path_factory.mktemp("benchmarks") / "quick.json"
    command = [sys.executable, str(FOLDER / "overhead.py"), "--quick", "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout, {run["section"]: run for run in json.loads(out.read_text())["runs"]}


def columns(run: dict[str, Any], *names: str) -> list[tuple[Any, ...]]:
    """Return some columns of a run's table."""
    places = [run["head"].index(name) for name in names]
    return [tuple(row[place] for place in places) for row in run["rows"]]


def test_what_is_printed_fits_a_terminal(quick: tuple[str, dict[str, Any]]) -> None:
    printed, found = quick
    assert list(found) == ["beside", "cluster", "growth", "first", "workers", "calls"]
    assert [line for line in printed.splitlines() if len(line) > 80] == []
    for run in found.values():
        assert run["title"] in printed


def test_each_way_to_a_mask_is_timed_beside_the_bare_network(quick: tuple[str, dict[str, Any]]) -> None:
    found = quick[1]["beside"]
    assert "49 windows" in found["title"]  # 320 pixels, windows of 64 every 48
    ways = ["bare, side by side", "NumPy", "Dask threads", "2 workers", "stream"]
    assert [name for (name,) in columns(found, "")] == ways
    assert all(least > 0 for (least,) in columns(found, "least")[1:])


def test_the_entry_runs_a_benchmark_with_its_own_options() -> None:
    command = [sys.executable, "-m", "benchmarks", "engine", "--quick"]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=240, check=False, cwd=FOLDER.parent,
        env={**os.environ, "PYTHONPATH": str(FOLDER.parent)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = [line for line in done.stdout.splitlines() if line.startswith(("float32", "uint16"))]
    assert len(rows) == 5
    masks = dict(line.rsplit(maxsplit=4)[::4] for line in rows)
    assert masks["float32, 30 m"] == masks["float32, 30 m, Dask"] != masks["float32, 30 m, gaps"]
    assert max(map(len, done.stdout.splitlines())) <= 80
    parts = [line.rsplit(maxsplit=3) for line in done.stdout.partition("Parts,")[2].splitlines()]
    named = {words[0]: words[1:] for words in parts if len(words) == 4}
    for part in ("read (Zarr, 6 bands)", "cut and normalise windows", "blend", "decide", "write (GeoTIFF)"):
        spent, floor, times = map(float, named[part])
        assert times == pytest.approx(spent / floor, rel=0.02), part
    wrong = subprocess.run([*command[:3], "--quik"], capture_output=True, cwd=FOLDER.parent, check=False)
    assert wrong.returncode == 2


def test_a_part_that_another_calls_counts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    import engine

    class Work:
        now = 0

        def inner(self) -> None:
            Work.now += 5

        def outer(self) -> None:
            Work.now += 2
            self.inner()
            self.inner()

    monkeypatch.setattr(engine.time, "thread_time_ns", lambda: Work.now)
    parts = engine.Parts()
    parts.note("in", (Work, "inner"))
    parts.note("out", (Work, "outer"))
    Work().outer()
    Work().inner()
    assert parts.ns == {"in": 15, "out": 2}


@pytest.mark.parametrize(("walls", "told"), [((0.99, 1.0, 1.13), 2.0), ((0.92, 1.0, 1.08), None)])
def test_no_ratio_of_seconds_is_stated_where_the_bare_network_varies(
    walls: tuple[float, ...], told: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    import overhead
    from _measure import Spent

    # Before and after each run of ours, which has twice the windows of the bare network
    bares = [Spent(wall, 1.0) for wall in (*walls, 1.0, 1.0)]
    ours = {name: [Spent(bares[at].wall + bares[at + 1].wall, 4.0) for at in places]
            for name, places in (("NumPy", (0, 2)), ("2 workers", (1, 3)))}  # fmt: skip
    ours["NumPy"][1] = Spent(4 / 3 * ours["NumPy"][1].wall, 4.0)
    found = overhead.compared(bares, ours, few=10, windows=20)
    rows = dict(zip(("bare", *ours), columns(found, "ratio", "least", "most", "by cpu"), strict=True))
    assert rows["2 workers"] == (
        None if told is None else pytest.approx(1.0),
        *[pytest.approx(1.0)] * 2,
        None,
    )
    assert rows["NumPy"][1:] == (pytest.approx(0.75), pytest.approx(1.0), pytest.approx(0.5))
    assert rows["NumPy"][0] == (None if told is None else pytest.approx(0.875))
    assert set(found["figures"]) == (set() if told is None else {"NumPy / bare", "2 workers / bare"})
    assert ("no ratio is stated" in found["note"]) == (told is None)


def test_what_was_measured_before_is_kept_and_drawn_by_date(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    import _measure

    out = tmp_path / "some.json"
    for figure in (1.0, 2.0):
        run = {"section": "s", "title": "Title", "head": ["", "x"], "rows": [["row", figure]]}
        _measure.keep(out, run | {"circumstances": _measure.circumstances(), "figures": {"x": figure}})
    assert [run["figures"]["x"] for run in _measure.runs_in(out)] == [1.0, 2.0]
    assert "load_average_at_end" in _measure.runs_in(out)[0]["circumstances"]
    assert "2.000" in capsys.readouterr().out
    drawn = tmp_path / "history.svg"
    command = [sys.executable, str(FOLDER / "history.py"), "--out", str(drawn)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    for name in ("overhead", "engine", "peers"):
        for run in _measure.runs_in(FOLDER / "results" / f"{name}.json"):
            assert run["circumstances"]["date"][:10] in drawn.read_text()
            assert all(f">{figure}<" in drawn.read_text() for figure in run["figures"])


def test_a_peer_is_timed_in_turns_with_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    import peers

    turns = []

    def asked(python: Path, name: str, side: int, threads: int) -> dict[str, Any]:
        turns.append(name)
        took = {"monai": 3.0, "ours, 256/64": 2.0}[name]
        return {"first_s": 9.0, "again_s": took, "cpu_s": 2 * took, "peak_mib": 100 * took, "shares": [1]}

    monkeypatch.setattr(peers, "asked", asked)
    found = peers.beside("monai", Path("python"), 512, 2, 2)
    assert turns == ["monai", "ours, 256/64", "ours, 256/64", "monai"]
    assert found["figures"] == {
        "monai / ours, 256/64, again_s": 1.5, "monai / ours, 256/64, cpu_s": 1.5,
        "ours, 256/64 / monai, memory": pytest.approx(2 / 3),
    }  # fmt: skip
    assert columns(found, "", "again s", "x faster") == [
        ("monai", 3.0, None),
        ("ours, 256/64", 2.0, "1.50 (1.50-1.50)"),
    ]


def test_each_peer_runs_beside_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    env = FOLDER.parent / ".venv-peers"
    if not (env / "pins.json").exists():
        pytest.skip("the peers are not installed: make .venv/.peers")
    monkeypatch.syspath_prepend(str(FOLDER))
    import peers

    command = [sys.executable, str(FOLDER / "peers.py"), "--quick", "--env", str(env), "--only", *peers.PAIRS]
    done = subprocess.run(command, capture_output=True, text=True, timeout=800, check=False)
    assert done.returncode == 0, done.stderr
    for peer, ours in peers.PAIRS.items():
        told = done.stdout.partition(f"\n{peer} {peers.PINS[peer]}: ")[2].partition("\nMeasured")[0]
        rates = [line.split()[-2:] for line in told.splitlines() if line.startswith(ours)]
        assert [float(rate.partition(" ")[0]) > 0 for rate, _ in rates] == [True] * len(ours), done.stdout


def test_the_script_for_a_gpu_runs_where_there_is_none(tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    sections = ("tile", "efficiency", "memory", "together", "graph")
    command = [
        sys.executable,
        str(FOLDER / "gpu.py"),
        "--device",
        "cpu",
        "--quick",
        "--out",
        str(out),
        "--only",
    ]
    command += sections
    done = subprocess.run(command, capture_output=True, text=True, timeout=800, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(out.read_text())["sections"]
    assert tuple(found) == sections
    assert found["memory"]["same"]
    assert found["together"]["same"] == [True, True]
    assert "CPUExecutionProvider" in found["graph"]["providers"]


@pytest.mark.parametrize("script", ["clean", "timeaccess"])
def test_others_run(script: str, tmp_path: Path) -> None:
    out = tmp_path / "found.json"
    command = [sys.executable, str(FOLDER / f"{script}.py"), "--quick", "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text())
    assert found.get("circumstances", found)["cores"] >= 1
    assert found["throughput" if script == "clean" else "layouts"]


@pytest.mark.parametrize("script", ["overhead", "engine", "choices", "imitation"])
def test_what_was_measured_is_printed_without_measuring(script: str) -> None:
    command = [sys.executable, str(FOLDER / f"{script}.py"), "--table"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    results = json.loads((FOLDER / "results" / f"{script}.json").read_text())
    runs = results.get("runs", [results])
    assert all(run["circumstances"]["date"] in done.stdout for run in runs)
    assert done.stdout.count("easured 20") == len(results.get("measured", runs))


def test_the_fill_called_ours_is_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    import choices

    from xcloudmask.engine.pixels import fill_gaps

    assert [name for name, fill in choices.FILLS.items() if fill is fill_gaps] == ["nearest valid (ours)"]
    told = json.loads((FOLDER / "results" / "choices.json").read_text())["fill"]
    assert {row["fill"] for row in told} == set(choices.FILLS)
    pixels, valid = noise(2, 6, 6), noise(6, 6, seed=1) > 0.3
    filled = choices.FILLS["mean of the window's valid"](pixels, valid)
    np.testing.assert_allclose(
        filled[:, ~valid].T, np.broadcast_to(pixels[:, valid].mean(1), ((~valid).sum(), 2))
    )
    np.testing.assert_array_equal(filled[:, valid], pixels[:, valid])


def test_memory_and_time_are_measured_by_side(quick: tuple[str, dict[str, Any]]) -> None:
    found = quick[1]["growth"]
    rows = columns(found, "way", "chunk", "side", "ns/px", "cpu ns", "peak MiB", "before")
    assert [row[:3] for row in rows] == [("stream", 192, 256), ("stream", 192, 320), ("geotiff", 192, 256)]
    for *_, seconds, processor, peak, before in rows:
        assert seconds > 0
        assert processor > 0
        assert int(peak) >= int(before) > 50
    assert found["figures"]["peak memory, geotiff, 192, tiny"] == 1
    for column, name in ((3, "by the clock"), (4, "time a pixel")):
        ours = [row[column] for row in rows[:2]]
        assert found["figures"][f"{name}, stream, 192, tiny"] == pytest.approx(max(ours) / min(ours))
    calls = quick[1]["calls"]
    assert [name for (name,) in columns(calls, "way")] == ["compute"]
    for side, processor, way in columns(calls, "side", "cpu s", "way"):
        assert calls["figures"][f"cpu ns/px, tiny, {way}"] == pytest.approx(1e9 * processor / side**2)


def test_the_first_call_and_later_ones_are_told_apart(quick: tuple[str, dict[str, Any]]) -> None:
    seconds = dict(columns(quick[1]["first"], "", "s"))
    assert seconds["from the start of the process"] > seconds["first call"] > 0
    assert seconds["second call"] > seconds["second call, without the network"] > 0
    assert "ukis-any-l1c" in quick[1]["first"]["title"]


def test_workers_that_wait_are_compared(quick: tuple[str, dict[str, Any]]) -> None:
    found = quick[1]["workers"]
    ((count, windows, seconds, rate, efficiency, beside),) = found["rows"]
    assert (count, windows, efficiency) == (1, 16, 1)
    assert rate == pytest.approx(16 / seconds)
    assert beside == pytest.approx(1000 * (seconds / 16 - 0.2))
    assert seconds > 16 * 0.2, "each window sleeps"


def test_a_result_names_the_machine_but_neither_host_nor_folder(quick: tuple[str, dict[str, Any]]) -> None:
    text = json.dumps(quick[1])
    told = quick[1]["beside"]["circumstances"]
    assert told["cores"] >= 1
    assert told["versions"]["dask"]
    assert os.uname().nodename not in text
    assert str(FOLDER.parent) not in text
