"""One reading of one file: what counts as no data, on any grid."""

from __future__ import annotations

import numpy as np
import pytest
from affine import Affine
from botocore.exceptions import NoCredentialsError
from pyproj.exceptions import ProjError
from rasterio.errors import CRSError, WarpedVRTError

from tests.stac.scenes import Site
from xcloudmask.errors import AssetError, CloudMaskError
from xcloudmask.stac import place, reader
from xcloudmask.stac.boxes import lonlat_box, transform_box
from xcloudmask.stac.grid import Grid
from xcloudmask.stac.item_plan import Source, ValidRule
from xcloudmask.stac.reader import Layer, read_layer
from xcloudmask.stac.transport import Transport

PLACE = Affine(10, 0, 600000, 0, -10, 4900020)
ALIGNED = Grid("EPSG:32632", 599990.0, 4900030.0, 10.0, 10.0, (12, 12))  # one pixel more on each side
SHIFTED = Grid("EPSG:32632", 599993.0, 4900033.0, 10.0, 10.0, (12, 12))
TURNED = Grid("EPSG:3035", 4339990.0, 2348000.0, 10.0, 10.0, (20, 20))


@pytest.fixture
def file(tmp_path):
    """Write a 10 x 10 file of 100s with a square of `hole`; return its address."""

    def write(dtype, hole, tag):
        values = np.full((10, 10), 100, dtype)
        values[2:5, 2:5] = hole
        return Site(tmp_path, str(tmp_path)).write("a.tif", values, PLACE, "EPSG:32632", tag)[0]

    return write


def turned() -> Grid:
    left, _, _, top = transform_box((600000.0, 4899920.0, 600100.0, 4900020.0), "EPSG:32632", "EPSG:3035")
    return Grid("EPSG:3035", left - 20, top + 20, 10.0, 10.0, (18, 18))


@pytest.mark.parametrize("grid", ["aligned", "shifted", "turned"])
@pytest.mark.parametrize("resampling", ["nearest", "bilinear", "average"])
@pytest.mark.parametrize(
    ("dtype", "hole", "tag", "nodata"),
    [
        ("uint16", 0, 0, 0),
        ("uint16", 0, None, 0),  # only the item tells
        ("uint16", 0, 0, None),  # only the file tells
        ("uint16", 0, 0, 65535),  # each tells another
        ("int16", -9999, None, -9999),
        ("uint16", 0, 0, -9999),  # a value that the file cannot hold
        ("float32", np.nan, None, None),
        ("float32", np.nan, np.nan, -1),
    ],
)
def test_no_data_is_neither_read_nor_mixed_in(file, grid, resampling, dtype, hole, tag, nodata):
    place = {"aligned": ALIGNED, "shifted": SHIFTED, "turned": turned()}[grid]
    layer = Layer((Source("a", file(dtype, hole, tag), scale=0.01, nodata=nodata, item_id="i"),))
    values = read_layer(layer, place.part(), resampling, Transport())
    assert values.dtype == np.float32
    assert np.unique(values[~np.isnan(values)].round(5)).tolist() == [1.0]
    inside, hollow = (~np.isnan(values)).sum(), 9
    assert abs(inside - (100 - hollow)) <= (0 if grid == "aligned" else 45)
    assert np.isnan(values[[0, -1]]).all() or grid == "shifted"  # outside the file is no data
    if resampling == "nearest":
        assert np.isnan(values).sum() >= values.size - 100 + hollow - 20


def test_a_file_with_no_nodata_at_all_ends_at_its_edge(file):
    layer = Layer((Source("a", file("uint16", 0, None), item_id="i"),))
    for grid in (ALIGNED, SHIFTED, turned()):
        values = read_layer(layer, grid.part(), "nearest", Transport())
        assert set(np.unique(values[~np.isnan(values)])) == {0.0, 100.0}
        assert np.isnan(values).sum() >= values.size - 110


@pytest.mark.parametrize(
    ("rule", "kept"),
    [
        ({"mask": 0b1100, "expected": 0b0100}, {4, 5, 6, 7}),
        ({"mask": 1, "expected": 0}, {2, 4, 6, 8}),
        ({"invalid_values": (3, 9)}, {1, 2, 4, 5, 6, 7, 8}),
    ],
)
@pytest.mark.parametrize("grid", [ALIGNED, SHIFTED], ids=["aligned", "shifted"])
def test_valid_rules(file, tmp_path, rule, kept, grid):
    flags = np.tile(np.arange(10, dtype="uint8"), (10, 1))
    flags[:, 0] = 9
    site = Site(tmp_path, str(tmp_path))
    href, _ = site.write("flags.tif", flags, PLACE, "EPSG:32632")
    numbers, _ = site.write("numbers.tif", flags.astype("uint16"), PLACE, "EPSG:32632")
    source = Source("a", numbers, valid=ValidRule("q", href, **rule), item_id="i")
    values = read_layer(Layer((source,)), grid.part(), "nearest", Transport())
    assert set(np.unique(values[~np.isnan(values)]).astype(int)) == kept


def test_a_missing_quality_file_makes_the_scene_no_data(file):
    source = Source("a", file("uint16", 0, 0), valid=ValidRule("q", "/not/there.tif", 1, 0), item_id="i")
    with pytest.raises(AssetError, match="item 'i', asset 'q'"):
        read_layer(Layer((source,)), ALIGNED.part(), "nearest", Transport(retries=0))
    skip = Transport(retries=0, on_error="skip")
    with pytest.warns(UserWarning, match="item 'i', asset 'q'.*Taken as no data"):
        values = read_layer(Layer((source,)), ALIGNED.part(), "nearest", skip)
    assert np.isnan(values).all()


def test_the_error_travels(file):
    """A cluster pickles errors with all that they carry; GDAL's own cannot be unpickled."""
    from distributed.protocol.pickle import dumps, loads

    source = Source("a", "/not/there.tif", item_id="i")
    with pytest.raises(AssetError) as caught:
        read_layer(Layer((source,)), ALIGNED.part(), "nearest", Transport())
    travelled = loads(dumps(caught.value))
    assert type(travelled) is AssetError
    assert str(travelled) == str(caught.value)


def test_a_band_that_the_file_does_not_have(file):
    source = Source("a", file("uint16", 0, 0), index=2, item_id="i")
    with pytest.raises(AssetError, match="band 2 is asked for, the file has 1"):
        read_layer(Layer((source,)), ALIGNED.part(), "nearest", Transport())


def _fail(error):
    def fail(*_, **__):
        raise error

    return fail


def test_a_bug_is_not_taken_for_a_file_that_cannot_be_read(file, monkeypatch):
    layer = Layer((Source("a", file("uint16", 0, 0), item_id="i"),))
    skip = Transport(retries=0, on_error="skip")
    monkeypatch.setattr(reader, "_check_place", _fail(KeyError("a bug")))
    with pytest.raises(KeyError, match="a bug"):
        read_layer(layer, ALIGNED.part(), "nearest", skip)
    for error in (ProjError("no such"), WarpedVRTError("odd"), NoCredentialsError(), CloudMaskError("odd")):
        monkeypatch.setattr(reader, "_check_place", _fail(error))
        with pytest.raises(AssetError, match="item 'i', asset 'a'"):
            read_layer(layer, ALIGNED.part(), "nearest", Transport(retries=0))


def test_only_a_place_that_cannot_be_carried_over_leaves_the_kernel_to_gdal(file, monkeypatch):
    layer = Layer((Source("a", file("uint16", 0, 0), item_id="i"),))
    monkeypatch.setattr("rasterio.warp.transform", _fail(CRSError("nowhere")))
    assert np.isfinite(read_layer(layer, turned().part(), "bilinear", Transport())).any()
    monkeypatch.setattr("rasterio.warp.transform", _fail(KeyError("a bug")))
    with pytest.raises(KeyError, match="a bug"):
        read_layer(layer, turned().part(), "bilinear", Transport())


def test_a_bug_is_not_taken_for_a_crs_that_nobody_knows(monkeypatch):
    source = {"proj:bbox": [500_000, 0, 500_010, 10]}
    assert not place._lies_elsewhere("EPSG:1", source, (0, 0, 1, 1))
    monkeypatch.setattr(place, "transformer", _fail(KeyError("a bug")))
    with pytest.raises(KeyError, match="a bug"):
        place._lies_elsewhere("EPSG:32632", source, (0, 0, 1, 1))


@pytest.mark.parametrize(
    ("item", "box"),
    [
        ({"bbox": [179, -17, -179, -16]}, (179, -17, 181, -16)),
        ({"bbox": [10, 44, 0, 11, 45, 100]}, (10, 44, 11, 45)),
        ({"geometry": {"type": "MultiPolygon", "coordinates": [
            [[[179, -17], [180, -17], [180, -16], [179, -17]]],
            [[[-180, -17], [-179, -17], [-179, -16], [-180, -17]]]]}}, (179, -17, 181, -16)),
        ({"geometry": {"type": "GeometryCollection", "geometries": [{"type": "Point", "coordinates": [1, 2]},
            {"type": "Point", "coordinates": [3, 4, 5]}]}}, (1, 2, 3, 4)),
        ({"geometry": None, "bbox": None}, None),
    ],
    ids=str,
)  # fmt: skip
def test_boxes_in_degrees(item, box):
    assert lonlat_box(item.get("geometry"), item.get("bbox")) == box
