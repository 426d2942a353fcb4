"""The options of writing a mask, each with its sentence."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from xcloudmask.engine.progress import Progress
from xcloudmask.errors import OptionError
from xcloudmask.predict.fields import OptionSet, about, check_whole
from xcloudmask.store.sizes import Sizes

#: Whether there are overviews, or how many times larger the pixels of each are.
Overviews = bool | list[int] | tuple[int, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class WriteOptions(OptionSet):
    """How a mask is written; `da.cloudmask.to_zarr` says at length what each option means."""

    group: str | None = field(default=None, metadata=about("group within the store", "G"))
    append_dim: str = field(
        default="time", metadata=about("dimension along which later calls may add steps (time)", "DIM")
    )
    resume: bool = field(default=True, metadata=about("go on with a store that holds a mask already"))
    overwrite: bool = field(default=False, metadata=about("replace the mask that is there"))
    chunks: Sizes | None = field(
        default=None, metadata=about("pixels a side of what is read at once (512)", "N")
    )
    shards: Sizes | Literal[False] | None = field(
        default=None, metadata=about("pixels a side of a file (2048)", "N")
    )
    encoding: Mapping[str, Any] | None = field(
        default=None, metadata=about("form of probabilities: uint8 (scaled), float16, float32", "T")
    )
    overviews: Overviews = field(
        default=False, metadata=about("write coarser copies of the mask beside it, for viewers")
    )
    stac: str | os.PathLike[str] | None = field(
        default=None, metadata=about("catalogue of STAC documents in which the store is listed", "DIR")
    )
    progress: Progress = field(default="auto", metadata=about("a bar, or a function of each event"))
    regions_in_flight: int | None = field(
        default=None, metadata=about("regions in memory at a time (2)", "N")
    )
    retries: int = field(default=2, metadata=about("of a region that fails (2)", "N"))
    storage_options: dict[str, Any] | None = field(
        default=None,
        metadata=about(
            "of a URL's file system: endpoint_url=http://..., anon=true; of Icechunk: branch=...; again for "
            "more",
            "KEY=VALUE",
        ),
    )

    def __post_init__(self) -> None:
        """Refuse values that suit no mask."""
        super().__post_init__()
        for name, least in (("regions_in_flight", 1), ("retries", 0)):
            if name == "retries" or getattr(self, name) is not None:
                check_whole(name, getattr(self, name), f"a whole number above {least - 1}", least)
        for name, kind in (("group", str), ("append_dim", str), ("storage_options", Mapping)):
            value = getattr(self, name)
            if not isinstance(value, kind) and not (value is None and name != "append_dim"):
                raise OptionError(
                    name, value, hint="Give a " + ("mapping." if kind is Mapping else "string.")
                )
        check_overviews(self.overviews)
        place = "" if self.stac is None else self.stac
        if not isinstance(place, (str, os.PathLike)) or os.fspath(place).startswith("icechunk:"):
            raise OptionError(
                "stac", self.stac, hint="Give a folder, or a URL such as s3://bucket/catalogue."
            )
        if self.group and ({".", ".."} & set(self.group.split("/")) or "\0" in self.group):
            raise OptionError("group", self.group, hint="Give names with / between them: 'masks/32TPR'.")
        for name in ("chunks", "shards"):  # a string would be read letter by letter
            value = getattr(self, name)
            if not (value is None or isinstance(value, (Mapping, tuple, list)) or value is False):
                raise OptionError(name, value, hint="Give pixels by dimension: {'y': 512, 'x': 512}.")


def check_overviews(value: Overviews, name: str = "overviews") -> None:
    """Refuse what is neither true nor false nor ascending powers of two."""
    if isinstance(value, bool):
        return
    factors = list(value) if isinstance(value, (list, tuple)) else []
    fit = all(isinstance(n, int) and n > 1 and n & (n - 1) == 0 for n in factors)
    if not factors or not fit or factors != sorted(set(factors)):
        raise OptionError(name, value, hint="Give True, or ascending powers of two: (2, 4, 8).")
