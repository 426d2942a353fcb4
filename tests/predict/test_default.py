"""The default follows benchmarks/default.py: settings are scored where they were not chosen."""

import importlib
import json
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from xcloudmask import models
from xcloudmask.models.sources import scored
from xcloudmask.predict import choose_model
from xcloudmask.types import Band

ROOT = Path(__file__).parents[2]


@pytest.fixture
def default(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    for name in ("score_tables", "choices", "default"):
        sys.modules.pop(name, None)
    return importlib.import_module("default")


def scenes(right: int, number: int) -> dict[str, list[int]]:
    """Counts of scenes that are right in so many of a hundred pixels of each kind."""
    return {f"s{k}": [right, 100 - right, 100 - right, right] for k in range(number)}


def test_settings_are_chosen_without_the_source_they_are_scored_on(default: ModuleType) -> None:
    low, high = default.Candidate(cloud=0.5), default.Candidate(cloud=0.7)
    counts = {
        default.SIMPLEST: {"a": scenes(80, 4), "b": scenes(80, 4)},
        low: {"a": scenes(95, 4), "b": scenes(70, 4)},
        high: {"a": scenes(75, 4), "b": scenes(85, 4)},
    }
    found = default.compared([low, high], counts, default.balanced)["sources"]
    # on a, what is best on b: not what is best there
    assert (found["a"]["settings"]["cloud"], found["a"]["gain"]) == (0.7, pytest.approx(-0.05))
    assert (found["b"]["settings"]["cloud"], found["b"]["gain"]) == (0.5, pytest.approx(-0.10))


@pytest.mark.parametrize(
    ("number", "other", "better"), [(6, 80, True), (5, 80, False), (6, 79, False)],
)  # fmt: skip
def test_better_means_six_scenes_and_no_loss_elsewhere(
    default: ModuleType, number: int, other: int, better: bool
) -> None:
    one = default.Candidate(views=8)
    counts = {
        default.SIMPLEST: {"a": scenes(80, number), "b": scenes(80, 4)},
        one: {"a": scenes(90, number), "b": scenes(other, 4)},
    }
    assert default.compared([one], counts, default.balanced)["better"] is better


def test_a_source_that_may_have_been_seen_decides_nothing(default: ModuleType) -> None:
    one, other = default.Candidate(cloud=0.5), default.Candidate(cloud=0.6)
    (seen,) = default.SEEN
    counts = {
        default.SIMPLEST: {"a": scenes(80, 6), "b": scenes(80, 6), seen: scenes(10, 6)},
        one: {"a": scenes(80, 6), "b": scenes(80, 6), seen: scenes(99, 6)},
        other: {"a": scenes(81, 6), "b": scenes(81, 6), seen: scenes(10, 6)},
    }
    found = default.compared([one, other], counts, default.balanced)
    assert found["gain"] == pytest.approx(0.01)
    assert found["sources"]["a"]["settings"]["cloud"] == 0.6


def without_intervals(text: str) -> str:
    return re.sub(r" \[[^\]]*\]", "", text)


def test_the_page_holds_what_the_counts_say(default: ModuleType) -> None:
    found = json.loads((ROOT / "benchmarks" / "results" / "default.json").read_text())
    page = without_intervals((ROOT / "docs" / "scores.md").read_text(encoding="utf-8"))
    for line in (*default.markdown(found), *default.goals(found)):
        assert without_intervals(line) in page
    tables = sys.modules["score_tables"]
    stored = json.loads((ROOT / "examples" / "train" / "scores.json").read_text())
    for line in tables.short_table(stored):
        assert without_intervals(line) in page
    for model, rows in tables.scored(stored).items():
        told = json.loads(scored.FILE.read_text(encoding="utf-8"))[model]
        assert without_intervals(str(told)) == without_intervals(str(rows))
    assert not any(kind["better"] for kinds in default.verdicts(found).values() for kind in kinds.values())


@pytest.mark.parametrize(("names", "toa", "boa"), [
    ("blue green red nir", "ukis-4band-l1c", "ukis-4band-l2a"),
    ("blue green red nir swir16 swir22", "ukis-any-l1c", "ukis-6band-l2a"),
    ("blue red nir swir16", "ukis-any-l1c", "ukis-any-l2a"),
])  # fmt: skip
def test_what_auto_takes(names: str, toa: str, boa: str) -> None:
    bands = [Band(name, name) for name in names.split()]
    assert choose_model.candidates(bands, "toa", 30.0)[0].spec.name == toa
    assert next(c for c in choose_model.candidates(bands, "boa", 30.0) if c.fits).spec.name == boa


@pytest.mark.parametrize("name", [spec.name for spec in models.automatic()])
def test_every_card_says_what_was_seen_who_chose_and_what_it_costs(name: str) -> None:
    card = " ".join(str(models.show(name)).split())
    for label in ("trained on", "settings by", "scores", "limits", "time, energy Training:"):
        assert f" {label} " in card, label
    spec = models.get(name)
    at = f", {spec.level}" if spec.level else ""
    assert re.search(r"\((not seen|not named|single pixels)", spec.scores) or spec.scores.startswith(
        "None"
    ), at
    if "ukis" in name:
        assert "CloudSEN12+" in spec.training_data
