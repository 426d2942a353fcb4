"""Tensors of what ``torch.save`` wrote: a state dict, or a checkpoint that holds one.

``torch.load(weights_only=True)`` builds tensors and plain containers and refuses everything else; a whole
module is read by `xcloudmask.models.weights.whole_module`, as inert.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from xcloudmask.errors import CloudMaskError, WeightsError

if TYPE_CHECKING:
    from torch import Tensor

#: Names under which training scripts keep the weights.
PLACES = ("state_dict", "model_state_dict", "model", "ema", "net", "network", "weights")
#: What an archive may unpack to: ``torch.save`` does not compress, so more is no file of its.
MAX_GROWTH, SMALL = 8, 64 * 2**20
#: Before it, weights_only could be got round (CVE-2025-32434).
SAFE_TORCH = (2, 6)


def tensors(data: bytes, origin: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors of a file by name, and no notes.

    Parameters
    ----------
    data : bytes
        What ``torch.save`` wrote.
    origin : str
        How messages call it.

    Examples
    --------
    >>> import torch
    >>> file = io.BytesIO()
    >>> torch.save({"state_dict": {"a": torch.ones(2)}}, file)
    >>> list(tensors(file.getvalue(), "a.pt")[0])
    ['a']
    """
    import torch

    if tuple(int(part) for part in torch.__version__.split(".")[:2]) < SAFE_TORCH:
        raise CloudMaskError(
            f"torch {torch.__version__} cannot read pickles safely: install torch 2.6 or newer"
        )
    if data[:2] == b"PK":
        _check_archive(data, origin)
    try:
        content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:
        if data[:2] == b"PK":
            from xcloudmask.models.weights import whole_module

            return whole_module.tensors(data, origin)
        raise WeightsError(
            f"{origin} holds more than tensors and plain values, and nothing else is built from it: "
            f"{str(error).splitlines()[0]}. Save the state dict alone, where the network was made: "
            "torch.save(model.state_dict(), FILE)"
        ) from error
    return _state(content, origin), {}


def _check_archive(data: bytes, origin: str) -> None:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = archive.infolist()
    except zipfile.BadZipFile as error:
        raise WeightsError(f"{origin} is damaged, or did not arrive whole: {error}") from error
    total = sum(entry.file_size for entry in entries)
    if total > max(SMALL, MAX_GROWTH * len(data)):
        raise WeightsError(f"{origin} unpacks to {total / 2**30:.1f} GB: refused (a zip bomb?)")
    if any("/code/" in entry.filename for entry in entries):
        raise WeightsError(
            f"{origin} is TorchScript, which is code: it has no tensors alone to take out. Export the "
            "network it came from as ONNX"
        )


def _state(content: Any, origin: str) -> dict[str, Tensor]:
    """Return the state dict in what was read."""
    import torch

    for _ in range(3):
        if isinstance(content, Mapping):
            state = {str(name): value for name, value in content.items() if isinstance(value, torch.Tensor)}
            if state:
                return state
        inner = [content[place] for place in PLACES if isinstance(content, Mapping) and place in content]
        if not inner:
            break
        content = inner[0]
    raise WeightsError(f"{origin} holds no state dict, neither itself nor as {', '.join(PLACES)}")
