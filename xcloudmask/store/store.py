"""A place in a Zarr store: opening what the user names, single keys, and making writes last."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, product
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import xarray as xr
import zarr
from zarr.abc.store import Store
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import FsspecStore, LocalStore, MemoryStore, ObjectStore, WrapperStore

from xcloudmask.errors import CloudMaskError, ContractError, OptionError, StoreError
from xcloudmask.store.retry import brief, call_with_retries

T = TypeVar("T")
#: Keys that are asked for at a time.
REQUESTS = 32
#: What to do about a file that is damaged.
REMEDY = "Run `xcloudmask verify STORE --repair`, or verify(store, repair=True), and the same call again"


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
        if not text.strip("\0 ") or "\0" in text:  # "" would be the folder that one is in
            raise OptionError("store", text, hint="Give the path or URL of a store.")
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
    kinds = "a path", "a URL", "icechunk:PATH", "a zarr Store", "an obstore store"
    raise OptionError("store", type(store).__name__, allowed=(*kinds, "an Icechunk repository or session"))


def open_existing(store: Any, storage_options: dict[str, Any] | None = None) -> Store:
    """Return a store that is to be read: Zarr itself would make the folder of a path that does not exist."""
    opened = open_store(store, storage_options)
    if isinstance(opened, LocalStore) and not opened.root.exists():
        raise ContractError(f"{opened.root} does not exist. Check the path")
    return opened


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
        return call_with_retries(f"read {key} of {self.label}", lambda: sync(self._get(key)), self.patience)

    async def _get(self, key: str) -> bytes | None:
        value = await self.store.get(key, default_buffer_prototype())
        return None if value is None else bytes(value.to_bytes())

    def get_all(self, paths: Sequence[str]) -> dict[str, bytes | None]:
        """Read several keys at a time, named from the group on."""

        async def read() -> list[bytes | None]:
            gate = asyncio.Semaphore(REQUESTS)

            async def get(path: str) -> bytes | None:
                async with gate:
                    return await self._get(self.path(path))

            return list(await asyncio.gather(*map(get, paths)))

        values = call_with_retries(f"read {self.label}", lambda: sync(read()), self.patience)
        return dict(zip(paths, values, strict=True))

    def get_json(self, *names: str) -> dict[str, Any] | None:
        """Read one key that holds JSON."""
        raw = self.get(*names)
        return (
            None if raw is None else self.attempt(f"read {self.path(*names)}", lambda: dict(json.loads(raw)))
        )

    def attempt(self, what: str, call: Callable[[], T]) -> T:
        """Call, patiently; what is there and cannot be understood is a `StoreError`."""
        try:
            return call_with_retries(f"{what} of {self.label}", call)
        except (CloudMaskError, OSError):
            raise
        except Exception as error:  # whatever JSON, zarr and the codecs raise
            message = f"cannot {what} of {self.label}: it is damaged ({brief(error)}). {REMEDY}"
            raise StoreError(message) from error

    def read(self, array: Any, where: Any = ...) -> Any:
        """Read values of an array."""
        return self.attempt(f"read {array.path}", lambda: np.asarray(array[where]))

    def put(self, data: bytes, *names: str) -> None:
        """Write one key and make it last."""
        key = self.path(*names)

        def write() -> None:
            sync(self.store.set(key, _buffer(data)))
            self.settle(key)

        call_with_retries(f"write {key} to {self.label}", write, self.patience)

    def put_json(self, data: dict[str, Any], *names: str) -> None:
        """Write one key as JSON."""
        self.put(to_json(data), *names)

    def put_if_absent(self, data: bytes, *names: str) -> bool:
        """Write one key unless it exists; tell whether it holds `data` now."""
        key = self.path(*names)
        create = partial(_create, self.store, key, data)
        call_with_retries(f"write {key} to {self.label}", lambda: sync(create()), self.patience)
        return self.get(*names) == data

    def delete(self, *names: str) -> None:
        """Delete one key."""
        key = self.path(*names)
        call_with_retries(
            f"delete {key} from {self.label}", lambda: sync(self.store.delete(key)), self.patience
        )

    def delete_tree(self, *names: str) -> None:
        """Delete everything below a path."""
        path = self.path(*names)
        drop = partial(self.store.delete_dir, path)
        call_with_retries(f"delete {path} from {self.label}", lambda: sync(drop()), self.patience)

    def children(self) -> list[str]:
        """List what is directly in the group."""

        async def names() -> list[str]:
            return [name.rstrip("/") async for name in self.store.list_dir(self.group)]

        return call_with_retries(f"list {self.label}", lambda: list(sync(names())))

    def open_array(self, *names: str, mode: Literal["r", "r+"] = "r+") -> Any:
        """Open an array of the group."""
        path = self.path(*names)
        return self.attempt(
            f"open {path}", lambda: zarr.open_array(self.store, path=path, mode=mode, zarr_format=3)
        )

    def create_array(self, *names: str, **form: Any) -> Any:
        """Create an array of the group, in the place of one that may be there; `form` as of Zarr."""
        what = f"create {'/'.join(names)} in {self.label}"

        def create() -> Any:
            try:
                return zarr.create_array(
                    self.store, name=self.path(*names), overwrite=True, zarr_format=3, **form
                )
            except FileNotFoundError as error:
                if self.local is None:
                    raise
                # zarr clears the place, where a write of an attempt that failed before may just have ended
                raise OSError("a file vanished while its folder was deleted") from error

        return call_with_retries(what, create)

    def open_dataset(self) -> xr.Dataset:
        """Open the group with xarray, unread."""
        group = self.group or None
        ds: xr.Dataset = self.attempt(
            "open arrays", lambda: xr.open_zarr(self.store, group=group, consolidated=False, chunks=None)
        )
        return ds

    def settle(self, *keys: str) -> None:
        """Wait until keys (paths within the store) are on the disk, where the store is one."""
        _settle(self.store, keys)

    def sweep(self, *trees: str) -> None:
        """Delete what a killed writer of a local store left half written, here and in the trees named."""
        if self.local is not None:
            below = (self.local.joinpath(tree).rglob("*.partial") for tree in trees)
            for half_written in chain(self.local.glob("*.partial"), *below):
                half_written.unlink(missing_ok=True)


def groups_within(arrays: Sequence[str]) -> list[str]:
    """Return the groups in which arrays lie that are named by their paths.

    Examples
    --------
    >>> groups_within(["mask", "overviews/2/mask"])
    ['overviews', 'overviews/2']
    """
    parts = [path.split("/")[:-1] for path in arrays]
    return sorted({"/".join(names[: depth + 1]) for names in parts for depth in range(len(names))})


def group_document(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the document of a Zarr group."""
    return {"zarr_format": 3, "node_type": "group", "attributes": attributes}


def to_json(document: dict[str, Any]) -> bytes:
    """Return a document as it is written."""
    return json.dumps(document, indent=2).encode()


def settle_region(array: Any, selection: tuple[slice, ...]) -> None:
    """Wait until the chunks (or shards) of an array that a selection touches are on the disk."""
    _settle(array.store_path.store, region_keys(array, selection))


def region_keys(array: Any, selection: tuple[slice, ...]) -> list[str]:
    """Return the keys (within the store) of the chunks, or shards, of an array that a selection touches."""
    spans = [s.indices(size) for s, size in zip(selection, array.shape, strict=True)]
    grid = array.shards or array.chunks
    touched = product(
        *(range(low // n, -(-high // n)) for (low, high, _), n in zip(spans, grid, strict=True))
    )
    return [f"{array.path}/{array.metadata.encode_chunk_key(at)}" for at in touched]


def stored_sizes(array: Any, selections: Sequence[tuple[slice, ...]]) -> list[int]:
    """Return how many bytes the chunks (or shards) of each selection take; 0 where all is fill value."""
    store = array.store_path.store

    async def size(key: str) -> int:
        try:
            return int(await store.getsize(key))
        except FileNotFoundError:
            return 0

    async def sizes() -> list[int]:
        gate = asyncio.Semaphore(REQUESTS)

        async def total(selection: tuple[slice, ...]) -> int:
            async with gate:
                return sum([await size(key) for key in region_keys(array, selection)])

        return list(await asyncio.gather(*map(total, selections)))

    return call_with_retries(f"look at {array.path} of {store}", lambda: list(sync(sizes())))


#: Folders known to be on the disk, with their inodes.
_settled: set[tuple[str, int]] = set()


def _settle(store: Any, keys: Sequence[str]) -> None:
    root = getattr(_innermost(store), "root", None)
    for path in [root / key for key in keys] if isinstance(root, Path) else ():
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
