"""Scenes and chunkings that several tests draw on."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from typing import Any

import dask
import numpy as np
import xarray as xr
from hypothesis import strategies as st

import xcloudmask  # noqa: F401  registers .cloudmask

NAMES = ["blue", "green", "red", "nir", "swir16", "swir22"]


def scene(pixels: np.ndarray, names: list[str], step: float = 30.0, level: str = "L1C") -> xr.DataArray:
    """Pixels (band, y, x) or (time, band, y, x) on a metric grid, north up, described."""
    coords = {"y": -step * np.arange(pixels.shape[-2]), "x": step * np.arange(pixels.shape[-1])}
    dims = ("time", "band", "y", "x")[4 - pixels.ndim :]
    return xr.DataArray(pixels, dims=dims, coords=coords).cloudmask.describe(bands=names, level=level)


def noise(*shape: int, seed: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).random(shape, dtype=np.float32)


def weather(height: int, width: int, bands: int = 6, seed: int = 0) -> np.ndarray:
    """Made-up land under bright and dark blobs, at every scale; smooth enough for a network to see clouds."""
    rng = np.random.default_rng(seed)

    def field() -> np.ndarray:
        out = np.zeros((height, width))
        for size in (96, 48, 24, 12, 6):
            coarse = rng.standard_normal((height // size + 3, width // size + 3))
            y, x = np.arange(height) / size, np.arange(width) / size
            j, i = y.astype(int), x.astype(int)
            fy, fx = (y - j)[:, None], (x - i)[None]
            rows = coarse[j] * (1 - fy) + coarse[j + 1] * fy
            out += size / 96 * (rows[:, i] * (1 - fx) + rows[:, i + 1] * fx)
        return out

    land = np.array([0.10, 0.09, 0.09, 0.28, 0.20, 0.12])[:bands, None, None] * (1 + 0.15 * field())
    cloud = np.clip(field() - 0.3, 0, 1) * np.array([0.6, 0.58, 0.58, 0.6, 0.4, 0.3])[:bands, None, None]
    shadow = 1 - 0.6 * np.clip(field() - 0.4, 0, 1)
    return (land * shadow + cloud).astype(np.float32)


def same_odds(found: Any, expected: Any, err_msg: str = "") -> None:
    """Hold probabilities to what is promised of them: 1e-6, and NaN in the same places.

    Not to the last bit: how many threads share a layer, how many windows a batch, and which kernel a library
    takes for that on this processor, may change in which order a network's sums are rounded.
    """
    np.testing.assert_allclose(found, expected, atol=1e-6, rtol=0, err_msg=err_msg)


def same_answer(found: xr.DataArray, expected: xr.DataArray) -> None:
    """Hold classes to equality, and probabilities to what is promised of them."""
    assert found.dtype == expected.dtype
    if expected.dtype == np.uint8:
        np.testing.assert_array_equal(found.values, expected.values)
    else:
        same_odds(found.values, expected.values)


def calls(task: Callable[[], object]) -> int:
    """How many functions are called, in Python and in C, while a task runs: what it costs, on any machine."""
    count = 0

    def note(frame: Any, event: str, arg: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    enabled, before = gc.isenabled(), sys.getprofile()
    gc.collect()
    gc.disable()  # what is collected, and when, depends on what ran before
    sys.setprofile(note)
    try:
        task()
    finally:
        sys.setprofile(before)
        if enabled:
            gc.enable()
    return count


class CountingScheduler:
    """Dask's synchronous scheduler, which notes each call."""

    def __init__(self) -> None:
        self.computes = 0

    def __call__(self, graph: Any, keys: Any, **options: Any) -> Any:
        self.computes += 1
        return dask.get(graph, keys, **options)


def forbidden(block: np.ndarray) -> np.ndarray:
    """Stand in for pixels that must not be read."""
    raise AssertionError("a pixel was read")


@st.composite
def chunks(draw: st.DrawFn, size: int) -> tuple[int, ...]:
    """Any way to cut `size` pixels."""
    out: list[int] = []
    while sum(out) < size:
        out.append(draw(st.integers(1, size - sum(out))))
    return tuple(out)
