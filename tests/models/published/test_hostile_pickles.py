"""Pickles that would run code: refused by name in a process of their own, which stays as it was."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.models.published import golden

pytestmark = golden.needed

#: Reads a file as whole module, and tells what it says, which modules it led to, and how much memory it took.
READ = """
import resource, sys
import torch
from xcloudmask.errors import WeightsError
from xcloudmask.models.weights.torch_save import tensors
data = open(sys.argv[1], "rb").read()
before, peak = set(sys.modules), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    tensors(data, "hostile.pkl")
    print("read")
except WeightsError as error:
    print(error)
print(*sorted(set(sys.modules) - before))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak)
"""
SAYS = {
    "hostile/whole_module.pkl": "hostile.pkl: its pickle names __builtin__.exec, which no network needs",
    "hostile/raw_pickle.pkl": "hostile.pkl is a bare pickle",
    "clouds2mask/sample_whole_module.pkl": "read",
}


@pytest.mark.parametrize("name", SAYS)
def test_nothing_runs_and_nothing_is_imported(name: str, tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-c", READ, str(golden.PUBLISHED / name)],
        capture_output=True, text=True, check=True, cwd=tmp_path, env={"PYTHONPATH": ":".join(sys.path)},
    )  # fmt: skip
    said, imported, kilobytes = run.stdout.splitlines()
    assert said.startswith(SAYS[name])
    assert not imported.split()
    assert int(kilobytes) < 50_000
    assert not list(tmp_path.iterdir()), "a payload ran"
