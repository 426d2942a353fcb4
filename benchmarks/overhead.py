"""What the library costs beside the network: time, memory, their growth, the first call, more workers.

    python benchmarks/overhead.py                        # all of it: forty-five minutes on two idle cores
    python benchmarks/overhead.py --only beside first    # some sections
    python benchmarks/overhead.py --quick                # toy networks and small images: that it runs
    python benchmarks/overhead.py --table                # measures nothing: prints the result file
    PYTHONPATH=OTHER_TREE python benchmarks/overhead.py --only calls --label COMMIT    # of another checkout

Seconds mean little while others use the machine. So what is compared is run in turns, the comparison is of
medians, and processor seconds, which others hardly touch, stand beside the seconds of the clock. Each section
adds its run to the result file as soon as it is done.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import _cases as cases
import dask
from _measure import (
    RESULTS,
    Spent,
    answered,
    arguments,
    circumstances,
    clocked,
    in_child,
    keep,
    median,
    print_runs,
    spread,
)

SCRIPT = str(Path(__file__).resolve())
#: Seconds of the bare network that differ by more from round to round say more of the machine than of us.
SPREAD_LIMIT = 0.15


class Growth(NamedTuple):
    """What is masked at several sides, and how."""

    network: str
    writer: str
    chunk: int
    sides: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Size:
    """How large everything is."""

    network: str = "ukis-6band-l1c"
    image: int = 4096
    large: int = 8192
    chunk: int = 1024
    rounds: int = 5
    bare_windows: int = 60
    growth: tuple[Growth, ...] = (
        Growth("ukis-6band-l1c", "stream", 512, (2048, 4096, 8192, 16384, 32768)),
        Growth("free", "stream", 1024, (2048, 4096, 8192, 16384, 32768)),
        Growth("free", "stream", 2048, (4096, 16384)),
        Growth("free", "compute", 1024, (4096, 16384)),
        Growth("free", "geotiff", 1024, (4096, 16384)),
    )
    repeat_up_to: int = 4096  # scenes no larger are masked in as many processes as there are rounds
    calls: tuple[tuple[str, int], ...] = (("cheap", 3072), ("ukis-6band-l1c", 1536))
    ways: tuple[str, ...] = ("numpy", "compute", "stream")
    fresh: int = 5
    workers: tuple[int, ...] = (1, 2, 4, 8)
    asleep: int = 17  # windows a side for one worker; as many more for each that comes to it


QUICK = Size(
    network="tiny", image=320, large=320, chunk=96, rounds=1, bare_windows=8, calls=(("tiny", 256),),
    growth=(Growth("tiny", "stream", 192, (256, 320)), Growth("tiny", "geotiff", 192, (256,))),
    ways=("compute",), fresh=1, workers=(1,), asleep=4,
)  # fmt: skip


# --- beside the bare network


@contextmanager
def cluster(workers: int) -> Iterator[Any]:
    """Processes of one thread each."""
    from distributed import Client, LocalCluster

    with (
        mock.patch.dict(os.environ),  # Dask leaves there what it gives the workers; children would inherit it
        LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=None) as local,
        Client(local, set_as_default=False) as client,
    ):
        client.wait_for_workers(workers)
        yield client


def beside(size: Size) -> dict[str, Any]:
    """Windows a second in each way to a mask, over those of the bare network right before and after."""
    spec = cases.model(size.network)
    pixels = cases.image(size.image, len(spec.bands))
    plain = cases.described(pixels, spec)
    cut = plain.chunk(y=size.chunk, x=size.chunk)
    bare = cases.Bare(spec, pixels, size.bare_windows, lanes=cases.cpu_lanes())

    def stream() -> None:
        with tempfile.TemporaryDirectory() as folder, dask.config.set(num_workers=2):
            mask = cut.cloudmask.predict(spec, **cases.HOW).rename("mask")
            cases.streamed(mask, Path(folder) / "mask.zarr", size.chunk)

    with cluster(2) as client:
        ways: dict[str, Callable[[], Any]] = {
            "NumPy": lambda: plain.cloudmask.predict(spec, **cases.HOW).values,
            "Dask threads": lambda: cases.predict(cut, spec, 2),
            "2 workers": on_workers(client, size.image, size),
            "stream": stream,
        }
        return in_turns(bare, ways, size, size.image)


def cluster_beside(size: Size) -> dict[str, Any]:
    """Do the same with two workers for a scene so large that its beginning and end count for little."""
    spec = cases.model(size.network)
    bare = cases.Bare(spec, cases.image(size.image, len(spec.bands)), size.bare_windows, cases.cpu_lanes())
    with cluster(2) as client:
        return in_turns(bare, {"2 workers": on_workers(client, size.large, size)}, size, size.large)


def on_workers(client: Any, side: int, size: Size) -> Callable[[], Any]:
    """Return what masks a scene on a cluster; in smaller chunks, or a worker is alone for long at the end."""
    spec = cases.model(size.network)
    scene = cases.repeated_scene(side, size.chunk // 2, spec)
    return lambda: client.compute(scene.cloudmask.predict(spec, **cases.HOW).data).result()


def in_turns(bare: cases.Bare, ways: dict[str, Callable[[], Any]], size: Size, side: int) -> dict[str, Any]:
    """Time ways to a mask of `side` pixels a side, each between two runs of the bare network."""
    bare()
    for way in ways.values():
        way()  # all is loaded
    ours: dict[str, list[Spent]] = {name: [] for name in ways}
    bares = [clocked(bare)]
    for _ in range(size.rounds):
        for name, way in ways.items():
            ours[name].append(clocked(way))
            bares.append(clocked(bare))
    windows = cases.window_count(side, cases.model(size.network))
    return {
        "title": f"Beside the bare network: {size.network}, {side} x {side}, {windows} windows, "
        f"{size.rounds} rounds",
        **compared(bares, ours, size.bare_windows, windows),
    }


def compared(bares: list[Spent], ours: dict[str, list[Spent]], few: int, windows: int) -> dict[str, Any]:
    """Return each way's rate over that of the bare network, which ran `few` windows before and after each."""
    apart = spread(run.wall for run in bares)
    rows: list[list[object]] = [["bare, side by side", *_each(bares, few), *[None] * 4]]
    figures = {}
    for index, (name, spent) in enumerate(ours.items()):
        pairs = [bares[round_ * len(ours) + index :][:2] for round_ in range(len(spent))]
        walls, cpus = (
            [windows / few * median(getattr(bare, field) for bare in pair) / getattr(run, field)
             for pair, run in zip(pairs, spent, strict=True)]
            for field in ("wall", "cpu")
        )  # fmt: skip
        wall, cpu = _each(spent, windows)
        row: list[object] = [name, wall, cpu, None, min(walls), max(walls), median(cpus)]
        if name == "2 workers":  # whose processor time is not this process's
            row[2] = row[6] = None
        if apart <= SPREAD_LIMIT:
            row[3] = figures[f"{name} / bare"] = median(walls)
        rows.append(row)
    note = f"Rounds of the bare network lie {apart:.0%} apart"
    if apart > SPREAD_LIMIT:
        note += f": over {SPREAD_LIMIT:.0%}, so no ratio is stated,\nonly the least and the most"
    return {
        "head": ["", "ms/window", "cpu ms", "ratio", "least", "most", "by cpu"], "rows": rows,
        "figures": figures,
        "note": f"{note}\nBars: 0.95 (NumPy), 0.93 (Dask threads), 0.90 (2 workers), 0.90 (stream)",
    }  # fmt: skip


def _each(spent: list[Spent], windows: int) -> list[float]:
    return [1000 * median(getattr(each, field) for each in spent) / windows for field in ("wall", "cpu")]


# --- growth with the scene, and single calls: each in a process of its own


def growth(size: Size) -> dict[str, Any]:
    """Time a pixel and peak memory by the scene's side, with a network and with one that costs nothing."""
    rows, figures = [], {}
    for network, writer, chunk, sides in size.growth:
        work = {"name": network, "workers": 2, "writer": writer, "chunk": chunk, "counts": network == "free"}
        found = []
        for side in sides:
            count = size.rounds if side <= size.repeat_up_to else 1
            runs = [in_child(SCRIPT, "memory", {"size": side} | work, limit=1800) for _ in range(count)]
            seconds, cpu, peak, before, answer = (
                median(run[key] for run in runs)
                for key in ("seconds", "cpu", "peak_mib", "before_mib", "answer_mib")
            )
            clock_ns, cpu_ns = 1e9 * seconds / side**2, 1e9 * cpu / side**2
            found.append((clock_ns, cpu_ns, peak))
            mib = (f"{each:.0f}" for each in (peak, before, answer))
            rows.append([network, writer, chunk, side, clock_ns, cpu_ns, *mib])
        clocks, cpus, peaks = zip(*found, strict=True)
        which = f"{writer}, {chunk}" if network == "free" else f"{writer}, {chunk}, {network}"
        figures |= {
            f"peak memory, {which}": max(peaks) / peaks[0],
            f"time a pixel, {which}": max(cpus) / min(cpus),
            f"by the clock, {which}": max(clocks) / min(clocks),
        }
    told = "\n".join(f"  {ratio:.2f}  {what}" for what, ratio in figures.items())
    return {
        "title": "Growth: time and memory by side\n"
        "free: a network that costs nothing, over 16-bit counts made as they are read\n"
        f"up to {size.repeat_up_to} a side: medians of {size.rounds} processes",
        "head": ["network", "way", "chunk", "side", "ns/px", "cpu ns", "peak MiB", "before", "answer"],
        "rows": rows, "figures": figures,
        "note": f"The most over the first (memory), the most over the least (time):\n{told}",
    }  # fmt: skip


def calls(size: Size) -> dict[str, Any]:
    """Seconds and memory of one call each, of whichever xcloudmask is imported."""
    rows, figures = [], {}
    for name, side in size.calls:
        for writer in size.ways:
            work = {
                "size": side,
                "chunk": min(side, size.chunk),
                "name": name,
                "workers": 2,
                "writer": writer,
            }
            run = in_child(SCRIPT, "memory", work)
            added = run["peak_mib"] - run["before_mib"]
            rows.append(
                [name, side, writer, run["seconds"], run["cpu"], f"{run['peak_mib']:.0f}", f"{added:.0f}"]
            )
            figures[f"cpu ns/px, {name}, {writer}"] = 1e9 * run["cpu"] / side**2
    return {
        "title": "Calls: one each, after a small one that loads",
        "head": ["network", "side", "way", "s", "cpu s", "peak MiB", "added"], "rows": rows,
        "figures": figures,
    }  # fmt: skip


# --- the first call, and more workers


def first(size: Size) -> dict[str, Any]:
    """First and second call of the default model on one window."""
    runs = [in_child(SCRIPT, "first", {"repeat": 2}) for _ in range(size.fresh)]
    fields = {
        "from the start of the process": [run["since_start"] for run in runs],
        "first call": [run["calls"][0][0] for run in runs],
        "second call": [run["calls"][1][0] for run in runs],
        "second call, without the network": [run["calls"][1][1] for run in runs],
        "third call, without the network": [run["calls"][2][1] for run in runs],
    }
    figures = {f"{name}, s": median(values) for name, values in fields.items()}
    return {
        "title": f"First call: {runs[0]['model']}, a scene of one window, {size.fresh} fresh processes",
        "head": ["", "s", "least", "most"], "figures": figures,
        "rows": [[name, median(values), min(values), max(values)] for name, values in fields.items()],
        "note": "Bars: 3 s for the first call, 0.1 s for what the second takes beside the network",
    }  # fmt: skip


def workers(size: Size) -> dict[str, Any]:
    """Compare rates of workers that each wait for a device of their own, on as many windows a worker."""
    spec = cases.ASLEEP
    step = spec.patch - spec.overlap
    rows, figures, alone = [], {}, 0.0
    for count in size.workers:
        across = round(size.asleep * count**0.5)
        side = across * step + spec.overlap
        with cluster(count) as client:
            client.run(_load_asleep)
            mask = cases.repeated_scene(side, 2 * step, spec).cloudmask.predict(spec, **cases.HOW)
            spent = clocked(lambda client=client, mask=mask: client.compute(mask.data).result())
        each = count * spent.wall / across**2
        alone = alone or each
        rows.append([count, across**2, spent.wall, count / each, alone / each, 1000 * (each - cases.NAP)])
        figures[f"efficiency of {count}"] = alone / each
    return {
        "title": f"Workers: windows, for each of which the network sleeps {cases.NAP} s",
        "head": ["workers", "windows", "s", "windows/s", "efficiency", "ms beside"], "rows": rows,
        "figures": figures,
        "note": "Bar: 0.9. Beside: what each worker spends on a window, or idle, beside its sleep",
    }  # fmt: skip


def _load_asleep() -> None:
    spec = cases.ASLEEP
    cases.described(cases.image(spec.patch, len(spec.bands)), spec).cloudmask.predict(spec, **cases.HOW)


SECTIONS: dict[str, Callable[[Size], dict[str, Any]]] = {
    "beside": beside, "cluster": cluster_beside, "growth": growth, "first": first, "workers": workers,
    "calls": calls,
}  # fmt: skip


def main() -> None:
    args = arguments(
        __doc__, "quick", "table", "out", "child", label={"default": "", "help": "what to call the code"},
        only={"nargs": "+", "choices": SECTIONS, "default": list(SECTIONS), "metavar": "SECTION"},
    )  # fmt: skip
    if args.child:
        return answered(args.child, {"memory": cases.masked, "first": cases.first_calls})
    out = args.out or (None if args.quick else RESULTS / "overhead.json")
    if args.table:
        print_runs(out or RESULTS / "overhead.json", args.table)
        return None
    for name in args.only:
        when = circumstances(args.label)
        keep(out, {"section": name, "circumstances": when} | SECTIONS[name](QUICK if args.quick else Size()))
    return None


if __name__ == "__main__":
    sys.exit(main())
