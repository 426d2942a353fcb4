"""What is recorded of each region: pending, done, or failed and why. One small array in the store.

Only the process that holds the lock writes it, after what it records is durable.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import zarr

from xcloudmask.store.lock import FOLDER
from xcloudmask.store.regions import Index, Layout
from xcloudmask.store.retry import persistently
from xcloudmask.store.store import Target, settle_region

PENDING, DONE, FAILED = 0, 1, 2
NAME = "status"
#: Scenes whose states share a chunk, and so are written together.
TOGETHER = 64
#: How many messages are kept.
MESSAGES = 500


class Ledger:
    """The status array, held in memory and written as it changes."""

    def __init__(self, target: Target, array: Any) -> None:
        self.target = target
        self._array = array
        self.states: np.ndarray[Any, np.dtype[np.uint8]] = persistently(
            f"read the status of {target.label}", lambda: np.asarray(array[...])
        )
        self.failures: dict[str, str] = dict(array.attrs.get("failures", {}))
        self._saved = dict(self.failures)
        self._touched: set[Index] = set()

    @classmethod
    def create(cls, target: Target, layout: Layout, dims: Iterable[str]) -> Ledger:
        """Write a ledger in which all regions are pending."""
        return cls(
            target, persistently(f"write to {target.label}", lambda: _create(target, layout, list(dims)))
        )

    @classmethod
    def open(cls, target: Target) -> Ledger:
        """Read a ledger."""
        path = target.path(FOLDER, NAME)
        array = persistently(
            f"read the status of {target.label}",
            lambda: zarr.open_array(target.store, path=path, mode="r+", zarr_format=3),
        )
        return cls(target, array)

    def resize(self, grid: Index) -> None:
        """Make room for more regions, or give up the last ones."""
        if self._array.shape == grid:
            return
        persistently(f"write the status of {self.target.label}", lambda: self._array.resize(grid))
        self.target.settle(self.target.path(FOLDER, NAME, "zarr.json"))
        kept = self.states[tuple(slice(0, n) for n in grid)]
        self.states = np.zeros(grid, np.uint8)
        self.states[tuple(slice(0, n) for n in kept.shape)] = kept
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
        key = ",".join(map(str, at))
        self.failures.pop(key, None)
        if state == FAILED and len(self.failures) < MESSAGES:
            self.failures[key] = message
        chunks = self._array.chunks
        self._touched.add(tuple(index // n for index, n in zip(at, chunks, strict=True)))

    def save(self) -> None:
        """Write what has changed since the last time."""
        for chunk in sorted(self._touched):
            where = tuple(
                slice(index * n, min((index + 1) * n, size))
                for index, n, size in zip(chunk, self._array.chunks, self._array.shape, strict=True)
            )

            def write(where: tuple[slice, ...] = where) -> None:
                self._array[where] = self.states[where]
                settle_region(self._array, where)

            persistently(f"write the status of {self.target.label}", write)
        self._touched.clear()
        if self.failures != self._saved:
            failures = {"failures": dict(sorted(self.failures.items()))}
            persistently(
                f"write the status of {self.target.label}", lambda: self._array.attrs.update(failures)
            )
            self._saved = dict(self.failures)


def _create(target: Target, layout: Layout, dims: list[str]) -> Any:
    lead = layout.grid[:-2]
    chunks = (*(TOGETHER if axis == 0 else n for axis, n in enumerate(lead)), *layout.tiles)
    return zarr.create_array(
        target.store,
        name=target.path(FOLDER, NAME),
        shape=layout.grid,
        chunks=chunks,
        dtype="uint8",
        fill_value=PENDING,
        dimension_names=[*(f"{dim}_block" for dim in dims[: len(lead)]), "region_row", "region_column"],
        attributes={
            "long_name": "what has been written of each region",
            "flag_values": [PENDING, DONE, FAILED],
            "flag_meanings": "pending done failed",
            "failures": {},
        },
        overwrite=True,
        zarr_format=3,
    )
