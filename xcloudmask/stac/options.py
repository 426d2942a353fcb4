"""The options of loading a catalogue's items, each with its sentence."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np

from xcloudmask.errors import OptionError
from xcloudmask.predict.fields import OptionSet, about, check_whole
from xcloudmask.stac.engines import Engine
from xcloudmask.stac.offset import OffsetMode
from xcloudmask.stac.transport import OnError

_CHOICES: Mapping[str, tuple[object, ...]] = {
    "mosaic": (None, "day"), "duplicates": ("newest", "keep"), "dtype": ("float32", "float64"),
    "sentinel2_offset": get_args(OffsetMode),
    "engine": get_args(Engine),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True, eq=False)
class LoadOptions(OptionSet):
    """What `xcloudmask.load_stac` takes, and says at length; what is recorded makes grid and pixels."""

    bands: str | Sequence[str] = field(
        default="auto", metadata=about("names of bands (those of models)", "A,B,..")
    )
    resolution: float | tuple[float, float] | None = field(
        default=None, metadata=about("pixel size, in units of the CRS", "R")
    )
    crs: Any = field(default=None, metadata=about("such as EPSG:32632 (that of the items)", "CRS"))
    bbox: Sequence[float] | None = field(default=None, metadata=about("degrees; also what is masked"))
    geometry: Any = field(default=None, metadata=about("extent in degrees, as its bounding box"))
    like: Any = field(default=None, metadata=about("an array whose grid is taken", recorded=False))
    chunks: int | str | tuple[int, int] | Mapping[str, int] = field(
        default=1024, metadata=about("rows and columns that are read at a time", "N", recorded=False)
    )
    engine: Engine = field(default="stackstac", metadata=about("stackstac or odc", "E", recorded=False))
    mosaic: Literal["day"] | None = field(
        default=None, metadata=about("merge the items of a sensor and day into one step", "M")
    )
    level: str | None = field(default=None, metadata=about("L1C (top of atmosphere) or L2A (surface)", "L"))
    sentinel2_offset: OffsetMode = field(
        default="auto",
        metadata=about("auto, apply or skip Sentinel-2's offset of baseline 04.00 and later", "W"),
    )
    sun_elevation: float | Mapping[str, float] | None = field(
        default=None, metadata=about("degrees, for items that need it and do not tell", "DEG", recorded=False)
    )
    resampling: str = field(default="nearest", metadata=about("nearest, bilinear, cubic, average ...", "M"))
    duplicates: Literal["newest", "keep"] = field(
        default="newest", metadata=about("of a scene processed more than once: newest, or keep all", "D")
    )
    patch_url: Callable[[str], str] | None = field(
        default=None, metadata=about("called with each URL just before it is opened", recorded=False)
    )
    prefer: str | None = field(
        default=None,
        metadata=about("s3 or https: which of an asset's addresses is taken", "W", recorded=False),
    )
    modifier: Callable[[Any], Any] | None = field(
        default=None, metadata=about("called with a copy of each item", recorded=False)
    )
    on_error: OnError = field(
        default="raise",
        metadata=about("raise or skip, where a file is missing or broken", "W", recorded=False),
    )
    retries: int = field(default=4, metadata=about("of a request that fails (4)", "N", recorded=False))
    timeout: float = field(
        default=60.0, metadata=about("seconds that one request may take (60)", "S", recorded=False)
    )
    gdal_env: Mapping[str, Any] | None = field(
        default=None, metadata=about("settings for GDAL", recorded=False)
    )
    filesystem: Any = field(
        default=None, metadata=about("fsspec file system that opens the files", recorded=False)
    )
    allow_private_hosts: bool = field(
        default=True, metadata=about("refuse files on hosts with private addresses", recorded=False)
    )
    max_pixels: int = field(
        default=10_000_000_000,
        metadata=about("of a grid whose extent nobody gave (1e10)", "N", recorded=False),
    )
    masks: bool = field(
        default=False, metadata=about("bring the masks along that came with the scenes", recorded=False)
    )
    dtype: str = field(default="float32", metadata=about("float32 or float64", "T"))

    def __post_init__(self) -> None:
        """Refuse values that suit no item."""
        super().__post_init__()
        object.__setattr__(self, "dtype", _dtype_name(self.dtype))
        for name, allowed in _CHOICES.items():
            value = getattr(self, name)
            if not isinstance(value, (str, type(None))) or value not in allowed:
                raise OptionError(name, getattr(self, name), allowed=[repr(value) for value in allowed])
        check_whole("max_pixels", self.max_pixels, "a whole number above 0", 1)
        from rasterio.enums import Resampling

        if not isinstance(self.resampling, str) or self.resampling not in Resampling.__members__:
            raise OptionError("resampling", self.resampling, allowed=Resampling.__members__)


def _dtype_name(dtype: Any) -> str:
    try:
        return str(dtype if dtype is None else np.dtype(dtype))  # to NumPy, None is float64
    except TypeError:
        return str(dtype)
