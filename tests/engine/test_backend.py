"""The backends against each other, and the rules for devices, precision and threads."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.scenes import noise, scene
from xcloudmask import models, testing
from xcloudmask.engine import devices
from xcloudmask.engine.devices import available_devices, cpu_threads
from xcloudmask.engine.onnx import OnnxBackend, softmax
from xcloudmask.engine.torch import TorchBackend, autocast_dtype
from xcloudmask.errors import CloudMaskError, ModelWarning
from xcloudmask.models.network import Network, load_network
from xcloudmask.testing import TOY

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")


def torch_backend(device: str = "cpu", dtype: str = "auto", **network: Any) -> TorchBackend:
    return TorchBackend(Network(nn.Identity(), **network), device, dtype)


def numpy_backend(**network: Any) -> OnnxBackend:
    """An OnnxBackend whose session returns what it is given."""
    made = object.__new__(OnnxBackend)
    made.kind, made.input = "cpu", "x"
    made.network = Network(b"", **network)
    made.mean = np.asarray(network.get("mean", 0.0), np.float32).reshape(1, -1, 1, 1)
    made.std = np.asarray(network.get("std", 1.0), np.float32).reshape(1, -1, 1, 1)
    made.session = SimpleNamespace(run=lambda names, feed: [feed["x"]])
    return made


@pytest.mark.parametrize(
    ("activation", "bands"), [("softmax", 3), ("sigmoid", 1), ("complement", 1), (None, 2)]
)
def test_both_runtimes_normalise_and_activate_alike(activation: Any, bands: int) -> None:
    pixels = noise(2, bands, 6, 7) * 8 - 4
    given = {"activation": activation, "mean": (0.2, 0.3, 0.5)[:bands], "std": (0.5, 2.0, 3.0)[:bands]}
    ours, theirs = numpy_backend(**given), torch_backend(**given)
    one = ours.probabilities(ours.upload(list(pixels)))
    two = theirs.probabilities(theirs.upload(list(pixels))).numpy()
    np.testing.assert_allclose(one, two, atol=1e-6)
    if activation is None:
        normal = pixels - np.reshape(given["mean"], (1, -1, 1, 1))
        np.testing.assert_allclose(one, normal / np.reshape(given["std"], (1, -1, 1, 1)), atol=1e-6)
    else:
        np.testing.assert_allclose(one.sum(axis=1), 1, atol=1e-6)
    if activation in ("sigmoid", "complement"):
        assert (np.diff(one[:, 1].ravel()[np.argsort(pixels.ravel())]) >= 0).all(), "channel 1 is cloud"


def test_both_runtimes_weigh_and_add_bit_for_bit_alike() -> None:
    odds = noise(3, 2, 8, 8)
    odds[0, :, 2, 2] = np.nan  # no data there
    odds[1, 0, 5, 5] = np.nan  # an answer that the network did not give
    weights = noise(3, 6, 7, seed=9)
    weights[0, 2, 2] = 0
    places = [(0, slice(None), slice(row, row + 6), slice(row, row + 7)) for row in (0, 2, 3)]
    sums = []
    for backend in (numpy_backend(), torch_backend()):
        total = backend.zeros((1, 2, 10, 10))
        parts = backend.weigh(backend.upload(list(odds)), backend.upload(list(weights)))
        backend.add(total, places, parts)
        backend.mark()()
        backend.release()
        sums.append(backend.fetch(total))
    np.testing.assert_array_equal(*sums)
    assert sums[0][0, 0, 2, 2] == sums[0][0, 0, 2, 2] > 0  # the second window has data there
    assert np.isnan(sums[0][0]).sum() == 1
    scaled = np.nan_to_num(sums[0]) * 2.0**23
    np.testing.assert_array_equal(scaled, np.rint(scaled))


def test_uploading_copies() -> None:
    """The engine lets go of the windows while the device may still be reading."""
    pixels = [np.ones((1, 2, 2), np.float32), np.zeros((1, 2, 2), np.float32)]
    for backend in (numpy_backend(), torch_backend()):
        there = backend.upload(pixels)
        pixels[0][:] = 7
        assert float(there[0].max()) == 1
        pixels[0][:] = 1


@pytest.mark.parametrize("axes", [(), (2,), (3,), (2, 3)])
def test_flips(axes: tuple[int, ...]) -> None:
    pixels = noise(1, 2, 3, 4)
    expected = np.flip(pixels, axes)
    np.testing.assert_array_equal(numpy_backend().flip(pixels, axes), expected)
    np.testing.assert_array_equal(torch_backend().flip(torch.tensor(pixels), axes).numpy(), expected)


def test_softmax_of_large_logits() -> None:
    found = softmax(np.array([1000.0, 999.0, -1000.0], np.float32).reshape(1, 3, 1, 1)).ravel()
    np.testing.assert_allclose(found, [0.73105857, 0.26894143, 0], atol=1e-6)


@pytest.mark.parametrize(
    ("half", "kind", "capability", "dtype", "expected"),
    [
        ("float16", "cuda", (9, 0), "auto", torch.float16),
        ("float16", "cuda", (7, 5), "auto", torch.float16),
        ("float16", "cuda", (6, 1), "auto", None),
        ("bfloat16", "cuda", (8, 0), "auto", torch.bfloat16),
        ("bfloat16", "cuda", (7, 5), "auto", None),
        (None, "cuda", (9, 0), "auto", None),
        ("float16", "cpu", None, "auto", None),
        ("float16", "mps", None, "auto", None),
        ("float16", "cuda", (9, 0), "float32", None),
        (None, "cuda", (6, 1), "float16", torch.float16),
        (None, "cpu", None, "bfloat16", torch.bfloat16),
    ],
)
def test_half_precision_only_where_a_network_was_found_to_bear_it(
    half: Any, kind: str, capability: Any, dtype: str, expected: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert autocast_dtype(Network(half=half), kind, dtype) is expected


@pytest.mark.parametrize("parallel", [False, True])
def test_windows_are_inferred_in_parallel_where_the_network_bears_it(
    parallel: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XCLOUDMASK_NUM_THREADS", "4")
    backend = torch_backend(parallel=parallel)
    assert (backend.lanes, backend.threads) == ((4, 1) if parallel else (1, 4))


def machine_with(
    monkeypatch: pytest.MonkeyPatch, gpus: int, mps: bool = False, onnx_cuda: bool = False
) -> None:
    import onnxruntime

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    providers = ["CUDAExecutionProvider"] * onnx_cuda + ["CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: providers)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: "a card")
    monkeypatch.setattr(devices, "has_gpu_driver", lambda: bool(gpus or mps))
    devices._warn_of_idle_gpu.cache_clear()


@pytest.mark.parametrize(
    ("there", "device", "runtime", "expected"),
    [
        ({"gpus": 0}, "auto", "torch", ["cpu"]),
        ({"gpus": 2}, "auto", "torch", ["cuda:0", "cuda:1"]),
        ({"gpus": 2}, "cpu", "torch", ["cpu"]),
        ({"gpus": 2}, "cuda", "torch", ["cuda:0", "cuda:1"]),
        ({"gpus": 12}, "cuda:1", "torch", ["cuda:1"]),
        ({"gpus": 0, "mps": True}, "auto", "torch", ["mps"]),
        ({"gpus": 0, "mps": True}, "mps", "torch", ["mps"]),
        ({"gpus": 2}, "gpu", "torch", ["cuda:0", "cuda:1"]),
        ({"gpus": 0, "mps": True}, "gpu", "torch", ["mps"]),
        ({"gpus": 0, "mps": True}, "auto", "onnx", ["cpu"]),
        ({"gpus": 2, "onnx_cuda": True}, "auto", "onnx", ["cuda:0", "cuda:1"]),
    ],
)
def test_devices_of_a_machine(
    there: dict[str, Any], device: str, runtime: str, expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    machine_with(monkeypatch, **there)
    assert available_devices(device, runtime) == expected


def test_a_gpu_that_onnxruntime_cannot_use_is_named_once(monkeypatch: pytest.MonkeyPatch) -> None:
    machine_with(monkeypatch, gpus=2)
    with pytest.warns(ModelWarning, match=r"cannot use the GPU .*a card.*install onnxruntime-gpu") as told:
        found = [available_devices("auto", "onnx") for _ in range(2)]
    assert (found, len(told)) == ([["cpu"], ["cpu"]], 1)
    assert available_devices("cpu", "onnx") == ["cpu"]
    assert available_devices("auto", "torch") == ["cuda:0", "cuda:1"]


@pytest.mark.parametrize("device", ["cuda", "cuda:2", "mps", "gpu"])
def test_a_device_that_is_not_there_is_named_with_those_that_are(
    device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine_with(monkeypatch, gpus=0 if device in ("cuda", "gpu") else 2)
    with pytest.raises(CloudMaskError, match=rf"device='{device}' is not on this machine \(there: cpu"):
        available_devices(device, "torch")


def test_the_default_model_on_a_machine_without_a_gpu_imports_no_torch() -> None:
    """Importing torch takes seconds, and would only tell that there is no GPU."""
    code = """if True:
        import sys
        import numpy as np, xarray as xr, xcloudmask
        from xcloudmask.engine import devices
        devices.has_gpu_driver = lambda: False
        da = xr.DataArray(np.full((4, 64, 64), 0.1, "f4"), dims=("band", "y", "x"))
        da = da.cloudmask.describe(bands=["blue", "green", "red", "nir"], level="L1C")
        print((da.cloudmask.predict(working_resolution="native").values != 255).all(), "torch" in sys.modules)
    """
    environment = {key: value for key, value in os.environ.items() if key != "CUDA_VISIBLE_DEVICES"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment
    )
    assert done.stdout.split() == ["True", "False"], done.stderr


def test_hidden_gpus_are_not_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    machine_with(monkeypatch, gpus=2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert available_devices("auto", "torch") == ["cpu"]


def test_onnxruntime_without_cuda_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    machine_with(monkeypatch, gpus=1)
    with pytest.raises(CloudMaskError, match="onnxruntime-gpu"):
        OnnxBackend(Network(b""), "cuda:0")


def test_threads_of_a_process_a_worker_and_an_override(monkeypatch: pytest.MonkeyPatch) -> None:
    import distributed

    for name in ("XCLOUDMASK_NUM_THREADS", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("dask.system.CPU_COUNT", 8)  # which knows of a container's limit
    assert "distributed" in sys.modules
    assert cpu_threads() == 8
    for limit, threads in (("4", 4), ("4,2", 4), ("16", 8), ("0", 1), ("many", 8)):
        monkeypatch.setenv("OMP_NUM_THREADS", limit)
        assert cpu_threads() == threads
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # as Dask starts its workers, and leaves it where it does so
    assert cpu_threads() == 8
    worker = SimpleNamespace(state=SimpleNamespace(nthreads=3))
    monkeypatch.setattr(distributed, "get_worker", lambda: worker)
    assert cpu_threads() == 3
    worker.state.nthreads = 64  # threads that wait for the network; the cores are still eight
    assert cpu_threads() == 8
    monkeypatch.setenv("XCLOUDMASK_NUM_THREADS", "2")
    assert cpu_threads() == 2
    monkeypatch.setenv("XCLOUDMASK_NUM_THREADS", "0")
    assert cpu_threads() == 1
    monkeypatch.setenv("XCLOUDMASK_NUM_THREADS", "many")
    with pytest.raises(CloudMaskError, match="XCLOUDMASK_NUM_THREADS='many'"):
        cpu_threads()


def test_threads_that_have_used_torch_before_are_told_how_many_to_use(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A pool's threads keep the number they began with, and more threads add in another order."""
    monkeypatch.setenv("XCLOUDMASK_NUM_THREADS", "1")
    before = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(1) as pool:
            pool.submit(torch.set_num_threads, 2).result()
            backend = torch_backend()
            pool.submit(backend.probabilities, torch.zeros(1, 1, 2, 2)).result()
            assert pool.submit(torch.get_num_threads).result() == 1
    finally:
        torch.set_num_threads(before)


@pytest.mark.gpu
@needs_cuda
@pytest.mark.parametrize("tta", [False, True])
def test_a_gpu_says_what_the_cpu_says(tta: bool) -> None:
    pixels = noise(2, 300, 260)
    pixels[:, 50:90, 60:200] = np.nan
    da = scene(pixels, ["red", "nir"]).chunk(y=120)
    expected = da.cloudmask.predict_proba(TOY, device="cpu", tta=tta)
    found = da.cloudmask.predict_proba(TOY, device="cuda", dtype="float32", tta=tta)
    np.testing.assert_allclose(found.values, expected.values, atol=1e-5, rtol=0)
    again = da.cloudmask.predict_proba(TOY, device="cuda", dtype="float32", tta=tta, batch_size=5)
    np.testing.assert_allclose(again.values, expected.values, atol=1e-5, rtol=0)


@pytest.mark.gpu
@needs_cuda
def test_a_gpu_in_half_precision_agrees_about_the_classes() -> None:
    da = scene(noise(2, 300, 260), ["red", "nir"]).chunk(y=120)
    expected = da.cloudmask.predict_proba(TOY, device="cpu")
    found = da.cloudmask.predict_proba(TOY, device="cuda")
    np.testing.assert_allclose(found.values, expected.values, atol=0.05, rtol=0)


@pytest.mark.gpu
@needs_cuda
def test_batches_arrive_from_pinned_memory_and_results_leave_on_streams_of_their_own() -> None:
    backend = TorchBackend(testing.load_toy(TOY), "cuda:0", "auto")
    streams = {backend.uploads, backend.downloads, torch.cuda.current_stream(backend.device)}
    assert len(streams) == 3
    windows = list(noise(16, 2, 256, 256))
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        for _ in range(3):
            there = backend.upload(windows)
            backend.probabilities(there)
            found = backend.fetch(there)
        torch.cuda.synchronize()
    copies = [event.name for event in profile.events() if "HtoD" in event.name]
    assert copies
    assert all("Pinned" in name for name in copies)
    np.testing.assert_array_equal(found, np.stack(windows))


@pytest.mark.gpu
@needs_cuda
def test_a_gpu_out_of_memory_is_known_and_halved() -> None:
    backend = TorchBackend(testing.load_toy(TOY), "cuda:0", "auto")
    free, total = torch.cuda.mem_get_info()
    torch.cuda.set_per_process_memory_fraction(min(1.0, (total - free + 300 * 2**20) / total))
    try:
        da = scene(noise(2, 2048, 2048), ["red", "nir"])
        mask = da.cloudmask.predict(TOY, device="cuda", patch_size=256, overlap=0, batch_size=64)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        backend.release()
    assert (mask.values != 255).all()


def test_an_opened_graph_keeps_no_copy_of_its_bytes() -> None:
    network = load_network(models.get("ukis-4band-l1c"))
    assert len(network.body) > 2**20
    assert OnnxBackend(network, "cpu").network == replace(network, body=None)
