"""Read one part of the grid from one or several files: mask, warp, calibrate.

This is the only place that opens an asset. Both engines call it, so both give the same pixels.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from xcloudmask.errors import AssetError, CloudMaskError, warn_user
from xcloudmask.stac.assumptions import name_items
from xcloudmask.stac.boxes import parse_crs, transform_box
from xcloudmask.stac.grid import AssetGrid, Grid, Part
from xcloudmask.stac.item_plan import ItemPlan, Source, ValidRule
from xcloudmask.stac.opening import is_zarr, open_raster
from xcloudmask.stac.transport import Transport, as_warning, explain, forget_failures, warn_anywhere
from xcloudmask.stac.warp import rasterio_crs, read_warped
from xcloudmask.stac.zarr_store import open_array
from xcloudmask.store.retry import is_io, repeat

#: Values in single or double precision.
Float: TypeAlias = NDArray[np.floating[Any]]
#: Parts of a pixel by which two grids may differ and still be read without warping.
_ALIGNED = 0.01


@dataclass(frozen=True, slots=True)
class Layer:
    """The sources of one band of one time step, in the order in which they are laid: the first wins."""

    sources: tuple[Source, ...] = ()

    def __dask_tokenize__(self) -> tuple[Any, ...]:
        return tuple(source.__dask_tokenize__() for source in self.sources)


def read_layer(
    layer: Layer, part: Part, resampling: str, transport: Transport, dtype: Any = "float32"
) -> Float:
    """Return a part of a grid as calibrated values, NaN where there is no data."""
    out: Float | None = None
    own = part.grid
    for source in layer.sources:
        if not own.touches(source.bounds):
            continue
        try:
            values = _read_source(source, part, resampling, transport, dtype)
        except AssetError as error:
            if transport.on_error == "raise":
                raise
            warn_anywhere(as_warning(error))
            continue
        if out is None:
            out = values
        else:
            np.copyto(out, values, where=np.isnan(out))
        if not np.isnan(out).any():
            break
    return np.full(part.shape, np.nan, dtype=dtype) if out is None else out


def with_places(plans: Sequence[ItemPlan], transport: Transport) -> list[ItemPlan]:
    """Return the plans, with places from the headers of the files of items that do not tell their CRS."""
    silent = [
        plan
        for plan in plans
        if plan.assets and all(source.place is None or source.place.crs is None for source in plan.assets)
    ]
    if not silent:
        return list(plans)
    with ThreadPoolExecutor(max_workers=8) as pool:
        placed = pool.map(partial(_from_headers, transport=transport), silent)
        read = dict(zip(map(id, silent), placed, strict=True))
    ids = [plan.item_id for plan in silent if read[id(plan)] is not plan]
    if ids:
        warn_user(
            f"{name_items(ids)}: no proj:code tells the CRS, so the headers of the files were read. That"
            " costs a request each: state proj:code, proj:transform and proj:shape in the items, or pass crs="
            " and resolution=",
            UserWarning,
        )
    return [read.get(id(plan), plan) for plan in plans]


def _from_headers(plan: ItemPlan, transport: Transport) -> ItemPlan:
    """Return a plan with the places that the headers state; as it is where one cannot be read."""
    sources = []
    for source in plan.assets:
        try:
            path = transport.path(transport.url(source.href, remote=source.remote))
            with transport.environment(), _opened(path, source, transport) as dataset:
                a, _, left, _, e, top = tuple(dataset.transform)[:6]
                if dataset.crs is None:
                    return plan
                place = AssetGrid(
                    plan.item_id, parse_crs(dataset.crs), tuple(dataset.bounds), (a, -e), None, (left, top)
                )
        except Exception as error:
            if not (isinstance(error, (OSError, CloudMaskError)) or is_io(error)):
                raise
            return plan
        sources.append(replace(source, place=place, crs=place.crs, unplaced=False))
    return replace(plan, assets=tuple(sources), crs=sources[0].crs)


def _read_source(source: Source, part: Part, resampling: str, transport: Transport, dtype: Any) -> Float:
    raw = _fetch(source, part, resampling, transport)
    values = np.ma.filled(raw.astype(dtype), np.nan)
    if source.nodata is not None:
        values[values == values.dtype.type(source.nodata)] = np.nan
    if source.valid is not None and not np.isnan(values).all():
        values[~_valid_pixels(source, source.valid, part, transport)] = np.nan
    return calibrate(values, source.scale, source.offset, source.k1, source.k2)


def calibrate(
    values: Float, scale: float, offset: float, k1: float | None = None, k2: float | None = None
) -> Float:
    """Turn numbers into reflectance, or radiance and then kelvin where K1 and K2 are given, in place.

    Examples
    --------
    >>> calibrate(np.array([5120.0, np.nan], "float32"), 2.0**-13, -0.125).tolist()
    [0.5, nan]
    """
    kind = values.dtype.type
    values *= kind(scale)
    values += kind(offset)
    if k1 is not None and k2 is not None:
        with np.errstate(invalid="ignore", divide="ignore"):
            values[values <= 0] = np.nan  # no radiance has no temperature
            values[:] = kind(k2) / np.log(kind(k1) / values + kind(1.0))
    return values


class _Cell:
    """Bit maps (planes, rows, columns) that are made once, whoever asks first."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._packed: NDArray[np.uint8] | None = None

    def get(
        self, make: Callable[[], NDArray[np.bool_]], plane: int, shape: tuple[int, int]
    ) -> NDArray[np.bool_]:
        with self._lock:
            if self._packed is None:
                made = make()
                self._packed = np.packbits(made.reshape(len(made), -1), axis=1)
            flat = np.unpackbits(self._packed[plane], count=shape[0] * shape[1])
        return flat.reshape(shape).astype(bool)


@lru_cache(maxsize=64)
def _cell(rule: ValidRule, item_id: str, part: Part) -> _Cell:
    """Share one reading of a quality asset among the bands of a chunk; those of at most 64 are kept."""
    return _Cell()


def _valid_pixels(source: Source, rule: ValidRule, part: Part, transport: Transport) -> NDArray[np.bool_]:
    bits: list[int] = []
    if source.good_bit is not None and rule.mask is not None:
        bits = [bit for bit in range(rule.mask.bit_length()) if rule.mask >> bit & 1]

    def make() -> NDArray[np.bool_]:
        flags_of = replace(source, key=rule.key, href=rule.href, index=rule.index, nodata=None, dtype=None)
        raw = _fetch(flags_of, part, "nearest", transport)
        flags = np.asarray(raw.data)
        if rule.mask is None:
            valid = ~np.isin(flags, rule.invalid_values)[None]
        else:
            differs = (flags.astype("int64") & rule.mask) ^ rule.expected
            valid = np.stack([differs & (1 << bit) == 0 for bit in bits] or [differs == 0])
        return np.asarray(valid & ~np.ma.getmaskarray(raw))

    plane = bits.index(source.good_bit) if source.good_bit is not None and bits else 0
    return _cell(rule, source.item_id, part).get(make, plane, part.shape)


def _fetch(source: Source, part: Part, resampling: str, transport: Transport) -> Any:
    """Read one band on `part` as a masked array of the file's own numbers, with retries; name what fails."""
    from pyproj.exceptions import ProjError

    url = source.href
    by_gdal = transport.filesystem is None and not is_zarr(url)
    try:
        url = transport.url(url, remote=source.remote)
        path = url if is_zarr(url) else transport.path(url)
        return repeat(
            lambda: _open_and_read(path, source, part, resampling, transport),
            transport.retries,
            f"item {source.item_id!r}, asset {source.key!r}",
            partial(forget_failures, path, transport) if by_gdal else None,
        )
    except Exception as error:
        # of the file, its CRS, a client that is no OSError (GDAL, obstore); all else is a bug and stays one
        if not (isinstance(error, (OSError, CloudMaskError, ValueError, ProjError)) or is_io(error)):
            raise
        failure = explain(source.item_id, source.key, url, error, transport, source.access)
    # Not inside the handler: GDAL's errors, as cause or context, cannot be unpickled, and a cluster would
    # hand back a nameless Exception. The message holds all that they said.
    raise failure


def _open_and_read(path: str, source: Source, part: Part, resampling: str, transport: Transport) -> Any:
    with transport.environment(), _opened(path, source, transport) as dataset:
        if not 1 <= source.index <= dataset.count:
            raise AssetError(f"band {source.index} is asked for, the file has {dataset.count}")
        _check_crs(dataset.crs, source.crs)
        _check_dtype(dataset.dtypes[source.index - 1], source)
        _check_place(dataset, source, part.whole)
        corner = _aligned_corner(dataset, part.whole)
        if corner is not None:
            offset = (corner[0] + part.row, corner[1] + part.column)
            return _read_aligned(dataset, source.index, offset, part.shape)
        if source.unplaced:
            _tell_of_shift(dataset, source, part.whole)
        return read_warped(dataset, source, part, resampling)


def _opened(path: str, source: Source, transport: Transport) -> Any:
    if is_zarr(path):
        return nullcontext(open_array(path, source.crs, transport))
    return open_raster(path, filesystem=transport.filesystem, own_vrt=transport.own_vrt)


def _check_crs(own: Any, declared: str | None) -> None:
    if own is None or declared is None:
        return
    name = parse_crs(own)
    if name != declared and own != rasterio_crs(declared):
        raise AssetError(
            f"the file is in {name[:60]}, the item says {declared}: its place on the grid would be wrong."
            " Correct the item's proj:code (modifier=), or leave it out."
        )


def _check_dtype(held: str, source: Source) -> None:
    """Refuse numbers that the scale is not for: those of a float copy, or of a picture."""
    declared = np.dtype(source.dtype) if source.dtype in np.sctypeDict else None
    smaller = declared is not None and source.dtype != "int" and np.dtype(held).itemsize < declared.itemsize
    floats = np.dtype(held).kind == "f" and declared is not None and declared.kind in "iu"
    if floats or smaller or np.dtype(held).kind == "c":
        of = "whole numbers" if source.dtype == "int" else source.dtype or "real numbers"
        raise AssetError(
            f"the file holds {held}, the catalogue says {of}: scale {source.scale:g} and offset"
            f" {source.offset:g} are not for these. Leave it out, or correct data_type and scale (modifier=)."
        )


def _check_place(dataset: Any, source: Source, grid: Grid) -> None:
    """Refuse a file that lies nowhere, or beside the place its item states: a silent hole."""
    if dataset.crs is None and dataset.transform.is_identity:
        raise AssetError(
            "the file has neither a CRS nor a transform, so its pixels have no place: leave the item out."
        )
    if source.bounds is None:
        return
    try:
        box = tuple(dataset.bounds)
        if dataset.crs is not None and dataset.crs != rasterio_crs(grid.crs):
            box = transform_box(box, parse_crs(dataset.crs), grid.crs)
    except CloudMaskError:
        return
    left, bottom, right, top = source.bounds
    if box[0] > right or box[2] < left or min(box[1], box[3]) > top or max(box[1], box[3]) < bottom:
        raise AssetError(
            f"the file lies at {tuple(round(n, 6) for n in box)}, the item says {source.bounds} (both in"
            f" {grid.crs[:60]}). Correct the item's proj: fields (modifier=), or leave it out."
        )


def _aligned_corner(dataset: Any, grid: Grid) -> tuple[int, int] | None:
    """Row and column of the grid's corner in the file, if their pixels coincide; else None."""
    if dataset.crs is not None and dataset.crs != rasterio_crs(grid.crs):
        return None
    a, b, left, d, e, top = tuple(dataset.transform)[:6]
    if b or d or a <= 0 or e >= 0:
        return None
    drift = max(abs(a / grid.res_x - 1) * grid.shape[1], abs(-e / grid.res_y - 1) * grid.shape[0])
    column, row = (grid.left - left) / a, (grid.top - top) / e
    if drift > _ALIGNED or max(abs(column - round(column)), abs(row - round(row))) > _ALIGNED:
        return None
    return round(row), round(column)


def _tell_of_shift(dataset: Any, source: Source, grid: Grid) -> None:
    """Warn of pixels of the grid's size that lie between those of the grid: nobody asked for that."""
    a, _, left, _, e, top = tuple(dataset.transform)[:6]
    same_size = math.isclose(a, grid.res_x, rel_tol=1e-6) and math.isclose(-e, grid.res_y, rel_tol=1e-6)
    if same_size and dataset.crs == rasterio_crs(grid.crs):
        shift = max(abs((far + 0.5) % 1 - 0.5) for far in ((grid.left - left) / a, (grid.top - top) / e))
        warn_anywhere(
            f"item {source.item_id!r} states no proj:transform, and its pixels lie {shift * a:.4g} m beside"
            " those of the sensor's usual products: they are resampled. For the file's own pixels give its"
            " grid: like=rioxarray.open_rasterio(<the file>)"
        )


def _read_aligned(dataset: Any, index: int, offset: tuple[int, int], shape: tuple[int, int]) -> Any:
    from rasterio.windows import Window

    out = np.ma.masked_array(np.zeros(shape, dtype=dataset.dtypes[index - 1]), mask=True)
    row0, col0 = max(offset[0], 0), max(offset[1], 0)
    row1, col1 = min(offset[0] + shape[0], dataset.height), min(offset[1] + shape[1], dataset.width)
    if row1 > row0 and col1 > col0:
        window = Window(col0, row0, col1 - col0, row1 - row0)
        part = dataset.read(index, window=window, masked=True)
        rows = slice(row0 - offset[0], row1 - offset[0])
        out[rows, col0 - offset[1] : col1 - offset[1]] = part
    return out
