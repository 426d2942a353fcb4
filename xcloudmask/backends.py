"""Backends: a loaded network on one device, and the arithmetic around it.

The engine says what happens in which order; a backend does it with onnxruntime and NumPy, or with torch.
Nothing here knows of batches, locks or memory running out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from xcloudmask.blend import GRID, Float, quantise
from xcloudmask.errors import CloudMaskError
from xcloudmask.machine import cpu_lanes, cpu_threads, give_back
from xcloudmask.models.network import Network

#: Where a window's cells lie in the sums: scene, classes, rows, columns.
Place = tuple[int, slice, slice, slice]


class Backend(Protocol):
    """A loaded network on one device. Arrays typed `Any` live on that device."""

    kind: str
    network: Network
    #: How many threads may ask for probabilities at the same time.
    lanes: int

    def zeros(self, shape: tuple[int, ...]) -> Any:
        """Return sums to add to."""

    def upload(self, arrays: Sequence[Float]) -> Any:
        """Stack host arrays and copy them to the device, without waiting where that can be done."""

    def probabilities(self, pixels: Any) -> Any:
        """(n, band, y, x) to (n, class, y, x)."""

    def flip(self, array: Any, axes: tuple[int, ...]) -> Any:
        """Reverse axes."""

    def join(self, arrays: Sequence[Any]) -> Any:
        """Put channels of (n, channel, y, x) behind one another."""

    def weigh(self, probabilities: Any, weights: Any) -> Any:
        """Return what (n, class, y, x) add to the sums; nothing, not even NaN, where a weight is zero."""

    def add(self, sums: Any, places: Sequence[Place], parts: Any) -> None:
        """Add each part in its place; takes no memory, so that it cannot fail halfway."""

    def mark(self) -> Callable[[], object]:
        """Return a function that waits until all that was asked of the device so far is done."""

    def fetch(self, sums: Any) -> Float:
        """Bring sums to the host."""

    def release(self) -> None:
        """Give memory that is kept for later back to the device."""


def make_backend(network: Network, runtime: str, device: str, dtype: str) -> Backend:
    """Put a network on a device."""
    if device.startswith("openvino") and not network.members:
        from xcloudmask.openvino_backend import OpenVinoBackend

        return OpenVinoBackend(network, device)
    if runtime == "onnx":
        return TeamBackend(network, device) if network.members else OnnxBackend(network, device)
    return TorchBackend(network, device, dtype)


class OnnxBackend:
    """onnxruntime, on the CPU or a CUDA device; it takes and gives host arrays, so the sums are NumPy's."""

    def __init__(self, network: Network, device: str) -> None:
        self.kind, _, self.index = device.partition(":")
        self.network = network
        self.lanes = 1
        self.open(network.body)
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
                    "device='cuda': the installed onnxruntime has no CUDA; install onnxruntime-gpu, or use "
                    "device='cpu'"
                )
            providers.insert(0, ("CUDAExecutionProvider", {"device_id": int(self.index or 0)}))
        self.session = ort.InferenceSession(body, sess_options=options, providers=providers)
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
        return np.stack(arrays)

    def probabilities(self, pixels: Float) -> Float:
        """See `Backend`."""
        out = self.run((pixels - self.mean) / self.std)
        if self.network.activation == "softmax":
            return softmax(out)
        if self.network.activation == "sigmoid":
            out = np.reciprocal(1 + np.exp(-out), dtype=np.float32)
        if self.network.activation in ("sigmoid", "complement"):
            return np.concatenate([1 - out, out], axis=1)
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
        probabilities = probabilities[..., :rows, :cols]
        parts = np.zeros(probabilities.shape, np.float32)
        return quantise(np.multiply(probabilities, weights, out=parts, where=weights > 0))

    def add(self, sums: Float, places: Sequence[Place], parts: Float) -> None:
        """See `Backend`."""
        for place, part in zip(places, parts, strict=True):
            sums[place] += part

    def mark(self) -> Callable[[], object]:
        """See `Backend`."""
        return _nothing

    def fetch(self, sums: Float) -> Float:
        """See `Backend`."""
        return sums

    def release(self) -> None:
        """See `Backend`."""


class TeamBackend(OnnxBackend):
    """Several ONNX graphs, one after the other, for the mean of what they say."""

    def __init__(self, network: Network, device: str) -> None:
        self.kind, _, self.index = device.partition(":")
        self.network = network
        members = [make_backend(member, "onnx", device, "auto") for member in network.members]
        self.members, self.lanes = members, min(member.lanes for member in members)

    def probabilities(self, pixels: Float) -> Float:
        """See `Backend`."""
        said = [one.probabilities(pixels[:, : len(one.network.mean or ())]) for one in self.members]
        shares = self.network.shares or (1.0,) * len(said)
        parts = [one * np.float32(share / sum(shares)) for one, share in zip(said, shares, strict=True)]
        mean: Float = sum(parts[1:], parts[0])
        return mean


class TorchBackend:
    """torch on any device; the sums stay there until a task is done.

    On CUDA, batches travel from pinned memory on a stream of their own, so that one is copied while the
    one before it is computed. All computing is on the device's default stream, in the order it was asked for.
    """

    def __init__(self, network: Network, device: str, dtype: str) -> None:
        import torch

        self.torch = torch
        self.lanes = 1  # a module may keep things between calls
        self.device = torch.device(device)
        self.kind = self.device.type
        self.copies: Any = None
        if self.kind == "cuda":
            self.copies = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
        self.threads = cpu_threads() if self.kind == "cpu" else None
        self.network = network
        self.module = network.body.to(self.device).eval().requires_grad_(False)
        self.autocast = self._autocast_dtype(dtype)
        self.mean = torch.tensor(network.mean or (0.0,), device=self.device).reshape(1, -1, 1, 1)
        self.std = torch.tensor(network.std or (1.0,), device=self.device).reshape(1, -1, 1, 1)

    def _autocast_dtype(self, dtype: str) -> Any:
        """Return the dtype to compute in, or None for fp32."""
        torch = self.torch
        if dtype == "auto":
            if self.kind != "cuda":
                return None
            major, _ = torch.cuda.get_device_capability(self.device)
            return torch.bfloat16 if major >= 8 else torch.float16 if major >= 7 else None
        return None if dtype == "float32" else getattr(torch, dtype)

    def zeros(self, shape: tuple[int, ...]) -> Any:
        """See `Backend`."""
        with self.torch.inference_mode():
            return self.torch.zeros(shape, device=self.device)

    def upload(self, arrays: Sequence[Float]) -> Any:
        """See `Backend`."""
        torch = self.torch
        with torch.inference_mode():
            shape = (len(arrays), *arrays[0].shape)
            host = torch.empty(shape, dtype=torch.float32, pin_memory=self.copies is not None)
            np.stack(arrays, out=host.numpy())
            if self.copies is None:
                return host.to(self.device)
            with torch.cuda.stream(self.copies):
                there = host.to(self.device, non_blocking=True)
            computing = torch.cuda.current_stream(self.device)
            computing.wait_stream(self.copies)
            there.record_stream(computing)  # its memory is not used again before the computing is done
            return there

    def probabilities(self, pixels: Any) -> Any:
        """See `Backend`."""
        torch = self.torch
        if self.threads is not None and torch.get_num_threads() != self.threads:
            # Each thread has a number of its own: those of Dask's pools keep the one they began with.
            torch.set_num_threads(self.threads)
        with torch.inference_mode():
            batch = (pixels - self.mean) / self.std
            with torch.autocast(self.kind, dtype=self.autocast, enabled=self.autocast is not None):
                out = self.module(batch)
            if not isinstance(out, torch.Tensor):
                raise CloudMaskError(
                    f"the network answers with a {type(out).__name__}, not with one tensor (n, class, y, x): "
                    "wrap it in a module that returns the tensor of classes"
                )
            out = out.float()  # the blend is fp32 whatever the network computes in
            if self.network.activation == "softmax":
                return torch.softmax(out, dim=1)
            if self.network.activation == "sigmoid":
                out = torch.sigmoid(out)
            if self.network.activation in ("sigmoid", "complement"):
                return torch.cat([1 - out, out], dim=1)
            return out

    def flip(self, array: Any, axes: tuple[int, ...]) -> Any:
        """See `Backend`."""
        with self.torch.inference_mode():
            return self.torch.flip(array, axes)

    def join(self, arrays: Sequence[Any]) -> Any:
        """See `Backend`."""
        with self.torch.inference_mode():
            return self.torch.cat(list(arrays), dim=1)

    def weigh(self, probabilities: Any, weights: Any) -> Any:
        """See `Backend`."""
        torch = self.torch
        with torch.inference_mode():
            weights = weights[:, None]
            parts = probabilities[..., : weights.shape[-2], : weights.shape[-1]] * weights
            parts = parts.masked_fill_(weights == 0, 0.0)
            return parts.mul_(float(GRID)).round_().div_(float(GRID))  # as blend.quantise

    def add(self, sums: Any, places: Sequence[Place], parts: Any) -> None:
        """See `Backend`."""
        with self.torch.inference_mode():
            for place, part in zip(places, parts, strict=True):
                sums[place] += part

    def mark(self) -> Callable[[], object]:
        """See `Backend`."""
        if self.kind != "cuda":
            return _nothing
        event = self.torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record(self.torch.cuda.current_stream(self.device))
        wait: Callable[[], object] = event.synchronize
        return wait

    def fetch(self, sums: Any) -> Float:
        """See `Backend`."""
        with self.torch.inference_mode():
            out: Float = sums.cpu().numpy()
        return out

    def release(self) -> None:
        """See `Backend`."""
        give_back()


def _nothing() -> None:
    """Wait for a device that is never behind."""


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
