"""The tensors that ``torch.save`` wrote, of a state dict or of a whole module; what a pickle says is not run.

Such a file is a zip archive: ``*/data.pkl`` builds the objects, ``*/data/N`` holds the numbers. The
pickle is followed here step by step, by a machine that knows tensors, storages, dicts, lists and tuples.
(``torch.load(weights_only=True)`` runs no code, but hashes, allocates and unpacks whatever a pickle or an
archive asks for: a few hundred bytes take hours, or all the memory.)
Every class and function that it names besides stands for nothing but its name: it is not imported, and to
call it gives an inert object that keeps what is stored in it. The weights then lie under ``_modules``,
``_parameters`` and ``_buffers``, as in the module's state dict.
"""

from __future__ import annotations

import io
import math
import pickletools
import sys
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partialmethod
from typing import TYPE_CHECKING, Any

from xcloudmask.errors import WeightsError

if TYPE_CHECKING:
    import torch

#: Of the pickle, its steps, and the archive's entries; a network of 400 tensors has about 60,000 steps.
MAX_PICKLE, MAX_STEPS, MAX_ENTRIES = 32 * 2**20, 2**18, 2**16
#: Of the module: how deep modules are nested, how many they or their tensors are, how long a name is,
#: and how many dimensions a tensor has.
MAX_DEPTH, MAX_PARTS, MAX_NAME, MAX_DIMENSIONS = 64, 2**12, 128, 8

#: Names under which training scripts keep the weights, and how many of them lie within one another.
PLACES, MAX_PLACES = ("state_dict", "model_state_dict", "model", "ema", "net", "network", "weights"), 3

_STORAGES = {
    "DoubleStorage": "float64", "FloatStorage": "float32", "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16", "LongStorage": "int64", "IntStorage": "int32", "ShortStorage": "int16",
    "CharStorage": "int8", "ByteStorage": "uint8", "BoolStorage": "bool",
}  # fmt: skip
#: What of the standard library a pickle may name: containers, what hooks are made with, settings and times of
#: a checkpoint. None of it is imported or called either.
_LIBRARY = {
    "_codecs", "argparse", "collections", "datetime", "enum", "functools", "inspect", "operator", "pathlib",
    "typing", "weakref",
}  # fmt: skip
_BUILTINS = {
    "bool", "bytearray", "bytes", "complex", "dict", "float", "frozenset", "getattr", "int", "list", "object",
    "range", "set", "slice", "str", "tuple", "type",
}  # fmt: skip
_TENSOR = "torch._utils._rebuild_tensor_v2"
_PARAMETERS = ("torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state")


@dataclass(frozen=True, slots=True)
class Name:
    """A class or a function, by its name alone."""

    name: str


@dataclass(slots=True, eq=False)
class Inert:
    """An object of a class that is not known here, and what is stored in it."""

    kind: str
    state: Any = None


@dataclass(frozen=True, slots=True)
class Lazy:
    """A tensor of which no number has been read: what it was to be rebuilt from."""

    arguments: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Storage:
    """Where numbers lie in the archive, of which type, and how many."""

    key: str
    kind: str
    count: int


def tensors(data: bytes, origin: str) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Return the weights of a pickled state dict or module by the names of its state dict, and notes.

    Those are parameters and buffers, and nothing else that lies in the pickle; the note ``"classes"`` has the
    names of all classes and functions that the pickle names.

    Examples
    --------
    >>> import torch
    >>> out = io.BytesIO()
    >>> torch.save(torch.nn.Sequential(torch.nn.Linear(2, 3)), out)
    >>> found, notes = tensors(out.getvalue(), "net.pkl")
    >>> {name: tuple(tensor.shape) for name, tensor in found.items()}
    {'0.weight': (3, 2), '0.bias': (3,)}
    >>> "torch.nn.modules.linear.Linear" in notes["classes"]
    True
    """
    if data[:2] != b"PK":
        raise WeightsError(
            f"{origin} is a bare pickle, not the archive that torch.save writes since torch 1.6: refused. "
            "Where the network was made, save its state dict: torch.save(model.state_dict(), FILE); or, "
            "if you trust the file: torch.save(torch.load(FILE, weights_only=True), OUT)"
        )
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = archive_entries(archive, origin)
            root, names = followed(archive.read(entries["data.pkl"]), origin)
            found = _Reader(archive, entries, len(data), origin).tensors(root)
    except WeightsError:
        raise
    except Exception as error:  # whatever a damaged archive or pickle leads to
        raise WeightsError(f"{origin} is damaged, or did not arrive whole: {error!r}") from error
    return found, {"classes": names}


def archive_entries(archive: zipfile.ZipFile, origin: str) -> dict[str, zipfile.ZipInfo]:
    """Return the entries by their names below the archive's own folder; torch stores, and packs nothing."""
    infos = archive.infolist()
    if len(infos) > MAX_ENTRIES:
        raise WeightsError(f"{origin} has {len(infos):,} entries: refused")
    out: dict[str, zipfile.ZipInfo] = {}
    for info in infos:
        name = info.filename.partition("/")[2]
        if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
            raise WeightsError(
                f"{origin}: {info.filename!r} is packed and would have {info.file_size:,} bytes; torch packs "
                "nothing: refused (a zip bomb?)"
            )
        if (
            name in out
            or name.startswith("code/")
            or (name == "byteorder" and archive.read(info) != b"little")
        ):
            what = {"byteorder": "in another byte order"}.get(
                name, "twice" if name in out else "as TorchScript"
            )
            raise WeightsError(f"{origin} holds {info.filename!r} {what}: refused")
        out[name] = info
    if sum(info.file_size for info in infos) > archive.start_dir:  # entries may share their bytes
        raise WeightsError(f"{origin} unpacks to more than its own size: refused (a zip bomb?)")
    if "data.pkl" not in out:
        raise WeightsError(f"{origin} holds no data.pkl: it is nothing that torch.save wrote")
    if out["data.pkl"].file_size > MAX_PICKLE:
        raise WeightsError(f"{origin}: its pickle has {out['data.pkl'].file_size:,} bytes: refused")
    return out


def followed(pickle: bytes, origin: str) -> tuple[Any, frozenset[str]]:
    """Return the object that a pickle builds, and all that it names."""
    machine = _Machine(origin)
    for count, (opcode, argument, _) in enumerate(pickletools.genops(pickle)):
        step = getattr(machine, f"do_{opcode.name.lower()}", None)
        if step is None or count >= MAX_STEPS:
            why = f"more than {MAX_STEPS:,} steps" if step else f"the step {opcode.name}"
            raise WeightsError(f"{origin}: its pickle has {why}, which torch.save does not write: refused")
        step(*() if opcode.arg is None else (argument,))
    return machine.stack[-1], frozenset(machine.names)


class _Machine:
    """What a pickle does, step by step; a method for each step that torch.save writes, and no other."""

    def __init__(self, origin: str) -> None:
        self.origin = origin
        self.stack: list[Any] = []
        self.marked: list[list[Any]] = []  # the stacks below each mark
        self.memo: dict[int, Any] = {}
        self.names: set[str] = set()

    def _push(self, value: Any = None) -> None:
        self.stack.append(value)

    do_binunicode = do_binint = do_binint1 = do_binint2 = do_long1 = do_binfloat = do_none = _push
    do_newtrue, do_newfalse = partialmethod(_push, True), partialmethod(_push, False)
    do_empty_tuple = partialmethod(_push, ())

    def do_empty_list(self) -> None:
        self._push([])

    def do_empty_dict(self) -> None:
        self._push({})

    def do_proto(self, version: int) -> None:
        """Take any: a step that is not known is refused where it stands."""

    def do_stop(self) -> None:
        """End."""

    def do_mark(self) -> None:
        self.marked.append(self.stack)
        self.stack = []

    def _since_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.marked.pop()
        return items

    def _tuple_of(self, count: int) -> None:
        items = tuple(self.stack[-count:])
        if len(items) < count:
            raise IndexError("the stack is empty")
        self.stack[-count:] = [items]

    def do_tuple(self) -> None:
        self._push(tuple(self._since_mark()))

    do_tuple1, do_tuple2 = partialmethod(_tuple_of, 1), partialmethod(_tuple_of, 2)
    do_tuple3 = partialmethod(_tuple_of, 3)

    def do_binput(self, place: int) -> None:
        self.memo[place] = self.stack[-1]

    do_long_binput = do_binput

    def do_binget(self, place: int) -> None:
        self._push(self.memo[place])

    do_long_binget = do_binget

    def do_append(self) -> None:
        self._appended([self.stack.pop()])

    def do_appends(self) -> None:
        self._appended(self._since_mark())

    def _appended(self, items: list[Any]) -> None:
        if isinstance(self.stack[-1], list):
            self.stack[-1].extend(items)

    def do_setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._set([key, value])

    def do_setitems(self) -> None:
        self._set(self._since_mark())

    def _set(self, items: list[Any]) -> None:
        # Names alone are looked up later; other keys might be made so that to hash them takes for ever.
        if isinstance(self.stack[-1], dict):
            pairs = zip(items[::2], items[1::2], strict=True)
            self.stack[-1].update((key, value) for key, value in pairs if isinstance(key, str))

    def do_global(self, words: str) -> None:
        module, _, name = words.partition(" ")
        root = module.partition(".")[0]
        harmless = name in _BUILTINS if root in ("builtins", "__builtin__") else root in _LIBRARY
        if not harmless and root in (*sys.stdlib_module_names, "__builtin__"):
            raise WeightsError(
                f"{self.origin}: its pickle names {module[:80]}.{name[:80]}, which no network needs: "
                "refused, and not run"
            )
        self.names.add(f"{module}.{name}")
        self._push(Name(f"{module}.{name}"))

    def do_binpersid(self) -> None:
        what, kind, key, _, count = self.stack.pop()
        if what != "storage" or not isinstance(kind, Name) or type(key) is not str or type(count) is not int:
            raise ValueError("what it refers to is no storage")
        self._push(Storage(key, kind.name, count))

    def do_newobj(self) -> None:
        self.stack.pop()
        self.stack[-1] = Inert(_name_of(self.stack[-1]))

    def do_reduce(self) -> None:
        arguments, name = self.stack.pop(), _name_of(self.stack.pop())
        made: Any = Inert(name, arguments)
        if name == "collections.OrderedDict":
            made = {}  # what it holds is set later, or belongs to hooks
        elif name == _TENSOR:
            made = Lazy(arguments)
        elif name in _PARAMETERS:
            made = arguments[0]
        self._push(made)

    def do_build(self) -> None:
        state = self.stack.pop()
        if isinstance(state, tuple) and len(state) == 2:
            state = state[0]  # and what lies in slots
        if isinstance(self.stack[-1], Inert):
            self.stack[-1].state = state


def _name_of(value: Any) -> str:
    return value.name if isinstance(value, Name) else ""


class _Reader:
    """Reads the numbers of those tensors that are weights."""

    def __init__(
        self, archive: zipfile.ZipFile, entries: Mapping[str, zipfile.ZipInfo], size: int, origin: str
    ) -> None:
        self.archive, self.entries, self.origin = archive, entries, origin
        self.left = size  # a file has no more numbers than bytes, whatever its entries share
        self.storages: dict[tuple[str, str], torch.Tensor] = {}

    def tensors(self, root: Any) -> dict[str, torch.Tensor]:
        """Return the tensors of a module, or of a state dict, itself or in a checkpoint."""
        if not isinstance(root, dict):
            return self._of_module(root)
        for _ in range(MAX_PLACES):
            inner = [root[place] for place in PLACES if isinstance(root.get(place), dict | Inert)]
            if inner and isinstance(inner[0], Inert):
                return self._of_module(inner[0])
            root = inner[0] if inner else root  # before the tensors beside it: of a loss, or an epoch
        state = {name: value for name, value in root.items() if isinstance(value, Lazy)}
        if 0 < len(state) <= MAX_PARTS:
            return {name: self._tensor(name, tensor) for name, tensor in state.items()}
        raise WeightsError(f"{self.origin} holds no state dict, neither itself nor as {', '.join(PLACES)}")

    def _of_module(self, root: Any) -> dict[str, torch.Tensor]:
        """Return the tensors below a module, in the order of its state dict."""
        out: dict[str, torch.Tensor] = {}
        modules, todo = 0, [("", 0, root)]
        while todo:
            prefix, depth, module = todo.pop()
            state = module.state if isinstance(module, Inert) else None
            modules += 1
            if not isinstance(state, dict) or depth > MAX_DEPTH or max(modules, len(out)) > MAX_PARTS:
                where = f"below {prefix[:-1]!r}" if prefix else "at its top"
                raise WeightsError(
                    f"{self.origin} holds no module {where}, or more than {MAX_PARTS:,}, or nested more than "
                    f"{MAX_DEPTH} deep: refused"
                )
            unsaved = _unsaved(state)
            for name, tensor in (*_named(state, "_parameters"), *_named(state, "_buffers")):
                if isinstance(tensor, Lazy) and name not in unsaved:
                    out[prefix + name] = self._tensor(prefix + name, tensor)
            inner = [(f"{prefix}{name}.", depth + 1, each) for name, each in _named(state, "_modules")]
            todo += [each for each in inner[::-1] if each[2] is not None]
        if not out:
            raise WeightsError(f"{self.origin} holds no module with weights")
        return out

    def _tensor(self, name: str, lazy: Lazy) -> torch.Tensor:
        storage, offset, sizes, strides = lazy.arguments[:4]
        numbers = self._numbers(storage)
        counts = (offset, *sizes, *strides)
        if (
            len(sizes) != len(strides)
            or len(sizes) > MAX_DIMENSIONS
            or not all(type(count) is int and count >= 0 for count in counts)
        ):
            raise WeightsError(f"{self.origin}: the shape of its tensor {name!r} is damaged")
        reach = offset + 1 + sum((size - 1) * step for size, step in zip(sizes, strides, strict=True))
        claimed = max(reach, math.prod(sizes)) if all(sizes) else 0
        if claimed > len(numbers):
            raise WeightsError(
                f"{self.origin}: its tensor {name!r} claims {claimed:,} numbers, and its storage has "
                f"{len(numbers):,}: refused"
            )
        return numbers.as_strided(sizes, strides, offset)

    def _numbers(self, storage: Any) -> torch.Tensor:
        import torch

        kind = _STORAGES.get(storage.kind.removeprefix("torch.")) if isinstance(storage, Storage) else None
        if kind is None:
            raise WeightsError(
                f"{self.origin}: the numbers of a tensor lie in no storage that is known: refused"
            )
        if (storage.key, kind) in self.storages:
            return self.storages[storage.key, kind]
        dtype, entry = getattr(torch, kind), self.entries.get(f"data/{storage.key[:80]}")
        size = entry.file_size if entry else 0
        if entry is None or size > self.left or storage.count != size // dtype.itemsize:
            raise WeightsError(
                f"{self.origin}: data/{storage.key[:80]} shall hold {storage.count:,} numbers and has "
                f"{size:,} bytes; the file can hold {self.left:,} more: refused"
            )
        self.left -= size
        raw = bytearray(self.archive.read(entry))
        made = torch.frombuffer(raw, dtype=dtype) if raw else torch.empty(0, dtype=dtype)
        self.storages[storage.key, kind] = made
        return made


def _named(state: Mapping[str, Any], part: str) -> list[tuple[str, Any]]:
    """Return the entries of ``_modules``, ``_parameters`` or ``_buffers``."""
    entries = state.get(part)
    named = list(entries.items()) if isinstance(entries, dict) else []
    if any(len(name) > MAX_NAME for name, _ in named):
        raise ValueError(f"a name of more than {MAX_NAME} letters")
    return named


def _unsaved(state: Mapping[str, Any]) -> frozenset[str]:
    """Return the names of buffers that are no part of a state dict; `set` was called with a list of them."""
    absent = state.get("_non_persistent_buffers_set")
    arguments = absent.state if isinstance(absent, Inert) else ()
    names = arguments[0] if isinstance(arguments, tuple) and arguments else None
    return frozenset(name for name in names or () if isinstance(names, list) and isinstance(name, str))
