"""Chunks on their way to the output: stored one at a time, each pixel counted."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import xarray as xr

from xcloudmask.classes import NO_DATA
from xcloudmask.errors import CloudMaskError
from xcloudmask.scene.flags import codes_of
from xcloudmask.store.atomic import writing

#: Called with pixels done and pixels in all, after every chunk.
Progress = Callable[[int, int], None]
Array = npt.NDArray[Any]

#: Chunks worked on at a time: some are inferred, the others read and written.
WORKERS = max(2, min(4, os.cpu_count() or 2))


class Tally:
    """Counts the pixels of each class as chunks go by."""

    def __init__(self, mask: xr.DataArray) -> None:
        self.probabilities = "class" in mask.dims
        if self.probabilities:
            names = [str(name) for name in mask["class"].values]
            self.codes = dict(enumerate(names))
        else:
            self.codes = flags(mask)
        self.seen = np.zeros(256, dtype=np.int64)

    def add(self, block: Array) -> int:
        """Count a block; return its number of pixels."""
        if self.probabilities:
            empty = np.isnan(block).any(axis=-3)
            block = np.where(empty, NO_DATA, np.nan_to_num(block).argmax(axis=-3)).astype(np.uint8)
        self.seen += np.bincount(block.ravel(), minlength=256)
        return block.size

    def counts(self) -> dict[str, int]:
        """Pixels by class name, ``no_data`` last."""
        found = {name: int(self.seen[code]) for code, name in self.codes.items() if code != NO_DATA}
        return {**found, "no_data": int(self.seen[NO_DATA])}


def flags(mask: xr.DataArray) -> dict[int, str]:
    """Return the name of each code."""
    if mask.dtype != np.uint8:
        raise CloudMaskError(
            f"{mask.name or 'the array'} ({mask.dtype}) is neither a class map nor probabilities: "
            "write takes what predict() or predict_proba() return"
        )
    return {code: name for name, code in codes_of(mask).items()}


class Target(Protocol):
    """What blocks are put into."""

    def __setitem__(self, key: tuple[slice, ...], block: Array) -> None:
        """Put a block in its place."""


class _Sink:
    """What Dask stores into: counts a block and hands it on, one thread at a time."""

    def __init__(self, target: Target, tally: Tally, total: int, progress: Progress | None) -> None:
        self._target, self._tally, self._total, self._progress = target, tally, total, progress
        self._lock = threading.Lock()
        self._open = True
        self._done = 0

    def __dask_tokenize__(self) -> int:
        return id(self)

    def __setitem__(self, key: tuple[slice, ...], block: Array) -> None:
        with self._lock:
            if not self._open:  # the run was stopped while this chunk was being computed
                return
            with writing():
                self._target[key] = block
            self._done += self._tally.add(block)
            if self._progress is not None:
                self._progress(self._done, self._total)

    def put(self, key: tuple[slice, ...], block: Array, before: None) -> None:
        """Store a block when the one before it is."""
        from xcloudmask.engine.malloc import trim

        self[key] = block
        trim()

    def close(self) -> None:
        """Wait for the block being written, and take no more."""
        with self._lock:
            self._open = False


def store(mask: xr.DataArray, target: Target, progress: Progress | None) -> dict[str, int]:
    """Compute every chunk once, into the target."""
    from dask.base import compute

    from xcloudmask.engine.run_dask import in_turn

    tally = Tally(mask)
    pixels = mask.size // (mask.sizes["class"] if tally.probabilities else 1)
    sink = _Sink(target, tally, pixels, progress)
    if progress is not None:
        progress(0, pixels)
    try:
        compute(in_turn(mask.data, sink.put), scheduler="threads", num_workers=WORKERS)  # type: ignore[no-untyped-call]
    finally:
        sink.close()
    return tally.counts()
