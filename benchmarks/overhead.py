"""What the library costs beside the bare network, what memory it holds, and how it does beside its peer.

    python benchmarks/overhead.py            # all of it: about ten minutes on two cores
    python benchmarks/overhead.py --quick    # a toy network and small images: seconds; shows that it works
    python benchmarks/overhead.py --only overhead peer       # keeps the other sections of the result file
    python benchmarks/overhead.py --table    # measures nothing: prints the result file as tables

Seconds mean little while others use the machine. So what is compared is run in turns within one process or
one after the other, the comparison is of medians, and processor seconds, which others hardly touch, stand
beside the seconds of the clock. Where the same work took times too far apart, no ratio of seconds is stated.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import _cases as cases
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

from xcloudmask.engine.devices import cpu_lanes

SECTIONS = ("overhead", "memory", "peer")
#: The bars of the issue.
OVERHEAD_BAR = 0.90
FLAT_BAR = 0.15
#: Seconds of the bare network that differ by more from round to round say more of the machine than of us.
SPREAD_LIMIT = 0.15


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
    writers: tuple[str, ...] = ("stream", "write")
    #: Not ours: in whose order Dask walks over the scene. At the first side and chunk only.
    extra_writer: str = "xarray"
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
    beside = cases.Bare(spec, pixels, size.bare_windows, lanes=cpu_lanes())
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
    by_default, in_lanes = (
        [_each(clocked(other), size.bare_windows) for _ in range(3)] for other in (spinning, beside)
    )

    found: dict[str, Any] = {
        "network": spec.name, "image": size.image, "windows": windows, "rounds": size.rounds,
        "bare": _middle(bare_each), "bare_onnxruntime_default_spinning": _middle(by_default),
        "bare_side_by_side": _middle(in_lanes),
        "load_averages": load, "bar": OVERHEAD_BAR, "spread_limit": SPREAD_LIMIT,
    }  # fmt: skip
    return found | with_ratios(found["bare"], {str(chunk): _middle(runs) for chunk, runs in ours.items()})


def with_ratios(bare: dict[str, Any], ours: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return our figures over those of the bare network; None for seconds that vary too much to tell."""
    apart = spread(bare["wall_ms_all"])
    chunks = {
        chunk: run | {
            "ratio_wall_ms": bare["wall_ms"] / run["wall_ms"] if apart <= SPREAD_LIMIT else None,
            "ratio_cpu_ms": bare["cpu_ms"] / run["cpu_ms"],
        }
        for chunk, run in ours.items()
    }  # fmt: skip
    return {"spread_of_bare": apart, "chunks": chunks}


def _each(spent: Any, windows: int) -> dict[str, float]:
    return {"wall_ms": 1000 * spent.wall / windows, "cpu_ms": 1000 * spent.cpu / windows}


def _middle(runs: list[dict[str, float]]) -> dict[str, Any]:
    walls = [run["wall_ms"] for run in runs]
    return {
        "wall_ms": median(walls), "cpu_ms": median(run["cpu_ms"] for run in runs),
        "windows_per_s": 1000 / median(walls), "wall_ms_all": [round(wall, 3) for wall in walls],
    }  # fmt: skip


def show_overhead(found: dict[str, Any]) -> str:
    rows = [
        ["bare, a loop", found["bare"]],
        ["bare, spinning", found["bare_onnxruntime_default_spinning"]],
        ["bare, side by side", found["bare_side_by_side"]],
    ]
    rows += [[f"predict, chunks of {chunk}", run] for chunk, run in found["chunks"].items()]
    fields = ("windows_per_s", "wall_ms", "cpu_ms", "ratio_wall_ms", "ratio_cpu_ms")
    best = min(found["bare"]["wall_ms_all"])
    lines = [
        [name, *(run.get(field) for field in fields), best / max(run["wall_ms_all"]) if at > 2 else None]
        for at, (name, run) in enumerate(rows)
    ]
    head = ["", "windows/s", "ms", "cpu ms", "ratio", "cpu ratio", "at least"]
    apart = found["spread_of_bare"]
    told = f"Rounds of the bare network lie {apart:.0%} apart"
    if apart > found["spread_limit"]:
        told += (
            f": over {found['spread_limit']:.0%},\nso no ratio of seconds is stated, only what it is at "
            "least:\nour slowest round over the fastest of the loop"
        )
    return (
        f"Overhead: {found['network']}, {found['image']} x {found['image']}, {found['windows']} windows, "
        f"medians of {found['rounds']} rounds\n{table(head, lines)}\n{told}\n"
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
    other = {"size": size.sides[0], "chunk": size.chunks[0], "writer": size.extra_writer}
    extra = [in_child(script, "memory", other | common)]
    return {"network": size.cheap, "runs": runs, "extra": extra, "growth": growth, "bar": FLAT_BAR}


def show_memory(found: dict[str, Any]) -> str:
    named = [(run["writer"], run) for run in found["runs"]]
    named += [(f"{run['writer']} (not ours)", run) for run in found.get("extra", [])]
    lines = [
        [name, run["chunk"], run["size"], f"{run['peak_mib']:.0f}", f"{run['before_mib']:.0f}",
         f"{run['peak_mib'] - run['before_mib']:.0f}", run["seconds"]]
        for name, run in named
    ]  # fmt: skip
    head = ["written by", "chunk", "side", "peak MiB", "before", "added", "seconds"]
    growth = "\n".join(f"  {share:+.1%}  {what}" for what, share in found["growth"].items())
    return (
        f"Memory: network {found['network']!r}, scene made on the fly, mask written to Zarr\n"
        f"{table(head, lines)}\nGrowth of the peak (bar: within {found['bar']:.0%}):\n{growth}"
    )


def beside_peer(size: Size, script: str) -> dict[str, Any]:
    """Seconds and memory of ours and of ukis-csmask on one image, each in its own process, in turns."""
    from xcloudmask.engine.devices import cpu_threads

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


SHOW: dict[str, Callable[[dict[str, Any]], str]] = {
    "overhead": show_overhead, "memory": show_memory, "peer": show_peer,
}  # fmt: skip


def show(found: dict[str, Any]) -> str:
    """Return a result file as tables, each with when and at which commit it was measured."""
    told = [in_words(found["circumstances"])]
    for name, section in SHOW.items():
        if name in found:
            when = found["measured"][name]
            told.append(f"{section(found[name])}\nMeasured {when['date']} at commit {when['commit']}")
    return "\n\n".join([*told, *([found["note"]] if "note" in found else [])])


def child(case: str, arguments: str) -> None:
    work = {"memory": cases.memory, "ours": cases.ours, "peer": cases.peer}[case]
    print(json.dumps(work(**json.loads(arguments))))


def main() -> None:
    args = arguments(
        __doc__, "quick", "table", "out", "child",
        only={"nargs": "+", "choices": SECTIONS, "default": SECTIONS, "metavar": "SECTION"},
    )  # fmt: skip
    if args.child:
        return child(*args.child)
    out = args.out or (None if args.quick else RESULTS / "overhead.json")
    found: dict[str, Any] = json.loads(out.read_text()) if out is not None and out.exists() else {}
    if args.table:
        print(show(found))
        return None
    size, script = QUICK if args.quick else Size(), str(Path(__file__).resolve())
    found |= {"circumstances": circumstances(), "size": asdict(size)}
    print(in_words(found["circumstances"]), flush=True)
    sections: dict[str, Callable[[], dict[str, Any]]] = {
        "overhead": lambda: overhead(size),
        "memory": lambda: memory(size, script),
        "peer": lambda: beside_peer(size, script),
    }
    for name in args.only:
        found[name] = sections[name]()
        found.setdefault("measured", {})[name] = {k: found["circumstances"][k] for k in ("date", "commit")}
        print("\n" + SHOW[name](found[name]), flush=True)
    if out:
        save(out, found)
    return None


if __name__ == "__main__":
    sys.exit(main())
