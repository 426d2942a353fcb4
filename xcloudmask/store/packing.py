"""How values are stored: their dtype, scale and fill value, and the codecs that compress them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from xcloudmask.errors import CloudMaskError, OptionError

#: A probability p is stored as round(254 p); 255 is no data.
STEPS = 254
ALLOWED = ("dtype", "compressors")
#: Forms of probabilities.
DTYPES = ("uint8", "float16", "float32")


@dataclass(frozen=True, slots=True)
class Packing:
    """What becomes of an array's values on their way into the store.

    Examples
    --------
    >>> packing = Packing("uint8", scaled=True)
    >>> packing.pack(np.array([0, 0.5, 1, np.nan], "f4")).tolist()
    [0, 127, 254, 255]
    """

    dtype: str
    scaled: bool = False

    @property
    def fill(self) -> Any:
        """What a chunk that was never written reads as."""
        kind = np.dtype(self.dtype)
        return np.nan if kind.kind == "f" else np.iinfo(kind).max

    @property
    def attrs(self) -> dict[str, Any]:
        """CF attributes that undo the packing."""
        if not self.scaled:
            return {}
        return {"scale_factor": 1 / STEPS, "add_offset": 0.0, "_FillValue": 255}

    def pack(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return values as they are stored."""
        if not self.scaled:
            return values.astype(self.dtype, copy=False)
        scaled = np.rint(np.clip(np.nan_to_num(values, nan=0.0), 0, 1) * np.float32(STEPS))
        return np.where(np.isnan(values), np.uint8(255), scaled.astype(np.uint8))


def choose_packing(dtype: np.dtype[Any], probabilities: bool, encoding: Mapping[str, Any] | None) -> Packing:
    """Return the packing for an array of `dtype`, as `encoding` asks."""
    wanted = None
    for name in encoding or {}:
        if name not in ALLOWED:
            raise OptionError("encoding key", name, allowed=ALLOWED)
    if encoding and encoding.get("dtype") is not None:
        try:
            wanted = np.dtype(encoding["dtype"]).name
        except TypeError:
            raise OptionError("encoding dtype", encoding["dtype"], allowed=DTYPES) from None
    if probabilities:
        wanted = wanted or "uint8"
        if wanted not in DTYPES:
            raise OptionError("encoding dtype", wanted, allowed=DTYPES)
        return Packing(wanted, scaled=wanted == "uint8")
    if dtype.kind not in "uif":
        raise CloudMaskError(f"an array of {dtype} cannot be streamed; cast it: mask.astype('uint8')")
    if wanted not in (None, dtype.name):
        raise CloudMaskError(
            f"encoding dtype {wanted!r}: classes are stored as they are, {dtype.name}; leave it "
            f"out, or cast the mask"
        )
    return Packing(dtype.name)


def with_checksum(compressors: tuple[Any, ...] | None, packing: Packing, sharded: bool) -> tuple[Any, ...]:
    """Return codecs that let no reader take a damaged chunk for a whole one.

    In shards that is the codec crc32c at the end. GDAL knows it from 3.13 on, as it knows shards; of chunks
    that are files it reads those of 3.12, too, if what checks them is zstd.
    """
    from zarr.codecs import Crc32cCodec, ZstdCodec

    if not sharded and compressors == choose_compressors(packing, None):
        return (ZstdCodec(level=5, checksum=True),)
    given = compressors or ()
    return given if given and isinstance(given[-1], Crc32cCodec) else (*given, Crc32cCodec())


def choose_compressors(packing: Packing, encoding: Mapping[str, Any] | None) -> tuple[Any, ...] | None:
    """Return the codecs: zstd over bit-shuffled values, unless `encoding` names others."""
    if encoding and "compressors" in encoding:
        given = encoding["compressors"]
        if given is None:
            return None
        return tuple(given) if isinstance(given, (list, tuple)) else (given,)
    from zarr.codecs import BloscCodec

    size = np.dtype(packing.dtype).itemsize
    return (BloscCodec(cname="zstd", clevel=5, shuffle="bitshuffle", typesize=size),)
