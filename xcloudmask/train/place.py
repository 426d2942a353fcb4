"""Where a training runs, in how many processes, and whether twice the same."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager

import torch
from torch import nn


def device_of(name: str) -> torch.device:
    """Return the device that a setting names: with ``"auto"`` a GPU, this process's own under torchrun.

    Examples
    --------
    >>> device_of("cpu").type
    'cpu'
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and "LOCAL_RANK" in os.environ:
        name = f"cuda:{os.environ['LOCAL_RANK']}"
    return torch.device(name)


@contextlib.contextmanager
def repeatable(deterministic: bool) -> Iterator[None]:
    """Switch torch to operations that give the same each time, and back."""
    before, benchmark = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
        torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
        torch.backends.cudnn.benchmark = benchmark


def processes(network: nn.Module, device: torch.device) -> AbstractContextManager[nn.Module]:
    """Return the network, wrapped to average gradients over processes where torchrun started several."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return contextlib.nullcontext(network)
    return _joined(network, device)


@contextlib.contextmanager
def _joined(network: nn.Module, device: torch.device) -> Iterator[nn.Module]:
    from torch import distributed
    from torch.nn.parallel import DistributedDataParallel

    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    wrapped = None
    try:
        ids = [device.index] if device.type == "cuda" else None
        wrapped = DistributedDataParallel(network, device_ids=ids)
        yield wrapped
        distributed.barrier()
    finally:
        # The reducer must not be the last to hold the group: freed by the interpreter, which holds its lock
        # then, the group would wait for a thread of its own that waits for that lock.
        for name in ("logger", "reducer") if wrapped is not None else ():
            vars(wrapped).pop(name, None)
        distributed.destroy_process_group()
