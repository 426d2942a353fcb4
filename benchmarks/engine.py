"""What the engine costs a pixel beside a network that costs nothing: whole calls, and each part of one.

    python benchmarks/engine.py            # two minutes; adds two runs to the result file
    python benchmarks/engine.py --quick    # a small scene, nothing is kept
    PYTHONPATH=OTHER_TREE python benchmarks/engine.py --only whole    # the same of another checkout

Processor time, which other programs hardly touch; the checksum of each mask shows whether a change of the
engine changed a pixel. Beside each part stands its floor: what NumPy takes, in the same run, to copy as many
bytes as the part must read and write at least, from main memory to main memory.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from _cases import field, free_of_cost, image, window_count
from _measure import RESULTS, arguments, circumstances, clocked, keep, median, print_runs

from xcloudmask import models
from xcloudmask.models.sources import ukis


def cases(side: int) -> dict[str, Callable[[], Any]]:
    """Scenes of six bands."""
    plain = image(side, 6) + np.random.default_rng(0).normal(0, 0.01, (6, side, side)).astype(np.float32)
    plain = plain.clip(0.001, 4)
    gaps = plain.copy()
    gaps[:, : side // 8, : side // 5] = np.nan
    stored = np.round((plain + 0.1) * 1e4).astype(np.uint16)
    stored[:, : side // 16] = 0

    def scene(pixels: Any, step: float = 30.0, chunk: int | None = None, **scale: float) -> Any:
        coords = {"y": -step * np.arange(side), "x": step * np.arange(side)}
        da = xr.DataArray(pixels, dims=("band", "y", "x"), coords=coords)
        da = da.cloudmask.describe(bands=list(ukis.BANDS), level="L1C", **scale)
        da = da if chunk is None else da.chunk(y=chunk, x=chunk)
        return da.cloudmask.predict("ukis-6band-l1c", patch_size=256, device="cpu").values

    counts = {"scale": 1e-4, "offset": -0.1}
    return {
        "float32, 30 m": lambda: scene(plain),
        "float32, 30 m, gaps": lambda: scene(gaps),
        "uint16, 30 m": lambda: scene(stored, **counts),
        "uint16, 10 m": lambda: scene(stored, 10.0, **counts),
        "float32, 30 m, Dask": lambda: scene(plain, chunk=side // 3),
    }


def whole(side: int, rounds: int) -> dict[str, Any]:
    rows, figures = [], {}
    for name, work in cases(side).items():
        mask = work()
        spent = [1e9 * clocked(work).cpu / side**2 for _ in range(rounds)]
        rows.append(
            [name, median(spent), min(spent), max(spent), hashlib.sha256(mask.tobytes()).hexdigest()[:12]]
        )
        figures[name] = median(spent)
    return {
        "title": f"Whole calls, a network that costs nothing, {side} x {side} x 6: processor time a pixel",
        "head": ["scene", "ns/px", "least", "most", "mask"], "rows": rows, "figures": figures,
    }  # fmt: skip


class Parts:
    """Processor time of one thread by part; what a part calls that has a name of its own counts there."""

    def __init__(self) -> None:
        self.ns: dict[str, float] = defaultdict(float)
        self._within = 0.0

    def note(self, part: str, *functions: tuple[Any, str]) -> None:
        """Count what each of these functions (owner, name) takes to a part, from now on."""
        for owner, name in functions:
            setattr(owner, name, self._timed(part, getattr(owner, name)))

    def _timed(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            outside, self._within, start = self._within, 0.0, time.thread_time_ns()
            try:
                return function(*args, **kwargs)
            finally:
                spent = time.thread_time_ns() - start
                self.ns[part] += spent - self._within
                self._within = outside + spent

        return timed


def floor(side: int, rounds: int) -> float:
    """Processor time (ns) of NumPy for a byte read and written again, from memory to memory."""
    source = np.ones(100 * side**2, np.uint8)  # more than any cache holds
    target = np.zeros_like(source)
    copies = [clocked(lambda: np.copyto(target, source)).cpu for _ in range(2 * rounds)]
    return 1e9 * median(copies) / source.size


def parts(side: int, rounds: int) -> dict[str, Any]:
    """What each part of a call takes of 16-bit counts, in one thread, and files to and fro."""
    from xcloudmask.engine import kernel, onnx, predictor, run_numpy

    predictor.unload()
    os.environ["XCLOUDMASK_NUM_THREADS"] = "1"
    stored = np.round(field(np.arange(side), np.arange(side), 6) * 1e4)
    stored = (stored + np.random.default_rng(0).normal(0, 100, stored.shape)).clip(1, 4e4).astype(np.uint16)
    coords = {"y": -30.0 * np.arange(side), "x": 30.0 * np.arange(side)}
    scene = xr.DataArray(stored, dims=("band", "y", "x"), coords=coords)
    scene = scene.cloudmask.describe(bands=list(ukis.BANDS), level="L1C", scale=1e-4, offset=0.0)
    spec = models.get("ukis-6band-l1c")
    mask = scene.cloudmask.predict(spec, patch_size=256, device="cpu")
    ours, backend, per = Parts(), onnx.OnnxBackend, rounds * side**2
    ours.note("calibrate, find gaps", (kernel, "cells_of"))
    ours.note("what a pixel holds", (run_numpy, "pixel_states"))
    ours.note("look for odd numbers", (kernel, "check_units"), (kernel, "name_oddities"))
    ours.note("cut and normalise windows", (backend, "upload"), (backend, "probabilities"))
    ours.note("(no network)", (backend, "run"))
    ours.note("softmax", (onnx, "softmax"))
    ours.note("blend", (backend, "weigh"), (backend, "add"), (kernel, "add_sums"))
    ours.note("decide", (kernel, "_output"))
    spent = clocked(
        lambda: [scene.cloudmask.predict(spec, patch_size=256, device="cpu") for _ in range(rounds)]
    )
    with tempfile.TemporaryDirectory() as folder:
        pixels, zarr, tif = (Path(folder) / name for name in ("pixels.zarr", "mask.zarr", "mask.tif"))
        xr.Dataset({"pixels": (("band", "y", "x"), stored)}).to_zarr(
            pixels, consolidated=False, zarr_format=3
        )
        again: dict[str, Callable[[], Any]] = {
            "read (Zarr, 6 bands)": lambda: xr.open_zarr(pixels, consolidated=False)["pixels"].values,
            "write (Zarr)": lambda: mask.rename("mask").cloudmask.to_zarr(
                zarr, overwrite=True, progress=False
            ),
            "write (GeoTIFF)": lambda: mask.cloudmask.to_geotiff(tif, overwrite=True, progress=False),
        }
        files = {
            name: median(1e9 * clocked(work).cpu / side**2 for _ in range(rounds))
            for name, work in again.items()
        }
    k = window_count(side, spec) * spec.patch**2 / side**2  # pixels computed for each of the scene
    read, write_zarr, write_tif = files.items()
    found = {name: nanos / per for name, nanos in ours.ns.items()}
    total = 1e9 * spent.cpu / per
    # bytes read and bytes written, at least, for a pixel of six bands of 16 bits and three classes
    least = {
        read[0]: (12, 12), "calibrate, find gaps": (12, 25), "what a pixel holds": (12, 1),
        "cut and normalise windows": (24 * k, 24 * k), "softmax": (12 * k, 12 * k),
        "blend": (28 * k + 12, 24 * k + 12), "decide": (13, 1), write_zarr[0]: (1, 1), write_tif[0]: (1, 1),
    }  # fmt: skip
    found = dict([read, *found.items(), ("the rest", total - sum(found.values())), write_zarr, write_tif])
    copying = floor(side, rounds)
    rows = []
    for name, nanos in found.items():
        lower = sum(least[name]) / 2 * copying if name in least else None
        rows.append([name, nanos, lower, nanos / lower if lower else None])
    return {
        "title": f"Parts, one thread, 16-bit counts at 30 m, {side} x {side} x 6, windows of 256",
        "head": ["", "ns/px", "floor", "times"], "rows": rows, "figures": {"whole call": total} | found,
        "note": f"Whole call {total:.0f} ns/px, files not counted; {k:.2f} pixels computed for each.\n"
        f"Copying a byte takes {copying:.3f} ns",
    }  # fmt: skip


SECTIONS = {"whole": whole, "parts": parts}


def main() -> None:
    args = arguments(
        __doc__, "quick", "table", label={"default": "", "help": "what to call the code"},
        only={"nargs": "+", "choices": SECTIONS, "default": list(SECTIONS), "metavar": "SECTION"},
    )  # fmt: skip
    out = None if args.quick else RESULTS / "engine.json"
    if args.table:
        print_runs(RESULTS / "engine.json", args.table)
        return
    free_of_cost()
    for name in sorted(args.only, key=list(SECTIONS).index):  # "parts" puts clocks into the engine
        when = circumstances(args.label)
        keep(
            out,
            {"section": name, "circumstances": when} | SECTIONS[name](*(288, 1) if args.quick else (1536, 5)),
        )


if __name__ == "__main__":
    main()
