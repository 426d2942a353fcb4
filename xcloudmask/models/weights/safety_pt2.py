"""Make an archive of ``torch.export`` safe to load: keep what is data, refuse what is code.

torch itself unpickles parts of such an archive (sample inputs, custom objects, odd tensors), loads shared
libraries from it (AOTInductor), evaluates its shape expressions as Python, writes its names into source that
it executes, and calls whatever operator a dotted name leads to. So the archive is taken apart here. Raw
tensors are kept; the graph is kept if every string in it is harmless and every operator is one of ATen's;
sample inputs are replaced by none; anything else is refused. What torch loads is written anew from that, for
the CPU, wherever the network was when it was saved. The container of torch 2.5 goes the same way, by
`xcloudmask.models.weights.old_pt2`.
"""

from __future__ import annotations

import ast
import io
import json
import math
import re
import zipfile
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from xcloudmask.errors import WeightsError
from xcloudmask.models.weights import old_pt2

#: Some kilobytes a layer; the largest networks have a thousand.
MAX_GRAPH = 32 * 2**20

_GRAPH, _SAMPLES = "models/model.json", "data/sample_inputs/model.pt"
_CONFIG = re.compile(r"data/(weights|constants)/model_(weights|constants)_config\.json")
_NEW = re.compile(
    rf"archive_format|archive_version|version|byteorder|\.data/(version|serialization_id)|{_GRAPH}|{_SAMPLES}"
    rf"|data/(weights/weight|constants/tensor)_\d+|{_CONFIG.pattern}"
)
_OLD = re.compile(
    rf"{old_pt2.GRAPH}|{old_pt2.STATE}|{old_pt2.CONSTANTS}|serialized_example_inputs\.pt|version"
    r"|extra_files/[\w.\-]+"
)

_WORD = re.compile(r"[A-Za-z0-9_.+\-]{0,300}")
_OPERATOR = re.compile(
    r"torch\.ops\.aten\.(?!from_file|_print)\w+\.\w+"
    r"|_operator\.(add|sub|mul|floordiv|truediv|mod|neg|pow|getitem|eq|ne|lt|le|gt|ge|and_)"
    r"|torch\.sym_(max|min|int|float|not|ite)"
)
_SHAPE = re.compile(
    r"(Symbol\('[a-z]+\d+'(, (positive|nonnegative|integer)=True)*\)|Integer\(-?\d+\)|Rational\(-?\d+, \d+\)"
    r"|Add|Mul|Pow|Max|Min|Mod|PythonMod|FloorDiv|CleanDiv|[su]\d+|-?\d+|[-+*/(), ])*"
)
#: How arguments are nested: tuples, lists and nothing else.
_NESTING = re.compile(r'([\[\]{}", :\d]|null|type|context|children_spec|builtins\.(tuple|list|dict))*')
#: Bytes of a number, by torch's serialised types; of others, one at least.
_ITEM_BYTES = {3: 2, 4: 4, 5: 8, 6: 2, 7: 4, 8: 8, 9: 4, 10: 8, 11: 16, 13: 2}
#: Keys whose values only help people to debug; some of them hold source text.
_DROPPED = ("metadata", "guards_code", "verifiers")
#: Keys that lead to subgraphs, scripted objects and operators as values.
_REFUSED = ("as_graph", "as_custom_obj", "as_operator")


def pt2(data: bytes, origin: str) -> bytes:
    """Return an archive with the same network and nothing that can run code."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            infos = archive.infolist()
            if sum(info.file_size for info in infos) > len(data):  # torch compresses nothing
                raise WeightsError(f"{origin} unpacks to more than its own size: refused (a zip bomb?)")
            if old_pt2.GRAPH in archive.namelist():
                entries = _known(infos, _OLD.fullmatch, lambda name: name, origin)
                return _written(_converted(archive, entries, origin), origin)
            entries = _known(infos, _NEW.fullmatch, lambda name: name.partition("/")[2], origin)
            if _GRAPH not in entries:
                raise WeightsError(f"{origin} holds no {_GRAPH}: it is no archive of torch.export.save")
            parts = (
                (name, _json(archive, info, origin) if name.endswith(".json") else archive.read(info))
                for name, info in entries.items()
                if name != _SAMPLES
            )
            return _written(parts, origin)
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError) as error:
        raise WeightsError(
            f"{origin} is no torch.export archive, or did not arrive whole: {error}"
        ) from error


def _converted(
    archive: zipfile.ZipFile, entries: Mapping[str, zipfile.ZipInfo], origin: str
) -> Iterable[tuple[str, Any]]:
    """Return the entries of an archive of torch 2.5 as those of today's layout."""
    if missing := {old_pt2.STATE, old_pt2.CONSTANTS} - entries.keys():
        raise WeightsError(f"{origin} lacks {', '.join(sorted(missing))}: it did not arrive whole")
    graph = _json(archive, entries[old_pt2.GRAPH], origin)
    return old_pt2.converted(graph, lambda name: archive.read(entries[name]), origin).items()


def _known(
    infos: Iterable[zipfile.ZipInfo], known: Callable[[str], object], short: Callable[[str], str], origin: str
) -> dict[str, zipfile.ZipInfo]:
    """Return the entries by their names below the archive's own folder; every one must be known."""
    entries: dict[str, zipfile.ZipInfo] = {}
    for info in infos:
        name = short(info.filename)
        if not known(name):
            raise WeightsError(
                f"{origin} holds {info.filename!r}, which is neither a graph nor a raw tensor and could run "
                "code: refused. Export the network with torch.export.save, or as ONNX"
            )
        if name in entries:
            raise WeightsError(f"{origin} holds {info.filename!r} twice: refused")
        entries[name] = info
    return entries


def _written(parts: Iterable[tuple[str, Any]], origin: str) -> bytes:
    """Write an archive of vetted entries: JSON values are checked, raw tensors are what they are."""
    out = io.BytesIO()
    configs: dict[str, Any] = {}
    sizes: dict[str, int] = {}
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as clean:
        for name, body in parts:
            if _CONFIG.fullmatch(name):
                configs[name] = body
                continue
            if name == _GRAPH:
                body = json.dumps(_graph(body, origin)).encode()
            sizes[name] = len(body)
            clean.writestr(f"model/{name}", body)
        for name, config in configs.items():  # last, as they are held against the files of the tensors
            folder = name.rpartition("/")[0]
            files = {
                entry.rpartition("/")[2]: size for entry, size in sizes.items() if entry.startswith(folder)
            }
            clean.writestr(f"model/{name}", json.dumps(_config(config, files, origin)))
        clean.writestr(f"model/{_SAMPLES}", b"")
    return out.getvalue()


def _json(archive: zipfile.ZipFile, info: zipfile.ZipInfo, origin: str) -> Any:
    if info.file_size > MAX_GRAPH:
        raise WeightsError(f"{origin}: {info.filename} has {info.file_size:,} bytes: no graph is so large")
    try:
        return json.loads(archive.read(info))
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{origin}: {info.filename} is no JSON: {error}") from error


def _config(config: Any, sizes: Mapping[str, int], origin: str) -> Any:
    """Check that every tensor is raw, lies where a tensor lies, and is no larger than its file."""
    entries = config.get("config") if isinstance(config, dict) else None
    if not isinstance(entries, dict):
        raise WeightsError(f"{origin}: the list of its tensors is damaged")
    for name, meta in entries.items():
        path = meta.get("path_name") if isinstance(meta, dict) else None
        if not isinstance(path, str) or meta.get("use_pickle") is not False:
            raise WeightsError(f"{origin}: its tensor {name!r} is kept as a pickle or an object: refused")
        if not re.fullmatch(r"(weight|tensor)_\d+", path):
            raise WeightsError(
                f"{origin}: its tensor {name!r} lies in {path!r}, outside the archive: refused"
            )
        needed = _bytes_of(meta.get("tensor_meta"))
        if needed is None or needed > sizes.get(path, 0):
            stated = "sizes that cannot be" if needed is None else f"{needed:,} bytes"
            raise WeightsError(
                f"{origin}: its tensor {name!r} claims {stated}, and its file {path} holds "
                f"{sizes.get(path, 0):,}: refused"
            )
    return _graph(config, origin)


def _bytes_of(meta: Any) -> int | None:
    """Return how many bytes a tensor's sizes and strides reach over, None if they are damaged."""
    try:
        sizes, strides = ([int(entry["as_int"]) for entry in meta[key]] for key in ("sizes", "strides"))
        first = int(meta["storage_offset"]["as_int"])
        if len(sizes) != len(strides) or min((first, *sizes, *strides)) < 0:
            return None
        span = sum((size - 1) * stride for size, stride in zip(sizes, strides, strict=True)) + 1
        elements = max(first + span, math.prod(sizes)) if all(sizes) else 0
        return elements * _ITEM_BYTES.get(meta["dtype"], 1)
    except (KeyError, TypeError, ValueError):
        return None


def _graph(value: Any, origin: str, key: str = "") -> Any:
    """Return a copy of a graph without its notes, on the CPU; refuse strings not plainly harmless."""
    if isinstance(value, dict):
        for name in value:
            if name in _REFUSED and value[name] is not None:
                raise WeightsError(
                    f"{origin}: its graph has a part of kind {name!r}, which could run code: refused"
                )
            _check(name, "" if _WORD.fullmatch(name) else "expr_str", origin)  # expressions list ranges
        return {
            name: _nothing(part)
            if name in _DROPPED
            else {"type": "cpu", "index": None}
            if name in ("device", "as_device") and part is not None
            else _graph(part, origin, name)
            for name, part in value.items()
        }
    if isinstance(value, list):
        return [_graph(part, origin, key) for part in value]
    if isinstance(value, str):
        _check(value, key, origin)
    return value


def _nothing(value: Any) -> Any:
    return {} if isinstance(value, dict) else [] if isinstance(value, list) else None


def _small_powers(expression: str) -> bool:
    """Whether a shape's expression has few powers, and small ones: sympy computes 9**9**9 as it reads it."""
    try:
        nodes = list(ast.walk(ast.parse(expression, mode="eval")))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    exponents = [node.right for node in nodes if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow)]
    calls = [node for node in nodes if isinstance(node, ast.Call) and node.args]
    exponents += [
        call.args[-1] for call in calls if isinstance(call.func, ast.Name) and call.func.id == "Pow"
    ]
    small = all(re.fullmatch(r"-?[0-4]|Integer\(-?[0-4]\)", ast.unparse(each)) for each in exponents)
    return small and len(exponents) <= 4


def _check(text: str, key: str, origin: str) -> None:
    rules = {"target": _OPERATOR, "expr_str": _SHAPE, "in_spec": _NESTING, "out_spec": _NESTING}
    rule = rules.get(key, _WORD)
    if len(text) > 10_000 or not rule.fullmatch(text) or (key == "expr_str" and not _small_powers(text)):
        what = {"target": "calls", "expr_str": "computes a shape by"}.get(key, "holds")
        raise WeightsError(
            f"{origin}: its graph {what} {text[:80]!r}, which is not known to be harmless: refused"
        )
