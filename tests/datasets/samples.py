"""Each dataset made small in exactly its published layout: file names, types, codes, calibration.

A function writes a copy into a folder and returns what must come out of it: for each image its scene, its
split, some pixels of reflectance by band, and the bit mask of every pixel, as written here by hand.
"""

from __future__ import annotations

import csv
import io
import math
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tests.local.conftest import write_raster
from tests.local.test_landsat import as_text, groups_of
from tests.local.test_safe import TILE, TILE_XML, product_xml

#: Bits of labels, once more by hand.
CLEAR, THICK, THIN, SHADOW, LAND, WATER, SNOW = 1, 2, 4, 8, 17, 33, 65
CLOUD, CLEAR_OR_SHADOW = 6, 9
S2 = ["B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12"]


@dataclass
class Expected:
    scene: str
    bits: Any
    #: Reflectance of pixel (1, 1) by common name.
    pixel: dict[str, float] = field(default_factory=dict)
    split: str = ""
    #: Where the image has no data; None if it has some everywhere.
    empty: Any = None


def corner(side: int) -> Any:
    """No data in the first pixel."""
    empty = np.zeros((side, side), bool)
    empty[0, 0] = True
    return empty


MAKERS: dict[str, Callable[[Path], list[Expected]]] = {}


def made(maker: Callable[[Path], list[Expected]]) -> Callable[[Path], list[Expected]]:
    MAKERS[maker.__name__.replace("_", "-").removeprefix("d")] = maker
    return maker


def stripes(*codes: int, side: int = 4, dtype: str = "u1") -> Any:
    """A square with a stripe a code, from left to right."""
    return np.repeat(np.array(codes, dtype), side)[None].repeat(side * len(codes), axis=0)


def write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


@made
def cloudsen12(root: Path) -> list[Expected]:
    found = []
    for split, count in (("train", 2), ("val", 1), ("test", 1)):
        folder = root / split
        folder.mkdir(parents=True)
        for at, band in enumerate(["1", "2", "3", "4", "5", "6", "7", "8", "8A", "9", "10", "11", "12"]):
            values = np.full((count, 512, 512), 1000 * (at + 1), "<i2")
            values[:, 509:], values[:, :, 509:] = 0, 0
            values.tofile(folder / f"L1C_B{band}.dat")
        labels = np.zeros((count, 512, 512), "i1")
        labels[:, :, 100:200], labels[:, :, 200:300], labels[:, :, 300:400] = 1, 2, 3
        labels.tofile(folder / "LABEL_manual_hq.dat")
        rows = [{"roi_id": f"ROI_{split}_{n}", "s2_id_gee": "x"} for n in range(count)]
        write_csv(folder / "metadata.csv", rows)
        bits = np.ones((512, 512), "u1")
        bits[:, 100:200], bits[:, 200:300], bits[:, 300:400] = THICK, THIN, SHADOW
        pixel = {"coastal": 0.1, "blue": 0.2, "nir": 0.8, "nir08": 0.9, "cirrus": 1.1, "swir22": 1.3}
        empty = np.zeros((512, 512), bool)
        empty[509:], empty[:, 509:] = True, True  # padding
        found += [Expected(row["roi_id"], bits, pixel, split, empty) for row in rows]
    return found


def tortilla(items: list[tuple[dict[str, Any], bytes]], magic: bytes = b"#y") -> bytes:
    """The container of TACO's first version: a header of 200 bytes, the items, a table in Parquet."""
    import pandas as pd

    body, rows, header = b"", [], 200
    for row, data in items:
        rows.append({**row, "tortilla:offset": header + len(body), "tortilla:length": len(data)})
        body += data
    table = io.BytesIO()
    pd.DataFrame(rows).to_parquet(table)
    where = (header + len(body)).to_bytes(8, "little") + len(table.getvalue()).to_bytes(8, "little")
    return (magic + where).ljust(header, b"\0") + body + table.getvalue()


@made
def cloudsen12plus(root: Path) -> list[Expected]:
    root.mkdir(parents=True)
    found, samples = [], []
    for name, kind, split in (
        ("ROI_1", "high", "train"),
        ("ROI_2", "scribble", "train"),
        ("ROI_3", "high", "test"),
    ):
        image = np.stack([np.full((16, 16), 500 * (at + 1), "u2") for at in range(13)])
        image[:, -3:] = 0
        files = []
        for part, values in (("s2l1c", image), ("target", stripes(0, 1, 2, 3))):
            path = write_raster(root.parent / f"{name}_{part}.tif", values)
            files.append(({"tortilla:id": part, "tortilla:file_format": "GTiff"}, path.read_bytes()))
        row = {
            "tortilla:id": f"{name}__20200101", "tortilla:file_format": "TORTILLA", "roi_id": name,
            "label_type": kind, "tortilla:data_split": split, "stac:centroid": "POINT (10 44)",
        }  # fmt: skip
        samples.append((row, tortilla(files)))
        if kind == "high":
            bits = stripes(CLEAR, THICK, THIN, SHADOW)
            empty = np.zeros((16, 16), bool)
            empty[-3:] = True
            found.append(Expected(name, bits, {"blue": 0.1, "swir22": 0.65}, split, empty))
    (root / "cloudsen12-l1c.0000.part.taco").write_bytes(tortilla(samples, b"WX"))
    return found


def landsat_8(folder: Path, scene: str) -> None:
    """A scene of before the collections, with the MTL file of its day."""
    names = [str(number) for number in range(1, 12)]
    files = {f"FILE_NAME_BAND_{n}": f"{scene}_B{n}.TIF" for n in names}
    for n in names:
        side = 32 if n == "8" else 16
        values = np.full((side, side), 10000 + 1000 * int(n), "u2")
        write_raster(folder / f"{scene}_B{n}.TIF", values, size=480 / side)
    groups = groups_of("LC08", "L1TP", 1, scene, files)
    groups["PRODUCT_METADATA"]["DATA_TYPE"] = "L1T"
    groups["METADATA_FILE_INFO"] = {"LANDSAT_SCENE_ID": scene}
    (folder / f"{scene}_MTL.txt").write_text(as_text(groups, "txt", "L1_METADATA_FILE"))


@made
def l8_biome(root: Path) -> list[Expected]:
    found = []
    for scene, codes, bits in (
        ("LC80420082013220LGN00", (0, 64, 128, 192), stripes(0, SHADOW, CLEAR, THIN)),
        (
            "LC81360302014162LGN00",
            (128, 128, 192, 255),
            stripes(CLEAR_OR_SHADOW, CLEAR_OR_SHADOW, THIN, THICK),
        ),
    ):
        folder = root / "BC" / scene
        landsat_8(folder, scene)
        write_raster(folder / f"{scene}_fixedmask.img", stripes(*codes), size=30.0, driver="ENVI")
        sine = math.sin(math.radians(40))
        found.append(
            Expected(
                scene, bits, {"blue": (12000 * 2e-5 - 0.2) / sine, "cirrus": (19000 * 9e-5 - 0.9) / sine}
            )
        )
    return found


@made
def l7_irish(root: Path) -> list[Expected]:
    folder = root / "l7irish" / "austral" / "p226_r98"
    for at, band in enumerate(["10", "20", "30", "40", "50", "61", "62", "70", "80"]):
        prefix = "L72" if band in ("62", "70", "80") else "L71"
        values = np.full((16, 16), 100 + at, "u1")
        values[0, 0] = 0
        write_raster(folder / f"{prefix}226098_09820011112_B{band}.TIF", values, size=30.0)
    write_raster(folder / "L7_p226_r98_newmask2015.TIF", stripes(64, 128, 192, 255), size=30.0)
    bands = (1, 2, 3, 4, 5, 7)
    limits = {
        f"{key}_BAND{n}": value for n in bands for key, value in (("LMAX", "191.600"), ("LMIN", "-6.200"))
    }
    ends = (("QCALMAX", "255.0"), ("QCALMIN", "1.0"))
    numbers = {f"{key}_BAND{n}": value for n in bands for key, value in ends}
    groups = {
        "PRODUCT_METADATA": {"SPACECRAFT_ID": "Landsat7", "ACQUISITION_DATE": "2001-11-12"},
        "MIN_MAX_RADIANCE": limits, "MIN_MAX_PIXEL_VALUE": numbers,
        "PRODUCT_PARAMETERS": {"SUN_ELEVATION": "50.0"},
    }  # fmt: skip
    (folder / "L71226098_09820011112_MTL.txt").write_text(as_text(groups, "txt", "L1_METADATA_FILE"))
    # Chander et al. 2009: 2001-11-12 is day 316, 0.98959 au; band 1 irradiance 1997
    radiance = -6.2 + (191.6 + 6.2) / 254 * (100 - 1)
    blue = math.pi * radiance * 0.98959**2 / (1997 * math.sin(math.radians(50)))
    return [Expected("p226_r98", stripes(SHADOW, CLEAR, THIN, THICK), {"blue": blue}, empty=corner(16))]


@made
def sparcs(root: Path) -> list[Expected]:
    scene = "LC80010812013365LGN00_18"
    folder = root / "sending"
    image = np.stack([np.full((28, 28), 6000 + 2000 * at, "u2") for at in range(10)])
    image[:, 0, 0] = 0
    write_raster(folder / f"{scene}_data.tif", image, size=30.0)
    write_raster(folder / f"{scene}_labels.tif", stripes(0, 1, 2, 3, 4, 5, 6), size=30.0)
    groups = groups_of("LC08", "L1TP", 1, scene, {})
    (folder / f"{scene}_mtl.txt").write_text(as_text(groups, "txt", "L1_METADATA_FILE"))
    (folder / f"{scene}_photo.png").write_bytes(b"")
    sine = math.sin(math.radians(40))
    bits = stripes(SHADOW, SHADOW, WATER, SNOW, LAND, CLOUD, 49)
    pixel = {"coastal": (6000 * 2e-5 - 0.1) / sine, "cirrus": (20000 * 2e-5 - 0.1) / sine}
    return [Expected(scene, bits, pixel, empty=corner(28))]


def patches_38(root: Path, top: str, suffix: str) -> list[Expected]:
    scene = "LC08_L1TP_047027_20201204_20210313_01_T1"
    found = []
    for patch, codes in (("patch_1_1_by_1", (0, 255)), ("patch_22_2_by_1", (0, 0))):
        for at, colour in enumerate(("blue", "green", "red", "nir")):
            values = np.full((8, 8), 8000 + 1000 * at, "u2")
            path = root / top / f"train_{colour}{suffix}" / f"{colour}_{patch}_{scene}.TIF"
            write_raster(path, values, crs=None, size=1.0)
        write_raster(
            root / top / f"train_gt{suffix}" / f"gt_{patch}_{scene}.TIF", stripes(*codes), crs=None, size=1.0
        )
        bits = stripes(CLEAR_OR_SHADOW, CLOUD) if codes == (0, 255) else np.full((8, 8), CLEAR_OR_SHADOW)
        # the product of this path, row and day has a sun of 18.81 degrees
        found.append(Expected(scene, bits, {"blue": 0.06 / math.sin(math.radians(18.81))}))
    return found


@made
def d38_cloud(root: Path) -> list[Expected]:
    write_raster(
        root / "38-Cloud_test" / "Entire_scene_gts" / "edited_corrected_gts_x.TIF", stripes(0, 1), size=1.0
    )
    return patches_38(root, "38-Cloud_training", "")


@made
def d95_cloud(root: Path) -> list[Expected]:
    return patches_38(root, "95-cloud_training_only_additional_to38-cloud", "_additional_to38cloud")


TAGS = (
    "forest/jungle", "snow/ice", "agricultural", "urban/developed", "coastal", "hills/mountains",
    "desert/barren", "shrublands/plains", "wetland/bog/marsh", "open_water", "enclosed_water", "thin",
    "thick", "low", "high",
)  # fmt: skip


@made
def s2_cmc(root: Path) -> list[Expected]:
    name = "S2A_MSIL1C_20180101T010721_N0206_R045_T53HLD_20180101T02372"
    cases = [  # tags, whether shadow is marked, bits of clear, cloud and shadow
        ({"forest/jungle", "open_water", "thin"}, 1, (49, THIN, SHADOW)),
        ({"snow/ice", "thin", "thick"}, 0, (SNOW | SHADOW, CLOUD, SHADOW)),
        (set(), 1, (113, CLOUD, SHADOW)),
    ]
    rows, found = [], []
    images, masks = io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(images, "w") as subscenes, zipfile.ZipFile(masks, "w") as labels:
        for at, (tags, marked, bits) in enumerate(cases):
            image = np.stack([np.full((12, 12), 0.05 * (band + 1), "f4") for band in range(13)], axis=-1)
            codes = stripes(0, 1, 2)
            planes = np.stack([codes == c for c in range(3)], axis=-1)
            for archive, folder, values in ((subscenes, "subscenes", image), (labels, "masks", planes)):
                file = io.BytesIO()
                np.save(file, values)
                archive.writestr(f"{folder}/{name}{at}.npy", file.getvalue())
            rows.append({"index": at, "scene": f"{name}{at}", "difficulty": 1, "shadows_marked": marked,
                         "dataset": "MAIN", **{tag: int(tag in tags) for tag in TAGS}})  # fmt: skip
            pixel = {"blue": 0.1, "nir": 0.4, "nir08": 0.45}
            found.append(Expected(f"{name}{at}", stripes(*bits), pixel))
    root.mkdir(parents=True)
    write_csv(root / "classification_tags.csv", rows)
    (root / "subscenes.zip").write_bytes(images.getvalue())
    (root / "masks.zip").write_bytes(masks.getvalue())
    return found


@made
def kappaset(root: Path) -> list[Expected]:
    import h5py

    root.mkdir(parents=True)
    with h5py.File(root / "T34UFA_20200401T122148_tile_3_4.nc", "w") as file:
        for at, band in enumerate(S2):
            values = np.full((16, 16), 1000 * (at + 1) / 65535, "f4")  # numbers of 16 bits as parts of one
            values[0] = 0  # the last row: they are stored from the bottom up
            file[band] = values
        labels = stripes(1, 2, 3, 4)
        labels[0] = 5  # missing
        file["Label"] = labels
    bits = stripes(CLEAR, SHADOW, THIN, THICK)
    bits[-1] = 0
    empty = np.zeros((16, 16), bool)
    empty[-1] = True
    return [Expected("T34UFA_20200401T122148", bits, {"blue": 0.2, "swir22": 1.3}, empty=empty)]


SIZES = dict(zip(S2, [60, 10, 10, 10, 20, 20, 20, 10, 20, 60, 60, 20, 20], strict=True))


def sentinel_2(folder: Path, name: str) -> None:
    """A product of 240 m a side, numbers of 1000 a band."""
    granule = folder / f"{name}.SAFE" / "GRANULE" / TILE
    for at, band in enumerate(S2):
        side = 240 // SIZES[band]
        path = granule / "IMG_DATA" / f"T32TPQ_20220301T101021_{band}.jp2"
        write_raster(
            path, np.full((side, side), 1000 * (at + 1), "u2"), size=float(SIZES[band]), driver="JP2OpenJPEG"
        )
    (folder / f"{name}.SAFE" / "MTD_MSIL1C.xml").write_text(product_xml("L1C", "02.06", 10000, {}))
    (granule / "MTD_TL.xml").write_text(TILE_XML)


@made
def alcd(root: Path) -> list[Expected]:
    name = "S2A_MSIL1C_20171002T094031_N0205_R036_T34RGS_20171002T094035"
    codes = np.array([[0, 1, 2, 3], [4, 5, 6, 7], [5, 5, 5, 5], [7, 7, 7, 7]], "u1")
    write_raster(
        root / "Reference_dataset" / name / "Classification" / "classification_map.tif", codes, size=60.0
    )
    sentinel_2(root / "products", name)
    bits = np.array([[0, 0, CLOUD, CLOUD], [SHADOW, LAND, WATER, SNOW], [LAND] * 4, [SNOW] * 4])
    return [Expected(name, bits, {"blue": 0.2, "red": 0.4, "cirrus": 1.1})]


@made
def whus2_cd(root: Path) -> list[Expected]:
    name = "S2A_MSIL1C_20180429T032541_N0206_R018_T49SCV_20180429T062304"
    sentinel_2(root / "unziped", name)
    write_raster(
        root / f"{name}_Mask.tif", np.repeat([[0, 128, 255]], 24, axis=0).repeat(8, axis=1).astype("u1")
    )
    return [Expected(name, stripes(0, CLEAR_OR_SHADOW, CLOUD, side=8), {"blue": 0.2, "nir": 0.8})]


@made
def gf1_whu(root: Path) -> list[Expected]:
    scene = "GF1_WFV1_E100.7_N20.1_20140328_L2A0000192683"
    image = np.stack([np.full((16, 16), 100 * (at + 1), "u2") for at in range(4)])
    image[:, 0, 0] = 0
    write_raster(root / "GF1" / f"{scene}.tiff", image, size=16.0)
    write_raster(root / "GF1" / f"{scene}_ReferenceMask.tif", stripes(0, 1, 128, 255), size=16.0)
    bits = stripes(0, CLEAR, SHADOW, CLOUD)
    return [Expected(scene, bits, {"blue": 0.1, "nir": 0.4}, empty=corner(16))]


@made
def cloudperu2(root: Path) -> list[Expected]:
    found = []
    for split in ("train", "val"):
        image = np.stack([np.full((8, 8), 50 * (at + 1), "u2") for at in range(4)])
        write_raster(root / "cloudperu2" / split / "images" / f"p_{split}.tif", image, crs=None, size=1.0)
        write_raster(
            root / "cloudperu2" / split / "masks" / f"p_{split}_Mask.tif", stripes(0, 255), crs=None, size=1.0
        )
        found.append(
            Expected(f"p_{split}", stripes(CLEAR_OR_SHADOW, CLOUD), {"blue": 0.05, "nir": 0.2}, split)
        )
    return found


@made
def hollstein(root: Path) -> list[Expected]:
    import h5py

    root.mkdir(parents=True)
    with h5py.File(root / "20170710_s2_manual_classification_data.h5", "w") as file:
        file["spectra"] = np.linspace(0.01, 0.9, 7 * 13).reshape(7, 13)
        file["classes"] = np.array([10, 20, 30, 40, 50, 60, 10])
        file["class_ids"] = np.array([10, 20, 30, 40, 50, 60])
        file["class_names"] = np.array([b"Clear", b"Water", b"Shadow", b"Cirrus", b"Cloud", b"Snow"])
        file["band"] = np.array(
            [b"01", b"02", b"03", b"04", b"05", b"06", b"07", b"08", b"8A", b"09", b"10", b"11", b"12"]
        )
        file["product_id"] = np.array([b"S2A_B"] * 4 + [b"S2A_A"] * 3)
    spectra = np.linspace(0.01, 0.9, 7 * 13).reshape(7, 13)
    return [
        Expected(
            "S2A_A", np.array([[THICK], [SNOW], [LAND]]), {"blue": spectra[5, 1], "nir08": spectra[5, 8]}
        ),
        Expected("S2A_B", np.array([[LAND], [WATER], [SHADOW], [THIN]]), {"blue": spectra[1, 1]}),
    ]


def places(rows: list[tuple[int, int]], size: float) -> list[dict[str, Any]]:
    """Longitude and latitude of pixels by row and column, as a table of points has them."""
    from rasterio.warp import transform

    x = [600000 + (column + 0.5) * size for _, column in rows]
    y = [4900020 - (row + 0.5) * size for row, _ in rows]
    longitude, latitude = transform("EPSG:32632", "EPSG:4326", x, y)
    return [{"LATITUDE": b, "LONGITUDE": a} for a, b in zip(longitude, latitude, strict=True)]


@made
def pixbox_s2(root: Path) -> list[Expected]:
    name = "S2A_MSIL1C_20171205T143751_N0206_R096_T19KEU_20171205T180316"  # 5472572
    sentinel_2(root / "scenes", name)
    labelled = [  # row, column, cloud, shadow, bits
        (0, 0, 1, 0, CLEAR), (1, 1, 2, 0, THICK), (2, 3, 3, 0, THIN), (5, 7, 7, 3, SHADOW),
        (9, 9, 2, 3, THICK | SHADOW), (10, 10, 12, 4, CLOUD), (23, 23, 0, 1, CLEAR),
    ]  # fmt: skip
    where = places([each[:2] for each in labelled], 10)
    rows = [
        {"PRODUCT_ID": 5472572, "PIXEL_X": column, "PIXEL_Y": row, **place, "CLOUD_CHARACTERISTICS_ID": cloud,
         "SHADOW_ID": shadow}
        for (row, column, cloud, shadow, _), place in zip(labelled, where, strict=True)
    ]  # fmt: skip
    write_csv(root / "pixbox_sentinel2_cmix_20180425.csv", rows)
    bits = np.zeros((24, 24), "u1")
    for row, column, _, _, expected in labelled:
        bits[row, column] = expected
    return [Expected(name, bits, {"blue": 0.2, "nir": 0.8})]


@made
def pixbox_l8(root: Path) -> list[Expected]:
    name = "LC81970222014109LGN00"  # 1093075446
    landsat_8(root / name, name)
    labelled = [
        (0, 0, 0, 0, CLOUD), (1, 1, 1, 1, CLOUD | SHADOW), (2, 2, 5, 1, SHADOW), (3, 3, 12, 0, CLEAR),
        (4, 4, 9, 0, 0), (15, 15, 13, 1, 0),
    ]  # fmt: skip
    where = places([each[:2] for each in labelled], 30)
    rows = [
        {"PRODUCT_ID": 1093075446, **place, "PIXEL_SURFACE_TYPE_ID": surface, "CLOUD_SHADOW_ID": shadow,
         "CLOUD_CHARACTERISTICS_ID": 0}
        for (_, _, surface, shadow, _), place in zip(labelled, where, strict=True)
    ]  # fmt: skip
    write_csv(root / "pixbox_landsat8_cmix_20150527.csv", rows)
    bits = np.zeros((16, 16), "u1")
    for row, column, _, _, expected in labelled:
        bits[row, column] = expected
    return [Expected(name, bits, {"blue": (12000 * 2e-5 - 0.2) / math.sin(math.radians(40))})]
