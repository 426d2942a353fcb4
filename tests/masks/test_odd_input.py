"""Sizes, layers and lists that nobody should pass, and somebody will: an answer at once, or a named error."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from xcloudmask import masks
from xcloudmask.errors import CloudMaskError, CloudMaskWarning, NoDataWarning, OptionError


@pytest.fixture
def mask() -> xr.DataArray:
    codes = np.zeros((12, 15), np.uint8)
    codes[2, 3], codes[9, 1] = 1, 255
    return xr.DataArray(
        codes, dims=("y", "x"), coords={"y": 10.0 * np.arange(12), "x": 10.0 * np.arange(15)},
        attrs={"flag_values": [0, 1], "flag_meanings": "clear cloud"},
    )  # fmt: skip


@pytest.mark.parametrize("size", ["1000000000000 px", "400000000 km"])
def test_a_buffer_beyond_the_scene_covers_it(mask, size):
    wide = mask.cloudmask.clean(buffer=size)
    assert wide.values.tolist() == np.where(mask == 255, 255, 1).tolist()


@pytest.mark.parametrize("step", ["close", "open"])
def test_a_distance_far_beyond_the_scene_is_refused(mask, step):
    with pytest.raises(CloudMaskError, match=f"{step}='1000 px' is 1,000 pixels, and the scene has 20"):
        mask.cloudmask.clean(**{step: "1000 px"})
    assert mask[:2, :2].cloudmask.clean(**{step: "200 m"}).shape == (2, 2)


def test_a_mask_without_pixels_stays_one(mask):
    assert mask[:0].cloudmask.clean(sieve=3, close=2).shape == (0, 15)


def test_what_lies_between_two_codes_is_no_data():
    layer = xr.DataArray([[3.0, 3.5, 9.0, np.nan, 8.99]], dims=("y", "x"))
    assert masks.decode(layer, "scl").values.tolist() == [[3, 255, 1, 255, 255]]


LISTS = {
    "classification:classes": [
        [1, 2],
        [{"value": "a", "name": "cloud"}],
        [{"value": 1}],
        [{"value": 1, "name": 5}],
    ],
    "classification:bitfields": [[{"offset": 0}], [3], 5],
}


@pytest.mark.parametrize(("key", "value"), [(key, value) for key in LISTS for value in LISTS[key]])
def test_lists_of_classes_that_are_damaged_are_named(mask, key, value):
    with pytest.raises(
        CloudMaskError,
        match=r"list of the classes of this layer is damaged|of the layer.s classification has no",
    ):
        masks.decode(mask, {key: value})


@pytest.mark.parametrize("attrs", [
    {"flag_masks": [8, 16, 32], "flag_meanings": "cloud shadow"}, {"flag_values": [1], "flag_meanings": 5},
])  # fmt: skip
def test_attributes_that_are_damaged_are_named(mask, attrs):
    with pytest.raises(
        CloudMaskError,
        match=r"list of the classes of this layer is damaged|of the layer.s classification has no",
    ):
        masks.decode(mask.drop_attrs().assign_attrs(attrs))


def test_options_and_layers_that_are_none_are_refused(mask):
    for layer, product, options, says in (
        (mask, 5, {}, "unknown product 5"),
        (mask.astype(str), "scl", {}, "unknown dtype of the layer"),
        (mask, "cldprb", {"threshold": 400}, "unknown threshold 400"),
        (mask, "cldprb", {"threshold": "x"}, "unknown threshold 'x'"),
    ):
        with pytest.raises(CloudMaskError, match=says):
            masks.decode(layer, product, **options)


def test_numbers_of_more_than_16_bits_are_named(mask):
    layer = xr.DataArray(np.array([[70000, 9, -1]], "i4"), dims=("y", "x"), attrs={"_FillValue": -1})
    with pytest.warns(NoDataWarning, match="numbers such as 70000 are below 0 or have more than 16 bits"):
        assert masks.decode(layer, "scl").values.tolist() == [[255, 1, 255]]
    declared = layer.assign_attrs(nodata=70000)
    assert masks.decode(declared, "scl").values.tolist() == [[255, 1, 255]]


@pytest.mark.parametrize("lazy", [False, True])
def test_a_distance_that_reaches_no_pixel_is_told(mask, lazy):
    mask = mask.chunk() if lazy else mask
    with pytest.warns(CloudMaskWarning, match=r"buffer=4 m is 0.4 pixels.*changes nothing"):
        assert mask.cloudmask.clean(buffer="4 m").equals(mask)
    with pytest.warns(CloudMaskWarning, match=r"buffer='4 m' is 0.4 pixels"):
        mask.cloudmask.apply(mask, buffer="4 m")
    assert int((mask.cloudmask.clean(buffer="10 m") == 1).sum()) == 5


def test_numbers_that_are_none_are_told_by_name(mask):
    scene = mask.drop_attrs().expand_dims(band=["nir"]).astype("f4").cloudmask.describe(level="L2A")
    for options in ({"rise": "x"}, {"least": None}, {"spread": True}):
        with pytest.raises(OptionError, match=f"unknown {next(iter(options))} .*Give a number above 0"):
            scene.cloudmask.time_rules(mask, **options)
    view, its_mask = (
        each.expand_dims(time=[np.datetime64("2026-05-01", "ns")]).assign_attrs(each.attrs)
        for each in (scene, mask)
    )
    with pytest.raises(OptionError, match="unknown quality of composite 'x'"):
        view.cloudmask.composite(its_mask, "best", quality="x")
    for sun in ((50, 400), (150, 140), (50, 140, 3), "x"):
        with pytest.raises(OptionError, match="unknown sun"):
            mask.cloudmask.cast_shadow(scene, sun=sun)
