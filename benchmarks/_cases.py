"""What is measured: scenes, networks, the bare network, and each way of ours to a mask."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import numpy.typing as npt
import xarray as xr
from _measure import clocked, peak_mib

import xcloudmask  # noqa: F401  registers the accessor
from xcloudmask import models, testing
from xcloudmask.classes import NO_DATA
from xcloudmask.engine.devices import cpu_lanes, cpu_threads
from xcloudmask.engine.tiling import AxisPlan
from xcloudmask.models.sources import ukis
from xcloudmask.types import ModelSpec

Pixels = npt.NDArray[np.float32]

#: Costs little and still looks at its whole window: for what must not depend on the network.
CHEAP = replace(testing.TOY, name="cheap", bands=ukis.BANDS, patch=256, overlap=48)
#: The same, small enough for a test.
TINY = replace(CHEAP, name="tiny", patch=64, overlap=16)
#: Sleeps as long for each window as a network on a device of its own would keep its worker waiting.
ASLEEP = replace(CHEAP, name="asleep", loader=f"{__name__}:load_asleep", sha256="")
#: What every mask here is asked for with.
HOW: dict[str, Any] = {"working_resolution": "native", "device": "cpu"}
NAP = 0.2  # seconds; about what the default model takes of one core for a window


def model(name: str) -> ModelSpec:
    if name == "free":
        free_of_cost()
        name = "ukis-6band-l1c"
    return {"cheap": CHEAP, "tiny": TINY}.get(name) or models.get(name)


def free_of_cost() -> None:
    """Put three of the bands in the place of what onnxruntime would answer, in this process."""
    from xcloudmask.engine.onnx import OnnxBackend

    def opened(self: OnnxBackend, body: bytes) -> None:
        self.lanes = cpu_lanes()

    def answer(self: OnnxBackend, pixels: Pixels) -> Pixels:
        return np.ascontiguousarray(pixels[:, :3])

    OnnxBackend.open, OnnxBackend.run = opened, answer  # type: ignore[method-assign]


def load_asleep(spec: ModelSpec) -> Any:
    from torch import Tensor, nn

    from xcloudmask.models.network import Network

    class Asleep(nn.Module):
        def forward(self, pixels: Tensor) -> Tensor:
            time.sleep(NAP * len(pixels))
            return pixels[:, : len(spec.classes)]

    return Network(Asleep())


def field(rows: npt.NDArray[Any], cols: npt.NDArray[Any], bands: int) -> Pixels:
    """Return reflectance that varies at the scale of clouds, for pixels `rows` x `cols` of a plane."""
    waves = np.sin(rows / 37.0)[:, None] * np.cos(cols / 53.0)[None, :]
    waves = waves + 0.5 * np.sin(rows / 211.0)[:, None] + 0.5 * np.cos(cols / 173.0)[None, :]
    shared = np.clip(0.25 + 0.2 * waves, 0.01, 1).astype(np.float32)
    pixels = np.empty(
        (bands, *shared.shape), np.float32
    )  # one copy of it: its own memory is not what is measured
    for band, plane in enumerate(pixels):
        np.multiply(shared, np.float32(1 - 0.06 * band), out=plane)
    return pixels


def image(size: int, bands: int) -> Pixels:
    return field(np.arange(size), np.arange(size), bands)


def described(data: Any, spec: ModelSpec) -> xr.DataArray:
    plain = xr.DataArray(data, dims=("band", "y", "x"))
    return plain.cloudmask.describe(bands=list(spec.bands), level="L1C")


def lazy_scene(size: int, chunk: int, spec: ModelSpec) -> xr.DataArray:
    """Return a scene whose pixels are made when asked for and held by nobody."""

    def block(block_info: Any = None) -> Pixels:
        (_, _), rows, cols = block_info[None]["array-location"]
        return field(np.arange(*rows), np.arange(*cols), len(spec.bands))

    return described(of_blocks(block, size, chunk, spec), spec)


def of_blocks(
    block: Callable[..., npt.NDArray[Any]], size: int, chunk: int, spec: ModelSpec, dtype: Any = np.float32
) -> da.Array:
    """Return pixels (band, y, x) of which `block` makes each chunk when it is asked for."""
    chunks = da.core.normalize_chunks((-1, chunk, chunk), shape=(len(spec.bands), size, size))
    return da.map_blocks(block, chunks=chunks, dtype=dtype, meta=np.empty((0, 0, 0), dtype))


@cache
def kept_image(size: int, bands: int) -> Pixels:
    return image(size, bands)


def repeated_scene(size: int, chunk: int, spec: ModelSpec) -> xr.DataArray:
    """Return a scene of one block again and again, which each process holds once it was asked for."""

    def block(block_info: Any = None) -> Pixels:
        bands, rows, cols = block_info[None]["chunk-shape"]
        return kept_image(chunk, bands)[:, :rows, :cols]

    return described(of_blocks(block, size, chunk, spec), spec)


def lazy_counts(size: int, chunk: int, spec: ModelSpec) -> xr.DataArray:
    """Return a scene of 10 m as files hold it, 16-bit counts, whose making costs a copy and no more."""
    block = np.round(field(np.arange(chunk), np.arange(chunk), len(spec.bands)) * 1e4).astype(np.uint16)

    def copied(block_info: Any = None) -> npt.NDArray[np.uint16]:
        _, rows, cols = block_info[None]["chunk-shape"]
        return block[:, :rows, :cols].copy()

    pixels = of_blocks(copied, size, chunk, spec, np.uint16)
    coords = {"y": -10.0 * np.arange(size), "x": 10.0 * np.arange(size)}
    plain = xr.DataArray(pixels, dims=("band", "y", "x"), coords=coords)
    return plain.cloudmask.describe(bands=list(spec.bands), level="L1C", scale=1e-4, offset=0.0)


def window_count(size: int, spec: ModelSpec, overlap: int | None = None) -> int:
    return AxisPlan(size, spec.patch, spec.overlap if overlap is None else overlap).count ** 2


class Bare:
    """The network alone, called by hand: no blend, no copy, no Dask; windows cut and normalised before.

    In a loop with all threads or, with several lanes, in as many loops at a time, which share the threads.
    """

    def __init__(self, spec: ModelSpec, pixels: Pixels, count: int, lanes: int) -> None:
        self.lanes = lanes
        starts = AxisPlan(pixels.shape[-1], spec.patch, spec.overlap).starts[:8].tolist()
        corners = [(top, left) for top in starts for left in starts]
        size = spec.patch
        cut = [pixels[:, top : top + size, left : left + size] for top, left in corners]
        module, _, function = spec.loader.partition(":")
        network = getattr(__import__(module, fromlist=["_"]), function)(spec)
        mean, std = (np.asarray(v, np.float32)[:, None, None] for v in (network.mean, network.std))
        self.windows = [np.ascontiguousarray((part - mean) / std)[None] for part in cut]
        self.count = count
        onnx = spec.runtime == "onnx"
        self.call = self._onnx(network.body) if onnx else self._torch(network.body)

    def _onnx(self, body: bytes) -> Any:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = max(1, cpu_threads() // self.lanes)
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        session = ort.InferenceSession(body, sess_options=options, providers=["CPUExecutionProvider"])
        name = session.get_inputs()[0].name
        return lambda window: session.run(None, {name: window})

    def _torch(self, module: Any) -> Any:
        import torch

        module = module.eval().requires_grad_(False)
        with torch.inference_mode():
            inputs = {id(window): torch.from_numpy(window) for window in self.windows}

        def call(window: Pixels) -> Any:
            with torch.inference_mode():
                return module(inputs[id(window)])

        return call

    def __call__(self) -> None:
        def loop(first: int) -> None:
            for index in range(first, self.count, self.lanes):
                self.call(self.windows[index % len(self.windows)])

        with ThreadPoolExecutor(self.lanes) as pool:
            list(pool.map(loop, range(self.lanes)))


def predict(scene: xr.DataArray, spec: ModelSpec, workers: int) -> npt.NDArray[np.uint8]:
    """Mask a Dask-backed scene on the threaded scheduler."""
    with dask.config.set(scheduler="threads", num_workers=workers):
        return np.asarray(scene.cloudmask.predict(spec, **HOW).data.compute())


def streamed(mask: xr.DataArray, store: Path, side: int) -> None:
    """Write a lazy mask to Zarr in regions of `side`."""
    from xcloudmask.streaming import to_zarr

    chunks, shards = ({"y": each, "x": each} for each in (min(side, 512), side))
    to_zarr(mask, store, chunks=chunks, shards=shards, progress=False)


def masked(
    size: int, chunk: int, name: str, workers: int, writer: str, counts: bool = False
) -> dict[str, Any]:
    """Mask a scene in one of the ways to a mask; for a process of its own.

    It is made as it is asked for and held by nobody; but for ``numpy``, which holds it. A small one goes
    before, so that all is loaded.
    """
    spec = model(name)
    make, how = (lazy_counts, {"device": "cpu"}) if counts else (lazy_scene, HOW)

    def work(scene: xr.DataArray, path: Path) -> npt.NDArray[np.uint8]:
        mask = scene.cloudmask.predict(spec, **how)
        if writer == "stream":
            streamed(mask.rename("mask"), path / "mask.zarr", chunk)
            mask = xr.open_zarr(path / "mask.zarr", consolidated=False)["mask"][-1:, -1:]
        elif writer == "geotiff":
            mask.cloudmask.to_geotiff(path / "mask.tif")
            return np.empty((0, 0), np.uint8)
        return np.asarray(mask.values)

    kept = []
    with (
        tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as folder,
        dask.config.set(scheduler="threads", num_workers=workers),
    ):  # fmt: skip
        work(make(2 * spec.patch, spec.patch, spec), Path(first))  # imports and loads
        scene = (
            make(size, chunk, spec) if writer != "numpy" else described(image(size, len(spec.bands)), spec)
        )
        before = peak_mib()
        spent = clocked(lambda: kept.append(work(scene, Path(folder))))
    if kept[0].size and kept[0][-1, -1] == NO_DATA:
        raise RuntimeError(f"{writer}: the last pixel has no answer")
    return {
        "size": size, "chunk": chunk, "writer": writer, "seconds": spent.wall, "cpu": spent.cpu,
        "before_mib": before, "peak_mib": peak_mib(),
        "answer_mib": sum(each.nbytes for each in kept) / 2**20,
    }  # fmt: skip


def first_calls(repeat: int) -> dict[str, Any]:
    """Call `predict` with the default model on one window, again and again; for a process of its own."""
    import psutil

    from xcloudmask.cli.bench import made_up
    from xcloudmask.engine.onnx import OnnxBackend
    from xcloudmask.predict.choose_model import default_model

    inside, run = [0.0], OnnxBackend.run

    def noted(self: OnnxBackend, pixels: Pixels) -> Pixels:
        start = time.perf_counter()
        answer = run(self, pixels)
        inside[0] += time.perf_counter() - start
        return answer

    OnnxBackend.run = noted  # type: ignore[method-assign]
    spec = default_model()
    scene = made_up(spec, spec.patch)
    calls = []
    for _ in range(1 + repeat):
        inside[0] = 0.0
        spent = clocked(lambda: scene.cloudmask.predict(spec).values)
        calls.append((spent.wall, spent.wall - inside[0]))
        if len(calls) == 1:
            since_start = time.time() - psutil.Process().create_time()
    return {"model": spec.name, "since_start": since_start, "calls": calls}
