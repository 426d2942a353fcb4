"""What a training needs to go on as if nothing had happened; a kill leaves the last checkpoint whole.

Weights are safetensors. The optimiser's state, counters and random states are a torch file that is read
with ``weights_only=True``: tensors, numbers and strings, no code.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from xcloudmask.errors import WeightsError

STATE = "state.pt"


def write_weights(
    path: Path, weights: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Write weights as safetensors, in one order, so that equal weights give equal bytes.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp(), "a.safetensors")
    >>> write_weights(path, {"b": torch.ones(2), "a": torch.zeros(1)})
    >>> sorted(read_weights(path))
    ['a', 'b']
    """
    from safetensors.torch import save

    tensors = {name: weights[name].detach().cpu().contiguous() for name in sorted(weights)}
    _replace(path, save(tensors, dict(metadata) if metadata else None))


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read weights."""
    from safetensors.torch import load

    return load(path.read_bytes())


def write_state(folder: Path, state: Mapping[str, Any]) -> None:
    """Write the state of a training: nested dicts and lists of tensors, numbers and strings."""
    import io

    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    _replace(folder / STATE, buffer.getvalue())


def read_state(folder: Path) -> dict[str, Any] | None:
    """Return the state of a training that was interrupted in `folder`, or None if there is none."""
    path = folder / STATE
    if not path.exists():
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise WeightsError(
            f"{path} cannot be resumed from ({error}); remove it to train from the beginning"
        ) from error
    return state


def _replace(path: Path, data: bytes) -> None:
    part = path.with_name(path.name + f".{os.getpid()}")
    with part.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
