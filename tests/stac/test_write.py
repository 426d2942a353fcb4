"""What STAC is told of masks: right by pystac and its schemas, and found again."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pystac
import pytest
import xarray as xr
from pystac.validation import stac_validator
from zarr.storage import MemoryStore

import xcloudmask
from xcloudmask.errors import CloudMaskError, ContractError, OptionError
from xcloudmask.stac.write import EXTENSIONS, save

SCHEMA = Path(__file__).parents[3] / "shared" / "eopf" / "conventions" / "classification.schema.json"
CODES = {"clear": 0, "cloud": 1, "thin_cloud": 2, "cloud_shadow": 3, "no_data": 255}


def made(steps: int | None = 3, crs: Any = 32632) -> xr.DataArray:
    """Steps of 40 x 30 pixels near 12 E, 42 N: 10 % no data, and of the rest 20 %, 40 %, ... cloud."""
    values = np.zeros((steps or 1, 40, 30), "u1")
    values[:, :4] = 255
    for step in range(steps or 1):
        values[step, 4:].reshape(-1)[: 216 * (step + 1)] = 1 + step % 2
    times = np.datetime64("2026-05-01T10:30", "ns") + np.arange(steps or 1) * np.timedelta64(5, "D")
    da = xr.DataArray(
        values,
        dims=("time", "y", "x"),
        coords={
            "time": times,
            "y": 4700040 - 10 * (np.arange(40) + 0.5),
            "x": 699960 + 10 * (np.arange(30) + 0.5),
            "item_id": ("time", [f"S2A_{step}" for step in range(steps or 1)]),
            "sensor": ("time", ["sentinel-2a"] * (steps or 1)),
        },
        name="cloud_mask",
        attrs={
            "flag_values": list(CODES.values()), "flag_meanings": " ".join(CODES), "model": "ukis-any-l2a",
            "model_version": "2", "xcloudmask_version": "1.2", "long_name": "cloud mask",
        },
    )  # fmt: skip
    da = da if crs is None else da.rio.write_crs(crs)
    return da if steps is not None else da.isel(time=0)


def valid(document: Any) -> dict[str, Any]:
    """Check a document by the schemas that pystac brings and those in ../shared; return it."""
    said: dict[str, Any] = json.loads(json.dumps(document.to_dict(include_self_link=False)))
    core = {**said, "stac_extensions": []}
    kind = pystac.STACObjectType.ITEM if said["type"] == "Feature" else pystac.STACObjectType.COLLECTION
    checker = stac_validator.JsonSchemaSTACValidator()  # type: ignore[no-untyped-call]
    checker.validate_core(core, kind, "1.1.0")
    with pytest.raises(pystac.STACValidationError):  # and it can fail
        checker.validate_core({**core, "links": "none"}, kind, "1.1.0")
    if SCHEMA.is_file() and EXTENSIONS["classification"] in said["stac_extensions"]:
        schema = json.loads(SCHEMA.read_text())
        jsonschema.validate(said, schema)
    return said


ITEMS = [
    {"type": "Feature", "id": f"S2A_{step}", "properties": {}, "assets": {},
     "links": [{"rel": "self", "href": f"https://example.com/items/S2A_{step}"}]}
    for step in range(3)
]  # fmt: skip


def test_a_time_series_in_one_store_is_a_collection(tmp_path: Path) -> None:
    made().cloudmask.to_zarr(tmp_path / "masks.zarr", overviews=(2,), progress=False)
    found = xcloudmask.stac_of(tmp_path / "masks.zarr", items=ITEMS)
    assert isinstance(found, pystac.Collection)
    said = valid(found)
    assert said["id"] == "masks"
    asset = said["assets"]["cloud_mask"]
    assert asset["href"] == str(tmp_path / "masks.zarr")
    assert asset["type"] == "application/vnd.zarr; version=3; profile=multiscales"
    assert asset["bands"] == [
        {"name": "cloud_mask", "data_type": "uint8", "nodata": 255, "raster:spatial_resolution": 10.0}
    ]
    assert asset["roles"] == ["data", "cloud", "cloud-shadow"]
    assert (asset["proj:code"], asset["proj:shape"]) == ("EPSG:32632", [40, 30])
    assert asset["proj:transform"] == [10.0, 0.0, 699960.0, 0.0, -10.0, 4700040.0]
    assert asset["proj:bbox"] == [699960.0, 4699640.0, 700260.0, 4700040.0]
    links = [(link["rel"], link["href"]) for link in said["links"]]
    assert ("store", asset["href"]) in links
    assert [href for rel, href in links if rel == "derived_from"] == [
        f"https://example.com/items/S2A_{step}" for step in range(3)
    ]
    assert said["summaries"]["eo:cloud_cover"] == {"minimum": 20.0, "maximum": 60.0}
    assert said["summaries"]["platform"] == ["sentinel-2a"]
    assert said["extent"]["temporal"]["interval"] == [["2026-05-01T10:30:00Z", "2026-05-11T10:30:00Z"]]
    west, south, east, north = said["extent"]["spatial"]["bbox"][0]
    assert (11.4 < west < east < 11.45, 42.42 < south < north < 42.43) == (True, True)
    assert said["cube:dimensions"]["time"]["values"][1] == "2026-05-06T10:30:00Z"
    assert said["cube:dimensions"]["y"]["extent"] == [4699645.0, 4700035.0]
    assert said["cube:variables"]["cloud_mask"]["dimensions"] == ["time", "y", "x"]
    software = {"xcloudmask": "1.2", "ukis-any-l2a": "2"}
    assert asset["processing:software"] == said["providers"][0]["processing:software"] == software
    assert asset["mlm:name"] == "ukis-any-l2a"
    opened = xr.open_dataset(asset["href"], **asset["xarray:open_kwargs"]).cloud_mask
    np.testing.assert_array_equal(opened, made())


def test_classes_are_told_with_colours_and_decoded_again(tmp_path: Path) -> None:
    from xcloudmask.classes import COLOURS

    item = made(None).cloudmask.to_stac("https://example.com/S2A_0.tif")
    classes = valid(item)["assets"]["cloud_mask"]["classification:classes"]
    assert {one["name"]: one["value"] for one in classes} == CODES
    assert [one["value"] for one in classes if one.get("nodata")] == [255]
    for one in classes:
        assert one["title"]
        assert one["description"]
        assert one["color_hint"] == COLOURS.get(one["name"], "#D9D9D9")[1:].upper()
    plain = made(None).drop_attrs()
    decoded = xcloudmask.masks.decode(plain, item.assets["cloud_mask"].to_dict())
    np.testing.assert_array_equal(decoded, plain)
    migrated = pystac.Item.from_dict(item.to_dict())  # as a reader of today's pystac has it
    listed = pystac.extensions.classification.ClassificationExtension.ext(migrated.assets["cloud_mask"])
    assert [one.name for one in listed.classes or []] == list(CODES)


def test_one_scene_is_an_item(tmp_path: Path) -> None:
    mask = made(None)
    mask.cloudmask.to_geotiff(tmp_path / "S2A_0.tif")
    item = mask.cloudmask.to_stac(str(tmp_path / "S2A_0.tif"), items=ITEMS)
    said = valid(item)
    assert isinstance(item, pystac.Item)
    assert (said["id"], said["properties"]["datetime"]) == ("S2A_0", "2026-05-01T10:30:00Z")
    assert said["properties"]["eo:cloud_cover"] == 20.0
    assert said["properties"]["platform"] == "sentinel-2a"
    assert said["assets"]["cloud_mask"]["type"] == pystac.MediaType.COG
    assert [link["href"] for link in said["links"]] == ["https://example.com/items/S2A_0"]
    assert "datacube" not in " ".join(said["stac_extensions"])
    mask.cloudmask.to_zarr(tmp_path / "one.zarr", group="32TQM", progress=False)
    said = valid(xcloudmask.stac_of(tmp_path / "one.zarr", "32TQM", href="s3://bucket/one.zarr"))
    assert said["id"] == "one-32TQM"
    assert said["assets"]["cloud_mask"]["href"] == "s3://bucket/one.zarr/32TQM"
    assert [link["href"] for link in said["links"]] == ["s3://bucket/one.zarr"]
    assert said["properties"]["cube:dimensions"]["x"]["step"] == 10.0


def test_probabilities_have_no_classes_and_no_share(tmp_path: Path) -> None:
    odds = made(2).astype("f4").expand_dims({"class": ["clear", "cloud"]}, axis=1) / 255
    odds.attrs = {"long_name": "class probability"}
    odds.rename("cloud_probability").cloudmask.to_zarr(tmp_path / "p.zarr", progress=False)
    said = valid(xcloudmask.stac_of(tmp_path / "p.zarr"))
    assert "classification:classes" not in said["assets"]["cloud_probability"]
    assert said["cube:dimensions"]["class"]["values"] == ["clear", "cloud"]
    assert "eo:cloud_cover" not in said["summaries"]


def test_a_stream_lists_its_store_in_a_catalogue_once(tmp_path: Path) -> None:
    catalogue = tmp_path / "catalogue"
    for name in ("a.zarr", "b.zarr", "a.zarr"):
        made().cloudmask.to_zarr(tmp_path / name, stac=catalogue, progress=False)
    made(None).cloudmask.to_zarr(tmp_path / "one.zarr", stac=catalogue, progress=False)
    read = pystac.Catalog.from_file(str(catalogue / "catalog.json"))
    assert sorted(child.id for child in read.get_children()) == ["a", "b"]
    assert [item.id for item in read.get_items()] == ["one"]
    for child in read.get_children():
        assert child.get_root().id == read.id
        valid(child)
    before = {path: path.read_bytes() for path in catalogue.rglob("*.json")}
    made().cloudmask.to_zarr(tmp_path / "a.zarr", stac=str(catalogue), progress=False)
    assert {path: path.read_bytes() for path in catalogue.rglob("*.json")} == before


def test_an_item_whose_store_grows_becomes_a_collection(tmp_path: Path) -> None:
    for steps in (1, 2):
        made(2)[:steps].cloudmask.to_zarr(tmp_path / "m.zarr", stac=tmp_path / "c", progress=False)
    assert [path.name for path in (tmp_path / "c" / "m").iterdir()] == ["collection.json"]
    read = pystac.Catalog.from_file(str(tmp_path / "c" / "catalog.json"))
    assert [[one.id for one in read.get_children()], list(read.get_items())] == [["m"], []]
    with pytest.raises(OptionError, match=r"stac 'icechunk:there'.*Give a folder"):
        made(2).cloudmask.to_zarr(tmp_path / "m.zarr", stac="icechunk:there", progress=False)


def test_across_the_antimeridian(tmp_path: Path) -> None:
    far = {"x": 820000 + 1000 * np.arange(30.0), "y": 1000 * np.arange(40.0)}
    mask = made(None).assign_coords(far).rio.write_crs(32660)
    said = valid(mask.cloudmask.to_stac("m.tif"))
    assert said["geometry"]["type"] == "MultiPolygon"
    assert said["bbox"][0] > 179 > -179 > said["bbox"][2]


def test_what_stac_cannot_say_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CloudMaskError, match="no CRS, so STAC cannot say where"):
        made(None, crs=None).cloudmask.to_stac("m.tif")
    with pytest.raises(CloudMaskError, match="no even coordinates"):
        made(None).assign_coords(x=np.arange(30.0) ** 2).cloudmask.to_stac("m.tif")
    with pytest.raises(CloudMaskError, match="has no time, and STAC needs one"):
        made(None).drop_vars("time").cloudmask.to_stac("m.tif")
    with pytest.raises(CloudMaskError, match=r"this mask has \['tile'\]"):
        made().rename(time="tile").cloudmask.to_stac("m.tif")
    with pytest.raises(OptionError, match=r"other.*The mask is of S2A_0"):
        made(None).cloudmask.to_stac("m.tif", items=[{**ITEMS[0], "id": "other"}])
    with pytest.raises(ContractError, match="does not exist"):
        xcloudmask.stac_of(tmp_path / "nothing.zarr")
    with pytest.raises(CloudMaskError, match="MemoryStore does not tell the address"):
        made().cloudmask.to_zarr(MemoryStore(), stac=tmp_path, progress=False)
    for lacking in (made(crs=None), made().drop_vars("x"), made().rename(time="tile")):
        with pytest.raises(CloudMaskError, match="STAC"):  # before anything is written
            lacking.cloudmask.to_zarr(tmp_path / "none.zarr", stac=tmp_path / "c", progress=False)
    assert not list(tmp_path.iterdir())
    with pytest.raises(CloudMaskError, match=r"repository of Icechunk.*href="):
        xcloudmask.stac_of("icechunk:somewhere")
    assert save(made(None).cloudmask.to_stac("m.tif"), str(tmp_path / "c")).endswith("c/m/m.json")


def test_those_who_save_at_the_same_time_lose_no_link(tmp_path: Path) -> None:
    items = [made(None).cloudmask.to_stac(f"m{number}.tif", cloud_cover=False) for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda item: save(item, str(tmp_path / "c")), items))
    links = json.loads((tmp_path / "c" / "catalog.json").read_text())["links"]
    assert sorted(one["href"] for one in links if one["rel"] == "item") == [
        f"./m{number}/m{number}.json" for number in range(8)
    ]
    assert not (tmp_path / "c" / "stream").exists()


def test_an_address_with_a_space_stays_whole() -> None:
    one, two = "/data/my items/S2A_0.json", "/data/my items/S2B_0.json"
    for ids, hrefs in (("S2A_0", [one]), ("S2A_0+S2B_0", [one, two])):
        mask = made(1).assign_coords(item_id=("time", [ids]), item_href=("time", ["\n".join(hrefs)]))
        links = valid(mask.cloudmask.to_stac("m.tif"))["links"]
        assert [link["href"] for link in links if link["rel"] == "derived_from"] == hrefs


def test_the_resolution_is_in_metres() -> None:
    degrees = made(None, crs=None).assign_coords(
        x=12 + 1e-4 * np.arange(30), y=-1e-4 * np.arange(40)
    ).rio.write_crs(4326)  # fmt: skip
    for mask, metres in ((made(None), 10), (degrees, 11.1)):
        (band,) = mask.cloudmask.to_stac("m.tif").to_dict()["assets"]["cloud_mask"]["bands"]
        assert band["raster:spatial_resolution"] == pytest.approx(metres, rel=0.01)


def test_a_group_of_a_store_is_zarr_and_a_folder_that_is_named_like_one_is_not() -> None:
    kinds = {}
    for href in ("s3://b/masks.zarr/tile1", "s3://b/masks.zarr/", "/data/of_s2.zarr_tests/mask.tif"):
        item = made(None).cloudmask.to_stac(href).to_dict()
        rels = {link["rel"]: link["href"] for link in item["links"]}
        kinds[item["id"]] = (item["assets"]["cloud_mask"]["type"][:15], rels.get("store"))
    assert kinds == {
        "masks-tile1": ("application/vnd", "s3://b/masks.zarr"),
        "masks": ("application/vnd", "s3://b/masks.zarr"),
        "mask": ("image/tiff; app", None),
    }
