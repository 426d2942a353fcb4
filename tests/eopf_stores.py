"""Stores made from the real metadata of EOPF products (../shared/eopf), with real pixels, 61 times smaller.

Groups, arrays, attributes and the number of chunks are those of the products, as `tree_of` reads them. Pixels
are those of Sentinel-2 patches of ../shared/data, decimated for the coarser groups.
"""

from __future__ import annotations

import json
import warnings
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from zarr.storage import LocalStore

from xcloudmask.scene.eopf import BAND

SHARED = Path(__file__).parents[1].parent / "shared"
EOPF, DATA = SHARED / "eopf", SHARED / "data"
needs_eopf = pytest.mark.skipif(
    not (EOPF.is_dir() and DATA.is_dir()), reason="needs ../shared/eopf and ../shared/data"
)
L1C = "S2B_MSIL1C_20250113T103309_N0511_R108_T32TLQ_20250113T122458"
L2A = "S2A_MSIL2A_20251008T100041_N0511_R122_T32TQM_20251008T122613"
GEOZARR = "geozarr"
#: As CPM 3.0 writes products since 2026; see `_as_cpm_3`.
CPM3 = "S2B_MSIL2A_20260721T100559_N0512_R022_T33UWQ_20260721T143508"
#: How many times smaller; 10980, 5490 and 1830 pixels become 180, 90 and 30.
SMALLER = 61
COMMON = {
    "b02": "blue",
    "b03": "green",
    "b04": "red",
    "b08": "nir",
    "b8a": "nir",
    "b11": "swir16",
    "b12": "swir22",
}


@cache
def tree_of(product: str) -> Any:
    """The metadata of a product: attributes and members, as the JSON has them."""
    if product == CPM3:
        return _as_cpm_3(json.loads(json.dumps(tree_of(L2A))))
    folder = EOPF / ("geozarr" if product == GEOZARR else "stores")
    return json.loads((folder / f"{L2A if product == GEOZARR else product}.json").read_text(encoding="utf-8"))


def _as_cpm_3(tree: Any) -> Any:
    """The level 2A product in the words of the CPM 3.0.0 product of that name (EOPF-Explorer/data-model).

    Zarr format 3 and no ``_FillValue``; nothing of the CRS on arrays; nominal wavelengths; x and y in single
    precision; flags in small letters; ``processing:version`` of the software; an id that is not the name.
    """
    properties = {
        "datetime": "2026-07-21T10:05:59.024000Z", "platform": "sentinel-2b", "product:type": "S02MSIL2A",
        "processing:level": "L2A", "processing:version": "1.0.0", "proj:code": "EPSG:32633",
        "eopf:datatake_id": "GS2B_20260721T100559_048954_N05.12",
    }  # fmt: skip
    tree["attributes"] = {
        "stac_discovery": {"id": "S02MSIL2A_20260721T100559_00000_B0022_T8BB", "properties": properties},
        "other_metadata": {"mean_sun_zenith_angle_in_deg_for_all_bands_all_detectors": 30.1944952892688},
    }
    tree["zarr_format"] = 3
    _reword(tree["members"], "")
    return tree


def _reword(members: Any, path: str) -> None:
    for name, node in members.items():
        if "members" in node:
            _reword(node["members"], f"{path}/{name}")
            continue
        old, large = node["attributes"], len(node["shape"]) == 2 and node["shape"][0] > 100
        new: Any = {"dtype": node["dtype"]}
        if "reflectance" in path and large:
            number, nm = name[1:].upper(), {"b02": 490, "b03": 560, "b8a": 842}.get(name, 665)
            said = f"BOA reflectance from MSI acquisition at spectral band {number} {nm} nm"
            new |= {
                "add_offset": -0.1,
                "fill_value": 0,
                "long_name": said,
                "scale_factor": 1e-4,
                "valid_min": 1,
            }
        elif path.endswith("l2a_classification/r20m") and large:
            new |= {"add_offset": 0, "fill_value": 0, "scale_factor": 1, "valid_max": 65535, "valid_min": 1}
        elif "flag_masks" in old:
            words = [str(word).lower() for word in old["flag_meanings"]]
            told = {"qt_defective_pixels": "defective_pixel", "qt_nodata_pixels": "no_data_pixel",
                    "qt_partially_corrected_pixels": "partially_corrected_pixel",
                    "qt_saturated_pixels_l1a": "saturated_pixel"}  # fmt: skip
            new |= {
                "flag_masks": old["flag_masks"],
                "flag_meanings": [told.get(word, word) for word in words],
            }
        chunks = [-(-n // 6) for n in node["shape"]] if large else node["shape"]
        kind = "float32" if name in ("x", "y") else node["dtype"].lstrip("<|")
        members[name] = {
            "attributes": new, "shape": node["shape"], "zarr_format": 3, "codecs": [{"name": "bytes"}],
            "chunk_grid": {"configuration": {"chunk_shape": chunks}},
            "dimension_names": old["_ARRAY_DIMENSIONS"], "bbox": [499980, 5390220, 609780, 5500020],
            "data_type": {"name": "text"} if kind[0] in "US" else kind,
            "fill_value": "NaN" if kind[0] == "f" else 0,
        }  # fmt: skip


@cache
def patch(level: str) -> dict[str, np.ndarray[Any, Any]]:
    """Six bands of 180 x 180 pixels, reflectance x 10,000, 0 where there is none."""
    names = {"L1C": "s2_l1c", "L2A": "s2_l2a"}
    for path in sorted((DATA / "unlabelled" / names[level]).glob("*.npz")):
        with np.load(path, allow_pickle=False) as file:
            image, bands = file["image"], [str(band) for band in file["bands"]]
        if min(image.shape[1:]) < 180 or not {"blue", "green", "red", "nir"} <= set(bands):
            continue
        top, left = (length // 2 - 90 for length in image.shape[1:])
        cut = image[:, top : top + 180, left : left + 180].astype("int64")
        if (cut == 65535).mean() > 0.2:
            continue
        out = {band: np.where(cut[i] == 65535, 0, cut[i] + 1000) for i, band in enumerate(bands)}
        for band in ("swir16", "swir22"):
            out.setdefault(band, out["red"])
        for values in out.values():  # a corner outside of the swath
            values[:12, :30] = 0
        return {band: values.astype("uint16") for band, values in out.items()}
    raise AssertionError(f"no patch of {level}")


@pytest.fixture(scope="session")
def eopf_store(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a function that writes a product, or finds it as it was written."""

    @cache
    def written(product: str) -> Path:
        name = f"{L2A if product == GEOZARR else product}.zarr"
        return write(tmp_path_factory.mktemp(product[:11]) / name, product)

    return written


def pixels(level: str, name: str, size: int) -> np.ndarray[Any, Any]:
    """The numbers of a band at 180, 90 or 30 pixels; of bands without a patch, those of the red one."""
    whole = patch(level)[COMMON.get(name, "red")]
    every = max(180 // size, 1)
    return np.ascontiguousarray(whole[::every, ::every][:size, :size])


def layer(name: str, size: int) -> np.ndarray[Any, Any]:
    """What a mask that came with the product holds."""
    held = {"scl": range(12), "b00": (0, 1, 2, 4)}.get(name, range(101))
    return np.random.default_rng(size).choice(np.array(held, "u1"), (size, size))


def write(path: Path, product: str, *, only: str = "", format: int | None = None) -> Path:
    """Write a product as a store, and return its path."""
    level = "L1C" if product == L1C else "L2A"
    tree = tree_of(product)
    root = zarr.create_group(path, zarr_format=format or tree["zarr_format"], attributes=tree["attributes"])
    _members(root, tree["members"], level, "", only)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", zarr.errors.ZarrUserWarning)  # format 3 does not specify it yet
        zarr.consolidate_metadata(path)
    return path


def _members(group: Any, members: Any, level: str, path: str, only: str) -> None:
    for name, node in members.items():
        here = f"{path}/{name}".lstrip("/")
        if only and not (here.startswith(only) or only.startswith(here)):
            continue
        if "members" in node:
            child = group.create_group(name, attributes=_smaller(node["attributes"]))
            _members(child, node["members"], level, here, only)
        else:
            _array(group, name, node, members, level, here)


def _smaller(attrs: Any) -> Any:
    out = dict(attrs)
    if "spatial:shape" in out:
        out["spatial:shape"] = [_size(n) for n in out["spatial:shape"]]
    if "proj:shape" in out:
        out["proj:shape"] = [_size(n) for n in out["proj:shape"]]
    return out


def _size(length: int) -> int:
    return max(round(length / SMALLER), 2) if length >= 100 else length


def _array(group: Any, name: str, node: Any, members: Any, level: str, path: str) -> None:
    shape = tuple(_size(n) for n in node["shape"])
    v2 = node["zarr_format"] == 2
    chunks = node["chunks"] if v2 else node["chunk_grid"]["configuration"]["chunk_shape"]
    chunks = tuple(min(_size(n), s) for n, s in zip(chunks or (), shape, strict=True))
    sharded = not v2 and node["codecs"][0]["name"] == "sharding_indexed" and not shape[0] % 2
    inner = {"shards": chunks, "chunks": tuple(n // 2 for n in chunks)} if sharded else {"chunks": chunks}
    dtype = node["dtype"] if v2 else node["data_type"]
    if isinstance(dtype, dict):  # fixed-length text, of which zarr warns in format 3
        return
    values = np.zeros(shape, dtype)
    if name in ("x", "y"):
        values = _axis(name, shape[0], node, members)
    elif "measurements/reflectance" in path and len(shape) == 2:
        values = pixels(level, name, shape[0])
        if np.dtype(dtype).kind == "f":
            values = np.where(values == 0, np.nan, values * 1e-4 - 0.1).astype(dtype)
    elif name in ("scl", "b00", "cld", "snw"):
        values = layer(name, shape[0])
    elif name == "mean_sun_angles":
        values = np.array([49.3049375691464, 163.595949089503])
    elif name == "angle":
        values = np.array(["zenith", "azimuth"])
    named = {} if v2 else {"dimension_names": node["dimension_names"]}
    array = group.create_array(
        name, shape=shape, dtype=values.dtype if values.dtype.kind == "U" else dtype, **inner, **named,
        fill_value=_fill(node["fill_value"]), attributes=_smaller(node["attributes"]),
    )  # fmt: skip
    if values.any():  # zarr gives the fill value for a chunk that is not there
        array[...] = values


def _fill(value: Any) -> Any:
    return float("nan") if value == "NaN" else value


def _axis(name: str, count: int, node: Any, members: Any) -> np.ndarray[Any, Any]:
    """Pixel centres of a group: from the corner that its arrays state, and its own number of pixels."""
    boxes = (m.get("attributes", {}).get("proj:bbox") or m.get("bbox") for m in members.values())
    placed = next(filter(None, boxes), None)
    if placed is None:
        return np.arange(count, dtype="float64") * 5000
    left, _, right, top = placed
    step = (right - left) / node["shape"][0]
    centres = (np.arange(count) + 0.5) * step
    return left + centres if name == "x" else top - centres


class Counting(LocalStore):
    """A store that counts the bytes that are read of each array."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.read = Counter()

    async def get(self, key, *args, **options):
        found = await super().get(key, *args, **options)
        if found is not None:
            self.read[key] += len(found)
        return found

    def pixels(self) -> Counter[str]:
        """Bytes of chunks by array, such as ``r10m/b02``; neither metadata nor coordinates."""
        found: Counter[str] = Counter()
        for key, size in self.read.items():
            parts = key.split("/")
            array = next((i for i, part in enumerate(parts[:-1]) if BAND.fullmatch(part)), None)
            if array is not None and not parts[-1].startswith(".z") and parts[-1] != "zarr.json":
                found["/".join(parts[array - 1 : array + 1])] += size
        return found


def reflectance(store, band: str = "b*") -> int:
    """Bytes of all chunks of reflectance, or of one band."""
    folder = store / "measurements/reflectance"
    return sum(f.stat().st_size for f in folder.glob(f"r*m/{band}/*") if not f.name.startswith(".z"))
