"""STAC items with the Machine Learning Model extension (MLM, 1.0 to 1.5), read as data and nothing else.

An item tells bands, scaling, shapes, classes and where the weights are. What it names as code (an entry
point, a ``source_code`` asset, a function for pre-processing) is neither fetched nor run: where the network
cannot do without, the model is refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from xcloudmask import types
from xcloudmask.errors import CloudMaskError, UnitError, WeightsError
from xcloudmask.models.card_fields import checked
from xcloudmask.models.mlm.bands import common_names
from xcloudmask.models.mlm.scaling import mapping, scaling
from xcloudmask.models.weights import fetch
from xcloudmask.models.weights.formats import form_of

#: Where an asset may lie; anything else (``file``, ``data``, ``ftp``) is refused.
SCHEMES = ("http", "https", "s3", "gs", "az", "hf")
#: Words in an item's classes and what `xcloudmask.classes` calls them.
CLASSES = {
    "background": "clear", "clear_sky": "clear", "no_cloud": "clear", "not_cloud": "clear",
    "thick": "thick_cloud", "thin": "thin_cloud", "cirrus": "thin_cloud", "haze": "thin_cloud",
    "shadow": "cloud_shadow",
    "shadows": "cloud_shadow", "cloud_shadows": "cloud_shadow", "clouds": "cloud", "cloudy": "cloud",
    "ice": "snow", "snow_ice": "snow",
}  # fmt: skip
#: Fields that an item may not hold in another form.
STRICT = ("aux", "shadow_threshold", "spare")
TASKS = {"segmentation", "semantic-segmentation"}


@dataclass(frozen=True, slots=True)
class Item:
    """A parsed item and where it came from."""

    href: str
    body: Mapping[str, Any]

    @property
    def properties(self) -> Mapping[str, Any]:
        """Its properties."""
        found: Mapping[str, Any] = self.body["properties"]
        return found

    def one(self, name: str) -> Mapping[str, Any]:
        """Return its one ``mlm:input`` or ``mlm:output``."""
        found = self.properties.get(f"mlm:{name}")
        if not isinstance(found, list) or len(found) != 1 or not isinstance(found[0], Mapping):
            count = len(found) if isinstance(found, list) else 0
            raise WeightsError(f"{self.href} has {count} mlm:{name}; a cloud mask is made from one")
        return found[0]


def read(href: str, text: bytes, given: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return where an item's weights are and what it says of them, completed by what the caller says.

    Parameters
    ----------
    href : str
        A path or an address of the item.
    text : bytes
        What lies there.
    given : mapping
        What the caller says, see `xcloudmask.models.card_fields.checked`; it goes before what the item says.
    """
    item = parse(text, href)
    _refuse_code(item)
    asset = model_asset(item)
    where = resolve(href, str(asset.get("href", "")))
    form_of(where)
    source, result = item.one("input"), item.one("output")
    bands = given.get("bands") or common_names(source, item.body, asset, href)
    units = given.get("units") or _stated_units(item, asset, source)
    mean, std = scaling(source, len(bands) if bands else 1, href)
    hyper = mapping(item.properties.get("mlm:hyperparameters"))
    stated = {
        **_stated_fields(item, given),
        "name": _name(item),
        "sha256": checksum(asset, href),
        "architecture": _architecture(item, where),
        "bands": bands or None,
        "classes": given.get("classes") or _classes(result, href),
        "level": _level(item, given),
        "mean": mean,
        "std": std,
        "units": units,
        "activation": _activation(hyper, result),
        "threshold": _threshold(hyper, result),
        "patch": _patch(source),
    }
    if units is None and not {"mean", "std"} & given.keys():
        raise UnitError(_unit_message(item, source, given))
    return where, {**checked(stated), **given}


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


def parse(data: bytes, href: str) -> Item:
    """Return an item, or raise if this is none."""
    try:
        body = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{href} is no JSON: {error}") from error
    if not isinstance(body, Mapping) or not isinstance(body.get("properties"), Mapping):
        raise WeightsError(f"{href} is no STAC item: it has no properties")
    known = [key for key in body["properties"] if str(key).startswith("mlm:")]
    if not known:
        raise WeightsError(f"{href} is a STAC item without the MLM extension: it describes no model")
    version = re.search(r"/mlm/v(\d+)\.(\d+)", str(body.get("stac_extensions")))
    if version is not None and (int(version[1]) != 1 or int(version[2]) > 5):
        raise WeightsError(f"{href} follows version {version[1]}.{version[2]} of MLM; 1.0 to 1.5 are known")
    return Item(href, body)


def model_asset(item: Item) -> Mapping[str, Any]:
    """Return the asset that is the model: of those with the role, the first in a form that is loaded."""
    assets = item.body.get("assets")
    found = [asset for asset in (assets or {}).values() if isinstance(asset, Mapping)] if assets else []
    models = [a for a in found if {"mlm:model", "mlm:weights"} & set(map(str, a.get("roles") or ()))]
    for asset in models:
        end = PurePosixPath(urlsplit(str(asset.get("href", ""))).path).suffix.lower()
        if end in (".safetensors", ".onnx", ".pt2"):
            return asset
    if not models:
        raise WeightsError(
            f"{item.href} has no asset with the role mlm:model: nothing tells which file is the model"
        )
    return models[0]


def resolve(item: str, href: str) -> str:
    """Return where an asset lies: below the folder of its item, or at an address of its own.

    Examples
    --------
    >>> resolve("https://example.com/a/item.json", "./net.onnx")
    'https://example.com/a/net.onnx'
    >>> resolve("https://example.com/a/item.json", "../net.onnx")
    Traceback (most recent call last):
    ...
    xcloudmask.errors.WeightsError: https://example.com/a/item.json: its asset '../net.onnx' leads out of ...
    """
    scheme = urlsplit(href).scheme.lower()
    if not href or "\\" in href or any(ord(letter) < 32 for letter in href):
        raise WeightsError(f"{item}: its asset {href!r} is no address: refused")
    if scheme in SCHEMES:
        return href
    folder = fetch.local_path(item)
    if scheme and not (scheme == "file" and folder is not None):
        raise WeightsError(
            f"{item}: its asset {href!r} is neither a file beside it nor at an address of "
            f"{', '.join(SCHEMES)}: refused"
        )
    out = WeightsError(f"{item}: its asset {href!r} leads out of the item's folder: refused")
    if folder is not None:
        root = folder.resolve().parent
        path = fetch.local_path(href)
        inside = (root / path).resolve() if path is not None else root
        if path is None or not inside.is_relative_to(root) or inside == root:
            raise out
        return str(inside)
    plain = unquote(unquote(href))
    if plain.startswith("/") or "\\" in plain or ".." in plain.split("/"):
        raise out
    base = item.partition("?")[0].rpartition("/")[0]
    return f"{base}/{href.removeprefix('./')}"


def checksum(asset: Mapping[str, Any], href: str) -> str | None:
    """Return the SHA-256 in an asset's ``file:checksum``, which is a multihash in hexadecimal.

    Examples
    --------
    >>> checksum({"file:checksum": "1220" + 64 * "a"}, "item.json") == 64 * "a"
    True
    """
    found = asset.get("file:checksum")
    if found is None:
        return None
    match = re.fullmatch(r"1220([0-9a-f]{64})", str(found).lower())
    if match is None:
        raise WeightsError(
            f"{href}: the model's file:checksum {found!r} is no SHA-256 (a multihash that begins with 1220): "
            "pass sha256= from where the author publishes it"
        )
    return match[1]


def _refuse_code(item: Item) -> None:
    """Refuse what needs code to prepare its input or to read its output."""
    for name in ("input", "output"):
        side = item.one(name)
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
    tasks = set(item.properties.get("mlm:tasks") or TASKS) | set(item.one("output").get("tasks") or ())
    if not tasks & TASKS:
        raise WeightsError(f"{item.href} is a model for {', '.join(sorted(tasks))}: it masks no pixels")


def _name(item: Item) -> str | None:
    name, known = item.properties.get("mlm:name"), item.body.get("id")
    name = known if not name or name == f"model-{known}" else name  # see exporting.mlm_name
    return re.sub(r"[^A-Za-z0-9_.\-]+", "-", str(name)).strip("-.").lower() if name else None


def _architecture(item: Item, where: str) -> str | None:
    """Return the item's architecture where the weights are tensors alone; others carry theirs."""
    if form_of(where) != "safetensors" or "mlm:architecture" not in item.properties:
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
    return None


def _described(item: Item, asset: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for place in (asset, item.properties):
        for key in ("bands", "raster:bands"):
            yield from (mapping(band) for band in place.get(key) or ())


def _unit_message(item: Item, source: Mapping[str, Any], given: Mapping[str, Any]) -> str:
    norm = source.get("norm")
    why = "it says of no band that it is reflectance, and by what it is scaled"
    if isinstance(norm, Mapping):
        words = f"{norm.get('type', '')} {source.get('name', '')}".lower()
        level = "surface (TOC)" if re.search(r"toc|boa|surface", words) else "unknown"
        why = (
            f"its norm, {json.dumps(norm)}, is no scaling that MLM defines: it may mean {level} reflectance "
            f"times {max(_numbers(norm.get('range')), default=1):g}, or that the network divides by that "
            "itself, and model cards of this family speak of top-of-atmosphere reflectance instead"
        )
    level_hint = "" if "level" in given else " and level='toa' or level='boa'"
    return (
        f"{item.href} does not state plainly in which numbers the network wants its input: {why}. Find "
        f"out, and pass units='reflectance' (0 to 1) or units='reflectance*10000'{level_hint}"
    )


def _level(item: Item, given: Mapping[str, Any]) -> str | None:
    """Return the level that the item states; one mentioned in passing must be settled by the caller."""
    if "level" in given:
        return None
    hyper = mapping(item.properties.get("mlm:hyperparameters"))
    if hyper.get("level") is not None:
        return str(hyper["level"])
    source = item.one("input")
    words = json.dumps([source.get("name"), source.get("norm"), source.get("description")]).lower()
    found = [name for name in ("toc", "toa", "boa") if re.search(rf"(?<![a-z]){name}(?![a-z])", words)]
    if found and not ("units" not in given and isinstance(source.get("norm"), Mapping)):
        raise UnitError(
            f"{item.href} speaks of {found[0].upper()} in its input's name, and its card may say otherwise: "
            "settle it with level='toa' (top of atmosphere) or level='boa' (surface)"
        )
    return None


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
    words = [re.sub(r"[^a-z]+", "_", name.lower()).strip("_") for _, name in sorted(named)]
    return tuple(CLASSES.get(word, word) for word in words)


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
        value = _share(place.get(key))
        if value is not None:
            return value
    return None


def _share(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and 0 < value < 1 else None


def _patch(source: Mapping[str, Any]) -> int | None:
    """Return the window size in the item's shape, if it is one that can be meant."""
    structure = mapping(source.get("input"))
    order, shape = structure.get("dim_order"), structure.get("shape")
    if not isinstance(shape, list) or len(shape) != 4:
        return None
    if isinstance(order, list) and [str(name) for name in order[2:]] != ["height", "width"]:
        raise WeightsError(
            f"its input has the dimensions {', '.join(map(str, order))}; (batch, bands, height, width) is "
            "what is given: export the network that way"
        )
    rows, cols = shape[2:]
    return rows if isinstance(rows, int) and rows == cols and rows >= 16 else None


def _numbers(value: object) -> list[float]:
    return (
        [float(one) for one in value if isinstance(one, int | float)] if isinstance(value, Sequence) else []
    )
