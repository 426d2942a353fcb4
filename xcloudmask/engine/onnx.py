"""Networks that onnxruntime runs: it takes and gives host arrays, so the sums are NumPy's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from xcloudmask.engine.arrays import Float
from xcloudmask.engine.backend import Place, no_wait
from xcloudmask.engine.blend import quantise
from xcloudmask.engine.devices import cpu_lanes, cpu_threads
from xcloudmask.engine.malloc import trim
from xcloudmask.errors import CloudMaskError, Remedy, Use
from xcloudmask.models.network import Network


class OnnxBackend:
    """onnxruntime, on the CPU or a CUDA device; it takes and gives host arrays, so the sums are NumPy's."""

    def __init__(self, network: Network, device: str) -> None:
        self.kind, _, self.index = device.partition(":")
        self.lanes = 1
        self.open(network.body)
        # The bytes are the session's now, and to open it leaves as much again as freed blocks in the heap.
        self.network = network = replace(network, body=None)
        trim()
        self.mean = np.asarray(network.mean or 0.0, np.float32).reshape(1, -1, 1, 1)
        self.std = np.asarray(network.std or 1.0, np.float32).reshape(1, -1, 1, 1)

    def open(self, body: bytes) -> None:
        """Make a graph ready for `run`."""
        import onnxruntime as ort

        if self.kind == "cpu":
            self.lanes = cpu_lanes()
        options = ort.SessionOptions()
        options.intra_op_num_threads = max(1, cpu_threads() // self.lanes)
        options.inter_op_num_threads = 1
        # Idle threads must sleep, not spin: other Dask threads read and write meanwhile.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        providers: list[Any] = ["CPUExecutionProvider"]
        if self.kind == "cuda":
            if "CUDAExecutionProvider" not in ort.get_available_providers():
                raise CloudMaskError(
                    ": the installed onnxruntime has no CUDA;",
                    Remedy("install onnxruntime-gpu, or use {}", Use(device="cpu")),
                    option=Use(device="cuda"),
                )
            providers.insert(0, ("CUDAExecutionProvider", {"device_id": int(self.index or 0)}))
        self.session = ort.InferenceSession(body, sess_options=options, providers=providers)
        if self.kind == "cpu":  # kept to open the graph again elsewhere if a device fails: here there is none
            self.session._model_bytes = None
        self.input = self.session.get_inputs()[0].name

    def run(self, pixels: Float) -> Float:
        """Run the graph on normalised pixels."""
        out: Float = self.session.run(None, {self.input: pixels})[0]
        return out

    def zeros(self, shape: tuple[int, ...]) -> Float:
        """See `Backend`."""
        return np.zeros(shape, np.float32)

    def upload(self, arrays: Sequence[Float]) -> Float:
        """See `Backend`."""
        return np.stack(arrays) if len(arrays) > 1 else arrays[0][None]

    def probabilities(self, pixels: Float) -> Float:
        """See `Backend`."""
        pixels = np.subtract(pixels, self.mean, order="C")
        pixels /= self.std
        out = self.run(pixels)
        if self.network.activation == "softmax":
            return softmax(out)
        if self.network.activation == "sigmoid":
            out = np.reciprocal(1 + np.exp(-out), dtype=np.float32)
        if self.network.activation in ("sigmoid", "complement"):
            return np.concatenate([1 - out[:, :1], out], axis=1)
        return out

    def flip(self, array: Float, axes: tuple[int, ...]) -> Float:
        """See `Backend`."""
        return np.ascontiguousarray(np.flip(array, axes))

    def join(self, arrays: Sequence[Float]) -> Float:
        """See `Backend`."""
        return np.concatenate(arrays, axis=1)

    def weigh(self, probabilities: Float, weights: Float) -> Float:
        """See `Backend`."""
        weights = weights[:, None]
        rows, cols = weights.shape[-2:]
        parts: Float = probabilities[..., :rows, :cols] * weights
        if not weights.all():
            np.copyto(parts, np.float32(0), where=weights == 0)
        return quantise(parts)

    def add(self, sums: Float, places: Sequence[Place], parts: Float) -> None:
        """See `Backend`."""
        for place, part in zip(places, parts, strict=True):
            sums[place] += part

    def mark(self) -> Callable[[], object]:
        """See `Backend`."""
        return no_wait

    def fetch(self, sums: Float) -> Float:
        """See `Backend`."""
        return sums

    def release(self) -> None:
        """See `Backend`."""


def softmax(logits: Float) -> Float:
    """Softmax over the class axis of (n, class, y, x).

    Examples
    --------
    >>> softmax(np.zeros((1, 2, 1, 1), np.float32)).ravel().tolist()
    [0.5, 0.5]
    """
    logits = logits - logits.max(axis=1, keepdims=True)
    np.exp(logits, out=logits)
    logits /= logits.sum(axis=1, keepdims=True)
    return logits
