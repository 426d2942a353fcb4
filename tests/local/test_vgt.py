"""SPOT-VGT products: HDF4 planes, and planes that were converted to GeoTIFF."""

import sys

import numpy as np
import pytest

import xcloudmask.local
from xcloudmask.errors import AssetError, CloudMaskError, OptionError, UnitError

STEP = 1 / 112
PLANES = {"B0": 7, "B2": 6, "B3": 5, "MIR": 4}
LOG = """PRODUCT_ID                {product}
SENSOR_CODE               {sensor}
SYNTHESIS_FIRST_DATE      20060720223132
MAP_PROJ_NAME             PLATE_CARREE_1KMG nom provisoirement egal au code
MAP_PROJ_FAMILY           UNPROJECTED
MAP_PROJ_RESOLUTION       0.0089285714
CARTO_UPPER_LEFT_X         -11.000000
CARTO_UPPER_LEFT_Y          75.000000
"""


def write_hdf4(path, values, name="PIXEL DATA"):
    sd = pytest.importorskip("pyhdf.SD", reason="HDF4 needs pyhdf: pip install 'xcloudmask[local]'")
    kind = {"int16": sd.SDC.INT16, "uint8": sd.SDC.UINT8}[str(values.dtype)]
    file = sd.SD(str(path), sd.SDC.WRITE | sd.SDC.CREATE | sd.SDC.TRUNC)
    dataset = file.create(name, kind, values.shape)
    dataset[:] = values
    dataset.endaccess()
    file.end()


@pytest.fixture
def vgt(tmp_path, raster):
    """Write a product; DN and status map come back as well."""

    def write(product="V2KRNS10__20060720E", sensor="VGT2", form="hdf", dataset="PIXEL DATA", planes=PLANES):
        folder = tmp_path / "0001"
        folder.mkdir(exist_ok=True)
        raw = {}
        flags = np.full((4, 6), 0b1111_1000, "uint8")
        flags[1, :] = [0b1111_1011, 0b0111_1000, 0b1011_1000, 0b1101_1000, 0b1110_1000, 0]
        for seed, plane in enumerate(planes):
            raw[plane] = np.random.default_rng(seed).integers(1, 2000, (4, 6)).astype("int16")
            raw[plane][0, 0] = 0
        for plane, values in ({**raw, "SM": flags}).items():
            if form == "hdf":
                write_hdf4(folder / f"0001_{plane}.HDF", values, dataset)
            else:
                place = {"size": STEP, "left": -11 - STEP / 2, "top": 75 + STEP / 2, "crs": "EPSG:4326"}
                raster(folder / f"0001_{plane}.tif", values, **place)
        (folder / "0001_LOG.TXT").write_text(LOG.format(product=product, sensor=sensor))
        return folder, raw, flags

    return write


def expected(raw, flags, bit):
    return np.where((flags >> bit & 1).astype(bool) & (raw != 0), raw * 0.0005, np.nan)


@pytest.mark.parametrize("form", ["hdf", "tif"])
@pytest.mark.parametrize(("product", "sensor", "level", "name"), [
    ("V2KRNS10__20060720E", "VGT2", "boa", "spot-vgt2"),
    ("V1KRNP____19990720F123_V003", "VGT1", "toa", "spot-vgt1"),
])  # fmt: skip
def test_reflectance_and_description(vgt, form, product, sensor, level, name):
    folder, raw, flags = vgt(product, sensor, form)
    scene = xcloudmask.local.open(folder)
    assert scene.attrs == {"level": level, "sensor": name}
    assert scene.band.values.tolist() == ["blue", "red", "nir", "swir16"]
    assert str(scene.time.values[0]) == "2006-07-20T22:31:32.000000000"
    assert scene.rio.crs.to_epsg() == 4326
    assert (scene.x.values[0], scene.y.values[0]) == pytest.approx((-11.0, 75.0), abs=1e-9)
    assert np.diff(scene.x) == pytest.approx(STEP, rel=1e-12)
    for index, (plane, bit) in enumerate(PLANES.items()):
        np.testing.assert_allclose(scene[0, index], expected(raw[plane], flags, bit), atol=1e-6)


def test_both_names_of_the_dataset(vgt):
    folder, raw, flags = vgt(dataset="PIXEL_DATA")
    scene = xcloudmask.local.open(folder, bands=["red"], chunks=(3, 4))
    np.testing.assert_allclose(scene[0, 0], expected(raw["B2"], flags, 6), atol=1e-6)
    folder, _, _ = vgt(dataset="ANGLES_VALUES")
    with pytest.raises(CloudMaskError, match=r"no dataset named 'PIXEL DATA'.*ANGLES_VALUES"):
        xcloudmask.local.open(folder)


def test_pixels_are_read_when_computed_and_not_before(vgt):
    folder, raw, _ = vgt()
    scene = xcloudmask.local.open(folder, bands=["red"], offset=0.0)
    for path in (folder / "0001_B2.HDF", folder / "0001_SM.HDF"):
        path.unlink()
    write_hdf4(folder / "0001_B2.HDF", raw["B2"] + np.int16(4))
    write_hdf4(folder / "0001_SM.HDF", np.full((4, 6), 255, "uint8"))
    np.testing.assert_allclose(scene[0, 0], (raw["B2"] + 4) * 0.0005, atol=1e-6)


def test_many_threads_read_one_file(vgt):
    folder, raw, flags = vgt()
    scene = xcloudmask.local.open(folder, chunks=1)
    values = scene.compute(scheduler="threads", num_workers=8)
    np.testing.assert_allclose(values.sel(band="nir")[0], expected(raw["B3"], flags, 5), atol=1e-6)


def test_geotiff_planes_are_preferred_and_not_mixed(vgt):
    vgt()
    folder, _, _ = vgt(form="tif")
    (folder / "0001_B2.HDF").write_bytes(b"broken")
    scene = xcloudmask.local.open(folder, bands=["red"], resolution=2 * STEP)
    assert scene.shape == (1, 1, 2, 3)
    (folder / "0001_SM.tif").unlink()
    with pytest.raises(CloudMaskError, match=r"0001_B0.tif and 0001_SM.HDF are of different formats"):
        xcloudmask.local.open(folder)


def test_what_is_wrong_is_said(vgt):
    folder, _, _ = vgt()
    with pytest.raises(CloudMaskError, match=r"0001_B2.HDF: an HDF4 file is read on its own grid only"):
        xcloudmask.local.open(folder, bands=["red"], resolution=0.02)
    with pytest.raises(UnitError, match="says it is BOA, level='toa'"):
        xcloudmask.local.open(folder, level="toa")
    with pytest.raises(OptionError, match="'green'"):
        xcloudmask.local.open(folder, bands=["green"])
    log = folder / "0001_LOG.TXT"
    text = log.read_text()
    log.write_text(text.replace("V2KRNS10", "XXKRNS10").replace("VGT2", ""))
    with pytest.raises(CloudMaskError, match=r"LOG.TXT: which VEGETATION.*sensor='spot-vgt1'"):
        xcloudmask.local.open(folder)
    log.write_text(text.replace("MAP_PROJ_RESOLUTION", "OTHER"))
    with pytest.raises(CloudMaskError, match=r"LOG.TXT: MAP_PROJ_RESOLUTION is missing"):
        xcloudmask.local.open(folder)
    log.write_text(text.replace("UNPROJECTED", "POLAR STEREOGRAPHIC"))
    with pytest.raises(CloudMaskError, match="only plate carree"):
        xcloudmask.local.open(folder)
    log.write_text(text)
    (folder / "0001_B2.HDF").write_bytes(b"broken")
    with pytest.raises(AssetError, match=r"0001_B2.HDF: cannot be opened as HDF4.*Fetch the product again"):
        xcloudmask.local.open(folder)


def test_a_plane_that_lies_in_another_file_is_refused(vgt, tmp_path):
    """HDF4 knows external elements: /etc/passwd would come back as reflectance."""
    folder, _, _ = vgt()
    sd = pytest.importorskip("pyhdf.SD", reason="HDF4 needs pyhdf: pip install 'xcloudmask[local]'")
    (tmp_path / "canary").write_bytes(bytes(range(48)))
    file = sd.SD(str(folder / "0001_B2.HDF"), sd.SDC.WRITE | sd.SDC.CREATE | sd.SDC.TRUNC)
    dataset = file.create("PIXEL DATA", sd.SDC.INT16, (4, 6))
    dataset.setexternalfile(str(tmp_path / "canary"), 0)
    dataset.endaccess()
    file.end()
    with pytest.raises(AssetError, match=r"0001_B2.HDF: takes pixels from another file"):
        xcloudmask.local.open(folder).compute()
    assert (tmp_path / "canary").read_bytes() == bytes(range(48))


def test_a_compressed_plane_is_read(vgt):
    """It is a special element, too."""
    folder, raw, flags = vgt()
    sd = pytest.importorskip("pyhdf.SD", reason="HDF4 needs pyhdf: pip install 'xcloudmask[local]'")
    file = sd.SD(str(folder / "0001_B2.HDF"), sd.SDC.WRITE | sd.SDC.CREATE | sd.SDC.TRUNC)
    dataset = file.create("PIXEL DATA", sd.SDC.INT16, (4, 6))
    dataset.setcompress(sd.SDC.COMP_DEFLATE, 6)
    dataset[:] = raw["B2"]
    dataset.endaccess()
    file.end()
    found = xcloudmask.local.open(folder).sel(band="red")[0]
    np.testing.assert_allclose(found, expected(raw["B2"], flags, 6), rtol=1e-6)


def test_without_pyhdf_the_remedies_are_named(vgt, monkeypatch):
    folder, _, _ = vgt()
    monkeypatch.setitem(sys.modules, "pyhdf.SD", None)
    with pytest.raises(CloudMaskError, match=r"HDF: .*pip install 'xcloudmask\[local\]'.*gdal_translate"):
        xcloudmask.local.open(folder)


@pytest.mark.parametrize("value", ["0", "nan", "-1", "inf", "abc", "1e-300", "50"])
def test_a_pixel_size_that_cannot_be_meant_is_told(vgt, value):
    folder, _, _ = vgt()
    log = folder / "0001_LOG.TXT"
    lines = [line for line in log.read_text().splitlines() if not line.startswith("MAP_PROJ_RESOLUTION")]
    log.write_text("\n".join([*lines, f"MAP_PROJ_RESOLUTION {value}"]))
    with pytest.raises(UnitError, match=rf"MAP_PROJ_RESOLUTION is '{value}'"):
        xcloudmask.local.open(folder)
