"""The Dask executor: the plan as a graph. The only module that knows dask's insides.

For every chunk of the source, in the language of tasks (``source`` is the array that came in):

    source[i, j] ----------------> states[i, j] -----------------------------------.
         |                                                                         v
         +--> sums[i, j] = infer the windows that chunk (i, j) owns ---------> out[i, j]
         |         ^                          |                                    ^
         '--> read[i, j, k, l]                '--> part[i, j, k, l] ---------------'
         (the strip of chunk (k, l)           (the strip of sums[k, l]
          that windows of (i, j) reach)        that lies over chunk (i, j))

So a window is inferred once, by the first chunk whose output needs it (see `chunks`); what it contributes to
later chunks is sent there and added (overlap-add). What a chunk's own tasks take of it, strips of small
chunks, and a small chunk's states are no tasks of their own but parts of those that need them.

Dask goes from the first chunk on, so the pixels of a row of chunks are held until the next row is read: what
it holds grows with the width of the scene. `xcloudmask.masks.geotiff` goes from the last chunk back, and
holds a row of sums, and strips of pixels (all of them where chunks are small); `xcloudmask.stream` leaves its
strips in the store, and holds neither.

The layer holds the plan, which is a few integers an axis, and writes its tasks only when a scheduler asks.
The plan itself is one node that all tasks refer to: a task carries its own ranges and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate, product
from math import prod
from typing import Any

import dask.array as da
import numpy as np
from dask._task_spec import DataNode, Task, TaskRef
from dask.array.core import slices_from_chunks
from dask.base import optimize, tokenize
from dask.core import flatten
from dask.delayed import Delayed
from dask.highlevelgraph import HighLevelGraph, Layer
from dask.typing import Key

from xcloudmask.engine import kernel
from xcloudmask.engine.arrays import Array
from xcloudmask.engine.blend import PlacedSum
from xcloudmask.engine.chunks import AxisChunk, Piece, Range
from xcloudmask.engine.plan import Plan
from xcloudmask.engine.regrid import Box, Regrid

#: Chunks of up to so many pixels are passed on as they are, and so are their sums: to cut a strip of one in a
#: task of its own takes longer (2 to 3 ms, on two workers of one machine) than to send all of it.
SMALL = 512 * 512


def run(plan: Plan, source: da.Array) -> da.Array:
    """Return the output (..., y, x) or (..., class, y, x), lazily, for pixels (..., band, y, x)."""
    if len(source.chunks[-3]) > 1:
        source = source.rechunk({source.ndim - 3: -1})  # type: ignore[no-untyped-call]
    layer = CloudMaskLayer(plan, source.name, source.chunks)
    classes = plan.class_axis
    chunks = (*source.chunks[:-3], *((count,) for count in classes), *source.chunks[-2:])
    graph = HighLevelGraph.from_collections(layer.name, layer, dependencies=[source])  # type: ignore[list-item]
    meta = np.empty((0,) * len(chunks), np.float32 if classes else np.uint8)
    return da.Array(graph, layer.name, chunks=chunks, meta=meta)  # type: ignore[no-untyped-call]


def stack(
    bands: da.Array, planes: Sequence[da.Array], places: Sequence[tuple[int, ...]], join: Callable[..., Array]
) -> da.Array:
    """Put lazy planes behind lazy bands (..., band, y, x), chunk by chunk.

    `places` says which axes of the bands each plane has; along those their chunks are the same.
    """
    axes = tuple(range(bands.ndim))
    if len(bands.chunks[-3]) > 1:
        bands = bands.rechunk({bands.ndim - 3: -1})  # type: ignore[no-untyped-call]
    pairs = [part for pair in zip(planes, places, strict=True) for part in pair]
    dtype = np.result_type(bands.dtype, np.float32)
    out: da.Array = da.blockwise(  # type: ignore[no-untyped-call]
        join, axes, bands, axes, *pairs, places=tuple(places), dtype=dtype, align_arrays=False,
        adjust_chunks={bands.ndim - 3: bands.shape[-3] + len(planes)},
        meta=np.empty((0,) * bands.ndim, dtype),
    )  # fmt: skip
    return out


def regrid(plan: Regrid, source: da.Array, chunks: tuple[tuple[int, ...], tuple[int, ...]]) -> da.Array:
    """Return (..., y, x) on another grid, in `chunks`, each made of those blocks of `source` it needs."""
    name = f"regrid-{tokenize(plan, source.name, chunks)}"
    (ys, xs), (rows, cols) = (
        [
            [(stop - length, stop) for length, stop in zip(sizes, accumulate(sizes), strict=True)]
            for sizes in pair
        ]
        for pair in (source.chunks[-2:], chunks)
    )
    boxes = plan.boxes(rows, cols)
    plan_key = f"plan-{name}"
    graph: dict[Any, Any] = {plan_key: DataNode(plan_key, plan)}
    for lead in product(*(range(len(sizes)) for sizes in source.chunks[:-2])):
        leading = tuple(sizes[index] for sizes, index in zip(source.chunks, lead, strict=False))
        for (i, row), (j, col) in product(enumerate(rows), enumerate(cols)):
            key, box = (name, *lead, i, j), boxes[i][j]
            if box is None or row[0] == row[1] or col[0] == col[1]:
                graph[key] = Task(key, nothing, (*leading, row[1] - row[0], col[1] - col[0]))
                continue
            down, across = ([k for k, (lo, hi) in enumerate(edges) if lo < b and a < hi]
                            for edges, (a, b) in zip((ys, xs), box, strict=True))  # fmt: skip
            corner = ys[down[0]][0], xs[across[0]][0]
            blocks = [TaskRef((source.name, *lead, r, c)) for r, c in product(down, across)]
            graph[key] = Task(key, regridded, TaskRef(plan_key), corner, box, row, col, len(across), *blocks)
    layers = HighLevelGraph.from_collections(name, graph, dependencies=[source])  # type: ignore[list-item]
    meta = np.empty((0,) * source.ndim, np.float32)
    return da.Array(layers, name, chunks=(*source.chunks[:-2], *chunks), meta=meta)  # type: ignore[no-untyped-call]


def in_turn(blocks: da.Array, put: Callable[[tuple[slice, ...], Array, None], None]) -> Delayed:
    """Return the storing of all chunks, the last chunk first, each after the one before it.

    Left to itself, Dask begins with the first, which needs least. But windows of a chunk reach into the next
    ones, so all pixels of a row of chunks would be held until the next row is read. From the last to the
    first, each chunk's pixels are used when they are read, and strips of them are held, or all of small
    chunks. `put` is given where a chunk belongs, the chunk, and what the storing before it returned, which is
    there for the order alone.

    Peak memory of a mask of 8192 x 8192 is 0.8 GiB so, and 0.9 in the order of Dask (six bands, chunks of
    1024). Where a scene is wide and few chunks high, Dask walks down its columns, and does better: 0.7 GiB
    for 20480 x 3072, against 0.9.
    """
    (blocks,) = optimize(blocks)  # type: ignore[no-untyped-call]
    name = f"in-turn-{blocks.name}"
    places = slices_from_chunks(blocks.chunks)  # type: ignore[no-untyped-call]
    pairs = list(zip(places, flatten(blocks.__dask_keys__()), strict=True))  # type: ignore[no-untyped-call]
    graph: dict[Any, Any] = {}
    last: Key | None = None
    for number, (place, block) in enumerate(reversed(pairs)):
        key = (name, number)
        graph[key] = Task(key, put, place, TaskRef(block), None if last is None else TaskRef(last))
        last = key
    layers = HighLevelGraph.from_collections(name, graph, dependencies=[blocks])  # type: ignore[list-item]
    return Delayed(last, layers, layer=name)  # type: ignore[no-untyped-call]


def nothing(shape: tuple[int, ...]) -> Array:
    """Return a block of which nothing is known."""
    return np.full(shape, np.nan, np.float32)


def regridded(
    plan: Regrid, corner: Range, box: Box, rows: Range, cols: Range, across: int, *blocks: Array
) -> Array:
    """Cut the box that a chunk is made from out of the blocks that hold it, and make the chunk."""
    (top, bottom), (left, right) = box
    part = joined(blocks, across)[
        ..., top - corner[0] : bottom - corner[0], left - corner[1] : right - corner[1]
    ]
    return plan(part, (top, left), rows, cols)


class CloudMaskLayer(Layer):
    """All tasks of one call, written when first asked for."""

    def __init__(self, plan: Plan, source: str, chunks: tuple[tuple[int, ...], ...]) -> None:
        super().__init__()
        self.plan = plan
        self.source = source
        self.chunks = chunks
        token = tokenize(plan, source, chunks)
        self.name = f"cloudmask-{token}"
        self._tasks: dict[Any, Any] | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        # What `dask.annotate` set where the layer was made travels with it: resources, retries, workers.
        state = {"annotations": self.annotations, "collection_annotations": self.collection_annotations}
        return type(self), (self.plan, self.source, self.chunks), state

    def __repr__(self) -> str:
        return f"CloudMaskLayer<{self.name}>"

    def __getitem__(self, key: Any) -> Any:
        return self._written()[key]

    def __iter__(self) -> Iterator[Any]:
        return iter(self._written())

    def __len__(self) -> int:
        return len(self._written())

    def is_materialized(self) -> bool:
        """Whether the tasks have been written."""
        return self._tasks is not None

    def get_output_keys(self) -> set[Any]:
        """Keys that other layers may use."""
        extra = (0,) if self.plan.options.output == "probabilities" else ()
        lead = product(*(range(len(sizes)) for sizes in self.chunks[:-3]))
        rows, cols = (range(len(sizes)) for sizes in self.chunks[-2:])
        return {(self.name, *index, *extra, i, j) for index, i, j in product(lead, rows, cols)}

    def _written(self) -> dict[Any, Any]:
        if self._tasks is None:
            self._tasks = dict(self._write())
        return self._tasks

    def _write(self) -> Iterator[tuple[Any, Any]]:
        plan_key = f"plan-{self.name}"
        yield plan_key, DataNode(plan_key, self.plan)
        rows = list(enumerate(self.plan.y.cut(self.chunks[-2])))
        cols = list(enumerate(self.plan.x.cut(self.chunks[-1])))
        for lead in product(*(range(len(sizes)) for sizes in self.chunks[:-3])):
            writer = _Writer(self, TaskRef(plan_key), lead)
            for (i, row), (j, col) in product(rows, cols):
                for task in writer.chunk(i, j, row, col):
                    yield task.key, task


class _Writer:
    """Writes the tasks of one index of the leading dimensions."""

    def __init__(self, layer: CloudMaskLayer, plan: TaskRef, lead: tuple[int, ...]) -> None:
        self.layer = layer
        self.plan = plan
        self.lead = lead
        self.extra = (0,) if layer.plan.options.output == "probabilities" else ()
        self.states, self.sums, self.read, self.part = (
            f"{word}-{layer.name}" for word in ("states", "sums", "read", "part")
        )

    def chunk(self, i: int, j: int, row: AxisChunk, col: AxisChunk) -> list[Task]:
        """Tasks of chunk (i, j)."""
        here = (*self.lead, i, j)
        tasks: list[Task] = []
        if row.windows[0] < row.windows[1] and col.windows[0] < col.windows[1]:
            pixels = [
                self._part(tasks, self.read, here, self._source(r.chunk, c.chunk), r, c)
                for r, c in product(row.reads, col.reads)
            ]
            key: Key = (self.sums, *here)
            tasks.append(Task(key, infer, self.plan, row.windows, col.windows, len(col.reads), *pixels))
        pieces = list(product(row.sums, col.sums))
        sums = [
            self._part(tasks, self.part, here, TaskRef((self.sums, *self.lead, r.chunk, c.chunk)), r, c)
            for r, c in pieces
        ]
        offsets = tuple((r.offset, c.offset) for r, c in pieces)
        look = Task((self.states, *here), kernel.pixel_states, self.plan, self._source(i, j))
        states = look if self._is_small(i, j) else _apart(tasks, look)
        key = (self.layer.name, *self.lead, *self.extra, i, j)
        tasks.append(Task(key, finish, self.plan, states, row.pixels, col.pixels, offsets, *sums))
        return tasks

    def _part(
        self, tasks: list[Task], name: str, here: tuple[int, ...], source: TaskRef, row: Piece, col: Piece
    ) -> Task | TaskRef:
        """Return a part of what a chunk holds, for a task of the chunk `here`.

        Of another chunk, if that is not small, it is a copy, made in a task that is added to `tasks`.
        """
        if row.whole and col.whole:
            return source
        key: Key = (name, *here, row.chunk, col.chunk)
        box = row.start, row.stop, col.start, col.stop
        if here[-2:] == (row.chunk, col.chunk) or self._is_small(row.chunk, col.chunk):
            return Task(key, cut, source, *box)
        return _apart(tasks, Task(key, strip, source, *box))

    def _is_small(self, i: int, j: int) -> bool:
        lead = prod(sizes[k] for sizes, k in zip(self.layer.chunks, self.lead, strict=False))
        return lead * self.layer.chunks[-2][i] * self.layer.chunks[-1][j] <= SMALL

    def _source(self, i: int, j: int) -> TaskRef:
        key: Key = (self.layer.source, *self.lead, 0, i, j)
        return TaskRef(key)


def _apart(tasks: list[Task], task: Task) -> TaskRef:
    """Have a task done by itself, and not as a part of the one that is passed its result."""
    tasks.append(task)
    return TaskRef(task.key)


def strip(block: Array, *box: int) -> Array:
    """Copy a part of a block, so that the block can be let go."""
    return cut(block, *box).copy()


def cut(block: Array, top: int, bottom: int, left: int, right: int) -> Array:
    """Return a part of a block."""
    return block[..., top:bottom, left:right]


def infer(plan: Plan, rows: Range, cols: Range, across: int, *blocks: Array) -> Array:
    """Put the blocks that a chunk's windows reach together, and infer the windows."""
    return kernel.infer_windows(plan, joined(blocks, across), rows, cols)


def joined(blocks: Sequence[Array], across: int) -> Array:
    """Put blocks together, `across` of them in each line."""
    if len(blocks) == 1:
        return blocks[0]
    out: Array = np.block([list(blocks[first : first + across]) for first in range(0, len(blocks), across)])
    return out


def finish(
    plan: Plan, states: Array, rows: Range, cols: Range, offsets: tuple[Range, ...], *parts: Array
) -> Array:
    """Make a chunk's output from its own sums and those of its neighbours, each with its row and column."""
    placed = [PlacedSum(part, *offset) for part, offset in zip(parts, offsets, strict=True)]
    return kernel.finish(plan, placed, states, rows, cols)
