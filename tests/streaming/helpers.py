"""Scenes, a model that counts across processes, and runs in processes that can be killed."""

import multiprocessing
import os
import sys
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import xcloudmask  # noqa: F401  registers the accessor
from xcloudmask.models.network import Network
from xcloudmask.store.regions import Index
from xcloudmask.streaming import stream
from xcloudmask.streaming.layout import WindowLayout
from xcloudmask.types import ModelSpec

#: Notes each window in the file that this environment variable names.
VARIABLE = "XCLOUDMASK_TEST_WINDOWS"

COUNTED = ModelSpec(
    name="counted",
    version="1",
    bands=("red",),
    classes=("clear", "cloud"),
    loader="tests.streaming.helpers:load_counted",
    patch=32,
    overlap=8,
)


def load_counted(spec: ModelSpec) -> Network:
    from torch import nn

    class Counted(nn.Module):
        def forward(self, x: Any) -> Any:
            path = os.environ.get(VARIABLE)
            if path:
                with open(path, "ab", buffering=0) as file:
                    file.write(b"".join(b"%.9g\n" % value for value in x[:, 0, 0, 0].tolist()))
            return (x[:, :1] * 977).sin() * 3

    return Network(body=Counted(), activation="sigmoid")


def numbered(steps: int, height: int, width: int) -> xr.DataArray:
    """A scene in which every pixel has its own value, small enough to be reflectance, exact in fp32."""
    count = steps * height * width
    values = (np.arange(count, dtype=np.float32) / 2.0 ** max(0, count.bit_length() - 1)).astype(np.float32)
    return described(values.reshape(steps, 1, height, width), ["red"])


def described(values: np.ndarray, names: list[str], step: float = 10.0) -> xr.DataArray:
    steps, _, height, width = values.shape
    da = xr.DataArray(
        values,
        dims=("time", "band", "y", "x"),
        coords={
            "time": np.datetime64("2026-05-01T10:30", "ns") + np.arange(steps) * np.timedelta64(5, "D"),
            "y": 5_000_000 - step * np.arange(height),
            "x": 300_000 + step * np.arange(width),
        },
    )
    da = da.cloudmask.describe(bands=names, level="L1C").rio.write_crs(32632)
    return da.assign_coords(item_id=("time", [f"S2A_{step:03d}" for step in range(steps)]))


def files(folder: Path) -> dict[str, bytes]:
    """All that a store holds."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def windows_of(path: Path) -> list[float]:
    return [float(line) for line in path.read_text().splitlines()] if path.exists() else []


def owners(windows: WindowLayout, da: xr.DataArray) -> dict[float, Index]:
    """Which region infers the window that begins with a value."""
    out = {}
    for at in windows.layout.regions():
        row, col = windows.rows[at[-2]], windows.cols[at[-1]]
        for r, c in product(range(*row.windows), range(*col.windows)):
            y, x = windows.y.plan.start(r), windows.x.plan.start(c)
            out[float(f"{da.values[at[0], 0, y, x]:.9g}")] = at
    return out


#: One store's worth of work for the kill tests: 4 scenes of 4 x 4 regions.
def job(store: Any, notes: str, **options: Any) -> None:
    cut = {"chunks": {"y": 24, "x": 24}, "shards": {"y": 48, "x": 48}, "progress": False}
    da = numbered(4, 180, 190).chunk(time=1, y=70, x=190)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, notes)
        stream(da, store, predict={"model": COUNTED}, **{**cut, **options})


def _silently(function: Any, arguments: tuple[Any, ...], options: dict[str, Any], errors: Any) -> None:
    try:
        function(*arguments, **options)
    except BaseException as error:
        errors.put(f"{type(error).__name__}: {error}")
        errors.close()
        errors.join_thread()
        sys.exit(1)


class Child:
    """A function in a process of its own."""

    context = multiprocessing.get_context("forkserver")

    def __init__(self, function: Any, *arguments: Any, **options: Any) -> None:
        preload = ["tests.streaming.helpers", "torch", "dask.array", "zarr", "s3fs"]
        self.context.set_forkserver_preload(preload)
        self.errors = self.context.Queue()
        self.process = self.context.Process(
            target=_silently, args=(function, arguments, options, self.errors), daemon=True
        )
        self.process.start()

    def end(self, timeout: float = 60) -> str | None:
        """Wait; return its error, if it had one."""
        self.process.join(timeout)
        if self.process.is_alive():
            self.kill()
            raise TimeoutError("the child did not end")
        return None if self.process.exitcode == 0 else str(self.errors.get(timeout=5))

    def kill_after(self, seconds: float) -> bool:
        """Kill it after some time; return whether it was still running."""
        self.process.join(seconds)
        if self.process.exitcode is not None:
            return False
        self.kill()
        return True

    def kill(self) -> None:
        self.process.kill()
        self.process.join()
