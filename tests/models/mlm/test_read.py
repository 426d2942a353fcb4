"""STAC MLM items: what they say is honoured, what they leave open is asked for, what is code is refused."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.models.helpers import CLASSES, an_item, as_onnx, as_safetensors, mlp, wide, write_item
from tests.scenes import noise, scene
from xcloudmask import models
from xcloudmask.errors import BandError, CloudMaskError, ModelWarning, OptionError, UnitError, WeightsError
from xcloudmask.models import registry
from xcloudmask.models.mlm import inputs, read
from xcloudmask.models.mlm.inputs import common_names
from xcloudmask.models.mlm.item import parse

ITEMS = Path(__file__).parents[4] / "shared" / "stac-items" / "mlm" / "mlm"


@pytest.fixture(autouse=True)
def fresh_registry(monkeypatch):
    monkeypatch.setattr(registry, "registered", dict(registry.registered))


@pytest.fixture(scope="module")
def net():
    return as_onnx(wide())


def test_an_item_is_a_model(tmp_path, net):
    (tmp_path / "net.onnx").write_bytes(net)
    item = an_item(
        net,
        input_value_scaling=[
            {"type": "z-score", "mean": 2000, "stddev": 1000},
            {"type": "min-max", "minimum": 100, "maximum": 600},
        ],
        license="CC0-1.0",
        sci__citation="Somebody (2026)",
    )
    spec = models.load(write_item(tmp_path, item))
    assert (spec.name, spec.bands, spec.classes) == ("an-item", ("red", "nir"), tuple(CLASSES))
    assert spec.mean == pytest.approx((0.2, 0.01))
    assert spec.std == pytest.approx((0.1, 0.05))
    assert (spec.licence, spec.citation, spec.patch) == ("CC0-1.0", "Somebody (2026)", 32)
    pixels = noise(2, 32, 32)
    found = scene(pixels, ["red", "nir"]).cloudmask.predict_proba("an-item").values
    stored = torch.from_numpy(pixels * 10000)
    x = torch.stack([(stored[0] - 2000) / 1000, (stored[1] - 100) / 500])
    with torch.inference_mode():
        expected = torch.softmax(wide()(x[None]), dim=1)[0].numpy()
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("value", [0, 1.5, -0.2])
def test_a_threshold_that_cannot_be_meant_is_passed_over_aloud(tmp_path, net, value):
    (tmp_path / "net.onnx").write_bytes(net)
    path = write_item(tmp_path, told(net, threshold=value))
    with pytest.warns(ModelWarning, match=f"threshold = {value} of the item is passed over"):
        assert models.load(path).threshold is None


@pytest.mark.parametrize(
    ("named", "classes"),
    [
        ("Background, Opaque clouds, Shadow", ("clear", "cloud", "cloud_shadow")),
        ("Clear, Thin, Thick", ("clear", "thin_cloud", "thick_cloud")),
        ("Clear, Vegetation, Clouds, Haze", ("clear", "vegetation", "cloud", "thin_cloud")),
        ("Clear 0, Cloud 1", ("clear", "cloud")),
        ("Clear, Cloud 1, Cloud 2, Shadows", ("clear", "cloud_1", "cloud_2", "cloud_shadow")),
    ],
)
def test_words_of_classes(named, classes):
    """Each becomes ours, but those that would be one."""
    entries = [{"value": at, "name": name} for at, name in enumerate(named.split(", "))]
    assert read._classes({"classification:classes": entries}, "x") == classes


@pytest.mark.parametrize(
    ("steps", "mean", "std"),
    [
        ([{"type": "scale", "value": 4}], (0,), (4,)),
        ([{"type": "offset", "value": 4}], (4,), (1,)),
        ([{"type": "min-max", "minimum": 1, "maximum": 5}], (1,), (4,)),
        ([{"type": None}, {"type": "z-score", "mean": 3, "stddev": 2}], (0, 3), (1, 2)),
    ],
)
def test_every_affine_scaling(steps, mean, std):
    assert inputs.scaling({"value_scaling": steps}, 2, "x") == (mean, std)


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        ([{"type": "clip", "minimum": 0, "maximum": 1}], "scaling 'clip'"),
        ([{"type": "processing", "format": "python", "expression": "a:b"}], "scaling 'processing'"),
        ([{"type": "scale"}], "lacks value"),
        ([{"type": "scale", "value": 0}], "divides by 0"),
        ([{"type": "min-max", "minimum": 1, "maximum": 1}], "divides by 0"),
        ([{"type": "scale", "value": 1}] * 3, "of its 2 bands"),
        ("nonsense", "of its 2 bands"),
        ([{"type": ["z-score"]}], "scaling"),
    ],
)
def test_other_scalings_are_refused(steps, words):
    with pytest.raises(WeightsError, match=words):
        inputs.scaling({"value_scaling": steps}, 2, "x")


def test_the_older_generation_of_scaling():
    old = {"norm_type": "z-score", "statistics": [{"mean": 1, "stddev": 2}, {"mean": 3, "stddev": 4}]}
    assert inputs.scaling(old, 2, "x") == ((1, 3), (2, 4))
    with pytest.raises(WeightsError, match="without statistics"):
        inputs.scaling({"norm_type": "z-score"}, 2, "x")
    with pytest.raises(WeightsError, match="norm_clip"):
        inputs.scaling({**old, "norm_clip": [0, 1]}, 2, "x")


def test_units_must_be_plain(tmp_path, net):
    (tmp_path / "net.onnx").write_bytes(net)
    hyper = {"mlm__hyperparameters": {"activation": "softmax"}}
    with pytest.raises(UnitError, match="says of no band that it is reflectance"):
        models.load(write_item(tmp_path, an_item(net, **hyper)))
    bands = [
        {"name": "B04", "eo:common_name": "red", "unit": "reflectance", "raster:scale": 0.0001},
        {"name": "B08", "eo:common_name": "nir", "unit": "reflectance", "raster:scale": 0.0001},
    ]
    spec = models.load(write_item(tmp_path, an_item(net, **hyper, bands=bands)))
    assert spec.std == (0.0001,)
    bands[0]["raster:offset"] = -0.1
    with pytest.raises(UnitError, match="units="):
        models.load(write_item(tmp_path, an_item(net, **hyper, bands=bands)), overwrite=True)
    spec = models.load(
        write_item(tmp_path, an_item(net, **hyper)), units="reflectance", level="L2A", name="mine"
    )
    assert spec.std is None
    assert spec.level == "boa"


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        (
            {"input_pre_processing_function": {"format": "python", "expression": "os:system"}},
            WeightsError,
            "names code.*os:system",
        ),
        (
            {"output_post_processing_function": {"format": "uri", "expression": "x"}},
            WeightsError,
            "names code",
        ),
        (
            {"input_bands": [{"name": "ndvi", "format": "python", "expression": "a-b"}, "B08"]},
            WeightsError,
            "ndvi",
        ),
        ({"input_bands": ["B04", "X9"]}, BandError, "which band 'X9' is; pass bands="),
        ({"input_bands": ["B04", "B04"]}, BandError, "repeat"),
        (
            {"mlm__tasks": ["classification"], "output_tasks": ["classification"]},
            WeightsError,
            "masks no pixels",
        ),
        ({"asset_href": "net.joblib"}, WeightsError, "may hold pickles by its name"),
        ({"asset_roles": ["data"]}, WeightsError, "no asset with the role"),
        ({"asset_file__checksum": "1120" + 40 * "a"}, WeightsError, "no SHA-256"),
        ({"input_resize_type": "crop"}, WeightsError, "resized"),
        (
            {"input_input": {"shape": [-1, 32, 32, 2], "dim_order": ["batch", "height", "width", "bands"]}},
            WeightsError,
            r"item\.json: its input has the dimensions .* export the network that way",
        ),
        ({"mlm__input": []}, WeightsError, "has 0 mlm:input"),
    ],
)
def test_what_cannot_be_honoured_is_refused(tmp_path, net, changes, error, words):
    (tmp_path / "net.onnx").write_bytes(net)
    item = an_item(net, **changes)
    if "mlm__input" in changes:
        item["properties"]["mlm:input"] = []
    with pytest.raises(error, match=words):
        models.load(write_item(tmp_path, item))


def told(net, **hyper):
    """An item with these hyperparameters."""
    plain = {"input_units": "reflectance", "activation": "softmax"}
    return an_item(net, mlm__hyperparameters=plain | hyper)


@pytest.mark.parametrize("value", [0, 1, 1.0, -0.1, 1.5, True, False, "0.7", [0.7], float("nan")])
def test_a_threshold_of_shadow_that_cannot_be_meant_is_refused(tmp_path, net, value):
    (tmp_path / "net.onnx").write_bytes(net)
    path = write_item(tmp_path, told(net, shadow_threshold=value))
    with pytest.raises(WeightsError) as caught:
        models.load(path)
    assert f"its shadow_threshold {value!r} cannot be used (" in str(caught.value)
    assert "pass shadow_threshold=, or correct the item" in str(caught.value)
    assert "an-item" not in models.names()
    assert models.load(path, shadow_threshold=0.6).shadow_threshold == 0.6  # the remedy


@pytest.mark.parametrize("value", [None, 0.7])
def test_a_threshold_of_shadow_is_taken_or_left_out(tmp_path, net, value):
    (tmp_path / "net.onnx").write_bytes(net)
    path = write_item(tmp_path, told(net, shadow_threshold=value))
    assert models.load(path).shadow_threshold == value
    assert models.load(path, shadow_threshold=0.2, overwrite=True).shadow_threshold == 0.2


def test_bands_that_cannot_be_estimated_are_refused_at_once(tmp_path, net):
    (tmp_path / "net.onnx").write_bytes(net)
    path = write_item(tmp_path, told(net, fills=True))
    with pytest.raises(BandError, match="bands coastal cannot be estimated: known are"):
        models.load(path, bands=["red", "coastal"])
    assert "an-item" not in models.names()
    assert models.load(path).fills
    other = write_item(tmp_path, told(net))
    assert not models.load(other, bands=["red", "coastal"], overwrite=True).fills  # it estimates none


@pytest.mark.parametrize("value", ["nir", ["nir", 1], [["nir"]], {"nir": 1}, True])
def test_spare_bands_are_names(tmp_path, net, value):
    (tmp_path / "net.onnx").write_bytes(net)
    with pytest.raises(
        WeightsError,
        match=r"its spare .* cannot be used \((spare must be a list|each of spare must be of type str)",
    ):
        models.load(write_item(tmp_path, told(net, fills=True, spare=value)))
    spec = models.load(write_item(tmp_path, told(net, fills=True, spare=["nir"])))
    assert spec.spare == ("nir",)
    with pytest.raises(ValueError, match="spare must be some of its bands, and fills=True"):
        models.load(write_item(tmp_path, told(net, spare=["nir"])), overwrite=True)


def test_the_caller_goes_before_the_item(tmp_path, net):
    (tmp_path / "net.onnx").write_bytes(net)
    path = write_item(tmp_path, an_item(net, input_bands=["X", "Y"]))
    spec = models.load(path, bands=["green", "swir16"], name="mine", threshold=0.2, gsd=(10, 30))
    assert (spec.name, spec.bands, spec.threshold, spec.gsd) == ("mine", ("green", "swir16"), 0.2, (10, 30))


def test_tensors_need_an_architecture_of_ours(tmp_path):
    path = as_safetensors(mlp(), tmp_path)
    item = an_item(path.read_bytes(), name=path.name)
    with pytest.raises(OptionError, match="Code that comes with a model is not run"):
        models.load(write_item(tmp_path, item))
    hyper = {"input_units": "reflectance", "config": {"bands": 2, "classes": 3, "hidden": 4}}
    item = an_item(
        path.read_bytes(), name=path.name, mlm__architecture="Pixel MLP", mlm__hyperparameters=hyper
    )
    assert models.load(write_item(tmp_path, item)).architecture == "pixel-mlp"


def test_an_item_on_the_web(web, net):
    web.files["/a/item.json"] = json.dumps(an_item(net)).encode()
    web.files["/a/net.onnx"] = net
    web.faults.append(503)
    spec = models.load(f"{web.url}/a/item.json")
    assert spec.weights == f"{web.url}/a/net.onnx"
    assert spec.sha256
    web.files["/a/item.json"] = json.dumps(an_item(None)).encode()
    with pytest.raises(WeightsError, match="Pass sha256="):
        models.load(f"{web.url}/a/item.json", name="unchecked")


def test_offline_says_what_to_do(web, net, monkeypatch):
    monkeypatch.setenv("XCLOUDMASK_OFFLINE", "1")
    with pytest.raises(WeightsError, match="save it"):
        models.load(f"{web.url}/a/item.json")
    assert web.asked == []


@pytest.mark.skipif(not ITEMS.exists(), reason="the collected STAC items are not here")
@pytest.mark.parametrize("path", sorted(ITEMS.glob("*.json")) if ITEMS.exists() else [], ids=lambda p: p.stem)
def test_published_items_are_refused_with_a_reason(path):
    """None of them masks clouds with weights that are data; each says why, and none fails in another way."""
    with pytest.raises(CloudMaskError) as caught:
        read.read(str(path), path.read_bytes(), {})
    assert len(str(caught.value)) > 60


def test_bands_of_the_published_sentinel2_item():
    path = ITEMS / "resnet-18_sentinel-2_all_moco_classification__3.json"
    if not path.exists():
        pytest.skip("the collected STAC items are not here")
    item = parse(path.read_bytes(), "x")
    source, asset = item.source, item.body["assets"]["weights"]
    source = {
        **source,
        "bands": [b for b in source["bands"] if b in ("B02", "B03", "B04", "B08", "B11", "B12")],
    }
    assert common_names(source, item.body, asset, "x") == (
        "blue",
        "green",
        "red",
        "nir",
        "swir16",
        "swir22",
    )
