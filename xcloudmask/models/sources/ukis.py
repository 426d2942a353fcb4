"""The networks of ukis-csmask 1.0 (DLR, Apache-2.0), read from the installed package.

U-Nets with an EfficientNet-B4 encoder, trained near 30 m on Sentinel-2 and Landsat, for clear, cloud and
cloud shadow. The package carries each as an ONNX graph with a JSON file beside it that gives the bands and
their mean and standard deviation. None of the package's code is run.

On a CPU onnxruntime runs the graphs, in 0.7 of the processor time of torch. On a GPU, in half precision and
for training the same weights are in a U-Net of `xcloudmask.models.arch`. They are stored in half precision,
and onnxruntime works batch normalisation into them in half precision, too. So does `_fold`; without it a
probability differs by up to 0.02. What is left, 0.0009 at most, comes of four layers that onnxruntime rounds
to half precision: by that it differs from itself, at another level of its optimisation, by 0.0003. Without it
both say the same to 0.00011.

``ukis-any`` is two of them at once, for arrays that lack some of the bands, Proba-V's and SPOT-VGT's without
green among them: what is missing is estimated from what is there, and their answers are averaged, that of
the network for four bands counting most. At the top of the atmosphere cloud and shadow have thresholds, as
each network alone finds too much of both. Shares and thresholds were chosen on labelled scenes
(docs/scores.md).

References
----------
M. Wieland, Y. Li, S. Martinis, "Multi-sensor cloud and cloud shadow segmentation with a convolutional
neural network", Remote Sensing of Environment 230, 2019; https://github.com/dlr-eoc/ukis-csmask
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from xcloudmask.errors import CloudMaskError, WeightsError
from xcloudmask.models import arch
from xcloudmask.models.imputation import SHA256
from xcloudmask.models.network import Network, carried
from xcloudmask.models.sources.scored import scores
from xcloudmask.models.weights.fetch import digest
from xcloudmask.models.weights.inspect import onnx_tensors
from xcloudmask.types import Level, ModelSpec

if TYPE_CHECKING:
    import torch

#: The package names bands as in its JSON; ours are STAC's.
BANDS = ("blue", "green", "red", "nir", "swir16", "swir22")

#: What the networks for six and for four bands count for in ``ukis-any``.
SHARES = (0.2, 0.8)
#: Probabilities of cloud and shadow that suffice for it at the top of the atmosphere.
THRESHOLDS = (0.65, 0.7)
#: Bands that the network for four does without.
SPARE = ("swir16", "swir22")

INSTALL = "pip install 'ukis-csmask>=1.0,<2' (in a conda environment: with --no-deps)"
#: How a graph states that rows and columns are 256, and how, in as many bytes, that they are "h" and "w".
#: Nothing in it depends on 256: at that side the answers of both are the same to the last bit.
SIDES = bytes.fromhex("0a030880020a03088002"), bytes.fromhex("0a031201680a03120177")

TRAINED = (
    "SPARCS, CloudSEN12+ and further samples of its authors, not listed (README of ukis-csmask 1.0): scores "
    "on SPARCS and CloudSEN12 are no evidence"
)
SNOW = {
    4: "Without 1.6 um clear snow may be taken for cloud (one scene of 23: accuracy 0.37; ukis-any: 0.88)",
    6: "Ice cloud may be taken for snow (one scene of 23, cloud all over: accuracy 0.24)",
}
LIMITS = "made for pixels near 30 m, above 60 m it fails; edges of clouds are called cloud generously"
#: Processor time of one network a pixel, on one thread of a server's CPU (benchmarks/README.md, Windows).
MICROSECONDS = 3.0
COST = (
    "Training: not told by its authors. Use: about {:.1f} us of processor time a pixel on a CPU, {:.0f} s "
    "for a Sentinel-2 tile at 30 m; energy was not measured, at 10 W a core that is {:.2f} Wh"
)

LEVELS = {"toa": "top of atmosphere", "boa": "bottom of atmosphere"}

_HASHES = {
    "model_6b_l1c": "aa79e9a0f02ff8e0243d93771d1daf6a8d1166b7ac06c3771560b83367c6c573",
    "model_4b_l1c": "81611f290adc315b86bb7e7c69b0f2496b3abe0390c2a5c8e9e9da9622e8a0c8",
    "model_6b_l2a": "d11c530978637ca420eedc40791c62bf78997dd39e1201777e2527e4bd94904e",
    "model_4b_l2a": "3884d75ca497ec59d8335973477bd31eb038857007bbb36fb2aba1ad375ee043",
}


def _spec(count: int, product: str, level: Level) -> ModelSpec:
    stem = f"model_{count}b_{product}"
    return ModelSpec(
        name=f"ukis-{count}band-{product}",
        version="1.0.0",
        bands=BANDS[:count],
        classes=("clear", "cloud", "cloud_shadow"),
        loader="xcloudmask.models.sources.ukis:load",
        level=level,
        gsd=(20.0, 40.0),
        patch=256,
        overlap=32,
        patch_fixed=True,
        runtime="onnx",
        gpu_runtime="torch",
        sha256=_HASHES[stem],
        weights=f"ukis_csmask/{stem}.onnx",
        training_data=TRAINED,
        chosen="nobody: the likeliest class answers",
        scores=scores(f"ukis-{count}band", level),
        limits=f"{SNOW[count]}; {LIMITS}",
        cost=_cost(1),
        licence="Apache-2.0",
        citation="Wieland, Li, Martinis (2019), doi:10.1016/j.rse.2019.05.022; ukis-csmask 1.0.0",
        description=f"U-Net, EfficientNet-B4; {count} bands, {LEVELS[level]}",
    )


def _cost(networks: int) -> str:
    pixel = MICROSECONDS * networks
    tile = pixel * 3660**2 / 1e6
    return COST.format(pixel, tile, tile * 10 / 3600)


def _any(product: str, level: Level) -> ModelSpec:
    six = _spec(6, product, level)
    both = ("6b", "4b")
    # of reflectance at the surface there are too few labels to choose thresholds by
    cloud, shadow = THRESHOLDS if level == "toa" else (None, None)
    return replace(
        six,
        name=f"ukis-any-{product}",
        version="2",
        fills=True,
        spare=SPARE,
        threshold=cloud,
        shadow_threshold=shadow,
        min_bands=3,
        loader="xcloudmask.models.ensembles:network",
        activation=None,
        members=(six, _spec(4, product, level)),
        member_weights=SHARES,
        weights="",
        sha256=digest("".join((*(_HASHES[f"model_{count}_{product}"] for count in both), SHA256)).encode()),
        description=f"two networks of ukis-csmask for {LEVELS[level]}; missing bands are estimated",
        training_data=f"the networks: {TRAINED}; means and covariances of bands: top-of-atmosphere "
        "pixels of Landsat 5, 7, 8 and Sentinel-2, labels not used",
        chosen="this project: shares and thresholds, on labelled patches of L8 Biome, 38-Cloud and dlr; on "
        "either of the first two alone, shares and cloud threshold come out the same (docs/scores.md)"
        if level == "toa"
        else "this project: shares, at the top of the atmosphere; no thresholds, for lack of labels",
        scores=scores("ukis-any", level),
        cost=_cost(2),
        limits="Scored on bands left out of Landsat 8 scenes. No evidence for Proba-V and SPOT-VGT: their "
        "bands were only imitated. Without visible bands, vegetation is taken for as bright as cloud"
        + ("; bands are estimated as at the top of the atmosphere" * (level == "boa")),
    )


#: Richest first; those that do with fewer bands last.
SPECS: tuple[ModelSpec, ...] = (
    _spec(6, "l1c", "toa"),
    _spec(6, "l2a", "boa"),
    _spec(4, "l1c", "toa"),
    _spec(4, "l2a", "boa"),
    _any("l1c", "toa"),
    _any("l2a", "boa"),
)


def load(spec: ModelSpec) -> Network:
    """Read one network and its normalisation from the installed package."""
    graph, mean, std = _carried(spec)
    if spec.runtime == "onnx":
        return Network(graph.replace(*SIDES), mean, std)
    import torch

    module = _module(spec, graph, folded=True)
    module = module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    # As good as float32 on 34 patches, where bfloat16 is not: benchmarks/README.md, Precision.
    return Network(module, mean, std, parallel=True, half="float16")


def as_trained(spec: ModelSpec) -> ModelSpec:
    """Return the card of a network as it was trained, in torch, for training it on.

    Examples
    --------
    >>> from xcloudmask import models
    >>> as_trained(models.get("ukis-4band-l1c")).architecture
    'unet'
    """
    if spec.members:
        raise CloudMaskError(
            f"model {spec.name!r} is several networks: train one of them on, such as "
            f"{spec.name.replace('any', '4band')!r}"
        )
    _, mean, std = _carried(spec)
    return replace(
        spec,
        loader=f"{__name__}:load_as_trained",
        runtime="torch",
        gpu_runtime=None,
        architecture="unet",
        config=json.dumps(_settings(spec), sort_keys=True),
        mean=mean,
        std=std,
    )


def load_as_trained(spec: ModelSpec) -> Network:
    """Read one network as it was trained: batch normalisation is not worked into its weights."""
    graph, mean, std = _carried(spec)
    return Network(_module(spec, graph, folded=False), mean, std, parallel=True)


def _carried(spec: ModelSpec) -> tuple[bytes, tuple[float, ...], tuple[float, ...]]:
    """Return the graph of a network in the installed package, and mean and deviation of its bands."""
    body, path = carried(spec, INSTALL)
    card: dict[str, Any] = json.loads(path.with_suffix(".json").read_text())
    statistics = card["data"]["dataset_statistics"]
    if tuple(statistics["band_names"]) != spec.bands or card["data"]["classes"] != len(spec.classes):
        raise WeightsError(
            f"{path.stem}.json gives the bands {statistics['band_names']} and {card['data']['classes']} "
            f"classes; model {spec.name!r} expects {list(spec.bands)} and {len(spec.classes)}"
        )
    mean, std = statistics["img"]
    return body, tuple(mean), tuple(std)


def _settings(spec: ModelSpec) -> dict[str, object]:
    bands, classes = len(spec.bands), len(spec.classes)
    return {"bands": bands, "classes": classes, "encoder": "efficientnet-b4", "keep_statistics": True}


def _module(spec: ModelSpec, graph: bytes, *, folded: bool) -> torch.nn.Module:
    """Return our network with the weights of a graph."""
    import torch

    from xcloudmask.models.keymaps import smp

    theirs = {name: torch.tensor(values) for name, values in onnx_tensors(graph, spec.weights).items()}
    weights = {name.removeprefix("model."): values.float() for name, values in smp(theirs).items()}
    module = arch.build("unet", _settings(spec))
    counters = {name: values for name, values in module.state_dict().items() if "num_batches" in name}
    module.load_state_dict({**counters, **weights})
    if folded:
        for layers in module.modules():
            if isinstance(layers, torch.nn.Sequential) and isinstance(layers[1], torch.nn.BatchNorm2d):
                _fold(layers)
    return module.eval()


def _fold(layers: torch.nn.Sequential) -> None:
    """Work a batch norm behind a convolution into it, rounding each step to 16 bits as onnxruntime does."""
    import torch

    def rounded(values: torch.Tensor) -> torch.Tensor:
        return values.half().float()

    conv: Any = layers[0]
    norm: Any = layers[1]
    with torch.no_grad():
        # torch's square root of float32 is not the nearest one on every processor
        deviation = rounded(rounded(norm.running_var + norm.eps).double().sqrt().float())
        scale = rounded(norm.weight / deviation)
        conv.weight.copy_(rounded(conv.weight * scale[:, None, None, None]))
        conv.bias = torch.nn.Parameter(rounded(norm.bias - rounded(norm.running_mean * scale)))
    layers[1] = torch.nn.Identity()
