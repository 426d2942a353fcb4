"""From a scene to one lazy, calibrated, described DataArray."""

from __future__ import annotations

import math
import os
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from xcloudmask.errors import AssetError, CloudMaskError, OptionError
from xcloudmask.local.hdf4 import read_hdf4
from xcloudmask.local.scene import HDF4, Plane, Scene
from xcloudmask.scene.describe import describe_bands, describe_scene, describe_times
from xcloudmask.scene.sun_angles import describe_sun
from xcloudmask.stac.grid import Grid
from xcloudmask.stac.item_plan import Source
from xcloudmask.stac.opening import gdal_path, is_local, is_zarr, open_raster
from xcloudmask.stac.reader import Layer, read_layer
from xcloudmask.stac.transport import Transport
from xcloudmask.store.retry import messages

if TYPE_CHECKING:
    import xarray as xr

_REMOTE = Transport()
#: Files at hand fail for good or not at all; a world file beside a TIFF counts.
_TRANSPORT = Transport(retries=0, gdal_env=(("GDAL_DISABLE_READDIR_ON_OPEN", "FALSE"),), own_vrt=True)
#: Pixel sizes that differ by less are the same.
_SAME = 1e-6


@dataclass(frozen=True, slots=True)
class _Part:
    """One band as the graph carries it."""

    source: Source
    file: str
    resampling: str


@contextmanager
def opened(href: str, file: str, remedy: str) -> Iterator[Any]:
    """Open a raster file, which messages call `file`; `remedy` says what to do where that fails."""
    from rasterio.errors import NotGeoreferencedWarning, RasterioIOError

    with _TRANSPORT.environment():
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", NotGeoreferencedWarning)
                dataset = open_raster(gdal_path(href))
        except RasterioIOError as error:
            raise AssetError(
                f"{file}: cannot be opened: {error}. The file may be missing, cut short or of another kind"
                f" than its name says: {remedy}."
            ) from error
        with dataset:
            yield dataset


def grid_of(href: str, file: str) -> Grid:
    """Return the grid of a raster file; reads its header only."""
    with opened(href, file, "fetch the product again") as dataset:
        crs, transform, shape = dataset.crs, dataset.transform, dataset.shape
    if crs is None:
        raise CloudMaskError(
            f"{file}: it has no coordinate reference system, so its pixels have no place on the ground. Write"
            " one into it (rio edit-info --crs EPSG:...), or open it with rioxarray and describe() it."
        )
    a, b, left, d, e, top = tuple(transform)[:6]
    if b or d or a <= 0 or e >= 0:
        raise CloudMaskError(
            f"{file}: its rows do not run from north to south along the grid (transform"
            f" {tuple(transform)[:6]}). Warp it to a north-up grid first (gdalwarp, rio warp)."
        )
    code = crs.to_epsg()
    return Grid(f"EPSG:{code}" if code else crs.to_wkt(), left, top, a, -e, shape)


def build(scene: Scene, resolution: float | None, chunks: Any) -> xr.DataArray:
    """Return the scene as a lazy DataArray (time, band, y, x); `chunks` in any form that Dask takes."""
    import dask.array as da
    import xarray as xr
    from dask.base import tokenize

    grid = target_grid(scene.planes, resolution)
    parts = tuple(_part(scene, plane, grid) for plane in scene.planes)
    rows, columns = _chunks(chunks, grid.shape)
    stamps = [_stamp(plane.file) for plane in scene.planes]
    data = da.map_blocks(  # type: ignore[no-untyped-call]
        _read_block,
        chunks=((1,), (1,) * len(parts), rows, columns),
        dtype="float32",
        meta=np.empty((0, 0, 0, 0), dtype="float32"),
        name=f"open-{tokenize(parts, grid, rows, columns, stamps)}",
        parts=parts,
        grid=grid,
        starts=tuple(tuple(accumulate(sizes, initial=0)) for sizes in (rows, columns)),
    )
    array = xr.DataArray(
        data, dims=("time", "band", "y", "x"), coords={"y": grid.y, "x": grid.x}, name="reflectance"
    )
    array = describe_bands(array, [plane.source.band for plane in scene.planes if plane.source.band])
    array = describe_times(array, [scene.time or "NaT"], [scene.item_id], [scene.sensor.name])
    array = describe_sun(array, [[(scene.sun_elevation, scene.sun_azimuth)]])
    return describe_scene(array, levels=[scene.level], sensors=[scene.sensor.name], crs=grid.crs)


def target_grid(planes: Sequence[Plane], resolution: float | None) -> Grid:
    """Return the grid of all bands: the finest band's, or one of `resolution` at its corner."""
    finest = min((plane.grid for plane in planes), key=lambda grid: grid.res_x)
    others = {plane.grid.crs for plane in planes} - {finest.crs}
    if others:
        raise CloudMaskError(
            f"the bands lie in different coordinate systems: {finest.crs[:40]} and {others.pop()[:40]}."
            " Name bands of one of them: bands=[...]"
        )
    if resolution is None:
        return finest
    if isinstance(resolution, bool) or not resolution > 0:
        raise OptionError("resolution", resolution, hint="Give a pixel size above 0 in units of the CRS.")
    left, bottom, right, top = finest.bounds
    if not resolution <= max(right - left, top - bottom):
        raise OptionError(
            "resolution", resolution,
            hint=f"The scene is {right - left:g} by {top - bottom:g} in units of its CRS: give less.",
        )  # fmt: skip
    shape = tuple(math.ceil(round(extent / resolution, 6)) for extent in (top - bottom, right - left))
    return Grid(finest.crs, left, top, float(resolution), float(resolution), (shape[0], shape[1]))


def _part(scene: Scene, plane: Plane, grid: Grid) -> _Part:
    source = replace(plane.source, item_id=scene.item_id, band=None)
    if source.href.startswith(HDF4) and grid != plane.grid:
        raise CloudMaskError(
            f"{plane.file}: an HDF4 file is read on its own grid only. Leave resolution= out; predict()"
            " brings its input to the model's pixel size itself."
        )
    coarser = grid.res_x > plane.grid.res_x * (1 + _SAME)
    return _Part(source, plane.file, "average" if coarser else "nearest")


def _chunks(chunks: Any, shape: tuple[int, int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    from dask.array.core import normalize_chunks

    if isinstance(chunks, dict):
        unknown = set(chunks) - {"y", "x"}
        if unknown:
            raise OptionError(
                "dimension in chunks", unknown.pop(), allowed=("y", "x"),
                hint="Along time and band a chunk always holds one.",
            )  # fmt: skip
        chunks = {0: chunks.get("y", -1), 1: chunks.get("x", -1)}
    try:
        rows, columns = normalize_chunks(  # type: ignore[no-untyped-call]
            chunks, shape=shape, dtype=np.dtype("float32")
        )
        if any(size < 1 for size in (*rows, *columns)):
            raise ValueError("a chunk holds at least one pixel")
    except (ValueError, TypeError, ZeroDivisionError) as error:
        reason = "a chunk holds at least one pixel" if isinstance(error, ZeroDivisionError) else error
        raise OptionError(
            "chunks", chunks, hint=f"{reason}. Give pixels: 1024, (1024, 2048), {{'y': 1024}} or 'auto'."
        ) from error
    return rows, columns


def _stamp(file: str) -> tuple[int, int] | None:
    """Return what changes when a file is rewritten, so that its old pixels are not taken for the new."""
    archive = re.match(r"/vsi\w+/\{(.*?)\}/", file)
    try:
        status = os.stat(archive[1] if archive else file)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size


def _read_block(
    parts: tuple[_Part, ...],
    grid: Grid,
    starts: tuple[tuple[int, ...], tuple[int, ...]],
    block_id: tuple[int, int, int, int],
) -> NDArray[np.float32]:
    """Read one chunk of one band; the only place that opens a file for its pixels."""
    _, band, row, column = block_id
    part = parts[band]
    (top, bottom), (left, right) = starts[0][row : row + 2], starts[1][column : column + 2]
    shape = (bottom - top, right - left)
    if part.source.href.startswith(HDF4):
        return read_hdf4(part.source, (top, left), shape)[None, None]
    href = part.source.href
    transport = _REMOTE if is_zarr(href) and not is_local(href) else _TRANSPORT
    try:
        values = read_layer(Layer((part.source,)), grid.part(top, left, shape), part.resampling, transport)
    except AssetError as error:
        cause = messages(error.__cause__) if error.__cause__ else str(error)
        raise AssetError(
            f"{part.file}: its pixels cannot be read: {cause}. The file may be cut short, or was moved or"
            " replaced after it was opened: fetch the product again, or open() it again."
        ) from error
    return values[None, None]
