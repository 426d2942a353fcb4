"""Masks of products, bit by bit against their published tables, and on what real items list."""

import json
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import xcloudmask
from xcloudmask.errors import CloudMaskError, NoDataWarning, OptionError
from xcloudmask.masks import decode
from xcloudmask.masks.products import PRODUCTS

CLEAR, CLOUD, THIN, SHADOW, SNOW, WATER, NONE = 0, 1, 2, 3, 4, 5, 255
SHARED = Path(__file__).parents[3] / "shared"
needs_items = pytest.mark.skipif(
    not (SHARED / "stac-items").is_dir(), reason="the real items (shared/stac-items) are not here"
)


def layer(values, dtype="u2", **attrs):
    return xr.DataArray(np.atleast_1d(np.asarray(values, dtype)), dims="x", attrs=attrs)


def decoded(values, product, dtype="u2", **options):
    return decode(layer(values, dtype), product, **options).values.tolist()


def test_every_code_of_scl():
    """Sen2Cor's classes 0 to 11."""
    want = [NONE, NONE, CLEAR, SHADOW, CLEAR, CLEAR, WATER, NONE, CLOUD, CLOUD, THIN, SNOW]
    assert decoded(range(12), "scl") == want
    assert decoded(range(12), "SCL", unsure="clear")[7] == CLEAR
    assert decoded(range(12), "scl", unsure="cloud")[7] == CLOUD
    assert decoded(range(12, 256), "scl") == [NONE] * 244
    assert decoded([9, np.nan, 7.5], "scl", "f4") == [CLOUD, NONE, NONE]
    mask = decode(layer(range(12)), "scl")
    assert mask.attrs["flag_meanings"] == "clear cloud thin_cloud cloud_shadow snow water no_data"
    assert mask.attrs["flag_values"] == [0, 1, 2, 3, 4, 5, 255]
    assert mask.dtype == np.uint8


def test_every_bit_of_qa_pixel():
    """USGS, Landsat 8-9 Collection 2 Level 2 science product guide, table of QA_PIXEL."""
    of_bit = {0: NONE, 1: CLOUD, 2: THIN, 3: CLOUD, 4: SHADOW, 5: SNOW, 6: CLEAR, 7: WATER}
    for bit, want in of_bit.items():
        assert decoded([1 << bit], "qa_pixel") == [want], bit
    assert set(decoded([1 << bit for bit in range(8, 16)], "qa_pixel")) == {CLEAR}  # confidence only
    assert decoded([2], "qa_pixel", margin=False) == [CLEAR]
    # values of that guide's list: clear, dilated, water, cloud, shadow, snow, cirrus, cirrus and cloud, fill
    values = [21824, 21826, 21952, 22280, 23888, 30048, 54596, 55052, 1]
    assert decoded(values, "qa_pixel") == [CLEAR, CLOUD, WATER, CLOUD, SHADOW, SNOW, THIN, CLOUD, NONE]


def by_bits(value, *bits):
    """The class of the first bit that is set."""
    return next((name for bit, name in bits if value >> bit & 1), CLEAR)


def test_every_value_of_fmask():
    """HLS user guide, quality layer: bit 0 is reserved, 6 and 7 are aerosol, 255 is fill."""
    bits = ((1, CLOUD), (3, SHADOW), (2, CLOUD), (4, SNOW), (5, WATER))
    want = [by_bits(value, *bits) for value in range(255)] + [NONE]
    assert decoded(range(256), "fmask") == want
    without = [by_bits(value, *(pair for pair in bits if pair[0] != 2)) for value in range(255)]
    assert decoded(range(255), "fmask", margin=False) == without


def test_every_value_of_the_l1c_classification_in_one_plane_or_three():
    bits = ((7, NONE), (0, CLOUD), (1, THIN), (2, SNOW))
    want = [by_bits(value, *bits) for value in range(256)]
    assert decoded(range(256), "l1c_classification", "u1") == want
    planes = np.array([[v >> k & 1 for v in range(8)] for k in range(3)], "u1")
    msk_classi = xr.DataArray(planes, dims=("band", "x"), coords={"band": [1, 2, 3]})
    assert decode(msk_classi, "MSK_CLASSI").values.tolist() == want[:8]
    assert decode(msk_classi.T.chunk(), "msk_classi").values.tolist() == want[:8]


def status(value, of_status):
    """Proba-V and SPOT-VGT share bits 3 (land) to 7 (radiometry of each band)."""
    known = of_status(value)
    if known in (CLOUD, SHADOW, SNOW):
        return known
    if value >> 4 == 0:  # no band is good: nothing was measured
        return NONE
    if known == NONE:
        return NONE
    return CLEAR if value >> 3 & 1 else WATER


def test_every_value_of_the_status_map_of_probav():
    """Proba-V products user manual: bits 0-2 are one number."""
    of = {0: CLEAR, 1: SHADOW, 2: NONE, 3: CLOUD, 4: SNOW, 5: NONE, 6: NONE, 7: NONE}
    assert decoded(range(256), "probav") == [status(v, lambda v: of[v & 7]) for v in range(256)]
    assert decoded([0b11111010, 0b11111000, 0b11110000], "probav") == [NONE, CLEAR, WATER]


def test_every_value_of_the_status_map_of_spot_vgt():
    """SPOT-VEGETATION user guide: bits 0-1 are one number, bit 2 is snow beside it."""
    of = {0: CLEAR, 1: SHADOW, 2: NONE, 3: CLOUD}

    def known(value):
        two = of[value & 3]
        return two if two in (CLOUD, SHADOW) else SNOW if value & 4 else two

    assert decoded(range(256), "vgt") == [status(v, known) for v in range(256)]
    assert decoded([0b11111010], "vgt", unsure="cloud") == [CLOUD]
    assert decoded([0b11111111, 0b11111110], "vgt") == [CLOUD, SNOW]


def test_cloud_probability_needs_a_threshold():
    assert decoded([0, 39, 40, 100, 101], "cldprb", "u1") == [CLEAR, CLEAR, CLOUD, CLOUD, NONE]
    assert decoded([0, 64, 65, np.nan], "CLD", "f4", threshold=65) == [CLEAR, CLEAR, CLOUD, NONE]
    assert decode(layer([0], "u1"), "cldprb").attrs["flag_meanings"] == "clear cloud no_data"


def test_it_is_lazy_and_keeps_coordinates_and_declared_gaps():
    da = layer(range(12), "u1", _FillValue=4).assign_coords(x=np.arange(12.0)).chunk(x=5)
    mask = xcloudmask.masks.decode(da, "scl")
    assert mask.chunks == ((5, 5, 2),)
    assert mask.values[4] == NONE
    xr.testing.assert_equal(mask.x, da.x)


def test_attributes_of_cf_and_of_eopf_suffice():
    eopf = layer(range(8), "u1", flag_masks=[1, 2, 4], flag_meanings=["OPAQUE", "CIRRUS", "SNOW_ICE"])
    assert decode(eopf).values.tolist() == decoded(range(8), "l1c_classification")
    synergy = layer(
        range(16), "u1", flag_masks=[3, 3, 3, 3, 4, 8], flag_values=[0, 1, 2, 3, 4, 8],
        flag_meanings="clear shadow uncertain cloud ice_or_snow land",
    )  # fmt: skip
    assert decode(synergy).values.tolist() == [0, 3, 255, 1, 4, 3, 4, 1] * 2
    ours = layer([0, 1, 4, 255], "u1", flag_values=[0, 1, 4, 255], flag_meanings="clear cloud snow no_data")
    assert decode(ours).values.tolist() == ours.values.tolist()


def test_what_tells_nothing_is_refused():
    with pytest.raises(CloudMaskError, match=r"nothing tells what.*Name the product \(scl"):
        decode(layer([0]))
    with pytest.raises(OptionError, match="did you mean 'qa_pixel'"):
        decode(layer([0]), "qa-pixel")
    with pytest.raises(OptionError, match="unknown class 'smoke'"):
        decode(layer([0], flag_values=[0, 1], flag_meanings="clear smoke"))
    for word in ("background", "thin", "thick", "haze"):  # no data, ice, aerosols: who knows
        with pytest.raises(OptionError, match=f"unknown class '{word}'"):
            decode(layer([0], flag_values=[0, 1, 2], flag_meanings=f"{word} clear cloud"))
    with pytest.raises(OptionError, match="unsure"):
        decode(layer([0]), "scl", unsure="snow")
    with pytest.raises(CloudMaskError, match=r"tells nothing of clouds.*QA_PIXEL"):
        decode(layer([0], flag_masks=[1, 32], flag_meanings="ANC_LOST QT_NODATA_PIXELS"))


@pytest.mark.parametrize(
    ("listed", "message"),
    [
        ({"classification:bitfields": [{"name": "cloud", "offset": 16, "length": 1}]}, "bits 16 to 16"),
        ({"flag_masks": [1 << 17], "flag_meanings": "cloud"}, "bits 17 to 17"),
        ({"classification:classes": [{"value": 70_000, "name": "cloud"}]}, "70000.*from 0 to 65535"),
        ({"flag_values": [-1, 0], "flag_meanings": "cloud clear"}, "-1.*from 0 to 65535"),
        ({"classification:bitfields": [{"name": "state", "offset": 0, "length": 2}]}, "has no 'classes'"),
        ({"classification:bitfields": [{"name": "cloud", "length": 1}]}, "has no 'offset'"),
        ({"classification:classes": [{"name": "cloud"}]}, "has no 'value'"),
    ],
)
def test_what_a_foreign_layer_lists_is_checked(listed, message):
    """Bits that are not looked at would read as clear."""
    with pytest.raises(CloudMaskError, match=message):
        decode(layer([0]), listed)


def test_a_named_bit_needs_no_classes():
    bit = {"classification:bitfields": [{"name": "cloud", "offset": 15, "length": 1}]}
    assert decoded([1 << 15, 1], bit) == [CLOUD, CLEAR]


def test_a_code_of_no_data_may_be_any_number():
    signed = layer([-9999, 0, 1], "i2", flag_values=[-9999, 0, 1], flag_meanings="no_data clear cloud")
    assert decode(signed).values.tolist() == [NONE, CLEAR, CLOUD]


@pytest.mark.parametrize("dtype", ["f4", "f8", "i8"])
def test_a_declared_number_is_no_data_in_the_precision_of_the_layer(dtype):
    """In float32, 4294967295 is 4294967296; nothing is warned of."""
    declared = layer([9, 4294967295], dtype, _FillValue=4294967295)
    assert decode(declared, "scl").values.tolist() == [CLOUD, NONE]
    listed = {"flag_values": [70_000, 1], "flag_meanings": "no_data cloud"}
    assert decode(layer([70_000, 1], dtype, **listed)).values.tolist() == [NONE, CLOUD]


@pytest.mark.parametrize("dtype", ["i1", "i2", "f4"])
def test_numbers_below_0_are_told(dtype):
    with pytest.warns(NoDataWarning, match=r"such as -3 are below 0 .* no data \(255\)"):
        assert decoded([9, -3], "scl", dtype) == [CLOUD, NONE]
    assert decode(layer([9, -3], dtype, nodata=-3), "scl").values.tolist() == [CLOUD, NONE]


def test_what_lies_between_codes_is_none():
    """Resampled with bilinear, SCL has fractions, which are none of its codes."""
    assert decoded([8, 8.7, 9.0, 10.5], "scl", "f4") == [CLOUD, NONE, CLOUD, NONE]


@pytest.mark.parametrize("threshold", [None, 0, -1, 101, np.nan, "40"])
def test_a_threshold_is_per_cent(threshold):
    with pytest.raises(OptionError, match="threshold"):
        decoded([50], "cldprb", threshold=threshold)
    assert decoded([99, 100], "cldprb", threshold=np.float32(100)) == [CLEAR, CLOUD]


def assets(*words):
    """Every asset of the real items that lists classes, whose name holds one of the words."""
    for path in sorted((SHARED / "stac-items").rglob("*.json")):
        text = path.read_text(encoding="utf-8")
        if "classification:" not in text:
            continue
        for name, asset in json.loads(text).get("assets", {}).items():
            if any(word in name.lower() for word in words) and "classification:" in json.dumps(asset):
                yield path.stem, asset


@needs_items
def test_the_classes_of_real_landsat_items_are_those_of_the_table():
    every = layer(np.arange(1 << 16))
    table = decode(every, "qa_pixel").values
    kinds = set()
    for name, asset in assets("qa_pixel"):
        bits = {field["offset"] for field in asset["classification:bitfields"] if field["length"] == 1}
        kinds.add((name[:2], tuple(sorted(bits))))
        unused = [bit for bit in (1, 2, 4, 5, 7) if bit not in bits]
        same = (every.values & sum(1 << bit for bit in unused)) == 0
        np.testing.assert_array_equal(decode(every, asset).values[same], table[same], err_msg=name)
    assert {bits for _, bits in kinds} == {(0, 3), (0, 1, 3, 4, 5, 6, 7), (0, 1, 2, 3, 4, 5, 6, 7)}


@needs_items
def test_the_classes_of_real_sentinel_2_items_are_those_of_the_table():
    listed = list(assets("scl"))
    for name, asset in listed:
        assert decode(layer(range(13)), asset).values.tolist() == decoded(range(13), "scl"), name
    assert len(listed) > 20


@needs_items
def test_the_snow_bit_of_real_items_that_call_it_shadow_is_snow():
    """The template of cloud_qa names the class of its snow bit "shadow"."""
    path = SHARED / "stac-items/planetary-computer-templates/landsat-c2-l2/collection-landsat-c2-l2.json"
    listed = json.loads(path.read_text(encoding="utf-8"))["item_assets"]
    snow = next(f for f in listed["cloud_qa"]["classification:bitfields"] if f["name"] == "snow")
    assert snow["classes"][1]["name"] == "shadow"
    values = [0, 1, 2, 4, 8, 16, 32]
    assert decode(layer(values), listed["cloud_qa"]).values.tolist() == [0, 0, 1, 3, 1, 4, 5]
    with pytest.raises(CloudMaskError, match="tells nothing of clouds"):
        decode(layer([0]), listed["qa_aerosol"])


#: What Earth Engine's catalogue calls the parts of these layers, and their words here.
PARTS = {
    "qa_pixel": ("LANDSAT_LC09_C02_T1_L2", "QA_PIXEL", {
        "Fill": "fill", "Dilated Cloud": "dilated_cloud", "Cirrus (high confidence)": "cirrus",
        "Cloud": "cloud",
        "Cloud Shadow": "cloud_shadow", "Snow": "snow", "Water": "water"}),
    "fmask": ("NASA_HLS_HLSL30_v002", "Fmask", {
        "Cloud": "cloud", "Adjacent to cloud/shadow": "adjacent_to_cloud_shadow",
        "Cloud shadow": "cloud_shadow", "Snow/ice": "snow_ice", "Water": "water"}),
}  # fmt: skip


def catalogued(collection, band):
    path = next((SHARED / "stac-items/earthengine" / collection).rglob("*.json"))
    bands = json.loads(path.read_text(encoding="utf-8"))["summaries"]["eo:bands"]
    return next(entry for entry in bands if entry["name"] == band)


@needs_items
@pytest.mark.parametrize("product", PARTS)
def test_the_bits_are_those_of_another_catalogue(product):
    collection, band, words = PARTS[product]
    parts = catalogued(collection, band)["gee:bitmask"]["bitmask_parts"]
    there = {words[p["description"]]: p["first_bit"] for p in parts if p["description"] in words}
    here = {f.words[1]: f.offset for f in PRODUCTS[product].fields if f.length == 1 and 1 in f.words}
    assert there == here


@needs_items
def test_the_numbers_of_the_status_map_and_of_scl_are_those_of_another_catalogue():
    parts = catalogued("VITO_PROBAV_C1_S1_TOC_333M", "SM")["gee:bitmask"]["bitmask_parts"]
    first = {entry["value"]: entry["description"].lower() for entry in parts[0]["values"]}
    assert (parts[0]["first_bit"], parts[0]["bit_count"]) == (0, 3)
    assert first == {0: "clear", **{k: PRODUCTS["probav"].fields[0].words[k] for k in (1, 2, 3, 4)}}
    assert (parts[1]["first_bit"], parts[1]["values"][0]["description"]) == (3, "Sea")
    assert [part["first_bit"] for part in parts[2:]] == [4, 5, 6, 7]
    listed = catalogued("COPERNICUS_S2_SR_HARMONIZED", "SCL")["gee:classes"]
    names = [entry["description"].replace("Cirrus", "Thin cirrus") for entry in listed]
    made = layer(range(1, 12), "u1", flag_values=[entry["value"] for entry in listed],
                 flag_meanings=[name.replace(" / ", " ") for name in names])  # fmt: skip
    assert decode(made).values.tolist() == decoded(range(1, 12), "scl")
