"""Landsat scenes with an MTL file, in its forms, collections, levels and instruments."""

import json
import math
import tarfile
import warnings
from pathlib import Path

import numpy as np
import pytest

import xcloudmask.local
from xcloudmask.errors import CloudMaskError, NoDataWarning, OptionError, UnitError

SINE = math.sin(math.radians(40.0))
SHARED = Path(__file__).parents[3] / "shared" / "stac-items" / "usgs-mtl"

PLATFORMS = {
    "LC08": ("LANDSAT_8", "OLI_TIRS", "landsat-8", ["1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11"]),
    "LC09": ("LANDSAT_9", "OLI_TIRS", "landsat-9", ["1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11"]),
    "LE07": ("LANDSAT_7", "ETM", "landsat-7", ["1", "2", "3", "4", "5", "6_VCID_1", "6_VCID_2", "7", "8"]),
    "LT05": ("LANDSAT_5", "TM", "landsat-5-tm", ["1", "2", "3", "4", "5", "6", "7"]),
    "LM05": ("LANDSAT_5", "MSS", "landsat-4-5-mss", ["1", "2", "3", "4"]),
    "LM01": ("LANDSAT_1", "MSS", "landsat-1-3-mss", ["4", "5", "6", "7"]),
}


def is_thermal(code, band):
    return band.startswith(("10", "11")) or (code in ("LE07", "LT05") and band.startswith("6"))


def groups_of(code, level, collection, product, files):
    """Return what an MTL file says, in the groups of its collection."""
    platform, instrument, _, bands = PLATFORMS[code]
    rescaling, thermal = {}, {}
    for position, band in enumerate(bands, start=1):
        rescaling[f"RADIANCE_MULT_BAND_{band}"], rescaling[f"RADIANCE_ADD_BAND_{band}"] = (
            "3.3420E-04",
            "0.10000",
        )
        if is_thermal(code, band):
            thermal[f"K1_CONSTANT_BAND_{band}"], thermal[f"K2_CONSTANT_BAND_{band}"] = "774.8853", "1321.0789"
        else:
            rescaling[f"REFLECTANCE_MULT_BAND_{band}"] = f"{position}.0000E-05"
            rescaling[f"REFLECTANCE_ADD_BAND_{band}"] = f"-0.{position}00000"
    image = {"SUN_ELEVATION": "40.00000000", "SUN_AZIMUTH": "-20.5", "CLOUD_COVER": "1.0"}
    about = {"SPACECRAFT_ID": platform, "SENSOR_ID": instrument, "DATE_ACQUIRED": "2019-12-01",
             "SCENE_CENTER_TIME": "15:13:51.8610990Z"}  # fmt: skip
    if collection == 1:
        where = "TIRS_THERMAL_CONSTANTS" if code == "LC08" else "THERMAL_CONSTANTS"
        return {
            "METADATA_FILE_INFO": {"LANDSAT_PRODUCT_ID": product, "COLLECTION_NUMBER": "01"},
            "PRODUCT_METADATA": {"DATA_TYPE": "L1TP", **about, **files},
            "IMAGE_ATTRIBUTES": image,
            "RADIOMETRIC_RESCALING": rescaling,
            where: thermal,
        }
    groups = {
        "PRODUCT_CONTENTS": {"LANDSAT_PRODUCT_ID": product, "PROCESSING_LEVEL": level, **files},
        "IMAGE_ATTRIBUTES": {**about, **image},
    }
    if level.startswith("L2"):
        surface = {f"REFLECTANCE_MULT_BAND_{b}": "2.75e-05" for b in bands if not is_thermal(code, b)}
        surface |= {f"REFLECTANCE_ADD_BAND_{b}": "-0.2" for b in bands if not is_thermal(code, b)}
        groups["LEVEL2_SURFACE_REFLECTANCE_PARAMETERS"] = surface
        b = "6" if code in ("LE07", "LT05") else "10"
        groups["LEVEL2_SURFACE_TEMPERATURE_PARAMETERS"] = {
            f"TEMPERATURE_MULT_BAND_ST_B{b}": "0.00341802",
            f"TEMPERATURE_ADD_BAND_ST_B{b}": "149.0",
        }
        groups["LEVEL1_PROCESSING_RECORD"] = {f"FILE_NAME_BAND_{b}": f"LEVEL1_B{b}.TIF" for b in bands}
    groups["LEVEL1_RADIOMETRIC_RESCALING"] = rescaling
    groups["LEVEL1_THERMAL_CONSTANTS"] = thermal
    return groups


def as_text(groups, form, root):
    if form == "json":
        return json.dumps({root: groups})
    if form == "xml":
        inner = "".join(
            f"<{g}>{''.join(f'<{k}>{v}</{k}>' for k, v in p.items())}</{g}>" for g, p in groups.items()
        )
        return f'<?xml version="1.0"?><{root}>{inner}</{root}>'
    lines = [f"GROUP = {root}"]
    for group, pairs in groups.items():
        quoted = (f'    {k} = {v if v[0] in "-0123456789" and ":" not in v else chr(34) + v + chr(34)}'
                  for k, v in pairs.items())  # fmt: skip
        lines += [f"  GROUP = {group}", *quoted, f"  END_GROUP = {group}"]
    return "\n".join([*lines, f"END_GROUP = {root}", "END", ""])


@pytest.fixture
def landsat(tmp_path, raster, numbers):
    """Write a scene; the DN of every band comes back as well."""

    def write(code="LC08", level="L1TP", collection=2, form="txt", name=None):
        bands = PLATFORMS[code][3]
        product = name or f"{code}_{level}_008059_20191201_20200825_0{collection}_T1"
        folder = tmp_path / product
        raw, files = {}, {}
        if level.startswith("L2"):
            bands = [b for b in bands if b not in ("8", "9", "11") and not b.endswith("VCID_2")]
        for seed, band in enumerate(bands):
            key, file = f"FILE_NAME_BAND_{band}", f"{product}_B{band}.TIF"
            if level.startswith("L2"):
                number = band.partition("_")[0]
                thermal = is_thermal(code, band)
                file = f"{product}_{'ST' if thermal else 'SR'}_B{number}.TIF"
                key = f"FILE_NAME_BAND_{'ST_B' if thermal else ''}{number}"
            size, shape = (15.0, (12, 12)) if band == "8" else (30.0, (6, 6))
            old = code[:2] in ("LE", "LT", "LM") and level.startswith("L1")
            raw[band] = (
                numbers(seed, shape, "uint8", 20, 250) if old else numbers(seed, shape, low=7000, high=40000)
            )
            files[key] = file
            raster(folder / file, raw[band], size=size)
        raster(folder / f"{product}_QA_PIXEL.TIF", raw[bands[0]], size=30.0)
        root = "LANDSAT_METADATA_FILE" if collection == 2 else "L1_METADATA_FILE"
        groups = groups_of(code, level, collection, product, files)
        (folder / f"{product}_MTL.{form}").write_text(as_text(groups, form, root))
        return folder, raw

    return write


def toa(raw, position):
    return np.where(raw == 0, np.nan, (raw * (position * 1e-5) - position / 10) / SINE)


def kelvin(raw):
    with np.errstate(divide="ignore"):
        values = 1321.0789 / np.log(774.8853 / (raw * 3.342e-4 + 0.1) + 1)
    return np.where(raw == 0, np.nan, values)


@pytest.mark.parametrize("form", ["txt", "json", "xml"])
@pytest.mark.parametrize("collection", [1, 2])
@pytest.mark.parametrize("code", list(PLATFORMS))
def test_level_1_is_reflectance_over_the_sine_of_the_elevation(landsat, code, collection, form):
    folder, raw = landsat(code, collection=collection, form=form)
    scene = xcloudmask.local.open(folder)
    assert scene.attrs == {"level": "toa", "sensor": PLATFORMS[code][2]}
    assert (scene.sun_elevation.item(), scene.sun_azimuth.item()) == (40.0, 339.5)
    assert scene.item_id.item() == folder.name
    assert str(scene.time.values[0]) == "2019-12-01T15:13:51.861099000"
    assert "pan" not in scene.band
    assert (scene.kind == "reflectance").all()
    for index, name in enumerate(scene.band_name.values):
        band = name[1:]
        want = toa(raw[band], PLATFORMS[code][3].index(band) + 1)
        np.testing.assert_allclose(scene[0, index], want, atol=1e-6, rtol=1e-6)


def test_auto_takes_six_bands_and_all_takes_every_reflectance(landsat):
    folder, _ = landsat()
    assert xcloudmask.local.open(folder).band.values.tolist() == [
        "blue", "green", "red", "nir08", "swir16", "swir22",
    ]  # fmt: skip
    everything = xcloudmask.local.open(folder, bands="all")
    assert everything.band_name.values.tolist() == [f"B{n}" for n in range(1, 10)]
    assert everything.sizes["x"] == 12  # the panchromatic band's


@pytest.mark.parametrize(("code", "names"), [
    ("LC08", {"lwir11": "10", "lwir12": "11"}), ("LE07", {"lwir": "6_VCID_1", "B6_VCID_2": "6_VCID_2"}),
    ("LT05", {"lwir": "6"}),
])  # fmt: skip
def test_level_1_thermal_is_kelvin(landsat, code, names):
    folder, raw = landsat(code)
    scene = xcloudmask.local.open(folder, bands=list(names))
    assert scene.band.values.tolist() == list(names)
    assert (scene.kind == "brightness_temperature").all()
    for name, number in names.items():
        np.testing.assert_allclose(scene.sel(band=name)[0], kelvin(raw[number]), rtol=1e-6)


@pytest.mark.parametrize("code", ["LC08", "LC09", "LE07", "LT05"])
def test_level_2_goes_by_group_and_knows_no_sun(landsat, code):
    folder, raw = landsat(code, level="L2SP")
    thermal = "lwir" if code in ("LE07", "LT05") else "lwir11"
    scene = xcloudmask.local.open(folder, bands=["red", "swir22", thermal])
    number = {"B6_VCID_1": "6_VCID_1"}.get(scene.band_name.values[2], scene.band_name.values[2][1:])
    assert scene.attrs["level"] == "boa"
    red = raw[scene.band_name.values[0][1:]]
    np.testing.assert_allclose(scene[0, 0], np.where(red == 0, np.nan, red * 2.75e-5 - 0.2), atol=1e-6)
    want = np.where(raw[number] == 0, np.nan, raw[number] * 0.00341802 + 149)
    np.testing.assert_allclose(scene[0, 2], want, rtol=1e-6)


def test_pan_sharpens_the_grid_only_when_asked_for(landsat):
    folder, raw = landsat()
    scene = xcloudmask.local.open(folder, bands=["red", "pan"])
    np.testing.assert_allclose(scene[0, 0], np.kron(toa(raw["4"], 4), np.ones((2, 2))), atol=1e-6)
    coarse = xcloudmask.local.open(folder, bands=["pan"], resolution=30)
    blocks = toa(raw["8"], 8).reshape(6, 2, 6, 2)
    np.testing.assert_allclose(coarse[0, 0], np.nanmean(blocks, axis=(1, 3)), atol=2e-6)


def test_tar_and_upper_case_are_read(landsat, tmp_path):
    folder, raw = landsat()
    archive = tmp_path / "scene.tar"
    with tarfile.open(archive, "w") as file:
        for path in sorted(folder.iterdir()):
            file.add(path, path.name)
    np.testing.assert_allclose(
        xcloudmask.local.open(archive, bands=["red"])[0, 0], toa(raw["4"], 4), atol=1e-6
    )
    packed = tmp_path / "scene.tar.gz"
    packed.write_bytes(b"\x1f\x8b")
    with pytest.raises(CloudMaskError, match=r"scene.tar.gz: a compressed archive.*Unpack it"):
        xcloudmask.local.open(packed)


def test_sun_is_needed_and_may_be_given(landsat):
    folder, raw = landsat()
    mtl = next(folder.glob("*_MTL.txt"))
    text = mtl.read_text()
    mtl.write_text(text.replace("SUN_ELEVATION", "OTHER"))
    with pytest.raises(UnitError, match=r"_MTL.txt: .*sun's elevation.*sun_elevation="):
        xcloudmask.local.open(folder)
    scene = xcloudmask.local.open(folder, bands=["red"], sun_elevation=40)
    np.testing.assert_allclose(scene[0, 0], toa(raw["4"], 4), atol=1e-6)
    mtl.write_text(text.replace("40.00000000", "-30.7"))
    with pytest.raises(UnitError, match=r"-30.7 degrees; reflectance needs one above 0"):
        xcloudmask.local.open(folder)
    assert xcloudmask.local.open(folder, bands=["lwir11"]).sizes["band"] == 1  # heat needs no sun


def test_missing_coefficient_names_file_key_and_way_out(landsat):
    folder, raw = landsat()
    mtl = next(folder.glob("*_MTL.txt"))
    mtl.write_text(mtl.read_text().replace("REFLECTANCE_MULT_BAND_4", "X"))
    with pytest.raises(UnitError, match=r"no REFLECTANCE_MULT_BAND_4 in LEVEL1_RAD.*Leave band B4 out"):
        xcloudmask.local.open(folder)
    scene = xcloudmask.local.open(folder, bands=["red"], scale=1e-4)
    np.testing.assert_allclose(scene[0, 0], np.where(raw["4"] == 0, np.nan, raw["4"] * 1e-4), atol=1e-6)


def test_missing_files(landsat):
    folder, _ = landsat()
    for path in folder.glob("*_B4.TIF"):
        path.unlink()
    with pytest.warns(NoDataWarning, match=r"_MTL.txt: the files of B4 \(red\) are not there"):
        assert "red" not in xcloudmask.local.open(folder).band
    with pytest.raises(OptionError, match="'red'"):
        xcloudmask.local.open(folder, bands=["red"])
    for path in folder.glob("*_B*.TIF"):
        path.unlink()
    with pytest.raises(CloudMaskError, match=r"_MTL.txt: none of the band files.*_B1.TIF"):
        xcloudmask.local.open(folder)


@pytest.mark.parametrize("part", [0.15, 0.3, 0.5, 0.7])
def test_an_mtl_file_that_was_cut_short_is_told(landsat, part):
    folder, _ = landsat()
    mtl = next(folder.glob("*_MTL.txt"))
    whole = mtl.read_text()
    mtl.write_text(whole[: int(part * len(whole))])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(CloudMaskError, match=r"_MTL.txt"):
            xcloudmask.local.open(folder)


def test_two_scenes_in_one_folder(landsat):
    folder, _ = landsat()
    (folder / "LC08_OTHER_MTL.txt").write_text("END")
    with pytest.raises(CloudMaskError, match=r"MTL files of 2 scenes.*Open the folder of"):
        xcloudmask.local.open(folder)
    (folder / "LC08_OTHER_MTL.txt").unlink()
    next(folder.glob("*_MTL.txt")).write_text("nothing")
    with pytest.raises(UnitError, match=r"_MTL.txt: not a Landsat MTL file"):
        xcloudmask.local.open(folder)


@pytest.mark.parametrize("path", sorted(SHARED.glob("*.*")) or [None], ids=lambda p: p.name if p else "none")
def test_every_real_mtl_file_gives_coefficients(path, tmp_path, raster):
    """Pixels of our own under real metadata: level, sensor and scale must be found for each file."""
    if path is None:
        pytest.skip(f"{SHARED} is not here: real MTL files are kept outside of the repository")
    from xcloudmask.stac.mtl import parse_mtl

    groups = parse_mtl(path.read_text())
    for key, file in groups["PRODUCT_CONTENTS"].items():
        if key.startswith("FILE_NAME_BAND"):
            raster(tmp_path / file, np.full((2, 2), 100, "uint16"), size=30.0)
    (tmp_path / path.name).write_text(path.read_text())
    if float(groups["IMAGE_ATTRIBUTES"]["SUN_ELEVATION"]) < 0:
        with pytest.raises(UnitError, match=r"-30.7471 degrees"):
            xcloudmask.local.open(tmp_path)
        return
    scene = xcloudmask.local.open(tmp_path, bands=["red", "nir08"])
    number = scene.band_name.values[0][1:]
    level = groups["PRODUCT_CONTENTS"]["PROCESSING_LEVEL"]
    if level.startswith("L2"):
        want = 100 * 2.75e-5 - 0.2
    else:
        rescaling = groups["LEVEL1_RADIOMETRIC_RESCALING"]
        sine = math.sin(math.radians(float(groups["IMAGE_ATTRIBUTES"]["SUN_ELEVATION"])))
        scale, offset = (float(rescaling[f"REFLECTANCE_{k}_BAND_{number}"]) for k in ("MULT", "ADD"))
        want = (100 * scale + offset) / sine
    assert scene.attrs["level"] == ("boa" if level.startswith("L2") else "toa")
    np.testing.assert_allclose(scene[0, 0], want, atol=1e-6)
