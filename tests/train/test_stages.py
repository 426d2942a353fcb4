"""What training starts from, what a teacher says, stages, and the search for settings."""

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
from xcloudmask import models
from xcloudmask.cli import main
from xcloudmask.errors import CloudMaskError, ModelWarning, OptionError
from xcloudmask.models import arch
from xcloudmask.testing import ANY_BANDS, TOY
from xcloudmask.train import checkpoint, fine_tune
from xcloudmask.train.files import LeakError, find, read_patch
from xcloudmask.train.networks import begin, model_of, sized_by, with_head
from xcloudmask.train.plan import Plan
from xcloudmask.train.pseudo import confident_labels, label_folder, teach
from xcloudmask.train.run import train
from xcloudmask.train.samples import Sample, to_xarray

CLASSES = ["clear", "cloud", "cloud_shadow"]
ROOT = Path(xcloudmask.__file__).parent.parent


@pytest.fixture
def config() -> dict[str, Any]:
    """A training that takes a second."""
    return {
        "name": "tiny",
        "data": {"sources": ["l8"], "dev": 0.4, "batch": 4, "length": 3, "held_out": "val"},
        "recipe": {"size": 16, "simulate": 0.5},
        "network": {
            "architecture": "sensei-v2", "classes": CLASSES,
            "settings": {
                "channels": 8, "width": 16, "layers": 1, "compact_widths": [8, 8], "compact_depth": 1,
            },
        },
        "loop": {"epochs": 1, "rate": 1e-3},
    }  # fmt: skip


def weights(path: Path) -> dict[str, torch.Tensor]:
    return checkpoint.read_weights(path)


# --- the head ---


@pytest.mark.parametrize("name", arch.NAMES)
def test_every_architecture_has_a_head(name: str) -> None:
    config = {key: value for key, value in {"bands": 4, "classes": 3}.items() if key in arch.config_of(name)}
    if "classes" not in arch.config_of(name):  # one logit, of cloud
        with pytest.raises(CloudMaskError, match="no head"):
            sized_by(name, config, "classes")
        return
    head = sized_by(name, config, "classes")
    assert 1 <= len(head) <= 4
    with torch.device("meta"):
        state = arch.construct(name, config).state_dict()
    assert all(state[tensor].shape[axis] == 3 for tensor, axis in head.items())


def test_a_new_head_keeps_the_rest_and_the_rows_of_classes_of_the_same_name() -> None:
    spec = models.get("spectral")
    old = models.network.load_network(spec).body.state_dict()
    for classes in (["cloud_shadow", "snow", "clear"], ["clear", "snow", "thin_cloud", "cloud_shadow"]):
        network, config = with_head(spec, classes)
        head = sized_by("spectral", config, "classes")
        new = network.state_dict()
        for name, value in new.items():
            if name not in head:
                assert torch.equal(value, old[name]), name
                continue
            for at, word in enumerate(classes):
                row = value.select(head[name], at)
                if word in spec.classes:
                    assert torch.equal(row, old[name].select(head[name], spec.classes.index(word)))
                elif value.dim() > 1:
                    assert not any(torch.equal(row, r) for r in old[name].unbind(head[name]))
    same, _ = with_head(spec, spec.classes)
    assert all(torch.equal(value, old[name]) for name, value in same.state_dict().items())


def test_what_cannot_be_trained_is_refused() -> None:
    for spec, match in ((models.get("ukis-any-l1c"), "several networks"), (TOY, "no architecture")):
        with pytest.raises(CloudMaskError, match=match):
            begin({"start": spec, "classes": CLASSES})
    with pytest.raises(CloudMaskError, match="bands = "):
        begin({"architecture": "cloud-unet", "classes": CLASSES})
    with pytest.raises(CloudMaskError, match="leave bands out"):
        begin({"architecture": "spectral", "classes": CLASSES, "bands": ["red"]})
    with pytest.raises(CloudMaskError, match="cannot be read"):
        model_of("no/such.safetensors")


# --- fine-tuning ---


def test_the_example_of_the_guide_runs(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (ROOT / "docs" / "training.md").read_text()
    code = text.split("## Fine-tune")[1].split("```python\n")[1].split("```")[0]
    assert len(code.strip().splitlines()) <= 10
    (data / "train").rename(tmp_path / "my_patches")
    monkeypatch.chdir(tmp_path)
    told = {"scene": to_xarray(read_patch(data / "val" / "l8" / "v0.npz"))}
    exec(code.replace("epochs=5", "epochs=1"), told)
    assert told["mask"].attrs["flag_meanings"] == "clear cloud no_data"


def test_a_model_is_fine_tuned_and_masks(data: Path, tmp_path: Path) -> None:
    mine = fine_tune(
        "spectral",
        data / "train",
        tmp_path / "mine",
        classes=["clear", "cloud"],
        epochs=2,
        length=6,
        rate=3e-3,
    )
    scene = to_xarray(read_patch(data / "val" / "l8" / "v0.npz"))
    mask = scene.cloudmask.predict(model=mine)
    truth = read_patch(data / "val" / "l8" / "v0.npz").possible
    right = (mask.values == 1) == (truth == 6)
    assert right[:, :-1].mean() > 0.97
    assert (mask.values[:, -1] == 255).all()
    assert mine.classes == ("clear", "cloud")
    assert mine.any_bands
    assert mine.training_data.startswith(models.get("spectral").training_data[:20])
    again = fine_tune(mine, data / "train", tmp_path / "again", epochs=1, length=2, only="head")
    before, after = (weights(tmp_path / name / f"{name}.safetensors") for name in ("mine", "again"))
    head = sized_by(again.architecture, json.loads(again.config), "classes")
    assert all(torch.equal(before[name], after[name]) for name in before if name not in head)
    assert any(not torch.equal(before[name], after[name]) for name in head)


def test_a_network_for_fixed_bands_gets_its_bands_in_order_and_normalised(
    data: Path, tmp_path: Path, config: dict[str, Any]
) -> None:
    bands = ["red", "nir", "blue"]
    config["network"] = {
        "architecture": "pixel-mlp", "classes": CLASSES, "bands": bands,
        "settings": {"bands": 3, "hidden": 8},
    }  # fmt: skip
    train(Plan.of(config), data=data, out=tmp_path / "a")
    spec = model_of(tmp_path / "a" / "tiny.safetensors")
    assert (spec.bands, spec.any_bands) == (tuple(bands), False)
    told = {"mean": (0.1, 0.2, 0.3), "std": (2.0, 2.0, 2.0)}
    from dataclasses import replace

    begun = begin({"start": replace(spec, **told), "classes": CLASSES})
    pixels = torch.rand(1, 3, 4, 4)
    mean = torch.tensor(told["mean"])[:, None, None]
    begun.called.eval()
    expected = begun.kept((pixels - mean) / 2)
    assert torch.allclose(begun.called(pixels, torch.zeros(3, 0)), expected)
    tuned = fine_tune(
        replace(spec, **told), data / "train", tmp_path / "b", epochs=1, length=2, recipe={"size": 16}
    )
    assert (tuned.bands, tuned.mean, tuned.std) == (tuple(bands), told["mean"], told["std"])
    sample = read_patch(data / "val" / "l8" / "v0.npz")
    assert set(np.unique(to_xarray(sample).cloudmask.predict(model=tuned))) <= {0, 1, 3, 255}
    config["network"]["bands"] = ["red", "nir", "cirrus"]
    with pytest.raises(CloudMaskError, match="cirrus"):
        train(Plan.of(config), data=data, out=tmp_path / "c")


def test_one_logit_is_trained_as_two_classes(data: Path, tmp_path: Path, config: dict[str, Any]) -> None:
    table = {
        "architecture": "pw-dl3plus",
        "classes": ["clear", "cloud"],
        "bands": ["blue", "red", "nir", "swir16"],
    }
    begun = begin(table)
    begun.called.eval()
    pixels = torch.rand(1, 4, 32, 32)
    with torch.inference_mode():
        p = torch.softmax(begun.called(pixels, torch.zeros(4, 0)), dim=1)
        assert torch.allclose(p[:, 1:], torch.sigmoid(begun.kept(pixels)), atol=1e-6)
    with pytest.raises(CloudMaskError, match="two classes"):
        begin({**table, "classes": CLASSES})
    config["network"], config["recipe"] = table, {"size": 32}
    config["data"] |= {"batch": 2, "length": 1}
    train(Plan.of(config), data=data, out=tmp_path / "a")
    spec = model_of(tmp_path / "a" / "tiny.safetensors")
    assert spec.activation == "sigmoid"
    assert begin({"start": spec, "classes": ["clear", "cloud"]}).called.one_logit


def test_scenes_can_be_named_for_choosing(data: Path, tmp_path: Path, config: dict[str, Any]) -> None:
    from xcloudmask.train.split import entries_of

    config["data"] |= {"dev_scenes": ["l8/t1"], "dev": 0.0}
    fit, dev, held = entries_of(Plan.of(config), data, tmp_path)
    assert [entry.scene for entry in dev] == ["l8/t1"]
    assert [entry.scene for entry in fit] == ["l8/t0", "l8/t2", "l8/t3"]
    assert {entry.source for entry in held} == {"l8", "pixels/landsat8"}
    config["data"]["dev_scenes"] = ["l8/t9"]
    with pytest.raises(OptionError, match="l8/t"):
        entries_of(Plan.of(config), data, tmp_path)


def test_scenes_without_any_cloud_choose_nothing(data: Path, tmp_path: Path) -> None:
    for number in (2, 3):
        path = data / "train" / "l8" / f"t{number}.npz"
        with np.load(path) as file:
            parts = {key: file[key] for key in file.files}
        np.savez(path, **{**parts, "possible": np.where(parts["possible"] == 6, 0, parts["possible"])})
    config = {
        "name": "a", "network": {"start": "spectral", "classes": ["clear", "cloud"]},
        "data": {"sources": ["l8"], "dev_scenes": ["l8/t2", "l8/t3"], "length": 4, "batch": 4},
        "recipe": {"size": 16, "pixels": 16}, "loop": {"epochs": 2, "watch": "score"},
    }  # fmt: skip
    with pytest.warns(ModelWarning, match="no cloud: no threshold can be chosen"):
        record = train(Plan.of(config), data=data, out=tmp_path / "a")
    assert (record["threshold"], record["chosen_on"]) == (None, {})
    loaded = models.load(str(tmp_path / "a" / "a.json"))  # as the guide says
    assert (loaded.name, loaded.threshold, loaded.sha256) == ("a", None, record["sha256"])


# --- a teacher ---


def test_labels_are_the_smallest_set_that_the_teacher_is_sure_of() -> None:
    p = np.array(
        [[0.9, 0.6, 0.02, np.nan, 0.34], [0.06, 0.05, 0.95, 0.5, 0.33], [0.04, 0.35, 0.03, 0.5, 0.33]]
    )
    found = confident_labels(p.astype("f4"), CLASSES, 0.9) & 0b1111
    assert found.tolist() == [1, 9, 6, 0, 0]
    assert (confident_labels(p[:2], ["clear", "cloud"], 0.9)[0] & 0b1111) == 9  # shadow is not told: open
    rng = np.random.default_rng(0)
    p = rng.dirichlet([0.3] * 3, 500).T.astype("f4")[:, None]
    few = confident_labels(p, CLASSES, 0.7) & 0b1111
    many = confident_labels(p, CLASSES, 0.99) & 0b1111
    assert ((few & ~np.where(many == 0, 15, many)) == 0).all()  # surer of more
    for bad in (0.5, 1.1):
        with pytest.raises(CloudMaskError, match="confident"):
            confident_labels(p, CLASSES, bad)


def unlabelled(root: Path, name: str, seed: int, **meta: object) -> Path:
    path = write_patch(root / "unlabelled" / "wild" / f"{name}.npz", seed)
    with np.load(path) as file:
        parts = {key: file[key] for key in file.files if key != "possible"}
    parts["meta"] = json.dumps({**json.loads(str(parts["meta"])), **meta})
    np.savez(path, **parts)
    return path


def test_a_teacher_labels_patches_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seed, meta in (("a", 1, {}), ("b", 2, {}), ("far", 3, {"gsd_m": 800})):
        unlabelled(tmp_path, name, seed, **meta)
    found = label_folder(tmp_path / "unlabelled", tmp_path / "out", ["ukis-4band"], confident=0.6)
    assert [path.name for path in found] == ["a.npz", "b.npz"]  # 800 m is not what ukis was made for
    for entry in find(tmp_path / "out"):
        sample = entry.read()
        truth = read_patch(tmp_path / "unlabelled" / "wild" / entry.path.name)
        np.testing.assert_array_equal(sample.image, truth.image)
        assert entry.source == "wild"
        assert (sample.possible > 0).mean() > 0.3
        assert (sample.possible[:, -1] == 0).all()  # no data
    meta = json.loads(str(np.load(found[0])["meta"]))
    assert meta["labelled_by"]["models"] == ["ukis-4band"]
    import xcloudmask.train.pseudo as pseudo

    monkeypatch.setattr(pseudo, "teach", lambda *a, **k: pytest.fail("labelled again"))
    assert label_folder(tmp_path / "unlabelled", tmp_path / "out", ["ukis-4band"], confident=0.6) == found
    with pytest.raises(CloudMaskError, match="another teacher"):
        label_folder(tmp_path / "unlabelled", tmp_path / "out", ["ukis-4band"], confident=0.8)


def bright(pixels: torch.Tensor) -> torch.Tensor:
    """Sure of cloud where it is bright, and of clear elsewhere."""
    cloud = (pixels[:, :1] > 0.3).float() * 0.97 + 0.01
    return torch.cat([0.99 - cloud, cloud, torch.full_like(cloud, 0.01)], dim=1)


def vague(pixels: torch.Tensor) -> torch.Tensor:
    """Has no idea but that there is no shadow."""
    half = torch.full_like(pixels[:, :1], 0.5)
    return torch.cat([half, half, half * 0], dim=1)


def lopsided(pixels: torch.Tensor) -> torch.Tensor:
    """Sure of cloud in the upper half of a window, wherever that is."""
    cloud = torch.full_like(pixels[:, :1], 0.01)
    cloud[:, :, : cloud.shape[2] // 2] = 0.99
    return torch.cat([1 - cloud, cloud], dim=1)


@pytest.fixture
def teachers() -> list[str]:
    for function in (bright, vague, lopsided):
        classes = CLASSES[:2] if function is lopsided else CLASSES
        models.register(function, bands=["red"], classes=classes, activation="none", patch=48, overwrite=True)
    return ["bright", "vague", "lopsided"]


def test_an_ensemble_is_asked_together_and_by_level(tmp_path: Path, teachers: list[str]) -> None:
    sample = read_patch(unlabelled(tmp_path, "a", 1))
    clear_or_cloud = 0b111
    valid = sample.valid
    sure, unsure = (teach(sample, teachers[:2], confident=c) for c in (0.7, 0.9))
    alone = teach(sample, ["bright"], confident=0.9)
    assert sure is not None
    assert unsure is not None
    assert alone is not None
    is_bright = sample.image[2] > 0.3
    for found in (sure, alone):
        np.testing.assert_array_equal(found[valid] & 0b1111, np.where(is_bright, 6, 1)[valid])
    assert (unsure[valid] & 0b1111 == clear_or_cloud).all()
    assert (sure[~valid] == 0).all()
    # one that cannot tell shadow has no say beside one that can
    np.testing.assert_array_equal(teach(sample, ["bright", "lopsided"], confident=0.9), alone)  # type: ignore[arg-type]
    said = teach(sample, ["lopsided"], confident=0.9)
    assert said is not None
    assert (said[:24][valid[:24]] == 6).all()
    assert (said[24:][valid[24:]] & 0b1111 == 9).all()
    assert teach(sample, ["ukis-4band-l2a"]) is None  # the sample is top of atmosphere
    assert teach(sample.select([0, 2]), ["ukis-4band"]) is None
    models.register(ANY_BANDS, overwrite=True)
    assert teach(sample, ["any"], confident=0.51) is not None
    with pytest.raises(OptionError, match="ukis"):
        teach(sample, ["ukis-5band"])


def test_turns_and_mirrors_ask_the_teacher_eight_times(tmp_path: Path, teachers: list[str]) -> None:
    sample = read_patch(unlabelled(tmp_path, "a", 1))
    plain, turned = (teach(sample, ["lopsided"], confident=0.9, tta=tta) for tta in (False, True))
    assert plain is not None
    assert plain[sample.valid].all()
    assert turned is not None
    assert not turned.any()  # above and below say the opposite


# --- stages ---


def test_stages_go_from_weak_to_strong_by_one_command(
    data: Path, tmp_path: Path, config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed in (1, 2):
        unlabelled(data, f"w{seed}", seed)
    config["teacher"] = {"models": ["ukis-4band"], "confident": 0.6}
    config["stage"] = [
        {"name": "weak", "data": {"labelled": False, "teacher": True}},
        {"name": "strong", "loop": {"rate": 1e-4, "epochs": 2}},
    ]
    seen: list[tuple[str, set[str], float]] = []
    import xcloudmask.train.run as run

    inner = run.finish

    def finish(plan: Plan, begun: Any, dev: Any, fit: Any, folder: Path, steps: int) -> Any:
        seen.append((plan.name, {entry.source for entry in fit}, plan.loop.rate))
        return inner(plan, begun, dev, fit, folder, steps)

    monkeypatch.setattr(run, "finish", finish)
    record = train(Plan.of(config), data=data, out=tmp_path / "run")
    assert seen == [("weak", {"wild"}, 1e-3), ("tiny", {"l8"}, 1e-4)]
    weak, last = tmp_path / "run" / "weak" / "weak.safetensors", tmp_path / "run" / "tiny.safetensors"
    assert record["name"] == "tiny"
    # started from the weak weights: nearer to them than to those of a fresh network
    fresh = begin(config["network"]).kept.state_dict()
    after, before = weights(last), weights(weak)
    names = [name for name in after if after[name].is_floating_point() and "running" not in name]

    def apart(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
        return sum(float((a[name] - b[name]).abs().sum()) for name in names)

    assert 0 < apart(after, before) < apart(before, fresh) / 2
    stamp = last.read_bytes()
    train(Plan.of(config), data=data, out=tmp_path / "run")  # all is there: nothing changes
    assert last.read_bytes() == stamp


def test_what_a_teacher_labelled_is_no_way_around_the_guard(
    data: Path, tmp_path: Path, config: dict[str, Any]
) -> None:
    path = unlabelled(data, "stolen", 90)  # the pixels of val/l8/v0
    assert path.exists()
    config["teacher"] = {"models": ["ukis-4band"], "confident": 0.6}
    config["data"]["teacher"] = True
    with pytest.raises(LeakError, match="held out"):
        train(Plan.of(config), data=data, out=tmp_path / "run")


def test_plans_say_what_is_wrong(config: dict[str, Any]) -> None:
    for change, match in (
        ({"stage": [{"nmae": "a"}]}, "did you mean 'name'"),
        ({"stage": [{"name": "a", "data": {"bacth": 1}}]}, "did you mean 'batch'"),
        ({"stage": [{"data": {}}]}, "needs name"),
        ({"teacher": {"model": []}}, "did you mean 'models'"),
        ({"network": {"classes": CLASSES}}, "needs architecture = .* or start"),
    ):
        with pytest.raises(CloudMaskError, match=match):
            Plan.of({**config, **change})
    del config["name"]
    with pytest.raises(CloudMaskError, match="no name"):
        Plan.of(config)


EXAMPLES = sorted((ROOT / "examples" / "train").glob("*.toml"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_the_recipes_run(path: Path, data: Path, tmp_path: Path) -> None:
    """Each stage for two steps, on a toy: the settings are those of the file."""
    plan = tomllib.loads(path.read_text())
    for seed in (1, 2):
        unlabelled(data, f"w{seed}", seed)
    short: dict[str, Any] = {
        "batch": 2,
        "length": 2,
        "weights": {},
        "sources": None,
        "dev_scenes": [],
        "sensors": None,
    }
    if not plan["recipe"].get("pixels"):
        short["sources"] = ["l8"]
    for stage in (plan, *plan.get("stage", [])):
        stage["data"] = {**stage.get("data", {}), **short}
        stage["loop"] = {**stage.get("loop", {}), "epochs": 1, "device": "cpu"}
    plan["data"]["dev"] = 0.4
    plan["recipe"]["size"] = 64
    if "score" in plan:
        plan["score"]["sources"] = ["l8"]
    if "teacher" in plan:
        plan["teacher"] |= {"models": ["ukis-4band"], "confident": 0.6}
    record = train(Plan.of(plan), data=data, out=tmp_path / "run")
    assert ("scored" in record) == ("score" in plan)
    spec = model_of(tmp_path / "run" / f"{record['name']}.safetensors")
    network = arch.build(spec.architecture, json.loads(spec.config))
    assert sum(p.numel() for p in network.parameters()) < 8_000_000
    assert spec.any_bands or spec.bands == ("green", "red", "nir", "swir16")
    assert len(BANDS) >= spec.min_bands
    assert ("scored" in json.loads((tmp_path / "run" / "record.json").read_text())) == ("score" in plan)


# --- search ---


def test_a_search_tries_settings_and_goes_on(data: Path, tmp_path: Path, config: dict[str, Any]) -> None:
    pytest.importorskip("optuna", reason="optuna (the extra `train`) is not installed")
    from xcloudmask.train.search import search

    config["loop"]["watch"] = "score"
    config["search"] = {
        "loop.rate": {"low": 1e-4, "high": 1e-2, "log": True},
        "network.settings.layers": [1, 2],
        "data.batch": {"low": 2, "high": 3},
    }
    plan = Plan.of(config)
    found = search(plan, 2, data=data, out=tmp_path / "s")
    assert set(found["settings"]) == set(config["search"])
    assert 1e-4 <= found["settings"]["loop.rate"] <= 1e-2
    first = (tmp_path / "s" / "trial-0" / "tiny.safetensors").stat().st_mtime_ns
    more = search(plan, 3, data=data, out=tmp_path / "s")
    assert (tmp_path / "s" / "trial-0" / "tiny.safetensors").stat().st_mtime_ns == first
    assert (tmp_path / "s" / "trial-2" / "record.json").exists()
    assert not (tmp_path / "s" / "trial-3").exists()
    scores = [
        float((tmp_path / "s" / f"trial-{n}" / "log.csv").read_text().splitlines()[1].split(",")[-1])
        for n in range(3)
    ]
    assert more["score"] == pytest.approx(max(scores))
    assert more["trial"] == scores.index(max(scores))
    for space, match in (({"loop.rate": 3}, "range"), ({"a.b.c.d": [1]}, "table.entry")):
        with pytest.raises(CloudMaskError, match=match):
            search(Plan.of({**config, "search": space}), 1, data=data, out=tmp_path / match[0])


def test_a_search_needs_a_space_and_a_judge(
    tmp_path: Path,
    config: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from xcloudmask.train.search import search

    monkeypatch.setitem(__import__("sys").modules, "optuna", None)
    with pytest.raises(CloudMaskError, match=r"xcloudmask\[train\]"):
        search(Plan.of(config), 1)
    assert main(["train", str(tmp_path / "none.toml")]) == 1
    assert "no such config" in capsys.readouterr().err
    monkeypatch.undo()
    pytest.importorskip("optuna", reason="optuna (the extra `train`) is not installed")
    with pytest.raises(CloudMaskError, match=r"no \[search\]"):
        search(Plan.of(config), 1)
    with pytest.raises(CloudMaskError, match="watch"):
        search(Plan.of({**config, "search": {"loop.rate": [1e-3]}}), 1)


def test_a_sample_survives_the_way_through_xarray(tmp_path: Path) -> None:
    from xcloudmask.train.samples import from_xarray

    sample: Sample = read_patch(write_patch(tmp_path / "a" / "a.npz", 1))
    da = to_xarray(sample)
    back = from_xarray(da)
    np.testing.assert_array_equal(back.image, sample.image)
    for mine, its in zip(back.bands, sample.bands, strict=True):
        assert (mine.common_name, mine.center_nm, mine.kind) == (its.common_name, its.center_nm, its.kind)
    assert back.gsd == sample.gsd
