"""Chunks, shards and regions: what the user asks, or what suits the image."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from xcloudmask.errors import CloudMaskError, OptionError
from xcloudmask.store.regions import Index, Layout

Sizes = Mapping[Hashable, int] | Sequence[int]

#: Rows and columns of a chunk (what is read at once) and of a region (what is written at once).
CHUNK = 512
REGION = 2048


@dataclass(frozen=True, slots=True)
class Storage:
    """Chunk and shard shapes of an output, and the regions that fit them."""

    chunks: Index
    shards: Index | None
    layout: Layout


def choose_sizes(
    dims: Sequence[str],
    shape: Index,
    spatial: tuple[str, str],
    class_dim: str | None,
    chunks: Sizes | None,
    shards: Sizes | Literal[False] | None,
) -> Storage:
    """Settle chunk and shard shapes; a region is one shard, or without sharding several chunks.

    Examples
    --------
    >>> found = choose_sizes(("time", "y", "x"), (7, 10980, 10980), ("y", "x"), None, None, None)
    >>> found.chunks, found.shards, found.layout.count
    ((1, 512, 512), (1, 2048, 2048), 252)
    """
    size = dict(zip(dims, shape, strict=True))
    default = {
        dim: n if dim == class_dim else min(CHUNK, n) if dim in spatial else 1 for dim, n in size.items()
    }
    inner = _by_dim("chunks", dims, chunks, default)
    outer: dict[str, int] | None = None
    if shards is not False:
        default = dict(inner)
        for dim in spatial:
            chunk = inner[dim]
            default[dim] = min(chunk * max(1, REGION // chunk), -(-size[dim] // chunk) * chunk)
        outer = _by_dim("shards", dims, shards, default)
        for dim in dims:
            if outer[dim] % inner[dim]:
                near = max(inner[dim], outer[dim] // inner[dim] * inner[dim])
                raise CloudMaskError(
                    f"shards: {outer[dim]} along {dim!r} is no multiple of the chunk, {inner[dim]}; such "
                    f"as {near}"
                )
    if class_dim is not None and (outer or inner)[class_dim] < size[class_dim]:
        raise CloudMaskError(f"all {size[class_dim]} classes are written at once: leave {class_dim!r} uncut")
    unit = outer or {dim: n * max(1, REGION // n) if dim in spatial else n for dim, n in inner.items()}
    lead = [dim for dim in dims if dim not in spatial and dim != class_dim]
    layout = Layout(
        lead=tuple(size[dim] for dim in lead),
        image=(size[spatial[0]], size[spatial[1]]),
        block=tuple(unit[dim] for dim in lead),
        region=(unit[spatial[0]], unit[spatial[1]]),
    )
    sharded = None if outer in (None, inner) else tuple(unit[dim] for dim in dims)
    return Storage(tuple(inner[dim] for dim in dims), sharded, layout)


def storage_of(header: Mapping[str, Any], shape: Index) -> Storage:
    """Return how a mask is stored, by what its store says of it."""
    contract = header["contract"]
    dims = contract["dims"]
    spatial, class_dim = (dims[-2], dims[-1]), "class" if "class" in dims else None
    return choose_sizes(dims, shape, spatial, class_dim, contract["chunks"], contract["shards"] or False)


def _by_dim(
    what: str, dims: Sequence[str], given: Sizes | None, default: Mapping[str, int]
) -> dict[str, int]:
    if given is None:
        return dict(default)
    if not isinstance(given, Mapping):
        if len(given) != len(dims):
            raise CloudMaskError(
                f"{what}={tuple(given)} has {len(given)} sizes; the dimensions are {tuple(dims)}"
            )
        given = dict(zip(dims, given, strict=True))
    for dim, value in given.items():
        if dim not in dims:
            raise OptionError(f"dimension in {what}", dim, allowed=dims)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise CloudMaskError(f"{what}: {value!r} along {dim!r} must be a whole number above 0")
    return {dim: int(given.get(dim, default[dim])) for dim in dims}
