"""The formats of weights, known by the end of their name; each is checked before it is parsed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Literal
from urllib.parse import urlsplit

from xcloudmask.errors import OptionError, WeightsError
from xcloudmask.models.weights import safety

Form = Literal["safetensors", "onnx", "pt2"]

_FORMS: Mapping[str, Form] = {".safetensors": "safetensors", ".onnx": "onnx", ".pt2": "pt2"}
_PICKLES = (".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".bin", ".joblib", ".tar", ".npy", ".npz")


def form_of(href: str) -> Form:
    """Return the form of weights by the end of their name; pickles are refused.

    Examples
    --------
    >>> form_of("https://example.com/net.onnx?download=true")
    'onnx'
    """
    end = PurePosixPath(urlsplit(href).path).suffix.lower()
    if end in _PICKLES:
        raise WeightsError(
            f"{href} is a Python pickle by its name ({end}), and loading one runs what its author wrote; "
            f"{safety.CONVERT}"
        )
    if end not in _FORMS:
        raise OptionError("form of weights", end or href, allowed=(*_FORMS, ".json (a STAC item)"))
    return _FORMS[end]


def vetted(data: bytes, form: Form, origin: str) -> bytes:
    """Return weights that are safe to parse, or raise."""
    if form == "pt2":
        from xcloudmask.models.weights.safety_pt2 import pt2

        return pt2(data, origin)
    return safety.onnx(data, origin) if form == "onnx" else safety.safetensors(data, origin)
