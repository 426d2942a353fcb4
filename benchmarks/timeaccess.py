"""Chunk shapes of a mask store: what reading in space and reading in time cost with each.

    python benchmarks/timeaccess.py            # two to four minutes on two cores
    python benchmarks/timeaccess.py --quick    # small; shows that it works

Milliseconds are of the local disk (from its cache), the least of two. Requests and bytes do not depend on the
machine: times the latency of an object store and over its bandwidth they tell what the same costs there.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from _measure import arguments, circumstances, clocked, save, table
from scipy.ndimage import gaussian_filter
from zarr.codecs import BloscCodec
from zarr.storage import LocalStore

from xcloudmask.archive.columns import Steps, accumulate_block


@dataclass(frozen=True, slots=True)
class Layout:
    """Chunk and shard shapes (time, y, x)."""

    chunks: tuple[int, int, int]
    shards: tuple[int, int, int]

    @property
    def text(self) -> str:
        """In words."""
        return " in ".join("x".join(map(str, shape)) for shape in (self.chunks, self.shards))


LAYOUTS = (
    Layout((1, 256, 256), (1, 2048, 2048)),
    Layout((1, 512, 512), (1, 2048, 2048)),  # what stream writes
    Layout((1, 1024, 1024), (1, 2048, 2048)),
    Layout((16, 512, 512), (16, 2048, 2048)),
    Layout((32, 128, 128), (32, 2048, 2048)),
)


class Counting(LocalStore):
    """Counts what is asked of it."""

    requests = 0
    bytes = 0

    async def get(self, *args: Any, **kwargs: Any) -> Any:
        """See `LocalStore`."""
        found = await super().get(*args, **kwargs)
        Counting.requests += 1
        Counting.bytes += 0 if found is None else len(found)
        return found


def masks(steps: int, size: int) -> Any:
    """Yield masks with clouds of some kilometres and ragged edges; every third step lacks a half."""
    rng = np.random.default_rng(0)
    for step in range(steps):
        coarse = gaussian_filter(rng.standard_normal((size // 8 + 1,) * 2), 12)
        field = np.kron(coarse / coarse.std(), np.ones((8, 8)))[:size, :size]
        field = field + 0.15 * rng.standard_normal(field.shape)
        mask = np.digitize(field, (0.2, 0.6, 1.5)).astype(np.uint8)
        if step % 3 == 0:
            mask[:, : size // 2] = 255
        yield mask


def write(folder: Path, layout: Layout, cube: Any) -> Any:
    steps, size = cube.shape[0], cube.shape[1]
    cut = tuple(min(a, b) for a, b in zip(layout.shards, cube.shape, strict=True))
    shards = tuple(-(-n // c) * c for n, c in zip(cut, layout.chunks, strict=True))
    array = zarr.create_array(
        Counting(folder), shape=(steps, size, size), chunks=layout.chunks, shards=shards, dtype="uint8",
        fill_value=255, compressors=(BloscCodec(cname="zstd", clevel=5, shuffle="bitshuffle", typesize=1),),
    )  # fmt: skip
    for begin in range(0, steps, shards[0]):
        array[begin : begin + shards[0]] = cube[begin : begin + shards[0]]
    return array


def cost(work: Callable[[], object]) -> dict[str, float]:
    """Return seconds, requests and bytes."""
    Counting.requests = Counting.bytes = 0
    work()
    requests, read = Counting.requests, Counting.bytes
    return {"ms": 1000 * min(clocked(work).wall for _ in range(2)), "requests": requests, "MiB": read / 2**20}


def measure(layout: Layout, cube: Any) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        spent = clocked(lambda: write(Path(folder), layout, cube))
        files = [path for path in Path(folder).rglob("c/*/*/*") if path.is_file()]
        array = zarr.open_array(Counting(Path(folder)), mode="r")
        steps, size, _ = array.shape
        middle, box = steps // 2, (slice(size // 2, size // 2 + 512), slice(size // 2, size // 2 + 512))
        when = Steps(np.arange(steps) * 5 * 86400, np.arange(steps), array.chunks[0], (0,))
        tile = slice(0, min(2048, size)), slice(0, min(2048, size))
        return {
            "write_s": spent.wall,
            "objects": len(files),
            "MiB": sum(path.stat().st_size for path in files) / 2**20,
            "one step, all of it": cost(lambda: array[middle]),
            "one step, 512 x 512": cost(lambda: array[(middle, *box)]),
            "one pixel, all steps": cost(lambda: array[:, size // 2 + 100, size // 2 + 100]),
            "512 x 512, all steps": cost(lambda: array[(slice(None), *box)]),
            "timeseries of one 2048 x 2048 tile": cost(
                lambda: accumulate_block(array, tile, when, None, None)
            ),
        }


def main() -> None:
    args = arguments(__doc__, "quick", out="timeaccess.json")
    steps, size = (6, 512) if args.quick else (32, 4096)
    cube = np.stack(list(masks(steps, size)))
    found = {layout.text: measure(layout, cube) for layout in LAYOUTS}
    for task in [key for key, value in next(iter(found.values())).items() if isinstance(value, dict)]:
        rows = [
            [name, f"{one[task]['ms']:.0f}", f"{one[task]['requests']}", f"{one[task]['MiB']:.2f}"]
            for name, one in found.items()
        ]
        print(f"\n{task}\n" + table(["chunk in shard", "ms", "requests", "MiB"], rows))
    rows = [[n, f"{o['write_s']:.1f}", f"{o['objects']}", f"{o['MiB']:.1f}"] for n, o in found.items()]
    print("\nstored\n" + table(["chunk in shard", "s to write", "objects", "MiB"], rows))
    save(args.out, {"steps": steps, "size": size, "layouts": found, **circumstances()})


if __name__ == "__main__":
    main()
