"""Mistakes in a config are told before anything is read or trained: where, what was found, what may be."""

from __future__ import annotations

import math
import re
import tomllib
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import xcloudmask
from xcloudmask import models
from xcloudmask.errors import CloudMaskError, OptionError
from xcloudmask.train import config_tables as tables
from xcloudmask.train.config_base import Table
from xcloudmask.train.config_tables import Recipe, Settings
from xcloudmask.train.plan import STAGED, TABLES, Plan

ROOT = Path(xcloudmask.__file__).parent.parent
#: The tables of a config; "" is what stands above all of them.
MODELS: dict[str, type[Table]] = {
    "": Plan, "data": tables.Data, "recipe": Recipe, "network": tables.Network, "loss": tables.Loss,
    "loss.distil": tables.Distil, "loop": Settings, "validation": tables.Validation, "card": tables.Card,
    "teacher": tables.Teacher, "log": tables.Log, "score": tables.Score,
}  # fmt: skip
GOOD = """
name = "a.b-c_1"
description = "what it is"
licence = "MIT"
[data]
folder = "data"
train = "train"
held_out = "val"
sources = ["l8", "pixels/landsat8"]
sensors = ["landsat-8"]
weights = { l8 = 6, "pixels/landsat8" = 0.5 }
dev = 0
dev_scenes = []
used = 1
batch = 1
length = 1
memory = 1
labelled = true
teacher = true
[recipe]
size = 16
[network]
architecture = "pixel-mlp"
classes = ["clear", "cloud"]
settings = { hidden = 8 }
bands = ["red", "nir"]
aux = ["elevation"]
only = []
encoder = "encoder.safetensors"
estimate = false
[loss]
terms = { ambiguous-ce = 1, dice = 0.5 }
smoothing = 0
recovery = 0
cover = 0.5
distil = { model = "ukis-any", weight = 1, temperature = 0.5 }
[loop]
epochs = 1
[validation]
bands = ["all", "rgb-nir"]
metric = "f2"
temperature = false
instrument = "proba-v"
[score]
folder = "val"
sources = ["l8"]
bands = "hrvir"
coarser = 2
[card]
version = "1"
gsd = [10, 30.0]
patch = 128
overlap = 0
citation = ""
training_data = ""
scores = ""
limits = ""
[teacher]
models = ["ukis-4band", "spectral", "runs/mine.json"]
unlabelled = "unlabelled"
confident = 1
tta = true
[log]
to = ["tensorboard"]
[search]
"loop.rate" = { low = 1e-4, high = 1e-2, log = true }
"network.settings.hidden" = [8, 16]
"loss.distil.weight" = [0.5, 1.0]
[[stage]]
name = "weak"
[stage.data]
batch = 2
[[stage]]
name = "strong"
loss = { distil = { model = "spectral" } }
"""


@pytest.fixture
def good() -> dict[str, Any]:
    return tomllib.loads(GOOD)


def changed(config: dict[str, Any], table: str, entry: str, value: Any) -> dict[str, Any]:
    """Return a config with one entry of a table, or of a part of one, replaced."""
    out = deepcopy(config)
    inner = out
    for part in table.split("."):
        inner = inner.setdefault(part, {}) if part else inner
    inner[entry] = value
    return out


def refused(config: dict[str, Any]) -> str:
    with pytest.raises(CloudMaskError) as info:
        Plan.of(config)
    return str(info.value)


def test_every_entry_is_taken_and_none_is_left_out(good: dict[str, Any]) -> None:
    plan = Plan.of(good)
    assert [stage.name for stage in plan.each_stage()] == ["weak", "a.b-c_1"]
    assert {stage.sha256 for stage in plan.each_stage()} == {Plan.of(good).sha256}
    assert Plan.of({**good, "licence": "BSD"}).sha256 != plan.sha256
    assert set(TABLES) | {"search"} == {name for name in good if isinstance(good[name], dict)}
    for table, model in MODELS.items():
        entries = good if not table else good["loss"]["distil"] if "." in table else good[table]
        # [recipe] and [loop] have tests of their own
        missing = {} if table in ("recipe", "loop") else model.model_fields.keys() - entries.keys()
        assert set(missing) == ({"start"} if table == "network" else set())


@pytest.mark.parametrize("path", sorted((ROOT / "examples/train").glob("*.toml")), ids=lambda path: path.name)
def test_examples_are_right(path: Path) -> None:
    assert Plan.read(path).name == tomllib.loads(path.read_text())["name"]


TEXT = ("a text in quotes", [7, True, ["a"], {}])
TEXTS = ("a (list|text in quotes)", ["l8", 7, ["l8", 7], [["l8"]], {"l8": 1}])
TRUTH = ("true or false", ["no", "true", 0, 1, 1.0, []])
SHARE = (
    "a number|a finite number|(greater|less) than or equal to",
    [-0.1, 1.1, "0.1", True, math.nan, math.inf],
)
FROM_0 = ("a number|a finite number|greater than or equal to 0",
    [-0.1, "0.1", True, math.nan, math.inf, 10**400 * -1])  # fmt: skip
ABOVE_0 = ("a number|a finite number|greater than 0", [0, -1, "1", True, math.nan, math.inf])
WHOLE_0 = ("a whole number|greater than or equal to 0", [-1, 1.0, "1", True, math.inf])
WHOLE_1 = ("a whole number|greater than or equal to 1", [0, -1, 2.0, "1", True, math.inf])
TABLE = ("a table", [5, "a", ["a"], True])
MODEL = ("the name of a model, or the path of its card, in quotes", [7, True, ["spectral"], {}])
#: By table and entry: what it must be, and values that it cannot be.
WRONG: dict[str, dict[str, tuple[str, list[Any]]]] = {
    "": {"description": TEXT, "licence": TEXT},
    "data": {
        "folder": TEXT, "train": TEXT, "held_out": TEXT, "sources": TEXTS, "dev_scenes": TEXTS,
        "weights": ("a table of numbers, 0 or more", [5, ["l8"], {"l8": -1}, {"l8": "1"}, {"l8": True},
            {"l8": math.nan}, {"l8": math.inf}, {"l8": {"a": 1}}]),
        "dev": SHARE, "used": ("a number|a finite number|(greater than 0|less than or equal to 1)",
            [0, 1.1, "1", True, math.nan]),
        "batch": WHOLE_1, "length": WHOLE_1, "sensors": TEXTS, "memory": ("a whole number", [5e8, "1 GB"]),
        "labelled": TRUTH, "teacher": TRUTH,
    },
    "network": {
        "architecture": TEXT, "settings": TABLE, "only": TEXTS,
        "classes": ("a list|a text in quotes|have at least 1 item|not name one twice",
            ["clear", [], ["clear", "cloud", "clear"], [1, 2]]),
        "bands": ("a list|a text in quotes|not name one twice", ["red", ["red", "red"], ["red", 7]]),
        "aux": ("a list|a text in quotes|not name one twice",
            ["vv", ["vv", "vv"], ["vv", 7]]),
        "start": MODEL, "encoder": TEXT, "estimate": TRUTH,
    },
    "loss": {
        "terms": ("a table of numbers, 0 or more, one at least",
            [5, {}, "dice", ["dice"], {"dice": -1}, {"dice": "1"}, {"dice": math.nan}]),
        "smoothing": ("a number|a finite number|greater than or equal to 0|less than 1",
            [-0.1, 1, 1.0, "0.1", False, math.nan]),
        "recovery": FROM_0, "cover": FROM_0, "distil": ("a table", ["ukis-any", 5, ["ukis-any"]]),
    },
    "loss.distil": {"model": MODEL, "weight": ABOVE_0, "temperature": ABOVE_0},
    "validation": {
        "bands": ("a list|a text in quotes|have at least 1 item", ["all", [], [7]]),
        "metric": TEXT, "temperature": TRUTH, "instrument": TEXT,
    },
    "score": {"folder": TEXT, "sources": TEXTS, "bands": TEXT, "coarser": WHOLE_1},
    "card": {
        "version": TEXT, "patch": WHOLE_1, "overlap": WHOLE_0, "citation": TEXT, "training_data": TEXT,
        "scores": TEXT, "limits": TEXT,
        "gsd": (r"two numbers above 0, from and to, in metres: \[10, 30\]",
            [30, [30], [30, 10], [0, 10], [10, 20, 30], ["10", "30"], [10, math.inf], [True, 2], "30"]),
    },
    "teacher": {
        "models": ("a list of models", ["ukis-4band", [], [7]]), "unlabelled": TEXT, "tta": TRUTH,
        "confident": ("a number|a finite number|(greater than 0.5|less than or equal to 1)",
            [0.5, 1.01, "0.9", True, math.nan]),
    },
    "log": {"to": (TEXTS[0], ["l8", 7, ["tensorboard", 7], [["l8"]], {"l8": 1}])},
}  # fmt: skip
ENTRIES = [(table, entry) for table, entries in WRONG.items() for entry in entries]


def test_no_entry_is_left_untried() -> None:
    for table, entries in WRONG.items():
        skipped = {"name", "stage", "search", *TABLES} if not table else set()
        assert MODELS[table].model_fields.keys() - skipped == entries.keys()


@pytest.mark.parametrize(("table", "entry"), ENTRIES, ids=lambda part: part)
def test_wrong_values_are_refused_with_their_place(good: dict[str, Any], table: str, entry: str) -> None:
    words, values = WRONG[table][entry]
    place = rf" in \[{table}\]" if table else ""
    for value in values:
        message = refused(changed(good, table, entry, value))
        inner = [
            value,
            *(value if isinstance(value, list) else value.values() if isinstance(value, dict) else ()),
        ]
        shown = "|".join(re.escape(repr(each)) for each in inner)
        assert re.match(rf"{entry}(\[\d\])? = ({shown}){place} must (be )?({words})", message), message
        if table.split(".")[0] in STAGED:
            staged = deepcopy(good)
            staged["stage"][1] = changed({"name": "strong"}, table, entry, value)
            if "." in table:
                staged["stage"][1]["loss"]["distil"].setdefault("model", "spectral")
            assert refused(staged) == f"stage 'strong': {message}"


@pytest.mark.parametrize(
    ("table", "entry", "value", "near"),
    [
        ("validation", "metric", "balanced_acuracy", "balanced_accuracy"),
        ("validation", "bands", ["all", "rgb-nri"], "rgb-nir"),
        ("validation", "instrument", "probav", "proba-v"),
        ("network", "classes", ["clear", "cluod"], "cloud"),
        ("network", "architecture", "sensei-v3", "sensei-v2"),
        ("network", "start", "spectrale", "spectral"),
        ("network", "aux", ["vv", "elevatoin"], "elevation"),
        ("score", "bands", "hrvri", "hrvir"),
        ("loss", "terms", {"ambigous-ce": 1.0}, "ambiguous-ce"),
        ("loss.distil", "model", "ukis-anny", "ukis-any"),
        ("teacher", "models", ["ukis-4band", "ukis-6bnd"], "ukis-6band"),
        ("log", "to", ["tensorbord"], "tensorboard"),
    ],
)
def test_misspelt_names_are_told_with_the_nearest(
    good: dict[str, Any], table: str, entry: str, value: Any, near: str
) -> None:
    with pytest.raises(OptionError) as info:
        Plan.of(changed(good, table, entry, value))
    assert str(info.value).startswith(f"unknown {entry} in [{table}] ")
    assert f"did you mean {near!r}?" in str(info.value)


@pytest.mark.parametrize("table", [*MODELS, "stage.data", "stage.loss.distil"])
def test_misspelt_entries_are_told(good: dict[str, Any], table: str) -> None:
    if table.startswith("stage"):
        good["stage"][1] = changed({"name": "strong"}, table.removeprefix("stage."), "modell", 1)
    else:
        good = changed(good, table, "modell", 1)
    what = f"setting of [{table.removeprefix('stage.')}]" if table else "table or setting"
    assert f"unknown {what} 'modell'" in refused(good)


@pytest.mark.parametrize("table", TABLES)
def test_what_is_no_table_is_told(good: dict[str, Any], table: str) -> None:
    for value in (5, "a", ["a"], False, 0, ""):
        told = refused({**good, table: value})
        assert told.startswith(f"{table} = {value!r} must be a table: [{table}]")
        if table in STAGED:
            told = refused({**good, "stage": [{"name": "weak", table: value}]})
            assert told.startswith(f"{table} = {value!r} in [[stage]] must be a table")


def test_stages_are_a_list_of_tables(good: dict[str, Any]) -> None:
    for value in ({}, {"name": "weak"}, 5, "weak", ["weak"], 0):
        assert refused({**good, "stage": value}).startswith(f"stage = {value!r} must be a list of tables")
        assert "[[stage]]" in refused({**good, "stage": value})
    assert Plan.of({**good, "stage": []}).each_stage()[0].name == good["name"]


BAD_NAMES = ["../../escaped", "a/b", "a\\b", "/a", "", ".", "..", ".a", "-a", "_a", "a b", "a\n", "é", "a:b"]


@pytest.mark.parametrize("name", [*BAD_NAMES, 7, True, ["a"], {}])
def test_names_are_those_of_files(good: dict[str, Any], name: Any) -> None:
    assert refused({**good, "name": name}).startswith(f"name = {name!r} must be a text of letters, digits")
    told = refused({**good, "stage": [{"name": name}]})
    assert told.startswith(f"name of a [[stage]] = {name!r} must be a text of letters, digits")


def test_names_are_not_those_of_other_files(good: dict[str, Any]) -> None:
    for name in ("best", "last", "Record"):
        assert "a file of its own" in refused({**good, "name": name})
    for name in ("best", "teacher", "Teacher", "tensorboard", "log.csv", "state.pt"):
        assert "a file of its own" in refused({**good, "stage": [{"name": name}]})
    assert Plan.of({**good, "name": "teacher"}).name == "teacher"
    for names in (["weak", "weak"], ["weak", "WEAK"], [good["name"]], ["weak", good["name"].upper()]):
        told = refused({**good, "stage": [{"name": name} for name in names]})
        assert told.startswith(f"name of a [[stage]] = {names[-1]!r} is used twice")


def test_what_is_needed_is_told(good: dict[str, Any]) -> None:
    assert refused({**good, "teacher": {}}) == "[teacher] needs models = ['ukis-4band']"
    for loss in ({"weight": 1}, {}):
        told = refused(changed(good, "loss", "distil", loss))
        assert told == "[loss.distil] needs model = 'ukis-any'"
    told = refused({**good, "stage": [{"name": "weak", "loss": {"distil": {}}}]})
    assert told == "stage 'weak': [loss.distil] needs model = 'ukis-any'"
    for table in ("data", "network", "loop"):
        assert f"no table [{table}]" in refused({key: good[key] for key in good if key != table})


def test_what_does_not_go_together_is_told(good: dict[str, Any]) -> None:
    taken = {"start": "spectral", "classes": ["clear", "cloud"]}
    assert "start and settings" in refused({**good, "network": taken})  # which [search] would try
    good["search"] = {}
    for entry, value in (("architecture", "spectral"), ("settings", {"a": 1})):
        assert f"start and {entry}" in refused({**good, "network": {**taken, entry: value}})
    assert Plan.of({**good, "network": {**taken, "only": ["a"]}})
    for card in ({"patch": 64, "overlap": 64}, {"patch": 64}, {"overlap": 256}):
        told = refused({**good, "card": card})
        assert told.startswith(f"overlap = {card.get('overlap', 64)} in [card] must be below patch = ")
    assert "below patch" in refused({**good, "network": taken, "card": {"patch": 64, "overlap": 64}})
    assert Plan.of({**good, "network": taken, "card": {"patch": 64}})  # the model has an overlap of its own
    assert "must cover every pixel" in refused(changed(good, "network", "classes", ["thick_cloud", "clear"]))
    for words in (["land", "cloud"], ["not_cloud", "cloud"], ["clear", "thick_cloud", "thin_cloud"]):
        assert Plan.of(changed(good, "network", "classes", words))


def test_each_stage_is_looked_at_as_it_will_be(good: dict[str, Any]) -> None:
    def last(**tables: Any) -> dict[str, Any]:
        return {**good, "stage": [{"name": "weak"}, {"name": "strong", **tables}]}

    assert "labelled = false" in refused(last(data={"labelled": False, "teacher": False}))
    assert Plan.of(last(data={"labelled": False}))  # teacher = true in [data]
    assert "rate = -1 in [loop]" in refused(last(loop={"rate": -1}))
    told = refused(last(recipe={"sizes": 3}))
    assert told.startswith("stage 'strong': unknown")
    assert "did you mean 'size'" in told
    with pytest.raises(OptionError, match="did you mean 'size'"):
        Plan.of({**good, "recipe": {"sizes": 3}, "stage": []})
    quiet = {**good, "search": {}, "loss": {"terms": {"dice": 0}}}
    assert "all terms in [loss] are 0" in refused(quiet)
    assert "all terms" in refused({**quiet, "loss": {"terms": {"dice": 0}, "recovery": 0}})
    assert Plan.of({**quiet, "stage": [{"name": "a", "loss": {"recovery": 0.1}}]})


def test_a_search_varies_what_there_is(good: dict[str, Any]) -> None:
    for name, choice, match in (
        ("data.bacth", [1], "did you mean 'batch'"), ("dta.batch", [1], "did you mean 'data'"),
        ("data.batch", [4, 0], "batch = 0"), ("data.batch", {"low": 0.5, "high": 8}, "batch = 0.5"),
        ("data.batch.x", [1], "has no parts"), ("recipe.size.x", [1], "has no parts"),
        ("loop.rte", [1e-3], "did you mean 'rate'"), ("loop.rate", [-1], "rate"),
        ("loss.distil.weight", [0.5, 0], "weight = 0"), ("stage.weak", [1], "table in"),
        ("rate", [1], "table.entry"), ("a.b.c.d", [1], "table.entry"),
    ):  # fmt: skip
        told = refused({**good, "search": {name: choice}})
        assert match in told, (name, told)


def test_python_may_say_it_in_its_own_types(good: dict[str, Any], tmp_path: Path) -> None:
    spec = models.get("spectral")
    good["search"] = {}
    good["network"] = {"start": spec, "classes": spec.classes, "only": ("a",)}
    good["loss"]["distil"] = {"model": spec}
    good["teacher"]["models"] = (spec,)
    good["data"] |= {"batch": np.int64(4), "dev": np.float64(0.2), "folder": tmp_path, "sources": ("l8",)}
    assert Plan.of(good).network.start is spec
    assert Plan.of(changed(good, "network", "start", tmp_path / "later.json"))
    assert "dev = nan" in refused(changed(good, "data", "dev", float("nan")))


def test_files_that_are_no_text_are_told(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_bytes(b"name = '\xff'")
    for bad in (path, tmp_path):
        with pytest.raises(CloudMaskError, match="cannot be read"):
            Plan.read(bad)
    path.write_text("name = 'a'\nloss = 5")
    with pytest.raises(CloudMaskError, match="loss = 5 must be a table"):
        Plan.read(path)
