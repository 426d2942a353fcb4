"""Proba-V in HDF5 and in GeoTIFF."""

import numpy as np
import pytest

import xcloudmask.local
from xcloudmask.errors import AssetError, BandError, CloudMaskError, UnitError

h5py = pytest.importorskip("h5py", reason="Proba-V's HDF5 needs h5py: pip install 'xcloudmask[local]'")

BANDS = {"BLUE": 7, "RED": 6, "NIR": 5, "SWIR": 4}  # and the bit of the status map
STEP = 1 / 336


def dn(seed, shape=(4, 6)):
    values = np.random.default_rng(seed).integers(0, 2000, shape).astype("int16")
    values[0, 0] = -1
    return values


@pytest.fixture
def probav(tmp_path):
    """Write a file; DN and status map come back as well."""

    def write(
        name="PROBAV_S1_TOA_X18Y02_20180721_333M_V101.HDF5", level="LEVEL3", kinds=("TOA",), scale=2000.0,
        offset=0.0, nodata=-1.0, crs=False, mapping=True, bands=BANDS, status=True,
    ):  # fmt: skip
        raw = {}
        flags = np.full((4, 6), 0b1111_1000, "uint8")
        flags[1, :] = [
            0b1111_1011,
            0b0111_1000,
            0b1011_1000,
            0b1101_1000,
            0b1110_1000,
            0,
        ]  # cloud; one bad each
        with h5py.File(tmp_path / name, "w") as file:
            for seed, band in enumerate(bands):
                group = file.create_group(f"{level}/RADIOMETRY/{band}")
                group.attrs["OBSERVATION_START_DATE"] = "2018-07-21"
                group.attrs["OBSERVATION_START_TIME"] = "10:20:30"
                for shift, kind in enumerate(kinds):
                    raw[band, kind] = dn(10 * shift + seed)
                    plane = group.create_dataset(
                        kind, data=raw[band, kind], chunks=(2, 3), compression="gzip"
                    )
                    for key, value in (("SCALE", scale), ("OFFSET", offset), ("NO_DATA", nodata)):
                        if value is not None:
                            plane.attrs[key] = np.float32(value)
                    if mapping:
                        words = [
                            "Geographic Lat/Lon",
                            "0.5",
                            "0.5",
                            "0.0",
                            "55.0",
                            repr(STEP),
                            repr(STEP),
                            "WGS84",
                        ]
                        plane.attrs["MAPPING"] = np.array(words, dtype="S20")
            if status:
                file.create_dataset(f"{level}/QUALITY/SM", data=flags)
            if crs:
                file.create_dataset("crs", data=b"")
                file["crs"].attrs["GeoTransform"] = f"10.0 {STEP} 0.0 50.0 0.0 {-STEP}"
        return tmp_path / name, raw, flags

    return write


def expected(raw, flags, bit, scale=2000.0, offset=0.0, nodata=-1):
    good = (flags >> bit & 1).astype(bool) & (raw != nodata)
    return np.where(good, (raw.astype(float) - offset) / scale, np.nan)


@pytest.mark.parametrize(("name", "level", "kind", "want"), [
    ("PROBAV_S1_TOA_X18Y02_20180721_333M_V101.HDF5", "LEVEL3", "TOA", "toa"),
    ("PROBAV_S10_TOC_X18Y02_20180721_1KM_V101.hdf5", "LEVEL3", "TOC", "boa"),
    ("PROBAV_S5_TOC_X18Y02_20180721_100M_V101.HDF5", "LEVEL3", "TOC", "boa"),
    ("PROBAV_L2A_20180721_102030_2_100M_V102.HDF5", "LEVEL2A", "TOA", "toa"),
])  # fmt: skip
def test_reflectance_level_and_description(probav, name, level, kind, want):
    path, raw, flags = probav(name, level, (kind,))
    scene = xcloudmask.local.open(path)
    assert scene.dims == ("time", "band", "y", "x")
    assert scene.attrs == {"level": want, "sensor": "proba-v"}
    assert scene.band.values.tolist() == ["blue", "red", "nir", "swir16"]
    assert scene.item_id.item() == path.stem
    assert str(scene.time.values[0]) == "2018-07-21T10:20:30.000000000"
    for index, (band, bit) in enumerate(BANDS.items()):
        np.testing.assert_allclose(scene[0, index], expected(raw[band, kind], flags, bit), atol=1e-6)


@pytest.mark.parametrize(("scale", "offset", "nodata"), [(2000.0, 0.0, -1.0), (1000.0, 20.0, 5.0)])
def test_numbers_are_those_of_the_file(probav, scale, offset, nodata):
    path, raw, flags = probav(scale=scale, offset=offset, nodata=nodata)
    scene = xcloudmask.local.open(path, bands=["red"])
    want = expected(raw["RED", "TOA"], flags, 6, scale, offset, nodata)
    np.testing.assert_allclose(scene[0, 0], want, atol=1e-6)


def test_numbers_where_the_file_tells_none(probav):
    path, raw, flags = probav(scale=None, offset=None, nodata=None, status=False)
    scene = xcloudmask.local.open(path, bands=["red"])
    np.testing.assert_allclose(scene[0, 0], expected(raw["RED", "TOA"], flags * 0 + 255, 6), atol=1e-6)


def test_corner_of_mapping_is_a_centre_and_geotransform_an_edge(probav):
    path, _, _ = probav()
    scene = xcloudmask.local.open(path)
    assert scene.rio.crs.to_epsg() == 4326
    assert (scene.x.values[0], scene.y.values[0]) == pytest.approx((0.0, 55.0), abs=1e-12)
    assert np.diff(scene.y) == pytest.approx(-STEP)
    path, _, _ = probav(crs=True)
    scene = xcloudmask.local.open(path)
    assert (scene.x.values[0], scene.y.values[0]) == pytest.approx((10 + STEP / 2, 50 - STEP / 2), abs=1e-12)


def test_chunks_do_not_change_the_pixels(probav):
    path, _, _ = probav()
    whole = xcloudmask.local.open(path).values
    for chunks in (1, (3, 2), {"x": 4}, "auto", -1):
        np.testing.assert_array_equal(xcloudmask.local.open(path, chunks=chunks).values, whole)
    assert xcloudmask.local.open(path, chunks=(3, 2)).chunks == ((1,), (1,) * 4, (3, 1), (2, 2, 2))


def test_resolution(probav):
    path, raw, flags = probav()
    scene = xcloudmask.local.open(path, bands=["red"], resolution=2 * STEP)
    blocks = expected(raw["RED", "TOA"], flags * 0 + 255, 6).reshape(2, 2, 3, 2)
    assert scene.shape == (1, 1, 2, 3)
    np.testing.assert_allclose(scene[0, 0, 1], np.nanmean(blocks, axis=(1, 3))[1], atol=1e-6)


def test_pixels_are_read_when_computed_and_not_before(probav):
    path, raw, _ = probav(status=False)
    scene = xcloudmask.local.open(path, bands=["red"])
    with h5py.File(path, "r+") as file:
        file["LEVEL3/RADIOMETRY/RED/TOA"][...] = raw["RED", "TOA"] + 3
    np.testing.assert_allclose(scene[0, 0], (raw["RED", "TOA"] + 3) / 2000, atol=1e-6)


def test_both_levels_in_one_file(probav):
    path, raw, flags = probav(kinds=("TOA", "TOC"))
    with pytest.raises(CloudMaskError, match=r"both TOA and TOC.*level='toa' or level='boa'"):
        xcloudmask.local.open(path)
    scene = xcloudmask.local.open(path, bands=["red"], level="TOC")
    np.testing.assert_allclose(scene[0, 0], expected(raw["RED", "TOC"], flags, 6), atol=1e-6)


def test_what_is_wrong_is_said(probav, tmp_path):
    path, _, _ = probav()
    with pytest.raises(UnitError, match=r"V101.HDF5: the product says it is TOA"):
        xcloudmask.local.open(path, level="boa")
    path, _, _ = probav(mapping=False)
    with pytest.raises(CloudMaskError, match="neither crs/GeoTransform nor the attribute MAPPING"):
        xcloudmask.local.open(path)
    path, _, _ = probav("PROBAV_S10_TOC_NDVI.HDF5", bands={})
    with pytest.raises(CloudMaskError, match="no reflectance of Proba-V in it"):
        xcloudmask.local.open(path)
    with pytest.raises(CloudMaskError, match="holds 2 HDF5 files"):
        xcloudmask.local.open(tmp_path)
    whole, _, _ = probav()
    content = whole.read_bytes()
    whole.write_bytes(content[: len(content) // 2])
    with pytest.raises(AssetError, match=r"HDF5: cannot be opened as HDF5: .*truncated.*Fetch it again"):
        xcloudmask.local.open(whole)
    path.write_bytes(b"nothing")
    with pytest.raises(AssetError, match=r"NDVI.HDF5: cannot be opened as HDF5.*Fetch it again"):
        xcloudmask.local.open(path)


def test_without_h5py_the_remedy_is_named(probav, monkeypatch):
    import sys

    path, _, _ = probav()
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(CloudMaskError, match=r"HDF5: .*pip install 'xcloudmask\[local\]'"):
        xcloudmask.local.open(path)


@pytest.mark.parametrize(("kind", "level"), [("TOA", "toa"), ("TOC", "boa")])
@pytest.mark.parametrize("with_map", [True, False])
def test_geotiff_of_vito(tmp_path, raster, kind, level, with_map):
    """As VITO writes it: bands named by a tag, no scale, the status map in a file beside."""
    name = f"PROBAV_S1_{kind}_X20Y10_20180308_333M_V101"
    raw = np.stack([dn(seed) for seed in range(4)])
    tags = [{"BAND": band, "NODATA": "-1.00000"} for band in ("RED", "NIR", "BLUE", "SWIR")]
    place = {"size": STEP, "left": 20.0, "top": -25.0, "crs": "EPSG:4326"}
    raster(tmp_path / f"{name}_RADIOMETRY.tif", raw, band_tags=tags, **place)
    flags = np.full((4, 6), 0b1111_0000, "uint8")
    flags[2] = 0b0111_0000  # blue is bad
    if with_map:
        raster(tmp_path / f"{name}_SM.tif", flags, **place)
    scene = xcloudmask.local.open(tmp_path / f"{name}_RADIOMETRY.tif")
    assert scene.attrs == {"level": level, "sensor": "proba-v"}
    assert str(scene.time.values[0]).startswith("2018-03-08")
    used = flags if with_map else flags * 0 + 255
    for band, name, index in (
        ("red", "RED", 0),
        ("nir", "NIR", 1),
        ("blue", "BLUE", 2),
        ("swir16", "SWIR", 3),
    ):
        np.testing.assert_allclose(
            scene.sel(band=band)[0], expected(raw[index], used, BANDS[name]), atol=1e-6
        )


def test_geotiff_whose_bands_are_not_the_sensors(tmp_path, raster):
    path = tmp_path / "PROBAV_S1_TOC_X20Y10_20180308_333M_V101_NDVI.tif"
    raster(path, dn(0), band_tags=[{"BAND": "NDVI"}])
    with pytest.raises(BandError, match=r"no band of proba-v.*'NDVI'"):
        xcloudmask.local.open(path)


# ---------------------------------------------------------------------------------------------- hostile files

RED = "LEVEL3/RADIOMETRY/RED/TOA"


@pytest.fixture
def canary(tmp_path):
    """A file that must not be read, and HDF5 that holds the same."""
    (tmp_path / "canary").write_bytes(bytes(range(48)))
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["plane"] = np.arange(24, dtype="int16").reshape(4, 6)
    return tmp_path / "canary"


def external_link(file, canary):
    file[RED] = h5py.ExternalLink(str(canary.parent / "other.h5"), "/plane")


def external_group(file, canary):
    del file["LEVEL3/RADIOMETRY/RED"]
    file["LEVEL3/RADIOMETRY/RED"] = h5py.ExternalLink(str(canary.parent / "other.h5"), "/")


def external_storage(file, canary):
    file.create_dataset(RED, (4, 6), "int16", external=[(str(canary), 0, 48)])


def virtual(file, canary):
    layout = h5py.VirtualLayout((4, 6), "int16")
    layout[:] = h5py.VirtualSource(str(canary.parent / "other.h5"), "plane", (4, 6))
    file.create_virtual_dataset(RED, layout)


def soft_link(file, canary):
    file[RED] = h5py.SoftLink("/LEVEL3/RADIOMETRY/NIR/TOA")


def loop(file, canary):
    file[RED] = h5py.SoftLink(f"/{RED}")


@pytest.mark.parametrize("make", [external_link, external_group, external_storage, virtual, soft_link, loop])
def test_nothing_is_read_from_elsewhere(probav, canary, make):
    path, _, _ = probav()
    with h5py.File(path, "a") as file:
        del file[RED]
        make(file, canary)
    with pytest.raises(CloudMaskError, match=r"RED.*(is a link|kept in other files)"):
        xcloudmask.local.open(path)


@pytest.mark.parametrize("plane", ["text", "group", "three dimensions", "none", "compound"])
def test_what_is_no_plane_is_told(probav, plane):
    path, _, _ = probav()
    with h5py.File(path, "a") as file:
        del file[RED]
        if plane == "group":
            file.create_group(RED)
        else:
            file[RED] = {
                "text": "red", "three dimensions": np.zeros((2, 3, 4), "int16"), "none": h5py.Empty("f"),
                "compound": np.zeros((4, 6), [("a", "i2")]),
            }[plane]  # fmt: skip
    with pytest.raises(CloudMaskError, match=r"RED/TOA is no plane of numbers"):
        xcloudmask.local.open(path)


@pytest.mark.parametrize(
    ("name", "value"),
    [*(("scale", value) for value in (0.0, np.nan, np.inf, -2e3, 1e-30)), ("offset", np.nan)],
)  # fmt: skip
def test_numbers_that_cannot_be_meant_are_told(probav, name, value):
    path, _, _ = probav(**{name: value})
    with pytest.raises(UnitError, match=rf"{name.upper()} is .*Pass scale= and offset="):
        xcloudmask.local.open(path, bands=["red"])
    assert xcloudmask.local.open(path, bands=["red"], scale=5e-4, offset=0).sizes["band"] == 1


def test_a_place_that_cannot_be_meant_is_told(probav):
    path, _, _ = probav(crs=True)
    with h5py.File(path, "a") as file:
        file["crs"].attrs["GeoTransform"] = "10 nan 0 50 0 -0.1"
    with pytest.raises(UnitError, match="GeoTransform is 'nan'"):
        xcloudmask.local.open(path)


def test_a_quote_in_a_name_is_told(probav):
    path, _, _ = probav()
    odd = path.with_name('a"b.h5')
    path.rename(odd)
    with pytest.raises(CloudMaskError, match="a quote in it"):
        xcloudmask.local.open(odd)
