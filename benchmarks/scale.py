"""One year of one continent of Sentinel-2: what is planned, and what a Dask scheduler has to carry.

    python benchmarks/scale.py            # simulates 1,000 regions of one tile, some minutes; then arithmetic
    python benchmarks/scale.py --quick    # a few regions: seconds; shows that it works
    python benchmarks/scale.py --table    # measures nothing: prints the result file as tables

Real: the windows, the regions, the loop that submits them, the record of regions (in memory), the Dask graph
of each region's pixels, and a distributed scheduler. Fake: pixels (one number, repeated), inference and
writing (nothing is done). So what is measured is the cost of planning and scheduling alone, for one process
that plans, schedules and works. What is multiplied from it is marked as such.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from dataclasses import asdict, dataclass
from typing import Any

import _cases as cases
import cloudpickle
import dask.array as da
import numpy as np
import zarr
from _measure import RESULTS, arguments, circumstances, clocked, in_words, save, table
from zarr.storage import MemoryStore

from xcloudmask.store.ledger import Ledger
from xcloudmask.store.lock import Lock
from xcloudmask.store.store import Target
from xcloudmask.streaming.layout import Layout, WindowLayout
from xcloudmask.streaming.pools import ClusterPool
from xcloudmask.streaming.run import Run, Steps
from xcloudmask.streaming.source import from_reflectance
from xcloudmask.streaming.work import read_box

CLUSTER: dict[str, Any] = {
    "processes": False, "n_workers": 1, "threads_per_worker": 2, "dashboard_address": "127.0.0.1:0",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Size:
    """What is assumed, and how much of it is simulated."""

    tiles: int = (
        3_400  # of 110 km that hold some land of Africa: 30.4 million km2, with overlaps; an estimate
    )
    items_a_tile: int = 110  # of one year: two satellites every 10 days, and orbits that overlap; an estimate
    side: int = 10_980
    region: int = 2_048
    chunk: int = 1_024
    steps: int = 28  # of one tile that are simulated: 36 regions each
    in_flight: int = 16
    assumed_mpx_per_s: float = 8.0  # of one worker, for the share that scheduling takes; not measured here


QUICK = Size(side=1_000, region=400, chunk=300, steps=2, in_flight=4)


def nothing(block_info: Any = None) -> Any:
    """Pixels that take no memory."""
    return np.broadcast_to(np.uint8(1), block_info[None]["chunk-shape"])


def pretend_infer(pixels: Any) -> int:
    return int(pixels.shape[-1])


def pretend_finish(found: int) -> int:
    return found


def planned(size: Size) -> tuple[Any, WindowLayout]:
    """Plan one tile's year as `stream` does."""
    spec = cases.model("cheap")
    shape = (size.items_a_tile, len(spec.bands), size.side, size.side)
    chunks = da.core.normalize_chunks((1, -1, size.chunk, size.chunk), shape=shape)
    pixels = da.map_blocks(nothing, chunks=chunks, dtype=np.uint8, meta=np.empty((0,) * 4, np.uint8))
    import xarray as xr

    from xcloudmask.predict.options import PredictOptions

    scene = xr.DataArray(pixels, dims=("time", "band", "y", "x"))
    scene = scene.cloudmask.describe(bands=list(spec.bands), level="L1C", scale=1e-4)
    source = from_reflectance(scene, PredictOptions(model=spec, working_resolution="native"))
    layout = Layout((size.items_a_tile,), (size.side, size.side), (1,), (size.region, size.region))
    return source, WindowLayout(layout, source.plan.y, source.plan.x, source.plan.channels)


def simulate(size: Size) -> dict[str, Any]:
    from distributed import Client, LocalCluster

    kept: dict[str, Any] = {}
    planning = clocked(lambda: kept.update(zip(("source", "windows"), planned(size), strict=True)))
    source, windows = kept["source"], kept["windows"]
    layout = windows.layout
    regions = [at for at in layout.regions() if at[0] < size.steps]
    piece = lambda at: source.piece(layout.leads(at), read_box(windows, at))  # noqa: E731
    middle = regions[len(regions) // 2]
    graph = dict(piece(middle).__dask_graph__().cull(piece(middle).__dask_keys__()))
    target = Target(MemoryStore())
    with (
        LocalCluster(
            processes=False, n_workers=1, threads_per_worker=2, dashboard_address="127.0.0.1:0"
        ) as cluster,
        Client(cluster) as client,
    ):
        pool = ClusterPool(client, size.in_flight)

        def pretend(function: Any, lazy: Any) -> Any:
            from dask.delayed import delayed

            return pool._watch(client.compute(delayed(function, pure=False)(lazy)))

        steps = Steps(
            start=lambda at: pretend(pretend_infer, piece(at)),
            finish=lambda at, found: pool.then(pretend_finish, found),
            producers=lambda at: [(*at[:-2], *tile) for tile in windows.producers(at[-2:])],
        )
        mask = zarr.create_array(
            target.store, name="mask", shape=(size.steps, size.side, size.side),
            chunks=(1, size.region, size.region), dtype="uint8",
        )  # fmt: skip
        run = Run(
            array=mask,
            layout=layout, ledger=Ledger.create(target, layout, ["time"]), lock=Lock(target), pool=pool,
            steps=steps, display=lambda event: None, scene_name=str, regions=regions, retries=2,
        )  # fmt: skip
        with Watch(cluster.scheduler) as watch:
            spent = clocked(run.go)
    if run.failures or run.written != len(regions):
        raise RuntimeError(f"{run.written} of {len(regions)} regions: {run.failures[:3]}")
    per_1000 = 1000 / len(regions)
    return {
        "regions": len(regions), "in_flight": size.in_flight, "most_tasks_held": watch.most,
        "tasks_a_region": len(graph) + 2, "graph_bytes_a_region": len(cloudpickle.dumps(graph)),
        "plan_seconds_a_tile": planning.wall, "seconds_per_1000_regions": spent.wall * per_1000,
        "cpu_seconds_per_1000_regions": spent.cpu * per_1000,
    }  # fmt: skip


class Watch:
    """How many tasks a scheduler holds at most, looked at every few milliseconds."""

    def __init__(self, scheduler: Any) -> None:
        self.scheduler, self.most, self._stop = scheduler, 0, threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def _look(self) -> None:
        while not self._stop.is_set():
            self.most = max(self.most, len(self.scheduler.tasks))
            time.sleep(0.003)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()


def extrapolate(size: Size, found: dict[str, Any]) -> dict[str, Any]:
    """Multiply: nothing here is measured."""
    layout = Layout((size.items_a_tile,), (size.side, size.side), (1,), (size.region, size.region))
    items = size.tiles * size.items_a_tile
    regions = size.tiles * layout.count
    pixels = items * size.side**2
    seconds = found["cpu_seconds_per_1000_regions"] / 1000
    a_region = size.region**2 / 1e6 / size.assumed_mpx_per_s
    return {
        "items": items, "regions": regions, "tiles": size.tiles,
        "scheduler_cpu_hours": regions * seconds / 3600,
        "worker_hours_at_assumed_rate": pixels / 1e6 / size.assumed_mpx_per_s / 3600,
        "workers_one_scheduler_feeds": int(a_region / seconds),
        "graph_bytes_if_all_were_submitted": regions * found["graph_bytes_a_region"],
        "tasks_if_all_were_submitted": regions * found["tasks_a_region"],
        "objects": regions + size.tiles * (-(-size.items_a_tile // 64) + 12),
        "bytes_before_compression": pixels,
    }  # fmt: skip


def show(found: dict[str, Any]) -> str:
    measured, multiplied = found["measured_values"], found["multiplied"]
    names = {
        "regions": "regions simulated", "in_flight": "regions in flight",
        "most_tasks_held": "most tasks the scheduler held", "tasks_a_region": "tasks a region",
        "graph_bytes_a_region": "bytes of a region's graph",
        "plan_seconds_a_tile": "seconds to plan a tile's year",
        "seconds_per_1000_regions": "seconds per 1,000 regions",
        "cpu_seconds_per_1000_regions": "processor seconds per 1,000 regions",
    }  # fmt: skip
    counts = [
        [key.replace("_", " "), f"{value:,.0f}" if isinstance(value, int) else f"{value:,.1f}"]
        for key, value in multiplied.items()
    ]
    size = found["size"]
    return "\n\n".join(
        [
            in_words(found["circumstances"]),
            "Measured: one process plans, schedules and does nothing\n"
            + table(["", ""], [[name, measured[key]] for key, name in names.items()]),
            f"Multiplied, not measured: {size['tiles']:,} tiles x {size['items_a_tile']} items (estimates) "
            f"of {size['side']:,} pixels\na side; workers of {size['assumed_mpx_per_s']} Mpx/s (assumed)\n"
            + table(["", ""], counts),
            "Bytes: one a pixel; classes compress, by how much depends on the clouds.\n"
            "Objects: one a shard; the record, labels and metadata of one group a\n"
            "tile. Tiles are independent calls: several clients divide the scheduler's hours.\n"
            "Not counted: asking the catalogue, and the network.",
        ]
    )


def main() -> None:
    args = arguments(__doc__, "quick", "table", "out")
    out = args.out or (None if args.quick else RESULTS / "scale.json")
    if args.table:
        print(show(json.loads((out or RESULTS / "scale.json").read_text())))
        return
    size = QUICK if args.quick else Size()
    found: dict[str, Any] = {"circumstances": circumstances(), "size": asdict(size)}
    found["measured_values"] = simulate(size)
    found["multiplied"] = extrapolate(size, found["measured_values"])
    print(show(found))
    if out:
        save(out, found)


if __name__ == "__main__":
    sys.exit(main())
