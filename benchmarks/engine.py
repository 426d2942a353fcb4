"""What the engine costs a pixel beside a network that costs nothing: calibration, windows, blend, decision.

    python benchmarks/engine.py            # a minute; adds a row to the result file
    python benchmarks/engine.py --quick    # a small scene, nothing is kept
    PYTHONPATH=OTHER_TREE python benchmarks/engine.py   # the same of another checkout

Processor time, which other programs hardly touch; the checksum of each mask shows whether a change of the
engine changed a pixel.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any

import numpy as np
from _cases import Pixels, image
from _measure import arguments, circumstances, clocked, in_words, median, save, table

from xcloudmask.engine.devices import cpu_lanes
from xcloudmask.engine.onnx import OnnxBackend
from xcloudmask.models.sources import ukis


def free_of_cost() -> None:
    """Put three of the bands in the place of what onnxruntime would answer."""

    def opened(self: OnnxBackend, body: bytes) -> None:
        self.lanes = cpu_lanes()

    def answer(self: OnnxBackend, pixels: Pixels) -> Pixels:
        return np.ascontiguousarray(pixels[:, :3])

    OnnxBackend.open, OnnxBackend.run = opened, answer  # type: ignore[method-assign]


def cases(side: int) -> dict[str, Callable[[], Any]]:
    """Scenes of six bands."""
    import xarray as xr

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


def measure(side: int, rounds: int) -> dict[str, Any]:
    free_of_cost()
    out: dict[str, Any] = {}
    for name, work in cases(side).items():
        mask = work()
        spent = [1e9 * clocked(work).cpu / side**2 for _ in range(rounds)]
        digest = hashlib.sha256(mask.tobytes()).hexdigest()[:12]
        out[name] = {"cpu_ns_a_pixel": median(spent), "least": min(spent), "most": max(spent), "mask": digest}
    return out


def show(runs: list[dict[str, Any]]) -> str:
    told = []
    for run in runs:
        rows = [[name, *row.values()] for name, row in run["cases"].items()]
        head = ["scene", "ns/px", "least", "most", "mask"]
        told.append(
            f"{in_words(run['circumstances'])}\n{run['side']} x {run['side']} x 6\n" + table(head, rows)
        )
    return "\n\n".join(told)


def main() -> None:
    args = arguments(
        __doc__, "quick", "table", out="engine.json", label={"default": "", "help": "what to call the code"}
    )
    runs = json.loads(args.out.read_text())["runs"] if args.out.exists() and not args.quick else []
    if not args.table:
        side, rounds = (288, 1) if args.quick else (1536, 5)
        when = circumstances() | ({"commit": args.label} if args.label else {})
        runs.append({"circumstances": when, "side": side, "cases": measure(side, rounds)})
        if not args.quick:
            save(args.out, {"runs": runs})
    print(show(runs))


if __name__ == "__main__":
    main()
