"""Files of `torch.save` that torch would read for hours, or until the memory is full."""

from __future__ import annotations

import argparse
import collections
import datetime
import io
import pickle
import struct
import zipfile

import pytest
import torch

from xcloudmask.errors import WeightsError
from xcloudmask.models.weights import formats


def archive(pickled, storages=()):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as entries:
        for name, body in {"data.pkl": pickled, "byteorder": b"little", **dict(storages)}.items():
            entries.writestr(f"net/{name}", body)
    return out.getvalue()


def read(data):
    return formats.tensors(data, "torch", "net.pt")[0]


def test_a_key_that_takes_for_ever_to_hash_is_not_hashed():
    doubled = b"h\x00h\x00\x86q\x00" * 60  # pairs of pairs of pairs: 2**60 to hash
    bomb = b"\x80\x02](" + b")q\x00" + doubled + b"e}h\x00K\x01s\x86."
    with pytest.raises(WeightsError, match=r"net\.pt holds no module"):
        read(archive(bomb))


def test_memory_that_a_pickle_asks_for_is_not_taken():
    ten_gigabytes = b"\x8a\x05" + (10**10).to_bytes(5, "little")
    bomb = b"\x80\x02}X\x01\x00\x00\x00acbuiltins\nbytearray\n" + ten_gigabytes + b"\x85Rs."
    with pytest.raises(WeightsError, match="no state dict"):
        read(archive(bomb))


def test_storages_that_share_their_bytes_are_refused():
    out = io.BytesIO()
    torch.save({f"w{place}": torch.zeros(1000) for place in range(3)}, out)
    with zipfile.ZipFile(out) as original:
        bodies = {info.filename: original.read(info) for info in original.infolist()}
    crafted = io.BytesIO()
    with zipfile.ZipFile(crafted, "w") as entries:
        for name, body in bodies.items():
            if not name.endswith(("data/1", "data/2")):
                entries.writestr(name, body)
        (first,) = (info for info in entries.infolist() if info.filename.endswith("data/0"))
        for key in ("1", "2"):  # two more entries of the directory, and no more bytes
            info = zipfile.ZipInfo(first.filename[:-1] + key)
            info.header_offset, info.CRC = first.header_offset, first.CRC
            info.file_size = info.compress_size = first.file_size
            entries.filelist.append(info)
    with pytest.raises(WeightsError, match="unpacks to more than its own size"):
        read(crafted.getvalue())


def test_a_second_directory_is_not_read():
    """Python's zipfile takes the directory before the end, torch the one at the offset that the end names."""
    packed, plain = io.BytesIO(), io.BytesIO()
    saved = io.BytesIO()
    torch.save({"a": torch.zeros(8)}, saved)
    with zipfile.ZipFile(saved) as original:
        pickled = next(original.read(info) for info in original.infolist() if "data.pkl" in info.filename)
    for out, number in ((packed, 1.0), (plain, 2.0)):
        with zipfile.ZipFile(out, "w") as entries:
            entries.writestr("net/data.pkl", pickled)
            entries.writestr("net/byteorder", b"little")
            entries.writestr("net/data/0", struct.pack("<8f", *[number] * 8))
            entries.writestr("net/version", b"3\n")
    evil, good = packed.getvalue(), plain.getvalue()
    end, last = evil.rfind(b"PK\5\6"), good.rfind(b"PK\5\6")
    assert read(evil[:end] + good[:last] + evil[end:])["a"].tolist() == [2.0] * 8


@pytest.mark.parametrize("wrap", [dict, lambda s: {"epoch": 3, "model": {"state_dict": s}}])
def test_state_dicts_and_checkpoints_are_read_as_torch_reads_them(wrap):
    base = torch.arange(12.0)
    state = {
        "a.weight": base.view(3, 4).t(), "a.part": base[2:5], "b": torch.tensor(7), "half": base.half(),
        "brain": base.bfloat16(), "own": torch.nn.Parameter(torch.ones(2)), "none": torch.zeros(0, 3),
    }  # fmt: skip
    out = io.BytesIO()
    torch.save(wrap(state), out)
    ours = read(out.getvalue())
    assert ours.keys() == state.keys()
    for name, tensor in state.items():
        assert ours[name].dtype == tensor.dtype
        assert torch.equal(ours[name], tensor)


def test_a_bare_pickle_is_refused_with_the_way_out():
    out = io.BytesIO()
    torch.save({"a": torch.ones(2)}, out, _use_new_zipfile_serialization=False)
    for data in (out.getvalue(), pickle.dumps({"a": 1})):
        with pytest.raises(WeightsError, match=r"bare pickle.*torch\.load\(FILE, weights_only=True\)"):
            read(data)


class Settings:
    """A class of the training script, as OmegaConf's containers are."""

    def __init__(self):
        self.lr = 0.1


def test_a_checkpoint_with_objects_beside_its_weights_is_read():
    """As Lightning writes them: hyperparameters, times, an optimizer's numbers, the loss as a tensor."""
    network = torch.nn.Linear(3, 2)
    optimizer = torch.optim.Adam(network.parameters())
    network(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    out = io.BytesIO()
    torch.save({
        "loss": torch.tensor(0.5), "hyper_parameters": argparse.Namespace(lr=0.1, settings=Settings()),
        "optimizer_states": [optimizer.state_dict()], "time": datetime.datetime(2024, 1, 2),
        "raw": b"abc", "counts": collections.defaultdict(list, {"a": [1]}), "names": {"a", "b"},
        "state_dict": network.state_dict(),
    }, out)  # fmt: skip
    ours = read(out.getvalue())
    assert ours.keys() == {"weight", "bias"}
    assert torch.equal(ours["weight"], network.weight)
