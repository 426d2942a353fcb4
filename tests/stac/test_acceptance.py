"""Forms in which others hand over the same real items: planned as the item itself, or refused by name."""

from __future__ import annotations

import copy
import json
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from tests.stac.helpers import plan_item
from tests.stac.test_items import table
from tests.stac.test_plan import CASES, MATERIAL, _item, _read_mtl, needs_material
from xcloudmask import sensors
from xcloudmask.errors import CloudMaskError, UnitWarning
from xcloudmask.stac import load_stac
from xcloudmask.stac.item_plan import ItemPlan
from xcloudmask.stac.items import plain_items
from xcloudmask.testing import TOY

EOPF = MATERIAL.parent / "eopf"
needs_eopf = pytest.mark.skipif(not EOPF.is_dir(), reason="no ../shared/eopf: metadata of EOPF products")
#: Real items that are planned, by the path of each.
PLANNED = {case.path: case for case in CASES if "error" not in case.group}


def plan(path: str, item: dict[str, Any]) -> ItemPlan:
    """Plan an item with the MTL file of its scene; doubts about a missing baseline are no matter here."""
    read_text = _read_mtl if PLANNED[path].group.get("over_sine") else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnitWarning)
        return plan_item(item, read_text=read_text)


def meant(plan: ItemPlan) -> tuple[Any, ...]:
    """What a plan says of sensor, level and pixels; not how an address is written."""
    sources = [(a.band, a.key, a.scale, a.offset, a.nodata, a.k1, a.k2, a.index) for a in plan.assets]
    return plan.sensor, plan.level, sources, plan.valid is None


# ------------------------------------------------------------------------------- searches with fields=


def limited(
    item: dict[str, Any],
    properties: tuple[str, ...] | None = None,
    assets: tuple[str, ...] | None = None,
    drop: tuple[str, ...] = (),
) -> dict[str, Any]:
    out = {name: value for name, value in item.items() if name not in drop}
    if properties is not None:
        out["properties"] = {name: item["properties"].get(name) for name in properties}
    if assets is not None:
        raw = item["assets"].items()
        out["assets"] = {key: {name: a[name] for name in assets if name in a} for key, a in raw}
    return out


#: What a search keeps, and how many of the items can be planned from that at least.
FIELDS: dict[str, tuple[dict[str, Any], int]] = {
    "datetime alone": ({"properties": ("datetime",)}, 80),
    "addresses alone": ({"assets": ("href",)}, 59),
    "datetime, platform and addresses": ({"properties": ("datetime", "platform"), "assets": ("href",)}, 53),
    "no links": ({"drop": ("links",)}, 87),
    "no collection": ({"drop": ("collection",)}, 57),
    "hardly anything": (
        {"properties": ("datetime",), "assets": ("href",), "drop": ("links", "collection")}, 9,
    ),
    "no properties": ({"properties": ()}, 0),
}  # fmt: skip


def planned_or_refused(path: str, item: dict[str, Any]) -> tuple[Any, ...] | str:
    try:
        return meant(plan(path, item))
    except CloudMaskError as error:
        return str(error)


@needs_material
@pytest.mark.parametrize("kept", FIELDS)
def test_a_search_that_leaves_fields_out_gives_the_same_or_is_refused(kept: str) -> None:
    """Never other numbers: Earth Search's flag tells of an offset of 0.1, asset fields of -0.7."""
    how, least = FIELDS[kept]
    outcome: Counter[type] = Counter()
    for path, case in PLANNED.items():
        item = _item(case)
        whole = meant(plan(path, item))
        part = planned_or_refused(path, limited(item, **how))
        if isinstance(part, str):
            assert item["id"] in part, f"{path}: which item it is must be said"
        else:
            assert part == whole, path
        outcome[type(part)] += 1
    assert outcome[tuple] >= least


@needs_material
@pytest.mark.parametrize(
    "collection", ["earth-search-v1/sentinel-2-l2a", "earth-search-v0/sentinel-s2-l2a-cogs"]
)
def test_without_the_flag_of_earth_search_the_offset_is_nobodys_guess(collection: str) -> None:
    late = [path for path, case in PLANNED.items() if path.startswith(collection) and case.row[2] > "04"]
    assert late
    for path in late:
        item = limited(_item(PLANNED[path]), properties=("datetime",))
        with pytest.raises(
            CloudMaskError, match="boa_offset_applied, which Earth Search sets and this item lacks"
        ):
            plan_item(item)


# ------------------------------------------------------------------------------- other forms


def counted(item: dict[str, Any]) -> dict[str, Any]:
    """Name bands as rio-stac does: b1, b2, ...; what else an item says of them stays."""
    out = copy.deepcopy(item)
    for asset in out["assets"].values():
        for key in ("eo:bands", "bands"):
            for number, band in enumerate(asset.get(key) or (), start=1):
                if isinstance(band, dict):
                    band["name"] = f"b{number}"
    return out


@needs_material
def test_names_that_count_change_nothing() -> None:
    for path, case in PLANNED.items():
        item = _item(case)
        assert meant(plan(path, counted(item))) == meant(plan(path, item)), path


@needs_material
def test_rows_of_a_geoparquet_are_the_items_themselves() -> None:
    """One table for a catalogue: structs have the fields of all, and None where an item has none."""
    items = {path: _item(case) for path, case in PLANNED.items()}
    boxed = {
        path: item for path, item in items.items() if len(item.get("bbox") or ()) == 4 and item["geometry"]
    }
    assert len(boxed) > 70
    union = {name for item in boxed.values() for asset in item["assets"].values() for name in asset}
    for path, item in boxed.items():
        other = copy.deepcopy(item)
        for asset in other["assets"].values():
            asset |= dict.fromkeys(union - set(asset))
        other["assets"]["of another item"] = None
        (row,) = plain_items(table([other], nested=False))
        assert meant(plan(path, row)) == meant(plan(path, item)), path


@needs_material
def test_the_fill_values_of_the_sensors_are_those_that_real_items_state() -> None:
    """All but VITO's, who rescales to int16."""
    stated: dict[str, set[float]] = {}
    for path, case in PLANNED.items():
        if path.startswith("terrascope"):
            continue
        for source in plan(path, _item(case)).assets:
            entries = _item(case)["assets"][source.key]
            for entry in (entries, *entries.get("raster:bands", ()), *entries.get("bands", ())):
                if entry.get("nodata") is not None and source.band.kind == "reflectance":
                    stated.setdefault(case.row[0], set()).add(float(entry["nodata"]))
    fills = {name: set(dict(sensors.get(name).metadata)["fill"]) for name in stated}
    assert stated == fills
    assert {"sentinel-2a", "sentinel-2c", "landsat-9", "landsat-7", "landsat-4-tm", "landsat-1-3-mss"} <= set(
        stated
    )


# ------------------------------------------------------------------------------- EOPF


@needs_eopf
@pytest.mark.parametrize("path", sorted(EOPF.glob("items/sentinel*.json")), ids=lambda path: path.stem)
def test_collections_of_eopf_are_no_items(path: Path) -> None:
    with pytest.raises(CloudMaskError, match=r"Collection 'sentinel-2-l.*' is no item"):
        load_stac(json.loads(path.read_text(encoding="utf-8")))


def store(path: Path) -> xr.Dataset:
    """Bands of 10 m of a real store: its arrays' attributes and types, and a few pixels of our own."""
    tree = json.loads(path.read_text(encoding="utf-8"))
    arrays = tree["members"]["measurements"]["members"]["reflectance"]["members"]["r10m"]["members"]
    rng, made = np.random.default_rng(8), {}
    for name in ("b02", "b03", "b04", "b08"):
        attrs = {key: value for key, value in arrays[name]["attributes"].items() if key[0] != "_"}
        values = rng.integers(1200, 4000, (40, 50)).astype(arrays[name].get("dtype", "f4"))
        if values.dtype.kind == "f":
            values = values * np.float32(1e-4) - np.float32(0.1)
        values[:10] = 0 if values.dtype.kind == "u" else np.nan
        made[name] = xr.Variable(("y", "x"), values, attrs)
    place = arrays["b02"]["attributes"]["proj:transform"]
    coords = {"x": place[2] + 10 * (np.arange(50) + 0.5), "y": place[5] - 10 * (np.arange(40) + 0.5)}
    return xr.Dataset(made, coords)


@needs_eopf
@pytest.mark.parametrize("path", sorted(EOPF.glob("[sg]*o*/*.json")), ids=lambda path: str(path)[-70:-40])
def test_a_store_of_eopf_is_masked_as_the_message_says(path: Path) -> None:
    """Raw numbers, and those that xarray has decoded; GeoZarr holds floats."""
    level, raw = path.name[7:10], store(path)
    decoded = xr.decode_cf(raw.map(lambda a: a.assign_attrs(_FillValue=a.attrs.get("fill_value", np.nan))))
    assert decoded.b04.dtype.kind == "f"
    masks = []
    for data in (raw, decoded):
        da = data.cloudmask.describe("sentinel-2", level=level)
        assert da.attrs["level"] == {"L1C": "toa", "L2A": "boa"}[level]
        assert [band.common_name for band in da.cloudmask.bands] == ["blue", "green", "red", "nir"]
        masks.append(da.cloudmask.predict(TOY))
    np.testing.assert_array_equal(*masks)
    assert (masks[0][:10] == 255).all()
    assert (masks[0][10:] != 255).all()
