"""Runs a model: batches windows, infers them on a device, hands weighted probabilities to the sums.

One `Predictor` per (model, device, precision) lives in a process. A network is loaded once for a device,
whichever predictors use it. All of them share a device's slots: one inference runs on it at a time while
other threads read, prepare and write; or, for graphs on a CPU, a few in parallel, a window each. Windows are
batched; a batch that does not fit in memory is halved and tried again.
"""

from __future__ import annotations

import gc
import itertools
import logging
import os
import re
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, wait
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

import numpy as np

from xcloudmask.classes import CLOUDY
from xcloudmask.engine import devices
from xcloudmask.engine.arrays import Bool, Float
from xcloudmask.engine.backend import Backend, Place
from xcloudmask.engine.cache import PerProcessCache
from xcloudmask.engine.device_slots import DeviceQueue, InferenceResult, device_slots, thread_pools
from xcloudmask.engine.devices import available_devices, for_device, give_back
from xcloudmask.engine.malloc import map_large_blocks
from xcloudmask.engine.output_checks import check_shape, find_anomaly
from xcloudmask.engine.stopwatch import spent_on
from xcloudmask.errors import OutOfMemoryError, warn_user
from xcloudmask.models.imputation import BandImputer
from xcloudmask.models.network import Network, load_network
from xcloudmask.types import Band, ModelSpec

log = logging.getLogger("xcloudmask")

#: Windows a batch where the caller leaves the choice. A CPU gains nothing from more than one (its threads are
#: busy already) and one keeps results independent of how windows fall into batches.
AUTO_BATCH = {"cpu": 1, "cuda": 32, "mps": 8, "openvino": 1}

#: The eight views of a square: which axes to reverse, then whether to swap rows and columns. Test-time
#: augmentation takes the first so many, in the order of CloudS2Mask: the window turned by none to three
#: quarters (from rows to columns, as `numpy.rot90` does), then its mirror image, left for right, turned so.
TURNS: Sequence[tuple[tuple[int, ...], bool]] = (
    ((), False), ((3,), True), ((2, 3), False), ((2,), True),
    ((3,), False), ((), True), ((2,), False), ((2, 3), True),
)  # fmt: skip

_OUT_OF_MEMORY = re.compile(
    r"out of memory|outofmemory|failed to allocate|can(no|')t allocate memory|bad_alloc|alloc_failed"
)


@dataclass(frozen=True, slots=True)
class WindowJob:
    """One window to infer, and where its result goes."""

    scene: int
    row: int  # first cell of the window within the sums
    col: int
    pixels: Float  # (band, patch, patch), no NaN
    valid: Bool  # (rows, cols) cells within the sums that hold data
    weights: Float  # (rows, cols)

    @property
    def place(self) -> Place:
        """Where its cells lie in the sums."""
        rows, cols = self.weights.shape
        cells = slice(self.row, self.row + rows), slice(self.col, self.col + cols)
        return (self.scene, slice(None), *cells)

    @property
    def shares(self) -> Float:
        """Weights of the cells that hold data, zero elsewhere; never negative, never zero in between."""
        return self.weights if self.valid.all() else np.where(self.valid, self.weights, np.float32(0))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` says that memory ran out, in any of the runtimes' words.

    Examples
    --------
    >>> is_out_of_memory(RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"))
    True
    """
    text = f"{type(error).__name__} {error}".lower()
    return isinstance(error, MemoryError) or _OUT_OF_MEMORY.search(text) is not None


#: By card and device: modules, whatever precision they are used in and whatever bands they are bound to.
_networks: PerProcessCache[Network] = PerProcessCache()
#: By card, device, precision and bands.
_backends: PerProcessCache[Backend] = PerProcessCache()


class Predictor:
    """Runs one model in this process, on one or several devices.

    Get one with `get_predictor`; making one loads nothing, the first window does.
    """

    def __init__(
        self, spec: ModelSpec, device: str = "auto", dtype: str = "auto", inputs: tuple[Band, ...] = ()
    ) -> None:
        self.spec = spec
        self.inputs = inputs
        self.device = device
        self.dtype = dtype
        self._loading = threading.Lock()
        self._choosing = threading.Lock()
        self._devices: list[DeviceQueue] = []
        self._calls = itertools.count()
        self._fits: int | None = None  # the largest batch that memory has allowed so far
        self._crowded = False  # whether memory did not suffice for windows in parallel
        self._imputer: BandImputer | None = None  # how bands are estimated that the scene lacks
        self._checked = False  # whether the first batch's probabilities were checked

    def _load(self) -> list[DeviceQueue]:
        with self._loading:
            if not self._devices:
                # A worker with a nanny is a process of Dask, not the user's.
                if getattr(devices.dask_worker(), "nanny", None) is not None:
                    map_large_blocks()
                bound = () if self.spec.fills else self.inputs  # one network serves whichever are estimated
                found = [
                    DeviceQueue.of(
                        name, _loaded(for_device(self.spec, name, self.dtype), name, self.dtype, bound)
                    )
                    for name in available_devices(self.device, self.spec.gpu_runtime or self.spec.runtime)
                ]
                imputer = found[0].backend.network.imputer
                if self.spec.fills and self.inputs and imputer is not None:
                    self._imputer = imputer.given_only([band.name for band in self.inputs])
                self._devices = found
        return self._devices

    @contextmanager
    def _borrowed(self) -> Iterator[DeviceQueue]:
        """Lend the device that fewest tasks use; among equals, the next in turn."""
        devices = self._load()
        with self._choosing:
            first = next(self._calls) % len(devices)
            device = min(devices[first:] + devices[:first], key=lambda each: each.tasks)
            device.tasks += 1
        try:
            yield device
        finally:
            with self._choosing:
                device.tasks -= 1

    def blend(
        self,
        jobs: Iterable[WindowJob],
        shape: tuple[int, int, int, int],
        *,
        batch_size: int | None = None,
        tta: int = 0,
    ) -> Float:
        """Infer every window once and return the weighted sums, (scene, channel, y, x).

        `tta` is how many turns and mirrors of each window are averaged; 0 for none but the window itself.
        Channels are the classes and, where `shape` has one more, the uncertainty: what the network says of it
        or, if it says nothing, the standard deviation of the probability of cloud between turns.
        """
        with self._borrowed() as device:
            backend = device.backend
            try:
                sums = backend.zeros(shape)
            except Exception as error:
                if is_out_of_memory(error):
                    raise OutOfMemoryError(
                        f"the sums of a chunk, {shape}, do not fit in the memory of {backend.kind}; "
                        "use smaller chunks, or device='cpu'"
                    ) from error
                raise
            # Two batches of a task are on the device at a time: one is computed, the next arrives.
            earlier: deque[Callable[[], object]] = deque()
            begun: deque[tuple[list[WindowJob], Future[InferenceResult]]] = deque()

            def settle_first() -> None:
                batch, future = begun[0]
                result = future.result()
                # Only now: if the wait above is interrupted, the `finally` below must wait for this one, too.
                begun.popleft()
                self._settle(device, sums, batch, result, tta)
                earlier.append(backend.mark())

            try:
                # `jobs` is a generator (`kernel.window_jobs`): asking it for a batch calibrates, fills and
                # cuts those windows, here, while batches begun before are inferred by other threads or, on a
                # GPU, asynchronously. No slot of the device is held meanwhile; `_infer` takes one.
                for batch in self._batches(jobs, batch_size or AUTO_BATCH[backend.kind]):
                    if len(earlier) == 2:
                        earlier.popleft()()
                    infer = partial(self._infer, device, batch, tta, shape[1])
                    begun.append((batch, device.start(infer)))
                    if len(begun) > device.ahead:
                        settle_first()
                while begun:
                    settle_first()
            finally:
                for _, future in begun:  # after a failure nothing of this task may run on
                    future.cancel()
                wait([future for _, future in begun])
            return backend.fetch(sums)

    def _settle(
        self, device: DeviceQueue, sums: Any, batch: list[WindowJob], result: InferenceResult, tta: int
    ) -> None:
        """Add a batch to the sums; if memory did not suffice for it, infer its halves."""
        if result.warning is not None:
            log.warning(result.warning)  # warnings raised on a worker are not shown to the client
            warn_user(result.warning, UserWarning)
        if result.parts is not None:
            with spent_on("blending"):
                device.backend.add(sums, [job.place for job in batch], result.parts)
            return
        device.backend.release()
        self._crowded |= len(batch) == 1
        half = -(-len(batch) // 2)
        for part in (batch[:half], batch[half:]) if half < len(batch) else (batch,):
            self._settle(device, sums, part, self._infer(device, part, tta, sums.shape[1], alone=True), tta)

    def _filled(self, pixels: Float) -> Float:
        return pixels if self._imputer is None else self._imputer(pixels)

    def _batches(self, jobs: Iterable[WindowJob], size: int) -> Iterator[list[WindowJob]]:
        source = iter(jobs)
        while True:
            with spent_on("pixels"):
                batch = list(itertools.islice(source, min(size, self._fits or size)))
            if not batch:
                return
            yield batch

    def _infer(
        self, device: DeviceQueue, jobs: Sequence[WindowJob], tta: int, channels: int, *, alone: bool = False
    ) -> InferenceResult:
        """Return what the windows add to the sums; no parts if that takes more memory than there is.

        `_settle` tries again, not this function: when it has returned, the memory of the failed attempt is
        free.
        """
        backend = device.backend
        alone = alone or self._crowded or device.threads is None
        try:
            with spent_on("pixels"):
                pixels = backend.upload([self._filled(job.pixels) for job in jobs])
                weights = backend.upload([job.shares for job in jobs])
            with device.slots.take(alone=alone), spent_on("network", lambda: backend.mark()()):
                probabilities = self._augmented(backend, pixels, tta, channels)
            warning = self._check_first(backend, probabilities, jobs)
            with spent_on("blending"):
                return InferenceResult(backend.weigh(probabilities, weights), warning)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            if len(jobs) == 1 and alone:
                patch = jobs[0].pixels.shape[-1]
                raise OutOfMemoryError(
                    f"one window of {patch} x {patch} does not fit in the memory of {backend.kind}; "
                    "use a smaller patch_size, or device='cpu'"
                ) from error
            self._fits = min(-(-len(jobs) // 2), self._fits or len(jobs))
            todo = "halved" if len(jobs) > 1 else "inferred alone"
            log.warning("out of memory on %s: batch of %d %s", backend.kind, len(jobs), todo)
            return InferenceResult(None, None)

    def _probabilities(self, backend: Backend, pixels: Any) -> Any:
        probabilities = backend.probabilities(pixels)
        check_shape(probabilities, pixels, self.spec, backend.network.activation)
        return probabilities

    def _augmented(self, backend: Backend, pixels: Any, tta: int, channels: int) -> Any:
        """Mean over the first `tta` turns and mirrors of the window, and their spread if it is asked for."""
        if tta <= 1:
            return self._probabilities(backend, pixels)[:, :channels]
        spread = channels > len(self.spec.classes) + self.spec.uncertainty
        total: Any = None
        clouds: list[Any] = []
        for axes, swap in TURNS[:tta]:
            turned = backend.flip(pixels, axes)
            answer = self._probabilities(backend, turned.swapaxes(2, 3) if swap else turned)
            answer = backend.flip(answer.swapaxes(2, 3) if swap else answer, axes)  # turned back
            total = answer if total is None else total + answer
            if spread:
                clouds.append(self._cloud(answer))
        if not spread:
            return total[:, :channels] / tta
        middle = sum(clouds) / tta
        variance = sum((cloud - middle) ** 2 for cloud in clouds) / tta
        return backend.join([total / tta, variance**0.5])

    def _cloud(self, probabilities: Any) -> Any:
        """Return the probability of cloud, of whatever kind, as one channel."""
        cloudy = [channel for channel, name in enumerate(self.spec.classes) if name in CLOUDY]
        return sum(probabilities[:, channel : channel + 1] for channel in cloudy)

    def _check_first(self, backend: Backend, probabilities: Any, jobs: Sequence[WindowJob]) -> str | None:
        """Return what is odd about the very first probabilities, None if nothing is."""
        with self._choosing:
            first, self._checked = not self._checked, True
        if not first:
            return None
        weights = np.stack([job.shares for job in jobs])
        classes = backend.fetch(probabilities)[:, : len(self.spec.classes)]
        return find_anomaly(classes, weights, self.spec, backend.network.activation)


def network_of(spec: ModelSpec, device: str) -> Network:
    """Return the network of a model for a device; what torch runs is loaded once in a process.

    A graph has no second use: what runs it, which is kept, takes its bytes over.
    """

    def load() -> Network:
        devices.settle_threads(spec.runtime)
        network = load_network(spec)
        log.info("loaded model %s %s for %s", spec.name, spec.version, device)
        return network

    return load() if spec.runtime == "onnx" else _networks.get_or_create((spec, device), load)


def _loaded(spec: ModelSpec, device: str, dtype: str, inputs: tuple[Band, ...]) -> Backend:
    """Return a model on a device; its weights are read if no predictor has had them read yet."""
    dtype = "auto" if spec.runtime == "onnx" else dtype  # a graph runs in the one it was exported in

    def make() -> Backend:
        network = network_of(spec, device)
        bound = [
            _bind_to_bands(_skip_aux_normalisation(each, spec, inputs), inputs)
            for each in network.members or (network,)
        ]
        network = replace(network, members=tuple(bound)) if network.members else bound[0]
        return make_backend(network, spec.runtime, device, dtype)

    return _backends.get_or_create((spec, device, dtype, inputs), make)


def make_backend(network: Network, runtime: str, device: str, dtype: str) -> Backend:
    """Put a network on a device."""
    if network.members:
        from xcloudmask.engine.ensemble import EnsembleBackend

        runtimes = ["onnx" if isinstance(each.body, bytes) else "torch" for each in network.members]
        pairs = zip(network.members, runtimes, strict=True)
        members = [make_backend(each, its, device, "auto" if its == "onnx" else dtype) for each, its in pairs]
        return cast("Backend", EnsembleBackend(network, members))
    if device.startswith("openvino"):
        from xcloudmask.engine.openvino import OpenVinoBackend

        return OpenVinoBackend(network, device)
    if runtime == "onnx":
        from xcloudmask.engine.onnx import OnnxBackend

        return OnnxBackend(network, device)
    from xcloudmask.engine.torch import TorchBackend

    return TorchBackend(network, device, dtype)


def _skip_aux_normalisation(network: Network, spec: ModelSpec, inputs: tuple[Band, ...]) -> Network:
    """Return the network with a normalisation that leaves aux channels alone: they come normalised."""
    extra = sum(band.kind != "reflectance" for band in inputs) if spec.any_bands else len(spec.aux)
    if not extra or (network.mean is None and network.std is None):
        return network
    bands = len(inputs) - extra if spec.any_bands else len(spec.bands)
    mean, std = network.mean or (0.0,), network.std or (1.0,)
    mean, std = (each * bands if len(each) == 1 else each for each in (mean, std))
    return replace(network, mean=mean + (0.0,) * extra, std=std + (1.0,) * extra)


def _bind_to_bands(network: Network, inputs: tuple[Band, ...]) -> Network:
    """Bind a network that takes any bands to those of a scene; others know theirs by their place."""
    if not inputs:
        return network
    from xcloudmask.models.arch.descriptors import BandInput
    from xcloudmask.models.arch.setnet import Bound

    return replace(network, body=Bound(network.body, [BandInput.from_band(band) for band in inputs]))


_predictors: dict[tuple[ModelSpec, str, str, tuple[Band, ...]], Predictor] = {}
_predictors_lock = threading.Lock()


def get_predictor(
    spec: ModelSpec, device: str = "auto", dtype: str = "auto", inputs: tuple[Band, ...] = ()
) -> Predictor:
    """Return this process's `Predictor` for a model; the same one every time.

    `inputs` are the bands that a model is given where its card does not name them: a model for any bands, or
    one that estimates those that are missing.
    """
    key = (spec, device, dtype, inputs)
    with _predictors_lock:
        if key not in _predictors:
            _predictors[key] = Predictor(spec, device, dtype, inputs)
        return _predictors[key]


def unload() -> None:
    """Forget every loaded model of this process, and give their memory back, that of GPUs included.

    What a running computation uses is freed when that ends. The next prediction loads again.

    Examples
    --------
    >>> from xcloudmask.testing import TOY
    >>> predictor = get_predictor(TOY, "cpu")
    >>> unload()
    >>> get_predictor(TOY, "cpu") is predictor
    False
    """
    with _predictors_lock:
        _predictors.clear()
    _backends.clear()
    _networks.clear()
    gc.collect()  # modules may hold each other
    give_back()


#: What the parent of a forked process had loaded. Threads do not survive a fork: to use these, or to destroy
#: them, would wait for threads that do not exist here. So they are kept, and not used.
_inherited: list[object] = []


def _after_fork() -> None:
    """Forget what was loaded, and make new locks: what a thread of the parent held is never released here."""
    global _predictors_lock
    loaded = [cache.reset_after_fork() for cache in (_networks, _backends, device_slots, thread_pools)]
    _inherited.append((loaded, dict(_predictors)))
    _predictors.clear()
    _predictors_lock = threading.Lock()
    if loaded[0] or loaded[1]:
        devices.forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
