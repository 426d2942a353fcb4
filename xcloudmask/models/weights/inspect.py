"""What a vetted file says of its own input and output, read without the library that runs it."""

from __future__ import annotations

import io
import json
import math
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from xcloudmask.errors import WeightsError
from xcloudmask.models import arch
from xcloudmask.models.weights.safety import fields

#: (windows, bands or classes, rows, columns); None where any number will do.
Shape = tuple[int | None, ...]


@dataclass(frozen=True, slots=True)
class Shapes:
    """Shapes of a network's one input and its output, None where the file does not tell."""

    input: Shape | None = None
    output: Shape | None = None

    def check(
        self,
        bands: int | None,
        classes: int,
        activation: str | None,
        origin: str,
        *,
        uncertainty: bool = False,
    ) -> None:
        """Compare with what the caller says; None for `bands` if any number is taken."""
        for what, shape in (("input", self.input), ("output", self.output)):
            if shape is not None and len(shape) != 4:
                raise WeightsError(
                    f"{origin}: its {what} has {len(shape)} dimensions, not (window, channel, row, column): "
                    "it does not map images to images"
                )
        outputs = (1 if activation in ("sigmoid", "complement") else classes) + uncertainty
        for what, shape, wanted in (
            ("input bands", self.input, bands),
            ("output classes", self.output, outputs),
        ):
            channels = shape[1] if shape is not None else None
            if channels is not None and wanted is not None and channels != wanted:
                hint = "bands=[...] and aux=[...] together are its input channels, in order"
                if what == "output classes" and channels == wanted + 1:
                    hint = "if the last channel is the spread between its members: uncertainty=True"
                elif what == "output classes":
                    hint = "for one score of cloud: classes=('clear', 'cloud'), activation='sigmoid'"
                raise WeightsError(f"{origin} has {channels} {what} but {wanted} were given; {hint}")
        if self.input is not None and self.input[0] not in (None, 1):
            raise WeightsError(
                f"{origin} takes exactly {self.input[0]} windows at a time: export it again with a batch of "
                "any size"
            )

    @property
    def patch(self) -> int | None:
        """The one window size that the network takes; None if it takes any."""
        if self.input is None or self.input[2] is None or self.input[2] != self.input[3]:
            return None
        return self.input[2]


def configured(architecture: str, config: Mapping[str, object], inputs: int | None) -> Shapes:
    """Return how many channels an architecture with these settings takes and gives.

    What is wrong with the settings is passed over here: `xcloudmask.models.arch.build` checks them. `inputs`
    is how many channels the caller names; None if any number is taken.

    Examples
    --------
    >>> configured("unet", {"bands": 4, "classes": 3}, 3).input
    (None, 4, None, None)
    """
    if architecture not in arch.NAMES:
        return Shapes()
    numbers = dict(config)
    if {"bands", "classes"} - config.keys():  # its defaults are in its code, which imports torch
        defaults = arch.config_of(architecture)
        if config.keys() - defaults.keys():
            return Shapes()
        numbers = {**defaults, **config}
    bands, classes = numbers.get("bands"), numbers.get("classes", 1)
    if inputs is not None and config.get("dem") is True and isinstance(bands, int) and inputs == bands + 1:
        bands = inputs  # height may be given or not
    return Shapes(
        (None, bands, None, None) if isinstance(bands, int) and inputs is not None else None,
        (None, classes, None, None) if isinstance(classes, int) else None,
    )


def onnx(data: bytes) -> Shapes:
    """Return the shapes that an ONNX graph declares."""
    graph = next(_messages(data, 7), b"")
    weights = {name for tensor in _messages(graph, 5) for name in _messages(tensor, 8)}
    inputs = [value for value in _messages(graph, 11) if next(_messages(value, 1), b"") not in weights]
    outputs = list(_messages(graph, 12))
    if len(inputs) != 1:
        raise WeightsError(f"the ONNX graph has {len(inputs)} inputs; it must have one, the image")
    return Shapes(_onnx_shape(inputs[0]), _onnx_shape(outputs[0]) if outputs else None)


def onnx_tensors(data: bytes, origin: str) -> dict[str, npt.NDArray[Any]]:
    """Return the weights of an ONNX graph by name, in the precision in which they are stored.

    Examples
    --------
    >>> onnx_tensors(b"", "net.onnx")
    {}
    """
    tensors: dict[str, npt.NDArray[Any]] = {}
    for tensor in _messages(next(_messages(data, 7), b""), 5):
        entries = dict(fields(tensor))
        shape = [size for field, size in fields(tensor) if field == 1 and isinstance(size, int)]
        kind, name, raw = (entries.get(field) for field in (2, 8, 9))
        if kind not in (1, 10) or not isinstance(name, bytes) or not isinstance(raw, bytes):
            raise WeightsError(f"{origin}: {name!r} is not stored as raw numbers of 32 or 16 bits")
        numbers = np.frombuffer(raw, "<f4" if kind == 1 else "<f2")
        if numbers.size != math.prod(shape):
            raise WeightsError(f"{origin}: {name!r} has {numbers.size} numbers, and its shape is {shape}")
        tensors[name.decode()] = numbers.reshape(shape)
    return tensors


def _messages(message: bytes, number: int) -> Iterator[bytes]:
    return (value for field, value in fields(message) if field == number and isinstance(value, bytes))


def _onnx_shape(value: bytes) -> Shape | None:
    tensor = next(_messages(next(_messages(value, 2), b""), 1), b"")
    shape = next(_messages(tensor, 2), None)
    if shape is None:
        return None
    sizes = [next((n for field, n in fields(dim) if field == 1), None) for dim in _messages(shape, 1)]
    return tuple(size if isinstance(size, int) and size > 0 else None for size in sizes)


def pt2(clean: bytes) -> Shapes:
    """Return the shapes in the graph of an archive that `xcloudmask.models.weights.safety_pt2` wrote."""
    with zipfile.ZipFile(io.BytesIO(clean)) as archive:
        body = json.loads(archive.read("model/models/model.json"))
    try:
        return _pt2_shapes(body["graph_module"])
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        if isinstance(error, WeightsError):
            raise
        raise WeightsError(
            f"the graph of the exported program is damaged: {error!r}. Export the network again"
        ) from error


def _pt2_shapes(module: dict[str, Any]) -> Shapes:
    signature, values = module["signature"], module["graph"]["tensor_values"]
    inputs = [spec["user_input"]["arg"] for spec in signature["input_specs"] if "user_input" in spec]
    outputs = [spec["user_output"]["arg"] for spec in signature["output_specs"] if "user_output" in spec]
    if len(inputs) != 1:
        raise WeightsError(f"the exported program has {len(inputs)} inputs; it must have one, the image")
    shapes = [_pt2_shape(output, values) for output in outputs]
    shape = shapes[0] if shapes else None
    if len(shapes) > 1 and shape is not None:  # `instantiate.Exported` puts their channels behind one another
        channels = [each[1] if each is not None and len(each) == 4 else None for each in shapes]
        shape = (shape[0], sum(c for c in channels if c) if all(channels) else None, *shape[2:])
    return Shapes(_pt2_shape(inputs[0], values), shape)


def _pt2_shape(arg: dict[str, Any], values: dict[str, Any]) -> Shape | None:
    name = (arg.get("as_tensor") or {}).get("name")
    return tuple(size.get("as_int") for size in values[name]["sizes"]) if name in values else None


def metadata(data: bytes) -> dict[str, str]:
    """Return the notes in the header of a vetted safetensors file."""
    try:
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"the header of the safetensors file is damaged: {error}") from error
    notes = header.get("__metadata__") or {}
    return {str(key): str(value) for key, value in notes.items()} if isinstance(notes, dict) else {}
