"""Entries of [recipe] and [loop] do what their sentences say; [score] and [search] on the U-Net of CNES."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import xcloudmask
from tests.train.conftest import BANDS, write_patch
from xcloudmask.cli import main
from xcloudmask.errors import CloudMaskError, OptionError
from xcloudmask.metrics.statistics import METRICS, metrics
from xcloudmask.models import arch
from xcloudmask.train import augment, checkpoint, fine_tune
from xcloudmask.train.config_tables import Recipe, Settings
from xcloudmask.train.evaluate import losses_of
from xcloudmask.train.files import LeakError, find, read_patch
from xcloudmask.train.loop import Trainer
from xcloudmask.train.losses import combined
from xcloudmask.train.networks import begin, model_of
from xcloudmask.train.plan import Plan
from xcloudmask.train.run import train
from xcloudmask.train.samples import to_xarray
from xcloudmask.train.stream import Stream

ROOT = Path(xcloudmask.__file__).parent.parent
CLASSES = ["clear", "cloud"]


@pytest.fixture
def config() -> dict[str, Any]:
    """The U-Net of CNES, small."""
    return {
        "name": "unet",
        "data": {"sources": ["l8"], "dev": 0.4, "batch": 2, "length": 3},
        "recipe": {"size": 16},
        "network": {
            "architecture": "cloud-unet", "classes": CLASSES, "bands": ["green", "red", "nir", "swir16"],
            "settings": {"width": 4, "levels": 1},
        },
        "loss": {"terms": {"bce-dice": 1.0}},
        "loop": {"epochs": 1, "optimiser": "adam", "device": "cpu"},
    }  # fmt: skip


def test_aux_inputs_are_not_hidden_from_a_network_without_them(
    data: Path, tmp_path: Path, config: dict[str, Any]
) -> None:
    config["recipe"]["hide_aux"] = 0.5
    with pytest.raises(CloudMaskError, match="hides aux inputs, and the network takes none"):
        train(Plan.of(config), data=data, out=tmp_path)


def test_a_network_that_cannot_be_built_is_told_as_the_config_is_read(config: dict[str, Any]) -> None:
    config["network"]["settings"]["width"] = 0
    with pytest.raises(CloudMaskError, match="width of 1 or more"):
        Plan.of(config)


def test_salt_and_pepper_turn_a_few_pixels_black_or_white(data: Path) -> None:
    before = read_patch(find(data / "train", ["l8"])[0].path)
    after = augment.salt_pepper(before, np.random.default_rng(0), most=0.2).image
    changed = (after != before.image) & ~np.isnan(before.image)
    assert set(np.unique(after[changed])) == {0.0, 1.0}
    assert 0.01 < changed.mean() < 0.2
    assert 0.4 < (after[changed] == 0).mean() < 0.6
    assert (changed.any(axis=0) & ~changed.all(axis=0)).any()  # each band by itself
    np.testing.assert_array_equal(np.isnan(after), np.isnan(before.image))
    entries = tuple(find(data / "train", ["l8"]))
    spotted = Stream(entries, Recipe(size=16, salt_pepper=1.0), 4, 1).batch_at(0, 0)
    assert (spotted.pixels == 1).any()
    assert not (Stream(entries, Recipe(size=16), 4, 1).batch_at(0, 0).pixels == 1).any()


def test_windows_grow_over_the_epochs_and_show_the_same_ground(
    data: Path, tmp_path: Path, config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    entries = tuple(find(data / "train", ["l8"]))
    how: dict[str, Any] = {"size": 16, "flip": 0.0, "whole": 1.0}
    small = Stream(entries, Recipe(resize=(4, 2, 1), **how), 2, 1, epochs=6)
    whole = Stream(entries, Recipe(**how), 2, 1)
    for epoch, size in enumerate((4, 4, 8, 8, 16, 16, 16)):  # beyond the last epoch: as in the last
        sample, same = small.sample(epoch, 0), whole.sample(epoch, 0)
        assert sample.image.shape[1:] == sample.possible.shape == (size, size)
        assert (sample.scene, sample.gsd) == (same.scene, 30 * 16 / size)
        mean = same.image.reshape(6, size, 16 // size, size, 16 // size).mean(axis=(2, 4))
        order = [[b.name for b in sample.bands].index(b.name) for b in same.bands]
        np.testing.assert_allclose(sample.image[order], mean, rtol=1e-5)
    seen: list[int] = []
    inner = Trainer._step

    def step(self: Trainer, wrapped: Any, batch: Any) -> Any:
        seen.append(batch.pixels.shape[-1])
        return inner(self, wrapped, batch)

    monkeypatch.setattr(Trainer, "_step", step)
    config["recipe"] |= {"resize": [2, 1]}
    train(Plan.of({**config, "loop": {"epochs": 4}}), data=data, out=tmp_path / "a")
    assert seen == [8] * 6 + [16] * 6
    with pytest.raises(CloudMaskError, match="size = 16 is no multiple of 3"):
        Recipe(size=16, resize=(3,))


def test_hard_files_are_drawn_more_often(data: Path, tmp_path: Path, config: dict[str, Any]) -> None:
    """Half of the draws by loss: how often each file comes is what its loss says."""
    train(Plan.of({**config, "loop": {"epochs": 20, "rate": 1e-2}}), data=data, out=tmp_path / "a")
    hard = write_patch(data / "train" / "l8" / "wrong.npz", 50)
    with np.load(hard) as file:  # what is cloud is called clear, and the other way about
        parts = {name: file[name] for name in file.files}
    np.savez(hard, **{**parts, "possible": np.where(parts["possible"] == 6, 1, 6).astype("u1")})
    entries = find(data / "train", ["l8"])
    network = begin({"start": str(tmp_path / "a" / "unet.json"), "classes": CLASSES}).called
    bands = ("green", "red", "nir", "swir16")
    losses = losses_of(network, CLASSES, entries, bands, pixelwise=False)
    names = [entry.path.stem for entry in entries]
    assert losses[names.index("wrong")] > 3 * max(value for value in losses if value != max(losses))
    assert losses_of(network, CLASSES, find(data / "train", ["pixels/landsat8"]), bands, False) == [1 + 1e-6]
    streams: list[Stream] = []
    inner = Trainer.__init__

    def init(
        self: Trainer, network: Any, classes: Any, loss: Any, stream: Stream, *rest: Any, **how: Any
    ) -> None:
        streams.append(stream)
        inner(self, network, classes, loss, stream, *rest, **how)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "__init__", init)
        recipe = {"size": 16, "hard": 0.5, "seed": 3}
        fine_tune(
            str(tmp_path / "a" / "unet.json"), data / "train" / "l8", tmp_path / "b",
            epochs=1, length=1, dev=0, recipe=recipe, progress=False,
        )  # fmt: skip
    assert streams[0].recipe.seed == 3
    drawn = [streams[0].sample(0, index).scene for index in range(400)]
    expected = 0.5 / 5 + 0.5 * losses[names.index("wrong")] / sum(losses)
    assert expected > 0.3  # by chance: 0.2
    assert sum(name.endswith("wrong") for name in drawn) / 400 == pytest.approx(expected, abs=0.08)
    config["recipe"]["hard"] = 0.5
    with pytest.raises(CloudMaskError, match="a later"):
        train(Plan.of(config), data=data, out=tmp_path / "c")
    stages = [{"name": "first", "recipe": {"hard": 0.0}}, {"name": "then"}]
    assert train(Plan.of({**config, "stage": stages}), data=data, out=tmp_path / "d")["steps"] == 3


def test_the_optimiser_is_the_one_named(data: Path, tmp_path: Path) -> None:
    """The first two steps, against the rule written out; weights decay in each."""
    stream = Stream(tuple(find(data / "train", ["l8"])), Recipe(size=16), 2, 2)
    told: dict[str, Any] = {
        "epochs": 1,
        "rate": 0.1,
        "weight_decay": 0.01,
        "schedule": "constant",
        "device": "cpu",
    }
    ends = {}
    for name, more in (
        ("sgd", {"momentum": 0.75}), ("plain", {"optimiser": "sgd"}), ("adam", {}), ("adamw", {})
    ):  # fmt: skip
        network = arch.build("spectral", {"classes": 2, "width": 8, "hidden": 8}, seed=1)
        settings = Settings(**{"optimiser": name, **told, **more})
        loss = combined({"ambiguous-ce": 1.0}, CLASSES)
        trainer = Trainer(network, tuple(CLASSES), loss, stream, settings, tmp_path / name)
        grads: list[list[torch.Tensor]] = []
        begun = [weight.detach().clone() for weight in network.parameters()]
        trainer.optimiser.register_step_pre_hook(
            lambda *_, net=network, kept=grads: kept.append([w.grad.clone() for w in net.parameters()])
        )
        trainer.run()
        ends[name] = [weight.detach() for weight in network.parameters()]
        if name in ("sgd", "plain"):
            for at, weight in enumerate(begun):
                kept = torch.zeros_like(weight)
                for step in range(2):
                    kept = settings.momentum * kept + grads[step][at] + 0.01 * weight
                    weight = weight - 0.1 * kept
                torch.testing.assert_close(ends[name][at], weight)
    assert all(
        not torch.equal(ends[a][0], ends[b][0])
        for a, b in (("sgd", "plain"), ("adam", "adamw"), ("sgd", "adam"))
    )
    with pytest.raises(CloudMaskError, match=r"momentum = 0\.9 .* optimiser = 'sgd'"):
        Settings(epochs=1, momentum=0.9)
    with pytest.raises(OptionError, match="did you mean 'adam'"):
        Settings(epochs=1, optimiser="adamv")


def test_one_seed_is_of_everything_random(data: Path, tmp_path: Path, config: dict[str, Any]) -> None:
    def shas(seed: int) -> list[str]:
        config["recipe"]["seed"] = seed
        plan = Plan.of({**config, "loop": {"epochs": 1, "rate": 1e-9}})
        first = begin({**plan.network.given(), "seed": seed}).kept.state_dict()["logits.weight"]
        train(plan, data=data, out=tmp_path / f"{seed}")
        state = checkpoint.read_weights(tmp_path / f"{seed}" / "unet.safetensors")
        assert torch.allclose(state["logits.weight"], first, atol=1e-6)  # the first weights are of the seed
        return [str(state["logits.weight"].sum()), str(Stream(
            tuple(find(data / "train", ["l8"])), plan.recipe, 1, 1).sample(0, 0).image.sum())]  # fmt: skip

    assert all(a != b for a, b in zip(shas(1), shas(2), strict=True))


def test_a_search_over_dropout_and_filters(data: Path, tmp_path: Path, config: dict[str, Any]) -> None:
    """Each trial is the network that its settings name, and the best of them is told."""
    pytest.importorskip("optuna", reason="optuna (the extra `train`) is not installed")
    from xcloudmask.train.search import search

    space = tomllib.loads((ROOT / "examples" / "train" / "spot.toml").read_text())["search"]
    assert set(space) == {"network.settings.dropout", "network.settings.width"}
    config |= {"search": space | {"network.settings.width": [4, 8]}, "score": {"folder": "val"}}
    config["loop"]["watch"] = "score"
    best = search(Plan.of(config), 4, data=data, out=tmp_path / "s")
    widths, dropouts, scores = set(), set(), []
    for trial in range(4):
        folder = tmp_path / "s" / f"trial-{trial}"
        settings = json.loads(model_of(folder / "unet.json").config)
        network: Any = arch.build("cloud-unet", settings)
        assert network.logits.weight.shape[1] == settings["width"]
        assert network.up[0][2].p == 0 < network.down[1][2].p == settings["dropout"]
        widths.add(settings["width"])
        dropouts.add(settings["dropout"])
        record = json.loads((folder / "record.json").read_text())
        assert "scored" not in record  # what is held out chooses nothing
        scores.append(float((folder / "log.csv").read_text().splitlines()[1].split(",")[-1]))
    assert widths == {4, 8}
    assert len(dropouts) == 4
    assert best["score"] == pytest.approx(max(scores))
    chosen = json.loads(model_of(tmp_path / "s" / f"trial-{best['trial']}" / "unet.json").config)
    assert best["settings"] == {f"network.settings.{name}": chosen[name] for name in ("dropout", "width")}


def test_another_sensor_is_scored_by_the_same_command(
    data: Path, tmp_path: Path, config: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """Trained on the patches of one sensor, scored on those of another as users would mask them."""
    for seed in (7, 8):
        path = write_patch(data / "train" / "l8" / f"s{seed}.npz", seed)
        with np.load(path) as file:
            parts = {name: file[name] for name in file.files}
        meta = json.dumps({**json.loads(str(parts["meta"])), "sensor": "sentinel-2"})
        bands = ["nir" if band == "nir08" else band for band in BANDS]
        np.savez(path, **{**parts, "meta": meta, "bands": bands})
    config["data"] |= {"sensors": ["sentinel-2"], "dev": 0.0}
    config["loop"]["rate"] = 1e-2
    config["score"] = {"folder": "val", "sources": ["l8"], "bands": "hrvir", "coarser": 2}
    lines = ['name = "unet"']
    for name, entries in config.items():
        if name != "name":
            lines += [f"[{name}]", *(f"{key} = {toml(value)}" for key, value in entries.items())]
    (tmp_path / "spot.toml").write_text("\n".join(lines))
    command = ["train", str(tmp_path / "spot.toml"), "--data", str(data), "--out", str(tmp_path / "out")]
    assert main([*command, "--quiet"]) == 0
    printed = capsys.readouterr().out
    record = json.loads((tmp_path / "out" / "record.json").read_text())
    assert record["files"] == 2  # of six
    sample = augment.coarsen(read_patch(data / "val" / "l8" / "v0.npz"), 2)
    codes = to_xarray(sample).cloudmask.predict(model=str(tmp_path / "out" / "unet.json")).values
    cloud, known = sample.possible == 6, np.isin(sample.possible, (6, 9))
    table = [
        int((known & cloud & (codes == 1)).sum()), int((known & ~cloud & (codes == 1)).sum()),
        int((known & cloud & (codes == 0)).sum()), int((known & ~cloud & (codes == 0)).sum()),
    ]  # fmt: skip
    for name, value in zip(METRICS, metrics(np.array(table)), strict=True):
        if not np.isnan(value):
            assert record["scored"]["cloud"][name]["pooled"] == pytest.approx(value, abs=1e-4)
    assert record["scored"]["on"] == config["score"]
    assert set(record["scored"]) == {"on", "scenes", "cloud"}  # what two classes answer
    assert f"{metrics(np.array(table))[METRICS.index('f2')]:.3f}" in printed
    write_patch(data / "train" / "l8" / "twin.npz", 90, scene="v0")
    with pytest.raises(LeakError, match="held out"):  # what is scored on is never trained on
        train(Plan.of({**config, "data": {**config["data"], "sensors": None}}), data=data, out=tmp_path / "b")
    with pytest.raises(OptionError, match=r"sensor in \[data\] 'spot-5'"):
        train(Plan.of({**config, "data": {"sensors": ["spot-5"]}}), data=data, out=tmp_path / "c")


def toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {toml(each)}" for key, each in value.items()) + "}"
    return json.dumps(value)
