"""The benchmarks run, on a toy network and small images: their shape, never their timings."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any]]:
    out = tmp_path_factory.mktemp("benchmarks") / "quick.json"
    command = [sys.executable, str(FOLDER / "overhead.py"), "--quick", "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout, json.loads(out.read_text())


def test_what_is_printed_fits_a_terminal(quick: tuple[str, dict[str, Any]]) -> None:
    printed, _ = quick
    assert [line for line in printed.splitlines() if len(line) > 80] == []
    for title in ("Overhead:", "Memory:", "Beside the peer:"):
        assert title in printed


def test_the_overhead_is_ours_over_the_bare_network(quick: tuple[str, dict[str, Any]]) -> None:
    found = quick[1]["overhead"]
    assert found["windows"] == 7 * 7  # 320 pixels, windows of 64 every 48
    assert list(found["chunks"]) == ["96"]
    for run in found["chunks"].values():
        assert run["ratio_wall_ms"] == pytest.approx(found["bare"]["wall_ms"] / run["wall_ms"])
        assert run["ratio_cpu_ms"] == pytest.approx(found["bare"]["cpu_ms"] / run["cpu_ms"])


def test_memory_is_measured_for_each_writer_and_chunk(quick: tuple[str, dict[str, Any]]) -> None:
    found = quick[1]["memory"]
    assert {(run["writer"], run["chunk"]) for run in found["runs"]} == {
        ("write", 96),
        ("xarray", 96),
    }
    for run in found["runs"]:
        assert run["peak_mib"] >= run["before_mib"] > 50
        assert run["corner"] != 255  # it was written, and to the end


def test_the_first_call_and_later_ones_are_told_apart(quick: tuple[str, dict[str, Any]]) -> None:
    ours = quick[1]["peer"]["ours"]
    assert ours["windows"] == 5 * 5
    assert ours["cold_s"] > 0
    assert ours["warm_s"] > 0
    assert sum(ours["pixels_clear_cloud_shadow"]) == 256 * 256


def test_a_result_names_the_machine_but_neither_host_nor_folder(quick: tuple[str, dict[str, Any]]) -> None:
    text = json.dumps(quick[1])
    told = quick[1]["circumstances"]
    assert told["cores"] >= 1
    assert told["versions"]["dask"]
    assert os.uname().nodename not in text
    assert str(FOLDER.parent) not in text
