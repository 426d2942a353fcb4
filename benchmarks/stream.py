"""What streaming to Zarr costs beside the bare network, and whether its memory depends on the scene.

    python benchmarks/stream.py              # overhead: some three minutes on two idle cores
    python benchmarks/stream.py --memory     # 10,000 and 30,000 pixels a side as well: a quarter of an hour
    python benchmarks/stream.py --quick      # a toy network and a small image: seconds; shows that it works
    python benchmarks/stream.py --table      # measures nothing: prints the result file as tables

The bare network is called by hand, one window after the other, cut and normalised before. It and `stream`
take turns in one process. Compared are medians; where rounds of the bare network lie too far apart, the
machine was not ours and no ratio of seconds is stated.
"""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import _cases as cases
import dask
from _measure import (
    RESULTS,
    arguments,
    circumstances,
    clocked,
    in_child,
    in_words,
    load_average,
    median,
    save,
    spread,
    table,
)

from xcloudmask.types import ModelSpec

BAR, FLAT_BAR, SPREAD_LIMIT = 0.90, 0.15, 0.15


@dataclass(frozen=True, slots=True)
class Size:
    """How large everything is."""

    network: str = "ukis-6band-l1c"
    image: int = 4096
    chunk: int = 1024
    shard: int = 1024  # sixteen regions, so that reading, inferring and writing can overlap
    rounds: int = 3
    bare_windows: int = 100
    workers: int = 2
    cheap: str = "cheap"
    sides: tuple[int, ...] = (10_000, 30_000)


QUICK = Size(
    network="tiny", image=320, chunk=96, shard=128, rounds=1, bare_windows=16, cheap="tiny", sides=(200, 320)
)


def overhead(size: Size) -> dict[str, Any]:
    spec = cases.model(size.network)
    pixels = cases.image(size.image, len(spec.bands))
    scene = cases.described(pixels, spec).chunk(y=size.chunk, x=size.chunk)
    bare = cases.Bare(spec, pixels, size.bare_windows)
    windows = cases.window_count(size.image, spec)
    once = lambda: streamed(scene, spec, size)  # noqa: E731
    bare(), once()  # warm
    share = size.image**2 / 1e6 / windows  # megapixels of the image that one window stands for
    bares, ours, load = [], [], []
    for _ in range(size.rounds):
        bares.append(_rates(clocked(bare), size.bare_windows * share))
        ours.append(_rates(clocked(once), windows * share))
        load.append(load_average())
    bares.append(_rates(clocked(bare), size.bare_windows * share))
    return judged(bares, ours) | {
        "network": spec.name, "image": size.image, "windows": windows, "rounds": size.rounds,
        "load_averages": load, "bar": BAR, "spread_limit": SPREAD_LIMIT,
    }  # fmt: skip


def streamed(scene: Any, spec: ModelSpec, size: Size) -> None:
    from xcloudmask.streaming import stream

    sizes = {"chunks": {"y": size.shard, "x": size.shard}, "shards": False}
    with tempfile.TemporaryDirectory() as folder, dask.config.set(num_workers=size.workers):
        report = stream(
            scene,
            folder,
            predict={"model": spec, "working_resolution": "native", "device": "cpu"},
            progress=False,
            **sizes,
        )
    if not report.complete:
        raise RuntimeError(str(report))


def _rates(spent: Any, megapixels: float) -> dict[str, float]:
    return {"mpx_per_s": megapixels / spent.wall, "mpx_per_cpu_s": megapixels / spent.cpu}


def judged(bares: list[dict[str, float]], ours: list[dict[str, float]]) -> dict[str, Any]:
    """Return medians, and ours over the bare network's; None for the clock's if those are far apart."""
    found: dict[str, Any] = {
        name: {key: median(run[key] for run in runs) for key in runs[0]}
        | {"mpx_per_s_all": [round(run["mpx_per_s"], 3) for run in runs]}
        for name, runs in (("bare", bares), ("stream", ours))
    }
    apart = spread(run["mpx_per_s"] for run in bares)
    ratio = found["stream"]["mpx_per_s"] / found["bare"]["mpx_per_s"]
    return found | {
        "spread_of_bare": apart,
        "ratio_wall": ratio if apart <= SPREAD_LIMIT else None,
        "ratio_cpu": found["stream"]["mpx_per_cpu_s"] / found["bare"]["mpx_per_cpu_s"],
    }


def show_overhead(found: dict[str, Any]) -> str:
    rows = [[name, found[name]["mpx_per_s"], found[name]["mpx_per_cpu_s"]] for name in ("bare", "stream")]
    apart, told = found["spread_of_bare"], found["ratio_wall"]
    least = min(found["stream"]["mpx_per_s_all"]) / max(found["bare"]["mpx_per_s_all"])
    judgement = f"by the clock {told:.2f}" if told is not None else "not by the clock"
    judgement += f" (at least {least:.2f}: our slowest round, its fastest)"
    return (
        f"Stream: {found['network']}, {found['image']} x {found['image']}, {found['windows']} windows, "
        f"medians of {found['rounds']} rounds\n"
        f"{table(['', 'Mpx/s', 'Mpx/cpu s'], rows)}\n"
        f"Ratio: {judgement},\nby processor time {found['ratio_cpu']:.2f}; bar {found['bar']:.2f}\n"
        f"Rounds of the bare network lie {apart:.0%} apart (limit {found['spread_limit']:.0%}).\n"
        f"Loads: {found['load_averages']}"
    )


def memory(size: Size) -> dict[str, Any]:
    """Peak memory of a mask written from a scene that is made on the fly, each in a process of its own."""
    script = str(Path(__file__).with_name("overhead.py"))
    common = {"name": size.cheap, "workers": size.workers, "chunk": size.chunk, "writer": "stream"}
    runs = [in_child(script, "memory", {"size": side} | common, limit=3600) for side in size.sides]
    growth = max(run["peak_mib"] for run in runs) / runs[0]["peak_mib"] - 1
    return {"network": size.cheap, "runs": runs, "growth": growth, "bar": FLAT_BAR}


def show_memory(found: dict[str, Any]) -> str:
    rows = [
        [run["size"], f"{run['peak_mib']:.0f}", f"{run['before_mib']:.0f}", run["seconds"]]
        for run in found["runs"]
    ]
    return (
        f"Memory: network {found['network']!r}, a scene made on the fly\n"
        f"{table(['side', 'peak MiB', 'before', 'seconds'], rows)}\n"
        f"Growth of the peak: {found['growth']:+.1%} (bar: within {found['bar']:.0%})"
    )


def show(found: dict[str, Any]) -> str:
    told = [in_words(found["circumstances"])]
    for name, section in (("overhead", show_overhead), ("memory", show_memory)):
        if name in found:
            when = found["measured"][name]
            told.append(f"{section(found[name])}\nMeasured {when['date']} at commit {when['commit']}")
    return "\n\n".join(told)


def main() -> None:
    args = arguments(
        __doc__, "quick", "table", "out", memory={"action": "store_true", "help": "measure memory, too"}
    )
    out = args.out or (None if args.quick else RESULTS / "stream.json")
    found: dict[str, Any] = json.loads(out.read_text()) if out is not None and out.exists() else {}
    if args.table:
        print(show(found))
        return
    size = QUICK if args.quick else Size()
    found |= {"circumstances": circumstances(), "size": asdict(size)}
    for name, work in (("overhead", overhead), *([("memory", memory)] if args.memory else [])):
        found[name] = work(size)
        found.setdefault("measured", {})[name] = {k: found["circumstances"][k] for k in ("date", "commit")}
    print(show(found))
    if out:
        save(out, found)


if __name__ == "__main__":
    sys.exit(main())
