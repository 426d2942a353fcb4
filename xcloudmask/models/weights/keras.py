"""Tensors of a file that Keras wrote as HDF5, by name: no layer is built, so nothing in the file is run.

Such a file holds weights (``model_weights``), what trained them (``optimizer_weights``) and a description of
the layers (the attribute ``model_config``), which may carry byte code. Only the first is looked at.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from xcloudmask.errors import WeightsError
from xcloudmask.models.weights.hdf5 import import_h5py, is_hard_link, is_kept_elsewhere

if TYPE_CHECKING:
    from torch import Tensor

ROOT = "model_weights"
#: A network has some hundred tensors, in groups of groups of layers.
MOST_OBJECTS, DEEPEST = 10_000, 16


def tensors(data: bytes, origin: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors of a Keras file by their path below ``model_weights``, in float32, and no notes.

    Keras' ``:0`` is left out. Links or numbers that lead out of the file, a group within itself, and tensors
    larger than the file, none of which Keras writes, are refused.
    """
    import torch

    h5py = import_h5py(f"{origin}: a Keras file (HDF5)")
    tensors: dict[str, Tensor] = {}
    left = len(data)  # Keras packs nothing, so all tensors together are smaller than the file
    try:
        with h5py.File(io.BytesIO(data), "r") as file:
            for name, dataset in _datasets(file, origin):
                left -= dataset.nbytes
                if left < 0:
                    raise WeightsError(
                        f"{origin}: with {name}, {dataset.shape} in {dataset.dtype}, its tensors are larger "
                        f"than the whole file ({len(data):,} bytes): damaged, or meant to fill the memory"
                    )
                tensors[name.removesuffix(":0")] = torch.from_numpy(dataset[()].astype(np.float32))
    except (WeightsError, MemoryError):
        raise
    except Exception as error:  # h5py raises nearly anything where a file is damaged
        raise WeightsError(f"{origin} is no HDF5 file, or did not arrive whole: {error}") from error
    if not tensors:
        raise WeightsError(
            f"{origin} holds no weights in {ROOT!r}: a model is made of the tensors of a Keras file alone, "
            "and its layers are never built from what it says of them, which may be code"
        )
    return tensors, {}


def _datasets(file: Any, origin: str) -> Iterator[tuple[str, Any]]:
    """Yield what lies below ``model_weights``, by its path, after looking at how it is kept."""
    import h5py

    todo: list[tuple[str, Any, int]] = [("", file, 0)]
    seen = {h5py.h5o.get_info(file.id).addr}
    while todo:
        path, group, depth = todo.pop()
        if len(group) > MOST_OBJECTS or depth > DEEPEST:
            raise WeightsError(
                f"{origin}: {path or 'its root'} holds more, or deeper, groups than a network has"
            )
        for name in group:
            if group is file and name != ROOT:  # `in` would follow a link to see if it leads somewhere
                continue
            child = f"{path}/{name}".removeprefix("/")
            if not is_hard_link(group, name):
                raise WeightsError(
                    f"{origin}: {child} is a link that may lead to any other file: it is not followed"
                )
            entry = group[name]
            address = h5py.h5o.get_info(entry.id).addr
            if address in seen:
                raise WeightsError(f"{origin}: {child} lies in the file a second time, or within itself")
            seen.add(address)
            if isinstance(entry, h5py.Group):
                todo.append((child, entry, depth + 1))
                continue
            _check_dataset(entry, child, origin)
            yield child.removeprefix(f"{ROOT}/"), entry


def _check_dataset(entry: Any, name: str, origin: str) -> None:
    """Refuse what Keras does not write: anything but floating-point numbers, as they are, in this file."""
    import h5py

    if not isinstance(entry, h5py.Dataset) or entry.shape is None or entry.dtype.kind != "f":
        kind = getattr(entry, "dtype", type(entry).__name__)
        raise WeightsError(f"{origin}: {name} holds {kind}, and weights are floating-point numbers")
    if is_kept_elsewhere(entry):
        raise WeightsError(f"{origin}: the numbers of {name} are kept in other files, which are not read")
    if entry.chunks is not None:  # a chunk may be larger than its dataset, and need not be stored at all
        raise WeightsError(
            f"{origin}: {name} is kept in chunks or packed, which Keras does not do; if you trust the file, "
            "h5repack -l CONTI -f NONE IN OUT writes its numbers as they are"
        )
