"""A place in a Zarr store: opening what the user names, single keys, and making writes last."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Coroutine
from dataclasses import dataclass
from functools import partial
from itertools import chain, product
from pathlib import Path
from typing import Any

from zarr.abc.store import Store
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import FsspecStore, LocalStore, MemoryStore, ObjectStore, WrapperStore

from xcloudmask.errors import CloudMaskError, OptionError
from xcloudmask.store.retry import persistently


def open_store(store: Any, storage_options: dict[str, Any] | None = None) -> Store:
    """Return a Zarr store for a path, a URL, a store of zarr, obstore or fsspec, or what Icechunk has."""
    if isinstance(store, Store):
        return store
    if hasattr(store, "writable_session"):  # an Icechunk repository
        from xcloudmask.store.icechunk import BranchStore

        return BranchStore(store, **(storage_options or {}))
    if isinstance(getattr(store, "store", None), Store):  # an Icechunk session
        if getattr(store, "read_only", False):
            raise CloudMaskError("the Icechunk session is read-only: use repo.writable_session('main')")
        session_store: Store = store.store
        return session_store
    if isinstance(store, (str, os.PathLike)):
        text = os.fspath(store)
        if text.startswith("icechunk:"):
            from xcloudmask.store.icechunk import open_branch

            return open_branch(text.removeprefix("icechunk:"), storage_options)
        if text.startswith("file://"):
            text = text.removeprefix("file://")
        if "://" in text or "::" in text:
            return FsspecStore.from_url(text, storage_options=storage_options)
        return LocalStore(Path(text).expanduser().absolute())
    module = type(store).__module__.partition(".")[0]
    if module == "obstore":
        return ObjectStore(store)
    if module == "fsspec":
        return FsspecStore.from_mapper(store)
    raise OptionError(
        "store",
        type(store).__name__,
        allowed=(
            "a path",
            "a URL",
            "icechunk:PATH",
            "a zarr Store",
            "an obstore store",
            "an Icechunk repository or session",
        ),
    )


@dataclass(frozen=True)
class Target:
    """A group in a store."""

    store: Store
    group: str = ""
    patience: float | None = None  # seconds to wait for a store that does not answer

    @property
    def label(self) -> str:
        """How the place is called in messages."""
        session = type(self.store).__name__ == "IcechunkStore"
        name = "the Icechunk session" if session else str(self.store)
        return f"{name}/{self.group}" if self.group else name

    @property
    def transactional(self) -> bool:
        """Whether the store keeps writers apart and makes all writes at once (Icechunk)."""
        return type(_innermost(self.store)).__module__.partition(".")[0] == "icechunk"

    @property
    def in_process(self) -> bool:
        """Whether other processes see nothing of what is written here (until it is committed)."""
        return self.transactional or isinstance(_innermost(self.store), MemoryStore)

    @property
    def local(self) -> Path | None:
        """The folder of the group, if the store is one on this machine."""
        store = _innermost(self.store)
        return store.root / self.group if isinstance(store, LocalStore) else None

    def path(self, *names: str) -> str:
        """Return the path of something in the group, within the store."""
        return "/".join(part for part in (self.group, *names) if part)

    def get(self, *names: str) -> bytes | None:
        """Read one key; None if there is none."""
        key = self.path(*names)

        def read() -> bytes | None:
            found = sync(self.store.get(key, default_buffer_prototype()))
            return None if found is None else bytes(found.to_bytes())

        return persistently(f"read {key} of {self.label}", read, self.patience)

    def get_json(self, *names: str) -> dict[str, Any] | None:
        """Read one key that holds JSON."""
        raw = self.get(*names)
        return None if raw is None else dict(json.loads(raw))

    def put(self, data: bytes, *names: str) -> None:
        """Write one key and make it last."""
        key = self.path(*names)

        def write() -> None:
            sync(self.store.set(key, _buffer(data)))
            self.settle(key)

        persistently(f"write {key} to {self.label}", write, self.patience)

    def put_json(self, data: dict[str, Any], *names: str) -> None:
        """Write one key as JSON."""
        self.put(json.dumps(data, indent=2).encode(), *names)

    def put_if_absent(self, data: bytes, *names: str) -> bool:
        """Write one key unless it exists; tell whether it holds `data` now."""
        key = self.path(*names)
        create = partial(_create, self.store, key, data)
        persistently(f"write {key} to {self.label}", lambda: sync(create()), self.patience)
        return self.get(*names) == data

    def delete_tree(self, *names: str) -> None:
        """Delete everything below a path."""
        path = self.path(*names)
        drop = partial(self.store.delete_dir, path)
        persistently(f"delete {path} from {self.label}", lambda: sync(drop()), self.patience)

    def children(self) -> list[str]:
        """List what is directly in the group."""

        async def names() -> list[str]:
            return [name.rstrip("/") async for name in self.store.list_dir(self.group)]

        return persistently(f"list {self.label}", lambda: list(sync(names())))

    def settle(self, *keys: str) -> None:
        """Wait until keys (paths within the store) are on the disk, where the store is one."""
        root = getattr(_innermost(self.store), "root", None)
        if isinstance(root, Path):
            _flush(root, [root / key for key in keys])

    def sweep(self, *trees: str) -> None:
        """Delete what a killed writer of a local store left half written, here and in the trees named."""
        if self.local is not None:
            for left in chain(
                self.local.glob("*.partial"), *(self.local.joinpath(t).rglob("*.partial") for t in trees)
            ):
                left.unlink(missing_ok=True)


def settle_region(array: Any, selection: tuple[slice, ...]) -> None:
    """Wait until the chunks (or shards) of an array that a selection touches are on the disk."""
    root = getattr(_innermost(array.store_path.store), "root", None)
    if not isinstance(root, Path):
        return
    grid = array.shards or array.chunks
    touched = product(*(range(s.start // n, -(-s.stop // n)) for s, n in zip(selection, grid, strict=True)))
    names = (array.metadata.encode_chunk_key(at) for at in touched)
    _flush(root, [root / array.path / name for name in names])


#: Folders known to be on the disk, with their inodes.
_settled: set[tuple[str, int]] = set()


def _flush(root: Path, files: list[Path]) -> None:
    for path in files:
        if not path.exists():  # a chunk of nothing but fill is not stored
            continue
        _fsync(path)
        _fsync(path.parent)  # the name; folders further up only when they are new
        for folder in path.parent.parents:
            if folder != root and root not in folder.parents:
                break
            known = str(folder), folder.stat().st_ino
            if known not in _settled:
                _fsync(folder)
                _settled.add(known)


def _fsync(path: Path) -> None:
    if os.name == "nt" and path.is_dir():
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _innermost(store: Any) -> Any:
    while isinstance(store, WrapperStore):
        store = store._store
    return store


def _buffer(data: bytes) -> Any:
    return default_buffer_prototype().buffer.from_bytes(data)


def _create(store: Store, key: str, data: bytes) -> Coroutine[Any, Any, None]:
    if isinstance(store, FsspecStore):
        return _create_fsspec(store, key, data)
    return store.set_if_not_exists(key, _buffer(data))


async def _create_fsspec(store: FsspecStore, key: str, data: bytes) -> None:
    """Put-if-absent, which zarr does not ask of fsspec; object stores can, others are asked twice."""
    try:
        await store.fs._pipe_file(f"{store.path}/{key}", data, mode="create")
    except OSError:  # s3fs has no special error for "it exists"
        if not await store.exists(key):
            raise
    except (TypeError, NotImplementedError, ValueError):
        await store.set_if_not_exists(key, _buffer(data))
        await asyncio.sleep(1.0)  # so that of two who wrote at the same time the first sees the second
