"""Small networks as files in each form, and the items that describe them."""

import hashlib
import io
import json
import warnings

import torch
from safetensors.torch import save_file
from torch import nn

from xcloudmask.models.arch import build

BANDS = ["red", "nir"]
CLASSES = ["clear", "cloud", "cloud_shadow"]
CONFIG = {"bands": 2, "classes": 3, "hidden": 4}


def sha(data):
    return hashlib.sha256(data).hexdigest()


def mlp(seed=0):
    return build("pixel-mlp", CONFIG, seed=seed).eval()


class Wide(nn.Module):
    """A network whose pixels see their neighbours."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 3, 3, padding=1)

    def forward(self, x):
        return self.conv(x) * 4


def wide(seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Wide().eval()


def as_onnx(module, size=32, bands=2, **dynamic):
    out = io.BytesIO()
    axes = dynamic or {"x": {0: "n", 2: "h", 3: "w"}, "y": {0: "n", 2: "h", 3: "w"}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            (torch.zeros(2, bands, size, size),),
            out,
            dynamo=False,
            opset_version=17,
            input_names=["x"],
            output_names=["y"],
            dynamic_axes=axes,
        )
    return out.getvalue()


def as_pt2(module, size=32):
    out = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dims = {0: torch.export.Dim("n")}
        torch.export.save(
            torch.export.export(module, (torch.zeros(2, 2, size, size),), dynamic_shapes=(dims,)), out
        )
    return out.getvalue()


def as_safetensors(module, folder, name="net.safetensors"):
    path = folder / name
    save_file(module.state_dict(), path)
    return path


def an_item(data=None, name="net.onnx", **changes):
    """A plain item; `changes` go into its properties, its input (``input_``) or its asset (``asset_``)."""
    source = {
        "name": "reflectance",
        "bands": ["B04", "B08"],
        "input": {
            "shape": [-1, 2, 32, 32],
            "dim_order": ["batch", "bands", "height", "width"],
            "data_type": "float32",
        },
        "value_scaling": None,
        "pre_processing_function": None,
    }
    result = {
        "name": "mask",
        "tasks": ["semantic-segmentation"],
        "result": {"shape": [-1, 3, 32, 32], "dim_order": ["batch", "class", "height", "width"]},
        "classification:classes": [
            {"value": 2, "name": "Cloud shadow"},
            {"value": 0, "name": "Clear"},
            {"value": 1, "name": "Clouds"},
        ],
    }
    asset = {"href": f"./{name}", "roles": ["mlm:model"], "mlm:artifact_type": "torch.onnx.export"}
    if data is not None:
        asset["file:checksum"] = f"1220{sha(data)}"
    properties = {
        "mlm:name": "An Item",
        "mlm:architecture": "Conv",
        "mlm:tasks": ["semantic-segmentation"],
        "mlm:hyperparameters": {"input_units": "reflectance*10000", "activation": "softmax"},
        "bands": [
            {"name": "B04", "eo:common_name": "red"},
            {"name": "B08", "eo:center_wavelength": 0.84},
        ],
    }
    for key, value in changes.items():
        kind, _, rest = key.partition("_")
        place = {"input": source, "output": result, "asset": asset}.get(kind, properties)
        place[rest.replace("__", ":") if place is not properties else key.replace("__", ":")] = value
    properties["mlm:input"], properties["mlm:output"] = [source], [result]
    return {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": ["https://stac-extensions.github.io/mlm/v1.5.0/schema.json"],
        "id": "an-item",
        "properties": properties,
        "assets": {"model": asset},
    }


def write_item(folder, item, name="item.json"):
    path = folder / name
    path.write_text(json.dumps(item))
    return path
