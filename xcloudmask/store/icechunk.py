"""Into an Icechunk repository: one commit a batch of regions; what is seen is always a commit's.

All regions of a batch are written by threads of this process in one session. (Icechunk's forks, for workers
in other processes, see nothing of each other before they are merged and committed, but regions share strips
with their neighbours.) A crash loses what was done since the last commit and nothing else: the next call
begins there.

Icechunk takes the place of the lock. Whoever commits second learns that the branch has moved: if the others
wrote elsewhere in the repository, their commits are taken in; if they wrote to the same group, the call ends
with `StoreLockedError` and commits nothing more.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from zarr.core.buffer import Buffer
from zarr.core.sync import sync
from zarr.storage import WrapperStore

from xcloudmask.errors import CloudMaskError, OptionError, StoreError, StoreLockedError
from xcloudmask.store.regions import Index
from xcloudmask.store.retry import brief, call_with_retries

log = logging.getLogger("xcloudmask.streaming")

#: Regions, and seconds, after which what is done is committed.
BATCH = 64
LONGEST = 300.0
#: How often a commit is tried while others commit elsewhere.
TRIES = 50
#: How many scenes a commit's message names; its metadata names all.
NAMED = 8


class BranchStore(WrapperStore[Any]):
    """The store of a branch's current session, followed by that of the next one when it is committed."""

    def __init__(self, repository: Any, branch: str = "main") -> None:
        self._repository, self._branch = repository, branch
        self._session = repository.writable_session(branch)
        super().__init__(self._session.store)
        self._writers = 0
        self._writable, self._idle = asyncio.Event(), asyncio.Event()
        self._writable.set()
        self._idle.set()

    def __str__(self) -> str:
        return f"the Icechunk repository (branch {self._branch})"

    def __reduce__(self) -> Any:  # elsewhere it can be read only
        return _itself, (self._repository.readonly_session(branch=self._branch).store,)

    def with_read_only(self, read_only: bool = False) -> Any:
        """Return the current session's store for reading, or this one."""
        return self._store.with_read_only(True) if read_only else self

    def commit(self, message: str, metadata: dict[str, Any], group: str, patience: float | None) -> bool:
        """Commit what was written since the last time, and go on; tell whether there was anything."""
        return call_with_retries(
            f"commit to {self}", lambda: sync(self._commit(message, metadata, group)), patience
        )

    async def _commit(self, message: str, metadata: dict[str, Any], group: str) -> bool:
        from icechunk import ConflictDetector, ConflictError, RebaseFailedError

        self._writable.clear()
        try:
            await self._idle.wait()
            session = self._session
            if not session.has_uncommitted_changes:
                return False
            for attempt in range(TRIES):
                base = session.snapshot_id
                try:
                    made = await session.commit_async(message, metadata=metadata)
                    break
                except ConflictError as error:
                    if attempt + 1 == TRIES:
                        raise StoreError(f"cannot commit to {self}: others commit all the time") from error
                    try:
                        await session.rebase_async(ConflictDetector())
                    except RebaseFailedError as error:
                        raise self._conflict(group) from error
                    await self._refuse_changes(base, session.snapshot_id, group)
                    log.info("%s: another process has committed elsewhere in it; its commits are kept", self)
            self._session = await self._repository.writable_session_async(self._branch)
            self._store = self._session.store
            await self._refuse_changes(made, self._session.snapshot_id, group)
            return True
        finally:
            self._writable.set()

    async def _refuse_changes(self, before: str, after: str, group: str) -> None:
        """Raise if what others committed between two snapshots touches a group."""
        if before == after:
            return
        diff = await self._repository.diff_async(from_snapshot_id=before, to_snapshot_id=after)
        kinds = ("new_groups", "new_arrays", "deleted_groups", "deleted_arrays", "updated_groups",
                 "updated_arrays", "updated_chunks")  # fmt: skip
        prefix = f"{group}/" if group else ""
        if any(f"{path.strip('/')}/".startswith(prefix) for kind in kinds for path in getattr(diff, kind)):
            raise self._conflict(group)

    def _conflict(self, group: str) -> StoreLockedError:
        where = f"group {group!r}" if group else "the root group"
        return StoreLockedError(
            f"{self}: another process has committed to {where} meanwhile. What either has committed is kept, "
            "what this call did since its last commit is not. Run the same call again when the other has "
            "ended, or name another group="
        )

    @asynccontextmanager
    async def _writing(self) -> AsyncIterator[None]:
        """Hold off a commit; wait while there is one."""
        await self._writable.wait()
        self._writers += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._writers -= 1
            if not self._writers:
                self._idle.set()

    async def set(self, key: str, value: Buffer) -> None:
        """See `Store`."""
        async with self._writing():
            await self._store.set(key, value)

    async def set_if_not_exists(self, key: str, value: Buffer) -> None:
        """See `Store`."""
        async with self._writing():
            await self._store.set_if_not_exists(key, value)

    async def _set_many(self, values: Iterable[tuple[str, Buffer]]) -> None:
        async with self._writing():
            await self._store._set_many(values)

    async def delete(self, key: str) -> None:
        """See `Store`."""
        async with self._writing():
            await self._store.delete(key)

    async def delete_dir(self, prefix: str) -> None:
        """See `Store`."""
        async with self._writing():
            await self._store.delete_dir(prefix)

    async def clear(self) -> None:
        """See `Store`."""
        async with self._writing():
            await self._store.clear()


def open_branch(place: str, options: Mapping[str, Any] | None = None) -> BranchStore:
    """Open a repository, or make it where there is none: in a folder, or at an address of ``s3`` or ``gs``.

    The options are ``branch``, and what `icechunk.s3_storage` or `icechunk.gcs_storage` takes
    (``endpoint_url``, ...).

    Examples
    --------
    >>> str(open_branch("masks.icechunk", {"branch": "main"}))  # doctest: +SKIP
    'the Icechunk repository (branch main)'
    """
    try:
        import icechunk
    except ImportError as error:
        raise CloudMaskError(f"icechunk:{place} needs Icechunk: pip install icechunk ({error})") from error
    given = dict(options or {})
    branch = given.pop("branch", "main")
    scheme, url, rest = place.partition("://")
    bucket, _, prefix = rest.partition("/")
    makers: dict[str, Callable[..., Any]] = {"s3": icechunk.s3_storage, "gs": icechunk.gcs_storage}
    if not place or (url and scheme not in makers):
        raise OptionError(
            "place of an Icechunk repository", place, allowed=("a folder", "s3://", "gs://"),
            hint="Open others in Python, and pass the repository.",
        )  # fmt: skip
    try:
        if url:
            storage = makers[scheme](bucket=bucket, prefix=prefix or None, **given)
        else:
            storage = icechunk.local_filesystem_storage(str(Path(place).expanduser().absolute()), **given)
    except TypeError as error:
        raise CloudMaskError(f"storage_options for icechunk:{place}: {error}") from error
    try:
        return BranchStore(icechunk.Repository.open_or_create(storage), branch)
    except icechunk.IcechunkError as error:
        raise StoreError(f"icechunk:{place} (branch {branch}) cannot be opened: {brief(error)}") from error


def _itself(store: Any) -> Any:
    return store


class Batch:
    """The regions since the last commit."""

    def __init__(self, store: BranchStore, group: str, name: str, scene_name: Callable[[Index], str]) -> None:
        self._store, self._group, self._name, self._scene_name = store, group, name, scene_name
        self._scenes: dict[Index, int] = {}
        self._failed = 0
        self._since = time.monotonic()

    def add(self, at: Index, failed: bool = False) -> None:
        """Note a region that is recorded in the store."""
        self._scenes[at[:-2]] = self._scenes.get(at[:-2], 0) + 1
        self._failed += failed

    def commit_if_due(self) -> None:
        """Commit if the batch is large or old enough."""
        if sum(self._scenes.values()) >= BATCH or (self._scenes and time.monotonic() - self._since > LONGEST):
            self.commit()

    def commit(self, patience: float | None = None) -> None:
        """Commit; nothing happens if nothing was written."""
        from xcloudmask._version import __version__

        count = sum(self._scenes.values())
        scenes = [self._scene_name(lead) or "the image" for lead in self._scenes]
        message = f"{self._name}: arrays and labels"
        if count:
            more = f" and {len(scenes) - NAMED} more" if len(scenes) > NAMED else ""
            failed = f" ({self._failed} failed)" if self._failed else ""
            message = f"{self._name}: {count} regions{failed} of {', '.join(scenes[:NAMED])}{more}"
        metadata = {
            "xcloudmask": __version__,
            "group": self._group,
            "regions": count,
            "failed": self._failed,
            "scenes": scenes,
        }
        if self._store.commit(message, metadata, self._group, patience):
            log.info("%s: committed: %s", self._store, message)
        self._scenes, self._failed, self._since = {}, 0, time.monotonic()

    def save_what_is_done(self) -> None:
        """Commit at the end of a run that failed, if that still goes."""
        try:
            self.commit(patience=5.0)
        except StoreError as error:
            log.warning("%s: what was done since the last commit is lost: %s", self._store, brief(error))
