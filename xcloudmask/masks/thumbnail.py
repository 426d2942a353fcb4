"""A small picture of an array, within the address that a page shows: for the repr in a notebook."""

from __future__ import annotations

import base64
import struct
import warnings
import zlib
from collections.abc import Callable

import numpy as np
import xarray as xr

from xcloudmask.masks.picture import (
    TRUE_COLOUR,
    Bytes,
    class_codes,
    kind_of,
    one_time,
    over_gaps,
    paint,
    picture_of,
    thin,
)
from xcloudmask.scene.mask_classes import as_mask

#: Pixels along a side, at most.
LIMIT = 96


def data_uri(pixels: Bytes) -> str:
    """Return (y, x, 4) as a PNG within an address, which a page shows without fetching.

    Examples
    --------
    >>> data_uri(np.zeros((1, 1, 4), np.uint8))[:30]
    'data:image/png;base64,iVBORw0K'
    """

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width = pixels.shape[:2]
    rows = np.pad(pixels.reshape(height, -1), ((0, 0), (1, 0)))  # each begins with its filter: none
    head = struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows.tobytes())) + chunk(b"IEND", b"")
    return "data:image/png;base64," + base64.b64encode(b"\x89PNG\r\n\x1a\n" + body).decode()


def thumbnail(array: Callable[[], xr.DataArray]) -> str:
    """Return a small picture of a scene or mask as an address; nothing of what is lazy or cannot be drawn."""
    try:
        da = as_mask(array())
        if not isinstance(da.variable._data, np.ndarray):
            return ""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the first of several times
            (da,), _ = one_time([da], None)
        kind = kind_of(da)
        if kind == "scene":
            shown = thin(picture_of(da, TRUE_COLOUR)[0], LIMIT).values
            return data_uri(over_gaps(shown, (2, 98)))
        if kind == "probabilities":
            return ""
        return data_uri(paint(thin(da, LIMIT).values, class_codes(da), gaps=True))
    except Exception:  # a repr must not fail
        return ""
