"""What is measured: scenes, the bare network, ours on Dask, ours to Zarr, and the peer."""

from __future__ import annotations

import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import numpy.typing as npt
import xarray as xr
from _measure import peak_mib

import xcloudmask  # noqa: F401  registers the accessor
from xcloudmask import models, testing
from xcloudmask.engine.devices import cpu_threads
from xcloudmask.engine.tiling import AxisPlan
from xcloudmask.models.sources import ukis
from xcloudmask.types import ModelSpec

Pixels = npt.NDArray[np.float32]

#: Costs little and still looks at its whole window: for what must not depend on the network.
CHEAP = replace(testing.TOY, name="cheap", bands=ukis.BANDS, patch=256, overlap=48)
#: The same, small enough for a test.
TINY = replace(CHEAP, name="tiny", patch=64, overlap=16)


def model(name: str) -> ModelSpec:
    return {"cheap": CHEAP, "tiny": TINY}.get(name) or models.get(name)


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

    chunks = da.core.normalize_chunks((-1, chunk, chunk), shape=(len(spec.bands), size, size))
    pixels = da.map_blocks(block, chunks=chunks, dtype=np.float32, meta=np.empty((0, 0, 0), np.float32))
    return described(pixels, spec)


def window_count(size: int, spec: ModelSpec, overlap: int | None = None) -> int:
    return AxisPlan(size, spec.patch, spec.overlap if overlap is None else overlap).count ** 2


class Bare:
    """The network alone, called by hand: no blend, no copy, no Dask; windows cut and normalised before.

    In a loop with all threads or, with several lanes, in as many loops at a time, which share the threads.
    """

    def __init__(
        self, spec: ModelSpec, pixels: Pixels, count: int, spinning: bool = False, lanes: int = 1
    ) -> None:
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
        self.call = self._onnx(network.body, spinning) if onnx else self._torch(network.body)

    def _onnx(self, body: bytes, spinning: bool) -> Any:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = max(1, cpu_threads() // self.lanes)
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spinning)))
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
        mask = scene.cloudmask.predict(spec, working_resolution="native", device="cpu")
        return np.asarray(mask.data.compute())


def memory(size: int, chunk: int, name: str, workers: int, writer: str) -> dict[str, Any]:
    """Mask a scene that is made on the fly and write it to Zarr chunk by chunk; for a process of its own."""
    spec = model(name)
    predict(lazy_scene(2 * spec.patch, spec.patch, spec), spec, workers)  # imports and loads
    mask = lazy_scene(size, chunk, spec).cloudmask.predict(spec, working_resolution="native", device="cpu")
    before, start = peak_mib(), time.perf_counter()
    with (
        tempfile.TemporaryDirectory() as folder,
        dask.config.set(scheduler="threads", num_workers=workers),
    ):
        store = Path(folder) / "mask.zarr"
        WRITERS[writer](mask.rename("mask"), store)
        seconds = time.perf_counter() - start
        corner = int(xr.open_zarr(store, consolidated=False)["mask"][-1, -1])
    return {
        "size": size, "chunk": chunk, "writer": writer, "seconds": seconds,
        "before_mib": before, "peak_mib": peak_mib(), "corner": corner,
    }  # fmt: skip


def _by_xarray(mask: xr.DataArray, store: Path) -> None:
    mask.to_dataset().to_zarr(store, consolidated=False, zarr_format=3)


def _by_us(mask: xr.DataArray, store: Path) -> None:
    from xcloudmask.masks.write import write

    write(mask, store)


def _by_stream(mask: xr.DataArray, store: Path) -> None:
    from xcloudmask.streaming import to_zarr

    side = max(mask.chunks[-1]) if mask.chunks else 1024  # regions as large as the chunks
    size = {"y": side, "x": side}
    to_zarr(mask, store, chunks={"y": min(side, 512), "x": min(side, 512)}, shards=size, progress=False)


#: Ways to write a lazy mask: they decide in which order the scene is walked over.
WRITERS = {"stream": _by_stream, "write": _by_us, "xarray": _by_xarray}


def ours(size: int, repeat: int, name: str) -> dict[str, Any]:
    """Mask one NumPy image as a user would, cold and again; for a process of its own."""
    spec = model(name)
    scene = described(image(size, len(spec.bands)), spec)
    before = peak_mib()
    seconds = []
    for _ in range(1 + repeat):
        start = time.perf_counter()
        mask = scene.cloudmask.predict(spec, working_resolution="native").values
        seconds.append(time.perf_counter() - start)
    return {
        "seconds": seconds, "peak_mib": peak_mib(), "before_mib": before, "windows": window_count(size, spec),
        "shares": [int((mask == code).sum()) for code in (0, 1, 3)],
    }  # fmt: skip


def peer(size: int, repeat: int, threads: int) -> dict[str, Any]:
    """Do the same with ukis-csmask's own class; for a process of its own."""
    pixels = np.ascontiguousarray(np.moveaxis(image(size, 6), 0, -1))
    before = peak_mib()
    seconds = []
    for _ in range(1 + repeat):
        start = time.perf_counter()
        from ukis_csmask.mask import CSmask

        found = CSmask(
            pixels, list(ukis.BANDS), product_level="l1c", providers=["CPUExecutionProvider"],
            intra_op_num_threads=threads,
        )  # fmt: skip
        seconds.append(time.perf_counter() - start)
    shares = [int((found.csm == code).sum()) for code in (0, 1, 2)]
    return {
        "seconds": seconds, "peak_mib": peak_mib(), "before_mib": before, "windows": 121, "shares": shares
    }  # fmt: skip
