"""What a sync has to do: which items the store lacks, which steps they are, and where those go."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import xarray as xr

from xcloudmask.archive.index import UPDATED, Stored, encode
from xcloudmask.archive.insert import Change
from xcloudmask.errors import CloudMaskError, ContractError, StreamWarning, warn_user
from xcloudmask.stac.items import plain_items

Item = Mapping[str, Any]


def find_items(
    given: Any, modifier: Callable[[Any], Any] | None, stored: Stored | None
) -> list[dict[str, Any]]:
    """Return the items; none is an error only where there is no store yet."""
    if hasattr(given, "items_as_dicts"):
        found = list(given.items_as_dicts())
        given = found or given
    if stored is not None and isinstance(given, Sequence) and len(given) == 0:
        return []
    return plain_items(given, modifier)


def _updated(item: Item) -> str:
    properties = item.get("properties") or {}
    return str(properties.get("updated") or properties.get("created") or "")


def _moment(text: str) -> Any:
    import pandas as pd

    stamp: Any = pd.Timestamp(text)
    return stamp.tz_localize("UTC") if stamp.tz is None else stamp


def _is_newer(item: Item, recorded: str | None) -> bool:
    now = _updated(item)
    if not now or not recorded or now == recorded:
        return False
    try:
        return bool(_moment(now) > _moment(recorded))
    except ValueError as error:
        raise CloudMaskError(
            f"item {item['id']!r}: its 'updated' {now!r} (the store's is {recorded!r}) is no time; "
            "correct it with modifier="
        ) from error


def lacking(found: Sequence[Item], stored: Stored | None) -> dict[str, Item]:
    """Return the items that are to be computed, by id."""
    out = {}
    for item in found:
        name = str(item["id"])
        if name in out:
            raise CloudMaskError(
                f"two collections have an item {name!r}: sync tells items apart by their ids. Give each "
                "collection a group= of its own"
            )
        place = None if stored is None else stored.places.get(name)
        if stored is None or place is None or not stored.done[place] or _is_newer(item, stored.updated(name)):
            out[name] = item
    return out


def neighbours(found: Sequence[Item], todo: Mapping[str, Item]) -> list[Item]:
    """Return what is loaded, but not computed, beside the items that are due.

    These are items of the same moments, which may be other processings of the same scenes; else any one, so
    that to find no new item on the grid is no error.
    """
    others = [item for item in found if str(item["id"]) not in todo]
    times = {_datetime(item) for item in todo.values()}
    same = [item for item in others if _datetime(item) in times]
    return same or others[:1]


def _datetime(item: Item) -> Any:
    return (item.get("properties") or {}).get("datetime")


def pick(
    da: xr.DataArray, found: Sequence[Item], todo: Mapping[str, Item], stored: Stored | None
) -> tuple[xr.DataArray, dict[str, str]]:
    """Return the steps to compute, and which stored item each of them ousts, if one."""
    loaded = [str(name) for name in da.item_id.values]
    chosen = [step for step, name in enumerate(loaded) if name in todo]
    items = {str(item["id"]): item for item in found}
    scene = da.isel(time=chosen)
    names = [loaded[step] for step in chosen]
    scene = scene.assign_coords({UPDATED: ("time", [_updated(items[name]) for name in names])})
    ousted: dict[str, str] = {}
    for old in [name for name in items if stored and name in stored.places and name not in loaded]:
        rivals = [
            name for name in names
            if name not in (stored.places if stored else ()) and _overlap(items[name], items[old]) > 0
            and _datetime(items[name]) == _datetime(items[old])
        ]  # fmt: skip
        if rivals and old not in todo:
            ousted[max(rivals, key=lambda name: _overlap(items[name], items[old]))] = old
    return scene, ousted


def _overlap(one: Item, other: Item) -> float:
    """Return the common share of two items' boxes."""
    a, b = one.get("bbox"), other.get("bbox")
    if not a or not b or len(a) != 4 or len(b) != 4:
        return 0.0
    common = max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    area = max((a[2] - a[0]) * (a[3] - a[1]), (b[2] - b[0]) * (b[3] - b[1]))
    return common / area if area > 0 else 0.0


def with_stored_labels(scene: xr.DataArray, stored: Stored) -> xr.DataArray:
    """Give the scene those labels along time that the store has."""
    own = {str(name) for name, coord in scene.coords.items() if coord.dims == ("time",)}
    absent = sorted(set(stored.labels) - own)
    if absent:
        raise ContractError(
            f"{stored.target.label} has coordinates along time that sync cannot fill: {', '.join(absent)}. "
            "Name another store or group="
        )
    if UPDATED not in stored.labels:
        warn_user(
            f"{stored.target.label} was not made by sync and does not record when items were updated: items "
            "that changed in the catalogue are not noticed",
            StreamWarning,
        )
    return scene.drop_vars(own - set(stored.labels))


def plan(stored: Stored, scene: xr.DataArray, ousted: Mapping[str, str]) -> Change | None:
    """Decide where late steps go and which are made again. None: stream's appending will do."""
    columns = {name: encode(scene[name]) for name in stored.labels}
    rows: list[tuple[int | None, dict[str, Any]]] = [
        (step, {name: values[step] for name, values in stored.labels.items()})
        for step in range(len(stored.done))
    ]
    again: set[int] = set()
    for number, item in enumerate(columns["item_id"]):
        label = {name: values[number] for name, values in columns.items()}
        place = stored.places.get(ousted.get(item, item))
        if place is not None and label != rows[place][1]:
            rows[place] = place, label
            again.add(place)
    times = [label["time"] for _, label in rows]
    if sorted(times) != times:
        raise ContractError(
            f"{stored.target.label}: an item's datetime was changed in the catalogue, so that its step would "
            "have another place. Remake the store with overwrite=True, or undo that with modifier="
        )
    last = times[-1] if times else None
    for number, item in enumerate(columns["item_id"]):
        label = {name: values[number] for name, values in columns.items()}
        known = item in stored.places or item in ousted
        if not known and last is not None and label["time"] < last:
            at = bisect_right([row["time"] for _, row in rows], label["time"])
            rows.insert(at, (None, label))
    if len(rows) == len(stored.done) and not again:
        return None
    return Change(
        order=tuple(step for step, _ in rows),
        labels={name: [label[name] for _, label in rows] for name in stored.labels},
        remake=tuple(new for new, (old, _) in enumerate(rows) if old in again),
    )
