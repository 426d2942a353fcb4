"""``predict --dry-run``: what would be masked, by which model, in how many windows, memory and seconds."""

from __future__ import annotations

import math
import os
import sys
import time
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from xcloudmask.cli import source
from xcloudmask.cli.text import paragraph, print_facts, table
from xcloudmask.predict.job import Job
from xcloudmask.predict.options import PredictOptions
from xcloudmask.predict.prepare import prepare
from xcloudmask.types import ModelSpec

#: Windows a side of the made-up scene that the estimate of seconds is measured on.
SIDE = 2


def run(args: Namespace, outputs: Mapping[str, Path], asked: PredictOptions) -> int:
    """Print it; pixels of the scenes are not read, nothing is written."""
    each: dict[tuple[str, int], float] = {}
    rows, facts = [("scene", "windows", "Mpx", "time", "memory", "model and output")], []
    for path, out in outputs.items():
        job = prepare(source.open_scene(args, path), asked)
        spec, pictures = job.options.spec, math.prod(job.pixels.shape[:-3])
        windows, pixels = job.plan.tiles.count * pictures, math.prod(job.pixels.shape[-2:]) * pictures / 1e6
        key = spec.name, job.options.patch
        if key not in each:
            each[key] = _seconds(spec, job)
        seconds, memory = each[key] * windows, _memory(job)
        rows.append((
            Path(path).name, f"{windows:,}", f"{pixels:.3g}", f"{seconds:.2g} s", f"{memory:.1f} GB",
            f"{spec.name}\n{out.name if args.out_dir else out}",
        ))  # fmt: skip
        facts.append({
            "path": path, "out": out, "model": spec.name, "windows": windows, "megapixels": pixels,
            "window": job.options.patch, "overlap": job.options.overlap, "seconds": seconds,
            "memory_gb": memory,
        })  # fmt: skip
    note = (
        f"Nothing was read or written. Seconds are extrapolated from {SIDE * SIDE} windows of a made-up "
        "scene masked here just now, without reading and writing; memory is of the whole process."
    )
    where = f"\noutputs in {args.out_dir}" if args.out_dir else ""
    print_facts(args, facts, f"{table(rows)}{where}\n\n{paragraph(note)}", head=True)
    return 0


def _seconds(spec: ModelSpec, job: Job) -> float:
    """Return what a window takes on this machine, once the model is loaded."""
    from xcloudmask.cli.bench import made_up

    options = job.options
    side = SIDE * (options.patch - options.overlap) + options.overlap
    scene = made_up(spec, side)
    how: dict[str, Any] = {
        name: getattr(job.asked, name) for name in ("device", "dtype", "batch_size", "tta")
    } | {"patch_size": options.patch, "overlap": options.overlap, "working_resolution": "native"}
    if any(each.required for each in spec.aux):
        how["aux"] = {each.name: scene.isel(band=0, drop=True) for each in spec.aux if each.required}
    scene.isel(y=slice(options.patch), x=slice(options.patch)).cloudmask.predict(spec, **how)
    start = time.perf_counter()
    scene.cloudmask.predict(spec, **how)
    return (time.perf_counter() - start) / SIDE**2


def _memory(job: Job) -> float:
    """Return about how many GB are held at once: what the made-up scene took, and a chunk for each thread."""
    import psutil  # type: ignore[import-untyped,unused-ignore]

    here = psutil.Process().memory_info().rss
    if sys.platform == "linux":
        import resource

        here = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    chunks, bands = job.pixels.chunks or tuple((size,) for size in job.pixels.shape), job.pixels.shape[-3]
    numbers = bands * (job.pixels.dtype.itemsize + 4) + 4 * (job.plan.channels + 1)
    at_once = min(os.cpu_count() or 1, math.prod(map(len, (*chunks[:-3], *chunks[-2:]))))
    # Measured on 9 Mpx, six bands, two threads: 1.45 GB with chunks of 2048 and 1.16 GB with 1024; this gives
    # 1.43 and 1.03.
    return float(here + at_once * max(chunks[-2]) * max(chunks[-1]) * numbers) / 1e9
