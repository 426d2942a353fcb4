"""Items and their plans, put in order: what is left out, what is merged, what is read for each time step."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from xcloudmask.errors import AssetError, CloudMaskError, warn_user
from xcloudmask.stac.assumptions import name_items
from xcloudmask.stac.bands import BandChoice
from xcloudmask.stac.grid import AssetGrid, Grid, asset_grid
from xcloudmask.stac.item_plan import ItemPlan
from xcloudmask.stac.reader import Layer, make_source
from xcloudmask.stac.transport import OnError, warn_anywhere

_ISO_8601 = re.compile(r"\d{4}-\d\d-\d\d(?![^T ])[^/]*$")
#: An item as plain JSON, and its plan.
PlannedItem: TypeAlias = tuple[Mapping[str, Any], ItemPlan]


@dataclass(frozen=True, slots=True)
class Scene:
    """The plan of an item, where its chosen assets lie, when it was taken, and its centre's longitude."""

    plan: ItemPlan
    places: tuple[AssetGrid | None, ...]
    time: np.datetime64
    longitude: float


def make_scenes(
    planned: Sequence[PlannedItem], choices: Sequence[BandChoice], on_error: OnError
) -> list[Scene]:
    """Find the place of each item's assets; in order of time."""
    scenes = []
    lacking: dict[str, list[ItemPlan]] = {}
    for item, plan in planned:
        places: list[AssetGrid | None] = []
        for choice in choices:
            asset = choice.asset(plan)
            if asset is None:
                lacking.setdefault(choice.label, []).append(plan)
                places.append(None)
            else:
                places.append(asset_grid(item, asset.key, plan.crs, asset.band.gsd))
        box = next((place.lonlat for place in places if place is not None and place.lonlat), None)
        longitude = float("nan") if box is None else (box[0] + box[2]) / 2
        scenes.append(Scene(plan, tuple(places), _time(plan), longitude))
    _tell_lacking(lacking, on_error)
    return sorted(scenes, key=lambda scene: (scene.time, scene.plan.item_id))


def _tell_lacking(lacking: Mapping[str, Sequence[ItemPlan]], on_error: OnError) -> None:
    for label, plans in lacking.items():
        keys = ", ".join(asset.key for asset in plans[0].assets) or "none"
        message = (
            f"{name_items([plan.item_id for plan in plans])}: no asset for band {label!r} (found: {keys})."
        )
        if on_error == "raise":
            raise AssetError(f"{message} Leave item or band out, or pass on_error='skip' for no data.")
        warn_anywhere(f"{message} Taken as no data.")


def _time(plan: ItemPlan) -> np.datetime64:
    import pandas as pd

    try:
        if not _ISO_8601.match(plan.datetime):
            raise ValueError("not ISO 8601")
        stamp = pd.Timestamp(plan.datetime)
        if stamp.tz is not None:
            stamp = stamp.tz_convert(None)
        time: np.datetime64 = stamp.as_unit("ns").to_datetime64()
    except ValueError as error:
        raise CloudMaskError(
            f"item {plan.item_id!r}: its datetime {plan.datetime!r} is none ({error}): give it one with"
            " modifier=, or leave it out"
        ) from None
    return time


def newest(scenes: Sequence[Scene]) -> list[Scene]:
    """Of one scene processed more than once, keep the latest baseline and say so."""
    best: dict[object, Scene] = {}
    older: list[tuple[ItemPlan, ItemPlan]] = []
    for scene in scenes:
        place = next((place for place in scene.places if place is not None), None)
        told = scene.plan.baseline is not None and place is not None and place.bounds is not None
        plan = scene.plan
        same = (plan.sensor, plan.level, plan.datetime, place.crs, place.bounds) if told and place else plan
        other = best.get(same)
        if other is None:
            best[same] = scene
        elif other.plan.baseline == scene.plan.baseline:
            best[same, plan.item_id] = scene
        else:
            old, new = sorted((other, scene), key=lambda one: one.plan.baseline or "")
            best[same] = new
            older.append((old.plan, new.plan))
    if older:
        old_plan, new_plan = older[0]
        pair = f"baseline {old_plan.baseline}, beside {new_plan.item_id!r} of {new_plan.baseline}"
        warn_user(
            f"{name_items([plan.item_id for plan, _ in older])}: an older processing of a scene that is there"
            f" twice ({pair}) is left out; duplicates='keep' keeps both",
            UserWarning,
        )
    return sorted(best.values(), key=lambda scene: (scene.time, scene.plan.item_id))


def on_grid(scenes: Sequence[Scene], grid: Grid) -> list[Scene]:
    """Leave out the items that lie beside the grid, as engines do; all of them is an error."""
    inside = [
        scene
        for scene in scenes
        if any(place is None or grid.touches(place.bounds_in(grid.crs)) for place in scene.places)
    ]
    if not inside:
        raise CloudMaskError(
            f"none of the {len(scenes)} items touches the grid {grid.bounds} in {grid.crs}: check bbox=, crs="
            f" and like= (item {scenes[0].plan.item_id!r} is in {scenes[0].plan.crs})"
        )
    return inside


def by_time_step(scenes: Sequence[Scene], mosaic: str | None) -> list[list[Scene]]:
    """Return the items of each time step, in the order in which they are laid."""
    if mosaic is None:
        return [[scene] for scene in scenes]
    days: dict[tuple[str, str], list[Scene]] = {}
    for scene in scenes:
        days.setdefault((_solar_day(scene), scene.plan.sensor), []).append(scene)
    return list(days.values())


def _solar_day(scene: Scene) -> str:
    """Date at the item's own longitude: UTC's midnight falls into the morning of the Pacific."""
    longitude = 0.0 if np.isnan(scene.longitude) else (scene.longitude + 180) % 360 - 180
    return str((scene.time + np.timedelta64(round(longitude / 15 * 3600), "s")).astype("datetime64[D]"))


def make_layers(group: Sequence[Scene], choices: Sequence[BandChoice], grid: Grid) -> tuple[Layer, ...]:
    """Return what is read for each band of a time step."""
    layers = []
    for number, choice in enumerate(choices):
        sources = []
        for scene in group:
            asset, place = choice.asset(scene.plan), scene.places[number]
            if asset is not None and place is not None:
                sources.append(make_source(scene.plan, asset, place.bounds_in(grid.crs)))
        layers.append(Layer(tuple(sources)))
    return tuple(layers)
