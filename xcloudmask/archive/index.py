"""What a store holds, item by item: which steps there are, and whether they are done."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
import xarray as xr
import zarr

from xcloudmask.archive.insert import read_header
from xcloudmask.errors import ContractError
from xcloudmask.store.ledger import DONE, Ledger
from xcloudmask.store.retry import persistently
from xcloudmask.store.store import Target

#: Coordinate that tells when the catalogue last changed an item.
UPDATED = "item_updated"


@dataclass(frozen=True)
class Stored:
    """The steps of a mask that `stream` wrote."""

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

    @property
    def items(self) -> list[str]:
        """The item of each step."""
        return [str(item) for item in self.labels["item_id"]]

    def updated(self, item: str) -> str | None:
        """Return when an item that is stored was last changed; None if the store does not tell."""
        if UPDATED not in self.labels:
            return None
        return str(self.labels[UPDATED][self.places[item]])

    def open(self) -> xr.DataArray:
        """Return the mask, unread."""
        found = persistently(
            f"open {self.target.label}",
            lambda: xr.open_zarr(
                self.target.store, group=self.target.group or None, consolidated=False, chunks=None
            ),
        )
        mask: xr.DataArray = found[self.name]
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
                f"{target.label} has {unit[0]} steps in a shard, so none can be put in or made again alone; "
                "sync needs shards of one step. Name another store or group="
            )
        steps = int(header["steps"])
        labels = {}
        for label in header["arrays"]:
            array = _open(target, label)
            if array.metadata.dimension_names == ("time",):
                read = partial(array.__getitem__, slice(0, steps))
                values = persistently(f"read {label} of {target.label}", read)
                labels[label] = np.asarray(values).tolist()
        ledger = Ledger.open(target)
        done = tuple(bool((states == DONE).all()) for states in ledger.states[:steps])
        return cls(target, header, labels, done)


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


def _open(target: Target, name: str) -> Any:
    path = target.path(name)
    return persistently(
        f"open {path} in {target.label}", lambda: zarr.open_array(target.store, path=path, mode="r")
    )
