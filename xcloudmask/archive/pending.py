"""What a sync has to do: which items the store lacks, and which steps are made anew or again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from xcloudmask.archive.index import UPDATED, Stored, encode
from xcloudmask.errors import CloudMaskError, ContractError, StreamWarning, warn_user
from xcloudmask.scene.sun_angles import AZIMUTH, ELEVATION
from xcloudmask.stac.items import plain_items, updated

Item = Mapping[str, Any]


def find_items(
    given: Any, modifier: Callable[[Any], Any] | None, stored: Stored | None
) -> list[dict[str, Any]]:
    """Return the items; none is an error only where there is no store yet."""
    if hasattr(given, "items_as_dicts"):
        given = list(given.items_as_dicts()) or given
    if stored is not None and isinstance(given, Sequence) and len(given) == 0:
        return []
    return plain_items(given, modifier)


def _moment(text: str) -> Any:
    import pandas as pd

    stamp: Any = pd.Timestamp(text)
    return stamp.tz_localize("UTC") if stamp.tz is None else stamp


def _is_newer(item: Item, recorded: str | None) -> bool:
    now = updated(item)
    if not now or not recorded or now == recorded:
        return False
    try:
        return bool(_moment(now) > _moment(recorded))
    except ValueError as error:
        raise CloudMaskError(
            f"item {item['id']!r}: its 'updated' {now!r} (the store's is {recorded!r}) is no time; "
            "correct it with modifier="
        ) from error


def missing_items(listed: Sequence[Item], stored: Stored | None) -> dict[str, Item]:
    """Return the items that are to be computed, by id."""
    out = {}
    for item in listed:
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


def neighbours(listed: Sequence[Item], todo: Mapping[str, Item]) -> list[Item]:
    """Return what is loaded, but not computed, beside the items that are due.

    These are items of the same moments, which may be other processings of the same scenes; else any one, so
    that to find no new item on the grid is no error.
    """
    others = [item for item in listed if str(item["id"]) not in todo]
    times = {_datetime(item) for item in todo.values()}
    same = [item for item in others if _datetime(item) in times]
    return same or others[:1]


def _datetime(item: Item) -> Any:
    return (item.get("properties") or {}).get("datetime")


def select_steps(
    da: xr.DataArray, listed: Sequence[Item], todo: Mapping[str, Item], stored: Stored | None
) -> tuple[xr.DataArray, dict[str, str]]:
    """Return the steps to compute, and which stored item each of them takes the place of, if one."""
    loaded = [str(name) for name in da.item_id.values]
    places = {} if stored is None else stored.places
    items = {str(item["id"]): item for item in listed}
    scene = da.isel(time=[step for step, name in enumerate(loaded) if name in todo])
    names = [name for name in loaded if name in todo]
    scene = scene.assign_coords({UPDATED: ("time", [updated(items[name]) for name in names])})
    replaced: dict[str, str] = {}
    # load_stac leaves out what a later processing of the same scene is there for
    for old in [name for name in items if name in places and name not in loaded]:
        rivals = [
            name for name in names
            if name not in places and _overlap(items[name], items[old]) > 0
            and _datetime(items[name]) == _datetime(items[old])
        ]  # fmt: skip
        if rivals:
            replaced[max(rivals, key=lambda name: _overlap(items[name], items[old]))] = old
    return scene, replaced


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
    for name in {ELEVATION[0], AZIMUTH[0]} & set(stored.labels) - set(scene.coords):
        scene = scene.assign_coords({name: ("time", np.full(scene.sizes["time"], np.nan))})
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
    return scene.drop_vars(own - {*stored.labels, ELEVATION[0], AZIMUTH[0]})


def plan_change(
    stored: Stored, scene: xr.DataArray, replaced: Mapping[str, str]
) -> dict[int, dict[str, Any]]:
    """Return the stored steps that are made again with other labels, and these."""
    columns = {name: encode(scene[name]) for name in stored.labels}
    changes = {}
    for number, item in enumerate(columns["item_id"]):
        labels = {name: values[number] for name, values in columns.items()}
        step = stored.places.get(replaced.get(item, item))
        if step is not None and labels != stored.labels_of(step):
            changes[step] = labels
    return changes
