"""New steps in the middle of what is stored, and new labels for steps that are made again.

Chunks are named by their place, so a late step gets its place by renaming those of the steps after it:
nothing is read, decoded or inferred again. On a disk that is one rename of a folder for each later step; on
an object store one copy within the store and one deletion for each later shard; elsewhere (in memory,
Icechunk) the bytes pass through this process.

The header tells what is to be done (``change``) before anything is, and until all of it is: whoever comes
after a kill carries it on, step by step from the last one down; what has been moved is counted in
``stream/moved``. Meanwhile the later steps have no labels (NaT): a reader may miss them, but never takes one
for another, and `stream` refuses to continue. A new header, as ``overwrite=True`` writes, ends it.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import os
import uuid
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import FsspecStore, LocalStore, ObjectStore

from xcloudmask.store.ledger import NAME as STATUS
from xcloudmask.store.ledger import PENDING
from xcloudmask.store.lock import FOLDER
from xcloudmask.store.metadata import consolidate
from xcloudmask.store.retry import persistently
from xcloudmask.store.store import Target, _buffer, _innermost

log = logging.getLogger("xcloudmask.streaming")

#: Objects that are copied at the same time.
TOGETHER = 16
UNFINISHED = "steps are being inserted, or a sync was stopped at that; run xcloudmask.sync again"
MOVED = "moved"


@dataclass(frozen=True)
class Change:
    """Which of the old steps each new one is (None: one that is yet to be made), and all labels as stored."""

    order: tuple[int | None, ...]
    labels: Mapping[str, Sequence[Any]]  # time as the store counts it
    remake: tuple[int, ...] = ()  # new places of steps that are to be made again

    @property
    def moves(self) -> list[tuple[int, int]]:
        """Old and new place of each step that moves, the last first: each finds its new place empty."""
        pairs = [(old, new) for new, old in enumerate(self.order) if old is not None and old != new]
        return sorted(pairs, reverse=True)


def apply(target: Target, header: Mapping[str, Any], change: Change, check: Callable[[], None]) -> None:
    """Carry out a change; the caller holds the lock, and has carried out any earlier one."""
    contract = dict(header["contract"])
    contract["unfinished"] = UNFINISHED
    plan = {
        "id": uuid.uuid4().hex,
        "moves": change.moves,
        "labels": {name: list(values) for name, values in change.labels.items()},
        "status": _new_status(target, change),
    }
    found = {**header, "contract": contract, "change": plan}
    _write_header(target, found)
    finish(target, found, check)


def finish(target: Target, header: Mapping[str, Any], check: Callable[[], None]) -> None:
    """Carry on a change that the header tells of, if it does; `check` raises if the lock was lost."""
    plan = header.get("change")
    if plan is None:
        return
    name, steps = str(header["contract"]["name"]), _steps(plan)
    moves: list[tuple[int, int]] = [(int(old), int(new)) for old, new in plan["moves"]]
    done = target.get_json(FOLDER, MOVED, "zarr.json") or {}
    count = _count(done, plan)
    if moves:
        _lengthen(target, [name, *plan["labels"]], steps)
        _blank(target, plan["labels"], min(old for old, _ in moves))
        paths = [target.path(name), target.path(FOLDER, "strips")]
        for number, (old, new) in enumerate(moves):
            if number >= count:
                check()
                for path in paths:
                    _move(target, f"{path}/c/{old}", f"{path}/c/{new}")
                _write_count(target, plan, number + 1)
    elif steps > int(header["steps"]):
        _lengthen(target, [name, *plan["labels"]], steps)
    for label, values in plan["labels"].items():
        _write_labels(target, label, values)
    _write_status(target, plan["status"])
    contract = {key: value for key, value in header["contract"].items() if key != "unfinished"}
    consolidate(target, header["arrays"])
    _write_header(
        target,
        {
            **{k: v for k, v in header.items() if k != "change"},
            "contract": contract,
            "steps": steps,
        },
    )
    target.delete_tree(FOLDER, MOVED)
    log.info("%s: %d steps moved, %d in all", target.label, len(moves), steps)


def read_header(target: Target) -> dict[str, Any] | None:
    """Return what the store says of its mask; None if there is none, or none that was ever finished."""
    document = target.get_json(FOLDER, "zarr.json")
    header = dict((document or {}).get("attributes", {}))
    return header if header.get("state") == "ready" else None


def _write_header(target: Target, attributes: Mapping[str, Any]) -> None:
    document = {"zarr_format": 3, "node_type": "group", "attributes": dict(attributes)}
    target.put_json(document, FOLDER, "zarr.json")


def _steps(plan: Mapping[str, Any]) -> int:
    return len(next(iter(plan["labels"].values())))


def _count(document: Mapping[str, Any], plan: Mapping[str, Any]) -> int:
    attributes = document.get("attributes", {})
    return int(attributes["count"]) if attributes.get("change") == plan["id"] else 0


def _write_count(target: Target, plan: Mapping[str, Any], count: int) -> None:
    attributes = {"change": plan["id"], "count": count}
    target.put_json(
        {"zarr_format": 3, "node_type": "group", "attributes": attributes}, FOLDER, MOVED, "zarr.json"
    )


def _open(target: Target, *names: str) -> Any:
    path = target.path(*names)
    return persistently(
        f"open {path} in {target.label}", lambda: zarr.open_array(target.store, path=path, mode="r+")
    )


def _lengthen(target: Target, names: Sequence[str], steps: int) -> None:
    """Make room. Never shortens: what lies beyond the end is what has been moved there."""
    for name in names:
        array = _open(target, name)
        if array.shape[0] < steps:
            persistently(f"resize {name} in {target.label}", partial(array.resize, (steps, *array.shape[1:])))
    if target.get_json(FOLDER, "strips", "zarr.json") is not None:
        strips = _open(target, FOLDER, "strips")
        if strips.shape[0] < steps:
            persistently(
                f"resize the strips of {target.label}", partial(strips.resize, (steps, *strips.shape[1:]))
            )


def _blank(target: Target, labels: Mapping[str, Any], first: int) -> None:
    """Take the labels off every step that is about to move."""
    for name in labels:
        array = _open(target, name)
        if array.dtype.kind in "iT":
            blank: Any = np.iinfo(np.int64).min if array.dtype == np.int64 else ""
            persistently(
                f"write {name} in {target.label}", partial(array.__setitem__, slice(first, None), blank)
            )


def _write_labels(target: Target, name: str, values: Sequence[Any]) -> None:
    array = _open(target, name)
    made = np.array(values, dtype=object if array.dtype.kind in "TOU" else array.dtype)
    persistently(f"write {name} in {target.label}", partial(array.__setitem__, slice(None), made))
    _settle(target, name)


def _settle(target: Target, *names: str) -> None:
    """Wait until a small array is on the disk."""
    folder = target.local
    if folder is not None:
        root = folder.joinpath(*names)
        within = [target.path(*names, *f.relative_to(root).parts) for f in root.rglob("*") if f.is_file()]
        target.settle(*within)


def _new_status(target: Target, change: Change) -> dict[str, Any]:
    """Return what the status array is to hold: a step's states go with it, new ones are pending."""
    array = _open(target, FOLDER, STATUS)
    states = persistently(f"read the status of {target.label}", lambda: np.asarray(array[...]))
    made = np.full((len(change.order), *states.shape[1:]), PENDING, np.uint8)
    failures = {}
    for new, old in enumerate(change.order):
        if old is None or new in change.remake:
            continue
        made[new] = states[old]
        for key, text in array.attrs.get("failures", {}).items():
            step, _, rest = key.partition(",")
            if int(step) == old:
                failures[f"{new},{rest}"] = text
    packed = base64.b64encode(zlib.compress(made.tobytes())).decode()
    return {"shape": list(made.shape), "states": packed, "failures": failures}


def _write_status(target: Target, status: Mapping[str, Any]) -> None:
    states = np.frombuffer(zlib.decompress(base64.b64decode(status["states"])), np.uint8)

    def write() -> None:
        array = _open(target, FOLDER, STATUS)
        array.resize(tuple(status["shape"]))
        array[...] = states.reshape(status["shape"])
        array.attrs["failures"] = status["failures"]

    persistently(f"write the status of {target.label}", write)
    _settle(target, FOLDER, STATUS)


def _move(target: Target, old: str, new: str) -> None:
    """Rename all keys under a prefix. Safe to repeat: what has been moved is not there any more."""
    store = _innermost(target.store)
    what = f"move {old} to {new} in {target.label}"
    if isinstance(store, LocalStore):
        persistently(what, lambda: _rename(store.root / old, store.root / new))
    else:
        persistently(what, lambda: sync(_move_keys(store, old, new)))


def _rename(old: Path, new: Path) -> None:
    if not old.is_dir():
        return
    import shutil

    if new.exists():  # left behind by a longer array; the step that was there has been moved
        shutil.rmtree(new)
    new.parent.mkdir(parents=True, exist_ok=True)
    os.rename(old, new)
    if os.name != "nt":
        handle = os.open(new.parent, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


async def _move_keys(store: Any, old: str, new: str) -> None:
    if isinstance(store, FsspecStore):
        store.fs.invalidate_cache()  # which may tell of keys that are gone
    keys = await (_keys_of_grid if type(store).__name__ == "IcechunkStore" else _keys)(store, old)
    gate = asyncio.Semaphore(TOGETHER)

    async def one(key: str) -> None:
        async with gate:
            goal = new + key.removeprefix(old)
            if isinstance(store, FsspecStore):
                await store.fs._cp_file(f"{store.path}/{key}", f"{store.path}/{goal}")
            elif isinstance(store, ObjectStore):
                import obstore

                await obstore.copy_async(store.store, key, goal)
            else:
                data = await store.get(key, default_buffer_prototype())
                if data is None:
                    return
                await store.set(goal, _buffer(data.to_bytes()))
            await store.delete(key)

    await asyncio.gather(*(one(key) for key in keys))


async def _keys(store: Any, prefix: str) -> list[str]:
    # Some S3 servers list a folder that has become empty.
    found = [key async for key in store.list_prefix(f"{prefix}/")]
    return [key for key in found if key.startswith(f"{prefix}/") and not key.endswith("/")]


async def _keys_of_grid(store: Any, prefix: str) -> list[str]:
    """Return all keys that a step can have, there or not: Icechunk lists whole arrays only."""
    path = prefix.rpartition("/c/")[0]
    document = await store.get(f"{path}/zarr.json", default_buffer_prototype())
    if document is None:
        return []
    array = json.loads(document.to_bytes())
    sizes = zip(array["shape"][1:], array["chunk_grid"]["configuration"]["chunk_shape"][1:], strict=True)
    return ["/".join(map(str, (prefix, *at))) for at in np.ndindex(*(-(-size // n) for size, n in sizes))]
