"""Networks that torch runs, on any device; the sums stay there until a task is done."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from xcloudmask.engine.arrays import Float
from xcloudmask.engine.backend import Place, no_wait
from xcloudmask.engine.blend import GRID
from xcloudmask.engine.devices import cpu_lanes, cpu_threads, give_back
from xcloudmask.errors import CloudMaskError
from xcloudmask.models.network import Network


def autocast_dtype(network: Network, device: str, dtype: str) -> Any:
    """Return the dtype to compute in, or None for float32.

    Examples
    --------
    >>> network = Network(half="float16")
    >>> autocast_dtype(network, "cpu", "auto"), autocast_dtype(network, "cpu", "bfloat16")
    (None, torch.bfloat16)
    """
    import torch

    if dtype == "auto":
        if network.half is None or not device.startswith("cuda"):
            return None
        major, _ = torch.cuda.get_device_capability(device)
        dtype = network.half if major >= (8 if network.half == "bfloat16" else 7) else "float32"
    return None if dtype == "float32" else getattr(torch, dtype)


class TorchBackend:
    """torch on any device; the sums stay there until a task is done.

    On CUDA, batches travel from pinned memory on a stream of their own, and results come back on another, so
    that both are copied while what comes next is computed. All computing is on the device's default stream,
    in the order it was asked for.
    """

    def __init__(self, network: Network, device: str, dtype: str) -> None:
        import torch

        self.torch = torch
        self.device = torch.device(device)
        self.kind = self.device.type
        self.uploads: Any = None
        self.downloads: Any = None
        if self.kind == "cuda":
            self.uploads = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
            self.downloads = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
        on_cpu = self.kind == "cpu"
        self.lanes = cpu_lanes() if on_cpu and network.parallel else 1
        self.threads = max(1, cpu_threads() // self.lanes) if on_cpu else None
        self.network = network
        self.module = network.body.to(self.device).eval().requires_grad_(False)
        self.autocast = autocast_dtype(network, device, dtype)
        self.mean = torch.tensor(network.mean or (0.0,), device=self.device).reshape(1, -1, 1, 1)
        self.std = torch.tensor(network.std or (1.0,), device=self.device).reshape(1, -1, 1, 1)

    def zeros(self, shape: tuple[int, ...]) -> Any:
        """See `Backend`."""
        with self.torch.inference_mode():
            return self.torch.zeros(shape, device=self.device)

    def upload(self, arrays: Sequence[Float]) -> Any:
        """See `Backend`."""
        torch = self.torch
        with torch.inference_mode():
            shape = (len(arrays), *arrays[0].shape)
            host = torch.empty(shape, dtype=torch.float32, pin_memory=self.uploads is not None)
            np.stack(arrays, out=host.numpy())
            if self.uploads is None:
                return host.to(self.device)
            with torch.cuda.stream(self.uploads):
                copied = host.to(self.device, non_blocking=True)
            computing = torch.cuda.current_stream(self.device)
            computing.wait_stream(self.uploads)
            copied.record_stream(computing)  # its memory is not used again before the computing is done
            return copied

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
                return torch.cat([1 - out[:, :1], out], dim=1)
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
            return no_wait
        event = self.torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record(self.torch.cuda.current_stream(self.device))
        wait: Callable[[], object] = event.synchronize
        return wait

    def fetch(self, sums: Any) -> Float:
        """See `Backend`."""
        torch = self.torch
        with torch.inference_mode():
            if self.downloads is None:
                out: Float = sums.cpu().numpy()
                return out
            self.downloads.wait_stream(torch.cuda.current_stream(self.device))
            with torch.cuda.stream(self.downloads):  # waits for this copy, not for what was asked for since
                out = sums.cpu().numpy()
        return out

    def release(self) -> None:
        """See `Backend`."""
        give_back()
