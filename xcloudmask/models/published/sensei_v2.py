"""SEnSeI-v2 (Francis 2024, TGRS, doi 10.1109/TGRS.2024.3391625): ``weights.pt``, ``config.yaml`` beside it.

The tensors tell which network they belong to and how wide it is; the file beside them, whether it takes more
than reflectance, its window and its name. ``recovery_module`` served training and is left out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from xcloudmask.errors import WeightsError
from xcloudmask.models.keymaps import renamed, smp, transformers_segformer
from xcloudmask.models.published import Contents, Family, clouds2mask, shown
from xcloudmask.types import AUX_SCALING

if TYPE_CHECKING:
    from torch import Tensor

Tensors = Mapping[str, "Tensor"]

ENCODER, HEAD = "senseiv2.blocks.", "segmenter."
_SEGFORMER, _DEEPLAB = "segformer.encoder.patch_embeddings.0.proj.weight", "encoder.layer1.0.conv1.weight"
#: What a network with so many output channels tells apart.
CLASSES: Mapping[int, tuple[str, ...]] = {
    4: ("clear", "thick_cloud", "thin_cloud", "cloud_shadow"),
    7: ("land", "water", "snow", "thin_cloud", "thick_cloud", "cloud_shadow", "no_data"),
}
#: The inputs of a network without the encoder: B01 to B08, B8A, B09 to B12 of Sentinel-2.
BANDS = clouds2mask.BANDS
#: What a multimodal network takes beside reflectance.
AUX = tuple(AUX_SCALING)
#: ``MODEL_TYPE`` in the file beside the weights, and the head that it stands for.
MODEL_TYPES = {"Segformer": "segformer", "DeepLabv3+": "deeplabv3plus", "NN": "pixel"}
WINDOW = 512
#: What the description of the encoder must say, since no tensor tells it: block, key, value.
DESCRIBED = (
    ("GLOBAL_STATS", "percentiles", [0.01, 0.1, 0.5, 0.9, 0.99]),
    ("FCL", "skips", "add"),
    ("BAND_EMBEDDING", "skips_heads", False),
)
OFFSETS = (
    "Offsets of Sentinel-2 are those of the product (the published tool goes by the tile's name); windows "
    "lie otherwise at a scene's edges than in that tool"
)

_ATTENTION = {r"self_attn\.in_proj_": "query_key_value.", r"self_attn\.out_proj\.": "out."}


@dataclass(frozen=True)
class Head:
    """The segmentation network: what it is, what goes in and comes out, and its tensors under our names."""

    kind: str
    size: str
    bands: int
    classes: int
    width: int | None
    tensors: Tensors


def recognises(contents: Contents) -> bool:
    """Whether these are the tensors of SEnSeI-v2, or of a network that was published beside it."""
    behind = _below(contents.tensors, HEAD)
    alone = not behind.keys().isdisjoint((_SEGFORMER, _DEEPLAB))
    return bool(behind) and (alone or any(name.startswith(ENCODER) for name in contents.tensors))


def translate(contents: Contents) -> dict[str, Tensor]:
    """Return the tensors under the names of architecture ``sensei-v2``, or of the head alone."""
    encoder, head = _encoder(contents), _head(contents)
    if not encoder:
        return dict(head.tensors)
    return {**encoder, **{f"head.{name}": tensor for name, tensor in head.tensors.items()}}


def card(contents: Contents) -> dict[str, Any]:
    """Return what the tensors, and the file beside them if there is one, tell of the network."""
    encoder, head = _encoder(contents), _head(contents)
    settings = _settings(contents, head)
    fields: dict[str, Any] = {
        "name": settings.get("NAME"), "classes": CLASSES.get(head.classes), "level": "toa",
        "patch": settings.get("PATCH_SIZE", WINDOW), "overlap": 0, "licence": "GPL-3.0",
        "citation": "Francis 2024, IEEE TGRS, doi 10.1109/TGRS.2024.3391625",
    }  # fmt: skip
    title = f"{head.kind} {head.size}".strip()
    config: dict[str, Any] = {"classes": head.classes}
    if encoder:
        _check_description(contents)
        multimodal = bool(settings.get("MULTIMODAL"))
        return fields | {
            "architecture": "sensei-v2", "aux": AUX if multimodal else (), "gsd": (10, 30),
            "description": f"SEnSeI-v2 with {title}, for any bands", "limits": _limits(settings),
            "config": config | _sizes(encoder, contents) | {
                "head": title.replace(" ", "-"), **({"head_width": head.width} if head.width else {}),
            },
        }  # fmt: skip
    if head.kind == "segformer":
        config |= {"bands": head.bands, "size": head.size, "width": head.width}
    else:
        config |= {"bands": head.bands, "encoder": head.size, "decoder": "v3plus-separable"}
    return fields | {
        "architecture": head.kind, "config": config, "gsd": (10, 10), "limits": OFFSETS,
        "bands": BANDS if head.bands == len(BANDS) else None,
        "description": f"{title}, published with SEnSeI-v2",
    }  # fmt: skip


FAMILY = Family("sensei-v2", recognises, card, translate, config=True)


def _limits(settings: Mapping[str, Any]) -> str:
    """Return in what an answer may differ from the published tool's."""
    if settings.get("MULTIMODAL"):
        return (
            f"{OFFSETS}; thermal bands are 0-1 from 132-249 K and 127-239 K (the tool's own formula gives 1 "
            "everywhere); how radar and height were scaled was not published: here as usual in this library"
        )
    if settings:
        return OFFSETS
    return f"{OFFSETS}; without config.yaml beside the weights it takes no radar, height or thermal bands"


def _below(tensors: Tensors, prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _file(contents: Contents) -> str:
    return str(contents.notes.get("file", "the file"))


def _settings(contents: Contents, head: Head) -> Mapping[str, Any]:
    """Return what lies beside the weights, empty if nothing does; refuse that of another network."""
    settings: Mapping[str, Any] = contents.notes.get("config") or {}
    kinds = {known: kind for kind, known in MODEL_TYPES.items()}
    expected: dict[str, object] = {"MODEL_TYPE": kinds[head.kind], "CLASSES": head.classes}
    if head.kind == "deeplabv3plus":
        expected["DEEPLAB_CONFIG"] = head.size
    if not any(name.startswith(ENCODER) for name in contents.tensors):
        expected["NUM_CHANNELS"] = head.bands
    for key, value in expected.items():
        if settings.get(key, value) not in (value, None):
            raise WeightsError(
                f"config.yaml beside {_file(contents)} says {key}: {shown(settings[key])}, and the tensors "
                f"are of a network with {value!r}: put the config.yaml of these weights beside them"
            )
    patch = settings.get("PATCH_SIZE", WINDOW)
    if not isinstance(patch, int) or not 32 <= patch <= 4096:
        raise WeightsError(
            f"config.yaml beside {_file(contents)}: PATCH_SIZE must be from 32 to 4096, got {shown(patch)}"
        )
    return settings


def _encoder(contents: Contents) -> dict[str, Tensor]:
    """Return the encoder's tensors under our names; empty if there is no encoder."""
    out: dict[str, Tensor] = {}
    for name, tensor in _below(contents.tensors, ENCODER).items():
        for pattern, ours in _ENCODER.items():
            if match := re.fullmatch(pattern, name):
                out[ours(match)] = tensor
                break
        else:
            raise WeightsError(
                f"{_file(contents)} has {ENCODER}{name}, which the encoder of senseiv2-medium.yaml has not: "
                "this one is not known here"
            )
    return out


#: A layer before attention is norm, ReLU, linear, doubling; one of the three heads is norm, ReLU, linear.
_ENCODER: Mapping[str, Callable[[re.Match[str]], str]] = {
    r"1\.layers\.(\d+)\.(\w+)": lambda m: f"encoder.enter.layers.{int(m[1]) // 4}.{int(m[1]) % 4}.{m[2]}",
    r"2\.layers\.(\d+)\.(.+)": lambda m: f"encoder.attention.{m[1]}.{renamed(m[2], _ATTENTION)}",
    r"3\.(gain|frequency|phase)(?:_offset)?_head\.layers\.(\d+)\.(\w+)": lambda m: (
        f"encoder.embed.{m[1]}.layers.{int(m[2]) // 3}.{int(m[2]) % 3}.{m[3]}"
    ),
    r"3\.norm\.(\w+)": lambda m: f"encoder.embed.norm.{m[1]}",
}


def _check_description(contents: Contents) -> None:
    """Refuse an encoder whose description, if it lies beside the weights, differs in what no tensor tells."""
    description = (contents.notes.get("config") or {}).get("SEnSeIv2")
    if not isinstance(description, Mapping):  # the path of a file that is not here
        return
    try:
        blocks = {block["type"]: block for block in description["blocks"]}
        known = [(kind, key, value, blocks.get(kind, {}).get(key)) for kind, key, value in DESCRIBED]
    except (TypeError, KeyError, AttributeError) as error:
        raise WeightsError(
            f"the description of the encoder beside {_file(contents)} is damaged: leave it out"
        ) from error
    for kind, key, value, stated in known:
        if stated != value:
            raise WeightsError(
                f"the description of the encoder beside {_file(contents)} says {key}: {shown(stated)} of "
                f"{kind}, and senseiv2-medium.yaml {value!r}: this encoder is not known here"
            )


def _sizes(encoder: Tensors, contents: Contents) -> dict[str, Any]:
    """Return the settings of architecture ``sensei-v2`` that the encoder's tensors fit."""
    from xcloudmask.models.arch.descriptors import PUBLISHED_LENGTH
    from xcloudmask.models.arch.sensei_v2 import PERCENTILES

    def linears(part: str) -> list[int]:
        names = [name for name in encoder if re.fullmatch(rf"encoder\.{part}\.layers\.\d+\.2\.weight", name)]
        return [int(encoder[f"encoder.{part}.layers.{i}.2.weight"].shape[0]) for i in range(len(names))]

    try:
        enter, embed = linears("enter"), linears("embed.gain")
        described = encoder["encoder.enter.layers.0.2.weight"].shape[1]
        hidden = encoder["encoder.attention.0.linear1.weight"].shape[0]
        width, channels = enter[-1], embed[-1]
    except (KeyError, IndexError) as error:
        raise WeightsError(
            f"{_file(contents)} holds an encoder that is not whole: {error} is missing"
        ) from error
    if described != PUBLISHED_LENGTH + len(PERCENTILES):
        raise WeightsError(
            f"{_file(contents)}: the encoder takes {described} numbers a band, that of senseiv2-medium.yaml "
            f"{PUBLISHED_LENGTH} and {len(PERCENTILES)} percentiles: this one is not known here"
        )
    return {
        "variant": "published", "channels": channels, "width": width, "hidden": hidden,
        "enter": enter[:-1], "embed": embed[:-1],
        "heads": 1 if width % 32 else width // 32,  # 32 features each, as published; no answer depends on it
        "layers": len({name.split(".")[2] for name in encoder if name.startswith("encoder.attention.")}),
    }  # fmt: skip


def _head(contents: Contents) -> Head:
    behind = _below(contents.tensors, HEAD)
    try:
        if _SEGFORMER in behind:
            return _segformer(behind)
        return _deeplab(behind) if _DEEPLAB in behind else _pixel(behind)
    except (KeyError, IndexError, ValueError) as error:
        raise WeightsError(
            f"{_file(contents)}: {HEAD}* is no whole SegFormer B0 to B5, no DeepLabV3+ and no layers on "
            f"single pixels: {error}"
        ) from error


def _segformer(theirs: Tensors) -> Head:
    from xcloudmask.models.arch.segformer import SIZES

    ours = transformers_segformer(theirs)
    blocks = [re.match(r"encoder\.stages\.(\d)\.blocks\.(\d+)\.", name) for name in ours]
    depths = [len({m[2] for m in blocks if m and m[1] == str(stage)}) for stage in range(4)]
    channels = [int(ours[f"encoder.stages.{stage}.embed.weight"].shape[0]) for stage in range(4)]
    sizes = [
        name for name, size in SIZES.items() if [*size.channels] == channels and [*size.depths] == depths
    ]
    if not sizes:
        raise ValueError(f"widths {channels} and {depths} layers")
    bands, classes = ours["encoder.stages.0.embed.weight"].shape[1], ours["logits.weight"].shape[0]
    return Head("segformer", sizes[0], bands, classes, ours["fuse.0.weight"].shape[0], ours)


def _deeplab(theirs: Tensors) -> Head:
    size = "resnet50" if "encoder.layer1.0.conv3.weight" in theirs else "resnet34"
    ours = smp(theirs)
    bands, classes = ours["encoder.stem.0.weight"].shape[1], ours["logits.weight"].shape[0]
    return Head("deeplabv3plus", size, bands, classes, None, ours)


def _pixel(theirs: Tensors) -> Head:
    """Three convolutions of one pixel, whatever their names, in the order of the numbers in these."""
    weights = sorted(
        (name for name in theirs if name.endswith("weight")),
        key=lambda name: [int(part) for part in re.findall(r"\d+", name)],
    )
    first, second, last = (theirs[name] for name in weights)  # a ValueError if they are not three
    if not all(tensor.dim() == 4 and tensor.shape[2:] == (1, 1) for tensor in (first, second, last)):
        raise ValueError("layers that are not convolutions of one pixel")
    ours: dict[str, Tensor] = {}
    for layer, name in zip((0, 2, 4), weights, strict=True):
        ours[f"{layer}.weight"] = theirs[name]
        ours[f"{layer}.bias"] = theirs[name.removesuffix("weight") + "bias"]
    return Head("pixel", "", first.shape[1], last.shape[0], first.shape[0], ours)
