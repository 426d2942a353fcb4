"""Training: it learns, repeats itself bit for bit, and goes on from anywhere as if never stopped."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tests.train.conftest import write_patch
from xcloudmask.cli import main
from xcloudmask.errors import CloudMaskError, OptionError, WeightsError
from xcloudmask.models import arch
from xcloudmask.train import checkpoint
from xcloudmask.train.config_tables import Recipe, Settings
from xcloudmask.train.evaluate import SETS, classify, probabilities, run_on, take
from xcloudmask.train.files import LeakError, find
from xcloudmask.train.loop import Trainer
from xcloudmask.train.losses import combined
from xcloudmask.train.optim import moving_average, rate
from xcloudmask.train.plan import Plan
from xcloudmask.train.run import train
from xcloudmask.train.stream import Stream

CLASSES = ("clear", "cloud", "cloud_shadow")


def trainer(data: Path, out: Path, *, validate: object = None, seed: int = 0, **settings: object) -> Trainer:
    stream = Stream(
        tuple(find(data / "train", ["l8"])),
        Recipe(size=16, pixels=32, noise=0.5, seed=seed),
        batch=4,
        length=6,
    )
    network = arch.build("spectral", {"classes": 3, "width": 8, "hidden": 16})
    told = {"epochs": 3, "rate": 1e-2, "warmup": 4, "ema": 0.9, "clip": 1.0, "device": "cpu", **settings}
    return Trainer(
        network, CLASSES, combined({"ambiguous-ce": 1.0}, CLASSES), stream, Settings(**told), out, validate  # type: ignore[arg-type]
    )  # fmt: skip


def digest(folder: Path, name: str = "last.safetensors") -> str:
    return hashlib.sha256((folder / name).read_bytes()).hexdigest()


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(data: Path, tmp_path: Path) -> None:
    for name, seed, workers in (("a", 0, 0), ("b", 0, 2), ("c", 1, 0)):
        trainer(data, tmp_path / name, seed=seed, workers=workers).run()
    assert digest(tmp_path / "a") == digest(tmp_path / "b") != digest(tmp_path / "c")


@pytest.mark.parametrize("schedule", ["cosine", "plateau"])
def test_a_training_stopped_anywhere_ends_as_if_it_never_was(
    data: Path, tmp_path: Path, schedule: str
) -> None:
    settings = {"schedule": schedule, "patience": 1}
    trainer(data, tmp_path / "whole", **settings).run()
    for stops in ((5, 9, 14), (6,), (1, 2, 17)):  # within epochs, and at their ends
        folder = tmp_path / f"cut{stops[0]}"
        for stop in stops:
            assert trainer(data, folder, **settings).run(stop_at=stop).total == stop
        trainer(data, folder, **settings).run()
        assert digest(folder) == digest(tmp_path / "whole")
        assert digest(folder, "best.safetensors") == digest(tmp_path / "whole", "best.safetensors")
        logs = [
            list(csv.DictReader((f / "log.csv").read_text().splitlines()))
            for f in (folder, tmp_path / "whole")
        ]
        assert [row["loss"] for row in logs[0]] == [row["loss"] for row in logs[1]]
        assert len(logs[0]) == 3


def test_it_learns_and_the_mean_weights_are_the_ones_kept(data: Path, tmp_path: Path) -> None:
    one = trainer(data, tmp_path, epochs=8)
    one.run()
    kept = checkpoint.read_weights(tmp_path / "last.safetensors")
    own = one.network.state_dict()
    assert any(not torch.equal(kept[name], own[name]) for name in kept)
    one.network.load_state_dict(kept)
    outcome = run_on(one.network, CLASSES, find(data / "val", ["l8"]), bands="rgb-nir")["l8"]
    scores = outcome.scores(["cloud"])
    assert scores.get("cloud", "oa") > 0.97
    losses = [float(row["loss"]) for row in csv.DictReader((tmp_path / "log.csv").read_text().splitlines())]
    assert losses[-1] < losses[0] / 3


def test_early_stopping_keeps_the_best_weights(data: Path, tmp_path: Path) -> None:
    scores = iter([0.5, 0.9, 0.8, 0.7, 0.6, 0.95])
    seen: list[str] = []

    def validate(network: nn.Module) -> Mapping[str, float]:
        assert not network.training
        seen.append(hashlib.sha256(str(network.state_dict()).encode()).hexdigest())
        return {"score": next(scores)}

    progress = trainer(data, tmp_path, validate=validate, epochs=6, stop_after=2, watch="score").run()
    assert (progress.best, progress.best_epoch, progress.epoch) == (0.9, 1, 4)
    assert digest(tmp_path, "best.safetensors") != digest(tmp_path, "last.safetensors")
    with pytest.raises(OptionError, match="score"):
        trainer(data, tmp_path / "b", validate=lambda _: {"score": 1.0}, watch="scor").run()


def test_validation_changes_nothing_of_the_training(data: Path, tmp_path: Path) -> None:
    trainer(data, tmp_path / "a").run()
    trainer(data, tmp_path / "b", validate=lambda _: {"score": 1.0}, watch="score").run()
    assert digest(tmp_path / "a") == digest(tmp_path / "b")


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [("cosine", None), ("constant", [1, 1, 1, 1]), ("plateau", [1, 1, 0.2, 0.04])],
)
def test_only_a_plateau_cuts_the_rate(
    data: Path, tmp_path: Path, schedule: str, expected: list[float] | None
) -> None:
    one = trainer(
        data, tmp_path, validate=lambda _: {"score": 0.5}, watch="score",
        epochs=4, warmup=0, schedule=schedule, patience=1, rate=1e-3,
    )  # fmt: skip
    one.run()
    rows = list(csv.DictReader((tmp_path / "log.csv").read_text().splitlines()))
    steps, length = 4 * one.stream.length, one.stream.length
    if expected is None:
        expected = [rate(length * epoch - 1, steps) for epoch in range(1, 5)]
    assert [float(row["rate"]) / 1e-3 for row in rows] == pytest.approx(expected, abs=1e-3)


def test_rates_and_means() -> None:
    assert rate(0, 10, warmup=5) == pytest.approx(0.2)
    assert rate(4, 10, warmup=5) == 1
    assert rate(9, 10, kind="constant") == 1
    assert [round(rate(s, 4), 3) for s in range(5)] == [1, 0.854, 0.5, 0.146, 0]
    net = nn.Linear(2, 2, bias=False)
    nn.init.zeros_(net.weight)
    mean, expected = moving_average(net, 0.5), 0.0
    for step in range(1, 40):
        nn.init.constant_(net.weight, step)
        mean.update_parameters(net)
        kept = min(0.5, step / (step + 10))
        expected = kept * expected + (1 - kept) * step
        if step == 1:  # the weights at the start have a share in the first mean
            assert mean.module.weight[0, 0].item() == pytest.approx(10 / 11)
    assert mean.module.weight[0, 0].item() == pytest.approx(expected, rel=1e-5)


def test_a_plateau_waits_for_its_patience_and_for_the_end_of_the_warmup(data: Path, tmp_path: Path) -> None:
    scores = iter([1, 2, 2, 1, 3, 3, 3, 3])
    one = trainer(
        data, tmp_path, validate=lambda _: {"score": next(scores)}, watch="score",
        epochs=8, warmup=0, schedule="plateau", patience=2, rate=1e-3,
    )  # fmt: skip
    one.run()
    rows = list(csv.DictReader((tmp_path / "log.csv").read_text().splitlines()))
    assert [float(row["rate"]) / 1e-3 for row in rows] == pytest.approx([1, 1, 1, 1, 0.2, 0.2, 0.2, 0.04])
    scores = iter([1, 1, 1, 1])
    late = trainer(
        data, tmp_path / "late", validate=lambda _: {"score": next(scores)}, watch="score",
        epochs=4, warmup=2 * one.stream.length + 1, schedule="plateau", patience=1, rate=1e-3,
    )  # fmt: skip
    late.run()
    rows = list(csv.DictReader((tmp_path / "late" / "log.csv").read_text().splitlines()))
    assert [float(row["rate"]) / 1e-3 for row in rows] == pytest.approx([6 / 13, 12 / 13, 1, 1])


def test_gradients_are_clipped(data: Path, tmp_path: Path) -> None:
    one = trainer(data, tmp_path, clip=1e-3)
    one._step(one.network, one.stream.batch_at(0, 0))
    norm = torch.stack([p.grad.norm() for p in one.network.parameters() if p.grad is not None]).norm()
    assert norm.item() == pytest.approx(1e-3, rel=1e-3)


def test_autocast_trains_too(data: Path, tmp_path: Path) -> None:
    trainer(data, tmp_path, autocast="bf16", epochs=1).run()
    weights = checkpoint.read_weights(tmp_path / "last.safetensors")
    assert all(value.dtype == torch.float32 for value in weights.values())


def test_a_loss_that_is_nan_stops_the_training(data: Path, tmp_path: Path) -> None:
    one = trainer(data, tmp_path)
    with torch.no_grad():
        next(one.network.parameters()).fill_(torch.nan)
    with pytest.raises(CloudMaskError, match="batch 0"):
        one.run()


def test_a_folder_of_another_training_is_not_overwritten(data: Path, tmp_path: Path) -> None:
    trainer(data, tmp_path).run(stop_at=2)
    with pytest.raises(CloudMaskError, match="rate"):
        trainer(data, tmp_path, rate=1e-3).run()
    (tmp_path / "state.pt").write_bytes(b"no state")
    with pytest.raises(WeightsError, match="remove it"):
        trainer(data, tmp_path).run()


def test_a_state_with_code_in_it_is_not_run(data: Path, tmp_path: Path) -> None:
    class Bad:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(tmp_path / "owned"),)

    torch.save({"network": Bad()}, tmp_path / "state.pt")
    with pytest.raises(WeightsError):
        trainer(data, tmp_path).run()
    assert not (tmp_path / "owned").exists()


CONFIG = """
name = "tiny"
[data]
train = "train"
held_out = "val"
dev = 0.3
batch = 6
length = 8
[recipe]
size = 16
pixels = 32
least_bands = 2
[network]
architecture = "spectral"
classes = ["clear", "cloud", "cloud_shadow"]
settings = { width = 8, hidden = 16 }
[loop]
epochs = 3
rate = 1e-2
watch = "score"
[validation]
bands = ["all", "vgt"]
"""


def test_one_command_trains_chooses_a_threshold_and_writes_a_card(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "tiny.toml"
    config.write_text(CONFIG)
    assert main(["train", str(config), "--data", str(data), "--out", str(tmp_path / "one")]) == 0
    assert '"threshold"' in capsys.readouterr().out
    record = train(config, data=data, out=tmp_path / "two")
    weights = (tmp_path / "two" / "tiny.safetensors").read_bytes()
    assert hashlib.sha256(weights).hexdigest() == record["sha256"]
    assert weights == (tmp_path / "one" / "tiny.safetensors").read_bytes()
    assert 0 < record["threshold"] < 1
    assert set(record["chosen_on"]) == {"all", "vgt"}
    assert (tmp_path / "two" / "curves.png").read_bytes()[1:4] == b"PNG"
    assert record["sources"] == ["l8", "pixels/landsat8"]


def test_what_was_trained_masks_an_array(data: Path, tmp_path: Path) -> None:
    """The engine, with the weights and card that training wrote, says what the evaluation says."""
    import xarray as xr

    import xcloudmask

    config = tmp_path / "tiny.toml"
    config.write_text(CONFIG)
    record = train(config, data=data, out=tmp_path / "run")
    spec = xcloudmask.models.load(str(tmp_path / "run" / "tiny.safetensors"), classes=list(CLASSES))
    card = json.loads((tmp_path / "run" / "tiny.json").read_text())
    assert (card["threshold"], card["sha256"]) == (record["threshold"], record["sha256"])
    sample = take(find(data / "val", ["l8"])[0].read(), "vgt")
    assert sample is not None
    names = [band.name for band in sample.bands]
    da = xr.DataArray(sample.image, dims=("band", "y", "x"), coords={"band": names})
    da = da.cloudmask.describe(sensor="landsat-8", level="L1TP")
    mask = da.cloudmask.predict(model=spec, threshold=record["threshold"])
    network = arch.build(card["architecture"], card["config"])
    network.load_state_dict(checkpoint.read_weights(tmp_path / "run" / "tiny.safetensors"))
    expected = classify(probabilities(network, sample), CLASSES, record["threshold"])
    np.testing.assert_array_equal(mask.values, expected)


def test_the_command_refuses_held_out_data(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "tiny.toml"
    config.write_text(CONFIG)
    bad = tmp_path / "bad.toml"
    bad.write_text(CONFIG.replace('train = "train"', 'train = "val"'))
    with pytest.raises(LeakError):
        train(bad, data=data, out=tmp_path / "one")
    write_patch(data / "train" / "l8" / "again.npz", 90, scene="another")
    assert main(["train", str(config), "--data", str(data), "--out", str(tmp_path / "one")]) == 1
    assert "held out" in capsys.readouterr().err
    assert not (tmp_path / "one" / "tiny.safetensors").exists()


def test_config_errors_name_the_setting(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    for text, match in (
        ("name = 'a'\n[loop]\nepochs = 1", r"no table \[data\]"),
        ("name = ", "not TOML"),
        (CONFIG.replace("length = 8", "lenght = 8"), "length"),
    ):
        path.write_text(text)
        with pytest.raises(CloudMaskError, match=match):
            Plan.read(path)
    with pytest.raises(OptionError, match="did you mean 'epochs'"):
        Settings(epoch=3)
    with pytest.raises(OptionError, match="cosine"):
        Settings(epochs=1, schedule="cosin")


def test_thresholds_decide_what_is_cloud(data: Path) -> None:
    p = np.array([[0.5, 0.2, 0.1], [0.3, 0.1, 0.8], [0.1, 0.1, 0.05], [0.1, 0.6, 0.05]], "f4")
    classes = ("clear", "thick_cloud", "thin_cloud", "cloud_shadow")
    assert classify(p, classes, 0.5).tolist() == [0, 3, 1]
    assert classify(p, classes, 0.4).tolist() == [1, 3, 1]
    assert classify(np.full((4, 1), np.nan, "f4"), classes, 0.4).tolist() == [255]
    ground = ("clear", "snow", "cloud_shadow", "cloud")
    one = np.array([[0.25], [0.25], [0.3], [0.2]], "f4")
    assert classify(one, ground, 0.5).tolist() == [3]  # the likeliest class, as predict has it
    assert classify(one, ground, None, 0.4).tolist() == [0]
    sample = find(data / "train", ["l8"])[0].read()
    for name in SETS:
        assert take(sample, name) is not None
    with pytest.raises(OptionError, match="rgb"):
        take(sample, "rgbn")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_processes_train_one_network(data: Path, tmp_path: Path) -> None:
    """What torchrun starts: each process sees its own share, and the weights stay one."""
    script = tmp_path / "two.py"
    script.write_text(
        "import sys, torch\n"
        "from pathlib import Path\n"
        "from tests.train.test_loop import trainer\n"
        "one = trainer(Path(sys.argv[1]), Path(sys.argv[2]), epochs=1)\n"
        "import os\n"
        "object.__setattr__(one.stream, 'rank', int(os.environ['RANK']))\n"
        "object.__setattr__(one.stream, 'world', 2)\n"
        "one.run()\n"
        "w = torch.cat([p.detach().flatten() for p in one.network.parameters()])\n"
        "torch.save(w, Path(sys.argv[2]) / f\"w{os.environ['RANK']}.pt\")\n"
    )
    root = Path(__file__).parents[2]
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    base = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2",
            "OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)}  # fmt: skip
    running = [
        subprocess.Popen(
            [sys.executable, str(script), str(data), str(tmp_path)],
            env={**base, "RANK": str(r), "LOCAL_RANK": str(r)},
            cwd=root,
        )
        for r in (0, 1)
    ]
    try:  # a busy machine may need minutes to import torch twice
        assert [process.wait(timeout=420) for process in running] == [0, 0]
    finally:
        for process in running:
            process.kill()
    first, second = (torch.load(tmp_path / f"w{r}.pt", weights_only=True) for r in (0, 1))
    assert torch.equal(first, second)
    alone = trainer(data, tmp_path / "alone", epochs=1)
    alone.run()
    mine = torch.cat([p.detach().flatten() for p in alone.network.parameters()])
    assert not torch.equal(first, mine)
