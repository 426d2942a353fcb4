"""Masks over time: how clear it was, where and when."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import rioxarray  # noqa: F401  registers .rio
import xarray as xr

from xcloudmask.archive.columns import NEVER, Box, Ints, Shape, Steps, accumulate_block, add_counts
from xcloudmask.archive.index import UPDATED
from xcloudmask.classes import CLEAR
from xcloudmask.errors import CloudMaskError, ContractError, OptionError, names_checked, warn_user
from xcloudmask.masks import apply
from xcloudmask.masks.areas import shapes_on
from xcloudmask.scene.dims import spatial_dims, transform_of
from xcloudmask.scene.mask_classes import codes_of
from xcloudmask.scene.same_grid import differ_along
from xcloudmask.stac.boxes import check_bbox, geometry_box, parse_crs, transform_box
from xcloudmask.store.header import read_header
from xcloudmask.store.store import Target, open_existing

#: Rows and columns of a task at least; shards that are larger are tasks of their own.
TILE = 2048


@dataclass(frozen=True)
class _Series:
    """Masks over time, ascending."""

    label: str
    mask: xr.DataArray  # (time, y, x)
    array: Any  # zarr, in the order of the store; None: the mask holds its pixels itself
    order: Ints  # where each step lies in the array
    unit: tuple[int, int, int]  # what is stored together
    token: Any  # tells it from others


@dataclass(frozen=True)
class _Areas:
    """Areas on the grid of the masks."""

    labels: xr.DataArray | None = None  # their numbers; None: one area
    numbers: Ints = field(default_factory=lambda: np.array([0]))  # ascending
    names: Any = None  # in the place of the numbers, in the result


@dataclass(frozen=True)
class _Query:
    """What is asked of which pixels."""

    series: _Series
    box: Box
    shape: Shape | None
    areas: _Areas
    codes: tuple[int, ...]
    token: str


@names_checked
def timeseries(
    masks: Any,
    *,
    group: str | None = None,
    clear: Sequence[str] = CLEAR,
    bbox: Sequence[float] | None = None,
    geometry: Any = None,
    areas: Any = None,
    storage_options: dict[str, Any] | None = None,
) -> xr.Dataset:
    """Tell how clear it was, by time and by place, from masks: a store of them, or an array.

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
    areas : DataArray or GeoDataFrame, optional
        Parcels, say: whole numbers on the grid of the masks, 0 and below outside, or geometries, which hold
        the pixels whose centre lies within. The fractions are given for each, along ``area``, which has
        the numbers, or the index of the GeoDataFrame. Read at once.

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
    ...     series = timeseries(folder).compute()
    >>> series.clear_fraction.values.tolist(), series.clear_count.item()
    ([1.0, 0.0, 1.0], 2)
    >>> timeseries(mask).longest_gap.compute().equals(series.longest_gap)
    True
    >>> series.longest_gap.values.astype("m8[D]").item().days
    10
    """
    given = {"bbox": bbox, "geometry": geometry, "areas": areas}
    named = [name for name, value in given.items() if value is not None]
    if len(named) > 1:
        raise CloudMaskError(f"{' and '.join(named)} exclude each other: give one of them")
    if isinstance(masks, xr.DataArray):
        series = _in_memory(masks)
    else:
        series = _open(Target(open_existing(masks, storage_options), group or ""))
    mask = series.mask
    apply.one_of(xr.DataArray(np.zeros(0, np.uint8), attrs=mask.attrs), clear)  # refuses names that are none
    wanted = (clear,) if isinstance(clear, str) else clear
    codes = tuple(int(code) for name, code in codes_of(mask).items() if name in wanted)
    box, shape = _place(series, bbox, geometry)
    parcels = _Areas() if areas is None else _read_areas(mask, areas)
    import dask.base

    token = dask.base.tokenize(
        series.label, mask.time.values, series.token, codes, box, shape, parcels.labels, parcels.numbers
    )
    return _build(_Query(series, box, shape, parcels, codes, token))


def rank(mask: xr.DataArray, by: str, area: Any, clear: Sequence[str]) -> xr.Dataset:
    """Do what `xcloudmask.accessor.CloudMask.rank` documents."""
    keys = ("clear_fraction", "usable_fraction", "valid_fraction")
    if by not in keys:
        raise OptionError("by", by, allowed=keys)
    if hasattr(area, "to_crs"):
        if area.crs is None:
            raise CloudMaskError("area= has no CRS, so it has no place", "Set it: area.set_crs(...)")
        area = area.geometry.to_crs("EPSG:4326").union_all()
    shares = timeseries(mask, geometry=area, clear=clear)[["clear_fraction", "valid_fraction"]].compute()
    usable = (shares.clear_fraction.fillna(0) * shares.valid_fraction).assign_attrs(
        long_name="share of the pixels that are clear and hold data", units="1"
    )
    shares = shares.assign(usable_fraction=usable, step=("time", _by_time("the mask", mask.time)))
    return shares.isel(time=np.argsort(-shares[by].values, kind="stable"))


def _open(target: Target) -> _Series:
    header = read_header(target)
    dims = () if header is None else tuple(header["contract"]["dims"])
    if header is None or dims[0] != "time" or len(dims) != 3:
        raise ContractError(
            f"{target.label} holds no masks over time that stream wrote"
            + (f" (its dimensions are {', '.join(dims)})" if dims else "")
            + ": timeseries needs classes by time, y and x. Check the path and group="
        )
    name = str(header["contract"]["name"])
    array = target.open_array(name, mode="r")
    ds = target.open_dataset().isel(time=slice(0, int(header["steps"])))
    order = _by_time(target.label, ds.time)
    token = [ds[label].values.tolist() for label in ("item_id", UPDATED) if label in ds.coords]
    return _Series(target.label, ds[name].isel(time=order), array, order, array.shards or array.chunks, token)


def _in_memory(mask: xr.DataArray) -> _Series:
    import dask.base

    label = f"the mask {mask.name or ''}".rstrip()
    dims = [str(dim) for dim in mask.dims]
    if "time" not in mask.coords or "time" not in dims or len(dims) != 3:
        raise CloudMaskError(f"{label} has the dimensions {tuple(dims)}: timeseries needs time, y and x")
    mask = mask.transpose("time", *spatial_dims(mask))
    mask = mask.isel(time=_by_time(label, mask.time))
    cuts = mask.chunks or [(1,)] * 3
    unit = 1, max(cuts[1]), max(cuts[2])
    order = np.arange(mask.sizes["time"])
    return _Series(label, mask, None, order, unit, dask.base.tokenize(mask.data))


def _by_time(label: str, time: xr.DataArray) -> Ints:
    """Return the order of the steps in time."""
    times = time.values
    if times.dtype.kind != "M" or np.isnat(times).any():
        raise CloudMaskError(
            f"{label}: its time is {'not complete' if times.dtype.kind == 'M' else times.dtype}: timeseries "
            "needs a date for each step"
        )
    order: Ints = np.argsort(times, kind="stable")
    return order


def _place(series: _Series, bbox: Sequence[float] | None, geometry: Any) -> tuple[Box, Shape | None]:
    """Return the box of pixels that is looked at, and what of it counts if not all."""
    mask = series.mask
    rows, cols = mask.shape[-2:]
    if bbox is None and geometry is None:
        return (slice(0, rows), slice(0, cols)), None
    if mask.rio.crs is None:
        raise CloudMaskError(f"{series.label} has no CRS, so bbox= and geometry= have no place: give areas=")
    from rasterio.warp import transform_geom
    from rasterio.windows import from_bounds

    degrees = geometry_box(geometry) if bbox is None else check_bbox(bbox)
    transform = transform_of(mask)
    window = from_bounds(*transform_box(degrees, "EPSG:4326", parse_crs(mask.rio.crs)), transform)
    tiny = 1e-6  # a corner of pixels is one, whatever the rounding
    box = (
        slice(max(0, int(np.floor(window.row_off + tiny))), min(rows, _ceil(window.row_off + window.height))),
        slice(max(0, int(np.floor(window.col_off + tiny))), min(cols, _ceil(window.col_off + window.width))),
    )
    if any(part.start >= part.stop for part in box):
        whole = tuple(round(value, 4) for value in mask.rio.transform_bounds("EPSG:4326", recalc=True))
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


def _read_areas(mask: xr.DataArray, areas: Any) -> _Areas:
    names = None
    if hasattr(areas, "to_crs"):  # a GeoDataFrame or GeoSeries
        areas, names = _rasterised(mask, areas)
    if not isinstance(areas, xr.DataArray):
        raise CloudMaskError(f"areas= must be a DataArray or a GeoDataFrame, not {type(areas).__name__}")
    labels = _on_grid(mask, areas)
    if names is not None:
        return _Areas(labels, np.arange(1, len(names) + 1), names)
    numbers = np.unique(np.asarray(labels.values))
    return _Areas(labels, numbers[numbers > 0])


def _rasterised(mask: xr.DataArray, areas: Any) -> tuple[xr.DataArray, Any]:
    """Return the number of the geometry that holds each pixel's centre, from 1, and their index."""
    from rasterio.enums import MergeAlg
    from rasterio.features import rasterize

    shapes = shapes_on(mask, areas)
    how: dict[str, Any] = {"out_shape": mask.shape[-2:], "transform": transform_of(mask), "dtype": "int32"}
    labels = rasterize([(shape, number) for number, shape in enumerate(shapes, 1)], **how)
    times_held = rasterize([(shape, 1) for shape in shapes], merge_alg=MergeAlg.add, **how)
    if shared := int((times_held > 1).sum()):
        warn_user(f"areas= overlap: each of {shared} pixels is counted for the last one only", UserWarning)
    coords = {dim: mask[dim] for dim in mask.dims[-2:] if dim in mask.coords}
    return xr.DataArray(labels, dims=mask.dims[-2:], coords=coords), np.asarray(areas.index)


def _on_grid(mask: xr.DataArray, areas: xr.DataArray) -> xr.DataArray:
    dims = mask.dims[-2:]
    if set(areas.dims) != set(dims) or areas.dtype.kind not in "iu":
        raise CloudMaskError(
            f"areas= must be whole numbers by {' and '.join(map(str, dims))}, not {areas.dtype} by "
            f"{areas.dims}"
        )
    areas = areas.transpose(*dims)
    for dim in dims:
        if areas.sizes[dim] != mask.sizes[dim] or differ_along(areas, mask, dim):
            raise CloudMaskError(
                f"areas= is on another grid than the masks along {dim!r} ({areas.sizes[dim]} and "
                f"{mask.sizes[dim]} pixels): bring it there with areas.rio.reproject_match(mask)"
            )
    return areas


def _tiles(query: _Query) -> list[list[Box]]:
    """Cut the box along what is stored together."""
    cuts = []
    for part, unit in zip(query.box, query.series.unit[-2:], strict=True):
        step = unit * max(1, TILE // unit)
        edges = [part.start, *range((part.start // step + 1) * step, part.stop, step), part.stop]
        cuts.append([slice(a, b) for a, b in pairwise(edges)])
    return [[(rows, cols) for cols in cuts[1]] for rows in cuts[0]]


def _build(query: _Query) -> xr.Dataset:
    import dask.array
    from dask.delayed import delayed

    arrays: Any = dask.array
    series, areas = query.series, query.areas
    days = series.mask.time.values.astype("datetime64[D]")
    start = days[0].astype("datetime64[s]")
    seconds = (series.mask.time.values.astype("datetime64[s]") - start).astype(np.int64)
    if len(seconds) and seconds[-1] > np.iinfo(np.int32).max:
        raise CloudMaskError(f"the masks span {days[0]} to {days[-1]}: more than 68 years; split them")
    steps = Steps(seconds, series.order, series.unit[0], query.codes)
    task, tiles = delayed(accumulate_block, pure=True), _tiles(query)
    columns: dict[tuple[int, int], tuple[Box, Any]] = {}
    for i, line in enumerate(tiles):
        for j, box in enumerate(line):
            labels = None if areas.labels is None else areas.labels[box].data
            pixels = series.mask.data[:, *box] if series.array is None else series.array
            name = f"xcloudmask-column-{query.token}-{i}-{j}"
            columns[i, j] = box, task(pixels, box, steps, query.shape, labels, dask_key_name=name)

    def block_of(name: str, i: int, j: int) -> Any:
        box, column = columns[i, j]
        size = tuple(part.stop - part.start for part in box)
        key = f"xcloudmask-{name}-{query.token}-{i}-{j}"
        return arrays.from_delayed(getattr(column, name), size, np.int32, name=key)

    def as_map(name: str) -> Any:
        return arrays.block([[block_of(name, i, j) for j in range(len(tiles[0]))] for i in range(len(tiles))])

    counts = [column.counts for _, column in columns.values()]
    summed = delayed(add_counts, pure=True)(
        counts, areas.numbers, dask_key_name=f"xcloudmask-counts-{query.token}"
    )
    total = arrays.from_delayed(summed, (3, len(seconds), len(areas.numbers)), np.int64)
    return _label(query, total, {name: as_map(name) for name in ("days", "first", "last", "gap")}, start)


def _label(query: _Query, total: Any, maps: dict[str, Any], start: Any) -> xr.Dataset:
    y, x = query.series.mask.dims[-2:]
    where = query.series.mask.isel({y: query.box[0], x: query.box[1]})
    over_time = {name: coord for name, coord in where.coords.items() if set(coord.dims) <= {"time"}}
    on_map = {name: coord for name, coord in where.coords.items() if set(coord.dims) <= {y, x}}
    names = query.areas.numbers if query.areas.names is None else query.areas.names
    sums = xr.DataArray(total, dims=("what", "time", "area"), coords={**over_time, "area": names})
    if query.areas.labels is None:
        sums = sums.isel(area=0, drop=True)
    clear, valid, size = (sums.isel(what=number) for number in range(3))

    def moments(name: str) -> Any:
        return maps[name].map_blocks(_moments, start, dtype="datetime64[ns]")

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
