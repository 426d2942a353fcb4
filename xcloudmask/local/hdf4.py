"""Planes in HDF4 files, through pyhdf: GDAL's usual builds (rasterio's wheel) were made without HDF4."""

from __future__ import annotations

import struct
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xcloudmask.errors import AssetError, CloudMaskError
from xcloudmask.local.scene import HDF4
from xcloudmask.stac.item_plan import Source
from xcloudmask.stac.reader import calibrate

#: The pixels of a SPOT-VGT plane, as its products spell it.
DATASETS = ("PIXEL DATA", "PIXEL_DATA")

_MAGIC, _EXTERNAL = b"\x0e\x03\x13\x01", b"\0\2"
#: Bits of a tag.
_SPECIAL, _OF_USERS = 0x4000, 0x8000
_lock = threading.Lock()  # the HDF4 library is not made for threads


def plane_shape(path: str) -> tuple[int, int]:
    """Return rows and columns of a plane, reading no pixel."""
    with _opened(path) as dataset:
        _, _, shape, _, _ = dataset.info()
    return int(shape[0]), int(shape[1])


def read_hdf4(source: Source, corner: tuple[int, int], shape: tuple[int, int]) -> NDArray[np.float32]:
    """Return a part of a plane as calibrated values, NaN where there is no data."""
    values = _numbers(source.href, corner, shape).astype("float32")
    if source.nodata is not None:
        values[values == np.float32(source.nodata)] = np.nan
    rule = source.valid
    if rule is not None and rule.mask is not None:
        flags = _numbers(rule.href, corner, shape).astype("int64")
        values[(flags & rule.mask) != rule.expected] = np.nan
    return calibrate(values, source.scale, source.offset)


def _numbers(href: str, corner: tuple[int, int], shape: tuple[int, int]) -> Any:
    rows, columns = (slice(start, start + size) for start, size in zip(corner, shape, strict=True))
    with _opened(href.removeprefix(HDF4)) as dataset:
        return np.asarray(dataset[rows, columns]).reshape(shape)


def _names_others(path: str) -> bool:
    """Whether an element of an HDF4 file lies in another file, which the library would read silently.

    A file begins with blocks of descriptors (tag, reference, offset, length); where a tag says that its
    element is special, the element begins with a code of its kind.
    """
    seen: set[int] = set()
    with open(path, "rb") as file:
        here = 4 if file.read(4) == _MAGIC else 0
        while here and here not in seen:
            seen.add(here)
            file.seek(here)
            count, here = struct.unpack(">HI", file.read(6).ljust(6, b"\0"))
            block = file.read(12 * count)
            for tag, _, offset, _ in struct.iter_unpack(">HHII", block[: len(block) // 12 * 12]):
                if tag & _SPECIAL and not tag & _OF_USERS:
                    file.seek(offset)
                    if file.read(2) == _EXTERNAL:
                        return True
    return False


@contextmanager
def _opened(path: str) -> Iterator[Any]:
    """Open the plane of a file."""
    try:
        from pyhdf.error import HDF4Error
        from pyhdf.SD import SD
    except ImportError as error:
        raise CloudMaskError(
            f"{path}: this is HDF4, which needs the package pyhdf: pip install 'xcloudmask[local]' (or pip"
            " install pyhdf). Or convert each plane to GeoTIFF with a GDAL that has HDF4 (gdal_translate)"
            " into files named *_B0.tif, *_B2.tif, *_B3.tif, *_MIR.tif, *_SM.tif beside the LOG file."
        ) from error
    if _names_others(path):
        raise AssetError(f"{path}: takes pixels from another file, which no product does: it is not opened.")
    with _lock, ExitStack() as to_close:
        try:
            file = SD(path)
        except HDF4Error as error:
            raise AssetError(
                f"{path}: cannot be opened as HDF4: {error}. Fetch the product again."
            ) from error
        to_close.callback(file.end)
        names = file.datasets()
        name = next((name for name in DATASETS if name in names), None)
        if name is None:
            raise CloudMaskError(
                f"{path}: no dataset named {' or '.join(map(repr, DATASETS))}; it holds"
                f" {', '.join(names) or 'none'}. Give a SPOT-VGT product folder."
            )
        dataset = file.select(name)
        to_close.callback(dataset.endaccess)
        yield dataset
