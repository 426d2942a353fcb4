"""A model's card exists once: what is a field of `ModelSpec` is everywhere."""

import dataclasses
import json
import pickle

import pytest

from tests.models.helpers import BANDS, CLASSES, CONFIG, as_safetensors, mlp
from xcloudmask import models, types
from xcloudmask.errors import CloudMaskError, OptionError
from xcloudmask.models import card, registry
from xcloudmask.models.card_fields import CardKeywords, keywords
from xcloudmask.testing import TOY, TOYS

HOW = {"bands": BANDS, "classes": CLASSES, "patch": 32}


@dataclasses.dataclass(frozen=True, slots=True)
class Wider(types.ModelSpec):
    """A card with one field more."""

    season: str = ""
    months: tuple[float, ...] = ()


@pytest.fixture(autouse=True)
def fresh_registry(monkeypatch):
    monkeypatch.setattr(registry, "registered", dict(registry.registered))


def test_a_new_field_is_everywhere(tmp_path, monkeypatch):
    monkeypatch.setattr(types, "ModelSpec", Wider)
    new = {"season": "summer", "months": [6, 7, 8]}
    loaded = models.load(
        as_safetensors(mlp(), tmp_path), architecture="pixel-mlp", config=CONFIG, **HOW, **new
    )
    registered = models.register(mlp(), name="own", **HOW, **new)
    for spec in (loaded, registered, card.from_json(card.to_json(loaded), "net.json")):
        assert (spec.season, spec.months) == ("summer", (6.0, 7.0, 8.0))
    shown = models.show("net")
    assert "season   summer" in shown
    assert "months   6.0, 7.0, 8.0" in shown
    item = models.export("net", tmp_path / "out")[-1]
    stored = json.loads(item.read_text())["properties"]["mlm:hyperparameters"]
    assert (stored["season"], stored["months"]) == ("summer", [6, 7, 8])
    again = models.load(item, name="again")
    assert (again.season, again.months) == ("summer", (6.0, 7.0, 8.0))


def test_the_keywords_are_the_fields():
    assert set(CardKeywords.__annotations__) == set(keywords())
    made = {entry.name for entry in dataclasses.fields(types.ModelSpec)} - set(keywords())
    assert made == {
        "version", "loader", "any_bands", "patch_fixed", "runtime", "gpu_runtime", "weights", "members",
        "member_weights", "family",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("documented", "without"),
    [(models.load, ()), (models.register, ("architecture", "config", "reduce", "sha256"))],
)
def test_docstrings_list_them(documented, without):
    text = documented.__doc__
    missing = [name for name in keywords(without=without) if f"``{name}``" not in text]
    assert not missing
    lacking = [entry.name for entry in dataclasses.fields(types.ModelSpec) if entry.name not in SECTION]
    assert not lacking


SECTION = types.ModelSpec.__doc__.partition("Parameters")[2].replace(",", " ").split()


def test_a_misspelt_keyword_is_named(tmp_path):
    path = as_safetensors(mlp(), tmp_path)
    with pytest.raises(OptionError, match="unknown keyword 'band'; did you mean 'bands'"):
        models.load(path, band=BANDS)
    with pytest.raises(OptionError, match="unknown keyword 'treshold'; did you mean 'threshold'"):
        models.register(mlp(), **HOW, treshold=0.5)
    with pytest.raises(OptionError, match=r"unknown keyword 'loader'.*Allowed: name"):
        models.load(path, loader="os:system")
    with pytest.raises(OptionError, match="unknown keyword 'architecture'"):
        models.register(mlp(), **HOW, architecture="unet")


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"bands": "red"}, r"bands must be a list, such as \['red', 'nir'\]; got 'red'"),
        ({"classes": 3}, "classes must be a list"),
        ({"classes": ["clear", 1]}, "each of classes must be of type str, got 1"),
        ({"mean": "0.1"}, "mean must be a list"),
        ({"std": [0.1, None]}, "each of std must be of type float, got None"),
        ({"threshold": "0.5"}, "threshold must be of type float, got '0.5'"),
        ({"patch": 32.5}, "patch must be of type int, got 32.5"),
        ({"uncertainty": 1}, "uncertainty must be of type bool, got 1"),
        ({"gsd": 20}, r"gsd must be \(from, to\) in metres, got \(20.0,\)"),
        ({"name": 3}, "name must be of type str, got 3"),
        ({"level": 2}, "unknown level 2"),
        ({"aux": [3]}, "unknown aux input 3"),
    ],
)
def test_values_of_another_kind_are_named(tmp_path, wrong, words):
    path = as_safetensors(mlp(), tmp_path)
    how = {"architecture": "pixel-mlp", "config": CONFIG, **HOW, **wrong}
    with pytest.raises(CloudMaskError, match=words):
        models.load(path, **how)


def test_one_number_stands_for_all_bands(tmp_path):
    how = {"architecture": "pixel-mlp", "config": CONFIG, **HOW}
    spec = models.load(as_safetensors(mlp(), tmp_path), mean=0.0, std=0.5, **how)
    assert (spec.mean, spec.std) == ((0.0,), (0.5,))


@pytest.mark.parametrize("spec", [TOY, TOYS], ids=lambda spec: spec.name)
def test_a_card_is_small(spec):
    assert pickle.loads(pickle.dumps(spec)) == spec
    assert hash(spec) == hash(dataclasses.replace(spec))
    assert len(pickle.dumps(spec)) < 3_000


def test_a_card_is_shown_as_it_is_printed():
    shown = models.show("spectral")
    assert isinstance(shown, str)
    assert repr(shown) == str(shown)
    assert shown.startswith("spectral ")


def test_the_models_module_offers_what_is_public():
    assert dir(models) == sorted(models.__all__)
    assert not {"list", "add", "ready", "send", "spec_of", "Network", "readable"} & set(models.__all__)
