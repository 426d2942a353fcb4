"""What the user hands over, as a list of plain items, each once."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from xcloudmask.errors import CloudMaskError, OptionError, warn_user
from xcloudmask.stac.assumptions import name_items

_WHAT_IS_TAKEN = (
    "Give a pystac-client search, an ItemCollection, items (pystac or plain), a FeatureCollection, a table of"
    " items, the path of a stac-geoparquet file, or JSON: its text or the path of its file."
)
#: Bytes of a file of items; a hundred thousand items have about one gigabyte.
_MOST_BYTES = 2**30
#: Columns of a table that are an item's own; the others are its properties.
_FIELDS = (
    "type", "stac_version", "stac_extensions", "id", "geometry", "bbox", "links", "assets", "collection",
)  # fmt: skip


def plain_items(items_or_search: Any, modifier: Callable[[Any], Any] | None = None) -> list[dict[str, Any]]:
    """Return items, of whatever `load_stac` takes, as dictionaries that may be changed without harm.

    `modifier` is called with each item, of pystac if it was one; it changes it, or returns another.

    Examples
    --------
    >>> [item["id"] for item in plain_items({"type": "Feature", "id": "a", "assets": {}})]
    ['a']
    """
    given = _iterate(items_or_search)
    if modifier is not None:
        given = [_modified(item, modifier) for item in given]
    items = [_plain(item) for item in given]
    if not items:
        raise CloudMaskError(
            f"there are no items{_of_search(items_or_search)}: nothing to load."
            " Widen datetime, bbox or the query, and check the collection's name"
        )
    return _unique(items)


def with_preferred(items: Sequence[dict[str, Any]], prefer: str | None) -> list[dict[str, Any]]:
    """Return the items with the addresses of their assets that are preferred, of those that they offer.

    `prefer` is a name among ``alternate`` of the assets, or a scheme of addresses: ``"s3"``, ``"https"``.

    Examples
    --------
    >>> asset = {"href": "https://a/b.tif", "alternate": {"s3": {"href": "s3://a/b.tif"}}}
    >>> with_preferred([{"id": "x", "assets": {"red": asset}}], "s3")[0]["assets"]["red"]["href"]
    's3://a/b.tif'
    """
    if prefer is None:
        return list(items)
    offered: set[str] = set()
    is_offered = False
    out = []
    for item in items:
        assets = dict(item["assets"])
        for key, asset in assets.items():
            if not isinstance(asset, Mapping):
                continue
            others = asset.get("alternate")
            others = others if isinstance(others, Mapping) else {}
            names = {str(name): other for name, other in others.items() if isinstance(other, Mapping)}
            names = {_scheme(other): other for other in names.values()} | names
            offered |= {*names, _scheme(asset)} - {""}
            if prefer in names:
                assets[key] = {**asset, **names[prefer]}
            is_offered |= prefer in names or _scheme(asset) == prefer
        out.append({**item, "assets": assets})
    if not is_offered:
        raise OptionError("prefer", prefer, allowed=sorted(offered), hint="No asset offers that address.")
    return out


def _scheme(asset: Mapping[str, Any]) -> str:
    scheme, separator, _ = str(asset.get("href") or "").partition("://")
    return scheme if separator else ""


def _iterate(given: Any) -> Iterable[Any]:
    if hasattr(given, "items_as_dicts"):  # a pystac-client search: its plain items, not migrated by pystac
        origin = {"rel": "search", "href": str(getattr(given, "url", None) or "search://")}
        return [{**item, "links": [*_links(item), origin]} for item in given.items_as_dicts()]
    if hasattr(given, "get_items"):
        raise _no_items(type(given).__name__, getattr(given, "id", ""))
    if isinstance(given, (str, bytes, os.PathLike)):
        return _from_json(given)
    if hasattr(given, "iterrows") and hasattr(given, "columns"):
        return _from_table(given)
    if isinstance(given, Mapping):
        kind = given.get("type")
        if kind in ("Catalog", "Collection"):
            raise _no_items(str(kind), given.get("id"))
        return list(given.get("features") or ()) if kind == "FeatureCollection" else [given]
    if hasattr(given, "assets") and hasattr(given, "to_dict"):
        return [given]
    if not isinstance(given, Iterable):
        raise OptionError("items", given, hint=_WHAT_IS_TAKEN)
    return given


def _no_items(kind: str, name: object) -> CloudMaskError:
    return CloudMaskError(
        f"{kind} {name!r} is no item: give its items, list(catalogue.get_items(recursive=True)) in pystac, or"
        " those that a search of it finds"
    )


def _links(item: Mapping[str, Any]) -> list[Any]:
    links = _untyped(item.get("links"))
    return links if isinstance(links, list) else []


def _from_json(given: str | bytes | os.PathLike[str]) -> Iterable[Any]:
    """Return the items of a JSON text, or of a file, next to which relative addresses are looked for."""
    text = given.decode() if isinstance(given, bytes) else given
    if str(text).endswith((".parquet", ".geoparquet")):
        return _from_parquet(str(text))
    path = None
    if not isinstance(text, str) or not text.lstrip().startswith(("{", "[")):
        path = Path(text).absolute()
        try:
            is_file = "://" not in str(text) and path.is_file()
        except (OSError, ValueError):  # too long, or with a NUL
            is_file = False
        if not is_file:
            raise OptionError("items", given, hint=_WHAT_IS_TAKEN)
        if path.stat().st_size > _MOST_BYTES:
            raise CloudMaskError(f"{path}: larger than {_MOST_BYTES // 2**20} MiB: give its items in parts")
        text = path.read_text(encoding="utf-8")
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CloudMaskError(f"{path or 'items'}: no JSON ({error}). {_WHAT_IS_TAKEN}") from None
    items = document if isinstance(document, list) else _iterate(document)
    if path is None:
        return items
    here = {"rel": "self", "href": str(path)}
    return [
        {**item, "links": [*_links(item), here]}
        if isinstance(item, Mapping) and not any(link.get("rel") == "self" for link in _links(item))
        else item
        for item in items
    ]


def _from_parquet(path: str) -> list[dict[str, Any]]:
    """Return the items of a file as stac-geoparquet has them."""
    try:
        import rustac
    except ImportError as error:
        raise CloudMaskError(
            f"{path}: items in GeoParquet are read by rustac: pip install rustac. Or give the table itself, a"
            " GeoDataFrame"
        ) from error
    try:
        items: list[dict[str, Any]] = rustac.read_sync(os.path.expanduser(path))["features"]
    except Exception as error:  # of its own, which is no OSError
        raise CloudMaskError(f"{path}: cannot be read as stac-geoparquet ({error})") from None
    return items


def _from_table(table: Any) -> list[dict[str, Any]]:
    """Return the items of a (Geo)DataFrame as stac-geoparquet has them: a row each, properties as columns."""
    if "assets" not in table.columns or "id" not in table.columns:
        raise OptionError(
            "items", table, allowed=("id", "assets"),
            hint=f"The table needs the columns id and assets, as stac-geoparquet has them. {_WHAT_IS_TAKEN}",
        )  # fmt: skip
    items = []
    for row in table.to_dict("records"):
        properties = dict(_untyped(row.pop("properties", None)) or {})
        columns = {name: row.pop(name) for name in list(row) if name not in _FIELDS}
        properties |= {name: value for name, value in columns.items() if not _is_missing(value)}
        box = row.get("bbox")
        if isinstance(box, Mapping):  # a struct of stac-geoparquet
            row["bbox"] = [box[name] for name in ("xmin", "ymin", "xmax", "ymax")]
        items.append({**row, "properties": properties})
    return items


def _is_missing(value: Any) -> bool:
    """Tell if this is pandas' sign of an empty cell: NaN, NaT, None."""
    return value is None or (not hasattr(value, "__len__") and value != value)


def _untyped(value: Any) -> Any:
    """Copy JSON that may have come through NumPy, Arrow or pandas, whose arrays become lists."""
    if isinstance(value, Mapping):
        return {str(name): _untyped(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_untyped(part) for part in value]
    if value is None or isinstance(value, (str, int, float)):
        return value
    if hasattr(value, "__geo_interface__"):
        return _untyped(value.__geo_interface__)
    if hasattr(value, "isoformat"):
        return None if _is_missing(value) else str(value.isoformat()).replace("+00:00", "Z")
    if hasattr(value, "tolist"):  # an array, or a number of NumPy's
        return _untyped(value.tolist())
    return value


def _plain(item: Any) -> dict[str, Any]:
    if hasattr(item, "get_items"):
        raise _no_items(type(item).__name__, getattr(item, "id", ""))
    if hasattr(item, "to_dict") and not isinstance(item, Mapping):
        item = item.to_dict(transform_hrefs=False)
    if not isinstance(item, Mapping) or "assets" not in item:
        raise OptionError("item", item, hint=_WHAT_IS_TAKEN)
    if item.get("id") in (None, ""):
        raise CloudMaskError(
            f"an item has no id (properties: {str(item.get('properties'))[:80]}): give it one"
        )
    plain: dict[str, Any] = _untyped(item)
    if not isinstance(plain["assets"], dict):
        assets = str(plain["assets"])[:80]
        raise CloudMaskError(
            f"item {plain['id']!r}: its assets are {assets!r}, and no mapping of name to asset"
        )
    if not isinstance(plain["id"], (str, int, float)) or not isinstance(plain.get("properties") or {}, dict):
        raise CloudMaskError(
            f"item {str(plain['id'])[:80]!r}: its id must be a text and its properties a mapping, got "
            f"{str(plain.get('properties'))[:80]}"
        )
    _refuse_model(plain)
    return plain


def _refuse_model(item: Mapping[str, Any]) -> None:
    """Say where items of the extensions for models (MLM, and DLM before it) go."""
    properties = item.get("properties") or {}
    models = [name for name in properties if name.startswith(("mlm:", "dlm:", "ml-model:"))]
    if models == ["mlm:name"] and "processing:software" in properties:  # a mask that it made
        models = []
    schemas = " ".join(map(str, item.get("stac_extensions") or ()))
    if models or any(name in schemas for name in ("/mlm/", "/dlm/", "/ml-model/")):
        raise CloudMaskError(
            f"item {item['id']!r} describes a model and no scene: xcloudmask.models.load('item.json') takes"
            " it"
        )


def _modified(item: Any, modifier: Callable[[Any], Any]) -> Any:
    """Return what `modifier` makes of a copy of an item."""
    copied = item
    if isinstance(item, Mapping):
        copied = _untyped(item)
    elif hasattr(item, "clone"):
        copied = item.clone()
    changed = modifier(copied)
    return copied if changed is None else changed


def _of_search(given: Any) -> str:
    parameters = getattr(given, "_parameters", None)
    if not isinstance(parameters, Mapping):
        return ""
    return f" that answer the search {json.dumps(dict(parameters), default=str)}"


def _unique(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One item an id and collection: the one updated last. Pages of a search may repeat items."""
    kept: dict[tuple[Any, Any], dict[str, Any]] = {}
    differing: dict[str, str] = {}
    for item in items:
        name = (item.get("collection"), item.get("id"))
        other = kept.get(name)
        if other is None:
            kept[name] = item
            continue
        if other["assets"] == item["assets"] and other.get("properties") == item.get("properties"):
            continue
        newest = max(other, item, key=updated)
        differing[str(item.get("id"))] = updated(newest) or "undated"
        kept[name] = newest
    if differing:
        warn_user(
            f"{name_items(list(differing))}: occurs twice, with different contents; the one updated last"
            f" ({next(iter(differing.values()))}) is used",
            UserWarning,
        )
    return list(kept.values())


def updated(item: Mapping[str, Any]) -> str:
    """Return when an item was last changed, or made; "" where it does not tell."""
    properties = item.get("properties") or {}
    return str(properties.get("updated") or properties.get("created") or "")
