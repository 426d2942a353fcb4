"""Coarser copies of a mask in its store, by which viewers draw it from afar.

A region of the mask and the part of each overview that it covers are made by the same task, the overviews
last: a region that is recorded as done has both. Parts are files of their own, so no two tasks write to one.
Where overviews are added to a mask that is there, its regions are recorded as `BARE` first, and each as done
when its part is there: that, too, goes on where it stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from xcloudmask.errors import CloudMaskError, ContractError, Remedy, Use, names_checked
from xcloudmask.store import geozarr
from xcloudmask.store.header import header_of, put_group, read_raw_header, write_header
from xcloudmask.store.icechunk import BranchStore
from xcloudmask.store.ledger import BARE, DONE, Ledger
from xcloudmask.store.lock import Lock
from xcloudmask.store.metadata import consolidate, write_coordinates
from xcloudmask.store.options import Overviews, check_overviews
from xcloudmask.store.regions import Index, Layout
from xcloudmask.store.retry import call_with_retries
from xcloudmask.store.safety_copy import drop_copy, is_open, write_copy
from xcloudmask.store.sizes import storage_of
from xcloudmask.store.store import Target, group_document, open_existing, settle_region

Values = npt.NDArray[Any]

#: The group in which overviews lie.
PLACE = "overviews"
#: Attributes of that group, by which it is known.
OURS = {"title": "overviews, by how many times larger their pixels are"}
#: The coarsest overview has no more pixels than this along a side.
SMALLEST_SIDE = 256
#: Regions that are worked on at a time where overviews are added.
THREADS = 4


@dataclass(frozen=True)
class Pyramid:
    """The overviews of a mask; travels with each region's task, so it is small."""

    factors: tuple[int, ...]
    method: str  # "mode" or "average"
    arrays: tuple[Any, ...]  # a zarr Array for each factor

    def parts(
        self, values: Values, where: tuple[slice, ...]
    ) -> Iterator[tuple[Any, tuple[slice, ...], Values]]:
        """Return of each overview the array, and where and what it holds of a region of the mask."""
        made = coarsen(values, self.factors, self.method, self.arrays[0].fill_value)
        for factor, array, part in zip(self.factors, self.arrays, made, strict=True):
            box = (slice(s.start // factor, -(-s.stop // factor)) for s in where[-2:])
            yield array, (*where[:-2], *box), part

    def write(self, values: Values, where: tuple[slice, ...]) -> None:
        """Write what the overviews hold of a region of the mask, as it is stored."""
        for array, place, part in self.parts(values, where):
            array[place] = part
            settle_region(array, place)


def coarsen(values: Values, factors: Sequence[int], method: str, fill: Any) -> list[Values]:
    """Return an image (..., y, x) at several coarser sizes, powers of two, each made of its own pixels.

    By method ``"mode"`` of the most frequent value, of equally frequent ones the highest: no data, and cloud
    rather than clear; by ``"average"`` of the mean of what is not `fill`.

    Examples
    --------
    >>> coarsen(np.array([[0, 1, 1], [0, 1, 255]], "u1"), [2, 4], "mode", 255)
    [array([[  1, 255]], dtype=uint8), array([[1]], dtype=uint8)]
    """
    out = _mode(values, factors) if method == "mode" else _average(values, factors, fill)
    return [out[factor] for factor in factors]


def _mode(values: Values, factors: Sequence[int]) -> dict[int, Values]:
    most: dict[int, Values] = {}
    out: dict[int, Values] = {}
    for value in np.unique(values):  # ascending, so of equally frequent ones the highest stays
        for factor, count in _sums((values == value).view(np.uint8), factors):
            if factor not in out:
                most[factor], out[factor] = count, np.full(count.shape, value, values.dtype)
            else:
                more = count >= most[factor]
                np.copyto(most[factor], count, where=more)
                np.copyto(out[factor], value, where=more)
    return out


def _average(values: Values, factors: Sequence[int], fill: Any) -> dict[int, Values]:
    held = ~np.isnan(values) if np.isnan(fill) else values != fill
    whole = values.dtype.kind in "ui"
    total = np.where(held, values, 0).astype(np.int64 if whole else np.float64)
    out = {}
    sums = zip(_sums(total, factors), _sums(held.view(np.uint8), factors), strict=True)
    for (factor, added), (_, count) in sums:
        many = np.maximum(count, 1).astype(added.dtype)
        mean = (2 * added + many) // (2 * many) if whole else added / many
        out[factor] = np.where(count > 0, mean, fill).astype(values.dtype)
    return out


def _sums(values: Values, factors: Sequence[int]) -> Iterator[tuple[int, Values]]:
    """Return the sums over squares of pixels; those at the edges have fewer."""
    values = values.astype(np.uint32 if values.dtype == np.uint8 else values.dtype, copy=False)
    factor = 1
    while factor < factors[-1]:
        factor *= 2
        odd = [(0, n % 2) for n in values.shape[-2:]]
        if odd != [(0, 0), (0, 0)]:
            values = np.pad(values, [(0, 0)] * (values.ndim - 2) + odd)
        rows = values[..., ::2, :] + values[..., 1::2, :]
        values = rows[..., ::2] + rows[..., 1::2]
        if factor in factors:
            yield factor, values.copy()


def choose_factors(asked: Overviews, layout: Layout) -> tuple[int, ...]:
    """Return how many times coarser the overviews are.

    Examples
    --------
    >>> choose_factors(True, Layout((), (10980, 10980), (), (2048, 2048)))
    (2, 4, 8, 16, 32, 64)
    """
    if not isinstance(asked, bool):
        chosen = tuple(int(factor) for factor in asked)
    else:
        chosen, factor = (2,), 4
        while -(-max(layout.image) // chosen[-1]) > SMALLEST_SIDE and _fits(factor, layout):
            chosen, factor = (*chosen, factor), 2 * factor
    for factor in chosen:
        if not _fits(factor, layout):
            raise CloudMaskError(
                f"overviews: regions of {layout.region[0]} x {layout.region[1]} pixels do not hold a whole "
                f"number of squares of {factor} pixels",
                Remedy("Pass {} and {} that are powers of two", Use(chunks=...), Use(shards=...)),
            )
    return chosen


def _fits(factor: int, layout: Layout) -> bool:
    return all(
        tiles == 1 or side % factor == 0 for tiles, side in zip(layout.tiles, layout.region, strict=True)
    )


def drop_overviews(target: Target) -> None:
    """Delete the overviews that are there, or half there."""
    if (target.get_json(PLACE, "zarr.json") or {}).get("attributes") == OURS:
        target.delete_tree(PLACE)


def _refuse_others(target: Target) -> None:
    if PLACE in target.children() and (target.get_json(PLACE, "zarr.json") or {}).get("attributes") != OURS:
        raise ContractError(
            f"{target.label} has a group {PLACE!r} that is not of this library: overviews would go there.",
            Remedy("Name another {}", Use(group=...)),
        )


def settle_overviews(
    target: Target, array: Any, ledger: Ledger, layout: Layout, asked: Overviews, check: Callable[[], None]
) -> Pyramid | None:
    """Have the overviews that a call asks for, or that there are, of all regions that are done.

    The caller holds the lock, and `check` raises if it is lost.
    """
    header = read_raw_header(target) or {}
    header = _begin(target, header, ledger, layout, asked)
    pyramid = open_pyramid(target, header)
    fill_overviews(target, array, ledger, layout, pyramid, check)
    return pyramid


def open_pyramid(target: Target, header: Mapping[str, Any]) -> Pyramid | None:
    """Return the overviews of a store; None if it has none."""
    if not _are_made(header):
        return None
    said, name = header["overviews"], str(header["contract"]["name"])
    arrays = (target.open_array(PLACE, str(factor), name) for factor in said["factors"])
    return Pyramid(tuple(said["factors"]), said["method"], tuple(arrays))


def _are_made(header: Mapping[str, Any]) -> bool:
    return any(name.startswith(f"{PLACE}/") for name in header.get("arrays", ()))


def _begin(
    target: Target, header: dict[str, Any], ledger: Ledger, layout: Layout, asked: Overviews
) -> dict[str, Any]:
    """Make the arrays that a call asks for, or an earlier one did; return what the store says of its mask."""
    said = header.get("overviews")
    if said is None and not asked:
        return header
    if said is not None and not isinstance(asked, bool) and list(asked) != said["factors"]:
        raise ContractError(
            f"{target.label} has overviews of {said['factors']} times larger pixels, and this call asks for "
            f"{list(asked)}.",
            Remedy("Leave {} out to go on with those", Use(overviews=...)),
        )
    if said is None:
        _refuse_others(target)
        contract = header["contract"]
        whole = np.dtype(contract["stored_dtype"]).kind in "ui" and "class" not in contract["dims"]
        factors = choose_factors(asked, layout)
        drop_copy(target)
        for at in map(tuple, np.argwhere(ledger.states == DONE).tolist()):
            ledger.mark(at, BARE)
        ledger.save()
        said = {"factors": list(factors), "method": "mode" if whole else "average"}
        header = {**header, "overviews": said}
        write_header(target, **header)
    return header if _are_made(header) else _make(target, header, layout)


def _make(target: Target, header: dict[str, Any], layout: Layout) -> dict[str, Any]:
    """Make the arrays of overviews anew, have the group say what there is; return the header."""
    name, said = str(header["contract"]["name"]), header["overviews"]
    base, coords = target.open_array(name, mode="r"), target.open_dataset().coords.to_dataset()
    y, x = map(str, base.metadata.dimension_names[-2:])
    grid = geozarr.ImageGrid.of(coords, (y, x), layout.image)
    drop_overviews(target)  # what a killed call left
    put_group(target, OURS, PLACE)
    arrays = list(header["arrays"])
    for factor in said["factors"]:
        level = replace(target, group=target.path(PLACE, str(factor)))
        made = _create(level, base, coords, grid.coarser(factor), factor, layout)
        arrays += [f"{PLACE}/{factor}/{array}" for array in made]
    document = target.get_json("zarr.json") or group_document({})
    levels = {factor: f"{PLACE}/{factor}/{name}" for factor in said["factors"]}
    attrs = {**document.get("attributes", {}), **geozarr.attributes(grid)}
    attrs |= geozarr.multiscales(name, base.ndim, grid, levels, said["method"], attrs)
    target.put_json({**document, "attributes": attrs}, "zarr.json")
    consolidate(target, arrays)
    write_header(target, **{**header, "arrays": arrays})
    return {**header, "arrays": arrays}


def _create(
    level: Target, base: Any, coords: xr.Dataset, grid: geozarr.ImageGrid, factor: int, layout: Layout
) -> list[str]:
    """Make the arrays of one overview; return their names."""
    name = base.path.rpartition("/")[2]
    ds = xr.Dataset(attrs={"Conventions": "CF-1.11", "title": name, **geozarr.attributes(grid)})
    for dim, values in grid.centres().items():
        ds = ds.assign_coords({dim: (dim, values, coords[dim].attrs)})
    if "spatial_ref" in coords.coords:
        ds = ds.assign_coords(spatial_ref=coords["spatial_ref"].variable)
    write_coordinates(level, ds, None)
    attrs = {key: value for key, value in base.attrs.asdict().items() if key != "coordinates"}
    if "spatial_ref" in ds.coords:
        attrs["coordinates"] = "spatial_ref"
    part = [
        side // factor if tiles > 1 else n
        for side, tiles, n in zip(layout.region, layout.tiles, grid.shape, strict=True)
    ]
    whole = all(n % chunk == 0 for n, chunk in zip(part, base.chunks[-2:], strict=True))
    chunks = base.chunks if whole else (*base.chunks[:-2], *part)
    shards = (*base.shards[:-2], *part) if base.shards else None

    level.create_array(
        name,
        shape=(*base.shape[:-2], *grid.shape),
        chunks=chunks,
        shards=None if shards == chunks else shards,
        dtype=base.dtype,
        compressors=base.compressors,
        fill_value=base.fill_value,
        dimension_names=base.metadata.dimension_names,
        attributes=attrs,
    )
    return [name, *(str(coord) for coord in ds.coords)]


def fill_overviews(
    target: Target,
    array: Any,
    ledger: Ledger,
    layout: Layout,
    pyramid: Pyramid | None,
    check: Callable[[], None] = lambda: None,
) -> None:
    """Make the overviews of regions that lack them. The caller holds the lock."""
    todo = [at for at in layout.regions() if ledger[at] == BARE]
    if todo:
        drop_copy(target)

    def make(at: Index) -> Index:
        where = layout.box(at, array.shape)
        if pyramid is not None:
            values = target.read(array, where)
            call_with_retries(
                f"write overviews of region {at} to {target.label}", partial(pyramid.write, values, where)
            )
        return at

    with ThreadPoolExecutor(THREADS) as pool:
        for at in pool.map(make, todo):
            check()
            ledger.mark(at, DONE)
            ledger.measure(array, layout)
            ledger.save()


@names_checked
def add_overviews(
    store: Any,
    group: str | None = None,
    *,
    factors: Overviews = True,
    storage_options: dict[str, Any] | None = None,
) -> tuple[int, ...]:
    """Add overviews to a store of masks; a call that was stopped goes on when it is run again.

    Later calls that add to the mask make its overviews, too.

    Parameters
    ----------
    store : path, URL, zarr Store, obstore store, Icechunk repository or session
        As of `stream`.
    group : str, optional
        Group within the store.
    factors : bool or sequence of int
        How many times larger the pixels of each are, powers of two such as ``(2, 4, 8)``; by default so many
        that the last has no more than 256 pixels along a side.
    storage_options : dict, optional
        As of `stream`.

    Returns
    -------
    tuple of int
        The factors. ``xr.open_zarr(store, group="overviews/2")`` opens that with pixels twice as large.

    Examples
    --------
    >>> import tempfile, xcloudmask
    >>> mask = xr.DataArray(np.zeros((600, 600), "u1"), dims=("y", "x"), name="cloud_mask")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     report = mask.cloudmask.to_zarr(folder, progress=False)
    ...     print(xcloudmask.add_overviews(folder))
    ...     print(xr.open_zarr(folder, group="overviews/4").cloud_mask.shape)
    (2, 4)
    (150, 150)
    """
    check_overviews(factors, "factors")
    target = Target(open_existing(store, storage_options), group or "")
    with Lock(target) as lock:
        header = header_of(target)
        array, ledger = target.open_array(str(header["contract"]["name"])), Ledger.open(target)
        layout = storage_of(header, array.shape).layout
        pyramid = settle_overviews(target, array, ledger, layout, factors, lock.check)
        header = read_raw_header(target) or header
        if is_open(target):
            write_copy(target, header)
        if isinstance(target.store, BranchStore):
            message = f"overviews of {header['contract']['name']}"
            target.store.commit(message, {"group": target.group}, target.group, None)
    return pyramid.factors if pyramid else ()
