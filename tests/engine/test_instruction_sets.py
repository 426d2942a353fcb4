"""Chunks, batches and threads do not matter on older processors either, whose kernels are other ones."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

#: What torch and oneDNN may use at most; a processor that has less uses what it has.
SETS = {
    "native": {},
    "avx2": {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"},
    "default": {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41"},
}

CODE = """
import os
from dataclasses import replace

import numpy as np
import torch

from tests.scenes import noise, same_answer, same_odds, scene
from xcloudmask import unload
from xcloudmask.testing import ANY_BANDS, TOYS, TOY

print(torch.backends.cpu.get_cpu_capability())
pixels = noise(2, 2, 100, 71)
pixels[1, :, 20:60, 30:] = np.nan
cuts = [{"time": 1, "band": 1, "y": (1, 50, 49), "x": 37}, {"y": 31, "x": (70, 1)}]
cases = [(TOY, {}), (TOY, {"tta": 4}), (TOYS, {}), (ANY_BANDS, {}), (replace(TOY, patch=48, overlap=21), {})]
for spec, options in cases:
    for step in (10.0, 30.0) if spec is TOY and not options else (10.0,):
        da = scene(pixels, ["red", "nir"], step=step)
        odds, classes = da.cloudmask.predict_proba(spec, **options), da.cloudmask.predict(spec, **options)
        assert float(odds.std()) > 1e-3
        assert len(np.unique(classes)) > 1
        for cut in cuts:
            lazy = da.chunk(cut).cloudmask
            same_answer(lazy.predict_proba(spec, **options).compute(), odds)
            same_answer(lazy.predict(spec, **options).compute(), classes)
        same_odds(da.cloudmask.predict_proba(spec, batch_size=7, **options), odds)
        for threads in ("1", "3"):
            os.environ["XCLOUDMASK_NUM_THREADS"] = threads
            unload()
            same_odds(da.cloudmask.predict_proba(spec, **options), odds)
        del os.environ["XCLOUDMASK_NUM_THREADS"]
        unload()
"""


@pytest.mark.parametrize("name", SETS)
def test_the_answer_does_not_depend_on_chunks_batches_and_threads(name: str) -> None:
    environment = {key: value for key, value in os.environ.items() if key not in SETS["avx2"]}
    environment.pop("XCLOUDMASK_NUM_THREADS", None)
    done = subprocess.run(
        [sys.executable, "-c", CODE], capture_output=True, text=True, check=False, timeout=250,
        cwd=Path(__file__).parents[2], env=environment | SETS[name],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    if name == "default":
        assert done.stdout.split() == ["DEFAULT"], "the setting took hold"
