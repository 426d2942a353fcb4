"""From a call of `stream` to its run: the regions, what is done to each, and where."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import xarray as xr

from xcloudmask.errors import CloudMaskError
from xcloudmask.store.icechunk import Batch, BranchStore
from xcloudmask.store.ledger import DONE
from xcloudmask.store.lock import FOLDER, Lock
from xcloudmask.store.options import WriteOptions
from xcloudmask.store.overviews import Pyramid
from xcloudmask.store.regions import Index
from xcloudmask.store.retry import call_with_retries
from xcloudmask.store.safety_copy import drop_copy
from xcloudmask.store.sink import Output, Sink
from xcloudmask.store.store import Target
from xcloudmask.streaming.layout import WindowLayout
from xcloudmask.streaming.pools import Pool, choose_pool
from xcloudmask.streaming.progress import Display
from xcloudmask.streaming.run import Run, Steps
from xcloudmask.streaming.source import Source
from xcloudmask.streaming.work import Work, copy, finish, infer, read_box

log = logging.getLogger("xcloudmask.streaming")


def prepare_run(
    source: Source,
    target: Target,
    output: Output,
    sink: Sink,
    lock: Lock,
    options: WriteOptions,
    display: Display,
    pyramid: Pyramid | None,
) -> Run:
    """Bind source, sink and pool together."""
    _tell_of_rereading(source, sink)
    layout = sink.storage.layout
    regions, source_of = _own_regions(output, sink)
    _reopen_damaged(sink, regions, whole_scenes=source.plan is not None)
    pool = choose_pool(options.regions_in_flight, source.in_memory, target.in_process)
    work = Work(sink.array, output.packing, target.label, pyramid=pyramid)
    if source.plan is not None:
        windows = WindowLayout(layout, source.plan.y, source.plan.x, source.plan.channels)
        needed = windows.longest and not (sink.ledger.states == DONE).all()
        strips = _strips(target, windows) if needed else None
        work = replace(work, windows=windows, plan=source.plan, strips=strips)
    scene_name = _scene_names(source.template, layout.lead, source_of)
    batch = None
    if isinstance(target.store, BranchStore):
        batch = Batch(target.store, target.group, output.name, scene_name)
        batch.commit()
    return Run(
        array=sink.array,
        layout=layout,
        ledger=sink.ledger,
        lock=lock,
        pool=pool,
        steps=_steps(source, work, pool, sink, source_of),
        display=display,
        scene_name=scene_name,
        regions=regions,
        retries=options.retries,
        batch=batch,
    )


def _reopen_damaged(sink: Sink, regions: list[Index], *, whole_scenes: bool) -> None:
    """Have regions made anew whose files are not as large as they were written."""
    layout, ledger = sink.storage.layout, sink.ledger
    done = [at for at in regions if ledger[at] == DONE]
    wrong = ledger.wrong_sizes(sink.array, layout, done)
    if wrong:
        for at, what in wrong.items():
            log.warning("region %s of %s is damaged, and made anew: %s", at, sink.target.label, what)
        drop_copy(sink.target)
        ledger.reopen(sink.array, layout, list(wrong), whole_scenes=whole_scenes)


def _steps(source: Source, work: Work, pool: Pool, sink: Sink, source_of: Callable[[Index], Any]) -> Steps:
    windows, layout = work.windows, sink.storage.layout
    if windows is None:

        def start_copy(at: Index) -> Any:
            rows, cols = layout.pixels(at)
            box = slice(*rows), slice(*cols)
            return pool.submit(copy, source.piece(source_of(at), box), work, at, layout.leads(at), box)

        return Steps(start_copy)

    def start(at: Index) -> Any:
        return pool.submit(infer, source.piece(source_of(at), read_box(windows, at)), work, at)

    def scene_done(lead: Index) -> None:
        if work.strips is not None:
            sink.target.delete_tree(FOLDER, "strips", "c", *map(str, lead))

    return Steps(
        start=start,
        finish=lambda at, inferred: pool.then(finish, inferred, work, at),
        producers=lambda at: [(*at[:-2], *tile) for tile in windows.producers(at[-2:])],
        scene_done=scene_done,
    )


def _own_regions(output: Output, sink: Sink) -> tuple[list[Index], Callable[[Index], tuple[slice, ...]]]:
    """Return the regions that the source covers, and which of the source's leading indices each has."""
    layout = sink.storage.layout
    if output.append_dim is None:
        return list(layout.regions()), layout.leads
    dims = [str(dim) for dim in output.template.dims]
    axis, where = dims.index(output.append_dim), {store: own for own, store in enumerate(sink.steps)}

    def source_of(at: Index) -> tuple[slice, ...]:
        out = list(layout.leads(at))
        own = [where[step] for step in range(out[axis].start, out[axis].stop)]
        if own != list(range(own[0], own[0] + len(own))):
            raise CloudMaskError(f"steps of one shard do not follow each other along {output.append_dim!r}")
        out[axis] = slice(own[0], own[-1] + 1)
        return tuple(out)

    step = layout.block[axis]
    blocks = {store // step for store in sink.steps}
    for block in blocks:
        lacking = [
            s for s in range(block * step, min((block + 1) * step, layout.lead[axis])) if s not in where
        ]
        if lacking:
            raise CloudMaskError(
                f"the store writes {step} steps of {output.append_dim!r} at once, and this call has only "
                f"some of those: {len(lacking)} are missing. Pass all of them"
            )
    return [at for at in layout.regions() if at[axis] in blocks], source_of


def _scene_names(
    template: xr.DataArray, lead: Index, source_of: Callable[[Index], tuple[slice, ...]]
) -> Callable[[Index], str]:
    """Return a function that names a scene by its labels and source items, for messages."""
    dims = [str(dim) for dim in template.dims[: len(lead)]]

    def name(at: Index) -> str:
        parts = []
        for dim, where in zip(dims, source_of((*at, 0, 0)), strict=True):
            label = template[dim].values[where.start] if dim in template.coords else where.start
            text = str(label)[:19] if getattr(label, "dtype", None) is not None else str(label)
            parts.append(f"{dim} {text}")
            if "item_id" in template.coords and template["item_id"].dims == (dim,):
                parts.append(str(template["item_id"].values[where.start]))
        return " ".join(parts)

    return name


def _strips(target: Target, windows: WindowLayout) -> Any:
    """Open or make the array of strips: one line for each region."""
    from zarr.codecs import BloscCodec

    grid = windows.layout.grid
    shape = (*grid, windows.longest)
    if target.get_json(FOLDER, "strips", "zarr.json") is not None:
        array = target.open_array(FOLDER, "strips")
        if array.shape != shape:
            call_with_retries(f"write to {target.label}", lambda: array.resize(shape))
        return array
    return target.create_array(
        FOLDER,
        "strips",
        shape=shape,
        chunks=(*(1,) * len(grid), windows.longest),
        dtype="float32",
        compressors=(BloscCodec(cname="zstd", clevel=1, shuffle="bitshuffle", typesize=4),),
        fill_value=float("nan"),
    )


def _tell_of_rereading(source: Source, sink: Sink) -> None:
    """Say so where the chunks of the source make every region read far more than it needs."""
    chunks, layout = source.pixels.chunks, sink.storage.layout
    if chunks is None:
        return
    for dim, sizes, step in zip(source.pixels.dims, chunks, layout.block, strict=False):
        if max(sizes) > step:
            log.warning(
                "a chunk of the source holds %d steps along %r, a region of the store %d: each chunk is read "
                "several times. Chunk the source by %d, or pass chunks={%r: %d}",
                max(sizes), dim, step, step, dim, max(sizes),
            )  # fmt: skip
