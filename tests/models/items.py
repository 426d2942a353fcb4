"""The rules that an exported item keeps: STAC's, from its schema, and those of the MLM extension."""

import re

import pytest

from tests.models.helpers import sha
from xcloudmask.models.mlm.write import MLM


def check_mlm(item, folder):
    """Hold an item against the rules of MLM 1.5.0, written down by hand from its schema."""
    assert item["type"] == "Feature"
    assert MLM in item["stac_extensions"]
    properties, assets = item["properties"], item["assets"]
    assert properties.keys() >= {
        "mlm:name", "mlm:architecture", "mlm:tasks", "mlm:input", "mlm:output", "datetime", "start_datetime",
        "end_datetime",
    }  # fmt: skip
    known = {
        "name", "architecture", "tasks", "framework", "framework_version", "memory_size", "total_parameters",
        "pretrained", "pretrained_source", "batch_size_suggestion", "accelerator", "accelerator_constrained",
        "accelerator_summary", "accelerator_count", "input", "output", "hyperparameters",
    }  # fmt: skip
    assert {key[4:] for key in properties if key.startswith("mlm:")} <= known
    assert re.fullmatch(r"[a-zA-Z][a-zA-Z0-9_.\-\s]+[a-zA-Z0-9]", properties["mlm:name"])
    assert isinstance(properties["mlm:architecture"], str)
    assert set(properties["mlm:tasks"]) <= {"segmentation", "semantic-segmentation"}
    assert properties["mlm:framework"] in ("PyTorch", "ONNX")
    assert isinstance(properties.get("mlm:total_parameters", 0), int)
    hyper = properties["mlm:hyperparameters"]
    assert hyper
    assert all(re.fullmatch(r"[0-9a-zA-Z_.-]+", key) for key in hyper)
    (source,), (result,) = properties["mlm:input"], properties["mlm:output"]
    assert source.keys() <= {
        "name", "bands", "input", "description", "value_scaling", "resize_type", "pre_processing_function",
    }  # fmt: skip
    assert result.keys() <= {
        "name", "tasks", "result", "classification:classes", "description", "post_processing_function",
    }  # fmt: skip
    for structure in (source["input"], result["result"]):
        assert structure.keys() == {"shape", "dim_order", "data_type"}
        assert len(structure["shape"]) == len(structure["dim_order"]) == len(set(structure["dim_order"]))
        assert all(isinstance(size, int) and size >= -1 for size in structure["shape"])
        assert all(re.fullmatch(r"[a-z-_]+", name) for name in structure["dim_order"])
        assert structure["data_type"] == "float32"
    assert bool(source["bands"]) == ("bands" in source["input"]["dim_order"])
    if source["bands"]:  # described by STAC 1.1's own bands
        assert re.fullmatch(r"1\.[1-9]\d*\.\d+", item["stac_version"])
        assert {band["name"] for band in properties["bands"]} == set(source["bands"])
    for step in source.get("value_scaling") or ():
        assert step.keys() == {"type", "mean", "stddev"}
    for place, one in enumerate(result["classification:classes"]):
        assert one["value"] == place
        assert re.fullmatch(r"[0-9A-Za-z-_]+", one["name"])
        assert one["description"]
    assert any("mlm:model" in asset["roles"] for asset in assets.values())
    for asset in assets.values():
        assert ("mlm:model" in asset["roles"]) == bool(asset.get("mlm:artifact_type"))
        assert asset.get("bands", []) == properties.get("bands", [])
        assert {key for key in asset if key.startswith("mlm:")} == {"mlm:artifact_type"}
        data = (folder / asset["href"]).read_bytes()
        assert asset["file:checksum"] == f"1220{sha(data)}"
        assert asset["file:size"] == len(data)


def check_core(item):
    """Hold an item against STAC's own schema, which pystac carries."""
    pystac = pytest.importorskip("pystac")
    pytest.importorskip("jsonschema")
    from pystac.validation import stac_validator

    stac_validator.JsonSchemaSTACValidator().validate_core(
        item, pystac.STACObjectType.ITEM, item["stac_version"]
    )
