"""A model as files for others: its weights, an ONNX graph, and a STAC item that describes both (MLM 1.5)."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from xcloudmask.errors import CloudMaskError
from xcloudmask.models.lookup import get
from xcloudmask.models.network import Network, load_network
from xcloudmask.models.weights import fetch
from xcloudmask.types import ModelSpec

MLM = "https://stac-extensions.github.io/mlm/v1.5.0/schema.json"
FILE = "https://stac-extensions.github.io/file/v2.1.0/schema.json"
EO = "https://stac-extensions.github.io/eo/v2.0.0/schema.json"
CLASSIFICATION = "https://stac-extensions.github.io/classification/v2.0.0/schema.json"
SCIENTIFIC = "https://stac-extensions.github.io/scientific/v1.0.0/schema.json"

OPSET = 17


def export(model: str | ModelSpec, folder: str | Path) -> list[Path]:
    """Write a model's weights, its ONNX graph and its STAC item into a folder.

    The item is ``NAME.json``; ``xcloudmask.models.load`` of it gives the model back. Its first asset is what
    the model itself is: a safetensors file for an architecture of ours, the ONNX graph for one that came as
    that. A model for any bands has no ONNX graph: it would hold the wavelengths of one scene.

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
    network = load_network(spec)
    if network.members:
        raise CloudMaskError(
            f"model {spec.name!r} is several graphs, whose answers are averaged: export one of those that it "
            f"is made of ({spec.description})"
        )
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    files: dict[str, bytes] = {}
    parameters: int | None = None
    if spec.runtime == "onnx":
        files[f"{spec.name}.onnx"] = network.body
    else:
        parameters = sum(parameter.numel() for parameter in network.body.parameters())
        if spec.architecture:
            files[f"{spec.name}.safetensors"] = safetensors(spec, network)
        if not spec.any_bands:
            files[f"{spec.name}.onnx"] = onnx(spec, network)
    if not files:
        raise CloudMaskError(
            f"model {spec.name!r} is a set network of your own: only architectures of xcloudmask.models.arch "
            "can be "
            "written as weights alone"
        )
    written = []
    for name, data in files.items():
        written.append(folder / name)
        written[-1].write_bytes(data)
    described = item(spec, network, files, parameters)
    written.append(folder / f"{spec.name}.json")
    written[-1].write_text(json.dumps(described, indent=2) + "\n")
    return written


def safetensors(spec: ModelSpec, network: Network) -> bytes:
    """Return a network's tensors with a note on its architecture; equal ones give equal bytes."""
    from safetensors.torch import save

    tensors = network.body.state_dict()
    # one note, as safetensors writes several in any order
    notes = {
        "network": json.dumps({"architecture": spec.architecture, "config": json.loads(spec.config or "{}")})
    }
    return save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, notes)


def onnx(spec: ModelSpec, network: Network, size: int | None = None) -> bytes:
    """Return a network as an ONNX graph; it takes any number of windows of the model's size.

    Parameters
    ----------
    spec, network
        The card, and what its loader returns.
    size : int, optional
        Of a window; that of the card if not given. A graph holds one size, as most networks compute others
        from it while they are traced.
    """
    import warnings

    import torch

    size = size or spec.patch
    body = network.body.cpu().eval()
    file = io.BytesIO()
    with warnings.catch_warnings():
        # Tracing says that sizes become constants, which is meant, and that it is the older of two ways; the
        # other needs onnxscript.
        warnings.simplefilter("ignore")
        with torch.inference_mode():
            torch.onnx.export(
                body,
                (torch.rand(2, len(spec.bands) + len(spec.aux), size, size),),
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
    """Return the STAC item of a model whose files lie beside it.

    Parameters
    ----------
    spec, network
        The card, and what its loader returns.
    files : mapping of str to bytes
        Names and contents; the first is the model, others are the same in another form.
    parameters : int, optional
        How many weights it has, where that is known.
    """
    hyper: dict[str, Any] = {
        "input_units": "reflectance",
        "activation": network.activation or "none",
        "overlap": spec.overlap,
        "config": json.loads(spec.config) if spec.config else None,
        "gsd": list(spec.gsd) if spec.gsd else None,
        "level": spec.level,
        "threshold": spec.threshold,
        "shadow_threshold": spec.shadow_threshold,
        "min_bands": spec.min_bands if spec.any_bands or spec.fills else None,
        "fills": spec.fills or None,
        "spare": list(spec.spare) or None,
        "training_data": spec.training_data or None,
        "scores": spec.scores or None,
        "limits": spec.limits or None,
        "aux": [asdict(each) for each in spec.aux] or None,
        "uncertainty": spec.uncertainty or None,
    }
    properties: dict[str, Any] = {
        "datetime": None,
        "start_datetime": "1972-07-23T00:00:00Z",
        "end_datetime": "9999-12-31T23:59:59Z",
        "description": spec.description or f"cloud mask {spec.name}",
        "license": spec.licence or None,
        "sci:citation": spec.citation or None,
        "mlm:name": mlm_name(spec.name),
        "mlm:architecture": spec.architecture or "not told",
        "mlm:framework": "PyTorch" if spec.architecture else "ONNX",
        "mlm:tasks": ["semantic-segmentation"],
        "mlm:total_parameters": parameters,
        "mlm:accelerator_constrained": False,
        "mlm:hyperparameters": {key: value for key, value in hyper.items() if value is not None},
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
    onnx_file = name.endswith(".onnx")
    return {
        "href": f"./{name}",
        "title": "ONNX graph" if onnx_file else "weights",
        "type": "application/octet-stream; framework=onnx" if onnx_file else "application/octet-stream",
        "roles": ["mlm:model"] if onnx_file else ["mlm:model", "mlm:weights"],
        "mlm:artifact_type": "torch.onnx.export" if onnx_file else "safetensors.torch.save_file",
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
        + "".join(f"; then {each.name}, less {each.mean:g}, divided by {each.std:g}" for each in spec.aux),
        "pre_processing_function": None,
    }
    mean, std = network.mean, network.std
    if mean is not None or std is not None:
        length = max(len(mean or ()), len(std or ()))
        pairs = zip(_spread(mean, 0.0, length), _spread(std, 1.0, length), strict=True)
        source["value_scaling"] = [{"type": "z-score", "mean": a, "stddev": b} for a, b in pairs]
    return source


def _spread(numbers: tuple[float, ...] | None, default: float, length: int) -> tuple[float, ...]:
    found = numbers or (default,)
    return found * length if len(found) == 1 else found


def _output(spec: ModelSpec, network: Network) -> dict[str, Any]:
    one = network.activation in ("sigmoid", "complement")
    return {
        "name": "cloud_mask",
        "tasks": ["semantic-segmentation"],
        "result": {
            "shape": [-1, 1 if one else len(spec.classes) + spec.uncertainty, spec.patch, spec.patch],
            "dim_order": ["batch", "class", "height", "width"],
            "data_type": "float32",
        },
        "classification:classes": [
            {"value": value, "name": name, "description": name.replace("_", " ")}
            for value, name in enumerate(spec.classes)
        ],
        "post_processing_function": None,
    }
