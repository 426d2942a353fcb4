"""What a loader returns: the network and the arithmetic around it, with no word on devices."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, Literal

from xcloudmask.errors import WeightsError
from xcloudmask.types import ModelSpec


@dataclass(frozen=True, slots=True)
class Network:
    """A loaded network.

    Parameters
    ----------
    body : bytes or torch.nn.Module
        A serialised ONNX graph, or a module; either maps (n, bands, y, x) to (n, classes, y, x).
    mean, std : tuple of float or None
        Normalisation of each band, ``(reflectance - mean) / std``, done before the network.
    activation : {"softmax", "sigmoid", None}
        Turns its output into probabilities. ``"sigmoid"`` is for one channel that tells cloud: it becomes
        the two classes not cloud, cloud.
    """

    body: Any
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    activation: Literal["softmax", "sigmoid"] | None = "softmax"


def checked_bytes(data: bytes, spec: ModelSpec, origin: str) -> bytes:
    """Return `data` if its SHA-256 is the one that `spec` names."""
    found = hashlib.sha256(data).hexdigest()
    if found != spec.sha256:
        raise WeightsError(
            f"the weights of model {spec.name!r} ({origin}) have SHA-256 {found}, expected {spec.sha256}: "
            "the file was altered or is another version; reinstall the package that carries it"
        )
    return data
