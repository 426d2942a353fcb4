"""Tiny products with known numbers, written as the agencies lay them out."""

from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

LEFT, TOP, CRS = 600000.0, 4900020.0, "EPSG:32632"


def write_raster(
    path, numbers, *, size=10.0, left=LEFT, top=TOP, crs=CRS, driver="GTiff", nodata=None,
    descriptions=None, scales=None, offsets=None, tags=None, band_tags=None,
):  # fmt: skip
    """Write one raster; `numbers` is (y, x) or (band, y, x)."""
    numbers = np.asarray(numbers)
    numbers = numbers if numbers.ndim == 3 else numbers[None]
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    lossless = {"QUALITY": "100", "REVERSIBLE": "YES"} if driver == "JP2OpenJPEG" else {}
    with rasterio.open(
        path, "w", driver=driver, count=numbers.shape[0], height=numbers.shape[1], width=numbers.shape[2],
        dtype=numbers.dtype, crs=crs, transform=from_origin(left, top, size, size), nodata=nodata, **lossless,
    ) as file:  # fmt: skip
        file.write(numbers)
        if descriptions:
            file.descriptions = descriptions
        if scales:
            file.scales = scales
        if offsets:
            file.offsets = offsets
        if tags:
            file.update_tags(**tags)
        for index, one in enumerate(band_tags or (), start=1):
            file.update_tags(index, **one)
    return path


@pytest.fixture
def raster():
    return write_raster


@pytest.fixture
def numbers():
    """Whole numbers that differ from band to band and pixel to pixel, with no data (0) at the first."""

    def make(seed, shape=(6, 6), dtype="uint16", low=1000, high=9000):
        values = np.random.default_rng(seed).integers(low, high, shape).astype(dtype)
        values[0, 0] = 0
        return values

    return make
