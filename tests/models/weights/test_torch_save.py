"""Whole modules that torch.save pickled: the same weights as the module's state dict, and nothing is run."""

from __future__ import annotations

import importlib
import io
import pickle
import struct
import sys
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from xcloudmask.errors import WeightsError
from xcloudmask.models.weights import torch_save
from xcloudmask.models.weights.torch_save import MAX_DEPTH, tensors


def saved(module: Any) -> bytes:
    out = io.BytesIO()
    torch.save(module, out)
    return out.getvalue()


def changed(data: bytes, change: Any, *, packed: bool = False) -> bytes:
    """The same archive with entries as `change(name, body)` gives them; None leaves one out."""
    out = io.BytesIO()
    how = zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w", how) as new:
        for info in old.infolist():
            body = change(info.filename.partition("/")[2], old.read(info))
            if body is not None:
                new.writestr(info.filename, body)
    return out.getvalue()


def with_pickle(body: bytes) -> bytes:
    return changed(saved(nn.Linear(2, 2)), lambda name, old: body if name == "data.pkl" else old)


class Odd(nn.Module):
    """Shared weights, a view of a larger storage, saved buffers and others, and a child that is None."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 3)
        self.again = self.first
        self.nothing = None
        self.register_module("absent", None)
        self.register_buffer("kept", torch.arange(12.0).reshape(3, 4).T[1:])
        self.register_buffer("short", torch.ones(2, dtype=torch.float16))
        self.register_buffer("scratch", torch.zeros(5), persistent=False)
        self.stored = torch.zeros(7)  # no weight, as what a hook kept is none
        self.norm = nn.Sequential(nn.BatchNorm2d(2), nn.Mish())


def test_the_weights_are_those_of_the_state_dict_in_its_order() -> None:
    module = Odd()
    found, notes = tensors(saved(module), "odd.pkl")
    wanted = module.state_dict()
    assert list(found) == list(wanted)
    for name, tensor in wanted.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor), name
    assert {"torch.nn.modules.activation.Mish", f"{__name__}.Odd"} <= notes["classes"]
    assert "torch.nn.modules.activation.ReLU" not in notes["classes"]


CALLS = {
    "builtin": b"\x80\x02c__builtin__\nexec\nX\x06\x00\x00\x00x = 1 \x85R.",
    "new name": b"\x80\x02cbuiltins\neval\nX\x01\x00\x00\x001\x85R.",
    "command": b"\x80\x02cposix\nsystem\nX\x04\x00\x00\x00true\x85R.",
    "deep": b"\x80\x02cos.path\njoin\nX\x01\x00\x00\x00a\x85R.",
}


@pytest.mark.parametrize("kind", CALLS)
def test_what_no_network_needs_is_refused_by_name(kind: str) -> None:
    name = {"builtin": "exec", "new name": "eval", "command": "posix.system", "deep": "os.path.join"}[kind]
    with pytest.raises(WeightsError, match=f"evil.pkl: its pickle names .*{name}, which no network needs"):
        tensors(with_pickle(CALLS[kind]), "evil.pkl")


CANARY = """
import pathlib, torch
pathlib.Path("IMPORTED").touch()
def called(*arguments):
    pathlib.Path("CALLED").touch()
class Trap:
    def __reduce__(self):
        return called, (self.__class__,)
class Net(torch.nn.Linear):
    def __init__(self):
        super().__init__(2, 3)
        self.trap = Trap()
    def __setstate__(self, state):
        called()
"""


def test_what_a_pickle_names_is_neither_imported_nor_called(tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "canary_package.py").write_text(CANARY)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module("canary_package").Net()
    data = saved(module)
    del sys.modules["canary_package"]
    (tmp_path / "IMPORTED").unlink()
    found, notes = tensors(data, "net.pkl")
    assert torch.equal(found["weight"], module.weight)
    assert {"canary_package.Net", "canary_package.called", "canary_package.Trap"} <= notes["classes"]
    assert "canary_package" not in sys.modules
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["canary_package.py"]


def op_string(text: str) -> bytes:
    return b"X" + struct.pack("<I", len(text)) + text.encode()


def nested(levels: int) -> bytes:
    """A module whose one child is its own class again, so many times."""
    enter = b"cx\nM\n)\x81}" + op_string("_modules") + b"}" + op_string("a")
    return b"\x80\x02" + enter * levels + b"N" + b"ssb" * levels + b"."


def doubled(levels: int) -> bytes:
    """A module whose two children are one module, whose two children are one, ...: 2**levels paths."""
    body = b"\x80\x02cx\nM\n)\x81}b\x71\x00"
    for level in range(levels):
        children = (
            b"}(" + op_string("a") + b"h" + bytes([level]) + op_string("b") + b"h" + bytes([level]) + b"u"
        )
        body += b"cx\nM\n)\x81}" + op_string("_modules") + children + b"sbq" + bytes([level + 1])
    return body + b"."


HOSTILE = {
    "memo": (b"\x80\x02}r\xff\xff\xff\xff.", "no state dict"),
    "long text": (b"\x80\x02X\xff\xff\xff\x7fabc.", "damaged"),
    "long number": (b"\x80\x02\x8b\xff\xff\xff\x7f.", "damaged|LONG4"),
    "many steps": (b"\x80\x02" + b"}" * (2**18 + 8) + b".", "more than 262,144 steps"),
    "duplicates": (b"\x80\x02}" + b"2" * 100 + b".", "the step DUP"),
    "own stack": (b"\x80\x02R.", "damaged"),
    "no end": (b"\x80\x02}", "damaged"),
    "legacy": (b"(dp0\n.", "the step DICT|the step PUT"),
    "deep": (nested(MAX_DEPTH + 2), "nested more than 64 deep"),
    "wide": (doubled(60), "more than 4,096"),
    "a dict": (b"\x80\x02}" + op_string("a") + b"Ns.", "no state dict"),
    "empty": (nested(1), "no module with weights"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_pickles_are_refused_and_take_little_memory(kind: str) -> None:
    body, says = HOSTILE[kind]
    data = with_pickle(body)
    tracemalloc.start()
    try:
        with pytest.raises(WeightsError, match=rf"evil\.pkl.*({says})"):
            tensors(data, "evil.pkl")
        assert tracemalloc.get_traced_memory()[1] < 150 * 2**20
    finally:
        tracemalloc.stop()


def test_tensors_that_claim_more_than_their_storage_are_refused() -> None:
    """Sizes, strides, offsets and counts, changed in the pickle of an honest module."""
    module = nn.Linear(300, 3, bias=False)  # M: numbers of two bytes
    size, columns = b"M" + struct.pack("<H", 900), b"K\x03M" + struct.pack("<H", 300)
    stride = b"M" + struct.pack("<H", 300) + b"K\x01\x86"
    huge = b"J" + struct.pack("<i", 2**30)
    for old, new, says in (
        (columns, b"K\x03" + huge, r"claims 3,221,225,472 numbers.*has 900"),
        (columns, b"K\x04M" + struct.pack("<H", 300), "claims 1,200 numbers"),
        (stride, huge + b"K\x01\x86", "claims 2,147,483,948 numbers"),
        (stride, b"K\x00K\x00\x86", None),
        (size, huge, r"hold 1,073,741,824 numbers and has 3,600 bytes"),
        (columns, b"K\x03J\xff\xff\xff\xff", "shape of its tensor 'weight' is damaged"),
        (b"FloatStorage", b"ComplexFloatStorage", "no storage that is known"),
        (op_string("0"), op_string("9"), "data/9 shall hold"),
    ):
        data = changed(saved(module), lambda name, body, old=old, new=new: body.replace(old, new))
        assert old in zipfile.ZipFile(io.BytesIO(saved(module))).read("archive/data.pkl")
        if says:
            with pytest.raises(WeightsError, match=rf"net\.pkl.*{says}"):
                tensors(data, "net.pkl")
        else:  # no more numbers than there are: a view, however it was made
            assert tensors(data, "net.pkl")[0]["weight"].shape == (3, 300)


def test_a_tensor_of_many_dimensions_is_refused() -> None:
    """To multiply its sizes would take long, and they need not be small."""
    module = nn.Linear(300, 3, bias=False)
    sizes, strides = b"K\x03M\x2c\x01\x86", b"M\x2c\x01K\x01\x86"
    data = saved(module)
    for old in (sizes, strides):
        assert old in zipfile.ZipFile(io.BytesIO(data)).read("archive/data.pkl")
        data = changed(data, lambda name, body, old=old: body.replace(old, b"(" + b"K\x01" * 9 + b"t"))
    with pytest.raises(WeightsError, match=r"net\.pkl: the shape of its tensor 'weight' is damaged"):
        tensors(data, "net.pkl")


def test_archives_that_torch_does_not_write_are_refused() -> None:
    data = saved(nn.Linear(4, 4))

    def big_endian(name: str, body: bytes) -> bytes:
        return b"big" if name == "byteorder" else body

    twice = io.BytesIO(data)
    with zipfile.ZipFile(twice, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("archive/data/0", bytes(64))
    script = io.BytesIO(data)
    with zipfile.ZipFile(script, "a") as archive:
        archive.writestr("archive/code/evil.py", b"import os")
    for bytes_, says in (
        (changed(data, lambda name, body: body + bytes(10**7), packed=True), "packed.*zip bomb"),
        (changed(data, lambda name, body: None if name == "data.pkl" else body), "no data.pkl"),
        (changed(data, lambda name, body: None if name == "data/0" else body), "data/0 shall hold 16"),
        (changed(data, big_endian), "byteorder' in another byte order"),
        (twice.getvalue(), "data/0' twice"),
        (script.getvalue(), "as TorchScript"),
        (data[: len(data) // 2], "damaged, or did not arrive whole"),
        (pickle.dumps(1), "a bare pickle"),
    ):
        with pytest.raises(WeightsError, match=rf"net\.pkl.*{says}"):
            tensors(bytes_, "net.pkl")


def test_storages_that_share_bytes_do_not_add_up_to_more_than_the_file() -> None:
    data = saved(nn.ModuleList(nn.Linear(1000, 10, bias=False) for _ in range(4)))
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = {info.filename.partition("/")[2]: info for info in archive.infolist()}
        root, _ = torch_save.followed(archive.read(entries["data.pkl"]), "net.pkl")
        reader = torch_save._Reader(archive, entries, 3 * 40_000, "net.pkl")
        with pytest.raises(WeightsError, match="the file can hold 0 more"):
            reader.tensors(root)


def test_names_of_buffers_that_are_not_saved_are_a_list_of_strings() -> None:
    """Each tensor is looked up among them: text of megabytes would be searched each time."""
    for names, expected in ((["a", 1, ["b"]], {"a"}), ("abc", set()), ({"a": 1}, set()), (None, set())):
        state = {"_non_persistent_buffers_set": torch_save.Inert("builtins.set", (names,))}
        assert torch_save._unsaved(state) == expected
