"""A store of masks over time: how clear it was, where and when."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import rioxarray  # noqa: F401  registers .rio
import xarray as xr
import zarr

from xcloudmask.archive.columns import NEVER, Box, Ints, Shape, add_counts, go_through
from xcloudmask.archive.index import UPDATED
from xcloudmask.archive.insert import read_header
from xcloudmask.errors import CloudMaskError, ContractError
from xcloudmask.masks import apply
from xcloudmask.scene.flags import codes_of
from xcloudmask.stac.boxes import check_bbox, geometry_box, parse_crs, transform_box
from xcloudmask.store.retry import persistently
from xcloudmask.store.store import Target, open_store

#: Rows and columns of a task at least; shards that are larger are tasks of their own.
TILE = 2048


@dataclass(frozen=True)
class _Question:
    """What is asked of which pixels of a store."""

    array: Any  # zarr
    mask: xr.DataArray  # the same, labelled
    box: Box
    shape: Shape | None
    labels: xr.DataArray | None
    codes: tuple[int, ...]
    token: str

    @property
    def areas(self) -> Ints:
        """The areas' numbers, ascending."""
        if self.labels is None:
            return np.array([0])
        found: Ints = np.unique(np.asarray(self.labels.values))
        return found[found > 0]


def timeseries(
    store: Any,
    *,
    group: str | None = None,
    clear: Sequence[str] = apply.CLEAR,
    bbox: Sequence[float] | None = None,
    geometry: Any = None,
    areas: xr.DataArray | None = None,
    storage_options: dict[str, Any] | None = None,
) -> xr.Dataset:
    """Tell how clear it was, by time and by place, from a store that `stream` or `sync` wrote.

    No pixel is read before the result is computed. Then each shard is read once, for all of the variables
    that are computed together, in tasks of one shard's rows and columns that go through the steps a few at a
    time: memory does not grow with the length of the record.

    Parameters
    ----------
    store, group, storage_options
        As of `stream`.
    clear : sequence of str
        Classes that count as clear.
    bbox : (west, south, east, north), optional
        Extent in degrees.
    geometry : GeoJSON or shapely geometry, optional
        In degrees. Pixels whose centre lies within count for the fractions; maps are of its extent. Its
        edges are straight lines in the CRS of the store.
    areas : DataArray, optional
        Whole numbers (parcels, say) on the grid of the store: the fractions are given for each of them,
        along ``area``. 0 and below is outside. Read at once.

    Returns
    -------
    Dataset
        By ``time`` (and ``area``): ``clear_fraction``, the clear share of the pixels with data, NaN where
        there are none, and ``valid_fraction``, the share of the pixels that have data. By ``y`` and ``x``:
        ``clear_count``, days (UTC) with a clear view; ``first_clear`` and ``last_clear``, NaT where there is
        none; ``longest_gap`` between two clear views that follow each other, NaT where there are fewer than
        two.

    Examples
    --------
    >>> import numpy as np, tempfile, xarray as xr, xcloudmask
    >>> from xcloudmask.streaming import to_zarr
    >>> from xcloudmask.archive.timeseries import timeseries
    >>> times = np.array(["2026-05-01", "2026-05-06", "2026-05-11"], "M8[ns]")
    >>> mask = xr.DataArray(
    ...     np.array([0, 1, 0], "u1").reshape(3, 1, 1), dims=("time", "y", "x"), coords={"time": times},
    ...     name="cloud_mask", attrs={"flag_values": [0, 1, 255], "flag_meanings": "clear cloud no_data"})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     report = to_zarr(mask, folder, progress=False)
    ...     found = timeseries(folder).compute()
    >>> found.clear_fraction.values.tolist(), found.clear_count.item()
    ([1.0, 0.0, 1.0], 2)
    >>> found.longest_gap.values.astype("m8[D]").item().days
    10
    """
    given = {"bbox": bbox, "geometry": geometry, "areas": areas}
    named = [name for name, value in given.items() if value is not None]
    if len(named) > 1:
        raise CloudMaskError(f"{' and '.join(named)} exclude each other: give one of them")
    target = Target(open_store(store, storage_options), group or "")
    array, mask, updated = _open(target)
    apply.one_of(xr.DataArray(np.zeros(0, np.uint8), attrs=mask.attrs), clear)  # refuses names that are none
    codes = tuple(
        int(code)
        for name, code in codes_of(mask).items()
        if name in ((clear,) if isinstance(clear, str) else clear)
    )
    box, shape = _place(target, mask, bbox, geometry)
    labels = None if areas is None else _check_areas(mask, areas)
    import dask.base

    token = dask.base.tokenize(target.label, mask.time.values, updated, codes, box, shape, labels)
    return _build(_Question(array, mask, box, shape, labels, codes, token))


def _open(target: Target) -> tuple[Any, xr.DataArray, Any]:
    header = read_header(target)
    dims = () if header is None else tuple(header["contract"]["dims"])
    if header is None or dims[0] != "time" or len(dims) != 3:
        raise ContractError(
            f"{target.label} holds no masks over time that stream wrote"
            + (f" (its dimensions are {', '.join(dims)})" if dims else "")
            + ": timeseries needs classes by time, y and x. Check the path and group="
        )
    name, group = str(header["contract"]["name"]), target.group or None
    ds = persistently(
        f"open {target.label}",
        lambda: xr.open_zarr(target.store, group=group, consolidated=False, chunks=None),
    )
    array = persistently(
        f"open {target.label}", lambda: zarr.open_array(target.store, path=target.path(name), mode="r")
    )
    ds = ds.isel(time=slice(0, int(header["steps"])))
    times = ds.time.values
    if times.dtype.kind != "M" or np.isnat(times).any() or (np.diff(times) < np.timedelta64(0)).any():
        raise CloudMaskError(
            f"{target.label}: its time is no ascending series of dates. If a sync was stopped, run it again; "
            "else write the masks sorted by time"
        )
    labels = [ds[one].values.tolist() for one in ("item_id", UPDATED) if one in ds.coords]
    return array, ds[name], labels


def _place(
    target: Target, mask: xr.DataArray, bbox: Sequence[float] | None, geometry: Any
) -> tuple[Box, Shape | None]:
    """Return the box of pixels that is looked at, and what of it counts if not all."""
    rows, cols = mask.shape[-2:]
    if bbox is None and geometry is None:
        return (slice(0, rows), slice(0, cols)), None
    if mask.rio.crs is None:
        raise CloudMaskError(f"{target.label} has no CRS, so bbox= and geometry= have no place: give areas=")
    from rasterio.warp import transform_geom
    from rasterio.windows import from_bounds

    degrees = geometry_box(geometry) if bbox is None else check_bbox(bbox)
    transform = mask.rio.transform()
    window = from_bounds(*transform_box(degrees, "EPSG:4326", parse_crs(mask.rio.crs)), transform)
    tiny = 1e-6  # a corner of pixels is one, whatever the rounding
    box = (
        slice(max(0, int(np.floor(window.row_off + tiny))), min(rows, _ceil(window.row_off + window.height))),
        slice(max(0, int(np.floor(window.col_off + tiny))), min(cols, _ceil(window.col_off + window.width))),
    )
    if any(part.start >= part.stop for part in box):
        whole = tuple(round(value, 4) for value in mask.rio.transform_bounds("EPSG:4326"))
        what = "geometry" if bbox is None else "bbox"
        raise CloudMaskError(
            f"{what}={degrees} lies beside the masks, which cover {whole} (west, south, east, north)"
        )
    if geometry is None:
        return box, None
    local = transform_geom("EPSG:4326", mask.rio.crs, getattr(geometry, "__geo_interface__", geometry))
    return box, Shape(local, transform)


def _ceil(value: float) -> int:
    return int(np.ceil(value - 1e-6))


def _check_areas(mask: xr.DataArray, areas: xr.DataArray) -> xr.DataArray:
    dims = mask.dims[-2:]
    if set(areas.dims) != set(dims) or areas.dtype.kind not in "iu":
        raise CloudMaskError(
            f"areas= must be whole numbers by {' and '.join(map(str, dims))}, not {areas.dtype} by "
            f"{areas.dims}"
        )
    areas = areas.transpose(*dims)
    for dim in dims:
        same = areas.sizes[dim] == mask.sizes[dim] and (
            dim not in areas.coords
            or dim not in mask.coords
            or bool((areas[dim].values == mask[dim].values).all())
        )
        if not same:
            raise CloudMaskError(
                f"areas= is on another grid than the masks along {dim!r} ({areas.sizes[dim]} and "
                f"{mask.sizes[dim]} pixels): bring it there with areas.rio.reproject_match(mask)"
            )
    return areas


def _tiles(question: _Question) -> list[list[Box]]:
    """Cut the box along the shards."""
    grid = (question.array.shards or question.array.chunks)[-2:]
    cuts = []
    for part, unit in zip(question.box, grid, strict=True):
        step = unit * max(1, TILE // unit)
        edges = [part.start, *range((part.start // step + 1) * step, part.stop, step), part.stop]
        cuts.append([slice(a, b) for a, b in pairwise(edges)])
    return [[(rows, cols) for cols in cuts[1]] for rows in cuts[0]]


def _build(question: _Question) -> xr.Dataset:
    import dask.array
    from dask.delayed import delayed

    arrays: Any = dask.array
    mask, areas = question.mask, question.areas
    days = mask.time.values.astype("datetime64[D]")
    start = days[0].astype("datetime64[s]")
    seconds = (mask.time.values.astype("datetime64[s]") - start).astype(np.int64)
    if len(seconds) and seconds[-1] > np.iinfo(np.int32).max:
        raise CloudMaskError(f"the masks span {days[0]} to {days[-1]}: more than 68 years; split the store")
    task, tiles = delayed(go_through, pure=True), _tiles(question)
    columns: list[list[Any]] = []
    for i, line in enumerate(tiles):
        columns.append([])
        for j, box in enumerate(line):
            labels = None if question.labels is None else question.labels[box].data
            name = f"xcloudmask-column-{question.token}-{i}-{j}"
            columns[-1].append(
                task(question.array, box, seconds, question.codes, question.shape, labels, dask_key_name=name)
            )

    def as_map(name: str) -> Any:
        blocks: list[list[Any]] = []
        for i, (line, found) in enumerate(zip(tiles, columns, strict=True)):
            blocks.append([])
            for j, (box, column) in enumerate(zip(line, found, strict=True)):
                size = tuple(part.stop - part.start for part in box)
                key = f"xcloudmask-{name}-{question.token}-{i}-{j}"
                blocks[-1].append(arrays.from_delayed(getattr(column, name), size, np.int32, name=key))
        return arrays.block(blocks)

    counts = [column.counts for line in columns for column in line]
    summed = delayed(add_counts, pure=True)(
        counts, areas, dask_key_name=f"xcloudmask-counts-{question.token}"
    )
    total = arrays.from_delayed(summed, (3, len(seconds), len(areas)), np.int64)
    return _label(question, total, {name: as_map(name) for name in ("days", "first", "last", "gap")}, start)


def _label(question: _Question, total: Any, maps: dict[str, Any], start: Any) -> xr.Dataset:
    y, x = question.mask.dims[-2:]
    where = question.mask.isel({y: question.box[0], x: question.box[1]})
    over_time = {name: coord for name, coord in where.coords.items() if set(coord.dims) <= {"time"}}
    on_map = {name: coord for name, coord in where.coords.items() if set(coord.dims) <= {y, x}}
    sums = xr.DataArray(total, dims=("what", "time", "area"), coords={**over_time, "area": question.areas})
    if question.labels is None:
        sums = sums.isel(area=0, drop=True)
    clear, valid, size = (sums.isel(what=number) for number in range(3))

    def moments(name: str) -> Any:
        found = maps[name]
        return found.map_blocks(_moments, start, dtype="datetime64[ns]")

    gap = maps["gap"].map_blocks(_durations, dtype="timedelta64[ns]")
    made = {
        "clear_count": (maps["days"], {"long_name": "days with a clear view", "units": "1"}),
        "first_clear": (moments("first"), {"long_name": "first clear view"}),
        "last_clear": (moments("last"), {"long_name": "last clear view"}),
        "longest_gap": (gap, {"long_name": "longest time between clear views"}),
    }
    out = {
        "clear_fraction": (clear / valid.where(valid > 0)).assign_attrs(
            long_name="clear share of the pixels that hold data", units="1"
        ),
        "valid_fraction": (valid / size.where(size > 0)).assign_attrs(
            long_name="share of the pixels that hold data", units="1"
        ),
        **{
            name: xr.DataArray(data, dims=(y, x), coords=on_map, attrs=attrs)
            for name, (data, attrs) in made.items()
        },
    }
    return xr.Dataset(out)


def _moments(seconds: Ints, start: Any) -> Ints:
    out: Ints = (start + seconds.astype("timedelta64[s]")).astype("datetime64[ns]")
    out[seconds == NEVER] = np.datetime64("NaT")
    return out


def _durations(seconds: Ints) -> Ints:
    out: Ints = seconds.astype("timedelta64[s]").astype("timedelta64[ns]")
    out[seconds == 0] = np.timedelta64("NaT")
    return out
