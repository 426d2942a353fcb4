"""A user's own module or function as bytes, the same bytes whenever it is the same.

Pickled by itself, a tensor's bytes hold where in memory it lay. So tensors are taken out, brought to the CPU
and kept beside what is left, which cloudpickle writes. Only what the user registered in this session, and
what a cluster's client sent, is ever read back.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from typing import Any

import cloudpickle  # type: ignore[import-untyped]
import torch


class _Pickler(cloudpickle.CloudPickler):  # type: ignore[misc]
    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file)
        self.tensors: dict[str, torch.Tensor] = {}
        self.names: dict[int, str] = {}
        self.alive: list[torch.Tensor] = []  # so that no other tensor gets the identity of one

    def persistent_id(self, thing: object) -> tuple[str, bool] | None:
        """Return how a tensor is called, and None for anything else."""
        if not isinstance(thing, torch.Tensor):
            return None
        if id(thing) not in self.names:
            name = self.names[id(thing)] = f"{len(self.names):06}"
            self.tensors[name] = thing.detach().cpu().clone().contiguous()
            self.alive.append(thing)
        return self.names[id(thing)], isinstance(thing, torch.nn.Parameter)


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, tensors: dict[str, torch.Tensor]) -> None:
        super().__init__(file)
        self.tensors = tensors

    def persistent_load(self, pid: tuple[str, bool]) -> torch.Tensor:
        """Return the tensor of a name; a parameter is the same object wherever it occurs."""
        name, parameter = pid
        if parameter and not isinstance(self.tensors[name], torch.nn.Parameter):
            self.tensors[name] = torch.nn.Parameter(self.tensors[name], requires_grad=False)
        return self.tensors[name]


def dumps(model: Callable[..., Any]) -> bytes:
    """Return a module or function as bytes.

    Examples
    --------
    >>> net = torch.nn.Conv2d(1, 1, 1)
    >>> dumps(net) == dumps(net)
    True
    """
    from safetensors.torch import save

    file = io.BytesIO()
    pickler = _Pickler(file)
    pickler.dump(model)
    return pickle.dumps((file.getvalue(), save(pickler.tensors)))


def loads(data: bytes) -> Any:
    """Return the module or function that `dumps` wrote; anew each time.

    Examples
    --------
    >>> net = torch.nn.Conv2d(1, 1, 1)
    >>> torch.equal(loads(dumps(net)).weight, net.weight)
    True
    """
    from safetensors.torch import load

    rest, tensors = pickle.loads(data)
    return _Unpickler(io.BytesIO(rest), load(tensors)).load()
