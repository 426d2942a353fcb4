"""STAC items with the Machine Learning Model extension (MLM, 1.0 to 1.5), read as data and nothing else.

An item tells bands, scaling, shapes, classes and where the weights are. What it names as code (an entry
point, a ``source_code`` asset, a function for pre-processing) is neither fetched nor run: where the network
cannot do without, the model is refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import PurePosixPath
from typing import Any

from xcloudmask import types
from xcloudmask.classes import SYNONYMS, plain_word
from xcloudmask.errors import CloudMaskError, ModelWarning, UnitError, WeightsError, warn_user
from xcloudmask.models.card_fields import checked, plain_name
from xcloudmask.models.mlm.inputs import common_names, mapping, scaling
from xcloudmask.models.mlm.item import Item, checksum, model_assets, parse, resolve
from xcloudmask.models.weights.formats import form_of

#: What networks say for these, and products for other things: of no data, of aerosols, of ice.
WORDS = {
    **SYNONYMS, "background": "clear", "thick": "thick_cloud", "thin": "thin_cloud", "haze": "thin_cloud",
}  # fmt: skip
#: Fields that an item may not hold in another form.
STRICT = ("aux", "shadow_threshold", "spare")
#: How mlstac's `predict_large` runs windows of 512, which its items leave out.
PREDICT_LARGE: Mapping[str, Any] = {"overlap": 64, "gaps": "zero"}
TWO_LEVELS = (
    "its item speaks of surface reflectance (TOC), the model card of FDR4VGT-CLOUD of top of atmosphere: "
    "scenes of either level are taken without a warning unless level= is passed as it is loaded"
)
TASKS = {"segmentation", "semantic-segmentation"}


@dataclass(frozen=True, slots=True)
class Reading:
    """What an item tells: its files of weights, each with the fields of its card, and how they are joined."""

    files: tuple[tuple[str, dict[str, Any]], ...]
    joining: Mapping[str, Any]
    """Keywords of `xcloudmask.models.members.joined`; empty if there is one file."""


def read(href: str, text: bytes, given: Mapping[str, Any]) -> Reading:
    """Return where an item's weights are and what it says of them, completed by what the caller says.

    Several exported programs (``.pt2``) are an ensemble, joined by their maximum where neither the item nor
    the caller names another way, as the library mlstac joins them; its uncertainty is the population's
    standard deviation of the members' probabilities.
    """
    item = parse(text, href)
    try:
        _refuse_code(item)
        assets = model_assets(item)
        first, *others = [resolve(href, str(asset.get("href", ""))) for asset in assets]
        stated = {**checked(_card(item, assets[0], first, given)), **given}
    except CloudMaskError:
        raise
    except (TypeError, AttributeError, ValueError) as error:  # a number where a list or a mapping belongs
        raise WeightsError(
            f"{href} is damaged, or no item of MLM: {error}. Correct it, or load its weights without it"
        ) from error
    if not others:
        if "reduce" in given:
            raise WeightsError(
                f"reduce={given['reduce']!r} joins the members of an ensemble, and {href} names one file: "
                "leave it out"
            )
        return Reading(((first, stated),), {})
    if "sha256" in given:
        raise WeightsError(
            f"{href} is an ensemble of {len(assets)} files, and sha256= is the hash of one: save the item "
            "and its files, and load it from there"
        )
    joining = {
        "name": stated.pop("name"),
        "reduce": stated.pop("reduce", "max"),
        "uncertainty": given.get("uncertainty", True),
    }
    stated["uncertainty"] = False
    files = tuple(
        (where, {**stated, "name": plain_name(PurePosixPath(where).stem), **_hash(asset, href)})
        for asset, where in zip(assets, (first, *others), strict=True)
    )
    return Reading(files, joining)


def _card(item: Item, asset: Mapping[str, Any], where: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a card, None where the item says nothing."""
    href, source, result = item.href, item.source, item.results[0]
    form = form_of(where)
    bands = given.get("bands") or common_names(source, item.body, asset, href)
    units = given.get("units") or _stated_units(item, asset, source)
    mean, std = scaling(source, len(bands) if bands else 1, href)
    if units is None and not {"mean", "std"} & given.keys():
        raise UnitError(
            f"{href} does not state plainly in which numbers the network wants its input: it says of no band "
            "that it is reflectance, and by what it is scaled. Find out, and pass units='reflectance' (0 to "
            "1) or units='reflectance*10000'"
        )
    hyper = mapping(item.properties.get("mlm:hyperparameters"))
    patch = _patch(source, href)
    return {
        **(PREDICT_LARGE if form == "pt2" and patch == 512 else {}),
        "limits": TWO_LEVELS if "level" not in given and _of_vgt(source) else None,
        "uncertainty": True if len(item.results) > 1 else None,
        **_stated_fields(item, given),
        "name": _name(item),
        **_hash(asset, href),
        "architecture": _architecture(item, form),
        "bands": bands or None,
        "classes": given.get("classes") or _classes(result, href),
        "level": _level(item, given),
        "mean": mean,
        "std": std,
        "units": units,
        "activation": _activation(hyper, result),
        "threshold": _threshold(hyper, result),
        "patch": patch,
    }


def _stated_fields(item: Item, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a card that an item holds by their own names, or under STAC's.

    What stands there in another form is some other program's, and passed over; where masks would differ
    without it, the item is refused.
    """
    stated: dict[str, Any] = {}
    for entry in fields(types.ModelSpec):
        key = entry.metadata.get("mlm", entry.name)
        place = item.properties if "mlm" in entry.metadata else item.properties.get("mlm:hyperparameters")
        value = mapping(place).get(key)
        if not key or value is None or entry.name in given:
            continue
        try:
            stated[entry.name] = types.card_value(entry, value)
            if entry.name == "shadow_threshold" and not 0 < value < 1:
                raise CloudMaskError(f"shadow_threshold must lie between 0 and 1, got {value}")
        except CloudMaskError as error:
            if entry.name in STRICT:
                raise WeightsError(
                    f"{item.href}: its {entry.name} {value!r} cannot be used ({error}): pass {entry.name}=, "
                    "or correct the item"
                ) from None
    return stated


def _refuse_code(item: Item) -> None:
    """Refuse what needs code to prepare its input or to read its output."""
    for side in (item.source, *item.results):
        for key in ("pre_processing_function", "post_processing_function"):
            named = side.get(key)
            if named:
                raise WeightsError(
                    f"{item.href}: its {key} names code, {json.dumps(named)[:120]}, which is not run; "
                    "without it the model's results would be wrong. Export the network with that step "
                    "inside, as ONNX"
                )
        if side.get("resize_type"):
            raise WeightsError(
                f"{item.href} wants its input resized ({side['resize_type']}): give the pixel sizes it was "
                "trained on, with gsd=, in an item without resize_type"
            )
    tasks = set(item.properties.get("mlm:tasks") or TASKS) | set(item.results[0].get("tasks") or ())
    if not tasks & TASKS:
        raise WeightsError(f"{item.href} is a model for {', '.join(sorted(tasks))}: it masks no pixels")


def _name(item: Item) -> str | None:
    name, known = item.properties.get("mlm:name"), item.body.get("id")
    name = known if not name or name == f"model-{known}" else name  # see exporting.mlm_name
    return plain_name(str(name)).lower() if name else None


def _hash(asset: Mapping[str, Any], href: str) -> dict[str, str]:
    known = checksum(asset, href)
    return {} if known is None else {"sha256": known}


def _of_vgt(source: Mapping[str, Any]) -> bool:
    return str(source.get("name")).upper().startswith("VGT_PROBA")


def _architecture(item: Item, form: str) -> str | None:
    """Return the item's architecture where the weights are tensors alone; others carry theirs."""
    if form != "safetensors" or "mlm:architecture" not in item.properties:
        return None
    return str(item.properties["mlm:architecture"]).strip().lower().replace(" ", "-")


def _stated_units(item: Item, asset: Mapping[str, Any], source: Mapping[str, Any]) -> str | None:
    """Return the units of the network's input where the item says them plainly."""
    stated = mapping(item.properties.get("mlm:hyperparameters")).get("input_units")
    if stated is not None:
        return str(stated)
    bands = list(_described(item, asset))
    if bands and all(band.get("unit") == "reflectance" for band in bands):
        scales = {band.get("scale", band.get("raster:scale", 1)) for band in bands}
        offsets = {band.get("offset", band.get("raster:offset", 0)) for band in bands}
        scale = scales.pop()
        if not scales and offsets == {0} and isinstance(scale, int | float) and 0 < scale <= 1:
            return f"reflectance*{round(1 / scale, 6):g}" if scale != 1 else "reflectance"
    return _raw_units(item, mapping(source.get("norm")))


def _raw_units(item: Item, norm: Mapping[str, Any]) -> str | None:
    """Return the units in ``norm: {type: raw_toc_reflectance, range: [0, 10000]}``, of mlstac's items.

    Raw means that the network is given these numbers as they are; how it divides them is its own affair.
    """
    numbers = norm.get("range")
    kind, words = str(norm.get("type")), str(norm.get("description") or "")
    if not re.fullmatch(r"raw\w*reflectance", kind) or not isinstance(numbers, list) or len(numbers) != 2:
        return None
    if numbers[0] != 0 or not isinstance(numbers[1], int) or numbers[1] < 1:
        return None
    scaled = re.search(r"scaled by (\d+)", words)
    if scaled is not None and int(scaled[1]) != numbers[1]:
        raise UnitError(
            f"{item.href} contradicts itself: its norm has the range {numbers} and says {words!r}. Find out "
            f"what the network wants, and pass units='reflectance*{numbers[1]}', "
            f"units='reflectance*{scaled[1]}' or units='reflectance' (0 to 1)"
        )
    return f"reflectance*{numbers[1]}" if numbers[1] > 1 else "reflectance"


def _described(item: Item, asset: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for place in (asset, item.properties):
        for key in ("bands", "raster:bands"):
            yield from (mapping(band) for band in place.get(key) or ())


def _level(item: Item, given: Mapping[str, Any]) -> str | None:
    """Return the level that the item states; where it names both, the caller must settle it."""
    source, hyper = item.source, mapping(item.properties.get("mlm:hyperparameters"))
    if "level" in given:
        return None
    if hyper.get("level") is not None:
        return str(hyper["level"])
    words = json.dumps([source.get("name"), source.get("norm"), source.get("description")]).lower()
    levels = {
        level
        for level, pattern in (("toa", r"toa|top.of.atmosphere"), ("boa", r"toc|boa|top.of.canopy"))
        if re.search(rf"(?<![a-z])({pattern})(?![a-z])", words)
    }
    if len(levels) > 1:
        raise UnitError(
            f"{item.href} contradicts itself: its input speaks of reflectance at the top of the atmosphere "
            "and at the surface. Find out which the network was trained on, and pass level='toa' or "
            "level='boa'"
        )
    return None if _of_vgt(source) or not levels else levels.pop()  # see TWO_LEVELS


def _classes(result: Mapping[str, Any], href: str) -> tuple[str, ...] | None:
    entries = result.get("classification:classes") or result.get("classification_classes") or ()
    named = [
        (entry.get("value", place), str(entry.get("name") or entry.get("description") or ""))
        for place, entry in enumerate(mapping(entry) for entry in entries)
        if not entry.get("nodata")
    ]
    if not named:
        one = _channels(result) == 1 and "cloud" in str(result.get("name", "")).lower()
        return ("clear", "cloud") if one else None
    words = [plain_word(name) for _, name in sorted(named)]
    bare = [re.sub(r"[_\d]+$", "", word) or word for word in words]  # "cloud 1" is cloud
    ours = [WORDS.get(word, word) for word in bare]
    # a network that tells kinds of one class apart keeps its words for them
    return tuple(our if ours.count(our) == 1 else word for word, our in zip(words, ours, strict=True))


def _channels(result: Mapping[str, Any]) -> int | None:
    shape = mapping(result.get("result")).get("shape")
    return shape[1] if isinstance(shape, list) and len(shape) == 4 else None


def _activation(hyper: Mapping[str, Any], result: Mapping[str, Any]) -> str | None:
    if hyper.get("activation") is not None:
        return str(hyper["activation"])
    if "probabilit" in str(result.get("name", "")).lower():
        return "complement" if _channels(result) == 1 else "none"
    return None


def _threshold(hyper: Mapping[str, Any], result: Mapping[str, Any]) -> float | None:
    """Return the recommended threshold, by the names in use."""
    for place, key in (
        (hyper, "threshold"), (hyper, "cloud_threshold"), (result, "recommended_threshold"),
        (result, "standard_threshold"),
    ):  # fmt: skip
        value = place.get(key)
        if isinstance(value, int | float):
            if 0 < value < 1:
                return float(value)
            warn_user(
                f"{key} = {value} of the item is passed over: a threshold lies between 0 and 1", ModelWarning
            )
    return None


def _patch(source: Mapping[str, Any], href: str) -> int | None:
    """Return the window size in the item's shape, if it is one that can be meant."""
    structure = mapping(source.get("input"))
    order, shape = structure.get("dim_order"), structure.get("shape")
    if not isinstance(shape, list) or len(shape) != 4:
        return None
    if isinstance(order, list) and [str(name) for name in order[2:]] != ["height", "width"]:
        raise WeightsError(
            f"{href}: its input has the dimensions {', '.join(map(str, order))}; (batch, bands, height, "
            "width) is what is given: export the network that way"
        )
    rows, cols = shape[2:]
    return rows if isinstance(rows, int) and rows == cols and rows >= 16 else None
