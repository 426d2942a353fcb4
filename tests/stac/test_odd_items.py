"""Items that break the rules, options that make no sense, files that are not what their item says."""

from __future__ import annotations

import copy
import warnings

import numpy as np
import pytest
import rasterio
import xarray as xr
from affine import Affine

from tests.stac import scenes
from tests.stac.helpers import ENGINES, equal, warns
from tests.stac.scenes import Site, landsat1, sentinel2
from xcloudmask.errors import (
    AssetError,
    BandError,
    CloudMaskError,
    NoDataWarning,
    OptionError,
    UnitError,
    UnitWarning,
)
from xcloudmask.stac import load_stac
from xcloudmask.stac.boxes import geometry_box, transform_box
from xcloudmask.stac.place import item_crs
from xcloudmask.stac.view import view_item


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    root = tmp_path_factory.mktemp("odd")
    return sentinel2(Site(root, str(root)), "cdse")


@pytest.fixture
def item(scene):
    return copy.deepcopy(scene.item)


def red(items, **options):
    return load_stac(items, bands=["red"], **options)


@pytest.mark.parametrize(
    "option", [{"allow_private_hosts": "no"}, {"allow_private_hosts": 0}, {"dtype": None}], ids=str
)
def test_what_would_mean_its_opposite_is_refused(item, option):
    with pytest.raises(OptionError, match=f"unknown {next(iter(option))}"):
        red([item], **option)


# ------------------------------------------------------------------------------------------------ metadata


@pytest.mark.parametrize(
    "change",
    [
        {"geometry": None, "bbox": None}, {"bbox": [None] * 4}, {"bbox": ["10.25", "44.21", "10.3", "44.26"]},
        {"bbox": [1, 2, 3], "geometry": None}, {"bbox": [10.25, 44.2, 0, 10.3, 44.3, 100], "geometry": None},
        {"geometry": {"type": "Polygon", "coordinates": []}}, {"links": None},
        {"geometry": {"type": "Polygon", "coordinates": "none"}}, {"geometry": {"type": "GeometryCollection",
                                                                                "geometries": None}},
    ],
    ids=str,
)  # fmt: skip
def test_a_place_that_is_told_badly_does_not_matter_where_the_files_tell_it(scene, item, change):
    equal(red([item | change])[0, 0], scene.expected["red"])


@pytest.mark.parametrize(
    "change",
    [{"geometry": "none"}, {"geometry": [1]}, {"geometry": {"type": "GeometryCollection", "geometries": 5}},
     {"properties": {"instruments": 5}}, {"properties": {"auth:schemes": {"a": 5}, "auth:refs": 5}}],
    ids=str,
)  # fmt: skip
def test_entries_of_another_kind_than_stacs_that_do_not_matter_are_passed_over(scene, item, change):
    properties = item["properties"] | change.get("properties", {})
    equal(red([item | change | {"properties": properties}])[0, 0], scene.expected["red"])


@pytest.mark.parametrize("error", [AttributeError, KeyError, TypeError, ValueError])
def test_a_bug_in_planning_is_not_laid_at_the_item(item, error, monkeypatch):
    def fail(*args, **kwargs):
        raise error("a bug")

    monkeypatch.setattr("xcloudmask.stac.plan.calibrate", fail)
    with pytest.raises(error, match="a bug"):
        red([item])


@pytest.mark.parametrize(
    "change",
    [{"proj:transform": [10, 0, 0]}, {"proj:transform": ["a"] * 6}, {"proj:transform": [0] * 9},
     {"proj:shape": [float("nan"), 3]}, {"proj:shape": [0, 0]},
     {"proj:bbox": [None] * 4, "proj:shape": None}],
    ids=str,
)  # fmt: skip
def test_projection_fields_that_are_nonsense_count_as_not_told(scene, item, change):
    item["assets"]["B04_10m"].update(change)
    da = red([item], bbox=(10.260, 44.235, 10.262, 44.237), resolution=10)
    rows = np.round((scenes.TOP - da.y.values) / 10 - 0.5).astype(int)
    columns = np.round((da.x.values - scenes.LEFT) / 10 - 0.5).astype(int)
    equal(da[0, 0], scene.expected["red"][np.ix_(rows, columns)])


def test_a_crs_that_does_not_exist_is_told(item):
    item["assets"]["B04_10m"]["proj:code"] = "EPSG:nonsense"
    for kind, words in (
        (UnitWarning, rf"item '{item['id']}': EPSG:nonsense is no known CRS"),
        (UserWarning, "the headers of the files were read"),
    ):
        with warns(kind, words):
            da = red([item])
    assert da.rio.crs.to_epsg() == 32632


@pytest.mark.parametrize("when", ["yesterday", "2024-05-17/2024-05-18", "0001-01-01T00:00:00Z", "9999-01-01"])
def test_a_date_that_cannot_be_is_told(item, when):
    item["properties"]["datetime"] = when
    with pytest.raises(CloudMaskError, match=rf"item '{item['id']}': its datetime '{when}'.*modifier="):
        red([item])


def test_dates_of_any_form_are_utc(item):
    item["properties"] |= {"datetime": None, "start_datetime": "2024-05-17T12:00:00+02:00"}
    assert red([item]).time.values[0] == np.datetime64("2024-05-17T10:00:00", "ns")


def test_an_item_with_no_id_is_told(item):
    with pytest.raises(CloudMaskError, match=r"has no id.*sentinel-2a"):
        red([item | {"id": None}])


@pytest.mark.parametrize("asset", [None, {}, {"href": None}, {"href": ""}], ids=str)
def test_an_asset_with_no_address_is_no_asset(item, asset):
    item["assets"] = {"B04_10m": asset, "B02_10m": item["assets"]["B02_10m"]}
    with pytest.raises(BandError, match=r"'red' cannot be read.*'B04_10m' has no address.*found: blue, B02"):
        red([item])


@pytest.mark.parametrize(("field", "value"), [("raster:scale", float("nan")), ("raster:offset", "nan")])
def test_a_scale_that_is_no_number_is_told(item, field, value):
    item["assets"]["B04_10m"][field] = value
    with pytest.raises(UnitError, match=rf"item '{item['id']}', asset 'B04_10m'.*nan.*raster:scale"):
        red([item])


def test_an_empty_feature_collection_is_an_empty_search():
    with pytest.raises(CloudMaskError, match="there are no items"):
        load_stac({"type": "FeatureCollection"})


def test_a_thousand_items_give_one_warning(site):
    one = sentinel2(site, "earth-search-v1", shifted=False).item
    items = [one | {"id": f"S2A_{n:04d}"} for n in range(1000)]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        red(items, duplicates="keep")
    (text,) = [str(w.message) for w in caught if w.category is UnitWarning]
    assert text.startswith(
        "1,000 items ('S2A_0000', 'S2A_0001', 'S2A_0002', ...): boa_offset_applied is false"
    )
    assert text.endswith('sentinel2_offset="apply" or sentinel2_offset="skip" settles it.')
    assert caught[0].filename == __file__  # the caller's own line


def test_bands_that_many_items_lack_give_one_warning(item):
    others = [copy.deepcopy(item) | {"id": f"S2A_{n}"} for n in range(5)]
    for other in others:
        del other["assets"]["B12_20m"]
    for n, other in enumerate(others):
        other["properties"]["datetime"] = f"2024-06-0{n + 1}T10:00:00Z"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        load_stac([item, *others], bands=["red", "swir22"], on_error="skip")
    (text,) = [str(w.message) for w in caught if w.category is NoDataWarning]
    assert text.startswith("5 items ('S2A_0', 'S2A_1', 'S2A_2', ...): no asset for band 'swir22'")


# ------------------------------------------------------------------------------------------------- options


@pytest.mark.parametrize(
    "wrong",
    [
        {"resolution": (10,)}, {"resolution": True}, {"resolution": "10"}, {"resolution": float("nan")},
        {"bbox": "here"}, {"bbox": 5}, {"bbox": (float("nan"), 1, 2, 3)}, {"geometry": {"type": "Point"}},
        {"geometry": {"type": "Point", "coordinates": "abc"}}, {"like": "x"}, {"like": np.zeros((3, 3))},
        {"timeout": "1"}, {"gdal_env": [1]}, {"filesystem": "s3"}, {"sun_elevation": "high"},
        {"sun_elevation": {"no-such-item": 30}}, {"chunks": None}, {"crs": 0}, {"dtype": "int16"},
    ],
    ids=str,
)  # fmt: skip
def test_options_that_make_no_sense_are_told(item, wrong):
    with pytest.raises(OptionError, match=next(iter(wrong))):
        red([item], **wrong)


@pytest.mark.parametrize("bands", [None, 5])
def test_bands_that_are_no_names_are_told(item, bands):
    with pytest.raises(OptionError, match="bands"):
        load_stac([item], bands=bands)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"bbox": (10.3, 44.2, 10.2, 44.3)}, "359.9 degrees wide"),  # west and east swapped
        ({"bbox": (10.2, 44.3, 10.3, 44.2)}, "west, south, east, north"),
        ({"bbox": (-180, -80, 180, 80)}, "cannot be expressed in EPSG:32632"),  # the globe on a UTM grid
        ({"resolution": 1e-9}, r"2,880,000,000,000 rows.*check resolution="),
        ({"resolution": 10, "crs": 4326}, r"degrees: 10 m are about 9e-5"),
    ],
)
def test_grids_that_cannot_be_meant_are_told(item, options, says):
    with pytest.raises(CloudMaskError, match=says):
        red([item], **options)


def test_the_globe_fits_on_grids_that_can_hold_it():
    for crs in ("EPSG:6933", "EPSG:3857"):
        left, _, right, _ = transform_box((-180.0, -80.0, 180.0, 80.0), "EPSG:4326", crs)
        assert right - left > 3e7
    left, bottom, right, top = transform_box((-180.0, -90.0, 180.0, -60.0), "EPSG:4326", "EPSG:3031")
    assert min(right, top) == -max(left, bottom) > 3e6


@pytest.mark.parametrize("engine", ENGINES)
def test_double_precision_is_what_it_says(scene, item, engine):
    """Calibrated in double precision, not widened afterwards."""
    da = red([item], dtype=np.float64, engine=engine)
    assert da.dtype == da.compute().dtype == "float64"
    known = np.round(scene.expected["red"].astype("f8") * 1e4) / 1e4
    np.testing.assert_allclose(da.values[0, 0], known, rtol=0, atol=1e-12)


# --------------------------------------------------------------------------------------------------- files


def file_of(item, root, *, dtype="uint16", crs="EPSG:32632", left=scenes.LEFT, size=288, georeferenced=True):
    """Put another file in the place of the red band."""
    place = Affine(10, 0, left, 0, -10, scenes.TOP) if georeferenced else None
    form = {"driver": "GTiff", "count": 1, "height": size, "width": size, "dtype": dtype}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        with rasterio.open(root / "odd.tif", "w", **form, crs=crs, transform=place) as file:
            file.write(np.full((1, size, size), 100, dtype))
    item["assets"]["B04_10m"]["href"] = str(root / "odd.tif")
    return item


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize(
    ("file", "says"),
    [
        ({"dtype": "float32"}, "holds float32, the catalogue says uint16"),  # reflectance already?
        ({"dtype": "uint8"}, "holds uint8, the catalogue says uint16"),  # a picture?
        ({"dtype": "complex64"}, "holds complex64"),
        ({"left": scenes.LEFT + 50000}, "the file lies at .*item says .*proj: fields"),
        ({"crs": None, "georeferenced": False}, "neither a CRS nor a transform"),
    ],
    ids=str,
)
def test_a_file_that_is_not_what_its_item_says_is_told(item, tmp_path, engine, file, says):
    da = red([file_of(item, tmp_path, **file)], engine=engine, retries=0)
    with pytest.raises(AssetError, match=rf"item '{item['id']}', asset 'B04_10m'.*{says}"):
        da.compute()
    da = red([item], engine=engine, retries=0, on_error="skip")
    with warns(NoDataWarning, says):
        assert np.isnan(da.values).all()


def test_a_catalogue_that_states_no_type_is_known_to_hold_whole_numbers(site, tmp_path):
    scene = sentinel2(site, "planetary-computer")
    file_of({"assets": {"B04_10m": scene.item["assets"]["B04"]}}, tmp_path, dtype="float32")
    with pytest.raises(AssetError, match="holds float32, the catalogue says whole numbers"):
        red([scene.item]).compute()


def test_a_file_with_no_crs_is_where_its_item_says(item, tmp_path):
    da = red([file_of(item, tmp_path, crs=None)])
    equal(da, np.full(da.shape, 100 * 1e-4 - 0.1))


def test_a_smaller_file_than_declared_leaves_no_data(item, tmp_path):
    da = red([file_of(item, tmp_path, size=100)])[0, 0]
    equal(da[:100, :100], np.full((100, 100), 100 * 1e-4 - 0.1))
    assert np.isnan(da.values[100:]).all()


def test_every_item_broken_is_all_no_data_with_warnings(item):
    for asset in item["assets"].values():
        asset["href"] = "/nowhere/a.tif"
    other = copy.deepcopy(item) | {"id": "other"}
    da = red([item, other], on_error="skip", duplicates="keep")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert np.isnan(da.values).all()
    told = "".join(str(w.message) for w in caught)
    assert item["id"] in told
    assert "'other'" in told


@pytest.mark.parametrize("text", ['{"LANDSAT_METADATA_FILE": {"IMA', "", "<html>login</html>"])
def test_a_broken_mtl_file_can_be_skipped(site, text):
    whole = landsat1(site)
    broken = copy.deepcopy(whole.item) | {"id": "broken"}
    (site.root / "broken.json").write_text(text)
    broken["assets"]["MTL.json"]["href"] = str(site.root / "broken.json")
    with pytest.raises(AssetError, match=r"item 'broken', asset 'MTL.json'.*on_error='skip'"):
        red([whole.item, broken])
    with warns(NoDataWarning, "item 'broken': left out"):
        da = red([whole.item, broken], on_error="skip")
    assert da.item_id.values.tolist() == [whole.item["id"]]


def test_a_patch_that_returns_nothing_is_told(item):
    with pytest.raises(AssetError, match=rf"item '{item['id']}'.*patch_url= gave None.*must return a URL"):
        red([item], patch_url=lambda url: None).compute()


def test_a_grid_with_no_coordinates_is_told(item):
    with pytest.raises(CloudMaskError, match="like= "):
        red([item], like=xr.DataArray(np.zeros((3, 3)), dims=("y", "x")).rio.write_crs(32632))


def test_an_items_own_code_is_not_asked_where_its_assets_tell_theirs(scene, item):
    item["properties"]["proj:epsg"] = "UTM 32"
    assert item["assets"]["B04_10m"]["proj:code"]
    equal(red([item])[0, 0], scene.expected["red"])
    for asset in item["assets"].values():
        asset.pop("proj:code", None)
    with pytest.raises(CloudMaskError, match=r"is not understood.*proj:epsg"):
        red([item])


def test_a_zone_that_is_no_number_tells_no_crs():
    tile = {"mgrs:utm_zone": float("nan"), "mgrs:latitude_band": "T"}
    assert item_crs(view_item({"id": "x", "properties": tile, "assets": {}}), []) == (None, None)


def test_a_box_holds_every_member_of_a_collection():
    west = {"type": "Point", "coordinates": [8.0, 44.0]}
    shape = type("Shape", (), {"__geo_interface__": west})()
    east = {"type": "Point", "coordinates": [11.0, 45.0]}
    assert geometry_box({"type": "GeometryCollection", "geometries": [shape, east]}) == (
        8.0,
        44.0,
        11.0,
        45.0,
    )
