"""Plans put in order: what is left out, what is merged, what is read for each time step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from xcloudmask.errors import AssetError, CloudMaskError, warn_user
from xcloudmask.stac.assumptions import name_items
from xcloudmask.stac.bands import BandChoice
from xcloudmask.stac.grid import Grid
from xcloudmask.stac.item_plan import ItemPlan
from xcloudmask.stac.reader import Layer
from xcloudmask.stac.transport import OnError, warn_anywhere


def check_lacking(plans: Sequence[ItemPlan], choices: Sequence[BandChoice], on_error: OnError) -> None:
    """Raise where an item has no asset for a band, or warn of it."""
    lacking: dict[str, list[ItemPlan]] = {}
    for plan in plans:
        for choice in choices:
            if choice.source(plan) is None:
                lacking.setdefault(choice.label, []).append(plan)
    for label, plans in lacking.items():
        keys = ", ".join(asset.key for asset in plans[0].assets) or "none"
        message = (
            f"{name_items([plan.item_id for plan in plans])}: no asset for band {label!r} (found: {keys})."
        )
        if on_error == "raise":
            raise AssetError(f"{message} Leave item or band out, or pass on_error='skip' for no data.")
        warn_anywhere(f"{message} Taken as no data.")


def in_order(plans: Sequence[ItemPlan]) -> list[ItemPlan]:
    """Sort by time, then by name."""
    return sorted(plans, key=lambda plan: (plan.time, plan.item_id))


def newest(plans: Sequence[ItemPlan]) -> list[ItemPlan]:
    """Of one scene processed more than once, keep the latest baseline and say so."""
    best: dict[object, ItemPlan] = {}
    older: list[tuple[ItemPlan, ItemPlan]] = []
    for plan in plans:
        place = next((source.place for source in plan.assets if source.place), None)
        scene: object = plan.item_id
        if plan.baseline is not None and place is not None and place.bounds is not None:
            scene = (plan.sensor, plan.level, plan.datetime, place.crs, place.bounds)
        other = best.get(scene)
        if other is None:
            best[scene] = plan
        elif other.baseline == plan.baseline:
            best[scene, plan.item_id] = plan
        else:
            old, new = sorted((other, plan), key=lambda each: each.baseline or "")
            best[scene] = new
            older.append((old, new))
    if older:
        old, new = older[0]
        pair = f"baseline {old.baseline}, beside {new.item_id!r} of {new.baseline}"
        warn_user(
            f"{name_items([plan.item_id for plan, _ in older])}: an older processing of a scene that is there"
            f" twice ({pair}) is left out; duplicates='keep' keeps both",
            UserWarning,
        )
    return in_order(list(best.values()))


def on_grid(plans: Sequence[ItemPlan], grid: Grid) -> list[ItemPlan]:
    """Leave out the items that lie beside the grid, as engines do; all of them is an error."""

    def touches(plan: ItemPlan) -> bool:
        boxes = (source.bounds_on(grid.crs) for source in plan.assets)
        return not plan.assets or any(grid.touches(box) for box in boxes)

    inside = [plan for plan in plans if touches(plan)]
    if not inside:
        raise CloudMaskError(
            f"none of the {len(plans)} items touches the grid {grid.bounds} in {grid.crs}: check bbox=, crs="
            f" and like= (item {plans[0].item_id!r} is in {plans[0].crs})"
        )
    return inside


def by_time_step(plans: Sequence[ItemPlan], mosaic: str | None) -> list[list[ItemPlan]]:
    """Return the items of each time step, in the order in which they are laid."""
    if mosaic is None:
        return [[plan] for plan in plans]
    days: dict[tuple[str, str], list[ItemPlan]] = {}
    for plan in plans:
        days.setdefault((_solar_day(plan), plan.sensor), []).append(plan)
    return list(days.values())


def _solar_day(plan: ItemPlan) -> str:
    """Date at the item's own longitude: UTC's midnight falls into the morning of the Pacific."""
    box = next((s.place.lonlat for s in plan.assets if s.place and s.place.lonlat), None)
    longitude = 0.0 if box is None else ((box[0] + box[2]) / 2 + 180) % 360 - 180
    return str((plan.time + np.timedelta64(round(longitude / 15 * 3600), "s")).astype("datetime64[D]"))


def make_layers(group: Sequence[ItemPlan], choices: Sequence[BandChoice], grid: Grid) -> tuple[Layer, ...]:
    """Return what is read for each band of a time step."""
    layers = []
    for choice in choices:
        sources = []
        for plan in group:
            source = choice.source(plan)
            if source is not None:
                box = source.bounds_on(grid.crs)
                sources.append(replace(source, bounds=box, band=None, place=None))
        layers.append(Layer(tuple(sources)))
    return tuple(layers)
