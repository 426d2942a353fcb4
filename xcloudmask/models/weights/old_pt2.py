"""The ``.pt2`` container of torch 2.1 to 2.7, taken to the layout that torch writes today.

torch itself reads the old layout by unpickling, and refuses schemas before the eighth. The graphs differ in
little: what stands for None, and keys that have defaults now. So the graph is written as one of the eighth
schema, and the tensors as raw ones; what comes out is then vetted as a file of today's torch is. The example
inputs are never opened.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from typing import Any

from xcloudmask.errors import WeightsError
from xcloudmask.models.weights.torch_save import Lazy, Storage, archive_entries, followed

GRAPH, STATE, CONSTANTS = (
    "serialized_exported_program.json", "serialized_state_dict.pt", "serialized_constants.pt",
)  # fmt: skip
#: The number of a dtype in a serialised graph, by the name of its storage's class.
DTYPES = {
    "torch.ByteStorage": 1, "torch.CharStorage": 2, "torch.ShortStorage": 3, "torch.IntStorage": 4,
    "torch.LongStorage": 5, "torch.HalfStorage": 6, "torch.FloatStorage": 7, "torch.DoubleStorage": 8,
    "torch.BoolStorage": 12, "torch.BFloat16Storage": 13,
}  # fmt: skip
#: Versions of the schema whose graphs are known to mean the same: torch 2.5, and 2.6 to 2.7.
SCHEMAS = (7, 8)


def converted(graph: Any, read: Callable[[str], bytes], origin: str) -> dict[str, Any]:
    """Return the entries of an archive of today: tensors as bytes, JSON as values; nothing is vetted yet."""
    version = graph.get("schema_version") if isinstance(graph, dict) else None
    major = version.get("major") if isinstance(version, dict) else None
    if major not in SCHEMAS:
        raise WeightsError(
            f"{origin}: its graph follows schema {major!r} of torch.export; known are "
            f"{' and '.join(map(str, SCHEMAS))} (torch 2.5 to 2.7). Export the network again, with "
            "torch.export.save of a newer torch, or as ONNX"
        )
    parameters = _parameters(graph, origin)
    entries: dict[str, Any] = {
        "models/model.json": {**_with_none(graph), "schema_version": {"major": 8, "minor": 0}},
        "archive_format": b"pt2",
        "archive_version": b"0",
        "byteorder": b"little",
        ".data/version": b"6\n",
    }
    for kind, file, stem in (("weights", STATE, "weight"), ("constants", CONSTANTS, "tensor")):
        tensors, storages = _stored(read(file), f"{origin}: its {file}")
        paths = {key: f"{stem}_{place}" for place, key in enumerate(storages)}
        entries |= {f"data/{kind}/{paths[key]}": body for key, body in storages.items()}
        entries[f"data/{kind}/model_{kind}_config.json"] = {
            "config": {
                name: {
                    "path_name": paths[key],
                    "is_param": name in parameters,
                    "use_pickle": False,
                    "tensor_meta": meta,
                }
                for name, (key, meta) in tensors.items()
            }
        }
    return entries


def _parameters(graph: Any, origin: str) -> set[str]:
    """Return the names of those tensors that are parameters, and no buffers."""
    try:
        specs = graph["graph_module"]["signature"]["input_specs"]
        return {spec["parameter"]["parameter_name"] for spec in specs if "parameter" in spec}
    except (KeyError, TypeError) as error:
        raise WeightsError(f"{origin}: the signature of its graph is damaged: {error!r}") from error


def _with_none(value: Any) -> Any:
    """Return a graph in which None is written as the eighth schema does."""
    if isinstance(value, dict):
        return {key: True if key == "as_none" else _with_none(part) for key, part in value.items()}
    return [_with_none(part) for part in value] if isinstance(value, list) else value


def _stored(data: bytes, origin: str) -> tuple[dict[str, tuple[str, dict[str, Any]]], dict[str, bytes]]:
    """Return a saved dictionary of tensors, and storages by key: each tensor's key, and its place therein.

    Its pickle is followed, not run. Which device a tensor was on is passed over.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = archive_entries(archive, origin)
            root, _ = followed(archive.read(entries["data.pkl"]), origin)
            tensors = {name: _placed(tensor) for name, tensor in root.items()}
            infos = {key: entries[f"data/{key}"] for key, _ in tensors.values()}
            return tensors, {key: archive.read(info) for key, info in infos.items()}
    except WeightsError:
        raise
    except Exception as error:  # whatever a damaged archive or pickle leads to
        raise WeightsError(
            f"{origin} is no dictionary of tensors that torch.save wrote, or did not arrive whole: {error!r}"
        ) from error


def _placed(tensor: Lazy) -> tuple[str, dict[str, Any]]:
    """Return the key of a tensor's storage, and the rest as today's layout has it."""
    storage: Storage
    storage, offset, sizes, strides = tensor.arguments[:4]
    if not all(type(number) is int for number in (offset, *sizes, *strides)):
        raise ValueError("a shape that is none")
    meta = {
        "dtype": DTYPES[storage.kind],
        "sizes": [{"as_int": size} for size in sizes],
        "strides": [{"as_int": stride} for stride in strides],
        "storage_offset": {"as_int": offset},
        "requires_grad": False,
        "device": {"type": "cpu", "index": None},
        "layout": 7,  # strided
    }
    return storage.key, meta
