"""load_stac: what it says of itself, which bands it takes, and what it does with odd items."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import rioxarray
import xarray as xr
from affine import Affine

from tests.stac import scenes
from tests.stac.helpers import ENGINES, equal, occur_in, warns
from tests.stac.scenes import known, landsat1, landsat2, numbers, probav, sentinel2
from xcloudmask.errors import AssetError, BandError, CloudMaskError, NoDataWarning, OptionError, UnitError
from xcloudmask.stac import load_stac
from xcloudmask.stac.bands import choose_bands

# ------------------------------------------------------------------------------------------------ description


def test_the_result_describes_itself(site, engine):
    scene = sentinel2(site, "earth-search-c1")
    da = load_stac([scene.item], engine=engine)
    assert da.dims == ("time", "band", "y", "x")
    assert da.band.values.tolist() == ["blue", "green", "red", "nir", "swir16", "swir22"]
    assert da.band_name.values.tolist() == ["B02", "B03", "B04", "B08", "B11", "B12"]
    assert da.common_name.values.tolist() == da.band.values.tolist()
    assert da.center_wavelength.sel(band="red").item() == pytest.approx(0.6646, abs=2e-3)
    assert da.full_width_half_max.sel(band="red").item() == pytest.approx(0.031, abs=4e-3)
    assert 640 < da.min_nm.sel(band="red").item() < da.max_nm.sel(band="red").item() < 690
    assert da.gsd.values.tolist() == [10, 10, 10, 10, 20, 20]
    assert set(da.kind.values) == {"reflectance"}
    assert da.item_id.values.tolist() == [scene.item["id"]]
    own = [link["href"] for link in scene.item.get("links", ()) if link["rel"] == "self"]
    assert da.item_href.values.tolist() == (own or [""])
    assert da.sensor.values.tolist() == ["sentinel-2a"]
    assert da.attrs == {"level": "boa", "sensor": "sentinel-2a"}
    assert da.rio.crs.to_epsg() == 32632
    assert da.time.values[0] == np.datetime64("2024-05-17T10:10:31", "ns")
    assert (da.x.values[0], da.y.values[0]) == (600005.0, 4900015.0)
    assert da.rio.resolution() == (10.0, -10.0)
    assert [str(c.dtype) for c in da.coords.values() if c.dtype == object] == ["object"] * 7
    for coord in da.coords.values():
        assert all(type(value) is str for value in coord.values.flat if coord.dtype == object)


def test_the_suns_angles_come_along_and_of_tiles_their_mean(site):
    scene, tile = landsat2(site, "planetary-computer").item, sentinel2(site, "earth-search-c1").item
    assert not {"sun_elevation", "sun_azimuth"} & set(load_stac([tile]).coords)
    other = copy.deepcopy(tile)
    other["id"] += "-b"
    tile["properties"] |= {"view:sun_elevation": 61.0, "view:sun_azimuth": 350.0}
    other["properties"] |= {"view:sun_elevation": 63.0, "view:sun_azimuth": 20.0}
    both = load_stac([tile, other, scene], duplicates="keep", mosaic="day", bands=["red"])
    assert both.sun_elevation.values.tolist() == [60.5, 62.0]  # Landsat came first
    np.testing.assert_allclose(both.sun_azimuth, [np.nan, 5.0])


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_the_result_can_be_written_and_read_back(site, engine, zarr_format, tmp_path):
    da = load_stac([sentinel2(site, "cdse").item], engine=engine)
    store = tmp_path / "scene.zarr"
    da.to_zarr(store, zarr_format=zarr_format, consolidated=False)
    back = xr.open_zarr(store, consolidated=False, decode_coords="all")["reflectance"]
    xr.testing.assert_equal(back.compute(), da.compute())
    assert back.attrs["level"] == "boa"
    assert back.sel(band="red").center_wavelength == da.sel(band="red").center_wavelength


def test_two_sensors_on_one_grid(site, engine):
    s2, landsat = sentinel2(site, "earth-search-c1"), landsat2(site, "planetary-computer")
    da = load_stac([s2.item, landsat.item], engine=engine)
    assert da.band.values.tolist() == ["blue", "green", "red", "nir", "swir16", "swir22"]
    assert da.common_name.values.tolist()[3:5] == ["", "swir16"]  # B08 and B5 have different ones
    blue = [da.isel(band=0)[name].item() for name in ("min_nm", "max_nm")]
    each = [load_stac([one.item]).isel(band=0) for one in (s2, landsat)]
    assert blue == [min(one.min_nm.item() for one in each), max(one.max_nm.item() for one in each)]
    assert da.sensor.values.tolist() == ["landsat-8", "sentinel-2a"]
    assert "sensor" not in da.attrs
    assert da.rio.resolution() == (10.0, -10.0)
    s2_red = da.sel(band="red").isel(time=1).sel(x=slice(scenes.LEFT, None), y=slice(scenes.TOP, None))
    equal(s2_red[:288, :288], s2.expected["red"])
    # Landsat's pixels begin 15 m further out: each 10 m pixel takes the one that holds its centre.
    column = ((da.x.values - (scenes.LEFT - 15)) // 30).astype(int)
    row = ((scenes.TOP + 15 - da.y.values) // 30).astype(int)
    inside = np.ix_(*((0 <= at) & (at < scenes.SIZE_30) for at in (row, column)))  # noqa: SIM300
    want = landsat.expected["red"][np.ix_(row[inside[0].ravel()], column[inside[1].ravel()])]
    equal(da.sel(band="red").isel(time=0).values[inside], want)


# ------------------------------------------------------------------------------------------------------ bands


def test_bands_are_found_by_any_name(site):
    scene = sentinel2(site, "planetary-computer")
    da = load_stac([scene.item], bands=["B04", "nir", "B11"])
    assert da.band.values.tolist() == ["red", "nir", "swir16"]
    assert load_stac([scene.item], bands="red").band.values.tolist() == ["red"]
    assert load_stac([scene.item], bands="all").sizes["band"] == 6


def test_auto_takes_the_same_near_infrared_of_all_sensors():
    from xcloudmask import sensors

    all_bands = {name: sensors.get(name).bands for name in ("sentinel-2a", "landsat-8", "proba-v")}
    labels = [choice.label for choice in choose_bands(dict(list(all_bands.items())[:2]), "auto")]
    assert labels == ["blue", "green", "red", "nir08", "swir16", "swir22"]
    labels = [choice.label for choice in choose_bands(all_bands, "auto")]
    assert labels == ["blue", "red", "nir", "swir16"]
    only = {"sentinel-2a": all_bands["sentinel-2a"]}
    assert [choice.label for choice in choose_bands(only, "auto")][3] == "nir"


def test_auto_takes_what_the_sensor_has(site):
    da = load_stac([probav(site).item])
    assert da.band.values.tolist() == ["blue", "red", "nir", "swir16"]
    assert load_stac([landsat2(site, "usgs").item]).band.values.tolist()[3] == "nir08"


@pytest.mark.parametrize(
    ("bands", "error", "says"),
    [
        (["rde"], OptionError, "did you mean 'red'"),
        (["red", "B04"], BandError, "more than once"),
        ([], BandError, r"bands=\[\] names no band\. sentinel-2a has blue, green"),
    ],
)
def test_wrong_bands_are_told(site, bands, error, says):
    with pytest.raises(error, match=says):
        load_stac([sentinel2(site, "earth-search-c1").item], bands=bands)


def test_bands_of_no_known_instrument_are_told_as_such():
    from xcloudmask.types import Band

    item = {"unknown": (Band("B4", "red"),)}
    with pytest.raises(OptionError, match=r"^unknown band 'junk'\. Allowed: red, B4\."):
        choose_bands(item, ["junk"])
    with pytest.raises(
        OptionError, match=r"^unknown band 'junk'\. An item of no known instrument has no band"
    ):
        choose_bands({"unknown": ()}, ["junk"])
    with pytest.raises(BandError, match=r"names no band\. an item of no known instrument has red\."):
        choose_bands(item, [])


def test_no_band_in_common(site):
    scene = sentinel2(site, "earth-search-c1").item
    scene["assets"] = {"rededge1": {**scene["assets"]["red"], "eo:bands": [{"name": "B05"}]}}
    with pytest.raises(BandError, match="sentinel-2a has"):
        load_stac([scene])


# ----------------------------------------------------------------------------------------- items that are odd


def test_empty_search_is_told():
    with pytest.raises(CloudMaskError, match="there are no items"):
        load_stac([])
    with pytest.raises(OptionError, match="unknown items"):
        load_stac("https://example.com/search")


def test_duplicates_are_loaded_once(site, engine):
    scene = sentinel2(site, "earth-search-c1")
    da = load_stac([scene.item, copy.deepcopy(scene.item)], engine=engine)
    assert da.sizes["time"] == 1
    changed = copy.deepcopy(scene.item)
    changed["properties"]["updated"] = "2025-01-01T00:00:00Z"
    changed["assets"]["red"]["href"] = changed["assets"]["nir"]["href"]
    for items in ([changed, scene.item], [scene.item, changed]):
        with warns(UserWarning, f"{scene.item['id']}.*occurs twice"):
            da = load_stac(items, bands=["red"], engine=engine)
        equal(da[0, 0], scene.expected["nir"])


def test_an_older_processing_is_left_out(site):
    date = "2021-05-17T10:10:31Z"
    old = sentinel2(site, "planetary-computer", baseline="03.00", has_offset=False, date=date)
    new = sentinel2(site, "planetary-computer", baseline="05.00", date=date)
    with warns(UserWarning, r"0300.*older processing.*baseline 03.00.*0500.*05.00"):
        da = load_stac([old.item, new.item], bands=["red"])
    assert da.item_id.values.tolist() == [new.item["id"]]
    both = load_stac([old.item, new.item], bands=["red"], duplicates="keep")
    equal(both[0, 0], old.expected["red"])
    equal(both[1, 0], new.expected["red"])


def test_mixed_levels_are_an_error(site):
    toa, boa = sentinel2(site, "cdse", level="toa"), sentinel2(site, "cdse")
    with pytest.raises(UnitError, match="level='toa' or level='boa'"):
        load_stac([toa.item, boa.item])
    assert load_stac([toa.item, boa.item], level="L1C").item_id.values.tolist() == [toa.item["id"]]
    with pytest.raises(CloudMaskError, match="no item is of level='boa'"):
        load_stac([toa.item], level="boa")


def test_items_in_two_utm_zones(site):
    """The most frequent CRS is taken, with a warning; crs= settles it quietly."""
    here = [sentinel2(site, "cdse", unit=unit) for unit in "AB"]
    # The same ground seen from zone 33: about 480 km west of its central meridian.
    there = sentinel2(site, "cdse", unit="C", epsg=32633, left=120600, top=4910000)
    items = [scene.item for scene in (*here, there)]
    there.item.pop("bbox"), there.item.pop("geometry")
    with warns(UserWarning, r"several CRSs: EPSG:32632 \(2\), EPSG:32633 \(1\)"):
        load_stac(items)
    loaded = [load_stac(items, bands=["red"], crs=32632, engine=engine).compute() for engine in ENGINES]
    assert loaded[0].identical(loaded[1])
    seen = loaded[0].sel(time=loaded[0].sensor == "sentinel-2c").values
    assert occur_in(seen, there.expected["red"])
    assert np.isclose((~np.isnan(seen)).sum(), (~np.isnan(there.expected["red"])).sum(), rtol=0.02)


def test_across_the_antimeridian(site, engine):
    """A box from 179.99 E to 179.99 W is one small box, not the way round the globe."""
    from pyproj import Transformer

    scene = sentinel2(site, "cdse", epsg=32701, left=179000, top=8119980)
    corners = Transformer.from_crs(32701, 4326, always_xy=True).transform(
        [179000, 181880], [8119980, 8117100]
    )
    (west, east), (north, south) = corners
    assert 179 < west < 180
    assert -180 < east < -179  # the file lies on both sides
    scene.item.update(scenes.outline(west, south, east, north))
    scene.item["geometry"] = None
    whole = load_stac([scene.item], bands=["red"], engine=engine)
    equal(whole[0, 0], scene.expected["red"])
    crossing = (179.995, south + 0.01, -179.995, north - 0.01)
    part = load_stac([scene.item], bands=["red"], engine=engine, bbox=crossing)
    assert 90 < part.sizes["x"] < 130  # 0.01 degrees are 1.06 km
    xr.testing.assert_equal(part.compute(), whole.sel(x=part.x, y=part.y).compute())
    # The same where only the item's box in degrees tells where it lies.
    for asset in scene.item["assets"].values():
        del asset["proj:transform"], asset["proj:shape"]
    vague = load_stac([scene.item], bands=["red"], engine=engine, bbox=crossing, resolution=10)
    xr.testing.assert_equal(vague.compute(), part.compute())
    with pytest.raises(CloudMaskError, match="antimeridian"):
        load_stac([scene.item], bbox=crossing, crs=4326, resolution=0.001)


def test_items_beside_the_grid_are_left_out(site):
    near = sentinel2(site, "cdse")
    far = sentinel2(site, "cdse", unit="B", left=scenes.LEFT + 50000)
    bbox = (10.260, 44.235, 10.262, 44.237)
    assert load_stac([near.item, far.item], bbox=bbox).item_id.values.tolist() == [near.item["id"]]
    with pytest.raises(CloudMaskError, match="none of the 1 items touches the grid"):
        load_stac([far.item], bbox=bbox)


def test_items_without_proj_are_placed_by_the_headers_of_their_files(site, engine):
    """One warning for all; where a header cannot be read, crs= is asked for, as is always possible."""
    scene = sentinel2(site, "earth-search-c1")
    whole = load_stac([scene.item], bands=["red", "swir16"], engine=engine)
    bare = copy.deepcopy(scene.item)
    for place in (bare["properties"], *bare["assets"].values()):
        for name in [name for name in place if name.startswith("proj:")]:
            del place[name]
    other = {**copy.deepcopy(bare), "id": "other"}
    with warns(UserWarning, r"2 items.*no proj:code.*headers of the files were read"):
        found = load_stac([bare, other], bands=["red", "swir16"], engine=engine, duplicates="keep")
    for step in found:
        np.testing.assert_array_equal(step.values, whole[0].values)
    np.testing.assert_array_equal(found.x, whole.x)
    np.testing.assert_array_equal(found.y, whole.y)
    for asset in bare["assets"].values():
        asset["href"] = asset["href"].replace(".tif", ".gone.tif")
    with pytest.raises(CloudMaskError, match=r"tells its CRS .*pass crs= and resolution="):
        load_stac([bare])
    scene = sentinel2(site, "earth-search-c1")
    del scene.item["properties"]["proj:epsg"]
    da = load_stac([scene.item], bands=["red"], crs=32632, resolution=10, engine=engine,
                   bbox=(10.260, 44.235, 10.262, 44.237))  # fmt: skip
    rows = np.round((scenes.TOP - da.y.values) / 10 - 0.5).astype(int)
    columns = np.round((da.x.values - scenes.LEFT) / 10 - 0.5).astype(int)
    equal(da[0, 0], scene.expected["red"][np.ix_(rows, columns)])


@pytest.mark.parametrize("stated", [True, False])
def test_pixels_of_landsat_without_a_crs_stay_where_they_are(site, engine, stated):
    """Its edges lie 15 m beside the multiples of 30: a transform says so, or the sensor's table."""
    scene = landsat2(site, "planetary-computer")
    del scene.item["properties"]["proj:epsg"]
    if not stated:
        del scene.item["properties"]["proj:transform"]
    da = load_stac([scene.item], bands=["red"], crs=32632, resolution=30, engine=engine)
    assert da.x.values[0] % 30 == 0  # the centre
    inside = da[0, 0].sel(x=slice(scenes.LEFT - 15, None), y=slice(scenes.TOP + 15, None))[:96, :96]
    equal(inside, scene.expected["red"])


def test_a_crs_of_any_authority_is_a_grid(site, engine):
    """ESRI:102013 is Europe's equal-area conic, which EPSG does not have."""
    scene = sentinel2(site, "earth-search-c1")
    given = load_stac([scene.item], bands=["red"], crs="ESRI:102013", resolution=10, engine=engine)
    assert given.rio.crs.to_authority() == ("ESRI", "102013")
    whole = load_stac([scene.item], bands=["red"], engine=engine)
    assert occur_in(given.values, whole.values)
    assert np.isfinite(given).mean() > 0.5


def unplaced(site, transform):
    """A scene whose item says nothing of where its one file lies."""
    scene = landsat2(site, "planetary-computer")
    del scene.item["properties"]["proj:epsg"], scene.item["properties"]["proj:transform"]
    pixels = numbers("elsewhere", 96, 8000, 40000)
    href, path = site.write("elsewhere.tif", pixels, transform, "EPSG:32632", nodata=0)
    scene.item["assets"] = {"red": scene.item["assets"]["red"] | {"href": href}}
    return scene.item, path, known(pixels, 2.75e-5, -0.2)


def test_pixels_between_those_of_the_grid_are_named_when_they_are_read(site, engine):
    """A copy of Landsat on another grid: only the file tells, and nobody asked for that."""
    item, path, expected = unplaced(site, Affine(30, 0, scenes.LEFT, 0, -30, scenes.TOP))
    da = load_stac([item], bands=["red"], crs=32632, resolution=30, engine=engine)
    with warns(NoDataWarning, r"'LC08_.*lie 15 m beside those of .*like=rioxarray"):
        da.compute()
    da = load_stac([item], bands=["red"], like=rioxarray.open_rasterio(path), engine=engine)
    equal(da[0, 0], expected)  # warnings are errors


def test_where_no_table_tells_either_the_edges_are_named_at_once(site, engine):
    item, _, _ = unplaced(site, Affine(30, 0, scenes.LEFT - 15, 0, -30, scenes.TOP + 15))
    item["properties"] |= {"platform": "my-sat", "instruments": ["my-camera"], "processing:level": "L2A"}
    item["collection"], item["id"] = "my-collection", "my-scene"
    with warns(UserWarning, r"no proj:transform says .* multiples of 30 .*like=rioxarray"):
        load_stac([item], bands=["red"], crs=32632, resolution=30, engine=engine)


def test_a_file_in_another_crs_than_the_item_says_is_an_error(site, engine):
    scene = sentinel2(site, "cdse")
    scene.item.pop("bbox"), scene.item.pop("geometry")
    for asset in scene.item["assets"].values():
        asset["proj:code"] = "EPSG:32633"
    da = load_stac([scene.item], bands=["red"], engine=engine)
    with pytest.raises(AssetError, match=rf"{scene.item['id']}.*EPSG:32632.*item says EPSG:32633.*proj:code"):
        da.compute()
    da = load_stac([scene.item], bands=["red"], engine=engine, on_error="skip")
    with warns(NoDataWarning, "EPSG:32633"):
        assert np.isnan(da.values).all()


def test_no_sun_elevation_is_told_and_can_be_given(site, engine):
    scene = landsat1(site, sun=False)
    name = scene.item["id"]
    with pytest.raises(UnitError, match=rf"{name}.*sun_elevation="):
        load_stac([scene.item], engine=engine)
    for given in (41.25, {name: 41.25}):
        da = load_stac([scene.item], bands=["red"], sun_elevation=given, engine=engine)
        equal(da[0, 0], scene.expected["red"])


def test_a_band_that_an_item_lacks(site, engine):
    whole, partial = (
        sentinel2(site, "earth-search-c1"),
        sentinel2(site, "earth-search-c1", date="2024-05-20T10:10:31Z"),
    )
    del partial.item["assets"]["swir22"]
    items = [whole.item, partial.item]
    with pytest.raises(AssetError, match=rf"{partial.item['id']}.*no asset for band 'swir22'"):
        load_stac(items, engine=engine)
    with warns(NoDataWarning, rf"{partial.item['id']}.*swir22"):
        da = load_stac(items, engine=engine, on_error="skip")
    assert np.isnan(da.sel(band="swir22").isel(time=1)).all()
    equal(da.sel(band="swir22").isel(time=0), whole.expected["swir22"])
    equal(da.sel(band="red").isel(time=1), partial.expected["red"])


def test_every_form_of_items_is_taken(site):
    import pystac

    scene = sentinel2(site, "earth-search-c1")
    plain = scene.item
    item = pystac.Item.from_dict(copy.deepcopy(plain))
    want = load_stac([plain], bands=["red"]).compute()
    for form in (
        plain, item, [item], (one for one in [plain]), pystac.ItemCollection([item]),
        {"type": "FeatureCollection", "features": [plain]},
    ):  # fmt: skip
        assert load_stac(form, bands=["red"]).compute().identical(want)


def test_modifier_and_patch_url_do_not_touch_the_callers_items(site, engine):
    scene = sentinel2(site, "earth-search-c1")
    before = copy.deepcopy(scene.item)

    def hide(item):
        for asset in item["assets"].values():
            asset["href"] = "gone:" + asset["href"]

    da = load_stac([scene.item], bands=["red"], modifier=hide, engine=engine,
                   patch_url=lambda url: url.removeprefix("gone:"))  # fmt: skip
    assert scene.item == before
    equal(da[0, 0], scene.expected["red"])


def test_multi_band_file(site, engine):
    pixels = np.stack([scenes.numbers(name, 64, 1200, 9000) for name in ("b", "g", "r")])
    href, _ = site.write("stack.tif", pixels, Affine(10, 0, scenes.LEFT, 0, -10, scenes.TOP), "EPSG:32632", 0)
    scene = sentinel2(site, "earth-search-c1").item
    names = ("blue", "green", "red")
    scene["assets"] = {"stack": {
        "href": href, "proj:shape": [64, 64], "proj:transform": [10, 0, scenes.LEFT, 0, -10, scenes.TOP],
        "eo:bands": [{"name": name, "common_name": name} for name in names],
        "raster:bands": [{"scale": 1e-4, "offset": -0.1, "nodata": 0}] * 3,
    }}  # fmt: skip
    da = load_stac([scene], bands=list(names), engine=engine)
    for number, name in enumerate(names):
        equal(da.sel(band=name)[0], scenes.known(pixels[number], 1e-4, -0.1))
