"""What the library costs beside the bare network, what memory it holds, and how it does beside its peer.

    python benchmarks/overhead.py            # all of it: about ten minutes on two cores
    python benchmarks/overhead.py --quick    # a toy network and small images: seconds; shows that it works
    python benchmarks/overhead.py --only overhead peer

Seconds mean little while others use the machine. So what is compared is run in turns within one process or
one after the other, the comparison is of medians, and processor seconds, which others hardly touch, stand
beside the seconds of the clock.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import _cases as cases
from _measure import RESULTS, circumstances, clocked, in_child, in_words, load_average, median, save, table

SECTIONS = ("overhead", "memory", "peer")
#: The bars of the issue.
OVERHEAD_BAR = 0.90
FLAT_BAR = 0.15


@dataclass(frozen=True, slots=True)
class Size:
    """How large everything is."""

    network: str = "ukis-6band-l1c"
    image: int = 4096
    chunks: tuple[int, ...] = (1024, 2048)
    rounds: int = 3
    bare_windows: int = 100
    cheap: str = "cheap"
    sides: tuple[int, ...] = (4096, 8192, 16384)
    writers: tuple[str, ...] = ("write", "xarray")
    peer_image: int = 2048
    repeat: int = 2
    workers: int = 2
    with_peer: bool = True


QUICK = Size(
    network="tiny", image=320, chunks=(96,), rounds=1, bare_windows=8, cheap="tiny", sides=(256,),
    peer_image=256, repeat=1, with_peer=False,
)  # fmt: skip


def overhead(size: Size) -> dict[str, Any]:
    """Windows a second through predict, over those of the bare network, in turns."""
    spec = cases.model(size.network)
    pixels = cases.image(size.image, len(spec.bands))
    scene = cases.described(pixels, spec)
    bare = cases.Bare(spec, pixels, size.bare_windows)
    spinning = cases.Bare(spec, pixels, size.bare_windows, spinning=True)
    windows = cases.window_count(size.image, spec)
    bare(), cases.predict(scene[:, : 2 * spec.patch, : 2 * spec.patch].chunk(), spec, size.workers)  # warm

    bare_each: list[dict[str, float]] = []
    ours: dict[int, list[dict[str, float]]] = {chunk: [] for chunk in size.chunks}
    load = []
    for _ in range(size.rounds):
        for chunk in size.chunks:
            bare_each.append(_each(clocked(bare), size.bare_windows))
            cut = scene.chunk(y=chunk, x=chunk)
            spent = clocked(lambda cut=cut: cases.predict(cut, spec, size.workers))
            ours[chunk].append(_each(spent, windows))
            load.append(load_average())
    bare_each.append(_each(clocked(bare), size.bare_windows))
    by_default = [_each(clocked(spinning), size.bare_windows) for _ in range(2)]

    found: dict[str, Any] = {
        "network": spec.name, "image": size.image, "windows": windows, "rounds": size.rounds,
        "bare": _middle(bare_each), "bare_onnxruntime_default_spinning": _middle(by_default),
        "load_averages": load, "bar": OVERHEAD_BAR, "chunks": {},
    }  # fmt: skip
    for chunk, runs in ours.items():
        middle = _middle(runs)
        found["chunks"][str(chunk)] = middle | {
            f"ratio_{clock}": found["bare"][clock] / middle[clock] for clock in ("wall_ms", "cpu_ms")
        }
    return found


def _each(spent: Any, windows: int) -> dict[str, float]:
    return {"wall_ms": 1000 * spent.wall / windows, "cpu_ms": 1000 * spent.cpu / windows}


def _middle(runs: list[dict[str, float]]) -> dict[str, Any]:
    walls = [run["wall_ms"] for run in runs]
    return {
        "wall_ms": median(walls), "cpu_ms": median(run["cpu_ms"] for run in runs),
        "windows_per_s": 1000 / median(walls), "wall_ms_all": [round(wall, 3) for wall in walls],
    }  # fmt: skip


def show_overhead(found: dict[str, Any]) -> str:
    rows = [["bare network, same options", found["bare"]], ["bare network, spinning",
             found["bare_onnxruntime_default_spinning"]]]  # fmt: skip
    rows += [[f"predict, chunks of {chunk}", run] for chunk, run in found["chunks"].items()]
    fields = ("windows_per_s", "wall_ms", "cpu_ms", "ratio_wall_ms", "ratio_cpu_ms")
    lines = [[name, *(run.get(field) for field in fields)] for name, run in rows]
    head = ["", "windows/s", "ms each", "cpu ms", "ratio", "cpu ratio"]
    return (
        f"Overhead: {found['network']}, {found['image']} x {found['image']}, {found['windows']} windows, "
        f"medians of {found['rounds']} rounds\n{table(head, lines)}\n"
        f"Bar: ratio >= {found['bar']:.2f}. Loads: {found['load_averages']}"
    )


def memory(size: Size, script: str) -> dict[str, Any]:
    """Peak memory while a scene made on the fly is masked and written to Zarr, by the scene's side."""
    common = {"name": size.cheap, "workers": size.workers}
    runs = [
        in_child(script, "memory", {"size": side, "chunk": chunk, "writer": writer} | common)
        for writer in size.writers
        for chunk in size.chunks
        for side in size.sides
    ]
    growth = {}
    for writer, chunk in product(size.writers, size.chunks):
        peaks = {r["size"]: r["peak_mib"] for r in runs if (r["writer"], r["chunk"]) == (writer, chunk)}
        growth[f"{writer}, {chunk}"] = max(peaks.values()) / peaks[min(peaks)] - 1
    return {"network": size.cheap, "runs": runs, "growth": growth, "bar": FLAT_BAR}


def show_memory(found: dict[str, Any]) -> str:
    lines = [
        [run["writer"], run["chunk"], run["size"], f"{run['peak_mib']:.0f}", f"{run['before_mib']:.0f}",
         f"{run['peak_mib'] - run['before_mib']:.0f}", run["seconds"]]
        for run in found["runs"]
    ]  # fmt: skip
    head = ["written by", "chunk", "side", "peak MiB", "before", "added", "seconds"]
    growth = "\n".join(f"  {share:+.1%}  {what}" for what, share in found["growth"].items())
    return (
        f"Memory: network {found['network']!r}, scene made on the fly, mask written to Zarr\n"
        f"{table(head, lines)}\nGrowth of the peak (bar: within {found['bar']:.0%}):\n{growth}"
    )


def beside_peer(size: Size, script: str) -> dict[str, Any]:
    """Seconds and memory of ours and of ukis-csmask on one image, each in its own process, in turns."""
    from xcloudmask.engine import cpu_threads

    work = {"size": size.peer_image, "repeat": size.repeat}
    ours, peers = [], []
    for _ in range(size.rounds - 1 or 1):
        ours.append(in_child(script, "ours", work | {"name": size.network}))
        if size.with_peer:
            peers.append(in_child(script, "peer", work | {"threads": cpu_threads()}))
    found = {"image": size.peer_image, "ours": _cold_and_warm(ours)}
    return found | ({"ukis-csmask": _cold_and_warm(peers)} if peers else {})


def _cold_and_warm(runs: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "windows": runs[0]["windows"],
        "cold_s": median(run["seconds"][0] for run in runs),
        "warm_s": median(s for run in runs for s in run["seconds"][1:]),
        "peak_mib": median(run["peak_mib"] for run in runs),
        "before_mib": median(run["before_mib"] for run in runs),
        "pixels_clear_cloud_shadow": runs[0]["shares"],
        "seconds_all": [[round(s, 2) for s in run["seconds"]] for run in runs],
    }


def show_peer(found: dict[str, Any]) -> str:
    lines = [
        [name, run["windows"], run["cold_s"], run["warm_s"], f"{run['peak_mib']:.0f}",
         f"{run['before_mib']:.0f}"]
        for name, run in found.items()
        if isinstance(run, dict)
    ]  # fmt: skip
    head = ["", "windows", "first s", "again s", "peak MiB", "before"]
    side = found["image"]
    return f"Beside the peer: one image of {side} x {side} x 6, in memory as float32\n{table(head, lines)}"


def child(case: str, arguments: str) -> None:
    work = {"memory": cases.memory, "ours": cases.ours, "peer": cases.peer}[case]
    print(json.dumps(work(**json.loads(arguments))))


def main() -> None:
    plain = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=plain)
    parser.add_argument("--quick", action="store_true", help="a toy network and small images")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=SECTIONS, metavar="SECTION")
    parser.add_argument("--out", type=Path, help="result file; results/overhead.json unless --quick")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        return child(*args.child)
    size, script = QUICK if args.quick else Size(), str(Path(__file__).resolve())
    found: dict[str, Any] = {"circumstances": circumstances(), "size": asdict(size)}
    print(in_words(found["circumstances"]), flush=True)
    sections: dict[str, tuple[Callable[[], dict[str, Any]], Callable[[dict[str, Any]], str]]] = {
        "overhead": (lambda: overhead(size), show_overhead),
        "memory": (lambda: memory(size, script), show_memory),
        "peer": (lambda: beside_peer(size, script), show_peer),
    }
    for name in args.only:
        measure, show = sections[name]
        found[name] = measure()
        print("\n" + show(found[name]), flush=True)
    out = args.out or (None if args.quick else RESULTS / "overhead.json")
    if out:
        save(out, found)
    return None


if __name__ == "__main__":
    sys.exit(main())
