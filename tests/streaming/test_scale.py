"""The benchmark of a continent's plan runs, on little: its shape, never its timings."""

import json
import os
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parent.parent.parent / "benchmarks"


def test_the_scheduler_holds_a_bounded_number_of_tasks(tmp_path: Path) -> None:
    out = tmp_path / "scale.json"
    command = [sys.executable, str(FOLDER / "scale.py"), "--quick", "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    text = out.read_text()
    assert os.uname().nodename not in text
    assert str(FOLDER.parent) not in text
    assert [line for line in done.stdout.splitlines() if len(line) > 80] == []
    measured, multiplied = json.loads(text)["measured_values"], json.loads(text)["multiplied"]
    assert measured["regions"] == 2 * 9
    # Those in flight, as many just let go; of 18 regions in all.
    assert 0 < measured["most_tasks_held"] <= 2 * measured["in_flight"] * measured["tasks_a_region"]
    assert multiplied["regions"] == 3_400 * 110 * 9
    assert "Multiplied, not measured" in done.stdout
