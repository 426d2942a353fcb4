"""What a training needs to be resumed as if nothing had happened; a kill leaves the last checkpoint whole.

Weights are safetensors. The optimiser's state, counters and random states are a torch file that is read
with ``weights_only=True``: tensors, numbers and strings, no code.
"""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from xcloudmask.errors import CloudMaskError, WeightsError
from xcloudmask.models.weights.atomic import replace_file

STATE = "state.pt"


def write_weights(path: Path, weights: Mapping[str, Tensor]) -> None:
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
    replace_file(path, save(tensors))


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read weights."""
    from safetensors.torch import load

    return load(path.read_bytes())


def write_state(folder: Path, state: Mapping[str, Any]) -> None:
    """Write the state of a training: nested dicts and lists of tensors, numbers and strings."""
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    replace_file(folder / STATE, buffer.getvalue())


def read_state(folder: Path) -> dict[str, Any] | None:
    """Return the state of a training that was interrupted in `folder`, or None if there is none."""
    path = folder / STATE
    if not path.exists():
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # not quoted: torch advises to read it in a way that runs code
        raise unusable(folder) from error
    if not isinstance(state, dict):
        raise unusable(folder)
    return state


def unusable(folder: Path) -> WeightsError:
    """Return the error of a state that no training can be resumed from."""
    return WeightsError(
        f"{folder / STATE} is not the state of a training, or is damaged: remove it to train anew"
    )


@contextlib.contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Hold a folder for one training alone, and clear away what a killed one left half-written there.

    The system lets go of it when the process ends, however it ends. Without locks (Windows) nothing is held.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> with claimed(folder), claimed(folder):
    ...     pass
    Traceback (most recent call last):
    ...
    xcloudmask.errors.CloudMaskError: ...another training writes there now; wait for it, or take another...
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise CloudMaskError(
                f"{folder}: another training writes there now; wait for it, or take another folder"
            ) from None
        for part in folder.glob("*.part"):
            part.unlink()
        yield
    finally:
        os.close(handle)
