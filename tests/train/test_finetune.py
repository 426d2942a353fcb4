"""What a first training meets: few scenes, mistakes, interrupts, and the way to use its result."""

from __future__ import annotations

import errno
import json
import tomllib
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

from tests.train.conftest import write_patch
from tests.train.test_extras import CLASSES, config
from xcloudmask import cli, models
from xcloudmask.errors import CloudMaskError, ModelWarning, OptionError, UnitWarning, WeightsError
from xcloudmask.models.weights.atomic import replace_file
from xcloudmask.train import checkpoint
from xcloudmask.train.calibrate import fit_temperature
from xcloudmask.train.curves import draw
from xcloudmask.train.files import find
from xcloudmask.train.finetune import fine_tune
from xcloudmask.train.networks import begin
from xcloudmask.train.plan import Plan
from xcloudmask.train.run import train
from xcloudmask.train.split import entries_of

PIXELS: dict[str, Any] = {
    "network": {"architecture": "spectral", "classes": CLASSES, "settings": {"width": 8, "hidden": 8}},
    "recipe": {"size": 8, "pixels": 8},
    "loop": {"epochs": 1, "rate": 1e-2, "device": "cpu"},
}


def plan(**tables: Any) -> Plan:
    return Plan.of(config(**{**PIXELS, **tables}))


# --- which scenes choose ---


@pytest.mark.parametrize("count", [3, 4, 5])
def test_of_a_few_scenes_one_is_kept_for_choosing(tmp_path: Path, count: int) -> None:
    for number in range(count):
        write_patch(tmp_path / "train" / "l8" / f"{number}.npz", number)
    told = plan(data={"sources": ["l8"], "dev": 1e-9})
    fit, dev, _ = entries_of(told, tmp_path, tmp_path / "none")
    assert (len(fit), len(dev)) == (count - 1, 1)
    assert not {entry.scene for entry in fit} & {entry.scene for entry in dev}


def test_two_scenes_are_all_trained_on_and_that_is_said(tmp_path: Path) -> None:
    for number in range(2):
        write_patch(tmp_path / "train" / "l8" / f"{number}.npz", number)
    with pytest.warns(ModelWarning, match="no threshold"):
        fit, dev, _ = entries_of(plan(data={"sources": ["l8"], "dev": 1e-9}), tmp_path, tmp_path / "none")
    assert (len(fit), len(dev)) == (2, 0)


def test_a_folder_held_out_that_is_none_is_refused(data: Path, tmp_path: Path) -> None:
    told = plan(data={"sources": ["l8"], "held_out": "vall"})
    with pytest.raises(CloudMaskError, match="vall, which is no folder"):
        train(told, data=data, out=tmp_path / "out")


def test_other_data_in_the_same_place_is_another_training(data: Path, tmp_path: Path) -> None:
    told = plan(data={"sources": ["l8"], "batch": 1, "length": 2})
    train(told, data=data, out=tmp_path / "out")
    write_patch(data / "train" / "l8" / "more.npz", 30)
    with pytest.raises(CloudMaskError, match="other settings \\(files\\)"):
        train(told, data=data, out=tmp_path / "out")


def test_scenes_of_one_kind_tell_no_temperature(tmp_path: Path) -> None:
    network = begin(PIXELS["network"]).called
    for kind, told in ((9, "no cloud"), (6, "nothing but cloud")):
        path = write_patch(tmp_path / told / "l8" / "a.npz", 3)
        with np.load(path) as file:
            parts = dict(file)
        np.savez(path, **{**parts, "possible": np.full((48, 48), kind, "u1")})
        with pytest.warns(ModelWarning, match=told):
            assert fit_temperature(network, CLASSES, find(tmp_path / told), ["all"]) == 1.0


# --- the folder ---


def test_a_folder_is_for_one_training_at_a_time(data: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    left = tmp_path / "out" / "state.pt.77.part"
    left.write_bytes(b"half")
    told = plan(data={"sources": ["l8"], "batch": 1, "length": 1})
    with (
        checkpoint.claimed(tmp_path / "out"),
        pytest.raises(CloudMaskError, match="another training writes there"),
    ):
        train(told, data=data, out=tmp_path / "out")
    assert not left.exists()
    train(told, data=data, out=tmp_path / "out")


def test_a_full_disk_leaves_what_was_there_and_nothing_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "log.csv"
    replace_file(path, b"before")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint.os, "fsync", full)
    with pytest.raises(CloudMaskError, match=r"log\.csv cannot be written \(No space left"):
        replace_file(path, b"after")
    assert [file.read_bytes() for file in tmp_path.iterdir()] == [b"before"]


@pytest.mark.parametrize("state", [{}, [1], {"settings": 5}, {"settings": {}, "network": {}}])
def test_a_state_of_another_shape_is_refused(data: Path, tmp_path: Path, state: Any) -> None:
    torch.save(state, tmp_path / "state.pt")
    told = plan(data={"sources": ["l8"], "batch": 1, "length": 1})
    with pytest.raises((WeightsError, CloudMaskError), match=r"not the state of a training|other settings"):
        train(told, data=data, out=tmp_path)


def test_a_training_saves_itself_every_minute(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = []
    keep = checkpoint.write_state
    monkeypatch.setattr("xcloudmask.train.loop.SECONDS", 0.0)
    monkeypatch.setattr(
        checkpoint,
        "write_state",
        lambda folder, state: (saved.append(state["progress"]), keep(folder, state)),
    )
    train(plan(data={"sources": ["l8"], "batch": 1, "length": 3}), data=data, out=tmp_path)
    assert [one["total"] for one in saved] == [1, 2, 3]


# --- what is seen of it ---


def test_curves_show_scores_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib.axes import Axes

    drawn: list[str] = []
    plot, text = Axes.plot, Axes.text

    def noted(self: Axes, *args: Any, **how: Any) -> Any:
        drawn.append(how.get("label", "loss"))
        return plot(self, *args, **how)

    def written(self: Axes, *args: Any, **how: Any) -> Any:
        drawn.append(args[2])
        return text(self, *args, **how)

    monkeypatch.setattr(Axes, "plot", noted)
    monkeypatch.setattr(Axes, "text", written)
    log = "epoch,steps,rate,loss,gradient,seconds,{}taught\n0,1,1,1,1,1,{}1\n1,2,1,1,1,1,{}1\n"
    for columns, values, expected in (
        ("all,vgt,score,", "0.5,0.6,0.55,", ["loss", "all", "vgt", "score"]),
        ("all,score,", "0.5,0.5,", ["loss", "all"]),
        ("", "", ["loss", "no scene was kept for choosing"]),
    ):
        drawn.clear()
        (tmp_path / "log.csv").write_text(log.format(columns, values, values))
        assert draw(tmp_path).stat().st_size > 1000
        assert drawn == expected


def test_the_command_tells_each_epoch_and_how_to_use_what_it_made(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = """
name = "first"
[data]
sources = ["l8"]
dev = 0.3
batch = 1
length = 2
[recipe]
size = 8
pixels = 8
[network]
architecture = "spectral"
classes = ["clear", "thick_cloud", "thin_cloud", "cloud_shadow"]
settings = { width = 8, hidden = 8 }
[loop]
epochs = 2
device = "cpu"
"""
    (tmp_path / "first.toml").write_text(lines)
    command = ["train", str(tmp_path / "first.toml"), "--data", str(data), "--out", str(tmp_path / "out")]
    assert cli.main(command) == 0
    told = capsys.readouterr()
    lines_ = [line.split(",")[0] for line in told.err.splitlines()]
    assert lines_[:2] == ["epoch 0", "epoch 1"]
    assert "first was trained for 4 steps only" in lines_[2]
    path = str(tmp_path / "out" / "first.json")
    assert f"predict(model={path!r})" in told.out
    pixels = np.random.default_rng(0).random((3, 32, 32), "f4") * 0.3
    da = xr.DataArray(
        pixels, dims=("band", "y", "x"), coords={"y": -30.0 * np.arange(32), "x": 30.0 * np.arange(32)}
    )
    da = da.cloudmask.describe(bands=["blue", "red", "nir"], level="L1C")
    mask = da.cloudmask.predict(model=path)
    assert mask.attrs["model"] == "first"
    assert "first" not in models.names(), "a path is not registered"
    assert cli.main(["models", "show", path]) == 0
    assert "first" in capsys.readouterr().out
    monkeypatch.setattr("xcloudmask.train.run.train", _interrupted)
    assert cli.main(command) == 130
    assert "Run the same command again" in capsys.readouterr().err


def _interrupted(*_: Any, **__: Any) -> None:
    raise KeyboardInterrupt


GUIDE = (Path(__file__).parents[2] / "docs" / "training.md").read_text()


def block(language: str) -> str:
    return GUIDE.split(f"```{language}\n")[1].split("```")[0]


def test_the_patch_and_the_config_of_the_guide_train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("train", "train", "train", "val"):
        where = tmp_path / folder / "mine"
        where.mkdir(parents=True, exist_ok=True)
        monkeypatch.chdir(where)
        number = len(list(where.iterdir())) + 5 * (folder == "val")
        code = block("python").replace("LC08", f"L{number}").replace("0.1)", f"0.1 + {number} / 10)")
        exec(code, {})
        Path("patch.npz").rename(f"{number}.npz")
    for sample in (entry.read() for entry in find(tmp_path / "train")):
        assert sample.image.shape == (4, 256, 256)
    told = plan_from_text(block("toml"))
    assert told.data.held_out == "val"
    small = {"channels": 8, "width": 16, "layers": 1, "compact_widths": [8, 8], "compact_depth": 1}
    short = {
        "loop.epochs": 1,
        "loop.device": "cpu",
        "data.length": 1,
        "data.batch": 1,
        "network.settings": small,
    }
    with pytest.warns(ModelWarning, match="show no cloud"):  # the patch of the guide is clear
        record = train(told.with_values(short), data=tmp_path, out=tmp_path / "out")
    assert record["files"] == 2


def plan_from_text(text: str) -> Plan:
    return Plan.of(tomllib.loads(text))


# --- names of models ---


def test_a_family_is_the_model_of_the_level(capsys: pytest.CaptureFixture[str]) -> None:
    pixels = np.random.default_rng(0).random((4, 40, 40), "f4") * 0.3
    da = xr.DataArray(
        pixels, dims=("band", "y", "x"), coords={"y": -30.0 * np.arange(40), "x": 30.0 * np.arange(40)}
    )
    names = ["blue", "green", "red", "nir"]
    for level, expected in (("L1C", "ukis-4band-l1c"), ("L2A", "ukis-4band-l2a")):
        mask = da.cloudmask.describe(bands=names, level=level).chunk().cloudmask.predict("ukis-4band")
        assert mask.attrs["model"] == expected
    with pytest.warns(UnitWarning, match="level is not told"):
        mask = da.cloudmask.describe(bands=names).chunk().cloudmask.predict("ukis-4band")
    assert mask.attrs["model"] == "ukis-4band-l1c"
    with pytest.raises(OptionError, match="one for each level: ukis-any-l1c, ukis-any-l2a"):
        models.get("ukis-any")
    with pytest.raises(OptionError, match="did you mean 'ukis-any'"):
        models.get("ukis-eny")
    assert models.families() == ["ukis-6band", "ukis-4band", "ukis-any"]


def test_a_card_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(CloudMaskError, match=r"mine\.json"):
        models.get(str(tmp_path / "mine.json"))
    (tmp_path / "mine.json").write_text(json.dumps({"no": "card"}))
    with pytest.raises(CloudMaskError, match=r"mine\.json"):
        models.get(str(tmp_path / "mine.json"))


# --- fine-tuning ---


def test_a_folder_of_any_name_and_one_beginning_of_weights_will_do(data: Path, tmp_path: Path) -> None:
    mine = fine_tune(
        "spectral", data / "train", tmp_path / "my model (2)", only="classify", epochs=1, length=1, batch=1
    )
    assert mine.name == "my-model-2"
    assert (tmp_path / "my model (2)" / "my-model-2.json").exists()


def tuned(data: Path, out: Path, **how: Any) -> Any:
    return fine_tune("spectral", data / "train", out, **{"epochs": 2, "length": 2, "batch": 1, **how})


def test_a_line_an_epoch_is_printed_unless_it_is_not_wanted(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tuned(data, tmp_path / "a", dev=0.3)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(", loss")[0] for line in lines] == ["epoch 0, 2 steps", "epoch 1, 4 steps"]
    assert all(", score " in line and line.endswith(" s") for line in lines)
    tuned(data, tmp_path / "b", progress=False)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("kind", "words"), [(9, "no cloud"), (6, "nothing but cloud"), (15, "no label")])
def test_scenes_of_one_class_choose_no_threshold_and_that_is_said(
    tmp_path: Path, kind: int, words: str
) -> None:
    for number in range(3):
        path = write_patch(tmp_path / "train" / "l8" / f"{number}.npz", number)
        with np.load(path) as file:
            parts = dict(file)
        labels = np.where(parts["possible"] == kind, kind, 1) if number else np.full((48, 48), kind)
        np.savez(path, **{**parts, "possible": labels.astype("u1")})
    with pytest.warns(ModelWarning, match=f"show {words}.*no threshold can be chosen.*dev_scenes"):
        record = train(
            plan(data={"sources": ["l8"], "dev_scenes": ["l8/0"], "length": 1}),
            data=tmp_path,
            out=tmp_path / "o",
        )
    assert record["threshold"] is None


@pytest.mark.parametrize(
    ("threshold", "steps", "words"),
    [
        (0.035, 60, r"the threshold chosen, 0\.035, is extreme: .* after 60 steps on 3 files"),
        (0.95, 60, r"0\.95, is extreme"),
        (0.5, 5, "was trained for 5 steps only"),
        (0.1, 60, None),
        (None, 60, None),
    ],
)
def test_what_a_threshold_is_worth_is_said(
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    threshold: float | None,
    steps: int,
    words: str,
) -> None:
    warnings.resetwarnings()
    warnings.simplefilter("error")
    monkeypatch.setattr("xcloudmask.train.run.choose_threshold", lambda *_: (threshold, 0.9))
    dev = 0.0 if threshold is None else 0.3
    told = plan(data={"sources": ["l8"], "batch": 1, "length": steps, "dev": dev})
    if words is None:
        train(told, data=data, out=tmp_path)
        return
    with pytest.warns(ModelWarning, match=words):
        train(told, data=data, out=tmp_path)
