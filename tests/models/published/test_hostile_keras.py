"""Keras files made to harm: refused by name, with nothing run, opened or filled. Ours show what is let in."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.models.published import golden
from xcloudmask import models
from xcloudmask.errors import CloudMaskError, WeightsError
from xcloudmask.models.weights import keras

h5py = pytest.importorskip("h5py", reason="Keras files need h5py: pip install 'xcloudmask[local]'")

REFUSED = {
    "bomb": "kept in chunks or packed",
    "external_link": "a link that may lead to any other file",
    "external_storage": "kept in other files, which are not read",
    "lambda": "holds no weights",
    "loop": "a second time, or within itself",
}


@golden.needed
@pytest.mark.parametrize("name", REFUSED)
def test_a_hostile_file_is_refused_by_name_and_runs_nothing(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where a payload would leave its mark
    path = golden.PUBLISHED / "hostile" / f"keras_{name}.hdf5"
    with pytest.raises(WeightsError, match=f"{path.name}.*{REFUSED[name]}"):
        models.load(path)
    assert not list(tmp_path.iterdir())


MEMORY = """
import sys
import torch, h5py
from pathlib import Path
from xcloudmask.errors import WeightsError
from xcloudmask.models.weights import keras

def kilobytes(what):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(what))

Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here
before = kilobytes("VmRSS")
try:
    keras.tensors(Path(sys.argv[1]).read_bytes(), "file")
except WeightsError:
    print(kilobytes("VmHWM") - before)
"""


def peak_of(path) -> int:
    """Kilobytes that a process of its own needs more for a file that is refused."""
    done = subprocess.run([sys.executable, "-c", MEMORY, path], capture_output=True, text=True, check=True)
    return int(done.stdout)


@golden.needed
@pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="the peak of memory is read from /proc"
)
def test_a_bomb_takes_no_memory():
    assert 0 < peak_of(golden.PUBLISHED / "hostile" / "keras_bomb.hdf5") < 20_000


# --- files of our own: one thing each that Keras does not write ---------------------------------------------


def written(fill) -> bytes:
    """A file with one honest layer, and what `fill` adds to its group of weights."""
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        weights = file.create_group("model_weights")
        weights["dense/dense/kernel:0"] = np.arange(6, dtype="<f4").reshape(2, 3)
        fill(weights)
    return buffer.getvalue()


def test_an_honest_file_gives_tensors_by_name_and_no_state_of_the_optimiser():
    def more(weights):
        weights["dense/dense/bias:0"] = np.array([1, 2, 3], ">f8")
        weights.file["optimizer_weights/m:0"] = np.ones(3, "f4")
        weights.file.attrs["model_config"] = '{"class_name": "Lambda"}'

    found, notes = keras.tensors(written(more), "honest.h5")
    assert {name: tensor.tolist() for name, tensor in found.items()} == {
        "dense/dense/kernel": [[0, 1, 2], [3, 4, 5]],
        "dense/dense/bias": [1, 2, 3],
    }
    assert notes == {}


def deep(weights):
    for _ in range(20):
        weights = weights.create_group("a")


def larger_than_the_file(weights):
    space = h5py.h5s.create_simple((2**28,))
    h5py.h5d.create(weights.id, b"a", h5py.h5t.IEEE_F32LE, space)  # contiguous, and never written


def virtual(weights):
    layout = h5py.VirtualLayout((2,), "f4")
    layout[:] = h5py.VirtualSource("other.h5", "a", (2,))
    weights.create_virtual_dataset("a", layout)


@pytest.mark.parametrize(
    ("fill", "message"),
    [
        (larger_than_the_file, "larger than the whole file"),
        (virtual, "kept in other files"),
        (lambda w: w.__setitem__("a", h5py.SoftLink("/model_weights")), "a link"),
        (lambda w: w.__setitem__("a", h5py.SoftLink("/model_weights/a")), "a link"),
        (lambda w: w.__setitem__("a", w["dense/dense/kernel:0"]), "a second time"),
        (lambda w: w.create_dataset("a", data=np.ones(9, "f4"), compression="gzip"), "h5repack"),
        (lambda w: w.create_dataset("a", data=np.ones(9, "f4"), chunks=(9,)), "h5repack"),
        (lambda w: w.__setitem__("a", "os.system"), "holds object"),
        (lambda w: w.__setitem__("a", np.ones(2, "i4")), "holds int32"),
        (lambda w: w.__setitem__("a", h5py.Empty("f4")), "floating-point numbers"),
        (lambda w: w.__setitem__("a", np.dtype("f4")), "holds float32"),
        (deep, "deeper"),
    ],
)
def test_what_keras_does_not_write_is_refused(fill, message):
    with pytest.raises(WeightsError, match=f"odd.h5.*{message}"):
        keras.tensors(written(fill), "odd.h5")


def test_a_linked_group_of_weights_is_not_followed(tmp_path):
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["a"] = np.ones(2, "f4")
    for link in (h5py.ExternalLink(str(tmp_path / "other.h5"), "/"), h5py.SoftLink("/model_weights")):
        buffer = io.BytesIO()
        with h5py.File(buffer, "w") as file:
            file["model_weights"] = link
        with pytest.raises(WeightsError, match="model_weights is a link"):
            keras.tensors(buffer.getvalue(), "linked.h5")


@pytest.mark.parametrize("damage", ["cut", "zeros", "text", "nothing"])
def test_what_did_not_arrive_whole_is_told(damage):
    whole = written(lambda weights: None)
    data = {"cut": whole[: len(whole) // 2], "zeros": bytes(5000), "text": b"<html>", "nothing": b""}[damage]
    with pytest.raises(WeightsError, match=r"net\.h5 is no HDF5 file, or did not arrive whole"):
        keras.tensors(data, "net.h5")


def test_without_h5py_the_remedy_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(CloudMaskError, match=r"net.h5: a Keras file.*xcloudmask\[local\]"):
        keras.tensors(b"", "net.h5")
