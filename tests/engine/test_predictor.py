"""The engine against made-up backends: batches, memory, devices, locks, turns."""

import itertools
import logging
import os
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from tests.scenes import noise, same_odds, scene
from xcloudmask import testing
from xcloudmask.engine import predictor as engine
from xcloudmask.engine.device_slots import DeviceQueue
from xcloudmask.engine.devices import DTYPES, check_device, check_dtype
from xcloudmask.engine.onnx import OnnxBackend
from xcloudmask.engine.predictor import Predictor, WindowJob, get_predictor, is_out_of_memory
from xcloudmask.engine.torch import TorchBackend
from xcloudmask.errors import CloudMaskError, OptionError, OutOfMemoryError
from xcloudmask.models import get
from xcloudmask.models.network import Network
from xcloudmask.models.sources import ukis
from xcloudmask.testing import COUNTING, TOY
from xcloudmask.types import ModelSpec

SHAPE = (1, 2, 40, 400)


class FakeBackend(OnnxBackend):
    """NumPy all through: brightness is the probability of cloud. Refuses batches over `most` windows."""

    network = Network(body=None, activation="complement")

    def __init__(self, kind: str = "cuda", most: int = 1000, refuse: str = "CUDA out of memory") -> None:
        self.kind = kind
        self.lanes = 1
        self.most = most
        self.refuse = refuse
        self.batches: list[int] = []
        self.at_once = self.peak = self.released = self.marked = self.waited = 0
        self.nap = 0.0

    def probabilities(self, pixels: np.ndarray) -> np.ndarray:
        self.at_once += 1
        self.peak = max(self.peak, self.at_once)
        time.sleep(self.nap)
        self.at_once -= 1
        if len(pixels) > self.most:
            raise RuntimeError(self.refuse)
        self.batches.append(len(pixels))
        return np.concatenate([1 - pixels, pixels], axis=1)

    def release(self) -> None:
        self.released += 1

    def mark(self) -> Any:
        self.marked += 1

        def wait() -> None:
            self.waited += 1

        return wait


def predictor(*backends: FakeBackend) -> Predictor:
    made = Predictor(COUNTING)
    made._devices = [DeviceQueue(backend) for backend in backends]
    return made


def jobs(count: int, gap: bool = False) -> list[WindowJob]:
    rng = np.random.default_rng(1)
    out = []
    for k in range(count):
        valid = np.ones((8, 8), bool)
        valid[:3, :3] = not gap
        weights = rng.random((8, 8), dtype=np.float32)
        out.append(WindowJob(0, k % 30, 3 * k, rng.random((1, 8, 8), dtype=np.float32), valid, weights))
    return out


def by_hand(count: int, gap: bool = False) -> np.ndarray:
    sums = np.zeros(SHAPE)
    for job in jobs(count, gap):
        both = np.concatenate([1 - job.pixels, job.pixels]) * job.weights * job.valid
        sums[0, :, job.row : job.row + 8, job.col : job.col + 8] += both
    return sums


@pytest.mark.parametrize("gap", [False, True])
def test_the_sums_are_weights_times_probabilities(gap: bool) -> None:
    found = predictor(FakeBackend()).blend(jobs(50, gap), SHAPE)
    np.testing.assert_allclose(found, by_hand(50, gap), atol=1e-6)


@pytest.mark.parametrize("size", [1, 2, 7, 50, 1000, None])
def test_batches_are_of_the_size_asked_for_and_the_sums_the_same(size: int | None) -> None:
    backend = FakeBackend()
    found = predictor(backend).blend(jobs(50), SHAPE, batch_size=size)
    np.testing.assert_array_equal(found, predictor(FakeBackend()).blend(jobs(50), SHAPE, batch_size=1))
    size = size or engine.AUTO_BATCH["cuda"]
    full, rest = divmod(50, size)
    assert backend.batches == [size] * full + [rest] * (rest > 0)


@pytest.mark.parametrize("most", [1, 2, 3, 5, 31])
@pytest.mark.parametrize("tta", [0, 3, 8])
def test_a_batch_that_does_not_fit_is_halved_until_it_does(
    most: int, tta: int, caplog: pytest.LogCaptureFixture
) -> None:
    backend = FakeBackend(most=most)
    ours = predictor(backend)
    with caplog.at_level(logging.WARNING, "xcloudmask"):
        found = ours.blend(jobs(50), SHAPE, batch_size=32, tta=tta)
    np.testing.assert_array_equal(found, predictor(FakeBackend()).blend(jobs(50), SHAPE, tta=tta))
    assert max(backend.batches) <= most
    assert "halved" in caplog.text
    refusals = backend.released
    assert refusals >= 1
    ours.blend(jobs(50), SHAPE, batch_size=32)
    assert backend.released == refusals, "what fits is remembered"
    assert min(backend.batches) >= 1


def test_one_window_that_does_not_fit_is_a_memory_error_that_names_the_remedy() -> None:
    with pytest.raises(OutOfMemoryError, match=r"8 x 8 .* cuda; use a smaller patch_size, or device='cpu'"):
        predictor(FakeBackend(most=0)).blend(jobs(3), SHAPE)


def test_sums_that_do_not_fit_are_a_memory_error_that_names_the_remedy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(self: FakeBackend, shape: tuple[int, ...]) -> None:
        raise RuntimeError("CUDA out of memory")

    monkeypatch.setattr(FakeBackend, "zeros", refuse)
    ours = predictor(FakeBackend())
    with pytest.raises(OutOfMemoryError, match="smaller chunks"):
        ours.blend(jobs(3), SHAPE)
    assert [device.tasks for device in ours._devices] == [0], "the device is given back"


def test_any_other_error_is_passed_on_at_once() -> None:
    backend = FakeBackend(most=0, refuse="the shape is wrong")
    with pytest.raises(RuntimeError, match="the shape is wrong"):
        predictor(backend).blend(jobs(3), SHAPE)
    assert backend.released == 0


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (
            RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory"),
            True,
        ),
        (RuntimeError("MPS backend out of memory (MPS allocated: 5 GB)"), True),
        (RuntimeError("[ONNXRuntimeError] : 6 : Failed to allocate memory for requested buffer"), True),
        (RuntimeError("std::bad_alloc"), True),
        (type("OutOfMemoryError", (RuntimeError,), {})("no words"), True),
        (RuntimeError("Expected 4 channels, got 3"), False),
        (ValueError("allocate"), False),
    ],
)
def test_running_out_of_memory_is_known_by_its_words(error: Exception, expected: bool) -> None:
    assert is_out_of_memory(error) is expected


def test_two_batches_of_a_task_are_under_way_at_a_time() -> None:
    backend = FakeBackend()
    predictor(backend).blend(jobs(50), SHAPE, batch_size=10)
    assert backend.marked == 5
    assert backend.waited == 3


def in_threads(count: int, work: Any) -> list[Any]:
    """Results of `count` threads that all start at once."""
    barrier, out = threading.Barrier(count), [None] * count

    def run(k: int) -> None:
        barrier.wait()
        out[k] = work(k)

    threads = [threading.Thread(target=run, args=(k,)) for k in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return out


def test_one_inference_at_a_time_runs_on_a_device() -> None:
    backend = FakeBackend()
    backend.nap = 0.002
    ours = predictor(backend)
    found = in_threads(8, lambda k: ours.blend(jobs(20), SHAPE, batch_size=5))
    assert backend.peak == 1
    for sums in found:
        np.testing.assert_array_equal(sums, found[0])


def in_lanes(count: int, **how: Any) -> tuple[FakeBackend, Predictor]:
    """A predictor whose backend may be asked for so many windows side by side."""
    backend = FakeBackend("cpu", **how)
    backend.lanes = count
    made = Predictor(COUNTING)
    made._devices = [DeviceQueue.of("cpu", backend)]
    return backend, made


@pytest.mark.parametrize("count", [2, 3, 4])
def test_windows_are_inferred_side_by_side_in_lanes_and_the_sums_the_same(count: int) -> None:
    backend, ours = in_lanes(count)
    meet = threading.Barrier(count, timeout=20)
    asked = backend.probabilities

    def probabilities(pixels: np.ndarray) -> np.ndarray:
        meet.wait()  # would break, were there fewer at a time
        found: np.ndarray = asked(pixels)
        return found

    backend.probabilities = probabilities  # type: ignore[method-assign]
    found = ours.blend(jobs(12 * count), SHAPE)
    np.testing.assert_array_equal(found, predictor(FakeBackend()).blend(jobs(12 * count), SHAPE))


def test_all_tasks_share_the_lanes() -> None:
    backend, ours = in_lanes(2)
    backend.nap = 0.002
    found = in_threads(6, lambda k: ours.blend(jobs(20), SHAPE))
    assert backend.peak == 2
    for sums in found:
        np.testing.assert_array_equal(sums, found[0])


@pytest.mark.parametrize("size", [1, 5])
def test_memory_that_runs_out_in_a_lane_is_tried_again_alone(size: int) -> None:
    backend, ours = in_lanes(3)
    asked, refused, counting = backend.probabilities, itertools.count(), threading.Lock()
    inside = 0

    def probabilities(pixels: np.ndarray) -> np.ndarray:
        """There is memory for two windows, whoever asks for them."""
        nonlocal inside
        with counting:
            inside += len(pixels)
        time.sleep(0.002)
        with counting:
            full, inside = inside > 2, inside - len(pixels)
        if full:
            next(refused)
            raise MemoryError("bad_alloc")
        found: np.ndarray = asked(pixels)
        return found

    backend.probabilities = probabilities  # type: ignore[method-assign]
    expected = predictor(FakeBackend()).blend(jobs(20), SHAPE)
    for found in in_threads(4, lambda k: ours.blend(jobs(20), SHAPE, batch_size=size)):
        np.testing.assert_array_equal(found, expected)
    before = next(refused)
    assert before > 0
    np.testing.assert_array_equal(ours.blend(jobs(20), SHAPE), expected)
    if size == 1:
        assert next(refused) == before + 1, "that there is no room for several is remembered"


#: A thread that is no daemon goes on when the main one has ended, and pools are closed by then.
LATE = """
import threading
import numpy as np
from tests.engine.test_predictor import SHAPE, in_lanes, jobs
backend, ours = in_lanes(2)
first = threading.Event()
def predict():
    def slowly():
        for number, job in enumerate(jobs(6)):
            if number == 3:
                first.set()
                threading.main_thread().join()
            yield job
    print(ours.blend(slowly(), SHAPE).shape)
threading.Thread(target=predict).start()
first.wait()
"""


def test_a_thread_that_outlives_the_main_one_goes_on() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LATE], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.stdout.strip() == str(SHAPE), done.stderr


def test_who_is_alone_on_a_device_has_nobody_in_the_lanes() -> None:
    beside, ours = in_lanes(3)
    other = FakeBackend("cpu")
    sole = Predictor(COUNTING)
    sole._devices = [DeviceQueue.of("cpu", other)]  # a module: one at a time, and no graph beside it
    overlapped = []

    def watched(mine: FakeBackend, theirs: FakeBackend) -> Any:
        asked = mine.probabilities

        def probabilities(pixels: np.ndarray) -> Any:
            mine.at_once += 1
            time.sleep(0.001)
            overlapped.append(theirs.at_once > 0)
            mine.at_once -= 1
            return asked(pixels)

        return probabilities

    beside.probabilities, other.probabilities = watched(beside, other), watched(other, beside)  # type: ignore[method-assign]
    in_threads(4, lambda k: (ours, sole)[k % 2].blend(jobs(30), SHAPE))
    assert len(overlapped) == 120
    assert not any(overlapped)


def test_after_a_failure_in_a_lane_nothing_of_the_task_goes_on() -> None:
    backend, ours = in_lanes(2)
    count = itertools.count()

    def probabilities(pixels: np.ndarray) -> np.ndarray:
        if next(count) == 3:
            raise ZeroDivisionError("a network's own")
        time.sleep(0.005)
        return np.concatenate([1 - pixels, pixels], axis=1)

    backend.probabilities = probabilities  # type: ignore[method-assign]
    with pytest.raises(ZeroDivisionError):
        ours.blend(jobs(40), SHAPE)
    asked = next(count)
    time.sleep(0.05)
    assert next(count) == asked + 1 < 12
    assert [device.tasks for device in ours._devices] == [0]


def test_devices_are_used_in_turn() -> None:
    backends = [FakeBackend(), FakeBackend(), FakeBackend()]
    ours = predictor(*backends)
    for _ in range(9):
        ours.blend(jobs(2), SHAPE)
    assert [len(backend.batches) for backend in backends] == [3, 3, 3]


def test_a_busy_device_is_passed_over() -> None:
    first, second = FakeBackend(), FakeBackend()
    ours = predictor(first, second)

    def watched() -> Iterator[WindowJob]:
        yield from jobs(2)
        for _ in range(4):  # while this task goes on, the others find its device busy
            ours.blend(jobs(1), SHAPE)

    ours.blend(watched(), SHAPE)
    assert (len(first.batches), len(second.batches)) == (1, 4)


def test_devices_work_at_the_same_time() -> None:
    backends = [FakeBackend(), FakeBackend()]
    meet = threading.Barrier(2, timeout=20)
    for backend in backends:
        backend.probabilities = lambda pixels: (meet.wait(), np.concatenate([1 - pixels, pixels], 1))[1]
    ours = predictor(*backends)
    in_threads(2, lambda k: ours.blend(jobs(1), SHAPE))


@pytest.fixture
def nothing_loaded() -> Iterator[None]:
    """No network is loaded before, and none that a test made up is left behind."""
    engine.unload()
    testing.loads.clear()
    yield
    engine.unload()


def test_one_inference_at_a_time_runs_on_a_device_whatever_the_models(
    nothing_loaded: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    under_way, peaks = [], []

    class Watched(FakeBackend):
        def probabilities(self, pixels: np.ndarray) -> np.ndarray:
            under_way.append(self)
            peaks.append(len(under_way))
            time.sleep(0.002)
            under_way.pop()
            return np.concatenate([1 - pixels, pixels], axis=1)

    monkeypatch.setattr(engine, "make_backend", lambda *args: Watched("cpu"))
    others = [replace(COUNTING, name=name) for name in ("another", "third", "fourth")]
    ours = [Predictor(spec, "cpu") for spec in (COUNTING, *others[:2])] + [Predictor(others[2], "auto")]
    monkeypatch.setattr(engine, "available_devices", lambda device, runtime: ["cpu"])
    in_threads(4, lambda k: ours[k].blend(jobs(20), SHAPE))
    assert len(peaks) == 80
    assert max(peaks) == 1


def test_two_devices_have_locks_of_their_own(nothing_loaded: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "available_devices", lambda device, runtime: ["cuda:0", "cuda:1"])
    monkeypatch.setattr(engine, "make_backend", lambda *args: FakeBackend())
    first, second = Predictor(COUNTING)._load()
    assert first.slots is not second.slots


def test_weights_are_loaded_once_whatever_the_precision_and_the_name_of_the_device(
    nothing_loaded: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "available_devices", lambda device, runtime: ["cpu"])
    made = [Predictor(COUNTING, *how)._load()[0] for how in (("cpu",), ("auto",), ("cpu", "bfloat16"))]
    assert testing.loads == ["counting"]
    assert made[0].backend is made[1].backend
    assert made[0].backend is not made[2].backend
    assert made[0].backend.module is made[2].backend.module
    graph = get("ukis-4band-l1c")
    assert Predictor(graph, "cpu", "float32")._load()[0].backend is Predictor(graph)._load()[0].backend


def test_a_model_for_any_bands_is_loaded_once_and_told_of_each_set(
    nothing_loaded: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads, real = [], testing.load_any
    monkeypatch.setattr(testing, "load_any", lambda spec: (loads.append(spec.name), real(spec))[1])
    da = scene(noise(3, 40, 40), ["red", "nir", "green"])
    one, two = (da[:count].cloudmask.predict_proba(testing.ANY_BANDS, device="cpu") for count in (2, 3))
    assert loads == ["any"]
    assert abs(one - two).max() > 1e-4
    again = da[:2].cloudmask.predict_proba(testing.ANY_BANDS, device="cpu")
    same_odds(again, one)
    engine.unload()
    fresh = da[:2].cloudmask.predict_proba(testing.ANY_BANDS, device="cpu")
    same_odds(fresh, one)
    assert loads == ["any"] * 2


@pytest.mark.parametrize("there", [True, False])
def test_unloading_lets_go_of_the_weights_and_then_gives_memory_back(
    there: bool, nothing_loaded: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = weakref.ref(Predictor(TOY, "cpu")._load()[0].backend.module)
    told: list[str] = []
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: there)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: there)
    for name, part in (("cuda", torch.cuda), ("mps", torch.mps)):
        monkeypatch.setattr(
            part, "empty_cache", lambda name=name: told.append(name if weights() is None else "too early")
        )
    engine.unload()
    assert weights() is None
    assert told == ["cuda", "mps"] * there


def test_many_threads_load_a_model_once(nothing_loaded: None, monkeypatch: pytest.MonkeyPatch) -> None:
    real = testing.load_counting
    monkeypatch.setattr(testing, "load_counting", lambda spec: (time.sleep(0.05), real(spec))[1])
    one = np.zeros((1, 32, 32), np.float32)
    job = WindowJob(0, 0, 0, one, one[0] == 0, one[0] + 1)
    in_threads(12, lambda k: get_predictor(COUNTING, "cpu").blend([job], (1, 2, 32, 32)))
    assert testing.loads == ["counting"]


def test_one_network_a_device_is_loaded(nothing_loaded: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "available_devices", lambda device, runtime: ["cuda:0", "cuda:1"])
    monkeypatch.setattr(engine, "make_backend", lambda network, runtime, device, dtype: FakeBackend(device))
    found = Predictor(COUNTING)._load()
    assert [device.backend.kind for device in found] == ["cuda:0", "cuda:1"]
    assert testing.loads == ["counting"] * 2


class Graph(bytes):
    """A graph's bytes that are counted while they are held."""

    held = 0

    def __new__(cls, body: bytes) -> "Graph":
        Graph.held += 1
        return super().__new__(cls, body)

    def __del__(self) -> None:
        Graph.held -= 1


@pytest.mark.parametrize("name", ["ukis-4band-l1c", "ukis-any-l1c"])
def test_the_bytes_of_a_graph_are_let_go_once_it_is_open(
    name: str, nothing_loaded: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = ukis.load
    read: list[str] = []

    def load(spec: ModelSpec) -> Network:
        network = real(spec)
        read.append(spec.name)
        return replace(network, body=Graph(network.body))

    monkeypatch.setattr(ukis, "load", load)
    spec = get(name)
    predictor = get_predictor(spec, "cpu")
    predictor._load()
    assert read == [each.name for each in spec.members or (spec,)]
    assert Graph.held == 0
    pixels = noise(len(spec.bands), 256, 256)
    jobs = [WindowJob(0, 0, 0, pixels, pixels[0] >= 0, np.ones((256, 256), np.float32))]
    sums = predictor.blend(jobs, (1, len(spec.classes), 256, 256))
    np.testing.assert_allclose(sums.sum(axis=1), 1, rtol=1e-5)
    get_predictor(spec, "cpu", "float32").blend(jobs, sums.shape)
    assert len(read) == len(spec.members or (spec,)), "one precision is all that a graph has"


def test_a_failed_load_is_tried_again(nothing_loaded: None, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = Predictor(COUNTING, "cpu")
    with monkeypatch.context() as patch:
        patch.setattr(testing, "load_counting", lambda spec: 1 / 0)
        with pytest.raises(CloudMaskError, match=r"'counting'.*fails with ZeroDivisionError"):
            ours._load()
    assert len(ours._load()) == 1


def test_predictors_are_shared_until_unloaded() -> None:
    one = get_predictor(TOY, "cpu")
    assert get_predictor(TOY, "cpu") is one
    assert get_predictor(TOY, "cpu", "bfloat16") is not one
    assert get_predictor(COUNTING, "cpu") is not one
    engine.unload()
    assert get_predictor(TOY, "cpu") is not one


def test_turning_is_the_mean_over_the_eight_turns_of_the_scene() -> None:
    """A square scene of one window, turned by hand, predicted, turned back."""
    pixels = noise(2, 32, 32)

    def predicted(image: np.ndarray, **options: Any) -> np.ndarray:
        return (
            scene(np.ascontiguousarray(image), ["red", "nir"]).cloudmask.predict_proba(TOY, **options).values
        )

    turns = []
    for quarter in range(4):
        for mirror in (False, True):
            image = np.rot90(pixels, quarter, axes=(1, 2))
            image = image[..., ::-1] if mirror else image
            found = predicted(image)
            found = found[..., ::-1] if mirror else found
            turns.append(np.rot90(found, -quarter, axes=(1, 2)))
    assert np.ptp(turns, axis=0).max() > 1e-3, "the toy network tells the turns apart"
    np.testing.assert_allclose(predicted(pixels, tta=True), np.mean(turns, axis=0), atol=1e-6)


@pytest.mark.network
def test_turning_works_in_onnxruntime_too() -> None:
    pixels = np.kron(noise(4, 16, 16), np.ones((1, 16, 16), "f4")) * 0.6
    da = scene(pixels, ["blue", "green", "red", "nir"])
    turned = scene(np.ascontiguousarray(pixels.swapaxes(1, 2)[:, ::-1]), ["blue", "green", "red", "nir"])
    one = da.cloudmask.predict_proba("ukis-4band-l1c", tta=True).values
    two = turned.cloudmask.predict_proba("ukis-4band-l1c", tta=True).values
    np.testing.assert_allclose(one.swapaxes(1, 2)[:, ::-1], two, atol=1e-5)
    assert abs(one - da.cloudmask.predict_proba("ukis-4band-l1c").values).max() > 1e-3


@pytest.mark.parametrize("device", ["auto", "cpu", "mps", "cuda", "cuda:0", "cuda:11"])
def test_device_names_that_can_be(device: str) -> None:
    check_device(device, TOY)


@pytest.mark.parametrize("device", ["openvino", "openvino:CPU", "openvino:GPU.1"])
def test_openvino_runs_graphs_and_nothing_else(device: str) -> None:
    check_device(device, get("ukis-4band-l1c"))
    with pytest.raises(CloudMaskError, match=r"'toy' runs in torch.*device='auto'"):
        check_device(device, TOY)


@pytest.mark.parametrize(
    "device", ["gpus", "cuda:", "cuda:x", "", "CPU", "openvino:gpu", "openvino:", None, 0]
)
def test_device_names_that_cannot_be(device: Any) -> None:
    with pytest.raises(OptionError, match="cuda"):
        check_device(device, TOY)


def test_precisions() -> None:
    for dtype in DTYPES:
        check_dtype(dtype, TOY)
    with pytest.raises(OptionError, match="bfloat16"):
        check_dtype("bf16", TOY)
    onnx = replace(get("ukis-4band-l1c"), gpu_runtime=None)
    check_dtype("float32", onnx)
    with pytest.raises(CloudMaskError, match="dtype='auto'"):
        check_dtype("float16", onnx)


def test_half_precision_infers_in_half_and_adds_up_in_full() -> None:
    """DESIGN: blending in bf16 cost 1.35 % on a constant field elsewhere."""
    pixels = np.full((2, 90, 90), 0.3, np.float32)
    da = scene(pixels, ["red", "nir"])
    full = da.cloudmask.predict_proba(TOY, device="cpu", dtype="float32").values
    half = da.cloudmask.predict_proba(TOY, device="cpu", dtype="bfloat16").values
    assert 0 < abs(full - half).max() < 0.02
    assert np.ptp(half, axis=(1, 2)).max() < 1e-6
    varied = scene(noise(2, 60, 60), ["red", "nir"])
    found = varied.cloudmask.predict_proba(TOY, device="cpu", dtype="bfloat16").values
    np.testing.assert_allclose(found.sum(axis=0), 1, atol=1e-6)  # not so if the softmax were in half


def test_the_engine_asks_the_runtime_that_the_model_names() -> None:
    assert isinstance(get_predictor(TOY, "cpu")._load()[0].backend, TorchBackend)
    assert isinstance(get_predictor(get("ukis-4band-l1c"), "cpu")._load()[0].backend, OnnxBackend)


# --- what a network answers is held against its card ---


def answering(
    monkeypatch: pytest.MonkeyPatch, forward: Any, activation: Any = None, classes: Any = COUNTING.classes
) -> ModelSpec:
    """A model that answers with what `forward` makes of its windows."""

    class Answering(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> Any:
            return forward(x)

    monkeypatch.setattr(testing, "load_counting", lambda spec: Network(Answering(), activation=activation))
    return replace(COUNTING, name="oddity", classes=classes)


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("tta", [False, True])
@pytest.mark.parametrize(
    ("forward", "activation", "classes", "says"),
    [
        (lambda x: x, "softmax", 2, r"\(1, 1, 32, 32\).*activation='softmax'.*'sigmoid'"),
        (lambda x: x, None, 2, r"\(1, 1, 32, 32\).*'sigmoid'"),
        (lambda x: x.mean((2, 3), True).repeat(1, 2, 1, 1), "softmax", 2, r"\(1, 2, 1, 1\).*every pixel"),
        (lambda x: x[..., ::2, ::2].repeat(1, 2, 1, 1), "softmax", 2, r"\(1, 2, 16, 16\).*every pixel"),
        (lambda x: x.repeat(1, 3, 1, 1), "softmax", 2, r"\(1, 3, 32, 32\).*2 classes \(clear, cloud\)"),
        (lambda x: x.repeat(1, 2, 1, 1), "sigmoid", 2, r"\(1, 3, 32, 32\).*is for one channel"),
        (lambda x: x, "sigmoid", 3, r"\(1, 2, 32, 32\).*3 classes"),
        (lambda x: x[:, 0], None, 2, r"\(1, 32, 32\).*expected \(1, 2, 32, 32\)"),
        (lambda x: {"out": x}, "sigmoid", 2, r"a dict, not with one tensor"),
    ],
)
def test_answers_of_another_shape_are_refused_not_stretched(
    forward: Any, activation: Any, classes: int, says: str, tta: bool, lazy: bool,
    nothing_loaded: None, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    spec = answering(monkeypatch, forward, activation, ("clear", "cloud", "snow")[:classes])
    da = scene(noise(1, 40, 40), ["red"])
    da = da.chunk(y=20) if lazy else da
    with pytest.raises(CloudMaskError, match=f"(?s){says}"):
        da.cloudmask.predict(spec, device="cpu", tta=tta).compute()


def test_one_answer_for_a_batch_is_refused(nothing_loaded: None, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = answering(monkeypatch, lambda x: torch.cat([1 - x[:1], x[:1]], 1))
    with pytest.raises(CloudMaskError, match=r"'oddity'.*\(1, 2, 8, 8\).*expected \(4, 2, 8, 8\)"):
        Predictor(spec, "cpu").blend(jobs(4), SHAPE, batch_size=4)


@pytest.mark.parametrize(
    ("forward", "says"),
    [
        (lambda x: torch.cat([1 - 9 * x, 4 * x], 1), "no probabilities.*activation=None.*'softmax'"),
        (lambda x: torch.cat([2 + x, -1 - x], 1), "no probabilities.*the smallest is -"),
        (
            lambda x: torch.cat([1 - x, x], 1) / 0,
            "'oddity' answers.* not finite in 100 %",
        ),
    ],
)
def test_answers_that_are_no_probabilities_are_told_once(
    forward: Any, says: str, nothing_loaded: None, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    ours = Predictor(answering(monkeypatch, forward), "cpu")
    with pytest.warns(UserWarning, match=says) as told:
        ours.blend(jobs(9), SHAPE, batch_size=3)
    assert len(told) == 1
    assert len([record for record in caplog.records if "oddity" in record.message]) == 1
    ours.blend(jobs(9), SHAPE)  # a second time would be an error here


def test_what_a_network_says_of_cells_without_data_is_nobodys_business(
    nothing_loaded: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forward(x: torch.Tensor) -> torch.Tensor:
        out = torch.cat([1 - x, x], 1)
        out[..., :3, :3] = torch.nan
        return out

    found = Predictor(answering(monkeypatch, forward), "cpu").blend(jobs(5, gap=True), SHAPE)
    np.testing.assert_allclose(found, by_hand(5, gap=True), atol=1e-5)


# --- a forked process ---

FORK = """
import multiprocessing, warnings
warnings.simplefilter("ignore")
import numpy as np, xarray as xr, xcloudmask
from xcloudmask.engine import devices, predictor
from xcloudmask.testing import TOY

pixels = np.random.default_rng(0).random((2, 200, 200), "f4")
scene = xr.DataArray(pixels, dims=("band", "y", "x")).cloudmask.describe(bands=["red", "nir"], level="L1C")

def work(_):
    mask = scene.cloudmask.predict(TOY, working_resolution="native", device="cpu")
    return mask.values, devices.cpu_threads()

here, threads = work(0)
predictor._predictors_lock.acquire()  # as another thread may do at the moment of the fork
with multiprocessing.get_context("fork").Pool(1) as pool:
    there, in_child = pool.map_async(work, [0]).get(40)[0]
predictor._predictors_lock.release()
print("same" if (here == there).all() else "differs", in_child, work(0)[1] == threads)
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_process_infers_too() -> None:
    command = [sys.executable, "-c", FORK]
    environment = {**os.environ, "XCLOUDMASK_NUM_THREADS": "2"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environment)
    assert done.stdout.strip() == "same 1 True", done.stdout + done.stderr
