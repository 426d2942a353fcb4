"""The engine: windows in, blended sums out, on whatever device there is.

One `Predictor` per (model, device, precision) lives in a process. It owns the loaded networks, one per
device, each behind a lock: one inference runs at a time on a device, while other threads read, prepare
and write. Windows are batched; a batch that does not fit in memory is halved and tried again.
"""

from __future__ import annotations

import importlib
import itertools
import logging
import os
import re
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from xcloudmask.blend import Bool, Float, quantise
from xcloudmask.errors import CloudMaskError, OptionError
from xcloudmask.models.network import Network
from xcloudmask.types import ModelSpec

log = logging.getLogger("xcloudmask")

DEVICES = ("auto", "cpu", "cuda", "cuda:0", "mps")
DTYPES = ("auto", "float32", "bfloat16", "float16")

#: Windows a batch where the caller leaves the choice. A CPU gains nothing from more than one window at a
#: time (its threads are busy already) and one keeps results independent of how windows fall into batches.
AUTO_BATCH = {"cpu": 1, "cuda": 32, "mps": 8}


@dataclass(frozen=True, slots=True)
class WindowJob:
    """One window to infer, and where its result goes."""

    scene: int
    row: int  # first cell of the window within the sums
    col: int
    pixels: Float  # (band, patch, patch), no NaN
    valid: Bool  # (rows, cols) cells within the sums that hold data
    weights: Float  # (rows, cols)


class Backend(Protocol):
    """A loaded network on one device."""

    #: Hold the device for a whole task rather than a batch (its sums live on the device).
    exclusive: bool
    kind: str

    def probabilities(self, pixels: Float) -> Any:
        """(n, band, y, x) to (n, class, y, x), kept on the device."""

    def zeros(self, shape: tuple[int, ...]) -> Any:
        """Return sums to add to, on the device."""

    def add(self, sums: Any, job: WindowJob, probabilities: Any) -> None:
        """Add one window's weighted probabilities."""

    def fetch(self, sums: Any) -> Float:
        """Bring sums to the host."""


def check_device(device: str) -> None:
    """Refuse a device name that cannot be one; whether it exists is known only where the work runs."""
    if not isinstance(device, str) or not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", device):
        raise OptionError("device", device, allowed=DEVICES)


def check_dtype(dtype: str, spec: ModelSpec) -> None:
    """Refuse an unknown precision, or one that the model's runtime cannot change to."""
    if dtype not in DTYPES:
        raise OptionError("dtype", dtype, allowed=DTYPES)
    if spec.runtime == "onnx" and dtype not in ("auto", "float32"):
        raise CloudMaskError(
            f"dtype={dtype!r}: model {spec.name!r} is an ONNX graph and runs in the precision it was exported "
            "in; leave dtype='auto'"
        )


def cpu_threads() -> int:
    """Threads one inference may use: this process's share of the machine.

    On a Dask worker that is the worker's own thread count, so that several workers on one machine do not
    claim the same cores. ``XCLOUDMASK_NUM_THREADS`` overrides both.
    """
    override = os.environ.get("XCLOUDMASK_NUM_THREADS")
    if override:
        return max(1, int(override))
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if "distributed" in sys.modules:
        from distributed import get_worker

        try:
            return min(available, int(get_worker().state.nthreads))
        except ValueError:  # not on a worker
            pass
    return available


def softmax(logits: Float) -> Float:
    """Softmax over the class axis of (n, class, y, x)."""
    logits = logits - logits.max(axis=1, keepdims=True)
    np.exp(logits, out=logits)
    logits /= logits.sum(axis=1, keepdims=True)
    return logits


class OnnxBackend:
    """onnxruntime, on the CPU or a CUDA device; sums in NumPy."""

    exclusive = False

    def __init__(self, network: Network, device: str) -> None:
        import onnxruntime as ort

        self.kind = device.partition(":")[0]
        self.network = network
        options = ort.SessionOptions()
        options.intra_op_num_threads = cpu_threads()
        options.inter_op_num_threads = 1
        # Idle threads must sleep, not spin: other Dask threads read and write meanwhile.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        providers: list[Any] = ["CPUExecutionProvider"]
        if self.kind == "cuda":
            if "CUDAExecutionProvider" not in ort.get_available_providers():
                raise CloudMaskError(
                    f"device={device!r}: the installed onnxruntime has no CUDA; install onnxruntime-gpu, "
                    "or use device='cpu'"
                )
            providers.insert(0, ("CUDAExecutionProvider", {"device_id": int(device.partition(":")[2] or 0)}))
        self.session = ort.InferenceSession(network.body, sess_options=options, providers=providers)
        self.input = self.session.get_inputs()[0].name
        shape = (1, -1, 1, 1)
        self.mean = np.asarray(network.mean or 0.0, np.float32).reshape(shape)
        self.std = np.asarray(network.std or 1.0, np.float32).reshape(shape)

    def probabilities(self, pixels: Float) -> Float:
        """See `Backend`."""
        pixels = (pixels - self.mean) / self.std
        out: Float = self.session.run(None, {self.input: pixels})[0]
        if self.network.activation == "softmax":
            return softmax(out)
        if self.network.activation == "sigmoid":
            cloud = 1 / (1 + np.exp(-out))
            return np.concatenate([1 - cloud, cloud], axis=1)
        return out

    def zeros(self, shape: tuple[int, ...]) -> Float:
        """See `Backend`."""
        return np.zeros(shape, np.float32)

    def add(self, sums: Float, job: WindowJob, probabilities: Float) -> None:
        """See `Backend`."""
        rows, cols = job.weights.shape
        part = probabilities[:, :rows, :cols] * job.weights
        part[:, ~job.valid] = 0
        sums[job.scene, :, job.row : job.row + rows, job.col : job.col + cols] += quantise(part)

    def fetch(self, sums: Float) -> Float:
        """See `Backend`."""
        return sums


class TorchBackend:
    """torch on any device; sums stay there until the task is done."""

    def __init__(self, network: Network, device: str, dtype: str) -> None:
        import torch

        self.torch = torch
        self.device = torch.device(device)
        self.kind = self.device.type
        self.exclusive = self.kind != "cpu"
        if self.kind == "cpu":
            torch.set_num_threads(cpu_threads())
        self.network = network
        self.module = network.body.to(self.device).eval().requires_grad_(False)
        self.autocast = self._autocast_dtype(dtype)
        shape = (1, -1, 1, 1)
        self.mean = torch.tensor(network.mean or (0.0,), device=self.device).reshape(shape)
        self.std = torch.tensor(network.std or (1.0,), device=self.device).reshape(shape)

    def _autocast_dtype(self, dtype: str) -> Any:
        """Return the dtype to compute in, or None for fp32."""
        torch = self.torch
        if dtype == "auto":
            if self.kind != "cuda":
                return None
            major, _ = torch.cuda.get_device_capability(self.device)
            return torch.bfloat16 if major >= 8 else torch.float16 if major >= 7 else None
        return None if dtype == "float32" else getattr(torch, dtype)

    def _upload(self, array: npt.NDArray[Any]) -> Any:
        """Copy to the device, without waiting where it can be done."""
        tensor = self.torch.from_numpy(np.ascontiguousarray(array))
        if self.kind == "cuda":
            return tensor.pin_memory().to(self.device, non_blocking=True)
        return tensor.to(self.device)

    def probabilities(self, pixels: Float) -> Any:
        """See `Backend`."""
        torch = self.torch
        with ExitStack() as stack:
            stack.enter_context(torch.inference_mode())
            batch = (self._upload(pixels) - self.mean) / self.std
            if self.autocast is not None:
                stack.enter_context(torch.autocast(self.kind, dtype=self.autocast))
            out = self.module(batch)
        with torch.inference_mode():
            out = out.float()  # the blend is fp32 whatever the network computes in
            if self.network.activation == "softmax":
                return torch.softmax(out, dim=1)
            if self.network.activation == "sigmoid":
                cloud = torch.sigmoid(out)
                return torch.cat([1 - cloud, cloud], dim=1)
            return out

    def zeros(self, shape: tuple[int, ...]) -> Any:
        """See `Backend`."""
        with self.torch.inference_mode():
            return self.torch.zeros(shape, device=self.device)

    def add(self, sums: Any, job: WindowJob, probabilities: Any) -> None:
        """See `Backend`."""
        rows, cols = job.weights.shape
        with self.torch.inference_mode():
            part = probabilities[:, :rows, :cols] * self._upload(job.weights)
            part = part.masked_fill(~self._upload(job.valid), 0.0)
            part = self.torch.round(part * 2.0**23) / 2.0**23  # as blend.quantise
            sums[job.scene, :, job.row : job.row + rows, job.col : job.col + cols] += part

    def fetch(self, sums: Any) -> Float:
        """See `Backend`."""
        with self.torch.inference_mode():
            out: Float = sums.cpu().numpy()
        return out


def available_devices(device: str, runtime: str) -> list[str]:
    """Turn ``auto`` and ``cuda`` into the devices of this machine; several GPUs are used in turn."""
    if device == "cpu" or (device == "auto" and os.environ.get("CUDA_VISIBLE_DEVICES") == ""):
        return ["cpu"]
    import torch

    gpus = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    if device == "auto":
        if runtime == "onnx":
            import onnxruntime as ort

            return gpus if gpus and "CUDAExecutionProvider" in ort.get_available_providers() else ["cpu"]
        return gpus or (["mps"] if torch.backends.mps.is_available() else ["cpu"])
    if device == "cuda":
        found = gpus
    elif device == "mps":
        found = ["mps"] if runtime == "torch" and torch.backends.mps.is_available() else []
    else:
        found = [gpu for gpu in gpus if gpu == device]
    if not found:
        raise CloudMaskError(
            f"device={device!r} is not on this machine (there: {', '.join(['cpu', *gpus])}); "
            "use device='auto', or run on workers that have it"
        )
    return found


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` says that memory ran out, in any of the runtimes' words."""
    if isinstance(error, MemoryError):
        return True
    text = f"{type(error).__name__} {error}".lower()
    return any(words in text for words in ("out of memory", "outofmemory", "failed to allocate", "bad_alloc"))


class Predictor:
    """Runs one model in this process, on one or several devices.

    Get one with `get_predictor`; making one loads nothing, the first window does.
    """

    def __init__(self, spec: ModelSpec, device: str = "auto", dtype: str = "auto") -> None:
        self.spec = spec
        self.device = device
        self.dtype = dtype
        self._loading = threading.Lock()
        self._backends: list[tuple[Backend, threading.Lock]] = []
        self._turn = itertools.count()
        self._fits: int | None = None  # the largest batch that memory has allowed so far

    def _load(self) -> list[tuple[Backend, threading.Lock]]:
        with self._loading:
            if not self._backends:
                module, _, function = self.spec.loader.partition(":")
                load: Callable[[ModelSpec], Network] = getattr(importlib.import_module(module), function)
                made: list[tuple[Backend, threading.Lock]] = []
                for device in available_devices(self.device, self.spec.runtime):
                    network = load(self.spec)
                    backend: Backend = (
                        OnnxBackend(network, device)
                        if self.spec.runtime == "onnx"
                        else TorchBackend(network, device, self.dtype)
                    )
                    made.append((backend, threading.Lock()))
                    log.info("loaded model %s %s on %s", self.spec.name, self.spec.version, device)
                self._backends = made
        return self._backends

    def _next(self) -> tuple[Backend, threading.Lock]:
        """Return a free device if there is one, else the next in turn."""
        backends = self._load()
        first = next(self._turn)
        order = [backends[(first + step) % len(backends)] for step in range(len(backends))]
        return next((pair for pair in order if not pair[1].locked()), order[0])

    def blend(
        self,
        jobs: Iterable[WindowJob],
        shape: tuple[int, int, int, int],
        *,
        batch_size: int | None = None,
        tta: bool = False,
    ) -> Float:
        """Infer every window once and return the weighted sums, (scene, class, y, x)."""
        backend, lock = self._next()
        with ExitStack() as stack:
            if backend.exclusive:
                stack.enter_context(lock)
            sums = backend.zeros(shape)
            for batch in _batches(jobs, batch_size or AUTO_BATCH[backend.kind]):
                for part in _split(batch, self._fits):
                    self._add(backend, lock, part, sums, tta)
            return backend.fetch(sums)

    def _add(
        self, backend: Backend, lock: threading.Lock, jobs: list[WindowJob], sums: Any, tta: bool
    ) -> None:
        """Infer a batch and add it; halve it if it does not fit."""
        pixels = np.stack([job.pixels for job in jobs])
        try:
            with ExitStack() as stack:
                if not backend.exclusive:
                    stack.enter_context(lock)
                found = _augmented(backend, pixels) if tta else backend.probabilities(pixels)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            if len(jobs) == 1:
                raise MemoryError(
                    f"one window of {pixels.shape[-1]} x {pixels.shape[-1]} does not fit in the memory of "
                    f"{backend.kind}; use a smaller patch_size, or device='cpu'"
                ) from error
            half = -(-len(jobs) // 2)
            self._fits = half
            log.warning("out of memory on %s: batch of %d halved to %d", backend.kind, len(jobs), half)
        else:
            for job, probabilities in zip(jobs, found, strict=True):
                backend.add(sums, job, probabilities)
            return
        # Outside the except block, so that the failed attempt's tensors are no longer referenced.
        if backend.kind == "cuda":
            import torch

            torch.cuda.empty_cache()
        for part in _split(jobs, half):
            self._add(backend, lock, part, sums, tta)


def _batches(jobs: Iterable[WindowJob], size: int) -> Iterator[list[WindowJob]]:
    source = iter(jobs)
    while batch := list(itertools.islice(source, size)):
        yield batch


def _split(jobs: list[WindowJob], size: int | None) -> Iterator[list[WindowJob]]:
    size = size or len(jobs)
    for first in range(0, len(jobs), size):
        yield jobs[first : first + size]


def _augmented(backend: Backend, pixels: Float) -> Any:
    """Mean over the eight turns and mirrors of the window (test-time augmentation)."""
    total: Any = None
    for turns in range(4):
        for mirror in (False, True):
            turned = np.rot90(pixels, turns, axes=(2, 3))
            turned = turned[..., ::-1] if mirror else turned
            found = backend.probabilities(np.ascontiguousarray(turned))
            found = _undo(found, turns, mirror)
            total = found if total is None else total + found
    return total / 8


def _undo(found: Any, turns: int, mirror: bool) -> Any:
    """Turn a result (NumPy or torch) back."""
    if isinstance(found, np.ndarray):
        found = found[..., ::-1] if mirror else found
        return np.rot90(found, -turns, axes=(2, 3))
    found = found.flip(-1) if mirror else found
    return found.rot90(-turns, dims=(2, 3))


_predictors: dict[tuple[ModelSpec, str, str], Predictor] = {}
_predictors_lock = threading.Lock()


def get_predictor(spec: ModelSpec, device: str = "auto", dtype: str = "auto") -> Predictor:
    """Return this process's `Predictor` for a model; the same one every time."""
    key = (spec, device, dtype)
    with _predictors_lock:
        if key not in _predictors:
            _predictors[key] = Predictor(spec, device, dtype)
        return _predictors[key]


def unload() -> None:
    """Forget every loaded model of this process, and give their memory back."""
    with _predictors_lock:
        _predictors.clear()
