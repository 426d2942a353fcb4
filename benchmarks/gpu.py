"""Everything that a GPU is asked for, in one run of ten minutes at most.

    python -m benchmarks gpu                       # on the first GPU; results/gpu-DATE-CARD.json
    python -m benchmarks gpu --device cpu --quick  # that the script runs, where there is none

Each section is a process of its own with a limit of its own, so that one that fails or hangs costs the others
nothing; what failed stays in the file, with its last lines. Sections: the tests marked gpu; a 10 m and a 20 m
tile from host memory to host memory, as they are and averaged to 30 m as users have it; the share of the bare
network's speed at its best batch, compiled or not; how far each precision is from float32; batches halved as
the card fills up for real; two models at once; what the time goes to; what a graph says where onnxruntime has
no CUDA.
"""

from __future__ import annotations

import argparse
import functools
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve()
#: One network, for what is compared with the network alone; all else takes the default model.
NETWORK = "ukis-6band-l1c"
#: Seconds each section may take: 600 together.
LIMITS = {
    "tests": 120,
    "tile": 100,
    "efficiency": 80,
    "precision": 60,
    "memory": 80,
    "together": 60,
    "profile": 60,
    "graph": 40,
}


def _scene(side: int, step: float = 0.0) -> Any:
    """Pixels of the network's own size, or of `step` metres."""
    import numpy as np

    from xcloudmask import models
    from xcloudmask.cli.bench import made_up

    scene = made_up(models.get(NETWORK), side)
    return scene.assign_coords(y=-step * np.arange(side), x=step * np.arange(side)) if step else scene


def _predict(scene: Any, device: str, model: Any = None, **options: Any) -> Any:
    from xcloudmask.predict.choose_model import default_model

    how = {"working_resolution": "native", "device": device} | options
    return scene.cloudmask.predict(model or default_model(), **how).values


def _seconds(work: Callable[[], object], rounds: int) -> list[float]:
    out = []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        out.append(time.perf_counter() - start)
    return out


def tests(device: str, quick: bool) -> dict[str, Any]:
    """The suite's tests that need a card."""
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "tests/engine", "tests/models/sources"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=HERE.parent.parent)
    return {"rc": done.returncode, "last": done.stdout.splitlines()[-3:]}


def tile(device: str, quick: bool) -> dict[str, Any]:
    """Whole tiles from NumPy to NumPy, the first call and those after it."""
    found: dict[str, Any] = {}
    for step, side in ((20.0, 5490), (10.0, 10980)):
        scene = _scene(256 if quick else side, step)
        for working in ("native", "auto"):
            work = functools.partial(_predict, scene, device, working_resolution=working)
            first, *again = _seconds(work, 2 if quick else 4)
            found[f"{step:.0f} m, {working}"] = {"side": scene.sizes["y"], "first_s": first, "again_s": again}
    return found


def efficiency(device: str, quick: bool) -> dict[str, Any]:
    """Windows a second through predict over those of the bare network at its best batch, in turns."""
    import torch

    from xcloudmask.engine.devices import for_device
    from xcloudmask.engine.tiling import AxisPlan
    from xcloudmask.engine.torch import TorchBackend, autocast_dtype
    from xcloudmask.models import get

    spec = for_device(get(NETWORK), device if device != "cpu" else "gpu", "auto")
    module, _, function = spec.loader.partition(":")
    made = getattr(__import__(module, fromlist=["_"]), function)(spec)
    backend = TorchBackend(made, device, "auto")
    side = 256 if quick else 4096
    scene = _scene(side)
    _predict(scene, device, NETWORK)
    modules = {"eager": backend.module}
    if device.startswith("cuda"):  # with CUDA graphs
        modules["compiled"] = torch.compile(backend.module, mode="reduce-overhead")

    def bare(way: str, batch: int, count: int) -> float:
        module = modules[way]
        pixels = torch.rand((batch, 6, spec.patch, spec.patch), device=device)
        wait = torch.cuda.synchronize if device.startswith("cuda") else lambda: None
        half = autocast_dtype(made, device, "auto")
        kind = torch.device(device).type
        with torch.inference_mode(), torch.autocast(kind, dtype=half, enabled=half is not None):
            module(pixels)
            wait()
            start = time.perf_counter()
            for _ in range(count):
                module(pixels)
            wait()
        return batch * count / (time.perf_counter() - start)

    batches = (1, 2) if quick else (8, 16, 32, 64, 128)
    alone = {("eager", batch): bare("eager", batch, 1 if quick else 4) for batch in batches}
    best = max(alone, key=lambda each: alone[each])
    for way in [name for name in modules if name != "eager"]:  # a compilation for each batch takes too long
        try:
            alone[way, best[1]] = bare(way, best[1], 1 if quick else 4)
        except Exception as error:  # what cannot be compiled is no candidate
            alone[way, best[1]] = 0.0
            print(f"{way}: {error}", file=sys.stderr)
    best = max(alone, key=lambda each: alone[each])
    plan = AxisPlan(side, spec.patch, spec.overlap)
    ratios, rates = [], []
    for _ in range(1 if quick else 5):
        network_rate = bare(*best, 1 if quick else 20)
        seconds = _seconds(lambda: _predict(scene, device, NETWORK), 1)[0]
        rates.append((network_rate, plan.count**2 / seconds))
        ratios.append(rates[-1][1] / network_rate)
    return {
        "alone_windows_per_s": {f"{way}, batch {batch}": rate for (way, batch), rate in alone.items()},
        "best": list(best), "windows_per_s": rates, "ratios": sorted(ratios), "bar": 0.85,
    }  # fmt: skip


def precision(device: str, quick: bool) -> dict[str, Any]:
    """Pixels of the same class as in float32, by precision, on a scene that is made up."""
    scene = _scene(256 if quick else 2048)
    exact = _predict(scene, device, dtype="float32")
    out = {}
    for dtype in ("auto", "bfloat16", "float16"):
        codes = _predict(scene, device, dtype=dtype)
        out[dtype] = {"same": float((codes == exact).mean()), "seconds": _seconds(
            lambda dtype=dtype: _predict(scene, device, dtype=dtype), 1)[0]}  # fmt: skip
    return out


def memory(device: str, quick: bool) -> dict[str, Any]:
    """A card that others have filled to 10 %, and to the last half GiB: batches are halved, nothing fails."""
    import logging

    import torch

    scene = _scene(256 if quick else 4096)
    expected = _predict(scene, device)
    found: dict[str, Any] = {}
    if not device.startswith("cuda"):
        return {"same": bool((_predict(scene, device) == expected).all())}
    halved: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: halved.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("xcloudmask").addHandler(handler)
    for left in (0.1, 2**29 / torch.cuda.mem_get_info()[1]):
        torch.cuda.empty_cache()
        free, total = torch.cuda.mem_get_info()
        taken = torch.empty(max(0, int(free - left * total)), dtype=torch.uint8, device=device)
        halved.clear()
        torch.cuda.reset_peak_memory_stats()
        codes = _predict(scene, device)
        peak = torch.cuda.max_memory_allocated() - taken.nbytes
        found[f"{left:.4f} of the card free"] = {
            "same": bool((codes == expected).all()), "peak_gib": peak / 2**30,
            "halved": sum("out of memory" in line for line in halved),
        }  # fmt: skip
        del taken
    return found


def together(device: str, quick: bool) -> dict[str, Any]:
    """Two models from two threads on one card, beside each of them alone."""
    from concurrent.futures import ThreadPoolExecutor

    scene = _scene(256 if quick else 2048)
    names = (None, "ukis-4band-l1c")
    alone = [_predict(scene, device, name) for name in names]
    start = time.perf_counter()
    with ThreadPoolExecutor(2) as pool:
        beside = list(pool.map(lambda name: _predict(scene, device, name), names))
    same = [bool((a == b).all()) for a, b in zip(alone, beside, strict=True)]
    return {"same": same, "seconds": time.perf_counter() - start}


def profile(device: str, quick: bool) -> dict[str, Any]:
    """What the threads wait for, as `xcloudmask bench` tells it."""
    command = [sys.executable, "-m", "xcloudmask", "bench", "--device", device, "--size"]
    done = subprocess.run([*command, "256" if quick else "8192"], capture_output=True, text=True, check=True)
    return {"lines": done.stdout.splitlines()}


def graph(device: str, quick: bool) -> dict[str, Any]:
    """An ONNX graph, which has no other runtime: where it runs, and the warning if that is the CPU."""
    import warnings
    from dataclasses import replace

    import onnxruntime as ort

    from xcloudmask.models import get

    alone = replace(get(NETWORK), name="graph-alone", gpu_runtime=None)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        seconds = _seconds(lambda: _predict(_scene(256), "auto", alone), 1)
    return {
        "providers": ort.get_available_providers(), "seconds": seconds,
        "warnings": [str(each.message) for each in caught],
    }  # fmt: skip


SECTIONS = {
    each.__name__: each
    for each in (tests, tile, efficiency, precision, memory, together, profile, graph)
}  # fmt: skip


def main() -> int:
    plain = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks gpu", description=__doc__, formatter_class=plain
    )
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--quick", action="store_true", help="small scenes; the tests are left out")
    parser.add_argument("--only", nargs="+", choices=list(SECTIONS), metavar="SECTION")
    parser.add_argument("--out", type=Path, help="result file")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(json.dumps(SECTIONS[args.child](args.device, args.quick)))
        return 0
    from _measure import RESULTS, circumstances, save

    from xcloudmask.cli.bench import hardware

    card = hardware(args.device)
    found: dict[str, Any] = {"circumstances": circumstances(), "card": card, "sections": {}}
    out = args.out or RESULTS / f"gpu-{found['circumstances']['date'][:10]}-{card.replace(' ', '-')}.json"
    wanted = args.only or [name for name in SECTIONS if not (args.quick and name == "tests")]
    slower = 1 if args.device.startswith("cuda") else 10
    for name in wanted:
        command = [
            sys.executable,
            HERE,
            "--child",
            name,
            "--device",
            args.device,
            *(["--quick"] * args.quick),
        ]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=slower * LIMITS[name], check=False
            )
            last = done.stdout.splitlines()[-1:] if done.returncode == 0 else []
            result = json.loads(last[0]) if last else {"failed": done.stderr.splitlines()[-8:]}
        except subprocess.TimeoutExpired:
            result = {"failed": [f"not done in {slower * LIMITS[name]} s"]}
        found["sections"][name] = result
        print(f"{name}: {json.dumps(result)}", flush=True)
        if args.out or not args.quick:
            save(out, found)  # after each: a lease may end
    return int(any("failed" in each for each in found["sections"].values()))


if __name__ == "__main__":
    sys.exit(main())
