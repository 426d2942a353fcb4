"""Plans of real items against reviewed expectations, and of made-up items for what the material lacks."""

from __future__ import annotations

import json
import math
import sys
import threading
import tomllib
import warnings
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import Any
from urllib.parse import urljoin

import pytest

from tests.scenes import calls
from tests.stac.helpers import plan_item
from xcloudmask.errors import BandError, CloudMaskError, OptionError, UnitError, UnitWarning
from xcloudmask.scene.sun import sun_position
from xcloudmask.stac import load_stac
from xcloudmask.stac.item_plan import ItemPlan, ValidRule

HERE = Path(__file__).parent
MATERIAL = HERE.parents[2] / "shared" / "stac-items"
#: Folders whose items must all have an expectation; the rest are models, collections and templates.
FAMILIES = (
    "astraea",
    "cdse",
    "dea",
    "earth-search-v0",
    "earth-search-v1",
    "nasa-cmr",
    "other",
    "planetary-computer",
    "sat-api-old",
    "stactools",
    "terrascope",
    "usgs-landsatlook",
    "vito-openeo",
)
needs_material = pytest.mark.skipif(
    not MATERIAL.is_dir(), reason="the real STAC items (../shared/stac-items) are not in a user's clone"
)


# -------------------------------------------------------------------------------------------- real items


@dataclass(frozen=True)
class Case:
    path: str
    row: tuple[Any, ...]
    group: dict[str, Any]


def _cases() -> list[Case]:
    cases = []
    for file in sorted((HERE / "expectations").glob("*.toml")):
        for group in tomllib.loads(file.read_text(encoding="utf-8"))["group"]:
            cases += [Case(row[0], tuple(row[1:]), group) for row in group["items"]]
    return cases


CASES = _cases()


def _read(path: str) -> dict[str, Any]:
    item: dict[str, Any] = json.loads((MATERIAL / path).read_text(encoding="utf-8"))
    return item


def _read_mtl(href: str) -> str:
    """Stand in for the network: the MTL files of the material, by scene."""
    scene = href.rsplit("/", 1)[-1].partition("_MTL")[0]
    return (MATERIAL / "usgs-mtl" / f"{scene}_MTL.xml").read_text(encoding="utf-8")


def _item(case: Case) -> dict[str, Any]:
    item = _read(case.path)
    if case.group.get("add"):
        item = {**item, "properties": {**item.get("properties", {}), **case.group["add"]}}
    return item


def _plan(item: Any, group: dict[str, Any]) -> ItemPlan:
    read_text = _read_mtl if group.get("over_sine") else None
    if not group.get("warning"):
        return plan_item(item, read_text=read_text)
    with pytest.warns(UnitWarning, match=group["warning"]):
        return plan_item(item, read_text=read_text)


def _expected_valid(text: str, item: dict[str, Any]) -> ValidRule | None:
    """Turn ``"qa_pixel & 1 == 0"`` into the rule."""
    if not text:
        return None
    key, _, rest = text.partition(" & ")
    mask, _, expected = rest.partition(" == ")
    return ValidRule(key, item["assets"][key]["href"], int(mask), int(expected))


def _href(item: dict[str, Any], key: str) -> str:
    base = next((link["href"] for link in item.get("links", ()) if link["rel"] == "self"), "")
    href: str = item["assets"][key]["href"]
    return urljoin(base, href) if base.startswith("https://") else href


@needs_material
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.path)
def test_every_real_item_plans_as_expected(case: Case) -> None:
    item, group = _item(case), case.group
    if "error" in group:
        kind = {"UnitError": UnitError, "BandError": BandError}[group["error"]]
        with pytest.raises(kind) as caught:
            plan_item(item)
        for word in (*group["words"], item["id"]):
            assert word in str(caught.value)
        return
    sensor, crs, baseline, sun = case.row
    plan = _plan(item, group)
    stem = item["id"].removesuffix("_TOC_V210")
    numbers = {}
    for pairs, scale, offset in group["numbers"]:
        sine = math.sin(math.radians(sun)) if group.get("over_sine") else 1.0
        for pair in pairs.format(stem=stem).split():
            band, key = pair.split("=")
            numbers[band] = (
                key,
                pytest.approx(scale / sine, rel=1e-12),
                pytest.approx(offset / sine, rel=1e-12),
            )
    assert {a.band.name: (a.key, a.scale, a.offset) for a in plan.assets} == numbers
    assert {a.nodata for a in plan.assets} == {group["nodata"]}
    assert {(a.index, a.k1, a.k2) for a in plan.assets} == {(1, None, None)}
    assert [a.href for a in plan.assets] == [_href(item, a.key) for a in plan.assets]
    assert {a.band.kind for a in plan.assets if a.band.name in ("B10", "B11")} <= (
        {"brightness_temperature"} if sensor[:3] in ("lan", "hls") else {"reflectance"}
    )
    assert plan.catalogue == group["catalogue"]
    assert (plan.item_id, plan.collection) == (item["id"], item.get("collection"))
    assert (plan.sensor, plan.level) == (sensor, group["level"])
    assert (plan.crs or "", plan.baseline or "") == (crs, baseline)
    assert plan.sun_elevation == (None if sun == "" else pytest.approx(sun, rel=1e-12))
    assert plan.valid == _expected_valid(group["valid"], item)
    assert plan.datetime == item.get("properties", {}).get("datetime", plan.datetime)
    assert plan.updated == item.get("properties", {}).get("updated")
    assert group["rule"] in plan.offset_rule


@needs_material
def test_no_real_item_is_without_an_expectation() -> None:
    def is_item(path: Path) -> bool:
        return json.loads(path.read_text(encoding="utf-8")).get("type") == "Feature"

    found = [
        str(path.relative_to(MATERIAL).as_posix())
        for family in FAMILIES
        for path in sorted((MATERIAL / family).rglob("*.json"))
        if is_item(path)
    ]
    assert sorted(case.path for case in CASES) == sorted(found)


@needs_material
@pytest.mark.parametrize(
    "case", [c for c in CASES if "error" not in c.group and "add" not in c.group], ids=lambda c: c.path
)
def test_pystac_items_plan_as_their_dictionaries(case: Case) -> None:
    """pystac rewrites old items as it reads them (proj:epsg to proj:code, short extension names)."""
    pystac = pytest.importorskip("pystac")
    item = _item(case)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what pystac says of old extensions is not ours
        modern = pystac.Item.from_dict(json.loads(json.dumps(item)))
    ours, theirs = _plan(item, case.group), _plan(modern, case.group)
    told = [(a.key, a.band, a.scale, a.offset, a.nodata, a.k1, a.k2, a.index) for a in ours.assets]
    assert [(a.key, a.band, a.scale, a.offset, a.nodata, a.k1, a.k2, a.index) for a in theirs.assets] == told
    for field in ("catalogue", "sensor", "level", "datetime", "crs", "baseline", "updated", "sun_elevation"):
        assert getattr(theirs, field) == getattr(ours, field), field
    assert (theirs.evidence, theirs.offset_rule) == (ours.evidence, ours.offset_rule)


# ----------------------------------------------------------------------------------------- made-up items


def _s2(**properties: Any) -> dict[str, Any]:
    """A Sentinel-2 L2A item of the Planetary Computer, as small as can be."""
    return {
        "id": "S2A_MSIL2A_X",
        "collection": "sentinel-2-l2a",
        "properties": {
            "platform": "Sentinel-2A",
            "instruments": ["msi"],
            "datetime": "2023-05-01T10:00:00Z",
            "s2:mean_solar_zenith": 30.0,
            "s2:processing_baseline": "05.09",
            "proj:epsg": 32632,
            **properties,
        },
        "assets": {
            "B04": {"href": "B04.tif", "gsd": 10, "eo:bands": [{"name": "B04", "common_name": "red"}]},
            "B05": {"href": "B05.tif", "gsd": 20, "eo:bands": [{"name": "B05", "common_name": "rededge"}]},
            "B8A": {"href": "B8A.tif", "gsd": 20, "eo:bands": [{"name": "B8A", "common_name": "rededge"}]},
            "visual": {
                "href": "TCI.tif",
                "roles": ["data"],
                "eo:bands": [{"name": "B04"}, {"name": "B03"}, {"name": "B02"}],
            },
            "SCL": {"href": "SCL.tif", "gsd": 20, "roles": ["data"]},
        },
    }


def test_bands_come_in_the_order_asked_for_and_by_any_name() -> None:
    plan = plan_item(_s2(), bands=["nir08", "red", "B05"])
    assert [asset.key for asset in plan.assets] == ["B8A", "B04", "B05"]


def test_all_and_none_take_every_band_and_no_picture() -> None:
    for every in ("all", None):
        assert [a.key for a in plan_item(_s2(), bands=every).assets] == ["B04", "B05", "B8A"]


def test_a_band_that_the_item_lacks_is_named_with_those_it_has() -> None:
    with pytest.raises(BandError, match=r"S2A_MSIL2A_X.*'swir16'.*B04, B05, B8A"):
        plan_item(_s2(), bands=["red", "swir16"])


def test_a_band_that_the_sensor_lacks_gets_the_nearest_name() -> None:
    with pytest.raises(OptionError, match="B04"):
        plan_item(_s2(), bands=["B44"])


def test_an_unknown_offset_mode_is_refused() -> None:
    with pytest.raises(OptionError, match=r"offset 'aply'; did you mean 'apply'"):
        plan_item(_s2(), offset="aply")  # type: ignore[arg-type]


def test_something_that_is_no_item_is_refused() -> None:
    with pytest.raises(OptionError, match="pystac"):
        plan_item(42)


def test_an_item_with_no_date_is_refused() -> None:
    with pytest.raises(CloudMaskError, match="neither datetime nor start_datetime"):
        plan_item(_s2(datetime=None))


def test_a_composite_is_dated_by_its_start() -> None:
    plan = plan_item(_s2(datetime=None, start_datetime="2023-05-01T00:00:00Z"))
    assert plan.datetime == "2023-05-01T00:00:00Z"


def test_the_callers_sun_elevation_wins() -> None:
    assert plan_item(_s2()).sun_elevation == 60.0
    assert plan_item(_s2(), sun_elevation=12.5).sun_elevation == 12.5
    with pytest.raises(UnitError, match=r"-3 degrees.*sun_elevation="):
        plan_item(_s2(), sun_elevation=-3)


def test_stac_1_1_items_state_numbers_on_asset_band_or_item() -> None:
    def item(asset: dict[str, Any], band: dict[str, Any], properties: dict[str, Any]) -> dict[str, Any]:
        base = _s2(**properties)
        base["collection"] = "somewhere-l2a"
        del base["properties"]["proj:epsg"]
        band = {"name": "B04", "eo:common_name": "red", **band}
        base["assets"] = {"x": {"href": "x.tif", "proj:code": "EPSG:32633", "bands": [band], **asset}}
        return base

    numbers = {"raster:scale": 0.0002, "raster:offset": -0.2, "nodata": 7}
    for place in ((numbers, {}, {}), ({}, numbers, {}), ({}, {}, numbers)):
        plan = plan_item(item(*place))
        (asset,) = plan.assets
        assert (asset.scale, asset.offset, asset.nodata, plan.crs) == (0.0002, -0.2, 7, "EPSG:32633")
    (asset,) = plan_item(item(numbers, {"raster:scale": 0.0003}, {})).assets
    assert asset.scale == 0.0003  # the band's own wins


@pytest.mark.parametrize(
    ("taken", "assets"),
    [
        ("red_10m_cog", {"b4-jp2": {"href": "B04.jp2"}, "red_10m_cog": {"eo:bands": [{"name": "B04"}]}}),
        (
            "B05_60m",
            {
                "B05_20m": {"roles": ["sampling:upsampled"]},
                "B05_60m": {"roles": ["data", "sampling:original"]},
            },
        ),
        ("B01_60m", {"B01_20m": {"gsd": 20}, "B01_60m": {"gsd": 60}}),
        (
            "blue",
            {
                "blue_x": {"raster:bands": [{"spatial_resolution": 20}], "eo:bands": [{"name": "B02"}]},
                "blue": {},
            },
        ),
        ("nir_20m", {"nir_60m": {}, "nir_20m": {}}),
        (
            "red_only",
            {
                "all": {"eo:bands": [{"name": "B02"}, {"name": "B04"}]},
                "red_only": {"eo:bands": [{"name": "B04"}]},
            },
        ),
        (
            "red",
            {"opacity": {"href": "S2A_20230101_B04.tif", "eo:bands": [{"name": "AOT"}]}, "red": {"gsd": 60}},
        ),
    ],
)
def test_of_several_assets_the_band_as_it_was_sampled_is_taken(taken: str, assets: dict[str, Any]) -> None:
    item = _s2()
    item["assets"] = {key: {"href": f"{key}.tif", **asset} for key, asset in assets.items()}
    assert [a.key for a in plan_item(item, bands=[taken.partition("_")[0]]).assets] == [taken]


def test_a_catalogue_nobody_listed_works_when_its_items_state_names_and_scale() -> None:
    item: dict[str, Any] = {
        "id": "scene-1",
        "collection": "my-camera-boa",
        "properties": {"datetime": "2024-01-01T00:00:00Z", "platform": "my-sat", "proj:code": "EPSG:3035"},
        "assets": {
            "a": {
                "href": "a.tif",
                "nodata": -1,
                "raster:scale": 0.001,
                "bands": [{"name": "n1", "eo:common_name": "red", "eo:center_wavelength": 0.65}],
            },
            "b": {
                "href": "b.tif",
                "raster:scale": 0.1,
                "bands": [{"name": "n2", "eo:common_name": "lwir11"}],
            },
            "mask": {"href": "m.tif", "roles": ["data-mask"]},
        },
    }
    plan = plan_item(item)
    assert (plan.catalogue, plan.sensor, plan.level, plan.crs) == ("unlisted", "unknown", "boa", "EPSG:3035")
    red, thermal = plan.assets
    assert (red.band.common_name, red.band.center_nm, red.band.kind) == ("red", 650.0, "reflectance")
    assert (red.scale, red.offset, red.nodata) == (0.001, 0.0, -1)
    assert thermal.band.kind == "brightness_temperature"
    assert [a.key for a in plan_item(item, bands=["n1"]).assets] == ["a"]
    assert [a.key for a in plan_item(item, bands=["lwir11"]).assets] == ["b"]


@pytest.mark.parametrize(
    ("band", "words"),
    [
        ({}, "neither stated nor known"),
        ({"data_type": "uint16"}, "neither stated nor known"),
        ({"scale": 2000}, "a scale of 2000 does not give reflectance"),  # Proba-V's HDF5 divides
        ({"scale": 1, "data_type": "uint16"}, "a scale of 1 does not give reflectance"),
        ({"scale": 0.01, "unit": "W m-2 sr-1 um-1"}, "radiance"),
    ],
)
def test_numbers_that_are_not_reflectance_are_an_error_that_names_item_asset_and_remedy(
    band: dict[str, Any], words: str
) -> None:
    item = _s2()
    item["collection"] = "unheard-of-l2a"
    item["assets"]["B04"]["raster:bands"] = [band]
    with pytest.raises(UnitError) as caught:
        plan_item(item, bands=["red"])
    for word in (words, "S2A_MSIL2A_X", "'B04'", "raster:scale"):
        assert word in str(caught.value)


def test_floating_point_pixels_need_no_scale() -> None:
    item = _s2(**{"s2:processing_baseline": "02.14", "datetime": "2020-01-01T00:00:00Z"})
    item["collection"] = "unheard-of-l2a"
    item["assets"]["B04"]["raster:bands"] = [{"data_type": "float32"}]
    assert plan_item(item, bands=["red"]).assets[0].scale == 1.0


def test_a_level_that_is_not_told_is_an_error() -> None:
    item = _s2()
    item |= {"id": "x", "collection": "unheard-of"}
    item["assets"]["B04"]["raster:bands"] = [{"scale": 1e-4, "offset": -0.1}]
    with pytest.raises(UnitError, match="processing:level"):
        plan_item(item, bands=["red"])
    item["properties"]["processing:level"] = "L1C"
    assert plan_item(item, bands=["red"]).level == "toa"


# ------------------------------------------------------------------- Proba-V, SPOT-VGT, HLS: no real items


def _vito(collection: str, item_id: str, bands: str, **assets: Any) -> dict[str, Any]:
    return {
        "id": item_id,
        "collection": collection,
        "properties": {"datetime": "2016-01-01T00:00:00Z", "proj:epsg": 4326},
        "assets": {**{name: {"href": f"{name}.tif"} for name in bands.split()}, **assets},
    }


@pytest.mark.parametrize(
    ("collection", "item_id", "level"),
    [
        ("terrascope-probav-s1-toa-1km-cog-v2", "PROBAV_S1_TOA_X18Y02_20160101_1KM_V201", "toa"),
        ("terrascope-probav-s5-toc-100m-cog-v2", "PROBAV_S5_TOC_X18Y02_20160101_100M_V201", "boa"),
        ("PROBAV_L3_S10_TOC_333M", "PROBAV_S10_TOC_20160101_333M_V101", "boa"),
        ("terrascope-probav-l2a-333m-v2", "PROBAV_L2A_20160101_101010_2_333M_V201", "toa"),
    ],
)
def test_proba_v(collection: str, item_id: str, level: str) -> None:
    plan = plan_item(_vito(collection, item_id, "NDVI RED NIR BLUE SWIR SZA SM TIME"))
    assert (plan.sensor, plan.level, plan.crs) == ("proba-v", level, "EPSG:4326")
    assert [(a.band.name, a.scale, a.offset, a.nodata) for a in plan.assets] == [
        (name, 5e-4, 0.0, -1.0) for name in ("BLUE", "RED", "NIR", "SWIR")
    ]
    # each band asks for its own radiometry (bits 4 to 7); the cloud's own bits 0 to 2 are left alone
    assert [a.good_bit for a in plan.assets] == [7, 6, 5, 4]
    assert plan.valid == ValidRule("SM", "SM.tif", 0b1111_0000, 0b1111_0000)
    assert 248 & plan.valid.mask == plan.valid.expected  # clear land
    assert 251 & plan.valid.mask == plan.valid.expected  # cloud over land: data
    assert 0 & plan.valid.mask != plan.valid.expected  # never observed
    assert (248 - 16) & plan.valid.mask != plan.valid.expected  # SWIR bad


def test_proba_vs_status_map_asks_only_for_the_bands_that_are_read() -> None:
    item = _vito("terrascope-probav-s1-toc-333m-cog-v2", "x", "RED NIR BLUE SWIR SM")
    plan = plan_item(item, bands=["red", "nir"])
    assert [a.good_bit for a in plan.assets] == [6, 5]
    assert plan.valid == ValidRule("SM", "SM.tif", 0b0110_0000, 0b0110_0000)


def test_proba_v_numbers_that_an_item_states_win_over_the_manual() -> None:
    red = {"href": "r.tif", "raster:scale": 0.0004, "raster:offset": -0.02, "nodata": 255}
    item = _vito("terrascope-probav-s1-toc-333m-cog-v2", "x", "NIR", RED=red)
    assert [(a.band.name, a.scale, a.offset, a.nodata) for a in plan_item(item).assets] == [
        ("RED", 0.0004, -0.02, 255.0),
        ("NIR", 5e-4, 0.0, -1.0),
    ]


def test_proba_v_file_names_as_keys_and_a_file_of_several_bands() -> None:
    name = "PROBAV_S1_TOC_X18Y02_20160101_100M_V101"
    keys = f"{name}_RED.tif {name}_NIR.tif {name}_SM.tif {name}_NDVI.tif"
    plan = plan_item(_vito("terrascope-probav-s1-toc-100m-cog-v2", name, keys))
    assert [a.key for a in plan.assets] == [f"{name}_RED.tif", f"{name}_NIR.tif"]
    assert plan.valid is not None
    assert (plan.valid.key, plan.valid.mask) == (f"{name}_SM.tif", 0b0110_0000)
    stack = {"href": "r.tif", "bands": [{"name": n} for n in ("RED", "NIR", "BLUE", "SWIR")]}
    plan = plan_item(_vito("terrascope-probav-s1-toc-100m-cog-v2", name, "SM", RADIOMETRY=stack))
    assert [(a.band.name, a.index) for a in plan.assets] == [("BLUE", 3), ("RED", 1), ("NIR", 2), ("SWIR", 4)]


@pytest.mark.parametrize("collection", ["terrascope-probav-l1c-hdf-v2", "terrascope-probav-l1c-toa-v2"])
def test_proba_v_level_1c_is_on_no_map(collection: str) -> None:
    with pytest.raises(UnitError, match="geometry"):
        plan_item(_vito(collection, "PROBAV_L1C_20160101", "RED NIR"))


@pytest.mark.parametrize(
    ("collection", "item_id", "sensor", "level"),
    [
        ("spot-vgt-s10-toc", "V1KRNS10__20000101F001_V003", "spot-vgt1", "boa"),
        ("terrascope-spot-vgt-p-v1", "V2KRNP____20040101F001_V003", "spot-vgt2", "toa"),
    ],
)
def test_spot_vgt(collection: str, item_id: str, sensor: str, level: str) -> None:
    plan = plan_item(_vito(collection, item_id, "B0 B2 B3 MIR SM OG WVG NDV"))
    assert (plan.sensor, plan.level) == (sensor, level)
    assert [(a.band.name, a.scale, a.offset, a.nodata) for a in plan.assets] == [
        (name, 5e-4, 0.0, 0.0) for name in ("B0", "B2", "B3", "MIR")
    ]
    assert plan.valid == ValidRule("SM", "SM.tif", 0xF0, 0xF0)
    assert [a.good_bit for a in plan.assets] == [7, 6, 5, 4]


def test_hls_s30_of_the_planetary_computer() -> None:
    keys = "B01 B02 B03 B04 B05 B06 B07 B08 B8A B09 B10 B11 B12 Fmask SZA SAA VZA VAA"
    plan = plan_item(_vito("hls2-s30", "HLS.S30.T32TQM.2024001T101431.v2.0", keys))
    assert (plan.sensor, plan.level, plan.catalogue) == ("hls-s30", "boa", "planetary-computer")
    assert len(plan.assets) == 13
    assert {(a.scale, a.offset, a.nodata) for a in plan.assets} == {(1e-4, 0.0, -9999.0)}


@pytest.mark.parametrize(
    ("item_id", "sensor", "band"),
    [
        ("LC09_L2SP_084068_20250722_02_T2", "landsat-9", "B4"),
        ("LC08_L2SP_084068_20150722_02_T2", "landsat-8", "B4"),
        ("LE07_L2SP_021030_20100109_02_T1", "landsat-7", "B3"),
        ("LT05_L2SP_010067_19860424_02_T2", "landsat-5-tm", "B3"),
        ("LT04_L2SP_002026_19830110_02_T1", "landsat-4-tm", "B3"),
        ("LC80140332018166LGN00", "landsat-8", "B4"),
        ("LM05_L1GS_001001_19850524_02_T2", "landsat-4-5-mss", "B2"),
        ("LM01_L1GS_001010_19720908_02_T2", "landsat-1-3-mss", "B5"),
    ],
)
def test_a_landsat_item_that_names_no_platform_is_known_by_its_name(
    item_id: str, sensor: str, band: str
) -> None:
    item = _vito("landsat-c2-l2", item_id, "red")
    item["links"] = [{"rel": "root", "href": "https://earth-search.aws.element84.com/v1"}]
    plan = plan_item(item)
    assert (plan.catalogue, plan.sensor) == ("earth-search-v1", sensor)
    assert (plan.assets[0].band.name, plan.assets[0].scale, plan.assets[0].offset) == (band, 2.75e-5, -0.2)


# --------------------------------------------------------------------------------------------------- CRS


def test_a_crs_that_puts_the_scene_elsewhere_is_not_passed_on() -> None:
    item = _s2(**{"proj:bbox": [443685, -5059215, 681615, -4820685], "proj:epsg": 3271})
    item["bbox"] = [-177.7, -45.7, -174.7, -43.5]
    with pytest.warns(UnitWarning, match=r"S2A_MSIL2A_X.*EPSG:3271.*proj:code"):
        assert plan_item(item).crs is None
    item["properties"]["proj:epsg"] = 32601
    assert plan_item(item).crs == "EPSG:32601"


def test_the_wrong_hemisphere_is_seen() -> None:
    item = _s2(
        **{"proj:transform": [30, 0, 300000, 0, -30, 5000000], "proj:shape": [7000, 7000], "proj:epsg": 32655}
    )
    item["bbox"] = [144.0, -46.0, 147.0, -44.0]
    with pytest.warns(UnitWarning, match="EPSG:32655"):
        assert plan_item(item).crs is None
    item["properties"]["proj:epsg"] = 32755
    assert plan_item(item).crs == "EPSG:32755"


def test_a_scene_across_the_antimeridian_keeps_its_crs() -> None:
    item = _s2(**{"proj:transform": [10, 0, 699960, 0, -10, 8300020], "proj:shape": [10980, 10980]})
    item["properties"]["proj:epsg"] = 32760
    item["bbox"] = [-180.0, -16.4, 180.0, -15.3]
    assert plan_item(item).crs == "EPSG:32760"


def test_assets_in_different_crs_leave_it_open() -> None:
    item = _s2()
    item["assets"]["B04"]["proj:code"] = "EPSG:32632"
    item["assets"]["B05"]["proj:code"] = "EPSG:32633"
    assert plan_item(item, bands=["B04", "B05"]).crs is None


# -------------------------------------------------------------------------------------------------- cost


def test_planning_an_item_takes_few_calls_whatever_came_before() -> None:
    bands = [f"B{i:02d}" for i in range(1, 9)] + ["B8A", "B09", "B11", "B12"]
    item = _s2()
    item["assets"] |= {
        f"{b}{size}": {
            "href": f"{b}{size}.tif",
            "gsd": 10,
            "eo:bands": [{"name": b}],
            "raster:bands": [{"scale": 1e-4, "offset": -0.1}],
        }
        for b in bands
        for size in ("", "_20m", "_60m")
    }

    def planned(first: int, count: int) -> None:
        for i in range(first, first + count):
            plan_item({**item, "id": f"item-{i}"}, bands=bands[:6])

    planned(0, 10)  # imports are done
    early, late = calls(lambda: planned(10, 20)), calls(lambda: planned(30, 20))
    assert abs(early - late) < early / 50
    assert early / 20 < 15_000  # 6,000


def test_an_item_is_read_and_its_bands_are_matched_once() -> None:
    """Whatever `load_stac` does with an item, in its own thread or in others."""
    entered: list[str] = []

    def note(frame: FrameType, event: str, _: Any) -> None:
        if event == "call" and "stac" in frame.f_code.co_filename:
            entered.append(frame.f_code.co_name)

    place = {"proj:shape": [2, 2], "proj:transform": [10, 0, 600000, 0, -10, 4900020]}
    items = [{**_s2(), "id": f"item-{i}"} for i in range(3)]
    for item in items:
        for asset in item["assets"].values():
            asset |= place
    threading.setprofile(note)
    sys.setprofile(note)
    try:
        load_stac(items, bands=["red", "B05"])
    finally:
        sys.setprofile(None)
        threading.setprofile(None)  # type: ignore[arg-type]
    assert entered.count("view_item") == len(items)
    assert entered.count("_rank") == 3 * len(items)  # three assets of each are bands


def test_a_scene_of_no_known_instrument_names_no_sensor() -> None:
    place = {"proj:shape": [2, 2], "proj:transform": [10, 0, 600000, 0, -10, 4900020]}
    bands = {"blue": 490, "green": 560, "red": 660, "nir": 830}
    assets = {
        name: {
            "href": f"{name}.tif",
            "eo:bands": [{"name": name, "common_name": name, "center_wavelength": centre / 1000}],
            "raster:bands": [{"scale": 1e-4, "offset": 0, "nodata": 0}],
            **place,
        }
        for name, centre in bands.items()
    }
    properties = {
        "datetime": "2024-05-01T10:00:00Z",
        "platform": "my-sat",
        "proj:epsg": 32632,
        "processing:level": "L2A",
    }
    scene = load_stac([{"id": "mine", "properties": properties, "assets": assets}])
    assert "sensor" not in scene.attrs
    assert scene.sensor.values.tolist() == [""]
    assert scene.cloudmask.predict(model="spectral").dims == ("time", "y", "x")


# ----------------------------------------------------------------------------- names that count, floats


def _counted(names: list[dict[str, Any]]) -> dict[str, Any]:
    """A Landsat stack in one file, as rio-stac describes it."""
    figures = [{"scale": 2.75e-5, "offset": -0.2, "nodata": 0}] * len(names)
    properties = {"datetime": "2021-07-05T10:02:00Z", "platform": "landsat-8", "landsat:correction": "L2SP"}
    assets = {"asset": {"href": "stack.tif", "eo:bands": names, "raster:bands": figures}}
    return {"id": "LC08_mine", "collection": "mine", "properties": properties, "assets": assets}


@pytest.mark.parametrize("field", ["common_name", "eo:common_name", "description"])
def test_what_a_band_is_called_wins_over_its_number_in_the_file(field: str) -> None:
    names = [{"name": f"b{i}", field: name} for i, name in enumerate(("blue", "green", "red"), start=1)]
    plan = plan_item(_counted(names))
    assert [(asset.band.name, asset.index) for asset in plan.assets if asset.band] == [
        ("B2", 1),
        ("B3", 2),
        ("B4", 3),
    ]


def test_a_number_in_the_file_is_no_band() -> None:
    with pytest.raises(BandError, match=r"'LC08_mine'.*only count a file's bands.*eo:common_name"):
        plan_item(_counted([{"name": f"b{i}"} for i in (1, 2, 3)]))
    item = _counted([{"name": "b1"}])
    item["assets"] = {"SR_B4": item["assets"]["asset"]}
    (asset,) = plan_item(item).assets  # one band a file: the key tells
    assert asset.band is not None
    assert asset.band.name == "B4"


def test_names_that_contradict_each_other_are_an_error_where_they_are_asked_for() -> None:
    item = _counted([{"name": "B2", "common_name": "red"}, {"name": "B3", "common_name": "green"}])
    with pytest.raises(BandError, match=r"'LC08_mine', asset 'asset'.*name says band B2.*'red' says B4"):
        plan_item(item)
    assert [asset.index for asset in plan_item(item, bands=["green"]).assets] == [2]


@pytest.mark.parametrize("collection", ["sentinel-2-l2a", "unheard-of-l2a"])
def test_floating_point_pixels_of_sentinel_2_are_reflectance(collection: str) -> None:
    """Not -999.9: the offset of 1000 is in units of whole numbers."""
    item = _s2()
    item["collection"] = collection
    item["assets"]["B04"]["raster:bands"] = [{"data_type": "float32"}]
    with pytest.warns(UnitWarning, match=r"S2A_MSIL2A_X.*floating point.*offset=\"apply\""):
        (asset,) = plan_item(item, bands=["red"]).assets
    assert (asset.scale, asset.offset) == (1.0, 0.0)
    (asset,) = plan_item(item, bands=["red"], offset="apply").assets
    assert (asset.scale, asset.offset) == (1.0, pytest.approx(-0.1))
    item["assets"]["B04"]["raster:bands"] = [{"data_type": "float32", "offset": -0.1}]
    (asset,) = plan_item(item, bands=["red"]).assets
    assert (asset.scale, asset.offset) == (1.0, -0.1)


@pytest.mark.parametrize("gone", [["earthsearch:boa_offset_applied"], ["s2:processing_baseline"]])
@pytest.mark.parametrize("stated", [-0.1, 0, None])
def test_an_item_of_earth_search_without_its_flag_is_refused(gone: list[str], stated: float | None) -> None:
    """A search with fields= leaves it out, and pixels of both kinds are served."""
    item = _s2(**{"earthsearch:payload_id": "x", "earthsearch:boa_offset_applied": True})
    for name in {"earthsearch:boa_offset_applied", *gone}:
        del item["properties"][name]
    item["assets"]["B04"]["raster:bands"] = [{"scale": 1e-4, "offset": stated}]
    with pytest.raises(UnitError, match=r"S2A_MSIL2A_X.*boa_offset_applied.*fields=.*offset=\"apply\""):
        plan_item(item, bands=["red"])
    assert plan_item(item, bands=["red"], offset="skip").assets[0].offset == 0
    item["properties"] |= {"datetime": "2020-05-01T10:00:00Z", "s2:processing_baseline": "02.14"}
    item["assets"]["B04"]["raster:bands"] = [{"scale": 1e-4, "offset": 0}]
    assert plan_item(item, bands=["red"]).assets[0].offset == 0  # none before 04.00


def test_a_zenith_angle_is_repaired_where_the_items_time_is_that_of_its_strip() -> None:
    """The almanac is 4.8 degrees off then, near the equator in March; the sun's shadows would refuse it."""
    when, seen = (datetime(2025, 3, 13, 7, minute) for minute in (20, 39))
    known, true = (sun_position(time, 0.0, 10.0)[0] for time in (when, seen))
    assert 4 < true - known < 6
    said = {"view:sun_elevation": 90 - true, "datetime": f"{when.isoformat()}Z"}
    item = {**_s2(**said), "bbox": [9.5, -0.5, 10.5, 0.5]}
    assert plan_item(item).sun_elevation == pytest.approx(true)
    item["properties"]["view:sun_elevation"] = true
    assert plan_item(item).sun_elevation == pytest.approx(true)
