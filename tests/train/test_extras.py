"""What is learnt beside labels, calibration by temperature, and logs that go elsewhere."""

from __future__ import annotations

import hashlib
import json
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from xcloudmask import models
from xcloudmask.errors import CloudMaskError, OptionError
from xcloudmask.metrics import Histogram, reliability, temperature
from xcloudmask.models import arch
from xcloudmask.train import checkpoint
from xcloudmask.train.calibrate import divide_head, fit_temperature
from xcloudmask.train.config_tables import Distil, Loss, Recipe, Settings
from xcloudmask.train.evaluate import logits, probabilities
from xcloudmask.train.extras import Recovery, Taught, with_extras
from xcloudmask.train.files import find
from xcloudmask.train.loop import Trainer
from xcloudmask.train.losses import combined, distillation
from xcloudmask.train.networks import begin
from xcloudmask.train.plan import Plan
from xcloudmask.train.run import train
from xcloudmask.train.stream import Stream
from xcloudmask.types import ModelSpec

CLASSES = ["clear", "thick_cloud", "thin_cloud", "cloud_shadow"]
SMALL = {"channels": 8, "width": 16, "layers": 1, "compact_widths": [8, 8], "compact_depth": 1}


def config(**tables: Any) -> dict[str, Any]:
    return {
        "name": "tiny",
        "data": {"sources": ["l8"], "dev": 0.4, "batch": 4, "length": 4, "held_out": "val"},
        "recipe": {"size": 16},
        "network": {"architecture": "sensei-v2", "classes": CLASSES, "settings": SMALL},
        "loop": {"epochs": 1, "rate": 1e-3, "device": "cpu"},
        **tables,
    }


# --- recovery and distillation ---


def test_recovery_is_learnt_and_leaves_no_trace_in_what_is_written(data: Path, tmp_path: Path) -> None:
    told = config(loss={"recovery": 1.0}, loop={"epochs": 1, "rate": 3e-3, "device": "cpu"})
    train(Plan.of(told), data=data, out=tmp_path / "a")
    kept = checkpoint.read_weights(tmp_path / "a" / "tiny.safetensors")
    assert kept.keys() == arch.build("sensei-v2", {**SMALL, "classes": 4}).state_dict().keys()
    assert any("recovery" in name for name in checkpoint.read_weights(tmp_path / "a" / "last.safetensors"))
    stream = Stream(tuple(find(data / "train", ["l8"])), Recipe(size=16), 4, 60)
    network = Taught(arch.build("sensei-v2", {**SMALL, "classes": 4}), recovery=1.0)
    trainer = Trainer(
        network, tuple(CLASSES), combined({"ambiguous-ce": 0.0}, CLASSES), stream,
        Settings(epochs=2, rate=1e-2, device="cpu"), tmp_path / "b",
    )  # fmt: skip
    trainer.run()
    losses = [float(line.split(",")[3]) for line in (tmp_path / "b/log.csv").read_text().splitlines()[1:]]
    assert losses[1] < losses[0] / 2


def test_recovery_is_linear_in_the_embedding_and_counts_what_is_there() -> None:
    torch.manual_seed(0)
    made, described = Recovery(4, 72), torch.rand(1, 3, 72)
    one, two = torch.rand(2, 1, 4, 5, 5).unbind(0)
    at = made(torch.zeros_like(one), described)
    parts = made(one, described) + made(two, described)
    assert torch.allclose(made(one + two, described) - at, parts - 2 * at, atol=1e-5)
    network = Taught(arch.build("sensei-v2", SMALL), recovery=1.0).train()
    pixels, present = torch.rand(1, 3, 8, 8), torch.tensor([[True, True, False]])
    described[0, 2] = torch.nan  # padding must change nothing
    network.network.eval()  # batch norm sees one and the same
    _, extra = network(pixels, described, present)
    _, alone = network(pixels[:, :2], described[:, :2], present[:, :2])
    assert torch.allclose(extra, alone, atol=1e-6)
    network.eval()
    assert isinstance(network(pixels, described, present), Tensor)
    with pytest.raises(CloudMaskError, match="encoder"):
        Taught(arch.build("spectral"), recovery=0.1)


def test_a_student_is_drawn_to_its_teacher(data: Path, tmp_path: Path) -> None:
    """The shipped model teaches one that never sees a label."""
    told = config(
        network={"architecture": "spectral", "classes": CLASSES, "settings": {"width": 8, "hidden": 16}},
        recipe={"size": 16, "pixels": 32},
        loss={"terms": {"ambiguous-ce": 0.0}, "distil": {"model": "spectral", "temperature": 2.0}},
        loop={"epochs": 1, "rate": 1e-2, "device": "cpu"},
        data={"sources": ["l8"], "batch": 8, "length": 80},
    )
    train(Plan.of(told), data=data, out=tmp_path / "a")
    student = begin(told["network"]).kept
    teacher = begin({"start": "spectral", "classes": CLASSES}).kept
    sample = find(data / "train", ["l8"])[0].read()

    def loss() -> float:
        said = torch.from_numpy(probabilities(teacher, sample)[None, :, :, :-1])
        mine = torch.from_numpy(logits(student, sample)[None, :, :, :-1])
        own = -(said * said.clamp(min=1e-8).log()).sum(dim=1).mean()
        return float(distillation(mine, said) - own)

    before = loss()
    student.load_state_dict(checkpoint.read_weights(tmp_path / "a" / "tiny.safetensors"))
    assert loss() < before / 3
    assert not next(teacher.parameters()).grad


def test_what_cannot_teach_is_refused() -> None:
    begun = begin({"architecture": "spectral", "classes": CLASSES})
    with pytest.raises(CloudMaskError, match="did you mean 'weight'"):
        Plan.of(config(loss={"distil": {"model": "spectral", "wieght": 1}}))
    with pytest.raises(OptionError, match="did you mean 'recovery'"):
        Plan.of(config(loss={"recovry": 0.1}))
    assert with_extras(begun, Loss(terms={"dice": 1.0}), CLASSES) == (begun, None)


def test_a_teacher_of_other_bands_or_classes_is_asked_about_images() -> None:
    begun = begin({"architecture": "spectral", "classes": CLASSES})
    for model, classes in (("ukis-4band-l1c", CLASSES), ("spectral", CLASSES[::-1])):
        same, asked = with_extras(begun, Loss(distil=Distil(model=model, weight=0.5)), classes)
        assert same is begun
        assert asked is not None
        assert isinstance(asked.model, ModelSpec)
        assert (asked.model.name, asked.weight) == (model, 0.5)
    taught, asked = with_extras(begun, Loss(distil=Distil(model="spectral")), CLASSES)
    assert isinstance(taught.called, Taught)
    assert asked is None


def test_a_training_with_recovery_goes_on_as_if_never_stopped(data: Path, tmp_path: Path) -> None:
    def trainer(folder: Path) -> Trainer:
        stream = Stream(tuple(find(data / "train", ["l8"])), Recipe(size=16, simulate=0.5), 2, 4)
        network = Taught(arch.build("sensei-v2", {**SMALL, "classes": 4}), recovery=0.3)
        loss = combined({"ambiguous-ce": 1.0}, CLASSES)
        return Trainer(
            network, tuple(CLASSES), loss, stream, Settings(epochs=2, ema=0.9, device="cpu"), folder
        )

    trainer(tmp_path / "whole").run()
    trainer(tmp_path / "cut").run(stop_at=3)  # in the middle of an epoch
    trainer(tmp_path / "cut").run()
    stamps = {
        hashlib.sha256((tmp_path / n / "last.safetensors").read_bytes()).hexdigest() for n in ("whole", "cut")
    }
    assert len(stamps) == 1


# --- temperature ---


@pytest.mark.parametrize("name", [name for name in arch.NAMES if "classes" in arch.config_of(name)])
def test_the_last_layer_divided_divides_the_logits(name: str) -> None:
    known = arch.config_of(name)
    told = {key: value for key, value in {"bands": 4, "classes": 3}.items() if key in known}
    network = arch.build(name, told).eval()
    described: tuple[Tensor, ...] = ()
    if hasattr(network, "describe"):
        from xcloudmask.models.arch.descriptors import BandInput

        bands = [BandInput("optical", 400 + 100 * i, 450 + 100 * i) for i in range(4)]
        described = (torch.from_numpy(np.array(network.describe(bands))),)
    pixels = torch.rand(1, 4, 64, 64)
    with torch.inference_mode():
        before = network(pixels, *described)
        divide_head(network, name, told, 2.5)
        assert torch.allclose(network(pixels, *described), before / 2.5, atol=1e-5)


def test_a_temperature_makes_what_is_shipped_honest(data: Path, tmp_path: Path) -> None:
    base = config(
        network={"architecture": "spectral", "classes": CLASSES, "settings": {"width": 8, "hidden": 16}},
        recipe={"size": 16, "pixels": 32},
        loop={"epochs": 2, "rate": 3e-2, "device": "cpu"},
        data={"sources": ["l8"], "dev": 0.4, "batch": 4, "length": 12},
    )
    plain = train(Plan.of(base), data=data, out=tmp_path / "a")
    hot = train(Plan.of({**base, "validation": {"temperature": True}}), data=data, out=tmp_path / "b")
    assert plain["temperature"] == 1.0
    assert hot["temperature"] != 1.0
    networks = []
    for folder in ("a", "b"):
        network = begin(base["network"]).kept
        network.load_state_dict(checkpoint.read_weights(tmp_path / folder / "tiny.safetensors"))
        networks.append(network)
    sample = find(data / "train", ["l8"])[0].read()
    before, after = (logits(network, sample) for network in networks)
    np.testing.assert_allclose(after, before / hot["temperature"], rtol=1e-3, atol=1e-4)
    curve = np.array(hot["reliability"])
    assert curve[:, 2].sum() == pytest.approx(1, abs=1e-3)
    # fitted again, there is nothing left to do
    from xcloudmask.train.files import split

    dev = split(find(data / "train", ["l8"]), 0.4)[1]
    assert fit_temperature(networks[1], CLASSES, dev, ["all"]) == pytest.approx(1, abs=0.01)


def test_only_the_last_stage_is_calibrated(data: Path, tmp_path: Path) -> None:
    told = config(
        validation={"temperature": True},
        stage=[{"name": "weak", "loop": {"epochs": 1}}, {"name": "strong", "loop": {"epochs": 1}}],
    )
    train(Plan.of(told), data=data, out=tmp_path / "a")
    weak, last = (
        json.loads((tmp_path / "a" / name / "record.json").read_text())["temperature"]
        for name in ("weak", ".")
    )
    assert weak == 1.0 != last


def test_temperature_mends_what_is_too_sure() -> None:
    rng = np.random.default_rng(1)
    z = rng.normal(size=(20_000, 2)) * 4
    cloud = rng.random(20_000) < 1 / (1 + np.exp((z[:, 0] - z[:, 1]) / 3))
    heat = temperature(z, np.stack([~cloud, cloud], axis=1))
    errors = []
    for t in (1.0, heat):
        said = 1 / (1 + np.exp((z[:, 0] - z[:, 1]) / t))
        errors.append(reliability(Histogram.of(said, cloud.astype(int))).expected_error)
    assert errors[1] < 0.02 < errors[0]


# --- logs ---


def test_loggers_get_each_row(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, float, int]] = []

    class Writer:
        def __init__(self, folder: str) -> None:
            assert folder == str(tmp_path / "a" / "tensorboard")

        def __enter__(self) -> Writer:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def add_scalar(self, name: str, value: float, step: int) -> None:
            seen.append((name, value, step))

    fake = types.ModuleType("torch.utils.tensorboard")
    fake.SummaryWriter = Writer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", fake)
    train(Plan.of(config(log={"to": ["tensorboard"]})), data=data, out=tmp_path / "a")
    assert {step for _, _, step in seen} == {4}
    assert {"loss", "rate", "score"} <= {name for name, _, _ in seen}


def test_a_real_tensorboard_reads_what_was_logged(data: Path, tmp_path: Path) -> None:
    reader = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="tensorboard is not installed"
    )
    train(Plan.of(config(log={"to": ["tensorboard"]})), data=data, out=tmp_path / "a")
    events = reader.EventAccumulator(str(tmp_path / "a" / "tensorboard"))
    events.Reload()
    row = (tmp_path / "a" / "log.csv").read_text().splitlines()[1].split(",")
    (loss,) = events.Scalars("loss")
    assert (loss.step, loss.value) == (4, pytest.approx(float(row[3]), rel=1e-6))


def test_a_real_mlflow_holds_what_was_logged(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ml = pytest.importorskip("mlflow", reason="mlflow is not installed")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "runs").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    train(Plan.of(config(log={"to": ["mlflow"]})), data=data, out=tmp_path / "a")
    client = ml.MlflowClient()
    (run,) = client.search_runs(
        [one.experiment_id for one in client.search_experiments() if one.name != "Default"]
    )
    assert run.data.metrics["steps"] == 4


def test_mlflow_gets_one_run_that_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from xcloudmask.train.loggers import open_loggers

    calls: list[tuple[str, Any]] = []

    class Run:
        info = types.SimpleNamespace(run_id="r1")

        def __enter__(self) -> Run:
            return self

        def __exit__(self, *_: object) -> None:
            pass

    def start_run(run_id: str | None = None, run_name: str = "") -> Run:
        calls.append(("start", run_id))
        return Run()

    fake: Any = types.ModuleType("mlflow")
    fake.set_experiment = lambda name: calls.append(("experiment", name))
    fake.start_run, fake.end_run = start_run, lambda: None
    fake.log_metrics = lambda numbers, step: calls.append(("log", (numbers, step)))
    monkeypatch.setitem(sys.modules, "mlflow", fake)
    for _ in range(2):
        (log,) = open_loggers(["mlflow"], tmp_path / "a", "mine")
        log(7, {"loss": 0.5})
    assert [what for what in calls if what[0] == "start"] == [
        ("start", None), ("start", "r1"), ("start", "r1"), ("start", "r1"),
    ]  # fmt: skip
    assert ("log", ({"loss": 0.5}, 7)) in calls


def test_a_logger_that_is_not_there_says_what_to_install(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module, name in (("torch.utils.tensorboard", "tensorboard"), ("mlflow", "mlflow")):
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(CloudMaskError, match=f"pip install {name}"):
            train(Plan.of(config(log={"to": [name]})), data=data, out=tmp_path / name)
    with pytest.raises(OptionError, match="tensorboard"):
        train(Plan.of(config(log={"to": ["tensorbord"]})), data=data, out=tmp_path / "c")


def test_the_shipped_spectral_can_be_had_as_a_teacher_by_name() -> None:
    assert models.get("spectral").classes == tuple(CLASSES)
    assert isinstance(begin({"start": "spectral", "classes": CLASSES}).kept, nn.Module)
