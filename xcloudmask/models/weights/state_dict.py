"""Tensors of what ``torch.save`` wrote: a state dict, or a checkpoint that holds one.

``torch.load(weights_only=True)`` builds tensors and plain containers and refuses everything else; a whole
module is read by `xcloudmask.models.weights.whole_module`, which builds nothing.
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
#: Before it, weights_only could be got round (CVE-2025-32434).
SAFE_TORCH = (2, 6)


def tensors(data: bytes, origin: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors of a file by name, and the classes that a module in it names.

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
    from xcloudmask.models.weights.whole_module import archive_entries
    from xcloudmask.models.weights.whole_module import tensors as module_tensors

    if data[:2] == b"PK":
        try:
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                archive_entries(archive, origin)
        except zipfile.BadZipFile as error:
            raise WeightsError(f"{origin} is damaged, or did not arrive whole: {error}") from error
    try:
        content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception:  # there is more in it than tensors and plain values
        return module_tensors(data, origin)
    return _state(content, origin), {}


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
