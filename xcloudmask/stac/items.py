"""What the user hands over, as a list of plain items, each once."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from xcloudmask.errors import CloudMaskError, OptionError, warn_user
from xcloudmask.stac.assumptions import name_items

_WHAT_IS_TAKEN = (
    "Give a pystac-client search, an ItemCollection, items (pystac or plain), or a FeatureCollection."
)


def plain_items(items_or_search: Any, modifier: Callable[[Any], Any] | None = None) -> list[dict[str, Any]]:
    """Return items as dictionaries that may be changed without harm to the caller's.

    Parameters
    ----------
    items_or_search : object
        Search, collection of items, item, or an iterable of items.
    modifier : callable, optional
        Called with each item; changes it, or returns another.

    Returns
    -------
    list of dict

    Examples
    --------
    >>> [item["id"] for item in plain_items({"type": "Feature", "id": "a", "assets": {}})]
    ['a']
    """
    found = [_plain(item) for item in _iterate(items_or_search)]
    if not found:
        raise CloudMaskError(
            f"there are no items{_of_search(items_or_search)}: nothing to load."
            " Widen datetime, bbox or the query, and check the collection's name"
        )
    if modifier is not None:
        found = [_modified(item, modifier) for item in found]
    return _unique(found)


def _iterate(given: Any) -> Iterable[Any]:
    if hasattr(given, "items_as_dicts"):  # a pystac-client search: its plain items, not migrated by pystac
        return list(given.items_as_dicts())
    if isinstance(given, Mapping):
        return list(given.get("features") or ()) if given.get("type") == "FeatureCollection" else [given]
    if hasattr(given, "assets") and hasattr(given, "to_dict"):
        return [given]
    if isinstance(given, (str, bytes)) or not isinstance(given, Iterable):
        raise OptionError("items", given, hint=_WHAT_IS_TAKEN)
    return given


def _plain(item: Any) -> dict[str, Any]:
    if hasattr(item, "to_dict"):
        item = item.to_dict(transform_hrefs=False)
    if not isinstance(item, Mapping) or "assets" not in item:
        raise OptionError("item", item, hint=_WHAT_IS_TAKEN)
    if item.get("id") in (None, ""):
        raise CloudMaskError(
            f"an item has no id (properties: {str(item.get('properties'))[:80]}): give it one"
        )
    return copy.deepcopy(dict(item))


def _modified(item: dict[str, Any], modifier: Callable[[Any], Any]) -> dict[str, Any]:
    changed = modifier(item)
    return item if changed is None else _plain(changed)


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
        newest = max(other, item, key=_updated)
        differing[str(item.get("id"))] = _updated(newest) or "undated"
        kept[name] = newest
    if differing:
        warn_user(
            f"{name_items(list(differing))}: occurs twice, with different contents; the one updated last"
            f" ({next(iter(differing.values()))}) is used",
            UserWarning,
        )
    return list(kept.values())


def _updated(item: Mapping[str, Any]) -> str:
    properties = item.get("properties") or {}
    return str(properties.get("updated") or properties.get("created") or "")
