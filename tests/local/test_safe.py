"""Sentinel-2 .SAFE products: the reflectance that was written comes back, for each baseline and naming."""

import os
import tracemalloc
import zipfile

import numpy as np
import pytest

import xcloudmask.local
from xcloudmask.errors import AssetError, CloudMaskError, NoDataWarning, OptionError, UnitError

IDS = ["B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12"]
SIZES = dict(zip(IDS, [60, 10, 10, 10, 20, 20, 20, 10, 20, 60, 60, 20, 20], strict=True))
TILE = "L1C_T32TPQ_A016898_20220301T101234"
IMAGE = "T32TPQ_20220301T101021"


def product_xml(level, baseline, quantification, offsets, platform="Sentinel-2B"):
    boa = level == "L2A"
    name = "BOA" if boa else "RADIO"
    lines = "".join(f'<{name}_ADD_OFFSET band_id="{i}">{o}</{name}_ADD_OFFSET>' for i, o in offsets.items())
    number = (
        f"<QUANTIFICATION_VALUES_LIST><BOA_QUANTIFICATION_VALUE>{quantification}</BOA_QUANTIFICATION_VALUE>"
        "<AOT_QUANTIFICATION_VALUE>1000.0</AOT_QUANTIFICATION_VALUE></QUANTIFICATION_VALUES_LIST>"
        if boa
        else f"<QUANTIFICATION_VALUE>{quantification}</QUANTIFICATION_VALUE>"
    )
    version = "https://psd-14.sentinel2.eo.esa.int/PSD/User_Product_Level.xsd"
    return f"""<?xml version="1.0" encoding="UTF-8"?><n1:Product xmlns:n1="{version}"><n1:General_Info>
<Product_Info>
<PRODUCT_START_TIME>2022-03-01T10:10:21.024Z</PRODUCT_START_TIME><PRODUCT_URI>S2B_MSI{level}_X.SAFE</PRODUCT_URI>
<PROCESSING_BASELINE>{baseline}</PROCESSING_BASELINE>
<Datatake datatakeIdentifier="x"><SPACECRAFT_NAME>{platform}</SPACECRAFT_NAME></Datatake></Product_Info>
<Product_Image_Characteristics>{number}<Radiometric_Offset_List>{lines}</Radiometric_Offset_List>
</Product_Image_Characteristics></n1:General_Info></n1:Product>"""


TILE_XML = """<n1:Level-1C_Tile_ID xmlns:n1="x"><Tile_Angles>
<Sun_Angles_Grid><Zenith><VALUES>1</VALUES></Zenith>
</Sun_Angles_Grid><Mean_Sun_Angle><ZENITH_ANGLE unit="deg">51.5</ZENITH_ANGLE>
<AZIMUTH_ANGLE>160</AZIMUTH_ANGLE>
</Mean_Sun_Angle></Tile_Angles></n1:Level-1C_Tile_ID>"""


@pytest.fixture
def safe(tmp_path, raster, numbers):
    """Write a product; the DN of every band comes back as well."""

    def write(level="L1C", baseline="04.00", offsets=None, bands=IDS, old_names=False):
        offsets = dict.fromkeys(range(13), -1000) if offsets is None else offsets
        root = tmp_path / f"S2B_MSI{level}_20220301.SAFE"
        granule = root / "GRANULE" / TILE
        raw = {}
        for index, band in enumerate(bands):
            size = SIZES[band]
            raw[band] = numbers(index, (120 // size * 2, 120 // size * 2))
            name = f"{IMAGE}_{band}.jp2"
            if old_names:
                name = f"S2A_OPER_MSI_L1C_TL_EPA__20160101T000000_A002734_T32TPQ_{band}.jp2"
            if level == "L2A":
                name = f"R{size}m/{IMAGE}_{band}_{size}m.jp2"
            raster(granule / "IMG_DATA" / name, raw[band], size=float(size), driver="JP2OpenJPEG")
        raster(granule / "IMG_DATA" / f"{IMAGE}_TCI.jp2", raw[bands[0]], driver="JP2OpenJPEG")
        product, tile = f"MTD_MSI{level}.xml", "MTD_TL.xml"
        if old_names:
            product = "S2A_OPER_MTD_SAFL1C_PDMC_20160101T000000_R022_V20160101T103729.xml"
            tile = "S2A_OPER_MTD_L1C_TL_EPA__20160101T000000_A002734_T32TPQ.xml"
        (root / product).write_text(product_xml(level, baseline, 10000, offsets))
        (granule / tile).write_text(TILE_XML)
        return root, raw

    return write


def expected(raw, offset):
    return np.where(raw == 0, np.nan, raw * 1e-4 + offset)


@pytest.mark.parametrize(("baseline", "offsets", "offset"), [
    ("02.09", {}, 0.0), ("04.00", None, -0.1), ("05.11", None, -0.1),
    ("05.00", dict.fromkeys(range(13), -7000), -0.7),
])  # fmt: skip
@pytest.mark.parametrize("level", ["L1C", "L2A"])
def test_reflectance_is_what_the_metadata_say(safe, level, baseline, offsets, offset):
    root, raw = safe(level, baseline, offsets)
    scene = xcloudmask.local.open(root)
    assert scene.dims == ("time", "band", "y", "x")
    assert scene.dtype == "float32"
    assert scene.band.values.tolist() == ["blue", "green", "red", "nir", "swir16", "swir22"]
    assert scene.attrs == {"level": "toa" if level == "L1C" else "boa", "sensor": "sentinel-2b"}
    for name in ("B02", "B03", "B04", "B08"):
        band = scene.isel(time=0, band=scene.band_name.values.tolist().index(name))
        np.testing.assert_allclose(band, expected(raw[name], offset), atol=1e-6)
    fine = np.kron(expected(raw["B11"], offset), np.ones((2, 2)))  # 20 m pixels, repeated
    np.testing.assert_allclose(scene.sel(band="swir16")[0], fine, atol=1e-6)


def test_offsets_are_taken_band_by_band(safe):
    offsets = {i: -100 * i for i in range(13)}
    root, raw = safe(offsets=offsets)
    scene = xcloudmask.local.open(root, bands=["B04", "B8A", "B12"])
    for index, name in enumerate(["B04", "B8A", "B12"]):
        size = SIZES[name] // 10
        want = np.kron(expected(raw[name], -0.01 * IDS.index(name)), np.ones((size, size)))
        np.testing.assert_allclose(scene[0, index], want, atol=1e-6)


def test_old_names_and_times(safe):
    root, raw = safe(baseline="02.04", offsets={}, old_names=True)
    scene = xcloudmask.local.open(root)
    np.testing.assert_allclose(scene.sel(band="red")[0], expected(raw["B04"], 0.0), atol=1e-6)
    assert str(scene.time.values[0]) == "2022-03-01T10:10:21.024000000"
    assert scene.sun_elevation.item() == pytest.approx(38.5)
    assert scene.sun_azimuth.item() == 160
    assert scene.item_id.item() == "S2B_MSIL1C_X"


def test_an_elevation_that_is_given_leaves_the_azimuth_of_the_product(safe):
    root, _ = safe()
    scene = xcloudmask.local.open(root, sun_elevation=40)
    assert (scene.sun_elevation.item(), scene.sun_azimuth.item()) == (40, 160)
    tile = next(root.rglob("MTD_TL.xml"))
    tile.write_text(tile.read_text().replace("<ZENITH_ANGLE", "<<"))
    assert "sun_azimuth" not in xcloudmask.local.open(root, sun_elevation=40).coords
    with pytest.raises(CloudMaskError, match="not well-formed"):
        xcloudmask.local.open(root)


def test_pixels_lie_where_they_should(safe):
    root, _ = safe()
    scene = xcloudmask.local.open(root)
    assert scene.rio.crs.to_epsg() == 32632
    assert (scene.x.values[0], scene.y.values[0]) == (600005.0, 4900015.0)  # centres
    assert scene.rio.transform()[:6] == (10.0, 0.0, 600000.0, 0.0, -10.0, 4900020.0)


def test_resolution_averages_valid_pixels_and_repeats_coarse_ones(safe):
    root, raw = safe()
    scene = xcloudmask.local.open(root, bands=["B04", "B11", "B01"], resolution=20)
    blocks = expected(raw["B04"], -0.1).reshape(12, 2, 12, 2)
    np.testing.assert_allclose(scene[0, 0], np.nanmean(blocks, axis=(1, 3)), atol=1e-6)
    np.testing.assert_allclose(scene[0, 1], expected(raw["B11"], -0.1), atol=1e-6)
    np.testing.assert_allclose(scene[0, 2], np.kron(expected(raw["B01"], -0.1), np.ones((3, 3))), atol=1e-6)
    assert not np.isnan(scene[0, 0, 0, 0])  # three of its four pixels are valid


def test_coarse_bands_alone_stay_coarse(safe):
    root, raw = safe()
    scene = xcloudmask.local.open(root, bands=["swir16", "swir22"])
    np.testing.assert_allclose(scene[0, 0], expected(raw["B11"], -0.1), atol=1e-6)


def test_level_2a_takes_each_band_at_its_own_size(safe, raster, numbers):
    root, raw = safe("L2A")
    folder = root / "GRANULE" / TILE / "IMG_DATA"
    raster(folder / "R20m" / f"{IMAGE}_B04_20m.jp2", numbers(99, (12, 12)), size=20.0, driver="JP2OpenJPEG")
    raster(folder / "R20m" / f"{IMAGE}_B01_20m.jp2", numbers(98, (12, 12)), size=20.0, driver="JP2OpenJPEG")
    scene = xcloudmask.local.open(root, bands=["B04"])
    np.testing.assert_allclose(scene[0, 0], expected(raw["B04"], -0.1), atol=1e-6)
    assert xcloudmask.local.open(root, bands=["B01"]).shape[-1] == 4


def test_saturated_pixels_stay_bright(safe, raster):
    root, raw = safe()
    raw["B04"][1, 1] = 65535
    path = root / "GRANULE" / TILE / "IMG_DATA" / f"{IMAGE}_B04.jp2"
    raster(path, raw["B04"], driver="JP2OpenJPEG")
    assert xcloudmask.local.open(root, bands=["red"])[0, 0, 1, 1] == pytest.approx(6.4535)


def test_pixels_are_read_when_computed_and_not_before(safe, raster):
    root, raw = safe()
    scene = xcloudmask.local.open(root, bands=["red"])
    path = root / "GRANULE" / TILE / "IMG_DATA" / f"{IMAGE}_B04.jp2"
    raster(path, raw["B04"] + 7, driver="JP2OpenJPEG")
    np.testing.assert_allclose(scene[0, 0], (raw["B04"] + 7) * 1e-4 - 0.1, atol=1e-6)


def test_zip_is_read_as_it_is(safe, tmp_path):
    root, raw = safe()
    archive = tmp_path / "product.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in root.rglob("*"):
            file.write(path, f"{root.name}/{path.relative_to(root)}")
    scene = xcloudmask.local.open(archive, bands=["red"])
    np.testing.assert_allclose(scene[0, 0], expected(raw["B04"], -0.1), atol=1e-6)
    os.utime(archive, ns=(1, 1))
    assert xcloudmask.local.open(archive, bands=["red"]).data.name != scene.data.name


def test_arguments_win_over_metadata(safe):
    root, raw = safe()
    scene = xcloudmask.local.open(root, bands=["red"], scale=2e-4, offset=0.5, nodata=-1, date="2020-02-02")
    np.testing.assert_allclose(scene[0, 0], raw["B04"] * 2e-4 + 0.5, atol=1e-6)
    assert str(scene.time.values[0]).startswith("2020-02-02")
    assert xcloudmask.local.open(root, sensor="sentinel-2a").attrs["sensor"] == "sentinel-2a"


@pytest.mark.parametrize("baseline", ["04.00", "05.11"])
def test_missing_offset_that_must_be_there(safe, baseline):
    root, raw = safe(baseline=baseline, offsets={})
    with pytest.raises(
        UnitError, match=rf"MTD_MSIL1C.xml: processing baseline {baseline}.*offset=-0.1.*offset=0"
    ):
        xcloudmask.local.open(root)
    scene = xcloudmask.local.open(root, bands=["red"], offset=0)
    np.testing.assert_allclose(scene[0, 0], expected(raw["B04"], 0.0), atol=1e-6)


def test_level_that_contradicts(safe):
    root, _ = safe("L1C")
    assert xcloudmask.local.open(root, level="L1C").attrs["level"] == "toa"
    with pytest.raises(UnitError, match=r"MTD_MSIL1C.xml: the product says it is TOA, level='boa'"):
        xcloudmask.local.open(root, level="L2A")


def test_band_the_product_does_not_hold(safe):
    root, _ = safe("L2A", bands=[b for b in IDS if b != "B10"])
    with pytest.raises(OptionError, match=r"'cirrus'.*Allowed: "):
        xcloudmask.local.open(root, bands=["cirrus"])


def test_broken_products_say_which_file(safe):
    root, _ = safe()
    image = root / "GRANULE" / TILE / "IMG_DATA" / f"{IMAGE}_B04.jp2"
    whole = image.read_bytes()
    scene = xcloudmask.local.open(root, bands=["red"])
    image.unlink()
    with pytest.raises(AssetError, match=r"_B04.jp2: its pixels cannot be read: .*open\(\) it again"):
        scene.compute()
    image.write_bytes(b"no image")
    with pytest.raises(AssetError, match=r"_B04.jp2: cannot be opened: .*fetch the product again"):
        xcloudmask.local.open(root, bands=["red"])
    image.write_bytes(whole)
    xml = root / "MTD_MSIL1C.xml"
    xml.write_text(xml.read_text()[:200])
    with pytest.raises(CloudMaskError, match=r"MTD_MSIL1C.xml: not well-formed XML"):
        xcloudmask.local.open(root)


def test_a_band_whose_file_is_missing_is_told(safe):
    root, _ = safe()
    (root / "GRANULE" / TILE / "IMG_DATA" / f"{IMAGE}_B12.jp2").unlink()
    with pytest.warns(NoDataWarning, match=r"MTD_MSIL1C.xml: the files of B12 \(swir22\) are not there"):
        scene = xcloudmask.local.open(root)
    assert scene.band.values.tolist() == ["blue", "green", "red", "nir", "swir16"]
    assert xcloudmask.local.open(root, bands=["red", "nir"]).sizes["band"] == 2  # nobody asked for it
    with pytest.raises(OptionError, match="'swir22'"):
        xcloudmask.local.open(root, bands=["swir22"])


def test_metadata_without_quantification(safe):
    root, _ = safe()
    xml = root / "MTD_MSIL1C.xml"
    xml.write_text(xml.read_text().replace("QUANTIFICATION_VALUE", "OTHER"))
    with pytest.raises(CloudMaskError, match=r"QUANTIFICATION_VALUE is missing. Pass scale="):
        xcloudmask.local.open(root)


def test_several_tiles_and_unknown_platform(safe):
    root, _ = safe()
    (root / "GRANULE" / "L1C_T33TTT").mkdir()
    (root / "GRANULE" / "L1C_T33TTT" / "MTD_TL.xml").write_text(TILE_XML)
    with pytest.raises(CloudMaskError, match=r"2 tiles.*Move all but one"):
        xcloudmask.local.open(root)
    (root / "GRANULE" / "L1C_T33TTT" / "MTD_TL.xml").unlink()
    xml = root / "MTD_MSIL1C.xml"
    xml.write_text(xml.read_text().replace("Sentinel-2B", "Kompsat"))
    with pytest.raises(CloudMaskError, match=r"SPACECRAFT_NAME is 'Kompsat'.*Pass sensor="):
        xcloudmask.local.open(root)


# ------------------------------------------------------------------------------------------- hostile products


def change(root, old, new):
    path = root / "MTD_MSIL1C.xml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        *((">10000<", f">{value}<") for value in ("0", "abc", "nan", "inf", "-10000", "1e-320", " ")),
        *(('band_id="3"', f'band_id="{value}"') for value in ("99", "-10", "abc", "3.5", "4")),
        ('band_id="3"', 'band="3"'),
        *((">-1000<", f">{value}<") for value in ("abc", "nan", "1e300")),
    ],
)
def test_numbers_that_cannot_be_meant_are_told(safe, old, new):
    root, _ = safe()
    change(root, old, new)
    with pytest.raises(CloudMaskError, match=r"MTD_MSIL1C.xml.*(QUANTIFICATION_VALUE|ADD_OFFSET|band_id)"):
        xcloudmask.local.open(root, bands=["red"])


@pytest.mark.parametrize("zipped", [True, False])
def test_metadata_without_end_are_not_read_to_their_end(safe, tmp_path, zipped):
    root, _ = safe()
    path = root / "MTD_MSIL1C.xml"
    path.write_text(path.read_text() + "<!--" + "x" * 300_000_000 + "-->")
    given = root
    if zipped:
        given = tmp_path / "product.zip"
        with zipfile.ZipFile(given, "w", zipfile.ZIP_DEFLATED) as archive:
            for file in root.rglob("*.*"):
                archive.write(file, file.relative_to(tmp_path))
        assert given.stat().st_size < 2e6
    tracemalloc.start()
    with pytest.raises(CloudMaskError, match=r"MTD_MSIL1C.xml: larger than 8 MiB"):
        xcloudmask.local.open(given)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 40e6


def test_a_band_that_is_a_vrt_is_not_opened(safe, tmp_path):
    root, _ = safe()
    (tmp_path / "canary").write_bytes(bytes(range(144)))
    path = next(root.rglob("*_B04.jp2"))
    path.write_text(
        '<VRTDataset rasterXSize="12" rasterYSize="12"><SRS>EPSG:32632</SRS>'
        "<GeoTransform>600000, 10, 0, 4900020, 0, -10</GeoTransform>"
        '<VRTRasterBand dataType="Byte" band="1" subClass="VRTRawRasterBand">'
        f"<SourceFilename>{tmp_path}/canary</SourceFilename><LineOffset>12</LineOffset></VRTRasterBand>"
        "</VRTDataset>"
    )
    with pytest.raises(AssetError, match=r"B04.jp2: cannot be opened.*not recognized"):
        xcloudmask.local.open(root, bands=["red"])
