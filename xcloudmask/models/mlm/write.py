"""A model as files for others: its weights, an ONNX graph, and a STAC item that describes both (MLM 1.5)."""

from __future__ import annotations

import io
import json
import re
import warnings
from collections.abc import Mapping
from dataclasses import fields, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from xcloudmask.errors import CloudMaskError, names_checked
from xcloudmask.models import card
from xcloudmask.models.loading import LOADER
from xcloudmask.models.lookup import get
from xcloudmask.models.members import ENSEMBLE
from xcloudmask.models.network import Network, load_network
from xcloudmask.models.weights import fetch
from xcloudmask.models.weights.atomic import replace_file
from xcloudmask.models.weights.formats import packed, vetted
from xcloudmask.types import ModelSpec

MLM = "https://stac-extensions.github.io/mlm/v1.5.0/schema.json"
FILE = "https://stac-extensions.github.io/file/v2.1.0/schema.json"
EO = "https://stac-extensions.github.io/eo/v2.0.0/schema.json"
CLASSIFICATION = "https://stac-extensions.github.io/classification/v2.0.0/schema.json"
SCIENTIFIC = "https://stac-extensions.github.io/scientific/v1.0.0/schema.json"

OPSET = 17
#: What MLM calls a file, by the end of its name.
ARTIFACTS = {
    "onnx": "torch.onnx.export", "safetensors": "safetensors.torch.save_file", "pt2": "torch.export.save",
}  # fmt: skip


@names_checked
def export(model: str | ModelSpec, folder: str | Path) -> list[Path]:
    """Write a model's weights, its ONNX graph and its STAC item into a folder.

    The item is ``NAME.json``; ``xcloudmask.models.load`` of it gives the model back. Its first asset is what
    the model itself is: a safetensors file for an architecture of ours, the ONNX graph or the exported
    program for one that came as that. A model for any bands has no ONNX graph: it would hold the wavelengths
    of one scene; an exported program cannot be made one. Of an ensemble, ``NAME.json`` is the card, and the
    files are its members'.

    Parameters
    ----------
    model : str or ModelSpec
        Which.
    folder : str or Path
        Where to; it is made, and files of the same names are replaced.

    Returns
    -------
    list of Path
        What was written, the item last.

    Examples
    --------
    >>> import tempfile
    >>> from xcloudmask.models import export
    >>> [path.name for path in export("ukis-4band-l1c", tempfile.mkdtemp())]
    ['ukis-4band-l1c.onnx', 'ukis-4band-l1c.json']
    """
    spec = get(model) if isinstance(model, str) else model
    networks = [load_network(member) for member in spec.members or (spec,)]
    described: dict[str, Any] = {}
    files: dict[str, bytes] = {}
    members = []
    for each, network in zip(spec.members or (spec,), networks, strict=True):
        own, parameters = _files(each, network)
        files |= own
        described = item(each, network, own, parameters)
        members.append(_beside(each, network, own))
    document = json.dumps(described, indent=2) + "\n"
    if spec.members:
        document = card.to_json(replace(spec, loader=ENSEMBLE, gpu_runtime=None, members=tuple(members)))
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    files[f"{spec.name}.json"] = document.encode()
    for name, data in files.items():
        replace_file(folder / name, data)
    return [folder / name for name in files]


def _files(spec: ModelSpec, network: Network) -> tuple[dict[str, bytes], int | None]:
    """Return a network as files, the first of which is the model itself, and how many weights it has."""
    if spec.runtime == "onnx":
        return {f"{spec.name}.onnx": network.body}, None
    if spec.loader == LOADER and not spec.architecture:  # it cannot be traced, so there is no ONNX graph
        program = vetted(fetch.read(spec.weights, spec.sha256), "pt2", spec.weights)
        return {f"{spec.name}.pt2": program}, None
    files: dict[str, bytes] = {}
    if spec.architecture:
        state, config = network.body.state_dict(), json.loads(spec.config or "{}")
        files[f"{spec.name}.safetensors"] = packed(state, spec.architecture, config)
    if not spec.any_bands:
        files[f"{spec.name}.onnx"] = onnx(spec, network)
    if not files:
        raise CloudMaskError(
            f"model {spec.name!r} is a set network of your own: only architectures of xcloudmask.models.arch "
            "can be written as weights alone"
        )
    return files, sum(parameter.numel() for parameter in network.body.parameters())


def _beside(spec: ModelSpec, network: Network, files: Mapping[str, bytes]) -> ModelSpec:
    """Return the card of an ensemble's member whose weights are the first of these files."""
    name, data = next(iter(files.items()))
    return replace(
        spec,
        loader=LOADER,
        weights=name,
        family="",
        sha256=fetch.digest(data),
        runtime="onnx" if name.endswith(".onnx") else "torch",
        gpu_runtime=None,
        mean=network.mean,
        std=network.std,
        activation=network.activation,
    )


def onnx(spec: ModelSpec, network: Network) -> bytes:
    """Return a network as an ONNX graph; it takes any number of windows of the model's size.

    Most networks compute others from that size while they are traced.
    """
    import torch

    if find_spec("onnx") is None:
        raise CloudMaskError(
            "writing an ONNX graph needs the package onnx, which the extra 'train' brings: "
            "pip install 'xcloudmask[train]'"
        )
    body = network.body.cpu().eval()
    file = io.BytesIO()
    with warnings.catch_warnings():
        # Tracing says that sizes become constants, which is meant, and that it is the older of two ways; the
        # other needs onnxscript.
        warnings.simplefilter("ignore")
        with torch.inference_mode():
            torch.onnx.export(
                body,
                (torch.rand(2, len(spec.bands) + len(spec.aux), spec.patch, spec.patch),),
                file,  # type: ignore[arg-type]  # it takes files too
                dynamo=False,
                opset_version=OPSET,
                input_names=["pixels"],
                output_names=["out"],
                dynamic_axes={"pixels": {0: "n"}, "out": {0: "n"}},
            )
    return file.getvalue()


def item(
    spec: ModelSpec, network: Network, files: Mapping[str, bytes], parameters: int | None = None
) -> dict[str, Any]:
    """Return the STAC item of a model whose files, the model itself first, lie beside it."""
    changed = card.changed(spec) | {
        "overlap": spec.overlap,
        "gaps": spec.gaps,
        "activation": network.activation or "none",
    }
    hyper: dict[str, Any] = {"input_units": "reflectance"}
    plain: dict[str, Any] = {}
    for entry in fields(spec):
        key = entry.metadata.get("mlm", entry.name)
        if key and entry.name in changed:
            (plain if "mlm" in entry.metadata else hyper)[key] = changed[entry.name]
    properties: dict[str, Any] = {
        "datetime": None,
        "start_datetime": "1972-07-23T00:00:00Z",
        "end_datetime": "9999-12-31T23:59:59Z",
        "description": f"cloud mask {spec.name}",
        **plain,
        "mlm:name": mlm_name(spec.name),
        "mlm:architecture": spec.architecture or "unknown",
        "mlm:framework": "ONNX" if next(iter(files)).endswith(".onnx") else "PyTorch",
        "mlm:tasks": ["semantic-segmentation"],
        "mlm:total_parameters": parameters,
        "mlm:accelerator_constrained": False,
        "mlm:hyperparameters": hyper,
        "mlm:input": [_input(spec, network)],
        "mlm:output": [_output(spec, network)],
    }
    if spec.bands:
        properties["bands"] = [
            {"name": band, "eo:common_name": band, "unit": "reflectance"} for band in spec.bands
        ]
    assets: dict[str, Any] = {}
    for name, data in files.items():
        asset = assets["model" if not assets else Path(name).suffix[1:]] = _asset(name, data)
        if spec.bands:  # STAC wants them here too, if they are in the properties
            asset["bands"] = properties["bands"]
    return {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": [MLM, FILE, EO, CLASSIFICATION, SCIENTIFIC],
        "id": spec.name,
        "geometry": None,
        "properties": {
            key: value for key, value in properties.items() if value is not None or key == "datetime"
        },
        "links": [],
        "assets": assets,
    }


def mlm_name(name: str) -> str:
    """Return a model's name as MLM allows it: three signs or more, the first a letter.

    Examples
    --------
    >>> mlm_name("ukis-4band-l1c"), mlm_name("s2")
    ('ukis-4band-l1c', 'model-s2')
    """
    plain = re.sub(r"[^a-zA-Z0-9_.\-\s]", "-", name).strip("_.- ")
    return plain if re.fullmatch(r"[a-zA-Z].+[a-zA-Z0-9]", plain) else f"model-{plain}"


def _asset(name: str, data: bytes) -> dict[str, Any]:
    onnx_file, artifact = name.endswith(".onnx"), ARTIFACTS[name.rpartition(".")[2]]
    return {
        "href": f"./{name}",
        "title": "ONNX graph" if onnx_file else "weights",
        "type": "application/octet-stream; framework=onnx" if onnx_file else "application/octet-stream",
        "roles": ["mlm:model"] if onnx_file else ["mlm:model", "mlm:weights"],
        "mlm:artifact_type": artifact,
        "file:size": len(data),
        "file:checksum": f"1220{fetch.digest(data)}",
    }


def _input(spec: ModelSpec, network: Network) -> dict[str, Any]:
    count = len(spec.bands)
    order = ["batch", "bands" if count else "channel", "height", "width"]
    source: dict[str, Any] = {
        "name": "reflectance",
        "bands": list(spec.bands),
        "input": {
            "shape": [-1, count + len(spec.aux) if count else -1, spec.patch, spec.patch],
            "dim_order": order,
            "data_type": "float32",
        },
        "description": "reflectance from 0 to 1"
        + ("" if count else "; any bands, each described by its wavelengths")
        + "".join(
            f"; then {each.name}, normalised as (x - {each.mean:g}) / {each.std:g}" for each in spec.aux
        ),
        "pre_processing_function": None,
    }
    mean, std = network.mean, network.std
    if mean is not None or std is not None:
        length = max(len(mean or ()), len(std or ()))
        pairs = zip(_spread(mean, 0.0, length), _spread(std, 1.0, length), strict=True)
        source["value_scaling"] = [{"type": "z-score", "mean": a, "stddev": b} for a, b in pairs]
    return source


def _spread(numbers: tuple[float, ...] | None, default: float, length: int) -> tuple[float, ...]:
    numbers = numbers or (default,)
    return numbers * length if len(numbers) == 1 else numbers


def _output(spec: ModelSpec, network: Network) -> dict[str, Any]:
    one = network.activation in ("sigmoid", "complement")
    return {
        "name": "cloud_mask",
        "tasks": ["semantic-segmentation"],
        "result": {
            "shape": [-1, (1 if one else len(spec.classes)) + spec.uncertainty, spec.patch, spec.patch],
            "dim_order": ["batch", "class", "height", "width"],
            "data_type": "float32",
        },
        "classification:classes": [
            {"value": value, "name": name, "description": name.replace("_", " ")}
            for value, name in enumerate(spec.classes)
        ],
        "post_processing_function": None,
    }
