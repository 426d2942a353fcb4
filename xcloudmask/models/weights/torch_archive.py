"""Tensors in an archive of ``torch.save``, read without torch and without unpickling anything.

The archive is a zip: a pickle that names each tensor's storage, shape and strides, and the storages' bytes.
The pickle is not run: its opcodes are followed one by one, and only those are known that lists, dictionaries
and tensors are made of. A name leads to no object; what torch's own rebuilding functions are called with is
kept, and any other call is refused. So there is nothing that could run, and nothing is larger than the file.
"""

from __future__ import annotations

import io
import pickletools
import zipfile
from dataclasses import dataclass, replace
from typing import Any

from xcloudmask.errors import WeightsError

#: A pickle that names ten thousand tensors has two megabytes; each byte of it may become an object.
MAX_PICKLE = 2 * 2**20

#: Storages by the name of their class: the number of their dtype in a serialised graph.
DTYPES = {
    "ByteStorage": 1, "CharStorage": 2, "ShortStorage": 3, "IntStorage": 4, "LongStorage": 5,
    "HalfStorage": 6, "FloatStorage": 7, "DoubleStorage": 8, "BoolStorage": 12, "BFloat16Storage": 13,
}  # fmt: skip
_TENSOR, _PARAMETER = "torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_parameter"
_DICT = "collections OrderedDict"


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor as it lies in the archive: the storage `key`, and which of its elements.

    Wherever it was saved from: the device in the archive is passed over.
    """

    key: str
    dtype: int
    sizes: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int = 0
    is_parameter: bool = False


@dataclass(frozen=True, slots=True)
class _Name:
    """A class or function that the pickle names; it stays a name."""

    text: str


_MARK = object()


def read(data: bytes, origin: str) -> tuple[dict[str, StoredTensor], dict[str, bytes]]:
    """Return the tensors of a state dict by name, and the storages that they lie in by key.

    Parameters
    ----------
    data : bytes
        What ``torch.save`` wrote of a dictionary of tensors (torch 1.6 and later).
    origin : str
        What messages call it.

    Examples
    --------
    >>> import torch
    >>> out = io.BytesIO()
    >>> torch.save({"bias": torch.ones(3)}, out)
    >>> tensors, storages = read(out.getvalue(), "net.pt")
    >>> tensors["bias"].sizes, len(storages[tensors["bias"].key])
    ((3,), 12)
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            infos = archive.infolist()
            if sum(info.file_size for info in infos) > len(data):
                raise WeightsError(f"{origin} unpacks to more than its own size: refused (a zip bomb?)")
            names = [info.filename.partition("/")[2] for info in infos]
            if len(set(names)) < len(names) or "data.pkl" not in names:
                raise WeightsError(f"{origin} is no archive of torch.save: it holds {', '.join(names[:5])}")
            entries = dict(zip(names, infos, strict=True))
            if entries["data.pkl"].file_size > MAX_PICKLE:
                raise WeightsError(f"{origin}: its pickle is larger than {MAX_PICKLE:,} bytes: refused")
            if "byteorder" in entries and archive.read(entries["byteorder"]) != b"little":
                raise WeightsError(f"{origin} was written on a big-endian machine: save it again on another")
            tensors = _state_dict(archive.read(entries["data.pkl"]), origin)
            storages = {}
            for tensor in tensors.values():
                if f"data/{tensor.key}" not in entries:
                    raise WeightsError(f"{origin} lacks the storage {tensor.key!r} of one of its tensors")
                if tensor.key not in storages:
                    storages[tensor.key] = archive.read(entries[f"data/{tensor.key}"])
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError) as error:
        raise WeightsError(
            f"{origin} is no archive of torch.save, or did not arrive whole: {error}"
        ) from error
    return tensors, storages


def _state_dict(pickled: bytes, origin: str) -> dict[str, StoredTensor]:
    try:
        value = _followed(pickled, origin)
    except (IndexError, KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, WeightsError):
            raise
        raise WeightsError(f"{origin}: its pickle is damaged: {error!r}") from error
    if not isinstance(value, dict) or not all(
        isinstance(name, str) and isinstance(tensor, StoredTensor) for name, tensor in value.items()
    ):
        raise WeightsError(f"{origin} is no dictionary of tensors: refused")
    return value


def _followed(pickled: bytes, origin: str) -> Any:
    """Return what a pickle of plain values and tensors stands for."""
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    for opcode, arg, _ in pickletools.genops(pickled):
        match opcode.name:
            case "PROTO" | "FRAME":
                pass
            case "STOP":
                return stack.pop()
            case "MARK":
                stack.append(_MARK)
            case "NONE" | "NEWTRUE" | "NEWFALSE":
                stack.append({"NONE": None, "NEWTRUE": True, "NEWFALSE": False}[opcode.name])
            case "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINFLOAT":
                stack.append(arg)
            case "BINUNICODE" | "SHORT_BINUNICODE":
                stack.append(arg)
            case "EMPTY_DICT" | "EMPTY_TUPLE" | "EMPTY_LIST":
                stack.append({"EMPTY_DICT": {}, "EMPTY_TUPLE": (), "EMPTY_LIST": []}[opcode.name])
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                count = int(opcode.name[-1])
                stack[-count:] = [tuple(stack[-count:])]
            case "TUPLE":
                items = _since_mark(stack)
                stack.append(tuple(items))
            case "APPEND":
                value = stack.pop()
                stack[-1].append(value)
            case "APPENDS":
                items = _since_mark(stack)
                stack[-1].extend(items)
            case "SETITEM" | "SETITEMS":
                items = _since_mark(stack) if opcode.name == "SETITEMS" else [stack.pop(), stack.pop()][::-1]
                if not all(type(key) is str for key in items[::2]):
                    raise ValueError("a key that is no name")  # hashing a deep tuple can end the process
                stack[-1].update(zip(items[::2], items[1::2], strict=True))
            case "BINPUT" | "LONG_BINPUT" | "MEMOIZE":
                memo[len(memo) if arg is None else arg] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[arg])
            case "GLOBAL":
                stack.append(_Name(arg))
            case "BINPERSID":
                stack.append(_storage(stack.pop()))
            case "REDUCE":
                args, name = stack.pop(), stack.pop()
                stack.append(_called(name, args, origin))
            case "BUILD":  # what a state dict notes of its modules' versions
                stack.pop()
                if not isinstance(stack[-1], dict):
                    raise WeightsError(f"{origin}: its pickle sets the state of an object: refused")
            case other:
                raise WeightsError(f"{origin}: its pickle does what no dictionary of tensors does ({other})")
    raise ValueError("it has no end")


def _since_mark(stack: list[Any]) -> list[Any]:
    items = []
    while (value := stack.pop()) is not _MARK:
        items.append(value)
    return items[::-1]


def _storage(named: Any) -> tuple[str, int]:
    """Return the key of a storage, and its dtype."""
    kind, storage, key = named[:3]
    if kind != "storage" or type(key) is not str:
        raise ValueError("what it names is no storage")
    return key, DTYPES[storage.text.removeprefix("torch ")]


def _called(name: Any, args: Any, origin: str) -> Any:
    text = name.text if isinstance(name, _Name) else "a value"
    if text == _DICT and args == ():
        return {}
    if text == _TENSOR:
        (key, dtype), offset, sizes, strides = args[:4]
        numbers = (offset, *sizes, *strides)
        if len(sizes) != len(strides) or not all(type(number) is int for number in numbers):
            raise ValueError("a tensor's shape is none")
        return StoredTensor(key, dtype, tuple(sizes), tuple(strides), offset)
    if text == _PARAMETER and isinstance(args[0], StoredTensor):
        return replace(args[0], is_parameter=True)
    raise WeightsError(
        f"{origin}: its pickle calls {text.replace(' ', '.')[:80]!r}, which rebuilds no tensor: refused, as "
        "loading it would run what its author wrote"
    )
