"""Measure how fast a model masks on this machine, and what bounds it.

A made-up scene, in memory as 16-bit numbers, is masked a few times. Loading the model is told apart.
"""

from __future__ import annotations

import platform
import statistics
import time
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xcloudmask.cli.flags import whole
from xcloudmask.cli.parse import Parser, UsageError
from xcloudmask.cli.text import paragraph, print_facts, table

if TYPE_CHECKING:
    import xarray as xr

    from xcloudmask.types import ModelSpec

#: What those who compare cloud masks state the seconds of: about a Sentinel-2 tile of 10 m.
SHARED_MPX = 100
#: What the parts are called that `xcloudmask.engine.stopwatch` notes.
PARTS = {
    "network": "the network",
    "pixels": "reading and preparing pixels",
    "blending": "blending and deciding",
}


def add_arguments(parser: Parser) -> None:
    """Declare the model and the size."""
    parser.add_argument(
        "model", nargs="?", metavar="MODEL", help="see: xcloudmask models (what predict takes by default)"
    )
    parser.add_argument(
        "--size", type=whole, default=2048, metavar="N", help="pixels a side of the scene (2048)"
    )
    parser.add_argument("--runs", type=whole, default=3, metavar="N", help="how often it is masked (3)")
    parser.add_argument("--device", default="auto", metavar="D", help="cpu, cuda, cuda:0, mps, openvino")
    parser.add_argument("--dtype", default="auto", metavar="T", help="float32, bfloat16, float16")


def run(args: Namespace) -> int:
    """Measure, and print."""
    from xcloudmask import models
    from xcloudmask.engine.devices import available_devices, cpu_threads, for_device
    from xcloudmask.engine.malloc import map_large_blocks
    from xcloudmask.engine.stopwatch import noting
    from xcloudmask.predict.choose_model import default_model

    if min(args.size, args.runs) < 1:
        raise UsageError("--size and --runs are 1 at least")
    spec = models.get(args.model) if args.model else default_model()
    if args.size < spec.patch:
        raise UsageError(f"--size {args.size}: a window of {spec.name} has {spec.patch}, give that at least")
    map_large_blocks()  # as `predict` does
    how = {"device": args.device, "dtype": args.dtype}
    small, large = (made_up(spec, side) for side in (spec.patch, args.size))
    start = time.perf_counter()
    small.cloudmask.predict(spec, **how)
    first = time.perf_counter() - start
    walls, processor = [], time.process_time()
    for _ in range(args.runs):
        start = time.perf_counter()
        mask = large.cloudmask.predict(spec, **how)
        walls.append(time.perf_counter() - start)
    processor = (time.process_time() - processor) / args.runs
    with noting() as seconds:
        large.cloudmask.predict(spec, **how)
    device = available_devices(args.device, spec.gpu_runtime or spec.runtime)[0]
    run_as = for_device(spec, device, args.dtype)
    dtype = _dtype(run_as, device, args.dtype)
    where = hardware(device)
    at = f"{where}, {cpu_threads()} threads" if device == "cpu" else where
    wall, pixels = statistics.median(walls), args.size**2 / 1e6
    share = {part: seconds[part] / max(sum(seconds.values()), 1e-9) for part in PARTS}
    bound = max(share, key=lambda part: share[part])
    side, overlap = mask.attrs["patch_size"], mask.attrs["overlap"]
    text = table([
            ("model", f"{spec.name} {spec.version}, {run_as.runtime}, {dtype}"),
            ("on", at),
            (
                "scene",
                f"{len(_bands(spec))} bands, {args.size} x {args.size}; windows of {side}, overlap {overlap}",
            ),
            ("first call", f"{first:.1f} s for one window, imports and loading included"),
            (
                "speed",
                f"{pixels / wall:.3g} Mpx/s: {wall:.3g} s, median of {args.runs} ({min(walls):.3g} to "
                f"{max(walls):.3g}); {processor:.3g} s of processor time each",
            ),
            (
                "bound by",
                f"{PARTS[bound]}. Time inside one more run, all threads together: "
                + ", ".join(f"{name} {100 * share[part]:.0f} %" for part, name in PARTS.items()),
            ),
    ])  # fmt: skip
    much = f"extrapolated from {pixels:.3g} Mpx" if args.size**2 != SHARED_MPX * 10**6 else "measured"
    text += "\n\n" + paragraph(f"To share ({SHARED_MPX} Mpx, {much}):")
    facts = {
        "model": spec.name, "version": spec.version, "runtime": run_as.runtime, "dtype": dtype, "device": at,
        "size": args.size, "first_call_s": first, "runs_s": walls, "processor_s": processor,
        "megapixels_per_s": pixels / wall, "bound_by": bound, "shares": share,
        f"seconds_of_{SHARED_MPX}_mpx": wall * SHARED_MPX / pixels,
    }  # fmt: skip
    print_facts(args, facts, f"{text}\n| {at} | {dtype} | {wall * SHARED_MPX / pixels:.3g} s |")
    return 0


def made_up(spec: ModelSpec, side: int) -> xr.DataArray:
    """Return a scene that varies at the scale of clouds, as 16-bit numbers, on the model's own pixels."""
    import numpy as np
    import xarray as xr

    import xcloudmask  # noqa: F401  registers the accessor

    steps = np.arange(side)
    waves = np.sin(steps / 37)[:, None] * np.cos(steps / 53) + np.sin(steps / 211)[:, None]
    shared = np.clip(0.25 + 0.2 * waves, 0.01, 1)
    bands = _bands(spec)
    pixels = np.stack([np.round(shared * (1 - 0.06 * band) * 1e4) for band in range(len(bands))]).astype(
        np.uint16
    )
    step = (spec.gsd[0] * spec.gsd[1]) ** 0.5 if spec.gsd else 10.0
    coords = {"y": -step * steps, "x": step * steps}
    da = xr.DataArray(pixels, dims=("band", "y", "x"), coords=coords)
    level: Any = spec.level or "toa"
    sensor = "sentinel-2" if spec.any_bands else None
    described: xr.DataArray = da.cloudmask.describe(
        sensor, bands=list(bands), level=level, scale=1e-4, offset=0.0
    )
    return described


def _bands(spec: ModelSpec) -> tuple[str, ...]:
    """Return the model's bands; for one that takes any, those of Sentinel-2 that most products have."""
    return spec.bands or ("B02", "B03", "B04", "B08", "B11", "B12")


def _dtype(spec: ModelSpec, device: str, dtype: str) -> str:
    """Return the precision that a run computes in."""
    if spec.runtime == "onnx":
        return "float32"
    from xcloudmask.engine.predictor import network_of
    from xcloudmask.engine.torch import autocast_dtype

    network = network_of(spec, device)
    half = autocast_dtype(network.members[0] if network.members else network, device, dtype)
    return "float32" if half is None else str(half).removeprefix("torch.")


def hardware(device: str) -> str:
    """Return what a device is called where it was bought."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    except OSError:
        names = []
    name = names[0] if names else platform.processor() or platform.machine()
    return name if device in ("cpu", "mps") else f"{device} on {name}"
