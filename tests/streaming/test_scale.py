"""The benchmarks of streaming run, on little: their shape, never their timings."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parent.parent.parent / "benchmarks"


def run(script: str, out: Path, *words: str) -> tuple[str, dict[str, Any]]:
    command = [sys.executable, str(FOLDER / script), "--quick", "--out", str(out), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    text = out.read_text()
    assert os.uname().nodename not in text
    assert str(FOLDER.parent) not in text
    assert [line for line in done.stdout.splitlines() if len(line) > 80] == []
    return done.stdout, json.loads(text)


def test_the_scheduler_holds_a_bounded_number_of_tasks(tmp_path: Path) -> None:
    printed, found = run("scale.py", tmp_path / "scale.json")
    measured, multiplied = found["measured_values"], found["multiplied"]
    assert measured["regions"] == 2 * 9
    # Those in flight, as many just let go; of 18 regions in all.
    assert 0 < measured["most_tasks_held"] <= 2 * measured["in_flight"] * measured["tasks_a_region"]
    assert multiplied["regions"] == 3_400 * 110 * 9
    assert "Multiplied, not measured" in printed


def test_a_ratio_is_ours_over_the_bare_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    printed, found = run("stream.py", tmp_path / "stream.json", "--memory")
    assert found["overhead"]["windows"] == 7 * 7
    assert len(found["memory"]["runs"]) == 2
    assert "Growth of the peak" in printed
    monkeypatch.syspath_prepend(str(FOLDER))
    import stream

    ours = [{"mpx_per_s": 9.0, "mpx_per_cpu_s": 4.0}]
    bare = [{"mpx_per_s": rate, "mpx_per_cpu_s": 5.0} for rate in (9.5, 10.0, 10.5)]
    told = stream.judged(bare, ours)
    assert (told["ratio_wall"], told["ratio_cpu"]) == (0.9, 0.8)
    wild = [{"mpx_per_s": rate, "mpx_per_cpu_s": 5.0} for rate in (9.0, 10.0, 11.0)]
    assert stream.judged(wild, ours)["ratio_wall"] is None
