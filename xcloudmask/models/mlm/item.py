"""A STAC item with the MLM extension: its parts, which assets are the model, and where they lie."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from xcloudmask.errors import WeightsError
from xcloudmask.models.weights import fetch

#: Where an asset may lie; anything else (``file``, ``data``, ``ftp``) is refused.
SCHEMES = ("http", "https", "s3", "gs", "az", "hf")


@dataclass(frozen=True, slots=True)
class Item:
    """A parsed item and where it came from."""

    href: str
    body: Mapping[str, Any]

    @property
    def properties(self) -> Mapping[str, Any]:
        """Its properties."""
        properties: Mapping[str, Any] = self.body["properties"]
        return properties

    @property
    def source(self) -> Mapping[str, Any]:
        """Its one ``mlm:input``."""
        return self._sides("input")[0]

    @property
    def results(self) -> list[Mapping[str, Any]]:
        """Its ``mlm:output``: the classes and, in some items, how far members disagree."""
        return self._sides("output")

    def _sides(self, name: str) -> list[Mapping[str, Any]]:
        sides = self.properties.get(f"mlm:{name}")
        sides = [side for side in sides if isinstance(side, Mapping)] if isinstance(sides, list) else []
        if len(sides) != 1 + (name == "output" and len(sides) > 1 and _is_uncertainty(sides[1])):
            raise WeightsError(
                f"{self.href} has {len(sides)} mlm:{name}; a cloud mask is made from one"
                + (", and an uncertainty behind it" if name == "output" else "")
            )
        return sides


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


def model_assets(item: Item) -> list[Mapping[str, Any]]:
    """Return the assets that are the model: the first in a form that is loaded, or all exported programs.

    An item may hold the same network in several forms, but what is exported with torch is there once: more
    are members of an ensemble.
    """
    assets = [asset for asset in (item.body.get("assets") or {}).values() if isinstance(asset, Mapping)]
    models = [a for a in assets if {"mlm:model", "mlm:weights"} & set(map(str, a.get("roles") or ()))]
    if not models:
        raise WeightsError(
            f"{item.href} has no asset with the role mlm:model: nothing tells which file is the model"
        )
    by_href = {str(asset.get("href", "")): asset for asset in models}
    ends = {href: PurePosixPath(urlsplit(href).path).suffix.lower() for href in by_href}
    loaded = [href for href in by_href if ends[href] in (".safetensors", ".onnx", ".pt2")]
    if not loaded or ends[loaded[0]] != ".pt2":
        return [by_href[loaded[0]] if loaded else models[0]]
    programs = [href for href in loaded if ends[href] == ".pt2"]
    if item.properties.get("custom:ensemble_fused") is True and len(programs) > 1:
        raise WeightsError(
            f"{item.href} says that its ensemble is fused in one file (custom:ensemble_fused) and names "
            f"{', '.join(programs)}: load the one that is meant, or take the note out of the item"
        )
    return [by_href[href] for href in programs]


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
    multihash = asset.get("file:checksum")
    if multihash is None:
        return None
    match = re.fullmatch(r"1220([0-9a-f]{64})", str(multihash).lower())
    if match is None:
        raise WeightsError(
            f"{href}: the model's file:checksum {multihash!r} is no SHA-256 (a multihash that begins with "
            "1220): pass sha256= from where the author publishes it"
        )
    return match[1]


def _is_uncertainty(side: Mapping[str, Any]) -> bool:
    return "uncertainty" in f"{side.get('name')} {side.get('tasks')}".lower()
