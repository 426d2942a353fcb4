"""What a store holds, item by item: which steps there are, whether they are done, and their new labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import xarray as xr

from xcloudmask.errors import ContractError, StoreLockedError
from xcloudmask.store.header import read_header
from xcloudmask.store.ledger import DONE, PENDING, Ledger
from xcloudmask.store.lock import Lock
from xcloudmask.store.retry import call_with_retries
from xcloudmask.store.safety_copy import drop_copy
from xcloudmask.store.store import Target, settle_region

#: Coordinate that tells when the catalogue last changed an item.
UPDATED = "item_updated"
#: Labels of one step, as the store holds them.
Labels = Mapping[str, Any]


@dataclass(frozen=True)
class Stored:
    """The steps of a mask that `stream` wrote, in the order in which they came."""

    target: Target
    header: Mapping[str, Any]
    labels: Mapping[str, list[Any]]  # all coordinates along time, as the store holds them
    done: tuple[bool, ...]  # whether each step is whole

    @property
    def name(self) -> str:
        """Name of the mask's array."""
        return str(self.header["contract"]["name"])

    @cached_property
    def places(self) -> dict[str, int]:
        """Where each item lies."""
        return {str(item): step for step, item in enumerate(self.labels["item_id"])}

    def updated(self, item: str) -> str | None:
        """Return when an item that is stored was last changed; None if the store does not tell."""
        if UPDATED not in self.labels:
            return None
        return str(self.labels[UPDATED][self.places[item]])

    def labels_of(self, step: int) -> dict[str, Any]:
        """Return the labels of a step."""
        return {name: values[step] for name, values in self.labels.items()}

    def open(self) -> xr.DataArray:
        """Return the mask, unread."""
        mask: xr.DataArray = self.target.open_dataset()[self.name]
        return mask

    @classmethod
    def read(cls, target: Target) -> Stored | None:
        """Read what is there; None if nothing is."""
        header = read_header(target)
        if header is None:
            return None
        dims, unit = header["contract"]["dims"], header["contract"]["shards"] or header["contract"]["chunks"]
        if dims[0] != "time" or len(dims) - ("class" in dims) != 3 or "item_id" not in header["arrays"]:
            raise ContractError(
                f"{target.label} cannot be kept up to date by sync: its mask has the dimensions "
                f"{tuple(dims)} and the coordinates {', '.join(header['arrays'])}; sync needs (time, y, x) "
                "with item_id along time, as load_stac gives them. Name another store or group="
            )
        if unit[0] != 1:
            raise ContractError(
                f"{target.label} has {unit[0]} steps in a shard, so none can be made again alone; "
                "sync needs shards of one step. Name another store or group="
            )
        steps = int(header["steps"])
        labels = {}
        for label in header["arrays"]:
            array = target.open_array(label)
            if array.metadata.dimension_names == ("time",):
                labels[label] = target.read(array, slice(0, steps)).tolist()
        ledger = Ledger.open(target, mode="r")
        done = tuple(bool((states == DONE).all()) for states in ledger.states[:steps])
        return cls(target, header, labels, done)

    def relabel(self, changes: Mapping[int, Labels]) -> None:
        """Give steps new labels, and have their pixels made again in place by whoever writes next.

        They are recorded as pending before any label changes: a sync that is killed in between, and run
        again, never takes the old pixels for those of the new item.
        """
        if not changes:
            return
        with Lock(self.target):
            if read_header(self.target) != self.header:
                raise StoreLockedError(
                    f"{self.target.label} was changed by another process just now. Run the same call again"
                )
            drop_copy(self.target)
            ledger = Ledger.open(self.target)
            for step in changes:
                for region in np.ndindex(*ledger.states.shape[1:]):
                    ledger.mark((step, *region), PENDING)
            ledger.save()
            for step, label in changes.items():
                for name, value in label.items():
                    self._write_label(name, step, value)

    def _write_label(self, name: str, step: int, value: Any) -> None:
        array = self.target.open_array(name)
        where = slice(step, step + 1)

        def write() -> None:
            array[where] = np.array([value], dtype=object if array.dtype.kind in "TOU" else array.dtype)
            settle_region(array, (where,))

        call_with_retries(f"write {name} in {self.target.label}", write)


def encode(coord: xr.DataArray) -> list[Any]:
    """Return a coordinate's values as the store holds them.

    Examples
    --------
    >>> encode(xr.DataArray(np.array(["1970-01-01T00:00:01"], "datetime64[ns]")))
    [1000000]
    """
    values = np.asarray(coord.values)
    if values.dtype.kind == "M":
        counted: list[Any] = values.astype("datetime64[us]").astype(np.int64).tolist()
        return counted
    return [str(value) if values.dtype.kind in "OUST" else value for value in values.tolist()]
