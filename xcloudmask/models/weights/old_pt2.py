"""The ``.pt2`` container of torch 2.1 to 2.7, taken to the layout that torch writes today.

torch itself reads the old layout by unpickling, and refuses schemas before the eighth. The graphs differ in
little: what stands for None, and keys that have defaults now. So the graph is written as one of the eighth
schema, and the tensors as raw ones; what comes out is then vetted as a file of today's torch is. The example
inputs are never opened.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from xcloudmask.errors import WeightsError
from xcloudmask.models.weights import torch_archive

GRAPH, STATE, CONSTANTS = (
    "serialized_exported_program.json", "serialized_state_dict.pt", "serialized_constants.pt",
)  # fmt: skip
#: Versions of the schema whose graphs are known to mean the same: torch 2.5, and 2.6 to 2.7.
SCHEMAS = (7, 8)


def converted(graph: Any, read: Callable[[str], bytes], origin: str) -> dict[str, Any]:
    """Return the entries of an archive of today: raw tensors as bytes, JSON as values; nothing is vetted yet.

    Parameters
    ----------
    graph : dict
        The parsed program.
    read : callable
        Returns the bytes of an entry of the old archive.
    origin : str
        What messages call the file.
    """
    version = graph.get("schema_version") if isinstance(graph, dict) else None
    major = version.get("major") if isinstance(version, dict) else None
    if major not in SCHEMAS:
        raise WeightsError(
            f"{origin}: its graph follows schema {major!r} of torch.export; known are "
            f"{' and '.join(map(str, SCHEMAS))} (torch 2.5 to 2.7). Export the network again, with "
            "torch.export.save of a newer torch, or as ONNX"
        )
    entries: dict[str, Any] = {
        "models/model.json": {**_with_none(graph), "schema_version": {"major": 8, "minor": 0}},
        "archive_format": b"pt2",
        "archive_version": b"0",
        "byteorder": b"little",
        ".data/version": b"6\n",
    }
    for kind, file, stem in (("weights", STATE, "weight"), ("constants", CONSTANTS, "tensor")):
        tensors, storages = torch_archive.read(read(file), f"{origin}: its {file}")
        paths = {key: f"{stem}_{place}" for place, key in enumerate(storages)}
        entries |= {f"data/{kind}/{paths[key]}": body for key, body in storages.items()}
        entries[f"data/{kind}/model_{kind}_config.json"] = {
            "config": {
                name: {
                    "path_name": paths[tensor.key],
                    "is_param": tensor.is_parameter,
                    "use_pickle": False,
                    "tensor_meta": _meta(tensor),
                }
                for name, tensor in tensors.items()
            }
        }
    return entries


def _with_none(value: Any) -> Any:
    """Return a graph in which None is written as the eighth schema does."""
    if isinstance(value, dict):
        return {key: True if key == "as_none" else _with_none(part) for key, part in value.items()}
    return [_with_none(part) for part in value] if isinstance(value, list) else value


def _meta(tensor: torch_archive.StoredTensor) -> dict[str, Any]:
    return {
        "dtype": tensor.dtype,
        "sizes": [{"as_int": size} for size in tensor.sizes],
        "strides": [{"as_int": stride} for stride in tensor.strides],
        "storage_offset": {"as_int": tensor.offset},
        "requires_grad": tensor.is_parameter,
        "device": {"type": "cpu", "index": None},
        "layout": 7,  # strided
    }
