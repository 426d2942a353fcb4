"""The formats of weights, known by the end of their name; each is checked before it is parsed."""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from xcloudmask.errors import OptionError, WeightsError
from xcloudmask.models.weights import safety

if TYPE_CHECKING:
    from torch import Tensor

Form = Literal["safetensors", "onnx", "pt2", "torch", "keras"]

FORMS: Mapping[str, Form] = {
    ".safetensors": "safetensors", ".onnx": "onnx", ".pt2": "pt2", ".h5": "keras", ".hdf5": "keras",
    **dict.fromkeys((".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".bin"), "torch"),
}  # fmt: skip
_UNREADABLE = (".joblib", ".tar", ".npy", ".npz")


def form_of(href: str) -> Form:
    """Return the form of weights by the end of their name.

    Examples
    --------
    >>> form_of("https://example.com/net.onnx?download=true")
    'onnx'
    """
    end = PurePosixPath(urlsplit(href).path).suffix.lower()
    if end in _UNREADABLE:
        raise WeightsError(
            f"{href} may hold pickles by its name ({end}), and loading one runs what its author wrote; "
            "save the state dict where the network was made: torch.save(model.state_dict(), 'weights.pt')"
        )
    if end not in FORMS:
        raise OptionError("form of weights", end or href, allowed=(*FORMS, ".json (a STAC item)"))
    return FORMS[end]


def vetted(data: bytes, form: Form, origin: str) -> bytes:
    """Return weights that are safe to parse, or raise; what `tensors` reads is vetted as it is read."""
    if form == "pt2":
        from xcloudmask.models.weights.safety_pt2 import pt2

        return pt2(data, origin)
    checks = {"onnx": safety.onnx, "safetensors": safety.safetensors}
    return checks[form](data, origin) if form in checks else data


def tensors(data: bytes, form: Form, origin: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors in a file, and what it says beside them; nothing of the file is run."""
    if form == "safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load

        try:
            return load(safety.safetensors(data, origin)), {}
        except SafetensorError as error:
            raise WeightsError(f"{origin} is damaged: {error}") from error
    read = importlib.import_module(f"xcloudmask.models.weights.{_READERS[form]}").tensors
    result: tuple[dict[str, Tensor], dict[str, Any]] = read(data, origin)
    return result


def packed(state: Mapping[str, Tensor], architecture: str, config: Mapping[str, Any]) -> bytes:
    """Return tensors as a safetensors file with a note on their network; equal ones give equal bytes."""
    from safetensors.torch import save

    # one note: safetensors writes several in an order of its own
    note = json.dumps({"architecture": architecture, "config": dict(config)}, sort_keys=True)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    return save(tensors, {"network": note})


#: The module that reads the tensors of a form.
_READERS: Mapping[str, str] = {"torch": "torch_save", "keras": "keras"}
