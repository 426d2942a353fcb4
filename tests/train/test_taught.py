"""A teacher of other bands, asked about images as they are drawn, and bright ground in place of dark."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.train.conftest import write_patch
from tests.train.test_extras import CLASSES, config
from xcloudmask.errors import CloudMaskError
from xcloudmask.metrics.labels import BITS, QUESTIONS
from xcloudmask.models import arch
from xcloudmask.train import ground, losses
from xcloudmask.train.config_tables import Recipe, Settings
from xcloudmask.train.evaluate import probabilities
from xcloudmask.train.extras import Asked
from xcloudmask.train.files import find
from xcloudmask.train.loop import Trainer
from xcloudmask.train.networks import begin
from xcloudmask.train.plan import Plan
from xcloudmask.train.run import train
from xcloudmask.train.samples import Image, Sample, to_xarray
from xcloudmask.train.stream import Stream
from xcloudmask.types import Band

NAN = math.nan
BANDS = (
    Band("blue", "blue", 450, 480, 510),
    Band("red", "red", 640, 660, 680),
    Band("cirrus", "cirrus", 1360, 1375, 1390),
    Band("swir", "swir16", 1560, 1610, 1660),
    Band("lwir", "lwir11", 10600, 10900, 11200, kind="brightness_temperature"),
)


# --- the loss ---


def by_hand(logits: Tensor, said: Tensor, groups: list[list[int]]) -> float:
    """Mean over the pixels that are told, of minus the teacher's mean of the log of each group's share."""
    p = torch.softmax(logits, 1).numpy()
    out = []
    for n, x in np.ndindex(p.shape[0], p.shape[2]):
        clear, cloud, shadow = said[n, :, x].tolist()
        if math.isnan(cloud):
            continue
        soft = [1 - cloud, cloud] if math.isnan(shadow) or len(groups) == 2 else [clear, cloud, shadow]
        kinds = groups
        if len(soft) == 2 and len(groups) == 3:
            kinds = [groups[0] + groups[2], groups[1]]
        out.append(-sum(q * np.log(p[n, at, x].sum()) for q, at in zip(soft, kinds, strict=True)))
    return float(np.mean(out))


def answers() -> Tensor:
    torch.manual_seed(2)
    said = torch.softmax(torch.randn(2, 3, 6), 1)
    said[0, :, 0] = NAN
    said[1, 2, 1:3] = NAN
    return said


@pytest.mark.parametrize(
    ("classes", "groups"),
    [
        (CLASSES, [[0], [1, 2], [3]]),
        (["clear", "cloud", "cloud_shadow", "snow"], [[0, 3], [1], [2]]),
        (["clear", "cloud"], [[0], [1]]),
        (["not_cloud", "cloud"], [[0], [1]]),
        (["not_cloud", "cloud", "cloud_shadow"], [[0, 2], [1]]),
        (["cloud", "cloud_shadow"], [[1], [0]]),
    ],
)
def test_what_a_teacher_says_is_compared_by_kind(classes: list[str], groups: list[list[int]]) -> None:
    torch.manual_seed(1)
    logits, said = torch.randn(2, len(classes), 6), answers()
    value = losses.teaching(logits, said, classes)
    assert value.item() == pytest.approx(by_hand(logits, said, groups), rel=1e-5)
    logits.requires_grad_()
    losses.teaching(logits, said, classes).backward()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()
    assert not logits.grad[0, :, 0].any()
    assert logits.grad[0, :, 1].any()


def test_nothing_said_teaches_nothing() -> None:
    logits = torch.randn(1, 4, 3, requires_grad=True)
    assert losses.teaching(logits, torch.full((1, 3, 3), NAN), CLASSES).item() == 0


def test_a_network_that_cannot_tell_cloud_is_not_taught() -> None:
    said = torch.full((1, 3, 2), 1 / 3)
    for classes, told in (
        (["clear", "snow"], "none is cloud"),
        (["thin_cloud", "thick_cloud"], "all are cloud"),
    ):
        with pytest.raises(CloudMaskError, match=told):
            losses.teaching(torch.zeros(1, 2, 2), said, classes)


# --- in the stream ---


class Noted:
    """A teacher that says what the first band holds, and notes what it is asked."""

    def __init__(self) -> None:
        self.asked: list[Sample] = []

    def __call__(self, sample: Sample) -> Image:
        self.asked.append(sample)
        return np.repeat(sample.image[:1], 3, axis=0)


def drawn(
    data: Path, recipe: Recipe, teacher: Callable[[Sample], Image | None], sources: list[str]
) -> list[Sample]:
    stream = Stream(tuple(find(data / "train", sources)), recipe, 4, 2, teacher=teacher)
    return [stream.sample(0, index) for index in range(8)]


def test_it_is_asked_about_all_bands_and_what_it_says_stays_with_its_pixels(data: Path) -> None:
    teacher = Noted()
    recipe = Recipe(size=24, coarsen=0.5, gaps=0.5, least_bands=3, whole=0.0, coarsest=60.0)
    for sample in drawn(data, recipe, teacher, ["l8"]):
        assert sample.soft_labels is not None
        first = {band.common_name: row for band, row in zip(sample.bands, sample.image, strict=True)}
        if "blue" in first:
            np.testing.assert_array_equal(sample.soft_labels[1], first["blue"])
    assert {len(sample.bands) for sample in teacher.asked} == {6}
    assert len(teacher.asked) == 8


def test_it_is_asked_before_pixels_are_disturbed_or_drawn(data: Path) -> None:
    teacher, dark = Noted(), Recipe(size=24, radiometry=1.0, noise=1.0, bright=1.0, pixels=16)
    for sample, asked in zip(drawn(data, dark, teacher, ["l8"]), teacher.asked, strict=True):
        assert sample.soft_labels is not None
        assert sample.soft_labels.shape == (3, 16, 1)
        assert np.isin(sample.soft_labels[0], asked.image[0]).all()
        assert not np.isin(sample.image, asked.image).any()


@pytest.mark.parametrize("changed", [{"simulate": 1.0}, {"mix": 1.0}])
def test_it_is_not_asked_about_clouds_that_were_laid_over(data: Path, changed: dict[str, float]) -> None:
    teacher = Noted()
    samples = drawn(data, Recipe(size=24, **changed), teacher, ["l8"])
    assert not teacher.asked
    assert all(sample.soft_labels is None for sample in samples)


def test_it_is_not_asked_about_mosaics_nor_tables(data: Path) -> None:
    teacher = Noted()
    drawn(data, Recipe(size=24, mosaic=True), teacher, ["pixels/landsat8"])
    drawn(data, Recipe(pixels=8), teacher, ["pixels/landsat8"])
    assert not teacher.asked


def test_a_batch_says_nothing_where_there_is_no_data_or_no_answer(data: Path) -> None:
    answers_: list[Image | None] = [None]
    stream = Stream(
        tuple(find(data / "train", ["l8"])), Recipe(size=48, flip=0.0), 2, 1,
        teacher=lambda sample: answers_.pop() if answers_ else np.full((3, 48, 48), 0.5, "f4"),
    )  # fmt: skip
    batch = stream.batch_at(0, 0)
    assert batch.soft_labels is not None
    assert np.isnan(batch.soft_labels[0]).all()
    assert np.isnan(batch.soft_labels[1, :, :, -1]).all()
    assert (batch.soft_labels[1, :, :, :-1] == 0.5).all()
    assert replace(stream, teacher=None).batch_at(0, 0).soft_labels is None


def test_ground_below_simulated_clouds_is_made_bright_before_and_once(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = []

    def brighten(sample: Sample, rng: np.random.Generator) -> Sample:
        done.append(sample.possible)
        return sample

    monkeypatch.setattr(ground, "brighten", brighten)
    drawn(data, Recipe(size=24, simulate=1.0, bright=1.0), Noted(), ["l8"])
    assert len(done) == 8
    assert all(set(np.unique(labels)) <= {0, 6, 9} for labels in done)  # no simulated cloud yet


# --- in a training ---


def test_a_network_of_any_bands_learns_from_one_of_fixed_bands(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No label is seen: what is learnt comes from the teacher, which says cloud where the blue is dark."""

    def opposite(sample: Sample, models: list[str], device: str) -> Image:
        assert (models, device) == (["ukis-any"], "cpu")
        cloud = (sample.image[0] < 0.25).astype("f4")
        out: Image = np.stack([1 - cloud, cloud, np.zeros_like(cloud)])
        return out

    monkeypatch.setattr("xcloudmask.train.extras.opinion", opposite)
    told = config(
        network={"architecture": "spectral", "classes": CLASSES, "settings": {"width": 8, "hidden": 16}},
        recipe={"size": 16, "pixels": 32},
        loss={"terms": {"ambiguous-ce": 0.0}, "distil": {"model": "ukis-any"}},
        loop={"epochs": 1, "rate": 1e-2, "device": "cpu"},
        data={"sources": ["l8"], "batch": 8, "length": 150},
    )
    train(Plan.of(told), data=data, out=tmp_path / "a")
    sample = find(data / "train", ["l8"])[0].read()
    student = begin({"start": str(tmp_path / "a" / "tiny.json"), "classes": CLASSES}).kept
    said = probabilities(student, sample)
    cloud, valid = said[1] + said[2] > 0.5, sample.valid
    assert (cloud == (sample.image[0] < 0.25))[valid].mean() > 0.95


def test_a_teacher_of_the_zoo_says_what_predict_says(tmp_path: Path) -> None:
    write_patch(tmp_path / "l8" / "one.npz", 3)
    sample = find(tmp_path)[0].read()
    said = Asked("ukis-4band", weight=2.0)(sample)
    assert said is not None
    names = ["clear", "snow", "water"], ["cloud"], ["cloud_shadow"]
    found = to_xarray(sample).cloudmask.predict_proba(model="ukis-4band-l1c")
    for row, kind in zip(said, names, strict=True):
        there = [name for name in kind if name in found["class"]]
        np.testing.assert_allclose(row, found.sel({"class": there}).sum("class", skipna=False), atol=1e-6)
    logits, there_ = torch.randn(1, 4, 48, 48), torch.from_numpy(said)[None]
    one, two = (Asked("ukis-4band", weight=w).loss(CLASSES)(logits, there_).item() for w in (1, 2))
    assert two == pytest.approx(2 * one)


def test_a_teacher_that_never_answers_is_told_and_how_often_it_did_is_logged(
    data: Path, tmp_path: Path
) -> None:
    def trainer(teacher: Callable[[Sample], Image | None], folder: Path) -> Trainer:
        network = arch.build("spectral", {"classes": 4, "width": 8, "hidden": 16})
        return Trainer(
            network, tuple(CLASSES), losses.combined({"ambiguous-ce": 1.0}, CLASSES),
            Stream(tuple(find(data / "train", ["l8"])), Recipe(size=8), 1, 4, teacher=teacher),
            Settings(epochs=1, device="cpu"), folder, teaching=Asked("ukis-any").loss(CLASSES),
        )  # fmt: skip

    with pytest.raises(CloudMaskError, match="had nothing to learn from in any image"):
        trainer(lambda sample: None, tmp_path / "never").run()
    answers_ = [None, None, np.full((3, 8, 8), 1 / 3, "f4"), None]
    trainer(lambda sample: answers_.pop(), tmp_path / "once").run()
    log = (tmp_path / "once" / "log.csv").read_text().splitlines()
    assert dict(zip(log[0].split(","), log[1].split(","), strict=True))["taught"] == "0.25"


def test_a_teacher_must_be_named() -> None:
    with pytest.raises(CloudMaskError, match=r"^\[loss.distil\] needs model = 'ukis-any'"):
        Plan.of(config(loss={"distil": {"weight": 1.0}}))
    for key, number in (("weight", -1), ("temperature", 0.0), ("temperature", "x"), ("weight", True)):
        with pytest.raises(CloudMaskError, match=rf"^{key} = {number!r} in \[loss.distil\] must be "):
            Plan.of(config(loss={"distil": {"model": "ukis-any", key: number}}))
    with pytest.raises(CloudMaskError, match="ukis-eny"):
        Plan.of(config(loss={"distil": {"model": "ukis-eny"}}))


# --- bright ground ---


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), clouds=st.integers(0, 12))
def test_bright_ground_is_where_it_is_clear_and_stays_no_cloud(seed: int, clouds: int) -> None:
    rng = np.random.default_rng(seed)
    image = rng.uniform(0.02, 0.3, (5, 16, 16)).astype("f4")
    image[4] = 280
    image[:, 0, 0] = np.nan
    labels = rng.choice(np.array([1, 8, 9, 16, 17, 33, 65, 73], "u1"), (16, 16))
    labels[5] = 0
    labels.ravel()[rng.choice(256, clouds * 4, replace=False)] = rng.choice([2, 4, 6, 7])
    sample = Sample(image, BANDS, labels, 30.0, soft_labels=np.full((3, 16, 16), 0.3, "f4"))
    bright = ground.brighten(sample, rng)
    clear = (labels != 0) & ((labels & BITS["thick_cloud"]) == 0) & ((labels & BITS["thin_cloud"]) == 0)
    np.testing.assert_array_equal(np.isnan(bright.image), np.isnan(image))
    np.testing.assert_array_equal(bright.image[:, ~clear], image[:, ~clear])
    np.testing.assert_array_equal(bright.possible[~clear], labels[~clear])
    np.testing.assert_array_equal(bright.image[[2, 4]], image[[2, 4]])  # water vapour, and temperature
    question = QUESTIONS["cloud"]
    np.testing.assert_array_equal(question.truth(bright.possible), question.truth(labels))
    changed = bright.possible != labels
    assert set(np.unique(bright.possible[changed])) <= {1 | 16, 9 | 16, 1 | 64, 9 | 64}
    assert not (labels[changed] == 8).any()  # a shadow is not called snow
    np.testing.assert_array_equal((bright.possible & 8)[changed], (labels & 8)[changed])
    assert bright.soft_labels is sample.soft_labels
    assert np.nanmax(bright.image[:4]) < 1.3


def test_snow_is_bright_but_for_the_short_wave_infrared_and_sand_there_above_all() -> None:
    sample = Sample(np.full((5, 32, 32), 0.15, "f4"), BANDS, np.ones((32, 32), "u1"), 30.0)
    seen = set()
    for seed in range(20):
        bright = ground.brighten(sample, np.random.default_rng(seed))
        snow = (bright.possible & BITS["snow"]) > 0
        at = snow if snow.any() else bright.image[1] > 0.3
        if not at.any():
            continue
        blue, red, _, swir, _ = bright.image[:, at].mean(axis=1)
        seen.add("snow" if snow.any() else "sand")
        assert (blue > 2 * swir) if snow.any() else (swir > red > blue)
    assert seen == {"snow", "sand"}


def test_ground_that_no_band_shows_keeps_its_labels() -> None:
    labels = np.ones((16, 16), "u1")
    for band in (BANDS[2], BANDS[4], Band("x", "red")):
        sample = Sample(np.full((1, 16, 16), 0.1, "f4"), (band,), labels, 30.0)
        assert ground.brighten(sample, np.random.default_rng(0)) is sample


def test_gaps_do_not_count_as_clouds() -> None:
    image = np.full((5, 16, 16), 0.1, "f4")
    image[:, :8] = np.nan
    sample = Sample(image, BANDS, np.ones((16, 16), "u1"), 30.0)
    assert ground.brighten(sample, np.random.default_rng(0)) is not sample


def test_ground_below_many_clouds_stays_dark() -> None:
    labels = np.full((16, 16), 1, "u1")
    labels[:5] = 4
    sample = Sample(np.full((5, 16, 16), 0.1, "f4"), BANDS, labels, 30.0)
    assert all(ground.brighten(sample, np.random.default_rng(seed)) is sample for seed in range(5))
