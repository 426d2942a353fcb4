"""Masks beside scenes: those that came with the products, and ours, as variables on the grid of the scene."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import xarray as xr

from xcloudmask.classes import NO_DATA
from xcloudmask.errors import BandError, CloudMaskError
from xcloudmask.stac.boxes import lonlat_box
from xcloudmask.stac.engines import Engine, Stack, build
from xcloudmask.stac.grid import AssetGrid, Grid, asset_grid
from xcloudmask.stac.item_plan import ItemPlan, Source
from xcloudmask.stac.match_assets import MatchedItem
from xcloudmask.stac.opening import check_host
from xcloudmask.stac.place import item_crs
from xcloudmask.stac.plan import item_time
from xcloudmask.stac.reader import Layer
from xcloudmask.stac.transport import Transport
from xcloudmask.stac.view import AssetView, ItemView, view_item
from xcloudmask.stac.zarr_store import KINDS, read_only_store

#: What `xcloudmask.masks.decode` calls a layer, by the key of its asset; of several the finest is taken.
LAYERS: Mapping[str, str] = {
    "scl": r"(.*_)?(scl|sceneclassification)([_-]\d+m)?", "qa_pixel": r"(.*_)?qa_pixel",
    "fmask": r"(.*[._])?fmask", "sm": r"(.*_)?sm",
    "l1c_classification": "l1c_classification", "cldprb": "cldprb", "snwprb": "snwprb",
}  # fmt: skip

#: How far the times of a scene and its mask may be apart.
SAME = np.timedelta64(1, "s")


@dataclass(frozen=True, slots=True)
class FoundMask:
    """A mask among the assets of an item."""

    name: str  # of the variable
    asset: AssetView
    attrs: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_ours(self) -> bool:
        """Whether it is a store of masks; a mask that came with a product is one array of its store."""
        return self.asset.is_zarr and not self.asset.is_from_store


def find_masks(view: ItemView, sensor: str = "") -> list[FoundMask]:
    """Return the masks among an item's assets, ours among them.

    Examples
    --------
    >>> assets = {"SCL_20m": {"href": "a.tif"}, "B02": {"href": "b.tif"}}
    >>> item = {"id": "a", "properties": {}, "assets": assets}
    >>> [(found.name, found.attrs["product"]) for found in find_masks(view_item(item))]
    [('scl', 'scl')]
    """
    masks: dict[str, FoundMask] = {}
    for key, asset in view.assets.items():
        word = re.sub(r"\.tiff?$", "", key.lower())
        name = next((name for name, pattern in LAYERS.items() if re.fullmatch(pattern, word)), None)
        listed = asset.raw.get("classification:classes") or ()
        if name is not None and (asset.is_from_store or not asset.is_zarr):
            product = ("probav" if "proba" in sensor else "vgt") if name == "sm" else name
            other = masks.get(name)
            if other is None or (asset.gsd or np.inf) < (other.asset.gsd or np.inf):
                attrs = {"long_name": "probability of snow", "units": "%"}  # no class of ours
                masks[name] = FoundMask(name, asset, attrs if name == "snwprb" else {"product": product})
        elif any("cloud" in str(entry.get("name")) for entry in listed if isinstance(entry, Mapping)):
            flags = {
                "flag_values": [int(entry["value"]) for entry in listed],
                "flag_meanings": " ".join(str(entry["name"]) for entry in listed),
            }
            masks.setdefault(key, FoundMask(key, asset, flags))
    return list(masks.values())


def as_collection(given: Any) -> dict[str, Any] | None:
    """Return a collection that has assets, of pystac, plain, or a JSON file, as a mapping; else None."""
    if isinstance(given, (str, os.PathLike)):
        with suppress(ValueError, OSError):
            given = json.loads(Path(given).read_text(encoding="utf-8"))
    if not isinstance(given, Mapping) and hasattr(given, "assets") and hasattr(given, "get_items"):
        given = given.to_dict(include_self_link=False, transform_hrefs=False)
    is_one = isinstance(given, Mapping) and given.get("type") == "Collection" and given.get("assets")
    return dict(given) if is_one else None


def split_items(
    items: Sequence[Mapping[str, Any]], match: Callable[[Any], MatchedItem], *, masks: bool
) -> tuple[list[MatchedItem], list[ItemView]]:
    """Tell scenes apart from items that hold masks alone."""
    scenes, others = [], []
    for item in items:
        try:
            scenes.append(match(item))
        except BandError:
            view = view_item(item)
            if not masks or not find_masks(view):
                raise
            others.append(view)
    return scenes, others


def open_listed(views: Sequence[ItemView], transport: Transport) -> xr.Dataset:
    """Return the masks in Zarr of items, and of collections, on their own grid; they must share it."""
    arrays: dict[str, list[xr.DataArray]] = {}
    for view in views:
        for mask in find_masks(view):
            if mask.is_ours:
                arrays.setdefault(mask.name, []).append(_open(view, mask, transport))
    try:
        joined = {
            name: parts[0]
            if len(parts) == 1
            else xr.concat(parts, "time", join="exact", coords="different", compat="equals")
            for name, parts in arrays.items()
        }
        return xr.Dataset({name: mask.sortby("time") for name, mask in joined.items()})
    except (xr.AlignmentError, xr.MergeError, ValueError) as error:
        raise CloudMaskError(
            f"the masks of {', '.join(view.id for view in views[:5])} do not lie on one grid ({error})",
            "Load them one by one, or beside their scenes",
        ) from error


def _open(view: ItemView, listed: FoundMask, transport: Transport) -> xr.DataArray:
    """Open a mask of ours, with a dimension of time."""
    from xcloudmask.store.record import open_mask
    from xcloudmask.store.store import Target, open_existing

    url = transport.url(listed.asset.href, remote=view.remote)
    store: Any = url
    if view.remote or transport.filesystem is not None or urlsplit(url).scheme in ("", "file", *KINDS):
        store = read_only_store(url, transport)
    else:  # memory://, sftp://, ...: whatever `to_zarr` writes to, but for others' items
        check_host(url, transport.allow_private_hosts)
    mask, _ = open_mask(Target(open_existing(store)))
    if "time" not in mask.coords:
        mask = mask.assign_coords(time=item_time(view))
    return mask if "time" in mask.dims else mask.expand_dims("time")


def masks_alone(
    views: Sequence[ItemView],
    transport: Transport,
    chunks: Callable[[tuple[int, int]], tuple[int, int]],
    grid_of: Callable[[Any], Grid],
    engine: Engine,
) -> xr.Dataset:
    """Return the masks of items that hold nothing else."""
    masks = [(view, mask) for view in views for mask in find_masks(view) if not mask.is_ours]
    if not masks:
        return open_listed(views, transport)
    grid = grid_of([place for view, mask in masks if (place := _place(view, mask)[1]) is not None])
    times = np.array(sorted({item_time(view) for view, _ in masks}), dtype="datetime64[ns]")
    stack = Stack(times, (), grid, chunks(grid.shape), "nearest", transport, "float32")
    where = xr.Dataset(coords={"time": times, "y": grid.y, "x": grid.x}).rio.write_crs(grid.crs)
    return with_masks(where, stack, [()] * len(times), (), views, engine)


def with_masks(
    scene: xr.Dataset,
    stack: Stack,
    groups: Sequence[Sequence[ItemPlan]],
    items: Sequence[MatchedItem],
    others: Sequence[ItemView],
    engine: Engine,
) -> xr.Dataset:
    """Add masks to a dataset on a grid: float32, NaN where there is none; those in Zarr as they are."""
    views = {(item.view.collection, item.view.id): item for item in items}
    named: dict[str, FoundMask] = {}
    steps: list[dict[str, list[Source]]] = []
    for group, time in zip(groups, stack.times, strict=True):
        sources: dict[str, list[Source]] = {}
        own = [views[plan.collection, plan.item_id] for plan in group]
        held = [(item.view, item.sensor_name) for item in own]
        times = np.array([time, *(plan.time for plan in group)])  # the tiles of a mosaic differ
        held += [
            (view, "") for view in others if not _in_zarr(view) and abs(times - item_time(view)).min() <= SAME
        ]
        for view, sensor in held:
            for mask in find_masks(view, sensor):
                if not mask.is_ours:
                    named.setdefault(mask.name, mask)
                    sources.setdefault(mask.name, []).append(_source(view, mask, stack.grid.crs))
        steps.append(sources)
    if named:
        layers = tuple(tuple(Layer(tuple(step.get(name, ()))) for name in named) for step in steps)
        data = build(replace(stack, layers=layers, resampling="nearest", dtype="float32"), engine)
        for place, (name, mask) in enumerate(named.items()):
            scene[name] = (("time", "y", "x"), data[:, place], dict(mask.attrs))
    listed = [view for view in others if _in_zarr(view)]
    return scene.merge(_near(open_listed(listed, stack.transport), scene)) if listed else scene


def _in_zarr(view: ItemView) -> bool:
    return any(mask.is_ours for mask in find_masks(view))


def _near(masks: xr.Dataset, scene: xr.Dataset) -> xr.Dataset:
    """Return masks on the pixels and at the times of a scene."""
    if masks.rio.crs != scene.rio.crs:
        raise CloudMaskError(
            f"the masks are in {masks.rio.crs}, the scenes in {scene.rio.crs}", "Pass crs= of the masks"
        )
    out = masks.drop_vars([name for name in masks.coords if name not in masks.dims])
    near: Any = {"method": "nearest", "fill_value": NO_DATA, "tolerance": SAME}
    out = out.reindex(time=scene.time, **near)
    for dim in ("y", "x"):
        size = max(float(abs(ds[dim].diff(dim).median())) for ds in (masks, scene))
        out = out.reindex({dim: scene[dim]}, **{**near, "tolerance": 0.51 * size})
    return out


def _place(view: ItemView, mask: FoundMask) -> tuple[str | None, AssetGrid]:
    crs, _ = item_crs(view, [mask.asset])
    return crs, asset_grid(view, mask.asset, crs, mask.asset.gsd, lonlat_box(view.geometry, view.bbox))


def _source(view: ItemView, mask: FoundMask, grid: str) -> Source:
    crs, place = _place(view, mask)
    source = Source(
        mask.asset.key, mask.asset.href, item_id=view.id, crs=crs, place=place, remote=view.remote
    )
    return replace(source, bounds=source.bounds_on(grid), place=None)
