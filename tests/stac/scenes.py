"""Scenes with known reflectance: files written here, and items in the shapes of the real catalogues.

Each maker writes the files of one scene under a directory and returns the item, with hrefs under `base`, and
what a loader must give: calibrated values in float64, NaN where the file has no data.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine

#: Upper left corner (UTM 32N) and size in metres of all scenes; near 10.25 E, 44.25 N.
LEFT, TOP, SIZE = 600000.0, 4900020.0, 2880
SIZE_10, SIZE_20, SIZE_30 = SIZE // 10, SIZE // 20, SIZE // 30
#: 333 m pixels of Proba-V.
DEGREES = 1 / 336

S2_BANDS = {
    "blue": ("B02", 10), "green": ("B03", 10), "red": ("B04", 10), "nir": ("B08", 10),
    "swir16": ("B11", 20), "swir22": ("B12", 20),
}  # fmt: skip
LANDSAT_BANDS = {"blue": "B2", "green": "B3", "red": "B4", "nir08": "B5", "swir16": "B6", "swir22": "B7"}


@dataclass
class Scene:
    item: dict[str, Any]
    expected: dict[str, Any]
    level: str
    sensor: str
    files: list[Path] = field(default_factory=list)
    warning: str = ""  # what a loader must warn of, if of anything


@dataclass(frozen=True)
class Site:
    """Where files are written, and under which address they are found."""

    root: Path
    base: str

    def write(
        self, name: str, numbers: Any, transform: Affine, crs: str, nodata: float | None = None
    ) -> tuple[str, Path]:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        stack = numbers if numbers.ndim == 3 else numbers[None]
        with rasterio.open(
            path, "w", driver="COG", dtype=stack.dtype, count=len(stack), height=stack.shape[1],
            width=stack.shape[2], crs=crs, transform=transform, nodata=nodata, blocksize=128,
            compress="deflate", overviews="none",
        ) as file:  # fmt: skip
            file.write(stack)
        return f"{self.base}/{name}", path


def numbers(name: str, size: int, low: int, high: int, dtype: str = "uint16", fill: int = 0) -> Any:
    """Return pixels that differ from band to band, with a corner that is fill."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    values = rng.integers(low, high, (size, size)).astype(dtype)
    values[: size // 8, : size // 8] = fill
    return values


def known(values: Any, scale: float, offset: float, fill: int = 0) -> Any:
    return np.where(values == fill, np.nan, values.astype("float64") * scale + offset)


def projection(transform: Affine, size: tuple[int, int], epsg: int, new: bool) -> dict[str, Any]:
    fields = {"proj:shape": list(size), "proj:transform": list(transform)[:6]}
    return {**fields, ("proj:code" if new else "proj:epsg"): f"EPSG:{epsg}" if new else epsg}


def outline(west: float, south: float, east: float, north: float) -> dict[str, Any]:
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    return {"bbox": [west, south, east, north], "geometry": {"type": "Polygon", "coordinates": [ring]}}


HERE = outline(10.25, 44.21, 10.30, 44.26)


def item(
    name: str, collection: str, version: str, properties: Mapping[str, Any], assets: Any
) -> dict[str, Any]:
    return {
        "type": "Feature", "stac_version": version, "stac_extensions": [], "id": name,
        "collection": collection, **HERE, "properties": dict(properties), "assets": assets, "links": [],
    }  # fmt: skip


def sentinel2(
    site: Site,
    catalogue: str,
    *,
    baseline: str | None = "05.10",
    date: str = "2024-05-17T10:10:31Z",
    level: str = "boa",
    shifted: bool | None = None,
    has_offset: bool = True,
    warning: str = "",
    unit: str = "A",
    left: float = LEFT,
    top: float = TOP,
    epsg: int = 32632,
    tag: str = "",
) -> Scene:
    """Return a Sentinel-2 scene as one of the catalogues describes it.

    `has_offset`: whether the pixels carry ESA's 1000. `shifted`: earth-search's flag.
    """
    new = catalogue in ("cdse", "modern", "terrascope-new")
    fill, dtype = (32767, "int16") if catalogue.startswith("terrascope") else (0, "uint16")
    digits = (baseline or "none").replace(".", "")
    name = f"S2{unit}_{date[:10].replace('-', '')}_{catalogue}_{level}_{digits}{tag}"
    assets, expected, files = {}, {}, []
    for common, (own, gsd) in S2_BANDS.items():
        size = SIZE // gsd
        transform = Affine(gsd, 0, left, 0, -gsd, top)
        pixels = numbers(name + common, size, 1200, 9000, dtype, fill)
        href, path = site.write(f"{name}/{own}.tif", pixels, transform, f"EPSG:{epsg}", nodata=fill)
        files.append(path)
        rho = known(pixels, 1e-4, -0.1 if has_offset else 0.0, fill)
        expected[common] = np.repeat(np.repeat(rho, gsd // 10, 0), gsd // 10, 1)
        key, asset = _s2_asset(catalogue, common, own, gsd, baseline, level)
        key = key.format(name=name)
        place = projection(transform, (size, size), epsg, new)
        if catalogue != "cdse":  # only CDSE tells the CRS on the asset
            place = {k: v for k, v in place.items() if k not in ("proj:epsg", "proj:code")}
        assets[key] = {"href": href, **place, **asset}
        if catalogue == "cdse" and gsd == 10 and level == "boa":  # copies at other pixel sizes
            coarse = asset | {"gsd": 20, "roles": ["data", "reflectance", "sampling:downsampled", "gsd:20m"]}
            assets[f"{own}_20m"] = {"href": f"{site.base}/not/there.tif", **place, **coarse}
    properties = {
        "datetime": date, "platform": f"sentinel-2{unit.lower()}", "constellation": "sentinel-2",
        "instruments": ["msi"], **_s2_properties(catalogue, baseline, level, shifted),
    }  # fmt: skip
    if catalogue == "terrascope":  # the tile alone tells
        properties |= {"mgrs:utm_zone": 32, "mgrs:latitude_band": "T"}
    elif catalogue != "cdse":
        properties |= {"proj:code": f"EPSG:{epsg}"} if new else {"proj:epsg": epsg}
    collection, version = _S2_COLLECTIONS[catalogue, level]
    scene = item(name, collection, version, properties, assets)
    return Scene(scene, expected, level, f"sentinel-2{unit.lower()}", files, warning)


_S2_COLLECTIONS = {
    ("earth-search-v0", "boa"): ("sentinel-s2-l2a-cogs", "1.0.0-beta.2"),
    ("earth-search-v0", "toa"): ("sentinel-s2-l1c", "1.0.0-beta.2"),
    ("earth-search-v1", "boa"): ("sentinel-2-l2a", "1.0.0"),
    ("earth-search-v1", "toa"): ("sentinel-2-l1c", "1.0.0"),
    ("earth-search-c1", "boa"): ("sentinel-2-c1-l2a", "1.0.0"),
    ("earth-search-pre-c1", "boa"): ("sentinel-2-pre-c1-l2a", "1.0.0"),
    ("planetary-computer", "boa"): ("sentinel-2-l2a", "1.0.0"),
    ("cdse", "boa"): ("sentinel-2-l2a", "1.1.0"),
    ("cdse", "toa"): ("sentinel-2-l1c", "1.1.0"),
    ("modern", "boa"): ("sentinel-2-c1-l2a", "1.1.0"),
    ("terrascope", "boa"): ("terrascope_s2_toc_v2", "1.0.0"),
    ("terrascope-new", "boa"): ("terrascope-s2-toc-v2", "1.1.0"),
}


def _s2_asset(
    catalogue: str, common: str, own: str, gsd: int, baseline: str | None, level: str
) -> tuple[str, dict[str, Any]]:
    new_pixels = baseline is not None and baseline >= "04"
    stated = -0.1 if new_pixels else 0
    raster = [
        {"nodata": 0, "data_type": "uint16", "spatial_resolution": gsd, "scale": 0.0001, "offset": stated}
    ]
    if catalogue == "earth-search-v0":
        return own, {"title": own, "eo:bands": [{"name": own, "common_name": common}]}
    if catalogue == "planetary-computer":
        return own, {"gsd": gsd, "roles": ["data"], "eo:bands": [{"name": own, "common_name": common}]}
    if catalogue == "cdse":
        roles = ["data", "reflectance", *(["sampling:original", f"gsd:{gsd}m"] if level == "boa" else [])]
        # The generator writes -0.1 whatever the baseline.
        return (f"{own}_{gsd}m" if level == "boa" else own), {
            "roles": roles, "bands": [{"name": own, "eo:common_name": common}], "data_type": "uint16",
            "nodata": 0, "raster:scale": 0.0001, "raster:offset": -0.1, "gsd": gsd,
        }  # fmt: skip
    if catalogue == "terrascope":  # keys are names of files
        numbers_of = {"scale": 1e-4, "offset": 0, "nodata": 32767, "data_type": "int16"}
        return f"{{name}}_TOC-{own}_{gsd}M_V210.tif", {
            "title": f"TOC-{own}_{gsd}M", "eo:bands": [{"name": common}], "raster:bands": [numbers_of],
        }  # fmt: skip
    if catalogue == "terrascope-new":
        return own, {
            "bands": [{"name": own, "eo:common_name": common}], "data_type": "int16", "nodata": 32767,
            "raster:scale": 1e-4, "raster:offset": 0,
        }  # fmt: skip
    if catalogue == "modern":
        band = {"name": own, "eo:common_name": common, "nodata": 0, "data_type": "uint16",
                "raster:scale": 0.0001, "raster:offset": stated}  # fmt: skip
        return common, {"gsd": gsd, "roles": ["data", "reflectance"], "bands": [band]}
    name = own if catalogue in ("earth-search-c1", "earth-search-pre-c1") else common
    return common, {
        "gsd": gsd, "roles": ["data", "reflectance"], "eo:bands": [{"name": name, "common_name": common}],
        "raster:bands": raster,
    }  # fmt: skip


def _s2_properties(catalogue: str, baseline: str | None, level: str, shifted: bool | None) -> dict[str, Any]:
    if catalogue == "cdse":
        told: dict[str, Any] = {"product:type": "S2MSI2A" if level == "boa" else "S2MSI1C",
                                "processing:level": "L2" if level == "boa" else "L1",
                                "eopf:instrument_mode": "INS-NOBS", "view:sun_elevation": 40.0}  # fmt: skip
        return told | ({"processing:version": baseline} if baseline else {})
    if catalogue == "earth-search-v0":
        told = {"sentinel:boa_offset_applied": shifted, "sentinel:processing_baseline": baseline}
        return {name: value for name, value in told.items() if value is not None}
    told = {"s2:processing_baseline": baseline} if baseline else {}
    if catalogue == "planetary-computer":
        return told | {"s2:mean_solar_zenith": 31.5}
    if catalogue == "earth-search-v1":
        told |= {"earthsearch:s3_path": "s3://sentinel-cogs/here"}
        if shifted is not None:
            told["earthsearch:boa_offset_applied"] = shifted
    return told


def landsat2(
    site: Site, catalogue: str, *, thermal: bool = False, date: str = "2021-07-05T10:02:00Z"
) -> Scene:
    """Return a Landsat 8 Collection 2 level 2 scene; ``"usgs-st"``: its temperature alone."""
    suffix = {"usgs": "_SR", "usgs-st": "_ST"}.get(catalogue, "")
    name = f"LC08_L2SP_192029_{date[:10].replace('-', '')}_20210713_02_T1{suffix}"
    stated = catalogue in ("planetary-computer", "earth-search", "modern")
    transform = Affine(30, 0, LEFT - 15, 0, -30, TOP + 15)
    assets, expected, files = {}, {}, []
    place = projection(transform, (SIZE_30, SIZE_30), 32632, catalogue == "modern")
    for common, own in LANDSAT_BANDS.items() if catalogue != "usgs-st" else ():
        pixels = numbers(name + catalogue + common, SIZE_30, 8000, 40000)
        href, path = site.write(f"{name}-{catalogue}/SR_{own}.TIF", pixels, transform, "EPSG:32632", nodata=0)
        files.append(path)
        expected[common] = known(pixels, 2.75e-5, -0.2)
        key = f"SR_{own}" if catalogue == "planetary-computer-old" else common
        assets[key] = {"href": href, "roles": ["data"], "eo:bands": [{"name": own, "common_name": common}]}
        numbers_of = {"scale": 2.75e-5, "offset": -0.2, "nodata": 0, "data_type": "uint16"}
        if stated:
            assets[key]["raster:bands"] = [numbers_of]
            assets[key]["eo:bands"][0]["name"] = "OLI_" + own
    if thermal:
        pixels = numbers(name + "lwir", SIZE_30, 30000, 50000)
        href, path = site.write(f"{name}-{catalogue}/ST_B10.TIF", pixels, transform, "EPSG:32632", nodata=0)
        files.append(path)
        expected["lwir11"] = known(pixels, 0.00341802, 149.0)
        key = {"usgs-st": "ST_B10.TIF", "planetary-computer-old": "ST_B10"}.get(catalogue, "lwir11")
        own = "TIRS_B10" if stated else "ST_B10"
        assets[key] = {"href": href, "eo:bands": [{"name": own, "common_name": "lwir11"}]}
        if stated:
            numbers_of = {"scale": 0.00341802, "offset": 149.0, "unit": "kelvin", "nodata": 0}
            assets[key]["raster:bands"] = [numbers_of]
    quality = np.full((SIZE_30, SIZE_30), 21824, "uint16")
    quality[-4:, -4:] = 1  # fill, by the quality band alone
    href, path = site.write(f"{name}-{catalogue}/QA_PIXEL.TIF", quality, transform, "EPSG:32632", nodata=1)
    key = {"usgs-st": "QA_PIXEL.TIF", "planetary-computer-old": "QA_PIXEL"}.get(catalogue, "qa_pixel")
    assets[key] = {"href": href, "roles": ["cloud", "cloud-shadow"]}
    for values in expected.values():
        values[-4:, -4:] = np.nan
    collection = {
        "usgs": "landsat-c2l2-sr", "usgs-st": "landsat-c2l2-st", "planetary-computer-old": "landsat-8-c2-l2",
    }.get(catalogue, "landsat-c2-l2")  # fmt: skip
    properties = {
        "datetime": date, "view:sun_elevation": 60.5, "landsat:correction": "L2SP",
        "platform": "LANDSAT_8" if catalogue.startswith("usgs") else "landsat-8",
        "instruments": ["OLI", "TIRS"] if catalogue.startswith("usgs") else ["oli", "tirs"], **place,
    }  # fmt: skip
    if catalogue == "earth-search":
        properties["earthsearch:payload_id"] = "x"
    return Scene(item(name, collection, "1.0.0", properties, assets), expected, "boa", "landsat-8", files)


K1, K2 = 774.8853, 1321.0789


def landsat1(site: Site, *, sun: bool = True, date: str = "2021-07-05T10:02:00Z") -> Scene:
    """Return a Landsat 8 Collection 2 level 1 scene, whose numbers only its MTL file explains."""
    name = f"LC08_L1TP_192029_{date[:10].replace('-', '')}_20210713_02_T1" + ("" if sun else "_NOSUN")
    transform = Affine(30, 0, LEFT - 15, 0, -30, TOP + 15)
    assets: dict[str, Any] = {}
    expected, files = {}, []
    rescaling: dict[str, str] = {}
    sine = math.sin(math.radians(41.25))
    for common, own in LANDSAT_BANDS.items():
        pixels = numbers(name + common, SIZE_30, 6000, 40000)
        href, path = site.write(f"{name}/{name}_{own}.TIF", pixels, transform, "EPSG:32632", nodata=0)
        files.append(path)
        expected[common] = known(pixels, 2e-5 / sine, -0.1 / sine)
        assets[common] = {"href": href, "roles": ["data"], "eo:bands": [{"name": own, "common_name": common}]}
        rescaling |= {f"REFLECTANCE_MULT_BAND_{own[1:]}": "2.0000E-05",
                      f"REFLECTANCE_ADD_BAND_{own[1:]}": "-0.100000"}  # fmt: skip
    pixels = numbers(name + "thermal", SIZE_30, 20000, 35000)
    href, path = site.write(f"{name}/{name}_B10.TIF", pixels, transform, "EPSG:32632", nodata=0)
    files.append(path)
    radiance = known(pixels, 3.342e-4, 0.1)
    expected["lwir11"] = K2 / np.log(K1 / radiance + 1)
    assets["lwir11"] = {"href": href, "eo:bands": [{"name": "B10", "common_name": "lwir11"}]}
    rescaling |= {"RADIANCE_MULT_BAND_10": "3.3420E-04", "RADIANCE_ADD_BAND_10": "0.10000"}
    mtl = {"LANDSAT_METADATA_FILE": {
        "IMAGE_ATTRIBUTES": {"SUN_ELEVATION": "41.25"} if sun else {},
        "LEVEL1_RADIOMETRIC_RESCALING": rescaling,
        "LEVEL1_THERMAL_CONSTANTS": {"K1_CONSTANT_BAND_10": str(K1), "K2_CONSTANT_BAND_10": str(K2)},
    }}  # fmt: skip
    (site.root / name / "MTL.json").write_text(json.dumps(mtl))
    assets["MTL.json"] = {"href": f"{site.base}/{name}/MTL.json", "roles": ["metadata"],
                          "type": "application/json"}  # fmt: skip
    properties = {
        "datetime": date, "landsat:correction": "L1TP", "platform": "LANDSAT_8",
        "instruments": ["OLI", "TIRS"],
        **projection(transform, (SIZE_30, SIZE_30), 32632, False),
    }  # fmt: skip
    return Scene(item(name, "landsat-c2l1", "1.0.0", properties, assets), expected, "toa", "landsat-8", files)


def probav(site: Site, *, new: bool = True, level: str = "toa", date: str = "2016-05-01T10:30:00Z") -> Scene:
    """Return a Proba-V 333 m scene; bits 4 to 7 of its status map tell, band by band, where they are good."""
    size = 24
    place = Affine(DEGREES, 0, 10 + 80 * DEGREES, 0, -DEGREES, 44.25 + 10 * DEGREES)
    kind = "toa" if level == "toa" else "toc"
    name = f"PROBAV_S1_{kind.upper()}_X18Y03_{date[:10].replace('-', '')}_333M_V101" + ("" if new else "_old")
    assets: dict[str, Any] = {}
    expected, files = {}, []
    status = np.full((size, size), 248, "uint8")
    status[0, :] = 251  # cloud: kept, the mask is our work
    status[1, :] = 8 + 64 + 128  # SWIR and NIR are bad
    status[2, :] = 8 + 16  # all but SWIR
    status[3, :] = 0  # never observed
    bits = {"BLUE": 7, "RED": 6, "NIR": 5, "SWIR": 4}
    for common, own in {"blue": "BLUE", "red": "RED", "nir": "NIR", "swir16": "SWIR"}.items():
        pixels = numbers(name + own, size, 50, 1900, "int16", fill=-1)
        href, path = site.write(f"{name}/{own}.tif", pixels, place, "EPSG:4326", nodata=-1)
        files.append(path)
        expected[common] = np.where(status >> bits[own] & 1, known(pixels, 5e-4, 0.0, fill=-1), np.nan)
        band = {"name": own, "common_name": common}
        assets[own] = (
            {"href": href, "roles": ["data"], "bands": [{"name": own, "eo:common_name": common}],
             "raster:scale": 0.0005, "raster:offset": 0, "nodata": -1}
            if new
            else {"href": href, "roles": ["data"], "eo:bands": [band]}
        )  # fmt: skip
    href, path = site.write(f"{name}/SM.tif", status, place, "EPSG:4326")
    assets["SM"] = {"href": href, "roles": ["metadata", "quality"], "bands": [{"name": "SM"}]}
    properties = {
        "datetime": date, "platform": "proba-v", "instruments": ["vegetation"],
        **projection(place, (size, size), 4326, new),
    }  # fmt: skip
    collection = f"terrascope-probav-s1-{kind}-333m-cog-v2" if new else f"PROBAV_L3_S1_{kind.upper()}_333M"
    version = "1.1.0" if new else "1.0.0"
    return Scene(item(name, collection, version, properties, assets), expected, level, "proba-v", files)


def hls(site: Site, *, date: str = "2021-06-01T10:20:00Z") -> Scene:
    """Return an HLS S30 scene of the Planetary Computer: no scale, no nodata in the item."""
    name = f"HLS.S30.T32TPQ.{date[:4]}152T102021.v2.0"
    transform = Affine(30, 0, LEFT, 0, -30, TOP)
    own = {"blue": "B02", "green": "B03", "red": "B04", "nir08": "B8A", "swir16": "B11", "swir22": "B12"}
    assets, expected, files = {}, {}, []
    for common, band in own.items():
        pixels = numbers(name + band, SIZE_30, 50, 9000, "int16", fill=-9999)
        href, path = site.write(f"{name}/{band}.tif", pixels, transform, "EPSG:32632", nodata=-9999)
        files.append(path)
        expected[common] = known(pixels, 1e-4, 0.0, fill=-9999)
        assets[band] = {"href": href, "roles": ["data"]}
    properties = {"datetime": date, "platform": "sentinel-2a", "instruments": ["msi"],
                  **projection(transform, (SIZE_30, SIZE_30), 32632, False)}  # fmt: skip
    return Scene(item(name, "hls2-s30", "1.0.0", properties, assets), expected, "boa", "hls-s30", files)
