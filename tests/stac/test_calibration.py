"""Sentinel-2's offset, row by row of the decision table; Landsat's MTL file and level 1."""

from __future__ import annotations

import json
import math
import warnings
from pathlib import Path
from typing import Any

import pytest

from tests.stac.helpers import plan_item
from xcloudmask.errors import AssetError, UnitError, UnitWarning
from xcloudmask.stac.mtl import IMAGE, RESCALING, THERMAL, mtl_number, parse_mtl

MATERIAL = Path(__file__).parents[3] / "shared" / "stac-items" / "usgs-mtl"
needs_material = pytest.mark.skipif(
    not MATERIAL.is_dir(),
    reason="the real MTL files (../shared/stac-items/usgs-mtl) are not in a user's clone",
)

# -------------------------------------------------------------------------------- Sentinel-2: who are they

OLD, NEW = "2019-06-01T10:00:00Z", "2023-06-01T10:00:00Z"
UNSET: Any = object()

#: Collections as their catalogues mark them; "unlisted" is nobody's.
CATALOGUES: dict[str, tuple[str, dict[str, Any]]] = {
    "earth-search": ("sentinel-2-l2a", {"earthsearch:payload_id": "x"}),
    "collection-1": ("sentinel-2-c1-l2a", {}),
    "planetary-computer": ("sentinel-2-l2a", {"s2:mean_solar_zenith": 40.0}),
    "cdse": ("sentinel-2-l2a", {"eopf:datatake_id": "x"}),
    "terrascope": ("terrascope-s2-toc-v2", {}),
    "unlisted": ("my-s2-l2a", {}),
}


def _item(
    catalogue: str,
    *,
    stated: Any = UNSET,
    flag: bool | None = None,
    baseline: str | None = None,
    sensed: str = NEW,
    jp2: bool = False,
    **properties: Any,
) -> dict[str, Any]:
    collection, marks = CATALOGUES[catalogue]
    band: dict[str, Any] = {"scale": 1e-4, "nodata": 0}
    if stated is not UNSET:
        band["offset"] = stated
    key, href = ("red-jp2", "B04.jp2") if jp2 else ("red", "B04.tif")
    told: dict[str, Any] = {"platform": "sentinel-2a", "datetime": sensed, **marks, **properties}
    if flag is not None:
        told["earthsearch:boa_offset_applied"] = flag
    if baseline is not None:
        told["s2:processing_baseline"] = baseline
    asset = {"href": href, "eo:bands": [{"name": "red", "common_name": "red"}], "raster:bands": [band]}
    return {"id": "S2A_scene", "collection": collection, "properties": told, "assets": {key: asset}}


def _offset(item: dict[str, Any], **options: Any) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a warning nobody expected fails the row
        return plan_item(item, **options).assets[0].offset


# ------------------------------------------------------------------------- Sentinel-2: the table, row by row


@pytest.mark.parametrize(
    ("about", "item", "offset"),
    [
        (
            "earth-search's trap: shifted, and -0.1 stated besides",
            _item("earth-search", flag=True, stated=-0.1, baseline="05.09"),
            0,
        ),
        ("flag true, nothing stated", _item("earth-search", flag=True, baseline="05.09"), 0),
        ("flag true, 0 stated", _item("earth-search", flag=True, stated=0, baseline="05.09"), 0),
        (
            "flag true before 04.00",
            _item("earth-search", flag=True, stated=-0.1, baseline="03.01", sensed=OLD),
            0,
        ),
        (
            "flag true, but the asset is ESA's JPEG 2000",
            _item("earth-search", flag=True, stated=-0.1, baseline="05.09", jp2=True),
            -0.1,
        ),
        (
            "flag false, but ESA's JPEG 2000: no doubt",
            _item("earth-search", flag=False, stated=-0.1, baseline="05.09", jp2=True),
            -0.1,
        ),
        (
            "flag true, ESA's JPEG 2000 before 04.00",
            _item("earth-search", flag=True, stated=0, baseline="03.01", sensed=OLD, jp2=True),
            0,
        ),
        (
            "flag false before 04.00",
            _item("earth-search", flag=False, stated=0, baseline="03.01", sensed=OLD),
            0,
        ),
        (
            "flag false before 04.00, none stated",
            _item("earth-search", flag=False, baseline="03.01", sensed=OLD),
            0,
        ),
        ("Collection 1, stated", _item("collection-1", stated=-0.1, baseline="05.10"), -0.1),
        (
            "Collection 1 of 2019: reprocessed",
            _item("collection-1", stated=-0.1, baseline="05.00", sensed=OLD),
            -0.1,
        ),
        ("Collection 1 of 2019, none stated", _item("collection-1", baseline="05.00", sensed=OLD), -0.1),
        ("stated -0.7 is read", _item("unlisted", stated=-0.7, baseline="04.00"), -0.7),
        ("the baseline alone, new", _item("planetary-computer", baseline="04.00"), -0.1),
        ("the baseline alone, old", _item("planetary-computer", baseline="03.01", sensed=OLD), 0),
        ("old and 0 stated", _item("unlisted", stated=0, baseline="02.14", sensed=OLD), 0),
        ("the generator's constant, new", _item("cdse", stated=-0.1, baseline="05.11"), -0.1),
        ("the generator's constant, old", _item("cdse", stated=-0.1, baseline="02.14", sensed=OLD), 0),
        ("Terrascope, new", _item("terrascope", stated=0, baseline="05.09"), 0),
        ("Terrascope, no baseline", _item("terrascope"), 0),
        ("no baseline, sensed since 2022, stated", _item("unlisted", stated=-0.1), -0.1),
        ("no baseline, sensed before, 0 stated", _item("unlisted", stated=0, sensed=OLD), 0),
        (
            "no baseline, sensed and generated before the switch",
            _item("unlisted", sensed=OLD, **{"s2:generation_time": "2020-01-01T00:00:00Z"}),
            0,
        ),
        (
            "old baseline on the switch's own day",
            _item("planetary-computer", baseline="03.01", sensed="2022-01-25T09:00:00Z"),
            0,
        ),
        ("old baseline and 0 stated, sensed later", _item("unlisted", stated=0, baseline="03.01"), 0),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_offset_is_decided(about: str, item: dict[str, Any], offset: float) -> None:
    assert _offset(item) == pytest.approx(offset, abs=1e-15)


@pytest.mark.parametrize(
    ("about", "item", "offset", "words"),
    [
        (
            "flag false, stated: issues 66 and 71",
            _item("earth-search", flag=False, stated=-0.1, baseline="05.11"),
            -0.1,
            "boa_offset_applied is false",
        ),
        (
            "flag false, none stated",
            _item("earth-search", flag=False, baseline="04.00"),
            -0.1,
            "boa_offset_applied is false",
        ),
        ("unlisted, none stated", _item("unlisted", baseline="05.09"), -0.1, "harmonised"),
        ("by date only", _item("planetary-computer"), -0.1, "no processing baseline"),
        ("unknown, stated", _item("unlisted", stated=-0.1, sensed=OLD), -0.1, "both forms"),
        ("unknown, none stated", _item("planetary-computer", sensed=OLD), 0.0, "both forms"),
        (
            "unknown, generated after the switch",
            _item("planetary-computer", sensed=OLD, **{"s2:generation_time": "2023-01-01"}),
            0.0,
            "both forms",
        ),
        (
            "99.99 tells nothing",
            _item("planetary-computer", baseline="99.99", sensed=OLD),
            0.0,
            "no processing",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_doubtful_offset_is_taken_with_one_warning_that_says_how_to_settle_it(
    about: str, item: dict[str, Any], offset: float, words: str
) -> None:
    with pytest.warns(UnitWarning) as caught:
        plan = plan_item(item)
    assert plan.assets[0].offset == pytest.approx(offset, abs=1e-15)
    (warning,) = caught
    for word in (words, "'S2A_scene'", 'offset="skip"'):
        assert word in str(warning.message)
    assert _offset(item, offset="skip") == 0  # and no warning once it is settled
    assert _offset(item, offset="apply") == -0.1


@pytest.mark.parametrize(
    ("about", "item", "evidence"),
    [
        (
            "0 stated since 04.00",
            _item("unlisted", stated=0, baseline="05.09"),
            ["offset of asset 'red' = 0", "05.09"],
        ),
        (
            "0 stated since 04.00, flag false",
            _item("earth-search", flag=False, stated=0, baseline="05.09"),
            ["earthsearch:boa_offset_applied = False", "05.09"],
        ),
        (
            "0 stated, sensed since 2022",
            _item("unlisted", stated=0),
            ["sensed 2023-06-01", "no processing baseline"],
        ),
        (
            "stated before 04.00",
            _item("unlisted", stated=-0.1, baseline="03.01", sensed=OLD),
            ["offset of asset 'red' = -0.1", "03.01", "sensed 2019-06-01"],
        ),
        (
            "old baseline, sensed later",
            _item("planetary-computer", baseline="03.01", sensed="2022-01-26T09:00:00Z"),
            ["03.01", "sensed 2022-01-26"],
        ),
        (
            "old baseline, stated, sensed later",
            _item("cdse", stated=-0.1, baseline="03.01"),
            ["03.01", "-0.1"],
        ),
        (
            "two baselines",
            _item(
                "planetary-computer",
                baseline="03.01",
                sensed=OLD,
                **{"s2:product_uri": "S2A_MSIL2A_X_N0500_R1_T1_Y.SAFE"},
            ),
            ["03.01", "05.00", "s2:product_uri"],
        ),
        ("Terrascope states one", _item("terrascope", stated=-0.1), ["terrascope-s2-toc-v2", "-0.1"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_contradiction_lists_the_evidence_and_is_settled_by_the_argument(
    about: str, item: dict[str, Any], evidence: list[str]
) -> None:
    with pytest.raises(UnitError) as caught:
        plan_item(item)
    for word in (*evidence, "'S2A_scene'", 'offset="apply"', 'offset="skip"'):
        assert word in str(caught.value)
    assert _offset(item, offset="apply") == -0.1
    assert _offset(item, offset="skip") == 0


def test_the_plan_says_why() -> None:
    plan = plan_item(_item("earth-search", flag=True, stated=-0.1, baseline="05.09"))
    assert plan.offset_rule == "flag: the catalogue shifted these pixels already"
    assert plan.evidence == (
        "earthsearch:boa_offset_applied = True",
        "offset of asset 'red' = -0.1",
        "s2:processing_baseline: processing baseline 05.09",
        "sensed 2023-06-01",
        "collection = sentinel-2-l2a",
    )
    assert plan.baseline == "05.09"
    asked = plan_item(_item("unlisted", stated=-0.7, baseline="04.00"), offset="apply")
    assert (asked.assets[0].offset, asked.offset_rule) == (-0.7, "asked for: apply")


@pytest.mark.parametrize(
    ("where", "value", "baseline"),
    [
        ("s2:processing_baseline", "05.09", "05.09"),
        ("sentinel:processing_baseline", "05.11", "05.11"),
        ("sentinel2:processing_baseline", "04.00", "04.00"),
        ("processing:version", "05.10", "05.10"),
        ("s2:product_uri", "S2A_MSIL2A_20231008T175231_N0509_R141_T13TDE_20231008T233154.SAFE", "05.09"),
        ("sentinel:product_id", "S2A_MSIL2A_20200714T115221_N0214_R123_T28QCH_20200714T191310", "02.14"),
        ("eopf:datatake_id", "GS2C_20260527T014651_008996_N05.12", "05.12"),
    ],
)
def test_a_baseline_is_found_wherever_items_tell_it(where: str, value: str, baseline: str) -> None:
    sensed = OLD if baseline < "04" else NEW
    item = _item("planetary-computer", sensed=sensed, **{where: value})
    assert plan_item(item).baseline == baseline
    assert _offset(item) == (0 if baseline < "04" else -0.1)


def test_bands_that_disagree_are_a_contradiction() -> None:
    item = _item("collection-1", stated=-0.7, baseline="05.09")
    item["assets"]["blue"] = {"href": "b.tif", "raster:bands": [{"scale": 1e-4}]}
    with pytest.raises(UnitError, match=r"'S2A_scene'.*blue none.*red -0.7.*offset="):
        plan_item(item)
    item["assets"]["blue"]["raster:bands"][0]["offset"] = -0.6  # each band its own, all told: read
    assert [a.offset for a in plan_item(item).assets] == [-0.6, -0.7]


def test_a_cog_and_esas_jpeg_in_one_item_each_get_their_own() -> None:
    item = _item("earth-search", flag=True, stated=-0.1, baseline="05.09")
    item["assets"]["blue-jp2"] = {"href": "B02.jp2", "raster:bands": [{"scale": 1e-4, "offset": -0.1}]}
    assert [(a.key, a.offset) for a in plan_item(item).assets] == [("blue-jp2", -0.1), ("red", 0.0)]


def test_the_argument_is_for_sentinel_2_alone() -> None:
    item = _landsat("L2SP", {"raster:bands": [{"scale": 2.75e-5, "offset": -0.2}]})
    assert plan_item(item, offset="skip").assets[0].offset == -0.2


# ------------------------------------------------------------------------------------------------- Landsat

#: The same key in both groups, as a level-2 file has it; only level 1's may be taken here.
MTL: dict[str, dict[str, str]] = {
    "PRODUCT_CONTENTS": {"PROCESSING_LEVEL": "L2SP"},
    "IMAGE_ATTRIBUTES": {"SUN_ELEVATION": "30.0"},
    "LEVEL2_SURFACE_REFLECTANCE_PARAMETERS": {
        "REFLECTANCE_MULT_BAND_4": "2.75e-05",
        "REFLECTANCE_ADD_BAND_4": "-0.2",
    },
    "LEVEL1_RADIOMETRIC_RESCALING": {
        "REFLECTANCE_MULT_BAND_4": "2.0000E-05",
        "REFLECTANCE_ADD_BAND_4": "-0.100000",
        "RADIANCE_MULT_BAND_10": "3.3420E-04",
        "RADIANCE_ADD_BAND_10": "0.10000",
        "RADIANCE_MULT_BAND_6_VCID_1": "6.7087E-02",
        "RADIANCE_ADD_BAND_6_VCID_1": "-0.06709",
        "RADIANCE_MULT_BAND_6_VCID_2": "3.7205E-02",
        "RADIANCE_ADD_BAND_6_VCID_2": "3.16280",
    },
    "LEVEL1_THERMAL_CONSTANTS": {
        "K1_CONSTANT_BAND_10": "774.8853",
        "K2_CONSTANT_BAND_10": "1321.0789",
        "K1_CONSTANT_BAND_6_VCID_1": "666.09",
        "K2_CONSTANT_BAND_6_VCID_1": "1282.71",
        "K1_CONSTANT_BAND_6_VCID_2": "666.09",
        "K2_CONSTANT_BAND_6_VCID_2": "1282.71",
    },
}


def _as_json(groups: dict[str, dict[str, str]]) -> str:
    return json.dumps({"LANDSAT_METADATA_FILE": groups})


def _as_xml(groups: dict[str, dict[str, str]]) -> str:
    body = "".join(
        f"<{g}>{''.join(f'<{k}>{v}</{k}>' for k, v in pairs.items())}</{g}>" for g, pairs in groups.items()
    )
    return f'<?xml version="1.0" encoding="UTF-8"?>\n<LANDSAT_METADATA_FILE>{body}</LANDSAT_METADATA_FILE>'


def _as_text(groups: dict[str, dict[str, str]]) -> str:
    lines = ["GROUP = LANDSAT_METADATA_FILE"]
    for group, pairs in groups.items():
        lines += [
            f"  GROUP = {group}",
            *(f'    {k} = "{v}"' for k, v in pairs.items()),
            f"  END_GROUP = {group}",
        ]
    return "\n".join([*lines, "END_GROUP = LANDSAT_METADATA_FILE", "END", ""])


FORMS = {"json": _as_json, "xml": _as_xml, "txt": _as_text}


def _landsat(level: str, red: dict[str, Any] | None = None, *, sun: float | None = 30.0) -> dict[str, Any]:
    properties = {
        "platform": "LANDSAT_8",
        "instruments": ["OLI", "TIRS"],
        "datetime": "2020-01-01T00:00:00Z",
        "landsat:correction": level,
    }
    if sun is not None:
        properties["view:sun_elevation"] = sun
    return {
        "id": "LC08_scene",
        "collection": "landsat-of-mine",
        "properties": properties,
        "assets": {
            "red": {"href": "x_B4.TIF", "eo:bands": [{"name": "B4", "common_name": "red"}], **(red or {})},
            "qa_pixel": {"href": "x_QA_PIXEL.TIF", "roles": ["cloud"]},
            "MTL.txt": {"href": "x_MTL.txt", "roles": ["metadata"], "type": "text/plain"},
            "MTL.json": {"href": "x_MTL.json", "roles": ["metadata"], "type": "application/json"},
        },
    }


@pytest.mark.parametrize("form", FORMS)
def test_an_mtl_file_is_read_by_group_in_each_of_its_forms(form: str) -> None:
    groups = parse_mtl(FORMS[form](MTL))
    assert mtl_number(groups, RESCALING, "REFLECTANCE_MULT_BAND_4") == 2e-5
    assert (
        mtl_number(groups, ("LEVEL2_SURFACE_REFLECTANCE_PARAMETERS",), "REFLECTANCE_MULT_BAND_4") == 2.75e-5
    )
    assert mtl_number(groups, THERMAL, "K2_CONSTANT_BAND_10") == 1321.0789
    assert mtl_number(groups, IMAGE, "SUN_ELEVATION") == 30.0
    assert mtl_number(groups, IMAGE, "MOON_ELEVATION") is None


@pytest.mark.parametrize(
    "text", ["", "404 not found", "<html><body>no</body></html>", "{]", "<a", "[1]", '{"a": 1}']
)
def test_what_is_no_mtl_file_is_named(text: str) -> None:
    says = r"item 'LC08_scene', asset 'MTL\.json': not a Landsat MTL file.*truncated, or a page that asks"
    with pytest.raises(AssetError, match=says):
        plan_item(_landsat("L1TP"), read_text=lambda href: text)


def test_level_1_reflectance_is_divided_by_the_sine_of_the_suns_elevation() -> None:
    read: list[str] = []

    def read_text(href: str) -> str:
        read.append(href)
        return _as_json(MTL)

    plan = plan_item(_landsat("L1TP"), read_text=read_text)
    (red,) = plan.assets
    assert read == ["x_MTL.json"]  # once, and JSON before text
    assert (red.scale, red.offset) == (pytest.approx(2e-5 / 0.5), pytest.approx(-0.1 / 0.5))
    assert (red.nodata, red.k1, plan.level, plan.sensor) == (0.0, None, "toa", "landsat-8")
    assert plan.sun_elevation == 30.0
    assert plan.valid is not None
    assert (plan.valid.key, plan.valid.mask, plan.valid.expected) == ("qa_pixel", 1, 0)


def test_level_1_temperature_gets_radiance_and_k1_k2() -> None:
    item = _landsat("L1TP")
    item["assets"]["lwir11"] = {"href": "x_B10.TIF", "eo:bands": [{"name": "B10", "common_name": "lwir11"}]}
    thermal = plan_item(item, bands=["lwir11"], read_text=lambda href: _as_xml(MTL)).assets[0]
    assert (thermal.scale, thermal.offset) == (3.3420e-4, 0.1)
    assert (thermal.k1, thermal.k2) == (774.8853, 1321.0789)
    radiance = 25000 * thermal.scale + thermal.offset
    assert 290 < thermal.k2 / math.log(thermal.k1 / radiance + 1) < 300  # kelvin, a warm day


def test_etm_thermal_bands_are_told_by_their_file() -> None:
    item = _landsat("L1TP")
    item["properties"] |= {"platform": "LANDSAT_7", "instruments": ["ETM"]}
    item["assets"] |= {
        "lwir": {"href": "x_B6_VCID_1.TIF", "eo:bands": [{"name": "B6_VCID_1"}]},
        "lwir_high": {"href": "x_B6_VCID_2.TIF?sig=B9.", "eo:bands": [{"name": "B6_VCID_2"}]},
    }
    plan = plan_item(item, bands=["B6_VCID_1", "B6_VCID_2"], read_text=lambda href: _as_text(MTL))
    assert [a.scale for a in plan.assets] == [6.7087e-2, 3.7205e-2]


def test_a_scale_that_is_the_products_comes_with_the_products_offset() -> None:
    item = _landsat("L2SP", {"raster:bands": [{"scale": 2.75e-5}]})
    item["collection"] = "landsat-c2-l2"
    assert plan_item(item).assets[0].offset == -0.2
    item["assets"]["red"]["raster:bands"][0]["scale"] = (
        1e-4  # another scale is another product: STAC's default
    )
    assert plan_item(item).assets[0].offset == 0.0
    item["assets"]["red"]["raster:bands"][0]["offset"] = 0.0
    assert plan_item(item).assets[0].offset == 0.0


def test_level_2_needs_no_file_and_no_sun() -> None:
    item = _landsat("L2SP", {"raster:bands": [{"scale": 2.75e-5, "offset": -0.2, "nodata": 0}]}, sun=None)
    plan = plan_item(item)
    assert (plan.assets[0].scale, plan.assets[0].offset, plan.level) == (2.75e-5, -0.2, "boa")
    assert plan.sun_elevation is None


def test_the_sun_is_taken_from_the_caller_the_item_or_the_file_in_this_order() -> None:
    def scale(sun: float | None, **options: Any) -> float:
        item = _landsat("L1TP", sun=sun)
        return plan_item(item, read_text=lambda href: _as_json(MTL), **options).assets[0].scale

    assert scale(60.0, sun_elevation=90.0) == pytest.approx(2e-5)
    assert scale(60.0) == pytest.approx(2e-5 / math.sin(math.radians(60)))
    assert scale(None) == pytest.approx(2e-5 / 0.5)


def test_no_sun_anywhere_is_an_error_that_names_item_and_argument() -> None:
    groups = {name: pairs for name, pairs in MTL.items() if name != "IMAGE_ATTRIBUTES"}
    with pytest.raises(UnitError, match=r"'LC08_scene'.*sun_elevation="):
        plan_item(_landsat("L1TP", sun=None), read_text=lambda href: _as_json(groups))


@pytest.mark.parametrize("degrees", [-30.7, 0.0, 91.0, math.nan])
def test_a_sun_below_the_horizon_is_an_error(degrees: float) -> None:
    with pytest.raises(UnitError, match=r"'LC08_scene'.*night.*sun_elevation="):
        plan_item(_landsat("L1TP", sun=degrees), read_text=lambda href: _as_json(MTL))


def test_level_1_with_nobody_to_read_the_file_says_what_to_give() -> None:
    with pytest.raises(UnitError, match=r"'LC08_scene'.*'MTL.json'.*read_text="):
        plan_item(_landsat("L1TP"))
    radiance = {
        "raster:bands": [{"scale": 0.66, "offset": 2.0, "unit": "watt/steradian/square_meter/micrometer"}]
    }
    with pytest.raises(UnitError, match=r"asset 'red' states radiance only.*read_text="):
        plan_item(_landsat("L1TP", radiance))


def test_level_1_with_no_mtl_file_names_the_assets() -> None:
    item = _landsat("L1TP")
    del item["assets"]["MTL.txt"], item["assets"]["MTL.json"]
    with pytest.raises(UnitError, match=r"'LC08_scene'.*red, qa_pixel"):
        plan_item(item, read_text=lambda href: _as_json(MTL))


def test_a_band_the_file_does_not_know_is_named() -> None:
    item = _landsat("L1TP")
    item["assets"]["blue"] = {"href": "x_B2.TIF", "eo:bands": [{"name": "B2"}]}
    with pytest.raises(UnitError, match=r"'LC08_scene', asset 'blue'.*REFLECTANCE_MULT_BAND_2"):
        plan_item(item, read_text=lambda href: _as_json(MTL))


def test_a_band_that_was_not_recorded_is_left_out_unless_it_is_asked_for() -> None:
    """In some MSS scenes a band is missing: its coefficients are NULL, its file is there and empty."""
    groups = json.loads(json.dumps(MTL))
    groups["LEVEL1_RADIOMETRIC_RESCALING"]["REFLECTANCE_MULT_BAND_2"] = "NULL"
    item = _landsat("L1TP")
    item["assets"]["blue"] = {"href": "x_B2.TIF", "eo:bands": [{"name": "B2"}]}
    assert [a.key for a in plan_item(item, read_text=lambda href: _as_json(groups)).assets] == ["red"]
    with pytest.raises(UnitError, match=r"'LC08_scene', asset 'blue'.*REFLECTANCE_MULT_BAND_2"):
        plan_item(item, bands=["blue"], read_text=lambda href: _as_json(groups))


def test_collection_1_has_other_names_for_its_groups() -> None:
    groups = {
        "IMAGE_ATTRIBUTES": {"SUN_ELEVATION": "30.0"},
        "RADIOMETRIC_RESCALING": MTL["LEVEL1_RADIOMETRIC_RESCALING"],
        "TIRS_THERMAL_CONSTANTS": MTL["LEVEL1_THERMAL_CONSTANTS"],
    }
    item = _landsat("L1TP")
    item["assets"]["lwir11"] = {"href": "x_B10.TIF", "eo:bands": [{"name": "B10"}]}
    text = json.dumps({"L1_METADATA_FILE": groups})
    red, thermal = plan_item(item, read_text=lambda href: text).assets
    assert (red.scale, thermal.k1) == (pytest.approx(4e-5), 774.8853)


@needs_material
def test_real_mtl_files_read_the_same_in_json_and_xml() -> None:
    twins = [(path, path.with_suffix(".xml")) for path in sorted(MATERIAL.glob("*.json"))]
    assert twins
    for as_json, as_xml in twins:
        ours, theirs = (parse_mtl(path.read_text(encoding="utf-8")) for path in (as_json, as_xml))
        assert ours == theirs


@needs_material
def test_every_real_mtl_file_gives_each_level_its_own_coefficients() -> None:
    for path in sorted(MATERIAL.iterdir()):
        groups = parse_mtl(path.read_text(encoding="utf-8"))
        if "_L2S" in path.name:
            level_2 = mtl_number(
                groups, ("LEVEL2_SURFACE_REFLECTANCE_PARAMETERS",), "REFLECTANCE_MULT_BAND_4"
            )
            assert level_2 == 2.75e-5, path.name
        assert mtl_number(groups, RESCALING, "REFLECTANCE_MULT_BAND_4") != 2.75e-5, path.name


def test_a_catalogue_that_words_an_array_as_a_stores_own_gets_its_offset_decided() -> None:
    item = _item("unlisted", baseline="05.10")
    (asset,) = item["assets"].values()
    place = {"proj:shape": [10, 10], "proj:transform": [10, 0, 5e5, 0, -10, 4e6]}
    said = {"raster:scale": 1e-4, "type": "application/vnd+zarr", "zarr:node_type": "array", **place}
    asset |= {"href": "https://example.com/a.zarr/measurements/r10m/b04", **said}
    with pytest.warns(UnitWarning, match="no offset is stated"):
        assert plan_item(item).assets[0].offset == -0.1
