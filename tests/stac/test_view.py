"""One view of an item, whatever its version."""

import pytest

from xcloudmask.stac.view import access_of, view_item


def entry(asset, **properties):
    item = {"id": "a", "properties": properties, "assets": {"red": {"href": "a.tif", **asset}}}
    return view_item(item).assets["red"].bands[0]


def test_bands_inherit_what_their_asset_or_item_states_in_stac_1_1():
    """common-metadata.md of STAC 1.1: fields on the asset hold for all its bands, and a band's own win."""
    shared = {
        "eo:common_name": "red",
        "raster:scale": 1e-4,
        "raster:offset": -0.1,
        "nodata": 0,
        "data_type": "uint16",
    }
    told = {"common_name": "red", "scale": 1e-4, "offset": -0.1, "nodata": 0.0, "data_type": "uint16"}
    for bands in ({}, {"bands": [{"name": "B04"}]}, {"bands": [{}]}):
        found = entry({**shared, **bands})
        assert {name: getattr(found, name) for name in told} == told
    own = entry({**shared, "bands": [{"eo:common_name": "nir", "raster:scale": 2e-4}]})
    assert (own.common_name, own.scale, own.offset) == ("nir", 2e-4, -0.1)
    assert entry({"bands": [{"name": "B04"}]}, **{"raster:scale": 3e-4}).scale == 3e-4


@pytest.mark.parametrize(("stated", "micrometres"), [(0.4427, 0.4427), (442.7, 0.4427), (10.9, 10.9)])
def test_wavelengths_in_nanometres_are_what_they_are(stated, micrometres):
    assert entry({"bands": [{"center_wavelength": stated}]}).center_um == pytest.approx(micrometres)


def test_the_text_null_says_nothing():
    view = view_item(
        {"id": "a", "properties": {"datetime": "null", "start_datetime": "2025-01-13"}, "assets": {}}
    )
    assert view.text("datetime", "start_datetime") == "2025-01-13"


@pytest.mark.parametrize(
    ("asset", "properties", "words"),
    [
        ({}, {}, ""),
        ({"storage:platform": "OVHcloud", "storage:requester_pays": True}, {},
         "storage: platform OVHcloud, requester_pays True"),
        ({"storage:refs": ["x", "y"]}, {"storage:schemes": {"x": {"type": "s3"}}}, "storage: type s3"),
        ({}, {"auth:schemes": {"oidc": {"type": "openIdConnect"}}}, "auth: type openIdConnect"),
        ({"auth:refs": []}, {"auth:schemes": {"oidc": {"type": "openIdConnect"}}}, ""),
        ({"auth:refs": ["s3"]}, {"auth:schemes": {"s3": {"type": "s3"}}}, "auth: type s3"),
    ],
)  # fmt: skip
def test_storage_and_authentication_are_worded(asset, properties, words):
    assert access_of(asset, properties) == words


def test_a_zip_of_a_store_is_no_store() -> None:
    hrefs = {"zip": "https://a/b.zarr.zip", "group": "https://a/b.zarr/r10m?sig=1"}
    view = view_item({"id": "a", "properties": {}, "assets": {k: {"href": v} for k, v in hrefs.items()}})
    assert [view.assets[key].is_zarr for key in hrefs] == [False, True]
