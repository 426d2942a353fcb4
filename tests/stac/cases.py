"""Every profile of profiles.toml as a scene of known pixels: old and new forms, before and since 04.00."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from affine import Affine

from tests.stac.scenes import (
    LEFT,
    SIZE_30,
    TOP,
    Scene,
    Site,
    hls,
    item,
    known,
    landsat1,
    landsat2,
    numbers,
    probav,
    projection,
    sentinel2,
)

# ------------------------------------------------------------------------------------------ further scenes


def landsat1_old(site: Site) -> Scene:
    """Return a Collection 1 scene of Earth Search v0: MTL as text, a BQA layer, keys B2 and so on."""
    sine = math.sin(math.radians(33.5))
    bands = {"blue": "B2", "green": "B3", "red": "B4", "nir08": "B5", "swir16": "B6", "swir22": "B7"}
    mtl = "GROUP = L1_METADATA_FILE\n  GROUP = IMAGE_ATTRIBUTES\n    SUN_ELEVATION = 33.5\n"
    mtl += "  END_GROUP = IMAGE_ATTRIBUTES\n  GROUP = RADIOMETRIC_RESCALING\n"
    for own in bands.values():
        mtl += f"    REFLECTANCE_MULT_BAND_{own[1:]} = 2.0000E-05\n"
        mtl += f"    REFLECTANCE_ADD_BAND_{own[1:]} = -0.100000\n"
    mtl += "  END_GROUP = RADIOMETRIC_RESCALING\nEND_GROUP = L1_METADATA_FILE\nEND\n"
    scene = _landsat1(site, "LC80140332018166LGN00", "landsat-8-l1-c1", "landsat-8", ["oli", "tirs"], bands,
                      dict.fromkeys(bands.values(), (2e-5 / sine, -0.1 / sine)), keys=bands)  # fmt: skip
    _add_mtl(site, scene, "MTL", "txt", mtl)
    scene.item["assets"]["BQA"] = scene.item["assets"].pop("qa_pixel")
    return scene


def landsat1_mss(site: Site) -> Scene:
    """Return a scene of the Multispectral Scanner: 8 bits; the item states radiance only."""
    sine = math.sin(math.radians(28.87))
    bands = {"green": "B1", "red": "B2", "nir08": "B3", "nir09": "B4"}
    figures = {own: (0.0026 + n * 1e-4, 0.0031 * n) for n, own in enumerate(bands.values())}
    rescaling = {}
    for own, (scale, offset) in figures.items():
        rescaling |= {f"REFLECTANCE_MULT_BAND_{own[1:]}": repr(scale),
                      f"REFLECTANCE_ADD_BAND_{own[1:]}": repr(offset)}  # fmt: skip
    groups = {"IMAGE_ATTRIBUTES": {"SUN_ELEVATION": "28.87"}, "LEVEL1_RADIOMETRIC_RESCALING": rescaling}
    wanted = {own: (scale / sine, offset / sine) for own, (scale, offset) in figures.items()}
    scene = _landsat1(site, "LM05_L1GS_192029_19850524_02_T2", "landsat-c2-l1", "landsat-5", ["mss"], bands,
                      wanted, dtype="uint8")  # fmt: skip
    radiance = {"unit": "watt/steradian/square_meter/micrometer", "scale": 0.66, "offset": 2.0, "nodata": 0}
    for common in bands:
        scene.item["assets"][common]["raster:bands"] = [radiance]
    _add_mtl(site, scene, "mtl.json", "json", json.dumps({"LANDSAT_METADATA_FILE": groups}))
    return scene


def _landsat1(
    site: Site, name: str, collection: str, platform: str, instruments: list[str], bands: dict[str, str],
    figures: dict[str, tuple[float, float]], keys: dict[str, str] | None = None, dtype: str = "uint16",
) -> Scene:  # fmt: skip
    transform = Affine(30, 0, LEFT - 15, 0, -30, TOP + 15)
    high = 250 if dtype == "uint8" else 40000
    assets: dict[str, Any] = {}
    expected, files = {}, []
    for common, own in bands.items():
        pixels = numbers(name + own, SIZE_30, high // 5, high, dtype)
        href, path = site.write(f"{name}/{name}_{own}.TIF", pixels, transform, "EPSG:32632", nodata=0)
        files.append(path)
        expected[common] = known(pixels, *figures[own])
        assets[keys[common] if keys else common] = {
            "href": href, "roles": ["data"], "eo:bands": [{"name": own, "common_name": common}],
        }  # fmt: skip
    quality = np.full((SIZE_30, SIZE_30), 2720, "uint16")
    quality[-3:, -3:] = 1
    assets["qa_pixel"] = {"href": site.write(f"{name}/QA.TIF", quality, transform, "EPSG:32632", nodata=1)[0]}
    for values in expected.values():
        values[-3:, -3:] = np.nan
    properties = {"datetime": "2018-06-15T10:00:00Z", "platform": platform, "instruments": instruments,
                  **projection(transform, (SIZE_30, SIZE_30), 32632, False)}  # fmt: skip
    sensor = "landsat-4-5-mss" if instruments == ["mss"] else platform
    return Scene(item(name, collection, "1.0.0", properties, assets), expected, "toa", sensor, files)


def _add_mtl(site: Site, scene: Scene, key: str, ending: str, text: str) -> None:
    name = scene.item["id"]
    (site.root / name / f"{name}_MTL.{ending}").write_text(text)
    scene.item["assets"][key] = {"href": f"{site.base}/{name}/{name}_MTL.{ending}", "roles": ["metadata"]}


def spot_vgt(site: Site, *, terrascope: bool = False, instrument: int = 2, level: str = "boa") -> Scene:
    """Return a SPOT-VGT scene at 1/112 of a degree, with its status map (bits 4 to 7: good bands)."""
    size, step = 24, 1 / 112
    place = Affine(step, 0, 10 + 25 * step, 0, -step, 44.25 + 5 * step)
    kind = "P___" if level == "toa" else "S10_"
    name = f"V{instrument}KRN{kind}20040501F001_V003"
    status = np.full((size, size), 0b1111_1000, "uint8")
    status[0, :] = 0b1111_1011  # cloud: kept
    status[1, :] = 0  # never observed
    status[2, :] = 0b1110_1000  # MIR is bad
    bits = {"B0": 7, "B2": 6, "B3": 5, "MIR": 4}
    assets: dict[str, Any] = {}
    expected, files = {}, []
    for common, own in {"blue": "B0", "red": "B2", "nir": "B3", "swir16": "MIR"}.items():
        pixels = numbers(name + own, size, 20, 1900, "int16", fill=0)
        href, path = site.write(f"{name}/{name}_{own}.tif", pixels, place, "EPSG:4326")
        files.append(path)
        expected[common] = np.where(status >> bits[own] & 1, known(pixels, 5e-4, 0.0), np.nan)
        assets[own] = {"href": href, "roles": ["data"], "eo:bands": [{"name": own, "common_name": common}]}
    assets["SM"] = {"href": site.write(f"{name}/{name}_SM.tif", status, place, "EPSG:4326")[0]}
    properties = {"datetime": "2004-05-01T10:30:00Z", **projection(place, (size, size), 4326, False)}
    family = "vgt-p" if level == "toa" else "vgt-s10-toc"
    collection = f"terrascope-spot-{family}-v3" if terrascope else f"spot-{family}"
    scene = item(name, collection, "1.0.0", properties, assets)
    return Scene(scene, expected, level, f"spot-vgt{instrument}", files)


def hls_l30(site: Site, *, collection: str = "hls2-l30") -> Scene:
    """Return an HLS L30 scene with its thermal bands (hundredths of a degree Celsius); items state no number.

    NASA's own items tell nothing else either: no platform, no place.
    """
    name = "HLS.L30.T32TPQ.2021152T100221.v2.0"
    own = {"blue": "B02", "green": "B03", "red": "B04", "nir08": "B05", "swir16": "B06", "swir22": "B07"}
    return _hls(site, name, collection, own | {"lwir11": "B10"}, "hls-l30", "landsat-8", ["oli", "tirs"])


def hls_s30_nasa(site: Site) -> Scene:
    """Return an HLS S30 scene of NASA's catalogue."""
    own = {"blue": "B02", "green": "B03", "red": "B04", "nir": "B08", "swir16": "B11", "swir22": "B12"}
    return _hls(site, "G2105087660-LPCLOUD", "HLSS30_2.0", own, "hls-s30", "", [])


def _hls(
    site: Site, name: str, collection: str, own: dict[str, str], sensor: str, platform: str,
    instruments: list[str],
) -> Scene:  # fmt: skip
    transform = Affine(30, 0, LEFT, 0, -30, TOP)
    assets, expected, files = {}, {}, []
    for common, band in own.items():
        thermal = common.startswith("lwir")
        low, high = (-3000, 4500) if thermal else (50, 9000)
        pixels = numbers(name + band, SIZE_30, low, high, "int16", fill=-9999)
        href, path = site.write(f"{name}/{name}.{band}.tif", pixels, transform, "EPSG:32632", nodata=-9999)
        files.append(path)
        expected[common] = known(pixels, *((0.01, 273.15) if thermal else (1e-4, 0.0)), fill=-9999)
        assets[band] = {"href": href, "title": band}
    properties: dict[str, Any] = {"datetime": "2021-06-01T10:02:21Z", "eo:cloud_cover": 10}
    properties |= projection(transform, (SIZE_30, SIZE_30), 32632, False)
    if platform:
        properties |= {"platform": platform, "instruments": instruments}
    scene = item(name, collection, "1.0.0", properties, assets)
    return Scene(scene, expected, "boa", sensor, files)


# -------------------------------------------------------------------------------- versions of an item


def as_stac_1_1(old: dict[str, Any]) -> dict[str, Any]:
    """Return an item of STAC 1.0 in the form of 1.1: ``bands`` and ``proj:code``."""
    new = copy.deepcopy(old)
    new["stac_version"] = "1.1.0"
    for place in (new["properties"], *new["assets"].values()):
        if "proj:epsg" in place:
            place["proj:code"] = f"EPSG:{place.pop('proj:epsg')}"
    for asset in new["assets"].values():
        names, figures = asset.pop("eo:bands", []), asset.pop("raster:bands", [])
        bands = []
        for number in range(max(len(names), len(figures))):
            name = dict(names[number]) if number < len(names) else {}
            figure = figures[number] if number < len(figures) else {}
            band = {("eo:common_name" if k == "common_name" else k): v for k, v in name.items()}
            for key, value in figure.items():
                shared = key in ("nodata", "data_type", "unit", "statistics")
                band[key if shared else f"raster:{key}"] = value
            bands.append(band)
        if bands:
            asset["bands"] = bands
    return new


def as_stac_1_0(new: dict[str, Any]) -> dict[str, Any]:
    """Return an item of STAC 1.1 in the form of 1.0: ``eo:bands``, ``raster:bands`` and ``proj:epsg``."""
    old = copy.deepcopy(new)
    old["stac_version"] = "1.0.0"
    for place in (old["properties"], *old["assets"].values()):
        if "proj:code" in place:
            place["proj:epsg"] = int(place.pop("proj:code").removeprefix("EPSG:"))
    for asset in old["assets"].values():
        shared = {
            k: asset.pop(k) for k in ("nodata", "data_type", "raster:scale", "raster:offset") if k in asset
        }
        names, figures = [], []
        for band in asset.pop("bands", []):
            told = {**shared, **band}
            name = {"name": told["name"], "common_name": told.get("eo:common_name")}
            names.append({k: v for k, v in name.items() if v is not None})
            rest = {k: v for k, v in told.items() if k not in name and not k.startswith("eo:")}
            figures.append({k.removeprefix("raster:"): v for k, v in rest.items()})
        if names:
            asset["eo:bands"] = names
        if any(figures):
            asset["raster:bands"] = figures
    return old


def other_version(scene: dict[str, Any]) -> dict[str, Any]:
    """Return an item in the version of STAC that its catalogue does not use."""
    return as_stac_1_0(scene) if scene["stac_version"] == "1.1.0" else as_stac_1_1(scene)


# -------------------------------------------------------------------------------------------- all profiles

#: The day before processing baseline 04.00, and after it.
_OLD, _NEW = "2021-05-17T10:10:31Z", "2024-05-17T10:10:31Z"


def _s2(catalogue: str, *, old: bool = False, **more: Any) -> Callable[[Site], Scene]:
    if old:
        more = {"baseline": "03.01", "date": _OLD, "has_offset": False} | more
    return lambda site: sentinel2(site, catalogue, **more)


_DOUBT = "boa_offset_applied is false"

#: By profile; test_profiles.py sees that none is left out.
PROFILES: dict[str, Callable[[Site], Scene]] = {
    "earth-search-v0 L2A, shifted": _s2("earth-search-v0", baseline="04.00", shifted=True, has_offset=False,
                                        date="2022-03-01T10:10:00Z"),
    "earth-search-v0 L2A, not shifted": _s2("earth-search-v0", baseline="04.00", shifted=False, tag="raw",
                                            date="2022-03-01T10:10:00Z", warning=_DOUBT),
    "earth-search-v0 L2A, before 04.00": _s2("earth-search-v0", old=True, baseline="02.14"),
    "earth-search-v0 L1C": _s2("earth-search-v0", level="toa", baseline="04.00"),
    "earth-search-v0 L1C, before 04.00": _s2("earth-search-v0", old=True, level="toa"),
    "earth-search-v1 L2A, shifted": _s2("earth-search-v1", shifted=True, has_offset=False),
    "earth-search-v1 L2A, not shifted": _s2("earth-search-v1", shifted=False, tag="raw",
                                            warning=_DOUBT),
    "earth-search-v1 L2A, before 04.00": _s2("earth-search-v1", old=True, shifted=False),
    "earth-search-v1 L1C": _s2("earth-search-v1", level="toa"),
    "earth-search-v1 L1C, before 04.00": _s2("earth-search-v1", old=True, level="toa"),
    "earth-search C1 L2A": _s2("earth-search-c1", baseline="05.00"),
    "earth-search C1 L2A of 2021, reprocessed": _s2("modern", baseline="05.00", date=_OLD, unit="B"),
    "earth-search pre-C1 L2A, before 04.00": _s2("earth-search-pre-c1", old=True),
    "planetary-computer L2A": _s2("planetary-computer"),
    "planetary-computer L2A, before 04.00": _s2("planetary-computer", old=True, baseline="02.12"),
    "CDSE L2A": _s2("cdse", baseline="05.11"),
    "CDSE L2A, before 04.00": _s2("cdse", old=True),
    "CDSE L1C": _s2("cdse", level="toa", baseline="05.11", unit="C"),
    "CDSE L1C, before 04.00": _s2("cdse", old=True, level="toa", baseline="02.07"),
    "Terrascope L2A": _s2("terrascope", has_offset=False),
    "Terrascope L2A, before 04.00": _s2("terrascope", old=True),
    "Terrascope L2A of today": _s2("terrascope-new", has_offset=False),
    "planetary-computer Landsat L2": lambda s: landsat2(s, "planetary-computer", thermal=True),
    "planetary-computer Landsat L2, retired": lambda s: landsat2(s, "planetary-computer-old", thermal=True),
    "planetary-computer Landsat L1": landsat1_mss,
    "earth-search-v1 Landsat L2": lambda s: landsat2(s, "earth-search", thermal=True,
                                                     date="2021-07-22T10:02:00Z"),
    "earth-search-v0 Landsat L1": landsat1_old,
    "USGS Landsat L2": lambda s: landsat2(s, "usgs"),
    "USGS Landsat L2, temperature": lambda s: landsat2(s, "usgs-st", thermal=True),
    "STAC 1.1 Landsat L2": lambda s: landsat2(s, "modern", date="2021-07-21T10:02:00Z"),
    "USGS Landsat L1": landsat1,
    "HLS S30": hls,
    "HLS S30 of NASA": hls_s30_nasa,
    "HLS L30": hls_l30,
    "HLS L30 of NASA": lambda s: hls_l30(s, collection="HLSL30_2.0"),
    "Terrascope Proba-V TOA": probav,
    "Terrascope Proba-V TOC": lambda s: probav(s, level="boa"),
    "VITO Proba-V, old": lambda s: probav(s, new=False),
    "Terrascope SPOT-VGT TOC": lambda s: spot_vgt(s, terrascope=True),
    "VITO SPOT-VGT TOC": lambda s: spot_vgt(s, instrument=1),
    "VITO SPOT-VGT TOA": lambda s: spot_vgt(s, level="toa"),
}  # fmt: skip
