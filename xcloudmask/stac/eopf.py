"""EOPF products in catalogues and on disk: an item of Zarr groups becomes one of an asset for each array.

Whatever a service calls its assets (``SR_10m``, ``reflectance``, ``B02_10m``), all lie in one store, whose
own metadata tell which arrays there are, what their numbers mean and where their pixels lie. So the store is
asked, and the rest of `xcloudmask.stac` sees assets as it knows them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from xcloudmask.errors import AssetError, CloudMaskError, UnitError
from xcloudmask.scene.eopf import BAND, REFLECTANCE, Facts, facts_of, said
from xcloudmask.stac.opening import is_zarr
from xcloudmask.stac.transport import Transport, explain, for_each, warn_anywhere
from xcloudmask.stac.view import FROM_STORE, access_of, crs_of, view_item
from xcloudmask.stac.zarr_store import (
    ArrayFacts,
    array_facts,
    arrays_below,
    grid_of_group,
    join,
    open_group,
    split,
)
from xcloudmask.store.retry import is_io, repeat

#: Masks that came with a product, by the names that `xcloudmask.masks.decode` has for them: group and array.
MASKS: Mapping[str, tuple[str, str]] = {
    "scl": ("conditions/mask/l2a_classification", "scl"),
    "l1c_classification": ("conditions/mask/l1c_classification", "b00"),
    "cldprb": ("quality/probability", "cld"), "snwprb": ("quality/probability", "snw"),
}  # fmt: skip


def with_arrays(
    items: Sequence[dict[str, Any]], transport: Transport, *, masks: bool = False
) -> list[dict[str, Any]]:
    """Return the items, those of EOPF with an asset for each array of reflectance in the place of its groups.

    The plain items that are given are not changed. With `masks` those that came with the products become
    assets, too.
    """
    if not any(_store_of(item) for item in items):
        return list(items)
    arranged = partial(_with_arrays, transport=transport, masks=masks)
    return for_each(arranged, items, lambda item: str(item["id"]), transport.on_error)


def product_item(root: str, transport: Transport) -> dict[str, Any] | None:
    """Return an item for a product that no catalogue lists; None where the store is no Sentinel-2 product."""
    group, arrays = _opened(root, transport, root, remote=False)
    facts = _facts(group, arrays, root)
    if facts is None:
        return None
    item = {
        "type": "Feature",
        "id": facts.name or root.partition("?")[0].rstrip("/").rsplit("/", 1)[-1],
        "properties": {},
        "assets": {},
    }
    return _merged(item, root, group, arrays, facts, {})


def _store_of(item: Mapping[str, Any]) -> str | None:
    """Return the address of the product in which an item's assets lie; None where they lie in none."""
    raw = item["assets"].values()
    if not any(isinstance(a, Mapping) and is_zarr(str(a.get("href"))) for a in raw):
        return None  # most items have no Zarr, and need no second look
    for asset in view_item(item).assets.values():
        if not (asset.is_zarr and is_zarr(asset.href)):
            continue
        root, path = split(asset.href)
        if path.startswith(REFLECTANCE) or (not path and facts_of({}, source=root) is not None):
            return root
    return None


def _with_arrays(item: dict[str, Any], transport: Transport, masks: bool) -> dict[str, Any]:
    root = _store_of(item)
    if root is None:
        return item
    view = view_item(item)
    key = next(k for k, a in view.assets.items() if split(a.href)[0] == root)
    try:
        what = f"item {view.id!r}, asset {key!r}"
        group, arrays = _opened(root, transport, what, remote=view.remote)
        if not arrays:
            return item
        facts = _facts(group, arrays, root) or Facts()
        return _merged(item, root, group, arrays, facts, _masks(group) if masks else {})
    except Exception as error:
        if not (isinstance(error, (OSError, CloudMaskError, ValueError)) or is_io(error)):
            raise
        access = access_of(view.assets[key].raw, view.properties)
        failure = explain(view.id, key, root, error, transport, access)
    raise failure


def _opened(root: str, transport: Transport, what: str, *, remote: bool) -> tuple[Any, dict[str, ArrayFacts]]:
    """Return a store, and its arrays of reflectance by path."""

    def opened() -> tuple[Any, dict[str, ArrayFacts]]:
        group = open_group(root, transport, remote=remote)
        arrays = arrays_below(group, REFLECTANCE).items()
        return group, {path: array for path, array in arrays if BAND.fullmatch(path.rpartition("/")[2])}

    return repeat(opened, transport.retries, what)


def _masks(group: Any) -> dict[str, ArrayFacts]:
    """Return the masks that came with a product, each at its finest size."""
    masks: dict[str, ArrayFacts] = {}
    for name, (place, own) in MASKS.items():
        for size in ("r10m", "r20m", "r60m"):
            path = f"{place}/{size}/{own}"
            if name not in masks and (array := group.get(path)) is not None:
                masks[name] = array_facts(path, array.metadata)
    return masks


def _facts(group: Any, arrays: Mapping[str, ArrayFacts], root: str) -> Facts | None:
    attrs = [array.attrs for array in arrays.values()]
    return facts_of(dict(group.attrs), attrs, root) if arrays else None


def _merged(
    item: Mapping[str, Any],
    root: str,
    group: Any,
    arrays: Mapping[str, ArrayFacts],
    facts: Facts,
    masks: Mapping[str, ArrayFacts],
) -> dict[str, Any]:
    """Return an item with the arrays as assets; what the store says of the scene fills the item's gaps."""
    raw = {k: a for k, a in item["assets"].items() if isinstance(a, Mapping)}
    keys = {str(asset.get("href", "")).rstrip("/"): key for key, asset in raw.items()}
    assets: dict[str, Any] = {}
    shared: dict[str, Any] = {}
    for key, asset in raw.items():
        if split(str(asset.get("href", "")))[1].startswith(REFLECTANCE):
            shared |= {name: value for name, value in asset.items() if name.startswith(("storage:", "auth:"))}
        else:
            assets[key] = asset
    properties = dict(item.get("properties") or {})
    # in degrees beside the code of a UTM zone (eopf-stac before 0.12), or of one group of several
    for name in ("proj:bbox", "proj:shape", "proj:transform"):
        properties.pop(name, None)
    stated = {
        "platform": facts.sensor,
        "datetime": said(properties, "start_datetime") or facts.time,
        "processing:version": facts.baseline,
        "processing:level": {"toa": "L1C", "boa": "L2A"}.get(facts.level or ""),
    }
    properties |= {name: value for name, value in stated.items() if value and not said(properties, name)}
    elevation, azimuth = _sun(group, facts)
    if elevation is not None:
        properties["view:sun_elevation"] = elevation  # items of both services state the zenith angle there
    if azimuth is not None:
        properties["view:sun_azimuth"] = azimuth
    crs = facts.crs or crs_of(properties)
    if crs is None:
        raise AssetError(f"neither the item nor the store tells the CRS of {REFLECTANCE}.")
    grids = {array.group: grid_of_group(group, array.group, crs, array.shape) for array in arrays.values()}

    def placed(array: ArrayFacts) -> dict[str, Any]:
        grid = grids[array.group]
        return {
            "href": join(root, array.path), "type": "application/vnd.zarr", "zarr:node_type": "array",
            "gsd": grid.res_x, "proj:code": crs, "proj:shape": list(grid.shape),
            "proj:transform": list(grid.transform)[:6], **shared, FROM_STORE: True,
        }  # fmt: skip

    for path, array in arrays.items():
        own = {"roles": ["data", "reflectance"], "bands": [_band(path, array)]}
        assets[keys.get(join(root, path), path.removeprefix(f"{REFLECTANCE}/"))] = placed(array) | own
    for name, array in masks.items():
        try:
            grids[array.group] = grid_of_group(group, array.group, crs, array.shape)
        except AssetError as error:
            warn_anywhere(f"item {item.get('id')!r}: its mask {name!r} is left out. {error}")
        else:
            assets[name] = placed(array) | {"roles": ["mask"]}
    return {**item, "properties": properties, "assets": assets}


def _band(path: str, array: ArrayFacts) -> dict[str, Any]:
    """Return what an array's own attributes say of its numbers, as STAC words it."""
    scale, offset = (array.attrs.get(name) for name in ("scale_factor", "add_offset"))
    floats = array.dtype.startswith("float")
    if scale is None and not floats:
        raise UnitError(
            f"{path}: the array holds {array.dtype} and states no scale_factor, so what its numbers mean is"
            " not known. Open it with xarray and describe(scale=, offset=)"
        )
    fill = next(
        (n for name in ("_FillValue", "fill_value") if (n := array.attrs.get(name)) is not None), array.fill
    )
    return {
        "name": path.rpartition("/")[2].upper(),
        "data_type": array.dtype,
        "raster:scale": 1.0 if scale is None else float(scale),
        "raster:offset": float(offset or 0.0),
        # of floats 0 is a reflectance, not what fills the sensor's products
        **({"nodata": "nan"} if floats else {} if fill is None else {"nodata": fill}),
    }


def _sun(group: Any, facts: Facts) -> tuple[float | None, float | None]:
    """Return elevation and azimuth; where the root's attributes are lost, from the mean angles' array."""
    elevation, azimuth = facts.sun_elevation, facts.sun_azimuth
    angles = group.get("conditions/geometry/mean_sun_angles") if None in (elevation, azimuth) else None
    zenith, other = map(float, angles[:]) if angles is not None and angles.shape == (2,) else (0.0, 0.0)
    if 0 < zenith < 90:
        elevation = 90 - zenith if elevation is None else elevation
        azimuth = other if azimuth is None else azimuth
    return elevation, azimuth
