"""Small items on the disk, as a catalogue would tell of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine

SIZE, LEFT, TOP = 96, 600000.0, 4900020.0
BOX = [10.25, 44.24, 10.262, 44.25]


def make_item(
    root: Path,
    name: str,
    day: str,
    *,
    seed: int | None = None,
    updated: str = "2026-06-01T00:00:00Z",
    left: float = LEFT,
    baseline: str = "05.10",
    level: str = "l2a",
    keys: tuple[str, ...] = ("red", "nir"),
) -> dict[str, Any]:
    """Write the bands and return the item; its pixels follow from the name, or the seed."""
    rng = np.random.default_rng(sum(name.encode()) if seed is None else seed)
    place = Affine(10, 0, left, 0, -10, TOP)
    assets = {}
    for key in keys:
        path = root / f"{name}_{key}_{seed}.tif"
        with rasterio.open(
            path, "w", driver="GTiff", dtype="uint16", count=1, height=SIZE, width=SIZE, crs="EPSG:32632",
            transform=place, nodata=0,
        ) as file:  # fmt: skip
            file.write(rng.integers(1100, 9000, (1, SIZE, SIZE)).astype("uint16"))
        assets[key] = {
            "href": str(path), "proj:shape": [SIZE, SIZE], "proj:transform": list(place)[:6], "gsd": 10,
            "raster:bands": [{"scale": 0.0001, "offset": -0.1, "nodata": 0}],
        }  # fmt: skip
    shift = (left - LEFT) / 80000
    box = [BOX[0] + shift, BOX[1], BOX[2] + shift, BOX[3]]
    properties = {
        "datetime": f"{day}T10:10:31Z", "proj:code": "EPSG:32632", "s2:processing_baseline": baseline,
        "updated": updated, "platform": "sentinel-2a",
    }  # fmt: skip
    return {
        "type": "Feature", "stac_version": "1.0.0", "id": name, "collection": f"sentinel-2-c1-{level}",
        "bbox": box, "geometry": None, "properties": properties, "assets": assets, "links": [],
    }  # fmt: skip
