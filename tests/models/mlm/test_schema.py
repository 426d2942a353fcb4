"""Exported items against the package of MLM's authors, stac-model, and against its schema if a copy is given.

The schema lies at https://stac-extensions.github.io/mlm/v1.5.0/schema.json (Apache-2.0). Tests reach no
network and no copy is kept here: fetch it, and set ``XCLOUDMASK_MLM_SCHEMA`` to its path. Its rules as they
are written down in `tests.models.items` are tested always, and against the same broken items.
"""

import copy
import json
import os
from pathlib import Path

import pytest
from safetensors.torch import save_file

from tests.models.helpers import BANDS, CLASSES, CONFIG, as_safetensors, mlp
from tests.models.items import check_core, check_mlm
from xcloudmask import models
from xcloudmask.models import registry
from xcloudmask.models.arch import build

SCHEMA = os.environ.get("XCLOUDMASK_MLM_SCHEMA", "")

#: What the schema refers to elsewhere, in our words: the parts of other extensions that it takes up.
ELSEWHERE = {
    "classification/v1.1.0": {"fields": {"properties": {"classification:classes": {
        "type": "array", "minItems": 1, "uniqueItems": True,
        "items": {"required": ["value", "description"], "properties": {
            "value": {"type": "integer"}, "description": {"type": "string"}, "name": {"type": "string"}}}}}}},
    "processing/v1.1.0": {"fields": {"properties": {"processing:expression": {
        "type": "object", "required": ["format", "expression"]}}}},
    "raster/v1.1.0": {"bands": {"items": {"properties": {"data_type": {"enum": [
        "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32",
        "float64", "cint16", "cint32", "cfloat32", "cfloat64", "other"]}}}}},
}  # fmt: skip


@pytest.fixture(scope="module")
def schema():
    """Return a function that tells what the extension's schema has against an item."""
    if not Path(SCHEMA).is_file():
        pytest.skip("set XCLOUDMASK_MLM_SCHEMA to a copy of the schema of MLM 1.5.0")
    jsonschema = pytest.importorskip("jsonschema")
    referencing = pytest.importorskip("referencing")
    from referencing.jsonschema import DRAFT7

    resources = [
        (f"https://stac-extensions.github.io/{name}/schema.json", {"definitions": definitions})
        for name, definitions in ELSEWHERE.items()
    ]
    registry = referencing.Registry().with_resources(
        (uri, referencing.Resource.from_contents(body, DRAFT7)) for uri, body in resources
    )
    validator = jsonschema.Draft7Validator(json.loads(Path(SCHEMA).read_text()), registry=registry)
    return lambda item: [error.message for error in validator.iter_errors(item)]


@pytest.fixture(autouse=True)
def fresh_registry(monkeypatch):
    monkeypatch.setattr(registry, "registered", dict(registry.registered))


def exported(name, folder, **changes):
    """Export a model, in a form of its own, and return its item."""
    if name == "spectral":
        path = folder / "set.safetensors"
        save_file(build("spectral", {"classes": 3}).state_dict(), path)
        models.load(path, architecture="spectral", config={"classes": 3}, classes=CLASSES, name="set-network")
    elif name == "one logit":
        path = folder / "one.safetensors"
        save_file(build("pixel-mlp", {"bands": 2, "classes": 1}).state_dict(), path)
        models.load(
            path, architecture="pixel-mlp", config={"bands": 2, "classes": 1}, bands=BANDS,
            classes=["clear", "cloud"], activation="sigmoid", name="one-logit", threshold=0.3,
        )  # fmt: skip
    elif name == "ukis":
        return json.loads(models.export("ukis-4band-l1c", folder / "out")[-1].read_text())
    else:
        models.load(
            as_safetensors(mlp(), folder, "some.safetensors"), architecture="pixel-mlp", config=CONFIG,
            bands=BANDS, classes=CLASSES, mean=[0.2], std=[0.1, 0.3], level="L2A", gsd=(20, 40), patch=32,
            name=name, licence="CC0-1.0",
        )  # fmt: skip
    known = {"spectral": "set-network", "one logit": "one-logit"}.get(name, name)
    return json.loads(models.export(known, folder / "out")[-1].read_text())


NAMES = ["plain-net", "spectral", "one logit", "ukis"]


@pytest.mark.parametrize("name", NAMES)
def test_items_keep_the_rules(name, tmp_path):
    item = exported(name, tmp_path)
    check_core(item)
    check_mlm(item, tmp_path / "out")


@pytest.mark.parametrize("name", NAMES)
def test_items_validate_against_the_extensions_schema(name, tmp_path, schema):
    assert schema(exported(name, tmp_path)) == []


#: The extension wants a name of three letters or more that begins with one.
ODD_NAMES = {"a": "model-a", "s2": "model-s2", "4band": "model-4band"}


@pytest.mark.parametrize("name", ODD_NAMES)
def test_names_that_the_extension_does_not_allow_are_completed(name, tmp_path):
    item = exported(name, tmp_path)
    check_mlm(item, tmp_path / "out")
    assert (item["properties"]["mlm:name"], item["id"]) == (ODD_NAMES[name], name)
    again = models.load(tmp_path / "out" / f"{name}.json", overwrite=True)
    assert again.name == name  # its own name, not that of the extension


def change(item, *path, to=None):
    """Return an item with one place changed, or removed."""
    item = copy.deepcopy(item)
    place = item
    for key in path[:-1]:
        place = place[key]
    if to is None:
        del place[path[-1]]
    else:
        place[path[-1]] = to
    return item


BROKEN = {
    "no name": (("properties", "mlm:name"), None),
    "a short name": (("properties", "mlm:name"), "ab"),
    "no input": (("properties", "mlm:input"), None),
    "an unknown field": (("properties", "mlm:speed"), 3),
    "code among the properties": (("properties", "mlm:entrypoint"), "a:b"),
    "an unknown task": (("properties", "mlm:tasks"), ["cloud-masking"]),
    "settings without a name": (("properties", "mlm:hyperparameters"), {"a b": 1}),
    "parameters that are no number": (("properties", "mlm:total_parameters"), "many"),
    "bands that nothing describes": (("properties", "bands"), None),
    "bands without their dimension": (
        ("properties", "mlm:input", 0, "input", "dim_order"), ["batch", "channel", "height", "width"]),
    "scaling of no kind": (("properties", "mlm:input", 0, "value_scaling"), [{"type": "z-score", "mean": 1}]),
    "a shape of words": (("properties", "mlm:output", 0, "result", "shape"), ["n", 3, 32, 32]),
    "a class without words": (("properties", "mlm:output", 0, "classification:classes"), [{"value": 0}]),
    "a type of no numbers": (("properties", "mlm:input", 0, "input", "data_type"), "number"),
    "weights without a role": (("assets", "model", "roles"), ["data"]),
    "weights without their type": (("assets", "model", "mlm:artifact_type"), None),
    "a name on an asset": (("assets", "model", "mlm:name"), "net"),
    "another version": (("stac_extensions",), ["https://stac-extensions.github.io/mlm/v1.4.0/schema.json"]),
}  # fmt: skip


@pytest.mark.parametrize("what", BROKEN)
def test_the_rules_refuse_what_is_broken(what, tmp_path):
    path, to = BROKEN[what]
    item = change(exported("plain-net", tmp_path), *path, to=to)
    with pytest.raises((AssertionError, KeyError, TypeError)):
        check_mlm(item, tmp_path / "out")


@pytest.mark.parametrize("what", BROKEN)
def test_the_schema_refuses_what_is_broken(what, tmp_path, schema):
    path, to = BROKEN[what]
    assert schema(change(exported("plain-net", tmp_path), *path, to=to))


#: What the authors' own package looks at: the properties, but for names that it does not know.
TOLD_BY_THE_PACKAGE = (
    "no name", "no input", "an unknown task", "parameters that are no number", "scaling of no kind",
    "a shape of words", "a class without words", "a type of no numbers",
)  # fmt: skip


def package_says(item):
    """Have the package of the extension's authors, stac-model, read an item's properties."""
    from stac_model.schema import MLModelProperties

    return MLModelProperties.model_validate(item["properties"])


@pytest.mark.parametrize("name", NAMES)
def test_items_are_read_by_the_package_of_the_extensions_authors(name, tmp_path):
    item = exported(name, tmp_path)
    read = package_says(item)
    assert read.name == item["properties"]["mlm:name"]
    assert len(read.input) == len(read.output) == 1
    assert read.input[0].input.shape == item["properties"]["mlm:input"][0]["input"]["shape"]
    assert [each.name for each in read.output[0].classes] == [
        each["name"] for each in item["properties"]["mlm:output"][0]["classification:classes"]
    ]


@pytest.mark.parametrize("what", TOLD_BY_THE_PACKAGE)
def test_the_package_refuses_what_is_broken(what, tmp_path):
    pytest.importorskip("stac_model")
    from pydantic import ValidationError

    path, to = BROKEN[what]
    with pytest.raises(ValidationError):
        package_says(change(exported("plain-net", tmp_path), *path, to=to))
