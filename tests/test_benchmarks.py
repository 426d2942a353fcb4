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
        assert run["ratio_cpu_ms"] == pytest.approx(found["bare"]["cpu_ms"] / run["cpu_ms"])


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
    wrong = subprocess.run([*command[:3], "--quik"], capture_output=True, cwd=FOLDER.parent, check=False)
    assert wrong.returncode == 2


@pytest.mark.parametrize(("walls", "told"), [((99.0, 100.0, 113.0), 2.0), ((92.0, 100.0, 108.0), None)])
def test_no_ratio_of_seconds_is_stated_where_the_bare_network_varies(
    walls: tuple[float, ...], told: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    import overhead

    bare = {"wall_ms": 100.0, "cpu_ms": 60.0, "windows_per_s": 10.0, "wall_ms_all": list(walls)}
    ours = {"96": {"wall_ms": 50.0, "cpu_ms": 80.0, "windows_per_s": 20.0, "wall_ms_all": [40.0, 64.0]}}
    found = overhead.with_ratios(bare, ours)
    assert found["chunks"]["96"]["ratio_wall_ms"] == told
    assert found["chunks"]["96"]["ratio_cpu_ms"] == 0.75
    found |= {"bare": bare, "bare_onnxruntime_default_spinning": bare, "bare_side_by_side": bare}
    found |= {"spread_limit": overhead.SPREAD_LIMIT}
    found |= {"network": "n", "image": 1, "windows": 1, "rounds": 3, "bar": 0.9, "load_averages": []}
    shown = overhead.show_overhead(found)
    assert ("no ratio of seconds is stated" in shown) == (told is None)
    assert ("2.000" in shown) == (told is not None)
    assert f"{min(walls) / 64:.3f}" in shown, "our slowest round over its fastest"


@pytest.mark.parametrize("script", ["overhead", "choices", "imitation"])
def test_what_was_measured_is_printed_without_measuring(script: str) -> None:
    command = [sys.executable, str(FOLDER / f"{script}.py"), "--table"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    results = json.loads((FOLDER / "results" / f"{script}.json").read_text())
    assert results["circumstances"]["date"] in done.stdout
    assert done.stdout.count("easured 20") == len(results["measured"])


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


def test_memory_is_measured_for_each_writer_and_chunk(quick: tuple[str, dict[str, Any]]) -> None:
    found = quick[1]["memory"]
    assert {(run["writer"], run["chunk"]) for run in found["runs"]} == {
        ("stream", 96),
        ("write", 96),
    }
    assert [(run["writer"], run["size"]) for run in found["extra"]] == [("xarray", 256)]
    assert set(found["growth"]) == {"stream, 96", "write, 96"}
    assert "xarray (not ours)" in quick[0]
    for run in (*found["runs"], *found["extra"]):
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
