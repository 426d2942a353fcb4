"""The networks of ukis-csmask in torch: as onnxruntime has them, on GPUs, in half precision, trained on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.scenes import NAMES, noise, same_odds, scene, weather
from tests.train.conftest import write_patch
from xcloudmask import models
from xcloudmask.engine import predictor
from xcloudmask.engine.devices import check_dtype, for_device
from xcloudmask.engine.onnx import OnnxBackend
from xcloudmask.engine.predictor import make_backend
from xcloudmask.engine.torch import TorchBackend
from xcloudmask.errors import CloudMaskError, ModelWarning, WeightsError
from xcloudmask.models.network import Network, load_network
from xcloudmask.models.sources import ukis
from xcloudmask.models.weights.inspect import onnx_tensors
from xcloudmask.train import fine_tune
from xcloudmask.train.networks import begin
from xcloudmask.types import ModelSpec

pytestmark = [pytest.mark.network, pytest.mark.usefixtures("one_thread")]

DATA = Path(__file__).parents[4] / "shared" / "data"
ALL = [spec.name for spec in ukis.SPECS]
#: What onnxruntime's rounding of four layers makes in a probability, and what is a tie therefore.
ROUNDED = 1e-3


def in_torch(name: str) -> ModelSpec:
    return replace(models.get(name), runtime="torch", gpu_runtime=None)


def probabilities(spec: ModelSpec, pixels: np.ndarray) -> np.ndarray:
    backend = make_backend(load_network(spec), spec.runtime, "cpu", "float32")
    return backend.fetch(backend.probabilities(backend.upload([pixels])))


def same_but_for_ties(found: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_allclose(found, expected, atol=ROUNDED, rtol=0)
    highest = np.sort(expected, axis=1)
    decided = highest[:, -1] - highest[:, -2] > ROUNDED
    np.testing.assert_array_equal(found.argmax(axis=1)[decided], expected.argmax(axis=1)[decided])
    assert decided.mean() > 0.99


@pytest.mark.parametrize("name", ALL)
def test_torch_says_what_onnxruntime_says(name: str) -> None:
    pixels = weather(256, 256, bands=4 if "4band" in name else 6, seed=2)
    expected = probabilities(models.get(name), pixels)
    assert len(np.unique(expected.argmax(axis=1))) == 3
    same_but_for_ties(probabilities(in_torch(name), pixels), expected)


@pytest.mark.parametrize("name", [spec.name for spec in ukis.SPECS if not spec.members])
def test_a_graph_takes_windows_of_other_sides_and_says_the_same_at_its_own(name: str) -> None:
    import onnxruntime as ort

    def answer(body: bytes, side: int) -> np.ndarray:
        session = ort.InferenceSession(body, providers=["CPUExecutionProvider"])
        out: np.ndarray = session.run(None, {"input": pixels[:, :, :side, :side]})[0]
        return out

    spec = models.get(name)
    network = load_network(spec)
    pixels = weather(320, 320, bands=len(spec.bands), seed=5)[None]
    np.testing.assert_array_equal(answer(network.body, 256), answer(ukis._carried(spec)[0], 256))
    backends = [
        make_backend(network, "onnx", "cpu", "auto"),
        make_backend(load_network(in_torch(name)), "torch", "cpu", "auto"),
    ]
    found, expected = (
        np.asarray(backend.probabilities(backend.upload(list(pixels)))) for backend in backends
    )
    assert found.shape == (1, 3, 320, 320)
    same_but_for_ties(found, expected)


def unrounded(name: str, folder: Path) -> OnnxBackend:
    """Onnxruntime's own form of the graph, batch norms worked in, but no layer cast to half precision."""
    onnx = pytest.importorskip("onnx", reason="the package onnx is not installed")
    import onnxruntime as ort

    network = load_network(models.get(name))
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(folder / "net.onnx")
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    ort.InferenceSession(network.body, options, providers=["CPUExecutionProvider"])
    proto = onnx.load(folder / "net.onnx")
    casts = [node for node in proto.graph.node if node.op_type == "Cast" and node.attribute[0].i == 10]
    for node in casts:
        node.attribute[0].i = 1
    del proto.graph.value_info[:]
    assert casts
    return OnnxBackend(Network(proto.SerializeToString(), network.mean, network.std), "cpu")


@pytest.mark.parametrize("name", ["ukis-6band-l2a", "ukis-4band-l1c"])
def test_without_that_rounding_they_are_equal(name: str, tmp_path: Path) -> None:
    spec = models.get(name)
    pixels = weather(256, 256, bands=len(spec.bands), seed=4)
    np.testing.assert_allclose(
        probabilities(in_torch(name), pixels), unrounded(name, tmp_path).probabilities(pixels[None]),
        atol=1e-4, rtol=0,
    )  # fmt: skip


def real_windows(name: str) -> Iterator[np.ndarray]:
    """The first window of every patch that has a network's bands, at its level; gaps are dark."""
    bands = list(models.get(name).bands)
    for path in sorted(DATA.glob("*/*/*.npz")):
        with np.load(path) as stored:
            if "meta" not in stored or ("L2A" in str(stored["meta"])) != name.endswith("l2a"):
                continue
            names = [str(band) for band in stored["bands"]]
            names = ["nir" if band == "nir08" and "nir" not in names else band for band in names]
            if set(bands) <= set(names):
                raw = stored["image"][[names.index(band) for band in bands], :256, :256]
                yield np.where(raw == 65535, np.float32(0), raw / np.float32(1e4))


@pytest.mark.slow
@pytest.mark.parametrize("name", [spec.name for spec in ukis.SPECS if not spec.members])
def test_torch_says_what_onnxruntime_says_of_every_real_patch(name: str, tmp_path: Path) -> None:
    """Within its rounding as it comes, to 1e-4 without it: 1.05e-4 in a patch that is all bright."""
    if not DATA.exists():
        pytest.skip("needs shared/data, which is not part of the repository")
    backends = [make_backend(load_network(spec), spec.runtime, "cpu", "float32")
                for spec in (in_torch(name), models.get(name))]  # fmt: skip
    exact, count = unrounded(name, tmp_path), 0
    for pixels in real_windows(name):
        ours, theirs = (each.fetch(each.probabilities(each.upload([pixels]))) for each in backends)
        same_but_for_ties(ours, theirs)
        np.testing.assert_allclose(ours, exact.probabilities(pixels[None]), atol=1.2e-4, rtol=0)
        count += 1
    assert count


def test_chunks_and_threads_make_no_difference_in_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = weather(300, 260, bands=4)
    pixels[:, 120:180, 30:90] = np.nan
    da, spec = scene(pixels, NAMES[:4]), in_torch("ukis-4band-l1c")
    found = []
    for threads in ("1", "3"):
        monkeypatch.setenv("XCLOUDMASK_NUM_THREADS", threads)
        models_of_it = {"model": spec, "device": "cpu"}
        predictor.unload()
        found.append(da.cloudmask.predict_proba(**models_of_it).values)
        chunked = da.chunk(y=(1, 255, 44), x=101).cloudmask
        same_odds(chunked.predict_proba(**models_of_it).values, found[0])
        np.testing.assert_array_equal(
            chunked.predict(**models_of_it).values, da.cloudmask.predict(**models_of_it).values
        )
    same_odds(found[1], found[0])


class FakeGpu(TorchBackend):
    """A GPU that is the CPU; it counts what is copied there and back, and how often it is waited for."""

    def __init__(self, network: Network, device: str, dtype: str) -> None:
        super().__init__(network, "cpu", dtype)
        self.device_name, self.lanes = device, 1
        self.there, self.back, self.waits = 0, 0, 0
        self.kind = device.partition(":")[0]
        self.asked, self.autocast = dtype, None

    def upload(self, arrays: Any) -> Any:
        self.there += 1
        return super().upload(arrays)

    def probabilities(self, pixels: Any) -> Any:
        self.kind, kind = "cpu", self.kind  # for autocast alone
        try:
            return super().probabilities(pixels)
        finally:
            self.kind = kind

    def fetch(self, sums: Any) -> Any:
        self.back += 1
        return super().fetch(sums)

    def mark(self) -> Any:
        def wait() -> None:
            self.waits += 1

        return wait


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[FakeGpu]]:
    """What is put on the one GPU of this machine."""
    made: list[FakeGpu] = []

    def make(network: Network, device: str, dtype: str) -> FakeGpu:
        made.append(FakeGpu(network, device, dtype))
        return made[-1]

    predictor.unload()
    monkeypatch.setattr(predictor, "available_devices", lambda device, runtime: ["cuda:0"])
    monkeypatch.setattr("xcloudmask.engine.torch.TorchBackend", make)
    yield made
    predictor.unload()


@pytest.mark.parametrize("device", ["auto", "cuda"])
@pytest.mark.parametrize("name", ["ukis-4band-l1c", "ukis-any-l1c"])
def test_where_there_is_a_gpu_the_default_models_run_on_it(
    name: str, device: str, made: list[FakeGpu], monkeypatch: pytest.MonkeyPatch
) -> None:
    da = scene(weather(256, 464, bands=4), NAMES[:4])
    found = da.cloudmask.predict_proba(name, device=device).values
    with monkeypatch.context() as without:
        without.setattr(predictor, "available_devices", lambda device, runtime: ["cpu"])
        expected = da.cloudmask.predict_proba(name, device="cpu").values
    np.testing.assert_allclose(found, expected, atol=ROUNDED, rtol=0)
    assert len(made) == (2 if name == "ukis-any-l1c" else 1)  # its members
    # two windows in one batch: pixels and weights there, sums back, and the first batch looked at
    assert {(gpu.device_name, gpu.asked) for gpu in made} == {("cuda:0", "auto")}
    assert (made[0].there, made[0].back, made[0].waits) == (2, 2, 0)
    assert [(gpu.there, gpu.back) for gpu in made[1:]] == [(0, 0)] * len(made[1:])


def test_a_gpu_is_two_batches_ahead_and_sums_come_back_once(made: list[FakeGpu]) -> None:
    da = scene(weather(256, 1200, bands=4), NAMES[:4])
    mask = da.cloudmask.predict("ukis-4band-l1c", device="auto", batch_size=1)
    (gpu,), batches = made, 6
    # there: pixels and weights of each batch; back: the first batch, which is looked at, and the sums
    assert (gpu.there, gpu.back, gpu.waits) == (2 * batches, 2, batches - 2)
    assert mask.shape == (256, 1200)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@pytest.mark.parametrize("name", ALL)
def test_a_real_gpu_says_what_the_cpu_says(name: str) -> None:
    da = scene(weather(600, 500), NAMES, level=name[-3:].upper()).chunk(y=300)
    expected = da.cloudmask.predict_proba(name, device="cpu").values
    for dtype, within in (("float32", ROUNDED), ("auto", 0.5)):
        found = da.cloudmask.predict_proba(name, device="cuda", dtype=dtype).values
        np.testing.assert_allclose(found, expected, atol=within, rtol=0)
        assert (found.argmax(1) == expected.argmax(1)).mean() > 0.95


def test_which_runtime_a_device_and_a_precision_get() -> None:
    spec, other = models.get("ukis-any-l1c"), replace(models.get("ukis-4band-l1c"), gpu_runtime=None)
    for device, dtype, runtime in (
        ("cpu", "auto", "onnx"), ("cpu", "float32", "onnx"), ("cpu", "bfloat16", "torch"),
        ("cuda:1", "auto", "torch"), ("mps", "float32", "torch"), ("openvino", "auto", "onnx"),
    ):  # fmt: skip
        assert for_device(spec, device, dtype).runtime == runtime, (device, dtype)
        assert for_device(other, device, dtype) is other
    check_dtype("bfloat16", spec)
    for card, device in ((other, "cpu"), (spec, "openvino:GPU")):
        with pytest.raises(CloudMaskError, match="is an ONNX graph"):
            check_dtype("bfloat16", card, device)


def test_half_precision_on_the_cpu() -> None:
    da = scene(weather(256, 256, bands=4), NAMES[:4])
    expected = da.cloudmask.predict("ukis-4band-l1c", device="cpu").values
    half = da.cloudmask.predict("ukis-4band-l1c", device="cpu", dtype="bfloat16").values
    assert 0 < (half != expected).mean() < 0.03  # it is another precision, and about the same answer


# --- weights and training ---


def test_weights_are_read_as_onnx_reads_them() -> None:
    onnx = pytest.importorskip("onnx", reason="the package onnx is not installed")
    body = load_network(models.get("ukis-4band-l1c")).body
    ours = onnx_tensors(body, "net")
    theirs = {
        one.name: onnx.numpy_helper.to_array(one) for one in onnx.load_from_string(body).graph.initializer
    }
    assert ours.keys() == theirs.keys()
    for name, values in theirs.items():
        np.testing.assert_array_equal(ours[name], values, err_msg=name)
        assert ours[name].dtype == values.dtype


@pytest.mark.parametrize("wrong", ["kind", "shape"])
def test_tensors_that_are_not_plain_numbers_are_refused(wrong: str) -> None:
    onnx = pytest.importorskip("onnx", reason="the package onnx is not installed")
    one = onnx.numpy_helper.from_array(np.zeros((2, 3), np.float32 if wrong == "shape" else np.int64), "w")
    if wrong == "shape":
        one.dims[0] = 5
    body = onnx.ModelProto(graph=onnx.GraphProto(initializer=[one])).SerializeToString()
    with pytest.raises(WeightsError, match="32 or 16 bits" if wrong == "kind" else "6 numbers"):
        onnx_tensors(body, "net")


def in_single(body: bytes) -> bytes:
    """Return a graph in half precision as one in single, so that nothing is rounded anywhere."""
    onnx = pytest.importorskip("onnx", reason="the package onnx is not installed")
    proto, half, single = onnx.load_from_string(body), onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT
    values = [attribute for node in proto.graph.node for attribute in node.attribute]
    for tensor in (*proto.graph.initializer, *(value.t for value in values if value.name == "value")):
        if tensor.data_type == half:
            numbers = onnx.numpy_helper.to_array(tensor).astype(np.float32)
            tensor.CopyFrom(onnx.numpy_helper.from_array(numbers, tensor.name))
    for value in values:
        if value.name == "to" and value.i == half:
            value.i = single
    del proto.graph.value_info[:]
    return bytes(proto.SerializeToString())


@pytest.mark.parametrize("name", ["ukis-6band-l1c", "ukis-4band-l2a"])
def test_training_begins_with_the_network_as_it_was_trained(name: str) -> None:
    spec = models.get(name)
    begun = begin({"start": spec, "classes": spec.classes})
    assert (begun.architecture, begun.entries["activation"]) == ("unet", "softmax")
    pixels = weather(256, 256, bands=len(spec.bands), seed=6)
    begun.called.eval()
    with torch.no_grad():
        found = begun.called(torch.from_numpy(pixels)[None], torch.zeros(len(spec.bands), 0)).softmax(dim=1)
    carried = load_network(spec)
    backend = make_backend(replace(carried, body=in_single(carried.body)), "onnx", "cpu", "auto")
    np.testing.assert_allclose(found.numpy(), backend.probabilities(pixels[None]), atol=1e-4, rtol=0)


def test_ukis_is_trained_on_written_and_read_again(tmp_path: Path) -> None:
    for number in range(4):
        write_patch(tmp_path / "data" / "l8" / f"{number}.npz", number)
    told: dict[str, Any] = {"epochs": 1, "length": 1, "batch": 1, "dev": 0, "rate": 1e-3}
    with pytest.warns(ModelWarning, match="was trained for 1 steps only"):
        mine = fine_tune(
            "ukis-4band-l1c", tmp_path / "data", tmp_path / "mine", classes=["clear", "cloud"],
            only=["logits", "up.4"], **told,
        )  # fmt: skip
    assert (mine.runtime, mine.architecture, mine.classes) == ("torch", "unet", ("clear", "cloud"))
    assert json.loads(mine.config)["keep_statistics"] is True
    assert (mine.patch, mine.patch_fixed, mine.bands) == (256, True, ukis.BANDS[:4])
    spec = ukis.as_trained(models.get("ukis-4band-l1c"))
    before, after = (load_network(each).body.state_dict() for each in (spec, mine))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert {"logits.weight", "up.4.0.0.weight"} <= changed
    assert {name[:4] for name in changed} == {"logi", "up.4"}
    assert not [name for name in changed if "running" in name], "means and variances stay"
    assert abs(after["logits.weight"][0] - before["logits.weight"][0]).max() < 0.01  # clear keeps its row
    da = scene(noise(4, 256, 256) * 0.3, NAMES[:4])
    expected = da.cloudmask.predict_proba(mine, scheme="native").values
    *_, item = models.export(mine, tmp_path / "out")
    assert {path.suffix for path in (tmp_path / "out").iterdir()} == {".safetensors", ".onnx", ".json"}
    for name in ("mine.json", "graph.onnx"):
        again = models.load(item, name="mine-again", overwrite=True)
        if name == "graph.onnx":
            again = models.load(
                tmp_path / "out" / "mine.onnx", name="mine-again", bands=mine.bands, classes=mine.classes,
                mean=mine.mean, std=mine.std, activation="softmax", level="toa", patch=256, overlap=32,
                overwrite=True,
            )  # fmt: skip
        found = da.cloudmask.predict_proba(again, scheme="native").values
        np.testing.assert_allclose(found, expected, atol=1e-4, rtol=0)
    with pytest.warns(ModelWarning, match="steps only"):
        further = fine_tune(mine, tmp_path / "data", tmp_path / "further", **told)
    assert further.architecture == "unet"
