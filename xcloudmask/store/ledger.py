"""What is recorded of each region: pending, done with so many bytes, or failed and why.

Two small arrays in the store, ``stream/status`` and ``stream/sizes``. Only the process that holds the lock
writes them, after what they record is durable.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import numpy as np
from zarr.codecs import ZstdCodec

from xcloudmask.store.lock import FOLDER
from xcloudmask.store.regions import Index, Layout
from xcloudmask.store.retry import call_with_retries
from xcloudmask.store.store import Target, region_keys, settle_region, stored_sizes

PENDING, DONE, FAILED = 0, 1, 2
#: Done, but for its overviews.
BARE = 3
NAME, SIZES = "status", "sizes"
#: Scenes whose states share a chunk, and so are written together.
STEPS_A_CHUNK = 64
#: How many messages are kept.
MESSAGES = 500


class Ledger:
    """The status array, held in memory and written as it changes."""

    def __init__(self, target: Target, array: Any, sizes: Any) -> None:
        self.target = target
        self._array, self._sizes = array, sizes
        self.states: np.ndarray[Any, np.dtype[np.uint8]] = target.read(array)
        self.sizes: np.ndarray[Any, np.dtype[np.int64]] = target.read(self._sizes)
        self.failures: dict[str, str] = dict(array.attrs.get("failures", {}))
        self._saved = dict(self.failures)
        self._touched: set[Index] = set()
        self._unmeasured: list[Index] = []

    @classmethod
    def create(cls, target: Target, layout: Layout, dims: Iterable[str]) -> Ledger:
        """Write a ledger in which all regions are pending."""
        names = list(dims)
        return cls(target, *(_create(target, layout, names, name) for name in (NAME, SIZES)))

    @classmethod
    def open(cls, target: Target, mode: Literal["r", "r+"] = "r+") -> Ledger:
        """Read a ledger."""
        return cls(target, *(target.open_array(FOLDER, name, mode=mode) for name in (NAME, SIZES)))

    def resize(self, grid: Index) -> None:
        """Make room for more regions, or give up the last ones."""
        if self._array.shape == grid == self._sizes.shape:
            return
        for array, name in ((self._sizes, SIZES), (self._array, NAME)):
            call_with_retries(f"write the status of {self.target.label}", partial(array.resize, grid))
            self.target.settle(self.target.path(FOLDER, name, "zarr.json"))
        self.states, self.sizes = _fitted(self.states, grid), _fitted(self.sizes, grid)
        known = {",".join(map(str, at)) for at in np.ndindex(*grid)} if self.failures else set()
        self.failures = {key: text for key, text in self.failures.items() if key in known}

    def __getitem__(self, at: Index) -> int:
        return int(self.states[at])

    def scene_done(self, lead: Index) -> bool:
        """Whether all regions of a scene are done."""
        return bool((self.states[lead] == DONE).all())

    def mark(self, at: Index, state: int, message: str = "") -> None:
        """Note a region's state; `save` makes it last."""
        self.states[at] = state
        self.sizes[at] = 0
        if state == DONE:
            self._unmeasured.append(at)
        key = ",".join(map(str, at))
        self.failures.pop(key, None)
        if state == FAILED and len(self.failures) < MESSAGES:
            self.failures[key] = message
        chunks = self._array.chunks
        self._touched.add(tuple(index // n for index, n in zip(at, chunks, strict=True)))

    def reopen(self, array: Any, layout: Layout, regions: Sequence[Index], *, whole_scenes: bool) -> None:
        """Delete regions whose files are damaged, and record them as pending.

        Of a mask that is inferred so is the rest of their scenes: what others need of a region, its strips,
        is gone when a scene is done.
        """
        scenes = {at[:-2] for at in regions}
        for at in layout.regions() if whole_scenes else regions:
            if at[:-2] in scenes:
                self.mark(at, PENDING)
        self.save()
        for at in regions:
            for key in region_keys(array, layout.selection(at, array.ndim)):
                replace(self.target, group="").delete(key)

    def wrong_sizes(self, array: Any, layout: Layout, regions: Sequence[Index]) -> dict[Index, str]:
        """Return the regions among those that are done whose files are larger or smaller than recorded."""
        if self.target.transactional:
            return {}
        sizes = stored_sizes(array, [layout.selection(at, array.ndim) for at in regions])
        return {
            at: f"{size} bytes, and {self.sizes[at]} were written"
            for at, size in zip(regions, sizes, strict=True)
            if size != self.sizes[at]
        }

    def measure(self, array: Any, layout: Layout) -> None:
        """Look how many bytes the regions take that were done since the last time; `save` makes it last."""
        if not self.target.transactional:
            sizes = stored_sizes(array, [layout.selection(at, array.ndim) for at in self._unmeasured])
            for at, size in zip(self._unmeasured, sizes, strict=True):
                self.sizes[at] = size
        self._unmeasured.clear()

    def save(self) -> None:
        """Write what has changed since the last time."""
        for chunk in sorted(self._touched):
            where = tuple(
                slice(index * n, min((index + 1) * n, size))
                for index, n, size in zip(chunk, self._array.chunks, self._array.shape, strict=True)
            )

            def write(where: tuple[slice, ...] = where) -> None:
                self._sizes[where] = self.sizes[where]
                settle_region(self._sizes, where)
                self._array[where] = self.states[where]
                settle_region(self._array, where)

            call_with_retries(f"write the status of {self.target.label}", write)
        self._touched.clear()
        if self.failures != self._saved:
            failures = {"failures": dict(sorted(self.failures.items()))}
            call_with_retries(
                f"write the status of {self.target.label}", lambda: self._array.attrs.update(failures)
            )
            self._saved = dict(self.failures)


def _fitted(values: np.ndarray[Any, np.dtype[Any]], grid: Index) -> np.ndarray[Any, np.dtype[Any]]:
    """Return values with more zeros at the ends, or fewer."""
    out = np.zeros(grid, values.dtype)
    common = tuple(slice(0, min(old, new)) for old, new in zip(values.shape, grid, strict=True))
    out[common] = values[common]
    return out


def _create(target: Target, layout: Layout, dims: list[str], name: str) -> Any:
    lead = layout.grid[:-2]
    chunks = (*(STEPS_A_CHUNK if axis == 0 else n for axis, n in enumerate(lead)), *layout.tiles)
    about: dict[str, Any] = {"long_name": "bytes that each region takes"}
    if name == NAME:
        about = {
            "long_name": "what has been written of each region",
            "flag_values": [PENDING, DONE, FAILED, BARE],
            "flag_meanings": "pending done failed without_overviews",
            "failures": {},
        }
    return target.create_array(
        FOLDER,
        name,
        shape=layout.grid,
        chunks=chunks,
        dtype="uint8" if name == NAME else "int64",
        compressors=(ZstdCodec(checksum=True),),
        fill_value=PENDING,
        dimension_names=[*(f"{dim}_block" for dim in dims[: len(lead)]), "region_row", "region_column"],
        attributes=about,
    )
